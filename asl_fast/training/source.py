"""Where training gets its batches from, and what is done to them in the training step."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from asl_fast.data.pipeline import (
    Batch,
    Span,
    each,
    gathered,
    numbered_batches,
    shared,
    steps_per_epoch,
    training_batches,
    without_autotuning,
)
from asl_fast.data.records import Records
from asl_fast.generator.file_iterators import DataFrameIterator, DirectoryIterator
from asl_fast.generator.image_data_generator import ImageDataGenerator
from asl_fast.generator.iterators import Iterator, NumpyArrayIterator
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize import Standardize

__all__ = ["Kept", "Source", "own_iterator", "source"]

# Records of a stream that are shuffled at a time, 13 MB of 28x28; and bytes, of larger images.
_WINDOW, _WINDOW_BYTES = 16384, 1 << 28

_KERAS_OWN = "keras.src.legacy.preprocessing.image"


class Kept(NamedTuple):
    """Data that are all in memory, and so may lie on the device, to be gathered there.

    Attributes:
        tensors: A structure of tensors of as many rows, or None: on the host.
        batch_size: Int.
        divisible: Bool, whether several batches of a pass can come as one.
        numbered: From a span with steps, and the number of batches to come as one, to a dataset
            of `Batch` without data.
    """

    tensors: Any
    batch_size: int
    divisible: bool
    numbered: Callable[[Span, int], tf.data.Dataset]

    @property
    def size(self) -> int:
        """Bytes."""
        tensors = [t for t in tf.nest.flatten(self.tensors) if t is not None]
        return sum(t.dtype.size * t.shape.num_elements() for t in tensors)


class Source(NamedTuple):
    """Where batches come from.

    Attributes:
        batches: From a span to what Keras is to iterate over.
        in_pass: Batches of one pass, or None if that is not known.
        prepare: What the training step does first: from an element to (x, y) or (x, y, weights).
        held_out: What `validation_split` set apart, or None.
        validation: From stored arrays and a batch size to a dataset of what the network takes;
            None where validation data are such already.
        kept: The same batches by number, or None where they can't be had so.
        own: Bool. False where Keras makes the batches.
        augments: Bool, whether `prepare` changes images at random.
        exact: Bool, whether a span's `done` is heeded: what comes at a step depends on its number
            alone, so that a training can be taken up within an epoch.
        pieces: From a span with steps and a `tf.distribute.InputContext` to the parts of batches
            that the context's devices take, in turn: (what `prepare` takes, the weight of each
            row, so that the mean over devices is that over the batch); or None.
    """

    batches: Callable[[Span], Any]
    in_pass: int | None
    prepare: Callable[[Any], Any]
    held_out: Any = None
    validation: Callable[[Any, int], tf.data.Dataset] | None = None
    kept: Kept | None = None
    own: bool = True
    augments: bool = False
    exact: bool = False
    pieces: Callable[[Span, tf.distribute.InputContext], tf.data.Dataset] | None = None


def source(
    x: Any,
    y: Any,
    sample_weight: Any,
    *,
    batch_size: int | None,
    validation_split: float,
    shuffle: bool,
    augment: RandomAugment | AugmentOptions | ImageDataGenerator | None,
    standardize: Standardize | None,
    seed: int,
) -> Source:
    """Returns where the batches for what `asl_fast.fit` was given come from.

    Raises:
        ValueError: Arguments that don't go with x; names them.
    """
    x = own_iterator(x)
    extras = {"y": y, "sample_weight": sample_weight, "batch_size": batch_size}
    if isinstance(x, Iterator):
        _refuse(x, "which brings its own", **extras, augment=augment, standardize=standardize)
        return _of_iterator(x, shuffle)
    dress = _Dress(augment, standardize, seed)
    if isinstance(x, tf.data.Dataset):
        _refuse(x, "which brings its own", **extras)
        return _of_dataset(x, dress)
    if isinstance(x, Records):
        _refuse(x, "which brings its own", y=y, sample_weight=sample_weight)
        return _of_records(x, batch_size or 32, shuffle, seed, dress)
    parts = x if isinstance(x, list | tuple) else [x]
    if all(hasattr(part, "shape") for part in parts):
        return _of_arrays(
            (x, y, sample_weight), batch_size or 32, validation_split, shuffle, seed, dress
        )
    _refuse(x, "whose batches Keras makes", augment=augment, standardize=standardize, **extras)
    return Source(lambda _: x, None, lambda data: data, own=False)


def own_iterator(x: Any) -> Any:
    """Returns this package's iterator for one of Keras's own; anything else as it is.

    Subclasses of Keras's, whose methods must be called, stay as they are.
    """
    generator = getattr(x, "image_data_generator", None)
    if type(x).__module__ != _KERAS_OWN or type(generator).__module__ not in (
        _KERAS_OWN,
        "builtins",
    ):
        return x
    own = None if generator is None else ImageDataGenerator.from_keras(generator)
    if type(x).__name__ == "DirectoryIterator":
        return DirectoryIterator.from_keras(x, own)
    if type(x).__name__ == "DataFrameIterator":
        return DataFrameIterator.from_keras(x, own)
    return NumpyArrayIterator(
        [x.x, x.x_misc] if x.x_misc else x.x,
        x.y,
        own,
        batch_size=x.batch_size,
        shuffle=x.shuffle,
        sample_weight=x.sample_weight,
        seed=x.seed,
        data_format=x.data_format,
        save_to_dir=x.save_to_dir,
        save_prefix=x.save_prefix,
        save_format=x.save_format,
        dtype=x.dtype,
    )


class _Dress:
    """Makes of stored images what the network takes."""

    def __init__(
        self,
        augment: RandomAugment | AugmentOptions | ImageDataGenerator | None,
        standardize: Standardize | None,
        seed: int,
    ) -> None:
        self._standardize: Callable[[tf.Tensor], tf.Tensor] | None = standardize
        options: AugmentOptions | None = None
        if isinstance(augment, ImageDataGenerator):
            if standardize is not None:
                raise ValueError(
                    "`standardize` must be None where `augment` is an ImageDataGenerator, which "
                    "standardises too"
                )
            self._standardize, options = augment.standardized, augment.augment_options()
        elif isinstance(augment, AugmentOptions):
            options = augment
        layer: RandomAugment | None = None if options else augment  # type: ignore[assignment]
        if options is not None:
            layer = RandomAugment(**dataclasses.asdict(options), seed=seed, dtype="float32")
        self._augment = layer

    @property
    def augments(self) -> bool:
        """Whether images are changed at random."""
        return self._augment is not None and not self._augment.options.idle

    def prepare(self, batch: Batch) -> Any:
        """Augments and standardises a batch whose data are (x, y, weights)."""
        x, y, weights = batch.data
        images = x[0] if isinstance(x, tuple) else x
        if self._augment is not None:
            # The layers behind it may mix images, and then their labels too.
            mixable = self._augment.then and isinstance(y, tf.Tensor) and y.shape.rank == 2
            images = self._augment(
                images, batch.samples, batch.epoch, labels=y if mixable else None, training=True
            )
            images, y = images if mixable else (images, y)
        images = self.standardized(images)
        x = (images, *x[1:]) if isinstance(x, tuple) else images
        return (x, y) if weights is None else (x, y, weights)

    def standardized(self, images: tf.Tensor) -> tf.Tensor:
        """Standardises images that are not to be augmented."""
        if self._standardize is None:
            return tf.cast(images, tf.float32) if images.dtype == tf.uint8 else images
        return self._standardize(tf.cast(images, tf.float32))

    def validation(self, arrays: Any, batch_size: int) -> tf.data.Dataset:
        """Returns batches as the network takes them.

        Args:
            arrays: As stored: (x, y) or (x, y, weights), or `Records`.
            batch_size: Int.
        """

        def dress(x: Any, *rest: Any) -> Any:
            if isinstance(x, tuple):
                return (self.standardized(x[0]), *x[1:]), *rest
            return self.standardized(x), *rest

        if isinstance(arrays, Records):
            stored = arrays.batches(batch_size)
        else:
            with tf.device("CPU"):
                stored = tf.data.Dataset.from_tensor_slices(_as_stored(arrays)).batch(batch_size)
        return without_autotuning(stored.map(dress).prefetch(tf.data.AUTOTUNE))


def _refuse(x: Any, because: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"`{name}` must be None where `x` is a {type(x).__name__}, {because}")


def _of_iterator(iterator: Iterator, shuffle: bool) -> Source:
    def numbered(span: Span, at_once: int) -> tf.data.Dataset:
        return iterator.numbered(shuffle=shuffle, at_once=at_once)

    kept = None
    if iterator.kept is not None:
        kept = Kept(iterator.kept, iterator.batch_size, iterator.divisible, numbered)
    return Source(
        lambda _: iterator.stored(shuffle=shuffle),
        len(iterator),
        iterator.finish,
        kept=kept,
        augments=iterator.augments,
    )


def _of_dataset(dataset: tf.data.Dataset, dress: _Dress) -> Source:
    cardinality = int(dataset.cardinality())

    def batch(number: tf.Tensor, data: Any) -> Batch:
        rows = tf.shape(tf.nest.flatten(data)[0], tf.int64)[0]
        # What a dataset holds has no numbers: each batch is taken for an epoch of its own.
        return Batch(keras.utils.unpack_x_y_sample_weight(data), tf.range(rows), number)

    def batches(span: Span) -> tf.data.Dataset:
        steps = span.steps
        if steps is None and cardinality == tf.data.INFINITE_CARDINALITY:
            raise ValueError("`steps_per_epoch` must be given where `x` is a dataset without end")
        # Without a known length Keras has to see where a pass ends.
        passes = dataset if steps is None else dataset.repeat()
        numbered = passes.enumerate(span.first_epoch * (steps or 0))
        return numbered.map(batch).prefetch(tf.data.AUTOTUNE)

    in_pass = cardinality if cardinality > 0 else None
    return Source(batches, in_pass, dress.prepare, augments=dress.augments)


def _of_records(
    records: Records, batch_size: int, shuffle: bool, seed: int, dress: _Dress
) -> Source:
    in_pass = steps_per_epoch(records.rows, batch_size)
    window = min(_WINDOW, max(1, _WINDOW_BYTES // math.prod(records.shape)))
    order = {"seed": seed, "window": window if shuffle else 0}

    def batch(rows: tf.Tensor, images: tf.Tensor, classes: tf.Tensor, epoch: tf.Tensor) -> Batch:
        return Batch((images, classes, None), rows, epoch)

    def batches(span: Span) -> tf.data.Dataset:
        # Passes need not end where epochs do.
        first_pass, done = divmod(span.first_step, in_pass)
        last_pass = steps_per_epoch(span.last_step, in_pass)
        return records.stream(first_pass, last_pass, batch_size, **order, skip=done).map(batch)

    def pieces(span: Span, context: tf.distribute.InputContext) -> tf.data.Dataset:
        # Each worker reads its own shards, one pass after the other, whatever the others do.
        workers, devices = context.num_input_pipelines, context.num_replicas_in_sync
        mine = records.part(context.input_pipeline_id, workers)
        shares = [
            batch_size // devices + (device < batch_size % devices)
            for device in _devices_of(context)
        ]
        own = sum(shares)
        first_pass, done = divmod(span.first_step * own, mine.rows)
        last_pass = steps_per_epoch(span.last_step * own, mine.rows)
        stream = mine.stream(first_pass, last_pass, own, **order)
        # A batch may hold the end of a pass and the beginning of the next one.
        stream = stream.map(lambda *found: (*found[:-1], tf.fill(tf.shape(found[0]), found[-1])))
        if done:
            stream = stream.unbatch().skip(done).batch(own)
        weights = tf.constant([share * devices / batch_size for share in shares])

        def part(number: tf.Tensor, found: Any) -> tuple[Batch, tf.Tensor]:
            rows, images, classes, epochs = found
            return batch(rows, images, classes, epochs[0]), weights[number % len(shares)]

        # Again and again, as passes are short where a worker of a tf.data service was lost.
        return stream.repeat().rebatch(shares).enumerate().map(part).prefetch(tf.data.AUTOTUNE)

    return Source(
        batches,
        in_pass,
        dress.prepare,
        validation=dress.validation,
        augments=dress.augments,
        exact=not records.service,
        pieces=pieces,
    )


def _of_arrays(
    arrays: Any,
    batch_size: int,
    validation_split: float,
    shuffle: bool,
    seed: int,
    dress: _Dress,
) -> Source:
    arrays = _as_stored(arrays)
    lengths = {len(rows) for rows in tf.nest.flatten(arrays) if rows is not None}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"`x`, `y` and `sample_weight` must have as many rows, at least one. Received: "
            f"{sorted(lengths)}"
        )
    (rows,) = lengths
    held_out = None
    if validation_split:
        kept = int(rows * (1 - validation_split))
        if not 0 < kept < rows:
            raise ValueError(
                f"`validation_split` must leave rows on both sides of {rows}. Received: "
                f"{validation_split!r}"
            )
        held_out = tuple(each(lambda a: a[kept:], part) for part in arrays if part is not None)
        arrays = each(lambda a: a[:kept], arrays)
        rows = kept

    stored = each(lambda array: shared(array)[1], arrays)
    order: dict[str, Any] = {"seed": seed, "shuffle": shuffle}

    def batches(span: Span) -> tf.data.Dataset:
        return training_batches(
            stored,
            batch_size=batch_size,
            first_step=span.first_step,
            steps=span.last_step,
            **order,
        )

    def numbered(span: Span, at_once: int) -> tf.data.Dataset:
        assert span.steps is not None
        several = steps_per_epoch(span.steps, at_once)
        return numbered_batches(
            rows,
            batch_size=batch_size * at_once,
            first_step=span.first_epoch * several + steps_per_epoch(span.done, at_once),
            steps=span.epochs * several,
            **order,
        )

    def pieces(span: Span, context: tf.distribute.InputContext) -> tf.data.Dataset:
        devices, mine = context.num_replicas_in_sync, _devices_of(context)

        def part(whole: Batch, device: tf.Tensor) -> tuple[Batch, tf.Tensor]:
            own = whole.samples[device::devices]
            weight = tf.size(own) * devices / tf.size(whole.samples)
            # A device without a row gets one that counts for nothing.
            own = tf.cond(tf.size(own) > 0, lambda: own, lambda: whole.samples[:1])
            return gathered(stored, whole._replace(samples=own)), tf.cast(weight, tf.float32)

        def parts(whole: Batch) -> tf.data.Dataset:
            numbers = tf.data.Dataset.range(mine[0], mine[-1] + 1)
            return numbers.map(lambda device: part(whole, device))

        whole = numbered_batches(
            rows,
            batch_size=batch_size,
            first_step=span.first_step,
            steps=span.last_step,
            **order,
        )
        return whole.flat_map(parts).prefetch(tf.data.AUTOTUNE)

    return Source(
        batches,
        steps_per_epoch(rows, batch_size),
        dress.prepare,
        held_out,
        dress.validation,
        Kept(stored, batch_size, True, numbered),
        augments=dress.augments,
        exact=True,
        pieces=pieces,
    )


def _devices_of(context: tf.distribute.InputContext) -> range:
    """Returns the numbers, among all, of the devices that a worker feeds."""
    each = context.num_replicas_in_sync // context.num_input_pipelines
    return range(context.input_pipeline_id * each, (context.input_pipeline_id + 1) * each)


def _as_stored(arrays: Any) -> Any:
    """Returns a structure of arrays as `tf.data` takes it, without float64."""
    if isinstance(arrays, list | tuple):
        return tuple(_as_stored(part) for part in arrays)
    if isinstance(arrays, dict):
        return {name: _as_stored(part) for name, part in arrays.items()}
    if arrays is None:
        return None
    array = np.asarray(arrays)
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array

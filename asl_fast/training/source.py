"""Sources: where training gets its batches from, and what its step does to them first."""

import abc
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data.pipeline import (
    Batch,
    Span,
    each,
    gathered,
    mapped,
    numbered_batches,
    shared,
    steps_per_epoch,
    training_batches,
    without_autotuning,
)
from asl_fast.data.records import Records
from asl_fast.generator.iterators import Iterator
from asl_fast.generator.keras_iterators import replace_keras_iterator
from asl_fast.training.arrays import as_arrays, is_arrays
from asl_fast.training.preprocessing import Preprocessing

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "PreparedSource",
    "Source",
    "StoredSource",
    "make_source",
]

DEFAULT_BATCH_SIZE = 32

# Records of a stream that are shuffled at a time, 13 MB of 28x28; and bytes, of larger images.
_WINDOW, _WINDOW_BYTES = 16384, 1 << 28


class Source(abc.ABC):
    """Where batches come from, and what the training step does to them first.

    Attributes:
        prepare: Makes (x, y) or (x, y, weights) of an element of `batches`, in the training step.
        augments: Bool, whether `prepare` changes images at random.
        steps_per_pass: Int, or None if it is unknown.
        batch_size: Int.
        resumable: Bool, whether a batch depends on its step's number alone, so that `batches` can
            begin within an epoch.
        tensors: The rows that batches are gathered from, a structure of tensors in memory and
            None; or None where they are not in memory.
        mergeable: Bool, whether `indices` can merge the batches of several steps.
    """

    steps_per_pass: int | None = None
    batch_size = DEFAULT_BATCH_SIZE
    resumable = False
    tensors: Any = None
    mergeable = False

    def __init__(self, prepare: Callable[[Any], Any], augments: bool = False) -> None:
        self.prepare, self.augments = prepare, augments

    @abc.abstractmethod
    def batches(self, span: Span) -> Any:
        """Returns what Keras iterates over, for a part of the training."""

    def replica_batches(self, span: Span, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns the devices' shares of batches: those of a worker's devices, in turn.

        Args:
            span: With steps.
            context: Names the worker.

        Returns:
            A dataset of (what `prepare` takes, float32 scalar); the latter weighs each row, so that
            the mean over devices is that over the batch.
        """
        return _shares(self.batches(span), context)

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027
        """Is called before Keras iterates over `batches` for an epoch."""

    def resume(self, steps: int) -> None:  # noqa: B027
        """Leaves out the steps of whole epochs, done before the training was resumed.

        Args:
            steps: Int; nothing to do where `Span` tells which part of the training comes next.
        """

    def indices(self, span: Span, steps: int) -> tf.data.Dataset:
        """Returns `batches` without data, to gather from `tensors`.

        Args:
            span: With steps.
            steps: Int, how many steps' batches are merged into one; 1 unless `mergeable`.
        """
        raise AssertionError(f"{type(self).__name__} keeps no rows in memory")

    @property
    def nbytes(self) -> int:
        """Size of `tensors` in bytes."""
        tensors = [t for t in tf.nest.flatten(self.tensors) if t is not None]
        return sum(t.dtype.size * t.shape.num_elements() for t in tensors)


def make_source(
    model: keras.Model,
    x: Any,
    y: Any,
    sample_weight: Any,
    *,
    batch_size: int | None,
    validation_split: float,
    shuffle: bool,
    seed: int,
    **changes: Any,
) -> Source:
    """Returns the source for the arguments of `asl_fast.fit`.

    Args:
        model: Compiled.
        x: As for `fit`.
        y: As for `fit`.
        sample_weight: As for `fit`.
        batch_size: As for `fit`.
        validation_split: As for `fit`; 0.0 where validation data are given.
        shuffle: As for `fit`.
        seed: As for `fit`.
        **changes: `augment`, `standardize` and `targets`, as for `fit`.

    Raises:
        ValueError: Arguments that don't go with x; names them.
    """
    x = replace_keras_iterator(x)
    arrays = is_arrays(x) and not isinstance(x, Records)
    if validation_split and not arrays:
        raise ValueError(
            "`validation_split` is only supported where `x` is arrays: set rows apart and give "
            f"them as `validation_data`. Received: x of the type {type(x).__name__}"
        )
    extras = {"y": y, "sample_weight": sample_weight, "batch_size": batch_size}
    if isinstance(x, Iterator):
        _refuse(x, "which brings its own", **extras, **changes)
        return KerasSource(x.sequence()) if x.by_keras else _IteratorSource(x, shuffle)
    preprocessing = Preprocessing(model, seed=seed, **changes)
    if isinstance(x, tf.data.Dataset):
        _refuse(x, "which brings its own", **extras)
        return _DatasetSource(x, preprocessing)
    batch_size = batch_size or DEFAULT_BATCH_SIZE
    if isinstance(x, Records):
        _refuse(x, "which brings its own", y=y, sample_weight=sample_weight)
        return _RecordsSource(x, batch_size, shuffle, seed, preprocessing)
    if arrays:
        data = _packed(x, y, sample_weight)
        return _ArraySource(data, batch_size, validation_split, shuffle, seed, preprocessing)
    if x is None or isinstance(x, list | dict | str | bytes | int | float):
        raise ValueError(
            "`x` must be arrays, or lists or dictionaries of them, Records, an iterator or a "
            f"tf.data.Dataset. Received: {type(x).__name__}"
        )
    _refuse(x, "whose batches Keras makes", **changes, **extras)
    return KerasSource(x)


def _packed(x: Any, y: Any, sample_weight: Any) -> Any:
    """Returns arrays as `keras.Model.fit` gives their rows to the model's step."""
    x, y = as_arrays("x", x), as_arrays("y", y)
    weights = as_arrays("sample_weight", sample_weight)
    if weights is not None:
        if y is None:
            raise ValueError("`sample_weight` must be None where there is no `y` to weigh")
        if tf.nest.is_nested(y) and not tf.nest.is_nested(weights):
            weights = tf.nest.map_structure(lambda _: weights, y)
        try:
            tf.nest.assert_same_structure(y, weights)
        except (TypeError, ValueError):
            raise ValueError(
                "`sample_weight` must be one array, or arrays in the structure of `y`"
            ) from None
    return keras.utils.pack_x_y_sample_weight(x, y, weights)


def _refuse(x: Any, because: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"`{name}` must be None where `x` is a {type(x).__name__}, {because}")


class KerasSource(Source):
    """Anything else that `keras.Model.fit` takes, whose batches Keras makes."""

    def __init__(self, x: Any) -> None:
        super().__init__(lambda batch: batch)
        self._x = x

    def batches(self, span: Span) -> Any:
        """Returns x."""
        return self._x


class _IteratorSource(Source):
    """What `flow` and the like return."""

    def __init__(self, iterator: Iterator, shuffle: bool) -> None:
        super().__init__(iterator.finish, iterator.augments)
        self._iterator, self._shuffle = iterator, shuffle
        self.steps_per_pass: int = len(iterator)
        self.batch_size = iterator.batch_size
        self.tensors, self.mergeable = iterator.tensors, iterator.mergeable

        self._skipped = 0

    def resume(self, steps: int) -> None:
        passes, self._skipped = divmod(steps, self.steps_per_pass)
        self._iterator.skip_passes(passes, shuffle=self._shuffle)

    def batches(self, span: Span) -> tf.data.Dataset:
        return self._iterator.stored(shuffle=self._shuffle).skip(self._skipped)

    def indices(self, span: Span, steps: int) -> tf.data.Dataset:
        # Merged batches end where epochs and passes do, so that none are skipped.
        numbered = self._iterator.numbered(shuffle=self._shuffle, batches=steps)
        return numbered.skip(self._skipped)


class PreparedSource(Source):
    """Images that are augmented and standardised as `fit` was asked to."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing.prepare, preprocessing.augments)
        self.standardizes = preprocessing.standardizes
        self._standardized = preprocessing.standardized

    def validation(self, stored: Any, batch_size: int) -> tf.data.Dataset:
        """Returns batches of validation data as the network takes them.

        Args:
            stored: (x,), (x, y) or (x, y, weights), `Records`, or a dataset of batches.
            batch_size: Int; not for a dataset.
        """
        if isinstance(stored, tf.data.Dataset):
            # Tuning is up to the user.
            return mapped(stored, self._standardized).prefetch(tf.data.AUTOTUNE)
        if isinstance(stored, Records):
            batches = stored.batches(batch_size)
        else:
            with tf.device("CPU"):
                rows = tf.data.Dataset.from_tensor_slices(stored)
            batches = rows.batch(batch_size)
        return without_autotuning(mapped(batches, self._standardized).prefetch(tf.data.AUTOTUNE))


class _DatasetSource(PreparedSource):
    """A dataset of batches."""

    def __init__(self, dataset: tf.data.Dataset, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing)
        self._dataset = dataset
        self._cardinality = int(dataset.cardinality())
        if not self._cardinality:
            raise ValueError("`x` must yield batches. Received: an empty tf.data.Dataset")
        self.steps_per_pass = self._cardinality if self._cardinality > 0 else None
        with tf.device("CPU"):
            self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)

    def begin_epoch(self, epoch: int) -> None:
        self._epoch.assign(epoch)

    def batches(self, span: Span) -> tf.data.Dataset:
        if span.steps is None and self._cardinality == tf.data.INFINITE_CARDINALITY:
            raise ValueError("`steps_per_epoch` must be given where `x` is an infinite dataset")

        def numbered(number: tf.Tensor, data: Any) -> Batch:
            # A dataset's rows have no numbers: each batch is taken for an epoch of its own.
            return _dataset_batch(data, 0, number)

        if span.steps is not None:
            batches = self._dataset.repeat().enumerate(span.first_epoch * span.steps).map(numbered)
        else:
            # Without a known length Keras has to see where a pass ends, and begins each anew.
            epoch = tf.data.Dataset.from_tensors(0).map(lambda _: self._epoch.read_value())
            batches = epoch.flat_map(self._pass)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _pass(self, epoch: tf.Tensor) -> tf.data.Dataset:
        """Yields the batches of one pass, whose rows are numbered."""

        def batch(seen: tf.Tensor, data: Any) -> tuple[tf.Tensor, Batch]:
            made = _dataset_batch(data, seen, epoch)
            return seen + tf.size(made.samples, tf.int64), made

        return self._dataset.scan(tf.constant(0, tf.int64), batch)


def _dataset_batch(data: Any, first: Any, epoch: tf.Tensor) -> Batch:
    return Batch(data, first + tf.range(_rows(data)), epoch)


def _rows(data: Any) -> tf.Tensor:
    """Returns the number of rows in a batch, int64."""
    for values in tf.nest.flatten(data):
        if isinstance(values, tf.RaggedTensor):
            return tf.cast(values.nrows(), tf.int64)
        if isinstance(values, tf.SparseTensor):
            return values.dense_shape[0]
        if isinstance(values, tf.Tensor) and values.shape.rank != 0:
            return tf.shape(values, tf.int64)[0]
    return tf.constant(0, tf.int64)


class StoredSource(PreparedSource):
    """Images as stored, in memory or on disk: several devices can share a batch of them.

    Attributes:
        held_out: What `validation_split` set apart, or None.
    """

    held_out: Any = None

    def __init__(self, batch_size: int, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing)
        self.batch_size = batch_size


class _RecordsSource(StoredSource):
    """Images and labels streamed from disk."""

    def __init__(
        self,
        records: Records,
        batch_size: int,
        shuffle: bool,
        seed: int,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(batch_size, preprocessing)
        self._records = records
        self.steps_per_pass: int = steps_per_epoch(records.rows, batch_size)
        self.resumable = not records.service
        window = min(_WINDOW, max(1, _WINDOW_BYTES // math.prod(records.shape)))
        self._order = {"seed": seed, "window": window if shuffle else 0}

    def batches(self, span: Span) -> tf.data.Dataset:
        # Passes need not end where epochs do.
        first_pass, skip = divmod(span.first_step, self.steps_per_pass)
        last_pass = steps_per_epoch(span.last_step, self.steps_per_pass)
        stream = self._records.stream(
            first_pass, last_pass, self.batch_size, **self._order, skip=skip
        )
        return stream.map(_record_batch)

    def replica_batches(self, span: Span, context: tf.distribute.InputContext) -> tf.data.Dataset:
        # Each worker reads its own shards, one pass after the other, whatever the others do.
        workers, replicas = context.num_input_pipelines, context.num_replicas_in_sync
        mine = self._records.part(context.input_pipeline_id, workers)
        shares = [
            self.batch_size // replicas + (replica < self.batch_size % replicas)
            for replica in _replicas_of(context)
        ]
        own = sum(shares)
        first_pass, skip = divmod(span.first_step * own, mine.rows)
        last_pass = steps_per_epoch(span.last_step * own, mine.rows)
        stream = mine.stream(first_pass, last_pass, own, **self._order)
        # A batch may hold the end of a pass and the beginning of the next one.
        stream = stream.map(lambda *rows: (*rows[:-1], tf.fill(tf.shape(rows[0]), rows[-1])))
        if skip:
            stream = stream.unbatch().skip(skip).batch(own)
        weights = tf.constant([share * replicas / self.batch_size for share in shares])

        def share(number: tf.Tensor, batch: Any) -> tuple[Batch, tf.Tensor]:
            rows, images, classes, epochs = batch
            return (
                _record_batch(rows, images, classes, epochs[0]),
                weights[number % len(shares)],
            )

        # Repeated, as passes are short where a worker of a tf.data service was lost.
        return stream.repeat().rebatch(shares).enumerate().map(share).prefetch(tf.data.AUTOTUNE)


def _record_batch(
    rows: tf.Tensor, images: tf.Tensor, classes: tf.Tensor, epoch: tf.Tensor
) -> Batch:
    return Batch((images, classes), rows, epoch)


class _ArraySource(StoredSource):
    """Arrays in memory: x, (x, y) or (x, y, weights)."""

    resumable = mergeable = True

    def __init__(
        self,
        arrays: Any,
        batch_size: int,
        validation_split: float,
        shuffle: bool,
        seed: int,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(batch_size, preprocessing)
        lengths = {len(array) for array in tf.nest.flatten(arrays) if array is not None}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "`x`, `y` and `sample_weight` must have the same number of rows, at least one. "
                f"Received: {sorted(lengths)}"
            )
        (rows,) = lengths
        if validation_split:
            total, rows = rows, int(rows * (1 - validation_split))
            if not 0 < rows < total:
                raise ValueError(
                    f"`validation_split` must leave rows on both sides of {total}. Received: "
                    f"{validation_split!r}"
                )
            self.held_out = each(lambda a: a[rows:], arrays)
            arrays = each(lambda a: a[:rows], arrays)
        self._rows = rows
        self.tensors = each(_tensor, arrays)
        self.steps_per_pass = steps_per_epoch(rows, batch_size)
        self._order: dict[str, Any] = {"seed": seed, "shuffle": shuffle}

    def batches(self, span: Span) -> tf.data.Dataset:
        return training_batches(
            self.tensors,
            batch_size=self.batch_size,
            first_step=span.first_step,
            steps=span.last_step,
            **self._order,
        )

    def indices(self, span: Span, steps: int) -> tf.data.Dataset:
        assert span.steps is not None
        elements = steps_per_epoch(span.steps, steps)
        return numbered_batches(
            self._rows,
            batch_size=self.batch_size * steps,
            first_step=span.first_epoch * elements + steps_per_epoch(span.done, steps),
            steps=span.epochs * elements,
            **self._order,
        )

    def replica_batches(self, span: Span, context: tf.distribute.InputContext) -> tf.data.Dataset:
        return _shares(self.indices(span, 1), context, lambda own: gathered(self.tensors, own))


def _tensor(array: Any) -> tf.Tensor:
    return array if isinstance(array, tf.Tensor) else shared(array)[1]


def _shares(
    batches: tf.data.Dataset,
    context: tf.distribute.InputContext,
    complete: Callable[[Batch], Batch] = lambda own: own,
) -> tf.data.Dataset:
    """Shares the rows of each batch among all devices; yields those of a worker's, in turn.

    Every worker goes through all batches, which must come in the same order on each.
    """
    replicas, mine = context.num_replicas_in_sync, _replicas_of(context)

    def share(whole: Batch, replica: tf.Tensor) -> tuple[Batch, tf.Tensor]:
        count = tf.size(whole.samples, tf.int64)
        rows = tf.range(replica, count, replicas)
        weight = tf.size(rows) * replicas / tf.cast(count, tf.int32)
        # A device without a row gets one that counts for nothing.
        rows = tf.cond(tf.size(rows) > 0, lambda: rows, lambda: tf.zeros([1], tf.int64))
        own = each(lambda values: tf.gather(values, rows), whole._replace(epoch=None))
        return complete(own._replace(epoch=whole.epoch)), tf.cast(weight, tf.float32)

    def shares(whole: Batch) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(mine[0], mine[-1] + 1)
        return numbers.map(lambda replica: share(whole, replica))

    return batches.flat_map(shares).prefetch(tf.data.AUTOTUNE)


def _replicas_of(context: tf.distribute.InputContext) -> range:
    """Returns the numbers, among all, of the devices that a worker feeds."""
    per_worker = context.num_replicas_in_sync // context.num_input_pipelines
    first = context.input_pipeline_id * per_worker
    return range(first, first + per_worker)

"""The batches of an iterator as `tf.data` pipelines, augmented by compiled programs.

Several batches are augmented per call, so that images in small batches cost little more than in
large ones.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from asl_fast.data.pipeline import Batch, each, without_autotuning
from asl_fast.generator.numbered import Numbered
from asl_fast.generator.replay import Pass, Replay
from asl_fast.generator.rows import Plan, Rows, chunks
from asl_fast.transforms import augmentation
from asl_fast.transforms.augment_options import PARAMETERS
from asl_fast.transforms.random_augment import RandomAugment

__all__ = ["Pipeline"]

# 16 batches of 32 images of 28x28. With fewer values per call the calls cost more than the pixels;
# with more the first batch waits for its neighbours.
_VALUES_PER_CALL = 16 * 32 * 28 * 28

# As many batches as one call augments; TensorFlow's own choice grows to hundreds.
_PREFETCHED_BATCHES = 16
_NO_PARAMETERS = np.zeros((1, len(PARAMETERS)), np.float32)


class Pipeline:
    """What an iterator's batches are made by, once it is worth compiling.

    Args:
        iterator: An `Iterator`; its rows, options and batch size are taken as they are now.
        books: Its `Numbered` or `Replay`.

    Attributes:
        rows: `Rows`.
        ready: Whether the programs for batches in Python are compiled.
    """

    def __init__(self, iterator: Any, books: Numbered | Replay) -> None:
        self._iterator, self._books = iterator, books
        self._replay = books if isinstance(books, Replay) else None
        self._numbered = books if isinstance(books, Numbered) else None
        if self._numbered is not None:
            self._numbered.share()
        self._generator, self._options = iterator.image_data_generator, iterator.augment_options
        self._dtype, self._batch_size, self._n = iterator.dtype, iterator.batch_size, iterator.n
        self._completes = not iterator.user_code
        self._augment: Any = None
        if self._options is not None and not self._options.idle:
            seed = self._numbered.key if self._numbered else 0
            self._augment = RandomAugment(
                **dataclasses.asdict(self._options), seed=seed, dtype="float32"
            )
        self.rows: Rows = iterator._rows()
        values = self._batch_size * int(np.prod(iterator.image_shape))
        batches = min(max(1, _VALUES_PER_CALL // max(values, 1)), 16) if self._completes else 1
        self._rows_per_call = min(batches * self._batch_size, self._n)
        self._resumed = False  # whether the replay has looked ahead already
        self._one_pass: Any = None
        self._wanted: Any = None
        self._stream: Any = None
        self._streamed: tuple[Any, ...] = ()

    # Datasets.

    def one_pass(self) -> tf.data.Dataset:
        """Returns a dataset of the finished batches of one pass, which begins when it is read."""
        if self._one_pass is None:
            if self._replay is None:
                plans = self._drawn_pass(self._rows_per_call)
            else:
                plans = self._replayed_pass(lambda replay: replay.next_pass()).map(
                    lambda plan: plan._replace(ends=self._ends(self._rows_per_call))
                )
            self._one_pass = without_autotuning(self._in_batches(plans, self._element, self._n))
        return self._one_pass

    def stored(self, *, shuffle: bool = True) -> tf.data.Dataset:
        """Yields batches as they are stored, endlessly; `finish` completes them."""
        stored = self.rows.loaded(self._endless(shuffle, 1))
        return without_autotuning(stored.prefetch(tf.data.AUTOTUNE))

    def numbered(self, *, shuffle: bool = True, batches: int = 1) -> tf.data.Dataset:
        """Yields what `stored` does without data, which the caller gathers from `rows.tensors`."""
        numbered = self._endless(shuffle, batches).flat_map(chunks)
        return without_autotuning(numbered.prefetch(tf.data.AUTOTUNE))

    def skip_passes(self, passes: int, *, shuffle: bool = True) -> None:
        """Leaves out the passes of a training that is resumed, unless they were drawn here."""
        if self._numbered is not None:
            self._numbered.next_pass = max(self._numbered.next_pass, passes)
        elif self._replay is not None and passes and not self._replay.total_batches_seen:
            self._replay.look_ahead()
            for _ in range(passes):
                self._replay.epoch_of_fit(shuffle=shuffle)
            self._resumed = True

    def finish(self, batch: Batch) -> Any:
        """Augments and standardises a batch of `stored`; returns it as the iterator would."""
        return self._element(self._transformed(batch, standardize=True), batch)

    # Batches in Python: images alone, which the iterator completes.

    def images(self, samples: np.ndarray, epoch: int, parameters: np.ndarray | None) -> np.ndarray:
        """Returns the images of one batch, (n, …): augmented, and standardised without user code.

        Args:
            samples: int64, (n,), row numbers.
            epoch: Int, what to draw with.
            parameters: float32, (n, len(PARAMETERS)), or None to draw them.
        """
        if self._wanted is None:
            self._wanted = _Wanted(parameters is not None)
            requests = self.rows.loaded(self._wanted.plans(None).repeat(), parallel=False)
            images = requests.map(lambda batch: self._transformed(batch, self._completes))
            self._requested = iter(images.with_options(_on_demand()))
        self._wanted.set(samples, epoch, parameters)
        return self._requested.__next__().numpy()

    def next_images(self, order: np.ndarray, begin: int, end: int, epoch: int) -> np.ndarray:
        """Returns what `images` does for `order[begin:end]`, of a pass that is read to its end."""
        if self._stream is None:
            self._pass = _Wanted(False)
            plans = self._pass.plans(self._rows_per_call)
            self._stream = without_autotuning(self._in_batches(plans, lambda x, batch: x, None))
        if self._streamed[1:] != (begin, epoch):
            self._pass.set(order[begin:], epoch, None)
            self._streamed = (iter(self._stream), begin, epoch)
        images = self._streamed[0].__next__().numpy()
        self._streamed = (self._streamed[0], end, epoch)
        return images

    def forget_stream(self) -> None:
        """Makes `next_images` begin anew, with another order."""
        self._streamed = ()

    # Parts.

    def _ends(self, rows: int) -> tf.Tensor:
        return tf.minimum(tf.range(0, self._n, rows, tf.int64) + rows, self._n)

    def _drawn_pass(self, chunk_rows: int) -> tf.data.Dataset:
        """Yields the plan of one pass, which takes its number when it starts."""
        assert self._numbered is not None
        numbered, (next_pass, shuffles) = self._numbered, self._numbered.share()

        def begin(_: tf.Tensor) -> Plan:
            epoch = next_pass.assign_add(1) - 1
            positions = tf.range(self._n, dtype=tf.int64)
            order = tf.cond(
                shuffles.read_value(), lambda: numbered.order(positions, epoch), lambda: positions
            )
            return Plan(order, epoch, None, self._ends(chunk_rows))

        return tf.data.Dataset.from_tensors(0).map(begin)

    def _replayed_pass(self, draw: Callable[[Any], Pass]) -> tf.data.Dataset:
        """Yields the plan of one pass, drawn as Keras would when it starts."""
        rows = tf.TensorSpec([None], tf.int64)
        signature = (rows, tf.TensorSpec([None, len(PARAMETERS)], tf.float32), rows)
        drawn = tf.data.Dataset.from_generator(
            lambda: iter([tuple(draw(self._replay))]), output_signature=signature
        )
        return drawn.map(
            lambda order, parameters, ends: Plan(order, tf.int64.min, parameters, ends)
        )

    def _endless(self, shuffle: bool, batches_per_chunk: int) -> tf.data.Dataset:
        """Yields plans of passes in chunks of whole batches, endlessly."""
        self._iterator._warn_unfitted()
        if self._replay is None:
            return self._drawn_pass(self._batch_size * batches_per_chunk).repeat()
        if not self._resumed:
            self._replay.look_ahead()
        self._resumed = False
        return self._replayed_pass(lambda replay: replay.epoch_of_fit(shuffle=shuffle)).repeat()

    def _in_batches(
        self, plans: tf.data.Dataset, complete: Callable[[tf.Tensor, Batch], Any], n: int | None
    ) -> tf.data.Dataset:
        """Yields the finished batches of a plan, of n images in all if that is known."""

        def finish(batch: Batch) -> Any:
            rows = tf.shape(batch.samples)[0]
            missing = self._rows_per_call - rows

            def padded(values: tf.Tensor) -> tf.Tensor:
                full = tf.cond(
                    missing > 0,
                    lambda: tf.concat([values, tf.repeat(values[:1], missing, 0)], 0),
                    lambda: values,
                )
                return tf.ensure_shape(full, [self._rows_per_call, *values.shape[1:]])

            # The last rows of a pass are padded to one size, so that XLA compiles one program.
            images, samples, parameters = each(
                padded, (batch.data[0], batch.samples, batch.parameters)
            )
            whole = Batch((images,), samples, batch.epoch, parameters)
            standardize = complete == self._element or self._completes
            return complete(self._transformed(whole, standardize)[:rows], batch)

        calls = tf.data.AUTOTUNE if self._completes else None
        batches = (
            self.rows.loaded(plans).map(finish, num_parallel_calls=calls).rebatch(self._batch_size)
        )
        if n is not None:
            steps = -(-n // self._batch_size)
            batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
        if self._completes:
            return batches.prefetch(_PREFETCHED_BATCHES)
        # Nothing that a user can see happens ahead of demand.
        return batches.with_options(_on_demand())

    def _transformed(self, batch: Batch, standardize: bool) -> tf.Tensor:
        images = batch.data[0]
        if self._augment is None:
            pixels = tf.cast(images, tf.float32)
        elif batch.parameters is None:
            pixels = self._augment(images, samples=batch.samples, epoch=batch.epoch, training=True)
        else:
            parameters = augmentation.from_table(batch.parameters, self._options)
            pixels = self._augment.apply(images, parameters)
        if standardize and self._generator is not None:
            pixels = self._generator.standardized(pixels)
        return tf.cast(pixels, self._dtype)

    def _element(self, x: tf.Tensor, batch: Batch) -> Any:
        misc, y, weights = batch.data[1]
        iterator = self._iterator
        if iterator.save_to_dir:
            # On the host, because any format that Pillow can write may be asked for.
            x = tf.ensure_shape(
                tf.numpy_function(iterator._save, [x, batch.samples], x.dtype), x.shape
            )
        inputs = (x, *misc) if misc else x
        if not iterator.labelled:
            return inputs
        y = x if iterator.labels_are_images else y
        return (inputs, y) if weights is None else (inputs, y, weights)


class _Wanted:
    """Variables that say which rows a pipeline reads next."""

    def __init__(self, with_parameters: bool) -> None:
        with tf.device("CPU"):
            self._variables = (
                tf.Variable([0], shape=[None], dtype=tf.int64, trainable=False),
                tf.Variable(0, dtype=tf.int64, trainable=False),
                tf.Variable(_NO_PARAMETERS, shape=[None, len(PARAMETERS)])
                if with_parameters
                else None,
            )

    def set(self, samples: np.ndarray, epoch: int, parameters: np.ndarray | None) -> None:
        for variable, value in zip(self._variables, (samples, epoch, parameters), strict=True):
            if variable is not None:
                variable.assign(value)

    def plans(self, chunk_rows: int | None) -> tf.data.Dataset:
        """Yields one plan, in chunks of so many rows, or in one."""

        def read(_: tf.Tensor) -> Plan:
            samples, epoch, parameters = each(lambda v: v.read_value(), self._variables)
            n = tf.shape(samples, tf.int64)[0]
            size = n if chunk_rows is None else chunk_rows
            ends = tf.minimum(tf.range(0, n, size) + size, n)
            return Plan(samples, epoch, parameters, ends)

        return tf.data.Dataset.from_tensors(0).map(read)


def _on_demand() -> tf.data.Options:
    """Returns options for a dataset that computes an element only when asked for it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.inject_prefetch = False
    return options

"""The input pipeline: shuffled, prefetched batches that carry their samples' numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

__all__ = [
    "Batch",
    "Span",
    "each",
    "gathered",
    "mapped",
    "numbered_batches",
    "shared",
    "shuffled",
    "steps_per_epoch",
    "training_batches",
    "without_autotuning",
    "without_none",
]

# In bytes; TensorFlow shares only memory that is aligned so.
_ALIGNMENT = 64

# Of the block cipher behind `RandomIndexShuffle`. With TensorFlow's default of 4 the orders of
# successive epochs correlate (|r| 0.33 over 27,455 rows; 0.13 with 6 rounds); from 8 on they don't
# (0.004, as for random permutations).
_SHUFFLE_ROUNDS = 12


class Batch(NamedTuple):
    """A batch as the training step receives it.

    Attributes:
        data: The rows of the arrays, in the structure that they were given in.
        samples: int64, (n,), the rows' numbers in the data set.
        epoch: int64 scalar, from 0, the pass over the data set.
        parameters: float32, (n, columns), of each image's augmentation; None if they are still to
            be drawn, from samples and epoch.
    """

    data: Any
    samples: tf.Tensor
    epoch: tf.Tensor
    parameters: tf.Tensor | None = None


class Span(NamedTuple):
    """A part of a training.

    Attributes:
        first_epoch: The epoch to begin with.
        epochs: The epoch to end before.
        steps: Steps of an epoch, or None if unknown.
        done: Steps of the first epoch to leave out.
    """

    first_epoch: int
    epochs: int
    steps: int | None
    done: int = 0

    @property
    def first_step(self) -> int:
        """The step to begin with, counted over all epochs; needs `steps`."""
        assert self.steps is not None
        return self.first_epoch * self.steps + self.done

    @property
    def last_step(self) -> int:
        """The step to end before, counted over all epochs; needs `steps`."""
        assert self.steps is not None
        return self.epochs * self.steps


def each(function: Callable[[Any], Any], structure: Any) -> Any:
    """Applies a function to every value of a structure that is not None."""
    return tf.nest.map_structure(lambda v: None if v is None else function(v), structure)


def shared(array: np.ndarray, dtype: Any = None) -> tuple[np.ndarray, tf.Tensor]:
    """Returns an array and a tensor on the CPU that share their memory.

    Copies an array once if it has another dtype or is not contiguous, writable and aligned.

    Args:
        array: Of numbers.
        dtype: The dtype to convert to, or None.
    """
    dtype = np.dtype(dtype or array.dtype)
    fits = array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable
    if not fits or array.ctypes.data % _ALIGNMENT:
        memory = np.empty(array.size * dtype.itemsize + _ALIGNMENT, np.uint8)
        begin = -memory.ctypes.data % _ALIGNMENT
        copy = memory[begin : begin + array.size * dtype.itemsize].view(dtype)
        copy = copy.reshape(array.shape)
        copy[...] = array
        array = copy
    return array, tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch; the last may be smaller."""
    return -(-rows // batch_size)


def shuffled(positions: tf.Tensor, rows: int | tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the rows at these positions of an epoch's order.

    The order is a permutation computed from (seed, epoch) alone, without a shuffle buffer.

    Args:
        positions: int64, below `rows`.
        rows: At least 1.
        seed: In [0, 2**32).
        epoch: Integer scalar.
    """
    return tf.raw_ops.RandomIndexShuffle(
        index=positions,
        seed=tf.stack([tf.constant(seed, tf.uint32), tf.cast(epoch, tf.uint32), 0]),
        max_index=tf.cast(rows - 1, tf.int64),
        rounds=_SHUFFLE_ROUNDS,
    )


def gathered(stored: Any, batch: Batch) -> Batch:
    """Returns a batch with the rows of its samples as data.

    Args:
        stored: A structure of tensors, or None, of the same number of rows.
        batch: Without data.
    """
    return batch._replace(data=each(lambda rows: tf.gather(rows, batch.samples), stored))


def mapped(dataset: tf.data.Dataset, function: Callable[[Any], Any]) -> tf.data.Dataset:
    """Maps a function of whole elements: TensorFlow gives those that are tuples in pieces."""
    whole = type(dataset.element_spec) is not tuple
    return dataset.map(
        lambda *element: function(element[0] if whole else element), tf.data.AUTOTUNE
    )


def numbered_batches(
    rows: int,
    *,
    batch_size: int,
    first_step: int = 0,
    steps: int,
    seed: int = 0,
    shuffle: bool = True,
    then: Callable[[Batch], Batch] = lambda batch: batch,
) -> tf.data.Dataset:
    """Yields the row numbers of passes, one after the other, each in an order of its own.

    A step's rows are computed from (seed, step) alone, and prefetching runs across the ends of
    passes.

    Args:
        rows: The number of rows, at least 1.
        batch_size: At least 1. The last batch of a pass may be smaller.
        first_step: The step to begin with, counted over all passes.
        steps: The step to end before.
        seed: In [0, 2**32).
        shuffle: Whether to shuffle; otherwise rows come in their order.
        then: Applied to each batch, in parallel.

    Returns:
        A dataset of `Batch` without data, `steps - first_step` long.
    """
    in_pass = steps_per_epoch(rows, batch_size)

    def batch(step: tf.Tensor) -> Batch:
        epoch, place = step // in_pass, step % in_pass
        samples = tf.range(place * batch_size, tf.minimum((place + 1) * batch_size, rows))
        if shuffle:
            samples = shuffled(samples, rows, seed, epoch)
        return then(Batch(None, samples, epoch))

    return without_autotuning(
        tf.data.Dataset.range(first_step, steps)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def training_batches(arrays: Any, **arguments: Any) -> tf.data.Dataset:
    """Yields batches as `numbered_batches` does, with their data.

    Args:
        arrays: A structure of arrays, tensors or None of the same number of rows, as (images,
            labels, None).
        **arguments: As for `numbered_batches`.
    """
    stored = each(lambda a: a if isinstance(a, tf.Tensor) else shared(np.asarray(a))[1], arrays)
    rows = len(tf.nest.flatten(stored)[0])
    return numbered_batches(rows, **arguments, then=lambda batch: gathered(stored, batch))


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Disables autotuning, so that the iterators of a dataset shut down promptly.

    TensorFlow tunes each iterator in a thread that wakes ever more rarely, at last once a minute.
    When the iterator is deleted, the thread is woken before it can see why (`OptimizeLoop` in
    tensorflow/core/framework/model.cc) and may go back to sleep, with the training waiting for it:
    after one deletion in ten, on two busy cores. `AUTOTUNE` still means one parallel call a core
    and a buffer of sufficient length.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def without_none(dataset: tf.data.Dataset) -> tuple[tf.data.Dataset, Callable[[Any], Any]]:
    """Returns a dataset of flat tuples without None, and the function that restores an element."""
    structure = tf.nest.map_structure(lambda spec: spec, dataset.element_spec)
    none = type(tf.data.Dataset.from_tensors((0, None)).element_spec[1])
    there = [not isinstance(spec, none) for spec in tf.nest.flatten(structure)]

    def values(*element: Any) -> tuple[tf.Tensor, ...]:
        element = element[0] if len(element) == 1 else element
        return tuple(v for v in tf.nest.flatten(element) if v is not None)

    def rebuilt(values: tuple[tf.Tensor, ...]) -> Any:
        rest = iter(values)
        flat = [next(rest) if here else None for here in there]
        return tf.nest.pack_sequence_as(structure, flat)

    return dataset.map(values), rebuilt

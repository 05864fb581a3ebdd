"""The input pipeline: shuffled batches, prefetched, each element knowing what it is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

__all__ = [
    "Batch",
    "Span",
    "each",
    "gathered",
    "numbered_batches",
    "shared",
    "shuffled",
    "steps_per_epoch",
    "training_batches",
    "without_autotuning",
    "without_none",
]

# In bytes; TensorFlow refuses to share memory that begins elsewhere.
_ALIGNMENT = 64

# Of the block cipher behind `RandomIndexShuffle`. With TensorFlow's default of 4 the orders of
# successive epochs correlate (|r| 0.33 over 27,455 rows; 0.13 with 6 rounds), from 8 on they do
# not (0.004, as for random permutations).
_SHUFFLE_ROUNDS = 12


class Batch(NamedTuple):
    """A batch as the training step receives it.

    Attributes:
        data: The rows of the arrays, in the structure that they were given in.
        samples: int64, (n,): the rows' numbers in the data set.
        epoch: int64 scalar, from 0: the pass over the data set.
        parameters: float32, (n, columns): what happens to each image; None: drawn from the above.
    """

    data: Any
    samples: tf.Tensor
    epoch: tf.Tensor
    parameters: tf.Tensor | None = None


class Span(NamedTuple):
    """Which part of a training.

    Attributes:
        first_epoch: Int.
        epochs: Int, the epoch to end before.
        steps: Int, of an epoch, or None if that is not known.
        done: Int, the first epoch's steps that are left out.
    """

    first_epoch: int
    epochs: int
    steps: int | None
    done: int = 0

    @property
    def first_step(self) -> int:
        """The step to begin with, counted over all epochs, whose steps are known."""
        assert self.steps is not None
        return self.first_epoch * self.steps + self.done

    @property
    def last_step(self) -> int:
        """The step to end before, counted likewise."""
        assert self.steps is not None
        return self.epochs * self.steps


def each(function: Callable[[Any], Any], structure: Any) -> Any:
    """Applies a function to every value of a structure but None."""
    return tf.nest.map_structure(lambda v: None if v is None else function(v), structure)


def shared(array: np.ndarray, dtype: Any = None) -> tuple[np.ndarray, tf.Tensor]:
    """Returns an array and a tensor on the CPU that are the same memory.

    Copies at most once: where the array has another dtype, or does not begin where TensorFlow can
    use it in place.

    Args:
        array: Of numbers.
        dtype: What to convert to, or None.
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
    """Returns the number of batches in an epoch; the last may be short."""
    return -(-rows // batch_size)


def shuffled(positions: tf.Tensor, rows: int | tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns which rows stand at these positions of an epoch's order.

    A permutation computed from (seed, epoch) alone: there is no shuffle buffer to fill.

    Args:
        positions: int64, below `rows`.
        rows: Int, at least 1.
        seed: Int in [0, 2**32).
        epoch: Integer scalar.
    """
    return tf.raw_ops.RandomIndexShuffle(
        index=positions,
        seed=tf.stack([tf.constant(seed, tf.uint32), tf.cast(epoch, tf.uint32), 0]),
        max_index=tf.cast(rows - 1, tf.int64),
        rounds=_SHUFFLE_ROUNDS,
    )


def gathered(stored: Any, batch: Batch) -> Batch:
    """Returns a batch with its data: the rows that its samples name.

    Args:
        stored: A structure of tensors of as many rows, or None.
        batch: Without data.
    """
    return batch._replace(data=each(lambda rows: tf.gather(rows, batch.samples), stored))


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
    """Yields the numbers of the rows of passes, one after the other, each in an order of its own.

    A step's rows are computed from (seed, step) alone, and the prefetching runs on over the ends
    of passes.

    Args:
        rows: Int, at least 1, of the arrays that the numbers are of.
        batch_size: Int, at least 1. The last batch of a pass holds what is left.
        first_step: Int, the step to begin with, counted over all passes.
        steps: Int, the step to end before.
        seed: Int in [0, 2**32).
        shuffle: Bool. False takes the rows as they stand.
        then: What else is done to each batch.

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
        arrays: A structure of arrays or tensors of as many rows, or None, as (images, labels,
            None).
        **arguments: As for `numbered_batches`.
    """
    stored = each(lambda a: a if isinstance(a, tf.Tensor) else shared(np.asarray(a))[1], arrays)
    rows = len(tf.nest.flatten(stored)[0])
    return numbered_batches(rows, **arguments, then=lambda batch: gathered(stored, batch))


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset whose iterators end at once, as does what is made of it.

    TensorFlow tunes each iterator in a thread that looks around ever more rarely, at last once a
    minute. When the iterator is deleted, the thread is woken before it can see why (`OptimizeLoop`
    in tensorflow/core/framework/model.cc), and where it is quick it sleeps on; the training waits
    for it. One deletion in ten did, on two busy cores. `AUTOTUNE` still stands for as many calls
    at once as there are cores, and for as long a buffer as is needed.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def without_none(dataset: tf.data.Dataset) -> tuple[tf.data.Dataset, Callable[[Any], Any]]:
    """Returns a dataset of plain tuples without None, and what makes of one what it was."""
    structure = tf.nest.map_structure(lambda spec: spec, dataset.element_spec)
    there = [isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(structure)]

    def values(*element: Any) -> tuple[tf.Tensor, ...]:
        element = element[0] if len(element) == 1 else element
        return tuple(v for v in tf.nest.flatten(element) if v is not None)

    def rebuilt(values: tuple[tf.Tensor, ...]) -> Any:
        rest = iter(values)
        flat = [next(rest) if here else None for here in there]
        return tf.nest.pack_sequence_as(structure, flat)

    return dataset.map(values), rebuilt

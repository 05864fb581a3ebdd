"""The images of an iterator and what goes with them, as a `tf.data` pipeline loads them."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from asl_fast.data.pipeline import Batch, each, gathered, shared
from asl_fast.images.decode import load_image
from asl_fast.images.file_types import MOST_PIXELS
from asl_fast.system.errors import InputError

__all__ = ["ERROR_PREFIX", "ArrayRows", "FileRows", "Plan", "Rows", "chunks"]

# Marks the pipeline's messages about the user's files within the text that TensorFlow adds.
ERROR_PREFIX = "asl_fast: "
UNREADABLE = (
    f": it is missing, truncated, not an image or larger than {MOST_PIXELS:,} pixels. Repair or "
    "remove it, or pass on_error='skip'."
)


class Plan(NamedTuple):
    """Which images to process, in which order and chunks.

    Attributes:
        samples: int64, (n,), row numbers.
        epoch: int64 scalar, the number of the pass.
        parameters: float32, (n, len(PARAMETERS)), or None to draw from `epoch` and `samples`.
        ends: int64, (chunks,), where each chunk ends.
    """

    samples: tf.Tensor
    epoch: tf.Tensor
    parameters: tf.Tensor | None
    ends: tf.Tensor


def chunks(plan: Plan) -> tf.data.Dataset:
    """Yields the chunks of a plan, each a `Batch` without data."""

    def chunk(begin: tf.Tensor, end: tf.Tensor) -> Batch:
        samples, parameters = each(lambda rows: rows[begin:end], (plan.samples, plan.parameters))
        return Batch(None, samples, plan.epoch, parameters)

    begins = tf.concat([[0], plan.ends[:-1]], 0)
    return tf.data.Dataset.from_tensor_slices((begins, plan.ends)).map(chunk)


class Rows(abc.ABC):
    """Rows by number.

    Attributes:
        tensors: What batches are gathered from, or None if images are read from files.
    """

    tensors: Any = None

    @abc.abstractmethod
    def loaded(self, plans: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        """Turns each `Plan` into its chunks; their data are (images, (inputs, labels, weights))."""


class ArrayRows(Rows):
    """Rows of arrays.

    Args:
        images: uint8 or floating, (n, height, width, channels) or channels first.
        others: Other inputs, labels and weights: a structure of arrays of n rows and None.

    Raises:
        InputError: TensorFlow has no type for the labels.
    """

    def __init__(self, images: np.ndarray, others: Any) -> None:
        _, pixels = shared(images)
        with tf.device("CPU"):
            self.tensors = (pixels, each(as_tensor, others))

    def loaded(self, plans: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        """Gathers the rows."""
        calls = tf.data.AUTOTUNE if parallel else None
        return plans.flat_map(chunks).map(
            lambda batch: gathered(self.tensors, batch), num_parallel_calls=calls
        )


def as_tensor(values: np.ndarray) -> tf.Tensor:
    """Returns labels or weights as a tensor; refuses what TensorFlow has no type for."""
    try:
        return tf.convert_to_tensor(values)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Labels of the dtype {values.dtype} can't be used for training or in a tf.data "
            "pipeline, which have no such type: give numbers, booleans or strings, or draw the "
            "batches with next(…) or a for loop"
        ) from error


class FileRows(Rows):
    """Image files and their labels.

    Args:
        paths: Of the files.
        labels_of: Function from row numbers to (inputs, labels, weights).
        batch_size: Int, files that are checked together.
        image_shape: Of the images, channels first or last.
        first: Bool, whether channels come first.
        **options: As for `load_image`.
    """

    def __init__(
        self,
        paths: list[Any],
        labels_of: Callable[[tf.Tensor], Any],
        batch_size: int,
        image_shape: tuple[int, ...],
        first: bool,
        **options: Any,
    ) -> None:
        with tf.device("CPU"):
            self._paths = tf.constant(paths, tf.string)
        self._labels_of, self._batch_size = labels_of, batch_size
        self._image_shape, self._first, self._options = image_shape, first, options

    def load(self, path: tf.Tensor) -> tf.Tensor:
        """Returns an image."""
        image = load_image(path, **self._options)
        return tf.transpose(image, [2, 0, 1]) if self._first else image

    def loaded(self, plans: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        """Reads the files."""
        return plans.flat_map(self._read)

    def _read(self, plan: Plan) -> tf.data.Dataset:
        """Reads the files of a plan; yields its chunks with data.

        TensorFlow's errors don't say which file they are about. So files with errors are dropped,
        and a gap in the numbering tells which; a sentinel after the last file reveals a gap there.
        """
        rows = tf.shape(plan.samples, tf.int64)[0]
        size = self._batch_size

        def load(position: tf.Tensor, sample: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def sentinel() -> tf.Tensor:
                grey = self._options["color_mode"] == "grayscale"
                return tf.zeros(self._image_shape, tf.float32 if grey else tf.uint8)

            image = tf.cond(sample < 0, sentinel, lambda: self.load(tf.gather(self._paths, sample)))
            return position, image

        def check(number: tf.Tensor, loaded: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            positions, images = loaded
            expected = number * size + tf.range(tf.shape(images, tf.int64)[0])
            with tf.control_dependencies([self._assert_equal(positions, expected, plan.samples)]):
                return images[: rows - number * size]

        images = (
            tf.data.Dataset.from_tensor_slices(tf.concat([plan.samples, [-1]], 0))
            .enumerate()
            .map(load, num_parallel_calls=tf.data.AUTOTUNE)
            .ignore_errors()
            .batch(size)
            .enumerate()
            .map(check)
            .take(-(-rows // size))
            .rebatch(plan.ends - tf.concat([[0], plan.ends[:-1]], 0))
        )

        def complete(batch: Batch, images: tf.Tensor) -> Batch:
            return batch._replace(data=(images, self._labels_of(batch.samples)))

        return tf.data.Dataset.zip(chunks(plan), images).map(complete)

    def _assert_equal(
        self, positions: tf.Tensor, expected: tf.Tensor, samples: tf.Tensor
    ) -> tf.Operation:
        def fail() -> tf.Operation:
            missing = expected[tf.argmax(positions != expected)]
            path = tf.gather(self._paths, tf.gather(samples, missing))
            begin = f"{ERROR_PREFIX}cannot identify image file "
            return tf.debugging.Assert(False, [tf.strings.join([begin, path, UNREADABLE])])

        return tf.cond(tf.reduce_all(positions == expected), tf.no_op, fail)

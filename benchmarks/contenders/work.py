"""The work that every contender does, and the ways of taking batches from it and timing them."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from benchmarks.cell import timed

__all__ = [
    "COURSE",
    "Contender",
    "Feed",
    "Work",
    "from_calls",
    "from_dataset",
    "from_keras_iterator",
    "from_py_dataset",
    "noise",
]


@dataclasses.dataclass(frozen=True)
class Work:
    """The augmentation of one image: bilinear, fill mode `nearest`.

    Attributes:
        rotation: Degrees, the largest angle to either side.
        zoom: Pair of factors by which an image shrinks, drawn for each axis on its own.
        shift: Fraction of a side, the largest shift to either side, drawn for each axis on its own.
        flip: Whether every second image is mirrored.
    """

    rotation: float = 10.0
    zoom: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.1
    flip: bool = True

    def options(self) -> dict[str, Any]:
        """Returns the options of Keras's generator, which are those of our layer and drop-in."""
        return {
            "rotation_range": self.rotation,
            "zoom_range": self.zoom,
            "width_shift_range": self.shift,
            "height_shift_range": self.shift,
            "horizontal_flip": self.flip,
        }

    def layers(self, package: Any) -> list[keras.layers.Layer]:
        """Returns the layers of Keras or KerasCV, without those that would change nothing."""
        zoom = tuple(round(factor - 1, 6) for factor in self.zoom)
        layers = []
        if self.rotation:
            layers.append(package.RandomRotation(self.rotation / 360, fill_mode="nearest"))
        if any(zoom):
            layers.append(package.RandomZoom(zoom, zoom, fill_mode="nearest"))
        if self.shift:
            layers.append(package.RandomTranslation(self.shift, self.shift, fill_mode="nearest"))
        if self.flip:
            layers.append(package.RandomFlip("horizontal"))
        return layers


COURSE = Work().options()


class Feed(NamedTuple):
    """A contender, ready to run.

    Attributes:
        seconds: Takes `count` and `before`; returns the seconds that `count` batches take after
            `before` others, which empty the prefetch buffers and let a pipeline settle. Nothing
            runs on afterwards.
        batch: Returns the next images, float32, (batch, side, side, channels).
    """

    seconds: Callable[[int, int], float]
    batch: Callable[[], np.ndarray]


# Takes images, uint8 of shape (n, side, side, channels), the batch size and the work.
Contender = Callable[[np.ndarray, int, Work], Feed]


def noise(rows: int = 27455, side: int = 28, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, uint8, and one-hot labels of 24 letters, float32."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows, side, side, channels), np.uint8)
    return images, np.eye(24, dtype=np.float32)[random.integers(0, 24, rows)]


def from_dataset(
    dataset: tf.data.Dataset, step: Callable[[Any], tf.Tensor] = lambda images: images
) -> Feed:
    """Takes batches inside TensorFlow, as Keras's `fit` does, from an endless dataset."""

    @tf.function
    def run(iterator: Any, count: tf.Tensor) -> tf.Tensor:
        seen = tf.constant(0.0)
        for _ in tf.range(count):
            seen += step(iterator.get_next())[-1, -1, -1, 0]
        return seen

    def seconds(count: int, before: int) -> float:
        iterator = iter(dataset)  # a new one: an idle iterator would go on prefetching
        run(iterator, tf.constant(before))
        return timed(lambda: float(run(iterator, tf.constant(count))))

    return Feed(seconds, map(np.asarray, map(step, dataset)).__next__)


def from_calls(call: Callable[[], Any]) -> Feed:
    """Takes batches by calling a function from Python."""

    def run(count: int) -> None:
        for _ in range(count):
            result = call()
        np.asarray(result)[-1, -1, -1, 0]

    def seconds(count: int, before: int) -> float:
        run(before)
        return timed(lambda: run(count))

    return Feed(seconds, lambda: np.asarray(call()))


@contextlib.contextmanager
def from_keras_iterator(
    iterator: Any, workers: int = 1, processes: bool = False
) -> Iterator[tf.data.Dataset]:
    """Yields the dataset that `keras.Model.fit` makes of a `PyDataset`.

    Args:
        iterator: A `PyDataset`, such as `flow` of Keras's generator returns.
        workers: Int. Keras's iterators accept it only after they are made.
        processes: Bool, whether the workers are processes rather than threads.
    """
    iterator.workers, iterator.use_multiprocessing = workers, processes
    adapter = PyDatasetAdapter(iterator, shuffle=False)
    dataset = adapter.get_tf_dataset()
    adapter.on_epoch_begin()
    try:
        yield dataset
    finally:
        adapter.on_epoch_end()


def from_py_dataset(iterator: Any, workers: int, processes: bool) -> Feed:
    """Takes batches from a `PyDataset`, epoch after epoch, with new workers for each."""

    @tf.function(reduce_retracing=True)
    def run(iterator: Any, count: tf.Tensor) -> tf.Tensor:
        seen = tf.constant(0.0)
        for _ in tf.range(count):
            seen += tf.nest.flatten(iterator.get_next())[0][-1, -1, -1, 0]
        return seen

    def seconds(count: int, before: int) -> float:
        # The workers' queue must be empty when the clock starts, as a fast consumer keeps it.
        drained = max(before, 1 + 2 * workers if workers > 1 else 1)
        taken, remaining = 0.0, count
        while remaining:
            with from_keras_iterator(iterator, workers, processes) as dataset:
                batches = iter(dataset)
                drained = min(drained, len(iterator) // 2)
                run(batches, tf.constant(drained))
                now = min(remaining, len(iterator) - drained)
                taken += timed(lambda b=batches, n=now: float(run(b, tf.constant(n))))
                remaining -= now
        return taken

    def batch() -> np.ndarray:
        # Keras's own iterators shuffle in `next` only.
        element = next(iterator) if hasattr(iterator, "next") else iterator[0]
        return np.asarray(element[0] if isinstance(element, tuple) else element)

    return Feed(seconds, batch)

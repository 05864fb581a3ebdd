"""What is compared: pipelines of shuffled, augmented float32 batches, by the course's options.

Each is a context manager that yields a `tf.data.Dataset` of batches of images and one-hot labels.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

__all__ = ["COURSE", "data", "from_keras_iterator", "keras_layers"]

COURSE: dict[str, Any] = {
    "rotation_range": 10,
    "zoom_range": 0.1,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "horizontal_flip": True,
}


def data(rows: int = 27455, side: int = 28, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, float32 in [0, 1], and one-hot labels of 24 letters."""
    random = np.random.default_rng(0)
    images = random.random((rows, side, side, channels), np.float32)
    return images, np.eye(24, dtype=np.float32)[random.integers(0, 24, rows)]


@contextlib.contextmanager
def from_keras_iterator(
    iterator: Any, workers: int = 1, processes: bool = False
) -> Iterator[tf.data.Dataset]:
    """Feeds as `keras.Model.fit` does from one of Keras's own iterators.

    Args:
        iterator: What `flow` or `flow_from_directory` of Keras's generator returned.
        workers: Int; Keras's iterators take it only once they are made.
        processes: Bool, whether the workers are processes, not threads.
    """
    iterator.workers, iterator.use_multiprocessing = workers, processes
    adapter = PyDatasetAdapter(iterator, shuffle=False)
    dataset = adapter.get_tf_dataset()
    adapter.on_epoch_begin()
    try:
        yield dataset
    finally:
        adapter.on_epoch_end()


@contextlib.contextmanager
def keras_layers(
    images: np.ndarray, labels: np.ndarray, batch_size: int
) -> Iterator[tf.data.Dataset]:
    """Keras's preprocessing layers on whole batches in `tf.data`, parallel and prefetched."""
    layers = keras.Sequential(
        [
            keras.layers.RandomRotation(10 / 360, fill_mode="nearest"),
            keras.layers.RandomZoom((-0.1, 0.1), (-0.1, 0.1), fill_mode="nearest"),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
            keras.layers.RandomFlip("horizontal"),
        ]
    )
    x, y = tf.constant(images), tf.constant(labels)

    def batch(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return layers(tf.gather(x, rows), training=True), tf.gather(y, rows)

    # Numbers are cheaper to shuffle than images.
    yield (
        tf.data.Dataset.range(len(images))
        .shuffle(len(images))
        .batch(batch_size)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )

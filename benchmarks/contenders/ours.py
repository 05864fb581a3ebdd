"""This package's contenders, and the limit: the same pipelines without augmentation."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

import asl_fast
from asl_fast.data.pipeline import Batch, gathered, numbered_batches, training_batches
from benchmarks.contenders.rivals import mapped_rows
from benchmarks.contenders.work import Feed, Work, from_calls, from_dataset

__all__ = ["cast", "cast_alone", "flow", "layer_alone", "resident", "streamed"]


def layer_alone(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    prepare = _prepare(work)
    batch = tf.constant(images[:batch_size])
    step = tf.function(lambda: prepare(batch))
    return from_calls(lambda: step().numpy())


def flow(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    generator = asl_fast.ImageDataGenerator(**work.options())
    labels = np.zeros((len(images), 24), np.float32)
    batches = generator.flow(images / np.float32(255), labels, batch_size=batch_size)
    return from_dataset(batches.repeat().map(lambda images, labels: images))


def streamed(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    prepare = _prepare(work)
    batches = training_batches(images, batch_size=batch_size, steps=2**40)
    return from_dataset(
        batches, lambda batch: prepare(batch.data, samples=batch.samples, epoch=batch.epoch)
    )


def resident(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    prepare, stored = _prepare(work), tf.constant(images)

    def step(batch: Batch) -> tf.Tensor:
        batch = gathered(stored, batch)
        return prepare(batch.data, samples=batch.samples, epoch=batch.epoch)

    return from_dataset(numbered_batches(len(images), batch_size=batch_size, steps=2**40), step)


def cast_alone(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    batch = tf.constant(images[:batch_size])
    step = tf.function(lambda: _scaled(batch), jit_compile=True)
    return from_calls(lambda: step().numpy())


def cast(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    stored = tf.constant(images)
    return from_dataset(
        mapped_rows(len(images), batch_size, lambda rows: _scaled(tf.gather(stored, rows)))
    )


def _scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) * (1 / 255)


def _prepare(work: Work) -> Callable[..., tf.Tensor]:
    """Returns what `asl_fast.fit` does to a batch before the network sees it."""
    augment = asl_fast.RandomAugment(**work.options(), dtype="float32")
    rescale = asl_fast.Standardize(rescale=1 / 255, dtype="float32")
    return lambda images, **draw: rescale(augment(images, training=True, **draw))

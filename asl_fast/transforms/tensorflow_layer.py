"""Layers of TensorFlow operations, which also work in `tf.data` under Keras's other backends."""

from typing import Any

import keras
import tensorflow as tf

__all__ = ["CallCounter", "TensorFlowLayer"]


class TensorFlowLayer(keras.layers.Layer):
    """A layer whose `call` is made of TensorFlow operations.

    Under another backend Keras would turn the tensors of `tf.data.Dataset.map` into that backend's
    arrays first. There the layer computes without Keras.
    """

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        """Computes the layer; as in Keras, except in TensorFlow's graphs under other backends."""
        if keras.config.backend() == "tensorflow" or tf.executing_eagerly():
            return super().__call__(*inputs, **keywords)
        return tf.autograph.experimental.do_not_convert(self.call)(*inputs, **keywords)


class CallCounter:
    """Counts calls in TensorFlow's graphs, as `keras.random.SeedGenerator` does in its backend's.

    Args:
        seed: Int in [0, 2**32).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        with tf.init_scope(), tf.device("CPU"):
            self._calls = tf.Variable(0, dtype=tf.int64, trainable=False)

    def next(self) -> tf.Tensor:
        """Returns the key of the next call, (seed, calls before it), uint32 of shape (2,)."""
        calls = self._calls.assign_add(1) - 1
        return tf.stack([tf.constant(self._seed, tf.uint32), tf.cast(calls, tf.uint32)])

"""Batch normalisation and the max pooling that follows it, as one program for CPUs.

TensorFlow passes over the whole image a dozen times for the two: they took half of the course's
training step. Pooling first and normalising only the pooled values gives the same numbers, since
normalisation keeps the order of a channel's values, or reverses it where `gamma` is below 0.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

__all__ = ["fused", "normalized_pool"]

# Rows times columns: smaller images gain less than their programs take to compile.
_LEAST_PIXELS = 100

# Parts of a batch that are first added up value by value: XLA's own sums over all but the last axis
# take four times as long on CPUs.
_PARTS = 16


def normalized_pool(
    images: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float,
    padding: str,
    relu_gain: float | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises by the batch's statistics, then takes the maximum of each 2×2 values.

    Args:
        images: float32, bfloat16 or float16, (n, height, width, channels), of static shape except
            for n.
        gamma: float32, (channels,).
        beta: float32, (channels,).
        epsilon: Float, added to the variance.
        padding: "same" or "valid", for odd sides.
        relu_gain: Where `images` come from a ReLU and perhaps dropout, the factor of the values
            that were kept: the gradient is then that of the ReLU's input. None: of `images`.

    Returns:
        The pooled values, of the dtype of `images`; mean and variance, float32, (channels,), which
        have no gradient. The gradient of equal maxima goes to the first of them.
    """

    @tf.custom_gradient
    def pooled(images: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        out, mean, variance, maxima, argmax = _forward(
            images, gamma, beta, tf.constant(epsilon, tf.float32), padding
        )

        def gradient(upstream: tf.Tensor, *_: Any) -> tuple[tf.Tensor, ...]:
            scale = 1.0 / tf.sqrt(variance + epsilon)
            return _backward(
                images, gamma, mean, scale, maxima, argmax, upstream, padding, relu_gain
            )

        return (out, mean, variance), gradient

    return pooled(images, gamma, beta)


@tf.function(jit_compile=True, autograph=False)
def _forward(
    images: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: tf.Tensor, padding: str
) -> tuple[tf.Tensor, ...]:
    count = tf.cast(tf.size(images) // images.shape[-1], tf.float32)
    # One pass for both. Squares of distances from near the mean keep their digits; where they
    # overflow, the variance is infinite, as it is in two passes.
    near = tf.reduce_mean(tf.cast(images[:1], tf.float32), axis=[0, 1, 2])
    mean = near + _channel_sums(images, lambda values: values - near) / count
    square = _channel_sums(images, lambda values: tf.square(values - near)) / count
    variance = tf.where(
        tf.math.is_inf(square), square, tf.maximum(square - tf.square(mean - near), 0.0)
    )
    sign = tf.where(gamma < 0, -1.0, 1.0)
    (a, b), (c, d) = (
        [tf.cast(quarter, tf.float32) * sign for quarter in row]
        for row in _quarters(images, padding, sign)
    )
    above, below = tf.maximum(a, b), tf.maximum(c, d)
    maxima = tf.maximum(above, below) * sign
    argmax = tf.where(above >= below, tf.where(a >= b, 0, 1), tf.where(c >= d, 2, 3))
    factor = gamma / tf.sqrt(variance + epsilon)
    out = (maxima - mean) * factor + beta
    return (
        tf.cast(out, images.dtype),
        mean,
        variance,
        tf.cast(maxima, images.dtype),
        tf.cast(argmax, tf.uint8),
    )


@tf.function(jit_compile=True, autograph=False)
def _backward(
    images: tf.Tensor,
    gamma: tf.Tensor,
    mean: tf.Tensor,
    scale: tf.Tensor,
    maxima: tf.Tensor,
    argmax: tf.Tensor,
    upstream: tf.Tensor,
    padding: str,
    relu_gain: float | None,
) -> tuple[tf.Tensor, ...]:
    """Returns the gradients of images, gamma and beta (Ioffe and Szegedy, 2015, section 3)."""
    count = tf.cast(tf.size(images) // images.shape[-1], tf.float32)
    upstream = tf.cast(upstream, tf.float32)
    to_beta = _channel_sums(upstream, lambda values: values)
    to_gamma = _channel_sums(upstream * ((tf.cast(maxima, tf.float32) - mean) * scale), lambda v: v)
    slope = -gamma * tf.square(scale) * to_gamma / count
    offset = -gamma * scale * to_beta / count - slope * mean
    height, width = images.shape[1:3]
    corner = tf.constant([[0, 1], [2, 3]], tf.uint8)[None, None, :, None, :, None]
    taken = tf.where(
        argmax[:, :, None, :, None, :] == corner,
        (upstream * (gamma * scale))[:, :, None, :, None, :],
        0.0,
    )
    rows, columns = 2 * argmax.shape[1], 2 * argmax.shape[2]
    taken = tf.reshape(taken, [-1, rows, columns, images.shape[-1]])
    if padding == "same":
        taken = taken[:, :height, :width]
    else:
        taken = tf.pad(taken, [[0, 0], [0, height - rows], [0, width - columns], [0, 0]])
    to_images = taken + slope * tf.cast(images, tf.float32) + offset
    to_images = tf.cast(to_images, images.dtype)
    if relu_gain is not None:
        gain = tf.constant(relu_gain, images.dtype)
        to_images = tf.where(images > 0, to_images * gain, tf.constant(0, images.dtype))
    return to_images, to_gamma, to_beta


def _channel_sums(values: tf.Tensor, of: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Returns the sums of a function of the values, (channels,), float32."""
    size = tf.shape(values)[0] // _PARTS
    total = 0.0
    for part in range(_PARTS):
        total += of(tf.cast(values[part * size : (part + 1) * size], tf.float32))
    rest = of(tf.cast(values[_PARTS * size :], tf.float32))
    return sum(
        tf.reduce_sum(tf.reshape(addends, [-1, values.shape[-1]]), axis=0)
        for addends in (total, rest)
    )


def _quarters(images: tf.Tensor, padding: str, sign: tf.Tensor) -> list[list[tf.Tensor]]:
    """Returns the four values of each window: its upper two, then its lower two."""
    height, width = images.shape[1:3]
    if padding == "same" and (height % 2 or width % 2):
        # Below every value, whatever the sign.
        images = (
            tf.pad(
                tf.cast(images, tf.float32) * sign,
                [[0, 0], [0, height % 2], [0, width % 2], [0, 0]],
                constant_values=float("-inf"),
            )
            * sign
        )
    images = images[:, : height + height % 2 if padding == "same" else height - height % 2]
    images = images[:, :, : width + width % 2 if padding == "same" else width - width % 2]
    return [[images[:, i::2, j::2] for j in (0, 1)] for i in (0, 1)]


@contextlib.contextmanager
def fused(model: keras.Model) -> Iterator[None]:
    """Fuses each batch normalisation with its max pooling in training, within the block.

    Where a convolution's ReLU, and perhaps dropout, comes before, its gradient joins the program.
    Only in a `keras.Sequential`, and where nothing but speed depends on it; other layers, and all
    of them at inference, are called as usual. The model must be compiled without `jit_compile`:
    XLA would have the whole step.

    Args:
        model: Built.
    """
    parts = list(_parts(model.layers)) if type(model) is keras.Sequential else []
    if not any(isinstance(part, _Block) for part in parts) or "call" in vars(model):
        yield
        return
    call = model.call

    def fused_call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if not training or mask is not None:
            return call(inputs, training=training, mask=mask)
        for part in parts:
            inputs = part(inputs)
        return inputs

    model.call = fused_call
    try:
        yield
    finally:
        del model.call


class _Block(NamedTuple):
    """A batch normalisation, its pooling, and what they take over the gradient of."""

    convolution: keras.layers.Conv2D | None
    dropout: keras.layers.Dropout | None
    norm: keras.layers.BatchNormalization
    pool: keras.layers.MaxPooling2D

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        norm, gain = self.norm, None
        if self.convolution is not None:
            images = _activated(self.convolution, self.dropout, images)
            gain = 1.0 if self.dropout is None else 1.0 / (1.0 - self.dropout.rate)
        out, mean, variance = normalized_pool(
            tf.cast(images, norm.compute_dtype),
            tf.convert_to_tensor(norm.gamma),
            tf.convert_to_tensor(norm.beta),
            norm.epsilon,
            self.pool.padding,
            gain,
        )
        for average, now in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
            average.assign(average * norm.momentum + now * (1.0 - norm.momentum))
        return out


def _activated(
    convolution: keras.layers.Conv2D, dropout: keras.layers.Dropout | None, images: tf.Tensor
) -> tf.Tensor:
    """Calls both layers; the gradient passes the dropout and the ReLU as it is."""

    @tf.custom_gradient
    def activated(linear: tf.Tensor) -> Any:
        out = tf.nn.relu(linear)
        return out if dropout is None else dropout(out), lambda upstream: upstream

    convolution.activation = keras.activations.linear
    try:
        return activated(convolution(images))
    finally:
        convolution.activation = keras.activations.relu


def _parts(layers: Sequence[keras.layers.Layer]) -> Iterator[keras.layers.Layer | _Block]:
    """Yields the layers, those that can be fused as blocks."""
    remaining = list(layers)
    while remaining:
        block = _block(remaining)
        yield block or remaining[0]
        del remaining[: 1 if block is None else sum(layer is not None for layer in block)]


def _block(layers: Sequence[keras.layers.Layer]) -> _Block | None:
    """Returns the block that the layers begin with."""
    first, *others = layers
    if others and _can_fuse(first, others[0]):
        return _Block(None, None, first, others[0])
    dropout = others.pop(0) if others and _is_plain_dropout(others[0]) else None
    if not _is_plain_convolution(first) or len(others) < 2 or not _can_fuse(*others[:2]):
        return None
    norm, pool = others[:2]
    if any(part.dtype_policy != norm.dtype_policy for part in (first, dropout or first)):
        return None
    return _Block(first, dropout, norm, pool)


def _is_plain_convolution(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.activation is keras.activations.relu
        and layer.activity_regularizer is None
    )


def _is_plain_dropout(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Dropout
        and layer.noise_shape is None
        and layer.activity_regularizer is None
        and layer.rate < 1
    )


def _can_fuse(norm: keras.layers.Layer, pool: keras.layers.Layer) -> bool:
    return (
        type(norm) is keras.layers.BatchNormalization
        and type(pool) is keras.layers.MaxPooling2D
        and tuple(pool.pool_size) == tuple(pool.strides) == (2, 2)
        and pool.data_format == "channels_last"
        and norm.axis in (3, -1)
        and norm.trainable
        and norm.center
        and norm.scale
        and not getattr(norm, "renorm", False)  # which older versions of Keras lack
        and not norm.synchronized
        and norm.dtype_policy == pool.dtype_policy
        and norm.compute_dtype != "float64"
        and norm.activity_regularizer is pool.activity_regularizer is None
        and None not in norm.input.shape[1:]
        and norm.input.shape[1] * norm.input.shape[2] >= _LEAST_PIXELS
    )

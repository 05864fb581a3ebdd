"""Statistics of a data set, gathered batch by batch on the device."""

from typing import Any, NamedTuple

import tensorflow as tf

__all__ = ["Sums", "mean", "std", "update", "zca_matrix", "zeros"]


class Sums(NamedTuple):
    """Sums over the images seen so far, float64.

    float64 holds the sums of squares of a billion images of 8 bits to 9 digits, so that variances
    may be had from them by subtraction.

    Attributes:
        images: Scalar, how many.
        values: (channels,), of the pixels.
        squares: (channels,), of the pixels' squares.
        flat: (height * width * channels,), of the flattened images, or None.
        products: (d, d) for d = height * width * channels, of their outer products, or None.
    """

    images: tf.Tensor
    values: tf.Tensor
    squares: tf.Tensor
    flat: Any
    products: Any


def zeros(image_shape: tuple[int, int, int], *, products: bool) -> Sums:
    """Returns the sums over no images.

    Args:
        image_shape: Height, width and channels.
        products: Bool, whether `zca_matrix` will be asked for.
    """
    height, width, channels = image_shape
    size = height * width * channels
    return Sums(
        images=tf.zeros([], tf.float64),
        values=tf.zeros([channels], tf.float64),
        squares=tf.zeros([channels], tf.float64),
        flat=tf.zeros([size], tf.float64) if products else None,
        products=tf.zeros([size, size], tf.float64) if products else None,
    )


def update(sums: Sums, images: tf.Tensor) -> Sums:
    """Returns the sums with a batch added.

    Args:
        sums: So far.
        images: Floating, (n, height, width, channels).
    """
    images = tf.cast(images, tf.float64)
    flat = products = None
    if sums.products is not None:
        rows = tf.reshape(images, [-1, tf.shape(sums.flat)[0]])
        flat = sums.flat + tf.reduce_sum(rows, axis=0)
        products = sums.products + tf.matmul(rows, rows, transpose_a=True)
    return Sums(
        images=sums.images + tf.cast(tf.shape(images)[0], tf.float64),
        values=sums.values + tf.reduce_sum(images, axis=[0, 1, 2]),
        squares=sums.squares + tf.reduce_sum(images * images, axis=[0, 1, 2]),
        flat=flat,
        products=products,
    )


def _pixels(sums: Sums, image_shape: tuple[int, int, int]) -> tf.Tensor:
    height, width, _ = image_shape
    return sums.images * (height * width)


def mean(sums: Sums, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Returns the mean of each channel, float64 (channels,)."""
    return sums.values / _pixels(sums, image_shape)


def std(sums: Sums, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Returns the standard deviation of each channel, float64 (channels,)."""
    variance = sums.squares / _pixels(sums, image_shape) - mean(sums, image_shape) ** 2
    return tf.sqrt(tf.maximum(variance, 0.0))


def zca_matrix(sums: Sums, image_shape: tuple[int, int, int], epsilon: float) -> tf.Tensor:
    """Returns the matrix that whitens flattened images whose channels' means were subtracted.

    It is `U · diag(sqrt(n) / (s + epsilon)) · U'` for the singular values s and the left singular
    vectors U of the n centred images as columns, had here from the eigenvalues s**2 of their
    products. As in Keras, each channel's mean is subtracted, not each pixel's.

    Args:
        sums: With products.
        image_shape: Height, width and channels.
        epsilon: Float, above 0.

    Returns:
        float64 (d, d) for d = height * width * channels.
    """
    height, width, _ = image_shape
    center = tf.tile(mean(sums, image_shape), [height * width])
    crossed = sums.flat[:, None] * center[None]
    scatter = (
        sums.products
        - crossed
        - tf.transpose(crossed)
        + sums.images * center[:, None] * center[None]
    )
    squares, vectors = tf.linalg.eigh(scatter)
    # With fewer images than pixels, there are only as many directions as images.
    rank = tf.minimum(tf.cast(sums.images, tf.int32), tf.shape(squares)[0])
    squares, vectors = squares[-rank:], vectors[:, -rank:]
    singular = tf.sqrt(tf.maximum(squares, 0.0))
    return tf.matmul(
        vectors * (tf.sqrt(sums.images) / (singular + epsilon)), vectors, transpose_b=True
    )

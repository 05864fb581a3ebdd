"""Resizing one image to the same bytes as Pillow's `Image.resize`.

Pillow's own arithmetic is followed step by step, because no other comes to the same bytes:
weights in float64, turned into whole numbers of 1/2^22; sums of whole numbers; 8 bits between the
two passes. See `src/libImaging/Resample.c` and `Geometry.c` of Pillow.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import PIL
import tensorflow as tf

__all__ = ["INTERPOLATIONS", "resize"]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")

_PRECISION_BITS = 32 - 8 - 2

# Pixels, of 4 bytes each, that are copied at a time.
_MOST_GATHERED = 1 << 24

_PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])


def resize(
    image: tf.Tensor,
    target_size: tuple[int, int],
    *,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> tf.Tensor:
    """Resizes an image as `keras.utils.load_img` does.

    Args:
        image: uint8, (height, width, channels), of 1, 3 or 4 channels, which are static. Four are
            red, green, blue and alpha.
        target_size: Pair of ints, (height, width).
        interpolation: One of `INTERPOLATIONS`.
        keep_aspect_ratio: Bool, whether to take only the middle of the image that has the
            proportions of `target_size`.

    Returns:
        uint8, (target height, target width, channels), all static.
    """
    height, width = target_size
    shape = tf.shape(image)
    fits = (shape[0] == height) & (shape[1] == width)
    resized = tf.cond(
        fits, lambda: image, lambda: _resize(image, target_size, interpolation, keep_aspect_ratio)
    )
    return tf.ensure_shape(resized, [height, width, image.shape[-1]])


class _Span(NamedTuple):
    """The part of one axis that is resized, in pixels: int32 scalars."""

    side: tf.Tensor
    start: tf.Tensor
    length: tf.Tensor


def _resize(
    image: tf.Tensor, target_size: tuple[int, int], interpolation: str, keep_aspect_ratio: bool
) -> tf.Tensor:
    rows, columns = _spans(image, target_size, keep_aspect_ratio)
    height, width = target_size
    if interpolation == "nearest":
        image = tf.gather(image, _nearest(rows, height), axis=0)
        return tf.gather(image, _nearest(columns, width), axis=1)
    with_alpha = image.shape[-1] == 4
    if with_alpha:
        image = _premultiply(image)

    def down(image: tf.Tensor) -> tf.Tensor:
        return _resample(image, rows, height, interpolation)

    def across(image: tf.Tensor) -> tf.Tensor:
        # With the rows last: TensorFlow turns axes of three pixels three times as slowly.
        turned = tf.transpose(image, [1, 2, 0])
        return tf.transpose(_resample(turned, columns, width, interpolation), [2, 0, 1])

    # Pixels are rounded between the two passes, so their order shows.
    image = tf.cond(
        _down_first(image, target_size), lambda: across(down(image)), lambda: down(across(image))
    )
    return _unpremultiply(image) if with_alpha else image


def _down_first(image: tf.Tensor, target_size: tuple[int, int]) -> tf.Tensor:
    """Returns whether the installed Pillow begins with the height: a bool scalar.

    It does so where that saves time. The rule came with 12.2 (pull request 9524) and became
    another with 13.0 (9549).
    """
    shape = tf.shape(image)
    height, width = shape[0], shape[1]
    lost_height, lost_width = height - target_size[0], width - target_size[1]
    if _PILLOW >= (13, 0):
        return (lost_height > 0) & (lost_height > 2 * lost_width)
    if _PILLOW >= (12, 2):
        return (lost_height > 0) & (height > 100 * width)
    return tf.constant(False)


def _spans(
    image: tf.Tensor, target_size: tuple[int, int], keep_aspect_ratio: bool
) -> tuple[_Span, _Span]:
    """Returns which rows and which columns are resized."""
    shape = tf.shape(image)
    height, width = shape[0], shape[1]
    if not keep_aspect_ratio:
        zero = tf.zeros_like(height)
        return _Span(height, zero, height), _Span(width, zero, width)
    target_height, target_width = target_size
    # May be 0 in a narrow image. Pillow takes that: it resizes a box without area.
    cropped_height = tf.minimum(height, width * target_height // target_width)
    cropped_width = tf.minimum(width, height * target_width // target_height)
    return (
        _Span(height, (height - cropped_height) // 2, cropped_height),
        _Span(width, (width - cropped_width) // 2, cropped_width),
    )


def _nearest(span: _Span, size: int) -> tf.Tensor:
    """Returns the pixel that each of `size` new ones is taken from: int32, (size,)."""
    scale = tf.cast(span.length, tf.float64) / size
    first = tf.cast(span.start, tf.float64) + scale * 0.5
    # Pillow adds up steps, so their rounding errors decide between two equally near pixels.
    steps = tf.concat([first[None], tf.repeat(scale, size - 1)], axis=0)
    return tf.cast(tf.cumsum(steps), tf.int32)


def _resample(image: tf.Tensor, span: _Span, size: int, interpolation: str) -> tf.Tensor:
    """Resamples the first axis: uint8, (side, ., .) to (size, ., .)."""
    first, weights = _weights(span, size, *_FILTERS[interpolation])
    # Weights past the border are 0, but what they are multiplied with must be there.
    sources = tf.minimum(first[:, None] + tf.range(tf.shape(weights)[1]), span.side - 1)
    shape = tf.shape(image)
    lines = tf.cast(tf.reshape(image, [shape[0], -1]), tf.int32)

    def gathered() -> tf.Tensor:
        return tf.squeeze(tf.matmul(weights[:, None], tf.gather(lines, sources)), axis=1)

    def in_place() -> tf.Tensor:
        targets = tf.repeat(tf.range(size), tf.shape(weights)[1])
        matrix = tf.SparseTensor(
            tf.cast(tf.stack([targets, tf.reshape(sources, [-1])], axis=1), tf.int64),
            tf.reshape(weights, [-1]),
            tf.cast(tf.stack([size, span.side]), tf.int64),
        )
        return tf.sparse.sparse_dense_matmul(matrix, lines)

    # The first is two to three times as fast, but copies a line of pixels for each weight: an
    # image that shrinks up to six times over.
    few = tf.size(weights) < _MOST_GATHERED // tf.maximum(tf.shape(lines)[1], 1)
    # int32 holds every sum, as it does in Pillow.
    sums = tf.cond(few, gathered, in_place) + (1 << (_PRECISION_BITS - 1))
    pixels = tf.clip_by_value(tf.bitwise.right_shift(sums, _PRECISION_BITS), 0, 255)
    return tf.reshape(tf.cast(pixels, tf.uint8), tf.concat([[size], shape[1:]], axis=0))


def _weights(
    span: _Span, size: int, kernel: Callable[[tf.Tensor], tf.Tensor], support: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what each new pixel is the sum of.

    Args:
        span: The pixels that are resized. Those beside it have weight too, near its borders.
        size: Int, the number of new pixels.
        kernel: Weight by distance in pixels, float64.
        support: Float, the distance beyond which weights are 0.

    Returns:
        The first pixel, int32, (size,), and the weights of it and those after it, in 1/2^22,
        int32, (size, taps).
    """
    scale = tf.cast(span.length, tf.float64) / size
    # Enlarged where the image shrinks, against aliasing.
    stretch = tf.maximum(scale, 1.0)
    reach = support * stretch
    start = tf.cast(span.start, tf.float64)
    centre = start + (tf.range(size, dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centre - reach + 0.5, tf.int32), 0)
    end = tf.minimum(tf.cast(centre + reach + 0.5, tf.int32), span.side)
    place = first[:, None] + tf.range(tf.reduce_max(end - first))
    distance = tf.cast(place, tf.float64) - centre[:, None] + 0.5
    weights = tf.where(place < end[:, None], kernel(distance * (1.0 / stretch)), 0.0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    weights *= 1 << _PRECISION_BITS
    return first, tf.cast(weights + 0.5 * tf.sign(weights), tf.int32)


def _box(x: tf.Tensor) -> tf.Tensor:
    return tf.cast((x > -0.5) & (x <= 0.5), x.dtype)


def _bilinear(x: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1.0 - tf.abs(x), 0.0)


def _hamming(x: tf.Tensor) -> tf.Tensor:
    # Pillow has the two numbers in single precision, which shows in the 22nd bit.
    level, swing = float(np.float32(0.54)), float(np.float32(0.46))
    window = level + swing * tf.cos(x * math.pi)
    return tf.where(tf.abs(x) < 1.0, _sinc(x) * window, 0.0)


def _bicubic(x: tf.Tensor) -> tf.Tensor:
    x = tf.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return tf.where(x < 1.0, near, tf.where(x < 2.0, far, 0.0))


def _lanczos(x: tf.Tensor) -> tf.Tensor:
    return tf.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3.0), 0.0)


def _sinc(x: tf.Tensor) -> tf.Tensor:
    x *= math.pi
    return tf.where(x == 0.0, tf.ones_like(x), tf.sin(x) / x)


# Each with its support.
_FILTERS: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor], float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "hamming": (_hamming, 1.0),
    "box": (_box, 0.5),
    "lanczos": (_lanczos, 3.0),
}


def _premultiply(image: tf.Tensor) -> tf.Tensor:
    """Multiplies the colours by alpha: Pillow's RGBA to RGBa, `MULDIV255`."""
    wide = tf.cast(image, tf.int32)
    product = wide[..., :3] * wide[..., 3:] + 128
    product = tf.bitwise.right_shift(tf.bitwise.right_shift(product, 8) + product, 8)
    return tf.concat([tf.cast(product, tf.uint8), image[..., 3:]], axis=-1)


def _unpremultiply(image: tf.Tensor) -> tf.Tensor:
    """Divides the colours by alpha: Pillow's RGBa to RGBA, which leaves them where alpha is 0."""
    wide = tf.cast(image, tf.int32)
    colours, alpha = wide[..., :3], wide[..., 3:]
    divided = tf.minimum(255 * colours // tf.maximum(alpha, 1), 255)
    colours = tf.where(alpha == 0, colours, divided)
    return tf.concat([tf.cast(colours, tf.uint8), image[..., 3:]], axis=-1)

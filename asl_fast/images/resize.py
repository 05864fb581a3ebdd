"""Resizing one image to the same bytes as `keras.utils.load_img`.

Keras's default, "nearest", is computed by TensorFlow. The filters are Pillow's own, called from
the graph: Pillow releases the GIL while it resamples, and nothing else gives the same bytes.
"""

import numpy as np
import tensorflow as tf
from PIL import Image

__all__ = ["INTERPOLATIONS", "resize"]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


def resize(
    image: tf.Tensor,
    target_size: tuple[int, int],
    *,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> tf.Tensor:
    """Resizes an image as `keras.utils.load_img` does.

    Args:
        image: uint8, (height, width, channels) with 1, 3 or 4 channels, which are static. Four are
            red, green, blue and alpha.
        target_size: Pair of ints, (height, width).
        interpolation: One of `INTERPOLATIONS`.
        keep_aspect_ratio: Whether to crop the image, about its centre, to the proportions of
            `target_size` first.

    Returns:
        uint8, (target height, target width, channels), all static.
    """
    height, width = target_size
    shape = tf.shape(image)
    rows, columns = shape[0], shape[1]
    cropped_rows, cropped_columns = rows, columns
    if keep_aspect_ratio:
        # May be 0 in a narrow image. Pillow takes that: it resizes a box without area.
        cropped_rows = tf.minimum(rows, columns * height // width)
        cropped_columns = tf.minimum(columns, rows * width // height)
    top, left = (rows - cropped_rows) // 2, (columns - cropped_columns) // 2

    def resized() -> tf.Tensor:
        if interpolation == "nearest":
            lines = tf.gather(image, _nearest(top, cropped_rows, height), axis=0)
            return tf.gather(lines, _nearest(left, cropped_columns, width), axis=1)
        box = tf.stack([left, top, left + cropped_columns, top + cropped_rows])
        return tf.numpy_function(by_pillow, [image, box], tf.uint8, stateful=False)

    def by_pillow(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
        source = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        method = Image.Resampling[interpolation.upper()]
        small = source.resize((width, height), method, tuple(box.tolist()))
        return np.asarray(small).reshape(height, width, -1)

    # Keras leaves an image of the right size alone, which Pillow would multiply by alpha and back.
    fits = (rows == height) & (columns == width)
    return tf.ensure_shape(tf.cond(fits, lambda: image, resized), [height, width, image.shape[-1]])


def _nearest(start: tf.Tensor, length: tf.Tensor, size: int) -> tf.Tensor:
    """Returns which of `length` pixels from `start` each of `size` is a copy of: int32, (size,)."""
    scale = tf.cast(length, tf.float64) / size
    first = tf.cast(start, tf.float64) + scale * 0.5
    # Pillow adds up steps, so their rounding errors decide between two equally near pixels.
    steps = tf.concat([first[None], tf.repeat(scale, size - 1)], axis=0)
    return tf.cast(tf.cumsum(steps), tf.int32)

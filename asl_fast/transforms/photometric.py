"""What changes pixels where they are: channel shift and brightness."""

import tensorflow as tf

__all__ = ["brighten", "brighten_as_pil", "shift_channels"]


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [-1, 1, 1, 1])


def shift_channels(images: tf.Tensor, intensity: tf.Tensor) -> tf.Tensor:
    """Adds a number to all channels of an image and clips to the image's own range.

    Args:
        images: float32, (n, height, width, channels).
        intensity: float32, (n,), in the units of the pixels.

    Returns:
        float32 of the images' shape.
    """
    lower = tf.reduce_min(images, axis=[1, 2, 3], keepdims=True)
    upper = tf.reduce_max(images, axis=[1, 2, 3], keepdims=True)
    return tf.clip_by_value(images + _per_image(intensity), lower, upper)


def brighten(images: tf.Tensor, factor: tf.Tensor, value_range: tuple[float, float]) -> tf.Tensor:
    """Multiplies images by a factor and clips to a range.

    Args:
        images: float32, (n, height, width, channels).
        factor: float32, (n,).
        value_range: Pair of floats, the range of the pixels.

    Returns:
        float32 of the images' shape.
    """
    return tf.clip_by_value(images * _per_image(factor), *value_range)


def brighten_as_pil(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies images by a factor as Keras's generator does, by way of 8-bit PIL images.

    Pixels are cut to whole numbers before and after, so images in [0, 1] end up as zeros and ones.
    An image with a pixel below 0 or above 255 is stretched to 0 to 255 for it and back after.
    The alpha channel of four keeps its brightness.

    Args:
        images: float32, (n, height, width, channels), of 1, 3 or 4 channels.
        factor: float32, (n,).

    Returns:
        float32 of the images' shape.
    """
    lower = tf.reduce_min(images, axis=[1, 2, 3], keepdims=True)
    upper = tf.reduce_max(images, axis=[1, 2, 3], keepdims=True)
    outside = (lower < 0) | (upper > 255)
    spread = upper - lower
    # Keras divides by the largest difference first; the order matters where pixels are cut.
    stretched = (images - lower) / tf.where(spread == 0, 1.0, spread) * 255.0
    whole = tf.floor(tf.where(outside, stretched, images))
    bright = tf.floor(tf.clip_by_value(whole * _per_image(factor), 0.0, 255.0))
    if images.shape[-1] == 4:
        bright = tf.concat([bright[..., :3], whole[..., 3:]], axis=-1)
    return tf.where(outside, bright / 255.0 * spread + lower, bright)

"""Geometry: the one matrix that an image's parameters compose into."""

import math

import tensorflow as tf

from asl_fast.transforms.parameters import Parameters

__all__ = ["output_to_input"]


def output_to_input(
    parameters: Parameters, height: int, width: int, *, quirks: bool = False
) -> tf.Tensor:
    """Composes rotation, shift, shear, zoom and flips into one matrix an image.

    The product is Keras's, `rotation · shift · shear · zoom` about the middle of the image, with
    the flips (which Keras applies to the warped image) as its last factor.

    Args:
        parameters: Of n images.
        height: Int, rows of an image.
        width: Int, columns of an image.
        quirks: Bool. True takes Keras's middle, which has height and width confused.

    Returns:
        float32 of shape (n, 2, 3): takes (column, row, 1) of an output pixel to (column, row) of
        the point it is read from.
    """
    theta = parameters.theta * (math.pi / 180)
    shear = parameters.shear * (math.pi / 180)
    cos, sin = tf.cos(theta), tf.sin(theta)
    # rotation · shear, then zoom and flips scale the columns of the product.
    xx, xy = cos, -cos * tf.sin(shear) - sin * tf.cos(shear)
    yx, yy = sin, -sin * tf.sin(shear) + cos * tf.cos(shear)
    xx, yx = xx * parameters.zx, yx * parameters.zx
    xy, yy = xy * parameters.zy, yy * parameters.zy
    shift_x = cos * parameters.tx - sin * parameters.ty
    shift_y = sin * parameters.tx + cos * parameters.ty

    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    about_x, about_y = (middle_y, middle_x) if quirks else (middle_x, middle_y)
    offset_x = about_x + shift_x - xx * about_x - xy * about_y
    offset_y = about_y + shift_y - yx * about_x - yy * about_y

    # A flip takes a column c to width - 1 - c: about the true middle always.
    offset_x += parameters.flip_horizontal * xx * (width - 1)
    offset_y += parameters.flip_horizontal * yx * (width - 1)
    offset_x += parameters.flip_vertical * xy * (height - 1)
    offset_y += parameters.flip_vertical * yy * (height - 1)
    across = 1 - 2 * parameters.flip_horizontal
    down = 1 - 2 * parameters.flip_vertical
    return tf.stack(
        [
            tf.stack([xx * across, xy * down, offset_x], axis=-1),
            tf.stack([yx * across, yy * down, offset_y], axis=-1),
        ],
        axis=-2,
    )

"""The augmentation of a batch as two pure functions: draw the parameters, apply them."""

import functools
from collections.abc import Mapping

import tensorflow as tf

from asl_fast.transforms import threefry
from asl_fast.transforms.augment_options import PARAMETERS, AugmentOptions
from asl_fast.transforms.transform import (
    Affine,
    Frame,
    Parameters,
    Side,
    Transform,
    image_shape,
)
from asl_fast.transforms.warp import warp

__all__ = ["PARAMETERS", "apply", "draw", "from_table", "output_to_input"]


def draw(
    options: AugmentOptions, key: tf.Tensor, samples: tf.Tensor, height: Side, width: Side
) -> dict[str, tf.Tensor]:
    """Draws the parameters of a batch.

    A pure function of its arguments: a sample gets the same parameters whatever batch it is in, and
    whichever other transforms are on, as each transform has its own place in the stream.

    Args:
        options: What to draw.
        key: uint32 of shape (2,): seed and epoch.
        samples: Integers of shape (n,): the samples' indices in the data set.
        height: Rows of an image: an int, or an int32 scalar.
        width: Columns of an image.

    Returns:
        The parameters of the active transforms, float32 of shape (n,).
    """
    places: list[tuple[Transform, range]] = []
    end = 0
    for transform in options.transforms:
        place = range(end, end := end + transform.draws)
        if transform.active:
            places.append((transform, place))
    if not places:
        return {}
    units = iter(
        threefry.uniform(key, samples, [column for _, place in places for column in place])
    )
    drawn: dict[str, tf.Tensor] = {}
    for transform, place in places:
        drawn |= transform.draw([next(units) for _ in place], height, width)
    return drawn


def from_table(table: tf.Tensor, options: AugmentOptions) -> dict[str, tf.Tensor]:
    """Returns the active transforms' columns of a table with all parameters.

    Args:
        table: float32, (n, len(PARAMETERS)), in the order of `PARAMETERS`.
        options: Says which are active.
    """
    columns = dict(zip(PARAMETERS, tf.unstack(table, len(PARAMETERS), axis=1), strict=True))
    return {
        name: columns[name]
        for transform in options.transforms
        if transform.active
        for name in transform.parameters
    }


def apply(options: AugmentOptions, images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
    """Applies parameters to a batch.

    Geometric transforms compose into one matrix an image, so pixels are interpolated once; then
    come those that change pixels in place.

    Args:
        options: How: fill mode, interpolation, data format, quirks. Which transforms are on is left
            to the parameters.
        images: uint8 or floating, (n, height, width, channels), or channels first as `data_format`
            says.
        parameters: By name float32 of shape (n,); a transform without any is left out.

    Returns:
        float32 of the images' shape.
    """
    first = options.data_format == "channels_first"
    if first:
        images = tf.transpose(images, [0, 2, 3, 1])
    height, width, _ = image_shape(images)
    given = [(transform, _complete(transform, parameters)) for transform in options.transforms]
    count = tf.shape(images)[0]
    matrices = output_to_input(options, parameters, height, width, count)
    if matrices is None:
        pixels = tf.cast(images, tf.float32)
    else:
        pixels = warp(
            images,
            matrices,
            interpolation_order=options.interpolation_order,
            fill_mode=options.fill_mode,
            cval=options.cval,
        )
    for transform, values in given:
        if values is not None:
            pixels = transform.pixels(pixels, values)
    return tf.transpose(pixels, [0, 3, 1, 2]) if first else pixels


def output_to_input(
    options: AugmentOptions,
    parameters: Parameters,
    height: Side,
    width: Side,
    count: int | tf.Tensor = 1,
) -> tf.Tensor | None:
    """Composes the geometric transforms into one matrix an image.

    The product is Keras's, rotation · shift · shear · zoom about the middle of the image, with the
    flips, which Keras applies to the warped image, as its last factor.

    Args:
        options: With the quirks, among which is Keras's middle.
        parameters: As for `apply`.
        height: Rows of an image: an int, or an int32 scalar.
        width: Columns of an image.
        count: How many matrices; where parameters are numbers they are all the same.

    Returns:
        float32 of shape (count, 2, 3): (column, row, 1) of an output pixel to (column, row) of the
        point it is read from. None where no geometric transform has a parameter.
    """
    frame = Frame.of(height, width, options.quirks)
    factors: list[Affine] = []
    for transform in options.transforms:
        values = _complete(transform, parameters)
        matrix = None if values is None else transform.matrix(values, frame)
        if matrix is not None:
            factors.append(matrix)
    return functools.reduce(Affine.__matmul__, factors).in_pixels(frame, count) if factors else None


def _complete(transform: Transform, parameters: Parameters) -> Mapping[str, tf.Tensor] | None:
    """Returns a transform's parameters, or None where none of them is given."""
    if not any(parameters.get(name) is not None for name in transform.parameters):
        return None
    return {
        name: neutral if (value := parameters.get(name)) is None else value
        for name, neutral in transform.parameters.items()
    }

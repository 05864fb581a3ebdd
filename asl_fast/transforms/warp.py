"""Resamples a batch of images, each by its own matrix, with one interpolation.

The conventions, border by border and order by order, are those of `scipy.ndimage.affine_transform`.
"""

from typing import NamedTuple

import tensorflow as tf

from asl_fast.transforms import spline
from asl_fast.transforms.fill_modes import FILL_MODES, FillMode
from asl_fast.transforms.transform import Side, image_shape, real

__all__ = ["warp"]


def warp(
    images: tf.Tensor,
    matrices: tf.Tensor,
    *,
    interpolation_order: int = 1,
    fill_mode: str = "nearest",
    cval: float = 0.0,
) -> tf.Tensor:
    """Reads each output pixel from the point that its image's matrix names.

    Args:
        images: uint8 or floating, (n, height, width, channels); for orders above 1 height and width
            must be known before the program runs.
        matrices: float32, (n, 2, 3), output to input: (column, row, 1) to (column, row).
        interpolation_order: Int: 0 takes the nearest pixel, 1 is bilinear, 2 to 5 are B-splines.
        fill_mode: A name in `FILL_MODES`: what lies beyond the border.
        cval: Float, what lies beyond the border for "constant".

    Returns:
        float32 of the images' shape.
    """
    height, width, channels = image_shape(images)
    mode = FILL_MODES[fill_mode]
    columns = tf.tile(tf.cast(tf.range(width), tf.float32), [height])
    rows = tf.repeat(tf.cast(tf.range(height), tf.float32), width)

    def point(row_of_matrix: tf.Tensor) -> tf.Tensor:
        across, down, offset = tf.unstack(row_of_matrix[..., None], axis=1)
        return across * columns + down * rows + offset

    x, y = point(matrices[:, 0]), point(matrices[:, 1])
    grid = _pixels(images)
    if interpolation_order >= 2:
        grid = _coefficients(images, interpolation_order, mode)
        x, y = x + mode.padding, y + mode.padding
    # Indexed through the whole batch: on CPUs XLA compiles one flat gather into far better code
    # than a gather with batch dimensions (1.6 times as fast, 256 images, one core).
    start = grid.image * tf.range(tf.shape(images)[0])[:, None]
    start = start[..., None] + grid.channel * tf.range(channels)

    def value(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        place = (grid.row * row + grid.column * column)[..., None]
        return tf.cast(tf.gather(grid.values, start + place), tf.float32)

    def neighbours(point: tf.Tensor, side: Side) -> list[tuple[tf.Tensor, tf.Tensor | None]]:
        return _neighbours(mode.bring_inside(point, side), side, interpolation_order, mode)

    down, across = neighbours(y, grid.height), neighbours(x, grid.width)
    pixels = _weighted(
        [(_weighted([(value(row, column), w) for column, w in across]), w) for row, w in down]
    )
    if mode.constant:
        inside = (x >= 0) & (x <= real(width) - 1) & (y >= 0) & (y <= real(height) - 1)
        pixels = tf.where(inside[..., None], pixels, cval)
    return tf.ensure_shape(
        tf.reshape(pixels, [-1, height, width, channels]), [None, *images.shape[1:]]
    )


class _Grid(NamedTuple):
    """The values to interpolate between, flattened, and the strides of their axes."""

    values: tf.Tensor
    height: Side
    width: Side
    image: Side
    row: Side
    column: Side
    channel: Side


def _pixels(images: tf.Tensor) -> _Grid:
    height, width, channels = image_shape(images)
    return _Grid(
        values=tf.reshape(images, [-1]),
        height=height,
        width=width,
        image=height * width * channels,
        row=width * channels,
        column=channels,
        channel=1,
    )


def _coefficients(images: tf.Tensor, order: int, mode: type[FillMode]) -> _Grid:
    """Returns spline coefficients, on a grid that is larger by the mode's padding.

    They stay in the order that the two products give, (row, image, channel, column): transposing
    them would take as much memory again.
    """
    height, width, channels = image_shape(images)
    if not isinstance(height, int) or not isinstance(width, int):
        raise ValueError(
            f"`interpolation_order` {order} needs images of a known height and width. "
            f"Received: {images.shape}"
        )
    down = tf.constant(spline.prefilter(height, order, mode), tf.float32)
    across = tf.constant(spline.prefilter(width, order, mode), tf.float32)
    filtered = tf.einsum("bhwc,jw->bhcj", tf.cast(images, tf.float32), across)
    filtered = tf.einsum("ih,bhcj->ibcj", down, filtered)
    grid_height, grid_width = down.shape[0], across.shape[0]
    return _Grid(
        values=tf.reshape(filtered, [-1]),
        height=grid_height,
        width=grid_width,
        image=channels * grid_width,
        row=tf.shape(images)[0] * (channels * grid_width),
        column=1,
        channel=grid_width,
    )


def _neighbours(
    point: tf.Tensor, side: Side, order: int, mode: type[FillMode]
) -> list[tuple[tf.Tensor, tf.Tensor | None]]:
    """Returns the pixels along one axis that a point is interpolated from, with their weights."""
    if order == 0:
        nearest = tf.cast(tf.floor(point + 0.5), tf.int32)
        return [(tf.clip_by_value(nearest, 0, side - 1), None)]
    if order == 1:
        point = tf.clip_by_value(point, 0.0, real(side) - 1.0)
        # The last cell also serves its far border, so that both neighbours always exist.
        first = tf.minimum(tf.cast(point, tf.int32), tf.maximum(side - 2, 0))
        fraction = (point - tf.cast(first, tf.float32))[..., None]
        return [(first, 1.0 - fraction), (first + tf.minimum(side - 1, 1), fraction)]
    first, weights = spline.taps(point, order)
    return [
        (mode.fold(first + place, side) if side > 1 else tf.zeros_like(first), weight[..., None])
        for place, weight in enumerate(weights)
    ]


def _weighted(terms: list[tuple[tf.Tensor, tf.Tensor | None]]) -> tf.Tensor:
    return tf.add_n([value if weight is None else value * weight for value, weight in terms])

"""The random parameters of each image: drawn here, applied elsewhere."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from asl_fast.transforms import threefry
from asl_fast.transforms.options import AugmentOptions, Shift

__all__ = ["Parameters", "draw"]


class Parameters(NamedTuple):
    """What happens to each image of a batch: float32 tensors of shape (n,).

    The names are those of the dictionary that Keras's `apply_transform` takes. `x` runs along the
    columns and `y` along the rows.

    Attributes:
        theta: Rotation in degrees.
        tx: Shift along the columns in pixels.
        ty: Shift along the rows in pixels.
        shear: Shear angle in degrees.
        zx: Zoom along the columns, output to input.
        zy: Zoom along the rows, output to input.
        flip_horizontal: 1 where left and right are swapped, else 0.
        flip_vertical: 1 where top and bottom are swapped, else 0.
        channel_shift_intensity: What is added to all channels, or None for no such step.
        brightness: The factor of the brightness, or None for no such step.
    """

    theta: tf.Tensor
    tx: tf.Tensor
    ty: tf.Tensor
    shear: tf.Tensor
    zx: tf.Tensor
    zy: tf.Tensor
    flip_horizontal: tf.Tensor
    flip_vertical: tf.Tensor
    channel_shift_intensity: tf.Tensor | None = None
    brightness: tf.Tensor | None = None

    @classmethod
    def from_table(cls, table: tf.Tensor, options: AugmentOptions) -> "Parameters":
        """Returns the columns of a table (n, 10), without the steps whose option is off."""
        columns = dict(zip(cls._fields, tf.unstack(table, axis=1), strict=True))
        if not options.channel_shift_range:
            del columns["channel_shift_intensity"]
        if options.brightness_range is None:
            del columns["brightness"]
        return cls(**columns)

    def map(self, function: Callable[[Any], Any]) -> "Parameters":
        """Returns the parameters with a function applied to each that is there."""
        return Parameters(*(None if values is None else function(values) for values in self))


def draw(
    options: AugmentOptions, key: tf.Tensor, samples: tf.Tensor, height: int, width: int
) -> Parameters:
    """Draws the parameters of a batch.

    A pure function of its arguments: a sample gets the same parameters whatever batch it is in.

    Args:
        options: The ranges.
        key: uint32 of shape (2,): seed and epoch.
        samples: Integers of shape (n,): the samples' numbers in the data set.
        height: Int, rows of an image.
        width: Int, columns of an image.

    Returns:
        `Parameters` of n images; where an option is off, one that does nothing.
    """
    # Each parameter keeps its place in the stream whether or not its option is on, so that
    # switching one on leaves the others' draws as they were.
    units = threefry.uniform(key, samples, 10)
    theta, rows, columns, shear, zx, zy, horizontal, vertical, channel, brightness = tf.unstack(
        units, axis=1
    )
    along_rows = _shift(rows, options.height_shift_range, height)
    along_columns = _shift(columns, options.width_shift_range, width)
    if options.quirks:  # Keras's generator takes the height's shift for x (tensorflow #82838)
        along_rows, along_columns = along_columns, along_rows
    return Parameters(
        theta=_between(theta, -options.rotation_range, options.rotation_range),
        tx=along_columns,
        ty=along_rows,
        shear=_between(shear, -options.shear_range, options.shear_range),
        zx=_between(zx, *options.zoom_limits),
        zy=_between(zy, *options.zoom_limits),
        flip_horizontal=tf.cast(horizontal < 0.5 * options.horizontal_flip, tf.float32),
        flip_vertical=tf.cast(vertical < 0.5 * options.vertical_flip, tf.float32),
        channel_shift_intensity=_between(
            channel, -options.channel_shift_range, options.channel_shift_range
        )
        if options.channel_shift_range
        else None,
        brightness=_between(brightness, *options.brightness_range)
        if options.brightness_range
        else None,
    )


def _between(unit: tf.Tensor, lower: float, upper: float) -> tf.Tensor:
    return lower + (upper - lower) * unit


def _shift(unit: tf.Tensor, limit: Shift, side: int) -> tf.Tensor:
    if isinstance(limit, float):
        limit = limit * side if limit < 1 else limit
        return _between(unit, -limit, limit)
    values = tuple(range(limit)) if isinstance(limit, int) else limit
    scale = side if max(values, default=0) < 1 else 1
    # A value and a sign in one draw: all values, and all of them negated.
    signed = [scale * value for value in values] + [-scale * value for value in values] or [0]
    place = tf.cast(unit * len(signed), tf.int32)
    return tf.gather(tf.constant(signed, tf.float32), place)

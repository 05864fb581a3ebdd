"""B-splines of orders 2 to 5, as SciPy's `ndimage` interpolates with them.

An interpolating spline first filters the image into coefficients. The filter is linear, so for a
side of n pixels it is a fixed matrix, computed here once by running SciPy's recursion over the
unit vectors. (SciPy before 1.18 has a slip in the recursion for "reflect", which shows in lines
of under 8 pixels; here they are as in 1.18.)

Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine
16 (6), 1999, boxes 1 and 2; Thevenaz, Blu and Unser, "Interpolation revisited", IEEE Transactions
on Medical Imaging 19 (7), 2000.
"""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from asl_fast.transforms.fill_modes import FillMode

__all__ = ["prefilter", "taps"]

_POLES = {
    2: (math.sqrt(8) - 3,),
    3: (math.sqrt(3) - 2,),
    4: (
        math.sqrt(664 - math.sqrt(438976)) + math.sqrt(304) - 19,
        math.sqrt(664 + math.sqrt(438976)) - math.sqrt(304) - 19,
    ),
    5: (
        math.sqrt(67.5 - math.sqrt(4436.25)) + math.sqrt(26.25) - 6.5,
        math.sqrt(67.5 + math.sqrt(4436.25)) - math.sqrt(26.25) - 6.5,
    ),
}


def prefilter(side: int, order: int, mode: type[FillMode]) -> np.ndarray:
    """Returns the matrix that takes a line of pixels to its spline coefficients.

    Args:
        side: Int, pixels in the line.
        order: Int, 2 to 5.
        mode: What lies beyond the line's ends.

    Returns:
        float64, (side + 2 * mode.padding, side).
    """
    lines = np.pad(np.eye(side), ((mode.padding, mode.padding), (0, 0)), mode="edge")
    if len(lines) == 1:
        return lines
    start = {"reflect": _start_reflect, "mirror": _start_mirror}[mode.spline_border]
    for pole in _POLES[order]:
        lines = lines * (1 - pole) * (1 - 1 / pole)
        lines[0], last = start(lines, pole)
        for row in range(1, len(lines)):
            lines[row] += pole * lines[row - 1]
        lines[-1] = last(lines)
        for row in range(len(lines) - 2, -1, -1):
            lines[row] = pole * (lines[row + 1] - lines[row])
    return lines


_Start = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


def _start_mirror(lines: np.ndarray, pole: float) -> _Start:
    """Returns the first value of the pass down, and what makes the first of the pass up."""
    count = len(lines)
    far = pole ** (count - 1)
    total = lines[0] + far * lines[-1]
    for row in range(1, count - 1):
        total = total + pole**row * (lines[row] + far * lines[count - 1 - row])
    first = total / (1 - far * far)
    return first, lambda done: (pole * done[-2] + done[-1]) * pole / (pole * pole - 1)


def _start_reflect(lines: np.ndarray, pole: float) -> _Start:
    """As `_start_mirror`, for the border between two pixels."""
    count = len(lines)
    far = pole**count
    total = lines[0] + far * lines[-1]
    for row in range(1, count):
        total = total + pole**row * (lines[row] + far * lines[count - 1 - row])
    first = total * pole / (1 - far * far) + lines[0]
    return first, lambda done: done[-1] * pole / (pole - 1)


def taps(point: tf.Tensor, order: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns where a spline's support begins and what each of its coefficients weighs.

    Args:
        point: float32, any shape: coordinates.
        order: Int, 2 to 5.

    Returns:
        The first index of the support, int32, and `order + 1` weights, float32, which add up
        to 1; all of the shape of `point`.
    """
    nearest = tf.floor(point if order % 2 else point + 0.5)
    fraction = point - nearest + (0.0 if order % 2 else 0.5)
    weights = [tf.ones_like(point)]
    # Cox and de Boor's recursion on knots one apart: only sums of products of positive numbers,
    # so no digits cancel.
    for degree in range(1, order + 1):
        lower, upper = [0.0, *weights], [*weights, 0.0]
        weights = [
            ((fraction + (degree - k)) * lower[k] + ((k + 1) - fraction) * upper[k]) / degree
            for k in range(degree + 1)
        ]
    return tf.cast(nearest, tf.int32) - order // 2, weights

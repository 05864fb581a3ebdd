"""Fill modes: what stands for the pixels beyond the border, each as in `scipy.ndimage`.

To add one, write its class and list it in `FILL_MODES`; nothing else names them.
"""

import abc
from typing import ClassVar

from asl_fast.transforms.transform import Side, Tensor, real, tf

__all__ = ["FILL_MODES", "FillMode"]


class FillMode(abc.ABC):
    """One fill mode.

    Attributes:
        spline_border: "mirror" or "reflect": how SciPy continues a line to filter it into spline
            coefficients.
        padding: By how many pixels SciPy extends an image on each side before it filters.
        constant: Whether points beyond the border read `cval`.
    """

    spline_border: ClassVar[str] = "mirror"
    padding: ClassVar[int] = 0
    constant: ClassVar[bool] = False

    @staticmethod
    @abc.abstractmethod
    def bring_inside(point: Tensor, side: Side) -> Tensor:
        """Returns the coordinates within a line of `side` pixels that stand for these, float32."""

    @staticmethod
    def fold(index: Tensor, side: Side) -> Tensor:
        """Returns the spline coefficients that stand for these, int32; `side` is at least 2."""
        index = tf.math.floormod(index, 2 * side - 2)
        return tf.minimum(index, 2 * side - 2 - index)


class Constant(FillMode):
    """One value, `cval`."""

    constant = True

    @staticmethod
    def bring_inside(point: Tensor, side: Side) -> Tensor:
        """Clips; what was outside gets `cval` in the end."""
        return tf.clip_by_value(point, 0.0, real(side) - 1.0)


class Nearest(FillMode):
    """The border's pixels."""

    # A recursion can't express this border, so SciPy extends the image.
    spline_border = "reflect"
    padding = 12

    @staticmethod
    def bring_inside(point: Tensor, side: Side) -> Tensor:
        """Clips."""
        return tf.clip_by_value(point, 0.0, real(side) - 1.0)


class Reflect(FillMode):
    """Mirrored about the outer edges of the border's pixels: d c b a | a b c d | d c b a."""

    spline_border = "reflect"

    @staticmethod
    def bring_inside(point: Tensor, side: Side) -> Tensor:
        """Folds; up to a pixel outside may remain, where the border's own neighbours are."""
        side = real(side)
        period = 2.0 * side
        folded = point - period * tf.floor(point / period)
        folded = tf.where(folded >= side, period - 1.0 - folded, folded)
        return tf.where((point < 0) | (point > side - 1.0), folded, point)

    @staticmethod
    def fold(index: Tensor, side: Side) -> Tensor:
        """Folds about the outer edges."""
        index = tf.math.floormod(index, 2 * side)
        return tf.minimum(index, 2 * side - 1 - index)


class Mirror(FillMode):
    """Mirrored about the middles of the border's pixels: d c b | a b c d | c b a."""

    @staticmethod
    def bring_inside(point: Tensor, side: Side) -> Tensor:
        """Folds; of a line of one pixel every point comes to lie within a pixel of it."""
        last = real(side) - 1.0
        return last - tf.abs(tf.math.floormod(point, tf.maximum(2.0 * last, 1.0)) - last)


class Wrap(FillMode):
    """Repeated with the first pixel on the last, so that the period is a pixel short."""

    @staticmethod
    def bring_inside(point: Tensor, side: Side) -> Tensor:
        """Takes the remainder; of a line of one pixel every point comes to lie within a pixel."""
        last = real(side) - 1.0
        period = tf.maximum(last, 1.0)
        folded = point - period * tf.floor(point / period)
        return tf.where((point < 0) | (point > last), folded, point)


FILL_MODES: dict[str, type[FillMode]] = {
    "constant": Constant,
    "nearest": Nearest,
    "reflect": Reflect,
    "mirror": Mirror,
    "wrap": Wrap,
}

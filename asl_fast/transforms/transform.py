"""The contract of a random transform, and the matrix that geometric ones compose into.

A transform is one class in one file. Its fields are its options; it names its parameters, says how
they are drawn, and what they do: a contribution to an image's matrix, or a function of pixels. To
add one, write its file and list it in `augment_options.py`. Layer, drop-in, replay, demo,
conformance and documentation read that list.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf
else:

    class _TensorFlow:
        """Loads at first use: `asl-fast --help` reads options, and must not load TensorFlow."""

        def __getattr__(self, name: str) -> Any:
            import tensorflow

            return getattr(tensorflow, name)

    tf = _TensorFlow()

__all__ = [
    "Affine",
    "Control",
    "Frame",
    "Parameters",
    "Side",
    "Tensor",
    "Transform",
    "between",
    "chosen",
    "image_shape",
    "indicated",
    "option",
    "per_image",
    "real",
    "tf",
]

Tensor = Any  # a tf.Tensor, or a Python number that stands for one
Side = Any  # an int, or an int32 scalar: a side of an image in pixels
# By parameter, under the names of the dictionary that Keras's `apply_transform` takes: float32 of
# shape (n,). A transform whose parameters are absent does nothing.
Parameters = Mapping[str, Tensor]


class Control(NamedTuple):
    """How a page lets people set an option.

    Attributes:
        label: What the option is, with its unit.
        highest: The end of a slider from 0 on; None for a switch.
        step: Of the slider.
        both: Whether the option is a pair, which takes a slider for each end.
    """

    label: str
    highest: float | None = None
    step: float = 1.0
    both: bool = False


def option(default: Any, text: str, control: Control | None = None) -> Any:
    """Declares an option of a transform.

    Args:
        default: Its value where it is not given, under which it does nothing.
        text: Its documentation: type, unit, range.
        control: How a page lets people set it, or None.
    """
    return dataclasses.field(default=default, metadata={"text": text, "control": control})


class Frame(NamedTuple):
    """Where geometry happens.

    Attributes:
        height: Rows of an image.
        width: Columns of an image.
        x: Column of the point that images are turned, sheared and scaled about.
        y: Row of that point.
    """

    height: Side
    width: Side
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, height: Side, width: Side, quirks: bool) -> "Frame":
        """Returns the frame of an image; with `quirks` Keras's, which swaps height and width."""
        x, y = (real(width) - 1) / 2, (real(height) - 1) / 2
        return cls(height, width, y, x) if quirks else cls(height, width, x, y)


class Affine(NamedTuple):
    """Maps a point (x, y), relative to the frame's, from output to input.

    Entries are float32 of shape (n,), one an image, or Python numbers:
    x' = xx·x + xy·y + x0, y' = yx·x + yy·y + y0.
    """

    xx: Tensor = 1.0
    xy: Tensor = 0.0
    x0: Tensor = 0.0
    yx: Tensor = 0.0
    yy: Tensor = 1.0
    y0: Tensor = 0.0

    def __matmul__(self, other: "Affine") -> "Affine":
        """Returns the map that applies `other` first."""

        def row(x: Tensor, y: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return (
                _sum(_product(x, other.xx), _product(y, other.yx)),
                _sum(_product(x, other.xy), _product(y, other.yy)),
                _sum(_sum(_product(x, other.x0), _product(y, other.y0)), offset),
            )

        return Affine(*row(self.xx, self.xy, self.x0), *row(self.yx, self.yy, self.y0))

    def in_pixels(self, frame: Frame, count: Tensor) -> Tensor:
        """Returns float32 (count, 2, 3): (column, row, 1) of an output pixel to its input point."""
        here, back = Affine(x0=frame.x, y0=frame.y), Affine(x0=-frame.x, y0=-frame.y)
        entries = [tf.broadcast_to(entry, [count]) for entry in here @ self @ back]
        return tf.reshape(tf.stack(entries, axis=1), [-1, 2, 3])


def _product(a: Tensor, b: Tensor) -> Tensor:
    # Numbers known while tracing leave no operations behind.
    if any(isinstance(x, float) and x == 0 for x in (a, b)):
        return 0.0
    if isinstance(a, float) and a == 1:
        return b
    return a if isinstance(b, float) and b == 1 else a * b


def _sum(a: Tensor, b: Tensor) -> Tensor:
    if isinstance(a, float) and a == 0:
        return b
    return a if isinstance(b, float) and b == 0 else a + b


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transform:
    """A random transform: its options, checked, and what they do to a batch.

    Attributes:
        parameters: Its parameters' names, each with the value that changes nothing.
        draws: How many uniform numbers an image takes.
    """

    parameters: ClassVar[Mapping[str, float]] = {}
    draws: ClassVar[int] = 0

    quirks: bool = option(
        False,
        "Bool. True repeats what Keras's generator does; False what its documentation says. They "
        "differ in the direction of shifts, in the middle of images that are not square, in "
        "brightness, and in what they refuse: Keras takes any finite numbers for ranges.",
        Control("Quirks of Keras's generator"),
    )
    value_range: tuple[float, float] = option(
        (0.0, 255.0),
        "Pair `(lower, upper)`, the range of the pixels, which brightness and erasing keep to. "
        "Brightness ignores it where `quirks` is True.",
    )

    def check(self) -> None:
        """Raises a `ValueError` for an option that breaks its rule."""

    @property
    def active(self) -> bool:
        """Whether any image is ever changed."""
        raise AssertionError(f"{type(self).__name__} must say when it does something")

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Makes parameters of uniform numbers.

        Args:
            units: `draws` tensors, float32 of shape (n,), in [0, 1).
            height: Rows of an image.
            width: Columns of an image.
        """
        raise AssertionError(f"{type(self).__name__} must say how it draws")

    def replay(self, generator: Any, height: int, width: int) -> Mapping[str, Any]:
        """Draws the parameters of one image by the calls of Keras's generator, in their order.

        Keras may draw where a transform is off; one that Keras has not draws nothing.

        Args:
            generator: `np.random` or a `np.random.RandomState`.
            height: Rows of an image.
            width: Columns of an image.
        """
        return {}

    def matrix(self, parameters: Parameters, frame: Frame) -> Affine | None:
        """Returns the contribution to the images' matrices; None for pixel transforms."""
        return None

    def pixels(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Returns float32 images (n, height, width, channels) with their pixels changed."""
        return images


def image_shape(images: Tensor) -> tuple[Side, Side, Side]:
    """Returns the last three sides: ints, or int32 scalars where only the running program knows."""
    static = images.shape[-3:]
    if None not in static:
        return tuple(static)
    sides = tf.unstack(tf.shape(images)[-3:])
    return tuple(
        known if known is not None else side for known, side in zip(static, sides, strict=True)
    )


def real(side: Side) -> Tensor:
    """Returns a side as a number to calculate coordinates with."""
    return float(side) if isinstance(side, int) else tf.cast(side, tf.float32)


def between(unit: Tensor, lower: float, upper: float) -> Tensor:
    """Maps uniform numbers in [0, 1) to [lower, upper)."""
    return lower + (upper - lower) * unit


def indicated(condition: Tensor) -> Tensor:
    """Returns 1.0 where a condition holds and 0.0 elsewhere: a tensor, or an array of NumPy's."""
    if hasattr(condition, "astype"):
        return condition.astype("float32")
    return tf.cast(condition, tf.float32)


def chosen(unit: Tensor, values: Sequence[float]) -> Tensor:
    """Picks a value by each uniform number in [0, 1), tensors or NumPy's."""
    place = unit * len(values)
    if hasattr(unit, "astype"):
        import numpy as np

        return np.array(values, "float32")[place.astype("int32")]
    return tf.gather(tf.constant(values, tf.float32), tf.cast(place, tf.int32))


def per_image(values: Tensor) -> Tensor:
    """Returns values of shape (n,) as (n, 1, 1, 1)."""
    return tf.reshape(values, [-1, 1, 1, 1])

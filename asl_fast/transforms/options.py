"""Options of augmentation and standardisation, under Keras's names, each checked once."""

import dataclasses
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

__all__ = ["AugmentOptions", "StandardizeOptions", "check_validation_split", "finite"]

FILL_MODES = ("constant", "nearest", "reflect", "wrap")
DATA_FORMATS = ("channels_last", "channels_first")

Shift = float | int | tuple[float, ...]


def _check(name: str, rule: str, value: object, holds: bool) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {rule}. Received: {value!r}")


def finite(value: object) -> bool:
    """Returns whether a value is a number that is neither infinite nor NaN."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _is_pair(value: object, least: float) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(map(finite, value))
        and least <= value[0] <= value[1]
    )


def _plain(value: object) -> object:
    """Returns lists and 1-D arrays as tuples, and NumPy's numbers as Python's: hashable, JSON."""
    if hasattr(value, "tolist"):  # NumPy's; not imported here, for the sake of `--help`
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """What `RandomAugment` may do to an image. All ranges are drawn from uniformly.

    Args:
        rotation_range: Float, degrees, at least 0: angles in ±`rotation_range`.
        width_shift_range: Shift along the columns. A float, at least 0: symmetric, below 1 a
            fraction of the width, from 1 on pixels. An int `n`, at least 0: whole pixels, −n+1
            to n−1 (so 1 never shifts). A 1-D array: one of its values with a random sign,
            fractions of the width if all are below 1, else pixels.
        height_shift_range: The same along the rows.
        brightness_range: None, or a pair `(lower, upper)` with 0 <= lower <= upper: a factor.
        shear_range: Float, degrees, at least 0: shear angles in ±`shear_range`.
        zoom_range: Float `z` in [0, 1) for `(1 - z, 1 + z)`, or a pair `(lower, upper)` with
            0 < lower <= upper. One factor an axis; it scales output coordinates to input
            coordinates, so 1.2 shows more of the image, smaller.
        channel_shift_range: Float, at least 0: added to all channels, clipped to the image's own
            range; in the units of the pixels.
        fill_mode: "constant", "nearest", "reflect" or "wrap": what lies beyond the border, each
            as in `scipy.ndimage`.
        cval: Float, what lies beyond the border for "constant"; in the units of the pixels.
        horizontal_flip: Bool. Swaps left and right with probability 1/2.
        vertical_flip: Bool. Swaps top and bottom with probability 1/2.
        interpolation_order: Int, 0 to 5: nearest pixel, bilinear, and B-splines.
        data_format: "channels_last" or "channels_first".
        quirks: Bool. True repeats what Keras's generator does; False what its documentation says.
            They differ in the direction of shifts, in the middle of images that are not square,
            in brightness, and in what they refuse: Keras takes any finite numbers for ranges.
        value_range: Pair `(lower, upper)`, the range of the pixels: brightness is clipped to it.
            Without effect where `quirks` is True.

    Raises:
        ValueError: A value breaks its rule; names the option, the rule and the value.
    """

    rotation_range: float = 0.0
    width_shift_range: Shift = 0.0
    height_shift_range: Shift = 0.0
    brightness_range: tuple[float, float] | None = None
    shear_range: float = 0.0
    zoom_range: float | tuple[float, float] = 0.0
    channel_shift_range: float = 0.0
    fill_mode: str = "nearest"
    cval: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    interpolation_order: int = 1
    data_format: str = "channels_last"
    quirks: bool = False
    value_range: tuple[float, float] = (0.0, 255.0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        (self._check_ranges_as_keras if self.quirks is True else self._check_ranges)()
        _check("cval", "a finite number", self.cval, finite(self.cval))
        _check_choice("fill_mode", self.fill_mode, FILL_MODES)
        _check_choice("data_format", self.data_format, DATA_FORMATS)
        for name in ("horizontal_flip", "vertical_flip", "quirks"):
            _check(
                name, "True or False", getattr(self, name), isinstance(getattr(self, name), bool)
            )
        order = self.interpolation_order
        whole = isinstance(order, int) and not isinstance(order, bool)
        _check("interpolation_order", "an int from 0 to 5", order, whole and 0 <= order <= 5)
        _check(
            "value_range",
            "a pair (lower, upper) with lower < upper",
            self.value_range,
            _is_pair(self.value_range, -math.inf) and self.value_range[0] < self.value_range[1],
        )

    def _check_ranges(self) -> None:
        for name in ("rotation_range", "shear_range", "channel_shift_range"):
            value = getattr(self, name)
            _check(name, "a finite number, at least 0", value, finite(value) and value >= 0)
        for name in ("width_shift_range", "height_shift_range"):
            value = getattr(self, name)
            rule = "a finite number, at least 0, or a 1-D array of finite numbers"
            _check(name, rule, value, _is_shift(value))
        _check(
            "brightness_range",
            "None or a pair (lower, upper) with 0 <= lower <= upper",
            self.brightness_range,
            self.brightness_range is None or _is_pair(self.brightness_range, 0),
        )
        _check(
            "zoom_range",
            "a float in [0, 1) or a pair (lower, upper) with 0 < lower <= upper",
            self.zoom_range,
            _is_zoom(self.zoom_range),
        )

    def _check_ranges_as_keras(self) -> None:
        for name in ("rotation_range", "shear_range", "channel_shift_range"):
            value = getattr(self, name)
            _check(name, "a finite number", value, finite(value))
        for name in ("width_shift_range", "height_shift_range"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            rule = "a finite float, an int, at least 0, or a 1-D array of finite numbers"
            _check(name, rule, value, _is_shift(value) or (finite(value) and not whole))
        for name in ("zoom_range", "brightness_range"):
            value = getattr(self, name)
            pair = isinstance(value, tuple) and len(value) == 2 and all(map(finite, value))
            single = finite(value) if name == "zoom_range" else value is None
            alone = "a finite number" if name == "zoom_range" else "None"
            _check(name, f"{alone} or a pair of finite numbers", value, pair or single)

    @property
    def idle(self) -> bool:
        """Whether no image is ever changed."""
        return (
            not any((self.rotation_range, self.shear_range, self.channel_shift_range))
            and not any((self.horizontal_flip, self.vertical_flip))
            and self.width_shift_range in (0, ())
            and self.height_shift_range in (0, ())
            and self.zoom_limits == (1, 1)
            and self.brightness_range is None
        )

    @property
    def zoom_limits(self) -> tuple[float, float]:
        """The smallest and the largest zoom factor."""
        if isinstance(self.zoom_range, tuple):
            return self.zoom_range
        return 1 - self.zoom_range, 1 + self.zoom_range


@dataclasses.dataclass(frozen=True)
class StandardizeOptions:
    """What `Standardize` does to every image, in this order.

    Args:
        preprocessing_function: None, or a function of a batch of images, float32 tensors, to a
            batch of the same shape, of TensorFlow or Keras operations.
        rescale: None, or a finite number to multiply by.
        samplewise_center: Bool. Subtracts each image's mean.
        samplewise_std_normalization: Bool. Divides by each image's standard deviation.
        featurewise_center: Bool. Subtracts the data set's mean of each channel.
        featurewise_std_normalization: Bool. Divides by the data set's standard deviation of each
            channel.
        zca_whitening: Bool. Multiplies each image, flattened, by the data set's ZCA matrix.
        zca_epsilon: Float, above 0.
        data_format: "channels_last" or "channels_first".

    Raises:
        ValueError: A value breaks its rule; names the option, the rule and the value.
    """

    preprocessing_function: Callable[[Any], Any] | None = None
    rescale: float | None = None
    samplewise_center: bool = False
    samplewise_std_normalization: bool = False
    featurewise_center: bool = False
    featurewise_std_normalization: bool = False
    zca_whitening: bool = False
    zca_epsilon: float = 1e-6
    data_format: str = "channels_last"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        for name in (
            "samplewise_center",
            "samplewise_std_normalization",
            "featurewise_center",
            "featurewise_std_normalization",
            "zca_whitening",
        ):
            _check(
                name, "True or False", getattr(self, name), isinstance(getattr(self, name), bool)
            )
        _check(
            "rescale",
            "None or a finite number",
            self.rescale,
            self.rescale is None or finite(self.rescale),
        )
        epsilon = self.zca_epsilon
        _check("zca_epsilon", "a finite number above 0", epsilon, finite(epsilon) and epsilon > 0)
        function = self.preprocessing_function
        _check(
            "preprocessing_function",
            "None or callable",
            function,
            function is None or callable(function),
        )
        _check_choice("data_format", self.data_format, DATA_FORMATS)


def check_validation_split(value: float) -> None:
    """Checks the share of a data set that is set apart for validation.

    Args:
        value: Float in [0, 1).

    Raises:
        ValueError: It is not.
    """
    _check("validation_split", "a number in [0, 1)", value, finite(value) and 0 <= value < 1)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    quoted = ", ".join(repr(choice) for choice in choices)
    _check(name, f"one of {quoted}", value, isinstance(value, str) and value in choices)


def _is_shift(value: object) -> bool:
    if isinstance(value, tuple):
        return len(value) > 0 and all(map(finite, value))
    return finite(value) and value >= 0  # type: ignore[operator]


def _is_zoom(value: object) -> bool:
    if isinstance(value, tuple):
        return _is_pair(value, 0) and value[0] > 0
    return finite(value) and 0 <= value < 1  # type: ignore[operator]

"""Random erasing: a rectangle of the image replaced by a colour or by noise.

Zhong et al., "Random erasing data augmentation", AAAI 2020, as `keras.layers.RandomErasing` defines
it: sides, place and fill follow that layer, from this package's stateless draws.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from asl_fast.transforms.checks import check, finite, is_pair
from asl_fast.transforms.threefry import as_uniform, threefry2x32
from asl_fast.transforms.transform import (
    Control,
    Parameters,
    Side,
    Tensor,
    Transform,
    between,
    image_shape,
    option,
    per_image,
    real,
    tf,
)

__all__ = ["RandomErasing"]

_NOISE = 0x45524153  # the second word of the noise's key, apart from the seeds of draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomErasing(Transform):
    """Fills the pixels with `erasing_left` <= column < `erasing_right`, and rows likewise."""

    parameters: ClassVar[Mapping[str, float]] = {
        "erasing_left": 0.0,
        "erasing_right": 0.0,
        "erasing_top": 0.0,
        "erasing_bottom": 0.0,
        "erasing_noise": 0.0,
    }
    draws = 7

    erasing_factor: float | tuple[float, float] = option(
        0.0,
        "Float `p` in [0, 1] for `(0, p)`, or a pair `(lower, upper)` in [0, 1]: the range from "
        "which each image's probability of losing a rectangle is drawn.",
        Control("Random erasing, highest probability", 1, 0.05),
    )
    erasing_scale: tuple[float, float] = option(
        (0.02, 0.33),
        "Pair `(lower, upper)` in [0, 1]. The square roots of two numbers from this range are the "
        "rectangle's width and height as fractions of the image's.",
        Control("Erased rectangle, fraction of each side squared", 1, 0.01, both=True),
    )
    erasing_fill_value: float | tuple[float, float, float] | None = option(
        None,
        "What the rectangle holds: a number, three numbers for images of three channels, or None "
        "for normal noise times the upper end of `value_range`; clipped to `value_range`.",
    )

    def check(self) -> None:
        """Checks the three options."""
        factor, fill = self.erasing_factor, self.erasing_fill_value
        single = not isinstance(factor, tuple) and finite(factor) and 0 <= factor <= 1
        rule = "a pair (lower, upper) with 0 <= lower <= upper <= 1"
        check("erasing_factor", f"a float in [0, 1] or {rule}", factor, single or _is_share(factor))
        check("erasing_scale", rule, self.erasing_scale, _is_share(self.erasing_scale))
        three = isinstance(fill, tuple) and len(fill) == 3 and all(map(finite, fill))
        rule = "None, a finite number or three of them"
        check("erasing_fill_value", rule, fill, fill is None or finite(fill) or three)

    @property
    def _probabilities(self) -> tuple[float, float]:
        factor = self.erasing_factor
        return factor if isinstance(factor, tuple) else (0.0, factor)

    @property
    def active(self) -> bool:
        """Whether the probability can be above 0."""
        return self._probabilities[1] > 0

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Draws the rectangle, empty where the image keeps its pixels, and the noise's key."""
        sides = [tf.sqrt(between(unit, *self.erasing_scale)) for unit in units[:2]]
        erased = units[5] < between(units[4], *self._probabilities)
        across, down = (
            tf.where(erased, side * real(length), 0.0)
            for side, length in zip(sides, (width, height), strict=True)
        )
        left, top = units[2] * (real(width) - across), units[3] * (real(height) - down)
        return {
            "erasing_left": left,
            "erasing_right": left + across,
            "erasing_top": top,
            "erasing_bottom": top + down,
            "erasing_noise": units[6],
        }

    def pixels(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Fills the rectangles."""
        height, width, channels = image_shape(images)
        left, right, top, bottom = (
            per_image(parameters[f"erasing_{edge}"]) for edge in ("left", "right", "top", "bottom")
        )
        columns = tf.cast(tf.range(width), tf.float32)[None, None, :, None]
        rows = tf.cast(tf.range(height), tf.float32)[None, :, None, None]
        erased = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
        fill: Tensor = self.erasing_fill_value
        if fill is None:
            noise = _normal(parameters["erasing_noise"], height * width * channels)
            fill = tf.reshape(noise, tf.shape(images)) * self.value_range[1]
        elif isinstance(fill, tuple) and images.shape[-1] != 3:
            raise ValueError(
                "`images` must have 3 channels for an `erasing_fill_value` of three numbers. "
                f"Received: {images.shape[-1]} channels"
            )
        fill = tf.clip_by_value(tf.cast(fill, tf.float32), *self.value_range)
        return tf.where(erased, fill, images)


def _is_share(value: object) -> bool:
    return is_pair(value, 0) and value[1] <= 1  # type: ignore[index]


def _normal(unit: Tensor, count: Side) -> Tensor:
    """Returns (n, count) normal numbers, a row for each key in [0, 1) (Box and Muller, 1958)."""
    half = -(-count // 2)
    key = tf.cast(unit[:, None] * 2.0**24, tf.uint32) + tf.zeros([half], tf.uint32)
    counter = tf.cast(tf.range(half)[None, :], tf.uint32) + tf.zeros_like(key)
    words = threefry2x32((key, tf.constant(_NOISE, tf.uint32)), (counter, tf.zeros_like(counter)))
    radius, angle = map(as_uniform, words)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - radius))
    angle = angle * (2 * math.pi)
    return tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)[:, :count]

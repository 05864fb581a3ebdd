"""Brightness: pixels times a factor."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from asl_fast.transforms.checks import check, is_finite_pair, is_pair
from asl_fast.transforms.transform import (
    Control,
    Parameters,
    Side,
    Tensor,
    Transform,
    between,
    option,
    per_image,
    tf,
)

__all__ = ["Brightness"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brightness(Transform):
    """Multiplies pixels by `brightness`."""

    parameters: ClassVar[Mapping[str, float]] = {"brightness": 1.0}
    draws = 1

    brightness_range: tuple[float, float] | None = option(
        None,
        "None, or a pair `(lower, upper)` with 0 <= lower <= upper: a factor.",
        Control("Brightness", 3, 0.05, both=True),
    )

    def check(self) -> None:
        """Checks `brightness_range`."""
        value = self.brightness_range
        if self.quirks:
            rule, holds = "None or a pair of finite numbers", is_finite_pair(value)
        else:
            rule = "None or a pair (lower, upper) with 0 <= lower <= upper"
            holds = is_pair(value, 0)
        check("brightness_range", rule, value, value is None or holds)

    @property
    def active(self) -> bool:
        """Whether there is a range."""
        return self.brightness_range is not None

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Draws `brightness`."""
        assert self.brightness_range is not None
        return {"brightness": between(units[0], *self.brightness_range)}

    def replay(self, generator: Any, height: int, width: int) -> Mapping[str, Any]:
        """Draws `brightness` as Keras does."""
        limits = self.brightness_range
        return {} if limits is None else {"brightness": generator.uniform(*limits)}

    def pixels(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Multiplies and clips to `value_range`; with `quirks` as Keras does."""
        factor = per_image(parameters["brightness"])
        if self.quirks:
            return _by_pil(images, factor)
        return tf.clip_by_value(images * factor, *self.value_range)


def _by_pil(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies as Keras's generator does, by way of 8-bit PIL images.

    Pixels are truncated to whole numbers before and after, so images in [0, 1] end up as zeros and
    ones. An image with a pixel below 0 or above 255 is stretched to 0 to 255 before and back after.
    Of four channels the last, alpha, keeps its brightness.
    """
    channels = images.shape[-1]
    if channels not in (1, 3, 4):
        raise ValueError(
            "`images` must have 1, 3 or 4 channels for `brightness_range` with `quirks`, as for "
            f"PIL. Received: {channels} channels"
        )
    lower = tf.reduce_min(images, axis=[1, 2, 3], keepdims=True)
    upper = tf.reduce_max(images, axis=[1, 2, 3], keepdims=True)
    outside = (lower < 0) | (upper > 255)
    spread = upper - lower
    # Keras divides by the largest difference first; the order matters where pixels are truncated.
    stretched = (images - lower) / tf.where(spread == 0, 1.0, spread) * 255.0
    whole = tf.floor(tf.where(outside, stretched, images))
    bright = tf.floor(tf.clip_by_value(whole * factor, 0.0, 255.0))
    if channels == 4:
        bright = tf.concat([bright[..., :3], whole[..., 3:]], axis=-1)
    return tf.where(outside, bright / 255.0 * spread + lower, bright)

"""Channel shift: one number added to all channels."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from asl_fast.transforms.checks import check_limit
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

__all__ = ["ChannelShift"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelShift(Transform):
    """Adds `channel_shift_intensity` to all channels and clips to the image's own range."""

    parameters: ClassVar[Mapping[str, float]] = {"channel_shift_intensity": 0.0}
    draws = 1

    channel_shift_range: float = option(
        0.0,
        "Float, at least 0: added to all channels, clipped to the image's own range; in the units "
        "of the pixels.",
        Control("Channel shift, ± grey levels", 255, 5),
    )

    def check(self) -> None:
        """Checks `channel_shift_range`."""
        check_limit("channel_shift_range", self.channel_shift_range, self.quirks)

    @property
    def active(self) -> bool:
        """Whether the range is not 0."""
        return bool(self.channel_shift_range)

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Draws `channel_shift_intensity`."""
        limit = self.channel_shift_range
        return {"channel_shift_intensity": between(units[0], -limit, limit)}

    def replay(self, generator: Any, height: int, width: int) -> Mapping[str, Any]:
        """Draws `channel_shift_intensity` as Keras does."""
        limit = self.channel_shift_range
        return {"channel_shift_intensity": generator.uniform(-limit, limit)} if limit else {}

    def pixels(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Adds and clips."""
        lower = tf.reduce_min(images, axis=[1, 2, 3], keepdims=True)
        upper = tf.reduce_max(images, axis=[1, 2, 3], keepdims=True)
        shifted = images + per_image(parameters["channel_shift_intensity"])
        return tf.clip_by_value(shifted, lower, upper)

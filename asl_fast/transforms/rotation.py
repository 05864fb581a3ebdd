"""Rotation about the middle of the image."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from asl_fast.transforms.checks import check_limit
from asl_fast.transforms.transform import (
    Affine,
    Control,
    Frame,
    Parameters,
    Side,
    Tensor,
    Transform,
    between,
    option,
    tf,
)

__all__ = ["Rotation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation(Transform):
    """Turns images by `theta` degrees."""

    parameters: ClassVar[Mapping[str, float]] = {"theta": 0.0}
    draws = 1

    rotation_range: float = option(
        0.0,
        "Float, degrees, at least 0: angles in ±`rotation_range`.",
        Control("Rotation, ± degrees", 180),
    )

    def check(self) -> None:
        """Checks `rotation_range`."""
        check_limit("rotation_range", self.rotation_range, self.quirks)

    @property
    def active(self) -> bool:
        """Whether the range is not 0."""
        return bool(self.rotation_range)

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Draws `theta`."""
        return {"theta": between(units[0], -self.rotation_range, self.rotation_range)}

    def replay(self, generator: Any, height: int, width: int) -> Mapping[str, Any]:
        """Draws `theta` as Keras does."""
        limit = self.rotation_range
        return {"theta": generator.uniform(-limit, limit) if limit else 0.0}

    def matrix(self, parameters: Parameters, frame: Frame) -> Affine:
        """Returns the rotation."""
        theta = parameters["theta"] * (math.pi / 180)
        cos, sin = tf.cos(theta), tf.sin(theta)
        return Affine(xx=cos, xy=-sin, yx=sin, yy=cos)

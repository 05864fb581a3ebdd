"""Shear about the middle of the image."""

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

__all__ = ["Shear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shear(Transform):
    """Shears images by an angle of `shear` degrees."""

    parameters: ClassVar[Mapping[str, float]] = {"shear": 0.0}
    draws = 1

    shear_range: float = option(
        0.0,
        "Float, degrees, at least 0: shear angles in ±`shear_range`.",
        Control("Shear, ± degrees", 60),
    )

    def check(self) -> None:
        """Checks `shear_range`."""
        check_limit("shear_range", self.shear_range, self.quirks)

    @property
    def active(self) -> bool:
        """Whether the range is not 0."""
        return bool(self.shear_range)

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Draws `shear`."""
        return {"shear": between(units[0], -self.shear_range, self.shear_range)}

    def replay(self, generator: Any, height: int, width: int) -> Mapping[str, Any]:
        """Draws `shear` as Keras does."""
        limit = self.shear_range
        return {"shear": generator.uniform(-limit, limit) if limit else 0.0}

    def matrix(self, parameters: Parameters, frame: Frame) -> Affine:
        """Returns Keras's shear, which also shortens: [[1, −sin s], [0, cos s]]."""
        shear = parameters["shear"] * (math.pi / 180)
        return Affine(xy=-tf.sin(shear), yy=tf.cos(shear))

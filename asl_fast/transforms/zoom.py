"""Zoom about the middle of the image."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from asl_fast.transforms.checks import check, finite, is_finite_pair, is_pair
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
)

__all__ = ["Zoom"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zoom(Transform):
    """Scales output to input coordinates by `zx` along the columns and `zy` along the rows."""

    parameters: ClassVar[Mapping[str, float]] = {"zx": 1.0, "zy": 1.0}
    draws = 2

    zoom_range: float | tuple[float, float] = option(
        0.0,
        "Float `z` in [0, 1) for `(1 - z, 1 + z)`, or a pair `(lower, upper)` with 0 < lower <= "
        "upper. One factor an axis; it scales output coordinates to input coordinates, so 1.2 "
        "shows more of the image, smaller.",
        Control("Zoom, 1 ±", 0.9, 0.05),
    )

    def check(self) -> None:
        """Checks `zoom_range`."""
        value = self.zoom_range
        if self.quirks:
            rule, holds = (
                "a finite number or a pair of finite numbers",
                finite(value) or is_finite_pair(value),
            )
        else:
            rule = "a float in [0, 1) or a pair (lower, upper) with 0 < lower <= upper"
            if isinstance(value, tuple):
                holds = is_pair(value) and value[0] > 0
            else:
                holds = finite(value) and 0 <= value < 1
        check("zoom_range", rule, value, holds)

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest factor."""
        if isinstance(self.zoom_range, tuple):
            return self.zoom_range
        return 1 - self.zoom_range, 1 + self.zoom_range

    @property
    def active(self) -> bool:
        """Whether a factor other than 1 is drawn."""
        return self.limits != (1, 1)

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Draws `zx` and `zy`."""
        return {"zx": between(units[0], *self.limits), "zy": between(units[1], *self.limits)}

    def replay(self, generator: Any, height: int, width: int) -> Mapping[str, Any]:
        """Draws `zx` and `zy` as Keras does."""
        zx, zy = generator.uniform(*self.limits, 2) if self.active else (1.0, 1.0)
        return {"zx": zx, "zy": zy}

    def matrix(self, parameters: Parameters, frame: Frame) -> Affine:
        """Returns the scaling."""
        return Affine(xx=parameters["zx"], yy=parameters["zy"])

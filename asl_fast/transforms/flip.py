"""Flips: left and right, top and bottom."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from asl_fast.transforms.checks import check_flags
from asl_fast.transforms.transform import (
    Affine,
    Control,
    Frame,
    Parameters,
    Side,
    Tensor,
    Transform,
    indicated,
    option,
    real,
)

__all__ = ["Flip"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip(Transform):
    """Mirrors images where `flip_horizontal` or `flip_vertical` is 1."""

    parameters: ClassVar[Mapping[str, float]] = {"flip_horizontal": 0.0, "flip_vertical": 0.0}
    draws = 2

    horizontal_flip: bool = option(
        False,
        "Bool. Swaps left and right with probability 1/2.",
        Control("Flip left and right"),
    )
    vertical_flip: bool = option(
        False,
        "Bool. Swaps top and bottom with probability 1/2.",
        Control("Flip top and bottom"),
    )

    def check(self) -> None:
        """Checks the two flags."""
        check_flags(self, "horizontal_flip", "vertical_flip")

    @property
    def active(self) -> bool:
        """Whether one of the flips is on."""
        return self.horizontal_flip or self.vertical_flip

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Draws which images are mirrored."""
        return {
            "flip_horizontal": indicated(units[0] < 0.5 * self.horizontal_flip),
            "flip_vertical": indicated(units[1] < 0.5 * self.vertical_flip),
        }

    def replay(self, generator: Any, height: int, width: int) -> Mapping[str, Any]:
        """Draws both flips as Keras does, also where they are off."""
        return {
            "flip_horizontal": (generator.random_sample() < 0.5) * self.horizontal_flip,
            "flip_vertical": (generator.random_sample() < 0.5) * self.vertical_flip,
        }

    def matrix(self, parameters: Parameters, frame: Frame) -> Affine:
        """Returns the reflection, about the true middle whatever the frame's point is."""
        across, down = parameters["flip_horizontal"], parameters["flip_vertical"]
        off_x = off_y = 0.0
        if self.quirks:
            off_x, off_y = real(frame.width) - 1 - 2 * frame.x, real(frame.height) - 1 - 2 * frame.y
        return Affine(
            xx=1.0 - 2.0 * across,
            x0=across * off_x if self.quirks else 0.0,
            yy=1.0 - 2.0 * down,
            y0=down * off_y if self.quirks else 0.0,
        )

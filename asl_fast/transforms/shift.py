"""Shifts along columns and rows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from asl_fast.transforms.checks import check, finite
from asl_fast.transforms.transform import (
    Affine,
    Control,
    Frame,
    Parameters,
    Side,
    Tensor,
    Transform,
    between,
    chosen,
    option,
    real,
)

__all__ = ["Range", "Shift"]

Range = float | int | tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift(Transform):
    """Moves images by `tx` columns and `ty` rows."""

    parameters: ClassVar[Mapping[str, float]] = {"tx": 0.0, "ty": 0.0}
    draws = 2

    width_shift_range: Range = option(
        0.0,
        "Shift along the columns. A float, at least 0: symmetric, below 1 a fraction of the width, "
        "from 1 on pixels. An int `n`, at least 0: whole pixels, −n+1 to n−1 (so 1 never shifts). "
        "A 1-D array: one of its values with a random sign, fractions of the width if all are "
        "below 1, else pixels.",
        Control("Shift sideways, ± share of the width", 0.5, 0.01),
    )
    height_shift_range: Range = option(
        0.0,
        "The same along the rows.",
        Control("Shift up and down, ± share of the height", 0.5, 0.01),
    )

    def check(self) -> None:
        """Checks the two ranges."""
        number = (
            "a finite float, an int, at least 0" if self.quirks else "a finite number, at least 0"
        )
        for name in ("width_shift_range", "height_shift_range"):
            value = getattr(self, name)
            if isinstance(value, tuple):
                holds = len(value) > 0 and all(map(finite, value))
            else:
                whole = isinstance(value, int)
                holds = finite(value) and (value >= 0 or (self.quirks and not whole))
            number = (
                "a finite float, an int, at least 0,"
                if self.quirks
                else "a finite number, at least 0,"
            )
            check(name, f"a finite {number}, or a 1-D array of finite numbers", value, holds)

    @property
    def active(self) -> bool:
        """Whether one of the ranges holds another value than 0."""
        return not {self.width_shift_range, self.height_shift_range} <= {0, ()}

    def draw(self, units: Sequence[Tensor], height: Side, width: Side) -> Parameters:
        """Draws `tx` and `ty`."""
        rows = _drawn(units[0], self.height_shift_range, height)
        columns = _drawn(units[1], self.width_shift_range, width)
        if self.quirks:  # Keras's generator takes the height's shift for x (tensorflow #82838)
            rows, columns = columns, rows
        return {"tx": columns, "ty": rows}

    def replay(self, generator: Any, height: int, width: int) -> Mapping[str, Any]:
        """Draws `tx` and `ty` as Keras does, which takes the height's shift for x."""
        return {
            "tx": _replayed(generator, self.height_shift_range, height),
            "ty": _replayed(generator, self.width_shift_range, width),
        }

    def matrix(self, parameters: Parameters, frame: Frame) -> Affine:
        """Returns the translation."""
        return Affine(x0=parameters["tx"], y0=parameters["ty"])


def _drawn(unit: Tensor, limit: Range, side: Side) -> Tensor:
    if isinstance(limit, float):
        pixels = limit * real(side) if limit < 1 else limit
        return between(unit, -pixels, pixels)
    values = tuple(range(limit)) if isinstance(limit, int) else limit
    scale = real(side) if max(values, default=0) < 1 else 1.0
    # A value and a sign in one draw: all values, and all of them negated.
    signed = [*values, *(-value for value in values)] or [0]
    return scale * chosen(unit, signed)


def _replayed(generator: Any, limit: Range, side: int) -> Any:
    if not limit:
        return 0.0
    if isinstance(limit, float):
        value, largest = generator.uniform(-limit, limit), limit
    else:
        value = generator.choice(limit) * generator.choice([-1, 1])
        largest = limit if isinstance(limit, int) else max(limit)
    return value * side if largest < 1 else value

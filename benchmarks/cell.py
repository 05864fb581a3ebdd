"""A cell: some contenders measured in turn, A B C A B C …, under the same conditions."""

import dataclasses
import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

__all__ = [
    "BEFOREHAND",
    "LIMITS",
    "UNITS",
    "Cell",
    "Meter",
    "in_turn",
    "interval",
    "quartiles",
    "timed",
]

# Of samples: whether more is better.
UNITS = {"images/s": True, "s": False, "MiB": False, "µs a step": False, "share idle": False}

# Who augments nothing in the time that counts, and so is nobody's rival.
BEFOREHAND = "augmented beforehand"
LIMITS = frozenset({"no augmentation", BEFOREHAND})


@dataclasses.dataclass(frozen=True)
class Cell:
    """What was measured of some contenders under the same conditions.

    Attributes:
        group: What kind of measurement, as "pipeline".
        about: The conditions, as {"batch": 32, "side": 28, "channels": 1}.
        unit: One of `UNITS`.
        samples: By contender one value a turn.
        load: The machine's load average before and after.
        skipped: By contender why it was not measured.
    """

    group: str
    about: dict[str, Any]
    unit: str
    samples: dict[str, list[float]]
    load: tuple[float, float]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """What tells it from other cells."""
        words = [f"{name} {value}" for name, value in self.about.items()]
        return ", ".join([self.group, *words])

    def best(self, start: str) -> tuple[str, list[float]] | None:
        """Returns the best of the contenders whose names begin so, with its samples."""
        found = {name: values for name, values in self.samples.items() if name.startswith(start)}
        if not found:
            return None
        choose = max if UNITS[self.unit] else min
        name = choose(found, key=lambda name: float(np.median(found[name])))
        return name, found[name]


class Meter:
    """Repeats turns, and hears of what is being done; others show it, or time it."""

    def say(self, text: str) -> None:
        """Is told what is being done."""

    def repeat(self, turn: Callable[[], None], turns: int, warm_up: int) -> None:
        """Runs a turn so many times, after others that don't count."""
        for _ in range(warm_up + turns):
            turn()


def quartiles(values: Any) -> tuple[float, float, float]:
    """Returns the lower quartile, the median and the upper quartile."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(low), float(median), float(high)


def in_turn(
    group: str,
    about: dict[str, Any],
    unit: str,
    contenders: dict[str, Callable[[], float]],
    *,
    turns: int,
    warm_up: int = 1,
    skipped: dict[str, str] | None = None,
    meter: Meter | None = None,
) -> Cell:
    """Measures everyone once a turn.

    Args:
        group: As the cell's.
        about: As the cell's.
        unit: As the cell's.
        contenders: By name what measures one sample.
        turns: Int, how many samples of each.
        warm_up: Int, how many turns before do not count.
        skipped: As the cell's.
        meter: Repeats the turns, and hears of what is being done.
    """
    meter = meter or Meter()
    load = os.getloadavg()[0]
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    numbers = itertools.count(1 - warm_up)

    def turn() -> None:
        number = next(numbers)
        for name, sample in contenders.items():
            when = f"turn {number} of {turns}" if number > 0 else "warming up"
            meter.say(f"{name}, {when}")
            value = sample()
            if number > 0:
                samples[name].append(value)

    meter.repeat(turn, turns, warm_up)
    after = os.getloadavg()[0]
    return Cell(group, about, unit, samples, (round(load, 2), round(after, 2)), skipped or {})


def timed(run: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the half-width of its 95 % interval (Student's t; NaN for one value)."""
    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values)) if n > 1 else math.nan
    return float(np.mean(values)), half

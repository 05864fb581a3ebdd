"""A cell: contenders measured in turns (A B C A B C …) under the same conditions."""

import dataclasses
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
    "Say",
    "in_turn",
    "interval",
    "quartiles",
    "timed",
]

# Units of samples, and whether more is better. The last is in committed results of a former group.
UNITS = {"images/s": True, "s": False, "MiB": False, "share idle": False, "µs a step": False}

# Contenders that augment nothing while the clock runs, so they are nobody's rival.
BEFOREHAND = "augmented beforehand"
LIMITS = frozenset({"no augmentation", BEFOREHAND})

# Shows what is being measured.
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Cell:
    """Samples of several contenders under the same conditions.

    Attributes:
        group: Kind of measurement, such as "pipeline".
        about: The conditions, such as {"batch": 32, "side": 28, "channels": 1}.
        unit: One of `UNITS`.
        samples: One value a turn, by contender.
        load: The machine's load average before and after.
        skipped: Why a contender was not measured, by contender.
    """

    group: str
    about: dict[str, Any]
    unit: str
    samples: dict[str, list[float]]
    load: tuple[float, float]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identifies the cell among others."""
        return ", ".join([self.group, *(f"{name} {value}" for name, value in self.about.items())])

    def best_of_ours(self) -> str | None:
        """Returns the name of this package's best contender."""
        return self._best([name for name in self.samples if name.startswith("our ")])

    def best_rival(self) -> str | None:
        """Returns the name of the best of the others, limits excluded."""
        return self._best([n for n in self.samples if not n.startswith("our ") and n not in LIMITS])

    def _best(self, names: list[str]) -> str | None:
        choose = max if UNITS[self.unit] else min
        return choose(names, key=lambda name: float(np.median(self.samples[name])), default=None)


def in_turn(
    group: str,
    about: dict[str, Any],
    unit: str,
    contenders: dict[str, Callable[[], float]],
    *,
    turns: int,
    say: Say,
    warm_up: int = 1,
    skipped: dict[str, str] | None = None,
) -> Cell:
    """Measures each contender once a turn.

    Args:
        group: The cell's.
        about: The cell's.
        unit: The cell's.
        contenders: By name a function that measures one sample.
        turns: Int, samples of each.
        say: Shows the progress.
        warm_up: Int, turns before that do not count.
        skipped: The cell's.
    """
    load = os.getloadavg()[0]
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1 - warm_up, turns + 1):
        for name, sample in contenders.items():
            say(f"{name}, {f'turn {number} of {turns}' if number > 0 else 'warming up'}")
            value = sample()
            if number > 0:
                samples[name].append(value)
    after = os.getloadavg()[0]
    return Cell(group, about, unit, samples, (round(load, 2), round(after, 2)), skipped or {})


def timed(run: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def quartiles(values: Any) -> tuple[float, float, float]:
    """Returns the lower quartile, the median and the upper quartile."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(low), float(median), float(high)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the half-width of its 95 % interval (Student's t; NaN for one value)."""
    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values)) if n > 1 else math.nan
    return float(np.mean(values)), half

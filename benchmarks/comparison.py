"""Compares two results: what moved beyond the noise.

A machine's speed changes from hour to hour, so times are never compared. What is compared is the
lead of each contender of ours: its ratio to the geometric mean of its rivals in the same turn.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from asl_fast.system.errors import InputError
from benchmarks import results
from benchmarks.cell import LIMITS, UNITS, Cell

__all__ = ["Change", "compare", "show"]

_SIGMAS = 3.0
_LEAST = 1.25  # a smaller change is never reported, however small the spread


class Change(NamedTuple):
    """How a contender's lead changed from one result to another.

    Attributes:
        cell: The cell's key.
        name: The contender.
        before: Its lead over its rivals, above 1 if it is better.
        after: Its lead in the other result.
        noise: The factor by which `after / before` may differ from 1 by chance.
    """

    cell: str
    name: str
    before: float
    after: float
    noise: float

    @property
    def factor(self) -> float:
        """How many times better it is now."""
        return self.after / self.before

    @property
    def moved(self) -> bool:
        """Whether that is beyond the noise."""
        return abs(math.log(self.factor)) > math.log(self.noise)


def compare(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[Change], list[str]]:
    """Compares the cells that two results have in common.

    Returns:
        The changes of all of ours, the largest relative to its noise first; and the keys of cells
        that can't be compared because one result lacks them, or they have no rival.
    """
    first = {cell.key: cell for cell in before["cells"]}
    second = {cell.key: cell for cell in after["cells"]}
    apart = sorted(first.keys() ^ second.keys())
    changes = []
    for key in first.keys() & second.keys():
        a, b = first[key], second[key]
        common = [name for name in a.samples if name in b.samples]
        rivals = [name for name in common if not _ours(name) and name not in LIMITS]
        if not rivals:
            apart.append(key)
            continue
        for name in filter(_ours, common):
            (x, x_error), (y, y_error) = _lead(a, name, rivals), _lead(b, name, rivals)
            noise = max(_SIGMAS * math.hypot(x_error, y_error), math.log(_LEAST))
            changes.append(Change(key, name, math.exp(x), math.exp(y), math.exp(noise)))
    changes.sort(key=lambda change: -abs(math.log(change.factor)) / math.log(change.noise))
    return changes, apart


def _ours(name: str) -> bool:
    return name.startswith("our ")


def _lead(cell: Cell, name: str, rivals: list[str]) -> tuple[float, float]:
    """Returns the median logarithm of the lead over the turns, and its standard error."""
    sign = 1 if UNITS[cell.unit] else -1
    everyone = np.log([np.maximum(cell.samples[rival], 1e-9) for rival in rivals])
    leads = sign * (np.log(np.maximum(cell.samples[name], 1e-9)) - everyone.mean(0))
    # The standard error of the median, by the quartiles, which an outlier does not move.
    low, median, high = np.percentile(leads, [25, 50, 75])
    return float(median), float(1.2533 * (high - low) / 1.349 / math.sqrt(len(leads)))


def show(before: Path, after: Path, console: Console) -> bool:
    """Prints what moved beyond the noise; returns whether any lead of ours became smaller.

    Raises:
        InputError: A file holds no results, or the two have no cell in common.
    """
    changes, apart = compare(results.read(before), results.read(after))
    if not changes:
        raise InputError(f"{before} and {after} have no cell in common that could be compared.")
    moved = [change for change in changes if change.moved]
    if moved:
        table = Table("cell", "contender", "lead before", "after", "factor", "noise")
        for change in moved:
            table.add_row(
                *(change.cell, change.name, f"{change.before:.3g}", f"{change.after:.3g}"),
                *(f"{change.factor:.2f}", f"up to {change.noise:.2f}"),
            )
        console.print(table)
    worse = sum(change.factor < 1 for change in moved)
    console.print(
        f"{len(moved)} of {len(changes)} leads over the rivals moved beyond the noise: {worse} "
        f"down, {len(moved) - worse} up.",
        highlight=False,
    )
    if apart:
        console.print(f"Not compared: {'; '.join(apart)}.", highlight=False, markup=False)
    return worse > 0

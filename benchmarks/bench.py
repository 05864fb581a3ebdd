"""Runs the suite and writes its results, as `asl-fast bench` does."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from asl_fast.system.errors import InputError
from asl_fast.system.storage import make_folder
from benchmarks import report, results, suite
from benchmarks.cell import Cell, quartiles
from benchmarks.plots import plot

__all__ = ["run"]


def run(
    size: str, groups: list[str], out: Path, data: Path | None, console: Console, notes: Console
) -> None:
    """Measures; writes results.json, results.md and pictures.

    Args:
        size: Of `suite.SIZES`.
        groups: Of `suite.GROUPS`; empty takes those of the size.
        out: Folder. Results of other groups that it holds stay in it.
        data: Folder with the real data, or None.
        console: For the results.
        notes: For the progress.

    Raises:
        InputError: There is no such group, or no data for the race.
    """
    chosen = suite.SIZES[size]
    if groups:
        chosen = dataclasses.replace(chosen, groups=tuple(dict.fromkeys(groups)))
    plans = list(suite.plans(chosen, data))
    make_folder(out)
    path = out / "results.json"
    measured = suite.begin(size)
    if path.exists():
        measured = _merged(results.read(path), measured, {plan.group for plan in plans})
    begin = time.perf_counter()
    tf.get_logger().setLevel("ERROR")  # TensorFlow warns of tracing each contender
    with _progress(notes, len(plans)) as bar:
        for plan in plans:
            bar.begin(plan.title)
            cells = plan.run(bar.say)
            measured["races" if plan.group == "race" else "cells"] += cells
            results.write(measured, path)  # after each plan, in case the rest is stopped
            for cell in cells:
                if isinstance(cell, Cell):
                    _show(cell, console)
            bar.advance()
    (out / "results.md").write_text(report.markdown(measured))
    pictures = plot(measured, out)
    names = ", ".join(p.name for p in (path, out / "results.md", *pictures))
    minutes = (time.perf_counter() - begin) / 60
    notes.print(f"Measured in {minutes:.1f} minutes. Wrote {names} into {out}", highlight=False)


def _merged(old: dict[str, Any], new: dict[str, Any], measured: set[str]) -> dict[str, Any]:
    """Returns new results with the cells of other groups that old ones of this machine hold."""
    if (old["machine"], old["versions"]) != (new["machine"], new["versions"]):
        raise InputError(
            "The folder holds results of another machine, or of other versions of packages. Name "
            "another folder with --out."
        )
    groups = measured | ({"memory", "start-up"} if "processes" in measured else set())
    cells = [cell for cell in old["cells"] if cell.group not in groups]
    return new | {"cells": cells, "races": [] if "race" in measured else old["races"]}


def _show(cell: Cell, console: Console) -> None:
    table = Table("", cell.unit, "quartiles", title=cell.key, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in cell.samples.items():
        low, median, high = (report.number(value, cell.unit) for value in quartiles(values))
        table.add_row(name, median, f"{low} – {high}")
    for name, why in cell.skipped.items():
        table.add_row(name, "not measured", why)
    console.print(table)


class _Bar:
    """Shows how many plans are done and what is being measured; a line a plan off terminals."""

    def __init__(self, notes: Console, progress: Progress, total: int) -> None:
        self._notes, self._progress = notes, progress
        self._task = progress.add_task("", total=total, doing="")

    def begin(self, title: str) -> None:
        if self._notes.is_terminal:
            self._progress.update(self._task, description=title, doing="")
        else:
            self._notes.print(f"{title} …", highlight=False)

    def say(self, text: str) -> None:
        self._progress.update(self._task, doing=text)

    def advance(self) -> None:
        self._progress.advance(self._task)


@contextlib.contextmanager
def _progress(notes: Console, total: int) -> Iterator[_Bar]:
    columns = (
        *(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("{task.fields[doing]}")),
    )
    with Progress(*columns, console=notes, transient=True, refresh_per_second=2) as progress:
        yield _Bar(notes, progress, total)

"""Runs the suite and leaves results, as `asl-fast bench` does."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from asl_fast.errors import InputError
from asl_fast.storage import make_folder
from benchmarks import report, results, suite
from benchmarks.cell import Cell, quartiles
from benchmarks.comparison import compare
from benchmarks.plots import plot

__all__ = ["run", "show_comparison"]


def run(
    size: str, groups: list[str], out: Path, data: Path | None, console: Console, notes: Console
) -> None:
    """Measures; writes results.json, results.md and pictures.

    Args:
        size: Of `suite.SIZES`.
        groups: Of `suite.GROUPS`; none takes those of the size.
        out: Folder. Results of groups that are not measured now stay in it.
        data: Folder with the real data, or None.
        console: For the results.
        notes: For the progress.

    Raises:
        InputError: No such group, or no data for the race.
    """
    chosen = suite.SIZES[size]
    if groups:
        chosen = suite.dataclasses.replace(chosen, groups=tuple(dict.fromkeys(groups)))
    plans = list(suite.plans(chosen, data))
    make_folder(out)
    path = out / "results.json"
    found = suite.begin(size)
    measured = {plan.group for plan in plans}
    if path.exists():
        found = _kept(results.read(path), found, measured)
    begin = time.perf_counter()
    with _bar(notes, len(plans)) as (advance, describe):
        for plan in plans:
            describe(plan.title, "")
            cells = plan.run(lambda text, title=plan.title: describe(title, text))
            found["races" if plan.group == "race" else "cells"] += cells
            results.write(found, path)  # what there is, should the rest be stopped
            for cell in cells:
                if isinstance(cell, Cell):
                    _show(cell, console)
            advance()
    (out / "results.md").write_text(report.markdown(found))
    pictures = plot(found, out)
    names = ", ".join(p.name for p in (path, out / "results.md", *pictures))
    minutes = (time.perf_counter() - begin) / 60
    notes.print(f"Measured in {minutes:.1f} minutes. Wrote {names} into {out}", highlight=False)


def _kept(old: dict[str, Any], new: dict[str, Any], measured: set[str]) -> dict[str, Any]:
    """Returns new results with what old ones have of other groups, if they are of this machine."""
    if (old["machine"], old["versions"]) != (new["machine"], new["versions"]):
        raise InputError(
            "The folder holds results of another machine, or of other versions of packages. Name "
            "another one with --out."
        )
    groups = set(measured)
    if "processes" in measured:
        groups |= {"memory", "start-up"}
    cells = [cell for cell in old["cells"] if cell.group not in groups]
    return new | {"cells": cells, "races": [] if "race" in measured else old["races"]}


def _show(cell: Cell, console: Console) -> None:
    table = Table("", cell.unit, "quartiles", title=cell.key, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in cell.samples.items():
        low, median, high = (
            f"{value:.1%}" if cell.unit == "share idle" else f"{float(f'{value:.3g}'):,}"
            for value in quartiles(values)
        )
        table.add_row(name, median, f"{low} – {high}")
    for name, why in cell.skipped.items():
        table.add_row(name, "not measured", escape(why))
    console.print(table)


@contextlib.contextmanager
def _bar(notes: Console, total: int) -> Iterator[Any]:
    """Shows how many cells are done, and what is being measured."""
    columns = (
        *(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("{task.fields[doing]}")),
    )
    with Progress(*columns, console=notes, transient=True, refresh_per_second=2) as progress:
        task = progress.add_task("", total=total, doing="")

        def describe(title: str, doing: str) -> None:
            if notes.is_terminal:
                progress.update(task, description=title, doing=doing)
            elif not doing:
                notes.print(f"{title} …", highlight=False)

        yield lambda: progress.advance(task), describe


def show_comparison(before: Path, after: Path, console: Console) -> bool:
    """Prints what moved beyond the noise from one result to another; returns whether anything did.

    Raises:
        InputError: A file that holds no results, or two that have nothing in common.
    """
    changes, apart = compare(results.read(before), results.read(after))
    if not changes:
        raise InputError(f"{before} and {after} have no cell in common that could be compared.")
    moved = [change for change in changes if change.moved]
    if moved:
        table = Table("where", "who", "lead before", "after", "factor", "noise")
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

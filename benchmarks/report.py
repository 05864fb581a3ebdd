"""Results as Markdown: all tables, and those of the performance page.

    scripts/results [FOLDER]

rewrites the tables of that page and the README's chart. With the folder that `asl-fast bench`
wrote, it first copies those results into benchmarks/results.
"""

import argparse
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from asl_fast.system.errors import InputError
from benchmarks import plots, results
from benchmarks.cell import BEFOREHAND, UNITS, Cell, interval, quartiles
from benchmarks.groups import race

__all__ = ["PAGE", "markdown", "number", "selected", "table", "with_tables"]

_ROOT = Path(__file__).parent.parent
PAGE = _ROOT / "asl_fast" / "docs" / "performance.md"
_TABLES = re.compile(
    r"(<!-- made by scripts/results from (\S+): -->\n).*?(<!-- end -->)", re.DOTALL
)


def markdown(measured: dict[str, Any]) -> str:
    """Returns all results as Markdown."""
    machine = measured["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    lines = [
        f"# What was measured on {machine['name']}",
        "",
        f"{measured['date']}; {machine['device']}, "
        f"{machine['cpu']}, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['platform']}, "
        f"Python {machine['python']}; {versions}. Load average before: {measured['load_before']}.",
        "",
        "Medians of n turns, quartiles in brackets. Contenders ran in turn. The last column is "
        "the lead of our best contender over each rival in the same turn: below 1, the rival is "
        "ahead.",
        "",
    ]
    for cell in measured["cells"]:
        lines += [f"## {cell.key}", "", *table(cell), ""]
        lines += [f"- not measured: {name}: {why}" for name, why in cell.skipped.items()]
        lines += [""] if cell.skipped else []
        if cell.group == "training":
            lines += [*_epochs(cell), ""]
    if measured["races"]:
        lines += ["## The race", "", *_race(measured["races"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def table(cell: Cell) -> list[str]:
    """Returns a cell as a Markdown table, in lines."""
    ours = cell.best_of_ours()
    n = len(next(iter(cell.samples.values())))
    header = f"| {cell.unit}, n = {n}, load {cell.load[0]}–{cell.load[1]} | median (quartiles) |"
    lines = [header + " our lead |", "| --- | --- | --- |"]
    for name, values in cell.samples.items():
        low, median, high = (number(value, cell.unit) for value in quartiles(values))
        lead = ""
        if ours is not None and not name.startswith("our "):
            lead = _spread(_leads(cell, ours, name))
        lines.append(f"| {name} | {median} ({low}–{high}) | {lead} |")
    return lines


def _epochs(cell: Cell) -> list[str]:
    """Returns images/s in training as seconds of an epoch, in lines."""
    rows = cell.about["rows"]
    lines = [
        f"Means with 95 % intervals; an epoch of {rows:,} images at that pace; the share of the "
        f"time beyond what `{BEFOREHAND}` takes in the same turn.",
        "",
        "| | s an epoch | not the network |",
        "| --- | --- | --- |",
    ]
    for name, values in cell.samples.items():
        seconds = _mean([rows / value for value in values], ".1f")
        limits = cell.samples[BEFOREHAND]
        stalls = [1 - value / limit for value, limit in zip(values, limits, strict=True)]
        lines.append(f"| {name} | {seconds} | {_mean(stalls, '.1%')} |")
    return lines


def _leads(cell: Cell, ours: str, rival: str) -> np.ndarray:
    ratio = np.maximum(cell.samples[ours], 1e-9) / np.maximum(cell.samples[rival], 1e-9)
    return ratio if UNITS[cell.unit] else 1 / ratio


def _spread(values: Any) -> str:
    low, median, high = quartiles(values)
    return f"{median:.3g} ({low:.3g}–{high:.3g})"


def number(value: float, unit: str) -> str:
    """Writes a value with two or three significant digits."""
    if unit == "share idle":
        return f"{value:.1%}"
    digits = 2 if value < 10 else 3
    return f"{float(f'{value:.{digits}g}'):,.{0 if value >= 10 else 3 if value < 0.1 else 2}f}"


def _race(runs: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"Means over seeds with 95 % intervals; the target is a valid accuracy of {race.TARGET}.",
        "",
        "| | seeds | epochs | images/s | whole fit, s | last epoch's accuracy | reached "
        f"{race.TARGET} | after epochs | after about s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for who in dict.fromkeys(run["who"] for run in runs):
        mine = [run for run in runs if run["who"] == who]
        reached = [at for run in mine if (at := race.reached(run))]
        columns = [
            who,
            str(len(mine)),
            str(len(mine[0]["val_accuracy"])),
            _mean([run["images_per_second"] for run in mine], ",.0f"),
            _mean([run["train_seconds"] for run in mine], ",.0f"),
            _mean([run["val_accuracy"][-1] for run in mine], ".4f"),
            f"{len(reached)} of {len(mine)}",
            _mean([epochs for epochs, _ in reached], ".1f") if reached else "–",
            _mean([seconds for _, seconds in reached], ",.0f") if reached else "–",
        ]
        lines.append("| " + " | ".join(columns) + " |")
    return lines


def _mean(values: list[float], form: str) -> str:
    mean, half = interval(values)
    return f"{mean:{form}}" + ("" if math.isnan(half) else f" ± {half:{form}}")


def selected(measured: dict[str, Any]) -> str:
    """Returns the tables at the course's image size."""
    machine = measured["machine"]
    lines = [
        f"{machine['device']} ({machine['cpu'].strip()}), "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"TensorFlow {measured['versions']['tensorflow']}, Keras {measured['versions']['keras']}, "
        f"{measured['date']}. Medians and quartiles.",
        "",
    ]
    for group, column, title in _SELECTED:
        cells = results.cells(measured, group)
        if group in ("augmentation", "pipeline"):
            cells = [c for c in cells if (c.about["side"], c.about["channels"]) == (28, 1)]
        if cells:
            n = "–".join(map(str, sorted({len(v) for c in cells for v in c.samples.values()})))
            lines += [f"**{title.format(**cells[0].about)}** (n = {n})", ""]
            lines += _wide(cells, column)
            lines += [""]
            if group == "training":
                lines += [*_epochs(cells[0]), ""]
            lead = [_lead(cell) for cell in cells]
            if any(lead):
                words = "; ".join(
                    f"{_column(cell, column)}: {one}"
                    for cell, one in zip(cells, lead, strict=True)
                    if one
                )
                lines += [f"Our best by its best rival: {words}.", ""]
    if measured["races"]:
        lines += ["**Training to the end, real data, each run in a process of its own**", ""]
        lines += [*_race(measured["races"]), ""]
    return "\n".join(lines).rstrip() + "\n"


# Group, the condition that differs between columns, title.
_SELECTED = (
    ("augmentation", "batch", "Augmentation alone, 28×28×1, images/s by batch size"),
    (
        "pipeline",
        "batch",
        "Shuffled, augmented batches from 27,455 images of 28×28×1, images/s by batch size",
    ),
    ("training", "unit", "Training the course's network, real data, batches of {batch}"),
    (
        "accelerator",
        "ms",
        "A simulated accelerator: how long it waits for batches of {batch}, by the milliseconds "
        "that it takes for one",
    ),
)


def _column(cell: Cell, name: str) -> str:
    return cell.unit if name == "unit" else f"{cell.about[name]}"


def _wide(cells: list[Cell], column: str) -> list[str]:
    """Returns cells side by side: a row a contender."""
    names = dict.fromkeys(name for cell in cells for name in cell.samples)
    headers = [_column(cell, column) for cell in cells]
    lines = ["| | " + " | ".join(headers) + " |", "| --- |" + " --- |" * len(headers)]
    for name in names:
        row = []
        for cell in cells:
            if name in cell.samples:
                low, median, high = (number(v, cell.unit) for v in quartiles(cell.samples[name]))
                row.append(f"{median} ({low}–{high})")
            else:
                row.append("–")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return lines


def _lead(cell: Cell) -> str:
    """Returns the lead of our best contender over its best rival, in words."""
    ours, rival = cell.best_of_ours(), cell.best_rival()
    if ours is None or rival is None or cell.unit == "share idle":
        return ""
    return f"{_spread(_leads(cell, ours, rival))} times {rival}"


def with_tables(text: str) -> str:
    """Returns a page with its tables rewritten from the results that it names."""

    def rewritten(match: re.Match[str]) -> str:
        begin, path, end = match.groups()
        return f"{begin}\n{selected(results.read(_ROOT / path))}\n{end}"

    return _TABLES.sub(rewritten, text)


def _copy_results(folder: Path) -> None:
    """Copies results into benchmarks/results, under their machine's name."""
    measured = results.read(folder / "results.json")
    target = _ROOT / "benchmarks" / "results"
    name = measured["machine"]["name"]
    shutil.copy(folder / "results.json", target / f"{name}.json")
    (target / f"{name}.md").write_text(markdown(measured))
    for picture in folder.glob("*.png"):
        shutil.copy(picture, target / f"{name}-{picture.name}")


def main() -> None:
    """Rewrites the page's tables and the README's chart."""
    parser = argparse.ArgumentParser(description="Rewrites tables and chart from the results.")
    parser.add_argument("folder", type=Path, nargs="?", help="results to copy first")
    folder = parser.parse_args().folder
    try:
        if folder is not None:
            _copy_results(folder)
        PAGE.write_text(with_tables(PAGE.read_text()))
        source = _TABLES.search(PAGE.read_text())
        assert source is not None
        plots.headline(results.read(_ROOT / source[2]), _ROOT / "benchmarks" / "results")
    except InputError as error:
        print(f"results: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

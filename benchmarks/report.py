"""Results to read: Markdown tables, and the part of the README that is made from them.

    scripts/readme [FOLDER]

writes the README's part anew; before, with a folder of `asl-fast bench`, it takes its results over
into benchmarks/results.
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
from benchmarks import race, results, scaling
from benchmarks.cell import BEFOREHAND, LIMITS, UNITS, Cell, interval, quartiles

__all__ = ["best_rival", "markdown", "readme", "table", "with_tables"]

_ROOT = Path(__file__).parent.parent
_MADE = re.compile(r"(<!-- made by scripts/readme from (\S+): -->\n).*?(<!-- end -->)", re.DOTALL)


def best_rival(cell: Cell) -> str | None:
    """Returns the name of the best contender that is not ours, the limit left out."""
    choose = max if UNITS[cell.unit] else min
    rivals = [name for name in cell.samples if not name.startswith("our ") and name not in LIMITS]
    return choose(rivals, key=lambda name: float(np.median(cell.samples[name])), default=None)


def markdown(found: dict[str, Any]) -> str:
    """Returns all results as Markdown."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"# What was measured on {machine['name']}",
        "",
        f"{found['date']}; {machine['device']}, "
        f"{machine['cpu']}, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['platform']}, "
        f"Python {machine['python']}; {versions}. Load average before: {found['load_before']}.",
        "",
        "Medians of so many turns (n), in brackets the quartiles. Everyone ran in turn. The last "
        "column is by how much the best of ours leads (below 1: is led by) each, in the same turn.",
        "",
    ]
    for cell in found["cells"]:
        lines += [f"## {cell.key}", "", *table(cell), ""]
        lines += [f"- not measured: {name}: {why}" for name, why in cell.skipped.items()]
        lines += [""] if cell.skipped else []
        if cell.group == "training":
            lines += [*_epochs(cell), ""]
    for group in ("augmentation", "pipeline"):
        lines += _growth(results.cells(found, group), group)
    if found["races"]:
        lines += ["## The race", "", *_race(found["races"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def table(cell: Cell) -> list[str]:
    """Returns a cell as a Markdown table, in lines."""
    ours = cell.best("our ")
    n = len(next(iter(cell.samples.values())))
    header = f"| {cell.unit}, n = {n}, load {cell.load[0]}–{cell.load[1]} | median (quartiles) |"
    lines = [header + " our lead |", "| --- | --- | --- |"]
    for name, values in cell.samples.items():
        low, median, high = (_number(value, cell.unit) for value in quartiles(values))
        lead = ""
        if ours is not None and not name.startswith("our "):
            lead = _spread(_leads(cell, ours[1], values))
        lines.append(f"| {name} | {median} ({low}–{high}) | {lead} |")
    return lines


def _epochs(cell: Cell) -> list[str]:
    """Returns what images/s in training mean for the course's epochs, in lines."""
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


def _leads(cell: Cell, ours: list[float], theirs: list[float]) -> np.ndarray:
    ratio = np.maximum(ours, 1e-9) / np.maximum(theirs, 1e-9)
    return ratio if UNITS[cell.unit] else 1 / ratio


def _spread(values: Any) -> str:
    low, median, high = quartiles(values)
    return f"{median:.3g} ({low:.3g}–{high:.3g})"


def _number(value: float, unit: str) -> str:
    if unit == "share idle":
        return f"{value:.1%}"
    digits = 2 if value < 10 else 3
    return f"{float(f'{value:.{digits}g}'):,.{0 if value >= 10 else 3 if value < 0.1 else 2}f}"


def _growth(cells: list[Cell], group: str) -> list[str]:
    names = dict.fromkeys(name for cell in cells for name in cell.samples)
    costs = {name: cost for name in names if (cost := scaling.fit(cells, name))}
    if not costs:
        return []
    lines = [
        f"## How the cost of the {group} grows",
        "",
        "Fitted to all sizes: microseconds a batch, microseconds an image, nanoseconds a pixel "
        "value; and the median error of the fit.",
        "",
        "| | a batch, µs | an image, µs | a pixel, ns | error |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, cost in costs.items():
        lines.append(
            f"| {name} | {cost.call:,.0f} | {cost.image:,.2f} | {cost.pixel:.2f} | "
            f"{cost.error:.0%} |"
        )
    return [*lines, ""]


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
        reached = [found for run in mine if (found := race.reached(run))]
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


def readme(found: dict[str, Any]) -> str:
    """Returns the tables of the README, at the course's image size."""
    machine = found["machine"]
    lines = [
        f"{machine['device']} ({machine['cpu'].strip()}), "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"TensorFlow {found['versions']['tensorflow']}, Keras {found['versions']['keras']}, "
        f"{found['date']}. Medians and quartiles.",
        "",
    ]
    for group, column, title in _README:
        cells = results.cells(found, group)
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
    if found["races"]:
        lines += ["**Training to the end, real data, each run in a process of its own**", ""]
        lines += [*_race(found["races"]), ""]
    return "\n".join(lines).rstrip() + "\n"


# Group, what the columns are, title. The other groups are in the whole results.
_README = (
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
                low, median, high = (_number(v, cell.unit) for v in quartiles(cell.samples[name]))
                row.append(f"{median} ({low}–{high})")
            else:
                row.append("–")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return lines


def _lead(cell: Cell) -> str:
    """Returns by how much the best of ours leads the best of its rivals, in words."""
    ours, rival = cell.best("our "), best_rival(cell)
    if ours is None or rival is None or cell.unit == "share idle":
        return ""
    return f"{_spread(_leads(cell, ours[1], cell.samples[rival]))} times {rival}"


def with_tables(text: str) -> str:
    """Returns the README's text with its tables made anew from the results that it names."""

    def made(match: re.Match[str]) -> str:
        begin, path, end = match.groups()
        return f"{begin}\n{readme(results.read(_ROOT / path))}\n{end}"

    return _MADE.sub(made, text)


def _take_over(folder: Path) -> None:
    """Copies results to where they are committed, under their machine's name."""
    found = results.read(folder / "results.json")
    target = _ROOT / "benchmarks" / "results"
    name = found["machine"]["name"]
    shutil.copy(folder / "results.json", target / f"{name}.json")
    (target / f"{name}.md").write_text(markdown(found))
    for picture in folder.glob("*.png"):
        shutil.copy(picture, target / f"{name}-{picture.name}")


def main() -> None:
    """Makes the README's tables anew."""
    parser = argparse.ArgumentParser(description="Makes the README's tables anew.")
    parser.add_argument("folder", type=Path, nargs="?", help="results to take over before")
    folder = parser.parse_args().folder
    try:
        if folder is not None:
            _take_over(folder)
        path = _ROOT / "README.md"
        path.write_text(with_tables(path.read_text()))
    except InputError as error:
        print(f"readme: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

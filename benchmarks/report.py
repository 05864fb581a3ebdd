"""Results to read: Markdown tables, and the part of the README that is made from them.

    python -m benchmarks.report RESULTS.json README.md

writes the README's part anew.
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import race, results, scaling
from benchmarks.cell import UNITS, Cell, quartiles

__all__ = ["best_rival", "markdown", "readme", "table", "with_tables"]

_BEGIN = "<!-- made by scripts/readme from benchmarks/results: -->"
_END = "<!-- end -->"
_LIMIT = "no augmentation"


def best_rival(cell: Cell) -> str | None:
    """Returns the name of the best contender that is not ours, the limit left out."""
    choose = max if UNITS[cell.unit] else min
    rivals = [name for name in cell.samples if not name.startswith("our ") and name != _LIMIT]
    return choose(rivals, key=lambda name: float(np.median(cell.samples[name])), default=None)


def markdown(found: dict[str, Any]) -> str:
    """Returns all results as Markdown."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"# What was measured on {machine['name']}",
        "",
        f"{found['date']}, `asl-fast bench --{found['size']}`; {machine['device']}, "
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
    mean, half = race.interval(values)
    return f"{mean:{form}}" + ("" if math.isnan(half) else f" ± {half:{form}}")


def readme(found: dict[str, Any]) -> str:
    """Returns the tables of the README, at the course's image size."""
    machine = found["machine"]
    lines = [
        f"{machine['device']} ({machine['cpu'].strip()}), "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"TensorFlow {found['versions']['tensorflow']}, Keras {found['versions']['keras']}, "
        f"{found['date']}. Medians of turns in which everyone ran, and quartiles; the lead is that "
        "of the best of ours in the same turn.",
        "",
    ]
    for cell in found["cells"]:
        if cell.group in ("augmentation", "pipeline") and cell.about["side"] != 28:
            continue
        if cell.about.get("channels", 1) != 1 and cell.group != "files":
            continue
        lines += [f"**{_title(cell)}**", "", *table(cell), ""]
    return "\n".join(lines).rstrip() + "\n"


_TITLES = {
    "augmentation": "Augmentation alone, 28×28×1, batches of {batch}",
    "pipeline": "Shuffled batches of {batch} from 27,455 images of 28×28×1",
    "files": "JPEG files of 64×64 to {side}×{side}, batches of {batch}",
    "table": "Reading the train table as CSV, {rows:,} rows",
    "host": "The host's time, batches of {batch}, a training step that does next to nothing",
    "accelerator": "A simulated accelerator of {ms} ms a batch of {batch}: how long it is idle",
    "memory": "Memory at most, beyond the stored images and the imported packages, of one pass",
    "start-up": "Start: {of}",
    "training": "Training the course's network, real data, batches of {batch}",
}


def _title(cell: Cell) -> str:
    return _TITLES[cell.group].format(**cell.about)


def with_tables(text: str, found: dict[str, Any]) -> str:
    """Returns the README's text with its tables made anew."""
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n\n{readme(found)}\n{_END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[2])
    path.write_text(with_tables(path.read_text(), results.read(Path(sys.argv[1]))))

"""Results to look at: bars with their spread, the growth of cost, how long accelerators wait."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks import results, scaling
from benchmarks.cell import LIMITS, Cell, quartiles

__all__ = ["plot"]

_OURS, _THEIRS, _LIMIT = "tab:orange", "tab:blue", "silver"


def plot(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what there are cells for.

    Args:
        found: Results.
        folder: Where the pictures go.

    Returns:
        Their paths.
    """
    written = []
    for group in ("augmentation", "pipeline"):
        cells = results.cells(found, group)
        small = [c for c in cells if (c.about["side"], c.about["channels"]) == (28, 1)]
        if small:
            written.append(_bars(small, group, folder / f"{group}.png"))
        if len({cell.about["side"] for cell in cells}) > 2:
            written.append(_growth(cells, group, folder / f"{group}-scaling.png"))
    stalls = results.cells(found, "accelerator")
    if len(stalls) > 1:
        written.append(_stalls(stalls, folder / "accelerator.png"))
    return written


def _color(name: str) -> str:
    if name in LIMITS:
        return _LIMIT
    return _OURS if name.startswith("our ") else _THEIRS


def _names(cells: list[Cell]) -> list[str]:
    """Returns the contenders: rivals, ours, limits."""
    names = dict.fromkeys(name for cell in cells for name in cell.samples)
    return sorted(names, key=lambda name: (name in LIMITS, name.startswith("our ")))


def _bars(cells: list[Cell], group: str, path: Path) -> Path:
    names = _names(cells)
    figure, every = plt.subplots(
        1,
        len(cells),
        figsize=(3 + 3.2 * len(cells), 1.2 + 0.28 * len(names)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, cell in zip(every[0], cells, strict=True):
        for row, name in enumerate(names):
            if name not in cell.samples:
                axes.text(
                    0.02,
                    row,
                    "not measured",
                    fontsize=7,
                    color="gray",
                    va="center",
                    transform=axes.get_yaxis_transform(),
                )
                continue
            low, median, high = quartiles(cell.samples[name])
            axes.barh(row, median, color=_color(name))
            axes.errorbar(
                median, row, xerr=[[median - low], [high - median]], color="black", capsize=2
            )
            axes.text(high * 1.1, row, f"{float(f'{median:.2g}'):,.0f}", va="center", fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(1000, 6e6)
        axes.set_title(f"batches of {cell.about['batch']}")
        axes.set_xlabel("images/s")
        axes.grid(axis="x", alpha=0.3)
    every[0][0].set_yticks(range(len(names)), names)
    every[0][0].invert_yaxis()
    words = {"augmentation": "Augmentation alone", "pipeline": "Shuffled, augmented batches"}
    figure.suptitle(f"{words[group]}, 28×28×1, medians and quartiles")
    return _save(figure, path)


def _growth(cells: list[Cell], group: str, path: Path) -> Path:
    names = [name for name in _names(cells) if scaling.fit(cells, name) is not None]
    figure, (by_area, by_batch) = plt.subplots(1, 2, figsize=(13.5, 5.4), layout="constrained")
    for number, name in enumerate(names):
        cost = scaling.fit(cells, name)
        assert cost is not None
        style = {"color": f"C{number % 10}", "linewidth": 2.2 if name.startswith("our ") else 1}
        if name in LIMITS:
            style = {"color": "black", "linestyle": "--", "linewidth": 1}
        at_32 = [c for c in cells if c.about["batch"] == 32 and c.about["channels"] == 1]
        _points(by_area, [(c.about["side"] ** 2, c) for c in at_32], name, style)
        areas = np.geomspace(28**2, 224**2, 50)
        by_area.plot(areas, cost.microseconds(32, areas), label=name, **style)
        small = [c for c in cells if (c.about["side"], c.about["channels"]) == (28, 1)]
        _points(by_batch, [(c.about["batch"], c) for c in small], name, style)
        batches = np.geomspace(32, 1024, 50)
        by_batch.plot(batches, cost.microseconds(batches, 28**2), label=name, **style)
    by_area.set_xlabel("pixels of an image (28² to 224²), batches of 32, one channel")
    by_batch.set_xlabel("images a batch, 28×28×1")
    for axes in (by_area, by_batch):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylabel("µs an image")
        axes.grid(alpha=0.3, which="both")
    figure.legend(*by_area.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.suptitle(f"How the cost of the {group} grows: measured (dots) and fitted (lines)")
    return _save(figure, path)


def _points(axes: Axes, at: list[tuple[int, Cell]], name: str, style: dict[str, Any]) -> None:
    known = [(x, cell.samples[name]) for x, cell in at if name in cell.samples]
    costs = [1e6 / float(np.median(values)) for _, values in known]
    axes.plot([x for x, _ in known], costs, "o", color=style["color"], markersize=4)


def _stalls(cells: list[Cell], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(9.5, 4.4), layout="constrained")
    milliseconds = [cell.about["ms"] for cell in cells]
    for number, name in enumerate(cells[0].samples):
        spread = np.array([quartiles(cell.samples[name]) for cell in cells]) * 100
        style = "-" if name.startswith("our ") else "--"
        axes.plot(milliseconds, spread[:, 1], style, marker="o", color=f"C{number}", label=name)
        axes.fill_between(milliseconds, spread[:, 0], spread[:, 2], color=f"C{number}", alpha=0.2)
    axes.set_xscale("log")
    axes.set_xticks(milliseconds, [f"{ms:g}" for ms in milliseconds])
    axes.minorticks_off()
    axes.set_xlabel("the accelerator's time for a step of 32 images, ms")
    axes.set_ylabel("idle, % of the time")
    axes.set_ylim(0, 100)
    figure.legend(loc="outside right upper", fontsize="small")
    axes.grid(alpha=0.3)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path

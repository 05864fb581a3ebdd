"""Results as pictures: images/s with their spread, and how long an accelerator waits."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks import results
from benchmarks.cell import LIMITS, Cell, quartiles

__all__ = ["headline", "plot"]

_OURS, _THEIRS, _LIMIT = "tab:orange", "tab:blue", "silver"


def plot(measured: dict[str, Any], folder: Path) -> list[Path]:
    """Draws the groups that results have cells of; returns the paths of the pictures."""
    written = []
    for group in ("augmentation", "pipeline"):
        cells = results.cells(measured, group)
        small = [c for c in cells if (c.about["side"], c.about["channels"]) == (28, 1)]
        if small:
            written.append(_bars(small, group, folder / f"{group}.png"))
    stalls = results.cells(measured, "accelerator")
    if len(stalls) > 1:
        written.append(_stalls(stalls, folder / "accelerator.png"))
    return written


# Contender, and what the README calls it.
_HEADLINE = {
    "Keras's generator": "Keras\nImageDataGenerator",
    "Albumentations": "Albumentations",
    "Keras's layers in tf.data": "Keras\nRandom… layers",
    "DALI": "NVIDIA DALI",
    "our step, resident": "asl_fast",
}


def headline(measured: dict[str, Any], folder: Path) -> list[Path]:
    """Draws the README's chart for light and dark pages; returns the paths."""
    (cell,) = (
        cell
        for cell in results.cells(measured, "pipeline")
        if (cell.about["side"], cell.about["channels"], cell.about["batch"]) == (28, 1, 256)
    )
    medians = [quartiles(cell.samples[name])[1] for name in _HEADLINE]
    written = []
    for theme, ink in (("light", "#1f2328"), ("dark", "#e6edf3")):
        figure, axes = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
        colors = ["#8b949e"] * (len(medians) - 1) + ["#f0883e"]
        axes.barh(list(_HEADLINE.values()), medians, color=colors)
        for row, median in enumerate(medians):
            axes.text(median, row, f" {median / 1000:,.0f},000", va="center", color=ink, size=13)
        axes.invert_yaxis()
        axes.set_xlim(0, max(medians) * 1.18)
        axes.set_title("augmented 28×28 images per second, 2 CPU cores", color=ink, size=13)
        axes.tick_params(axis="y", colors=ink, labelsize=12, length=0)
        axes.xaxis.set_visible(False)
        axes.set_frame_on(False)
        path = folder / f"headline-{theme}.png"
        figure.savefig(path, dpi=130, transparent=True)
        plt.close(figure)
        written.append(path)
    return written


def _color(name: str) -> str:
    if name in LIMITS:
        return _LIMIT
    return _OURS if name.startswith("our ") else _THEIRS


def _names(cells: list[Cell]) -> list[str]:
    """Returns the names of rivals, ours and limits, in this order."""
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
                where = {"va": "center", "transform": axes.get_yaxis_transform()}
                axes.text(0.02, row, "not measured", fontsize=7, color="gray", **where)
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

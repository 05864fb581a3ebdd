"""The study's pictures: accuracy against time, and what augmentation is worth."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from asl_fast.models.recipe import RECIPES

__all__ = ["against_time", "worth"]

_COLORS = dict(zip(RECIPES, ("C0", "C1", "C2"), strict=False))


def against_time(lines: list[dict[str, Any]], path: Path) -> None:
    """Plots each recipe's valid error over the seconds of training, a line a seed.

    Args:
        lines: Of a study: judged by the official valid file, and alone on the machine.
        path: Of the picture.
    """
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for name, color in _COLORS.items():
        runs = [line for line in lines if line["trial"] == name]
        for number, line in enumerate(runs):
            errors, seconds = 1 - np.array(line["val_accuracy"]), line["epoch_seconds"]
            label = f"{name}, {len(runs)} seeds" if number == 0 else None
            axes.plot(seconds, np.maximum(errors, 5e-5), color=color, alpha=0.5, label=label)
            axes.plot(seconds[-1], max(errors[-1], 5e-5), "o", color=color, markersize=4)
    axes.axhline(1 - 0.9962, color="black", linestyle="--", linewidth=1)
    axes.text(axes.get_xlim()[1], 1 - 0.9962, "the course's best, 0.9962 ", ha="right", va="bottom")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_yscale("log")
    axes.set_xlabel("seconds of training, validation included")
    axes.set_ylabel("valid error (none is drawn at 0.00005); dots: the end")
    axes.grid(alpha=0.3, which="both")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def worth(lines: list[dict[str, Any]], path: Path) -> None:
    """Plots train and valid accuracy of the recipes with and without augmentation, by data set.

    Args:
        lines: Of a study, judged by the official valid file; of a data set that has both.
        path: Of the picture.
    """
    bars = {}
    for data in dict.fromkeys(line["data"] for line in lines):
        for name in RECIPES:
            mine = [line for line in lines if line["data"] == data]
            mine = [line for line in mine if line["trial"].split(",")[0] == name]
            if {line["augment"] for line in mine} == {True, False}:
                bars.setdefault(data, []).extend(
                    (f"{name}\n{told}\n{len(runs)} seeds", runs)
                    for told, augment in (("augmented", True), ("not augmented", False))
                    if (runs := [line for line in mine if line["augment"] == augment])
                )
    if not bars:
        return
    figure, every = plt.subplots(
        1, len(bars), figsize=(1.5 + 4.5 * len(bars), 4.4), squeeze=False, layout="constrained"
    )
    for axes, (data, drawn) in zip(every[0], bars.items(), strict=True):
        for place, (_, runs) in enumerate(drawn):
            for shift, which, color in ((-0.2, "train_accuracy", "C7"), (0.2, "accuracy", "C1")):
                values = [line[which] for line in runs]
                mean = float(np.mean(values))
                axes.bar(place + shift, mean, 0.38, color=color)
                axes.plot([place + shift] * len(values), values, "k.", markersize=4)
                axes.text(place + shift, 1.004, f"{mean:.4f}", ha="center", fontsize=7)
        axes.set_xticks(range(len(drawn)), [label for label, _ in drawn], fontsize=8)
        axes.set_ylim(0.7, 1.02)
        axes.set_title(data)
        axes.set_ylabel("accuracy")
        axes.grid(axis="y", alpha=0.3)
    figure.suptitle("Grey: train set as it is stored; orange: valid set; dots: seeds")
    figure.savefig(path, dpi=130)
    plt.close(figure)

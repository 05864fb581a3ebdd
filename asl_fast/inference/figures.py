"""Figures: images, learning curves, and what a model gets right and wrong."""

import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asl_fast.data.dataset import Split
from asl_fast.data.records import damage_in_words
from asl_fast.system.storage import make_folder, replacing
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment

__all__ = [
    "comparison_svg",
    "confusion",
    "curve_svg",
    "curves",
    "mistakes",
    "preview",
    "reliability",
    "robustness",
]


_LABELLED = 40  # classes, at most, that are all written at the axes
_LONGEST = 16  # letters of a class's name


def preview(path: Path, split: Split, augment: AugmentOptions, seed: int = 0) -> None:
    """Writes a PNG of up to 32 images before and after augmentation, side by side.

    Args:
        path: The PNG; its folder is made if need be.
        split: The images to draw from; of records only the first 1,024.
        augment: What augments them.
        seed: Int: which images, and their augmentation.

    Raises:
        InputError: The PNG can't be written.
    """
    make_folder(path.parent)
    images, labels = split.images, split.labels
    if split.records is not None:
        with damage_in_words(split.records):
            images, labels = next(split.records.batches(1024).as_numpy_iterator())
    shown = min(32, len(labels))
    samples = np.random.default_rng(seed).choice(len(labels), shown, replace=False)
    before = images[samples]
    layer = RandomAugment(**dataclasses.asdict(augment), seed=seed, dtype="float32")
    after = np.asarray(layer(before, samples=samples, epoch=0, training=True))
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, wspace=0.03, squeeze=False)[0]
    for half, title, pictures in ((left, "as stored", before), (right, "augmented", after)):
        half.suptitle(title)
        axes = _grid(half, math.ceil(shown / 8))
        for axis, image, label in zip(axes, pictures, labels[samples], strict=False):
            _show(axis, image, split.classes[label])
    _save(figure, path)


def curves(path: Path, history: Mapping[str, Sequence[float]]) -> None:
    """Writes a PNG of training and validation accuracy and loss by epoch.

    Args:
        path: The PNG.
        history: As `keras.callbacks.History.history`: accuracy, loss, val_accuracy, val_loss.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        _plot_curve(axes, history, quantity)
    _save(figure, path)


def curve_svg(history: Mapping[str, Sequence[float]], quantity: str) -> bytes:
    """Returns an SVG of one quantity by epoch, legible on light and dark pages.

    Args:
        history: As for `curves`.
        quantity: "accuracy" or "loss".
    """
    return _svg(lambda axes: _plot_curve(axes, history, quantity))


def comparison_svg(values: Mapping[str, Sequence[float]], quantity: str) -> bytes:
    """Returns an SVG of one quantity of several runs by epoch, as `curve_svg` does.

    Args:
        values: By the runs' names: a value per epoch.
        quantity: What they are.
    """
    return _svg(lambda axes: _plot_lines(axes, values, quantity))


def _svg(plot: Callable[[Axes], None]) -> bytes:
    names = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
    style: Any = dict.fromkeys(names, "gray") | {"font.size": 9, "legend.framealpha": 0}
    stream = io.BytesIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.6, 3), layout="constrained")
        plot(figure.subplots())
        figure.savefig(stream, format="svg", transparent=True)
    return stream.getvalue()


def _plot_curve(axes: Axes, history: Mapping[str, Sequence[float]], quantity: str) -> None:
    lines = {
        "training (running mean, dropout on)": history[quantity],
        "validation": history[f"val_{quantity}"],
    }
    _plot_lines(axes, lines, quantity)


def _plot_lines(axes: Axes, lines: Mapping[str, Sequence[float]], quantity: str) -> None:
    epochs = max(map(len, lines.values()))
    for name, values in lines.items():
        # Without an underscore in front, which would hide a name from the legend.
        axes.plot(range(1, len(values) + 1), values, "o-", ms=3, label=name.lstrip("_"))
    # A single epoch's points would lie in the middle of axes of fractions.
    axes.set(xlabel="epoch", ylabel=quantity, xlim=(0.5, epochs + 0.5))
    if epochs == 1:
        axes.set_ylim(0, 1 if quantity == "accuracy" else None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()


def confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Writes a PNG of the confusion matrix, with counts in the cells off the diagonal.

    Args:
        path: The PNG.
        counts: Integers, (k, k): rows the true classes, columns the predicted ones.
        classes: The k names. Of many, some are written at the axes.
    """
    images = int(counts.sum())
    correct = int(np.trace(counts))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(9, 8), layout="constrained")
    axis = figure.subplots()
    heat_map = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(heat_map, ax=axis, shrink=0.8, label="share of the class's images")
    for row, column in np.argwhere(counts).tolist():
        if row != column and len(classes) <= _LABELLED:
            dark = shares[row, column] > 0.5
            axis.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=7 if len(classes) > 12 else 11,
                color="white" if dark else "firebrick",
            )
    ticks = range(0, len(classes), math.ceil(len(classes) / _LABELLED))
    names = [_short(classes[tick]) for tick in ticks]
    axis.set(
        xlabel="predicted",
        ylabel="true",
        title=f"{correct:,} of {images:,} correct ({correct / images:.2%})",
    )
    axis.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 2 else 0)
    axis.set_yticks(ticks, names)
    _save(figure, path)


def mistakes(
    path: Path,
    images: np.ndarray,
    names: Sequence[tuple[str, str]],
    probabilities: np.ndarray,
) -> None:
    """Writes a PNG of misclassified images.

    Args:
        path: The PNG.
        images: uint8, (n, height, width, 1 or 3).
        names: Of the true and the predicted class of each.
        probabilities: Floats, (n,), of the predicted classes.
    """
    rows = max(1, math.ceil(len(images) / 8))
    figure = Figure(figsize=(11, 0.4 + 1.55 * rows), layout="constrained")
    figure.suptitle("Worst mistakes: true → predicted" if len(images) else "No mistakes")
    for axis, image, (true, predicted), share in zip(
        _grid(figure, rows), images, names, probabilities, strict=False
    ):
        _show(axis, image, f"{_short(true)} → {_short(predicted)} {share:.0%}")
    _save(figure, path)


def reliability(path: Path, calibration: Mapping[str, Any]) -> None:
    """Writes a PNG of a model's accuracy against its confidence.

    Args:
        path: The PNG.
        calibration: As `evaluation.measure` returns it.
    """
    confidence, accuracy, images = (
        [one[key] for one in calibration["bins"]] for key in ("probability", "accuracy", "images")
    )
    figure = Figure(figsize=(6, 6.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color="gray", label="perfectly calibrated")
    upper.plot(confidence, accuracy, "o-", label="model")
    upper.set(ylabel="accuracy", title=f"expected calibration error {calibration['error']:.3f}")
    upper.legend()
    lower.bar(confidence, images, width=0.03)
    lower.set(xlabel="probability of the predicted letter", ylabel="images", yscale="log")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    _save(figure, path)


def robustness(path: Path, accuracy: float, moved: Mapping[str, Mapping[str, float]]) -> None:
    """Writes a PNG of the accuracy against rotation and shift.

    Args:
        path: The PNG.
        accuracy: On the unchanged images.
        moved: As `evaluation.robustness` returns it.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    units = {"rotation": "degrees, counterclockwise", "shift": "pixels, mean of four directions"}
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (kind, unit) in zip(axes, units.items(), strict=True):
        points = sorted([(0.0, accuracy), *((float(k), v) for k, v in moved[kind].items())])
        axis.plot(*zip(*points, strict=True), "o-")
        axis.set(xlabel=f"{kind} ({unit})", xticks=[amount for amount, _ in points])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy")
    _save(figure, path)


def _grid(figure: Any, rows: int) -> Any:
    """Returns the axes of rows of eight images, empty as yet."""
    axes = figure.subplots(rows, 8, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    return axes


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    # uint8, so that float draws of the augmentation count as pixels too.
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, "gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=8, pad=3)
    axes.axis("off")


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as aside:
        figure.savefig(aside, dpi=120)

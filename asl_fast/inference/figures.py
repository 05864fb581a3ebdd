"""Pictures: of images, of a training, of what a model gets right and wrong."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asl_fast.data.dataset import Split
from asl_fast.data.records import damage_in_words
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.system.errors import InputError
from asl_fast.system.storage import make_folder, replacing
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment

__all__ = ["confusion", "curves", "mistakes", "preview", "reliability", "robustness"]


def preview(path: Path, split: Split, augment: AugmentOptions, seed: int = 0) -> None:
    """Writes a PNG of 32 images before and after augmentation, side by side.

    Args:
        path: The PNG; its folder is made if need be.
        split: The images to draw from; of records only the first 1,024.
        augment: What augments them.
        seed: Int: which images, and their augmentation.

    Raises:
        InputError: The split has fewer than 32 images, or the PNG can't be written.
    """
    if split.rows < 32:
        raise InputError(f"{split.source} has {split.rows} rows; the picture shows 32.")
    make_folder(path.parent)
    images, labels = split.images, split.labels
    if split.records is not None:
        with damage_in_words(split.records):
            images, labels = next(split.records.batches(1024).as_numpy_iterator())
    samples = np.random.default_rng(seed).choice(len(labels), 32, replace=False)
    before = images[samples]
    layer = RandomAugment(**dataclasses.asdict(augment), seed=seed, dtype="float32")
    after = np.asarray(layer(before, samples=samples, epoch=0, training=True))
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, wspace=0.03, squeeze=False)[0]
    for half, title, shown in ((left, "as stored", before), (right, "augmented", after)):
        half.suptitle(title)
        axes = half.subplots(4, 8).ravel()
        for axis, image, label in zip(axes, shown, labels[samples], strict=True):
            axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
            axis.set_title(LETTERS[label], fontsize=8, pad=2)
            axis.axis("off")
    _save(figure, path)


def curves(path: Path, history: Mapping[str, Sequence[float]]) -> None:
    """Writes a PNG of accuracy and loss by epoch, for train and valid.

    Args:
        path: The PNG.
        history: As `keras.callbacks.History.history`: accuracy, loss, val_accuracy, val_loss.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        values = history[quantity]
        epochs = np.arange(1, len(values) + 1)
        axis.plot(epochs, values, "o-", ms=3, label="train (running mean, dropout on)")
        axis.plot(epochs, history[f"val_{quantity}"], "o-", ms=3, label="valid")
        axis.set(xlabel="epoch", ylabel=quantity)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def confusion(path: Path, counts: np.ndarray) -> None:
    """Writes a PNG of the confusion matrix; cells off the diagonal hold their count.

    Args:
        path: The PNG.
        counts: Integers, (24, 24): rows the true letters, columns the model's.
    """
    rows = int(counts.sum())
    right = int(np.trace(counts))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(9, 8), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the letter's images")
    for row, column in np.argwhere(counts).tolist():
        if row != column:
            dark = shares[row, column] > 0.5
            axis.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "firebrick",
            )
    ticks = np.arange(len(LETTERS))
    axis.set(
        xlabel="predicted",
        ylabel="true",
        title=f"{right:,} of {rows:,} right ({right / rows:.2%})",
    )
    axis.set_xticks(ticks, LETTERS)
    axis.set_yticks(ticks, LETTERS)
    _save(figure, path)


def mistakes(
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """Writes a PNG of images that a model got wrong, up to 32.

    Args:
        path: The PNG.
        images: (n, height, width, 1), pixels 0 to 255.
        labels: Integers, (n,), 0 to 23: the true letters.
        predictions: Integers, (n,), 0 to 23: the model's.
        probabilities: Floats, (n,), the model's for its letters.
    """
    lines = max(1, math.ceil(len(images) / 8))
    figure = Figure(figsize=(11, 0.4 + 1.55 * lines), layout="constrained")
    figure.suptitle("Worst mistakes: true letter → the model's" if len(images) else "No mistakes")
    axes = figure.subplots(lines, 8).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, image, label, predicted, share in zip(
        axes, images, labels, predictions, probabilities, strict=False
    ):
        axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{LETTERS[label]} → {LETTERS[predicted]} {share:.0%}", fontsize=9, pad=3)
    _save(figure, path)


def reliability(path: Path, calibration: Mapping[str, Any]) -> None:
    """Writes a PNG of how often a model is right against how sure it is.

    Args:
        path: The PNG.
        calibration: Of `evaluation.measure`.
    """
    bins = calibration["bins"]
    sure, right, images = ([one[k] for one in bins] for k in ("probability", "accuracy", "images"))
    figure = Figure(figsize=(6, 6.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color="gray", label="sure as it is right")
    upper.plot(sure, right, "o-", label="model")
    upper.set(ylabel="share right", title=f"expected calibration error {calibration['error']:.3f}")
    upper.legend()
    lower.bar(sure, images, width=0.03)
    lower.set(xlabel="probability of the model's letter", ylabel="images", yscale="log")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    _save(figure, path)


def robustness(path: Path, accuracy: float, found: Mapping[str, Mapping[str, float]]) -> None:
    """Writes a PNG of the accuracy against rotation and shift.

    Args:
        path: The PNG.
        accuracy: On the images as they are.
        found: As `evaluation.robustness` returns it.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    units = {"rotation": "degrees, against the clock", "shift": "pixels, mean of four directions"}
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (kind, unit) in zip(axes, units.items(), strict=True):
        points = sorted([(0.0, accuracy), *((float(k), v) for k, v in found[kind].items())])
        axis.plot(*zip(*points, strict=True), "o-")
        axis.set(xlabel=f"{kind} ({unit})", xticks=[place for place, _ in points])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as aside:
        figure.savefig(aside, dpi=120)

"""Metrics of a saved model on a validation set."""

import csv
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.data.dataset import Split, in_words, numbered
from asl_fast.data.records import damage_in_words
from asl_fast.inference import figures
from asl_fast.models import limits, network, saving
from asl_fast.models.pixel_range import RANGES, marked, pixel_range, scale
from asl_fast.system.errors import InputError
from asl_fast.system.storage import make_folder, replacing
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.augmentation import output_to_input
from asl_fast.transforms.warp import warp

__all__ = [
    "calibration_error",
    "count",
    "evaluate",
    "matched",
    "measure",
    "predict",
    "robustness",
    "worst_mistakes",
]

_BATCH = 1024
_BINS = 15
_ROTATIONS = (-15, -10, -5, 5, 10, 15)  # degrees
_SHIFTS = (1, 2, 3, 4)  # pixels
_TRIED = 500  # images, at most, to try other ranges of pixels on
_FAR_BETTER = 0.1  # in accuracy; below, another range may win by chance

_log = logging.getLogger(__name__)


def matched(
    model: keras.Model, split: Split, path: Path, letters: Sequence[str] | None = None
) -> Split:
    """Returns a data set with its labels numbered as the outputs of a model.

    Args:
        model: As `saving.load_model` returns it.
        split: The images and their labels.
        path: The model's file, or the folder of its run.
        letters: Classes of the outputs in their order, if not those in the file. If neither tells,
            as many outputs as classes are the data's; otherwise 25 or 26 are A to Y or A to Z.

    Raises:
        InputError: The model has other inputs, or lacks classes of the data.
    """
    shapes: Any = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    outputs = shapes[1][1] if isinstance(shapes[1], tuple) and len(shapes[1]) == 2 else None
    if shapes[0] != (None, *split.shape) or (outputs or 0) < len(split.classes):
        raise InputError(
            f"{path} takes {shapes[0]} and outputs {shapes[1]}. A model for this data takes images "
            f"of {in_words(split.shape)} and outputs (None, {len(split.classes)}), or more."
        )
    known = letters or saving.read_letters(path)
    if known is None:
        same = outputs == len(split.classes)
        known = split.classes if same else saving.find_letters(path, model)
    if known is None or len(known) != outputs or len(set(known)) != outputs:
        given = "none are known" if known is None else f"{' '.join(known)} are given"
        raise InputError(
            f"{path} has {outputs} outputs and needs as many different letters, but {given}. Give "
            "them in the order of the outputs (--letters, or letters=)."
        )
    if missing := [name for name in split.classes if name not in known]:
        raise InputError(
            f"{path} has no output for {' '.join(missing)}, which the data have. Its letters are "
            f"{' '.join(known)}; others are given in the order of the outputs (--letters, or "
            "letters=)."
        )
    return numbered(split, tuple(known))


def predict(
    model: keras.Model, split: Split, mirrored: bool = False, pixels: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels, integers (n,), and the predicted probabilities, floats (n, k).

    Args:
        model: As for `Classifier`.
        split: The images and their labels.
        mirrored: Averages over each image and its mirror image, which takes twice as long.
        pixels: As for `Classifier`.

    Raises:
        InputError: The outputs are not probabilities.
    """
    labels, batches = _batches(split)
    chosen = pixel_range(model, pixels)
    if (rows := limits.batch_size(model, _BATCH)) < _BATCH:
        batches = batches.rebatch(rows)
    inputs = batches.map(lambda images: scale(tf.cast(images, tf.float32), chosen))
    with damage_in_words(split.records):
        probabilities = model.predict(inputs, verbose=0)
        if mirrored:
            flipped = inputs.map(lambda images: images[:, :, ::-1])
            probabilities = (probabilities + model.predict(flipped, verbose=0)) / 2
    network.check_probabilities(probabilities)
    return labels, probabilities


def count(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Returns the confusion matrix, integers (k, k): rows true, columns predicted classes.

    Args:
        labels: Integers (n,) in [0, k), the true classes.
        predictions: Integers (n,) in [0, k), the predicted classes.
        classes: Int, k.
    """
    pairs = np.bincount(labels.astype(np.int64) * classes + predictions, minlength=classes**2)
    return pairs.reshape(classes, classes)


def _batches(split: Split) -> tuple[np.ndarray, tf.data.Dataset]:
    """Returns the labels, and a data set of image batches."""
    if split.records is None:
        batches = tf.data.Dataset.from_tensor_slices(split.images).batch(_BATCH)
        return np.asarray(split.labels), batches.prefetch(2)
    batches = split.records.batches(_BATCH)
    with damage_in_words(split.records):
        labels = np.concatenate([labels for _, labels in batches.as_numpy_iterator()])
    return labels, batches.map(lambda images, _: images)


def evaluate(
    model: keras.Model,
    split: Split,
    mirrored: bool = False,
    out: Path | None = None,
    progress: Callable[[str], None] = lambda activity: None,
    pixels: str | None = None,
) -> dict[str, Any]:
    """Evaluates a model on a validation set.

    If another range of pixels gives a far better accuracy, a warning is logged that names it.

    Args:
        model: As for `Classifier`.
        split: The images and their labels.
        mirrored: As for `predict`.
        out: Folder for evaluation.json, letters.csv, confusion.csv, confusion.png, mistakes.png,
            reliability.png and robustness.png; None writes nothing. Robustness is measured only
            with a folder, since it takes 22 times as long.
        progress: Called with each activity as it begins.
        pixels: As for `Classifier`.

    Returns:
        The result of `measure` with `mirrored`, `data`, `pixels` (the range used), and
        `robustness` if there is a folder.

    Raises:
        InputError: The folder can't be written to, or the outputs are not probabilities.
    """
    if out is not None:
        make_folder(out)
    progress("Evaluating")
    pixels = pixel_range(model, pixels)
    labels, probabilities = predict(model, split, mirrored, pixels)
    if marked(model) != pixels:
        _try_other_ranges(model, split, pixels)
    result = measure(labels, probabilities, split.classes)
    result |= {"mirrored": mirrored, "data": split.describe(), "pixels": pixels}
    if out is None:
        return result
    result["robustness"] = robustness(model, split, progress, pixels)
    progress("Drawing")
    predictions = probabilities.argmax(axis=1)
    rows, images = worst_mistakes(split, labels, probabilities)
    shares = probabilities[rows, predictions[rows]]
    counts = count(labels, predictions, len(split.classes))
    names = [(split.classes[labels[row]], split.classes[predictions[row]]) for row in rows]
    figures.confusion(out / "confusion.png", counts, split.classes)
    figures.mistakes(out / "mistakes.png", images, names, shares)
    figures.reliability(out / "reliability.png", result["calibration"])
    figures.robustness(out / "robustness.png", result["accuracy"], result["robustness"])
    table = [[name, *row] for name, row in zip(split.classes, counts.tolist(), strict=True)]
    _write_csv(out / "confusion.csv", [["true letter", *split.classes], *table])
    scores = ("precision", "recall", "f1", "images")
    table = [[name, *(row[k] for k in scores)] for name, row in result["letters"].items()]
    _write_csv(out / "letters.csv", [["letter", *scores], *table])
    with replacing(out / "evaluation.json") as aside:
        aside.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _try_other_ranges(model: keras.Model, split: Split, pixels: str) -> None:
    """Warns if the model is far better on another range of pixels, by a few hundred images."""
    if split.records is None:
        rows = np.linspace(0, split.rows - 1, min(_TRIED, split.rows), dtype=int)
        images, labels = split.images[rows], split.labels[rows]
    else:
        images, labels = next(split.records.batches(_TRIED).as_numpy_iterator())
    images = np.asarray(images, np.float32)
    accuracy = {
        name: float(np.mean(model.predict_on_batch(scale(images, name)).argmax(axis=1) == labels))
        for name in RANGES
    }
    best = max(RANGES, key=lambda name: accuracy[name])
    if accuracy[best] > accuracy[pixels] + _FAR_BETTER:
        _log.warning(
            "The model was probably trained on pixels in %s: on %d images its accuracy is %.2f "
            "with those, and %.2f with %s, which is used here. Choose with --pixels %s.",
            best,
            len(images),
            accuracy[best],
            accuracy[pixels],
            pixels,
            best,
        )


def measure(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Computes accuracy, metrics by class, and calibration.

    Args:
        labels: Integers (n,) in [0, k).
        probabilities: Floats (n, k).
        classes: The k names.

    Returns:
        `accuracy`, and its 95 % Wilson `interval`; `right` of `rows`, images; `letters`, by class
        `precision`, `recall`, `f1` (None if undefined) and `images`; and `calibration`: `error`,
        the expected calibration error in 15 equal bins (Naeini et al. 2015), and `bins`, the
        `probability`, `accuracy` and `images` of each bin that is not empty.
    """
    predictions = probabilities.argmax(axis=1)
    correct = predictions == labels
    counts = count(labels, predictions, len(classes))
    letters = {}
    hits, actual, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    for i, letter in enumerate(classes):
        if actual[i] or predicted[i]:
            letters[letter] = {
                "precision": _share(hits[i], predicted[i]),
                "recall": _share(hits[i], actual[i]),
                "f1": _share(2 * hits[i], actual[i] + predicted[i]),
                "images": int(actual[i]),
            }
    return {
        "accuracy": float(correct.mean()),
        "interval": _wilson(int(correct.sum()), len(labels)),
        "right": int(correct.sum()),
        "rows": len(labels),
        "letters": letters,
        "calibration": _calibration(probabilities.max(axis=1), correct),
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the expected calibration error, as `measure` does."""
    correct = probabilities.argmax(axis=1) == labels
    error: float = _calibration(probabilities.max(axis=1), correct)["error"]
    return error


def _calibration(confidence: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    numbers = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [
        {
            "probability": float(confidence[numbers == number].mean()),
            "accuracy": float(correct[numbers == number].mean()),
            "images": int((numbers == number).sum()),
        }
        for number in np.unique(numbers)
    ]
    gaps = [one["images"] * abs(one["probability"] - one["accuracy"]) for one in bins]
    return {"error": sum(gaps) / len(correct), "bins": bins}


def robustness(
    model: keras.Model,
    split: Split,
    progress: Callable[[str], None] = lambda activity: None,
    pixels: str | None = None,
) -> dict[str, dict[str, float]]:
    """Measures the accuracy on slightly rotated or shifted images.

    Images are interpolated linearly, and extended by their border pixels.

    Args:
        model: As for `Classifier`.
        split: The images and their labels.
        progress: Called with each activity as it begins.
        pixels: As for `Classifier`.

    Returns:
        `rotation`: accuracy by degrees, counterclockwise as in Keras; `shift`: accuracy by pixels,
        the mean over the four directions.
    """
    labels, batches = _batches(split)
    chosen = pixel_range(model, pixels)

    @tf.function(reduce_retracing=True)
    def classify(images: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        images = tf.ensure_shape(images, [None, *split.shape])
        moved = warp(images, tf.repeat(matrix, len(images), axis=0))
        return tf.argmax(model(scale(moved, chosen), training=False), axis=1)

    def accuracy(**motion: float) -> float:
        matrix = output_to_input(AugmentOptions(), motion, *split.shape[:2])
        with damage_in_words(split.records):
            predictions = np.concatenate([classify(images, matrix) for images in batches])
        return float((predictions == labels).mean())

    result: dict[str, dict[str, float]] = {"rotation": {}, "shift": {}}
    for degrees in _ROTATIONS:
        progress(f"Evaluating, rotated by {degrees}°")
        result["rotation"][str(degrees)] = accuracy(theta=float(degrees))
    for distance in _SHIFTS:
        progress(f"Evaluating, shifted by {distance} pixels")
        shifts = [{name: float(sign * distance)} for name in ("tx", "ty") for sign in (-1, 1)]
        result["shift"][str(distance)] = float(np.mean([accuracy(**shift) for shift in shifts]))
    return result


def worst_mistakes(
    split: Split, labels: np.ndarray, probabilities: np.ndarray, most: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the misclassified images whose true class has the lowest probability.

    Each class's worst mistake comes before any second one, and so on.

    Args:
        split: The images and their labels.
        labels: As `predict` returned them.
        probabilities: As `predict` returned them.
        most: The largest number to return.

    Returns:
        Their rows (m,), worst first, and the images, uint8 (m, height, width, channels).
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    wrong = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
    turns = np.empty(len(wrong), int)  # how many of the class's mistakes are worse
    for label in np.unique(labels[wrong]):
        of_class = labels[wrong] == label
        turns[of_class] = np.arange(of_class.sum())
    rows = wrong[np.argsort(turns, kind="stable")][:most]
    if split.records is None:
        return rows, np.asarray(split.images[rows])
    images = np.empty((len(rows), *split.shape), np.uint8)
    for number, (batch, _) in enumerate(split.records.batches(_BATCH).as_numpy_iterator()):
        here = rows // _BATCH == number
        images[here] = batch[rows[here] % _BATCH]
    return rows, images


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _wilson(right: int, rows: int) -> list[float]:
    """Returns the 95 % confidence interval of a share (Wilson 1927)."""
    z = 1.959964
    share = right / rows
    middle = share + z**2 / (2 * rows)
    half = z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    scale = 1 + z**2 / rows
    return [(middle - half) / scale, (middle + half) / scale]


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    with replacing(path) as aside, aside.open("w", newline="") as file:
        csv.writer(file).writerows(rows)

"""How well a saved model does on a valid set."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.data.csv_table import CLASSES, SIDE
from asl_fast.data.dataset import Split
from asl_fast.data.records import damage_in_words
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference import figures
from asl_fast.models import network, saving
from asl_fast.system.errors import InputError
from asl_fast.system.storage import make_folder, replacing
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.augmentation import output_to_input
from asl_fast.transforms.warp import warp

__all__ = [
    "count",
    "evaluate",
    "load_model",
    "measure",
    "predict",
    "robustness",
    "worst_mistakes",
]

_BATCH = 1024
_BINS = 15
_ROTATIONS = (-15, -10, -5, 5, 10, 15)  # degrees
_SHIFTS = (1, 2, 3, 4)  # pixels


def load_model(path: Path) -> keras.Model:
    """Loads a model for this data, that this package or the course saved.

    Args:
        path: A `.keras` file, or the folder of a run.

    Raises:
        InputError: There is none, it can't be read, or it is not for this data.
    """
    model = saving.load_model(path)
    shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if shapes != ((None, SIDE, SIDE, 1), (None, CLASSES)):
        raise InputError(
            f"{path} takes {shapes[0]} and gives {shapes[1]}; "
            f"needed are (None, {SIDE}, {SIDE}, 1) and (None, {CLASSES})."
        )
    letters = saving.read_letters(path)
    if letters is not None and letters != tuple(LETTERS):
        raise InputError(f"{path} names other letters than the data: {' '.join(letters)}.")
    return model


def predict(
    model: keras.Model, split: Split, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels (n,), integers, and what the model says, probabilities (n, 24).

    Args:
        model: Takes what `Classifier`'s does, gives probabilities.
        split: The images and their letters.
        mirrored: Whether to average over each image and its mirror image, which takes twice the
            time.

    Raises:
        InputError: It gives none.
    """
    labels, batches = _batches(split)
    divisor = network.pixel_divisor(model)
    pixels = batches.map(lambda images: tf.cast(images, tf.float32) / divisor)
    with damage_in_words(split.records):
        probabilities = model.predict(pixels, verbose=0)
        if mirrored:
            flipped = pixels.map(lambda images: images[:, :, ::-1])
            probabilities = (probabilities + model.predict(flipped, verbose=0)) / 2
    network.check_probabilities(probabilities)
    return labels, probabilities


def count(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Returns the confusion matrix, integers (24, 24): rows the true letters, columns the model's.

    Args:
        labels: Integers, (n,), 0 to 23: the true letters.
        predictions: Integers, (n,), 0 to 23: the model's.
    """
    pairs = np.bincount(labels * CLASSES + predictions, minlength=CLASSES**2)
    return pairs.reshape(CLASSES, CLASSES)


def _batches(split: Split) -> tuple[np.ndarray, tf.data.Dataset]:
    """Returns the labels, and the images in batches."""
    if split.records is None:
        batches = tf.data.Dataset.from_tensor_slices(split.images).batch(_BATCH)
        return np.asarray(split.labels), batches.prefetch(2)
    both = split.records.batches(_BATCH)
    with damage_in_words(split.records):
        labels = np.concatenate([letters for _, letters in both.as_numpy_iterator()])
    return labels, both.map(lambda images, _: images)


def evaluate(
    model: keras.Model,
    split: Split,
    mirrored: bool = False,
    out: Path | None = None,
    progress: Callable[[str], None] = lambda doing: None,
) -> dict[str, Any]:
    """Judges a model by images that it did not see in its training.

    Args:
        model: Takes what `Classifier`'s does, gives probabilities.
        split: The images and their letters.
        mirrored: As for `predict`.
        out: Folder for evaluation.json, letters.csv, confusion.csv, confusion.png, mistakes.png,
            reliability.png and robustness.png, or None. Robustness is measured only for it, as it
            takes 22 times as long.
        progress: Called with what is done next.

    Returns:
        What `measure` returns, `mirrored`, `data`, and with `out` what `robustness` returns.

    Raises:
        InputError: The folder can't be written to, or the model gives no probabilities.
    """
    if out is not None:
        make_folder(out)
    progress("Evaluating")
    labels, probabilities = predict(model, split, mirrored)
    result = measure(labels, probabilities) | {"mirrored": mirrored, "data": split.describe()}
    if out is None:
        return result
    result["robustness"] = robustness(model, split, progress)
    progress("Drawing")
    predictions = probabilities.argmax(axis=1)
    rows, images = worst_mistakes(split, labels, probabilities)
    shares = probabilities[rows, predictions[rows]]
    counts = count(labels, predictions)
    figures.confusion(out / "confusion.png", counts)
    figures.mistakes(out / "mistakes.png", images, labels[rows], predictions[rows], shares)
    figures.reliability(out / "reliability.png", result["calibration"])
    figures.robustness(out / "robustness.png", result["accuracy"], result["robustness"])
    table = [[letter, *row] for letter, row in zip(LETTERS, counts.tolist(), strict=True)]
    _write_csv(out / "confusion.csv", [["true letter", *LETTERS], *table])
    names = ("precision", "recall", "f1", "images")
    table = [[letter, *(row[k] for k in names)] for letter, row in result["letters"].items()]
    _write_csv(out / "letters.csv", [["letter", *names], *table])
    with replacing(out / "evaluation.json") as aside:
        aside.write_text(json.dumps(result, indent=2) + "\n")
    return result


def measure(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Compares what a model says with the truth.

    Args:
        labels: Integers, (n,), 0 to 23.
        probabilities: Floats, (n, 24).

    Returns:
        `accuracy`; `interval`, its Wilson interval of 95 %; `right` and `rows`, images; `letters`:
        by letter `precision`, `recall`, `f1` (None where there is nothing to divide by) and
        `images`; and `calibration`: `error`, the mean distance of what the model is sure of from
        how often it is right, in 15 equal bins weighted by their images (Naeini et al. 2015), and
        `bins` with `probability`, `accuracy` and `images` of each that is not empty.
    """
    predictions = probabilities.argmax(axis=1)
    right = predictions == labels
    counts = count(labels, predictions)
    letters = {}
    for place, letter in enumerate(LETTERS):
        hits, is_it, said = counts[place, place], counts[place].sum(), counts[:, place].sum()
        if is_it or said:
            letters[letter] = {
                "precision": _share(hits, said),
                "recall": _share(hits, is_it),
                "f1": _share(2 * hits, is_it + said),
                "images": int(is_it),
            }
    sure = probabilities.max(axis=1)
    bins = []
    numbers = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    for number in np.unique(numbers):
        mine = numbers == number
        bins.append(
            {
                "probability": float(sure[mine].mean()),
                "accuracy": float(right[mine].mean()),
                "images": int(mine.sum()),
            }
        )
    gaps = [one["images"] * abs(one["probability"] - one["accuracy"]) for one in bins]
    return {
        "accuracy": float(right.mean()),
        "interval": _wilson(int(right.sum()), len(labels)),
        "right": int(right.sum()),
        "rows": len(labels),
        "letters": letters,
        "calibration": {"error": sum(gaps) / len(labels), "bins": bins},
    }


def robustness(
    model: keras.Model, split: Split, progress: Callable[[str], None] = lambda doing: None
) -> dict[str, dict[str, float]]:
    """Measures the accuracy on images that are turned or shifted a little.

    They are interpolated linearly; what comes in from outside repeats the border.

    Args:
        model: Takes what `Classifier`'s does, gives probabilities.
        split: The images and their letters.
        progress: Called with what is done next.

    Returns:
        `rotation`: accuracy by degrees, against the clock as in Keras; `shift`: by pixels, the
        mean over the four directions.
    """
    labels, batches = _batches(split)
    divisor = network.pixel_divisor(model)

    @tf.function(reduce_retracing=True)
    def best(images: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        images = tf.ensure_shape(images, [None, SIDE, SIDE, 1])
        moved = warp(images, tf.repeat(matrix, len(images), axis=0))
        return tf.argmax(model(moved / divisor, training=False), axis=1)

    def accuracy(**moved: float) -> float:
        matrix = output_to_input(AugmentOptions(), moved, SIDE, SIDE)
        with damage_in_words(split.records):
            found = np.concatenate([best(images, matrix) for images in batches])
        return float((found == labels).mean())

    found: dict[str, dict[str, float]] = {"rotation": {}, "shift": {}}
    for degrees in _ROTATIONS:
        progress(f"Evaluating, turned by {degrees}°")
        found["rotation"][str(degrees)] = accuracy(theta=float(degrees))
    for pixels in _SHIFTS:
        progress(f"Evaluating, shifted by {pixels} pixels")
        sides = [{name: float(sign * pixels)} for name in ("tx", "ty") for sign in (-1, 1)]
        found["shift"][str(pixels)] = float(np.mean([accuracy(**side) for side in sides]))
    return found


def worst_mistakes(
    split: Split, labels: np.ndarray, probabilities: np.ndarray, most: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the images whose true letter a model thought least of, among those it got wrong.

    Args:
        split: The images and their letters.
        labels: As `predict` returned them.
        probabilities: The same.
        most: Int, how many at most.

    Returns:
        Their rows, (m,), worst first; and the images, uint8, (m, 28, 28, 1).
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    rows = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")][:most]
    if split.records is None:
        return rows, np.asarray(split.images[rows])
    images = np.empty((len(rows), SIDE, SIDE, 1), np.uint8)
    for number, (batch, _) in enumerate(split.records.batches(_BATCH).as_numpy_iterator()):
        here = rows // _BATCH == number
        images[here] = batch[rows[here] % _BATCH]
    return rows, images


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _wilson(right: int, rows: int) -> list[float]:
    """Returns the ends of the 95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    share = right / rows
    middle = share + z**2 / (2 * rows)
    half = z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    scale = 1 + z**2 / rows
    return [(middle - half) / scale, (middle + half) / scale]


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    with replacing(path) as aside, aside.open("w", newline="") as file:
        csv.writer(file).writerows(rows)

"""How well a saved model does on a valid set."""

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.dataset import Split
from asl_fast.errors import InputError
from asl_fast.hands import LETTERS
from asl_fast.records import damage_in_words
from asl_fast.table import CLASSES, SIDE

__all__ = ["EXPANSION", "evaluate", "load_any_model", "load_model", "predict"]

EXPANSION = 100  # times that a model's file may expand; those of Keras don't

_BATCH = 1024


def load_model(path: Path) -> keras.Model:
    """Loads a model that this package or the course saved.

    Args:
        path: A `.keras` file, or the folder of a run.

    Raises:
        InputError: There is none, it can't be read, or it is not for this data.
    """
    model = load_any_model(path)
    shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if shapes != ((None, SIDE, SIDE, 1), (None, CLASSES)):
        raise InputError(
            f"{path} takes {shapes[0]} and gives {shapes[1]}; "
            f"needed are (None, {SIDE}, {SIDE}, 1) and (None, {CLASSES})."
        )
    return model


def load_any_model(path: Path) -> keras.Model:
    """Loads a Keras model, whatever it is for.

    Args:
        path: As for `load_model`.

    Raises:
        InputError: There is none, or it can't be read; or it holds code, which is not run, or
            expands to more than `EXPANSION` times its size.
    """
    if path.is_dir():
        path = path / "model.keras"
    if not path.is_file():
        raise InputError(f"There is no model {path}.")
    try:
        _refuse_bomb(path)
        return keras.saving.load_model(path)
    except Exception as error:  # Keras raises many kinds for what is not a model of its own
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} can't be loaded as a Keras model: {reason}") from None


def _refuse_bomb(path: Path) -> None:
    """Raises a `ValueError` for a file that Keras would expand far beyond its size."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        # Nobody reads more of a member than it says.
        size = sum(member.file_size for member in archive.infolist())
    if size > EXPANSION * path.stat().st_size:
        raise ValueError(f"it expands to {size:,} bytes, more than {EXPANSION} times its size")


def predict(
    model: keras.Model, split: Split, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels (n,), integers, and what the model says, probabilities (n, 24).

    Args:
        model: Takes floats in [0, 1], gives probabilities.
        split: The images and their letters.
        mirrored: Whether the model sees mirror images.
    """
    side = slice(None, None, -1 if mirrored else 1)
    if split.records is None:
        pixels = np.asarray(split.images[:, :, side], np.float32) / 255
        return np.asarray(split.labels), model.predict(pixels, batch_size=_BATCH, verbose=0)
    batches = split.records.batches(_BATCH)
    pixels = batches.map(lambda images, _: tf.cast(images[:, :, side], tf.float32) / 255)
    with damage_in_words(split.records):
        labels = [letters for _, letters in batches.as_numpy_iterator()]
        return np.concatenate(labels), model.predict(pixels, verbose=0)


def evaluate(model: keras.Model, split: Split, mirrored: bool = False) -> dict[str, Any]:
    """Counts how many images the model names rightly.

    Args:
        model: Takes floats in [0, 1], gives probabilities.
        split: The images and their letters.
        mirrored: Whether to average over each image and its mirror image, which takes twice the
            time.

    Returns:
        A dictionary with `accuracy`, `right`, `rows`, `mirrored`, `letters` (accuracy by letter)
        and `data`.
    """
    labels, probabilities = predict(model, split)
    if mirrored:
        probabilities += predict(model, split, mirrored=True)[1]
    right = probabilities.argmax(axis=-1) == labels
    rows = np.bincount(labels, minlength=CLASSES)
    shares = np.bincount(labels, weights=right, minlength=CLASSES) / np.maximum(rows, 1)
    return {
        "accuracy": float(right.mean()),
        "right": int(right.sum()),
        "rows": len(labels),
        "mirrored": mirrored,
        "letters": {
            letter: float(share)
            for letter, share, count in zip(LETTERS, shares, rows, strict=True)
            if count
        },
        "data": split.describe(),
    }

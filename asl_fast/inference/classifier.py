"""A trained model that names the letters in photographs."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from asl_fast.data.pipeline import without_autotuning
from asl_fast.images import photograph
from asl_fast.models import network, saving
from asl_fast.system.errors import InputError

__all__ = ["Classifier", "Prediction"]

_BATCH = 256
_TOP = 3


class Prediction(NamedTuple):
    """What a model takes an image for.

    Attributes:
        letter: The most probable letter.
        probability: Float in [0, 1], its.
        top: The three most probable letters (fewer if the model knows fewer), each with its
            probability.
    """

    letter: str
    probability: float
    top: list[tuple[str, float]]


class Classifier:
    """Names the letter in images of any size and colour.

    Args:
        model: Takes floats in [0, 1], or pixels of 0 to 255 if it scales them itself
            (`network.pixel_divisor`), (n, height, width, 1 or 3); gives probabilities (n, k).
        letters: The k letters that the outputs stand for, in their order.
        name: What messages call the model.

    Raises:
        InputError: The model is not of that shape, or the letters are not as many as its outputs
            or not different.
    """

    def __init__(self, model: keras.Model, letters: Sequence[str], name: str = "The model") -> None:
        taken: Any = getattr(model, "input_shape", None)
        given: Any = getattr(model, "output_shape", None)
        if not (_is_shape(taken, 4) and taken[3] in (1, 3) and _is_shape(given, 2)):
            raise InputError(
                f"{name} takes {taken} and gives {given}; needed are images (None, height, width, "
                "1 or 3) and a probability a letter (None, letters)."
            )
        if len(letters) != given[1] or len(set(letters)) != len(letters):
            raise InputError(
                f"{name} has {given[1]} outputs, so it takes as many different letters. "
                f"Received {len(letters)}: {' '.join(letters)}"
            )
        self._model, self._name = model, name
        self._height, self._width, self._channels = taken[1:]
        self._letters = tuple(letters)
        self._divisor = np.float32(network.pixel_divisor(model))

    @classmethod
    def load(cls, path: str | Path, letters: Sequence[str] | None = None) -> Self:
        """Loads one from a model's file.

        Args:
            path: A `.keras` file, or the folder of a run.
            letters: In place of those that the file holds. Files that `asl-fast train` wrote hold
                them; others do not.

        Raises:
            InputError: As the constructor's; or there is no model, it can't be read, or nobody
                says its letters.
        """
        path = Path(path)
        model = saving.load_model(path)
        if letters is None:
            letters = saving.read_letters(path)
        if letters is None:
            raise InputError(
                f"{path} doesn't say which letters its outputs stand for. Give them in the order "
                "of the outputs (--letters, or letters=); the course's are "
                "ABCDEFGHIKLMNOPQRSTUVWXY."
            )
        return cls(model, letters, str(path))

    @property
    def model(self) -> keras.Model:
        """The Keras model."""
        return self._model

    @property
    def letters(self) -> tuple[str, ...]:
        """What the outputs stand for."""
        return self._letters

    def prepare(self, image: Any) -> np.ndarray:
        """Returns what the model sees of an image: uint8, (height, width, channels).

        Args:
            image: As `photograph.read` takes it.
        """
        return self._read(image, "The image").pixels

    def predict(self, images: Iterable[Any]) -> list[Prediction]:
        """Names the letters in images.

        Args:
            images: Each as `photograph.read` takes it: paths, Pillow images, arrays of uint8. A
                single path or Pillow image may stand alone.

        Raises:
            InputError: One can't be read; says which.
        """
        if isinstance(images, (str, bytes, Path, Image.Image)):
            images = [images]
        pixels = [
            self._read(image, _name(image, f"Image {number}")).pixels
            for number, image in enumerate(images)
        ]
        found: list[Prediction] = []
        for start in range(0, len(pixels), _BATCH):
            found += self._name_letters(np.stack(pixels[start : start + _BATCH]))
        return found

    def predict_files(
        self, files: Sequence[str | Path | bytes]
    ) -> Iterator[tuple[Prediction | InputError, str]]:
        """Names the letters in files, which are read side by side and ahead of the model.

        Args:
            files: Paths, or contents.

        Yields:
            For each file, in order: what it was taken for, or what is wrong with it; and what the
            user should know of it, or "".
        """
        shape = self._height, self._width, self._channels

        def load(number: np.ndarray) -> tuple[np.ndarray, bytes, bytes]:
            file = files[int(number)]
            try:
                pixels, note = self._read(file, _name(file, "standard input"))
            except InputError as error:
                return np.zeros(shape, np.uint8), os.fsencode(str(error)), b""
            return pixels, b"", os.fsencode(note)

        def one(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Pillow, as TensorFlow knows neither WebP nor a camera's rotation.
            pixels, wrong, note = tf.numpy_function(
                load, [number], (tf.uint8, tf.string, tf.string), stateful=False
            )
            return tf.ensure_shape(pixels, shape), wrong, note

        batches = without_autotuning(
            tf.data.Dataset.range(len(files))
            .map(one, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(_BATCH)
            .prefetch(2)
        )
        for pixels, wrong, notes in batches.as_numpy_iterator():
            predictions = self._name_letters(pixels)
            for prediction, error, note in zip(predictions, wrong, notes, strict=True):
                yield (InputError(os.fsdecode(error)) if error else prediction), os.fsdecode(note)

    def _read(self, image: Any, name: str) -> photograph.Photograph:
        return photograph.read(image, self._height, self._width, self._channels, name=name)

    def _name_letters(self, pixels: np.ndarray) -> list[Prediction]:
        # Padded, so that Keras traces one shape only.
        padded = np.zeros((_BATCH, *pixels.shape[1:]), np.float32)
        padded[: len(pixels)] = pixels / self._divisor
        rows = self._model.predict_on_batch(padded)[: len(pixels)]
        network.check_probabilities(rows, self._name)
        best = np.argsort(-rows, axis=1, kind="stable")[:, :_TOP]
        found = []
        for row, order in zip(rows, best.tolist(), strict=True):
            top = [(self._letters[place], float(row[place])) for place in order]
            found.append(Prediction(*top[0], top))
        return found


def _is_shape(shape: Any, rank: int) -> bool:
    return isinstance(shape, tuple) and len(shape) == rank and None not in shape[1:]


def _name(image: Any, otherwise: str) -> str:
    return str(image) if isinstance(image, (str, Path)) else otherwise

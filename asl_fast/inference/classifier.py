"""A trained model that classifies the letters in photographs."""

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
from asl_fast.models import limits, network, pixel_range, saving
from asl_fast.system.errors import InputError

__all__ = ["Classifier", "Prediction"]

_BATCH = 256
_TOP = 3


class Prediction(NamedTuple):
    """The classification of one image.

    Attributes:
        letter: The most probable letter.
        probability: Float in [0, 1], of that letter.
        top: Up to three letters with their probabilities, the most probable first.
    """

    letter: str
    probability: float
    top: list[tuple[str, float]]


class Classifier:
    """Classifies the letter in images of any size and colour.

    Args:
        model: From (n, height, width, 1 or 3) to probabilities (n, k). Inputs are floats in
            the range of `pixels`.
        letters: The k different letters of the outputs, in their order.
        name: The model's name in messages.
        pixels: "0-1", "-1-1" or "0-255", the range that the model was trained on. None reads it
            from the model's file or graph; if neither tells, 0-1 is assumed with a warning.

    Raises:
        InputError: The model has other shapes, or the letters don't match its outputs.
    """

    def __init__(
        self,
        model: keras.Model,
        letters: Sequence[str],
        name: str = "The model",
        pixels: str | None = None,
    ) -> None:
        inputs: Any = getattr(model, "input_shape", None)
        outputs: Any = getattr(model, "output_shape", None)
        if not (_is_fixed(inputs, 4) and inputs[3] in (1, 3) and _is_fixed(outputs, 2)):
            raise InputError(
                f"{name} takes {inputs} and outputs {outputs}. A classifier takes images "
                "(None, height, width, 1 or 3) and outputs probabilities (None, letters)."
            )
        if len(letters) != outputs[1] or len(set(letters)) != len(letters):
            raise InputError(
                f"{name} has {outputs[1]} outputs and needs as many different letters. "
                f"Received {len(letters)}: {' '.join(letters)}"
            )
        self._model, self._name = model, name
        self._height, self._width, self._channels = inputs[1:]
        self._letters = tuple(letters)
        self._pixels = pixel_range.pixel_range(model, pixels, name)
        self._batch = limits.batch_size(model, _BATCH)

    @classmethod
    def load(
        cls, path: str | Path, letters: Sequence[str] | None = None, pixels: str | None = None
    ) -> Self:
        """Loads a classifier from a model file.

        Args:
            path: A `.keras` or HDF5 file, or the folder of a run.
            letters: Replaces the letters in the file. Only files from `asl-fast train` hold them;
                25 or 26 outputs are otherwise taken for A to Y or A to Z, with a warning.
            pixels: As for the constructor.

        Raises:
            InputError: As for the constructor; or the model can't be loaded, or has no letters.
        """
        path = Path(path)
        model = saving.load_model(path)
        if _is_fixed(getattr(model, "output_shape", None), 2):
            letters = saving.find_letters(path, model, letters)
        if letters is None:
            raise InputError(
                f"{path} does not hold the letters of its outputs. Give them in the order of the "
                "outputs (--letters, or letters=); the course's are ABCDEFGHIKLMNOPQRSTUVWXY."
            )
        return cls(model, letters, str(path), pixels)

    @property
    def model(self) -> keras.Model:
        """The Keras model."""
        return self._model

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the outputs, in their order."""
        return self._letters

    def prepare(self, image: Any) -> np.ndarray:
        """Returns an image as the model sees it: uint8 (height, width, channels).

        Args:
            image: Anything that `photograph.read` accepts.
        """
        return self._read(image, "The image").pixels

    def predict(self, images: Iterable[Any]) -> list[Prediction]:
        """Classifies images.

        Args:
            images: Paths, Pillow images, or arrays or tensors: uint8 as `photograph.read` accepts
                them, or floats in [0, 1]. A single one is accepted too: an array or tensor of
                rank 2 or of shape (height, width, 1, 3 or 4).

        Raises:
            InputError: An image can't be read.
        """
        if tf.is_tensor(images):
            images = np.asarray(images)
        if isinstance(images, (str, bytes, Path, Image.Image)) or (
            isinstance(images, np.ndarray) and _is_single(images)
        ):
            images = [images]
        pixels = [
            self._read(image, _name(image, f"Image {number}")).pixels
            for number, image in enumerate(images)
        ]
        predictions: list[Prediction] = []
        for start in range(0, len(pixels), self._batch):
            predictions += self._classify(np.stack(pixels[start : start + self._batch]))
        return predictions

    def predict_files(
        self, files: Sequence[str | Path | bytes]
    ) -> Iterator[tuple[Prediction | InputError, str]]:
        """Classifies image files, which are read in parallel and ahead of the model.

        Args:
            files: Paths, or contents.

        Yields:
            For each file, in order: its prediction or the error that occurred, and a note for the
            user or "".
        """
        shape = self._height, self._width, self._channels

        def load(number: np.ndarray) -> tuple[np.ndarray, bytes, bytes]:
            file = files[int(number)]
            try:
                pixels, note = self._read(file, _name(file, "standard input"))
            except InputError as error:
                return np.zeros(shape, np.uint8), os.fsencode(str(error)), b""
            return pixels, b"", os.fsencode(note)

        def load_in_graph(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # With Pillow, since TensorFlow handles neither WebP nor a camera's orientation.
            pixels, error, note = tf.numpy_function(
                load, [number], (tf.uint8, tf.string, tf.string), stateful=False
            )
            return tf.ensure_shape(pixels, shape), error, note

        batches = without_autotuning(
            tf.data.Dataset.range(len(files))
            .map(load_in_graph, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(self._batch)
            .prefetch(2)
        )
        for pixels, errors, notes in batches.as_numpy_iterator():
            predictions = self._classify(pixels)
            for prediction, error, note in zip(predictions, errors, notes, strict=True):
                yield (InputError(os.fsdecode(error)) if error else prediction), os.fsdecode(note)

    def _read(self, image: Any, name: str) -> photograph.Photograph:
        if tf.is_tensor(image):
            image = np.asarray(image)
        if isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating):
            image = _in_bytes(image, name)
        return photograph.read(image, self._height, self._width, self._channels, name=name)

    def _classify(self, pixels: np.ndarray) -> list[Prediction]:
        # Padded, so that Keras traces a single shape.
        padded = np.zeros((self._batch, *pixels.shape[1:]), np.float32)
        padded[: len(pixels)] = pixel_range.scale(pixels.astype(np.float32), self._pixels)
        rows = self._model.predict_on_batch(padded)[: len(pixels)]
        network.check_probabilities(rows, self._name)
        best = np.argsort(-rows, axis=1, kind="stable")[:, :_TOP]
        predictions = []
        for row, order in zip(rows, best.tolist(), strict=True):
            top = [(self._letters[output], float(row[output])) for output in order]
            predictions.append(Prediction(*top[0], top))
        return predictions


def _is_fixed(shape: Any, rank: int) -> bool:
    return isinstance(shape, tuple) and len(shape) == rank and None not in shape[1:]


def _is_single(images: np.ndarray) -> bool:
    return images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3, 4))


def _in_bytes(image: np.ndarray, name: str) -> np.ndarray:
    """Returns floats in [0, 1] as uint8."""
    # `not …`, so that NaN fails too.
    if image.size and not (image.min() >= 0 and image.max() <= 1):
        raise InputError(
            f"{name} must be uint8, or floats in [0, 1]. Received: floats from {image.min():g} to "
            f"{image.max():g}."
        )
    return np.rint(image.astype(np.float32) * 255).astype(np.uint8)


def _name(image: Any, otherwise: str) -> str:
    return str(image) if isinstance(image, (str, Path)) else otherwise

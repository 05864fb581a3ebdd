"""The course's network, and the output of any network."""

import keras
import numpy as np

from asl_fast.models import pixel_range
from asl_fast.system.errors import InputError

__all__ = ["build_cnn", "check_probabilities"]


def build_cnn(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 24,
    dtype: str | keras.DTypePolicy = "float32",
    batch_norm_momentum: float = 0.99,
) -> keras.Sequential:
    """Builds the CNN of the Keras course on Sign Language MNIST, uncompiled.

    Args:
        input_shape: Height, width and channels of the images, floats in [0, 1].
        classes: Number of letters.
        dtype: Dtype policy of the layers, except for the softmax, which is always float32.
        batch_norm_momentum: Float in [0, 1): momentum of the moving averages.

    Returns:
        A `keras.Sequential` from (n, *input_shape) to probabilities (n, classes), float32.
    """
    layers = keras.layers

    def batch_normalization() -> keras.layers.Layer:
        return layers.BatchNormalization(momentum=batch_norm_momentum, dtype=dtype)

    model = keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(75, 3, padding="same", activation="relu", dtype=dtype),
            batch_normalization(),
            layers.MaxPool2D(2, padding="same", dtype=dtype),
            layers.Conv2D(50, 3, padding="same", activation="relu", dtype=dtype),
            layers.Dropout(0.2, dtype=dtype),
            batch_normalization(),
            layers.MaxPool2D(2, padding="same", dtype=dtype),
            layers.Conv2D(25, 3, padding="same", activation="relu", dtype=dtype),
            batch_normalization(),
            layers.MaxPool2D(2, padding="same", dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(512, activation="relu", dtype=dtype),
            layers.Dropout(0.3, dtype=dtype),
            layers.Dense(classes, activation="softmax", dtype="float32", name="predictions"),
        ],
        name="asl_cnn",
    )
    pixel_range.mark(model, "0-1")
    return model


def check_probabilities(rows: np.ndarray, name: str = "The model") -> None:
    """Raises an `InputError` if a model's outputs are not probabilities.

    Args:
        rows: The outputs, floats (n, classes).
        name: The model's name for the message.
    """
    # `not …`, so that NaN fails too.
    if not (np.all(rows >= 0) and np.all(np.abs(rows.sum(axis=1) - 1) <= 0.01)):
        raise InputError(
            f"{name} outputs no probabilities: they must be at least 0 and sum to 1, as after a "
            "softmax."
        )

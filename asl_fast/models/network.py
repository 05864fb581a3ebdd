"""The course's network, and the input scale and output of any network."""

import keras
import numpy as np

from asl_fast.system.errors import InputError
from asl_fast.system.private_api import flatten_layers
from asl_fast.transforms.standardize import Standardize

__all__ = ["build_cnn", "check_probabilities", "pixel_divisor"]


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

    return keras.Sequential(
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


def pixel_divisor(model: keras.Model) -> float:
    """Returns the divisor that turns pixels in [0, 255] into the model's inputs.

    It is 1 for a model that scales pixels itself, by a `Rescaling` or `Standardize` layer before
    its first layer with weights, and 255 for others.
    """
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.Rescaling):
            scale = float(np.max(layer.scale))
        elif isinstance(layer, Standardize):
            scale = layer.options.rescale or 1.0
        elif layer.weights and not isinstance(layer, keras.Model):
            break
        else:
            continue
        return 1.0 if scale < 0.1 else 255.0  # commonly 1 / 255 or 1 / 127.5
    return 255.0


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

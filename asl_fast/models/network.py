"""Networks: the course's, and those of `keras.applications`; and the output of any network."""

import dataclasses
import difflib
import inspect
from pathlib import Path
from types import ModuleType

import keras
import numpy as np

from asl_fast.models import pixel_range
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import flatten_layers

__all__ = ["COURSE", "Network", "build_cnn", "check_probabilities"]

COURSE = "course"
_IMAGENET = "imagenet"


@dataclasses.dataclass(frozen=True)
class Network:
    """What a run trains.

    Attributes:
        name: `COURSE`, or the name of a function in `keras.applications`.
        weights: A file of weights for the network without its top, "imagenet" for those that Keras
            downloads, or None for random ones. Not for the course's network.
        frozen: Bool. True trains only the dense head, on the network's fixed features.

    Raises:
        InputError: There is no such network or file, or the options don't go with the network.
    """

    name: str = COURSE
    weights: str | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.name == COURSE:
            if self.weights or self.frozen:
                raise InputError(
                    "Weights and frozen layers are for the networks of keras.applications. Choose "
                    "one (--network), or leave out --weights and --frozen."
                )
            return
        names = _applications()
        if self.name not in names:
            near = difflib.get_close_matches(self.name, names, 3, 0.5) or ["MobileNetV2"]
            raise InputError(
                f"There is no network {self.name} in keras.applications. Give course, or a name "
                f"such as {', '.join(near)}."
            )
        if self.frozen and not self.weights:
            raise InputError(
                "A frozen network of random weights would learn hardly anything. Give it weights "
                "(--weights), or leave out --frozen."
            )
        if self.weights not in (None, _IMAGENET) and not Path(str(self.weights)).is_file():
            raise InputError(f"There is no file of weights {self.weights}.")

    def build(
        self,
        shape: tuple[int, int, int],
        classes: int,
        dtype: str = "float32",
        batch_norm_momentum: float = 0.99,
    ) -> keras.Model:
        """Builds the network, uncompiled, from images `shape` to probabilities (n, classes).

        The course's takes pixels in [0, 1], the others in [0, 255]: their own preprocessing is
        their first part.

        Args:
            shape: Height, width and channels, 1 or 3.
            classes: At least 1.
            dtype: As for `build_cnn`.
            batch_norm_momentum: As for `build_cnn`. Of other networks' layers too: with the 0.999
                that some have, thousands of steps pass until validation sees what was learnt.

        Raises:
            InputError: The network takes no such images, or its weights don't fit.
        """
        if self.name == COURSE:
            return build_cnn(shape, classes, dtype, batch_norm_momentum)
        module = _applications()[self.name]
        features = self._features(module, shape, dtype)
        for layer in flatten_layers(features):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = batch_norm_momentum
        inputs = keras.Input(shape)
        # Networks for photographs take three channels.
        colors = keras.layers.Concatenate()([inputs] * 3) if shape[2] == 1 else inputs
        hidden = features(module.preprocess_input(colors))
        head = keras.layers.Dense(
            classes, activation="softmax", dtype="float32", name="predictions"
        )
        model = keras.Model(inputs, head(hidden), name=self.name.lower())
        pixel_range.mark(model, "0-255")
        return model

    def _features(self, module: ModuleType, shape: tuple[int, int, int], dtype: str) -> keras.Model:
        """Returns the network without its top, with its weights, from images to (n, features)."""
        make = getattr(module, self.name)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(dtype)
        try:
            features = make(
                include_top=False,
                weights=_IMAGENET if self.weights == _IMAGENET else None,
                input_shape=(*shape[:2], 3),
                pooling="avg",
            )
            if self.weights not in (None, _IMAGENET):
                features.load_weights(self.weights)
        except Exception as error:  # of many kinds, for files that hold something else
            reason = " ".join(str(error).split())[:200]
            hint = " The file must be of the network without its top." if self.weights else ""
            raise InputError(
                f"{self.name} can't be made for images of {shape[0]}x{shape[1]}: {reason}.{hint}"
            ) from None
        finally:
            keras.config.set_dtype_policy(before)
        features.trainable = not self.frozen
        return features


def _applications() -> dict[str, ModuleType]:
    """Returns the module of each network in `keras.applications`, by name."""
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    modules = {name: inspect.getmodule(function) for name, function in functions}
    return {name: module for name, module in modules.items() if module is not None}


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

"""The range of pixels that a network takes: read from its graph, or assumed aloud."""

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from asl_fast.system.errors import InputError
from asl_fast.system.private_api import flatten_layers, graph_nodes
from asl_fast.transforms.standardize import Standardize

__all__ = ["RANGES", "is_known", "mark", "marked", "pixel_range", "read", "scale"]

RANGES = ("0-1", "-1-1", "0-255")

_SCALING = (keras.layers.Rescaling, keras.layers.Normalization, Standardize)
_MARK = "asl_fast_pixels"
_UNKNOWN_SIDE = 32  # pixels; stands in for a side that the model leaves open

_log = logging.getLogger(__name__)


def pixel_range(model: keras.Model, pixels: str | None = None, name: str = "The model") -> str:
    """Returns the range of pixels that a model takes, "0-1", "-1-1" or "0-255".

    If neither the file nor the graph tells it, 0-1 is assumed, and a warning is logged.

    Args:
        model: Takes images.
        pixels: One of `RANGES`, which decides; None for what is known of the model.
        name: The model's name for messages.

    Raises:
        InputError: `pixels` is not one of `RANGES`.
    """
    if pixels is not None:
        if pixels not in RANGES:
            raise InputError(f"pixels must be one of {', '.join(RANGES)}. Received: {pixels!r}.")
        return pixels
    known = getattr(model, _MARK, None) or read(model)
    if known is None:
        _log.warning(
            "%s does not scale pixels itself, and its file does not tell their range: 0-1 is "
            "assumed. If it was trained on others, choose with --pixels (pixels=): %s.",
            name,
            ", ".join(RANGES),
        )
    return known or "0-1"


def is_known(model: keras.Model) -> bool:
    """Returns whether a mark or the graph tells the range."""
    return bool(getattr(model, _MARK, None) or read(model))


def marked(model: keras.Model) -> str | None:
    """Returns the range that a model was made for, or None if nothing but its graph tells."""
    return getattr(model, _MARK, None)


def mark(model: keras.Model, pixels: str) -> None:
    """Records the range of pixels that a model takes."""
    setattr(model, _MARK, pixels)


def scale(images: Any, pixels: str) -> Any:
    """Returns pixels in [0, 255], floats of any shape, in one of `RANGES`."""
    if pixels == "-1-1":
        return images / np.float32(127.5) - np.float32(1)
    return images / np.float32(255 if pixels == "0-1" else 1)


def read(model: keras.Model) -> str | None:
    """Returns the range that a model's own scaling expects, or None if there is none to tell.

    The operations between the input and the first layer with weights (`Normalization` and
    `Standardize` apart) are run on images of two values. If their output is a x + b, then a and
    the pixel that becomes 0, -b / a, tell the range: 1 / 255 or a mean of 120 belong to 0-255.
    """
    return _read(model, lambda images: images)


def _read(
    model: Any, before: Callable[[Any], Any], shape: tuple[int, ...] | None = None
) -> str | None:
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        return _read_layers(flatten_layers(model))
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        return None
    # What comes before a nested model may change the shape.
    shape = shape or tuple(side or _UNKNOWN_SIDE for side in model.inputs[0].shape[1:])
    result = last = None
    behind_weights: set[int] = set()
    for operation, inputs, outputs in graph_nodes(keras.Model(model.inputs, model.outputs)):
        if not inputs:
            continue
        is_behind = any(id(tensor) in behind_weights for tensor in inputs)
        if not is_behind and isinstance(operation, keras.Model):
            earlier = _function(model, inputs[0])
            result = _read(operation, _chain(before, earlier), shape) or result
        if is_behind or _has_weights(operation):
            behind_weights.update(id(tensor) for tensor in outputs)
            continue
        if len(outputs) == 1 and len(outputs[0].shape) in (2, 4):
            function = _function(model, outputs[0])
            response = _response(_chain(before, function), shape)
            # An operation that changes no value, such as flattening, adds nothing.
            if response is None or last is None or not np.allclose(response, last):
                result = _range(operation, response) or result
            last = response
    return result


def _read_layers(layers: list[Any]) -> str | None:
    """Returns the range by the first scaling layer of a model whose graph can't be read."""
    for layer in layers:
        if isinstance(layer, _SCALING):
            built = getattr(layer, "mean", None)
            channels = 1 if built is None else int(np.shape(built)[-1])
            return _range(layer, _response(layer, (_UNKNOWN_SIDE, _UNKNOWN_SIDE, channels)))
        if layer.weights and not isinstance(layer, keras.Model):
            break
    return None


def _function(model: Any, tensor: Any) -> Callable[[Any], Any]:
    if tensor is model.inputs[0]:
        return lambda images: images
    part = keras.Model(model.inputs[0], tensor)
    return lambda images: part(images, training=False)


def _chain(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda images: second(first(images))


def _has_weights(operation: Any) -> bool:
    if isinstance(operation, keras.Model):
        return any(map(_has_weights, operation.layers))
    return bool(getattr(operation, "weights", ())) and not isinstance(operation, _SCALING)


def _response(function: Callable[[Any], Any], shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Returns an affine function's slope and the pixel that becomes 0, means of the channels."""
    pairs = np.array([[0, 1], [-1, 1], [0, 128], [16, 255]], np.float32)
    images = np.empty((len(pairs), *shape), np.float32)
    middle = shape[1] // 2
    images[:, :, :middle] = pairs[:, 0, None, None, None]
    images[:, :, middle:] = pairs[:, 1, None, None, None]
    try:
        values = np.asarray(keras.ops.convert_to_numpy(function(images)), np.float64)
        if values.ndim == 2:
            values = values.reshape(len(values), *shape)  # flattened images
    except Exception:  # an operation may take other images, or pool them
        return None
    height, width = values.shape[1:3]
    left, right = (values[:, height // 2, width * place // 4] for place in (1, 3))
    slopes = (right - left) / (pairs[:, 1] - pairs[:, 0])[:, None]
    if not np.all(np.isfinite(slopes)) or np.any(slopes[0] == 0):
        return None
    if not np.allclose(slopes, slopes[0], rtol=1e-3):
        return None
    zeros = pairs[:, :1] - left / slopes
    # Where each image's own mean is subtracted, no single pixel becomes 0.
    has_zero = np.allclose(zeros, zeros[0], rtol=1e-3, atol=1e-2)
    return float(np.mean(np.abs(slopes[0]))), float(np.mean(zeros[0])) if has_zero else 0.0


def _range(operation: Any, response: tuple[float, float] | None) -> str | None:
    if response is None:
        rescale = operation.options.rescale if isinstance(operation, Standardize) else None
        if rescale is None:
            return None
        response = rescale, 0.0
    slope, zero = response
    if slope < 0.1 or zero > 1.01:
        return "0-255"
    # Pixels in [0, 1] of mean m deviate by at most sqrt(m (1 - m)).
    most = np.sqrt(max(0, zero * (1 - zero)))
    is_deviation = isinstance(operation, keras.layers.Normalization)
    if zero < -0.01 or (is_deviation and 1 / slope > most + 0.01):
        return "-1-1"
    return "0-1" if slope > 1.01 or zero > 0.01 else None

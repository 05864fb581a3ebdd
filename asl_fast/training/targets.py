"""The labels in the form that a model's loss takes: one-hot or integers."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.system import private_api

__all__ = ["check_labels", "fitting_labels", "has_own_step", "mixable_labels", "mixing_layer"]

# Keras's and KerasCV's layers that mix the images of a batch, and so their labels.
_MIXING = {"CutMix", "FourierMix", "MixUp", "Mosaic"}

_ONE_HOT = (keras.losses.CategoricalCrossentropy, keras.losses.CategoricalFocalCrossentropy)
_INTEGER = (keras.losses.SparseCategoricalCrossentropy,)


def _kind(model: keras.Model) -> str | None:
    """Returns "one-hot" or "integer", or None where the loss is another one."""
    loss = model.loss
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return None
    for kind, classes, function in (
        ("one-hot", _ONE_HOT, keras.losses.categorical_crossentropy),
        ("integer", _INTEGER, keras.losses.sparse_categorical_crossentropy),
    ):
        if loss is function or isinstance(loss, classes):
            return kind
    return None


def _classes(model: keras.Model) -> int | None:
    """Returns the number of classes, or None where the model is no classifier with such a loss."""
    shape = getattr(model, "output_shape", None)
    if _kind(model) is None or not isinstance(shape, tuple) or len(shape) != 2:
        return None
    return shape[1]


def has_own_step(model: keras.Model) -> bool:
    """Returns whether a model's class or user says what happens in a step, or to its loss.

    Such a step gets exactly what Keras would give it.
    """
    return "train_step" in vars(model) or any(
        getattr(type(model), name) is not getattr(keras.Model, name)
        for name in ("train_step", "compute_loss")
    )


def check_labels(model: keras.Model, y: Any) -> None:
    """Refuses integer labels that the model has no class for, and strings.

    Args:
        model: Compiled.
        y: Array of labels; anything else passes.

    Raises:
        ValueError: Names the first row.
    """
    if has_own_step(model):
        return
    for part in tf.nest.flatten(y):
        _check_numbers(part)
    classes = _classes(model)
    if classes is None or not isinstance(y, np.ndarray) or not y.size:
        return
    if y.ndim > 2 or (y.ndim == 2 and y.shape[1] != 1):
        return
    wrong = ~np.isin(y.reshape(-1), np.arange(classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"The label in row {row} is {y.reshape(-1)[row]}, but the model's classes are 0 to "
            f"{classes - 1}; {int(wrong.sum())} of {len(y)} labels are none of these"
        )


def fitting_labels(model: keras.Model) -> Callable[[Any], Any]:
    """Returns a function that turns labels, one-hot or integers, into what the model's loss takes.

    Labels for losses other than the two categorical cross-entropies stay as they are.

    Raises:
        ValueError: On labels that are neither; when called.
    """
    kind, classes = _kind(model), _classes(model)

    def fit(y: Any) -> Any:
        for part in tf.nest.flatten(y):
            _check_numbers(part)
        if classes is None or not isinstance(y, tf.Tensor) or y.shape.rank is None:
            return y
        last = y.shape[-1] if y.shape.rank == 2 else 1
        if y.shape.rank > 2 or last not in (None, 1, classes):
            raise ValueError(
                f"The labels have the shape {tuple(y.shape)}; the model's loss takes integers, "
                f"(n,), or one-hot labels, (n, {classes})"
            )
        if kind == "one-hot" and last == 1:
            return tf.one_hot(tf.cast(tf.reshape(y, [-1]), tf.int64), classes)
        if kind == "integer" and last == classes:
            return tf.argmax(y, axis=-1)
        return y

    return fit


def _check_numbers(y: Any) -> None:
    if isinstance(y, tf.Tensor) and y.dtype == tf.string:
        raise ValueError(
            "`y` holds strings, but the model's loss takes numbers: number the classes first, as "
            "by `names, y = np.unique(y, return_inverse=True)`"
        )


def mixable_labels(
    model: keras.Model, layers: Sequence[keras.layers.Layer]
) -> Callable[[Any], tf.Tensor | None]:
    """Returns a function that turns labels into what layers that mix images can mix.

    Integers become one-hot where the model's loss is a categorical cross-entropy, and columns of
    floats where the model has one output, as for a binary cross-entropy or a regression.

    Args:
        model: Compiled.
        layers: What follows the augmentation.

    Returns:
        A function from labels to a tensor of shape (n, columns); or to None where no layer takes
        labels.

    Raises:
        ValueError: On labels that can't be mixed, or a loss that takes integers; when called.
    """
    mixer = mixing_layer(layers)
    fitting, kind, classes = fitting_labels(model), _kind(model), _classes(model)
    shape = getattr(model, "output_shape", None)
    single = isinstance(shape, tuple) and len(shape) == 2 and shape[1] == 1

    def mixable(y: Any) -> tf.Tensor | None:
        rank = y.shape.rank if isinstance(y, tf.Tensor) else None
        if mixer is None or y is None:
            return y if layers and rank == 2 else None
        if kind == "integer":
            raise ValueError(
                f"`{mixer}` in `then` mixes labels, and the model's loss takes integers, which "
                "can't be mixed: compile the model with `categorical_crossentropy`; the labels "
                "may stay as they are"
            )
        if classes is not None:
            y = fitting(y)
        elif single and (rank == 1 or (rank == 2 and y.shape[1] == 1)):
            y = tf.reshape(y, [-1, 1])
        if not isinstance(y, tf.Tensor) or y.shape.rank != 2 or (y.shape[1] == 1 and not single):
            received = y.shape if isinstance(y, tf.Tensor) else type(y).__name__
            raise ValueError(
                f"`{mixer}` in `then` mixes labels, so they must be one-hot, (n, classes). "
                f"Received: {received}"
            )
        return tf.cast(y, tf.float32)

    return mixable


def mixing_layer(layers: Sequence[keras.layers.Layer]) -> str | None:
    """Returns the name of the first layer that mixes labels, or None."""
    for layer in layers:
        for inner in private_api.flatten_layers(layer, include_self=True):
            if _MIXING & {kind.__name__ for kind in type(inner).__mro__}:
                return type(inner).__name__
    return None

"""The labels in the form that a model's loss takes: one-hot or integers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["check_labels", "fitting_labels"]

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


def check_labels(model: keras.Model, y: Any) -> None:
    """Refuses integer labels that the model has no class for.

    Args:
        model: Compiled.
        y: Array of labels; anything else passes.

    Raises:
        ValueError: Names the first row.
    """
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

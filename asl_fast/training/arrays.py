"""Arrays as users bring them, in the types that Keras trains on."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["as_arrays", "is_arrays"]

_SCALARS = (bool, int, float, str, bytes, np.generic)


def is_arrays(x: Any) -> bool:
    """Returns whether x is an array, or a structure of arrays and lists of numbers."""
    if isinstance(x, tf.data.Dataset):
        return False
    if isinstance(x, list | tuple):
        return bool(x) and (isinstance(x[0], _SCALARS) or all(map(is_arrays, x)))
    if isinstance(x, Mapping):
        return bool(x) and all(map(is_arrays, x.values()))
    return hasattr(x, "shape") or hasattr(x, "__array__")


def as_arrays(name: str, given: Any) -> Any:
    """Returns a structure of arrays as Keras trains on them.

    Lists become tuples, lists of numbers arrays; floating numbers get Keras's float type, others
    keep theirs in the machine's byte order; strings become tensors.

    Args:
        name: Of the argument, for messages.
        given: An array, or lists, tuples and dictionaries of arrays; or None.

    Raises:
        ValueError: Something that is no array of numbers; names it.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {key: as_arrays(f"{name}[{key!r}]", part) for key, part in given.items()}
    if isinstance(given, list | tuple) and not _holds_numbers(given):
        parts = [as_arrays(f"{name}[{place}]", part) for place, part in enumerate(given)]
        return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
    return _array(name, given)


def _holds_numbers(given: Any) -> bool:
    """Returns whether lists hold numbers or strings in the end, and no arrays."""
    while isinstance(given, list | tuple) and given:
        given = given[0]
    return isinstance(given, _SCALARS) or given is None


def _array(name: str, given: Any) -> Any:
    if isinstance(given, tf.RaggedTensor | tf.SparseTensor):
        raise ValueError(
            f"`{name}` must be dense: give a tf.data.Dataset of batches, or `to_tensor()` of it. "
            f"Received: {type(given).__name__}"
        )
    try:
        array = np.asarray(given)
        if array.dtype == object:  # as pandas has its integers
            array = np.asarray(array.tolist())
    except (TypeError, ValueError):
        raise _no_numbers(name, f"{type(given).__name__} of parts that differ in shape") from None
    if not array.ndim:
        raise _no_numbers(name, f"{type(given).__name__} without rows")
    if array.dtype.kind in "USTa":
        with tf.device("CPU"):
            return tf.constant(array.tolist(), tf.string, array.shape)
    if array.dtype.kind == "f" or (array.dtype.kind == "V" and array.dtype.fields is None):
        try:
            return array.astype(keras.config.floatx(), copy=False)
        except (TypeError, ValueError):
            raise _no_numbers(name, str(array.dtype)) from None
    if array.dtype.kind not in "biuc":
        raise _no_numbers(name, str(array.dtype))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _no_numbers(name: str, received: str) -> ValueError:
    return ValueError(
        f"`{name}` must hold numbers, in arrays whose first axis counts the rows. Received: "
        f"{received}"
    )

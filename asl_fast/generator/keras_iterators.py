"""Keras's own image iterators, replaced by this package's."""

from typing import Any

from asl_fast.generator.file_iterators import DataFrameIterator, DirectoryIterator
from asl_fast.generator.image_data_generator import OVERRIDABLE, ImageDataGenerator
from asl_fast.generator.iterators import MEMBERS, NumpyArrayIterator
from asl_fast.system.private_api import KERAS_GENERATOR

__all__ = ["replace_keras_iterator"]

_OURS = {c.__name__: c for c in (DataFrameIterator, DirectoryIterator, NumpyArrayIterator)}


def replace_keras_iterator(x: Any) -> Any:
    """Returns this package's iterator for one of Keras's own; anything else as it is.

    Subclasses of Keras's classes and objects with methods of their own stay as they are, since
    those must be called.
    """
    generator = getattr(x, "image_data_generator", None)
    if (
        type(x).__module__ != KERAS_GENERATOR
        or type(x).__name__ not in _OURS
        or type(generator).__module__ not in (KERAS_GENERATOR, "builtins")  # None
        or MEMBERS & set(vars(x))
        or (generator is not None and set(OVERRIDABLE) & set(vars(generator)))
    ):
        return x
    own = None if generator is None else ImageDataGenerator.from_keras(generator)
    return _OURS[type(x).__name__].from_keras(x, own)

"""Keras's own image iterators, replaced by this package's."""

from typing import Any

from asl_fast.generator.file_iterators import DataFrameIterator, DirectoryIterator
from asl_fast.generator.image_data_generator import ImageDataGenerator
from asl_fast.generator.iterators import NumpyArrayIterator
from asl_fast.system.private_api import KERAS_GENERATOR

__all__ = ["replace_keras_iterator"]


def replace_keras_iterator(x: Any) -> Any:
    """Returns this package's iterator for one of Keras's own; anything else as it is.

    Subclasses of Keras's classes stay as they are, since their own methods must be called.
    """
    generator = getattr(x, "image_data_generator", None)
    if type(x).__module__ != KERAS_GENERATOR or type(generator).__module__ not in (
        KERAS_GENERATOR,
        "builtins",  # None
    ):
        return x
    own = None if generator is None else ImageDataGenerator.from_keras(generator)
    if type(x).__name__ == "DirectoryIterator":
        return DirectoryIterator.from_keras(x, own)
    if type(x).__name__ == "DataFrameIterator":
        return DataFrameIterator.from_keras(x, own)
    return NumpyArrayIterator(
        [x.x, x.x_misc] if x.x_misc else x.x,
        x.y,
        own,
        batch_size=x.batch_size,
        shuffle=x.shuffle,
        sample_weight=x.sample_weight,
        seed=x.seed,
        data_format=x.data_format,
        save_to_dir=x.save_to_dir,
        save_prefix=x.save_prefix,
        save_format=x.save_format,
        dtype=x.dtype,
    )

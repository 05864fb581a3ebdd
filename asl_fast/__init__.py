"""Trains the Sign Language MNIST CNN with the augmentation on the device, in the training step."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers
    from asl_fast.data.dataset import load_csv as load_csv
    from asl_fast.data.records import Records as Records
    from asl_fast.generator.file_iterators import DataFrameIterator as DataFrameIterator
    from asl_fast.generator.file_iterators import DirectoryIterator as DirectoryIterator
    from asl_fast.generator.image_data_generator import ImageDataGenerator as ImageDataGenerator
    from asl_fast.generator.iterators import NumpyArrayIterator as NumpyArrayIterator
    from asl_fast.generator.subset import subset as subset
    from asl_fast.inference.classifier import Classifier as Classifier
    from asl_fast.inference.classifier import Prediction as Prediction
    from asl_fast.inference.export import export as export
    from asl_fast.models.network import build_cnn as build_cnn
    from asl_fast.models.recipe import RECIPES as RECIPES
    from asl_fast.models.recipe import Recipe as Recipe
    from asl_fast.system.errors import DivergenceError as DivergenceError
    from asl_fast.system.errors import InputError as InputError
    from asl_fast.training.checkpoint import Checkpoints as Checkpoints
    from asl_fast.training.fit import fit as fit
    from asl_fast.training.memory import release_memory as release_memory
    from asl_fast.transforms.augment_options import AugmentOptions as AugmentOptions
    from asl_fast.transforms.random_augment import RandomAugment as RandomAugment
    from asl_fast.transforms.standardize import Standardize as Standardize

__version__ = "0.1.0"

# Where each public name lives. They are imported at first use: `import asl_fast` must not load
# TensorFlow, which takes seconds.
_HOMES = {
    "AugmentOptions": "transforms.augment_options",
    "Checkpoints": "training.checkpoint",
    "Classifier": "inference.classifier",
    "DataFrameIterator": "generator.file_iterators",
    "DirectoryIterator": "generator.file_iterators",
    "ImageDataGenerator": "generator.image_data_generator",
    "DivergenceError": "system.errors",
    "InputError": "system.errors",
    "NumpyArrayIterator": "generator.iterators",
    "Prediction": "inference.classifier",
    "RECIPES": "models.recipe",
    "RandomAugment": "transforms.random_augment",
    "Records": "data.records",
    "Recipe": "models.recipe",
    "Standardize": "transforms.standardize",
    "build_cnn": "models.network",
    "export": "inference.export",
    "fit": "training.fit",
    "load_csv": "data.dataset",
    "release_memory": "training.memory",
    "subset": "generator.subset",
}

# Programs that use one of these are about to compile.
_COMPILING = {"ImageDataGenerator", "RandomAugment", "Standardize", "build_cnn", "fit"}

__all__ = ["__version__", *_HOMES]


def _get(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _COMPILING:
        # TensorFlow takes the setting before its first operation alone.
        importlib.import_module(f"{__name__}.system.compile_cache").enable()
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


if not TYPE_CHECKING:  # type checkers would take any name for one of the package
    __getattr__ = _get


# Keras loads saved models only with layers that it was told of.
importlib.import_module(f"{__name__}.transforms.registration").register()


def __dir__() -> list[str]:
    return __all__

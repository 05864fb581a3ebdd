"""Trains the Sign Language MNIST CNN with the augmentation on the device, in the training step."""

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _COMPILING:
        # TensorFlow takes the setting before its first operation alone.
        importlib.import_module(f"{__name__}.system.compile_cache").enable()
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


# Keras loads saved models only with layers that it was told of.
importlib.import_module(f"{__name__}.transforms.registration").register()


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

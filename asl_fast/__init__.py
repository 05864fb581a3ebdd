"""Trains the Sign Language MNIST CNN with the augmentation on the device, in the training step."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives. They are imported at first use: `import asl_fast` must not load
# TensorFlow, which takes seconds.
_HOMES = {
    "AugmentOptions": "options",
    "Checkpoints": "checkpoint",
    "Classifier": "classifier",
    "DataFrameIterator": "files",
    "DirectoryIterator": "files",
    "ImageDataGenerator": "generator",
    "DivergenceError": "errors",
    "InputError": "errors",
    "NumpyArrayIterator": "iterators",
    "Prediction": "classifier",
    "RECIPES": "recipe",
    "RandomAugment": "augment",
    "Records": "records",
    "Recipe": "recipe",
    "Standardize": "standardize",
    "build_cnn": "network",
    "fit": "trainer",
    "load_csv": "dataset",
    "release_memory": "memory",
    "subset": "split",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

"""Registers the layers with Keras, which loads none that it was not told of, at no cost.

Importing the layers would load TensorFlow. So Keras gets stand-ins, which import a layer when a
saved model needs it, as soon as Keras itself is imported.
"""

import contextlib
import importlib
import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["PACKAGE", "register"]

PACKAGE = "asl_fast"  # before the class's name in saved models
_HOMES = {"RandomAugment": "random_augment", "Standardize": "standardize"}


def register() -> None:
    """Registers the layers now, or when Keras is imported."""
    if "keras" in sys.modules:
        _register(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _Finder())


class _StandIn:
    """Builds a layer that has not been imported; Keras asks no more of a class."""

    def __init__(self, name: str) -> None:
        self._name = name

    def from_config(self, config: dict[str, Any]) -> Any:
        module = importlib.import_module(f"{__package__}.{_HOMES[self._name]}")
        return getattr(module, self._name).from_config(config)


def _register(keras: ModuleType) -> None:
    with contextlib.suppress(AttributeError):  # a half imported Keras must not fail for us
        registered = keras.saving.get_custom_objects()
        for name in _HOMES:
            registered.setdefault(f"{PACKAGE}>{name}", _StandIn(name))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds Keras as the other finders do, and registers the layers after its import."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in finders)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _register(module)

            setattr(spec.loader, "exec_module", exec_module)  # noqa: B010
        return spec

"""Names that Keras, NumPy and TensorFlow no longer have, while a user's script runs."""

import contextlib
import importlib
import importlib.abc
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from typing import Any

from asl_fast.migration import old_spellings
from asl_fast.system.private_api import KERAS_ROOTS, TENSORFLOW_KERAS_2

__all__ = ["translated"]

_BELOW_KERAS = (
    *("applications", "backend", "callbacks", "constraints", "initializers", "layers", "losses"),
    *("metrics", "mixed_precision", "models", "optimizers", "preprocessing", "preprocessing.image"),
    *("preprocessing.sequence", "regularizers", "saving", "utils"),
)
_OTHERS = ("numpy", "tensorflow", "tensorflow.random", "tensorflow.train", "time")


@contextlib.contextmanager
def translated(note: Callable[[str], None], source: str) -> Iterator[None]:
    """Makes imports and attributes of old names give what they are today.

    Args:
        note: Called with one line about each.
        source: The script, which tells what is worth loading.
    """
    names = _Names(note)
    modules = [*_OTHERS, *KERAS_ROOTS]
    modules += [f"{root}.{module}" for root in KERAS_ROOTS for module in _BELOW_KERAS]
    if "matplotlib" in source:
        modules.append("matplotlib.cm")
    loaded = [importlib.import_module(name) for name in modules]
    before = [(module, vars(module).get("__getattr__")) for module in loaded]
    known = set(sys.modules)
    for module, name in zip(loaded, modules, strict=True):
        module.__getattr__ = names.attributes(module, name)  # type: ignore[method-assign]
    sys.meta_path.append(names)
    try:
        with names.instead_of(_unusable(source)):
            yield
    finally:
        sys.meta_path.remove(names)
        for module, original in before:
            if original is None:
                del module.__getattr__
            else:
                module.__getattr__ = original  # type: ignore[method-assign]
        for name in names.made & (set(sys.modules) - known):
            _forget(name)


def _unusable(source: str) -> list[str]:
    """Returns old modules that are there, but whose objects Keras 3 rejects."""
    paths = [f"{root}.optimizers.legacy" for root in KERAS_ROOTS]
    if TENSORFLOW_KERAS_2 in source:
        paths += [f"{TENSORFLOW_KERAS_2}.{n}" for n in old_spellings.REMNANTS if n.islower()]
    return paths


def _forget(name: str) -> None:
    module = sys.modules.pop(name)
    parent, _, child = name.rpartition(".")
    if vars(sys.modules.get(parent, module)).get(child) is module:
        delattr(sys.modules[parent], child)


class _Names(importlib.abc.Loader):
    """Finds old modules for `import`, and old attributes of today's modules."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self.made: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Claims old modules that no other finder has."""
        return ModuleSpec(name, self, is_package=True) if old_spellings.old_module(name) else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """Makes a module whose attributes are those of today's."""
        self.made.add(spec.name)
        old, today = old_spellings.old_module(spec.name) or ("", "")
        module = types.ModuleType(spec.name)
        module.__path__ = []

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            self._note(f"{old} is {today} today")
            return getattr(importlib.import_module(today), name)

        module.__getattr__ = attribute  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""

    def attributes(self, module: types.ModuleType, path: str) -> Callable[[str], Any]:
        """Returns a `__getattr__` for a module that knows old names too."""
        original = vars(module).get("__getattr__")
        path = path.replace(KERAS_ROOTS[-1], "tensorflow.keras")

        def attribute(name: str) -> Any:
            if not name.startswith("__") and not _asked_by_library():
                found = self._find(f"{path}.{name}")
                if found is not None:
                    return found
            if original is not None:
                return original(name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        return attribute

    def _find(self, path: str) -> Any:
        if path.partition("keras.")[2] in old_spellings.NO_OPS:
            self._note(f"{path} left out: TensorFlow 2 has no sessions")
            return lambda *arguments, **keywords: None
        moved = old_spellings.old_module(path)
        if moved is not None and moved[0] == path:
            return importlib.import_module(path)
        today = old_spellings.name_today(path)
        if today is None:
            return None
        with contextlib.suppress(AttributeError):
            found = pkgutil.resolve_name(today)
            self._note(f"{path} is {today.removeprefix('builtins.')} today")
            return found
        return None

    @contextlib.contextmanager
    def instead_of(self, paths: list[str]) -> Iterator[None]:
        """Puts today's modules in place of old ones that are there, but of no use."""
        packages = [importlib.import_module(path.rpartition(".")[0]) for path in paths]
        below = tuple(f"{path}." for path in paths)
        before = {n: m for n, m in sys.modules.items() if f"{n}.".startswith(below)}
        children = [path.rpartition(".")[2] for path in paths]
        attributes = [vars(p).get(child) for p, child in zip(packages, children, strict=True)]
        for path, package, child in zip(paths, packages, children, strict=True):
            sys.modules[path] = self.create_module(ModuleSpec(path, self))
            setattr(package, child, sys.modules[path])
        try:
            yield
        finally:
            for name in [n for n in sys.modules if f"{n}.".startswith(below)]:
                del sys.modules[name]
            sys.modules.update(before)
            for package, child, value in zip(packages, children, attributes, strict=True):
                if value is None:
                    delattr(package, child)
                else:
                    setattr(package, child, value)


def _asked_by_library() -> bool:
    """Returns whether an installed package asks, which knows what to do where a name is missing."""
    frame = sys._getframe(2)
    own = ("<frozen importlib", __file__)
    while frame is not None and frame.f_code.co_filename.startswith(own):
        frame = frame.f_back  # type: ignore[assignment]
    file = "" if frame is None else frame.f_code.co_filename
    return "site-packages" in file or "dist-packages" in file

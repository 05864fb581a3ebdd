"""Stand-ins for what only a notebook server or Colab has, while a user's notebook runs."""

import contextlib
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["display", "installed"]

_JUPYTER = ("IPython", "IPython.display", "IPython.core", "IPython.core.interactiveshell")
_COLAB = ("google.colab", "google.colab.patches")


class _Harmless:
    """Takes any call and attribute. Calls are named and do nothing."""

    def __init__(self, path: str, note: Callable[[str], None]) -> None:
        vars(self).update(_path=path, _note=note)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Harmless(f"{self._path}.{name}", self._note)

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if self._path == "get_ipython" or self._path.endswith("Application.instance"):
            return _Harmless(f"{self._path}()", self._note)
        given = ", ".join(map(repr, arguments))
        self._note(f"{self._path}({given if len(given) < 60 else '…'}) left out")
        return _Harmless(f"{self._path}(…)", self._note)

    def __contains__(self, item: Any) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __repr__(self) -> str:
        return self._path


def display(*values: Any, **options: Any) -> None:
    """Prints values, as the last of a notebook's cell is shown."""
    for value in values:
        print(value)


@contextlib.contextmanager
def installed(note: Callable[[str], None], source: str) -> Iterator[dict[str, Any]]:
    """Makes `IPython` and `google.colab` importable, and a kernel's shutdown harmless.

    Yields:
        The names that a notebook has without importing them.
    """
    get_ipython = _Harmless("get_ipython", note)
    names = {"display": display, "get_ipython": get_ipython}
    stand_ins: dict[str, Any] = {**names, "Application": _Harmless("IPython.Application", note)}
    changes: list[tuple[Any, str, Any]] = [(os, "kill", _spared(os.kill, note))]
    made: list[str] = []
    for modules in (_JUPYTER, _COLAB):
        if modules[0] not in source or (modules[0] in sys.modules and modules is _COLAB):
            continue
        if importlib.util.find_spec(modules[0].split(".")[0]) and _has(modules[0]):
            if modules is _JUPYTER:
                package = importlib.import_module("IPython")
                changes += [(package, name, value) for name, value in stand_ins.items()]
        else:
            made += [name for name in modules if _make(name, stand_ins, note)]
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield names
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        for name in made:
            sys.modules.pop(name, None)


def _has(module: str) -> bool:
    with contextlib.suppress(ImportError):
        return importlib.util.find_spec(module) is not None
    return False


def _make(name: str, known: dict[str, Any], note: Callable[[str], None]) -> bool:
    """Adds a module that has every name; returns False if there is one already."""
    if name in sys.modules:
        return False
    module = types.ModuleType(name)
    module.__path__ = []

    def attribute(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return known.get(attribute) or _Harmless(f"{name}.{attribute}", note)

    module.__getattr__ = attribute  # type: ignore[method-assign]
    sys.modules[name] = module
    return True


def _spared(kill: Callable[[int, int], None], note: Callable[[str], None]) -> Any:
    """Colab's way to restart its runtime is to kill its own process."""

    def kill_others(process: int, signal: int) -> None:
        if process == os.getpid():
            note("os.kill of this process left out")
        else:
            kill(process, signal)

    return kill_others

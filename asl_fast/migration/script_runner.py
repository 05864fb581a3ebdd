"""Runs a user's training script unchanged, with the fast generator in place of Keras's.

Calls that today's Keras rejects are translated, with one note per line, so that the user can update
the script.
"""

import contextlib
import functools
import inspect
import math
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import keras

from asl_fast.generator import file_iterators as files
from asl_fast.generator import image_data_generator as generator
from asl_fast.generator import iterators
from asl_fast.generator.keras_iterators import replace_keras_iterator
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import KERAS_GENERATOR_HOMES, KERAS_LOADER_HOMES
from asl_fast.training import fit as trainer

__all__ = ["run"]

_FAST = {
    "ImageDataGenerator": generator.ImageDataGenerator,
    "NumpyArrayIterator": iterators.NumpyArrayIterator,
    "DirectoryIterator": files.DirectoryIterator,
    "DataFrameIterator": files.DataFrameIterator,
    "Iterator": iterators.Iterator,
}
_WORKERS = ("max_queue_size", "workers", "use_multiprocessing")
# The order of the arguments that `…_generator` had in Keras 2.
_ARGUMENTS = {
    "fit": (
        *("x", "steps_per_epoch", "epochs", "verbose", "callbacks", "validation_data"),
        *("validation_steps", "validation_freq", "class_weight", *_WORKERS),
        *("shuffle", "initial_epoch"),
    ),
    "evaluate": ("x", "steps", "callbacks", *_WORKERS, "verbose"),
    "predict": ("x", "steps", "callbacks", *_WORKERS, "verbose"),
}
_MISSING = object()


def run(path: Path, arguments: Sequence[str], note: Callable[[str], None]) -> int:
    """Runs a script as `python path arguments…` would.

    Args:
        path: The script.
        arguments: The rest of `sys.argv`.
        note: Called with one line of text about each translated call.

    Returns:
        The script's exit code, or 1 after an exception, which is printed.

    Raises:
        InputError: The file does not exist.
    """
    if not path.is_file():
        raise InputError(f"There is no script {path}.")
    argv, search = sys.argv, sys.path[:]
    sys.argv, sys.path[0] = [str(path), *arguments], str(path.resolve().parent)
    try:
        with _Patches(_Notes(path, note)).applied():
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        traceback.print_exception(error.with_traceback(_trace_in_script(error, path)))
        return 1
    finally:
        sys.argv, sys.path[:] = argv, search
    return 0


def _trace_in_script(error: Exception, path: Path) -> Any:
    """Returns a traceback from the script's first frame on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    return trace or error.__traceback__


class _Notes:
    """Passes on notes about the script's lines, each once."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._name = str(path)
        self._note = note
        self._noted: set[str] = set()

    def __call__(self, text: str) -> None:
        frame = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self._name:
            frame = frame.f_back  # type: ignore[assignment]
        where = f"line {frame.f_lineno}: " if frame is not None else ""
        if where + text not in self._noted:
            self._noted.add(where + text)
            self._note(where + text)


class _Patches:
    """Replacements for parts of Keras while a script runs."""

    def __init__(self, note: _Notes) -> None:
        self._note = note
        self._fitting = False

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Applies them, and restores Keras at the end."""
        model, load = keras.Model, self._load(keras.models.load_model)
        changes: list[tuple[Any, str, Any]] = [
            (import_module(module), name, fast)
            for module in KERAS_GENERATOR_HOMES
            for name, fast in _FAST.items()
        ]
        changes += [(import_module(module), "load_model", load) for module in KERAS_LOADER_HOMES]
        changes += [
            (model, f"{name}_generator", self._generator_method(name)) for name in _ARGUMENTS
        ]
        changes += [
            (model, "fit", self._fit(model.fit)),
            (model, "evaluate", self._with_steps(model.evaluate)),
            (model, "predict", self._with_steps(model.predict)),
            (model, "save", self._save(model.save)),
            (iterators.Iterator, "next", self._next()),
        ]
        before = [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in changes]
        try:
            for owner, name, value in changes:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                if value is _MISSING:
                    delattr(owner, name)
                else:
                    setattr(owner, name, value)

    def _fit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def fit(model: keras.Model, *arguments: Any, **keywords: Any) -> Any:
            if self._fitting:
                return original(model, *arguments, **keywords)
            self._drop_workers(keywords)
            given = signature.bind(model, *arguments, **keywords).arguments
            del given["self"]
            for name in ("steps_per_epoch", "validation_steps"):
                self._round(given, name)
            x = given["x"] = replace_keras_iterator(given.get("x"))
            if not isinstance(x, iterators.Iterator):
                return original(model, **given)
            steps = given.get("steps_per_epoch")
            if steps is not None and steps < len(x):
                self._note(
                    f"steps_per_epoch={steps} is less than the {len(x)} batches of a pass; the "
                    "next epoch continues where this one ends"
                )
            self._fitting = True
            try:
                return trainer.fit(model, **given)
            finally:
                self._fitting = False

        return fit

    def _with_steps(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def method(model: keras.Model, *arguments: Any, **keywords: Any) -> Any:
            if not self._fitting:
                self._drop_workers(keywords)
                self._round(keywords, "steps")
            return original(model, *arguments, **keywords)

        return method

    def _save(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def save(model: keras.Model, filepath: Any, *arguments: Any, **keywords: Any) -> Any:
            if not self._fitting and not Path(filepath).suffix:
                self._note(f"model.save({str(filepath)!r}) saved as {str(filepath) + '.keras'!r}")
                filepath = f"{filepath}.keras"
            return original(model, filepath, *arguments, **keywords)

        return save

    def _load(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def load_model(filepath: Any, *arguments: Any, **keywords: Any) -> Any:
            other = f"{filepath}.keras"
            if not os.path.exists(filepath) and os.path.exists(other):
                self._note(f"load_model({str(filepath)!r}) loaded {other!r}")
                filepath = other
            return original(filepath, *arguments, **keywords)

        return load_model

    def _next(self) -> Callable[..., Any]:
        def next_batch(iterator: iterators.Iterator) -> Any:
            self._note(".next() is next(…) in today's Keras")
            return iterator.__next__()

        return next_batch

    def _generator_method(self, name: str) -> Callable[..., Any]:
        def method(model: keras.Model, *arguments: Any, **keywords: Any) -> Any:
            self._note(f"{name}_generator(…) is {name}(…) in today's Keras")
            keywords |= dict(zip(_ARGUMENTS[name], arguments, strict=False))
            if "generator" in keywords:
                keywords["x"] = keywords.pop("generator")
            return getattr(model, name)(**keywords)

        return method

    def _drop_workers(self, keywords: dict[str, Any]) -> None:
        for name in _WORKERS:
            if name in keywords:
                self._note(f"{name}={keywords.pop(name)!r} left out: it is gone from today's Keras")

    def _round(self, keywords: dict[str, Any], name: str) -> None:
        value = keywords.get(name)
        if isinstance(value, float):
            keywords[name] = math.ceil(value)
            self._note(f"{name}={value:.6g} taken as {keywords[name]}")

"""Calls that today's Keras rejects or ignores, translated while a user's script runs."""

import contextlib
import functools
import inspect
import math
import os
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import keras
import numpy as np

from asl_fast.generator import file_iterators as files
from asl_fast.generator import image_data_generator as generator
from asl_fast.generator import iterators
from asl_fast.generator.keras_iterators import replace_keras_iterator
from asl_fast.migration import old_spellings
from asl_fast.migration.old_spellings import Keyword
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import (
    KERAS_FUNCTIONAL,
    KERAS_GENERATOR,
    KERAS_GENERATOR_HOMES,
    KERAS_ROOTS,
)
from asl_fast.training import fit as trainer

__all__ = ["applied"]

_ITERATORS = {
    "NumpyArrayIterator": iterators.NumpyArrayIterator,
    "DirectoryIterator": files.DirectoryIterator,
    "DataFrameIterator": files.DataFrameIterator,
    "Iterator": iterators.Iterator,
}
_MISSING = object()
# Classes of these modules take old arguments.
_CLASSES = ("layers", "optimizers", "callbacks", "losses")

Function = Callable[..., Any]
Change = tuple[Any, str, Any]  # owner, attribute, its value while the script runs


@contextlib.contextmanager
def applied(note: Callable[[str], None], source: str) -> Iterator[None]:
    """Replaces parts of Keras, and restores them at the end.

    Args:
        note: Called with one line about each translation.
        source: The script, which tells what is worth loading.
    """
    changes = _Translations(note).changes("matplotlib" in source)
    before = [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


class _Replaced(type):
    """The class of Keras's iterators as a script sees them.

    Calls make this package's; subclasses that a script defines are Keras's own, untouched.
    """

    fast: Any
    original: Any

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        """Makes the replacement, or, from one as a base, a class of Keras's."""
        if not any(isinstance(base, _Replaced) for base in bases):
            return super().__new__(cls, name, bases, namespace)
        own = tuple(getattr(base, "original", base) for base in bases)
        return type(own[0])(name, own, namespace)

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        return cls.fast(*arguments, **keywords)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, (cls.fast, cls.original))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, (cls.fast, cls.original))


class _Logs(dict[str, Any]):
    """A history or logs that have "acc" where the script gave the metric as "accuracy"."""

    def __init__(self, values: dict[str, Any], note: Callable[[str], None]) -> None:
        super().__init__(values)
        self._note = note

    def __missing__(self, key: str) -> Any:
        today = old_spellings.metric_today(key)
        if today is None or today not in self:
            raise KeyError(key)
        self._note(f"{key!r} is {today!r} today")
        return self[today]

    def get(self, key: str, default: Any = None) -> Any:
        """Returns a value, by an old name too."""
        try:
            return self[key]
        except KeyError:
            return default

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class _Translations:
    """Replacements for functions of Keras."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._fitting = False
        self._renamed: dict[str, str] = {}  # files, as the script names them and as they are
        self._with_acc: weakref.WeakSet[Any] = weakref.WeakSet()  # models with a metric "acc"

    def changes(self, with_matplotlib: bool) -> list[Change]:
        """Returns what to replace."""
        changes = [*self._generator(), *self._classes(), *self._model_methods(), *self._functions()]
        if with_matplotlib:
            changes += self._matplotlib()
        return changes

    def _generator(self) -> Iterator[Change]:
        home = import_module(KERAS_GENERATOR)
        for name, fast in _ITERATORS.items():
            original = getattr(home, name)
            members = {"fast": fast, "original": original, "__module__": KERAS_GENERATOR}
            stand_in = _Replaced(name, (original,), members)
            yield from ((import_module(module), name, stand_in) for module in KERAS_GENERATOR_HOMES)
        fast_generator = generator.ImageDataGenerator
        for module in KERAS_GENERATOR_HOMES:
            yield import_module(module), "ImageDataGenerator", fast_generator
        rows = old_spellings.keywords_of("preprocessing.image.ImageDataGenerator")
        yield (
            fast_generator,
            "__init__",
            self._with_keywords(vars(fast_generator)["__init__"], rows),
        )
        yield iterators.Iterator, "next", self._next()

    def _classes(self) -> Iterator[Change]:
        done = {keras.callbacks.ModelCheckpoint}
        for module in _CLASSES:
            for name, owner in vars(getattr(keras, module)).items():
                rows = old_spellings.keywords_of(f"{module}.{name}")
                if isinstance(owner, type) and owner not in done and rows:
                    done.add(owner)
                    init = getattr(owner, "__init__")  # noqa: B009 - inherited too; mypy objects
                    yield owner, "__init__", self._with_keywords(init, rows)
        checkpoint = keras.callbacks.ModelCheckpoint
        yield checkpoint, "__init__", self._checkpoint(checkpoint.__init__)
        optimizer = keras.optimizers.Optimizer
        yield optimizer, "lr", property(self._learning_rate, _set_learning_rate)
        yield keras.Model, "__new__", self._model_new(keras.Model.__new__)
        functional, rows = resolve_name(KERAS_FUNCTIONAL), old_spellings.keywords_of("Model")
        yield functional, "__init__", self._with_keywords(functional.__init__, rows)

    def _model_methods(self) -> Iterator[Change]:
        model = keras.Model
        yield model, "compile", self._compile(model.compile)
        yield model, "fit", self._fit(model.fit)
        for name in ("evaluate", "predict"):
            yield model, name, self._with_steps(getattr(model, name), name)
        for old, today in old_spellings.METHODS.items():
            yield model, old, self._renamed_method(old, today)
        yield model, "predict_classes", self._predict_classes()
        for name in ("train_on_batch", "test_on_batch"):
            rows = old_spellings.keywords_of(f"Model.{name}")
            yield model, name, self._with_keywords(getattr(model, name), rows)
        yield model, "save", self._saving(model.save, "save", old_spellings.model_file)
        save = self._saving(model.save_weights, "save_weights", old_spellings.weights_file)
        yield model, "save_weights", save
        yield (
            model,
            "load_weights",
            self._loading(model.load_weights, old_spellings.weights_file),
        )

    def _functions(self) -> Iterator[Change]:
        load = self._loading(keras.models.load_model, old_spellings.model_file)
        save = self._saving(keras.models.save_model, "save_model", old_spellings.model_file)
        rows = old_spellings.keywords_of("utils.to_categorical")
        to_categorical = self._with_keywords(keras.utils.to_categorical, rows)
        for root in KERAS_ROOTS:
            for module in ("models", "saving"):
                yield import_module(f"{root}.{module}"), "load_model", load
                yield import_module(f"{root}.{module}"), "save_model", save
            yield import_module(f"{root}.utils"), "to_categorical", to_categorical
            layers = import_module(f"{root}.layers")
            yield layers, "Convolution2D", self._convolution
            backend = import_module(f"{root}.backend")
            yield backend, "set_image_dim_ordering", self._set_image_dim_ordering
            yield backend, "set_value", self._set_value

    def _matplotlib(self) -> Iterator[Change]:
        plots, style = import_module("matplotlib.pyplot"), import_module("matplotlib.style")
        rows = old_spellings.keywords_of("pyplot.grid")
        yield plots, "grid", self._with_keywords(plots.grid, rows)
        axes = import_module("matplotlib.axes").Axes
        yield axes, "grid", self._with_keywords(axes.grid, rows)
        yield style, "use", self._style(style.use)

    # Arguments

    def _with_keywords(self, original: Function, rows: dict[str, Keyword]) -> Function:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def translated(*arguments: Any, **keywords: Any) -> Any:
            if "decay" in keywords and "decay" in rows:  # it changes the learning rate
                given = signature.bind_partial(*arguments).arguments
                arguments, keywords = arguments[:1], dict(list(given.items())[1:]) | keywords
                self._decay(signature, keywords)
            self._translate(rows, keywords)
            return original(*arguments, **keywords)

        # Keras makes a layer's configuration from the signature.
        translated.__signature__ = signature  # type: ignore[attr-defined]
        return translated

    def _translate(self, rows: dict[str, Keyword], keywords: dict[str, Any]) -> None:
        for name in [name for name in keywords if name in rows]:
            row, value = rows[name], keywords[name]
            if row.none_alone and value is not None:
                continue
            del keywords[name]
            if row.new is None:
                self._note(f"{name}={value!r} left out: it is gone from today's Keras")
            else:
                today = dict(row.values).get(value, value) if isinstance(value, str) else value
                keywords.setdefault(row.new, today)
                if today is not value or row.new != name:
                    self._note(f"{name}={value!r} is {row.new}={today!r} today")

    def _decay(self, signature: inspect.Signature, keywords: dict[str, Any]) -> None:
        decay = keywords.pop("decay")
        if decay:
            rate = keywords.pop("lr", signature.parameters["learning_rate"].default)
            rate = keywords.get("learning_rate", rate)
            schedule = keras.optimizers.schedules.InverseTimeDecay(rate, 1, decay)
            keywords["learning_rate"] = schedule
            self._note(f"decay={decay} is learning_rate=InverseTimeDecay({rate}, 1, {decay}) today")

    def _learning_rate(self, optimizer: Any) -> Any:
        self._note("optimizer.lr is optimizer.learning_rate today")
        return optimizer.learning_rate

    def _model_new(self, original: Function) -> Function:
        rows = old_spellings.keywords_of("Model")

        @functools.wraps(original)
        def new(cls: type, *arguments: Any, **keywords: Any) -> Any:
            if cls is keras.Model:
                self._translate(rows, keywords)
            return original(cls, *arguments, **keywords)

        return new

    def _convolution(self, *arguments: Any, **keywords: Any) -> Any:
        if len(arguments) > 2 and all(isinstance(n, int) for n in arguments[:3]):
            filters, height, width, *rest = arguments
            self._note(f"Convolution2D({filters}, {height}, {width}) has kernel_size today")
            arguments = (filters, (height, width), *rest)
        for side in ("nb_row", "nb_col"):
            if side in keywords:
                keywords["kernel_size"] = (*keywords.get("kernel_size", ()), keywords.pop(side))
        return keras.layers.Conv2D(*arguments, **keywords)

    def _set_image_dim_ordering(self, ordering: str) -> None:
        today = {"th": "channels_first", "tf": "channels_last"}.get(ordering, ordering)
        self._note(
            f"set_image_dim_ordering({ordering!r}) is set_image_data_format({today!r}) today"
        )
        keras.backend.set_image_data_format(today)

    def _set_value(self, variable: Any, value: Any) -> None:
        self._note("backend.set_value(variable, value) is variable.assign(value) today")
        variable.assign(value)

    def _style(self, original: Function) -> Function:
        @functools.wraps(original)
        def use(style: Any) -> Any:
            styles = [style] if isinstance(style, str) else style
            if isinstance(styles, list | tuple):
                style = [self._style_today(name) for name in styles]
            return original(style)

        return use

    def _style_today(self, name: Any) -> Any:
        today = old_spellings.style_today(name) if isinstance(name, str) else None
        if today:
            self._note(f"the style {name!r} is {today!r} today")
        return today or name

    # Training

    def _compile(self, original: Function) -> Function:
        signature = inspect.signature(original)
        rows = old_spellings.keywords_of("Model.compile")

        @functools.wraps(original)
        def compile_model(model: Any, *arguments: Any, **keywords: Any) -> Any:
            self._translate(rows, keywords)
            bound = signature.bind(model, *arguments, **keywords)
            given = bound.arguments
            for name in ("metrics", "weighted_metrics"):
                if isinstance(given.get(name), str):
                    self._note(f"{name}={given[name]!r} is {name}=[{given[name]!r}] today")
                    given[name] = [given[name]]
            self._with_acc.discard(model)
            if "'acc'" in repr(given.get("metrics")):
                self._with_acc.add(model)
            return original(*bound.args, **bound.kwargs)

        return compile_model

    def _fit(self, original: Function) -> Function:
        signature = inspect.signature(original)
        rows = old_spellings.keywords_of("Model.fit")

        @functools.wraps(original)
        def fit(model: Any, *arguments: Any, **keywords: Any) -> Any:
            if self._fitting:
                return original(model, *arguments, **keywords)
            self._count_in_batches(keywords)
            self._translate(rows, keywords)
            given = signature.bind(model, *arguments, **keywords).arguments
            del given["self"]
            for name in ("epochs", "initial_epoch", "steps_per_epoch", "validation_steps"):
                self._round(given, name)
            self._old_metric_names(model, given.get("callbacks"))
            x = given["x"] = self._data(given, "steps_per_epoch")
            steps = given.get("steps_per_epoch")
            is_fast = isinstance(x, iterators.Iterator)
            if is_fast and steps is not None and steps < len(x):
                self._note(
                    f"steps_per_epoch={steps} is less than the {len(x)} batches of a pass; the "
                    "next epoch continues where this one ends"
                )
            self._fitting = True
            try:
                history = trainer.fit(model, **given) if is_fast else original(model, **given)
            finally:
                self._fitting = False
            if hasattr(history, "history"):
                history.history = _Logs(history.history, self._note)
            return history

        return fit

    def _data(self, given: dict[str, Any], steps: str) -> Any:
        """Returns `x` as today's Keras takes it; drops a batch size that it brings itself."""
        x = replace_keras_iterator(given.get("x"))
        if hasattr(x, "__next__") and not inspect.isgenerator(x) and not hasattr(x, "__len__"):
            if given.get(steps) is None:
                raise InputError(
                    f"{type(x).__name__} has no end, so {steps} must say how many batches to take "
                    "from it."
                )
            self._note(f"{type(x).__name__}(…) as data is a generator today")
            x = (batch for batch in given["x"])
        brings_batches = hasattr(x, "__next__") or isinstance(x, keras.utils.Sequence)
        if given.get("batch_size") is not None and brings_batches:
            self._note(f"batch_size={given.pop('batch_size')} left out: the data has its own")
        return x

    def _count_in_batches(self, keywords: dict[str, Any]) -> None:
        """Keras 1 counted the samples of an epoch."""
        for old, today, data in (
            ("samples_per_epoch", "steps_per_epoch", "x"),
            ("nb_val_samples", "validation_steps", "validation_data"),
        ):
            size = getattr(keywords.get(data), "batch_size", None)
            if old in keywords and size:
                samples = keywords.pop(old)
                keywords[today] = math.ceil(samples / size)
                self._note(f"{old}={samples} is {today}={keywords[today]} today")

    def _old_metric_names(self, model: Any, callbacks: Any) -> None:
        """Callbacks find "acc" where the metric is called "accuracy" today."""
        if model in self._with_acc:
            return
        listed = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
        for callback in filter(None, listed):
            monitor = getattr(callback, "monitor", None)
            today = old_spellings.metric_today(monitor) if isinstance(monitor, str) else None
            if today:
                self._note(f"monitor={monitor!r} is monitor={today!r} today")
                callback.monitor = today
            is_own = not type(callback).__module__.startswith("keras.")
            if is_own and "on_epoch_end" not in vars(callback):
                callback.on_epoch_end = self._on_epoch_end(callback.on_epoch_end)

    def _on_epoch_end(self, original: Function) -> Function:
        @functools.wraps(original)
        def on_epoch_end(epoch: int, logs: Any = None) -> Any:
            return original(epoch, _Logs(logs or {}, self._note))

        return on_epoch_end

    def _with_steps(self, original: Function, name: str) -> Function:
        signature = inspect.signature(original)
        rows = old_spellings.keywords_of(f"Model.{name}")

        @functools.wraps(original)
        def method(model: Any, *arguments: Any, **keywords: Any) -> Any:
            if self._fitting:
                return original(model, *arguments, **keywords)
            self._translate(rows, keywords)
            given = signature.bind(model, *arguments, **keywords)
            self._round(given.arguments, "steps")
            given.arguments["x"] = self._data(given.arguments, "steps")
            return original(*given.args, **given.kwargs)

        return method

    def _renamed_method(self, old: str, today: str) -> Function:
        def method(model: Any, *arguments: Any, **keywords: Any) -> Any:
            self._note(f"{old}(…) is {today}(…) in today's Keras")
            names = old_spellings.GENERATOR_ARGUMENTS[today] if old != "predict_proba" else ("x",)
            keywords |= dict(zip(names, arguments, strict=False))
            if "generator" in keywords:
                keywords["x"] = keywords.pop("generator")
            return getattr(model, today)(**keywords)

        return method

    def _predict_classes(self) -> Function:
        def predict_classes(model: Any, x: Any, *arguments: Any, **keywords: Any) -> Any:
            self._note("predict_classes(…) is predict(…).argmax(axis=-1) today, or > 0.5")
            scores = model.predict(x, *arguments, **keywords)
            return scores.argmax(-1) if scores.shape[-1] > 1 else (scores > 0.5).astype(np.int32)

        return predict_classes

    def _next(self) -> Function:
        def next_batch(iterator: iterators.Iterator) -> Any:
            self._note(".next() is next(…) in today's Keras")
            return iterator.__next__()

        return next_batch

    def _round(self, keywords: dict[str, Any], name: str) -> None:
        value = keywords.get(name)
        if isinstance(value, float | np.floating):
            keywords[name] = math.ceil(value)
            if keywords[name] != value:
                self._note(f"{name}={value:.6g} taken as {keywords[name]}")

    # Files

    def _checkpoint(self, original: Function) -> Function:
        signature = inspect.signature(original)
        rows = old_spellings.keywords_of("callbacks.ModelCheckpoint")
        del rows["period"]

        @functools.wraps(original)
        def init(callback: Any, *arguments: Any, **keywords: Any) -> None:
            period = keywords.pop("period", 1)
            self._translate(rows, keywords)
            bound = signature.bind(callback, *arguments, **keywords)
            given = bound.arguments
            path = os.fspath(given["filepath"])
            if given.get("save_weights_only"):
                today = old_spellings.weights_file(path)
            else:
                today = old_spellings.model_file(path, checkpoint=True)
            given["filepath"] = self._new_name("ModelCheckpoint", path, today)
            original(*bound.args, **bound.kwargs)
            if period != 1:
                self._note(f"period={period}: saved after every {period} epochs, as it was")
                callback.on_epoch_end = _every(period, callback.on_epoch_end)

        return init

    def _new_name(self, caller: str, path: str, today: str) -> str:
        if today != path:
            self._renamed[path] = today
            self._note(f"{caller}({path!r}) saved as {today!r}")
        return today

    def _saving(self, original: Function, name: str, today: Callable[[str], str]) -> Function:
        rows = old_spellings.keywords_of(f"Model.{name}")

        @functools.wraps(original)
        def save(*arguments: Any, **keywords: Any) -> Any:
            self._translate(rows, keywords)
            given = inspect.signature(original).bind(*arguments, **keywords)
            path = given.arguments.get("filepath")
            if isinstance(path, str | os.PathLike) and "://" not in str(path):
                shown = "model.save" if name == "save" else name
                path = self._new_name(shown, str(path), today(str(path)))
                given.arguments["filepath"] = path
                folder = Path(path).parent
                if not folder.exists():
                    self._note(f"the folder {str(folder)!r} did not exist; made")
                    folder.mkdir(parents=True)
            return original(*given.args, **given.kwargs)

        return save

    def _loading(self, original: Function, today: Callable[[str], str]) -> Function:
        @functools.wraps(original)
        def load(*arguments: Any, **keywords: Any) -> Any:
            given = inspect.signature(original).bind(*arguments, **keywords)
            path = given.arguments.get("filepath")
            if isinstance(path, str | os.PathLike):
                found = self._found(original.__name__, str(path), today)
                given.arguments["filepath"] = found
            return original(*given.args, **given.kwargs)

        return load

    def _found(self, caller: str, path: str, today: Callable[[str], str]) -> str:
        """Returns where a file lies: as this run saved it, or else as an earlier one did."""
        other = self._renamed.get(path, today(path))
        if path not in self._renamed and (os.path.exists(path) or not os.path.exists(other)):
            return path
        self._note(f"{caller}({path!r}) loaded {other!r}")
        return other


def _set_learning_rate(optimizer: Any, rate: Any) -> None:
    optimizer.learning_rate = rate


def _every(period: int, original: Function) -> Function:
    epochs = 0

    def on_epoch_end(epoch: int, logs: Any = None) -> None:
        nonlocal epochs
        epochs += 1
        if epochs % period == 0:
            original(epoch, logs)

    return on_epoch_end

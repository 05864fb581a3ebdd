"""What Keras's four classes take, argument by argument, and what ours do: both are run.

The walk is by the signatures of the installed classes, so a new argument without values to try is
an error.
"""

import functools
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
from keras.src.legacy.preprocessing import image as legacy

import asl_fast

__all__ = ["CLASSES", "VALUES", "Row", "members", "rows", "table"]

CLASSES = ("ImageDataGenerator", "NumpyArrayIterator", "DirectoryIterator", "DataFrameIterator")

_X = np.random.default_rng(0).integers(0, 255, (6, 8, 9, 3)).astype(np.float32)
_INTS = ["3", "np.int64(3)", "True", "0", "-1", "2.5", "'3'", "None"]
_RANGES = ["0.2", "20", "np.float32(5)", "True", "None", "-0.2", "(1, 2)", "[0.1, 0.3]", "'10'"]
_FLAGS = ["True", "1", "'yes'", "np.True_", "0", "''", "None"]
_SEEDS = ["0", "np.uint8(3)", "True", "None", "-1", "1.5", "'a'"]

# By argument what is tried, as Python writes it. `x` is images, `frame` a dataframe, `folder` one.
VALUES: dict[str, list[str]] = {
    **dict.fromkeys(
        ("rotation_range", "width_shift_range", "height_shift_range", "shear_range"), _RANGES
    ),
    "zoom_range": [*_RANGES, "(0.5, 1.5)", "(1, 2, 3)"],
    "channel_shift_range": _RANGES,
    "brightness_range": ["(0.5, 1.5)", "[0.2, 1]", "(np.float32(0.5), 2)", "0.5", "('a', 'b')"],
    **dict.fromkeys(
        (
            *("featurewise_center", "samplewise_center", "featurewise_std_normalization"),
            *("samplewise_std_normalization", "zca_whitening", "horizontal_flip", "vertical_flip"),
            *("shuffle", "ignore_class_split", "follow_links", "keep_aspect_ratio"),
            *("validate_filenames", "augment"),
        ),
        _FLAGS,
    ),
    "zca_epsilon": ["1e-3", "np.float32(0.1)", "0", "None"],
    "fill_mode": [repr(m) for m in ("nearest", "constant", "reflect", "wrap", "mirror")]
    + ["'grid-mirror'", "'grid-wrap'", "'grid-constant'", "'mirrored'", "None"],
    "cval": ["9", "np.float64(9)", "True", "'black'"],
    "rescale": ["1 / 255", "np.float32(2)", "0", "True", "None", "'1/255'", "np.ones(3)"],
    "preprocessing_function": ["np.negative", "lambda image: image[::-1]", "None", "'normalise'"],
    "data_format": ["'channels_last'", "None", "'NHWC'"],
    "validation_split": ["0.3", "np.float64(0.3)", "0", "None", "2", "'0.2'"],
    "interpolation_order": ["0", "3", "np.int64(2)", "True", "6", "'linear'"],
    "dtype": ["'float32'", "np.float64", "'uint8'", "int", "None", "'float33'"],
    "x": ["x", "x.astype(int)", "x > 99", "[x, np.arange(6)]", "x[0]", "None", "'images'"],
    "y": ["np.arange(6)", "list('abcdef')", "x", "None", "np.array([None] * 6)", "np.arange(5)"],
    "image_data_generator": ["g", "None"],
    "batch_size": _INTS,
    "sample_weight": ["np.ones(6)", "tuple(range(6))", "None", "[1]"],
    "seed": _SEEDS,
    "save_to_dir": ["folder", "Path(folder)", "''", "None", "'/nowhere/at all'"],
    "save_prefix": ["'sign'", "''", "3"],
    "save_format": ["'png'", "'JPEG'", "'nonsense'"],
    "subset": ["'training'", "'validation'", "None", "'test'"],
    "directory": ["folder", "Path(folder)", "'/nowhere/at all'", "None"],
    "target_size": ["(5, 4)", "[5, 4]", "np.array([5, 4])", "(np.int32(5), 4)", "(5.5, 4)", "8"],
    "color_mode": ["'rgb'", "'rgba'", "'grayscale'", "'grey'", "None"],
    "classes": ["['b', 'a']", "('a',)", "[]", "None", "['.']"],
    "class_mode": [repr(m) for m in ("categorical", "binary", "sparse", "input", "raw", "other")]
    + ["None", "'nonsense'"],
    "interpolation": [repr(m) for m in ("nearest", "bilinear", "bicubic", "lanczos", "box")]
    + ["'hamming'", "'cubic'"],
    "dataframe": ["frame", "frame[::-1]", "None", "dict(frame)"],
    "x_col": ["'filename'", "'missing'", "'size'"],
    "y_col": ["'class'", "'size'", "['class', 'size']", "'missing'"],
    "weight_col": ["'size'", "None", "'class'", "'missing'"],
    "img_shape": ["(8, 9, 3)", "[8, 9, 3]", "np.array([8, 9, 3])", "()", "None"],
    "transform_parameters": ["{'theta': 20, 'zx': 0.8}", "{}", "{'other': 1}", "None"],
    "rounds": _INTS,
    "idx": ["0", "1", "np.int64(1)", "True", "2", "-1", "'0'"],
    "df": ["frame"],
    "index_array": ["np.array([2, 0])", "[1, 1]", "np.array([], int)", "np.array([99])"],
    "kwargs": ["{'sort': True}", "{'typo': 1}"],
}


class Row(NamedTuple):
    """What came of an argument's values.

    Attributes:
        method: Str, class and method.
        argument: Str.
        alike: Values that both take, with the same result.
        refused: Values that both refuse, ours with an exception of Keras's type.
        differs: Texts on the others.
    """

    method: str
    argument: str
    alike: list[str]
    refused: list[str]
    differs: list[str]


def members(name: str) -> Iterator[tuple[str, str]]:
    """Yields the public methods of one of Keras's classes, each with an argument or ""."""
    owner = getattr(legacy, name)
    called = ["__init__", "__getitem__", "_get_batches_of_transformed_samples"]
    for member in [*(m for m in dir(owner) if not m.startswith("_")), *called]:
        method = getattr(owner, member, None)
        if not inspect.isfunction(method):
            continue
        arguments = [p for p in inspect.signature(method).parameters if p != "self"]
        for argument in arguments or [""]:
            yield member, argument


def rows() -> Iterator[Row]:
    """Runs both classes; yields a row for each argument that values are tried for."""
    with tempfile.TemporaryDirectory() as name:
        scene = _Scene(Path(name))
        for owner in CLASSES:
            for member, argument in members(owner):
                # Properties, and what only the constructor calls, are compared by its results.
                if argument and member != "set_processing_attrs":
                    yield _row(scene, owner, member, argument)


def _row(scene: "_Scene", owner: str, member: str, argument: str) -> Row:
    row = Row(f"{owner}.{member}", argument, [], [], [])
    for text in VALUES[argument]:
        theirs, mine = (
            _outcome(functools.partial(scene.call, own, owner, member, argument, text))
            for own in (False, True)
        )
        failed, refused = isinstance(theirs, Exception), isinstance(mine, Exception)
        if failed and refused:
            kind = next(c for c in type(theirs).__mro__ if c.__module__ == "builtins")
            same = isinstance(mine, kind)
            said = f"`{text}`: Keras {kind.__name__}, ours {type(mine).__name__}"
            (row.refused if same else row.differs).append(text if same else said)
        elif failed:
            row.differs.append(f"`{text}`: ours takes it, Keras {type(theirs).__name__}")
        elif refused:
            row.differs.append(f"`{text}`: refused by ours, “{str(mine)[:90]}”")
        elif _equal(mine, theirs):
            row.alike.append(text)
        else:
            row.differs.append(f"`{text}`: other values")
    return row


class _Scene:
    """The data that values are tried on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for number, image in enumerate(_X):
            (folder / "ab"[number % 2]).mkdir(exist_ok=True)
            keras.utils.save_img(folder / "ab"[number % 2] / f"{number}.png", image, scale=False)
        names = sorted(os.path.relpath(path, folder) for path in folder.rglob("*.png"))
        self.frame = pd.DataFrame(
            {"filename": names, "class": [n[0] for n in names], "size": np.arange(6.0)}
        )

    def call(self, own: bool, owner: str, member: str, argument: str, text: str) -> Any:
        """Calls a method of ours or of Keras's with one value; returns what shows its effect."""
        module: Any = asl_fast if own else legacy
        rng = {"rng": "keras"} if own else {}
        base = {"rotation_range": 20, "zoom_range": 0.1, "validation_split": 0.5}
        names = {"x": _X.copy(), "frame": self.frame, "folder": str(self.folder), "np": np}
        names |= {"Path": Path, "g": module.ImageDataGenerator(**base, **rng)}
        value = eval(text, names)
        given = {"kwargs": value} if argument == "kwargs" else {argument: value}
        if owner == "ImageDataGenerator":
            options = base | (given if member == "__init__" else {}) | rng
            generator = module.ImageDataGenerator(**options)
            if member == "__init__":
                return _shown(generator.flow(_X, np.arange(6), 4, seed=3))
            return self._on_generator(generator, member, given)
        arguments = self._arguments(owner, names["g"])
        if member == "__init__":
            if given.get("image_data_generator", 0) is None:
                given["shuffle"] = False  # without a generator ours has an order of its own
            return _shown(getattr(module, owner)(**arguments | given))
        iterator = getattr(module, owner)(**arguments)
        if member == "get_classes":
            given = {"y_col": "class", "df": self.frame} | given
        return getattr(iterator, member)(**given)

    def _on_generator(self, generator: Any, member: str, given: dict[str, Any]) -> Any:
        needed: dict[str, Any] = {}
        if member == "flow":
            needed = {"x": _X, "y": np.arange(6) % 2, "batch_size": 4, "seed": 1}
        elif member.startswith("flow_from"):
            needed = self._arguments(
                "DirectoryIterator" if "directory" in member else "DataFrameIterator", None
            )
            del needed["image_data_generator"]
        elif member in ("standardize", "apply_transform", "random_transform", "fit"):
            needed = {"x": _X.copy() if member == "fit" else _X[0].copy()}
            needed |= {"transform_parameters": {"theta": 9}} if member == "apply_transform" else {}
            needed |= {"augment": True, "seed": 1} if member == "fit" else {}
        elif member == "get_random_transform":
            needed = {"img_shape": (8, 9, 3)}
        needed |= {"seed": 1} if "seed" in needed or member.startswith(("random", "get")) else {}
        needed |= given.pop("kwargs", {}) | given
        if member == "fit":
            generator.featurewise_center = generator.featurewise_std_normalization = True
            generator.fit(**needed)
            return [generator.mean, generator.std]
        made = getattr(generator, member)(**needed)
        return _shown(made) if member.startswith("flow") else made

    def _arguments(self, owner: str, generator: Any) -> dict[str, Any]:
        shared: dict[str, Any] = {"image_data_generator": generator, "batch_size": 4, "seed": 1}
        if owner == "NumpyArrayIterator":
            return shared | {"x": _X, "y": np.arange(6) % 2}
        shared |= {"directory": str(self.folder), "target_size": (5, 4)}
        return shared | ({"dataframe": self.frame} if owner == "DataFrameIterator" else {})


def table() -> Iterator[str]:
    """Yields the lines of a table of `rows`."""
    yield "| method | argument | taken alike | refused alike | differs |"
    yield "| --- | --- | --- | --- | --- |"
    for row in rows():
        lists = (", ".join(f"`{text}`" for text in texts) for texts in (row.alike, row.refused))
        cells = (f"`{row.method}`", f"`{row.argument}`", *lists, "; ".join(row.differs))
        yield f"| {' | '.join(cells)} |"


def _shown(iterator: Any) -> list[Any]:
    return [next(iterator), next(iterator), iterator[0], len(iterator)]


def _outcome(call: Callable[[], Any]) -> Any:
    np.random.seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    except Exception as error:
        return error


def _equal(a: Any, b: Any) -> bool:
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in b)
    if isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool((a == b).all())
    # A unit in the last place may decide on which side of a jump brightness truncates.
    off = np.abs(a - b) > 1e-3 * max(1.0, np.abs(b).max(initial=0))
    return bool(off.mean() < 1e-3) if off.size else True

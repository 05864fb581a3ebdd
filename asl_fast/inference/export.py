"""Exports models to other runtimes; each file is compared with its model before it is kept."""

import contextlib
import dataclasses
import importlib.util
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.inference.target import Exportable, Run, Target
from asl_fast.inference.targets import TARGETS
from asl_fast.models import limits
from asl_fast.models.pixel_range import pixel_range, scale
from asl_fast.system import extras, storage
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import flatten_layers

__all__ = ["BOUND", "INT8_BOUND", "INT8_SAME", "Exported", "export"]

# How far a float32 file's outputs may differ from the model's on any image. The course's network,
# trained, differs by at most 1.4e-6 on 7,172 photographs and as many drawn hands.
BOUND = 1e-4
# For int8: the share of images with the model's best letter, and the difference. Two such networks,
# one of photographs and one of drawn hands, had 0.999 and 0.09, and 0.996 and 0.14.
INT8_SAME = 0.98
INT8_BOUND = 0.4

_OTHER_FLOATS = {"float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"}

_IMAGES = 1000
_VALUES = 2**26  # in all random images together, at most
_BATCH = 250
_TIMED = 200

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Exported:
    """A written file, and how it performed in its own runtime.

    Attributes:
        format: A name from `TARGETS`.
        precision: "float32", or "int8" for weights and activations; input and output are float32.
        path: The file, or the folder for formats that are one.
        runtime: The package that ran it, with its version.
        bytes: Size of the file, or of all files in the folder.
        images: Number of images it was compared on.
        difference: The largest absolute difference of an output from the model's.
        same: The share of images whose best letter is the model's.
        median_ms: Median milliseconds for one image, from NumPy array to NumPy array, on the CPU
            with the runtime's default number of threads.
        p95_ms: The 95th percentile of the same.
        runs: Number of images timed.
    """

    format: str
    precision: str
    path: str
    runtime: str
    bytes: int
    images: int
    difference: float
    same: float
    median_ms: float
    p95_ms: float
    runs: int


def export(
    model: keras.Model,
    out: str | Path,
    formats: str | Sequence[str] = "savedmodel",
    *,
    letters: Sequence[str] | None = None,
    images: np.ndarray | None = None,
    calibration: np.ndarray | None = None,
    int8: bool = False,
    force: bool = False,
    name: str = "model",
    pixels: str | None = None,
) -> list[Exported]:
    """Exports a model with Keras's converters. Either all files are put in place, or none.

    The files hold the model at inference, in float32 whatever its training precision; augmentation
    and dropout do nothing. Each takes a batch of any size as the input `images`.

    Args:
        model: Takes one tensor with a fixed shape per sample, and outputs (n, k).
        out: For one format the file, or the folder of a format that is one. For several formats,
            and if it lacks the file's ending, a folder for the files, created if needed.
        formats: Names from `TARGETS`, or "all" for those whose packages are installed.
        letters: The names of the k outputs in their order, stored in the files; None stores none.
        images: Images to compare on: uint8 (n, …), scaled as the model expects, or the model's
            inputs. Default: 1,000 random inputs in [0, 1], fewer if they are large.
        calibration: Like `images`: training images to calibrate int8 with.
        int8: Computes in int8 in the formats that can.
        force: Replaces existing files.
        name: Base name of the files in a folder.
        pixels: "0-1", "-1-1" or "0-255", the range of pixels that the model was trained on, to
            which uint8 images are scaled. None reads it from the model's file or graph; if neither
            tells, 0-1 is assumed with a warning. The files take the same range as the model.

    Returns:
        One `Exported` per format.

    Raises:
        InputError: An unknown format, a missing package, an existing file, a folder that can't be
            written to, a model that can't be converted or is random at inference, or a file whose
            outputs differ from the model's by more than `BOUND` (times the largest output, if that
            exceeds 1), or `INT8_BOUND` and `INT8_SAME`.
    """
    names = [formats] if isinstance(formats, str) else list(dict.fromkeys(formats))
    targets = _choose(names, int8)
    places = _places(Path(out), targets, name, int8, several=names == ["all"] or len(names) > 1)
    for target, place in zip(targets, places, strict=True):
        _check_place(place, target, force)
    shape, dtype = _input(model)
    if letters is not None and len(letters) != model.output_shape[-1]:
        raise InputError(
            f"The model has {model.output_shape[-1]} outputs, but {len(letters)} letters are given."
        )
    if int8 and calibration is None:
        raise InputError("int8 needs training images to calibrate with. Give calibration=.")
    labels = None if letters is None else "".join(f"{letter}\n" for letter in letters)
    if any(given is not None and given.dtype == np.uint8 for given in (images, calibration)):
        pixels = pixel_range(model, pixels)
    images = _random(shape, dtype) if images is None else _as_input(images, shape, dtype, pixels)
    samples = None if calibration is None else _as_input(calibration, shape, dtype, pixels)
    plain = _in_float32(model)
    rows = limits.batch_size(model, _BATCH)
    expected = _infer(plain, images, rows)
    signature = [tf.TensorSpec((None, *shape), dtype, name="images")]
    written = []
    with _output_folder(places[0].parent), contextlib.ExitStack() as stack:
        for target, place in zip(targets, places, strict=True):
            replacing = storage.replacing_folder if target.marker else storage.replacing
            aside = stack.enter_context(replacing(place))
            for_int8 = samples if int8 and target.int8 else None
            with _conversion_errors(target), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the converters' own; the outputs are compared
                target.write(Exportable(plain, signature, labels, for_int8), aside)
            measured = _compare(target, aside, images, expected, rows, for_int8 is not None)
            written.append(dataclasses.replace(measured, path=str(place)))
    return written


def _choose(formats: Sequence[str], int8: bool) -> list[Target]:
    if not formats or set(formats) - {*TARGETS, "all"}:
        raise InputError(
            f"The formats are {', '.join(TARGETS)} and all. Received: {', '.join(formats) or None}."
        )
    chosen = TARGETS if "all" in formats else formats
    missing = {name: packages for name in chosen if (packages := _missing(TARGETS[name]))}
    if missing:
        what = "; ".join(f"{name} needs {' and '.join(missing[name])}" for name in missing)
        how = f"Install the extra asl-fast[export] with: {extras.how_to_install('export')}"
        if "all" not in formats:
            raise InputError(f"Packages are missing: {what}. {how}")
        _log.warning("Left out: %s. %s", what, how)
    targets = [TARGETS[name] for name in chosen if name not in missing]
    if int8 and not any(target.int8 for target in targets):
        able = ", ".join(target.name for target in TARGETS.values() if target.int8)
        raise InputError(f"int8 is for the format {able}, which is not among those to export.")
    return targets


def _missing(target: Target) -> list[str]:
    return [name for name in target.packages if importlib.util.find_spec(_module(name)) is None]


def _module(package: str) -> str:
    return package.replace("-", "_")


def _places(
    out: Path, targets: Sequence[Target], name: str, int8: bool, several: bool
) -> list[Path]:
    """Returns the path of each target's file."""
    if not several and (targets[0].marker or out.suffix == targets[0].suffix):
        return [out]
    if out.suffix in (target.suffix for target in TARGETS.values()):
        raise InputError(
            f"{out} has the ending of another format than {' and '.join(t.name for t in targets)}. "
            "Give a folder, or one format and a file name with its ending."
        )
    middle = {target.name: ".int8" if int8 and target.int8 else "" for target in targets}
    return [out / f"{name}{middle[target.name]}{target.suffix}" for target in targets]


def _check_place(place: Path, target: Target, force: bool) -> None:
    """Allows an empty folder, and with `force` a model of the same format, but nothing else."""
    if not place.exists() or (target.marker and place.is_dir() and not any(place.iterdir())):
        return
    if not (place / target.marker if target.marker else place).is_file():
        raise InputError(f"{place} exists and is no {target.name} model. Give another --out.")
    if not force:
        raise InputError(
            f"{place} exists. Replace it with --force (force=True), or give another --out."
        )


def _input(model: keras.Model) -> tuple[tuple[int, ...], str]:
    """Returns the shape of one input and its dtype."""
    shapes: list[Any] = [getattr(model, name, None) for name in ("input_shape", "output_shape")]
    fixed = (
        isinstance(shape, tuple) and shape[0] is None and None not in shape[1:] for shape in shapes
    )
    if not all(fixed) or len(shapes[1]) != 2:
        raise InputError(
            f"The model takes {shapes[0]} and outputs {shapes[1]}. A model to export takes one "
            "tensor, (None, …) with all other sides fixed, and outputs (None, k)."
        )
    return shapes[0][1:], keras.backend.standardize_dtype(model.inputs[0].dtype)


def _as_input(
    images: np.ndarray, shape: tuple[int, ...], dtype: str, pixels: str | None
) -> np.ndarray:
    if images.shape[1:] != shape or not len(images):
        raise InputError(f"The images are {images.shape}; the model takes (n, {str(shape)[1:]}.")
    if "float" not in dtype:
        return np.asarray(images, dtype)
    floats = np.asarray(images, np.float32)
    return scale(floats, pixels) if pixels and images.dtype == np.uint8 else floats


def _random(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    count = min(_IMAGES, max(1, _VALUES // int(np.prod(shape))))
    random = np.random.default_rng(0)
    if "float" in dtype:
        return random.random((count, *shape), np.float32)
    return random.integers(0, 256, (count, *shape)).astype(dtype)


def _in_float32(model: keras.Model) -> keras.Model:
    """Returns the model if all its layers are float32, otherwise a float32 copy."""
    policies = [layer.dtype_policy for layer in flatten_layers(model, include_self=True)]
    if {policy.compute_dtype for policy in policies} == {"float32"}:
        return model
    copy = type(model).from_config(_with_float32(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def _with_float32(config: Any) -> Any:
    """Returns a Keras configuration with each floating dtype and policy replaced by float32."""
    if isinstance(config, dict):
        return {key: _with_float32(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_with_float32(value) for value in config)
    return "float32" if isinstance(config, str) and config in _OTHER_FLOATS else config


def _infer(model: keras.Model, images: np.ndarray, rows: int) -> np.ndarray:
    with tf.device("/CPU:0"):  # a GPU's TF32 would differ by more than the bound
        first, second = (
            _in_batches(lambda batch: np.asarray(model(batch, training=False)), images, rows)
            for _ in range(2)
        )
    if not np.array_equal(first, second):
        raise InputError(
            "The model's outputs differ from one call to the next: one of its layers is random at "
            "inference. Remove that layer."
        )
    return first


@contextlib.contextmanager
def _output_folder(folder: Path) -> Iterator[None]:
    """Creates a folder, and removes it again if it is new and the block fails."""
    new = not folder.exists()
    storage.make_folder(folder)
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def _conversion_errors(target: Target) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the converters and runtimes raise exceptions of every kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise InputError(
            f"The model can't be exported as {target.name}: {reason} (--verbose shows all.)"
        ) from error


def _compare(
    target: Target, path: Path, images: np.ndarray, expected: np.ndarray, rows: int, int8: bool
) -> Exported:
    """Runs a file in its runtime, in batches and one by one, and compares the outputs."""
    with _conversion_errors(target):
        run = target.load(path)
        outputs = _in_batches(run, images, rows)
        singles, seconds = _one_by_one(run, images)
    difference = max(
        float(np.abs(actual - expected[: len(actual)]).max()) for actual in (outputs, singles)
    )
    same = float(np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1)))
    bound = (INT8_BOUND if int8 else BOUND) * max(1.0, float(np.abs(expected).max()))
    # `not <=`, so that NaN counts as a difference.
    if not difference <= bound or (int8 and same < INT8_SAME):
        least = f" and {INT8_SAME:.0%}" if int8 else ""
        raise InputError(
            f"The outputs in {target.name} differ from the model's, so nothing was written: on "
            f"{len(images):,} images by up to {difference:.2g}, and {same:.1%} have the same "
            f"letter. Allowed are {bound:.2g}{least}."
        )
    runtime = target.packages[-1]
    # From the module, as the distribution may be another one, such as onnxruntime-gpu.
    version = importlib.import_module(_module(runtime)).__version__.partition("-")[0]
    files = path.rglob("*") if target.marker else [path]
    return Exported(
        format=target.name,
        precision="int8" if int8 else "float32",
        path=str(path),
        runtime=f"{runtime} {version}",
        bytes=sum(file.stat().st_size for file in files if file.is_file()),
        images=len(images),
        difference=difference,
        same=same,
        median_ms=float(np.median(seconds)) * 1e3,
        p95_ms=float(np.percentile(seconds, 95)) * 1e3,
        runs=len(seconds),
    )


def _in_batches(run: Run, images: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate(
        [run(images[start : start + rows]) for start in range(0, len(images), rows)]
    )


def _one_by_one(run: Run, images: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Returns the outputs of up to `_TIMED` images, and the seconds that each took."""
    run(images[:1])  # the runtime prepares for the shape
    outputs, seconds = [], []
    for row in range(min(_TIMED, len(images))):
        begin = time.perf_counter()
        outputs.append(run(images[row : row + 1]))
        seconds.append(time.perf_counter() - begin)
    return np.concatenate(outputs), seconds

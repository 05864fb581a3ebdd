"""Models in the formats of other runtimes, each compared there with the model before it is kept."""

import contextlib
import dataclasses
import importlib.util
import itertools
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.models.network import pixel_divisor
from asl_fast.system import storage
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import flatten_layers

__all__ = ["BOUND", "FORMATS", "INT8_BOUND", "INT8_SAME", "Exported", "export"]

# From a format to the end of its files' names.
FORMATS = {"savedmodel": ".savedmodel", "litert": ".tflite", "onnx": ".onnx"}

# What a float32 file's probabilities may differ from the model's by, for any image: the course's
# network, trained, differs by 1.4e-6 at most over 7,172 photographs and as many drawn hands.
BOUND = 1e-4
# And one of int8: the share of images whose best letter is the model's, and the difference. Two
# such networks, one of photographs and one of drawn hands: 0.999 and 0.09, 0.996 and 0.14.
INT8_SAME = 0.98
INT8_BOUND = 0.4

LABELS = "labels.txt"

_OTHER_FLOATS = {"float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"}

_IMAGES = 1000
_VALUES = 2**26  # of all random images together, at most
_BATCH = 250
_TIMED = 200
_CALIBRATION = 200

# What the extra `export` brings, by format.
_NEEDED = {"savedmodel": [], "litert": ["ai_edge_litert"], "onnx": ["tf2onnx", "onnxruntime"]}

Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was written, and how it did in its own runtime.

    Attributes:
        format: "savedmodel", "litert" or "onnx".
        precision: "float32", or "int8" for weights and activations; input and output are float32.
        path: The file, or the folder of a SavedModel.
        runtime: The package that ran it, with its version.
        bytes: Of the file, or of all files in the folder.
        images: How many it was compared on.
        difference: The largest one of any output from the model's.
        same: The share of images whose best letter is the model's.
        median_ms: Milliseconds for a single image from NumPy array to NumPy array, on the CPU with
            the threads that the runtime takes by itself; the median of `runs`.
        p95_ms: The 95th percentile of them.
        runs: How many.
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
    out: Path,
    formats: Sequence[str] = ("savedmodel",),
    *,
    letters: Sequence[str] | None = None,
    images: np.ndarray | None = None,
    calibration: np.ndarray | None = None,
    int8: bool = False,
    force: bool = False,
    name: str = "model",
) -> list[Exported]:
    """Exports a model by Keras's own converters; all files appear at the end, or none.

    What is exported is the model as it infers, in float32 whatever it was trained in. Augmentation
    and dropout do nothing then, and a model that gives another output at its second call is
    refused. Every file takes a batch of any size under the input name `images`, and holds the
    letters, a line each: a SavedModel in `assets.extra/labels.txt`, ONNX in its metadata as
    `letters`, LiteRT as `labels.txt` in the zip archive that is appended to it.

    Args:
        model: Takes one tensor of a fixed shape behind the batch and gives one of rank 2.
        out: For a single format the file, or the SavedModel's folder. For several, and where it
            does not end in the format's `.tflite` or `.onnx`, a folder for them; made if need be.
        formats: Of `FORMATS`, or "all".
        letters: What the outputs stand for, in their order, or None.
        images: What to compare on: uint8 (n, …), divided by `network.pixel_divisor` for a model
            that takes floats, or what the model takes. By default 1,000 random ones in [0, 1]
            (fewer of large ones).
        calibration: As `images`: what `int8` is calibrated with, at most 200 of them, which must be
            of the kind that the model was trained on.
        int8: Whether the LiteRT file shall compute in int8.
        force: Whether to replace what is there.
        name: Of the files in a folder, without the ending.

    Returns:
        What was written, in the order of `formats`.

    Raises:
        InputError: An unknown format, a package that is not installed, something in the way, a
            folder that can't be written to, a model that can't be converted or is random, or a file
            whose outputs differ from the model's by more than `BOUND` (times the largest output,
            where that is above 1), or `INT8_BOUND` and `INT8_SAME`.
    """
    places = _places(out, _checked(formats, int8), name, int8)
    for kind, place in places.items():
        _check_place(place, kind, force)
    shape, dtype = _input(model)
    if letters is not None and len(letters) != model.output_shape[-1]:
        raise InputError(
            f"The model gives {model.output_shape[-1]} outputs; {len(letters)} letters were given."
        )
    if int8 and calibration is None:
        raise InputError("int8 needs images to be calibrated with.")
    divisor = np.float32(pixel_divisor(model))
    images = _random(shape, dtype) if images is None else _as_input(images, shape, dtype, divisor)
    samples = None if calibration is None else _as_input(calibration, shape, dtype, divisor)
    plain = _in_float32(model)
    with tf.device("/CPU:0"):  # a GPU's TF32 would differ by more than the bound
        expected, again = (
            _outputs(lambda batch: np.asarray(plain(batch, training=False)), images)
            for _ in range(2)
        )
    if not np.array_equal(expected, again):
        raise InputError(
            "The model gives other outputs at its second call: a layer of it is random at "
            "inference, too. Take it out."
        )
    with _made(next(iter(places.values())).parent), contextlib.ExitStack() as stack:
        written = []
        for kind, place in places.items():
            whole = storage.replacing_folder if kind == "savedmodel" else storage.replacing
            aside = stack.enter_context(whole(place))
            for_int8 = samples if int8 and kind == "litert" else None
            done = _export(plain, kind, aside, letters, images, expected, for_int8)
            written.append(dataclasses.replace(done, path=str(place)))
        return written


def _checked(formats: Sequence[str], int8: bool) -> list[str]:
    chosen = list(FORMATS) if "all" in formats else list(dict.fromkeys(formats))
    for kind in chosen:
        if kind not in FORMATS:
            raise InputError(
                f"There is no format {kind!r}; there are {', '.join(FORMATS)} and all."
            )
    if not chosen:
        raise InputError(f"Give a format: {', '.join(FORMATS)} or all.")
    if int8 and "litert" not in chosen:
        raise InputError("int8 is for the format litert, which was not asked for.")
    missing = [
        package
        for kind in chosen
        for package in _NEEDED[kind]
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        raise InputError(
            f"Exporting to {', '.join(chosen)} needs {' and '.join(missing)}. "
            "Install with: pip install 'asl-fast[export]'"
        )
    return chosen


def _places(out: Path, formats: list[str], name: str, int8: bool) -> dict[str, Path]:
    """Returns where each format's file goes."""
    (first, *others) = formats
    if not others and (first == "savedmodel" or out.suffix == FORMATS[first]):
        return {first: out}
    if out.suffix in FORMATS.values():
        raise InputError(
            f"{out} ends as a file of another format than {' and '.join(formats)}. Give a folder, "
            "or one format and a name that ends as its files do."
        )
    inner = {kind: ".int8" if int8 and kind == "litert" else "" for kind in formats}
    return {kind: out / f"{name}{inner[kind]}{FORMATS[kind]}" for kind in formats}


def _check_place(place: Path, kind: str, force: bool) -> None:
    if not place.exists() or (kind == "savedmodel" and place.is_dir() and not any(place.iterdir())):
        return
    # Never a folder with something else in it.
    ours = (place / "saved_model.pb").is_file() if kind == "savedmodel" else place.is_file()
    if not ours:
        raise InputError(f"{place} is there and no {kind} model. Give another --out.")
    if not force:
        raise InputError(f"{place} is there. Replace it with --force, or give another --out.")


def _input(model: keras.Model) -> tuple[tuple[int, ...], str]:
    """Returns the shape of one image and the dtype that the model takes."""
    taken: Any = getattr(model, "input_shape", None)
    given: Any = getattr(model, "output_shape", None)
    for shape in (taken, given):
        if not isinstance(shape, tuple) or shape[0] is not None or None in shape[1:]:
            break
    else:
        if len(given) == 2:
            return taken[1:], keras.backend.standardize_dtype(model.inputs[0].dtype)
    raise InputError(
        f"The model takes {taken} and gives {given}; what is exported takes one tensor of a fixed "
        "shape, for batches of any size, and gives one of rank 2."
    )


def _as_input(
    images: np.ndarray, shape: tuple[int, ...], dtype: str, divisor: np.float32
) -> np.ndarray:
    if images.shape[1:] != shape or not len(images):
        raise InputError(f"The images are {images.shape}; the model takes (n, {str(shape)[1:]}.")
    if images.dtype == np.uint8 and dtype.startswith(("float", "bfloat")):
        return images / divisor
    return np.asarray(images, np.float32 if "float" in dtype else dtype)


def _random(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    count = min(_IMAGES, max(1, _VALUES // int(np.prod(shape))))
    random = np.random.default_rng(0)
    if "float" in dtype:
        return random.random((count, *shape), np.float32)
    return random.integers(0, 256, (count, *shape)).astype(dtype)


def _in_float32(model: keras.Model) -> keras.Model:
    """Returns the model with layers and weights in float32, itself where they are."""
    policies = [layer.dtype_policy for layer in flatten_layers(model, include_self=True)]
    if {policy.compute_dtype for policy in policies} == {"float32"}:
        return model
    return _copy(model)


def _copy(model: keras.Model) -> keras.Model:
    """Returns a copy in float32."""
    copy = type(model).from_config(_with_float32(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def _with_float32(config: Any) -> Any:
    """Returns a Keras configuration with every other floating dtype or policy made float32."""
    if isinstance(config, dict):
        return {key: _with_float32(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_with_float32(value) for value in config)
    return "float32" if isinstance(config, str) and config in _OTHER_FLOATS else config


def _equalized(model: keras.Model) -> keras.Model:
    """Returns a model that computes the same, and of which int8 loses less.

    In int8 all channels of a layer's output have one scale, so channels that vary little come out
    in a few steps, and the batch normalisation above multiplies the error. Here each channel is
    divided by its deviation below already, in the weights; a ReLU lets that pass (Nagel et al.
    2019, "Data-Free Quantization Through Weight Equalization and Bias Correction"). Only for
    `Sequential` models; others stay as they are.
    """
    if not isinstance(model, keras.Sequential):
        return model
    copy = _copy(model)
    layers = [layer for layer in copy.layers if not isinstance(layer, keras.layers.Dropout)]
    passing = (keras.activations.relu, keras.activations.linear)
    for below, above in itertools.pairwise(layers):
        if (
            isinstance(below, (keras.layers.Conv2D, keras.layers.Dense))
            and below.activation in passing
            and isinstance(above, keras.layers.BatchNormalization)
            and above.axis == -1
        ):
            factors = 1 / keras.ops.sqrt(above.moving_variance + above.epsilon)
            below.kernel.assign(below.kernel * factors)
            if below.use_bias:
                below.bias.assign(below.bias * factors)
            above.moving_mean.assign(above.moving_mean * factors)
            above.moving_variance.assign(keras.ops.full_like(factors, 1 - above.epsilon))
    return copy


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder; if the block fails, one that was not there before is removed again."""
    new = not folder.exists()
    storage.make_folder(folder)
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _export(
    model: keras.Model,
    kind: str,
    path: Path,
    letters: Sequence[str] | None,
    images: np.ndarray,
    expected: np.ndarray,
    samples: np.ndarray | None,
) -> Exported:
    """Writes one file and compares it; `samples` make it int8."""
    try:
        _convert(model, kind, path, samples)
        if letters is not None:
            _add_letters(kind, path, letters)
        run, runtime = _RUNTIMES[kind](path)
        outputs = _outputs(run, images)
        singles, seconds = _time(run, images)
    except Exception as error:  # the converters and runtimes raise of every kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise InputError(
            f"The model can't be exported as {kind}: {reason} (--verbose shows all.)"
        ) from error
    difference = max(
        float(np.abs(found - expected[: len(found)]).max()) for found in (outputs, singles)
    )
    same = float(np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1)))
    bound = (BOUND if samples is None else INT8_BOUND) * max(1.0, float(np.abs(expected).max()))
    # `not <=`, as NaN is no agreement.
    if not difference <= bound or (samples is not None and same < INT8_SAME):
        least = "" if samples is None else f" and {INT8_SAME:.0%}"
        raise InputError(
            f"As {kind} the model comes to other outputs, so nothing was written: on "
            f"{len(images):,} images they differ by up to {difference:.2g}, and {same:.1%} have "
            f"the same letter. Allowed are {bound:.2g}{least}."
        )
    files = path.rglob("*") if path.is_dir() else [path]
    return Exported(
        format=kind,
        precision="float32" if samples is None else "int8",
        path=str(path),
        runtime=runtime,
        bytes=sum(file.stat().st_size for file in files if file.is_file()),
        images=len(images),
        difference=difference,
        same=same,
        median_ms=float(np.median(seconds)) * 1e3,
        p95_ms=float(np.percentile(seconds, 95)) * 1e3,
        runs=len(seconds),
    )


def _convert(model: keras.Model, kind: str, path: Path, samples: np.ndarray | None) -> None:
    shape, dtype = _input(model)
    signature = [tf.TensorSpec((None, *shape), dtype, name="images")]
    options: dict[str, Any] = {}
    if kind == "litert":
        # LiteRT by itself has no other kernels; Keras would let TensorFlow's in.
        built_in = tf.lite.OpsSet.TFLITE_BUILTINS
        if samples is not None:
            built_in = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            chosen = np.linspace(0, len(samples) - 1, min(_CALIBRATION, len(samples)), dtype=int)
            model = _equalized(model)
            options["optimizations"] = [tf.lite.Optimize.DEFAULT]
            options["representative_dataset"] = lambda: ([samples[[i]]] for i in chosen)
        options["target_spec"] = {"supported_ops": [built_in]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converters' own ways; the outputs are compared
        model.export(
            path,
            format="tf_saved_model" if kind == "savedmodel" else kind,
            verbose=False,
            input_signature=signature,
            **options,
        )


def _add_letters(kind: str, path: Path, letters: Sequence[str]) -> None:
    text = "".join(f"{letter}\n" for letter in letters)
    if kind == "savedmodel":
        folder = path / "assets.extra"  # which TensorFlow keeps for its users
        folder.mkdir()
        (folder / LABELS).write_text(text, encoding="utf-8")
    elif kind == "onnx":
        import onnx

        written = onnx.load(path)
        onnx.helper.set_model_props(written, {"letters": text})
        onnx.save(written, path)
    else:
        # As TensorFlow Lite's metadata has it: a zip archive behind the model, which the runtime
        # does not read and any unzip does.
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(LABELS, text)


def _run_savedmodel(path: Path) -> tuple[Run, str]:
    with tf.device("/CPU:0"):
        loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def run(images: np.ndarray) -> np.ndarray:
        with tf.device("/CPU:0"):
            (output,) = serve(images=tf.constant(images)).values()
            return output.numpy()

    run.loaded = loaded  # type: ignore[attr-defined]  # TensorFlow frees what nobody holds
    return run, f"tensorflow {tf.__version__}"


def _run_litert(path: Path) -> tuple[Run, str]:
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner()

    def run(images: np.ndarray) -> np.ndarray:
        (output,) = runner(images=images).values()
        return output

    return run, f"ai-edge-litert {ai_edge_litert.__version__}"


def _run_onnx(path: Path) -> tuple[Run, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return (
        lambda images: session.run(None, {"images": images})[0],
        f"onnxruntime {onnxruntime.__version__}",
    )


_RUNTIMES: dict[str, Callable[[Path], tuple[Run, str]]] = {
    "savedmodel": _run_savedmodel,
    "litert": _run_litert,
    "onnx": _run_onnx,
}


def _outputs(run: Run, images: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [run(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    )


def _time(run: Run, images: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Runs images one by one; returns their outputs and the seconds that each took."""
    run(images[:1])  # prepares for the shape
    outputs, seconds = [], []
    for place in range(min(_TIMED, len(images))):
        begin = time.perf_counter()
        outputs.append(run(images[place : place + 1]))
        seconds.append(time.perf_counter() - begin)
    return np.concatenate(outputs), seconds

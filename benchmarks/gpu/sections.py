"""The report's sections: each function returns by name what it measures, the most valuable first.

`python -m benchmarks.gpu.sections SECTION --out FOLDER` measures one of them.
"""

import csv
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator

import asl_fast
from asl_fast.data import dataset as datasets
from asl_fast.models.recipe import RECIPES
from asl_fast.system import device
from asl_fast.training import diagnosis, run
from asl_fast.training.clock import TrainingClock
from benchmarks.contenders.rivals import labelled_layers
from benchmarks.contenders.work import COURSE, Work
from benchmarks.gpu.figures import Items, Request, main, spread
from benchmarks.groups.training import course_model


def _data(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Returns training images, uint8, and one-hot labels; few of them if `small`.

    Saves them as arrays too, for the program that does without TensorFlow.
    """
    path = request.out / "train.npz"
    if not path.exists():
        split = datasets.load(request.data).train
        rows = 2048 if request.small else None
        np.savez(path, images=np.asarray(split.images)[:rows], labels=split.labels[:rows])
    with np.load(path) as arrays:
        return arrays["images"], np.eye(24, dtype=np.float32)[arrays["labels"]]


def _preprocessing(augmented: bool = True) -> dict[str, Any]:
    options = dataclasses.asdict(RECIPES["course"].augment)
    augment = asl_fast.RandomAugment(**options, dtype="float32") if augmented else None
    rescale = asl_fast.Standardize(rescale=1 / 255, dtype="float32")
    return {"augment": augment, "standardize": rescale}


def _timed(fit: Callable[..., Any], rows: int, batch: int, epochs: int) -> dict[str, Any]:
    """Trains, and times the epochs after the first, which traces and compiles."""
    clock = TrainingClock()
    fit(epochs=epochs, callbacks=[clock], verbose=0)
    first, *others = clock.seconds
    steps = -(-rows // batch)
    measured = spread([1e3 * seconds / steps for seconds in others], "ms_a_step")
    rate = 1e3 * rows / steps / measured["ms_a_step"]
    return {**measured, "images_a_second": rate, "first_epoch_s": first}


def machine(request: Request) -> Items:
    """Versions, and what `asl-fast doctor` finds."""

    def doctor() -> dict[str, Any]:
        diagnosed = diagnosis.diagnose(RECIPES["course"], len(_data(request)[0]))
        choices = {name: diagnosed[name] for name in ("precision", "jit", "resident")}
        return {
            "device": diagnosed["device"],
            "cpu": diagnosed["cpu"],
            **{name: f"{chosen['value']}, {chosen['why']}" for name, chosen in choices.items()},
            "operations_without_a_GPU_kernel": len(diagnosed["operations"]["found"]),
            "bottleneck": diagnosed["bottleneck"],
            "doctor": diagnosed,
        }

    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    return {"imports": lambda: {"seconds": request.elapsed(), **versions}, "doctor": doctor}


def step(request: Request) -> Items:
    """The configurations of the training step that tell most."""
    bfloat16 = "mixed_bfloat16"
    return _steps(request, (32, bfloat16), (2048, bfloat16), (2048, bfloat16, "not augmented"),
                  (128, bfloat16, "recipe fast"))  # fmt: skip


def more_steps(request: Request) -> Items:
    """All others."""
    bfloat16 = "mixed_bfloat16"
    return _steps(request, (32, bfloat16, "not augmented"), (128, bfloat16), (512, bfloat16),
                  (32, "float32"), (2048, "float32"), (32, bfloat16, "streamed"),
                  (2048, bfloat16, "streamed"), (128, "float32"),
                  (512, "float32"))  # fmt: skip


def _steps(request: Request, *configurations: tuple[Any, ...]) -> Items:
    images, labels = _data(request)

    def measure(batch: int, dtype: str, variant: str = "") -> dict[str, Any]:
        times = 8 if batch > 128 and not request.small else 1  # or an epoch has too few steps
        x, y = np.tile(images, (times, 1, 1, 1)), np.tile(labels, (times, 1))
        fit = partial(
            asl_fast.fit,
            course_model(dtype=dtype, recipe="fast" if variant == "recipe fast" else "course"),
            x,
            y,
            **_preprocessing(variant != "not augmented"),
            batch_size=batch,
            resident=variant != "streamed",
            jit="auto",
        )
        return _timed(fit, len(x), batch, 2 if request.small else 5)

    chosen = configurations[:1] if request.small else configurations
    return {", ".join(map(str, one)): partial(measure, *one) for one in chosen}


def keras_fit(request: Request) -> Items:
    """Keras's `fit` in float32 with each way to augment, and our flow in both `fit`s."""
    images, labels = _data(request)
    scaled = images / np.float32(255)
    arrays = {"x": scaled, "y": labels, "batch_size": 32}
    few = 16 if request.small else 300
    cores = len(os.sched_getaffinity(0))

    def generator(workers: int, processes: bool) -> dict[str, Any]:
        flow = KerasGenerator(**COURSE).flow(scaled, labels, batch_size=32)
        flow.workers, flow.use_multiprocessing, flow.max_queue_size = workers, processes, 64
        return _timed(partial(course_model().fit, flow, steps_per_epoch=few), few * 32, 32, 2)

    def whole(fit: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        epochs = 2 if request.small else 3
        return _timed(partial(fit, *arguments, **options), len(images), 32, epochs)

    def layers_in_dataset() -> dict[str, Any]:
        return whole(course_model().fit, labelled_layers(scaled, labels, 32), shuffle=False)

    def layers_in_model() -> dict[str, Any]:
        return whole(course_model(*Work().layers(keras.layers)).fit, **arrays)

    flow = asl_fast.ImageDataGenerator(**COURSE).flow(scaled, labels, batch_size=32)
    return {
        "the generator, as in the course": lambda: generator(1, False),
        "Keras's layers in tf.data": layers_in_dataset,
        "Keras's layers in the model": layers_in_model,
        "our flow": lambda: whole(course_model().fit, flow),
        "our flow in our fit": lambda: whole(asl_fast.fit, course_model(), flow, jit="auto"),
        "no augmentation": lambda: whole(course_model().fit, **arrays),
        f"the generator, {cores} threads": lambda: generator(cores, False),
        f"the generator, {cores} processes": lambda: generator(cores, True),
    }


def recipes(request: Request) -> Items:
    """`asl-fast train` as a user runs it, cold, and with XLA's cache of programs."""

    def train(recipe: str, **environment: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            command = [sys.executable, "-m", "asl_fast", "train", "--recipe", recipe]
            command += ["--out", str(out), *(["--epochs", "1"] if request.small else [])]
            command += ["--data", str(request.data)] if request.data else []
            begin = time.perf_counter()
            ended = subprocess.run(
                command, env={**os.environ, **environment}, capture_output=True, text=True
            )
            seconds = time.perf_counter() - begin
            if ended.returncode:
                raise RuntimeError(f"exit code {ended.returncode}: {ended.stderr[-400:]}")
            metrics = json.loads((out / "metrics.json").read_text())
            with (out / "history.csv").open() as file:
                epochs = [float(row["train_seconds"]) for row in csv.DictReader(file)]
        return {
            "seconds": seconds,
            "first_epoch_s": epochs[0],
            "other_epochs_s": sum(epochs[1:]),
            "epochs": len(epochs),
            "val_accuracy": metrics["val_accuracy"],
            "precision": metrics["precision"],
        }

    items: Items = {"fast": partial(train, "fast")}
    if request.small:
        return items
    if device.accelerator():
        flag = f"--tf_xla_persistent_cache_directory={tempfile.mkdtemp()}"
        items["fast, XLA's cache empty"] = partial(train, "fast", TF_XLA_FLAGS=flag)
        items["fast, XLA's cache warm"] = partial(train, "fast", TF_XLA_FLAGS=flag)
    return items | {recipe: partial(train, recipe) for recipe in ("best", "course")}


def layer(request: Request) -> Items:
    """Our layer beside Keras's, one by one and in a row, with the memory that each takes."""
    names = ("Keras's rotation", "Keras's zoom", "Keras's translation", "Keras's flip")
    rivals = dict(zip(names, Work().layers(keras.layers), strict=True))
    ours = asl_fast.RandomAugment(**COURSE, dtype="float32")
    rows: dict[str, tuple[str, list[keras.layers.Layer]]] = {
        "ours, all four": ("float32", [ours]),
        "ours, all four, uint8": ("uint8", [ours]),
        "Keras's four in a row": ("float32", list(rivals.values())),
        **{name: ("float32", [rival]) for name, rival in rivals.items()},
    }

    def measure(shape: tuple[int, ...], dtype: str, chain: list[Any]) -> dict[str, Any]:
        images = tf.constant(np.random.default_rng(0).integers(0, 256, shape).astype(dtype))

        @tf.function
        def apply(images: tf.Tensor) -> tf.Tensor:
            for one in chain:
                images = one(images, training=True)
            return images

        def run(calls: int) -> float:
            begin = time.perf_counter()
            for _ in range(calls):
                result = apply(images)
            np.asarray(result[0, 0, 0])  # waits for the device
            return 1e3 * (time.perf_counter() - begin) / calls

        run(2)  # traces and compiles
        if device.accelerator():
            tf.config.experimental.reset_memory_stats("GPU:0")
            before = _memory()["mib"]
            run(1)
            peak = {"peak_mib": _memory()["peak_mib"] - before}
        else:
            peak = {}
        return spread([run(1 if request.small else 30) for _ in range(7)]) | peak

    shapes = ((8, 64, 64, 3),) if request.small else ((64, 224, 224, 3), (32, 512, 512, 3))
    return {
        f"{'×'.join(map(str, shape))}, {name}": partial(measure, shape, *row)
        for shape in shapes
        for name, row in rows.items()
    }


def _memory() -> dict[str, float]:
    info = tf.config.experimental.get_memory_info("GPU:0")
    return {"mib": info["current"] / 2**20, "peak_mib": info["peak"] / 2**20}


def pixels(request: Request) -> Items:
    """The layer on this device against Keras's generator, in shares of the pixel range."""
    from benchmarks.conformance import CASES, compare

    def measure(options: dict[str, Any]) -> dict[str, Any]:
        result = compare(options, (31, 17, 3), "float32", 40)
        return {"largest": result.largest, "mean": result.mean, "images": result.images}

    # The cases with every interpolation and fill mode stand last.
    cases = CASES[::-1][:2] if request.small else CASES[::-1]
    return {str(options): partial(measure, options) for options in cases}


def repeats(request: Request) -> Items:
    """Whether a second run with the same seed ends with the same weights."""
    data = datasets.load(request.data)

    def twice(**options: Any) -> dict[str, Any]:
        weights, seconds = [], []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "run"
                metrics = run.train(data, out, changes={"epochs": 1}, verbose=0, **options)
                model = keras.saving.load_model(out / "model.keras")
            weights.append(np.concatenate([values.ravel() for values in model.get_weights()]))
            seconds.append(metrics["train_seconds"])
        return {
            "equal": str(np.array_equal(*weights)),
            "largest_difference": float(np.abs(weights[0] - weights[1]).max()),
            "first_s": seconds[0],
            "second_s": seconds[1],
        }

    # In this order: deterministic operations stay on for the rest of the process.
    return {"by default": twice, "--deterministic": partial(twice, deterministic=True)}


def memory(request: Request) -> Items:
    """GPU memory that stays in use after `fit`, and after `release_memory`."""
    images, labels = _data(request)
    model = course_model(dtype="mixed_bfloat16")

    def after(call: Callable[[], Any]) -> dict[str, float]:
        call()
        return _memory()

    fit = partial(asl_fast.fit, model, images, labels, batch_size=512, verbose=0, jit="auto")
    fits: Items = {f"after fit {number}": partial(after, fit) for number in (1, 2, 3)}
    return {"before": _memory, **fits, "released": partial(after, asl_fast.release_memory)}


class _Profiler(keras.callbacks.Callback):
    """Profiles the third epoch."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            tf.profiler.experimental.start(self._folder)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            tf.profiler.experimental.stop()


def profile(request: Request) -> Items:
    """What the GPU runs in a step, by TensorFlow's profiler."""
    images, labels = _data(request)

    def measure(batch: int, recipe: str) -> dict[str, Any]:
        steps = min(64 if batch <= 128 else 8, len(images) // batch)
        rows = steps * batch
        with tempfile.TemporaryDirectory() as folder:
            asl_fast.fit(
                course_model(dtype="mixed_bfloat16", recipe=recipe),
                images[:rows],
                labels[:rows],
                **_preprocessing(),
                batch_size=batch,
                epochs=3,
                callbacks=[_Profiler(folder)],
                verbose=0,
                jit="auto",
            )
            (path,) = Path(folder).glob("**/*.xplane.pb")
            return kernels(path.read_bytes(), steps)

    configurations = ((32, "course"), (2048, "course"), (128, "fast"))
    return {f"{one[0]}, recipe {one[1]}": partial(measure, *one) for one in configurations}


def kernels(profiled: bytes, steps: int) -> dict[str, Any]:
    """Sums up the kernels, copies and fills of the GPU's streams in a serialised XSpace.

    Returns:
        Launches and busy milliseconds a step; and under "kernels" those that took longest, each
        with its name, milliseconds and launches a step.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    seconds, launches = Counter[str](), Counter[str]()
    for plane in xplane_pb2.XSpace.FromString(profiled).planes:
        for line in plane.lines if "GPU" in plane.name else ():
            for event in line.events if line.name.startswith("Stream") else ():
                name = plane.event_metadata[event.metadata_id].name[:120]
                seconds[name] += event.duration_ps / 1e12
                launches[name] += 1
    return {
        "launches_a_step": launches.total() / steps,
        "busy_ms_a_step": 1e3 * seconds.total() / steps,
        "kernels": [
            (name, 1e3 * total / steps, launches[name] / steps)
            for name, total in seconds.most_common(40)
        ],
    }


SECTIONS: dict[str, Callable[[Request], Items]] = {
    "machine": machine,
    "step": step,
    "more_steps": more_steps,
    "keras_fit": keras_fit,
    "recipes": recipes,
    "layer": layer,
    "pixels": pixels,
    "repeats": repeats,
    "memory": memory,
    "profile": profile,
}

if __name__ == "__main__":
    main(SECTIONS)

"""How this machine would train a model, and what slows it down."""

import dataclasses
import platform
import re
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.models.network import build_cnn
from asl_fast.models.optimizer import build_optimizer
from asl_fast.models.recipe import Recipe
from asl_fast.system import compile_cache, device, private_api, storage
from asl_fast.system.errors import InputError
from asl_fast.training import memory, precision, readiness
from asl_fast.training.fit import traced
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize import Standardize

__all__ = ["TURNS", "diagnose", "microseconds_an_image"]

TURNS = 7  # repetitions of a measurement, after the one that compiles

_DRIVER = Path("/proc/driver/nvidia/version")


def diagnose(
    recipe: Recipe,
    rows: int,
    model: keras.Model | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Examines how this machine would train a model, and times a few steps.

    Args:
        recipe: Batch size, optimizer and augmentation count.
        rows: Int, images of the training set.
        model: From images to classes; None for the course's network.
        progress: Called with the name of each stage; all take some ten seconds.

    Returns:
        What `asl-fast doctor` shows, for JSON.

    Raises:
        InputError: The model takes no images, or gives no classes.
    """
    model = build_cnn() if model is None else model
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise InputError(
            f"The model's input must be (None, height, width, channels). Received: {shape}."
        )
    if not isinstance(model.output_shape, tuple) or len(model.output_shape) != 2:
        raise InputError(
            f"The model's output must be (None, classes). Received: {model.output_shape}."
        )

    if device.accelerator() is None and precision.has_bfloat16():
        progress("Measuring bfloat16")
        precision.measure()
    chosen = precision.choose()
    jit = device.choose_jit("auto", model)
    size = rows * (int(np.prod(shape[1:])) + 4 * model.output_shape[1])
    too_large = memory.too_large(size)
    progress("Checking every operation of the training step")
    _compiled(model, recipe)
    # Without a GPU, what "auto" chooses on current ones.
    policy = chosen.value if device.accelerator() else "mixed_bfloat16"
    operations = _operations(model, recipe, policy)
    progress("Timing a few steps")
    seconds = microseconds_an_image(model, recipe)
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("asl-fast", "tensorflow", "keras")},
            "cuda of TensorFlow": tf.sysconfig.get_build_info().get("cuda_version"),
        },
        "device": device.describe(),
        "cpu": device.cpu()[0],
        "gpus": [
            {name: str(value) for name, value in details.items()}
            for details in device.gpu_details()
        ],
        "driver": _driver(),
        "memory": device.memory(),
        "precision": chosen._asdict(),
        "jit": jit._asdict(),
        "resident": {
            "value": too_large is None,
            "why": too_large or f"the data take {memory.megabytes(size)}",
        },
        "operations": operations,
        "memory_needed": _needed(model, recipe, size, chosen.value),
        "cache": _cached(),
        "compile_cache": {
            "folder": str(compile_cache.folder()),
            "bytes": compile_cache.size(),
            "off": compile_cache.reason_off(),
        },
        "microseconds_an_image": seconds,
        "bottleneck": _bottleneck(seconds),
    }


def _compiled(model: keras.Model, recipe: Recipe) -> keras.Model:
    model.compile(
        optimizer=build_optimizer(recipe, steps=1000),  # any number would do
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def _data(model: keras.Model, rows: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows, *model.input_shape[1:]), np.uint8)
    classes = model.output_shape[1]
    return images, np.eye(classes, dtype=np.float32)[random.integers(0, classes, rows)]


def _layers(recipe: Recipe) -> tuple[RandomAugment, Standardize]:
    augment = RandomAugment(**dataclasses.asdict(recipe.augment), dtype="float32")
    return augment, Standardize(rescale=1 / 255, dtype="float32")


def _operations(model: keras.Model, recipe: Recipe, policy: str) -> dict[str, Any]:
    """Returns the faults of the training step on a GPU, compiled by XLA if possible."""
    if not tf.test.is_built_with_cuda():
        return {
            "checked": False,
            "why": "this TensorFlow is built without NVIDIA GPUs",
            "found": [],
        }
    layers = private_api.flatten_layers(model, include_self=True)
    augment, standardize = _layers(recipe)
    function = traced(
        model,
        *_data(model, recipe.batch_size + 1),
        batch_size=recipe.batch_size,
        augment=augment,
        standardize=standardize,
        precision=policy,
        jit=all(layer.supports_jit for layer in layers),
    )
    findings = readiness.inspect(function)
    return {
        "checked": True,
        "why": f"{policy}, against the kernels for NVIDIA GPUs in this TensorFlow",
        "found": [finding._asdict() for finding in findings if finding.reason is None],
    }


def microseconds_an_image(model: keras.Model, recipe: Recipe) -> dict[str, float]:
    """Times the parts of a training step separately on this device.

    Args:
        model: From images to classes. Compiling and training changes it.
        recipe: Batch size, optimizer and augmentation count.

    Returns:
        Medians of `TURNS` steps, in µs: of the `augmentation` and of the `network`.
    """
    _compiled(model, recipe)
    images, labels = _data(model, recipe.batch_size)
    augment, standardize = _layers(recipe)
    stored, y = tf.constant(images), tf.constant(labels)
    x = standardize(augment(stored, training=True))
    stages: dict[str, Callable[[], Any]] = {
        "augmentation": lambda: augment(stored, training=True),
        "network": lambda: model.train_on_batch(x, y),
    }
    medians = {}
    for name, stage in stages.items():
        times = []
        for _ in range(TURNS + 1):
            begin = time.perf_counter()
            for tensor in tf.nest.flatten(stage()):
                np.asarray(tensor)
            times.append(time.perf_counter() - begin)
        medians[name] = round(float(np.median(times[1:])) / recipe.batch_size * 1e6, 1)
    return medians


def _bottleneck(microseconds: dict[str, float]) -> str:
    name, most = max(microseconds.items(), key=lambda item: item[1])
    return f"the {name}: {most / sum(microseconds.values()):.0%} of a step"


def _needed(model: keras.Model, recipe: Recipe, data: int, policy: str) -> dict[str, int]:
    """Returns an estimate of the device memory that training takes, in bytes by use."""
    width = 4 if policy == "float32" else 2
    outputs = [layer.output.shape for layer in model.layers if hasattr(layer, "output")]
    values = sum(int(np.prod([n or 1 for n in shape[1:]])) for shape in outputs)
    weights = 4 * sum(int(np.prod(weight.shape)) for weight in model.weights)
    return {
        "data": data,
        # Themselves, their gradients, and the optimizer's two values per weight.
        "weights": 4 * weights,
        # Stored for the backward pass, and their gradients.
        "activations": 2 * width * values * recipe.batch_size,
    }


def _driver() -> str | None:
    try:
        version = re.search(r"Module\s+([\d.]+)", _DRIVER.read_text())
    except OSError:
        return None
    return version[1] if version else None


def _cached() -> dict[str, Any]:
    folder = storage.cache_folder()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return {"folder": str(folder), "bytes": sum(path.stat().st_size for path in files)}

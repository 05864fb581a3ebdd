"""The device at hand: what it is, what it holds, and whether XLA suits it."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.client import device_lib

# Only switching it on has a public name.
from tensorflow.python.framework.config import is_op_determinism_enabled

__all__ = [
    "Choice",
    "accelerator",
    "choose_jit",
    "cpu",
    "describe",
    "gpu_details",
    "memory",
]


def _allow_growth() -> None:
    """Lets TensorFlow take GPU memory as it needs it, not all of it at once."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow uses it already
            return


# TensorFlow takes the setting before it first uses a GPU only: at import, or it is too late.
if os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", "true").lower() != "false":
    _allow_growth()


class Choice(NamedTuple):
    """What was chosen, and why, in words for the user."""

    value: Any
    why: str


def gpu_details() -> list[dict[str, Any]]:
    """Returns what TensorFlow knows of each GPU: `device_name`, `compute_capability`."""
    devices = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(device) for device in devices]


def accelerator() -> str | None:
    """Returns TensorFlow's name of the GPU that trains, or None where the CPU does."""
    return "/GPU:0" if tf.config.list_physical_devices("GPU") else None


def cpu() -> tuple[str, frozenset[str]]:
    """Returns the CPU's name and its features, as Linux gives them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "", frozenset()
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    found = {name.strip(): value.strip() for name, value in found.items()}
    return found.get("model name", ""), frozenset(found.get("flags", "").split())


def describe() -> str:
    """Returns the device in words, as "CPU, 8 cores" or "GPU, NVIDIA A100, 2 of them"."""
    gpus = gpu_details()
    if not gpus:
        # Not every system tells how many of its cores this process may use.
        mine = getattr(os, "sched_getaffinity", None)
        return f"CPU, {len(mine(0)) if mine else os.cpu_count()} cores"
    name = gpus[0].get("device_name", "unknown")
    return f"GPU, {name}" + (f", {len(gpus)} of them" if len(gpus) > 1 else "")


def memory() -> int:
    """Returns the bytes that TensorFlow may use of the device that trains.

    This starts TensorFlow's use of the GPU, if there is one.
    """
    if accelerator() is None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = [found for found in device_lib.list_local_devices() if found.device_type == "GPU"]
    return gpus[0].memory_limit


def choose_jit(requested: str = "auto", model: keras.Model | None = None) -> Choice:
    """Returns whether XLA compiles the whole training step, and why.

    Args:
        requested: "on", "off", or "auto": on where there is a GPU and the model can be compiled.
            XLA's convolutions for CPUs are several times slower than TensorFlow's own. The
            augmentation is compiled on both.
        model: The model to train, or None.
    """
    if requested != "auto":
        return Choice(requested == "on", "as asked for")
    layers = model._flatten_layers() if model is not None else []
    hindering = sorted({type(layer).__name__ for layer in layers if not layer.supports_jit})
    if hindering:
        return Choice(False, f"`{hindering[0]}` in your model has supports_jit=False")
    if not gpu_details():
        return Choice(False, "XLA's convolutions are slow on CPUs; the augmentation is compiled")
    if is_op_determinism_enabled():
        return Choice(False, "TensorFlow's deterministic operations are on")
    return Choice(True, "the step is one program on the GPU")

"""The device: its kind, its memory, and whether XLA suits it."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from asl_fast.system import private_api

__all__ = ["Choice", "accelerator", "choose_jit", "cpu", "describe", "gpu_details", "memory"]


def _allow_growth() -> None:
    """Lets TensorFlow take GPU memory as it needs it, not all of it at once."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow uses it already
            return


# At import, as TensorFlow accepts the setting only before it first uses a GPU.
if os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", "true").lower() != "false":
    _allow_growth()


class Choice(NamedTuple):
    """A choice, and the reason in words for the user."""

    value: Any
    why: str


def gpu_details() -> list[dict[str, Any]]:
    """Returns TensorFlow's details of each GPU: `device_name`, `compute_capability`."""
    devices = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(device) for device in devices]


def accelerator() -> str | None:
    """Returns TensorFlow's name of the GPU to train on, or None for the CPU."""
    return "/GPU:0" if tf.config.list_physical_devices("GPU") else None


def cpu() -> tuple[str, frozenset[str]]:
    """Returns the CPU's name and its features, as Linux gives them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "", frozenset()
    # The first core's lines come last, and win.
    pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
    core = {name.strip(): value.strip() for name, value in pairs}
    return core.get("model name", ""), frozenset(core.get("flags", "").split())


def describe() -> str:
    """Returns the device for people to read: "CPU, 8 cores" or "GPU, NVIDIA A100, 2 of them"."""
    gpus = gpu_details()
    if not gpus:
        # Only Linux tells how many cores this process may use.
        affinity = getattr(os, "sched_getaffinity", None)
        return f"CPU, {len(affinity(0)) if affinity else os.cpu_count()} cores"
    name = gpus[0].get("device_name", "unknown")
    return f"GPU, {name}" + (f", {len(gpus)} of them" if len(gpus) > 1 else "")


def memory() -> int:
    """Returns how many bytes of the training device's memory TensorFlow may use.

    If there is a GPU, this makes TensorFlow initialise it.
    """
    if accelerator() is None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    devices = private_api.list_local_devices()
    return next(one.memory_limit for one in devices if one.device_type == "GPU")


def choose_jit(requested: str = "auto", model: keras.Model | None = None) -> Choice:
    """Returns whether XLA compiles the whole training step, and why.

    Args:
        requested: "on", "off", or "auto": on where there is a GPU and the model can be compiled.
            On CPUs XLA's convolutions are several times slower than TensorFlow's own; the
            augmentation is compiled in either case.
        model: The model to train, or None.
    """
    if requested != "auto":
        return Choice(requested == "on", "as asked for")
    layers = [] if model is None else private_api.flatten_layers(model, include_self=True)
    unsupported = sorted({type(layer).__name__ for layer in layers if not layer.supports_jit})
    if unsupported:
        return Choice(False, f"`{unsupported[0]}` in your model has supports_jit=False")
    if not gpu_details():
        return Choice(False, "XLA's convolutions are slow on CPUs; the augmentation is compiled")
    if private_api.is_op_determinism_enabled():
        return Choice(False, "TensorFlow's deterministic operations are on")
    return Choice(True, "the step is one program on the GPU")

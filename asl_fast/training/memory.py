"""Memory: how much of the device's the data may take, and releasing it."""

import ctypes
import gc
import itertools
import sys
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data.pipeline import each
from asl_fast.system import device

__all__ = [
    "RESIDENT_SHARE",
    "collect_now_and_then",
    "megabytes",
    "on_device",
    "release_memory",
    "too_large",
]

# Share of the device's memory for resident data: the rest is for network and activations.
RESIDENT_SHARE = 0.5

# Collecting takes a fifth of a second; a training leaves a few MiB.
_COLLECTED = 5
_trainings = itertools.count(1)


def megabytes(size: int) -> str:
    """Formats a number of bytes, as "21.5 MB"."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def too_large(size: int) -> str | None:
    """Returns why data of this size in bytes should not stay on the device; None if they may."""
    room = device.memory()
    if size <= RESIDENT_SHARE * room:
        return None
    return (
        f"the data take {megabytes(size)}, more than {RESIDENT_SHARE:.0%} of the device's "
        f"{megabytes(room)}"
    )


def on_device(tensors: Any) -> Any:
    """Returns a structure of tensors on the device that trains.

    On a CPU they are there already. TensorFlow keeps 32-bit integers on the host whatever the
    device, so these become int64.
    """

    def put(tensor: tf.Tensor) -> tf.Tensor:
        return tf.identity(tf.cast(tensor, tf.int64) if tensor.dtype == tf.int32 else tensor)

    name = device.accelerator()
    if name is None:
        return tensors
    with tf.device(name):
        return each(put, tensors)


def collect_now_and_then() -> None:
    """Collects garbage at every few trainings, whose graphs are knots that Python rarely unties."""
    if next(_trainings) % _COLLECTED == 0:
        gc.collect()


def release_memory() -> None:
    """Releases the memory of earlier models, data and compiled programs; for notebooks.

    Clears Keras's global state, collects garbage, and returns the C library's free memory to the
    system. Models and arrays that a variable still names stay, and so does the compiled
    augmentation: XLA would keep its memory, and compiling it again would take as much once more.
    """
    keras.backend.clear_session(free_memory=True)
    gc.collect()
    if sys.platform == "linux":
        # The C library otherwise keeps freed memory for the process.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

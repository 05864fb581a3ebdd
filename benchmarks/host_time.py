"""What the host does for a step: `fit` around a step that does next to nothing.

27,455 images of 28x28, batches of 32; a step at a time, and as many as suit a CPU and a GPU. The
step looks at one pixel and one label of its batch, so what is measured is Keras, the loop, the
input pipeline and the fetching of the images, over a whole epoch.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import asl_fast
from asl_fast.data.pipeline import numbered_batches, steps_per_epoch
from asl_fast.training.clock import TrainingClock
from asl_fast.training.loop import choose_steps_per_execution
from benchmarks.cell import Cell, Meter, in_turn
from benchmarks.contenders import data

__all__ = ["measure"]

_BATCH = 32


class _Idle(keras.Model):
    """A model whose training step looks at a pixel and a label."""

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Returns what it saw."""
        x, y = data
        return {"loss": tf.cast(x[0, 0, 0, 0], tf.float32) + y[0, 0]}


def _ours(images: np.ndarray, labels: np.ndarray, **how: Any) -> float:
    return _microseconds(functools.partial(asl_fast.fit, _idle(), images, labels, **how))


def _keras(images: np.ndarray, labels: np.ndarray) -> float:
    return _microseconds(functools.partial(_idle().fit, images, labels))


def _idle() -> keras.Model:
    model = _Idle()
    model.compile()
    return model


def _microseconds(fit: Callable[..., Any]) -> float:
    """Returns the microseconds a step of the median epoch but the first, which traces."""
    clock = TrainingClock()
    fit(batch_size=_BATCH, epochs=4, callbacks=[clock], verbose=0)
    return 1e6 * float(np.median(clock.seconds[1:])) / steps_per_epoch(27455, _BATCH)


def _get_next(rows: int, at_once: int) -> float:
    """Returns the microseconds of GetNext for a batch, the numbers of several coming as one."""
    calls = 1000

    @tf.function
    def run(iterator: Any) -> None:
        for _ in tf.range(calls):
            iterator.get_next()

    iterator = iter(numbered_batches(rows, batch_size=_BATCH * at_once, steps=2**40))
    run(iterator)
    begin = time.perf_counter()
    run(iterator)
    return 1e6 * (time.perf_counter() - begin) / calls / at_once


def measure(of: str, *, turns: int, meter: Meter) -> Cell:
    """Measures the microseconds a step of `"fit"`, plain Keras's and ours; or of our `"input"`."""
    images, labels = data()
    images = (255 * images).astype(np.uint8)
    rows = len(images)
    steps = steps_per_epoch(rows, _BATCH)
    samples: dict[str, Callable[[], float]] = {}
    if of == "fit":
        samples["Keras's fit"] = lambda: _keras(images, labels)
        for device in (None, "CPU", "GPU"):
            at_once = choose_steps_per_execution(steps, _BATCH, device) if device else 1
            words = f"{at_once} steps at once" + (f", as on {device}s" if device else "")
            for name, resident in (("resident", True), ("streamed", False)):
                samples[f"our fit, {name}, {words}"] = functools.partial(
                    _ours, images, labels, resident=resident, steps_per_execution=at_once
                )
    else:
        for at_once in (1, choose_steps_per_execution(steps, _BATCH, "CPU")):
            samples[f"our GetNext, {at_once} steps at once"] = functools.partial(
                _get_next, rows, at_once
            )
    about = {"batch": _BATCH, "rows": rows, "of": of}
    return in_turn("host", about, "µs a step", samples, turns=turns, warm_up=0, meter=meter)

"""What the host does for a step: `asl_fast.fit` around a step that does next to nothing.

    python -m benchmarks.host_time [--turns N]

27,455 images of 28x28, batches of 32; a step at a time, and as many as suit a CPU and a GPU. The
step looks at one pixel and one label of its batch, so what is measured is Keras, the loop, the
input pipeline and the fetching of the images. Prints the quartiles in microseconds a step over
epochs (or for GetNext over 1,000 calls at a time), in turn.
"""

import argparse
import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import asl_fast
from asl_fast.loop import choose_at_once
from asl_fast.pipeline import numbered_batches, steps_per_epoch
from asl_fast.trainer import TrainingClock
from benchmarks.contenders import data

_BATCH = 32


class _Idle(keras.Model):
    """A model whose training step looks at a pixel and a label."""

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Returns what it saw."""
        x, y = data
        return {"loss": tf.cast(x[0, 0, 0, 0], tf.float32) + y[0, 0]}


def _fit(images: np.ndarray, labels: np.ndarray, epochs: int, **how: Any) -> list[float]:
    """Returns the microseconds a step of each epoch but the first, which traces."""
    model, clock = _Idle(), TrainingClock()
    model.compile()
    asl_fast.fit(
        model, images, labels, batch_size=_BATCH, epochs=epochs, callbacks=[clock], verbose=0, **how
    )
    steps = steps_per_epoch(len(images), _BATCH)
    return [1e6 * seconds / steps for seconds in clock.seconds[1:]]


def _get_next(rows: int, turns: int, at_once: int) -> list[float]:
    """Returns the microseconds of GetNext for a batch, the numbers of several coming as one."""
    calls = 1000

    @tf.function
    def run(iterator: Any) -> None:
        for _ in tf.range(calls):
            iterator.get_next()

    iterator = iter(numbered_batches(rows, batch_size=_BATCH * at_once, steps=2**40))
    run(iterator)
    times = []
    for _ in range(turns):
        begin = time.perf_counter()
        run(iterator)
        times.append(1e6 * (time.perf_counter() - begin) / calls / at_once)
    return times


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What the host does for a step.")
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    images, labels = data()
    images = (255 * images).astype(np.uint8)
    steps = steps_per_epoch(len(images), _BATCH)
    ways: dict[str, dict[str, Any]] = {
        f"{name}, {at_once} at a time": {"resident": resident, "steps_per_execution": at_once}
        for at_once in (
            1,
            choose_at_once(steps, _BATCH, "CPU"),
            choose_at_once(steps, _BATCH, "GPU"),
        )
        for name, resident in (("resident", True), ("streamed", False))
    }
    times: dict[str, list[float]] = {}
    for _ in range(turns):
        for name, how in ways.items():
            times.setdefault(name, []).extend(_fit(images, labels, 6, **how))
        for at_once in (1, 33):
            name = f"GetNext, {at_once} at a time"
            times.setdefault(name, []).extend(_get_next(len(images), 5, at_once))
    for name, values in times.items():
        low, median, high = np.percentile(values, [25, 50, 75])
        print(f"{name:30} {median:6.1f} µs  ({low:.1f}-{high:.1f}, n = {len(values)})")


if __name__ == "__main__":
    main()

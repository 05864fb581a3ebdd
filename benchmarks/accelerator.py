"""How long a fast accelerator would wait for its data: a consumer that takes a batch and sleeps.

    python -m benchmarks.accelerator [--out FOLDER] [--quick]

The consumer is a loop within TensorFlow. It takes a batch of 32 and then waits a fixed time
without using the CPU, as it would for a GPU at work. The stall is the time that it spends on
getting batches, as a share of all. Contenders run in turn.

In resident mode a batch is the numbers of its images: fetching and augmenting them is part of the
accelerator's own step. All others augment on the CPU. The last row is the whole of
`asl_fast.fit` in resident mode, with Keras around it, and its stall all the time in which the
accelerator does not work: a real one would work on while the host prepares its next step.
"""

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator
from rich.progress import track
from tensorflow.python.data.experimental.ops import testing

import asl_fast
from asl_fast import device
from asl_fast.loop import choose_at_once, parts
from asl_fast.pipeline import numbered_batches, steps_per_epoch
from benchmarks.contenders import COURSE, data, from_keras_iterator, keras_layers

_BATCH = 32
_ROWS = 27455
_STEPS = steps_per_epoch(_ROWS, _BATCH)
_MILLISECONDS = (0.1, 0.3, 1.0, 3.0, 8.0)

# From the milliseconds of a step to the share of the time that the accelerator is idle.
Contender = Callable[[float], float]


class Accelerator:
    """Waits a fixed time without using the CPU, and knows how long it has waited in all.

    Args:
        milliseconds: Float. The operating system adds 0.06 ms and more, which count as work too.
    """

    def __init__(self, milliseconds: float) -> None:
        sleep = testing.sleep(int(1000 * milliseconds))
        self._sleeps = iter(tf.data.Dataset.range(2**40).apply(sleep).with_options(_plain()))
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def work(self, batch: Any) -> tf.Operation:
        """Waits once, when the batch is there; to be called within a `tf.function`."""
        with tf.control_dependencies(_tensors(batch)):
            begin = tf.timestamp()
        with tf.control_dependencies([begin]):
            slept = self._sleeps.get_next()
        with tf.control_dependencies([slept]):
            return self.seconds.assign_add(tf.timestamp() - begin)


def _tensors(batch: Any) -> list[tf.Tensor]:
    return [value for value in tf.nest.flatten(batch) if value is not None]


def _plain() -> tf.data.Options:
    """Returns options that let a dataset do nothing ahead."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.inject_prefetch = False
    return options


def _consumer(dataset: tf.data.Dataset, steps: int, milliseconds: float, at_once: int = 1) -> float:
    """Returns the share of the time that an accelerator waits for a dataset's batches.

    Args:
        dataset: Of batches; or of numbers, those of several batches at once.
        steps: Int, how many batches to take.
        milliseconds: Float, how long the accelerator takes for each.
        at_once: Int, how many batches an element holds.
    """
    accelerator = Accelerator(milliseconds)
    waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def timed(take: Callable[[], Any], after: list[Any]) -> tuple[Any, Any]:
        with tf.control_dependencies(after):
            begin = tf.timestamp()
        with tf.control_dependencies([begin]):
            taken = take()
        with tf.control_dependencies(_tensors(taken)):
            return taken, waited.assign_add(tf.timestamp() - begin)

    @tf.function
    def run(iterator: Any, count: tf.Tensor) -> None:
        for _ in tf.range(count):
            element, counted = timed(iterator.get_next, [])
            if at_once == 1:
                with tf.control_dependencies([counted]):
                    accelerator.work(element)
            else:
                for i in tf.range(at_once):
                    part, counted = timed(partial(parts(element, _BATCH), i), [counted])
                    with tf.control_dependencies([counted]):
                        accelerator.work(part)

    iterator = iter(dataset)
    run(iterator, tf.constant(3))  # traced, and the pipeline filled
    waited.assign(0.0)
    begin = time.perf_counter()
    run(iterator, tf.constant(steps // at_once))
    return float(waited) / (time.perf_counter() - begin)


def _of_keras(iterator: Any, steps: int, workers: int, processes: bool) -> Contender:
    def stall(milliseconds: float) -> float:
        with from_keras_iterator(iterator, workers, processes) as dataset:
            return _consumer(dataset, steps, milliseconds)

    return stall


class _Simulated(keras.Model):
    """A model whose training step is an accelerator's."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__()
        self._accelerator = accelerator

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Waits until the accelerator is done."""
        with tf.control_dependencies([self._accelerator.work(data)]):
            return {"loss": tf.constant(0.0)}


def _resident(steps: int) -> Contender:
    at_once = choose_at_once(_STEPS, _BATCH, "CPU")
    numbers = numbered_batches(_ROWS, batch_size=_BATCH * at_once, steps=2**40)
    # As many as fit: a pass ends with a few batches less.
    numbers = numbers.filter(lambda batch: tf.size(batch.samples) == _BATCH * at_once)
    return lambda milliseconds: _consumer(numbers, steps, milliseconds, at_once)


def _whole_fit(images: np.ndarray, labels: np.ndarray, steps: int) -> Contender:
    def stall(milliseconds: float) -> float:
        accelerator = Accelerator(milliseconds)
        model = _Simulated(accelerator)
        model.compile()
        shares = []

        class Clock(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                accelerator.seconds.assign(0.0)
                self.begin = time.perf_counter()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                seconds = time.perf_counter() - self.begin
                shares.append(1 - float(accelerator.seconds) / seconds)

        asl_fast.fit(
            model,
            images[: steps * _BATCH],
            labels[: steps * _BATCH],
            epochs=2,
            resident=True,
            callbacks=[Clock()],
            verbose=0,
        )
        return shares[-1]  # the first epoch traces

    return stall


def contenders(steps: int) -> dict[str, Contender]:
    """Returns who is measured, over so many steps a turn."""
    images, labels = data(_ROWS)
    iterator = KerasGenerator(**COURSE).flow(images, labels, batch_size=_BATCH)
    flow = asl_fast.ImageDataGenerator(**COURSE).flow(images, labels, batch_size=_BATCH)
    with keras_layers(images, labels, _BATCH) as layers:
        pass
    few = steps // 2  # enough to be far beyond the batches that wait in its queue
    return {
        "Keras's generator": _of_keras(iterator, few, 1, False),
        "– 2 threads": _of_keras(iterator, few, 2, False),
        "– 4 threads": _of_keras(iterator, few, 4, False),
        "– 2 processes": _of_keras(iterator, few, 2, True),
        "Keras's layers in tf.data": lambda ms: _consumer(layers.repeat(), steps, ms),
        "our flow": lambda ms: _consumer(flow.repeat(), steps, ms),
        "our resident mode": _resident(steps),
        "– the whole of fit": _whole_fit((images * 255).astype(np.uint8), labels, steps),
    }


def measure(turns: int, steps: int) -> dict[str, Any]:
    """Measures every contender in turn, several times.

    Returns:
        By contender and milliseconds the quartiles of the stall, with the circumstances.
    """
    found: dict[str, dict[float, list[float]]] = {}
    everyone = contenders(steps)
    rounds = [(turn, ms) for turn in range(turns) for ms in _MILLISECONDS]
    for _, milliseconds in track(rounds, description="Simulating an accelerator"):
        for name, stall in everyone.items():
            by_time = found.setdefault(name, {})
            by_time.setdefault(milliseconds, []).append(stall(milliseconds))
    return {
        "device": device.describe(),
        "tensorflow": tf.__version__,
        "keras": keras.version(),
        "load before": os.getloadavg()[0],
        "batch": _BATCH,
        "n": turns,
        "steps": steps,
        "stall": {
            name: {
                str(ms): np.percentile(shares, [25, 50, 75]).round(4).tolist()
                for ms, shares in by_time.items()
            }
            for name, by_time in found.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """Returns the medians and quartiles as a Markdown table."""
    lines = [
        "| stall, batches of 32 | " + " | ".join(f"{ms} ms" for ms in _MILLISECONDS) + " |",
        "| --- |" + " --- |" * len(_MILLISECONDS),
    ]
    for name, by_time in result["stall"].items():
        cells = [f"{median:.1%} ({low:.1%}–{high:.1%})" for low, median, high in by_time.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Draws the stall against the time of a step."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, by_time in result["stall"].items():
        low, median, high = (
            100 * np.array(values) for values in zip(*by_time.values(), strict=True)
        )
        axes.plot(_MILLISECONDS, median, marker="o", label=name)
        axes.fill_between(_MILLISECONDS, low, high, alpha=0.2)
    axes.set_xscale("log")
    axes.set_xticks(_MILLISECONDS, [f"{ms:g}" for ms in _MILLISECONDS])
    axes.minorticks_off()
    axes.set_xlabel("the accelerator's time for a step of 32 images, ms")
    axes.set_ylabel("idle, % of the time")
    axes.set_ylim(0, 100)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description="How long an accelerator waits for data.")
    parser.add_argument("--out", type=Path, help="folder for accelerator.json, .md and .png")
    parser.add_argument("--quick", action="store_true", help="two turns of few steps")
    arguments = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # each consumer is traced, which it would warn of
    turns, steps = (2, 160) if arguments.quick else (7, 400)
    result = measure(turns, steps)
    print(table(result))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "accelerator.json").write_text(json.dumps(result, indent=2) + "\n")
        (arguments.out / "accelerator.md").write_text(table(result))
        plot(result, arguments.out / "accelerator.png")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()

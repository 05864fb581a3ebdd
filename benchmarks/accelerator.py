"""How long a fast accelerator would wait for its data: a consumer that takes a batch and sleeps.

The consumer is a loop within TensorFlow. It takes a batch of 32 and then waits a fixed time
without using the CPU, as it would for a GPU at work. The stall is the time that it spends on
getting batches, as a share of all. Contenders run in turn.

In resident mode a batch is the numbers of its images: fetching and augmenting them is part of the
accelerator's own step. All others augment on the CPU. The last row is the whole of
`asl_fast.fit` in resident mode, with Keras around it, and its stall all the time in which the
accelerator does not work: a real one would work on while the host prepares its next step.
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
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator
from tensorflow.python.data.experimental.ops import testing

import asl_fast
from asl_fast.data.pipeline import numbered_batches, steps_per_epoch
from asl_fast.training.loop import choose_steps_per_execution, slicer
from benchmarks.cell import Cell, Meter, in_turn
from benchmarks.contenders import COURSE, data, from_keras_iterator, keras_layers

_BATCH = 32
_ROWS = 27455
_STEPS = steps_per_epoch(_ROWS, _BATCH)
MILLISECONDS = (0.1, 0.3, 1.0, 3.0, 8.0)

__all__ = ["MILLISECONDS", "Accelerator", "measure"]

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
                    part, counted = timed(functools.partial(slicer(element, _BATCH), i), [counted])
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
    at_once = choose_steps_per_execution(_STEPS, _BATCH, "CPU")
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


@functools.cache
def _everyone(steps: int) -> dict[str, Contender]:
    """Returns who is measured, over so many steps a turn."""
    images, labels = data(_ROWS)
    iterator = KerasGenerator(**COURSE).flow(images, labels, batch_size=_BATCH)
    flow = asl_fast.ImageDataGenerator(**COURSE).flow(images, labels, batch_size=_BATCH)
    with keras_layers(images, labels, _BATCH) as layers:
        pass
    few = steps // 2  # enough to be far beyond the batches that wait in its queue
    return {
        "Keras's generator": _of_keras(iterator, few, 1, False),
        "Keras's generator, 2 threads": _of_keras(iterator, few, 2, False),
        "Keras's generator, 4 threads": _of_keras(iterator, few, 4, False),
        "Keras's generator, 2 processes": _of_keras(iterator, few, 2, True),
        "Keras's layers in tf.data": lambda ms: _consumer(layers.repeat(), steps, ms),
        "our flow": lambda ms: _consumer(flow.repeat(), steps, ms),
        "our step, resident": _resident(steps),
        "our step, the whole of fit": _whole_fit((images * 255).astype(np.uint8), labels, steps),
    }


def measure(milliseconds: float, *, turns: int, steps: int, meter: Meter) -> Cell:
    """Measures the share of the time that everyone lets an accelerator wait.

    Args:
        milliseconds: Float, what the accelerator is asked to take for a batch of 32.
        turns: Int.
        steps: Int, how many batches a turn takes.
        meter: Repeats the turns, and hears of what is being done.
    """
    return in_turn(
        "accelerator",
        {"batch": _BATCH, "ms": milliseconds},
        "share idle",
        {name: functools.partial(stall, milliseconds) for name, stall in _everyone(steps).items()},
        turns=turns,
        warm_up=0,  # each warms up for itself
        meter=meter,
    )

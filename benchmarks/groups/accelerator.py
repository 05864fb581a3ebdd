"""The share of its time that a fast accelerator would wait for data.

The accelerator is simulated: a loop inside TensorFlow takes a batch of 32, then waits a fixed time
without using the CPU, as it would for a GPU at work.

In resident mode a batch is the indices of its images: gathering and augmenting them is part of the
accelerator's own step. All others augment on the CPU. "The whole of fit" is `asl_fast.fit` in
resident mode with Keras around it; everything but the accelerator's own time counts as idle, though
a real one would work on while the host prepares its next step.
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
from benchmarks.cell import Cell, Say, in_turn
from benchmarks.contenders.rivals import labelled_layers
from benchmarks.contenders.work import COURSE, from_keras_iterator, noise

_BATCH = 32
_ROWS = 27455
MILLISECONDS = (0.1, 0.3, 1.0, 3.0, 8.0)

__all__ = ["MILLISECONDS", "Accelerator", "measure"]

# Takes the milliseconds of a step, returns the share of the time that the accelerator is idle.
Contender = Callable[[float], float]


class Accelerator:
    """Waits a fixed time without using the CPU, and adds up how long it has waited.

    Args:
        milliseconds: Float. The operating system adds 0.06 ms and more, which count as work too.
    """

    def __init__(self, milliseconds: float) -> None:
        options = tf.data.Options()  # nothing may be fetched ahead
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        options.experimental_optimization.inject_prefetch = False
        sleep = testing.sleep(int(1000 * milliseconds))
        self._sleeps = iter(tf.data.Dataset.range(2**40).apply(sleep).with_options(options))
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def work(self, batch: Any) -> tf.Operation:
        """Waits once, after the batch has arrived; for use inside a `tf.function`."""
        _, added = _timed(self._sleeps.get_next, _tensors(batch), self.seconds)
        return added


def _timed(
    call: Callable[[], Any], after: list[Any], seconds: tf.Variable
) -> tuple[Any, tf.Operation]:
    """Calls once `after` is there; returns the result, and what adds the time to `seconds`."""
    with tf.control_dependencies(after):
        begin = tf.timestamp()
    with tf.control_dependencies([begin]):
        result = call()
    with tf.control_dependencies(_tensors(result)):
        return result, seconds.assign_add(tf.timestamp() - begin)


def _tensors(batch: Any) -> list[tf.Tensor]:
    return [value for value in tf.nest.flatten(batch) if value is not None]


def _idle_share(dataset: tf.data.Dataset, steps: int, milliseconds: float, batches: int) -> float:
    """Returns the share of the time that an accelerator waits for a dataset's batches.

    Args:
        dataset: Of batches; or of the indices of several batches.
        steps: Int, batches to take.
        milliseconds: Float, the accelerator's time for each.
        batches: Int, batches in an element.
    """
    accelerator = Accelerator(milliseconds)
    waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    @tf.function
    def run(iterator: Any, count: tf.Tensor) -> None:
        for _ in tf.range(count):
            element, added = _timed(iterator.get_next, [], waited)
            if batches == 1:
                with tf.control_dependencies([added]):
                    accelerator.work(element)
            else:
                for i in tf.range(batches):
                    take = functools.partial(slicer(element, _BATCH), i)
                    part, added = _timed(take, [added], waited)
                    with tf.control_dependencies([added]):
                        accelerator.work(part)

    iterator = iter(dataset)
    run(iterator, tf.constant(3))  # traces, and fills the pipeline
    waited.assign(0.0)
    begin = time.perf_counter()
    run(iterator, tf.constant(steps // batches))
    return float(waited) / (time.perf_counter() - begin)


def _of_dataset(dataset: tf.data.Dataset, steps: int, batches: int = 1) -> Contender:
    return lambda milliseconds: _idle_share(dataset, steps, milliseconds, batches)


def _of_keras(iterator: Any, steps: int, workers: int, processes: bool) -> Contender:
    def share(milliseconds: float) -> float:
        with from_keras_iterator(iterator, workers, processes) as dataset:
            return _idle_share(dataset, steps, milliseconds, 1)

    return share


def _resident(steps: int) -> Contender:
    batches = choose_steps_per_execution(steps_per_epoch(_ROWS, _BATCH), _BATCH, "CPU")
    indices = numbered_batches(_ROWS, batch_size=_BATCH * batches, steps=2**40)
    # Whole elements only: an epoch ends with fewer batches.
    indices = indices.filter(lambda batch: tf.size(batch.samples) == _BATCH * batches)
    return _of_dataset(indices, steps, batches)


class _Simulated(keras.Model):
    """A model whose training step is an accelerator's."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__()
        self._accelerator = accelerator

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Waits until the accelerator is done."""
        with tf.control_dependencies([self._accelerator.work(data)]):
            return {"loss": tf.constant(0.0)}


class _IdleClock(keras.callbacks.Callback):
    """Records the share of each epoch in which the accelerator did not work."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__()
        self._accelerator = accelerator
        self.shares: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._accelerator.seconds.assign(0.0)
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.perf_counter() - self._begin
        self.shares.append(1 - float(self._accelerator.seconds) / seconds)


def _whole_fit(images: np.ndarray, labels: np.ndarray, steps: int) -> Contender:
    def share(milliseconds: float) -> float:
        accelerator = Accelerator(milliseconds)
        model, clock = _Simulated(accelerator), _IdleClock(accelerator)
        model.compile()
        rows = steps * _BATCH
        asl_fast.fit(
            model,
            images[:rows],
            labels[:rows],
            epochs=2,
            resident=True,
            callbacks=[clock],
            verbose=0,
        )
        return clock.shares[-1]  # the first epoch traces

    return share


@functools.cache
def _everyone(steps: int) -> dict[str, Contender]:
    images, labels = noise(_ROWS)
    scaled = images / np.float32(255)
    iterator = KerasGenerator(**COURSE).flow(scaled, labels, batch_size=_BATCH)
    flow = asl_fast.ImageDataGenerator(**COURSE).flow(scaled, labels, batch_size=_BATCH)
    few = steps // 2  # far more than wait in its queue
    return {
        "Keras's generator": _of_keras(iterator, few, 1, False),
        "Keras's generator, 2 threads": _of_keras(iterator, few, 2, False),
        "Keras's generator, 4 threads": _of_keras(iterator, few, 4, False),
        "Keras's generator, 2 processes": _of_keras(iterator, few, 2, True),
        "Keras's layers in tf.data": _of_dataset(
            labelled_layers(scaled, labels, _BATCH).repeat(), steps
        ),
        "our flow": _of_dataset(flow.repeat(), steps),
        "our step, resident": _resident(steps),
        "our step, the whole of fit": _whole_fit(images, labels, steps),
    }


def measure(milliseconds: float, *, turns: int, steps: int, say: Say) -> Cell:
    """Measures the idle share of an accelerator that takes `milliseconds` for a batch of 32."""
    samples = {
        name: functools.partial(share, milliseconds) for name, share in _everyone(steps).items()
    }
    about = {"batch": _BATCH, "ms": milliseconds}
    # Each warms up on its own.
    return in_turn("accelerator", about, "share idle", samples, turns=turns, warm_up=0, say=say)

"""Training on several devices and machines, by TensorFlow's own strategies.

Keras's trainer takes its batches from a strategy as values of which each device has one, and under
`MultiWorkerMirroredStrategy` it fails on them. So Keras is shown the model as if there were no
strategy: here are the functions that take its steps, on all devices, and the batches go to them
directly. Callbacks, metrics, validation and the progress bar are Keras's, the same on every worker.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data.pipeline import Span
from asl_fast.system.device import Choice
from asl_fast.system.errors import InputError
from asl_fast.training.loop import Loop

__all__ = ["STRATEGIES", "DistributedLoop", "choose", "distributed", "is_chief", "strategy_of"]

STRATEGIES = ("auto", "none", "mirrored", "multiworker")


def choose(name: str = "auto") -> Choice:
    """Returns a strategy or None, and why.

    Args:
        name: "none"; "mirrored": all GPUs of this machine, or without one its CPU's logical
            devices; "multiworker": the machines that `TF_CONFIG` names; "auto": the last where it
            names several, the one before where there are several GPUs, otherwise none. The
            program must not have used TensorFlow before a choice of "multiworker".

    Raises:
        InputError: An unknown name, or a `TF_CONFIG` that does not fit.
    """
    if name not in STRATEGIES:
        raise InputError(f"The strategy must be one of {', '.join(STRATEGIES)}: {name!r}.")
    workers = _workers()
    if name == "multiworker" and not workers:
        raise InputError(
            "The strategy multiworker needs the environment variable TF_CONFIG, which names the "
            "workers: https://www.tensorflow.org/guide/distributed_training#TF_CONFIG"
        )
    if name == "multiworker" or (name == "auto" and workers > 1):
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except ValueError as error:
            raise _unreadable(str(error)) from None
        return Choice(strategy, f"TF_CONFIG names {workers} workers")
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if name == "mirrored" or (name == "auto" and kind == "GPU" and len(devices) > 1):
        return Choice(
            tf.distribute.MirroredStrategy(devices), f"{len(devices)} {kind}s on this machine"
        )
    return Choice(None, "as asked for" if name == "none" else "one device")


def strategy_of(model: keras.Model) -> Any:
    """Returns the strategy in whose scope a model was made, or None."""
    return getattr(model, "_distribute_strategy", None)


def is_chief(strategy: Any) -> bool:
    """Returns whether this process is the one that writes files: without a strategy, it is."""
    return strategy is None or strategy.extended.should_checkpoint


@contextlib.contextmanager
def distributed(
    model: keras.Model,
    strategy: Any,
    pieces: Callable[[tf.distribute.InputContext], tf.data.Dataset],
    prepare: Callable[[Any], Any],
    span: Span,
    at_once: int,
) -> Iterator["DistributedLoop"]:
    """Lets `keras.Model.fit` train on all devices of a strategy, for a while.

    Args:
        model: Compiled, made in the scope of the strategy. Its batch normalisation is synchronised
            meanwhile: its statistics are those of the whole batch.
        strategy: A `tf.distribute.Strategy`.
        pieces: From what a worker needs to know to its devices' parts of the batches, one after
            the other.
        prepare: From a part to (x, y) or (x, y, weights).
        span: As for `DistributedLoop`.
        at_once: As for `DistributedLoop`.
    """
    norms = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before = [(layer, layer.synchronized) for layer in norms]
    batches = strategy.distribute_datasets_from_function(pieces)
    try:
        for layer in norms:
            layer.synchronized = True
        with strategy.scope():
            _build(model, prepare, batches.element_spec)
        model._distribute_strategy = None
        loop = DistributedLoop(model, span, at_once, strategy=strategy, batches=iter(batches))
        model.train_function = loop
        model.test_function = _Test(model, strategy)
        yield loop
    finally:
        model._distribute_strategy = strategy
        for layer, synchronized in before:
            layer.synchronized = synchronized


def _build(model: keras.Model, prepare: Callable[[Any], Any], spec: Any) -> None:
    """Makes the variables of optimizer and metrics, which no device may make on its own."""
    one = tf.nest.map_structure(lambda s: s, spec)
    traced = tf.function(prepare, autograph=False).get_concrete_function(_of_one_device(one))
    batch = tf.nest.map_structure(
        lambda s: None if s is None else keras.KerasTensor(s.shape, s.dtype.name),
        traced.structured_outputs,
    )
    model._symbolic_build(data_batch=batch)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _of_one_device(spec: Any) -> Any:
    """Returns what one device receives, where each of several receives such."""

    def one(found: Any) -> Any:
        return found._value_specs[0] if hasattr(found, "_value_specs") else found

    return tf.nest.map_structure(one, spec)


class DistributedLoop(Loop):
    """The loop over the steps of a strategy, each of them taken on all devices.

    Args:
        model: Compiled.
        span: As for `Loop`.
        at_once: As for `Loop`.
        strategy: A `tf.distribute.Strategy`.
        batches: Iterator of the devices' parts of batches, distributed.
    """

    def __init__(
        self, model: keras.Model, span: Span, at_once: int, *, strategy: Any, batches: Any
    ) -> None:
        super().__init__(model, span, at_once)
        self._strategy = strategy
        self._batches = batches
        train_step = model.train_step

        def one(batch: Any) -> tf.Tensor:
            return tf.cast(tf.reduce_all(tf.math.is_finite(train_step(batch)["loss"])), tf.int64)

        def step(iterator: Any) -> tf.Tensor:
            finite = strategy.run(one, args=(next(iterator),))
            return strategy.reduce(tf.distribute.ReduceOp.SUM, finite, axis=None)

        self._step = tf.function(step, autograph=False)
        self._sum = tf.function(
            lambda wish: strategy.reduce(
                tf.distribute.ReduceOp.SUM, strategy.run(lambda: wish), axis=None
            ),
            autograph=False,
        )

    def _take(self, iterator: Any, steps: int) -> tuple[Any, int]:
        del iterator  # Keras's, of nothing
        for finite in range(steps):
            if int(self._step(self._batches)) < self._strategy.num_replicas_in_sync:
                return None, finite
        return self._model.get_metrics_result(), steps

    def agree(self, wishes: int) -> int:
        """Returns the sum of what all devices' workers wish, the same on each.

        Args:
            wishes: Int, this worker's.
        """
        return int(self._sum(tf.constant(wishes, tf.int64)))


class _Test:
    """Stands in for `keras.Model.test_function`: every device judges every batch.

    So each metric is as from one device: sums and counts are all as many times as large.
    """

    def __init__(self, model: keras.Model, strategy: Any) -> None:
        self._model = model
        test_step = model.test_step
        self._step = tf.function(
            lambda batch: strategy.run(lambda: test_step(batch)), autograph=False
        )

    def __call__(self, iterator: Any) -> Any:
        """Judges as many batches as Keras takes at once, or what is left; returns the metrics."""
        self._step(next(iterator))
        for batch in itertools.islice(iterator, self._model.steps_per_execution - 1):
            self._step(batch)
        return self._model.get_metrics_result()


def _workers() -> int:
    """Returns how many workers `TF_CONFIG` names."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0
    try:
        cluster = json.loads(text)["cluster"]
        return sum(len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _unreadable(text[:80]) from None


def _unreadable(why: str) -> InputError:
    return InputError(
        f"The environment variable TF_CONFIG is not as TensorFlow reads it: {why.rstrip('.')}. See "
        "https://www.tensorflow.org/guide/distributed_training#TF_CONFIG"
    )

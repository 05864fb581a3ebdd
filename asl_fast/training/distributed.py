"""Training on several devices and machines, by TensorFlow's own strategies.

Keras's trainer takes its batches from a strategy as values of which each device has one, and under
`MultiWorkerMirroredStrategy` it fails on them. So Keras is shown the model as if there were no
strategy: the functions here run its steps on all devices, and the batches go to them directly.
Callbacks, metrics, validation and the progress bar are Keras's, the same on every worker.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data.pipeline import Span, without_none
from asl_fast.system import private_api
from asl_fast.system.device import Choice
from asl_fast.system.errors import InputError
from asl_fast.training.loop import Loop
from asl_fast.training.source import Source
from asl_fast.training.step import preparing, step_data
from asl_fast.training.targets import has_own_step

__all__ = ["STRATEGIES", "DistributedLoop", "choose", "distributed", "is_chief"]

STRATEGIES = ("auto", "none", "mirrored", "multiworker")


def choose(name: str = "auto") -> Choice:
    """Returns a strategy or None, and why.

    Args:
        name: "mirrored" trains on all GPUs of this machine, or without one on its CPU's logical
            devices; "multiworker" on the machines that `TF_CONFIG` names, and the program must not
            have used TensorFlow before; "none" on one device; "auto" is "multiworker" where
            `TF_CONFIG` names several machines, else "mirrored" where there are several GPUs, else
            "none".

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


def is_chief(strategy: Any) -> bool:
    """Returns whether this process writes the files, as it does without a strategy."""
    return strategy is None or strategy.extended.should_checkpoint


@contextlib.contextmanager
def distributed(
    model: keras.Model,
    source: Source,
    class_weight: Mapping[int, float] | None,
    span: Span,
    steps_per_execution: int,
) -> Iterator["DistributedLoop"]:
    """Lets `keras.Model.fit` train on all devices of the model's strategy, within the block.

    Args:
        model: Compiled, made in the scope of a strategy. Its batch normalisation is synchronised
            meanwhile: its statistics are those of the whole batch.
        source: Where the batches come from.
        class_weight: As for `keras.Model.fit`.
        span: As for `DistributedLoop`.
        steps_per_execution: As for `DistributedLoop`.
    """
    strategy = private_api.strategy_of(model)
    rebuilt: Callable[[Any], Any]
    spec: Any

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        nonlocal rebuilt, spec
        dataset, rebuilt = without_none(source.replica_batches(span, context))
        spec = dataset.element_spec
        return dataset

    of_batch, own = step_data(model, source.prepare, class_weight), has_own_step(model)

    def data_of(values: Any) -> Any:
        batch, weight = rebuilt(values)
        data = of_batch(batch)
        return data if own else _weighted(data, weight)

    with preparing(model, data_of, steps_per_execution), _synchronized(model):
        batches = strategy.distribute_datasets_from_function(of_worker)
        with strategy.scope():
            _create_variables(model, data_of, spec)
        with private_api.without_strategy(model):
            loop = DistributedLoop(
                model, span, steps_per_execution, strategy=strategy, batches=iter(batches)
            )
            model.train_function = loop
            model.test_function = _TestLoop(model, strategy)
            yield loop


def _weighted(data: Any, weight: tf.Tensor) -> Any:
    """Returns data whose rows weigh as the device's share of the batch does."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)

    def of_rows(target: tf.Tensor) -> tf.Tensor:
        # As many axes as the target has, so that Keras takes them for the rows' in any loss.
        shape = tf.concat([tf.shape(target)[:1], tf.ones(target.shape.rank - 1, tf.int32)], 0)
        return tf.fill(shape, weight)

    if y is None:
        return data
    if weights is None:
        weights = tf.nest.map_structure(of_rows, y)
    else:
        weights = tf.nest.map_structure(lambda w: weight * tf.cast(w, tf.float32), weights)
    return x, y, weights


@contextlib.contextmanager
def _synchronized(model: keras.Model) -> Iterator[None]:
    norms = {
        layer: layer.synchronized
        for layer in private_api.flatten_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    for layer in norms:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer, before in norms.items():
            layer.synchronized = before


def _create_variables(model: keras.Model, data_of: Callable[[Any], Any], spec: Any) -> None:
    """Creates those of optimizer and metrics, which no device may create on its own."""
    prepared = tf.function(data_of, autograph=False).get_concrete_function(spec)
    batch = tf.nest.map_structure(
        lambda s: None if s is None else keras.KerasTensor(s.shape, s.dtype.name),
        prepared.structured_outputs,
    )
    private_api.build_symbolically(model, batch)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


class DistributedLoop(Loop):
    """Runs the steps of a strategy, each of them on all devices.

    Args:
        model: Compiled.
        span: As for `Loop`.
        steps_per_execution: As for `Loop`.
        strategy: A `tf.distribute.Strategy`.
        batches: Iterator of the devices' shares of batches, distributed.
    """

    def __init__(
        self,
        model: keras.Model,
        span: Span,
        steps_per_execution: int,
        *,
        strategy: Any,
        batches: Any,
    ) -> None:
        super().__init__(model, span, steps_per_execution)
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

    def _run(self, iterator: Any, steps: int) -> tuple[Any, int]:
        del iterator  # Keras's, which is empty
        for finite in range(steps):
            if int(self._step(self._batches)) < self._strategy.num_replicas_in_sync:
                return None, finite
        return self._model.get_metrics_result(), steps

    def agree(self, wish: int) -> int:
        """Returns the sum of all devices' wishes, the same on each worker.

        Args:
            wish: Int, this worker's.
        """
        return int(self._sum(tf.constant(wish, tf.int64)))


class _TestLoop:
    """Stands in for `keras.Model.test_function`: every device evaluates every batch.

    So each metric is as from one device: all sums and counts grow by the same factor.
    """

    def __init__(self, model: keras.Model, strategy: Any) -> None:
        self._model = model
        test_step = model.test_step
        self._step = tf.function(
            lambda batch: strategy.run(lambda: test_step(batch)), autograph=False
        )

    def __call__(self, iterator: Any) -> Any:
        """Evaluates the batches of one call, fewer at the end; returns the metrics."""
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
        f"TensorFlow can't use the environment variable TF_CONFIG: {why.rstrip('.')}. See "
        "https://www.tensorflow.org/guide/distributed_training#TF_CONFIG"
    )

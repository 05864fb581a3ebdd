"""The model's training step, with the source's work before it in what is compiled."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from asl_fast.system import private_api
from asl_fast.training.targets import fitting_labels, has_own_step

__all__ = ["preparing", "step_data"]


@contextlib.contextmanager
def preparing(
    model: keras.Model, data_of: Callable[[Any], Any], steps_per_execution: int
) -> Iterator[None]:
    """Puts the source's work before the model's own training step.

    Wrapping the step and not the model leaves callbacks with the user's object: those that save
    `self.model` save the plain model.

    Args:
        model: Compiled.
        data_of: From a batch to what the model's step takes, as `step_data` returns it.
        steps_per_execution: Int, what the model reports meanwhile.
    """
    step, own = model.train_step, vars(model).get("train_step")
    before = model.steps_per_execution

    def train_step(batch: Any) -> Any:
        logs = step(data_of(batch))
        if tf.inside_function():
            # Or each fit of the model would leave its graph in memory.
            private_api.forget_custom_gradients(tf.compat.v1.get_default_graph())
        return logs

    model.train_step = train_step
    model.steps_per_execution = steps_per_execution
    _forget_compiled(model)
    try:
        yield
    finally:
        # Without an attribute of its own, the model shows its class's step again.
        del model.train_step
        if own is not None:
            model.train_step = own
        model.steps_per_execution = before
        _forget_compiled(model)


def step_data(
    model: keras.Model,
    prepare: Callable[[Any], Any],
    class_weight: Mapping[int, float] | None,
) -> Callable[[Any], Any]:
    """Returns a function from a batch to what the model's own training step takes.

    A step that the model's class or user wrote gets what `prepare` returns, as it is.

    Args:
        model: Compiled.
        prepare: From a batch to x, (x, y) or (x, y, weights).
        class_weight: As for `keras.Model.fit`.
    """
    own, fitting = has_own_step(model), fitting_labels(model)

    def data_of(batch: Any) -> Any:
        data = prepare(batch)
        if own and class_weight is None:
            return data
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not own:
            _check_images(model, x)
            taken = tf.nest.flatten(getattr(model, "inputs", None) or [])
            if taken and all(tensor.dtype == "float32" for tensor in taken):
                # As Keras would, but by an operation that GPUs have.
                x = tf.nest.map_structure(
                    lambda v: tf.cast(v, tf.float32) if v.dtype == tf.uint8 else v, x
                )
            y = fitting(y)
            _create_variables(model, y)
        if class_weight is not None:
            weights = _weights(y, weights, class_weight)
        return keras.utils.pack_x_y_sample_weight(x, y, weights)

    return data_of


def _create_variables(model: keras.Model, y: Any) -> None:
    """Creates those of optimizer and metrics, while the first step is traced.

    Keras would within the step, and TensorFlow traces a step that creates variables once more.
    """
    if tf.distribute.has_strategy():
        return
    metrics = private_api.compile_metrics(model)
    with tf.init_scope():
        if model.built and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        one_output = len(getattr(model, "outputs", None) or ()) == 1 and isinstance(y, tf.Tensor)
        if metrics is not None and not metrics.built and one_output:
            metrics.build(keras.KerasTensor(y.shape, y.dtype.name), model.outputs[0])


def _weights(y: Any, weights: Any, class_weight: Mapping[int, float]) -> tf.Tensor:
    """Returns the weights of the labels' classes."""
    if weights is not None:
        raise ValueError("`class_weight` and `sample_weight` can't be given at the same time")
    if not isinstance(y, tf.Tensor):
        raise ValueError("`class_weight` is only supported for models with a single output")
    if y.shape.rank is None or y.shape.rank > 2:
        raise ValueError(
            "`class_weight` is only supported for labels of the shape (n,) or (n, classes): give "
            f"`sample_weight` instead, a weight for each value. Received: the shape {y.shape}"
        )
    if y.shape.rank == 2 and y.shape[1] != 1:
        classes = tf.argmax(y, axis=-1)
    else:
        classes = tf.cast(tf.round(tf.cast(tf.reshape(y, [-1]), tf.float64)), tf.int64)
    known = tf.constant(list(class_weight), tf.int64)
    weights = tf.constant(list(class_weight.values()), tf.float32)
    hits = tf.cast(classes[:, None] == known, tf.float32)
    return tf.linalg.matvec(hits, weights) + (1.0 - tf.reduce_sum(hits, axis=1))


def _check_images(model: keras.Model, x: Any) -> None:
    """Refuses images that the model does not take."""
    inputs = tf.nest.flatten(getattr(model, "inputs", None) or [])
    if isinstance(x, Mapping):
        by_name = {taken.name: taken for taken in inputs}
        pairs = [(given, by_name.get(name)) for name, given in x.items()]
    else:
        pairs = list(zip(tf.nest.flatten(x), inputs, strict=False))
    for given, taken in pairs:
        if not isinstance(given, tf.Tensor) or taken is None:
            continue
        if given.dtype == tf.string and taken.dtype != "string":
            raise ValueError(
                f"`x` holds strings, but the model's input {taken.name!r} takes numbers"
            )
        both = given.shape.rank == 4 and len(taken.shape) == 4
        if both and not given.shape.is_compatible_with(taken.shape):
            raise ValueError(
                f"The model takes images of the shape {tuple(taken.shape[1:])}, but those of the "
                f"data have {tuple(given.shape[1:])}"
            )


def _forget_compiled(model: keras.Model) -> None:
    """Makes Keras compile its steps anew: it keeps them, and what they were traced with."""
    model.train_function = model.test_function = model.predict_function = None

"""Training a Keras model with the augmentation inside its own compiled training step."""

import contextlib
import math
import time
from collections.abc import Iterator as Iterated
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from asl_fast import device
from asl_fast.augment import RandomAugment
from asl_fast.generator import ImageDataGenerator
from asl_fast.iterators import plain_errors
from asl_fast.options import AugmentOptions
from asl_fast.source import Source, own_iterator, source
from asl_fast.standardize import Standardize

__all__ = ["TrainingClock", "fit"]


class TrainingClock(keras.callbacks.Callback):
    """Times the training part of each epoch, without the validation.

    Attributes:
        seconds: One number an epoch, wall time; the first holds the tracing and compiling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._begin = time.perf_counter()
        self._end: float | None = None

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stops the clock where validation follows the epoch."""
        self._end = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops the clock where no validation did."""
        self.seconds.append((self._end or time.perf_counter()) - self._begin)


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: int | str = "auto",
    callbacks: Any = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: float | None = None,
    validation_steps: float | None = None,
    validation_batch_size: int | None = None,
    validation_freq: Any = 1,
    *,
    augment: RandomAugment | AugmentOptions | ImageDataGenerator | None = None,
    standardize: Standardize | None = None,
    seed: int = 0,
    precision: str | None = None,
    jit: bool | None = None,
) -> keras.callbacks.History:
    """Trains a compiled model as `keras.Model.fit` does, with the augmentation in its own step.

    The arguments are those of `keras.Model.fit` and mean the same but for what is said here.
    Callbacks, metrics, progress bar and history are Keras's own, and `model` itself is what they
    see and what is trained: it holds no augmentation, and saves as the plain Keras model it is.

    Args:
        model: Compiled.
        x: One of

            - what `flow`, `flow_from_directory` or `flow_from_dataframe` of an
              `ImageDataGenerator` returned, Keras's own or this package's: its images go through
              the generator's options in the training step;
            - arrays, as stored: images (n, height, width, channels), or a list that begins with
              them;
            - a `tf.data.Dataset` of batches `(x, y)` or `(x, y, sample_weight)`;
            - anything else that `keras.Model.fit` takes: it is handed over.
        y: Labels, where x is arrays.
        batch_size: Int, where x is arrays; 32 by default. The last batch holds what is left.
        epochs: Int, the epoch to end before.
        verbose: As Keras's.
        callbacks: As Keras's.
        validation_split: Float in [0, 1): the last share of the arrays, not augmented.
        validation_data: As Keras's. Where x is arrays, so are these stored: they go through
            `standardize`, or through the standardisation of `augment`.
        shuffle: Bool. Whether arrays are shuffled, anew at each epoch.
        class_weight: As Keras's; a class without one weighs 1.
        sample_weight: One weight a row, where x is arrays.
        initial_epoch: Int. For arrays also the epoch whose order and augmentation come first.
        steps_per_epoch: Number of batches an epoch, or None for one pass. A fraction is rounded
            up. Passes follow one another without an end, whatever their length.
        validation_steps: Number of batches of validation, or None for one pass; never more.
        validation_batch_size: As Keras's.
        validation_freq: As Keras's.
        augment: For arrays and datasets: what happens to the images. An `ImageDataGenerator`
            standardises too.
        standardize: For arrays and datasets: what follows the augmentation.
        seed: Int in [0, 2**32): of the order of arrays, and of `augment` but for `RandomAugment`.
        precision: For this training: the name of a Keras dtype policy, as "mixed_bfloat16", or
            "auto" for what the device is good at; output layers keep theirs. None: as it is.
        jit: For this training: whether XLA compiles the whole step. None: as it is.

    Returns:
        The model's `History`.

    Raises:
        ValueError: Arguments that don't go together; names them.
        InputError: An image file that can't be read; names it.
    """
    found = source(
        x,
        y,
        sample_weight,
        batch_size=batch_size,
        validation_split=0.0 if validation_data is not None else validation_split,
        shuffle=shuffle,
        augment=augment,
        standardize=standardize,
        seed=seed,
    )
    if validation_data is None:
        validation_data = found.held_out
    if isinstance(validation_data, list | tuple) and found.validation is not None:
        rows = validation_batch_size or batch_size or 32
        validation_data = found.validation(tuple(validation_data), rows)
    validation_data = own_iterator(validation_data)
    if isinstance(validation_data, tf.data.Dataset):
        validation_batch_size = None
        if validation_steps is not None:
            # Keras would go on where it stopped, and end early the next time.
            validation_data = validation_data.take(math.ceil(validation_steps))
            validation_steps = None
    steps = found.in_pass if steps_per_epoch is None else math.ceil(steps_per_epoch)
    with (
        _precision(model, precision),
        _jit(model, jit),
        _preparing(model, found, class_weight),
        plain_errors(),
    ):
        return model.fit(
            found.batches(initial_epoch, epochs, steps),
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=False,  # the source has done it
            initial_epoch=initial_epoch,
            steps_per_epoch=steps,
            validation_steps=validation_steps and math.ceil(validation_steps),
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )


@contextlib.contextmanager
def _preparing(
    model: keras.Model, found: Source, class_weight: Mapping[int, float] | None
) -> Iterated[None]:
    """Puts the source's work before the model's own training step, within what Keras compiles.

    Wrapping the step and not the model leaves the user's object in everybody's hands: callbacks
    that save `self.model` save the plain model.
    """
    step, own = model.train_step, vars(model).get("train_step")

    def train_step(batch: Any) -> Any:
        return step(_weighted(found.prepare(batch), class_weight))

    model.train_step = train_step
    _forget_compiled(model)
    try:
        yield
    finally:
        # Without one of its own, the model shows its class's step again.
        del model.train_step
        if own is not None:
            model.train_step = own
        _forget_compiled(model)


def _weighted(data: Any, class_weight: Mapping[int, float] | None) -> Any:
    """Returns (x, y, weights) with the weights of the labels' classes."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    if class_weight is None:
        return data
    if weights is not None:
        raise ValueError("`class_weight` and `sample_weight` can't be given at the same time")
    if not isinstance(y, tf.Tensor):
        raise ValueError("`class_weight` is only supported for models with a single output")
    if y.shape.rank == 2 and y.shape[1] != 1:
        classes = tf.argmax(y, axis=-1)
    else:
        classes = tf.cast(tf.round(tf.reshape(y, [-1])), tf.int64)
    known = tf.constant(list(class_weight), tf.int64)
    weights = tf.constant(list(class_weight.values()), tf.float32)
    hits = tf.cast(classes[:, None] == known, tf.float32)
    return x, y, tf.linalg.matvec(hits, weights) + (1.0 - tf.reduce_sum(hits, axis=1))


@contextlib.contextmanager
def _jit(model: keras.Model, jit: bool | None) -> Iterated[None]:
    """Lets XLA compile the model's steps or not, for a while."""
    before = model.jit_compile
    if jit is not None:
        model.jit_compile = jit
    try:
        yield
    finally:
        model.jit_compile = before


@contextlib.contextmanager
def _precision(model: keras.Model, name: str | None) -> Iterated[None]:
    """Gives the layers another dtype policy, for a while; float32 variables stay what they are.

    Small gradients would become zero in float16: there the optimizer scales the loss.
    """
    if name is None:
        yield
        return
    policy = keras.dtype_policies.get(device.choose_precision(name))
    layers = {layer: layer.dtype_policy for layer in _inner_layers(model)}
    optimizer = model.optimizer
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if policy.compute_dtype == "float16" and not scaled:
        model.optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    for layer in layers:
        layer.dtype_policy = policy
    try:
        yield
    finally:
        for layer, before in layers.items():
            layer.dtype_policy = before
        model.optimizer = optimizer


def _inner_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that compute, but for those that give the model's output."""
    # `layers` lists the top ones; what wrappers and nested models hold has no public list.
    inner = [layer for layer in model._flatten_layers(include_self=False) if not layer._layers]
    last = set()
    if not isinstance(model, keras.Sequential) and hasattr(model, "operations"):
        last = {id(output._keras_history.operation) for output in tf.nest.flatten(model.outputs)}
    elif model.layers:
        last = {id(model.layers[-1])}
    return [layer for layer in inner if id(layer) not in last]


def _forget_compiled(model: keras.Model) -> None:
    """Makes Keras compile its steps anew: it keeps them, and what they were traced with."""
    model.train_function = model.test_function = model.predict_function = None

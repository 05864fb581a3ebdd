"""Training a Keras model with the augmentation inside its own compiled training step."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Mapping
from collections.abc import Iterator as Iterated
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data import service
from asl_fast.data.pipeline import Span, without_none
from asl_fast.data.records import Records, damage_in_words
from asl_fast.generator.image_data_generator import ImageDataGenerator
from asl_fast.generator.iterators import plain_errors
from asl_fast.system import device
from asl_fast.system.errors import InputError
from asl_fast.training import distributed as distribution
from asl_fast.training import memory
from asl_fast.training import precision as precisions
from asl_fast.training.checkpoint import Checkpointing, Checkpoints
from asl_fast.training.feed import feed
from asl_fast.training.fused_batch_norm import pooled_at_once
from asl_fast.training.loop import TrainingLoop, choose_at_once
from asl_fast.training.source import Source, own_iterator, source
from asl_fast.training.targets import check_labels, fitting_labels
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize import Standardize

__all__ = ["TrainingClock", "fit", "traced"]

# Of sources whose batches have sizes of their own.
_DEFAULT_BATCH = 32

# Layers that change images at random without saying so in their names.
_MIXING = ("AugMix", "CutMix", "MixUp", "RandAugment")


class TrainingClock(keras.callbacks.Callback):
    """Times the training part of each epoch, without the validation.

    Attributes:
        seconds: One number an epoch, wall time; the first holds the tracing and compiling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._begin: float | None = None
        self._before = 0.0
        self._total_before = 0.0
        self._made = time.perf_counter()

    @property
    def total(self) -> float:
        """Wall time since this was made, and before a checkpoint was taken up."""
        return self._total_before + time.perf_counter() - self._made

    def get_state(self) -> dict[str, Any]:
        """Returns the times so far, also of the epoch at hand, as JSON holds them."""
        running = 0.0 if self._begin is None else self._elapsed()
        return {"seconds": self.seconds, "running": running, "total": self.total}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from such times."""
        self.seconds, self._before = list(state["seconds"]), state["running"]
        self._total_before = state["total"]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._begin = time.perf_counter()
        self._end: float | None = None

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stops the clock where validation follows the epoch."""
        self._end = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops the clock where no validation did."""
        self.seconds.append(self._elapsed())
        self._begin, self._before = None, 0.0

    def _elapsed(self) -> float:
        assert self._begin is not None
        return self._before + (self._end or time.perf_counter()) - self._begin


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
    jit: bool | str | None = None,
    resident: bool | None = None,
    steps_per_execution: int | None = None,
    checkpoints: Checkpoints | None = None,
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
            - `Records`: images and labels that are streamed from disk;
            - a `tf.data.Dataset` of batches `(x, y)` or `(x, y, sample_weight)`;
            - anything else that `keras.Model.fit` takes: it is handed over.
        y: Labels, where x is arrays.
        batch_size: Int, where x is arrays or records; 32 by default. The last batch holds what is
            left.
        epochs: Int, the epoch to end before.
        verbose: As Keras's.
        callbacks: As Keras's.
        validation_split: Float in [0, 1): the last share of the arrays, not augmented.
        validation_data: As Keras's, or `Records`. Where x is arrays or records, so are these
            stored: they go through `standardize`, or through the standardisation of `augment`.
        shuffle: Bool. Whether arrays and records are shuffled, anew at each epoch; records within
            16,384 or 256 MiB at a time, after their shards.
        class_weight: As Keras's; a class without one weighs 1.
        sample_weight: One weight a row, where x is arrays.
        initial_epoch: Int. For arrays also the epoch whose order and augmentation come first.
        steps_per_epoch: Number of batches an epoch, or None for one pass. A fraction is rounded
            up. Passes follow one another without an end, whatever their length.
        validation_steps: Number of batches of validation, or None for one pass; never more.
        validation_batch_size: As Keras's.
        validation_freq: As Keras's.
        augment: For arrays, records and datasets: what happens to the images. An
            `ImageDataGenerator` standardises too.
        standardize: For arrays, records and datasets: what follows the augmentation.
        seed: Int in [0, 2**32): of the order of arrays, and of `augment` but for `RandomAugment`.
        precision: For this training: the name of a Keras dtype policy, as "mixed_bfloat16", or
            "auto" for what the device is good at; output layers keep theirs. None: as it is.
        jit: For this training: whether XLA compiles the whole step, or "auto": on GPUs. None: as
            it is.
        resident: Whether the images stay on the device as they are stored, and only their numbers
            go there at each step. None: where they are in memory, and take at most half of the
            device's. What is trained does not depend on it.
        steps_per_execution: Int, how many steps are taken between two looks at callbacks, progress
            bar and Ctrl-C. None: as the model was compiled, or if that is 1 what suits the device;
            1 where a callback of yours has something to do at each batch, on one device.
        checkpoints: Where to keep the training's state. If a checkpoint is there, the training
            goes on from it, and ends as one that was never stopped: from arrays or records,
            trained on a CPU, to the last bit. From these it is taken up within an epoch, otherwise
            at the last whole one. Ctrl-C and SIGTERM end the training after the step at hand and a
            checkpoint, with `KeyboardInterrupt` and `SystemExit(143)`. Of callbacks those are
            continued that have `get_state()` and `set_state(state)`; others start anew.

    Returns:
        The model's `History`.

    Raises:
        ValueError: Arguments, data or labels that don't go together, or with the model; says what.
        InputError: An image file that can't be read, too little memory, or checkpoints of another
            training; says which.
        DivergenceError: The loss is not finite; names the step. Callbacks are not called for that
            step, so nothing is saved of it.
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
    check_labels(model, getattr(x, "y", None) if y is None else y)
    if validation_data is None:
        validation_data = found.held_out
    validation_records = validation_data
    if isinstance(validation_data, list | tuple | Records) and found.validation is not None:
        rows = validation_batch_size or batch_size or 32
        if not isinstance(validation_data, Records):
            validation_data = tuple(validation_data)
            check_labels(model, validation_data[1] if len(validation_data) > 1 else None)
        validation_data = found.validation(validation_data, rows)
    validation_data = own_iterator(validation_data)
    if isinstance(validation_data, tf.data.Dataset):
        validation_batch_size = None
        if validation_steps is not None:
            # Keras would go on where it stopped, and end early the next time.
            validation_data = validation_data.take(math.ceil(validation_steps))
            validation_steps = None
        validation_data = _with_fitting_labels(validation_data, model)
    if found.augments:
        _warn_of_augmenting_layers(model)
    if steps_per_execution is not None and steps_per_execution < 1:
        raise ValueError(
            f"`steps_per_execution` must be at least 1. Received: {steps_per_execution!r}"
        )
    steps = found.in_pass if steps_per_epoch is None else math.ceil(steps_per_epoch)
    strategy = distribution.strategy_of(model)
    on_all = strategy is not None and found.pieces is not None and steps is not None
    # All workers must take as many, whatever callbacks one of them has.
    heeded = None if on_all else callbacks
    at_once = steps_per_execution or _steps_at_once(model, found, steps, heeded)
    span = Span(initial_epoch, epochs, steps)
    with contextlib.ExitStack() as stack:
        keeper = None
        if checkpoints is not None:
            callbacks = tf.nest.flatten(callbacks) if callbacks else []
            exact = found.exact and (on_all or _looped(model, found, steps))
            writes = distribution.is_chief(strategy)
            if writes:
                stack.enter_context(checkpoints)
            keeper = Checkpointing(
                checkpoints, steps if exact else None, initial_epoch, callbacks, writes=writes
            )
            callbacks = [*callbacks, stack.enter_context(keeper)]
            span = span._replace(first_epoch=keeper.epoch, done=keeper.done)
            if span.done < (steps or 0):
                # Several steps are taken at a time from where the training stopped, too.
                at_once = math.gcd(at_once, span.done)
            if keeper.epoch >= epochs:
                keeper.restore(model)
        stack.enter_context(_precision(model, precision))
        stack.enter_context(_jit(model, jit))
        stack.enter_context(_memory_in_words(found))
        stack.enter_context(damage_in_words(x, validation_records))
        if isinstance(x, Records) and x.service:
            waiting = stack.enter_context(service.Waiting(x.service))
            callbacks = [*(tf.nest.flatten(callbacks) if callbacks else []), waiting]
        stack.enter_context(plain_errors())
        if on_all:
            data, loop = stack.enter_context(
                _fed_to_all(model, strategy, found, class_weight, span, at_once)
            )
            if keeper is not None:
                keeper.agree = loop.agree
        else:
            for_gpu = device.accelerator() is not None
            if not for_gpu and not model.jit_compile:
                stack.enter_context(pooled_at_once(model))
            data = stack.enter_context(
                _fed(model, found, class_weight, span, at_once, resident, for_gpu)
            )
            if span.done:
                # Metrics get their variables when a step is traced, and are to be restored before.
                model.train_function.traced(iter(data))
        history = model.fit(
            data,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=False,  # the source has done it
            initial_epoch=span.first_epoch,
            steps_per_epoch=steps,
            validation_steps=validation_steps and math.ceil(validation_steps),
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )
        if keeper is not None:
            keeper.put_history(model)
        return history


def traced(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = None,
    augment: RandomAugment | AugmentOptions | ImageDataGenerator | None = None,
    standardize: Standardize | None = None,
    precision: str | None = None,
    jit: bool | str | None = None,
    resident: bool | None = None,
) -> tuple[Any, Source]:
    """Traces the steps that `fit` would take on a GPU, without taking any.

    The arguments are those of `fit`.

    Returns:
        The `ConcreteFunction` that loops over the training steps, and where its batches come from.
    """
    found = source(
        x,
        y,
        None,
        batch_size=batch_size,
        validation_split=0.0,
        shuffle=True,
        augment=augment,
        standardize=standardize,
        seed=0,
    )
    at_once = _steps_at_once(model, found, found.in_pass, None)
    with (
        _precision(model, precision),
        _jit(model, jit),
        _fed(model, found, None, Span(0, 1, found.in_pass), at_once, resident, True) as batches,
    ):
        return model.train_function.traced(iter(batches)), found


@contextlib.contextmanager
def _fed(
    model: keras.Model,
    found: Source,
    class_weight: Mapping[int, float] | None,
    span: Span,
    at_once: int,
    resident: bool | None,
    for_gpu: bool,
) -> Iterated[Any]:
    """Yields what Keras is to iterate over, while the model's step takes it.

    Args:
        model: Compiled.
        found: Where the batches come from.
        class_weight: As Keras's.
        span: Which part of the training.
        at_once: Int, steps a call.
        resident: As for `fit`.
        for_gpu: Whether the step is to run on a GPU.
    """
    looped = _looped(model, found, span.steps)
    chosen = feed(found, span, at_once, resident, looped=looped)
    with _preparing(model, chosen.prepare, class_weight, at_once):
        if looped:
            # Keras takes it for the function that it would have made itself.
            model.train_function = TrainingLoop(
                model,
                span,
                at_once,
                divided=chosen.divided,
                stored=chosen.stored,
                by_xla=for_gpu,  # TensorFlow has no kernel for GPUs that gathers bytes
            )
        yield chosen.batches


@contextlib.contextmanager
def _fed_to_all(
    model: keras.Model,
    strategy: Any,
    found: Source,
    class_weight: Mapping[int, float] | None,
    span: Span,
    at_once: int,
) -> Iterated[tuple[Any, distribution.DistributedLoop]]:
    """Yields what Keras is to iterate over, while the step is taken by all devices; and the loop.

    The arguments are those of `_fed`.
    """
    rebuilt: Callable[[Any], Any] = lambda values: values  # noqa: E731

    def pieces(context: tf.distribute.InputContext) -> tf.data.Dataset:
        nonlocal rebuilt
        assert found.pieces is not None
        dataset, rebuilt = without_none(found.pieces(span, context))
        return dataset

    def prepare(values: Any) -> Any:
        batch, weight = rebuilt(values)
        x, y, weights = keras.utils.unpack_x_y_sample_weight(found.prepare(batch))
        own = tf.fill([tf.shape(tf.nest.flatten(x)[0])[0]], weight)
        return x, y, own if weights is None else own * tf.cast(weights, tf.float32)

    with (
        _preparing(model, prepare, class_weight, at_once),
        distribution.distributed(model, strategy, pieces, prepare, span, at_once) as loop,
    ):
        yield tf.data.Dataset.from_tensors(0).repeat(), loop


def _looped(model: keras.Model, found: Source, steps: int | None) -> bool:
    """Returns whether a `TrainingLoop` takes the steps.

    It does where the model leaves the way from step to step to Keras, as compiled code.
    """
    return (
        found.own
        and steps is not None
        and not model.run_eagerly
        and not tf.config.functions_run_eagerly()
        and not tf.distribute.has_strategy()
        and model._distribute_strategy is None
        and type(model).make_train_function is keras.Model.make_train_function
    )


def _steps_at_once(model: keras.Model, found: Source, steps: int | None, callbacks: Any) -> int:
    """Returns how many steps to take between two looks of the host."""
    if model.steps_per_execution > 1 or steps is None or _by_batch(callbacks):
        return model.steps_per_execution
    batch_size = found.kept.batch_size if found.kept is not None else _DEFAULT_BATCH
    return choose_at_once(steps, batch_size, "GPU" if device.accelerator() else "CPU")


def _by_batch(callbacks: Any) -> bool:
    """Returns whether a callback, not of Keras or this package, wants to hear of each batch."""
    callbacks = getattr(callbacks, "callbacks", callbacks)
    for callback in tf.nest.flatten(callbacks) if callbacks else []:
        for name in (
            "on_train_batch_begin",
            "on_train_batch_end",
            "on_batch_begin",
            "on_batch_end",
        ):
            method = getattr(callback, name, None)
            if not getattr(method, "__module__", "keras.").startswith(("keras.", "asl_fast.")):
                return True
    return False


@contextlib.contextmanager
def _preparing(
    model: keras.Model,
    prepare: Callable[[Any], Any],
    class_weight: Mapping[int, float] | None,
    at_once: int,
) -> Iterated[None]:
    """Puts the source's work before the model's own training step, within what is compiled.

    Wrapping the step and not the model leaves the user's object in everybody's hands: callbacks
    that save `self.model` save the plain model.
    """
    step, own = model.train_step, vars(model).get("train_step")
    before = model.steps_per_execution
    fitting = fitting_labels(model)

    def train_step(batch: Any) -> Any:
        data = prepare(batch)
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        _check_images(model, x)
        if y is not None:
            y = fitting(y)
            data = keras.utils.pack_x_y_sample_weight(x, y, weights)
        _create_variables(model, y)
        return step(_weighted(data, class_weight))

    model.train_step = train_step
    model.steps_per_execution = at_once
    _forget_compiled(model)
    try:
        yield
    finally:
        # Without one of its own, the model shows its class's step again.
        del model.train_step
        if own is not None:
            model.train_step = own
        model.steps_per_execution = before
        _forget_compiled(model)


def _create_variables(model: keras.Model, y: Any) -> None:
    """Creates those of optimizer and metrics, while the first step is traced.

    Keras would within the step, and TensorFlow traces a step that creates variables once more.
    """
    if tf.distribute.has_strategy():
        return
    metrics = model._compile_metrics
    with tf.init_scope():
        if model.built and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        one_output = len(getattr(model, "outputs", None) or ()) == 1 and isinstance(y, tf.Tensor)
        if metrics is not None and not metrics.built and one_output:
            metrics.build(keras.KerasTensor(y.shape, y.dtype.name), model.outputs[0])


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


def _check_images(model: keras.Model, x: Any) -> None:
    """Refuses images that the model does not take."""
    images, wanted = (tf.nest.flatten(of) for of in (x, getattr(model, "inputs", None) or []))
    for given, taken in zip(images, wanted, strict=False):
        if given.shape.rank == 4 and not given.shape.is_compatible_with(taken.shape):
            raise ValueError(
                f"The model takes images of the shape {tuple(taken.shape[1:])}, but those of the "
                f"data have {tuple(given.shape[1:])}"
            )


def _warn_of_augmenting_layers(model: keras.Model) -> None:
    layers = [type(layer).__name__ for layer in model._flatten_layers(include_self=False)]
    found = sorted({name for name in layers if name.startswith("Random") or name in _MIXING})
    if found:
        warnings.warn(
            f"`{found[0]}` in the model augments too, so images are augmented twice: leave out "
            "one of the two",
            stacklevel=3,
        )


def _with_fitting_labels(dataset: tf.data.Dataset, model: keras.Model) -> tf.data.Dataset:
    fitting = fitting_labels(model)
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2 or not isinstance(spec[1], tf.TensorSpec):
        return dataset
    return dataset.map(lambda x, y, *weights: (x, fitting(y), *weights))


@contextlib.contextmanager
def _memory_in_words(found: Source) -> Iterated[None]:
    """Says what to do where the device's memory does not suffice."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        size = (
            ""
            if found.kept is None
            else (
                f" With `resident` the images take {memory.megabytes(found.kept.size)} of it: "
                "`resident=False` (--resident off) gives them back."
            )
        )
        raise InputError(
            f"The memory of the device is not enough.{size} A smaller batch takes less, and so "
            "does mixed precision."
        ) from error


@contextlib.contextmanager
def _jit(model: keras.Model, jit: bool | str | None) -> Iterated[None]:
    """Lets XLA compile the model's steps or not, for a while."""
    before = model.jit_compile
    if isinstance(jit, str):
        jit = device.choose_jit(jit, model).value
    if jit is not None:
        model.jit_compile = jit
    try:
        yield
    finally:
        model.jit_compile = before


@contextlib.contextmanager
def _precision(model: keras.Model, name: str | None) -> Iterated[None]:
    """Trains under another dtype policy, for a while."""
    if name is None:
        yield
        return
    with precisions.under(model, precisions.choose(name).value):
        yield


def _forget_compiled(model: keras.Model) -> None:
    """Makes Keras compile its steps anew: it keeps them, and what they were traced with."""
    model.train_function = model.test_function = model.predict_function = None

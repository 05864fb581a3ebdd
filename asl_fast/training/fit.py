"""Training a Keras model with the augmentation inside its own compiled training step."""

import contextlib
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data import service
from asl_fast.data.pipeline import Span, mapped
from asl_fast.data.records import Records, damage_in_words
from asl_fast.generator.iterators import plain_errors
from asl_fast.generator.keras_iterators import replace_keras_iterator
from asl_fast.system import device, private_api
from asl_fast.system.errors import InputError
from asl_fast.training import distributed, memory
from asl_fast.training import precision as precisions
from asl_fast.training.arguments import check_arguments, check_model, flat
from asl_fast.training.arrays import as_arrays, is_arrays
from asl_fast.training.checkpoint import Checkpointing, Checkpoints
from asl_fast.training.feed import Feed, feed
from asl_fast.training.fused_batch_norm import fused
from asl_fast.training.loop import TrainingLoop, choose_steps_per_execution
from asl_fast.training.preprocessing import Augmentation, repacked
from asl_fast.training.source import (
    DEFAULT_BATCH_SIZE,
    KerasSource,
    PreparedSource,
    Source,
    StoredSource,
    make_source,
)
from asl_fast.training.step import preparing, step_data
from asl_fast.training.targets import check_labels, fitting_labels, has_own_step
from asl_fast.transforms.standardize import Standardize

__all__ = ["fit", "traced"]

# Layers that change images at random without saying so in their names.
_MIXING = ("AugMix", "CutMix", "MixUp", "RandAugment")


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
    augment: Any = None,
    standardize: Any = None,
    targets: Any = None,
    seed: int | None = 0,
    precision: str | None = None,
    jit: bool | str | None = None,
    resident: bool | None = None,
    steps_per_execution: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> keras.callbacks.History:
    """Trains a compiled model as `keras.Model.fit` does, with the augmentation in its own step.

    The arguments mean what they do in `keras.Model.fit`, except as stated here. Callbacks, metrics,
    progress bar and history are Keras's own. They see `model` itself, which holds no augmentation
    and saves as the plain Keras model that it is. A `train_step` or `compute_loss` of the model's
    own gets what Keras gives it; otherwise labels may be one-hot or integers, whatever the loss, if
    the model's output shape is known.

    Args:
        model: Compiled.
        x: An iterator of an `ImageDataGenerator`, Keras's own or this package's, whose options are
            applied in the training step; arrays, as stored, in Keras's structures; `Records`,
            streamed from disk; a `tf.data.Dataset` of batches, augmented anew at each epoch; or
            anything else that `keras.Model.fit` takes, which is passed on.
        y: Labels, where x is arrays: arrays too, or lists of numbers.
        batch_size: Int, where x is arrays or records; 32 by default. The last batch may be smaller.
        epochs: Int, the epoch to end before.
        verbose: As in Keras.
        callbacks: As in Keras.
        validation_split: The last part of the arrays, not augmented.
        validation_data: As in Keras, or `Records`. Standardised as the training images are, but
            for iterators of a generator, which do so by themselves, and arrays beside one.
        shuffle: Bool, whether arrays and records are shuffled, anew at each epoch. Records are
            shuffled by shards, then within 16,384 records or 256 MiB.
        class_weight: As in Keras; a class without one weighs 1.
        sample_weight: As in Keras, where x is arrays.
        initial_epoch: Int. Arrays start with this epoch's order and augmentation.
        steps_per_epoch: Batches per epoch, rounded up, or None for one pass. Passes follow one
            another endlessly, whatever their length.
        validation_steps: Validation batches, rounded up, or None; at most one pass.
        validation_batch_size: As in Keras.
        validation_freq: As in Keras.
        augment: `RandomAugment`, `AugmentOptions` or an `ImageDataGenerator`, which standardises
            too. Where its `then` holds a layer that mixes images, as `keras.layers.MixUp`, labels
            are mixed too: integers become one-hot first, and a loss that takes integers is refused.
        standardize: `Standardize`: what follows the augmentation. Images are the inputs of rank 4.
            Both may be lists or dictionaries as `x` is one, with a value for each input or None;
            they must be where several images are augmented, or where dtypes and channels don't
            tell what is an image. Augmentations of the same options and seed move alike.
        targets: What targets with rows and columns are, where images are augmented: "masks", which
            move with their images by the nearest pixel; "images", augmented and standardised as
            theirs; or "as they are". A list or dictionary for several. Weights of pixels follow.
        seed: Int in [0, 2**32), of the order of arrays and records, and of `augment` unless that
            is a `RandomAugment`, which has its own; None draws one.
        precision: Name of a Keras dtype policy for this training, such as "mixed_bfloat16", or
            "auto" for what suits the device. Output layers keep theirs, and so do layers that were
            given another than the rest of the model. None changes nothing.
        jit: Whether XLA compiles the whole step in this training, or "auto": on GPUs. None changes
            nothing.
        resident: Whether the images stay on the device as stored, so that only their indices go
            there at each step. None: where they are in memory and take at most half of the
            device's. The results don't depend on it.
        steps_per_execution: Int, how many steps run between two chances for callbacks, progress
            bar and Ctrl-C. None: as the model was compiled, or if that is 1 what suits the device;
            1 where a callback handles batches, on one device.
        checkpoints: Where to keep the training's state. A training whose checkpoint is there
            continues from it. From arrays or records it resumes within an epoch, and on a CPU ends
            bit for bit as one that was never stopped; otherwise it resumes at the last whole
            epoch, an iterator with a `seed` with that epoch's order and augmentation. Ctrl-C and
            SIGTERM end the training after the current step and a checkpoint, with
            `KeyboardInterrupt` and `SystemExit(143)`. Callbacks with `get_state()` and
            `set_state(state)` continue too; others start anew.

    Returns:
        The model's `History`.

    Raises:
        ValueError: Arguments, data or labels that don't go together, or with the model; says what.
        InputError: An image file that can't be read, too little memory, or checkpoints of another
            training; says which.
        DivergenceError: The loss is not finite; names the step. Callbacks are not called for that
            step, so nothing is saved of it.
    """
    check_model(model)
    check_arguments(locals())
    y = as_arrays("y", y)
    source = make_source(
        model,
        x,
        y,
        sample_weight,
        batch_size=batch_size and int(batch_size),
        validation_split=0.0 if validation_data is not None else validation_split,
        shuffle=bool(shuffle),
        augment=augment,
        standardize=standardize,
        targets=targets,
        seed=random.randrange(2**32) if seed is None else int(seed),
    )
    check_labels(model, getattr(x, "y", None) if y is None else y)
    validation = _validation(
        model, source, validation_data, validation_batch_size or batch_size, validation_steps
    )
    if source.augments:
        _warn_of_augmenting_layers(model)
    steps = source.steps_per_pass if steps_per_epoch is None else math.ceil(steps_per_epoch)
    span = Span(int(initial_epoch), int(epochs), steps)
    training = _Training(model, source, span, callbacks, steps_per_execution)
    with contextlib.ExitStack() as stack:
        stack.callback(memory.collect_now_and_then)
        train = stack.enter_context(_alone(model))
        if checkpoints is not None:
            stack.enter_context(training.resumed(checkpoints))
        stack.enter_context(_precision(model, precision))
        stack.enter_context(_jit(model, jit))
        stack.enter_context(_readable_errors(source, x, validation_data))
        if isinstance(x, Records) and x.service:
            training.add_callback(stack.enter_context(service.Waiting(x.service)))
        history = train(
            stack.enter_context(training.compiled(class_weight, resident)),
            epochs=epochs,
            verbose=verbose,
            callbacks=training.callbacks,
            shuffle=False,  # the source has done it
            initial_epoch=training.span.first_epoch,
            steps_per_epoch=steps,
            validation_freq=validation_freq,
            **validation,
        )
        training.complete_history()
        return history


def traced(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = None,
    augment: Augmentation = None,
    standardize: Standardize | None = None,
    precision: str | None = None,
    jit: bool | str | None = None,
    resident: bool | None = None,
) -> Any:
    """Traces the steps that `fit` would run on a GPU, without running any.

    The arguments are those of `fit`.

    Returns:
        The `ConcreteFunction` that loops over the training steps.
    """
    source = make_source(
        model,
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
    training = _Training(model, source, Span(0, 1, source.steps_per_pass))
    with (
        _precision(model, precision),
        _jit(model, jit),
        training.on_one_device(None, resident, on_gpu=True) as batches,
    ):
        return model.train_function.traced(iter(batches))


class _Training:
    """A training of a model on a source: which part of it, with which callbacks and loop."""

    def __init__(
        self,
        model: keras.Model,
        source: Source,
        span: Span,
        callbacks: Any = None,
        steps_per_execution: int | None = None,
    ) -> None:
        self.callbacks = callbacks
        self.span = span
        self._model = model
        self._source = source
        self._strategy = private_api.strategy_of(model)
        self._distributed = (
            self._strategy is not None
            and not isinstance(source, KerasSource)
            and span.steps is not None
        )
        self._steps_per_execution = int(steps_per_execution or self._choose_steps_per_execution())
        self._checkpointing: Checkpointing | None = None
        if span.steps is None:
            begin = lambda epoch, logs: source.begin_epoch(epoch)  # noqa: E731
            self.add_callback(keras.callbacks.LambdaCallback(on_epoch_begin=begin))

    def add_callback(self, callback: keras.callbacks.Callback) -> None:
        self.callbacks = [*flat(self.callbacks), callback]

    @contextlib.contextmanager
    def resumed(self, checkpoints: Checkpoints) -> Iterator[None]:
        """Continues from the last checkpoint, if there is one, and saves others."""
        steps = self.span.steps
        exact = self._source.resumable and (self._distributed or self._is_looped())
        writes = distributed.is_chief(self._strategy)
        with checkpoints if writes else contextlib.nullcontext():
            self._checkpointing = Checkpointing(
                checkpoints,
                steps if exact else None,
                self.span.first_epoch,
                flat(self.callbacks),
                writes=writes,
            )
            with self._checkpointing as checkpointing:
                self.add_callback(checkpointing)
                self._source.resume((checkpointing.epoch - self.span.first_epoch) * (steps or 0))
                self.span = self.span._replace(
                    first_epoch=checkpointing.epoch, done=checkpointing.done
                )
                if self.span.done < (steps or 0):
                    # Calls begin where the training stopped, too.
                    self._steps_per_execution = math.gcd(self._steps_per_execution, self.span.done)
                if checkpointing.epoch >= self.span.epochs:
                    checkpointing.restore(self._model)
                yield

    def complete_history(self) -> None:
        """Puts the epochs before a resumption into the model's history."""
        if self._checkpointing is not None:
            self._checkpointing.put_history(self._model)

    @contextlib.contextmanager
    def compiled(
        self, class_weight: Mapping[int, float] | None, resident: bool | None
    ) -> Iterator[Any]:
        """Yields what Keras is to iterate over, while the model's step trains on the source."""
        if self._distributed:
            with distributed.distributed(
                self._model, self._source, class_weight, self.span, self._steps_per_execution
            ) as loop:
                if self._checkpointing is not None:
                    self._checkpointing.agree = loop.agree
                yield tf.data.Dataset.from_tensors(0).repeat()  # the loop has the batches
            return
        on_gpu = device.accelerator() is not None
        fusible = not on_gpu and not self._model.jit_compile
        with (
            fused(self._model) if fusible else contextlib.nullcontext(),
            self.on_one_device(class_weight, resident, on_gpu=on_gpu) as batches,
        ):
            if self.span.done:
                # Metrics must have their variables, which tracing creates, to be restored.
                self._model.train_function.traced(iter(batches))
            yield batches

    @contextlib.contextmanager
    def on_one_device(
        self, class_weight: Mapping[int, float] | None, resident: bool | None, *, on_gpu: bool
    ) -> Iterator[Any]:
        """As `compiled`, without a strategy."""
        looped, steps = self._is_looped(), self._steps_per_execution
        chosen = feed(self._source, self.span, steps, resident, looped=looped)
        if self._strategy is not None and not isinstance(self._source, KerasSource):
            # Keras splits batches among the devices, and a `Batch` holds more than rows.
            chosen = Feed(mapped(chosen.batches, chosen.prepare), lambda data: data)
        with preparing(self._model, step_data(self._model, chosen.prepare, class_weight), steps):
            if looped:
                # Keras takes it for the function that it would have made itself.
                self._model.train_function = TrainingLoop(
                    self._model,
                    self.span,
                    steps,
                    merged=chosen.merged,
                    tensors=chosen.tensors,
                    xla_gather=on_gpu,  # TensorFlow has no kernel for GPUs that gathers bytes
                )
            yield chosen.batches

    def _is_looped(self) -> bool:
        """Returns whether a `TrainingLoop` runs the steps.

        It does where the model leaves the loop over compiled steps to Keras.
        """
        return (
            not isinstance(self._source, KerasSource)
            and self.span.steps is not None
            and not self._model.run_eagerly
            and not tf.config.functions_run_eagerly()
            and not tf.distribute.has_strategy()
            and self._strategy is None
            and type(self._model).make_train_function is keras.Model.make_train_function
        )

    def _choose_steps_per_execution(self) -> int:
        compiled, steps = self._model.steps_per_execution, self.span.steps
        # With a strategy all workers must agree, whichever callbacks one of them has.
        by_batch = not self._distributed and _handles_batches(self.callbacks)
        # Keras's own loop over several steps fails where a strategy shares out its batches.
        by_keras = self._strategy is not None and not self._distributed
        if compiled > 1 or steps is None or by_batch or by_keras:
            return compiled
        kind = "GPU" if device.accelerator() else "CPU"
        return choose_steps_per_execution(steps, self._source.batch_size, kind)


def _handles_batches(callbacks: Any) -> bool:
    """Returns whether a callback must see each batch.

    Those of Keras and this package mostly look at epochs alone, but some of them count batches.
    """
    return any(
        _counts_batches(callback) or _has_own_batch_method(callback)
        for callback in flat(getattr(callbacks, "callbacks", callbacks))
    )


def _counts_batches(callback: Any) -> bool:
    """Returns whether a callback of Keras saves or logs at numbers of batches."""
    return any(
        getattr(callback, name, "epoch") not in ("epoch", None, False)
        for name in ("save_freq", "update_freq")
    )


def _has_own_batch_method(callback: Any) -> bool:
    names = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    methods = (getattr(callback, name, None) for name in names)
    return any(
        not getattr(method, "__module__", "keras.").startswith(("keras.", "asl_fast."))
        for method in methods
    )


def _validation(
    model: keras.Model, source: Source, data: Any, batch_size: int | None, steps: float | None
) -> dict[str, Any]:
    """Returns the arguments of `keras.Model.fit` for the validation."""
    data = replace_keras_iterator(data)
    if isinstance(source, StoredSource) and data is None:
        data = source.held_out
    if isinstance(data, list | tuple):
        data = tuple(as_arrays("validation_data", part) for part in data)
        check_labels(model, data[1] if len(data) > 1 else None)
    elif not isinstance(data, Records) and is_arrays(data):
        data = (as_arrays("validation_data", data),)
    if isinstance(source, PreparedSource) and _is_stored(source, data):
        data = source.validation(data, batch_size or DEFAULT_BATCH_SIZE)
    if isinstance(data, tf.data.Dataset):
        batch_size = None
        if steps is not None:
            # Keras would continue where it stopped, and end early the next time.
            data, steps = data.take(math.ceil(steps)), None
        if not has_own_step(model):
            data = _with_fitting_labels(model, data)
    return {
        "validation_data": data,
        "validation_steps": steps and math.ceil(steps),
        "validation_batch_size": batch_size,
    }


def _with_fitting_labels(model: keras.Model, data: tf.data.Dataset) -> tf.data.Dataset:
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2 or not isinstance(spec[1], tf.TensorSpec):
        return data
    fitting = fitting_labels(model)
    return mapped(data, lambda batch: repacked(batch, batch[0], fitting(batch[1]), *batch[2:]))


def _is_stored(source: PreparedSource, data: Any) -> bool:
    """Returns whether validation data must be standardised; refuses what can't be."""
    if isinstance(data, Records):
        return True
    if isinstance(data, tuple):
        return source.standardizes or isinstance(source, StoredSource)
    # Iterators of a generator, and subclasses of Keras's, standardise by themselves.
    if data is None or hasattr(data, "image_data_generator") or not source.standardizes:
        return False
    if isinstance(data, tf.data.Dataset):
        ancestors = private_api.dataset_and_ancestors(data)
        return not any(hasattr(ancestor, "image_data_generator") for ancestor in ancestors)
    raise ValueError(
        "`validation_data` must be arrays, Records, a tf.data.Dataset or an iterator of an "
        "ImageDataGenerator where `fit` standardises the training images, since it standardises "
        f"those too. Received: {type(data).__name__}"
    )


def _warn_of_augmenting_layers(model: keras.Model) -> None:
    layers = [type(layer).__name__ for layer in private_api.flatten_layers(model)]
    augmenting = sorted({name for name in layers if name.startswith("Random") or name in _MIXING})
    if augmenting:
        warnings.warn(
            f"`{augmenting[0]}` in the model augments too, so images are augmented twice: leave "
            "out one of the two",
            stacklevel=3,
        )


@contextlib.contextmanager
def _alone(model: keras.Model) -> Iterator[Callable[..., keras.callbacks.History]]:
    """Yields Keras's `fit`, and refuses other trainings of the model within the block.

    They would find this one's step and loop in the model.
    """
    names = ("fit", "train_on_batch")
    own = {name: vars(model)[name] for name in names if name in vars(model)}

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise ValueError(
            "`model` is being trained by `asl_fast.fit`, and can't be trained within that, as by a "
            "callback: train it afterwards, or a copy of it"
        )

    if own.get("fit") is not None and getattr(own["fit"], "__module__", "") == __name__:
        refuse()
    train = model.fit
    for name in names:
        setattr(model, name, refuse)
    try:
        yield train
    finally:
        for name in names:
            delattr(model, name)
        for name, value in own.items():
            setattr(model, name, value)


@contextlib.contextmanager
def _readable_errors(source: Source, *data: Any) -> Iterator[None]:
    """Raises TensorFlow's errors about memory and the user's files as `InputError`."""
    try:
        with damage_in_words(*data), plain_errors():
            yield
    except tf.errors.ResourceExhaustedError as error:
        resident = ""
        if source.tensors is not None:
            resident = (
                f" With `resident` the images take {memory.megabytes(source.nbytes)} of it: "
                "`resident=False` (--resident off) gives them back."
            )
        raise InputError(
            f"The device's memory is too small.{resident} A smaller batch takes less, and so does "
            "mixed precision."
        ) from error


@contextlib.contextmanager
def _jit(model: keras.Model, jit: bool | str | None) -> Iterator[None]:
    """Lets XLA compile the model's steps or not, within the block."""
    before = model.jit_compile
    if isinstance(jit, str):
        jit = device.choose_jit(jit, model).value
    if jit is not None:
        model.jit_compile = jit
    try:
        yield
    finally:
        model.jit_compile = before


def _precision(model: keras.Model, name: str | None) -> contextlib.AbstractContextManager[None]:
    if name is None:
        return contextlib.nullcontext()
    return precisions.under(model, precisions.choose(name).value)

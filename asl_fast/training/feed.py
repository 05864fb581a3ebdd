"""Feeds batches to the training step: gathered on the device by index, or streamed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from asl_fast.data.pipeline import Span, without_none
from asl_fast.system import device
from asl_fast.system.errors import InputError
from asl_fast.training import memory
from asl_fast.training.source import Source

__all__ = ["Feed", "feed"]


class Feed(NamedTuple):
    """What Keras iterates over, and what the training step makes of it.

    Attributes:
        batches: What Keras is to iterate over.
        prepare: From a batch with its data to (x, y) or (x, y, weights).
        tensors: The data on the device, from which batches without data are gathered; None where
            batches bring their data.
        merged: The batch size where each element merges the batches of several steps, or None.
    """

    batches: Any
    prepare: Callable[[Any], Any]
    tensors: Any = None
    merged: int | None = None


def feed(
    source: Source, span: Span, steps_per_execution: int, resident: bool | None, *, looped: bool
) -> Feed:
    """Puts the data on the device, or streams them there.

    Args:
        source: Where the batches come from.
        span: Which part of the training.
        steps_per_execution: Int, steps per call.
        resident: Bool, whether the data stay on the device; None where they fit.
        looped: Bool, whether a `TrainingLoop` takes the steps, which resident data need.

    Raises:
        InputError: Resident data were asked for and are impossible; says why.
    """
    if resident and source.tensors is None:
        raise InputError("`resident` can't be True: the images are not in memory as arrays")
    if (
        source.tensors is not None
        and span.steps is not None
        and _stay(source.nbytes, resident, looped=looped)
    ):
        # Batches are merged only where no pass ends among them.
        mergeable = source.mergeable and span.steps == source.steps_per_pass
        merged = steps_per_execution if mergeable else 1
        return Feed(
            _endless(source.indices(span, merged)),
            source.prepare,
            memory.on_device(source.tensors),
            source.batch_size if merged > 1 else None,
        )
    batches = source.batches(span)
    if not looped:
        return Feed(batches, source.prepare)
    batches, place = _endless(batches), device.accelerator()
    if place is None:
        return Feed(batches, source.prepare)
    batches, rebuilt = without_none(batches)  # `prefetch_to_device` refuses None
    batches = batches.apply(tf.data.experimental.prefetch_to_device(place))
    return Feed(batches, lambda values: source.prepare(rebuilt(values)))


def _stay(nbytes: int, resident: bool | None, *, looped: bool) -> bool:
    """Returns whether the data stay on the device; refuses what is impossible."""
    if resident is False:
        return False
    reason = None
    if not looped:
        reason = "the model's steps are not compiled by `asl_fast.fit`"
    elif resident is None or device.accelerator():
        reason = memory.too_large(nbytes)
    if resident and reason is not None:
        raise InputError(f"`resident` can't be True: {reason}")
    return reason is None


def _endless(batches: tf.data.Dataset) -> tf.data.Dataset:
    # Keras ends an epoch early where it has seen as many steps as the dataset is long.
    return batches.repeat()

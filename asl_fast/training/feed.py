"""How batches reach the training step: by number, from where they lie, or one after the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from asl_fast.data.pipeline import Span, without_none
from asl_fast.system import device
from asl_fast.system.errors import InputError
from asl_fast.training import memory
from asl_fast.training.source import Kept, Source

__all__ = ["Feed", "feed"]


class Feed(NamedTuple):
    """What Keras iterates over, and what the training step makes of it.

    Attributes:
        batches: What Keras is to iterate over.
        prepare: From a batch with its data to (x, y) or (x, y, weights).
        stored: The data on the device, from which batches without are gathered; None where they
            come with their data.
        divided: The batch size, where several batches come as one; or None.
    """

    batches: Any
    prepare: Callable[[Any], Any]
    stored: Any = None
    divided: int | None = None


def feed(
    found: Source,
    span: Span,
    at_once: int,
    resident: bool | None,
    *,
    looped: bool,
) -> Feed:
    """Puts the data on the device, or has them sent there.

    Args:
        found: Where the batches come from.
        span: Which part of the training.
        at_once: Int, steps between two looks of the host.
        resident: Bool, whether the data stay on the device; None where they fit.
        looped: Bool, whether a `TrainingLoop` takes the steps, which resident data need.

    Raises:
        InputError: Data that can't be resident although they should; says why.
    """
    kept = found.kept
    if resident and kept is None:
        raise InputError("`resident` can't be True: the images are not in memory as arrays")
    if kept is not None and span.steps is not None and _stays(kept, resident, looped=looped):
        # Several batches come as one where no pass ends among them.
        several = at_once if kept.divisible and span.steps == found.in_pass else 1
        return Feed(
            _endless(kept.numbered(span, several)),
            found.prepare,
            memory.on_device(kept.tensors),
            kept.batch_size if several > 1 else None,
        )
    batches = found.batches(span)
    if not looped:
        return Feed(batches, found.prepare)
    batches, place = _endless(batches), device.accelerator()
    if place is None:
        return Feed(batches, found.prepare)
    batches, rebuilt = without_none(batches)  # `prefetch_to_device` knows no None
    batches = batches.apply(tf.data.experimental.prefetch_to_device(place))
    return Feed(batches, lambda values: found.prepare(rebuilt(values)))


def _stays(kept: Kept, resident: bool | None, *, looped: bool) -> bool:
    """Returns whether the data stay on the device; refuses what can't."""
    if resident is False:
        return False
    reason = None
    if not looped:
        reason = "the model's steps are not compiled by `asl_fast.fit`"
    elif resident is None or device.accelerator():
        reason = memory.too_large(kept.size)
    if resident and reason is not None:
        raise InputError(f"`resident` can't be True: {reason}")
    return reason is None


def _endless(batches: tf.data.Dataset) -> tf.data.Dataset:
    # Keras ends an epoch early where it has seen as many steps as the dataset is long.
    return batches.repeat()

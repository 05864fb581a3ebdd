"""Images a second: of the augmentation alone, and of whole pipelines of shuffled batches."""

import contextlib
import math
from collections.abc import Callable

import numpy as np

from benchmarks import contenders
from benchmarks.cell import Cell, Meter, in_turn
from benchmarks.contenders import Contender, Feed, Work
from benchmarks.correctness import check

__all__ = ["ROWS", "augmentation", "fits", "pipeline", "rows"]

ROWS = 27455
_STORED = 256 * 2**20  # bytes of float32, which Keras's generator keeps
_BATCH = 64 * 2**20


def fits(batch: int, side: int, channels: int) -> bool:
    """Returns whether a batch is small enough to be measured: 64 MiB of float32 at most."""
    return 4 * batch * side * side * channels <= _BATCH


def rows(batch: int, side: int, channels: int) -> int:
    """Returns how many images are stored: the course's, or what 256 MiB of float32 hold."""
    return max(4 * batch, min(ROWS, _STORED // (4 * side * side * channels)))


def augmentation(
    batch: int, side: int, channels: int, *, turns: int, seconds: float, meter: Meter
) -> Cell:
    """Measures everyone who can augment a batch that is at hand already."""
    images = _images(batch, side, channels)
    about = {"batch": batch, "side": side, "channels": channels}
    everyone = contenders.AUGMENTATION
    return _measure("augmentation", about, images, everyone, turns, seconds, meter)


def pipeline(
    batch: int,
    side: int,
    channels: int,
    *,
    workers: bool = False,
    turns: int,
    seconds: float,
    meter: Meter,
) -> Cell:
    """Measures everyone who can take shuffled batches out of a set and augment them.

    With `workers`, Keras's generator and Albumentations run with several threads or processes too.
    """
    images = _images(rows(batch, side, channels), side, channels)
    about = {"batch": batch, "side": side, "channels": channels}
    everyone = dict(contenders.PIPELINE)
    if workers:
        everyone |= contenders.WORKERS
    return _measure("pipeline", about, images, everyone, turns, seconds, meter)


def _images(count: int, side: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)


def _measure(
    group: str,
    about: dict[str, int],
    images: np.ndarray,
    everyone: dict[str, Contender],
    turns: int,
    seconds: float,
    meter: Meter,
) -> Cell:
    batch = about["batch"]
    skipped = {name: why for name in everyone if (why := contenders.missing(name))}
    samples: dict[str, Callable[[], float]] = {}
    with contextlib.ExitStack() as stack:
        for name, contender in everyone.items():
            if name in skipped:
                continue
            meter.say(f"{name}, checking")
            check(
                name,
                contender,
                shuffles=group == "pipeline",
                augments=name != "no augmentation",
            )
            feed = stack.enter_context(contender(images, batch, Work()))
            samples[name] = _sample(feed, batch, seconds)
        return in_turn(group, about, "images/s", samples, turns=turns, skipped=skipped, meter=meter)


def _sample(feed: Feed, batch: int, seconds: float) -> Callable[[], float]:
    """Returns what measures images/s over about so many seconds."""
    feed.seconds(1, 1)  # traced, compiled
    count = max(2, math.ceil(seconds * 2 / feed.seconds(2, 1)))
    count = max(2, math.ceil(seconds * count / feed.seconds(count, 1)))
    return lambda: count * batch / feed.seconds(count, max(1, count // 3))

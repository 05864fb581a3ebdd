"""Images a second: the augmentation alone, and pipelines of shuffled batches."""

import math
from collections.abc import Callable

from benchmarks import contenders
from benchmarks.cell import Cell, Say, in_turn
from benchmarks.contenders import Contender, Feed, Work
from benchmarks.contenders.work import noise
from benchmarks.groups.correctness import check

__all__ = ["ROWS", "augmentation", "fits", "pipeline", "rows"]

ROWS = 27455
_STORED = 256 * 2**20  # bytes of float32, which Keras's generator keeps
_BATCH = 64 * 2**20


def fits(batch: int, side: int, channels: int) -> bool:
    """Returns whether a batch is measured: it takes at most 64 MiB of float32."""
    return 4 * batch * side * side * channels <= _BATCH


def rows(batch: int, side: int, channels: int) -> int:
    """Returns the number of stored images: the course's, or what fits in 256 MiB of float32."""
    return max(4 * batch, min(ROWS, _STORED // (4 * side * side * channels)))


def augmentation(
    batch: int, side: int, channels: int, *, turns: int, seconds: float, say: Say
) -> Cell:
    """Measures the augmentation of one batch, again and again."""
    about = {"batch": batch, "side": side, "channels": channels}
    return _measure("augmentation", about, batch, contenders.AUGMENTATION, turns, seconds, say)


def pipeline(
    batch: int,
    side: int,
    channels: int,
    *,
    workers: bool = False,
    turns: int,
    seconds: float,
    say: Say,
) -> Cell:
    """Measures shuffled, augmented batches out of a whole data set.

    With `workers`, Keras's generator and Albumentations run with several threads and processes too.
    """
    about = {"batch": batch, "side": side, "channels": channels}
    everyone = contenders.PIPELINE | (contenders.WORKERS if workers else {})
    count = rows(batch, side, channels)
    return _measure("pipeline", about, count, everyone, turns, seconds, say)


def _measure(
    group: str,
    about: dict[str, int],
    count: int,
    everyone: dict[str, Contender],
    turns: int,
    seconds: float,
    say: Say,
) -> Cell:
    images, _ = noise(count, about["side"], about["channels"])
    skipped = {name: why for name in everyone if (why := contenders.missing(name))}
    samples: dict[str, Callable[[], float]] = {}
    for name, contender in everyone.items():
        if name not in skipped:
            say(f"{name}, checking")
            check(name, contender, shuffles=group == "pipeline")
            feed = contender(images, about["batch"], Work())
            samples[name] = _sample(feed, about["batch"], seconds)
    return in_turn(group, about, "images/s", samples, turns=turns, skipped=skipped, say=say)


def _sample(feed: Feed, batch: int, seconds: float) -> Callable[[], float]:
    """Returns a function that measures images/s for about that many seconds."""
    feed.seconds(1, 1)  # traces and compiles
    count = max(2, math.ceil(seconds * 2 / feed.seconds(2, 1)))
    count = max(2, math.ceil(seconds * count / feed.seconds(count, 1)))
    return lambda: count * batch / feed.seconds(count, max(1, count // 3))

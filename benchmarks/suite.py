"""The suite: which cells each of its sizes measures."""

import dataclasses
import datetime
import importlib.metadata
import itertools
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from asl_fast.data import dataset as datasets
from asl_fast.models.recipe import RECIPES
from asl_fast.system import device
from asl_fast.system.errors import InputError
from benchmarks import contenders
from benchmarks.cell import Say
from benchmarks.groups import (
    accelerator,
    files,
    processes,
    race,
    tables,
    throughput,
    training,
)

__all__ = ["GROUPS", "SIZES", "Plan", "Size", "begin", "machine", "plans"]

_PACKAGES = (
    *("tensorflow", "keras", "keras-cv", "albumentations", "opencv-python-headless"),
    *("nvidia-dali-cuda120", "numpy", "pandas", "scipy"),
)
GROUPS = (
    *("augmentation", "pipeline", "files", "table", "accelerator"),
    *("processes", "training", "race"),
)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        groups: Of `GROUPS`.
        turns: Samples of each contender.
        process_turns: The same where every sample needs a new process.
        seconds: About the length of a sample of throughput.
        batches: Batch sizes.
        sides: Image sides, in pixels.
        channels: Image channels.
        workers: Whether contenders that go image by image get threads and processes too.
        milliseconds: Of the simulated accelerator's step.
        accelerator_steps: Steps of the simulated accelerator in a sample.
        files: Number of JPEG files.
        training_steps: Of an epoch of training, or None for all.
        epochs: Of the race.
        seeds: Of the race.
    """

    groups: tuple[str, ...] = GROUPS
    turns: int = 7
    process_turns: int = 7
    seconds: float = 0.15
    batches: tuple[int, ...] = (32, 256, 1024)
    sides: tuple[int, ...] = (28,)
    channels: tuple[int, ...] = (1,)
    workers: bool = True
    milliseconds: tuple[float, ...] = accelerator.MILLISECONDS
    accelerator_steps: int = 400
    files: int = 5000
    training_steps: int | None = 200
    epochs: int = 20
    seeds: int = 3


SIZES = {
    # Under 3 minutes on two cores; `--only` adds what it leaves out.
    "quick": Size(
        groups=("augmentation", "pipeline", "table", "accelerator"),
        seconds=0.06,
        process_turns=1,
        batches=(32, 256),
        workers=False,
        milliseconds=(0.3,),
        accelerator_steps=200,
        files=1000,
        training_steps=30,
        epochs=1,
        seeds=1,
    ),
    # What the README states, except for the race, which takes hours.
    "standard": Size(groups=GROUPS[:-1], process_turns=3),
    "full": Size(sides=(28, 64, 128, 224), channels=(1, 3), training_steps=None),
}


class Plan(NamedTuple):
    """Cells to measure together.

    Attributes:
        group: Of `GROUPS`.
        title: For the progress bar.
        run: Measures, and returns cells, or the runs of a race.
    """

    group: str
    title: str
    run: Callable[[Say], list[Any]]


def plans(size: Size, data: Path | None = None) -> Iterator[Plan]:
    """Yields what a size measures.

    Args:
        size: Of the suite.
        data: Folder with the real data, for training; None takes what `asl-fast train` takes.

    Raises:
        InputError: There is no such group, or no data for the race.
    """
    for group in size.groups:
        if group not in GROUPS:
            raise InputError(f"There is no group {group!r}. There are: {', '.join(GROUPS)}.")
        for title, measure in _PLANS[group](size, data):
            yield Plan(group, title, measure)


# Titles, and functions that measure.
_Titled = Iterator[tuple[str, Callable[[Say], list[Any]]]]


def _throughput(measure: Callable[..., Any], size: Size) -> _Titled:
    for channels, side, batch in itertools.product(size.channels, size.sides, size.batches):
        if not throughput.fits(batch, side, channels):
            continue
        arguments: dict[str, Any] = {"turns": size.turns, "seconds": size.seconds}
        if measure is throughput.pipeline:
            # Processes take seconds to start, so they are tried at the course's size only.
            arguments["workers"] = size.workers and (batch, side, channels) == (32, 28, 1)
        yield (
            f"{measure.__name__}, batch {batch}, {side}×{side}×{channels}",
            lambda say, where=(batch, side, channels), how=arguments: [
                measure(*where, **how, say=say)
            ],
        )


def _files(size: Size, data: Path | None) -> _Titled:
    for side in (64, 32):
        yield (
            f"JPEG files to {side}×{side}",
            lambda say, side=side: [
                files.measure(side, files=size.files, turns=size.turns, seconds=1.0, say=say)
            ],
        )


def _table(size: Size, data: Path | None) -> _Titled:
    yield (
        "reading the table",
        lambda say: [tables.measure(rows=throughput.ROWS, turns=size.turns, say=say)],
    )


def _accelerator(size: Size, data: Path | None) -> _Titled:
    for milliseconds in size.milliseconds:
        yield (
            f"an accelerator of {milliseconds} ms",
            lambda say, ms=milliseconds: [
                accelerator.measure(ms, turns=size.turns, steps=size.accelerator_steps, say=say)
            ],
        )


def _processes(size: Size, data: Path | None) -> _Titled:
    skipped = {name: why for name in contenders.PIPELINE if (why := contenders.missing(name))}
    names = [name for name in contenders.PIPELINE if name not in skipped]
    arguments = {"rows": throughput.ROWS, "turns": size.process_turns, "skipped": skipped}
    yield "memory and start-up", lambda say: processes.measure(names, **arguments, say=say)


def _training(size: Size, data: Path | None) -> _Titled:
    def measure(say: Say) -> list[Any]:
        train = datasets.load(data).train
        return [training.measure(train, turns=size.turns, steps=size.training_steps, say=say)]

    yield "training", measure


def _race(size: Size, data: Path | None) -> _Titled:
    folder = data or os.environ.get("ASL_FAST_DATA")
    if folder is None:
        raise InputError(
            "The race to the course's accuracy needs the real data. Name its folder with --data, "
            "or leave out the race with --only."
        )
    resolved = Path(folder).resolve()
    for seed in range(size.seeds):
        yield (
            f"the race, seed {seed + 1} of {size.seeds}",
            lambda say, seed=seed: race.measure(
                resolved, list(RECIPES), epochs=size.epochs, seed=seed, say=say
            ),
        )


_PLANS: dict[str, Callable[[Size, Path | None], _Titled]] = {
    "augmentation": lambda size, data: _throughput(throughput.augmentation, size),
    "pipeline": lambda size, data: _throughput(throughput.pipeline, size),
    "files": _files,
    "table": _table,
    "accelerator": _accelerator,
    "processes": _processes,
    "training": _training,
    "race": _race,
}


def machine() -> str:
    """Returns a name for this machine that suits files, such as "amd-epyc-2-cores"."""
    name = device.describe().removeprefix("CPU, ")
    if device.accelerator() is None:
        name = f"{device.cpu()[0].replace('Processor', '') or platform.machine()} {name}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def begin(size: str) -> dict[str, Any]:
    """Returns results without cells: date, machine and versions, and the name of the size."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "version": 1,
        "date": datetime.date.today().isoformat(),
        "size": size,
        "machine": {
            "name": machine(),
            "device": device.describe(),
            "cpu": device.cpu()[0],
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": versions,
        "load_before": round(os.getloadavg()[0], 2),
        "cells": [],
        "races": [],
    }

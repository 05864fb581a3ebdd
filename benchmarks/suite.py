"""The whole suite: which cells a size of it has, and running them."""

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
from benchmarks import (
    accelerator,
    contenders,
    files,
    host_time,
    processes,
    race,
    tables,
    throughput,
    training,
)
from benchmarks.cell import Cell, Meter

__all__ = ["GROUPS", "SIZES", "Plan", "Size", "begin", "machine", "plans"]

GROUPS = (
    *("augmentation", "pipeline", "files", "table", "host", "accelerator"),
    *("processes", "training", "race"),
)
_PACKAGES = (
    *("tensorflow", "keras", "keras-cv", "albumentations", "opencv-python-headless"),
    *("nvidia-dali-cuda120", "numpy", "pandas", "scipy"),
)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        groups: Of `GROUPS`.
        turns: Samples of everyone.
        process_turns: The same where every sample needs a new process.
        seconds: About how long a sample of throughput takes.
        batches: Batch sizes.
        sides: Of images, in pixels.
        channels: Of images.
        milliseconds: Of the simulated accelerator's step.
        files: How many JPEG files.
        training_steps: Of half a turn of training, or None for a whole epoch.
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
    milliseconds: tuple[float, ...] = accelerator.MILLISECONDS
    files: int = 5000
    training_steps: int | None = 200
    epochs: int = 20
    seeds: int = 3


SIZES = {
    # Under 3 minutes on two cores; what it leaves out can be asked for by its name.
    "quick": Size(
        groups=("augmentation", "pipeline", "table", "accelerator"),
        seconds=0.06,
        process_turns=1,
        batches=(32, 256),
        milliseconds=(0.3,),
        files=1000,
        training_steps=30,
        epochs=1,
        seeds=1,
    ),
    # What the README states but for the race, which takes hours.
    "standard": Size(groups=GROUPS[:-1], process_turns=3),
    "full": Size(sides=(28, 64, 128, 224), channels=(1, 3), training_steps=None),
}


class Plan(NamedTuple):
    """Some cells to measure.

    Attributes:
        group: Of `GROUPS`.
        title: What it is, for the progress bar.
        run: Measures with a meter; returns cells, or the runs of a race.
    """

    group: str
    title: str
    run: Callable[[Meter], list[Any]]


def plans(size: Size, data: Path | None = None) -> Iterator[Plan]:
    """Yields what a size has to measure.

    Args:
        size: Of the suite.
        data: Folder with the real data, for training; None takes what `asl-fast train` takes.

    Raises:
        InputError: A group that does not exist.
    """
    for group in size.groups:
        if group not in GROUPS:
            raise InputError(f"There is no group {group!r}. There are: {', '.join(GROUPS)}.")
        yield from _PLANS[group](size, data)


def _throughput(measure: Callable[..., Cell]) -> Callable[..., Iterator[Plan]]:
    def planned(size: Size, data: Path | None) -> Iterator[Plan]:
        for channels, side, batch in itertools.product(size.channels, size.sides, size.batches):
            if not throughput.fits(batch, side, channels):
                continue
            arguments: dict[str, Any] = {"turns": size.turns, "seconds": size.seconds}
            if measure is throughput.pipeline:
                # Processes take seconds to start: their best is looked for at the course's sizes.
                small = (batch, side, channels) == (32, 28, 1)
                arguments["workers"] = small and size != SIZES["quick"]
            yield Plan(
                measure.__name__,
                f"{measure.__name__}, batch {batch}, {side}×{side}×{channels}",
                lambda meter, where=(batch, side, channels), how=arguments: [
                    measure(*where, **how, meter=meter)
                ],
            )

    return planned


def _files(size: Size, data: Path | None) -> Iterator[Plan]:
    for side in (64, 32):
        yield Plan(
            "files",
            f"JPEG files to {side}×{side}",
            lambda meter, side=side: [
                files.measure(side, files=size.files, turns=size.turns, seconds=1.0, meter=meter)
            ],
        )


def _table(size: Size, data: Path | None) -> Iterator[Plan]:
    yield Plan(
        "table",
        "reading the table",
        lambda meter: [tables.measure(rows=throughput.ROWS, turns=min(size.turns, 7), meter=meter)],
    )


def _host(size: Size, data: Path | None) -> Iterator[Plan]:
    for of in ("fit", "input"):
        yield Plan(
            "host",
            f"the host's time, {of}",
            lambda meter, of=of: [host_time.measure(of, turns=size.turns, meter=meter)],
        )


def _accelerator(size: Size, data: Path | None) -> Iterator[Plan]:
    steps = 200 if size == SIZES["quick"] else 400
    for milliseconds in size.milliseconds:
        yield Plan(
            "accelerator",
            f"an accelerator of {milliseconds} ms",
            lambda meter, ms=milliseconds: [
                accelerator.measure(ms, turns=size.turns, steps=steps, meter=meter)
            ],
        )


def _processes(size: Size, data: Path | None) -> Iterator[Plan]:
    skipped = {name: why for name in contenders.PIPELINE if (why := contenders.missing(name))}
    names = [name for name in contenders.PIPELINE if name not in skipped]
    yield Plan(
        "processes",
        "memory and start-up",
        lambda meter: processes.measure(
            names,
            rows=throughput.ROWS,
            turns=size.process_turns,
            skipped=skipped,
            meter=meter,
        ),
    )


def _training(size: Size, data: Path | None) -> Iterator[Plan]:
    yield Plan(
        "training",
        "training",
        lambda meter: [
            training.measure(
                datasets.load(data).train,
                turns=size.turns,
                steps=size.training_steps,
                meter=meter,
            )
        ],
    )


def _race(size: Size, data: Path | None) -> Iterator[Plan]:
    folder = data or (Path(found) if (found := os.environ.get("ASL_FAST_DATA")) else None)
    if folder is None:
        raise InputError(
            "The race to the course's accuracy needs the real data: --data FOLDER, or leave it "
            "out with --only."
        )
    for seed in range(size.seeds):
        yield Plan(
            "race",
            f"the race, seed {seed + 1} of {size.seeds}",
            lambda meter, seed=seed: race.measure(
                folder.resolve(), list(RECIPES), epochs=size.epochs, seed=seed, meter=meter
            ),
        )


_PLANS: dict[str, Callable[[Size, Path | None], Iterator[Plan]]] = {
    "augmentation": _throughput(throughput.augmentation),
    "pipeline": _throughput(throughput.pipeline),
    "files": _files,
    "table": _table,
    "host": _host,
    "accelerator": _accelerator,
    "processes": _processes,
    "training": _training,
    "race": _race,
}


def machine() -> str:
    """Returns a name for this machine that files can have, as "amd-epyc-2-cores"."""
    name = device.describe().removeprefix("CPU, ")
    if device.accelerator() is None:
        name = f"{device.cpu()[0].replace('Processor', '') or platform.machine()} {name}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def begin(size: str) -> dict[str, Any]:
    """Returns results without cells yet: the circumstances.

    Args:
        size: Its name, of `SIZES`.
    """
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

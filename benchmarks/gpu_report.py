"""One report of what asl_fast does on this machine, to be sent back from machines with a GPU.

    scripts/gpu_report [--data FOLDER] [--out FOLDER] [--small]

Writes gpu_report.json, with everything, and gpu_report.md, to read. It works on CPUs too.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from rich.console import Console
from rich.status import Status

from asl_fast.data import dataset as datasets
from asl_fast.models.recipe import RECIPES
from asl_fast.system import errors, storage
from asl_fast.training import diagnosis as doctor
from asl_fast.training import run
from benchmarks import report as report_tables
from benchmarks import suite
from benchmarks.cell import Cell, Meter

_notes = Console(stderr=True)


# The layer alone at batches that suit a GPU too, pipelines, and how long accelerators would wait.
_SIZE = suite.Size(groups=("augmentation", "pipeline", "accelerator"), batches=(32, 256, 2048))
_SMALL = dataclasses.replace(
    _SIZE, turns=1, seconds=0.01, batches=(32,), milliseconds=(0.1,), groups=_SIZE.groups[::2]
)


class _Said(Meter):
    """Shows what is being measured beside a spinner."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self.title = ""

    def say(self, text: str) -> None:
        """Is told what is being done."""
        self._status.update(f"{self.title}: {text}")


def measured(size: suite.Size) -> list[Cell]:
    """Returns the cells of the benchmarks."""
    plans = list(suite.plans(size))
    cells: list[Cell] = []
    with _notes.status("") as status:
        meter = _Said(status)
        for number, plan in enumerate(plans, 1):
            meter.title = f"{number} of {len(plans)}, {plan.title}"
            cells += plan.run(meter)
    return cells


def planned(small: bool) -> Iterator[tuple[str, str, str, int | None]]:
    """Yields a recipe's name, resident, precision, and epochs or None for the recipe's own.

    Every recipe once, for its accuracy; besides, streamed and in float32, each step that is new.
    """
    steps = set()
    for name, recipe in RECIPES.items():
        step = dataclasses.replace(recipe, epochs=1)
        known = step in steps
        steps.add(step)
        if not small:
            yield name, "auto", "auto", None
        elif not known:
            yield name, "auto", "auto", 2
        if not small and not known:
            yield name, "off", "auto", 3
            yield name, "auto", "float32", 3


def trainings(data: datasets.Dataset, small: bool) -> Iterator[dict[str, Any]]:
    """Trains by the recipes, resident and streamed, in the device's precision and in float32."""
    for recipe, resident, precision, epochs in planned(small):
        words = f"{recipe}, resident {resident}, precision {precision}"
        with tempfile.TemporaryDirectory() as folder, _notes.status(f"Training: {words}"):
            metrics = run.train(
                data,
                Path(folder),
                recipe=recipe,
                changes={"epochs": epochs} if epochs else {},
                resident=resident,
                precision=precision,
                verbose=0,
            )
        yield {
            "recipe": recipe,
            "resident": resident,
            **{
                name: metrics[name]
                for name in (
                    *("precision", "jit", "epochs", "images_per_second", "train_seconds"),
                    *("val_accuracy", "best_val_accuracy"),
                )
            },
        }


def report(data: datasets.Dataset, small: bool) -> dict[str, Any]:
    """Measures everything."""
    with _notes.status("Looking at the machine") as status:
        machine = doctor.diagnose(RECIPES["course"], len(data.train.labels), progress=status.update)
    return {
        "date": datetime.date.today().isoformat(),
        "platform": platform.platform(),
        "load before": os.getloadavg()[0],
        "dataset": data.describe(),
        "machine": machine,
        "cells": [dataclasses.asdict(cell) for cell in measured(_SMALL if small else _SIZE)],
        "training": list(trainings(data, small)),
    }


def markdown(found: dict[str, Any]) -> str:
    """Returns the report to read."""
    machine = found["machine"]
    gpus = ", ".join(str(gpu.get("device_name")) for gpu in machine["gpus"])
    lines = [
        "# What asl_fast does on this machine",
        "",
        f"{found['date']}, {found['platform']}; {machine['device']}; {machine['cpu']}; driver "
        f"{machine['driver']}; load before {found['load before']:.1f}. "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + ".",
        "" if gpus else "\n**There is no GPU here: these are figures of a CPU.**\n",
        f"- precision: {machine['precision']['value']} ({machine['precision']['why']})",
        f"- XLA for the step: {machine['jit']['value']} ({machine['jit']['why']})",
        f"- operations of the step that a GPU would not do: {len(machine['operations']['found'])}",
        f"- data set: {found['dataset']['name']}",
        "",
        "## Benchmarks, medians and quartiles",
        "",
    ]
    for plain in found["cells"]:
        cell = Cell(**plain)
        lines += [f"### {cell.key}", "", *report_tables.table(cell), ""]
    lines += [
        "## Training",
        "",
        "| recipe | resident | precision | XLA | epochs | images/s | valid accuracy | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["training"]:
        lines.append(
            f"| {row['recipe']} | {row['resident']} | {row['precision']} | {row['jit']} | "
            f"{row['epochs']} | {row['images_per_second']:,.0f} | {row['val_accuracy']:.4f} | "
            f"{row['train_seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description="One report of what asl_fast does here.")
    parser.add_argument("--data", type=Path, help="folder with the data; default: as `asl-fast`")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the two files")
    parser.add_argument("--small", action="store_true", help="little of everything, to try it")
    arguments = parser.parse_args()
    try:
        storage.make_folder(arguments.out)
        with _notes.status("Reading the data"):
            data = datasets.load(arguments.data)
        found = report(data, arguments.small)
    except errors.InputError as error:
        print(f"gpu_report: {error}", file=sys.stderr)
        sys.exit(2)
    text = markdown(found)
    for name, content in (("json", json.dumps(found, indent=2) + "\n"), ("md", text)):
        path = arguments.out / f"gpu_report.{name}"
        with storage.replacing(path) as aside:
            aside.write_text(content)
        _notes.print(f"Wrote {path}", highlight=False, markup=False)


if __name__ == "__main__":
    main()

"""One report of what asl_fast does on this machine, to be sent back from machines with a GPU.

    scripts/gpu_report [--data FOLDER] [--out FOLDER] [--small]

Writes gpu_report.json, with everything, and gpu_report.md, to read. It works on CPUs too.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from rich.console import Console

from asl_fast import dataset as datasets
from asl_fast import doctor, errors, run, storage
from asl_fast.augment import RandomAugment
from asl_fast.recipe import RECIPES
from benchmarks import accelerator
from benchmarks.contenders import COURSE

_notes = Console(stderr=True)


def augmentation(turns: int) -> dict[str, list[int]]:
    """Returns the quartiles of images/s of the compiled augmentation on the device, by batch."""
    found = {}
    for batch in (32, 256, 2048):
        layer = RandomAugment(**COURSE, dtype="float32")
        images = tf.constant(np.zeros((batch, 28, 28, 1), np.uint8))
        times = []
        for _ in range(turns + 1):
            begin = time.perf_counter()
            for _ in range(20):
                last = layer(images, training=True)
            float(last[0, 0, 0, 0])  # a GPU works on while the host goes ahead
            times.append((time.perf_counter() - begin) / 20)
        rates = np.percentile(batch / np.array(times[1:]), [25, 50, 75])
        found[str(batch)] = rates.round().astype(int).tolist()
    return found


def trainings(data: datasets.Dataset, epochs: int | None) -> Iterator[dict[str, Any]]:
    """Trains by every recipe, resident and streamed, in the device's precision and in float32."""
    for recipe in RECIPES:
        for resident, precision in (("auto", "auto"), ("off", "auto"), ("auto", "float32")):
            words = f"{recipe}, resident {resident}, precision {precision}"
            with tempfile.TemporaryDirectory() as folder, _notes.status(f"Training: {words}"):
                metrics = run.train(
                    data,
                    Path(folder),
                    recipe=recipe,
                    # The first has the accuracy to tell, the others only their speed.
                    epochs=epochs or (None if (resident, precision) == ("auto", "auto") else 3),
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
    with _notes.status("Measuring the augmentation"):
        rates = augmentation(3 if small else 15)
    return {
        "date": datetime.date.today().isoformat(),
        "platform": platform.platform(),
        "load before": os.getloadavg()[0],
        "dataset": data.describe(),
        "machine": machine,
        "augmentation": rates,
        "feeding": accelerator.measure(*((1, 16) if small else (5, 800))),
        "training": list(trainings(data, 2 if small else None)),
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
        "## Augmentation alone, 28×28×1, images/s (quartiles)",
        "",
        "| batch | low | median | high |",
        "| --- | --- | --- | --- |",
    ]
    for batch, rates in found["augmentation"].items():
        lines.append(f"| {batch} | " + " | ".join(f"{rate:,}" for rate in rates) + " |")
    feeding = found["feeding"]
    lines += [
        "",
        f"## How long an accelerator would wait for data (n = {feeding['n']}, quartiles)",
        "",
        accelerator.table(feeding),
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

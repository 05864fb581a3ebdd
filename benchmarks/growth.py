"""How streaming's cost grows: with the number of images, their side, and the processes that read.

    python -m benchmarks.growth measure [--groups images,side,…] [--turns 3] --kept growth.jsonl
    python -m benchmarks.growth page --kept growth.jsonl --out benchmarks/results

Images are noise, written to a temporary folder, which is removed; with `--data FOLDER` to that one,
which stays, for the next group. Every cell is read by processes of its own, all cells of a group in
turn. What is read was just written, so it comes from the page cache: the disk takes no part.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH, WINDOW = 128, 16384
SHARD = 16384  # images of 28x28; shards of larger ones hold as many bytes
READ = 300_000  # images of 28x28 a sample, or all where more are stored; of larger, as many bytes
STORED = 100_000
WARM = 10  # a sample's tenth, read before: TensorFlow needs seconds to settle its parallelism

GROUPS: dict[str, list[dict[str, Any]]] = {
    "images": [{"images": n} for n in (10_000, 31_623, 100_000, 316_228, 1_000_000)],
    "training": [{"images": n, "how": "training"} for n in (100_000, 1_000_000)],
    "side": [{"images": round(STORED * (28 / s) ** 2), "side": s} for s in (28, 56, 112, 224)],
    "workers": [{"images": STORED, "processes": n} for n in (1, 2, 4)],
    "gzip": [{"images": STORED, "compression": c} for c in ("", "GZIP")],
}
DEFAULTS = {"side": 28, "processes": 1, "how": "reading", "compression": ""}


def stored(folder: Path, images: int, side: int, compression: str) -> Path:
    """Returns a folder of records, written if it is not there yet."""
    from asl_fast.data.records import write_index, write_shard

    place = folder / f"{images}-{side}{compression}"
    if (place / "index.json").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rows = max(1, round(SHARD * (28 / side) ** 2))
    rows = min(rows, -(-images // 8))  # four processes need four shards
    shards = []
    for first in range(0, images, rows):
        count = min(rows, images - first)
        noise = random.integers(0, 256, (count, side, side, 1), np.uint8)
        if compression:
            noise >>= 4  # noise itself can't be compressed
        path = place / f"{first:08}.tfrecord"
        shards.append(write_shard(path, noise, np.arange(count) % 24, compression))
    write_index(place, (side, side, 1), range(24), [str(n) for n in range(24)], compression,
                shards, {})  # fmt: skip
    return place


def child(task: dict[str, Any]) -> None:
    """Reads or trains in this process, once it is told to; prints seconds, images and memory."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf

    import asl_fast

    records = asl_fast.Records.open(task["folder"]).part(task["number"], task["processes"])
    wanted = task["wanted"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if task["how"] == "training":
        layers = [keras.Input((*records.shape,)), keras.layers.Flatten(), keras.layers.Dense(24)]
        model = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)

        def run() -> int:
            passes = wanted // records.rows
            asl_fast.fit(model, records, batch_size=BATCH, epochs=passes, verbose=0)
            return passes * records.rows
    else:
        passes = 2 * -(-wanted // records.rows) + 1  # more than is read
        stream = iter(records.stream(0, passes, BATCH, seed=0, window=WINDOW))

        def read(batches: tf.Tensor) -> tf.Tensor:
            images = tf.constant(0, tf.int64)
            for _ in tf.range(batches):
                images += tf.shape(next(stream)[1], tf.int64)[0]
            return images

        compiled = tf.function(read)
        compiled(tf.constant(-(-wanted // BATCH) // WARM))

        def run() -> int:
            return int(compiled(tf.constant(-(-wanted // BATCH))))

    def step(*found: Any) -> None:
        print(*found, flush=True)

    step("ready")
    sys.stdin.readline()
    begin = time.time()
    images = run()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(json.dumps([begin, time.time(), images, memory / 1024, before / 1024]))


def sample(folder: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """Returns images/s of all processes together, and MiB of one of them at most."""
    cell = DEFAULTS | cell
    place = stored(folder, cell["images"], cell["side"], cell["compression"])
    everything = max(READ * (28 / cell["side"]) ** 2, cell["images"])
    processes = []
    for number in range(cell["processes"]):
        task = {**cell, "folder": str(place), "number": number}
        task["wanted"] = round(everything / cell["processes"])
        command = [sys.executable, "-m", "benchmarks.growth", "child", json.dumps(task)]
        processes.append(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                stderr=subprocess.DEVNULL,
            )
        )
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in processes]
    begins, ends, images, memory, before = zip(*found, strict=True)
    return {
        "images_per_second": sum(images) / (max(ends) - min(begins)),
        "peak": max(memory),
        "before": max(before),
    }


def measure(folder: Path, groups: list[str], turns: int, kept: Path) -> None:
    """Measures all cells of groups in turn and adds the samples to a file."""
    for group in groups:
        for cell in GROUPS[group]:
            told = DEFAULTS | cell
            stored(folder, told["images"], told["side"], told["compression"])
        for _ in range(turns):
            for cell in GROUPS[group]:
                line = {"group": group, "cell": cell, **sample(folder, cell)}
                with kept.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)


def exponent(x: list[float], y: list[float]) -> float:
    """Returns b of y = a · x^b, by least squares of the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def cells(lines: list[dict[str, Any]], group: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Returns a group's cells, and the samples of each by what was measured."""
    found = []
    for cell in GROUPS[group]:
        mine = [line for line in lines if line["group"] == group and line["cell"] == cell]
        if mine:
            names = ("images_per_second", "peak", "before")
            found.append((DEFAULTS | cell, {name: [line[name] for line in mine] for name in names}))
    return found


def told(samples: list[float]) -> str:
    """Returns a median with the range of all samples."""
    low, high = min(samples), max(samples)
    return f"{statistics.median(samples):,.0f} ({low:,.0f}–{high:,.0f})"


def table(lines: list[dict[str, Any]], group: str, name: str, key: str) -> list[str]:
    """Returns a group's table, and its first row as the measure of the others."""
    found = cells(lines, group)
    if not found:
        return []
    rows = [f"| {name} | images/s | against the first | peak MiB | of it before reading | n |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    first = statistics.median(found[0][1]["images_per_second"])
    for cell, samples in found:
        rates = samples["images_per_second"]
        value = f"{cell[key]:,}" if isinstance(cell[key], int) else cell[key] or "none"
        rows.append(
            f"| {value} | {told(rates)} | {statistics.median(rates) / first:.2f} | "
            f"{told(samples['peak'])} | {told(samples['before'])} | {len(rates)} |"
        )
    return rows


def medians(lines: list[dict[str, Any]], group: str, key: str, name: str) -> tuple[list, list]:
    """Returns a group's cells by a key, and the medians of what was measured."""
    found = cells(lines, group)
    return [cell[key] for cell, _ in found], [statistics.median(s[name]) for _, s in found]


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Draws images/s and memory against number and side, with the fitted exponents."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullLocator

    figure, every = plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
    for column, (group, key, label) in enumerate(
        (("images", "images", "images stored"), ("side", "side", "image side, pixels"),
         ("workers", "processes", "processes on two cores"))
    ):  # fmt: skip
        for row, (name, what) in enumerate(
            (("images_per_second", "images/s"), ("peak", "peak memory of a process, MiB"))
        ):
            axes = every[row][column]
            for cell, samples in cells(lines, group):
                axes.plot([cell[key]] * len(samples[name]), samples[name], "o", color="C0", ms=4)
            x, y = medians(lines, group, key, name)
            axes.plot(x, y, color="C0", label=f"exponent {exponent(x, y):+.2f}")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(x, [f"{value:,}" for value in x])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel(label)
            axes.set_ylabel(what)
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, min(y) / 2), max(high, max(y) * 2))
            axes.grid(alpha=0.3, which="both")
            axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(lines: list[dict[str, Any]], out: Path) -> None:
    """Writes the measured part of `scaling.md` between its marks, and the plot."""
    import tensorflow as tf

    path = out / "scaling.md"
    plot(lines, out / "scaling.png")
    about = (
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}; medians (all samples' range)."
    )
    text = [about, "", "![images/s and memory](scaling.png)", ""]
    for group, title, name, key in (
        ("images", "Number of images, reading alone", "images of 28×28", "images"),
        ("training", "Number of images, training one layer", "images of 28×28", "images"),
        ("side", "Image side, reading alone", "side", "side"),
        ("workers", "Processes that read at once, on two cores that they share", "processes",
         "processes"),
        ("gzip", "Compression", "compression", "compression"),
    ):  # fmt: skip
        text += [f"### {title}", "", *table(lines, group, name, key), ""]
    fitted = []
    for group, key in (("images", "images"), ("side", "side"), ("workers", "processes")):
        for name in ("images_per_second", "peak"):
            x, y = medians(lines, group, key, name)
            fitted.append(f"| {name.replace('_', ' ')} | {key} | {exponent(x, y):+.3f} |")
    text += ["### Fitted exponents", "", "| of | with the number of | exponent |"]
    text += ["| --- | --- | --- |", *fitted, ""]
    begin, end = "<!-- measured -->", "<!-- end -->"
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    path.write_text("\n".join([before + begin, "", *text, end + after]))


def main() -> None:
    """Measures, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["measure", "page", "child"])
    parser.add_argument("task", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kept", type=Path, default=Path("growth.jsonl"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    if arguments.what == "child":
        child(json.loads(arguments.task))
    elif arguments.what == "page":
        page([json.loads(line) for line in arguments.kept.read_text().splitlines()], arguments.out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            place = arguments.data or Path(folder)
            measure(place, arguments.groups.split(","), arguments.turns, arguments.kept)


if __name__ == "__main__":
    main()

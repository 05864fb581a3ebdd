"""How long Keras's generator and ours take for few and many images, from their making on.

Pairs in one run: Keras, ours, Keras, ours … A sample makes a generator and an iterator and draws
so many images by `next`; imports are done. `python -m benchmarks.small_work` writes a picture and
the samples; each image counts once, so a time says what someone waits who wants that many.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator as Theirs

from asl_fast import ImageDataGenerator as Ours
from benchmarks.cell import quartiles

__all__ = ["measure", "plot"]

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_COURSE: dict[str, Any] = {
    "rotation_range": 10,
    "zoom_range": 0.1,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "horizontal_flip": True,
}
_BATCH = 32


def measure(count: int, turns: int, side: int = 28, pictures: int | None = None) -> Any:
    """Returns the seconds of Keras's generator and of ours, `turns` of each, in turn.

    Args:
        count: Int, images to draw.
        turns: Int; a turn before them does not count.
        side: Int, of an image.
        pictures: Int, images in the data set, which passes repeat; None for `count`.
    """
    pixels = np.random.default_rng(0).random((pictures or count, side, side, 1), np.float32)
    samples: dict[str, list[float]] = {"Keras": [], "ours": []}
    for turn in range(-1, turns):
        for name, generator in (("Keras", Theirs), ("ours", Ours)):
            begin = time.perf_counter()
            batches = generator(**_COURSE).flow(pixels, batch_size=min(_BATCH, len(pixels)))
            drawn = 0
            while drawn < count:
                drawn += len(next(batches))
            if turn >= 0:
                samples[name].append(time.perf_counter() - begin)
    return samples


def plot(measured: dict[str, dict[int, dict[str, list[float]]]], path: Path) -> None:
    """Draws times and their ratios over the number of images."""
    figure, rows = plt.subplots(
        2, len(measured), figsize=(5 * len(measured), 7), sharex=True, squeeze=False
    )
    for (title, cells), (top, bottom) in zip(measured.items(), rows.T, strict=True):
        for name, color in (("Keras", "tab:blue"), ("ours", "tab:orange")):
            low, middle, high = np.transpose([quartiles(cell[name]) for cell in cells.values()])
            top.plot(cells, middle, marker="o", color=color, label=name)
            top.fill_between(list(cells), low, high, color=color, alpha=0.3)
        ratios = [np.divide(cell["ours"], cell["Keras"]) for cell in cells.values()]
        low, middle, high = np.transpose([quartiles(ratio) for ratio in ratios])
        bottom.plot(cells, middle, marker="o", color="black")
        bottom.fill_between(list(cells), low, high, color="gray", alpha=0.3)
        bottom.axhline(1, color="gray", linestyle="--")
        bottom.axhline(2, color="tab:red", linestyle=":")
        top.set(title=title, xscale="log", yscale="log", ylabel="seconds, start included")
        bottom.set(xlabel="images drawn", yscale="log", ylabel="ours / Keras")
        top.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measures, and writes the picture and the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="images, at most")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/small-work"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Please import `affine_transform`")
    counts = [count for count in COUNTS if count <= arguments.most]
    measured = {
        "a data set, once": {n: measure(n, arguments.turns) for n in counts},
        "variants of one picture": {
            n: measure(n, arguments.turns, pictures=1) for n in counts if n <= 2000
        },
        "a data set of 128×128, once": {
            n: measure(n, arguments.turns, side=128) for n in counts if n <= 5000
        },
    }
    plot(measured, arguments.out.with_suffix(".png"))
    about = {"cores": os.cpu_count(), "load": os.getloadavg(), "seconds": measured}
    arguments.out.with_suffix(".json").write_text(json.dumps(about) + "\n")
    for title, cells in measured.items():
        for count, cell in cells.items():
            theirs, ours = (float(np.median(cell[name])) for name in ("Keras", "ours"))
            print(f"{title}, {count}: Keras {theirs:.4g} s, ours {ours:.4g} s")


if __name__ == "__main__":
    main()

"""Images a second from JPEG files in folders: our `flow_from_directory` and Keras's."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator
from PIL import Image

import asl_fast
from benchmarks.cell import Cell, Meter, in_turn
from benchmarks.contenders import COURSE, from_dataset, from_py_dataset

__all__ = ["measure"]

_BATCH, _STORED = 32, 64


def measure(side: int, *, files: int, turns: int, seconds: float, meter: Meter) -> Cell:
    """Measures everyone on files of 64x64.

    Args:
        side: Int, what the images are resized to.
        files: Int, how many there are.
        turns: Int.
        seconds: Float, about how long a turn takes each.
        meter: Repeats the turns, and hears of what is being done.
    """
    arguments: dict[str, Any] = {"target_size": (side, side), "batch_size": _BATCH}
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), files)
        theirs = KerasGenerator(**COURSE).flow_from_directory(folder, **arguments)
        mine = asl_fast.ImageDataGenerator(**COURSE).flow_from_directory(folder, **arguments)
        feeds = {
            "Keras's generator": from_py_dataset(theirs, 1, False),
            "Keras's generator, 2 threads": from_py_dataset(theirs, 2, False),
            "Keras's generator, 2 processes": from_py_dataset(theirs, 2, True),
            "our flow": from_dataset(mine.repeat().map(lambda images, labels: images)),
        }

        def sample(name: str) -> float:
            count = max(8, math.ceil(seconds * (5000 if name.startswith("our") else 1500) / _BATCH))
            return count * _BATCH / feeds[name].seconds(count, 4)

        samples = {name: lambda name=name: sample(name) for name in feeds}
        about = {"batch": _BATCH, "side": side, "channels": 3}
        return in_turn("files", about, "images/s", samples, turns=turns, meter=meter)


def _write(folder: Path, files: int) -> None:
    random = np.random.default_rng(0)
    for number in range(files):
        label = folder / str(number % 10)
        label.mkdir(exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        large = small.resize((_STORED, _STORED), Image.Resampling.BICUBIC)
        large.save(label / f"{number}.jpg", quality=90)

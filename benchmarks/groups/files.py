"""Images a second from JPEG files in class folders: our `flow_from_directory` and Keras's."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator
from PIL import Image

import asl_fast
from benchmarks.cell import Cell, Say, in_turn
from benchmarks.contenders.work import COURSE, from_dataset, from_py_dataset

__all__ = ["measure"]

_BATCH, _STORED = 32, 64


def measure(side: int, *, files: int, turns: int, seconds: float, say: Say) -> Cell:
    """Measures files of 64×64 resized to `side`, each contender for about `seconds` a turn."""
    arguments: dict[str, Any] = {"target_size": (side, side), "batch_size": _BATCH}
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), files)
        theirs = KerasGenerator(**COURSE).flow_from_directory(folder, **arguments)
        ours = asl_fast.ImageDataGenerator(**COURSE).flow_from_directory(folder, **arguments)
        feeds = {
            "Keras's generator": from_py_dataset(theirs, 1, False),
            "Keras's generator, 2 threads": from_py_dataset(theirs, 2, False),
            "Keras's generator, 2 processes": from_py_dataset(theirs, 2, True),
            "our flow": from_dataset(ours.repeat().map(lambda images, labels: images)),
        }

        def sample(name: str) -> float:
            rate = 5000 if name.startswith("our ") else 1500
            count = max(8, math.ceil(seconds * rate / _BATCH))
            return count * _BATCH / feeds[name].seconds(count, 4)

        samples = {name: lambda name=name: sample(name) for name in feeds}
        about = {"batch": _BATCH, "side": side, "channels": 3}
        return in_turn("files", about, "images/s", samples, turns=turns, say=say)


def _write(folder: Path, files: int) -> None:
    random = np.random.default_rng(0)
    for number in range(files):
        label = folder / str(number % 10)
        label.mkdir(exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        large = small.resize((_STORED, _STORED), Image.Resampling.BICUBIC)
        large.save(label / f"{number}.jpg", quality=90)

"""Training end to end: what augmentation in the step costs, and what Keras's generator costs.

    python -m benchmarks.training --data FOLDER [--turns N] [--steps N] [--out FILE]

The course's network, batches of 32, on one device, three ways in turn:

- plain Keras, `model.fit` on Keras's `ImageDataGenerator`;
- `asl_fast.fit` with the same augmentation;
- `asl_fast.fit` on images that were augmented beforehand, and so with none to do.

Each turn trains two epochs, and the second counts: the first traces and compiles.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator
from rich.console import Console

import asl_fast
from asl_fast import dataset as datasets
from asl_fast import device
from asl_fast.trainer import TrainingClock
from benchmarks.contenders import COURSE

_BATCH = 32
_notes = Console(stderr=True)


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = asl_fast.build_cnn()
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    return model


def contenders(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[..., Any]]:
    """Returns what each way's `fit` is, to be called with Keras's further arguments.

    Args:
        images: uint8, (n, 28, 28, 1).
        labels: One-hot, (n, 24).
    """
    rescale = asl_fast.Standardize(rescale=1 / 255, dtype="float32")
    augment = asl_fast.RandomAugment(**COURSE, dtype="float32")
    beforehand = np.concatenate(
        [
            rescale(augment(images[i : i + 1000], training=True)).numpy()
            for i in range(0, len(images), 1000)
        ]
    )
    generator = KerasGenerator(**COURSE).flow(images / 255, labels, batch_size=_BATCH)
    return {
        "Keras's generator": lambda **more: _model().fit(generator, **more),
        "asl_fast": lambda **more: asl_fast.fit(
            _model(),
            images,
            labels,
            augment=augment,
            standardize=rescale,
            batch_size=_BATCH,
            **more,
        ),
        "augmented beforehand": lambda **more: asl_fast.fit(
            _model(), beforehand, labels, batch_size=_BATCH, **more
        ),
    }


def measure(data: datasets.Split, turns: int, steps: int | None) -> dict[str, Any]:
    """Trains every way, several times in turn; returns images/s by way, and the ratios."""
    labels = np.eye(24, dtype=np.float32)[data.labels]
    everyone = contenders(np.asarray(data.images), labels)
    steps = steps or -(-len(labels) // _BATCH)
    images = min(steps * _BATCH, len(labels))
    rates: dict[str, list[float]] = {name: [] for name in everyone}
    load = os.getloadavg()[0]
    for turn in range(turns):
        for name, fit in everyone.items():
            clock = TrainingClock()
            with _notes.status(f"Turn {turn + 1} of {turns}: {name}"):
                fit(epochs=2, steps_per_epoch=steps, callbacks=[clock], verbose=0)
            rates[name].append(images / clock.seconds[1])
    ours = np.array(rates["asl_fast"])
    return {
        "device": device.describe(),
        "tensorflow": tf.__version__,
        "keras": keras.version(),
        "data": Path(data.source).name,
        "load before": load,
        "n": turns,
        "steps": steps,
        "images/s": {name: _spread(values) for name, values in rates.items()},
        "asl_fast by": {
            name: _spread(ours / np.array(values))
            for name, values in rates.items()
            if name != "asl_fast"
        },
    }


def _spread(values: Any) -> dict[str, float]:
    """Returns the median, the least and the most."""
    return {
        name: round(float(of(values)), 3)
        for name, of in (("median", np.median), ("least", np.min), ("most", np.max))
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Training with and without Keras's generator.")
    parser.add_argument("--data", type=Path, help="folder with the data; default: as `asl-fast`")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of an epoch; default: all")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    found = measure(datasets.load(arguments.data).train, arguments.turns, arguments.steps)
    text = json.dumps(found, indent=2) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()

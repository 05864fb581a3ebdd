"""The drop-in's `flow` against Keras's iterator and against Keras's own layers, in `tf.data`.

    pytest benchmarks/flow_benchmark.py -s

Every contender gives shuffled batches of 32 augmented float32 images by the course's options, from
27,455 images of 28x28 (or from 5,000 JPEG files of 64x64), and is consumed within TensorFlow: what
training would get at most. They run in turn; the medians and the quartiles of the ratios count.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator
from PIL import Image

from asl_fast import ImageDataGenerator
from benchmarks.contenders import COURSE, data, from_keras_iterator, keras_layers

_ROWS, _BATCH = 27455, 32
_TURNS = 7

Contender = Callable[[], float]


def _consume(dataset: tf.data.Dataset, images: int) -> float:
    """Returns images a second over a dataset of so many."""
    begin = time.perf_counter()
    last = dataset.reduce(np.float32(0), lambda _, *batch: tf.nest.flatten(batch)[0][-1, -1, -1, 0])
    float(last)
    return images / (time.perf_counter() - begin)


def _keras_iterator(iterator: Any, batches: int, workers: int, processes: bool) -> Contender:
    def turn() -> float:
        with from_keras_iterator(iterator, workers, processes) as dataset:
            images = min(batches * iterator.batch_size, iterator.n)
            return _consume(dataset.take(batches), images)

    return turn


def _keras_layers(images: np.ndarray, labels: np.ndarray) -> Contender:
    with keras_layers(images, labels, _BATCH) as dataset:
        return lambda: _consume(dataset, _ROWS)


def _flow(passes: int, *arrays: Any, **options: Any) -> Contender:
    iterator = ImageDataGenerator(**options).flow(*arrays, batch_size=_BATCH)
    return lambda: _consume(iterator.repeat(passes), passes * _ROWS)


def _in_turn(benchmark: Any, contenders: dict[str, Contender], rivals: list[str]) -> None:
    rates: dict[str, list[float]] = {name: [] for name in contenders}

    def turn() -> None:
        for name, contender in contenders.items():
            rates[name].append(contender())

    benchmark.pedantic(turn, warmup_rounds=1, rounds=_TURNS)
    ours = np.array(rates["flow"][1:])
    for name, values in rates.items():
        low, median, high = np.percentile(values[1:], [25, 50, 75])
        benchmark.extra_info[name] = [round(low), round(median), round(high)]
    for name in rivals:
        ratio = np.percentile(ours / np.array(rates[name][1:]), [25, 50, 75])
        benchmark.extra_info[f"flow / {name}"] = ratio.round(2).tolist()
    print()
    for name, quartiles in benchmark.extra_info.items():
        print(f"{name:40} {quartiles}")


def test_arrays(benchmark):
    images, labels = data(_ROWS)
    keras_own = KerasGenerator(**COURSE).flow(images, labels, batch_size=_BATCH)
    batches = 200
    contenders = {
        "flow": _flow(4, images, labels, **COURSE),
        "flow, a single pass": _flow(1, images, labels, **COURSE),
        "flow without augmentation": _flow(4, images, labels),
        "Keras's layers": _keras_layers(images, labels),
        "Keras's iterator": _keras_iterator(keras_own, batches, 1, False),
        "Keras's iterator, 2 threads": _keras_iterator(keras_own, batches, 2, False),
        "Keras's iterator, 4 threads": _keras_iterator(keras_own, batches, 4, False),
        "Keras's iterator, 2 processes": _keras_iterator(keras_own, batches, 2, True),
    }
    benchmark.group = "flow, batches of 32"
    _in_turn(benchmark, contenders, list(contenders)[1:])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """5,000 JPEG files of 64x64 in ten folders."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir()
        for number in range(500):
            small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            small.resize((64, 64), Image.Resampling.BICUBIC).save(
                folder / str(label) / f"{number}.jpg", quality=90
            )
    return folder


@pytest.mark.parametrize("side", [64, 32])
def test_directory(benchmark, photographs, side):
    arguments = {"target_size": (side, side), "batch_size": _BATCH}
    theirs = KerasGenerator(**COURSE).flow_from_directory(photographs, **arguments)
    mine = ImageDataGenerator(**COURSE).flow_from_directory(photographs, **arguments)
    contenders = {
        "flow": lambda: _consume(mine.repeat(2), 10000),
        "Keras's iterator": _keras_iterator(theirs, 60, 1, False),
        "Keras's iterator, 2 threads": _keras_iterator(theirs, 60, 2, False),
    }
    benchmark.group = f"flow_from_directory, 64x64 JPEG to {side}x{side}"
    _in_turn(benchmark, contenders, list(contenders)[1:])

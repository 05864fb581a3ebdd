"""Training end to end: what augmentation costs in the step, and what others' costs.

The course's network, batches of 32, on one device, everyone in turn. The images that were augmented
beforehand show what the network alone can take. Each turn trains two epochs, and the second counts:
the first traces and compiles.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator

import asl_fast
from asl_fast.data import dataset as datasets
from asl_fast.data.pipeline import steps_per_epoch
from asl_fast.training.clock import TrainingClock
from benchmarks.cell import BEFOREHAND, Cell, Meter, in_turn
from benchmarks.contenders import COURSE, Work, keras_layers

__all__ = ["measure"]

_BATCH = 32


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = asl_fast.build_cnn()
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    return model


def _augmenting_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = Work().layers(keras.layers)[:-1]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers, asl_fast.build_cnn()])
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    return model


def _contenders(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[..., Any]]:
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
    scaled = images / np.float32(255)
    with keras_layers(scaled, labels, _BATCH) as layers:
        pass
    return {
        "Keras's generator": lambda **more: _model().fit(generator, **more),
        "Keras's layers in tf.data": lambda **more: _model().fit(
            layers.repeat(), shuffle=False, **more
        ),
        "Keras's layers in the model": lambda **more: _augmenting_model().fit(
            scaled, labels, batch_size=_BATCH, **more
        ),
        "our step": lambda **more: asl_fast.fit(
            _model(),
            images,
            labels,
            augment=augment,
            standardize=rescale,
            batch_size=_BATCH,
            **more,
        ),
        BEFOREHAND: lambda **more: asl_fast.fit(
            _model(), beforehand, labels, batch_size=_BATCH, **more
        ),
    }


def measure(data: datasets.Split, *, turns: int, steps: int | None, meter: Meter) -> Cell:
    """Measures everyone's images/s in training.

    Args:
        data: What to train on.
        turns: Int.
        steps: Int, of an epoch, or None for all.
        meter: Repeats the turns, and hears of what is being done.
    """
    labels = np.eye(24, dtype=np.float32)[data.labels]
    steps = min(steps or 2**40, steps_per_epoch(len(labels), _BATCH))
    images = min(steps * _BATCH, len(labels))

    def sample(fit: Callable[..., Any]) -> float:
        clock = TrainingClock()
        fit(epochs=2, steps_per_epoch=steps, callbacks=[clock], verbose=0)
        asl_fast.release_memory()
        return images / clock.seconds[1]

    everyone = _contenders(np.asarray(data.images), labels)
    samples = {name: functools.partial(sample, fit) for name, fit in everyone.items()}
    return in_turn(
        "training",
        {"batch": _BATCH, "rows": len(labels), "steps": steps},
        "images/s",
        samples,
        turns=turns,
        warm_up=0,  # each warms up for itself
        meter=meter,
    )

"""Training throughput with each way of augmenting: the course's network, batches of 32.

Images augmented beforehand show what the network alone can take. Each sample trains two epochs, of
which the second counts: the first traces and compiles.
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
from asl_fast.models.optimizer import build_optimizer
from asl_fast.models.recipe import RECIPES
from asl_fast.training.clock import TrainingClock
from benchmarks.cell import BEFOREHAND, Cell, Say, in_turn
from benchmarks.contenders.rivals import labelled_layers
from benchmarks.contenders.work import COURSE, Work

__all__ = ["course_model", "measure"]

_BATCH = 32


def course_model(
    *layers: keras.layers.Layer, dtype: str = "float32", recipe: str = "course"
) -> keras.Model:
    """Returns the course's network behind `layers`, compiled with a recipe's optimizer."""
    keras.utils.set_random_seed(0)
    model = asl_fast.build_cnn(dtype=dtype)
    if layers:
        model = keras.Sequential([keras.Input((28, 28, 1)), *layers, model])
    optimizer = build_optimizer(RECIPES[recipe], 10**6)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return model


def _contenders(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[..., Any]]:
    """Returns each contender's `fit`, which takes Keras's further arguments.

    Args:
        images: uint8, (n, 28, 28, 1).
        labels: One-hot, (n, 24).
    """
    rescale = asl_fast.Standardize(rescale=1 / 255, dtype="float32")
    augment = asl_fast.RandomAugment(**COURSE, dtype="float32")
    thousands = (images[i : i + 1000] for i in range(0, len(images), 1000))
    beforehand = np.concatenate(
        [rescale(augment(some, training=True)).numpy() for some in thousands]
    )
    scaled = images / np.float32(255)
    generator = KerasGenerator(**COURSE).flow(scaled, labels, batch_size=_BATCH)
    layers = labelled_layers(scaled, labels, _BATCH).repeat()
    return {
        "Keras's generator": lambda **more: course_model().fit(generator, **more),
        "Keras's layers in tf.data": lambda **more: course_model().fit(
            layers, shuffle=False, **more
        ),
        "Keras's layers in the model": lambda **more: course_model(
            *Work().layers(keras.layers)
        ).fit(scaled, labels, batch_size=_BATCH, **more),
        "our step": lambda **more: asl_fast.fit(
            course_model(),
            images,
            labels,
            augment=augment,
            standardize=rescale,
            batch_size=_BATCH,
            **more,
        ),
        BEFOREHAND: lambda **more: asl_fast.fit(
            course_model(), beforehand, labels, batch_size=_BATCH, **more
        ),
    }


def measure(data: datasets.Split, *, turns: int, steps: int | None, say: Say) -> Cell:
    """Measures images/s in training on a data set, in epochs of `steps` or of all images."""
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
    about = {"batch": _BATCH, "rows": len(labels), "steps": steps}
    # Each warms up on its own.
    return in_turn("training", about, "images/s", samples, turns=turns, warm_up=0, say=say)

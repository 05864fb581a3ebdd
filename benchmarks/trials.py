"""What the study tries: a recipe, and what a recipe has no words for, one change at a time."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from asl_fast.models.recipe import Recipe
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize import Standardize

__all__ = ["EXTRAS", "Extra", "Phase"]


class Phase(NamedTuple):
    """A part of a training.

    Attributes:
        recipe: Its batch size, epochs and augmentation count.
        images: uint8, (n, height, width, 1).
        labels: One-hot, (n, 24).
        then: Layers that follow the augmentation.
        shuffle: Whether the order is drawn.
    """

    recipe: Recipe
    images: np.ndarray
    labels: np.ndarray
    then: tuple[keras.layers.Layer, ...] = ()
    shuffle: bool = True


class Extra:
    """Does nothing besides the recipe; the others change a part."""

    def prepare(self, model: keras.Model) -> None:
        """Changes the model, compiled, before its training."""

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields the training's phases; without a model those of the same sizes."""
        yield whole

    def finish(self, model: keras.Model, whole: Phase) -> None:
        """Changes the model after its training."""


class AlternatingFlip(Extra):
    """Mirrors each image in every second epoch instead of at random."""

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields an epoch at a time."""
        recipe = _with_augment(_with_epochs(whole.recipe, 1), horizontal_flip=False)
        first = np.random.default_rng(0).random(len(whole.images)) < 0.5
        for epoch in range(whole.recipe.epochs):
            images = whole.images.copy()
            mirrored = first if epoch % 2 == 0 else ~first
            images[mirrored] = images[mirrored, :, ::-1]
            yield whole._replace(recipe=recipe, images=images)


class Strength(Extra):
    """Augments by another strength, which may change from the first epoch to the last.

    Args:
        first: Float, factor on rotation, zoom and shifts at the first epoch.
        last: The same at the last.
    """

    def __init__(self, first: float, last: float) -> None:
        self._ends = first, last

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields an epoch at a time."""
        epochs = whole.recipe.epochs
        options = whole.recipe.augment
        for factor in np.linspace(*self._ends, epochs):
            names = ("rotation_range", "zoom_range", "width_shift_range", "height_shift_range")
            changed = {name: float(factor * getattr(options, name)) for name in names}
            yield whole._replace(recipe=_with_augment(_with_epochs(whole.recipe, 1), **changed))


class Cutout(Extra):
    """Erases a patch of half of the images, by Keras's `RandomErasing`."""

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields it all with the layer."""
        erasing = keras.layers.RandomErasing(
            (0.5, 0.5), scale=(0.02, 0.15), fill_value=128.0, value_range=(0, 255), dtype="float32"
        )
        yield whole._replace(then=(erasing,))


class Initialized(Extra):
    """Draws the kernels by another of Keras's initializers.

    Args:
        name: As `keras.initializers.get` takes it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def prepare(self, model: keras.Model) -> None:
        """Draws them anew."""
        for layer in model.layers[:-1]:
            if hasattr(layer, "kernel"):
                initializer = keras.initializers.get(self._name)
                layer.kernel.assign(initializer(layer.kernel.shape))


class SmallerImages(Extra):
    """Trains its first half on images of 25×25, after which as many values reach the dense layers.

    So a network of the same layers takes them.
    """

    side = 25

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields two halves."""
        first = (whole.recipe.epochs + 1) // 2
        small = tf.cast(
            tf.round(tf.image.resize(whole.images, (self.side, self.side), antialias=True)),
            tf.uint8,
        ).numpy()
        yield whole._replace(recipe=_with_epochs(whole.recipe, first), images=small)
        if whole.recipe.epochs > first:
            yield whole._replace(recipe=_with_epochs(whole.recipe, whole.recipe.epochs - first))


class GrowingBatch(Extra):
    """Doubles the batch for the second half of the epochs."""

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields two halves."""
        recipe = whole.recipe
        first = (recipe.epochs + 1) // 2
        yield whole._replace(recipe=_with_epochs(recipe, first))
        grown = dataclasses.replace(recipe, batch_size=2 * recipe.batch_size)
        yield whole._replace(recipe=_with_epochs(grown, recipe.epochs - first))


class HardHalf(Extra):
    """Leaves out, after the first epoch, the half of the images that is easiest by loss."""

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields an epoch of all, then epochs of the half, twice as many less two."""
        yield whole._replace(recipe=_with_epochs(whole.recipe, 1))
        losses = np.arange(len(whole.images)) if model is None else _losses(model, whole)
        hard = np.sort(np.argsort(losses)[len(losses) // 2 :])
        rest = _with_epochs(whole.recipe, 2 * (whole.recipe.epochs - 1))
        yield whole._replace(recipe=rest, images=whole.images[hard], labels=whole.labels[hard])


class EasyFirst(Extra):
    """Takes each letter's images in the order of how far they are from its mean image."""

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields an ordered epoch, then shuffled ones."""
        letters = whole.labels.argmax(axis=1)
        far = np.empty(len(letters))
        for letter in np.unique(letters):
            mine = whole.images[letters == letter].astype(np.float32)
            order = np.square(mine - mine.mean(axis=0)).sum(axis=(1, 2, 3)).argsort().argsort()
            far[letters == letter] = (order + 0.5) / len(order)
        order = np.argsort(far, kind="stable")
        yield whole._replace(
            recipe=_with_epochs(whole.recipe, 1),
            images=whole.images[order],
            labels=whole.labels[order],
            shuffle=False,
        )
        if whole.recipe.epochs > 1:
            yield whole._replace(recipe=_with_epochs(whole.recipe, whole.recipe.epochs - 1))


class Balanced(Extra):
    """Orders each epoch so that every batch holds the letters in equal shares."""

    def phases(self, model: keras.Model | None, whole: Phase) -> Iterator[Phase]:
        """Yields an epoch at a time."""
        letters = whole.labels.argmax(axis=1)
        recipe = _with_epochs(whole.recipe, 1)
        for epoch in range(whole.recipe.epochs):
            random = np.random.default_rng(epoch)
            place = np.empty(len(letters))
            for letter in np.unique(letters):
                mine = np.flatnonzero(letters == letter)
                place[mine] = (random.permutation(len(mine)) + random.random(len(mine))) / len(mine)
            order = np.argsort(place)
            yield whole._replace(
                recipe=recipe, images=whole.images[order], labels=whole.labels[order], shuffle=False
            )


class Averaged(Extra):
    """Takes the exponential average of the weights at the end.

    Args:
        momentum: Float in (0, 1), of the average.
        estimate: Whether the statistics of batch normalisation are estimated anew for it.
    """

    def __init__(self, momentum: float, estimate: bool = True) -> None:
        self._momentum, self._estimate = momentum, estimate

    def prepare(self, model: keras.Model) -> None:
        """Switches Keras's averaging on; `fit` itself puts the average in place at its end."""
        model.optimizer.use_ema = True
        model.optimizer.ema_momentum = self._momentum

    def finish(self, model: keras.Model, whole: Phase) -> None:
        """Estimates the statistics."""
        if self._estimate:
            estimate_statistics(model, whole)


class Estimated(Extra):
    """Estimates the statistics of batch normalisation anew at the end."""

    def finish(self, model: keras.Model, whole: Phase) -> None:
        """Estimates them."""
        estimate_statistics(model, whole)


class MuonSettings(Extra):
    """Gives Muon other settings than the recipe does.

    Args:
        settings: By the names of `keras.optimizers.Muon`'s arguments.
    """

    def __init__(self, **settings: float) -> None:
        self._settings = settings

    def prepare(self, model: keras.Model) -> None:
        """Changes them, before the optimiser is built."""
        for name, value in self._settings.items():
            setattr(model.optimizer, name, value)


EXTRAS: dict[str, Extra] = {
    "": Extra(),
    "alternating flip": AlternatingFlip(),
    "augmentation half as strong": Strength(0.5, 0.5),
    "augmentation 1.5 times as strong": Strength(1.5, 1.5),
    "augmentation fading to half": Strength(1.0, 0.5),
    "cutout": Cutout(),
    "he_normal": Initialized("he_normal"),
    "orthogonal": Initialized("orthogonal"),
    "smaller images first": SmallerImages(),
    "batch doubled": GrowingBatch(),
    "hard half": HardHalf(),
    "easy first": EasyFirst(),
    "balanced batches": Balanced(),
    "average 0.98, statistics kept": Averaged(0.98, estimate=False),
    "average 0.98": Averaged(0.98),
    "average 0.99": Averaged(0.99),
    "statistics estimated": Estimated(),
    "3 steps": MuonSettings(ns_steps=3),
    "2 steps": MuonSettings(ns_steps=2),
    "momentum 0.9": MuonSettings(momentum=0.9),
    "momentum 0.95": MuonSettings(momentum=0.95),
    "momentum 0.95, 5 steps": MuonSettings(momentum=0.95, ns_steps=5),
}


def estimate_statistics(model: keras.Model, whole: Phase, batches: int = 40) -> None:
    """Replaces moving averages by means over fresh augmented batches."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    augment = RandomAugment(**dataclasses.asdict(whole.recipe.augment), seed=1, dtype="float32")
    scale = Standardize(rescale=1 / 255, dtype="float32")
    random = np.random.default_rng(0)
    sums = [[0.0, 0.0] for _ in norms]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the averages become those of the last batch

    @tf.function
    def forward(images: tf.Tensor) -> None:
        model(scale(augment(images, training=True)), training=True)

    for _ in range(batches):
        rows = random.choice(len(whole.images), min(256, len(whole.images)), replace=False)
        forward(whole.images[rows])
        for total, norm in zip(sums, norms, strict=True):
            total[0] += norm.moving_mean.numpy() / batches
            total[1] += norm.moving_variance.numpy() / batches
    for norm, momentum, (mean, variance) in zip(norms, momenta, sums, strict=True):
        norm.momentum = momentum
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)


def _with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    return dataclasses.replace(recipe, epochs=epochs)


def _with_augment(recipe: Recipe, **options: object) -> Recipe:
    return dataclasses.replace(recipe, augment=dataclasses.replace(recipe.augment, **options))


def _losses(model: keras.Model, whole: Phase) -> np.ndarray:
    pixels = whole.images.astype(np.float32) / 255
    probabilities = model.predict(pixels, batch_size=1024, verbose=0)
    return -np.log(np.maximum((probabilities * whole.labels).sum(axis=1), 1e-9))

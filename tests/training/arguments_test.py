"""Arguments and arrays of every kind that `fit` may be given: taken as in Keras, or named."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from asl_fast import RandomAugment, Standardize, fit
from asl_fast.training.arrays import as_arrays

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 6, 6, 1)).astype(np.uint8)
LABELS = RNG.integers(0, 4, 8)
RESCALE = Standardize(rescale=1 / 255, dtype="float32")


def small_model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(4, "softmax")]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("batch_size", value) for value in (0, -1, 2.5, True, "8")),
        *(("steps_per_epoch", value) for value in (0, -2, float("inf"), float("nan"), "3")),
        ("validation_steps", 0),
        *(("epochs", value) for value in (-1, 1.5, None)),
        ("initial_epoch", -1),
        *(("seed", value) for value in (-1, 2**32, 1.5, "a")),
        ("jit", "x"),
        ("resident", "auto"),
        ("shuffle", "batch"),
        ("precision", "x"),
        *(("class_weight", value) for value in ([1.0, 2.0], {"a": 1.0}, {0: float("nan")})),
        *(("callbacks", value) for value in ([3], [None], keras.callbacks.History, "log")),
        ("validation_freq", 0),
        ("validation_split", "a"),
        ("steps_per_execution", 1.5),
        ("checkpoints", "folder"),
        ("augment", keras.layers.RandomFlip()),
        ("standardize", 1 / 255),
        ("targets", "mask"),
        ("x", None),
        ("x", np.full((8, 6, 6, 1), "a")),
        ("y", ["a"] * 8),
        ("y", np.full(8, "2020-01-01", "datetime64[D]")),
        ("y", [[1], [2, 3]] * 4),
        ("y", [None] * 8),
        ("y", tf.ragged.constant([[1]] * 8)),
    ],
    ids=str,
)
def test_what_is_refused_is_named_in_a_sentence(name, value):
    arguments = {"x": IMAGES, "y": LABELS, "verbose": 0, name: value}
    with pytest.raises(ValueError, match=f"`{name}`") as caught:
        fit(small_model(), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        LABELS.tolist(),
        tuple(LABELS),
        LABELS.astype(">i4"),
        LABELS.astype(object),
        pd.Series(LABELS),
        pd.Series(LABELS).astype("Int64"),
        tf.constant(LABELS),
        LABELS.astype(np.longdouble),
        LABELS.astype(np.float16),
        LABELS.astype(">f8"),
    ],
    ids=range(10),
)
def test_arrays_come_in_keras_types(given):
    made = as_arrays("y", given)
    np.testing.assert_array_equal(made, LABELS)
    assert made.dtype.isnative
    assert made.dtype.kind == "i" or made.dtype == keras.config.floatx()


def test_numpys_numbers_are_numbers():
    numbers = {"batch_size": np.int32(4), "epochs": np.int64(2), "seed": np.uint32(1)}
    numbers |= {"steps_per_execution": np.int64(2), "shuffle": np.bool_(False)}
    assert fit(small_model(), IMAGES, LABELS, **numbers, verbose=0).epoch == [0, 1]


@pytest.mark.parametrize("train", [fit, lambda model, *xy, **_: model.fit(*xy)], ids=range(2))
def test_a_training_within_a_training_of_the_model_is_refused(train):
    class Again(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            train(self.model, IMAGES, LABELS, verbose=0)

    model = small_model()
    with pytest.raises(ValueError, match="`model` is being trained"):
        fit(model, IMAGES, LABELS, callbacks=[Again()], verbose=0)
    model.fit(IMAGES, LABELS, verbose=0)  # and is free afterwards


def two_images():
    inputs = [keras.Input((6, 6, 1)), keras.Input((6, 6, 1))]
    flat = [keras.layers.Flatten()(images) for images in inputs]
    model = keras.Model(inputs, keras.layers.Dense(4, "softmax")(keras.layers.Concatenate()(flat)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("more", "arguments", "message"),
    [
        (IMAGES, {"augment": RandomAugment(rotation_range=9)}, "must be given for each input"),
        (IMAGES.astype("float32"), {"standardize": RESCALE}, "must say which inputs are images"),
        (IMAGES, {"standardize": [RESCALE]}, "`standardize` must be a list or dictionary as"),
        (IMAGES[..., 0], {"standardize": RESCALE}, "must say which inputs are images"),
        (IMAGES[:, 0, 0], {"augment": [None, RandomAugment(zoom_range=0.1)]}, "must hold images"),
    ],
    ids=range(5),
)
def test_what_is_an_image_is_never_guessed(more, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(two_images(), [IMAGES, more], LABELS, **arguments, verbose=0)


def test_targets_with_rows_and_columns_must_be_told():
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(1, 1)])
    model.compile("sgd", "mse")
    augment = RandomAugment(rotation_range=90)
    for masks in (IMAGES, IMAGES[..., 0]):
        with pytest.raises(ValueError, match="`targets` must say"):
            fit(model, IMAGES, masks, augment=augment, verbose=0)
    fit(model, IMAGES, IMAGES, augment=augment, targets="as they are", verbose=0)
    with pytest.raises(ValueError, match="must have the images' sides"):
        fit(model, IMAGES, IMAGES[:, ::2], augment=augment, targets="masks", verbose=0)
    with pytest.raises(ValueError, match="no target has rows and columns"):
        fit(small_model(), IMAGES, LABELS, augment=augment, targets="masks", verbose=0)

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import AugmentOptions, ImageDataGenerator, fit
from asl_fast.training.targets import fitting_labels
from tests.samples import blobs

IMAGES, LABELS = blobs(48)
ONE_HOT = np.eye(24, dtype=np.float32)[LABELS]


def trained(loss, labels, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(24, "softmax")]
    )
    model.compile("adam", loss, metrics=["accuracy"])
    arguments = {"augment": AugmentOptions(horizontal_flip=True), "verbose": 0} | arguments
    return fit(model, IMAGES / 255, labels, validation_data=(IMAGES / 255, labels), **arguments)


@functools.cache
def expected():
    return trained("categorical_crossentropy", ONE_HOT).history


LOSSES = [
    "categorical_crossentropy",
    keras.losses.CategoricalCrossentropy(),
    "sparse_categorical_crossentropy",
    keras.losses.sparse_categorical_crossentropy,
]


@pytest.mark.parametrize("loss", LOSSES, ids=range(4))
def test_labels_may_be_one_hot_or_integers_whatever_the_loss(loss):
    for labels in (ONE_HOT, LABELS, LABELS[:, None].astype(float)):
        history = trained(loss, labels).history
        assert history.keys() == expected().keys()
        for name, values in expected().items():
            np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)


def test_class_weights_count_either_way():
    weights = {"class_weight": {0: 10.0}}
    weighted = trained("categorical_crossentropy", ONE_HOT, **weights).history
    assert trained("sparse_categorical_crossentropy", ONE_HOT, **weights).history == weighted
    assert weighted != expected()


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        ("categorical_crossentropy", ONE_HOT[:, :10], r"have the shape \(None, 10\);.*\(n, 24\)"),
        ("sparse_categorical_crossentropy", ONE_HOT[:, :, None], "takes integers"),
        ("categorical_crossentropy", LABELS + 3, "The label in row 21 is 24, .* 6 of 48 labels"),
        ("sparse_categorical_crossentropy", LABELS - 1, "The label in row 0 is -1"),
        ("sparse_categorical_crossentropy", LABELS + 0.5, "The label in row 0 is 0.5"),
    ],
    ids=range(5),
)
def test_labels_that_fit_no_way_are_described(loss, labels, message):
    with pytest.raises(ValueError, match=message):
        trained(loss, labels)


def test_labels_of_flow_and_of_validation_are_looked_at_too():
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(24, "softmax")]
    )
    model.compile("adam", "categorical_crossentropy")
    flow = ImageDataGenerator().flow(IMAGES, LABELS + 3)
    with pytest.raises(ValueError, match="The label in row 21 is 24"):
        fit(model, flow, verbose=0)
    with pytest.raises(ValueError, match="The label in row 21 is 24"):
        fit(model, IMAGES, LABELS, validation_data=(IMAGES, LABELS + 3), verbose=0)


def test_other_losses_take_what_they_take():
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    labels = tf.constant(LABELS)
    assert fitting_labels(model)(labels) is labels

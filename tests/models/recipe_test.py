import dataclasses

import keras
import numpy as np
import pytest

from asl_fast import RECIPES, InputError
from asl_fast.models.optimizer import build_optimizer
from asl_fast.models.recipe import OPTIMIZERS
from tests.samples import needs_keras_with

COURSE = RECIPES["course"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adam"}, "The optimizer must be one of rmsprop, adamw,.* Received: adam."),
        ({"schedule": "step"}, "The schedule must be one of constant, cosine. Received: step."),
        ({"learning_rate": 0.0}, "The learning rate must be above 0. Received: 0.0."),
        ({"learning_rate": float("nan")}, "The learning rate must be above 0. Received: nan."),
        ({"learning_rate": float("inf")}, "The learning rate must be above 0. Received: inf."),
        ({"warm_up": 1.0}, "The warm up must be at least 0 and below 1. Received: 1.0."),
        ({"weight_decay": -1.0}, "The weight decay must be at least 0. Received: -1.0."),
        ({"label_smoothing": -0.1}, "The label smoothing must be at least 0 and below 1."),
        ({"batch_norm_momentum": 1.0}, "The batch norm momentum must be at least 0 and below 1."),
        ({"batch_size": 0}, "The batch size must be a whole number, at least 1. Received: 0."),
        ({"epochs": 0}, "The epochs must be a whole number, at least 1. Received: 0."),
    ],
    ids=str,
)
def test_values_out_of_range_are_rejected(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(COURSE, **change)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warm_up", [0.0, 0.25])
def test_the_learning_rate_over_the_steps(schedule, warm_up):
    recipe = dataclasses.replace(COURSE, learning_rate=0.5, schedule=schedule, warm_up=warm_up)
    optimizer = build_optimizer(recipe, steps=100)
    rates = []
    for step in range(101):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    rising = int(100 * warm_up)
    np.testing.assert_allclose(rates[:rising], np.arange(rising) * 0.5 / max(rising, 1), rtol=1e-5)
    assert rates[rising] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.5 if schedule == "constant" else 0, abs=1e-6)
    assert rates[(100 + rising) // 2] == pytest.approx(
        0.5 if schedule == "constant" else 0.25, 0.05
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_trains_and_decays(name):
    """With no gradient only the decay moves a weight."""
    if name == "muon" and not hasattr(keras.optimizers, "Muon"):
        pytest.skip(f"Keras {keras.__version__} has no Muon")
    recipe = dataclasses.replace(COURSE, optimizer=name, learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(recipe, steps=10)
    kernel = keras.Variable(np.ones((3, 3), np.float32))
    optimizer.build([kernel])
    optimizer.apply([np.zeros((3, 3), np.float32)])
    np.testing.assert_allclose(kernel.numpy(), 0.95, rtol=1e-5)
    optimizer.apply([np.eye(3, dtype=np.float32)])
    assert np.diag(kernel.numpy()).max() < kernel.numpy()[0, 1]


def test_the_course_recipe_has_the_optimizer_of_the_course():
    optimizer = build_optimizer(COURSE, steps=10)
    optimizer.name = "rmsprop"
    assert type(optimizer) is keras.optimizers.RMSprop
    assert optimizer.get_config() == keras.optimizers.RMSprop(1e-3, name="rmsprop").get_config()


@needs_keras_with("Muon")
def test_kernel_muon_treats_a_convolution_kernel_as_a_matrix():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    gradients = np.random.default_rng(1).normal(size=(3, *kernel.shape)).astype(np.float32)
    recipe = dataclasses.replace(COURSE, optimizer="kernel_muon", weight_decay=0.1)
    kernel_muon = build_optimizer(recipe, steps=10)
    muon = build_optimizer(recipe, steps=10, portable=True)
    assert type(muon) is keras.optimizers.Muon
    four, two = keras.Variable(kernel), keras.Variable(kernel.reshape(36, 5))
    for optimizer, variable in ((kernel_muon, four), (muon, two)):
        for gradient in gradients:
            optimizer.apply([gradient.reshape(variable.shape)], [variable])
    np.testing.assert_allclose(four.numpy().reshape(36, 5), two.numpy(), rtol=1e-5)
    assert np.abs(four.numpy() - kernel).max() > 1e-3

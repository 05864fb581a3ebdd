import keras
import numpy as np
import pytest
import tensorflow as tf

import asl_fast
from asl_fast.training import fused_batch_norm as normalization
from tests.samples import blobs

layers = keras.layers


def network(shape, padding="same", policy="float32", **norm):
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.BatchNormalization(momentum=0.9, dtype=policy, **norm),
            layers.MaxPool2D(2, padding=padding, dtype=policy),
        ]
    )


def step(model, images):
    """Returns output, gradients and moving averages of a training step, all as arrays."""
    norm = model.layers[0]
    random = np.random.default_rng(1)
    channels = images.shape[-1]
    norm.gamma.assign(random.normal(size=channels) + np.where(np.arange(channels) % 2, 2, -2))
    norm.beta.assign(random.normal(size=channels))
    norm.moving_mean.assign(np.zeros(channels))
    norm.moving_variance.assign(np.ones(channels))

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            out = tf.cast(model(images, training=True), tf.float64)
            weights = random.normal(size=out.shape)
            loss = tf.reduce_sum(out * weights)
        return out, *tape.gradient(loss, [images, norm.gamma, norm.beta])

    found = run(tf.constant(images))
    return [
        np.asarray(v, np.float32) for v in (*found, norm.moving_mean[:], norm.moving_variance[:])
    ]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "shape", [(37, 10, 12, 3), (5, 11, 13, 4)], ids=["even", "odd, few images"]
)
def test_fused_layers_equal_separate_ones(shape, padding, monkeypatch):
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    images[:, :4, :4] = np.maximum(images[:, :4, :4], 0)  # equal values, as ReLU leaves them
    images[..., 0] += 100  # the variance must keep its digits
    expected = step(network(shape[1:], padding, "float64"), images.astype(np.float64))
    model = network(shape[1:], padding)
    calls = []
    kernel = normalization.normalized_pool
    monkeypatch.setattr(
        normalization, "normalized_pool", lambda *given: calls.append(1) or kernel(*given)
    )
    with normalization.fused(model):
        found = step(model, images)
    assert calls
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_bfloat16_images_are_normalised_in_float32():
    images = np.random.default_rng(0).normal(2, 1, size=(64, 10, 10, 3))
    images = tf.cast(images, tf.bfloat16)
    exact = step(network((10, 10, 3)), tf.cast(images, tf.float32))
    model = network((10, 10, 3), policy="mixed_bfloat16")
    with normalization.fused(model):
        found = step(model, images)
    np.testing.assert_allclose(found[0], exact[0], rtol=1 / 128, atol=1 / 128)
    np.testing.assert_allclose(found[3], exact[3], rtol=1 / 128, atol=0.5)


@pytest.mark.parametrize("between", [None, layers.Dropout(0.3, seed=4), layers.ReLU()], ids=str)
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_what_comes_before_has_keras_gradient(activation, between):
    images = tf.constant(np.random.default_rng(0).uniform(size=(32, 13, 13, 1)), tf.float32)
    convolution = layers.Conv2D(4, 3, activation=activation)
    network = keras.Sequential(
        [
            convolution,
            *([] if between is None else [between]),
            layers.BatchNormalization(gamma_initializer="random_normal"),
            layers.MaxPool2D(2),
        ]
    )
    weights = tf.random.stateless_normal(network(images).shape, (1, 2))

    @tf.function
    def gradients():
        if between is not None and between.variables:
            between.variables[0].assign([4, 0])  # the same draws each time
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(images, training=True) * weights)
        return tape.gradient(loss, network.trainable_variables)

    expected = gradients()
    with normalization.fused(network):
        found = tf.function(gradients.python_function)()
    assert convolution.activation is keras.activations.get(activation)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_fit_trains_as_keras_does_and_gives_the_model_back():
    images, labels = blobs(80)
    labels = np.eye(24, dtype=np.float32)[labels]

    def model():
        keras.utils.set_random_seed(0)
        built = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Conv2D(4, 3, activation="relu"),
                layers.BatchNormalization(),
                layers.MaxPool2D(2),
                layers.Flatten(),
                layers.Dense(24, activation="softmax"),
            ]
        )
        built.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
        return built

    ours, kerass = model(), model()
    scaled = images.astype(np.float32) / 255
    asl_fast.fit(
        ours,
        images,
        labels,
        standardize=asl_fast.Standardize(rescale=1 / 255),
        batch_size=32,
        shuffle=False,
        epochs=2,
        verbose=0,
    )
    kerass.fit(scaled, labels, batch_size=32, shuffle=False, epochs=2, verbose=0)
    for one, other in zip(ours.get_weights(), kerass.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert "call" not in vars(ours)


@pytest.mark.parametrize(
    "norm",
    [{"axis": 1}, {"center": False}, {"scale": False}, {"trainable": False}, {"renorm": True}],
    ids=str,
)
def test_what_is_something_else_is_left_to_keras(norm):
    model = network((12, 16, 3), **norm)
    with normalization.fused(model):
        assert "call" not in vars(model)


def test_images_too_small_to_gain_are_left_to_keras():
    for side, taken in ((9, False), (10, True)):
        model = network((side, side, 3))
        with normalization.fused(model):
            assert ("call" in vars(model)) == taken

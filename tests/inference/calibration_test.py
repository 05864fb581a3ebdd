import keras
import numpy as np
import pytest

from asl_fast import build_cnn
from asl_fast.inference import calibration
from asl_fast.inference.evaluation import calibration_error


def drawn(rows, scale, seed=0):
    """Labels drawn from a softmax, and the probabilities of logits `scale` times as large."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (rows, 5))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return labels, np.asarray(keras.ops.softmax(scale * logits)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(scale):
    labels, probabilities = drawn(20_000, scale)
    temperature = calibration.temperature(labels, probabilities)
    assert temperature == pytest.approx(scale, rel=0.05)
    unseen, before = drawn(20_000, scale, seed=1)
    after = calibration.softened(before, temperature)
    assert calibration_error(unseen, after) < 0.02
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))


def test_no_mistake_in_few_images_does_not_make_a_network_certain():
    labels, probabilities = np.zeros(60, int), np.tile([0.6, 0.3, 0.1], (60, 1))
    temperature = calibration.temperature(labels, probabilities)
    softened = calibration.softened(probabilities, temperature)
    assert softened[0, 0] == pytest.approx(61 / 62, abs=1e-3)


def test_probabilities_of_zero_and_one_are_softened_too():
    labels, probabilities = drawn(500, 200.0)
    softened = calibration.softened(probabilities, calibration.temperature(labels, probabilities))
    assert np.isfinite(softened).all()
    np.testing.assert_allclose(softened.sum(axis=1), 1)


def test_the_temperature_is_in_the_models_weights():
    keras.utils.set_random_seed(0)
    model = build_cnn((8, 8, 1), 3)
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    model.layers[-1].bias.assign([0.5, -0.5, 0.0])
    before = np.asarray(model(images))
    calibration.calibrate(model, 0.5)
    np.testing.assert_allclose(model(images), calibration.softened(before, 0.5), atol=1e-6)

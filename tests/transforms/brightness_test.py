import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing import image as oracle

from asl_fast.transforms.brightness import Brightness
from asl_fast.transforms.channel_shift import ChannelShift

RANDOM = np.random.default_rng(0)
FACTORS = np.linspace(0, 2.5, 40).astype(np.float32)


def brighten(images, factors=FACTORS, **options):
    factors = np.broadcast_to(np.float32(factors), len(images))
    return Brightness(**options).pixels(tf.constant(images), {"brightness": factors}).numpy()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("lower", "upper"), [(0, 255), (0, 1), (-1, 1), (20, 400), (-50, 200), (7, 7)]
)
def test_brightness_as_keras_has_it(channels, lower, upper):
    images = RANDOM.uniform(lower, upper, (40, 9, 8, channels)).astype(np.float32)
    ours = brighten(images, quirks=True)
    theirs = [
        oracle.apply_brightness_shift(image, float(factor), False)
        for image, factor in zip(images, FACTORS, strict=True)
    ]
    np.testing.assert_allclose(ours, np.stack(theirs), rtol=1e-6, atol=1e-4)


def test_keras_brightness_turns_scaled_images_into_zeros_and_ones_and_the_sensible_does_not():
    images = RANDOM.uniform(0, 1, (1, 28, 28, 1)).astype(np.float32)
    assert set(np.unique(brighten(images, 1.0, quirks=True))) <= {0, 1}
    np.testing.assert_array_equal(brighten(images, 1.0, value_range=(0, 1)), images)


def test_sensible_brightness_multiplies_and_clips():
    images = RANDOM.uniform(0, 255, (40, 5, 5, 2)).astype(np.float32)
    ours = brighten(images, value_range=(10, 240))
    expected = np.clip(images * FACTORS[:, None, None, None], 10, 240)
    np.testing.assert_array_equal(ours, expected)


def test_channel_shifts_are_keras_own():
    images = RANDOM.uniform(0, 255, (20, 6, 5, 3)).astype(np.float32)
    shifts = RANDOM.uniform(-300, 300, 20).astype(np.float32)
    ours = ChannelShift().pixels(tf.constant(images), {"channel_shift_intensity": shifts}).numpy()
    theirs = [
        oracle.apply_channel_shift(image, shift, 2)
        for image, shift in zip(images, shifts, strict=True)
    ]
    np.testing.assert_array_equal(ours, np.stack(theirs))

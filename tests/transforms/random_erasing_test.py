import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import AugmentOptions, RandomAugment
from asl_fast.transforms.random_erasing import RandomErasing
from tests.samples import needs_keras_with

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(0, 255, (64, 20, 30, 3)).astype(np.float32)


def erased(**options):
    """Returns the parameters of 64 images, and these images with rectangles erased."""
    layer = RandomAugment(**options, dtype="float32")
    drawn = layer.draw(IMAGES, samples=np.arange(64), epoch=0)
    return {name: value.numpy() for name, value in drawn.items()}, layer.apply(IMAGES, drawn)


@needs_keras_with("RandomErasing")
@pytest.mark.parametrize("fill", [7.0, (1.0, 300.0, 3.0), None])
def test_the_same_rectangles_are_filled_as_by_kerass_layer(fill):
    drawn, ours = erased(erasing_factor=(0.9, 1.0), erasing_fill_value=fill)
    theirs = keras.layers.RandomErasing(fill_value=fill)
    edges = (drawn[f"erasing_{edge}"] for edge in ("left", "right", "top", "bottom"))
    masks = theirs._generate_batch_mask(IMAGES.shape, tuple(map(tf.constant, edges)))
    # Keras's noise is another one; ours is checked below.
    filled = ours if fill is None else theirs._get_fill_value(IMAGES, IMAGES.shape, 0)
    transformation = {
        "apply_erasing": tf.constant(drawn["erasing_right"] > drawn["erasing_left"]),
        "batch_masks": masks,
        "fill_value": filled,
    }
    np.testing.assert_array_equal(ours, theirs.transform_images(IMAGES, transformation))
    assert 0.01 < masks.numpy().mean() < 0.3


def test_sides_places_and_probability_are_drawn_as_kerass_layer_draws_them():
    options = AugmentOptions(erasing_factor=0.6, erasing_scale=(0.1, 0.3))
    units = tf.unstack(tf.random.stateless_uniform([20_000, 7], (1, 2)), axis=1)
    drawn = options.transforms[-1].draw(units, 40, 80)
    left, right, top, bottom = (
        drawn[f"erasing_{edge}"].numpy() for edge in ("left", "right", "top", "bottom")
    )
    some = right > left
    assert abs(some.mean() - 0.3) < 0.01  # the mean of probabilities in (0, 0.6)
    for begin, end, side in ((left, right, 80), (top, bottom, 40)):
        lengths = (end - begin)[some] / side
        assert np.sqrt(0.1) - 1e-4 < lengths.min()
        assert lengths.max() < np.sqrt(0.3) + 1e-4
        assert abs((lengths**2).mean() - 0.2) < 0.01
        room = side - (end - begin)[some]
        assert abs((begin[some] / room).mean() - 0.5) < 0.02
    assert (bottom > top)[~some].sum() == 0


def test_noise_is_normal_clipped_to_the_range_and_different_in_each_image():
    layer = RandomAugment(
        erasing_factor=(1, 1), erasing_scale=(1, 1), value_range=(-100, 1), dtype="float32"
    )
    images = np.zeros((50, 30, 30, 1), np.float32)
    noise = layer(images, samples=np.arange(50), epoch=0, training=True).numpy()
    below = noise[noise < 1]
    assert noise.max() == 1
    assert abs((noise == 1).mean() - 0.1587) < 0.01  # a normal number above 1
    assert abs(below.mean() + 0.2876) < 0.02  # the mean of one below 1
    assert abs(below.std() - 0.7936) < 0.02
    rows = noise.reshape(50, -1)
    assert np.abs(np.corrcoef(rows) - np.eye(50)).max() < 0.2
    again = layer(images, samples=np.arange(50), epoch=1, training=True).numpy()
    assert abs(np.corrcoef(again.ravel(), noise.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("erasing_factor", 1.1),
        ("erasing_factor", (0.5, 0.4)),
        ("erasing_factor", None),
        ("erasing_scale", 0.3),
        ("erasing_scale", (0.1, 2)),
        ("erasing_fill_value", "red"),
        ("erasing_fill_value", (1, 2)),
    ],
)
def test_wrong_options_are_named(option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be .*Received: "):
        RandomAugment(**{option: value})


def test_three_numbers_need_three_channels():
    layer = RandomErasing(erasing_factor=1.0, erasing_fill_value=(1.0, 2.0, 3.0))
    rectangle = {f"erasing_{edge}": tf.zeros([64]) for edge in ("left", "right", "top", "bottom")}
    with pytest.raises(ValueError, match="must have 3 channels"):
        layer.pixels(tf.constant(IMAGES[..., :1]), rectangle)

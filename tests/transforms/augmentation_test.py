import numpy as np
import pytest
import tensorflow as tf

from asl_fast import AugmentOptions
from asl_fast.transforms import augmentation
from asl_fast.transforms.warp import warp

EVERYTHING = {
    "rotation_range": 10,
    "width_shift_range": 0.1,
    "height_shift_range": 0.2,
    "brightness_range": (0.5, 1.5),
    "shear_range": 20,
    "zoom_range": (0.8, 1.3),
    "channel_shift_range": 30,
    "horizontal_flip": True,
    "vertical_flip": True,
}


def draw(options, count=4000, seed=0, epoch=0, side=(20, 40)):
    key = tf.constant([seed, epoch], tf.uint32)
    drawn = augmentation.draw(AugmentOptions(**options), key, tf.range(count), *side)
    return {name: values.numpy() for name, values in drawn.items()}


def test_ranges_are_kept_and_filled():
    drawn = draw(EVERYTHING)
    # Uniform on the option's range, the shifts as fractions of their own side.
    for values, lower, upper in (
        (drawn["theta"], -10, 10),
        (drawn["tx"], -4, 4),
        (drawn["ty"], -4, 4),
        (drawn["shear"], -20, 20),
        (drawn["zx"], 0.8, 1.3),
        (drawn["zy"], 0.8, 1.3),
        (drawn["channel_shift_intensity"], -30, 30),
        (drawn["brightness"], 0.5, 1.5),
    ):
        assert lower <= values.min() < lower + 0.01 * (upper - lower)
        assert upper - 0.01 * (upper - lower) < values.max() <= upper
        assert abs(values.mean() - (lower + upper) / 2) < 0.02 * (upper - lower)
    for flips in (drawn["flip_horizontal"], drawn["flip_vertical"]):
        assert set(flips) == {0, 1}
        assert abs(flips.mean() - 0.5) < 0.03
    assert np.abs(np.corrcoef(list(drawn.values())) - np.eye(10)).max() < 0.06


@pytest.mark.parametrize(
    ("shift", "values"),
    [
        # Of Keras's rules: an int counts whole pixels below it; arrays get a random sign, and
        # count as fractions of the side (40) if all of them are below 1.
        (1, [0]),
        (3, [-2, -1, 0, 1, 2]),
        ([1.5, 4], [-4, -1.5, 1.5, 4]),
        (np.array([0.1, 0.25]), [-10, -4, 4, 10]),
        ((0.5, 1), [-1, -0.5, 0.5, 1]),
        (0, [0]),
    ],
)
def test_shifts_by_whole_numbers_and_by_choice(shift, values):
    drawn = draw({"width_shift_range": shift, "rotation_range": 1})
    # Shifts by nothing draw nothing.
    drawn = drawn.get("tx", np.zeros(len(drawn["theta"])))
    found, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_allclose(found, values, rtol=1e-6)
    if isinstance(shift, int) and shift:
        expected = [1 / (2 * shift) * (2 if value == 0 else 1) for value in values]
    else:
        expected = np.full(len(values), 1 / len(values))
    np.testing.assert_allclose(counts / len(drawn), expected, atol=0.03)


def test_a_float_shift_from_1_on_is_in_pixels():
    drawn = draw({"width_shift_range": 1.0, "height_shift_range": 3.0})
    assert 0.98 < drawn["tx"].max() <= 1
    assert 2.95 < drawn["ty"].max() <= 3


def test_with_quirks_the_shifts_change_places():
    plain, quirky = draw(EVERYTHING), draw({**EVERYTHING, "quirks": True})
    np.testing.assert_array_equal(quirky["tx"], plain["ty"])
    np.testing.assert_array_equal(quirky["ty"], plain["tx"])
    np.testing.assert_array_equal(quirky["theta"], plain["theta"])


def test_an_option_that_is_off_draws_nothing_and_leaves_the_others_draws_alone():
    everything = draw(EVERYTHING)
    assert draw({}) == {}
    for option, name in (
        ("rotation_range", "theta"),
        ("shear_range", "shear"),
        ("zoom_range", "zy"),
        ("vertical_flip", "flip_vertical"),
        ("brightness_range", "brightness"),
    ):
        alone = draw({option: EVERYTHING[option]})
        np.testing.assert_array_equal(alone[name], everything[name])


def test_seed_and_epoch_change_the_draw():
    draws = [draw(EVERYTHING, seed=s, epoch=e)["theta"] for s, e in ((0, 0), (0, 1), (1, 0))]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(draws[first], draws[second])[0, 1]) < 0.05


def moved(shape, start, *, quirks=False, **parameters):
    """Returns where a single bright pixel comes to lie."""
    image = np.zeros((1, *shape, 1), np.float32)
    image[(0, *start, 0)] = 1
    values = {name: tf.constant([float(value)]) for name, value in parameters.items()}
    matrix = augmentation.output_to_input(AugmentOptions(quirks=quirks), values, *shape)
    after = warp(tf.constant(image), matrix, fill_mode="constant").numpy()[0, ..., 0]
    assert after.max() > 0.99
    return np.unravel_index(after.argmax(), shape)


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({"tx": 0}, (4, 6)),
        ({"tx": 2}, (4, 4)),  # read 2 to the right: the picture moves left
        ({"ty": 2}, (2, 6)),
        ({"flip_horizontal": 1}, (4, 4)),
        ({"flip_vertical": 1}, (4, 6)),
        ({"flip_vertical": 1, "ty": 1}, (5, 6)),
        ({"zx": 0.5}, (4, 7)),
        ({"theta": 90}, (3, 5)),
        ({"theta": 180}, (4, 4)),
    ],
)
def test_where_pixels_go(parameters, place):
    assert moved((9, 11), (4, 6), **parameters) == place


def test_images_that_are_not_square_turn_about_their_middle_without_quirks():
    assert moved((5, 7), (2, 3), theta=90) == (2, 3)
    assert moved((5, 7), (2, 3), theta=90, quirks=True) == (2, 1)

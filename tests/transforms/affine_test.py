import numpy as np
import pytest
import tensorflow as tf

from asl_fast.transforms import affine
from asl_fast.transforms.parameters import Parameters
from asl_fast.transforms.warp import warp

NEUTRAL = Parameters(*[tf.zeros([1])] * 4, *[tf.ones([1])] * 2, *[tf.zeros([1])] * 2)


def moved(shape, start, *, quirks=False, **parameters):
    """Returns where a single bright pixel comes to lie."""
    image = np.zeros((1, *shape, 1), np.float32)
    image[(0, *start, 0)] = 1
    values = NEUTRAL._replace(**{n: tf.constant([float(v)]) for n, v in parameters.items()})
    matrix = affine.output_to_input(values, *shape, quirks=quirks)
    after = warp(tf.constant(image), matrix, fill_mode="constant").numpy()[0, ..., 0]
    assert after.max() > 0.99
    return np.unravel_index(after.argmax(), shape)


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({}, (4, 6)),
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


def test_images_that_are_not_square_turn_about_their_middle_but_for_the_quirk():
    assert moved((5, 7), (2, 3), theta=90) == (2, 3)
    assert moved((5, 7), (2, 3), theta=90, quirks=True) == (2, 1)

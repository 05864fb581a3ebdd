"""Our pixels against the installed generator's: `scripts/conformance` on fewer images."""

import hypothesis
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from benchmarks import conformance

# Shares of the pixel range; float32 against float64.
TOLERANCE = 1e-3


def check(result, *, changes=True):
    assert result.largest < TOLERANCE
    assert result.boundary < 0.02
    assert result.changed > 0.005 or not changes


@pytest.mark.parametrize("options", conformance.CASES, ids=str)
def test_each_option(options):
    check(conformance.compare(options, (31, 17, 3), "uint8", 12))


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_everything_on_other_images(shape, dtype):
    options = {**conformance.EVERYTHING, "fill_mode": "constant", "interpolation_order": 3}
    check(conformance.compare(options, shape, dtype, 40))


def small(upper):
    return st.floats(0, upper, allow_subnormal=False)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "rotation_range": small(180),
            "width_shift_range": small(3) | st.integers(0, 4) | st.lists(small(2), min_size=1),
            "height_shift_range": small(3) | st.integers(0, 4) | st.lists(small(2), min_size=1),
            "brightness_range": st.tuples(small(1), st.floats(1, 3)),
            "shear_range": small(40),
            "zoom_range": small(0.9) | st.tuples(st.floats(0.2, 1), st.floats(1, 4)),
            "channel_shift_range": small(100),
            "fill_mode": st.sampled_from(["constant", "nearest", "reflect", "wrap"]),
            "cval": st.floats(-10, 300),
            "horizontal_flip": st.booleans(),
            "vertical_flip": st.booleans(),
            "interpolation_order": st.integers(0, 5),
        },
    ),
    shape=st.sampled_from([(9, 12, 1), (8, 10, 3), (11, 1, 1)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_combination(options, shape, seed):
    # Eagerly, for the sake of time; that compiled code does the same is tested elsewhere.
    tf.config.run_functions_eagerly(True)
    try:
        result = conformance.compare(options, shape, "float32", 6, seed)
    finally:
        tf.config.run_functions_eagerly(False)
    assert result.largest < TOLERANCE

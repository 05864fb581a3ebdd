import numpy as np
import pytest
import scipy
import tensorflow as tf
from scipy import ndimage

from asl_fast.transforms import spline
from asl_fast.transforms.fill_modes import FILL_MODES

# Its coefficients of short lines are a little off for "reflect"; 1.18, for Python 3.12 and later,
# is right.
OLD_SCIPY = tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 18)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_the_prefilter_is_scipys(order):
    for side in (1, 2, 3, 5, 28):
        for fill_mode, mode in FILL_MODES.items():
            lines = np.eye(side)
            if fill_mode == "nearest":
                lines = np.pad(lines, ((12, 12), (0, 0)), mode="edge")
            if fill_mode == "reflect" and side < 8 and OLD_SCIPY:
                continue
            expected = ndimage.spline_filter1d(lines, order, axis=0, mode=fill_mode)
            np.testing.assert_allclose(spline.prefilter(side, order, mode), expected, atol=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("fill_mode", ["reflect", "wrap"])
def test_the_spline_goes_through_the_pixels(order, fill_mode):
    """Whatever SciPy does: at each pixel the weighted coefficients give that pixel."""
    for side in (2, 3, 5, 28):
        coefficients = spline.prefilter(side, order, FILL_MODES[fill_mode])
        first, weights = spline.taps(tf.range(side, dtype=tf.float32), order)
        period = 2 * side if fill_mode == "reflect" else 2 * side - 2
        back = period - 1 if fill_mode == "reflect" else period
        total = 0
        for place, weight in enumerate(weights):
            index = (first.numpy() + place) % period
            total = total + weight.numpy()[:, None] * coefficients[np.minimum(index, back - index)]
        np.testing.assert_allclose(total, np.eye(side), atol=1e-6)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_weights_are_the_b_splines(order):
    points = np.linspace(3, 6, 50).astype(np.float32)
    first, weights = spline.taps(tf.constant(points), order)
    weights = np.stack(weights, axis=1)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    # SciPy's interpolation of a single 1 reads the weight of that pixel off.
    for pixel in range(12):
        unit = np.zeros(12)
        unit[pixel] = 1
        expected = ndimage.map_coordinates(unit, points[None], order=order, prefilter=False)
        place = pixel - first.numpy()
        here = (place >= 0) & (place <= order)
        ours = np.where(here, weights[np.arange(50), np.clip(place, 0, order)], 0)
        np.testing.assert_allclose(ours, expected, atol=1e-6)

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from asl_fast.transforms.fill_modes import FILL_MODES
from asl_fast.transforms.warp import warp
from tests.transforms.spline_test import OLD_SCIPY

ORDERS = range(6)


def random_matrices(count, height, width, seed=0):
    """Output to input, well beyond every border."""
    random = np.random.default_rng(seed)
    matrices = random.normal(size=(count, 2, 3)) * 0.3 + np.eye(2, 3)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    matrices[:, :, 2] = middle - matrices[:, :, :2] @ middle + 3 * random.normal(size=(count, 2))
    return matrices.astype(np.float32)


def scipys(images, matrices, order, fill_mode, cval):
    swapped = matrices[:, ::-1][:, :, [1, 0, 2]].astype(np.float64)  # SciPy has rows first
    out = np.empty(images.shape)
    for image, matrix, warped in zip(images.astype(np.float64), swapped, out, strict=True):
        for channel in range(images.shape[-1]):
            warped[..., channel] = ndimage.affine_transform(
                image[..., channel],
                matrix[:, :2],
                matrix[:, 2],
                order=order,
                mode=fill_mode,
                cval=cval,
            )
    return out


@pytest.mark.parametrize(("order", "fill_mode"), list(itertools.product(ORDERS, FILL_MODES)))
def test_every_order_and_border_is_scipys(order, fill_mode):
    random = np.random.default_rng(1)
    for shape in ((28, 28, 1), (31, 17, 3), (1, 1, 1), (1, 6, 2), (5, 1, 1), (2, 3, 4)):
        short = any(1 < side < 8 for side in shape[:2])
        if fill_mode == "reflect" and order > 1 and short and OLD_SCIPY:
            continue
        images = random.uniform(0, 255, (30, *shape)).astype(np.float32)
        matrices = random_matrices(30, *shape[:2])
        ours = warp(
            tf.constant(images),
            tf.constant(matrices),
            interpolation_order=order,
            fill_mode=fill_mode,
            cval=-20.0,
        )
        theirs = scipys(images, matrices, order, fill_mode, -20.0)
        assert ours.dtype == tf.float32
        # float32 against float64 over a range of 255.
        assert np.abs(ours - theirs).max() < 0.03, shape


@pytest.mark.parametrize(("order", "fill_mode"), [(1, "nearest"), (0, "wrap"), (3, "constant")])
def test_compiled_as_eagerly(order, fill_mode):
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
    matrices = random_matrices(20, 28, 28)

    def run(images, matrices):
        return warp(images, matrices, interpolation_order=order, fill_mode=fill_mode)

    compiled = tf.function(run, jit_compile=True)(tf.constant(images), tf.constant(matrices))
    np.testing.assert_allclose(run(tf.constant(images), matrices), compiled, atol=2e-2)


@pytest.mark.parametrize(("order", "fill_mode"), list(itertools.product((0, 1), FILL_MODES)))
def test_the_identity_changes_no_pixel(order, fill_mode):
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), np.uint8)
    identity = np.tile(np.eye(2, 3, dtype=np.float32), (8, 1, 1))
    same = warp(tf.constant(images), identity, interpolation_order=order, fill_mode=fill_mode)
    np.testing.assert_array_equal(same, images)

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from asl_fast.images import resize as module
from asl_fast.images.resize import INTERPOLATIONS, resize

COLOR_MODES = {1: "grayscale", 3: "rgb", 4: "rgba"}

# (height, width) from and to.
SIZES = [
    ((28, 28), (64, 64)),
    ((64, 47), (17, 23)),
    ((9, 40), (31, 13)),
    ((40, 9), (13, 31)),
    ((1, 1), (5, 3)),
    ((1, 7), (4, 1)),
    ((7, 1), (1, 1)),
    ((300, 2), (4, 5)),
    ((2, 300), (5, 4)),
    ((20, 30), (20, 11)),  # only one pass
    ((20, 30), (9, 30)),
    ((20, 30), (20, 20)),  # cropped only, where the proportions stay
    ((21, 33), (21, 33)),
]


def random_image(height, width, channels, seed=0):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    # Half of it black and white, where filters overshoot, and all or not at all transparent.
    image[:, width // 2 :] = (image[:, width // 2 :] > 127) * 255
    return image


def as_pil(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def kerass(image, target_size, **options):
    file = io.BytesIO()
    as_pil(image).save(file, "tiff")
    color_mode = COLOR_MODES[image.shape[-1]]
    loaded = keras.utils.load_img(file, color_mode, target_size, **options)
    return keras.utils.img_to_array(loaded, dtype=np.uint8)


@pytest.mark.parametrize("keep_aspect_ratio", [False, True])
@pytest.mark.parametrize("channels", COLOR_MODES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_pixels_are_those_of_load_img(interpolation, channels, keep_aspect_ratio):
    options = {"interpolation": interpolation, "keep_aspect_ratio": keep_aspect_ratio}
    for source, target in SIZES if channels == 3 else SIZES[:4]:
        image = random_image(*source, channels)
        ours = resize(tf.constant(image), target, **options)
        assert ours.dtype == tf.uint8
        theirs = kerass(image, target, **options)
        np.testing.assert_array_equal(ours, theirs, f"{source} to {target}")


def test_interpolations_are_those_of_load_img():
    from keras.src.utils.image_utils import PIL_INTERPOLATION_METHODS

    assert set(INTERPOLATIONS) == set(PIL_INTERPOLATION_METHODS)


def test_nearest_breaks_ties_as_pillows_rounding_errors_do():
    # From 10 to 15 pixels every third new one lies between two old ones.
    sizes = [(10, 15), (2, 300), (7, 21), *np.random.default_rng(0).integers(1, 500, (60, 2))]
    for side, size in sizes:
        line = np.arange(side, dtype=np.int32)
        theirs = Image.fromarray(line[None]).resize((int(size), 1), Image.Resampling.NEAREST)
        ours = module._nearest(tf.constant(0), tf.constant(side, tf.int32), int(size))
        np.testing.assert_array_equal(ours, np.asarray(theirs)[0])


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic", "lanczos"])
def test_a_dataset_of_images_of_all_sizes_comes_out_in_one(interpolation):
    sizes = [(24, 20), (50, 50), (90, 10), (10, 90)]
    images = [random_image(*size, 3) for size in sizes]
    signature = tf.TensorSpec([None, None, 3], tf.uint8)
    dataset = tf.data.Dataset.from_generator(lambda: images, output_signature=signature)
    dataset = dataset.map(lambda image: resize(image, (24, 20), interpolation=interpolation))
    assert dataset.element_spec == tf.TensorSpec([24, 20, 3], tf.uint8)
    for image, ours in zip(images, dataset, strict=True):
        np.testing.assert_array_equal(ours, kerass(image, (24, 20), interpolation=interpolation))


def test_an_image_that_fits_is_left_alone():
    image = random_image(30, 20, 4)  # which resampling would premultiply
    ours = resize(tf.constant(image), (30, 20), interpolation="lanczos", keep_aspect_ratio=True)
    np.testing.assert_array_equal(ours, image)

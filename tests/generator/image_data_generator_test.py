import inspect
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing import image as legacy

import asl_fast
from asl_fast import ImageDataGenerator

OPTIONS = {
    "rotation_range": 25,
    "width_shift_range": 0.2,
    "height_shift_range": 0.1,
    "shear_range": 10,
    "zoom_range": (0.7, 1.3),
    "channel_shift_range": 20.0,
    "brightness_range": (0.5, 1.5),
    "horizontal_flip": True,
    "vertical_flip": True,
    "fill_mode": "reflect",
    "interpolation_order": 3,
}


def pictures(rows=40, shape=(12, 9, 3), seed=0):
    small = np.random.default_rng(seed).random((rows, 4, 3, shape[2]))
    return np.float32(255) * small.repeat(3, 1).repeat(3, 2)[:, : shape[0], : shape[1]].astype("f")


def both(**options):
    return legacy.ImageDataGenerator(**options), ImageDataGenerator(**options)


@pytest.mark.parametrize(
    "name", ["ImageDataGenerator", "NumpyArrayIterator", "DirectoryIterator", "DataFrameIterator"]
)
def test_every_public_name_has_the_signature_of_keras(name):
    theirs, mine = getattr(legacy, name), getattr(asl_fast, name)
    public = [member for member in dir(theirs) if not member.startswith("_")]
    assert public
    for member in [*public, "__init__", "__getitem__", "__next__", "__iter__", "__len__"]:
        original = getattr(theirs, member, None)
        if not inspect.isfunction(original):
            continue
        expected = list(inspect.signature(original).parameters.values())
        actual = list(inspect.signature(getattr(mine, member)).parameters.values())
        for parameter, ours in zip(expected, actual, strict=False):
            if parameter.kind is not parameter.VAR_KEYWORD:
                assert (ours.name, ours.default) == (parameter.name, parameter.default), member
        # Additions are keyword-only.
        for extra in actual[len(expected) :]:
            assert extra.kind in (extra.KEYWORD_ONLY, extra.VAR_KEYWORD), member
        assert len(actual) >= len(expected), member


def test_every_attribute_has_the_value_of_keras(tmp_path):
    images = pictures(4)
    for label in "ab":
        (tmp_path / label).mkdir()
        keras.utils.save_img(tmp_path / label / "1.png", images[0])
    frame = pd.DataFrame({"filename": ["a/1.png", "b/1.png"], "class": ["a", "b"]})
    theirs, mine = both(featurewise_center=True)
    made = [
        [
            generator,
            generator.flow(images, np.arange(4)),
            generator.flow_from_directory(tmp_path),
            generator.flow_from_dataframe(frame, str(tmp_path)),
        ]
        for generator in (theirs, mine)
    ]
    for original, own in zip(*made, strict=True):
        for name in vars(original):
            assert name.startswith("_") or hasattr(own, name), (type(own).__name__, name)
            value = getattr(original, name) if not name.startswith("_") else None
            if isinstance(value, int | float | str | tuple | list | dict):
                assert getattr(own, name) == value, name


def test_one_image_is_drawn_for_and_transformed_as_in_keras():
    theirs, mine = both(**OPTIONS)
    image = pictures(1)[0]
    for seed in range(4):
        expected = theirs.get_random_transform(image.shape, seed)
        assert mine.get_random_transform(image.shape, seed) == expected
        np.testing.assert_allclose(
            mine.apply_transform(image, expected), theirs.apply_transform(image, expected), atol=0.1
        )
        np.testing.assert_allclose(
            mine.random_transform(image, seed), theirs.random_transform(image, seed), atol=0.1
        )
    # Without a seed both draw from NumPy's global generator.
    np.random.seed(5)
    expected = theirs.get_random_transform(image.shape)
    np.random.seed(5)
    assert mine.get_random_transform(image.shape) == expected


def test_missing_parameters_and_integer_images():
    theirs, mine = both()
    image = pictures(1)[0].astype(np.uint8)
    for given in ({"theta": 30}, {"tx": 2, "zy": 0.5}, {"flip_vertical": True}, {}):
        expected = theirs.apply_transform(image, given)
        actual = mine.apply_transform(image, given)
        assert actual.dtype == image.dtype
        assert np.abs(actual.astype(int) - expected).max() <= 1


STANDARDS = [
    {"rescale": 1 / 255},
    {"samplewise_center": True},
    {"samplewise_std_normalization": True},
    {"featurewise_center": True},
    {"featurewise_std_normalization": True, "rescale": 0.5},
    {"zca_whitening": True, "zca_epsilon": 1e-3},
    {"preprocessing_function": lambda image: image[..., ::-1] - image.mean()},
    {"preprocessing_function": keras.applications.vgg16.preprocess_input},
]


@pytest.mark.parametrize("options", STANDARDS, ids=lambda options: next(iter(options)))
@pytest.mark.filterwarnings("ignore:.*overrides:UserWarning", "ignore:.*sets:UserWarning")
def test_statistics_and_standardisation_are_those_of_keras(options):
    theirs, mine = both(**options)
    # ZCA needs more images than values per image, or its matrix is not determined.
    images = pictures(60) if "zca_whitening" not in options else pictures(60, (3, 3, 1))
    images += np.random.default_rng(1).normal(size=images.shape).astype("f")
    for generator in (theirs, mine):
        generator.fit(images)
    for name in ("mean", "std", "zca_whitening_matrix"):
        expected, actual = getattr(theirs, name), getattr(mine, name)
        assert (expected is None) == (actual is None), name
        if expected is not None:
            np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * abs(expected).max())
    expected = theirs.standardize(images[0].copy())
    scale = np.abs(expected).max()
    image = images[0].copy()
    np.testing.assert_allclose(mine.standardize(image), expected, atol=2e-3 * scale)
    if "rescale" in options:
        np.testing.assert_allclose(image, expected, atol=1e-4)  # in place
    batch = next(mine.flow(images, shuffle=False))
    np.testing.assert_allclose(batch, next(theirs.flow(images, shuffle=False)), atol=2e-3 * scale)


def test_fit_on_augmented_images_draws_as_keras_does():
    theirs, mine = both(featurewise_std_normalization=True, featurewise_center=True, **OPTIONS)
    for generator in (theirs, mine):
        generator.fit(pictures(30), augment=True, rounds=2, seed=4)
    np.testing.assert_allclose(mine.mean, theirs.mean, rtol=1e-4)
    np.testing.assert_allclose(mine.std, theirs.std, rtol=1e-4)


def test_statistics_may_be_set_and_reach_existing_iterators():
    generator = ImageDataGenerator(featurewise_center=True)
    iterator = generator.flow(pictures(), shuffle=False)
    with pytest.warns(UserWarning, match="`featurewise_center`, but it hasn't been fit"):
        np.testing.assert_array_equal(iterator[0], pictures()[:32])
    with pytest.warns(UserWarning, match="hasn't been fit"):
        next(iterator)
    generator.mean = [1.0, 2.0, 3.0]
    np.testing.assert_allclose(iterator[0], pictures()[:32] - [1.0, 2.0, 3.0], rtol=1e-5)
    generator.mean = None
    assert generator.mean is None
    generator.fit(pictures())
    iterator.reset()
    assert abs(next(iterator).mean()) < 5


@pytest.mark.filterwarnings("ignore:.*overrides setting of `featurewise_center`")
def test_implied_options_are_set_with_a_warning():
    with pytest.warns(UserWarning, match="zca_whitening"):
        generator = ImageDataGenerator(zca_whitening=True, featurewise_std_normalization=True)
    assert generator.featurewise_center
    assert not generator.featurewise_std_normalization


def test_options_set_as_attributes_apply_to_later_iterators():
    generator = ImageDataGenerator()
    generator.horizontal_flip = True
    flipped = next(generator.flow(np.arange(600, dtype="f").reshape(100, 1, 6, 1)))
    assert {np.sign(row[0, 1, 0] - row[0, 0, 0]) for row in flipped} == {-1, 1}


def test_keras_own_generator_is_converted_with_its_statistics():
    theirs = legacy.ImageDataGenerator(
        featurewise_center=True, zoom_range=0.3, rescale=0.5, validation_split=0.25
    )
    theirs.fit(pictures())
    mine = ImageDataGenerator.from_keras(theirs)
    assert mine.zoom_range == theirs.zoom_range
    assert (mine.rescale, mine._validation_split) == (0.5, 0.25)
    np.testing.assert_allclose(mine.mean, theirs.mean, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"zoom_range": (1, 2, 3)},
            "`zoom_range` should be a float or a tuple",
        ),
        ({"brightness_range": 1.0}, "`brightness_range should be tuple or list of two floats"),
        ({"validation_split": 1.5}, "`validation_split` must be strictly between 0 and 1"),
        ({"data_format": "first"}, "`data_format` should be"),
        ({"fill_mode": "mirrored", "width_shift_range": 2}, "`fill_mode` must be one of"),
        ({"rng": "numpy"}, "`rng` must be 'stateless' or 'keras'"),
        ({"rotation_range": "10"}, "`rotation_range` must be a finite number"),
        ({"interpolation_order": 7, "rotation_range": 1}, "`interpolation_order` must be"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ImageDataGenerator(**options)


def test_unusual_ranges_that_keras_accepts_are_accepted():
    for options in ({"zoom_range": 1.0}, {"zoom_range": (1.2, 0.8)}, {"rotation_range": -10}):
        theirs, mine = both(**options)
        given = theirs.get_random_transform((12, 9, 3), seed=1)
        assert mine.get_random_transform((12, 9, 3), seed=1) == given
        next(mine.flow(pictures()))


def test_fit_rejects_arrays_that_are_not_images():
    with pytest.raises(ValueError, match="rank 4. Got array with shape: .12, 9, 3."):
        ImageDataGenerator(featurewise_center=True).fit(pictures()[0])
    with pytest.warns(UserWarning, match="1, 3 or 4 channels"):
        ImageDataGenerator().fit(np.zeros((2, 4, 4, 2)))


def test_other_dtypes_and_channels_first():
    images = pictures(4).transpose(0, 3, 1, 2)
    options = {"data_format": "channels_first", "rotation_range": 30}
    theirs, mine = (
        legacy.ImageDataGenerator(**options, dtype="float64"),
        ImageDataGenerator(**options, dtype="float64", rng="keras"),
    )
    expected, actual = (next(g.flow(images, seed=2)) for g in (theirs, mine))
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, atol=1e-2)
    half = ImageDataGenerator(dtype="float16").flow(pictures(4))
    assert half.element_spec.dtype == tf.float16


def test_correct_use_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator = ImageDataGenerator(**OPTIONS)
        generator.fit(pictures())
        next(generator.flow(pictures()))

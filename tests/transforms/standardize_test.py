import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from asl_fast import RandomAugment, Standardize
from asl_fast.data import synthetic_hands as hands

CENTER = {"featurewise_center": True}
NORMALISE = {"featurewise_center": True, "featurewise_std_normalization": True}
WHITEN = {"featurewise_center": True, "zca_whitening": True}
SAMPLES = {"samplewise_center": True, "samplewise_std_normalization": True}


@pytest.fixture(scope="module")
def grey():
    """Of every second pixel: whitening takes the cube of their number."""
    return hands.render(1500, split="train", workers=1)[0][:, ::2, ::2]


@pytest.fixture(scope="module")
def coloured():
    """Three channels, each of its own hands and brightness; 8 rows, 6 columns."""
    pixels = hands.render(1200, split="train", workers=1)[0][:, 4:20:2, 8:20:2, 0]
    channels = np.stack([pixels[:400], 0.7 * pixels[400:800], 0.3 * pixels[800:]], axis=-1)
    return channels.astype(np.float32)


def keras_fitted(data, **options):
    generator = ImageDataGenerator(**options)
    generator.fit(data)
    return generator


def agree(layer, generator, images):
    ours = layer(images).numpy()
    theirs = np.stack([generator.standardize(image.astype(np.float32)) for image in images])
    assert np.abs(ours - theirs).max() < 1e-4 * max(1, np.abs(theirs).max())
    return theirs


@pytest.mark.parametrize(
    "options",
    [
        CENTER,
        NORMALISE,
        {**NORMALISE, **SAMPLES, "rescale": 1 / 255},
        WHITEN,
        {**WHITEN, "zca_epsilon": 0.1, "rescale": 1 / 255},
    ],
)
def test_statistics_are_keras_own(grey, coloured, options):
    for data in (grey, coloured):
        layer, generator = Standardize(**options), keras_fitted(data, **options)
        layer.fit(data)
        for ours, theirs in (
            (layer.mean, generator.mean),
            (layer.std, generator.std),
            (layer.zca_whitening_matrix, generator.zca_whitening_matrix),
        ):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert ours.shape == theirs.shape
                np.testing.assert_allclose(
                    ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max()
                )
        agree(layer, generator, data[:40])


@pytest.mark.parametrize(
    "options",
    [
        {"rescale": 1 / 255},
        {"samplewise_center": True},
        SAMPLES,
        {"preprocessing_function": lambda x: x / 127.5 - 1.0},
    ],
)
def test_what_needs_no_fit_is_keras_own(grey, coloured, options):
    for data in (grey, coloured):
        assert agree(Standardize(**options), ImageDataGenerator(**options), data[:40]).std() > 0


def test_a_stream_gives_what_the_whole_gives(coloured):
    whole, stream = Standardize(**NORMALISE), Standardize(**NORMALISE)
    whole.fit(coloured)
    stream.fit(tf.data.Dataset.from_tensor_slices((coloured, np.zeros(400))).batch(37))
    for first, second in zip(whole.weights, stream.weights, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


def test_fewer_images_than_pixels(coloured):
    layer, generator = Standardize(**WHITEN), keras_fitted(coloured[:30], **WHITEN)
    layer.fit(coloured[:30])
    # Directions that 30 centred images hardly have are noise in both; the rest agrees.
    ours, theirs = layer.zca_whitening_matrix.numpy(), generator.zca_whitening_matrix
    rows = (coloured[:30] - coloured[:30].mean(axis=(0, 1, 2))).reshape(30, -1)
    np.testing.assert_allclose(rows @ ours, rows @ theirs, atol=0.02)


def test_channels_first(coloured):
    first = coloured.transpose(0, 3, 1, 2)
    layer = Standardize(**NORMALISE, data_format="channels_first")
    layer.fit(first)
    generator = keras_fitted(first, **NORMALISE, data_format="channels_first")
    assert layer.mean.shape == generator.mean.shape == (3, 1, 1)
    agree(layer, generator, first[:10])


def test_augmented_statistics(grey):
    """Other random numbers than Keras's, so equal only as far as chance allows."""
    options = {"rotation_range": 20, "fill_mode": "constant"}
    layers = [Standardize(**NORMALISE, rescale=1 / 255) for _ in range(4)]
    for layer, rounds, seed in zip(layers, (2, 2, 2, 1), (0, 0, 1, 0), strict=True):
        layer.fit(grey[:500], augment=RandomAugment(**options), rounds=rounds, seed=seed)
    same, again, other, once = (float(layer.mean.numpy()[0, 0, 0]) for layer in layers)
    assert same == again
    assert len({same, other, once}) == 3
    generator = ImageDataGenerator(**NORMALISE, rescale=1 / 255, **options)
    generator.fit(grey[:500], augment=True, rounds=2, seed=0)
    plain = Standardize(**NORMALISE, rescale=1 / 255)
    plain.fit(grey[:500])
    # Black corners darken the images, for both alike.
    assert abs(same - generator.mean.item()) < 0.1 * abs(plain.mean.numpy().item() - same)
    assert abs(float(layers[0].std.numpy().item()) - generator.std.item()) < 0.002


def test_it_is_saved_and_loaded_with_a_model(coloured, tmp_path):
    layer = Standardize(**WHITEN, rescale=0.5)
    layer.fit(coloured)
    model = keras.Sequential([keras.Input((8, 6, 3)), layer, keras.layers.Flatten()])
    expected = model.predict(coloured[:5], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(coloured[:5], verbose=0), expected)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    served = exported.serve(tf.constant(coloured[:5]))
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-4)


def test_the_same_everywhere(coloured):
    layer = Standardize(**WHITEN, **SAMPLES)
    layer.fit(coloured)
    eager = layer(coloured[:50]).numpy()
    in_data = tf.data.Dataset.from_tensor_slices(coloured[:50]).batch(32).map(layer)
    for other in (
        tf.function(layer)(coloured[:50]),
        tf.function(layer, jit_compile=True)(coloured[:50]),
        np.concatenate(list(in_data.as_numpy_iterator())),
    ):
        np.testing.assert_allclose(other, eager, atol=2e-4 * np.abs(eager).max())


def test_arithmetic_is_float32_under_any_policy(coloured):
    exact, rounded = (Standardize(**NORMALISE, dtype=d) for d in ("float32", "mixed_bfloat16"))
    for layer in (exact, rounded):
        layer.fit(coloured)
    result = rounded(coloured[:5])
    augmented = [Standardize(**NORMALISE) for _ in range(2)]
    for layer, dtype in zip(augmented, ("float32", "mixed_bfloat16"), strict=True):
        layer.fit(coloured, augment=RandomAugment(rotation_range=9, dtype=dtype))
    np.testing.assert_array_equal(augmented[0].std, augmented[1].std)
    assert result.dtype == tf.bfloat16
    np.testing.assert_array_equal(result, tf.cast(exact(coloured[:5]), tf.bfloat16))


@pytest.mark.parametrize(
    ("options", "message", "on", "off"),
    [
        (
            {"zca_whitening": True},
            "`zca_whitening` sets `featurewise_center=True`",
            "featurewise_center",
            "featurewise_std_normalization",
        ),
        (
            {**WHITEN, "featurewise_std_normalization": True},
            "`zca_whitening` sets `featurewise_std_normalization=False`",
            "featurewise_center",
            "featurewise_std_normalization",
        ),
        (
            {"featurewise_std_normalization": True},
            "`featurewise_std_normalization` sets `featurewise_center=True`",
            "featurewise_center",
            "zca_whitening",
        ),
        (
            {"samplewise_std_normalization": True},
            "`samplewise_std_normalization` sets `samplewise_center=True`",
            "samplewise_center",
            "zca_whitening",
        ),
    ],
)
def test_options_that_imply_others_say_so(options, message, on, off):
    with pytest.warns(UserWarning, match=message):
        layer = Standardize(**options)
    assert getattr(layer.options, on)
    assert not getattr(layer.options, off)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Standardize.from_config(layer.get_config())


def test_wrong_use_is_named(coloured):
    layer = Standardize(**NORMALISE)
    with pytest.raises(ValueError, match="no statistics yet: call `fit` first"):
        layer(coloured)
    with pytest.raises(ValueError, match="`rounds` must be at least 1. Received: 0"):
        layer.fit(coloured, rounds=0)
    with pytest.raises(ValueError, match="at least one image"):
        layer.fit(coloured[:0])
    once = iter([coloured])  # an iterator does not start anew
    with pytest.raises(ValueError, match="Received: none in round 2"):
        layer.fit(once, augment=RandomAugment(horizontal_flip=True), rounds=2)
    with pytest.raises(ValueError, match=r"rank 4. Received: \(8, 6, 3\)"):
        layer.fit(iter(coloured))
    with pytest.raises(ValueError, match="must be numbers. Received: string"):
        Standardize().call(coloured.astype(str))
    with pytest.raises(ValueError, match="of rank 4"):
        Standardize().call(coloured[0, 0])


def test_one_image_and_integers_of_any_kind(coloured):
    layer = Standardize(samplewise_center=True, rescale=0.5)
    batch = layer(coloured)
    np.testing.assert_array_equal(layer(coloured[0]), batch[0])
    for dtype in ("int16", "uint16", "int64"):
        np.testing.assert_array_equal(layer(coloured.astype(dtype)), layer(np.floor(coloured)))

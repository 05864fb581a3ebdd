import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import RandomAugment
from asl_fast.transforms import random_augment as augment
from tests.samples import blobs, needs_keras_with

OPTIONS = {
    "rotation_range": 10,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.1,
    "horizontal_flip": True,
}
EVERYTHING = {
    **OPTIONS,
    "width_shift_range": [1.5, 2],
    "brightness_range": (0.5, 1.5),
    "shear_range": 10,
    "channel_shift_range": 20,
    "vertical_flip": True,
    "interpolation_order": 3,
    "fill_mode": "constant",
    "cval": 9,
}
IMAGES, LABELS = blobs(64)
SAMPLES = np.arange(64)


@pytest.mark.parametrize("options", [OPTIONS, EVERYTHING])
def test_the_same_everywhere(options):
    layer = RandomAugment(**options)

    def run(images, samples):
        return layer(images, samples=samples, epoch=tf.constant(2), training=True)

    eager = run(IMAGES, SAMPLES).numpy()
    assert np.abs(eager - IMAGES).mean() > 5
    in_graph = tf.function(run)(IMAGES, SAMPLES)
    in_xla = tf.function(run, jit_compile=True)(IMAGES, SAMPLES)
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, SAMPLES)).batch(24).map(run)
    in_data = np.concatenate(list(batches.as_numpy_iterator()))  # the last batch is short
    # Compiled with other surroundings or for other batches, arithmetic may be ordered otherwise.
    for other in (in_graph, in_data, in_xla):
        np.testing.assert_allclose(other, eager, atol=1e-3)


def test_a_samples_fate_depends_on_seed_epoch_and_number_alone():
    layer = RandomAugment(**OPTIONS, seed=4)
    whole = layer(IMAGES, samples=SAMPLES, epoch=3, training=True).numpy()
    order = np.random.default_rng(0).permutation(64)
    shuffled = layer(IMAGES[order], samples=SAMPLES[order], epoch=3, training=True)
    np.testing.assert_array_equal(shuffled, whole[order])
    again = RandomAugment(**OPTIONS, seed=4)
    np.testing.assert_array_equal(
        again(IMAGES[5:8], samples=SAMPLES[5:8], epoch=3, training=True), whole[5:8]
    )
    for other_seed, epoch in ((4, 2), (5, 3)):
        other = RandomAugment(**OPTIONS, seed=other_seed)
        changed = other(IMAGES, samples=SAMPLES, epoch=epoch, training=True).numpy() != whole
        assert changed.any(axis=(1, 2, 3)).all()


def test_each_image_has_parameters_of_its_own():
    same = np.repeat(IMAGES[:1], 64, axis=0)
    augmented = RandomAugment(**OPTIONS)(same, samples=SAMPLES, epoch=0, training=True).numpy()
    assert len(np.unique(augmented.reshape(64, -1), axis=0)) == 64


def test_without_training_nothing_happens():
    np.testing.assert_array_equal(RandomAugment(**OPTIONS)(IMAGES, training=False), IMAGES)
    np.testing.assert_array_equal(RandomAugment(**OPTIONS)(IMAGES), IMAGES)


def test_without_sample_numbers_every_call_differs_and_the_seed_repeats_them():
    calls = [
        [layer(IMAGES, training=True).numpy() for _ in range(2)]
        for layer in (RandomAugment(**OPTIONS, seed=1), RandomAugment(**OPTIONS, seed=1))
    ]
    assert (calls[0][0] != calls[0][1]).any()
    np.testing.assert_array_equal(calls[0], calls[1])


def test_geometry_is_float32_and_the_result_has_the_compute_dtype():
    exact = RandomAugment(**OPTIONS, dtype="float32")
    rounded = RandomAugment(**OPTIONS, dtype="mixed_bfloat16")
    arguments = {"samples": SAMPLES, "epoch": 0, "training": True}
    fractions = IMAGES + np.float32(0.3)  # between the steps of bfloat16
    result = rounded(fractions, **arguments)
    assert result.dtype == tf.bfloat16
    np.testing.assert_array_equal(result, tf.cast(exact(fractions, **arguments), tf.bfloat16))
    np.testing.assert_array_equal(
        exact(IMAGES, **arguments), exact(IMAGES.astype(np.float32), **arguments)
    )


def test_no_retracing_on_further_batches(monkeypatch):
    monkeypatch.setattr(augment, "_programs", {})
    layer = RandomAugment(**OPTIONS)
    for size in (32, 32, 31, 7):
        layer(IMAGES[:size], samples=SAMPLES[:size], epoch=size, training=True)
    program = augment._program(layer.options, (28, 28, 1), tf.uint8)
    assert len(augment._programs) == 1
    assert program.experimental_get_tracing_count() == 1


def test_eager_calls_compile_so_many_programs_and_no_more(monkeypatch):
    monkeypatch.setattr(augment, "_programs", {})
    layers = [RandomAugment(rotation_range=10 * i, dtype="float32") for i in range(1, 6)]
    arguments = {"samples": SAMPLES[:4], "epoch": 0, "training": True}
    compiled = [layer(IMAGES[:4], **arguments) for layer in layers]
    assert len(augment._programs) == 5
    monkeypatch.setattr(augment, "_programs", {})
    monkeypatch.setattr(augment, "_MOST", 2)
    for layer, expected in zip(layers, compiled, strict=True):
        np.testing.assert_allclose(layer(IMAGES[:4], **arguments), expected, atol=1e-3)
    assert len(augment._programs) == 2
    # Within a graph, as in training, it is always compiled.
    tf.function(lambda images: layers[-1](images, **arguments))(IMAGES[:4])
    assert len(augment._programs) == 3


def test_it_serialises_and_trains_within_a_keras_model(tmp_path):
    layer = RandomAugment(**EVERYTHING, seed=9, name="augment", dtype="float32")
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert isinstance(copy, RandomAugment)
    assert copy.get_config() == layer.get_config()
    assert (copy.options, copy.seed) == (layer.options, 9)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), layer, keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    model.fit(IMAGES, np.zeros((64, 2)), verbose=0)
    np.testing.assert_array_equal(
        keras.Sequential(model.layers[:1]).predict(IMAGES, verbose=0), IMAGES
    )
    expected = model.predict(IMAGES, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(IMAGES, verbose=0), expected)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    served = exported.serve(tf.constant(IMAGES, tf.float32))
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("options", [OPTIONS, EVERYTHING])
def test_parameters_can_be_taken_out_and_put_back(options):
    layer = RandomAugment(**options, seed=2)
    expected = layer(IMAGES, samples=SAMPLES, epoch=1, training=True).numpy()
    drawn = layer.draw(IMAGES, samples=SAMPLES, epoch=1)
    np.testing.assert_allclose(layer.apply(IMAGES, drawn), expected, atol=2e-3)
    one = layer.draw(IMAGES[7], samples=7, epoch=1)
    assert one["theta"].shape == ()
    assert {name: float(value) for name, value in one.items()} == {
        name: float(values[7]) for name, values in drawn.items()
    }
    np.testing.assert_allclose(layer.apply(IMAGES[7], one), expected[7], atol=2e-3)
    # By hand: a horizontal flip and nothing else.
    flipped = layer.apply(IMAGES[7], {"flip_horizontal": 1})
    np.testing.assert_allclose(flipped, IMAGES[7][:, ::-1], atol=1e-3)
    with pytest.raises(ValueError, match="`parameters` must be among theta, .*Received: 'angle'"):
        layer.apply(IMAGES[7], {"angle": 1})


def test_channels_first_is_channels_last_turned():
    images = np.concatenate([IMAGES, IMAGES[::-1]], axis=-1)
    last = RandomAugment(**EVERYTHING)
    first = RandomAugment(**EVERYTHING, data_format="channels_first")
    arguments = {"samples": SAMPLES, "epoch": 0, "training": True}
    np.testing.assert_allclose(
        first(images.transpose(0, 3, 1, 2), **arguments),
        last(images, **arguments).numpy().transpose(0, 3, 1, 2),
        atol=2e-3,
    )


def test_quirks_repeat_keras_brightness_and_the_default_does_not():
    scaled = (IMAGES / 255).astype(np.float32)
    options = {"brightness_range": (1, 1), "value_range": (0, 1)}
    quirky = RandomAugment(**options, quirks=True)(scaled, training=True).numpy()
    assert set(np.unique(quirky)) <= {0, 1}
    np.testing.assert_array_equal(RandomAugment(**options)(scaled, training=True), scaled)
    doubled = RandomAugment(brightness_range=(2, 2), value_range=(0, 1))(scaled, training=True)
    np.testing.assert_allclose(doubled, np.minimum(2 * scaled, 1), rtol=1e-6)
    with pytest.raises(ValueError, match="must have 1, 3 or 4 channels"):
        RandomAugment(**options, quirks=True).call(np.zeros((1, 4, 4, 2), np.uint8), training=True)


@needs_keras_with("MixUp")
def test_layers_that_follow():
    one_hot = np.eye(24, dtype=np.float32)[LABELS]
    layer = RandomAugment(**OPTIONS, then=[keras.layers.MixUp(seed=1)])
    assert layer.get_config() == RandomAugment.from_config(layer.get_config()).get_config()
    images, labels = layer(
        IMAGES, samples=SAMPLES, epoch=0, labels=tf.constant(one_hot), training=True
    )
    assert images.shape == IMAGES.shape
    assert ((labels.numpy() > 0).sum(axis=1) == 2).mean() > 0.5  # mixed with another letter
    np.testing.assert_allclose(labels.numpy().sum(axis=1), 1, rtol=1e-5)
    unmixed_images = RandomAugment(**OPTIONS)(IMAGES, samples=SAMPLES, epoch=0, training=True)
    assert np.abs(images - unmixed_images).mean() > 5
    same, unmixed = layer(IMAGES, labels=tf.constant(one_hot), training=False)
    np.testing.assert_array_equal(same, IMAGES)
    np.testing.assert_array_equal(unmixed, one_hot)


def test_a_layer_of_kerascv_may_follow():
    keras_cv = pytest.importorskip("keras_cv", reason="needs the extra bench (keras-cv)")
    layer = RandomAugment(then=[keras_cv.layers.RandomCutout((0.5, 0.5), (0.5, 0.5), seed=1)])
    bright = np.full((8, 28, 28, 1), 200, np.uint8)
    result = layer(bright, samples=SAMPLES[:8], epoch=0, training=True).numpy()
    holes = (result == 0).mean(axis=(1, 2, 3))
    assert (holes > 0.05).all()
    assert (holes < 0.3).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[0, 0], r"must have the shape \(n, height, width, channels\)"),
        (np.full((2, 4, 4, 1), "a"), "must be numbers. Received: string"),
    ],
)
def test_images_of_another_kind_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        RandomAugment().call(images, training=True)


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint16", "uint32", "bool", "float16", "float64"]
)
def test_numbers_of_every_kind_are_taken(dtype):
    layer = RandomAugment(**OPTIONS)
    images = (IMAGES // 2).astype(dtype)
    expected = layer(images.astype(np.float32), samples=SAMPLES, epoch=0, training=True)
    ours = layer(images, samples=SAMPLES, epoch=0, training=True)
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_one_image_is_augmented_as_in_its_batch():
    layer = RandomAugment(**OPTIONS)
    batch = layer(IMAGES, samples=SAMPLES, epoch=0, training=True)
    one = layer(IMAGES[5], samples=SAMPLES[5], epoch=0, training=True)
    np.testing.assert_allclose(one, batch[5], atol=1e-3)
    mapped = tf.data.Dataset.from_tensor_slices(IMAGES[:4]).map(lambda x: layer(x, training=True))
    assert np.stack(list(mapped.as_numpy_iterator())).shape == (4, 28, 28, 1)


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS | {"interpolation_order": 0, "fill_mode": "wrap"},
        OPTIONS | {"fill_mode": "mirror", "quirks": True},
        OPTIONS | {"fill_mode": "reflect", "erasing_factor": 0.5},
        EVERYTHING | {"interpolation_order": 1, "fill_mode": "constant"},
    ],
)
def test_images_of_unknown_sides_in_a_dataset(options):
    layer = RandomAugment(**options, dtype="float32")
    images = [IMAGES[:3, :height, :width] for height, width in ((28, 28), (20, 11), (1, 9))]
    for shape in ([None, None, None, 1], [None, None, None, None]):
        dataset = tf.data.Dataset.from_generator(
            lambda: iter(images), output_signature=tf.TensorSpec(shape, tf.uint8)
        )
        mapped = dataset.map(lambda x: layer(x, samples=[0, 1, 2], epoch=0, training=True))
        for given, ours in zip(images, mapped, strict=True):
            expected = layer(given, samples=[0, 1, 2], epoch=0, training=True)
            np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_splines_need_images_of_known_sides():
    layer = RandomAugment(rotation_range=5, interpolation_order=3)
    dataset = tf.data.Dataset.from_tensors(IMAGES[:3]).map(
        lambda x: tf.ensure_shape(tf.numpy_function(lambda a: a, [x], tf.uint8), [None] * 3 + [1])
    )
    with pytest.raises(ValueError, match="`interpolation_order` 3 needs images of a known height"):
        dataset.map(lambda x: layer.call(x, training=True))


def test_several_layers_are_not_taken_for_one_that_is_traced_too_often(caplog, monkeypatch):
    compiled = tf.function
    monkeypatch.setattr(  # for speed: it is the tracing that counts
        tf, "function", lambda f, **options: compiled(f, **options | {"jit_compile": False})
    )
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    for colour in range(6):
        layer = RandomAugment(horizontal_flip=True, cval=colour)
        layer(np.zeros((1, 4, 4, 1), np.uint8), training=True)
    logger.removeHandler(caplog.handler)
    assert caplog.messages == []

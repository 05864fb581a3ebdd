import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing import image as legacy

from asl_fast import ImageDataGenerator
from tests.samples import blobs

COURSE = {
    "rotation_range": 10,
    "zoom_range": 0.1,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "horizontal_flip": True,
}
IMAGES, LABELS = blobs(70)
PIXELS = IMAGES / 255  # float64, as in the course


def flow(options=COURSE, **arguments):
    return ImageDataGenerator(**options).flow(PIXELS, np.arange(70), **arguments)


def rows(batches):
    return np.concatenate([labels for _, labels in batches])


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(
    "options",
    [
        COURSE,
        {**COURSE, "width_shift_range": 3, "fill_mode": "wrap", "rescale": 2},
        {"channel_shift_range": 0.2, "samplewise_std_normalization": True, "vertical_flip": True},
        {},
    ],
    ids=range(4),
)
@pytest.mark.filterwarnings("ignore:.*overrides:UserWarning", "ignore:.*sets:UserWarning")
def test_with_keras_rng_the_batches_are_those_of_keras(options, seed):
    np.random.seed(1)
    theirs = legacy.ImageDataGenerator(**options).flow(PIXELS, np.arange(70), seed=seed)
    expected = take(theirs, 7)
    generator = ImageDataGenerator(**options, rng="keras")
    np.random.seed(1)
    by_next = take(generator.flow(PIXELS, np.arange(70), seed=seed), 7)
    np.random.seed(1)
    by_loop = list(itertools.islice(generator.flow(PIXELS, np.arange(70), seed=seed), 7))
    for actual in (by_next, by_loop):
        for (x, y), (expected_x, expected_y) in zip(actual, expected, strict=True):
            assert x.dtype == expected_x.dtype
            np.testing.assert_allclose(x, expected_x, atol=1e-4 * np.abs(expected_x).max())
            np.testing.assert_array_equal(y, expected_y)


def test_with_keras_rng_items_and_epochs_are_those_of_keras():
    iterators = [
        generator.flow(PIXELS, np.arange(70), seed=2)
        for generator in (
            legacy.ImageDataGenerator(**COURSE),
            ImageDataGenerator(**COURSE, rng="keras"),
        )
    ]
    for step in (0, 2, "end", 1, 1):
        if step == "end":
            for iterator in iterators:
                iterator.on_epoch_end()
            continue
        (x, y), (mine, labels) = (iterator[step] for iterator in iterators)
        np.testing.assert_allclose(mine, x, atol=1e-4)
        np.testing.assert_array_equal(labels, y)
        assert iterators[0].total_batches_seen == iterators[1].total_batches_seen
        np.testing.assert_array_equal(iterators[0].index_array, iterators[1].index_array)


def test_a_dataset_is_one_pass_and_python_loops_are_endless():
    iterator = flow()
    assert isinstance(iterator, tf.data.Dataset)
    assert len(iterator) == iterator.cardinality() == iterator.num_batches == 3
    for batches in (list(iterator.map(lambda x, y: (x, y))), list(iterator.take(-1).prefetch(1))):
        assert [len(y) for _, y in batches] == [32, 32, 6]
        assert sorted(rows(batches)) == list(range(70))
    loop = list(itertools.islice(iterator, 7))
    assert [len(y) for _, y in loop] == [32, 32, 6, 32, 32, 6, 32]
    # The next loop goes on where this one was left.
    loop += itertools.islice(iterator, 1)
    by_next = take(iterator, 7)[1:]
    assert len(set(rows(loop[6:]))) == 64
    for batches in (loop, by_next):
        assert all(isinstance(x, np.ndarray) and x.dtype == np.float32 for x, _ in batches)
        assert sorted(rows(batches[:3])) == sorted(rows(batches[3:6])) == list(range(70))
        assert list(rows(batches[:3])) != list(rows(batches[3:6]))
        batches[0][0][0] = 1  # batches belong to the caller


def test_the_same_seed_gives_the_same_batches_and_another_others():
    first, same, other = (take(flow(seed=seed), 6) for seed in (1, 1, 2))
    for (x, y), (x_too, y_too) in zip(first, same, strict=True):
        np.testing.assert_array_equal(x, x_too)
        np.testing.assert_array_equal(y, y_too)
    assert list(rows(first)) != list(rows(other))
    # The seed decides the transforms too, not only the order.
    first, other = (next(flow(seed=seed, shuffle=False))[0] for seed in (1, 2))
    assert (first != other).any(axis=(1, 2, 3)).all()
    np.random.seed(0)
    unseeded = next(flow())[0]
    np.random.seed(0)
    np.testing.assert_array_equal(next(flow())[0], unseeded)


def test_every_pass_augments_anew_and_without_options_nothing_changes():
    iterator = flow(shuffle=False)
    first, second = next(iterator)[0], iterator[0][0]
    assert (np.abs(first - second).mean(axis=(1, 2, 3)) > 0).all()
    assert (np.abs(iterator[0][0] - second).mean(axis=(1, 2, 3)) > 0).all()
    assert np.abs(first - PIXELS[:32]).mean() > 0.02
    plain = flow({}, shuffle=False)
    np.testing.assert_array_equal(next(plain)[0], PIXELS[:32].astype(np.float32))
    np.testing.assert_array_equal(plain[2][0], PIXELS[64:].astype(np.float32))


def test_counters_and_orders():
    iterator = flow(batch_size=32)
    assert (iterator.n, iterator.batch_size, iterator.seed) == (70, 32, None)
    assert iterator.index_array is None
    assert (iterator.batch_index, iterator.total_batches_seen) == (0, 0)
    batches = take(iterator, 2)
    assert (iterator.batch_index, iterator.total_batches_seen) == (2, 2)
    np.testing.assert_array_equal(iterator.index_array[:64], rows(batches))
    iterator.reset()
    assert iterator.batch_index == 0
    batches = take(iterator, 3)
    assert sorted(rows(batches)) == list(range(70))
    assert (iterator.batch_index, iterator.total_batches_seen) == (0, 5)
    iterator.on_epoch_end()
    np.testing.assert_array_equal(iterator[1][1], iterator.index_array[32:64])
    assert iterator.total_batches_seen == 6
    list(iterator.take(3))
    assert iterator.total_batches_seen == 9
    assert sorted(np.concatenate(list(itertools.islice(iterator.index_generator, 3)))) == list(
        range(70)
    )
    np.testing.assert_array_equal(iterator.x, PIXELS.astype(np.float32))
    with pytest.raises(ValueError, match="element 3, but the Sequence has length 3"):
        iterator[3]
    assert len(flow().next()[0]) == 32


def test_shuffle_is_both_an_attribute_and_a_method():
    iterator = flow()
    assert iterator.shuffle
    assert repr(iterator.shuffle) == "True"
    assert isinstance(iterator.shuffle(8), tf.data.Dataset)
    iterator.shuffle = False
    assert not iterator.shuffle
    np.testing.assert_array_equal(rows(take(iterator, 3)), range(70))
    np.testing.assert_array_equal(rows(list(iterator.take(3))), range(70))


def test_small_batches_of_many_rows_and_one_large_batch():
    many = ImageDataGenerator(**COURSE).flow(np.repeat(PIXELS, 10, 0), np.arange(700), 7)
    batches = list(many.take(-1))
    assert len(batches) == 100
    assert sorted(rows(batches)) == list(range(700))
    assert len(next(flow(batch_size=100))[0]) == 70


def test_keras_trains_evaluates_and_predicts_with_it():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(24, "softmax")]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    iterator = ImageDataGenerator(**COURSE).flow(PIXELS, LABELS, seed=0)
    history = model.fit(iterator, epochs=12, shuffle=False, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert model.evaluate(iterator, verbose=0) < history["loss"][0]
    ordered = ImageDataGenerator().flow(PIXELS, shuffle=False)
    next(ordered)  # a pass begun by hand does not shift the predictions
    np.testing.assert_allclose(
        model.predict(ordered, verbose=0),
        model.predict(PIXELS.astype("f"), verbose=0),
        atol=1e-5,
    )


def test_several_inputs_weights_and_no_labels():
    generator = ImageDataGenerator()
    more = [np.arange(70) * 2, np.ones((70, 3))]
    weights = np.arange(70) / 70
    theirs = legacy.ImageDataGenerator().flow(
        [PIXELS, more], np.arange(70), sample_weight=weights, shuffle=False
    )
    iterator = generator.flow([PIXELS, more], np.arange(70), sample_weight=weights, shuffle=False)
    expected, actual = next(theirs), next(iterator)
    assert isinstance(actual[0], list)
    for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert len(iterator.element_spec) == 3
    assert isinstance(next(generator.flow(PIXELS)), np.ndarray)
    assert [len(part) for part in next(generator.flow([PIXELS, more[0]]))] == [32, 32]


def test_subsets_are_those_of_keras():
    for subset, ignore in itertools.product(("training", "validation"), (True, False)):
        arguments = {"subset": subset, "ignore_class_split": ignore, "shuffle": False}
        labels = LABELS % 3
        theirs = legacy.ImageDataGenerator(validation_split=0.3).flow(PIXELS, labels, **arguments)
        mine = ImageDataGenerator(validation_split=0.3).flow(
            PIXELS, labels, sample_weight=np.arange(70), **arguments
        )
        assert mine.n == theirs.n
        x, _, weights = next(mine)
        np.testing.assert_allclose(x, next(theirs)[0], rtol=1e-6)
        # Keras leaves the weights whole, so that they go with other images.
        assert weights[0] == (21 if subset == "training" else 0)
    sorted_labels = np.repeat([0, 1], 35)
    with pytest.raises(ValueError, match="different number of classes after the split"):
        ImageDataGenerator(validation_split=0.3).flow(PIXELS, sorted_labels, subset="training")


def test_augmented_images_are_written(tmp_path):
    iterator = flow(
        save_to_dir=str(tmp_path), save_prefix="sign", save_format="jpeg", shuffle=False
    )
    list(iterator.take(1))
    names = {path.name.rsplit("_", 1)[0] for path in tmp_path.iterdir()}
    assert {f"sign_{sample}" for sample in range(32)} <= names
    assert all(path.suffix == ".jpeg" for path in tmp_path.iterdir())
    many = tmp_path / "many"
    many.mkdir()
    every = ImageDataGenerator().flow(np.repeat(PIXELS, 10, 0), save_to_dir=str(many))
    list(every.take(-1))
    assert len(list(many.iterdir())) == 700  # each once
    many.rename(tmp_path.with_name("many"))
    picture = keras.utils.load_img(next(tmp_path.iterdir()), color_mode="grayscale")
    assert picture.size == (28, 28)
    with pytest.raises(ValueError, match="`save_to_dir` must be an existing folder"):
        flow(save_to_dir=str(tmp_path / "nowhere"))


def test_uint8_images_give_the_same_pixels_as_floats():
    from_bytes, from_floats = (
        ImageDataGenerator(**COURSE).flow(pixels, shuffle=False, seed=1)
        for pixels in (IMAGES, IMAGES.astype(np.float32))
    )
    np.testing.assert_allclose(next(from_bytes), next(from_floats), atol=1e-3)
    assert from_bytes.x.dtype == np.float32


BROKEN = PIXELS.copy()
BROKEN[5, 3, 3] = np.nan
BROKEN[7, 0, 0] = np.inf


@pytest.mark.parametrize(
    ("x", "y", "arguments", "message"),
    [
        (
            PIXELS,
            LABELS[1:],
            {},
            r"and `y` \(labels\) should have the same length",
        ),
        (PIXELS, LABELS, {"sample_weight": [1]}, "and `sample_weight` should have the same length"),
        ([PIXELS, LABELS[:3]], None, {}, "All of the arrays in `x` should have the same length"),
        ([PIXELS], None, {}, r"a pair `\[images, more\]`"),
        (PIXELS[0], None, {}, r"should have rank 4. You passed an array with shape \(28, 28, 1\)"),
        (PIXELS[:0], None, {}, "`x` holds no images"),
        (BROKEN, None, {}, "Image 5 of `x` holds pixels that are not finite, as do 2 of 70"),
        (PIXELS, None, {"batch_size": 0}, "`batch_size` must be at least 1. Received: 0"),
        (PIXELS, None, {"batch_size": 2.5}, "`batch_size` must be of ints: 'float' object"),
        (PIXELS, None, {"seed": -1}, "Seed must be between 0 and 2..32 - 1"),
        (PIXELS, None, {"subset": "test"}, "Invalid subset name: test"),
    ],
)
def test_wrong_arguments_are_named(x, y, arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageDataGenerator().flow(x, y, **arguments)


def test_odd_channels_warn():
    with pytest.warns(UserWarning, match="expected either 1, 3, or 4 channels on axis 3"):
        ImageDataGenerator().flow(np.zeros((2, 4, 4, 2)))

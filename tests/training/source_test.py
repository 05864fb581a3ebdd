"""What `asl_fast.fit` takes: each kind against what plain Keras does with it."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing import image as legacy

from asl_fast import AugmentOptions, ImageDataGenerator, RandomAugment, Records, Standardize, fit
from asl_fast.data.pipeline import Span
from asl_fast.data.records import write_index, write_shard
from asl_fast.training.checkpoint import Checkpoints
from asl_fast.training.fit import _handles_batches
from asl_fast.training.source import StoredSource, make_source
from tests.samples import blobs, needs_keras_with

COURSE = {
    "rotation_range": 10,
    "zoom_range": 0.1,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "horizontal_flip": True,
}
IMAGES, LABELS = blobs(75)
X, Y = IMAGES / 255, np.eye(24)[LABELS]
WEIGHTS = {label: 1 + label % 3 for label in range(24)}


def small_model(*, loss="categorical_crossentropy", inputs=1):
    keras.utils.set_random_seed(0)
    images = keras.Input((28, 28, 1))
    given = [images, *(keras.Input((3,)) for _ in range(inputs - 1))]
    x = keras.layers.Conv2D(4, 5, strides=3, activation="relu")(images)
    x = keras.layers.Flatten()(keras.layers.BatchNormalization(momentum=0.8)(x))
    if inputs > 1:
        x = keras.layers.Concatenate()([x, *given[1:]])
    model = keras.Model(given if inputs > 1 else images, keras.layers.Dense(24, "softmax")(x))
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def check_same(mine, theirs):
    assert mine.history.keys() == theirs.history.keys()
    for name, values in theirs.history.items():
        np.testing.assert_allclose(mine.history[name], values, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("shuffle", [True, False])
def test_with_keras_rng_training_is_that_of_keras_own_generator(shuffle):
    """Orders, pictures, look-ahead and all: the losses of three epochs agree."""
    arguments = {"epochs": 3, "shuffle": shuffle, "class_weight": WEIGHTS, "verbose": 0}
    model = small_model()
    random.seed(7)
    theirs = model.fit(legacy.ImageDataGenerator(**COURSE).flow(X, Y, seed=3), **arguments)
    model = small_model()
    random.seed(7)
    ours = ImageDataGenerator(**COURSE, rng="keras")
    check_same(fit(model, ours.flow(X, Y, seed=3), **arguments), theirs)


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_weight": WEIGHTS, "validation_split": 0.2},
        {"sample_weight": np.linspace(0, 2, 75), "validation_data": (X[:30], Y[:30])},
        {"validation_data": (X, Y), "validation_steps": 2, "validation_batch_size": 16},
        {"batch_size": 20, "initial_epoch": 1},
    ],
    ids=range(4),
)
def test_arrays_without_augmentation_train_as_in_keras(arguments):
    arguments = {"epochs": 3, "shuffle": False, "verbose": 0} | arguments
    mine = fit(small_model(), X, Y, **arguments)
    check_same(mine, small_model().fit(X, Y, **arguments))
    assert mine.epoch == list(range(arguments.get("initial_epoch", 0), 3))


def test_integer_labels_weigh_and_train_too():
    arguments = {"class_weight": {3: 5.0, 4: 0.0}, "shuffle": False, "verbose": 0, "epochs": 2}
    mine = fit(small_model(loss="sparse_categorical_crossentropy"), X, LABELS, **arguments)
    everyone = dict.fromkeys(range(24), 1.0) | arguments["class_weight"]
    theirs = small_model(loss="sparse_categorical_crossentropy").fit(
        X, LABELS, **arguments | {"class_weight": everyone}
    )
    check_same(mine, theirs)


def test_a_dataset_trains_as_in_keras_and_can_be_augmented():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    arguments = {"epochs": 2, "verbose": 0}
    theirs = small_model().fit(dataset, shuffle=False, **arguments)
    check_same(fit(small_model(), dataset, **arguments), theirs)
    unknown = dataset.filter(lambda x, y: True)
    with pytest.warns(UserWarning, match="ran out of data"):  # Keras finds its end so
        theirs = small_model().fit(unknown, shuffle=False, **arguments)
    with pytest.warns(UserWarning, match="ran out of data"):
        check_same(fit(small_model(), unknown, **arguments), theirs)
    augmented = fit(small_model(), dataset, augment=AugmentOptions(**COURSE), **arguments)
    assert augmented.history["loss"] != theirs.history["loss"]


def test_several_inputs_and_their_order():
    more = np.random.default_rng(0).random((75, 3))
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0}
    mine = fit(small_model(inputs=2), [X, more], Y, **arguments)
    check_same(mine, small_model(inputs=2).fit([X, more], Y, **arguments))
    iterator = ImageDataGenerator(**COURSE).flow([X, more], Y)
    fit(small_model(inputs=2), iterator, verbose=0)


@pytest.mark.parametrize(("steps", "taken"), [(75 / 32, 3), (2, 2), (5, 5)])
def test_any_number_of_steps_in_every_epoch(steps, taken):
    """857 of 858 steps leave Keras with an epoch of one; a fraction it refuses."""
    seen = []

    class Count(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(0)

        def on_train_batch_end(self, batch, logs=None):
            seen[-1] += 1

    generator = ImageDataGenerator(**COURSE)
    iterator = generator.flow(X, Y)
    for data in ({"x": iterator}, {"x": X, "y": Y}):
        fit(
            small_model(),
            **data,
            epochs=3,
            steps_per_epoch=steps,
            validation_data=generator.flow(X, Y),
            validation_steps=2.0,
            callbacks=[Count()],
            verbose=0,
        )
    assert seen == [taken] * 6


def test_keras_own_iterators_are_trained_on_by_their_options():
    theirs = legacy.ImageDataGenerator(**COURSE, rescale=1 / 255)
    iterator = theirs.flow(IMAGES, Y, batch_size=16, seed=1, sample_weight=np.ones(75))
    own = ImageDataGenerator(**COURSE, rescale=1 / 255).flow(IMAGES, Y, batch_size=16, seed=1)
    mine = fit(small_model(), iterator, epochs=2, verbose=0)
    check_same(mine, fit(small_model(), own, epochs=2, verbose=0))
    assert iterator.total_batches_seen == 0  # nothing went through Python


def test_a_subclass_of_keras_own_is_left_to_keras():
    class Inverted(legacy.ImageDataGenerator):
        def standardize(self, x):
            called.append(1)
            return 1 - x

    called = []
    fit(small_model(), Inverted().flow(X, Y), steps_per_epoch=75 / 32, verbose=0)
    assert called


def test_a_generator_or_a_layer_as_augmentation_of_stored_bytes():
    """The course's generator, the same as options with a standard, and as a layer."""
    arguments = {"epochs": 2, "validation_split": 0.2, "verbose": 0, "seed": 4}
    generator = ImageDataGenerator(**COURSE, rescale=1 / 255)
    options = AugmentOptions(**COURSE, quirks=True)
    layer = RandomAugment(**COURSE, quirks=True, seed=4, dtype="float32")
    rescale = Standardize(rescale=1 / 255, dtype="float32")
    first = fit(small_model(), IMAGES, Y, augment=generator, **arguments)
    for augment in (options, layer):
        check_same(
            fit(small_model(), IMAGES, Y, augment=augment, standardize=rescale, **arguments), first
        )
    plain = fit(small_model(), IMAGES, Y, standardize=rescale, **arguments)
    assert plain.history["loss"] != first.history["loss"]
    # Validation images are rescaled too, or this would be far off.
    assert first.history["val_loss"][-1] < 10


def test_validation_is_standardised_as_training_is_whatever_form_it_has(tmp_path):
    """Each against Keras on images that were standardised beforehand."""
    shard = write_shard(tmp_path / "0.tfrecord", IMAGES, LABELS)
    write_index(tmp_path, (28, 28, 1), range(24), [str(n) for n in range(24)], "", [shard], {})
    records = Records.open(tmp_path)
    stored = tf.data.Dataset.from_tensor_slices((IMAGES, Y)).batch(32)
    ours = ImageDataGenerator(rescale=1 / 255).flow(IMAGES, Y, shuffle=False)
    theirs = legacy.ImageDataGenerator(rescale=1 / 255).flow(IMAGES, Y, shuffle=False)
    rescale = Standardize(rescale=1 / 255, dtype="float32")
    arguments = {"verbose": 0, "validation_batch_size": 32, "shuffle": False}
    forms = [stored, (IMAGES, Y), records, ours, ours.take(3), theirs]
    dataset = tf.data.Dataset.from_tensor_slices((X.astype(np.float32), Y)).batch(32)
    expected = small_model().fit(dataset, validation_data=(X, Y), **arguments)
    for validation in forms:
        mine = fit(
            small_model(), stored, standardize=rescale, validation_data=validation, **arguments
        )
        check_same(mine, expected)
    expected = small_model().fit(X, Y, validation_data=(X, Y), **arguments)
    for validation in forms:
        mine = fit(
            small_model(), IMAGES, Y, standardize=rescale, validation_data=validation, **arguments
        )
        check_same(mine, expected)
    expected = fit(
        small_model(), records, standardize=rescale, validation_data=(IMAGES, Y), **arguments
    )
    generator = ImageDataGenerator(rescale=1 / 255)
    mine = fit(small_model(), records, augment=generator, validation_data=stored, **arguments)
    check_same(mine, expected)


def test_only_arrays_are_split_as_in_keras(tmp_path):
    shard = write_shard(tmp_path / "0.tfrecord", IMAGES, LABELS)
    write_index(tmp_path, (28, 28, 1), range(24), [str(n) for n in range(24)], "", [shard], {})
    for data in (DATASET, ITERATOR, iter([(X, Y)]), Records.open(tmp_path)):
        if not isinstance(data, Records):
            with pytest.raises(ValueError, match="`validation_split` is only supported"):
                small_model().fit(data, validation_split=0.2, verbose=0)
        with pytest.raises(ValueError, match="`validation_split` is only supported where `x` is"):
            fit(small_model(), data, validation_split=0.2, verbose=0)
    overridden = {"validation_split": 0.2, "validation_data": (X, Y), "verbose": 0}
    mine = fit(small_model(), DATASET, **overridden)
    check_same(mine, small_model().fit(DATASET, shuffle=False, **overridden))


def sourced(x, y=None, model=None, **arguments):
    defaults = {"batch_size": 32, "validation_split": 0, "shuffle": True, "seed": 0}
    defaults |= {"augment": None, "standardize": None}
    return make_source(model or small_model(), x, y, None, **defaults | arguments)


@needs_keras_with("MixUp")
def test_layers_behind_the_augmentation_mix_labels():
    for y in (Y, LABELS, LABELS[:, None]):
        keras.utils.set_random_seed(1)
        mixing = RandomAugment(then=[keras.layers.MixUp(alpha=0.4, seed=1)], dtype="float32")
        found = sourced(IMAGES, y, augment=mixing)
        batch = next(iter(found.batches(Span(0, 1, 3))))
        images, labels = found.prepare(batch)
        given = {"images": IMAGES[batch.samples], "labels": Y[batch.samples].astype(np.float32)}
        mixed = keras.layers.MixUp(alpha=0.4, seed=1)(given, training=True)
        np.testing.assert_allclose(labels, mixed["labels"], atol=1e-6)
        np.testing.assert_allclose(images, mixed["images"], atol=1e-3)
        assert np.count_nonzero(labels, axis=1).max() == 2


@needs_keras_with("CutMix")
@pytest.mark.parametrize("nested", [False, True])
def test_labels_that_can_not_be_mixed_are_refused(nested):
    layer = keras.Sequential([keras.layers.CutMix()]) if nested else keras.layers.MixUp()
    mixing = RandomAugment(then=[layer])
    sparse = small_model(loss="sparse_categorical_crossentropy")
    for y in (Y, LABELS, LABELS[:, None]):
        with pytest.raises(ValueError, match="compile the model with `categorical_crossentropy`"):
            fit(sparse, X, y, augment=mixing, verbose=0)
    for y in (LABELS, LABELS[:, None]):  # class numbers, and Keras's "mse" would take them
        with pytest.raises(ValueError, match="labels, so they must be one-hot"):
            fit(small_model(loss="mse"), X, y, augment=mixing, verbose=0)


@needs_keras_with("MixUp")
def test_numbers_are_mixed_where_the_model_has_one_output():
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1, "sigmoid"))
    model.compile("sgd", "binary_crossentropy")
    for y in (LABELS % 2, (LABELS % 2)[:, None]):
        mixing = RandomAugment(then=[keras.layers.MixUp(alpha=0.4)], dtype="float32")
        found = sourced(IMAGES, y, model, augment=mixing)
        _, labels = found.prepare(next(iter(found.batches(Span(0, 1, 3)))))
        assert labels.shape == (32, *y.shape[1:])
        assert ((labels > 0.01) & (labels < 0.99)).numpy().any()


def tuned(dataset):
    return dataset.options().autotune.enabled is not False


def test_no_iterator_of_our_own_waits_for_tensorflows_tuning_at_its_end(tmp_path):
    shard = write_shard(tmp_path / "0.tfrecord", IMAGES, LABELS)
    write_index(tmp_path, (28, 28, 1), range(24), [str(n) for n in range(24)], "", [shard], {})
    records = Records.open(tmp_path)
    flow = ImageDataGenerator(rotation_range=10).flow(X, Y)
    assert not tuned(flow)

    for found in (sourced(X, Y), sourced(records), sourced(flow, batch_size=None)):
        assert not tuned(found.batches(Span(0, 2, 3)))
        if found.tensors is not None:
            assert not tuned(found.indices(Span(0, 2, 3), 1))
        if isinstance(found, StoredSource):
            assert not tuned(found.validation((X, Y), 32))
            assert not tuned(found.validation(records, 32))
    theirs = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    assert tuned(sourced(theirs, batch_size=None).batches(Span(0, 2, 3)))  # is the user's to tune


def test_other_data_go_to_keras_as_they_are():
    def batches():
        while True:
            yield X[:32], Y[:32]

    history = fit(small_model(), batches(), steps_per_epoch=2.5, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize(("side", "at_a_time"), [(8192, 4), (4096, 16), (28, 40)])
def test_no_more_than_256_mib_of_large_records_are_shuffled_at_a_time(
    tmp_path, monkeypatch, side, at_a_time
):
    """The images are smaller than the index says, as only their order is looked at."""

    def parse(self, serialized):
        return serialized, serialized

    shards = [write_shard(tmp_path / "0.tfrecord", IMAGES[:40, :2, :2], [0] * 40)]
    write_index(tmp_path, (side, side, 1), [0], "a", "", shards, {})
    monkeypatch.setattr(Records, "parse", parse)
    found = sourced(Records.open(tmp_path), batch_size=3)
    batches = found.batches(Span(0, 1, found.steps_per_pass))
    rows = np.concatenate([batch.samples for batch in batches])
    assert list(rows) != list(range(40))
    for begin in range(0, 40, at_a_time):
        within = rows[begin : begin + at_a_time]
        assert sorted(within) == list(range(begin, min(begin + at_a_time, 40)))


ITERATOR = ImageDataGenerator().flow(X, Y)
DATASET = tf.data.Dataset.from_tensors((X, Y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": ITERATOR, "y": Y}, "`y` must be None where `x` is a NumpyArrayIterator"),
        ({"x": ITERATOR, "augment": AugmentOptions()}, "`augment` must be None where"),
        ({"x": DATASET, "batch_size": 8}, "`batch_size` must be None where"),
        ({"x": DATASET.repeat()}, "`steps_per_epoch` must be given where"),
        ({"x": X, "y": Y, "steps_per_execution": 0}, "`steps_per_execution` must be at least 1"),
        ({"x": iter([(X, Y)]), "augment": AugmentOptions()}, "`augment` must be None where"),
        (
            {"x": X, "y": Y[:3]},
            r"must have the same number of rows, at least one. Received: \[3, 75\]",
        ),
        ({"x": X, "y": Y, "validation_split": 0.999}, "`validation_split` must leave rows"),
        (
            {
                "x": X,
                "y": Y,
                "standardize": Standardize(rescale=0.5),
                "validation_data": iter([(X, Y)]),
            },
            "`validation_data` must be arrays, .* Received: list_iterator",
        ),
        (
            {"x": X, "y": Y, "class_weight": {0: 1.0}, "sample_weight": np.ones(75)},
            "`class_weight` and `sample_weight` can't be given at the same time",
        ),
        (
            {"x": X, "y": Y, "augment": ImageDataGenerator(), "standardize": Standardize()},
            "`standardize` must be None where `augment` is an ImageDataGenerator",
        ),
    ],
    ids=range(11),
)
def test_what_does_not_go_together_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(small_model(), **arguments, verbose=0)


def drawn(model, x, **arguments):
    """Trains, and returns the images that the model's step saw, by epoch."""
    seen, step = [], model.train_step

    def keep(images):
        seen.append(images)
        return np.float32(0)

    def train_step(data):
        kept = tf.numpy_function(keep, [data[0]], tf.float32)
        with tf.control_dependencies([kept]):
            return step(data)

    model.train_step = train_step
    fit(model, x, **{"verbose": 0, **arguments})
    return seen


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("first", [0, 1])
def test_every_epoch_of_a_dataset_of_unknown_length_draws_anew(first):
    images = tf.data.Dataset.from_tensor_slices((X[:48].astype(np.float32), Y[:48])).batch(24)
    unknown = images.filter(lambda x, y: True)
    augment = RandomAugment(rotation_range=90, seed=2, dtype="float32")
    seen = drawn(small_model(), unknown, augment=augment, epochs=3, initial_epoch=first)
    assert len(seen) == 2 * (3 - first)
    for place, batch in enumerate(seen):
        epoch, begin = first + place // 2, place % 2 * 24
        samples = tf.range(begin, begin + 24, dtype=tf.int64)
        expected = augment(X[samples], samples=samples, epoch=epoch, training=True)
        np.testing.assert_allclose(batch, expected, atol=1e-5)


@pytest.mark.parametrize("rng", ["stateless", "keras"])
@pytest.mark.parametrize("steps", [None, 3])
def test_a_resumed_iterator_goes_on_with_its_next_pass(tmp_path, rng, steps):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def trained(folder, callbacks=()):
        random.seed(5)
        flow = ImageDataGenerator(rotation_range=40, rng=rng).flow(X, Y, batch_size=15, seed=4)
        model = small_model()
        checkpoints = Checkpoints(folder)
        fit(
            model,
            flow,
            epochs=4,
            steps_per_epoch=steps,
            checkpoints=checkpoints,
            callbacks=list(callbacks),
            verbose=0,
        )
        return model.get_weights()

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", [Stop()])
    for one, other in zip(trained(tmp_path / "stopped"), whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("frequency", [2, "epoch"])
def test_callbacks_that_count_batches_see_each_as_in_keras(tmp_path, frequency):
    written = []
    for train, folder in ((fit, tmp_path / "ours"), (keras.Model.fit, tmp_path / "keras")):
        path = folder / "{epoch}-{batch}.weights.h5" if frequency == 2 else folder / "a.weights.h5"
        save = keras.callbacks.ModelCheckpoint(path, save_freq=frequency, save_weights_only=True)
        log = keras.callbacks.TensorBoard(folder, update_freq="batch")
        train(small_model(), X, Y, batch_size=15, epochs=2, callbacks=[save], verbose=0)
        written.append(sorted(file.name for file in folder.glob("*.h5")))
        assert _handles_batches([log])
        assert _handles_batches([save]) == (frequency == 2)
    assert written[0] == written[1] != []

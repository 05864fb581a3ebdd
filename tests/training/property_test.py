"""`asl_fast.fit` against `keras.Model.fit`, for random models, data, labels and arguments.

More examples than the few of each run: ASL_FAST_EXAMPLES=300.
"""

import os

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from asl_fast import ImageDataGenerator, RandomAugment, Records, Standardize, fit
from asl_fast.data.records import write_index, write_shard

ROWS, CLASSES = 12, 12
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (ROWS, 6, 6, 1)).astype(np.uint8)
MORE = RNG.integers(0, 256, (ROWS, 4, 4, 3)).astype(np.uint8)
NUMBERS = RNG.random((ROWS, 3)).astype(np.float32)
LABELS = RNG.permutation(CLASSES).astype(np.int32)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[LABELS]
WEIGHTS = np.linspace(0.1, 2, ROWS).astype(np.float32)
RESCALE = Standardize(rescale=1 / 255, dtype="float32")

layers = keras.layers


def examples(count):
    count = int(os.environ.get("ASL_FAST_EXAMPLES", count))
    return hypothesis.settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # shrinking takes minutes
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


# Models, by the inputs that they take


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(CLASSES, "softmax")

    def call(self, x):
        return self.dense(self.flatten(tf.cast(x, tf.float32)))


class OwnStep(Subclassed):
    """Notes the structure and dtypes of what its step gets."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def train_step(self, data):
        self.seen.append(tf.nest.map_structure(lambda v: None if v is None else v.dtype, data))
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            probabilities = self(tf.nest.flatten(x)[0], training=True)
            squares = tf.reduce_mean(tf.square(probabilities - 0.1), axis=1)
            if y is not None:
                squares += tf.cast(tf.reshape(y, [tf.shape(y)[0], -1])[:, 0], tf.float32) * squares
            loss = tf.reduce_mean(squares if weights is None else squares * weights)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"own": loss}


def functional(inputs):
    images = keras.Input((6, 6, 1), name="images")
    x = layers.Conv2D(3, 3)(images)
    x = layers.Flatten()(layers.BatchNormalization(momentum=0.5)(x))
    given = {"images": images}
    if inputs != "one":
        given["more"] = keras.Input((4, 4, 3), name="more")
        given["numbers"] = keras.Input((3,), name="numbers")
        flat = layers.Flatten()(given["more"])
        x = layers.Concatenate()([x, flat, given["numbers"]])
    outputs = layers.Dense(CLASSES, "softmax")(x)
    structure = {"one": images, "list": list(given.values()), "dictionary": given}[inputs]
    return keras.Model(structure, outputs)


def nested():
    inner = keras.Sequential([layers.Flatten(), layers.Dense(5, "relu")])
    images = keras.Input((6, 6, 1))
    return keras.Model(images, layers.Dense(CLASSES, "softmax")(inner(images)))


MODELS = {
    "functional": lambda: functional("one"),
    "list": lambda: functional("list"),
    "dictionary": lambda: functional("dictionary"),
    "nested": nested,
    "subclassed": Subclassed,
    "own step": OwnStep,
    "sequential": lambda: keras.Sequential([layers.Flatten(), layers.Dense(CLASSES, "softmax")]),
}


def compiled(kind, loss):
    keras.utils.set_random_seed(0)
    model = MODELS[kind]()
    if kind in ("subclassed", "own step"):
        model(np.zeros((1, 6, 6, 1), np.float32))
    optimizer = keras.optimizers.SGD(0.05, momentum=0.5)
    if kind == "own step":  # its logs are its own
        model.compile(optimizer)
    else:
        model.compile(optimizer, loss, metrics=["accuracy"])
    return model


# Data


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    shard = write_shard(folder / "0.tfrecord", IMAGES, LABELS)
    names = [str(name) for name in range(CLASSES)]
    write_index(folder, (6, 6, 1), range(CLASSES), names, "", [shard], {})
    return Records.open(folder)


def inputs_of(kind, images, more):
    if kind in ("list", "dictionary"):
        named = {"images": images, "more": more, "numbers": NUMBERS}
        return named if kind == "dictionary" else list(named.values())
    return images


def batched(x, y, weights, rows, *, unknown=False):
    x = tuple(x) if isinstance(x, list) else x
    dataset = tf.data.Dataset.from_tensor_slices(keras.utils.pack_x_y_sample_weight(x, y, weights))
    dataset = dataset.batch(rows)
    return dataset.filter(lambda *batch: True) if unknown else dataset


def generated(dataset):
    yield from dataset.repeat().as_numpy_iterator()


def in_order(form, x, y, weights, rows):
    """Returns what `fit` is given in one of the forms that data have."""
    if form == "arrays":
        return {"x": x, "y": y, "sample_weight": weights, "batch_size": rows}
    return {"x": batched(x, y, weights, rows, unknown=form == "unknown")}


class Rates(keras.callbacks.Callback):
    """Changes the learning rate at each epoch, and notes the logs and, if asked, each batch."""

    def __init__(self, by_batch):
        super().__init__()
        self.noted = []
        if by_batch:
            self.on_train_batch_end = lambda batch, logs=None: self.noted.append((batch, *logs))

    def on_epoch_end(self, epoch, logs=None):
        self.noted.append((epoch, *logs))
        self.model.optimizer.learning_rate = 0.02 / (epoch + 1)


def check_same(ours, theirs, mine, expected):
    assert mine.history.keys() == expected.history.keys()
    assert mine.epoch == expected.epoch
    for name, values in expected.history.items():
        np.testing.assert_allclose(mine.history[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    found, wanted = ours.get_metrics_result(), theirs.get_metrics_result()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


LABEL_FORMS = {
    "integers": lambda labels: labels,
    "column": lambda labels: labels[:, None],
    "floats": lambda labels: labels.astype(float),
    "bytes": lambda labels: labels.astype(np.uint8),
    "foreign": lambda labels: labels.astype(">i8"),
    "list": lambda labels: labels.tolist(),
    "one-hot": lambda labels: np.eye(CLASSES)[labels],
    "none": lambda labels: None,
}


@st.composite
def trainings(draw):
    kind = draw(st.sampled_from(list(MODELS)))
    form = draw(st.sampled_from(["arrays", "dataset", "unknown", "flow", "records", "python"]))
    hypothesis.assume(form not in ("flow", "records") or kind not in ("list", "dictionary"))
    labels = draw(st.sampled_from(list(LABEL_FORMS)))
    hypothesis.assume(labels != "none" or (kind == "own step" and form in ("arrays", "dataset")))
    hypothesis.assume(form == "arrays" or labels not in ("list", "foreign"))
    hypothesis.assume(form != "records" or labels == "integers")
    losses = ["sparse_categorical_crossentropy", "categorical_crossentropy"]
    if kind in ("subclassed", "sequential"):  # labels can't be fitted to classes not yet known
        losses = losses[labels == "one-hot" :][:1]
    validations = [None, "arrays", "dataset", "unknown"] + ["split"] * (form == "arrays")
    standardized = form != "python" and draw(st.booleans())
    return {
        "kind": kind,
        "form": form,
        "labels": labels,
        "loss": draw(st.sampled_from([*losses, "mse"] if labels == "one-hot" else losses)),
        "dtype": draw(st.sampled_from(["uint8", "int16", "float32", "float64", "bool"])),
        "weights": draw(st.sampled_from([None, "class", "sample"])) if labels != "none" else None,
        "standardized": standardized,
        "validation": None if kind == "own step" else draw(st.sampled_from(validations)),
        "rows": draw(st.sampled_from([4, 5, 12])),
        "by_batch": draw(st.booleans()),
        "first": draw(st.sampled_from([0, 0, 1])),
    }


@pytest.mark.filterwarnings("ignore:Your input ran out of data", "ignore:The `optimizer` argument")
@examples(10)
@hypothesis.given(case=trainings())
def test_without_augmentation_training_is_that_of_keras(case, records):
    stored = [images.astype(case["dtype"]) for images in (IMAGES, MORE)]
    if case["form"] == "records":
        stored[0] = IMAGES
    shown = [RESCALE(images).numpy() for images in stored] if case["standardized"] else stored
    x, plain_x = (inputs_of(case["kind"], *images) for images in (stored, shown))
    y = LABEL_FORMS[case["labels"]](LABELS)
    # Keras takes the labels in its loss's form alone, and no lists.
    plain_y = y if case["kind"] == "own step" and y is not None else None
    if case["kind"] != "own step":
        plain_y = LABELS if case["loss"].startswith("sparse") else ONE_HOT
    plain_y = np.asarray(plain_y) if isinstance(plain_y, list) else plain_y
    weights = WEIGHTS if case["weights"] == "sample" and case["form"] != "records" else None
    common = {"epochs": case["first"] + 2, "initial_epoch": case["first"], "verbose": 0}
    common["shuffle"] = False
    if case["weights"] == "class" and case["kind"] != "own step" and case["form"] != "python":
        common["class_weight"] = {label: 1.0 + label % 3 for label in range(CLASSES)}
    form, rows = case["form"], case["rows"]
    if form == "python":
        steps = {"steps_per_epoch": 2}
        mine, plain = (
            {"x": generated(batched(some_x, some_y, weights, rows)), **steps}
            for some_x, some_y in ((x, y), (plain_x, plain_y))
        )
    else:
        as_plain = "arrays" if form in ("flow", "records") else form
        plain = in_order(as_plain, plain_x, plain_y, weights, rows)
        if form == "records":
            mine = {"x": records, "batch_size": rows}
        elif form == "flow":
            generator = ImageDataGenerator(rescale=1 / 255 if case["standardized"] else None)
            mine = {"x": generator.flow(x, y, rows, shuffle=False, sample_weight=weights)}
        else:
            mine = in_order(form, x, y, weights, rows)
    if case["standardized"] and form != "flow":
        mine["standardize"] = RESCALE
    validation = case["validation"]
    if validation == "split":
        common["validation_split"] = 0.25
    elif validation:
        mine["validation_data"] = _validation(validation, plain_x if form == "flow" else x, y)
        plain["validation_data"] = _validation(validation, plain_x, plain_y)
        mine["validation_batch_size"] = plain["validation_batch_size"] = 5
    ours, theirs = (compiled(case["kind"], case["loss"]) for _ in range(2))
    noted, expected_notes = Rates(case["by_batch"]), Rates(case["by_batch"])
    expected = theirs.fit(**plain, **common, callbacks=[expected_notes])
    check_same(ours, theirs, fit(ours, **mine, **common, callbacks=[noted]), expected)
    assert noted.noted == expected_notes.noted
    if case["kind"] == "own step" and form in ("arrays", "dataset"):
        assert ours.seen[0] == theirs.seen[0]


def _validation(form, x, y):
    if form == "arrays":
        return x, y
    y = np.asarray(y).astype(np.asarray(y).dtype.newbyteorder("="))
    return batched(x, y, None, 5, unknown=form == "unknown")


# With augmentation

SEEN = {"images": [], "targets": []}


@keras.saving.register_keras_serializable("tests")
class Keep(keras.layers.Layer):
    """Keeps the images that it is shown in training."""

    def call(self, images, training=False):
        return kept("images", images) if training else images


class KeptLoss(keras.losses.CategoricalCrossentropy):
    def call(self, y_true, y_pred):
        return super().call(kept("targets", y_true), y_pred)


class KeptSquares(keras.losses.MeanSquaredError):
    def call(self, y_true, y_pred):
        return super().call(kept("targets", y_true), y_pred)


def kept(name, values):
    def keep(values):
        SEEN[name].append(values.copy())
        return values

    result = tf.numpy_function(keep, [values], values.dtype)
    return tf.ensure_shape(result, values.shape)


def witness(targets):
    keras.utils.set_random_seed(0)
    if targets == "labels":
        body = [layers.Flatten(), layers.Dense(CLASSES, "softmax")]
        loss = KeptLoss()
    else:
        body, loss = [layers.Conv2D(1, 1)], KeptSquares()
    model = keras.Sequential([keras.Input((6, 6, 1)), Keep(), *body])
    model.compile("sgd", loss)
    return model


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@examples(7)
@hypothesis.given(
    form=st.sampled_from(["arrays", "dataset", "unknown", "records"]),
    targets=st.sampled_from(["labels", "labels", "masks", "images"]),
    mixed=st.booleans(),
    one_hot=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "rotation_range": st.sampled_from([0, 40, 180]),
            "width_shift_range": st.sampled_from([0.0, 0.3]),
            "zoom_range": st.sampled_from([0.0, 0.4]),
            "horizontal_flip": st.booleans(),
            "channel_shift_range": st.sampled_from([0.0, 30.0]),
            "fill_mode": st.sampled_from(["nearest", "constant", "reflect"]),
            "seed": st.integers(0, 2**32 - 1),
        }
    ),
    standardized=st.booleans(),
    rows=st.sampled_from([4, 5]),
    first=st.sampled_from([0, 2]),
)
def test_the_step_sees_what_the_layer_draws_and_targets_follow(
    form, targets, mixed, one_hot, options, standardized, rows, first, records
):
    hypothesis.assume(form != "records" or targets == "labels")
    mixed = mixed and targets == "labels" and hasattr(layers, "MixUp")
    then = [layers.MixUp(alpha=0.4, seed=1)] if mixed else []
    augment = RandomAugment(**options, then=then, dtype="float32")
    hypothesis.assume(mixed or not augment.options.idle)
    masks = (IMAGES > 128).astype(np.uint8)
    y = {"labels": ONE_HOT if one_hot else LABELS, "masks": masks, "images": IMAGES}[targets]
    data = {"x": records} if form == "records" else in_order(form, IMAGES, y, None, rows)
    if form == "records":
        data["batch_size"] = rows
    for values in SEEN.values():
        values.clear()
    fit(
        witness(targets),
        **data,
        augment=augment,
        standardize=RESCALE if standardized else None,
        targets=None if targets == "labels" else targets,
        shuffle=targets == "labels",
        initial_epoch=first,
        epochs=first + 2,
        verbose=0,
    )
    per_epoch = -(-ROWS // rows)
    assert len(SEEN["images"]) == len(SEEN["targets"]) == 2 * per_epoch
    scale = 1 / 255 if standardized else 1.0
    for number, (images, seen) in enumerate(zip(SEEN["images"], SEEN["targets"], strict=True)):
        epoch, step = first + number // per_epoch, number % per_epoch
        samples = np.arange(ROWS)
        if form == "dataset":  # each batch is an epoch of its own, whose rows count from 0
            samples, epoch = samples % rows, first * per_epoch + number
        moved = augment.apply(IMAGES, augment.draw(IMAGES, samples, epoch)).numpy()
        if targets == "labels":
            # Each row's class is its own, and mixing is linear.
            shares = seen[:, LABELS]
            np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
            assert mixed or shares.max(axis=1).min() == 1
            expected = np.tensordot(shares, moved, 1)
        else:
            batch = slice(step * rows, step * rows + rows)
            expected = moved[batch]
            if targets == "images":
                np.testing.assert_allclose(seen, expected * scale, rtol=1e-4, atol=1e-2 * scale)
            else:
                both = {"images": IMAGES, "segmentation_masks": masks}
                both = augment(both, samples=samples, epoch=epoch, training=True)
                np.testing.assert_array_equal(seen, both["segmentation_masks"][batch])
        np.testing.assert_allclose(images, expected * scale, rtol=1e-3, atol=2e-2 * scale)

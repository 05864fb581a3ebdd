import keras
import numpy as np
import pytest

from asl_fast import InputError, RandomAugment, Standardize, build_cnn
from asl_fast.data.dataset import Split
from asl_fast.inference import evaluation
from asl_fast.models import pixel_range, saving

layers = keras.layers
RESCALING = layers.Rescaling


def normalization(low, high):
    """Adapted to pixels spread evenly over a range."""
    layer = layers.Normalization(axis=-1)
    layer.adapt(np.linspace(low, high, 4096, dtype=np.float32).reshape(16, 16, 16, 1))
    return layer


def standardize():
    layer = Standardize(featurewise_center=True, featurewise_std_normalization=True)
    layer.fit(np.arange(256, dtype=np.uint8).repeat(16).reshape(4, 32, 32, 1))
    return layer


def notes(caplog):
    """What this package logged; TensorFlow counts its traces over all tests."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("asl_fast")]


class Opaque(keras.Model):
    """Has no graph, but layers."""

    def __init__(self, *inner):
        super().__init__()
        self.inner = list(inner)

    def call(self, images):
        for layer in self.inner:
            images = layer(images)
        return images


def nested(images):
    inputs = keras.Input((28, 28, 1))
    scaled = keras.applications.mobilenet_v2.preprocess_input(inputs)
    features = layers.Conv2D(1, 1, kernel_initializer="ones")(scaled)
    return keras.Model(inputs, features)(images)


def backbone_after_a_scaled_input(images):
    """To 0-1 for the augmentation, and back for a backbone that scales pixels itself."""
    return nested(RESCALING(255.0)(RESCALING(1 / 255)(images)))


def backbone_of_another_shape(images):
    """As EfficientNet, which scales pixels itself."""
    inputs = keras.Input((32, 32, 3))
    features = layers.Conv2D(1, 1, kernel_initializer="ones")(RESCALING(1 / 255)(inputs))
    backbone = keras.Model(inputs, features)
    return backbone(layers.Resizing(32, 32)(layers.Concatenate()([images] * 3)))


def on_three_channels(preprocess):
    def apply(images):
        return layers.Conv2D(1, 1, kernel_initializer="ones")(
            preprocess(layers.Concatenate()([images] * 3))
        )

    return apply


APPLICATIONS = keras.applications

# How a model treats its input, and the range of pixels that it was made for.
GRAPHS = {
    "1/255": (RESCALING(1 / 255), "0-255"),
    "1/127.5 - 1": (RESCALING(1 / 127.5, offset=-1), "0-255"),
    "floats to both sides": (RESCALING(2.0, offset=-1), "0-1"),
    "back to pixels": (RESCALING(255.0), "0-1"),
    "back from both sides": (RESCALING(127.5, offset=127.5), "-1-1"),
    "back from both sides, by operations": (lambda x: x * 127.5 + 127.5, "-1-1"),
    "after flattening": (lambda x: RESCALING(1 / 255)(layers.Flatten()(x)), "0-255"),
    "to [0, 1] from both sides, by operations": (lambda x: (x + 1.0) / 2.0, "-1-1"),
    "operations": (lambda x: (x - 127.5) / 127.5, "0-255"),
    "multiplied": (lambda x: 0.00392 * x, "0-255"),
    "mobilenet_v2": (APPLICATIONS.mobilenet_v2.preprocess_input, "0-255"),
    "resnet, which swaps channels": (
        on_three_channels(APPLICATIONS.resnet.preprocess_input),
        "0-255",
    ),
    "densenet": (on_three_channels(APPLICATIONS.densenet.preprocess_input), "0-255"),
    "adapted to 0-255": (lambda x: normalization(0, 255)(x), "0-255"),
    "adapted to 0-1": (lambda x: normalization(0, 1)(x), "0-1"),
    "adapted to -1-1": (lambda x: normalization(-1, 1)(x), "-1-1"),
    "by this package": (Standardize(rescale=1 / 255), "0-255"),
    "by this package, each image": (
        Standardize(rescale=1 / 255, samplewise_center=True, samplewise_std_normalization=True),
        "0-255",
    ),
    "by this package, fitted": (lambda x: standardize()(x), "0-255"),
    "after augmentation": (
        lambda x: RESCALING(1 / 255)(RandomAugment(rotation_range=5)(x)),
        "0-255",
    ),
    "after resizing": (lambda x: RESCALING(1 / 255)(layers.Resizing(56, 56)(x)), "0-255"),
    "in a nested Sequential": (keras.Sequential([RESCALING(1 / 255)]), "0-255"),
    "in a nested functional model": (nested, "0-255"),
    "before a nested model that undoes it": (backbone_after_a_scaled_input, "0-255"),
    "in a nested model of another shape": (backbone_of_another_shape, "0-255"),
    "in a nested subclassed model": (Opaque(RESCALING(1 / 255)), "0-255"),
    "none": (lambda x: x, None),
    "too late": (lambda x: RESCALING(1 / 255)(layers.Conv2D(2, 3)(x)), None),
    "of which each image has its own": (Standardize(samplewise_center=True), None),
}


@pytest.mark.parametrize(("treat", "expected"), GRAPHS.values(), ids=GRAPHS.keys())
def test_the_range_is_read_from_the_graph(treat, expected, tmp_path):
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(treat(inputs))))
    assert pixel_range.read(model) == expected
    if not isinstance(treat, Opaque):
        model.save(tmp_path / "a.keras")
        assert pixel_range.read(saving.load_model(tmp_path / "a.keras")) == expected


def test_the_range_of_a_subclassed_model_is_read_from_its_layers():
    model = Opaque(normalization(0, 255), layers.Flatten(), layers.Dense(3))
    model(np.zeros((1, 28, 28, 1)))
    assert pixel_range.read(model) == "0-255"
    assert pixel_range.read(Opaque(layers.Flatten(), layers.Dense(3))) is None


def levels(treat, pixels):
    """Classifies an even image of 0-255 by its level, if it sees pixels as it was made for."""
    inputs = keras.Input((28, 28, 1))
    mean = layers.GlobalAveragePooling2D()(treat(inputs))
    model = keras.Model(inputs, mean)
    values = np.arange(24, dtype=np.float32)[:, None, None, None] * 11 * np.ones((28, 28, 1))
    centers = model.predict(pixel_range.scale(values, pixels), verbose=0)[:, 0]
    # The nearest center has the largest 2 c x - c².
    dense = layers.Dense(24, activation="softmax")
    model = keras.Model(inputs, dense(mean))
    sharp = 100 / (centers[1] - centers[0]) ** 2
    dense.set_weights([2 * sharp * centers[None], -sharp * centers**2])
    return model


EVALUATED = {
    name: (GRAPHS[name][0], GRAPHS[name][1])
    for name in (
        "1/255",
        "mobilenet_v2",
        "adapted to 0-255",
        "adapted to 0-1",
        "adapted to -1-1",
        "operations",
        "in a nested Sequential",
        "in a nested functional model",
        "floats to both sides",
        "back from both sides",
    )
}


@pytest.fixture
def split():
    labels = np.arange(24, dtype=np.int32).repeat(2)
    images = (
        np.zeros((48, 28, 28, 1), np.uint8) + (labels * 11).astype(np.uint8)[:, None, None, None]
    )
    return Split(images, labels, "here", "0", "either")


@pytest.mark.parametrize(("treat", "pixels"), EVALUATED.values(), ids=EVALUATED.keys())
def test_a_model_sees_the_pixels_that_it_was_made_for(treat, pixels, split, caplog):
    model = levels(treat, pixels)
    result = evaluation.evaluate(model, split)
    assert (result["accuracy"], result["pixels"]) == (1.0, pixels)
    assert not notes(caplog)
    expected = model.predict(pixel_range.scale(split.images.astype(np.float32), pixels), verbose=0)
    np.testing.assert_allclose(evaluation.predict(model, split)[1], expected, atol=1e-5)


def test_an_unknown_range_is_named_and_a_better_one_too(split, caplog):
    model = levels(lambda x: x, "0-255")
    assert evaluation.evaluate(model, split)["accuracy"] < 0.1
    assumed, better = notes(caplog)
    assert "0-1 is assumed" in assumed
    assert "probably trained on pixels in 0-255" in better
    assert "1.00 with those" in better
    caplog.clear()
    assert evaluation.evaluate(model, split, pixels="0-255")["accuracy"] == 1
    assert not notes(caplog)
    with pytest.raises(InputError, match="pixels must be one of 0-1, -1-1, 0-255"):
        evaluation.evaluate(model, split, pixels="0-2")


def test_our_files_hold_the_range(tmp_path, caplog):
    saving.save_model(build_cnn(), tmp_path / "new.keras", "ABC")
    model = keras.saving.load_model(tmp_path / "new.keras")
    pixel_range.mark(model, "-1-1")
    saving.save_model(model, tmp_path / "both.keras", "ABC")
    plain = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten()])
    saving.save_model(plain, tmp_path / "old.keras", "ABC")
    plain.save(tmp_path / "other.keras")
    ranges = {
        name: pixel_range.pixel_range(saving.load_model(tmp_path / f"{name}.keras"))
        for name in ("new", "both", "old")
    }
    assert ranges == {"new": "0-1", "both": "-1-1", "old": "0-1"}
    assert not notes(caplog)
    assert pixel_range.pixel_range(saving.load_model(tmp_path / "other.keras")) == "0-1"
    assert "0-1 is assumed" in caplog.text

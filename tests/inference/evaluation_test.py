import csv
import json

import keras
import numpy as np
import pytest
from PIL import Image

from asl_fast import InputError
from asl_fast.data import dataset
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference import evaluation
from asl_fast.models import saving
from tests.samples import blobs


class MiddlePixel(keras.layers.Layer):
    """Predicts the letter whose number the middle pixel holds."""

    def call(self, images):
        middle = keras.ops.cast(keras.ops.round(images[:, 14, 14, 0] * 255), "int32")
        return 0.9 * keras.ops.one_hot(middle % 24, 24) + 0.1 / 24

    def compute_output_shape(self, shape):
        return (shape[0], 24)


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((28, 28, 1)), MiddlePixel()])


def split(labels, predicted):
    images = np.zeros((len(labels), 28, 28, 1), np.uint8)
    images[...] = np.asarray(predicted, np.uint8)[:, None, None, None]
    return dataset.Split(images, np.asarray(labels, np.int32), "here", "0", "either")


def test_measures_by_letter_and_calibration():
    labels = np.array([0, 0, 0, 1, 1, 2])
    probabilities = np.full((6, 24), 0.01)
    for row, (predicted, confidence) in enumerate(
        [(0, 0.9), (0, 0.7), (1, 0.5), (1, 0.9), (1, 0.9), (1, 0.7)]
    ):
        probabilities[row, predicted] = confidence
    result = evaluation.measure(labels, probabilities, LETTERS)
    assert result["right"] == 4
    assert result["accuracy"] == pytest.approx(2 / 3)
    # From the formula in Wilson's paper, worked by hand.
    assert result["interval"] == pytest.approx([0.2999, 0.9032], abs=1e-4)
    assert result["letters"]["A"] == pytest.approx(
        {"precision": 1, "recall": 2 / 3, "f1": 0.8, "images": 3}
    )
    assert result["letters"]["B"] == pytest.approx(
        {"precision": 0.5, "recall": 1, "f1": 2 / 3, "images": 2}
    )
    assert result["letters"]["C"] == {"precision": None, "recall": 0, "f1": 0, "images": 1}
    assert set(result["letters"]) == {"A", "B", "C"}
    # Bins of 0.5, 0.7 and 0.9, whose accuracy is off by 0.5, 0.2 and 0.1 for 1, 2 and 3 images.
    assert result["calibration"]["error"] == pytest.approx((0.5 + 0.4 + 0.3) / 6)
    assert [one["images"] for one in result["calibration"]["bins"]] == [1, 2, 3]


def test_writes_figures_and_tables(model, tmp_path):
    labels = [0, 0, 1, 2]
    result = evaluation.evaluate(model, split(labels, [0, 3, 1, 3]), out=tmp_path / "out")
    out = tmp_path / "out"
    assert json.loads((out / "evaluation.json").read_text()) == result
    with (out / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["true letter"] for row in rows] == list(LETTERS)
    assert (rows[0]["A"], rows[0]["D"], rows[2]["D"], rows[1]["B"]) == ("1", "1", "1", "1")
    with (out / "letters.csv").open() as file:
        assert next(csv.DictReader(file)) == {
            "letter": "A",
            "precision": "1.0",
            "recall": "0.5",
            "f1": str(2 / 3),
            "images": "2",
        }
    for name in ("confusion", "mistakes", "reliability", "robustness"):
        assert np.asarray(Image.open(out / f"{name}.png")).std() > 5
    assert len(np.asarray(Image.open(out / "mistakes.png"))) < 400  # pixels: a single row of images
    # Images of one colour look the same after any motion.
    shares = [*result["robustness"]["rotation"].values(), *result["robustness"]["shift"].values()]
    assert shares == [0.5] * len(shares)


def test_robustness_rotates_and_shifts_in_every_direction():
    """By a model that predicts B if a spot lies above and to the right of the middle."""

    class Spot(keras.layers.Layer):
        def call(self, images):
            is_there = keras.ops.max(images[:, :4, 16:, 0], axis=(1, 2)) > 0.2
            return keras.ops.one_hot(keras.ops.cast(is_there, "int32"), 24)

        def compute_output_shape(self, shape):
            return (shape[0], 24)

    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[0, 1:3, 13:15] = 255  # at twelve o'clock: -15° take it to the right
    model = keras.Sequential([keras.Input((28, 28, 1)), Spot()])
    result = evaluation.robustness(model, dataset.Split(images, np.array([1]), "", "", "either"))
    assert result["rotation"]["-15"] == 1
    assert result["rotation"]["15"] == 0
    assert result["shift"]["1"] == 0
    assert result["shift"]["3"] == 0.25  # to the right


def test_the_worst_mistakes_come_first_one_of_each_class():
    labels = np.array([0, 1, 2, 3, 2])
    probabilities = np.full((5, 24), 0.02)
    probabilities[[0, 1, 2, 3, 4], [1, 1, 3, 4, 3]] = 0.5
    probabilities[[2, 4], 2] = 0.001, 0.002
    data = split(labels, [5, 6, 7, 8, 9])
    rows, images = evaluation.worst_mistakes(data, labels, probabilities, 2)
    assert rows.tolist() == [2, 0]
    assert images[:, 0, 0, 0].tolist() == [7, 5]
    assert evaluation.worst_mistakes(data, labels, probabilities)[0].tolist() == [2, 0, 3, 4]


def test_mirror_images_are_averaged_in(model):
    images, labels = blobs(48)
    data = dataset.Split(images, labels, "", "", "either")
    plain, both = (evaluation.predict(model, data, mirrored)[1] for mirrored in (False, True))
    flipped = evaluation.predict(model, data._replace(images=images[:, :, ::-1]))[1]
    np.testing.assert_allclose(both, (plain + flipped) / 2, atol=1e-7)
    assert np.abs(plain - flipped).max() > 0.5


def test_pixels_are_scaled_as_the_model_expects(model):
    scaling = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255), MiddlePixel()]
    )
    images, labels = blobs(48)
    data = dataset.Split(images, labels, "", "", "either")
    np.testing.assert_allclose(
        evaluation.predict(scaling, data)[1], evaluation.predict(model, data)[1], atol=1e-6
    )
    assert evaluation.robustness(scaling, data) == evaluation.robustness(model, data)


def test_a_model_without_probabilities_is_rejected():
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    with pytest.raises(InputError, match="outputs no probabilities"):
        evaluation.predict(model, split([0, 1], [0, 3]))


def spread(letters, tmp_path):
    """A model that takes images of brightness i for the i-th of its letters, and its file."""
    dense = keras.layers.Dense(len(letters), "softmax")
    layers = [keras.Input((28, 28, 1)), keras.layers.GlobalAveragePooling2D(), dense]
    model = keras.Sequential(layers)
    centers = np.arange(len(letters)) * 9 / 255
    dense.set_weights([2e4 * centers[None], -1e4 * centers**2])
    model.save(tmp_path / "model.keras")
    return model, tmp_path / "model.keras"


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.parametrize("count", [25, 26])
def test_models_of_kaggles_notebooks_are_measured(tmp_path, caplog, count):
    model, path = spread(ALPHABET[:count], tmp_path)
    brightness = np.array([ALPHABET.index(letter) for letter in LETTERS])
    brightness[0] = ALPHABET.index("J")  # an A that looks like a J
    data = evaluation.matched(model, split(np.arange(24), brightness * 9), path)
    assert f"A to {data.classes[-1]}; Kaggle's tables have no J" in caplog.text
    result = evaluation.evaluate(model, data, out=tmp_path / "out", pixels="0-1")
    assert result["right"] == 23
    missing = {"precision": 0.0, "recall": None, "f1": 0.0, "images": 0}
    assert result["letters"]["J"] == missing
    assert result["letters"]["Y"]["recall"] == 1
    assert "Z" not in result["letters"]
    with (tmp_path / "out" / "confusion.csv").open() as file:
        assert next(csv.DictReader(file))["J"] == "1"


def test_letters_in_another_order_are_put_in_theirs(tmp_path):
    backwards = LETTERS[::-1]
    model, path = spread(backwards, tmp_path)
    data = split(np.arange(24), np.arange(24)[::-1] * 9)
    matched = evaluation.matched(model, data, path, backwards)
    assert evaluation.evaluate(model, matched, pixels="0-1")["accuracy"] == 1
    assert evaluation.matched(model, data, path).classes == tuple(LETTERS)
    for wrong, message in (
        (LETTERS[:-1] + "Z", "no output for Y, which the data have"),
        (LETTERS + "Z", "has 24 outputs and needs as many different letters"),
        ("A" + LETTERS[:-1], "has 24 outputs and needs as many different letters"),
    ):
        with pytest.raises(InputError, match=message):
            evaluation.matched(model, data, path, wrong)
    saving.save_model(model, tmp_path / "own.keras", backwards)
    assert evaluation.matched(model, data, tmp_path / "own.keras").classes == tuple(backwards)
    with pytest.raises(InputError, match="27 outputs .* but none are known"):
        evaluation.matched(spread(ALPHABET + "_", tmp_path)[0], data, path)


def test_as_many_outputs_as_the_data_have_classes_are_taken_for_these(tmp_path, caplog):
    model, path = spread(ALPHABET, tmp_path)
    data = split([0], [0])._replace(classes=tuple(map(str, range(26))))
    assert evaluation.matched(model, data, path) == data
    assert caplog.text == ""
    colours = data._replace(images=np.zeros((1, 28, 28, 3), np.uint8))
    with pytest.raises(InputError, match="takes images of 28x28x3 and outputs .None, 26"):
        evaluation.matched(model, colours, path)

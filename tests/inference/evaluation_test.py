import csv
import json

import keras
import numpy as np
import pytest
from PIL import Image

from asl_fast import InputError, build_cnn
from asl_fast.data import dataset
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference import evaluation
from asl_fast.models import saving
from tests.samples import blobs


class Bright(keras.layers.Layer):
    """Says the letter whose number the middle pixel holds, surely or by half."""

    def call(self, images):
        middle = keras.ops.cast(keras.ops.round(images[:, 14, 14, 0] * 255), "int32")
        return 0.9 * keras.ops.one_hot(middle % 24, 24) + 0.1 / 24

    def compute_output_shape(self, shape):
        return (shape[0], 24)


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((28, 28, 1)), Bright()])


def split(labels, said):
    images = np.zeros((len(labels), 28, 28, 1), np.uint8)
    images[...] = np.asarray(said, np.uint8)[:, None, None, None]
    return dataset.Split(images, np.asarray(labels, np.int32), "here", "0", "either")


def test_measures_by_letter_and_calibration():
    labels = np.array([0, 0, 0, 1, 1, 2])
    probabilities = np.full((6, 24), 0.01)
    for row, (said, sure) in enumerate(
        [(0, 0.9), (0, 0.7), (1, 0.5), (1, 0.9), (1, 0.9), (1, 0.7)]
    ):
        probabilities[row, said] = sure
    found = evaluation.measure(labels, probabilities)
    assert found["right"] == 4
    assert found["accuracy"] == pytest.approx(2 / 3)
    # From the formula in Wilson's paper, worked by hand.
    assert found["interval"] == pytest.approx([0.2999, 0.9032], abs=1e-4)
    assert found["letters"]["A"] == pytest.approx(
        {"precision": 1, "recall": 2 / 3, "f1": 0.8, "images": 3}
    )
    assert found["letters"]["B"] == pytest.approx(
        {"precision": 0.5, "recall": 1, "f1": 2 / 3, "images": 2}
    )
    assert found["letters"]["C"] == {"precision": None, "recall": 0, "f1": 0, "images": 1}
    assert set(found["letters"]) == {"A", "B", "C"}
    # Bins of 0.5, 0.7 and 0.9: off by 0.5, 0.2 and 0.1 for 1, 2 and 3 images.
    assert found["calibration"]["error"] == pytest.approx((0.5 + 0.4 + 0.3) / 6)
    assert [one["images"] for one in found["calibration"]["bins"]] == [1, 2, 3]


def test_leaves_pictures_and_tables(model, tmp_path):
    labels = [0, 0, 1, 2]
    found = evaluation.evaluate(model, split(labels, [0, 3, 1, 3]), out=tmp_path / "out")
    out = tmp_path / "out"
    assert json.loads((out / "evaluation.json").read_text()) == found
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
    assert len(np.asarray(Image.open(out / "mistakes.png"))) < 400  # pixels: a single line
    # Images of one colour look the same wherever they are moved.
    shares = [*found["robustness"]["rotation"].values(), *found["robustness"]["shift"].values()]
    assert shares == [0.5] * len(shares)


def test_robustness_turns_and_shifts_every_way():
    """Judged by a model that says B where a spot lies right of and above the middle."""

    class Spot(keras.layers.Layer):
        def call(self, images):
            found = keras.ops.max(images[:, :4, 16:, 0], axis=(1, 2)) > 0.2
            return keras.ops.one_hot(keras.ops.cast(found, "int32"), 24)

        def compute_output_shape(self, shape):
            return (shape[0], 24)

    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[0, 1:3, 13:15] = 255  # at twelve o'clock: -15° take it to the right
    model = keras.Sequential([keras.Input((28, 28, 1)), Spot()])
    found = evaluation.robustness(model, dataset.Split(images, np.array([1]), "", "", "either"))
    assert found["rotation"]["-15"] == 1
    assert found["rotation"]["15"] == 0
    assert found["shift"]["1"] == 0
    assert found["shift"]["3"] == 0.25  # to the right


def test_the_worst_mistakes_come_first():
    labels = np.array([0, 1, 2, 3])
    probabilities = np.full((4, 24), 0.02)
    probabilities[[0, 1, 2, 3], [1, 1, 3, 4]] = 0.5
    probabilities[2, 2] = 0.001
    rows, images = evaluation.worst_mistakes(split(labels, [5, 6, 7, 8]), labels, probabilities, 2)
    assert rows.tolist() == [2, 0]
    assert images[:, 0, 0, 0].tolist() == [7, 5]


def test_mirror_images_are_averaged_in(model):
    images, labels = blobs(48)
    data = dataset.Split(images, labels, "", "", "either")
    plain, both = (evaluation.predict(model, data, mirrored)[1] for mirrored in (False, True))
    flipped = evaluation.predict(model, data._replace(images=images[:, :, ::-1]))[1]
    np.testing.assert_allclose(both, (plain + flipped) / 2, atol=1e-7)
    assert np.abs(plain - flipped).max() > 0.5


def test_pixels_are_scaled_as_the_model_expects(model):
    scaling = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255), Bright()]
    )
    images, labels = blobs(48)
    data = dataset.Split(images, labels, "", "", "either")
    np.testing.assert_allclose(
        evaluation.predict(scaling, data)[1], evaluation.predict(model, data)[1], atol=1e-6
    )
    assert evaluation.robustness(scaling, data) == evaluation.robustness(model, data)


def test_a_model_without_probabilities_is_refused():
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    with pytest.raises(InputError, match="gives no probabilities"):
        evaluation.predict(model, split([0, 1], [0, 3]))


def test_a_model_of_other_letters_is_refused(tmp_path):
    saving.save_model(build_cnn(), tmp_path / "model.keras", LETTERS[::-1])
    with pytest.raises(InputError, match="names other letters than the data: Y X W"):
        evaluation.load_model(tmp_path / "model.keras")

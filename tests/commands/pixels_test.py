"""`--pixels` and the notes about the range, in the commands that take a model."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from asl_fast.inference import demo
from tests.samples import write_csv


@pytest.fixture
def model(tmp_path):
    """Sees whether an image is bright, if it is fed pixels in 0-255."""
    dense = keras.layers.Dense(24, "softmax")
    layers = [keras.Input((28, 28, 1)), keras.layers.GlobalAveragePooling2D(), dense]
    model = keras.Sequential(layers)
    kernel, bias = np.zeros((1, 24)), np.full(24, -99.0)
    kernel[0, 3], bias[0], bias[3] = 1, 0, -20  # D for bright images, else A
    dense.set_weights([kernel, bias])
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_an_unknown_range_is_said_once_and_can_be_chosen(asl_fast_here, model, tmp_path, caplog):
    images = np.full((60, 28, 28, 1), 200, np.uint8)
    labels = np.full(60, 3)
    files = [write_csv(tmp_path / f"{name}.csv", images, labels) for name in "ab"]
    data = ["--train", files[0], "--valid", files[1], "--json"]
    assumed = asl_fast_here("evaluate", model, *data)
    assert json.loads(assumed.stdout)["accuracy"] == 0
    notes = [record.getMessage() for record in caplog.records if record.name[:8] == "asl_fast"]
    assert ["0-1 is assumed" in note for note in notes] == [True, False]
    assert "Choose with --pixels 0-255." in notes[1]
    result = asl_fast_here("evaluate", model, *data, "--pixels", "0-255")
    assert json.loads(result.stdout)["accuracy"] == 1
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "a.png")
    letters = ["--letters", "ABCDEFGHIKLMNOPQRSTUVWXY", "--json"]
    for arguments, letter in ([], "A"), (["--pixels", "0-255"], "D"), (["--pixels", "-1-1"], "A"):
        result = asl_fast_here("predict", model, tmp_path / "a.png", *letters, *arguments)
        assert json.loads(result.stdout)[0]["letter"] == letter


def test_the_demo_takes_range_and_letters(asl_fast_here, model, monkeypatch):
    served = []
    monkeypatch.setattr(demo, "serve", lambda classifier, *rest: served.append(classifier))
    letters = "ABCDEFGHIKLMNOPQRSTUVWXY"
    for pixels, letter in ("0-1", "A"), ("0-255", "D"):
        result = asl_fast_here("demo", model, "--letters", letters, "--pixels", pixels)
        assert result.returncode == 0, result.stderr
        assert served.pop().predict(np.full((28, 28), 200, np.uint8))[0].letter == letter
    assert "--letters" in asl_fast_here("demo", model).stderr

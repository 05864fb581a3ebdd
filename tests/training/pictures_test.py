"""Runs on pictures of other sizes, colours and classes, and everything that follows them."""

import json
import types

import keras
import numpy as np
import pandas as pd
import pytest

from asl_fast.data import convert, dataset
from asl_fast.models import network, saving
from asl_fast.training import run
from asl_fast.training.run_folder import stopped
from tests.samples import shapes

CLASSES = ("bar", "big dot", "sky")


def tiny(include_top, weights, input_shape, pooling):
    """Stands in for a network of `keras.applications`, which takes half a minute to compile."""
    assert (include_top, weights, pooling) == (False, None, "avg")
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Conv2D(8, 4, strides=4, activation="relu")(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    return keras.Model(inputs, keras.layers.Flatten()(hidden))


@pytest.fixture
def tiny_network(monkeypatch):
    module = types.SimpleNamespace(
        TinyNet=tiny, preprocess_input=keras.applications.mobilenet.preprocess_input
    )
    monkeypatch.setattr(network, "_applications", lambda: {"TinyNet": module})


@pytest.fixture
def files(tmp_path):
    return shapes(tmp_path / "files", 20)


def test_class_folders_then_everything(asl_fast_here, files, tiny_network, tmp_path):
    out = tmp_path / "run"
    options = ["--data", files, "--validation-split", 0.2, "--network", "TinyNet", "--seed", 3]
    options += ["--epochs", 12, "--batch-size", 16, "--precision", "float32"]
    trained = asl_fast_here("train", *options, "--learning-rate", 0.01, "--out", out)
    assert trained.returncode == 0, trained.stderr
    assert f"train: {files}, 48 rows of 16x20x3 in 3 classes" in trained.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["network"] == {"name": "TinyNet", "weights": None, "frozen": False}
    assert metrics["recipe"]["name"] == "transfer"
    assert metrics["dataset"]["classes"] == list(CLASSES)
    assert metrics["val_accuracy"] > 0.8

    # All know the run's data, its division too, and the names of the classes.
    evaluated = asl_fast_here("evaluate", out, "--out", tmp_path / "plots", "--json")
    result = json.loads(evaluated.stdout)
    assert result["accuracy"] == pytest.approx(metrics["val_accuracy"], abs=1e-6)
    assert (result["rows"], set(result["letters"])) == (12, set(CLASSES))
    assert "probably trained on" not in evaluated.stderr
    table = (tmp_path / "plots" / "confusion.csv").read_text()
    assert table.startswith("true letter,bar,big dot,sky\n")

    predicted = asl_fast_here("predict", out, files / "sky", files / "bar", "--json")
    rows = json.loads(predicted.stdout)
    assert len(rows) == 40
    share = np.mean([row["letter"] in row["file"] for row in rows])
    assert share > 0.8

    assert asl_fast_here("report", out).returncode == 0
    page = (out / "report.html").read_text()
    for words in (
        "A training image of each class",
        'alt="big dot"',
        "TinyNet",
        '<th scope="row">sky',
    ):
        assert words in page
    exported = asl_fast_here(
        "export", out, "--format", "litert", "--out", tmp_path / "model.tflite"
    )
    assert exported.returncode == 0, exported.stderr
    assert "on 12 images" in exported.stdout

    # Other pictures are made as the model takes them; a class may be missing.
    other = shapes(tmp_path / "other", 4, (30, 24), "L", classes=("big dot", "sky"))
    measured = asl_fast_here("evaluate", out, "--data", other, "--json")
    assert json.loads(measured.stdout)["rows"] == 8, measured.stderr
    unknown = shapes(tmp_path / "unknown", 2, classes=("bar", "cat"))
    refused = asl_fast_here("evaluate", out, "--data", unknown)
    assert (refused.returncode, "has no output for cat" in refused.stderr) == (2, True)


def test_weights_and_frozen_layers(asl_fast_here, files, tiny_network, tmp_path):
    trained = tiny(False, None, (16, 20, 3), "avg")
    trained.save_weights(tmp_path / "tiny.weights.h5")
    options = ["train", "--data", files, "--validation-split", 0.2, "--network", "TinyNet"]
    options += ["--weights", tmp_path / "tiny.weights.h5", "--epochs", 1, "--precision", "float32"]
    result = asl_fast_here(*options, "--frozen", "--out", tmp_path / "frozen")
    assert result.returncode == 0, result.stderr
    saved = saving.load_model(tmp_path / "frozen" / "model.keras")
    (features,) = (layer for layer in saved.layers if isinstance(layer, keras.Model))
    for kept, before in zip(features.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, before)
    result = asl_fast_here(*options, "--out", tmp_path / "all")
    assert result.returncode == 0, result.stderr
    assert (
        json.loads((tmp_path / "all" / "metrics.json").read_text())["recipe"]["name"] == "finetune"
    )


def test_a_stopped_run_of_pictures_is_resumed(asl_fast_here, files, tmp_path, monkeypatch):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    place = {"folder": str(files), "image_size": [12, 12], "color": "grayscale"}
    place |= {"validation_split": 0.25, "seed": 4}
    data = dataset.load(**place)
    with pytest.raises(KeyboardInterrupt):
        run.train(
            data,
            tmp_path / "run",
            seed=4,
            changes={"epochs": 2, "batch_size": 15},
            callbacks=[Stop()],
            verbose=0,
        )
    assert stopped(tmp_path / "run")["data"] == place
    seen = []
    monkeypatch.setattr(run, "train", lambda data, out, **_: seen.append(data) or METRICS)
    resumed = asl_fast_here("train", "--resume", "--out", tmp_path / "run")
    assert resumed.returncode == 0, resumed.stderr
    assert seen[0].describe() == data.describe()
    moved = files.rename(tmp_path / "moved")
    asl_fast_here("train", "--resume", "--out", tmp_path / "run", "--data", moved)
    assert seen[1].train.sha256 == data.train.sha256


METRICS = {"val_accuracy": 0.25, "best_val_accuracy": 0.5, "train_seconds": 60.0}
METRICS |= {"images_per_second": 1234.0, "devices": 1, "device": "CPU", "precision": "float32"}


def test_a_table_of_grey_pictures_on_the_courses_network(files, tmp_path):
    names = sorted(shapes(tmp_path / "grey", 20, (10, 9), "L").glob("*/*.png"))
    frame = pd.DataFrame({"filename": names, "class": [name.parent.name for name in names]})
    frame.to_csv(tmp_path / "table.csv", index=False)
    data = dataset.load(tmp_path / "table.csv", validation_split=0.2)
    changes = {"epochs": 10, "batch_size": 12}
    metrics = run.train(data, tmp_path / "run", changes=changes, augment=False, verbose=0)
    assert metrics["val_accuracy"] > 0.6
    model = saving.load_model(tmp_path / "run")
    assert (model.input_shape, model.output_shape) == ((None, 10, 9, 1), (None, 3))
    assert saving.read_letters(tmp_path / "run") == CLASSES


def test_converted_pictures_on_several_devices(files, tmp_path):
    for name, each in (("train", 20), ("valid", 5)):
        source = shapes(tmp_path / "files" / name, each)
        convert.convert(
            source, tmp_path / "records" / name, size=(9, 8), color_mode="rgb", workers=1
        )
    data = dataset.load(tmp_path / "records")
    metrics = run.train(
        data,
        tmp_path / "run",
        changes={"epochs": 1, "batch_size": 30},
        strategy="mirrored",
        verbose=0,
    )
    assert metrics["dataset"]["shape"] == [9, 8, 3]
    assert metrics["calibration"] is None
    assert saving.load_model(tmp_path / "run").input_shape == (None, 9, 8, 3)


def test_scikit_learns_digits(tmp_path):
    """Real pictures that a package brings along: 1,797 handwritten digits of 8x8."""
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn: real digits")
    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", x=images, y=digits.target)
    data = dataset.load(tmp_path / "digits.npz", validation_split=0.2)
    metrics = run.train(data, tmp_path / "run", changes={"epochs": 6}, augment=False, verbose=0)
    assert metrics["val_accuracy"] > 0.95
    calibrated = metrics["calibration"]
    assert calibrated["error"] < 0.03 < calibrated["error_before"]

import csv
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from asl_fast import DivergenceError, InputError
from asl_fast.data import dataset
from asl_fast.system import device
from asl_fast.training import precision, run
from asl_fast.training.run_folder import resumed, stopped


def train(*arguments, changes, **options):
    """Trains by the course's recipe, in whole batches: fewer programs to compile."""
    changes = {"batch_size": 40} | changes
    return run.train(*arguments, **{"recipe": "course", "verbose": 0, **options}, changes=changes)


def test_a_run_leaves_model_metrics_and_pictures(folder, tmp_path):
    data = dataset.load(folder)
    out = tmp_path / "runs" / "first"
    metrics = train(data, out, changes={"epochs": 2}, seed=3)
    assert {path.name for path in out.iterdir()} == {
        "model.keras",
        "metrics.json",
        "history.csv",
        "curves.png",
        "confusion.png",
        "logs",
    }
    assert json.loads((out / "metrics.json").read_text()) == metrics
    with (out / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2"]
    accuracies = [float(row["val_accuracy"]) for row in history]
    assert metrics["val_accuracy"] == accuracies[-1]
    assert metrics["best_val_accuracy"] == max(accuracies)
    assert metrics["recipe"]["name"] == "course"
    assert metrics["recipe"]["batch_size"] == 40
    assert metrics["precision"] == precision.choose().value
    for name in ("curves.png", "confusion.png"):
        assert np.asarray(Image.open(out / name)).std() > 5
    assert list((out / "logs" / "train").glob("events*"))
    assert list((out / "logs" / "validation").glob("events*"))

    # The model is plain Keras, compiled, and gives the accuracy stated.
    program = f"""
import sys
import keras, numpy as np
model = keras.saving.load_model({str(out / "model.keras")!r})
x = np.load({str(tmp_path / "x.npy")!r}) / 255
loss, accuracy = model.evaluate(x, np.load({str(tmp_path / "y.npy")!r}), verbose=0)
assert "asl_fast" not in sys.modules
print(accuracy)
"""
    np.save(tmp_path / "x.npy", data.valid.images)
    np.save(tmp_path / "y.npy", np.eye(24)[data.valid.labels])
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert float(printed) == pytest.approx(metrics["val_accuracy"], abs=1e-6)

    with pytest.raises(InputError, match="holds a finished run already"):
        train(data, out, changes={"epochs": 1})
    # The same command again, as a scheduler gives it that killed the first one at its end.
    assert not (out / "checkpoints").exists()
    (out / "checkpoints").mkdir()
    before = (out / "model.keras").stat().st_mtime_ns
    assert train(data, out, resume=True, changes={"epochs": 2}, seed=3) == metrics
    assert (out / "model.keras").stat().st_mtime_ns == before
    assert not (out / "checkpoints").exists()
    with pytest.raises(InputError, match="begun with another seed: 3, and now it is 0"):
        train(data, out, resume=True, changes={"epochs": 2})
    other = data._replace(valid=data.valid._replace(sha256="other"))
    with pytest.raises(InputError, match="begun with another valid file"):
        train(other, out, resume=True, changes={"epochs": 2}, seed=3)
    place, settings = resumed(out, {"folder": None}, {"changes": {}, "seed": 5}, given=set())
    assert (place["folder"], settings["seed"]) == (str(folder), 3)
    assert settings["changes"] == metrics["settings"]["changes"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(folder, tmp_path, policy):
    metrics = train(
        dataset.load(folder),
        tmp_path / "run",
        changes={"epochs": 1},
        precision=policy,
    )
    assert metrics["precision"] == policy
    saved = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert saved.layers[0].dtype_policy.name == policy
    scaled = isinstance(saved.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_no_half_file(folder, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(dataset.load(folder), out, changes={"epochs": 2}, callbacks=[Stop()])
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "logs", "model.keras"]
    assert not list(out.rglob("*.partial*"))


def test_a_resumed_run_keeps_its_precision(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_measured", lambda: 2.0)
    data, changes = dataset.load(folder), {"epochs": 2}
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", changes=changes, callbacks=[Stop()])
    monkeypatch.setattr(precision, "_measured", lambda: 1.0)
    metrics = train(data, tmp_path / "run", changes=changes, resume=True)
    assert metrics["precision"] == "mixed_bfloat16"
    # Where several machines must agree, none is measured.
    assert precision.choose(alone=False).value == "float32"


def test_a_resumed_run_ends_as_one_never_stopped(folder, tmp_path):
    class StopWithin(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations > 4:
                raise KeyboardInterrupt

    data = dataset.load(folder)
    arguments = {"changes": {"epochs": 3}, "checkpoint_seconds": 0}
    whole = train(data, tmp_path / "whole", **arguments)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(data, out, callbacks=[StopWithin()], **arguments)
    assert stopped(out)["changes"] == {"epochs": 3, "batch_size": 40}

    with pytest.raises(InputError, match="holds a run that was stopped.*--resume"):
        train(data, out, **arguments)
    with pytest.raises(InputError, match="begun with another epochs: 3, and now it is 4"):
        train(data, out, resume=True, changes={"epochs": 4})
    other = data._replace(train=data.train._replace(sha256="0" * 64))
    with pytest.raises(InputError, match=rf"train file .*: {data.train.sha256}.*{'0' * 64}"):
        train(other, out, resume=True, **arguments)

    metrics = train(data, out, resume=True, **arguments)
    models = [keras.saving.load_model(path / "model.keras") for path in (out, tmp_path / "whole")]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    assert metrics["val_accuracy"] == whole["val_accuracy"]
    histories = [(path / "history.csv").read_text() for path in (out, tmp_path / "whole")]
    one, other = ([line.rsplit(",", 1)[0] for line in text.splitlines()] for text in histories)
    assert one == other
    assert stopped(out) is None


def test_a_loss_that_is_no_number_leaves_the_last_good_model(folder, tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.layers[-1].kernel.assign(self.model.layers[-1].kernel * np.nan)

    with pytest.raises(DivergenceError, match="after step 1 of 3 in epoch 2.*it was 0.001"):
        train(
            dataset.load(folder),
            tmp_path / "run",
            changes={"epochs": 3},
            callbacks=[Spoil()],
        )
    saved = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert all(np.isfinite(weights).all() for weights in saved.get_weights())
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"changes": {"batch_size": 121}}, "has 120 rows, fewer than a batch of 121"),
        (
            {"changes": {"batch_size": 0}},
            "batch size must be a whole number, at least 1. Received: 0",
        ),
        ({"changes": {"epochs": 0}}, "epochs must be a whole number, at least 1. Received: 0"),
        ({"seed": -1, "changes": {}}, "seed must be in"),
    ],
)
def test_wrong_numbers_write_nothing(folder, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        train(dataset.load(folder), tmp_path / "run", verbose=0, **arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_finished_but_for_its_files_is_completed(folder, tmp_path, monkeypatch):
    """Its pictures show the trained network, though no epoch is left to train."""
    data, arguments = dataset.load(folder), {"changes": {"epochs": 4, "batch_size": 8}}
    train(data, tmp_path / "whole", **arguments)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.figures, "curves", stop)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", **arguments)
    train(data, tmp_path / "run", resume=True, **arguments)
    whole, after = (Image.open(tmp_path / out / "confusion.png") for out in ("whole", "run"))
    np.testing.assert_array_equal(np.asarray(after), np.asarray(whole))


def test_resident_on_is_insisted_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "accelerator", lambda: "/CPU:0")
    monkeypatch.setattr(device, "memory", lambda: 1000)
    with pytest.raises(InputError, match="`resident` can't be True: the data take 0.1 MB"):
        train(dataset.load(folder), tmp_path / "run", resident="on", changes={})


def test_a_resumed_run_takes_the_options_that_are_not_given_again(tmp_path):
    settings = {"recipe": "fast", "changes": {"epochs": 9}, "augment": True, "seed": 0}
    settings |= {"precision": "auto", "jit": "auto", "resident": "auto"}
    settings |= {"steps_per_execution": None, "deterministic": False, "damaged": "stop"}
    data = {"folder": None, "train": None, "valid": None, "image_size": None}
    assert resumed(tmp_path, data, settings, given=set()) == (data, settings)

    place = {"train": "a.csv", "valid": "b.csv", "image_size": [3, 4]}
    begun = settings | {"recipe": "best", "seed": 7, "augment": False, "data": place}
    begun |= {"network": "MobileNetV2", "weights": None, "frozen": False}
    begun["changes"] = {"epochs": 8, "batch_size": 40}
    path = tmp_path / "checkpoints" / "settings.json"
    path.parent.mkdir()
    path.write_text(json.dumps(begun))
    expected = settings | {"recipe": "best", "seed": 0, "augment": False}
    expected["changes"] = {"epochs": 9, "batch_size": 40}
    files_and_settings = resumed(tmp_path, data, settings, given={"epochs", "seed"})
    assert files_and_settings == (data | place, expected)
    del begun["damaged"]  # as earlier versions wrote it
    path.write_text(json.dumps(begun))
    assert resumed(tmp_path, data, settings, given={"epochs", "seed"}) == files_and_settings

    moved = data | {"folder": "elsewhere"}
    there = moved | {"image_size": [3, 4]}
    assert resumed(tmp_path, moved, settings, given={"folder"})[0] == there

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from asl_fast import Checkpoints, build_cnn
from asl_fast.data import dataset
from asl_fast.data import synthetic_hands as hands
from asl_fast.data.convert import convert
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.models import saving
from asl_fast.training import run, run_folder
from asl_fast.training.run_folder import RunSettings
from tests import forked
from tests.samples import blobs, write_csv

METRICS = {"val_accuracy": 0.25, "best_val_accuracy": 0.5, "train_seconds": 60.0}
METRICS |= {"images_per_second": 1234.0, "devices": 2, "device": "GPU [1]", "precision": "float32"}


@pytest.fixture
def calls(monkeypatch):
    """The arguments of the trainings, of which none takes place."""
    calls = []

    def train(dataset, out, **settings):
        calls.append({"rows": dataset.train.rows, "out": out} | settings)
        return METRICS

    monkeypatch.setattr(run, "train", train)
    return calls


def test_every_option_reaches_the_run(asl_fast_here, calls, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"epochs": 7, "batch_size": 9, "optimizer": "sgd", "learning_rate": 0.5}
    changes |= {"schedule": "constant", "warm_up": 0.25, "weight_decay": 0.125}
    changes |= {"label_smoothing": 0.75, "batch_norm_momentum": 0.875, "calibration": 0.25}
    settings = {"recipe": "best", "seed": 3, "precision": "float32", "jit": "off"}
    settings |= {"resident": "on", "steps_per_execution": 4, "strategy": "none"}
    settings |= {"checkpoint_seconds": 5.0, "out": Path("x[/b] :cat:"), "damaged": "skip"}
    settings |= {"network": "MobileNetV2", "weights": "imagenet"}
    options = [
        text
        for name, value in {**changes, **settings}.items()
        for text in (f"--{name.replace('_', '-')}", value)
    ]
    flags = ["--no-augment", "--deterministic", "--resume", "--data", folder, "--frozen"]
    result = asl_fast_here("train", *options, *flags)
    assert result.returncode == 0, result.stderr
    expected = {"rows": 120, "changes": changes, "augment": False, "deterministic": True}
    expected["frozen"] = True
    assert calls == [{**settings, **expected, "resume": True, "verbose": 2}]
    for words in ("0.2500", "0.5000", "60 s", "1,234", "2 × GPU [1], float32", "x[/b] :cat:/"):
        assert words in result.stdout


def test_train_then_evaluate(asl_fast, asl_fast_here, folder, tmp_path):
    out = tmp_path / "run"
    options = ["--recipe", "course", "--epochs", 1, "--batch-size", 40, "--out", out]
    trained = asl_fast("train", "--data", folder, *options)
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert f"{metrics['val_accuracy']:.4f}" in trained.stdout
    # Two lines name the data; TensorFlow's own are held back.
    train, valid = trained.stderr.splitlines()
    assert train == f"train: {folder}/sign_mnist_train.csv, 120 rows, course labels"
    assert valid == f"valid: {folder}/sign_mnist_valid.csv, 48 rows, course labels"
    printed = asl_fast_here("evaluate", out, "--data", folder, "--json").stdout
    result = json.loads(printed)
    assert result["accuracy"] == pytest.approx(metrics["val_accuracy"], abs=1e-6)
    recalls = [letter["recall"] for letter in result["letters"].values()]
    assert np.nanmean(np.array(recalls, float)) == pytest.approx(result["accuracy"])
    table = asl_fast_here("evaluate", out, "--data", folder, "--mirrored").stdout
    assert "of 48, mirror images averaged in" in table


@pytest.mark.parametrize(("number", "shell"), [(signal.SIGINT, ""), (signal.SIGTERM, "&")])
def test_a_signal_stops_a_run_that_can_then_be_resumed(
    asl_fast_here, folder, tmp_path, monkeypatch, number, shell
):
    out = tmp_path / "run"
    options = ["--recipe", "course", "--data", folder, "--epochs", 60, "--batch-size", 8]
    options += ["--seed", 5, "--out", out]
    begin = forked.in_background if shell == "&" else forked.command_line
    process = forked.start(tmp_path / "log", begin, "train", *options)
    while not list(out.glob("checkpoints/*.checkpoint")):
        assert process.is_alive(), (tmp_path / "log").read_text()
        time.sleep(0.05)
    if shell == "&":
        os.kill(process.pid, signal.SIGINT)  # which is ignored
    os.kill(process.pid, number)
    process.join()
    log = (tmp_path / "log").read_text()
    assert process.exitcode == 128 + number, log
    assert f"Stopped. Resume with: asl-fast train --resume --out {out}" in log
    if shell == "&":
        return

    def train(dataset, out, **settings):
        assert (dataset.train.rows, settings["recipe"], settings["seed"]) == (120, "course", 5)
        assert settings["changes"] == {"epochs": 60, "batch_size": 8}
        raise SystemExit(143)  # as the library does at SIGTERM

    monkeypatch.setattr(run, "train", train)
    resumed = asl_fast_here("train", "--resume", "--out", out)
    assert resumed.returncode == 143, resumed.stderr
    assert "Stopped. Resume with:" in resumed.stderr


def test_a_resumed_run_leaves_out_damaged_records_again(asl_fast_here, calls, folder, tmp_path):
    for name in ("train", "valid"):
        convert(folder / f"sign_mnist_{name}.csv", tmp_path / "records" / name, workers=1)
        shard = next((tmp_path / "records" / name).glob("*.tfrecord"))
        content = bytearray(shard.read_bytes())
        content[40] ^= 1
        shard.write_bytes(content)
    data = dataset.load(tmp_path / "records", damaged="skip")
    changes = {"epochs": 2, "batch_size": 40}
    chosen = RunSettings(data.place, recipe="course", changes=changes, damaged="skip")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 30, {})
    with run_folder.opened(tmp_path / "run", checkpoints, chosen, resume=False):
        pass
    resumed = asl_fast_here("train", "--resume", "--out", tmp_path / "run")
    assert resumed.returncode == 0, resumed.stderr
    assert (calls[0]["rows"], calls[0]["damaged"]) == (119, "skip")
    # What the finished run was measured on is read as it was, too.
    facts = {"dataset": data.describe(), "settings": {"damaged": "skip"}}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(facts))
    saving.save_model(build_cnn(), tmp_path / "run" / "model.keras", LETTERS)
    measured = asl_fast_here("evaluate", tmp_path / "run", "--json")
    assert json.loads(measured.stdout)["rows"] == 47


def test_the_built_in_set_is_named_once_with_what_to_do(asl_fast_here, calls, monkeypatch):
    monkeypatch.setattr(hands, "TRAIN_ROWS", 50)
    monkeypatch.setattr(hands, "VALID_ROWS", 30)
    result = asl_fast_here("train")
    assert result.stderr.count("These are drawn hands, not photographs") == 1
    assert "Pass --data FOLDER to use some; asl-fast data fetch downloads" in result.stderr
    assert "built-in rendered hands, 50 rows" in result.stderr
    assert str(calls[0]["out"]).endswith("-fast")


MISTAKES = {
    "a missing folder": (["--data", "nowhere"], "There is no file or folder nowhere"),
    "a value out of range, before data are read": (
        ["--data", "nowhere", "--label-smoothing", "1"],
        "The label smoothing must be at least 0 and below 1. Received: 1.0.",
    ),
    "half a pair": (["--train", "a.csv"], "give both"),
    "a broken table": (["--train", "broken.csv", "--valid", "broken.csv"], "broken.csv, row 2, "),
    "an unwritable folder": (["--data", "data", "--out", "file/run"], "file/run can't be written"),
    "fewer rows than a batch": (["--data", "data", "--batch-size", "999"], "fewer than a batch"),
    "no run to resume": (["--data", "data", "--resume"], "--resume needs --out"),
    "no steps": (
        ["--data", "data", "--steps-per-execution", "0"],
        "steps per execution must be at least 1",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_exit_code_2(
    asl_fast_here, folder, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    images, labels = blobs(48)
    (tmp_path / "file").touch()
    text = write_csv(tmp_path / "broken.csv", images, labels).read_text().split("\n")
    text[2] = text[2].replace(",", ",x", 1)
    (tmp_path / "broken.csv").write_text("\n".join(text))
    before = set(tmp_path.rglob("*"))
    result = asl_fast_here("train", "--recipe", "course", "--epochs", 1, *arguments)
    assert result.returncode == 2
    (error,) = [line for line in result.stderr.split("\n") if line.startswith("asl-fast: ")]
    assert message in error
    assert set(tmp_path.rglob("*")) == before

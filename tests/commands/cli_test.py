import json
import os
import re
import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from asl_fast import load_csv
from asl_fast.commands import cli
from asl_fast.data import synthetic_hands as hands
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.models import saving
from asl_fast.training import precision
from tests import forked
from tests.samples import blobs, png_header, write_csv


def one_line(text):
    (line,) = text.strip().splitlines()
    return line


def test_help_is_quick_and_loads_no_tensorflow(asl_fast):
    asl_fast("--help")
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        result = asl_fast("--help", PYTHONPROFILEIMPORTTIME="1")
        times.append(time.perf_counter() - begin)
    assert all(command in result.stdout for command in ("train", "preview", "evaluate", "data"))
    assert not re.search(r"\b(tensorflow|keras|pandas|numpy)\b", result.stderr)
    assert min(times) < 0.7


def test_train_then_evaluate(asl_fast, asl_fast_here, folder, tmp_path):
    out = tmp_path / "run"
    options = ["--resident", "on", "--steps-per-execution", 3, "--deterministic"]
    options += ["--precision", "float32"]  # so that probabilities have digits to compare
    trained = asl_fast(
        "train", "--data", folder, "--epochs", 1, "--batch-size", 40, "--out", out, *options
    )
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert f"{metrics['val_accuracy']:.4f}" in trained.stdout
    assert (metrics["resident"], metrics["deterministic"]) == ("on", True)
    # Two lines say what was read; of TensorFlow's own there are none.
    assert [line.split(":")[0] for line in trained.stderr.split("\n") if line.strip()] == [
        "train",
        "valid",
    ]
    assert "120 rows, course labels" in trained.stderr
    evaluated = asl_fast_here("evaluate", out, "--data", folder, "--json")
    result = json.loads(evaluated.stdout)
    assert result["accuracy"] == pytest.approx(metrics["val_accuracy"], abs=1e-6)
    assert result["rows"] == 48
    assert result["right"] == round(result["accuracy"] * 48)
    recalls = [letter["recall"] for letter in result["letters"].values()]
    assert np.nanmean(np.array(recalls, float)) == pytest.approx(result["accuracy"])

    mirrored = asl_fast_here("evaluate", out, "--data", folder, "--mirrored")
    images, labels = load_csv(folder / "sign_mnist_valid.csv")
    model = keras.saving.load_model(out / "model.keras")
    both = [model(side / np.float32(255)) for side in (images, images[:, :, ::-1])]
    right = np.count_nonzero(np.argmax(both[0] + both[1], axis=1) == labels)
    assert f"{right} of 48, mirror images averaged in" in mirrored.stdout

    # The letters came with the model.
    (tmp_path / "photos").mkdir()
    for number in (0, 1):
        image = Image.fromarray(images[number, ..., 0])
        image.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "2.png").write_text("no image")
    standard_input = (tmp_path / "photos" / "1.png").read_bytes()
    predicted = asl_fast("predict", out, tmp_path / "photos", "-", "--json", given=standard_input)
    assert predicted.returncode == 1
    assert one_line(predicted.stderr) == (
        f"asl-fast: {tmp_path}/photos/2.png is no image that can be read: not JPEG, PNG, WebP, "
        "BMP or GIF."
    )
    found = json.loads(predicted.stdout)
    files = [Path(one["file"]).name for one in found]
    assert files == ["0.png", "1.png", "-"]
    expected = np.asarray(both[0])[[0, 1, 1]]
    assert [one["letter"] for one in found] == [LETTERS[best] for best in expected.argmax(axis=1)]
    assert [one["probability"] for one in found] == pytest.approx(expected.max(axis=1), rel=1e-4)
    assert [len(one["top"]) for one in found] == [3, 3, 3]


def test_predict_takes_names_that_are_no_text_and_keeps_pillow_quiet(asl_fast_here, tmp_path):
    layers = [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    saving.save_model(keras.Sequential(layers), tmp_path / "model.keras", "AB")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("L", (30, 30)).save(photos / os.fsdecode(b"a\xfe.png"))
    (photos / "large.png").write_bytes(png_header(12000, 9000))
    for form in ("--csv", "--json", "--verbose"):
        told = asl_fast_here("predict", tmp_path / "model.keras", photos, form)
        assert told.returncode == 1
        assert f"{photos}/a\\udcfe.png" in told.stdout
        assert one_line(told.stderr) == (
            f"asl-fast: {photos}/large.png has 12,000 × 9,000 pixels; the limit is 89 million. "
            "Make it smaller first."
        )


def test_signals_stop_a_run_that_can_then_go_on(folder, tmp_path):
    out = tmp_path / "run"
    command = ["train", "--resume", "--out", out]
    options = ["--recipe", "course"]  # whose step is soon traced
    options += ["--data", folder, "--epochs", 60, "--batch-size", 8, "--seed", 5]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        log = tmp_path / f"{code}.log"
        process = forked.start(log, forked.command_line, *command, *options)
        known = {path.name for path in out.glob("checkpoints/*.checkpoint")}
        deadline = time.monotonic() + 60
        while known >= {path.name for path in out.glob("checkpoints/*.checkpoint")}:
            assert process.is_alive(), log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == code, log.read_text()
        assert f"Go on with: asl-fast train --resume --out {out}" in log.read_text()
        options = []  # as they were
    settings = json.loads((out / "checkpoints" / "settings.json").read_text())
    assert (settings["recipe"], settings["seed"]) == ("course", 5)
    assert settings["changes"] == {"epochs": 60, "batch_size": 8}


def test_preview_writes_a_picture(asl_fast_here, folder, tmp_path):
    out = tmp_path / "new" / "preview.png"
    result = asl_fast_here("preview", "--data", folder, "--out", out)
    assert result.returncode == 0, result.stderr
    picture = np.asarray(Image.open(out).convert("L"), float)
    left, right = np.array_split(picture[:, : picture.shape[1] // 2 * 2], 2, axis=1)
    assert left.std() > 20
    assert np.abs(left - right).mean() > 2


def test_data_info_tells_what_would_be_used(asl_fast, folder):
    result = asl_fast("data", "info", ASL_FAST_DATA=str(folder))
    assert json.loads(result.stdout)["train"]["rows"] == 120


@pytest.fixture
def few_hands(monkeypatch):
    monkeypatch.setattr(hands, "TRAIN_ROWS", 50)
    monkeypatch.setattr(hands, "VALID_ROWS", 30)


def test_data_render_writes_what_the_course_reads(tmp_path, few_hands):
    result = CliRunner().invoke(cli.app, ["data", "render", "--to", str(tmp_path / "drawn")])
    assert result.exit_code == 0, result.output
    for name, rows in (("train", 50), ("valid", 30)):
        images, labels = load_csv(tmp_path / "drawn" / f"sign_mnist_{name}.csv")
        expected = hands.render(rows, split=name, workers=1)
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


MISTAKES = {
    "a missing folder": (["--data", "nowhere"], "There is no folder nowhere"),
    "a flag out of range, before data are looked for": (
        ["--data", "nowhere", "--label-smoothing", "1"],
        "The label smoothing must be at least 0 and below 1. Received: 1.0.",
    ),
    "half a pair": (["--train", "a.csv"], "give both"),
    "a broken table": (["--train", "broken.csv", "--valid", "broken.csv"], "broken.csv, row 2, "),
    "an unwritable folder": (["--data", "data", "--out", "file/run"], "file/run can't be written"),
    "fewer rows than a batch": (["--data", "data", "--batch-size", "999"], "fewer than a batch"),
    "nothing to go on with": (["--data", "data", "--resume"], "--resume needs --out"),
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
    errors = [line for line in result.stderr.split("\n") if line.startswith("asl-fast: ")]
    assert message in one_line("\n".join(errors))
    assert set(tmp_path.rglob("*")) == before


def test_a_file_that_is_no_model_is_named(asl_fast, folder, tmp_path):
    """In a process of its own, with all that TensorFlow writes while it starts."""
    (tmp_path / "model.keras").write_text("no model")
    result = asl_fast("evaluate", tmp_path / "model.keras", "--data", folder)
    assert result.returncode == 2
    assert "model.keras can't be loaded as a Keras model" in result.stderr
    assert "Traceback" not in result.stderr


def test_whoever_gets_the_built_in_set_is_told(asl_fast_here, few_hands):
    result = asl_fast_here("train", "--batch-size", 51)  # refused after the data are there
    assert "drawn hands, not photographs" in " ".join(result.stderr.split())
    assert "built-in rendered hands, 50 rows" in result.stderr


def test_doctor_tells_of_the_machine(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    shown = CliRunner().invoke(cli.app, ["doctor", "--verbose"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for words in (
        "trains on",
        "NVIDIA driver",
        "the CPU has no instructions for bfloat16",
        "XLA's convolutions are slow on CPUs",
        "the data take 24.2 MB",
        "cached data",
        "of a step",
        "none of the step's operations",
    ):
        assert words in shown.output


def test_doctor_names_what_of_a_model_no_gpu_does(asl_fast_here, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    turning = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.RandomRotation(0.1),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    turning.save(tmp_path / "turning.keras")
    result = asl_fast_here("doctor", tmp_path / "turning.keras", "--json")
    assert result.returncode == 1, result.stderr
    told = json.loads(result.stdout)
    assert told["jit"] == {
        "value": False,
        "why": "`RandomRotation` in your model has supports_jit=False",
    }
    found = {finding["op"]: finding for finding in told["operations"]["found"]}
    assert found["ImageProjectiveTransformV3"]["problem"] == "has no kernel for GPUs"
    assert told["memory_needed"]["data"] == 27455 * (784 + 5 * 4)
    # 785 rows of five weights: each with a gradient and two values of the optimizer's.
    assert told["memory_needed"]["weights"] >= 4 * 4 * 785 * 5


def test_doctor_refuses_what_is_no_model_of_images(asl_fast_here, tmp_path):
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    model.save(tmp_path / "other.keras")
    for path, message in (
        ("nowhere.keras", "There is no model"),
        ("other.keras", "input must be"),
    ):
        result = asl_fast_here("doctor", tmp_path / path)
        assert result.returncode == 2
        assert message in one_line(result.stderr)

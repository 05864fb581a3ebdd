import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from asl_fast import RECIPES
from tests import forked
from tests.samples import blobs, write_csv

SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_the_course_baseline_trains_and_tells(folder):
    result = subprocess.run(
        [sys.executable, SCRIPTS / "course_baseline.py", "--data", folder, "--epochs", "2"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    assert len(told["val_accuracy"]) == told["epochs"] == 2
    assert told["images_per_second"] > 0


def test_the_report_of_a_machine(folder, tmp_path):
    """In its smallest form; on a CPU it says that it is one."""
    write_csv(folder / "sign_mnist_train.csv", *blobs(144))  # as the fast recipe's batch holds 128
    result = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.gpu_report"),
            *("--data", folder, "--out", tmp_path / "report", "--small"),
        ],
        capture_output=True,
        text=True,
        cwd=SCRIPTS.parent,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    told = json.loads((tmp_path / "report" / "gpu_report.json").read_text())
    assert told["machine"]["operations"]["found"] == []
    assert told["dataset"]["train"]["rows"] == 144
    cells = {cell["group"]: cell["samples"] for cell in told["cells"]}
    assert cells["augmentation"]["our layer"][0] > cells["augmentation"]["Keras's generator"][0]
    assert cells["accelerator"]["Keras's generator"] > cells["accelerator"]["our step, resident"]
    assert {row["recipe"] for row in told["training"]} == set(RECIPES)
    assert all(row["images_per_second"] > 0 for row in told["training"])
    text = (tmp_path / "report" / "gpu_report.md").read_text()
    assert ("There is no GPU here" in text) == (not told["machine"]["gpus"])
    for row in told["training"]:
        assert f"| {row['images_per_second']:,.0f} |" in text


def test_the_report_refuses_a_missing_folder(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_report", "--data", "nowhere", "--out", tmp_path],
        capture_output=True,
        text=True,
        cwd=SCRIPTS.parent,
        timeout=300,
    )
    assert result.returncode == 2
    assert "gpu_report: There is no folder nowhere" in result.stderr
    assert not list(tmp_path.iterdir())


def tutorial(out):
    sys.argv = ["tutorial.py", "--quick", "--out", str(out)]
    runpy.run_path(str(SCRIPTS / "tutorial.py"), run_name="__main__")


def test_the_tutorial_runs_and_leaves_its_pictures(folder, tmp_path):
    out, log = tmp_path / "pictures", tmp_path / "log"
    process = forked.start(log, tutorial, out, ASL_FAST_DATA=str(folder), MPLBACKEND="agg")
    process.join()
    assert process.exitcode == 0, log.read_text()
    pictures = sorted(out.glob("*.png"))
    assert [picture.name[0] for picture in pictures] == list("1234567")
    for picture in pictures:
        assert np.asarray(Image.open(picture).convert("L"), float).std() > 5
    assert "CSV files: 120 images to train on, 48 to validate on" in log.read_text()


def test_each_cell_of_the_tutorial_stands_alone():
    """So that it opens as a notebook, in the percent format."""
    first, *cells = (SCRIPTS / "tutorial.py").read_text().split("\n# %%")
    assert first.startswith("# %% [markdown]\n# # ")
    for cell in cells:
        kind, body = cell.split("\n", 1)
        if kind == " [markdown]":
            assert all(line.startswith("#") for line in body.split("\n") if line.strip())
        else:
            assert kind == ""
            compile(body, "cell", "exec")

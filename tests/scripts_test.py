import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asl_fast import RECIPES
from asl_fast.training import precision
from benchmarks import gpu_report
from tests import forked
from tests.samples import blobs, write_csv

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(path, *arguments):
    """Runs a script, in a process of its own."""
    sys.argv = [str(path), *map(str, arguments)]
    runpy.run_path(str(SCRIPTS / path), run_name="__main__")


def ended(log, function, *arguments, **environment):
    """Waits for the end of a process and returns its exit code and what it wrote."""
    process = forked.start(log, function, *arguments, **environment)
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode, log.read_text()


def test_the_course_baseline_trains_and_tells(folder, tmp_path):
    arguments = ("course_baseline.py", "--data", folder, "--epochs", 2)
    code, text = ended(tmp_path / "log", script, *arguments)
    assert code == 0, text
    told = json.loads(text.splitlines()[-1])
    assert len(told["val_accuracy"]) == told["epochs"] == 2
    assert told["images_per_second"] > 0


def machine_report(*arguments):
    precision.has_bfloat16 = lambda: False  # measuring it takes a while
    sys.argv = ["gpu_report.py", *map(str, arguments)]
    gpu_report.main()


def test_the_report_of_a_machine(folder, tmp_path):
    """In its smallest form; on a CPU it says that it is one."""
    write_csv(folder / "sign_mnist_train.csv", *blobs(128))  # a batch of the fast recipe
    arguments = ("--data", folder, "--out", tmp_path / "report", "--small")
    code, said = ended(tmp_path / "log", machine_report, *arguments)
    assert code == 0, said
    told = json.loads((tmp_path / "report" / "gpu_report.json").read_text())
    assert told["machine"]["operations"]["found"] == []
    assert told["dataset"]["train"]["rows"] == 128
    cells = {cell["group"]: cell["samples"] for cell in told["cells"]}
    assert cells["augmentation"]["our layer"][0] > cells["augmentation"]["Keras's generator"][0]
    assert cells["accelerator"]["Keras's generator"] > cells["accelerator"]["our step, resident"]
    # The step of `best` is that of `fast`.
    assert [row["recipe"] for row in told["training"]] == ["course", "fast"]
    assert all(row["images_per_second"] > 0 for row in told["training"])
    text = (tmp_path / "report" / "gpu_report.md").read_text()
    assert ("There is no GPU here" in text) == (not told["machine"]["gpus"])
    for row in told["training"]:
        assert f"| {row['images_per_second']:,.0f} |" in text


def test_the_report_trains_each_recipe_and_each_step_in_every_way():
    found = list(gpu_report.planned(small=False))
    whole = [("auto", "auto", None), ("off", "auto", 3), ("auto", "float32", 3)]
    assert {name for name, *_ in found} == set(RECIPES)
    for name in ("course", "fast"):
        assert [tuple(how) for recipe, *how in found if recipe == name] == whole
    # Its step is that of `fast`.
    assert [tuple(how) for recipe, *how in found if recipe == "best"] == whole[:1]


def test_the_report_refuses_a_missing_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "--data", "nowhere", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        gpu_report.main()
    assert "gpu_report: There is no folder nowhere" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_tutorial_runs_and_leaves_its_pictures(folder, tmp_path):
    write_csv(folder / "sign_mnist_train.csv", *blobs(96))  # whole batches: fewer programs
    out = tmp_path / "pictures"
    arguments = ("tutorial.py", "--quick", "--out", out)
    environment = {"ASL_FAST_DATA": str(folder), "MPLBACKEND": "agg"}
    code, text = ended(tmp_path / "log", script, *arguments, **environment)
    assert code == 0, text
    pictures = sorted(out.glob("*.png"))
    assert [picture.name[0] for picture in pictures] == list("1234567")
    for picture in pictures:
        assert np.asarray(Image.open(picture).convert("L"), float).std() > 5
    assert "CSV files: 96 images to train on, 48 to validate on" in text


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

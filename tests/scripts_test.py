import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from PIL import Image

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


def test_the_audit_reports_and_does_not_fail(tmp_path, capsys):
    program = tmp_path / "pip-audit"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != --requirement ]; do shift; done; cat "$2"; exit 1\n'
    )
    program.chmod(0o755)
    script("audit.py", program)
    told = capsys.readouterr().out
    assert f"keras=={keras.__version__}\n" in told
    assert "asl-fast[demo]: " in told
    script("audit.py", tmp_path / "nothing")
    assert "Not looked up: [Errno 2]" in capsys.readouterr().out


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


def test_a_python_that_is_none_is_named_in_one_line():
    environment = os.environ | {"PYTHON": "/nope"}
    ended = subprocess.run([SCRIPTS / "train"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("PYTHON=/nope is no Python 3.11, 3.12 or 3.13. Set PYTHON to the path")


def test_the_install_script_ends_by_saying_how_to_call_the_command(tmp_path):
    """On a clone that is installed already, whose environment is this one's."""
    for name in ("scripts", "pyproject.toml"):
        (tmp_path / name).symlink_to(SCRIPTS.parent / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    project = (SCRIPTS.parent / "pyproject.toml").read_bytes()
    checksum = subprocess.run(["cksum"], input=project, capture_output=True).stdout.decode().strip()
    (tmp_path / ".venv" / "installed-plain").write_text(checksum)
    (tmp_path / ".venv" / "installed-gpu").write_text(checksum)
    script = tmp_path / "scripts" / "install"
    ended = subprocess.run([script], capture_output=True, text=True, check=True)
    command = f"{tmp_path}/.venv/bin/asl-fast"
    assert ended.stderr.splitlines()[-1].startswith(f"Call it as {command}, or first: source ")

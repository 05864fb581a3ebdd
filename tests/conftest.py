import os
import subprocess
import sys
from pathlib import Path

# Before TensorFlow is imported anywhere.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

import pytest
from rich.console import Console

from asl_fast import cli
from tests.samples import blobs, write_csv


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keeps the user's cache and data folder out of the tests."""
    monkeypatch.setenv("ASL_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ASL_FAST_DATA", raising=False)


_REAL_DATA = os.environ.get("ASL_FAST_DATA")


@pytest.fixture
def real_data():
    """The folder of the real data set, for tests marked `real_data`."""
    if not _REAL_DATA:
        pytest.skip("needs the real data: set ASL_FAST_DATA to its folder")
    return Path(_REAL_DATA).resolve()


@pytest.fixture
def folder(tmp_path):
    """A data folder with small tables."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_csv(folder / "sign_mnist_train.csv", *blobs(120))
    write_csv(folder / "sign_mnist_valid.csv", *blobs(48, seed=1))
    return folder


@pytest.fixture
def asl_fast():
    """Runs the command line in a process of its own."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "asl_fast", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | environment,
            timeout=300,
        )

    return run


@pytest.fixture
def asl_fast_here(monkeypatch, capsys):
    """Runs the command line in this process, which has TensorFlow loaded: seconds less."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["asl-fast", *map(str, arguments)])
        monkeypatch.setattr(cli, "_notes", Console(stderr=True))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return subprocess.CompletedProcess(sys.argv, stop.value.code or 0, *capsys.readouterr())

    return run

import os
import subprocess
import sys
from pathlib import Path

# Before TensorFlow is imported anywhere.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

import pytest

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

    def run(
        *arguments: object, given: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-m", "asl_fast", *map(str, arguments)],
            input=given,
            capture_output=True,
            env=os.environ | environment,
            timeout=300,
        )
        said = ended.stdout.decode(), ended.stderr.decode()
        return subprocess.CompletedProcess(ended.args, ended.returncode, *said)

    return run


@pytest.fixture
def asl_fast_process():
    """Starts the command line in a process that goes on meanwhile."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "asl_fast", *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

# Before TensorFlow is imported anywhere.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
# What tests count as compiled must not come from another test's programs.
os.environ["ASL_FAST_COMPILE_CACHE"] = "off"

# A shell's `&` lets programs ignore SIGINT, and those that they start.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

from asl_fast.commands import cli
from asl_fast.training import precision
from asl_fast.transforms import random_augment
from scripts.local_cluster import free_ports
from tests import forked
from tests.samples import blobs, write_csv


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """A cache folder that holds what this machine's bfloat16 gains, which is measured once."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASL_FAST_CACHE", str(folder))
        precision.choose()
    return folder


@pytest.fixture(autouse=True)
def own_cache(measured, tmp_path_factory, monkeypatch):
    """Keeps the user's cache and data folder out of the tests."""
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(measured, cache, dirs_exist_ok=True)
    monkeypatch.setenv("ASL_FAST_CACHE", str(cache))
    monkeypatch.delenv("ASL_FAST_DATA", raising=False)


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """Compiles every augmentation, however many the tests before had."""
    monkeypatch.setattr(random_augment, "_MOST", 10**6)


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
            timeout=1200,
        )
        said = ended.stdout.decode(), ended.stderr.decode()
        return subprocess.CompletedProcess(ended.args, ended.returncode, *said)

    return run


@pytest.fixture
def asl_fast_here(monkeypatch, capsys):
    """Runs the command line in this process, which has TensorFlow loaded: seconds less."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["asl-fast", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return subprocess.CompletedProcess(sys.argv, stop.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: the machine's, or what `scripts/browser` fetches."""
    sync_api = pytest.importorskip("playwright.sync_api")
    fetched = Path(__file__).parent.parent / ".venv" / "chromium" / "chromium"
    places = (os.environ.get("ASL_FAST_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = [shutil.which(place) for place in (*places, fetched) if place]
    if not any(found):
        pytest.skip(
            "needs a Chromium: install one, or run scripts/browser, which says what it lacks"
        )
    program = next(path for path in found if path)
    with sync_api.sync_playwright() as playwright:
        # Without the sandbox, which root and many containers can't have: the pages are our own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def start_service(tmp_path_factory):
    """Starts a dispatcher and worker, or one more worker, in a process; none outlives the tests."""
    from asl_fast.data import service

    started = []

    def start(port, join=None):
        log = tmp_path_factory.mktemp("service") / "log"
        arguments = (port, 1, "localhost", join, print)
        process = forked.start(log, service.serve, *arguments, PYTHONUNBUFFERED="1")
        started.append(process)
        while (join or f"localhost:{port}") not in (log.read_text() if log.exists() else ""):
            assert process.is_alive(), log.read_text()
            time.sleep(0.05)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def served(start_service):
    """Address of a tf.data service with two workers, each in a process of its own."""
    first, *_, other = sorted(free_ports(4))  # the worker has the port after it
    start_service(first)
    start_service(other, f"localhost:{first}")
    return f"localhost:{first}"

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asl_fast import InputError
from asl_fast.system import storage


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def fail_halfway():
        with storage.replacing(path) as aside:
            aside.write_text("ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    with path.open() as opened_before:
        with storage.replacing(path) as aside:
            aside.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert opened_before.read() == "old"  # renamed over, not written into
    assert list(tmp_path.iterdir()) == [path]


def fail(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("which", [0, 1])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, which):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    rename, calls = Path.rename, []

    def interrupted(*arguments):
        calls.append(arguments)
        return fail() if len(calls) == which + 1 else rename(*arguments)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), storage.replacing_folder(path) as aside:
        (aside / "new").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["model", "old"]
    with storage.replacing_folder(path) as aside:
        (aside / "new").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["model", "new"]


KILLED = """
import os, signal, sys
from pathlib import Path
from asl_fast.system import storage
kind, folder, kill_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
calls = []
def step(wrapped):
    def killing(*arguments):
        calls.append(1)
        if len(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return wrapped(*arguments)
    return killing
Path.rename, Path.replace, os.fsync = map(step, (Path.rename, Path.replace, os.fsync))
if kind == "folder":
    with storage.replacing_folder(folder / "model.x") as aside:
        (aside / "new").touch()
else:
    with storage.replacing(folder / "model.x") as aside:
        aside.touch()
"""


@pytest.mark.parametrize(("kind", "kill_at"), [("folder", k) for k in (1, 2, 3)] + [("file", 1)])
def test_what_a_killed_process_left_is_cleared(tmp_path, kind, kill_at):
    path = tmp_path / "model.x"
    if kind == "folder":
        path.mkdir()
        (path / "old").touch()
    other = tmp_path / f".model.x.{os.getppid()}.partial"  # of a process that runs
    other.mkdir()
    arguments = [sys.executable, "-c", KILLED, kind, tmp_path, str(kill_at)]
    assert subprocess.run(arguments, cwd=Path(__file__).parents[2]).returncode == -9
    assert len(list(tmp_path.iterdir())) > 1 + path.exists()
    with (
        pytest.raises(KeyboardInterrupt),
        (storage.replacing_folder if kind == "folder" else storage.replacing)(path),
    ):
        fail()
    left = {file.name for file in tmp_path.rglob("*")} - {other.name}
    assert left == ({"model.x", "old"} if kind == "folder" else set())


def test_a_file_and_a_folder_of_one_stem_are_replaced_at_once(tmp_path):
    with (
        storage.replacing(tmp_path / "model.x") as file,
        storage.replacing_folder(tmp_path / "model") as folder,
        storage.replacing(tmp_path / "model.y") as other,
    ):
        file.touch()
        other.touch()
        (folder / "part").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.x", "model.y"}


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name, reason in (
        ("pipe", "no regular file"),
        ("link", "no regular file"),
        ("", "directory"),
    ):
        with pytest.raises(OSError, match=reason):
            storage.open_file(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="output folder .*file/run can't be written to"):
        storage.make_folder(tmp_path / "file" / "run")

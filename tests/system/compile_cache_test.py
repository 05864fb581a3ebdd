import os
import subprocess
import sys
import time

import pytest

from asl_fast.system import compile_cache

PROGRAM = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from asl_fast.system import compile_cache
enabled = compile_cache.enable()
import tensorflow as tf
program = tf.function(lambda x: tf.reduce_sum(tf.sin(x @ x)), jit_compile=True)
result = float(program(tf.eye(8)))
own = os.environ.get("TF_XLA_FLAGS", "").rpartition("=")[2]
changed = [path for path in os.scandir(own) if path.stat().st_nlink == 1] if enabled else []
print(enabled, round(result, 4), "compiled" if changed else "loaded" if enabled else "")
"""
RESULT = "6.7318"  # 8 · sin 1


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    monkeypatch.delenv(compile_cache.SWITCH)
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)


def run(folder, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "ASL_FAST_CACHE": str(folder), "TF_XLA_FLAGS": "", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    return lambda: process.communicate(timeout=120)[0].split()


def entries(folder):
    return [path for path in folder.glob("xla/*/*") if not path.name.startswith(".")]


def test_a_program_is_compiled_once_and_a_damaged_one_anew(tmp_path):
    assert run(tmp_path)() == ["True", RESULT, "compiled"]
    [entry] = entries(tmp_path)
    assert entry.parent.stat().st_mode & 0o077 == 0  # the user's alone
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]  # no folder stays
    assert run(tmp_path)() == ["True", RESULT, "loaded"]
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), content[:100], b""):
        entry.write_bytes(damaged)
    both = [run(tmp_path), run(tmp_path)]  # two processes at once
    assert [one() for one in both] == [["True", RESULT, "compiled"]] * 2
    assert run(tmp_path)() == ["True", RESULT, "loaded"]


def test_without_a_place_to_write_it_works_without(tmp_path):
    (tmp_path / "xla").write_text("a file where the folder should be")
    assert run(tmp_path)() == ["False", RESULT]
    assert run(tmp_path / "other", ASL_FAST_COMPILE_CACHE="off")() == ["False", RESULT]
    assert not (tmp_path / "other").exists()


def test_the_switch_and_the_users_own_flag_are_heeded(tmp_path, monkeypatch):
    monkeypatch.setenv("ASL_FAST_CACHE", str(tmp_path))
    assert compile_cache.reason_off() is None
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/elsewhere")
    assert "a folder of its own" in compile_cache.reason_off()
    monkeypatch.setenv(compile_cache.SWITCH, "off")
    assert "ASL_FAST_COMPILE_CACHE is off" in compile_cache.reason_off()


def test_a_full_disk_turns_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("ASL_FAST_CACHE", str(tmp_path))
    monkeypatch.setattr(compile_cache, "_ROOM", 1 << 60)
    assert "MiB left" in compile_cache.reason_off()
    assert not compile_cache.enable()


def test_unlike_machines_do_not_share_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("ASL_FAST_CACHE", str(tmp_path))
    here = compile_cache.folder()
    for name in ("_processor", "_gpus"):
        with monkeypatch.context() as patch:
            patch.setattr(compile_cache, name, lambda: ["another"])
            assert compile_cache.folder() != here


def test_a_child_process_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ASL_FAST_CACHE", str(tmp_path))
    parents = f"--tf_xla_persistent_cache_directory={compile_cache.folder()}/.host-1-abc"
    monkeypatch.setenv("TF_XLA_FLAGS", f"--tf_xla_clustering_debug {parents}")
    monkeypatch.setattr(compile_cache.atexit, "register", lambda *arguments: None)
    assert compile_cache.enable()
    flags = os.environ["TF_XLA_FLAGS"]
    assert flags.startswith("--tf_xla_clustering_debug --tf_xla_persistent_cache_directory=")
    assert parents not in flags
    assert not compile_cache.enable()  # once a process
    assert os.environ["TF_XLA_FLAGS"] == flags


@pytest.mark.parametrize("largest", [250, 0])
def test_the_oldest_entries_go_first(tmp_path, monkeypatch, largest):
    monkeypatch.setattr(compile_cache, "_LARGEST", largest)
    paths = [tmp_path / f"{name}.pb.{name * 64}" for name in "abc"]
    for age, path in enumerate(paths):
        path.write_bytes(bytes(100))
        os.utime(path, (time.time() - 100 * age,) * 2)
    compile_cache._shrink(tmp_path)
    assert [path.exists() for path in paths] == ([True, True, False] if largest else [False] * 3)


def test_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("ASL_FAST_CACHE", str(tmp_path))
    shared = compile_cache.folder()
    for name, age in ((".host-1-old", 2), (".host-2-new", 0)):
        (shared / name).mkdir(parents=True)
        os.utime(shared / name, (time.time() - age * 86400,) * 2)
    compile_cache._remove_stale(shared)
    assert [path.name for path in shared.iterdir()] == [".host-2-new"]

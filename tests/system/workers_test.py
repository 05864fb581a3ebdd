import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RENDERING = """
from asl_fast.data import synthetic_hands
synthetic_hands.render(50_000, split="train", workers=2)
"""
# Workers that wait for something else than their parent.
WAITING = """
import time
from asl_fast.system.workers import Workers
with Workers(2) as pool:
    for _ in range(2):
        pool.submit(time.sleep, 600)
"""


def descendants(process):
    """Returns the processes below one, by what Linux tells of each."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    found = {process}
    while new := {one for one, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {process}


def runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("program", [RENDERING, WAITING], ids=["rendering", "waiting"])
def test_no_worker_outlives_its_parent(program, number):
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=os.environ)
    while len(below := descendants(parent.pid)) < 3:  # two workers, and Python's own process
        assert parent.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(parent.pid, number)
    assert parent.wait() == -number
    deadline = time.monotonic() + 60
    while any(map(runs, below)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [process for process in below if runs(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert left == []

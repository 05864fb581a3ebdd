"""Peak memory and start-up of each pipeline, in a process of its own.

    python -m benchmarks.groups.processes NAME IMAGES

imports what the contender needs, takes a first batch and then an epoch, and prints one JSON object.
"""

import importlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.cell import Cell, Say, in_turn

__all__ = ["measure"]

_BATCH = 32
_IMPORTS = {
    "KerasCV": "keras_cv",
    "Albumentations": "albumentations",
    "DALI": "nvidia.dali",
    "our": "asl_fast",
}


def measure(
    names: list[str], *, rows: int, turns: int, skipped: dict[str, str], say: Say
) -> list[Cell]:
    """Measures contenders of `PIPELINE` on `rows` images of 28×28.

    Returns:
        Cells of the peak memory beyond the stored images and the imported packages, and of the
        seconds for importing, for the first batch and for the next one.
    """
    facts: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def sample(name: str) -> float:
        command = [sys.executable, "-m", "benchmarks.groups.processes", name, str(rows)]
        root = Path(__file__).parents[2]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=root)
        if ended.returncode:
            raise RuntimeError(f"{name} failed in its process:\n{ended.stderr[-2000:]}")
        facts[name].append(json.loads(ended.stdout.splitlines()[-1]))
        return 0.0

    about = {"batch": _BATCH, "rows": rows}
    samples = {name: lambda name=name: sample(name) for name in names}
    load = in_turn("memory", about, "MiB", samples, turns=turns, warm_up=0, say=say).load
    cells = []
    for fact, group, unit in (
        ("peak", "memory", "MiB"),
        ("import", "start-up", "s"),
        ("first batch", "start-up", "s"),
        ("next batch", "start-up", "s"),
    ):
        values = {name: [one[fact] for one in measured] for name, measured in facts.items()}
        cells.append(Cell(group, about | {"of": fact}, unit, values, load, skipped))
    return cells


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(name: str, rows: int) -> dict[str, float]:
    begin = time.perf_counter()
    importlib.import_module("keras")
    for start, module in _IMPORTS.items():
        if name.startswith(start):
            importlib.import_module(module)
    imported = time.perf_counter() - begin

    from benchmarks.contenders import PIPELINE, Work
    from benchmarks.contenders.work import noise

    images, _ = noise(rows)
    before = _peak()
    begin = time.perf_counter()
    feed = PIPELINE[name](images, _BATCH, Work())
    feed.batch()
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    feed.batch()
    following = time.perf_counter() - begin
    feed.seconds(rows // _BATCH, 1)
    return {
        "import": imported,
        "first batch": first,
        "next batch": following,
        "peak": _peak() - before,
    }


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], int(sys.argv[2]))))

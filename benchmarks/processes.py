"""Peak memory and start-up of everyone's pipeline, each in a process of its own.

    python -m benchmarks.processes NAME IMAGES

imports what the contender needs, takes a first batch and then a pass, and prints one JSON object.
"""

import importlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cell import Cell, Meter, in_turn

__all__ = ["measure"]

_BATCH = 32
_IMPORTS = {
    "KerasCV": "keras_cv",
    "Albumentations": "albumentations",
    "DALI": "nvidia.dali",
    "our": "asl_fast",
}


def measure(
    names: list[str],
    *,
    rows: int,
    turns: int,
    skipped: dict[str, str],
    meter: Meter,
) -> list[Cell]:
    """Measures everyone in a process of its own, in turn.

    Args:
        names: Of `contenders.PIPELINE`.
        rows: Int, how many images of 28x28 there are, and are taken.
        turns: Int.
        skipped: As the cells'.
        meter: Repeats the turns, and hears of what is being done.

    Returns:
        Cells of the memory that a pipeline takes at most beyond the stored images and the imported
        packages, and of the seconds for importing, for the first and for a further batch.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def sample(name: str) -> float:
        command = [sys.executable, "-m", "benchmarks.processes", name, str(rows)]
        root = Path(__file__).parent.parent
        ended = subprocess.run(command, capture_output=True, text=True, cwd=root)
        if ended.returncode:
            raise RuntimeError(f"{name} failed in its process:\n{ended.stderr[-2000:]}")
        found[name].append(json.loads(ended.stdout.splitlines()[-1]))
        return 0.0

    cell = in_turn(
        "memory",
        {"batch": _BATCH, "rows": rows},
        "MiB",
        {name: lambda name=name: sample(name) for name in names},
        turns=turns,
        warm_up=0,
        skipped=skipped,
        meter=meter,
    )
    cells = []
    for fact, group, unit in (
        ("peak", "memory", "MiB"),
        ("import", "start-up", "s"),
        ("first batch", "start-up", "s"),
        ("next batch", "start-up", "s"),
    ):
        samples = {name: [one[fact] for one in ones] for name, ones in found.items()}
        cells.append(Cell(group, cell.about | {"of": fact}, unit, samples, cell.load, cell.skipped))
    return cells


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(name: str, rows: int) -> dict[str, Any]:
    begin = time.perf_counter()
    importlib.import_module("keras")
    for start, module in _IMPORTS.items():
        if name.startswith(start):
            importlib.import_module(module)
    imported = time.perf_counter() - begin

    import numpy as np

    from benchmarks import contenders

    images = np.random.default_rng(0).integers(0, 256, (rows, 28, 28, 1), np.uint8)
    before = _peak()
    begin = time.perf_counter()
    with contenders.PIPELINE[name](images, _BATCH, contenders.Work()) as feed:
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

"""Seconds to have the course's train table as arrays: ours, first and cached, and pandas alone."""

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import asl_fast
from asl_fast.data import csv_table as table
from benchmarks.cell import Cell, Meter, in_turn, timed

__all__ = ["measure"]


def measure(*, rows: int, turns: int, meter: Meter) -> Cell:
    """Measures reading a CSV file of random images of 28x28.

    Args:
        rows: Int.
        turns: Int.
        meter: Repeats the turns, and hears of what is being done.
    """
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows, 28, 28, 1), np.uint8)
    labels = np.arange(rows, dtype=np.int32) % 24
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        meter.say("writing the table")
        table.write(path, images, labels)

        def pandas() -> float:
            frame = pd.read_csv(path)
            frame.pop("label")
            return frame.to_numpy().reshape(-1, 28, 28, 1)[-1, -1, -1, 0]

        def ours(cache: Path) -> float:
            before = os.environ.get("ASL_FAST_CACHE")
            os.environ["ASL_FAST_CACHE"] = str(cache)
            try:
                found, _ = asl_fast.load_csv(path)
            finally:
                if before is None:
                    del os.environ["ASL_FAST_CACHE"]
                else:
                    os.environ["ASL_FAST_CACHE"] = before
            return np.asarray(found)[-1, -1, -1, 0]

        def first() -> None:
            with tempfile.TemporaryDirectory() as empty:
                ours(Path(empty))

        cache = Path(folder) / "cache"
        ours(cache)
        return in_turn(
            "table",
            {"rows": rows},
            "s",
            {
                "pandas.read_csv": partial(timed, pandas),
                "our load_csv, the first time": partial(timed, first),
                "our load_csv, cached": partial(timed, partial(ours, cache)),
            },
            turns=turns,
            meter=meter,
        )

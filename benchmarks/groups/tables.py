"""Seconds to read the course's training table into arrays: ours, first and cached, and pandas."""

import os
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

import asl_fast
from asl_fast.data import csv_table
from benchmarks.cell import Cell, Say, in_turn, timed
from benchmarks.contenders.work import noise

__all__ = ["measure"]


def measure(*, rows: int, turns: int, say: Say) -> Cell:
    """Measures a CSV file of random images of 28×28."""
    images, _ = noise(rows)
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "train.csv", Path(folder) / "cache"
        say("writing the table")
        csv_table.write(path, images, np.arange(rows, dtype=np.int32) % 24)

        def pandas() -> None:
            frame = pd.read_csv(path)
            frame.pop("label")
            frame.to_numpy().reshape(-1, 28, 28, 1)

        def ours(cache: Path) -> None:
            with mock.patch.dict(os.environ, ASL_FAST_CACHE=str(cache)):
                images, _ = asl_fast.load_csv(path)
            np.asarray(images)[-1, -1, -1, 0]

        def first() -> None:
            with tempfile.TemporaryDirectory() as empty:
                ours(Path(empty))

        ours(cache)
        samples = {
            "pandas.read_csv": partial(timed, pandas),
            "our load_csv, the first time": partial(timed, first),
            "our load_csv, cached": partial(timed, partial(ours, cache)),
        }
        return in_turn("table", {"rows": rows}, "s", samples, turns=turns, say=say)

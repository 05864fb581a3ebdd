"""The suite under pytest-benchmark: a test is a cell, a round is a turn of everyone in it.

    pytest benchmarks [-k GROUP] [--benchmark-json FILE]

`asl-fast bench` measures the same cells. Every contender's samples are in `extra_info`; a table of
each is printed at the end, and what moved against the committed results of this machine.
"""

import dataclasses
import importlib.metadata
import os

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import suite
from benchmarks.cell import Meter

# The race takes hours, and a turn of it is no round: `asl-fast bench --only race`.
_GROUPS = tuple(group for group in suite.GROUPS if group != "race")
_SIZE = dataclasses.replace(suite.SIZES["standard"], groups=_GROUPS, turns=7)


@pytest.fixture(autouse=True)
def quiet():
    tf.get_logger().setLevel("ERROR")  # everyone is traced, which it would warn of


class _Timed(Meter):
    """Lets pytest-benchmark repeat the turns."""

    def __init__(self, benchmark):
        self._benchmark = benchmark

    def repeat(self, turn, turns, warm_up):
        self._benchmark.pedantic(turn, rounds=turns, warmup_rounds=warm_up)


@pytest.mark.parametrize("plan", list(suite.plans(_SIZE)), ids=lambda plan: plan.title)
def test_cell(benchmark, measured, plan):
    benchmark.group = plan.group
    for cell in plan.run(_Timed(benchmark)):
        measured.append(cell)
        benchmark.extra_info[cell.key] = {
            "unit": cell.unit,
            "median": {name: float(np.median(values)) for name, values in cell.samples.items()},
            "samples": cell.samples,
            "load": cell.load,
            "skipped": cell.skipped,
        }
    benchmark.extra_info |= {
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")},
    }

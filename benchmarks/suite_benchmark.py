"""The suite under pytest-benchmark: a test is a cell, a round is a turn of everyone in it.

    pytest benchmarks [-k GROUP] [--benchmark-json FILE]

`asl-fast bench` measures the same cells. Every contender's samples are in `extra_info`; a table of
each is printed at the end, and what moved against the committed results of this machine.
"""

import dataclasses
import importlib.metadata
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import suite

_GROUPS = tuple(group for group in suite.GROUPS if group not in ("training", "race"))
_SIZE = dataclasses.replace(suite.SIZES["standard"], groups=_GROUPS, turns=7)


@pytest.mark.parametrize("plan", suite.plans(_SIZE), ids=lambda plan: plan.title)
def test_cell(benchmark, measured, plan):
    benchmark.group = plan.group
    cells = benchmark.pedantic(plan.run, args=[lambda text: None], rounds=1, iterations=1)
    for cell in cells:
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

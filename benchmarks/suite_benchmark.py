"""The suite under pytest-benchmark: a test measures the cells of a plan, once.

    pytest benchmarks [-k GROUP] [--benchmark-json FILE]

`asl-fast bench` measures the same cells. pytest-benchmark times the whole of each; the contenders'
samples, which are taken in turn within it, are in `extra_info`.
"""

import dataclasses
import importlib.metadata
import os

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import suite

# A race takes hours: `asl-fast bench --only race`.
_GROUPS = tuple(group for group in suite.GROUPS if group != "race")
_PLANS = list(suite.plans(dataclasses.replace(suite.SIZES["standard"], groups=_GROUPS)))


@pytest.fixture(autouse=True)
def quiet():
    tf.get_logger().setLevel("ERROR")  # each contender is traced, which it would warn of


@pytest.mark.parametrize("plan", _PLANS, ids=lambda plan: plan.title)
def test_cell(benchmark, plan):
    benchmark.group = plan.group
    cells = benchmark.pedantic(plan.run, args=[lambda text: None], rounds=1)
    for cell in cells:
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

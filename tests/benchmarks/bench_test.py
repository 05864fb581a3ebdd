import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asl_fast.system.errors import InputError
from benchmarks import (
    contenders,
    correctness,
    plots,
    race,
    report,
    results,
    scaling,
    suite,
    throughput,
)
from benchmarks.cell import Cell, in_turn
from benchmarks.comparison import compare
from benchmarks.contenders import AUGMENTATION, PIPELINE

ROOT = Path(__file__).parents[2]


# The check of contenders


def _everyone():
    for contenders_, shuffles in ((AUGMENTATION, False), (PIPELINE, True)):
        for name, contender in contenders_.items():
            yield pytest.param(name, contender, shuffles, id=f"{name}, {shuffles=}")


@pytest.mark.parametrize(("name", "contender", "shuffles"), list(_everyone()))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # rivals' own
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_everyone_does_the_work(name, contender, shuffles):
    if why := contenders.missing(name):
        pytest.skip(why)
    correctness.check(name, contender, shuffles=shuffles, augments=name != "no augmentation")


@pytest.mark.parametrize(
    "broken",
    [
        {"rotation": 0.0},
        {"rotation": 20.0},
        {"zoom": (1.0, 1.0)},
        {"shift": 0.0},
        {"shift": 0.05},
        {"flip": False},
    ],
    ids=str,
)
def test_who_does_other_work_is_found_out(broken):
    def contender(images, batch_size, work):
        return AUGMENTATION["our layer"](images, batch_size, dataclasses.replace(work, **broken))

    with pytest.raises(AssertionError, match="them: .* is off by"):
        correctness.check("them", contender, shuffles=False)


def test_who_does_not_shuffle_is_found_out():
    with pytest.raises(AssertionError, match="them: rows are not shuffled"):
        correctness.check("them", AUGMENTATION["our layer"], shuffles=True)


# Turns


def test_everyone_is_measured_in_turn():
    order = []
    samples = {name: lambda name=name: order.append(name) or len(order) for name in "AB"}
    cell = in_turn("group", {"batch": 1}, "s", samples, turns=2, warm_up=1)
    assert "".join(order) == "ABABAB"
    assert cell.samples == {"A": [3, 5], "B": [4, 6]}


# Comparison


def _result(rng, *, machine=1.0, ours=1.0, spread=0.05, turns=7, unit="images/s"):
    hour = machine * np.exp(rng.normal(0, 0.3, turns))  # the machine's own ups and downs
    rates = {"Keras's generator": 7000, "DALI": 30000, "our layer": 200000 * ours}
    samples = {
        name: [float(value) for value in rate * hour * np.exp(rng.normal(0, spread, turns))]
        for name, rate in rates.items()
    }
    return {"cells": [Cell("augmentation", {"batch": 32}, unit, samples, (0.0, 0.0))]}


def test_a_slowed_kernel_is_told_and_a_slow_machine_is_not():
    rng = np.random.default_rng(0)
    before = _result(rng)
    (change,), _ = compare(before, _result(rng, machine=0.3))
    assert not change.moved
    (change,), _ = compare(before, _result(rng, machine=2.0, ours=0.5))
    assert change.moved
    assert change.factor == pytest.approx(0.5, rel=0.15)
    (change,), _ = compare(_result(rng, unit="s"), _result(rng, ours=0.5, unit="s"))
    assert change.factor == pytest.approx(2, rel=0.15)  # fewer seconds are better


def test_noise_is_rarely_told():
    rng = np.random.default_rng(0)
    told = sum(
        compare(_result(rng, spread=0.3), _result(rng, spread=0.3))[0][0].moved for _ in range(200)
    )
    assert told < 10


def test_compare_from_the_command_line(asl_fast_here, tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number, ours in enumerate((1.0, 0.3)):
        paths.append(tmp_path / f"{number}.json")
        results.write({"version": 1, **_result(rng, ours=ours)}, paths[-1])
    slower = asl_fast_here("bench", "--compare", *paths)
    assert slower.returncode == 1
    assert "our layer" in slower.stdout
    assert "1 of 1 leads over the rivals moved beyond the noise: 1 down, 0 up" in slower.stdout
    same = asl_fast_here("bench", "--compare", paths[0], paths[0])
    assert same.returncode == 0, same.stderr
    assert "0 of 1 leads" in same.stdout


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quick", "--full"), "--quick and --full exclude each other"),
        (("--only", "speed"), "There is no group 'speed'. There are: augmentation"),
        (("--only", "race"), "needs the real data: --data FOLDER"),
        (("--compare", "nowhere.json", "nowhere.json"), "nowhere.json can't be read"),
        (("--compare", "README.md", "README.md"), "README.md is not JSON"),
        (("--compare", "list.json", "list.json"), "list.json does not hold results"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_bench_refuses(asl_fast_here, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "list.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    result = asl_fast_here("bench", *arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_bench_leaves_results(asl_fast_here, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "ROWS", 3000)
    result = asl_fast_here("bench", "--quick", "--only", "table", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    found = results.read(tmp_path / "out" / "results.json")
    (cell,) = found["cells"]
    assert all(len(values) == 7 for values in cell.samples.values())
    medians = {name: np.median(values) for name, values in cell.samples.items()}
    assert medians["our load_csv, cached"] < medians["pandas.read_csv"]
    assert found["machine"]["name"] == suite.machine()
    assert "tensorflow" in found["versions"]
    assert "| pandas.read_csv |" in (tmp_path / "out" / "results.md").read_text()
    other = json.loads((tmp_path / "out" / "results.json").read_text())
    other["machine"]["cpu"] = "another"
    (tmp_path / "out" / "results.json").write_text(json.dumps(other))
    refused = asl_fast_here("bench", "--quick", "--only", "table", "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "results of another machine" in refused.stderr


def test_every_size_can_be_planned(monkeypatch, tmp_path):
    monkeypatch.setenv("ASL_FAST_DATA", str(tmp_path))
    planned = {name: [plan.title for plan in suite.plans(s)] for name, s in suite.SIZES.items()}
    assert len(planned["quick"]) < len(planned["standard"]) < len(planned["full"])
    assert {plan.group for plan in suite.plans(suite.SIZES["full"])} == set(suite.GROUPS)
    monkeypatch.delenv("ASL_FAST_DATA")
    with pytest.raises(InputError, match="needs the real data"):
        list(suite.plans(suite.SIZES["full"]))


def test_who_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(contenders.importlib.util, "find_spec", lambda name: None)
    assert "pip install -e '.[peers]'" in contenders.missing("DALI")
    assert contenders.missing("our layer") is None


# Growth, race, tables, pictures


def _grid():
    rng = np.random.default_rng(0)
    for batch in (32, 256, 1024):
        for side in (28, 64, 128):
            microseconds = 300 / batch + 2 + 0.004 * side * side
            rates = 1e6 / microseconds * np.exp(rng.normal(0, 0.02, 7))
            about = {"batch": batch, "side": side, "channels": 1}
            samples = {"our layer": rates.tolist(), "DALI": (rates / 3).tolist()}
            yield Cell("augmentation", about, "images/s", samples, (0.1, 0.2), {"KerasCV": "why"})


def test_the_growth_of_cost_is_fitted():
    cost = scaling.fit(list(_grid()), "our layer")
    assert cost.call == pytest.approx(300, rel=0.2)
    assert cost.image == pytest.approx(2, rel=0.2)
    assert cost.pixel == pytest.approx(4, rel=0.1)
    assert cost.error < 0.05
    assert scaling.fit(list(_grid())[:3], "our layer") is None


def test_tables_and_pictures(tmp_path):
    stalls = [
        Cell("accelerator", {"batch": 32, "ms": ms}, "share idle", {"our flow": [0.1]}, (0, 0))
        for ms in (0.1, 1)
    ]
    runs = [
        {"who": "course", "seed": seed, "val_accuracy": [0.9, last], "images_per_second": 100.0}
        | {"train_seconds": 10.0}
        for seed, last in enumerate((0.997, 0.95))
    ]
    found = suite.begin("full") | {"cells": [*_grid(), *stalls], "races": runs}
    text = report.markdown(found)
    assert re.search(r"\| DALI \| [\d,]+ \([\d,]+–[\d,]+\) \| 3 \(3–3\) \|", text)
    assert "not measured: KerasCV: why" in text
    assert "| course | 2 | 2 | 100 ± 0 | 10 ± 0 | 0.9735 ± 0.2986 | 1 of 2 | 2.0 | 10 |" in text
    names = {path.name for path in plots.plot(found, tmp_path)}
    assert names == {"augmentation.png", "augmentation-scaling.png", "accelerator.png"}


def test_when_the_target_was_reached():
    run = {"val_accuracy": [0.9, 0.9962, 0.5, 0.999], "train_seconds": 40.0}
    assert race.reached(run) == (2, 20.0)
    assert race.reached(run | {"val_accuracy": [0.9961]}) is None


def test_the_readme_states_what_was_measured():
    """`scripts/readme` makes its tables anew."""
    text = (ROOT / "README.md").read_text()
    assert "<!-- made by scripts/readme from benchmarks/results/" in text
    assert report.with_tables(text) == text
    changed = re.sub(r"(\| our flow \| )\d", r"\g<1>9", text, count=1)
    assert report.with_tables(changed) == text


def test_pytest_finds_the_cells():
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q"]
    # pytest-benchmark, where it is installed, would take this for one of several processes.
    alone = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=alone)
    assert found.returncode == 0, found.stdout[-2000:]
    assert "test_cell[pipeline, batch 32, " in found.stdout

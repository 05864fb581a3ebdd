import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from asl_fast.system.errors import InputError
from benchmarks import contenders, plots, report, results, suite
from benchmarks.cell import Cell, in_turn
from benchmarks.comparison import compare
from benchmarks.contenders import AUGMENTATION, PIPELINE
from benchmarks.groups import correctness, race, throughput

ROOT = Path(__file__).parents[2]


# The check of contenders


def _everyone():
    for contenders_, shuffles in ((AUGMENTATION, False), (PIPELINE, True)):
        for name, contender in contenders_.items():
            yield pytest.param(name, contender, shuffles, id=f"{name}, {shuffles=}")


@pytest.mark.parametrize(("name", "contender", "shuffles"), list(_everyone()))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # rivals' own
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_contender_passes_the_check(name, contender, shuffles):
    if why := contenders.missing(name):
        pytest.skip(why)
    correctness.check(name, contender, shuffles=shuffles)


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
def test_a_wrong_option_fails_the_check(broken):
    def contender(images, batch_size, work):
        return AUGMENTATION["our layer"](images, batch_size, dataclasses.replace(work, **broken))

    with pytest.raises(AssertionError, match="them: .* is off by"):
        correctness.check("them", contender, shuffles=False)


def test_a_missing_shuffle_fails_the_check():
    with pytest.raises(AssertionError, match="them: rows are not shuffled"):
        correctness.check("them", AUGMENTATION["our layer"], shuffles=True)


# Turns


def test_contenders_run_in_turn():
    order = []
    samples = {name: lambda name=name: order.append(name) or len(order) for name in "AB"}
    cell = in_turn("group", {"batch": 1}, "s", samples, turns=2, say=lambda text: None)
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


def test_a_slowed_kernel_is_reported_and_a_slow_machine_is_not():
    rng = np.random.default_rng(0)
    before = _result(rng)
    (change,), _ = compare(before, _result(rng, machine=0.3))
    assert not change.moved
    (change,), _ = compare(before, _result(rng, machine=2.0, ours=0.5))
    assert change.moved
    assert change.factor == pytest.approx(0.5, rel=0.15)
    (change,), _ = compare(_result(rng, unit="s"), _result(rng, ours=0.5, unit="s"))
    assert change.factor == pytest.approx(2, rel=0.15)  # fewer seconds are better


def test_noise_is_rarely_reported():
    rng = np.random.default_rng(0)
    reported = sum(
        compare(_result(rng, spread=0.3), _result(rng, spread=0.3))[0][0].moved for _ in range(200)
    )
    assert reported < 10


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
        (("--only", "race"), "needs the real data. Name its folder with --data"),
        (("--compare", "nowhere.json", "nowhere.json"), "nowhere.json can't be read"),
        (("--compare", "README.md", "README.md"), "README.md is not JSON"),
        (("--compare", "list.json", "list.json"), "list.json does not hold results"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bench_refuses(asl_fast_here, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "list.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    result = asl_fast_here("bench", *arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_bench_writes_results(asl_fast_here, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "ROWS", 3000)
    result = asl_fast_here("bench", "--quick", "--only", "table", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    measured = results.read(tmp_path / "out" / "results.json")
    (cell,) = measured["cells"]
    assert all(len(values) == 7 for values in cell.samples.values())
    assert {"our load_csv, cached", "pandas.read_csv"} < set(cell.samples)
    assert measured["machine"]["name"] == suite.machine()
    assert "tensorflow" in measured["versions"]
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


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(contenders.importlib.util, "find_spec", lambda name: None)
    assert "pip install -e '.[peers]'" in contenders.missing("DALI")
    assert contenders.missing("our layer") is None


# Race, tables, pictures


def _cells():
    samples = {"our layer": [300.0, 330.0, 360.0], "DALI": [100.0, 110.0, 120.0]}
    for batch in (32, 256):
        about = {"batch": batch, "side": 28, "channels": 1}
        yield Cell("augmentation", about, "images/s", samples, (0.1, 0.2), {"KerasCV": "why"})


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
    measured = suite.begin("full") | {"cells": [*_cells(), *stalls], "races": runs}
    text = report.markdown(measured)
    assert re.search(r"\| DALI \| 110 \(105–115\) \| 3 \(3–3\) \|", text)
    assert "not measured: KerasCV: why" in text
    assert "| course | 2 | 2 | 100 ± 0 | 10 ± 0 | 0.9735 ± 0.2986 | 1 of 2 | 2.0 | 10 |" in text
    names = {path.name for path in plots.plot(measured, tmp_path)}
    assert names == {"augmentation.png", "accelerator.png"}


def test_when_the_target_was_reached():
    run = {"val_accuracy": [0.9, 0.9962, 0.5, 0.999], "train_seconds": 40.0}
    assert race.reached(run) == (2, 20.0)
    assert race.reached(run | {"val_accuracy": [0.9961]}) is None


def test_the_performance_page_states_what_was_measured():
    """`scripts/results` rewrites its tables."""
    text = report.PAGE.read_text()
    assert "<!-- made by scripts/results from benchmarks/results/" in text
    assert report.with_tables(text) == text
    changed = re.sub(r"(\| our flow \| )\d", r"\g<1>9", text, count=1)
    assert changed != text
    assert report.with_tables(changed) == text

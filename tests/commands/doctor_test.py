import json

import keras
import pytest

from asl_fast.training import precision


@pytest.fixture(autouse=True)
def without_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)


def test_it_reports_on_the_machine(asl_fast_here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = asl_fast_here("doctor")
    assert result.returncode == 0, result.stderr
    for words in (
        "trains on",
        "NVIDIA driver",
        "the CPU has no instructions for bfloat16",
        "XLA's convolutions are slow on CPUs",
        "the data take 24.2 MB",
        "cached data",
        "not kept: ASL_FAST_COMPILE_CACHE is off",
        "of a step",
        "none of the step's operations",
    ):
        assert words in result.stdout


def test_it_lists_what_a_gpu_can_not_run(asl_fast_here, tmp_path):
    turning = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.RandomRotation(0.1),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    turning.save(tmp_path / "turning.keras")
    result = asl_fast_here("doctor", tmp_path / "turning.keras", "--json")
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert report["jit"] == {
        "value": False,
        "why": "`RandomRotation` in your model has supports_jit=False",
    }
    found = {finding["op"]: finding for finding in report["operations"]["found"]}
    assert found["ImageProjectiveTransformV3"]["problem"] == "has no kernel for GPUs"
    assert report["memory_needed"]["data"] == 27455 * (784 + 5 * 4)
    # 785 rows of five weights: each with a gradient and two values of the optimizer's.
    assert report["memory_needed"]["weights"] >= 4 * 4 * 785 * 5


def test_it_refuses_models_of_other_things_than_images(asl_fast_here, tmp_path):
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    model.save(tmp_path / "other.keras")
    for path, message in (
        ("nowhere.keras", "There is no model"),
        ("other.keras", "input must be"),
    ):
        result = asl_fast_here("doctor", tmp_path / path)
        assert result.returncode == 2
        (error,) = result.stderr.splitlines()
        assert message in error

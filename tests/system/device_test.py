import importlib

import keras
import pytest
import tensorflow as tf

from asl_fast.system import device, storage
from asl_fast.training import precision
from tests.samples import pretend_gpus


@pytest.mark.parametrize(
    ("capabilities", "policy", "jit", "words"),
    [
        ([], "float32", False, "CPU"),
        ([(6, 1)], "float32", True, "GPU, NVIDIA X"),
        ([(7, 5)], "mixed_float16", True, "GPU, NVIDIA X"),
        ([(8, 0)], "mixed_bfloat16", True, "GPU, NVIDIA X"),
        ([(9, 0), (7, 0)], "mixed_float16", True, "GPU, NVIDIA X, 2 of them"),
    ],
)
def test_auto_follows_the_device(monkeypatch, capabilities, policy, jit, words):
    pretend_gpus(monkeypatch, *capabilities)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    chosen = precision.choose()
    assert chosen.value == policy
    if capabilities:
        assert chosen.why == "compute capability {}.{}".format(*min(capabilities))
    assert device.choose_jit().value is jit
    assert device.describe().startswith(words)


def test_what_was_asked_for_is_kept(monkeypatch):
    pretend_gpus(monkeypatch, (8, 0))
    assert precision.choose("float32").value == "float32"
    assert device.choose_jit("off").value is False
    pretend_gpus(monkeypatch)
    assert device.choose_jit("on").value is True


def test_a_layer_that_xla_cannot_take_is_named(monkeypatch):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.RandomRotation(0.1)])
    pretend_gpus(monkeypatch, (8, 0))
    assert device.choose_jit("auto", model) == (
        False,
        "`RandomRotation` in your model has supports_jit=False",
    )


@pytest.mark.parametrize(("bfloat16", "chosen"), [(1.0, "mixed_bfloat16"), (3.0, "float32")])
def test_a_cpu_trains_in_bfloat16_only_where_that_was_measured_faster(
    monkeypatch, bfloat16, chosen
):
    """The clock of this test runs while convolutions do, for bfloat16 by so many seconds."""
    now = [0.0]
    timed = []

    def convolution(images, *arguments):
        now[0] += bfloat16 if images.dtype == tf.bfloat16 else 2.0
        timed.append(1)
        return keras_s(images, *arguments)

    keras_s = tf.nn.conv2d
    monkeypatch.setattr(tf.nn, "conv2d", convolution)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(device, "cpu", lambda: ("A CPU", frozenset({"avx512_bf16"})))
    assert precision.choose().value == chosen
    assert f"measured {2.0 / bfloat16:.2f} times as fast" in precision.choose().why
    once = len(timed)
    precision.choose()
    assert len(timed) == once
    # Another machine's measurement says nothing, nor does a damaged one.
    monkeypatch.setattr(device, "cpu", lambda: ("Another", frozenset({"amx_bf16"})))
    assert precision.choose().value == chosen
    assert len(timed) == 2 * once
    (storage.cache_folder() / "precision.json").write_text("{")
    assert precision.choose().value == chosen
    assert len(timed) == 3 * once
    monkeypatch.setattr(device, "cpu", lambda: ("Old", frozenset({"sse"})))
    assert precision.choose() == ("float32", "the CPU has no instructions for bfloat16")


def test_the_memory_is_the_machines():
    if not tf.config.list_physical_devices("GPU"):
        assert 2**28 < device.memory() < 2**50


def test_gpu_memory_is_taken_as_needed(monkeypatch):
    asked = []
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: asked.append((gpu, on))
    )
    pretend_gpus(monkeypatch, (8, 0), (9, 0))
    importlib.reload(device)
    assert asked == [((8, 0), True), ((9, 0), True)]
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    importlib.reload(device)
    assert len(asked) == 2

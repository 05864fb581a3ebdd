import pytest
import tensorflow as tf

from asl_fast.system import device, storage
from asl_fast.training import precision
from tests.samples import pretend_gpus


@pytest.mark.parametrize(
    ("capabilities", "policy", "why"),
    [
        ([(6, 1)], "float32", "compute capability 6.1"),
        ([(7, 5)], "mixed_float16", "compute capability 7.5"),
        ([(8, 0)], "mixed_bfloat16", "compute capability 8.0"),
        ([(9, 0), (7, 0)], "mixed_float16", "compute capability 7.0"),
    ],
)
def test_auto_is_what_suits_the_weakest_gpu(monkeypatch, capabilities, policy, why):
    pretend_gpus(monkeypatch, *capabilities)
    assert precision.choose() == (policy, why)
    assert precision.choose("float32").value == "float32"


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
        return original(images, *arguments)

    original = tf.nn.conv2d
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
    path = storage.cache_folder() / "precision.json"
    text = path.read_text()
    assert f'"gain": {2.0 / bfloat16}' in text
    for times, damaged in enumerate(("{", text.replace('"gain": ', '"gain": 1')), 3):
        path.write_text(damaged)
        assert precision.choose().value == chosen
        assert len(timed) == times * once
    monkeypatch.setattr(device, "cpu", lambda: ("Old", frozenset({"sse"})))
    assert precision.choose() == ("float32", "the CPU has no instructions for bfloat16")

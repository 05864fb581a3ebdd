import importlib.util
import sys

import pytest

from benchmarks import roofline
from benchmarks.roofline import GPUS, PARTS, Count

extra = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jaxlib", "jax_plugins", "nvidia"))),
    reason="needs the extra `roofline`",
)


def test_parts_are_what_each_program_adds():
    last = Count(9, 50, 6, 20)
    counts = (Count(1, 10, 0, 4), Count(3, 30, 2, 9), last, last)
    parts = roofline.differences(dict(zip(PARTS, counts, strict=True)))
    assert list(parts) == list(PARTS)
    assert parts["gather and augmentation"] == Count(1, 10, 0, 4)
    assert parts["backward"] == Count(6, 20, 4, 11)
    assert parts["optimizer and metrics"] == Count(0, 0, 0, 0)


def test_the_bound_is_the_longer_of_arithmetic_and_memory_by_part():
    h200 = GPUS[-1]
    parts = {
        "forward": Count(
            flops=2 * h200.arithmetic["mixed"], moved=h200.bandwidth, library=0, launches=1
        ),
        "backward": Count(flops=0, moved=3 * h200.bandwidth, library=0, launches=1),
    }
    assert roofline.bound(parts, h200, "mixed") == pytest.approx(5000)
    assert roofline.bound(parts, h200, "float32") == pytest.approx(7000, rel=1e-2)


@pytest.fixture(scope="module")
def compiler():
    return roofline.Compiler()


@extra
@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_launches_and_bytes_are_those_of_the_program_compiled_for_the_gpu(compiler, gpu):
    # A product for cuBLAS, and one kernel that takes the four operations after it together.
    program = """HloModule m
ENTRY main {
  a = f32[64,128] parameter(0)
  b = f32[128,512] parameter(1)
  dot = f32[64,512] dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  sine = f32[64,512] sine(dot)
  square = f32[64,512] multiply(sine, sine)
  cosine = f32[64,512] cosine(square)
  sum = f32[64,512] add(cosine, dot)
  ROOT same = f32[64,512] copy(sum)
}"""
    counted = roofline.count(compiler, program, gpu, batch=64)
    assert counted.launches == 2
    assert counted.library == 4 * (64 * 128 + 128 * 512 + 64 * 512)
    assert counted.moved == counted.library + 4 * 2 * 64 * 512
    assert counted.flops == 2 * 64 * 128 * 512 + 2 * 64 * 512


@extra
def test_a_conditional_counts_as_its_longer_branch(compiler):
    program = """HloModule m
one { x = f32[8] parameter(0)
  ROOT y = f32[8] sine(x) }
two { x = f32[8] parameter(0)
  y = f32[8] sine(x)
  ROOT z = f32[8] custom-call(y), custom_call_target="f" }
ENTRY main { p = pred[] parameter(0)
  x = f32[8] parameter(1)
  ROOT c = f32[8] conditional(p, x, x), true_computation=one, false_computation=two }"""
    assert len(compiler.kernels(program)) == 3


@extra
def test_the_step_counts_what_a_calculation_by_hand_gives(compiler):
    batch = 4
    programs = roofline.programs(batch, "float32")
    data, forward, backward, step = (compiler.cost(programs[part])["flops"] for part in PARTS)
    # Of 3 by 3 taps at n by n places, (3n - 2)**2 don't fall on the padding.
    convolutions = 82**2 * 75 + 40**2 * 75 * 50 + 19**2 * 50 * 25
    by_hand = 2 * (convolutions + 400 * 512 + 512 * 24)
    assert 1 < (forward - data) / batch / by_hand < 1.1
    assert 1.8 < (backward - forward) / (forward - data) < 2.1
    assert 0 < step - backward < 20 * 260_000  # some operations a weight

    # Of the stored images a step reads its own rows only.
    counted = roofline.count(compiler, programs[PARTS[0]], GPUS[-1], batch)
    assert batch * 784 * (1 + 4) < counted.moved < batch * 784 * 40
    assert 3 <= counted.launches <= 8


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["roofline", "--out", str(tmp_path / "counts.md")])
    with pytest.raises(SystemExit) as caught:
        roofline.main()
    assert "[roofline]" in caught.value.code

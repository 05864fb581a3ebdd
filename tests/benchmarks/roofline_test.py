"""The paper GPU: its arithmetic by hand-made numbers, and its counts from compiled programs."""

import importlib.util
import itertools

import pytest

from benchmarks import roofline
from benchmarks.roofline import ASSUMPTIONS, GPUS, PARTS, Assumptions, Count, Fed, Gpu

extra = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jaxlib", "jax_plugins", "nvidia"))),
    reason="needs the extra `roofline`",
)

PAPER = Gpu(
    name="paper",
    vector=100.0,
    matrix={"float32": 100.0, "mixed": 1000.0},
    bandwidth=10.0,
    policy="mixed_float16",
    source="made up",
    config={"capability": (7, 0)},
)
PARTS_OF_PAPER = {
    "gather and augmentation": Count(flops=50, moved=1, library=0, launches=3),
    "forward": Count(flops=50, moved=10, library=5, launches=5),
    "backward": Count(flops=800, moved=20, library=10, launches=10),
    "optimiser and metrics": Count(flops=0, moved=5, library=0, launches=2),
}


def test_a_part_takes_as_long_as_the_slower_of_arithmetic_and_memory():
    assumed = Assumptions(vector=0.5, tensor=0.1, memory=0.5, launch=0.25)
    found = roofline.predict(PARTS_OF_PAPER, PAPER, "float32", assumed)
    # 50 FLOP/s and 5 bytes/s: 1 s or 0.2 s, 1 or 2, 16 or 4, 0 or 1; and 20 launches.
    assert (found.arithmetic, found.memory, found.launches) == (1 + 16, 2 + 1, 5)
    assert found.step == 25
    assert found.bound == "arithmetic"


def test_mixed_precision_uses_tensor_cores_for_the_network_alone():
    assumed = Assumptions(vector=0.5, tensor=0.1, memory=0.5, launch=10)
    found = roofline.predict(PARTS_OF_PAPER, PAPER, "mixed", assumed)
    # 100 FLOP/s for forward and backward: 0.5 s or 2 s, 8 or 4; the rest as above.
    assert (found.arithmetic, found.memory, found.launches) == (1 + 8, 2 + 1, 200)
    assert found.bound == "launches"


def test_parts_are_what_each_program_adds():
    last = Count(9, 50, 6, 20)
    counts = (Count(1, 10, 0, 4), Count(3, 30, 2, 9), last, last)
    whole = dict(zip(PARTS, counts, strict=True))
    found = roofline.differences(whole)
    assert list(found) == list(PARTS)
    assert found["gather and augmentation"] == Count(1, 10, 0, 4)
    assert found["backward"] == Count(6, 20, 4, 11)
    assert found["optimiser and metrics"] == Count(0, 0, 0, 0)


def rows(text, heading):
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_gpu_batch_and_precision_has_its_row():
    batches = (32, 256)
    keys = itertools.product((g.name for g in GPUS), batches, ("float32", "mixed"))
    counts = {
        key: {part: Count(2e9 * key[1], 1e6 * key[1], 5e5 * key[1], 25) for part in PARTS}
        for key in keys
    }
    fed = [Fed("as it is", (900.0, 1000.0, 1200.0)), Fed("2 processes", (2000.0,) * 3)]
    text = roofline.report(counts, fed, batches, {"jaxlib": "1.2"}, "an abacus")
    assert "jaxlib 1.2" in text
    assert "(an abacus)" in text

    predicted = rows(text, "Predicted")
    assert [row[:3] for row in predicted] == [
        [gpu.name, str(batch), precision]
        for gpu, batch, precision in itertools.product(GPUS, batches, ("float32", "mixed"))
    ]
    # The V100 at batch 32: 64 GFLOP a part at 7.85 TFLOP/s, four parts, and 100 launches of 5 µs.
    v100 = predicted[4]
    assert v100[3].startswith("33.1 (")
    assert v100[4] == "arithmetic, 98%"
    assert v100[5] == "1,000"
    assert v100[6] == "28.4"
    assert v100[8:] == ["0%", "0%"]
    # The H100 at batch 256: 512 GFLOP twice at 33.5 TFLOP/s, twice at 247: 7,270 images/s.
    assert predicted[-1][8:] == ["86%", "72%"]

    assert [row[:3] for row in rows(text, "Counted")] == [
        [str(batch), precision, part]
        for batch in batches
        for precision in ("float32", "mixed")
        for part in (*PARTS, "**whole step**", "at the least")
    ]
    assert rows(text, "Counted")[4][5] == "128, 100"
    assert [row[:2] for row in rows(text, "Measured")] == [
        ["as it is", "1,000"],
        ["2 processes", "2,000"],
    ]


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
    found = roofline.count(compiler, program, gpu, batch=64)
    assert found.launches == 2
    assert found.library == 4 * (64 * 128 + 128 * 512 + 64 * 512)
    assert found.moved == found.library + 4 * 2 * 64 * 512
    assert found.flops == 2 * 64 * 128 * 512 + 2 * 64 * 512


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

    # The stored images are no part of what a step reads, but for its own rows.
    found = roofline.count(compiler, programs[PARTS[0]], GPUS[-1], batch)
    assert batch * 784 * (1 + 4) < found.moved < batch * 784 * 40
    assert 3 <= found.launches <= 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--turns", "0"], "argument --turns: must be a whole number, at least 1, not '0'"),
        (["--out", "nowhere/x.md"], "argument --out: must be a file in a folder that exists"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_a_wrong_argument_is_one_line(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    with pytest.raises(SystemExit) as caught:
        roofline.main(arguments)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"roofline: {says}")
    assert told.count("\n") == 1


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        roofline.main(["--out", str(tmp_path / "x.md")])
    assert "[roofline]" in caught.value.code


def test_the_figures_of_the_assumptions_are_in_order():
    hopeful, middle, cautious = ASSUMPTIONS.values()
    for share in ("vector", "tensor", "memory"):
        assert getattr(hopeful, share) > getattr(middle, share) > getattr(cautious, share)
    assert hopeful.launch < middle.launch < cautious.launch

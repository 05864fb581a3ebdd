import dataclasses
import sys

import numpy as np
import pytest

from asl_fast import build_cnn
from benchmarks.contenders import Feed
from benchmarks.gpu import figures, report, sections
from benchmarks.gpu.figures import Request
from benchmarks.groups import correctness


def section(name, seconds=60.0, least=1.0, needs=""):
    module = "tests.benchmarks.broken_sections"
    return report.Section(name, name.title(), seconds, least, needs, module)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(report, "_device", lambda: "")


def test_a_section_that_goes_wrong_loses_only_itself(tmp_path, no_gpu):
    chosen = [section("crash"), section("hang", 4), section("fail"), section("whole")]
    report.run(tmp_path, 60, [], chosen)
    rows = figures.read(tmp_path)
    measured = {(row["section"], row["item"]): row.get("ms") for row in rows if "item" in row}
    assert measured == {
        ("crash", "first"): 7.0,
        ("hang", "first"): 8.0,
        ("fail", "first"): None,
        ("fail", "second"): 9.0,
        ("whole", "one"): 1.5,
        ("whole", "two"): 2000.0,
    }
    text = (tmp_path / "gpu_report.md").read_text()
    assert "| | ms | n |\n| --- | --- | --- |\n| one | 1.5 | 3 |\n| two | 2,000 | 3 |" in text
    assert "- Crash: ended with exit code 3" in text
    assert "- Crash: no time for second; third" in text
    assert "- Hang: stopped after its 4 s" in text
    assert "- Fail, first: KeyError: 'nothing'" in text


def test_a_section_ends_before_an_item_that_would_not_fit(tmp_path, monkeypatch):
    clock = iter([0.0, 4.0, 4.0, 8.0, 8.0])  # two items of 4 s; a third would end after 12 s
    monkeypatch.setattr(figures.Request, "elapsed", lambda request: next(clock))
    arguments = ["slow", "--out", str(tmp_path), "--seconds", "10"]
    monkeypatch.setattr(sys, "argv", ["", *arguments])
    figures.main({"slow": lambda request: {name: lambda: {"ms": 1.0} for name in "abc"}})
    planned, *measured = figures.read(tmp_path)
    assert planned["planned"] == ["a", "b", "c"]
    assert [(row["item"], row["at_s"]) for row in measured] == [("a", 4.0), ("b", 8.0)]


def test_what_does_not_fit_the_budget_or_the_machine_is_named(tmp_path, no_gpu):
    chosen = [section("whole", least=99.0), section("crash", needs="gpu")]
    report.run(tmp_path, 20, [], chosen)
    text = (tmp_path / "gpu_report.md").read_text()
    assert "- Whole: 20 s of the budget remained, it needs 99" in text
    assert "- Crash: there is no GPU" in text
    assert "## Whole" not in text


def test_a_row_that_was_cut_off_is_left_out(tmp_path):
    figures.append(tmp_path, {"section": "step", "item": "32", "ms": 1.0})
    with (tmp_path / figures.FILE).open("a") as file:
        file.write('{"section": "step", "it')
    assert [row["item"] for row in figures.read(tmp_path)] == ["32"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "0"), "--budget must be a number of seconds above 0, not 0"),
        (("--data", "nowhere"), "there is no folder nowhere"),
        (("--out", "."), "holds an earlier report"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    figures.append(tmp_path, {"section": "step", "item": "32"})
    monkeypatch.setattr(sys, "argv", ["gpu_report", *arguments])
    with pytest.raises(SystemExit, match="2"):
        report.main()
    assert message in capsys.readouterr().err


def test_each_section_of_the_report_exists():
    mine = [one for one in report.SECTIONS if one.module == "benchmarks.gpu.sections"]
    assert {one.name for one in mine} == set(sections.SECTIONS)


@pytest.mark.parametrize("name", ["layer", "pixels"])
def test_a_section_measures(tmp_path, name):
    items = sections.SECTIONS[name](Request(tmp_path, 0.0, 1e9, None, True))
    first, *_ = items.values()
    assert all(value > 0 for value in first().values())


def test_kernels_are_summed_up_by_step():
    xplane = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")
    space = xplane.XSpace()
    for plane_name in ("/host:CPU", "/device:GPU:0"):
        plane = space.planes.add(name=plane_name)
        for number, name in enumerate(("convolution", "copy")):
            plane.event_metadata[number].name = name
        for line_name in ("Stream #13(Compute)", "XLA Modules"):
            line = plane.lines.add(name=line_name)
            for number, microseconds in ((0, 500), (0, 300), (1, 200)):
                line.events.add(metadata_id=number, duration_ps=microseconds * 10**6)
    summed = sections.kernels(space.SerializeToString(), steps=2)
    assert summed["launches_a_step"] == 1.5
    assert summed["busy_ms_a_step"] == pytest.approx(0.5)
    assert summed["kernels"][0] == ("convolution", pytest.approx(0.4), 1.0)


@pytest.mark.filterwarnings("ignore:CUDA initialization")
def test_the_peer_does_the_same_work():
    torch = pytest.importorskip("torch")
    from benchmarks.gpu import peer

    network = peer.Network()
    assert sum(p.numel() for p in network.parameters()) == sum(
        np.prod(w.shape) for w in build_cnn().trainable_variables
    )
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 24)

    def contender(images, batch_size, work):
        stored = torch.tensor(images).permute(0, 3, 1, 2).float() / 255

        def batch():
            augmented = peer.augment(stored[:batch_size], **dataclasses.asdict(work))
            return augmented.permute(0, 2, 3, 1).numpy()

        return Feed(lambda count, before: 0.0, batch)

    correctness.check("the peer", contender, shuffles=False)

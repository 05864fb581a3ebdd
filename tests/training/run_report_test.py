import datetime
import json
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from asl_fast import InputError
from asl_fast.commands import cli
from asl_fast.data import dataset
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference import evaluation
from asl_fast.models import saving
from asl_fast.training import diagnosis, run, run_comparison
from asl_fast.training import run_report as report
from tests.pages import visit
from tests.samples import blobs, write_csv

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run, `run`, and the tables it was trained on, `data`."""
    home = tmp_path_factory.mktemp("report")
    (home / "data").mkdir()
    write_csv(home / "data" / "sign_mnist_train.csv", *blobs(144))
    write_csv(home / "data" / "sign_mnist_valid.csv", *blobs(48, seed=1))
    changes = {"epochs": 2, "batch_size": 24}
    data = dataset.load(home / "data")
    run.train(data, home / "run", recipe="course", changes=changes, verbose=0)
    return home


@pytest.fixture
def folder(home, tmp_path):
    """A copy of the run, to be spoilt."""
    return shutil.copytree(home / "run", tmp_path / "run", ignore=shutil.ignore_patterns("logs"))


@pytest.fixture
def unmeasured(monkeypatch):
    """Spares the steps that the page measures."""
    monkeypatch.setattr(
        diagnosis, "microseconds_an_image", lambda *_: {"augmentation": 1.0, "network": 99.0}
    )


def edit(folder, **changes):
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    return metrics


def text_of(page):
    """What a reader sees, roughly."""
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_page_describes_the_run(home, tmp_path):
    out = tmp_path / "new" / "page.html"
    result = CliRunner().invoke(
        cli.app, ["report", str(home / "run"), "--out", str(out), "--verbose"]
    )
    assert result.exit_code == 0, result.output
    assert f"Wrote {out}" in result.output
    page = out.read_text()
    metrics = json.loads((home / "run" / "metrics.json").read_text())
    seen = text_of(page)
    for words in (
        f"{metrics['val_accuracy'] * 100:.2f} %",
        f"{metrics['images_per_second']:,.0f} images/s",
        metrics["dataset"]["train"]["sha256"],
        metrics["dataset"]["valid"]["source"],
        "first epoch, including compilation",
        "later epochs, median",
        "optimizer rmsprop",
        "course network by the recipe course, on CSV files",
        f"{datetime.datetime.now():%B %Y}",
        "rotation range 10",
        f"keras {metrics['versions']['keras']}",
        metrics["device"],
    ):
        assert words in seen
    assert float(re.search(r"waits for augmentation ([\d.]+) % of a step", seen)[1]) > 0

    valid = dataset.load(home / "data").valid
    model = saving.load_model(home / "run")
    labels, probabilities = evaluation.predict(model, valid)
    predictions = probabilities.argmax(axis=-1)
    wrong = np.flatnonzero(predictions != labels)
    worst = wrong[probabilities[wrong, labels[wrong]].argmin()]
    true, predicted = LETTERS[labels[worst]], LETTERS[predictions[worst]]
    last = {
        name: values[-1]
        for name, values in report.read_history(home / "run" / "history.csv").items()
    }
    for quantity in ("accuracy", "loss"):
        ends = f"training {last[quantity]:.4f}, validation {last[f'val_{quantity}']:.4f}"
        assert f"{quantity} , last epoch: {ends}" in seen
    captions = re.findall(r"\b([A-Y]) , taken for ([A-Y] [A-Y] [\d.]+ % [A-Y] [\d.]+) %", seen)
    assert captions[0] == (
        true,
        f"{predicted} {predicted} {probabilities[worst].max() * 100:.1f} % "
        f"{true} {probabilities[worst, labels[worst]] * 100:.1f}",
    )
    assert len(captions) == min(24, len(wrong))
    assert f"{48 - len(wrong)} of 48 validation images are classified correctly" in seen
    assert page.count("as stored") == 1 + 8
    assert len(set(re.findall(r'src="(data:[^"]*)"', page))) >= 24 + 8 * 3 + len(captions)


@pytest.mark.usefixtures("unmeasured")
def test_the_page_in_a_browser(browser, folder, tmp_path):
    folder = folder.rename(tmp_path / "<b>run & co")
    metrics = edit(folder, device=HOSTILE, versions={HOSTILE: HOSTILE, "long": "x" * 300})
    edit(folder, dataset=metrics["dataset"] | {"name": HOSTILE})
    edit(folder, recipe=metrics["recipe"] | {"name": HOSTILE})
    report.write(folder, tmp_path / "page.html")
    for width in (360, 1200):
        with visit(browser, (tmp_path / "page.html").as_uri(), width) as visited:
            assert visited.complaints == []
            assert len(visited.requests) == 1  # the page itself
            assert visited.broken_pictures() == 0
            assert visited.is_as_wide_as_the_window()
            page = visited.page
            assert page.locator("main img").count() > 60
            assert page.locator("img:not([alt])").count() == 0
            assert page.locator("script, img[onerror]").count() == 0
            assert page.locator("h1").inner_text() == "<b>run & co"
            assert page.get_by_text(HOSTILE).count() == 6
            heights = page.locator(".tiles dd, .tiles dt").evaluate_all(
                "all => all.map(one => one.getBoundingClientRect().height)"
            )
            assert max(heights) < 32  # a line each
            widths = page.locator(".chart img").evaluate_all(
                "all => all.map(one => one.getBoundingClientRect().width)"
            )
            assert len(widths) == 2
            assert all(280 < chart < width for chart in widths)


@pytest.mark.usefixtures("unmeasured")
def test_data_that_moved_are_left_out_or_given(home, folder, tmp_path):
    metrics = edit(folder)["dataset"]
    edit(folder, dataset=metrics | {"place": {"folder": str(tmp_path / "gone")}})
    out = tmp_path / "page.html"
    report.write(folder, out)
    seen = text_of(out.read_text())
    assert "Without images of the data" in seen
    assert f"There is no file or folder {tmp_path / 'gone'}" in seen
    assert "Worst mistakes" not in seen
    assert "The figure that the run wrote" in seen

    report.write(folder, out, dataset.load(home / "data"))
    assert "Worst mistakes" in text_of(out.read_text())

    other = tmp_path / "other"
    other.mkdir()
    write_csv(other / "sign_mnist_train.csv", *blobs(144, seed=9))
    shutil.copy(home / "data" / "sign_mnist_valid.csv", other)
    with pytest.raises(
        InputError, match=r"other/sign_mnist_train.csv is not the training set of the"
    ):
        report.write(folder, out, dataset.load(other))


SPOILT = {
    "no run": (lambda run: (run / "metrics.json").unlink(), "not the folder of a finished run"),
    "no folder": (shutil.rmtree, "not the folder of a finished run"),
    "half": (lambda run: (run / "metrics.json").write_text('{"a": '), "metrics.json can't be read"),
    "nested": (lambda run: (run / "metrics.json").write_text("[" * 9999), "metrics.json can't be"),
    "a list": (lambda run: (run / "metrics.json").write_text("[]"), "metrics.json is damaged"),
    "a word": (lambda run: edit(run, images_per_second="many"), "images_per_second must be a num"),
    "no objects": (lambda run: edit(run, dataset="<b>"), "dataset.train must be an object"),
    "a seed": (lambda run: edit(run, seed=-1), "seed must be in"),
    "a recipe": (
        lambda run: edit(run, recipe={"augment": {"turn": 1}}),
        "does not know such a recipe",
    ),
    "no history": (lambda run: (run / "history.csv").unlink(), "history.csv can't be read"),
    "a history": (lambda run: (run / "history.csv").write_text("epoch\n1\n"), "no column 'acc"),
    "no model": (lambda run: (run / "model.keras").unlink(), "There is no model"),
    "a model": (lambda run: (run / "model.keras").write_text("no"), "model.keras can't be loaded"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_a_folder_without_a_whole_run_is_rejected_in_one_line(folder, tmp_path, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        report.write(folder, tmp_path / "page.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_runs_side_by_side(browser, home, folder, tmp_path):
    metrics = edit(folder, val_accuracy=0.125, seed=77, finished="2026-03-04T05:06:00+00:00")
    edit(folder, recipe=metrics["recipe"] | {"name": HOSTILE})
    other = folder.rename(tmp_path / "<b>other")
    out = tmp_path / "page.html"
    result = CliRunner().invoke(
        cli.app, ["report", str(home / "run"), str(other), "--out", str(out), "--verbose"]
    )
    assert result.exit_code == 0, result.output
    seen = text_of(out.read_text())
    assert f"validation accuracy {metrics['val_accuracy']:.2%} 12.50%" in seen
    assert "seed 0 77" in seen
    assert "4 March 2026, 05:06" in seen
    assert "optimizer" not in seen.partition("What differs")[2]  # as it is the same
    assert "Validated on different data" not in seen
    with visit(browser, out.as_uri(), 360) as visited:
        assert visited.complaints == []
        assert len(visited.requests) == 1
        assert visited.broken_pictures() == 0
        assert visited.is_as_wide_as_the_window()
        assert visited.page.get_by_text(HOSTILE).count() == 1
        assert visited.page.locator("script, img[onerror]").count() == 0
    changed = metrics["dataset"] | {"valid": {"sha256": "0"}}
    edit(other, dataset=changed)
    refused = CliRunner().invoke(
        cli.app, ["report", str(home / "run"), str(other), "--data", str(home), "--verbose"]
    )
    assert "Leave out the data" in str(refused.exception)
    run_comparison.write([home / "run", other], out)
    assert "Validated on different data" in text_of(out.read_text())
    (other / "metrics.json").unlink()
    with pytest.raises(InputError, match="not the folder of a finished run"):
        run_comparison.write([home / "run", other], out)


def test_the_range_of_pixels_can_be_chosen(home, tmp_path, unmeasured):
    """The run's file tells it, so the pixels of another are not what the model expects."""
    out = tmp_path / "page.html"
    model = saving.load_model(home / "run")
    valid = dataset.load(home / "data").valid
    right = {}
    for pixels in ("0-1", "-1-1"):
        labels, probabilities = evaluation.predict(model, valid, pixels=pixels)
        right[pixels] = int(np.sum(probabilities.argmax(axis=1) == labels))
        result = CliRunner().invoke(
            cli.app, ["report", str(home / "run"), "--out", str(out), "--pixels", pixels]
        )
        assert result.exit_code == 0, result.output
        sentence = f"{right[pixels]} of 48 validation images are classified correctly"
        assert sentence in text_of(out.read_text())
    assert right["0-1"] != right["-1-1"]

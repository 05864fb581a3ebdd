import json

import pytest

from asl_fast import build_cnn
from asl_fast.data import dataset
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference import export
from asl_fast.models import saving
from tests.samples import blobs, write_csv


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """A run on tables of its own, beside those that the environment names."""
    monkeypatch.setenv("ASL_FAST_DATA", str(folder))
    run = tmp_path / "run"
    run.mkdir()
    saving.save_model(build_cnn(), run / "model.keras", LETTERS)
    train, valid = (
        write_csv(tmp_path / f"{name}.csv", *blobs(rows)) for name, rows in (("a", 60), ("b", 36))
    )
    facts = dataset.load(train=train, valid=valid).describe()
    (run / "metrics.json").write_text(json.dumps({"dataset": facts}))
    return run


def test_a_run_is_measured_on_its_own_data_unless_others_are_given(asl_fast_here, folder, run):
    result = asl_fast_here("evaluate", run, "--json")
    assert json.loads(result.stdout)["rows"] == 36
    assert f"valid: {run.parent / 'b.csv'}, 36 rows" in result.stderr
    for arguments in ([run, "--data", folder], [run / "model.keras"]):
        assert json.loads(asl_fast_here("evaluate", *arguments, "--json").stdout)["rows"] == 48
    write_csv(run.parent / "b.csv", *blobs(36, seed=9))
    result = asl_fast_here("evaluate", run)
    assert result.returncode == 2
    assert "b.csv is not the validation set of the run: its SHA-256 is" in result.stderr
    assert "Other data can be given with --data." in result.stderr
    for dataset_of_run in ("{}", '{"place": {"folder": 7}}', '{"place": {"x": "y"}}', "[]"):
        (run / "metrics.json").write_text(f'{{"dataset": {dataset_of_run}}}')
        result = asl_fast_here("evaluate", run)
        assert (result.returncode, "does not name the run's data" in result.stderr) == (2, True)


def test_export_compares_on_a_runs_own_data(asl_fast_here, folder, run, monkeypatch):
    seen = []

    def exported(network, out, formats, *, images, calibration, **rest):
        seen.append((len(images), len(calibration)))
        raise SystemExit(0)

    monkeypatch.setattr(export, "export", exported)
    asl_fast_here("export", run)
    asl_fast_here("export", run, "--data", folder)
    assert seen == [(36, 60), (48, 120)]
    write_csv(run.parent / "a.csv", *blobs(60, seed=9))
    result = asl_fast_here("export", run)
    assert "a.csv is not the training set of the run" in result.stderr
    assert len(seen) == 2

import json

from asl_fast import build_cnn
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.models import saving
from tests.samples import blobs, write_csv


def test_a_run_is_measured_on_its_own_data_unless_others_are_given(
    asl_fast_here, folder, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    run.mkdir()
    saving.save_model(build_cnn(), run / "model.keras", LETTERS)
    own = [
        write_csv(tmp_path / f"{name}.csv", *blobs(rows)) for name, rows in (("a", 60), ("b", 36))
    ]
    sources = dict(zip(("train", "valid"), ({"source": str(path)} for path in own), strict=True))
    (run / "metrics.json").write_text(json.dumps({"dataset": {"name": "CSV files", **sources}}))
    monkeypatch.setenv("ASL_FAST_DATA", str(folder))
    result = asl_fast_here("evaluate", run, "--json")
    assert json.loads(result.stdout)["rows"] == 36
    assert f"valid: {own[1]}, 36 rows" in result.stderr
    for arguments in ([run, "--data", folder], [run / "model.keras"]):
        assert json.loads(asl_fast_here("evaluate", *arguments, "--json").stdout)["rows"] == 48
    (run / "metrics.json").write_text("{}")
    result = asl_fast_here("evaluate", run)
    assert (result.returncode, "does not name the run's data" in result.stderr) == (2, True)

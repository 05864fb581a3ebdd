import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from asl_fast import load_csv
from asl_fast.data import convert as conversion
from asl_fast.data import kaggle
from asl_fast.data import synthetic_hands as hands


def test_info_shows_what_would_be_used(asl_fast_here, folder, monkeypatch):
    monkeypatch.setenv("ASL_FAST_DATA", str(folder))
    assert json.loads(asl_fast_here("data", "info").stdout)["train"]["rows"] == 120


def test_fetch_says_how_to_use_the_files(asl_fast_here, monkeypatch):
    monkeypatch.setattr(kaggle, "fetch", lambda folder: [folder / "a.csv", folder / "b.csv"])
    result = asl_fast_here("data", "fetch", "--to", "x[/b]")
    assert result.stdout == "Wrote x[/b]/a.csv\nWrote x[/b]/b.csv\nUse it with: --data x[/b]\n"


def test_convert_says_what_it_wrote(asl_fast_here, monkeypatch):
    def convert(*arguments, progress, **settings):
        progress(4000, None)
        assert arguments == (Path("a.csv"), Path("x[/b]"))
        assert settings == {
            "size": (30, 40),
            "color_mode": "rgb",
            "compress": True,
            "shard_rows": 1500,
            "workers": 2,
        }
        return [SimpleNamespace(rows=4000, shards=["a", "b", "c"], folder=Path("x[/b]"))]

    monkeypatch.setattr(conversion, "convert_all", convert)
    options = ["--to", "x[/b]", "--height", 30, "--width", 40, "--color-mode", "rgb"]
    options += ["--compress", "--shard-rows", 1500, "--workers", 2]
    result = asl_fast_here("data", "convert", "a.csv", *options)
    assert result.stdout == "Wrote 4,000 images in 3 shards to x[/b]\n", result.stderr


def test_render_writes_the_files_of_the_course(asl_fast_here, tmp_path, monkeypatch):
    monkeypatch.setattr(hands, "TRAIN_ROWS", 50)
    monkeypatch.setattr(hands, "VALID_ROWS", 30)
    result = asl_fast_here("data", "render", "--to", tmp_path / "drawn")
    for name, rows in (("train", 50), ("valid", 30)):
        path = tmp_path / "drawn" / f"sign_mnist_{name}.csv"
        assert f"Wrote {path}\n" in result.stdout
        images, labels = load_csv(path)
        expected = hands.render(rows, split=name, workers=1)
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(labels, expected[1])

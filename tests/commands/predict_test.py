import csv
import io
import json
import os
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from asl_fast.models import saving
from tests.samples import png_header


@pytest.fixture
def model(tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(4, "softmax")]
    saving.save_model(keras.Sequential(layers), tmp_path / "model.keras", "ABCD")
    return tmp_path / "model.keras"


def test_each_form_says_the_same(asl_fast_here, model, tmp_path, monkeypatch):
    """For a file whose name is not text, and standard input; Pillow's warnings are held back."""
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
    Image.fromarray(noise[0]).save(photos / os.fsdecode(b"a\xfe.png"))
    (photos / "large.png").write_bytes(png_header(12000, 9000))
    file = io.BytesIO()
    Image.fromarray(noise[1]).save(file, "png")
    printed = {}
    for form in ("--json", "--csv", "--verbose"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.getvalue())))
        result = asl_fast_here("predict", model, photos, "-", form)
        assert result.returncode == 1
        assert result.stderr == (
            f"asl-fast: {photos}/large.png has 12,000 × 9,000 pixels; the limit is 89 million. "
            "Make it smaller first.\n"
        )
        printed[form] = result.stdout
    rows = json.loads(printed["--json"])
    assert [row["file"] for row in rows] == [f"{photos}/a\udcfe.png", "-"]
    expected = keras.saving.load_model(model).predict(noise[..., None] / 255, verbose=0)
    best = expected.argmax(axis=1)
    assert [row["letter"] for row in rows] == ["ABCD"[place] for place in best]
    assert [row["probability"] for row in rows] == pytest.approx(expected.max(axis=1), rel=1e-4)
    table = list(csv.DictReader(io.StringIO(printed["--csv"])))
    lines = printed["--verbose"].splitlines()
    for row, cells, line in zip(rows, table, lines, strict=True):
        assert cells["letter"] == row["letter"]
        assert float(cells["probability_3"]) == pytest.approx(
            row["top"][2]["probability"], abs=1e-6
        )
        shares = (f"{one['letter']} {one['probability']:6.1%}" for one in row["top"])
        assert line.endswith("   ".join(shares))
    assert lines[0].startswith(f"{photos}/a\\udcfe.png  ")

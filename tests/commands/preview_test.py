import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from asl_fast.data.synthetic_hands import LETTERS
from tests.samples import blobs, write_csv


def test_the_picture_shows_images_before_and_after(asl_fast_here, folder, tmp_path, monkeypatch):
    figures = []
    save = Figure.savefig

    def savefig(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    out = tmp_path / "new" / "[b].png"
    result = asl_fast_here("preview", "--data", folder, "--out", out)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"Wrote {out}\n"
    assert np.asarray(Image.open(out).convert("L"), float).std() > 20

    before, after = figures[0].subfigs
    images, labels = blobs(120)  # the training images
    stored = {
        (LETTERS[label], image.tobytes()) for image, label in zip(images, labels, strict=True)
    }
    changed = 0
    for left, right in zip(before.axes, after.axes, strict=True):
        shown = left.images[0].get_array()
        assert (left.get_title(), shown.astype(np.uint8).tobytes()) in stored
        assert right.get_title() == left.get_title()
        changed += np.abs(right.images[0].get_array() - shown).mean() > 2
    assert changed == len(before.axes) == 32


def test_fewer_images_than_places_are_all_shown(asl_fast_here, folder, tmp_path):
    write_csv(folder / "sign_mnist_train.csv", *blobs(11))
    result = asl_fast_here("preview", "--data", folder, "--out", tmp_path / "preview.png")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "preview.png").stat().st_size > 5000

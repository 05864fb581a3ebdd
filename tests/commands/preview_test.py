import numpy as np
from PIL import Image

from tests.samples import blobs, write_csv


def test_the_picture_shows_images_before_and_after(asl_fast_here, folder, tmp_path):
    out = tmp_path / "new" / "[b].png"
    result = asl_fast_here("preview", "--data", folder, "--out", out)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"Wrote {out}\n"
    picture = np.asarray(Image.open(out).convert("L"), float)
    left, right = np.array_split(picture[:, : picture.shape[1] // 2 * 2], 2, axis=1)
    assert left.std() > 20
    assert np.abs(left - right).mean() > 2


def test_too_few_images_are_refused(asl_fast_here, folder):
    write_csv(folder / "sign_mnist_train.csv", *blobs(31))
    result = asl_fast_here("preview", "--data", folder)
    assert result.returncode == 2
    assert "has 31 rows; the picture shows 32" in result.stderr

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from asl_fast import InputError, load_csv
from asl_fast.data import csv_table as table
from asl_fast.data import dataset, synthetic_hands
from asl_fast.system import storage
from tests.samples import blobs, write_csv


def test_a_folder_is_found_and_described(folder):
    found = dataset.load(folder)
    assert found.name == "CSV files"
    plain = (folder / "sign_mnist_train.csv").read_bytes()
    assert found.train.describe() == {
        "source": str(folder / "sign_mnist_train.csv"),
        "rows": 120,
        "sha256": hashlib.sha256(plain).hexdigest(),
        "labels": "course",
    }
    np.testing.assert_array_equal(found.valid.labels, blobs(48)[1])


def test_the_environment_names_a_folder(folder, monkeypatch):
    monkeypatch.setenv("ASL_FAST_DATA", str(folder))
    assert len(dataset.load().train.labels) == 120


def test_kaggles_names_and_compressed_files_are_found(folder):
    plain = (folder / "sign_mnist_valid.csv").read_bytes()
    (folder / "sign_mnist_valid.csv").unlink()
    (folder / "sign_mnist_test.csv.gz").write_bytes(gzip.compress(plain))
    valid = dataset.load(folder).valid
    assert valid.source.endswith("sign_mnist_test.csv.gz")
    assert valid.sha256 == hashlib.sha256(plain).hexdigest()  # of the text, not of the gzip


def test_each_file_has_a_spelling_of_its_own(folder):
    images, labels = blobs(48, seed=1)
    write_csv(folder / "sign_mnist_valid.csv", images, labels + (labels >= 9))
    found = dataset.load(folder)
    assert (found.train.spelling, found.valid.spelling) == ("course", "kaggle")
    np.testing.assert_array_equal(found.valid.labels, labels)


def test_single_files(folder):
    files = {name: folder / f"sign_mnist_{name}.csv" for name in ("train", "valid")}
    assert len(dataset.load(**files).train.labels) == 120
    with pytest.raises(InputError, match="belong together: give both"):
        dataset.load(train=files["train"])
    with pytest.raises(InputError, match="not both"):
        dataset.load(folder, **files)


def test_missing_things_are_named(folder, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="There is no file or folder .*nowhere"):
        dataset.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="There is no file .*none.csv"):
        load_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder, not a CSV file"):
        load_csv(folder)
    (folder / "sign_mnist_valid.csv").unlink()
    with pytest.raises(InputError, match=r"holds no sign_mnist_valid.csv or sign_mnist_test.csv"):
        dataset.load(folder)
    # A path that was given is never replaced by the built-in set.
    monkeypatch.setenv("ASL_FAST_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="There is no file or folder"):
        dataset.load()


def test_a_second_load_comes_from_the_cache_and_a_changed_file_does_not(folder, monkeypatch):
    path = folder / "sign_mnist_train.csv"
    first = load_csv(path)
    parse = table.parse
    monkeypatch.setattr(table, "parse", lambda *_: pytest.fail("parsed again"))
    images, labels = load_csv(path)
    assert isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, first[0])
    np.testing.assert_array_equal(labels, first[1])

    monkeypatch.setattr(table, "parse", parse)
    status = path.stat()
    write_csv(path, *blobs(120, seed=7))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # content counts, not time
    np.testing.assert_array_equal(load_csv(path)[0], blobs(120, seed=7)[0])


def test_a_damaged_cache_is_made_anew(folder, caplog):
    path = folder / "sign_mnist_train.csv"
    load_csv(path)
    (entry,) = filter(Path.is_dir, storage.cache_folder().iterdir())
    (entry / "images.npy").write_bytes((entry / "images.npy").read_bytes()[:50])
    np.testing.assert_array_equal(load_csv(path)[0], blobs(120)[0])
    assert "is damaged and is made anew" in caplog.text
    caplog.clear()
    load_csv(path)
    assert not caplog.text


def test_a_cache_that_cannot_be_written_is_only_a_warning(folder, monkeypatch, caplog):
    monkeypatch.setenv("ASL_FAST_CACHE", str(folder / "sign_mnist_valid.csv" / "cache"))
    images, _ = load_csv(folder / "sign_mnist_train.csv")
    np.testing.assert_array_equal(images, blobs(120)[0])
    assert "can't be cached" in caplog.text


def test_the_built_in_set(monkeypatch):
    monkeypatch.setattr(synthetic_hands, "TRAIN_ROWS", 60)
    monkeypatch.setattr(synthetic_hands, "VALID_ROWS", 30)
    rendered = []
    first = dataset.load(progress=rendered.append)
    assert first.name == dataset.BUILT_IN
    assert sum(rendered) == 90
    monkeypatch.setattr(synthetic_hands, "render", lambda *_, **__: pytest.fail("rendered again"))
    second = dataset.load()
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert first.describe() == second.describe()
    assert first.train.sha256 != first.valid.sha256


@pytest.mark.real_data
def test_the_real_data_are_known(real_data):
    real = dataset.load(real_data)
    assert real.name == "Sign Language MNIST"
    assert real.train.images.shape == (27_455, 28, 28, 1)
    assert real.valid.images.shape == (7_172, 28, 28, 1)
    assert set(real.train.labels) == set(range(24))

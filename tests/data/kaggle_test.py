import hashlib
import sys
import types

import pytest

from asl_fast import InputError
from asl_fast.data import kaggle


@pytest.fixture
def kagglehub(monkeypatch, tmp_path):
    """Stands in for the package: hands out files from a folder of its own."""
    files = {name: tmp_path / "hub" / name for name in kaggle._FILES}
    (tmp_path / "hub").mkdir()
    for name, path in files.items():
        path.write_text(name)
    module = types.ModuleType("kagglehub")
    module.dataset_download = lambda handle, path: str(files[path])
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    known = {hashlib.sha256(name.encode()).hexdigest(): name for name in files}
    monkeypatch.setattr(kaggle, "KNOWN_SHA256", known)
    return module


def test_both_files_are_fetched(kagglehub, tmp_path):
    paths = kaggle.fetch(tmp_path / "data")
    assert [path.read_text() for path in paths] == list(kaggle._FILES)
    assert sorted((tmp_path / "data").iterdir()) == sorted(paths)


def test_a_file_that_is_not_the_known_one_is_refused(kagglehub, tmp_path):
    (tmp_path / "hub" / "sign_mnist_test.csv").write_text("something else")
    with pytest.raises(InputError, match="sign_mnist_test.csv .* is not the known file"):
        kaggle.fetch(tmp_path / "data")
    assert not (tmp_path / "data" / "sign_mnist_test.csv").exists()


def test_a_failed_download_is_one_line(kagglehub, tmp_path):
    def fail(handle, path):
        raise ConnectionError("no route to host\nmore lines")

    kagglehub.dataset_download = fail
    with pytest.raises(InputError, match="can't be downloaded: no route to host$"):
        kaggle.fetch(tmp_path / "data")


def test_without_kagglehub_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(InputError, match=r"asl-fast\[kaggle\]"):
        kaggle.fetch(tmp_path / "data")

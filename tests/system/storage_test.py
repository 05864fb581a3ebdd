import pytest

from asl_fast import InputError
from asl_fast.system import storage


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def fail_halfway():
        with storage.replacing(path) as aside:
            aside.write_text("ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    with path.open() as opened_before:
        with storage.replacing(path) as aside:
            aside.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert opened_before.read() == "old"  # renamed over, not written into
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="output folder .*file/run can't be written to"):
        storage.make_folder(tmp_path / "file" / "run")

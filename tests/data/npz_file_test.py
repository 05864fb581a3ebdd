import io
import zipfile

import numpy as np
import pytest

from asl_fast import InputError
from asl_fast.data import convert, dataset
from asl_fast.training import run
from tests.samples import blobs

TRAIN, TEST = blobs(120), blobs(48, seed=1)
ARRAYS = {"x_train": TRAIN[0], "y_train": TRAIN[1], "x_test": TEST[0], "y_test": TEST[1]}


def saved(folder, **arrays):
    path = folder / "data.npz"
    np.savez_compressed(path, **{**ARRAYS, **arrays})
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"x_train": TRAIN[0][..., 0], "y_train": TRAIN[1][:, None].astype(np.uint8)},
        {"x_train": (TRAIN[0] / 255).astype(np.float32), "y_train": np.eye(24)[TRAIN[1]]},
        {"x_train": TRAIN[0].astype(np.float64), "y_train": TRAIN[1].astype(np.float32)},
        {"x_train": np.asfortranarray(TRAIN[0].astype(np.int64))},
    ],
    ids=["uint8", "no channels", "scaled, one-hot", "floats", "Fortran's order"],
)
def test_arrays_are_read_in_the_forms_that_people_save(tmp_path, changed):
    data = dataset.load(saved(tmp_path, **changed))
    assert data.name == "NumPy arrays"
    assert data.train.images.dtype == np.uint8
    np.testing.assert_array_equal(data.train.images, TRAIN[0])
    np.testing.assert_array_equal(data.train.labels, TRAIN[1])
    np.testing.assert_array_equal(data.valid.images, TEST[0])
    assert data.train.sha256 == dataset.load(saved(tmp_path)).train.sha256 != data.valid.sha256


def test_labels_without_end_are_refused(tmp_path):
    path = saved(tmp_path, y_train=np.zeros((1 << 20, 24), np.uint8))
    with pytest.raises(InputError, match="y_train holds 25,165,824 numbers, too many for labels"):
        dataset.load(path)


def test_arrays_for_validation_are_preferred_to_those_for_a_test(tmp_path):
    path = saved(tmp_path, x_val=TRAIN[0][:24], y_val=TRAIN[1][:24])
    np.testing.assert_array_equal(dataset.load(path).valid.images, TRAIN[0][:24])


def test_a_run_finds_the_file_in_its_folder_and_again_by_its_sources(tmp_path):
    path = saved(tmp_path)
    data = dataset.load(tmp_path)
    assert data.train.source == data.valid.source == str(path)
    again = dataset.load(train=data.train.source, valid=data.valid.source)
    assert again._replace(place={}).describe() == data._replace(place={}).describe()
    assert dataset.load(**data.place).describe() == data.describe()
    changes = {"epochs": 1, "batch_size": 60}
    metrics = run.train(data, tmp_path / "run", recipe="course", changes=changes, verbose=0)
    assert metrics["dataset"]["train"]["rows"] == 120


def test_a_folder_with_other_data_keeps_its_meaning(folder, tmp_path):
    saved(folder)
    assert dataset.load(folder).name == "CSV files"
    (tmp_path / "two").mkdir()
    for name in ("a.npz", "b.npz"):
        saved(tmp_path).rename(tmp_path / "two" / name)
    with pytest.raises(InputError, match="holds no data set.*npz file with x_train"):
        dataset.load(tmp_path / "two")


def test_images_of_any_size_are_converted(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (30, 5, 7, 3), np.uint8)
    labels = np.arange(30) % 4
    path = saved(tmp_path, x_train=colours, y_train=labels, x_test=colours[:9], y_test=labels[:9])
    loaded = dataset.load(path)
    np.testing.assert_array_equal(loaded.train.images, colours)
    assert (loaded.valid.shape, loaded.valid.classes) == ((5, 7, 3), ("0", "1", "2", "3"))
    train, valid = convert.convert_all(path, tmp_path / "records", shard_rows=16, workers=1)
    assert (train.shape, train.classes, len(train.shards)) == ((5, 7, 3), ("0", "1", "2", "3"), 2)
    images, classes = next(train.batches(30).as_numpy_iterator())
    np.testing.assert_array_equal(images, colours)
    np.testing.assert_array_equal(classes, labels)
    assert valid.rows == 9


def test_ten_digits_are_not_taken_for_letters(tmp_path):
    digits = dataset.load(saved(tmp_path, y_train=TRAIN[1] % 10, y_test=TEST[1] % 10))
    assert digits.train.classes == tuple("0123456789")


REFUSED = {
    "no labels": ({"y_test": None}, "has no array y_test"),
    "Python objects": ({"y_train": np.array([{}] * 120)}, "y_train holds object values"),
    "words": ({"y_train": np.array(["A"] * 120)}, "y_train holds <U1 values"),
    "truth values": ({"x_train": TRAIN[0] > 9}, "x_train holds bool values"),
    "flat images": ({"x_train": TRAIN[0].reshape(120, -1)}, r"x_train has the shape \(120, 784\)"),
    "channels first": ({"x_train": np.zeros((120, 1, 28, 28))}, "x_train has the shape"),
    "no rows": ({"x_train": TRAIN[0][:0], "y_train": TRAIN[1][:0]}, "y_train has the shape"),
    "fewer labels": ({"y_train": TRAIN[1][:-1]}, "x_train holds 120 images, y_train 119 labels"),
    "centred": ({"x_train": TRAIN[0] / 127.5 - 1}, "x_train holds .* values from -1.0 to "),
    "fractions": ({"x_train": TRAIN[0] / 2}, "x_train holds .* values from 0.0 to "),
    "not a number": ({"x_train": np.full((120, 28, 28), np.nan)}, "holds float64 values from nan"),
    "nearly black": ({"x_train": TRAIN[0] // 255}, "x_train holds uint8 values from 0 to 0"),
    "too bright": ({"x_train": TRAIN[0].astype(int) + 200}, "x_train holds .* values from 200"),
    "negative labels": ({"y_train": TRAIN[1] - 1}, "values that are not labels"),
    "half labels": ({"y_train": TRAIN[1] / 2}, "values that are not labels"),
    "huge labels": ({"y_train": TRAIN[1].astype(np.int64) << 40}, "values that are not labels"),
    "two hot": ({"y_train": np.ones((120, 24))}, r"y_train has the shape \(120, 24\)"),
}


@pytest.mark.parametrize(("changed", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_read_safely_is_refused(tmp_path, changed, message):
    path = tmp_path / "data.npz"
    arrays = {name: array for name, array in {**ARRAYS, **changed}.items() if array is not None}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as error:
        dataset.load(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def member(shape, content=b"", descr="|u1"):
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


MADE = {
    "endless": (member((1 << 40, 28, 28)), "x_train would take 822,083,584 MiB"),
    "negative": (member((-1, 28, 28)), "x_train"),
    "expanding": (member((800_000, 28, 28), bytes(800_000 * 784)), "x_train would take 598 MiB"),
    "shorter": (member((120, 28, 28), bytes(99)), "x_train is shorter than its header says"),
    "no array": (b"text", "is damaged: x_train can't be read"),
    "an odd header": (member((1,)).replace(b"{'d", b"(\\x"), "is damaged: x_train can't be read"),
}


@pytest.mark.parametrize(("content", "message"), MADE.values(), ids=MADE)
def test_headers_are_checked_before_memory_is_allocated(tmp_path, content, message, monkeypatch):
    path = tmp_path / "data.npz"
    np.savez(path, **{name: array for name, array in ARRAYS.items() if name != "x_train"})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x_train.npy", content)
    monkeypatch.setattr(np.lib.format, "read_array", labels_only(np.lib.format.read_array))
    with pytest.raises(InputError, match=message):
        dataset.load(path)


def labels_only(read_array):
    def read(file, **options):
        assert file.name.startswith("y_")
        return read_array(file, **options)

    return read


@pytest.mark.parametrize("length", [0, 4, 100, -30])
def test_a_file_cut_short_is_named(tmp_path, length):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="data.npz is damaged"):
        dataset.load(path)

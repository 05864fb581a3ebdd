"""Pictures of any size, channels and classes: found, given one shape, divided, and numbered."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asl_fast import InputError
from asl_fast.data import convert, dataset
from asl_fast.images import photograph
from tests.samples import shapes

CLASSES = ("bar", "big dot", "sky")


def test_class_folders_are_a_training_and_a_validation_set(tmp_path):
    shapes(tmp_path / "train", 4)
    shapes(tmp_path / "test", 2, classes=("bar", "big dot"))
    shapes(tmp_path / "train" / ".ipynb_checkpoints", 1)
    (tmp_path / "train" / "bar" / "notes.txt").touch()
    data = dataset.load(tmp_path)
    assert (data.train.rows, data.valid.rows) == (12, 4)
    assert data.train.shape == (16, 20, 3)
    assert data.train.classes == data.valid.classes == CLASSES
    with Image.open(tmp_path / "train" / "big dot" / "2.png") as image:
        np.testing.assert_array_equal(data.train.images[6], np.asarray(image))
    np.testing.assert_array_equal(data.train.labels, np.repeat([0, 1, 2], 4))
    # Folders for validation proper come before those for a test.
    shapes(tmp_path / "val", 3)
    assert dataset.load(tmp_path).valid.rows == 9
    with pytest.raises(InputError, match=r"a validation set already: .*/val. Leave out --valid"):
        dataset.load(tmp_path, validation_split=0.5)


def test_a_class_of_the_validation_set_alone_is_named(tmp_path):
    shapes(tmp_path / "train", 2, classes=("bar", "big dot"))
    shapes(tmp_path / "valid", 2)
    with pytest.raises(InputError, match="valid holds the class 'sky', which is none of the 2"):
        dataset.load(tmp_path)


def test_a_single_set_is_divided_by_class_and_seed(tmp_path):
    shapes(tmp_path / "train", 10)  # a folder train without a partner is the single set
    first = dataset.load(tmp_path, validation_split=0.2)
    assert np.bincount(first.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(first.valid.labels).tolist() == [2, 2, 2]
    rows = {image.tobytes() for split in (first.train, first.valid) for image in split.images}
    assert len(rows) == 30
    again = dataset.load(**first.place)
    assert again.describe() == first.describe()
    other = dataset.load(tmp_path, validation_split=0.2, seed=1)
    assert other.valid.sha256 != first.valid.sha256
    whole = dataset.load(tmp_path, undivided=True)
    assert whole.train.rows == whole.valid.rows == 30
    with pytest.raises(InputError, match="holds a single set. Give the share of each class"):
        dataset.load(tmp_path)


@pytest.mark.parametrize(("rows", "share", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (5, 0.5, 2)])
def test_each_class_is_on_both_sides(rows, share, expected):
    images, labels = np.zeros((2 * rows, 4, 4, 1), np.uint8), np.arange(2 * rows) % 2
    whole = dataset.Split(images, labels, "here", "0", "own", classes=("a", "b"))
    first, second = dataset.divided(whole, share, 0)
    assert np.bincount(second.labels).tolist() == [expected] * 2
    assert np.bincount(first.labels).tolist() == [rows - expected] * 2


def test_images_of_several_sizes_need_one_to_be_chosen(tmp_path):
    shapes(tmp_path / "train", 2)
    shapes(tmp_path / "train", 1, size=(30, 10), classes=("bar",))
    shapes(tmp_path / "valid", 1)
    with pytest.raises(InputError, match=r"2 sizes: .*16x20.*30x10|2 sizes: .*30x10.*16x20"):
        dataset.load(tmp_path)
    data = dataset.load(tmp_path, image_size=(12, 15), color="grayscale")
    assert data.train.shape == (12, 15, 1)
    # What is learnt from is what a prediction of the same file sees.
    path = tmp_path / "train" / "bar" / "0.png"
    np.testing.assert_array_equal(data.train.images[0], photograph.read(path, 12, 15, 1).pixels)


def test_grey_and_upright_images_are_told_by_their_headers(tmp_path):
    shapes(tmp_path / "grey", 2, mode="L")
    assert dataset.load(tmp_path / "grey", undivided=True).train.shape == (16, 20, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    (tmp_path / "turned" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 12)).save(tmp_path / "turned" / "a" / "0.jpg", exif=exif)
    assert dataset.load(tmp_path / "turned", undivided=True).train.shape == (8, 12, 3)


def test_a_table_of_file_names(tmp_path):
    files = sorted(shapes(tmp_path / "files", 3).glob("*/*.png"))
    names = [str(file.relative_to(tmp_path)) for file in files]
    frame = pd.DataFrame({"filename": names, "class": [file.parent.name for file in files]})
    frame.to_csv(tmp_path / "table.csv", index=False)
    data = dataset.load(tmp_path / "table.csv", validation_split=0.3)
    assert (data.train.rows, data.valid.rows, data.train.classes) == (6, 3, CLASSES)
    frame.loc[4, "filename"] = "files/none.png"
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(InputError, match="files/none.png can't be read: No such file"):
        dataset.load(tmp_path / "table.csv", validation_split=0.3, image_size=(8, 8))


def test_a_changed_file_is_read_again_and_others_come_from_the_cache(tmp_path, monkeypatch):
    shapes(tmp_path, 2)
    first = dataset.load(tmp_path, undivided=True).train
    with monkeypatch.context() as patch:
        patch.setattr(photograph, "read", lambda *_, **__: pytest.fail("read again"))
        np.testing.assert_array_equal(
            dataset.load(tmp_path, undivided=True).train.images, first.images
        )
    Image.new("RGB", (20, 16), "white").save(tmp_path / "bar" / "1.png")
    changed = dataset.load(tmp_path, undivided=True).train
    assert (changed.images[1] == 255).all()
    assert changed.sha256 != first.sha256


def test_records_and_arrays_are_single_sets_too(tmp_path):
    files = shapes(tmp_path / "files", 5)
    convert.convert(files, tmp_path / "records", size=(16, 20), color_mode="rgb", workers=1)
    data = dataset.load(tmp_path / "records", validation_split=0.2)
    assert (data.train.rows, data.valid.rows, data.train.records) == (12, 3, None)
    assert data.train.classes == CLASSES
    np.savez(tmp_path / "data.npz", x=data.train.images, y=data.train.labels)
    arrays = dataset.load(tmp_path / "data.npz", validation_split=0.25, image_size=(8, 10))
    assert (arrays.train.shape, arrays.train.rows, arrays.valid.rows) == ((8, 10, 3), 9, 3)


def test_records_that_lack_a_class_are_numbered_as_the_others(tmp_path):
    for name, classes in (("train", CLASSES), ("valid", ("big dot", "sky"))):
        files = shapes(tmp_path / "files" / name, 2, classes=classes)
        convert.convert(files, tmp_path / name, size=(16, 20), color_mode="rgb", workers=1)
    valid = dataset.load(tmp_path).valid
    assert valid.classes == CLASSES
    labels = next(valid.records.batches(9).as_numpy_iterator())[1]
    assert np.bincount(labels).tolist() == [0, 2, 2]


WRONG = {
    "a size of one number": ({"image_size": (5,)}, "image size must be a height and a width"),
    "no size": ({"image_size": (0, 5)}, "image size must be a height and a width"),
    "a colour": ({"color": "RGB"}, "color must be one of grayscale, rgb. Received: 'RGB'"),
    "all": ({"validation_split": 1.0}, "validation split must be above 0 and below 1"),
    "no number": ({"validation_split": float("nan")}, "validation split must be above 0"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_named(tmp_path, options, message):
    shapes(tmp_path, 1)
    with pytest.raises(InputError, match=message):
        dataset.load(tmp_path, **options)


def test_a_single_image_of_each_class_can_not_be_divided(tmp_path):
    shapes(tmp_path, 1)
    with pytest.raises(InputError, match="a single image of each class, so none can be set apart"):
        dataset.load(tmp_path, validation_split=0.2)


def test_images_of_four_channels_and_too_many_images_are_named(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", x=np.full((6, 9, 9, 4), 99, np.uint8), y=np.arange(6) % 2)
    with pytest.raises(InputError, match="images of 4 channels. Choose --color"):
        dataset.load(tmp_path / "data.npz", undivided=True)
    assert dataset.load(tmp_path / "data.npz", undivided=True, color="rgb").train.shape == (9, 9, 3)
    monkeypatch.setattr("os.sysconf", lambda _: 30)
    shapes(tmp_path / "files", 3)
    with pytest.raises(InputError, match="9 images of 16x20x3 take 0.0 GB, more than half"):
        dataset.load(tmp_path / "files", undivided=True)

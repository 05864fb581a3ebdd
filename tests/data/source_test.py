import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asl_fast import InputError
from asl_fast.data import convert, dataset, synthetic_hands
from asl_fast.data.class_folders import ClassFolders
from asl_fast.data.csv_table import CsvTable
from asl_fast.data.file_table import FileTable
from asl_fast.data.record_folder import RecordFolder
from asl_fast.data.rendered_hands import RenderedHands
from tests.samples import blobs, write_csv

IMAGES, LABELS = blobs(48)


def table(folder):
    return write_csv(folder / "some.csv", IMAGES, LABELS)


def class_folders(folder):
    for row, (image, label) in enumerate(zip(IMAGES[..., 0], LABELS, strict=True)):
        of_class = folder / synthetic_hands.LETTERS[label]
        of_class.mkdir(exist_ok=True)
        Image.fromarray(image).save(of_class / f"{row}.png")
    return folder


def file_table(folder):
    files = sorted(class_folders(folder).glob("*/*"))
    names = [str(file.relative_to(folder)) for file in files]
    frame = pd.DataFrame({"filename": names, "class": [file.parent.name for file in files]})
    frame.to_csv(folder / "list.csv", index=False)
    return folder / "list.csv"


def records(folder):
    return convert.convert(table(folder), folder / "records", shard_rows=20, workers=1).folder


SINGLE = [
    (CsvTable, table),
    (ClassFolders, class_folders),
    (FileTable, file_table),
    (RecordFolder, records),
]


@pytest.mark.parametrize(("form", "make"), SINGLE)
def test_a_single_set_is_found_and_read_in_batches_elsewhere(tmp_path, form, make):
    sets = dataset.find(make(tmp_path))
    assert set(sets) == {""}
    source = sets[""].resized((28, 28), "grayscale")
    assert type(source) is form
    assert source.shape == (28, 28, 1)
    assert source.classes == tuple(synthetic_hands.LETTERS)
    assert source.rows in (48, None)
    reads = [pickle.loads(pickle.dumps(read)) for read in source.batches(20)]
    batches = [read() for read in reads]
    assert [len(images) for images, _ in batches] == [20, 20, 8]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert images.dtype == np.uint8
    order = np.lexsort(images.reshape(48, -1).T), np.lexsort(IMAGES.reshape(48, -1).T)
    np.testing.assert_array_equal(images[order[0]], IMAGES[order[1]])
    np.testing.assert_array_equal(labels[order[0]], LABELS[order[1]])
    assert source.stored_labels({*labels.tolist()}, 255) == list(range(24))


def test_the_built_in_set_is_found_by_its_name():
    sets = dataset.find(Path(dataset.BUILT_IN))
    assert {name: type(one) for name, one in sets.items()} == {
        "train": RenderedHands,
        "valid": RenderedHands,
    }


def test_training_needs_two_sets_or_a_share_to_validate_on(tmp_path):
    with pytest.raises(InputError, match="some.csv holds a single set. Give the share of each"):
        dataset.load(table(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no data set. Give one of these: .*sign_mnist_tr"):
        dataset.load(tmp_path / "empty")

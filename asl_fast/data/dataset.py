"""Data sets: a training and a validation set, from files or built in."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asl_fast.data.class_folders import ClassFolders
from asl_fast.data.csv_table import CsvTable
from asl_fast.data.file_table import FileTable
from asl_fast.data.npz_file import NpzFile
from asl_fast.data.record_folder import RecordFolder
from asl_fast.data.rendered_hands import RenderedHands
from asl_fast.data.source import DataSource
from asl_fast.system.errors import InputError

__all__ = [
    "BUILT_IN",
    "FORMATS",
    "KNOWN_SHA256",
    "Dataset",
    "Split",
    "built_in",
    "find",
    "load",
    "load_csv",
    "write_csv",
]

# In the order in which they are asked for a path; `CsvTable` takes any file.
FORMATS: tuple[type[DataSource], ...] = (
    RenderedHands,
    RecordFolder,
    NpzFile,
    FileTable,
    CsvTable,
    ClassFolders,
)

BUILT_IN = RenderedHands.kind

# Of the plain CSV files. The course's and Kaggle's hold the same rows with other labels.
KNOWN_SHA256 = {
    "335e75454c3a93cf0cc493cef3144f18ef640a9e16e11dba1153c06c0e7de1d9": "sign_mnist_train.csv",
    "0d1d67f8d6208ad951619e41c2ea92aa50e24337b8dfc0fb366b787a34eafc3a": "sign_mnist_valid.csv",
    "b7ff39ad5f1210fa765ce11aa5f20c2e97fe467ffc22231aac923c863eef75c4": "sign_mnist_train.csv",
    "178c0dd21c4b0e86d58df12f14ea1e9efa795ad19d146802b3b28094a16d56ae": "sign_mnist_test.csv",
}


class Split(NamedTuple):
    """The training or the validation set of a data set.

    Attributes:
        images: uint8, (rows, 28, 28, 1); empty for records.
        labels: int32, (rows,), 0 to 23; empty for records.
        source: A path, or `BUILT_IN`.
        sha256: Of the plain CSV text, so that a compressed copy counts as the same; of the arrays
            or the records otherwise.
        spelling: How the file numbers its labels; see `csv_table.contiguous`.
        records: `Records` that are streamed, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str
    sha256: str
    spelling: str
    records: Any = None

    @property
    def rows(self) -> int:
        """The number of images."""
        return len(self.labels) if self.records is None else self.records.rows

    def some(self, count: int) -> np.ndarray:
        """Returns up to `count` images, uint8: evenly spaced, or the first ones of records."""
        if self.records is not None:
            return next(self.records.batches(count).as_numpy_iterator())[0]
        places = np.linspace(0, len(self.images) - 1, min(count, len(self.images)), dtype=int)
        return self.images[places]

    def describe(self) -> dict[str, Any]:
        """Returns the entry in `metrics.json`."""
        return {
            "source": self.source,
            "rows": self.rows,
            "sha256": self.sha256,
            "labels": self.spelling,
        }


class Dataset(NamedTuple):
    """A training set and its validation set."""

    name: str
    train: Split
    valid: Split

    def describe(self) -> dict[str, Any]:
        """Returns the entry in `metrics.json`."""
        return {
            "name": self.name,
            "train": self.train.describe(),
            "valid": self.valid.describe(),
        }


def load_csv(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Loads a Sign Language MNIST table: plain, .gz, .zip or .xz.

    The first load parses the file and caches the arrays by the file's content; later loads map
    them into memory.

    Args:
        path: A CSV file with the columns label and pixel1 to pixel784. Labels may be the course's
            (0 to 23) or Kaggle's (0 to 24 without 9).

    Returns:
        Images, uint8 (n, 28, 28, 1), and labels, int32 (n,), 0 to 23: A to Y without J.

    Raises:
        InputError: The file can't be read; names the file and, if possible, row and column.
    """
    images, labels, _ = CsvTable(Path(path)).read()
    return images, labels


def find(path: Path) -> dict[str, DataSource]:
    """Returns the sets at a path, from the first format that is found there; see `DataSource.find`.

    Raises:
        InputError: The path doesn't exist, can't be read, or no format is found there.
    """
    if str(path) != BUILT_IN and not path.exists():
        raise InputError(f"There is no file or folder {path}.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is neither a file nor a folder, but a pipe or a device.")
    try:
        for form in FORMATS:
            if sets := form.find(path):
                return sets
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    known = "; ".join(form.wanted for form in FORMATS)
    raise InputError(f"{path} holds no data set. Give one of these: {known}.")


def load(
    folder: str | os.PathLike[str] | None = None,
    *,
    train: str | os.PathLike[str] | None = None,
    valid: str | os.PathLike[str] | None = None,
    progress: Callable[[int], object] | None = None,
    damaged: str = "stop",
    service: str = "",
) -> Dataset:
    """Loads a data set for training: images of 28x28x1 of the 24 letters.

    Args:
        folder: A folder or file that holds a training and a validation set in one of `FORMATS`.
            By default the one that the environment variable `ASL_FAST_DATA` names; only if that is
            not set, the built-in set.
        train: The training set alone, in place of `folder`; goes with `valid`.
        valid: The validation set alone; goes with `train`.
        progress: Called with the number of images rendered since its last call, if the built-in
            set is not yet cached.
        damaged: "stop" or "skip", for records; see `Records.open`.
        service: Address of a tf.data service that reads the training records, or "".

    Raises:
        InputError: A path is missing, can't be read, or holds other images or classes.
    """
    if train or valid:
        if folder is not None:
            raise InputError("Give a data folder or single train and valid files, not both.")
        if not (train and valid):
            raise InputError("A train and a valid file belong together: give both.")
        sets = {}
        for split, path in (("train", train), ("valid", valid)):
            there = find(Path(path))
            sets[split] = there.get(split) or there[""]
    else:
        path = Path(folder or os.environ.get("ASL_FAST_DATA") or BUILT_IN)
        sets = find(path)
        if "" in sets:
            _check_kind(sets[""])
            raise InputError(
                f"{path} holds a single set. Give a training and a validation set (--train, "
                "--valid)."
            )
    splits = [
        _load(sets["train"], progress, damaged, service),
        _load(sets["valid"], progress, damaged, ""),
    ]
    known = all(split.sha256 in KNOWN_SHA256 for split in splits)
    return Dataset("Sign Language MNIST" if known else sets["train"].kind, *splits)


def built_in(*, progress: Callable[[int], object] | None = None) -> Dataset:
    """Loads the built-in rendered hands, rendering them if they are not in the cache.

    Args:
        progress: As for `load`.
    """
    return load(BUILT_IN, progress=progress)


def write_csv(dataset: Dataset, folder: Path) -> list[Path]:
    """Writes a data set as the two CSV files of the course.

    Args:
        dataset: Its images in memory, not records.
        folder: Where to write sign_mnist_train.csv and sign_mnist_valid.csv; made if need be.

    Returns:
        The paths of the two files.

    Raises:
        InputError: The folder can't be written to.
    """
    from asl_fast.data import csv_table as table
    from asl_fast.system import storage

    storage.make_folder(folder)
    paths = []
    for name, split in (("train", dataset.train), ("valid", dataset.valid)):
        path = folder / f"sign_mnist_{name}.csv"
        with storage.replacing(path) as aside:
            table.write(aside, split.images, split.labels)
        paths.append(path)
    return paths


def _load(
    source: DataSource, progress: Callable[[int], object] | None, damaged: str, service: str
) -> Split:
    _check_kind(source)
    records = source.stream(damaged, service)
    if records is not None:
        none = np.zeros((0, *records.shape), np.uint8), np.zeros(0, np.int32)
        return Split(*none, source.name, records.sha256, "course", records)
    if service:
        raise InputError(
            f"A tf.data service reads only converted data. Convert {source.name} (asl-fast data "
            "convert), or train without the service."
        )
    images, labels, facts = source.read(progress)
    return Split(images, labels, source.name, facts["sha256"], facts.get("spelling", "course"))


def _check_kind(source: DataSource) -> None:
    """Refuses data that the command line doesn't train on."""
    if source.shape is None:
        raise InputError(
            f"{source.name} holds image files, which training does not read. Convert them first: "
            f"asl-fast data convert {source.name} --to FOLDER."
        )
    if source.shape != CsvTable.shape or source.classes != CsvTable.classes:
        raise InputError(
            f"{source.name} holds images of {source.shape} in {len(source.classes)} classes; "
            f"needed are {CsvTable.shape} and the 24 letters. Train on others with asl_fast.fit "
            "and asl_fast.build_cnn."
        )

"""Data sets: found by folder, by file or built in; parsed once and cached."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asl_fast.data import synthetic_hands as hands
from asl_fast.system import quiet, storage
from asl_fast.system.errors import InputError

__all__ = [
    "BUILT_IN",
    "KNOWN_SHA256",
    "Dataset",
    "Split",
    "built_in",
    "load",
    "load_csv",
    "write_csv",
]

BUILT_IN = "built-in rendered hands"

# Of the plain CSV files; the course and Kaggle hold the same rows with labels counted differently.
KNOWN_SHA256 = {
    "335e75454c3a93cf0cc493cef3144f18ef640a9e16e11dba1153c06c0e7de1d9": "sign_mnist_train.csv",
    "0d1d67f8d6208ad951619e41c2ea92aa50e24337b8dfc0fb366b787a34eafc3a": "sign_mnist_valid.csv",
    "b7ff39ad5f1210fa765ce11aa5f20c2e97fe467ffc22231aac923c863eef75c4": "sign_mnist_train.csv",
    "178c0dd21c4b0e86d58df12f14ea1e9efa795ad19d146802b3b28094a16d56ae": "sign_mnist_test.csv",
}

_TRAIN_NAMES = ["sign_mnist_train.csv"]
_VALID_NAMES = ["sign_mnist_valid.csv", "sign_mnist_test.csv"]
_INDEX = "index.json"
_ENDINGS = ["", ".gz", ".zip", ".xz"]
_PARSER_VERSION = 1  # part of the cache key: raise it when `table.parse` comes to other arrays


class Split(NamedTuple):
    """The train or the valid half of a data set.

    Attributes:
        images: uint8, (rows, 28, 28, 1); none where the data are records.
        labels: int32, (rows,), 0 to 23; none where the data are records.
        source: Where they are from: a path, or `BUILT_IN`.
        sha256: Of the plain CSV text, so that a compressed copy counts as the same; of the arrays
            for the built-in set.
        spelling: How the file counts its labels; see `table.Table`.
        records: `Records`, which are streamed, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str
    sha256: str
    spelling: str
    records: Any = None

    @property
    def rows(self) -> int:
        """Int, images."""
        return len(self.labels) if self.records is None else self.records.rows

    def some(self, count: int) -> np.ndarray:
        """Returns up to `count` images, uint8: from all over, or the first ones of records."""
        if self.records is not None:
            return next(self.records.batches(count).as_numpy_iterator())[0]
        places = np.linspace(0, len(self.images) - 1, min(count, len(self.images)), dtype=int)
        return self.images[places]

    def describe(self) -> dict[str, Any]:
        """Returns what `metrics.json` says of it."""
        return {
            "source": self.source,
            "rows": self.rows,
            "sha256": self.sha256,
            "labels": self.spelling,
        }


class Dataset(NamedTuple):
    """A train set and the valid set that belongs to it."""

    name: str
    train: Split
    valid: Split

    def describe(self) -> dict[str, Any]:
        """Returns what `metrics.json` says of it."""
        return {
            "name": self.name,
            "train": self.train.describe(),
            "valid": self.valid.describe(),
        }


def load_csv(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Loads a Sign Language MNIST table: plain, .gz, .zip or .xz.

    The first load parses the file and caches the arrays by the file's content; later ones map
    them into memory.

    Args:
        path: A CSV file with the columns label and pixel1 to pixel784. Labels may be the course's
            (0 to 23) or Kaggle's (0 to 24 without 9).

    Returns:
        Images, uint8 (n, 28, 28, 1), and labels, int32 (n,), 0 to 23: A to Y without J.

    Raises:
        InputError: The file can't be read; names the file and, where there is one, row and column.
    """
    split = _load_file(Path(path))
    return split.images, split.labels


def load(
    folder: str | os.PathLike[str] | None = None,
    *,
    train: str | os.PathLike[str] | None = None,
    valid: str | os.PathLike[str] | None = None,
    progress: Callable[[int], object] | None = None,
    damaged: str = "stop",
    service: str = "",
) -> Dataset:
    """Loads a data set.

    Args:
        folder: Holds `sign_mnist_train.csv` and `sign_mnist_valid.csv` or `sign_mnist_test.csv`,
            compressed or not; or two folders of records, `train` and `valid`. By default the
            folder that `ASL_FAST_DATA` names; only where that is not set, the built-in set.
        train: A single file, or folder of records, in the folder's stead; goes with `valid`.
        valid: The same; goes with `train`.
        progress: Called with the number of images rendered since its last call, where the
            built-in set is not yet in the cache.
        damaged: "stop" or "skip": what to do about damaged records; see `Records.open`.
        service: Address of a tf.data service that is to read the train records, or "".

    Raises:
        InputError: Something named is missing or can't be read.
    """
    if service:
        found = load(folder, train=train, valid=valid, damaged=damaged)
        return found._replace(train=_served(found.train, service))
    if train or valid:
        if folder is not None:
            raise InputError("Give a data folder or single train and valid files, not both.")
        if not (train and valid):
            raise InputError("A train and a valid file belong together: give both.")
        return _load_files(Path(train), Path(valid), damaged)
    if folder is None:
        folder = os.environ.get("ASL_FAST_DATA") or None
    if folder is None:
        return built_in(progress=progress)
    folder = Path(folder)
    if (folder / "train" / _INDEX).exists():
        return _load_files(folder / "train", folder / "valid", damaged)
    return _load_files(_find(folder, _TRAIN_NAMES), _find(folder, _VALID_NAMES), damaged)


def built_in(*, progress: Callable[[int], object] | None = None) -> Dataset:
    """Loads the built-in rendered hands, rendering them if they are not in the cache.

    Args:
        progress: As for `load`.
    """
    return Dataset(BUILT_IN, *(_render(split, progress) for split in ("train", "valid")))


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

    storage.make_folder(folder)
    paths = []
    for name, split in (("train", dataset.train), ("valid", dataset.valid)):
        path = folder / f"sign_mnist_{name}.csv"
        with storage.replacing(path) as aside:
            table.write(aside, split.images, split.labels)
        paths.append(path)
    return paths


def _load_files(train: Path, valid: Path, damaged: str) -> Dataset:
    splits = [
        _open_records(path, damaged) if (path / _INDEX).exists() else _load_file(path)
        for path in (train, valid)
    ]
    known = all(split.sha256 in KNOWN_SHA256 for split in splits)
    return Dataset("Sign Language MNIST" if known else "CSV files", *splits)


def _find(folder: Path, names: list[str]) -> Path:
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Give one that holds {' or '.join(names)}.")
    candidates = [folder / (name + ending) for name in names for ending in _ENDINGS]
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(
        f"The folder {folder} holds no {' or '.join(names)}, plain or as .gz, .zip or .xz."
    )


def _load_file(path: Path) -> Split:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, neither a CSV file nor one of records.") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    key = f"csv-{_PARSER_VERSION}-{digest}"
    entry = storage.load_entry(key)
    if entry is None:
        from asl_fast.data import csv_table as table

        plain = table.decompress(path.read_bytes(), str(path))
        images, labels, spelling = table.parse(plain, str(path))
        facts = {"sha256": hashlib.sha256(plain).hexdigest(), "spelling": spelling}
        entry = storage.save_entry(key, images, labels, facts)
    return Split(
        entry.images, entry.labels, str(path), entry.facts["sha256"], entry.facts["spelling"]
    )


def _open_records(folder: Path, damaged: str) -> Split:
    quiet.import_tensorflow()
    from asl_fast.data.records import Records

    records = Records.open(folder, damaged)
    if records.shape != (28, 28, 1) or list(records.classes) != list(hands.LETTERS):
        raise InputError(
            f"{folder} holds images of {records.shape} in {len(records.classes)} classes; needed "
            "are (28, 28, 1) and the 24 letters. Train others with asl_fast.fit and "
            "asl_fast.build_cnn."
        )
    none = np.zeros((0, *records.shape), np.uint8), np.zeros(0, np.int32)
    return Split(*none, str(folder), records.sha256, "course", records)


def _served(split: Split, service: str) -> Split:
    if split.records is None:
        raise InputError(
            f"A tf.data service reads converted data, and {split.source} is none. Convert it "
            "(asl-fast data convert), or leave the service out."
        )
    return split._replace(records=split.records.from_service(service))


def _render(split: str, progress: Callable[[int], object] | None) -> Split:
    rows = {"train": hands.TRAIN_ROWS, "valid": hands.VALID_ROWS}[split]
    key = f"hands-{hands.VERSION}-{split}-{rows}"
    entry = storage.load_entry(key)
    if entry is None:
        images, labels = hands.render(rows, split=split, progress=progress)
        digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        entry = storage.save_entry(key, images, labels, {"sha256": digest})
    return Split(entry.images, entry.labels, BUILT_IN, entry.facts["sha256"], "course")

"""Data sets: a training and a validation set, from files or built in."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asl_fast.data.class_folders import ClassFolders
from asl_fast.data.csv_table import CsvTable
from asl_fast.data.file_table import FileTable
from asl_fast.data.npz_file import NpzFile
from asl_fast.data.record_folder import RecordFolder
from asl_fast.data.rendered_hands import RenderedHands
from asl_fast.data.source import DataSource, check_memory, digest
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.images import photograph
from asl_fast.images.file_types import CHANNELS
from asl_fast.system.errors import InputError

__all__ = [
    "BUILT_IN",
    "COLORS",
    "FORMATS",
    "KNOWN_SHA256",
    "Dataset",
    "Split",
    "built_in",
    "divided",
    "find",
    "in_words",
    "load",
    "load_csv",
    "numbered",
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

COLORS = ("grayscale", "rgb")
_CHANNELS = tuple(CHANNELS[color] for color in COLORS)

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
        images: uint8, (rows, height, width, channels); for records (0, height, width, channels).
        labels: int32, (rows,), that number `classes`; empty for records.
        source: A path, or `BUILT_IN`.
        sha256: Of the plain CSV text, so that a compressed copy counts as the same; of the arrays
            or the records otherwise.
        spelling: How the file numbers its labels; see `csv_table.contiguous`.
        records: `Records` that are streamed, or None.
        classes: Their names, in the order of their numbers.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str
    sha256: str
    spelling: str
    records: Any = None
    classes: tuple[str, ...] = tuple(LETTERS)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

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
    """A training set and its validation set, of one shape and the same classes.

    Attributes:
        name: What the data are called in `metrics.json`.
        train: The training set.
        valid: The validation set.
        place: The arguments of `load` that load them again, in JSON's types.
    """

    name: str
    train: Split
    valid: Split
    place: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Returns the entry in `metrics.json`."""
        return {
            "name": self.name,
            "place": self.place,
            "shape": list(self.train.shape),
            "classes": list(self.train.classes),
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
    image_size: Sequence[int] | None = None,
    color: str | None = None,
    validation_split: float | None = None,
    seed: int = 0,
    undivided: bool = False,
    progress: Callable[[int], object] | None = None,
    damaged: str = "stop",
    service: str = "",
) -> Dataset:
    """Loads a data set for training: images of any one shape, in any classes.

    Args:
        folder: A folder or file that holds a training and a validation set, or a single one, in
            one of `FORMATS`. By default the one that the environment variable `ASL_FAST_DATA`
            names; only if that is not set, the built-in set.
        train: The training set alone, in place of `folder`; goes with `valid`.
        valid: The validation set alone; goes with `train`.
        image_size: Height and width, at least 1, that files and arrays are cropped and resized to
            as `photograph.read` does. None: those of the images, which must then share one.
        color: "grayscale" or "rgb", what files and arrays are turned into. None: grayscale where
            no image has colours.
        validation_split: Float in (0, 1), the share of each class of a single set that is drawn
            for validation, at least one image.
        seed: Int in [0, 2**32), of that draw.
        undivided: Whether a single set is both training and validation set, as for measurements.
        progress: Called with the number of images rendered since its last call, if the built-in
            set is not yet cached.
        damaged: "stop" or "skip", for records; see `Records.open`.
        service: Address of a tf.data service that reads the training records, or "".

    Raises:
        InputError: A path is missing or can't be read; a single set is not to be split, or two
            are; or the sets' shapes or classes don't go together.
    """
    _check_options(image_size, color, validation_split)
    sets, place = _found(folder, train, valid)
    _check_division(sets, validation_split, undivided)
    size = None if image_size is None else (image_size[0], image_size[1])

    def read(name: str) -> Split:
        address = "" if name == "valid" else service
        return _load(sets[name], size, color, progress, damaged, address)

    if "" not in sets:
        sides = read("train"), read("valid")
    elif validation_split is None:
        sides = (read(""),) * 2
    else:
        sides = divided(read(""), validation_split, seed)
        place["seed"] = seed
    options: dict[str, Any] = {"image_size": size and list(size), "color": color}
    options["validation_split"] = validation_split
    place |= {name: value for name, value in options.items() if value is not None}
    known = all(split.sha256 in KNOWN_SHA256 for split in sides)
    name = "Sign Language MNIST" if known else next(iter(sets.values())).kind
    return Dataset(name, *_matched(*sides), place)


def in_words(shape: Sequence[int]) -> str:
    """Returns a shape as it is said: 28x28x1."""
    return "x".join(map(str, shape))


def divided(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divides a set at random, each class by itself.

    Args:
        split: The set. Records are read into memory.
        share: Float in (0, 1), the share of each class in the second part, to the nearest image
            but at least one; a class of a single image stays in the first part.
        seed: Int in [0, 2**32).

    Returns:
        The two parts, in the order of the rows.

    Raises:
        InputError: The second part would be empty, or the records are too large.
    """
    if split.records is not None:
        check_memory(split.source, split.rows, split.shape)
        parts = zip(*split.records.batches(1024).as_numpy_iterator(), strict=True)
        images, labels = (np.concatenate(part) for part in parts)
        split = split._replace(images=images, labels=labels, records=None)
    random = np.random.default_rng(seed)
    is_second = np.zeros(split.rows, bool)
    for label in range(len(split.classes)):
        rows = random.permutation(np.flatnonzero(split.labels == label))
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        is_second[rows[: max(0, count)]] = True
    if not is_second.any():
        raise InputError(
            f"{split.source} holds a single image of each class, so none can be set apart."
        )
    first, second = (_chosen(split, rows) for rows in (~is_second, is_second))
    return first, second


def _chosen(split: Split, rows: np.ndarray) -> Split:
    images, labels = split.images[rows], split.labels[rows]
    return split._replace(images=images, labels=labels, sha256=digest(images, labels))


def _check_options(
    image_size: Sequence[int] | None, color: str | None, validation_split: float | None
) -> None:
    """Refuses values out of range, before anything is read."""
    if image_size is not None and not (
        len(image_size) == 2 and all(isinstance(n, int) and 1 <= n < 2**14 for n in image_size)
    ):
        raise InputError(
            f"The image size must be a height and a width of 1 to 16,383. Received: {image_size}."
        )
    if color not in (None, *COLORS):
        raise InputError(f"The color must be one of {', '.join(COLORS)}. Received: {color!r}.")
    if validation_split is not None and not 0 < validation_split < 1:
        raise InputError(
            f"The validation split must be above 0 and below 1. Received: {validation_split}."
        )


def _check_division(
    sets: dict[str, DataSource], validation_split: float | None, undivided: bool
) -> None:
    """Refuses a single set that is not to be divided, and two that are."""
    if "" not in sets:
        if validation_split is not None:
            raise InputError(
                f"There is a validation set already: {sets['valid'].name}. Leave out "
                "--validation-split (validation_split=)."
            )
    elif validation_split is None and not undivided:
        raise InputError(
            f"{sets[''].name} holds a single set. Give the share of each class to validate on "
            "(--validation-split 0.2, or validation_split=), or a training and a validation set "
            "(--train, --valid)."
        )


def _found(folder: Any, train: Any, valid: Any) -> tuple[dict[str, DataSource], dict[str, Any]]:
    """Returns the sets that `load` was asked for, and where they are."""
    if not (train or valid):
        path = Path(folder or os.environ.get("ASL_FAST_DATA") or BUILT_IN)
        is_path = str(path) != BUILT_IN
        return find(path), {"folder": str(path.resolve()) if is_path else BUILT_IN}
    if folder is not None:
        raise InputError("Give a data folder or single train and valid files, not both.")
    if not (train and valid):
        raise InputError("A train and a valid file belong together: give both.")
    paths = {"train": Path(train), "valid": Path(valid)}
    sets = {}
    for name, path in paths.items():
        there = find(path)
        sets[name] = there.get(name) or there[""]
    return sets, {name: str(path.resolve()) for name, path in paths.items()}


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
    source: DataSource,
    image_size: tuple[int, int] | None,
    color: str | None,
    progress: Callable[[int], object] | None,
    damaged: str,
    service: str,
) -> Split:
    source = source.shaped(image_size, color)
    assert source.shape is not None
    asked = (
        *(image_size or source.shape[:2]),
        source.shape[2] if color is None else CHANNELS[color],
    )
    records = source.stream(damaged, service)
    if records is not None:
        if asked != source.shape:
            raise InputError(
                f"{source.name} holds converted images of {in_words(source.shape)}, not of "
                f"{in_words(asked)}. Convert their source again (asl-fast data convert --height "
                f"{asked[0]} --width {asked[1]})."
            )
        none = np.zeros((0, *records.shape), np.uint8), np.zeros(0, np.int32)
        split = Split(*none, source.name, records.sha256, "", records, source.classes)
    elif service:
        raise InputError(
            f"A tf.data service reads only converted data. Convert {source.name} (asl-fast data "
            "convert), or train without the service."
        )
    else:
        images, labels, facts = source.read(progress)
        facts = {"spelling": "", **facts}
        if asked != source.shape:
            check_memory(source.name, len(images), asked)
            images = np.stack([photograph.read(image, *asked).pixels for image in images])
            facts["sha256"] = digest(images, labels)
        split = Split(
            images, labels, source.name, facts["sha256"], facts["spelling"], None, source.classes
        )
    if split.shape[2] not in _CHANNELS:
        raise InputError(
            f"{source.name} holds images of {split.shape[2]} channels. Choose --color "
            f"{' or '.join(COLORS)} (color=)."
        )
    spelling = split.spelling or ("course" if split.classes == tuple(LETTERS) else "own")
    return split._replace(spelling=spelling)


def _matched(train: Split, valid: Split) -> tuple[Split, Split]:
    """Returns sets of one shape, whose labels number the classes of the training set.

    Raises:
        InputError: Their shapes differ, or the validation set has other classes.
    """
    if train.shape != valid.shape:
        raise InputError(
            f"The training images are {in_words(train.shape)}, the validation images "
            f"{in_words(valid.shape)}. Choose one size and colour (--image-size, --color)."
        )
    return train, numbered(valid, train.classes)


def numbered(split: Split, classes: tuple[str, ...]) -> Split:
    """Returns a set whose labels number other names, which hold all of its own.

    Raises:
        InputError: They don't.
    """
    unknown = [name for name in split.classes if name not in classes]
    if unknown:
        raise InputError(
            f"{split.source} holds the class {unknown[0]!r}, which is none of the "
            f"{len(classes)} classes {_listed(classes)}."
        )
    if split.classes == classes:
        return split
    if split.records is not None:
        return split._replace(records=split.records.renumbered(classes), classes=classes)
    numbers = np.array([classes.index(name) for name in split.classes], np.int32)
    return split._replace(labels=numbers[split.labels], classes=classes)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")

"""Tables of image files and their classes."""

import concurrent.futures
import copy
import csv
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from asl_fast.data import csv_table
from asl_fast.data.source import DataSource, Read, check_memory, digest, file_facts
from asl_fast.images import photograph
from asl_fast.images.file_types import CHANNELS
from asl_fast.system import storage
from asl_fast.system.errors import InputError

__all__ = ["FileTable"]

_COLUMNS = ["filename", "class"]
_HEADER = 4096  # bytes within which the header names them
_FEWEST = 1 << 20  # rows that any file may expand to; a larger one as many as it has bytes


class FileTable(DataSource):
    """A table with the columns filename and class: a dataframe, or a CSV file that holds one.

    Args:
        frame: A row for each file.
        name: What messages call it.
        folder: What relative file names are relative to.
        fingerprint: As for `DataSource`; by default that of the rows.

    Raises:
        InputError: A column or cell is missing.
    """

    kind = "image files"
    wanted = "a CSV file with the columns filename and class"
    shape: tuple[int, int, int] | None = None

    def __init__(
        self,
        frame: pd.DataFrame,
        name: str = "The dataframe",
        folder: Path = Path(),
        fingerprint: dict[str, Any] | None = None,
    ) -> None:
        missing = sorted(set(_COLUMNS) - set(frame.columns))
        if missing:
            raise InputError(f"{name} lacks the column {missing[0]}.")
        if not len(frame):
            raise InputError(f"{name} has no rows.")
        empty = frame[_COLUMNS].isna().any(axis=1).to_numpy()
        if empty.any():
            raise InputError(f"{name}, row {int(empty.argmax()) + 1}: a cell is empty.")
        self.name, self.rows = name, len(frame)
        self._files = [str(folder / str(file)) for file in frame["filename"]]
        self._classes = frame["class"].astype(str).tolist()
        self.classes = tuple(sorted(set(self._classes)))
        self.fingerprint = fingerprint or {"dataframe": self._digest()}
        self._color_mode = "grayscale"

    @classmethod
    def find(cls, path: Path) -> dict[str, DataSource]:
        """Returns a CSV file with the two columns as a single set."""
        if not path.is_file():
            return {}
        name, most = str(path), csv_table.most_expanded(path)
        with storage.open_file(path) as stored, csv_table.opened(stored, name, most) as text:
            header = text.peek(_HEADER)[:_HEADER].partition(b"\n")[0].decode("utf-8-sig", "replace")
            if not set(_COLUMNS) <= {column.strip().strip('"') for column in header.split(",")}:
                return {}
            rows = _rows(text, name, max(_FEWEST, path.stat().st_size))
        return {"": cls(pd.DataFrame(rows, columns=_COLUMNS), name, path.parent, file_facts(path))}

    def _digest(self) -> str:
        frame = pd.DataFrame({"filename": self._files, "class": self._classes})
        return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()

    def shaped(self, size: tuple[int, int] | None, color: str | None) -> DataSource:
        """Returns the same files as images of one shape; see `photograph.read`."""
        if size is None or color is None:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                headers = list(pool.map(_header, self._files))
            sizes = {(one.height, one.width): file for one, file in zip(headers, self._files)}  # noqa: B905
            if size is None and len(sizes) > 1:
                (first, there), (other, here), *_ = sizes.items()
                raise InputError(
                    f"{self.name} holds images of {len(sizes)} sizes: {there} has {first[0]}x"
                    f"{first[1]} pixels, {here} {other[0]}x{other[1]}. Choose one with "
                    "--image-size (image_size=), such as 64 or 64x48, height first."
                )
            size = size or next(iter(sizes))
            color = color or ("rgb" if any(one.has_colors for one in headers) else "grayscale")
        return self.resized(size, color)

    def read(self, progress: Callable[[int], object] | None = None) -> storage.Entry:
        """Reads the files, or maps the arrays of an earlier reading of the same ones."""
        assert self.shape is not None
        assert self.rows is not None
        facts = [file_facts(Path(file)) for file in self._files]
        text = json.dumps([facts, self._classes, self.shape])
        key = f"images-1-{hashlib.sha256(text.encode()).hexdigest()}"
        entry = storage.load_entry(key, self.shape, len(self.classes))
        if entry is None:
            check_memory(self.name, self.rows, self.shape)
            images = np.empty((self.rows, *self.shape), np.uint8)

            def read(row: int) -> None:
                images[row] = _read_file(self._files[row], self.shape[:2], self._color_mode)  # type: ignore[index]

            with concurrent.futures.ThreadPoolExecutor() as pool:
                for _ in pool.map(read, range(self.rows)):
                    pass
            labels = self._labels()
            entry = storage.save_entry(key, images, labels, {"sha256": digest(images, labels)})
        return entry

    def _labels(self) -> np.ndarray:
        numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array([numbers[name] for name in self._classes], np.int32)

    def resized(self, size: tuple[int, int], color_mode: str) -> DataSource:
        """Returns the same files, cropped and resized as `photograph.read` does."""
        other = copy.copy(self)
        other.shape, other._color_mode = (*size, CHANNELS[color_mode]), color_mode
        return other

    def batches(self, rows: int) -> Iterator[Read]:
        """Yields the files in an order drawn once, so that each batch holds all classes."""
        assert self.shape is not None
        order = np.random.default_rng(0).permutation(len(self._files))
        labels = self._labels()
        for first in range(0, len(order), rows):
            part = order[first : first + rows]
            files = [self._files[row] for row in part]
            yield partial(_read_files, files, labels[part], self.shape[:2], self._color_mode)


def _rows(text: IO[bytes], name: str, most: int) -> list[tuple[str | None, ...]]:
    """Returns file name and class of each row, None for an empty cell."""
    table = (line.decode() for line in csv_table.lines(text, name))
    try:
        reader = csv.reader(table, strict=True)
        header = [column.strip(" \ufeff") for column in next(reader)]
        places = [header.index(column) for column in _COLUMNS]
        rows = [
            tuple(row[place] or None if place < len(row) else None for place in places)
            for row in itertools.islice(reader, most + 1)
        ]
    except (csv.Error, ValueError) as error:  # the latter for text that is not UTF-8
        raise InputError(f"{name} can't be read as a list of files: {error}.") from None
    if len(rows) > most:
        raise InputError(f"{name} expands to more than {most:,} rows. Decompress it first.")
    return rows


def _read_files(
    files: list[str], labels: np.ndarray, size: tuple[int, int], color_mode: str
) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([_read_file(file, size, color_mode) for file in files]), labels


def _header(file: str) -> photograph.Header:
    _check_regular(file)
    return photograph.header(file)


def _check_regular(file: str) -> None:
    """Refuses a pipe, which `photograph` would wait for."""
    if os.path.exists(file) and not os.path.isfile(file):
        raise InputError(f"The image file {file} can't be read: it is no regular file.")


def _read_file(file: str, size: tuple[int, int], color_mode: str) -> np.ndarray:
    """Returns a file as the network will be shown photographs when it predicts."""
    _check_regular(file)
    if color_mode != "rgba":
        name = f"The image file {file}"
        return photograph.read(file, *size, CHANNELS[color_mode], name=name).pixels
    import keras

    from asl_fast.images.decode import check_size

    try:
        check_size(file)
        pixels = keras.utils.load_img(file, color_mode=color_mode, target_size=size)
    except Exception as error:  # Pillow's readers raise all kinds on broken files
        raise InputError(f"The image file {file} can't be read: {error}.") from None
    return np.asarray(pixels, np.uint8)

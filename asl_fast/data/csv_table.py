"""Sign Language MNIST tables: CSV text to arrays, with each mistake named by row and column.

Tables are read line by line and parsed in parts, so that what a small file expands to is never in
memory, and a conversion takes what a training takes.
"""

import collections
import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd

from asl_fast.data.source import DataSource, Read, file_facts
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.system import storage
from asl_fast.system.errors import InputError

__all__ = [
    "CLASSES",
    "EXPANDED",
    "EXPANSION",
    "SIDE",
    "CsvTable",
    "Measured",
    "Parsed",
    "contiguous",
    "lines",
    "most_expanded",
    "opened",
    "parse",
    "parse_rows",
    "write",
]

CLASSES = 24
SIDE = 28
EXPANDED = 1 << 29  # bytes that any file may expand to; the real table has 83 million

_NAMES = {
    "train": ("sign_mnist_train.csv",),
    "valid": ("sign_mnist_valid.csv", "sign_mnist_test.csv"),
}
_ENDINGS = ("", ".gz", ".zip", ".xz")

_ROWS_AT_ONCE = 4096
_LONGEST_ROW = 1 << 15  # bytes; rows of 785 cells have 3,000
# Times that a larger file may expand; the real tables expand 4 times, blank images up to 1,000.
EXPANSION = 100

_PIXELS = [f"pixel{i}" for i in range(1, SIDE * SIDE + 1)]
_LABELS = "Labels are 0 to 23, or 0 to 24 without 9 (J) as Kaggle numbers them"
_J = 9  # the letter that is signed by a movement and that Kaggle's labels leave out


class CsvTable(DataSource):
    """A Sign Language MNIST table: plain, .gz, .zip or .xz, told by its first bytes.

    Args:
        path: A file with the columns label and pixel1 to pixel784.
    """

    kind = "CSV files"
    wanted = "sign_mnist_train.csv and sign_mnist_valid.csv"
    shape = (SIDE, SIDE, 1)
    classes = tuple(LETTERS)

    def __init__(self, path: Path) -> None:
        self._path, self.name, self.fingerprint = path, str(path), file_facts(path)

    @classmethod
    def find(cls, path: Path) -> dict[str, DataSource]:
        """Returns any file as a single set, or the two tables of the course in a folder."""
        if path.is_file():
            return {"": cls(path)}
        tables = {
            split: [path / f"{name}{ending}" for name in names for ending in _ENDINGS]
            for split, names in _NAMES.items()
        }
        there = {
            split: [file for file in files if file.is_file()] for split, files in tables.items()
        }
        if any(there.values()):
            for split, files in there.items():
                if not files:
                    raise InputError(
                        f"The folder {path} holds no {' or '.join(_NAMES[split])}, plain or as "
                        ".gz, .zip or .xz."
                    )
            return {split: cls(files[0]) for split, files in there.items()}
        return {}

    def read(self, progress: Callable[[int], object] | None = None) -> storage.Entry:
        """Parses the table, or maps the arrays of an earlier parse of the same content."""
        with self._opened() as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entry = storage.load_entry(f"csv-2-{digest}", self.shape, CLASSES)
        if entry is None:
            with self._opened() as file:
                # Hashed as it is parsed: the file may have changed meanwhile.
                stored = Measured(file, self.name)
                parsed = parse(stored, self.name, most_expanded(self._path))
                key = f"csv-2-{stored.sha256}"
            facts = {"sha256": parsed.sha256, "spelling": parsed.spelling}
            entry = storage.save_entry(key, parsed.images, parsed.labels, facts)
        return entry

    def _opened(self) -> io.BufferedReader:
        try:
            return storage.open_file(self._path)
        except IsADirectoryError:
            raise InputError(f"{self._path} is a folder, not a CSV file.") from None
        except OSError as error:
            raise InputError(f"{self._path} can't be read: {error.strerror}.") from None

    def batches(self, rows: int) -> Iterator[Read]:
        """Yields parts of the table, of which no more than one is in memory at a time."""
        most = most_expanded(self._path)
        with self._opened() as stored, opened(stored, self.name, most) as text:
            for first_row, part in _parts(text, self.name, rows):
                yield partial(parse_rows, part, self.name, first_row)

    def stored_labels(self, seen: set[int], brightest: int) -> list[int]:
        """Returns the label of each letter, 0 to 23 or as Kaggle numbers them."""
        _check_scale(brightest, self.name)
        _, spelling = contiguous(np.array(sorted(seen)), self.name)
        return [label for label in range(25) if label != (_J if spelling == "kaggle" else CLASSES)]


class Measured(io.RawIOBase):
    """Reads a file from its begin to its end, hashing and counting its bytes.

    Args:
        file: Of bytes.
        name: What messages call it.
        most: The number of bytes after which an `InputError` is raised.
    """

    def __init__(self, file: Any, name: str, most: float = math.inf) -> None:
        self._file, self._name, self._left = file, name, most
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the whole file, whose rest is read."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As `io.RawIOBase.readinto`."""
        count: int = self._file.readinto(buffer)
        self._digest.update(memoryview(buffer)[:count])
        self._left -= count
        if self._left < 0:
            raise InputError(
                f"{self._name} expands to more than {EXPANSION} times its size. Decompress it "
                "first if it is a table."
            )
        return count


def most_expanded(path: Path) -> int:
    """Returns the number of bytes that a compressed file may expand to."""
    return max(EXPANDED, EXPANSION * path.stat().st_size)


@contextlib.contextmanager
def opened(file: Any, name: str, most: float) -> Iterator[io.BufferedReader]:
    """Yields the plain bytes of a file that may be gzip, zip or xz, told by its first bytes.

    Args:
        file: Of bytes, to be read from its begin.
        name: What messages call the file.
        most: The number of bytes that it may expand to.

    Yields:
        The plain bytes; their `raw` is `Measured`.

    Raises:
        InputError: The file is damaged, a zip that holds more than one table, or expands to more
            bytes; also while the block reads.
    """
    stored = io.BufferedReader(file)
    begin = stored.peek(6)[:6]
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(stored.detach)  # or its end would close the file
            plain: Any = stored
            if begin.startswith(b"\x1f\x8b"):
                plain = stack.enter_context(gzip.GzipFile(fileobj=stored))
            elif begin == b"\xfd7zXZ\x00":
                plain = stack.enter_context(lzma.LZMAFile(stored))
            elif begin.startswith(b"PK\x03\x04"):
                plain = stack.enter_context(_only_table(stored, name))
            else:
                most = math.inf
            yield io.BufferedReader(Measured(plain, name, most))
    except InputError:
        raise
    # The last two: a zip with a password, or compressed by a method that Python lacks.
    except (
        EOFError,
        OSError,
        ValueError,
        lzma.LZMAError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise InputError(
            f"{name} is cut short or damaged: it can't be read to its end ({error}). Download it "
            "again."
        ) from None


def _only_table(stored: IO[bytes], name: str) -> IO[bytes]:
    """Opens the table in a zip archive, which is read into memory: its directory is at its end."""
    content = stored.read(EXPANDED)
    if stored.read(1):
        raise InputError(f"{name} is larger than {EXPANDED >> 20} MiB. Unpack it first.")
    archive = zipfile.ZipFile(io.BytesIO(content))
    tables = [
        member
        for member in archive.namelist()
        if member.endswith(".csv") and not member.startswith("__MACOSX/")
    ]
    if len(tables) != 1:
        raise InputError(f"{name} must hold one .csv file, not {len(tables)}.")
    return archive.open(tables[0])


def lines(text: IO[bytes], name: str) -> Iterator[bytes]:
    """Yields the lines of a table that are not blank, none of which is long.

    Raises:
        InputError: One is, or its lines end in carriage returns alone.
    """
    for number in itertools.count(1):
        line = text.readline(_LONGEST_ROW)
        if len(line) == _LONGEST_ROW:
            raise InputError(f"{name}, line {number} is longer than a table's row can be.")
        if b"\r" in line.rstrip(b"\r\n"):
            raise InputError(
                f"{name}, line {number} holds a carriage return. Save it with lines that end in "
                "line feeds."
            )
        if not line:
            return
        if line.strip():
            yield line


def _parts(text: IO[bytes], name: str, rows: int) -> Iterator[tuple[int, bytes]]:
    """Yields up to `rows` rows with the header before them, and the number of the first."""
    each = lines(text, name)
    header = next(each, b"")
    wanted = len(_columns(header, name))
    for first_row in itertools.count(1, rows):
        part = [header]
        for row, line in enumerate(itertools.islice(each, rows), first_row):
            # Before they are parsed, as short rows would be filled up.
            if (cells := line.count(b",") + 1) != wanted:
                raise InputError(
                    f"{name}, row {row}: {cells:,} cells where the header has {wanted} names."
                )
            part.append(line)
        if len(part) == 1 and first_row == 1:
            raise InputError(f"{name} has a header but no rows.")
        if len(part) == 1:
            return
        yield first_row, b"".join(part)


class Parsed(NamedTuple):
    """A table.

    Attributes:
        images: uint8, (rows, 28, 28, 1).
        labels: int32, (rows,), 0 to 23: A to Y without J.
        spelling: How the table numbers its labels, as `contiguous` returns it.
        sha256: Of the plain text.
    """

    images: np.ndarray
    labels: np.ndarray
    spelling: str
    sha256: str


def parse(file: Any, name: str, most: float = EXPANDED) -> Parsed:
    """Parses a table with the columns label, pixel1, …, pixel784, in any order.

    Args:
        file: Of CSV text in UTF-8, with or without a byte-order mark; may be compressed.
        name: What messages call the table.
        most: The number of bytes that it may expand to.

    Raises:
        InputError: The table is not of that form. Rows are counted from 1, after the header.
    """
    with opened(file, name, most) as text:
        parts = [
            parse_rows(part, name, first_row)
            for first_row, part in _parts(text, name, _ROWS_AT_ONCE)
        ]
        digest = text.raw.sha256  # type: ignore[attr-defined]
    images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    _check_scale(images.max(), name)
    return Parsed(images, *contiguous(labels, name), digest)


def parse_rows(content: bytes, name: str, first_row: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Parses a part of a table, whose labels may be numbered either way.

    Args:
        content: CSV text with the table's header.
        name: What messages call the table.
        first_row: The number of the part's first row.

    Returns:
        Images, uint8 (rows, 28, 28, 1), and labels as stored, int32 (rows,), 0 to 24.

    Raises:
        InputError: As for `parse`.
    """
    header, _, rows = content.partition(b"\n")
    columns = _columns(header, name)
    frame = _read(rows, columns, name, first_row)[["label", *_PIXELS]]
    frame.index += first_row
    cells = _numbers(frame, name)
    labels, pixels = cells[:, :1], cells[:, 1:]
    if cells.dtype != np.int64:
        if (pixels % 1).any() and pixels.min() >= 0:
            _check_scale(pixels.max(), name)
        _refuse(cells % 1 != 0, frame, name, "Labels and pixels are whole numbers")
    _refuse((labels < 0) | (labels > CLASSES), frame, name, _LABELS)
    _refuse((pixels < 0) | (pixels > 255), frame, name, "Pixels are 0 to 255", first_column=1)
    return pixels.astype(np.uint8).reshape(-1, SIDE, SIDE, 1), labels[:, 0].astype(np.int32)


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes a table that `parse` reads, with the labels that the course uses.

    Args:
        path: The CSV file.
        images: uint8, (rows, 28, 28, 1).
        labels: Integers, (rows,), 0 to 23.
    """
    cells = np.column_stack([labels, images.reshape(len(labels), -1)])
    pd.DataFrame(cells, columns=["label", *_PIXELS]).to_csv(path, index=False)


def _check_scale(brightest: float, name: str) -> None:
    if brightest <= 1:
        raise InputError(
            f"{name}: no pixel is above 1, so they look already scaled to [0, 1]. Give pixels from "
            "0 to 255; training scales them."
        )


def _read(rows: bytes, columns: list[str], name: str, first_row: int) -> pd.DataFrame:
    try:
        frame = pd.read_csv(
            io.BytesIO(rows), header=None, names=columns, index_col=False, low_memory=False
        )
    except UnicodeDecodeError:
        raise _not_text(name) from None
    except pd.errors.ParserError as error:
        raise InputError(
            f"{name}, row {first_row} or later, can't be read as CSV: {error}."
        ) from None
    if len(frame) != rows.count(b"\n") + (not rows.endswith(b"\n")):
        raise InputError(f"{name}, row {first_row} or later: a cell holds the end of a line.")
    return frame


def _not_text(name: str) -> InputError:
    return InputError(f"{name} is not a CSV file: it is not text in UTF-8.")


def _columns(header: bytes, name: str) -> list[str]:
    """Returns the names in a table's header, which are those wanted in any order."""
    try:
        text = header.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise _not_text(name) from None
    if not text:
        raise InputError(f"{name} is empty.")
    try:
        columns = [column.strip() for column in next(csv.reader([text]))]
    except csv.Error as error:
        raise InputError(f"{name} has no header that can be read as CSV: {error}.") from None
    there = collections.Counter(columns)
    if "label" not in there:
        for separator, called in ((";", "semicolons"), ("\t", "tabs")):
            if separator in text and "label" in text:
                raise InputError(f"{name} separates its cells by {called}. Save it with commas.")
        raise InputError(
            f"{name} has no `label` column. Its header begins: {', '.join(columns[:4])}."
        )
    wanted = dict.fromkeys(["label", *_PIXELS])
    problems = [
        f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''} {problem}"
        for names, problem in (
            ([column for column in wanted if column not in there], "missing"),
            ([column for column in there if column not in wanted], "not expected"),
            ([column for column in there if there[column] > 1], "more than once"),
        )
        if names
    ]
    if problems:
        count = sum(column.startswith("pixel") for column in there)
        raise InputError(
            f"{name} must have the columns label and pixel1 to pixel{len(_PIXELS)}; "
            f"it has {count} pixel columns: {'; '.join(problems)}."
        )
    return columns


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Returns the cells as int64, or as float64 if a column is not of integers."""
    if all(pd.api.types.is_integer_dtype(dtype) for dtype in frame.dtypes):
        return frame.to_numpy(np.int64)
    texts = frame.select_dtypes(exclude=["number"]).columns
    numbers = frame.copy()
    # As text first: pandas takes True for a 1.
    numbers[texts] = frame[texts].astype(str).apply(pd.to_numeric, errors="coerce")
    cells = numbers.to_numpy(np.float64, na_value=np.nan)
    _refuse(~np.isfinite(cells), frame, name, "Every cell must hold a number")
    return cells


def _refuse(
    wrong: np.ndarray, frame: pd.DataFrame, name: str, rule: str, *, first_column: int = 0
) -> None:
    """Raises for the first wrong cell, if there is one."""
    if not wrong.any():
        return
    row, column = divmod(int(wrong.argmax()), wrong.shape[1])
    column += first_column
    value = frame.iloc[row].to_numpy(object)[column]
    shown = "nothing" if value != value else repr(value)  # NaN stands for an empty cell
    more = int(wrong.sum()) - 1
    raise InputError(
        f"{name}, row {frame.index[row]}, column {frame.columns[column]}: holds {shown}. {rule}."
        + (f" ({more} more such cell{'s' if more > 1 else ''}.)" if more else "")
    )


def contiguous(labels: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """Returns labels 0 to 23, and how they were numbered.

    That is "course" (0 to 23), "kaggle" (0 to 24 without 9), or "either" where all are below 9.
    Only Kaggle's labels reach 24, and only the course's include 9, which is its K.

    Args:
        labels: Integers, 0 to 24.
        name: What messages call the table.

    Raises:
        InputError: The labels may be numbered either way, or are numbered both ways.
    """
    nine, twenty_four = (labels == _J).any(), (labels == CLASSES).any()
    if nine and twenty_four:
        raise InputError(f"{name} holds the labels 9 and 24. {_LABELS}.")
    if twenty_four:
        return labels - (labels > _J), "kaggle"
    if nine:
        return labels, "course"
    if (labels < _J).all():
        return labels, "either"
    raise InputError(
        f"{name}: its labels hold neither 9 nor 24, so they may be the course's (0 to 23) or "
        "Kaggle's (0 to 24 without 9). Add a row of either letter, K or Y."
    )

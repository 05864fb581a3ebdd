"""Sign Language MNIST tables: CSV text to arrays, with each mistake named by row and column."""

import collections
import contextlib
import gzip
import hashlib
import io
import itertools
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from asl_fast.data.source import DataSource, Read, file_facts
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.system import storage
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import ragged_row

__all__ = [
    "CLASSES",
    "EXPANDED",
    "EXPANSION",
    "SIDE",
    "CsvTable",
    "contiguous",
    "decompress",
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

_READ_AT_ONCE = 1 << 20
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
        try:
            with self._path.open("rb") as file:
                key = f"csv-1-{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except IsADirectoryError:
            raise InputError(f"{self._path} is a folder, not a CSV file.") from None
        except OSError as error:
            raise InputError(f"{self._path} can't be read: {error.strerror}.") from None
        entry = storage.load_entry(key)
        if entry is None:
            plain = decompress(self._path.read_bytes(), self.name)
            images, labels, spelling = parse(plain, self.name)
            facts = {"sha256": hashlib.sha256(plain).hexdigest(), "spelling": spelling}
            entry = storage.save_entry(key, images, labels, facts)
        return entry

    def batches(self, rows: int) -> Iterator[Read]:
        """Yields parts of the table, of which no more than one is in memory at a time."""
        with self._path.open("rb") as stored, opened(stored, self.name) as file:
            lines = self._lines(file)
            header = next(lines, b"")
            for first_row in itertools.count(1, rows):
                part = b"".join(itertools.islice(lines, rows))
                if part.strip() or first_row == 1:
                    yield partial(parse_rows, header + part, self.name, first_row)
                if not part:
                    return

    def _lines(self, file: IO[bytes]) -> Iterator[bytes]:
        most = most_expanded(self._path)
        total = 0
        for number in itertools.count(1):
            line = file.readline(_LONGEST_ROW)
            total += len(line)
            if len(line) == _LONGEST_ROW:
                raise InputError(f"{self.name}, line {number} is longer than a table's row can be.")
            if total > most:
                raise InputError(
                    f"{self.name} expands to more than {EXPANSION} times its size. Decompress it "
                    "first if it is a table."
                )
            if not line:
                return
            yield line

    def stored_labels(self, seen: set[int]) -> list[int]:
        """Returns the label of each letter, 0 to 23 or as Kaggle numbers them."""
        _, spelling = contiguous(np.array(sorted(seen)), self.name)
        return [label for label in range(25) if label != (_J if spelling == "kaggle" else CLASSES)]


def decompress(content: bytes, name: str) -> bytes:
    """Returns the plain bytes of a file that may be gzip, zip or xz, told by its first bytes.

    Args:
        content: The file's bytes.
        name: What messages call the file.

    Raises:
        InputError: The file is damaged, a zip that holds more than one table, or expands to more
            than `EXPANDED` bytes, which are never all in memory.
    """
    plain = io.BytesIO()
    with opened(io.BytesIO(content), name) as file:
        if isinstance(file, io.BytesIO):
            return content
        while part := file.read(_READ_AT_ONCE):
            plain.write(part)
            if plain.tell() > EXPANDED:
                raise InputError(
                    f"{name} expands to more than {EXPANDED >> 20} MiB. If it is a table, convert "
                    "it by asl-fast data convert, which reads it in parts."
                )
    return plain.getvalue()


def most_expanded(path: Path) -> int:
    """Returns the number of bytes that a compressed file may expand to."""
    return max(EXPANDED, EXPANSION * path.stat().st_size)


@contextlib.contextmanager
def opened(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Yields the plain bytes of a file as `decompress` does, to be read in parts.

    Args:
        file: Seekable.
        name: What messages call the file.

    Raises:
        InputError: As for `decompress`, except for the size; also while the block reads.
    """
    begin = file.read(6)
    file.seek(0)
    try:
        with contextlib.ExitStack() as stack:
            if begin.startswith(b"\x1f\x8b"):
                yield stack.enter_context(gzip.GzipFile(fileobj=file))  # type: ignore[arg-type]
            elif begin == b"\xfd7zXZ\x00":
                yield stack.enter_context(lzma.LZMAFile(file))
            elif begin.startswith(b"PK\x03\x04"):
                archive = stack.enter_context(zipfile.ZipFile(file))
                tables = [
                    member
                    for member in archive.namelist()
                    if member.endswith(".csv") and not member.startswith("__MACOSX/")
                ]
                if len(tables) != 1:
                    raise InputError(f"{name} must hold one .csv file, not {len(tables)}.")
                # Buffered, as the lines of a zip's member are slow to read.
                member = io.BufferedReader(archive.open(tables[0]))  # type: ignore[type-var]
                yield stack.enter_context(member)
            else:
                yield file
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


def parse(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Parses a table with the columns label, pixel1, …, pixel784, in any order.

    Args:
        content: CSV text in UTF-8, with or without a byte-order mark.
        name: What messages call the table.

    Returns:
        Images, uint8 (rows, 28, 28, 1); labels, int32 (rows,), 0 to 23: A to Y without J; and how
        the table numbers its labels, as `contiguous` returns it.

    Raises:
        InputError: The table is not of that form. Rows are counted from 1, after the header.
    """
    images, labels = parse_rows(content, name)
    return images, *contiguous(labels, name)


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
    frame = _ordered(_read(content, name, first_row), name)
    if not len(frame):
        raise InputError(f"{name} has a header but no rows.")
    frame.index += first_row
    cells = _numbers(frame, name)
    labels, pixels = cells[:, :1], cells[:, 1:]
    if pixels.min() >= 0 and pixels.max() <= 1:
        raise InputError(
            f"{name}: no pixel is above 1, so they look already scaled to [0, 1]. Give pixels from "
            "0 to 255; training scales them."
        )
    if cells.dtype != np.int64:
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


def _read(content: bytes, name: str, first_row: int) -> pd.DataFrame:
    if not content.strip(b"\xef\xbb\xbf \t\r\n"):
        raise InputError(f"{name} is empty.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.BytesIO(content), encoding="utf-8-sig", index_col=False, low_memory=False
            )
    except UnicodeDecodeError:
        raise InputError(f"{name} is not a CSV file: it is not text in UTF-8.") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{name} has no header.") from None
    except pd.errors.ParserWarning:
        raise InputError(
            f"{name}, row {first_row}: more cells than the header has names."
        ) from None
    except pd.errors.ParserError as error:
        found = ragged_row(error)
        if found is None:
            raise InputError(f"{name} can't be read as CSV: {error}.") from None
        expected, line, cells = found
        raise InputError(
            f"{name}, row {line - 2 + first_row}: {cells} cells where the header has {expected} "
            "names."
        ) from None


def _ordered(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    columns = [str(column).strip() for column in frame.columns]
    there = collections.Counter(columns)
    if "label" not in there:
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
    frame.columns = pd.Index(columns)
    return frame[list(wanted)]


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

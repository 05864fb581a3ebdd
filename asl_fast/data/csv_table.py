"""Sign Language MNIST tables: CSV text to arrays, each mistake named by row and column."""

import contextlib
import gzip
import io
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pandas as pd

from asl_fast.system.errors import InputError
from asl_fast.system.private_api import ragged_row

__all__ = [
    "CLASSES",
    "EXPANDED",
    "SIDE",
    "Table",
    "contiguous",
    "decompress",
    "opened",
    "parse",
    "parse_rows",
    "write",
]

CLASSES = 24
SIDE = 28
EXPANDED = 1 << 29  # bytes of a table that was compressed; the real one has 83 million
_READ_AT_ONCE = 1 << 20

_PIXELS = [f"pixel{i}" for i in range(1, SIDE * SIDE + 1)]
_J = 9  # the letter that needs a movement and that Kaggle's labels leave out


class Table(NamedTuple):
    """A parsed table.

    Attributes:
        images: uint8, (rows, 28, 28, 1).
        labels: int32, (rows,), 0 to 23: A to Y without J.
        spelling: How the file counts its labels: "course" (0 to 23), "kaggle" (0 to 24 without 9),
            or "either" where it holds labels below 9 only.
    """

    images: np.ndarray
    labels: np.ndarray
    spelling: str


def decompress(content: bytes, name: str) -> bytes:
    """Returns the plain bytes of a file that may be gzip, zip or xz, told by its first bytes.

    Args:
        content: The file's bytes.
        name: What messages call it.

    Raises:
        InputError: The file is damaged, a zip that holds more than one table, or expands to more
            than `EXPANDED` bytes, of which no more are kept.
    """
    plain = io.BytesIO()
    with opened(io.BytesIO(content), name) as file:
        if isinstance(file, io.BytesIO):
            return content
        while part := file.read(_READ_AT_ONCE):
            plain.write(part)
            if plain.tell() > EXPANDED:
                raise InputError(
                    f"{name} expands to more than {EXPANDED >> 20} MiB. Is it a table? Convert one "
                    "so large by asl-fast data convert, which reads it in parts."
                )
    return plain.getvalue()


@contextlib.contextmanager
def opened(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Yields the plain bytes of a file as `decompress` does, to be read in parts.

    Args:
        file: Can seek.
        name: What messages call it.

    Raises:
        InputError: As for `decompress`, also while the block reads; but for the size.
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
                yield stack.enter_context(archive.open(_only_table(archive, name)))
            else:
                yield file
    except InputError:
        raise
    # The last two: a zip with a password, or packed in a way that Python does not know.
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
            f"{name} is cut short or damaged: it can't be read to its end ({error}). Fetch it "
            "again."
        ) from None


def _only_table(archive: zipfile.ZipFile, name: str) -> str:
    """Returns the name of the one table in an archive.

    Raises:
        InputError: It holds none, or several.
    """
    members = [member for member in archive.namelist() if member.endswith(".csv")]
    tables = [member for member in members if not member.startswith("__MACOSX/")]
    if len(tables) != 1:
        raise InputError(f"{name} must hold one .csv file, not {len(tables)}.")
    return tables[0]


def parse(content: bytes, name: str) -> Table:
    """Parses a table with the columns label, pixel1, …, pixel784, in any order.

    Args:
        content: CSV text in UTF-8, with or without a byte-order mark.
        name: What messages call it.

    Raises:
        InputError: The table is not of that form. Rows are counted from 1, after the header.
    """
    images, labels = parse_rows(content, name)
    labels, spelling = contiguous(labels, name)
    return Table(images, labels, spelling)


def parse_rows(content: bytes, name: str, first_row: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Parses a part of a table, whose labels may be of either spelling.

    Args:
        content: CSV text with the table's header.
        name: What messages call it.
        first_row: Int, the number of the part's first row.

    Returns:
        Images, uint8 (rows, 28, 28, 1), and labels as they stand, int32 (rows,), 0 to 24.

    Raises:
        InputError: As for `parse`.
    """
    frame = _ordered(_read(content, name, first_row), name)
    if not len(frame):
        raise InputError(f"{name} has a header but no rows.")
    frame.index += first_row
    cells = _whole_numbers(frame, name)
    labels, pixels = cells[:, 0], cells[:, 1:]
    outside = (labels < 0) | (labels > CLASSES)
    if outside.any():
        _refuse_label(labels, int(outside.argmax()), name, first_row)
    _refuse_scaled(pixels, name)
    _refuse((pixels < 0) | (pixels > 255), frame, name, "Pixels are 0 to 255", first_column=1)
    return pixels.astype(np.uint8).reshape(-1, SIDE, SIDE, 1), labels.astype(np.int32)


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes a table that `parse` reads, labels as the course counts them.

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
        if not found:
            raise InputError(f"{name} can't be read as CSV: {error}.") from None
        expected, line, saw = found
        raise InputError(
            f"{name}, row {line - 2 + first_row}: {saw} cells where the header has {expected} "
            "names."
        ) from None


def _ordered(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    columns = [str(column).strip() for column in frame.columns]
    frame.columns = pd.Index(columns)
    if "label" not in columns:
        raise InputError(
            f"{name} has no `label` column. Its header begins: {', '.join(columns[:4])}."
        )
    wanted = ["label", *_PIXELS]
    missing = [column for column in wanted if column not in set(columns)]
    extra = [column for column in columns if column not in set(wanted)]
    if missing or extra:
        count = sum(column.startswith("pixel") for column in columns)
        problems = [
            f"{', '.join(some[:3])}{', …' if len(some) > 3 else ''} {what}"
            for some, what in ((missing, "missing"), (extra, "not expected"))
            if some
        ]
        raise InputError(
            f"{name} must have the columns label and pixel1 to pixel{len(_PIXELS)}; "
            f"it has {count} pixel columns: {'; '.join(problems)}."
        )
    return frame[wanted]


def _whole_numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Returns the cells as int64, or as float64 where some are fractions."""
    if all(pd.api.types.is_integer_dtype(dtype) for dtype in frame.dtypes):
        return frame.to_numpy(np.int64)
    texts = frame.select_dtypes(exclude=["number"]).columns
    numbers = frame.copy()
    # As text first: pandas takes True for a 1.
    numbers[texts] = frame[texts].astype(str).apply(pd.to_numeric, errors="coerce")
    cells = numbers.to_numpy(np.float64, na_value=np.nan)
    _refuse(~np.isfinite(cells), frame, name, "Every cell must hold a number")
    if (cells[:, 1:] % 1 != 0).any():
        _refuse_scaled(cells[:, 1:], name)
    _refuse(cells % 1 != 0, frame, name, "Labels and pixels are whole numbers")
    return cells


def _refuse_scaled(pixels: np.ndarray, name: str) -> None:
    if pixels.min() >= 0 and pixels.max() <= 1:
        raise InputError(
            f"{name}: no pixel is above 1, so they look already scaled to [0, 1]. "
            "Give the pixels as they were, 0 to 255; scaling is done in training."
        )


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
    """Returns labels 0 to 23 and the spelling found, as `Table` holds it.

    Only Kaggle's labels reach 24 and only the course's hold a 9, which is K there.

    Args:
        labels: Integers, 0 to 24.
        name: What messages call the table.

    Raises:
        InputError: They may be of either spelling, or are of both.
    """
    nine, twenty_four = (labels == _J).any(), (labels == CLASSES).any()
    if nine and twenty_four:
        _refuse_label(labels, int((labels == _J).argmax()), name)
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


def _refuse_label(labels: np.ndarray, row: int, name: str, first_row: int = 1) -> None:
    raise InputError(
        f"{name}, row {row + first_row}, column label: holds {labels[row]:.0f}. Labels are 0 to "
        "23, or 0 to 24 without 9 (J) as Kaggle counts them."
    )

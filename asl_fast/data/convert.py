"""Conversion of image data of any size to shards of records, in parallel and resumable."""

import concurrent.futures
import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import pandas as pd

from asl_fast.data import csv_table as table
from asl_fast.data import records
from asl_fast.data.records import Records, Shard
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.images.decode import check_size
from asl_fast.system import quiet, storage
from asl_fast.system.errors import InputError
from asl_fast.system.workers import Workers

__all__ = ["convert"]

SHARD_ROWS = 16384

_SETTINGS = ".conversion.json"

_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
_READ_AT_ONCE = 1 << 22
_LONGEST_ROW = 1 << 15  # bytes, on average; rows of 785 cells have 3,000
# Of a compressed table; the real ones have 4. Blank images would reach 1,000.
_EXPANSION = 100


class _Job(NamedTuple):
    """What becomes a shard: rows of CSV text, or files with their labels."""

    first_row: int
    content: bytes
    files: tuple[tuple[str, int], ...] = ()


class _Work(NamedTuple):
    """What is the same for all shards."""

    name: str
    folder: Path
    compression: str
    size: tuple[int, int]
    color_mode: str


def convert(
    source: str | Path | pd.DataFrame,
    folder: str | Path,
    *,
    size: tuple[int, int] = (28, 28),
    color_mode: str = "grayscale",
    compress: bool = False,
    shard_rows: int = SHARD_ROWS,
    workers: int | None = None,
    progress: Callable[[int, int | None], object] = lambda rows, total: None,
) -> Records:
    """Converts a data set to a folder of records, for `asl_fast.fit` to stream.

    What was converted before by the same call, and stopped, is not converted again. Images from
    files are put into an order of their own, drawn once, so that each shard holds of every class.

    Args:
        source: One of

            - a CSV file with the columns label and pixel1 to pixel784, plain, .gz, .zip or .xz,
              which is read in parts;
            - a folder of folders, one a class, of image files;
            - a dataframe with the columns filename and class, or a CSV file of such.
        folder: Of the shards; made if need be.
        size: Height and width that image files are resized to, as `keras.utils.load_img` does.
        color_mode: "grayscale", "rgb" or "rgba", of image files.
        compress: Whether shards are compressed by gzip: less to read, more to compute.
        shard_rows: Int, at least 1, images of a shard.
        workers: Int, at least 1, processes; as many as there are cores by default.
        progress: Called with the number of images converted since its last call, and that of all
            or None where it is not known.

    Returns:
        What `Records.open` gives for the folder.

    Raises:
        InputError: Something that can't be read, or holds what it should not; names file and row.
            Or the folder holds another conversion.
    """
    folder = Path(folder)
    numbers = {"shard_rows": shard_rows, "height": size[0], "width": size[1]}
    for name, value in {**numbers, "workers": workers or 1}.items():
        if value < 1:
            raise InputError(f"`{name}` must be at least 1. Received: {value}.")
    if color_mode not in _CHANNELS:
        raise InputError(f"`color_mode` must be one of {', '.join(_CHANNELS)}: {color_mode!r}.")
    frame, name, described = _opened(source)
    work = _Work(name, folder, "GZIP" if compress else "", size, color_mode)
    settings = {**described, **numbers, "color_mode": color_mode, "compress": compress}
    classes = list(LETTERS) if frame is None else sorted(set(frame["class"]))
    jobs = _csv_jobs(name, shard_rows) if frame is None else _file_jobs(frame, classes, shard_rows)
    storage.make_folder(folder)
    with _locked(folder):
        _begin(folder, settings)
        notes = _convert_all(
            work,
            jobs,
            workers or os.cpu_count() or 1,
            progress,
            None if frame is None else len(frame),
        )
        if frame is None:
            shape = (table.SIDE, table.SIDE, 1)
            labels = _spelled({label for note in notes for label in note["labels"]}, name)
        else:
            shape = (*size, _CHANNELS[color_mode])
            labels = list(range(len(classes)))
        shards = [Shard(note["file"], note["rows"], note["sha256"]) for note in notes]
        records.write_index(folder, shape, labels, classes, work.compression, shards, settings)
        for shard in shards:
            _note(folder, shard.file).unlink()
        for left in folder.glob(".*.partial*"):  # by processes that were killed
            left.unlink()
        (folder / _SETTINGS).unlink()
    return Records.open(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"Another conversion writes to {folder}. Wait for its end.") from None
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder that holds something else, and notes what is going on."""
    if (folder / records.INDEX).exists():
        raise InputError(f"The folder {folder} holds converted data already. Choose another one.")
    path = folder / _SETTINGS
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except (ValueError, RecursionError):
            before = None
        if before != json.loads(json.dumps(settings)):
            raise InputError(
                f"The folder {folder} holds a conversion of something else, or with other options, "
                "that was stopped. Empty it, or choose another one."
            )
        return
    with storage.replacing(path) as aside:
        aside.write_text(json.dumps(settings))


def _opened(source: str | Path | pd.DataFrame) -> tuple[pd.DataFrame | None, str, dict[str, Any]]:
    """Returns a frame of files and classes or None for a table of pixels, and what it is."""
    if isinstance(source, pd.DataFrame):
        frame = _checked(source, "The dataframe", Path())
        return frame, "The dataframe", {"dataframe": _digest(frame)}
    path = Path(source)
    if path.is_dir():
        frame = _listed(path)
        return frame, str(path), {"folder": str(path.resolve()), "files": _digest(frame)}
    if not path.is_file():
        raise InputError(f"There is no file or folder {path}.")
    stat = path.stat()
    described = {"file": str(path.resolve()), "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    with path.open("rb") as stored, table.opened(stored, str(path)) as file:
        header = file.readline(_LONGEST_ROW).decode("utf-8-sig", "replace")
    columns = {column.strip().strip('"') for column in header.split(",")}
    if {"filename", "class"} <= columns:
        plain = io.BytesIO(table.decompress(path.read_bytes(), str(path)))
        try:
            # A class may be named NA.
            frame = pd.read_csv(
                plain, dtype=str, encoding="utf-8-sig", keep_default_na=False, na_values=[""]
            )
        except ValueError as error:  # pandas' errors, and those of the encoding
            raise InputError(f"{path} can't be read as a list of files: {error}.") from None
        return _checked(frame, str(path), path.parent), str(path), described
    return None, str(path), described


def _digest(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()


def _listed(folder: Path) -> pd.DataFrame:
    rows = [
        (os.path.join(root, file), entry.name)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
        if entry.is_dir()
        for root, _, files in sorted(os.walk(entry.path))
        for file in sorted(files)
        if file.lower().endswith(_IMAGES)
    ]
    if not rows:
        raise InputError(
            f"{folder} holds no images: it needs a folder a class, with files that end in "
            f"{', '.join(_IMAGES)}."
        )
    return pd.DataFrame(rows, columns=["filename", "class"])


def _checked(frame: pd.DataFrame, name: str, folder: Path) -> pd.DataFrame:
    missing = {"filename", "class"} - set(frame.columns)
    if missing:
        raise InputError(f"{name} lacks the column {min(missing)}.")
    if not len(frame):
        raise InputError(f"{name} has no rows.")
    frame = frame[["filename", "class"]]
    empty = frame.isna().any(axis=1).to_numpy()
    if empty.any():
        raise InputError(f"{name}, row {int(empty.argmax()) + 1}: holds nothing.")
    files = [str(folder / str(file)) for file in frame["filename"]]
    return pd.DataFrame({"filename": files, "class": frame["class"].astype(str).to_numpy()})


def _file_jobs(frame: pd.DataFrame, classes: Sequence[str], rows: int) -> Iterator[_Job]:
    numbers = {name: number for number, name in enumerate(classes)}
    order = np.random.default_rng(0).permutation(len(frame))
    files = frame["filename"].to_numpy(object)[order]
    labels = [numbers[name] for name in frame["class"].to_numpy(object)[order]]
    for first in range(0, len(frame), rows):
        part = slice(first, first + rows)
        yield _Job(first + 1, b"", tuple(zip(files[part], labels[part], strict=True)))


def _csv_jobs(name: str, rows: int) -> Iterator[_Job]:
    """Yields parts of a table, each with the header, cut at the ends of lines."""
    first_row, lines, held, total = 1, 0, 0, 0
    rest: list[bytes] = []
    most = max(table.EXPANDED, _EXPANSION * Path(name).stat().st_size)
    with open(name, "rb") as stored, table.opened(stored, name) as file:
        header = file.readline(_LONGEST_ROW)
        while content := file.read(_READ_AT_ONCE):
            rest.append(content)
            lines += content.count(b"\n")
            held, total = held + len(content), total + len(content)
            if held > _READ_AT_ONCE + _LONGEST_ROW * (lines + 1):
                raise InputError(
                    f"{name}, row {first_row} is longer than a table's row can be, or one after it."
                )
            if total > most:
                raise InputError(
                    f"{name} expands to more than {_EXPANSION} times its size. Is it a table? "
                    "Decompress it first if it is."
                )
            while lines >= rows:
                whole = b"".join(rest)
                end = 0
                for _ in range(rows):
                    end = whole.index(b"\n", end) + 1
                yield _Job(first_row, header + whole[:end])
                rest, lines, first_row = [whole[end:]], lines - rows, first_row + rows
                held = len(rest[0])
    last = b"".join(rest)
    if last.strip() or first_row == 1:
        yield _Job(first_row, header + last)


def _convert_all(
    work: _Work,
    jobs: Iterator[_Job],
    workers: int,
    progress: Callable[[int, int | None], object],
    total: int | None,
) -> list[dict[str, Any]]:
    """Writes the shards, in as many processes at most; returns what was noted of each."""
    notes: dict[int, dict[str, Any]] = {}
    running: dict[concurrent.futures.Future, int] = {}

    def collect(*, all_of_them: bool) -> None:
        when = (
            concurrent.futures.ALL_COMPLETED if all_of_them else concurrent.futures.FIRST_COMPLETED
        )
        for future in concurrent.futures.wait(running, return_when=when).done:
            number = running.pop(future)
            notes[number] = future.result()
            progress(notes[number]["rows"], total)

    with _pool(workers) as pool:
        try:
            for number, job in enumerate(jobs):
                note = _finished(work.folder, number)
                if note is not None:
                    notes[number] = note
                    progress(note["rows"], total)
                    continue
                # No more of the table in memory than there is work for.
                if len(running) > workers:
                    collect(all_of_them=False)
                running[pool.submit(_write_part, work, number, job)] = number
            collect(all_of_them=True)
        except concurrent.futures.BrokenExecutor:
            raise InputError(
                "A process that converts was killed, perhaps for want of memory. Call it again, "
                "with fewer workers (--workers): it goes on where it stopped."
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            if not list(work.folder.glob("*.tfrecord")):
                (work.folder / _SETTINGS).unlink()  # nothing to go on with
            raise
    return [notes[number] for number in sorted(notes)]


def _pool(workers: int) -> concurrent.futures.Executor:
    if workers == 1:  # a process of its own would take seconds to start
        return concurrent.futures.ThreadPoolExecutor(1)
    return Workers(workers, quiet.import_tensorflow)


def _file(number: int) -> str:
    return f"part-{number:06}.tfrecord"


def _note(folder: Path, file: str) -> Path:
    return folder / f".{file}.json"


def _finished(folder: Path, number: int) -> dict[str, Any] | None:
    """Returns what was noted of a shard before the conversion was stopped, if it was written."""
    try:
        note = json.loads(_note(folder, _file(number)).read_text())
        shard = Shard(note["file"], int(note["rows"]), str(note["sha256"]))
        labels = [int(label) for label in note["labels"]]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if shard.file != _file(number) or not (folder / shard.file).is_file():
        return None
    return {**shard._asdict(), "labels": labels}


def _write_part(work: _Work, number: int, job: _Job) -> dict[str, Any]:
    """Writes a shard and notes what it holds; in a worker."""
    if job.files:
        images = np.stack([_load(file, work) for file, _ in job.files])
        labels = np.array([label for _, label in job.files])
    else:
        images, labels = table.parse_rows(job.content, work.name, job.first_row)
    shard = records.write_shard(work.folder / _file(number), images, labels, work.compression)
    note = {**shard._asdict(), "labels": sorted(set(labels.tolist()))}
    with storage.replacing(_note(work.folder, shard.file)) as aside:
        aside.write_text(json.dumps(note))
    return note


def _load(file: str, work: _Work) -> np.ndarray:
    import keras

    try:
        check_size(file)
        image = keras.utils.load_img(file, color_mode=work.color_mode, target_size=work.size)
    except Exception as error:  # Pillow's readers raise what comes up in broken files
        raise InputError(f"The image file {file} can't be read: {error}.") from None
    pixels = np.asarray(image, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _spelled(labels: set[int], name: str) -> list[int]:
    """Returns what stands for each letter in a table that holds these labels."""
    if {9, 24} <= labels:
        raise InputError(
            f"{name} holds the labels 9 and 24. Labels are 0 to 23, or 0 to 24 without 9 (J) as "
            "Kaggle counts them."
        )
    _, spelling = table.contiguous(np.array(sorted(labels)), name)
    return [n for n in range(25) if n != (9 if spelling == "kaggle" else 24)]

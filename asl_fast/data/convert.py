"""Conversion of image data of any size to shards of records, in parallel and resumable."""

import concurrent.futures
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from asl_fast.data import dataset, records
from asl_fast.data.file_table import FileTable
from asl_fast.data.records import Records, Shard
from asl_fast.data.source import DataSource, Read
from asl_fast.images.file_types import CHANNELS
from asl_fast.system import quiet, storage
from asl_fast.system.errors import InputError
from asl_fast.system.workers import Workers

__all__ = ["convert", "convert_all"]

SHARD_ROWS = 16384

_SETTINGS = ".conversion.json"


def convert_all(
    source: str | Path,
    folder: str | Path,
    *,
    progress: Callable[[int, int | None], object] = lambda rows, total: None,
    **options: Any,
) -> list[Records]:
    """Converts all sets at a path: a single set, or a training and a validation set.

    Args:
        source: A path in one of `dataset.FORMATS`.
        folder: Of a single set's records, or of their folders `train` and `valid`.
        progress: As for `convert`, over all sets.
        **options: As for `convert`.

    Raises:
        InputError: As for `convert`.
    """
    sets = dataset.find(Path(source))
    counts = [one.rows for one in sets.values()]
    total = None if None in counts else sum(count or 0 for count in counts)
    return [
        convert(
            one,
            Path(folder) / name,
            progress=lambda rows, _: progress(rows, total),
            **options,
        )
        for name, one in sets.items()
    ]


def convert(
    source: str | Path | pd.DataFrame | DataSource,
    folder: str | Path,
    *,
    size: tuple[int, int] = (28, 28),
    color_mode: str = "grayscale",
    compress: bool = False,
    shard_rows: int = SHARD_ROWS,
    workers: int | None = None,
    progress: Callable[[int, int | None], object] = lambda rows, total: None,
) -> Records:
    """Converts a set of images to a folder of records, for `asl_fast.fit` to stream.

    A conversion that was stopped resumes at the shards that are missing if it is called again with
    the same arguments; one that was completed is left as it is.

    Args:
        source: A path with a single set in one of `dataset.FORMATS`, such as a CSV file, which is
            read in parts, or a folder of class folders; a dataframe with the columns filename and
            class; or a `DataSource`. Image files are put into a random order, drawn once, so that
            each shard holds all classes.
        folder: Of the shards; made if missing.
        size: Height and width that image files are cropped and resized to as `photograph.read`
            does, and so as predictions do; "rgba" as `keras.utils.load_img` does.
        color_mode: "grayscale", "rgb" or "rgba", of image files.
        compress: Whether to compress shards by gzip: less to read, more to compute.
        shard_rows: Images of a shard, at least 1.
        workers: Processes, at least 1; one for each core by default.
        progress: Called with the number of images converted since its last call, and the number
            of all, or None if it is unknown.

    Returns:
        The records, as `Records.open` returns them.

    Raises:
        InputError: The source can't be read or is invalid; names file and row. Or the folder holds
            another conversion.
    """
    folder = Path(folder)
    numbers = {"shard_rows": shard_rows, "height": size[0], "width": size[1]}
    for name, value in {**numbers, "workers": workers or 1}.items():
        if value < 1:
            raise InputError(f"`{name}` must be at least 1. Received: {value}.")
    if color_mode not in CHANNELS:
        raise InputError(f"`color_mode` must be one of {', '.join(CHANNELS)}: {color_mode!r}.")
    source = _opened(source).resized(size, color_mode)
    settings = {
        **source.fingerprint, **numbers, "color_mode": color_mode, "compress": compress
    }  # fmt: skip
    compression = "GZIP" if compress else ""
    storage.make_folder(folder)
    with _locked(folder):
        if _index(folder).get("source") == json.loads(json.dumps(settings)):
            _clear(folder)  # it may have been killed before it did
            return Records.open(folder)
        _begin(folder, settings)
        notes = _convert_all(
            folder, source, shard_rows, compression, workers or os.cpu_count() or 1, progress
        )
        labels = source.stored_labels(
            {label for note in notes for label in note["labels"]},
            max(note["brightest"] for note in notes),
        )
        shards = [Shard(note["file"], note["rows"], note["sha256"]) for note in notes]
        assert source.shape is not None
        records.write_index(
            folder, source.shape, labels, source.classes, compression, shards, settings
        )
        _clear(folder)
    return Records.open(folder)


def _opened(source: str | Path | pd.DataFrame | DataSource) -> DataSource:
    if isinstance(source, DataSource):
        return source
    if isinstance(source, pd.DataFrame):
        return FileTable(source)
    sets = dataset.find(Path(source))
    if "" not in sets:
        raise InputError(f"{source} holds a training and a validation set. Use convert_all.")
    return sets[""]


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


def _clear(folder: Path) -> None:
    """Removes what a conversion needs only to be resumed, and what killed processes have left."""
    for pattern in (".part-*.json", ".*.partial*", _SETTINGS):
        for path in folder.glob(pattern):
            path.unlink()


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder that holds another conversion, and notes what this one is."""
    if (folder / records.INDEX).exists():
        raise InputError(f"The folder {folder} holds converted data already. Choose another one.")
    path = folder / _SETTINGS
    if path.exists():
        try:
            before = json.loads(storage.read_text(path))
        except (OSError, ValueError, RecursionError):
            before = None
        if before != json.loads(json.dumps(settings)):
            raise InputError(
                f"The folder {folder} holds a stopped conversion of something else, or with other "
                "options. Empty it, or choose another one."
            )
        return
    with storage.replacing(path) as aside:
        aside.write_text(json.dumps(settings))


def _index(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(storage.read_text(folder / records.INDEX)))
    except (OSError, ValueError, RecursionError):
        return {}


def _convert_all(
    folder: Path,
    source: DataSource,
    rows: int,
    compression: str,
    workers: int,
    progress: Callable[[int, int | None], object],
) -> list[dict[str, Any]]:
    """Writes the shards and returns the notes about them."""
    notes: dict[int, dict[str, Any]] = {}
    running: dict[concurrent.futures.Future, int] = {}

    def collect(when: str) -> None:
        for future in concurrent.futures.wait(running, return_when=when).done:
            number = running.pop(future)
            notes[number] = future.result()
            progress(notes[number]["rows"], source.rows)

    with _pool(workers) as pool:
        try:
            for number, read in enumerate(source.batches(rows)):
                note = _finished(folder, number)
                if note is not None:
                    notes[number] = note
                    progress(note["rows"], source.rows)
                    continue
                # Holds no more of the source in memory than the workers need.
                if len(running) > workers:
                    collect(concurrent.futures.FIRST_COMPLETED)
                path = folder / _file(number)
                running[pool.submit(_write_shard, path, read, compression)] = number
            collect(concurrent.futures.ALL_COMPLETED)
        except concurrent.futures.BrokenExecutor:
            raise InputError(
                "A process of the conversion was killed, perhaps for lack of memory. Call it "
                "again with fewer workers (--workers): it resumes where it stopped."
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            if not list(folder.glob("*.tfrecord")):
                (folder / _SETTINGS).unlink()  # nothing to resume
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
    """Returns the note about a shard that a stopped conversion has written, or None."""
    try:
        note = json.loads(storage.read_text(_note(folder, _file(number))))
        shard = Shard(note["file"], int(note["rows"]), str(note["sha256"]))
        labels = [int(label) for label in note["labels"]]
        brightest = int(note["brightest"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    path = folder / _file(number)
    if shard.file != path.name or not path.is_file() or records.sha256(path) != shard.sha256:
        return None
    return {**shard._asdict(), "labels": labels, "brightest": brightest}


def _write_shard(path: Path, read: Read, compression: str) -> dict[str, Any]:
    """Writes a shard, and a note about it for a later call; in a worker."""
    images, labels = read()
    shard = records.write_shard(path, images, labels, compression)
    note = {
        **shard._asdict(), "labels": sorted(set(labels.tolist())), "brightest": int(images.max())
    }  # fmt: skip
    with storage.replacing(_note(path.parent, shard.file)) as aside:
        aside.write_text(json.dumps(note))
    return note

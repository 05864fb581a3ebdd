"""Files written atomically, regular files opened, and the cache of parsed data sets."""

import contextlib
import errno
import glob
import hashlib
import io
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs

from asl_fast.system.errors import InputError

__all__ = [
    "Entry",
    "cache_folder",
    "load_entry",
    "make_folder",
    "open_file",
    "read_text",
    "replacing",
    "replacing_folder",
    "save_entry",
]

_log = logging.getLogger(__name__)

_PARTIAL = ".partial."
_DIGEST = "sha256"  # the file of an entry that tells whether the others are whole
_DAY = 24 * 60 * 60.0  # seconds


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which replaces `path` if the block succeeds.

    Readers of `path` see the old file or the new one, never a part. If the block raises, what it
    wrote is removed.

    Raises:
        InputError: The block raised an `OSError`, or the file can't be replaced.
    """
    _clear_leftovers(path, path.stem, path.suffix)
    # The suffix stays last, as Keras and matplotlib choose the format by it.
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield aside
        _sync(aside)
        aside.replace(path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}.") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder to fill, which replaces `path` if the block succeeds.

    An existing folder is missing for a moment, as no system replaces one in a single call. If the
    process is killed in this moment, the next call puts it back.
    """
    _clear_leftovers(path, path.name, "")
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    before = path.with_name(f".{path.name}.{os.getpid()}.before")
    try:
        aside.mkdir()
        yield aside
        for part in aside.rglob("*"):
            if part.is_file():
                _sync(part)
        if path.is_dir():
            path.rename(before)
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        _remove_or_restore(before, path)


def _remove_or_restore(before: Path, path: Path) -> None:
    """Removes the folder that another one has replaced, or puts it back if none has."""
    if before.is_dir() and not path.exists():
        before.rename(path)
    shutil.rmtree(before, ignore_errors=True)


def _clear_leftovers(path: Path, begin: str, end: str) -> None:
    """Removes what killed processes have left of their attempts to replace a file or folder."""
    name = re.compile(rf"\.{re.escape(begin)}\.(\d+)\.(partial|before){re.escape(end)}")
    for left in path.parent.glob(f".{glob.escape(begin)}.*"):
        match = name.fullmatch(left.name)
        if match is None or _runs(int(match[1])):
            continue
        with contextlib.suppress(OSError):
            if match[2] == "before":
                _remove_or_restore(left, path)
            elif left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Returns whether another process of this number runs."""
    if process == os.getpid() or os.name != "posix":
        return process != os.getpid()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def make_folder(path: Path) -> Path:
    """Creates a folder for results if it is missing, and returns it.

    Raises:
        InputError: It can't be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"The output folder {path} can't be written to: {error.strerror}."
        ) from None
    return path


class Entry(NamedTuple):
    """A cached data set.

    Attributes:
        images: uint8, (rows, 28, 28, 1), memory-mapped.
        labels: int32, (rows,), memory-mapped.
        facts: About the file that it was parsed from, for JSON.
    """

    images: np.ndarray
    labels: np.ndarray
    facts: dict[str, Any]


def cache_folder() -> Path:
    """Returns the cache folder: `ASL_FAST_CACHE`, or the user's cache folder for this package."""
    path = os.environ.get("ASL_FAST_CACHE")
    return Path(path) if path else platformdirs.user_cache_path("asl_fast", appauthor=False)


def open_file(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Opens a regular file to read: others, such as pipes and devices, might never end.

    Raises:
        OSError: It can't be opened, or is no regular file.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    waits_not = getattr(os, "O_NONBLOCK", 0)
    file = open(  # noqa: SIM115
        path, "rb", opener=lambda name, flags: os.open(name, flags | waits_not)
    )
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "It is no regular file", str(path))
    return file


def read_text(path: Path) -> str:
    """Returns the text in a regular file, in UTF-8.

    Raises:
        OSError: As for `open_file`.
        UnicodeDecodeError: It is no such text.
    """
    with open_file(path) as file:
        return file.read().decode()


def load_entry(key: str, shape: Sequence[int], classes: int) -> Entry | None:
    """Returns what was saved under `key`, or None if that is missing, damaged or something else.

    Args:
        key: As for `save_entry`.
        shape: The shape that each image must have.
        classes: What all labels must be below.
    """
    folder = cache_folder() / key
    try:
        if read_text(folder / _DIGEST) != _digest(folder):
            raise ValueError("its digest is another")
        facts = json.loads(read_text(folder / "facts.json"))
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
        fits = images.shape[1:] == tuple(shape) and labels.shape == images.shape[:1]
        typed = (images.dtype, labels.dtype) == (np.uint8, np.int32)
        if not (fits and typed and labels.min() >= 0 and labels.max() < classes):
            raise ValueError("its files don't belong together")
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy raises many kinds for a broken header
        _log.warning("The cached data in %s is damaged and is made anew (%s).", folder, error)
        return None
    return Entry(images, labels, facts)


def _digest(folder: Path) -> str:
    """Returns the SHA-256 of an entry's files."""
    digest = hashlib.sha256()
    for name in ("facts.json", "images.npy", "labels.npy"):
        with open_file(folder / name) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def save_entry(key: str, images: np.ndarray, labels: np.ndarray, facts: dict[str, Any]) -> Entry:
    """Saves arrays and facts under `key` and returns them as `load_entry` would.

    If the cache can't be written to, that is logged as a warning, and the arrays are returned.
    """
    folder = cache_folder() / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f"{_PARTIAL}*"):  # of a process that was killed
            if leftover.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(leftover, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
        try:
            np.save(aside / "images.npy", images)
            np.save(aside / "labels.npy", labels)
            (aside / "facts.json").write_text(json.dumps(facts))
            (aside / _DIGEST).write_text(_digest(aside))
            for part in aside.iterdir():
                _sync(part)  # or a power cut could leave zeros of the right length
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(FileExistsError):  # another process was faster
                aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        _log.warning("The parsed data can't be cached in %s: %s.", folder.parent, error.strerror)
        return Entry(images, labels, facts)
    found = load_entry(key, images.shape[1:], 1 + int(labels.max()))
    return found or Entry(images, labels, facts)

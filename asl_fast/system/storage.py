"""Files on disk: whole or not at all, and the cache of parsed data sets."""

import contextlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
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
    "replacing",
    "replacing_folder",
    "save_entry",
]

_log = logging.getLogger(__name__)

_ASIDE = ".partial."
_DAY = 24 * 60 * 60.0  # seconds


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` once the block has ended well.

    Whoever looks at `path` sees the old file or the new one, never a part; when the block raises,
    what it wrote is removed.

    Raises:
        InputError: It can't be written, or what the block reads can't be read.
    """
    # The suffix stays last: Keras and matplotlib choose the format by it.
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
    """Yields a new folder to fill, which takes the place of `path` once the block has ended well.

    Where `path` is a folder already, there is none for a moment: no system has one call for it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    before = path.with_name(f".{path.name}.{os.getpid()}.before")
    try:
        aside.mkdir()
        yield aside
        for part in aside.rglob("*"):
            if part.is_file():
                with part.open("rb") as file:
                    os.fsync(file.fileno())
        if path.is_dir():
            path.rename(before)
        aside.rename(path)
    finally:
        for folder in (aside, before):
            shutil.rmtree(folder, ignore_errors=True)


def make_folder(path: Path) -> Path:
    """Makes a folder for results.

    Raises:
        InputError: It can't be made or written to.
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
    """What the cache holds of a file: the arrays, memory-mapped, and what was found out.

    Attributes:
        images: uint8, (rows, 28, 28, 1).
        labels: int32, (rows,).
        facts: A dictionary that JSON can hold.
    """

    images: np.ndarray
    labels: np.ndarray
    facts: dict[str, Any]


def cache_folder() -> Path:
    """Returns the folder of the cache: `ASL_FAST_CACHE`, or the user's own for this package."""
    named = os.environ.get("ASL_FAST_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("asl_fast", appauthor=False)


def load_entry(key: str) -> Entry | None:
    """Returns what was saved under `key`, or None where nothing whole is there."""
    folder = cache_folder() / key
    try:
        facts = json.loads((folder / "facts.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
        if images.ndim != 4 or labels.shape != images.shape[:1] or not isinstance(facts, dict):
            raise ValueError("its parts don't belong together")
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy raises what comes up in a broken header
        _log.warning("The cached data in %s is damaged and is made anew (%s).", folder, error)
        return None
    return Entry(images, labels, facts)


def save_entry(key: str, images: np.ndarray, labels: np.ndarray, facts: dict[str, Any]) -> Entry:
    """Saves arrays and facts under `key` and returns them as `load_entry` would.

    Where the cache can't be written to, a warning says so and the arrays are returned as they are.
    """
    folder = cache_folder() / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{_ASIDE}*"):  # by a process that was killed
            if left.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(left, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=folder.parent))
        try:
            np.save(aside / "images.npy", images)
            np.save(aside / "labels.npy", labels)
            (aside / "facts.json").write_text(json.dumps(facts))
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
    return load_entry(key) or Entry(images, labels, facts)

"""The contract between a format that data sets come in and the code that reads data sets."""

import abc
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from asl_fast.system import storage
from asl_fast.system.errors import InputError

__all__ = ["DataSource", "Read", "batch", "check_memory", "digest", "file_facts"]

# Reads a batch: images, uint8 (n, height, width, channels), and labels, integers (n,). It can be
# pickled, as conversions call it in other processes.
Read = Callable[[], tuple[np.ndarray, np.ndarray]]


class DataSource(abc.ABC):
    """A labelled set of images, found but not yet read.

    Each format is one subclass in a file of its own, listed in `dataset.FORMATS`. A subclass whose
    images fit into memory implements `read`; a larger one `batches`, to be converted; and one that
    can be streamed as it is `stream`.

    Attributes:
        kind: What a data set of this format is called in `metrics.json`.
        wanted: What `find` looks for, in words, for the message that nothing was found.
        name: What error messages call the set: its path.
        shape: Height, width and channels of every image; None for image files of any size.
        classes: The names of the classes, in the order of their labels.
        rows: The number of images, or None if it is known only after reading.
        fingerprint: Identifies the contents, in JSON's types: a stopped conversion is resumed only
            where it is unchanged.
    """

    kind: ClassVar[str]
    wanted: ClassVar[str]

    name: str
    shape: tuple[int, int, int] | None
    classes: tuple[str, ...]
    rows: int | None = None
    fingerprint: dict[str, Any]

    @classmethod
    @abc.abstractmethod
    def find(cls, path: Path) -> "dict[str, DataSource]":
        """Returns the sets at a path.

        Args:
            path: Of a file or folder that need not be of this format.

        Returns:
            "train" and "valid" with a set each, or "" with a single set, or nothing where the path
            is not of this format.

        Raises:
            InputError: The path is of this format but incomplete or damaged.
        """

    def shaped(self, size: tuple[int, int] | None, color: str | None) -> "DataSource":
        """Returns the set with images of one shape; itself if they have one.

        Args:
            size: Height and width in pixels, or None for those that all files share.
            color: "grayscale" or "rgb", or None for grayscale if no file has colours.

        Raises:
            InputError: The files have several sizes, and none is asked for; or one can't be read.
        """
        return self

    def read(self, progress: Callable[[int], object] | None = None) -> storage.Entry:
        """Reads the set into memory.

        Args:
            progress: Called with the number of images that were made since its last call.

        Returns:
            Images, uint8 (n, *shape); labels, int32 (n,), that number `classes`; and the facts
            `sha256` and, where the file may number them otherwise, `spelling`.

        Raises:
            InputError: The set can't be read.
        """
        raise AssertionError(f"{type(self).__name__} must say how its images are read")

    def batches(self, rows: int) -> Iterator[Read]:
        """Yields calls that read the images of the set, up to `rows` each, in order.

        Raises:
            InputError: The set can't be read; also raised by the calls.
        """
        images, labels, _ = self.read()
        for first in range(0, len(images), rows):
            part = slice(first, first + rows)
            yield partial(batch, np.asarray(images[part]), np.asarray(labels[part]))

    def stored_labels(self, seen: set[int], brightest: int) -> list[int]:
        """Returns the label that stands for each class in the batches.

        Args:
            seen: All labels that the batches hold.
            brightest: The largest pixel that they hold.

        Raises:
            InputError: The batches are right, each for itself, but not together.
        """
        return list(range(len(self.classes)))

    def stream(self, damaged: str, service: str) -> Any:
        """Returns `Records` to stream the set from, or None if it has to be read.

        Args:
            damaged: As for `Records.open`.
            service: As for `Records.open`.
        """
        return None

    def resized(self, size: tuple[int, int], color_mode: str) -> "DataSource":
        """Returns the set with its image files at one size; itself if the images have a shape.

        Args:
            size: Height and width in pixels.
            color_mode: "grayscale", "rgb" or "rgba".
        """
        return self


def batch(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns its arguments: with `functools.partial`, a `Read` of arrays in memory."""
    return images, labels


def file_facts(path: Path) -> dict[str, Any]:
    """Returns the fingerprint of a file: its path, size and time of change.

    Raises:
        InputError: There is no such file.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    return {"file": str(path.resolve()), "bytes": stat.st_size, "changed": stat.st_mtime_ns}


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """Returns the SHA-256 of a set in memory."""
    both = hashlib.sha256(np.ascontiguousarray(images).data)
    both.update(np.ascontiguousarray(labels).data)
    return both.hexdigest()


def check_memory(name: str, rows: int, shape: tuple[int, int, int]) -> None:
    """Refuses images that take more than half of this machine's memory.

    Raises:
        InputError: They do; says how to stream them instead.
    """
    size = rows * math.prod(shape)
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2:
        raise InputError(
            f"{name}: {rows:,} images of {'x'.join(map(str, shape))} take {size / 1e9:.1f} GB, "
            "more than half of the memory. Convert a training and a validation set (asl-fast data "
            "convert), which training streams, or choose a smaller --image-size."
        )

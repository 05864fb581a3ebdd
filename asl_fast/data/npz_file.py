"""NumPy archives laid out as Keras's own data sets: x_train, y_train, x_test and y_test."""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from asl_fast.data.csv_table import CLASSES, EXPANSION, SIDE, most_expanded
from asl_fast.data.source import DataSource, digest, file_facts
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.system import storage
from asl_fast.system.errors import InputError

__all__ = ["NpzFile"]

_MOST_CLASSES = 1 << 16
_MOST_LABELS = 1 << 24  # numbers, one-hot ones too, or as many as the file has bytes
_ROWS_AT_ONCE = 4096
_VALIDATION = ("_valid", "_val", "_test")  # ends of the arrays' names, the preferred first


class NpzFile(DataSource):
    """The training or the validation set of a .npz file.

    Images are (n, height, width) or (n, height, width, channels) with 1, 3 or 4 channels: whole
    numbers from 0 to 255 of any type, or floats from 0 to 1, which become round(255 x). Labels are
    whole numbers from 0, (n,) or (n, 1), or one-hot, (n, classes). 24 classes of 28x28x1 are taken
    for the letters.

    Args:
        path: Of the file.
        end: Of the arrays' names, such as "_train".
        labels: int32, (n,).
        classes: The number of classes.

    Raises:
        InputError: The images are missing, too large, of another shape or number.
    """

    kind = "NumPy arrays"
    wanted = "a .npz file with x_train, y_train, x_test and y_test"

    def __init__(self, path: Path, end: str, labels: np.ndarray, classes: int) -> None:
        self._path, self._array, self._labels, self.name = path, f"x{end}", labels, str(path)
        self.fingerprint = {**file_facts(path), "arrays": self._array}
        shape = _array(path, self._array, header=True).shape
        if len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,), (4,)) or 0 in shape:
            raise InputError(
                f"{path}: {self._array} has the shape {shape}. Give (n, height, width), or (n, "
                "height, width, channels) with 1, 3 or 4 channels."
            )
        if len(labels) != shape[0]:
            raise InputError(
                f"{path}: {self._array} holds {shape[0]} images, y{end} {len(labels)} labels."
            )
        self.rows, self.shape = shape[0], (shape[1], shape[2], (*shape, 1)[3])
        letters = self.shape == (SIDE, SIDE, 1) and classes == CLASSES
        self.classes = tuple(LETTERS) if letters else tuple(map(str, range(classes)))

    @classmethod
    def find(cls, path: Path) -> dict[str, DataSource]:
        """Returns the sets of a .npz file, or of the only one in a folder without other data.

        x_train or x alone is a single set.
        """
        if path.is_dir():
            files = list(path.iterdir())
            if any(file.is_dir() or ".csv" in file.name for file in files):
                return {}
            archives = [file for file in files if file.suffix.lower() == ".npz" and file.is_file()]
            if len(archives) != 1:
                return {}
            (path,) = archives
        if path.suffix.lower() != ".npz":
            return {}
        try:
            with zipfile.ZipFile(path) as archive:
                names = set(archive.namelist())
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is damaged or no .npz file: {error}.") from None
        ends = {
            "train": "_train",
            "valid": next((end for end in _VALIDATION if f"x{end}.npy" in names), "_test"),
        }
        whole = next((end for end in ("_train", "") if f"x{end}.npy" in names), None)
        if whole is not None and not any(f"{xy}{ends['valid']}.npy" in names for xy in "xy"):
            ends = {"": whole}
        labels = {split: _labels(path, f"y{end}") for split, end in ends.items()}
        classes = 1 + max(int(some.max()) for some in labels.values())
        return {split: cls(path, end, labels[split], classes) for split, end in ends.items()}

    def read(self, progress: Callable[[int], object] | None = None) -> storage.Entry:
        """Reads the images, as uint8."""
        pixels = _array(self._path, self._array)
        low, high, floats = pixels.min(), pixels.max(), pixels.dtype.kind == "f"
        scaled = floats and low >= 0 and high <= 1
        images: np.ndarray = np.empty(pixels.shape, np.uint8)
        for first in range(0, len(pixels), _ROWS_AT_ONCE):
            part = pixels[first : first + _ROWS_AT_ONCE]
            # Integers up to 1 are more likely truncated from floats than nearly black images.
            whole = low >= 0 and 1 < high <= 255 and not (floats and (part % 1).any())
            if not (scaled or whole):
                raise InputError(
                    f"{self._path}: {self._array} holds {pixels.dtype} values from {low} to "
                    f"{high}. Give whole numbers from 0 to 255, or floats from 0 to 1."
                )
            images[first : first + len(part)] = np.rint(part * 255) if scaled else part
        assert self.shape is not None
        images = images.reshape(-1, *self.shape)
        return storage.Entry(images, self._labels, {"sha256": digest(images, self._labels)})


def _labels(path: Path, name: str) -> np.ndarray:
    """Returns labels as int32, (n,)."""
    count = math.prod(_array(path, name, header=True).shape)
    if count > max(_MOST_LABELS, path.stat().st_size):
        raise InputError(f"{path}: {name} holds {count:,} numbers, too many for labels.")
    labels = _array(path, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all():
        labels = labels.argmax(axis=1)
    if (
        labels.ndim != 1
        or not len(labels)
        or not (labels.min() >= 0 and labels.max() < _MOST_CLASSES)
        or (labels % 1).any()
    ):
        raise InputError(
            f"{path}: {name} has the shape {labels.shape} or values that are not labels. Give "
            f"whole numbers from 0 to {_MOST_CLASSES - 1}, (n,) or (n, 1), or one-hot rows."
        )
    return labels.astype(np.int32)


def _array(path: Path, name: str, *, header: bool = False) -> np.ndarray:
    """Returns an array of numbers, or for its header a view of one zero in its shape.

    Its header is checked before memory is allocated: a few bytes may claim or expand to terabytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                if version == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            size = math.prod(shape) * dtype.itemsize
            if dtype.kind not in "iuf":
                raise InputError(f"{path}: {name} holds {dtype} values. Give integers or floats.")
            if size > most_expanded(path):
                raise InputError(
                    f"{path}: {name} would take {size >> 20:,} MiB, more than {EXPANSION} times "
                    "the size of the file. If it is right, save it by np.savez, uncompressed."
                )
            if size > member.file_size:
                raise ValueError(f"{name} is shorter than its header says")
            if header:
                return np.broadcast_to(np.zeros((), dtype), shape)
            with archive.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
    except InputError:
        raise
    except KeyError:
        raise InputError(
            f"{path} has no array {name}. It needs x_train, y_train, x_test, y_test."
        ) from None
    except Exception as error:  # NumPy and zipfile raise all kinds on broken files
        raise InputError(f"{path} is damaged: {name} can't be read ({error}).") from None

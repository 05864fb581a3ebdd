"""Models on disk: Keras's own file, with the letters that the outputs stand for."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras

from asl_fast.system.errors import InputError
from asl_fast.system.private_api import unreadable_model_reason
from asl_fast.system.storage import replacing

# Keras finds their layers in a model's file by name, once they are imported.

__all__ = ["EXPANSION", "load_model", "read_letters", "save_model"]

EXPANSION = 100  # times that a model's file may expand; those of Keras don't

# A member of the `.keras` file, which is a zip archive. Keras leaves it alone when it loads, and
# out when it saves again.
_LETTERS = "asl_fast.json"

_ENDINGS = (".keras", ".h5", ".hdf5")  # of the names that Keras loads models from


def save_model(model: keras.Model, path: Path, letters: Sequence[str]) -> None:
    """Saves a model as a `.keras` file that tells what its outputs stand for.

    Args:
        model: With as many outputs as letters.
        path: The file.
        letters: A name for each output, in their order.

    Raises:
        InputError: It can't be written.
    """
    with replacing(path) as aside:
        try:
            model.save(aside)
        except ValueError as error:  # a clock that stands before 1980, which archives don't know
            raise InputError(f"{path} can't be written: {error}.") from None
        with zipfile.ZipFile(aside, "a") as archive:
            archive.writestr(_LETTERS, json.dumps({"letters": list(letters)}))


def load_model(path: Path) -> keras.Model:
    """Loads a Keras model, whatever it is for, uncompiled. Code within the file is not run.

    Args:
        path: A `.keras` file, or the folder of a run.

    Raises:
        InputError: There is none, or it can't be read; or it holds code, which is not run, or
            expands to more than `EXPANSION` times its size.
    """
    path = _file(path)
    try:
        _refuse_bomb(path)
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds for what is not a model of its own
        reason = _in_words(path, error)
        raise InputError(f"{path} can't be loaded as a Keras model: {reason}") from None


def _in_words(path: Path, error: Exception) -> str:
    """Returns why a model can't be loaded; of what Keras says of that at most a line."""
    if path.suffix not in _ENDINGS:
        return f"the names of such end in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}."
    if path.suffix == _ENDINGS[0] and not zipfile.is_zipfile(path):
        return "it is cut short, or another program's file."
    return unreadable_model_reason(error)


def read_letters(path: Path) -> tuple[str, ...] | None:
    """Returns what the outputs of a saved model stand for, or None if its file doesn't say.

    Args:
        path: As for `load_model`.

    Raises:
        InputError: There is no such file, or what it says is damaged.
    """
    path = _file(path)
    if not zipfile.is_zipfile(path):  # Keras's older HDF5 files are none
        return None
    try:
        _refuse_bomb(path)
        with zipfile.ZipFile(path) as archive:
            if _LETTERS not in archive.namelist():
                return None
            letters = json.loads(archive.read(_LETTERS))["letters"]
        if not (isinstance(letters, list) and all(isinstance(name, str) for name in letters)):
            raise TypeError
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: the letters that it holds are damaged.") from None
    return tuple(letters)


def _refuse_bomb(path: Path) -> None:
    """Raises a `ValueError` for a file that Keras would expand far beyond its size."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        # Nobody reads more of a member than it says.
        size = sum(member.file_size for member in archive.infolist())
    if size > EXPANSION * path.stat().st_size:
        raise ValueError(f"it expands to {size:,} bytes, more than {EXPANSION} times its size")


def _file(path: Path) -> Path:
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise InputError(
                f"{path} is a SavedModel, which can't be read back. Give the .keras file that it "
                "was exported from."
            )
        path = path / "model.keras"
    if not path.is_file():
        raise InputError(f"There is no model {path}.")
    return path

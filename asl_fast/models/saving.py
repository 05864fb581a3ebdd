"""Model files: Keras's own format, with the letters of the outputs and the range of the pixels."""

import json
import logging
import string
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from asl_fast.models import limits, pixel_range
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import unreadable_model_reason, variables_limited
from asl_fast.system.storage import replacing

__all__ = ["find_letters", "load_model", "read_letters", "save_model"]

# A member of the `.keras` zip archive. Keras ignores it on loading, and drops it on saving again.
_METADATA = "asl_fast.json"

_log = logging.getLogger(__name__)

_SUFFIXES = (".keras", ".h5", ".hdf5")  # of files that Keras loads


def save_model(model: keras.Model, path: Path, letters: Sequence[str]) -> None:
    """Saves a model as a `.keras` file that holds its letters, and its range of pixels if known.

    Args:
        model: The model, with k outputs.
        path: The file.
        letters: k names, in the order of the outputs.

    Raises:
        InputError: The file can't be written.
    """
    with replacing(path) as aside:
        try:
            model.save(aside)
        except ValueError as error:  # the clock is before 1980, which zip can't store
            raise InputError(f"{path} can't be written: {error}.") from None
        with zipfile.ZipFile(aside, "a") as archive:
            facts: dict[str, object] = {"letters": list(letters)}
            if pixel_range.is_known(model):
                facts["pixels"] = pixel_range.pixel_range(model)
            archive.writestr(_METADATA, json.dumps(facts))


def load_model(path: Path) -> keras.Model:
    """Loads any Keras model, uncompiled. Python code in the file is not run.

    A range of pixels in the file's metadata is marked on the model; see `pixel_range`.

    Args:
        path: A `.keras` or HDF5 file, or the folder of a run.

    Raises:
        InputError: The file is missing or damaged, contains Python code, or asks for more memory
            than `limits` allows.
    """
    path = _model_file(path)
    try:
        with variables_limited(limits.check_file(path)):
            model = keras.saving.load_model(path, compile=False)
        limits.check_activations(model)
    except Exception as error:  # Keras raises exceptions of many kinds
        reason = _explain(path, error)
        raise InputError(f"{path} can't be loaded as a Keras model: {reason}") from None
    facts = _read_metadata(path)
    if facts is not None:
        if "pixels" in facts:
            pixel_range.mark(model, facts["pixels"])
        elif not pixel_range.is_known(model):  # `asl-fast train` wrote it, before it noted this
            pixel_range.mark(model, "0-1")
    return model


def _explain(path: Path, error: Exception) -> str:
    """Returns in one line why a model can't be loaded."""
    if path.suffix not in _SUFFIXES:
        return f"its name must end in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}."
    if path.suffix == _SUFFIXES[0] and not zipfile.is_zipfile(path):
        return "it is truncated, or not a Keras file."
    return unreadable_model_reason(error)


def read_letters(path: Path) -> tuple[str, ...] | None:
    """Returns the letters of a saved model's outputs, or None if the file does not hold them.

    Args:
        path: As for `load_model`.

    Raises:
        InputError: The file is missing, or its letters are damaged.
    """
    facts = _read_metadata(_model_file(path))
    return None if facts is None else tuple(facts["letters"])


def find_letters(
    path: Path, model: keras.Model, letters: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """Returns the letters of a model's outputs, in their order, or None if nothing tells.

    Args:
        path: As for `load_model`.
        model: The model from there, with one output (None, k).
        letters: Replaces those in the file. 25 or 26 outputs whose letters neither tells are taken
            for A to Y or A to Z, as Kaggle's tables number them, with a warning.

    Raises:
        InputError: As for `read_letters`.
    """
    known = tuple(letters) if letters is not None else read_letters(path)
    outputs = model.output_shape[-1]
    if known is not None or outputs not in (25, 26):
        return known
    _log.warning(
        "%s has %d outputs, which are taken for the letters A to %s; Kaggle's tables have no %s.",
        path,
        outputs,
        string.ascii_uppercase[outputs - 1],
        "J" if outputs == 25 else "J and no Z",
    )
    return tuple(string.ascii_uppercase[:outputs])


def _read_metadata(path: Path) -> dict[str, Any] | None:
    if not zipfile.is_zipfile(path):  # HDF5
        return None
    try:
        limits.check_file(path)
        with zipfile.ZipFile(path) as archive:
            if _METADATA not in archive.namelist():
                return None
            facts = json.loads(archive.read(_METADATA))
        letters, pixels = facts["letters"], facts.get("pixels", pixel_range.RANGES[0])
        if not (isinstance(letters, list) and all(isinstance(name, str) for name in letters)):
            raise TypeError
        if pixels not in pixel_range.RANGES:
            raise ValueError
    except Exception:  # zipfile and json raise exceptions of many kinds
        raise InputError(f"The letters in {path} are damaged.") from None
    return facts


def _model_file(path: Path) -> Path:
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise InputError(
                f"{path} is a SavedModel, which can't be loaded. Give the .keras file that it was "
                "exported from."
            )
        path = path / "model.keras"
    if not path.is_file():
        raise InputError(f"There is no model {path}.")
    return path

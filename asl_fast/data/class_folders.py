"""Folders of image files, one folder a class."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from asl_fast.data.file_table import FileTable
from asl_fast.data.source import DataSource
from asl_fast.images.file_types import SUFFIXES
from asl_fast.system.errors import InputError

__all__ = ["ClassFolders", "check_links"]

_VALIDATION = ("valid", "validation", "val", "test")  # names of folders, the preferred first


def check_links(folder: str | os.PathLike[str], classes: Sequence[str]) -> None:
    """Raises an `InputError` if a class is a link to another one or to a folder that holds it."""
    seen: dict[str, str] = {}
    for name in classes:
        place = os.path.realpath(os.path.join(folder, name))
        link = os.path.islink(os.path.join(folder, name))
        if link and Path(os.path.realpath(folder)).is_relative_to(place):
            raise InputError(f"{os.path.join(folder, name)} is a link to a folder that holds it.")
        if place in seen:
            raise InputError(
                f"{os.path.join(folder, name)} and {seen[place]} are the same folder: one is a "
                "link. Remove it, or its images are in two classes."
            )
        seen[place] = name


class ClassFolders(FileTable):
    """The image files in the sub-folders of a folder, at any depth; hidden ones are left out.

    Args:
        folder: Holds a folder for each class, of its name.
        files: The paths and class names of the files.
    """

    wanted = f"a folder for each class, with files that end in {', '.join(SUFFIXES)}"

    def __init__(self, folder: Path, files: list[tuple[str, str]]) -> None:
        super().__init__(pd.DataFrame(files, columns=["filename", "class"]), str(folder))
        self.fingerprint = {"folder": str(folder.resolve()), "files": self._digest()}

    @classmethod
    def find(cls, path: Path) -> dict[str, DataSource]:
        """Returns class folders as a single set, or those of the folders train and valid."""
        if not path.is_dir():
            return {}
        train = _files(path / "train")
        if not train:
            sets = {"": (path, _files(path))}
        else:
            places = {path / name: _files(path / name) for name in _VALIDATION}
            valid = next((pair for pair in places.items() if pair[1]), None)
            found = path / "train", train
            sets = {"": found} if valid is None else {"train": found, "valid": valid}
        return {split: cls(place, files) for split, (place, files) in sets.items() if files}


def _files(folder: Path) -> list[tuple[str, str]]:
    """Returns the paths and class names of the files in class folders, sorted."""
    if not folder.is_dir():
        return []
    classes = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and not _is_hidden(entry.name)
    )
    check_links(folder, classes)
    return [
        (os.path.join(root, file), name)
        for name in classes
        for root, _, names in sorted(os.walk(folder / name))
        if not any(map(_is_hidden, Path(root).relative_to(folder).parts))
        for file in sorted(names)
        if file.lower().endswith(SUFFIXES) and not _is_hidden(file)
    ]


def _is_hidden(name: str) -> bool:
    """Returns whether a name is of copies that notebooks and macOS leave behind."""
    return name.startswith((".", "__MACOSX"))

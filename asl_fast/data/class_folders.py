"""Folders of image files, one folder a class."""

import os
from pathlib import Path

import pandas as pd

from asl_fast.data.file_table import FileTable
from asl_fast.data.source import DataSource
from asl_fast.images.file_types import SUFFIXES

__all__ = ["ClassFolders"]


class ClassFolders(FileTable):
    """The image files in the sub-folders of a folder, at any depth.

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
        """Returns a folder of class folders as a single set."""
        files = [
            (os.path.join(root, file), entry.name)
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name)
            if entry.is_dir()
            for root, _, names in sorted(os.walk(entry.path))
            for file in sorted(names)
            if file.lower().endswith(SUFFIXES)
        ]
        return {"": cls(path, files)} if files else {}

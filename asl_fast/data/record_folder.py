"""Converted data as a source: folders of shards with an index."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from asl_fast.data.source import DataSource, Read, batch
from asl_fast.system import quiet

__all__ = ["RecordFolder"]


class RecordFolder(DataSource):
    """A folder that `asl-fast data convert` wrote. Opening it loads TensorFlow.

    Args:
        folder: It holds `index.json`.
    """

    kind = "converted records"
    wanted = "folders train and valid of converted records"

    def __init__(self, folder: Path) -> None:
        self._folder, self.name = folder, str(folder)
        records = self.stream("stop", "")
        self.shape, self.classes, self.rows = records.shape, records.classes, records.rows
        self.fingerprint = {"records": records.sha256}

    @classmethod
    def find(cls, path: Path) -> dict[str, DataSource]:
        """Returns the set of a folder of records, or those of its folders train and valid."""
        if (path / "index.json").is_file():
            return {"": cls(path)}
        if (path / "train" / "index.json").is_file():
            return {split: cls(path / split) for split in ("train", "valid")}
        return {}

    def batches(self, rows: int) -> Iterator[Read]:
        """Yields the records in their order."""
        from asl_fast.data.records import damage_in_words

        records = self.stream("stop", "")
        with damage_in_words(records):
            for images, labels in records.batches(rows).as_numpy_iterator():
                yield partial(batch, images, labels)

    def stream(self, damaged: str, service: str) -> Any:
        """Returns `Records`."""
        quiet.import_tensorflow()
        from asl_fast.data.records import Records

        return Records.open(self._folder, damaged, service)

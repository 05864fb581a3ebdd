"""The built-in data set, rendered on first use and cached."""

from collections.abc import Callable
from pathlib import Path

from asl_fast.data import synthetic_hands as hands
from asl_fast.data.source import DataSource, digest
from asl_fast.system import storage

__all__ = ["RenderedHands"]


class RenderedHands(DataSource):
    """The training or the validation set of the rendered hands.

    Args:
        split: "train" or "valid".
    """

    kind = "built-in rendered hands"
    wanted = f"the words {kind!r}"
    name = kind
    shape = (hands.SIZE, hands.SIZE, 1)
    classes = tuple(hands.LETTERS)

    def __init__(self, split: str) -> None:
        self._split = split
        self.rows: int = hands.TRAIN_ROWS if split == "train" else hands.VALID_ROWS
        self.fingerprint = {"hands": hands.VERSION, "split": split}

    @classmethod
    def find(cls, path: Path) -> dict[str, DataSource]:
        """Returns both sets where the path is `kind`."""
        return {split: cls(split) for split in hands.SPLITS} if str(path) == cls.kind else {}

    def read(self, progress: Callable[[int], object] | None = None) -> storage.Entry:
        """Returns the cached set, or renders it."""
        key = f"hands-{hands.VERSION}-{self._split}-{self.rows}"
        entry = storage.load_entry(key, self.shape, len(self.classes))
        if entry is None or len(entry.labels) != self.rows:
            images, labels = hands.render(self.rows, split=self._split, progress=progress)
            entry = storage.save_entry(key, images, labels, {"sha256": digest(images, labels)})
        return entry

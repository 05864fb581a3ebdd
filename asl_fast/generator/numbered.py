"""Passes over a data set by number: the order and the draws depend on (seed, pass, image) alone."""

from typing import Any

import numpy as np
import tensorflow as tf

from asl_fast.data.pipeline import shuffled

__all__ = ["Numbered"]

# Of the batches of `iterator[i]`: numbers that no pass has, so that each call draws anew.
_ITEMS = 2**31


class Numbered:
    """Keeps the books of an iterator: which pass it is in, and where.

    Args:
        n: Int, images in the data set.
        batch_size: Int.
        shuffle: Bool.
        key: Int in [0, 2**32).

    Attributes:
        batch_index: Int, batches of the current pass that `next_batch` has returned.
        index_array: int64, (n,), the order of the current pass; None before the first.
        epoch: Int, the number of the current pass.
    """

    def __init__(self, n: int, batch_size: int, shuffle: bool, key: int) -> None:
        self.n, self.batch_size, self.key = n, batch_size, key
        self.batch_index = self.epoch = 0
        self.index_array: np.ndarray | None = None
        self._given = self._own_passes = self._begun = 0
        self._shuffle = bool(shuffle)
        self._shared: Any = None

    def share(self) -> tuple[tf.Variable, tf.Variable]:
        """Returns variables of the next pass's number and of `shuffle`: passes begin in graphs."""
        if self._shared is None:
            with tf.device("CPU"):
                self._shared = (
                    tf.Variable(self._begun, dtype=tf.int64, trainable=False),
                    tf.Variable(self._shuffle, trainable=False),
                )
        return self._shared

    @property
    def next_pass(self) -> int:
        """The number of the next pass."""
        return self._begun if self._shared is None else int(self._shared[0])

    @next_pass.setter
    def next_pass(self, number: int) -> None:
        self._begun = number
        if self._shared is not None:
            self._shared[0].assign(number)

    @property
    def shuffle(self) -> bool:
        """Whether passes are shuffled."""
        return self._shuffle

    @shuffle.setter
    def shuffle(self, value: bool) -> None:
        self._shuffle = bool(value)
        if self._shared is not None:
            self._shared[1].assign(self._shuffle)

    @property
    def steps(self) -> int:
        """Batches of a pass."""
        return -(-self.n // self.batch_size)

    @property
    def total_batches_seen(self) -> int:
        """Batches drawn; passes of a dataset count as a whole. Set, it says which pass is next."""
        return self._given + self.steps * (self.next_pass - self._own_passes)

    @total_batches_seen.setter
    def total_batches_seen(self, value: int) -> None:
        self._given = value
        self.epoch = self.next_pass = value // max(self.steps, 1)
        if self.batch_index:
            self.next_pass += 1
        self._own_passes = self.next_pass

    def next_batch(self) -> tuple[np.ndarray, int]:
        """Returns the rows and the pass of the next batch; it goes on for ever."""
        if self.batch_index == 0 or self.index_array is None:
            self.end_pass()
        begin = self.batch_index * self.batch_size % max(self.n, 1)
        self.batch_index = self.batch_index + 1 if begin + self.batch_size < self.n else 0
        self._given += 1
        return self._rows(begin), self.epoch

    def batch(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the rows of a batch of the current pass, and a number to draw with."""
        if self.index_array is None:
            self.end_pass()
        self._given += 1
        return self._rows(index * self.batch_size), _ITEMS + self._given

    def draw_anew(self) -> int:
        """Returns a number to draw with."""
        self._given += 1
        return _ITEMS + self._given

    def end_pass(self) -> None:
        """Begins a pass."""
        self.epoch = self.next_pass
        self.next_pass = self.epoch + 1
        self._own_passes += 1
        self.index_array = np.arange(self.n)
        if self.shuffle and self.n > 1:
            self.index_array = self.order(tf.range(self.n, dtype=tf.int64), self.epoch).numpy()

    def order(self, positions: tf.Tensor, epoch: int | tf.Tensor) -> tf.Tensor:
        """Returns the rows at these positions of a pass's shuffled order."""
        return shuffled(positions, self.n, self.key, epoch)

    def _rows(self, begin: int) -> np.ndarray:
        assert self.index_array is not None
        return self.index_array[begin : begin + self.batch_size]

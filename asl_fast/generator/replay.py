"""What Keras's `ImageDataGenerator` would draw, drawn again from NumPy's Mersenne Twister.

Pixels are none of its business: a pass over a data set becomes an order and a table of numbers.
"""

import random
from typing import Any, NamedTuple

import numpy as np

from asl_fast.transforms.augment_options import PARAMETERS, AugmentOptions

__all__ = ["Pass", "Replay", "draw", "table"]

# NumPy's module `np.random`, its hidden global generator, or one of its old-style generators.
Generator = Any


def draw(options: AugmentOptions, generator: Generator, height: int, width: int) -> dict[str, Any]:
    """Draws the parameters of one image, in the order and by the calls of Keras's generator.

    Args:
        options: The ranges, with `quirks`.
        generator: `np.random` or a `np.random.RandomState`.
        height: Int, rows of an image.
        width: Int, columns of an image.

    Returns:
        The dictionary that Keras's `apply_transform` takes, without what is off by being None.
    """
    drawn: dict[str, Any] = {}
    for transform in options.transforms:
        drawn |= transform.replay(generator, height, width)
    return drawn


def table(
    options: AugmentOptions, generator: Generator, images: int, height: int, width: int
) -> np.ndarray:
    """Draws the parameters of several images one after the other.

    Args:
        options: The ranges, with `quirks`.
        generator: `np.random` or a `np.random.RandomState`.
        images: Int, how many.
        height: Int, rows of an image.
        width: Int, columns of an image.

    Returns:
        float32 of shape (images, len(PARAMETERS)), columns in the order of `PARAMETERS`; what is
        off holds its neutral value.
    """
    result = np.empty((images, len(PARAMETERS)), np.float32)
    result[:] = list(PARAMETERS.values())
    place = {name: column for column, name in enumerate(PARAMETERS)}
    try:
        count = _Columns()
        draw(options, count, height, width)
    except _VariableDrawsError:
        for row in result:
            for name, value in draw(options, generator, height, width).items():
                row[place[name]] = value
        return result
    uniform = generator.random_sample((images, count.taken))
    for name, values in draw(options, _Columns(uniform), height, width).items():
        result[:, place[name]] = values
    return result


class _VariableDrawsError(Exception):
    """How many random words an image takes depends on what is drawn."""


class _Columns:
    """Stands in for NumPy's generator where each image takes the same count of uniform numbers.

    Then one call draws them for all images, a row each. Without numbers it only counts.
    """

    def __init__(self, uniform: np.ndarray | None = None) -> None:
        self.taken = 0
        self._uniform = np.zeros((1, 64)) if uniform is None else uniform

    def random_sample(self) -> np.ndarray:
        self.taken += 1
        return self._uniform[:, self.taken - 1]

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        if size is not None:
            return [self.uniform(low, high) for _ in range(size)]
        return low + (high - low) * self.random_sample()

    def choice(self, values: Any) -> Any:
        raise _VariableDrawsError


class Pass(NamedTuple):
    """A batch, or the batches of a pass over a data set, one after the other.

    Attributes:
        order: int64, (n,), the samples' numbers.
        parameters: float32, (n, len(PARAMETERS)), as `table` gives them, in the same order.
        ends: int64, (batches,), where each batch ends.
    """

    order: np.ndarray
    parameters: np.ndarray
    ends: np.ndarray


def _join(batches: list[Pass]) -> Pass:
    order, parameters, sizes = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Pass(order, parameters, np.cumsum(sizes))


class Replay:
    """Keeps the books of one of Keras's iterators: the order, and what each batch draws.

    With a seed, Keras reseeds NumPy's global generator at each batch with `seed` and the number of
    batches seen; so does this one, on a generator of its own. Without one it goes on from the
    global generator's state at its first batch, whatever others draw there meanwhile.

    Args:
        options: What is drawn, with `quirks`.
        n: Int, images in the data set.
        image_size: Height and width.
        batch_size: Int.
        shuffle: Bool.
        seed: Int, or None.
        saving: Int, or None: what `save_to_dir` draws below, once an image, for a file's name.

    Attributes:
        batch_index: Int, the place of `next_batch` in its pass.
        total_batches_seen: Int.
        index_array: int64, (n,), the order; None before the first batch.
    """

    def __init__(
        self,
        options: AugmentOptions,
        n: int,
        image_size: tuple[int, int],
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        saving: int | None = None,
    ) -> None:
        self.shuffle = shuffle
        self.batch_index = 0
        self.total_batches_seen = 0
        self.index_array: np.ndarray | None = None
        self.options = options
        self.n = n
        self.image_size = image_size
        self.batch_size = batch_size
        self.seed = seed
        self._saving = saving
        self._generator: np.random.RandomState | None = None

    def next_batch(self) -> Pass:
        """Returns the batch that Keras's `next` would give; it goes on for ever."""
        self._begin_batch()
        if self.batch_index == 0:
            self._set_index_array()
        begin = self.batch_index * self.batch_size % max(self.n, 1)
        self.batch_index += 1
        if self.n <= begin + self.batch_size:
            self.batch_index = 0
        return self._batch(begin)

    def batch(self, index: int) -> Pass:
        """Returns the batch that Keras's `iterator[index]` would give."""
        self._begin_batch()
        if self.index_array is None:
            self._set_index_array()
        return self._batch(index * self.batch_size)

    def end_pass(self) -> None:
        """Does as Keras's `on_epoch_end`: orders anew, from what the last batch left."""
        self._set_index_array()

    def look_ahead(self) -> None:
        """Draws the batches that Keras's `fit` pulls before training, and drops them."""
        for index in range(min(2, self._steps)):
            self.batch(index)
        self.end_pass()

    def next_pass(self) -> Pass:
        """Returns what Keras's `reset` and one `next` after the other would give, once round."""
        self.batch_index = 0
        return _join([self.next_batch() for _ in range(self._steps)])

    def epoch_of_fit(self, *, shuffle: bool) -> Pass:
        """Returns the batches of an epoch of Keras's `fit`, and ends the epoch.

        Args:
            shuffle: Bool, as given to `fit`: it takes an iterator's batches in an order drawn from
                Python's global `random`.
        """
        indices = list(range(self._steps))
        if shuffle:
            random.shuffle(indices)
        batches = [self.batch(index) for index in indices]
        self.end_pass()
        return _join(batches)

    @property
    def _steps(self) -> int:
        return -(-self.n // self.batch_size)

    def _begin_batch(self) -> None:
        if self._generator is None:
            self._generator = np.random.RandomState()
            self._generator.set_state(np.random.get_state())
        if self.seed is not None:
            self._generator.seed(self.seed + self.total_batches_seen)
        self.total_batches_seen += 1

    def _set_index_array(self) -> None:
        self.index_array = np.arange(self.n)
        if self.shuffle:
            # Before the first batch Keras takes what the global generator has.
            self.index_array = (self._generator or np.random).permutation(self.n)

    def _batch(self, begin: int) -> Pass:
        assert self.index_array is not None
        assert self._generator is not None
        order = self.index_array[begin : begin + self.batch_size]
        drawn = table(self.options, self._generator, len(order), *self.image_size)
        if self._saving is not None:
            for _ in order:
                self._generator.randint(self._saving)
        return Pass(order, drawn, np.array([len(order)]))

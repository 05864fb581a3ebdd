"""What `ImageDataGenerator.flow` returns: datasets with the manners of Keras's iterators.

Each is a `tf.data.Dataset` of one pass over its images, shuffled anew at each pass. Batches are
augmented several at once, so that small ones cost little more an image than large ones.
"""

import contextlib
import dataclasses
import re
import threading
import warnings
from collections.abc import Callable
from collections.abc import Iterator as Iterated
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from asl_fast.data.pipeline import Batch, each, gathered, shared, shuffled, without_autotuning
from asl_fast.generator.replay import Pass, Replay
from asl_fast.generator.subset import subset as subset_of
from asl_fast.system import private_api
from asl_fast.system.errors import InputError
from asl_fast.transforms.options import AugmentOptions
from asl_fast.transforms.parameters import Parameters
from asl_fast.transforms.random_augment import RandomAugment

__all__ = [
    "ERROR",
    "Idle",
    "Iterator",
    "NumpyArrayIterator",
    "Settings",
    "plain_errors",
    "save_images",
]

# Values that are augmented at once: 16 batches of 32 images of 28x28. With fewer the calls cost
# more than the pixels; with more the first batch waits for its neighbours.
_VALUES_AT_ONCE = 16 * 32 * 28 * 28

# As many as are augmented at once; TensorFlow's own choice grows to hundreds.
_BATCHES_AHEAD = 16

# Begins what the pipeline says of the user's files, to be found among what TensorFlow adds.
ERROR = "asl_fast: "


class Settings(Protocol):
    """What an iterator asks of its `ImageDataGenerator`."""

    rng: str
    data_format: str

    def augment_options(self) -> AugmentOptions:
        """Returns what happens to the images at random."""

    def standardized(self, images: tf.Tensor) -> tf.Tensor:
        """Returns a batch, float32, standardised."""

    def warn_unfitted(self) -> None:
        """Warns where statistics are wanted and missing."""


class _Pass(NamedTuple):
    """A pass over the images, or some of it.

    Attributes:
        samples: int64, (n,), the images' numbers in their order.
        epoch: int64 scalar, the pass's number.
        parameters: float32, (n, 10), or None: drawn from the above.
        ends: int64, (parts,), where each part ends.
    """

    samples: tf.Tensor
    epoch: tf.Tensor
    parameters: tf.Tensor | None
    ends: tf.Tensor


def parts(one: _Pass) -> tf.data.Dataset:
    """Yields the parts of a pass, each a `Batch` without data."""

    def part(begin: tf.Tensor, end: tf.Tensor) -> Batch:
        samples, parameters = each(lambda rows: rows[begin:end], (one.samples, one.parameters))
        return Batch(None, samples, one.epoch, parameters)

    begins = tf.concat([[0], one.ends[:-1]], 0)
    return tf.data.Dataset.from_tensor_slices((begins, one.ends)).map(part)


class Idle:
    """Stands for a generator where there is none: images stay as they are."""

    rng = "stateless"

    def __init__(self, data_format: str) -> None:
        self.data_format = data_format

    def augment_options(self) -> AugmentOptions:
        """Returns options that change nothing."""
        return AugmentOptions(data_format=self.data_format, quirks=True)

    def standardized(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the images."""
        return images

    def warn_unfitted(self) -> None:
        """Does nothing."""


class Iterator(tf.data.Dataset):
    """What all iterators share.

    As a dataset, in `keras.Model.fit`, `evaluate` and `predict`, in `map`, `take` and so on, it is
    one pass over the images, `len(self)` batches, anew each time. `iter(self)`, and so a `for`
    loop, begins a pass, and in Python never ends, as Keras's does not. `next(self)` goes through
    passes of its own. `self[i]` is a batch of the present pass, augmented anew at each call. The
    last three give NumPy arrays.

    Attributes:
        n: Int, images.
        seed: Int or None.
        batch_index: Int, the batches that `next` has given of its pass.
    """

    white_list_formats = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
    # Keras's iterators let these be set; TensorFlow chooses for itself.
    workers = 1
    use_multiprocessing = False
    max_queue_size = 10

    # Whether a batch is more than images, and whether its labels are the images.
    _labelled = True
    _echoes = False

    dtype: Any

    def __init__(
        self,
        settings: Settings,
        image_shape: tuple[int, int, int],
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        saving: int | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be an int, at least 1. Received: {batch_size!r}")
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(f"`seed` must be None or an int in [0, 2**32). Received: {seed!r}")
        self.n = n
        self.seed = seed
        self.batch_index = 0
        self.lock = threading.Lock()
        self._batch_size = batch_size
        self._settings = settings
        self._augment_options = settings.augment_options()
        self._key = seed or 0
        if seed is None and settings.rng != "keras":
            self._key = int(np.random.randint(2**32, dtype=np.uint32))
        self._augment = RandomAugment(
            **dataclasses.asdict(self._augment_options), seed=self._key, dtype="float32"
        )
        self._replay: Replay | None = None
        if settings.rng == "keras":
            first = self._augment_options.data_format == "channels_first"
            size = image_shape[1:] if first else image_shape[:2]
            self._replay = Replay(self._augment_options, n, size, batch_size, shuffle, seed, saving)
        self._given = self._own_passes = 0
        self._present: int | None = None
        self._stream: Any = None
        at_once = min(16, _VALUES_AT_ONCE // (batch_size * int(np.prod(image_shape))))
        self._rows = min(max(1, at_once) * batch_size, n)
        with tf.device("CPU"):
            # Variables, for a pass starts in TensorFlow, also in a dataset made from this one.
            self._pass = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._shuffled = tf.Variable(bool(shuffle), trainable=False)
            self._wanted = (
                tf.Variable([0], shape=[None], dtype=tf.int64, trainable=False),
                tf.Variable(0, dtype=tf.int64, trainable=False),
                tf.Variable(np.zeros((1, 10), np.float32), shape=[None, 10])
                if self._replay
                else None,
            )
            self._dataset = without_autotuning(self._in_batches(self._plan()))
            singles = self._loaded(self._plan_of_one(), parallel=False).map(self.finish)
            self._singles = iter(singles.with_options(_nothing_ahead()))
        super().__init__(tf.data.experimental.to_variant(self._dataset))

    # What a dataset has.

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]

    @property
    def element_spec(self) -> Any:
        """The structure of a batch, as `tf.data.Dataset` describes it."""
        return self._dataset.element_spec

    def __iter__(self) -> Any:
        self._settings.warn_unfitted()
        if self._replay is None:
            self._present = int(self._pass)
        return _Passes(self)

    def __len__(self) -> int:
        return -(-self.n // self._batch_size)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.n} images, {len(self)} batches>"

    # What one of Keras's iterators has besides.

    @property
    def batch_size(self) -> int:
        """Images in a batch. Unlike Keras's it can't be set: make another iterator."""
        return self._batch_size

    @property
    def num_batches(self) -> int:
        """Batches in a pass."""
        return len(self)

    @property
    def shuffle(self) -> Any:
        """Whether passes are shuffled; to be set. Called, it is `tf.data.Dataset.shuffle`."""
        switch = _Switch(bool(self._shuffled))
        switch.method = super().shuffle
        return switch

    @shuffle.setter
    def shuffle(self, value: bool) -> None:
        self._shuffled.assign(bool(value))
        if self._replay is not None:
            self._replay.shuffle = bool(value)

    @property
    def total_batches_seen(self) -> int:
        """Batches given. A pass of `fit` or of a loop counts as a whole from its start."""
        if self._replay is not None:
            return self._replay.total_batches_seen
        return self._given + len(self) * (int(self._pass) - self._own_passes)

    @property
    def index_array(self) -> np.ndarray | None:
        """The images' numbers in the order of the present pass, int64 (n,); None before any."""
        if self._replay is not None:
            return self._replay.index_array
        return None if self._present is None else self._order(self._present)

    @property
    def index_generator(self) -> Iterated[np.ndarray]:
        """The images' numbers, batch by batch, for ever."""
        while True:
            order = self._order(self._take_pass())
            for begin in range(0, self.n, self._batch_size):
                yield order[begin : begin + self._batch_size]

    def on_epoch_begin(self) -> None:
        """Does nothing, as Keras's."""

    def on_epoch_end(self) -> None:
        """Orders the images of `self[i]` anew."""
        if self._replay is not None:
            self._replay.end_pass()
        else:
            self._present = self._take_pass()

    def reset(self) -> None:
        """Lets the next `next` begin a pass."""
        self.batch_index, self._stream = 0, None
        if self._replay is not None:
            self._replay.batch_index = 0

    def next(self) -> Any:
        """Does as `next(self)`."""
        return self.__next__()

    def __next__(self) -> Any:
        with self.lock:
            if self._replay is not None:
                batch = self._one(0, self._replay.next_batch())
                self.batch_index = self._replay.batch_index
                return batch
            if self._stream is None:
                self._settings.warn_unfitted()
                self._present = int(self._pass)
                self._own_passes += 1
                self._stream = super().__iter__()
            batch = self._as_numpy(self._stream.__next__)
            self._given += 1
            self.batch_index += 1
            if self.batch_index == len(self):
                self.reset()
            return batch

    def __getitem__(self, idx: int) -> Any:
        if not 0 <= idx < len(self):
            raise ValueError(
                f"Asked to retrieve element {idx}, but the Sequence has length {len(self)}"
            )
        with self.lock:
            self._settings.warn_unfitted()
            if self._replay is not None:
                return self._one(0, self._replay.batch(idx))
            if self._present is None:
                self._present = self._take_pass()
            samples = self._order(self._present)[idx * self._batch_size :][: self._batch_size]
            self._given += 1
            # Epochs that no pass has: each call augments anew.
            return self._one(2**31 + self._given, Pass(samples, np.zeros((1, 10)), samples))

    # What `asl_fast.fit` takes.

    @property
    def kept(self) -> Any:
        """What the images and their company are gathered from: tensors, or None for files."""
        return None

    @property
    def augments(self) -> bool:
        """Whether images are changed at random."""
        return not self._augment_options.idle

    @property
    def divisible(self) -> bool:
        """Whether `numbered` can give several batches as one."""
        return self._replay is None

    def stored(self, *, shuffle: bool = True) -> tf.data.Dataset:
        """Yields batches as they are stored, for ever, to be completed by `finish`.

        Args:
            shuffle: Bool. With `rng="keras"`, whether the batches of a pass come in the order in
                which `keras.Model.fit(shuffle=True)` takes them; else without effect.

        Returns:
            A dataset of `Batch`; its `data` are the images, and a triple of other inputs, labels
            and weights.
        """
        stored = self._loaded(self._endless(shuffle, 1))
        return without_autotuning(stored.prefetch(tf.data.AUTOTUNE))

    def numbered(self, *, shuffle: bool = True, at_once: int = 1) -> tf.data.Dataset:
        """Yields what `stored` does without data, which are to be gathered from `kept`.

        Args:
            shuffle: As for `stored`.
            at_once: Int, how many batches of a pass come as one; 1 unless `divisible`.
        """
        numbered = self._endless(shuffle, at_once).flat_map(parts)
        return without_autotuning(numbered.prefetch(tf.data.AUTOTUNE))

    def _endless(self, shuffle: bool, at_once: int) -> tf.data.Dataset:
        """Yields `_Pass` for ever."""
        self._settings.warn_unfitted()
        if self._replay is None:
            return self._counted(self._batch_size * at_once).repeat()
        self._replay.look_ahead()
        return self._replayed(lambda replay: replay.epoch_of_fit(shuffle=shuffle)).repeat()

    def finish(self, batch: Batch) -> Any:
        """Augments and standardises what `stored` yields; gives it as this iterator does."""
        return self._element(self._dressed(batch), batch)

    def _dressed(self, batch: Batch) -> tf.Tensor:
        images = batch.data[0]
        if self._augment_options.idle:
            pixels = tf.cast(images, tf.float32)
        elif batch.parameters is None:
            pixels = self._augment(images, samples=batch.samples, epoch=batch.epoch, training=True)
        else:
            parameters = Parameters.from_table(batch.parameters, self._augment_options)
            pixels = self._augment.apply(images, parameters)
        return tf.cast(self._settings.standardized(pixels), self.dtype)

    def _element(self, x: tf.Tensor, batch: Batch) -> Any:
        misc, y, weights = batch.data[1]
        x = self._saved(x, batch.samples)
        inputs = (x, *misc) if misc else x
        if not self._labelled:
            return inputs
        y = x if self._echoes else y
        return (inputs, y) if weights is None else (inputs, y, weights)

    # What a kind of iterator adds.

    def _loaded(self, passes: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        """From `_Pass` to its parts, each a `Batch` with images and their company."""
        raise AssertionError(f"{type(self).__name__} must say how images are read")

    def _saved(self, x: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        """Returns x, having written its images to `save_to_dir`."""
        return x

    # How it works.

    def _counted(self, rows: int) -> tf.data.Dataset:
        """Yields a pass, whose number it is then, with its parts of so many rows."""

        def begin(_: tf.Tensor) -> _Pass:
            epoch, mixed = self._pass.assign_add(1) - 1, self._shuffled.read_value()
            positions = tf.range(self.n, dtype=tf.int64)
            order = tf.cond(
                mixed, lambda: shuffled(positions, self.n, self._key, epoch), lambda: positions
            )
            return _Pass(order, epoch, None, self._ends(rows))

        return tf.data.Dataset.from_tensors(0).map(begin)

    def _replayed(self, draw: Callable[[Any], Pass]) -> tf.data.Dataset:
        """Yields a pass as Keras would have drawn it, when it starts."""
        rows = tf.TensorSpec([None], tf.int64)
        signature = (rows, tf.TensorSpec([None, 10], tf.float32), rows)
        drawn = tf.data.Dataset.from_generator(
            lambda: iter([tuple(draw(self._replay))]), output_signature=signature
        )
        return drawn.map(
            lambda order, parameters, ends: _Pass(order, tf.int64.min, parameters, ends)
        )

    def _ends(self, rows: int) -> tf.Tensor:
        return tf.minimum(tf.range(0, self.n, rows, tf.int64) + rows, self.n)

    def _plan(self) -> tf.data.Dataset:
        """Yields a pass in parts of several batches."""
        if self._replay is None:
            return self._counted(self._rows)
        passes = self._replayed(lambda replay: replay.next_pass())
        return passes.map(lambda one: one._replace(ends=self._ends(self._rows)))

    def _plan_of_one(self) -> tf.data.Dataset:
        def wanted(_: tf.Tensor) -> _Pass:
            samples, epoch, parameters = each(lambda v: v.read_value(), self._wanted)
            return _Pass(samples, epoch, parameters, tf.shape(samples, tf.int64))

        return tf.data.Dataset.from_tensors(0).repeat().map(wanted)

    def _one(self, epoch: int, drawn: Pass) -> Any:
        for variable, value in zip(
            self._wanted, (drawn.order, epoch, drawn.parameters), strict=True
        ):
            if variable is not None:
                variable.assign(value)
        return self._as_numpy(self._singles.__next__)

    def _in_batches(self, plan: tf.data.Dataset) -> tf.data.Dataset:
        def finish(batch: Batch) -> Any:
            rows = tf.shape(batch.samples)[0]

            def filled(values: tf.Tensor) -> tf.Tensor:
                whole = tf.cond(
                    rows < self._rows,
                    lambda: tf.concat([values, tf.repeat(values[:1], self._rows - rows, 0)], 0),
                    lambda: values,
                )
                return tf.ensure_shape(whole, [self._rows, *values.shape[1:]])

            # One size, so that XLA compiles one program: the last rows of a pass are filled up.
            images, samples, parameters = each(
                filled, (batch.data[0], batch.samples, batch.parameters)
            )
            whole = self._dressed(Batch((images,), samples, batch.epoch, parameters))
            return self._element(whole[:rows], batch)

        return (
            self._loaded(plan)
            .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
            .rebatch(self._batch_size)
            .apply(tf.data.experimental.assert_cardinality(len(self)))
            .prefetch(_BATCHES_AHEAD)
        )

    def _order(self, epoch: int) -> np.ndarray:
        positions = tf.range(self.n, dtype=tf.int64)
        if not bool(self._shuffled):
            return positions.numpy()
        return shuffled(positions, self.n, self._key, tf.constant(epoch, tf.int64)).numpy()

    def _take_pass(self) -> int:
        self._own_passes += 1
        return int(self._pass.assign_add(1)) - 1

    def _as_numpy(self, pull: Callable[[], Any]) -> Any:
        """Returns what `pull` gives in the form in which Keras's iterators give it."""
        with plain_errors():
            batch = tf.nest.map_structure(lambda values: values.numpy(), pull())
        if not self._labelled:
            return list(batch) if isinstance(batch, tuple) else batch
        return tuple(list(part) if isinstance(part, tuple) else part for part in batch)


def _nothing_ahead() -> tf.data.Options:
    """Returns options for a dataset that computes an element when it is asked for, not before."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.inject_prefetch = False
    return options


class _Passes(private_api.OwnedIterator):
    """Iterates over one pass in a graph, and for ever in Python, where it gives NumPy arrays.

    `keras.Model.fit` asks for batches within its compiled step, and for a new iterator at each
    epoch; a `for` loop over one of Keras's iterators goes on until it is left.
    """

    def __init__(self, over: Iterator) -> None:
        super().__init__(over)
        self._over = over
        self._pull: Callable[[], Any] = super().__next__

    def __next__(self) -> Any:
        if not tf.executing_eagerly():
            return super().__next__()
        try:
            return self._over._as_numpy(self._pull)
        except StopIteration:
            self._pull = tf.data.Dataset.__iter__(self._over).__next__
            return self._over._as_numpy(self._pull)


class _Switch(int):
    """The `shuffle` of an iterator: for Keras a bool, for a dataset a method."""

    method: Any

    def __call__(self, *arguments: Any, **keywords: Any) -> tf.data.Dataset:
        return self.method(*arguments, **keywords)

    def __repr__(self) -> str:
        return repr(bool(self))


@contextlib.contextmanager
def plain_errors() -> Iterated[None]:
    """Raises what the pipeline says of the user's files as one line, without TensorFlow's."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        _, found, text = error.message.partition(ERROR)
        if not found:
            raise
        line = text.splitlines()[0].rstrip().removesuffix("]")
        raise InputError(re.sub(r"\\(.)", r"\1", line)) from None  # TensorFlow escapes quotes


class NumpyArrayIterator(Iterator):
    """Batches of images from an array; see `Iterator`.

    Args:
        x: Images, (n, height, width, channels), or channels first, of any number type; or a pair
            `[images, more]` of these and one array, or a list of them, of as many rows.
        y: Labels, n rows, or None.
        image_data_generator: `ImageDataGenerator`.
        batch_size: Int, at least 1.
        shuffle: Bool.
        sample_weight: Array of n rows, or None.
        seed: Int in [0, 2**32), or None: one drawn from NumPy's global generator.
        data_format: As the generator's, or None.
        save_to_dir: Folder to write every augmented image to, or None.
        save_prefix: Str that their names begin with.
        save_format: Ending of their names.
        subset: "training", "validation" or None.
        ignore_class_split: Bool. False refuses subsets that don't hold the same classes.
        dtype: Floating, of the images given out.

    Raises:
        ValueError: Rows that don't match, images of another rank, no images, pixels that are not
            finite (names the first image), or a wrong option.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: Any = None,
    ) -> None:
        self.dtype = dtype or keras.config.floatx()
        self.data_format = data_format or image_data_generator.data_format
        misc: list[Any] = []
        if isinstance(x, tuple | list):
            if len(x) != 2:
                raise ValueError(
                    f"`x` must be an array or a pair `[images, more]`. Received: {len(x)} parts"
                )
            misc = [np.asarray(m) for m in (x[1] if isinstance(x[1], list) else [x[1]])]
            x = x[0]
        x = np.asarray(x)
        arrays = {
            "y": None if y is None else np.asarray(y),
            "sample_weight": None if sample_weight is None else np.asarray(sample_weight),
            **{f"x[1][{i}]": more for i, more in enumerate(misc)},
        }
        for name, rows in arrays.items():
            if rows is not None and (rows.ndim == 0 or len(rows) != len(x)):
                raise ValueError(
                    f"`x` and `{name}` should have the same length. Found: x.shape = {x.shape}, "
                    f"{name}.shape = {rows.shape}"
                )
        if subset is not None:
            part = np.arange(len(x))
            part, _ = subset_of(
                part,
                arrays["y"],
                validation_split=image_data_generator._validation_split,
                subset=subset,
                ignore_class_split=ignore_class_split,
            )
            within = slice(part[0], part[-1] + 1) if len(part) else slice(0, 0)
            x = x[within]
            arrays = {n: None if rows is None else rows[within] for n, rows in arrays.items()}
        if x.ndim != 4:
            raise ValueError(
                "Input data in `NumpyArrayIterator` should have rank 4. You passed an array with "
                f"shape {x.shape}"
            )
        if not len(x):
            raise ValueError(f"`x` holds no images. Received: an array of shape {x.shape}")
        channels_axis = 3 if self.data_format == "channels_last" else 1
        if x.shape[channels_axis] not in (1, 3, 4):
            warnings.warn(
                f"`x` should have 1, 3 or 4 channels on axis {channels_axis}, for "
                f'data_format="{self.data_format}". Received: an array of shape {x.shape}',
                stacklevel=3,
            )
        # Whole bytes stay as they are: a quarter of the memory, and the same pixels.
        self._pixels, pixels = shared(x, None if x.dtype == np.uint8 else self.dtype)
        _check_finite(self._pixels)
        self.x_misc = [rows for name, rows in arrays.items() if name.startswith("x[1]")]
        self.y, self.sample_weight = arrays["y"], arrays["sample_weight"]
        self._labelled = self.y is not None
        self.image_data_generator = image_data_generator
        self.save_to_dir = save_to_dir
        self.save_prefix = save_prefix
        self.save_format = save_format
        with tf.device("CPU"):
            rest = each(tf.convert_to_tensor, (tuple(self.x_misc), self.y, self.sample_weight))
        self._stored = (pixels, rest)
        saving = int(1e4) if save_to_dir else None
        super().__init__(
            image_data_generator, x.shape[1:], len(x), batch_size, shuffle, seed, saving
        )

    @property
    def x(self) -> np.ndarray:
        """The images in `dtype`."""
        return np.asarray(self._pixels, self.dtype)

    @property
    def kept(self) -> Any:
        """The images, and a triple of other inputs, labels and weights."""
        return self._stored

    def _loaded(self, passes: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        def load(batch: Batch) -> Batch:
            return gathered(self._stored, batch)

        calls = tf.data.AUTOTUNE if parallel else None
        return passes.flat_map(parts).map(load, num_parallel_calls=calls)

    def _saved(self, x: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        if not self.save_to_dir:
            return x
        return save_images(
            x, samples, Path(self.save_to_dir), self.save_prefix, self.save_format, self.data_format
        )


def save_images(
    x: tf.Tensor, samples: tf.Tensor, to: Path, prefix: str, ending: str, data_format: str
) -> tf.Tensor:
    """Writes images as Keras's iterators do, stretched to 0 to 255; returns them."""
    if not to.is_dir():
        raise ValueError(f"`save_to_dir` must be a folder that is there. Received: {str(to)!r}")

    def write(images: np.ndarray, samples: np.ndarray) -> np.ndarray:
        names = np.random.default_rng().integers(10**7, size=len(samples))
        for image, sample, name in zip(images, samples, names, strict=True):
            path = to / f"{prefix}_{sample}_{name}.{ending}"
            keras.utils.array_to_img(image, data_format, scale=True).save(path)
        return images

    # On the host, since any format that Pillow can write may be asked for.
    return tf.ensure_shape(tf.numpy_function(write, [x, samples], x.dtype), x.shape)


def _check_finite(pixels: np.ndarray) -> None:
    if pixels.dtype.kind != "f":
        return
    flat = pixels.reshape(len(pixels), -1)
    broken = ~(np.isfinite(flat.max(axis=1)) & np.isfinite(flat.min(axis=1)))
    if broken.any():
        raise ValueError(
            f"Image {int(broken.argmax())} of `x` holds pixels that are not finite, as have "
            f"{int(broken.sum())} of {len(pixels)}: mend or remove them"
        )

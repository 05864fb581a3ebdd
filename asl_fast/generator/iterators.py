"""Batches from arrays, and what all iterators of `ImageDataGenerator.flow…` share.

Each iterator is a `tf.data.Dataset` of one pass over its images, reshuffled for each pass, with
the methods and attributes of Keras's iterators. Several batches are augmented per call, so that
images in small batches cost little more than in large ones.
"""

import contextlib
import dataclasses
import re
import threading
import warnings
from collections.abc import Callable
from collections.abc import Iterator as IteratorOf
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from asl_fast.data.pipeline import Batch, each, gathered, shared, shuffled, without_autotuning
from asl_fast.generator.replay import Pass, Replay
from asl_fast.generator.subset import subset_rows
from asl_fast.images.file_types import KERAS_SUFFIXES
from asl_fast.system import private_api
from asl_fast.system.errors import InputError
from asl_fast.transforms import augmentation
from asl_fast.transforms.augment_options import PARAMETERS, AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment

__all__ = [
    "ERROR_PREFIX",
    "BaseGenerator",
    "Iterator",
    "NumpyArrayIterator",
    "Plan",
    "chunks",
    "plain_errors",
    "warn_of_channels",
]

# 16 batches of 32 images of 28x28. With fewer values per call the calls cost more than the pixels;
# with more the first batch waits for its neighbours.
_VALUES_PER_CALL = 16 * 32 * 28 * 28

# As many batches as one call augments; TensorFlow's own choice grows to hundreds.
_PREFETCHED_BATCHES = 16

# Marks the pipeline's messages about the user's files within the text that TensorFlow adds.
ERROR_PREFIX = "asl_fast: "
_NO_PARAMETERS = np.zeros((1, len(PARAMETERS)), np.float32)


class BaseGenerator:
    """The interface that iterators need of a generator. This one leaves images as they are."""

    rng = "stateless"

    def __init__(self, data_format: str) -> None:
        self.data_format = data_format

    def augment_options(self) -> AugmentOptions:
        """Returns the random changes to make to the images."""
        return AugmentOptions(data_format=self.data_format, quirks=True)

    def standardized(self, images: tf.Tensor) -> tf.Tensor:
        """Returns a float32 batch of rank 4, standardised."""
        return images

    def warn_unfitted(self) -> None:
        """Warns if an option needs statistics that are missing."""


class Plan(NamedTuple):
    """Which images to process, in which order and chunks.

    Attributes:
        samples: int64, (n,), row numbers.
        epoch: int64 scalar, the number of the pass.
        parameters: float32, (n, len(PARAMETERS)), or None to draw from `epoch` and `samples`.
        ends: int64, (chunks,), where each chunk ends.
    """

    samples: tf.Tensor
    epoch: tf.Tensor
    parameters: tf.Tensor | None
    ends: tf.Tensor


def chunks(plan: Plan) -> tf.data.Dataset:
    """Yields the chunks of a plan, each a `Batch` without data."""

    def chunk(begin: tf.Tensor, end: tf.Tensor) -> Batch:
        samples, parameters = each(lambda rows: rows[begin:end], (plan.samples, plan.parameters))
        return Batch(None, samples, plan.epoch, parameters)

    begins = tf.concat([[0], plan.ends[:-1]], 0)
    return tf.data.Dataset.from_tensor_slices((begins, plan.ends)).map(chunk)


class Iterator(tf.data.Dataset):
    """The base of all iterators.

    As a dataset, in `keras.Model.fit`, `evaluate` and `predict`, in `map`, `take` and so on, it is
    one pass over the images, `len(self)` batches, augmented again each time. In Python,
    `iter(self)`, and so a `for` loop, begins a pass and never ends, like Keras's. `next(self)` goes
    through passes of its own. `self[i]` is a batch of the current pass, augmented again at each
    call. The last three return NumPy arrays.

    Attributes:
        n: Int, number of images.
        seed: Int or None.
        batch_index: Int, batches of the current pass that `next` has returned.
    """

    white_list_formats = KERAS_SUFFIXES
    # Keras's iterators let these be set; TensorFlow chooses for itself.
    workers = 1
    use_multiprocessing = False
    max_queue_size = 10

    image_data_generator: Any
    data_format: str
    dtype: Any
    save_to_dir: Any
    save_prefix: str
    save_format: str

    _labelled = True  # whether batches hold more than images
    _labels_are_images = False
    # For the name of each saved image Keras draws a number below this.
    _file_number_limit = 10**4

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be an int, at least 1. Received: {batch_size!r}")
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(f"`seed` must be None or an int in [0, 2**32). Received: {seed!r}")
        if self.save_to_dir and not Path(self.save_to_dir).is_dir():
            raise ValueError(
                f"`save_to_dir` must be an existing folder. Received: {self.save_to_dir!r}"
            )
        self.n = n
        self.seed = seed
        self.batch_index = 0
        self.lock = threading.Lock()
        self._batch_size = batch_size
        self._generator = generator = self.image_data_generator or BaseGenerator(self.data_format)
        self._augment_options = generator.augment_options()
        self._key = seed or 0
        if seed is None and generator.rng != "keras":
            self._key = int(np.random.randint(2**32, dtype=np.uint32))
        self._augment = RandomAugment(
            **dataclasses.asdict(self._augment_options), seed=self._key, dtype="float32"
        )
        self._replay: Replay | None = None
        self._resumed = False  # whether the replay has looked ahead already
        if generator.rng == "keras":
            first = self._augment_options.data_format == "channels_first"
            size = image_shape[1:] if first else image_shape[:2]
            saving = self._file_number_limit if self.save_to_dir else None
            self._replay = Replay(self._augment_options, n, size, batch_size, shuffle, seed, saving)
        self._batches_given = self._own_passes = 0
        self._current_pass: int | None = None
        self._stream: Any = None
        batches_per_call = _VALUES_PER_CALL // (batch_size * int(np.prod(image_shape)))
        self._rows_per_call = min(max(1, min(16, batches_per_call)) * batch_size, n)
        with tf.device("CPU"):
            # Variables, because a pass starts in TensorFlow, also in a dataset made from this one.
            self._next_pass = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._shuffles = tf.Variable(bool(shuffle), trainable=False)
            self._requested = (
                tf.Variable([0], shape=[None], dtype=tf.int64, trainable=False),
                tf.Variable(0, dtype=tf.int64, trainable=False),
                tf.Variable(_NO_PARAMETERS, shape=[None, len(PARAMETERS)])
                if self._replay
                else None,
            )
            self._dataset = without_autotuning(self._in_batches())
            requests = self._loaded(self._requests(), parallel=False).map(self.finish)
            self._requests_done = iter(requests.with_options(_on_demand()))
        super().__init__(tf.data.experimental.to_variant(self._dataset))

    # The interface of a dataset.

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]

    @property
    def element_spec(self) -> Any:
        """The structure of a batch, as `tf.data.Dataset` describes it."""
        return self._dataset.element_spec

    def __iter__(self) -> Any:
        self._generator.warn_unfitted()
        if self._replay is None:
            self._current_pass = int(self._next_pass)
        return _EndlessIterator(self)

    def __len__(self) -> int:
        return -(-self.n // self._batch_size)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.n} images, {len(self)} batches>"

    # The rest of the interface of Keras's iterators.

    @property
    def batch_size(self) -> int:
        """Images per batch. Unlike Keras's it can't be set: make another iterator."""
        return self._batch_size

    @property
    def num_batches(self) -> int:
        """Batches per pass."""
        return len(self)

    @property
    def shuffle(self) -> Any:
        """Whether passes are shuffled; may be set. Called, it is `tf.data.Dataset.shuffle`."""
        flag = _ShuffleFlag(bool(self._shuffles))
        flag.method = super().shuffle
        return flag

    @shuffle.setter
    def shuffle(self, value: bool) -> None:
        self._shuffles.assign(bool(value))
        if self._replay is not None:
            self._replay.shuffle = bool(value)

    @property
    def total_batches_seen(self) -> int:
        """Batches drawn. A pass of `fit` or of a loop counts as a whole from its start."""
        if self._replay is not None:
            return self._replay.total_batches_seen
        return self._batches_given + len(self) * (int(self._next_pass) - self._own_passes)

    @property
    def index_array(self) -> np.ndarray | None:
        """int64, (n,), row numbers in the order of the current pass; None before the first."""
        if self._replay is not None:
            return self._replay.index_array
        return None if self._current_pass is None else self._order(self._current_pass).numpy()

    @property
    def index_generator(self) -> IteratorOf[np.ndarray]:
        """Row numbers, batch by batch, endlessly."""
        while True:
            order = self._order(self._begin_pass()).numpy()
            for begin in range(0, self.n, self._batch_size):
                yield order[begin : begin + self._batch_size]

    def on_epoch_begin(self) -> None:
        """Does nothing, like Keras's."""

    def on_epoch_end(self) -> None:
        """Reshuffles the images of `self[i]`."""
        if self._replay is not None:
            self._replay.end_pass()
        else:
            self._current_pass = self._begin_pass()

    def reset(self) -> None:
        """Makes the following `next` begin a pass."""
        self.batch_index, self._stream = 0, None
        if self._replay is not None:
            self._replay.batch_index = 0

    def next(self) -> Any:
        """Returns `next(self)`."""
        return self.__next__()

    def __next__(self) -> Any:
        with self.lock:
            if self._replay is not None:
                batch = self._request(0, self._replay.next_batch())
                self.batch_index = self._replay.batch_index
                return batch
            if self._stream is None:
                self._generator.warn_unfitted()
                self._current_pass = int(self._next_pass)
                self._own_passes += 1
                self._stream = super().__iter__()
            batch = self._as_numpy(self._stream.__next__)
            self._batches_given += 1
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
            self._generator.warn_unfitted()
            if self._replay is not None:
                return self._request(0, self._replay.batch(idx))
            if self._current_pass is None:
                self._current_pass = self._begin_pass()
            order = self._order(self._current_pass).numpy()
            samples = order[idx * self._batch_size :][: self._batch_size]
            self._batches_given += 1
            # An epoch that no pass has, so that each call draws other parameters.
            epoch = 2**31 + self._batches_given
            return self._request(epoch, Pass(samples, _NO_PARAMETERS, samples))

    # The interface for `asl_fast.fit`.

    @property
    def tensors(self) -> Any:
        """The tensors that batches are gathered from, or None if images are read from files."""
        return None

    @property
    def augments(self) -> bool:
        """Whether images are changed at random."""
        return not self._augment_options.idle

    @property
    def mergeable(self) -> bool:
        """Whether `numbered` can yield several batches as one element."""
        return self._replay is None

    def stored(self, *, shuffle: bool = True) -> tf.data.Dataset:
        """Yields batches as they are stored, endlessly; `finish` completes them.

        Args:
            shuffle: Bool. With `rng="keras"`, whether the batches of a pass come in the order in
                which `keras.Model.fit(shuffle=True)` takes them; otherwise without effect.

        Returns:
            A dataset of `Batch`; its `data` are (images, (other inputs, labels, weights)).
        """
        stored = self._loaded(self._endless(shuffle, 1))
        return without_autotuning(stored.prefetch(tf.data.AUTOTUNE))

    def numbered(self, *, shuffle: bool = True, batches: int = 1) -> tf.data.Dataset:
        """Yields what `stored` does without data, which the caller gathers from `tensors`.

        Args:
            shuffle: As for `stored`.
            batches: Int, batches per element; 1 unless `mergeable`.
        """
        numbered = self._endless(shuffle, batches).flat_map(chunks)
        return without_autotuning(numbered.prefetch(tf.data.AUTOTUNE))

    def skip_passes(self, passes: int, *, shuffle: bool = True) -> None:
        """Leaves out the passes of a training that is resumed, unless they were drawn here.

        Args:
            passes: Int, passes since the training began.
            shuffle: As for `stored`.
        """
        if self._replay is None:
            self._next_pass.assign(tf.maximum(self._next_pass, passes))
        elif passes and not self._replay.total_batches_seen:
            self._replay.look_ahead()
            for _ in range(passes):
                self._replay.epoch_of_fit(shuffle=shuffle)
            self._resumed = True

    def finish(self, batch: Batch) -> Any:
        """Augments and standardises a batch of `stored`; returns it as the iterator would."""
        return self._element(self._transformed(batch), batch)

    # The pipeline.

    def _loaded(self, plans: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        """Turns each `Plan` into its chunks, as in `stored`."""
        raise AssertionError(f"{type(self).__name__} must say how images are read")

    def _order(self, epoch: int | tf.Tensor) -> tf.Tensor:
        positions = tf.range(self.n, dtype=tf.int64)
        return tf.cond(
            self._shuffles.read_value(),
            lambda: shuffled(positions, self.n, self._key, epoch),
            lambda: positions,
        )

    def _ends(self, rows: int) -> tf.Tensor:
        return tf.minimum(tf.range(0, self.n, rows, tf.int64) + rows, self.n)

    def _drawn_pass(self, chunk_rows: int) -> tf.data.Dataset:
        """Yields the plan of one pass, which takes its number when it starts."""

        def begin(_: tf.Tensor) -> Plan:
            epoch = self._next_pass.assign_add(1) - 1
            return Plan(self._order(epoch), epoch, None, self._ends(chunk_rows))

        return tf.data.Dataset.from_tensors(0).map(begin)

    def _replayed_pass(self, draw: Callable[[Any], Pass]) -> tf.data.Dataset:
        """Yields the plan of one pass, drawn as Keras would when it starts."""
        rows = tf.TensorSpec([None], tf.int64)
        signature = (rows, tf.TensorSpec([None, len(PARAMETERS)], tf.float32), rows)
        drawn = tf.data.Dataset.from_generator(
            lambda: iter([tuple(draw(self._replay))]), output_signature=signature
        )
        return drawn.map(
            lambda order, parameters, ends: Plan(order, tf.int64.min, parameters, ends)
        )

    def _endless(self, shuffle: bool, batches_per_chunk: int) -> tf.data.Dataset:
        """Yields plans of passes in chunks of whole batches, endlessly."""
        self._generator.warn_unfitted()
        if self._replay is None:
            return self._drawn_pass(self._batch_size * batches_per_chunk).repeat()
        if not self._resumed:
            self._replay.look_ahead()
        self._resumed = False
        return self._replayed_pass(lambda replay: replay.epoch_of_fit(shuffle=shuffle)).repeat()

    def _in_batches(self) -> tf.data.Dataset:
        """Yields the finished batches of one pass."""
        if self._replay is None:
            plans = self._drawn_pass(self._rows_per_call)
        else:
            plans = self._replayed_pass(lambda replay: replay.next_pass()).map(
                lambda plan: plan._replace(ends=self._ends(self._rows_per_call))
            )

        def finish(batch: Batch) -> Any:
            rows = tf.shape(batch.samples)[0]
            missing = self._rows_per_call - rows

            def padded(values: tf.Tensor) -> tf.Tensor:
                full = tf.cond(
                    missing > 0,
                    lambda: tf.concat([values, tf.repeat(values[:1], missing, 0)], 0),
                    lambda: values,
                )
                return tf.ensure_shape(full, [self._rows_per_call, *values.shape[1:]])

            # The last rows of a pass are padded to one size, so that XLA compiles one program.
            images, samples, parameters = each(
                padded, (batch.data[0], batch.samples, batch.parameters)
            )
            full = self._transformed(Batch((images,), samples, batch.epoch, parameters))
            return self._element(full[:rows], batch)

        return (
            self._loaded(plans)
            .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
            .rebatch(self._batch_size)
            .apply(tf.data.experimental.assert_cardinality(len(self)))
            .prefetch(_PREFETCHED_BATCHES)
        )

    def _requests(self) -> tf.data.Dataset:
        """Yields the plan of the batch that `_request` asks for, endlessly."""

        def read(_: tf.Tensor) -> Plan:
            samples, epoch, parameters = each(lambda v: v.read_value(), self._requested)
            return Plan(samples, epoch, parameters, tf.shape(samples, tf.int64))

        return tf.data.Dataset.from_tensors(0).repeat().map(read)

    def _request(self, epoch: int, batch: Pass) -> Any:
        values = (batch.order, epoch, batch.parameters)
        for variable, value in zip(self._requested, values, strict=True):
            if variable is not None:
                variable.assign(value)
        return self._as_numpy(self._requests_done.__next__)

    def _transformed(self, batch: Batch) -> tf.Tensor:
        images = batch.data[0]
        if self._augment_options.idle:
            pixels = tf.cast(images, tf.float32)
        elif batch.parameters is None:
            pixels = self._augment(images, samples=batch.samples, epoch=batch.epoch, training=True)
        else:
            parameters = augmentation.from_table(batch.parameters, self._augment_options)
            pixels = self._augment.apply(images, parameters)
        return tf.cast(self._generator.standardized(pixels), self.dtype)

    def _element(self, x: tf.Tensor, batch: Batch) -> Any:
        misc, y, weights = batch.data[1]
        if self.save_to_dir:
            # On the host, because any format that Pillow can write may be asked for.
            x = tf.ensure_shape(tf.numpy_function(self._save, [x, batch.samples], x.dtype), x.shape)
        inputs = (x, *misc) if misc else x
        if not self._labelled:
            return inputs
        y = x if self._labels_are_images else y
        return (inputs, y) if weights is None else (inputs, y, weights)

    def _save(self, images: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Writes images as Keras's iterators do, stretched to 0 to 255; returns them."""
        folder = Path(self.save_to_dir)
        numbers = np.random.default_rng().integers(10**7, size=len(samples))
        for image, sample, number in zip(images, samples, numbers, strict=True):
            path = folder / f"{self.save_prefix}_{sample}_{number}.{self.save_format}"
            keras.utils.array_to_img(image, self.data_format, scale=True).save(path)
        return images

    def _begin_pass(self) -> int:
        self._own_passes += 1
        return int(self._next_pass.assign_add(1)) - 1

    def _as_numpy(self, pull: Callable[[], Any]) -> Any:
        """Returns the batch that `pull` returns with the types of Keras's iterators."""
        with plain_errors():
            batch = tf.nest.map_structure(lambda values: values.numpy(), pull())
        if not self._labelled:
            return list(batch) if isinstance(batch, tuple) else batch
        return tuple(list(item) if isinstance(item, tuple) else item for item in batch)


def _on_demand() -> tf.data.Options:
    """Returns options for a dataset that computes an element only when asked for it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.inject_prefetch = False
    return options


class _EndlessIterator(private_api.OwnedIterator):
    """Iterates over one pass in a graph, and endlessly in Python, as NumPy arrays.

    `keras.Model.fit` asks for batches within its compiled step, and for a new iterator at each
    epoch; a `for` loop over one of Keras's iterators goes on until it is left.
    """

    def __init__(self, dataset: Iterator) -> None:
        super().__init__(dataset)
        self._iterated = dataset
        self._pull: Callable[[], Any] = super().__next__

    def __next__(self) -> Any:
        if not tf.executing_eagerly():
            return super().__next__()
        try:
            return self._iterated._as_numpy(self._pull)
        except StopIteration:
            self._pull = tf.data.Dataset.__iter__(self._iterated).__next__
            return self._iterated._as_numpy(self._pull)


class _ShuffleFlag(int):
    """The `shuffle` of an iterator: to Keras a bool, to a dataset a method."""

    method: Any

    def __call__(self, *arguments: Any, **keywords: Any) -> tf.data.Dataset:
        return self.method(*arguments, **keywords)

    def __repr__(self) -> str:
        return repr(bool(self))


@contextlib.contextmanager
def plain_errors() -> IteratorOf[None]:
    """Raises the pipeline's errors about the user's files as one line, without TensorFlow's."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        _, prefix, text = error.message.partition(ERROR_PREFIX)
        if not prefix:
            raise
        line = text.splitlines()[0].rstrip().removesuffix("]")
        raise InputError(re.sub(r"\\(.)", r"\1", line)) from None  # TensorFlow escapes quotes


class NumpyArrayIterator(Iterator):
    """Batches of images from an array; see `Iterator`.

    Args:
        x: Images, (n, height, width, channels), or channels first, of any number type; or a pair
            `[images, more]`, where `more` is an array of n rows or a list of them.
        y: Labels, n rows, or None.
        image_data_generator: `ImageDataGenerator`.
        batch_size: Int, at least 1.
        shuffle: Bool.
        sample_weight: Array of n rows, or None.
        seed: Int in [0, 2**32), or None to draw one from NumPy's global generator.
        data_format: "channels_last", "channels_first" or None for the generator's.
        save_to_dir: Folder to write every augmented image to, or None.
        save_prefix: Str, the beginning of their names.
        save_format: Str, the ending of their names.
        subset: "training", "validation" or None.
        ignore_class_split: Bool. False rejects subsets that don't hold the same classes.
        dtype: Floating dtype of the batches' images; None for Keras's own setting.

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
        self.image_data_generator = image_data_generator
        self.dtype = dtype or keras.config.floatx()
        self.data_format = data_format or image_data_generator.data_format
        self.save_to_dir = save_to_dir
        self.save_prefix = save_prefix
        self.save_format = save_format
        arrays = _as_arrays(x, y, sample_weight)
        if subset is not None:
            split = image_data_generator._validation_split
            rows = subset_rows(len(arrays["x"]), arrays["y"], split, subset, ignore_class_split)
            arrays = {name: None if a is None else a[rows] for name, a in arrays.items()}
        x, self.y, self.sample_weight, *self.x_misc = arrays.values()
        if x.ndim != 4:
            raise ValueError(
                "Input data in `NumpyArrayIterator` should have rank 4. You passed an array with "
                f"shape {x.shape}"
            )
        if not len(x):
            raise ValueError(f"`x` holds no images. Received: an array of shape {x.shape}")
        warn_of_channels(x, self.data_format, stacklevel=4)
        # uint8 stays as it is: a quarter of the memory, and the same pixels.
        self._pixels, pixels = shared(x, None if x.dtype == np.uint8 else self.dtype)
        _check_finite(self._pixels)
        self._labelled = self.y is not None
        with tf.device("CPU"):
            others = each(tf.convert_to_tensor, (tuple(self.x_misc), self.y, self.sample_weight))
        self._stored = (pixels, others)
        super().__init__(x.shape[1:], len(x), batch_size, shuffle, seed)

    @property
    def x(self) -> np.ndarray:
        """The images in `dtype`."""
        return np.asarray(self._pixels, self.dtype)

    @property
    def tensors(self) -> Any:
        """The images, and a triple of other inputs, labels and weights."""
        return self._stored

    def _loaded(self, plans: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        calls = tf.data.AUTOTUNE if parallel else None
        return plans.flat_map(chunks).map(
            lambda batch: gathered(self._stored, batch), num_parallel_calls=calls
        )


def _as_arrays(x: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
    """Returns images, labels, weights and other inputs by name, checked for the same length."""
    more: Any = []
    if isinstance(x, tuple | list):
        if len(x) != 2:
            raise ValueError(
                f"`x` must be an array or a pair `[images, more]`. Received: {len(x)} items"
            )
        x, more = x
    more = more if isinstance(more, list) else [more]
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    given |= {f"x[1][{place}]": rows for place, rows in enumerate(more)}
    arrays = {name: None if rows is None else np.asarray(rows) for name, rows in given.items()}
    shape = np.asarray(x).shape
    for name, rows in arrays.items():
        if rows is not None and name != "x" and rows.shape[:1] != shape[:1]:
            raise ValueError(
                f"`x` and `{name}` should have the same length. Found: x.shape = {shape}, "
                f"{name}.shape = {rows.shape}"
            )
    return arrays


def warn_of_channels(x: np.ndarray, data_format: str, stacklevel: int) -> None:
    """Warns of images whose number of channels suggests another data format."""
    axis = 3 if data_format == "channels_last" else 1
    if x.shape[axis] not in (1, 3, 4):
        warnings.warn(
            f"`x` should have 1, 3 or 4 channels on axis {axis}, for "
            f'data_format="{data_format}". Received: an array of shape {x.shape}',
            stacklevel=stacklevel,
        )


def _check_finite(pixels: np.ndarray) -> None:
    if pixels.dtype.kind != "f":
        return
    flat = pixels.reshape(len(pixels), -1)
    broken = ~(np.isfinite(flat.max(axis=1)) & np.isfinite(flat.min(axis=1)))
    if broken.any():
        raise ValueError(
            f"Image {int(broken.argmax())} of `x` holds pixels that are not finite, as do "
            f"{int(broken.sum())} of {len(pixels)}: correct or remove them"
        )

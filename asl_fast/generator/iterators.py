"""Batches from arrays, and what all iterators of `ImageDataGenerator.flow…` share.

Each iterator is Keras's, and a `tf.data.Dataset` of one pass over its images, reshuffled for each
pass.
"""

import concurrent.futures
import contextlib
import functools
import operator
import os
import re
import time
import types
import warnings
from collections.abc import Callable
from collections.abc import Iterator as IteratorOf
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from asl_fast.data.pipeline import Batch
from asl_fast.generator import by_image, replay
from asl_fast.generator.numbered import Numbered
from asl_fast.generator.pipeline import Pipeline
from asl_fast.generator.replay import Replay
from asl_fast.generator.rows import ERROR_PREFIX, ArrayRows, Rows
from asl_fast.system import private_api
from asl_fast.system.errors import InputError, input_error
from asl_fast.transforms.augment_options import PARAMETERS, AugmentOptions

__all__ = [
    "MEMBERS",
    "Iterator",
    "NumpyArrayIterator",
    "is_users",
    "plain_errors",
    "remembered",
    "whole",
]

# Seconds of augmenting image by image after which a compiled program is worth its making.
_PATIENCE = 0.3
# Values of an image from which on images are augmented by several threads.
_LARGE_IMAGE = 64 * 64
# Values of an array up to which it is searched for NaN at once, else where they are read.
_SEARCHED_AT_ONCE = 2**22

# What the pipeline is made of; where one is assigned, it is made anew.
_DATA = {
    *("x", "y", "x_misc", "sample_weight", "_sample_weight", "classes", "class_indices"),
    *("class_mode", "_targets", "filenames", "_filepaths", "target_size", "image_shape"),
    *("color_mode", "interpolation", "keep_aspect_ratio", "dtype", "data_format", "save_to_dir"),
    *("image_data_generator", "n", "batch_size"),
}
# What subclasses override to change which samples a batch holds, or how it is made.
MEMBERS = {
    "_get_batches_of_transformed_samples",
    "_set_index_array",
    "_flow_index",
    "__getitem__",
    "__next__",
    "__len__",
    "on_epoch_end",
}


class _Kept:
    """An attribute of Keras's iterators that the books keep."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, iterator: Any, owner: type | None = None) -> Any:
        return self if iterator is None else getattr(iterator._books, self._name)

    def __set__(self, iterator: Any, value: Any) -> None:
        setattr(iterator._books, self._name, value)
        if self._name == "index_array" and iterator._pipeline is not None:
            iterator._pipeline.forget_stream()


class Iterator(tf.data.Dataset, private_api.KerasIterator):
    """The base of all iterators: Keras's, whose batches TensorFlow makes where that pays.

    As a dataset, in `keras.Model.fit`, `evaluate` and `predict`, in `map`, `take` and so on, it is
    one pass over the images, `len(self)` batches, augmented again each time. In Python it is what
    Keras's is: `next(self)` and a `for` loop go on for ever, `self[i]` is a batch of the current
    pass, augmented again at each call. They return NumPy arrays.

    The first images are augmented one by one, as by Keras; a program for whole batches is compiled
    meanwhile once they are many. Both give the same. Where a method of Keras's that makes batches
    is overridden, here or in the generator, batches are made by Keras's own code.

    Attributes:
        n: Int, number of images.
        batch_size: Int.
        seed: Int or None.
        batch_index: Int, batches of the current pass that `next` has returned.
        total_batches_seen: Int, batches drawn. A pass of a dataset counts as a whole.
        index_array: int64, (n,), row numbers in the order of the current pass; None before it.
    """

    n, batch_size, seed = _Kept(), _Kept(), _Kept()
    batch_index, total_batches_seen, index_array = _Kept(), _Kept(), _Kept()

    image_data_generator: Any
    data_format: str
    dtype: Any
    save_to_dir: Any
    save_prefix: str
    save_format: str
    image_shape: tuple[int, ...]
    sample_weight: Any
    _books: Any
    augment_options: AugmentOptions | None = None

    labels_are_images = False
    # For the name of each saved image Keras draws a number below this.
    _file_number_limit = 10**4
    _pipeline: Pipeline | None = None
    _keras_pass: tf.data.Dataset | None = None

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        """Makes an iterator whose books are empty."""
        self = super().__new__(cls)
        self.__dict__["_books"] = types.SimpleNamespace()
        return self

    @classmethod
    def from_keras(cls, iterator: Any, generator: Any) -> Any:
        """Returns an iterator over the images of one of Keras's own.

        Args:
            iterator: Keras's.
            generator: `ImageDataGenerator` of this package, or None.
        """
        own = cls.__new__(cls)
        for name, value in vars(iterator).items():
            if name != "index_generator":
                setattr(own, name, value)
        own.image_data_generator = generator
        own.index_generator = own._flow_index()
        own._set_up()
        return own

    def _set_up(self) -> None:
        """Checks what Keras's constructor leaves unchecked, and opens the books."""
        batch_size = whole("batch_size", self.batch_size)
        if batch_size < 1:
            kind = ValueError if batch_size else ZeroDivisionError
            raise input_error(kind)(f"`batch_size` must be at least 1. Received: {batch_size!r}")
        seed = None if self.seed is None else whole("seed", self.seed)
        if seed is not None and not 0 <= seed < 2**32:
            raise InputError(
                "`seed` must be None or an int: Seed must be between 0 and 2**32 - 1. "
                f"Received: {seed!r}"
            )
        _check_saving(self.save_to_dir, self.save_format)
        n, shuffle = self.n, bool(self.shuffle)
        self._spent = 0.0
        self._compiling: dict[bool, Any] = {}
        self._settings: Any = None
        self._by_keras()
        if getattr(self.image_data_generator, "rng", None) == "keras" and self.augment_options:
            first = self.data_format == "channels_first"
            size: Any = self.image_shape[1:] if first else self.image_shape[:2]
            saving = self._file_number_limit if self.save_to_dir else None
            self._books = Replay(self.augment_options, n, size, batch_size, shuffle, seed, saving)
            return
        key = int(np.random.randint(2**32, dtype=np.uint32)) if seed is None else seed
        self._books = Numbered(n, batch_size, shuffle, key)
        self._books.seed = seed

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _DATA:
            self._forget()

    def _forget(self) -> None:
        """Drops what was compiled or made of earlier values."""
        if self._pipeline is None and self._keras_pass is None:
            return
        self._pipeline, self._keras_pass, self._compiling = None, None, {}
        for name in [name for name in vars(self) if name.endswith("_attr")]:
            del self.__dict__[name]

    # Where Keras's own code makes the batches.

    @property
    def by_keras(self) -> bool:
        """Whether batches are made by Keras's code, image by image, as something is overridden."""
        return self._by_keras()

    def _by_keras(self) -> bool:
        generator = self.image_data_generator
        settings = (generator, getattr(generator, "settings", None), self.dtype)
        if settings != self._settings:
            if self._settings is not None:
                self._forget()
            self._settings = settings
            self.augment_options, self._reason = _fast_options(
                generator, self.data_format, self.dtype
            )
        reason = self._reason or self._overridden() or _overridden_generator(generator)
        if reason:
            _say_once(reason)
        return reason is not None

    def _overridden(self) -> str | None:
        kind: Any = type(self)
        own = _own_class(kind)
        if kind is own and not MEMBERS & vars(self).keys():
            return None
        for name in sorted(MEMBERS):
            if name in vars(self) or getattr(kind, name) is not getattr(own, name):
                return f"`{type(self).__name__}.{name}` is overridden"
        return None

    def sequence(self) -> keras.utils.PyDataset:
        """Returns the iterator as Keras's `fit` takes one of its own."""
        return _Sequence(self)

    # The interface of a dataset, made at its first use.

    def __getattr__(self, name: str) -> Any:
        if not name.endswith("_attr") or name in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        tf.data.Dataset.__init__(self, tf.data.experimental.to_variant(self._dataset))
        return self.__dict__[name]

    @property
    def _dataset(self) -> tf.data.Dataset:
        if not self._by_keras():
            return self.pipeline.one_pass()
        if self._keras_pass is None:
            self._keras_pass = self._one_pass_by_keras()
        return self._keras_pass

    def _one_pass_by_keras(self) -> tf.data.Dataset:
        spec = tf.nest.map_structure(
            lambda values: tf.TensorSpec([None, *values.shape[1:]], values.dtype), _tuples(self[0])
        )
        batches = tf.data.Dataset.from_generator(
            lambda: (_tuples(self[index]) for index in range(len(self))), output_signature=spec
        )
        return batches.apply(tf.data.experimental.assert_cardinality(len(self)))

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]

    @property
    def element_spec(self) -> Any:
        """The structure of a batch, as `tf.data.Dataset` describes it."""
        return self._dataset.element_spec

    def __iter__(self) -> Any:
        return _EndlessIterator(self, private_api.called_by_keras())

    def __len__(self) -> int:
        return private_api.KerasIterator.__len__(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.n} images, {len(self)} batches>"

    # The rest of the interface of Keras's iterators.

    @property
    def shuffle(self) -> Any:
        """Whether passes are shuffled; may be set. Called, it is `tf.data.Dataset.shuffle`."""
        flag = _ShuffleFlag(bool(self._books.shuffle))
        flag.method = super().shuffle
        return flag

    @shuffle.setter
    def shuffle(self, value: bool) -> None:
        self._books.shuffle = value

    def _set_index_array(self) -> None:
        if self._by_keras():
            private_api.KerasIterator._set_index_array(self)
        else:
            self._books.end_pass()

    def _flow_index(self) -> IteratorOf[np.ndarray]:
        by_keras = private_api.KerasIterator._flow_index(self)
        while True:
            if self._by_keras():
                yield next(by_keras)
            else:
                self._seed_numpy()
                yield self._books.next_batch()[0]

    def next(self) -> Any:
        """Returns `next(self)`."""
        return self.__next__()

    def __next__(self) -> Any:
        if self._by_keras():
            return private_api.KerasIterator.__next__(self)
        with self.lock:
            self._seed_numpy()
            begin = self.batch_index * self.batch_size
            if isinstance(self._books, Replay):
                batch = self._books.next_batch()
                return self._batch(batch.order, 0, batch.parameters)
            rows, epoch = self._books.next_batch()
            return self._batch(rows, epoch, None, begin)

    def __getitem__(self, idx: int) -> Any:
        if idx < 0 or idx >= len(self):
            raise ValueError(
                f"Asked to retrieve element {idx}, but the Sequence has length {len(self)}"
            )
        if self._by_keras():
            return private_api.KerasIterator.__getitem__(self, idx)
        with self.lock:
            self._seed_numpy()
            if isinstance(self._books, Replay):
                batch = self._books.batch(idx)
                return self._batch(batch.order, 0, batch.parameters)
            return self._batch(*self._books.batch(idx))

    def _get_batches_of_transformed_samples(self, index_array: Any) -> Any:
        """Returns the batch of these rows, augmented again at each call."""
        if self._by_keras():
            return super()._get_batches_of_transformed_samples(index_array)
        rows = np.asarray(index_array)
        with self.lock:
            if isinstance(self._books, Numbered):
                return self._batch(rows, self._books.draw_anew())
            assert self.augment_options is not None
            size = self._books.image_size
            return self._batch(
                rows, 0, replay.table(self.augment_options, np.random, len(rows), *size)
            )

    def _seed_numpy(self) -> None:
        """Seeds NumPy's global generator as Keras does, for the user's functions."""
        if self.seed is not None and isinstance(self._books, Numbered):
            np.random.seed((self.seed + self.total_batches_seen) % 2**32)

    # The interface for `asl_fast.fit`.

    @property
    def pipeline(self) -> Pipeline:
        """The batches as `tf.data` pipelines, of the current attributes."""
        if self._pipeline is None:
            self._by_keras()
            self._pipeline = Pipeline(self, self._books)
        return self._pipeline

    @property
    def tensors(self) -> Any:
        """The tensors that batches are gathered from, or None if images are read from files."""
        return self.pipeline.rows.tensors

    @property
    def augments(self) -> bool:
        """Whether images are changed at random."""
        return self.augment_options is None or not self.augment_options.idle

    @property
    def mergeable(self) -> bool:
        """Whether `numbered` can yield several batches as one element."""
        return isinstance(self._books, Numbered)

    def stored(self, *, shuffle: bool = True) -> tf.data.Dataset:
        """Yields batches as they are stored, endlessly; `finish` completes them.

        Args:
            shuffle: Bool. With `rng="keras"`, whether the batches of a pass come in the order in
                which `keras.Model.fit(shuffle=True)` takes them; otherwise without effect.

        Returns:
            A dataset of `Batch`; its `data` are (images, (other inputs, labels, weights)).
        """
        return self.pipeline.stored(shuffle=shuffle)

    def numbered(self, *, shuffle: bool = True, batches: int = 1) -> tf.data.Dataset:
        """Yields what `stored` does without data, which the caller gathers from `tensors`.

        Args:
            shuffle: As for `stored`.
            batches: Int, batches per element; 1 unless `mergeable`.
        """
        return self.pipeline.numbered(shuffle=shuffle, batches=batches)

    def skip_passes(self, passes: int, *, shuffle: bool = True) -> None:
        """Leaves out the passes of a training that is resumed, unless they were drawn here.

        Args:
            passes: Int, passes since the training began.
            shuffle: As for `stored`.
        """
        self.pipeline.skip_passes(passes, shuffle=shuffle)

    def finish(self, batch: Batch) -> Any:
        """Augments and standardises a batch of `stored`; returns it as the iterator would."""
        return self.pipeline.finish(batch)

    # Batches in Python.

    @property
    def labelled(self) -> bool:
        """Whether batches hold more than images."""
        raise AssertionError(f"{type(self).__name__} must say whether it has labels")

    @property
    def user_code(self) -> bool:
        """Whether batches call a user's function or write files, which may not happen too early."""
        function = getattr(self.image_data_generator, "preprocessing_function", None)
        return bool(self.save_to_dir) or is_users(function)

    def _rows(self) -> Rows:
        raise AssertionError(f"{type(self).__name__} must say how TensorFlow loads its images")

    def _image(self, row: int) -> np.ndarray:
        raise AssertionError(f"{type(self).__name__} must say how NumPy loads an image")

    def _completed(self, x: np.ndarray, rows: np.ndarray) -> Any:
        raise AssertionError(f"{type(self).__name__} must say what goes with its images")

    def _batch(
        self,
        rows: np.ndarray,
        epoch: int,
        parameters: np.ndarray | None = None,
        begin: int | None = None,
    ) -> Any:
        """Returns a batch as Keras's iterators do.

        Args:
            rows: Of the images.
            epoch: Int, what to draw with.
            parameters: As `replay.table` returns them, or None to draw them.
            begin: Int, the place of the first row in the current pass, where passes are read to
                their ends; or None.
        """
        x: Any
        pipeline = self._compiled(begin is not None)
        whole = begin is not None or len(rows) == self.batch_size
        if pipeline is None or not whole:
            clock = time.perf_counter()
            x = self._augmented_by_image(rows, epoch, parameters)
            self._spent += time.perf_counter() - clock
            standardized = False
        else:
            self._warn_unfitted()
            standardized = not self.user_code
            with plain_errors():
                if begin is None:
                    x = pipeline.images(rows, epoch, parameters)
                else:
                    x = pipeline.next_images(self.index_array, begin, begin + len(rows), epoch)
        batch = np.zeros((len(rows), *self.image_shape), self.dtype) if not standardized else x
        if not standardized:
            generator = self.image_data_generator
            for place, image in enumerate(x):
                image = np.array(image, self.dtype)
                batch[place] = image if generator is None else generator.standardize(image)
        if self.save_to_dir:
            self._save(batch, rows)
        return self._completed(batch, rows)

    def _augmented_by_image(
        self, rows: np.ndarray, epoch: int, parameters: np.ndarray | None
    ) -> list[np.ndarray]:
        assert self.augment_options is not None
        first = self.data_format == "channels_first"
        height, width = self.image_shape[1:] if first else self.image_shape[:2]
        drawn: dict[str, np.ndarray] = {}
        if parameters is not None:
            columns = dict(zip(PARAMETERS, parameters.T, strict=True))
            active = (t for t in self.augment_options.transforms if t.active)
            drawn = {name: columns[name] for t in active for name in t.parameters}
        elif not self.augment_options.idle:
            key = (self._books.key, epoch)
            drawn = by_image.draw(self.augment_options, key, rows, height, width)
        large = len(rows) > 1 and np.prod(self.image_shape) >= _LARGE_IMAGE
        return by_image.augmented(
            self.augment_options,
            [functools.partial(self._image, row) for row in rows],
            drawn,
            self._change_pixels,
            _threads().map if large else map,
        )

    def _change_pixels(self, image: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
        """Applies channel shift and brightness by Keras's code, which needs channels last."""
        first = self.data_format == "channels_first"
        image = image.transpose(1, 2, 0) if first else image
        image = self.image_data_generator.apply_transform(image, parameters)
        return image.transpose(2, 0, 1) if first else image

    def _compiled(self, sequential: bool) -> Pipeline | None:
        """Returns the pipeline once its program is compiled, which happens in the background."""
        if self._spent < _PATIENCE:
            return None
        pipeline = self.pipeline
        making = self._compiling.get(sequential)
        if making is None:
            count = min(self.batch_size, self.n)
            rows = np.arange(count)
            if sequential:
                work = functools.partial(pipeline.next_images, rows, 0, count, 0)
            else:
                table = None
                if isinstance(self._books, Replay):
                    table = np.tile(np.array([*PARAMETERS.values()], np.float32), (count, 1))
                work = functools.partial(pipeline.images, rows, 0, table)
            making = self._compiling[sequential] = _compiler().submit(work)
        if not making.done():
            return None
        with plain_errors():
            making.result()
        return pipeline

    def _save(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Writes images as Keras's iterators do, stretched to 0 to 255; returns them."""
        for image, row in zip(images, rows, strict=True):
            picture = keras.utils.array_to_img(image, self.data_format, scale=True)
            number = np.random.randint(self._file_number_limit)
            name = f"{self.save_prefix}_{row}_{number}.{self.save_format}"
            picture.save(os.path.join(self.save_to_dir, name))
        return images

    def _warn_unfitted(self) -> None:
        if self.image_data_generator is not None:
            self.image_data_generator.warn_unfitted()


class _Sequence(keras.utils.PyDataset):
    """An iterator without its other nature, that of a dataset."""

    def __init__(self, iterator: Iterator) -> None:
        super().__init__(iterator.workers, iterator.use_multiprocessing, iterator.max_queue_size)
        self._iterator = iterator

    def __len__(self) -> int:
        return len(self._iterator)

    def __getitem__(self, index: int) -> Any:
        return self._iterator[index]

    def on_epoch_end(self) -> None:
        self._iterator.on_epoch_end()


class _EndlessIterator(private_api.OwnedIterator):
    """Iterates over one pass in a graph, and endlessly in Python, as NumPy arrays.

    `keras.Model.fit` asks for batches within its compiled step, and for a new iterator at each
    epoch; a `for` loop over one of Keras's iterators goes on until it is left, and the next begins
    there. What a graph needs is made when it asks for it.

    Args:
        iterated: `Iterator`.
        own_pass: Bool. Whether batches in Python come from a pass of its own too.
    """

    def __init__(self, iterated: Iterator, own_pass: bool) -> None:
        self._iterated, self._own_pass, self._made = iterated, own_pass, False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self._made:
            raise AttributeError(name)
        self._made = True
        self._iterated._warn_unfitted()
        super().__init__(self._iterated)
        return getattr(self, name)

    def __next__(self) -> Any:
        if tf.executing_eagerly() and not self._own_pass:
            return self._iterated.__next__()
        with plain_errors():
            return super().__next__()


class _ShuffleFlag(int):
    """The `shuffle` of an iterator: to Keras a bool, to a dataset a method."""

    method: Any

    def __call__(self, *arguments: Any, **keywords: Any) -> tf.data.Dataset:
        return self.method(*arguments, **keywords)

    def __repr__(self) -> str:
        return repr(bool(self))


@functools.cache
def _own_class(kind: Any) -> type:
    return next(c for c in kind.__mro__ if c.__module__.startswith("asl_fast.generator"))


def is_users(function: Any) -> bool:
    """Returns whether a preprocessing function is none of `keras.applications`."""
    module = getattr(function, "__module__", None) or ""
    return function is not None and not module.startswith(private_api.KERAS_APPLICATIONS)


def _fast_options(
    generator: Any, data_format: str, dtype: Any
) -> tuple[AugmentOptions | None, str | None]:
    """Returns the options to augment by, or why Keras's own code must."""
    if np.dtype(dtype) not in (np.float16, np.float32, np.float64):
        return None, f"`dtype` is {dtype!r}, neither float16, float32 nor float64"
    if generator is None:
        return AugmentOptions(data_format=data_format, quirks=True), None
    if not hasattr(generator, "augment_options"):
        return None, f"the generator is a {type(generator).__name__}"
    if generator.rng == "keras" and is_users(generator.preprocessing_function):
        return None, "with `rng='keras'`, `preprocessing_function` may draw from NumPy's generator"
    try:
        generator.standards()
        return generator.augment_options(), None
    except ValueError as error:
        return None, str(error)


def _overridden_generator(generator: Any) -> str | None:
    return generator.overridden() if hasattr(generator, "overridden") else None


@functools.cache
def _say_once(reason: str) -> None:
    warnings.warn(
        f"Batches are made image by image, as by Keras: {reason}. What is not overridden and has "
        "values as documented stays fast",
        stacklevel=6,
    )


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count())


@functools.cache
def _compiler() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(1)


def _tuples(batch: Any) -> Any:
    """Returns a batch with tuples for lists, which would be taken for tensors."""
    if isinstance(batch, list | tuple):
        return tuple(map(_tuples, batch))
    return np.asarray(batch)


def whole(name: str, value: Any) -> int:
    """Returns an argument as an int; refuses floats, strings and the like."""
    try:
        return operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise input_error(TypeError)(
            f"`{name}` must be of ints: {kind!r} object cannot be interpreted as an integer. "
            f"Received: {value!r}"
        ) from None


def _check_saving(folder: Any, ending: str) -> None:
    if not folder:
        return
    if not Path(folder).is_dir():
        raise input_error(FileNotFoundError)(
            f"`save_to_dir` must be an existing folder. Received: {folder!r}"
        )
    if f".{ending}".lower() not in Image.registered_extensions():
        raise InputError(f"`save_format`: unknown file extension: .{ending}")


@contextlib.contextmanager
def plain_errors() -> IteratorOf[None]:
    """Raises the pipeline's errors about the user's files as one line, and the user's own."""
    _users_errors.clear()
    try:
        yield
    except tf.errors.OpError as error:
        if _users_errors:
            raise _users_errors.pop() from None
        _, prefix, text = error.message.partition(ERROR_PREFIX)
        if not prefix:
            raise
        line = text.splitlines()[0].rstrip().removesuffix("]")
        raise input_error(FileNotFoundError)(
            re.sub(r"\\(.)", r"\1", line)
        ) from None  # TensorFlow escapes quotes


# What users' functions raised within a graph, which would arrive as TensorFlow's error.
_users_errors: list[BaseException] = []


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function for a graph whose exceptions `plain_errors` raises again."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            _users_errors.append(error)
            raise

    return call


class NumpyArrayIterator(Iterator, private_api.KerasNumpyArrayIterator):
    """Batches of images from an array; see `Iterator`.

    Args:
        x: Images, (n, height, width, channels), or channels first, of any number type; or a pair
            `[images, more]`, where `more` is an array of n rows or a list of them.
        y: Labels, n rows of any kind that NumPy holds, or None.
        image_data_generator: `ImageDataGenerator`.
        batch_size: Int, at least 1.
        shuffle: Bool.
        sample_weight: Array of n rows, or None.
        seed: Int in [0, 2**32), or None to draw one from NumPy's global generator.
        data_format: "channels_last", "channels_first" or None for Keras's own setting.
        save_to_dir: Folder to write every augmented image to, or None.
        save_prefix: Str, the beginning of their names.
        save_format: Str, the ending of their names.
        subset: "training", "validation" or None.
        ignore_class_split: Bool. False rejects subsets that don't hold the same classes.
        dtype: Dtype of the batches' images; None for Keras's own setting.

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
        images = x[0] if isinstance(x, list | tuple) and x else x
        if isinstance(x, list | tuple) and len(x) != 2:
            raise InputError(
                f"`x` must be an array or a pair `[images, more]`. Received: {len(x)} items"
            )
        private_api.KerasNumpyArrayIterator.__init__(
            self,
            x,
            y,
            image_data_generator,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            seed=seed,
            data_format=data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            ignore_class_split=ignore_class_split,
            # uint8 stays as it is: a quarter of the memory, and the same pixels.
            dtype="uint8" if getattr(images, "dtype", None) == np.uint8 else dtype,
        )
        self.dtype = dtype or keras.config.floatx()
        if not self.n:
            raise InputError(f"`x` holds no images. Received: an array of shape {np.shape(images)}")
        if subset is not None and self.sample_weight is not None:
            # Keras leaves the weights whole, so that they go with other images.
            border = len(images) - self.n if subset == "training" else 0
            self.sample_weight = self.sample_weight[border : border + self.n]
        if self._pixels.size <= _SEARCHED_AT_ONCE:
            _check_finite(self._pixels)
        self._set_up()

    def _set_up(self) -> None:
        self.image_shape = self._pixels.shape[1:]
        super()._set_up()

    @property
    def x(self) -> np.ndarray:
        """The images in `dtype`; may be set."""
        if self._pixels.dtype != np.dtype(self.dtype):
            self.x = np.asarray(self._pixels, self.dtype)
        return self._pixels

    @x.setter
    def x(self, images: np.ndarray) -> None:
        self._pixels = np.asarray(images)

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.y is not None

    def _rows(self) -> Rows:
        images = self._pixels
        if images.dtype != np.uint8:
            _check_finite(images)
            images = images.astype(np.dtype(self.dtype), copy=False)
        return ArrayRows(images, (tuple(self.x_misc), self.y, self.sample_weight))

    def _image(self, row: int) -> np.ndarray:
        image = self._pixels[row]
        return image.astype(np.float64 if image.dtype == np.float64 else np.float32)

    def _completed(self, x: np.ndarray, rows: np.ndarray) -> Any:
        inputs = [x, *(more[rows] for more in self.x_misc)] if self.x_misc else x
        if self.y is None:
            return inputs
        y = self.y[rows]
        return (inputs, y) if self.sample_weight is None else (inputs, y, self.sample_weight[rows])


def _check_finite(pixels: np.ndarray) -> None:
    if pixels.dtype.kind != "f":
        return
    flat = pixels.reshape(len(pixels), -1)
    broken = ~(np.isfinite(flat.max(axis=1)) & np.isfinite(flat.min(axis=1)))
    if broken.any():
        raise InputError(
            f"Image {int(broken.argmax())} of `x` holds pixels that are not finite, as do "
            f"{int(broken.sum())} of {len(pixels)}: correct or remove them"
        )

"""Iterators over image files: in one folder per class, or named by a dataframe."""

import inspect
import itertools
import logging
import os
import warnings
from collections.abc import Callable, Generator, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from asl_fast.data.class_folders import check_links
from asl_fast.data.pipeline import Batch
from asl_fast.generator.iterators import ERROR_PREFIX, Plan, chunks
from asl_fast.generator.iterators import Iterator as BatchIterator
from asl_fast.images.decode import load_image, sniff
from asl_fast.images.file_types import CHANNELS, MOST_PIXELS
from asl_fast.images.resize import INTERPOLATIONS
from asl_fast.system.errors import InputError

__all__ = ["DataFrameIterator", "DirectoryIterator"]

_UNREADABLE = (
    f" can't be read: it is missing, truncated, not an image or larger than {MOST_PIXELS:,} "
    "pixels. Repair or remove it, or pass on_error='skip'."
)
_log = logging.getLogger(__name__)


class _FileIterator(BatchIterator):
    """The base of the iterators over files; see `DirectoryIterator` for the arguments."""

    allowed_class_modes: frozenset[str | None] = frozenset()

    filenames: list[str]
    class_mode: str | None
    class_indices: dict[str, int]
    directory: Any
    labels: Any
    _filepaths: list[str]
    _sample_weight: np.ndarray | None = None
    _file_number_limit = 10**7

    def set_processing_attrs(
        self,
        image_data_generator: Any,
        target_size: tuple[int, int],
        color_mode: str,
        data_format: str,
        save_to_dir: str | None,
        save_prefix: str,
        save_format: str,
        subset: str | None,
        interpolation: str,
        keep_aspect_ratio: bool,
    ) -> None:
        """Checks and sets the attributes that decide how a file becomes an image."""
        target_size = tuple(target_size)  # type: ignore[assignment]  # checked next
        if len(target_size) != 2 or not all(isinstance(s, int) and s > 0 for s in target_size):
            raise ValueError(
                f"`target_size` must be a pair (height, width) of ints. Received: {target_size!r}"
            )
        for name, value, choices in (
            ("color_mode", color_mode, tuple(CHANNELS)),
            ("data_format", data_format, ("channels_last", "channels_first")),
            ("interpolation", interpolation, tuple(INTERPOLATIONS)),
            ("subset", subset, (None, "training", "validation")),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` must be one of {choices}. Received: {value!r}")
        self.image_data_generator = image_data_generator
        self.target_size = target_size
        self.color_mode = color_mode
        self.data_format = data_format
        channels = CHANNELS[color_mode]
        first = data_format == "channels_first"
        self.image_shape = (channels, *target_size) if first else (*target_size, channels)
        self.save_to_dir = save_to_dir
        self.save_prefix = save_prefix
        self.save_format = save_format
        self.interpolation = interpolation
        self.keep_aspect_ratio = keep_aspect_ratio
        self.subset = subset
        self.split: tuple[float, float] | None = None
        if subset is not None:
            border = image_data_generator._validation_split
            self.split = (0, border) if subset == "validation" else (border, 1)

    @property
    def filepaths(self) -> list[str]:
        """The paths of all files."""
        return self._filepaths

    @property
    def sample_weight(self) -> np.ndarray | None:
        """The weights of all files, or None."""
        return self._sample_weight

    @classmethod
    def from_keras(cls, iterator: Any, generator: Any) -> Any:
        """Returns an iterator over the files of one of Keras's own iterators.

        Args:
            iterator: Keras's.
            generator: `ImageDataGenerator` of this package, or None.
        """
        own = cls.__new__(cls)
        changed = {"image_data_generator": generator, "subset": None}
        own.set_processing_attrs(**_processing_attrs(vars(iterator) | changed))
        copied = ("directory", "class_mode", "dtype", "filenames", "samples", "class_indices")
        for name in (*copied, "num_classes"):
            if hasattr(iterator, name):
                setattr(own, name, getattr(iterator, name))
        own.classes = own._targets = getattr(iterator, "labels", None)
        own._sample_weight = iterator.sample_weight
        own._filepaths = iterator.filepaths
        own._set_up(iterator.batch_size, iterator.shuffle, iterator.seed)
        return own

    def _check_class_mode(self) -> None:
        if self.class_mode not in self.allowed_class_modes:
            choices = ", ".join(sorted(map(repr, self.allowed_class_modes)))
            raise ValueError(
                f"`class_mode` must be one of {choices}. Received: {self.class_mode!r}"
            )

    def _set_files(self, names: list[str], on_error: str, *, look: bool) -> np.ndarray:
        """Sets the files to read; returns which names are used, as a mask.

        Args:
            names: Paths from `directory`.
            on_error: "raise" checks the first bytes of each file, "skip" decodes them all.
            look: Bool. False leaves "raise" to find unreadable files while training.
        """
        paths = [os.path.join(self.directory, name) for name in names]
        mask = self._readable(paths, on_error, look)
        self.filenames = list(itertools.compress(names, mask))
        self._filepaths = list(itertools.compress(paths, mask))
        self.samples = len(self.filenames)
        return mask

    def _readable(self, paths: list[str], on_error: str, look: bool) -> np.ndarray:
        mask = np.ones(len(paths), bool)
        if on_error == "skip":
            regular = [number for number, path in enumerate(paths) if os.path.isfile(path)]
            there = tf.constant([paths[number] for number in regular], tf.string)
            decoded = (
                tf.data.Dataset.from_tensor_slices(there)
                .enumerate()
                .map(
                    lambda number, path: (number, tf.reduce_any(self._load(path) >= 0)),
                    num_parallel_calls=tf.data.AUTOTUNE,
                )
                .ignore_errors()
            )
            mask[:] = False
            mask[[regular[number] for number, _ in decoded.as_numpy_iterator()]] = True
            if not mask.all():
                warnings.warn(
                    f"{int((~mask).sum())} of {len(paths)} image files can't be read and are "
                    f"skipped, the first of them {paths[int(mask.argmin())]}",
                    stacklevel=5,
                )
        elif on_error != "raise":
            raise ValueError(f"`on_error` must be 'raise' or 'skip'. Received: {on_error!r}")
        elif look:
            with ThreadPool() as pool:
                problems = pool.map(sniff, paths)
            bad = [
                (path, problem) for path, problem in zip(paths, problems, strict=True) if problem
            ]
            if bad:
                path, problem = bad[0]
                others = f", as do {len(bad) - 1} other files" if len(bad) > 1 else ""
                raise InputError(
                    f"The image file {path} {problem}{others}. Repair or remove it, or pass "
                    "on_error='skip'"
                )
        return mask

    def _set_up(self, batch_size: int, shuffle: bool, seed: int | None) -> None:
        self._labelled = self.class_mode is not None
        self._labels_are_images = self.class_mode == "input"
        with tf.device("CPU"):
            self._paths = tf.constant(self._filepaths, tf.string)
            self._labels_of = self._label_lookup()
            weights = self.sample_weight
            self._weights = None if weights is None else tf.convert_to_tensor(weights)
        super().__init__(self.image_shape, len(self._filepaths), batch_size, shuffle, seed)

    def _label_lookup(self) -> Callable[[tf.Tensor], Any]:
        """Returns a function from row numbers to labels."""
        if self.class_mode in ("input", None):
            return lambda samples: None
        if self.class_mode == "multi_output":
            outputs = tuple(tf.convert_to_tensor(output) for output in self.labels)
            return lambda samples: tuple(tf.gather(output, samples) for output in outputs)
        if self.class_mode == "raw":
            raw = tf.convert_to_tensor(self.labels)
            return lambda samples: tf.gather(raw, samples)
        width, dtype = len(self.class_indices), self.dtype
        if any(isinstance(label, list) for label in self.labels):
            table = np.zeros((len(self.labels), width), bool)
            for row, label in zip(table, self.labels, strict=True):
                row[label] = True
            multi_hot = tf.constant(table)
            return lambda samples: tf.cast(tf.gather(multi_hot, samples), dtype)
        classes = tf.constant(self.labels, tf.int32)
        if self.class_mode == "categorical":
            return lambda samples: tf.one_hot(tf.gather(classes, samples), width, dtype=dtype)
        return lambda samples: tf.cast(tf.gather(classes, samples), dtype)

    def _load(self, path: tf.Tensor) -> tf.Tensor:
        image = load_image(
            path,
            target_size=self.target_size,
            color_mode=self.color_mode,
            interpolation=self.interpolation,
            keep_aspect_ratio=self.keep_aspect_ratio,
        )
        return tf.transpose(image, [2, 0, 1]) if self.data_format == "channels_first" else image

    def _loaded(self, plans: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        return plans.flat_map(self._read)

    def _read(self, plan: Plan) -> tf.data.Dataset:
        """Reads the files of a plan; yields its chunks with data.

        TensorFlow's errors don't say which file they are about. So files with errors are dropped,
        and a gap in the numbering tells which; a sentinel after the last file reveals a gap there.
        """
        rows = tf.shape(plan.samples, tf.int64)[0]
        size = self._batch_size

        def load(position: tf.Tensor, sample: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def sentinel() -> tf.Tensor:
                dtype = tf.float32 if self.color_mode == "grayscale" else tf.uint8
                return tf.zeros(self.image_shape, dtype)

            image = tf.cond(
                sample < 0, sentinel, lambda: self._load(tf.gather(self._paths, sample))
            )
            return position, image

        def check(number: tf.Tensor, loaded: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            positions, images = loaded
            expected = number * size + tf.range(tf.shape(images, tf.int64)[0])
            with tf.control_dependencies([self._assert_equal(positions, expected, plan.samples)]):
                return images[: rows - number * size]

        images = (
            tf.data.Dataset.from_tensor_slices(tf.concat([plan.samples, [-1]], 0))
            .enumerate()
            .map(load, num_parallel_calls=tf.data.AUTOTUNE)
            .ignore_errors()
            .batch(size)
            .enumerate()
            .map(check)
            .take(-(-rows // size))
            .rebatch(plan.ends - tf.concat([[0], plan.ends[:-1]], 0))
        )

        def complete(batch: Batch, images: tf.Tensor) -> Batch:
            weights = None if self._weights is None else tf.gather(self._weights, batch.samples)
            return batch._replace(data=(images, ((), self._labels_of(batch.samples), weights)))

        return tf.data.Dataset.zip(chunks(plan), images).map(complete)

    def _assert_equal(
        self, positions: tf.Tensor, expected: tf.Tensor, samples: tf.Tensor
    ) -> tf.Operation:
        def fail() -> tf.Operation:
            missing = expected[tf.argmax(positions != expected)]
            path = tf.gather(self._paths, tf.gather(samples, missing))
            message = tf.strings.join([ERROR_PREFIX, "The image file ", path, _UNREADABLE])
            return tf.debugging.Assert(False, [message])

        return tf.cond(tf.reduce_all(positions == expected), tf.no_op, fail)


class DirectoryIterator(_FileIterator):
    """Batches of images from one folder per class; see `Iterator`.

    Files are read and decoded in parallel, by TensorFlow where it can (JPEG, PNG), to the pixels
    that `keras.utils.load_img` returns.

    Args:
        directory: Folder of folders.
        image_data_generator: `ImageDataGenerator`, or None to leave images as they are.
        target_size: Height and width of the batches' images.
        color_mode: "rgb", "rgba" or "grayscale".
        classes: Names of folders, in the order of their numbers; None for all, sorted.
        class_mode: "categorical", "binary", "sparse", "input" (the images themselves), or None.
        batch_size: Int, at least 1.
        shuffle: Bool.
        seed: Int in [0, 2**32), or None to draw one from NumPy's global generator.
        data_format: "channels_last", "channels_first" or None for Keras's own setting.
        save_to_dir: Folder to write every augmented image to, or None.
        save_prefix: Str, the beginning of their names.
        save_format: Str, the ending of their names.
        follow_links: Bool. Whether to follow links to folders.
        subset: "training", "validation" or None.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        keep_aspect_ratio: Bool. Crops the centre instead of distorting.
        dtype: Floating dtype of the batches' images and labels; None for Keras's own setting.
        on_error: "raise" names the first file that can't be read; "skip" reads all files once,
            leaves out those that can't be read, and warns.

    Attributes:
        class_indices: Dict from class names to numbers.
        classes: int32, (n,), the class of each file.
        filenames: Paths from `directory`.

    Raises:
        FileNotFoundError: The folder does not exist.
        InputError: It holds no images or lacks a class, or a file is not an image.
        ValueError: A wrong option.
    """

    allowed_class_modes = frozenset({"categorical", "binary", "sparse", "input", None})

    def __init__(
        self,
        directory: Any,
        image_data_generator: Any,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = None,
        *,
        on_error: str = "raise",
    ) -> None:
        data_format = data_format or keras.config.image_data_format()
        self.set_processing_attrs(**_processing_attrs(locals()))
        self.directory = directory
        self.class_mode = class_mode
        self._check_class_mode()
        self.dtype = dtype or keras.config.floatx()
        folders = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        classes = list(classes or folders)
        missing = sorted(set(classes) - set(folders))
        if missing:
            raise InputError(
                f"`classes` names {missing[0]!r}, for which {directory} has no folder. It has: "
                f"{', '.join(folders[:10]) or 'none'}"
            )
        check_links(directory, classes)
        self.num_classes = len(classes)
        self.class_indices = {name: number for number, name in enumerate(classes)}
        with ThreadPool() as pool:
            by_class = pool.map(lambda name: self._files_of(name, follow_links), classes)
        names = list(itertools.chain.from_iterable(by_class))
        if not names:
            within = f" for the subset {subset!r}" if subset else ""
            raise InputError(
                f"{directory} holds no image files{within}: it needs one folder per class, with "
                f"files that end in {', '.join(self.white_list_formats)}"
            )
        mask = self._set_files(names, on_error, look=True)
        numbers = np.arange(len(classes), dtype=np.int32)
        self.classes = np.repeat(numbers, [len(files) for files in by_class])[mask]
        _print_or_log(f"Found {self.samples} images belonging to {self.num_classes} classes.")
        self._set_up(batch_size, shuffle, seed)

    @property
    def labels(self) -> np.ndarray:
        """The class numbers of all files, int32 (n,)."""
        return self.classes

    def _files_of(self, name: str, follow_links: bool) -> list[str]:
        """Returns a class's image files, also in folders below, as paths from `directory`."""
        files = [
            os.path.relpath(os.path.join(root, file), self.directory)
            for root, files in sorted(_walk(os.path.join(self.directory, name), follow_links))
            for file in sorted(files)
            if file.lower().endswith(self.white_list_formats)
        ]
        begin, end = self.split or (0, 1)
        return files[int(begin * len(files)) : int(end * len(files))]


def _walk(folder: str, follow_links: bool) -> Generator[tuple[str, list[str]], None, None]:
    """Yields the folders below one, with their files; links that lead back are not followed."""
    for root, folders, files in os.walk(folder, followlinks=follow_links):
        here = Path(os.path.realpath(root))
        folders[:] = [
            name
            for name in folders
            if not here.is_relative_to(os.path.realpath(os.path.join(root, name)))
        ]
        yield root, files


class DataFrameIterator(_FileIterator):
    """Batches of images from the files that a dataframe names; see `Iterator`.

    Args:
        dataframe: `pandas.DataFrame`, one row per file.
        directory: Folder that the names are relative to, or None.
        image_data_generator: `ImageDataGenerator`, or None to leave images as they are.
        x_col: Column of file names.
        y_col: Column of labels; a list of columns for "multi_output" and "raw".
        weight_col: Column of weights, or None.
        target_size: As for `DirectoryIterator`, and so are all arguments not listed here.
        classes: The labels to use, in the order of their numbers; None for all, sorted.
        class_mode: As for `DirectoryIterator`, or "multi_output" or "raw". Labels are strings, or
            lists of them for several classes ("categorical").
        data_format: "channels_last" or "channels_first".
        validate_filenames: Bool. True leaves out rows whose file does not exist or has another
            ending, with a warning, and checks the first bytes of the others.

    Raises:
        TypeError: A column holds values of a wrong type.
        ValueError: A wrong option, or a missing column.
        InputError: No rows remain, or a file is not an image.
    """

    allowed_class_modes = frozenset(
        {"binary", "categorical", "input", "multi_output", "raw", "sparse", None}
    )

    def __init__(
        self,
        dataframe: pd.DataFrame,
        directory: Any = None,
        image_data_generator: Any = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str = "channels_last",
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = "float32",
        validate_filenames: bool = True,
        *,
        on_error: str = "raise",
    ) -> None:
        self.set_processing_attrs(**_processing_attrs(locals()))
        self.directory = directory or ""
        self.class_mode = class_mode
        self._check_class_mode()
        self.dtype = dtype
        has_classes = class_mode in ("binary", "categorical", "sparse")
        _check_columns(dataframe, x_col, y_col, weight_col, class_mode, classes)
        rows = self._with_files(dataframe, x_col) if validate_filenames else dataframe
        if has_classes:
            rows, names = _with_classes(rows, y_col, classes)
            self.class_indices = {name: number for number, name in enumerate(names)}
        if self.split is not None:
            rows = rows.iloc[int(self.split[0] * len(rows)) : int(self.split[1] * len(rows))]
        if rows.empty:
            raise InputError(
                f"None of the dataframe's {len(dataframe)} rows remains: check the file names in "
                f"{x_col!r}, `directory`, `classes` and `subset`"
            )
        rows = rows[self._set_files(rows[x_col].tolist(), on_error, look=validate_filenames)]
        self._sample_weight = rows[weight_col].to_numpy() if weight_col else None
        if has_classes:
            self.classes = self.get_classes(rows, y_col)
        elif class_mode == "multi_output":
            self._targets: Any = [np.array(rows[column].tolist()) for column in y_col]
        elif class_mode == "raw":
            self._targets = rows[y_col].to_numpy()
        validated = "validated" if validate_filenames else "non-validated"
        of = f" belonging to {len(self.class_indices)} classes" if has_classes else ""
        _print_or_log(f"Found {self.samples} {validated} image filenames{of}.")
        self._set_up(batch_size, shuffle, seed)

    @property
    def labels(self) -> Any:
        """The labels of all files: class numbers, or the columns' values."""
        return self._targets if self.class_mode in ("multi_output", "raw") else self.classes

    def get_classes(self, df: pd.DataFrame, y_col: str) -> list[Any]:
        """Returns the class number of each row, or a list of them."""
        return [
            [self.class_indices[name] for name in label]
            if isinstance(label, list | tuple)
            else self.class_indices[label]
            for label in df[y_col]
        ]

    def _with_files(self, rows: pd.DataFrame, x_col: str) -> pd.DataFrame:
        valid = [
            str(name).lower().endswith(self.white_list_formats)
            and os.path.isfile(os.path.join(self.directory, name))
            for name in rows[x_col]
        ]
        if not all(valid):
            warnings.warn(
                f'Found {valid.count(False)} invalid image filename(s) in x_col="{x_col}", the '
                f"first of them {rows[x_col].iloc[valid.index(False)]}. These filename(s) will be "
                "ignored.",
                stacklevel=4,
            )
        return rows[valid]


def _processing_attrs(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `set_processing_attrs` among an iterator's arguments."""
    names = list(inspect.signature(_FileIterator.set_processing_attrs).parameters)[1:]
    return {name: values[name] for name in names}


def _check_columns(
    rows: pd.DataFrame,
    x_col: str,
    y_col: Any,
    weight_col: str | None,
    class_mode: str | None,
    classes: list[str] | None,
) -> None:
    """Checks that the columns exist and hold values that suit the class mode."""
    if class_mode == "multi_output" and not isinstance(y_col, list):
        raise TypeError(
            f'For class_mode="multi_output", `y_col` must be a list. Received: {y_col!r}'
        )
    labels = [] if class_mode in ("input", None) else y_col if isinstance(y_col, list) else [y_col]
    for column in (x_col, *labels, *([weight_col] if weight_col else [])):
        if column not in rows:
            raise ValueError(
                f"The dataframe has no column {column!r}. It has: {', '.join(map(str, rows))}"
            )

    def check(column: str, kinds: Any, rule: str) -> None:
        for row, value in enumerate(rows[column]):
            if not isinstance(value, kinds):
                raise TypeError(
                    f"All values in column {column!r} must be {rule}. Row {row} holds {value!r}"
                )

    check(x_col, str, "strings, names of files")
    if class_mode in ("binary", "sparse"):
        check(y_col, str, f'strings for class_mode="{class_mode}"')
    if class_mode == "categorical":
        check(y_col, (str, list, tuple), "strings, lists or tuples")
    if class_mode == "binary":
        count = len(set(classes)) if classes else rows[y_col].nunique()
        if count != 2:
            raise ValueError(f'For class_mode="binary" there must be 2 classes. Found: {count}')
    if classes and class_mode in ("input", "multi_output", "raw", None):
        warnings.warn(
            f'`classes` will be ignored given the class_mode="{class_mode}"', stacklevel=4
        )
    if weight_col and not np.issubdtype(rows[weight_col].dtype.type, np.number):
        raise TypeError(f"Column weight_col={weight_col} must be numeric.")


def _with_classes(
    rows: pd.DataFrame, y_col: str, classes: list[str] | None
) -> tuple[pd.DataFrame, list[str]]:
    """Returns the rows that have one of the classes, and all classes in their order."""
    labels = [label if isinstance(label, list | tuple) else [label] for label in rows[y_col]]
    present = sorted(set(itertools.chain.from_iterable(labels)))
    if not classes:
        return rows, present
    classes = list(dict.fromkeys(classes))
    unknown = [name for name in classes if name not in present]
    if unknown:
        raise InputError(
            f"`classes` names {unknown[0]!r}, which column {y_col!r} does not hold. It holds: "
            f"{', '.join(map(str, present[:10]))}"
        )
    used = [[name for name in names if name in classes] for names in labels]
    rows = rows.copy()
    rows[y_col] = [
        names if isinstance(label, list | tuple) else label
        for names, label in zip(used, rows[y_col], strict=True)
    ]
    return rows[[bool(names) for names in used]], classes


def _print_or_log(text: str) -> None:
    """Prints where Keras would, otherwise logs."""
    if keras.config.is_interactive_logging_enabled():
        print(text)
    else:
        _log.info(text)

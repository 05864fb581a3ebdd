"""Iterators over image files: those in a folder a class, and those that a dataframe names."""

import logging
import os
import warnings
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from asl_fast.data.pipeline import Batch
from asl_fast.generator.iterators import ERROR, Idle, parts, save_images
from asl_fast.generator.iterators import Iterator as BatchIterator
from asl_fast.images.decode import load_image, sniff
from asl_fast.images.file_types import CHANNELS, MOST_PIXELS
from asl_fast.images.resize import INTERPOLATIONS
from asl_fast.system.errors import InputError

__all__ = ["DataFrameIterator", "DirectoryIterator"]

_BROKEN = (
    f" can't be read: it is missing, cut short, no image or has more than {MOST_PIXELS:,} pixels. "
    "Mend or remove it, or pass on_error='skip'."
)
_log = logging.getLogger(__name__)


class _FileIterator(BatchIterator):
    """What the iterators over files share; see `DirectoryIterator` for the arguments."""

    allowed_class_modes: frozenset[str | None] = frozenset()

    filenames: list[str]
    class_mode: str | None
    class_indices: dict[str, int]
    dtype: Any
    labels: Any
    _filepaths: list[str]

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
        """Checks and keeps what decides how a file becomes an image; for the constructors."""
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
            share = image_data_generator._validation_split
            self.split = (0, share) if subset == "validation" else (share, 1)

    @property
    def filepaths(self) -> list[str]:
        """The files' paths, in the order of their numbers."""
        return self._filepaths

    @property
    def sample_weight(self) -> np.ndarray | None:
        """The weights of all files, or None."""
        return None

    @classmethod
    def from_keras(cls, iterator: Any, generator: Any) -> Any:
        """Returns one over the files that one of Keras's own iterators has found.

        Args:
            iterator: Keras's.
            generator: `ImageDataGenerator` of this package, or None.
        """
        own = cls.__new__(cls)
        own.set_processing_attrs(
            generator,
            iterator.target_size,
            iterator.color_mode,
            iterator.data_format,
            iterator.save_to_dir,
            iterator.save_prefix,
            iterator.save_format,
            None,
            iterator.interpolation,
            iterator.keep_aspect_ratio,
        )
        for name in ("directory", "class_mode", "dtype", "filenames", "samples", "num_classes"):
            setattr(own, name, getattr(iterator, name, None))
        own.class_indices = getattr(iterator, "class_indices", {})
        own.classes = own._columns = iterator.labels if iterator.class_mode else None
        own._sample_weight = iterator.sample_weight
        own._filepaths = iterator.filepaths
        own._set_up(iterator.batch_size, iterator.shuffle, iterator.seed)
        return own

    def _set_up(self, batch_size: int, shuffle: bool, seed: int | None) -> None:
        self._labelled, self._echoes = self.class_mode is not None, self.class_mode == "input"
        with tf.device("CPU"):
            self._paths = tf.constant(self._filepaths, tf.string)
            self._targets = self._make_targets()
            weights = self.sample_weight
            self._weights = None if weights is None else tf.convert_to_tensor(weights)
        super().__init__(
            self.image_data_generator or Idle(self.data_format),
            self.image_shape,
            len(self._filepaths),
            batch_size,
            shuffle,
            seed,
            int(1e7) if self.save_to_dir else None,
        )

    def _make_targets(self) -> Callable[[tf.Tensor], Any]:
        """Returns what gives the labels of samples."""
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
            several = np.zeros((len(self.labels), width), bool)
            for row, label in zip(several, self.labels, strict=True):
                row[label] = True
            table = tf.constant(several)
            return lambda samples: tf.cast(tf.gather(table, samples), dtype)
        classes = tf.constant(self.labels, tf.int32)
        if self.class_mode == "categorical":
            return lambda samples: tf.one_hot(tf.gather(classes, samples), width, dtype=dtype)
        return lambda samples: tf.cast(tf.gather(classes, samples), dtype)

    def _sort_out(self, on_error: str, *, look: bool) -> np.ndarray:
        """Returns which files to use, as a mask; or names the first that is no image.

        Args:
            on_error: "raise" looks at the files' beginnings, "skip" reads them all.
            look: Bool. False leaves "raise" to find out later.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` must be 'raise' or 'skip'. Received: {on_error!r}")
        paths = self._filepaths
        if on_error == "skip":
            numbered = tf.data.Dataset.from_tensor_slices(tf.constant(paths, tf.string)).enumerate()
            readable = numbered.map(
                lambda number, path: (number, tf.reduce_any(self._load(path) >= 0)),
                num_parallel_calls=tf.data.AUTOTUNE,
            ).ignore_errors()
            mask = np.zeros(len(paths), bool)
            mask[[int(number) for number, _ in readable.as_numpy_iterator()]] = True
            if not mask.all():
                first = paths[int((~mask).argmax())]
                warnings.warn(
                    f"{int((~mask).sum())} of {len(paths)} image files can't be read and are "
                    f"skipped, the first of them {first}",
                    stacklevel=4,
                )
            return mask
        if look:
            with ThreadPool() as pool:
                reasons = pool.map(sniff, paths)
            found = [(path, why) for path, why in zip(paths, reasons, strict=True) if why]
            if found:
                path, why = found[0]
                more = f", as do {len(found) - 1} other files" if len(found) > 1 else ""
                raise InputError(
                    f"The image file {path} {why}{more}. Mend or remove it, or pass on_error='skip'"
                )
        return np.ones(len(paths), bool)

    def _load(self, path: tf.Tensor) -> tf.Tensor:
        image = load_image(
            path,
            target_size=self.target_size,
            color_mode=self.color_mode,
            interpolation=self.interpolation,
            keep_aspect_ratio=self.keep_aspect_ratio,
        )
        return tf.transpose(image, [2, 0, 1]) if self.data_format == "channels_first" else image

    def _loaded(self, passes: tf.data.Dataset, *, parallel: bool = True) -> tf.data.Dataset:
        return passes.flat_map(self._read)

    def _read(self, one: Any) -> tf.data.Dataset:
        """Reads the files of a pass: its parts, with images and their company.

        An error of TensorFlow's does not say which file it is about. So files in error are left
        out, and the gap tells; what stands behind the last file shows a gap there.
        """
        rows = tf.shape(one.samples, tf.int64)[0]
        at_once = self._batch_size

        def load(position: tf.Tensor, sample: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def nothing() -> tf.Tensor:
                dtype = tf.float32 if self.color_mode == "grayscale" else tf.uint8
                return tf.zeros(self.image_shape, dtype)

            image = tf.cond(sample < 0, nothing, lambda: self._load(tf.gather(self._paths, sample)))
            return position, image

        def check(number: tf.Tensor, loaded: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            positions, images = loaded
            expected = number * at_once + tf.range(tf.shape(images, tf.int64)[0])
            with tf.control_dependencies([self._assert_there(positions, expected, one.samples)]):
                return images[: rows - number * at_once]

        images = (
            tf.data.Dataset.from_tensor_slices(tf.concat([one.samples, [-1]], 0))
            .enumerate()
            .map(load, num_parallel_calls=tf.data.AUTOTUNE)
            .ignore_errors()
            .batch(at_once)
            .enumerate()
            .map(check)
            .take(-(-rows // at_once))
            .rebatch(one.ends - tf.concat([[0], one.ends[:-1]], 0))
        )

        def complete(batch: Batch, images: tf.Tensor) -> Batch:
            weights = None if self._weights is None else tf.gather(self._weights, batch.samples)
            return batch._replace(data=(images, ((), self._targets(batch.samples), weights)))

        return tf.data.Dataset.zip(parts(one), images).map(complete)

    def _assert_there(
        self, positions: tf.Tensor, expected: tf.Tensor, samples: tf.Tensor
    ) -> tf.Operation:
        def complain() -> tf.Operation:
            missing = expected[tf.argmax(positions != expected)]
            path = tf.gather(self._paths, tf.gather(samples, missing))
            return tf.debugging.Assert(
                False, [tf.strings.join([ERROR, "The image file ", path, _BROKEN])]
            )

        return tf.cond(tf.reduce_all(positions == expected), tf.no_op, complain)

    def _saved(self, x: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        if not self.save_to_dir:
            return x
        return save_images(
            x, samples, Path(self.save_to_dir), self.save_prefix, self.save_format, self.data_format
        )


class DirectoryIterator(_FileIterator):
    """Batches of images from the files in a folder a class; see `Iterator`.

    Files are read and decoded in parallel, by TensorFlow where it can (JPEG, PNG), with the
    pixels that `keras.utils.load_img` gives.

    Args:
        directory: Folder of folders.
        image_data_generator: `ImageDataGenerator`, or None for images as they are.
        target_size: Height and width of the images given out.
        color_mode: "rgb", "rgba" or "grayscale".
        classes: Names of folders, in the order of their numbers; None: all, sorted.
        class_mode: "categorical", "binary", "sparse", "input" (the images themselves), or None.
        batch_size: Int, at least 1.
        shuffle: Bool.
        seed: Int in [0, 2**32), or None.
        data_format: "channels_last", "channels_first" or None: Keras's own setting.
        save_to_dir: Folder to write every augmented image to, or None.
        save_prefix: Str that their names begin with.
        save_format: Ending of their names.
        follow_links: Bool. Whether to follow links to folders.
        subset: "training", "validation" or None.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        keep_aspect_ratio: Bool. Crops the middle instead of distorting.
        dtype: Floating, of the images and labels given out.
        on_error: "raise" names the first file that can't be read; "skip" reads all files once,
            leaves such out and says how many.

    Attributes:
        class_indices: Dict from a class's name to its number.
        classes: int32, (n,), the class of each file.
        filenames: Paths from `directory`.

    Raises:
        FileNotFoundError: There is no such folder.
        InputError: It holds no images or lacks a class, or a file is no image.
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
        self.set_processing_attrs(
            image_data_generator,
            target_size,
            color_mode,
            data_format or keras.config.image_data_format(),
            save_to_dir,
            save_prefix,
            save_format,
            subset,
            interpolation,
            keep_aspect_ratio,
        )
        _check_class_mode(class_mode, self.allowed_class_modes)
        self.directory = directory
        self.class_mode = class_mode
        self.dtype = dtype or keras.config.floatx()
        folders = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        classes = list(classes or folders)
        missing = sorted(set(classes) - set(folders))
        if missing:
            raise InputError(
                f"`classes` names {missing[0]!r}, for which {directory} has no folder. It has: "
                f"{', '.join(folders[:10]) or 'none'}"
            )
        self.num_classes = len(classes)
        self.class_indices = {name: number for number, name in enumerate(classes)}
        with ThreadPool() as pool:
            by_class = pool.map(
                lambda name: self._list(os.path.join(directory, name), follow_links), classes
            )
        self.filenames = [
            os.path.join(name, path)
            for name, paths in zip(classes, by_class, strict=True)
            for path in paths
        ]
        numbers = np.repeat(
            np.arange(len(classes), dtype=np.int32), [len(paths) for paths in by_class]
        )
        if not self.filenames:
            within = f" for the subset {subset!r}" if subset else ""
            raise InputError(
                f"{directory} holds no image files{within}: it needs a folder a class, with files "
                f"that end in {', '.join(self.white_list_formats)}"
            )
        self._filepaths = [os.path.join(directory, name) for name in self.filenames]
        mask = self._sort_out(on_error, look=True)
        self.filenames = [name for name, good in zip(self.filenames, mask, strict=True) if good]
        self._filepaths = [path for path, good in zip(self._filepaths, mask, strict=True) if good]
        self.classes = numbers[mask]
        self.samples = len(self.filenames)
        _tell(f"Found {self.samples} images belonging to {self.num_classes} classes.")
        self._set_up(batch_size, shuffle, seed)

    @property
    def labels(self) -> np.ndarray:
        """The classes' numbers, int32 (n,)."""
        return self.classes

    def _list(self, folder: str, follow_links: bool) -> list[str]:
        """Returns the image files in a folder and those below, by their paths from it."""
        found = [
            os.path.relpath(os.path.join(root, name), folder)
            for root, _, names in sorted(os.walk(folder, followlinks=follow_links))
            for name in sorted(names)
            if name.lower().endswith(self.white_list_formats)
        ]
        begin, end = self.split or (0, 1)
        return found[int(begin * len(found)) : int(end * len(found))]


class DataFrameIterator(_FileIterator):
    """Batches of images from the files that a dataframe names; see `DirectoryIterator`.

    Args:
        dataframe: `pandas.DataFrame`, a row a file.
        directory: Folder that the names count from, or None.
        image_data_generator: `ImageDataGenerator`, or None for images as they are.
        x_col: Column of file names.
        y_col: Column of labels; a list of columns for "multi_output" and "raw".
        weight_col: Column of weights, or None.
        target_size: As for `DirectoryIterator`, and so on to `keep_aspect_ratio`.
        color_mode: "rgb", "rgba" or "grayscale".
        classes: The labels to use, in the order of their numbers; None: all, sorted.
        class_mode: As for `DirectoryIterator`, besides "multi_output" and "raw". Labels are
            strings, or lists of them for several classes ("categorical").
        batch_size: Int, at least 1.
        shuffle: Bool.
        seed: Int in [0, 2**32), or None.
        data_format: "channels_last" or "channels_first".
        save_to_dir: Folder to write every augmented image to, or None.
        save_prefix: Str that their names begin with.
        save_format: Ending of their names.
        subset: "training", "validation" or None.
        interpolation: As for `DirectoryIterator`.
        keep_aspect_ratio: Bool.
        dtype: Floating.
        validate_filenames: Bool. True leaves out rows whose file is not there or has another
            ending, with a warning, and looks at the others' beginnings.
        on_error: As for `DirectoryIterator`.

    Raises:
        TypeError: A column holds values of a wrong kind.
        ValueError: A wrong option, or a column that is not there.
        InputError: No row is left, or a file is no image.
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
        self.set_processing_attrs(
            image_data_generator,
            target_size,
            color_mode,
            data_format,
            save_to_dir,
            save_prefix,
            save_format,
            subset,
            interpolation,
            keep_aspect_ratio,
        )
        _check_class_mode(class_mode, self.allowed_class_modes)
        self.directory = directory or ""
        self.class_mode = class_mode
        self.dtype = dtype
        classified = class_mode in ("binary", "categorical", "sparse")
        _check_columns(dataframe, x_col, y_col, weight_col, class_mode, classes)
        rows = dataframe
        if validate_filenames:
            rows = self._with_files(rows, x_col)
        if classified:
            rows, names = _of_classes(rows, y_col, classes)
            self.class_indices = {name: number for number, name in enumerate(names)}
        if self.split is not None:
            rows = rows.iloc[int(self.split[0] * len(rows)) : int(self.split[1] * len(rows))]
        self._filepaths = [os.path.join(self.directory, name) for name in rows[x_col]]
        if not self._filepaths:
            raise InputError(
                f"No row of the dataframe's {len(dataframe)} is left: look at the file names in "
                f"{x_col!r}, `directory`, `classes` and `subset`"
            )
        rows = rows[self._sort_out(on_error, look=validate_filenames)]
        self.filenames = rows[x_col].tolist()
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        self.samples = len(self.filenames)
        self._sample_weight = rows[weight_col].to_numpy() if weight_col else None
        if classified:
            self.classes = self.get_classes(rows, y_col)
        elif class_mode == "multi_output":
            self._columns: Any = [np.array(rows[column].tolist()) for column in y_col]
        elif class_mode == "raw":
            self._columns = rows[y_col].to_numpy()
        validated = "validated" if validate_filenames else "non-validated"
        of = f" belonging to {len(self.class_indices)} classes" if classified else ""
        _tell(f"Found {self.samples} {validated} image filenames{of}.")
        self._set_up(batch_size, shuffle, seed)

    @property
    def labels(self) -> Any:
        """The labels of all files: the classes' numbers, or what the columns hold."""
        return self._columns if self.class_mode in ("multi_output", "raw") else self.classes

    @property
    def sample_weight(self) -> np.ndarray | None:
        """The weights of all files, or None."""
        return self._sample_weight

    def get_classes(self, df: pd.DataFrame, y_col: str) -> list[Any]:
        """Returns the number of each row's class, or a list of them."""
        return [
            [self.class_indices[name] for name in label]
            if isinstance(label, list | tuple)
            else self.class_indices[label]
            for label in df[y_col]
        ]

    def _with_files(self, rows: pd.DataFrame, x_col: str) -> pd.DataFrame:
        good = [
            str(name).lower().endswith(self.white_list_formats)
            and os.path.isfile(os.path.join(self.directory, name))
            for name in rows[x_col]
        ]
        if not all(good):
            warnings.warn(
                f'Found {good.count(False)} invalid image filename(s) in x_col="{x_col}", the '
                f"first of them {rows[x_col].iloc[good.index(False)]}. These filename(s) will be "
                "ignored.",
                stacklevel=4,
            )
        return rows[good]


def _check_class_mode(class_mode: str | None, allowed: frozenset[str | None]) -> None:
    if class_mode not in allowed:
        choices = ", ".join(sorted(map(repr, allowed)))
        raise ValueError(f"`class_mode` must be one of {choices}. Received: {class_mode!r}")


def _check_columns(
    rows: pd.DataFrame,
    x_col: str,
    y_col: Any,
    weight_col: str | None,
    class_mode: str | None,
    classes: list[str] | None,
) -> None:
    """Checks that the columns are there and hold what the class mode needs."""
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


def _of_classes(
    rows: pd.DataFrame, y_col: str, classes: list[str] | None
) -> tuple[pd.DataFrame, list[str]]:
    """Returns the rows with a class that is asked for, and the classes in their order."""
    labels = [list(label) if isinstance(label, list | tuple) else [label] for label in rows[y_col]]
    there = sorted({name for names in labels for name in names})
    if not classes:
        return rows, there
    wanted = list(dict.fromkeys(classes))
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise InputError(
            f"`classes` names {unknown[0]!r}, which column {y_col!r} does not hold. It holds: "
            f"{', '.join(map(str, there[:10]))}"
        )
    kept = [[name for name in names if name in wanted] for names in labels]
    rows = rows.copy()
    rows[y_col] = [
        names if isinstance(label, list | tuple) else label
        for names, label in zip(kept, rows[y_col], strict=True)
    ]
    return rows[[bool(names) for names in kept]], wanted


def _tell(text: str) -> None:
    """Prints where Keras would, or logs."""
    if keras.config.is_interactive_logging_enabled():
        print(text)
    else:
        _log.info(text)

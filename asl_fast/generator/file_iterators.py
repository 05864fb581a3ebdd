"""Iterators over image files: in one folder per class, or named by a dataframe."""

import io
import itertools
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

from asl_fast.data.class_folders import check_links
from asl_fast.generator.iterators import Iterator as BatchIterator
from asl_fast.generator.iterators import whole
from asl_fast.generator.rows import UNREADABLE, FileRows, as_tensor
from asl_fast.images.decode import check_size, sniff
from asl_fast.images.resize import INTERPOLATIONS
from asl_fast.system import private_api
from asl_fast.system.errors import InputError, input_error

__all__ = ["DataFrameIterator", "DirectoryIterator"]


class _FileIterator(BatchIterator):
    """The base of the iterators over files; see `DirectoryIterator` for the arguments."""

    filenames: list[Any]
    filepaths: list[Any]
    class_mode: str | None
    class_indices: dict[str, int]
    classes: Any
    labels: Any
    sample_weight: Any
    _file_number_limit = 10**7

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.class_mode is not None

    @property
    def labels_are_images(self) -> bool:  # type: ignore[override]
        """Whether the images are their own labels."""
        return self.class_mode == "input"

    def _check_processing(self, interpolation: str, target_size: Any, on_error: str) -> None:
        if interpolation not in INTERPOLATIONS:
            raise InputError(
                f"`interpolation`: Invalid interpolation method {interpolation!r} specified. "
                f"Supported methods are {', '.join(INTERPOLATIONS)}"
            )
        sides = [whole("target_size", side) for side in target_size]
        if len(sides) != 2 or min(sides) < 1:
            raise InputError(
                f"`target_size` must be a pair (height, width) of ints. Received: {target_size!r}"
            )
        if on_error not in ("raise", "skip"):
            raise InputError(f"`on_error` must be 'raise' or 'skip'. Received: {on_error!r}")

    def _leave_out_unreadable(self, on_error: str, *, look: bool) -> None:
        """Skips the files that can't be decoded, or looks at the first bytes of all."""
        if on_error == "skip":
            mask = self._readable()
            if not mask.all():
                warnings.warn(
                    f"{int((~mask).sum())} of {self.n} image files can't be read and are "
                    f"skipped, the first of them {self.filepaths[int(mask.argmin())]}",
                    stacklevel=4,
                )
                self._keep(mask)
        elif look and not self._overridden():
            with ThreadPool() as pool:
                problems = pool.map(sniff, self.filepaths)
            bad = [pair for pair in zip(self.filepaths, problems, strict=True) if pair[1]]
            if bad:
                path, problem = bad[0]
                others = f", as do {len(bad) - 1} other files" if len(bad) > 1 else ""
                raise input_error(FileNotFoundError)(
                    f"cannot identify image file {path}, which {problem}{others}. Repair or remove "
                    "it, or pass on_error='skip'"
                )

    def _readable(self) -> np.ndarray:
        # Reading a pipe would wait for its writer.
        regular = [number for number, path in enumerate(self.filepaths) if os.path.isfile(path)]
        encoded = self._encoded_paths()
        paths = tf.constant([encoded[number] for number in regular], tf.string)
        rows = self._rows()
        decoded = (
            tf.data.Dataset.from_tensor_slices(paths)
            .enumerate()
            .map(
                lambda number, path: (number, tf.reduce_any(rows.load(path) >= 0)),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .ignore_errors()
        )
        mask = np.zeros(len(self.filepaths), bool)
        mask[[regular[number] for number, _ in decoded.as_numpy_iterator()]] = True
        return mask

    def _keep(self, mask: np.ndarray) -> None:
        """Leaves out the files where a mask is False."""
        self.filenames = list(itertools.compress(self.filenames, mask))
        self._filepaths = list(itertools.compress(self.filepaths, mask))
        self.samples = self.n = len(self.filenames)

    def _encoded_paths(self) -> list[bytes]:
        return [os.fsencode(path) for path in self.filepaths]

    def _rows(self) -> FileRows:
        labels, weights = self._label_lookup(), self.sample_weight
        weights = None if weights is None else as_tensor(np.asarray(weights))
        return FileRows(
            self._encoded_paths(),
            lambda rows: ((), labels(rows), None if weights is None else tf.gather(weights, rows)),
            self.batch_size,
            self.image_shape,
            self.data_format == "channels_first",
            target_size=tuple(map(int, self.target_size)),
            color_mode=self.color_mode,
            interpolation=self.interpolation,
            keep_aspect_ratio=bool(self.keep_aspect_ratio),
        )

    def _label_lookup(self) -> Callable[[tf.Tensor], Any]:
        """Returns a function from row numbers to labels."""
        if self.class_mode in ("input", None):
            return lambda rows: None
        if self.class_mode == "multi_output":
            outputs = tuple(as_tensor(np.asarray(output)) for output in self.labels)
            return lambda rows: tuple(tf.gather(output, rows) for output in outputs)
        if self.class_mode == "raw":
            raw = as_tensor(np.asarray(self.labels))
            return lambda rows: tf.gather(raw, rows)
        width, dtype = len(self.class_indices), self.dtype
        if any(isinstance(label, list) for label in self.classes):
            table = np.zeros((len(self.classes), width), bool)
            for row, label in zip(table, self.classes, strict=True):
                row[label] = True
            multi_hot = tf.constant(table)
            return lambda rows: tf.cast(tf.gather(multi_hot, rows), dtype)
        if self.class_mode == "categorical":
            classes = tf.constant(self.classes, tf.int32)
            return lambda rows: tf.one_hot(tf.gather(classes, rows), width, dtype=dtype)
        numbers = as_tensor(np.asarray(self.classes, self.dtype))
        return lambda rows: tf.gather(numbers, rows)

    def _image(self, row: int) -> np.ndarray:
        path = self.filepaths[row]
        try:
            with open(path, "rb") as file:
                content = io.BytesIO(file.read())
            check_size(content)
            image = keras.utils.load_img(
                content,
                color_mode=self.color_mode,
                target_size=self.target_size,
                interpolation=self.interpolation,
                keep_aspect_ratio=self.keep_aspect_ratio,
            )
            return keras.utils.img_to_array(image, self.data_format, "float32")
        except (OSError, SyntaxError, ValueError) as error:
            raise input_error(FileNotFoundError)(
                f"cannot identify image file {path}{UNREADABLE}"
            ) from error

    def _completed(self, x: np.ndarray, rows: np.ndarray) -> Any:
        y: Any
        if self.class_mode is None:
            return x
        if self.class_mode == "input":
            y = x.copy()
        elif self.class_mode in ("binary", "sparse"):
            y = np.array([self.classes[row] for row in rows], self.dtype)
        elif self.class_mode == "categorical":
            y = np.zeros((len(rows), len(self.class_indices)), self.dtype)
            for one_hot, row in zip(y, rows, strict=True):
                one_hot[self.classes[row]] = 1
        elif self.class_mode == "multi_output":
            y = [output[rows] for output in self.labels]
        else:
            y = self.labels[rows]
        return (x, y) if self.sample_weight is None else (x, y, self.sample_weight[rows])


class DirectoryIterator(_FileIterator, private_api.KerasDirectoryIterator):
    """Batches of images from one folder per class; see `Iterator`.

    Files are read and decoded in parallel, by TensorFlow where it can (JPEG, PNG), to the pixels
    that `keras.utils.load_img` returns.

    Args:
        directory: Folder of folders.
        image_data_generator: `ImageDataGenerator`, or None to leave images as they are.
        target_size: Height and width of the batches' images.
        color_mode: "rgb", "rgba" or "grayscale".
        classes: Names of folders, in the order of their numbers; None for all, sorted; `["."]` for
            files that lie in the folder itself.
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
        dtype: Dtype of the batches' images and labels; None for Keras's own setting.
        on_error: "raise" names the first file that can't be read; "skip" reads all files once,
            leaves out those that can't be read, and warns.

    Attributes:
        class_indices: Dict from class names to numbers.
        classes: int32, (n,), the class of each file.
        filenames: Paths from `directory`.

    Raises:
        FileNotFoundError: The folder does not exist, or a file is not an image.
        InputError: The folder holds no images or lacks a class.
        ValueError: A wrong option.
    """

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
        self._check_processing(interpolation, target_size, on_error)
        folders = [entry.name for entry in os.scandir(directory) if entry.is_dir()]
        for name in classes or ():
            if not os.path.isdir(os.path.join(directory, name)):
                raise InputError(
                    f"`classes` names {name!r}, for which {directory} has no folder. It has: "
                    f"{', '.join(sorted(folders)[:10]) or 'none'}"
                )
        check_links(directory, list(classes or sorted(folders)))
        if follow_links:
            _check_loops(directory)
        private_api.KerasDirectoryIterator.__init__(
            self,
            directory,
            image_data_generator,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            data_format=data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            follow_links=follow_links,
            subset=subset,
            interpolation=interpolation,
            keep_aspect_ratio=keep_aspect_ratio,
            dtype=dtype,
        )
        if not self.n:
            within = f" for the subset {subset!r}" if subset else ""
            raise InputError(
                f"{directory} holds no image files{within}: it needs one folder per class, with "
                f"files that end in {', '.join(self.white_list_formats)}; for files in the folder "
                "itself pass classes=['.']"
            )
        self._leave_out_unreadable(on_error, look=True)
        self._set_up()

    def _keep(self, mask: np.ndarray) -> None:
        self.classes = self.classes[mask]
        super()._keep(mask)


def _check_loops(folder: str) -> None:
    """Raises an `InputError` if a link leads back: its images would be read some forty times."""
    for root, folders, _ in os.walk(folder, followlinks=True):
        here = Path(os.path.realpath(root))
        for name in folders:
            path = os.path.join(root, name)
            if here.is_relative_to(os.path.realpath(path)):
                raise InputError(f"{path} is a link to a folder that holds it. Remove it")


class DataFrameIterator(_FileIterator, private_api.KerasDataFrameIterator):
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
        KeyError: A missing column.
        ValueError: A wrong option.
        InputError: No rows remain, or a file is not an image.
    """

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
        self._check_processing(interpolation, target_size, on_error)
        _check_columns(dataframe, x_col, y_col, weight_col, class_mode)
        private_api.KerasDataFrameIterator.__init__(
            self,
            dataframe,
            directory,
            image_data_generator,
            x_col=x_col,
            y_col=y_col,
            weight_col=weight_col,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            data_format=data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            interpolation=interpolation,
            keep_aspect_ratio=keep_aspect_ratio,
            dtype=dtype,
            validate_filenames=validate_filenames,
        )
        if classes and class_mode in _WITH_CLASSES:
            _check_classes(dataframe[y_col], classes)
        if not self.n:
            raise InputError(
                f"None of the dataframe's {len(dataframe)} rows remains: check the file names in "
                f"{x_col!r}, `directory`, `classes` and `subset`"
            )
        self._leave_out_unreadable(on_error, look=validate_filenames)
        self._set_up()

    def _filter_valid_filepaths(self, df: pd.DataFrame, x_col: str) -> pd.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept = private_api.KerasDataFrameIterator._filter_valid_filepaths(self, df, x_col)
        missing = set(df[x_col]) - set(kept[x_col])
        if missing:
            first = next(name for name in df[x_col] if name in missing)
            warnings.warn(
                f'Found {len(df) - len(kept)} invalid image filename(s) in x_col="{x_col}". These '
                f"filename(s) will be ignored, the first of them {first}.",
                stacklevel=5,
            )
        return kept

    def _keep(self, mask: np.ndarray) -> None:
        if self.class_mode == "multi_output":
            self._targets: Any = [output[mask] for output in self._targets]
        elif self.class_mode == "raw":
            self._targets = self._targets[mask]
        elif self.class_mode in _WITH_CLASSES:
            self.classes = list(itertools.compress(self.classes, mask))
        if self._sample_weight is not None:
            self._sample_weight: Any = self._sample_weight[mask]
        super()._keep(mask)


_WITH_CLASSES = ("binary", "categorical", "sparse")


def _check_columns(
    rows: pd.DataFrame, x_col: str, y_col: Any, weight_col: str | None, class_mode: str | None
) -> None:
    if not isinstance(rows, pd.DataFrame):
        raise input_error(AttributeError)(
            f"`dataframe` must be a pandas.DataFrame. Received: {type(rows).__name__}"
        )
    labels = [] if class_mode in ("input", None) else y_col if isinstance(y_col, list) else [y_col]
    for column in (x_col, *labels, *([weight_col] if weight_col else [])):
        if column not in rows:
            raise input_error(KeyError)(
                f"The dataframe has no column {column!r}. It has: {', '.join(map(str, rows))}"
            )


def _check_classes(column: pd.Series, classes: Any) -> None:
    held = [label if isinstance(label, list | tuple) else [label] for label in column]
    present = set(itertools.chain.from_iterable(held))
    for name in classes:
        if name not in present:
            raise InputError(
                f"`classes` names {name!r}, which column {column.name!r} does not hold. It holds: "
                f"{', '.join(map(str, sorted(present)[:10]))}"
            )

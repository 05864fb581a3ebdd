"""`ImageDataGenerator` with Keras's interface, whose batches TensorFlow augments as a whole."""

import copy
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from asl_fast.generator import replay
from asl_fast.generator.file_iterators import DataFrameIterator, DirectoryIterator
from asl_fast.generator.iterators import NumpyArrayIterator, is_users, remembered
from asl_fast.system import private_api
from asl_fast.system.errors import InputError, input_error
from asl_fast.transforms import augmentation, standardize
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.checks import plain
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize_options import StandardizeOptions

__all__ = ["OVERRIDABLE", "ImageDataGenerator"]

# What Keras calls for each image, and subclasses override.
OVERRIDABLE = ("get_random_transform", "apply_transform", "standardize")

_UNFITTED = (
    "This ImageDataGenerator specifies `{option}`, but it hasn't been fit on any training data. "
    "Fit it first by calling `.fit(numpy_data)`."
)
_OPTIONS = {field.name for field in dataclasses.fields(AugmentOptions)}
_STANDARDS = {field.name for field in dataclasses.fields(StandardizeOptions)}
_STATISTICS = ("mean", "std", "zca_whitening_matrix")
_FIT_BATCH = 1024  # images that `fit` augments per call
# Values up to which Keras's own `fit` is done before a program is compiled.
_SMALL_FIT = 2**21


class _Statistic:
    """A statistic of the data set, an array or None; may be set to either."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, generator: Any, owner: type | None = None) -> Any:
        return self if generator is None else vars(generator).get(self._name)

    def __set__(self, generator: Any, value: Any) -> None:
        generator.__dict__[self._name] = value
        variable = generator._variables.get(self._name)
        if variable is not None:
            variable.assign(_as_float32(value))


class ImageDataGenerator(private_api.KerasGenerator):
    """Augments and standardises images, with the interface of Keras's `ImageDataGenerator`.

    It is Keras's, and every option means what it does there, quirks included (see `AugmentOptions`
    and `StandardizeOptions`); the same parameters give the same pixels. What `flow`,
    `flow_from_directory` and `flow_from_dataframe` return is a `tf.data.Dataset` too, and augments
    whole batches in TensorFlow, in float32, where that pays. Values that only Keras knows how to
    take, and methods that a subclass overrides, are left to Keras's code, image by image, and named
    in a warning.

    Args:
        featurewise_center: Bool. Subtracts the data set's mean; needs `fit`.
        samplewise_center: Bool. Subtracts each image's mean.
        featurewise_std_normalization: Bool. Divides by the data set's deviation; needs `fit`.
        samplewise_std_normalization: Bool. Divides by each image's deviation.
        zca_whitening: Bool; needs `fit`.
        zca_epsilon: Float, above 0.
        rotation_range: Degrees.
        width_shift_range: Float (below 1 a fraction, from 1 on pixels), int or 1-D array.
        height_shift_range: As `width_shift_range`.
        brightness_range: None or a pair.
        shear_range: Degrees.
        zoom_range: Float or a pair.
        channel_shift_range: In the units of the pixels.
        fill_mode: "constant", "nearest", "reflect", "mirror" or "wrap".
        cval: Float, the pixels beyond the border for "constant".
        horizontal_flip: Bool.
        vertical_flip: Bool.
        rescale: None or a number to multiply by, after the augmentation.
        preprocessing_function: None, or a function of one image, a float32 array of rank 3. It is
            called in Python, image by image, and limits the speed; those of `keras.applications`
            are recognised and run on whole batches.
        data_format: "channels_last", "channels_first" or None for Keras's own setting.
        validation_split: Float, at least 0 and below 1.
        interpolation_order: Int, 0 to 5.
        dtype: That of the batches' images, best "float16", "float32" or "float64"; None for Keras's
            own setting.
        rng: "stateless" draws each image's parameters from (seed, pass, image). "keras" draws what
            Keras's generator would draw, from NumPy's Mersenne Twister.

    Attributes:
        mean: Array that broadcasts against an image, or None before `fit`; may be set.
        std: Likewise.
        zca_whitening_matrix: Array (d, d) for images of d values, or None; may be set.

    Raises:
        ValueError: A wrong option; names it, its rule and the value. Where Keras raises another
            type of exception, at the first batch, it is of that type too.
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: Any = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Any = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Any], Any] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: Any = None,
        *,
        rng: str = "stateless",
    ) -> None:
        self._variables: dict[str, tf.Variable] = {}
        super().__init__(
            featurewise_center=featurewise_center,
            samplewise_center=samplewise_center,
            featurewise_std_normalization=featurewise_std_normalization,
            samplewise_std_normalization=samplewise_std_normalization,
            zca_whitening=zca_whitening,
            zca_epsilon=zca_epsilon,
            rotation_range=rotation_range,
            width_shift_range=width_shift_range,
            height_shift_range=height_shift_range,
            brightness_range=brightness_range,
            shear_range=shear_range,
            zoom_range=zoom_range,
            channel_shift_range=channel_shift_range,
            fill_mode=fill_mode,
            cval=cval,
            horizontal_flip=horizontal_flip,
            vertical_flip=vertical_flip,
            rescale=rescale,
            preprocessing_function=preprocessing_function,
            data_format=data_format,
            validation_split=validation_split,
            interpolation_order=interpolation_order,
            dtype=dtype,
        )
        self.rng = rng
        if rng not in ("stateless", "keras"):
            raise ValueError(f"`rng` must be 'stateless' or 'keras'. Received: {rng!r}")
        if preprocessing_function and not callable(preprocessing_function):
            raise input_error(TypeError)(
                "`preprocessing_function` must be None or a function: "
                f"{type(preprocessing_function).__name__!r} object is not callable"
            )
        try:
            np.dtype(self.dtype)
        except TypeError as error:
            raise input_error(TypeError)(
                f"`dtype` must be one of NumPy's, as 'float32': {error}"
            ) from None
        try:
            self.augment_options(), self.standards()
        except ValueError as error:
            self._raise_if_keras_does(str(error))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name not in _STATISTICS:
            # Iterators see by it that an option has changed.
            self.__dict__["settings"] = object()
            self.__dict__["_options"] = self.__dict__["_standards"] = None

    @classmethod
    def from_keras(cls, generator: Any) -> "ImageDataGenerator":
        """Returns a generator with the options and statistics of one of Keras's own."""
        names = [name for name in inspect.signature(cls).parameters if name in vars(generator)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras has warned already
            own = cls(
                **{name: getattr(generator, name) for name in names},
                validation_split=private_api.validation_split(generator),
            )
        for name in _STATISTICS:
            setattr(own, name, getattr(generator, name))
        return own

    mean = _Statistic()
    std = _Statistic()
    zca_whitening_matrix = _Statistic()

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
    ) -> NumpyArrayIterator:
        """Returns batches from arrays; see `NumpyArrayIterator` for arguments and errors."""
        return NumpyArrayIterator(**self._forwarded(locals()))

    def flow_from_directory(
        self,
        directory: str,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        *,
        on_error: str = "raise",
    ) -> DirectoryIterator:
        """Returns batches from image files in one folder per class; see `DirectoryIterator`."""
        return DirectoryIterator(**self._forwarded(locals()))

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | None = None,
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
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        *,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> DataFrameIterator:
        """Returns batches from the image files that a dataframe names; see `DataFrameIterator`."""
        arguments = self._forwarded(locals())
        for name in kwargs:
            if name in ("has_ext", "sort", "drop_duplicates"):
                text = f"{name} is deprecated and ignored"
                warnings.warn(text, DeprecationWarning, stacklevel=2)
            else:
                text = (
                    f"flow_from_dataframe() takes no argument `{name}`; it is ignored, as by Keras"
                )
                warnings.warn(text, stacklevel=2)
        if class_mode == "other":
            text = '`class_mode="other"` is deprecated, please use `class_mode="raw"`.'
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            arguments["class_mode"] = "raw"
        return DataFrameIterator(**arguments)

    def _forwarded(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments of a `flow…` method as its iterator takes them."""
        own = {"image_data_generator": self, "data_format": self.data_format, "dtype": self.dtype}
        given = {key: value for key, value in arguments.items() if key not in ("self", "kwargs")}
        return given | own

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Computes mean, standard deviation and ZCA matrix, if an option needs them.

        As in Keras, images are rescaled before they are augmented, the opposite of `flow`, and
        `preprocessing_function` and the samplewise options are ignored.

        Args:
            x: Images of rank 4.
            augment: Bool. Whether to augment them.
            rounds: Int, passes over the images, each augmented differently.
            seed: Int or None.

        Raises:
            ValueError: x is of another rank or empty.
        """
        x = np.asarray(x)
        needed = self.featurewise_center or self.featurewise_std_normalization or self.zca_whitening
        if x.size and x.ndim == 4 and not needed:
            x = x[:1]  # for Keras's checks
        if x.ndim != 4 or not self._streams(x, rounds if augment else 1):
            super().fit(x, augment and needed, rounds, seed)
            return
        if not len(x):
            raise InputError(f"`x` holds no images. Received: an array of shape {x.shape}")
        standards = dataclasses.replace(
            self.standards(), samplewise_center=False, samplewise_std_normalization=False
        )
        layer = standardize.Standardize(
            **{**vars(standards), "rescale": None, "preprocessing_function": None}, dtype="float32"
        )
        layer.fit(self._to_fit(x, rounds if augment else 0, seed))
        for name in _STATISTICS:
            if getattr(layer, name) is not None:
                setattr(self, name, np.asarray(getattr(layer, name), np.dtype(self.dtype)))

    def _streams(self, x: np.ndarray, rounds: Any) -> bool:
        """Returns whether `fit` computes in a stream of batches rather than by Keras's code."""
        if len(x) and x.size * rounds <= _SMALL_FIT:
            return False
        if np.dtype(self.dtype).kind != "f":
            return False
        try:
            self.augment_options(), self.standards()
        except ValueError:
            return False
        own = type(self).random_transform is private_api.KerasGenerator.random_transform
        return own and self.overridden() is None

    def _to_fit(self, x: np.ndarray, rounds: int, seed: int | None) -> Iterator[tf.Tensor]:
        """Yields the images to compute statistics of; not augmented for 0 rounds."""
        if rounds and seed is not None:
            np.random.seed(seed)
        options, size = self.augment_options(), (x.shape[self.row_axis], x.shape[self.col_axis])
        layer = RandomAugment(**dataclasses.asdict(options), dtype="float32")
        for _ in range(max(rounds, 1)):
            for begin in range(0, len(x), _FIT_BATCH):
                images = x[begin : begin + _FIT_BATCH].astype(np.float32)
                if self.rescale:
                    images *= self.rescale
                if rounds:
                    drawn = replay.table(options, np.random, len(images), *size)
                    images = layer.apply(images, augmentation.from_table(drawn, options))
                yield images

    # The interface for iterators.

    def augment_options(self) -> AugmentOptions:
        """Returns the random changes to make to the images, by the current attributes.

        Raises:
            ValueError: A value that only Keras's own code may know how to take.
        """
        if vars(self).get("_options") is None:
            values = {
                name: _plain(name, getattr(self, name)) for name in _OPTIONS & set(vars(self))
            }
            try:
                self.__dict__["_options"] = _checked_options(**values)
            except TypeError:  # a value that can't be hashed
                self.__dict__["_options"] = AugmentOptions(**values, quirks=True)
        return self.__dict__["_options"]

    def standards(self) -> StandardizeOptions:
        """Returns what standardises the images, by the current attributes.

        Raises:
            ValueError: As for `augment_options`.
        """
        if vars(self).get("_standards") is None:
            values = {name: _plain(name, getattr(self, name)) for name in _STANDARDS}
            values["rescale"] = values["rescale"] or None
            self.__dict__["_standards"] = StandardizeOptions(**values)
        return self.__dict__["_standards"]

    def overridden(self) -> str | None:
        """Returns which method of `OVERRIDABLE` is not this class's own, in words, or None."""
        for name in OVERRIDABLE:
            own = getattr(type(self), name) is getattr(ImageDataGenerator, name)
            if name in vars(self) or not own:
                return f"`{type(self).__name__}.{name}` is overridden"
        return None

    def standardized(self, images: tf.Tensor) -> tf.Tensor:
        """Returns a float32 batch of rank 4, standardised with the current statistics."""
        x = self._preprocessed(images)
        x = standardize.samplewise(self.standards(), x)
        for option, name, apply in (
            ("featurewise_center", "mean", standardize.center),
            ("featurewise_std_normalization", "std", standardize.normalize),
            ("zca_whitening", "zca_whitening_matrix", standardize.whiten),
        ):
            if getattr(self, option):
                x = _unless_empty(apply, x, self._variable(name).read_value())
        return x

    def warn_unfitted(self) -> None:
        """Warns if an option needs statistics that are missing, as Keras does at each batch."""
        for option, value in (
            ("featurewise_center", self.mean),
            ("featurewise_std_normalization", self.std),
            ("zca_whitening", self.zca_whitening_matrix),
        ):
            if getattr(self, option) and value is None:
                warnings.warn(_UNFITTED.format(option=option), stacklevel=3)

    def _variable(self, name: str) -> tf.Variable:
        """Returns a statistic as each batch reads it, empty before `fit`."""
        if name not in self._variables:
            with tf.init_scope(), tf.device("CPU"):
                value = _as_float32(getattr(self, name))
                self._variables[name] = tf.Variable(value, shape=tf.TensorShape(None))
        return self._variables[name]

    def _preprocessed(self, images: tf.Tensor) -> tf.Tensor:
        function = self.preprocessing_function
        if not function:
            return images
        if not is_users(function):
            return function(images)

        def each(batch: np.ndarray) -> np.ndarray:
            return np.stack([np.asarray(function(image), np.float32) for image in batch])

        # On the host, because it may be any Python.
        result = tf.numpy_function(remembered(each), [images], tf.float32)
        return tf.ensure_shape(result, images.shape)

    def _raise_if_keras_does(self, text: str) -> None:
        """Raises an error of the type that Keras raises at the first batch, if it does."""
        probe = copy.copy(self)
        probe.preprocessing_function = None
        image = np.zeros((3, 8, 8) if self.data_format == "channels_first" else (8, 8, 3), "f")
        own, state = private_api.KerasGenerator, np.random.get_state()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for _ in range(16):  # a draw may change nothing
                    drawn = own.get_random_transform(probe, image.shape)
                    own.standardize(probe, own.apply_transform(probe, image.copy(), drawn))
        except Exception as error:
            kind = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
            raise input_error(kind)(text) from error
        finally:
            np.random.set_state(state)


_FLAGS = (
    "featurewise_center",
    "featurewise_std_normalization",
    "samplewise_center",
    "samplewise_std_normalization",
    "zca_whitening",
    "horizontal_flip",
    "vertical_flip",
)
_NONE_IS_OFF = ("rotation_range", "width_shift_range", "height_shift_range", "shear_range")
# SciPy has two names for it.
_FILL_MODES = {"grid-mirror": "reflect"}


def _plain(name: str, value: Any) -> Any:
    """Returns an option's value as `AugmentOptions` and `StandardizeOptions` take it."""
    if name in _FLAGS and not (value is None and name.endswith("_flip")):
        return bool(value)
    if name == "fill_mode" and isinstance(value, str):
        return _FILL_MODES.get(value, value)
    if value is None and name in _NONE_IS_OFF:
        return 0
    return plain(int(value) if isinstance(value, bool) else value)


@functools.lru_cache(maxsize=64, typed=True)
def _checked_options(**values: Any) -> AugmentOptions:
    return AugmentOptions(**values, quirks=True)


def _as_float32(value: Any) -> np.ndarray:
    return np.zeros(0, np.float32) if value is None else np.asarray(value, np.float32)


def _unless_empty(
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], images: tf.Tensor, value: tf.Tensor
) -> tf.Tensor:
    result = tf.cond(tf.size(value) > 0, lambda: apply(images, value), lambda: images)
    return tf.ensure_shape(result, images.shape)

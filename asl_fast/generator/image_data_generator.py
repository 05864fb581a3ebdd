"""`ImageDataGenerator` with Keras's interface, whose batches TensorFlow augments as a whole."""

import dataclasses
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.generator import replay
from asl_fast.generator.file_iterators import DataFrameIterator, DirectoryIterator
from asl_fast.generator.iterators import BaseGenerator, NumpyArrayIterator, warn_of_channels
from asl_fast.system import private_api
from asl_fast.transforms import augmentation, standardize
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize_options import StandardizeOptions

__all__ = ["ImageDataGenerator"]

_UNFITTED = (
    "This ImageDataGenerator specifies `{option}`, but it hasn't been fit on any training data. "
    "Fit it first by calling `.fit(numpy_data)`."
)
_FIT_BATCH = 1024  # images that `fit` augments per call


class _Statistic:
    """A statistic of the data set, an array or None; may be set to either."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, generator: Any, owner: type | None = None) -> Any:
        if generator is None:
            return self
        value = generator._statistics[self._name].numpy()
        return value.astype(generator.dtype) if value.size else None

    def __set__(self, generator: Any, value: Any) -> None:
        value = np.zeros(0) if value is None else value
        generator._statistics[self._name].assign(np.asarray(value, np.float32))


class ImageDataGenerator(BaseGenerator):
    """Augments and standardises images, with the interface of Keras's `ImageDataGenerator`.

    Every option means what it does in Keras, quirks included (see `AugmentOptions` and
    `StandardizeOptions`), and the same parameters give the same pixels. Unlike Keras's, `flow`,
    `flow_from_directory` and `flow_from_dataframe` return a `tf.data.Dataset` that augments whole
    batches in TensorFlow, in float32. Options may be set as attributes; existing iterators keep
    theirs, but do follow `mean`, `std` and `zca_whitening_matrix`.

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
        fill_mode: "constant", "nearest", "reflect" or "wrap".
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
        dtype: "float16", "float32" or "float64", that of the batches' images; None for Keras's own
            setting.
        rng: "stateless" draws each image's parameters from (seed, pass, image). "keras" draws what
            Keras's generator would draw, from NumPy's Mersenne Twister.

    Attributes:
        mean: Array that broadcasts against an image, or None before `fit`; may be set.
        std: Likewise.
        zca_whitening_matrix: Array (d, d) for images of d values, or None; may be set.

    Raises:
        ValueError: A wrong option; names it, its rule and the value.
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
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.brightness_range = brightness_range
        self.shear_range = shear_range
        self.channel_shift_range = channel_shift_range
        self.fill_mode = fill_mode
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.data_format = data_format or keras.config.image_data_format()
        self.interpolation_order = interpolation_order
        self.dtype = dtype or keras.config.floatx()
        self.rng = rng
        if isinstance(zoom_range, int | float):
            zoom_range = (1 - zoom_range, 1 + zoom_range)
        self.zoom_range = list(zoom_range) if isinstance(zoom_range, tuple) else zoom_range
        if validation_split and not 0 < validation_split < 1:
            raise ValueError(
                "`validation_split` must be strictly between 0 and 1. "
                f"Received: {validation_split!r}"
            )
        self._validation_split = validation_split
        if rng not in ("stateless", "keras"):
            raise ValueError(f"`rng` must be 'stateless' or 'keras'. Received: {rng!r}")
        if tf.as_dtype(self.dtype) not in (tf.float16, tf.float32, tf.float64):
            raise ValueError(
                f"`dtype` must be 'float16', 'float32' or 'float64'. Received: {dtype!r}"
            )
        self.augment_options()  # checks them
        checked = standardize.with_implied(self._standards())
        for name in ("featurewise_center", "featurewise_std_normalization", "samplewise_center"):
            setattr(self, name, getattr(checked, name))
        first = self.data_format == "channels_first"
        self.channel_axis, self.row_axis, self.col_axis = (1, 2, 3) if first else (3, 1, 2)
        with tf.device("CPU"):
            # Each batch reads them. Empty before `fit`, as their shapes depend on the data.
            self._statistics = {
                name: tf.Variable(np.zeros(0, np.float32), shape=tf.TensorShape(None))
                for name in ("mean", "std", "zca_whitening_matrix")
            }

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
        for name in own._statistics:
            if getattr(generator, name) is not None:
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
        for name in ("has_ext", "sort", "drop_duplicates"):
            if kwargs.pop(name, None) is not None:
                warnings.warn(f"`{name}` is ignored", DeprecationWarning, stacklevel=2)
        if kwargs:
            raise TypeError(f"flow_from_dataframe() takes no argument {sorted(kwargs)[0]!r}")
        if class_mode == "other":
            warnings.warn('`class_mode="other"` is now "raw"', DeprecationWarning, stacklevel=2)
            arguments["class_mode"] = "raw"
        return DataFrameIterator(**arguments)

    def _forwarded(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments of a `flow…` method as its iterator takes them."""
        own = {"image_data_generator": self, "data_format": self.data_format, "dtype": self.dtype}
        given = {key: value for key, value in arguments.items() if key not in ("self", "kwargs")}
        return given | own

    def standardize(self, x: np.ndarray) -> np.ndarray:
        """Standardises an image or a batch, in place where Keras does.

        Args:
            x: Floating array. The samplewise options treat a batch as one image, as in Keras.

        Returns:
            x, standardised.
        """
        self.warn_unfitted()
        if self.preprocessing_function:
            x = self.preprocessing_function(x)
        if self.rescale:
            x *= self.rescale
        if self.samplewise_center:
            x -= np.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x /= np.std(x, keepdims=True) + 1e-6
        if self.featurewise_center and self.mean is not None:
            x -= self.mean
        if self.featurewise_std_normalization and self.std is not None:
            x /= self.std + 1e-6
        if self.zca_whitening and self.zca_whitening_matrix is not None:
            flat = x.reshape(-1, math.prod(x.shape[-3:]))
            x = (flat @ self.zca_whitening_matrix).reshape(x.shape)
        return x

    def get_random_transform(
        self, img_shape: tuple[int, ...], seed: int | None = None
    ) -> dict[str, Any]:
        """Draws the parameters of one image from NumPy's global generator, as Keras does.

        Args:
            img_shape: Shape of the image.
            seed: Int to seed NumPy's global generator with first, or None.

        Returns:
            Parameters for `apply_transform`.
        """
        if seed is not None:
            np.random.seed(seed)
        height, width = img_shape[self.row_axis - 1], img_shape[self.col_axis - 1]
        drawn = replay.draw(self.augment_options(), np.random, height, width)
        return {"channel_shift_intensity": None, "brightness": None} | drawn

    def apply_transform(self, x: np.ndarray, transform_parameters: dict[str, Any]) -> np.ndarray:
        """Applies parameters to one image.

        Args:
            x: Image of rank 3.
            transform_parameters: `theta` (degrees), `tx` and `ty` (pixels), `shear` (degrees),
                `zx` and `zy`, `flip_horizontal`, `flip_vertical`, `channel_shift_intensity`,
                `brightness`; missing ones change nothing.

        Returns:
            The image in the dtype of x, rounded if that is an integer type.
        """
        x = np.asarray(x)
        # Keras ignores other names.
        known = {name: transform_parameters.get(name) for name in augmentation.PARAMETERS}
        pixels = self._layer().apply(np.asarray(x, np.float32), known).numpy()
        if x.dtype.kind in "iu":
            limits = np.iinfo(x.dtype)
            pixels = np.clip(np.rint(pixels), limits.min, limits.max)
        return pixels.astype(x.dtype)

    def random_transform(self, x: np.ndarray, seed: int | None = None) -> np.ndarray:
        """Applies `get_random_transform` to one image."""
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

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
        if x.ndim != 4:
            raise ValueError(
                f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}"
            )
        warn_of_channels(x, self.data_format, stacklevel=3)
        if not self.featurewise_center:
            return
        standards = dataclasses.replace(
            self._standards(), samplewise_center=False, samplewise_std_normalization=False
        )
        layer = standardize.Standardize(
            **{**vars(standards), "rescale": None, "preprocessing_function": None}, dtype="float32"
        )
        layer.fit(self._to_fit(x, rounds if augment else 0, seed))
        dtype = np.dtype(self.dtype)
        for name in self._statistics:
            if getattr(layer, name) is not None:
                setattr(self, name, np.asarray(getattr(layer, name), dtype))

    def _to_fit(self, x: np.ndarray, rounds: int, seed: int | None) -> Iterator[tf.Tensor]:
        """Yields the images to compute statistics of; not augmented for 0 rounds."""
        if rounds and seed is not None:
            np.random.seed(seed)
        options, size = self.augment_options(), (x.shape[self.row_axis], x.shape[self.col_axis])
        for _ in range(max(rounds, 1)):
            for begin in range(0, len(x), _FIT_BATCH):
                images = x[begin : begin + _FIT_BATCH].astype(np.float32)
                if self.rescale:
                    images *= self.rescale
                if rounds:
                    drawn = replay.table(options, np.random, len(images), *size)
                    images = self._layer().apply(images, augmentation.from_table(drawn, options))
                yield images

    # The interface for iterators.

    def augment_options(self) -> AugmentOptions:
        """Returns the random changes to make to the images, by the current attributes."""
        names = {field.name for field in dataclasses.fields(AugmentOptions)} & set(vars(self))
        return AugmentOptions(**{name: getattr(self, name) for name in names}, quirks=True)

    def standardized(self, images: tf.Tensor) -> tf.Tensor:
        """Returns a float32 batch of rank 4, standardised with the current statistics."""
        x = self._preprocessed(images)
        x = standardize.samplewise(self._standards(), x)
        for option, name, apply in (
            ("featurewise_center", "mean", standardize.center),
            ("featurewise_std_normalization", "std", standardize.normalize),
            ("zca_whitening", "zca_whitening_matrix", standardize.whiten),
        ):
            if getattr(self, option):
                value = self._statistics[name].read_value()
                x = _unless_empty(apply, x, value)
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

    def _standards(self) -> StandardizeOptions:
        names = {field.name for field in dataclasses.fields(StandardizeOptions)}
        values = {name: getattr(self, name) for name in names}
        return StandardizeOptions(**values | {"rescale": self.rescale or None})

    def _layer(self) -> RandomAugment:
        return RandomAugment(**dataclasses.asdict(self.augment_options()), dtype="float32")

    def _preprocessed(self, images: tf.Tensor) -> tf.Tensor:
        function = self.preprocessing_function
        if function is None:
            return images
        if function.__module__.startswith(private_api.KERAS_APPLICATIONS):
            return function(images)

        def each(batch: np.ndarray) -> np.ndarray:
            return np.stack([np.asarray(function(image), np.float32) for image in batch])

        # On the host, because it may be any Python.
        return tf.ensure_shape(tf.numpy_function(each, [images], tf.float32), images.shape)


def _unless_empty(
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], images: tf.Tensor, value: tf.Tensor
) -> tf.Tensor:
    result = tf.cond(tf.size(value) > 0, lambda: apply(images, value), lambda: images)
    return tf.ensure_shape(result, images.shape)

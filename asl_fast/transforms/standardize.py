"""`Standardize`: centring, scaling and whitening of a whole batch as one Keras layer."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.transforms import statistics
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.registration import PACKAGE
from asl_fast.transforms.standardize_options import StandardizeOptions
from asl_fast.transforms.tensorflow_layer import TensorFlowLayer

__all__ = ["Standardize", "center", "normalize", "samplewise", "whiten", "with_implied"]

_BATCH = 1024  # of arrays that `fit` is given whole


@keras.saving.register_keras_serializable(package=PACKAGE)
class Standardize(TensorFlowLayer):
    """Standardises images as Keras's `ImageDataGenerator` does, on the device.

    In the generator's order: `preprocessing_function`, `rescale`, samplewise centre and standard
    deviation, featurewise centre and standard deviation, ZCA whitening. Arithmetic is float32;
    the result is cast to the layer's compute dtype at the end. The featurewise options need `fit`
    first; what it finds is saved and loaded with the layer.

    As with the generator, `zca_whitening` turns `featurewise_center` on and
    `featurewise_std_normalization` off, and each normalisation turns its centring on, with a
    warning.

    Args:
        preprocessing_function: None, or a function of a batch, float32, to a batch of the same
            shape, of TensorFlow or Keras operations (as `keras.applications` have them). The
            generator calls it for single arrays; here it becomes part of the graph.
        rescale: None, or a number to multiply by.
        samplewise_center: Bool. Subtracts each image's mean.
        samplewise_std_normalization: Bool. Divides by each image's standard deviation + 1e-6.
        featurewise_center: Bool. Subtracts each channel's mean over the data set.
        featurewise_std_normalization: Bool. Divides by each channel's deviation + 1e-6.
        zca_whitening: Bool.
        zca_epsilon: Float, above 0; added to the singular values.
        data_format: "channels_last", "channels_first", or None: what Keras is set to.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        images: Numbers or bool, (n, height, width, channels), or channels first; or one image.

    Attributes:
        mean: Weight, float32 (1, 1, channels), or (channels, 1, 1) for channels first.
        std: Weight of the same shape.
        zca_whitening_matrix: Weight, float32 (d, d) for d values in an image.

    Raises:
        ValueError: A wrong option, images of another rank or dtype, or a call before `fit`.
    """

    def __init__(
        self,
        preprocessing_function: Callable[[Any], Any] | None = None,
        rescale: float | None = None,
        samplewise_center: bool = False,
        samplewise_std_normalization: bool = False,
        featurewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, trainable=False, **kwargs)
        options = StandardizeOptions(
            preprocessing_function=preprocessing_function,
            rescale=rescale,
            samplewise_center=samplewise_center,
            samplewise_std_normalization=samplewise_std_normalization,
            featurewise_center=featurewise_center,
            featurewise_std_normalization=featurewise_std_normalization,
            zca_whitening=zca_whitening,
            zca_epsilon=zca_epsilon,
            data_format=data_format or keras.config.image_data_format(),
        )
        self.options = with_implied(options)
        self.mean: Any = None
        self.std: Any = None
        self.zca_whitening_matrix: Any = None
        self.fitted: Any = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights for images of a shape (n, …)."""
        height, width, channels = self._canonical(tuple(input_shape[1:]))
        first = self.options.data_format == "channels_first"
        shape = (channels, 1, 1) if first else (1, 1, channels)
        size = height * width * channels

        def weight(name: str, shape: tuple[int, ...]) -> keras.Variable:
            return self.add_weight(
                name=name,
                shape=shape,
                initializer="zeros",
                dtype="float32",
                autocast=False,  # or a bfloat16 policy would round the statistics
                trainable=False,
            )

        options = self.options
        if options.featurewise_center:
            self.mean = weight("mean", shape)
        if options.featurewise_std_normalization:
            self.std = weight("std", shape)
        if options.zca_whitening:
            self.zca_whitening_matrix = weight("zca_whitening_matrix", (size, size))
        if options.featurewise_center:
            self.fitted = weight("fitted", ())

    def fit(
        self,
        data: Any,
        augment: RandomAugment | None = None,
        rounds: int = 1,
        seed: int | None = None,
    ) -> None:
        """Gathers mean, standard deviation and ZCA matrix over a data set, batch by batch.

        As with the generator, images are rescaled first and augmented after; the samplewise
        options and `preprocessing_function` have no part in it.

        Args:
            data: Images, (rows, height, width, channels), or anything that yields batches of them
                or tuples that begin with them, a `tf.data.Dataset` for example, of any length;
                with several rounds it must start anew each time.
            augment: What to augment the images with, or None.
            rounds: Int, at least 1: passes over the data, each augmented anew.
            seed: Int in [0, 2**32), in place of the augmentation's own.

        Raises:
            ValueError: No images (in any round), a wrong rank, or `rounds` below 1.
        """
        if rounds < 1:
            raise ValueError(f"`rounds` must be at least 1. Received: {rounds!r}")
        if augment is not None:
            # A copy: under a bfloat16 policy the layer given would round the pixels.
            config = {**augment.get_config(), "dtype": "float32"}
            augment = RandomAugment.from_config(config if seed is None else config | {"seed": seed})
        sums: Any = None
        shape = (0, 0, 0)
        for epoch in range(rounds if augment is not None else 1):
            seen = 0
            for images in _batches(data):
                images = tf.cast(images, tf.float32)
                if images.shape.rank != 4:
                    raise ValueError(
                        f"`data` must be images of rank 4. Received: {tuple(images.shape)}"
                    )
                if self.options.rescale is not None:
                    images *= self.options.rescale
                if augment is not None:
                    samples = tf.range(seen, seen + len(images), dtype=tf.int64)
                    images = augment(images, samples=samples, epoch=epoch, training=True)
                if self.options.data_format == "channels_first":
                    images = tf.transpose(images, [0, 2, 3, 1])
                if sums is None:
                    shape = tuple(images.shape[1:])
                    sums = statistics.zeros(shape, products=self.options.zca_whitening)
                sums = statistics.update(sums, images)
                seen += len(images)
            if not seen:
                raise ValueError(
                    f"`data` must hold at least one image. Received: none in round {epoch + 1}"
                )
        self._take(sums, shape)

    def _take(self, sums: statistics.Sums, shape: tuple[int, int, int]) -> None:
        options = self.options
        if options.featurewise_center and self.mean is None:
            first = options.data_format == "channels_first"
            self.build((None, shape[2], *shape[:2]) if first else (None, *shape))
        if options.featurewise_center:
            self.mean.assign(tf.reshape(statistics.mean(sums, shape), self.mean.shape))
            self.fitted.assign(1.0)
        if options.featurewise_std_normalization:
            self.std.assign(tf.reshape(statistics.std(sums, shape), self.std.shape))
        if options.zca_whitening:
            self.zca_whitening_matrix.assign(
                statistics.zca_matrix(sums, shape, options.zca_epsilon)
            )

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Standardises a batch; see the class."""
        options = self.options
        images = tf.convert_to_tensor(images)
        if images.shape.rank == 3:
            return self.call(images[None])[0]
        if images.shape.rank != 4:
            raise ValueError(
                f"`images` must be a batch of rank 4, or one image. Received: {images.shape}"
            )
        if not (images.dtype.is_integer or images.dtype.is_bool or images.dtype.is_floating):
            raise ValueError(f"`images` must be numbers. Received: {images.dtype.name}")
        if options.featurewise_center:
            with tf.init_scope():  # the value now, also while a graph is traced
                if self.fitted is None or not float(self.fitted):
                    raise ValueError("`Standardize` has no statistics yet: call `fit` first")
        x = tf.cast(images, tf.float32)
        if options.preprocessing_function is not None:
            x = options.preprocessing_function(x)
        x = samplewise(options, x)
        if options.featurewise_center:
            x = center(x, tf.convert_to_tensor(self.mean))
        if options.featurewise_std_normalization:
            x = normalize(x, tf.convert_to_tensor(self.std))
        if options.zca_whitening:
            x = whiten(x, tf.convert_to_tensor(self.zca_whitening_matrix))
        return tf.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to build the layer anew, the statistics apart."""
        config = {f.name: getattr(self.options, f.name) for f in dataclasses.fields(self.options)}
        function = config["preprocessing_function"]
        if function is not None:
            config["preprocessing_function"] = keras.saving.serialize_keras_object(function)
        # `trainable` is not an option here, and Keras's own config holds it.
        base = {name: value for name, value in super().get_config().items() if name != "trainable"}
        return {**base, **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Standardize":
        """Builds the layer from what `get_config` returned."""
        function = config["preprocessing_function"]
        if function is not None and not callable(function):
            function = keras.saving.deserialize_keras_object(function)
        return cls(**{**config, "preprocessing_function": function})

    def _canonical(self, shape: tuple[int | None, ...]) -> tuple[int, int, int]:
        """Returns height, width and channels."""
        if self.options.data_format == "channels_first":
            shape = (*shape[1:], shape[0])
        if self.options.zca_whitening and None in shape:
            raise ValueError(f"`zca_whitening` needs images of a fixed size. Received: {shape}")
        height, width, channels = shape
        return height or 0, width or 0, channels or 0


def samplewise(options: StandardizeOptions, images: tf.Tensor) -> tf.Tensor:
    """Rescales a batch, float32 of rank 4, and standardises each image by itself."""
    if options.rescale is not None:
        images *= options.rescale
    if options.samplewise_center:
        images -= tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    if options.samplewise_std_normalization:
        images /= tf.math.reduce_std(images, axis=[1, 2, 3], keepdims=True) + 1e-6
    return images


def center(images: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    """Subtracts a mean that broadcasts against a batch."""
    return images - mean


def normalize(images: tf.Tensor, std: tf.Tensor) -> tf.Tensor:
    """Divides a batch by a standard deviation that broadcasts against it, and 1e-6 more."""
    return images / (std + 1e-6)


def whiten(images: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Multiplies each image of a batch, flattened to d values, by a (d, d) matrix."""
    flat = tf.reshape(images, [-1, tf.shape(matrix)[0]])
    return tf.reshape(tf.matmul(flat, matrix), tf.shape(images))


def with_implied(options: StandardizeOptions) -> StandardizeOptions:
    """Returns the options with those on and off that others imply, each with a warning."""
    implied: dict[str, bool] = {}
    if options.zca_whitening:
        implied = {"featurewise_center": True, "featurewise_std_normalization": False}
        because = "zca_whitening"
    elif options.featurewise_std_normalization:
        implied, because = {"featurewise_center": True}, "featurewise_std_normalization"
    for name, value in implied.items():
        if getattr(options, name) != value:
            warnings.warn(f"`{because}` sets `{name}={value}`.", stacklevel=3)
    if options.samplewise_std_normalization and not options.samplewise_center:
        implied["samplewise_center"] = True
        warnings.warn("`samplewise_std_normalization` sets `samplewise_center=True`.", stacklevel=3)
    return dataclasses.replace(options, **implied)  # type: ignore[arg-type]


def _batches(data: Any) -> Iterator[Any]:
    if isinstance(data, np.ndarray | tf.Tensor):
        for begin in range(0, len(data), _BATCH):
            yield tf.convert_to_tensor(data[begin : begin + _BATCH])
    else:
        batches: Iterable[Any] = data
        for batch in batches:
            yield tf.convert_to_tensor(batch[0] if isinstance(batch, tuple | list) else batch)

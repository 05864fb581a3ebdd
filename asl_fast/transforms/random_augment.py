"""`RandomAugment`: the random augmentation of a whole batch as one Keras layer."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from asl_fast.system.private_api import silence_retracing_warning
from asl_fast.transforms import affine, photometric
from asl_fast.transforms.options import AugmentOptions, Shift
from asl_fast.transforms.parameters import Parameters, draw
from asl_fast.transforms.warp import warp

__all__ = ["RandomAugment", "forget_programs"]


@keras.saving.register_keras_serializable(package="asl_fast")
class RandomAugment(keras.layers.Layer):
    """Augments each image of a batch at random, on the device.

    The options are those of Keras's `ImageDataGenerator`; `AugmentOptions` describes their
    ranges. Rotation, shifts, shear, zoom and flips compose into one matrix an image, so pixels
    are interpolated once, then come channel shift and brightness: one XLA program, whatever
    surrounds the layer. Arithmetic is float32 from the stored pixels on; the result is cast to
    the layer's compute dtype at the end. With `training=False` the pixels stay as they are.

    What happens to an image depends on `seed`, `epoch` and the image's number in the data set
    alone. Called without `samples`, as inside `keras.Sequential`, the layer counts its calls in
    the epoch's place and numbers the images within the batch.

    Args:
        rotation_range: Float, degrees, at least 0.
        width_shift_range: Float (below 1 a fraction of the width, from 1 on pixels), int (whole
            pixels below it) or 1-D array (one of its values, with a random sign).
        height_shift_range: As `width_shift_range`, along the rows.
        brightness_range: None, or a pair of factors `(lower, upper)`.
        shear_range: Float, degrees, at least 0.
        zoom_range: Float `z` in [0, 1) for `(1 - z, 1 + z)`, or the pair.
        channel_shift_range: Float, at least 0, in the units of the pixels.
        fill_mode: "constant", "nearest", "reflect" or "wrap".
        cval: Float, what lies beyond the border for "constant".
        horizontal_flip: Bool.
        vertical_flip: Bool.
        interpolation_order: Int, 0 to 5.
        data_format: "channels_last" or "channels_first".
        quirks: Bool. True does as Keras's generator, False as its documentation says.
        value_range: Pair of floats, the range of the pixels, which brightness keeps to.
        then: Keras layers (Keras's own, KerasCV's or yours) to apply afterwards, in training. They
            get what the layer returns, in the same form: images, or a dictionary of `images` and
            `labels` where labels were given.
        seed: Int in [0, 2**32).
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        images: uint8 or floating, (n, height, width, channels), or (n, channels, height, width)
            for "channels_first".
        samples: Integers of shape (n,), or None: the images' numbers in the data set.
        epoch: Integer scalar, or None; goes with `samples`.
        labels: Tensor of shape (n, classes), or None: for the layers in `then` that mix images.
        training: Bool.

    Returns:
        The images, of the same shape, in the layer's compute dtype and in the range of the input;
        a pair of images and labels where labels were given.

    Raises:
        ValueError: A wrong option, or images of another rank, dtype or channel count.
    """

    def __init__(
        self,
        rotation_range: float = 0.0,
        width_shift_range: Shift = 0.0,
        height_shift_range: Shift = 0.0,
        brightness_range: tuple[float, float] | None = None,
        shear_range: float = 0.0,
        zoom_range: float | tuple[float, float] = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        interpolation_order: int = 1,
        data_format: str = "channels_last",
        quirks: bool = False,
        value_range: tuple[float, float] = (0.0, 255.0),
        then: Sequence[keras.layers.Layer] = (),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        # Keras would cast pixels to the compute dtype first; near 200 a bfloat16 step is 1.0.
        super().__init__(autocast=False, **kwargs)
        self.options = AugmentOptions(
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
            interpolation_order=interpolation_order,
            data_format=data_format,
            quirks=quirks,
            value_range=value_range,
        )
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"`seed` must be an int in [0, 2**32). Received: {seed!r}")
        self.seed = seed
        self.then = list(then)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def draw(
        self,
        images: tf.Tensor,
        samples: tf.Tensor | None = None,
        epoch: tf.Tensor | None = None,
    ) -> Parameters:
        """Draws the parameters that a call would draw.

        Args:
            images: A batch, or one image; only their shape matters.
            samples: As for a call; for one image an integer.
            epoch: As for a call.

        Returns:
            `Parameters` of tensors of shape (n,), or of scalars for one image.
        """
        images = self._checked(images)
        key, numbers = self._stream(images, samples, epoch)
        height, width, _ = self._image_shape(images)
        drawn = _drawing(self.options, height, width)(key, numbers)
        if images.shape.rank == 4:
            return drawn
        return drawn.map(lambda values: values[0])

    def apply(self, images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        """Applies parameters to images; the layers in `then` have no part in it.

        Args:
            images: A batch, or one image.
            parameters: As `draw` gives them, or made by hand: floats of shape (n,), scalars for
                one image.

        Returns:
            The images in the layer's compute dtype.
        """
        images = self._checked(images)
        parameters = parameters.map(lambda v: tf.reshape(tf.cast(v, tf.float32), [-1]))
        batch = images if images.shape.rank == 4 else images[None]
        program = _applying(self.options, tuple(batch.shape[1:]), batch.dtype)
        result = tf.cast(program(batch, parameters), self.compute_dtype)
        return result if images.shape.rank == 4 else result[0]

    def call(
        self,
        images: tf.Tensor,
        samples: tf.Tensor | None = None,
        epoch: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """Augments a batch; see the class."""
        images = self._checked(images)
        if images.shape.rank != 4:
            raise ValueError(f"`images` must be a batch, of rank 4. Received: {images.shape}")
        if training:
            key, numbers = self._stream(images, samples, epoch)
            program = _program(self.options, tuple(images.shape[1:]), images.dtype)
            images = tf.cast(program(images, key, numbers), self.compute_dtype)
            for layer in self.then:
                if labels is None:
                    images = layer(images, training=True)
                else:
                    mixed = layer({"images": images, "labels": labels}, training=True)
                    images, labels = mixed["images"], mixed["labels"]
        images = tf.cast(images, self.compute_dtype)
        return images if labels is None else (images, labels)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to build the layer anew."""
        return {
            **super().get_config(),
            **dataclasses.asdict(self.options),
            "then": [keras.saving.serialize_keras_object(layer) for layer in self.then],
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RandomAugment":
        """Builds the layer from what `get_config` returned."""
        then = [keras.saving.deserialize_keras_object(layer) for layer in config["then"]]
        return cls(**{**config, "then": then})

    def _image_shape(self, images: tf.Tensor) -> tuple[int, int, int]:
        first, second, third = images.shape[-3:]
        if self.options.data_format == "channels_first":
            return second, third, first
        return first, second, third

    def _checked(self, images: tf.Tensor) -> tf.Tensor:
        images = tf.convert_to_tensor(images)
        if images.shape.rank not in (3, 4):
            raise ValueError(
                "`images` must have the shape (n, height, width, channels), or channels first as "
                f"`data_format` says. Received: {images.shape}"
            )
        if images.dtype != tf.uint8 and not images.dtype.is_floating:
            raise ValueError(f"`images` must be uint8 or floating. Received: {images.dtype.name}")
        channels = self._image_shape(images)[2]
        if self.options.brightness_range and self.options.quirks and channels not in (1, 3, 4):
            raise ValueError(
                "`images` must have 1, 3 or 4 channels for `brightness_range` with `quirks`, as "
                f"for PIL. Received: {channels} channels"
            )
        return images

    def _stream(
        self, images: tf.Tensor, samples: tf.Tensor | None, epoch: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the key and the counters to draw with."""
        if samples is None:
            key = tf.cast(self.seed_generator.next(), tf.uint32)
            count = tf.shape(images, tf.int64)[0] if images.shape.rank == 4 else 1
            return key, tf.range(count, dtype=tf.int64)
        epoch = tf.cast(0 if epoch is None else epoch, tf.uint32)
        key = tf.stack([tf.constant(self.seed, tf.uint32), epoch])
        return key, tf.reshape(tf.cast(samples, tf.int64), [-1])


def _apply(options: AugmentOptions, images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
    """Applies parameters to a batch: (n, …) of any dtype to float32."""
    first = options.data_format == "channels_first"
    if first:
        images = tf.transpose(images, [0, 2, 3, 1])
    _, height, width, _ = images.shape
    pixels = warp(
        images,
        affine.output_to_input(parameters, height, width, quirks=options.quirks),
        interpolation_order=options.interpolation_order,
        fill_mode=options.fill_mode,
        cval=options.cval,
    )
    if parameters.channel_shift_intensity is not None:
        pixels = photometric.shift_channels(pixels, parameters.channel_shift_intensity)
    if parameters.brightness is not None and options.quirks:
        pixels = photometric.brighten_as_pil(pixels, parameters.brightness)
    elif parameters.brightness is not None:
        pixels = photometric.brighten(pixels, parameters.brightness, options.value_range)
    return tf.transpose(pixels, [0, 3, 1, 2]) if first else pixels


def forget_programs() -> None:
    """Drops the compiled programs; they are made anew when they are needed."""
    for programs in (_drawing, _applying, _program):
        programs.cache_clear()


_compiled = functools.partial(tf.function, jit_compile=True, autograph=False, reduce_retracing=True)


@functools.lru_cache(maxsize=64)
def _drawing(options: AugmentOptions, height: int, width: int) -> Callable[..., Parameters]:
    return _compiled(lambda key, samples: draw(options, key, samples, height, width))


@functools.lru_cache(maxsize=64)
def _applying(
    options: AugmentOptions, image_shape: tuple[int, int, int], dtype: tf.DType
) -> Callable[..., tf.Tensor]:
    return _compiled(lambda images, parameters: _apply(options, images, parameters))


@functools.lru_cache(maxsize=64)
def _program(
    options: AugmentOptions, image_shape: tuple[int, int, int], dtype: tf.DType
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Compiles the augmentation for one kind of image: (images, key, samples) -> float32."""
    channels_first = options.data_format == "channels_first"
    height, width = image_shape[1:] if channels_first else image_shape[:2]

    def augment(images: tf.Tensor, key: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        return _apply(options, images, draw(options, key, samples, height, width))

    program = tf.function(
        augment,
        input_signature=[
            tf.TensorSpec([None, *image_shape], dtype),
            tf.TensorSpec([2], tf.uint32),
            tf.TensorSpec([None], tf.int64),
        ],
        jit_compile=True,
        autograph=False,
    )
    # TensorFlow counts tracings by code, so five layers look to it like one traced too often.
    silence_retracing_warning(program)
    return program

"""`RandomAugment`: the random augmentation of a whole batch as one Keras layer."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from asl_fast.transforms import augmentation
from asl_fast.transforms.augment_options import AugmentOptions, options_text, signature
from asl_fast.transforms.transform import Parameters

__all__ = ["RandomAugment", "forget_programs"]


_OPTIONS = {field.name for field in dataclasses.fields(AugmentOptions)}


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
        {options}
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
        self, *, then: Sequence[keras.layers.Layer] = (), seed: int = 0, **kwargs: Any
    ) -> None:
        options = {name: kwargs.pop(name) for name in _OPTIONS & set(kwargs)}
        # Keras would cast pixels to the compute dtype first; near 200 a bfloat16 step is 1.0.
        super().__init__(autocast=False, **kwargs)
        self.options = AugmentOptions(**options)
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
    ) -> dict[str, tf.Tensor]:
        """Draws the parameters that a call would draw.

        Args:
            images: A batch, or one image; only their shape matters.
            samples: As for a call; for one image an integer.
            epoch: As for a call.

        Returns:
            The parameters of what is on, by the names that Keras's `apply_transform` has for them:
            tensors of shape (n,), or scalars for one image.
        """
        images = self._checked(images)
        key, numbers = self._stream(images, samples, epoch)
        height, width, _ = self._image_shape(images)
        drawn = _drawing(self.options, height, width)(key, numbers)
        return drawn if images.shape.rank == 4 else {name: v[0] for name, v in drawn.items()}

    def apply(self, images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        """Applies parameters to images; the layers in `then` have no part in it.

        Args:
            images: A batch, or one image.
            parameters: As `draw` returns them, or made by hand: floats of shape (n,), scalars for
                one image. A transform without any is left out.

        Returns:
            The images in the layer's compute dtype.
        """
        images = self._checked(images)
        unknown = set(parameters) - set(augmentation.PARAMETERS)
        if unknown:
            raise ValueError(
                f"`parameters` must be among {', '.join(augmentation.PARAMETERS)}. "
                f"Received: {min(unknown)!r}"
            )
        batch = images if images.shape.rank == 4 else images[None]
        parameters = {
            name: tf.broadcast_to(
                tf.reshape(tf.cast(values, tf.float32), [-1]), [tf.shape(batch)[0]]
            )
            for name, values in parameters.items()
            if values is not None
        }
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


RandomAugment.__doc__ = (RandomAugment.__doc__ or "").replace("{options}", options_text(8))
_plain = inspect.signature(RandomAugment)
RandomAugment.__signature__ = _plain.replace(
    parameters=sorted(
        [*_plain.parameters.values(), *signature()],
        key=lambda parameter: parameter.kind,
    )
)


def forget_programs() -> None:
    """Drops the compiled programs; they are made anew when they are needed."""
    for programs in (_drawing, _applying, _program):
        programs.cache_clear()


_compiled = functools.partial(tf.function, jit_compile=True, autograph=False, reduce_retracing=True)


@functools.lru_cache(maxsize=64)
def _drawing(
    options: AugmentOptions, height: int, width: int
) -> Callable[..., dict[str, tf.Tensor]]:
    return _compiled(lambda key, samples: augmentation.draw(options, key, samples, height, width))


@functools.lru_cache(maxsize=64)
def _applying(
    options: AugmentOptions, image_shape: tuple[int, int, int], dtype: tf.DType
) -> Callable[..., tf.Tensor]:
    return _compiled(lambda images, parameters: augmentation.apply(options, images, parameters))


@functools.lru_cache(maxsize=64)
def _program(
    options: AugmentOptions, image_shape: tuple[int, int, int], dtype: tf.DType
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Compiles the augmentation for one kind of image: (images, key, samples) -> float32."""
    channels_first = options.data_format == "channels_first"
    height, width = image_shape[1:] if channels_first else image_shape[:2]

    def augment(images: tf.Tensor, key: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        parameters = augmentation.draw(options, key, samples, height, width)
        return augmentation.apply(options, images, parameters)

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
    program._omit_frequent_tracing_warning = True
    return program

"""`RandomAugment`: the random augmentation of a whole batch as one Keras layer."""

import dataclasses
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from asl_fast.system.private_api import silence_retracing_warning
from asl_fast.transforms import annotations, augmentation
from asl_fast.transforms.augment_options import AugmentOptions, options_text, signature
from asl_fast.transforms.checks import check, check_choice, finite, is_seed, plain
from asl_fast.transforms.fill_modes import FILL_MODES
from asl_fast.transforms.registration import PACKAGE
from asl_fast.transforms.tensorflow_layer import CallCounter, TensorFlowLayer
from asl_fast.transforms.transform import Parameters, Side, image_shape

__all__ = ["RandomAugment"]


_MOVED = {"images", "labels", "segmentation_masks", "bounding_boxes", "keypoints"}
_OPTIONS = {field.name for field in dataclasses.fields(AugmentOptions)}


@keras.saving.register_keras_serializable(package=PACKAGE)
class RandomAugment(TensorFlowLayer):
    """Augments each image of a batch at random, on the device.

    The options are those of Keras's `ImageDataGenerator`; `AugmentOptions` describes their
    ranges. Rotation, shifts, shear, zoom and flips compose into one matrix an image, so pixels
    are interpolated once, then come channel shift and brightness: one XLA program, whatever
    surrounds the layer. Arithmetic is float32 from the stored pixels on; the result is cast to
    the layer's compute dtype at the end. With `training=False` the pixels stay as they are.

    What happens to an image depends on `seed`, `epoch` and the image's index in the data set
    alone. Called without `samples`, as inside `keras.Sequential`, the layer counts its calls in
    the epoch's place and its images within the batch.

    Args:
        {options}
        then: Keras layers (Keras's own, KerasCV's or yours) to apply afterwards, in training. They
            get what the layer returns, in the same form: images, or a dictionary of `images` and
            `labels` where labels were given.
        bounding_box_format: Keras's name of the format that boxes come in, as "xyxy"; None where
            there are none.
        mask_fill_mode: Fill mode of segmentation masks; None: that of the images.
        mask_cval: Number, what masks hold beyond the border for "constant".
        seed: Int in [0, 2**32); None draws one.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        images: Numbers or bool, (n, height, width, channels), or (n, channels, height, width) for
            "channels_first"; or one image. Or Keras's dictionary: `images`, and any of `labels`,
            `segmentation_masks` (n, height, width) or with a last axis of channels,
            `bounding_boxes` (a dictionary of `boxes` and `labels`) and `keypoints` (n, m, 2), x and
            y in the coordinates of `xyxy` boxes. All move by the one draw: masks by the nearest
            pixel, boxes and points by the matrix and clipped to the image; channel shift,
            brightness and erasing change images alone.
        samples: Integers of shape (n,), or None: the images' indices in the data set.
        epoch: Integer scalar, or None; goes with `samples`.
        labels: Tensor of shape (n, classes), or None: for the layers in `then` that mix images.
        training: Bool.

    Returns:
        The images, of the same shape, in the layer's compute dtype and in the range of the input;
        a pair of images and labels where `labels` was given; a dictionary where one was given.

    Raises:
        ValueError: A wrong option, or images of another rank, dtype or channel count.
    """

    def __init__(
        self,
        *,
        then: Sequence[keras.layers.Layer] = (),
        bounding_box_format: str | None = None,
        mask_fill_mode: str | None = None,
        mask_cval: float = 0.0,
        seed: int | None = 0,
        **kwargs: Any,
    ) -> None:
        options = {name: kwargs.pop(name) for name in _OPTIONS & set(kwargs)}
        if options.get("data_format") is None:
            options["data_format"] = keras.config.image_data_format()
        # Keras would cast pixels to the compute dtype first; near 200 a bfloat16 step is 1.0.
        super().__init__(autocast=False, **kwargs)
        self.options = AugmentOptions(**options)
        self.bounding_box_format = bounding_box_format
        self.mask_fill_mode = mask_fill_mode
        self.mask_cval = mask_cval
        if mask_fill_mode is not None:
            check_choice("mask_fill_mode", mask_fill_mode, FILL_MODES)
        check("mask_cval", "a finite number", mask_cval, finite(mask_cval))
        self.seed = _seed(seed)
        self.then = list(then)
        of_keras = keras.config.backend() == "tensorflow"
        counter = keras.random.SeedGenerator if of_keras else CallCounter
        self.seed_generator = counter(self.seed)

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
        height, width = _sides(self.options, images)
        drawn = _drawn(self.options, key, numbers, height, width)
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
        pixels = tf.cast(self._applied(batch, parameters), self.compute_dtype)
        return pixels if images.shape.rank == 4 else pixels[0]

    def build(self, input_shape: Any) -> None:
        """Makes nothing: the layers in `then` are built when they are called."""

    def call(
        self,
        images: Any,
        samples: tf.Tensor | None = None,
        epoch: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        training: bool = False,
    ) -> Any:
        """Augments a batch; see the class."""
        if isinstance(images, Mapping):
            return self._call_dictionary(images, samples, epoch, training)
        images = self._checked(images)
        batch = images if images.shape.rank == 4 else images[None]
        if training:
            key, indices = self._stream(images, samples, epoch)
            program = _program(self.options, tuple(batch.shape[1:]), batch.dtype)
            batch = tf.cast(program(batch, key, indices), self.compute_dtype)
            for layer in self.then:
                if labels is None:
                    batch = layer(batch, training=True)
                else:
                    mixed = layer({"images": batch, "labels": labels}, training=True)
                    batch, labels = mixed["images"], mixed["labels"]
        batch = tf.cast(batch, self.compute_dtype)
        pixels = batch if images.shape.rank == 4 else batch[0]
        return pixels if labels is None else (pixels, labels)

    def _call_dictionary(
        self,
        data: Mapping[str, Any],
        samples: tf.Tensor | None,
        epoch: tf.Tensor | None,
        training: bool,
    ) -> dict[str, Any]:
        """Augments images and moves what belongs to them."""
        if "images" not in data:
            raise ValueError(f"A dictionary must hold `images`. Received: {sorted(data)}")
        unknown = set(data) - _MOVED
        if unknown:
            raise ValueError(
                f"A dictionary may hold {', '.join(sorted(_MOVED))}. Received: {min(unknown)!r}"
            )
        if "bounding_boxes" in data and self.bounding_box_format is None:
            raise ValueError(
                "`bounding_box_format` must be given where a dictionary holds `bounding_boxes`, as "
                '"xyxy"'
            )
        result = dict(data)
        images = self._checked(data["images"])
        if not training:
            return result | {"images": tf.cast(images, self.compute_dtype)}
        one = images.shape.rank == 3
        if one:
            result = tf.nest.map_structure(lambda value: tf.convert_to_tensor(value)[None], result)
        batch = self._checked(result["images"])
        key, indices = self._stream(batch, samples, epoch)
        height, width = _sides(self.options, batch)
        parameters = _drawn(self.options, key, indices, height, width)
        result["images"] = tf.cast(self._applied(batch, parameters), self.compute_dtype)
        matrices = augmentation.output_to_input(
            self.options, parameters, height, width, tf.shape(batch)[0]
        )
        if matrices is not None:
            self._move(result, matrices, height, width)
        for layer in self.then:
            result = layer(result, training=True)
        return tf.nest.map_structure(lambda value: value[0], result) if one else result

    def _move(self, data: dict[str, Any], matrices: tf.Tensor, height: Side, width: Side) -> None:
        if "segmentation_masks" in data:
            data["segmentation_masks"] = annotations.move_masks(
                tf.convert_to_tensor(data["segmentation_masks"]),
                matrices,
                fill_mode=self.mask_fill_mode or self.options.fill_mode,
                cval=self.mask_cval,
            )
        if "bounding_boxes" in data:
            assert self.bounding_box_format is not None
            data["bounding_boxes"] = annotations.move_boxes(
                data["bounding_boxes"],
                matrices,
                height=height,
                width=width,
                box_format=self.bounding_box_format,
            )
        if "keypoints" in data:
            data["keypoints"] = annotations.move_points(
                data["keypoints"], matrices, height=height, width=width
            )

    def _applied(self, batch: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        count = [tf.shape(batch)[0]]
        parameters = {
            name: tf.broadcast_to(tf.reshape(tf.cast(values, tf.float32), [-1]), count)
            for name, values in parameters.items()
            if values is not None
        }
        shape = tuple(batch.shape[1:])
        program = _kept(
            _applying,
            self.options,
            shape,
            batch.dtype,
            jit_compile=None not in shape,
            reduce_retracing=True,
        )
        return program(batch, parameters)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to build the layer anew."""
        return {
            **super().get_config(),
            **dataclasses.asdict(self.options),
            "then": [keras.saving.serialize_keras_object(layer) for layer in self.then],
            "bounding_box_format": self.bounding_box_format,
            "mask_fill_mode": self.mask_fill_mode,
            "mask_cval": self.mask_cval,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RandomAugment":
        """Builds the layer from what `get_config` returned."""
        then = [keras.saving.deserialize_keras_object(layer) for layer in config["then"]]
        return cls(**{**config, "then": then})

    def _checked(self, images: tf.Tensor) -> tf.Tensor:
        images = tf.convert_to_tensor(images)
        if images.shape.rank not in (3, 4):
            raise ValueError(
                "`images` must have the shape (n, height, width, channels), or channels first as "
                f"`data_format` says. Received: {images.shape}"
            )
        if images.dtype.is_integer or images.dtype.is_bool:
            # Other integers would be gathered by kernels that not every device has.
            return images if images.dtype == tf.uint8 else tf.cast(images, tf.float32)
        if not images.dtype.is_floating:
            raise ValueError(f"`images` must be numbers. Received: {images.dtype.name}")
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


def _seed(seed: Any) -> int:
    seed = plain(seed)
    check("seed", "an int in [0, 2**32) or None", seed, is_seed(seed))
    return random.randrange(2**32) if seed is None else seed


RandomAugment.__doc__ = (RandomAugment.__doc__ or "").replace("{options}", options_text(8))
_plain = inspect.signature(RandomAugment)
RandomAugment.__signature__ = _plain.replace(
    parameters=sorted(
        [*_plain.parameters.values(), *signature()],
        key=lambda parameter: parameter.kind,
    )
)


# XLA never gives back the memory of a program, 5 MiB each: so many are compiled for eager calls.
_MOST = 24
_programs: dict[Any, Any] = {}


def _kept(make: Callable[..., Callable[..., Any]], *what: Any, **options: Any) -> Any:
    """Returns the compiled program `make(*what)`, or for eager calls beyond `_MOST` it as it is."""
    key = make, what
    if key not in _programs:
        function = make(*what)
        if len(_programs) >= _MOST and tf.executing_eagerly():
            return function
        _programs[key] = tf.function(function, autograph=False, **options)
        # TensorFlow counts tracings by code, so five layers look to it like one traced too often.
        silence_retracing_warning(_programs[key])
    return _programs[key]


def _sides(options: AugmentOptions, images: tf.Tensor) -> tuple[Side, Side]:
    """Returns height and width."""
    sides = image_shape(images)
    return sides[1:] if options.data_format == "channels_first" else sides[:2]


def _drawn(
    options: AugmentOptions, key: tf.Tensor, indices: tf.Tensor, height: Side, width: Side
) -> dict[str, tf.Tensor]:
    if not (isinstance(height, int) and isinstance(width, int)):
        return augmentation.draw(options, key, indices, height, width)
    program = _kept(_drawing, options, height, width, jit_compile=True, reduce_retracing=True)
    return program(key, indices)


def _drawing(
    options: AugmentOptions, height: int, width: int
) -> Callable[..., dict[str, tf.Tensor]]:
    def draw(key: tf.Tensor, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        return augmentation.draw(options, key, indices, height, width)

    return draw


def _applying(
    options: AugmentOptions, shape: tuple[int | None, ...], dtype: tf.DType
) -> Callable[..., tf.Tensor]:
    def apply(images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        return augmentation.apply(options, images, parameters)

    return apply


def _augmenting(
    options: AugmentOptions, shape: tuple[int | None, ...], dtype: tf.DType
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    def augment(images: tf.Tensor, key: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        height, width = _sides(options, images)
        parameters = augmentation.draw(options, key, samples, height, width)
        return augmentation.apply(options, images, parameters)

    return augment


def _program(
    options: AugmentOptions, shape: tuple[int | None, ...], dtype: tf.DType
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Compiles the augmentation for one kind of image: (images, key, samples) -> float32.

    Images of unknown sides get a program that is not compiled by XLA, which would compile one for
    each size that comes.
    """
    return _kept(
        _augmenting,
        options,
        shape,
        dtype,
        input_signature=[
            tf.TensorSpec([None, *shape], dtype),
            tf.TensorSpec([2], tf.uint32),
            tf.TensorSpec([None], tf.int64),
        ],
        jit_compile=None not in shape,
    )

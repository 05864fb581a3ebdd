"""What the training step does to a batch first: images augmented and standardised, targets moved.

Which inputs are images is told by their rank, dtype and channels; what these leave open is refused,
and must be told for each input.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data.pipeline import Batch
from asl_fast.generator.image_data_generator import ImageDataGenerator
from asl_fast.training.targets import mixable_labels, mixing_layer
from asl_fast.transforms import annotations, augmentation
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize import Standardize

__all__ = ["TARGETS", "Augmentation", "Preprocessing", "repacked"]

Augmentation = RandomAugment | AugmentOptions | ImageDataGenerator | None

TARGETS = ("masks", "images", "as they are")

# More channels than these are features, say those of another network, or a mistake.
_CHANNELS = 4


def repacked(data: Any, *parts: Any) -> Any:
    """Returns (x, y, weights) in the structure of the data that they were unpacked from."""
    if not isinstance(data, tuple):
        return parts[0]
    parts = parts[: len(data)]
    return type(data)(*parts) if hasattr(data, "_fields") else parts


class Preprocessing:
    """Augments and standardises stored images.

    Args:
        model: Compiled.
        augment: What `fit` was given: for all images, or a list or dictionary with a value for each
            input.
        standardize: The same, of `Standardize`.
        seed: Int in [0, 2**32), of augmentations that have none.
        targets: One of `TARGETS`, a list or dictionary of them for each target, or None.

    Attributes:
        augments: Bool, whether images are changed at random.
        standardizes: Bool, whether a standardisation was given.

    Raises:
        ValueError: Arguments that don't go together; names them.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        augment: Any = None,
        standardize: Any = None,
        seed: int = 0,
        targets: Any = None,
    ) -> None:
        if any(isinstance(part, ImageDataGenerator) for part in _parts(augment)):
            if standardize is not None:
                raise ValueError(
                    "`standardize` must be None where `augment` is an ImageDataGenerator, which "
                    "standardises too"
                )
            standardize = _each(lambda part: getattr(part, "standardized", None), augment)
        elif not all(isinstance(part, Standardize | None) for part in _parts(standardize)):
            raise _wrong("standardize", "a `Standardize` layer", standardize)
        for part in _parts(targets):
            if part is not None and part not in TARGETS:
                raise _wrong("targets", ", ".join(map(repr, TARGETS)), targets)
        self._augment = _each(lambda part: _layer(part, seed), augment)
        self._standardize, self._targets = standardize, targets
        layers = [layer for layer in _parts(self._augment) if layer is not None]
        self.augments = any(not layer.options.idle or layer.then for layer in layers)
        self.standardizes = any(part is not None for part in _parts(standardize))
        self._changes = self.augments or self.standardizes
        behind = [behind for layer in layers for behind in layer.then]
        self._mixable, self._mixer = mixable_labels(model, behind), mixing_layer(behind)

    def prepare(self, batch: Batch) -> Any:
        """Augments and standardises a batch; returns its data in their own structure."""
        data = batch.data
        if not self._changes:
            return data
        x, y, weights = _unpacked(data)
        leaves = tf.nest.flatten(x)
        augments, standards = self._options_of(x)
        if self.augments:
            y, weights = self._moved(y, weights, leaves, augments, standards, batch)
            leaves, y = self._augmented(leaves, augments, y, batch)
        elif self._targets is not None:
            y = self._standardized_targets(y, standards)
        leaves = [_standardized(leaf, s) for leaf, s in zip(leaves, standards, strict=True)]
        return repacked(data, tf.nest.pack_sequence_as(x, leaves), y, weights)

    def standardized(self, data: Any) -> Any:
        """Standardises validation data, in any structure that `prepare` takes."""
        if not self._changes:
            return data
        x, y, weights = _unpacked(data)
        _, standards = self._options_of(x)
        leaves = map(_standardized, tf.nest.flatten(x), standards)
        y = self._standardized_targets(y, standards)
        return repacked(data, tf.nest.pack_sequence_as(x, list(leaves)), y, weights)

    def _options_of(self, x: Any) -> tuple[list[Any], list[Any]]:
        """Returns the augmentation and the standardisation of each value of x, or None."""
        leaves = tf.nest.flatten(x)
        shared = [given for given in (self._augment, self._standardize) if not _is_each(given)]
        images = _images(leaves) if any(given is not None for given in shared) else leaves
        found = []
        for name, given in (("augment", self._augment), ("standardize", self._standardize)):
            told = _is_each(given)
            options = _assigned(name, given, x)
            for place, leaf in enumerate(leaves):
                if not told and not _among(leaf, images):
                    options[place] = None
                elif options[place] is not None and leaf.shape.rank != 4:
                    raise _no_image(leaf)
            if name == "augment" and not told and self.augments and len(images) > 1:
                raise ValueError(
                    f"`augment` must be given for each input where `x` holds {len(images)} images: "
                    "a list or dictionary as `x` is one, with the same value twice to move them "
                    "alike, or with values of other seeds to move each by itself"
                )
            found.append(options)
        return found[0], found[1]

    def _augmented(
        self, leaves: list[Any], augments: list[Any], y: Any, batch: Batch
    ) -> tuple[list[Any], Any]:
        if self._mixer and len(leaves) > 1:
            raise ValueError(
                f"`{self._mixer}` in `then` mixes the images of a batch, and can't mix the other "
                f"inputs: `x` must be images alone. Received: {len(leaves)} inputs"
            )
        alone = sum(augment is not None for augment in augments) == 1
        # The layers behind it may mix images, and then their labels too.
        labels = self._mixable(y) if alone else None
        result = []
        for leaf, augment in zip(leaves, augments, strict=True):
            if augment is None:
                result.append(leaf)
                continue
            image = augment(leaf, batch.samples, batch.epoch, labels=labels, training=True)
            if labels is not None:
                image, labels = image
                y = tf.squeeze(labels, 1) if y.shape.rank == 1 and labels.shape[1] == 1 else labels
            result.append(image)
        return result, y

    def _moved(
        self,
        y: Any,
        weights: Any,
        leaves: list[Any],
        augments: list[Any],
        standards: list[Any],
        batch: Batch,
    ) -> tuple[Any, Any]:
        """Moves targets that are masks or images, and weights of pixels, by their images' draw."""
        kinds = self._kinds(y)
        if not any(kind in ("masks", "images") for kind in kinds):
            return y, weights
        followed = [
            (augment, leaf, standard)
            for augment, leaf, standard in zip(augments, leaves, standards, strict=True)
            if augment is not None
        ]
        layer, images, standard = followed[0]
        if len({(other.options, other.seed) for other, *_ in followed}) > 1 or layer.then:
            raise ValueError(
                "`targets` can follow one augmentation, and no layers in `then`: move them in "
                "`tf.data.Dataset.map`, with `RandomAugment` of a dictionary"
            )
        sides = _sides(layer, images)
        height, width = (tf.shape(images)[a] if side is None else side for a, side in sides.items())
        drawn = layer.draw(images, batch.samples, batch.epoch)
        matrices = augmentation.output_to_input(
            layer.options, drawn, height, width, tf.shape(images)[0]
        )

        def masks(values: tf.Tensor) -> tf.Tensor:
            return values if matrices is None else _moved_masks(layer, values, matrices)

        def moved(kind: str | None, values: Any) -> Any:
            if kind not in ("masks", "images"):
                return values
            if list(_sides(layer, values).values()) != list(sides.values()):
                raise ValueError(
                    f"`targets` that are {kind} must have the images' sides, "
                    f"{tuple(sides.values())}. Received: the shape {tuple(values.shape[1:])}"
                )
            if kind == "masks":
                return masks(values)
            values = layer(values, batch.samples, batch.epoch, training=True)
            return _standardized(values, standard)

        y = tf.nest.pack_sequence_as(y, list(map(moved, kinds, tf.nest.flatten(y))))
        of_pixels = lambda w: w is not None and w.shape.rank is not None and w.shape.rank > 2  # noqa: E731
        weights = tf.nest.map_structure(lambda w: masks(w) if of_pixels(w) else w, weights)
        return y, weights

    def _kinds(self, y: Any) -> list[str | None]:
        """Returns which of `TARGETS` each target is; None for those that have no sides.

        Raises:
            ValueError: A target may be masks or images, and nothing was said.
        """
        leaves = tf.nest.flatten(y)
        kinds = _assigned("targets", self._targets, y)
        for place, (leaf, kind) in enumerate(zip(leaves, kinds, strict=True)):
            rank = None if leaf is None else leaf.shape.rank
            if leaf is None or (rank is not None and rank < 3):
                kinds[place] = None
            elif kind is None:
                raise ValueError(
                    "`targets` must say whether the targets move with their images where they "
                    'have rows and columns: "masks" (by the nearest pixel), "images" (as the '
                    'images, standardised too) or "as they are". Received: targets of the shape '
                    f"{leaf.shape if rank is None else tuple(leaf.shape)}"
                )
        if self._targets not in (None, "as they are") and not any(kinds):
            raise ValueError(
                f"`targets` can't be {self._targets!r}: no target has rows and columns"
            )
        return kinds

    def _standardized_targets(self, y: Any, standards: list[Any]) -> Any:
        kinds = _assigned("targets", self._targets, y)
        standard = next((s for s in standards if s is not None), None)
        leaves = [
            _standardized(leaf, standard if kind == "images" and leaf.shape.rank == 4 else None)
            for leaf, kind in zip(tf.nest.flatten(y), kinds, strict=True)
        ]
        return tf.nest.pack_sequence_as(y, leaves)


def _standardized(values: Any, standardize: Callable[[Any], Any] | None) -> Any:
    return values if standardize is None else standardize(tf.cast(values, tf.float32))


def _moved_masks(layer: RandomAugment, masks: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    first = layer.options.data_format == "channels_first" and masks.shape.rank == 4
    moved = annotations.move_masks(
        tf.transpose(masks, [0, 2, 3, 1]) if first else masks,
        matrices,
        fill_mode=layer.mask_fill_mode or layer.options.fill_mode,
        cval=layer.mask_cval,
    )
    return tf.transpose(moved, [0, 3, 1, 2]) if first else moved


def _sides(layer: RandomAugment, values: tf.Tensor) -> dict[int, int | None]:
    """Returns height and width by their axes."""
    first = layer.options.data_format == "channels_first" and values.shape.rank == 4
    return {axis: values.shape[axis] for axis in ((2, 3) if first else (1, 2))}


def _layer(augment: Any, seed: int) -> RandomAugment | None:
    if isinstance(augment, ImageDataGenerator):
        augment = augment.augment_options()
    if isinstance(augment, AugmentOptions):
        return RandomAugment(**dataclasses.asdict(augment), seed=seed, dtype="float32")
    if not isinstance(augment, RandomAugment | None):
        raise _wrong("augment", "a RandomAugment, AugmentOptions or ImageDataGenerator", augment)
    return augment


def _wrong(name: str, wanted: str, received: Any) -> ValueError:
    return ValueError(
        f"`{name}` must be {wanted}, or a list or dictionary of them with a value for each input. "
        f"Received: {received!r}"
    )


def _unpacked(data: Any) -> tuple[Any, Any, Any]:
    if isinstance(data, tuple) and not 1 <= len(data) <= 3:
        raise ValueError(
            "`x` must yield images, (images, targets) or (images, targets, weights) where `fit` "
            f"augments or standardises them. Received: tuples of {len(data)}"
        )
    return keras.utils.unpack_x_y_sample_weight(data)


# Values for each input


def _is_each(given: Any) -> bool:
    return isinstance(given, list | tuple | Mapping)


def _parts(given: Any) -> Sequence[Any]:
    """Returns the values that an argument has, one or for each input."""
    if isinstance(given, Mapping):
        return list(given.values())
    return list(given) if _is_each(given) else [given]


def _each(function: Callable[[Any], Any], given: Any) -> Any:
    """Applies a function to the values of an argument."""
    if isinstance(given, Mapping):
        return {name: function(part) for name, part in given.items()}
    return [function(part) for part in given] if _is_each(given) else function(given)


def _assigned(name: str, given: Any, data: Any) -> list[Any]:
    """Returns an argument's value for each flat value of x or y."""
    if not _is_each(given):
        return [given] * len(tf.nest.flatten(data))
    if isinstance(given, Mapping):
        fits = isinstance(data, Mapping) and set(given) <= set(data)
        pairs = [(given.get(key), data[key]) for key in sorted(data)] if fits else []
    else:
        fits = isinstance(data, list | tuple) and len(given) == len(data)
        pairs = list(zip(given, data, strict=True)) if fits else []
    if not fits:
        received = sorted(given) if isinstance(given, Mapping) else f"{len(given)} values"
        held = sorted(data) if isinstance(data, Mapping) else f"{len(tf.nest.flatten(data))} values"
        raise ValueError(
            f"`{name}` must be a list or dictionary as the data are one, which hold {held}. "
            f"Received: {received}"
        )
    return [value for value, part in pairs for _ in tf.nest.flatten(part)]


def _among(leaf: Any, leaves: list[Any]) -> bool:
    return any(leaf is other for other in leaves)


def _images(leaves: list[Any]) -> list[Any]:
    """Returns the inputs that are images.

    Raises:
        ValueError: None is, or it can't be told which are.
    """
    told = "a list or dictionary as `x` is one, with None for what is no image"
    arrays = [leaf for leaf in leaves if isinstance(leaf, tf.Tensor)]
    candidates = [leaf for leaf in arrays if leaf.shape.rank == 4 and leaf.dtype != tf.string]
    unclear = [
        leaf
        for leaf in arrays
        if leaf.shape.rank is None or (leaf.dtype == tf.uint8 and leaf.shape.rank in (3, 5))
    ]
    if not candidates or (unclear and len(arrays) == 1):
        raise _no_image((unclear or arrays or leaves)[0])
    if len(candidates) > 1:
        axis = 1 if keras.config.image_data_format() == "channels_first" else 3
        many = [leaf for leaf in candidates if (leaf.shape[axis] or 0) > _CHANNELS]
        unclear += many or (candidates if len({leaf.dtype for leaf in candidates}) > 1 else [])
    if unclear:
        kinds = ", ".join(f"{leaf.dtype.name} {tuple(leaf.shape[1:])}" for leaf in arrays)
        raise ValueError(
            "`augment` and `standardize` must say which inputs are images, since dtypes and shapes "
            f"leave it open ({kinds}): {told}"
        )
    return candidates


def _no_image(leaf: Any) -> ValueError:
    shape = getattr(leaf, "shape", None)
    rank: int | None = None if shape is None else shape.rank
    advice = "; add the axis of channels, as by `x[..., None]`" if rank == 3 else ""
    if shape is not None and rank is None:
        advice = "; tell the shape of a dataset's images, as by `tf.ensure_shape` in `map`"
    return ValueError(
        "`x` must hold images of the shape (n, height, width, channels), or channels first, to be "
        f"augmented or standardised{advice}. Received: the shape "
        f"{tuple(shape) if shape is not None and rank is not None else shape}"
    )

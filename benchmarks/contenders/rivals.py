"""The rivals; benchmarks/README.md says how each was tuned."""

import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no network access for a version check

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from benchmarks.contenders.work import Feed, Work, from_calls, from_dataset, from_py_dataset

__all__ = [
    "albumentations",
    "albumentations_alone",
    "dali",
    "dali_alone",
    "generator",
    "generator_alone",
    "labelled_layers",
    "layers_alone",
    "layers_in_dataset",
    "layers_in_model",
    "mapped_rows",
    "matrix_by_hand",
]


def mapped_rows(rows: int, batch_size: int, function: Callable[[tf.Tensor], Any]) -> Any:
    """Returns an endless dataset of `function` of shuffled row indices, parallel and prefetched."""
    shuffled = tf.data.Dataset.range(rows).shuffle(rows).repeat()
    batches = shuffled.batch(batch_size, drop_remainder=True)
    return batches.map(function, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


# Keras's generator


def generator_alone(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    flow = ImageDataGenerator(**work.options()).flow(
        images / np.float32(255), batch_size=batch_size, shuffle=False
    )
    rows = np.arange(batch_size)
    return from_calls(lambda: flow._get_batches_of_transformed_samples(rows))


def generator(
    workers: int, processes: bool, images: np.ndarray, batch_size: int, work: Work
) -> Feed:
    labels = np.zeros((len(images), 24), np.float32)
    flow = ImageDataGenerator(**work.options()).flow(
        images / np.float32(255), labels, batch_size=batch_size
    )
    return from_py_dataset(flow, workers, processes)


# Layers of Keras and KerasCV


def _package(name: str) -> Any:
    if name == "keras":
        return keras.layers
    import keras_cv

    return keras_cv.layers


def _sequence(package: str, work: Work) -> keras.Sequential:
    return keras.Sequential([*work.layers(_package(package)), keras.layers.Rescaling(1 / 255)])


def layers_alone(package: str, images: np.ndarray, batch_size: int, work: Work) -> Feed:
    layers = _sequence(package, work)
    batch = tf.constant(images[:batch_size])
    step = tf.function(lambda: layers(batch, training=True))
    return from_calls(lambda: step().numpy())


def layers_in_dataset(package: str, images: np.ndarray, batch_size: int, work: Work) -> Feed:
    layers, stored = _sequence(package, work), tf.constant(images)
    return from_dataset(
        mapped_rows(
            len(images), batch_size, lambda rows: layers(tf.gather(stored, rows), training=True)
        )
    )


def labelled_layers(images: np.ndarray, labels: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Returns one epoch of float32 images in [0, 1], augmented by Keras's layers, with labels."""
    layers = keras.Sequential(Work().layers(keras.layers))
    x, y = tf.constant(images), tf.constant(labels)

    def batch(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return layers(tf.gather(x, rows), training=True), tf.gather(y, rows)

    rows = tf.data.Dataset.range(len(images)).shuffle(len(images)).batch(batch_size)
    return rows.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def layers_in_model(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    layers, stored = _sequence("keras", work), tf.constant(images)
    batches = mapped_rows(len(images), batch_size, lambda rows: tf.gather(stored, rows))
    return from_dataset(batches, lambda images: layers(images, training=True))


# TensorFlow by hand


def matrix_by_hand(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    """One matrix an image and TensorFlow's own projective transform, as an expert writes it."""
    side = images.shape[1]
    stored = tf.constant(images)

    def augment(rows: tf.Tensor) -> tf.Tensor:
        n = tf.shape(rows)[0]
        largest = np.deg2rad(work.rotation)
        angle = tf.random.uniform((n,), -largest, largest)
        zoom_x, zoom_y = (tf.random.uniform((n,), *work.zoom) for _ in range(2))
        shift_x, shift_y = (
            tf.random.uniform((n,), -work.shift * side, work.shift * side) for _ in range(2)
        )
        mirrored = tf.random.uniform((n,)) < (0.5 if work.flip else 0.0)
        sign = tf.where(mirrored, -1.0, 1.0)
        a, b = sign * zoom_x * tf.cos(angle), -zoom_y * tf.sin(angle)
        c, d = sign * zoom_x * tf.sin(angle), zoom_y * tf.cos(angle)
        middle = (side - 1) / 2
        x = middle + shift_x - middle * (a + b)
        y = middle + shift_y - middle * (c + d)
        zero = tf.zeros((n,))
        augmented = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(tf.gather(stored, rows), tf.float32),
            transforms=tf.stack([a, b, x, c, d, y, zero, zero], 1),
            output_shape=(side, side),
            interpolation="BILINEAR",
            fill_mode="NEAREST",
            fill_value=0.0,
        )
        return augmented * (1 / 255)

    return from_dataset(mapped_rows(len(images), batch_size, augment))


# DALI


def dali_alone(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    batch = images[:batch_size]
    return _dali(lambda: batch, batch_size, work)


def dali(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    random = np.random.default_rng()

    def shuffled() -> Iterator[np.ndarray]:
        while True:
            order = random.permutation(len(images))
            for begin in range(0, len(order) - batch_size + 1, batch_size):
                yield images[order[begin : begin + batch_size]]

    batches = shuffled()
    return _dali(lambda: next(batches), batch_size, work)


def _dali(next_images: Callable[[], np.ndarray], batch_size: int, work: Work) -> Feed:
    """A pipeline on the CPU with a thread a core; batches go to Python without a copy."""
    from nvidia.dali import fn, pipeline_def, types

    def widened(low: float, high: float) -> tuple[float, float]:
        return (low, high) if low < high else (low, low + 1e-6)  # DALI refuses an empty range

    @pipeline_def(
        batch_size=batch_size,
        num_threads=len(os.sched_getaffinity(0)),
        device_id=None,
        prefetch_queue_depth=2,
    )
    def pipeline() -> Any:
        images = fn.external_source(
            source=next_images, batch=True, dtype=types.UINT8, ndim=3, layout="HWC"
        )
        side = next_images().shape[1]
        middle = [side / 2, side / 2]
        mirror = fn.cast(
            1 - 2 * fn.random.coin_flip(probability=0.5 if work.flip else 0.0), dtype=types.FLOAT
        )
        one = types.Constant(1.0, dtype=types.FLOAT)
        matrix = fn.transforms.scale(scale=fn.stack(mirror, one), center=middle)
        zoom = fn.random.uniform(range=widened(*work.zoom), shape=[2])
        matrix = fn.transforms.scale(matrix, scale=zoom, center=middle)
        angle = fn.random.uniform(range=widened(-work.rotation, work.rotation))
        matrix = fn.transforms.rotation(matrix, angle=angle, center=middle)
        shift = work.shift * side
        offset = fn.random.uniform(range=widened(-shift, shift), shape=[2])
        matrix = fn.transforms.translation(matrix, offset=offset)
        # Without a fill value it takes the nearest pixel of the border.
        augmented = fn.warp_affine(
            images,
            matrix=matrix,
            inverse_map=True,
            interp_type=types.INTERP_LINEAR,
            dtype=types.FLOAT,
        )
        return augmented * (1 / 255)

    built = pipeline()
    built.build()
    return from_calls(lambda: built.run()[0].as_array())


# Albumentations


def albumentations_alone(images: np.ndarray, batch_size: int, work: Work) -> Feed:
    transform = _albumentations_transform(work)
    batch = images[:batch_size]
    return from_calls(lambda: np.stack([transform(image=image)["image"] for image in batch]))


def albumentations(
    workers: int, processes: bool, images: np.ndarray, batch_size: int, work: Work
) -> Feed:
    return from_py_dataset(_Albumentations(images, batch_size, work), workers, processes)


class _Albumentations(keras.utils.PyDataset):
    """Shuffled batches, image by image, as its documentation feeds Keras."""

    def __init__(self, images: np.ndarray, batch_size: int, work: Work) -> None:
        super().__init__()
        self._images, self._batch_size = images, batch_size
        self._transform = _albumentations_transform(work)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self._images) // self._batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._order[index * self._batch_size :][: self._batch_size]
        images = [self._transform(image=self._images[row])["image"] for row in rows]
        return np.stack(images), np.zeros((len(rows), 24), np.float32)

    def on_epoch_end(self) -> None:
        """Shuffles for the next epoch."""
        self._order = np.random.default_rng().permutation(len(self._images))


def _albumentations_transform(work: Work) -> Callable[..., dict[str, np.ndarray]]:
    import albumentations
    import cv2

    cv2.setNumThreads(0)  # threads cost time on images as small as these
    scale = (1 / work.zoom[1], 1 / work.zoom[0])  # it magnifies where Keras's factor shrinks
    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5 if work.flip else 0.0),
            albumentations.Affine(
                rotate=(-work.rotation, work.rotation),
                scale=dict.fromkeys("xy", scale),
                translate_percent=dict.fromkeys("xy", (-work.shift, work.shift)),
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_REPLICATE,
                p=1.0,
            ),
            albumentations.ToFloat(max_value=255),
        ]
    )

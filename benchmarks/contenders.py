"""Who is compared: everyone augments by the course's options, in the way that suits them best.

A contender is made from stored images, a batch size and the `Work` to do, and gives batches of
float32 images in [0, 1]. `AUGMENTATION` has those that augment one batch again and again,
`PIPELINE` those that take shuffled batches from a whole set. benchmarks/README.md tells how each
was tuned.
"""

import contextlib
import dataclasses
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its version

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

import asl_fast
from asl_fast.data.pipeline import Batch, gathered, numbered_batches, training_batches
from benchmarks.cell import timed

__all__ = [
    "AUGMENTATION",
    "COURSE",
    "PIPELINE",
    "WORKERS",
    "Contender",
    "Feed",
    "Work",
    "data",
    "from_dataset",
    "from_keras_iterator",
    "from_py_dataset",
    "keras_layers",
    "missing",
]

COURSE: dict[str, Any] = {
    "rotation_range": 10,
    "zoom_range": 0.1,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "horizontal_flip": True,
}


@dataclasses.dataclass(frozen=True)
class Work:
    """What is done to each image, bilinearly and with `nearest` fill.

    Attributes:
        rotation: Degrees, at most, to either side.
        zoom: Pair of factors by which an image shrinks, drawn for each axis of its own.
        shift: Fraction of a side, at most, to either side, drawn for each axis of its own.
        flip: Whether every second image is mirrored.
    """

    rotation: float = 10.0
    zoom: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.1
    flip: bool = True

    def options(self) -> dict[str, Any]:
        """Returns the work as options of Keras's generator, and so of our layer and drop-in."""
        return {
            "rotation_range": self.rotation,
            "zoom_range": self.zoom,
            "width_shift_range": self.shift,
            "height_shift_range": self.shift,
            "horizontal_flip": self.flip,
        }

    def layers(self, package: Any) -> list[keras.layers.Layer]:
        """Returns the work as layers of Keras or KerasCV, without those that would do nothing."""
        zoom = tuple(round(factor - 1, 6) for factor in self.zoom)
        found = []
        if self.rotation:
            found.append(package.RandomRotation(self.rotation / 360, fill_mode="nearest"))
        if any(zoom):
            found.append(package.RandomZoom(zoom, zoom, fill_mode="nearest"))
        if self.shift:
            found.append(package.RandomTranslation(self.shift, self.shift, fill_mode="nearest"))
        if self.flip:
            found.append(package.RandomFlip("horizontal"))
        return [*found, keras.layers.Rescaling(1 / 255)]


class Feed(NamedTuple):
    """A contender at work.

    Attributes:
        seconds: From two counts, how long that many batches take after that many others, which
            empty what was prefetched and let pipelines find their pace. Before and afterwards
            nothing is left running that would disturb others.
        batch: Returns the next images, float32, (batch, side, side, channels).
    """

    seconds: Callable[[int, int], float]
    batch: Callable[[], np.ndarray]


# From images, uint8 of shape (n, side, side, channels), batch size and work.
Contender = Callable[[np.ndarray, int, Work], contextlib.AbstractContextManager[Feed]]


def data(rows: int = 27455, side: int = 28, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, float32 in [0, 1], and one-hot labels of 24 letters."""
    random = np.random.default_rng(0)
    images = random.random((rows, side, side, channels), np.float32)
    return images, np.eye(24, dtype=np.float32)[random.integers(0, 24, rows)]


def missing(name: str) -> str | None:
    """Returns why a contender can't run here, or None if it can."""
    for start, module, extra in (
        ("KerasCV", "keras_cv", "bench"),
        ("Albumentations", "albumentations", "peers"),
        ("DALI", "nvidia.dali", "peers"),
    ):
        if name.startswith(start):
            top = module.split(".")[0]
            if not importlib.util.find_spec(top) or not importlib.util.find_spec(module):
                return f"{module} is not installed: pip install -e '.[{extra}]'"
    return None


# Taking batches


def from_dataset(
    dataset: tf.data.Dataset, step: Callable[[Any], tf.Tensor] = lambda images: images
) -> Feed:
    """Takes batches within TensorFlow, as Keras's `fit` does, from a dataset without an end."""

    @tf.function
    def run(iterator: Any, count: tf.Tensor) -> tf.Tensor:
        seen = tf.constant(0.0)
        for _ in tf.range(count):
            seen += step(iterator.get_next())[-1, -1, -1, 0]
        return seen

    def seconds(count: int, before: int) -> float:
        iterator = iter(dataset)  # anew: one that pauses would prefetch meanwhile
        run(iterator, tf.constant(before))
        return timed(lambda: float(run(iterator, tf.constant(count))))

    return Feed(seconds, map(np.asarray, map(step, dataset)).__next__)


def _of_calls(call: Callable[[], Any]) -> Feed:
    """Takes batches by calling a function from Python."""

    def run(count: int) -> None:
        for _ in range(count):
            result = call()
        np.asarray(result)[-1, -1, -1, 0]

    def seconds(count: int, before: int) -> float:
        run(before)
        return timed(lambda: run(count))

    return Feed(seconds, lambda: np.asarray(call()))


@contextlib.contextmanager
def from_keras_iterator(
    iterator: Any, workers: int = 1, processes: bool = False
) -> Iterator[tf.data.Dataset]:
    """Feeds as `keras.Model.fit` does from one of Keras's own iterators.

    Args:
        iterator: What `flow` or `flow_from_directory` of Keras's generator returned, or another
            `PyDataset`.
        workers: Int; Keras's iterators take it only once they are made.
        processes: Bool, whether the workers are processes, not threads.
    """
    iterator.workers, iterator.use_multiprocessing = workers, processes
    adapter = PyDatasetAdapter(iterator, shuffle=False)
    dataset = adapter.get_tf_dataset()
    adapter.on_epoch_begin()
    try:
        yield dataset
    finally:
        adapter.on_epoch_end()


def from_py_dataset(iterator: Any, workers: int, processes: bool) -> Feed:
    """Takes batches from a `PyDataset`, from pass to pass, its workers begun anew each time."""

    @tf.function(reduce_retracing=True)
    def run(iterator: Any, count: tf.Tensor) -> tf.Tensor:
        seen = tf.constant(0.0)
        for _ in tf.range(count):
            seen += tf.nest.flatten(iterator.get_next())[0][-1, -1, -1, 0]
        return seen

    def seconds(count: int, before: int) -> float:
        # Workers fill a queue, which a consumer in a hurry keeps empty.
        drained = max(before, 1 + 2 * workers if workers > 1 else 1)
        taken, left = 0.0, count
        while left:
            with from_keras_iterator(iterator, workers, processes) as dataset:
                batches = iter(dataset)
                drained = min(drained, len(iterator) // 2)
                run(batches, tf.constant(drained))
                some = min(left, len(iterator) - drained)
                taken += timed(lambda b=batches, n=some: float(run(b, tf.constant(n))))
                left -= some
        return taken

    def batch() -> np.ndarray:
        # Those of Keras say by themselves what a pass's order is.
        element = next(iterator) if hasattr(iterator, "next") else iterator[0]
        return np.asarray(element[0] if isinstance(element, tuple) else element)

    return Feed(seconds, batch)


# Augmenting one batch


@contextlib.contextmanager
def _generator_alone(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    flow = KerasGenerator(**work.options()).flow(
        images / np.float32(255), batch_size=batch_size, shuffle=False
    )
    rows = np.arange(batch_size)
    yield _of_calls(lambda: flow._get_batches_of_transformed_samples(rows))


@contextlib.contextmanager
def _layers_alone(
    package: Callable[[], Any], images: np.ndarray, batch_size: int, work: Work
) -> Iterator[Feed]:
    layers = keras.Sequential(work.layers(package()))
    batch = tf.constant(images[:batch_size])
    step = tf.function(lambda: layers(batch, training=True))
    yield _of_calls(lambda: step().numpy())


@contextlib.contextmanager
def _dali_alone(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    batch = images[:batch_size]
    with _dali(lambda: batch, batch_size, work) as feed:
        yield feed


@contextlib.contextmanager
def _albumentations_alone(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    transform = _albumentations_transform(work)
    batch = images[:batch_size]
    yield _of_calls(lambda: np.stack([transform(image=image)["image"] for image in batch]))


@contextlib.contextmanager
def _ours_alone(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    prepare = _prepare(work)
    batch = tf.constant(images[:batch_size])
    step = tf.function(lambda: prepare(batch))
    yield _of_calls(lambda: step().numpy())


@contextlib.contextmanager
def _cast_alone(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    batch = tf.constant(images[:batch_size])
    step = tf.function(lambda: _scaled(batch), jit_compile=True)
    yield _of_calls(lambda: step().numpy())


def _scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) * (1 / 255)


def _prepare(work: Work) -> Callable[..., tf.Tensor]:
    """Returns what `asl_fast.fit` does to a batch before the network sees it."""
    augment = asl_fast.RandomAugment(**work.options(), dtype="float32")
    rescale = asl_fast.Standardize(rescale=1 / 255, dtype="float32")
    return lambda images, **numbers: rescale(augment(images, training=True, **numbers))


# Whole pipelines


@contextlib.contextmanager
def _generator(
    workers: int, processes: bool, images: np.ndarray, batch_size: int, work: Work
) -> Iterator[Feed]:
    labels = np.zeros((len(images), 24), np.float32)
    flow = KerasGenerator(**work.options()).flow(
        images / np.float32(255), labels, batch_size=batch_size
    )
    yield from_py_dataset(flow, workers, processes)


def _rows(images: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Yields the numbers of shuffled rows: cheaper to shuffle than images."""
    rows = tf.data.Dataset.range(len(images)).shuffle(len(images)).repeat()
    return rows.batch(batch_size, drop_remainder=True)


@contextlib.contextmanager
def keras_layers(
    images: np.ndarray, labels: np.ndarray, batch_size: int
) -> Iterator[tf.data.Dataset]:
    """Keras's preprocessing layers on whole batches in `tf.data`, parallel and prefetched.

    Args:
        images: float32 in [0, 1].
        labels: Of as many rows.
        batch_size: Int.
    """
    layers = keras.Sequential(Work().layers(keras.layers)[:-1])
    x, y = tf.constant(images), tf.constant(labels)

    def batch(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return layers(tf.gather(x, rows), training=True), tf.gather(y, rows)

    yield (
        tf.data.Dataset.range(len(images))
        .shuffle(len(images))
        .batch(batch_size)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


@contextlib.contextmanager
def _layers_in_dataset(
    package: Callable[[], Any], images: np.ndarray, batch_size: int, work: Work
) -> Iterator[Feed]:
    layers = keras.Sequential(work.layers(package()))
    x = tf.constant(images)
    yield from_dataset(
        _rows(images, batch_size)
        .map(
            lambda rows: layers(tf.gather(x, rows), training=True),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


@contextlib.contextmanager
def _layers_in_model(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    layers = keras.Sequential(work.layers(keras.layers))
    x = tf.constant(images)
    batches = _rows(images, batch_size).map(
        lambda rows: tf.gather(x, rows), num_parallel_calls=tf.data.AUTOTUNE
    )
    yield from_dataset(
        batches.prefetch(tf.data.AUTOTUNE), lambda images: layers(images, training=True)
    )


@contextlib.contextmanager
def _projective(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    """What an expert would write by hand: one matrix an image, one operation of TensorFlow's."""
    side = images.shape[1]
    x = tf.constant(images)

    def augment(rows: tf.Tensor) -> tf.Tensor:
        n = tf.shape(rows)[0]
        turn = np.deg2rad(work.rotation)
        angle = tf.random.uniform((n,), -turn, turn)
        zoom_x, zoom_y = (tf.random.uniform((n,), *work.zoom) for _ in range(2))
        shift_x, shift_y = (
            tf.random.uniform((n,), -work.shift * side, work.shift * side) for _ in range(2)
        )
        mirrored = tf.random.uniform((n,)) < (0.5 if work.flip else 0.0)
        sign = tf.where(mirrored, -1.0, 1.0)
        a, b = sign * zoom_x * tf.cos(angle), -zoom_y * tf.sin(angle)
        c, d = sign * zoom_x * tf.sin(angle), zoom_y * tf.cos(angle)
        middle = (side - 1) / 2
        columns = middle + shift_x - middle * (a + b)
        rows_ = middle + shift_y - middle * (c + d)
        zero = tf.zeros((n,))
        augmented = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(tf.gather(x, rows), tf.float32),
            transforms=tf.stack([a, b, columns, c, d, rows_, zero, zero], 1),
            output_shape=(side, side),
            interpolation="BILINEAR",
            fill_mode="NEAREST",
            fill_value=0.0,
        )
        return augmented * (1 / 255)

    yield from_dataset(
        _rows(images, batch_size)
        .map(augment, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


@contextlib.contextmanager
def _dali(next_images: Callable[[], np.ndarray], batch_size: int, work: Work) -> Iterator[Feed]:
    """A pipeline on the CPU with a thread a core, batches taken from Python without a copy."""
    from nvidia.dali import fn, pipeline_def, types

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
        zoom = fn.random.uniform(range=_widened(work.zoom), shape=[2])
        matrix = fn.transforms.scale(matrix, scale=zoom, center=middle)
        angle = fn.random.uniform(range=_widened((-work.rotation, work.rotation)))
        matrix = fn.transforms.rotation(matrix, angle=angle, center=middle)
        shift = work.shift * side
        offset = fn.random.uniform(range=_widened((-shift, shift)), shape=[2])
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

    made = pipeline()
    made.build()
    yield _of_calls(lambda: made.run()[0].as_array())


def _widened(pair: tuple[float, float]) -> tuple[float, float]:
    """Returns a range that DALI takes, which is not empty."""
    low, high = pair
    return (low, high) if low < high else (low, low + 1e-6)


@contextlib.contextmanager
def _dali_pipeline(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    random = np.random.default_rng()

    def shuffled() -> Iterator[np.ndarray]:
        while True:
            order = random.permutation(len(images))
            for begin in range(0, len(order) - batch_size + 1, batch_size):
                yield images[order[begin : begin + batch_size]]

    batches = shuffled()
    with _dali(lambda: next(batches), batch_size, work) as feed:
        yield feed


def _albumentations_transform(work: Work) -> Callable[..., dict[str, np.ndarray]]:
    import albumentations
    import cv2

    cv2.setNumThreads(0)  # it would lose time with threads on images as small as these
    both = {axis: (-work.shift, work.shift) for axis in "xy"}
    scale = (1 / work.zoom[1], 1 / work.zoom[0])  # it magnifies where Keras's factor shrinks
    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5 if work.flip else 0.0),
            albumentations.Affine(
                rotate=(-work.rotation, work.rotation),
                scale=dict.fromkeys("xy", scale),
                translate_percent=both,
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_REPLICATE,
                p=1.0,
            ),
            albumentations.ToFloat(max_value=255),
        ]
    )


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
        """Shuffles for the next pass."""
        self._order = np.random.default_rng().permutation(len(self._images))


@contextlib.contextmanager
def _albumentations(
    workers: int, processes: bool, images: np.ndarray, batch_size: int, work: Work
) -> Iterator[Feed]:
    yield from_py_dataset(_Albumentations(images, batch_size, work), workers, processes)


@contextlib.contextmanager
def _flow(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    generator = asl_fast.ImageDataGenerator(**work.options())
    labels = np.zeros((len(images), 24), np.float32)
    flow = generator.flow(images / np.float32(255), labels, batch_size=batch_size)
    yield from_dataset(flow.repeat().map(lambda images, labels: images))


@contextlib.contextmanager
def _streamed(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    prepare = _prepare(work)
    batches = training_batches(images, batch_size=batch_size, steps=2**40)
    yield from_dataset(
        batches, lambda batch: prepare(batch.data, samples=batch.samples, epoch=batch.epoch)
    )


@contextlib.contextmanager
def _resident(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    prepare, stored = _prepare(work), tf.constant(images)

    def step(batch: Batch) -> tf.Tensor:
        batch = gathered(stored, batch)
        return prepare(batch.data, samples=batch.samples, epoch=batch.epoch)

    yield from_dataset(numbered_batches(len(images), batch_size=batch_size, steps=2**40), step)


@contextlib.contextmanager
def _cast(images: np.ndarray, batch_size: int, work: Work) -> Iterator[Feed]:
    x = tf.constant(images)
    yield from_dataset(
        _rows(images, batch_size)
        .map(lambda rows: _scaled(tf.gather(x, rows)), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _with(contender: Callable[..., Any], *first: Any) -> Contender:
    return lambda images, batch_size, work: contender(*first, images, batch_size, work)


def _keras_cv() -> Any:
    import keras_cv

    return keras_cv.layers


AUGMENTATION: dict[str, Contender] = {
    "Keras's generator": _generator_alone,
    "Keras's layers": _with(_layers_alone, lambda: keras.layers),
    "KerasCV's layers": _with(_layers_alone, _keras_cv),
    "Albumentations": _albumentations_alone,
    "DALI": _dali_alone,
    "our layer": _ours_alone,
    "no augmentation": _cast_alone,
}

# Workers of image-by-image contenders: which are their best depends on the machine.
WORKERS: dict[str, Contender] = {
    f"{name}, {workers} {'processes' if processes else 'threads'}": _with(
        contender, workers, processes
    )
    for name, contender in (
        ("Keras's generator", _generator),
        ("Albumentations", _albumentations),
    )
    for processes in (False, True)
    for workers in (2, 4)
}

PIPELINE: dict[str, Contender] = {
    "Keras's generator": _with(_generator, 1, False),
    "Keras's layers in tf.data": _with(_layers_in_dataset, lambda: keras.layers),
    "Keras's layers in the model": _layers_in_model,
    "KerasCV's layers in tf.data": _with(_layers_in_dataset, _keras_cv),
    "one matrix by hand in tf.data": _projective,
    "Albumentations": _with(_albumentations, 1, False),
    "DALI": _dali_pipeline,
    "our flow": _flow,
    "our step, streamed": _streamed,
    "our step, resident": _resident,
    "no augmentation": _cast,
}

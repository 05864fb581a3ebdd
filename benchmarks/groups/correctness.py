"""Checks that a contender does the work that is timed, so that a broken one can't win.

It is compared with Keras's own generator: an image zoomed by a fixed factor, and the mean and the
spread of many draws of all options and of rotation alone. Pipelines must shuffle, too.
"""

import functools

import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator

from benchmarks.contenders import Contender, Work

__all__ = ["check"]

_SIDE, _BATCH, _DRAWS = 28, 64, 1024
# Mean absolute differences of pixels in [0, 1]. Layers that interpolate three times blur by 0.01;
# a wrong option differs by 0.03 and more.
_PICTURE, _MEAN, _SPREAD = 0.012, 0.012, 0.02
_FIXED = Work(rotation=0, zoom=(1.3, 1.3), shift=0, flip=False)
_ROTATION = Work(zoom=(1, 1), shift=0, flip=False)  # all options together would hide it


def check(name: str, contender: Contender, *, shuffles: bool) -> None:
    """Raises AssertionError with the contender's name if it does not do its work.

    Args:
        name: For the message; "no augmentation" must return the stored pixels.
        contender: Of `AUGMENTATION` or `PIPELINE`.
        shuffles: Whether it must shuffle.
    """
    augments = name != "no augmentation"
    image = _image()
    images = np.repeat(image[None], 4 * _BATCH, 0)
    batch = contender(images, _BATCH, _FIXED).batch()
    shape = (_BATCH, _SIDE, _SIDE, 1)
    assert batch.shape == shape, f"{name}: batches of {batch.shape}, not {shape}"
    assert batch.dtype == np.float32, f"{name}: {batch.dtype}, not float32"
    zoomed = {"zx": 1.3, "zy": 1.3} if augments else {}
    expected = KerasGenerator().apply_transform(image / np.float32(255), zoomed)
    _close(name, "a fixed zoom", batch, expected, _PICTURE)
    for work, suffix in ((Work(), ""), (_ROTATION, " of rotation alone")):
        feed = contender(images, _BATCH, work)
        drawn = np.concatenate([feed.batch() for _ in range(_DRAWS // _BATCH)])
        assert drawn.min() >= -1e-6, f"{name}: pixels down to {drawn.min()}"
        assert drawn.max() <= 1 + 1e-6, f"{name}: pixels up to {drawn.max()}"
        mean, spread = _expected(work) if augments else (expected, 0.0)
        _close(name, f"the mean of many draws{suffix}", drawn.mean(0), mean, _MEAN)
        _close(name, f"the spread of many draws{suffix}", drawn.std(0), spread, _SPREAD)
    if shuffles:
        numbered = np.zeros((256, _SIDE, _SIDE, 1), np.uint8)
        numbered += np.arange(256, dtype=np.uint8)[:, None, None, None]
        seen = np.rint(255 * contender(numbered, _BATCH, Work()).batch()[:, 14, 14, 0])
        assert len(set(seen)) == _BATCH, f"{name}: rows come twice in an epoch"
        assert (np.diff(seen) < 0).any(), f"{name}: rows are not shuffled"


def _close(
    name: str, what: str, actual: np.ndarray, expected: np.ndarray | float, limit: float
) -> None:
    difference = float(np.abs(actual - expected).mean())
    assert difference < limit, f"{name}: {what} is off by {difference:.3f}, over {limit}"


def _image() -> np.ndarray:
    """Returns a smooth image without symmetry, uint8, (28, 28, 1)."""
    y, x = np.mgrid[:_SIDE, :_SIDE] / (_SIDE - 1)
    values = 0.5 + 0.3 * np.sin(7 * x + 2 * y) * np.cos(5 * y - 1) + 0.2 * (x - y)
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)[..., None]


@functools.cache
def _expected(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the standard deviation of many draws of Keras's generator."""
    generator = KerasGenerator(**work.options())
    image = _image() / np.float32(255)
    drawn = np.stack([generator.random_transform(image, seed=seed) for seed in range(4 * _DRAWS)])
    return drawn.mean(0), drawn.std(0)

"""Whether a contender does the work that it is timed for: a broken one can't win.

Compared with Keras's own generator: an image zoomed by a fixed factor; and over many draws, of
all options and of rotation alone, the mean image and its spread. Pipelines must shuffle, too.
"""

import functools

import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator as KerasGenerator

from benchmarks.contenders import Contender, Work

__all__ = ["check"]

_SIDE, _BATCH, _DRAWS = 28, 64, 1024
# In [0, 1], mean absolute difference. Layers that interpolate three times blur by 0.01; a wrong
# option differs by 0.03 and more.
_PICTURE, _MEAN, _SPREAD = 0.012, 0.012, 0.02
_FIXED = Work(rotation=0, zoom=(1.3, 1.3), shift=0, flip=False)
_ROTATION = Work(zoom=(1, 1), shift=0, flip=False)  # it would drown in the others


def check(name: str, contender: Contender, *, shuffles: bool, augments: bool = True) -> None:
    """Raises AssertionError with the contender's name where it does not do its work.

    Args:
        name: For the message.
        contender: Of `AUGMENTATION` or `PIPELINE`.
        shuffles: Whether it has to.
        augments: Whether it has to; otherwise the pixels must be the stored ones.
    """
    image = _image()
    images = np.repeat(image[None], 4 * _BATCH, 0)
    with contender(images, _BATCH, _FIXED) as feed:
        batch = feed.batch()
        shape = (_BATCH, _SIDE, _SIDE, 1)
        assert batch.shape == shape, f"{name}: batches of {batch.shape}, not {shape}"
        assert batch.dtype == np.float32, f"{name}: {batch.dtype}, not float32"
        zoomed = {"zx": 1.3, "zy": 1.3} if augments else {}
        wanted = KerasGenerator().apply_transform(image / np.float32(255), zoomed)
        _near(name, "a fixed zoom", batch, wanted, _PICTURE)
    for work, words in ((Work(), ""), (_ROTATION, " of rotation alone")):
        with contender(images, _BATCH, work) as feed:
            drawn = np.concatenate([feed.batch() for _ in range(_DRAWS // _BATCH)])
        assert drawn.min() >= -1e-6, f"{name}: pixels down to {drawn.min()}"
        assert drawn.max() <= 1 + 1e-6, f"{name}: pixels up to {drawn.max()}"
        mean, spread = _expected(work) if augments else (wanted, 0.0)
        _near(name, f"the mean of many draws{words}", drawn.mean(0), mean, _MEAN)
        _near(name, f"the spread of many draws{words}", drawn.std(0), spread, _SPREAD)
    if shuffles:
        numbered = np.zeros((256, _SIDE, _SIDE, 1), np.uint8)
        numbered += np.arange(256, dtype=np.uint8)[:, None, None, None]
        with contender(numbered, _BATCH, Work()) as feed:
            seen = np.rint(255 * feed.batch()[:, 14, 14, 0])
            assert len(set(seen)) == _BATCH, f"{name}: rows come twice in a pass"
            assert (np.diff(seen) < 0).any(), f"{name}: rows are not shuffled"


def _near(
    name: str, what: str, found: np.ndarray, wanted: np.ndarray | float, limit: float
) -> None:
    difference = float(np.abs(found - wanted).mean())
    assert difference < limit, f"{name}: {what} is off by {difference:.3f}, over {limit}"


def _image() -> np.ndarray:
    """Returns a smooth image without symmetry, uint8, (28, 28, 1)."""
    y, x = np.mgrid[:_SIDE, :_SIDE] / (_SIDE - 1)
    values = 0.5 + 0.3 * np.sin(7 * x + 2 * y) * np.cos(5 * y - 1) + 0.2 * (x - y)
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)[..., None]


@functools.cache
def _expected(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the spread of many draws of Keras's generator."""
    generator = KerasGenerator(**work.options())
    image = _image() / np.float32(255)
    drawn = np.stack([generator.random_transform(image, seed=seed) for seed in range(4 * _DRAWS)])
    return drawn.mean(0), drawn.std(0)

"""Images augmented one by one on the host, as Keras does.

A compiled program is many times as fast but takes seconds to make; this starts at once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.threefry import PARITY, ROTATIONS, ROUND_GROUPS

__all__ = ["affine", "augmented", "draw", "uniform"]

_WORD = np.uint32


def uniform(key: tuple[int, int], samples: np.ndarray, columns: Sequence[int]) -> list[np.ndarray]:
    """Draws what `threefry.uniform` draws, in NumPy.

    Args:
        key: Seed and epoch, each in [0, 2**32).
        samples: Integers of shape (n,).
        columns: Places in each sample's stream.

    Returns:
        For each column float32 of shape (n,), in [0, 1).
    """
    pairs = sorted({column // 2 for column in columns})
    keys = [_WORD(word) for word in (*key, PARITY ^ key[0] ^ key[1])]
    x0 = np.repeat(samples.astype(_WORD)[:, None], len(pairs), axis=1) + keys[0]
    x1 = np.repeat(np.array([pairs], _WORD), len(samples), axis=0) + keys[1]
    for group in range(ROUND_GROUPS):
        for bits in ROTATIONS[group % 2]:
            x0 += x1
            left = x1 << _WORD(bits)
            x1 >>= _WORD(32 - bits)
            x1 |= left
            x1 ^= x0
        x0 += keys[(group + 1) % 3]
        x1 += keys[(group + 2) % 3]
        x1 += _WORD(group + 1)
    halves = [(word >> _WORD(8)).astype(np.float32) * np.float32(2.0**-24) for word in (x0, x1)]
    return [halves[column % 2][:, pairs.index(column // 2)] for column in columns]


def draw(
    options: AugmentOptions, key: tuple[int, int], samples: np.ndarray, height: int, width: int
) -> dict[str, np.ndarray]:
    """Draws what `augmentation.draw` draws, in NumPy."""
    drawn: dict[str, np.ndarray] = {}
    places, end = [], 0
    for transform in options.transforms:
        place = range(end, end := end + transform.draws)
        if transform.active:
            places.append((transform, place))
    columns = [column for _, place in places for column in place]
    units = iter(uniform(key, samples, columns) if columns else ())
    for transform, place in places:
        drawn |= transform.draw([next(units) for _ in place], height, width)
    return drawn


def affine(
    parameters: Mapping[str, np.ndarray], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Composes Keras's rotation · shift · shear · zoom about its middle, with its axes swapped.

    Args:
        parameters: By name arrays of shape (n,), at least one of them.
        height: Int, rows of an image.
        width: Int, columns of an image.

    Returns:
        Matrices (n, 2, 2) and offsets (n, 2), float64, as `scipy.ndimage.affine_transform` takes
        them.
    """
    count = len(next(iter(parameters.values())))

    def values(name: str, neutral: float) -> np.ndarray:
        return np.asarray(parameters.get(name, np.full(count, neutral)), np.float64)

    theta, shear = np.deg2rad(values("theta", 0)), np.deg2rad(values("shear", 0))
    tx, ty, zx, zy = values("tx", 0), values("ty", 0), values("zx", 1), values("zy", 1)
    cos, sin = np.cos(theta), np.sin(theta)
    along, across = -np.sin(shear) * zy, np.cos(shear) * zy
    xx, xy = cos * zx, cos * along - sin * across
    yx, yy = sin * zx, sin * along + cos * across
    middle_x, middle_y = height / 2 - 0.5, width / 2 - 0.5
    x0 = cos * tx - sin * ty + middle_x - xx * middle_x - xy * middle_y
    y0 = sin * tx + cos * ty + middle_y - yx * middle_x - yy * middle_y
    matrices = np.stack([yy, yx, xy, xx], axis=-1).reshape(-1, 2, 2)
    return matrices, np.stack([y0, x0], axis=-1)


def augmented(
    options: AugmentOptions,
    images: Sequence[Callable[[], np.ndarray]],
    parameters: Mapping[str, np.ndarray],
    change_pixels: Any,
    each: Callable[..., Any] = map,
) -> list[np.ndarray]:
    """Augments images by the functions and in the order of Keras's generator.

    Args:
        options: Fill mode, interpolation and data format.
        images: Functions that return an image of rank 3, floating.
        parameters: By name arrays of shape (n,), as `draw` returns them.
        change_pixels: Function of an image and a dictionary. Applies channel shift and brightness,
            under the names that Keras's `apply_transform` has for them.
        each: `map`, or one that calls in parallel.
    """
    first = options.data_format == "channels_first"
    pixelwise = parameters.keys() & {"channel_shift_intensity", "brightness"}
    neutral = (("theta", 0), ("tx", 0), ("ty", 0), ("shear", 0), ("zx", 1), ("zy", 1))
    moved = np.zeros(len(images), bool)
    for name, value in neutral:
        if name in parameters:
            moved |= np.asarray(parameters[name]) != value
    flips = [parameters.get(f"flip_{way}") for way in ("horizontal", "vertical")]
    matrices: Any = None

    def augment(number: int) -> np.ndarray:
        nonlocal matrices
        image = images[number]()
        if moved[number]:
            height, width = image.shape[1:] if first else image.shape[:2]
            if matrices is None:
                matrices = affine(parameters, height, width)
            image = _warp(options, image, matrices[0][number], matrices[1][number], first)
        for flip, axis in zip(flips, (-1, -2) if first else (1, 0), strict=True):
            if flip is not None and flip[number]:
                image = np.flip(image, axis)
        if pixelwise:
            image = change_pixels(image, {name: parameters[name][number] for name in pixelwise})
        return image

    return list(each(augment, range(len(images))))


def _warp(
    options: AugmentOptions, image: np.ndarray, matrix: np.ndarray, offset: np.ndarray, first: bool
) -> np.ndarray:
    warped = np.empty_like(image)
    channels = zip(image, warped, strict=True) if first else _last_axis(image, warped)
    for channel, result in channels:
        ndimage.affine_transform(
            channel,
            matrix,
            offset,
            output=result,
            order=options.interpolation_order,
            mode=options.fill_mode,
            cval=options.cval,
        )
    return warped


def _last_axis(*arrays: np.ndarray) -> Any:
    return ([array[..., channel] for array in arrays] for channel in range(arrays[0].shape[-1]))

"""Compares our pixels with those of the installed `ImageDataGenerator`, option by option.

`scripts/conformance` writes the table; the tests make the same comparison on fewer images.
"""

import argparse
import dataclasses
import itertools
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from PIL import Image
from rich.progress import track

from asl_fast import RandomAugment, Standardize
from asl_fast.data import synthetic_hands as hands
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.augmentation import PARAMETERS
from asl_fast.transforms.fill_modes import FILL_MODES
from asl_fast.transforms.transform import Parameters
from benchmarks import arguments as arguments_tried

__all__ = ["ARGUMENTS", "CASES", "EVERYTHING", "SHAPES", "Comparison", "compare", "pictures"]

SHAPES = [(28, 28, 1), (31, 17, 3), (1, 1, 1)]

# Points closer than this to a jump of the interpolation may be sampled on its other side, as
# coordinates are float32 here and float64 in SciPy.
_BOUNDARY = 1e-4

_GEOMETRY: dict[str, Any] = {
    "rotation_range": 25,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 15,
    "zoom_range": (0.7, 1.4),
    "horizontal_flip": True,
    "vertical_flip": True,
}
EVERYTHING: dict[str, Any] = {
    **_GEOMETRY,
    "channel_shift_range": 40.0,
    "brightness_range": (0.5, 1.5),
}

CASES: list[dict[str, Any]] = [
    {"rotation_range": 10},
    {"rotation_range": 180},
    {"width_shift_range": 0.1},
    {"width_shift_range": 1.0},
    {"width_shift_range": 2.5},
    {"width_shift_range": 3},
    {"width_shift_range": (0.05, 0.1, 0.3)},
    {"width_shift_range": (1.5, 4.0)},
    {"height_shift_range": 0.1},
    {"height_shift_range": 3},
    {"height_shift_range": (0.05, 0.1, 0.3)},
    {"shear_range": 20},
    {"zoom_range": 0.1},
    {"zoom_range": (0.5, 0.8)},
    {"zoom_range": (1.2, 2.5)},
    {"horizontal_flip": True},
    {"vertical_flip": True},
    {"channel_shift_range": 60.0},
    {"brightness_range": (0.3, 1.7)},
    {
        "rotation_range": 10,
        "width_shift_range": 0.1,
        "height_shift_range": 0.1,
        "zoom_range": 0.1,
        "horizontal_flip": True,
    },
    *(
        {**_GEOMETRY, "interpolation_order": order, "fill_mode": fill, "cval": 33.0}
        for order, fill in itertools.product(range(6), FILL_MODES)
    ),
    {**EVERYTHING},
    {**_GEOMETRY, "data_format": "channels_first"},
]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far our pixels are from Keras's.

    Attributes:
        images: Int, number of images compared, each with its own parameters.
        largest: Float, largest difference as a share of the pixel range, boundaries excluded.
        mean: Float, mean difference, likewise.
        boundary: Float, share of the pixels that were excluded because they lie on a boundary.
        changed: Float, mean change that the transform made, likewise; 0 if it did nothing.
    """

    images: int
    largest: float
    mean: float
    boundary: float
    changed: float


def pictures(shape: tuple[int, int, int], dtype: str, count: int) -> np.ndarray:
    """Returns rendered hands as images of a shape, 0 to 255."""
    height, width, channels = shape
    rendered, _ = hands.render(count, split="train", seed=5, workers=1)
    resized = np.stack(
        [np.asarray(Image.fromarray(i[..., 0]).resize((width, height), 1)) for i in rendered]
    ).astype(np.float64)
    tints = 1 - 0.2 * np.arange(channels)
    pixels = resized[..., None] * tints
    return np.round(pixels).astype(dtype) if dtype == "uint8" else pixels.astype(dtype)


def compare(
    options: dict[str, Any], shape: tuple[int, int, int], dtype: str, count: int, seed: int = 0
) -> Comparison:
    """Draws parameters for `count` images and applies them with both implementations."""
    images = pictures(shape, dtype, count)
    first = options.get("data_format") == "channels_first"
    if first:
        images = images.transpose(0, 3, 1, 2)
    layer = RandomAugment(**options, quirks=True, seed=seed, dtype="float32")
    parameters = layer.draw(images, samples=np.arange(count), epoch=1)
    ours = layer.apply(images, parameters).numpy()
    generator = ImageDataGenerator(**options)
    drawn = [_one(parameters, i) for i in range(count)]
    theirs = np.stack(
        [
            generator.apply_transform(image.astype(np.float32), values)
            for image, values in zip(images, drawn, strict=True)
        ]
    )
    if first:
        images, ours, theirs = (x.transpose(0, 2, 3, 1) for x in (images, ours, theirs))
    unclear = np.stack([_on_boundary(layer.options, values, shape) for values in drawn])
    unclear = np.broadcast_to(unclear[..., None], ours.shape)
    if "brightness_range" in options:
        # PIL truncates pixels to integers: a difference in the last digit may become 1.
        unclear = unclear | (np.abs(ours - theirs) == 1)
    difference = np.where(unclear, 0, np.abs(ours.astype(np.float64) - theirs)) / 255
    return Comparison(
        images=count,
        largest=float(difference.max()),
        mean=float(difference.sum() / max((~unclear).sum(), 1)),
        boundary=float(unclear.mean()),
        changed=float(np.abs(theirs - images).mean() / 255),
    )


def _one(parameters: Parameters, index: int) -> dict[str, Any]:
    return {name: float(values[index]) for name, values in parameters.items()}


def _on_boundary(
    options: AugmentOptions, values: dict[str, Any], shape: tuple[int, int, int]
) -> np.ndarray:
    """Returns a mask of the output pixels that are sampled where the interpolation jumps."""
    height, width, _ = shape
    values = PARAMETERS | values
    theta, shear = np.deg2rad(values["theta"]), np.deg2rad(values["shear"])
    matrix = (
        np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
        @ np.array([[1, 0, values["tx"]], [0, 1, values["ty"]], [0, 0, 1]])
        @ np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
        @ np.diag([values["zx"], values["zy"], 1])
    )
    middle = np.array([height / 2 - 0.5, width / 2 - 0.5])  # as Keras has it
    rows, columns = np.mgrid[:height, :width].astype(float)
    if values["flip_horizontal"]:
        columns = columns[:, ::-1]
    if values["flip_vertical"]:
        rows = rows[::-1]
    points = np.stack([columns, rows], axis=-1) - middle
    points = points @ matrix[:2, :2].T + matrix[:2, 2] + middle
    unclear = np.zeros((height, width), bool)
    for axis, side in ((0, width), (1, height)):
        point, last = points[..., axis], side - 1
        if options.interpolation_order == 0:
            unclear |= np.abs((point % 1) - 0.5) < _BOUNDARY
        if options.fill_mode == "constant":
            unclear |= (np.abs(point) < _BOUNDARY) | (np.abs(point - last) < _BOUNDARY)
        if options.fill_mode == "wrap" and last:
            away = np.abs((point + last / 2) % last - last / 2)
            unclear |= (away < _BOUNDARY) & ((point < 0.5) | (point > last - 0.5))
    return unclear


def _geometry_rows(count: int) -> Iterator[str]:
    yield "| options | image | images | largest | mean | on a boundary |"
    yield "| --- | --- | --- | --- | --- | --- |"
    cases = list(itertools.product(CASES, SHAPES, ("uint8", "float32")))
    for options, shape, dtype in track(cases, "Comparing"):
        result = compare(options, shape, dtype, count)
        yield (
            f"| {_written(options)} | {'×'.join(map(str, shape))} {dtype} | {result.images} "
            f"| {result.largest:.1e} | {result.mean:.1e} | {result.boundary:.3%} |"
        )


_STANDARDS: list[dict[str, Any]] = [
    {"rescale": 1 / 255},
    {"samplewise_center": True},
    {"samplewise_center": True, "samplewise_std_normalization": True},
    {"featurewise_center": True},
    {"featurewise_center": True, "featurewise_std_normalization": True},
    {"featurewise_center": True, "zca_whitening": True},
    {"featurewise_center": True, "zca_whitening": True, "zca_epsilon": 0.1, "rescale": 1 / 255},
    {"preprocessing_function": keras.applications.mobilenet.preprocess_input},
]


def _standard_rows() -> Iterator[str]:
    yield "| options | data | largest difference, share of the range |"
    yield "| --- | --- | --- |"
    grey = hands.render(2000, split="train")[0]
    parts = [hands.render(600, split="train", seed=s)[0][:, 4:20:2, 8:20:2, 0] for s in (1, 2, 3)]
    coloured = (np.stack(parts, axis=-1) * [1.0, 0.7, 0.3]).astype(np.float32)
    for options in _STANDARDS:
        for data in (grey, coloured):
            generator, layer = ImageDataGenerator(**options), Standardize(**options)
            if layer.options.featurewise_center:
                generator.fit(data)
                layer.fit(data)
            theirs = np.stack([generator.standardize(i.astype(np.float32)) for i in data[:200]])
            difference = np.abs(layer(data[:200]).numpy() - theirs).max() / np.ptp(theirs)
            shape = "×".join(map(str, data.shape))
            yield f"| {_written(options)} | {shape} {data.dtype} | {difference:.1e} |"


ARGUMENTS = [
    "## Arguments",
    "",
    "Every argument of every public method of `ImageDataGenerator`, `NumpyArrayIterator`, "
    "`DirectoryIterator` and `DataFrameIterator`, with values of many kinds given to Keras's class "
    "and to ours (`rng='keras'`, so that both draw the same). Taken alike: the same batches, of "
    "the same dtypes. Refused alike: ours raises an exception of Keras's type. "
    "`set_processing_attrs` and the properties are compared by what the constructors make of them.",
    "",
]


def _written(options: dict[str, Any]) -> str:
    values = {n: getattr(v, "__module__", None) or v for n, v in options.items()}
    return ", ".join(f"`{name}={value!r}`" for name, value in values.items())


def main() -> None:
    """Compares, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300, help="images compared in each row")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/conformance.md"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Please import `affine_transform`")
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("keras", "tensorflow", "scipy", "pillow")
    )
    lines = [
        "# Conformance with Keras's ImageDataGenerator",
        "",
        "Written by `scripts/conformance`: our layers beside the installed class, "
        f"{versions}. Nothing is in the tables that was not compared.",
        "",
        "## Transforms",
        "",
        "`RandomAugment(..., quirks=True)` against `ImageDataGenerator(...).apply_transform`, each "
        "image with random parameters of its own, given to both. Differences are shares of the "
        "pixel range of 255. Left out are pixels on a boundary: read from a point within "
        f"{_BOUNDARY:g} of where the interpolation jumps (between two pixels for order 0; at the "
        "border for `constant` and `wrap`), and with `brightness_range` those that PIL's cut to "
        "whole numbers puts exactly 1 apart.",
        "",
        *_geometry_rows(arguments.images),
        "",
        "## Standardisation",
        "",
        "`Standardize(...)` against `ImageDataGenerator(...).fit` and `.standardize`.",
        "",
        *_standard_rows(),
        "",
        *ARGUMENTS,
        *arguments_tried.table(),
    ]
    arguments.out.write_text("\n".join(lines) + "\n")
    print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()

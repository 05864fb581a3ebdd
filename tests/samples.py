"""Small tables to test with."""

import struct
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image


def blobs(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images that a network can learn to name: the letter sets where a bright square lies."""
    random = np.random.default_rng(seed)
    labels = (np.arange(rows) % 24).astype(np.int32)
    images = random.integers(0, 60, (rows, 28, 28, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 + 5 * (label // 6), 4 + 4 * (label % 6)
        image[row - 2 : row + 3, column - 2 : column + 3] += 180
    return images, labels


def write_csv(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    header = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))])
    cells = np.column_stack([labels, images.reshape(len(labels), -1)])
    np.savetxt(path, cells, fmt="%d", delimiter=",", header=header, comments="")
    return path


def shapes(
    folder: Path,
    each: int,
    size: tuple[int, int] = (16, 20),
    mode: str = "RGB",
    classes: tuple[str, ...] = ("bar", "big dot", "sky"),
    seed: int = 0,
) -> Path:
    """Writes class folders of PNG files: a class is where the light lies, whatever its colour."""
    random = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for image in range(each):
            pixels = random.integers(0, 70, (*size, 3), np.uint8)
            height, width = size
            bright = random.integers(130, 186, 3).astype(np.uint8)
            if number == 0:
                pixels[:, width // 3 : 2 * width // 3] += bright
            elif number == 1:
                pixels[height // 3 : 2 * height // 3, width // 4 : 3 * width // 4] += bright
            else:
                pixels[: height // 3] += bright
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{image}.png")
    return folder


def needs_keras_with(name: str) -> Any:
    """Skips a test under a version of Keras that lacks a layer or optimizer."""
    there = hasattr(keras.layers, name) or hasattr(keras.optimizers, name)
    return pytest.mark.skipif(not there, reason=f"Keras {keras.__version__} has no {name}")


def png_header(columns: int, rows: int) -> bytes:
    """A PNG that says it has that many pixels, and holds none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def pretend_gpus(monkeypatch: Any, *capabilities: tuple[int, int]) -> None:
    """Stands in for a machine with GPUs of given compute capabilities."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: list(capabilities))
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda capability: {"device_name": "NVIDIA X", "compute_capability": capability},
    )

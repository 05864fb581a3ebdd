"""Image files to tensors, with the same pixels as `keras.utils.load_img`.

TensorFlow decodes the files that it decodes to the same pixels: most JPEG and PNG files. Pillow,
called from the graph, decodes the rest. The first bytes of a file decide, not its name, and
the size they state is checked before memory is allocated.
"""

import contextlib
import io
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from asl_fast.images.file_types import CHANNELS, MOST_PIXELS
from asl_fast.images.resize import resize
from asl_fast.system.storage import open_file

__all__ = ["check_size", "load_image", "sniff"]

_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"

_HEADER = 25  # bytes: as far as the depth in a PNG file


def load_image(
    path: tf.Tensor,
    *,
    target_size: tuple[int, int],
    color_mode: str = "rgb",
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> tf.Tensor:
    """Reads one image file as `keras.utils.load_img` does.

    Args:
        path: String, scalar.
        target_size: Pair of ints, (height, width).
        color_mode: "rgb", "rgba" or "grayscale".
        interpolation: One of `resize.INTERPOLATIONS`.
        keep_aspect_ratio: Whether to crop the image, about its centre, to the proportions of
            `target_size` first.

    Returns:
        (height, width, channels), all static: uint8 for "rgb" and "rgba"; float32 for "grayscale",
        because grey images of 16 and 32 bits keep their values, which may exceed 255.

    Raises:
        tf.errors.OpError: At run time, if the file can't be read or decoded, has more than
            `MOST_PIXELS`, or is a PNG file with a wrong checksum, some of which Pillow ignores.
            Run eagerly, Pillow's own errors are raised instead.
    """
    contents = tf.io.read_file(path)
    dtype = tf.float32 if color_mode == "grayscale" else tf.uint8
    options: dict[str, Any] = {
        "interpolation": interpolation,
        "keep_aspect_ratio": keep_aspect_ratio,
    }

    def finish(image: tf.Tensor) -> tf.Tensor:
        return tf.cast(resize(image, target_size, **options), dtype)

    def by_pillow() -> tf.Tensor:
        def load(contents: bytes | np.ndarray) -> np.ndarray:
            # Bytes in a graph; an array that holds them when run eagerly.
            file = io.BytesIO(np.asarray(contents, object).item())
            check_size(file)
            image = keras.utils.load_img(file, color_mode, target_size, **options)
            return keras.utils.img_to_array(image, "channels_last", dtype.as_numpy_dtype)

        # For what TensorFlow lacks (PPM, TIFF, CMYK, 16-bit grey) or decodes to other pixels.
        return tf.numpy_function(load, [contents], dtype, stateful=False)

    def jpeg() -> tf.Tensor:
        def decode() -> tf.Tensor:
            # Pillow's method; TensorFlow's default is faster and less exact.
            rgb = tf.io.decode_jpeg(contents, 3, dct_method="INTEGER_ACCURATE")
            return finish(_in_mode(rgb, color_mode))

        shape = tf.image.extract_jpeg_shape(contents)
        too_large = _too_large(shape[0], shape[1])
        return tf.cond((shape[2] == 4) | too_large, by_pillow, decode)

    def other() -> tf.Tensor:
        def decode() -> tf.Tensor:
            if color_mode == "rgba":
                return finish(tf.io.decode_png(contents, 4))
            return finish(_in_mode(tf.io.decode_png(contents, 3), color_mode))

        # TensorFlow cuts 16 bits to 8, makes opaque images of 1, 2 or 4 bits all but transparent,
        # and rejects a file without its last chunk, which Pillow accepts.
        is_png = _starts_with(header, _PNG_START) & _ends_with(contents, _PNG_END)
        width, height = (
            tf.bitcast(header[place : place + 4][::-1], tf.int32) for place in (16, 20)
        )
        plain = is_png & (header[24] == 8) & ~_too_large(width, height)
        return tf.cond(plain, decode, by_pillow)

    # Most files are JPEG, and a condition costs a tenth of decoding a small one, so they pass few.
    # A file without the end mark may be truncated: TensorFlow accepts it if all pixels are there.
    header = tf.io.decode_raw(contents, tf.uint8, fixed_length=_HEADER)
    is_jpeg = _starts_with(header, _JPEG_START) & _ends_with(contents, _JPEG_END)
    image = tf.cond(is_jpeg, jpeg, other)
    return tf.ensure_shape(image, [*target_size, CHANNELS[color_mode]])


def _starts_with(header: tf.Tensor, magic: bytes) -> tf.Tensor:
    return tf.reduce_all(header[: len(magic)] == list(magic))


def _ends_with(contents: tf.Tensor, end: bytes) -> tf.Tensor:
    start = tf.maximum(tf.strings.length(contents) - len(end), 0)
    return tf.strings.substr(contents, start, len(end)) == end


def _too_large(width: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
    """Returns whether an image is left to Pillow, which rejects it."""
    return tf.cast(width, tf.int64) * tf.cast(height, tf.int64) > MOST_PIXELS


def _in_mode(image: tf.Tensor, color_mode: str) -> tf.Tensor:
    """Turns an RGB image into one of a color mode."""
    image = tf.ensure_shape(image, [None, None, 3])
    if color_mode == "rgba":
        return tf.pad(image, [[0, 0], [0, 0], [0, 1]], constant_values=255)
    return _grey(image) if color_mode == "grayscale" else image


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Returns the luma of an image as Pillow rounds it: `L24` of its `Convert.c`."""
    # All sums are below 2^24, so float32 is exact.
    luma = tf.linalg.matvec(tf.cast(image, tf.float32), [19595.0, 38470.0, 7471.0])
    return tf.cast((luma + 0x8000) / 0x10000, tf.uint8)[..., None]


def check_size(file: str | Path | IO[bytes]) -> None:
    """Rejects an image that would take too much memory to decode, by its header.

    Args:
        file: Its path or content.

    Raises:
        ValueError: It has more than `MOST_PIXELS`, or is PostScript. Pillow's own errors pass
            through where it is not an image.
    """
    regular = open_file(file) if isinstance(file, (str, Path)) else contextlib.nullcontext(file)
    try:
        with regular as content, Image.open(content) as image:
            (width, height), kind = image.size, image.format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"it has more than {MOST_PIXELS:,} pixels ({error})") from None
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width} × {height} pixels, more than {MOST_PIXELS:,}")
    if kind == "EPS":  # Pillow would have Ghostscript run it
        raise ValueError("it is PostScript")


def sniff(path: str | Path) -> str | None:
    """Returns why `load_image` can't open a file, judged by its first bytes.

    Takes 20 microseconds for JPEG and PNG files; Pillow opens others. The rest of the file is not
    read and may still be broken.

    Returns:
        None if the file looks like an image, else a phrase such as "is empty".
    """
    try:
        with open_file(path) as file:
            header = file.read(_HEADER)
            if not header:
                return "is empty"
            if not header.startswith((_JPEG_START, _PNG_START)):
                check_size(file)
    except UnidentifiedImageError:
        return "is not an image file"
    except Exception as error:  # Pillow's readers raise all kinds on broken files, not only OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return f"cannot be opened: {reason}"
    return None

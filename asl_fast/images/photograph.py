"""Photographs of any size and colour, turned into the images that a network was trained on."""

import contextlib
import io
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from asl_fast.images.file_types import FORMATS, MOST_PIXELS, SUFFIXES
from asl_fast.system.errors import InputError
from asl_fast.system.storage import open_file

__all__ = ["MOST_BYTES", "STANDARD_INPUT", "Header", "Photograph", "find", "header", "read"]

STANDARD_INPUT = "-"

# Bytes of a photograph that is read into memory: those of the largest, uncompressed.
MOST_BYTES = 3 * MOST_PIXELS
_PATIENCE = 30  # seconds that a pipe may be silent
_SMALLEST = 8  # pixels a side, unless the network takes smaller images
_ORIENTATION = 0x0112  # EXIF's tag


class Photograph(NamedTuple):
    """A photograph as a network takes it.

    Attributes:
        pixels: uint8, (height, width, channels).
        note: A remark for the user, or "".
    """

    pixels: np.ndarray
    note: str


class Header(NamedTuple):
    """What a file says about its image.

    Attributes:
        height: In pixels, upright.
        width: In pixels, upright.
        has_colors: Bool, False for grey images.
    """

    height: int
    width: int
    has_colors: bool


def header(file: str) -> Header:
    """Reads the header of an image file.

    Raises:
        InputError: It can't be read.
    """
    with _opened(file, f"The image file {file}") as image:
        columns, rows = image.size
        # Pillow would decode all of a PNG file for its EXIF data, which hardly one has.
        if image.format != "PNG" and image.getexif().get(_ORIENTATION, 1) >= 5:  # a quarter turn
            columns, rows = rows, columns
        return Header(rows, columns, not image.mode.startswith(("1", "L", "I", "F")))


def find(source: str) -> list[str]:
    """Returns the paths of the photographs that a user named.

    Args:
        source: A file of any name; a folder, for the files in it and below it with a suffix in
            `SUFFIXES`, sorted; or `STANDARD_INPUT`.

    Raises:
        InputError: The folder holds no photographs.
    """
    if source == STANDARD_INPUT or not Path(source).is_dir():
        return [source]
    files = sorted(
        path
        for path in Path(source).rglob("*")
        # No folders, and no pipes, which may never end; but broken links, which are then reported.
        if path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink())
    )
    if not files:
        raise InputError(f"The folder {source} holds no photographs ({', '.join(SUFFIXES)}).")
    return [str(path) for path in files]


def read(
    source: Any, height: int = 28, width: int = 28, channels: int = 1, *, name: str = "The image"
) -> Photograph:
    """Reads a photograph as the training set's were made: cropped, small, and grey if asked for.

    The image is rotated as its EXIF orientation says, cropped about its centre to the proportions
    wanted and resized with Pillow's antialiased bicubic filter. Transparent pixels become white;
    16 bits a pixel become 8.

    Args:
        source: Path or bytes of a file (JPEG, PNG, WebP, BMP, GIF, TIFF or PPM, by its content); a
            Pillow image; or uint8 of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4).
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        channels: 1 for grey or 3 for colour.
        name: What error messages call the photograph.

    Raises:
        InputError: It can't be read, has a side below 8 pixels or more than `MOST_PIXELS`.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source, name)
    ours = not isinstance(source, Image.Image)
    with _opened(source, name) if ours else contextlib.nullcontext(source) as image:
        columns, rows = image.size
        smallest = min(_SMALLEST, height, width)
        if min(columns, rows) < smallest:
            raise InputError(
                f"{name} has {columns} × {rows} pixels: too few to recognise anything. Give one of "
                f"at least {smallest} × {smallest}."
            )
        if columns * rows > MOST_PIXELS:
            raise _too_large(name, f"{columns:,} × {rows:,} pixels")
        # Some cameras write MPO files: the photograph, then previews.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        try:
            if ours:
                # Decodes large JPEG files at 1/8, 1/4 or 1/2 of their size, many times as fast and
                # still several times the size wanted. Does nothing for other formats.
                image.draft("L" if channels == 1 else "RGB", (8 * width, 8 * height))
            image.load()
            pixels = _opaque(_upright(image)).convert("L" if channels == 1 else "RGB")
            pixels = ImageOps.fit(pixels, (width, height), Image.Resampling.BICUBIC)
        except Exception as error:  # Pillow's readers raise all kinds on broken files
            raise InputError(f"{name} is cut short or damaged: {error}.") from None
    note = f"{name} has {frames} pictures; only the first is used." if frames > 1 else ""
    return Photograph(np.asarray(pixels).reshape(height, width, channels), note)


def _from_array(pixels: np.ndarray, name: str) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not fits or not pixels.size:
        raise InputError(
            f"{name} must be uint8 of shape (height, width), or (height, width, channels) with 1, "
            f"3 or 4 channels. Received: {pixels.dtype} of shape {pixels.shape}."
        )
    return Image.fromarray(pixels)


@contextlib.contextmanager
def _opened(source: str | Path | bytes, name: str) -> Iterator[Image.Image]:
    """Yields an image whose header alone was read; the rest may be far larger than memory."""
    with contextlib.ExitStack() as stack:
        try:
            file: BinaryIO
            if not isinstance(source, bytes) and stat.S_ISFIFO(os.stat(source).st_mode):
                source = _piped(source, name)
            if not isinstance(source, bytes):
                file = stack.enter_context(open_file(source))
            elif len(source) > MOST_BYTES:
                raise InputError(f"{name} has more than {MOST_BYTES // 10**6} MB.")
            else:
                file = io.BytesIO(source)
            if not file.read(1):
                raise InputError(f"{name} is empty.")
            file.seek(0)
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise InputError(
                f"{name} is no image that can be read: not JPEG, PNG, WebP, BMP, GIF, TIFF or PPM."
            ) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_large(name, "too many pixels") from None
        except InputError:
            raise
        except Exception as error:  # as above
            if isinstance(error, OSError) and error.strerror:
                raise InputError(f"{name} can't be read: {error.strerror}.") from None
            raise InputError(f"{name} is cut short or damaged: {error}.") from None
        yield image


def _piped(path: str | Path, name: str) -> bytes:
    """Returns what comes through a pipe, up to just above the limit."""
    content = bytearray()
    # Otherwise opening it would wait for a writer, and reading for its end.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        while len(content) <= MOST_BYTES:
            if not select.select([pipe], [], [], _PATIENCE)[0]:
                raise InputError(f"{name} is a pipe that nobody wrote to for {_PATIENCE} s.")
            part = pipe.read(1 << 20)
            if not part:
                break
            content += part
    return bytes(content)


def _too_large(name: str, size: str) -> InputError:
    return InputError(
        f"{name} has {size}; the limit is {MOST_PIXELS // 10**6} million. Make it smaller first."
    )


def _upright(image: Image.Image) -> Image.Image:
    """Returns an image rotated as its EXIF data say, if they can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above; the pixels may still be intact
        return image


def _opaque(image: Image.Image) -> Image.Image:
    """Returns an image with 8 bits a channel, composited onto white where it is transparent."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float32)
        # Pillow opens 16-bit grey as integers of 16 or 32 bits.
        scale = np.float32(255 / 65535 if values.max() > 255 else 1)
        return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image

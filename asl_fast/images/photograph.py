"""Photographs of any size and colour, as the pictures that a network was trained on."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from asl_fast.system.errors import InputError

__all__ = ["LARGEST", "SMALLEST", "STANDARD_INPUT", "SUFFIXES", "Photograph", "find", "read"]

STANDARD_INPUT = "-"


# Of files that hold images, as a folder's are chosen by.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})

# Pillow would run other programs for some formats.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

LARGEST = 89_478_485  # pixels, as in `decode`: what is larger is refused before it is decoded
SMALLEST = 8  # pixels a side: a hand can't be told below


class Photograph(NamedTuple):
    """A photograph that was read.

    Attributes:
        pixels: uint8, (height, width, channels).
        note: What the user should know of it, or "".
    """

    pixels: np.ndarray
    note: str


def find(source: str) -> list[str]:
    """Returns the photographs that a user means.

    Args:
        source: A file, whatever its name; a folder, for the files in it and below whose suffix is
            one of `SUFFIXES`, in the order of their names; or `STANDARD_INPUT`.

    Raises:
        InputError: A folder without photographs.
    """
    if source == STANDARD_INPUT or not Path(source).is_dir():
        return [source]
    files = sorted(
        path
        for path in Path(source).rglob("*")
        # No folders, and no pipes, which nobody may ever write to; but links that lead nowhere.
        if path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink())
    )
    if not files:
        raise InputError(
            f"The folder {source} holds no photographs ({', '.join(sorted(SUFFIXES))})."
        )
    return [str(path) for path in files]


def read(
    source: Any, height: int = 28, width: int = 28, channels: int = 1, *, name: str = "The image"
) -> Photograph:
    """Reads a photograph as the train set's were made: its middle, small, and grey if asked for.

    The largest part of the middle that has the proportions wanted is taken, after the camera's
    rotation, and resized with Pillow's antialiased bicubic filter. What is transparent becomes
    white; 16 bits a pixel become 8.

    Args:
        source: Path or bytes of a file (JPEG, PNG, WebP, BMP, GIF, TIFF or PPM, by its content); a
            Pillow image; or uint8 of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4).
        height: Int, of the result.
        width: Int, of the result.
        channels: Int, 1 for grey or 3 for colour.
        name: What messages call it.

    Raises:
        InputError: It is none that can be read, or too small or large (`SMALLEST`, `LARGEST`).
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source, name)
    ours = not isinstance(source, Image.Image)
    with _opened(source, name) if ours else contextlib.nullcontext(source) as image:
        columns, rows = image.size
        if min(columns, rows) < SMALLEST:
            raise InputError(
                f"{name} has {columns} × {rows} pixels: too few to tell a hand. It takes at least "
                f"{SMALLEST} × {SMALLEST}."
            )
        if columns * rows > LARGEST:
            raise _too_large(name, f"{columns:,} × {rows:,} pixels")
        # MPO is what some cameras write: the photograph first, then previews.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        try:
            if ours:
                # Many times as fast for large JPEG files: decoded at an eighth, a quarter or a half
                # of their size, still several times the size wanted. Elsewhere this does nothing.
                image.draft("L" if channels == 1 else "RGB", (8 * width, 8 * height))
            image.load()
            pixels = _opaque(_upright(image)).convert("L" if channels == 1 else "RGB")
            pixels = ImageOps.fit(pixels, (width, height), Image.Resampling.BICUBIC)
        # Pillow's readers raise what comes up in broken files, not only OSError.
        except Exception as error:
            raise InputError(f"{name} is cut short or damaged: {error}.") from None
    note = f"{name} has {frames} pictures; the first one counts." if frames > 1 else ""
    return Photograph(np.asarray(pixels).reshape(height, width, channels), note)


def _from_array(pixels: np.ndarray, name: str) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not fits or not pixels.size:
        raise InputError(
            f"{name} must be uint8 of shape (height, width), or with 1, 3 or 4 channels behind. "
            f"Received: {pixels.dtype} of shape {pixels.shape}."
        )
    return Image.fromarray(pixels)


@contextlib.contextmanager
def _opened(source: str | Path | bytes, name: str) -> Iterator[Image.Image]:
    """Yields an image of which the header was read; the rest may be far larger than memory."""
    with contextlib.ExitStack() as stack:
        try:
            file: BinaryIO
            if isinstance(source, bytes):
                file = io.BytesIO(source)
            else:
                file = stack.enter_context(open(source, "rb"))
                if not file.seekable():  # a pipe
                    file = io.BytesIO(file.read())
            if not file.read(1):
                raise InputError(f"{name} is empty.")
            file.seek(0)
            image = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError:
            raise InputError(
                f"{name} is no image that can be read: not JPEG, PNG, WebP, BMP or GIF."
            ) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_large(name, "far too many pixels") from None
        except InputError:
            raise
        except Exception as error:  # as above
            if isinstance(error, OSError) and error.strerror:
                raise InputError(f"{name} can't be read: {error.strerror}.") from None
            raise InputError(f"{name} is cut short or damaged: {error}.") from None
        yield image


def _too_large(name: str, size: str) -> InputError:
    return InputError(
        f"{name} has {size}; the limit is {LARGEST // 10**6} million. Make it smaller first."
    )


def _upright(image: Image.Image) -> Image.Image:
    """Returns an image turned as the camera was held, if its note of that can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above; the pixels may be whole
        return image


def _opaque(image: Image.Image) -> Image.Image:
    """Returns an image of 8 bits a channel, laid on white where it is transparent."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float32)
        # Grey of 16 bits is opened as integers of 16 or 32.
        scale = np.float32(255 / 65535 if values.max() > 255 else 1)
        return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image

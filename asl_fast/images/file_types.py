"""Which image files are read, and up to which size."""

__all__ = ["CHANNELS", "FORMATS", "KERAS_SUFFIXES", "MOST_PIXELS", "SUFFIXES"]

# Of the files that Keras's iterators list, in Keras's order.
KERAS_SUFFIXES = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")

# Of the files that this package lists in folders otherwise.
SUFFIXES = tuple(sorted(f".{suffix}" for suffix in (*KERAS_SUFFIXES, "gif", "webp")))

# Pillow's names of the formats above. It would run other programs for some that it also reads.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# A larger image is refused before it is decoded: a quarter GiB in RGB, where Pillow begins to warn.
MOST_PIXELS = 89_478_485

# By Keras's color modes.
CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}

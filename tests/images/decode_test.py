import functools
import io
import itertools
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features

from asl_fast.images.decode import _grey, load_image, sniff
from asl_fast.images.file_types import CHANNELS

HEIGHT, WIDTH = 13, 17


def smooth(height, width, channels, seed=0):
    """An image with all frequencies, so that ways to decode JPEG files differ on it."""
    random = np.random.default_rng(seed)
    waves = np.linspace(0, random.uniform(3, 9, channels), height * width).reshape(
        height, width, -1
    )
    noise = random.integers(-40, 41, (height, width, channels))
    return np.clip(128 + 100 * np.sin(waves) + noise, 0, 255).astype(np.uint8)


RGB = Image.fromarray(smooth(HEIGHT, WIDTH, 3))
RGBA = Image.fromarray(smooth(HEIGHT, WIDTH, 4))
GREY = RGB.convert("L")
GREY_ALPHA = Image.merge("LA", (GREY, RGBA.getchannel("A")))
DEEP = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
FEW = RGB.quantize(9)
MANY = RGB.quantize(200)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(pixels, bits, colours, *chunks, interlaced=False):
    """Writes what Pillow can't: low bits of grey, interlaced rows, any chunk."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    def rows(part):
        if not part.size:
            return b""
        planes = np.unpackbits(part[..., None].reshape(len(part), -1, 1), axis=-1)[..., 8 - bits :]
        lines = np.packbits(planes.reshape(len(part), -1), axis=-1)
        return b"".join(b"\0" + line.tobytes() for line in lines)

    # Adam7: from which row and column, and how many apart.
    starts = [(0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0)]
    steps = [(8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)]
    passes = zip(starts, steps, strict=True) if interlaced else [((0, 0), (1, 1))]
    data = b"".join(rows(pixels[top::down, left::right]) for (top, left), (down, right) in passes)
    header = struct.pack(
        ">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colours, 0, 0, interlaced
    )
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def jpeg_of_sampling(sampling):
    """A JPEG file whose first component has other sampling factors than Pillow can write."""
    # As many blocks, in another order.
    image = Image.fromarray(smooth(32, 32, 3))
    contents = bytearray(encoded(image, "jpeg", subsampling=1 if sampling == 0x12 else 2))
    contents[contents.index(b"\xff\xc0") + 11] = sampling
    return bytes(contents)


def bmp_from_above(image):
    """A BMP file whose first row is the upper one."""
    contents = bytearray(encoded(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "bmp"))
    contents[22:26] = struct.pack("<i", -image.height)
    return bytes(contents)


BY_TENSORFLOW = {
    **{
        f"jpeg {quality} {subsampling}{' progressive' * progressive}": encoded(
            RGB, "jpeg", quality=quality, subsampling=subsampling, progressive=bool(progressive)
        )
        for quality, subsampling, progressive in itertools.product((30, 95), (0, 1, 2), (0, 1))
    },
    "jpeg grey": encoded(GREY, "jpeg"),
    "jpeg grey progressive": encoded(GREY, "jpeg", progressive=True),
    "jpeg not YCbCr": encoded(RGB, "jpeg", keep_rgb=True),
    "jpeg 1 x 1": encoded(RGB.crop((0, 0, 1, 1)), "jpeg"),
    "jpeg large": encoded(Image.fromarray(smooth(35, 47, 3)), "jpeg"),
    **{f"jpeg sampled {s:x}": jpeg_of_sampling(s) for s in (0x12, 0x41, 0x14)},
    "png grey": encoded(GREY, "png"),
    "png grey + alpha": encoded(GREY_ALPHA, "png"),
    "png rgb": encoded(RGB, "png"),
    "png rgba": encoded(RGBA, "png"),
    "png grey, one transparent": encoded(GREY, "png", transparency=GREY.getpixel((0, 0))),
    "png rgb, one transparent": encoded(RGB, "png", transparency=RGB.getpixel((0, 0))),
    "png grey interlaced": png(np.asarray(GREY)[..., None], 8, 0, interlaced=True),
    "png rgb interlaced": png(np.asarray(RGB), 8, 2, interlaced=True),
    "png with gamma": png(np.asarray(RGB), 8, 2, (b"gAMA", struct.pack(">I", 100000))),
    "png palette": encoded(MANY, "png"),
    "png palette, one transparent": encoded(MANY, "png", transparency=0),
    "png palette, all transparent": encoded(MANY, "png", transparency=bytes(range(200))),
    "png palette, beyond its end": png(
        np.asarray(GREY)[..., None], 8, 3, (b"PLTE", bytes(range(60)))
    ),
    "png animated": encoded(RGB, "png", save_all=True, append_images=[RGB.rotate(180)]),
}

BY_PILLOW = {
    "jpeg cmyk": encoded(Image.fromarray(smooth(HEIGHT, WIDTH, 4), "CMYK"), "jpeg"),
    "jpeg with a tail": encoded(RGB, "jpeg") + b"tail",
    "jpeg with zeros for an end": encoded(RGB, "jpeg")[:-10] + bytes(100),
    "png 1 bit": encoded(GREY.convert("1"), "png"),
    "png 1 bit, one transparent": encoded(GREY.convert("1"), "png", transparency=0),
    **{
        f"png {bits} bits": png(np.asarray(GREY)[..., None] >> (8 - bits), bits, 0)
        for bits in (2, 4)
    },
    "png 16 bits": encoded(DEEP, "png"),
    "png palette of 4 bits": encoded(FEW, "png", bits=4),
    "png palette of 4 bits, one transparent": encoded(FEW, "png", bits=4, transparency=0),
    "png without its end": encoded(RGB, "png")[:-12],
    "bmp": encoded(RGB, "bmp"),
    "bmp from above": bmp_from_above(RGB),
    "bmp grey": encoded(GREY, "bmp"),
    "bmp rgba": encoded(RGBA, "bmp"),
    "bmp palette": encoded(FEW, "bmp"),
    "ppm": encoded(RGB, "ppm"),
    "pgm": encoded(GREY, "ppm"),
    "pgm 16 bits": b"P5 17 13 65535\n" + np.asarray(DEEP).astype(">u2").tobytes(),
    "pbm": encoded(GREY.convert("1"), "ppm"),
    "tiff": encoded(RGB, "tiff"),
    "tiff grey": encoded(GREY, "tiff"),
    "tiff rgba": encoded(RGBA, "tiff"),
    "tiff cmyk": encoded(RGB.convert("CMYK"), "tiff"),
    "tiff 16 bits": encoded(DEEP, "tiff"),
    "tiff 32 bits": encoded(DEEP.convert("I"), "tiff"),
    "tiff float": encoded(GREY.convert("F"), "tiff"),
    "gif": encoded(RGB, "gif"),
    "gif animated": encoded(RGB, "gif", save_all=True, append_images=[RGB.rotate(180)]),
    "gif transparent": encoded(FEW, "gif", transparency=0),
    "ppm ending in zeros": encoded(Image.new("RGB", (WIDTH, HEIGHT)), "ppm"),
}
if features.check("webp"):
    BY_PILLOW["webp"] = encoded(RGBA, "webp")

FILES = BY_TENSORFLOW | BY_PILLOW

RGB_JPEG = encoded(RGB, "jpeg")

BROKEN = {
    "empty": b"",
    "text": b"There was no image here.",
    "text that begins as a bmp file": b"BMW is a make of cars, and this is no image, either.",
    "start of jpeg alone": b"\xff\xd8\xff",
    "start of png alone": b"\x89PNG\r\n\x1a\n",
    "start of bmp alone": b"BM",
    "half a jpeg": RGB_JPEG[: len(RGB_JPEG) // 2],
    "jpeg without its end": RGB_JPEG[:-2],
    "half a progressive jpeg": encoded(RGB, "jpeg", progressive=True)[:500],
    "half a png": FILES["png rgb"][:400],
    "half a 16-bit png": FILES["png 16 bits"][:200],
    "half a bmp": FILES["bmp"][:400],
    "half a tiff": FILES["tiff"][:300],
}


@functools.cache
def reader(color_mode, target_size=(HEIGHT, WIDTH), **options):
    """Traced once: a trace takes far longer than a small file."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def read(path):
        return load_image(path, target_size=target_size, color_mode=color_mode, **options)

    return read


def kerass(path, color_mode, target_size=(HEIGHT, WIDTH), **options):
    image = keras.utils.load_img(path, color_mode, target_size, **options)
    return keras.utils.img_to_array(image)


@pytest.fixture
def write(tmp_path):
    def write(contents, name="image"):
        path = tmp_path / name
        path.write_bytes(contents)
        return str(path)

    return write


# Pillow's warning, which Keras gives, too.
@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("color_mode", CHANNELS)
@pytest.mark.parametrize("kind", FILES)
def test_pixels_are_those_of_load_img(write, kind, color_mode):
    path = write(FILES[kind])
    ours = reader(color_mode)(path)
    assert ours.dtype == (tf.float32 if color_mode == "grayscale" else tf.uint8)
    np.testing.assert_array_equal(ours, kerass(path, color_mode))


@pytest.mark.parametrize("size", [(1, 1), (8, 16), (35, 47)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_files_of_any_size_are_decoded_as_pillow_does(write, size, subsampling):
    path = write(encoded(Image.fromarray(smooth(*size, 3)), "jpeg", subsampling=subsampling))
    np.testing.assert_array_equal(reader("rgb", size)(path), kerass(path, "rgb", size))


@pytest.mark.parametrize("color_mode", ["rgba", "grayscale"])
def test_options_reach_both_decoders(write, color_mode):
    options = {"interpolation": "bicubic", "keep_aspect_ratio": True}
    read = reader(color_mode, (7, 20), **options)
    for kind in ("jpeg 95 0", "png rgba", "bmp", "tiff", "tiff 16 bits", "gif"):
        path = write(FILES[kind])
        expected = kerass(path, color_mode, (7, 20), **options)
        np.testing.assert_array_equal(read(path), expected, kind)


def test_deep_grey_images_keep_values_over_255(write):
    assert reader("grayscale")(write(FILES["png 16 bits"])).numpy().max() > 60000


def test_common_files_need_no_python(monkeypatch, write):
    monkeypatch.setattr(keras.utils, "load_img", None)
    monkeypatch.setattr(Image, "open", None)
    for contents in BY_TENSORFLOW.values():
        path = write(contents)
        reader("rgb")(path)
        assert sniff(path) is None


def test_grey_is_pillows_to_the_last_rounding():
    colours = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(_grey(tf.constant(colours))[..., 0], theirs)


@pytest.mark.parametrize(
    ("kind", "name"), [("jpeg grey", "image.png"), ("png rgb", "image.jpg"), ("tiff", "image.bmp")]
)
def test_the_contents_decide_not_the_name(write, kind, name):
    path = write(FILES[kind], name)
    np.testing.assert_array_equal(reader("rgb")(path), kerass(path, "rgb"))
    assert sniff(path) is None


@pytest.mark.parametrize("color_mode", ["rgba", "grayscale"])
def test_a_dataset_knows_shapes_and_types(write, color_mode):
    kinds = ("png rgb", "tiff", "bmp", "jpeg grey")
    paths = [write(FILES[kind], f"image{i}") for i, kind in enumerate(kinds)]
    dataset = tf.data.Dataset.from_tensor_slices(paths).map(
        lambda path: load_image(path, target_size=(9, 8), color_mode=color_mode),
        num_parallel_calls=2,
    )
    dtype = tf.float32 if color_mode == "grayscale" else tf.uint8
    assert dataset.element_spec == tf.TensorSpec([9, 8, CHANNELS[color_mode]], dtype)
    for path, image in zip(paths, dataset, strict=True):
        np.testing.assert_array_equal(image, kerass(path, color_mode, (9, 8)))


# One ends in zeros, which NumPy's own strings drop.
@pytest.mark.parametrize("kind", ["png rgb", "ppm ending in zeros"])
def test_it_works_eagerly(write, kind):
    path = write(FILES[kind])
    ours = load_image(tf.constant(path), target_size=(HEIGHT, WIDTH))
    np.testing.assert_array_equal(ours, kerass(path, "rgb"))


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_raise(write, kind):
    path = write(BROKEN[kind], "image.png")
    with pytest.raises((OSError, SyntaxError, ValueError)):
        kerass(path, "rgb")
    for color_mode in CHANNELS:
        with pytest.raises(tf.errors.OpError):
            reader(color_mode)(path)


def test_missing_files_raise(tmp_path):
    with pytest.raises(tf.errors.NotFoundError, match="nothing.png"):
        reader("rgb")(str(tmp_path / "nothing.png"))


@pytest.mark.parametrize("name", ["jpeg 30 2", "jpeg 95 2 progressive", "jpeg grey", "png grey"])
def test_no_length_of_a_truncated_file_passes_for_an_image(write, name):
    contents = FILES[name]
    for length in range(0, len(contents), 7):
        path = write(contents[:length])
        try:
            expected = kerass(path, "rgb")
        except (OSError, SyntaxError, ValueError):
            with pytest.raises(tf.errors.OpError):
                reader("rgb")(path)
        else:
            np.testing.assert_array_equal(reader("rgb")(path), expected)


def test_sniffing_finds_nothing_wrong_with_images(write):
    assert {kind: sniff(write(contents)) for kind, contents in FILES.items()} == dict.fromkeys(
        FILES
    )


@pytest.mark.parametrize(
    ("kind", "phrase"),
    [
        ("empty", "is empty"),
        ("text", "is not an image file"),
        ("text that begins as a bmp file", "cannot be opened: "),
        ("start of png alone", "is not an image file"),
        # Broken only further on.
        ("half a jpeg", None),
        ("half a png", None),
        ("half a tiff", None),
    ],
)
def test_sniffing_says_what_is_wrong(write, kind, phrase):
    found = sniff(write(BROKEN[kind], "image.png"))
    assert found == phrase if phrase is None else found.startswith(phrase)


def test_sniffing_says_why_a_file_cannot_be_opened(tmp_path):
    assert sniff(tmp_path / "nothing.png") == "cannot be opened: No such file or directory"
    assert sniff(tmp_path) == "cannot be opened: Is a directory"

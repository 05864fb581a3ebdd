import io
import os
import threading
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from asl_fast import InputError
from asl_fast.images import photograph
from tests.samples import png_header


def picture(columns=40, rows=40):
    """A grey ramp from the dark left to the bright right."""
    ramp = np.linspace(0, 255, columns).astype(np.uint8)
    return Image.fromarray(np.tile(ramp, (rows, 1)))


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels(source, **size):
    return photograph.read(source, **size).pixels


def test_an_image_of_the_right_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    np.testing.assert_array_equal(pixels(image), image)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(image[..., 0]), "PNG")), image)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats_and_sizes(form):
    expected = pixels(np.asarray(picture())).astype(int)
    found = pixels(encoded(picture(400, 400).convert("RGB"), form))
    assert found.shape == (28, 28, 1)
    assert np.abs(found - expected).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_modes(mode):
    image = picture(28, 28)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image, np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(np.asarray(image, np.int32) * 257)
    found = pixels(image if mode.startswith("I") else image.convert(mode))[..., 0].astype(int)
    if mode == "1":  # dithered
        assert found[:, :9].mean() < 90 < 160 < found[:, -9:].mean()
    else:
        np.testing.assert_allclose(found, np.asarray(picture(28, 28)), atol=3)


def test_the_cameras_rotation_is_undone():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: show the file turned by 90° clockwise
    turned = picture(64, 64).transpose(Image.Transpose.ROTATE_90)
    found = pixels(encoded(turned, "JPEG", quality=95, exif=exif))[..., 0]
    assert found[:, 0].mean() < 20
    assert found[:, -1].mean() > 235


@pytest.mark.parametrize("note", [b"no note", b"II*\0\x08\0\0\0\xff\xff\x12\x01"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_camera_s_note_that_is_damaged_is_passed_over(form, note):
    found = pixels(encoded(picture().convert("RGB"), form, exif=b"Exif\0\0" + note))
    np.testing.assert_allclose(found.astype(int), pixels(np.asarray(picture())), atol=6)


def test_the_middle_of_a_wide_image_is_taken_in_proportion():
    wide = np.zeros((50, 150), np.uint8)
    wide[:, 50:100] = 200
    # The filter looks a little over the edge.
    assert pixels(wide).min() > 180
    assert pixels(wide.T).min() > 180


def test_what_is_transparent_becomes_white():
    assert pixels(Image.new("RGBA", (40, 40), (0, 0, 0, 0))).min() == 255
    palette = Image.new("P", (40, 40))
    palette.info["transparency"] = 0
    assert pixels(palette).min() == 255


def test_colour_where_the_model_takes_it():
    found = pixels(Image.new("RGB", (50, 60), (10, 20, 30)), height=9, width=12, channels=3)
    assert found.shape == (9, 12, 3)
    assert found[0, 0].tolist() == [10, 20, 30]


def test_the_first_picture_of_several_counts():
    frames = [Image.new("L", (20, 20), grey) for grey in (40, 90, 200)]
    found = photograph.read(
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), name="a.gif"
    )
    assert found.note == "a.gif has 3 pictures; only the first is used."
    assert found.pixels.max() == 40


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "a.png is empty."),
        (
            b"hello",
            "a.png is no image that can be read: not JPEG, PNG, WebP, BMP, GIF, TIFF or PPM.",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n", "a.png is no image"),
        (encoded(picture(), "JPEG")[:-200], "a.png is cut short or damaged: Truncated"),
        (encoded(picture(), "PNG")[:60], "a.png is cut short or damaged: "),
        (encoded(Image.new("L", (1, 1)), "PNG"), "a.png has 1 × 1 pixels: too few"),
        (
            png_header(20000, 20000),
            "a.png has too many pixels; the limit is 89 million. Make it smaller",
        ),
        (np.zeros((7001, 12900), np.uint8), "a.png has 12,900 × 7,001 pixels; the limit is 89"),
        ("nowhere.png", "a.png can't be read: No such file or directory."),
        (np.zeros((28, 28)), "a.png must be uint8 of shape (height, width), or (height, width, "),
        (np.zeros((2, 28, 28, 1), np.uint8), "Received: uint8 of shape (2, 28, 28, 1)."),
    ],
)
def test_what_can_not_be_read_is_said(source, message):
    with pytest.raises(InputError) as error:
        photograph.read(source, name="a.png")
    assert message in str(error.value)


def test_a_large_file_is_not_read_to_find_that_it_is_none(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(InputError, match="is no image that can be read"):
        photograph.read(tmp_path / "a.png")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_a_pipe_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    content = encoded(picture(), "PNG")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[content])
    writer.start()
    np.testing.assert_array_equal(pixels(tmp_path / "pipe"), pixels(content))
    writer.join()


def test_folders_hold_the_photographs_below_them(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.JPG", "a.webp", "notes.txt", "inner/c.png"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    os.mkfifo(tmp_path / "e.png")
    (tmp_path / "f.png").symlink_to("nowhere")
    found = photograph.find(str(tmp_path))
    assert found == [str(tmp_path / name) for name in ("a.webp", "b.JPG", "f.png", "inner/c.png")]
    assert photograph.find("any.txt") == ["any.txt"]
    assert photograph.find("-") == ["-"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no photographs"):
        photograph.find(str(tmp_path / "empty"))

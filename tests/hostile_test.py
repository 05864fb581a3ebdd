"""Files made to do harm: they are refused in a line, before they take memory or run anything."""

import gzip
import io
import json
import lzma
import marshal
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import google_crc32c
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from asl_fast import Checkpoints, ImageDataGenerator, InputError, Records
from asl_fast.data import csv_table as table
from asl_fast.data import dataset
from asl_fast.data.convert import convert
from asl_fast.data.records import damage_in_words, write_index, write_shard
from asl_fast.images import decode, photograph
from asl_fast.models import limits, saving
from asl_fast.system import storage
from asl_fast.training import run, run_folder
from asl_fast.training.checkpoint import Checkpointing
from tests.samples import blobs, write_csv

ROOT = Path(__file__).parent.parent
MEGABYTE = 1 << 20


def peak_of(code, *arguments):
    """Runs Python code that prints errors; returns them and the MiB by which memory grew.

    The code calls `begin()` once it has imported what it needs.
    """
    prelude = """
import resource, sys
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def begin():
    global before
    before = peak()
"""
    done = subprocess.run(
        [sys.executable, "-c", f"{prelude}\n{code}\nprint(peak() - before)", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    *lines, grown = done.stdout.splitlines()
    return lines, float(grown)


# Decompression bombs

ZEROS = bytes(16 * MEGABYTE)


def zipped(path, times):
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("train.csv", "w") as file,
    ):
        for _ in range(times):
            file.write(ZEROS)


@pytest.mark.parametrize("ending", ["gz", "xz", "zip"])
def test_a_table_that_expands_without_end_is_refused(tmp_path, ending):
    path = tmp_path / f"train.csv.{ending}"
    if ending == "zip":
        zipped(path, 3)
    else:
        path.write_bytes({"gz": gzip, "xz": lzma}[ending].compress(ZEROS) * 3)
    for use in (dataset.load_csv, lambda path: convert(path, tmp_path / "records", workers=1)):
        with pytest.raises(InputError, match=f"train.csv.{ending}, line 1 is longer than"):
            use(path)


HEADER = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))]).encode() + b"\n"
ROW = b"9" + b",2" * 784 + b"\n"
# Small files that a parser makes large, and what is said.
SMALL = {
    "short rows": (HEADER + b"1\n" * (8 * MEGABYTE), "row 1: 1 cells where the header has 785"),
    "short rows in one": (HEADER + ROW[:-1] + b"\r1" * 9000 + b"\n", "line 2 holds a carriage"),
    "many columns": (b"label" + b"," * 2_000_000, "line 1 is longer than a table's row"),
    "a long list of files": (b"filename,class\n" + b"a,b\n" * MEGABYTE, "131,072 rows"),
    "a list of files with many columns": (
        b"filename,class" + b"," * 16_000 + b"\n" + b"a\n" * 9, "row 1: a cell is empty"
    ),
    "a list of files with a long row": (b"filename,class\n" + ZEROS, "line 2 is longer"),
    "rows without end": ((HEADER + ROW * 9000, ROW * 9000), "more than 100 times its size"),
}  # fmt: skip


def test_memory_does_not_grow_with_what_small_files_expand_to(tmp_path):
    for name, (content, _) in SMALL.items():
        begin, rest = content if isinstance(content, tuple) else (content, b"")
        repeated = gzip.compress(rest, 1) * 8
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(begin, 1) + repeated)
    lines, grown = peak_of(
        """
from pathlib import Path
from asl_fast.data import csv_table, dataset, file_table
from asl_fast.data.convert import convert
csv_table.EXPANDED, file_table._FEWEST = 12 << 20, 1 << 17
begin()
for path in sorted(Path(sys.argv[1]).glob("*.gz")):
    load = dataset.find if " list " in path.name else dataset.load_csv
    for use in load, lambda path: convert(path, path.with_suffix(""), workers=1):
        try:
            use(path)
        except csv_table.InputError as error:
            print(error)
""",
        tmp_path,
    )
    names = sorted(SMALL, key=lambda name: f"{name}.csv.gz")
    expected = [SMALL[name][1] for name in names for _ in range(2)]
    for line, message in zip(lines, expected, strict=True):
        assert message in line
    assert grown < 350


@pytest.mark.parametrize("flag", ["encrypted", "unknown method"])
def test_a_zip_that_cannot_be_opened_is_named(flag):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("train.csv", b"label")
    changed = bytearray(content.getvalue())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.index(signature) + place
        changed[at : at + 4] = b"\x01\0\0\0" if flag == "encrypted" else b"\0\0\x63\0"
    with pytest.raises(InputError, match="can't be read to its end"):
        table.parse(io.BytesIO(changed), "train.zip")


# Images


def as_bytes(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width, height):
    """A whole PNG file of zeros, two in a thousand bytes of what it expands to."""
    packer = zlib.compressobj(1)
    rows = [packer.compress(bytes(width + 1)) for _ in range(height)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", b"".join(rows) + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def claiming(kind):
    """Small images whose headers say that they are huge."""
    small = Image.new("RGB", (8, 8))
    if kind == "jpeg":
        content = bytearray(as_bytes(small, "JPEG"))
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", 65000, 65000)
    elif kind == "gif":
        content = bytearray(as_bytes(small.convert("P"), "GIF"))
        content[6:10] = struct.pack("<HH", 65000, 65000)
    elif kind == "webp":
        content = bytearray(as_bytes(small, "WEBP", lossless=True))
        at = content.index(b"VP8L") + 9
        content[at : at + 4] = struct.pack("<I", 16382 | 16382 << 14)
    elif kind == "bmp":
        content = bytearray(as_bytes(small, "BMP"))
        content[18:26] = struct.pack("<ii", 30000, -30000)
    elif kind == "tiff":
        content = bytearray(as_bytes(small, "TIFF"))
        for tag in (256, 257):
            at = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
            content[at : at + 4] = struct.pack("<I", 60000)
    elif kind == "png":
        return huge_png(30000, 3000)
    return bytes(content)


KINDS = ["png", "jpeg", "gif", "webp", "bmp", "tiff"]


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("huge")
    for kind in KINDS:
        (folder / kind).mkdir()
        (folder / kind / f"1.{kind}").write_bytes(claiming(kind))
    return folder


def test_a_huge_image_is_refused_before_it_is_decoded(huge):
    lines, grown = peak_of(
        """
import io, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import tensorflow as tf
from PIL import Image
from asl_fast.images import decode, photograph
load = tf.function(lambda path: decode.load_image(path, target_size=(8, 8)))
small = Path(sys.argv[1]) / "small.webp"
Image.new("RGB", (8, 8)).save(small)
load(str(small))
begin()
for path in sorted(Path(sys.argv[1]).glob("*/*")):
    try:
        load(str(path))
    except tf.errors.OpError as error:
        print(path.name, "pixels, more than" in error.message or "more than 89" in error.message)
    else:
        print(path.name, "was decoded")
""",
        huge,
    )
    assert lines == [f"1.{kind} True" for kind in sorted(KINDS)]
    assert grown < 40


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_image_is_not_converted(huge, tmp_path):
    with pytest.raises(InputError, match=r"1.png has .* pixels; the limit is 89 million"):
        convert(huge, tmp_path / "records", workers=1)


def test_postscript_is_not_run(tmp_path):
    path = tmp_path / "1.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    assert "PostScript" in decode.sniff(path)
    with pytest.raises(ValueError, match="PostScript"):
        decode.load_image(tf.constant(str(path)), target_size=(8, 8))


# Pipes, which nobody writes to, and links


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    """A named pipe; what waits for it fails after a minute."""
    monkeypatch.setattr(photograph, "_PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    yield tmp_path / "pipe"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def classes(folder):
    for name in "ab":
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "1.png")
    return folder


def flow(folder, **options):
    return ImageDataGenerator().flow_from_directory(folder, (8, 8), **options)


def test_nothing_waits_for_a_pipe(pipe, tmp_path, folder):
    def made(path):
        path.parent.mkdir(exist_ok=True, parents=True)
        os.mkfifo(path)
        return path

    def refused(use, *arguments, said, **options):
        with pytest.raises(InputError, match=said):
            use(*arguments, **options)

    for path in (pipe, made(tmp_path / "x.csv"), made(tmp_path / "x.npz")):
        refused(dataset.find, path, said="neither a file nor a folder")
        refused(dataset.load_csv, path, said="no regular file")
        refused(photograph.read, path, said="nobody wrote to")
    refused(saving.load_model, made(tmp_path / "x.keras"), said="There is no model")
    images = classes(tmp_path / "images")
    made(images / "a" / "2.png")
    refused(flow, images, said="2.png, which cannot be opened: It is no regular file")
    with pytest.warns(UserWarning, match="1 of 3 image files can't be read"):
        assert flow(images, on_error="skip").samples == 2
    refused(convert, images, tmp_path / "r", workers=1, said="2.png can't be read: .*no regular")
    (tmp_path / "list.csv").write_text("filename,class\nimages/a/2.png,a\n")
    listed = tmp_path / "list.csv"
    refused(convert, listed, tmp_path / "r", workers=1, said="2.png can't be read: .*no regular")
    refused(Records.open, made(tmp_path / "s" / "index.json").parent, said="index.json is damaged")
    data, run_out = dataset.load(folder), tmp_path / "run"
    made(run_out / "checkpoints" / "settings.json")
    refused(
        run.train, data, run_out, resume=True, recipe="course", said="settings.json can't be read"
    )
    made(run_out / "metrics.json")
    refused(run.train, data, run_out, recipe="course", said="metrics.json can't be read")
    made(tmp_path / "c" / "00000001.checkpoint")
    assert Checkpoints(tmp_path / "c").load() is None
    made(tmp_path / "train" / "index.json")
    refused(dataset.find, tmp_path / "train", said="holds no data set")


def test_what_comes_through_a_pipe_is_bounded(pipe, monkeypatch):
    monkeypatch.setattr(photograph, "MOST_BYTES", 1000)
    writer = subprocess.Popen(["sh", "-c", f"cat /dev/zero > {pipe}"])
    with pytest.raises(InputError, match="pipe has more than 0 MB"):
        photograph.read(pipe, name="pipe")
    assert writer.wait() != 0


@pytest.mark.parametrize("use", [flow, dataset.find], ids=["flow_from_directory", "convert"])
def test_links_make_no_class_of_everybody(tmp_path, use):
    images = classes(tmp_path / "images")
    for target, said in ((".", "holds it"), ("..", "holds it"), ("a", "are the same folder")):
        (images / "c").symlink_to(target)
        with pytest.raises(InputError, match=f"images/c.* {said}"):
            use(images)
        (images / "c").unlink()
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "3.png")
    (images / "c").symlink_to("../elsewhere")
    use(images)


def test_links_that_lead_back_are_refused_where_links_are_followed(tmp_path):
    images = classes(tmp_path / "images")
    (images / "a" / "there").symlink_to("../b")
    assert flow(images, follow_links=True).samples == 3
    (images / "a" / "again").symlink_to("../..")
    assert flow(images).samples == 2
    with pytest.raises(InputError, match="a/again is a link to a folder that holds it"):
        flow(images, follow_links=True)


# Records

IMAGES, LABELS = np.full((20, 4, 4, 1), 7, np.uint8), np.arange(20) % 2


def made(folder, compression=""):
    folder.mkdir()
    shard = write_shard(folder / "a.tfrecord", IMAGES, LABELS, compression)
    write_index(folder, (4, 4, 1), (0, 1), "ab", compression, [shard], {})
    return Records.open(folder)


def masked(data):
    checksum = google_crc32c.value(data)
    return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data, length=None):
    size = struct.pack("<Q", len(data) if length is None else length)
    return size + masked(size) + data + masked(data)


def example(image, label):
    feature = {}
    if image is not None:
        feature["image"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    if label is not None:
        feature["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


BAD_RECORDS = {
    "terabytes long": (record(b"x", 1 << 45), "record 1 at byte 0 is damaged"),
    "another image": (record(example(bytes(9), 0)), "record 1 at byte 0 holds no image"),
    "an unknown label": (record(example(bytes(16), 5)), "record 1 at byte 0 holds no image"),
    "no label": (record(example(bytes(16), None)), "record 1 at byte 0 holds no image"),
    "another kind": (record(example(None, 0)), "record 1 at byte 0 holds no image"),
    "no wire format": (
        record(
            b"\n+\n\x19\n\x05image\x12\x10\n\x0e\n\x0c\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\n\x0e\n\x05label\x12\x05\x19\xff\n\x01\x00"
        ),
        "record 1 at byte 0 holds no image",
    ),
    "a NUL": (
        record(
            b"\n+\n\x19\n\x05image\x12\x10\n\x0e\n\x0c\x00\x01\x02\x03\x04\xde\x05\x06\x07\x08\t\n\x0b\n\x0e\n\x05label\x12\x05\x1a\x03\n\x01\x00"
        ),
        "record 1 at byte 0 holds no image",
    ),
    "no example": (record(b"\xff" * 30), "record 1 at byte 0 holds no image"),
    "two for one": (record(example(bytes(16), 0)) * 2, "21 records instead of 20"),
    "none": (b"", "19 records instead of 20"),
}


@pytest.mark.parametrize(("put", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_whole_records_of_something_else_are_named(tmp_path, put, message):
    records = made(tmp_path / "data")
    path = records.folder / "a.tfrecord"
    content = path.read_bytes()
    path.write_bytes(put + content[len(content) // 20 :])  # in the first one's place
    with pytest.raises(InputError, match=message), damage_in_words(records):
        list(records.batches(8))


def test_what_follows_a_compressed_shard_is_named(tmp_path):
    records = made(tmp_path / "data", "GZIP")
    path = records.folder / "a.tfrecord"
    path.write_bytes(path.read_bytes() + b"more")
    message = "a.tfrecord: the bytes after its records are not compressed. Convert"
    with pytest.raises(InputError, match=message), damage_in_words(records):
        list(records.batches(8))


def test_a_compressed_shard_that_expands_without_end_is_refused(tmp_path, monkeypatch):
    records = made(tmp_path / "data", "GZIP")
    path = records.folder / "a.tfrecord"
    bomb = record(bytes(64 * MEGABYTE))
    path.write_bytes(gzip.compress(bomb, 1) * 8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(tf.errors.InvalidArgumentError, match="not as the index says"):
        list(records.batches(8))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024
    monkeypatch.setattr("asl_fast.data.tfrecord.EXPANDED", MEGABYTE)
    with pytest.raises(InputError, match="a.tfrecord is damaged, and expands to more than 1 MiB"):
        Records.open(records.folder, damaged="skip")


BAD_INDICES = [
    {"shards": [{"file": name, "rows": 20, "sha256": ""}]}
    for name in ("../data/a.tfrecord", "/etc/hostname", "..", ".", "", "a/../a.tfrecord", "a\0")
] + [
    {"shape": [10**9, 10**9, 1]},
    {"shape": [float("inf"), 4, 1]},
    {"labels": [0, 10**30]},
    {"shards": [{"file": "a.tfrecord", "rows": 10**30, "sha256": ""}]},
    "[" * 100_000,
]


@pytest.mark.parametrize("changed", BAD_INDICES, ids=lambda changed: str(changed)[:60])
def test_an_index_cannot_lead_elsewhere_or_beyond_all_numbers(tmp_path, changed):
    index = made(tmp_path / "data").folder / "index.json"
    if isinstance(changed, dict):
        changed = json.dumps(json.loads(index.read_text()) | changed)
    index.write_text(changed)
    with pytest.raises(InputError, match="is damaged|is not as|lacks the shard"):
        Records.open(index.parent)


def test_notes_of_shards_cannot_lead_elsewhere(tmp_path):
    path = write_csv(tmp_path / "train.csv", *blobs(40))
    folder = tmp_path / "data"
    outside = tmp_path / ".victim.json"
    outside.write_text("precious")

    def plant(*_):
        note = {"file": "/../../.victim", "rows": 9, "sha256": "", "labels": []}
        (folder / ".part-000003.tfrecord.json").write_text(json.dumps(note))

    assert convert(path, folder, workers=1, shard_rows=10, progress=plant).rows == 40
    assert outside.read_text() == "precious"


# Models

WRITING = "lambda x: (open({!r}, 'w').close(), x)[1]"


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.filterwarnings("ignore:The `lambda`")
def test_a_model_with_code_in_it_is_not_run(tmp_path, ending):
    victim = tmp_path / "written"
    function = eval(WRITING.format(str(victim)))
    assert marshal.dumps(function.__code__)
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Lambda(function, (28, 28, 1))])
    path = tmp_path / f"model.{ending}"
    model.save(path)
    victim.unlink(missing_ok=True)  # building the model has run it
    with pytest.raises(InputError, match="can't be loaded as a Keras model: .*code") as caught:
        saving.load_model(path)
    assert "\n" not in str(caught.value)
    assert not victim.exists()


def test_a_model_that_expands_without_end_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    zipped(path, 1)
    with pytest.raises(InputError, match="expands to .* more than 100 times its size"):
        saving.load_model(path)


Layer = keras.layers


def altered(path, change, *, wrong=None):
    """Saves a small model whose configuration a function changes, with the weights of the small."""
    model = keras.Sequential([keras.Input((28, 28, 1)), Layer.Flatten(), Layer.Dense(2, "softmax")])
    model.save(path.with_name("small.keras"))
    with (
        zipfile.ZipFile(path.with_name("small.keras")) as small,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in small.namelist():
            content = small.read(name)
            if name == "config.json":
                content = change(json.loads(content))
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))


def wide(config):
    config["config"]["layers"][-1]["config"]["units"] = 2_000_000
    return config


def doubling(config):
    """Models within models, each of which calls the one within twice."""
    inner = keras.Sequential([keras.Input((4,)), Layer.Dense(4)])
    for _ in range(4):
        inputs = keras.Input((4,))
        inner = keras.Model(inputs, inner(inner(inputs)))
    text = keras.saving.serialize_keras_object(inner)
    for _ in range(8):
        layers = text["config"]["layers"]
        text = json.loads(json.dumps(text))
        text["config"]["layers"][1] = {**text["config"]["layers"][1], "config": {"layers": layers}}
    return text


def compressed(path, times):
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("x", (times << 20,), "u1", compression="gzip", fillvalue=0)[:] = 0
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", content.getvalue())
        archive.writestr("config.json", "{}")


def elsewhere(path):
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def with_flag(path, bits):
    altered(path, lambda config: config)
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            content[at + place : at + place + 4] = bits
    path.write_bytes(content)


HOSTILE_MODELS = {
    "wide": (lambda path: altered(path, wide), "weights of 6,272,000,000 bytes, which it does not"),
    "doubling": (lambda path: altered(path, doubling), "layers and parts of them"),
    "many": (
        lambda path: altered(
            path, lambda config: [{"class_name": os.urandom(8).hex()} for _ in range(40_000)]
        ),
        "it describes 40,000 layers and parts of them",
    ),
    "nested": (lambda path: altered(path, lambda config: b"[" * 90_000), "recursion depth"),
    "compressed": (lambda path: compressed(path, 200), "more than 100 times its size"),
    "elsewhere": (elsewhere, "its weights lie in other files"),
    "encrypted": (lambda path: with_flag(path, b"\1\0\0\0"), "encrypted"),
    "odd": (lambda path: with_flag(path, b"\0\0\x63\0"), "compression"),
    "large": (
        lambda path: keras.Sequential(
            [keras.Input((28, 28, 1)), Layer.UpSampling2D(2000), Layer.GlobalMaxPooling2D()]
        ).save(path),
        "its layer up_sampling2d[_0-9]* makes 11,962 MiB of one image",
    ),
    "nested and large": (
        lambda path: keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.Sequential([keras.Input((28, 28, 1)), Layer.ZeroPadding2D(20_000)]),
                Layer.GlobalMaxPooling2D(),
            ]
        ).save(path),
        "MiB of one image",
    ),
}


def test_memory_does_not_grow_with_what_a_model_describes(tmp_path):
    endings = {name: "h5" if name == "elsewhere" else "keras" for name in HOSTILE_MODELS}
    for name, (write, _) in HOSTILE_MODELS.items():
        write(tmp_path / f"{name}.{endings[name]}")
    (tmp_path / "small.keras").unlink()
    lines, grown = peak_of(
        """
from pathlib import Path
from asl_fast.models import saving
begin()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        saving.load_model(path)
    except saving.InputError as error:
        print(error)
""",
        tmp_path,
    )
    names = sorted(HOSTILE_MODELS, key=lambda name: f"{name}.{endings[name]}")
    for name, line in zip(names, lines, strict=True):
        assert re.search(HOSTILE_MODELS[name][1], line), line
    assert grown < 150


ODD_FACTS = ["[" * 90_000, "[]", '{"letters": "ABC"}', '{"letters": ["A"], "pixels": 3}', "\xff"]


@pytest.mark.parametrize("facts", ODD_FACTS, ids=lambda facts: facts[:9])
def test_odd_letters_are_told(tmp_path, facts):
    path = tmp_path / "model.keras"
    altered(path, lambda config: config)
    assert saving.read_letters(path) is None
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("asl_fast.json", facts.encode("latin-1"))
    with pytest.raises(InputError, match="letters in .* are damaged"):
        saving.read_letters(path)


def test_large_activations_make_small_batches():
    sides = [keras.Input((32, 32, 1)), Layer.UpSampling2D(64), Layer.GlobalMaxPooling2D()]
    assert limits.batch_size(keras.Sequential(sides), 256) == 64
    assert limits.batch_size(keras.Sequential([sides[0], sides[2]]), 256) == 256


# Checkpoints, settings, cache


def checkpoint(folder, facts=None, values=(), save=np.savez):
    """Writes a checkpoint with a right checksum, whatever is in it."""
    import hashlib

    whole = {
        "identity": {}, "epoch": 0, "step": 1, "steps": 2,
        "history": {}, "epochs": [], "callbacks": [],
    }  # fmt: skip
    text = facts if isinstance(facts, str) else json.dumps(whole | (facts or {}))
    content = io.BytesIO()
    save(content, np.frombuffer(text.encode(), np.uint8), *values)
    payload = content.getvalue()
    folder.mkdir(exist_ok=True)
    (folder / "00000001.checkpoint").write_bytes(payload + hashlib.sha256(payload).digest())


def endless(file, *arrays):
    """An array of terabytes, by its header."""
    np.savez(file, *arrays)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 42,)}
    )
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("arr_1.npy", header.getvalue())


def encrypted(file, *arrays):
    np.savez(file, *arrays)
    content = file.getbuffer()
    content[content.tobytes().index(b"PK\x01\x02") + 8] |= 1


def odd_header(file, *arrays):
    """One that NumPy reads as Python, and can't."""
    np.savez(file, *arrays)
    content = file.getbuffer()
    at = content.tobytes().index(b"{'descr'")
    content[at : at + 3] = b"(\\x"


OTHER_CHECKPOINTS = {
    "a list": {"facts": "[]"},
    "brackets without end": {"facts": "[" * 100_000},
    "an epoch in words": {"facts": {"epoch": "1"}},
    "a step below 0": {"facts": {"step": -1}},
    "a step beyond the epoch": {"facts": {"step": 3}},
    "no history": {"facts": {"history": None}},
    "pickled": {
        "values": [np.array([object()])],
        "save": lambda *a: np.savez(*a, allow_pickle=True),
    },
    "compressed": {"save": np.savez_compressed},
    "endless": {"save": endless},
    "encrypted": {"save": encrypted},
    "an odd header": {"save": odd_header},
}


@pytest.mark.parametrize("arguments", OTHER_CHECKPOINTS.values(), ids=OTHER_CHECKPOINTS)
def test_a_checkpoint_of_something_else_is_passed_over(tmp_path, caplog, arguments):
    checkpoint(tmp_path, **arguments)
    assert Checkpoints(tmp_path).load() is None
    assert "00000001.checkpoint is not a checkpoint of this package" in caplog.text


def test_a_checkpoint_with_other_callbacks_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    values = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    checkpoint(tmp_path, {"step": 0, "callbacks": [1]}, values)
    with pytest.raises(InputError, match="begun with other callbacks"):
        Checkpointing(Checkpoints(tmp_path), 2, 0).restore(model)
    checkpoint(tmp_path, {"step": 0}, [v.astype(np.float64) for v in values])
    with pytest.raises(InputError, match="belongs to another model or optimizer"):
        Checkpointing(Checkpoints(tmp_path), 2, 0).restore(model)


SETTINGS = {
    "data": {"folder": "a"}, "network": "course", "weights": None, "frozen": False,
    "recipe": "fast", "changes": {}, "augment": True, "seed": 0,
    "precision": "auto", "jit": "auto", "resident": "auto", "steps_per_execution": None,
    "deterministic": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    ["", "[]", "[" * 100_000, "{}", {"seed": "x"}, {"data": ["a"]}, {"data": {"folder": 1}}],
    ids=lambda content: str(content)[:20],
)
def test_settings_that_no_run_wrote_are_refused(tmp_path, content):
    path = tmp_path / "checkpoints" / "settings.json"
    path.parent.mkdir()
    path.write_text(json.dumps(SETTINGS))
    assert run_folder.stopped(tmp_path) == SETTINGS | {"damaged": "stop"}
    path.write_text(json.dumps(SETTINGS | content) if isinstance(content, dict) else content)
    with pytest.raises(InputError, match="settings.json can't be read, or a run did not write it"):
        run_folder.stopped(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "slow"}, "The recipe must be one of course, fast"),
        ({"jit": "maybe"}, "The jit must be one of auto, on, off"),
        ({"changes": {"speed": 9}}, "A recipe has no speed"),
        ({"changes": {"epochs": 2.5}}, "The epochs must be a whole number"),
        ({"changes": {"learning_rate": 10**400}}, "The learning rate must be above 0"),
        ({"changes": {"augment": 1}}, "The augment must be AugmentOptions"),
    ],
)
def test_a_run_checks_what_its_settings_say(folder, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        run.train(dataset.load(folder), tmp_path / "run", **arguments)


PARTS = ["images.npy", "labels.npy", "facts.json", "sha256"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_cached_data_are_made_anew(part, damage, caplog):
    images, labels = blobs(3)
    storage.save_entry("key", images, labels, {"sha256": "0"})
    path = storage.cache_folder() / "key" / part
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(content[:place] if damage == "cut" else changed)
        assert storage.load_entry("key", (28, 28, 1), 24) is None
        assert "is damaged and is made anew" in caplog.text
        caplog.clear()
    path.write_bytes(content)
    assert storage.load_entry("key", (28, 28, 1), 24) is not None


OTHERS = {
    "another shape": {"images": np.zeros((3, 28, 28, 3), np.uint8)},
    "another dtype": {"images": np.zeros((3, 28, 28, 1), np.float32)},
    "more images": {"images": np.zeros((4, 28, 28, 1), np.uint8)},
    "labels beyond the classes": {"labels": np.array([0, 1, 24], np.int32)},
    "labels below 0": {"labels": np.array([0, 1, -1], np.int32)},
    "longer labels": {"labels": np.array([0, 1, 2], np.int64)},
}


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_whole_cached_data_of_something_else_are_made_anew(changed):
    images, labels = blobs(3)
    storage.save_entry("key", **{"images": images, "labels": labels, "facts": {}, **changed})
    assert storage.load_entry("key", (28, 28, 1), 24) is None


def test_a_table_that_changes_while_it_is_read_is_cached_as_what_was_read(tmp_path, monkeypatch):
    path, later = tmp_path / "train.csv", tmp_path / "later.csv"
    write_csv(path, *blobs(48))
    write_csv(later, *blobs(48, seed=1))
    contents = path.read_bytes(), later.read_bytes()
    load = storage.load_entry

    def change(*arguments):
        path.write_bytes(contents[1])
        return load(*arguments)

    monkeypatch.setattr(storage, "load_entry", change)
    changed = dataset.load_csv(path)
    monkeypatch.undo()
    np.testing.assert_array_equal(changed[0], blobs(48, seed=1)[0])
    for content, seed in zip(contents, (0, 1), strict=True):
        path.write_bytes(content)
        np.testing.assert_array_equal(dataset.load_csv(path)[0], blobs(48, seed=seed)[0])

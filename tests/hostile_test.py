"""Files made to do harm: they are refused in a line, before they take memory or run anything."""

import gzip
import io
import json
import lzma
import marshal
import resource
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

from asl_fast import Checkpoints, InputError, Records
from asl_fast.data import csv_table as table
from asl_fast.data import dataset
from asl_fast.data.convert import convert
from asl_fast.data.records import damage_in_words, write_index, write_shard
from asl_fast.images import decode
from asl_fast.models import saving
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
def test_a_table_that_expands_without_end_is_refused(tmp_path, ending, monkeypatch):
    path = tmp_path / f"train.csv.{ending}"
    if ending == "zip":
        zipped(path, 3)
    else:
        path.write_bytes({"gz": gzip, "xz": lzma}[ending].compress(ZEROS) * 3)
    monkeypatch.setattr(table, "EXPANDED", 20 * MEGABYTE)
    with pytest.raises(InputError, match=f"train.csv.{ending} expands to more than 20 MiB"):
        table.decompress(path.read_bytes(), str(path))
    with pytest.raises(InputError, match=f"train.csv.{ending}, line 1 is longer than"):
        convert(path, tmp_path / "records", workers=1)


def test_memory_does_not_grow_past_the_limit(tmp_path):
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(ZEROS) * 256)  # 4 GiB in 4 MB
    lines, grown = peak_of(
        """
from asl_fast.data import csv_table as table
content = open(sys.argv[1], "rb").read()
begin()
try:
    table.decompress(content, "train.csv.gz")
except table.InputError as error:
    print(error)
""",
        path,
    )
    assert "expands to more than 512 MiB" in lines[0]
    assert grown < 1.1 * table.EXPANDED / MEGABYTE


def test_blank_rows_without_end_are_not_converted(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "EXPANDED", MEGABYTE)
    header = write_csv(tmp_path / "one.csv", *blobs(1)).read_bytes().splitlines(True)[0]
    blank = b"0" + b",0" * 784 + b"\n"
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(header + blank * 20_000))
    with pytest.raises(InputError, match="expands to more than 100 times its size"):
        convert(path, tmp_path / "records", workers=1, shard_rows=10**6)


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
        table.decompress(bytes(changed), "train.zip")


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
from asl_fast.images import decode
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
    assert run_folder.stopped(tmp_path) == SETTINGS
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


@pytest.mark.parametrize("part", ["images.npy", "labels.npy", "facts.json"])
def test_cached_data_cut_anywhere_are_made_anew(part, caplog):
    images, labels = blobs(3)
    storage.save_entry("key", images, labels, {"sha256": "0"})
    path = storage.cache_folder() / "key" / part
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert storage.load_entry("key") is None
        assert "is damaged and is made anew" in caplog.text
        caplog.clear()
    path.write_bytes(content)
    assert storage.load_entry("key") is not None

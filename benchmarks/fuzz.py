"""Feeds broken and hostile input to everything that reads files, guided by coverage.

    python -m benchmarks.fuzz --seconds 3600 --out fuzz [TARGET …]

A finding is an undocumented exception, a crash, an input that takes more than 20 seconds, or 4 GiB
of memory. Each is written to the folder as `TARGET/KIND` with its traceback beside it; earlier
inputs are tried first. Needs the extra `fuzz` (atheris).

To add a target, write a function that returns what takes an input, and seeds, and name it in
`TARGETS`. The first byte of an input selects a kind where a target reads several.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT, MEMORY = 20, 4096  # seconds an input, MiB

Take = Callable[[bytes], None]


def table(folder: Path) -> tuple[Take, list[bytes]]:
    """CSV tables, plain and compressed."""
    import lzma
    import zipfile

    from asl_fast.data import csv_table
    from asl_fast.data.file_table import FileTable

    header = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))]).encode() + b"\n"

    def take(data: bytes) -> None:
        kind, data = data[:1], data[1:]
        if kind == b"h":
            data = header + data
        elif kind == b"r":  # the first cells of a row
            data = header + data + b",1" * max(0, 784 - data.count(b",")) + b"\n"
        elif kind == b"z":
            data = zlib.compress(header + data, wbits=31)
        elif kind == b"l":  # a list of files
            (folder / "list.csv").write_bytes(b"filename,class" + data)
            FileTable.find(folder / "list.csv")
            return
        csv_table.parse(io.BytesIO(data), "a table")

    row = b"9" + b",255" * 784 + b"\n"
    whole = header + row
    seeds = [b"p" + whole, b"h" + row, b"r9,255,0", b"z" + row, b'r"9",1.0,1e2,-0,True,nan']
    seeds.append(b"p" + zlib.compress(whole, wbits=31))
    seeds.append(b"p" + lzma.compress(whole))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train.csv", whole)
    seeds += [b'l\n"a.png",a\n', b"l,c\na,b,c\n", b"z1\n1\n1\n", b"h" + row * 2 + b"\r1\r1\n"]
    return take, [*seeds, b"p" + archive.getvalue()]


def records(folder: Path) -> tuple[Take, list[bytes]]:
    """The index of records, and shards whose checksums are right or not."""
    import google_crc32c
    import numpy as np
    import tensorflow as tf

    from asl_fast.data.records import Records, damage_in_words, write_index, write_shard
    from asl_fast.system.errors import InputError

    images = np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3)
    shards = {
        compression: write_shard(
            folder / f"{compression}.tfrecord", images, [0, 1, 0, 1], compression
        )
        for compression in ("", "GZIP")
    }
    contents = {kind: (folder / shard.file).read_bytes() for kind, shard in shards.items()}
    indices, datasets = {}, {}
    for kind, shard in shards.items():
        write_index(folder, (2, 2, 3), (0, 1), "ab", kind, [shard], {})
        indices[kind] = (folder / "index.json").read_bytes()
        whole = Records.open(folder)
        stored = whole.epoch(tf.constant(0, tf.int64), 3, guarded=False)
        datasets[kind] = stored.map(lambda _, serialized, whole=whole: whole.parse(serialized))

    def masked(data: bytes) -> bytes:
        checksum = google_crc32c.value(data)
        rotated = ((checksum >> 15) | (checksum << 17)) + 0xA282EAD8
        return (rotated & 0xFFFFFFFF).to_bytes(4, "little")

    def take(data: bytes) -> None:
        kind, data = data[:1], data[1:]
        compression = "GZIP" if kind in b"gG" else ""
        content, index = contents[compression], indices[compression]
        if kind == b"i":
            index = data
        elif kind in b"eE":  # another first example, with its own length or a wrong one
            length = data[:8] if kind == b"E" else len(data).to_bytes(8, "little")
            content = length + masked(length) + data + masked(data) + content[len(content) // 4 :]
        elif kind == b"G":
            content = zlib.compress(data, wbits=31)
        else:
            content = data
        (folder / shards[compression].file).write_bytes(content)
        (folder / "index.json").write_bytes(index)
        for damaged in ("stop", "skip"):
            with contextlib.suppress(InputError):
                opened = Records.open(folder, damaged)
                if kind == b"i" or damaged == "skip":
                    continue
                # What a dataset does, without making one anew for each input.
                with damage_in_words(opened):
                    if opened._has_rows(folder / opened.shards[0].file, opened.rows):
                        list(datasets[compression])
                    else:
                        list(opened.damage())

    example = contents[""][12 : 12 + int.from_bytes(contents[""][:8], "little")]
    seeds = [b"i" + indices[""], b"i" + indices["GZIP"], b"s" + contents[""]]
    seeds += [b"g" + contents["GZIP"], b"G" + contents[""], b"e" + example, b"E" + example]
    return take, seeds


def image(folder: Path) -> tuple[Take, list[bytes]]:
    """Image files of all kinds."""
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from asl_fast.images import decode

    path = folder / "image"
    loads = [
        tf.function(
            lambda name, mode=mode: decode.load_image(name, target_size=(8, 8), color_mode=mode)
        )
        for mode in ("rgb", "grayscale", "rgba")
    ]

    def take(data: bytes) -> None:
        path.write_bytes(data[1:])
        reason = decode.sniff(path)
        try:
            loads[(data or b"\0")[0] % 3](tf.constant(str(path)))
        except tf.errors.OpError:
            return
        assert reason is None, f"read, although it {reason}"

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    rgba = Image.fromarray(pixels)
    seeds = []
    for kind, mode in (
        ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB"), ("JPEG", "CMYK"),
        ("BMP", "RGB"), ("GIF", "P"), ("TIFF", "RGB"), ("WEBP", "RGBA"), ("PPM", "L"),
        ("ICO", "RGBA"), ("TGA", "RGB"), ("JPEG2000", "RGB"),
    ):  # fmt: skip
        file = io.BytesIO()
        (rgba.convert("L").convert(mode) if ";" in mode else rgba.convert(mode)).save(file, kind)
        seeds += [first + file.getvalue() for first in (b"\0", b"\1", b"\2")]
    return take, seeds


def model(folder: Path) -> tuple[Take, list[bytes]]:
    """Model files: their archives, configurations, metadata and HDF5 files."""
    import zipfile

    import keras

    from asl_fast.models import saving

    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)]
    )
    path, legacy = folder / "a.keras", folder / "a.h5"
    saving.save_model(network, path, "AB")
    network.save(legacy)
    whole, hdf5 = path.read_bytes(), legacy.read_bytes()
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    kinds = {b"c": "config.json", b"w": "model.weights.h5", b"l": "asl_fast.json"}

    def take(data: bytes) -> None:
        kind, data = data[:1], data[1:]
        target = legacy if kind == b"h" else path
        if kind in kinds:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in parts.items():
                    archive.writestr(name, data if name == kinds[kind] else content)
        else:
            target.write_bytes(data)
        saving.load_model(target)
        saving.read_letters(target)

    seeds = [kind + parts[name] for kind, name in kinds.items()]
    for old, new in ((b'"units": 2', b'"units": 2000000'), (b"[3, 3]", b"[3000, 3000]")):
        seeds.append(b"c" + parts["config.json"].replace(old, new))
    return take, [*seeds, b"z" + whole, b"h" + hdf5]


def options(folder: Path) -> tuple[Take, list[bytes]]:
    """Recipes, augmentation and standardisation, with values of any kind."""
    import dataclasses

    import atheris
    import numpy as np

    from asl_fast.models.recipe import RECIPES, Recipe
    from asl_fast.transforms.augment_options import AugmentOptions
    from asl_fast.transforms.standardize_options import StandardizeOptions

    def value(source: Any) -> Any:
        kinds: list[Callable[[], Any]] = [
            lambda: source.ConsumeFloat(),
            lambda: source.ConsumeInt(8),
            lambda: 10 ** source.ConsumeIntInRange(0, 400),
            lambda: source.ConsumeProbability(),
            lambda: source.ConsumeUnicode(8),
            lambda: source.PickValueInList(["nearest", "wrap", "muon", "cosine", "channels_first"]),
            lambda: None,
            lambda: source.ConsumeBool(),
            lambda: [value(source) for _ in range(source.ConsumeIntInRange(0, 3))],
            lambda: tuple(value(source) for _ in range(2)),
            lambda: np.array([source.ConsumeFloat() for _ in range(2)]),
            lambda: np.float32(source.ConsumeRegularFloat()),
            lambda: np.zeros((2, 2)),
            lambda: complex(1, 2),
            lambda: {},
            lambda: len,
        ]
        return source.PickValueInList(kinds)()

    classes = {
        Recipe: {"augment": RECIPES["course"].augment},
        AugmentOptions: {},
        StandardizeOptions: {},
    }

    def take(data: bytes) -> None:
        source = atheris.FuzzedDataProvider(data)
        kind = source.PickValueInList(list(classes))
        names = [field.name for field in dataclasses.fields(kind)]
        given = {source.PickValueInList(names): value(source) for _ in range(3)}
        created = kind(**(classes[kind] | given))
        hash(created)
        json.dumps(dataclasses.asdict(created), default=repr)
        if isinstance(created, AugmentOptions):
            assert isinstance(created.idle, bool)

    return take, [bytes(range(64))]


def state(folder: Path) -> tuple[Take, list[bytes]]:
    """Settings and checkpoints of a stopped run, and cached arrays."""
    import numpy as np

    from asl_fast.system import storage
    from asl_fast.training import run_folder
    from asl_fast.training.checkpoint import Checkpointing, Checkpoints

    os.environ["ASL_FAST_CACHE"] = str(folder / "cache")
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.folder.mkdir()
    facts = {"epoch": 1, "step": 2, "steps": 3, "history": {"loss": [1.0]}, "epochs": [0]}
    checkpoints.save({**facts, "callbacks": []}, [np.ones((2, 3), np.float32)])
    path = checkpoints.folder / "00000001.checkpoint"
    whole = path.read_bytes()[:-32]
    settings = {
        "data": ["a", "b"], "recipe": "fast", "changes": {}, "augment": True, "seed": 0,
        "precision": "auto", "jit": "auto", "resident": "auto", "steps_per_execution": None,
        "deterministic": False,
    }  # fmt: skip
    storage.save_entry("k", np.ones((3, 2, 2, 1), np.uint8), np.ones(3, np.int32), {"sha256": ""})
    cached = folder / "cache" / "k"
    parts = {kind: cached / name for kind, name in zip(b"ILFD", os.listdir(cached), strict=True)}
    stored = {kind: part.read_bytes() for kind, part in parts.items()}
    metrics = json.dumps({"settings": settings}).encode()

    def take(data: bytes) -> None:
        kind, data = data[:1], data[1:]
        if kind == b"s":
            (checkpoints.folder / "settings.json").write_bytes(data)
            run_folder.stopped(folder)
        elif kind == b"m":
            (folder / "metrics.json").write_bytes(data)
            run_folder.finished(folder)
        elif kind and kind[0] in parts:
            parts[kind[0]].write_bytes(data)
            entry = storage.load_entry("k", (2, 2, 1), 24)
            assert entry is None or data == stored[kind[0]], "damage is believed"
            parts[kind[0]].write_bytes(stored[kind[0]])
        else:
            if kind == b"f":  # facts in a valid container
                file = io.BytesIO()
                np.savez(file, np.frombuffer(data, np.uint8))
                data = file.getvalue()
            path.write_bytes(data + hashlib.sha256(data).digest())
            Checkpointing(checkpoints, 3, 0)

    text = json.dumps({"identity": {}, "callbacks": [], **facts}).encode()
    seeds = [b"s" + json.dumps(settings).encode(), b"f" + text, b"c" + whole, b"m" + metrics]
    return take, seeds + [bytes([kind]) + content for kind, content in stored.items()]


TARGETS = {target.__name__: target for target in (table, records, image, model, options, state)}
_PACKAGES = ["asl_fast", "zipfile", "gzip", "json"]


def child(name: str, seconds: int, out: Path) -> None:
    """Fuzzes one target; libFuzzer ends this process."""
    import atheris

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import logging

    logging.disable()
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=_PACKAGES, enable_loader_override=False):
        take, seeds = TARGETS[name](Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-")))
    corpus = out / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    seen = {path.name.removesuffix(".txt") for path in (out / name).glob("*.txt")}

    def one(data: bytes) -> None:
        try:
            take(data)
        except Exception as error:
            # Documented are `InputError`, a `ValueError`, and for options others from Python.
            documented = type(error).__module__.startswith("asl_fast") or name == "options"
            if isinstance(error, ValueError) and documented:
                return
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
            if kind not in seen:
                seen.add(kind)
                (out / name / kind).write_bytes(data)
                trace = "".join(traceback.format_exception(error))
                (out / name / f"{kind}.txt").write_text(trace)

    limits = [f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEMORY}", f"-max_total_time={seconds}"]
    where = [f"-artifact_prefix={out / name}/", "-max_len=20000", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, *where, str(corpus)], one)
    atheris.Fuzz()


def main() -> None:
    """Fuzzes each target in a process of its own, one after the other, and counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []])
    parser.add_argument("--seconds", type=int, default=3600, help="of all targets together")
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    parser.add_argument("--child", choices=TARGETS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.seconds, given.out)
        return
    targets = given.targets or list(TARGETS)
    seconds = given.seconds // len(targets)
    print("| target | inputs | seconds | findings |\n| --- | --- | --- | --- |")
    for name in targets:
        inputs, end = 0, time.monotonic() + seconds
        while (left := int(end - time.monotonic())) > 0:  # a crash ends the process
            command = [sys.executable, "-m", "benchmarks.fuzz", "--child", name]
            command += ["--seconds", str(left), "--out", str(given.out)]
            ended = subprocess.run(command, capture_output=True, text=True)
            (given.out / name / "log").write_text(ended.stderr[-20_000:])
            counted = re.search(r"number_of_executed_units: (\d+)", ended.stderr)
            inputs += int(counted[1]) if counted else 0
            if not counted and ended.returncode:
                sys.exit(f"{name} can't be fuzzed:\n{ended.stderr[-2000:]}")
        kinds = ["*.txt", "crash-*", "timeout-*", "oom-*"]
        findings = [path for kind in kinds for path in (given.out / name).glob(kind)]
        print(f"| {name} | {inputs:,} | {seconds} | {len(findings)} |", flush=True)


if __name__ == "__main__":
    main()

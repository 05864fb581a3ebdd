import os
import subprocess
import sys
import zipfile
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asl_fast import InputError, load_csv
from asl_fast.data import dataset
from asl_fast.data.convert import convert, convert_all
from tests.samples import blobs, write_csv


def read(records):
    """Returns the images and classes in their order."""
    batches = list(records.batches(64).as_numpy_iterator())
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("ending", ["", ".gz", ".zip"])
def test_a_table_is_converted_in_parts(tmp_path, ending):
    images, labels = blobs(100)
    path = write_csv(tmp_path / f"train.csv{ending}", images, labels + (labels > 8))
    if ending == ".zip":
        content = path.read_bytes()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train.csv", content)
    counted = []
    records = convert(
        path,
        tmp_path / "data",
        shard_rows=30,
        workers=1,
        progress=lambda rows, total: counted.append(rows),
    )
    assert [shard.rows for shard in records.shards] == [30, 30, 30, 10]
    assert sorted(counted) == [10, 30, 30, 30]
    assert {path.name for path in records.folder.iterdir()} == {
        "index.json",
        *(shard.file for shard in records.shards),
    }
    expected = load_csv(path)
    images, classes = read(records)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(classes, expected[1])


def test_image_files_are_converted_by_folder_and_by_dataframe(tmp_path):
    names = []
    for number in range(12):
        name = f"{('NA', 'x', 'y')[number % 3]}/{number}.png"
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 7, 3), 20 * number, np.uint8)).save(tmp_path / "files" / name)
        names.append(name)
    frame = pd.DataFrame({"filename": names, "class": [name.split("/")[0] for name in names]})
    frame.to_csv(tmp_path / "files" / "list.csv", index=False)
    absolute = frame.assign(filename=[str(tmp_path / "files" / name) for name in names])
    for number, source in enumerate(
        (tmp_path / "files", tmp_path / "files" / "list.csv", absolute)
    ):
        records = convert(source, tmp_path / str(number), size=(4, 6), color_mode="rgb", workers=1)
        assert records.shape == (4, 6, 3)
        assert records.classes == ("NA", "x", "y")
        images, classes = read(records)
        shades = images[:, 0, 0, 0] // 20
        assert sorted(shades) == list(range(12))
        assert list(shades) != sorted(shades)
        np.testing.assert_array_equal(classes, shades % 3)
        assert (images == images[:, :1, :1, :1]).all()


BAD = {
    "no source": ("nowhere", {}, "There is no file or folder"),
    "no images": ("empty", {}, "holds no data set. Give one of these"),
    "a bad pixel": ("bad.csv", {}, "bad.csv, row 45, column pixel1: holds 999"),
    "no rows": ("header.csv", {}, "header.csv has a header but no rows"),
    "both spellings": ("both.csv", {}, "holds the labels 9 and 24"),
    "no class": ("files.csv", {}, "files.csv, row 2: a cell is empty"),
    "no table": ("quoted.csv", {}, "quoted.csv can't be read as a list of files: unexpected end"),
    "no image": ("broken", {}, "1.png is no image that can be read"),
    "cut short": ("cut.csv.gz", {}, "cut short or damaged"),
    "one long row": ("long.csv", {}, "line 2 is longer"),
    "no rows a shard": ("bad.csv", {"shard_rows": 0}, "`shard_rows` must be at least 1"),
    "a color mode": ("bad.csv", {"color_mode": "gray"}, "`color_mode` must be one of"),
}


@pytest.mark.parametrize(("source", "arguments", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_converted_is_named(tmp_path, source, arguments, message):
    images, labels = blobs(100)
    path = tmp_path / source
    if source == "empty":
        path.mkdir()
    elif source == "broken":
        (path / "a").mkdir(parents=True)
        (path / "a" / "1.png").write_bytes(b"no image")
    elif source == "bad.csv":
        lines = write_csv(path, images, labels).read_text().split("\n")
        lines[45] = lines[45].split(",", 2)[0] + ",999," + lines[45].split(",", 2)[2]
        path.write_text("\n".join(lines))
    elif source == "header.csv":
        header, *_ = write_csv(path, images, labels).read_text().splitlines(keepends=True)
        path.write_text(header)
    elif source == "both.csv":
        write_csv(path, images, np.where(labels == 0, 24, labels))
    elif source == "files.csv":
        path.write_text("filename,class\na.png,a\nb.png,\n")
    elif source == "quoted.csv":
        path.write_text('filename,class\n"a.png,a\n')
    elif source == "cut.csv.gz":
        path.write_bytes(write_csv(path, images, labels).read_bytes()[:-2000])
    elif source == "long.csv":
        header = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))])
        path.write_text(f"{header}\n" + "1" * (40 << 20))
    with pytest.raises(InputError, match=message):
        convert(path, tmp_path / "data", **{"shard_rows": 40, "workers": 1, **arguments})
    assert not (tmp_path / "data" / "index.json").exists()


def test_a_worker_that_was_killed_is_told(tmp_path, monkeypatch):
    def submit(*_):
        raise BrokenProcessPool

    monkeypatch.setattr("asl_fast.system.workers.Workers.submit", submit)
    path = write_csv(tmp_path / "train.csv", *blobs(30))
    with pytest.raises(InputError, match="process of the conversion was killed.*fewer workers"):
        convert(path, tmp_path / "data", workers=2)


KILLING = """
import os, signal, sys
from pathlib import Path
from asl_fast.data.convert import convert

source, folder, kill_after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
parts = []

def progress(rows, total):
    parts.append(rows)
    if len(parts) == kill_after:
        os.killpg(0, signal.SIGKILL)

convert(source, folder, shard_rows=10, workers=2, progress=progress)
"""


def test_a_conversion_that_was_killed_goes_on(tmp_path):
    images, labels = blobs(100)
    path = write_csv(tmp_path / "train.csv", images, labels)
    (tmp_path / "killing.py").write_text(KILLING)
    command = [sys.executable, tmp_path / "killing.py", path, tmp_path / "data", "4"]
    process = subprocess.run(command, start_new_session=True, env=os.environ)
    assert process.returncode == -9
    before = {part.name: part.stat().st_mtime_ns for part in tmp_path.glob("data/part*.tfrecord")}
    assert 4 <= len(before) < 10
    with pytest.raises(
        InputError, match="a stopped conversion of something else, or with other options"
    ):
        convert(path, tmp_path / "data", shard_rows=20)
    records = convert(path, tmp_path / "data", shard_rows=10, workers=1)
    after = {part.name: part.stat().st_mtime_ns for part in tmp_path.glob("data/*.tfrecord")}
    assert sum(after[name] == changed for name, changed in before.items()) >= 4
    np.testing.assert_array_equal(read(records)[0], images)
    # The same again, also where it was killed just after its index.
    leftover = tmp_path / "data" / ".part-000003.tfrecord.json"
    for _ in range(2):
        assert convert(path, tmp_path / "data", shard_rows=10) == records
        assert not leftover.exists()
        leftover.write_text("{}")
    with pytest.raises(InputError, match="holds converted data already"):
        convert(path, tmp_path / "data", shard_rows=20)


def test_a_shard_that_was_damaged_before_the_end_is_written_anew(tmp_path):
    path = write_csv(tmp_path / "train.csv", *blobs(100))

    def stop(rows, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(path, tmp_path / "data", shard_rows=50, workers=1, progress=stop)
    shard = tmp_path / "data" / "part-000000.tfrecord"
    content = shard.read_bytes()
    shard.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    convert(path, tmp_path / "data", shard_rows=50, workers=1)
    assert shard.read_bytes() == content


TAKEN = {
    "blank lines at the end": lambda lines: [*lines, *["\n"] * 100],
    "blank lines within": lambda lines: [*lines[:30], " \n", *["\n"] * 50, *lines[30:]],
    "black images": lambda lines: [
        *lines[:11], *["3" + ",0" * 784 + "\n"] * 10, *["4" + ",1" * 784 + "\n"] * 10, *lines[31:]
    ],
    "fractions of 0": lambda lines: [*lines[:11], *["3" + ",1.0" * 784 + "\n"] * 10, *lines[21:]],
}  # fmt: skip
REFUSED = {
    "a cell too many": lambda lines: [*lines[:50], "7," + lines[50], *lines[51:]],
    "too many cells in each row": lambda lines: [lines[0], *(f"7,{line}" for line in lines[1:])],
    "a cell too few": lambda lines: [*lines[:99], lines[99].partition(",")[2]],
    "all scaled": lambda lines: [lines[0], *["9" + ",1" * 784 + "\n"] * 60],
    "some scaled": lambda lines: [*lines[:45], "9" + ",0.5" * 784 + "\n"],
    "empty cells": lambda lines: [*lines[:45], "9" + "," * 784 + "\n"],
    "semicolons": lambda lines: [line.replace(",", ";") for line in lines],
    "a column twice": lambda lines: [lines[0].replace("pixel7,", "pixel8,"), *lines[1:]],
    "a NUL": lambda lines: [*lines[:45], "9\0" + ",1" * 784 + "\n"],
    "a quotation mark": lambda lines: [*lines[:45], '"9' + ",1" * 784 + "\n", *lines[45:]],
}


@pytest.mark.parametrize("change", [*TAKEN.values(), *REFUSED.values()], ids=[*TAKEN, *REFUSED])
def test_a_conversion_takes_the_tables_that_a_training_takes(tmp_path, change):
    path = write_csv(tmp_path / "train.csv", *blobs(100))
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    results = []
    for use in (
        load_csv,
        lambda path: read(convert(path, tmp_path / "data", shard_rows=10, workers=1)),
    ):
        try:
            results.append(use(path))
        except InputError as error:
            results.append(str(error))
    if isinstance(results[0], str):
        assert change in REFUSED.values()
        assert results[0].partition(", row")[0] in results[1]
    else:
        assert change in TAKEN.values()
        for expected, converted in zip(*results, strict=True):
            np.testing.assert_array_equal(expected, converted)


def test_both_tables_of_a_folder_are_converted_and_resumed(folder, tmp_path):
    counted = []
    arguments = {"workers": 1, "shard_rows": 50}
    train, valid = convert_all(
        folder,
        tmp_path / "records",
        progress=lambda rows, total: counted.append(rows),
        **arguments,
    )
    assert sorted(counted) == [20, 48, 50, 50]
    assert (train.rows, valid.rows) == (120, 48)
    loaded = dataset.load(tmp_path / "records")
    assert loaded.name == "converted records"
    assert loaded.train.records == train
    (valid.folder / "index.json").unlink()
    written = (train.folder / "index.json").stat().st_mtime_ns
    assert convert_all(folder, tmp_path / "records", **arguments) == [train, valid]
    assert (train.folder / "index.json").stat().st_mtime_ns == written
    with pytest.raises(InputError, match="holds converted data already"):
        convert_all(folder, tmp_path / "records", workers=1, shard_rows=60)
    with pytest.raises(InputError, match="a training and a validation set. Use convert_all"):
        convert(folder, tmp_path / "single")

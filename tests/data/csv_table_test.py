import gzip
import io
import lzma
import zipfile

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from asl_fast import InputError, load_csv
from asl_fast.data import csv_table as table
from tests.samples import blobs, write_csv

IMAGES, LABELS = blobs(48)


@pytest.fixture
def frame():
    pixels = [f"pixel{i}" for i in range(1, 785)]
    return pd.DataFrame(
        np.column_stack([LABELS, IMAGES.reshape(48, -1)]), columns=["label", *pixels]
    )


@pytest.fixture
def parse(tmp_path):
    """Writes a frame or bytes to a file and loads that."""

    def parse(content):
        path = tmp_path / "table.csv"
        if isinstance(content, pd.DataFrame):
            content.to_csv(path, index=False)
        else:
            path.write_bytes(content)
        return load_csv(path)

    return parse


def expect_original(loaded):
    images, labels = loaded
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def test_what_is_written_is_read(tmp_path):
    table.write(tmp_path / "a.csv", IMAGES, LABELS)
    expect_original(load_csv(tmp_path / "a.csv"))


@pytest.mark.parametrize("ending", ["gz", "xz", "zip"])
def test_compressed_files(tmp_path, ending):
    plain = write_csv(tmp_path / "a.csv", IMAGES, LABELS)
    path = tmp_path / f"a.csv.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(plain, "a.csv")
    else:
        path.write_bytes({"gz": gzip, "xz": lzma}[ending].compress(plain.read_bytes()))
    expect_original(load_csv(path))


def test_accepted_variations(frame, parse):
    text = frame.to_csv(index=False)
    expect_original(parse(b"\xef\xbb\xbf" + text.encode()))  # a byte-order mark
    expect_original(parse(text.replace("\n", "\r\n").encode()))
    expect_original(parse(frame.sample(frac=1, axis=1, random_state=0)))  # columns in any order
    expect_original(parse(frame.astype(float)))  # 160.0 is a whole number


def test_both_spellings_of_the_labels_end_alike(frame, parse):
    def parsed(frame):
        return table.parse(io.BytesIO(frame.to_csv(index=False).encode()), "")

    assert parsed(frame).spelling == "course"
    frame["label"] += frame["label"] >= 9
    kaggles = parsed(frame)
    assert kaggles.spelling == "kaggle"
    np.testing.assert_array_equal(kaggles.labels, LABELS)
    assert parsed(frame[frame.label < 9]).spelling == "either"


def change(row, column, value):
    def changed(frame):
        frame = frame.astype(object)
        frame.loc[row, column] = value
        return frame

    return changed


WRONG = {
    "a missing cell": (change(2, "pixel7", None), "row 3, column pixel7: holds nothing"),
    "a word": (change(0, "pixel784", "abc"), "row 1, column pixel784: holds 'abc'"),
    "a truth value": (change(4, "pixel3", True), "row 5, column pixel3: holds 'True'"),
    "not a number": (change(4, "pixel3", "inf"), "row 5, column pixel3"),
    "a negative pixel": (change(6, "pixel1", -1), "row 7, column pixel1: holds -1. Pixels are 0"),
    "a large pixel": (change(6, "pixel2", 256), "row 7, column pixel2: holds 256."),
    "a huge pixel": (change(6, "pixel2", 10**30), "row 7, column pixel2"),
    "a fraction": (change(9, "pixel5", 12.5), "row 10, column pixel5: holds 12.5"),
    "label 25": (change(3, "label", 25), "row 4, column label: holds 25"),
    "label -1": (change(3, "label", -1), "row 4, column label: holds -1"),
    "label 9 as Kaggle counts": (
        lambda frame: frame.assign(label=frame.label + (frame.label > 9)),
        "holds the labels 9 and 24. Labels are 0 to 23, or 0 to 24 without 9",
    ),
    "labels that may be either": (
        lambda frame: frame[frame.label > 9],
        "its labels hold neither 9 nor 24",
    ),
    "scaled pixels": (
        lambda frame: pd.concat([frame[["label"]], frame.filter(like="pixel") / 255], axis=1),
        "look already scaled to [0, 1]",
    ),
    "no label column": (lambda frame: frame.drop(columns="label"), "has no `label` column"),
    "783 pixels": (
        lambda frame: frame.drop(columns="pixel784"),
        "it has 783 pixel columns: pixel784 missing",
    ),
    "785 pixels": (
        lambda frame: frame.assign(pixel785=0),
        "it has 785 pixel columns: pixel785 not expected",
    ),
    "a column twice": (
        lambda frame: frame.assign(**{" pixel2": 0}),
        "pixel2 more than once",
    ),
    "an index column": (
        lambda frame: frame.reset_index().rename(columns={"index": "Unnamed: 0"}),
        "Unnamed: 0 not expected",
    ),
    "no rows": (lambda frame: frame[:0], "has a header but no rows"),
    "nothing": (lambda frame: b"", "is empty"),
    "only a byte-order mark": (lambda frame: b"\xef\xbb\xbf\n", "is empty"),
    "an empty header": (lambda frame: b"\r,", "line 1 holds a carriage return"),
    "semicolons": (
        lambda frame: frame.to_csv(index=False, sep=";").encode(),
        "separates its cells by semicolons. Save it with commas",
    ),
    "tabs": (lambda frame: frame.to_csv(index=False, sep="\t").encode(), "its cells by tabs"),
    "lines of an old Macintosh": (
        lambda frame: frame.to_csv(index=False, lineterminator="\r")[:9000].encode(),
        "line 1 holds a carriage return",
    ),
    "rows within a row": (
        lambda frame: (frame.to_csv(index=False).rstrip() + "\r1" * 99 + "\n").encode(),
        "line 49 holds a carriage return",
    ),
    "a cell over two lines": (
        lambda frame: (
            frame.to_csv(index=False) + "9" + ",1" * 783 + ',"1\n9"' + ",1" * 784 + "\n"
        ).encode(),
        "row 1 or later",
    ),
    "a picture": (lambda frame: b"\x89PNG\r\n\x1a\n\xff\xfe\x00", "it is not text in UTF-8"),
    "a longer first row": (
        lambda frame: frame.to_csv(index=False).replace("\n", ",7\n").replace(",7", "", 1).encode(),
        "row 1: 786 cells where the header has 785 names",
    ),
    "a longer row": (
        lambda frame: (frame.to_csv(index=False) + "1," * 785 + "1\n").encode(),
        "row 49: 786 cells where the header has 785 names",
    ),
    "a shorter row": (
        lambda frame: (frame.to_csv(index=False) + "1,2,3\n").encode(),
        "row 49: 3 cells where the header has 785 names",
    ),
    "a truncated gzip": (
        lambda frame: gzip.compress(frame.to_csv(index=False).encode())[:-500],
        "is cut short or damaged",
    ),
    "a damaged xz": (
        lambda frame: lzma.compress(frame.to_csv(index=False).encode())[:-500],
        "is cut short or damaged",
    ),
    "a damaged zip": (lambda frame: b"PK\x03\x04rubbish", "is cut short or damaged"),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG.keys())
def test_bad_input_is_named_by_file_row_and_column(frame, parse, spoil, message):
    with pytest.raises(InputError) as error:
        parse(spoil(frame))
    text = str(error.value)
    assert message in text
    assert "table.csv" in text
    assert "\n" not in text


def test_the_number_of_further_wrong_cells_is_told(frame, parse):
    frame.loc[[3, 5], "pixel9"] = 300
    with pytest.raises(InputError, match=r"row 4, column pixel9: .* \(1 more such cell.\)"):
        parse(frame)


HEADER = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))]) + "\n"
CELLS = st.sampled_from(["0", "9", "255", "-1", "1e999", "nan", "", '"', "\0", "0x1", "é", " 7 "])


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
@hypothesis.given(
    st.one_of(
        st.binary(max_size=40),
        st.text(max_size=40).map(str.encode),
        st.lists(CELLS, min_size=1, max_size=4).map(
            lambda row: (HEADER + ",".join(row) + ",1" * (785 - len(row)) + "\n").encode()
        ),
    )
)
def test_whatever_is_in_a_table_it_is_read_or_refused_in_words(content):
    said = "a table"
    try:
        images = table.parse(io.BytesIO(content), "a table").images
        assert images.shape == (1, 28, 28, 1)
    except InputError as error:
        said = str(error)
    assert said.startswith("a table")
    assert "\n" not in said

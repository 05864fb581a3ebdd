import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from asl_fast.data import synthetic_hands as hands

Floats = npt.NDArray[np.float64]


def of_each_letter(split: str, seed: int = 0) -> Floats:
    images, labels = hands.render(24, split=split, seed=seed, workers=1)
    return images[np.argsort(labels)].astype(float)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_shapes_dtypes_and_range(split: str) -> None:
    images, labels = hands.render(100, split=split, workers=1)
    assert (images.shape, images.dtype) == ((100, 28, 28, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((100,), np.int32)
    assert set(labels) == set(range(24))
    # The look of the real photographs: mid-grey, and no picture blank.
    assert 120 < images.mean() < 190
    assert 25 < images.std() < 60
    assert images.reshape(100, -1).std(axis=1).min() > 5


def test_letters_have_near_equal_shares() -> None:
    for rows in (1, 24, 100, hands.CHUNK + 30):
        _, labels = hands.render(rows, split="valid", workers=1)
        shares = np.bincount(labels, minlength=24)
        assert shares.sum() == rows
        assert shares.max() - shares.min() <= 1


def test_bytes_do_not_depend_on_workers() -> None:
    rows = 2 * hands.CHUNK + 10
    images, labels = hands.render(rows, split="train", workers=1)
    shared_images, shared_labels = hands.render(rows, split="train", workers=2)
    assert images.tobytes() == shared_images.tobytes()
    assert labels.tobytes() == shared_labels.tobytes()


def test_fewer_rows_are_the_first_of_more() -> None:
    few, more = hands.CHUNK - 84, hands.CHUNK + 60
    images, labels = hands.render(few, split="train", workers=1)
    more_images, more_labels = hands.render(more, split="train", workers=1)
    np.testing.assert_array_equal(images, more_images[:few])
    np.testing.assert_array_equal(labels, more_labels[:few])


def test_seeds_and_splits_show_other_pictures() -> None:
    base = of_each_letter("train")
    for other in (of_each_letter("train", seed=1), of_each_letter("valid")):
        # Far more than noise could: other signers, other poses, other backgrounds.
        assert np.abs(base - other).mean() > 12


def test_splits_and_chunks_have_random_streams_of_their_own() -> None:
    # The order of the letters is drawn from the stream itself, so a shared stream shows in it.
    _, train = hands.render(2 * hands.CHUNK, split="train", workers=1)
    _, valid = hands.render(hands.CHUNK, split="valid", workers=1)
    assert not np.array_equal(train[: hands.CHUNK], train[hands.CHUNK :])
    assert not np.array_equal(train[: hands.CHUNK], valid)


def test_train_repeats_photographs_with_small_changes() -> None:
    photographs = hands.SPLITS["train"].photographs
    images, labels = hands.render(24 * (photographs + 1), split="train", workers=1)
    images = images[np.lexsort((np.arange(len(labels)), labels))].astype(float)
    first, again, another = (images.reshape(24, -1, 784)[:, i] for i in (0, photographs, 1))
    assert 0 < np.abs(first - again).mean() < 0.75 * np.abs(first - another).mean()


def test_letters_can_be_told_apart() -> None:
    images, labels = hands.render(24 * 60, split="train", workers=1)
    pixels = images.reshape(len(images), -1).astype(float)
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    seen, new = slice(0, 24 * 45), slice(24 * 45, None)
    nearest = labels[seen][np.argmax(pixels[new] @ pixels[seen].T, axis=1)]
    assert (nearest == labels[new]).mean() > 0.5  # chance is 0.04
    for letter in range(24):
        assert (nearest == labels[new])[labels[new] == letter].any(), hands.LETTERS[letter]


def test_every_signed_letter_has_a_pose_of_its_own() -> None:
    assert "".join(sorted(hands.POSES)) == hands.LETTERS
    assert len({repr(pose) for pose in hands.POSES.values()}) == 24


def test_valid_has_left_handers_and_train_has_none() -> None:
    assert not hands.take_photographs("train", 0).mirrored.any()
    assert 0 < hands.take_photographs("valid", 0).mirrored.mean() < 0.5


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_every_picture(workers: int) -> None:
    counts: list[int] = []
    rows = hands.CHUNK + 7
    hands.render(rows, split="valid", workers=workers, progress=counts.append)
    assert sorted(counts) == [7, hands.CHUNK]


def run_python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    root = str(Path(hands.__file__).parents[2])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": root},
    )


def test_a_script_without_main_guard_can_use_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from asl_fast.data import synthetic_hands as hands\n"
        "print('run')\n"
        "print(hands.render(hands.CHUNK + 1, split='valid', workers=2)[0].shape)\n"
    )
    ran = run_python(script)
    assert ran.stdout.split("\n")[:2] == ["run", f"({hands.CHUNK + 1}, 28, 28, 1)"], ran.stderr


def test_imports_neither_tensorflow_nor_pandas() -> None:
    code = (
        "import sys, asl_fast.data.synthetic_hands\n"
        "print({'tensorflow', 'keras', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    ran = run_python("-c", code)
    assert ran.stdout.strip() == "set()", ran.stdout + ran.stderr

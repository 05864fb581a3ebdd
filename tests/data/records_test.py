import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import Checkpoints, InputError, Records, fit
from asl_fast.data import dataset
from asl_fast.data.convert import convert
from asl_fast.data.records import write_index, write_shard
from asl_fast.inference import evaluation
from asl_fast.training import run

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (100, 6, 5, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 3, 100) * 10


def made(folder, shards=4, compression=""):
    """Writes the images above as records; labels are 0, 10 and 20."""
    folder.mkdir()
    written = [
        write_shard(folder / f"{number}.tfrecord", images, labels, compression)
        for number, (images, labels) in enumerate(
            zip(np.array_split(IMAGES, shards), np.array_split(LABELS, shards), strict=True)
        )
    ]
    write_index(folder, IMAGES.shape[1:], (0, 10, 20), "abc", compression, written, {})
    return Records.open(folder)


def read(records, epoch=0, **arguments):
    """Returns the rows, images and classes of a pass, batches of 8."""
    found = []
    for rows, serialized in records.epoch(tf.constant(epoch, tf.int64), 8, **arguments):
        assert len(rows) <= 8
        found.append((rows, *records.parse(serialized)))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


# Reading


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_a_pass_holds_each_record_once_in_an_order_of_its_own(tmp_path, compression):
    records = made(tmp_path / "data", compression=compression)
    rows, images, classes = read(records)
    np.testing.assert_array_equal(rows, range(100))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(classes, LABELS // 10)
    orders = [read(records, epoch, seed=3, window=40) for epoch in (0, 0, 1)]
    for rows, images, classes in orders:
        assert sorted(rows) == list(range(100))
        np.testing.assert_array_equal(images, IMAGES[rows])
        np.testing.assert_array_equal(classes, LABELS[rows] // 10)
    np.testing.assert_array_equal(orders[0][0], orders[1][0])
    assert np.mean(orders[0][0] == orders[2][0]) < 0.1
    assert np.mean(orders[0][0] == np.arange(100)) < 0.1


def test_the_parts_of_workers_keep_the_numbers_of_all_rows(tmp_path):
    """By which images are augmented: the same number on two workers would be the same draw."""
    records = made(tmp_path / "data", shards=5)
    parts = [read(records.part(number, 2), seed=3, window=40) for number in range(2)]
    for rows, images, _ in parts:
        np.testing.assert_array_equal(images, IMAGES[rows])
    assert sorted(np.concatenate([rows for rows, *_ in parts])) == list(range(100))
    with pytest.raises(InputError, match="has 5 shards, fewer than the 6 workers"):
        records.part(0, 6)


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations > 17:
            raise KeyboardInterrupt


def trained(x, y=None, *callbacks, folder=None, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 5, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(3, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = fit(
        model,
        x,
        y,
        batch_size=8,
        epochs=3,
        verbose=0,
        callbacks=list(callbacks),
        checkpoints=folder and Checkpoints(folder, 0),
        **arguments,
    )
    return model.get_weights(), history.history


def test_training_streams_what_it_would_have_in_memory(tmp_path):
    records = made(tmp_path / "data")
    valid = IMAGES[:30], LABELS[:30] // 10
    streamed = trained(records, shuffle=False, validation_data=records)
    in_memory = trained(IMAGES, LABELS // 10, shuffle=False, validation_data=(IMAGES, LABELS // 10))
    for one, other in zip(streamed[0], in_memory[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert streamed[1] == in_memory[1]
    assert trained(records, validation_data=valid)[1] != in_memory[1]


def test_a_stream_is_taken_up_within_an_epoch(tmp_path):
    records = made(tmp_path / "data")
    whole = trained(records)
    with pytest.raises(KeyboardInterrupt):
        trained(records, None, Stop(), folder=tmp_path / "kept")
    assert Checkpoints(tmp_path / "kept").load().facts["step"] not in (0, 13)
    again = trained(records, folder=tmp_path / "kept")
    for one, other in zip(again[0], whole[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert again[1] == whole[1]


# Damage


def spoil(records, change):
    path = records.folder / records.shards[1].file
    content = bytearray(path.read_bytes())
    record = len(content) // 25
    if change == "data":
        content[record * 3 + 40] ^= 1
    elif change == "length":
        content[record * 3] ^= 1
    elif change == "cut short":
        content = content[:-5]
    elif change == "compressed":
        content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return record


@pytest.mark.parametrize("change", ["data", "length"])
def test_a_damaged_record_is_named_or_left_out(tmp_path, caplog, change):
    records = made(tmp_path / "data")
    size = spoil(records, change)
    with pytest.raises(InputError, match=rf"1.tfrecord: record 4 at byte {3 * size} is damaged"):
        trained(records)
    kept = Records.open(tmp_path / "data", damaged="skip")
    assert kept.rows == 99
    assert "1 of 100 records are damaged and are left out" in caplog.text
    _, images, _ = read(kept)
    np.testing.assert_array_equal(images, np.delete(IMAGES, 25 + 3, axis=0))
    trained(kept)


@pytest.mark.parametrize(("change", "compression"), [("cut short", ""), ("compressed", "GZIP")])
def test_of_a_spoiled_shard_what_can_be_read_is_kept(tmp_path, caplog, change, compression):
    records = made(tmp_path / "data", compression=compression)
    spoil(records, change)
    kept = Records.open(tmp_path / "data", damaged="skip")
    assert 75 <= kept.rows < 100
    assert f"{100 - kept.rows} of 100 records are damaged" in caplog.text
    _, images, _ = read(kept)
    np.testing.assert_array_equal(images[:25], IMAGES[:25])
    np.testing.assert_array_equal(images[-50:], IMAGES[50:])


def test_where_no_record_is_whole_that_is_said(tmp_path):
    records = made(tmp_path / "data", shards=1)
    (records.folder / records.shards[0].file).write_bytes(bytes(100))
    with pytest.raises(InputError, match="holds no intact record"):
        Records.open(records.folder, damaged="skip")


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"format": 2}, "has the format 2, not 1"),
        ({"shape": [6, 5]}, "is damaged"),
        ({"shards": []}, "is not as"),
        ({"classes": ["a"]}, "is not as"),
        ({"shards": [{"file": "../x", "rows": 1, "sha256": ""}]}, "is not as"),
        ({"shards": [{"file": "9.tfrecord", "rows": 1, "sha256": ""}]}, "lacks the shard 9.tf"),
        (None, "holds no converted data"),
        ("{", "is damaged"),
    ],
)
def test_an_index_that_is_not_whole_is_refused(tmp_path, spoiled, message):
    folder = made(tmp_path / "data").folder
    index = folder / "index.json"
    if spoiled is None:
        index.unlink()
    elif isinstance(spoiled, str):
        index.write_text(spoiled)
    else:
        index.write_text(json.dumps(json.loads(index.read_text()) | spoiled))
    with pytest.raises(InputError, match=message):
        Records.open(folder)


def test_a_run_streams_converted_data(tmp_path, folder):
    for name in ("train", "valid"):
        convert(folder / f"sign_mnist_{name}.csv", tmp_path / "records" / name, workers=1)
    data = dataset.load(tmp_path / "records")
    changes = {"epochs": 1, "batch_size": 60}
    metrics = run.train(data, tmp_path / "run", recipe="course", changes=changes, verbose=0)
    assert metrics["dataset"]["train"]["rows"] == 120
    assert metrics["dataset"]["train"]["source"] == str(tmp_path / "records" / "train")
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    result = evaluation.evaluate(model, data.valid)
    assert result == evaluation.evaluate(model, dataset.load(folder).valid) | {
        "data": data.valid.describe()
    }
    assert result["accuracy"] == pytest.approx(metrics["val_accuracy"])


def test_records_are_not_resized(tmp_path):
    folder = made(tmp_path / "small").folder
    shape = dataset.load(train=folder, valid=folder).train.shape
    with pytest.raises(InputError, match="Convert their source again .*--height 9 --width 7"):
        dataset.load(train=folder, valid=folder, image_size=(9, 7))
    assert shape == Records.open(folder).shape

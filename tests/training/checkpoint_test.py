import contextlib
import errno
import hashlib
import io
import json
import os
import random
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import asl_fast
from asl_fast import Checkpoints, InputError, fit, load_csv
from asl_fast.training.clock import TrainingClock
from tests import forked
from tests.samples import blobs, write_csv

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
LABELS = RNG.integers(0, 4, 60)


class StopAt(keras.callbacks.Callback):
    """Ends the training as Ctrl-C would, in the middle of whatever is going on."""

    def __init__(self, batch, epoch=1, event="batch"):
        super().__init__()
        self.at = event, epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.at == ("batch", self.epoch, batch):
            raise KeyboardInterrupt

    def on_test_batch_end(self, batch, logs=None):
        if self.at == ("test", self.epoch, batch):
            raise KeyboardInterrupt


def train(folder, *callbacks, units=16, optimizer=None, seconds=0.0, identity=None, **arguments):
    """Trains a small network three epochs of six steps; returns its state and history."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(units),
            layers.Dense(4, "softmax"),
        ]
    )
    model.compile(
        optimizer or keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.01, 18)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = fit(
        model,
        IMAGES,
        LABELS,
        batch_size=10,
        epochs=3,
        augment=asl_fast.RandomAugment(rotation_range=20, horizontal_flip=True, dtype="float32"),
        validation_data=(IMAGES[:20], LABELS[:20]),
        validation_batch_size=10,
        callbacks=list(callbacks),
        checkpoints=folder and Checkpoints(folder, seconds, identity),
        verbose=0,
        **{"steps_per_execution": 2, **arguments},
    )
    variables = [*model.variables, *model.optimizer.variables]
    return [variable.numpy() for variable in variables], history.history, history.epoch


def assert_same(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[1:] == other[1:]


def averaged():
    inner = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    return keras.optimizers.LossScaleOptimizer(inner)


@pytest.fixture(scope="module")
def whole():
    """What a training comes to that is never stopped."""
    return train(None)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        train(folder, StopAt(3))
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    """The two checkpoints of a training stopped within its second epoch."""
    return Path(shutil.copytree(stopped, tmp_path / "stopped"))


@pytest.mark.parametrize(
    ("stop", "change"),
    [
        (StopAt(3), {"optimizer": averaged}),
        (StopAt(3), {"resident": False}),
        (StopAt(5, epoch=0), {}),
        (StopAt(1, event="test"), {}),
        (StopAt(3, epoch=2), {"steps_per_execution": 4}),
    ],
    ids=["averaged, loss scaled", "streamed", "last step", "validation", "four"],
)
def test_a_resumed_training_ends_as_one_never_stopped(tmp_path, whole, stop, change):
    def arguments():
        return {name: v() if callable(v) else v for name, v in change.items()}

    if "optimizer" in change:
        whole = train(None, **arguments())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop, **arguments())
    facts = Checkpoints(tmp_path).load().facts
    assert (facts["epoch"], facts["step"]) != (0, 0)
    assert_same(train(tmp_path, **arguments()), whole)


@pytest.mark.parametrize("steps", [2, 3])
def test_it_resumes_within_an_epoch_also_with_other_steps_per_execution(folder, whole, steps):
    assert Checkpoints(folder).load().facts["step"] == 2
    assert_same(train(folder, steps_per_execution=steps), whole)
    # Nothing is left to do.
    assert_same(train(folder, steps_per_execution=steps), whole)


def test_a_model_with_a_loop_of_its_own_resumes_at_whole_epochs(tmp_path):
    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            return super().make_train_function(force)

    def run(*callbacks):
        keras.utils.set_random_seed(1)
        model = Own([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4)])
        model.compile("sgd", "mse")
        labels = np.eye(4)[LABELS]
        history = fit(
            model,
            IMAGES,
            labels,
            batch_size=10,
            epochs=3,
            checkpoints=Checkpoints(tmp_path, 0.0),
            callbacks=list(callbacks),
            verbose=0,
        )
        return model.get_weights(), history.history, history.epoch

    with pytest.raises(KeyboardInterrupt):
        run(StopAt(3))
    facts = Checkpoints(tmp_path).load().facts
    assert (facts["epoch"], facts["step"]) == (1, 0)
    assert run()[2] == [0, 1, 2]


def test_the_state_of_callbacks_is_restored(tmp_path):
    class Counts(keras.callbacks.Callback):
        count = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.count += 1

        def get_state(self):
            return {"count": self.count}

        def set_state(self, state):
            self.count = state["count"]

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Counts(), StopAt(3))
    counts = Counts()
    train(tmp_path, counts)
    assert counts.count == 3


@pytest.mark.parametrize("damage", ["cut short", "a bit", "emptied", "a folder"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(folder, whole, caplog, damage):
    _, last = sorted(folder.glob("*.checkpoint"))
    content = bytearray(last.read_bytes())
    if damage == "a bit":
        content[len(content) // 2] ^= 1
    last.unlink()
    if damage == "a folder":
        last.mkdir()
        (last / "file").touch()
    else:
        cut = {"cut short": -1, "a bit": None, "emptied": 0}[damage]
        last.write_bytes(content[:cut])
    assert Checkpoints(folder).load().facts["step"] == 0
    assert last.name in caplog.text
    if damage in ("cut short", "a folder"):  # a file to replace, and what is none
        assert_same(train(folder), whole)


def rewritten(path, facts=None, value=None):
    """Replaces parts of a checkpoint's content; its hash is right again."""
    with np.load(io.BytesIO(path.read_bytes()[:-32])) as arrays:
        header, *values = (arrays[f"arr_{i}"] for i in range(len(arrays.files)))
    header = json.dumps(json.loads(header.tobytes()) | (facts or {})).encode()
    values = values if value is None else [value(values[0]), *values[1:]]
    content = io.BytesIO()
    np.savez(content, np.frombuffer(header, np.uint8), *values)
    payload = content.getvalue()
    path.write_bytes(payload + hashlib.sha256(payload).digest())


@pytest.mark.parametrize(
    "facts",
    [{"history": {"loss": 5}}, {"history": {"loss": ["a"]}}, {"epochs": ["x"]}, {"epochs": [[]]}],
    ids=str,
)
def test_a_whole_checkpoint_with_odd_facts_is_passed_over(folder, caplog, facts):
    first, last = sorted(folder.glob("*.checkpoint"))
    rewritten(last, facts)
    assert Checkpoints(folder).load().facts["step"] == 0
    assert f"{last} is not a checkpoint of this package" in caplog.text
    assert first.name not in caplog.text


@pytest.mark.parametrize(
    ("facts", "value", "message"),
    [
        ({}, lambda v: v.view(f"i{v.itemsize}"), "belongs to another model or optimizer"),
        ({}, lambda v: v.view(f"S{v.itemsize}"), "belongs to another model or optimizer"),
        (
            {"callbacks": [{}]},
            None,
            r"TrainingClock can't continue from the checkpoint in .* \(KeyError",
        ),
        (
            {"callbacks": [5]},
            None,
            r"TrainingClock can't continue from the checkpoint in .* \(TypeError",
        ),
    ],
)
def test_a_whole_checkpoint_with_odd_content_is_refused(folder, facts, value, message):
    for path in folder.glob("*.checkpoint"):
        rewritten(path, facts, value)
    with pytest.raises(InputError, match=message):
        train(folder, *([TrainingClock()] if "callbacks" in facts else []))


def test_a_full_disk_stops_no_training(folder, whole, monkeypatch, caplog):
    _, last = sorted(folder.glob("*.checkpoint"))

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    before = last.read_bytes()
    assert_same(train(folder), whole)
    assert "can't be written: No space left on device. Training goes on" in caplog.text
    assert last.read_bytes() == before
    assert {path.suffix for path in folder.iterdir()} <= {".checkpoint", ""}


def test_two_trainings_in_one_folder(tmp_path):
    with Checkpoints(tmp_path), pytest.raises(InputError, match="Another training writes to"):
        train(tmp_path)
    with Checkpoints(tmp_path):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"identity": {"seed": 1}}, "begun with another seed: None, and now it is 1"),
        ({"units": 17}, "belongs to another model or optimizer"),
        ({"steps_per_epoch": 5}, "begun with 6 steps an epoch, and now it has 5"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        train(folder, **arguments)


def test_seconds_below_0_are_refused(tmp_path):
    with pytest.raises(InputError, match="seconds between checkpoints must be at least 0: -1"):
        Checkpoints(tmp_path, -1)


# Killed at any moment


class Reporting(Checkpoints):
    """Checkpoints that report each save."""

    def __init__(self, folder, report):
        super().__init__(folder, 0.0)
        self.report = report

    def save(self, facts, values):
        super().save(facts, values)
        self.report("saved")


def trained_from_a_table(folder, name, sender):
    """Reads a table and trains on it, ten epochs of six steps, with a checkpoint after each."""
    sender.send("reading")
    images, labels = load_csv(folder / "table.csv")
    sender.send("read")
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(24, "softmax"))
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "sparse_categorical_crossentropy")
    history = fit(
        model,
        images,
        labels,
        batch_size=20,
        epochs=10,
        checkpoints=Reporting(folder / name, sender.send),
        steps_per_execution=1,
        verbose=0,
    )
    variables = [*model.variables, *model.optimizer.variables]
    state = [variable.numpy().tobytes().hex() for variable in variables]
    result = json.dumps([state, history.history, history.epoch])
    (folder / f"{name}.json").write_text(result)


def test_a_process_killed_at_any_moment_loses_nothing(tmp_path):
    """20 times: while it reads a table and caches it, in steps, and as it writes a checkpoint."""
    write_csv(tmp_path / "table.csv", *blobs(120))
    log = tmp_path / "log"

    def start(name):
        receiver, sender = forked.pipe(duplex=False)
        process = forked.start(log, trained_from_a_table, tmp_path, name, sender)
        sender.close()
        return process, receiver

    def wait_for(message, receiver):
        with contextlib.suppress(EOFError):  # it ended, as nothing was left to do
            while receiver.recv() != message:
                pass
        return time.monotonic()

    whole, messages = start("whole")
    times = {message: wait_for(message, messages) for message in ("reading", "read", "saved")}
    whole.join()
    assert whole.exitcode == 0, log.read_text()
    # From which message on a process lives for how many seconds: up to a third of the steps.
    lives = {
        "reading": times["read"] - times["reading"],
        "saved": (time.monotonic() - times["saved"]) / 3,
    }
    random.seed(0)
    ended = 0
    for message in ["reading"] * 5 + ["saved"] * 15:
        while True:
            if message == "reading":
                shutil.rmtree(os.environ["ASL_FAST_CACHE"], ignore_errors=True)
            process, messages = start(str(ended))
            wait_for(message, messages)
            process.join(random.uniform(0, lives[message]))
            if process.exitcode is None:
                process.kill()
                process.join()
                break
            assert process.exitcode == 0, log.read_text()
            result = (tmp_path / f"{ended}.json").read_text()
            assert result == (tmp_path / "whole.json").read_text()
            ended += 1
    assert ended > 0

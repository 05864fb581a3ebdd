import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asl_fast import DivergenceError, InputError, distribution
from scripts.local_cluster import free_ports

ROOT = Path(__file__).parent.parent

# Trains a small network with batch normalisation; without dropout, as each device draws its own.
TRAINING = """
import contextlib, json, sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from asl_fast import Checkpoints, RandomAugment, Records, distribution, fit
from asl_fast.records import write_index, write_shard

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (70, 8, 8, 1)).astype(np.uint8)
LABELS = RNG.integers(0, 4, 70)


def train(strategy, x=IMAGES, y=LABELS, rate=0.01, **arguments):
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(momentum=0.5),
                layers.Flatten(),
                layers.Dense(4, "softmax"),
            ]
        )
        optimizer = keras.optimizers.SGD(rate, momentum=0.9)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = fit(
        model,
        x,
        y,
        batch_size=16,
        epochs=3,
        verbose=0,
        augment=RandomAugment(rotation_range=20, horizontal_flip=True, dtype="float32"),
        validation_data=(IMAGES[:20], LABELS[:20]),
        validation_batch_size=8,
        **arguments,
    )
    return [w.tolist() for w in model.get_weights()], history.history


def records(folder):
    folder.mkdir()
    shards = [
        write_shard(folder / f"{i}.tfrecord", IMAGES[i::4], LABELS[i::4]) for i in range(4)
    ]
    write_index(folder, (8, 8, 1), range(4), "abcd", "", shards, {})
    return Records.open(folder)
"""

DEVICES = (
    TRAINING
    + """
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 3)
found = {"none": train(None)}
all_of_them = distribution.choose("mirrored").value
found["all"] = train(all_of_them)
found["streamed"] = train(all_of_them, records(Path(sys.argv[1]) / "records"), None)
try:
    train(all_of_them, rate=1e30)
except Exception as error:
    found["diverged"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
)

WORKER = (
    TRAINING
    + """
folder, stop_at = Path(sys.argv[1]), int(sys.argv[2])


class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() >= stop_at:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)


strategy = distribution.choose("auto").value
index = strategy.cluster_resolver.task_id
assert distribution.is_chief(strategy) == (index == 0)
own = Records.open(folder / "records")
streamed = train(strategy, own, None)
callbacks = [Die()] if stop_at and index == 1 else []
kept = Checkpoints(folder / "kept", 0)
result = train(strategy, callbacks=callbacks, checkpoints=kept, steps_per_execution=1)
(folder / f"{index}.json").write_text(json.dumps({"streamed": streamed, "arrays": result}))
"""
)

ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def assert_close(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, folder],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


def test_several_devices_train_what_one_does(on_one_device):
    found, _ = on_one_device
    assert_close(found["all"], found["none"])  # a batch of 16 is no multiple of three devices
    for name in ("accuracy", "val_accuracy"):
        np.testing.assert_allclose(found["all"][1][name], found["none"][1][name], atol=1e-6)
    assert np.isfinite(found["streamed"][1]["loss"]).all()
    assert found["streamed"][1]["loss"][-1] < found["streamed"][1]["loss"][0]


def test_divergence_on_several_devices_names_the_step(on_one_device):
    assert on_one_device[0]["diverged"].startswith(f"{DivergenceError.__name__}: ")
    assert "of 5 in epoch 1" in on_one_device[0]["diverged"]


@pytest.fixture
def start():
    """Starts as many workers on this machine; none outlives the test."""
    started = []

    def begin(count, folder, stop_at=0):
        cluster = {"worker": [f"localhost:{port}" for port in free_ports(count)]}
        for index in range(count):
            task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            with (folder / f"{index}.log").open("w") as log:
                worker = subprocess.Popen(
                    [sys.executable, "-c", WORKER, folder, str(stop_at)],
                    env={**ENVIRONMENT, "TF_CONFIG": json.dumps(task)},
                    cwd=ROOT,
                    stderr=log,
                )
            started.append(worker)
        return started[-count:]

    yield begin
    for worker in started:
        worker.kill()
        worker.wait()


def results(workers, folder):
    """Waits for the workers' end and returns what each came to."""
    for index, worker in enumerate(workers):
        assert worker.wait(timeout=200) == 0, (folder / f"{index}.log").read_text()
    return [json.loads((folder / f"{index}.json").read_text()) for index in range(len(workers))]


@pytest.fixture
def folder(on_one_device, tmp_path):
    (tmp_path / "records").symlink_to(on_one_device[1] / "records")
    return tmp_path


@pytest.mark.parametrize("count", [2, 4])
def test_workers_train_what_one_does_and_agree(on_one_device, start, folder, count):
    first, *others = results(start(count, folder), folder)
    for other in others:
        assert other == first
    assert_close(first["arrays"], on_one_device[0]["none"])


def test_workers_go_on_from_the_checkpoint_after_one_was_killed(on_one_device, start, folder):
    first, second = start(2, folder, stop_at=8)
    assert second.wait(timeout=200) == -signal.SIGKILL
    first.kill()  # it can't go on, and may wait long to find out
    first.wait()
    assert list((folder / "kept").glob("*.checkpoint"))
    one, other = results(start(2, folder), folder)
    assert one == other
    assert_close(one["arrays"], on_one_device[0]["none"])
    assert len(one["arrays"][1]["loss"]) == 3


@pytest.mark.parametrize(
    ("name", "configuration", "message"),
    [
        ("parameter server", None, "must be one of auto, none, mirrored, multiworker"),
        ("multiworker", None, "needs the environment variable TF_CONFIG"),
        ("auto", "{", "TF_CONFIG is not as TensorFlow reads it"),
        ("auto", '{"task": {}}', "TF_CONFIG is not as TensorFlow reads it"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(monkeypatch, name, configuration, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if configuration is not None:
        monkeypatch.setenv("TF_CONFIG", configuration)
    with pytest.raises(InputError, match=message):
        distribution.choose(name)


def test_one_device_needs_no_strategy(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert distribution.choose("auto").value is None
    assert distribution.choose("none").value is None
    assert distribution.is_chief(None)

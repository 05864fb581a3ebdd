import contextlib
import functools
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import (
    Checkpoints,
    DivergenceError,
    ImageDataGenerator,
    InputError,
    RandomAugment,
    Records,
    fit,
)
from asl_fast.data.records import write_index, write_shard
from asl_fast.training import distributed as distribution
from scripts.local_cluster import free_ports
from tests import forked

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (70, 8, 8, 1)).astype(np.uint8)
LABELS = RNG.integers(0, 4, 70)


# In processes of their own, as TensorFlow takes its devices and workers once


class Die(keras.callbacks.Callback):
    """Dies like a process that is killed, after eight steps."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() >= 8:
            os.kill(os.getpid(), signal.SIGKILL)


def train(strategy, x=IMAGES, y=LABELS, rate=0.01, augmented=True, **arguments):
    """Trains with batch normalisation; without dropout, as each device draws its own."""
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
    augment = RandomAugment(rotation_range=20, horizontal_flip=True, dtype="float32")
    history = fit(
        model,
        x,
        y,
        batch_size=16,
        epochs=3,
        verbose=0,
        augment=augment if augmented else None,
        validation_data=(IMAGES[:20], LABELS[:20]),
        validation_batch_size=8,
        **arguments,
    )
    return [w.tolist() for w in model.get_weights()], history.history


def on_devices(folder):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
    devices = distribution.choose("mirrored").value
    found = {
        "none": train(None),
        "all": train(devices),
        "streamed": train(devices, Records.open(folder / "records"), None),
    }
    try:
        train(devices, rate=1e30, augmented=False)
    except DivergenceError as error:
        found["diverged"] = str(error)
    (folder / "devices.json").write_text(json.dumps(found))


def on_two_devices(folder):
    """Trains on datasets, iterators and masks, with weights of classes, on one and two devices."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(15)
    devices = distribution.choose("mirrored").value
    flows = [ImageDataGenerator(zoom_range=0.2).flow(IMAGES, LABELS, 15, seed=1) for _ in range(2)]
    masks = (IMAGES > 128).astype(np.float32)
    weighed = {"class_weight": {0: 3.0, 2: 0.5}}
    cases = {
        "dataset": ({"x": dataset, **weighed}, "classes"),
        "flow": ({**weighed}, "classes"),
        "arrays": ({"x": IMAGES, "y": LABELS, "batch_size": 15, **weighed}, "classes"),
        "masks": ({"x": IMAGES, "y": masks, "batch_size": 15}, "masks"),
    }
    found = {}
    for name, (data, kind) in cases.items():
        for flow, strategy in zip(flows, (None, devices), strict=True):
            keras.utils.set_random_seed(0)
            with strategy.scope() if strategy else contextlib.nullcontext():
                body = [keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")]
                if kind == "classes":
                    body = [keras.layers.Flatten(), keras.layers.Dense(4, "softmax")]
                model = keras.Sequential(
                    [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), *body]
                )
                losses = {"classes": "sparse_categorical_crossentropy", "masks": "mse"}
                model.compile(keras.optimizers.SGD(0.05), losses[kind])
            fit(model, **{"x": flow, "verbose": 0, **data})
            weights = [w.tolist() for w in model.get_weights()]
            found.setdefault(name, []).append((weights, None))
    (folder / "two.json").write_text(json.dumps(found))


def work(folder, number, *, streams=False, dies=False, service=None):
    """Trains as one of several workers."""
    strategy = distribution.choose("auto").value
    assert distribution.is_chief(strategy) == (number == 0)
    result = {}
    if streams:
        result["streamed"] = train(strategy, Records.open(folder / "records"), None)
    if service:
        records = Records.open(folder / "records", service=service)
        result["served"] = train(strategy, records, None, augmented=False)
    result["arrays"] = train(
        strategy,
        callbacks=[Die()] if dies and number else [],
        checkpoints=Checkpoints(folder / "checkpoints", 0),
        steps_per_execution=1,
    )
    (folder / f"{number}.json").write_text(json.dumps(result))


# What is to be seen of them


def assert_close(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds the images above as records."""
    folder = tmp_path_factory.mktemp("distribution")
    (folder / "records").mkdir()
    shards = [
        write_shard(folder / "records" / f"{i}.tfrecord", IMAGES[i::4], LABELS[i::4])
        for i in range(4)
    ]
    write_index(folder / "records", (8, 8, 1), range(4), "abcd", "", shards, {})
    return folder


@pytest.fixture(scope="module")
def on_one_machine(folder):
    """What one device, and three of one machine, came to."""
    process = forked.start(folder / "log", on_devices, folder)
    process.join()
    assert process.exitcode == 0, (folder / "log").read_text()
    return json.loads((folder / "devices.json").read_text())


def test_several_devices_train_what_one_does(on_one_machine):
    found = on_one_machine
    assert_close(found["all"], found["none"])  # a batch of 16 is no multiple of three devices
    for name in ("accuracy", "val_accuracy"):
        np.testing.assert_allclose(found["all"][1][name], found["none"][1][name], atol=1e-6)
    assert np.isfinite(found["streamed"][1]["loss"]).all()
    assert found["streamed"][1]["loss"][-1] < found["streamed"][1]["loss"][0]


def test_divergence_on_several_devices_names_the_step(on_one_machine):
    assert "of 5 in epoch 1" in on_one_machine["diverged"]


def test_datasets_iterators_class_weights_and_masks_on_two_devices(folder):
    process = forked.start(folder / "log2", on_two_devices, folder)
    process.join()
    assert process.exitcode == 0, (folder / "log2").read_text()[-3000:]
    for one, two in json.loads((folder / "two.json").read_text()).values():
        assert_close(two, one)


@pytest.fixture
def start(folder):
    """Starts as many workers on this machine; none outlives the test."""
    started = []

    def begin(count, chief=False, **arguments):
        addresses = [f"localhost:{port}" for port in free_ports(count)]
        cluster = {"worker": addresses[chief:]}
        if chief:
            cluster = {"chief": addresses[:1], **cluster}
        tasks = [(kind, index) for kind in cluster for index in range(len(cluster[kind]))]
        for number, (kind, index) in enumerate(tasks):
            task = {"cluster": cluster, "task": {"type": kind, "index": index}}
            function = functools.partial(work, **arguments)
            log = folder / f"{number}.log"
            started.append(forked.start(log, function, folder, number, TF_CONFIG=json.dumps(task)))
        return started[-count:]

    yield begin
    for worker in started:
        worker.kill()
        worker.join()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def results(workers, folder):
    """Waits for the workers' end and returns what each came to."""
    for index, worker in enumerate(workers):
        worker.join(200)
        assert worker.exitcode == 0, (folder / f"{index}.log").read_text()
    return [json.loads((folder / f"{index}.json").read_text()) for index in range(len(workers))]


def test_workers_train_what_one_does_and_agree(on_one_machine, start, folder):
    first, *others = results(start(4), folder)
    for other in others:
        assert other == first
    assert_close(first["arrays"], on_one_machine["none"])


def test_workers_go_on_from_the_checkpoint_after_one_was_killed(
    on_one_machine, start, folder, served
):
    first, second = start(2, chief=True, dies=True)
    second.join(200)
    assert second.exitcode == -signal.SIGKILL
    first.kill()  # it can't go on, and may wait long to find out
    first.join()
    assert list((folder / "checkpoints").glob("*.checkpoint"))
    one, other = results(start(2, chief=True, streams=True, service=served), folder)
    assert one == other
    assert_close(one["arrays"], on_one_machine["none"])
    assert len(one["arrays"][1]["loss"]) == 3
    for name in ("streamed", "served"):
        assert one[name][1]["loss"][-1] < one[name][1]["loss"][0]


@pytest.mark.parametrize(
    ("name", "configuration", "message"),
    [
        ("parameter server", None, "must be one of auto, none, mirrored, multiworker"),
        ("multiworker", None, "needs the environment variable TF_CONFIG"),
        ("auto", "{", "can't use the environment variable TF_CONFIG"),
        ("auto", '{"task": {}}', "can't use the environment variable TF_CONFIG"),
        (
            "auto",
            '{"cluster": {"worker": ["localhost:1", "localhost:2"]}}',
            "TF_CONFIG: .*must also specify `task_type` and `task_id`. See",
        ),
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

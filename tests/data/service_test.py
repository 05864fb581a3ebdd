import os
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from asl_fast import Checkpoints, InputError, Records, fit
from asl_fast.data import dataset, service
from asl_fast.data.records import damage_in_words, write_index, write_shard
from scripts.local_cluster import free_ports
from tests import forked

IMAGES = np.random.default_rng(0).integers(0, 256, (230, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(230) % 3


@pytest.fixture
def records(tmp_path):
    """The folder of twenty-three shards."""
    folder = tmp_path / "records"
    folder.mkdir()
    shards = [
        write_shard(folder / f"{i}.tfrecord", IMAGES[10 * i :][:10], LABELS[10 * i :][:10])
        for i in range(23)
    ]
    write_index(folder, (4, 4, 1), range(3), "abc", "", shards, {})
    return folder


def test_each_record_comes_once_in_a_pass(served, records):
    streamed = Records.open(records, service=served)
    passes = {2: [], 3: []}
    for rows, images, classes, number in streamed.stream(2, 4, 8, seed=3, window=40):
        np.testing.assert_array_equal(images, IMAGES[rows])
        np.testing.assert_array_equal(classes, LABELS[rows])
        passes[int(number)].append(rows.numpy())
    for batches in passes.values():
        assert [len(rows) for rows in batches] == [8] * 28 + [6]
        assert sorted(np.concatenate(batches)) == list(range(230))
    one, other = (np.concatenate(batches) for batches in passes.values())
    assert np.mean(one == other) < 0.1
    assert np.mean(one == np.arange(230)) < 0.1


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations > 40:
            raise KeyboardInterrupt


def trained(x, folder, *callbacks):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(3, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    kept = Checkpoints(folder, 0)
    arguments = {"batch_size": 8, "epochs": 3, "verbose": 0, "checkpoints": kept}
    return fit(model, x, callbacks=list(callbacks), **arguments).history["loss"]


def test_a_training_goes_on_from_its_last_whole_epoch(served, records, tmp_path):
    streamed = Records.open(records, service=served)
    with pytest.raises(KeyboardInterrupt):
        trained(streamed, tmp_path / "kept", Stop())
    facts = Checkpoints(tmp_path / "kept").load().facts
    assert (facts["epoch"], facts["step"]) == (1, 0)
    # At a whole epoch the service may be left out.
    losses = trained(Records.open(records), tmp_path / "kept")
    assert len(losses) == 3
    assert np.isfinite(losses).all()


def test_a_training_within_an_epoch_is_not_taken_up_in_another_order(served, records, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(Records.open(records), tmp_path / "kept", Stop())
    with pytest.raises(InputError, match="was stopped within an epoch, and the order of these"):
        trained(Records.open(records, service=served), tmp_path / "kept")


def test_damage_is_named(served, records, tmp_path):
    streamed = Records.open(records, service=served)
    path = records / "7.tfrecord"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"7.tfrecord: record 10 at byte \d+ is damaged"):
        trained(streamed, tmp_path / "kept")


@pytest.mark.parametrize("serving", [True, False])
def test_a_shard_cut_between_two_records_is_named(served, records, serving):
    streamed = Records.open(records, service=served if serving else "")
    path = records / "7.tfrecord"

    def read():
        for _, _, _, number in streamed.stream(0, 3, 8, seed=3, window=40):
            if number == 1:  # after a first pass over whole shards
                os.truncate(path, whole // 10 * 4)

    whole = path.stat().st_size
    message = r"7.tfrecord: 4 records instead of 10"
    with pytest.raises(InputError, match=message), damage_in_words(streamed):
        read()


def many(folder):
    """Writes a folder of a hundred shards, so that a pass is never read ahead as a whole."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 60, 28, 28, 1)).astype(np.uint8)
    labels = np.arange(60) % 3
    shards = [write_shard(folder / f"{i}.tfrecord", part, labels) for i, part in enumerate(images)]
    write_index(folder, (28, 28, 1), range(3), "abc", "", shards, {})
    return folder


def test_a_pass_goes_on_once_a_killed_worker_is_started_again(start_service, tmp_path):
    first, *_, other = sorted(free_ports(4))
    start_service(first)
    worker = start_service(other, f"localhost:{first}")
    streamed = Records.open(many(tmp_path / "many"), service=f"localhost:{first}")
    passes = {0: [], 1: []}
    for step, (rows, _, _, number) in enumerate(streamed.stream(0, 2, 32, seed=0, window=200)):
        passes[int(number)].extend(rows.numpy())
        if step == 10:
            worker.kill()
            worker.join()
            worker = start_service(other, f"localhost:{first}")
    for rows in passes.values():
        assert len(set(rows)) == len(rows)
    assert len(passes[0]) > 2000  # without what the worker had at hand
    assert sorted(passes[1]) == list(range(6000))


def test_a_dispatcher_started_anew_ends_the_training_in_words(start_service, tmp_path):
    port = min(free_ports(4))
    process = start_service(port)
    streamed = Records.open(many(tmp_path / "many"), service=f"localhost:{port}")

    def read():
        nonlocal process
        for step, _ in enumerate(streamed.stream(0, 1, 32, seed=0, window=200)):
            if step == 10:
                process.kill()
                process.join()
                process = start_service(port)

    message = f"localhost:{port} failed.*--resume"
    with pytest.raises(InputError, match=message), damage_in_words(streamed):
        read()


def test_a_long_wait_is_told_once(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(service.time, "monotonic", lambda: now[0])
    with service.Waiting("somewhere:1", seconds=0.1) as waiting:
        for _ in range(2):
            waiting.on_train_batch_begin(0)
            now[0] += 1
            while not caplog.records:
                time.sleep(0.01)
            waiting.on_train_batch_end(0)
    (record,) = caplog.records
    assert "tf.data service at somewhere:1 is gone" in record.getMessage()
    caplog.clear()
    with service.Waiting("somewhere:1", seconds=0.1) as waiting:
        waiting.on_train_batch_begin(0)
        waiting.on_train_batch_end(0)
        now[0] += 1
        time.sleep(0.1)
    assert not caplog.records


def test_what_a_service_cannot_do_is_refused(folder):
    with pytest.raises(InputError, match="only converted data. Convert .*sign_mnist_train.csv"):
        dataset.load(folder, service="localhost:1")


NO_ADDRESSES = ["", "host", "host:", "host:99999", ":1", "host:x", "::1:5", "a b:1", "a\0:1"]
NO_ADDRESSES += ["host:٣", "host:" + "9" * 5000]


@pytest.mark.parametrize("address", NO_ADDRESSES, ids=range(len(NO_ADDRESSES)))
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match="address is HOST:PORT"):
        service.check(address)


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "\udcff"])
def test_a_name_that_the_dns_cannot_have_is_refused(host):
    with pytest.raises(InputError, match="No tf.data service answers at .*:5 .*asl-fast data se"):
        service.check(f"{host}:5")


def test_a_service_that_does_not_answer_is_refused():
    (port,) = free_ports(1)
    with pytest.raises(InputError, match=f"answers at localhost:{port} .*asl-fast data serve"):
        service.check(f"localhost:{port}", 2)


SILENT = """
import socket, sys
from asl_fast import InputError
from asl_fast.data import service

with socket.create_server(("localhost", 0)) as server:
    try:
        service.check(f"localhost:{server.getsockname()[1]}", 1)
    except InputError as error:
        print(error)
"""


def test_a_service_that_says_nothing_is_refused_in_time():
    # In a process of its own, as TensorFlow tries on; and the process must end all the same.
    said = subprocess.run(
        [sys.executable, "-c", SILENT], capture_output=True, text=True, timeout=1200
    )
    assert said.returncode == 0, said.stderr
    assert "No tf.data service with a worker answered at localhost:" in said.stdout
    assert "within 1 s" in said.stdout


def test_where_it_cannot_be_reached_is_told():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"Can't listen at port {port}.*--port"):
            service.serve(port, 1, "localhost", None, print)
    with pytest.raises(InputError, match="at least 1 worker"):
        service.serve(port, 0, "localhost", None, print)
    for host in ("", "a b", "host:1", "::1"):
        with pytest.raises(InputError, match="The host must be the name or address"):
            service.serve(port, 1, host, None, print)


@pytest.mark.parametrize(("number", "shell"), [(signal.SIGINT, ""), (signal.SIGTERM, "&")])
def test_it_ends_by_a_signal(tmp_path, number, shell):
    (port,) = free_ports(1)
    begin = forked.in_background if shell == "&" else forked.command_line
    log = tmp_path / "log"
    process = forked.start(log, begin, "data", "serve", "--port", port)
    while "Ctrl-C stops it" not in (log.read_text() if log.exists() else ""):
        assert process.is_alive(), log.read_text()
        time.sleep(0.05)
    if shell == "&":
        os.kill(process.pid, signal.SIGINT)  # which is ignored
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 0, log.read_text()
    assert f"tf.data service at localhost:{port}" in log.read_text()
    assert "It listens on all addresses of this machine" in log.read_text()
    assert "Traceback" not in log.read_text()

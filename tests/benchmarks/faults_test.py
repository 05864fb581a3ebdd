import os
import signal

import keras
import numpy as np
import pytest

from asl_fast import Checkpoints, fit
from asl_fast.training.event_log import EventLog
from benchmarks import faults
from tests.samples import blobs


@pytest.mark.parametrize(
    "name",
    [
        "disk full, checkpoint",
        "disk full, shard",
        "disk full, cache",
        "killed, cache",
        "damaged, cache",
        "killed, folder replaced",
        "unwritable, cache",
    ],
)
def test_nothing_is_lost(tmp_path, name):
    outcomes = list(faults.FAULTS[name].inject(tmp_path, 12))
    assert len(outcomes) >= 12
    assert [outcome for outcome in outcomes if outcome[1]] == []


class Signal(keras.callbacks.Callback):
    """Sends this process a signal in an epoch's validation."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_test_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, 0):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_within_validation_changes_nothing(tmp_path):
    images, labels = blobs(60)

    def train(folder, *callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
        model.add(keras.layers.Dense(24, "softmax"))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = fit(
            model,
            images,
            labels,
            batch_size=10,
            epochs=3,
            validation_data=(images, labels),
            validation_batch_size=10,
            checkpoints=Checkpoints(folder, 1e9),
            callbacks=list(callbacks),
            verbose=0,
        )
        return history.history, model.get_weights()

    whole = train(tmp_path / "whole")
    with pytest.raises(SystemExit):
        train(tmp_path / "stopped", Signal())
    facts = Checkpoints(tmp_path / "stopped").load().facts
    assert (facts["epoch"], facts["step"]) == (1, 6)
    again = train(tmp_path / "stopped")
    assert again[0] == whole[0]
    for one, other in zip(again[1], whole[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_log_that_cannot_be_written_ends_no_training(tmp_path, caplog):
    images, labels = blobs(60)
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(24, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    logs = EventLog(tmp_path / "logs", write_graph=False)
    with faults.full_after(300):
        history = fit(model, images, labels, epochs=3, callbacks=[logs], verbose=0)
    assert len(history.history["loss"]) == 3
    assert "logs can't be written: " in caplog.text

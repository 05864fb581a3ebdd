import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import DivergenceError, fit
from asl_fast.training.loop import choose_steps_per_execution

IMAGES = np.random.default_rng(0).integers(0, 256, (75, 4, 4, 1), np.uint8)
LABELS = np.random.default_rng(1).random((75, 2), np.float32)


class Recorder(keras.Model):
    """Writes down which images its steps get; learns nothing."""

    def __init__(self, nan_at=None):
        super().__init__()
        self.layer = keras.layers.Dense(2)
        self.seen = tf.Variable(np.zeros((0, 2), np.int64), shape=[None, 2], trainable=False)
        self.nan_at = nan_at

    def call(self, x):
        return self.layer(x)

    def train_step(self, data):
        x, _ = data
        number = tf.cast(tf.shape(self.seen)[0], tf.float32)
        batch = tf.cast([tf.shape(x)[0], tf.cast(tf.reduce_sum(x), tf.int32)], tf.int64)
        with tf.control_dependencies([number]):
            self.seen.assign(tf.concat([self.seen, batch[None]], 0))
        if self.nan_at is None:
            return {"loss": number}
        return {"loss": tf.where(number < self.nan_at, number, np.nan)}


def record(nan_at=None, **arguments):
    model = Recorder(nan_at)
    model.compile("sgd", "mse")
    fit(model, IMAGES, LABELS, batch_size=10, seed=3, verbose=0, **arguments)
    assert model.steps_per_execution == 1  # as it was compiled
    return model.seen.numpy().tolist()


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("steps", [2, 3, 8, 100, None])
def test_each_step_gets_its_batch_however_many_run_per_call(resident, steps):
    single = record(epochs=3, steps_per_execution=1, resident=not resident)
    assert [size for size, _ in single] == [10] * 7 + [5] + [10] * 7 + [5] + [10] * 7 + [5]
    assert record(epochs=3, steps_per_execution=steps, resident=resident) == single
    # Also where epochs end within passes.
    single = record(epochs=3, steps_per_epoch=5, steps_per_execution=1)
    assert len(single) == 15
    several = record(epochs=3, steps_per_epoch=5, steps_per_execution=steps, resident=resident)
    assert several == single
    # And from a later epoch on.
    later = record(epochs=3, initial_epoch=1, steps_per_execution=steps, resident=resident)
    assert later == record(epochs=3)[8:]


@pytest.mark.parametrize(
    ("steps", "batch_size", "kind", "expected"),
    [
        (858, 32, "CPU", 33),  # 32 would leave a rest
        (857, 32, "CPU", 32),  # a prime
        (858, 32, "GPU", 286),
        (27, 1024, "CPU", 1),
        (27, 1024, "GPU", 9),
        (3, 32, "GPU", 3),
        (1, 100000, "CPU", 1),
    ],
)
def test_the_host_wakes_rarely(steps, batch_size, kind, expected):
    assert choose_steps_per_execution(steps, batch_size, kind) == expected


def test_a_callback_of_yours_hears_of_each_batch():
    heard = []

    class Callback(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            heard.append(batch)

    record(epochs=2, callbacks=[Callback()])
    assert heard == list(range(8)) * 2
    heard.clear()
    record(epochs=2, callbacks=[Callback()], steps_per_execution=4)
    assert heard == [3, 7] * 2


@pytest.mark.parametrize(
    ("steps", "nan_at", "place"),
    [
        (1, 0, "step 1 of 8 in epoch 1"),
        (3, 4, "step 5 of 8 in epoch 1"),
        (4, 9, "2 of 8 in epoch 2"),
    ],
)
def test_a_loss_that_is_no_number_ends_training_and_is_placed(steps, nan_at, place):
    epochs, saved = [], []
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch)),
        keras.callbacks.LambdaCallback(on_train_end=lambda logs: saved.append(1)),
    ]
    with pytest.raises(DivergenceError, match=f"not a number after .*{place}.*it was 0.01"):
        record(nan_at, epochs=3, steps_per_execution=steps, callbacks=callbacks)
    assert epochs == list(range(nan_at // 8))
    assert not saved

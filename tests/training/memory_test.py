import gc
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import RandomAugment, fit
from asl_fast.training import memory

_PROGRAM = """
import keras, numpy as np
import asl_fast

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024

def train(rows):
    images = np.ones((rows, 64, 64, 3), np.float32)
    images.flags.writeable = False  # TensorFlow can't share it
    model = keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    asl_fast.fit(model, images, np.zeros(rows, int), batch_size=500, resident=True, verbose=0)
    return resident()

train(500)
asl_fast.release_memory()
before = resident()
during = train(8000)
asl_fast.release_memory()
print(before, during, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_memory_is_given_back():
    """8,000 images of 64x64x3 are 375 MiB, and as much again where they were copied."""
    result = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    before, during, after = map(float, result.stdout.split())
    assert during > before + 350
    assert after < before + 80


def test_trainings_of_one_model_leave_no_graphs():
    images, labels = np.zeros((8, 4, 4, 1), np.uint8), np.arange(8) % 2
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "relu")]
    model = keras.Sequential([*layers, keras.layers.Softmax()])
    model.compile("sgd", "sparse_categorical_crossentropy")

    def graphs():
        gc.collect()
        return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())

    augment = RandomAugment(rotation_range=10)
    counts = []
    for _ in range(4):
        fit(model, images, labels, augment=augment, verbose=0)
        counts.append(graphs())
    assert counts[1:] == counts[:1] * 3


def test_garbage_is_collected_without_being_asked(monkeypatch):
    collected = []
    monkeypatch.setattr(memory.gc, "collect", lambda: collected.append(1))
    for _ in range(10):
        memory.collect_now_and_then()
    assert len(collected) == 2


def test_integers_of_32_bits_do_not_go_to_the_device(monkeypatch):
    monkeypatch.setattr(memory.device, "accelerator", lambda: "/CPU:0")
    stored = (tf.zeros((3, 2), tf.uint8), tf.zeros(3, tf.int32), None, tf.zeros(3, tf.float16))
    there = memory.on_device(stored)
    assert [t if t is None else t.dtype for t in there] == [tf.uint8, tf.int64, None, tf.float16]

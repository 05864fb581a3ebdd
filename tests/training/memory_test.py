import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from asl_fast import RandomAugment
from asl_fast.training import memory
from asl_fast.transforms import random_augment as augment

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


def test_compiled_programs_are_forgotten_and_made_anew():
    layer = RandomAugment(rotation_range=10, dtype="float32")
    images = tf.random.uniform((2, 5, 5, 1))
    before = layer(images, samples=[0, 1], epoch=0, training=True)
    memory.release_memory()
    assert augment._program.cache_info().currsize == 0
    after = layer(images, samples=[0, 1], epoch=0, training=True)
    np.testing.assert_array_equal(before, after)


def test_integers_of_32_bits_do_not_go_to_the_device(monkeypatch):
    monkeypatch.setattr(memory.device, "accelerator", lambda: "/CPU:0")
    stored = (tf.zeros((3, 2), tf.uint8), tf.zeros(3, tf.int32), None, tf.zeros(3, tf.float16))
    there = memory.on_device(stored)
    assert [t if t is None else t.dtype for t in there] == [tf.uint8, tf.int64, None, tf.float16]

import importlib

import keras
import pytest
import tensorflow as tf

from asl_fast.system import device
from tests.samples import pretend_gpus


@pytest.mark.parametrize(
    ("capabilities", "jit", "description"),
    [
        ([], False, "CPU"),
        ([(6, 1)], True, "GPU, NVIDIA X"),
        ([(9, 0), (7, 0)], True, "GPU, NVIDIA X, 2 of them"),
    ],
)
def test_xla_compiles_the_step_on_gpus(monkeypatch, capabilities, jit, description):
    pretend_gpus(monkeypatch, *capabilities)
    assert device.choose_jit().value is jit
    assert device.choose_jit("off").value is False
    assert device.choose_jit("on").value is True
    assert device.describe().startswith(description)


def test_a_layer_that_xla_cannot_take_is_named(monkeypatch):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.RandomRotation(0.1)])
    pretend_gpus(monkeypatch, (8, 0))
    assert device.choose_jit("auto", model) == (
        False,
        "`RandomRotation` in your model has supports_jit=False",
    )


def test_gpu_memory_is_taken_as_needed(monkeypatch):
    asked = []
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: asked.append((gpu, on))
    )
    pretend_gpus(monkeypatch, (8, 0), (9, 0))
    importlib.reload(device)
    assert asked == [((8, 0), True), ((9, 0), True)]
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    importlib.reload(device)
    assert len(asked) == 2

import subprocess
import sys

import keras
import numpy as np
import pytest

from asl_fast import InputError, RandomAugment, Standardize
from asl_fast.models import saving


def small(*layers):
    return keras.Sequential([keras.Input((4, 4, 1)), *layers, keras.layers.Flatten()])


class Unknown(keras.layers.Layer):
    def call(self, pixels):
        return pixels


def truncated(folder):
    small().save(folder / "whole.keras")
    return (folder / "whole.keras").read_bytes()[:-500]


def exported(path):
    small().export(path, verbose=False)


WRONG = {
    "nothing": ("a.keras", lambda path: None, "There is no model"),
    "an empty file": ("a.keras", lambda path: path.touch(), "it is truncated, or not a Keras file"),
    "half a file": (
        "a.keras",
        lambda path: path.write_bytes(truncated(path.parent)),
        "it is truncated, or not a Keras file",
    ),
    "weights alone": (
        "a.weights.h5",
        lambda path: small(keras.layers.Dense(2)).save_weights(path),
        "it holds only weights. ",
    ),
    "another format": (
        "a.onnx",
        lambda path: path.write_bytes(b"ONNX"),
        "can't be loaded as a Keras model: its name must end in .keras, .h5 or .hdf5.",
    ),
    "another layer": ("a.keras", lambda path: small(Unknown()).save(path), "it needs Unknown, wh"),
    "a SavedModel": ("a", exported, "a is a SavedModel, which can't be loaded"),
    "an empty folder": ("a", lambda path: path.mkdir(), "There is no model"),
}


@pytest.mark.parametrize(("name", "write", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_model_is_rejected_in_one_line(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError) as caught:
        saving.load_model(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 150 + len(str(tmp_path))


def distance(true, predicted):
    return keras.ops.abs(true - predicted)


def test_an_unknown_loss_is_no_obstacle(tmp_path):
    model = small()
    model.compile(loss=distance)
    model.save(tmp_path / "a.keras")
    assert saving.load_model(tmp_path / "a.keras").output_shape == (None, 16)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_layers_of_this_package_load_in_a_new_process_by_keras(tmp_path):
    fitted = Standardize(featurewise_center=True)
    fitted.fit(np.arange(32, dtype=np.float32).reshape(2, 4, 4, 1))
    model = small(RandomAugment(then=[RandomAugment(zoom_range=0.1)]), fitted)
    paths = [str(tmp_path / name) for name in ("a.keras", "a.h5")]
    for path in paths:
        model.save(path)
    # In a new process: here other tests have imported their modules.
    code = f"""
import asl_fast, keras
for path in {paths}:
    model = keras.saving.load_model(path, compile=False)
    print(*(type(layer).__name__ for layer in model.layers), float(model.layers[1].mean[0, 0, 0]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "RandomAugment Standardize Flatten 15.5\n" * 2, result.stderr

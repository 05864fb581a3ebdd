import subprocess
import sys

import keras
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


def test_layers_of_this_package_load_in_a_new_process(tmp_path):
    path = tmp_path / "a.keras"
    small(RandomAugment(rotation_range=5), Standardize(rescale=1 / 255)).save(path)
    # In a new process: here other tests have imported their modules.
    code = f"""
from pathlib import Path
from asl_fast.models import saving
print(*(type(layer).__name__ for layer in saving.load_model(Path({str(path)!r})).layers))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "RandomAugment Standardize Flatten\n", result.stderr

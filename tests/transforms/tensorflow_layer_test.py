"""The layers in `Dataset.map` under Keras's other backends, each in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import RandomAugment, Standardize, fit

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)


def mapped():
    """Returns what the layers make of images and masks in `Dataset.map`, in several ways."""
    augment = RandomAugment(rotation_range=30, brightness_range=(0.5, 1.5), seed=1, dtype="float32")
    flipped = RandomAugment(then=[keras.layers.RandomFlip(seed=1)], dtype="float32")
    standardize = Standardize(rescale=1 / 255, featurewise_center=True, dtype="float32")
    standardize.fit(IMAGES)
    batches = tf.data.Dataset.from_tensor_slices(IMAGES).batch(3)

    def masks(images):
        data = {"images": images, "segmentation_masks": images[..., 0]}
        return augment(data, samples=tf.range(3), epoch=1, training=True)["segmentation_masks"]

    ways = {
        "counted": lambda images: standardize(augment(images, training=True)),
        "numbered": lambda images: augment(images, samples=tf.range(3), epoch=2, training=True),
        "masks": masks,
        "then": lambda images: flipped(images, training=True),
        "one": lambda images: augment(images[0], training=True),
    }
    made = {}
    for name, way in ways.items():
        passes = batches.map(way).repeat(2)
        made[name] = np.concatenate([batch.numpy() for batch in passes]).astype(float)
    return made


def under_a_backend(folder):
    folder = Path(folder)
    np.savez(folder / "made.npz", **mapped())
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    model.compile("sgd", "mse")
    try:
        fit(model, IMAGES, IMAGES.reshape(6, -1), verbose=0)
    except ValueError as error:
        (folder / "said.json").write_text(json.dumps([keras.config.backend(), str(error)]))


@pytest.mark.parametrize("backend", ["openvino", "jax", "torch"])
def test_the_layers_work_in_map_and_fit_says_what_it_needs(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    this = "tests.transforms.tensorflow_layer_test"
    program = f"from {this} import under_a_backend as run; run({str(tmp_path)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"KERAS_BACKEND": backend},
        stderr=subprocess.PIPE,
    ) as process:
        expected = mapped()
        _, said = process.communicate()
    assert process.returncode == 0, said.decode()[-3000:]
    with np.load(tmp_path / "made.npz") as found:
        for name in set(expected) - {"then"}:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
        assert found["then"].shape == expected["then"].shape
    used, said = json.loads((tmp_path / "said.json").read_text())
    assert used == backend
    assert said.startswith("`asl_fast.fit` needs Keras's TensorFlow backend")

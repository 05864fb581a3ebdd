import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from asl_fast import Classifier, InputError
from asl_fast.models import saving

LETTERS = "0123456789abcdefghijklmnop"
SIDES = {"left": np.s_[:, :14], "right": np.s_[:, 14:], "top": np.s_[:14], "bottom": np.s_[14:]}


def build(letters=4, activation="softmax", before=()):
    """A model that classifies which side of an image is bright."""
    kernel = np.full((28, 28, letters), -0.02, np.float32)
    for output, side in enumerate(list(SIDES.values())[:letters]):
        kernel[(*(side if isinstance(side, tuple) else (side,)), ..., output)] = 0.02
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *before,
            keras.layers.Flatten(),
            keras.layers.Dense(letters, activation=activation),
        ]
    )
    model.layers[-1].set_weights([kernel.reshape(784, letters), np.zeros(letters, np.float32)])
    return model


def bright(side, size=28):
    image = np.zeros((28, 28), np.uint8)
    image[SIDES[side]] = 255
    return Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    saving.save_model(build(), path, list(SIDES))
    return path


def test_classifies_paths_images_and_arrays(saved, tmp_path):
    classifier = Classifier.load(saved)
    assert classifier.letters == tuple(SIDES)
    bright("top", 300).convert("RGB").save(tmp_path / "top.jpg")
    images = [tmp_path / "top.jpg", bright("left", 50), np.asarray(bright("right"))]
    predictions = classifier.predict(images)
    assert [prediction.letter for prediction in predictions] == ["top", "left", "right"]
    expected = build().predict(np.asarray(bright("right"))[None, ..., None] / 255, verbose=0)[0]
    right = predictions[2]
    assert right.probability == pytest.approx(expected.max(), rel=1e-5)
    assert right.top[0] == (right.letter, right.probability)
    probabilities = [probability for _, probability in right.top]
    assert probabilities == pytest.approx(sorted(expected.tolist(), reverse=True)[:3], rel=1e-4)
    assert classifier.prepare(bright("left", 90)).shape == (28, 28, 1)
    assert classifier.predict([]) == []
    assert classifier.predict(images[0]) == predictions[:1]
    assert classifier.predict(images[1]) == predictions[1:2]


@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=["rank 2", "grey", "colour"])
@pytest.mark.parametrize("make", [np.asarray, tf.constant], ids=["array", "tensor"])
def test_single_frames_tensors_and_floats(saved, make, channels):
    classifier = Classifier.load(saved)
    frame = np.asarray(bright("left")).reshape(28, 28, 1) * np.ones(channels or (1,), np.uint8)
    frame = frame.reshape(28, 28, *channels)
    expected = classifier.predict([frame])
    assert expected[0].letter == "left"
    floats = frame / np.float32(255)
    for images in (frame, floats):
        assert classifier.predict(make(images)) == expected
        assert classifier.predict([make(images)]) == expected
        assert classifier.predict(make(np.stack([images, images]))) == expected * 2
    with pytest.raises(InputError, match=r"Image 0 must be uint8, or floats in \[0, 1\]"):
        classifier.predict(make(frame.astype(np.float32)))


@pytest.mark.parametrize(("outputs", "missing"), [(25, "no J."), (26, "no J and no Z.")])
def test_models_of_kaggles_notebooks_have_their_letters(tmp_path, caplog, outputs, missing):
    model = build()
    features = model.layers[0](model.inputs[0])
    probabilities = keras.layers.Dense(outputs, activation="softmax")
    model = keras.Model(model.inputs[0], probabilities(features))
    kernel = np.full((784, outputs), -0.02, np.float32)
    kernel[:, 10] = 0.02  # K, which the course numbers 9
    probabilities.set_weights([kernel, np.zeros(outputs, np.float32)])
    model.save(tmp_path / "a.keras")
    classifier = Classifier.load(tmp_path / "a.keras", pixels="0-1")
    assert classifier.predict(np.full((28, 28), 255, np.uint8))[0].letter == "K"
    (record,) = (one for one in caplog.records if one.name.startswith("asl_fast"))
    assert record.getMessage().endswith(f"Kaggle's tables have {missing}")
    assert Classifier.load(tmp_path / "a.keras", LETTERS[:outputs], "0-1").letters[9] == "9"


def test_files_come_in_order_with_their_errors(saved, tmp_path):
    sides = [list(SIDES)[number % 4] for number in range(600)]  # more than two batches
    files = [str(tmp_path / f"{number}.png") for number in range(600)]
    for side, file in zip(sides, files, strict=True):
        bright(side).save(file)
    (tmp_path / "7.png").write_text("no image")
    (tmp_path / "299.png").unlink()
    results = list(Classifier.load(saved).predict_files([*files, b""]))
    for number, (side, (prediction, note)) in enumerate(zip(sides, results, strict=False)):
        assert note == ""
        if number in (7, 299):
            assert f"{number}.png" in str(prediction)
            assert isinstance(prediction, InputError)
        else:
            assert prediction.letter == side, number
    assert str(results[600][0]) == "standard input is empty."


def test_letters_come_from_the_file_or_the_caller(saved, tmp_path):
    plain = tmp_path / "plain.keras"
    build().save(plain)
    with pytest.raises(InputError, match="does not hold the letters of its outputs"):
        Classifier.load(plain)
    assert Classifier.load(plain, "WXYZ").letters == tuple("WXYZ")
    assert Classifier.load(saved, "WXYZ").predict([bright("top")])[0].letter == "Y"
    for letters in ("WXY", "WXYW", ""):
        with pytest.raises(InputError, match="4 outputs"):
            Classifier.load(plain, letters)
    with zipfile.ZipFile(plain, "a") as archive:
        archive.writestr("asl_fast.json", "[1")
    with pytest.raises(InputError, match="letters in .*plain.keras are damaged"):
        Classifier.load(plain)


def test_pixels_are_scaled_as_the_model_expects():
    noise = [Image.effect_noise((40, 40), 90)]
    (expected,) = Classifier(build(), "WXYZ").predict(noise)
    scaling = build(before=[keras.layers.Rescaling(1 / 255)])
    (prediction,) = Classifier(scaling, "WXYZ").predict(noise)
    assert dict(prediction.top) == pytest.approx(dict(expected.top), abs=1e-5)
    assert prediction.letter == expected.letter


def test_models_with_other_shapes_or_outputs_are_rejected(tmp_path):
    with pytest.raises(InputError, match="A classifier takes images"):
        Classifier(keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)]), "WXYZ")
    with pytest.raises(InputError, match="outputs no probabilities"):
        Classifier(build(activation=None), "WXYZ").predict([bright("top")])
    (tmp_path / "a.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match="can't be loaded as a Keras model"):
        Classifier.load(tmp_path / "a.keras", "WXYZ")
    with pytest.raises(InputError, match="There is no model"):
        Classifier.load(tmp_path / "b.keras")

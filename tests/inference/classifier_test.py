import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from asl_fast import Classifier, InputError
from asl_fast.models import saving

SIDES = {"left": np.s_[:, :14], "right": np.s_[:, 14:], "top": np.s_[:14], "bottom": np.s_[14:]}


def build(letters=4, activation="softmax", before=()):
    """A model whose letter is the bright side of an image."""
    kernel = np.full((28, 28, letters), -0.02, np.float32)
    for place, side in enumerate(list(SIDES.values())[:letters]):
        kernel[(*(side if isinstance(side, tuple) else (side,)), ..., place)] = 0.02
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


def test_names_the_letter_of_paths_images_and_arrays(saved, tmp_path):
    classifier = Classifier.load(saved)
    assert classifier.letters == tuple(SIDES)
    bright("top", 300).convert("RGB").save(tmp_path / "top.jpg")
    given = [tmp_path / "top.jpg", bright("left", 50), np.asarray(bright("right"))]
    found = classifier.predict(given)
    assert [one.letter for one in found] == ["top", "left", "right"]
    expected = build().predict(np.asarray(bright("right"))[None, ..., None] / 255, verbose=0)[0]
    assert found[2].probability == pytest.approx(expected.max(), rel=1e-5)
    assert found[2].top[0] == (found[2].letter, found[2].probability)
    shares = [share for _, share in found[2].top]
    assert shares == pytest.approx(sorted(expected.tolist(), reverse=True)[:3], rel=1e-4)
    assert classifier.prepare(bright("left", 90)).shape == (28, 28, 1)
    assert classifier.predict([]) == []
    assert classifier.predict(given[0]) == found[:1]
    assert classifier.predict(given[1]) == found[1:2]


def test_files_come_in_order_with_what_is_wrong_with_them(saved, tmp_path):
    sides = [list(SIDES)[number % 4] for number in range(600)]  # more than two batches
    files = [str(tmp_path / f"{number}.png") for number in range(600)]
    for side, file in zip(sides, files, strict=True):
        bright(side).save(file)
    (tmp_path / "7.png").write_text("no image")
    (tmp_path / "299.png").unlink()
    found = list(Classifier.load(saved).predict_files([*files, b""]))
    for number, (side, (prediction, note)) in enumerate(zip(sides, found, strict=False)):
        assert note == ""
        if number in (7, 299):
            assert f"{number}.png" in str(prediction)
            assert isinstance(prediction, InputError)
        else:
            assert prediction.letter == side, number
    assert str(found[600][0]) == "standard input is empty."


def test_letters_come_with_the_model_or_are_asked_for(saved, tmp_path):
    plain = tmp_path / "plain.keras"
    build().save(plain)
    with pytest.raises(InputError, match="doesn't say which letters its outputs stand for"):
        Classifier.load(plain)
    assert Classifier.load(plain, "WXYZ").letters == tuple("WXYZ")
    assert Classifier.load(saved, "WXYZ").predict([bright("top")])[0].letter == "Y"
    for letters in ("WXY", "WXYW", ""):
        with pytest.raises(InputError, match="4 outputs"):
            Classifier.load(plain, letters)
    with zipfile.ZipFile(plain, "a") as archive:
        archive.writestr("asl_fast.json", "[1")
    with pytest.raises(InputError, match="letters that it holds are damaged"):
        Classifier.load(plain)


def test_pixels_are_scaled_as_the_model_expects():
    given = [Image.effect_noise((40, 40), 90)]
    expected = Classifier(build(), "WXYZ").predict(given)[0]
    found = Classifier(build(before=[keras.layers.Rescaling(1 / 255)]), "WXYZ").predict(given)[0]
    assert [share for _, share in found.top] == pytest.approx(
        [share for _, share in expected.top], abs=1e-5
    )
    assert found.letter == expected.letter


def test_models_for_something_else_are_refused(tmp_path):
    with pytest.raises(InputError, match="needed are images"):
        Classifier(keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)]), "WXYZ")
    with pytest.raises(InputError, match="gives no probabilities"):
        Classifier(build(activation=None), "WXYZ").predict([bright("top")])
    (tmp_path / "a.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match="can't be loaded as a Keras model"):
        Classifier.load(tmp_path / "a.keras", "WXYZ")
    with pytest.raises(InputError, match="There is no model"):
        Classifier.load(tmp_path / "b.keras")

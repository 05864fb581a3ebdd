import json
import subprocess
import sys

import pytest

from tests.samples import blobs, write_csv

HEAD = """\
import json, sys
import keras, numpy as np, pandas as pd
from tensorflow.keras.preprocessing.image import ImageDataGenerator
from tensorflow.keras.models import Sequential
from tensorflow.keras.layers import Conv2D, Dense, Flatten

keras.utils.set_random_seed(int(sys.argv[2]))
folder = sys.argv[1]
train, valid = (pd.read_csv(f"{folder}/sign_mnist_{name}.csv") for name in ("train", "valid"))
y_train, y_valid = (np.eye(24)[frame.pop("label")] for frame in (train, valid))
x_train, x_valid = ((frame.values / 255).reshape(-1, 28, 28, 1) for frame in (train, valid))
model = Sequential([Conv2D(8, 5, strides=2, activation="relu"), Flatten(), Dense(24, "softmax")])
"""
# Verbatim from the course, except for the number of epochs.
TUTORIAL = """
datagen = ImageDataGenerator(rotation_range=10, zoom_range=0.1, width_shift_range=0.1,
                             height_shift_range=0.1, horizontal_flip=True, vertical_flip=False)
img_iter = datagen.flow(x_train, y_train, batch_size=32)
x, y = img_iter.next()
datagen.fit(x_train)
model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
model.fit(img_iter, epochs=20, steps_per_epoch=len(x_train)/32, validation_data=(x_valid, y_valid))
model.save("asl_model")
""".replace("epochs=20", "epochs=4")
TAIL = """
history = model.history.history
print("RESULT", json.dumps(history["accuracy"]))
"""
CHANGED = "import asl_fast\nfrom asl_fast import ImageDataGenerator\n" + TUTORIAL.replace(
    "model.fit(", "asl_fast.fit(model, "
).replace("img_iter.next()", "next(img_iter)").replace('"asl_model"', '"asl_model.keras"')


@pytest.fixture
def course(tmp_path):
    """Runs a script in a folder with data."""
    write_csv(tmp_path / "sign_mnist_train.csv", *blobs(200))
    write_csv(tmp_path / "sign_mnist_valid.csv", *blobs(48, seed=1))

    def run(text, *command, code=0):
        (tmp_path / "course.py").write_text(text)
        done = subprocess.run(
            [sys.executable, *command, "course.py", ".", "3"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stderr
        return done

    return run


def result(done):
    return json.loads(done.stdout.partition("RESULT")[2].splitlines()[0])


def test_the_unchanged_tutorial_trains_like_the_updated_one(course, tmp_path):
    done = course(HEAD + TUTORIAL + TAIL, "-m", "asl_fast", "run")
    notes = [line for line in done.stderr.splitlines() if line.startswith("asl-fast: ")]
    first = len(HEAD.splitlines()) + 1
    assert notes == [
        f"asl-fast: line {first + 4}: .next() is next(…) in today's Keras",
        f"asl-fast: line {first + 7}: steps_per_epoch=6.25 taken as 7",
        f"asl-fast: line {first + 8}: model.save('asl_model') saved as 'asl_model.keras'",
    ]
    assert (tmp_path / "asl_model.keras").is_file()
    assert "Traceback" not in done.stderr
    assert result(done) == result(course(HEAD + CHANGED + TAIL))


OLD = """
iterator = ImageDataGenerator(rescale=1.0).flow(x_train, y_train, batch_size=32)
model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
for _ in range(2):
    model.fit_generator(iterator, 3, 3, 0, None, None, None, 1, None, 10, 4, True)
print("EPOCHS", len(model.history.history["loss"]))
print("SCORE", len(model.evaluate(iterator, steps=2.5, verbose=0)))
model.save("old")
print("LOADED", type(keras.models.load_model("old")).__name__)
sys.exit(7)
"""


def test_calls_that_todays_keras_rejects_are_translated(course):
    head = HEAD.replace("from tensorflow.keras.prep", "from keras.preprocessing.image import *\n#")
    done = course(
        head.replace("import *", "import ImageDataGenerator") + OLD, "-m", "asl_fast", "run", code=7
    )
    assert "EPOCHS 3" in done.stdout
    assert "SCORE 2" in done.stdout
    assert "LOADED Sequential" in done.stdout
    notes = [line.partition(": ")[2] for line in done.stderr.splitlines() if "asl-fast" in line]
    for expected in (
        "fit_generator(…) is fit(…) in today's Keras",
        "workers=4 left out",
        "steps_per_epoch=3 is less than the 7 batches of a pass",
        "steps=2.5 taken as 3",
        "load_model('old') loaded 'old.keras'",
    ):
        assert sum(expected in note for note in notes) == 1, (expected, notes)


def test_a_traceback_shows_only_the_script(course):
    done = course("def f():\n    return 1 / 0\n\n\nf()\n", "-m", "asl_fast", "run", code=1)
    assert done.stderr.startswith("Traceback")
    assert "line 2, in f" in done.stderr
    assert "asl_fast" not in done.stderr


def test_keras_is_restored_afterwards(tmp_path):
    import keras
    from keras.src.legacy.preprocessing import image

    from asl_fast.migration import script_runner as script

    before = image.ImageDataGenerator, keras.Model.fit, keras.Model.save, keras.models.load_model
    (tmp_path / "nothing.py").write_text("import sys\nassert sys.argv[1:] == ['a', '--b']\n")
    assert script.run(tmp_path / "nothing.py", ["a", "--b"], print) == 0
    after = image.ImageDataGenerator, keras.Model.fit, keras.Model.save, keras.models.load_model
    assert before == after
    assert not hasattr(keras.Model, "fit_generator")
    assert not hasattr(keras.preprocessing.image, "ImageDataGenerator")


def test_unreadable_scripts_are_one_line_errors(asl_fast_here, tmp_path):
    (tmp_path / "broken.py").write_text("x = (\n")
    for command, path, message in (
        ("run", "nowhere.py", "can't be read: No such file"),
        ("check", "nowhere.py", "can't be read: No such file"),
        ("check", "broken.py", "line 1"),
    ):
        done = asl_fast_here(command, tmp_path / path)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_check_reports_the_tutorial_and_runs_nothing(asl_fast, tmp_path):
    (tmp_path / "course.py").write_text(HEAD + TUTORIAL)
    done = asl_fast("check", tmp_path / "course.py")
    assert done.returncode == 1
    kinds = [line.split(": ")[0].split(", ")[1] for line in done.stdout.splitlines()]
    assert {"breaks", "slow", "wrong"} >= set(kinds) >= {"breaks", "slow"}
    listed = json.loads(asl_fast("check", tmp_path / "course.py", "--json").stdout)
    assert len(listed) == len(kinds)
    (tmp_path / "fine.py").write_text("print('hello')\n")
    assert asl_fast("check", tmp_path / "fine.py").returncode == 0

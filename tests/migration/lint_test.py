import json
import subprocess
import sys
import textwrap

import pytest

from asl_fast import InputError
from asl_fast.migration.lint import check

IMPORTS = """
import math, os
import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
from tensorflow.keras.preprocessing.image import ImageDataGenerator
"""

# For code that needs a model and batches, which begins after it with line 1.
READY = """
model = keras.Sequential()
model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
x_train, y_train, x_valid, y_valid = load()
datagen = ImageDataGenerator(rotation_range=10)
img_iter = datagen.flow(x_train, y_train, batch_size=32)
"""

TUTORIAL = """\
datagen = ImageDataGenerator(rotation_range=10, zoom_range=0.1, width_shift_range=0.1,
                             height_shift_range=0.1, horizontal_flip=True, vertical_flip=False)
img_iter = datagen.flow(x_train, y_train, batch_size=32)
x, y = img_iter.next()
datagen.fit(x_train)
model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
model.fit(img_iter, epochs=20, steps_per_epoch=len(x_train)/32, validation_data=(x_valid, y_valid))
model.save("asl_model")
"""

GOOD = """\
import keras
from asl_fast import ImageDataGenerator

train = ImageDataGenerator(rescale=1 / 255, rotation_range=10, brightness_range=(0.8, 1.2))
valid = ImageDataGenerator(rescale=1 / 255)
train_batches = train.flow(x_train, y_train, batch_size=32)
valid_batches = valid.flow(x_valid, y_valid, batch_size=32, shuffle=False)
images, labels = next(train_batches)
model = keras.Sequential([keras.layers.RandomFlip(), keras.layers.Dense(24)])
model.compile(keras.optimizers.Adam(learning_rate=1e-3), metrics=["accuracy"])
history = model.fit(train_batches, epochs=20, validation_data=valid_batches)
print(history.history["val_accuracy"][-1], len(x_train) // 32, len(x_train) / 32)
model.evaluate(valid_batches)
model.save("asl.keras")
keras.models.load_model("asl.keras")
"""


def issues(code, *, before=IMPORTS + READY):
    """Checks code after a preamble; returns (line of the code, kind, message) of each issue."""
    code, first = textwrap.dedent(code).strip("\n"), before.count("\n")
    found = check(before + code)
    assert all("\n" not in issue.message and issue.cell is None for issue in found)
    return [(i.line - first, i.kind, i.message) for i in found if i.line > first]


def only_issue(code, **options):
    (issue,) = issues(code, **options)
    return issue


def test_the_tutorial():
    found = check(TUTORIAL)
    assert [(issue.line, issue.kind) for issue in found] == [
        *((1, "slow"), (4, "breaks"), (5, "slow"), (7, "breaks"), (8, "breaks"))
    ]
    messages = [issue.message for issue in found]
    assert "`from asl_fast import ImageDataGenerator`" in messages[0]
    assert messages[1] == "iterators no longer have `.next()`: write `next(img_iter)`."
    assert "`datagen.fit(…)` does nothing but copy the images" in messages[2]
    assert "`math.ceil(len(x_train) / 32)`, or leave `steps_per_epoch` out" in messages[3]
    assert "`model.save('asl_model.keras')`" in messages[4]


def test_a_correct_script_has_no_issues():
    assert check(GOOD) == []
    assert check("") == []
    assert check("import torch\nmodel = torch.load('a')\nmodel.fit(x, lr=1)") == []


def test_asl_fast_in_place_of_keras_fixes_the_import_alone():
    found = check(f"from asl_fast import ImageDataGenerator\n{TUTORIAL}")
    assert [(i.line, i.kind) for i in found] == [(6, "slow"), (8, "breaks"), (9, "breaks")]


# Code with an issue in its last line, and a part of the message.
BREAKS = [
    ("datagen.flow(x_train).next()", "no longer have `.next()`"),
    ("again = img_iter\nagain.next()", "`next(again)`"),
    ("model.fit(img_iter, steps_per_epoch=len(x) / 32)", "`math.ceil(len(x) / 32)`"),
    ("n = x.shape[0] / 32\nmodel.fit(img_iter, steps_per_epoch=n)", "`steps_per_epoch=n` is a"),
    ("n = 64\nmodel.fit(img_iter, steps_per_epoch=n / 32)", "is a float"),
    ("model.fit(img_iter, steps_per_epoch=len(x_train) / 32 + 1)", "float"),
    ("model.fit(img_iter, steps_per_epoch=100 / n)", "`math.ceil(100 / n)`"),
    ("model.fit(x_train, y_train, steps_per_epoch=10.0)", "`math.ceil(10.0)`"),
    ("model.fit(img_iter, steps_per_epoch=np.ceil(n / 32))", "`int(np.ceil(n / 32))`"),
    ("model.fit(x, validation_data=y, validation_steps=n / 32)", "`validation_steps=n / 32`"),
    ("model.predict(x_train, steps=n / 32)", "`steps=n / 32`"),
    (
        "class M:\n def fit_generator(self): pass\nmodel.fit_generator(x, steps_per_epoch=n / 2)",
        "float",
    ),
    ("model.save('asl_model')", "`model.export('asl_model')`"),
    ("model.save('a/model.pb')", "can't tell the format"),
    ("model.save(os.path.join(folder, 'asl'))", "'asl'"),
    ("model.save(filepath='models/asl/')", "'models/asl.keras'"),
    ("keras.models.load_model('asl')", "`keras.layers.TFSMLayer('asl')`"),
    ("model.fit_generator(x)", "write `model.fit(…)`"),
    ("self.net.predict_generator(x)", "write `self.net.predict(…)`"),
    ("model.predict_classes(x)", "`model.predict(…).argmax(axis=-1)`"),
    ("model.fit(img_iter, workers=4)", "`iterator.workers = 4`"),
    ("model.predict(x, use_multiprocessing=True)", "`use_multiprocessing`"),
    ("model.evaluate(x, max_queue_size=9)", "`evaluate` no longer takes `max_queue_size`"),
    ("from keras.optimizers import SGD as Descent\nDescent(lr=rate)", "`learning_rate=rate`"),
    ("h = model.fit(x)\nh.history['acc']", "write `h.history['accuracy']`"),
    ("plot(h.history['val_acc'], label='acc')", "`h.history['val_accuracy']`"),
    ("key = 'acc'\nh.history[key]", "the history no longer has 'acc'"),
    (
        "from keras.preprocessing.image import ImageDataGenerator",
        "`from asl_fast import ImageDataGenerator`, or take it from tensorflow.keras",
    ),
    ("import keras\nkeras.preprocessing.image.ImageDataGenerator()", "Generator` is gone"),
    ("import keras.preprocessing.image as im\nG = im.ImageDataGenerator", "Generator` is gone"),
    ("from keras.preprocessing import image\nimage.ImageDataGenerator().flow(x)", "is gone"),
    ("from keras.preprocessing.image import *\nImageDataGenerator()", "Generator` is gone"),
    ("from keras_preprocessing.image import ImageDataGenerator", "`keras_preprocessing` is gone"),
    (
        "try:\n    x_train = load()\nexcept OSError:\n    import keras_preprocessing",
        "`keras_preprocessing` is gone",
    ),
    ("from tensorflow.python import keras as k\nk.models.Sequential()", "from tensorflow.keras"),
    ("tf.keras.utils.np_utils.to_categorical(y)", "np_utils` is gone"),
    ("from keras.layers.core import Dense", "`keras.layers.core` is gone"),
    ("layers.experimental.preprocessing.RandomFlip()", "keras.layers.experimental` is gone"),
]

SLOW = [
    ("datagen.fit(x_train)", "`datagen.fit(…)` does nothing"),
    ("from keras.layers import RandomZoom as Z\nkeras.Sequential([Z(0.1)])", "`RandomZoom`"),
    *(
        (f"model.add(layers.Random{name}(0.1))", f"`Random{name}` inside a model switches XLA off")
        for name in ("Rotation", "Zoom", "Translation", "Shear", "Crop", "Perspective")
    ),
]

SCALED = "datagen = ImageDataGenerator({})\nx_train = {}\ndatagen.flow(x_train, y_train)"
BRIGHT = "brightness_range=(0.8, 1.2)"

WRONG = [
    (
        "batch = 32\nn = x_train.shape[0] // batch\nmodel.fit(img_iter, steps_per_epoch=n)",
        "`steps_per_epoch=n` is rounded down",
    ),
    ("model.fit(img_iter, steps_per_epoch=int(n / 32))", "Leave `steps_per_epoch` out"),
    ("model.fit(img_iter, steps_per_epoch=int(np.floor(n / 32)))", "is rounded down"),
    ("model.fit(img_iter, steps_per_epoch=27455 // 32)", "is rounded down"),
    ("keras.optimizers.SGD(0.1, decay=1e-4)", "InverseTimeDecay(0.1, 1, 0.0001)"),
    (SCALED.format(BRIGHT, "x_train.astype('float32') / 255.0"), "zeros and ones"),
    (SCALED.format(BRIGHT, "(x / 255).astype('float32')"), "zeros and ones"),
    (SCALED.format(BRIGHT, "np.expand_dims(x / 255, -1)"), "zeros and ones"),
    (SCALED.format(BRIGHT, "x * (1 / 255)"), "zeros and ones"),
    (SCALED.format(BRIGHT, "(x / 255)[:100]"), "zeros and ones"),
    (f"ImageDataGenerator({BRIGHT}).flow(x=x / 255)", "rescale=1/255, which comes later"),
    (f"x /= 255\nImageDataGenerator({BRIGHT}).flow(x)", "zeros and ones"),
    (f"x, y = x / 255, y / 255\nImageDataGenerator({BRIGHT}).flow(x)", "zeros and ones"),
    (
        "from sklearn.model_selection import train_test_split\n"
        "a, b, c, d = train_test_split(x / 255, y, test_size=0.2)\n"
        f"ImageDataGenerator({BRIGHT}).flow(b)",
        "zeros and ones",
    ),
    (SCALED.format("rescale=1.0 / 255", "x_train / 255"), "drop one of the two"),
    (
        "ImageDataGenerator(width_shift_range=0.2, height_shift_range=0.1)",
        "width_shift_range=0.2 moves up and down, height_shift_range=0.1 left and right",
    ),
    ("ImageDataGenerator(width_shift_range=0.2)", "Swap the two values"),
    (
        "options = dict(height_shift_range=0.2)\nImageDataGenerator(**options)",
        "height_shift_range=0.2 left and right",
    ),
    (
        "ImageDataGenerator(width_shift_range=1, height_shift_range=1.0)",
        "width_shift_range=1 never shifts",
    ),
    (
        "ImageDataGenerator(width_shift_range=3.0, height_shift_range=3)",
        "height_shift_range=3 shifts by less than 3 pixels",
    ),
    (
        "a = ImageDataGenerator(zca_whitening=True); b = a; b.flow(x)",
        "zca_whitening is on, but the generator's `.fit(x_train)` is missing",
    ),
    (
        "valid = datagen.flow(x_valid)\nmodel.fit(x_train, validation_data=valid)",
        "validation images are augmented too (rotation_range)",
    ),
    ("model.evaluate(img_iter)", "augmented too (rotation_range)"),
    (
        "ImageDataGenerator(zoom_range=0.1, validation_split=0.2).flow(x, subset='validation')",
        "augmented too (zoom_range)",
    ),
    (
        "test = ImageDataGenerator().flow_from_directory('a')\n"
        "right = test.classes == model.predict(test).argmax(-1)",
        "add shuffle=False where `test` is made",
    ),
]


@pytest.mark.parametrize(
    ("kind", "code", "part"),
    [
        (kind, *case)
        for kind, cases in (("breaks", BREAKS), ("slow", SLOW), ("wrong", WRONG))
        for case in cases
    ],
)
def test_a_mistake_is_reported_once_where_it_is(kind, code, part):
    line, found_kind, message = only_issue(code)
    assert (found_kind, line) == (kind, code.count("\n") + 1)
    assert part in message
    assert message.endswith(".")


CORRECT = {
    "next of something else": """
        reader.next()
        datagen.random_transform(x).next()
        from asl_fast import ImageDataGenerator
        ImageDataGenerator().flow(x).next()
    """,
    "whole steps": """
        model.fit(img_iter, steps_per_epoch=math.ceil(len(x_train) / 32))
        model.fit(img_iter, steps_per_epoch=len(img_iter), validation_steps=10)
        model.fit(img_iter, steps_per_epoch=(len(x_train) + 31) // 32)
        model.fit(img_iter, steps_per_epoch=-(-len(x_train) // 32))
        model.fit(img_iter, steps_per_epoch=int(np.ceil(len(x_train) / 32)))
        model.fit(img_iter, steps_per_epoch=2000 // 20)
        model.fit(img_iter, steps_per_epoch=int(n))
        model.fit(img_iter, validation_steps=len(x_valid) // 32)
    """,
    "rounded down of something else": """
        model.fit(x_train, y_train, steps_per_epoch=len(x_train) // 32)
        plan(steps_per_epoch=len(x_train) / 32)
        model.fit(x_train, epochs=20 // 3, batch_size=len(x_train) // 32)
        model.fit(x_train / 255, y_train, sample_weight=weights / 2)
    """,
    "save": """
        model.save("asl.keras")
        model.save("asl.hdf5")
        model.save(f"asl_{n}.keras")
        model.save(path)
        model.export("asl")
        keras.models.load_model("asl.keras")
        keras.models.load_model(path)
    """,
    "save of something else": """
        picture.save("a.png")
        np.save("pixels", x_train)
    """,
    "own methods": """
        class Wrapped:
            def predict_classes(self, x):
                return self.model.predict(x).argmax(-1)
        Wrapped().predict_classes(x)
    """,
    "workers of something else": """
        pool(workers=4)
        img_iter.workers = 4
    """,
    "learning rates": """
        keras.optimizers.Adam(learning_rate=0.1, weight_decay=1e-4)
        keras.optimizers.SGD(0.1, decay=0)
        keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=9, decay_rate=0.1)
        torch.optim.Adam(parameters, lr=0.1)
        train(lr=0.1, decay=0.1)
    """,
    "a history under its own name": """
        model.compile(metrics=["acc"])
        h = model.fit(x_train)
        h.history["acc"], h.history["val_acc"]
    """,
    "another dictionary": "results['acc'], h.results['acc']\nh.history['accuracy']",
    "imports that are there": """
        from keras.preprocessing.image import load_img, img_to_array
        from tensorflow.keras.preprocessing.image import NumpyArrayIterator
        from keras.utils import to_categorical, plot_model
        from keras.layers import Attention, BatchNormalization, Dense, Normalization
        from keras.src.legacy.preprocessing.image import ImageDataGenerator as Old
        from tensorflow.python.keras.utils import to_categorical
        import keras.preprocessing.image
        from keras.preprocessing.image import *
        load_img("a.png")
    """,
    "imports that may fail": """
        try:
            from keras.preprocessing.image import ImageDataGenerator
        except ImportError:
            from tensorflow.keras.preprocessing.image import ImageDataGenerator
        try:
            import keras_preprocessing
        except:
            keras_preprocessing = None
    """,
    "asl_fast tried first": """
        try:
            from asl_fast import ImageDataGenerator
        except ModuleNotFoundError:
            from tensorflow.keras.preprocessing.image import ImageDataGenerator
        model.fit(ImageDataGenerator().flow(x_train))
    """,
    "layers that XLA compiles": "model.add(layers.RandomFlip())\nlayers.RandomContrast(0.1)",
    "layers in map": """
        augment = keras.Sequential([layers.RandomRotation(0.1)])
        data = data.map(lambda x, y: (augment(x), y))
    """,
    "other libraries' layers": "from torchvision.transforms import RandomCrop\nRandomCrop(28)",
    "a generator that is not used": "d = ImageDataGenerator(featurewise_center=True)",
    "options that may be on": """
        d = ImageDataGenerator(rotation_range=angle, zca_whitening=whiten, **more)
        model.fit(x_train, validation_data=d.flow(x_valid))
    """,
    "fit that is needed": """
        d = ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
        d.fit(x_train)
        model.fit(x_train, validation_data=d.flow(x_train, y_train))
    """,
    "fit that may be needed": """
        ImageDataGenerator(**options).fit(x_train)
        ImageDataGenerator(zca_whitening=flag).fit(x_train)
        ImageDataGenerator(True).fit(x_train)
        model.fit(x_train)
    """,
    "fit between flow and the first batch": """
        d = ImageDataGenerator(zca_whitening=True)
        batches = d.flow(x_train)
        show(batches)
        d.fit(x_train)
        next(batches)
    """,
    "fit elsewhere": """
        d = ImageDataGenerator(featurewise_center=True)
        prepare(d, x_train)
        next(d.flow(x_train))
        e = ImageDataGenerator(featurewise_center=True)
        e.mean = 0.5
        next(e.flow(x_train))
        f = ImageDataGenerator(featurewise_center=True)
        def show():
            next(f.flow(x_train))
        f.fit(x_train)
        show()
        i = ImageDataGenerator(featurewise_center=True)
        def prepare():
            i.fit(x_train)
        prepare()
        next(i.flow(x_train))
        g = same = ImageDataGenerator(featurewise_center=True)
        other = g
        other.fit(x_train)
        next(g.flow(x_train))
    """,
    "brightness of whole pixels": f"""
        ImageDataGenerator({BRIGHT}).flow(x_train)
        ImageDataGenerator({BRIGHT}, rescale=1 / 255).flow(x_train)
        ImageDataGenerator({BRIGHT}).flow((x_train / 255) * 255)
        ImageDataGenerator(brightness_range=None).flow(x_train / 255)
        ImageDataGenerator({BRIGHT}).flow(x_train / 2)
        ImageDataGenerator({BRIGHT}).flow(x_train + 1 / 255)
        ImageDataGenerator({BRIGHT}).standardize(x_train / 255)
        first, second = prepare(x_train / 255)
        ImageDataGenerator({BRIGHT}).flow(first)
        x_valid = x_valid / 255
        ImageDataGenerator({BRIGHT}).flow(x_train)
    """,
    "scaled on one way only": f"""
        if scale:
            x_train = x_train / 255
        else:
            ImageDataGenerator({BRIGHT}).flow(x_train)
        ImageDataGenerator({BRIGHT}).flow(x_train)
        if scale:
            pixels = pixels / 255
        else:
            ImageDataGenerator({BRIGHT}).flow(pixels)
    """,
    "scaled in another function": f"""
        def scaled(x_train):
            x_train = x_train / 255
            return x_train
        def whole(x_train):
            return ImageDataGenerator({BRIGHT}).flow(x_train)
        def show():
            x_valid = x_valid / 255
        def train():
            ImageDataGenerator({BRIGHT}).flow(x_valid)
    """,
    "rescale of something else": """
        ImageDataGenerator(rescale=255).flow(x_train / 255)
        ImageDataGenerator(rescale=1 / 255).flow(x_train)
        ImageDataGenerator(rescale=1 / 255).flow(x_train - x_train.mean())
    """,
    "shifts alike": """
        ImageDataGenerator(width_shift_range=0.1, height_shift_range=0.1)
        ImageDataGenerator(width_shift_range=1.0, height_shift_range=1.0)
        ImageDataGenerator(width_shift_range=shift, height_shift_range=shift)
        ImageDataGenerator(width_shift_range=0.1, **options)
        ImageDataGenerator(width_shift_range=0.1, height_shift_range=shift)
        ImageDataGenerator(**options(width_shift_range=0.1))
        read = read()
        ImageDataGenerator(width_shift_range=read, height_shift_range=0.1)
    """,
    "validation as it is": """
        plain = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)
        split = ImageDataGenerator(zoom_range=0.1, validation_split=0.2)
        model.fit(x_train, validation_data=plain.flow(x_valid, y_valid))
        model.evaluate(plain.flow(x, subset="validation"))
        split.flow(x, subset="training")
        model.predict(img_iter)
    """,
    "predictions in order": """
        test = ImageDataGenerator().flow_from_directory("a", shuffle=False)
        model.predict(test)
        test.classes, test.class_indices
        train = ImageDataGenerator().flow_from_directory("a")
        show(train, train.classes)
        model.predict(ImageDataGenerator().flow_from_directory("a"))
        unseen = ImageDataGenerator().flow_from_directory("a")
        model.predict(unseen)
        later = ImageDataGenerator().flow_from_directory("a")
        later.shuffle = False
        model.predict(later)
        later.classes
    """,
}


@pytest.mark.parametrize("code", CORRECT.values(), ids=CORRECT.keys())
def test_correct_code_has_no_issues(code):
    assert issues(code) == []


def test_batches_before_fit_are_reported_where_they_are_drawn():
    code = """
        d = ImageDataGenerator(featurewise_center=True)
        batches = d.flow(x_train)
        {}
        d.fit(x_train)
        next(batches)
    """
    for draw in ("next(batches)", "model.fit(x=batches, validation_data=v)"):
        ((line, _, message),) = [i for i in issues(code.format(draw)) if i[1] == "wrong"]
        assert line == 3
        assert "comes only after this line" in message


def test_keras_generator_is_slow_only_if_it_feeds_training():
    code = """
        a = ImageDataGenerator(horizontal_flip=True)
        b = ImageDataGenerator(rescale=1 / 255)
        for _ in range(2):
            model.fit({}, validation_data=b.flow(x_valid))
    """
    for batches in ("a.flow(x_train)", "x=a.flow_from_directory('a')"):
        line, kind, message = only_issue(code.format(batches))
        assert (line, kind) == (1, "slow")
        assert "image by image" in message
    assert issues(code.format("x_train")) == []


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from tensorflow.keras.preprocessing.image import ImageDataGenerator as IDG", "IDG"),
        ("import tensorflow as t", "t.keras.preprocessing.image.ImageDataGenerator"),
        ("import tensorflow.keras.preprocessing.image as i", "i.ImageDataGenerator"),
        ("from tensorflow import keras as k", "k.preprocessing.image.ImageDataGenerator"),
        ("from asl_fast import *", "ImageDataGenerator"),
        ("import asl_fast as a", "a.ImageDataGenerator"),
        ("import os", "tf.keras.preprocessing.image.ImageDataGenerator"),
    ],
)
def test_the_generator_is_recognised_under_any_name(imports, call):
    line, _, message = only_issue(f"{imports}\n{call}(width_shift_range=0.1)", before="")
    assert (line, "Swap" in message) == (2, True)


@pytest.mark.parametrize("imports", ["from my import ImageDataGenerator", "from .a import *"])
def test_another_class_of_that_name_is_not_the_generator(imports):
    code = f"{imports}\nImageDataGenerator(width_shift_range=1)"
    assert bool(check(code)) == ("*" in imports)  # where it may come from anywhere


def test_functions_and_classes_are_read():
    code = """
        def build():
            return train(make())

        def train(steps):
            model.fit(BATCHES, steps_per_epoch=len(x_train) // SIZE)

        class Trainer:
            def __init__(self, x):
                self.datagen = ImageDataGenerator(rotation_range=10)
                self.batches = self.datagen.flow(x / 255)

            async def run(self, steps):
                first = self.batches.next()
                self.model.fit(self.batches, steps_per_epoch=steps)
                self.model.save("asl")

        class Other:
            def run(self):
                return self.batches.next()

        SIZE = 32
        BATCHES = img_iter
    """
    assert [(line, kind) for line, kind, _ in issues(code)] == [
        *((5, "wrong"), (9, "slow"), (13, "breaks"), (15, "breaks"))
    ]


def test_every_statement_is_read():
    code = """
        if a:
            only = datagen.flow(x_train)
        x += img_iter.next()
        if img_iter.next():
            img_iter.next()
        else:
            img_iter.next()
        try:
            pass
        except ValueError:
            img_iter.next()
        else:
            img_iter.next()
        finally:
            img_iter.next()
        @img_iter.next()
        def f(a=img_iter.next()): pass
        img_iter.next()[0]
        only.next()
    """
    assert [line for line, *_ in issues(code)] == [3, 4, 5, 7, 11, 13, 15, 16, 17, 18, 19]


def test_long_code_is_cut():
    message = only_issue(f"model.fit(x, steps_per_epoch=({' + '.join('x' * 50)}) / 32)")[2]
    assert "x + x …`" in message
    assert len(message) < 400


def test_issues_are_sorted_and_none_repeats():
    code = "import keras\nfrom keras.layers.core import Dense\nimg_iter.next(), img_iter.next()\n"
    code += "keras.layers.core.Dense()\nmodel.fit(img_iter, workers=2, steps_per_epoch=n / 2)"
    found = issues(code)
    assert [line for line, *_ in found] == [2, 3, 5, 5]
    assert len(set(found)) == 4


def notebook(*cells):
    kinds = {True: "code", False: "markdown"}
    return json.dumps(
        {
            "cells": [
                {"cell_type": kinds[not cell.startswith("#")], "source": cell.splitlines(True)}
                for cell in cells
            ]
        }
    )


def test_notebooks_are_read_by_cell():
    source = notebook(
        "%matplotlib inline\n!pip install \\\n    keras\nif True:\n    !ls\nfiles = !ls\nimport x",
        "# words (",
        TUTORIAL,
        "%%bash\nfor file in *; do echo $file; done",
        "%%time\nmodel?\nimg_iter.next()",
        "print('accuracy %f'\n      % accuracy)\nprint('%s\\n!')\nmodel.save('a')",
        "",
        "text = '''\n%d\n'''\n!ls\nmodel.save('b')",
    )
    for name in ("<script>", "asl.ipynb"):
        assert [(issue.cell, issue.line) for issue in check(source, name)] == [
            *((2, line) for line in (1, 4, 5, 7, 8)),
            (4, 3),
            (5, 4),
            (7, 5),
        ]
    assert check(notebook(), "a.ipynb") == []
    whole = json.loads(notebook("model.fit(x, workers=1)"))
    whole["cells"][0]["source"] = "model.fit(x, workers=1)"  # one string instead of lines
    assert check(json.dumps(whole))[0].cell == 1


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("a = 1\nb = = 2\n", "train.py", "train.py, line 2: this is not Python: invalid syntax."),
        ("print 'a'", "a.py", r"a.py, line 1: .*Missing parentheses"),
        ("a = '\0'", "a.py", "a.py, line 1: this is not Python: .*null bytes"),
        ("{'cells': []}", "a.ipynb", "a.ipynb, line 1: not a Jupyter notebook"),
        ("[]", "a.ipynb", "not a Jupyter notebook"),
        ('{"worksheets": []}', "a.ipynb", "not a Jupyter notebook"),
        ("-" * 100_000 + "1", "a.py", "^a.py.*(nested|too)"),
        ("x = " + "1 + " * 5_000 + "1", "a.py", "a.py can't be read: it is nested too deeply."),
    ],
    ids=range(8),
)
def test_invalid_sources_are_one_line_errors(source, name, message):
    with pytest.raises(InputError, match=message) as error:
        check(source, name)
    assert "\n" not in str(error.value)


def test_values_that_refer_to_each_other_do_not_grow_without_bound():
    double = "a = [a, a]\n" * 60 + "b = {'a': b, 'b': b}\n" * 60
    shifts = "ImageDataGenerator(width_shift_range=a, height_shift_range=b)\n"
    assert check(f"{IMPORTS}a = 1\nb = 2\n{double}{shifts}") == []
    mutual = "a, b = [a, b], dict(x=b, y=a)\n" * 60
    assert check(f"{IMPORTS}a = 1\nb = 2\n{mutual}{shifts}{shifts}") == []
    split = "a = train_test_split(a, a)\n" * 60
    assert check(f"{IMPORTS}a = [1]\n{split}ImageDataGenerator(width_shift_range=a)") == []


def test_huge_integers_can_be_read():
    huge = f"0x{'f' * 5000}"
    code = f"{IMPORTS}ImageDataGenerator(width_shift_range={huge})\nmodel.fit(x, workers={huge})"
    assert [issue.kind for issue in check(code)] == ["breaks"]


def test_python_warnings_are_no_errors():
    assert check('\ufeffimport re\nre.match("\\d", "1")\n1 is 1\n') == []


def test_any_expression_or_statement_can_be_read():
    code = """
    @decorated(x)
    def f(a, /, b=1, *c, d: int = 2, **e) -> int:
        nonlocal_ = lambda x: x / 255
        yield [i for i in range(3) if i], {**a, "b": 1}, {1, 2}, a[1:2], *c, ...
        a.b.c[0], (d, *e) = d, x
        f(*a, **b)(1).c(x for x in y)
        steps = 1 / 0 + 1 // 0 * 1.5 - -x % 2 @ 3
        ImageDataGenerator(*a, **b, width_shift_range=-x).flow()
        model.fit(), model.save(), model.predict(*x), keras.optimizers.SGD(*x, decay=1, lr=2)
        match a:
            case [1, *b]: pass
        with open(a) as b, c: pass
        while (n := 1): break
        try: pass
        except* ValueError: pass
        assert a, f"{a!r:>{b}}"
        del a
        global g; g = await b
        import a.b, c as d; from . import e; from .. import *
    class A(B, metaclass=C): x: int; y: int = 1
    x.y += 1; x[0] /= 255; x: int
    first, second = [1]
    huge = 1%s / 3 * 1%s
    os.path.join()
    for a.b in (): pass
    else: pass
    """
    code = code.replace("%s", "0" * 400).replace("except*", "except").replace("global g; g", "h")
    assert {kind for _, kind, _ in issues(code)} == {"breaks", "wrong"}


def test_checking_imports_neither_numpy_nor_keras():
    code = """
import sys, asl_fast.migration.lint
asl_fast.migration.lint.check("import keras")
assert not {"numpy", "tensorflow", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

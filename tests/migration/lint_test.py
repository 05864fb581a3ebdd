import json
import re
import subprocess
import sys
import textwrap

import pytest

from asl_fast import InputError
from asl_fast.migration.lint import Finding, check

IMPORTS = """
import math, os
import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
from tensorflow.keras.preprocessing.image import ImageDataGenerator
"""

# Given to code that needs a model and batches. Line 1 of the code comes after.
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


def found(code, *, before=IMPORTS + READY):
    """Checks code after a preamble; gives (line of the code, kind, message) of each finding."""
    code, first = textwrap.dedent(code).strip("\n"), before.count("\n")
    findings = check(before + code)
    assert all("\n" not in finding.message and finding.cell is None for finding in findings)
    return [(f.line - first, f.kind, f.message) for f in findings if f.line > first]


def one(code, **options):
    (finding,) = found(code, **options)
    return finding


def test_the_tutorial():
    findings = check(TUTORIAL)
    assert [(finding.line, finding.kind) for finding in findings] == [
        (1, "slow"),
        (4, "breaks"),
        (5, "slow"),
        (7, "breaks"),
        (8, "breaks"),
    ]
    messages = [finding.message for finding in findings]
    assert "`from asl_fast import ImageDataGenerator`" in messages[0]
    assert messages[1] == "iterators have no `.next()` any more: write `next(img_iter)`."
    assert "`datagen.fit(…)` does nothing but copy the images" in messages[2]
    assert "`math.ceil(len(x_train) / 32)`, or leave `steps_per_epoch` out" in messages[3]
    assert "`model.save('asl_model.keras')`" in messages[4]


def test_a_right_script_has_no_findings():
    assert check(GOOD) == []
    assert check("") == []
    assert check("import torch\nmodel = torch.load('a')\nmodel.fit(x, lr=1)") == []


def test_asl_fast_instead_of_keras_mends_the_import_alone():
    mended = check(f"from asl_fast import ImageDataGenerator\n{TUTORIAL}")
    assert [(finding.line, finding.kind) for finding in mended] == [
        (6, "slow"),  # `datagen.fit`
        (8, "breaks"),
        (9, "breaks"),
    ]


# Name: code, kind of the finding in its last line, and what the message holds.
BREAKS = {
    "next": ("img_iter.next()", "write `next(img_iter)`"),
    "next of a flow": ("datagen.flow(x_train).next()", "no `.next()`"),
    "next under another name": ("again = img_iter\nagain.next()", "`next(again)`"),
    "float steps": (
        "model.fit(img_iter, steps_per_epoch=len(x_train) / 32)",
        "`math.ceil(len(x_train) / 32)`",
    ),
    "float steps by a name": (
        "steps = x_train.shape[0] / 32\nmodel.fit(img_iter, steps_per_epoch=steps)",
        "`steps_per_epoch=steps` is a float",
    ),
    "float steps, divides evenly": (
        "n = 64\nmodel.fit(img_iter, steps_per_epoch=n / 32)",
        "is a float",
    ),
    "float steps plus one": ("model.fit(img_iter, steps_per_epoch=len(x_train) / 32 + 1)", "float"),
    "float steps of a known number": (
        "model.fit(img_iter, steps_per_epoch=100 / n)",
        "`math.ceil(100 / n)`",
    ),
    "a float": ("model.fit(x_train, y_train, steps_per_epoch=10.0)", "`math.ceil(10.0)`"),
    "NumPy rounds to floats": (
        "model.fit(img_iter, steps_per_epoch=np.ceil(len(x_train) / 32))",
        "`int(np.ceil(len(x_train) / 32))`",
    ),
    "validation steps": (
        "model.fit(x_train, validation_data=img, validation_steps=n / 32)",
        "`validation_steps=n / 32`",
    ),
    "steps": ("model.predict(x_train, steps=n / 32)", "`steps=n / 32`"),
    "steps of fit_generator": (
        "class M:\n def fit_generator(self): pass\nmodel.fit_generator(x, steps_per_epoch=n / 2)",
        "float",
    ),
    "save": ("model.save('asl_model')", "`model.export('asl_model')`"),
    "save under another ending": ("model.save('a/model.pb')", "can't tell the format"),
    "save by a name": ("name = 'asl'\nmodel.save(name)", "`model.save('asl.keras')`"),
    "save in a folder": ("model.save(os.path.join(folder, 'asl'))", "'asl'"),
    "save in a path": ("model.save(filepath='models/asl/')", "'models/asl.keras'"),
    "load": ("keras.models.load_model('asl')", "`keras.layers.TFSMLayer('asl')`"),
    "fit_generator": ("model.fit_generator(x)", "write `model.fit(…)`"),
    "evaluate_generator": ("model.evaluate_generator(x)", "write `model.evaluate(…)`"),
    "predict_generator": ("self.net.predict_generator(x)", "write `self.net.predict(…)`"),
    "predict_classes": ("model.predict_classes(x)", "`model.predict(…).argmax(axis=-1)`"),
    "workers": ("model.fit(img_iter, workers=4)", "`iterator.workers = 4`"),
    "processes": ("model.predict(x, use_multiprocessing=True)", "`use_multiprocessing`"),
    "queue": ("model.evaluate(x, max_queue_size=9)", "`evaluate` takes no `max_queue_size`"),
    "lr": ("keras.optimizers.Adam(lr=0.01)", "`learning_rate=0.01`"),
    "lr of an import": (
        "from keras.optimizers import SGD as Descent\nDescent(lr=rate)",
        "`learning_rate=rate`",
    ),
    "history": ("h = model.fit(x)\nh.history['acc']", "write `h.history['accuracy']`"),
    "history of validation": ("plot(h.history['val_acc'])", "`h.history['val_accuracy']`"),
    "history beside a label": ("plot(h.history['acc'], label='acc')", "no 'acc' in the history"),
    "history by a name": ("key = 'acc'\nh.history[key]", "no 'acc' in the history"),
    "Keras's generator": (
        "from keras.preprocessing.image import ImageDataGenerator",
        "`from asl_fast import ImageDataGenerator`, or take it from tensorflow.keras",
    ),
    "Keras's generator by its address": (
        "import keras\nkeras.preprocessing.image.ImageDataGenerator()",
        "`keras.preprocessing.image.ImageDataGenerator` is gone",
    ),
    "Keras's generator by its module": (
        "from keras.preprocessing import image as im\nim.ImageDataGenerator()",
        "`keras.preprocessing.image.ImageDataGenerator` is gone",
    ),
    "Keras's generator by another name": (
        "import keras.preprocessing.image as im\nGenerator = im.ImageDataGenerator",
        "`keras.preprocessing.image.ImageDataGenerator` is gone",
    ),
    "Keras's generator, assigned": (
        "from keras.preprocessing import image\nd = image.ImageDataGenerator()",
        "`keras.preprocessing.image.ImageDataGenerator` is gone",
    ),
    "Keras's generator, used at once": (
        "from keras.preprocessing import image\nd = image.ImageDataGenerator().flow(x)",
        "`keras.preprocessing.image.ImageDataGenerator` is gone",
    ),
    "Keras's generator by a star": (
        "from keras.preprocessing.image import *\nImageDataGenerator()",
        "`keras.preprocessing.image.ImageDataGenerator` is gone",
    ),
    "keras_preprocessing": (
        "from keras_preprocessing.image import ImageDataGenerator",
        "`keras_preprocessing` is gone",
    ),
    "an import whose failure is not expected": (
        "try:\n    x_train = load()\nexcept OSError:\n    import keras_preprocessing",
        "`keras_preprocessing` is gone",
    ),
    "tensorflow.python": (
        "from tensorflow.python.keras.preprocessing import image",
        "`tensorflow.python.keras.preprocessing` is a remnant",
    ),
    "a model of tensorflow.python": (
        "from tensorflow.python import keras as private\nprivate.models.Sequential()",
        "import from tensorflow.keras instead",
    ),
    "np_utils": ("from keras.utils import np_utils", "`from keras.utils import to_categorical`"),
    "np_utils of tf": ("tf.keras.utils.np_utils.to_categorical(y)", "np_utils` is gone"),
    "layers.core": ("from keras.layers.core import Dense", "`keras.layers.core` is gone"),
    "layers.normalization": (
        "from tensorflow.keras.layers.normalization import BatchNormalization",
        "`from keras.layers import …`",
    ),
    "experimental layers": (
        "layers.experimental.preprocessing.RandomFlip()",
        "`tensorflow.keras.layers.experimental` is gone",
    ),
}

SLOW = {
    "superfluous fit": ("datagen.fit(x_train)", "`datagen.fit(…)` does nothing"),
    **{
        name: (f"model.add(layers.{name}(0.1))", f"`{name}` inside a model switches XLA off")
        for name in (
            *("RandomRotation", "RandomZoom", "RandomTranslation"),
            *("RandomShear", "RandomCrop", "RandomPerspective"),
        )
    },
    "an imported layer": (
        "from keras.layers import RandomZoom as Z\nkeras.Sequential([Z(0.1)])",
        "`RandomZoom`",
    ),
}

SCALED = "datagen = ImageDataGenerator({})\nx_train = {}\ndatagen.flow(x_train, y_train)"
BRIGHT = "brightness_range=(0.8, 1.2)"

WRONG = {
    "rounded down": (
        "model.fit(img_iter, steps_per_epoch=len(x_train) // 32)",
        "`steps_per_epoch=len(x_train) // 32` is rounded down",
    ),
    "rounded down by a name": (
        "batch = 32\nsteps = x_train.shape[0] // batch\nmodel.fit(img_iter, steps_per_epoch=steps)",
        "Leave `steps_per_epoch` out",
    ),
    "rounded down by int": ("model.fit(img_iter, steps_per_epoch=int(n / 32))", "int(n / 32)"),
    "rounded down by NumPy": (
        "model.fit(img_iter, steps_per_epoch=int(np.floor(n / 32)))",
        "is rounded down",
    ),
    "rounded down, in figures": ("model.fit(img_iter, steps_per_epoch=27455 // 32)", "rounded"),
    "decay": (
        "keras.optimizers.SGD(0.1, decay=1e-4)",
        "InverseTimeDecay(0.1, 1, 0.0001)",
    ),
    "brightness": (SCALED.format(BRIGHT, "x_train / 255"), "zeros and ones"),
    "brightness, cast": (SCALED.format(BRIGHT, "x_train.astype('float32') / 255.0"), "zeros"),
    "brightness, cast later": (SCALED.format(BRIGHT, "(x / 255).astype('float32')"), "zeros"),
    "brightness, reshaped": (SCALED.format(BRIGHT, "np.expand_dims(x / 255, -1)"), "zeros"),
    "brightness, times": (SCALED.format(BRIGHT, "x * (1 / 255)"), "zeros and ones"),
    "brightness, part": (SCALED.format(BRIGHT, "(x / 255)[:100]"), "zeros and ones"),
    "brightness, inline": (
        f"ImageDataGenerator({BRIGHT}).flow(x=x_train / 255)",
        "rescale=1/255, which comes later",
    ),
    "brightness, in place": (
        f"x_train /= 255\nImageDataGenerator({BRIGHT}).flow(x_train)",
        "zeros and ones",
    ),
    "brightness, two at once": (
        f"x_train, x_valid = x_train / 255, x_valid / 255\nImageDataGenerator({BRIGHT})."
        "flow(x_train)",
        "zeros and ones",
    ),
    "brightness, divided before the split": (
        "from sklearn.model_selection import train_test_split\n"
        "a, b, c, d = train_test_split(x / 255, y, test_size=0.2)\n"
        f"ImageDataGenerator({BRIGHT}).flow(b)",
        "zeros and ones",
    ),
    "rescale": (SCALED.format("rescale=1.0 / 255", "x_train / 255"), "drop one of the two"),
    "shifts": (
        "ImageDataGenerator(width_shift_range=0.2, height_shift_range=0.1)",
        "width_shift_range=0.2 moves up and down, height_shift_range=0.1 left and right",
    ),
    "one shift": ("ImageDataGenerator(width_shift_range=0.2)", "Swap the two values"),
    "shifts by a dictionary": (
        "options = dict(height_shift_range=0.2)\nImageDataGenerator(**options)",
        "height_shift_range=0.2 left and right",
    ),
    "a shift by 1": (
        "ImageDataGenerator(width_shift_range=1, height_shift_range=1.0)",
        "width_shift_range=1 never shifts",
    ),
    "a shift by 3": (
        "ImageDataGenerator(width_shift_range=3.0, height_shift_range=3)",
        "height_shift_range=3 shifts by less than 3 pixels",
    ),
    "never fitted": (
        "ImageDataGenerator(featurewise_center=True).flow(x_train)",
        "featurewise_center is on, but the generator's `.fit(x_train)` is missing",
    ),
    "never fitted, by another name": (
        "a = ImageDataGenerator(zca_whitening=True); b = a; b.flow(x)",
        "zca_whitening is on",
    ),
    "augmented validation": (
        "model.fit(x_train, y_train, validation_data=datagen.flow(x_valid, y_valid))",
        "validation images are augmented as well (rotation_range)",
    ),
    "augmented validation by a name": (
        "valid = datagen.flow(x_valid)\nmodel.fit(x_train, validation_data=valid)",
        "make a second ImageDataGenerator",
    ),
    "augmented evaluation": ("model.evaluate(img_iter)", "augmented as well (rotation_range)"),
    "augmented subset": (
        "ImageDataGenerator(zoom_range=0.1, validation_split=0.2).flow(x, subset='validation')",
        "augmented as well (zoom_range)",
    ),
    "shuffled predictions": (
        "test = ImageDataGenerator().flow_from_directory('a')\np = model.predict(test).argmax(-1)\n"
        "print((p == test.classes).mean())",
        "add shuffle=False where `test` is made",
    ),
}

# The finding is not in the last line.
ELSEWHERE = {"shuffled predictions": 2}


@pytest.mark.parametrize(
    ("name", "kind", "code", "part"),
    [
        (name, kind, *case)
        for kind, cases in (("breaks", BREAKS), ("slow", SLOW), ("wrong", WRONG))
        for name, case in cases.items()
    ],
    ids=str,
)
def test_what_is_wrong_is_told_once_where_it_is(name, kind, code, part):
    line, found_kind, message = one(code)
    assert (found_kind, line) == (kind, ELSEWHERE.get(name, code.count("\n") + 1))
    assert part in message
    assert message.endswith(".")


NOT_TOLD = {
    "next of something else": "reader = csv()\nreader.next()\nself.pages.next()\nnext(img_iter)\n"
    "datagen.random_transform(x).next()",
    "next of asl_fast": (
        "from asl_fast import ImageDataGenerator\nImageDataGenerator().flow(x).next()"
    ),
    "whole steps": """
        model.fit(img_iter, steps_per_epoch=math.ceil(len(x_train) / 32))
        model.fit(img_iter, steps_per_epoch=len(img_iter), validation_steps=10)
        model.fit(img_iter, steps_per_epoch=(len(x_train) + 31) // 32)
        model.fit(img_iter, steps_per_epoch=-(-len(x_train) // 32))
        model.fit(img_iter, steps_per_epoch=len(x_train) // 32 + 1)
        model.fit(img_iter, steps_per_epoch=int(np.ceil(len(x_train) / 32)))
        model.fit(img_iter, steps_per_epoch=round(len(x_train) / 32))
        model.fit(img_iter, steps_per_epoch=2000 // 20)
        model.fit(img_iter, steps_per_epoch=int(n))
        model.fit(img_iter, validation_steps=len(x_valid) // 32)
    """,
    "rounded down of something else": """
        model.fit(x_train, y_train, steps_per_epoch=len(x_train) // 32)
        half = len(x_train) // 2
        plan(steps_per_epoch=len(x_train) / 32)
        model.fit(x_train, epochs=20 // 3, batch_size=len(x_train) // 32)
        model.fit(x_train / 255, y_train, sample_weight=weights / 2)
    """,
    "save": """
        model.save("asl.keras")
        model.save("asl.h5")
        model.save("asl.hdf5")
        model.save(f"asl_{n}.keras")
        model.save(path)
        model.save_weights("asl.weights.h5")
        model.export("asl")
        keras.models.load_model("asl.keras")
        keras.models.load_model(path)
    """,
    "save of something else": """
        picture.save("a.png")
        np.save("pixels", x_train)
        pickle.load_model("a")
    """,
    "own methods": """
        class Wrapped:
            def predict_classes(self, x):
                return self.model.predict(x).argmax(-1)
        Wrapped().predict_classes(x)
    """,
    "workers of something else": """
        pool(workers=4)
        loader.read(use_multiprocessing=True)
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
    """,
    "a star for something else": "from keras.preprocessing.image import *\nload_img('a.png')",
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
        SVC().fit(x_train)
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
        ImageDataGenerator({BRIGHT}).flow_from_directory("a")
        ImageDataGenerator(brightness_range=None).flow(x_train / 255)
        ImageDataGenerator({BRIGHT}).flow(x_train / 2)
        ImageDataGenerator({BRIGHT}).flow(x_train + 1 / 255)
        ImageDataGenerator({BRIGHT}).standardize(x_train / 255)
        water.flow(x_train / 255).next()
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
        ImageDataGenerator(rescale=False).flow(x_train / 255)
        ImageDataGenerator(rescale=1 / 255).flow(x_train)
        ImageDataGenerator(rescale=1 / 255).flow(x_train - x_train.mean())
    """,
    "shifts alike": """
        ImageDataGenerator(width_shift_range=0.1, height_shift_range=0.1)
        ImageDataGenerator(width_shift_range=0, height_shift_range=0.0)
        ImageDataGenerator(width_shift_range=1.0, height_shift_range=1.0)
        ImageDataGenerator(width_shift_range=shift, height_shift_range=shift)
        ImageDataGenerator(width_shift_range=[1, 2], height_shift_range=[1, 2])
        ImageDataGenerator(width_shift_range=0.1, **options)
        ImageDataGenerator(width_shift_range=0.1, height_shift_range=shift)
        ImageDataGenerator(width_shift_range=shift, height_shift_range=0.1)
        ImageDataGenerator(width_shift_range=shift, height_shift_range=other)
        ImageDataGenerator(**options(width_shift_range=0.1))
        read = read()
        ImageDataGenerator(width_shift_range=read, height_shift_range=0.1)
    """,
    "validation as it is": """
        plain = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)
        split = ImageDataGenerator(zoom_range=0.1, validation_split=0.2)
        model.fit(x_train, validation_data=plain.flow(x_valid, y_valid))
        model.fit(x_train, validation_data=(x_valid, y_valid))
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
        model.evaluate(train)
        model.predict(ImageDataGenerator().flow_from_directory("a"))
        unseen = ImageDataGenerator().flow_from_directory("a")
        model.predict(unseen)
        later = ImageDataGenerator().flow_from_directory("a")
        later.shuffle = False
        model.predict(later)
        later.classes
    """,
}


@pytest.mark.parametrize("code", NOT_TOLD.values(), ids=NOT_TOLD.keys())
def test_what_is_right_is_not_told(code):
    assert found(code) == []


def test_early_batches_are_told_where_they_are_drawn():
    code = """
        d = ImageDataGenerator(featurewise_center=True)
        batches = d.flow(x_train)
        {}
        d.fit(x_train)
        next(batches)
    """
    for draw in ("next(batches)", "model.fit(x=batches, validation_data=v)"):
        told = [f for f in found(code.format(draw)) if f[1] == "wrong"]
        assert [line for line, *_ in told] == [3]
        assert "comes only after this line" in told[0][2]


def test_keras_generator_is_slow_where_it_feeds_training():
    code = """
        a = ImageDataGenerator(horizontal_flip=True)
        b = ImageDataGenerator(rescale=1 / 255)
        for _ in range(2):
            model.fit({}, validation_data=b.flow(x_valid))
    """
    for batches in ("a.flow(x_train)", "x=a.flow_from_directory('a')"):
        line, kind, message = one(code.format(batches))
        assert (line, kind) == (1, "slow")
        assert "image by image" in message
    assert found(code.format("x_train")) == []


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from tensorflow.keras.preprocessing.image import ImageDataGenerator as IDG", "IDG"),
        ("import tensorflow as t", "t.keras.preprocessing.image.ImageDataGenerator"),
        ("import tensorflow", "tensorflow.keras.preprocessing.image.ImageDataGenerator"),
        ("import tensorflow.keras.preprocessing.image as i", "i.ImageDataGenerator"),
        ("from tensorflow import keras as k", "k.preprocessing.image.ImageDataGenerator"),
        ("from tensorflow.keras.preprocessing import image", "image.ImageDataGenerator"),
        ("from tensorflow.keras.preprocessing.image import *", "ImageDataGenerator"),
        ("from asl_fast import *", "ImageDataGenerator"),
        ("import asl_fast as a", "a.ImageDataGenerator"),
        ("import os", "tf.keras.preprocessing.image.ImageDataGenerator"),
    ],
)
def test_the_generator_is_known_under_any_name(imports, call):
    line, _, message = one(f"{imports}\n{call}(width_shift_range=0.1)", before="")
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
    assert [(line, kind) for line, kind, _ in found(code)] == [
        (5, "wrong"),
        (9, "slow"),
        (13, "breaks"),
        (15, "breaks"),
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
    assert [line for line, *_ in found(code)] == [3, 4, 5, 7, 11, 13, 15, 16, 17, 18, 19]


def test_long_code_is_cut():
    message = one(f"model.fit(x, steps_per_epoch=({' + '.join('x' * 50)}) / 32)")[2]
    assert "x + x …`" in message
    assert len(message) < 400


def test_findings_are_sorted_and_none_repeats():
    code = "import keras\nfrom keras.layers.core import Dense\nimg_iter.next(), img_iter.next()\n"
    code += "keras.layers.core.Dense()\nmodel.fit(img_iter, workers=2, steps_per_epoch=n / 2)"
    findings = found(code)
    assert [line for line, *_ in findings] == [2, 3, 5, 5]
    assert len(set(findings)) == 4


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
        findings = check(source, name)
        assert [(finding.cell, finding.line) for finding in findings] == [
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
        ("!ls", "a.py", "a.py, line 1: "),
        (notebook("a", "a\n%time\nb = = 2"), "a.ipynb", "a.ipynb, code cell 2, line 3: "),
        ("{'cells': []}", "a.ipynb", "a.ipynb, line 1: not a Jupyter notebook"),
        ("[]", "a.ipynb", "not a Jupyter notebook"),
        ('{"worksheets": []}', "a.ipynb", "not a Jupyter notebook"),
        ("-" * 100_000 + "1", "a.py", "^a.py.*(nested|too)"),
        ("x = " + "1 + " * 5_000 + "1", "a.py", "a.py can't be read: it is nested too deeply."),
    ],
    ids=range(10),
)
def test_what_is_not_python_is_one_line(source, name, message):
    with pytest.raises(InputError, match=message) as error:
        check(source, name)
    assert "\n" not in str(error.value)


def test_what_python_only_warns_of_is_read():
    assert check('\ufeffimport re\nre.match("\\d", "1")\n1 is 1\n') == []


def test_every_expression_and_statement_is_survived():
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
    assert {kind for _, kind, _ in found(code)} == {"breaks", "wrong"}


def test_checking_takes_milliseconds_and_imports_neither_numpy_nor_keras():
    code = f"""
import sys, time
import asl_fast.migration.lint
begin = time.perf_counter()
findings = asl_fast.migration.lint.check({TUTORIAL!r} * 20)
assert len(findings) == 100
assert time.perf_counter() - begin < 0.5
assert not {{"numpy", "tensorflow", "keras"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_messages_are_plain():
    everything = {**BREAKS, **SLOW, **WRONG}
    messages = {finding[2] for code, _ in everything.values() for finding in found(code)}
    for message in messages:
        assert not re.search(r"\{|\}|  |<", message), message
        assert len(message) < 330, message


def test_finding_is_frozen():
    with pytest.raises(AttributeError):
        Finding(1, "slow", "").line = 2

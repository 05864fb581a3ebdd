"""Every old spelling breaks or is ignored today, `check` reports it, and `run` translates it."""

import contextlib
import importlib
import io
import pkgutil
import textwrap
import warnings

import pytest

from asl_fast.migration import lint, old_spellings, script_runner

HEAD = """\
import os
import keras, matplotlib.pyplot as plt, numpy as np, tensorflow as tf
from tensorflow.keras.preprocessing.image import ImageDataGenerator
x, y = np.ones((6, 8, 8, 1), "float32"), np.eye(2)[[0, 1] * 3]
model = keras.Sequential(
    [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
)
model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
batches = ImageDataGenerator().flow(x, y, batch_size=2)
"""

# Code, and what the note says.
SPELLINGS = [
    ("keras.optimizers.Adam(lr=0.1)", "lr=0.1 is learning_rate=0.1 today"),
    ("tf.keras.optimizers.SGD(lr=0.1, decay=0.5)", "InverseTimeDecay(0.1, 1, 0.5)"),
    ("tf.keras.optimizers.SGD(0.1, 0.9, decay=0.5)", "InverseTimeDecay(0.1, 1, 0.5)"),
    (
        "a = keras.optimizers.Adam(epsilon=None)\na.build([v := keras.Variable(1.0)])\n"
        "a.apply([v], [v])",
        "epsilon=None left out",
    ),
    ("keras.optimizers.RMSprop(decay=0.5)", "InverseTimeDecay(0.001, 1, 0.5)"),
    ("keras.optimizers.legacy.Adam(1e-3)", "keras.optimizers.legacy is keras.optimizers"),
    ("from keras.optimizers import adam\nadam(0.1)", "keras.optimizers.Adam"),
    ("from tensorflow.keras.optimizers import adam_v2\nadam_v2.Adam(0.1)", "adam_v2"),
    ("tf.train.AdamOptimizer(0.1)", "tensorflow.keras.optimizers.Adam"),
    ("print(model.optimizer.lr)", "optimizer.lr is optimizer.learning_rate"),
    ("model.compile('sgd', 'mse', metrics='accuracy')", "metrics=['accuracy']"),
    ("model.compile('sgd', 'mse', sample_weight_mode=None)", "sample_weight_mode=None left out"),
    ("model.fit(x, y, nb_epoch=1, verbose=0)", "nb_epoch=1 is epochs=1 today"),
    ("model.fit(x, y, workers=2, verbose=0)", "workers=2 left out"),
    ("model.fit(batches, batch_size=2, verbose=0)", "batch_size=2 left out"),
    ("model.fit(batches, steps_per_epoch=2.5, verbose=0)", "steps_per_epoch=2.5 taken as 3"),
    (
        "model.fit(zip(x[None], y[None]), steps_per_epoch=1, verbose=0)",
        "zip(…) as data is a generator",
    ),
    ("model.fit_generator(batches, 3, 1, 0)", "fit_generator(…) is fit(…)"),
    ("model.predict_generator(batches)", "predict_generator(…) is predict(…)"),
    ("model.predict_classes(x)", "argmax(axis=-1)"),
    ("model.predict_proba(x)", "predict_proba(…) is predict(…)"),
    ("model.train_on_batch(x, y, reset_metrics=True)", "reset_metrics=True left out"),
    ("model.save('new/folder/asl')", "saved as 'new/folder/asl.keras'"),
    ("model.save('asl.pb')", "saved as 'asl.pb.keras'"),
    ("model.save('asl.keras', save_traces=False)", "save_traces=False left out"),
    ("model.save('asl', save_format='tf')", "saved as 'asl.keras'"),
    ("model.save_weights('asl.weights.h5', save_format='h5')", "save_format='h5' left out"),
    ("model.save_weights('asl.h5')", "saved as 'asl.weights.h5'"),
    ("keras.callbacks.ModelCheckpoint('a.hdf5')", "saved as 'a.h5'"),
    ("keras.callbacks.ModelCheckpoint('a-{epoch:02d}')", "saved as 'a-{epoch:02d}.keras'"),
    (
        "keras.callbacks.ModelCheckpoint('a.h5', save_weights_only=True)",
        "saved as 'a.weights.h5'",
    ),
    ("keras.callbacks.ModelCheckpoint('a.keras', period=2)", "after every 2 epochs"),
    ("keras.callbacks.TensorBoard(write_grads=True)", "write_grads=True left out"),
    ("keras.callbacks.ReduceLROnPlateau(epsilon=0.1)", "epsilon=0.1 is min_delta=0.1"),
    ("h = model.fit(x, y, verbose=0)\nprint(h.history['acc'])", "'acc' is 'accuracy' today"),
    ("keras.utils.np_utils.to_categorical([1])", "keras.utils.np_utils is keras.utils today"),
    ("from keras.utils.np_utils import to_categorical", "is keras.utils today"),
    ("from tensorflow.keras.utils import np_utils\nnp_utils.to_categorical([1])", "np_utils is"),
    ("keras.utils.to_categorical([1], nb_classes=2)", "num_classes=2"),
    ("from keras.layers.normalization import BatchNormalization", "keras.layers today"),
    ("import keras.layers.core\nkeras.layers.core.Dense(2)", "keras.layers.core is keras.layers"),
    ("from keras.engine.topology import Layer", "keras.engine is keras today"),
    ("tf.keras.layers.experimental.preprocessing.Rescaling(2.0)", "layers.experimental is"),
    ("from keras.layers import CuDNNLSTM", "keras.layers.LSTM"),
    ("keras.layers.Dense(output_dim=2, init='zeros')", "output_dim=2 is units=2"),
    ("keras.layers.Conv2D(2, 3, subsample=(2, 2), border_mode='same')", "padding='same'"),
    ("keras.layers.Conv2D(2, 3, dim_ordering='tf')", "data_format='channels_last'"),
    ("assert keras.layers.Convolution2D(4, 3, 3).strides == (1, 1)", "kernel_size today"),
    ("keras.layers.Dropout(p=0.5)", "p=0.5 is rate=0.5"),
    ("keras.layers.BatchNormalization(fused=True)", "fused=True left out"),
    ("keras.Model(input=model.inputs, output=model.outputs)", "outputs"),
    ("from keras.losses import mse", "tensorflow.keras.losses.mse"),
    ("keras.losses.MeanSquaredError(reduction='auto')", "reduction='sum_over_batch_size'"),
    ("from keras import backend as K\nK.mean(tf.constant(1.0))", "tensorflow.keras.backend.mean"),
    ("keras.backend.set_image_dim_ordering('tf')", "'channels_last'"),
    ("keras.backend.set_session(None)", "left out"),
    ("from keras.backend.tensorflow_backend import set_session\nset_session(1)", "left out"),
    (
        "from keras import backend as K\nK.set_value(model.optimizer.lr, 0.5)\n"
        "assert K.get_value(model.optimizer.learning_rate) == 0.5",
        "variable.assign(value)",
    ),
    (
        "from tensorflow.keras.layers.experimental import preprocessing\n"
        "preprocessing.RandomFlip()",
        "tensorflow.keras.layers.experimental is",
    ),
    ("from keras.layers.merge import concatenate, Concatenate", "keras.layers.merge is"),
    ("from keras.preprocessing.text import Tokenizer", "tensorflow.keras.preprocessing.text"),
    ("from keras import objectives\nobjectives.get('mse')", "keras.losses"),
    ("from tensorflow.python.keras.layers import Dense", "tensorflow.keras.layers"),
    ("from keras_preprocessing.image import load_img", "tensorflow.keras.preprocessing.image"),
    ("np.zeros(2, np.float)", "numpy.float is float today"),
    ("assert np.isnan(np.NaN) and np.Inf > 0", "numpy.nan"),
    ("assert np.product([2, 3]) == 6", "numpy.prod"),
    ("from numpy import bool8, float_", "numpy.float64"),
    ("tf.set_random_seed(1)", "tensorflow.random.set_seed"),
    ("tf.ConfigProto()", "tensorflow.compat.v1.ConfigProto"),
    ("plt.style.use('seaborn')", "'seaborn-v0_8' today"),
    ("plt.style.use('seaborn-whitegrid')", "'seaborn-v0_8-whitegrid' today"),
    ("plt.grid(b=True)", "visible=True"),
    ("from matplotlib import cm\ncm.get_cmap('gray')", "matplotlib.pyplot.get_cmap"),
    ("batches.next()", ".next() is next(…)"),
]
# Keras 3 takes these, but does not heed them.
IGNORED = ("decay=", "Convolution2D", "epsilon=0.1", "batch_size=2,", "python.keras")


def quietly():
    return warnings.catch_warnings(action="ignore")


@pytest.fixture(scope="module")
def places():
    """The lines of each spelling in one script, within a function that may fail."""
    places, line = [], HEAD.count("\n") + 1
    for code, _ in SPELLINGS:
        places.append(range(line + 2, line + 3 + code.count("\n")))
        line = places[-1].stop + 5
    return places


@pytest.fixture(scope="module")
def notes(tmp_path_factory, places):
    """What `run` says of the script, by line."""
    folder = tmp_path_factory.mktemp("old")
    code = [
        f"def try_it():\n    pass\n{textwrap.indent(code, '    ')}\ntry:\n    try_it()\n"
        "except Exception as error:\n    print(f'FAILED {error!r}')\n"
        for code, _ in SPELLINGS
    ]
    (folder / "old.py").write_text(HEAD + "\n".join(code))
    said = []
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), quietly():
        assert script_runner.run(folder / "old.py", [], said.append) == 0
    assert "FAILED" not in printed.getvalue(), printed.getvalue()
    return said


@pytest.fixture(scope="module")
def plain():
    """The names that the head defines, with Keras alone."""
    names = {"__name__": "plain"}
    exec(HEAD, names)
    return names


@pytest.mark.parametrize("number", range(len(SPELLINGS)), ids=[code for code, _ in SPELLINGS])
def test_an_old_spelling(notes, places, plain, tmp_path, monkeypatch, number):
    code, note = SPELLINGS[number]
    own = [n for n in notes if int(n.split()[1].rstrip(":")) in places[number]]
    assert sum(note in said for said in own) == 1, (own, notes)
    first = HEAD.count("\n")
    found = [issue for issue in lint.check(HEAD + code) if issue.line > first]
    assert [issue for issue in found if issue.kind != "slow"]
    if not any(part in code for part in IGNORED):
        monkeypatch.chdir(tmp_path)
        with quietly(), pytest.raises(Exception):  # noqa: B017, PT011
            exec(code, dict(plain))


ROOTS = ("keras", "tensorflow.keras")


def test_the_table_of_names_holds_for_what_is_installed():
    importlib.import_module("tensorflow.keras")
    paths = [f"{root}.{name}" for root in ROOTS for name in old_spellings.KERAS_NAMES]
    paths += [f"numpy.{n}" for n in (*old_spellings.NUMPY_NAMES, *old_spellings.PYTHON_TYPES)]
    paths += [f"tensorflow.{name}" for name in old_spellings.TENSORFLOW_NAMES]
    there = []
    with warnings.catch_warnings(action="ignore"):
        for path in paths:
            with contextlib.suppress(AttributeError, ImportError):
                pkgutil.resolve_name(path)
                there.append(path)
            pkgutil.resolve_name(old_spellings.name_today(path))
    assert set(there) <= {"numpy.object"}  # which Keras puts back once it has exported to ONNX

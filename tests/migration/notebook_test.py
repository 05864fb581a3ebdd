import json
import os
import warnings

import keras
import pytest
from keras.src.legacy.preprocessing import image

from asl_fast import InputError
from asl_fast.generator import iterators
from asl_fast.migration import notebook, script_runner
from asl_fast.migration.lint import check


def notebook_of(*cells, **more):
    """Returns a notebook's text; cells that begin with "#" are Markdown."""
    kinds = {True: "markdown", False: "code"}
    listed = [
        {"cell_type": kinds[c.startswith("#")], "source": c.splitlines(True), "outputs": [None]}
        for c in cells
    ]
    return json.dumps({"cells": listed, "metadata": {"ok": True}} | more)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a source in this process; returns (exit code, standard output, notes)."""
    monkeypatch.chdir(tmp_path)

    def run(source, name="asl.ipynb", *arguments):
        notes = []
        (tmp_path / name).write_text(source)
        capfd.readouterr()
        with warnings.catch_warnings(action="ignore"):
            code = script_runner.run(tmp_path / name, list(arguments), notes.append)
        return code, capfd.readouterr().out, notes

    return run


TRAINING = """\
import keras, numpy as np
from tensorflow.keras.preprocessing.image import ImageDataGenerator
x, y = np.ones((8, 8, 8, 1), "float32"), np.eye(2)[[0, 1] * 4]
model = keras.Sequential(
    [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
)
model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
it = ImageDataGenerator().flow(x, y, batch_size=4)
history = model.fit(it, steps_per_epoch=len(x) / 4, verbose=0)"""


def test_a_notebook_trains_to_its_last_cell(run, tmp_path):
    code, out, notes = run(
        notebook_of(
            "# words (",
            "%matplotlib inline\n!pip install keras \\\n    --quiet\nfiles = !ls *.png\nlen(files)",
            TRAINING,
            "batch = it.next()\nbatch[0].shape",
            "%%bash\nfor f in *; do echo $f; done",
            "%%time\n%time name = 'asl_model'\nmodel.save(name);",
            "display(name)\nget_ipython().run_line_magic('cd', 'x')",
            "import IPython\napp = IPython.Application.instance()\napp.kernel.do_shutdown(True)",
        )
    )
    assert code == 0
    assert out.split("\n")[:3] == ["0", "(4, 8, 8, 1)", "asl_model"]
    assert (tmp_path / "asl_model.keras").is_file()
    assert notes == [
        "cell 1, line 1: left out: %matplotlib inline",
        "cell 1, line 2: left out: !pip install keras \\",
        "cell 1, line 4: left out: files = !ls *.png",
        "cell 3, line 1: .next() is next(…) in today's Keras",
        "cell 4, line 1: left out: %%bash",
        "cell 5, line 1: left out: %%time",
        "cell 5, line 3: model.save('asl_model') saved as 'asl_model.keras'",
        "cell 6, line 2: get_ipython().run_line_magic('cd', 'x') left out",
        "cell 7, line 3: IPython.Application.instance().kernel.do_shutdown(True) left out",
    ]


def test_a_failing_cell_ends_the_run_and_is_named(run, capfd, tmp_path):
    (tmp_path / "asl.ipynb").write_text(
        notebook_of("a = 1", "def f():\n    return a / 0\nf()", "a = 2")
    )
    notes = []
    assert script_runner.run(tmp_path / "asl.ipynb", [], notes.append) == 1
    error = capfd.readouterr().err
    assert 'asl.ipynb, cell 2", line 2, in f' in error
    assert "return a / 0" in error
    assert "asl_fast" not in error
    code, out, _ = run(notebook_of("print(1)", "a = = 2", "print(3)"))
    assert (code, out) == (1, "1\n")


def test_strings_that_look_like_magics_are_left_alone(run):
    code, out, notes = run(notebook_of("!ls\ntext = '''\n%d\n!ls\n'''\nprint(text % 5)"))
    assert (code, out) == (0, "\n5\n!ls\n\n")
    assert notes == ["cell 1, line 1: left out: !ls"]


def test_a_script_exported_from_colab(run):
    code, out, notes = run(
        "!pip install -q keras\n%cd /content\nfrom google.colab import drive, files\n"
        "drive.mount('/content/drive')\nimport os\nos.kill(os.getpid(), 9)\n"
        "get_ipython().system('ls')\nprint(__name__, os.path.isabs(__file__))\n",
        "colab.py",
    )
    assert (code, out) == (0, "__main__ True\n")
    assert [note.partition(": ")[2] for note in notes] == [
        "left out: !pip install -q keras",
        "left out: %cd /content",
        "google.colab.drive.mount('/content/drive') left out",
        "os.kill of this process left out",
        "get_ipython().system('ls') left out",
    ]


def test_an_indented_cell(run):
    assert run(notebook_of("\n  a = 1\n  if a:\n      print(a)"))[:2] == (0, "1\n")


def test_notebooks_of_2014_and_of_other_languages(run):
    cells = [{"cell_type": "code", "input": ["print('old')\n"], "language": "python"}]
    assert run(json.dumps({"worksheets": [{"cells": cells}], "metadata": {}}))[:2] == (0, "old\n")
    other = notebook_of("x <- 1", metadata={"kernelspec": {"language": "R"}})
    with pytest.raises(InputError, match="is written in R, not in Python"):
        run(other)


def test_check_goes_on_after_a_cell_that_is_no_python():
    found = check(
        notebook_of("import os", "x = = 2\nmodel.fit(x, workers=1)", "m.fit(x, workers=1)")
    )
    assert [(issue.cell, issue.line, issue.kind) for issue in found] == [
        (2, 1, "breaks"),
        (3, 1, "breaks"),
    ]
    assert found[0].message == "this cell is left out: it is not Python: invalid syntax."
    assert check("!pip install x\nm.fit(x, workers=1)\n", "colab.py")[0].line == 2


def test_sources_are_read_as_python_reads_them(tmp_path, asl_fast_here):
    latin = tmp_path / "latin.py"
    latin.write_bytes("# coding: latin-1\nname = 'Grüße'\nm.fit(x, workers=1)\n".encode("latin-1"))
    assert "Grüße" in notebook.read_source(latin)
    assert asl_fast_here("check", latin).returncode == 1
    (tmp_path / "bytes.py").write_bytes(b"a = '\xff'\n")
    (tmp_path / "odd.py").write_bytes(b"# coding: nonsense\n")
    os.mkfifo(tmp_path / "pipe.py")
    for name, message in (
        ("bytes.py", "not text in UTF-8, and no coding line names another"),
        ("odd.py", "not text in UTF-8"),
        ("pipe.py", "it is not a regular file"),
        ("", "it is a folder"),
    ):
        for command in ("check", "run"):
            done = asl_fast_here(command, tmp_path / name)
            assert done.returncode == 2
            assert message in done.stderr


def test_a_thousand_shell_lines_do_not_take_long():
    assert len(notebook.read_cells("!ls\n" * 300, "a.py")[0].left_out) == 300
    assert notebook.read_cells("!ls\n" * 100_000, "a.py")[0].problem


OWN_ITERATORS = """
import numpy as np
from keras.preprocessing.image import ImageDataGenerator, Iterator, NumpyArrayIterator

class Mine(Iterator):
    def __init__(self, n):
        super().__init__(n, 2, False, 0)
    def _get_batches_of_transformed_samples(self, rows):
        return rows

class Arrays(NumpyArrayIterator):
    pass

x = np.ones((4, 8, 8, 1))
own, arrays = Mine(4), Arrays(x, None, ImageDataGenerator(), batch_size=2)
fast = NumpyArrayIterator(x, None, ImageDataGenerator(), batch_size=2)
print(next(own).tolist(), next(arrays).shape)
print(Mine.__mro__[1].__module__, Arrays.__mro__[1].__module__)
print(isinstance(own, Iterator), isinstance(fast, Iterator), issubclass(Arrays, NumpyArrayIterator))
print(type(fast).__module__, isinstance(Iterator, type))
"""


def test_own_subclasses_of_keras_iterators_get_keras_classes(run):
    code, out, notes = run(OWN_ITERATORS, "own.py")
    assert code == 0
    assert out.split("\n") == [
        "[0, 1] (2, 8, 8, 1)",
        f"{image.__name__} {image.__name__}",
        "True True True",
        f"{iterators.__name__} True",
        "",
    ]
    assert notes == []


CALLBACKS = """
import keras, pickle
class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs={}):
        print("ACC", logs.get("acc") is not None, "val_acc" in logs)
best = keras.callbacks.ModelCheckpoint("best.hdf5", monitor="val_acc", save_best_only=True)
every = keras.callbacks.ModelCheckpoint("every-{epoch}.keras", period=2)
stop = keras.callbacks.EarlyStopping("val_acc", patience=1)
callbacks = [Stop(), best, every, stop]
history = model.fit(it, epochs=4, validation_data=(x, y), callbacks=callbacks, verbose=0)
print(len(history.history["val_acc"]), type(pickle.loads(pickle.dumps(history.history))).__name__)
model.save_weights("w.h5")
model.load_weights("w.h5")
print(type(keras.models.load_model("best.hdf5")).__name__)
"""


def test_callbacks_and_files_of_old_names(run, tmp_path):
    code, out, notes = run(TRAINING + CALLBACKS, "callbacks.py")
    assert code == 0
    lines = out.split("\n")
    assert lines[:2] == ["ACC True False"] * 2
    assert lines[-3:] == ["2 dict", "Sequential", ""]
    assert {path.name for path in tmp_path.iterdir()} >= {
        "best.h5",
        "every-2.keras",
        "w.weights.h5",
    }
    said = " ".join(notes)
    for part in (
        "monitor='val_acc' is monitor='val_accuracy' today",
        "'acc' is 'accuracy' today",
        "load_weights('w.h5') loaded 'w.weights.h5'",
        "load_model('best.hdf5') loaded 'best.h5'",
    ):
        assert part in said


def test_masks_beside_images_need_a_number_of_steps(run, capfd, tmp_path):
    pairs = TRAINING.replace("history", "#") + (
        "\nimages, masks = (ImageDataGenerator().flow(i, batch_size=4) for i in (x, x))\n"
        "model.fit(zip(images, (m[:, 0, :2, 0] for m in masks)){})"
    )
    assert run(pairs.format(", steps_per_epoch=3, verbose=0"), "zip.py")[0] == 0
    (tmp_path / "zip.py").write_text(pairs.format(""))
    assert script_runner.run(tmp_path / "zip.py", [], print) == 1
    assert "steps_per_epoch must say how many batches" in capfd.readouterr().err


def test_whole_numbers_of_steps_are_no_note(run):
    code, _, notes = run(TRAINING.replace("len(x) / 4", "2.0, epochs=1.0"), "whole.py")
    assert (code, notes) == (0, [])


def test_everything_is_restored(run):
    before = [dict(vars(owner)) for owner in (keras.Model, keras.layers, keras.layers.Dense)]
    before += [dict(vars(image)), sorted(os.sys.modules)]
    run("import keras.layers.core, keras_preprocessing.image\n", "nothing.py")
    after = [dict(vars(owner)) for owner in (keras.Model, keras.layers, keras.layers.Dense)]
    after += [dict(vars(image)), sorted(os.sys.modules)]
    assert before == after

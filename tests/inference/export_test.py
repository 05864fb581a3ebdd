import json
import re
import zipfile

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from asl_fast import RandomAugment, Standardize, build_cnn
from asl_fast.commands import cli
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference import export as exports
from asl_fast.inference import target_openvino
from asl_fast.inference.export import export
from asl_fast.inference.targets import TARGETS
from asl_fast.models import saving
from asl_fast.system.errors import InputError
from tests import forked
from tests.samples import blobs


@pytest.fixture(scope="module")
def images():
    return blobs(60, seed=1)[0]


@pytest.fixture(scope="module")
def trained():
    """A confident network whose channels have very different scales."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(momentum=0.5, epsilon=1e-9),
            layers.Flatten(),
            layers.Dense(24, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    pixels, labels = blobs(240)
    model.fit(pixels / np.float32(255), labels, epochs=6, verbose=0)
    convolution, norm, *_ = model.layers
    scales = np.geomspace(1e-3, 1, 8)
    convolution.set_weights([weight * scales for weight in convolution.get_weights()])
    norm.moving_mean.assign(norm.moving_mean * scales)
    norm.moving_variance.assign((norm.moving_variance + 1e-9) * scales**2 - 1e-9)
    return model


def in_float32(model, images):
    return np.asarray(model(images / np.float32(255), training=False), np.float32)


# How users of each format read the names of the outputs.
LABELS = {
    "savedmodel": lambda path: (path / "assets.extra" / "labels.txt").read_text(),
    "litert": lambda path: zipfile.ZipFile(path).read("labels.txt").decode(),
    "onnx": lambda path: onnx_metadata(path)["letters"],
    "openvino": lambda path: (path / "labels.txt").read_text(),
}


def onnx_metadata(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map


def skip_without_packages(target):
    if missing := exports._missing(target):
        pytest.skip(f"needs {' and '.join(missing)}: pip install 'asl-fast[export]'")


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_computes_what_the_model_does_and_holds_the_letters(name, images, tmp_path):
    target = TARGETS[name]
    skip_without_packages(target)
    keras.utils.set_random_seed(1)
    model = build_cnn(dtype="mixed_bfloat16")
    path = tmp_path / "new" / f"hands{target.suffix}"
    (one,) = export(model, path, name, letters=LETTERS, images=images)
    assert list(path.parent.iterdir()) == [path]
    plain = build_cnn()
    plain.set_weights(model.get_weights())
    expected = in_float32(plain, images)
    assert np.abs(expected - in_float32(model, images)).max() > 1e-5  # bfloat16 would be seen
    np.testing.assert_allclose(target.load(path)(images / np.float32(255)), expected, atol=2e-6)
    assert one.difference < 2e-6
    assert (one.format, one.path, one.precision) == (name, str(path), "float32")
    assert (one.images, one.runs, one.same) == (60, 60, 1.0)
    assert 0 < one.median_ms <= one.p95_ms
    assert re.fullmatch(rf"{target.packages[-1]} \d+\.\d+\.\d+", one.runtime)
    files = [file for file in [path, *path.rglob("*")] if file.is_file()]
    assert one.bytes == sum(file.stat().st_size for file in files)
    assert LABELS[name](path) == "\n".join(LETTERS) + "\n"


def test_openvino_does_not_report_to_intel():
    skip_without_packages(TARGETS["openvino"])
    target_openvino._import_openvino()
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_all_leaves_out_formats_whose_packages_are_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(TARGETS["onnx"], "packages", ("tf2onnx", "no-such-runtime"))
    written = export(model_of(DENSE), tmp_path, "all")
    installed = {name for name in TARGETS if not exports._missing(TARGETS[name])}
    assert {one.format for one in written} == installed < set(TARGETS)
    assert sorted(one.path for one in written) == sorted(map(str, tmp_path.iterdir()))
    assert "Left out: onnx needs no-such-runtime" in caplog.text
    with pytest.raises(InputError, match=r"missing: onnx needs no-such-runtime. Install"):
        export(model_of(DENSE), tmp_path / "out", ["savedmodel", "onnx"])
    assert not (tmp_path / "out").exists()
    for target in set(TARGETS.values()) - {TARGETS["savedmodel"]}:
        monkeypatch.setattr(target, "packages", ("no-such-runtime",))
    (one,) = export(model_of(DENSE), tmp_path / "out", "all")
    assert one.path == str(tmp_path / "out" / "model.savedmodel")


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_layers_and_weights_become_float32(policy):
    inner = keras.layers.Dense(3, dtype=policy)
    model = keras.Sequential(
        [keras.Input((4, 5), dtype="float32"), keras.layers.TimeDistributed(inner, dtype=policy)]
    )
    plain = exports._in_float32(model)
    assert {layer.compute_dtype for layer in plain._flatten_layers()} == {"float32"}
    assert {weight.dtype for weight in plain.weights} == {"float32"}
    for weight, original in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, original)


# Of Keras's own. They augment where they are called without `training`; `MixUp` draws always.
AUGMENTATION = [
    keras.layers.RandomFlip(),
    keras.layers.RandomTranslation(0.3, 0.3),
    keras.layers.RandomErasing(),
    keras.layers.MixUp(),
]


@pytest.mark.parametrize("name", TARGETS)
def test_augmentation_does_nothing_in_an_exported_file(name, images, tmp_path):
    skip_without_packages(TARGETS[name])
    layers = keras.layers
    standardize = Standardize(featurewise_center=True, featurewise_std_normalization=True)
    standardize.fit(images / np.float32(255))
    tail = [layers.Flatten(), layers.Dropout(0.5), layers.Dense(24, activation="softmax")]
    ours = RandomAugment(rotation_range=90, seed=1)
    nested = keras.Sequential(AUGMENTATION)
    model = keras.Sequential([keras.Input((28, 28, 1)), ours, nested, standardize, *tail])
    without = keras.Sequential([keras.Input((28, 28, 1)), standardize, *tail])
    path = tmp_path / f"model{TARGETS[name].suffix}"
    export(model, path, name, images=images)
    pixels = images / np.float32(255)
    outputs = TARGETS[name].load(path)(pixels)
    np.testing.assert_allclose(outputs, in_float32(without, images), atol=1e-5)


class Shaky(keras.layers.Layer):
    """Random in training and at inference."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, pixels):
        return pixels + keras.random.normal(keras.ops.shape(pixels), seed=self.seed_generator)


def test_a_model_that_is_random_at_inference_is_rejected(images, tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), Shaky(), layers.Flatten(), layers.Dense(24, "softmax")]
    )
    with pytest.raises(InputError, match="random at inference"):
        export(model, tmp_path / "out", ["savedmodel"], images=images)
    assert not list(tmp_path.iterdir())


def test_int8_is_small_and_agrees_with_the_model(trained, images, tmp_path):
    sizes = {}
    for int8 in (False, True):
        (one,) = export(
            trained,
            tmp_path,
            ["litert"],
            images=images,
            calibration=blobs(100)[0],
            int8=int8,
        )
        sizes[one.precision] = one.bytes
        outputs = TARGETS["litert"].load(one.path)(images / np.float32(255))
        expected = in_float32(trained, images)
        assert np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1)) == one.same >= 0.98
        assert one.difference >= np.abs(outputs - expected).max() > 0
    assert {path.name for path in tmp_path.iterdir()} == {"model.tflite", "model.int8.tflite"}
    assert sizes["int8"] < sizes["float32"] / 3


def shift_one(error):
    def change(outputs):
        outputs[-1, 0] += error

    return change


def change_letters(outputs):
    outputs[:] = np.roll(outputs, 1, axis=1)


@pytest.mark.parametrize(
    ("change", "formats", "int8", "message"),
    [
        (shift_one(2e-4), ["onnx", "litert"], False, "by up to 0.0002"),
        (shift_one(np.nan), ["litert"], False, "nan"),
        (shift_one(0.9), ["litert"], True, "Allowed are 0.4 and 98%"),
        (change_letters, ["litert"], True, "and [0-9.]+% have the same letter"),
    ],
)
def test_a_file_with_other_outputs_is_not_left_behind(
    trained, images, tmp_path, monkeypatch, change, formats, int8, message
):
    load = TARGETS["litert"].load

    def load_changed(path):
        run = load(path)

        def run_changed(images):
            outputs = run(images).copy()
            change(outputs)
            return outputs

        return run_changed

    monkeypatch.setattr(TARGETS["litert"], "load", load_changed)
    if change is change_letters:  # otherwise the difference is refused first
        monkeypatch.setattr(exports, "INT8_BOUND", 1.0)
    former = tmp_path / f"model{'.int8' if int8 else ''}{TARGETS[formats[0]].suffix}"
    former.write_text("former model")
    with pytest.raises(InputError, match=message):
        export(
            trained,
            tmp_path,
            formats,
            images=images,
            calibration=images,
            int8=int8,
            force=True,
        )
    assert list(tmp_path.iterdir()) == [former]
    assert former.read_text() == "former model"


def test_pixels_are_scaled_as_the_model_expects(images, tmp_path, monkeypatch):
    load, brightest = TARGETS["savedmodel"].load, []

    def watch(path):
        run = load(path)
        return lambda images: brightest.append(images.max()) or run(images)

    monkeypatch.setattr(TARGETS["savedmodel"], "load", watch)
    scaling, dense = keras.layers.Rescaling(1 / 255), keras.layers.Dense(24)
    export(model_of(dense, shape=(28, 28, 1)), tmp_path / "a", images=images)
    assert max(brightest) == pytest.approx(images.max() / 255)
    export(model_of(scaling, dense, shape=(28, 28, 1)), tmp_path / "b", images=images)
    assert max(brightest) == images.max()


def model_of(*layers, shape=(2, 3)):
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *layers])


def test_other_shapes_are_compared_on_random_images(tmp_path):
    model = model_of(keras.layers.Dense(4, kernel_initializer="ones"), shape=(9, 8, 3))
    (one,) = export(model, tmp_path / "other", ["savedmodel"])
    assert one.images == 1000
    run = TARGETS["savedmodel"].load(one.path)
    # Logits of about 100, which float32 has to 1e-5.
    pixels = np.random.default_rng(3).random((5, 9, 8, 3), np.float32)
    np.testing.assert_allclose(run(pixels), np.tile(pixels.sum((1, 2, 3)), (4, 1)).T, rtol=1e-5)


def test_an_export_is_replaced_only_with_force(tmp_path):
    first, second = (model_of(keras.layers.Dense(2, name=name)) for name in ("first", "second"))
    out = tmp_path / "out"
    export(first, out)
    with pytest.raises(InputError, match="out exists. Replace it with --force"):
        export(second, out)
    export(second, out, force=True)
    run = TARGETS["savedmodel"].load(out)
    pixels = np.ones((1, 2, 3), np.float32)
    np.testing.assert_allclose(run(pixels), np.asarray(second(pixels)), atol=1e-6)
    assert list(tmp_path.iterdir()) == [out]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="notes exists and is no savedmodel"):
        export(second, tmp_path / "notes", force=True)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"


DENSE = keras.layers.Dense(2)
MISTAKES = {
    "no format": ({"formats": []}, "Received: None"),
    "an unknown format": ({"formats": ["tflite"]}, "formats are savedmodel, lit"),
    "int8 of another format": ({"int8": True}, "int8 is for the format litert"),
    "nothing to calibrate with": (
        {"formats": ["litert"], "int8": True},
        "images to calibrate with",
    ),
    "too few letters": ({"letters": "A"}, "has 2 outputs, but 1 letters"),
    "images of another shape": ({"images": np.zeros((5, 3, 3))}, "are (5, 3, 3); the model takes"),
    "a file's name for several": (
        {"formats": ["all"], "out": "m.onnx"},
        "m.onnx has the ending of another",
    ),
    "an unwritable folder": ({"out": "file/out"}, "file can't be written to"),
}


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_explained_and_leave_no_files(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    arguments = {"out": "out"} | changes
    with pytest.raises(InputError) as caught:
        export(model_of(DENSE), tmp_path / arguments.pop("out"), **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_models_that_cannot_be_exported_are_rejected(tmp_path):
    layers = keras.layers
    two = keras.Input((2,)), keras.Input((2,))
    several = keras.Model(two, layers.add(two))
    with pytest.raises(InputError, match="A model to export takes one tensor"):
        export(several, tmp_path / "out")
    solving = keras.Sequential([keras.Input((3, 3)), Determinant()])
    with pytest.raises(InputError, match="can't be exported as litert: "):
        export(solving, tmp_path / "out", ["litert"])
    assert not list(tmp_path.iterdir())


class Determinant(keras.layers.Layer):
    """Needs an operation that LiteRT lacks."""

    def call(self, matrices):
        return keras.ops.det(matrices)[:, None]


def test_the_command_prints_a_table_or_json(trained, folder, tmp_path):
    saving.save_model(trained, tmp_path / "hands.keras", LETTERS)
    command = ["export", tmp_path / "hands.keras", "--data", folder, "--format", "litert"]
    out = "--out", tmp_path / "out", "--json"
    process = forked.start(tmp_path / "log", forked.command_line, *command, *out)
    process.join()
    # The command's two lines about the data, and nothing from the converters.
    train, valid, *rest = (tmp_path / "log").read_text().splitlines()
    assert (process.exitcode, train[:6], valid[:6]) == (0, "train:", "valid:"), rest
    (exported,) = json.loads("\n".join(rest))
    assert exported["path"] == str(tmp_path / "out" / "hands.tflite")
    assert (exported["images"], exported["precision"]) == (48, "float32")
    text = zipfile.ZipFile(exported["path"]).read("labels.txt").decode()
    assert text.split() == list(LETTERS)

    result = CliRunner().invoke(
        cli.app, [*map(str, command), "--out", str(tmp_path / "one.tflite"), "--verbose"]
    )
    assert result.exit_code == 0, result.output
    for words in ("litert", "0.15 MB", "largest difference", "100.0%", "one.tflite"):
        assert words in result.output

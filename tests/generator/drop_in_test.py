"""What users bring to Keras's class, given to both: overriding, small work, odd values, misuse."""

import itertools
import os
import time
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing import image as legacy

import asl_fast
from asl_fast import DataFrameIterator, DirectoryIterator, ImageDataGenerator, NumpyArrayIterator
from asl_fast.generator import iterators
from tests.samples import blobs

COURSE = {
    "rotation_range": 10,
    "zoom_range": 0.1,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "horizontal_flip": True,
}
PIXELS = (blobs(20)[0] / 255).astype(np.float32)
pytestmark = pytest.mark.filterwarnings("ignore:Batches are made image by image")


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def check(actual, expected, atol=1e-4):
    """Compares batches of ours and Keras's: structure, dtypes, values."""
    assert type(actual) is type(expected)
    if isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            check(a, b, atol)
        return
    assert getattr(actual, "dtype", None) == getattr(expected, "dtype", None)
    if getattr(expected, "dtype", None) in (np.float32, np.float64):
        np.testing.assert_allclose(actual, expected, atol=atol * max(1, np.abs(expected).max()))
    else:
        np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


def outcome(call):
    """What a call returns, or the exception it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    except Exception as error:
        return error


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    for label, count in (("a", 5), ("b", 4)):
        (folder / label).mkdir()
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 255, (9, 8, 3), np.uint8)
            keras.utils.save_img(folder / label / f"{number}.png", pixels, scale=False)
    return folder


@pytest.fixture
def at_once(monkeypatch):
    """Compiles from the first batch on, before the second."""
    monkeypatch.setattr(iterators, "_PATIENCE", 0.0)

    class Now:
        def submit(self, work):
            work()
            return self

        def done(self):
            return True

        def result(self):
            return None

    monkeypatch.setattr(iterators, "_compiler", Now)


# 1. What users override is called.


def overriding(base, name):
    """A subclass of a generator with one method of its own."""

    class Inverted(base):
        def standardize(self, x):
            return 1 - super().standardize(x)

    class Stamped(base):
        def apply_transform(self, x, transform_parameters):
            x = super().apply_transform(x, transform_parameters)
            x[0, 0] = 7
            return x

    class Fixed(base):
        def get_random_transform(self, img_shape, seed=None):
            return super().get_random_transform(img_shape, seed) | {"theta": 90}

    return {"standardize": Inverted, "apply_transform": Stamped, "get_random_transform": Fixed}[
        name
    ]


@pytest.mark.parametrize("name", ["standardize", "apply_transform", "get_random_transform"])
def test_a_generators_own_methods_are_called_for_each_image(name):
    theirs, mine = (
        overriding(base, name)(**COURSE) for base in (legacy.ImageDataGenerator, ImageDataGenerator)
    )
    expected, actual = (take(g.flow(PIXELS, np.arange(20), 8, seed=4), 5) for g in (theirs, mine))
    check(actual, expected)
    element = next(iter(mine.flow(PIXELS, np.arange(20), 8, seed=4).take(1)))
    assert element[0].shape == (8, 28, 28, 1)


def test_a_method_set_on_an_object_is_called_from_then_on():
    generator = ImageDataGenerator()
    iterator = generator.flow(PIXELS, shuffle=False, batch_size=4)
    np.testing.assert_array_equal(next(iterator), PIXELS[:4])
    generator.standardize = lambda x: x * 0 - 3
    assert (next(iterator) == -3).all()
    assert (next(iter(iterator.take(1))).numpy() == -3).all()


def skipping(base):
    class Skipping(base):
        def _get_batches_of_transformed_samples(self, index_array):
            kept = [row for row in index_array if self._readable_row(row)]
            return super()._get_batches_of_transformed_samples(np.array(kept))

        def _readable_row(self, row):
            try:
                keras.utils.load_img(self.filepaths[row])
            except OSError:
                return False
            return True

    return Skipping


def test_an_iterators_own_batches_may_skip_broken_files(folder, tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for path in (folder / label).iterdir():
            (tmp_path / label / path.name).write_bytes(path.read_bytes())
    (tmp_path / "a" / "1.png").write_text("not an image")
    theirs, mine = (
        skipping(base)(tmp_path, generator(**COURSE), target_size=(6, 6), batch_size=4, seed=1)
        for base, generator in (
            (legacy.DirectoryIterator, legacy.ImageDataGenerator),
            (DirectoryIterator, ImageDataGenerator),
        )
    )
    check(take(mine, 6), take(theirs, 6))


def test_a_sampler_of_the_users_own_decides_which_rows_come():
    def balanced(base):
        class Balanced(base):
            def _set_index_array(self):
                self.index_array = np.repeat([3, 5], self.n // 2)

        return Balanced

    theirs = balanced(legacy.NumpyArrayIterator)(PIXELS, np.arange(20), legacy.ImageDataGenerator())
    mine = balanced(NumpyArrayIterator)(PIXELS, np.arange(20), ImageDataGenerator())
    check(take(mine, 2), take(theirs, 2))
    assert {int(label) for _, labels in mine.take(1) for label in labels} == {3, 5}


def test_it_is_said_once_that_batches_are_made_image_by_image():
    iterators._say_once.cache_clear()
    mine = overriding(ImageDataGenerator, "standardize")()
    with pytest.warns(UserWarning, match="by image, as by Keras: .*standardize. is over") as said:
        take(mine.flow(PIXELS), 2) + take(mine.flow(PIXELS), 2)
    assert len(said) == 1


def test_an_overridden_generator_trains():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    flow = overriding(ImageDataGenerator, "standardize")().flow(PIXELS, np.arange(20))
    for fit in (asl_fast.fit, keras.Model.fit):
        assert len(fit(model, flow, epochs=2, shuffle=False, verbose=0).history["loss"]) == 2


def test_the_members_that_users_set():
    images = ImageDataGenerator(**COURSE).flow(PIXELS, np.arange(20), 4, seed=2)
    seen = take(images, 15)
    resumed = ImageDataGenerator(**COURSE).flow(PIXELS, np.arange(20), 4, seed=2)
    resumed.total_batches_seen = 10
    check(take(resumed, 5), seen[10:])
    assert resumed.total_batches_seen == 15
    batch = images._get_batches_of_transformed_samples(np.array([4, 2, 2]))
    np.testing.assert_array_equal(batch[1], [4, 2, 2])
    images._set_index_array()
    assert sorted(images.index_array) == list(range(20))
    images.y = np.arange(20) * 10.0
    assert next(images)[1].max() >= 40
    assert next(iter(images.take(1)))[1].dtype == tf.float64
    images.batch_size = 5
    assert len(images) == 4
    assert [len(y) for _, y in images.take(2)] == [5, 5]
    images.x = PIXELS * 0
    assert next(images)[0].max() == images[1][0].max() == 0
    images.shuffle = False
    images.index_array = np.arange(20)[::-1]
    np.testing.assert_array_equal(images[0][1], [190, 180, 170, 160, 150])


def test_the_members_that_users_set_on_files(folder):
    made = ImageDataGenerator().flow_from_directory(
        folder, (4, 4), class_mode="sparse", shuffle=False
    )
    made.classes = np.arange(9) % 3
    np.testing.assert_array_equal(next(made)[1], np.arange(9) % 3)
    np.testing.assert_array_equal(next(iter(made.take(1)))[1], np.arange(9) % 3)
    made.class_mode = None
    assert next(made).shape == (9, 4, 4, 3)


def test_options_that_change_later_apply_to_iterators_too(at_once):
    generator = ImageDataGenerator()
    iterator = generator.flow(PIXELS, batch_size=4, shuffle=False)
    take(iterator, 2)
    generator.rescale = 2
    np.testing.assert_allclose(next(iterator), PIXELS[8:12] * 2)


# 2. Small work is cheap.


@pytest.mark.parametrize(
    "options",
    [
        {"rng": "keras", **COURSE},
        {"width_shift_range": 3, "height_shift_range": [0.1, 0.3], "vertical_flip": True},
        {"shear_range": 20, "fill_mode": "constant", "cval": 0.5, "interpolation_order": 3},
        {"channel_shift_range": 0.3, "rescale": 3, "samplewise_center": True},
        {"brightness_range": (0.5, 1.5), "data_format": "channels_first", "rotation_range": 40},
        {"featurewise_center": True, "zca_whitening": True, "fill_mode": "wrap", "zoom_range": 0.3},
        {"dtype": "float64", "rotation_range": 90, "fill_mode": "reflect"},
        {"preprocessing_function": keras.applications.mobilenet.preprocess_input},
        {"preprocessing_function": lambda x: x[::-1] ** 2, "rotation_range": 20},
    ],
    ids=range(9),
)
def test_one_by_one_or_compiled_the_batches_are_the_same(options, at_once, monkeypatch):
    x = np.repeat(PIXELS * 255, 3, axis=3)[:, ::2, ::3] * np.float32([1, 0.5, 0.2])
    if options.get("data_format"):
        x = x.transpose(0, 3, 1, 2)

    def batches():
        generator = ImageDataGenerator(**options)
        generator.fit(x)
        flow = generator.flow(x, np.arange(20), batch_size=6, seed=9)
        return [*take(flow, 6), flow[1], flow[3], next(flow)]

    compiled = batches()
    monkeypatch.setattr(iterators, "_PATIENCE", 1e9)
    by_image = batches()
    check(compiled, by_image, atol=5e-3 if "brightness_range" in options else 3e-4)
    assert any((a[0] != b[0]).any() for a, b in itertools.pairwise(by_image[:2]))


def test_nothing_is_compiled_for_a_few_pictures(monkeypatch):
    monkeypatch.setattr(iterators, "Pipeline", None)
    monkeypatch.setattr(tf, "function", None)
    generator = ImageDataGenerator(**COURSE)
    for image in (PIXELS[:1], np.zeros((1, 40, 30, 3))):
        flow = generator.flow(image, batch_size=1)
        assert len(list(itertools.islice(flow, 21))) == 21
        generator.random_transform(image[0])
        generator.fit(image, augment=True)


def test_it_changes_over_in_the_background_when_there_is_much_to_do(monkeypatch):
    monkeypatch.setattr(iterators, "_PATIENCE", 0.01)
    expected, flow = (
        ImageDataGenerator(**COURSE).flow(PIXELS, np.arange(20), 8, seed=1) for _ in "ab"
    )
    deadline = time.monotonic() + 60
    while not any(making.done() for making in flow._compiling.values()):
        assert time.monotonic() < deadline
        expected._spent = 0.0
        check(next(flow), next(expected))
    expected._spent = -1e9
    monkeypatch.setattr(
        NumpyArrayIterator, "_augmented_by_image", NumpyArrayIterator._augmented_by_image
    )
    for _ in range(7):
        check(next(flow), next(expected))
    assert flow._pipeline is not None
    assert expected._pipeline is None


# 3. Nothing happens ahead of demand that can be seen.


def test_only_batches_that_are_handed_out_are_written_or_processed(tmp_path, at_once):
    seen = []

    def process(image):
        seen.append(np.random.randint(10**6))
        return image

    def run(base):
        seen.clear()
        generator = base(preprocessing_function=process, **COURSE)
        flow = generator.flow(PIXELS, batch_size=2, seed=3, save_to_dir=str(tmp_path))
        batches = take(flow, 2)
        return batches, list(seen), len(list(tmp_path.iterdir()))

    _, drawn, files = run(ImageDataGenerator)
    assert (len(drawn), files) == (4, 4)
    again = run(ImageDataGenerator)
    assert again[1] == drawn  # NumPy's global generator is seeded
    for path in tmp_path.iterdir():
        path.unlink()
    # With Keras's own draws the function draws what it draws under Keras.
    theirs = run(legacy.ImageDataGenerator)
    for path in tmp_path.iterdir():
        path.unlink()
    mine = run(lambda **options: ImageDataGenerator(**options, rng="keras"))
    check(mine[0], theirs[0])
    assert mine[1:] == theirs[1:]


def test_in_a_dataset_too(tmp_path):
    seen = []

    def process(image):
        seen.append(image)
        return image

    generator = ImageDataGenerator(preprocessing_function=process, **COURSE)
    flow = generator.flow(PIXELS, batch_size=2, save_to_dir=str(tmp_path))
    iterator = iter(flow.map(lambda x: x))
    next(iterator), next(iterator)
    assert len(seen) == len(list(tmp_path.iterdir())) == 4


class OwnError(Exception):
    pass


def fails(image):
    raise OwnError("my words")


def test_the_users_own_exception_arrives_as_itself():
    flow = ImageDataGenerator(preprocessing_function=fails).flow(PIXELS, np.arange(20))
    for draw in (lambda: next(flow), lambda: flow[0], lambda: next(iter(flow))):
        with pytest.raises(OwnError, match="my words"):
            draw()
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(OwnError, match="my words"):
        asl_fast.fit(model, flow, verbose=0)


# 4. Labels of any kind.

LABELS = {
    "strings": np.array([f"letter {i}" for i in range(20)]),
    "bytes": np.array([b"a", b"b"] * 10),
    "objects": np.array([None, "x", 3, 2.5, {"a": 1}] * 4, object),
    "dates": np.datetime64("2020-01-01") + np.arange(20),
    "durations": np.arange(20).astype("timedelta64[s]"),
    "bool": np.arange(20) % 2 == 0,
    "complex": np.arange(20) * 1j,
    "half": np.arange(20, dtype=np.float16),
    "records": np.array([(1, 2.0)] * 20, [("a", "i4"), ("b", "f4")]),
    "long": np.arange(20, dtype=np.longdouble),
    "unsigned": np.arange(20, dtype=np.uint64) + 2**63,
    "images": PIXELS,
    "list": list("abcdefghijklmnopqrst"),
    "series": pd.Series(list("ab") * 10),
    "categories": pd.Categorical(list("ab") * 10),
    "nullable": pd.array([1, None] * 10, "Int64"),
    "tensor": tf.range(20),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind_come_back_as_they_are(kind):
    theirs, mine = (
        generator.flow(PIXELS, LABELS[kind], 6, shuffle=False)
        for generator in (legacy.ImageDataGenerator(), ImageDataGenerator())
    )
    check(take(mine, 5), take(theirs, 5))
    check(mine[2], theirs[2])


@pytest.mark.parametrize("kind", [k for k in LABELS if k not in ("images", "tensor", "records")])
def test_labels_of_any_kind_in_dataframes(folder, kind):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    frame = pd.DataFrame({"filename": names, "label": pd.Series(LABELS[kind])[:9]})
    theirs, mine = (
        generator.flow_from_dataframe(
            frame, str(folder), y_col="label", class_mode="raw", target_size=(4, 4), shuffle=False
        )
        for generator in (legacy.ImageDataGenerator(), ImageDataGenerator())
    )
    check(next(mine)[1], next(theirs)[1])


def test_labels_that_tensorflow_has_no_type_for_are_refused_in_training():
    flow = ImageDataGenerator().flow(PIXELS, LABELS["dates"])
    with pytest.raises(ValueError, match="Labels of the dtype datetime64.* can't be used"):
        flow.map(lambda x, y: x)
    strings = ImageDataGenerator().flow(PIXELS, LABELS["strings"], shuffle=False)
    assert next(iter(strings.map(lambda x, y: y)))[0] == b"letter 0"


# 5. Arguments of any kind that Keras takes.

X3 = np.repeat(PIXELS[:6, :8, :9] * 255, 3, axis=3)

GENERATOR_VALUES = [
    {"rotation_range": None, "shear_range": None, "width_shift_range": None},
    {"height_shift_range": None, "channel_shift_range": 0, "brightness_range": None, "cval": 3},
    {"rotation_range": np.int64(20), "zoom_range": np.float64(0.2), "shear_range": np.float32(5)},
    {"rotation_range": True},
    {"horizontal_flip": 1, "vertical_flip": "yes"},
    {"horizontal_flip": np.True_, "vertical_flip": 0, "samplewise_center": 1},
    {"zoom_range": [0.5, 1.5]},
    {"zoom_range": 1},
    {"zoom_range": (1, 2)},
    {"width_shift_range": np.int32(3), "height_shift_range": (1, 2)},
    {"width_shift_range": [0.1, 0.2], "height_shift_range": -0.2},
    {"width_shift_range": True},
    {"brightness_range": [0.2, 1]},
    {"brightness_range": (np.float32(0.5), 2)},
    {"channel_shift_range": np.float32(20)},
    {"rescale": np.float32(0.5), "zca_epsilon": None},
    {"width_shift_range": -2},
    {"rescale": 0},
    {"rescale": True, "samplewise_std_normalization": 1},
    {"fill_mode": "mirror", "rotation_range": 40},
    {"fill_mode": "grid-mirror", "rotation_range": 40},
    {"fill_mode": "grid-wrap", "rotation_range": 40},
    {"fill_mode": "grid-constant", "rotation_range": 40, "cval": np.float64(9)},
    {"fill_mode": "unknown"},
    {"interpolation_order": np.int64(0), "rotation_range": 40},
    {"interpolation_order": True, "rotation_range": 40},
    {"dtype": np.float64, "rotation_range": 40},
    {"dtype": "uint8", "horizontal_flip": True},
    {"dtype": int},
    {"data_format": "channels_last", "validation_split": None},
    {"preprocessing_function": np.negative},
    {"preprocessing_function": lambda x: 5},
    {"preprocessing_function": False},
]


@pytest.mark.parametrize("options", GENERATOR_VALUES, ids=" ".join)
@pytest.mark.filterwarnings("ignore:.*overrides setting")
def test_values_that_keras_takes_are_taken(options):
    theirs = legacy.ImageDataGenerator(**options).flow(X3, np.arange(6), 4, seed=3)
    mine = ImageDataGenerator(**options, rng="keras").flow(X3, np.arange(6), 4, seed=3)
    check(take(mine, 3), take(theirs, 3))
    ImageDataGenerator(**options).flow(X3).next()


FLOW_VALUES = [
    {"batch_size": np.int64(4), "seed": np.uint8(3)},
    {"batch_size": True, "seed": False},
    {"seed": np.int64(0), "shuffle": 1},
    {"shuffle": None, "y": None},
    {"shuffle": "", "y": list(range(6)), "sample_weight": tuple(range(6))},
    {"save_to_dir": "", "save_format": "nonsense"},
    {"x": tf.constant(X3), "y": tf.range(6)},
    {"x": X3.astype(np.int64)},
    {"x": X3.astype(np.float16)},
    {"x": X3 > 100},
    {"x": (X3, [np.arange(6), np.ones((6, 2))])},
    {"x": [X3, np.array(list("abcdef"))]},
    {"x": X3.astype(str)},
    {"x": np.asfortranarray(X3)[::-1]},
    {"x": pd.Series(range(6)).to_numpy().reshape(6, 1, 1, 1)},
    {"subset": "training", "ignore_class_split": 1},
]


@pytest.mark.parametrize("arguments", FLOW_VALUES, ids=range(len(FLOW_VALUES)))
def test_arguments_of_flow_that_keras_takes_are_taken(arguments):
    arguments = {"x": X3, "y": np.arange(6), "shuffle": False} | arguments
    options = {"rotation_range": 20, "validation_split": 0.4}
    theirs = legacy.ImageDataGenerator(**options).flow(**{"batch_size": 4, "seed": 1} | arguments)
    mine = ImageDataGenerator(**options, rng="keras").flow(
        **{"batch_size": 4, "seed": 1} | arguments
    )
    check(take(mine, 3), take(theirs, 3))


FOLDER_VALUES = [
    {"target_size": np.array([5, 6])},
    {"target_size": [np.int32(5), 6], "keep_aspect_ratio": 1},
    {"classes": ("b", "a"), "class_mode": "binary"},
    {"classes": ["b"], "class_mode": "sparse", "batch_size": np.int8(3)},
    {"classes": [], "follow_links": 1},
    {"color_mode": "rgba", "subset": "training"},
    {"class_mode": None, "interpolation": "bicubic"},
]


@pytest.mark.parametrize("arguments", FOLDER_VALUES, ids=range(len(FOLDER_VALUES)))
def test_arguments_of_folders_that_keras_takes_are_taken(folder, arguments):
    arguments = {"target_size": (5, 4), "shuffle": False} | arguments
    options = {"validation_split": 0.4, "horizontal_flip": True}
    theirs = legacy.ImageDataGenerator(**options).flow_from_directory(folder, **arguments, seed=1)
    mine = ImageDataGenerator(**options, rng="keras").flow_from_directory(
        folder, **arguments, seed=1
    )
    check(take(mine, 3), take(theirs, 3))
    assert mine.class_indices == theirs.class_indices


@pytest.mark.parametrize("name", ["ä.png", b"\xff\xfe.png", "a b'[1]\n.png"])
def test_loose_images_with_names_of_any_kind(folder, tmp_path, name):
    picture = next(folder.rglob("*.png")).read_bytes()
    (tmp_path / os.fsdecode(name)).write_bytes(picture)
    arguments = {"classes": ["."], "class_mode": None, "target_size": (4, 4)}
    theirs = legacy.ImageDataGenerator().flow_from_directory(tmp_path, **arguments)
    mine = ImageDataGenerator().flow_from_directory(tmp_path, **arguments)
    assert mine.filenames == theirs.filenames
    check(next(mine), next(theirs))
    np.testing.assert_allclose(next(iter(mine.take(1))), next(theirs))
    if isinstance(name, str):  # pandas has no other strings
        frame = pd.DataFrame({"filename": [name]})
        mine = DataFrameIterator(frame, str(tmp_path), class_mode=None, target_size=(4, 4))
        check(next(mine), next(theirs))


# 6. Wrong use is told at once and in words.


def raised(call):
    error = outcome(call)
    assert isinstance(error, Exception), "nothing was raised"
    return error


@pytest.mark.parametrize(
    "options",
    [
        {"rotation_range": "10"},
        {"zoom_range": None},
        {"zoom_range": "0.2"},
        {"zoom_range": [1, "2"]},
        {"width_shift_range": "0.1"},
        {"height_shift_range": {"a": 1}},
        {"rescale": np.array([1.0, 0.5])},
        {"vertical_flip": None},
        {"brightness_range": 0.5},
        {"brightness_range": ("a", "b")},
        {"channel_shift_range": None},
        {"fill_mode": "mirrored", "rotation_range": 9},
        {"interpolation_order": 6, "rotation_range": 9},
        {"interpolation_order": "linear", "rotation_range": 9},
        {"cval": "black", "rotation_range": 9, "fill_mode": "constant"},
        {"rescale": "1/255"},
        {"data_format": "NHWC"},
        {"dtype": "float33"},
        {"validation_split": 2},
        {"validation_split": "0.2"},
        {"preprocessing_function": "normalise"},
        {"typo": 1},
    ],
    ids=str,
)
def test_a_wrong_option_raises_what_keras_raises_and_at_once(options):
    theirs = raised(lambda: next(legacy.ImageDataGenerator(**options).flow(X3)))
    mine = raised(lambda: ImageDataGenerator(**options))
    kind = next(c for c in type(theirs).__mro__ if c.__module__ == "builtins")
    assert isinstance(mine, kind), repr(mine)
    assert isinstance(mine, ValueError | TypeError)


FLOW_MISTAKES = [
    {"y": np.arange(5)},
    {"sample_weight": [1]},
    {"x": [X3, np.arange(5)]},
    {"x": X3[0]},
    {"x": None},
    {"x": "images"},
    {"batch_size": 2.5},
    {"batch_size": "32"},
    {"batch_size": None},
    {"seed": -1},
    {"seed": 1.5},
    {"seed": "a"},
    {"subset": "test"},
    {"subset": "training", "y": np.arange(6)},
    {"save_to_dir": "/nowhere/at all"},
    {"save_to_dir": ".", "save_format": "nonsense"},
]


@pytest.mark.parametrize("arguments", FLOW_MISTAKES, ids=range(len(FLOW_MISTAKES)))
def test_a_wrong_argument_of_flow_raises_what_keras_raises_and_at_once(arguments):
    arguments = {"x": X3, "y": np.arange(6)} | arguments
    theirs = raised(lambda: next(legacy.ImageDataGenerator(validation_split=0.5).flow(**arguments)))
    mine = raised(lambda: ImageDataGenerator(validation_split=0.5).flow(**arguments))
    kind = next(c for c in type(theirs).__mro__ if c.__module__ == "builtins")
    assert isinstance(mine, kind), (mine, theirs)


FRAME_MISTAKES = [
    {"y_col": ["class", "size"]},
    {"y_col": "size"},
    {"y_col": "size", "class_mode": "sparse"},
    {"y_col": "class", "class_mode": "multi_output"},
    {"y_col": "missing"},
    {"x_col": "missing"},
    {"x_col": "size"},
    {"weight_col": "class"},
    {"weight_col": "missing"},
    {"class_mode": "binary", "classes": ["a"]},
    {"class_mode": "other one"},
    {"color_mode": "grey"},
    {"interpolation": "cubic"},
    {"target_size": 8},
    {"target_size": (8, "8")},
    {"target_size": (8.5, 8)},
    {"target_size": (0, 8)},
    {"subset": "test"},
    {"dtype": "float33"},
    {"batch_size": 1.5},
    {"dataframe": None},
    {"dataframe": {"filename": ["a"]}},
]


@pytest.mark.parametrize("arguments", FRAME_MISTAKES, ids=range(len(FRAME_MISTAKES)))
def test_a_wrong_argument_of_dataframes_raises_what_keras_raises_and_at_once(folder, arguments):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    frame = pd.DataFrame(
        {"filename": names, "class": [n[0] for n in names], "size": np.arange(len(names))}
    )
    dtype = {name: value for name, value in arguments.items() if name == "dtype"}
    given = {"dataframe": frame, "directory": str(folder)} | arguments
    given.pop("dtype", None)
    theirs = raised(lambda: next(legacy.ImageDataGenerator(**dtype).flow_from_dataframe(**given)))
    mine = raised(lambda: ImageDataGenerator(**dtype).flow_from_dataframe(**given))
    kind = next(c for c in type(theirs).__mro__ if c.__module__ == "builtins")
    assert isinstance(mine, kind), (mine, theirs)


def test_several_columns_need_a_class_mode_that_takes_them(folder):
    frame = pd.DataFrame({"filename": ["a/0.png", "b/0.png"], "x": ["1", "2"], "y": ["3", "4"]})
    with pytest.raises(TypeError, match="y_col=.* column values must be type string, list"):
        ImageDataGenerator().flow_from_dataframe(frame, str(folder), y_col=["x", "y"])


def test_a_broken_file_is_an_oserror_and_named(folder, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(next(folder.rglob("*.png")).read_bytes()[:-30])
    flow = ImageDataGenerator().flow_from_directory(tmp_path)
    with pytest.raises(OSError, match="cannot identify image file .*a/1.png: it is missing"):
        next(flow)
    with pytest.raises(FileNotFoundError):
        ImageDataGenerator().flow_from_directory(tmp_path / "nowhere")

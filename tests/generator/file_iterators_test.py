import itertools

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing import image as legacy
from PIL import Image

from asl_fast import DataFrameIterator, ImageDataGenerator, InputError, fit

COURSE = {"rotation_range": 10, "zoom_range": 0.1, "horizontal_flip": True}


def picture(seed, size=(20, 16)):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three classes in folders, in several formats and sizes, one below another."""
    folder = tmp_path_factory.mktemp("photographs")
    endings = itertools.cycle(["jpg", "png", "bmp", "JPEG", "ppm", "tif"])
    for label, count in (("a", 9), ("b", 7), ("c", 5)):
        (folder / label / "deeper").mkdir(parents=True)
        for number, ending in zip(range(count), endings, strict=False):
            below = "deeper" if number == 3 else "."
            path = folder / label / below / f"{number}.{ending}"
            picture(number, (20 + number % 3, 16)).save(path)
    (folder / "a" / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def frame(photographs):
    paths = sorted(str(p.relative_to(photographs)) for p in photographs.rglob("*.*"))
    paths = [path for path in paths if not path.endswith("txt")]
    return pd.DataFrame(
        {
            "filename": paths,
            "class": [path[0] for path in paths],
            "tags": [["x", path[0]] if path[0] != "b" else ["x"] for path in paths],
            "size": np.arange(len(paths)) / 3,
            "other": np.arange(len(paths)),
        }
    )


def both(method, *positional, generator=None, **arguments):
    """Keras's iterator and ours."""
    options = generator or {}
    theirs = getattr(legacy.ImageDataGenerator(**options), method)(*positional, **arguments)
    mine = getattr(ImageDataGenerator(**options, rng="keras"), method)(*positional, **arguments)
    return theirs, mine


def check(theirs, mine, passes=1, atol=1e-3):
    for name in ("n", "samples", "filenames", "filepaths", "image_shape", "class_mode"):
        assert getattr(mine, name) == getattr(theirs, name), name
    for name in ("class_indices", "num_classes"):
        assert getattr(mine, name, None) == getattr(theirs, name, None), name
    if theirs.class_mode not in ("input", None):
        for a, b in zip(tf.nest.flatten(mine.labels), tf.nest.flatten(theirs.labels), strict=True):
            np.testing.assert_array_equal(a, b)
    for _ in range(passes * len(theirs)):
        expected, actual = next(theirs), next(mine)
        tf.nest.assert_same_structure(actual, expected)
        for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize("class_mode", ["categorical", "sparse", "input", None])
def test_folders_yield_the_batches_of_keras(photographs, class_mode):
    arguments = {"target_size": (14, 18), "class_mode": class_mode, "batch_size": 8, "seed": 1}
    check(*both("flow_from_directory", photographs, generator=COURSE, **arguments), passes=2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"color_mode": "grayscale", "interpolation": "bilinear", "shuffle": False},
        {"color_mode": "rgba", "interpolation": "lanczos", "classes": ["c", "a"]},
        {"interpolation": "hamming", "keep_aspect_ratio": True, "subset": "validation"},
        {"class_mode": "binary", "classes": ["a", "c"], "subset": "training"},
        {"generator": {"data_format": "channels_first", "vertical_flip": True}},
    ],
    ids=range(5),
)
def test_folders_with_other_settings(photographs, arguments):
    generator = {"validation_split": 0.3, "rescale": 1 / 255}
    arguments = {"target_size": (11, 13), "seed": 1, "generator": generator} | arguments
    check(*both("flow_from_directory", photographs, **arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"class_mode": "sparse", "weight_col": "size", "shuffle": False},
        {"y_col": "tags", "classes": ["x", "a", "c"]},
        {"y_col": "size", "class_mode": "raw"},
        {"y_col": ["size", "other"], "class_mode": "raw"},
        {"y_col": ["size", "other"], "class_mode": "multi_output"},
        {"class_mode": "input"},
        {"class_mode": None, "subset": "training"},
        {"classes": ["b", "a"], "class_mode": "binary", "subset": "validation"},
        {"validate_filenames": False},
    ],
    ids=range(10),
)
def test_dataframes_yield_the_batches_of_keras(photographs, frame, arguments):
    arguments = {"target_size": (10, 12), "batch_size": 8, "seed": 1} | arguments
    generator = {**COURSE, "validation_split": 0.4}
    check(*both("flow_from_dataframe", frame, str(photographs), generator=generator, **arguments))


@pytest.mark.parametrize("class_mode", ["input", "raw", None])
def test_keras_own_iterators_are_converted(photographs, frame, class_mode):
    arguments = {"y_col": "size", "class_mode": class_mode, "target_size": (9, 8), "batch_size": 8}
    theirs = legacy.DataFrameIterator(frame, str(photographs), shuffle=False, **arguments)
    check(theirs, DataFrameIterator.from_keras(theirs, None))


def test_files_train_in_keras_and_in_our_fit(photographs):
    def model():
        keras.utils.set_random_seed(0)
        net = keras.Sequential(
            [keras.Input((14, 18, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
        )
        net.compile("sgd", "categorical_crossentropy")
        return net

    arguments = {"target_size": (14, 18), "batch_size": 8, "seed": 1}
    options = {**COURSE, "rescale": 1 / 255}
    theirs, mine = both("flow_from_directory", photographs, generator=options, **arguments)
    expected = model().fit(theirs, epochs=2, shuffle=False, verbose=0)
    actual = fit(model(), mine, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(actual.history["loss"], expected.history["loss"], rtol=1e-4)
    own = ImageDataGenerator(**options).flow_from_directory(photographs, **arguments)
    assert len(model().fit(own, epochs=2, shuffle=False, verbose=0).history["loss"]) == 2
    theirs = legacy.ImageDataGenerator(**options).flow_from_directory(photographs, **arguments)
    for iterator in (theirs, own):
        assert len(fit(model(), iterator, epochs=2, verbose=0).history["loss"]) == 2


def test_items_and_loops(photographs):
    iterator = ImageDataGenerator().flow_from_directory(
        photographs, target_size=(8, 8), batch_size=8, shuffle=False
    )
    np.testing.assert_array_equal(iterator[1][0], list(itertools.islice(iterator, 2))[1][0])
    assert [len(x) for x, _ in itertools.islice(iterator, 4)] == [5, 8, 8, 5]


def test_augmented_files_are_written(photographs, tmp_path):
    iterator = ImageDataGenerator().flow_from_directory(
        photographs, target_size=(8, 8), save_to_dir=str(tmp_path), save_prefix="p"
    )
    next(iterator)
    assert len(list(tmp_path.glob("p_*.png"))) == 21


@pytest.fixture
def few(tmp_path):
    folder = tmp_path / "fünf [5] 'x'"
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for number in range(5):
            picture(number).save(folder / label / f"{number}.jpg")
    return folder


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def test_a_truncated_file_is_named_wherever_it_stands(few):
    """Only decoding it reveals the damage, as its first bytes are valid."""
    for victim in ("a/0.jpg", "a/3.jpg", "b/4.jpg"):
        whole = (few / victim).read_bytes()
        truncate(few / victim)
        iterator = ImageDataGenerator().flow_from_directory(
            few, target_size=(8, 8), batch_size=4, shuffle=False
        )
        with pytest.raises(
            InputError, match=f"^cannot identify image file .*fünf.*{victim}: it is .*'skip'.$"
        ):
            list(itertools.islice(iterator, 3))
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        with pytest.raises(InputError, match=f"fünf .5. 'x'/{victim}: it is"):
            fit(model, iterator, verbose=0)
        (few / victim).write_bytes(whole)


def test_broken_files_are_skipped_and_counted_on_request(few):
    truncate(few / "a/3.jpg")
    (few / "b/1.jpg").write_text("not an image")
    with pytest.warns(UserWarning, match="2 of 10 image files can't be read and are skipped, .*3"):
        iterator = ImageDataGenerator().flow_from_directory(few, (8, 8), on_error="skip")
    assert (iterator.n, iterator.samples, len(iterator.classes)) == (8, 8, 8)
    assert len(next(iterator)[0]) == 8


def test_a_file_that_is_not_an_image_is_rejected_by_the_constructor(few):
    (few / "b/1.jpg").write_text("not an image")
    (few / "b/2.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot identify .*b/1.jpg, which is .*, as do 1 other"):
        ImageDataGenerator().flow_from_directory(few)


def flow(folder, **arguments):
    return ImageDataGenerator(validation_split=0.1).flow_from_directory(folder, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["a", "d"]}, "`classes` names 'd', for which .* has no folder. It has: a, b"),
        ({"class_mode": "raw"}, "Invalid class_mode: raw; expected one of"),
        ({"color_mode": "cmyk"}, "Invalid color mode: cmyk"),
        ({"interpolation": "cubic"}, "Invalid interpolation method 'cubic'"),
        ({"subset": "test"}, "Invalid subset name: test"),
        ({"target_size": (8,)}, "`target_size` must be a pair"),
        ({"subset": "validation"}, "holds no image files for the subset 'validation'"),
        ({"on_error": "ignore"}, "`on_error` must be 'raise' or 'skip'"),
    ],
)
def test_a_wrong_setting_is_named(few, arguments, message):
    with pytest.raises(ValueError, match=message):
        flow(few, **arguments)


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(InputError, match="holds no image files: it needs one folder per class"):
        flow(tmp_path)
    with pytest.raises(FileNotFoundError):
        flow(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x_col": "path"}, KeyError, "has no column 'path'. It has: filename, class"),
        ({"y_col": "size"}, TypeError, "column values must be type string, list or tuple"),
        ({"y_col": "tags", "class_mode": "sparse"}, TypeError, "column values must be strings"),
        ({"weight_col": "class"}, TypeError, "Column weight_col=class must be numeric"),
        ({"class_mode": "binary"}, ValueError, "there must be 2 classes. Found 3"),
        ({"classes": ["a", "z"]}, InputError, "`classes` names 'z', which column 'class'"),
        ({"y_col": "size", "class_mode": "multi_output"}, TypeError, "y_col must be a list"),
        ({"directory": "nowhere"}, InputError, "None of the dataframe's 21 rows remains"),
    ],
)
@pytest.mark.filterwarnings("ignore:Found 21 invalid")
def test_a_wrong_dataframe_is_named(photographs, frame, arguments, error, message):
    with pytest.raises(error, match=message):
        ImageDataGenerator().flow_from_dataframe(
            frame, **{"directory": str(photographs)} | arguments
        )


def test_rows_without_a_file_are_left_out_with_a_warning(photographs, frame):
    more = pd.concat([frame, frame.iloc[:2].assign(filename=["gone.png", "a/notes.txt"])])
    with pytest.warns(UserWarning, match="Found 2 invalid image filename.*gone.png"):
        iterator = ImageDataGenerator().flow_from_dataframe(more, str(photographs))
    assert iterator.n == 21

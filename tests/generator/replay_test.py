import random

import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from asl_fast.generator import replay
from asl_fast.transforms.augment_options import PARAMETERS, AugmentOptions

UNIFORM = {
    "rotation_range": 10,
    "width_shift_range": 0.1,
    "height_shift_range": 2.5,
    "shear_range": 5,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "channel_shift_range": 3.0,
    "brightness_range": (0.5, 1.5),
}
CHOSEN = {**UNIFORM, "width_shift_range": 3, "height_shift_range": [0.1, 0.2, 0.3]}
OPTIONS = [UNIFORM, CHOSEN, {"horizontal_flip": True}, {"zoom_range": (0.5, 0.5)}]
ROWS, SIZE = 70, (5, 7)


def watched_keras(options, **arguments):
    """Keras's iterator over numbered images, and a list of what it draws for each."""
    generator = ImageDataGenerator(**options)
    draw, drawn = generator.get_random_transform, []

    def watch(shape, seed=None):
        drawn.append(draw(shape, seed))
        return drawn[-1]

    generator.get_random_transform = watch
    images = np.random.default_rng(0).integers(0, 255, (ROWS, *SIZE, 1)).astype(np.float32)
    return generator.flow(images, np.arange(ROWS), **arguments), drawn


def ours(options, *, seed, shuffle=True, saving=None, batch_size=32):
    return replay.Replay(
        AugmentOptions(**options, quirks=True), ROWS, SIZE, batch_size, shuffle, seed, saving
    )


def check(drawn, order, found, expected_order):
    np.testing.assert_array_equal(order, expected_order)
    expected = [
        [neutral if one.get(name) is None else one[name] for name, neutral in PARAMETERS.items()]
        for one in drawn
    ]
    np.testing.assert_allclose(found, np.array(expected, float), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_next_over_several_passes(options, seed):
    np.random.seed(3)
    iterator, drawn = watched_keras(options, seed=seed)
    expected = [next(iterator)[1] for _ in range(8)]
    np.random.seed(3)
    mine = ours(options, seed=seed)
    found = [mine.next_batch() for _ in range(8)]
    check(
        drawn,
        np.concatenate([batch.order for batch in found]),
        np.concatenate([batch.parameters for batch in found]),
        np.concatenate(expected),
    )
    assert mine.total_batches_seen == iterator.total_batches_seen
    assert mine.batch_index == iterator.batch_index


def test_batches_that_fill_a_pass_exactly():
    iterator, drawn = watched_keras(UNIFORM, seed=1, batch_size=35)
    expected = [next(iterator)[1] for _ in range(5)]
    mine = ours(UNIFORM, seed=1, batch_size=35)
    found = [mine.next_batch() for _ in range(5)]
    check(
        drawn,
        np.concatenate([batch.order for batch in found]),
        np.concatenate([batch.parameters for batch in found]),
        np.concatenate(expected),
    )


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("shuffle_batches", [True, False])
def test_fit_over_several_epochs(shuffle_batches, seed):
    """Keras's own adapter, driven as `fit` drives it: two batches, reset, epochs."""
    np.random.seed(3)
    random.seed(4)
    iterator, drawn = watched_keras(UNIFORM, seed=seed)
    adapter = PyDatasetAdapter(iterator, shuffle=shuffle_batches)
    adapter.get_tf_dataset()
    looked_ahead = len(drawn)
    adapter.on_epoch_end()
    expected = []
    for _ in range(3):
        adapter.on_epoch_begin()
        expected += [labels for _, labels in adapter._get_iterator()]
        adapter.on_epoch_end()

    np.random.seed(3)
    random.seed(4)
    mine = ours(UNIFORM, seed=seed)
    mine.look_ahead()
    epochs = [mine.epoch_of_fit(shuffle=shuffle_batches) for _ in range(3)]
    assert looked_ahead == 64
    check(
        drawn[looked_ahead:],
        np.concatenate([epoch.order for epoch in epochs]),
        np.concatenate([epoch.parameters for epoch in epochs]),
        np.concatenate(expected),
    )
    sizes = [len(labels) for labels in expected[:3]]
    np.testing.assert_array_equal(epochs[0].ends, np.cumsum(sizes))


def test_items_epochs_and_next_in_any_order():
    iterator, drawn = watched_keras(UNIFORM, seed=11)
    mine = ours(UNIFORM, seed=11)
    expected, found = [], []
    for step in (0, 2, "end", 1, "next", "next", "reset", "next", 0):
        if step == "end":
            iterator.on_epoch_end()
            mine.end_pass()
        elif step == "reset":
            iterator.reset()
            mine.batch_index = 0
        else:
            expected.append((next(iterator) if step == "next" else iterator[step])[1])
            found.append(mine.next_batch() if step == "next" else mine.batch(step))
    check(
        drawn,
        np.concatenate([batch.order for batch in found]),
        np.concatenate([batch.parameters for batch in found]),
        np.concatenate(expected),
    )


def test_saving_draws_names_too(tmp_path):
    np.random.seed(3)
    iterator, drawn = watched_keras(UNIFORM, save_to_dir=str(tmp_path))
    expected = [next(iterator)[1] for _ in range(3)]
    np.random.seed(3)
    mine = ours(UNIFORM, seed=None, saving=int(1e4))
    found = mine.next_pass()
    check(drawn, found.order, found.parameters, np.concatenate(expected))


def test_unshuffled_order_is_the_rows_own():
    np.testing.assert_array_equal(ours({}, seed=1, shuffle=False).next_pass().order, range(ROWS))

import numpy as np
import pytest

from asl_fast.data import pipeline
from tests.samples import blobs


def epochs_of(images, labels, *, batch_size, epochs, first_epoch=0, **arguments):
    steps = pipeline.steps_per_epoch(len(labels), batch_size)
    dataset = pipeline.training_batches(
        (images, labels, None),
        batch_size=batch_size,
        first_step=first_epoch * steps,
        steps=epochs * steps,
        **arguments,
    )
    batches = list(dataset.as_numpy_iterator())
    return [batches[i : i + steps] for i in range(0, len(batches), steps)]


def order(epoch):
    return np.concatenate([batch.samples for batch in epoch])


@pytest.mark.parametrize(("rows", "batch_size"), [(100, 32), (96, 32), (5, 8), (33, 1)])
def test_each_epoch_holds_every_row_once(rows, batch_size):
    images, labels = blobs(rows)
    epochs = epochs_of(images, labels, batch_size=batch_size, epochs=3)
    assert len(epochs) == 3
    for number, epoch in enumerate(epochs):
        assert sorted(order(epoch)) == list(range(rows))
        for batch in epoch:
            assert batch.epoch == number
            of_batch, its_labels, _ = batch.data
            assert of_batch.dtype == np.uint8
            np.testing.assert_array_equal(of_batch, images[batch.samples])
            np.testing.assert_array_equal(its_labels, labels[batch.samples])
        assert [len(batch.samples) for batch in epoch[:-1]] == [batch_size] * (len(epoch) - 1)


def test_orders_are_random_and_differ_by_epoch_and_seed():
    images, labels = np.zeros((5000, 1, 1, 1), np.uint8), np.zeros(5000, np.int32)
    orders = [
        order(epoch)
        for seed in range(4)
        for epoch in epochs_of(images, labels, batch_size=500, epochs=4, seed=seed)
    ]
    # Of 16 orders no two, and none with the rows' own, correlate beyond chance (0.014).
    correlations = np.corrcoef([np.arange(5000), *orders]) - np.eye(17)
    assert np.abs(correlations).max() < 0.07
    assert abs(np.mean([np.corrcoef(o[:-1], o[1:])[0, 1] for o in orders])) < 0.02


def test_a_later_start_goes_on_where_an_earlier_one_would_have_been():
    images, labels = blobs(50)
    arguments = {"batch_size": 16, "epochs": 3, "seed": 2}
    whole = epochs_of(images, labels, **arguments)
    rest = epochs_of(images, labels, first_epoch=2, **arguments)
    np.testing.assert_array_equal(order(rest[0]), order(whole[2]))
    assert [batch.epoch for batch in rest[0]] == [2] * 4


def test_unshuffled_rows_come_as_they_stand():
    images, labels = blobs(50)
    for epoch in epochs_of(images, labels, batch_size=16, epochs=2, shuffle=False):
        np.testing.assert_array_equal(order(epoch), np.arange(50))

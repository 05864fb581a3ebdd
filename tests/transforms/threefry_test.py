import numpy as np
import pytest
import tensorflow as tf

from asl_fast.transforms import threefry


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        # The known answers that the Random123 library is shipped with.
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(counter, key, words):
    def tensors(pair):
        return tuple(tf.constant([word], tf.uint32) for word in pair)

    compiled = tf.function(threefry.threefry2x32, jit_compile=True)
    for function in (threefry.threefry2x32, compiled):
        assert tuple(int(w[0]) for w in function(tensors(key), tensors(counter))) == words


def uniform(key, samples, columns):
    key, samples = tf.constant(key, tf.uint32), tf.constant(samples)
    return np.stack(threefry.uniform(key, samples, columns), axis=1)


def test_uniform_numbers_are_uniform_and_independent():
    numbers = uniform([3, 5], range(20_000), range(5))
    assert numbers.shape == (20_000, 5)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in numbers.T])
    assert (((counts - 1000) ** 2 / 1000).sum(axis=1) < 50).all()  # chi-square, 19 degrees
    assert np.abs(np.corrcoef(numbers.T) - np.eye(5)).max() < 0.03
    assert np.abs(np.corrcoef(numbers[1:].T, numbers[:-1].T)[:5, 5:]).max() < 0.03


def test_a_number_depends_on_key_sample_and_column_alone():
    together = uniform([0, 7], [10, 3, 99], range(6))
    np.testing.assert_array_equal(uniform([0, 7], [3], range(6))[0], together[1])
    np.testing.assert_array_equal(uniform([0, 7], [3], [5, 2])[0], together[1, [5, 2]])

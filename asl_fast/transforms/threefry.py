"""Threefry-2x32 with 20 rounds: random bits as a pure function of a key and a counter.

TensorFlow's stateless generators take one key for a whole tensor; the augmentation needs one
stream an image, so that a sample's draws depend neither on its batch nor on its place there.
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.2; constants from
the authors' Random123 library.
"""

from collections.abc import Sequence

from asl_fast.transforms.transform import Tensor, tf

__all__ = ["PARITY", "ROTATIONS", "ROUND_GROUPS", "as_uniform", "threefry2x32", "uniform"]

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
ROUND_GROUPS = 5  # of four rounds each


def _rotate_left(x: Tensor, bits: int) -> Tensor:
    left = tf.bitwise.left_shift(x, tf.constant(bits, tf.uint32))
    right = tf.bitwise.right_shift(x, tf.constant(32 - bits, tf.uint32))
    return tf.bitwise.bitwise_or(left, right)


def threefry2x32(
    key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Returns two random words for each counter.

    Args:
        key: Two uint32 tensors, of shapes that broadcast with the counter's.
        counter: Two uint32 tensors of one shape.

    Returns:
        Two uint32 tensors of the counter's shape.
    """
    parity = tf.constant(PARITY, tf.uint32)
    keys = (*key, tf.bitwise.bitwise_xor(parity, tf.bitwise.bitwise_xor(*key)))
    x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(ROUND_GROUPS):
        for bits in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = tf.bitwise.bitwise_xor(_rotate_left(x1, bits), x0)
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return x0, x1


def as_uniform(words: Tensor) -> Tensor:
    """Returns random words, uint32, as float32 in [0, 1), multiples of 2**-24."""
    # A float32 holds 24 bits exactly; the generator's upper bits are as good as any.
    upper = tf.bitwise.right_shift(words, tf.constant(8, tf.uint32))
    return tf.cast(upper, tf.float32) * 2.0**-24


def uniform(key: Tensor, samples: Tensor, columns: Sequence[int]) -> list[Tensor]:
    """Draws uniform numbers for each sample, from a stream of its own.

    Args:
        key: uint32 of shape (2,): seed and epoch.
        samples: Integers of shape (n,), at least 0 and below 2**32: which samples.
        columns: Places in each sample's stream, at least 0.

    Returns:
        For each column float32 of shape (n,) in [0, 1), multiples of 2**-24. A column holds the
        same numbers whatever other columns are drawn.
    """
    # Words come in pairs.
    pairs = sorted({column // 2 for column in columns})
    rows = tf.tile(tf.cast(samples, tf.uint32)[:, None], [1, len(pairs)])
    counters = tf.tile(tf.constant([pairs], tf.uint32), [tf.shape(samples)[0], 1])
    words = threefry2x32((key[0], key[1]), (rows, counters))
    halves = [as_uniform(word) for word in words]
    return [halves[column % 2][:, pairs.index(column // 2)] for column in columns]

import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from asl_fast import subset

X = np.arange(50, dtype=np.float32).reshape(50, 1, 1, 1)
Y = np.arange(50) % 5


@pytest.mark.parametrize("share", [0.2, 0.33, 0.9])
@pytest.mark.parametrize("part", ["training", "validation"])
def test_subsets_are_those_of_keras(share, part):
    x, y = subset(X, Y, validation_split=share, subset=part)
    iterator = ImageDataGenerator(validation_split=share).flow(
        X, Y, subset=part, shuffle=False, batch_size=50
    )
    theirs = next(iterator)
    np.testing.assert_array_equal(x, theirs[0])
    np.testing.assert_array_equal(y, theirs[1])
    assert subset(X, validation_split=share, subset=part)[1] is None


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`validation_split` must be a number in \[0, 1\)"):
        subset(X, Y, validation_split=1, subset="training")
    with pytest.raises(ValueError, match="`subset` must be 'training' or 'validation'"):
        subset(X, Y, validation_split=0.2, subset="valid")
    with pytest.raises(
        ValueError, match="`x` and `y` must have the same length. Received: 50 and 49"
    ):
        subset(X, Y[:49], validation_split=0.2, subset="training")
    with pytest.raises(ValueError, match="different classes"):
        subset(X, np.sort(Y), validation_split=0.2, subset="training")
    subset(X, np.sort(Y), validation_split=0.2, subset="training", ignore_class_split=True)

import inspect

import pytest
from keras.src.legacy.preprocessing import image as legacy

from benchmarks import arguments

# What we refuse, or take, on purpose.
KNOWN = {
    ("NumpyArrayIterator.__init__", "image_data_generator"),  # None leaves images as they are
    ("NumpyArrayIterator.__getitem__", "idx"),  # -1 is an empty batch in Keras
}


def test_the_walk_knows_every_argument():
    for name in arguments.CLASSES:
        walked = {argument for _, argument in arguments.members(name) if argument}
        assert set(inspect.signature(getattr(legacy, name)).parameters) <= walked
        processing = inspect.signature(legacy.BatchFromFilesMixin.set_processing_attrs).parameters
        assert walked - set(processing) <= set(arguments.VALUES)


@pytest.mark.filterwarnings("ignore")
def test_arrays_and_their_iterator_are_as_in_keras(monkeypatch):
    monkeypatch.setattr(arguments, "CLASSES", ("NumpyArrayIterator",))
    found = list(arguments.rows())
    assert len(found) > 15
    assert {(row.method, row.argument) for row in found if row.differs} == KNOWN


def test_a_difference_is_seen(monkeypatch):
    monkeypatch.setattr(arguments, "CLASSES", ("NumpyArrayIterator",))
    monkeypatch.setattr(arguments, "_equal", lambda a, b: False)
    monkeypatch.setattr(arguments, "members", lambda name: [("__init__", "batch_size")])
    assert next(arguments.rows()).differs[0] == "`3`: other values"

"""Names what of TensorFlow and Keras went missing under another version."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from asl_fast.system import private_api

OWNERS = {
    "model": lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]),
    "functional": lambda: keras.Model(inputs := keras.Input((2,)), keras.layers.Dense(2)(inputs)),
    "output": lambda: keras.Input((2,)),
    "function": lambda: tf.function(lambda: 0),
    "generator": lambda: pkgutil.resolve_name(private_api.KERAS_GENERATOR).ImageDataGenerator(),
}


def check_name(name):
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{name} is missing: {error}")


def check_attribute(kind, attribute):
    owner = OWNERS[kind]()
    if kind == "model":
        owner.compile("sgd", "mse")
    assert hasattr(owner, attribute), f"{attribute} of a {kind} is missing"


@pytest.mark.parametrize("name", private_api.PRIVATE_NAMES)
def test_the_private_name_is_there(name):
    check_name(name)


@pytest.mark.parametrize(("kind", "attribute"), private_api.PRIVATE_ATTRIBUTES)
def test_the_private_attribute_is_there(kind, attribute):
    check_attribute(kind, attribute)


def test_what_is_missing_is_named(monkeypatch):
    module = importlib.import_module("tensorflow.python.data.ops.iterator_ops")
    monkeypatch.delattr(module, "OwnedIterator")
    with pytest.raises(pytest.fail.Exception, match="iterator_ops:OwnedIterator is missing"):
        check_name("tensorflow.python.data.ops.iterator_ops:OwnedIterator")
    monkeypatch.delattr(keras.Layer, "_flatten_layers")
    with pytest.raises(pytest.fail.Exception, match="keras:Model._flatten_layers is missing"):
        check_name("keras:Model._flatten_layers")
    monkeypatch.setitem(OWNERS, "function", object)
    with pytest.raises(AssertionError, match="_omit_frequent_tracing_warning of a function is"):
        check_attribute("function", "_omit_frequent_tracing_warning")


def test_no_other_module_names_them():
    attributes = {attribute for _, attribute in private_api.PRIVATE_ATTRIBUTES}
    attributes |= {name.rpartition(".")[2] for name in private_api.PRIVATE_NAMES}
    # Used or overridden by subclasses, and an attribute of this package's generator too.
    attributes -= {"_get_variable_index", "_inputs", "_validation_split"}
    private = [name for name in attributes if name.startswith("_")]
    pattern = re.compile(rf"keras\.(src|_tf)|tensorflow\.(python|core)|\b({'|'.join(private)})\b")
    here = Path(private_api.__file__)
    for path in here.parent.parent.rglob("*.py"):
        assert path == here or not pattern.search(path.read_text()), path


def test_importing_the_module_loads_neither_library():
    code = """
import sys
import asl_fast.system.private_api
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

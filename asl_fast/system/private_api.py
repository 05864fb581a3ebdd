"""The one door to what TensorFlow and Keras keep private, and to error texts that are parsed.

A new version of a library may rename any of it without notice. So no other module of the package
names these things, everything that has a public name stays out, and
`tests/system/private_api_test.py` says which name went missing. Importing this module loads neither
library.
"""

import contextlib
import math
import pkgutil
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = [
    "KERAS_APPLICATIONS",
    "KERAS_FUNCTIONAL",
    "KERAS_GENERATOR",
    "KERAS_GENERATOR_HOMES",
    "KERAS_ROOTS",
    "PRIVATE_ATTRIBUTES",
    "PRIVATE_NAMES",
    "TENSORFLOW_KERAS_2",
    "UNEXPECTED_COUNT",
    "UNPARSED_RECORD",
    "build_symbolically",
    "called_by_keras",
    "compile_metrics",
    "dataset_and_ancestors",
    "file_error_reason",
    "flatten_layers",
    "forget_custom_gradients",
    "graph_nodes",
    "output_operation",
    "silence_retracing_warning",
    "strategy_of",
    "unreadable_model_reason",
    "validation_split",
    "without_strategy",
]

# The module of Keras's own `ImageDataGenerator` and iterators, by which they are recognised, and
# the others that scripts import it from.
KERAS_GENERATOR = "keras.src.legacy.preprocessing.image"
# Keras as scripts import it; the last is another copy of the second.
KERAS_ROOTS = ("keras", "tensorflow.keras", "keras._tf_keras.keras")
KERAS_GENERATOR_HOMES = (*(f"{root}.preprocessing.image" for root in KERAS_ROOTS), KERAS_GENERATOR)
# The class that `keras.Model(inputs, outputs)` makes.
KERAS_FUNCTIONAL = "keras.src.models.functional:Functional"
# TensorFlow's remnant of Keras 2.
TENSORFLOW_KERAS_2 = "tensorflow.python.keras"
# Functions of these modules take whole batches of tensors.
KERAS_APPLICATIONS = "keras.src.applications"

# Attributes of this module that are imported at first use, and why they have no public name.
_IMPORTED = {
    # Subclassed: `tf.data.Iterator` is its abstract base.
    "OwnedIterator": "tensorflow.python.data.ops.iterator_ops:OwnedIterator",
    # Subclassed: `keras.preprocessing.image` lacks them, where TensorFlow's copy of Keras has them.
    "KerasGenerator": f"{KERAS_GENERATOR}:ImageDataGenerator",
    "KerasIterator": f"{KERAS_GENERATOR}:Iterator",
    "KerasNumpyArrayIterator": f"{KERAS_GENERATOR}:NumpyArrayIterator",
    "KerasDirectoryIterator": f"{KERAS_GENERATOR}:DirectoryIterator",
    "KerasDataFrameIterator": f"{KERAS_GENERATOR}:DataFrameIterator",
    # Public functions tell how much memory is used, not how much may be.
    "list_local_devices": "tensorflow.python.client.device_lib:list_local_devices",
    # Only switching it on is public.
    "is_op_determinism_enabled": "tensorflow.python.framework.config:is_op_determinism_enabled",
    # What operations exist on which devices is not public at all.
    "get_registered_kernels": "tensorflow.python.framework.kernels:get_registered_kernels_for_op",
    "get_op_def": "tensorflow.python.framework.op_def_registry:get",
    "register_xla_kernels": "tensorflow.python.util.pywrap_xla_ops:get_gpu_kernel_names",
    # Nothing public unregisters the gradient of a function.
    "gradient_registry": "tensorflow.python.framework.ops:gradient_registry",
}

# Everything private that can be looked up by name, as `pkgutil.resolve_name` takes it.
PRIVATE_NAMES = (
    *_IMPORTED.values(),
    *KERAS_GENERATOR_HOMES,
    *KERAS_ROOTS,
    KERAS_FUNCTIONAL,
    TENSORFLOW_KERAS_2,
    KERAS_APPLICATIONS,
    "keras:Model._flatten_layers",
    "keras:Model._symbolic_build",
    "keras:optimizers.Optimizer._get_variable_index",  # used by `KernelMuon`, as by Keras's own
    "keras:Variable._initialize_with_initializer",  # also overridden
    "tensorflow:data.Dataset._inputs",  # also overridden by the generator's iterators
)

# What objects get when they are made: of a compiled model, a functional one, its output, a
# `tf.function`, and Keras's `ImageDataGenerator`.
PRIVATE_ATTRIBUTES = (
    ("model", "_compile_metrics"),
    ("model", "_distribute_strategy"),
    ("functional", "_nodes_by_depth"),
    ("output", "_keras_history"),
    ("function", "_omit_frequent_tracing_warning"),
    ("generator", "_validation_split"),
)


def __getattr__(name: str) -> Any:
    if name not in _IMPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = pkgutil.resolve_name(_IMPORTED[name])
    return found


# Keras


def flatten_layers(model: Any, *, include_self: bool = False, recursive: bool = True) -> list[Any]:
    """Returns all layers, those within wrappers and nested models too, unlike `model.layers`."""
    return model._flatten_layers(include_self=include_self, recursive=recursive)


def output_operation(tensor: Any) -> Any:
    """Returns the operation, mostly a layer, that a symbolic tensor is the output of."""
    return tensor._keras_history.operation


def graph_nodes(functional: Any) -> list[tuple[Any, list[Any], list[Any]]]:
    """Returns (operation, inputs, outputs) of a functional model, from its inputs on."""
    return [
        (node.operation, node.input_tensors, node.output_tensors)
        for depth in sorted(functional._nodes_by_depth, reverse=True)
        for node in functional._nodes_by_depth[depth]
    ]


@contextlib.contextmanager
def variables_limited(most: int) -> Iterator[None]:
    """Refuses to initialize variables, within the block and its thread, of more bytes in all."""
    import keras
    import tensorflow as tf

    make, thread = keras.Variable._initialize_with_initializer, threading.get_ident()
    taken = 0

    def limited(variable: Any, initializer: Any) -> None:
        nonlocal taken
        if threading.get_ident() == thread:
            taken += math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
            check()
        make(variable, initializer)

    def check() -> None:
        if taken > most:
            raise ValueError(f"it describes weights of {taken:,} bytes, which it does not hold")

    keras.Variable._initialize_with_initializer = limited
    try:
        yield
    finally:
        keras.Variable._initialize_with_initializer = make
    check()  # as Keras passes over some errors


def compile_metrics(model: Any) -> Any:
    """Returns the container of the metrics that a model was compiled with, or None."""
    return model._compile_metrics


def build_symbolically(model: Any, batch: Any) -> None:
    """Builds layers and metrics for a batch of `keras.KerasTensor`, without computing anything."""
    model._symbolic_build(data_batch=batch)


def strategy_of(model: Any) -> Any:
    """Returns the `tf.distribute.Strategy` in whose scope a model was made, or None."""
    return getattr(model, "_distribute_strategy", None)


@contextlib.contextmanager
def without_strategy(model: Any) -> Iterator[None]:
    """Makes Keras treat a model as if it had been made without a strategy."""
    strategy = model._distribute_strategy
    model._distribute_strategy = None
    try:
        yield
    finally:
        model._distribute_strategy = strategy


def validation_split(generator: Any) -> float:
    """Returns the `validation_split` that Keras's `ImageDataGenerator` was made with."""
    return generator._validation_split


def called_by_keras() -> bool:
    """Returns whether Keras called the function that asks."""
    caller: Any = sys._getframe(2)
    return caller.f_globals.get("__name__", "").startswith("keras.")


# TensorFlow


def dataset_and_ancestors(dataset: Any) -> Iterator[Any]:
    """Yields a `tf.data.Dataset` and those that it was made from."""
    yield dataset
    for ancestor in dataset._inputs():
        yield from dataset_and_ancestors(ancestor)


def silence_retracing_warning(function: Any) -> None:
    """Lets a `tf.function` be traced often without a warning."""
    function._omit_frequent_tracing_warning = True


def forget_custom_gradients(graph: Any) -> None:
    """Unregisters the custom gradients of a traced graph whose gradients have been taken.

    TensorFlow registers one for each use, for good, and it holds the whole graph.
    """
    registered = pkgutil.resolve_name(_IMPORTED["gradient_registry"])._registry
    for operation in graph.get_operations():
        registered.pop(operation.node_def.attr["_gradient_op_type"].s.decode(), None)


# Error texts

# Of `tf.io.parse_example`, whose message ends at a NUL within the record.
UNPARSED_RECORD = ("ParseExample", "Could not parse example")
# Of `tf.data.experimental.assert_cardinality`.
UNEXPECTED_COUNT = "was expected to contain"


def file_error_reason(error: Any) -> str:
    """Returns the operating system's reason from a `tf.errors.OpError`, which follows the path."""
    return error.message.splitlines()[0].rpartition("; ")[2]


def unreadable_model_reason(error: Exception) -> str:
    """Returns one line on why `keras.saving.load_model` failed."""
    text = str(error)
    if "No model config" in text:
        return "it holds only weights. Save the whole model, with model.save()."
    if "arbitrary code" in text:
        return "it contains Python code (in a Lambda layer), which is not run."
    if unknown := re.search(r"Could not locate (?:class|function) '([^']*)'", text):
        return f"it needs {unknown[1]}, which is not part of Keras."
    return next(iter(text.splitlines()), type(error).__name__)

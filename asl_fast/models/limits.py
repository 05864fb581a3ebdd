"""What a model file may ask for: looked at before memory is taken for it."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import tensorflow as tf

from asl_fast.system.private_api import flatten_layers, graph_nodes

__all__ = ["EXPANSION", "batch_size", "check_activations", "check_file"]

EXPANSION = 100  # allowed ratio of expanded to compressed size; Keras does not compress

_SLACK = 16 << 20  # bytes of weights that need not be in the file
_TEXT = 64 << 20  # bytes of each JSON text
_OBJECTS = 30_000  # layers, initializers and the like; the largest of Keras's networks has 9,000
_ACTIVATION = 256 << 20  # bytes of a layer's output for one image
_BATCH = 1 << 30  # bytes of a layer's output for a batch


def check_file(path: Path) -> int:
    """Checks what a model file expands to, and what its configuration describes.

    Args:
        path: A `.keras` or HDF5 file.

    Returns:
        The number of bytes that the model's weights may take: those of the stored ones, twice, and
        a few more.

    Raises:
        Exception: Of any kind, if the file asks for too much or is something else.
    """
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            stored = _stored(file)
            config = file.attrs.get("model_config", "{}")
    else:
        with zipfile.ZipFile(path) as archive:
            # The declared sizes suffice: zipfile reads no more of a member than it declares.
            members = archive.infolist()
            _check_expansion(sum(member.file_size for member in members), path)
            for member in members:
                if member.filename.endswith(".json") and member.file_size > _TEXT:
                    raise ValueError(f"its {member.filename} has {member.file_size:,} bytes")
            stored = 0
            for member in members:
                if member.filename.endswith(".h5"):
                    with archive.open(member) as content, h5py.File(content, "r") as file:
                        stored += _stored(file)
                elif not member.filename.endswith(".json"):
                    stored += member.file_size
            config = archive.read("config.json")
    _check_expansion(stored, path)
    if (objects := _objects(json.loads(config))) > _OBJECTS:
        raise ValueError(f"it describes {objects:,} layers and parts of them")
    return 2 * stored + _SLACK


def _check_expansion(size: int, path: Path) -> None:
    if size > EXPANSION * path.stat().st_size:
        raise ValueError(f"it expands to {size:,} bytes, more than {EXPANSION} times its size")


def _stored(file: h5py.File) -> int:
    """Returns the bytes of all arrays in an HDF5 file."""
    found: list[h5py.Dataset] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(item)

    file.visititems(visit)
    if any(item.external or item.is_virtual for item in found):
        raise ValueError("its weights lie in other files")
    return sum(int(item.nbytes) for item in found)


def _objects(config: Any) -> int:
    """Returns how many objects a configuration makes or calls; a nested model counts each time."""
    if isinstance(config, list):
        return sum(map(_objects, config))
    if not isinstance(config, dict):
        return 0
    nodes = config.get("inbound_nodes")
    calls = max(1, len(nodes)) if isinstance(nodes, list) else 1
    parts = sum(_objects(value) for name, value in config.items() if name != "inbound_nodes")
    return calls * (("class_name" in config) + parts)


def check_activations(model: keras.Model) -> None:
    """Raises a `ValueError` if a layer makes too much of one image."""
    name, size = _largest_activation(model)
    if size > _ACTIVATION:
        raise ValueError(f"its layer {name} makes {size >> 20:,} MiB of one image")


def batch_size(model: keras.Model, usual: int) -> int:
    """Returns the images of a batch that fits into memory, at most `usual`."""
    return max(1, min(usual, _BATCH // max(1, _largest_activation(model)[1])))


def _largest_activation(model: keras.Model) -> tuple[str, int]:
    """Returns the name of the layer with the largest output, and its bytes for one sample."""
    largest = "", 0
    for part in flatten_layers(model, include_self=True):
        if not isinstance(part, keras.Model) or not getattr(part, "inputs", None):
            continue
        for operation, _, outputs in graph_nodes(keras.Model(part.inputs, part.outputs)):
            for output in outputs:
                sides = [side or 1 for side in output.shape[1:]]
                size = math.prod(sides) * tf.as_dtype(output.dtype).size
                largest = max(largest, (operation.name, size), key=lambda pair: pair[1])
    return largest

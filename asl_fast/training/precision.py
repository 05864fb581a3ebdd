"""Mixed precision: which dtype policy suits the device, and training a model under it."""

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.system import device, private_api, storage
from asl_fast.system.device import Choice
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import flatten_layers

__all__ = ["choose", "has_bfloat16", "measure", "under"]

# A CPU has instructions for bfloat16 if it has one of these features.
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "amx-bf16"})
# How much faster convolutions must be for bfloat16 to be chosen on a CPU: the rest of a step gains
# less.
_LEAST_GAIN = 1.2


def choose(requested: str = "auto", *, alone: bool = True) -> Choice:
    """Returns the dtype policy to train with, and why.

    Args:
        requested: The name of a Keras dtype policy, or "auto": mixed_bfloat16 on GPUs of compute
            capability 8.0 or later, mixed_float16 on 7.x, and mixed_bfloat16 on CPUs where
            `measure` finds it faster, once per machine; float32 elsewhere.
        alone: Bool. False where other machines train the same model, whose measurements might
            differ: then CPUs use float32.
    """
    if requested != "auto":
        return Choice(requested, "as asked for")
    gpus = device.gpu_details()
    if gpus:
        weakest = min(gpu.get("compute_capability", (0, 0)) for gpu in gpus)
        why = f"compute capability {weakest[0]}.{weakest[1]}"
        if weakest >= (8, 0):
            return Choice("mixed_bfloat16", why)
        return Choice("mixed_float16" if weakest >= (7, 0) else "float32", why)
    if not has_bfloat16():
        return Choice("float32", "the CPU has no instructions for bfloat16")
    if not alone:
        return Choice("float32", "bfloat16 may be slow on the other machines' CPUs")
    gain = _measured() or measure()
    why = f"bfloat16 convolutions were measured {gain:.2f} times as fast on this CPU"
    return Choice("mixed_bfloat16" if gain >= _LEAST_GAIN else "float32", why)


def has_bfloat16() -> bool:
    """Returns whether the CPU has instructions for bfloat16; they are not always faster."""
    return bool(_BFLOAT16 & device.cpu()[1])


def measure(turns: int = 15) -> float:
    """Measures how many times as fast bfloat16 is on this CPU, and caches it for `choose`.

    Times the largest convolution of the course's network with both of its gradients, for a batch
    of 32. That takes half a second in all.

    Args:
        turns: Int, how often each dtype is timed, in turn. The lower quartile of the ratios
            counts, so that noise does not choose bfloat16.
    """
    convolutions = [_convolution(dtype) for dtype in (tf.float32, tf.bfloat16)]
    seconds = np.empty((turns + 1, 2))
    for turn, which in np.ndindex(seconds.shape):
        begin = time.perf_counter()
        convolutions[which]()
        seconds[turn, which] = time.perf_counter() - begin
    seconds = seconds[1:]  # the first turn loads the kernels
    gain = float(np.percentile(seconds[:, 0] / seconds[:, 1], 25))
    with contextlib.suppress(InputError, OSError):
        folder = storage.make_folder(storage.cache_folder())
        with storage.replacing(folder / "precision.json") as aside:
            text = json.dumps({"machine": _machine(), "gain": gain})
            aside.write_text(f"{text}\n{_digest(text)}")
    return gain


def _convolution(dtype: tf.DType) -> Callable[[], Any]:
    images, kernel, upstream = (
        tf.cast(tf.random.stateless_normal(shape, (0, 0)), dtype)
        for shape in ((32, 14, 14, 75), (3, 3, 75, 50), (32, 14, 14, 50))
    )

    def run() -> Any:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            out = tf.nn.conv2d(images, kernel, 1, "SAME")
        return tape.gradient(out, [images, kernel], upstream)

    return run


@contextlib.contextmanager
def under(model: keras.Model, policy_name: str) -> Iterator[None]:
    """Gives the layers another dtype policy, within the block; variables stay float32.

    It is as if they had been made under `keras.config.set_dtype_policy(policy_name)`: layers that
    were given a policy of their own keep it, and so do output layers. In float16 the optimizer
    scales the loss, as small gradients would become zero.
    """
    policy = keras.dtype_policies.get(policy_name)
    known = set(flatten_layers(model, include_self=True))
    layers = {layer: layer.dtype_policy for layer in _changing_layers(model)}
    optimizer, default = model.optimizer, keras.config.dtype_policy()
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if policy.compute_dtype == "float16" and not scaled:
        model.optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    for layer in layers:
        layer.dtype_policy = policy
    if not model.built:  # its layers may make others when they are built
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(default)
        new = {layer: default for layer in set(flatten_layers(model)) - known}
        for layer, before in (layers | new).items():
            if layer.dtype_policy == policy:
                layer.dtype_policy = before
        model.optimizer = optimizer


def _changing_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the model and those of its layers, at any depth, that have no policy of their own.

    Layers made without a policy share one object, the global policy. One with another object was
    given it, unless most of its neighbours have theirs too: then they were read from a file.
    """
    owners = flatten_layers(model, include_self=True)
    policies = [model.dtype_policy] + [
        layer.dtype_policy
        for owner in owners
        for layer in flatten_layers(owner, recursive=False)
        if layer.dtype_policy is not owner.dtype_policy or owner.dtype_policy is model.dtype_policy
    ]
    usual = Counter(policy.name for policy in policies).most_common(1)[0][0]
    shared = Counter(map(id, policies)).most_common(1)[0][0]
    kept = {id(layer) for layer in _output_layers(model)}

    def visit(owner: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
        yield owner
        layers = flatten_layers(owner, recursive=False)
        own = kept.union(map(id, _given(owner, layers, shared)))
        for layer in layers:
            if id(layer) not in own and layer.dtype_policy.name == usual:
                yield from visit(layer)

    return visit(model)


def _given(
    owner: keras.layers.Layer, layers: list[keras.layers.Layer], shared: int
) -> list[keras.layers.Layer]:
    """Returns those of a layer's own layers that were given their policies."""
    layers = [
        layer
        for layer in layers
        if not _is_graph(layer) and not isinstance(layer, keras.layers.InputLayer)
    ]
    policy = id(owner.dtype_policy)
    given = [layer for layer in layers if id(layer.dtype_policy) not in (shared, policy)]
    wraps = isinstance(owner, (keras.layers.Wrapper, keras.layers.RNN)) and policy == shared
    return given if wraps or 2 * len(given) <= len(layers) else []


def _output_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that make a model's outputs, where its kind tells which they are."""
    if isinstance(model, keras.Sequential):
        last = model.layers[-1:]
    elif _is_graph(model):
        last = [private_api.output_operation(output) for output in tf.nest.flatten(model.outputs)]
    else:  # the layer that was made last may be any, but a softmax is an output
        softmax = keras.activations.softmax
        last = [
            layer
            for layer in model.layers[-1:]
            if isinstance(layer, keras.layers.Softmax)
            or getattr(layer, "activation", None) is softmax
        ]
    return [
        output
        for layer in last
        for output in (_output_layers(layer) if isinstance(layer, keras.Model) else [layer])
    ]


def _is_graph(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.Sequential) or hasattr(layer, "operations")


def _machine() -> str:
    return f"{device.cpu()[0]}, TensorFlow {tf.__version__}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _measured() -> float | None:
    """Returns the gain that was measured on this machine earlier, or None."""
    try:
        path = storage.cache_folder() / "precision.json"
        text, _, digest = storage.read_text(path).rpartition("\n")
        if digest != _digest(text):
            return None
        cached = json.loads(text)
        return float(cached["gain"]) if cached["machine"] == _machine() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

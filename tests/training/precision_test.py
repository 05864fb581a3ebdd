import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import build_cnn, fit
from asl_fast.system import device, private_api, storage
from asl_fast.training import precision
from tests.samples import pretend_gpus


@pytest.mark.parametrize(
    ("capabilities", "policy", "why"),
    [
        ([(6, 1)], "float32", "compute capability 6.1"),
        ([(7, 5)], "mixed_float16", "compute capability 7.5"),
        ([(8, 0)], "mixed_bfloat16", "compute capability 8.0"),
        ([(9, 0), (7, 0)], "mixed_float16", "compute capability 7.0"),
    ],
)
def test_auto_is_what_suits_the_weakest_gpu(monkeypatch, capabilities, policy, why):
    pretend_gpus(monkeypatch, *capabilities)
    assert precision.choose() == (policy, why)
    assert precision.choose("float32").value == "float32"


@pytest.mark.parametrize(("bfloat16", "chosen"), [(1.0, "mixed_bfloat16"), (3.0, "float32")])
def test_a_cpu_trains_in_bfloat16_only_where_that_was_measured_faster(
    monkeypatch, bfloat16, chosen
):
    """The clock of this test runs while convolutions do, for bfloat16 by so many seconds."""
    now = [0.0]
    timed = []

    def convolution(images, *arguments):
        now[0] += bfloat16 if images.dtype == tf.bfloat16 else 2.0
        timed.append(1)
        return original(images, *arguments)

    original = tf.nn.conv2d
    monkeypatch.setattr(tf.nn, "conv2d", convolution)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(device, "cpu", lambda: ("A CPU", frozenset({"avx512_bf16"})))
    assert precision.choose().value == chosen
    assert f"measured {2.0 / bfloat16:.2f} times as fast" in precision.choose().why
    once = len(timed)
    precision.choose()
    assert len(timed) == once
    # Another machine's measurement says nothing, nor does a damaged one.
    monkeypatch.setattr(device, "cpu", lambda: ("Another", frozenset({"amx_bf16"})))
    assert precision.choose().value == chosen
    assert len(timed) == 2 * once
    path = storage.cache_folder() / "precision.json"
    text = path.read_text()
    assert f'"gain": {2.0 / bfloat16}' in text
    for times, damaged in enumerate(("{", text.replace('"gain": ', '"gain": 1')), 3):
        path.write_text(damaged)
        assert precision.choose().value == chosen
        assert len(timed) == times * once
    monkeypatch.setattr(device, "cpu", lambda: ("Old", frozenset({"sse"})))
    assert precision.choose() == ("float32", "the CPU has no instructions for bfloat16")


layers = keras.layers


@keras.saving.register_keras_serializable("precision_test")
class Residual(layers.Layer):
    """Adds with TensorFlow, which takes one dtype alone."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(4)
        self.norm = layers.LayerNormalization()

    def build(self, shape):
        self.inner.build(shape)
        self.norm.build(shape)

    def call(self, x, training=None):
        return tf.add(x, self.norm(self.inner(x)))


class Passing(layers.Layer):
    """Gives its layers its own policy, as Keras recommends."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = (layers.Dense(4, dtype=self.dtype_policy) for _ in range(2))

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def compute_output_shape(self, shape):
        return shape

    def call(self, x, training=None):
        return tf.add(x, self.second(self.first(x)))


class Lazy(layers.Layer):
    """Makes its layers when it is built."""

    def build(self, shape):
        self.inner = Residual()
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x, training=None):
        return self.inner(x) * self.scale


class Exact(layers.Layer):
    """Computes in float32 alone."""

    def __init__(self):
        super().__init__(dtype="float32")

    def call(self, x, training=None):
        return tf.math.square(tf.ensure_shape(x, x.shape) - tf.ones((), tf.float32))


class InFloat32(layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = [layers.Dense(4), layers.Dense(4)]
        self.norm = layers.LayerNormalization(dtype="float32")

    def call(self, x, training=None):
        x = self.norm(self.inner[0](x))
        return self.inner[1](tf.add(x, tf.ones((), tf.float32)))


class Skip(keras.Model):
    """Its last layer is none of its outputs."""

    def __init__(self):
        super().__init__()
        self.blocks = [Lazy(), Residual()]
        self.out = head()
        self.projection = layers.Dense(4)

    def call(self, x, training=None):
        projected = self.projection(x)
        for block in self.blocks:
            x = tf.add(block(x), projected)
        return self.out(x[:, 0])


def head():
    return layers.Dense(3, activation="softmax", dtype="float32")


def graph(*blocks):
    def make():
        inputs = out = keras.Input((6, 4))
        for block in blocks:
            out = block(out)
        return keras.Model(inputs, head()(layers.Flatten()(out)))

    return make


def attention(x):
    return layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])


def nested(x):
    return keras.Sequential([Residual(), layers.TimeDistributed(Passing())])(x)


MODELS = {
    "residual": graph(lambda x: Residual()(x)),
    "passing": graph(lambda x: Passing()(x)),
    "lazy": graph(lambda x: Lazy()(x)),
    "exact": graph(lambda x: Exact()(Residual()(x))),
    "a layer in float32": graph(lambda x: InFloat32()(x)),
    "attention": graph(attention),
    "attention in float32": graph(
        lambda x: layers.MultiHeadAttention(2, 4, dtype="float32")(x, x), attention
    ),
    "nested": graph(nested, attention),
    "cells": graph(lambda x: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)])(x)),
    "a skip, not built": Skip,
    "not built": lambda: keras.Sequential([Lazy(), layers.Flatten(), head()]),
}


X = np.random.default_rng(0).random((8, 6, 4), np.float32)


def under_kerass_policy(run):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return run()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_models_compute_as_if_made_under_kerass_policy(make):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile("sgd")
    with precision.under(model, "mixed_bfloat16"):
        found = model(X, training=True)
    expected = under_kerass_policy(lambda: make()(X, training=True))
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - model(X, training=True)).max() > 1e-5
    layers_and_model = private_api.flatten_layers(model, include_self=True)
    assert {layer.dtype_policy.name for layer in layers_and_model} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_a_model_with_a_skip_trains_as_if_made_under_kerass_policy():
    def train(fit, **options):
        model = Skip()
        model.compile("sgd", "sparse_categorical_crossentropy")
        fit(model, X, np.arange(8) % 3, epochs=2, verbose=0, shuffle=False, **options)
        return model.get_weights()

    keras.utils.set_random_seed(0)
    ours = train(fit, precision="mixed_bfloat16")
    theirs = under_kerass_policy(lambda: train(keras.Model.fit))
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def in_float32(model):
    model.compile("sgd")
    with precision.under(model, "mixed_bfloat16"):
        return [
            layer.name
            for layer in private_api.flatten_layers(model)
            if layer.dtype_policy.name == "float32" and layer.weights
        ]


def test_a_file_s_policies_are_nobodys_wish(tmp_path):
    """Keras gives each layer that it reads a policy object of its own."""
    made = MODELS["nested"]()
    made.save(tmp_path / "made.keras")
    custom = {"Passing": Passing}
    read = keras.saving.load_model(tmp_path / "made.keras", custom_objects=custom)
    assert in_float32(read) == in_float32(made) == [made.layers[-1].name]
    head = layers.Dense(2)
    assert in_float32(keras.Model(read.inputs, head(read.outputs[0]))) == [head.name]
    assert in_float32(keras.Sequential([keras.Input((28, 28, 1)), build_cnn()])) == ["predictions"]
    keras.config.set_dtype_policy("float64")
    try:
        other = layers.Dense(4)
    finally:
        keras.config.set_dtype_policy("float32")
    model = keras.Sequential([keras.Input((4,)), other, layers.Dense(3), head])
    model.compile("sgd")
    with precision.under(model, "mixed_bfloat16"):
        assert [layer.compute_dtype for layer in model.layers] == ["float64", "bfloat16", "float32"]

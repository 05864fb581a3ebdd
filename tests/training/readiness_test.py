"""That a GPU would do every operation of the training step, shown without one."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import RandomAugment, Standardize, build_cnn, fit
from asl_fast.training import fit as trainer
from asl_fast.training import readiness
from tests.samples import blobs

if not tf.test.is_built_with_cuda():
    pytest.skip("this TensorFlow knows no kernels for GPUs", allow_module_level=True)

IMAGES, LABELS = blobs(40)
ONE_HOT = np.eye(24, dtype=np.float32)[LABELS]
POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


def augmentation():
    """Every transform; the order and mode that need most operations."""
    return RandomAugment(
        rotation_range=10,
        width_shift_range=0.1,
        height_shift_range=[1, 2],
        brightness_range=(0.8, 1.2),
        shear_range=5,
        zoom_range=0.1,
        channel_shift_range=10.0,
        fill_mode="reflect",
        interpolation_order=3,
        horizontal_flip=True,
        vertical_flip=True,
        dtype="float32",
    )


def standardization():
    standardize = Standardize(
        rescale=1 / 255,
        samplewise_center=True,
        samplewise_std_normalization=True,
        featurewise_center=True,
        zca_whitening=True,
        dtype="float32",
    )
    standardize.fit(IMAGES)
    return standardize


def traced(model, **arguments):
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    return trainer.traced(model, IMAGES, ONE_HOT, **arguments)


@functools.cache
def whole_step(*, policy="float32", jit, resident):
    """The course's network behind every transform."""
    layers = {"augment": augmentation(), "standardize": standardization()}
    return traced(build_cnn(), precision=policy, jit=jit, resident=resident, **layers)


def nodes(function):
    graph = function.graph.as_graph_def()
    yield from (("", node) for node in graph.node)
    for inner in graph.library.function:
        yield from ((inner.signature.name, node) for node in inner.node_def)


@pytest.mark.parametrize(
    ("policy", "jit", "resident"),
    [
        ("float32", True, True),
        ("float32", False, False),
        *((policy, True, False) for policy in POLICIES),
        *((policy, False, True) for policy in POLICIES),
    ],
)
def test_a_gpu_does_every_operation_of_the_step(policy, jit, resident):
    function = whole_step(policy=policy, jit=jit, resident=resident)
    findings = readiness.inspect(function)
    assert [finding for finding in findings if finding.reason is None] == []
    if jit:
        # The loop's counters, and where the images are resident their numbers.
        on_host = {finding.op for finding in findings if "host" in finding.problem}
        loop = {"Const", "AddV2", "Identity", "Less"}
        assert on_host <= loop | ({"Mul", "Pack", "StridedSlice"} if resident else set())


def test_only_numbers_go_to_the_device_where_images_are_resident():
    function = whole_step(jit=True, resident=True)
    given = [i for i in function.inputs if i.dtype not in (tf.resource, tf.variant)]
    # The number of steps, and what lies on the device.
    assert [(i.dtype, i.shape.as_list()) for i in given] == [
        (tf.int32, []),
        (tf.uint8, [40, 28, 28, 1]),
        (tf.float32, [40, 24]),
    ]
    (fetched,) = (node for _, node in nodes(function) if node.op == "IteratorGetNext")
    types = [tf.dtypes.as_dtype(t) for t in fetched.attr["output_types"].list.type]
    shapes = [tf.TensorShape(s).rank for s in fetched.attr["output_shapes"].list.shape]
    assert list(zip(types, shapes, strict=True)) == [(tf.int64, 1), (tf.int64, 0)]


def test_bytes_go_to_the_device_where_they_are_streamed():
    function = whole_step(jit=False, resident=False)
    fetched = {
        tuple(tf.dtypes.as_dtype(t) for t in node.attr["output_types"].list.type)
        for _, node in nodes(function)
        if node.op == "IteratorGetNext"
    }
    assert fetched == {(tf.uint8, tf.float32, tf.int64, tf.int64)}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_part_of_the_step_has_its_dtype(policy):
    """Counted in what was traced: a layer that fell back to float32 would show here."""
    compute = tf.dtypes.as_dtype(keras.dtype_policies.get(policy).compute_dtype)
    found = {}
    inside_augmentation = set()
    for function, node in nodes(whole_step(policy=policy, jit=False, resident=True)):
        if "T" in node.attr and node.attr["T"].WhichOneof("value") == "type":
            dtype = tf.dtypes.as_dtype(node.attr["T"].type)
            found.setdefault(node.op, []).append(dtype)
            if "inference_augment" in function:
                inside_augmentation.add(dtype)
    for op, times in {
        "Conv2D": 3,
        "Conv2DBackpropFilter": 3,
        "Conv2DBackpropInput": 3,  # the one to the images is pruned later
        "MaxPool": 3,
    }.items():
        assert found[op] == [compute] * times, op
    # The last layer, and its two gradients, stay in float32, as does the whitening.
    assert sorted(found["MatMul"], key=str) == sorted([compute] * 3 + [tf.float32] * 4, key=str)
    # The loss, and the statistics of the batch norms.
    for op in ("Softmax", "SoftmaxCrossEntropyWithLogits", "SquaredDifference", "Rsqrt"):
        assert set(found[op]) == {tf.float32}, op
    assert inside_augmentation & {tf.float16, tf.bfloat16} == set()
    assert tf.float32 in inside_augmentation


class Slipped(keras.layers.Layer):
    """Does something on the way that a GPU can't."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def call(self, x):
        return self.what(x)

    def compute_output_shape(self, shape):
        return shape


def projective(x):
    matrix = tf.constant([[1.0, 0, 0, 0, 1, 0, 0, 0]])
    # bfloat16, for which there is no kernel.
    return tf.cast(
        tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(x, tf.bfloat16),
            transforms=matrix,
            output_shape=[28, 28],
            fill_value=0.0,
            interpolation="BILINEAR",
        ),
        x.dtype,
    )


def on_the_host(x):
    with tf.device("CPU:0"):
        return tf.sin(x)


def of_python(x):
    return tf.ensure_shape(tf.numpy_function(lambda x: x, [x], x.dtype), x.shape)


@pytest.mark.parametrize(
    ("what", "jit", "op", "problem"),
    [
        (projective, True, "ImageProjectiveTransformV3", "XLA can't compile it for GPUs"),
        (projective, False, "ImageProjectiveTransformV3", "has no kernel for GPUs"),
        (tf.random.shuffle, True, "RandomShuffle", "has no kernel for GPUs"),
        (tf.random.shuffle, False, "RandomShuffle", "has no kernel for GPUs"),
        (on_the_host, False, "Sin", "runs on the host"),
        (of_python, False, "PyFunc", "calls Python"),
        (of_python, True, "PyFunc", "calls Python"),
    ],
)
def test_what_a_gpu_cannot_do_is_found(what, jit, op, problem):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), Slipped(what), layers.Flatten(), layers.Dense(24, "softmax")]
    )
    (finding,) = (f for f in readiness.inspect(traced(model, jit=jit)) if f.reason is None)
    assert (finding.op, finding.problem) == (op, problem)
    assert finding.times == 1
    assert finding.names


@pytest.mark.parametrize("policy", POLICIES)
def test_xla_compiles_the_step_with_every_option(policy):
    """Here for the CPU, and run: a step of one batch."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.MaxPool2D(7),
            keras.layers.Flatten(),
            keras.layers.Dense(24, "softmax"),
        ]
    )
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    fit(
        model,
        IMAGES[:8],
        ONE_HOT[:8],
        augment=augmentation(),
        standardize=standardization(),
        precision=policy,
        jit=True,
        resident=True,
        verbose=0,
    )

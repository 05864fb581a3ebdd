import keras
import numpy as np
import pytest

from asl_fast import InputError, build_cnn
from asl_fast.models.network import check_probabilities

# The course's model, layer by layer: kind, output shape, parameters.
COURSE = [
    ("Conv2D", (28, 28, 75), 750),
    ("BatchNormalization", (28, 28, 75), 300),
    ("MaxPooling2D", (14, 14, 75), 0),
    ("Conv2D", (14, 14, 50), 33_800),
    ("Dropout", (14, 14, 50), 0),
    ("BatchNormalization", (14, 14, 50), 200),
    ("MaxPooling2D", (7, 7, 50), 0),
    ("Conv2D", (7, 7, 25), 11_275),
    ("BatchNormalization", (7, 7, 25), 100),
    ("MaxPooling2D", (4, 4, 25), 0),
    ("Flatten", (400,), 0),
    ("Dense", (512,), 205_312),
    ("Dropout", (512,), 0),
    ("Dense", (24,), 12_312),
]


def test_it_is_the_courses_network():
    model = build_cnn()
    assert model.input_shape == (None, 28, 28, 1)
    assert [
        (type(layer).__name__, layer.output.shape[1:], layer.count_params())
        for layer in model.layers
    ] == COURSE
    assert model.count_params() == 264_049
    conv, *_, hidden, _, softmax = model.layers
    assert [conv.activation, hidden.activation] == [keras.activations.relu] * 2
    assert softmax.activation == keras.activations.softmax
    assert [layer.rate for layer in model.layers if "Dropout" in type(layer).__name__] == [0.2, 0.3]
    assert {
        (c.kernel_size, c.strides, c.padding) for c in model.layers if "Conv" in type(c).__name__
    } == {((3, 3), (1, 1), "same")}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_only_the_softmax_is_float32_under_a_precision_policy(policy):
    model = build_cnn(dtype=policy)
    compute = keras.DTypePolicy(policy).compute_dtype
    assert {layer.compute_dtype for layer in model.layers[:-1]} == {compute}
    assert model.layers[-1].compute_dtype == "float32"
    assert {weight.dtype for weight in model.weights} >= {"float32"}
    output = model(np.zeros((2, 28, 28, 1), np.float32))
    assert output.dtype == "float32"
    np.testing.assert_allclose(np.sum(output, axis=1), 1, rtol=1e-6)


def test_outputs_that_are_no_probabilities_are_rejected():
    check_probabilities(np.array([[0.25, 0.755], [1, 0]]))
    for rows in ([[0.5, 0.6]], [[-0.1, 1.1]], [[np.nan, 0.5]]):
        with pytest.raises(InputError, match="a.keras outputs no probabilities"):
            check_probabilities(np.array(rows), "a.keras")

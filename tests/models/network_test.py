import keras
import numpy as np
import pytest

from asl_fast import InputError, build_cnn
from asl_fast.models import pixel_range, saving
from asl_fast.models.network import Network, check_probabilities
from asl_fast.system import private_api

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


@pytest.mark.parametrize(("name", "channels"), [("VGG16", 1), ("MobileNet", 3)])
def test_a_network_of_keras_brings_its_preprocessing_and_takes_weights(tmp_path, name, channels):
    """Against Keras's own network and preprocessing, on [0, 255]."""
    make = getattr(keras.applications, name)
    features = make(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    features.save_weights(tmp_path / "own.weights.h5")
    network = Network(name, str(tmp_path / "own.weights.h5"), frozen=True)
    model = network.build((32, 32, channels), 5)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, channels)).astype(np.float32)
    module = getattr(keras.applications, name.lower())
    taken = module.preprocess_input(np.repeat(images, 3 // channels, axis=3))
    expected = model.layers[-1](features(taken, training=False))
    np.testing.assert_allclose(model(images, training=True), expected, atol=1e-5)
    assert {weight.path.split("/")[0] for weight in model.trainable_variables} == {"predictions"}
    assert pixel_range.read(model) == pixel_range.marked(model) == "0-255"

    saving.save_model(model, tmp_path / "model.keras", "abcde")
    loaded = saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-6)
    assert len(loaded.trainable_variables) == 2


def test_a_networks_layers_follow_precision_and_recipe():
    model = Network("MobileNetV3Small").build((32, 40, 3), 4, "mixed_bfloat16", 0.8)
    layers = private_api.flatten_layers(model)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.8}
    assert {norm.dtype_policy.name for norm in norms} == {"mixed_bfloat16"}
    assert model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


REFUSED = {
    "a name nearly right": (("Resnet50",), "no network Resnet50 .* such as ResNet50"),
    "another name": (("VisionTransformer",), "no network VisionTransformer"),
    "weights of the course's": (("course", "some.h5"), "Weights and frozen layers are for"),
    "the course's, frozen": (("course", None, True), "Weights and frozen layers are for"),
    "frozen at random": (("MobileNet", None, True), "random weights would learn hardly anything"),
    "no file": (("MobileNet", "none.h5"), "no file of weights none.h5"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_networks_that_can_not_be_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        Network(*arguments)


def test_small_images_and_foreign_weights_are_named(tmp_path):
    with pytest.raises(InputError, match="VGG16 can't be made for images of 8x9: .*at least 32x32"):
        Network("VGG16").build((8, 9, 3), 2)
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(
        InputError, match="The file must be of the network without its top"
    ) as error:
        Network("VGG16", str(path)).build((32, 32, 3), 2)
    assert "\n" not in str(error.value)

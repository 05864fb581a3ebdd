import dataclasses
import inspect
import math

import keras
import numpy as np
import pytest

from asl_fast import AugmentOptions, RandomAugment, Standardize
from asl_fast.transforms.augment_options import PARAMETERS, TRANSFORMS
from asl_fast.transforms.checks import check_validation_split
from asl_fast.transforms.fill_modes import FILL_MODES
from asl_fast.transforms.standardize_options import StandardizeOptions

NAN, INF = math.nan, math.inf
WRONG_NUMBERS = (-1, NAN, INF, "10", None, True)

WRONG = {
    **{
        name: (*WRONG_NUMBERS, (1, 2))
        for name in ("rotation_range", "shear_range", "channel_shift_range")
    },
    **{
        name: (*WRONG_NUMBERS, (), (1, NAN), ("a",), np.zeros((2, 2)))
        for name in ("width_shift_range", "height_shift_range")
    },
    "zoom_range": (-0.1, 1.0, (1.2, 0.8), (0, 1), (0.9,), (1, 2, 3), "0.1", NAN, None),
    "brightness_range": (1.0, (1, 2, 3), (2, 1), (-1, 1), (NAN, 1), "ab"),
    "fill_mode": ("mirrored", "NEAREST", None, 1),
    "cval": (NAN, INF, "0", None),
    "horizontal_flip": (1, "yes", None),
    "vertical_flip": (0, None),
    "interpolation_order": (6, -1, 1.0, "1", True, None),
    "data_format": ("channels", 1),
    "quirks": (1, None),
    "value_range": (255, (1, 1), (1, 0), (0, NAN), None),
}

WRONG_STANDARDS = {
    "rescale": (NAN, "1", True),
    "zca_epsilon": (0, -1, NAN, None),
    "preprocessing_function": (1, "f"),
    "data_format": ("channels",),
    **{
        name: (1, None)
        for name in (
            "samplewise_center",
            "samplewise_std_normalization",
            "featurewise_center",
            "featurewise_std_normalization",
            "zca_whitening",
        )
    },
}


def cases(wrong):
    return [(name, value) for name, values in wrong.items() for value in values]


@pytest.mark.parametrize(("name", "value"), cases(WRONG), ids=str)
def test_a_wrong_value_is_named_with_its_option(name, value):
    for build in (AugmentOptions, RandomAugment):
        with pytest.raises(ValueError, match=f"^`{name}` must be .* Received: "):
            build(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(WRONG_STANDARDS), ids=str)
def test_a_wrong_standard_is_named_with_its_option(name, value):
    with pytest.raises(ValueError, match=f"^`{name}` must be .* Received: "):
        Standardize(**{name: value})


def test_the_message_gives_rule_and_value():
    with pytest.raises(ValueError, match="'mirrored'") as error:
        AugmentOptions(fill_mode="mirrored")
    modes = ", ".join(map(repr, FILL_MODES))
    assert str(error.value) == f"`fill_mode` must be one of {modes}. Received: 'mirrored'"


@pytest.mark.parametrize("value", [1, 1.0, -0.1, NAN, "0.2", None, True])
def test_a_wrong_validation_split_is_named(value):
    with pytest.raises(ValueError, match=r"`validation_split` must be a number in \[0, 1\)"):
        check_validation_split(value)
    check_validation_split(0.2)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "0", True])
def test_a_wrong_seed_is_named(seed):
    with pytest.raises(ValueError, match="`seed` must be an int"):
        RandomAugment(seed=seed)


def test_every_option_is_one_of_the_layers_with_the_same_default():
    assert RandomAugment().options == AugmentOptions(data_format="channels_last")
    assert Standardize().options == StandardizeOptions()


def test_layers_heed_what_keras_is_set_to():
    keras.config.set_image_data_format("channels_first")
    try:
        assert RandomAugment().options.data_format == "channels_first"
        assert Standardize().options.data_format == "channels_first"
        assert RandomAugment(data_format="channels_last").options.data_format == "channels_last"
        images = np.arange(2 * 1 * 3 * 4, dtype=np.float32).reshape(2, 1, 3, 4)
        flipped = RandomAugment().apply(images, {"flip_horizontal": 1})
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(flipped, images[..., ::-1])


def test_a_seed_of_none_is_drawn_and_numpys_integers_are_taken():
    assert RandomAugment(seed=None).seed != RandomAugment(seed=None).seed
    assert RandomAugment(seed=np.int64(7)).seed == 7


def test_arrays_and_lists_are_taken_as_tuples():
    given = AugmentOptions(
        width_shift_range=np.array([0.1, 0.2]), zoom_range=[0.5, 0.75], rotation_range=np.int64(3)
    )
    assert given == AugmentOptions(
        width_shift_range=(0.1, 0.2), zoom_range=(0.5, 0.75), rotation_range=3
    )
    assert hash(given) is not None
    assert given.limits == (0.5, 0.75)
    assert AugmentOptions(zoom_range=0.25).limits == (0.75, 1.25)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: transform.__name__)
def test_a_transform_states_what_the_contract_asks_of_it(transform):
    fields = {field.name: field for field in dataclasses.fields(transform)}
    own = set(fields) - {"quirks", "value_range"}
    assert own
    for name in own:
        assert name in inspect.signature(RandomAugment).parameters
        assert f"{name}: {fields[name].metadata['text'][:20]}" in RandomAugment.__doc__
    assert not transform().active
    assert list(transform.parameters) == [
        name for name in PARAMETERS if name in transform.parameters
    ]


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="rotation"):
        RandomAugment(rotation=10)

"""`StandardizeOptions`: what `Standardize` does, under Keras's names, checked once."""

import dataclasses
from collections.abc import Callable
from typing import Any

from asl_fast.transforms.checks import (
    DATA_FORMATS,
    check,
    check_choice,
    check_flags,
    finite,
    plain,
)

__all__ = ["StandardizeOptions"]


@dataclasses.dataclass(frozen=True)
class StandardizeOptions:
    """What `Standardize` does to every image, in this order.

    Args:
        preprocessing_function: None, or a function of a batch of images, float32 tensors, to a
            batch of the same shape, of TensorFlow or Keras operations.
        rescale: None, or a finite number to multiply by.
        samplewise_center: Bool. Subtracts each image's mean.
        samplewise_std_normalization: Bool. Divides by each image's standard deviation.
        featurewise_center: Bool. Subtracts the data set's mean of each channel.
        featurewise_std_normalization: Bool. Divides by the data set's standard deviation of each
            channel.
        zca_whitening: Bool. Multiplies each image, flattened, by the data set's ZCA matrix.
        zca_epsilon: Float, above 0.
        data_format: "channels_last" or "channels_first".

    Raises:
        ValueError: A value breaks its rule; names the option, the rule and the value.
    """

    preprocessing_function: Callable[[Any], Any] | None = None
    rescale: float | None = None
    samplewise_center: bool = False
    samplewise_std_normalization: bool = False
    featurewise_center: bool = False
    featurewise_std_normalization: bool = False
    zca_whitening: bool = False
    zca_epsilon: float = 1e-6
    data_format: str = "channels_last"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        check_flags(
            self,
            "samplewise_center",
            "samplewise_std_normalization",
            "featurewise_center",
            "featurewise_std_normalization",
            "zca_whitening",
        )
        check(
            "rescale",
            "None or a finite number",
            self.rescale,
            self.rescale is None or finite(self.rescale),
        )
        epsilon = self.zca_epsilon
        check("zca_epsilon", "a finite number above 0", epsilon, finite(epsilon) and epsilon > 0)
        function = self.preprocessing_function
        check(
            "preprocessing_function",
            "None or callable",
            function,
            function is None or callable(function),
        )
        check_choice("data_format", self.data_format, DATA_FORMATS)

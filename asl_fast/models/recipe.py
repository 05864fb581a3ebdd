"""Recipes: everything that decides how the network is trained."""

import dataclasses
from typing import Any

from asl_fast.system.errors import InputError
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.checks import finite

__all__ = ["DEFAULT", "OPTIMIZERS", "RECIPES", "SCHEDULES", "Recipe"]

OPTIMIZERS = ("rmsprop", "adamw", "sgd", "muon", "kernel_muon", "lion")
SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        augment: Augmentation of the training images.
        optimizer: One of `OPTIMIZERS`, with Keras's defaults, except that SGD has a Nesterov
            momentum of 0.9, and `KernelMuon` a momentum of 0.85 and 3 Newton-Schulz steps.
        learning_rate: Float > 0, the peak.
        batch_size: Int >= 1.
        epochs: Int >= 1.
        schedule: One of `SCHEDULES`: "constant", or "cosine" to 0 at the last step.
        warm_up: Float in [0, 1): the share of all steps in which the rate rises linearly from 0.
        weight_decay: Float >= 0, decoupled from the gradient and scaled by the learning rate.
        label_smoothing: Float in [0, 1).
        batch_norm_momentum: Float in [0, 1): momentum of the moving averages.
        calibration: Float in [0, 1): the share of the training images, each class by itself, that
            is held out to calibrate the probabilities on; see `calibration.calibrated`.

    Raises:
        InputError: A value is out of range.
    """

    augment: AugmentOptions
    optimizer: str = "rmsprop"
    learning_rate: float = 1e-3
    batch_size: int = 32
    epochs: int = 20
    schedule: str = "constant"
    warm_up: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    batch_norm_momentum: float = 0.99
    calibration: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.augment, AugmentOptions):
            raise _out_of_range("augment", "AugmentOptions", self.augment)
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise _out_of_range(name, f"one of {', '.join(allowed)}", getattr(self, name))
        for name in ("batch_size", "epochs"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
                raise _out_of_range(name, "a whole number, at least 1", value)
        for name in ("warm_up", "label_smoothing", "batch_norm_momentum", "calibration"):
            if not finite(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise _out_of_range(name, "at least 0 and below 1", getattr(self, name))
        if not finite(self.learning_rate) or self.learning_rate <= 0:
            raise _out_of_range("learning_rate", "above 0", self.learning_rate)
        if not finite(self.weight_decay) or self.weight_decay < 0:
            raise _out_of_range("weight_decay", "at least 0", self.weight_decay)


def _out_of_range(name: str, what: str, value: Any) -> InputError:
    return InputError(f"The {name.replace('_', ' ')} must be {what}. Received: {value}.")


_COURSE = AugmentOptions(
    rotation_range=10,
    zoom_range=0.1,
    width_shift_range=0.1,
    height_shift_range=0.1,
    horizontal_flip=True,
    data_format="channels_last",
)

# Chosen on photographs held out of the training set: benchmarks/results/study.md.
_FAST = Recipe(
    _COURSE,
    optimizer="kernel_muon",
    learning_rate=2e-2,
    batch_size=128,
    epochs=3,
    schedule="cosine",
    warm_up=0.2,
    weight_decay=0.0005,
    label_smoothing=0.1,
    batch_norm_momentum=0.9,
    calibration=0.04,
)

# For networks of `keras.applications`: their head on fixed features, or all from random weights.
_TRANSFER = Recipe(
    dataclasses.replace(_COURSE, fill_mode="reflect"),
    optimizer="adamw",
    learning_rate=1e-3,
    batch_size=32,
    epochs=10,
    schedule="cosine",
    warm_up=0.1,
    weight_decay=1e-4,
    label_smoothing=0.1,
    batch_norm_momentum=0.9,
    calibration=0.04,
)

RECIPES = {
    # The course's notebook on data augmentation.
    "course": Recipe(_COURSE, optimizer="rmsprop", learning_rate=1e-3, batch_size=32, epochs=20),
    "fast": _FAST,
    # Takes less computing than the course's 20 epochs, since its batches are larger.
    "best": dataclasses.replace(_FAST, epochs=18),
    "transfer": _TRANSFER,
    # Small steps, which keep what the weights of all layers have learnt elsewhere.
    "finetune": dataclasses.replace(_TRANSFER, learning_rate=1e-4),
}

DEFAULT = "fast"

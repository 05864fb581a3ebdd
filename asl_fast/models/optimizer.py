"""A recipe's optimizer and learning rate schedule."""

import inspect
from typing import Any

import keras

from asl_fast.models.kernel_muon import KernelMuon
from asl_fast.models.recipe import Recipe
from asl_fast.system.errors import InputError

__all__ = ["build_optimizer"]


def build_optimizer(
    recipe: Recipe, steps: int, *, portable: bool = False
) -> keras.optimizers.Optimizer:
    """Builds the optimizer.

    Args:
        recipe: The recipe.
        steps: Number of steps in the whole training.
        portable: Bool. True gives one that Keras can load: its own Muon, or AdamW where that is
            missing, for a `KernelMuon`.

    Raises:
        InputError: The installed Keras lacks it.
    """
    name, optimizers = recipe.optimizer, keras.optimizers
    settings: dict[str, Any] = {
        "learning_rate": _learning_rate(recipe, steps),
        "weight_decay": recipe.weight_decay or None,
    }
    if name == "adamw":
        settings["weight_decay"] = recipe.weight_decay  # AdamW rejects None
    elif name == "sgd":
        settings |= {"momentum": 0.9, "nesterov": True}
    elif name in ("muon", "kernel_muon"):
        # Jordan 2024 leaves the output layer to AdamW.
        settings["exclude_layers"] = ["predictions"]
        if name == "kernel_muon":
            settings |= {"momentum": 0.85, "ns_steps": 3}
            if not portable:
                return KernelMuon(**settings)
        return _muon(settings, recipe.weight_decay, portable=portable)
    kinds = {
        "rmsprop": optimizers.RMSprop,
        "adamw": optimizers.AdamW,
        "sgd": optimizers.SGD,
        "lion": optimizers.Lion,
    }
    return kinds[name](**settings)


def _muon(
    settings: dict[str, Any], weight_decay: float, *, portable: bool
) -> keras.optimizers.Optimizer:
    """Returns Keras's Muon."""
    muon = getattr(keras.optimizers, "Muon", None)
    if muon is not None and "rms_rate" in inspect.signature(muon).parameters:
        return muon(**settings | {"weight_decay": weight_decay, "adam_weight_decay": weight_decay})
    if portable:
        return keras.optimizers.AdamW(settings["learning_rate"], weight_decay)
    raise InputError(
        f"Keras {keras.__version__} has no Muon of the kind that the recipe was made for. Choose "
        "the optimizer kernel_muon, or install a newer Keras."
    )


def _learning_rate(recipe: Recipe, steps: int) -> Any:
    """Returns the rate, or its schedule."""
    schedules = keras.optimizers.schedules
    warm_up = round(recipe.warm_up * steps)
    if recipe.schedule == "cosine":
        return schedules.CosineDecay(
            0.0 if warm_up else recipe.learning_rate,
            decay_steps=max(1, steps - warm_up),
            warmup_target=recipe.learning_rate if warm_up else None,
            warmup_steps=warm_up,
        )
    if warm_up:
        return schedules.PolynomialDecay(0.0, warm_up, recipe.learning_rate)
    return recipe.learning_rate

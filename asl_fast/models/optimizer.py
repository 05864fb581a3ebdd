"""A recipe's optimizer and learning rate schedule."""

import keras

from asl_fast.models.kernel_muon import KernelMuon
from asl_fast.models.recipe import Recipe

__all__ = ["build_optimizer"]


def build_optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """Builds a Keras optimizer, or `KernelMuon`.

    Args:
        recipe: The recipe.
        steps: Number of steps in the whole training.
    """
    optimizers = keras.optimizers
    rate: float | keras.optimizers.schedules.LearningRateSchedule = recipe.learning_rate
    warm_up = round(recipe.warm_up * steps)
    if recipe.schedule == "cosine":
        rate = optimizers.schedules.CosineDecay(
            0.0 if warm_up else recipe.learning_rate,
            decay_steps=max(1, steps - warm_up),
            warmup_target=recipe.learning_rate if warm_up else None,
            warmup_steps=warm_up,
        )
    elif warm_up:
        rate = optimizers.schedules.PolynomialDecay(0.0, warm_up, recipe.learning_rate)
    kinds = {
        "rmsprop": optimizers.RMSprop,
        "adamw": optimizers.AdamW,
        "sgd": optimizers.SGD,
        "muon": optimizers.Muon,
        "kernel_muon": KernelMuon,
        "lion": optimizers.Lion,
    }
    settings: dict = {"learning_rate": rate, "weight_decay": recipe.weight_decay or None}
    if recipe.optimizer == "adamw":
        settings["weight_decay"] = recipe.weight_decay  # AdamW rejects None
    elif recipe.optimizer == "sgd":
        settings |= {"momentum": 0.9, "nesterov": True}
    elif recipe.optimizer in ("muon", "kernel_muon"):
        # Jordan 2024 leaves the output layer to AdamW.
        settings |= {
            "exclude_layers": ["predictions"],
            "weight_decay": recipe.weight_decay,
            "adam_weight_decay": recipe.weight_decay,
        }
        if recipe.optimizer == "kernel_muon":
            settings |= {"momentum": 0.85, "ns_steps": 3}
    return kinds[recipe.optimizer](**settings)

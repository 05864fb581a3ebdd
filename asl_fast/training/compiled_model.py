"""A network, compiled by a recipe."""

import keras

from asl_fast.models.network import Network
from asl_fast.models.optimizer import build_optimizer
from asl_fast.models.recipe import Recipe
from asl_fast.system import device

__all__ = ["compiled_model"]


def compiled_model(
    network: Network,
    shape: tuple[int, int, int],
    classes: int,
    recipe: Recipe,
    steps: int,
    policy: str,
    jit: str,
    *,
    portable: bool = False,
) -> keras.Model:
    """Returns a new network, compiled.

    Args:
        network: Which one.
        shape: Height, width and channels of the images.
        classes: Int, at least 1.
        recipe: Optimizer, label smoothing and batch normalisation count.
        steps: Int, of the whole training.
        policy: Name of a Keras dtype policy.
        jit: "auto", "on" or "off".
        portable: Bool. True gives it an optimizer that Keras can load, with its state.
    """
    model = network.build(shape, classes, policy, recipe.batch_norm_momentum)
    optimizer = build_optimizer(recipe, steps, portable=portable)
    if policy == "mixed_float16":
        # Small gradients would become zero in float16.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=device.choose_jit(jit, model).value,
    )
    if portable:
        model.optimizer.build(model.trainable_variables)
    return model

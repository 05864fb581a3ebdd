"""Muon for convolution kernels, which Keras's Muon leaves to AdamW."""

import re
from typing import Any

import keras

__all__ = ["KernelMuon"]


class KernelMuon(keras.optimizers.Muon):
    """Keras's `Muon`, applied to convolution kernels as well.

    A kernel (height, width, channels, filters) is treated as a matrix (height × width × channels,
    filters), as in Jordan 2024, "Muon: An optimizer for hidden layers in neural networks".

    The arguments are those of `keras.optimizers.Muon`. To save a model, replace this optimizer by
    that one, which Keras can load: `keras.optimizers.Muon.from_config(muon.get_config())`.
    """

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Returns approximately the nearest semi-orthogonal matrix, in the shape of x."""
        matrix = super().zeropower_via_newtonschulz5(_as_matrix(x), steps)
        return keras.ops.reshape(matrix, x.shape)

    def lr_adjust(self, x: Any) -> Any:
        """Scales an update according to the shape of its matrix."""
        return keras.ops.reshape(super().lr_adjust(_as_matrix(x)), x.shape)

    def _should_use_adamw(self, variable: Any) -> bool:
        if len(variable.shape) > 2:
            return any(re.search(name, variable.path) for name in self.exclude_layers)
        return super()._should_use_adamw(variable)


def _as_matrix(kernel: Any) -> Any:
    return keras.ops.reshape(kernel, (-1, kernel.shape[-1]))

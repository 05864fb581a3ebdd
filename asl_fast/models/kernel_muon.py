"""Muon for convolutions: Keras's takes matrices alone, and leaves their kernels to AdamW."""

import re
from typing import Any

import keras

__all__ = ["KernelMuon"]


class KernelMuon(keras.optimizers.Muon):
    """Keras's `Muon`, which takes the kernels of convolutions, too.

    A kernel (height, width, channels, filters) counts as the matrix (height × width × channels,
    filters), as Jordan's does: "Muon: An optimizer for hidden layers in neural networks" (2024).

    The arguments are those of `keras.optimizers.Muon`. A model is to be saved with that one, since
    Keras knows no other when it loads it: `keras.optimizers.Muon.from_config(muon.get_config())`.
    """

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Returns nearly the (semi-)orthogonal matrix that is nearest, in the shape of x."""
        found = super().zeropower_via_newtonschulz5(_matrix(x), steps)
        return keras.ops.reshape(found, x.shape)

    def lr_adjust(self, x: Any) -> Any:
        """Scales an update by the sides of its matrix."""
        return keras.ops.reshape(super().lr_adjust(_matrix(x)), x.shape)

    def _should_use_adamw(self, variable: Any) -> bool:
        if len(variable.shape) > 2:
            return any(re.search(name, variable.path) for name in self.exclude_layers)
        return super()._should_use_adamw(variable)


def _matrix(kernel: Any) -> Any:
    return keras.ops.reshape(kernel, (-1, kernel.shape[-1]))

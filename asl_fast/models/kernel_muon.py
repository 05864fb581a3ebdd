"""Muon for all kernels, those of convolutions too, which Keras's Muon leaves to AdamW."""

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["KernelMuon"]

# Jordan 2024: the polynomial of the Newton-Schulz iteration, steepest at 0.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Liu et al. 2025, "Muon is scalable for LLM training": gives updates the RMS of AdamW's.
_RMS = 0.2
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7


class KernelMuon(keras.optimizers.Optimizer):
    """Orthogonalises the updates of kernels by Newton-Schulz iterations; Adam for the rest.

    A kernel (height, width, channels, filters) is treated as a matrix (height × width × channels,
    filters), as in Jordan 2024, "Muon: An optimizer for hidden layers in neural networks". Keras
    can't load it: saved models hold another optimizer, see `build_optimizer`.

    Args:
        learning_rate: As for any Keras optimizer.
        momentum: Float in [0, 1), Nesterov's, of kernels.
        ns_steps: Int, Newton-Schulz iterations.
        exclude_layers: Regular expressions; variables whose path matches one are left to Adam.
        **kwargs: As for any Keras optimizer, such as `weight_decay`, which is decoupled.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        momentum: float = 0.95,
        ns_steps: int = 5,
        exclude_layers: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum, self.ns_steps = momentum, ns_steps
        self.exclude_layers = list(exclude_layers)

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the momenta, and second moments for what Adam updates."""
        if self.built:
            return
        super().build(variables)
        self._momenta, self._squares = [], []
        for variable in variables:
            self._momenta.append(self.add_variable_from_reference(variable, name="momentum"))
            self._squares.append(
                None
                if self._is_kernel(variable)
                else self.add_variable_from_reference(variable, name="velocity")
            )

    def _is_kernel(self, variable: Any) -> bool:
        return len(variable.shape) >= 2 and not any(
            re.search(pattern, variable.path) for pattern in self.exclude_layers
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        index = self._get_variable_index(variable)
        momentum, square = self._momenta[index], self._squares[index]
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if square is None:
            self.assign(momentum, momentum * self.momentum + gradient)
            update = self._orthogonalized(gradient + momentum * self.momentum)
        else:
            self.assign(momentum, momentum * _BETA_1 + gradient * (1 - _BETA_1))
            self.assign(square, square * _BETA_2 + ops.square(gradient) * (1 - _BETA_2))
            step = ops.cast(self.iterations + 1, variable.dtype)
            unbiased = ops.sqrt(1 - ops.power(_BETA_2, step)) / (1 - ops.power(_BETA_1, step))
            update = momentum * unbiased / (ops.sqrt(square) + _EPSILON)
        self.assign_sub(variable, update * rate)

    def _orthogonalized(self, kernel: Any) -> Any:
        """Returns about the nearest semi-orthogonal matrix, scaled, in the shape of the kernel."""
        a, b, c = _COEFFICIENTS
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        rows, columns = matrix.shape
        if rows > columns:
            matrix = ops.transpose(matrix)
        matrix = matrix / (ops.norm(matrix) + 1e-7)
        for _ in range(self.ns_steps):
            square = ops.matmul(matrix, ops.transpose(matrix))
            matrix = a * matrix + ops.matmul(b * square + c * ops.matmul(square, square), matrix)
        if rows > columns:
            matrix = ops.transpose(matrix)
        return ops.reshape(matrix, kernel.shape) * (_RMS * max(rows, columns) ** 0.5)

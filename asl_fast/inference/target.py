"""What an export target must provide."""

import abc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Exportable", "Run", "Target"]

# From inputs (n, …) to outputs (n, k).
Run = Callable[["np.ndarray"], "np.ndarray"]


class Exportable(NamedTuple):
    """A model ready to be written.

    Attributes:
        model: A `keras.Model` in float32.
        signature: The `input_signature` for `keras.Model.export`: one tensor named `images`.
        labels: The names of the outputs in their order, one per line; None if unknown.
        calibration: Inputs (n, …) to calibrate int8 with; None for float32.
    """

    model: Any
    signature: list[Any]
    labels: str | None
    calibration: "np.ndarray | None"

    def at_inference(self) -> Any:
        """Returns the model called with `training=False`, where it draws no random numbers.

        Most of Keras's exporters call it without. Then its augmentation layers augment; and those
        that mix images draw numbers even at inference, in operations that other runtimes lack.
        """
        import keras

        class AtInference(keras.layers.Layer):
            def call(self, images: Any) -> Any:
                with keras.StatelessScope():  # no seed is advanced, so what is drawn has no use
                    return source.model(images, training=False)

        source = self
        images = keras.Input(self.signature[0].shape[1:], dtype=self.signature[0].dtype.name)
        return keras.Model(images, AtInference()(images))


class Target(abc.ABC):
    """A file format, and the runtime in which its files are compared with the model and timed.

    The command line lists the targets in its help, so a target imports NumPy, TensorFlow and its
    own packages inside its methods only.

    Attributes:
        name: The format's name for `--format`.
        suffix: The ending of its file names.
        packages: Distributions that it needs, the runtime last.
        marker: The file that identifies a folder as this format; None if a model is a single file.
        int8: Whether it can compute in int8. Only then `write` gets a calibration.
    """

    name: str
    suffix: str
    packages: tuple[str, ...]
    marker: str | None = None
    int8: bool = False

    @abc.abstractmethod
    def write(self, source: Exportable, path: Path) -> None:
        """Writes a model and its labels to a new file, or into an empty folder.

        Any exception is reported to the user as a failed conversion.
        """

    @abc.abstractmethod
    def load(self, path: Path) -> Run:
        """Returns a function that runs the file in the target's runtime, on the CPU."""

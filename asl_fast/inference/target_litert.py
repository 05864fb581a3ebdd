"""LiteRT (TensorFlow Lite), in float32 or int8."""

import itertools
import math
import zipfile
from pathlib import Path
from typing import Any

from asl_fast.inference.target import Exportable, Run, Target

__all__ = ["LiteRT"]

_CALIBRATION = 200  # images, at most


class LiteRT(Target):
    """One file; the labels are `labels.txt` in a zip archive appended to the model.

    TensorFlow Lite's metadata are stored so: the runtime ignores the archive, any unzip reads it.
    """

    name = "litert"
    suffix = ".tflite"
    packages = ("ai-edge-litert",)
    int8 = True

    def write(self, source: Exportable, path: Path) -> None:
        """As `Target.write`."""
        import tensorflow as tf

        model = source.model
        # Keras's default also allows TensorFlow's own kernels, which LiteRT alone lacks.
        kernels = tf.lite.OpsSet.TFLITE_BUILTINS
        options: dict[str, Any] = {}
        if (images := source.calibration) is not None:
            kernels = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            chosen = images[:: math.ceil(len(images) / _CALIBRATION)]
            model = _equalize(model)
            options["optimizations"] = [tf.lite.Optimize.DEFAULT]
            options["representative_dataset"] = lambda: ([image[None]] for image in chosen)
        model.export(
            path,
            format="litert",
            verbose=False,
            input_signature=source.signature,
            target_spec={"supported_ops": [kernels]},
            **options,
        )
        if source.labels is not None:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("labels.txt", source.labels)

    def load(self, path: Path) -> Run:
        """As `Target.load`."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
        runner = interpreter.get_signature_runner()

        def run(images: Any) -> Any:
            (output,) = runner(images=images).values()
            return output

        return run


def _equalize(model: Any) -> Any:
    """Returns a model with the same outputs that loses less accuracy in int8.

    In int8 all channels of a layer share one scale, so a channel of small values is left with few
    levels, and the batch normalisation that follows amplifies the rounding error. Here the weights
    of the layer below divide each channel by its standard deviation already; ReLU commutes with a
    positive factor (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and
    Bias Correction"). Models other than `Sequential` are returned as they are.
    """
    import keras

    if not isinstance(model, keras.Sequential):
        return model
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    layers = [layer for layer in copy.layers if not isinstance(layer, keras.layers.Dropout)]
    for below, above in itertools.pairwise(layers):
        if (
            isinstance(below, (keras.layers.Conv2D, keras.layers.Dense))
            and below.activation in (keras.activations.relu, keras.activations.linear)
            and isinstance(above, keras.layers.BatchNormalization)
            and above.axis == -1
        ):
            factors = 1 / keras.ops.sqrt(above.moving_variance + above.epsilon)
            below.kernel.assign(below.kernel * factors)
            if below.use_bias:
                below.bias.assign(below.bias * factors)
            above.moving_mean.assign(above.moving_mean * factors)
            above.moving_variance.assign(keras.ops.full_like(factors, 1 - above.epsilon))
    return copy

"""The course's network."""

import keras

__all__ = ["build_cnn"]


def build_cnn(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 24,
    dtype: str | keras.DTypePolicy = "float32",
    batch_norm_momentum: float = 0.99,
) -> keras.Sequential:
    """Builds the CNN of the Keras course on Sign Language MNIST, uncompiled.

    Args:
        input_shape: Height, width and channels of the images, which are floats in [0, 1].
        classes: Int, how many letters.
        dtype: Dtype policy of the layers; the softmax is float32 under any.
        batch_norm_momentum: Float in [0, 1), of the averages that batch normalisation keeps.

    Returns:
        A `keras.Sequential` of plain Keras layers: (n, *input_shape) to probabilities
        (n, classes), float32.
    """
    layers = keras.layers

    def batch_normalization() -> keras.layers.Layer:
        return layers.BatchNormalization(momentum=batch_norm_momentum, dtype=dtype)

    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(75, 3, padding="same", activation="relu", dtype=dtype),
            batch_normalization(),
            layers.MaxPool2D(2, padding="same", dtype=dtype),
            layers.Conv2D(50, 3, padding="same", activation="relu", dtype=dtype),
            layers.Dropout(0.2, dtype=dtype),
            batch_normalization(),
            layers.MaxPool2D(2, padding="same", dtype=dtype),
            layers.Conv2D(25, 3, padding="same", activation="relu", dtype=dtype),
            batch_normalization(),
            layers.MaxPool2D(2, padding="same", dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(512, activation="relu", dtype=dtype),
            layers.Dropout(0.3, dtype=dtype),
            layers.Dense(classes, activation="softmax", dtype="float32", name="predictions"),
        ],
        name="asl_cnn",
    )

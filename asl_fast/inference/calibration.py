"""Calibration: probabilities that are right as often as they say."""

import keras
import numpy as np

__all__ = ["calibrate", "softened", "temperature"]

_RANGE = (0.05, 20.0)
_HALVINGS = 40


def temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the temperature at which a network's confidence equals its accuracy.

    The logits are divided by it (Guo et al. 2017, "On calibration of modern neural networks").
    Chosen is the one at which the mean probability of the predicted classes is the accuracy
    (Clarté et al. 2023, "Expectation consistency for calibration of neural networks"), which a
    network without a mistake does not drive to zero, since (right + 1) / (images + 2) stands for
    the accuracy.

    Args:
        labels: Integers (n,), of images that the network was not trained on.
        probabilities: Floats (n, k), the network's.

    Returns:
        Float in [0.05, 20].
    """
    right = int((probabilities.argmax(axis=1) == labels).sum())
    accuracy = (right + 1) / (len(labels) + 2)
    low, high = np.log(_RANGE)
    for _ in range(_HALVINGS):  # confidence falls as the temperature rises
        middle = (low + high) / 2
        confidence = softened(probabilities, float(np.exp(middle))).max(axis=1).mean()
        low, high = (middle, high) if confidence > accuracy else (low, middle)
    return float(np.exp((low + high) / 2))


def softened(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities, floats (n, k), that the logits divided by a temperature give."""
    least = np.finfo(np.float32).tiny
    logits = np.log(np.maximum(probabilities, least).astype(np.float64)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    softer: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return softer


def calibrate(model: keras.Model, temperature: float) -> None:
    """Divides a model's logits by a temperature, in the weights of its last dense layer."""
    for weights in model.layers[-1].weights:
        weights.assign(weights / temperature)

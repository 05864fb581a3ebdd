"""What `asl_fast.fit` says of its arguments before it looks at the data."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import keras
import tensorflow as tf

from asl_fast.training.checkpoint import Checkpoints
from asl_fast.transforms.checks import check, check_validation_split, finite, is_seed

__all__ = ["check_arguments", "check_model", "flat"]

_FLAGS = "True or False"


def flat(callbacks: Any) -> list[Any]:
    """Returns callbacks, given as one or a list, as a list."""
    return tf.nest.flatten(callbacks) if callbacks else []


def check_model(model: Any) -> None:
    """Refuses what can't be trained here.

    Raises:
        ValueError: Another backend than TensorFlow's, no Keras model, or one that isn't compiled.
    """
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            "`asl_fast.fit` needs Keras's TensorFlow backend: set the environment variable "
            f'KERAS_BACKEND to "tensorflow". It is {keras.config.backend()!r}'
        )
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
    if not model.compiled:
        raise ValueError("`model` must be compiled before it is trained: call `model.compile`")


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuses values of the arguments of `fit` that no data can go with.

    Args:
        given: By name.

    Raises:
        ValueError: Names argument, rule and value.
    """
    for name in ("batch_size", "validation_batch_size", "steps_per_execution"):
        _check_whole(name, given[name], least=1, optional=True)
    for name in ("epochs", "initial_epoch"):
        _check_whole(name, given[name], least=0)
    for name in ("steps_per_epoch", "validation_steps"):
        value = given[name]
        holds = value is None or (finite(value) and value > 0)
        check(name, "None or a finite number above 0", value, holds)
    check_validation_split(given["validation_split"])
    check("seed", "None or an int in [0, 2**32)", given["seed"], is_seed(given["seed"]))
    check("shuffle", _FLAGS, given["shuffle"], _is_flag(given["shuffle"]))
    resident, jit, precision = given["resident"], given["jit"], given["precision"]
    check("resident", f"None, {_FLAGS}", resident, resident is None or _is_flag(resident))
    holds = jit is None or _is_flag(jit) or (isinstance(jit, str) and jit in ("auto", "on", "off"))
    check("jit", f'None, {_FLAGS}, "auto", "on" or "off"', jit, holds)
    rule = 'None, "auto" or the name of a Keras dtype policy, as "mixed_bfloat16"'
    check("precision", rule, precision, precision in (None, "auto") or _is_policy(precision))
    checkpoints = given["checkpoints"]
    holds = isinstance(checkpoints, Checkpoints | None)
    check("checkpoints", "None or `Checkpoints`", checkpoints, holds)
    _check_frequency(given["validation_freq"])
    _check_weights(given["class_weight"])
    _check_callbacks(given["callbacks"])


def _check_whole(name: str, value: Any, *, least: int, optional: bool = False) -> None:
    rule = f"at least {least}, as an int" + (", or None" if optional else "")
    check(name, rule, value, (optional and value is None) or _is_whole(value, least))


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ == "bool"  # NumPy's is no bool


def _is_policy(value: Any) -> bool:
    try:
        return isinstance(value, str) and keras.dtype_policies.get(value) is not None
    except ValueError:
        return False


def _check_frequency(value: Any) -> None:
    epochs = isinstance(value, list | tuple | set | range)
    holds = all(_is_whole(v, 1) for v in value) if epochs else _is_whole(value, 1)
    check("validation_freq", "an int, at least 1, or a list of epochs from 1 on", value, holds)


def _check_weights(value: Any) -> None:
    if value is None:
        return
    holds = isinstance(value, Mapping) and all(
        finite(key) and key == int(key) and finite(weight) for key, weight in value.items()
    )
    rule = "None or a dictionary from classes, as integers, to finite weights, as `{0: 1.0}`"
    check("class_weight", rule, value, holds)


def _check_callbacks(value: Any) -> None:
    if isinstance(value, keras.callbacks.CallbackList):
        return
    single = not isinstance(value, Iterable)
    for callback in flat([value] if single and value is not None else value):
        if isinstance(callback, type) or not hasattr(callback, "set_model"):
            raise ValueError(
                "`callbacks` must be Keras callbacks, made by calling their classes. Received: "
                f"{callback!r}"
            )

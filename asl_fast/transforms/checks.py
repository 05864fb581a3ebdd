"""Rules for option values, and the errors that name option, rule and value."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

__all__ = [
    "DATA_FORMATS",
    "check",
    "check_choice",
    "check_flags",
    "check_limit",
    "check_validation_split",
    "finite",
    "is_finite_pair",
    "is_pair",
    "is_seed",
    "plain",
]

DATA_FORMATS = ("channels_last", "channels_first")


def check(name: str, rule: str, value: object, holds: bool) -> None:
    """Raises a `ValueError` that names the option, its rule and the value, unless it holds."""
    if not holds:
        raise ValueError(f"`{name}` must be {rule}. Received: {value!r}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raises a `ValueError` unless the value is one of some strings."""
    quoted = ", ".join(repr(choice) for choice in choices)
    check(name, f"one of {quoted}", value, isinstance(value, str) and value in choices)


def check_flags(options: object, *names: str) -> None:
    """Raises a `ValueError` unless these attributes are booleans."""
    for name in names:
        value = getattr(options, name)
        check(name, "True or False", value, isinstance(value, bool))


def check_limit(name: str, value: Any, any_sign: bool) -> None:
    """Raises a `ValueError` unless a value is finite, and at least 0 but for `any_sign`."""
    rule = "a finite number" + ("" if any_sign else ", at least 0")
    check(name, rule, value, finite(value) and (any_sign or value >= 0))


def check_validation_split(value: float) -> None:
    """Raises a `ValueError` unless the value is in [0, 1)."""
    check("validation_split", "a number in [0, 1)", value, finite(value) and 0 <= value < 1)


def finite(value: object) -> bool:
    """Returns whether a value is a number, neither infinite nor NaN, and no bool."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond any float
        return False


def is_finite_pair(value: object) -> bool:
    """Returns whether a value is a tuple of two finite numbers."""
    return isinstance(value, tuple) and len(value) == 2 and all(map(finite, value))


def is_pair(value: object, least: float = -math.inf) -> bool:
    """Returns whether a value is a tuple (lower, upper) with `least` <= lower <= upper."""
    return is_finite_pair(value) and least <= value[0] <= value[1]  # type: ignore[index]


def is_seed(value: object) -> bool:
    """Returns whether a value is None or an int in [0, 2**32), Python's or NumPy's."""
    if value is None:
        return True
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) < 2**32


def plain(value: object) -> object:
    """Returns lists and 1-D arrays as tuples, NumPy's numbers as Python's: hashable, JSON."""
    if hasattr(value, "tolist"):  # NumPy's, without importing it
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value

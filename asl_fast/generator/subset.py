"""The train and the validation part of arrays, as `ImageDataGenerator.flow` divides them."""

import numpy as np

from asl_fast.transforms.checks import check_validation_split

__all__ = ["subset"]


def subset(
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    validation_split: float,
    subset: str,
    ignore_class_split: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns one part of a data set: the first share is for validation, the rest for training.

    The rows are taken in their order, so near-duplicates that stand together stay together;
    Sign Language MNIST has so many elsewhere that only its own valid file is a fair measure.

    Args:
        x: Images, (rows, …).
        y: Labels, (rows, …), or None.
        validation_split: Float in [0, 1), the share for validation.
        subset: "training" or "validation".
        ignore_class_split: Bool. False refuses parts that don't hold the same classes.

    Returns:
        Views of x and y.

    Raises:
        ValueError: An option is wrong, x and y differ in length, or the parts differ in classes.
    """
    check_validation_split(validation_split)
    if subset not in ("training", "validation"):
        raise ValueError(f"`subset` must be 'training' or 'validation'. Received: {subset!r}")
    if y is not None and len(y) != len(x):
        raise ValueError(f"`x` has {len(x)} rows and `y` {len(y)}: they must be as many")
    border = int(len(x) * validation_split)
    first, rest = slice(0, border), slice(border, None)
    same = (
        y is None or ignore_class_split or np.array_equal(np.unique(y[first]), np.unique(y[rest]))
    )
    if not same:
        raise ValueError(
            "`validation_split` leaves parts with different classes: shuffle the rows first, "
            f"or set `ignore_class_split`. Received: {validation_split!r}"
        )
    part = first if subset == "validation" else rest
    return x[part], None if y is None else y[part]

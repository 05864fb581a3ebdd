"""The training and the validation subset of arrays, as `ImageDataGenerator.flow` splits them."""

import numpy as np

from asl_fast.transforms.checks import check_validation_split

__all__ = ["subset", "subset_rows"]


def subset(
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    validation_split: float,
    subset: str,
    ignore_class_split: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns one subset of a data set: the first rows are for validation, the rest for training.

    Rows keep their order. Near-duplicates that are far apart, as in Sign Language MNIST, can
    therefore end up on both sides; only its own validation file gives a fair measure.

    Args:
        x: Images, (rows, …).
        y: Labels, (rows, …), or None.
        validation_split: Float in [0, 1), the fraction for validation.
        subset: "training" or "validation".
        ignore_class_split: Bool. False rejects subsets that don't hold the same classes.

    Returns:
        Views of x and y.

    Raises:
        ValueError: An option is wrong, x and y differ in length, or the subsets in classes.
    """
    check_validation_split(validation_split)
    if y is not None and len(y) != len(x):
        raise ValueError(f"`x` and `y` must have the same length. Received: {len(x)} and {len(y)}")
    rows = subset_rows(len(x), y, validation_split, subset, ignore_class_split)
    return x[rows], None if y is None else y[rows]


def subset_rows(
    count: int,
    y: np.ndarray | None,
    validation_split: float,
    subset: str | None,
    ignore_class_split: bool,
) -> slice:
    """Returns which of `count` rows belong to a subset; see `subset`."""
    if subset not in ("training", "validation"):
        raise ValueError(f"`subset` must be 'training' or 'validation'. Received: {subset!r}")
    border = int(count * validation_split)
    same_classes = (
        y is None
        or ignore_class_split
        or np.array_equal(np.unique(y[:border]), np.unique(y[border:]))
    )
    if not same_classes:
        raise ValueError(
            "Training and validation subsets have different classes after the split: shuffle the "
            f"rows first, or set `ignore_class_split`. Received: {validation_split!r}"
        )
    return slice(0, border) if subset == "validation" else slice(border, None)

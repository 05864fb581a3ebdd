"""How the cost of a batch grows: a part for the call, one for each image, one for each pixel."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from benchmarks.cell import Cell

__all__ = ["Cost", "fit"]


class Cost(NamedTuple):
    """What a batch costs.

    Attributes:
        call: Microseconds a batch.
        image: Microseconds an image.
        pixel: Nanoseconds a pixel value, channels counted.
        error: The median of how far the fit is from what was measured, relatively.
    """

    call: float
    image: float
    pixel: float
    error: float

    def microseconds(self, batch: int, pixels: float) -> float:
        """Returns what an image of so many pixel values costs in a batch of so many."""
        return self.call / batch + self.image + self.pixel * pixels / 1000


def fit(cells: list[Cell], name: str) -> Cost | None:
    """Fits a contender's cost to cells of images/s; None with fewer than four.

    Least squares of relative errors, no part below 0.
    """
    rows, costs = [], []
    for cell in cells:
        if name in cell.samples:
            batch, side, channels = (cell.about[key] for key in ("batch", "side", "channels"))
            rows.append([1 / batch, 1.0, side * side * channels / 1000])
            costs.append(1e6 / float(np.median(cell.samples[name])))
    if len(rows) < 4:
        return None
    matrix, wanted = np.array(rows), np.array(costs)
    found, _ = nnls(matrix / wanted[:, None], np.ones(len(wanted)))
    error = float(np.median(np.abs(matrix @ found / wanted - 1)))
    return Cost(*map(float, found), error)

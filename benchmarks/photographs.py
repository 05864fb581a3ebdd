"""Which images of the train set come from one photograph.

The set was expanded from 1,704 photographs by filters, brightness, contrast and slight rotations,
about twenty images each, so a random split would have nearly every held-out image's twins among
those trained on. Two images belong together where they are alike, or linked by others that are:
single linkage, within a letter. So no held-out image is more alike to any that is trained on than
the threshold says.
"""

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

__all__ = ["ALIKE", "held_out", "nearest", "photographs"]

# Correlation of the slightly blurred pixels, which brightness and contrast do not change.
ALIKE = 0.99


def photographs(images: np.ndarray, labels: np.ndarray, alike: float = ALIKE) -> np.ndarray:
    """Returns a number for each image, the same for those of one photograph.

    Args:
        images: uint8, (n, height, width, 1).
        labels: Integers, (n,).
        alike: Float in (0, 1): the correlation from which on two images are linked.
    """
    found = np.empty(len(labels), np.int64)
    count = 0
    for letter in np.unique(labels):
        rows = np.flatnonzero(labels == letter)
        standardised = _standardised(images[rows])
        linked = csr_array(standardised @ standardised.T >= alike)
        number, groups = connected_components(linked, directed=False)
        found[rows] = count + groups
        count += number
    return found


def held_out(images: np.ndarray, labels: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Returns which images are held out: whole photographs, of each letter about such a share.

    Args:
        images: uint8, (n, height, width, 1).
        labels: Integers, (n,).
        share: Float in (0, 1).

    Returns:
        Bool, (n,); the same at each call.
    """
    groups = photographs(images, labels)
    random = np.random.default_rng(0)
    chosen = []
    for letter in np.unique(labels):
        mine = random.permutation(np.unique(groups[labels == letter]))
        sizes = np.cumsum([np.count_nonzero(groups == group) for group in mine])
        chosen.append(mine[: int(np.searchsorted(sizes, share * sizes[-1])) + 1])
    return np.isin(groups, np.concatenate(chosen))


def nearest(
    images: np.ndarray, labels: np.ndarray, others: np.ndarray, their_labels: np.ndarray
) -> np.ndarray:
    """Returns each image's correlation with the most alike of others of its letter, (n,)."""
    found = np.empty(len(labels), np.float32)
    for letter in np.unique(labels):
        mine = labels == letter
        known = _standardised(others[their_labels == letter])
        found[mine] = (_standardised(images[mine]) @ known.T).max(axis=1)
    return found


def _standardised(images: np.ndarray) -> np.ndarray:
    blurred = gaussian_filter(images[..., 0].astype(np.float32), (0, 1, 1))
    flat = blurred.reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

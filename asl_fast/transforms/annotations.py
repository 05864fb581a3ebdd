"""Masks, bounding boxes and keypoints, moved by the matrices that move their images.

Boxes and points are in Keras's coordinates: those of `xyxy` boxes, where pixel (row 0, column 0)
covers 0 to 1 on either axis. Matrices take the middles of pixels, as whole numbers.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.transforms.transform import Side
from asl_fast.transforms.warp import warp

__all__ = ["move_boxes", "move_masks", "move_points"]


def move_masks(masks: tf.Tensor, matrices: tf.Tensor, *, fill_mode: str, cval: float) -> tf.Tensor:
    """Moves masks by the nearest pixel, so that no class is invented.

    Args:
        masks: Integers, bool or floating, (n, height, width) or (n, height, width, channels).
        matrices: float32, (n, 2, 3), output to input.
        fill_mode: A name in `FILL_MODES`.
        cval: What lies beyond the border for "constant".

    Returns:
        The masks' shape and dtype.
    """
    pixels = masks if masks.shape.rank == 4 else masks[..., None]
    moved = warp(
        tf.cast(pixels, tf.float32),
        matrices,
        interpolation_order=0,
        fill_mode=fill_mode,
        cval=cval,
    )
    moved = moved if masks.shape.rank == 4 else moved[..., 0]
    return tf.cast(moved, masks.dtype)


def move_boxes(
    boxes: Mapping[str, Any], matrices: tf.Tensor, *, height: Side, width: Side, box_format: str
) -> dict[str, Any]:
    """Moves boxes: the smallest upright ones around what of them the image still shows.

    Keras clips the box around all four moved corners, which is larger where one of them lies
    outside.

    Args:
        boxes: Keras's dictionary: `boxes` (n, m, 4) and `labels` (n, m). A box that leaves the
            image gets the label -1, as in Keras.
        matrices: float32, (n, 2, 3), output to input.
        height: Rows of an image.
        width: Columns of an image.
        box_format: Keras's `bounding_box_format`.
    """
    tools = keras.utils.bounding_boxes
    size = {"height": height, "width": width}
    corners = tools.convert_format(
        tf.cast(boxes["boxes"], tf.float32), source=box_format, target="xyxy", **size
    )
    upright = _visible(corners, matrices[:, None], height, width)
    clipped = tools.clip_to_image_size(
        {"boxes": upright, "labels": tf.convert_to_tensor(boxes["labels"])},
        bounding_box_format="xyxy",
        **size,
    )
    clipped["boxes"] = tools.convert_format(
        clipped["boxes"], source="xyxy", target=box_format, **size
    )
    return clipped


def _visible(boxes: tf.Tensor, matrices: tf.Tensor, height: Side, width: Side) -> tf.Tensor:
    """Returns the upright boxes (n, m, 4) around the moved boxes' parts within the image.

    The corners of a part are corners of the moved box within the image, corners of the image
    within the moved box, and points where their edges cross.
    """
    size = tf.cast(tf.stack([width, height]), tf.float32)
    left, top, right, bottom = tf.unstack(boxes, axis=-1)
    round_trip = [(left, top), (right, top), (right, bottom), (left, bottom)]
    corners = _forward(tf.stack([tf.stack(xy, -1) for xy in round_trip], -2), matrices)
    edges = tf.roll(corners, -1, axis=-2) - corners
    # Where each edge meets each of the image's four border lines, in shares of the edge.
    reach = [
        tf.math.divide_no_nan(line - corners[..., axis], edges[..., axis])
        for axis in (0, 1)
        for line in (0.0, size[axis])
    ]
    share = tf.stack(reach, axis=-1)[..., None]
    crossings = corners[..., None, :] + share * edges[..., None, :]
    on_edge = (share[..., 0] >= 0) & (share[..., 0] <= 1)
    frame = size * tf.constant([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    within = _backward(frame, matrices)
    inside_box = tf.reduce_all(
        (within >= boxes[..., None, :2]) & (within <= boxes[..., None, 2:]), axis=-1
    )
    points = tf.concat(
        [
            corners,
            tf.reshape(crossings, tf.concat([tf.shape(boxes)[:-1], [16, 2]], 0)),
            tf.broadcast_to(frame, tf.shape(corners)),
        ],
        axis=-2,
    )
    valid = tf.concat(
        [
            tf.ones_like(corners[..., 0], tf.bool),
            tf.reshape(on_edge, tf.concat([tf.shape(boxes)[:-1], [16]], 0)),
            inside_box,
        ],
        axis=-1,
    )
    slack = 1e-3  # a crossing lies on the border but for rounding
    valid &= tf.reduce_all((points >= -slack) & (points <= size + slack), axis=-1)
    lowest = tf.reduce_min(tf.where(valid[..., None], points, np.inf), axis=-2)
    highest = tf.reduce_max(tf.where(valid[..., None], points, -np.inf), axis=-2)
    # A box of which nothing is left is empty, and Keras's clipping marks it.
    nothing = ~tf.reduce_any(valid, axis=-1)[..., None]
    return tf.where(nothing, 0.0, tf.concat([lowest, highest], axis=-1))


def move_points(points: tf.Tensor, matrices: tf.Tensor, *, height: Side, width: Side) -> tf.Tensor:
    """Moves points (n, m, 2), x and y, and clips them to the image."""
    moved = _forward(tf.cast(points, tf.float32), matrices)
    return tf.clip_by_value(moved, 0.0, tf.cast(tf.stack([width, height]), tf.float32))


def _forward(points: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Maps points (…, m, 2) from input to output by the inverse of matrices (…, 2, 3)."""
    offset = points - 0.5 - matrices[..., None, :, 2]
    a, b, c, d = (matrices[..., i, j, None] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)))
    x, y = tf.unstack(offset, axis=-1)
    moved = tf.stack([d * x - b * y, a * y - c * x], axis=-1)
    return moved / tf.expand_dims(a * d - b * c, -1) + 0.5


def _backward(points: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Maps points (m, 2) from output to input by matrices (…, 2, 3)."""
    linear = tf.matmul(points - 0.5, matrices[..., :2], transpose_b=True)
    return linear + matrices[..., None, :, 2] + 0.5

import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import RandomAugment

SIDE = (120, 160)
EVERYTHING = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 15,
    "zoom_range": (0.7, 1.4),
    "horizontal_flip": True,
    "vertical_flip": True,
    "fill_mode": "constant",
}


def rectangles(count, seed=0):
    """Returns masks (n, height, width), each with one rectangle of a class, and its xyxy box."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, *SIDE), np.int32)
    boxes = np.zeros((count, 1, 4), np.float32)
    for mask, box in zip(masks, boxes, strict=True):
        top, left = random.integers(10, 50, 2)
        height, width = random.integers(40, 60, 2)
        mask[top : top + height, left : left + width] = random.integers(1, 20)
        box[0] = left, top, left + width, top + height
    return masks, boxes


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = np.prod(np.maximum(sides, 0))
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


@pytest.mark.parametrize("quirks", [False, True])
def test_masks_and_boxes_follow_their_images_over_a_thousand_draws(quirks):
    masks, boxes = rectangles(1000)
    layer = RandomAugment(**EVERYTHING, quirks=quirks, bounding_box_format="xyxy", dtype="float32")
    given = {
        "images": (masks * 10).astype(np.float32)[..., None],
        "segmentation_masks": masks,
        "bounding_boxes": {"boxes": boxes, "labels": np.ones((1000, 1), np.int32)},
        "labels": np.arange(1000),
    }
    moved = layer(given, samples=np.arange(1000), epoch=0, training=True)
    alone = layer(given["images"], samples=np.arange(1000), epoch=0, training=True)
    np.testing.assert_allclose(moved["images"], alone, atol=1e-3)
    np.testing.assert_array_equal(moved["labels"], given["labels"])
    after = moved["segmentation_masks"].numpy()
    assert after.dtype == np.int32
    # No class is invented, and the mask lies where the image's bright part does.
    assert all(set(np.unique(a)) <= {0, b.max()} for a, b in zip(after, masks, strict=True))
    bright = moved["images"].numpy()[..., 0] > 5 * masks.max(axis=(1, 2))[:, None, None]
    agree = [(a > 0)[b].mean() for a, b in zip(after, bright, strict=True) if b.sum() > 50]
    assert min(agree) > 0.9
    scores = [
        overlap(box_of(mask), box)
        for mask, box in zip(after, moved["bounding_boxes"]["boxes"].numpy()[:, 0], strict=True)
        if (mask > 0).sum() > 500  # or single pixels decide
    ]
    assert len(scores) > 900
    assert np.mean(scores) > 0.97
    assert min(scores) > 0.9


def test_a_box_that_leaves_the_image_gets_the_label_of_none():
    layer = RandomAugment(width_shift_range=(1e6,), bounding_box_format="xyxy")
    _, boxes = rectangles(4)
    given = {
        "images": np.zeros((4, *SIDE, 1), np.uint8),
        "bounding_boxes": {"boxes": boxes, "labels": np.zeros((4, 1), np.int32)},
    }
    moved = layer(given, samples=np.arange(4), epoch=0, training=True)
    assert (moved["bounding_boxes"]["labels"].numpy() == -1).all()


@pytest.mark.parametrize("box_format", ["xywh", "center_xywh", "rel_xyxy", "yxyx"])
def test_boxes_are_taken_and_given_in_kerass_formats(box_format):
    _, boxes = rectangles(8)
    convert = keras.utils.bounding_boxes.convert_format
    size = {"height": SIDE[0], "width": SIDE[1]}
    images = np.zeros((8, *SIDE, 1), np.uint8)

    def moved(boxes, name):
        layer = RandomAugment(**EVERYTHING, bounding_box_format=name)
        labels = np.zeros((8, 1), np.int32)
        data = {"images": images, "bounding_boxes": {"boxes": boxes, "labels": labels}}
        return layer(data, samples=np.arange(8), epoch=0, training=True)["bounding_boxes"]["boxes"]

    converted = convert(boxes, source="xyxy", target=box_format, **size)
    back = convert(moved(converted, box_format), source=box_format, target="xyxy", **size)
    np.testing.assert_allclose(back, moved(boxes, "xyxy"), atol=1e-3)


def test_points_stay_on_what_they_mark():
    images = np.zeros((200, *SIDE, 1), np.float32)
    places = np.random.default_rng(1).integers(30, 90, (200, 2))
    for image, (row, column) in zip(images, places, strict=True):
        image[row - 1 : row + 2, column - 1 : column + 2] = 100
    points = places[:, None, ::-1] + 0.5  # the middle of the pixel
    layer = RandomAugment(**EVERYTHING, dtype="float32")
    data = {"images": images, "keypoints": points.astype(np.float32)}
    moved = layer(data, samples=np.arange(200), epoch=0, training=True)
    rows, columns = np.mgrid[: SIDE[0], : SIDE[1]] + 0.5
    checked = 0
    for image, (x, y) in zip(
        moved["images"].numpy()[..., 0], moved["keypoints"][:, 0], strict=True
    ):
        if 3 < x < SIDE[1] - 3 and 3 < y < SIDE[0] - 3:
            centre = (image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()
            np.testing.assert_allclose(centre, (x, y), atol=0.2)
            checked += 1
    assert checked > 100


def test_masks_have_a_fill_of_their_own():
    masks = np.full((4, *SIDE, 1), 3, np.uint8)
    data = {"images": masks, "segmentation_masks": masks}
    options = EVERYTHING | {"rotation_range": 180, "cval": 99.0}
    moved = RandomAugment(**options, mask_cval=7)(data, training=True)
    assert set(np.unique(moved["segmentation_masks"])) == {3, 7}
    moved = RandomAugment(**options, mask_fill_mode="nearest")(data, training=True)
    assert set(np.unique(moved["segmentation_masks"])) == {3}


def test_one_image_with_its_mask_in_a_dataset_and_in_validation():
    masks, _ = rectangles(6)
    layer = RandomAugment(rotation_range=30, fill_mode="constant")
    data = {"images": masks[..., None].astype(np.uint8), "segmentation_masks": masks}
    plain = layer(data, training=False)
    np.testing.assert_array_equal(plain["segmentation_masks"], masks)
    dataset = tf.data.Dataset.from_tensor_slices(data).map(lambda x: layer(x, training=True))
    for one in dataset:
        assert one["images"].shape == (*SIDE, 1)
        assert one["segmentation_masks"].shape == SIDE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"segmentation_masks": np.zeros((1, 4, 4))}, "must hold `images`"),
        ({"images": np.zeros((1, 4, 4, 1)), "masks": 0}, "may hold .*Received: 'masks'"),
        ({"images": np.zeros((1, 4, 4, 1)), "bounding_boxes": {}}, "`bounding_box_format` must be"),
    ],
)
def test_wrong_dictionaries_are_named(data, message):
    with pytest.raises(ValueError, match=message):
        RandomAugment().call(data, training=True)

"""The built-in data set: drawn hands that sign the 24 static letters of the manual alphabet.

Every letter is a pose of a small three-dimensional hand: how far each joint is bent, where the
thumb lies, which way the hand is turned. A picture is that hand projected and painted from back
to front as round-ended strokes, then lit, blurred and given noise. The real train set was grown
from 1,704 photographs of a few people by small changes; this one is built in the same way, from
as many poses of a few signers, and its valid split shows other signers with other habits. Only
NumPy and Pillow are used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from asl_fast.system.workers import Workers

__all__ = ["LETTERS", "TRAIN_ROWS", "VALID_ROWS", "VERSION", "render"]

LETTERS = "ABCDEFGHIKLMNOPQRSTUVWXY"
TRAIN_ROWS, VALID_ROWS = 27_455, 7_172
VERSION = 1

SIZE = 28
OVERSAMPLING = 3
CHUNK = 16 * len(LETTERS)

Floats = npt.NDArray[np.float64]
Point = tuple[float, float, float]


class Finger(NamedTuple):
    """Bends at the knuckle, the middle joint and the end joint, and the lean to the thumb's side.

    All in degrees. A bend of 0 is straight; positive bends close the hand.
    """

    knuckle: float
    middle: float
    end: float
    lean: float = 0.0

    def leaning(self, degrees: float) -> Finger:
        """The same bends with another lean."""
        return self._replace(lean=degrees)


@dataclass(frozen=True)
class Pose:
    """One letter, as made by a right hand.

    Lengths are in palm widths, with x to the thumb's side, y to the fingers and z out of the
    palm, from the middle of the wrist. Angles are in degrees.
    """

    index: Finger
    middle: Finger
    ring: Finger
    little: Finger
    thumb: tuple[Point, Point, Point]  # its knuckle, its joint, its tip
    turn: float = 0.0  # about the forearm: 0 shows the palm, 90 turns it to the right, 180 the back
    nod: float = 0.0  # fingertips toward the viewer
    roll: float = 0.0  # clockwise in the picture: 90 points right, 180 points down
    arm: float = 0.0  # where the forearm leaves, clockwise from straight down


# How a finger is held.
UP = Finger(3, 4, 3)
FIST = Finger(82, 100, 45)
CLENCHED = Finger(86, 114, 60)
CLAW = Finger(58, 112, 35)
DRAPED = Finger(84, 92, 12)
ROUND = Finger(62, 68, 38)
CURVED = Finger(38, 46, 30)
RING = Finger(46, 50, 36)
LOOSE = Finger(60, 104, 50)
HOOKED = Finger(8, 82, 58)
FORWARD = Finger(32, 6, 4)

# Where the thumb lies: its knuckle, its joint and its tip.
BESIDE = ((0.60, 0.48, 0.20), (0.63, 0.80, 0.30), (0.58, 1.10, 0.34))
OVER_PALM = ((0.46, 0.42, 0.25), (0.20, 0.58, 0.32), (-0.10, 0.64, 0.30))
OVER_FINGERS = ((0.52, 0.46, 0.40), (0.28, 0.72, 0.68), (-0.06, 0.80, 0.72))
UNDER_TIPS = ((0.50, 0.38, 0.30), (0.20, 0.50, 0.48), (-0.14, 0.52, 0.48))
OUT = ((0.66, 0.42, 0.10), (0.98, 0.58, 0.10), (1.26, 0.68, 0.10))
HOLDING = ((0.50, 0.44, 0.34), (0.26, 0.68, 0.60), (0.04, 0.80, 0.70))
UNDER_ONE = ((0.50, 0.48, 0.25), (0.32, 0.82, 0.44), (0.24, 1.16, 0.76))
UNDER_TWO = ((0.46, 0.40, 0.26), (0.24, 0.57, 0.42), (-0.08, 0.63, 0.45))
UNDER_THREE = ((0.42, 0.40, 0.26), (0.10, 0.56, 0.42), (-0.32, 0.61, 0.46))
ALONG = ((0.64, 0.48, 0.22), (0.80, 0.78, 0.28), (0.80, 1.06, 0.30))
PARTED = ((0.66, 0.46, 0.18), (0.90, 0.76, 0.22), (0.96, 1.10, 0.26))
BETWEEN = ((0.56, 0.50, 0.22), (0.50, 0.82, 0.36), (0.30, 1.14, 0.42))
OPPOSED = ((0.52, 0.30, 0.50), (0.46, 0.42, 0.86), (0.34, 0.56, 1.14))
MEETING = ((0.38, 0.36, 0.50), (0.32, 0.66, 0.86), (0.22, 1.04, 0.94))

# To be read beside a chart of the manual alphabet; G, H, P and Q are turned as in the real set.
POSES: dict[str, Pose] = {
    "A": Pose(FIST, FIST, FIST, FIST, BESIDE),
    "B": Pose(UP.leaning(-2), UP, UP.leaning(1), UP.leaning(4), OVER_PALM),
    "C": Pose(CURVED, CURVED, CURVED, CURVED, OPPOSED, turn=58),
    "D": Pose(UP, ROUND, ROUND, ROUND, HOLDING, turn=22),
    "E": Pose(CLAW, CLAW, CLAW, CLAW, UNDER_TIPS),
    "F": Pose(
        Finger(40, 46, 30, 35),
        UP.leaning(6),
        UP.leaning(-6),
        UP.leaning(-20),
        ((0.74, 0.42, 0.25), (0.87, 0.78, 0.52), (0.64, 1.12, 0.80)),
    ),
    "G": Pose(UP, LOOSE, LOOSE, LOOSE, ALONG, turn=158, nod=12, roll=80, arm=35),
    "H": Pose(UP, UP, LOOSE, LOOSE, OVER_FINGERS, turn=158, nod=12, roll=80, arm=35),
    "I": Pose(FIST, FIST, FIST, UP.leaning(-8), OVER_FINGERS),
    "K": Pose(UP.leaning(8), FORWARD.leaning(-18), FIST, FIST, BETWEEN, turn=15),
    "L": Pose(UP.leaning(2), FIST, FIST, FIST, OUT),
    "M": Pose(DRAPED, DRAPED, DRAPED, CLENCHED, UNDER_THREE),
    "N": Pose(DRAPED, DRAPED, CLENCHED, CLENCHED, UNDER_TWO),
    "O": Pose(RING, RING, RING, RING, MEETING, turn=74),
    "P": Pose(UP.leaning(4), FORWARD.leaning(-35), FIST, FIST, BETWEEN, roll=-112, arm=-40),
    "Q": Pose(UP, LOOSE, LOOSE, LOOSE, PARTED, turn=165, nod=10, roll=188, arm=-95),
    "R": Pose(UP.leaning(-17), Finger(10, 4, 3, 19), FIST, FIST, OVER_FINGERS),
    "S": Pose(FIST, FIST, FIST, FIST, OVER_FINGERS),
    "T": Pose(Finger(72, 96, 42), FIST, FIST, FIST, UNDER_ONE),
    "U": Pose(UP.leaning(-2), UP.leaning(2), FIST, FIST, OVER_FINGERS),
    "V": Pose(UP.leaning(14), UP.leaning(-11), FIST, FIST, OVER_FINGERS),
    "W": Pose(
        UP.leaning(15),
        UP,
        UP.leaning(-14),
        FIST,
        ((0.46, 0.42, 0.30), (0.14, 0.60, 0.52), (-0.18, 0.72, 0.62)),
    ),
    "X": Pose(HOOKED, FIST, FIST, FIST, OVER_FINGERS, turn=45),
    "Y": Pose(FIST, FIST, FIST, UP.leaning(-22), OUT),
}

KNUCKLES = np.array([(0.36, 1.00, 0.0), (0.12, 1.04, 0.0), (-0.12, 1.00, 0.0), (-0.35, 0.90, 0.0)])
HEELS = np.array([(0.22, 0.14, 0.0), (0.08, 0.06, 0.0), (-0.08, 0.06, 0.0), (-0.22, 0.14, 0.0)])
THUMB_ROOT = (0.26, 0.16, 0.08)
BONES = np.array([0.52, 0.33, 0.26])  # of the middle finger
LENGTHS = np.array([0.92, 1.0, 0.94, 0.74])

# Points of the skeleton, in the order `skeleton` returns them: 4 heels of the palm, 4 joints of
# each of 4 fingers, 4 of the thumb, wrist, elbow, end of the sleeve. A stroke joins two of them:
# start, end, and the radius at either, in palm widths.
THUMB, WRIST, ELBOW, CUFF = 20, 24, 25, 26
PALM_STROKES = [(WRIST, ELBOW, 0.30, 0.34)]
PALM_STROKES += [(i, 4 + 4 * i, 0.19, 0.15) for i in range(4)]
PALM_STROKES += [(THUMB, THUMB + 1, 0.22, 0.17)]
FINGER_STROKES = [
    (4 + 4 * i + j, 5 + 4 * i + j, width, 0.93 * width)
    for i, scale in enumerate((1.0, 1.0, 0.97, 0.86))
    for j, width in enumerate(scale * np.array([0.135, 0.126, 0.117]))
]
THUMB_STROKES = [(THUMB + 1, THUMB + 2, 0.16, 0.145), (THUMB + 2, THUMB + 3, 0.145, 0.125)]
SLEEVE_STROKES = [(CUFF, ELBOW, 0.42, 0.5)]
STROKES = np.array(PALM_STROKES + FINGER_STROKES + THUMB_STROKES + SLEEVE_STROKES)
STARTS, ENDS = STROKES[:, :2].astype(int).T
RADII = STROKES[:, 2:]
PALM, SLEEVE = len(PALM_STROKES), len(STROKES) - 1
CONTINUED = 1 + np.flatnonzero(STARTS[1:] == ENDS[:-1])
CONTINUED = CONTINUED[CONTINUED >= PALM]
LAYERS = np.array([0.70, 1.0, 1.06])  # grey of outline, skin and shine, as a share of the skin's


class Population(NamedTuple):
    """How many people and photographs a split shows, and how widely they vary."""

    stream: int
    signers: int
    photographs: int  # of each letter
    left_handed: int  # of the signers
    placing: float  # spread of tilt, place and size, in multiples of the train split's


SPLITS = {
    "train": Population(0, signers=10, photographs=71, left_handed=0, placing=1.0),
    "valid": Population(1, signers=14, photographs=299, left_handed=2, placing=1.6),
}


@dataclass(frozen=True)
class Photographs:
    """Everything that decides a picture, one row a picture; the units are those of `Pose`."""

    bends: Floats  # (n, 4, 3) degrees
    leans: Floats  # (n, 4) degrees
    thumb: Floats  # (n, 3, 3) palm widths
    lengths: Floats  # (n, 4) of the fingers, as a share of the usual
    thickness: Floats  # (n,) of every stroke, as a share of the usual
    view: Floats  # (n, 4) turn, nod, roll and arm in degrees
    frame: Floats  # (n, 3) shift right and down in pixels, scale
    mirrored: npt.NDArray[np.bool_]  # (n,)
    light: Floats  # (n, 3) direction to the lamp
    tones: Floats  # (n, 4) skin, background, backdrop and sleeve, 0 to 255
    backdrop: Floats  # (n, 2) angle in radians and distance from the centre in pixels
    cuff: Floats  # (n,) where the sleeve begins, palm widths from the wrist
    blur: Floats  # (n,) 0 to 1
    noise: Floats  # (n,) standard deviation, grey levels

    def take(self, rows: npt.NDArray[np.int64]) -> Photographs:
        """Picks rows, with repetition if asked for."""
        return Photographs(**{name: values[rows] for name, values in vars(self).items()})

    def varied(self, rng: np.random.Generator) -> Photographs:
        """The small changes with which one photograph is made into many."""
        n = len(self.blur)
        view = self.view.copy()
        view[:, 2:] += rng.normal(0.0, 2.5, (n, 1))
        frame = self.frame + rng.normal(0.0, [0.6, 0.6, 0.025], (n, 3))
        tones = self.tones * rng.normal(1.0, 0.06, (n, 1)) + rng.normal(0.0, 3.0, (n, 4))
        return Photographs(**{**vars(self), "view": view, "frame": frame, "tones": tones})


def render(
    rows: int,
    *,
    split: str,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Draws the pictures of one split.

    The same arguments give the same bytes whatever `workers` is, and fewer rows give the first
    of the rows that more would give.

    Args:
        rows: How many pictures, at least 1.
        split: "train" or "valid". The two show different signers.
        seed: Non-negative integer; another seed gives other signers and other photographs.
        workers: How many processes draw, at least 1. `None` takes one for every available core;
            1 draws in this process and starts none.
        progress: Called in this process, now and then, with the number of pictures finished
            since its last call.

    Returns:
        Pictures, uint8 of shape `(rows, 28, 28, 1)`, and labels, int32 of shape `(rows,)`:
        label `i` stands for `LETTERS[i]`. Every letter has the same share, give or take one
        picture.
    """
    images = np.empty((rows, SIZE, SIZE, 1), np.uint8)
    labels = np.empty(rows, np.int32)
    for chunk, drawn, names in _chunks(rows, split, seed, workers or _cores()):
        part = slice(chunk * CHUNK, chunk * CHUNK + len(drawn))
        images[part], labels[part] = drawn[..., None], names
        if progress is not None:
            progress(len(drawn))
    return images, labels


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Drawn = tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.int32]]


def _chunks(rows: int, split: str, seed: int, workers: int) -> Iterator[Drawn]:
    jobs = [(split, seed, i, min(CHUNK, rows - i * CHUNK)) for i in range(-(-rows // CHUNK))]
    workers = min(workers, len(jobs))
    if workers == 1:
        yield from (draw_chunk(*job) for job in jobs)
        return
    with Workers(workers) as pool:
        futures = [pool.submit(draw_chunk, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def draw_chunk(split: str, seed: int, chunk: int, rows: int) -> Drawn:
    """Draws the first `rows` pictures of one chunk, from random streams of its own."""
    rng = np.random.default_rng(_stream(seed, split, 1 + chunk))
    # Whole blocks of one picture of each letter, and whole chunks of random numbers whatever
    # `rows` is, so that the letters are balanced and fewer rows are a prefix of more.
    labels = rng.permuted(np.tile(np.arange(len(LETTERS)), (CHUNK // len(LETTERS), 1)), axis=1)
    turns = chunk * len(labels) + np.arange(len(labels))
    photographs = SPLITS[split].photographs
    chosen = (labels * photographs + turns[:, None] % photographs).ravel()
    photos = take_photographs(split, seed).take(chosen).varied(rng)
    noise = rng.standard_normal((CHUNK, SIZE, SIZE), np.float32)
    first = np.arange(rows)
    images = develop(paint(photos.take(first)), photos.take(first), noise[:rows])
    return chunk, images, labels.ravel()[:rows].astype(np.int32)


def _stream(seed: int, split: str, number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(SPLITS[split].stream, number))


@lru_cache(maxsize=2)
def take_photographs(split: str, seed: int) -> Photographs:
    """Draws the signers of a split and all their photographs, ordered by letter."""
    rng = np.random.default_rng(_stream(seed, split, 0))
    _, people, photographs, left_handed, placing = SPLITS[split]
    n = len(LETTERS) * photographs
    who = np.tile(np.arange(photographs) % people, len(LETTERS))
    letter = np.repeat(np.arange(len(LETTERS)), photographs)
    poses = [POSES[name] for name in LETTERS]

    def spread(
        usual: npt.ArrayLike, shape: tuple[int, ...], habits: float, chances: float
    ) -> Floats:
        """A signer's own way, of spread `habits`, plus each photograph's, of spread `chances`."""
        signers = rng.normal(0.0, habits, (people, *shape))
        return np.asarray(usual) + signers[who] + rng.normal(0.0, chances, (n, *shape))

    fingers = np.array([(p.index, p.middle, p.ring, p.little) for p in poses])[letter]
    thumbs = np.array([p.thumb for p in poses])[letter]
    views = np.array([(p.turn, p.nod, p.roll, p.arm) for p in poses])[letter]
    left = rng.permutation(people) < left_handed
    skin = spread(205.0, (), 12.0, 12.0)
    # A hand as grey as the wall behind it could not be read by anyone.
    background = skin - np.maximum(spread(62.0, (), 8.0, 14.0), 35.0)
    light = spread((0.25, 0.45, 0.85), (3,), 0.15, 0.08)
    tilt = placing * spread(0.0, (), 2.5, 2.5)
    return Photographs(
        bends=fingers[..., :3] + spread(0.0, (4, 3), 2.2, 4.0),
        leans=fingers[..., 3] + spread(0.0, (4,), 0.8, 1.2),
        thumb=thumbs
        + spread(0.0, (1, 3), 0.015, 0.02) * np.array([1.0, 1.0, 0.5])
        + spread(0.0, (3, 3), 0.01, 0.015),
        lengths=spread(1.0, (), 0.04, 0.02)[:, None] + spread(0.0, (4,), 0.02, 0.01),
        thickness=spread(1.0, (), 0.05, 0.02),
        view=views + spread(0.0, (4,), 2.5, 3.5) + tilt[:, None] * [0.0, 0.0, 1.0, 1.0],
        frame=[0.0, 0.0, 1.0] + placing * spread(0.0, (3,), 0.5, 0.5) * [1.0, 1.0, 0.06],
        mirrored=left[who],
        light=light / np.linalg.norm(light, axis=1, keepdims=True),
        tones=np.stack(
            [
                skin,
                background,
                background + spread(-15.0, (), 30.0, 30.0),
                spread(80.0, (), 35.0, 8.0),
            ],
            axis=1,
        ),
        backdrop=np.stack([spread(0.0, (), 2.0, 0.5), spread(14.0, (), 2.0, 3.0)], 1),
        cuff=np.abs(spread(1.0, (), 0.3, 0.3)),
        blur=np.clip(spread(0.4, (), 0.15, 0.15), 0.0, 1.0),
        noise=np.abs(spread(2.5, (), 0.8, 0.5)),
    )


def skeleton(photos: Photographs) -> Floats:
    """Bends the joints and turns the hand: `(n, 27, 3)`, in palm widths, y up, z to the viewer."""
    n = len(photos.blur)
    bend = np.deg2rad(np.cumsum(photos.bends, axis=2))
    lean = np.deg2rad(photos.leans)[..., None]
    ways = np.stack([np.cos(bend) * np.sin(lean), np.cos(bend) * np.cos(lean), np.sin(bend)], -1)
    bones = (photos.lengths * LENGTHS)[..., None] * BONES
    joints = KNUCKLES[:, None] + np.cumsum(ways * bones[..., None], axis=2)
    fingers = np.concatenate([np.broadcast_to(KNUCKLES[:, None], (n, 4, 1, 3)), joints], axis=2)
    heels = np.broadcast_to(HEELS, (n, 4, 3))
    root = np.broadcast_to(np.array([THUMB_ROOT]), (n, 1, 3))
    hand = np.concatenate([heels, fingers.reshape(n, 16, 3), root, photos.thumb], axis=1)

    turn, nod, roll, arm = np.deg2rad(photos.view).T
    hand = _rotated(_rotated(_rotated(hand, 2, 0, turn), 1, 2, nod), 1, 0, roll)
    wrist = hand[:, :4].mean(axis=1)
    forearm = np.stack([-np.sin(arm), -np.cos(arm), np.zeros(n)], axis=1)
    elbow, cuff = wrist + 4.0 * forearm, wrist + photos.cuff[:, None] * forearm
    return np.concatenate([hand, wrist[:, None], elbow[:, None], cuff[:, None]], axis=1)


def _rotated(points: Floats, start: int, end: int, angle: Floats) -> Floats:
    """Turns axis `start` toward axis `end`, by one angle a row."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = points.copy()
    turned[..., start] = cos * points[..., start] - sin * points[..., end]
    turned[..., end] = sin * points[..., start] + cos * points[..., end]
    return turned


def framed(points: Floats, photos: Photographs) -> tuple[Floats, Floats]:
    """Puts the hand into the picture: `(n, 27, 2)` in pixels, and pixels a palm width `(n,)`."""
    flat = points[..., :2]
    low, high = flat[:, : WRIST + 1].min(axis=1), flat[:, : WRIST + 1].max(axis=1)
    extent = np.max(high - low, axis=1) + 0.35
    scale = np.minimum(25.0 / extent, 13.5) * photos.frame[:, 2]
    placed = (flat - ((low + high) / 2)[:, None]) * scale[:, None, None]
    x = SIZE / 2 + placed[..., 0] + photos.frame[:, :1]
    y = SIZE / 2 - placed[..., 1] + photos.frame[:, 1:2]
    return np.stack([x, y], axis=-1), scale


def strokes(photos: Photographs) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Every stroke in three layers (outline, skin, shine), sorted from back to front.

    Returns:
        Polygons, `(n, 66, 14, 2)` in pixels, and the grey of each, `(n, 66)`.
    """
    space = skeleton(photos)
    flat, scale = framed(space, photos)
    way = space[:, ENDS] - space[:, STARTS]
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    depth = (space[:, STARTS, 2] + space[:, ENDS, 2]) / 2
    # One depth for the whole palm, so that its strokes merge into one outline.
    depth[:, :PALM] = space[:, 4:THUMB:4, 2].mean(axis=1, keepdims=True) - 0.08
    depth[:, SLEEVE] = depth[:, 0] + 1e-3

    start, end = flat[:, STARTS], flat[:, ENDS]
    width = RADII * (scale * photos.thickness)[:, None, None]
    rim = 0.04 * scale[:, None, None]
    shine = 0.3 * width[..., None] * (photos.light[:, :2] * [1.0, -1.0])[:, None, None]
    round_ = np.ones(way.shape[:2])
    round_[:, SLEEVE] = 0.0
    layers = [
        _capsules(start, end, width + rim, _folds(way)),
        _capsules(start, end, width - rim / 2, round_),
        _capsules(start + shine[:, :, 0], end + shine[:, :, 1], 0.5 * width, round_),
    ]
    n = len(way)
    greys = _shades(way, depth, photos)[..., None] * LAYERS
    polygons = np.stack(layers, axis=2).reshape(n, greys[0].size, -1, 2)
    order = (depth[..., None] + 1e-6 * np.arange(len(LAYERS))).reshape(n, -1)
    order = np.argsort(order, axis=1, kind="stable")
    polygons = np.take_along_axis(polygons, order[..., None, None], axis=1)
    greys = np.take_along_axis(greys.reshape(n, -1), order, axis=1)
    return polygons, np.clip(greys, 0, 255).astype(np.int64)


def _shades(way: Floats, depth: Floats, photos: Photographs) -> Floats:
    """Grey of each stroke: lighter toward the lamp and the viewer; one grey for palm and arm."""
    facing = np.array([0.0, 0.0, 1.0]) - way[..., 2:] * way
    facing /= np.linalg.norm(facing, axis=-1, keepdims=True) + 1e-6
    lit: Floats = np.clip(np.einsum("nsd,nd->ns", facing, photos.light), 0.0, 1.0)
    shade = 0.52 + 0.46 * lit + 0.14 * np.clip(depth, -0.6, 0.8)
    shade[:, :PALM] = shade[:, 1:PALM].mean(axis=1, keepdims=True)
    shade *= photos.tones[:, :1]
    shade[:, SLEEVE] = photos.tones[:, 3]
    return shade


def _folds(way: Floats) -> Floats:
    """How far each stroke is folded against the one before it: 0 if they continue, at most 1.

    The outline of a folded finger runs across the joint, that of a straight one does not.
    """
    folds = np.ones(way.shape[:2])
    cosine = np.sum(way[:, CONTINUED] * way[:, CONTINUED - 1], axis=-1)
    folds[:, CONTINUED] = np.clip((1.0 - cosine) / 0.6, 0.0, 1.0)
    folds[:, SLEEVE] = 0.0
    return folds


def _capsules(start: Floats, end: Floats, radii: Floats, fold: Floats) -> Floats:
    """Round-ended strokes as polygons of 14 corners; `fold` 0 cuts the first end off straight."""
    along = end - start
    along = along / (np.linalg.norm(along, axis=-1, keepdims=True) + 1e-6)
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 7)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    along, across, fold = along[..., None, :], across[..., None, :], fold[..., None, None]
    back = radii[..., :1, None] * (-cos * fold * along - sin * across)
    front = radii[..., 1:, None] * (cos * along + sin * across)
    return np.concatenate([start[..., None, :] + back, end[..., None, :] + front], axis=-2)


def paint(photos: Photographs) -> npt.NDArray[np.uint8]:
    """Paints background and strokes: `(n, 28, 28)`, flatly lit and free of noise."""
    shapes, tones = strokes(photos)
    n, side = len(shapes), SIZE * OVERSAMPLING
    polygons = (shapes.reshape(n, shapes.shape[1], -1) * OVERSAMPLING).tolist()
    grounds = np.clip(photos.tones[:, 1:3], 0, 255).astype(int).tolist()
    walls = (_half_planes(photos.backdrop) * OVERSAMPLING).tolist()
    images = np.empty((n, SIZE, SIZE), np.uint8)
    for i, greys in enumerate(tones.tolist()):
        picture = Image.new("L", (side, side), grounds[i][0])
        brush = ImageDraw.Draw(picture)
        brush.polygon(walls[i], fill=grounds[i][1])
        for polygon, grey in zip(polygons[i], greys, strict=True):
            brush.polygon(polygon, fill=grey)
        images[i] = np.asarray(picture.reduce(OVERSAMPLING))
    return images


def _half_planes(backdrop: Floats) -> Floats:
    """What lies beyond a straight edge, as `(n, 8)` corners in pixels."""
    angle, distance = backdrop.T
    away = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    beside = np.stack([-away[:, 1], away[:, 0]], axis=1)
    near, far = distance[:, None] * away, (distance[:, None] + 2 * SIZE) * away
    wide = 2 * SIZE * beside
    corners = np.stack([near - wide, near + wide, far + wide, far - wide], axis=1)
    return (SIZE / 2 + corners).reshape(len(corners), -1)


def develop(
    images: npt.NDArray[np.uint8], photos: Photographs, noise: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Lights, blurs and grains painted pictures."""
    grey = images.astype(np.float32)
    ramp = np.linspace(-0.22, 0.22, SIZE, dtype=np.float32)
    x, y = photos.light[:, 0].astype(np.float32), photos.light[:, 1].astype(np.float32)
    grey *= 1.0 + x[:, None, None] * ramp - y[:, None, None] * ramp[:, None]
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    soft = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16
    grey += photos.blur.astype(np.float32)[:, None, None] * (soft - grey)
    grey += photos.noise.astype(np.float32)[:, None, None] * noise
    grey[photos.mirrored] = grey[photos.mirrored, :, ::-1]
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)

"""Scenes: pictures of textured objects, drawn on demand, with every kind of truth.

No file and no download: scene i depends on (seed, index, size, difficulty) alone, and is the same
to the last bit on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segedu.data import outlines, textures
from segedu.data.sample import IGNORE, InstanceSample
from segedu.data.stream import Stream
from segedu.errors import InputError

CLASSES = ("ground", "disc", "square", "triangle", "star", "ring")
PANOPTIC_BASE = 1000
"""Pixels of the n-th object of class c have the panoptic id c * 1000 + n; the ground has 0."""

_OUTLINES = (outlines.disc, outlines.square, outlines.triangle, outlines.star, outlines.ring)
_TEXTURES = (
    textures.plain,
    textures.stripes,
    textures.checks,
    textures.facets,
    textures.bands,
)
_REACH = (1.0, 1.15, 1.35, 1.5, 1.2)  # so that the kinds cover about the same area
_UNSURE = 1.0  # pixels on either side of an outline in which the truth is void
_SMALLEST = 24  # visible pixels below which what is left of a hidden object is void

Picture = Float32[np.ndarray, "3 s s"]
Plane = Float32[np.ndarray, "h w"]
Colour = list[float]
Colours = tuple[Colour, Colour]


class SceneSample(InstanceSample):
    """A scene with all its truths; the four maps say the same about the same objects.

    Attributes:
        instance_map: (H, W) int64; 0 for the ground, n for the n-th object, from 1.
        panoptic: (H, W) int64; class * 1000 + n for objects, 0 for the ground, or `IGNORE`.
        boundary: (H, W) bool; pixels whose right or lower neighbour belongs to something else.
    """

    instance_map: tv_tensors.Mask
    panoptic: tv_tensors.Mask
    boundary: tv_tensors.Mask


class Scenes(Dataset[SceneSample]):
    """`length` pictures with objects of five kinds in front of one another, on uneven ground.

    Objects come in all sizes and colours, cast shadows, and hide one another. A kind prefers some
    textures but shares each with others, so neither colour nor a small patch tells the kind. The
    void ring, one pixel to either side of each outline, is `IGNORE` in `mask` and
    `panoptic`; `masks`, `boxes` and `instance_map` have no void.

    Args:
        length: Number of pictures.
        size: Height and width, in pixels; at least 16.
        seed: Chooses the pictures; use another for validation.
        difficulty: In [0, 1]: the strength of noise, blur and uneven light, and how often a kind
            of object has the texture of another.

    Raises:
        InputError: If an argument is out of its range.
    """

    classes = CLASSES

    def __init__(
        self, length: int, *, size: int = 96, seed: int = 0, difficulty: float = 0.5
    ) -> None:
        for name, value, least in (("length", length, 0), ("size", size, 16), ("seed", seed, 0)):
            if value < least:
                raise InputError(f"Scenes: {name} is {value}; expected {least} or more")
        if not 0 <= difficulty <= 1:
            raise InputError(f"Scenes: difficulty is {difficulty}; expected a number in [0, 1]")
        self.length = length
        self.size = size
        self.seed = seed
        self.difficulty = difficulty

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> SceneSample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        canvas = _draw(Stream(self.seed, index), self.size, self.difficulty)
        return _sample(canvas)


@dataclass
class _Canvas:
    """A picture in the making: what is painted, whose each pixel is, and where that is unsure."""

    picture: Picture
    owner: Int64[np.ndarray, "s s"]  # 0 for the ground, n for the n-th object
    unsure: Bool[np.ndarray, "s s"]
    kinds: list[int]  # class of object n is kinds[n - 1]


@dataclass(frozen=True)
class _Thing:
    """One object to paint: its kind, place (row, column), radius in pixels, turn and surface."""

    kind: int
    row: float
    column: float
    radius: float
    turn: tuple[float, float]  # cosine and sine
    texture: Callable[[Plane, Plane, float], Plane]
    scale: float
    colours: Colours


def _draw(stream: Stream, size: int, difficulty: float) -> _Canvas:
    """Ground, then objects from the back to the front, then light, blur and noise."""
    empty = np.zeros((size, size))
    ground = _ground_colours(stream)
    picture = _ground(stream, size, *ground)
    canvas = _Canvas(picture, empty.astype(np.int64), empty.astype(bool), [])
    light = _direction(stream)
    for _ in range(3 + stream.below(5)):
        _paint(canvas, _thing(stream, size, difficulty, ground), light)
    _photograph(canvas, stream, difficulty)
    return canvas


def _ground_colours(stream: Stream) -> Colours:
    """Two muted colours that are not far apart."""
    base, change = stream.fractions(3), stream.fractions(3)
    first = [0.22 + 0.56 * x for x in base]
    return first, [x + 0.3 * (y - 0.5) for x, y in zip(first, change, strict=True)]


def _ground(stream: Stream, size: int, first: Colour, second: Colour) -> Picture:
    """The two colours mixed by smooth hills, with a fine grain."""
    hills = textures.clouds(stream, size, octaves=4)
    hills += np.float32(0.12) * (stream.grid(size, size) - np.float32(0.5))
    return _mix(first, second, hills)


def _thing(stream: Stream, size: int, difficulty: float, ground: Colours) -> _Thing:
    """Choose an object; radii are as common from 1/12 to 1/6 of the picture as from 1/6 to 1/3."""
    kind, row, column, large, borrowed, which, scale = stream.fractions(7)
    kind_index = int(kind * len(_OUTLINES))
    surface = (
        int(which * len(_TEXTURES)) if borrowed < 0.08 * difficulty * difficulty else kind_index
    )
    radius = size * 0.095 * _doublings(1.7 * large) * _REACH[kind_index]
    return _Thing(
        kind=kind_index + 1,
        row=row * size,
        column=column * size,
        radius=radius,
        turn=_direction(stream),
        texture=_TEXTURES[surface],
        scale=radius / (size * (0.055 + 0.025 * scale)),
        colours=_colours(stream, ground),
    )


def _paint(canvas: _Canvas, thing: _Thing, light: tuple[float, float]) -> None:
    """Darken what lies in the object's shadow, then cover what lies under the object."""
    window, down, right = _window(thing, canvas.owner.shape[0])
    if not down.size or not right.size:
        return
    cosine, sine = (np.float32(x / thing.radius) for x in thing.turn)
    outline = _OUTLINES[thing.kind - 1]

    def distance(rows: Plane, columns: Plane) -> tuple[Plane, Plane, Plane]:
        u, v = columns * cosine + rows * sine, rows * cosine - columns * sine
        return u, v, outline(u, v) * np.float32(thing.radius)

    height = 0.22 * thing.radius + 1
    u, v, outside = distance(
        down + np.float32(height * light[0]), right + np.float32(height * light[1])
    )
    outside = np.maximum(outside, outlines.disc(u, v) * np.float32(thing.radius))
    shadow = np.clip(np.float32(0.5) - outside / np.float32(height), 0, 1)
    canvas.picture[:, *window] *= 1 - np.float32(0.4) * shadow

    u, v, outside = distance(down, right)
    cover = np.clip(np.float32(0.5) - outside, 0, 1)
    shade = 1 + np.float32(0.22) * (
        right * np.float32(light[1] / thing.radius) + down * np.float32(light[0] / thing.radius)
    )
    surface = _mix(*thing.colours, thing.texture(u, v, thing.scale)) * shade
    canvas.picture[:, *window] += cover * (surface - canvas.picture[:, *window])

    canvas.kinds.append(thing.kind)
    canvas.owner[window][outside < 0] = len(canvas.kinds)
    canvas.unsure[window] = (outside > -_UNSURE) & (canvas.unsure[window] | (outside < _UNSURE))


def _photograph(canvas: _Canvas, stream: Stream, difficulty: float) -> None:
    """Uneven light, a blur of up to a pixel and noise, as strong as the difficulty says."""
    picture = canvas.picture
    strength = difficulty * stream.between(0.2, 0.9)
    uneven = textures.clouds(stream, picture.shape[1], octaves=2) - np.float32(0.5)
    picture *= 1 + np.float32(1.3 * strength) * uneven
    _blur(picture, weight=0.5 * strength)
    picture += np.float32(0.06 * strength) * stream.noise(*picture.shape)


def _blur(picture: Picture, weight: float) -> None:
    """Move each pixel towards the mean of its neighbours, along rows and then along columns."""
    for axis in (1, 2):
        padded = np.pad(picture, [(0, 0), *((int(a == axis),) * 2 for a in (1, 2))], mode="edge")
        before, after = (
            padded[:, :-2] if axis == 1 else padded[:, :, :-2],
            padded[:, 2:] if axis == 1 else padded[:, :, 2:],
        )
        picture += np.float32(weight) * ((before + after) * np.float32(0.5) - picture)


def _window(thing: _Thing, size: int) -> tuple[tuple[slice, slice], Plane, Plane]:
    """The part that the object and its shadow can touch, as slices and as offsets."""
    reach = 1.5 * thing.radius + 3
    rows, columns = (
        slice(max(0, int(centre - reach)), max(0, min(size, int(centre + reach) + 1)))
        for centre in (thing.row, thing.column)
    )
    pixels = _pixel_centres(size)
    down = (pixels[rows] - np.float32(thing.row))[:, None]
    right = (pixels[columns] - np.float32(thing.column))[None]
    shape = (down.shape[0], right.shape[1])
    return (rows, columns), np.broadcast_to(down, shape), np.broadcast_to(right, shape)


@cache
def _pixel_centres(size: int) -> Float32[np.ndarray, " s"]:
    return np.arange(size, dtype=np.float32) + np.float32(0.5)


def _direction(stream: Stream) -> tuple[float, float]:
    """A point on the unit circle, from a half angle's tangent, so that no sine is needed."""
    t, side = stream.fractions(2)
    t = 2 * t - 1
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return (cosine, sine) if side < 0.5 else (-cosine, -sine)


def _doublings(x: float) -> float:
    """2 to the power x, x >= 0; straight between whole powers, so that no `pow` is asked."""
    whole = int(x)
    return float(1 << whole) * (1 + x - whole)


def _colours(stream: Stream, ground: Colours) -> Colours:
    """Of six colours the one farthest from the ground, and a dark or a light tone of it."""
    drawn = [[0.04 + 0.92 * x for x in stream.fractions(3)] for _ in range(6)]
    apart = [min(_distance(colour, g) for g in ground) for colour in drawn]
    first = drawn[apart.index(max(apart))]
    lift = 0.0 if sum(first) > 1.5 else 0.65
    return first, [lift + 0.35 * x for x in first]


def _distance(a: Colour, b: Colour) -> float:
    """Mean absolute difference of the channels."""
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / 3


def _mix(first: Colour, second: Colour, share: Plane) -> Float32[np.ndarray, "3 h w"]:
    """The first colour where `share` is 0, the second where it is 1."""
    a, b = (np.array(colour, dtype=np.float32)[:, None, None] for colour in (first, second))
    return a + share * (b - a)


def _sample(canvas: _Canvas) -> SceneSample:
    """Everything that can be said of a finished canvas, as tensors."""
    owner, unsure = canvas.owner, canvas.unsure.copy()
    area = np.bincount(owner.ravel(), minlength=len(canvas.kinds) + 1)
    kept = [n for n in range(1, len(area)) if area[n] >= _SMALLEST]
    unsure |= (area[owner] < _SMALLEST) & (owner > 0)
    number = np.zeros(len(area), dtype=np.int64)
    number[kept] = np.arange(1, len(kept) + 1)
    instance_map = number[owner]
    kinds = np.array([0, *(canvas.kinds[n - 1] for n in kept)], dtype=np.int64)
    mask = kinds[instance_map]
    panoptic = mask * PANOPTIC_BASE + instance_map
    mask[unsure] = panoptic[unsure] = IGNORE
    masks = instance_map == np.arange(1, len(kept) + 1)[:, None, None]
    return {
        "image": _quantised(canvas.picture),
        "mask": tv_tensors.Mask(torch.from_numpy(mask)),
        "boxes": tv_tensors.BoundingBoxes(
            torch.from_numpy(_boxes(masks)),
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=owner.shape,
        ),
        "labels": torch.from_numpy(kinds[1:]),
        "masks": tv_tensors.Mask(torch.from_numpy(masks)),
        "instance_map": tv_tensors.Mask(torch.from_numpy(instance_map)),
        "panoptic": tv_tensors.Mask(torch.from_numpy(panoptic)),
        "boundary": tv_tensors.Mask(torch.from_numpy(_boundary(instance_map))),
    }


def _quantised(picture: Picture) -> tv_tensors.Image:
    """Rounded to the 256 levels of a PNG file, so that a saved scene is the same scene."""
    levels: UInt8[np.ndarray, "3 s s"] = np.rint(picture.clip(0, 1) * np.float32(255)).astype(
        np.uint8
    )
    return tv_tensors.Image(torch.from_numpy(levels) / 255)


def _boxes(masks: Bool[np.ndarray, "n s s"]) -> Float32[np.ndarray, "n 4"]:
    """The smallest box around each mask, XYXY, outer edges of its pixels."""
    size = masks.shape[1]
    columns = np.asarray(masks.any(axis=1))
    rows = np.asarray(masks.any(axis=2))
    x1, y1 = columns.argmax(axis=1), rows.argmax(axis=1)
    x2, y2 = size - columns[:, ::-1].argmax(axis=1), size - rows[:, ::-1].argmax(axis=1)
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float32).reshape(-1, 4)


def _boundary(instance_map: Int64[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    """Pixels whose right or lower neighbour belongs to something else."""
    boundary = np.zeros(instance_map.shape, dtype=bool)
    boundary[:, :-1] |= instance_map[:, :-1] != instance_map[:, 1:]
    boundary[:-1] |= instance_map[:-1] != instance_map[1:]
    return boundary

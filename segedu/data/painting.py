"""Paint a scene from a stream of random numbers, and note whose each pixel is.

Equal streams give equal pictures, to the last bit, on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32, Int64

from segedu.data import outlines, textures
from segedu.data.stream import Stream

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

Picture = Float32[np.ndarray, "3 s s"]
Plane = Float32[np.ndarray, "h w"]
Colour = list[float]
Colours = tuple[Colour, Colour]


@dataclass
class Canvas:
    """A picture in the making: what is painted, whose each pixel is, and where that is unsure.

    Attributes:
        picture: Red, green and blue; near [0, 1], but light and noise may lead out of it.
        owner: 0 for the ground, n for the n-th object.
        unsure: Whether a pixel lies less than one pixel from an outline that can be seen.
        kinds: The class of object n is kinds[n - 1], 1 for a disc to 5 for a ring.
    """

    picture: Picture
    owner: Int64[np.ndarray, "s s"]
    unsure: Bool[np.ndarray, "s s"]
    kinds: list[int]


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


def draw(stream: Stream, size: int, difficulty: float) -> Canvas:
    """Paint the ground, then objects from the back to the front, then light, blur and noise.

    Args:
        stream: Decides all of it.
        size: Height and width, in pixels.
        difficulty: In [0, 1]; see `segedu.data.scenes.Scenes`.
    """
    empty = np.zeros((size, size))
    ground = _ground_colours(stream)
    picture = _ground(stream, size, *ground)
    canvas = Canvas(picture, empty.astype(np.int64), empty.astype(bool), [])
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


def _paint(canvas: Canvas, thing: _Thing, light: tuple[float, float]) -> None:
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


def _photograph(canvas: Canvas, stream: Stream, difficulty: float) -> None:
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

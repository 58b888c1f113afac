"""Surfaces for the scenes: a number in [0, 1] for each point, to mix two colours by.

`(u, v)` are an object's own coordinates, in units of its radius, so that a texture turns and grows
with its object. As in `outlines`, every operation rounds alike on every processor.
"""

from functools import cache

import numpy as np
from jaxtyping import Float32, Int64

from segedu.data.outlines import FIVE_DIRECTIONS
from segedu.data.stream import Stream

Plane = Float32[np.ndarray, "h w"]


def plain(u: Plane, v: Plane, scale: float) -> Plane:
    """No pattern: one colour in the middle, the other at the rim, like a ball."""
    del scale
    return np.minimum(np.float32(1.1) * (u * u + v * v), np.float32(1))


def stripes(u: Plane, v: Plane, scale: float) -> Plane:
    """Bands across u."""
    del v
    return _wave(u * np.float32(scale))


def checks(u: Plane, v: Plane, scale: float) -> Plane:
    """A chequerboard."""
    a, b = _wave(u * np.float32(scale)), _wave(v * np.float32(scale))
    return a + b - 2 * a * b


def facets(u: Plane, v: Plane, scale: float) -> Plane:
    """Ten wedges, light and dark in turn, as on the star of a compass."""
    del scale
    best = across = np.full_like(u, -np.inf)
    for x, y in FIVE_DIRECTIONS:
        along = u * np.float32(x) + v * np.float32(y)
        nearer = along > best
        best = np.where(nearer, along, best)
        across = np.where(nearer, v * np.float32(x) - u * np.float32(y), across)
    return np.clip(across * np.float32(8) + np.float32(0.5), 0, 1)


def bands(u: Plane, v: Plane, scale: float) -> Plane:
    """Circles around the centre."""
    return _wave(np.sqrt(u * u + v * v) * np.float32(scale))


def clouds(stream: Stream, size: int, octaves: int) -> Plane:
    """Smooth random hills, (size, size); each octave is twice as fine and half as high.

    Source: value noise; Ebert et al., "Texturing and Modeling", 3rd ed., 2003, chapter 2.
    """
    total = np.zeros((size, size), dtype=np.float32)
    weight = 1.0
    for octave in range(octaves):
        total += np.float32(weight) * _magnify(stream.grid(2 << octave, 2 << octave), size)
        weight /= 2
    return total * np.float32(1 / (2 - 2 * weight))


def _wave(x: Plane) -> Plane:
    """A soft square wave of period 1, in [0, 1]."""
    return np.clip(np.float32(4) * np.abs(_saw(x)) - np.float32(0.5), 0, 1)


def _saw(x: Plane) -> Plane:
    """The distance to the nearest whole number below or above, in [-0.5, 0.5]."""
    return x - np.rint(x)


def _magnify(coarse: Plane, size: int) -> Float32[np.ndarray, "{size} {size}"]:
    """`coarse` drawn `size` pixels wide, smoothly between its points."""
    before, weight = _places(len(coarse), size)
    left, right = coarse[:, before], coarse[:, before + 1]
    wide = left + weight * (right - left)
    step = np.diff(wide, axis=0)  # the few rows are widened first: whole rows are quick to gather
    return wide[before] + weight[:, None] * step[before]


@cache
def _places(points: int, size: int) -> tuple[Int64[np.ndarray, " s"], Float32[np.ndarray, " s"]]:
    """For each pixel the point before it, and how far it is on the way to the next, eased."""
    place = (np.arange(size, dtype=np.float64) + 0.5) / size * (points - 1)
    before = np.minimum(place.astype(np.int64), points - 2)
    t = place - before
    return before, (t * t * (3 - 2 * t)).astype(np.float32)

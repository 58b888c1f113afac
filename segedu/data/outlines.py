"""The five outlines of the scenes' objects, as distances from a point to the outline.

Only `+ - * /`, square roots, minima and maxima: these round alike on every processor, so a scene
is the same picture everywhere. `(u, v)` are an object's own coordinates, in units of its radius.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

Plane = Float32[np.ndarray, "h w"]
Outline = Callable[[Plane, Plane], Plane]

FIVE_DIRECTIONS = (  # unit vectors every 72 degrees
    (1.0, 0.0),
    (0.30901699437494745, 0.9510565162951535),
    (-0.8090169943749475, 0.5877852522924731),
    (-0.8090169943749475, -0.5877852522924731),
    (0.30901699437494745, -0.9510565162951535),
)
THREE_DIRECTIONS = ((1.0, 0.0), (-0.5, 0.8660254037844386), (-0.5, -0.8660254037844386))
STAR_INRADIUS = 0.30901699437494745
"""Distance of a five-pointed star's sides from its centre, in units of its points' distance."""

STAR_BODY = 0.52
"""Radius of the disc in the middle of a star, which makes it a little plump."""


def disc(u: Plane, v: Plane) -> Plane:
    """Distance to the unit circle, negative inside."""
    return np.sqrt(u * u + v * v) - np.float32(1)


def square(u: Plane, v: Plane) -> Plane:
    """Distance to a square with its corners on the unit circle (a lower bound outside a corner)."""
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.5**0.5)


def triangle(u: Plane, v: Plane) -> Plane:
    """Distance to an equilateral triangle with its corners on the unit circle."""
    return np.maximum.reduce(_sides(u, v, THREE_DIRECTIONS)) - np.float32(0.5)


def star(u: Plane, v: Plane) -> Plane:
    """Distance to a five-pointed star with its points on the unit circle and a round body.

    A point is inside the bare star if it lies behind at least four of the five lines that
    its sides are on: so the second largest of the five distances decides.
    """
    largest = second = np.full_like(u, -np.inf)
    for side in _sides(u, v, FIVE_DIRECTIONS):
        second = np.maximum(second, np.minimum(largest, side))
        largest = np.maximum(largest, side)
    points = second - np.float32(STAR_INRADIUS)
    return np.minimum(points, disc(u, v) + np.float32(1 - STAR_BODY))


def ring(u: Plane, v: Plane) -> Plane:
    """Distance to a ring between the circles of radius 0.55 and 1."""
    return np.abs(np.sqrt(u * u + v * v) - np.float32(0.775)) - np.float32(0.225)


def _sides(u: Plane, v: Plane, directions: Sequence[tuple[float, float]]) -> list[Plane]:
    """How far each point lies in each of the directions."""
    return [u * np.float32(x) + v * np.float32(y) for x, y in directions]

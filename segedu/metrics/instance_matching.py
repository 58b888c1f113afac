"""Which detection finds which object, at every IoU threshold and for every range of areas at once.

Chapter 19 derives the rule for one threshold. Here the ten thresholds and the four ranges are forty
matchings, one bit of a whole number each: bit 10 * range + threshold.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

THRESHOLDS: Float64[np.ndarray, " t"] = np.linspace(0.5, 0.95, 10)
"""The IoU from which a detection may count as a hit: 0.50, 0.55, ..., 0.95."""

AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""The ranges of areas, in pixels; both ends belong to a range."""

_ONE_AREA = (1 << len(THRESHOLDS)) - 1
_EACH_AREA = sum(1 << len(THRESHOLDS) * number for number in range(len(AREAS)))
EVERY = _ONE_AREA * _EACH_AREA
"""All forty bits."""

Bits = Int64[np.ndarray, " _"]
Whole = Int64[np.ndarray, " _"]


@dataclass(frozen=True)
class Pairs:
    """Detections and objects of one class that overlap, in any order.

    Attributes:
        detection: (P,) index of the detection; 0 is the one of the highest score.
        truth: (P,) index of the object.
        iou: (P,) their IoU; only those of at least 0.5 matter.
    """

    detection: Whole
    truth: Whole
    iou: Float64[np.ndarray, " p"]


def is_bit(bits: Bits, area: int) -> Bool[np.ndarray, "t n"]:
    """For one range of areas, whether each number has the bit of each threshold."""
    shift = np.arange(len(THRESHOLDS))[:, None] + len(THRESHOLDS) * area
    return (bits >> shift) & 1 == 1


def outside(areas: Float64[np.ndarray, " n"]) -> Bits:
    """For each area, the bits of the ranges that it does not lie in."""
    bits = np.zeros(len(areas), dtype=np.int64)
    for number, (low, high) in enumerate(AREAS.values()):
        is_out = (areas < low) | (areas > high)
        bits |= np.where(is_out, _ONE_AREA << len(THRESHOLDS) * number, 0)
    return bits


def match_detections(
    pairs: Pairs, detections: int, ignored: Bits, crowd: Bool[np.ndarray, " g"]
) -> tuple[Bits, Bits]:
    """The bits in which each detection finds an object, and those in which that one is ignored.

    The detections choose in turn, the highest score first. Each takes, of the objects that are
    still free and that it overlaps enough, the one with the largest IoU, the last of equals; it
    takes an ignored one only if there is no other. A crowd stays free, however often it is taken.

    Args:
        pairs: Which overlap, and how much.
        detections: Their number.
        ignored: For each object the bits in which it is ignored: it is a crowd, or its area lies
            outside the range.
        crowd: Whether each object is a crowd.
    """
    found, found_ignored, free = [0] * detections, [0] * detections, [EVERY] * len(crowd)
    for d, g, is_ignored, bits in _choices(pairs, ignored):
        taken = bits & free[g] & ~found[d]
        found[d] |= taken
        if is_ignored:
            found_ignored[d] |= taken
        if not crowd[g]:
            free[g] &= ~taken
    return np.array(found, dtype=np.int64), np.array(found_ignored, dtype=np.int64)


def _choices(pairs: Pairs, ignored: Bits) -> list[tuple[int, int, bool, int]]:
    """What is offered, in the order of choice: detection, object, whether ignored, in which bits.

    Each pair stands twice: where its object counts, and where it is ignored.
    """
    bit = np.arange(len(THRESHOLDS))
    passed = ((pairs.iou[:, None] >= THRESHOLDS) << bit).sum(axis=1) * _EACH_AREA
    out = ignored[pairs.truth]
    bits = np.concatenate([passed & ~out, passed & out])
    is_ignored = np.repeat([False, True], len(passed))
    d, g, iou = (np.tile(x, 2) for x in (pairs.detection, pairs.truth, pairs.iou))
    order = np.lexsort((-g, -iou, is_ignored, d))
    order = order[bits[order] > 0]
    return list(zip(*(x[order].tolist() for x in (d, g, is_ignored, bits)), strict=True))

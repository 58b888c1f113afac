"""Intersections of masks by their runs of pixels; chapter 19 uses them.

A mask of an object is mostly background: its runs, COCO's column by column, are far fewer numbers
than its pixels, and two masks need to be compared only where their boxes meet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from segedu.data import rle
from segedu.errors import InputError

Whole = Int64[np.ndarray, " _"]


@dataclass(frozen=True)
class Runs:
    """N masks of one size, as the runs of their pixels read column by column.

    Attributes:
        starts: (R,) first position of each run; those of mask 0 first, each mask's in order.
        ends: (R,) position after the last of each run.
        first: (N + 1,) where each mask's runs begin in `starts`, and R.
        size: Height and width; (0, 0) if there is no mask that could tell.
    """

    starts: Whole
    ends: Whole
    first: Whole
    size: tuple[int, int]

    @property
    def areas(self) -> Whole:
        """(N,) pixels of each mask."""
        return np.diff(np.concatenate([[0], (self.ends - self.starts).cumsum()])[self.first])

    def boxes(self) -> Int64[np.ndarray, "n 4"]:
        """The smallest box around each mask, XYXY, outer edges; (0, 0, 0, 0) around none."""
        boxes = np.zeros((len(self.first) - 1, 4), dtype=np.int64)
        has = np.diff(self.first) > 0
        if has.any():
            height, begin = self.size[0], self.first[:-1][has]
            left, right = self.starts // height, (self.ends - 1) // height
            is_short = left == right  # a run that goes on in the next column touches both edges
            top = np.where(is_short, self.starts % height, 0)
            bottom = np.where(is_short, (self.ends - 1) % height + 1, height)
            boxes[has, 0] = left[begin]
            boxes[has, 1] = np.minimum.reduceat(top, begin)
            boxes[has, 2] = right[self.first[1:][has] - 1] + 1
            boxes[has, 3] = np.maximum.reduceat(bottom, begin)
        return boxes


def runs_of(masks: Any) -> Runs:
    """The runs of masks that are given as pixels, or as COCO's run lengths.

    Args:
        masks: (N, H, W) bool or uint8, a tensor or an array; or a list of dicts with `size` (height
            and width) and `counts`, a compressed string or a list.

    Raises:
        InputError: If they are neither, or differ in size.
    """
    if isinstance(masks, Sequence):
        return _runs_of_lengths(masks)
    pixels = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    if pixels.ndim != 3 or pixels.dtype.kind not in {"b", "u"}:
        raise InputError(
            f"masks are of shape {pixels.shape} and kind {pixels.dtype}; expected (N, H, W) bool, "
            "such as probabilities[:, 0] > 0.5, or a list of COCO's run lengths"
        )
    count, height, width = pixels.shape
    line = height * width + 1  # each mask after a pixel of background, so that no run goes on
    padded = np.zeros(count * line + 1, dtype=np.bool_)
    inside = padded[:-1].reshape(count, line)[:, 1:].reshape(count, width, height)
    inside[...] = pixels.transpose(0, 2, 1)
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    starts, ends = changes[0::2], changes[1::2]
    owner = starts // line
    first = np.searchsorted(owner, np.arange(count + 1))
    return Runs(starts - owner * line, ends - owner * line, first, (height, width))


def mask_iou(
    detected: Any, true: Any, crowd: Bool[np.ndarray, " g"] | None = None
) -> Float64[np.ndarray, "d g"]:
    """IoU of each detected mask with each true one; 0 where both are empty.

    With a crowd, it is the share of the detection that lies inside the crowd.

    Args:
        detected: D masks, as `runs_of` takes them.
        true: G masks, of the same size.
        crowd: (G,) whether a true "object" is a crowd; none is, by default.

    Raises:
        InputError: If the masks are of different sizes.
    """
    a, b = runs_of(detected), runs_of(true)
    is_crowd = np.zeros(len(b.first) - 1, dtype=bool) if crowd is None else np.asarray(crowd)
    ious = np.zeros((len(a.first) - 1, len(b.first) - 1))
    d, g = np.nonzero(np.ones_like(ious))
    ious[d, g] = iou_of_pairs(a, b, is_crowd, (d, g), least=0)
    return ious


def iou_of_pairs(
    detected: Runs, true: Runs, crowd: Bool[np.ndarray, " g"], pairs: tuple[Whole, Whole],
    least: float,
) -> Float64[np.ndarray, " p"]:  # fmt: skip
    """IoU of detection `pairs[0][p]` and object `pairs[1][p]`; 0 in place of most below `least`.

    Raises:
        InputError: If the masks are of different sizes.
    """
    if len(detected.first) > 1 and len(true.first) > 1 and detected.size != true.size:
        raise InputError(
            f"detected masks are of size {detected.size}, the true ones of {true.size}; expected "
            "the same height and width; resize the detections to their picture"
        )
    d, g = pairs
    area, true_area = detected.areas[d], true.areas[g]
    box, true_box = detected.boxes()[d], true.boxes()[g]
    sides = np.minimum(box[:, 2:], true_box[:, 2:]) - np.maximum(box[:, :2], true_box[:, :2])
    most = np.minimum(sides.clip(min=0).prod(axis=1), np.minimum(area, true_area))
    bound = most / np.maximum(_union(most, area, true_area, crowd[g]), 1)
    may = np.flatnonzero((bound >= least) & (most > 0))
    common = np.zeros(len(d), dtype=np.int64)
    common[may] = intersections(detected, true, (d[may], g[may]))
    return common / np.maximum(_union(common, area, true_area, crowd[g]), 1)


def intersections(a: Runs, b: Runs, pairs: tuple[Whole, Whole]) -> Whole:
    """Pixels that mask `pairs[0][p]` of `a` and mask `pairs[1][p]` of `b` have in common.

    Where a run of the first begins and where it ends, it is asked how many pixels the second has up
    to there: the difference is what they share. All pairs are laid one after the other.
    """
    line = a.size[0] * a.size[1]
    pair, starts, ends = _laid_out(a, pairs[0], line)
    _, other_starts, other_ends = _laid_out(b, pairs[1], line)
    total = np.concatenate([[0], (other_ends - other_starts).cumsum()])
    last_end = np.concatenate([[0], other_ends])

    def up_to(place: Whole) -> Whole:
        runs = np.searchsorted(other_starts, place, side="right")
        return total[runs] - np.maximum(last_end[runs] - place, 0)

    shared = np.concatenate([[0], (up_to(ends) - up_to(starts)).cumsum()])
    bounds = np.searchsorted(pair, np.arange(len(pairs[0]) + 1))
    return np.diff(shared[bounds])


def _laid_out(runs: Runs, which: Whole, line: int) -> tuple[Whole, Whole, Whole]:
    """The runs of mask `which[p]` for each pair p: the pair, and start and end behind p lines."""
    begin = runs.first[which]
    count = runs.first[which + 1] - begin
    pair = np.repeat(np.arange(len(which)), count)
    index = np.arange(len(pair)) + np.repeat(begin - (count.cumsum() - count), count)
    return pair, runs.starts[index] + pair * line, runs.ends[index] + pair * line


def _union(common: Whole, area: Whole, true_area: Whole, crowd: Bool[np.ndarray, " p"]) -> Whole:
    """Pixels in either mask; with a crowd, the detection's alone."""
    return np.where(crowd, area, area + true_area - common)


def _runs_of_lengths(masks: Sequence[Mapping[str, Any]]) -> Runs:
    """`runs_of` for COCO's dicts."""
    sizes = {tuple(int(side) for side in mask["size"]) for mask in masks}
    if len(sizes) > 1:
        raise InputError(f"masks are of sizes {sorted(sizes)}; expected those of one picture")
    height, width = sizes.pop() if sizes else (0, 0)
    texts = [mask["counts"] for mask in masks]
    if any(isinstance(text, list) for text in texts):
        texts = [rle.to_string(text) if isinstance(text, list) else text for text in texts]
    counts, lengths = rle.from_strings(texts)
    until = lengths.cumsum()
    total = np.concatenate([[0], counts.cumsum()])
    if (np.diff(total[until], prepend=0) != height * width).any():
        raise InputError(
            f"run lengths do not sum to {height} x {width} pixels; check the size, which is height "
            "first, and that the counts are whole"
        )
    place = np.arange(len(counts)) - np.repeat(until - lengths, lengths)
    is_run = (place % 2 == 1) & (counts > 0)
    owner = np.repeat(np.arange(len(masks)), lengths)[is_run]
    ends = total[1:][is_run] - owner * height * width
    first = np.searchsorted(owner, np.arange(len(masks) + 1))
    return Runs(ends - counts[is_run], ends, first, (height, width))

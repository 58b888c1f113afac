"""One picture's detections and objects, read from what a model and a data set give."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from segedu.errors import InputError
from segedu.metrics.instance_matching import THRESHOLDS, Pairs
from segedu.metrics.mask_overlap import iou_of_pairs, runs_of

Whole = Int64[np.ndarray, " _"]
Numbers = Float64[np.ndarray, " _"]


@dataclass(frozen=True)
class Picture:
    """D detections in falling order of their scores, G objects, and how they overlap.

    Attributes:
        labels: (D,) class of each detection.
        scores: (D,)
        rank: (D,) how many detections of its class stand before it.
        areas: (D,) in pixels.
        true_labels: (G,) class of each object.
        true_areas: (G,) in pixels.
        crowd: (G,) whether it is a crowd.
        pairs: Those of one class with an IoU of at least 0.5.
    """

    labels: Whole
    scores: Numbers
    rank: Whole
    areas: Numbers
    true_labels: Whole
    true_areas: Numbers
    crowd: Bool[np.ndarray, " g"]
    pairs: Pairs


def read_picture(
    detections: Mapping[str, Any], truth: Mapping[str, Any], iou: str, most: int
) -> Picture:
    """The picture with, of each class, the `most` detections of the highest scores.

    Args:
        detections: As `InstanceAP.update` takes them.
        truth: The same.
        iou: "mask" or "box".
        most: 1 or more.

    Raises:
        InputError: If an entry is missing or has another length, or a score is no number.
    """
    scores = _entry(detections, "detections", "scores", None)
    labels = _entry(detections, "detections", "labels", len(scores)).astype(np.int64)
    true_labels = _entry(truth, "truth", "labels", None).astype(np.int64)
    crowd = np.zeros(len(true_labels), dtype=bool)
    if "iscrowd" in truth:
        crowd = _entry(truth, "truth", "iscrowd", len(crowd)).astype(bool)
    if np.isnan(scores).any():
        raise InputError("detections: a score is nan; expected numbers that can be put in order")
    order, rank = _best(labels, scores, most)
    d, g = np.nonzero(labels[order][:, None] == true_labels)
    regions = _Masks if iou == "mask" else _Boxes
    ours = regions(detections, "detections", len(labels))
    true = regions(truth, "truth", len(true_labels))
    overlap = ours.iou(true, crowd, (order[d], g))
    enough = overlap >= THRESHOLDS[0]
    true_areas = true.areas
    if "area" in truth:
        true_areas = _entry(truth, "truth", "area", len(true_areas))
    return Picture(
        labels[order], scores[order], rank, ours.areas[order], true_labels, true_areas, crowd,
        Pairs(d[enough], g[enough], overlap[enough]),
    )  # fmt: skip


def _best(labels: Whole, scores: Numbers, most: int) -> tuple[Whole, Whole]:
    """Which detections are kept, in falling order of score, and their ranks within their class."""
    by_score = np.argsort(-scores, kind="stable")
    by_class = by_score[np.argsort(labels[by_score], kind="stable")]
    ordered = labels[by_class]
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    order = by_score[rank[by_score] < most]
    return order, rank[order]


class _Masks:
    """Regions that are told by their pixels."""

    def __init__(self, given: Mapping[str, Any], name: str, count: int) -> None:
        self.runs = runs_of(_need(given, name, "masks"))
        self.areas = self.runs.areas.astype(np.float64)
        _need_length(name, "masks", len(self.areas), count)

    def iou(self, true: Any, crowd: Bool[np.ndarray, " g"], pairs: tuple[Whole, Whole]) -> Numbers:
        """IoU of each pair, of a region here and one in `true`."""
        return iou_of_pairs(self.runs, true.runs, crowd, pairs, least=float(THRESHOLDS[0]))


class _Boxes:
    """Regions that are told by a corner and two sides, as COCO's boxes are."""

    def __init__(self, given: Mapping[str, Any], name: str, count: int) -> None:
        boxes = _entry(given, name, "boxes", count)
        boxes = boxes if boxes.size else boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise InputError(f"boxes are of shape {boxes.shape}; expected (N, 4), XYXY in pixels")
        self.first = boxes[:, :2]
        self.sides = boxes[:, 2:] - boxes[:, :2]
        self.areas = self.sides.prod(axis=1)

    def iou(self, true: Any, crowd: Bool[np.ndarray, " g"], pairs: tuple[Whole, Whole]) -> Numbers:
        """IoU of each pair, of a region here and one in `true`."""
        d, g = pairs
        low = np.maximum(self.first[d], true.first[g])
        high = np.minimum(self.first[d] + self.sides[d], true.first[g] + true.sides[g])
        common = (high - low).clip(min=0).prod(axis=1)
        union = np.where(crowd[g], self.areas[d], self.areas[d] + true.areas[g] - common)
        return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _need(given: Mapping[str, Any], name: str, key: str) -> Any:
    """The entry of that name."""
    if key not in given:
        raise InputError(f"{name} have no {key!r}, only {sorted(given)}; see InstanceAP.update")
    return given[key]


def _entry(
    given: Mapping[str, Any], name: str, key: str, length: int | None
) -> Float64[np.ndarray, "..."]:
    """The entry as an array, of that length; of any length for None."""
    value = _need(given, name, key)
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if length is not None:
        _need_length(name, key, len(array), length)
    return array.astype(np.float64)


def _need_length(name: str, key: str, found: int, expected: int) -> None:
    if found != expected:
        raise InputError(f"{name} have {found} {key!r}; expected {expected}, one for each")

"""Precision and recall as one walks down a list of detections; chapter 19 derives them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

RECALLS: Float64[np.ndarray, " r"] = np.linspace(0, 1, 101)
"""The recalls at which precision is read: 0, 0.01, ..., 1."""

Numbers = Float64[np.ndarray, " _"]


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one class at one IoU threshold, detection after detection.

    Attributes:
        score: (D,) of the detections, highest first; those that are ignored are left out.
        recall: (D,) share of the objects that the detections up to this one found.
        precision: (D,) share of the detections up to this one that found an object.
        interpolated: (101,) for each recall of 0, 0.01, ..., 1 the highest precision at that recall
            or a higher one; 0 where no such recall is reached.
    """

    score: Numbers
    recall: Numbers
    precision: Numbers
    interpolated: Numbers

    @property
    def ap(self) -> float:
        """Average precision: the mean of `interpolated`."""
        return float(self.interpolated.mean())


@dataclass(frozen=True)
class ClassScore:
    """The detections of one class in one range of areas, the highest score first.

    Attributes:
        label: The class.
        score: (D,) of each.
        hits: (T, D) whether it found an object, at each IoU threshold.
        counts: (T, D) whether it is counted at all; a hit always is.
        objects: How many there were to find, 1 or more.
    """

    label: int
    score: Numbers
    hits: Bool[np.ndarray, "t d"]
    counts: Bool[np.ndarray, "t d"]
    objects: int

    def recall(self) -> Numbers:
        """(T,) share of the objects that were found, at each threshold."""
        return self.hits.sum(axis=1) / self.objects

    def precision(self) -> Float64[np.ndarray, "t 101"]:
        """The interpolated precision of `Curve`, at each threshold."""
        hits, counted = self.hits.cumsum(axis=1), self.counts.cumsum(axis=1)
        recall = hits / self.objects
        precision = _never_rising(hits / np.maximum(counted, 1))
        rows = zip(recall, precision, strict=True)
        return np.stack([_read(recall, precision) for recall, precision in rows])

    def curve(self, threshold: int) -> Curve:
        """Precision and recall at one threshold, by its number."""
        counts = self.counts[threshold]
        hits = self.hits[threshold, counts].cumsum()
        precision = hits / np.arange(1, len(hits) + 1)
        recall = hits / self.objects
        read = _read(recall, _never_rising(precision))
        return Curve(self.score[counts], recall, precision, read)


def _never_rising(precision: Float64[np.ndarray, "*rows d"]) -> Float64[np.ndarray, "*rows d"]:
    """At each detection the highest precision from there on."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def _read(recall: Numbers, precision: Numbers) -> Numbers:
    """The precision where each of `RECALLS` is reached first; 0 where it is not."""
    return np.append(precision, 0.0)[np.searchsorted(recall, RECALLS, side="left")]

"""Average precision and recall of detected objects as COCO has them; chapter 19 derives them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch.distributed as dist
from jaxtyping import Float64, Int64

from segedu.errors import InputError
from segedu.metrics.instance_matching import (
    AREAS,
    EVERY,
    THRESHOLDS,
    is_bit,
    match_detections,
    outside,
)
from segedu.metrics.instance_pictures import read_picture
from segedu.metrics.precision_recall import ClassScore, Curve

Whole = Int64[np.ndarray, " _"]
Numbers = Float64[np.ndarray, " _"]


class InstanceAP:
    """COCO's average precision and recall of objects, from pictures that come one after the other.

    Scores are compared over all pictures. Equal ones stay in the order in which they came: pictures
    in the order of `update`, and a picture's in the order given.

    Args:
        iou: "mask" to compare pixels, "box" to compare boxes.
        most: How many detections of a class count in a picture, those with the highest scores:
            for the first two ARs, and for everything else. COCO has (1, 10, 100).

    Raises:
        InputError: If `iou` is neither, or `most` does not rise.

    Source:
        Lin et al. 2014, Microsoft COCO, https://arxiv.org/abs/1405.0312;
        https://cocodataset.org/#detection-eval. Equal to pycocotools' COCOeval.

    Example:
        >>> metric = InstanceAP(iou="box")
        >>> truth = {"boxes": [[0, 0, 10, 10]], "labels": [1]}
        >>> metric.update({**truth, "scores": [0.9]}, truth)
        >>> metric.summary()["AP"], metric.summary()["APl"]
        (1.0, -1.0)
    """

    def __init__(
        self, iou: Literal["mask", "box"] = "mask", *, most: tuple[int, int, int] = (1, 10, 100)
    ) -> None:
        if iou not in ("mask", "box"):
            raise InputError(f'iou is {iou!r}; expected "mask" or "box"')
        if not 0 < most[0] < most[1] < most[2]:
            raise InputError(
                f"most is {most}; expected three numbers that rise, such as 1, 10, 100"
            )
        self.iou = iou
        self.most = most
        self._pictures: list[_Matched] = []

    def update(self, detections: Mapping[str, Any], truth: Mapping[str, Any]) -> None:
        """Add a picture: D detections, and its G objects; either may be none.

        Args:
            detections: `scores` (D,), `labels` (D,), and `masks` or `boxes`, as `iou` says.
            truth: `labels` (G,), and `masks` or `boxes`; `iscrowd` (G,), none if not there; `area`
                (G,) in pixels, which decides between small, medium and large: that of the masks, or
                of the boxes, if not there.

        Masks are (N, H, W) bool or a list of COCO's run lengths; boxes (N, 4), XYXY in pixels.
        Other entries are left alone.

        Raises:
            InputError: If an entry is missing or has another length, or a score is no number.
        """
        picture = read_picture(detections, truth, self.iou, self.most[2])
        is_out = np.where(picture.crowd, EVERY, outside(picture.true_areas))
        found, ignored = match_detections(picture.pairs, len(picture.scores), is_out, picture.crowd)
        ignored |= outside(picture.areas) & ~found
        self._pictures.append(
            _Matched(
                picture.labels,
                picture.scores,
                picture.rank,
                found,
                ignored,
                picture.true_labels,
                is_out,
            )
        )

    def join_processes(self, places: Sequence[int]) -> None:
        """Have the pictures of all processes of a `torchrun`; does nothing outside one.

        Args:
            places: Of this process's pictures among all of them: equal scores stay in that order.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return
        own = list(zip(places, self._pictures, strict=True))
        everywhere: list[list[tuple[int, _Matched]]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everywhere, own)
        together = sorted((pair for part in everywhere for pair in part), key=lambda pair: pair[0])
        self._pictures = [picture for _, picture in together]

    def summary(self) -> dict[str, float]:
        """The twelve numbers by COCO's names.

        AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; with another `most`, AR is
        named after it. Each is a mean over the classes that have an object in the range of areas
        and, but for AP50 and AP75, over the ten thresholds; -1 if no class has one, as COCO has it.
        """
        most = self.most[2]
        classes = {area: list(self._classes(area, most)) for area in AREAS}
        ap = {area: [score.precision() for score in scores] for area, scores in classes.items()}
        ar = {area: [score.recall() for score in scores] for area, scores in classes.items()}
        few = [[score.recall() for score in self._classes("all", n)] for n in self.most[:2]]
        return {
            "AP": _mean(ap["all"]),
            "AP50": _mean([precision[0] for precision in ap["all"]]),
            "AP75": _mean([precision[5] for precision in ap["all"]]),
            **{f"AP{area[0]}": _mean(ap[area]) for area in ("small", "medium", "large")},
            **{f"AR{n}": _mean(recall) for n, recall in zip(self.most, few, strict=False)},
            f"AR{most}": _mean(ar["all"]),
            **{f"AR{area[0]}": _mean(ar[area]) for area in ("small", "medium", "large")},
        }

    def per_class(self) -> dict[int, float]:
        """The AP of each class that has an object, over all thresholds and areas."""
        return {
            score.label: float(score.precision().mean())
            for score in self._classes("all", self.most[2])
        }

    def curve(self, label: int, threshold: float = 0.5, area: str = "all") -> Curve:
        """Precision and recall of one class at one of the ten IoU thresholds.

        Raises:
            InputError: If the class has no object in this range of areas, or there is no such
                threshold or range.
        """
        near = np.flatnonzero(np.isclose(THRESHOLDS, threshold))
        if not near.size or area not in AREAS:
            raise InputError(
                f"threshold is {threshold:g} and area {area!r}; expected one of 0.5, 0.55, ..., "
                f"0.95 and one of {', '.join(AREAS)}"
            )
        for score in self._classes(area, self.most[2]):
            if score.label == label:
                return score.curve(int(near[0]))
        raise InputError(
            f"no picture has an object of class {label} and area {area!r}; a class without an "
            "object has no score"
        )

    def _classes(self, area: str, most: int) -> Iterator[ClassScore]:
        """For each class with an object in a range of areas, its detections and hits."""
        number = list(AREAS).index(area)
        all_of = _Matched.together(self._pictures)
        counted = all_of.true_labels[~is_bit(all_of.is_out, number)[0]]
        chosen = np.flatnonzero(all_of.rank < most)
        chosen = chosen[np.lexsort((-all_of.scores[chosen], all_of.labels[chosen]))]
        labels, scores = all_of.labels[chosen], all_of.scores[chosen]
        counts = ~is_bit(all_of.ignored[chosen], number)
        hits = is_bit(all_of.found[chosen], number) & counts
        for label, objects in zip(*np.unique(counted, return_counts=True), strict=True):
            of = slice(*np.searchsorted(labels, [label, label + 1]))
            yield ClassScore(int(label), scores[of], hits[:, of], counts[:, of], int(objects))


@dataclass(frozen=True)
class _Matched:
    """Detections and objects of a picture, or of several, with the bits of their matchings.

    Attributes:
        labels: (D,) class of each detection.
        scores: (D,) those of a class in a picture in falling order.
        rank: (D,) how many of its class and picture stand before it.
        found: (D,) bits in which it found an object, ignored or not.
        ignored: (D,) bits in which it is not counted.
        true_labels: (G,) class of each object.
        is_out: (G,) bits in which it is ignored.
    """

    labels: Whole
    scores: Numbers
    rank: Whole
    found: Whole
    ignored: Whole
    true_labels: Whole
    is_out: Whole

    @classmethod
    def together(cls, pictures: "Sequence[_Matched]") -> "_Matched":
        """All pictures as one."""
        nothing = cls(*(np.zeros(0, dtype=float if name == "scores" else int) for name in _FIELDS))
        rows = (
            np.concatenate([getattr(one, name) for one in (nothing, *pictures)]) for name in _FIELDS
        )
        return cls(*rows)


_FIELDS = tuple(field.name for field in fields(_Matched))


def _mean(scores: Sequence[Float64[np.ndarray, "..."]]) -> float:
    """The mean of all numbers of all classes; -1 of none."""
    return float(np.mean(np.stack(scores))) if scores else -1.0

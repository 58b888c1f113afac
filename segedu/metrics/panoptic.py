"""Panoptic quality: one score for things and stuff together; chapter 19 derives it."""

from collections.abc import Collection

import numpy as np
import torch
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from segedu.data.sample import IGNORE
from segedu.data.scenes import PANOPTIC_BASE
from segedu.errors import InputError

Whole = Int64[np.ndarray, " _"]
BASE = PANOPTIC_BASE


class PanopticQuality:
    """How well every pixel's class and object are told, over all pictures together.

    Segments are matched picture by picture: a predicted and a true one of the same class whose IoU
    is above 0.5, of which there can be one at most. Per class, with TP matches, FP predicted
    segments and FN true ones left over, SQ is the mean IoU of the matches, RQ is TP / (TP + FP / 2
    + FN / 2), and PQ their product.

    Args:
        things: Class indices of things, of which a picture may have several.
        stuff: Class indices of stuff.

    Raises:
        InputError: If a class is both, is negative, or there is none.

    Source:
        Kirillov et al. 2019, "Panoptic Segmentation", section 4, https://arxiv.org/abs/1801.00868;
        void and crowds as there and in panopticapi's `evaluation.py`.

    Example:
        >>> metric = PanopticQuality(things=[1], stuff=[0])
        >>> metric.update(torch.tensor([[0, 0, 1001]]), torch.tensor([[0, 0, 1001]]))
        >>> metric.summary()["PQ"]
        1.0
    """

    def __init__(self, things: Collection[int], stuff: Collection[int]) -> None:
        self.things, self.stuff = frozenset(things), frozenset(stuff)
        both, classes = self.things & self.stuff, self.things | self.stuff
        if both or not classes or min(classes) < 0:
            raise InputError(
                f"things are {sorted(self.things)} and stuff {sorted(self.stuff)}; expected class "
                "indices, each in one of the two"
            )
        size = max(classes) + 1
        self.matched = torch.zeros(size, dtype=torch.int64)
        self.false = torch.zeros(size, dtype=torch.int64)
        self.missed = torch.zeros(size, dtype=torch.int64)
        self.iou_sum = torch.zeros(size, dtype=torch.float64)

    def update(
        self,
        prediction: Integer[Tensor, "h w"],
        target: Integer[Tensor, "h w"],
        crowd: Integer[Tensor, "h w"] | None = None,
    ) -> None:
        """Add one picture.

        Args:
            prediction: class * 1000 + n for the n-th object of a class of things, class * 1000 for
                stuff; `IGNORE` where nothing is predicted. Nobody is told off for such pixels but
                by the objects that they do not find.
            target: The same for the truth; `IGNORE` for void and for crowds.
            crowd: The class of the crowd on each pixel, `IGNORE` where there is none; what it says
                of pixels that have a segment in `target` does not count.

        Pixels that are void in the truth are taken out of the predicted segments. A predicted
        segment without a match that lies by more than half in void, or in a crowd of its own class,
        is no mistake.

        Raises:
            InputError: If an id's class is neither a thing nor stuff; nothing is counted then.
        """
        predicted, true = _flat(prediction), _flat(target)
        crowd_class = np.full_like(true, IGNORE) if crowd is None else _flat(crowd)
        crowd_class = np.where(true == IGNORE, crowd_class, IGNORE)
        for name, ids in (("prediction", predicted), ("target", true)):
            self._need_classes(name, ids)
        found = predicted != IGNORE
        segments, areas = np.unique(predicted[found], return_counts=True)
        void = _counted(segments, predicted[found & (true == IGNORE) & (crowd_class == IGNORE)])
        own_crowd = _counted(segments, predicted[found & (crowd_class == predicted // BASE)])
        objects, true_areas = np.unique(true[true != IGNORE], return_counts=True)
        pairs, common = np.unique(
            np.stack([predicted, true])[:, found & (true != IGNORE)], axis=1, return_counts=True
        )
        p, t = np.searchsorted(segments, pairs[0]), np.searchsorted(objects, pairs[1])
        iou = common / (areas[p] - void[p] + true_areas[t] - common)
        hit = (iou > 0.5) & (pairs[0] // BASE == pairs[1] // BASE)
        is_spared = 2 * (void + own_crowd) > areas
        is_spared[p[hit]] = True
        _add(self.matched, pairs[0][hit] // BASE)
        _add(self.iou_sum, pairs[0][hit] // BASE, iou[hit])
        _add(self.false, segments[~is_spared] // BASE)
        _add(self.missed, np.delete(objects, t[hit]) // BASE)

    def pq(self) -> Float64[Tensor, " c"]:
        """Panoptic quality of each class, in [0, 1]; nan for one that no segment was or should be.

        The three have an entry for each index up to the highest class.
        """
        return self.iou_sum / self._segments()

    def sq(self) -> Float64[Tensor, " c"]:
        """Segmentation quality: the mean IoU of the matches; 0 where there is none, or nan."""
        mean = self.iou_sum / self.matched.clamp(min=1)
        return mean.where(self._segments() > 0, torch.nan)

    def rq(self) -> Float64[Tensor, " c"]:
        """Recognition quality: the F1 score of the segments; nan as in `pq`."""
        return self.matched / self._segments()

    def summary(self) -> dict[str, float]:
        """PQ, SQ and RQ as means over the classes that have one; `_th` over things, `_st` stuff.

        nan where no class has one. As the means are taken singly, PQ is not SQ * RQ here.
        """
        groups = {"": self.things | self.stuff, "_th": self.things, "_st": self.stuff}
        scores = {"PQ": self.pq(), "SQ": self.sq(), "RQ": self.rq()}
        return {
            f"{name}{suffix}": score[sorted(classes)].nanmean().item()
            for suffix, classes in groups.items()
            for name, score in scores.items()
        }

    def _segments(self) -> Float64[Tensor, " c"]:
        """TP + FP / 2 + FN / 2."""
        return self.matched.double() + (self.false + self.missed).double() / 2

    def _need_classes(self, name: str, ids: Whole) -> None:
        classes = np.unique(ids[ids != IGNORE] // BASE)
        unknown = sorted(set(classes.tolist()) - self.things - self.stuff)
        if unknown:
            raise InputError(
                f"{name} has segments of classes {unknown}; expected things "
                f"{sorted(self.things)} and stuff {sorted(self.stuff)}; an id is class * {BASE} + n"
            )


def _flat(ids: Integer[Tensor, "h w"]) -> Whole:
    return ids.detach().cpu().numpy().astype(np.int64).ravel()


def _counted(segments: Whole, ids: Whole) -> Whole:
    """How often each of the sorted `segments` occurs among `ids`, all of which are segments."""
    return np.bincount(np.searchsorted(segments, ids), minlength=len(segments))


def _add(totals: Tensor, classes: Whole, weights: Float64[np.ndarray, " _"] | None = None) -> None:
    """Add one, or a weight, for each class that is listed."""
    added = np.bincount(classes, weights, minlength=len(totals))
    totals += torch.from_numpy(added).to(totals.dtype)

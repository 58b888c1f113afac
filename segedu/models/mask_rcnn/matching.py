"""Which anchor answers for which object, and which of them are asked in a step: chapter 16."""

import torch
from jaxtyping import Bool, Float, Int64, Real
from torch import Tensor

from segedu.errors import InputError

NEGATIVE = -1
"""The match of an anchor that overlaps no object by `low` or more: it is ground."""

BETWEEN = -2
"""The match of an anchor between the two thresholds: it is not asked."""


def match(
    iou: Float[Tensor, "objects anchors"], low: float, high: float, *, keep_best: bool = False
) -> Int64[Tensor, " anchors"]:
    """For each anchor the index of its object, or `NEGATIVE`, or `BETWEEN`.

    An anchor belongs to the object that it overlaps most, if by `high` or more; the first of equal
    ones. Below `low` it is `NEGATIVE`; without any object all are.

    Args:
        iou: Overlap of each object with each anchor, in [0, 1].
        low: Threshold in [0, 1].
        high: Threshold, `low` or more.
        keep_best: Also give to its object each anchor that is the best for some object (all of
            equal ones), however little they overlap, so that no object goes without. The anchor
            goes to the object that *it* overlaps most, which may be another one. An object that no
            anchor overlaps has them all as its equally good best ones: keep boxes without area out.

    Raises:
        InputError: If `low` is above `high`.

    Source: Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.2, conditions (i) and (ii).
    https://arxiv.org/abs/1506.01497
    """
    if low > high:
        raise InputError(f"match: low is {low}, above high, {high}; expected low <= high")
    objects, anchors = iou.shape
    if not objects or not anchors:
        return torch.full((anchors,), NEGATIVE, device=iou.device)
    overlap, closest = iou.max(dim=0)
    matches = closest.where(overlap >= high, BETWEEN).where(overlap >= low, NEGATIVE)
    if keep_best:
        is_best = (iou == iou.amax(dim=1, keepdim=True)).any(dim=0)
        matches = closest.where(is_best, matches)
    return matches


def sample(
    labels: Real[Tensor, " anchors"],
    count: int,
    positive_share: float,
    generator: torch.Generator | None = None,
) -> tuple[Bool[Tensor, " anchors"], Bool[Tensor, " anchors"]]:
    """Draw up to `count` anchors: which are drawn as positive, and which as negative.

    At most `count * positive_share` positives are drawn, rounded down; negatives fill up the rest,
    as far as there are.

    Args:
        labels: 1 or more: positive; 0: negative; -1: neither.
        count: How many to draw in all.
        positive_share: In [0, 1].
        generator: On the device of `labels`; without one, torch's own.

    Raises:
        InputError: If `positive_share` is not in [0, 1], or `count` is negative.

    Source: Girshick, "Fast R-CNN", ICCV 2015, section 2.3, mini-batch sampling.
    https://arxiv.org/abs/1504.08083
    """
    if not 0 <= positive_share <= 1 or count < 0:
        raise InputError(
            f"sample: count is {count}, positive_share {positive_share}; expected 0 or more, and "
            "a share in [0, 1]"
        )
    positive = _drawn(labels >= 1, int(count * positive_share), generator)
    negative = _drawn(labels == 0, count - int(positive.sum()), generator)
    return positive, negative


def _drawn(
    candidates: Bool[Tensor, " anchors"], count: int, generator: torch.Generator | None
) -> Bool[Tensor, " anchors"]:
    """`count` of the candidates, or all if there are fewer.

    The order of one random permutation decides, so that torchvision's sampler draws the same.
    """
    [places] = candidates.nonzero(as_tuple=True)
    order = torch.randperm(len(places), generator=generator, device=candidates.device)
    drawn = torch.zeros_like(candidates)
    drawn[places[order[:count]]] = True
    return drawn

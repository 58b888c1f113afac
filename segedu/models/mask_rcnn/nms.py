"""Of many boxes around one object, keep the best: hard, batched and soft NMS, chapter 16."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64, Real
from torch import Tensor

from segedu.errors import InputError
from segedu.models.mask_rcnn.boxes import box_iou

_BLOCK = 256  # boxes compared at once: bounds the memory, and spares most pairs

Kept = Int64[Tensor, " kept"]
Scores = Float[Tensor, " n"]

FEW = 1000
"""Up to so many boxes torchvision keeps equal scores in their order."""


def nms(boxes: Float[Tensor, "n 4"], scores: Scores, iou_threshold: float) -> Kept:
    """Indices of the boxes that no better kept box overlaps by more than the threshold; best first.

    Of equal scores the first is the better one. An overlap of nan, between two boxes without area,
    is no overlap.

    The boxes go by in blocks, best first: what a kept box of an earlier block overlaps is dropped
    at once, the rest is settled within the block.

    Args:
        boxes: XYXY in pixels.
        scores: The higher, the better.
        iou_threshold: In [0, 1]; an overlap of exactly this is allowed.
    """
    boxes, order = _plain(boxes), _plain(scores).argsort(descending=True, stable=True)
    kept = order[:0]
    for block in torch.split(order, _BLOCK):
        is_free = ~_overlap(boxes[kept], boxes[block], iou_threshold).any(dim=0)
        free = block[is_free]
        survives = _settle(_overlap(boxes[free], boxes[free], iou_threshold).triu(diagonal=1))
        kept = torch.cat([kept, free[survives]])
    return kept


def batched_nms(
    boxes: Float[Tensor, "n 4"], scores: Scores, idxs: Real[Tensor, " n"], iou_threshold: float
) -> Kept:
    """`nms` within each group of boxes: those of different `idxs` leave one another alone.

    Args:
        boxes: XYXY in pixels; unlike torchvision's, they may lie anywhere.
        scores: The higher, the better.
        idxs: The group of each box: its class, its level, or its image.
        iou_threshold: In [0, 1].

    Returns:
        Indices of all groups together, best first; of equal scores the lower index first, but of
        more than 1,000 boxes in the order that torch's quick sort gives them, as in torchvision.
    """
    is_kept = torch.zeros_like(_plain(scores), dtype=torch.bool)
    for group in torch.unique(idxs):
        [members] = (idxs == group).nonzero(as_tuple=True)
        is_kept[members[nms(boxes[members], scores[members], iou_threshold)]] = True
    [kept] = is_kept.nonzero(as_tuple=True)
    few = len(boxes) <= FEW
    return kept[_plain(scores)[kept].sort(descending=True, stable=few).indices]


def soft_nms(
    boxes: Float[Tensor, "n 4"], scores: Scores, sigma: float = 0.5, score_threshold: float = 0.001
) -> tuple[Kept, Float[Tensor, " kept"]]:
    """NMS that lowers the scores of overlapping boxes instead of dropping them.

    The best box left is taken, and the score of each other one multiplied by
    exp(-IoU * IoU / sigma); and again, until the best left is below `score_threshold`.

    Args:
        boxes: XYXY in pixels.
        scores: In [0, 1].
        sigma: Above 0; the smaller, the harder.
        score_threshold: Boxes whose lowered score is below are dropped.

    Returns:
        Indices of the boxes, best lowered score first, and these scores.

    Raises:
        InputError: If `sigma` is not above 0.

    Source: Bodla et al., "Soft-NMS", ICCV 2017, section 3 and figure 2.
    https://arxiv.org/abs/1704.04503
    """
    if sigma <= 0:
        raise InputError(f"soft_nms: sigma is {sigma}; expected a number above 0")
    return _lowered(boxes, scores, lambda iou: (-iou * iou / sigma).exp(), score_threshold)


def soft_nms_linear(
    boxes: Float[Tensor, "n 4"],
    scores: Scores,
    iou_threshold: float = 0.3,
    score_threshold: float = 0.001,
) -> tuple[Kept, Float[Tensor, " kept"]]:
    """`soft_nms` with the factor 1 - IoU where the IoU is above the threshold, and 1 elsewhere.

    Args:
        boxes: XYXY in pixels.
        scores: In [0, 1].
        iou_threshold: In [0, 1]; an overlap of exactly this costs nothing.
        score_threshold: Boxes whose lowered score is below are dropped.

    Source: Bodla et al., "Soft-NMS", ICCV 2017, the first of the two functions in section 3.
    https://arxiv.org/abs/1704.04503
    """
    return _lowered(
        boxes, scores, lambda iou: (1 - iou).where(iou > iou_threshold, 1), score_threshold
    )


def _lowered(
    boxes: Tensor, scores: Tensor, factor: Callable[[Tensor], Tensor], score_threshold: float
) -> tuple[Tensor, Tensor]:
    """Take the best box left and multiply the others' scores by `factor(IoU)`, to the end."""
    iou = box_iou(_plain(boxes), _plain(boxes)).nan_to_num(nan=0.0).to(scores.dtype)
    left, waits = _plain(scores), torch.ones_like(_plain(scores), dtype=torch.bool)
    kept, lowered = [left.new_zeros(0, dtype=torch.int64)], [left[:0]]
    for _ in range(len(left)):
        score, best = left.where(waits, -torch.inf).max(dim=0)
        if score < score_threshold:
            break
        kept.append(best[None])
        lowered.append(score[None])
        waits[best] = False
        left = left * factor(iou[best])
    return torch.cat(kept), torch.cat(lowered)


def _overlap(boxes1: Tensor, boxes2: Tensor, iou_threshold: float) -> Bool[Tensor, "n m"]:
    """Which pairs overlap by more than the threshold, compared as if in float64.

    3/10 in float32 is above 0.3; torchvision says so, and drops the box. An IoU is above the
    threshold if it is above the nearest number of its own type from there downwards.
    """
    iou = box_iou(boxes1, boxes2)
    threshold = torch.tensor(iou_threshold, dtype=iou.dtype, device=iou.device)
    if threshold.item() > iou_threshold:
        threshold = threshold.nextafter(torch.full_like(threshold, -torch.inf))
    return iou > threshold


def _settle(overlap: Bool[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    """Which of the boxes, best first, survive; `overlap[i, j]` is False unless i < j.

    A box survives if no survivor overlaps it. Guess that all do, and ask this again and again:
    after t rounds the first t + 1 answers are final, and often all are after a few.
    """
    survives = torch.ones(len(overlap), dtype=torch.bool, device=overlap.device)
    while True:
        again = ~(overlap & survives[:, None]).any(dim=0)
        if torch.equal(again, survives):
            return survives
        survives = again


def _plain(values: Tensor) -> Tensor:
    """A `tv_tensors.BoundingBoxes` as the tensor that it is."""
    return values.as_subclass(Tensor)

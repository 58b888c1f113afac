"""Losses that are one minus a score of overlap, with probabilities in place of a mask.

Chapter 07 derives them. The counts run over all labelled pixels of the batch, as if they were one
large picture. Each loss is averaged over the classes that occur in the target, and of those over
`classes`, if given: with tiny objects one leaves out the ground.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from segedu.data.sample import IGNORE
from segedu.errors import InputError
from segedu.losses.form import Logits, Scalar, Target

Counts = Float[Tensor, " k"]


def dice_loss(logits: Logits, target: Target, *, classes: Sequence[int] | None = None) -> Scalar:
    """1 - 2 |P and T| / (|P| + |T|), averaged over the classes present in `target`.

    A class that is absent has no such score, and is left out.

    Args:
        logits: Scores before the softmax.
        target: Class indices, or `IGNORE`.
        classes: The classes that count; all if None.

    Source: Milletari et al., "V-Net", 3DV 2016, section 3, here without the squares in the
    denominator. https://arxiv.org/abs/1606.04797
    """
    hit, predicted, true = _soft_counts(logits, target, classes)
    return _mean(1 - 2 * hit / (predicted + true))


def jaccard_loss(logits: Logits, target: Target, *, classes: Sequence[int] | None = None) -> Scalar:
    """1 - |P and T| / |P or T|, averaged over the classes present in `target`.

    A class that is absent has no such score, and is left out.

    Args:
        logits: Scores before the softmax.
        target: Class indices, or `IGNORE`.
        classes: The classes that count; all if None.

    Source: Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image
    Segmentation", ISVC 2016, the loss L_IoU. https://doi.org/10.1007/978-3-319-50835-1_22
    """
    hit, predicted, true = _soft_counts(logits, target, classes)
    return _mean(1 - hit / (predicted + true - hit))


def tversky_loss(
    logits: Logits,
    target: Target,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    classes: Sequence[int] | None = None,
) -> Scalar:
    """1 - |P and T| / (|P and T| + alpha |P only| + beta |T only|), averaged likewise.

    Args:
        logits: Scores before the softmax.
        target: Class indices, or `IGNORE`.
        alpha: What a false positive costs, 0 or more.
        beta: What a miss costs, more than 0. Both 0.5 give `dice_loss`, both 1 `jaccard_loss`.
        classes: The classes that count; all if None.

    Raises:
        InputError: If alpha or beta is out of its range.

    Source: Salehi et al., "Tversky loss function for image segmentation using 3D fully
    convolutional deep networks", MLMI 2017, section 2; the defaults are those it found best.
    https://arxiv.org/abs/1706.05721
    """
    if alpha < 0 or beta <= 0:
        raise InputError(
            f"tversky_loss: alpha is {alpha} and beta {beta}; expected 0 or more, and more than 0"
        )
    hit, predicted, true = _soft_counts(logits, target, classes)
    return _mean(1 - hit / (hit + alpha * (predicted - hit) + beta * (true - hit)))


def _soft_counts(
    logits: Logits, target: Target, classes: Sequence[int] | None
) -> tuple[Counts, Counts, Counts]:
    """Sums over labelled pixels, for the classes that count: p where y is 1; p; and y."""
    labelled = target != IGNORE
    p = logits.softmax(dim=1)
    predicted = (p * labelled[:, None]).sum((0, 2, 3))
    true = target[labelled].bincount(minlength=p.shape[1]).to(p)
    counts = true > 0
    if classes is not None:
        chosen = torch.zeros_like(counts)
        chosen[list(classes)] = True
        counts &= chosen
    return _hits(p, target)[counts], predicted[counts], true[counts]


def _hits(p: Float[Tensor, "b c h w"], target: Target) -> Float[Tensor, " c"]:
    """For each class, the sum of its p over its own pixels."""
    classes, width = p.shape[1], p.shape[3]
    labelled = target != IGNORE
    true_class = target.where(labelled, 0)
    p_of_true = p.gather(1, true_class[:, None])[:, 0] * labelled
    # Row by row at first: a single long sum in float32 would lose digits.
    row = torch.arange(target.numel() // max(width, 1), device=p.device)[:, None]
    place = row * classes + true_class.view(-1, width)
    in_rows = p.new_zeros(len(row) * classes).index_add(0, place.flatten(), p_of_true.flatten())
    return in_rows.view(-1, classes).sum(0)


def _mean(class_loss: Counts) -> Scalar:
    """The mean; 0 of nothing, and still part of the graph."""
    return class_loss.sum() / max(len(class_loss), 1)

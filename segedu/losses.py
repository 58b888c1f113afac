"""Losses for semantic segmentation; chapter 06 derives cross-entropy.

Every loss here has one form: `loss(logits, target)`, with

    logits: (B, C, H, W) float, before the softmax
    target: (B, H, W) int64, a class index 0..C-1 or `IGNORE`

and returns a scalar: the lower, the better. Unlabelled pixels (`IGNORE`) take no part.
A batch with no labelled pixel gives 0, and a gradient of 0.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from segedu.data.sample import IGNORE

Logits = Float[Tensor, "b c h w"]
Target = Int[Tensor, "b h w"]
Scalar = Float[Tensor, ""]


def cross_entropy_loss(
    logits: Logits,
    target: Target,
    *,
    class_weight: Float[Tensor, " c"] | None = None,
    label_smoothing: float = 0.0,
) -> Scalar:
    """Mean over labelled pixels of -log p(true class).

    Args:
        logits: Scores before the softmax.
        target: Class indices, or `IGNORE`.
        class_weight: How much a pixel of each class counts, 0 or more; the mean is then weighted:
            the sum of weight times loss, divided by the sum of the weights.
        label_smoothing: In [0, 1): the share of each pixel's truth that is spread over all classes.

    Source: the negative log-likelihood of a categorical distribution; Bishop, "Pattern Recognition
    and Machine Learning", 2006, section 4.3.4, eq. 4.108, and eq. 4.109 for its gradient p - y.
    """
    total = F.cross_entropy(
        logits,
        target,
        weight=class_weight,
        ignore_index=IGNORE,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / _labelled_weight(target, class_weight).to(total)


def _labelled_weight(target: Target, class_weight: Float[Tensor, " c"] | None) -> Tensor:
    """The summed weight of the labelled pixels; 1 if that is 0, so that it can divide."""
    labelled = target != IGNORE
    if class_weight is None:
        return labelled.sum().clamp(min=1)
    weight = class_weight[target[labelled]].sum()
    return weight.where(weight > 0, 1)

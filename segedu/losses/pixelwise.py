"""Losses that are means over pixels: each pixel is asked about itself alone.

Chapter 06 derives cross-entropy, chapter 07 the focal loss.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from segedu.data.sample import IGNORE
from segedu.errors import InputError
from segedu.losses.form import Logits, Scalar, Target


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


def binary_cross_entropy_loss(logits: Logits, target: Target) -> Scalar:
    """Mean over labelled pixels and classes of -y log p - (1 - y) log(1 - p), p a sigmoid each.

    Every class is asked for by itself, as if labels could overlap: y is 1 for the true class and 0
    for all others, absent ones included. A model with a single channel says how much it is for the
    object: its target is 1 for the object and 0 for the ground.

    Source: the negative log-likelihood of Bernoulli distributions; Bishop, "Pattern Recognition and
    Machine Learning", 2006, section 4.3.2, eq. 4.90.
    """
    classes = logits.shape[1]
    labelled = target != IGNORE
    # What y = 0 costs; y = 1 costs that minus the logit. The threshold keeps double's last digit.
    against = F.softplus(logits, threshold=40)
    if classes == 1:
        for_true = logits[:, 0] * (target == 1)
    else:
        for_true = logits.gather(1, target.where(labelled, 0)[:, None])[:, 0]
    pixel_loss = against.sum(1) - for_true
    return pixel_loss.where(labelled, 0).sum() / (classes * labelled.sum().clamp(min=1))


def focal_loss(logits: Logits, target: Target, *, gamma: float = 2.0) -> Scalar:
    """Mean over labelled pixels of (1 - p)^gamma times -log p, p the true class's probability.

    So it looks away from the pixels that the model gets right already.

    Args:
        logits: Scores before the softmax.
        target: Class indices, or `IGNORE`.
        gamma: 0 or more; 0 gives `cross_entropy_loss`.

    Raises:
        InputError: If gamma is negative.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 4, with a softmax in
    place of the sigmoid. https://arxiv.org/abs/1708.02002
    """
    if gamma < 0:
        raise InputError(f"focal_loss: gamma is {gamma}; expected 0 or more")
    pixel_loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    # 1 - p is never 0, where a power below 1 has no slope.
    doubt = (1 - torch.exp(-pixel_loss)).clamp(min=torch.finfo(logits.dtype).tiny)
    return (doubt**gamma * pixel_loss).sum() / _labelled_weight(target, None)


def _labelled_weight(target: Target, class_weight: Float[Tensor, " c"] | None) -> Tensor:
    """The summed weight of the labelled pixels; 1 if that is 0, so that it can divide."""
    labelled = target != IGNORE
    if class_weight is None:
        return labelled.sum().clamp(min=1)
    weight = class_weight[target[labelled]].sum()
    return weight.where(weight > 0, 1)

"""The Lovász-softmax loss: 1 - IoU, made continuous between the masks. Chapter 07 derives it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from segedu.data.sample import IGNORE
from segedu.losses.form import Logits, Scalar, Target


def lovasz_loss(logits: Logits, target: Target, *, classes: Sequence[int] | None = None) -> Scalar:
    """The Lovász extension of 1 - IoU, averaged over the classes present in `target`.

    Sort a class's pixels from the worst error |y - p| to the best. Each pixel pays its error times
    what getting it wrong, after all the worse ones, adds to 1 - IoU. A class that is absent has no
    IoU, and is left out.

    Args:
        logits: Scores before the softmax.
        target: Class indices, or `IGNORE`.
        classes: The classes that count; all if None.

    Source: Berman et al., "The Lovász-Softmax loss", CVPR 2018, algorithm 1.
    https://arxiv.org/abs/1705.08790
    """
    labelled = target != IGNORE
    p = logits.softmax(dim=1)
    class_losses = []
    for c in torch.unique(target[labelled]).tolist():
        if classes is not None and c not in classes:
            continue
        y = target == c
        # An unlabelled pixel has no error: it comes last and pays nothing.
        error = ((y.to(p) - p[:, c]).abs() * labelled).flatten()
        class_losses.append((error * _price(error.detach(), y.flatten())).sum())
    return torch.stack(class_losses).mean() if class_losses else 0 * logits.sum()


def _price(error: Float[Tensor, " n"], y: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """What each pixel adds to 1 - IoU when pixels go wrong one after another, worst first.

    A pixel of the class leaves the intersection, any other joins the union.
    """
    worst_first = _worst_first(error)
    of_class = y[worst_first]
    lost = of_class.cumsum(0)
    joined = (~of_class).cumsum(0)
    intersection, union = lost[-1] - lost, lost[-1] + joined
    joining = intersection.to(error) / (union * (union - 1)).clamp(min=1)
    price = torch.where(of_class, 1 / union.to(error), joining)
    return torch.empty_like(error).scatter_(0, worst_first, price)


def _worst_first(error: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The pixels' places in the order of their errors; on a CPU NumPy sorts many times as fast."""
    if not error.is_cpu:
        return error.argsort(descending=True)
    wide = torch.promote_types(error.dtype, torch.float32)  # NumPy has no bfloat16
    return torch.from_numpy(np.argsort(-error.to(wide).numpy()))

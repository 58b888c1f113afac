"""The boundary loss: how far from the true outline the misplaced probability lies.

Chapter 07 derives it.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32
from scipy import ndimage
from torch import Tensor

from segedu.data.sample import IGNORE
from segedu.losses.form import Logits, Scalar, Target


def boundary_loss(logits: Logits, target: Target) -> Scalar:
    """Mean of |y - p| times the distance to the class's true outline, in pixels.

    The mean is over the labelled pixels of each picture, for each class that has an outline in that
    picture; without any outline in the batch the loss is 0. It says nothing of a picture with a
    single class, so it is added to another loss.

    Source: Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019, section
    2: the integral of signed distance times probability, here with the truth's own integral taken
    off, so that the best value is 0. https://proceedings.mlr.press/v102/kervadec19a.html
    """
    p = logits.softmax(dim=1)
    distance = signed_distances(target, logits.shape[1]).to(p)
    some_class = target.where(target != IGNORE, 0)[:, None]
    y = torch.zeros_like(p).scatter_(1, some_class, 1)
    return (distance * (p - y)).sum() / distance.count_nonzero().clamp(min=1)


def signed_distances(target: Target, num_classes: int) -> Float32[Tensor, "b c h w"]:
    """Distance in pixels from each pixel's centre to each class's outline, negative inside it.

    The outline runs half-way between a pixel of the class and the nearest labelled pixel of another
    one, so no distance is 0. It is set to 0 where a class has no outline in its picture (it is
    absent, or all there is), and at unlabelled pixels.
    """
    distance = np.zeros((len(target), num_classes, *target.shape[1:]), dtype=np.float32)
    for picture, mask in zip(distance, target.cpu().numpy(), strict=True):
        labelled = mask != IGNORE
        for c in np.unique(mask[labelled]).tolist():
            inside = mask == c
            if (inside != labelled).any():
                picture[c] = _signed_distance(inside, labelled & ~inside)
    return torch.from_numpy(distance).to(target.device)


def _signed_distance(
    inside: Bool[np.ndarray, "h w"], outside: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """To the line between the two; 0 where a pixel is neither."""
    to_inside = ndimage.distance_transform_edt(~inside)
    to_outside = ndimage.distance_transform_edt(~outside)
    signed = outside * (to_inside - 0.5) - inside * (to_outside - 0.5)
    return np.asarray(signed, dtype=np.float32)

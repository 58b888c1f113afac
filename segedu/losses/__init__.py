"""Losses for semantic segmentation; chapter 06 derives cross-entropy, chapter 07 the others.

Every loss here has one form: `loss(logits, target)`, with

    logits: (B, C, H, W) float, before the softmax
    target: (B, H, W) int64, a class index 0..C-1 or `IGNORE`

and returns a scalar: the lower, the better, and 0 for a sure and right answer. Unlabelled pixels
(`IGNORE`) take no part. A batch with no labelled pixel gives 0, and a gradient of 0.
"""

from segedu.losses.boundary import boundary_loss, signed_distances
from segedu.losses.lovasz import lovasz_loss
from segedu.losses.overlap import dice_loss, jaccard_loss, tversky_loss
from segedu.losses.pixelwise import binary_cross_entropy_loss, cross_entropy_loss, focal_loss

PIXEL_MEANS = (cross_entropy_loss, focal_loss, binary_cross_entropy_loss)
"""The losses that, as they stand, are plain means over the labelled pixels."""

__all__ = [
    "PIXEL_MEANS",
    "binary_cross_entropy_loss",
    "boundary_loss",
    "cross_entropy_loss",
    "dice_loss",
    "focal_loss",
    "jaccard_loss",
    "lovasz_loss",
    "signed_distances",
    "tversky_loss",
]

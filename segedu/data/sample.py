"""What one sample is, everywhere in segedu: an image and the class of each of its pixels."""

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor
from torchvision import tv_tensors

IGNORE = 255
"""The mask value of a pixel that has no label: no loss, metric or plot counts it."""

STACKED = ("image", "mask", "instance_map", "panoptic", "boundary")
"""What `collate` stacks; everything else differs in size from image to image and becomes a list."""


class Sample(TypedDict):
    """An image and its mask, of the same height and width.

    Attributes:
        image: (3, H, W) float32 in [0, 1].
        mask: (H, W) int64; a class index 0..C-1, or `IGNORE`.
    """

    image: tv_tensors.Image
    mask: tv_tensors.Mask


class InstanceSample(Sample):
    """A sample that also says which pixels belong to which of its N objects.

    Attributes:
        boxes: (N, 4) float32, XYXY in pixels; (0, 0) is the outer corner of the top-left pixel, so
            a box's width is the number of columns that the object spans.
        labels: (N,) int64; the class index of each object.
        masks: (N, H, W) bool; the visible pixels of each object.
    """

    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    masks: tv_tensors.Mask


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """One batch: images and maps of equal size stacked, boxes and all else as lists.

    Give it to a `DataLoader` as `collate_fn`.
    """
    batch: dict[str, Any] = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]  # type: ignore[literal-required]
        batch[key] = torch.stack(values) if key in STACKED else values
    return batch

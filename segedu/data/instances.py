"""Boxes around objects, from the objects' pixels."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torchvision import tv_tensors


def boxes_around(masks: Bool[Tensor, "n h w"]) -> tv_tensors.BoundingBoxes:
    """The smallest box around each object, (N, 4) float32, XYXY in pixels.

    The right and lower edges are the outer ones: an object of one pixel has a box of 1x1. An object
    without a pixel has the box (0, 0, 0, 0).
    """
    across, down = _extent(masks.any(dim=1)), _extent(masks.any(dim=2))
    corners = torch.stack([across[:, 0], down[:, 0], across[:, 1], down[:, 1]], dim=1)
    return tv_tensors.BoundingBoxes(
        corners.float(),
        format=tv_tensors.BoundingBoxFormat.XYXY,
        canvas_size=(masks.shape[1], masks.shape[2]),
    )


def told_apart(sample: Mapping[str, Any]) -> Bool[Tensor, " n"]:
    """Which of a sample's objects are single ones; all, unless it says what is a crowd."""
    crowd: Tensor = sample.get("crowd", torch.zeros(len(sample["labels"]), dtype=torch.bool))
    return ~crowd


def _extent(touched: Bool[Tensor, "n length"]) -> Tensor:
    """(N, 2): the first touched place, and the one after the last."""
    length = touched.shape[1]
    place = torch.arange(length)
    first = torch.where(touched, place, length).amin(dim=1)
    after = torch.where(touched, place + 1, 0).amax(dim=1)
    return torch.stack([torch.minimum(first, after), after], dim=1)

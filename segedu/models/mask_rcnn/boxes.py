"""Boxes, their overlap, and the four numbers in which a network says a box: chapter 16."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

LARGEST_GROWTH = math.log(1000 / 16)
"""Largest dw and dh that `decode` believes: an anchor grows at most 62.5 times."""

Weights = tuple[float, float, float, float]

BETA = 1 / 9
"""Where the smooth L1 loss of boxes turns from a parabola into a straight line."""


def box_area(boxes: Real[Tensor, "*batch 4"]) -> Real[Tensor, "*batch"]:
    """Width times height of each box, in square pixels; negative if one of the two is.

    float16 is multiplied in float32, where 300 x 300 pixels are no overflow.
    """
    x1, y1, x2, y2 = _wide(boxes).unbind(-1)
    return (x2 - x1) * (y2 - y1)


def box_iou(
    boxes1: Real[Tensor, "*batch n 4"], boxes2: Real[Tensor, "*batch m 4"]
) -> Float[Tensor, "*batch n m"]:
    """Intersection over union of each box of the first set with each of the second, in [0, 1].

    Two boxes without area give nan.
    """
    intersection, union = _intersection_and_union(boxes1, boxes2)
    return intersection / union


def generalized_box_iou(
    boxes1: Real[Tensor, "*batch n 4"], boxes2: Real[Tensor, "*batch m 4"]
) -> Float[Tensor, "*batch n m"]:
    """IoU, less the share of the smallest box around both that neither covers; in (-1, 1].

    Unlike IoU it tells how far apart two boxes are that do not touch. Two boxes without area give
    nan.

    Source: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1.
    https://arxiv.org/abs/1902.09630
    """
    intersection, union = _intersection_and_union(boxes1, boxes2)
    (low1, high1), (low2, high2) = _corners(boxes1, -1), _corners(boxes2, -2)
    around = _covered(map(torch.minimum, low1, low2), map(torch.maximum, high1, high2))
    return intersection / union - (around - union) / around


def encode(
    boxes: Float[Tensor, "*#batch 4"],
    anchors: Float[Tensor, "*#batch 4"],
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*batch 4"]:
    """What an anchor has to do to become a box: (dx, dy, dw, dh).

    dx and dy are the way from centre to centre in widths and heights of the anchor, dw and dh the
    logarithms of the ratios of width and height; each times its weight. A box without width has
    dw = -inf.

    Args:
        boxes: XYXY in pixels. Leading axes broadcast.
        anchors: The same, with width and height above 0.
        weights: Of the four numbers: they make all four about equally large, and so their losses.

    Source: Girshick et al., "Rich feature hierarchies", CVPR 2014, appendix C of the version at
    https://arxiv.org/abs/1311.2524; the weights: Girshick, "Fast R-CNN", ICCV 2015, section 2.3,
    targets of unit variance. https://arxiv.org/abs/1504.08083
    """
    x, y, width, height = _centre_and_size(boxes)
    anchor_x, anchor_y, anchor_width, anchor_height = _centre_and_size(anchors)
    wx, wy, ww, wh = weights
    return torch.stack(
        [
            wx * (x - anchor_x) / anchor_width,
            wy * (y - anchor_y) / anchor_height,
            ww * torch.log(width / anchor_width),
            wh * torch.log(height / anchor_height),
        ],
        dim=-1,
    )


def decode(
    deltas: Float[Tensor, "*#batch 4"],
    anchors: Float[Tensor, "*#batch 4"],
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*batch 4"]:
    """The boxes that anchors become: `encode` backwards, XYXY in pixels, in the type of `deltas`.

    dw and dh are cut off at `LARGEST_GROWTH`, so that no untrained network overflows `exp`. The
    boxes may reach out of the image.

    Args:
        deltas: (dx, dy, dw, dh), as a network says them. Leading axes broadcast: (N, C, 4) deltas,
            one for each of C classes, go with (N, 1, 4) anchors.
        anchors: XYXY in pixels.
        weights: Those of `encode`.
    """
    anchor_x, anchor_y, anchor_width, anchor_height = _centre_and_size(anchors.to(deltas.dtype))
    dx, dy, dw, dh = (
        delta / weight for delta, weight in zip(deltas.unbind(-1), weights, strict=True)
    )
    x = dx * anchor_width + anchor_x
    y = dy * anchor_height + anchor_y
    half_width = 0.5 * (dw.clamp(max=LARGEST_GROWTH).exp() * anchor_width)
    half_height = 0.5 * (dh.clamp(max=LARGEST_GROWTH).exp() * anchor_height)
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=-1)


def clip_boxes_to_image(
    boxes: Real[Tensor, "*batch 4"], size: tuple[int, int]
) -> Real[Tensor, "*batch 4"]:
    """The part of each box inside an image of `size` (height, width); outside, no area is left."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).flatten(-2)


def is_at_least(boxes: Real[Tensor, "*batch 4"], size: float) -> Bool[Tensor, "*batch"]:
    """Whether both sides of each box are `size` pixels or more."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= size).all(-1)


def _centre_and_size(boxes: Float[Tensor, "*batch 4"]) -> list[Float[Tensor, "*batch"]]:
    """(x, y, width, height), x and y of the centre."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return [x1 + 0.5 * width, y1 + 0.5 * height, width, height]


def _intersection_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Areas (..., N, M) that both boxes of a pair cover, and that at least one covers."""
    (low1, high1), (low2, high2) = _corners(boxes1, -1), _corners(boxes2, -2)
    intersection = _covered(map(torch.maximum, low1, low2), map(torch.minimum, high1, high2))
    union = box_area(boxes1)[..., :, None] + box_area(boxes2)[..., None, :] - intersection
    return intersection, union


def _corners(boxes: Tensor, axis: int) -> tuple[list[Tensor], list[Tensor]]:
    """[x1, y1] and [x2, y2], with a new axis for the other set; small integers widened.

    Without that, a difference of uint8 would wrap.
    """
    boxes = boxes.as_subclass(Tensor)
    values = boxes if boxes.is_floating_point() else _wide(boxes)
    x1, y1, x2, y2 = (coordinate.unsqueeze(axis) for coordinate in values.unbind(-1))
    return [x1, y1], [x2, y2]


def _covered(low: Iterable[Tensor], high: Iterable[Tensor]) -> Tensor:
    """Area between two corners, each [x, y]; 0 where `high` is not above `low`.

    The sides are taken in the boxes' own type, float16 too, as torchvision does.
    """
    width, height = (_wide(b - a).clamp(min=0) for a, b in zip(low, high, strict=True))
    return width * height


def _wide(values: Tensor) -> Tensor:
    """The values in a type in which areas do not overflow: at least float32 or int32."""
    if values.is_floating_point():
        return values if values.dtype in {torch.float32, torch.float64} else values.float()
    return values if values.dtype in {torch.int32, torch.int64} else values.int()

"""From a box's small mask to the picture's pixels, and from a picture's mask to a box's small one.

The mask head works on M x M cells for each box. `crop_masks` makes its truth, `paste_masks` puts
its answer back: chapter 18.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from segedu.models.mask_rcnn.roi_align import roi_align


def paste_masks(
    masks: Float[Tensor, "n 1 m m"],
    boxes: Float[Tensor, "n 4"],
    size: tuple[int, int],
) -> Float[Tensor, "n 1 height width"]:
    """Each small mask of probabilities enlarged bilinearly into its box, 0 outside.

    A rim of one cell of 0 is put around the mask and the box grows in proportion, so that the edge
    fades out; then the box's corners lose their fractions. Threshold the result, not the small
    mask. Where the library fails, for a box wholly left of or above the picture, the mask is 0.

    Args:
        masks: Probabilities of M x M cells.
        boxes: XYXY in pixels.
        size: Height and width of the picture.

    Source: K. He et al., "Mask R-CNN", ICCV 2017, section 3.1; the rim is that of its authors'
        program and of torchvision.
    """
    height, width = size
    cells = masks.shape[-1]
    rimmed = F.pad(masks, (1, 1, 1, 1))
    canvas = masks.new_zeros(len(masks), 1, height, width)
    grown = _grown(boxes, (cells + 2) / cells).long().tolist()
    for n, (x1, y1, x2, y2) in enumerate(grown):
        across, down = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        left, right = max(x1, 0), min(x2 + 1, width)
        top, bottom = max(y1, 0), min(y2 + 1, height)
        if left < right and top < bottom:
            large = F.interpolate(rimmed[n, None], size=(down, across), mode="bilinear")[0, 0]
            inside = large[top - y1 : bottom - y1, left - x1 : right - x1]
            canvas[n, 0, top:bottom, left:right] = inside
    return canvas


def crop_masks(
    masks: Bool[Tensor, "n h w"] | Float[Tensor, "n h w"] | Integer[Tensor, "n h w"],
    boxes: Float[Tensor, "k 4"],
    indices: Int[Tensor, " k"],
    size: int,
    align: Callable[..., Tensor] = roi_align,
) -> Float[Tensor, "k {size} {size}"]:
    """What lies in each box of the mask with its index, as shares of `size` x `size` cells.

    Args:
        masks: Of a picture's objects, 0 or 1.
        boxes: XYXY in pixels.
        indices: For each box, which of the masks.
        size: Cells along each side.
        align: The operator: `roi_align` or torchvision's.
    """
    rois = torch.cat([indices[:, None].to(boxes), boxes], dim=1)
    return align(masks[:, None].to(boxes), rois, (size, size), 1.0)[:, 0]


def _grown(boxes: Float[Tensor, "n 4"], factor: float) -> Float[Tensor, "n 4"]:
    """Boxes with the same middles and sides `factor` times as long."""
    middle = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * factor
    return torch.cat([middle - half, middle + half], dim=1)

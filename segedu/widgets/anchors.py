"""Anchors over a picture, and how well they fit its objects: chapter 16."""

from typing import TYPE_CHECKING, Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from segedu import show
from segedu.data.sample import InstanceSample
from segedu.errors import InputError
from segedu.models.mask_rcnn.anchors import cell_anchors, grid_anchors
from segedu.models.mask_rcnn.boxes import box_iou
from segedu.widgets.controls import BLUE, RED, explorer

if TYPE_CHECKING:
    import ipywidgets

RATIOS = (0.5, 1.0, 2.0)


def plot_anchors(
    sample: InstanceSample, stride: int, size: int, *, down: float, right: float
) -> Figure:
    """The places of one level, the anchors of one of them, and how well the level fits each object.

    Boxes of objects that some anchor of the level overlaps by half or more are drawn full, others
    dashed. The bars are each object's IoU with the anchor that fits it best.

    Args:
        sample: A picture with boxes, at least one.
        stride: Pixels from one place to the next.
        size: Of the anchors, in pixels; the ratios of height to width are 1/2, 1 and 2.
        down: Which place: 0 for the first row, 1 for the last.
        right: Which place: 0 for the first column, 1 for the last.

    Raises:
        InputError: If the picture has no object, the stride is more than its height or width, or
            `down` or `right` is not in [0, 1].
    """
    height, width = sample["image"].shape[-2:]
    boxes = sample["boxes"].as_subclass(Tensor)
    rows, columns = height // stride, width // stride
    if not len(boxes) or not rows * columns or not (0 <= down <= 1 and 0 <= right <= 1):
        raise InputError(
            f"{len(boxes)} boxes, {rows} x {columns} places, down {down}, right {right}; expected "
            "one or more of each, and two fractions in [0, 1]"
        )
    cells = cell_anchors([size], RATIOS)
    anchors = grid_anchors(cells, (rows, columns), (stride, stride))
    best = box_iou(boxes, anchors).amax(1)
    fits = best >= 0.5
    place = round(down * (rows - 1)) * columns + round(right * (columns - 1))

    figure, axes = show.grid(1, 2, width=3.6, height=3.4)
    figure.suptitle(f"{len(anchors)} anchors fit {fits.sum()} of {len(fits)} objects")
    show.image(axes[0], sample["image"], "objects: blue; anchors of one place: red")
    y, x = torch.meshgrid(
        torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij"
    )
    axes[0].scatter(x - 0.5, y - 0.5, s=2, color="white", linewidths=0)
    show.boxes(axes[0], boxes[fits], BLUE, width=2.5)
    show.boxes(axes[0], boxes[~fits], BLUE, width=2.5, style=":")
    show.boxes(axes[0], anchors[len(cells) * place : len(cells) * (place + 1)], RED)
    _write_numbers(axes[0], boxes)
    axes[1].barh(range(len(best)), best.tolist(), color=BLUE)
    axes[1].axvline(0.5, color="black", linestyle=":")
    axes[1].set(title="IoU with the best anchor", xlim=(0, 1))
    axes[1].set(yticks=range(len(best)), ylabel="object")
    axes[1].invert_yaxis()
    return figure


def explore_anchors(sample: InstanceSample) -> "ipywidgets.VBox":
    """`plot_anchors` with sliders for level, size and place."""
    import ipywidgets

    def plot(**settings: Any) -> Figure:
        return plot_anchors(sample, **settings)

    return explorer(
        plot,
        stride=ipywidgets.Dropdown(options=[4, 8, 16, 32], value=16, description="stride"),
        size=ipywidgets.IntSlider(32, min=8, max=128, step=4, description="size"),
        down=ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="down"),
        right=ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="right"),
    )


def _write_numbers(ax: Axes, boxes: Tensor) -> None:
    """The number of each box in its upper left corner."""
    back = (*BLUE, 0.8)
    for n, (x1, y1, _, _) in enumerate(boxes.tolist()):
        ax.text(x1 + 1, y1 + 1, str(n), color="white", va="top", fontsize=7, backgroundcolor=back)

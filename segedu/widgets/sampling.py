"""Where RoIPool and RoIAlign look for the features of a box: chapter 18."""

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from segedu import show
from segedu.errors import InputError
from segedu.widgets.controls import BLUE, RED, explorer

if TYPE_CHECKING:
    import ipywidgets

CELLS = 8
"""Rows and columns of the feature map in the figure."""

Box = tuple[float, float, float, float]


def plot_samples(box: Box, bins: int = 2, samples: int = 2, *, aligned: bool = True) -> Figure:
    """A box on a feature map of 8 x 8 cells: what RoIPool takes for it, and RoIAlign's samples.

    The numbers are the weights of the four cells around the first sample. Chapter 18 derives them.

    Args:
        box: x1, y1, x2, y2 in cells; (0, 0) is the outer corner of the first, its centre is at
            (0.5, 0.5).
        bins: Along each side of the box.
        samples: Along each side of a bin.
        aligned: As `segedu.models.mask_rcnn.roi_align.roi_align` has it.

    Raises:
        InputError: If the box has a side that is not positive, or does not lie in the map.
    """
    if not (0 <= box[0] < box[2] <= CELLS and 0 <= box[1] < box[3] <= CELLS):
        raise InputError(f"box is {box}; expected 0 <= x1 < x2 <= {CELLS} and the same for y")
    figure, axes = show.grid(1, 2, width=3.6, height=3.7)
    for ax in axes:
        _draw_map(ax, box)
    rounded = rounded_box(box)
    off = max(abs(a - b) for a, b in zip(box, rounded, strict=True))
    _draw_bins(axes[0], rounded, bins, fill=True)
    axes[0].set(title=f"RoIPool: an edge is {off:.2f} cells off")
    places = sampled_places(box, bins, samples, aligned=aligned)
    _draw_bins(axes[1], box, bins, fill=False)
    axes[1].plot(places[:, 1], places[:, 0], ".", color=BLUE, markersize=7)
    _draw_weights(axes[1], places[0].tolist())
    offset = "" if aligned else ", half a cell off"
    axes[1].set(title=f"RoIAlign: {len(places)} samples{offset}")
    return figure


def sampled_places(
    box: Box, bins: int, samples: int, *, aligned: bool
) -> Float64[Tensor, "places 2"]:
    """Row and column of every sample of RoIAlign, in cells from the outer corner of the map."""
    x1, y1, x2, y2 = box
    least, late = (0.0, 0.0) if aligned else (1.0, 0.5)
    share = (torch.arange(bins * samples, dtype=torch.float64) + 0.5) / (bins * samples)
    down, across = y1 + late + max(y2 - y1, least) * share, x1 + late + max(x2 - x1, least) * share
    return torch.cartesian_prod(down, across)


def rounded_box(box: Box) -> Box:
    """The whole cells that RoIPool takes for a box: from the first to the last, both included."""
    x1, y1, x2, y2 = (math.floor(edge + 0.5) for edge in box)
    return float(x1), float(y1), float(max(x2, x1) + 1), float(max(y2, y1) + 1)


def explore_samples() -> "ipywidgets.VBox":
    """`plot_samples` with sliders for the box, lists of numbers, and a switch for `aligned`."""
    import ipywidgets

    place = {
        name: ipywidgets.FloatSlider(value, min=0, max=4, step=0.1, description=name)
        for name, value in (("left", 1.6), ("top", 1.3))
    }
    sides = {
        name: ipywidgets.FloatSlider(value, min=0.4, max=4, step=0.1, description=name)
        for name, value in (("width", 3.8), ("height", 3.0))
    }
    numbers = {
        name: ipywidgets.Dropdown(options=[1, 2, 3], value=2, description=name)
        for name in ("bins", "samples")
    }

    def plot(
        *, left: float, top: float, width: float, height: float, bins: int, samples: int,
        aligned: bool,
    ) -> Figure:  # fmt: skip
        return plot_samples((left, top, left + width, top + height), bins, samples, aligned=aligned)

    switch = ipywidgets.Checkbox(value=True, description="aligned")
    return explorer(plot, **place, **sides, **numbers, aligned=switch)


def _draw_map(ax: Axes, box: Box) -> None:
    """The cells, their centres, and the box."""
    lines = range(CELLS + 1)
    ax.vlines(lines, 0, CELLS, color="0.85", linewidth=0.8)
    ax.hlines(lines, 0, CELLS, color="0.85", linewidth=0.8)
    centres = torch.cartesian_prod(torch.arange(CELLS) + 0.5, torch.arange(CELLS) + 0.5)
    ax.plot(centres[:, 1], centres[:, 0], ".", color="0.75", markersize=3)
    x1, y1, x2, y2 = box
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=RED, linewidth=2))
    ax.set(xlim=(0, CELLS + 1), ylim=(CELLS + 1, 0), xticks=[], yticks=[], aspect="equal")


def _draw_bins(ax: Axes, box: Box, bins: int, *, fill: bool) -> None:
    """The bins of a box, filled with whole cells as RoIPool has it, or evenly divided."""
    for row in range(bins):
        for column in range(bins):
            (x1, x2), (y1, y2) = (
                _part(low, high, which, bins, whole=fill)
                for low, high, which in ((box[0], box[2], column), (box[1], box[3], row))
            )
            style = {"facecolor": (*BLUE, 0.15), "edgecolor": BLUE, "linewidth": 1.2}
            style |= {} if fill else {"facecolor": "none", "linestyle": ":"}
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **style))


def _part(low: float, high: float, which: int, parts: int, *, whole: bool) -> tuple[float, float]:
    """Where a part of a side begins and ends; with `whole`, at whole cells that hold it."""
    step = (high - low) / parts
    start, end = which * step, (which + 1) * step
    return (low + math.floor(start), low + math.ceil(end)) if whole else (low + start, low + end)


def _draw_weights(ax: Axes, place: list[float]) -> None:
    """The weights of the four cells around a place, where they are in the map."""
    rows, columns = (_neighbours(at) for at in place)
    for row, of_row in rows.items():
        for column, of_column in columns.items():
            weight = f"{of_row * of_column:.2f}"
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            ax.text(
                column + 0.5, row + 0.5, weight, ha="center", va="center", fontsize=8, bbox=ground
            )


def _neighbours(at: float) -> dict[int, float]:
    """The cells to both sides of a place along one axis, and their weights."""
    from_first = min(max(at - 0.5, 0.0), CELLS - 1.0)
    low = math.floor(from_first)
    share = from_first - low
    return {low: 1 - share} | ({low + 1: share} if share else {})

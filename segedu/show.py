"""Figures: pictures, masks and scores, drawn alike in every chapter.

Each function draws into one matplotlib `Axes` and says in its title what is to be seen; `grid`
makes the axes.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from segedu.data.sample import IGNORE
from segedu.palette import class_colours, colour_mask

OVERLAY = 0.55
"""Share of the class colour where a mask is laid over its picture."""


def grid(
    rows: int, columns: int, title: str = "", *, width: float = 2.6, height: float | None = None
) -> tuple[Figure, np.ndarray[Any, np.dtype[Any]]]:
    """A figure of `rows` x `columns` axes, `width` x `height` inches each, as an array of axes.

    With one row or one column the array has one dimension; with a single cell, still one.
    """
    size = (columns * width, rows * (width if height is None else height) + 0.35 * bool(title))
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    if title:
        figure.suptitle(title)
    return figure, axes.ravel() if 1 in (rows, columns) else axes


def image(ax: Axes, picture: Tensor, title: str = "") -> None:
    """A picture (3, H, W) in [0, 1]."""
    ax.imshow(_rgb(picture), interpolation="nearest")
    _bare(ax, title)


def mask(ax: Axes, classes: Tensor, title: str = "", *, num_classes: int) -> None:
    """A mask (H, W) of class indices in class colours; void is white."""
    ax.imshow(colour_mask(_numpy(classes), num_classes), interpolation="nearest")
    _bare(ax, title)


def overlay(
    ax: Axes, picture: Tensor, classes: Tensor, title: str = "", *, num_classes: int
) -> None:
    """A picture with the class colours of its mask laid over all but class 0 and void."""
    ax.imshow(blend(picture, classes, num_classes), interpolation="nearest")
    _bare(ax, title)


def blend(picture: Tensor, classes: Tensor, num_classes: int) -> np.ndarray[Any, np.dtype[Any]]:
    """The pixels that `overlay` draws: (H, W, 3) floats in [0, 1]."""
    pixels, index = _rgb(picture), _numpy(classes)
    covered = (index != 0) & (index != IGNORE)
    colour = colour_mask(index, num_classes) / 255
    return np.where(covered[..., None], (1 - OVERLAY) * pixels + OVERLAY * colour, pixels)


def instances(ax: Axes, picture: Tensor, sample: Any, title: str = "", *, num_classes: int) -> None:
    """A picture with the box of each object in its class's colour and each object's own tint."""
    colours = class_colours(num_classes) / 255
    ax.imshow(blend_objects(picture, sample["masks"]), interpolation="nearest")
    for (x1, y1, x2, y2), label in zip(
        _numpy(sample["boxes"]).tolist(), sample["labels"].tolist(), strict=True
    ):
        ax.add_patch(
            Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colours[label])
        )
    _bare(ax, title)


def blend_objects(picture: Tensor, masks: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """A picture with each object's own tint laid over it: (H, W, 3) floats in [0, 1].

    Args:
        picture: (3, H, W) in [0, 1].
        masks: (N, H, W); anything but 0 inside the object.
    """
    pixels = _rgb(picture)
    tints = class_colours(len(masks) + 8)[1:] / 255
    for n, inside in enumerate(_numpy(masks).astype(bool)):
        pixels[inside] = (1 - OVERLAY) * pixels[inside] + OVERLAY * tints[n]
    return pixels


def boxes(
    ax: Axes, corners: Tensor, colour: Any = "white", *, style: str = "-", width: float = 1.5
) -> None:
    """Outlines of boxes (N, 4), XYXY in pixels, over a picture; parts outside it are not seen.

    Args:
        ax: With a picture in it.
        corners: (0, 0) is the outer corner of the top-left pixel.
        colour: One colour for all, or one for each.
        style: Matplotlib's name of a line style.
        width: Of the lines, in points.
    """
    for n, (x1, y1, x2, y2) in enumerate(_numpy(corners).tolist()):
        edge = colour[n] if isinstance(colour, list) else colour
        outline = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1)
        outline.set(fill=False, edgecolor=edge, linestyle=style, linewidth=width)
        ax.add_patch(outline)


def heat(
    ax: Axes,
    values: Tensor,
    title: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    colours: str = "cividis",
) -> None:
    """A map (H, W) of numbers, with a bar that says which colour is which number."""
    drawn = ax.imshow(_numpy(values), vmin=low, vmax=high, cmap=colours, interpolation="nearest")
    ax.figure.colorbar(drawn, ax=ax, shrink=0.8)
    _bare(ax, title)


def numbers(ax: Axes, values: Tensor, title: str = "", *, form: str = ".2f") -> None:
    """A small array (H, W) with each number written into its pixel."""
    array = _numpy(values).astype(float)
    ax.imshow(array, cmap="cividis", interpolation="nearest")
    middle = (np.nanmin(array) + np.nanmax(array)) / 2
    for (row, column), value in np.ndenumerate(array):
        colour = "black" if value > middle else "white"
        ax.text(column, row, format(value, form), ha="center", va="center", color=colour)
    _bare(ax, title)


def legend(figure: Figure, classes: Sequence[str]) -> None:
    """The classes' names beside their colours, below the figure."""
    colours = class_colours(len(classes)) / 255
    patches = [
        Patch(facecolor=colour, label=name) for colour, name in zip(colours, classes, strict=True)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(classes), 8))


def bars(ax: Axes, scores: Tensor, classes: Sequence[str], title: str = "") -> None:
    """One horizontal bar for each class's score in [0, 1], with its number; nan is 'none'."""
    values = _numpy(scores).astype(float)
    ax.barh(range(len(classes)), np.nan_to_num(values), color=class_colours(len(classes)) / 255)
    for row, value in enumerate(values):
        ax.text(
            0.02 + np.nan_to_num(value),
            row,
            "none" if np.isnan(value) else f"{value:.2f}",
            va="center",
        )
    ax.set(yticks=range(len(classes)), yticklabels=classes, xlim=(0, 1.15), title=title)
    ax.invert_yaxis()


def _bare(ax: Axes, title: str) -> None:
    ax.set(xticks=[], yticks=[], title=title)


def _rgb(picture: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """(H, W, 3) floats in [0, 1], a copy."""
    return _numpy(picture).transpose(1, 2, 0).clip(0, 1).astype(float)


def _numpy(values: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    return values.detach().cpu().numpy()

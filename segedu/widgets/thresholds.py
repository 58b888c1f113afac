"""A threshold, its histogram and its mask: chapter 03."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Float64, Int64
from matplotlib.figure import Figure
from torch import Tensor

from segedu import show
from segedu.errors import InputError
from segedu.widgets.controls import BLUE, RED, explorer

if TYPE_CHECKING:
    import ipywidgets


def plot_threshold(grey: Float[Tensor, "h w"], level: float) -> Figure:
    """A grey picture, its histogram cut at a level, and the mask of the pixels above it.

    Chapter 03 derives the curve over the histogram: the variance between the two groups, whose top
    is Otsu's threshold.

    Args:
        grey: Values in [0, 1]; they are rounded to 256 levels.
        level: The threshold, in [0, 1].

    Raises:
        InputError: If `level` is not in [0, 1].
    """
    if not 0 <= level <= 1:
        raise InputError(f"level is {level}; expected a grey value in [0, 1]")
    levels = (grey * 255).round().long()
    cut = round(level * 255)
    between = _between_variance(levels)
    bright = levels > cut
    share = between[cut] / between.max().clamp(min=1e-12)
    figure, axes = show.grid(1, 3, width=3.6, height=2.6)
    figure.suptitle(f"Above {cut}: {bright.double().mean():.0%} of the pixels")
    show.image(axes[0], grey.expand(3, -1, -1), "picture")
    axes[1].bar(range(256), levels.flatten().bincount(minlength=256).tolist(), 1, color="0.6")
    top = axes[1].get_ylim()[1]
    axes[1].plot(between / between.max().clamp(min=1e-12) * top, color=BLUE)
    axes[1].axvline(cut, color=RED)
    axes[1].set(
        title=f"variance between: {share:.0%} of the largest", xlabel="grey value", yticks=[]
    )
    show.mask(axes[2], bright.long(), "mask", num_classes=2)
    return figure


def explore_threshold(grey: Float[Tensor, "h w"] | None = None) -> "ipywidgets.VBox":
    """`plot_threshold` with a slider for the level; without a picture, scikit-image's coins."""
    import ipywidgets

    if grey is None:
        from skimage.data import coins

        grey = torch.tensor(coins()) / 255  # type: ignore[no-untyped-call]
    level = ipywidgets.FloatSlider(0.2, min=0, max=1, step=0.02, description="threshold")
    return explorer(lambda level: plot_threshold(grey, level), level=level)


def _between_variance(levels: Int64[Tensor, "h w"]) -> Float64[Tensor, " 256"]:
    """Variance between the groups of the cut after each of 256 levels; 0 if one is empty."""
    share = torch.bincount(levels.flatten(), minlength=256).double() / levels.numel()
    dark, first = share.cumsum(0), (share * torch.arange(256)).cumsum(0)
    mean = first[-1]
    return ((mean * dark - first) ** 2 / (dark * (1 - dark))).where(dark * (1 - dark) > 1e-9, 0)

"""Which pixels a stack of dilated convolutions touches, and how often: chapter 12."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from segedu import show
from segedu.errors import InputError
from segedu.widgets.controls import explorer

if TYPE_CHECKING:
    import ipywidgets

PLANS = ("1, 1, 1", "2, 2, 2", "1, 2, 3", "1, 2, 4", "1, 2, 5", "1, 3, 9", "1, 2, 9", "2, 4, 8")
"""Dilations to choose from in `explore_touched`."""


def touched(rates: Sequence[int]) -> Float64[Tensor, "side side"]:
    """By how many paths each input pixel reaches the middle output of 3x3 convolutions.

    Args:
        rates: Their dilations, the first layer first; the order does not matter for the counts.

    Raises:
        InputError: If there is none, or one is less than 1.
    """
    if not rates or min(rates) < 1:
        raise InputError(f"dilations are {list(rates)}; expected one or more, each at least 1")
    side = 1 + 2 * sum(rates)
    paths = torch.zeros(1, 1, side, side, dtype=torch.float64)
    paths[..., side // 2, side // 2] = 1
    taps = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    for rate in rates:
        paths = F.conv2d(paths, taps, padding=rate, dilation=rate)
    return paths[0, 0]


def plot_touched(plans: Sequence[Sequence[int]]) -> Figure:
    """For each plan of dilations, the pixels that the middle output sees; holes are white.

    The colour says how many paths lead there, from few (dark) to many (bright), and the title how
    many of the pixels are seen at all. Chapter 12 counts them.
    """
    figure, axes = show.grid(1, len(plans), width=2.9, height=3.1)
    for ax, rates in zip(axes, plans, strict=True):
        paths = touched(rates)
        seen = int((paths > 0).sum())
        ways = paths.where(paths > 0, torch.nan).log()
        ax.imshow(ways.numpy(), cmap="cividis", interpolation="nearest")
        name = ", ".join(map(str, rates))
        ax.set(title=f"{name}\n{seen} of {paths.numel()}", xticks=[], yticks=[])
    figure.suptitle("Pixels seen with dilations ...")
    return figure


def explore_touched() -> "ipywidgets.VBox":
    """`plot_touched` of two plans side by side, each with a list to choose from."""
    import ipywidgets

    left, right = (
        ipywidgets.Dropdown(options=PLANS, value=value, description=side)
        for side, value in (("left", "2, 2, 2"), ("right", "1, 2, 5"))
    )

    def plot(left: str, right: str) -> Figure:
        return plot_touched([[int(rate) for rate in plan.split(",")] for plan in (left, right)])

    return explorer(plot, left=left, right=right)

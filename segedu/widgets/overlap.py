"""Two discs, their IoU and their Dice: chapter 08."""

from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

from segedu import show
from segedu.errors import InputError
from segedu.widgets.controls import RED, explorer

if TYPE_CHECKING:
    import ipywidgets


def plot_overlap(right: int, down: int, radius: int) -> Figure:
    """Two discs, the true one and a predicted one: what is hit, missed and false; IoU and Dice.

    The true disc has the radius 12 and lies in the middle of 48 x 48 pixels. Chapter 08 derives the
    curve: Dice is 2 IoU / (1 + IoU).

    Args:
        right: How many pixels the predicted disc lies to the right of the true one.
        down: How many pixels it lies below it.
        radius: Of the predicted disc, in pixels, 0 or more; 0 is no disc.

    Raises:
        InputError: If the radius is negative.
    """
    if radius < 0:
        raise InputError(f"radius is {radius}; expected a number of pixels, 0 or more")
    places = torch.arange(48) + 0.5 - 24
    true = places[:, None] ** 2 + places**2 < 12**2
    predicted = (places[:, None] - down) ** 2 + (places - right) ** 2 < radius**2
    hit, either = int((true & predicted).sum()), int((true | predicted).sum())
    iou, dice = hit / either, 2 * hit / (either + hit)
    figure, axes = show.grid(1, 2, f"IoU {iou:.2f}, Dice {dice:.2f}", width=3.6, height=3.2)
    kinds = true.long() + 2 * predicted  # 0 ground, 1 missed, 2 false alarm, 3 hit
    show.mask(axes[0], kinds, f"hit {hit} of {either} pixels in either", num_classes=4)
    all_iou = torch.linspace(0, 1, 101)
    axes[1].plot(all_iou, 2 * all_iou / (1 + all_iou), color="black", label="2 IoU / (1 + IoU)")
    axes[1].plot(all_iou, all_iou, ":", color="0.6", label="equal")
    axes[1].plot(iou, dice, "o", color=RED, label="these two discs")
    axes[1].set(title="Dice is never below IoU", xlabel="IoU", ylabel="Dice")
    axes[1].legend()
    show.legend(figure, ["ground", "missed", "false alarm", "hit"])
    return figure


def explore_overlap() -> "ipywidgets.VBox":
    """`plot_overlap` with sliders that move and resize the predicted disc."""
    import ipywidgets

    return explorer(
        plot_overlap,
        right=ipywidgets.IntSlider(6, min=-24, max=24, description="right"),
        down=ipywidgets.IntSlider(0, min=-24, max=24, description="down"),
        radius=ipywidgets.IntSlider(12, min=0, max=24, description="radius"),
    )

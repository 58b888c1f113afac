"""Four pixels and their cross-entropy: chapter 06."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

from segedu import show
from segedu.errors import InputError
from segedu.widgets.controls import explorer

if TYPE_CHECKING:
    import ipywidgets


def plot_four_pixels(logits: Sequence[float], true_class: Sequence[int]) -> Figure:
    """Of four pixels and two classes: probabilities, cross-entropy, and its gradient p - y.

    Args:
        logits: Of each pixel, by how much the score of class 1 exceeds that of class 0.
        true_class: Of each pixel, 0 or 1.

    Chapter 06 derives what is drawn. The gradient is that of the sum over the four pixels, in the
    score of class 1.
    """
    z, y = torch.tensor([float(logit) for logit in logits]), torch.tensor(true_class)
    if z.shape != (4,) or y.shape != (4,):
        raise InputError(f"{len(z)} logits and {len(y)} classes; expected four of each")
    p = z.sigmoid()
    loss = torch.nn.functional.softplus(torch.where(y == 1, -z, z))
    figure, axes = show.grid(1, 4, f"Cross-entropy, mean of four pixels: {loss.mean():.3f}")
    show.numbers(axes[0], z.reshape(2, 2), "logit of class 1")
    show.numbers(axes[1], p.reshape(2, 2), "p of class 1")
    show.numbers(axes[2], loss.reshape(2, 2), "-log p of the true class")
    show.numbers(axes[3], (p - y).reshape(2, 2), "gradient p - y")
    for place, label in enumerate(true_class):
        colour = axes[0].texts[place].get_color()  # of the number above it
        where = (place % 2, place // 2 + 0.35)
        axes[0].text(*where, f"true: {label}", ha="center", size="small", color=colour)
    return figure


def explore_four_pixels() -> "ipywidgets.VBox":
    """`plot_four_pixels` with a slider for each pixel's logit; the true classes are 1, 0, 0, 1."""
    import ipywidgets

    sliders = {
        f"pixel_{i}": ipywidgets.FloatSlider(
            value, min=-8, max=8, step=0.5, description=f"pixel {i}"
        )
        for i, value in enumerate([2.0, -1.0, 0.5, -3.0])
    }
    return explorer(
        lambda **logits: plot_four_pixels(list(logits.values()), [1, 0, 0, 1]), **sliders
    )

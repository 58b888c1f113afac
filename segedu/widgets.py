"""Figures with sliders: for each a plain function that draws it, and one that puts controls around.

`plot_X(settings)` draws a still figure, as a chapter shows it where no widget can run, and as tests
look at it. `explore_X()` gives the same figure with controls, redrawn whenever one is moved.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float, Float64, Int64
from matplotlib.figure import Figure
from torch import Tensor

from segedu import show
from segedu.errors import InputError
from segedu.palette import class_colours

if TYPE_CHECKING:
    import ipywidgets

_BLUE, _RED = (class_colours(8)[i] / 255 for i in (6, 7))


def explorer(plot: Callable[..., Figure], **controls: Any) -> "ipywidgets.VBox":
    """`plot` with one control for each of its arguments, drawn anew whenever a control moves.

    Args:
        plot: From the controls' values, by name, to a figure.
        controls: An ipywidgets control for each argument.

    Raises:
        InputError: If ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise InputError(
            "figures with sliders need ipywidgets; pip install 'segedu[course]'"
        ) from error
    picture = ipywidgets.Image(format="png")

    def redraw(_change: object = None) -> None:
        figure = plot(**{name: control.value for name, control in controls.items()})
        picture.value = _png(figure)

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([*controls.values(), picture])


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
    axes[1].plot(between / between.max().clamp(min=1e-12) * top, color=_BLUE)
    axes[1].axvline(cut, color=_RED)
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


def _png(figure: Figure) -> bytes:
    """The figure as a PNG; it is closed, so that a notebook does not show it a second time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    plt.close(figure)
    return file.getvalue()

"""Figures with sliders: for each a plain function that draws it, and one that puts controls around.

`plot_X(settings)` draws a still figure, as a chapter shows it where no widget can run, and as tests
look at it. `explore_X()` gives the same figure with controls, redrawn whenever one is moved.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from segedu import show
from segedu.errors import InputError

if TYPE_CHECKING:
    import ipywidgets


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
        axes[0].text(place % 2, place // 2 + 0.35, f"true: {label}", ha="center", size="small")
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


def _png(figure: Figure) -> bytes:
    """The figure as a PNG; it is closed, so that a notebook does not show it a second time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    plt.close(figure)
    return file.getvalue()

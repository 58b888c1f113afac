"""The steps of a convolution, and what a chain of them sees: chapter 05."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from segedu import show
from segedu.models.arithmetic import Layer, output_length, receptive_field, taps
from segedu.widgets.controls import BLUE, RED, explorer

if TYPE_CHECKING:
    import ipywidgets


def plot_convolution_step(layer: Layer, step: int, length: int = 6) -> Figure:
    """One step of a convolution: the taps over a padded picture, and the outputs so far.

    The picture has the numbers 1, 2, 3, ... in its pixels, and each tap the weight 1, so that an
    output is the sum of the pixels under the taps. Chapter 05 says how many outputs there are.

    Args:
        layer: Kernel, stride, padding and dilation, alike for rows and columns.
        step: Which output is made now, row by row from 0; beyond the last one, the last.
        length: Height and width of the picture.

    Raises:
        InputError: If the kernel spans more than the padded picture.
    """
    side = output_length(length, layer)
    row, column = divmod(min(step, side * side - 1), side)
    picture = torch.arange(1.0, length * length + 1).reshape(length, length)
    padded = torch.nn.functional.pad(picture, [layer.padding] * 4)
    weight = torch.ones(1, 1, layer.kernel, layer.kernel)
    sums = torch.nn.functional.conv2d(
        padded[None, None], weight, stride=layer.stride, dilation=layer.dilation
    )[0, 0]
    done = torch.arange(side * side).reshape(side, side) <= row * side + column
    figure, axes = show.grid(1, 2, width=3.4, height=3.2)
    places = "1 place a row" if side == 1 else f"{side} places a row"
    figure.suptitle(f"{length} + 2 x {layer.padding} pixels, span {layer.span}: {places}")
    show.numbers(axes[0], padded, f"taps of output ({row}, {column})", form=".0f")
    show.numbers(axes[1], sums.where(done, torch.nan), "outputs so far", form=".0f")
    for i, j in product(range(layer.kernel), repeat=2):
        place = row * layer.stride + i * layer.dilation, column * layer.stride + j * layer.dilation
        _frame(axes[0], *place)
    _frame(axes[1], row, column)
    return figure


def explore_convolution_step() -> "ipywidgets.VBox":
    """`plot_convolution_step` with sliders for the layer and the step."""
    import ipywidgets

    sliders = {
        name: ipywidgets.IntSlider(value, min=least, max=most, description=name)
        for name, value, least, most in (
            ("kernel", 3, 1, 4),
            ("stride", 1, 1, 3),
            ("padding", 0, 0, 2),
            ("dilation", 1, 1, 2),
            ("step", 0, 0, 99),
        )
    }
    return explorer(
        lambda step, **layer: plot_convolution_step(Layer(**layer), step, length=7), **sliders
    )


def plot_receptive_field(layers: Sequence[Layer]) -> Figure:
    """A chain of layers along one axis, and all that one output pixel in the middle sees.

    Each row of dots is a map, the input at the bottom; a dot stands over the middle of what it
    sees. Padding is left out. Chapter 05 derives the numbers in the title.

    Args:
        layers: The first layer first; their padding is taken as 0.
    """
    bare = [replace(layer, padding=0) for layer in layers]
    field = receptive_field(bare)
    lengths = [field.width + 4 * field.jump]
    for layer in bare:
        lengths.append(output_length(lengths[-1], layer))
    seen = torch.arange(lengths[-1]) == lengths[-1] // 2
    figure, [ax] = show.grid(1, 1, width=8, height=0.7 + 0.75 * len(lengths))
    for level in range(len(bare), -1, -1):
        here = receptive_field(bare[:level])
        middles = here.start + (here.width - 1) / 2 + torch.arange(lengths[level]) * here.jump
        ax.scatter(middles, [level] * len(middles), s=14, color="0.75")
        ax.scatter(middles[seen], [level] * int(seen.sum()), s=22, color=RED, zorder=3)
        if level:
            below = receptive_field(bare[: level - 1])
            edges = taps(lengths[level - 1], bare[level - 1]) & seen[:, None]
            offset = below.start + (below.width - 1) / 2
            for top, bottom in edges.nonzero().tolist():
                ends = [middles[top].item(), offset + bottom * below.jump]
                ax.plot(ends, [level, level - 1], color=BLUE, linewidth=0.6)
            seen = edges.any(dim=0)
    ax.set(title=f"width {field.width}, of which {int(seen.sum())} are seen; jump {field.jump}")
    names = ["input", *(f"layer {n + 1}" for n in range(len(bare)))]
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="input pixel")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def explore_receptive_field() -> "ipywidgets.VBox":
    """`plot_receptive_field` of three layers, with controls for kernel, stride and dilations."""
    import ipywidgets

    kernel = ipywidgets.Dropdown(options=[2, 3, 5], value=3, description="kernel")
    stride = ipywidgets.Dropdown(options=[1, 2], value=1, description="stride")
    dilations = ipywidgets.Dropdown(
        options=["1, 1, 1", "2, 2, 2", "1, 2, 4", "1, 3, 9"], description="dilations"
    )

    def plot(kernel: int, stride: int, dilations: str) -> Figure:
        return plot_receptive_field(
            [Layer(kernel, stride, dilation=int(d)) for d in dilations.split(",")]
        )

    return explorer(plot, kernel=kernel, stride=stride, dilations=dilations)


def _frame(ax: Axes, row: int, column: int) -> None:
    """A thick frame around one pixel."""
    ax.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=RED, linewidth=2.5)
    )

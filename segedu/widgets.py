"""Figures with sliders: for each a plain function that draws it, and one that puts controls around.

`plot_X(settings)` draws a still figure, as a chapter shows it where no widget can run, and as tests
look at it. `explore_X()` gives the same figure with controls, redrawn whenever one is moved.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float, Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from segedu import show
from segedu.errors import InputError
from segedu.models.arithmetic import Layer, output_length, receptive_field, taps
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
    figure.suptitle(
        f"{length} + 2 x {layer.padding} pixels, span {layer.span}: {side} places a row"
    )
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
        ax.scatter(middles[seen], [level] * int(seen.sum()), s=22, color=_RED, zorder=3)
        if level:
            below = receptive_field(bare[: level - 1])
            edges = taps(lengths[level - 1], bare[level - 1]) & seen[:, None]
            offset = below.start + (below.width - 1) / 2
            for top, bottom in edges.nonzero().tolist():
                ends = [middles[top].item(), offset + bottom * below.jump]
                ax.plot(ends, [level, level - 1], color=_BLUE, linewidth=0.6)
            seen = edges.any(dim=0)
    ax.set(title=f"width {field.width}, of which {int(seen.sum())} are seen; jump {field.jump}")
    names = ["input", *(f"layer {n + 1}" for n in range(len(bare)))]
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="input pixel")
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
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_RED, linewidth=2.5)
    )


def _between_variance(levels: Int64[Tensor, "h w"]) -> Float64[Tensor, " 256"]:
    """Variance between the groups of the cut after each of 256 levels; 0 if one is empty."""
    share = torch.bincount(levels.flatten(), minlength=256).double() / levels.numel()
    dark, first = share.cumsum(0), (share * torch.arange(256)).cumsum(0)
    mean = first[-1]
    return ((mean * dark - first) ** 2 / (dark * (1 - dark))).where(dark * (1 - dark) > 1e-9, 0)


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
    axes[1].plot(iou, dice, "o", color=_RED, label="these two discs")
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


def _png(figure: Figure) -> bytes:
    """The figure as a PNG; it is closed, so that a notebook does not show it a second time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    plt.close(figure)
    return file.getvalue()

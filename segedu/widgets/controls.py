"""Puts controls around a plotting function."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from segedu.errors import InputError
from segedu.palette import class_colours

if TYPE_CHECKING:
    import ipywidgets

BLUE, RED = (class_colours(8)[i] / 255 for i in (6, 7))


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


def _png(figure: Figure) -> bytes:
    """The figure as a PNG; it is closed, so that a notebook does not show it a second time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    plt.close(figure)
    return file.getvalue()

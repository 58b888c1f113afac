"""Precision and recall under a moving IoU threshold: chapter 19."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from segedu import show
from segedu.metrics.instance_matching import THRESHOLDS
from segedu.metrics.instances import InstanceAP
from segedu.widgets.controls import BLUE, RED, explorer

if TYPE_CHECKING:
    import ipywidgets

LEVELS = tuple(round(float(threshold), 2) for threshold in THRESHOLDS)


def plot_precision_recall(
    metric: InstanceAP, label: int, threshold: float, *, name: str = ""
) -> Figure:
    """One class's precision against its recall at an IoU threshold, and its AP at all ten.

    Left, a dot after each detection, the highest score first, and the interpolated curve, whose
    mean height is the AP. Chapter 19 derives it.

    Args:
        metric: With at least one object of that class.
        label: The class.
        threshold: One of 0.5, 0.55, ..., 0.95.
        name: What to call the class; its number otherwise.

    Raises:
        InputError: If the class has no object, or there is no such threshold.
    """
    curve = metric.curve(label, threshold)
    all_aps = [metric.curve(label, level).ap for level in LEVELS]
    figure, axes = show.grid(1, 2, width=4, height=3.2)
    figure.suptitle(f"{name or f'class {label}'} at IoU {threshold:.2f}: AP {curve.ap:.2f}")
    recalls = [number / 100 for number in range(101)]
    axes[0].fill_between(recalls, curve.interpolated, step="pre", color=BLUE, alpha=0.2)
    axes[0].step(recalls, curve.interpolated, where="pre", color=BLUE, label="interpolated")
    axes[0].plot(curve.recall, curve.precision, ".-", color="0.4", lw=0.8, label="as counted")
    axes[0].set(title="each dot is one more detection", xlabel="recall", ylabel="precision")
    axes[0].set(xlim=(0, 1.02), ylim=(0, 1.04))
    axes[0].legend(loc="lower left")
    axes[1].plot(LEVELS, all_aps, "o-", color="0.6")
    axes[1].plot(threshold, curve.ap, "o", color=RED)
    mean = sum(all_aps) / len(all_aps)
    axes[1].axhline(mean, color=BLUE, ls="--", label=f"mean {mean:.2f}")
    axes[1].set(title="AP at each threshold", xlabel="IoU threshold", ylabel="AP", ylim=(0, 1.04))
    axes[1].legend(loc="lower left")
    return figure


def explore_precision_recall(
    metric: InstanceAP, names: Sequence[str] | None = None
) -> "ipywidgets.VBox":
    """`plot_precision_recall` with a slider for the threshold and a choice of the class.

    Args:
        metric: With at least one object.
        names: Of the classes, by their index; their numbers otherwise.
    """
    import ipywidgets

    def named(label: int) -> str:
        return names[label] if names else f"class {label}"

    classes = [(named(label), label) for label in metric.per_class()]
    return explorer(
        lambda label, threshold: plot_precision_recall(metric, label, threshold, name=named(label)),
        label=ipywidgets.Dropdown(options=classes, description="class"),
        threshold=ipywidgets.SelectionSlider(options=LEVELS, value=0.5, description="IoU"),
    )

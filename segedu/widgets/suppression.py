"""Many boxes around few objects, thinned by NMS of three kinds: chapter 16."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from segedu import show
from segedu.errors import InputError
from segedu.models.mask_rcnn.nms import batched_nms, nms, soft_nms_linear
from segedu.palette import class_colours
from segedu.widgets.controls import explorer

if TYPE_CHECKING:
    import ipywidgets

KINDS = ("all classes together", "class by class", "soft")


def plot_nms(
    image: Float[Tensor, "3 h w"],
    found: Mapping[str, Tensor],
    iou_threshold: float,
    *,
    kind: str = KINDS[0],
    least_score: float = 0.3,
) -> Figure:
    """Boxes before and after NMS, in the colours of their classes, with the scores of those kept.

    Args:
        image: In [0, 1].
        found: "boxes" (N, 4), XYXY in pixels; "scores" (N,) in [0, 1]; "labels" (N,), classes.
        iou_threshold: In [0, 1]: boxes that overlap a better one by more are dropped or, by the
            soft kind, lowered in score by the factor 1 - IoU.
        kind: One of `KINDS`.
        least_score: Boxes with a lower score, after it may have been lowered, are not drawn.

    Raises:
        InputError: If there is no such kind, or the threshold is not in [0, 1].
    """
    if kind not in KINDS or not 0 <= iou_threshold <= 1:
        raise InputError(
            f"kind is {kind!r}, iou_threshold {iou_threshold}; expected one of {KINDS}, and a "
            "number in [0, 1]"
        )
    kept, scores = _thinned(found, iou_threshold, kind)
    kept, scores = kept[scores >= least_score], scores[scores >= least_score]
    before = (found["scores"] >= least_score).nonzero()[:, 0]
    title = f"NMS, {kind}, threshold {iou_threshold:.2f}"
    figure, axes = show.grid(1, 2, title, width=3.4, height=3.3)
    for ax, chosen, title in zip(axes, (before, kept), ("before", "after"), strict=True):
        show.image(ax, image, f"{title}: {len(chosen)} boxes")
        colours = class_colours(8) / 255
        edges = [colours[label % 8] for label in found["labels"][chosen].tolist()]
        show.boxes(ax, found["boxes"][chosen], edges)
    _write_scores(axes[1], found["boxes"][kept], scores)
    return figure


def explore_nms(image: Float[Tensor, "3 h w"], found: Mapping[str, Tensor]) -> "ipywidgets.VBox":
    """`plot_nms` with sliders for both thresholds, and a choice of the kind."""
    import ipywidgets

    def plot(**settings: Any) -> Figure:
        return plot_nms(image, found, **settings)

    return explorer(
        plot,
        iou_threshold=ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="IoU"),
        kind=ipywidgets.Dropdown(options=KINDS, description="kind"),
        least_score=ipywidgets.FloatSlider(0.3, min=0, max=1, step=0.05, description="least score"),
    )


def _thinned(
    found: Mapping[str, Tensor], iou_threshold: float, kind: str
) -> tuple[Int64[Tensor, " k"], Float[Tensor, " k"]]:
    """What is kept, best first, and its scores."""
    boxes, scores = found["boxes"], found["scores"]
    if kind == "soft":
        return soft_nms_linear(boxes, scores, iou_threshold)
    if kind == "class by class":
        kept = batched_nms(boxes, scores, found["labels"], iou_threshold)
    else:
        kept = nms(boxes, scores, iou_threshold)
    return kept, scores[kept]


def _write_scores(ax: Axes, boxes: Tensor, scores: Tensor) -> None:
    """Each box's score at its upper left corner."""
    height, width = ax.images[0].get_size()
    for (x1, y1, _, _), score in zip(boxes.tolist(), scores.tolist(), strict=True):
        x, y = min(max(x1, 0), 0.9 * width), min(max(y1, 0), 0.95 * height)
        ax.text(x, y, f"{score:.2f}", va="top", fontsize=7, backgroundcolor=(1, 1, 1, 0.7))

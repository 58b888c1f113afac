import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from test_widgets import drive

from segedu import widgets
from segedu.data.scenes import Scenes
from segedu.errors import InputError


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    yield
    plt.close("all")


def two_objects() -> dict:
    """64 x 64 pixels with a box that an anchor of size 16 at (32, 32) fits exactly, and a speck."""
    boxes = torch.tensor([[24.0, 24, 40, 40], [1, 1, 3, 3]])
    return {"image": torch.zeros(3, 64, 64), "boxes": boxes}


def corners(ax) -> list[list[float]]:
    return [(patch.get_bbox().extents + 0.5).round(3).tolist() for patch in ax.patches]


def test_the_anchor_figure_tells_which_objects_a_level_fits():
    figure = widgets.plot_anchors(two_objects(), 16, 16, down=2 / 3, right=2 / 3)
    assert figure.get_suptitle() == "48 anchors fit 1 of 2 objects"
    assert [bar.get_width() for bar in figure.axes[1].patches] == [1.0, 4 / 256]
    fitted, speck, *anchors = corners(figure.axes[0])
    assert (fitted, speck) == ([24, 24, 40, 40], [1, 1, 3, 3])
    assert anchors == [[21, 26, 43, 38], [24, 24, 40, 40], [26, 21, 38, 43]]
    styles = [patch.get_linestyle() for patch in figure.axes[0].patches]
    assert styles[:2] == ["-", ":"]
    dots = figure.axes[0].collections[0].get_offsets() + 0.5
    assert sorted(map(tuple, dots.tolist())) == [
        (x, y) for x in range(0, 64, 16) for y in range(0, 64, 16)
    ]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "1"]


def test_an_overlap_of_exactly_one_half_fits():
    sample = {"image": torch.zeros(3, 64, 64), "boxes": torch.tensor([[24.0, 24, 40, 32]])}
    figure = widgets.plot_anchors(sample, 16, 16, down=0, right=0)
    assert [bar.get_width() for bar in figure.axes[1].patches] == [0.5]
    assert figure.get_suptitle() == "48 anchors fit 1 of 1 objects"


def test_the_first_and_the_last_place_are_the_corners_of_the_grid():
    first = widgets.plot_anchors(two_objects(), 16, 16, down=0, right=1)
    assert corners(first.axes[0])[3] == [40, -8, 56, 8]
    last = widgets.plot_anchors(two_objects(), 16, 16, down=1, right=0)
    assert corners(last.axes[0])[3] == [-8, 40, 8, 56]


def test_a_picture_without_objects_and_a_place_outside_it_are_refused():
    empty = {"image": torch.zeros(3, 64, 64), "boxes": torch.zeros(0, 4)}
    for sample, stride, down in ((empty, 16, 0), (two_objects(), 16, 1.5), (two_objects(), 65, 0)):
        with pytest.raises(InputError, match="expected one or more of each"):
            widgets.plot_anchors(sample, stride, 16, down=down, right=0)


def test_every_level_size_and_place_draws_another_picture():
    seen = drive(widgets.explore_anchors(Scenes(1)[0]))
    assert len(set(seen)) >= 0.5 * len(seen)  # the coarsest level has few places


def detections() -> dict[str, torch.Tensor]:
    """Two boxes of one class with IoU 0.6, a better one of another class inside, one apart."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 9], [30, 30, 40, 40]])
    return {
        "boxes": boxes,
        "scores": torch.tensor([0.8, 0.7, 0.9, 0.1]),
        "labels": torch.tensor([1, 1, 2, 1]),
    }


@pytest.mark.parametrize(
    ("kind", "threshold", "scores"),
    [
        ("all classes together", 0.5, [0.9]),
        ("all classes together", 0.7, [0.9, 0.7]),
        ("all classes together", 0.95, [0.9, 0.8, 0.7]),
        ("class by class", 0.5, [0.9, 0.8]),
        ("soft", 0.7, [0.9, 0.7]),
        ("soft", 0.8, [0.9, 0.7]),
        ("soft", 0.6, [0.9]),
    ],
)
def test_the_nms_figure_shows_what_is_kept_and_its_scores(kind, threshold, scores):
    figure = widgets.plot_nms(torch.zeros(3, 48, 48), detections(), threshold, kind=kind)
    assert figure.get_suptitle() == f"NMS, {kind}, threshold {threshold:.2f}"
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["before: 3 boxes", f"after: {len(scores)} boxes"]
    assert [float(text.get_text()) for text in figure.axes[1].texts] == scores
    assert len(figure.axes[1].patches) == len(scores)


def test_a_class_has_one_colour_and_low_scores_are_left_out():
    image = torch.zeros(3, 48, 48)
    figure = widgets.plot_nms(image, detections(), 1.0, least_score=0.05)
    colours = [patch.get_edgecolor() for patch in figure.axes[0].patches]
    assert colours[0] == colours[1] == colours[3] != colours[2]
    assert figure.axes[1].get_title() == "after: 4 boxes"
    soft = widgets.plot_nms(image, detections(), 0.5, kind="soft", least_score=0.2)
    assert [text.get_text() for text in soft.axes[1].texts] == ["0.90", "0.23"]


def test_another_kind_of_nms_and_a_threshold_above_1_are_refused():
    for kind, threshold in (("hard", 0.5), ("soft", 1.5)):
        with pytest.raises(InputError, match="expected one of"):
            widgets.plot_nms(torch.zeros(3, 8, 8), detections(), threshold, kind=kind)


def test_every_kind_and_threshold_is_drawn():
    seen = drive(widgets.explore_nms(torch.zeros(3, 48, 48), detections()))
    assert len(set(seen)) >= 5

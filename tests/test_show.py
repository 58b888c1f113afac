import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from segedu import show
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.palette import class_colours

SAMPLE = Scenes(1)[0]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_a_grid_has_as_many_axes_as_asked_for():
    assert show.grid(1, 3)[1].shape == (3,)
    assert show.grid(2, 1)[1].shape == (2,)
    assert show.grid(1, 1)[1].shape == (1,)
    figure, axes = show.grid(2, 3, "what to see", width=2, height=1)
    assert axes.shape == (2, 3)
    assert figure.get_suptitle() == "what to see"
    assert figure.get_size_inches().tolist() == pytest.approx([6, 2.35])


def test_a_picture_is_drawn_as_it_is():
    _, (ax,) = show.grid(1, 1)
    show.image(ax, SAMPLE["image"], "a scene")
    assert np.allclose(ax.images[0].get_array(), SAMPLE["image"].permute(1, 2, 0), atol=1e-6)
    assert (ax.get_title(), list(ax.get_xticks())) == ("a scene", [])


def test_a_mask_is_drawn_in_class_colours_with_void_white():
    _, (ax,) = show.grid(1, 1)
    show.mask(ax, torch.tensor([[0, 1], [IGNORE, 2]]), num_classes=3)
    drawn = ax.images[0].get_array()
    assert drawn[1, 0].tolist() == [255, 255, 255]
    assert drawn[1, 1].tolist() == class_colours(3)[2].tolist()


def test_an_overlay_leaves_background_and_void_as_they_are():
    image = torch.full((3, 1, 3), 0.5)
    drawn = show.blend(image, torch.tensor([[0, IGNORE, 1]]), 2)
    expected = 0.45 * 0.5 + 0.55 * class_colours(2)[1] / 255
    np.testing.assert_allclose(drawn[0], [[0.5] * 3, [0.5] * 3, expected])
    _, (ax,) = show.grid(1, 1)
    show.overlay(ax, image, torch.tensor([[0, IGNORE, 1]]), num_classes=2)
    np.testing.assert_allclose(ax.images[0].get_array(), drawn)


def test_each_object_gets_its_box():
    _, (ax,) = show.grid(1, 1)
    show.instances(ax, SAMPLE["image"], SAMPLE, num_classes=len(CLASSES))
    corners = [
        (p.get_x() + 0.5, p.get_y() + 0.5, p.get_width(), p.get_height()) for p in ax.patches
    ]
    expected = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in SAMPLE["boxes"].tolist()]
    assert corners == expected
    changed = (
        np.abs(ax.images[0].get_array() - SAMPLE["image"].permute(1, 2, 0).numpy()).max(2) > 1e-6
    )
    assert not (changed & (SAMPLE["instance_map"].numpy() == 0)).any()


def test_boxes_are_drawn_around_their_pixels_in_one_colour_or_each_in_its_own():
    [ax] = show.grid(1, 1)[1]
    show.image(ax, torch.zeros(3, 4, 6))
    show.boxes(ax, torch.tensor([[0.0, 1, 2, 4], [5, 0, 6, 1]]), "red", style=":", width=3)
    show.boxes(ax, torch.tensor([[0.0, 1, 2, 4], [5, 0, 6, 1]]), ["blue", "lime"])
    extents = [patch.get_bbox().extents.tolist() for patch in ax.patches]
    assert extents == 2 * [[-0.5, 0.5, 1.5, 3.5], [4.5, -0.5, 5.5, 0.5]]
    reds, blue, lime = ax.patches[:2], ax.patches[2], ax.patches[3]
    assert {p.get_edgecolor() for p in reds} == {to_rgba("red")}
    assert {(p.get_linestyle(), p.get_linewidth()) for p in reds} == {(":", 3)}
    assert (blue.get_edgecolor(), lime.get_edgecolor()) == (to_rgba("blue"), to_rgba("lime"))
    assert not any(patch.get_fill() for patch in ax.patches)


def test_a_heat_map_has_a_bar_with_its_range():
    figure, (ax,) = show.grid(1, 1)
    show.heat(ax, torch.eye(3), "identity", low=-1, high=2)
    assert ax.images[0].get_clim() == (-1, 2)
    assert len(figure.axes) == 2


def test_numbers_are_written_into_their_pixels():
    _, (ax,) = show.grid(1, 1)
    show.numbers(ax, torch.tensor([[0.25, 1.0]]), form=".1f")
    assert [(t.get_position(), t.get_text(), t.get_color()) for t in ax.texts] == [
        ((0, 0), "0.2", "white"),
        ((1, 0), "1.0", "black"),
    ]


def test_bars_show_each_score_and_none_for_nan():
    _, (ax,) = show.grid(1, 1)
    show.bars(ax, torch.tensor([0.5, float("nan")]), ["a", "b"], "IoU")
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.0]
    assert [t.get_text() for t in ax.texts] == ["0.50", "none"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


def test_the_legend_names_every_class():
    figure, _ = show.grid(1, 1)
    show.legend(figure, CLASSES)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(CLASSES)

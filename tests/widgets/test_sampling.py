"""The figure of RoIAlign's samples shows what the operator does."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from segedu.errors import InputError
from segedu.models.mask_rcnn.roi_align import roi_align, roi_pool
from segedu.widgets import explore_samples, plot_samples
from segedu.widgets.sampling import CELLS, rounded_box, sampled_places


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    plt.close("all")
    yield
    plt.close("all")


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("box", [(1.6, 1.3, 5.4, 4.3), (2.0, 3.0, 2.5, 3.5)])
def test_the_mean_of_the_samples_places_is_what_align_reads_from_a_map_of_places(box, aligned):
    place = torch.arange(CELLS, dtype=torch.float64) + 0.5
    x = torch.stack(torch.meshgrid(place, place, indexing="ij"))[None]
    read = roi_align(x, torch.tensor([(0, *box)]).double(), 1, 1.0, 3, aligned)
    places = sampled_places(box, 1, 3, aligned=aligned)
    torch.testing.assert_close(places.mean(0), read.flatten())


def test_samples_stand_row_by_row_in_the_middle_of_their_parts():
    places = sampled_places((1, 2, 5, 4), 2, 1, aligned=True)
    assert places.tolist() == [[2.5, 2], [2.5, 4], [3.5, 2], [3.5, 4]]


@pytest.mark.parametrize("box", [(1.6, 1.3, 5.4, 4.3), (0.5, 0, 1, 1.49), (3, 3, 3.2, 3.2)])
def test_the_rounded_box_is_the_cells_that_pool_reads(box):
    x = torch.zeros(1, 1, CELLS + 1, CELLS + 1, requires_grad=True)
    x1, y1, x2, y2 = (int(edge) for edge in rounded_box(box))
    rois = torch.tensor([(0, *box)])
    roi_pool(x, rois, (y2 - y1, x2 - x1)).sum().backward()  # a bin for each cell
    read = x.grad[0, 0].nonzero()
    assert [*read.min(0).values.flip(0).tolist(), *(read.max(0).values.flip(0) + 1).tolist()] == [
        x1, y1, x2, y2,
    ]  # fmt: skip


def test_titles_say_how_far_an_edge_is_off_and_how_many_samples_there_are():
    figure = plot_samples((1.6, 1.3, 5.4, 4.3), bins=2, samples=3)
    left, right = (ax.get_title() for ax in figure.axes)
    assert left == "RoIPool: an edge is 0.70 cells off"
    assert right == "RoIAlign: 36 samples"
    other = plot_samples((1.6, 1.3, 5.4, 4.3), aligned=False)
    assert other.axes[1].get_title() == "RoIAlign: 16 samples, half a cell off"


def test_the_weights_stand_in_the_cells_around_the_first_sample():
    figure = plot_samples((1.0, 1.0, 2.5, 3.0), bins=1, samples=1)  # the sample: row 2, column 1.75
    texts = {text.get_position(): text.get_text() for text in figure.axes[1].texts}
    assert texts == {
        (1.5, 1.5): "0.38", (2.5, 1.5): "0.12", (1.5, 2.5): "0.38", (2.5, 2.5): "0.12",
    }  # fmt: skip


def test_weights_add_up_to_one_also_at_the_rim():
    for box in ((0, 0, 0.4, 0.4), (7.7, 7.6, 8, 8), (1.2, 3.3, 4, 7)):
        for aligned in (True, False):
            figure = plot_samples(box, 2, 3, aligned=aligned)
            weights = [float(text.get_text()) for text in figure.axes[1].texts]
            assert sum(weights) == pytest.approx(1, abs=0.021)
            plt.close(figure)


def test_pools_bins_are_whole_cells_and_aligns_are_even_parts():
    figure = plot_samples((0.0, 0.0, 4.0, 4.0), bins=2)
    pool, align = ([p.get_bbox().extents.tolist() for p in ax.patches] for ax in figure.axes)
    assert pool[1:] == [[0, 0, 3, 3], [2, 0, 5, 3], [0, 2, 3, 5], [2, 2, 5, 5]]
    assert align[1:] == [[0, 0, 2, 2], [2, 0, 4, 2], [0, 2, 2, 4], [2, 2, 4, 4]]
    assert pool[0] == align[0] == [0, 0, 4, 4]


def test_every_control_redraws_the_figure():
    box = explore_samples()
    *controls, picture = box.children
    for control in controls:
        seen = {picture.value}
        if hasattr(control, "options"):
            values = [1, 3]
        elif isinstance(control.value, bool):
            values = [False]
        else:
            values = np.linspace(control.min, control.max, 4).tolist()
        for value in values:
            control.value = value
            seen.add(picture.value)
        assert len(seen) > len(values) - 1
    assert not plt.get_fignums()


@pytest.mark.parametrize("box", [(2.0, 2, 2, 4), (-1.0, 0, 2, 2), (1.0, 1, 9, 2), (1.0, 3, 2, 2)])
def test_a_box_outside_the_map_is_refused(box):
    with pytest.raises(InputError, match="box is"):
        plot_samples(box)

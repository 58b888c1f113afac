import io
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from segedu import widgets
from segedu.errors import InputError
from segedu.losses import cross_entropy_loss
from segedu.models.arithmetic import Layer


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    plt.close("all")
    yield
    plt.close("all")


def drive(box) -> list[bytes]:
    """Move each control of `box` to every value it offers; the pictures it showed."""
    *controls, picture = box.children
    seen = [picture.value]
    for control in controls:
        for value in settings_of(control):
            control.value = value
            seen.append(picture.value)
    assert not plt.get_fignums(), "a redrawn figure was left open"
    return seen


def settings_of(control) -> list:
    if hasattr(control, "options"):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    if isinstance(control.value, bool):
        return [not control.value, control.value]
    return list(np.linspace(control.min, control.max, 5).astype(type(control.value)).tolist())


def texts(figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_a_moved_slider_draws_the_figure_of_its_new_value():
    import ipywidgets

    drawn = []

    def plot(level):
        drawn.append(level)
        figure, ax = plt.subplots(figsize=(1, 1))
        ax.set_facecolor((level / 4, 0, 0))
        return figure

    box = widgets.explorer(plot, level=ipywidgets.IntSlider(1, min=0, max=4))
    box.children[0].value = 3
    assert drawn == [1, 3]
    pixels = np.asarray(Image.open(io.BytesIO(box.children[-1].value)).convert("RGB"))
    assert pixels[40, 40, 0] == pytest.approx(0.75 * 255, abs=1)


def test_an_error_while_drawing_reaches_whoever_moved_the_slider():
    import ipywidgets

    def plot(level):
        if level:
            raise InputError("cannot draw that")
        return plt.figure()

    box = widgets.explorer(plot, level=ipywidgets.IntSlider(0, min=0, max=1))
    with pytest.raises(InputError, match="cannot draw"):
        box.children[0].value = 1


def test_without_ipywidgets_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(InputError, match=r"segedu\[course\]"):
        widgets.explorer(plt.figure)


def test_four_pixels_show_softmax_cross_entropy_and_its_gradient():
    logits, true_class = [2.0, -1.0, 0.5, -3.0], [1, 0, 0, 1]
    figure = widgets.plot_four_pixels(logits, true_class)
    z = torch.zeros(1, 2, 2, 2)
    z[0, 1] = torch.tensor(logits).reshape(2, 2)
    z.requires_grad_()
    loss = cross_entropy_loss(z, torch.tensor(true_class).reshape(1, 2, 2))
    (gradient,) = torch.autograd.grad(4 * loss, z)
    shown = texts(figure)
    assert f"{loss.item():.3f}" in figure.get_suptitle()
    assert [f"true: {y}" for y in true_class] == [t for t in shown if t.startswith("true")]
    for value in gradient[0, 1].flatten().tolist():
        assert f"{value:.2f}" in shown
    for value in z.softmax(1)[0, 1].flatten().tolist():
        assert f"{value:.2f}" in shown


def test_other_than_four_pixels_are_refused():
    with pytest.raises(InputError, match="3 logits and 4 classes; expected four of each"):
        widgets.plot_four_pixels([0, 0, 0], [0, 0, 1, 1])


def test_every_setting_of_the_four_pixels_draws_another_picture():
    seen = drive(widgets.explore_four_pixels())
    assert len(set(seen)) > 0.7 * len(seen)


def test_the_threshold_figure_shows_the_mask_and_how_well_it_parts():
    grey = torch.tensor([[1.0, 2, 6, 7]]).repeat(2, 1) / 255
    figure = widgets.plot_threshold(grey, 2 / 255)
    assert figure.get_suptitle() == "Above 2: 50% of the pixels"
    assert "100%" in figure.axes[1].get_title()
    assert figure.axes[1].lines[1].get_xdata() == [2, 2]
    heights = [patch.get_height() for patch in figure.axes[1].patches]
    assert [level for level, height in enumerate(heights) if height] == [1, 2, 6, 7]
    mask = np.asarray(figure.axes[2].images[0].get_array())
    assert (mask[:, :2] == mask[0, 0]).all()
    assert (mask[:, 2:] == mask[0, 3]).all()
    assert mask[0, 0].tolist() != mask[0, 3].tolist()


def test_a_cut_at_1_of_1_2_6_7_leaves_3_of_the_6_point_25_that_the_best_parts():
    grey = torch.tensor([[1.0, 2, 6, 7]]) / 255
    figure = widgets.plot_threshold(grey, 1 / 255)
    assert figure.get_suptitle() == "Above 1: 75% of the pixels"
    assert "48%" in figure.axes[1].get_title()


def test_a_threshold_outside_0_to_1_is_refused_and_an_even_picture_is_drawn():
    with pytest.raises(InputError, match=r"level is 1\.5; expected a grey value in \[0, 1\]"):
        widgets.plot_threshold(torch.zeros(2, 2), 1.5)
    figure = widgets.plot_threshold(torch.full((2, 2), 0.5), 1.0)
    assert figure.get_suptitle() == "Above 255: 0% of the pixels"


def test_every_threshold_draws_another_picture():
    seen = drive(widgets.explore_threshold())
    assert len(set(seen)) >= 5
    own = drive(widgets.explore_threshold(torch.rand(8, 8)))
    assert len(set(own)) >= 5
    assert not set(own) & set(seen)


def test_two_discs_show_their_counts_and_both_scores():
    figure = widgets.plot_overlap(right=6, down=0, radius=12)
    inside = [(r + 0.5 - 24, c + 0.5 - 24) for r in range(48) for c in range(48)]
    true = {place for place in inside if place[0] ** 2 + place[1] ** 2 < 144}
    moved = {place for place in inside if place[0] ** 2 + (place[1] - 6) ** 2 < 144}
    hit, either = len(true & moved), len(true | moved)
    iou = hit / either
    assert figure.axes[0].get_title() == f"hit {hit} of {either} pixels in either"
    assert figure.get_suptitle() == f"IoU {iou:.2f}, Dice {2 * iou / (1 + iou):.2f}"
    point = figure.axes[1].lines[2]
    assert (point.get_xdata(), point.get_ydata()) == (iou, pytest.approx(2 * iou / (1 + iou)))
    curve = figure.axes[1].lines[0]
    assert (curve.get_xdata()[50], curve.get_ydata()[50]) == pytest.approx((0.5, 2 / 3))
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    colours = {tuple(drawn[r, c]) for r, c in [(0, 0), (23, 14), (23, 38), (23, 26)]}
    assert len(colours) == 4


def test_discs_on_top_of_one_another_agree_and_apart_or_empty_do_not():
    assert widgets.plot_overlap(0, 0, 12).get_suptitle() == "IoU 1.00, Dice 1.00"
    assert widgets.plot_overlap(24, 24, 9).get_suptitle() == "IoU 0.00, Dice 0.00"
    assert widgets.plot_overlap(0, 0, 0).get_suptitle() == "IoU 0.00, Dice 0.00"
    below = widgets.plot_overlap(0, 12, 12).axes[0].images[0].get_array()
    assert tuple(below[40, 23]) == tuple(
        widgets.plot_overlap(12, 0, 12).axes[0].images[0].get_array()[23, 40]
    )
    assert tuple(below[40, 23]) != tuple(below[6, 23])
    with pytest.raises(InputError, match="radius is -1; expected a number of pixels"):
        widgets.plot_overlap(0, 0, -1)


def test_every_move_of_a_disc_draws_another_picture():
    seen = drive(widgets.explore_overlap())
    assert len(set(seen)) >= 0.7 * len(seen)


def test_a_step_of_a_convolution_shows_its_taps_and_the_sums_so_far():
    figure = widgets.plot_convolution_step(Layer(3, stride=2, padding=1), step=4)
    taps, outputs = figure.axes
    places = {(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in taps.patches}
    assert places == {(row, column) for row in (2, 3, 4) for column in (2, 3, 4)}
    [now] = outputs.patches
    assert (now.get_y() + 0.5, now.get_x() + 0.5) == (1, 1)
    by_hand = [1 + 2 + 7 + 8, 2 + 3 + 4 + 8 + 9 + 10, 4 + 5 + 6 + 10 + 11 + 12, 81, 135]
    assert [text.get_text() for text in outputs.texts[:5]] == [str(value) for value in by_hand]
    assert {text.get_text() for text in outputs.texts[5:]} == {"nan"}
    assert figure.get_suptitle() == "6 + 2 x 1 pixels, span 3: 3 places a row"


def test_dilated_taps_lie_apart_and_a_step_too_far_is_the_last():
    figure = widgets.plot_convolution_step(Layer(2, dilation=3), step=99, length=5)
    rows = {patch.get_y() + 0.5 for patch in figure.axes[0].patches}
    assert rows == {1, 4}
    assert [text.get_text() for text in figure.axes[1].texts] == ["40", "44", "60", "64"]
    lonely = widgets.plot_convolution_step(Layer(5), step=0, length=5)
    assert lonely.get_suptitle().endswith("1 place a row")


def test_the_receptive_field_figure_marks_what_is_seen_and_nothing_else():
    figure = widgets.plot_receptive_field([Layer(3, padding=1, dilation=2)] * 3)
    [ax] = figure.axes
    assert ax.get_title() == "width 13, of which 7 are seen; jump 1"
    top, *_, bottom = [found for found in ax.collections if len(found.get_facecolor())][1::2]
    assert len(top.get_offsets()) == 1
    at = np.asarray(bottom.get_offsets())
    assert at[:, 1].tolist() == [0] * 7
    assert np.diff(at[:, 0]).tolist() == [2] * 6
    assert at[:, 0].mean() == top.get_offsets()[0][0]


def test_lines_lead_from_each_dot_to_its_taps():
    figure = widgets.plot_receptive_field([Layer(3, stride=2), Layer(2)])
    [ax] = figure.axes
    ends = [tuple(line.get_xdata()) for line in ax.lines]
    assert len(ends) == 2 + 2 * 3
    assert ax.get_title() == "width 5, of which 5 are seen; jump 2"
    steps = sorted(round(bottom - top, 6) for top, bottom in ends)
    assert steps == [-1, -1, -1, 0, 0, 1, 1, 1]


def test_every_setting_of_the_convolution_draws_another_picture():
    assert len(set(drive(widgets.explore_convolution_step()))) >= 8
    assert len(set(drive(widgets.explore_receptive_field()))) == 3 + 2 + 4 - 2


def test_what_dilations_touch_is_counted_in_both_axes():
    from segedu.widgets.context import touched

    for rates in ([1], [2, 2, 2], [1, 2, 5], [3, 1]):
        row = [1]  # coefficients of the product of 1 + x^r + x^(2 r)
        for rate in rates:
            longer = [0] * (len(row) + 2 * rate)
            for tap in (0, rate, 2 * rate):
                for place, ways in enumerate(row):
                    longer[place + tap] += ways
            row = longer
        expected = np.outer(row, row)
        assert np.array_equal(touched(rates).numpy(), expected)


def test_the_figure_of_dilations_says_how_many_pixels_are_seen_and_leaves_holes_empty():
    figure = widgets.plot_touched([(2, 2, 2), (1, 2, 5)])
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["2, 2, 2\n49 of 169", "1, 2, 5\n289 of 289"]
    gridded, whole = (np.ma.getmaskarray(ax.images[0].get_array()) for ax in figure.axes)
    assert not gridded[::2, ::2].any()
    assert gridded[1::2].all()
    assert gridded[:, 1::2].all()
    assert not whole.any()
    ways = np.exp(np.ma.getdata(figure.axes[1].images[0].get_array()))
    assert ways[[0, 8], [0, 8]] == pytest.approx(1)  # one path to the corner, one to the middle
    assert ways.max() == pytest.approx(4)


def test_dilations_that_are_none_are_refused():
    from segedu.widgets.context import touched

    with pytest.raises(InputError, match=r"dilations are \[\]; expected one or more"):
        touched([])
    with pytest.raises(InputError, match=r"dilations are \[1, 0\]; expected"):
        touched([1, 0])


def test_every_plan_of_dilations_draws_another_picture():
    from segedu.widgets.context import PLANS

    seen = drive(widgets.explore_touched())
    assert len(set(seen)) == 2 * len(PLANS) - 1  # the right list begins from the left list's last

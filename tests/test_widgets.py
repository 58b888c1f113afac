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

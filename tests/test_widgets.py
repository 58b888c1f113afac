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

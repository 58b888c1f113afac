import matplotlib.pyplot as plt
import pytest
import torch

from segedu import widgets
from segedu.errors import InputError
from segedu.metrics.instances import InstanceAP
from segedu.widgets.precision_recall import LEVELS


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def metric():
    """Class 1: one object found, then a false alarm, then one with IoU 0.7. Class 4: not found."""
    boxes = [[0, 0, 10, 10], [50, 50, 60, 60], [20, 0, 30, 7]]
    found = {"boxes": boxes, "labels": [1, 1, 1], "scores": [0.9, 0.8, 0.7]}
    true = [[0, 0, 10, 10], [20, 0, 30, 10], [80, 0, 90, 10]]
    metric = InstanceAP("box")
    metric.update(found, {"boxes": true, "labels": [1, 1, 4]})
    return metric


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def test_the_dots_are_precision_and_recall_and_the_steps_their_highest(metric):
    figure = widgets.plot_precision_recall(metric, 1, 0.5)
    counted, steps = (lines(figure.axes[0])[name] for name in ("as counted", "interpolated"))
    assert counted.get_xdata().tolist() == [0.5, 0.5, 1]
    assert counted.get_ydata().tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert steps.get_ydata().tolist() == pytest.approx([1] * 51 + [2 / 3] * 50)
    assert figure.get_suptitle() == f"class 1 at IoU 0.50: AP {(51 + 100 / 3) / 101:.2f}"


def test_the_chosen_threshold_is_marked_among_all_ten(metric):
    figure = widgets.plot_precision_recall(metric, 1, 0.75, name="car")
    every, chosen, mean = figure.axes[1].lines
    high, low = (51 + 100 / 3) / 101, 51 / 101
    assert every.get_ydata() == pytest.approx([high] * 5 + [low] * 5)
    assert (list(chosen.get_xdata()), list(chosen.get_ydata())) == ([0.75], [pytest.approx(low)])
    assert mean.get_ydata()[0] == pytest.approx((high + low) / 2)
    assert mean.get_label() == f"mean {(high + low) / 2:.2f}"
    assert figure.get_suptitle() == "car at IoU 0.75: AP 0.50"


def test_moving_the_controls_draws_every_class_and_threshold(metric):
    names = ["ground", "disc", "square", "triangle", "star"]
    label, threshold, picture = widgets.explore_precision_recall(metric, names).children
    assert label.options == (("disc", 1), ("star", 4))
    assert threshold.options == LEVELS
    seen = {picture.value}
    for _, value in label.options:
        label.value = value
        for level in LEVELS[::3]:
            threshold.value = level
            seen.add(picture.value)
    assert len(seen) == 8
    assert not plt.get_fignums()


def test_classes_without_names_are_called_by_their_number(metric):
    label, *_ = widgets.explore_precision_recall(metric).children
    assert [name for name, _ in label.options] == ["class 1", "class 4"]


def test_a_class_without_an_object_cannot_be_drawn(metric):
    with pytest.raises(InputError, match="no picture has an object of class 3"):
        widgets.plot_precision_recall(metric, 3, 0.5)
    with pytest.raises(InputError, match=r"threshold is 0\.3"):
        widgets.plot_precision_recall(metric, 1, 0.3)
    assert torch.tensor(LEVELS).tolist() == pytest.approx([0.5 + 0.05 * n for n in range(10)])

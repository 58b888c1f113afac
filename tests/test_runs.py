import math

import pytest

from segedu.config import TrainConfig
from segedu.models.layers import Shrunk
from segedu.models.registry import build
from segedu.models.unet import UNet
from segedu.runs import Epoch, begin, is_best, is_stale, parameter_groups, warmup_cosine


def history(*scores):
    return [Epoch(i, 0.0, 0.0, score) for i, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("mious", "stale"),
    [
        ([0.5, 0.4, 0.3], True),
        ([0.5, 0.4, 0.6], False),
        ([0.5, 0.5, 0.5], True),
        ([0.5, 0.4], False),
    ],
)
def test_a_run_is_stale_after_two_epochs_without_a_better_score(mious, stale):
    assert is_stale(history(*mious), patience=2) == stale


@pytest.mark.parametrize(
    ("new", "before", "best"),
    [
        (0.1, [], True),
        (math.nan, [], True),
        (0.5, [0.4, 0.6], False),
        (0.7, [0.4, 0.6], True),
        (0.6, [0.6], False),
        (math.nan, [0.2], False),
        (0.1, [math.nan], True),
    ],
)
def test_an_epoch_is_best_if_it_beats_all_before_it(new, before, best):
    assert is_best(Epoch(9, 0.0, 0.0, new), history(*before)) == best


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_half_cosine():
    rates = [warmup_cosine(step, 12, warmup=0.25) for step in range(13)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[3:] == pytest.approx([(1 + math.cos(math.pi * i / 9)) / 2 for i in range(10)])


def test_without_warm_up_the_first_step_is_the_greatest():
    rates = [warmup_cosine(step, 10, warmup=0.0) for step in range(11)]
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_a_backbone_learns_at_its_share_of_the_rate_all_along():
    model = Shrunk(build("unet_lite0", 3), 2)
    run = begin(model, 8, TrainConfig(epochs=1, batch_size=4, warmup=0.5, backbone_rate=0.25))
    for _ in range(2):
        head, backbone = run.schedule.get_last_lr()
        assert backbone == pytest.approx(0.25 * head)
        run.optimizer.step()
        run.schedule.step()


def test_each_parameter_is_in_one_group():
    model = build("unet_lite0", 3)
    head, backbone = (group["params"] for group in parameter_groups(model, TrainConfig()))
    assert {*map(id, backbone)} == {*map(id, model.backbone.parameters())}
    assert {*map(id, head), *map(id, backbone)} == {*map(id, model.parameters())}
    assert len(head) + len(backbone) == len(list(model.parameters()))


def test_a_model_without_a_backbone_has_one_group():
    model = UNet(3, widths=(4, 8))
    [group] = parameter_groups(model, TrainConfig(learning_rate=0.5, backbone_rate=0.1))
    assert group == {"params": list(model.parameters()), "lr": 0.5}

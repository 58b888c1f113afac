import math

import pytest
import torch
from torch.autograd import gradcheck

from segedu import losses
from segedu.data.sample import IGNORE

ALL = [losses.cross_entropy_loss]
every_loss = pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.__name__)


def batch(random, *, classes=3, size=4):
    logits = torch.randn(2, classes, size, size, generator=random, dtype=torch.float64)
    target = torch.randint(classes, (2, size, size), generator=random)
    return logits, target


@every_loss
def test_a_sure_and_right_prediction_costs_nothing(loss, random):
    _, target = batch(random)
    logits = 100.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    assert loss(logits, target).item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_an_unlabelled_pixel_does_not_count(loss, random):
    logits, target = batch(random)
    target[:, 0] = IGNORE
    before = loss(logits, target)
    logits[:, :, 0] = torch.randn(2, 3, 4, generator=random, dtype=torch.float64)
    assert loss(logits, target) == before


@every_loss
def test_a_batch_without_labels_costs_nothing_and_teaches_nothing(loss, random):
    logits, target = batch(random)
    logits.requires_grad_()
    target[:] = IGNORE
    value = loss(logits, target)
    value.backward()
    assert value.item() == 0
    assert logits.grad.eq(0).all()


@every_loss
def test_gradient(loss, random):
    logits, target = batch(random)
    target[0, 0, 0] = IGNORE
    assert gradcheck(lambda z: loss(z, target), logits.requires_grad_())


@every_loss
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_leave_value_and_gradient_finite(loss, size):
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 2] = size
    value = loss(logits.requires_grad_(), torch.tensor([[[0, 1], [0, 1]]]))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_cross_entropy_is_the_mean_over_labelled_pixels_of_minus_log_p(random):
    logits, target = batch(random)
    target[1] = IGNORE
    p = logits.softmax(dim=1)
    by_hand = [-math.log(p[0, target[0, r, c], r, c]) for r in range(4) for c in range(4)]
    assert losses.cross_entropy_loss(logits, target).item() == pytest.approx(sum(by_hand) / 16)


def test_cross_entropy_has_the_gradient_p_minus_y_over_the_labelled_pixels(random):
    logits, target = batch(random)
    target[0, 1] = IGNORE
    losses.cross_entropy_loss(logits.requires_grad_(), target).backward()
    labelled = (target != IGNORE)[:, None]
    y = torch.nn.functional.one_hot(target.where(target != IGNORE, 0), 3).movedim(-1, 1)
    expected = (logits.softmax(dim=1) - y) * labelled / labelled.sum()
    torch.testing.assert_close(logits.grad, expected.detach())


def test_class_weights_make_the_mean_a_weighted_one(random):
    logits, target = batch(random)
    target[0, 0] = IGNORE
    weight = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(logits, target, weight, ignore_index=IGNORE)
    got = losses.cross_entropy_loss(logits, target, class_weight=weight)
    torch.testing.assert_close(got, expected)


def test_classes_that_all_weigh_nothing_cost_nothing(random):
    logits, target = batch(random)
    nothing = torch.zeros(3, dtype=torch.float64)
    assert losses.cross_entropy_loss(logits, target, class_weight=nothing).item() == 0


def test_label_smoothing_mixes_in_the_mean_over_all_classes(random):
    logits, target = batch(random)
    sharp = losses.cross_entropy_loss(logits, target)
    even = -logits.log_softmax(dim=1).mean()
    got = losses.cross_entropy_loss(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(got, 0.9 * sharp + 0.1 * even)

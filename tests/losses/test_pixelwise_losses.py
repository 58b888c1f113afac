import math

import pytest
import torch
import torch.nn.functional as F

from segedu import losses
from segedu.data.sample import IGNORE
from segedu.errors import InputError


def batch(random, *, classes=3, size=4):
    logits = torch.randn(2, classes, size, size, generator=random, dtype=torch.float64)
    target = torch.randint(classes, (2, size, size), generator=random)
    return logits, target


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
    y = F.one_hot(target.where(target != IGNORE, 0), 3).movedim(-1, 1)
    expected = (logits.softmax(dim=1) - y) * labelled / labelled.sum()
    torch.testing.assert_close(logits.grad, expected.detach())


def test_class_weights_make_the_mean_a_weighted_one(random):
    logits, target = batch(random)
    target[0, 0] = IGNORE
    weight = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    expected = F.cross_entropy(logits, target, weight, ignore_index=IGNORE)
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


def test_binary_cross_entropy_asks_each_class_by_itself(random):
    logits, target = batch(random)
    target[0, 0] = IGNORE
    total = 0.0
    for b, r, c in (target != IGNORE).nonzero().tolist():
        for k in range(3):
            p = 1 / (1 + math.exp(-logits[b, k, r, c]))
            total -= math.log(p if k == target[b, r, c] else 1 - p)
    expected = total / (3 * 28)
    got = losses.binary_cross_entropy_loss(logits, target).item()
    assert got == pytest.approx(expected)


def test_binary_cross_entropy_has_the_gradient_p_minus_y(random):
    logits, target = batch(random)
    losses.binary_cross_entropy_loss(logits.requires_grad_(), target).backward()
    y = F.one_hot(target, 3).movedim(-1, 1)
    torch.testing.assert_close(logits.grad, (logits.detach().sigmoid() - y) / logits.numel())


def test_binary_cross_entropy_of_one_channel_has_class_1_for_the_object(random):
    logits, target = batch(random, classes=2)
    target[0, 1] = IGNORE
    got = losses.binary_cross_entropy_loss(logits[:, :1], target)
    labelled = target != IGNORE
    expected = F.binary_cross_entropy_with_logits(logits[:, 0][labelled], target[labelled].double())
    torch.testing.assert_close(got, expected)


def test_focal_loss_with_gamma_0_is_cross_entropy(random):
    logits, target = batch(random)
    target[0, 0] = IGNORE
    focal = losses.focal_loss(logits, target, gamma=0.0)
    torch.testing.assert_close(focal, losses.cross_entropy_loss(logits, target))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_of_one_pixel_by_hand(gamma):
    p = torch.tensor([0.9, 0.1])
    logits, target = p.log().view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)
    expected = (1 - 0.9) ** gamma * -math.log(0.9)
    got = losses.focal_loss(logits, target, gamma=gamma).item()
    assert got == pytest.approx(expected, rel=1e-5)


def test_focal_loss_is_the_mean_over_labelled_pixels():
    logits = torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1).expand(1, 2, 1, 3)
    target = torch.tensor([[[0, 0, IGNORE]]])
    expected = (1 - 0.9) ** 2 * -math.log(0.9)
    assert losses.focal_loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5, 1.0, 2.0])
def test_focal_loss_of_a_perfectly_sure_pixel_has_a_finite_gradient(gamma):
    logits = torch.tensor([1e4, 0.0]).view(1, 2, 1, 1).requires_grad_()
    losses.focal_loss(logits, torch.zeros(1, 1, 1, dtype=torch.int64), gamma=gamma).backward()
    assert logits.grad.eq(0).all()


def test_a_negative_gamma_is_refused(random):
    with pytest.raises(InputError, match="gamma is -1"):
        losses.focal_loss(*batch(random), gamma=-1)

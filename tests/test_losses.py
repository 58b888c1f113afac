"""What holds for every loss; the tests of one alone are in `tests/losses/`."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from segedu import losses
from segedu.data.sample import IGNORE

ALL = [
    losses.cross_entropy_loss,
    losses.binary_cross_entropy_loss,
    losses.focal_loss,
    losses.dice_loss,
    losses.jaccard_loss,
    losses.tversky_loss,
    losses.lovasz_loss,
    losses.boundary_loss,
]
every_loss = pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.__name__)


def batch(random, *, classes=3, size=4):
    logits = torch.randn(2, classes, size, size, generator=random, dtype=torch.float64)
    target = torch.randint(classes, (2, size, size), generator=random)
    return logits, target


def value_and_gradient(loss, logits, target):
    logits = logits.detach().requires_grad_()
    value = loss(logits, target)
    value.backward()
    return value.detach(), logits.grad


@every_loss
def test_a_sure_and_right_prediction_costs_nothing(loss, random):
    _, target = batch(random)
    logits = 200.0 * F.one_hot(target, 3).movedim(-1, 1) - 100
    assert loss(logits, target).item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_an_answer_of_no_opinion_costs_less_than_a_sure_and_wrong_one(loss, random):
    logits, target = batch(random)
    wrong = 20.0 * F.one_hot((target + 1) % 3, 3).movedim(-1, 1) - 10
    assert 0 < loss(logits * 0, target) < loss(wrong, target)


@every_loss
def test_an_unlabelled_pixel_does_not_count(loss, random):
    logits, target = batch(random)
    target[:, 0] = IGNORE
    before = loss(logits, target)
    logits[:, :, 0] = torch.randn(2, 3, 4, generator=random, dtype=torch.float64)
    assert loss(logits, target) == before


@every_loss
def test_an_unlabelled_pixel_has_no_gradient_and_every_other_has_one(loss, random):
    logits, target = batch(random)
    target[:, 0] = IGNORE
    _, gradient = value_and_gradient(loss, logits, target)
    assert gradient[:, :, 0].eq(0).all()
    assert gradient[:, :, 1:].abs().sum(1).gt(0).all()


@every_loss
def test_a_batch_without_labels_costs_nothing_and_teaches_nothing(loss, random):
    logits, target = batch(random)
    value, gradient = value_and_gradient(loss, logits, target.fill_(IGNORE))
    assert value.item() == 0
    assert gradient.eq(0).all()


@every_loss
def test_gradient(loss, random):
    logits, target = batch(random)
    target[0, 0, 0] = IGNORE
    assert gradcheck(lambda z: loss(z, target), logits.requires_grad_())


@every_loss
def test_gradient_with_an_absent_class(loss, random):
    logits, target = batch(random, classes=4)
    target[target == 3] = 0
    target[0, 0, 0] = IGNORE
    assert gradcheck(lambda z: loss(z, target), logits.requires_grad_())


@every_loss
@pytest.mark.parametrize("label", [0, 1, IGNORE])
def test_gradient_of_a_single_pixel(loss, label, random):
    logits = torch.randn(1, 2, 1, 1, generator=random, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[label]]])
    assert gradcheck(lambda z: loss(z, target), logits)
    assert loss(logits, target).isfinite()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_leave_value_and_gradient_finite(loss, size, dtype):
    for channel in range(3):  # class 2 is absent
        logits = torch.zeros(1, 3, 2, 2, dtype=dtype)
        logits[:, channel] = size
        value, gradient = value_and_gradient(loss, logits, torch.tensor([[[0, 1], [0, 1]]]))
        assert value.isfinite()
        assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_sure_answers_right_and_wrong_leave_the_gradient_finite(loss, size):
    target = torch.tensor([[[0, 1], [1, 0]]])
    for answer in (target, 1 - target):
        logits = size * (2.0 * F.one_hot(answer, 2).movedim(-1, 1) - 1)
        value, gradient = value_and_gradient(loss, logits, target)
        assert value.isfinite()
        assert gradient.isfinite().all()


@every_loss
def test_the_order_of_the_pictures_does_not_matter(loss, random):
    logits, target = batch(random)
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), loss(logits, target))


@every_loss
def test_the_names_of_the_classes_do_not_matter(loss, random):
    logits, target = batch(random)
    torch.testing.assert_close(loss(logits.flip(1), 2 - target), loss(logits, target))


@every_loss
def test_a_step_downhill_lowers_the_loss(loss, random):
    logits, target = batch(random)
    value, gradient = value_and_gradient(loss, logits, target)
    assert loss(logits - 1e-3 * gradient, target) < value


@every_loss
def test_single_and_double_precision_agree(loss, random):
    logits, target = batch(random, size=16)
    double, single = loss(logits, target), loss(logits.float(), target)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(double.item(), rel=1e-5)

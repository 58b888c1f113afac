import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segedu import losses
from segedu.data.sample import IGNORE
from segedu.errors import InputError
from segedu.metrics.confusion import ConfusionMatrix

OVERLAP = [losses.dice_loss, losses.jaccard_loss, losses.tversky_loss, losses.lovasz_loss]
every_overlap_loss = pytest.mark.parametrize("loss", OVERLAP, ids=lambda loss: loss.__name__)


def batch(random, *, classes=3, size=4):
    logits = torch.randn(2, classes, size, size, generator=random, dtype=torch.float64)
    target = torch.randint(classes, (2, size, size), generator=random)
    return logits, target


def sure(answer, classes):
    return 200.0 * F.one_hot(answer, classes).movedim(-1, 1).double() - 100


def naive(logits, target, score):
    """The mean over present classes of 1 - score(hit, false, missed), pixel by pixel."""
    p = logits.softmax(dim=1)
    terms = []
    for c in range(logits.shape[1]):
        hit = false = missed = true = 0.0
        for b, r, k in (target != IGNORE).nonzero().tolist():
            if target[b, r, k] == c:
                true += 1
                hit += p[b, c, r, k].item()
                missed += 1 - p[b, c, r, k].item()
            else:
                false += p[b, c, r, k].item()
        if true:
            terms.append(1 - score(hit, false, missed))
    return sum(terms) / len(terms)


SCORES = {
    "dice": (losses.dice_loss, lambda hit, false, missed: 2 * hit / (2 * hit + false + missed)),
    "jaccard": (losses.jaccard_loss, lambda hit, false, missed: hit / (hit + false + missed)),
    "tversky": (
        losses.tversky_loss,
        lambda hit, false, missed: hit / (hit + 0.3 * false + 0.7 * missed),
    ),
}


@pytest.mark.parametrize("name", SCORES)
def test_an_overlap_loss_is_the_naive_sum_over_labelled_pixels_and_present_classes(name, random):
    loss, score = SCORES[name]
    logits, target = batch(random, classes=4)
    target[target == 3] = 0
    target[0, 0] = IGNORE
    assert loss(logits, target).item() == pytest.approx(naive(logits, target, score))


@every_overlap_loss
def test_a_sure_and_wrong_prediction_costs_one(loss, random):
    _, target = batch(random)
    assert loss(sure((target + 1) % 3, 3), target).item() == pytest.approx(1, abs=1e-6)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, IGNORE])), min_size=1, max_size=20
    )
)
def test_of_sure_answers_the_losses_are_one_minus_the_metrics_of_the_classes_present(pairs):
    answer, target = (torch.tensor(row).view(1, 1, -1) for row in zip(*pairs, strict=True))
    cm = ConfusionMatrix(3)
    cm.update(answer, target)
    present = cm.counts.sum(1) > 0
    for loss, score in (
        (losses.jaccard_loss, cm.iou()),
        (losses.lovasz_loss, cm.iou()),
        (losses.dice_loss, cm.dice()),
    ):
        expected = (1 - score[present]).mean().item() if present.any() else 0.0
        assert loss(sure(answer, 3), target).item() == pytest.approx(expected, abs=1e-6)


@every_overlap_loss
def test_a_class_in_one_picture_of_the_batch_is_present(loss):
    """The counts run over the batch: one picture without the class does not drop it."""
    target = torch.zeros(2, 2, 2, dtype=torch.int64)
    target[0, 0, 0] = 1
    nothing_found = torch.zeros_like(target)
    both = loss(sure(nothing_found, 2), target).item()
    assert both > 0.5  # class 1 costs 1, class 0 a little


@every_overlap_loss
def test_a_class_that_is_absent_is_left_out_of_the_mean(loss, random):
    logits, target = batch(random, classes=2)
    impossible = torch.full((2, 1, 4, 4), -1e4, dtype=torch.float64)
    three = torch.cat([logits, impossible], dim=1)
    torch.testing.assert_close(loss(three, target), loss(logits, target))


@every_overlap_loss
def test_only_the_chosen_classes_count_and_of_those_only_the_present_ones(loss, random):
    logits, target = batch(random, classes=4)
    target[target == 3] = 0
    each = [loss(logits, target, classes=[c]) for c in (0, 1, 2)]
    assert len({value.item() for value in each}) == 3
    torch.testing.assert_close(loss(logits, target), sum(each) / 3)
    torch.testing.assert_close(loss(logits, target, classes=[1, 2, 3]), sum(each[1:]) / 2)
    assert loss(logits, target, classes=[3]).item() == 0


def test_tversky_with_halves_is_dice_and_with_ones_jaccard(random):
    logits, target = batch(random)
    halves = losses.tversky_loss(logits, target, alpha=0.5, beta=0.5)
    ones = losses.tversky_loss(logits, target, alpha=1, beta=1)
    torch.testing.assert_close(halves, losses.dice_loss(logits, target))
    torch.testing.assert_close(ones, losses.jaccard_loss(logits, target))


@pytest.mark.parametrize(("alpha", "beta"), [(0.25, 1.0), (1.0, 0.25), (0.0, 0.5)])
def test_alpha_is_what_a_false_positive_costs_and_beta_what_a_miss_does(alpha, beta):
    target = torch.tensor([[[1, 0, 0, 0]]])
    too_much = torch.tensor([[[1, 1, 0, 0]]])  # class 1: hit 1, false 1; class 0: hit 2, missed 1
    got = losses.tversky_loss(sure(too_much, 2), target, alpha=alpha, beta=beta).item()
    expected = ((1 - 1 / (1 + alpha)) + (1 - 2 / (2 + beta))) / 2
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("weights", [{"alpha": -0.1}, {"beta": 0.0}, {"beta": -1.0}])
def test_weights_that_allow_a_division_by_0_are_refused(weights, random):
    with pytest.raises(InputError, match="tversky_loss: alpha is"):
        losses.tversky_loss(*batch(random), **weights)


def test_a_large_picture_in_single_precision_keeps_five_digits():
    """Half a million equal addends: one running float32 sum would be off by a tenth."""
    target = torch.zeros(1, 1024, 1024, dtype=torch.int64)
    target[:, :8] = 1
    logits = torch.tensor([-3.0, 0.1]).view(1, 2, 1, 1).expand(1, 2, 1024, 1024).contiguous()
    for loss in (losses.dice_loss, losses.jaccard_loss, losses.lovasz_loss):
        exact = loss(logits.double(), target).item()
        assert loss(logits, target).item() == pytest.approx(exact, rel=1e-5)


def test_the_gradient_of_dice_in_p_has_one_value_on_the_object_and_one_off_it(random):
    """-2 (y S - I) / S^2 with S = |P| + |T|, as chapter 07 derives, times softmax's Jacobian."""
    logits, target = batch(random, classes=2)
    logits.requires_grad_()
    losses.dice_loss(logits, target).backward()
    p = logits.detach().softmax(1)
    y = F.one_hot(target, 2).movedim(-1, 1)
    overlap, total = (p * y).sum((0, 2, 3)), (p + y).sum((0, 2, 3))
    slope = torch.stack(
        [-2 * (y[:, c] * total[c] - overlap[c]) / total[c] ** 2 / 2 for c in (0, 1)], dim=1
    )
    expected = p * (slope - (p * slope).sum(1, keepdim=True))
    torch.testing.assert_close(logits.grad, expected)

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segedu.losses import jaccard_loss, lovasz_loss


def iou_loss(wrong, y):
    """1 - IoU when the pixels `wrong` are mistaken, of a class whose truth is `y`."""
    predicted = [bool(t) != (i in wrong) for i, t in enumerate(y)]
    both = sum(a and bool(b) for a, b in zip(predicted, y, strict=True))
    either = sum(a or bool(b) for a, b in zip(predicted, y, strict=True))
    return 1 - both / either


def extension(errors, y):
    """Definition 2 of the paper, word for word: add pixels in the order of their errors."""
    order = sorted(range(len(y)), key=lambda i: -errors[i])
    total, before = 0.0, 0.0
    for k in range(1, len(order) + 1):
        after = iou_loss(set(order[:k]), y)
        total += errors[order[k - 1]] * (after - before)
        before = after
    return total


def two_classes(p_of_one, y):
    """Logits whose softmax gives class 1 the probabilities `p_of_one`."""
    p = torch.tensor(p_of_one, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    return torch.stack([(1 - p).log(), p.log()]).view(1, 2, 1, -1), torch.tensor(y).view(1, 1, -1)


labels = st.lists(st.sampled_from([0, 1]), min_size=1, max_size=6)


@given(st.data(), labels)
def test_the_loss_is_the_extension_of_one_minus_iou_by_its_definition(data, y):
    p = data.draw(st.lists(st.floats(0, 1), min_size=len(y), max_size=len(y)))
    errors = {
        1: [abs(t - q) for t, q in zip(y, p, strict=True)],
        0: [abs((1 - t) - (1 - q)) for t, q in zip(y, p, strict=True)],
    }
    expected = [extension(errors[c], [int(t == c) for t in y]) for c in set(y)]
    got = lovasz_loss(*two_classes(p, y)).item()
    assert got == pytest.approx(sum(expected) / len(expected), abs=1e-6)


def test_at_the_corners_it_is_one_minus_iou_of_the_mask():
    y = [1, 1, 0, 0]
    for answer in itertools.product([0, 1], repeat=4):
        wrong = {i for i, (a, t) in enumerate(zip(answer, y, strict=True)) if a != t}
        expected = (iou_loss(wrong, y) + iou_loss(wrong, [1 - t for t in y])) / 2
        got = lovasz_loss(*two_classes(list(map(float, answer)), y)).item()
        assert got == pytest.approx(expected, abs=1e-6)


def test_pixels_of_the_same_error_may_come_in_any_order(random):
    y = torch.randint(2, (1, 8, 8), generator=random)
    even = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    shuffled = y.flatten()[torch.randperm(64, generator=random)].view(1, 8, 8)
    torch.testing.assert_close(lovasz_loss(even, shuffled), lovasz_loss(even, y))


@given(st.lists(st.floats(-5, 5), min_size=12, max_size=12))
def test_it_is_at_least_the_iou_loss_of_half_the_error_of_the_worst_pixel(scores):
    """An order of errors exists in which the worst pixel alone is wrong: a lower bound."""
    y = [1, 1, 0, 0, 0, 0]
    logits = torch.tensor(scores, dtype=torch.float64).view(1, 2, 1, 6)
    p = logits.softmax(1)[0, 1, 0]
    errors = [abs(t - q.item()) for t, q in zip(y, p, strict=True)]
    worst = max(range(6), key=lambda i: errors[i])
    bound = sum(errors[worst] * iou_loss({worst}, [int(t == c) for t in y]) / 2 for c in (0, 1))
    assert lovasz_loss(logits, torch.tensor(y).view(1, 1, 6)).item() >= bound - 1e-9


def test_it_differs_from_soft_jaccard_between_the_corners():
    logits, target = two_classes([0.6, 0.4], [1, 0])
    # class 1: errors .4 .4; prices 1 and 0 in either order, so .4; jaccard: 1 - .6/1.4
    assert lovasz_loss(logits, target).item() == pytest.approx(0.4)
    assert jaccard_loss(logits, target).item() == pytest.approx(1 - 0.6 / 1.4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_loss_is_the_same_where_torch_sorts_as_on_a_gpu(monkeypatch, random, dtype):
    logits = torch.randn(2, 3, 9, 9, generator=random).to(dtype)
    target = torch.randint(3, (2, 9, 9), generator=random)
    on_cpu = lovasz_loss(logits, target)
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    torch.testing.assert_close(lovasz_loss(logits, target), on_cpu)


@pytest.mark.gpu
def test_the_loss_on_a_gpu_is_that_on_the_cpu(random):
    logits = torch.randn(2, 3, 9, 9, generator=random)
    target = torch.randint(3, (2, 9, 9), generator=random)
    on_gpu = lovasz_loss(logits.cuda(), target.cuda()).cpu()
    torch.testing.assert_close(on_gpu, lovasz_loss(logits, target))

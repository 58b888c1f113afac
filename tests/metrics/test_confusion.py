import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segedu.data.sample import IGNORE
from segedu.errors import InputError
from segedu.metrics.confusion import ConfusionMatrix

CLASSES = 3
pixels = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.sampled_from([*range(CLASSES), IGNORE])), min_size=1
)


def measure(pairs):
    cm = ConfusionMatrix(CLASSES)
    predicted, true = zip(*pairs, strict=True)
    cm.update(torch.tensor(predicted), torch.tensor(true))
    return cm


def share(part, whole):
    return pytest.approx(part / whole if whole else float("nan"), nan_ok=True)


@given(pixels)
def test_every_metric_matches_a_count_by_hand(pairs):
    cm = measure(pairs)
    labelled = [(p, t) for p, t in pairs if t != IGNORE]
    for c in range(CLASSES):
        both = sum(p == t == c for p, t in labelled)
        either = sum(c in (p, t) for p, t in labelled)
        predicted, true = (sum(pair[i] == c for pair in labelled) for i in (0, 1))
        assert cm.iou()[c].item() == share(both, either)
        assert cm.dice()[c].item() == share(2 * both, predicted + true)
        assert cm.precision()[c].item() == share(both, predicted)
        assert cm.recall()[c].item() == share(both, true)
    assert cm.pixel_accuracy() == share(sum(p == t for p, t in labelled), len(labelled))


@given(pixels)
def test_means_over_classes_match_a_count_by_hand(pairs):
    cm = measure(pairs)
    labelled = [(p, t) for p, t in pairs if t != IGNORE]
    scored, weighted = [], 0.0
    for c in range(CLASSES):
        both = sum(p == t == c for p, t in labelled)
        either = sum(c in pair for pair in labelled)
        if either:
            scored.append(both / either)
            weighted += sum(t == c for _, t in labelled) / len(labelled) * both / either
    assert cm.mean_iou() == share(sum(scored), len(scored))
    assert cm.frequency_weighted_iou() == share(weighted, bool(labelled))


def test_frequency_weighted_iou_weighs_a_class_by_its_true_pixels():
    cm = ConfusionMatrix(3)
    cm.update(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]))
    assert cm.iou()[:2].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert cm.frequency_weighted_iou() == pytest.approx((2 / 3 + 1 / 2) / 2)
    cm.update(torch.tensor([0, 2]), torch.tensor([0, 0]))  # class 2: predicted, never true
    expected = (4 * (3 / 5) + 2 * (1 / 2)) / 6
    assert cm.frequency_weighted_iou() == pytest.approx(expected)


@given(pixels, pixels)
def test_two_batches_count_like_one(first, second):
    cm = measure(first)
    predicted, true = zip(*second, strict=True)
    cm.update(torch.tensor(predicted), torch.tensor(true))
    assert cm.counts.equal(measure(first + second).counts)


def test_pixels_of_all_images_count_alike():
    """A missed class of one pixel hardly lowers an IoU of a hundred; the mean per image would."""
    cm = ConfusionMatrix(2)
    cm.update(torch.ones(10, 10, dtype=torch.int64), torch.ones(10, 10, dtype=torch.int64))
    one_pixel = torch.zeros(10, 10, dtype=torch.int64)
    one_pixel[0, 0] = 1
    cm.update(torch.zeros_like(one_pixel), one_pixel)
    assert cm.iou()[1].item() == pytest.approx(100 / 101)


def test_mean_iou_leaves_out_a_class_that_never_occurs():
    cm = ConfusionMatrix(3)
    cm.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert cm.iou()[2].isnan()
    assert cm.mean_iou() == 1


@pytest.mark.parametrize(
    ("prediction", "target"), [([3], [0]), ([-1], [0]), ([0], [3]), ([0], [-1]), ([0], [256])]
)
def test_an_index_outside_the_classes_is_refused_and_nothing_counted(prediction, target):
    cm = ConfusionMatrix(3)
    with pytest.raises(InputError, match=r"expected class indices 0\.\.2"):
        cm.update(torch.tensor([1, *prediction]), torch.tensor([1, *target]))
    assert cm.counts.sum() == 0


def test_a_void_pixel_may_be_predicted_as_anything():
    cm = ConfusionMatrix(3)
    cm.update(torch.tensor([2, IGNORE]), torch.tensor([2, IGNORE]))
    assert cm.counts.sum() == cm.counts[2, 2] == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_masks_of_any_integer_type_count_alike(dtype, random):
    prediction, target = torch.randint(200, (2, 9, 9), generator=random)
    target[0] = IGNORE
    cm, wide = ConfusionMatrix(200), ConfusionMatrix(200)
    cm.update(prediction.to(dtype), target.to(dtype))
    wide.update(prediction, target)
    assert cm.counts.equal(wide.counts)


def test_nothing_at_all_counts_nothing():
    cm = ConfusionMatrix(2)
    cm.update(torch.empty(0, 4, dtype=torch.int64), torch.empty(0, 4, dtype=torch.int64))
    assert cm.counts.sum() == 0


def test_rows_are_true_classes_and_columns_predicted_ones():
    cm = ConfusionMatrix(3)
    cm.update(prediction=torch.tensor([2]), target=torch.tensor([0]))
    assert cm.counts.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("classes", [0, 256])
def test_a_number_of_classes_that_masks_cannot_hold_is_refused(classes):
    with pytest.raises(InputError, match="num_classes"):
        ConfusionMatrix(classes)


def test_counts_are_summed_over_the_processes(monkeypatch):
    cm = ConfusionMatrix(2)
    cm.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    cm.sum_across_processes()
    assert cm.counts.sum() == 2
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts: counts.mul_(3))
    cm.sum_across_processes()
    assert cm.counts.tolist() == [[3, 0], [0, 3]]

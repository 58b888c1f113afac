import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops, tv_tensors

from segedu.errors import InputError
from segedu.models.mask_rcnn import nms as module
from segedu.models.mask_rcnn.boxes import box_iou
from segedu.models.mask_rcnn.nms import batched_nms, nms, soft_nms, soft_nms_linear

THRESHOLDS = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.6, 0.7, 0.9, 1.0])


@st.composite
def detections(draw, low=0, most=16):
    """Boxes on a coarse grid, so that many overlap by the same simple share, and tied scores."""
    side = st.integers(low, low + 10)
    corners = draw(
        st.lists(st.tuples(side, side, st.integers(0, 6), st.integers(0, 6)), max_size=most)
    )
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    corner_and_size = torch.tensor(corners, dtype=dtype).reshape(-1, 4)
    boxes = torch.cat([corner_and_size[:, :2], corner_and_size.view(-1, 2, 2).sum(1)], dim=1)
    count = len(boxes)
    scores = draw(st.lists(st.sampled_from([0.1, 0.5, 0.5, 0.9]), min_size=count, max_size=count))
    return boxes, torch.tensor(scores, dtype=dtype)


def crowd(n, generator, side=100.0):
    """Boxes of 10 to 70 pixels that overlap much, with scores."""
    corner = side * torch.rand(n, 2, generator=generator)
    size = 10 + 60 * torch.rand(n, 2, generator=generator)
    return torch.cat([corner, corner + size], 1), torch.rand(n, generator=generator)


def one_by_one(boxes, scores, iou_threshold):
    """NMS as its definition says it."""
    iou = box_iou(boxes, boxes).double()
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if not any(iou[j, i] > iou_threshold for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=40)
@given(detections(), THRESHOLDS)
def test_nms_is_torchvisions_with_ties_and_boxes_without_area(found, threshold):
    boxes, scores = found
    assert nms(boxes, scores, threshold).tolist() == ops.nms(boxes, scores, threshold).tolist()


@settings(max_examples=40)
@given(detections(low=-20), THRESHOLDS, st.sampled_from([1, 2, 3, 7]))
def test_the_size_of_the_blocks_changes_nothing(found, threshold, block):
    boxes, scores = found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        assert nms(boxes, scores, threshold).tolist() == one_by_one(boxes, scores, threshold)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
def test_two_thousand_boxes_are_thinned_as_by_torchvision(threshold, random):
    boxes, scores = crowd(2000, random)
    scores = (20 * scores).round() / 20  # a hundred to each score
    assert torch.equal(nms(boxes, scores, threshold), ops.nms(boxes, scores, threshold))


def test_three_tenths_in_float32_is_above_the_threshold_three_tenths_as_in_torchvision():
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert box_iou(boxes, boxes)[0, 1].item() > 0.3
    assert nms(boxes, scores, 0.3).tolist() == ops.nms(boxes, scores, 0.3).tolist() == [0]
    assert nms(boxes.double(), scores.double(), 0.3).tolist() == [0, 1]
    sevenths = torch.tensor([[0.0, 0, 10, 1], [0, 0, 7, 1]])  # 7/10 in float32 is below 0.7
    assert nms(sevenths, scores, 0.7).tolist() == ops.nms(sevenths, scores, 0.7).tolist() == [0, 1]


def test_a_dropped_box_drops_no_other():
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert nms(boxes, scores, 0.4).tolist() == [0, 2]
    assert nms(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.4).tolist() == [1]
    chain = torch.tensor([[4.0 * i, 0, 4 * i + 10, 10] for i in range(40)])
    falling = torch.linspace(1, 0.5, 40)
    assert nms(chain, falling, 0.4).tolist() == list(range(0, 40, 2))


def test_of_two_equal_scores_the_first_box_stays():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5]), 0.5).tolist() == [0, 2]


def test_boxes_of_a_sample_and_no_boxes_at_all_give_plain_indices():
    boxes = tv_tensors.BoundingBoxes(torch.eye(4), format="XYXY", canvas_size=(9, 9))
    kept = nms(boxes, torch.rand(4), 0.5)
    assert type(kept) is torch.Tensor
    none = torch.zeros(0, 4)
    for found in (nms(none, none[:, 0], 0.5), batched_nms(none, none[:, 0], none[:, 0], 0.5)):
        assert found.tolist() == []
        assert found.dtype == torch.int64
    indices, scores = soft_nms(none, none[:, 0])
    assert (indices.dtype, scores.dtype) == (torch.int64, torch.float32)
    assert indices.tolist() == scores.tolist() == []


def test_float16_boxes_are_thinned_as_in_float32(random):
    boxes, scores = crowd(100, random)
    half = boxes.half()
    kept = nms(half, scores.half(), 0.5)
    assert torch.equal(kept, nms(half.float(), scores.half().float(), 0.5))


@settings(max_examples=40)
@given(detections(), THRESHOLDS, st.data())
def test_batched_nms_is_torchvisions(found, threshold, data):
    boxes, scores = found
    groups = st.lists(st.integers(0, 3), min_size=len(boxes), max_size=len(boxes))
    idxs = torch.tensor(data.draw(groups), dtype=torch.int64)
    theirs = ops.batched_nms(boxes.double(), scores.double(), idxs, threshold)
    assert batched_nms(boxes.double(), scores.double(), idxs, threshold).tolist() == theirs.tolist()


def test_many_boxes_of_many_classes_are_thinned_as_by_torchvision(random):
    boxes, scores = crowd(3000, random)
    scores = (50 * scores).round() / 50
    idxs = torch.randint(0, 7, (3000,), generator=random)
    ours, theirs = (f(boxes, scores, idxs, 0.5) for f in (batched_nms, ops.batched_nms))
    assert ours.tolist() == theirs.tolist()  # in the order of equal scores, too


def test_up_to_a_thousand_boxes_equal_scores_stay_in_their_order(random):
    boxes, scores = crowd(1000, random)
    scores = (20 * scores).round() / 20
    idxs = torch.randint(0, 7, (1000,), generator=random)
    ours, theirs = (f(boxes, scores, idxs, 0.5) for f in (batched_nms, ops.batched_nms))
    assert ours.tolist() == theirs.tolist()
    in_order = [(-scores[i].item(), i) for i in ours.tolist()]
    assert in_order == sorted(in_order)


def test_left_of_the_image_too_a_group_leaves_the_other_alone():
    boxes = torch.tensor([[0.0, 0, 10, 10], [-11, -11, -1, -1]])
    scores, idxs = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
    assert batched_nms(boxes, scores, idxs, 0.5).tolist() == [0, 1]
    assert ops.batched_nms(boxes, scores, idxs, 0.5).tolist() == [0]  # moved onto one another


def naive_soft(boxes, scores, factor, score_threshold):
    iou = box_iou(boxes, boxes).nan_to_num(nan=0.0).tolist()
    left = dict(enumerate(scores.tolist()))
    kept = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        score = left.pop(best)
        if score < score_threshold:
            break
        kept.append((best, score))
        left = {i: s * factor(iou[best][i]) for i, s in left.items()}
    return kept


@settings(max_examples=40)
@given(detections(most=12), st.sampled_from([0.1, 0.5, 2.0]), st.sampled_from([0.0, 0.001, 0.3]))
def test_soft_nms_is_what_its_paper_says(found, sigma, score_threshold):
    boxes, scores = (x.double() for x in found)
    kept, lowered = soft_nms(boxes, scores, sigma, score_threshold)
    naive = naive_soft(boxes, scores, lambda iou: math.exp(-iou * iou / sigma), score_threshold)
    torch.testing.assert_close(
        lowered, torch.tensor([s for _, s in naive], dtype=torch.float64), rtol=1e-12, atol=1e-15
    )
    if len(set(lowered.tolist())) == len(lowered):
        assert kept.tolist() == [i for i, _ in naive]


@settings(max_examples=40)
@given(detections(most=12), THRESHOLDS)
def test_linear_soft_nms_is_what_its_paper_says(found, threshold):
    boxes, scores = (x.double() for x in found)
    _, lowered = soft_nms_linear(boxes, scores, threshold)
    naive = naive_soft(boxes, scores, lambda iou: 1 - iou if iou > threshold else 1, 0.001)
    torch.testing.assert_close(lowered, torch.tensor([s for _, s in naive], dtype=torch.float64))


def test_soft_nms_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 0.8, 0.4])
    kept, lowered = soft_nms(boxes, scores, sigma=0.5)
    assert kept.tolist() == [0, 2, 1]  # the second, with IoU 0.8, falls behind the third
    torch.testing.assert_close(lowered, torch.tensor([0.9, 0.4, 0.8 * math.exp(-0.64 / 0.5)]))
    kept, lowered = soft_nms_linear(boxes, scores)
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(lowered, torch.tensor([0.9, 0.4, 0.16]))
    assert soft_nms(boxes, scores, score_threshold=0.3)[0].tolist() == [0, 2]
    assert scores.tolist() == torch.tensor([0.9, 0.8, 0.4]).tolist()


def test_soft_nms_with_a_tiny_sigma_is_nms_without_any_overlap(random):
    boxes, scores = crowd(60, random, side=400.0)
    kept, lowered = soft_nms(boxes, scores, sigma=1e-9)
    isolated = nms(boxes, scores, 1e-4)
    assert kept.tolist() == isolated.tolist()
    assert torch.equal(lowered, scores[kept])


def test_identical_boxes_with_a_linear_factor_of_zero_are_dropped_and_not_nan():
    boxes = torch.tensor([[0.0, 0, 4, 4]] * 3)
    kept, lowered = soft_nms_linear(boxes, torch.tensor([0.5, 0.9, 0.7]))
    assert kept.tolist() == [1]
    assert lowered.tolist() == pytest.approx([0.9])
    kept, lowered = soft_nms_linear(boxes, torch.tensor([0.5, 0.9, 0.7]), score_threshold=0.0)
    assert sorted(kept.tolist()) == [0, 1, 2]
    assert lowered.tolist() == pytest.approx([0.9, 0, 0])


def test_boxes_without_area_lower_no_score():
    boxes = torch.tensor([[3.0, 3, 3, 3]] * 2)
    assert soft_nms(boxes, torch.tensor([0.5, 0.9]))[1].tolist() == pytest.approx([0.9, 0.5])


def test_a_sigma_of_zero_is_refused():
    with pytest.raises(InputError, match="sigma is 0; expected a number above 0"):
        soft_nms(torch.zeros(1, 4), torch.ones(1), sigma=0)

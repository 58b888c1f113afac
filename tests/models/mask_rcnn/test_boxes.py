import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops, tv_tensors
from torchvision.models.detection._utils import BoxCoder

from segedu.models.mask_rcnn.boxes import (
    LARGEST_GROWTH,
    box_area,
    box_iou,
    clip_boxes_to_image,
    decode,
    encode,
    generalized_box_iou,
    is_at_least,
)

FLOATS = [torch.float16, torch.float32, torch.float64]
TYPES = st.sampled_from([*FLOATS, torch.int32, torch.int64])
coordinate = st.one_of(
    st.integers(-20, 60).map(float),
    st.floats(-20, 60, width=16),
    st.floats(-(2**-10), 2**-10, width=32),
)


@st.composite
def box_sets(draw, most=6, dtype=None):
    """(N, 4) boxes: also none, turned over, without area, of one pixel, outside any image."""
    corners = draw(st.lists(st.tuples(*[coordinate] * 4), max_size=most))
    degenerate = [(3, 4, 3, 4), (3, 4, 4, 5), (5, 1, 5, 9), (9, 9, 1, 2)]
    corners += draw(st.lists(st.sampled_from(degenerate), max_size=2))
    ordered = draw(st.booleans())
    boxes = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)
    if ordered:
        boxes = torch.cat(
            [boxes[:, :2].minimum(boxes[:, 2:]), boxes[:, :2].maximum(boxes[:, 2:])], dim=1
        )
    return boxes.to(draw(TYPES) if dtype is None else dtype)


def some_boxes(n, generator, dtype=torch.float64):
    corner = 40 * torch.rand(n, 2, generator=generator, dtype=dtype)
    return torch.cat(
        [corner, corner + 1 + 30 * torch.rand(n, 2, generator=generator, dtype=dtype)], 1
    )


def same(ours, theirs, **tolerance):
    torch.testing.assert_close(ours, theirs, equal_nan=True, **tolerance)


@settings(max_examples=40)
@given(box_sets())
def test_the_area_is_torchvisions(boxes):
    same(box_area(boxes), ops.box_area(boxes), rtol=0, atol=0)


@settings(max_examples=40)
@given(box_sets(), st.data())
def test_iou_is_torchvisions_to_the_last_bit(boxes1, data):
    boxes2 = data.draw(box_sets(dtype=boxes1.dtype))
    same(box_iou(boxes1, boxes2), ops.box_iou(boxes1, boxes2), rtol=0, atol=0)
    assert box_iou(boxes1, boxes2).shape == (len(boxes1), len(boxes2))


@settings(max_examples=40)
@given(box_sets(), st.data())
def test_generalised_iou_is_torchvisions_to_the_last_bit(boxes1, data):
    boxes2 = data.draw(box_sets(dtype=boxes1.dtype))
    ours = generalized_box_iou(boxes1, boxes2)
    same(ours, ops.generalized_box_iou(boxes1, boxes2), rtol=0, atol=0)


def test_iou_is_the_count_of_pixels_that_both_cover_by_those_that_one_covers(random):
    corner = torch.randint(0, 8, (12, 2), generator=random)
    boxes = torch.cat([corner, corner + torch.randint(1, 6, (12, 2), generator=random)], 1)
    painted = torch.zeros(12, 16, 16, dtype=torch.bool)
    for pixels, (x1, y1, x2, y2) in zip(painted, boxes.tolist(), strict=True):
        pixels[y1:y2, x1:x2] = True
    flat = painted.flatten(1).double()
    both = flat @ flat.T
    either = flat.sum(1)[:, None] + flat.sum(1) - both
    same(box_iou(boxes.double(), boxes.double()), both / either)
    same(box_area(boxes), painted.sum((1, 2)))


def test_generalised_iou_by_hand():
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [4, 0, 6, 2]])
    # both around 9, union 7; and two apart: around 12, union 8
    same(generalized_box_iou(boxes[:1], boxes)[0], torch.tensor([1, 1 / 7 - 2 / 9, -4 / 12]))


def test_generalised_iou_falls_with_the_distance_where_iou_is_zero(random):
    still = torch.tensor([[0.0, 0, 10, 10]])
    moved = still + torch.arange(10.0, 100, 10)[:, None] * torch.tensor([1.0, 0, 1, 0])
    assert not box_iou(still, moved).any()
    assert (generalized_box_iou(still, moved)[0].diff() < 0).all()
    assert (generalized_box_iou(still, moved) > -1).all()


def test_two_boxes_without_area_have_no_iou():
    point = torch.tensor([[2.0, 2, 2, 2]])
    assert box_iou(point, point).isnan().all()
    assert generalized_box_iou(point, point).isnan().all()
    assert box_iou(point, torch.tensor([[0.0, 0, 4, 4]])) == 0


def test_areas_of_float16_and_of_uint8_do_not_overflow():
    large = torch.tensor([[0, 0, 300, 300]], dtype=torch.float16)
    assert box_area(large) == 90_000
    assert box_iou(large, large / 2) == 0.25
    left, right = torch.tensor([[[0, 0, 10, 10]], [[20, 0, 250, 10]]], dtype=torch.uint8)
    assert box_iou(left, right) == 0
    assert box_iou(right, right) == 1
    assert box_area(right) == 2300


def test_leading_axes_are_batches(random):
    boxes1, boxes2 = (some_boxes(6, random).reshape(2, 3, 4) for _ in range(2))
    same(box_iou(boxes1, boxes2), torch.stack([*map(box_iou, boxes1, boxes2)]))
    same(generalized_box_iou(boxes1, boxes2), ops.generalized_box_iou(boxes1, boxes2))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_encode_and_decode_are_torchvisions_box_coder(dtype, weights, random):
    boxes, anchors = (some_boxes(50, random).to(dtype) for _ in range(2))
    coder = BoxCoder(weights)
    deltas = coder.encode_single(boxes, anchors)
    same(encode(boxes, anchors, weights), deltas, rtol=0, atol=0)
    said = (3 * torch.randn(50, 4 * 3, generator=random)).to(dtype)
    theirs = coder.decode_single(said, anchors).reshape(50, 3, 4)
    ours = decode(said.reshape(50, 3, 4), anchors[:, None], weights)
    same(ours, theirs, rtol=0, atol=0)


@settings(max_examples=40)
@given(box_sets(dtype=torch.float32), st.data())
def test_degenerate_boxes_are_encoded_as_torchvision_encodes_them(boxes, data):
    anchors = data.draw(box_sets(dtype=torch.float32))
    count = min(len(boxes), len(anchors))
    boxes, anchors = boxes[:count], anchors[:count]
    coder = BoxCoder((1.0, 2.0, 3.0, 4.0))
    same(encode(boxes, anchors, (1, 2, 3, 4)), coder.encode_single(boxes, anchors), rtol=0, atol=0)
    if count:
        decoded = coder.decode_single(boxes, anchors)
        same(decode(boxes, anchors, (1, 2, 3, 4)), decoded, rtol=0, atol=0)


def test_encode_by_hand():
    anchor = torch.tensor([0.0, 0, 10, 20])
    box = torch.tensor([5.0, 10, 25, 20])  # centre 10 right and 5 down; twice as wide, half as high
    by_hand = torch.tensor([10 / 10, 5 / 20, math.log(2), -math.log(2)])
    same(encode(box, anchor), by_hand)
    same(encode(box, anchor, (10, 10, 5, 5)), by_hand * torch.tensor([10, 10, 5, 5]))
    same(encode(anchor, anchor), torch.zeros(4))


def test_decode_undoes_encode(random):
    boxes, anchors = some_boxes(40, random), some_boxes(40, random)
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 8.0, 5.0, 3.0)):
        same(decode(encode(boxes, anchors, weights), anchors, weights), boxes)


def test_no_delta_makes_an_anchor_grow_beyond_62_and_a_half_times(random):
    anchor = torch.tensor([0.0, 0, 16, 8])
    grown = decode(torch.tensor([0.0, 0, 1000, 1000]), anchor)
    same(grown[2:] - grown[:2], torch.tensor([1000.0, 500]))
    assert math.isclose(LARGEST_GROWTH, 4.135, abs_tol=5e-4)


def test_boxes_have_the_type_of_the_deltas_that_a_network_says_in_half_precision(random):
    anchors, deltas = some_boxes(9, random).float(), torch.randn(9, 4, generator=random).half()
    ours = decode(deltas, anchors)
    assert ours.dtype == torch.float16
    same(ours, BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(deltas, anchors), rtol=0, atol=0)


def test_encode_and_decode_pass_gradcheck(random):
    boxes, anchors = some_boxes(5, random), some_boxes(5, random)
    assert torch.autograd.gradcheck(encode, (boxes.requires_grad_(), anchors.requires_grad_()))
    deltas = torch.randn(5, 4, generator=random, dtype=torch.float64)
    assert torch.autograd.gradcheck(decode, (deltas.requires_grad_(), anchors))


def test_iou_passes_gradcheck(random):
    boxes = some_boxes(4, random).requires_grad_()
    other = some_boxes(3, random)
    assert torch.autograd.gradcheck(lambda x: box_iou(x, other), boxes)
    assert torch.autograd.gradcheck(lambda x: generalized_box_iou(x, other), boxes)


@settings(max_examples=40)
@given(box_sets(), st.integers(0, 40), st.integers(0, 40))
def test_clipping_is_torchvisions(boxes, height, width):
    ours = clip_boxes_to_image(boxes, (height, width))
    same(ours, ops.clip_boxes_to_image(boxes, (height, width)), rtol=0, atol=0)


def test_clipping_keeps_what_is_inside_and_leaves_no_area_outside():
    boxes = torch.tensor([[-5.0, 2, 3, 9], [1, 1, 2, 2], [20, 20, 30, 30], [-9, -9, 99, 99]])
    by_hand = torch.tensor([[0.0, 2, 3, 8], [1, 1, 2, 2], [10, 8, 10, 8], [0, 0, 10, 8]])
    same(clip_boxes_to_image(boxes, (8, 10)), by_hand)
    batch = boxes.reshape(2, 2, 4)
    same(clip_boxes_to_image(batch, (8, 10)), by_hand.reshape(2, 2, 4))


@settings(max_examples=40)
@given(box_sets(), st.sampled_from([0, 1e-3, 1, 2.5, 7]))
def test_small_boxes_are_those_that_torchvision_removes(boxes, size):
    [kept] = is_at_least(boxes, size).nonzero(as_tuple=True)
    same(kept, ops.remove_small_boxes(boxes, size))


def test_a_box_is_small_if_one_side_is_and_not_if_it_is_just_as_long():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1.9, 9], [0, 0, 9, 1.9], [0, 0, 3, 2]])
    assert is_at_least(boxes, 2).tolist() == [True, False, False, True]


def test_boxes_of_a_sample_give_plain_tensors(random):
    plain = some_boxes(3, random).float()
    boxes = tv_tensors.BoundingBoxes(plain, format="XYXY", canvas_size=(80, 80))
    results = [
        box_area(boxes),
        box_iou(boxes, boxes),
        generalized_box_iou(boxes, boxes),
        encode(boxes, boxes),
        decode(torch.zeros(3, 4), boxes),
        clip_boxes_to_image(boxes, (9, 9)),
        is_at_least(boxes, 1),
    ]
    assert {type(result) for result in results} == {torch.Tensor}
    same(box_iou(boxes, boxes), box_iou(plain, plain))

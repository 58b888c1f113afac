"""Pasting and cropping masks are torchvision's, and undo one another where cells are pixels."""

import pytest
import torch
import torchvision.ops
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from segedu.models.mask_rcnn.paste import crop_masks, paste_masks

SIZE = (11, 14)
x1, y1 = st.integers(-40, 100).map(lambda n: n / 8), st.integers(-40, 80).map(lambda n: n / 8)
side = st.integers(0, 120).map(lambda n: n / 8)
corners = st.tuples(x1, y1, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


def is_reached(box, cells):
    """Whether the grown box ends inside the picture, which the library needs."""
    grow = (cells + 2) / cells
    ends = [(box[i] + box[i + 2]) / 2 + (box[i + 2] - box[i]) / 2 * grow for i in (0, 1)]
    return min(ends) > -1


@given(
    st.lists(corners, max_size=4),
    st.integers(1, 6),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=50)
def test_pasted_masks_are_torchvisions(boxes, cells, dtype):
    boxes = [box for box in boxes if is_reached(box, cells)]
    rows = torch.tensor(boxes, dtype=dtype).view(-1, 4)
    masks = torch.rand(len(boxes), 1, cells, cells, generator=torch.Generator().manual_seed(cells))
    ours = paste_masks(masks.to(dtype), rows, SIZE)
    assert torch.equal(ours, paste_masks_in_image(masks.to(dtype), rows, SIZE))
    assert ours.shape == (len(boxes), 1, *SIZE)


@pytest.mark.parametrize("box", [(-20.0, 2, -10, 8), (2.0, -20, 8, -10), (30.0, 2, 40, 8)])
def test_a_mask_outside_the_picture_is_empty(box):
    assert not paste_masks(torch.ones(1, 1, 4, 4), torch.tensor([box]), SIZE).any()


def test_a_full_mask_covers_its_box_and_a_pixel_to_the_left_and_above():
    pasted = paste_masks(torch.ones(1, 1, 28, 28), torch.tensor([[2.0, 3, 9, 8]]), SIZE)
    covered = (pasted[0, 0] > 0.5).nonzero()
    assert covered.min(0).values.tolist() == [2, 1]
    assert covered.max(0).values.tolist() == [8, 9]


@given(st.lists(corners, max_size=4), st.integers(1, 7))
@settings(max_examples=50)
def test_cropped_masks_are_torchvisions(boxes, cells):
    generator = torch.Generator().manual_seed(cells)
    masks = torch.rand(3, *SIZE, generator=generator) > 0.5
    indices = torch.randint(3, (len(boxes),), generator=generator)
    rows = torch.tensor(boxes).view(-1, 4)
    peer = project_masks_on_boxes(masks, rows, indices, cells)
    torch.testing.assert_close(crop_masks(masks, rows, indices, cells), peer)
    by_peer = crop_masks(masks, rows, indices, cells, align=torchvision.ops.roi_align)
    assert torch.equal(by_peer, peer)


def test_a_crop_takes_the_mask_of_its_index_and_the_box_as_it_lies():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[1, 2:4, 5:7] = True
    box = torch.tensor([[4.0, 1, 8, 5]])
    assert not crop_masks(masks, box, torch.tensor([0]), 4).any()
    got = crop_masks(masks, box - 0.5, torch.tensor([1]), 4)[0]  # centres count as whole numbers
    assert got.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]

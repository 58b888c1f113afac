"""Chapter 18's loops are the package's operators, and its loss the package's."""

import numpy as np
import pytest
import torch
from taught import taught

from segedu.models.mask_rcnn import heads
from segedu.models.mask_rcnn.roi_align import roi_align, roi_pool

BOXES = [(27.0, 40, 138, 121), (3.0, 5, 9, 30), (60.0, 60, 150, 150), (17.5, 33.1, 18, 34)]


@pytest.fixture(scope="module")
def chapter():
    return taught("18_mask_rcnn")


@pytest.fixture
def feature_map(random):
    return torch.randn(10, 12, generator=random, dtype=torch.float64)


def rois(box, stride=1):
    return torch.tensor([[0, *(edge / stride for edge in box)]], dtype=torch.float64)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("bins", "stride"), [(7, 16), (2, 16), (3, 12)])
def test_pooled_is_the_packages_pool(chapter, feature_map, box, bins, stride):
    peer = roi_pool(feature_map[None, None], rois(box), bins, 1 / stride)[0, 0]
    assert torch.equal(chapter.pooled(feature_map, box, bins, stride), peer)


@pytest.mark.parametrize(
    "box", [tuple(e / 16 for e in box) for box in BOXES] + [(-5.0, -3, 20, 14)]
)
@pytest.mark.parametrize(("bins", "samples"), [(4, 2), (1, 3)])
def test_aligned_bins_are_the_packages_align(chapter, feature_map, box, bins, samples):
    peer = roi_align(feature_map[None, None], rois(box), bins, 1.0, samples, aligned=True)[0, 0]
    ours = chapter.aligned_bins(feature_map, box, bins, samples)
    torch.testing.assert_close(ours, peer, rtol=0, atol=2e-6)


def test_two_matrices_are_align_and_their_transposes_its_gradient(chapter, feature_map, random):
    box = (1.2, 0.4, 9.3, 8.8)
    x = feature_map.requires_grad_()
    out = roi_align(x[None, None], rois(box), 3, 1.0, 2, aligned=True)[0, 0]
    rows = chapter.axis_weights(box[1], box[3], 10, 3, 2)
    columns = chapter.axis_weights(box[0], box[2], 12, 3, 2)
    torch.testing.assert_close(rows @ x @ columns.T, out)
    g = torch.randn(3, 3, generator=random, dtype=torch.float64)
    ours = chapter.align_gradient(g, box, x.shape)
    torch.testing.assert_close(ours, torch.autograd.grad(out, x, g)[0])


def test_the_chapters_mask_loss_is_the_packages(chapter, random):
    logits = torch.randn(5, 4, 6, 6, generator=random)
    labels, masks = torch.tensor([1, 3, 2, 2, 1]), torch.rand(5, 6, 6, generator=random)
    ours = chapter.mask_loss(logits, labels, masks)
    torch.testing.assert_close(ours, heads.mask_loss(logits, labels, masks))


def test_a_full_mask_pasted_exactly_covers_its_box_and_no_more(chapter):
    for box in ((2, 3, 9, 8), (0, 0, 12, 11), (5, 5, 6, 6)):
        pixels = chapter.pasted(torch.ones(28, 28), box, (11, 12)) > 0.5
        expected = torch.zeros(11, 12, dtype=torch.bool)
        expected[box[1] : box[3], box[0] : box[2]] = True
        assert torch.equal(pixels, expected)


def test_the_kinds_of_objects_are_told_apart(chapter):
    masks = torch.zeros(5, 60, 60, dtype=torch.bool)
    for n, (top, left, side) in enumerate(
        [(0, 0, 5), (10, 10, 15), (10, 25, 15), (40, 10, 16), (40, 40, 16)]
    ):
        masks[n, top : top + side, left : left + side] = True
    boxes = torch.tensor(
        [[0.0, 0, 5, 5], [10, 10, 25, 25], [25, 10, 40, 25], [10, 40, 26, 56], [12, 40, 28, 56]]
    )
    kinds = chapter.kinds_of({"masks": masks, "boxes": boxes})
    names = ("tiny", "touching", "crowded", "clear")
    got = [[name for name, is_so in zip(names, row, strict=True) if is_so] for row in kinds]
    assert got == [["tiny"], ["touching"], ["touching"], ["crowded"], ["crowded"]]


def test_only_a_sure_detection_of_its_class_finds_an_object(chapter):
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, 4:] = True, True
    truth = {"masks": masks, "labels": torch.tensor([1, 2])}
    answer = {
        "masks": torch.stack([masks[0], masks[0], masks[1], masks[1]]),
        "labels": torch.tensor([2, 1, 2, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.1, 0.9]),
    }
    answer["masks"][1, 0] = False
    assert chapter.best_ious(answer, truth).tolist() == [0.75, 0]
    nothing = {"masks": masks[:0], "labels": torch.zeros(0), "scores": torch.zeros(0)}
    assert chapter.best_ious(nothing, truth).tolist() == [0, 0]


def test_a_watershed_parts_two_discs_and_components_do_not(chapter):
    i, j = np.mgrid[:40, :60]
    grey = ((np.hypot(i - 20, j - 20) <= 10) | (np.hypot(i - 20, j - 39) <= 10)).astype(float)
    for picture in (grey, 1 - grey):
        parts, cut, depth = chapter.without_boxes(picture)
        assert (parts.max(), cut.max()) == (1, 2)
        found = chapter.detections(cut, depth)
        assert found["masks"].sum((1, 2)).tolist() == pytest.approx([314, 314], rel=0.1)
    empty = chapter.detections(np.zeros((5, 5), dtype=int), np.zeros((5, 5)))
    assert empty["masks"].shape == (0, 5, 5)

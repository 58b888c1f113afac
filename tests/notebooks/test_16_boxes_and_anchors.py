"""What chapter 16 writes out is what the package does, on boxes with ties and without area."""

import pytest
import torch
from taught import taught

from segedu.models.mask_rcnn import boxes as package
from segedu.models.mask_rcnn.anchors import cell_anchors, grid_anchors
from segedu.models.mask_rcnn.matching import match
from segedu.models.mask_rcnn.nms import nms, soft_nms, soft_nms_linear


@pytest.fixture(scope="module")
def chapter():
    return taught("16_boxes_and_anchors")


@pytest.fixture
def boxes(random):
    """40 boxes with corners on whole pixels, so that many overlap alike; one has no area."""
    corner = torch.randint(0, 12, (40, 2), generator=random).double()
    size = torch.randint(1, 9, (40, 2), generator=random).double()
    size[7] = 0
    return torch.cat([corner, corner + size], dim=1)


@pytest.fixture
def scores(random):
    return torch.randint(1, 12, (40,), generator=random).double() / 12  # many equal ones


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, equal_nan=True)


def test_the_chapters_overlaps_are_the_packages(chapter, boxes):
    same(chapter.area(boxes), package.box_area(boxes))
    same(chapter.iou(boxes, boxes[:9]), package.box_iou(boxes, boxes[:9]))
    ours, theirs = chapter.giou(boxes, boxes), package.generalized_box_iou(boxes, boxes)
    same(ours, theirs)


def test_the_chapters_codec_is_the_packages(chapter, boxes, random):
    boxes, anchors = boxes[8:], boxes[8:].roll(1, dims=0)
    same(chapter.encode(boxes, anchors), package.encode(boxes, anchors))
    deltas = torch.randn(len(boxes), 4, generator=random, dtype=torch.float64)
    same(chapter.decode(deltas, anchors), package.decode(deltas, anchors))


def test_the_chapters_box_around_a_mask_is_counted(chapter):
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[4, 6] = mask[2, 3] = True
    assert chapter.box_around(mask).tolist() == [3, 2, 7, 5]


@pytest.mark.parametrize("size", [5, 16, 32, 100])
def test_the_chapters_anchors_are_the_packages(chapter, size):
    ratios = (0.5, 1.0, 1.7, 2.0)
    cells = chapter.anchors_of(size, ratios)
    assert torch.equal(cells, cell_anchors([size], ratios))
    assert torch.equal(chapter.lay(cells, 3, 5, 8), grid_anchors(cells, (3, 5), (8, 8)))


def test_the_chapters_matching_is_the_packages(chapter, random):
    overlap = torch.randint(0, 11, (4, 60), generator=random) / 10
    rules = chapter.match_by_rules(overlap.clone(), 0.3, 0.7)
    assert torch.equal(rules, match(overlap, 0.3, 0.7))
    rules = chapter.match_all_objects(overlap.clone(), 0.3, 0.7)
    assert torch.equal(rules, match(overlap, 0.3, 0.7, keep_best=True))


@pytest.mark.parametrize("tau", [0.0, 0.25, 0.5, 1.0])
def test_the_chapters_loop_and_its_rounds_keep_what_the_package_keeps(chapter, boxes, scores, tau):
    kept = nms(boxes, scores, tau)
    assert chapter.nms_one_by_one(boxes, scores, tau) == kept.tolist()
    in_rounds, rounds = chapter.nms_in_rounds(boxes, scores, tau)
    assert torch.equal(in_rounds, kept)
    assert rounds <= len(boxes)


def test_the_chapters_one_loop_is_each_kind_of_nms(chapter, boxes, scores):
    boxes, scores = boxes[8:], scores[8:] + 1e-3 * torch.arange(32)  # no ties
    order, lowered = chapter.lowered(boxes, scores, lambda o: (-o * o / 0.5).exp())
    kept, theirs = soft_nms(boxes, scores, sigma=0.5, score_threshold=0.0)
    assert order == kept.tolist()
    same(torch.tensor(lowered, dtype=torch.float64), theirs)
    _, lowered = chapter.lowered(boxes, scores, lambda o: (1 - o).where(o > 0.3, 1))
    _, theirs = soft_nms_linear(boxes, scores, 0.3, score_threshold=0.0)
    same(torch.tensor(lowered, dtype=torch.float64), theirs)
    order, lowered = chapter.lowered(boxes, scores, lambda o: (o <= 0.5).double())
    assert [i for i, p in zip(order, lowered, strict=True) if p] == nms(boxes, scores, 0.5).tolist()

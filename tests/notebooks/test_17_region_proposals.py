"""Chapter 17's pyramid, order, labels and proposals are the package's."""

import pytest
import torch
from taught import taught
from torch import nn

from segedu.models.mask_rcnn.anchors import Anchors
from segedu.models.mask_rcnn.fpn import FeaturePyramid
from segedu.models.mask_rcnn.operators import choose_operators
from segedu.models.mask_rcnn.rpn import ProposalSettings, RegionProposals, _by_anchor

SIZE = (64, 96)
SETTINGS = ProposalSettings(
    anchors=Anchors(((16,), (32,), (64,))), samples=32, before_nms=(50, 50), after_nms=(20, 20)
)


@pytest.fixture(scope="module")
def chapter():
    return taught("17_region_proposals")


@pytest.fixture
def levels():
    torch.manual_seed(0)
    return [torch.randn(2, 8, SIZE[0] // s, SIZE[1] // s) for s in (4, 8, 16)]


@pytest.fixture
def proposals():
    """Random weights that spread scores and boxes."""
    torch.manual_seed(1)
    rpn = RegionProposals(8, SETTINGS, choose_operators("written"))
    nn.init.normal_(rpn.head.cls_logits.weight, std=0.5)
    nn.init.normal_(rpn.head.bbox_pred.weight, std=0.1)
    return rpn


def test_the_pyramid_is_the_packages(chapter, levels):
    package = FeaturePyramid([8, 8, 8], 4)
    ours = chapter.pyramid(levels, list(package.inner_blocks), list(package.layer_blocks))
    for mine, theirs in zip(ours, package(levels), strict=False):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("numbers", [1, 4])
def test_numbers_come_in_the_packages_order(chapter, levels, numbers):
    for level in levels:
        assert chapter.by_anchor(level, numbers).equal(_by_anchor(level, numbers))


@pytest.mark.parametrize("nms_iou", [0.3, 0.7, 1.0])
def test_the_proposals_are_the_packages(chapter, levels, proposals, nms_iou):
    changed = ProposalSettings(**{**vars(SETTINGS), "nms_iou": nms_iou})
    proposals.settings = changed
    expected, _ = proposals.eval()(levels, SIZE, [SIZE, (50, 70)])
    logits, deltas = proposals.head(levels)
    for i, size in enumerate([SIZE, (50, 70)]):
        of_picture = ([x[i] for x in logits], [x[i] for x in deltas])
        found, scores = chapter.propose(
            *of_picture, SETTINGS.anchors(levels, SIZE), size, 50, 20, nms_iou
        )
        torch.testing.assert_close(found, expected[i])
        assert (scores.diff() <= 0).all()


def test_the_losses_are_the_packages_when_all_labelled_anchors_are_sampled(
    chapter, levels, proposals
):
    boxes = torch.tensor([[4.0, 6, 30, 40], [40, 10, 90, 60]])
    wide = {**vars(SETTINGS), "samples": 10_000, "positive_share": 1.0}
    proposals.settings = ProposalSettings(**wide)
    _, expected = proposals(levels, SIZE, [SIZE] * 2, [{"boxes": boxes}] * 2)
    label, wanted = chapter.labels_for(torch.cat(SETTINGS.anchors(levels, SIZE)), boxes)
    logits, deltas = (torch.cat(x, dim=1) for x in proposals.head(levels))
    asked, hit = label >= 0, label == 1
    doubt = nn.functional.binary_cross_entropy_with_logits(
        logits[:, asked], label[asked].expand(2, -1)
    )
    off = chapter.smooth_l1(deltas[:, hit] - wanted[hit], 1 / 9).sum() / (2 * asked.sum())
    torch.testing.assert_close(expected["loss_objectness"], doubt)
    torch.testing.assert_close(expected["loss_rpn_box_reg"], off)

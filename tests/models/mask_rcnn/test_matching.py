import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher

from segedu.errors import InputError
from segedu.models.mask_rcnn.matching import BETWEEN, NEGATIVE, match, sample

share = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0])  # few values: many ties


@st.composite
def overlaps(draw):
    """(G, A) overlaps of few values, G and A 1 or more."""
    objects, anchors = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    values = draw(st.lists(share, min_size=objects * anchors, max_size=objects * anchors))
    dtype = draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))
    return torch.tensor(values, dtype=dtype).reshape(objects, anchors)


@settings(max_examples=40)
@given(overlaps(), st.lists(share, min_size=2, max_size=2), st.booleans())
def test_matches_are_torchvisions(iou, thresholds, keep_best):
    low, high = sorted(thresholds)
    theirs = Matcher(high, low, allow_low_quality_matches=keep_best)(iou.clone())
    assert match(iou, low, high, keep_best=keep_best).tolist() == theirs.tolist()


def test_matching_by_hand():
    iou = torch.tensor([[0.8, 0.2, 0.5, 0.3, 0.0], [0.1, 0.75, 0.6, 0.1, 0.0]])
    assert match(iou, 0.3, 0.7).tolist() == [0, 1, BETWEEN, BETWEEN, NEGATIVE]
    assert match(iou, 0.5, 0.5).tolist() == [0, 1, 1, NEGATIVE, NEGATIVE]


def test_an_object_that_no_anchor_fits_gets_its_best_ones_only_on_request():
    iou = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 0.2]])
    assert match(iou, 0.3, 0.7).tolist() == [0, NEGATIVE, NEGATIVE]
    assert match(iou, 0.3, 0.7, keep_best=True).tolist() == [0, 1, 1]


def test_the_best_anchor_of_one_object_goes_to_another_that_it_overlaps_more():
    iou = torch.tensor([[0.9, 0.0], [0.4, 0.1]])
    assert match(iou, 0.3, 0.7, keep_best=True).tolist() == [0, NEGATIVE]


def test_an_object_that_nothing_overlaps_claims_every_anchor_that_overlaps_it_not():
    iou = torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.1, 0.0]])
    assert match(iou, 0.3, 0.7, keep_best=True).tolist() == [1, 1, 0]


@pytest.mark.parametrize("keep_best", [False, True])
def test_without_objects_all_anchors_are_negative_and_without_anchors_there_are_none(keep_best):
    assert match(torch.zeros(0, 3), 0.3, 0.7, keep_best=keep_best).tolist() == [NEGATIVE] * 3
    none = match(torch.zeros(2, 0), 0.3, 0.7, keep_best=keep_best)
    assert none.tolist() == []
    assert none.dtype == torch.int64
    assert match(torch.zeros(0, 0), 0.3, 0.7, keep_best=keep_best).tolist() == []


def test_matching_leaves_the_overlaps_as_they_are(random):
    iou = torch.rand(3, 9, generator=random)
    before = iou.clone()
    match(iou, 0.3, 0.7, keep_best=True)
    assert torch.equal(iou, before)


def test_a_low_threshold_above_the_high_one_is_refused():
    with pytest.raises(InputError, match=r"low is 0\.7, above high, 0\.3"):
        match(torch.zeros(1, 1), 0.7, 0.3)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([-1, 0, 0, 1, 3]), max_size=40),
    st.integers(0, 30),
    share,
    st.sampled_from([torch.int64, torch.float32]),
)
def test_equal_seeds_draw_what_torchvision_draws(labels, count, positive_share, dtype):
    labels = torch.tensor(labels, dtype=dtype)
    torch.manual_seed(7)
    [theirs_positive], [theirs_negative] = BalancedPositiveNegativeSampler(count, positive_share)(
        [labels]
    )
    torch.manual_seed(7)
    positive, negative = sample(labels, count, positive_share)
    assert torch.equal(positive, theirs_positive.bool())
    assert torch.equal(negative, theirs_negative.bool())
    again = torch.Generator().manual_seed(7)
    assert torch.equal(sample(labels, count, positive_share, again)[1], negative)


def test_negatives_fill_up_where_positives_are_few_and_not_the_other_way_round():
    few = torch.tensor([1] * 2 + [0] * 50)
    positive, negative = sample(few, 16, 0.5)
    assert (positive.sum().item(), negative.sum().item()) == (2, 14)
    many = torch.tensor([1] * 50 + [0] * 2)
    positive, negative = sample(many, 16, 0.5)
    assert (positive.sum().item(), negative.sum().item()) == (8, 2)
    assert positive[:50].sum() == 8
    assert not positive[50:].any()


def test_each_positive_is_drawn_equally_often(random):
    labels = torch.tensor([2, 0, 1, -1, 5, 1, 0])
    drawn = torch.stack([sample(labels, 4, 0.5, random)[0] for _ in range(2000)])
    often = drawn.double().mean(0)
    torch.testing.assert_close(
        often, torch.tensor([0.5, 0, 0.5, 0, 0.5, 0.5, 0]).double(), rtol=0, atol=0.05
    )


def test_a_share_that_is_none_and_a_negative_count_are_refused():
    with pytest.raises(InputError, match="positive_share 50"):
        sample(torch.zeros(3), 4, 50)
    with pytest.raises(InputError, match="count is -1"):
        sample(torch.zeros(3), -1, 0.5)

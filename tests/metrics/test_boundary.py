import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segedu.data.sample import IGNORE
from segedu.errors import InputError
from segedu.metrics.boundary import (
    BoundaryCounts,
    boundary_f1,
    class_boundary_counts,
    count_matched,
    count_near,
    region_boundary,
)

CLASSES = 3
SIDES = st.tuples(st.integers(1, 6), st.integers(1, 6))
tolerances = st.sampled_from([0, 1, 2**0.5, 1.5, 2, 5**0.5, 3, 20])


def pictures(*counts, values):
    """Several arrays of one and the same small size, as tensors; each with `counts` in front."""

    def of(size):
        shapes = [(*count, *size) for count in counts]
        return st.tuples(*(arrays("int64", shape, elements=values) for shape in shapes))

    return SIDES.flatmap(of).map(lambda found: [torch.from_numpy(one) for one in found])


masks = pictures((), (), values=st.sampled_from([*range(CLASSES), IGNORE]))
batches = pictures((2,), (2,), values=st.integers(0, CLASSES - 1))
maps = pictures((), (), values=st.integers(0, 1)).map(lambda found: [m.bool() for m in found])
drawn = pictures((), (3,), values=st.sampled_from([0, 0, 1])).map(lambda f: [m.bool() for m in f])


def places(mask):
    """The (row, column) of each pixel that is true."""
    return [(r, c) for r, row in enumerate(mask.tolist()) for c, value in enumerate(row) if value]


def boundary_by_hand(mask, target, c):
    """Labelled pixels of class c beside a pixel of the picture that is void or of another class."""
    inside = {
        (i, j)
        for i, j in places(torch.ones_like(mask))
        if mask[i, j] == c and target[i, j] != IGNORE
    }
    every = set(places(torch.ones_like(mask)))
    around = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    return [(i, j) for i, j in inside if any((i + a, j + b) in every - inside for a, b in around)]


def near_by_hand(points, others, tolerance):
    return sum(any(math.dist(p, q) <= tolerance for q in others) for p in points)


def f1_by_hand(ours, truth, tolerance):
    if not ours and not truth:
        return math.nan
    right, found = near_by_hand(ours, truth, tolerance), near_by_hand(truth, ours, tolerance)
    if not right or not found:
        return 0.0
    precision, recall = right / len(ours), found / len(truth)
    return 2 * precision * recall / (precision + recall)


def largest_matching(points, others, tolerance):
    """How many pairs at most, by growing paths one at a time (Berge 1957)."""
    partner = {}

    def place(p, tried):
        for q in others:
            if q not in tried and math.dist(p, q) <= tolerance:
                tried.add(q)
                if q not in partner or place(partner[q], tried):
                    partner[q] = p
                    return True
        return False

    return sum(place(p, set()) for p in points)


@given(masks, tolerances)
def test_boundary_f1_of_each_class_matches_a_count_by_hand(pair, tolerance):
    prediction, target = pair
    prediction = prediction.where(target != IGNORE, 77)
    if ((prediction == IGNORE) & (target != IGNORE)).any():
        prediction = prediction.where(prediction != IGNORE, 0)
    scores = boundary_f1(prediction, target, tolerance, num_classes=CLASSES)
    for c in range(CLASSES):
        ours, truth = (boundary_by_hand(mask, target, c) for mask in (prediction, target))
        want = f1_by_hand(ours, truth, tolerance)
        assert scores[c].item() == pytest.approx(want, nan_ok=True)


@given(masks, tolerances)
def test_what_is_predicted_in_void_changes_nothing(pair, tolerance):
    prediction, target = (mask.where(mask != IGNORE, 1) for mask in pair)
    target = target.where(pair[0] != IGNORE, IGNORE)
    scores = boundary_f1(prediction, target, tolerance, num_classes=CLASSES)
    other = prediction.where(target != IGNORE, 2 - prediction)
    again = boundary_f1(other, target, tolerance, num_classes=CLASSES)
    torch.testing.assert_close(again, scores, rtol=0, atol=0, equal_nan=True)


@given(batches, tolerances)
def test_the_pictures_of_a_batch_are_counted_together_and_never_across(pair, tolerance):
    prediction, target = pair
    whole = class_boundary_counts(prediction, target, tolerance, num_classes=CLASSES)
    for c in range(CLASSES):
        parts = [
            class_boundary_counts(p, t, tolerance, num_classes=CLASSES)[c]
            for p, t in zip(prediction, target, strict=True)
        ]
        assert whole[c] == parts[0] + parts[1]


@given(maps, tolerances)
def test_near_pixels_match_a_count_by_hand(pair, tolerance):
    ours, truth = map(places, pair)
    assert count_near(*pair, tolerance) == BoundaryCounts(
        near_by_hand(ours, truth, tolerance),
        len(ours),
        near_by_hand(truth, ours, tolerance),
        len(truth),
    )


@given(maps, tolerances)
def test_one_person_is_matched_by_as_many_pairs_as_there_can_be(pair, tolerance):
    ours, truth = map(places, pair)
    pairs = largest_matching(ours, truth, tolerance)
    counts = count_matched(pair[0], pair[1][None], tolerance)
    assert counts == BoundaryCounts(pairs, len(ours), pairs, len(truth))


@settings(max_examples=50)
@given(drawn, tolerances)
def test_people_are_matched_one_by_one_and_a_pixel_is_right_if_any_has_it(pair, tolerance):
    prediction, people = pair
    counts = count_matched(prediction, people, tolerance)
    alone = [largest_matching(places(prediction), places(one), tolerance) for one in people]
    assert counts.found == sum(alone)
    assert counts.true == people.sum()
    assert max(alone) <= counts.right <= min(sum(alone), counts.predicted)


def test_two_people_who_agree_count_twice_in_recall_and_once_in_precision():
    line = torch.zeros(4, 5, dtype=torch.bool)
    line[:, 2] = True
    counts = count_matched(line[:3], torch.stack([line[:3], line[:3]]), 0)
    assert counts == BoundaryCounts(right=3, predicted=3, found=6, true=6)


def test_a_pixel_is_right_if_the_second_person_alone_has_it():
    empty, line = torch.zeros(2, 3, 3, dtype=torch.bool)
    line[1] = True
    counts = count_matched(line, torch.stack([empty, line, empty]), 0)
    assert (counts.right, counts.found) == (3, 3)


def test_a_thick_line_is_half_wrong_when_matched_one_to_one_and_right_when_near():
    thin = torch.zeros(6, 8, dtype=torch.bool)
    thin[:, 3] = True
    thick = thin | thin.roll(1, dims=1)
    assert count_near(thick, thin, 1).precision == 1
    assert count_matched(thick, thin[None], 1).precision == 0.5
    assert count_matched(thick, thin[None], 1).recall == 1


def test_of_all_largest_matchings_the_one_of_least_distance_is_taken():
    ours, truth, second = torch.zeros(3, 1, 7, dtype=torch.bool)
    ours[0, [2, 3]] = True
    truth[0, 3] = True
    second[0, 3] = True
    counts = count_matched(ours, torch.stack([truth, second]), 2)
    assert (counts.right, counts.found) == (1, 2)  # both take the one on the same place


def test_a_long_chain_is_matched_whole_although_every_pair_is_then_farther_apart():
    ours, truth = torch.zeros(2, 1, 402, dtype=torch.bool)
    ours[0, :400] = True
    truth[0, 1:401] = True  # 399 pairs lie on the same pixel; 400 can be had one pixel apart
    assert count_matched(ours, truth[None], 1).right == 400


def test_two_sides_without_boundary_have_no_score_and_one_alone_has_none_right():
    blank = torch.zeros(3, 4, dtype=torch.int64)
    assert boundary_f1(blank, blank, 2).isnan().tolist() == [True]
    half = blank.clone()
    half[:, 2:] = 1
    assert boundary_f1(blank, half, 2, num_classes=3).tolist()[:2] == [0, 0]
    assert boundary_f1(half, blank, 2, num_classes=3).tolist()[:2] == [0, 0]
    assert boundary_f1(half, blank, 2, num_classes=3)[2].isnan()
    assert count_matched(half > 0, (blank > 0)[None], 2).f1 == 0
    assert math.isnan(BoundaryCounts().precision)
    assert math.isnan(BoundaryCounts().recall)


def test_the_frame_of_the_picture_is_no_boundary():
    disc = torch.ones(3, 4, dtype=torch.bool)
    assert not region_boundary(disc).any()
    disc[0, 0] = False
    assert places(region_boundary(disc)) == [(0, 1), (1, 0)]


def test_a_shift_by_one_pixel_costs_everything_at_tolerance_0_and_nothing_at_1():
    target = torch.zeros(12, 12, dtype=torch.int64)
    target[4:8, 4:8] = 1
    moved = target.roll(1, dims=1)
    assert boundary_f1(moved, target, 0)[1] == 0.5  # the rows above and below lie on themselves
    assert boundary_f1(moved, target, 1).tolist() == [1, 1]


def test_distance_is_that_of_pixel_centres_along_a_straight_line():
    ours, truth = torch.zeros(2, 4, 4, dtype=torch.bool)
    ours[0, 0] = truth[1, 2] = True
    assert count_near(ours, truth, 5**0.5).f1 == 1
    assert count_near(ours, truth, 2.23).f1 == 0


def test_a_void_ring_hides_an_error_smaller_than_itself_and_no_larger_one():
    target = torch.zeros(16, 16, dtype=torch.int64)
    target[5:11, 5:11] = 1
    ring = target.clone()
    ring[4:12, 4:12] = IGNORE
    ring[6:10, 6:10] = 1
    grown, larger = target.clone(), target.clone()
    grown[4:12, 4:12] = 1
    larger[2:14, 2:14] = 1
    assert boundary_f1(grown, ring, 0).tolist() == [1, 1]
    assert boundary_f1(larger, ring, 0).tolist() != [1, 1]


def test_masks_of_every_integer_type_count_alike(random):
    prediction, target = torch.randint(0, 3, (2, 2, 9, 9), generator=random)
    scores = boundary_f1(prediction, target, 1)
    assert boundary_f1(prediction.to(torch.uint8), target.to(torch.int32), 1).equal(scores)


def test_nothing_labelled_has_no_class_unless_told_how_many():
    void = torch.full((2, 3), IGNORE)
    assert boundary_f1(torch.zeros_like(void), void, 1).shape == (0,)
    assert boundary_f1(torch.zeros_like(void), void, 1, num_classes=2).isnan().all()


@pytest.mark.parametrize("tolerance", [-1, math.nan])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance):
    mask = torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(InputError, match="expected a distance in pixels, 0 or more"):
        boundary_f1(mask, mask, tolerance, num_classes=0)
    with pytest.raises(InputError, match="tolerance is"):
        count_near(mask > 0, mask > 0, tolerance)
    with pytest.raises(InputError, match="tolerance is"):
        count_matched(mask > 0, (mask > 0)[None], tolerance)


@pytest.mark.parametrize(
    ("prediction", "target", "found"),
    [(3, 0, "prediction has values 3..3"), (0, 3, "target has values 3..3"), (-1, 0, "-1..-1")],
)
def test_an_index_outside_the_classes_is_refused(prediction, target, found):
    masks = torch.full((2, 2), prediction), torch.full((2, 2), target)
    with pytest.raises(InputError, match=rf"{found}; expected class indices 0\.\.2"):
        boundary_f1(*masks, 1, num_classes=3)


def test_a_negative_index_is_refused_also_when_the_classes_are_not_told():
    with pytest.raises(InputError, match=r"target has values -2\.\.-2"):
        boundary_f1(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), -2), 1)


@pytest.mark.real
def test_real_people_agree_on_a_photograph_and_not_with_what_was_drawn_of_another(real_root):
    from segedu.data.bsds import Bsds

    photographs = Bsds(real_root / "bsds", "val")
    drawn = [photographs[n]["boundaries"].as_subclass(torch.Tensor) for n in (4, 20)]
    assert drawn[0].shape[1:] == drawn[1].shape[1:]
    tolerance = 0.0075 * math.hypot(*drawn[0].shape[1:])
    first = drawn[0][0]
    assert count_matched(first, drawn[0][1:], tolerance).f1 > 0.6
    assert count_matched(first, drawn[1], tolerance).f1 < 0.4
    assert count_matched(first, first[None], 0).f1 == 1

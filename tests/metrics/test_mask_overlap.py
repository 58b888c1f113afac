import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as peer

from segedu.data.instances import boxes_around
from segedu.errors import InputError
from segedu.metrics.mask_overlap import intersections, mask_iou, runs_of

SIDES = st.tuples(st.integers(1, 7), st.integers(1, 7))


def masks(count):
    return SIDES.flatmap(lambda size: st.tuples(*(arrays(bool, (n, *size)) for n in (count, 3))))


pairs = st.integers(0, 4).flatmap(masks)


def stored(group, *, as_lists=False):
    """As COCO stores them; some as plain lists of counts."""
    found = [peer.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in group]
    if as_lists:
        for one, mask in zip(found, group, strict=True):
            flat = np.concatenate([[2], mask.ravel(order="F"), [2]]).astype(int)
            places = np.flatnonzero(np.diff(flat))
            runs = np.diff(places).tolist()
            one["counts"] = [0, *runs] if mask.ravel(order="F")[0] else runs
    return found


@given(pairs)
def test_the_iou_of_masks_is_that_of_their_pixels_and_of_pycocotools(pair):
    detected, true = pair
    crowd = np.array([False, True, False])
    common = (detected[:, None] & true).sum(axis=(2, 3))
    either = (detected[:, None] | true).sum(axis=(2, 3))
    either[:, 1] = detected.sum(axis=(1, 2))
    iou = mask_iou(detected, true, crowd)
    assert iou.tolist() == (common / np.maximum(either, 1)).tolist()
    if len(detected):
        assert iou.tolist() == peer.iou(stored(detected), stored(true), [0, 1, 0]).tolist()


@given(pairs)
def test_run_lengths_and_pixels_have_the_same_runs(pair):
    for group in pair:
        for form in (stored(group), stored(group, as_lists=True), torch.from_numpy(group)):
            runs = runs_of(form)
            assert runs.areas.tolist() == group.sum(axis=(1, 2)).tolist()
            assert runs.boxes().tolist() == boxes_around(torch.from_numpy(group)).tolist()
            if len(group):
                assert runs.size == group.shape[1:]


@given(pairs)
def test_any_pairs_of_masks_may_be_asked_for(pair):
    detected, true = pair
    last = len(detected) - 1
    chosen = ([0, 0, last], [2, 2, 0]) if len(detected) else ([], [])
    d, g = (np.array(which, dtype=np.int64) for which in chosen)
    shared = intersections(runs_of(detected), runs_of(true), (d, g))
    assert shared.tolist() == (detected[d] & true[g]).sum(axis=(1, 2)).tolist()


def test_empty_masks_overlap_nothing_not_even_each_other():
    nothing = np.zeros((2, 3, 4), dtype=bool)
    assert not mask_iou(nothing, nothing).any()
    assert mask_iou([], []).shape == (0, 0)
    assert mask_iou([], nothing).shape == (0, 2)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.rand(1, 2, 2), "masks are of shape (1, 2, 2) and kind float32; expected (N, H, W)"),
        (np.ones((2, 2), dtype=bool), "masks are of shape (2, 2) and kind bool"),
        ([{"size": [2, 2], "counts": [4]}, {"size": [2, 3], "counts": [6]}], "[(2, 2), (2, 3)]"),
        ([{"size": [2, 2], "counts": [1, 2]}], "run lengths do not sum to 2 x 2 pixels"),
        ([{"size": [2, 2], "counts": [1, 2]}, {"size": [2, 2], "counts": [5]}], "do not sum"),
    ],
)
def test_masks_of_other_forms_are_refused(masks, message):
    with pytest.raises(InputError, match=re.escape(message)):
        runs_of(masks)


def test_masks_of_different_sizes_are_not_compared():
    with pytest.raises(InputError, match=r"of size \(2, 3\), the true ones of \(3, 2\)"):
        mask_iou(np.ones((1, 2, 3), dtype=bool), np.ones((1, 3, 2), dtype=bool))

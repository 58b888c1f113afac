import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.detection import PanopticQuality as Peer

from segedu.data.coco import CocoPanoptic
from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.errors import InputError
from segedu.metrics.panoptic import PanopticQuality

THINGS, STUFF = [1, 2], [0, 3]
IDS = [0, 1001, 1002, 2001, 3000, IGNORE]
SIDES = st.tuples(st.integers(1, 4), st.integers(1, 4))


def maps(size, values):
    return arrays("int64", size, elements=st.sampled_from(values)).map(torch.from_numpy)


triples = SIDES.flatmap(
    lambda size: st.tuples(maps(size, IDS), maps(size, IDS), maps(size, [1, 2, IGNORE]))
)


def by_hand(pictures):
    """For each class the IoUs of its matches, and its false and missed segments.

    Goes through all pairs of segments as sets of pixels, with the rules of section 4 of the paper
    for void and for groups ("crowds").
    """
    found = {c: ([], [], []) for c in (*THINGS, *STUFF)}
    for prediction, target, crowd in pictures:
        true, predicted = segments(target), segments(prediction)
        void = {p for p in pixels(target, IGNORE) if crowd[p] == IGNORE}
        groups = {c: {p for p in pixels(target, IGNORE) if crowd[p] == c} for c in THINGS}
        matched = set()
        for t, there in true.items():
            for p, here in predicted.items():
                iou = len(here & there) / len((here - void) | there)
                if t // 1000 == p // 1000 and iou > 0.5:
                    assert not matched & {("true", t), ("predicted", p)}, "at most one match"
                    matched |= {("true", t), ("predicted", p)}
                    found[t // 1000][0].append(iou)
        for p, here in predicted.items():
            spared = len(here & (void | groups.get(p // 1000, set()))) / len(here)
            if ("predicted", p) not in matched and spared <= 0.5:
                found[p // 1000][1].append(p)
        for t in true:
            if ("true", t) not in matched:
                found[t // 1000][2].append(t)
    return found


def pixels(ids, value):
    return {tuple(p) for p in (ids == value).nonzero().tolist()}


def segments(ids):
    return {i: pixels(ids, i) for i in set(ids.flatten().tolist()) - {IGNORE}}


def score(pictures):
    metric = PanopticQuality(THINGS, STUFF)
    for picture in pictures:
        metric.update(*picture)
    return metric


@settings(max_examples=300)
@given(st.lists(triples, min_size=1, max_size=3))
def test_all_scores_follow_the_definition(pictures):
    metric = score(pictures)
    scores = {"PQ": {}, "SQ": {}, "RQ": {}}
    for c, (ious, false, missed) in by_hand(pictures).items():
        total = len(ious) + (len(false) + len(missed)) / 2
        assert [metric.matched[c], metric.false[c], metric.missed[c]] == [
            len(ious),
            len(false),
            len(missed),
        ]
        want = {
            "PQ": sum(ious) / total if total else np.nan,
            "SQ": (np.mean(ious) if ious else 0) if total else np.nan,
            "RQ": len(ious) / total if total else np.nan,
        }
        got = {"PQ": metric.pq()[c], "SQ": metric.sq()[c], "RQ": metric.rq()[c]}
        for name, value in want.items():
            assert got[name].item() == pytest.approx(value, abs=1e-12, nan_ok=True)
            scores[name][c] = value
    summary = metric.summary()
    for suffix, classes in (("", THINGS + STUFF), ("_th", THINGS), ("_st", STUFF)):
        for name, value in scores.items():
            there = [value[c] for c in classes if not np.isnan(value[c])]
            want = np.mean(there) if there else np.nan
            assert summary[name + suffix] == pytest.approx(want, abs=1e-12, nan_ok=True)


def test_four_segments_by_hand():
    """Thing 1001 found with IoU 3/4, 1002 with exactly 1/2 and so not; the ground with 9/12."""
    target = torch.tensor([[1001] * 4, [1002, 1002, 0, 0], [0] * 4, [0] * 4])
    prediction = torch.tensor([[1005] * 3 + [0], [1006, 0, 0, 0], [0] * 4, [0] * 4])
    metric = PanopticQuality([1], [0])
    metric.update(prediction, target)
    assert metric.sq().tolist() == pytest.approx([10 / 12, 3 / 4])
    assert metric.rq().tolist() == pytest.approx([1, 1 / 2])
    assert metric.pq().tolist() == pytest.approx([10 / 12, 3 / 8])
    assert metric.summary() == pytest.approx(
        {
            "PQ": (10 / 12 + 3 / 8) / 2,
            "SQ": (10 / 12 + 3 / 4) / 2,
            "RQ": 3 / 4,
            "PQ_th": 3 / 8,
            "SQ_th": 3 / 4,
            "RQ_th": 1 / 2,
            "PQ_st": 10 / 12,
            "SQ_st": 10 / 12,
            "RQ_st": 1,
        }
    )


def row(*ids):
    return torch.tensor([ids])


@pytest.mark.parametrize(
    ("prediction", "target", "crowd", "counts"),
    [
        (row(1001, 1001, 0), row(1001, IGNORE, 0), None, [1, 0, 0]),  # void leaves the union
        (row(1001, 1001, 0), row(0, IGNORE, 0), None, [0, 1, 0]),  # half in void is a mistake
        (row(1001, 1001, 1001), row(0, IGNORE, IGNORE), None, [0, 0, 0]),  # more than half is none
        (row(1001, 1001, 1001), row(0, IGNORE, IGNORE), row(255, 1, 1), [0, 0, 0]),
        (row(1001, 1001, 1001), row(0, IGNORE, IGNORE), row(255, 1, 255), [0, 0, 0]),
        (row(1001, 1001, 1001), row(0, IGNORE, IGNORE), row(255, 2, 2), [0, 1, 0]),
        (row(1001, 1001, 0), row(1001, IGNORE, 0), row(255, 1, 255), [0, 1, 1]),  # a crowd stays in
        (row(1001, 1001, 0), row(1001, 0, 0), row(1, 1, 1), [0, 1, 1]),  # no crowd on a segment
        (row(IGNORE, 0, 0), row(1001, 0, 0), None, [0, 0, 1]),
        (row(2001, 0, 0), row(1001, 0, 0), None, [0, 0, 1]),  # found, but of another class
    ],
)
def test_void_and_crowds(prediction, target, crowd, counts):
    metric = PanopticQuality([1, 2], [0])
    metric.update(prediction, target, crowd)
    assert [metric.matched[1], metric.false[1], metric.missed[1]] == counts


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_a_perfect_answer_scores_one_whatever_its_numbers_are(dtype):
    scene = Scenes(1, size=48)[0]
    target = scene["panoptic"].as_subclass(torch.Tensor)
    renamed = torch.where((target > 0) & (target != IGNORE), target + 20, target)
    metric = PanopticQuality(range(1, 6), [0])
    metric.update(renamed.to(dtype), target.to(dtype))
    assert metric.summary() == pytest.approx(dict.fromkeys(metric.summary(), 1.0))
    assert metric.pq().isnan().sum() == 6 - len(set(scene["labels"].tolist())) - 1


@settings(max_examples=40)
@given(SIDES.flatmap(lambda size: st.tuples(*(maps(size, IDS[:-1]) for _ in range(2)))))
def test_without_void_each_class_scores_as_in_torchmetrics(pair):
    peer = Peer(THINGS, STUFF, return_sq_and_rq=True, return_per_class=True)
    peer.update(*(torch.stack([ids // 1000, ids % 1000], -1)[None] for ids in pair))
    metric = score([(*pair, None)])
    ours = torch.stack([metric.pq(), metric.sq(), metric.rq()], 1).nan_to_num(0.0)
    torch.testing.assert_close(ours[THINGS + STUFF], peer.compute(), rtol=0, atol=1e-6)


def test_nothing_at_all_has_no_score():
    metric = PanopticQuality(THINGS, STUFF)
    metric.update(torch.empty(0, 3).long(), torch.empty(0, 3).long())
    metric.update(torch.full((2, 2), IGNORE), torch.full((2, 2), IGNORE))
    assert all(np.isnan(value) for value in metric.summary().values())


def test_a_class_that_is_neither_thing_nor_stuff_is_refused_and_nothing_counted():
    metric = PanopticQuality([1], [0])
    right, wrong = row(0, 1001), row(0, 7001)
    with pytest.raises(InputError, match=r"prediction has segments of classes \[7\]; expected "):
        metric.update(wrong, right)
    with pytest.raises(InputError, match=r"target has segments of classes \[7\]"):
        metric.update(right, wrong)
    assert metric.matched.sum() == metric.false.sum() == metric.missed.sum() == 0


@pytest.mark.parametrize(("things", "stuff"), [([1], [1]), ([], []), ([-1], [0])])
def test_classes_that_make_no_sense_are_refused(things, stuff):
    with pytest.raises(InputError, match="class indices, each in one of the two"):
        PanopticQuality(things, stuff)


@pytest.mark.real
def test_a_real_truth_scores_one_against_itself_and_less_when_it_is_moved(real_root):
    photos = CocoPanoptic(real_root / "coco", "train")
    same, moved = (
        PanopticQuality(photos.things, set(range(1, 134)) - photos.things) for _ in range(2)
    )
    for sample in (photos[i] for i in range(8)):
        target = sample["panoptic"].as_subclass(torch.Tensor)
        crowd = sample["mask"].as_subclass(torch.Tensor)
        same.update(target, target, crowd)
        moved.update(torch.roll(target, 5, dims=1), target, crowd)
    assert same.summary()["PQ"] == 1
    assert 0.3 < moved.summary()["PQ"] < 0.95

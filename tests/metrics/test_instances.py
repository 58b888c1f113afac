import json
import re

import numpy as np
import pytest
import torch
from coco_peer import coco_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as peer

from segedu.data import rle
from segedu.data.coco import INSTANCES
from segedu.data.scenes import Scenes
from segedu.errors import InputError
from segedu.metrics.instances import InstanceAP

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
SIZE = (100, 110)  # one object can be small, medium or large


def score(pictures, iou, **options):
    metric = InstanceAP(iou, **options)
    for detections, truth in pictures:
        metric.update(detections, truth)
    return metric


def assert_as_in_pycocotools(pictures, iou):
    ours = score(pictures, iou).summary()
    assert list(ours) == NAMES
    np.testing.assert_allclose(
        list(ours.values()), coco_eval(pictures, iou).stats, rtol=0, atol=1e-9
    )


def rectangles(boxes):
    """Masks (N, H, W) of boxes XYXY in whole pixels."""
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def entries(boxes, labels, **more):
    boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    labels = torch.tensor(labels, dtype=torch.int64)
    return {"boxes": boxes, "masks": rectangles(boxes.long()), "labels": labels, **more}


def box():
    """Corners on a grid of ten pixels: IoUs of exactly 0.5 and 0.75, ties and empty ones occur."""
    ends = st.tuples(st.integers(0, 11), st.integers(0, 11)).map(sorted)
    rows = st.tuples(st.integers(0, 10), st.integers(0, 10)).map(sorted)
    return st.tuples(ends, rows).map(
        lambda e: [10 * e[0][0], 10 * e[1][0], 10 * e[0][1], 10 * e[1][1]]
    )


@st.composite
def picture(draw):
    true = draw(st.lists(box(), max_size=5))
    near = box() if not true else st.one_of(box(), st.sampled_from(true))
    found = draw(st.lists(near, max_size=8))
    labels = st.sampled_from([1, 1, 2, 7])
    areas = [9.5, 1024.0, 1024.5, 9216.0, 1e6]
    truth = entries(
        true,
        [draw(labels) for _ in true],
        iscrowd=torch.tensor([draw(st.sampled_from([False, False, True])) for _ in true]),
    )
    if draw(st.booleans()):
        truth["area"] = [draw(st.sampled_from(areas)) for _ in true]
    scores = [draw(st.sampled_from([0.25, 0.5, 0.75])) for _ in found]
    return entries(found, [draw(labels) for _ in found], scores=scores), truth


@settings(max_examples=80)
@given(st.lists(picture(), min_size=1, max_size=4))
def test_all_twelve_numbers_of_masks_and_of_boxes_are_those_of_pycocotools(pictures):
    for iou in ("mask", "box"):
        assert_as_in_pycocotools(pictures, iou)


def disturbed(generator, boxes):
    """Boxes moved and scaled a little, some of them much; of any size, zero as well."""
    spread = generator.choice([1.0, 4.0, 30.0], size=(len(boxes), 1))
    moved = np.asarray(boxes, dtype=float).reshape(-1, 4) + spread * generator.normal(
        size=(len(boxes), 4)
    )
    moved = np.concatenate([moved[:, :2], np.maximum(moved[:, 2:], moved[:, :2])], axis=1)
    return moved.clip(0, 100)


@pytest.mark.parametrize("seed", range(3))
def test_many_detections_of_one_class_score_as_in_pycocotools(seed):
    """More than a hundred in a picture, boxes that are not whole, scores with ties."""
    generator = np.random.default_rng(seed)
    pictures = []
    for count in (40, 0, 3):
        true = disturbed(generator, [[10, 20, 60, 50], [0, 0, 30, 30]] * (count // 2))
        found = disturbed(generator, np.repeat(true, 4, axis=0) if count else [[0, 0, 9, 9]] * 130)
        detections = entries(found, [1] * len(found), scores=generator.random(len(found)).round(1))
        iscrowd = generator.random(len(true)) < 0.2
        pictures.append((detections, entries(true, [1] * len(true), iscrowd=iscrowd)))
    for iou in ("mask", "box"):
        assert_as_in_pycocotools(pictures, iou)


def stored(masks):
    """As COCO stores them: compressed run lengths."""
    return [peer.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks.numpy()]


def test_run_lengths_and_pixels_score_alike():
    pixels, lengths = [], []
    for scene in Scenes(3, size=64, seed=1):
        true = scene["masks"].as_subclass(torch.Tensor)
        found = {"labels": scene["labels"], "scores": torch.rand(len(true))}
        moved = torch.roll(true, 2, 2)
        pixels.append(({**found, "masks": moved}, scene))
        lengths.append(({**found, "masks": stored(moved)}, {**scene, "masks": stored(true)}))
    ours = score(pixels, "mask").summary()
    assert 0 < ours["AP"] < 1
    assert ours == score(lengths, "mask").summary()
    assert_as_in_pycocotools(lengths, "mask")


@pytest.mark.real
@pytest.mark.parametrize("iou", ["mask", "box"])
def test_random_detections_over_real_annotations_score_as_in_pycocotools(real_root, iou):
    stored = json.loads((real_root / "coco" / INSTANCES).read_text())
    generator = np.random.default_rng(5)
    pictures = [
        real_picture(record, stored["annotations"], generator) for record in stored["images"]
    ]
    assert sum(sum(truth["iscrowd"]) for _, truth in pictures) == 10
    assert max(len(detections["labels"]) for detections, _ in pictures) > 100
    assert_as_in_pycocotools(pictures, iou)


def real_picture(record, annotations, generator):
    """Each object found up to five times, moved, and now and then called by another name."""
    objects = [thing for thing in annotations if thing["image_id"] == record["id"]]
    height, width = record["height"], record["width"]
    true, boxes = [], []
    for thing in objects:
        outlines = peer.frPyObjects(thing["segmentation"], height, width)
        true.append(peer.merge(outlines) if isinstance(outlines, list) else outlines)
        x, y, w, h = thing["bbox"]
        boxes.append([x, y, x + w, y + h])
    detections = {"masks": [], "labels": [], "boxes": [], "scores": []}
    for mask, around, thing in zip(true, boxes, objects, strict=True):
        for _ in range(generator.integers(6)):
            shift = generator.integers(-9, 10, size=2)
            pixels = rle.decode(rle.from_string(mask["counts"]), height, width)
            moved = np.roll(pixels, shift, axis=(0, 1))
            detections["masks"].append(peer.encode(np.asfortranarray(moved, dtype=np.uint8)))
            detections["boxes"].append(np.array(around) + generator.normal(size=4))
            is_swapped = generator.random() < 0.1
            detections["labels"].append(3 if is_swapped else thing["category_id"])
            detections["scores"].append(round(generator.random(), 2))
    truth = {
        "masks": true,
        "boxes": boxes,
        "labels": [thing["category_id"] for thing in objects],
        "iscrowd": [thing["iscrowd"] for thing in objects],
        "area": [thing["area"] for thing in objects],
    }
    return detections, truth


LEFT, RIGHT = [0, 0, 40, 40], [60, 60, 100, 100]


def test_nothing_to_find_has_no_score_and_nothing_found_has_none_of_it():
    nothing, one = entries([], []), entries([LEFT], [1])
    none = {**nothing, "scores": []}
    assert set(InstanceAP().summary().values()) == {-1.0}
    assert set(score([(none, nothing)], "mask").summary().values()) == {-1.0}
    assert set(score([({**one, "scores": [1.0]}, nothing)], "mask").summary().values()) == {-1.0}
    missed = score([(none, one)], "mask").summary()
    assert missed["AP"] == missed["AR100"] == missed["APm"] == 0
    assert missed["APs"] == missed["ARl"] == -1


@pytest.mark.parametrize(
    ("scores", "ap"), [([0.9, 0.8, 0.1], 1.0), ([0.9, 0.5, 0.8], (51 + 50 * 2 / 3) / 101)]
)
def test_a_false_alarm_costs_only_what_stands_below_it(scores, ap):
    """Two objects found, and a thing that is not there, last or between the two."""
    found = entries([LEFT, RIGHT, [0, 60, 30, 90]], [1, 1, 1], scores=scores)
    summary = score([(found, entries([LEFT, RIGHT], [1, 1]))], "box").summary()
    assert summary["AP"] == pytest.approx(ap)
    assert summary["AR100"] == 1


def test_a_second_detection_of_an_object_is_a_false_alarm():
    found = entries([LEFT, LEFT, RIGHT], [1, 1, 1], scores=[0.9, 0.8, 0.7])
    curve = score([(found, entries([LEFT, RIGHT], [1, 1]))], "box").curve(1)
    assert curve.recall.tolist() == [0.5, 0.5, 1]
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.interpolated.tolist() == pytest.approx([1] * 51 + [2 / 3] * 50)
    assert curve.ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert curve.score.tolist() == [0.9, 0.8, 0.7]


def test_what_finds_a_crowd_or_the_wrong_size_is_left_out_of_the_curve():
    truth = entries([LEFT, RIGHT], [1, 1], iscrowd=[False, True])
    found = entries([RIGHT, RIGHT, LEFT], [1, 1, 1], scores=[0.9, 0.8, 0.7])
    metric = score([(found, truth)], "mask")
    assert metric.curve(1).precision.tolist() == [1.0]
    assert metric.summary()["AP"] == 1
    with pytest.raises(InputError, match="no picture has an object of class 1 and area 'small'"):
        metric.curve(1, area="small")


def test_a_curve_is_that_of_pycocotools():
    generator = np.random.default_rng(0)
    true = disturbed(generator, [LEFT, RIGHT, [30, 30, 70, 70]] * 3)
    found = disturbed(generator, np.repeat(true, 3, axis=0))
    pictures = [
        (entries(found, [1] * 27, scores=generator.random(27)), entries(true, [1] * 9)),
    ]
    metric, theirs = score(pictures, "box"), coco_eval(pictures, "box", [1]).eval["precision"]
    for number, threshold in enumerate(np.arange(0.5, 1, 0.05)):
        for place, area in enumerate(["all", "small", "medium", "large"]):
            want = theirs[number, :, 0, place, 2]
            if want[0] >= 0:
                np.testing.assert_allclose(metric.curve(1, threshold, area).interpolated, want)
    assert metric.curve(1, 0.95).ap < metric.curve(1).ap


def test_each_class_has_its_own_score_and_the_mean_is_over_classes():
    truth = entries([LEFT, RIGHT, [0, 60, 30, 90]], [1, 1, 2])
    found = entries([LEFT, [0, 60, 30, 90], RIGHT], [1, 2, 5], scores=[0.9, 0.8, 0.9])
    metric = score([(found, truth)], "mask")
    assert metric.per_class() == {1: pytest.approx(51 / 101), 2: 1.0}
    assert metric.summary()["AP"] == pytest.approx((51 / 101 + 1) / 2)


def test_only_the_best_detections_of_a_class_and_picture_count():
    boxes = [[10 * n, 0, 10 * n + 10, 100] for n in range(10)]
    picture = entries(boxes, [1] * 10)
    found = {**picture, "scores": [1.0] * 10}
    metric = score([(found, picture)], "box", most=(2, 3, 5))
    names = [name for name in metric.summary() if name.startswith("AR")]
    assert names == ["AR2", "AR3", "AR5", "ARs", "ARm", "ARl"]
    assert metric.summary()["AR2"] == 0.2
    assert metric.summary()["AR3"] == pytest.approx(0.3)
    assert metric.summary()["AR5"] == 0.5


def test_each_class_has_its_own_best_detections():
    """Five of each class: the first class's do not take the second's places."""
    boxes = [[10 * n, 0, 10 * n + 10, 100] for n in range(10)]
    picture = entries(boxes, [1] * 5 + [2] * 5)
    scores = [0.9] * 5 + [0.1] * 5
    metric = score([({**picture, "scores": scores}, picture)], "box", most=(1, 2, 5))
    assert metric.summary()["AR5"] == metric.summary()["AP"] == 1
    assert metric.summary()["AR2"] == pytest.approx(0.4)


ONE = entries([LEFT], [1])


@pytest.mark.parametrize(
    ("detections", "truth", "message"),
    [
        ({"labels": [1], "masks": ONE["masks"]}, ONE, "detections have no 'scores', only"),
        ({**ONE, "scores": [0.5, 0.4]}, ONE, "detections have 1 'labels'; expected 2"),
        ({**ONE, "scores": [float("nan")]}, ONE, "a score is nan"),
        ({"labels": [1], "scores": [1.0]}, ONE, "detections have no 'masks'"),
        (
            {**ONE, "scores": [1.0], "masks": ONE["masks"][:0]},
            ONE,
            "detections have 0 'masks'; expected 1",
        ),
        ({**ONE, "scores": [1.0]}, {**ONE, "iscrowd": [0, 1]}, "truth have 2 'iscrowd'"),
        ({**ONE, "scores": [1.0]}, {**ONE, "area": []}, "truth have 0 'area'; expected 1"),
    ],
)
def test_entries_that_do_not_fit_are_refused(detections, truth, message):
    with pytest.raises(InputError, match=re.escape(message)):
        InstanceAP().update(detections, truth)


def test_boxes_of_another_form_are_refused():
    found = {"labels": [1], "scores": [1.0], "boxes": [[0.0, 0.0, 1.0]]}
    with pytest.raises(InputError, match=r"boxes are of shape \(1, 3\); expected \(N, 4\)"):
        InstanceAP("box").update(found, ONE)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="iou is 'segm'"):
        InstanceAP.__init__.__wrapped__(object.__new__(InstanceAP), "segm")
    with pytest.raises(InputError, match="three numbers that rise"):
        InstanceAP(most=(1, 1, 100))
    with pytest.raises(InputError, match=r"threshold is 0\.52 and area 'all'; expected one of"):
        InstanceAP().curve(1, 0.52)

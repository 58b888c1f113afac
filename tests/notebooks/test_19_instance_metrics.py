"""Chapter 19's matching, AP and panoptic quality are the package's."""

import numpy as np
import pytest
import torch
from taught import taught

from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.metrics.instance_matching import THRESHOLDS, Pairs, is_bit, match_detections
from segedu.metrics.instances import InstanceAP
from segedu.metrics.mask_overlap import mask_iou
from segedu.metrics.panoptic import PanopticQuality


@pytest.fixture(scope="module")
def chapter():
    found = taught("19_instance_metrics")
    found.imperfect.__globals__["image_size"] = 48
    return found


@pytest.fixture(scope="module")
def pictures(chapter):
    """Eight small scenes with the chapter's imperfect detections, some with equal scores."""
    generator = torch.Generator().manual_seed(7)
    found = []
    for scene in (Scenes(8, size=48, seed=7)[i] for i in range(8)):
        truth = chapter.truth_of(scene)
        detections = chapter.imperfect(truth, lambda n: torch.rand(n, generator=generator))
        found.append(({**detections, "scores": detections["scores"].mul(10).round() / 10}, truth))
    return found


def test_the_chapters_table_of_ious_is_the_packages(chapter, pictures):
    for detections, truth in pictures:
        ours = chapter.pairwise_iou(detections["masks"], truth["masks"])
        np.testing.assert_array_equal(ours, mask_iou(detections["masks"], truth["masks"]))


@pytest.mark.parametrize("seed", range(5))
def test_the_chapters_matching_is_the_packages_at_each_threshold(chapter, seed):
    table = torch.rand(9, 5, generator=torch.Generator().manual_seed(seed)).mul(20).round() / 20
    d, g = np.nonzero(table.numpy() >= 0)
    pairs = Pairs(d, g, table.double().numpy()[d, g])
    none = np.zeros(5, dtype=np.int64)
    found, _ = match_detections(pairs, 9, none, none.astype(bool))
    for number, threshold in enumerate(THRESHOLDS):
        hits = chapter.match(table.double(), threshold) >= 0
        assert hits.tolist() == is_bit(found, 0)[number].tolist()


def test_the_chapters_ap_of_each_class_is_the_packages(chapter, pictures):
    metric = InstanceAP()
    for detections, truth in pictures:
        metric.update(detections, truth)
    assert len(metric.per_class()) == 5
    for label, want in metric.per_class().items():
        ours = [chapter.class_ap(pictures, label, t) for t in THRESHOLDS.tolist()]
        assert np.mean(ours) == pytest.approx(want, abs=1e-9)
        assert ours[0] == pytest.approx(metric.curve(label).ap, abs=1e-9)
    assert 0.1 < metric.summary()["AP"] < 0.9


def test_the_chapters_panoptic_quality_is_the_packages(chapter, pictures):
    metric = PanopticQuality(range(1, 6), [0])
    counts = {label: [[], 0, 0] for label in range(6)}
    for detections, truth in pictures:
        answer = chapter.panoptic_map(detections)
        target = chapter.panoptic_map({**truth, "scores": torch.ones(len(truth["labels"]))})
        metric.update(answer, target)
        for label, total in counts.items():
            for n, part in enumerate(chapter.matching_ious(answer, target, label)):
                total[n] += part
    ours = [chapter.quality(*counts[label]) for label in range(6)]
    theirs = torch.stack([metric.pq(), metric.sq(), metric.rq()], dim=1)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_surer_detection_has_the_pixels_and_the_unsure_ones_have_none(chapter):
    masks = torch.tensor([[[1, 1, 0]], [[0, 1, 1]], [[1, 1, 1]]]).bool()
    detections = {"masks": masks, "labels": torch.tensor([2, 1, 3])}
    ids = chapter.panoptic_map({**detections, "scores": torch.tensor([0.6, 0.9, 0.4])})
    assert ids.tolist() == [[2001, 1002, 1002]]
    assert IGNORE not in ids


def test_growing_and_shrinking_by_the_same_keeps_a_square(chapter):
    square = torch.zeros(1, 11, 11, dtype=torch.bool)
    square[:, 3:8, 3:8] = True
    assert chapter.grown(chapter.grown(square, 2), -2).equal(square)
    assert chapter.grown(square, -1).sum() == 9

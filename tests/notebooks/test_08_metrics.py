"""Chapter 08's own counts and scores are the package's, its calibration error torchmetrics'."""

import pytest
import torch
from taught import taught
from torchmetrics.classification import BinaryCalibrationError

from segedu.data.sample import IGNORE
from segedu.metrics.boundary import boundary_f1
from segedu.metrics.confusion import ConfusionMatrix


@pytest.fixture(scope="module")
def chapter():
    return taught("08_metrics")


def masks(seed, *, classes=4):
    """An answer and a truth of three pictures, with void; the last class occurs in neither."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes - 1, (3, 12, 9), generator=generator)
    noise = torch.randint(classes - 1, truth.shape, generator=generator)
    answer = truth.where(torch.rand(truth.shape, generator=generator) < 0.6, noise)
    void = torch.rand(truth.shape, generator=generator) < 0.1
    return answer, truth.where(~void, IGNORE)


@pytest.mark.parametrize("seed", range(3))
def test_the_chapters_counts_and_mean_iou_are_the_packages(chapter, seed):
    answer, truth = masks(seed)
    cm = ConfusionMatrix(4)
    cm.update(answer, truth)
    assert chapter.confusion(answer, truth, 4).equal(cm.counts)
    assert chapter.mean_iou(cm.counts).item() == pytest.approx(cm.mean_iou())


def test_the_chapters_mean_iou_of_many_matrices_is_that_of_each(chapter):
    matrices = torch.stack([chapter.confusion(*(x[i] for x in masks(0)), 4) for i in range(3)])
    each = [chapter.mean_iou(matrix).item() for matrix in matrices]
    assert chapter.mean_iou(matrices).tolist() == pytest.approx(each)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
def test_the_chapters_boundary_f1_is_the_packages(chapter, tolerance):
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(
        torch.randn(2, 1, 24, 20, generator=generator), 5, stride=1, padding=2
    )
    answer, truth = (smooth[:, 0] > 0).long()
    package = boundary_f1(answer, truth, tolerance)[1].item()
    assert chapter.outline_f1(answer, truth, tolerance).item() == pytest.approx(package)


@pytest.mark.parametrize("bins", [1, 5, 10])
def test_the_chapters_calibration_error_is_torchmetrics(chapter, bins):
    generator = torch.Generator().manual_seed(bins)
    confidence = 0.5 + 0.499 * torch.rand(500, generator=generator)
    right = torch.rand(500, generator=generator) < confidence**2
    peer = BinaryCalibrationError(n_bins=bins)
    # torchmetrics' binary p is the confidence itself, and its target whether that was right
    expected = peer(confidence, right.long()).item()
    assert chapter.ece(confidence, right, bins).item() == pytest.approx(expected, abs=1e-5)


def test_a_bin_without_pixels_has_no_gap(chapter):
    n, said, held = chapter.reliability(torch.tensor([0.95, 1.0]), torch.tensor([1, 0]))
    assert n.tolist() == [0] * 9 + [2]
    assert said[:9].isnan().all()
    assert (said[9].item(), held[9].item()) == pytest.approx((0.975, 0.5))

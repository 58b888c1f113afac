"""Chapter 03's own filters, thresholds and matching are the libraries' and the package's."""

import numpy as np
import pytest
import skimage
import torch
from taught import taught

from segedu.metrics.boundary import count_matched
from segedu.widgets import thresholds


@pytest.fixture(scope="module")
def chapter():
    return taught(
        "03_thresholds_and_edges", also=("smooth", "difference", "sobel_right", "sobel_down")
    )


@pytest.fixture
def picture(random):
    """Blurred noise and a bright square, in [0, 1]."""
    noise = torch.rand(40, 50, generator=random, dtype=torch.float64).numpy()
    blurred = skimage.filters.gaussian(noise, 1.5)
    blurred[10:30, 12:36] += 0.3
    return torch.tensor(blurred)


@pytest.mark.parametrize("seed", range(5))
def test_the_chapters_otsu_is_scikit_images_and_the_widgets(chapter, seed):
    levels = np.random.default_rng(seed).integers(0, 256, (30, 30)) // (1 + seed)
    counts = np.bincount(levels.ravel(), minlength=256)
    threshold = chapter.otsu(torch.tensor(counts))
    assert threshold == skimage.filters.threshold_otsu(levels.astype(np.uint8))
    curve = thresholds._between_variance(torch.tensor(levels))
    torch.testing.assert_close(chapter.between_variance(torch.tensor(counts)), curve)


@pytest.mark.parametrize("scale", [1, 1.7, 3])
def test_the_chapters_canny_is_scikit_images(chapter, picture, scale):
    ours = chapter.canny(picture, scale, 0.01, 0.02)
    theirs = skimage.feature.canny(picture.numpy(), scale, 0.08, 0.16, mode="nearest")
    assert ours.any()
    assert ours.tolist() == theirs.tolist()


def test_the_chapters_smoothing_and_slopes_are_scikit_images(chapter, picture):
    blurred = skimage.filters.gaussian(picture.numpy(), 2.3, mode="nearest")
    torch.testing.assert_close(chapter.gaussian(picture, 2.3), torch.tensor(blurred))
    down, right = chapter.gradient(picture)
    for ours, theirs in ((down, skimage.filters.sobel_h), (right, skimage.filters.sobel_v)):
        expected = torch.tensor(theirs(picture.numpy()))[1:-1, 1:-1] / 2
        torch.testing.assert_close(ours[1:-1, 1:-1], expected)


@pytest.mark.parametrize("tolerance", [0, 1, 2.3, 5])
def test_the_chapters_matching_makes_as_many_pairs_as_the_package(chapter, random, tolerance):
    one, two = torch.rand(2, 14, 15, generator=random) < 0.15
    pairs = chapter.largest_matching(chapter.places(one), chapter.places(two), tolerance)
    assert count_matched(one, two[None], tolerance).right == pairs


def test_the_chapters_outline_is_the_scenes_boundary(chapter):
    from segedu.data.scenes import Scenes

    scene = Scenes(1, size=48)[0]
    outline = chapter.outline(scene["instance_map"].as_subclass(torch.Tensor))
    assert outline.tolist() == scene["boundary"].bool().tolist()


def test_minimum_error_finds_the_cut_between_two_hills_of_different_width(chapter):
    at = torch.arange(256, dtype=torch.float64)
    wide, narrow = (torch.exp(-((at - m) ** 2) / (2 * s**2)) / s for m, s in ((90, 25), (200, 5)))
    cut = chapter.minimum_error(0.9 * wide + 0.1 * narrow)
    crossing = int((0.9 * wide < 0.1 * narrow).nonzero().min())
    assert abs(cut - crossing) <= 6

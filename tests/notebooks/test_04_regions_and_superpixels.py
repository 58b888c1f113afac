"""Chapter 04's own methods are those of the libraries, or of a naive count."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import segmentation
from sklearn.cluster import KMeans
from taught import taught

chapter = taught("04_regions_and_superpixels")


def blobs(seed, size=(40, 50)):
    """A smooth random picture, (H, W, 3) in [0, 1]."""
    noise = np.random.default_rng(seed).random((*size, 3))
    smooth = ndimage.gaussian_filter(noise, (3, 3, 0))
    return (smooth - smooth.min()) / np.ptp(smooth)


def same_segmentation(first, second):
    """Whether two label maps differ in their numbers at most."""
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    return len(pairs.T) == len(np.unique(first)) == len(np.unique(second))


@pytest.mark.parametrize("seed", range(4))
def test_k_means_from_one_start_is_scikit_learns(seed):
    points = np.random.default_rng(seed).random((200, 3))
    assigned, centres, record = chapter.k_means(points, points[:4], rounds=100)
    peer = KMeans(4, init=points[:4], n_init=1, max_iter=100, tol=0).fit(points)
    np.testing.assert_allclose(centres, peer.cluster_centers_, atol=1e-9)
    assert (assigned == peer.labels_).all()
    assert record[-1] == pytest.approx(peer.inertia_)
    assert (np.diff(record) <= 1e-9).all()


@pytest.mark.parametrize("k", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_merging_along_the_graph_is_scikit_images(seed, k):
    picture = blobs(seed)
    peer = segmentation.felzenszwalb(picture, scale=255 * k, sigma=0, min_size=0)
    assert same_segmentation(chapter.merged(picture, k), peer)


@pytest.mark.parametrize("seed", range(4))
def test_the_flood_is_scikit_images_where_no_two_heights_are_equal(seed):
    generator = np.random.default_rng(seed)
    height = generator.permutation(40 * 50).reshape(40, 50).astype(float)
    height = ndimage.gaussian_filter(height, 2)
    mask = generator.random((40, 50)) < 0.9
    markers = np.zeros((40, 50), dtype=int)
    places = generator.choice(np.flatnonzero(mask), 6, replace=False)
    markers.ravel()[places] = range(1, 7)
    found = chapter.flood(height, markers, mask)
    assert (found == segmentation.watershed(height, markers, mask=mask)).all()
    assert not found[~mask].any()


def test_the_depth_is_scipys():
    mask = blobs(5)[..., 0] > 0.5
    wanted = ndimage.distance_transform_edt(mask)
    np.testing.assert_allclose(chapter.depth_of(mask), wanted, atol=1e-12)


def test_superpixels_of_a_flat_picture_are_the_grid_they_started_from():
    flat = np.full((40, 60, 3), 0.5)
    labels = chapter.slic(flat, 24)
    assert np.unique(labels, return_counts=True)[1].tolist() == [100] * 24
    assert (labels[:10, :10] == 0).all()


def test_each_superpixel_is_one_part_after_the_last_step():
    raw = chapter.slic(blobs(1, (80, 90)), 30, compactness=2)
    assert chapter.parts_of(raw).max() > raw.max()
    whole = chapter.connected(raw)
    eight = np.ones((3, 3))
    parts = [ndimage.label(whole == n, structure=eight)[1] for n in range(whole.max() + 1)]
    assert parts == [1] * len(parts)


def test_scores_of_superpixels_are_those_of_a_naive_count():
    generator = np.random.default_rng(0)
    labels, truth = generator.integers(0, 6, (2, 9, 11))
    leak = 0
    for true in np.unique(truth):
        for found in np.unique(labels):
            inside = ((labels == found) & (truth == true)).sum()
            if inside:
                leak += min(inside, (labels == found).sum() - inside)
    assert chapter.undersegmentation_error(labels, truth) == leak / labels.size
    edges, true_edges = chapter.boundaries(labels), np.argwhere(chapter.boundaries(truth))
    for tolerance in (0, 1, 2):
        hit = [
            np.sqrt(((np.argwhere(edges) - place) ** 2).sum(1)).min() <= tolerance
            for place in true_edges
        ]
        assert chapter.boundary_recall(labels, truth, tolerance) == np.mean(hit)


def test_objects_are_paired_only_where_more_than_half_overlaps():
    truth = np.array([[0, 1, 1, 1, 1, 2, 2, 0]])
    assert chapter.object_f1(truth, truth) == 1
    assert chapter.object_f1(np.array([[0, 5, 5, 5, 0, 7, 0, 0]]), truth) == 0.5  # 3/4 and 1/2
    assert chapter.object_f1(np.zeros_like(truth), truth) == 0

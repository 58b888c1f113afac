"""Chapter 13's sums over all pairs are the package's CRF, and its free energy is a bound."""

import pytest
import torch
from taught import taught

from segedu.models.crf import DenseCRF, Kernels


@pytest.fixture(scope="module")
def chapter():
    return taught("13_crf")


def picture(seed, height, width, classes):
    """Logits (1, C, H, W) and an image (1, 3, H, W) in float64."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(1, classes, height, width, generator=generator, dtype=torch.float64)
    return z, torch.rand(1, 3, height, width, generator=generator, dtype=torch.float64)


def rows(z):
    """(1, C, H, W) as one row a pixel: (N, C)."""
    return z[0].flatten(1).T


@pytest.mark.parametrize(("height", "width", "classes"), [(12, 12, 4), (5, 9, 2), (1, 1, 3)])
def test_the_chapters_mean_field_over_all_pairs_is_the_packages(chapter, height, width, classes):
    z, image = picture(0, height, width, classes)
    kernels = Kernels(place_width=2, colour_width=0.3, smooth_weight=0.5, reach=10)
    pairs = chapter.all_pairs(image[0], kernels)
    ours = chapter.mean_field(rows(z), pairs, 7)
    package = DenseCRF(kernels, steps=7).double()(z, image).softmax(1)
    torch.testing.assert_close(ours, rows(package), rtol=0, atol=1e-12)


def test_the_gibbs_distribution_of_the_chapter_is_one(chapter):
    z, image = picture(1, 2, 3, 3)
    pairs = chapter.all_pairs(image[0], Kernels(place_width=2))
    marginals = chapter.exact_marginals(rows(z), pairs)
    torch.testing.assert_close(marginals.sum(1), torch.ones(6, dtype=torch.float64))
    alone = chapter.exact_marginals(rows(z), 0 * pairs)
    torch.testing.assert_close(alone, rows(z).softmax(1))


def test_the_chapters_free_energy_is_least_where_mean_field_settles(chapter):
    z, image = picture(2, 3, 3, 3)
    pairs = chapter.all_pairs(image[0], Kernels(place_width=1, appearance_weight=1))
    q = chapter.mean_field(rows(z), pairs, 100).requires_grad_()
    [slope] = torch.autograd.grad(chapter.free_energy(q, rows(z), pairs), q)
    assert (slope - slope.mean(1, keepdim=True)).abs().max() < 1e-9
    torch.testing.assert_close(
        chapter.kl_by_enumeration(q, rows(z), pairs) - chapter.free_energy(q, rows(z), pairs),
        torch.logsumexp(-chapter.energy(chapter.labellings(9, 3), rows(z), pairs), 0),
    )


def test_coarse_logits_of_even_truth_are_the_clamped_log_odds(chapter):
    assert torch.allclose(
        chapter.coarse_logits(torch.ones(16, 24, dtype=torch.int64), 8)[1],
        torch.tensor(19.0).log(),
    )
    assert not chapter.coarse_logits(torch.ones(8, 8, dtype=torch.int64), 8)[0].any()

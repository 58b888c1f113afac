"""Chapter 06's own cross-entropy and gradient are the package's."""

import pytest
import torch
from taught import taught

from segedu.data.sample import IGNORE
from segedu.losses import cross_entropy_loss


@pytest.fixture(scope="module")
def chapter():
    return taught("06_cross_entropy")


def batch(seed, scale=3.0, dtype=torch.float64):
    """Logits of two pictures, and a target with about a quarter void."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, 5, 6, 7, generator=generator, dtype=dtype)
    target = torch.randint(0, 5, (2, 6, 7), generator=generator)
    void = torch.rand(target.shape, generator=generator) < 0.25
    return logits.requires_grad_(), target.where(~void, IGNORE)


@pytest.mark.parametrize("seed", range(5))
def test_the_chapters_loss_and_gradient_are_the_packages(chapter, seed):
    logits, target = batch(seed)
    loss = cross_entropy_loss(logits, target)
    [gradient] = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(chapter.cross_entropy(logits, target), loss)
    torch.testing.assert_close(
        chapter.cross_entropy_gradient(logits, target).detach(), gradient, rtol=1e-12, atol=1e-15
    )


def test_autograd_of_the_chapters_loss_is_its_gradient_and_exactly_0_at_void_pixels(chapter):
    logits, target = batch(0)
    [gradient] = torch.autograd.grad(chapter.cross_entropy(logits, target), logits)
    by_hand = chapter.cross_entropy_gradient(logits, target).detach()
    torch.testing.assert_close(gradient, by_hand, rtol=1e-12, atol=1e-15)
    void = (target == IGNORE)[:, None].expand_as(logits)
    assert void.any()
    assert not gradient[void].any()
    assert not by_hand[void].any()


def test_logits_of_ten_thousand_give_a_finite_loss_and_gradient(chapter):
    logits, target = batch(1, scale=1e4, dtype=torch.float32)
    loss = chapter.cross_entropy(logits, target)
    assert loss > 1000
    torch.testing.assert_close(loss, cross_entropy_loss(logits, target))
    gradient = chapter.cross_entropy_gradient(logits, target)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient.sum(1), torch.zeros(2, 6, 7), rtol=0, atol=1e-6)


def test_a_batch_without_a_label_gives_0_and_a_gradient_of_0(chapter):
    logits, target = batch(2)
    nothing = torch.full_like(target, IGNORE)
    assert chapter.cross_entropy(logits, nothing) == cross_entropy_loss(logits, nothing) == 0
    assert not chapter.cross_entropy_gradient(logits, nothing).any()

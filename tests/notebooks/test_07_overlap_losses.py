"""Chapter 07's own losses and gradients are the package's."""

import pytest
import torch
from taught import taught

from segedu import losses
from segedu.data.sample import IGNORE


@pytest.fixture(scope="module")
def chapter():
    return taught("07_overlap_losses")


def batch(seed, *, classes=4, absent=True):
    """Logits of two pictures, and a target with void; the last class may be absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 6, 7, generator=generator, dtype=torch.float64)
    target = torch.randint(classes - absent, (2, 6, 7), generator=generator)
    void = torch.rand(target.shape, generator=generator) < 0.2
    return logits.requires_grad_(), target.where(~void, IGNORE)


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "lovasz"])
@pytest.mark.parametrize("seed", range(3))
def test_the_chapters_overlap_losses_are_the_packages(chapter, name, seed):
    logits, target = batch(seed, absent=seed > 0)
    mine = chapter.of_classes(getattr(chapter, name))(logits, target)
    package = getattr(losses, f"{name}_loss")(logits, target)
    torch.testing.assert_close(mine, package)
    (ours,), (theirs,) = (torch.autograd.grad(value, logits) for value in (mine, package))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky"])
def test_the_chapters_gradients_times_softmaxs_slope_are_the_packages(chapter, name):
    """Two classes, the object alone: dp/dz is p (1 - p) in its own logit."""
    logits, target = batch(0, classes=2, absent=False)
    [package] = torch.autograd.grad(
        getattr(losses, f"{name}_loss")(logits, target, classes=[1]), logits
    )
    labelled = target != IGNORE
    p = logits.detach().softmax(1)[:, 1][labelled]
    slope = getattr(chapter, f"{name}_gradient")(p, (target[labelled] == 1).double())
    torch.testing.assert_close(package[:, 1][labelled], slope * p * (1 - p))
    assert package[:, 1][~labelled].eq(0).all()


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.0])
def test_the_chapters_focal_loss_and_its_factor_are_the_packages(chapter, gamma):
    logits, target = batch(1)
    labelled = target != IGNORE
    value = losses.focal_loss(logits, target, gamma=gamma)
    [gradient] = torch.autograd.grad(value, logits)
    p = logits.detach().softmax(1).movedim(1, -1)[labelled]
    true = target[labelled]
    p_true = p.gather(1, true[:, None])[:, 0]
    torch.testing.assert_close(value.detach(), chapter.focal(p_true, gamma).mean())
    y = torch.nn.functional.one_hot(true, 4)
    expected = chapter.focal_factor(p_true, gamma)[:, None] * (p - y) / len(true)
    torch.testing.assert_close(gradient.movedim(1, -1)[labelled], expected)


def test_the_chapters_loss_of_nothing_is_0_like_the_packages(chapter):
    logits, target = batch(2)
    value = chapter.of_classes(chapter.dice)(logits, torch.full_like(target, IGNORE))
    assert value == 0
    assert torch.autograd.grad(value, logits)[0].eq(0).all()

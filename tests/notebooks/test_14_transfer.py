"""Chapter 14's adapter is the package's, and its readout is the least squares it says it is."""

import pytest
import torch
from sklearn.linear_model import Ridge
from taught import taught
from torch import nn

from segedu.models.lora import LoRA


@pytest.fixture(scope="module")
def chapter():
    return taught("14_transfer", also={"KINDS", "CLASSES", "image_size"})


def test_the_chapters_adapted_weight_is_the_packages(chapter):
    torch.manual_seed(0)
    for layer in (nn.Linear(5, 4), nn.Conv2d(3, 6, 3)):
        adapter = LoRA(layer, rank=2, alpha=3.0)
        nn.init.normal_(adapter.b)
        expected = chapter.adapted(layer.weight, adapter.a, adapter.b, 3 / 2)
        torch.testing.assert_close(adapter.base.weight + adapter.change, expected)


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
def test_the_chapters_ridge_is_scikit_learns(chapter, strength):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    theirs = Ridge(alpha=strength, fit_intercept=False).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(chapter.ridge(x, y, strength), torch.tensor(theirs.coef_).T)


def test_the_readout_of_the_answer_itself_is_perfect(chapter):
    masks = torch.randint(0, 3, (2, 8, 10), generator=torch.Generator().manual_seed(0))
    masks[0, 0, :] = 255
    answers = masks.clone().masked_fill(masks == 255, 0)[:, ::2, ::2]
    see = lambda _: [nn.functional.one_hot(answers, 3).movedim(-1, 1).float()]  # noqa: E731
    both = (torch.zeros(2, 3, 8, 10), masks)
    assert chapter.read_off(see, both, both, 3) == 1.0


def test_the_target_has_other_light_and_other_classes_on_the_same_scenes(chapter):
    source, target = (chapter.drawn(task, 6, 0) for task in ("source", "target"))
    torch.testing.assert_close(target[0][:, 0], 1 - source[0][:, 2])
    known = (source[1] > 0) & (source[1] < 4)
    assert (target[1][known] == 1).all()
    named = (target[1] == 2) | (target[1] == 3)
    assert named.any()
    assert (source[1][named] == 255).all()
    assert torch.equal(source[1] == 0, target[1] == 0)


def test_directions_towards_the_nearer_mean_decide(chapter):
    labelled = torch.tensor([[2.0, 0.0], [4.0, 0.5], [0.0, 3.0], [0.5, 9.0]])
    truth = torch.tensor([True, True, False, False])
    asked = torch.tensor([[9.0, 1.0], [1.0, 9.0]])
    assert chapter.nearest_mean(labelled, truth, asked).tolist() == [True, False]

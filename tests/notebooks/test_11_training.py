"""Chapter 11's functions against the package and the libraries."""

import pytest
import torch
from taught import taught
from torch import nn

from segedu.runs import Epoch, is_stale, warmup_cosine


@pytest.fixture(scope="module")
def chapter():
    return taught("11_training", also={"cross_entropy", "image_size", "difficulty"})


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0.1), (97, 0.3), (1000, 0.0), (3, 1.0)])
def test_the_chapters_schedule_is_the_packages(chapter, steps, warmup):
    ours = [chapter.cosine(t, steps, warmup) for t in range(steps + 1)]
    assert ours == [warmup_cosine(t, steps, warmup) for t in range(steps + 1)]


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize(
    "scores", [[0.5, 0.6, 0.58, 0.6, 0.59, 0.7], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1, 0.0], [0.4]]
)
def test_the_chapter_stops_when_the_package_does(chapter, scores, patience):
    history = [Epoch(i, 0.0, 0.0, score) for i, score in enumerate(scores)]
    stale = (i for i in range(len(scores)) if is_stale(history[: i + 1], patience))
    assert chapter.stops_after(scores, patience) == next(stale, len(scores) - 1)


def test_the_chapters_batches_see_each_picture_once_in_a_pass(chapter):
    stream = chapter.batches(10, 4, order=1)
    passes = [torch.cat([next(stream) for _ in range(3)]).tolist() for _ in range(2)]
    assert [sorted(one) for one in passes] == [list(range(10))] * 2
    assert passes[0] != passes[1]
    again = chapter.batches(10, 4, order=1)
    assert torch.cat([next(again) for _ in range(3)]).tolist() == passes[0]


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_the_chapters_group_normalisation_is_torchs(chapter, groups):
    x = torch.randn(2, 8, 3, 5)
    assert torch.allclose(chapter.group_norm(x, groups), nn.GroupNorm(groups, 8)(x), atol=1e-5)


def test_the_chapters_loop_takes_the_steps_of_adamw_at_the_schedules_rates(chapter):
    images, masks = torch.rand(4, 3, 8, 8), torch.randint(0, 2, (4, 8, 8))
    nets = [nn.Conv2d(3, 2, 1) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    share = lambda t, _: [0.5, 1.0, 0.25][t]  # noqa: E731
    losses = chapter.train(nets[0], (images, masks), 3, share=share, batch=4, rate=0.1)
    optimizer = torch.optim.AdamW(nets[1].parameters())
    for t, found in enumerate(losses):
        loss = nn.functional.cross_entropy(nets[1](images), masks)
        assert found == pytest.approx(loss.item(), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.1 * share(t, 3)
        optimizer.step()
    for mine, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_no_batch_normalisation_is_left_where_groups_replace_it(chapter):
    net = chapter.with_groups(chapter.fresh(0)).eval()
    assert not any(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    x = torch.rand(3, 3, 16, 16)
    evaluated = net(x)
    assert torch.allclose(net.train()(x), evaluated, atol=1e-6)
    assert torch.allclose(net(x[:1]), evaluated[:1], atol=1e-5)

"""Chapter 20's functions against the package and torch."""

import pytest
import torch
from taught import taught
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segedu.data.sample import IGNORE
from segedu.losses import cross_entropy_loss
from segedu.models.speed import recompute_blocks
from segedu.models.unet import UNet
from segedu.profiling import memory
from segedu.profiling.flops import layer_costs
from segedu.profiling.roofline import Ceilings


@pytest.fixture(scope="module")
def chapter():
    return taught("20_gpu_training")


@pytest.mark.parametrize(
    ("batch", "size", "classes", "widths"), [(1, 16, 2, (4, 8)), (3, 32, 7, (4, 6, 10, 8))]
)
def test_the_chapters_count_of_a_unet_is_torchs_and_the_packages(
    chapter, batch, size, classes, widths
):
    net = UNet(classes, widths=widths).to("meta")
    images = torch.empty(batch, 3, size, size, device="meta")
    with FlopCounterMode(display=False) as counter:
        net(images)
    by_level = chapter.unet_flops(batch, size, classes, widths)
    assert sum(by_level) == counter.get_total_flops()
    assert sum(by_level) == sum(c.flops for c in layer_costs(net, images) if c.kind == "Conv2d")


@pytest.mark.parametrize(("batch", "size", "widths"), [(2, 32, (4, 8)), (1, 64, (4, 8, 16))])
def test_the_chapters_activations_are_what_is_kept(chapter, batch, size, widths):
    net = UNet(5, widths=widths)
    images, masks = torch.rand(batch, 3, size, size), torch.randint(5, (batch, size, size))

    def forward():
        return nn.functional.cross_entropy(net(images), masks)

    kept = memory.kept_bytes(forward, but=net.parameters())
    assert chapter.kept_bytes(forward, net.parameters()) == kept
    assert chapter.unet_activations(batch, size, 5, widths) == pytest.approx(kept, rel=0.01)


def test_the_chapters_roofline_is_the_packages(chapter):
    ceilings = Ceilings({"float32": 7e10}, 3e9)
    for intensity in (0.1, 1, 7e10 / 3e9, 100, 1000):
        assert chapter.attainable(7e10, 3e9, intensity) == ceilings.attainable(intensity)


def test_the_chapters_tf32_has_ten_bits_and_all_of_float32_has_23(chapter):
    x = torch.randn(1000)
    assert torch.equal(chapter.with_bits(x, 22), chapter.with_bits(chapter.with_bits(x, 22), 22))
    assert torch.equal(
        chapter.with_bits(torch.tensor([1 + 2.0**-10]), 10), torch.tensor([1 + 2.0**-10])
    )
    assert torch.equal(
        chapter.with_bits(torch.tensor([1 + 2.0**-11]), 10), torch.tensor([1 + 2.0**-10])
    )
    assert torch.equal(chapter.with_bits(torch.tensor([1 + 2.0**-12]), 10), torch.tensor([1.0]))
    assert ((chapter.with_bits(x, 7) - x.bfloat16().float()).abs() <= x.abs() * 2.0**-7).all()


@pytest.mark.parametrize("overflows", [[0, 0, 1, 0, 0, 0, 0], [1, 1, 1], [0] * 9])
def test_the_chapters_scale_is_torchs(chapter, overflows):
    scaler = torch.amp.GradScaler("cpu", growth_interval=2)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scale, good = scaler.get_scale() if scaler.get_scale() else 65536.0, 0
    for overflow in overflows:
        optimizer.zero_grad()
        scaler.scale(weight.sum() * (torch.inf if overflow else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        scale, good = chapter.next_scale(scale, good, overflow, interval=2)
        assert scale == scaler.get_scale()


def test_the_chapters_recomputed_blocks_give_the_packages_gradients(chapter):
    nets = []
    for change in (chapter.with_blocks_recomputed, lambda net: recompute_blocks(net) or net):
        torch.manual_seed(0)
        nets.append(change(UNet(3, widths=(4, 8))))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for net in nets:
        net(images).square().mean().backward()
    for mine, theirs in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-6)


def test_the_chapters_parts_add_up_to_the_batch(chapter):
    net = nn.Conv2d(3, 4, 1)
    images, masks = torch.rand(6, 3, 8, 8), torch.randint(4, (6, 8, 8))
    masks[:2, 3:] = IGNORE
    labelled = (masks != IGNORE).sum()
    found = chapter.accumulate(
        net, images, masks, 3, lambda part: (part != IGNORE).sum() / labelled
    )
    net.zero_grad()
    cross_entropy_loss(net(images), masks).backward()
    assert torch.allclose(found, torch.cat([w.grad.flatten() for w in net.parameters()]), atol=1e-6)


def test_the_chapters_steps_by_hand(chapter):
    assert chapter.step_time(6, 2, 0) == 8
    assert chapter.step_time(6, 2, 2) == 3
    assert chapter.step_time(6, 2, 100) == 2
    assert chapter.intensity(8, 2) == 1
    assert chapter.conv_flops(10, 3, 5) == 2 * 10 * 75

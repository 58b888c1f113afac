"""Chapter 15's attention is torch's, and its SegFormer is the package's."""

import pytest
import torch
import torch.nn.functional as F
from taught import taught
from torch import nn

from segedu.models import segformer
from segedu.models.describe import multiplications


@pytest.fixture(scope="module")
def chapter():
    return taught("15_transformers", also=["image_size"])


def seeded(seed, *shapes):
    """Numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize(("queries", "keys", "length", "told"), [(1, 1, 1, 1), (7, 3, 4, 2)])
def test_the_chapters_attention_is_torchs(chapter, queries, keys, length, told):
    q, k, v = seeded(0, (2, queries, length), (2, keys, length), (2, keys, told))
    theirs = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(chapter.attention(q, k, v), theirs)
    torch.testing.assert_close(chapter.ByHand.apply(q, k, v), theirs)


def test_the_gradient_by_hand_is_autograds_where_a_key_takes_all(chapter):
    q, k, v = seeded(1, (5, 3), (4, 3), (4, 2))
    inputs = [(40 * q).requires_grad_(), k.requires_grad_(), v.requires_grad_()]
    [up] = seeded(2, (5, 2))
    ours = torch.autograd.grad(chapter.ByHand.apply(*inputs), inputs, up)
    theirs = torch.autograd.grad(chapter.attention(*inputs), inputs, up)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("channels", "heads", "shorten"), [(8, 1, 4), (12, 3, 2), (6, 2, 1)])
def test_the_chapters_attention_layer_is_the_packages(chapter, channels, heads, shorten):
    ours = chapter.Attention(channels, heads, shorten)
    package = segformer.Attention(channels, heads, shorten)
    package.load_state_dict(ours.state_dict())
    x = torch.randn(2, 9 * 14, channels)
    torch.testing.assert_close(ours(x, 9, 14), package(x, 9, 14))


def test_the_chapters_mixing_network_is_the_packages(chapter):
    ours, package = chapter.MixFFN(6), segformer.MixFFN(6)
    package.load_state_dict(ours.state_dict())
    x = torch.randn(2, 35, 6)
    torch.testing.assert_close(ours(x, 5, 7), package(x, 5, 7))


@pytest.mark.parametrize("size", [(64, 64), (45, 71)])
def test_the_chapters_segformer_is_the_packages(chapter, size):
    ours, package = chapter.SegFormer(5).eval(), segformer.segformer_b0(5).eval()
    package.load_state_dict(ours.state_dict())
    image = torch.rand(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), package(image), rtol=1e-4, atol=1e-5)


def test_the_chapters_count_of_multiplications_is_that_of_the_whole_encoder(chapter):
    macs, sides = 0, (64, 32, 16, 8)
    for below, side, stage in zip((3, 32, 64, 160), sides, segformer.B0, strict=True):
        pixels, channels = side**2, stage.channels
        patches = pixels * channels * below * stage.kernel**2
        mix = pixels * (8 * channels**2 + 9 * 4 * channels)
        attention = chapter.attention_macs(pixels, channels, stage.shorten)
        macs += patches + stage.blocks * (attention + mix)
    assert multiplications(nn.Sequential(chapter.Encoder(segformer.B0))) == macs


def test_without_attention_nobody_hears_anybody(chapter):
    net = chapter.without_attention((8, 12, 20)).eval()
    strip = torch.zeros(1, 3, 64, 256)
    strip[..., 0] = torch.nan
    with torch.inference_mode():
        logits = net(strip)
    assert logits[..., :8].isnan().all()
    assert not logits[..., 128:].isnan().any()
    with torch.inference_mode():
        assert chapter.tiny((8, 12, 20)).eval()(strip).isnan().all()


def test_influence_is_the_gradient_of_the_middle_pixels_lead(chapter):
    net = nn.Conv2d(3, 2, 1, bias=False)
    image = torch.rand(4, 3, 6, 6)
    expected = torch.zeros(6, 6)
    expected[3, 3] = (net.weight[1] - net.weight[0]).abs().sum()
    torch.testing.assert_close(chapter.influence(net, image), expected)

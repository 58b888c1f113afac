import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models as tv

from segedu.errors import InputError
from segedu.models import vgg
from segedu.models.fcn import FCN, as_convolution, fcn8s_vgg16
from segedu.models.layers import Normalize, bilinear_upsampling

SMALL = ((4,), (6,), (8,), (10,), (12,))


@torch.inference_mode()
def test_vgg_has_torchvisions_features():
    peer, ours = tv.vgg16(weights=None).features.eval(), vgg.vgg16().eval()
    state = {f"features.{name}": value for name, value in peer.state_dict().items()}
    ours.load_state_dict(vgg.from_peer({**state, "classifier.0.bias": torch.zeros(1)}), strict=True)
    x = Normalize()(image := torch.rand(1, 3, 64, 96))
    expected = {}
    for layer in peer:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            expected[2 ** (len(expected) + 1)] = x.clone()
    for stride, features in ours(image).items():
        assert torch.allclose(features, expected[stride], rtol=1e-4, atol=1e-6)
        assert features.shape[1] == ours.channels[stride]


@torch.inference_mode()
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_begins_as_bilinear_but_for_the_rim(factor):
    x = torch.rand(2, 3, 5, 7)
    ours = bilinear_upsampling(3, factor)(x)
    bilinear = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = slice(factor // 2, -(factor // 2))
    assert ours.shape == bilinear.shape
    assert torch.allclose(ours[..., inner, inner], bilinear[..., inner, inner], atol=1e-6)
    assert (ours[..., 0, :] < bilinear[..., 0, :]).all()


@torch.inference_mode()
def test_a_fully_connected_layer_is_a_convolution():
    layer = nn.Linear(6 * 3 * 3, 5)
    conv, maps = as_convolution(layer, 6), torch.rand(2, 6, 4, 5)
    scores = conv(maps)
    assert scores.shape == (2, 5, 2, 3)
    for row in range(2):
        for column in range(3):
            window = maps[:, :, row : row + 3, column : column + 3]
            assert torch.allclose(scores[..., row, column], layer(window.flatten(1)), atol=1e-6)


def test_a_layer_without_bias_stays_without():
    assert as_convolution(nn.Linear(8, 3, bias=False), 2).bias is None


def test_a_layer_that_reads_no_square_maps_is_refused():
    with pytest.raises(InputError, match="54 inputs does not read 4 square maps"):
        as_convolution(nn.Linear(54, 5), 4)


@torch.inference_mode()
@pytest.mark.parametrize("finest", [32, 16, 8])
@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 1)])
def test_an_fcn_scores_every_pixel(finest, size):
    model = FCN(3, vgg.VGG(SMALL), finest=finest)
    assert model(torch.rand(2, 3, *size)).shape == (2, 3, *size)


@torch.inference_mode()
def test_finer_scores_change_nothing_until_they_have_learnt():
    """A bilinear step of 32 is one of 2, then 2, then 8, away from the rim."""
    torch.manual_seed(0)
    coarse, fine = (FCN(3, vgg.VGG(SMALL), finest=finest).eval() for finest in (32, 8))
    fine.backbone.load_state_dict(coarse.backbone.state_dict())
    fine.score[0].load_state_dict(coarse.score[0].state_dict())
    image = torch.rand(1, 3, 224, 224)
    inner = slice(64, -64)
    near = (fine(image) - coarse(image))[..., inner, inner].abs().max()
    assert near < 0.1 * coarse(image)[..., inner, inner].std()


def test_every_part_of_an_fcn_learns():
    model = FCN(3, vgg.VGG(SMALL), finest=8)
    nn.init.normal_(model.score[1].weight), nn.init.normal_(model.score[2].weight)
    F.cross_entropy(model(torch.rand(2, 3, 64, 64)), torch.randint(3, (2, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if not p.grad.any()] == []


def test_the_head_stands_between_the_deepest_features_and_their_scores():
    head = nn.Conv2d(12, 20, 1)
    model = FCN(3, vgg.VGG(SMALL), finest=16, head=head, head_channels=20)
    assert [score.in_channels for score in model.score] == [20, 10]
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_the_papers_network_has_134_million_weights():
    with torch.device("meta"):
        model = fcn8s_vgg16(21)
    vgg16, fc6, fc7 = 14_714_688, 512 * 49 * 4096 + 4096, 4096**2 + 4096
    scores, ups = 21 * (4096 + 512 + 256 + 3), 21 * (2 * 4**2 + 16**2)
    assert sum(weight.numel() for weight in model.parameters()) == vgg16 + fc6 + fc7 + scores + ups


def test_a_stride_that_the_backbone_lacks_is_refused():
    with pytest.raises(InputError, match="no features of stride 12; the backbone has"):
        FCN(2, vgg.VGG(SMALL), finest=12)

import pytest
import torch
from torch import nn

from segedu.errors import InputError
from segedu.models import vgg
from segedu.models.lfov import deeplab_lfov_vgg16
from segedu.models.registry import build

SMALL = ((4, 4), (6,), (8,), (10, 10), (12, 12))


@torch.inference_mode()
@pytest.mark.parametrize(("output_stride", "every"), [(16, 2), (8, 4), (4, 8)])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (7, 130), (1, 1)])
def test_a_dense_vgg_sees_at_every_nth_place_what_the_strided_one_sees(output_stride, every, size):
    torch.manual_seed(0)
    plain, dense = vgg.VGG(SMALL), vgg.VGG(SMALL, output_stride=output_stride)
    dense.load_state_dict(plain.state_dict(), strict=True)
    image = torch.rand(2, 3, *size)
    deep, denser = plain(image)[32], dense(image)[output_stride]
    assert denser.shape[-2:] == tuple(-(-length // output_stride) for length in size)
    assert torch.allclose(denser[..., ::every, ::every], deep, rtol=1e-4, atol=1e-6)
    assert deep.std() > 0


def test_a_dense_vgg_names_the_deepest_features_of_each_stride():
    backbone = vgg.VGG(SMALL, output_stride=8)
    assert backbone.channels == {2: 4, 4: 6, 8: 12}
    features = backbone(torch.rand(1, 3, 32, 48))
    assert {stride: x.shape[1:] for stride, x in features.items()} == {
        2: (4, 16, 24), 4: (6, 8, 12), 8: (12, 4, 6)
    }  # fmt: skip


def test_an_output_stride_that_no_pooling_reaches_is_refused():
    with pytest.raises(
        InputError, match=r"output_stride is 12; expected one of \[2, 4, 8, 16, 32\]"
    ):
        vgg.VGG(SMALL, output_stride=12)


def test_the_large_field_of_view_has_the_papers_20_5_million_weights():
    with torch.device("meta"):
        model = deeplab_lfov_vgg16(21)
    fc6, fc7, scores = 512 * 9 * 1024 + 1024, 1024**2 + 1024, 21 * 1024 + 21
    weights = sum(weight.numel() for weight in model.parameters())
    assert weights == 14_714_688 + fc6 + fc7 + scores
    assert round(weights / 1e6, 1) == 20.5


@torch.inference_mode()
def test_its_first_layer_looks_twelve_places_of_stride_8_to_each_side():
    torch.manual_seed(0)
    head = deeplab_lfov_vgg16(2).eval().classifier
    for parameter in head.parameters():
        parameter.abs_()  # so that nothing cancels and no ReLU stops it
    features = torch.zeros(1, 512, 31, 31)
    features[..., 15, 15] = 1
    reached = (head(features) - head(torch.zeros_like(features)))[0, 0] != 0
    assert reached.nonzero().tolist() == [[r, c] for r in (3, 15, 27) for c in (3, 15, 27)]


def test_dropout_stands_after_both_layers_of_the_head():
    head = build("deeplab_lfov_vgg16", 2).classifier
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


@torch.inference_mode()
def test_it_takes_the_weights_of_torchvisions_vgg():
    from torchvision import models as tv

    peer = tv.vgg16(weights=None)
    model = deeplab_lfov_vgg16(2).eval()
    model.backbone.load_state_dict(vgg.from_peer(peer.state_dict()), strict=True)
    plain = vgg.vgg16().eval()
    plain.load_state_dict(vgg.from_peer(peer.state_dict()), strict=True)
    image = torch.rand(1, 3, 64, 64)
    dense, deep = model.backbone(image)[8], plain(image)[32]
    assert torch.allclose(dense[..., ::4, ::4], deep, rtol=1e-3, atol=1e-6)

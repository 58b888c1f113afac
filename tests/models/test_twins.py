"""Models that carry their library twin's weights give its outputs, and learn by its gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models import segmentation as tvs

from segedu.errors import InputError
from segedu.losses import cross_entropy_loss
from segedu.models import deeplab, fcn, mobilenet, pspnet, resnet, unet
from segedu.models.layers import Normalize

CLASSES = 5
TORCHVISION = {"weights": None, "weights_backbone": None, "num_classes": CLASSES}
SMP = {"encoder_name": "resnet34", "encoder_weights": None, "classes": CLASSES}
ODD = ((65, 97), (33, 120), (1, 40))
EVEN = ((64, 96), (96, 32), (32, 128))


@dataclass(frozen=True)
class Twins:
    """Ours, the peer's, and how the one gets the other's weights."""

    ours: Callable[[], nn.Module]
    peer: Callable[[], nn.Module]
    renamed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    sizes: tuple[tuple[int, int], ...] = ODD


TWINS = {
    "fcn_resnet50": Twins(
        lambda: fcn.fcn_resnet50(CLASSES),
        lambda: tvs.fcn_resnet50(**TORCHVISION, aux_loss=True),
        fcn.from_peer,
    ),
    "fcn_resnet101": Twins(
        lambda: fcn.fcn_resnet101(CLASSES),
        lambda: tvs.fcn_resnet101(**TORCHVISION),
        dict,
        ODD[:1],
    ),
    "deeplabv3_resnet50": Twins(
        lambda: deeplab.deeplabv3_resnet50(CLASSES),
        lambda: tvs.deeplabv3_resnet50(**TORCHVISION),
        dict,
    ),
    "deeplabv3_resnet101": Twins(
        lambda: deeplab.deeplabv3_resnet101(CLASSES),
        lambda: tvs.deeplabv3_resnet101(**TORCHVISION, aux_loss=True),
        fcn.from_peer,
        ODD[:1],
    ),
    "deeplabv3plus_resnet34": Twins(
        lambda: deeplab.deeplabv3plus_resnet34(CLASSES),
        lambda: smp.DeepLabV3Plus(**SMP),
        deeplab.from_peer,
        EVEN,
    ),
    "pspnet_resnet34": Twins(
        lambda: pspnet.pspnet_resnet34(CLASSES), lambda: smp.PSPNet(**SMP), pspnet.from_peer, EVEN
    ),
    "unet_resnet34": Twins(
        lambda: unet.BackboneUNet(CLASSES, resnet.resnet34()),
        lambda: smp.Unet(**SMP),
        unet.from_peer,
        EVEN,
    ),
}


@pytest.fixture(scope="module", params=TWINS)
def twins(request) -> tuple[nn.Module, nn.Module, tuple[tuple[int, int], ...]]:
    return weighted(TWINS[request.param])


def weighted(pair: Twins) -> tuple[nn.Module, nn.Module, tuple[tuple[int, int], ...]]:
    """Both with the same random weights and statistics, none of them 0 or 1."""
    torch.manual_seed(0)
    peer, ours = pair.peer(), pair.ours()
    stir(peer)
    ours.load_state_dict(pair.renamed(peer.state_dict()), strict=True)
    return ours, peer, pair.sizes


def stir(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)


def logits_of(peer: nn.Module, image: Tensor) -> Tensor:
    """The peers want images already normalised; torchvision's give a dict."""
    out: Any = peer(Normalize()(image))
    return out["out"] if isinstance(out, dict) else out


def difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.inference_mode()
def test_the_twins_weights_give_the_twins_logits(twins):
    ours, peer, sizes = twins
    ours.eval(), peer.eval()
    for height, width in sizes:
        image = torch.rand(2, 3, height, width)
        logits = ours(image)
        assert logits.shape == (2, CLASSES, height, width)
        assert difference(logits, logits_of(peer, image)) < 1e-4


@pytest.mark.parametrize(
    "name", ["fcn_resnet50", "deeplabv3_resnet50", "deeplabv3plus_resnet34", "pspnet_resnet34",
             "unet_resnet34"]
)  # fmt: skip
def test_in_training_the_gradients_are_the_twins(name):
    ours, peer, _ = weighted(TWINS[name])
    image, mask = torch.rand(2, 3, 64, 64), torch.randint(CLASSES, (2, 64, 64))
    for model, logits in ((ours, lambda: ours(image)), (peer, lambda: logits_of(peer, image))):
        model.train()
        torch.manual_seed(1)  # dropout draws alike
        cross_entropy_loss(logits(), mask).backward()
    theirs = {k: p.grad for k, p in peer.named_parameters() if p.grad is not None}
    renamed = TWINS[name].renamed(theirs)
    for parameter, weight in ours.named_parameters():
        assert difference(weight.grad, renamed[parameter]) < 1e-3, parameter


@torch.inference_mode()
@pytest.mark.parametrize("size", [(1, 1), (5, 47), (31, 33)])
@pytest.mark.parametrize("name", [name for name, pair in TWINS.items() if pair.sizes == EVEN])
def test_images_that_the_peer_refuses_are_scored_as_well(name, size):
    ours = TWINS[name].ours().eval()
    assert ours(torch.rand(1, 3, *size)).shape == (1, CLASSES, *size)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_a_resnet_has_torchvisions_features(name):
    peer, ours = getattr(tv, name)(weights=None).eval(), getattr(resnet, name)().eval()
    stir(peer)
    ours.load_state_dict(resnet.from_peer(peer.state_dict()), strict=True)
    image = torch.rand(1, 3, 65, 97)
    features = ours(image)
    x = peer.relu(peer.bn1(peer.conv1(Normalize()(image))))
    expected = {2: x}
    x = peer.maxpool(x)
    for stride, layer in ((4, "layer1"), (8, "layer2"), (16, "layer3"), (32, "layer4")):
        x = expected[stride] = getattr(peer, layer)(x)
    for stride, theirs in expected.items():
        assert difference(features[stride], theirs) < 1e-5
        assert theirs.shape[1] == ours.channels[stride]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "peer_name"),
    [("mobilenet_v2", "mobilenetv2_100"), ("efficientnet_lite0", "tf_efficientnet_lite0")],
)
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (33, 30)])
def test_small_backbones_have_timms_features_and_classes(name, peer_name, size):
    peer = timm.create_model(peer_name, pretrained=False).eval()
    stir(peer)
    ours = getattr(mobilenet, name)(imagenet_classes=1000).eval()
    ours.load_state_dict(peer.state_dict(), strict=True)
    image = torch.rand(2, 3, *size)
    assert difference(ours.classify(image), peer(ours.normalize(image))) < 1e-4
    features = timm.create_model(peer_name, pretrained=False, features_only=True).eval()
    features.load_state_dict(
        {k: v for k, v in peer.state_dict().items() if k in features.state_dict()}
    )
    for (stride, own), theirs in zip(
        ours(image).items(), features(ours.normalize(image)), strict=True
    ):
        assert difference(own, theirs) < 1e-4
        assert own.shape[1] == ours.channels[stride]


def test_lite0_sees_bytes_minus_127_in_units_of_128_as_in_its_training():
    greys = torch.tensor([0, 127, 255]).view(1, 1, 1, 3).expand(1, 3, 1, 3) / 255
    seen = mobilenet.efficientnet_lite0().normalize(greys)
    assert torch.allclose(seen[0, :, 0], torch.tensor([-127 / 128, 0, 1]).expand(3, 3), atol=1e-6)


def test_small_backbones_take_torchvisions_weights_by_their_order():
    peer, ours = tv.mobilenet_v2(weights=None).eval(), mobilenet.mobilenet_v2().eval()
    stir(peer)
    ours.load_state_dict(mobilenet.from_peer(peer.state_dict(), ours), strict=True)
    image = torch.rand(1, 3, 65, 50)
    with torch.inference_mode():
        theirs = peer.features[:18](Normalize()(image))
        assert difference(ours(image)[32], theirs) < 1e-4


def test_weights_of_another_network_are_refused_by_their_names():
    ours = mobilenet.efficientnet_lite0()
    with pytest.raises(InputError, match=r"features.4.conv.1.0.weight has the shape .* expected"):
        mobilenet.from_peer(tv.mobilenet_v2(weights=None).state_dict(), ours)
    with pytest.raises(InputError, match="2 tensors; expected at least"):
        mobilenet.from_peer({"a": torch.zeros(1), "b": torch.zeros(1)}, ours)


@torch.inference_mode()
@pytest.mark.parametrize("block", [resnet.BasicBlock, resnet.Bottleneck])
@pytest.mark.parametrize(("output_stride", "every"), [(16, 2), (8, 4)])
def test_a_dilated_resnet_sees_at_every_nth_place_what_the_other_sees(block, output_stride, every):
    """What torchvision's layout of the dilations is for, and what dilating at once would break."""
    image = torch.rand(1, 3, 65, 64)
    plain = resnet.ResNet(block, (1, 1, 2, 2), resnet.stages(32)).eval()
    stir(plain)
    for at_once, same in ((False, True), (True, False)):
        plan = resnet.stages(output_stride, at_once=at_once)
        dense = resnet.ResNet(block, (1, 1, 2, 2), plan).eval()
        dense.load_state_dict(plain.state_dict())
        deep, denser = plain(image)[32], dense(image)[output_stride]
        assert [-(-length // output_stride) for length in (65, 64)] == list(denser.shape[-2:])
        close = torch.allclose(denser[..., ::every, ::every], deep, rtol=1e-4, atol=1e-4)
        assert close is same


def test_an_output_stride_that_is_none_is_refused():
    with pytest.raises(InputError, match="output_stride is 4; expected 8, 16 or 32"):
        resnet.resnet18(output_stride=4)


def test_a_u_net_needs_a_width_for_each_stride():
    with pytest.raises(InputError, match="2 widths; expected one for each"):
        unet.BackboneUNet(2, resnet.resnet18(), widths=(8, 4))

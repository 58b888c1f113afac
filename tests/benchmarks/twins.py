"""A training step of each architecture against its library twin: seconds, and bytes kept."""

from collections.abc import Callable
from dataclasses import dataclass

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import segmentation as tvs
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segedu.losses import cross_entropy_loss
from segedu.models.layers import Normalize
from segedu.models.registry import build
from tests.benchmarks.timing import report

CLASSES = 11
TORCHVISION = {"weights": None, "weights_backbone": None, "num_classes": CLASSES}
SMP = {"encoder_name": "resnet34", "encoder_weights": None, "classes": CLASSES}
SEGFORMER = SegformerConfig(num_labels=CLASSES)
PEERS: dict[str, Callable[[], nn.Module]] = {
    "fcn_resnet50": lambda: tvs.fcn_resnet50(**TORCHVISION),
    "deeplabv3_resnet50": lambda: tvs.deeplabv3_resnet50(**TORCHVISION),
    "deeplabv3plus_resnet34": lambda: smp.DeepLabV3Plus(**SMP),
    "pspnet_resnet34": lambda: smp.PSPNet(**SMP),
    "unet_resnet34": lambda: smp.Unet(**SMP),
    "segformer_b0": lambda: SegformerForSemanticSegmentation(SEGFORMER),
}
"""By our name. A ResNet-101 differs from a ResNet-50 in how often it repeats a block."""


class Peer(nn.Module):
    """A twin with what ours does inside: the image is normalised, the logits are enlarged."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        out = self.model(self.normalize(image))
        logits: Tensor = (
            out if isinstance(out, Tensor) else out["out" if "out" in out else "logits"]
        )
        if logits.shape[-2:] == image.shape[-2:]:
            return logits
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


@dataclass
class Step:
    """A training step without the optimiser's part, which is the same for both."""

    model: nn.Module
    images: Tensor
    masks: Tensor

    def __call__(self) -> None:
        self.model.zero_grad()
        cross_entropy_loss(self.model(self.images), self.masks).backward()


def models_against_their_twins() -> None:
    """Two images of 128 x 128, float32: time, then bytes that the forward pass keeps."""
    images, masks = torch.rand(2, 3, 128, 128), torch.randint(CLASSES, (2, 128, 128))
    for name, peer in PEERS.items():
        ours, theirs = build(name, CLASSES).train(), Peer(peer()).train()
        report(
            f"{name}, training step / twin",
            Step(ours, images, masks),
            Step(theirs, images, masks),
            target=0.97,  # not slower, to within the noise of a busy machine
            rounds=9,
        )
        mine, other = kept_bytes(ours, images), kept_bytes(theirs, images)
        verdict = "reached" if mine <= 1.02 * other else "MISSED"
        sizes = f"{mine / 2**20:8.1f} MiB {other / 2**20:8.1f} MiB {other / mine:6.2f}x"
        print(f"{name + ', kept for the way back / twin':<62} {sizes}  target 0.98x {verdict}")


def kept_bytes(model: nn.Module, images: Tensor) -> int:
    """Memory of the tensors that a forward pass keeps for the gradients, without the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(images)  # keeps the tensors alive, so no address is used twice
    del logits
    return sum(kept.values())

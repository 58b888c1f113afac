"""U-Net: go down to see far, come up to see sharp, copy the detail across; chapter 10 builds it.

Source: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, section 2 and figure 1. https://arxiv.org/abs/1505.04597

Three changes from the paper, as everyone makes them today: the convolutions are padded, so the
output is as large as the input; each is followed by batch normalisation; and the way up enlarges by
copying pixels instead of by a transposed convolution.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.models.layers import Backbone, Normalize, conv_norm_relu, renamed_prefixes
from segedu.models.mobilenet import efficientnet_lite0
from segedu.models.resnet import resnet34


class UNet(nn.Module):
    """Scores of each class at each pixel, from an image of any size.

    Args:
        num_classes: C, the number of classes.
        in_channels: Channels of the image; 3 for colour.
        widths: Channels at each level, finest first; two levels or more. Each level has half the
            height and width of the one before. The paper's are (64, 128, 256, 512, 1024).

    Raises:
        InputError: If there are fewer than two levels or no class.
    """

    def __init__(
        self, num_classes: int, *, in_channels: int = 3, widths: Sequence[int] = (24, 48, 96, 192)
    ) -> None:
        super().__init__()
        if len(widths) < 2 or num_classes < 1:
            raise InputError(
                f"UNet: {num_classes} classes and widths {tuple(widths)}; expected at least one "
                "class and two levels"
            )
        self.normalize = Normalize(mean=[0.5] * in_channels, std=[0.25] * in_channels)
        self.down = nn.ModuleList(
            double_conv(before, after) for before, after in pairwise([in_channels, *widths])
        )
        self.up = nn.ModuleList(
            double_conv(coarse + fine, fine) for fine, coarse in pairwise(widths)
        )
        self.classify = nn.Conv2d(widths[0], num_classes, kernel_size=1)

    def forward(self, image: Float[Tensor, "b in h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        levels = []  # finest first: (b, widths[i], h / 2^i, w / 2^i), rounded up
        x = self.normalize(image)
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if i else x)
            levels.append(x)

        x = levels.pop()
        for block in reversed(self.up):
            skip = levels.pop()
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = block(torch.cat([skip, x], dim=1))
        return self.classify(x)


class BackboneUNet(nn.Module):
    """A U-Net whose way down is a backbone, pretrained or not; its output has any image's own size.

    Args:
        num_classes: C, the number of classes.
        backbone: Gives features of an image in [0, 1] by stride, with `channels` by stride.
        widths: Channels on the way up, coarsest first, one for each of the backbone's strides.

    Raises:
        InputError: If there are not as many widths as strides.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone,
        *,
        widths: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        super().__init__()
        if len(widths) != len(backbone.channels):
            raise InputError(
                f"BackboneUNet: {len(widths)} widths; expected one for each of the backbone's "
                f"strides {tuple(backbone.channels)}"
            )
        self.backbone = backbone
        self.strides = sorted(backbone.channels, reverse=True)
        below = [backbone.channels[self.strides[0]], *widths[:-1]]
        skips = [*(backbone.channels[stride] for stride in self.strides[1:]), 0]
        self.up = nn.ModuleList(
            double_conv(coarse + fine, width)
            for coarse, fine, width in zip(below, skips, widths, strict=True)
        )
        self.classify = nn.Conv2d(widths[-1], num_classes, kernel_size=3, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        features = self.backbone(image)
        x = features[self.strides[0]]
        for stride, block in zip(self.strides[1:], self.up, strict=False):
            skip = features[stride]
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = block(torch.cat([x, skip], dim=1))
        x = F.interpolate(x, size=image.shape[-2:], mode="nearest")
        return self.classify(self.up[-1](x))


def unet_resnet34(num_classes: int) -> BackboneUNet:
    """U-Net on a ResNet-34; 24 million weights. For images of any size."""
    return BackboneUNet(num_classes, resnet34())


def unet_lite0(num_classes: int) -> BackboneUNet:
    """U-Net on EfficientNet-Lite0; 5.6 million weights. For images of any size."""
    return BackboneUNet(num_classes, efficientnet_lite0())


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of segmentation-models-pytorch's `Unet`, for a `BackboneUNet`."""
    renamed = {}
    for name, value in state.items():
        block = re.fullmatch(r"decoder\.blocks\.(\d+)\.conv([12])\.([01])\.(\w+)", name)
        if block:
            number, conv, layer, kind = block.groups()
            name = f"up.{number}.{3 * (int(conv) - 1) + int(layer)}.{kind}"  # noqa: PLW2901
        renamed[name] = value
    names = {"encoder.": "backbone.", "segmentation_head.0.": "classify."}
    return renamed_prefixes(renamed, names)


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions that keep height and width."""
    return nn.Sequential(
        *conv_norm_relu(in_channels, out_channels), *conv_norm_relu(out_channels, out_channels)
    )

"""PSPNet: what is in each quarter of the picture, told to every place. Chapter 12 builds it.

Source: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2 and figure 3.
https://arxiv.org/abs/1612.01105
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.layers import Backbone, enlarged, renamed_prefixes
from segedu.models.resnet import BasicBlock, ResNet, resnet50, stages


class PyramidPooling(nn.Module):
    """Features beside their means over 1, 2 x 2, 3 x 3 and 6 x 6 parts of the picture.

    Args:
        in_channels: Of the features; they leave with twice as many.
        parts: How many parts there are, in height and in width.
    """

    def __init__(self, in_channels: int, parts: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        width = in_channels // len(parts)
        self.pools = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(n),
                nn.Sequential(*_conv_norm_relu(in_channels, width, norm=n > 1)),
            )
            for n in parts
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The means, reduced to a quarter of the channels each and enlarged, and the features."""
        means = [enlarged(pool(x), x, corners=True) for pool in self.pools]
        return torch.cat([*means, x], dim=1)


class PSPNet(nn.Module):
    """Class scores from features at stride 8 and their pyramid of means.

    Args:
        num_classes: C, the number of classes.
        backbone: With features at stride 8.
        width: Channels before the classes' scores.
    """

    def __init__(self, num_classes: int, backbone: Backbone, *, width: int = 512) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.channels[8]
        self.pyramid = PyramidPooling(channels)
        self.fuse = nn.Sequential(*_conv_norm_relu(2 * channels, width), nn.Dropout2d(0.2))
        self.classify = nn.Conv2d(width, num_classes, 3, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        features = self.backbone(image)[8]
        return enlarged(self.classify(self.fuse(self.pyramid(features))), image, corners=True)


def pspnet_resnet50(num_classes: int) -> PSPNet:
    """PSPNet on a ResNet-50 of output stride 8; 30 million weights. For images of any size."""
    return PSPNet(num_classes, resnet50(output_stride=8))


def pspnet_resnet34(num_classes: int) -> PSPNet:
    """PSPNet on the first two stages of a ResNet-34, which reach stride 8; 1.5 million weights.

    For images of any size. Light, and the layout of segmentation-models-pytorch.
    """
    return PSPNet(num_classes, ResNet(BasicBlock, (3, 4), stages(32)[:2]))


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of segmentation-models-pytorch's `PSPNet` of depth 3, for `pspnet_resnet34`.

    The stages of its encoder that it does not use are left out.
    """
    used = {
        name.replace(".pool.", "."): value
        for name, value in state.items()
        if not name.startswith(("encoder.layer3.", "encoder.layer4."))
    }
    names = {
        "encoder.": "backbone.",
        "decoder.psp.blocks.": "pyramid.pools.",
        "decoder.conv.": "fuse.",
        "segmentation_head.0.": "classify.",
    }
    return renamed_prefixes(used, names)


def _conv_norm_relu(
    in_channels: int, out_channels: int, *, norm: bool = True
) -> tuple[nn.Module, ...]:
    """A 1x1 convolution and ReLU; no normalisation over a single place, as the peer has it."""
    return (
        nn.Conv2d(in_channels, out_channels, 1, bias=not norm),
        nn.BatchNorm2d(out_channels) if norm else nn.Identity(),
        nn.ReLU(inplace=True),
    )

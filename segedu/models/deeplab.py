"""DeepLab v3 and v3+: dilated convolutions side by side see near and far. Chapter 12 builds them.

Sources: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, section
3.3, https://arxiv.org/abs/1706.05587; Chen et al., "Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation", ECCV 2018, figure 2, https://arxiv.org/abs/1802.02611.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.fcn import OnDeepest
from segedu.models.layers import Backbone, conv_norm_relu, enlarged, renamed_prefixes
from segedu.models.resnet import BasicBlock, ResNet, resnet50, resnet101, stages

RATES = (12, 24, 36)
"""Dilations for features at stride 8, in their pixels; for stride 16 the paper halves them."""
WIDTH = 256
"""Channels of every branch, and of what is joined."""
DETAIL = 48
"""Channels to which v3+ reduces the features of stride 4."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3 and the mean of the picture, joined.

    Args:
        in_channels: Of the features.
        rates: The dilations.
        conv: Makes a 3x3 convolution (in_channels, out_channels, dilation) without bias.
    """

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int] = RATES,
        *,
        conv: Callable[[int, int, int], nn.Module],
    ) -> None:
        super().__init__()
        branches: list[nn.Module] = [nn.Sequential(_conv1x1(in_channels, WIDTH), *norm_relu())]
        branches += [nn.Sequential(conv(in_channels, WIDTH, rate), *norm_relu()) for rate in rates]
        mean = nn.AdaptiveAvgPool2d(1)
        branches.append(nn.Sequential(mean, _conv1x1(in_channels, WIDTH), *norm_relu()))
        self.convs = nn.ModuleList(branches)
        joined = WIDTH * len(branches)
        self.project = nn.Sequential(_conv1x1(joined, WIDTH), *norm_relu(), nn.Dropout(0.5))

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b 256 h w"]:
        """What each place sees near, further, far, and in all of the picture."""
        seen = [branch(x) for branch in self.convs]
        return self.project(torch.cat([*seen[:-1], enlarged(seen[-1], x)], dim=1))


def deeplabv3_resnet50(num_classes: int) -> OnDeepest:
    """DeepLab v3 on a ResNet-50 of output stride 8; 40 million weights. For images of any size.

    Training needs two images or more in a batch: the picture's mean is normalised over the batch.
    """
    return OnDeepest(resnet50(output_stride=8), deeplab_head(2048, num_classes))


def deeplabv3_resnet101(num_classes: int) -> OnDeepest:
    """DeepLab v3 on a ResNet-101 of output stride 8; 59 million weights; see the other."""
    return OnDeepest(resnet101(output_stride=8), deeplab_head(2048, num_classes))


def deeplab_head(in_channels: int, num_classes: int) -> nn.Sequential:
    """ASPP, a 3x3 convolution, then the classes' scores."""
    return nn.Sequential(
        ASPP(in_channels, conv=dilated),
        *conv_norm_relu(WIDTH, WIDTH),
        nn.Conv2d(WIDTH, num_classes, 1),
    )


class DeepLabV3Plus(nn.Module):
    """ASPP at stride 16, enlarged, joined with detail from stride 4; all convolutions separable.

    Args:
        num_classes: C, the number of classes.
        backbone: With features at strides 4 and 16, the latter its deepest.
    """

    def __init__(self, num_classes: int, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = nn.Sequential(
            ASPP(backbone.channels[16], conv=separable), separable(WIDTH, WIDTH, 1), *norm_relu()
        )
        self.detail = nn.Sequential(_conv1x1(backbone.channels[4], DETAIL), *norm_relu(DETAIL))
        self.fuse = nn.Sequential(separable(WIDTH + DETAIL, WIDTH, 1), *norm_relu())
        self.classify = nn.Conv2d(WIDTH, num_classes, 1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        features = self.backbone(image)
        detail = self.detail(features[4])
        context = enlarged(self.aspp(features[16]), detail, corners=True)
        logits = self.classify(self.fuse(torch.cat([context, detail], dim=1)))
        return enlarged(logits, image, corners=True)


def deeplabv3plus_resnet34(num_classes: int) -> DeepLabV3Plus:
    """DeepLab v3+ on a ResNet-34 of output stride 16; 22 million weights; images of any size."""
    return DeepLabV3Plus(num_classes, ResNet(BasicBlock, (3, 4, 6, 3), stages(16, at_once=True)))


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of segmentation-models-pytorch's `DeepLabV3Plus`, for this one."""
    return renamed_prefixes(
        state,
        {
            "encoder.": "backbone.",
            "decoder.aspp.": "aspp.",
            "decoder.block1.": "detail.",
            "decoder.block2.": "fuse.",
            "segmentation_head.0.": "classify.",
        },
    )


def dilated(in_channels: int, out_channels: int, dilation: int) -> nn.Conv2d:
    """A dilated 3x3 convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)


def separable(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    """The same in two steps: each channel by itself, then a 1x1 convolution over channels."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            in_channels,
            3,
            padding=dilation,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        ),
        _conv1x1(in_channels, out_channels),
    )


def _conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def norm_relu(channels: int = WIDTH) -> tuple[nn.Module, ...]:
    """Batch normalisation and ReLU."""
    return nn.BatchNorm2d(channels), nn.ReLU()

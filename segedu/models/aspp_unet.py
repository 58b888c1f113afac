"""A U-Net for few cores: ASPP at the bottom, separable convolutions on the way up.

Sources: the way up of Ronneberger et al. 2015 (chapter 10); ASPP of Chen et al., "Rethinking Atrous
Convolution", 2017, section 3.3, and separable convolutions in the decoder of Chen et al.,
"Encoder-Decoder with Atrous Separable Convolution", ECCV 2018, section 3.1 (chapter 12).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.deeplab import ASPP, WIDTH, norm_relu, separable
from segedu.models.layers import Backbone, conv_norm_relu, enlarged
from segedu.models.mobilenet import efficientnet_lite0

NEAR_RATES = (1, 3, 6)
"""Dilations at stride 32, where the last reaches 192 pixels to each side."""


class ASPPUNet(nn.Module):
    """Scores of each class at each pixel, from an image of any size.

    The scores are computed at the finest stride of the backbone and enlarged bilinearly.

    Args:
        num_classes: C, the number of classes.
        backbone: Gives features of an image in [0, 1] by stride.
        widths: Channels on the way up, coarsest first, for all strides but the deepest.
        skips: Channels to which the backbone's features are brought at those strides.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone,
        *,
        widths: Sequence[int] = (96, 64, 64, 32),
        skips: Sequence[int] = (96, 64, 48, 16),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        deepest, *self.strides = sorted(backbone.channels, reverse=True)
        self.deepest = deepest
        self.aspp = ASPP(backbone.channels[deepest], NEAR_RATES, conv=separable)
        self.skips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(backbone.channels[stride], skip, 1, bias=False), *norm_relu(skip)
            )
            for stride, skip in zip(self.strides, skips, strict=True)
        )
        below = [WIDTH, *widths[:-1]]
        *coarse, finest = zip(below, skips, widths, strict=True)
        self.up = nn.ModuleList(_block(rising + skip, width) for rising, skip, width in coarse)
        self.up.append(nn.Sequential(*conv_norm_relu(finest[0] + finest[1], finest[2])))
        self.classify = nn.Conv2d(widths[-1], num_classes, 3, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        features = self.backbone(image)
        x = self.aspp(features[self.deepest])
        for stride, skip, block in zip(self.strides, self.skips, self.up, strict=True):
            detail = skip(features[stride])
            x = block(torch.cat([enlarged(x, detail), detail], dim=1))
        return enlarged(self.classify(x), image)


def aspp_unet_lite0(num_classes: int) -> ASPPUNet:
    """On EfficientNet-Lite0; 3.8 million weights. For images of any size.

    Training needs two images or more in a batch: the picture's mean is normalised over the batch.
    """
    return ASPPUNet(num_classes, efficientnet_lite0())


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two separable 3x3 convolutions that keep height and width."""
    return nn.Sequential(
        separable(in_channels, out_channels, 1),
        *norm_relu(out_channels),
        separable(out_channels, out_channels, 1),
        *norm_relu(out_channels),
    )

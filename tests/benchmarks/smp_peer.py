"""segmentation-models-pytorch's U-Net with our widths: its decoder on a plain encoder."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn


class SmpUnet(nn.Module):
    """The same layers as `segedu.models.unet.UNet`, and as many weights, from the library's parts.

    Its own encoders are classifiers that start by halving the picture, which U-Net's does not; so
    the encoder is plain, of the library's convolution blocks, and the decoder is the library's.
    """

    def __init__(self, num_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(conv(before, after), conv(after, after))
            for before, after in pairwise([3, *widths])
        )
        self.decoder = UnetDecoder(
            encoder_channels=[3, *widths],
            decoder_channels=list(reversed(widths))[1:],
            n_blocks=len(widths) - 1,
        )
        self.head = nn.Conv2d(widths[0], num_classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        features = [image]
        for i, block in enumerate(self.encoder):
            features.append(block(F.max_pool2d(features[-1], 2) if i else image))
        return self.head(self.decoder(features))


def conv(before: int, after: int) -> nn.Module:
    return Conv2dReLU(before, after, kernel_size=3, padding=1, use_norm="batchnorm")

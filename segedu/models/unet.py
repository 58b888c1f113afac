"""U-Net: go down to see far, come up to see sharp, copy the detail across; chapter 10 builds it.

Source: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, section 2 and figure 1. https://arxiv.org/abs/1505.04597

Three changes from the paper, as everyone makes them today: the convolutions are padded, so the
output is as large as the input; each is followed by batch normalisation; and the way up enlarges by
copying pixels instead of by a transposed convolution.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.models.layers import Normalize, conv_norm_relu


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


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions that keep height and width."""
    return nn.Sequential(
        *conv_norm_relu(in_channels, out_channels), *conv_norm_relu(out_channels, out_channels)
    )

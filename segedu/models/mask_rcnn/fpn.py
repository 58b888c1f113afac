"""The feature pyramid: features of every stride, each informed by the coarser ones; for chapter 17.

Source: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, section 3.
https://arxiv.org/abs/1612.03144
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.layers import Backbone


class FeaturePyramid(nn.Module):
    """Features of equal channels at every stride: each adds the coarser ones, enlarged, to its own.

    At the coarse end one more level is made by leaving out every second row and column.

    Args:
        in_channels: Of each level, finest first.
        channels: Of every level that comes out.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(_convolution(c, channels, 1) for c in in_channels)
        self.layer_blocks = nn.ModuleList(_convolution(channels, channels, 3) for _ in in_channels)

    def forward(self, levels: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Tensor]:
        """(B, channels, H, W) for each level and the additional one, finest first."""
        lateral = [block(level) for block, level in zip(self.inner_blocks, levels, strict=True)]
        merged = lateral[-1:]
        for finer in reversed(lateral[:-1]):
            merged.insert(0, finer + F.interpolate(merged[0], size=finer.shape[-2:]))
        pyramid = [block(x) for block, x in zip(self.layer_blocks, merged, strict=True)]
        return [*pyramid, F.max_pool2d(pyramid[-1], kernel_size=1, stride=2)]


class PyramidBackbone(nn.Module):
    """A backbone with a feature pyramid on top.

    Args:
        body: Gives features by stride.
        strides: Which of them the pyramid is built on, finest first.
        channels: Of every level.

    Attributes:
        strides: Of the levels that come out; one more than went in.
        channels: Of every level.
    """

    def __init__(self, body: Backbone, strides: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramid([body.channels[stride] for stride in strides], channels)
        self.strides = (*strides, 2 * strides[-1])
        self.channels = channels

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """(B, channels, H / stride, W / stride) for each of `strides`."""
        features: Mapping[int, Tensor] = self.body(image)
        levels: list[Tensor] = self.fpn([features[stride] for stride in self.strides[:-1]])
        return levels


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """A convolution that keeps the size, in the package that torchvision's weights have it in."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolution)

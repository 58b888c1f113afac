"""ResNet as a backbone: features at several strides, in torchvision's layout; for chapters 09-14.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1.
https://arxiv.org/abs/1512.03385. As in torchvision, a bottleneck block strides in its 3x3
convolution, not in its first 1x1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.models.layers import Backbone, Normalize


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How a stage's 3x3 convolutions are laid out.

    Attributes:
        stride: Of the first block.
        first_dilation: Of the first 3x3 convolution in the first block.
        dilation: Of all further ones.
    """

    stride: int = 2
    first_dilation: int = 1
    dilation: int = 1


def stages(output_stride: int, *, at_once: bool = False) -> tuple[Stage, ...]:
    """The four stages of a ResNet whose deepest features have `output_stride`: 8, 16 or 32.

    A stage that no longer strides leaves its places four times as dense as before, so all that
    follows is dilated twice as much: it then sees the same places as without the change. This is
    what torchvision does. Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image
    Segmentation", 2017, section 3.1. https://arxiv.org/abs/1706.05587

    Args:
        output_stride: Of the deepest features.
        at_once: Dilate the first 3x3 of such a stage as much as the others, although its places
            are not that dense yet: segmentation-models-pytorch does, and its weights expect it.

    Raises:
        InputError: If `output_stride` is another number.
    """
    if output_stride not in (8, 16, 32):
        raise InputError(f"ResNet: output_stride is {output_stride}; expected 8, 16 or 32")
    plan, reached, dilation = [Stage(stride=1)], 4, 1
    for _ in range(3):
        if reached < output_stride:
            plan.append(Stage())
            reached *= 2
        else:
            before, dilation = dilation, 2 * dilation
            first = dilation if at_once else before
            plan.append(Stage(stride=1, first_dilation=first, dilation=dilation))
    return tuple(plan)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to what came in: the block of ResNet-18 and -34.

    Args:
        in_channels: Of the features.
        width: Channels of what comes out.
        stride: Of the first convolution.
        dilation: Of the first convolution.
        after: Dilation of the second; None for that of the first.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        after: int | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width, stride, dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(width, width, 1, after or dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
        """The features after the block."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, added to what came in: the block of ResNet-50 and -101."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
        """The features after the block."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


class ResNet(Backbone):
    """Features of an image in [0, 1], by stride: the deepest of each.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: How many blocks each stage has; four stages, or fewer.
        plan: Stride and dilation of the stages; see `stages`.

    Attributes:
        channels: Channels of the features, by stride.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        plan: Sequence[Stage],
    ) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.channels: dict[int, int] = {2: 64}
        self.strides = [4]
        in_channels = 64
        for number, (depth, stage) in enumerate(zip(depths, plan, strict=True)):
            width = 64 * 2**number
            first = _first_block(block, in_channels, width, stage)
            in_channels = width * block.expansion
            others = [block(in_channels, width, dilation=stage.dilation) for _ in range(depth - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(first, *others))
            self.strides.append(self.strides[-1] * stage.stride)
            self.channels[self.strides[-1]] = in_channels

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        """(B, channels[stride], H / stride, W / stride) for each stride, rounded up."""
        x = self.relu(self.bn1(self.conv1(self.normalize(image))))
        features = {2: x}
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for number, stride in enumerate(self.strides[1:], start=1):
            x = features[stride] = self.get_submodule(f"layer{number}")(x)
        return features


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torchvision's ResNet (or another one in its layout) for this one.

    The classifier of ImageNet's classes, `fc`, is left out.
    """
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def resnet18(*, output_stride: int = 32) -> ResNet:
    """ResNet-18: 11 million weights."""
    return ResNet(BasicBlock, (2, 2, 2, 2), stages(output_stride))


def resnet34(*, output_stride: int = 32) -> ResNet:
    """ResNet-34: 21 million weights."""
    return ResNet(BasicBlock, (3, 4, 6, 3), stages(output_stride))


def resnet50(*, output_stride: int = 32) -> ResNet:
    """ResNet-50: 24 million weights."""
    return ResNet(Bottleneck, (3, 4, 6, 3), stages(output_stride))


def resnet101(*, output_stride: int = 32) -> ResNet:
    """ResNet-101: 43 million weights."""
    return ResNet(Bottleneck, (3, 4, 23, 3), stages(output_stride))


def _first_block(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, stage: Stage
) -> nn.Module:
    """The block that strides, or would: what follows the stride in it is dilated as all others."""
    if issubclass(block, BasicBlock):
        return block(
            in_channels,
            width,
            stride=stage.stride,
            dilation=stage.first_dilation,
            after=stage.dilation,
        )
    return block(in_channels, width, stride=stage.stride, dilation=stage.first_dilation)


def _conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Conv2d:
    """Keeps height and width if the stride is 1."""
    return nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """What came in, made as large as what comes out."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )

"""MobileNetV2 and EfficientNet-Lite0 as backbones: inverted residuals, in timm's layout.

Sources: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
tables 1 and 2, https://arxiv.org/abs/1801.04381; Tan and Le, "EfficientNet", ICML 2019, table 1,
https://arxiv.org/abs/1905.11946; "Lite" leaves out squeeze-and-excitation and keeps ReLU6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.models.layers import IMAGENET_MEAN, IMAGENET_STD, Backbone, Normalize

HEAD = 1280
"""Channels before the classifier of ImageNet's classes."""


@dataclass(frozen=True)
class Stage:
    """A row of the papers' tables.

    Attributes:
        expand: By what factor a block widens before its depthwise convolution.
        channels: That its blocks give.
        blocks: How many.
        stride: Of the first block.
        kernel: Height and width of the depthwise convolution.
    """

    expand: int
    channels: int
    blocks: int
    stride: int
    kernel: int = 3


MOBILENET_V2 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
LITE0 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": ceil(length / stride) places come out.

    Where the zeros cannot be shared out evenly, the odd one goes to the right and to the bottom.
    """

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
        """The convolution of `x` with zeros around it."""
        zeros = []
        for length, kernel, stride in zip(
            reversed(x.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            places = -(-length // stride)
            total = max((places - 1) * stride + kernel - length, 0)
            zeros += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, zeros), self.weight, self.bias, self.stride, groups=self.groups)


class EvenConv2d(nn.Conv2d):
    """A convolution with as many zeros on each side."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, **options)


@dataclass(frozen=True)
class Form:
    """What two networks of the same stages differ in.

    Attributes:
        conv: How a convolution pads.
        eps: What batch normalisation adds to the variance.
        mean: Of the images in [0, 1], channel by channel.
        std: The same.
    """

    conv: type[SameConv2d] | type[EvenConv2d]
    eps: float
    mean: Sequence[float]
    std: Sequence[float]

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Batch normalisation."""
        return nn.BatchNorm2d(channels, eps=self.eps)


TORCH = Form(EvenConv2d, 1e-5, IMAGENET_MEAN, IMAGENET_STD)
TENSORFLOW = Form(SameConv2d, 1e-3, [127 / 255] * 3, [128 / 255] * 3)


class Separable(nn.Module):
    """Depthwise 3x3, then 1x1 without an activation: the first block, which does not widen."""

    def __init__(self, in_channels: int, stage: Stage, stride: int, form: Form) -> None:
        super().__init__()
        self.conv_dw = form.conv(
            in_channels, in_channels, stage.kernel, stride=stride, groups=in_channels, bias=False
        )
        self.bn1 = form.norm(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, stage.channels, 1, bias=False)
        self.bn2 = form.norm(stage.channels)

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
        """The features after the block."""
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))


class InvertedResidual(nn.Module):
    """1x1 to many channels, depthwise, 1x1 back to few, added to what came in if that fits."""

    def __init__(self, in_channels: int, stage: Stage, stride: int, form: Form) -> None:
        super().__init__()
        wide = in_channels * stage.expand
        self.conv_pw = nn.Conv2d(in_channels, wide, 1, bias=False)
        self.bn1 = form.norm(wide)
        self.conv_dw = form.conv(wide, wide, stage.kernel, stride=stride, groups=wide, bias=False)
        self.bn2 = form.norm(wide)
        self.conv_pwl = nn.Conv2d(wide, stage.channels, 1, bias=False)
        self.bn3 = form.norm(stage.channels)
        self.adds = stride == 1 and in_channels == stage.channels

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
        """The features after the block."""
        y = F.relu6(self.bn1(self.conv_pw(x)))
        y = F.relu6(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.adds else y


class MobileNet(Backbone):
    """Features of an image in [0, 1], by stride: the deepest of each.

    Args:
        stages: The rows of the network's table.
        form: Its padding, and what else differs.
        imagenet_classes: 1000 for the classifier of ImageNet's classes as well; 0 for none.

    Attributes:
        channels: Channels of the features, by stride.
    """

    def __init__(self, stages: Sequence[Stage], form: Form, *, imagenet_classes: int = 0) -> None:
        super().__init__()
        self.normalize = Normalize(form.mean, form.std)
        self.conv_stem = form.conv(3, 32, 3, stride=2, bias=False)
        self.bn1 = form.norm(32)
        self.blocks = nn.ModuleList()
        self.channels: dict[int, int] = {}
        self.strides: list[int] = []
        stride, channels = 2, 32
        for stage in stages:
            block = InvertedResidual if stage.expand > 1 else Separable
            steps = [stage.stride] + [1] * (stage.blocks - 1)
            rows = []
            for step in steps:
                rows.append(block(channels, stage, step, form))
                channels = stage.channels
            self.blocks.append(nn.Sequential(*rows))
            stride *= stage.stride
            self.strides.append(stride)
            self.channels[stride] = channels
        if imagenet_classes:
            self.conv_head = nn.Conv2d(channels, HEAD, 1, bias=False)
            self.bn2 = form.norm(HEAD)
            self.classifier = nn.Linear(HEAD, imagenet_classes)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        """(B, channels[stride], H / stride, W / stride) for each stride, rounded up."""
        x = F.relu6(self.bn1(self.conv_stem(self.normalize(image))))
        features = {}
        for stride, block in zip(self.strides, self.blocks, strict=True):
            x = features[stride] = block(x)
        return features

    def classify(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        """Scores of ImageNet's classes for whole images, if the network has a classifier."""
        deepest = self(image)[self.strides[-1]]
        x = F.relu6(self.bn2(self.conv_head(deepest)))
        return self.classifier(x.mean(dim=(2, 3)))


def mobilenet_v2(*, imagenet_classes: int = 0) -> MobileNet:
    """MobileNetV2 of width 1: 2.2 million weights without a classifier."""
    return MobileNet(MOBILENET_V2, TORCH, imagenet_classes=imagenet_classes)


def efficientnet_lite0(*, imagenet_classes: int = 0) -> MobileNet:
    """EfficientNet-Lite0: 3.4 million weights without a classifier."""
    return MobileNet(LITE0, TENSORFLOW, imagenet_classes=imagenet_classes)


def from_peer(state: Mapping[str, Tensor], model: MobileNet) -> dict[str, Tensor]:
    """The weights of another implementation for `model`: by their order, which all of them share.

    timm's, torchvision's and the TensorFlow ports' names differ; the order of the layers does not.
    What `state` has beyond the features is left out if `model` has no classifier.

    Raises:
        InputError: If a tensor's shape is not that of its place, or there are too few.
    """
    own = model.state_dict()
    given = list(state.values())
    if len(given) < len(own):
        raise InputError(f"{len(given)} tensors; expected at least {len(own)}")
    loaded = dict(zip(own, given, strict=False))
    for (name, tensor), peer in zip(own.items(), state, strict=False):
        if loaded[name].shape != tensor.shape:
            raise InputError(
                f"{peer} has the shape {tuple(loaded[name].shape)}; expected "
                f"{tuple(tensor.shape)}, for {name}"
            )
    return loaded

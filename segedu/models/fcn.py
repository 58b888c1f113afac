"""Fully convolutional networks: a classifier that answers at each place. Chapter 09 builds them.

Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR
2015. https://arxiv.org/abs/1411.4038. `FCN` is the paper's, on any backbone. `fcn_resnet50`
and `fcn_resnet101` are torchvision's: a dilated ResNet, two convolutions, and an eightfold
enlargement.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.models.layers import Backbone, bilinear_upsampling, conv_norm_relu, enlarged
from segedu.models.resnet import resnet50, resnet101
from segedu.models.vgg import vgg16


class FCN(nn.Module):
    """Scores at the coarsest stride, enlarged step by step, with scores of finer strides added.

    Args:
        num_classes: C, the number of classes.
        backbone: Gives features of an image in [0, 1] by stride.
        finest: The last stride whose scores are added: 32, 16 and 8 are FCN-32s, -16s and -8s.
        head: From the deepest features to those that are scored; none if None.
        head_channels: Channels that it gives.

    Raises:
        InputError: If the backbone has no features of the stride `finest`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone,
        *,
        finest: int,
        head: nn.Module | None = None,
        head_channels: int = 0,
    ) -> None:
        super().__init__()
        if finest not in backbone.channels:
            raise InputError(
                f"FCN: no features of stride {finest}; the backbone has {tuple(backbone.channels)}"
            )
        self.backbone = backbone
        self.strides = sorted((s for s in backbone.channels if s >= finest), reverse=True)
        channels = [backbone.channels[stride] for stride in self.strides]
        if head is not None:
            channels[0] = head_channels
        self.head = head or nn.Identity()
        scores = [nn.Conv2d(width, num_classes, 1) for width in channels]
        for finer in scores[1:]:  # so that they change nothing until they have learnt
            nn.init.zeros_(finer.weight)
            nn.init.zeros_(cast(Tensor, finer.bias))
        self.score = nn.ModuleList(scores)
        self.up = nn.ModuleList(bilinear_upsampling(num_classes, 2) for _ in channels[1:])
        self.enlarge = bilinear_upsampling(num_classes, finest)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        features = self.backbone(image)
        x = self.score[0](self.head(features[self.strides[0]]))
        for stride, score, up in zip(self.strides[1:], self.score[1:], self.up, strict=True):
            finer = score(features[stride])
            x = up(x)[..., : finer.shape[-2], : finer.shape[-1]] + finer
        return self.enlarge(x)[..., : image.shape[-2], : image.shape[-1]]


def fcn8s_vgg16(num_classes: int) -> FCN:
    """The paper's FCN-8s on VGG-16, padded so that sizes match; 134 million weights, any size."""
    head = nn.Sequential(
        nn.Conv2d(512, 4096, 7, padding=3),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(4096, 4096, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
    )
    return FCN(num_classes, vgg16(), finest=8, head=head, head_channels=4096)


def as_convolution(layer: nn.Linear, channels: int) -> nn.Conv2d:
    """A fully connected layer over a map of `channels`, as a convolution with the same weights.

    On a map of just the size that the layer was made for it gives one place, with the layer's
    values; on a larger map, the layer's values for each window.

    Raises:
        InputError: If the layer's inputs are not `channels` square maps.
    """
    size = math.isqrt(layer.in_features // channels)
    if channels * size * size != layer.in_features:
        raise InputError(
            f"a layer with {layer.in_features} inputs does not read {channels} square maps"
        )
    conv = nn.Conv2d(channels, layer.out_features, size, bias=layer.bias is not None)
    with torch.no_grad():
        conv.weight.copy_(layer.weight.view_as(conv.weight))
        if layer.bias is not None and conv.bias is not None:
            conv.bias.copy_(layer.bias)
    return conv


class OnDeepest(nn.Module):
    """Class scores from the deepest features of a backbone, enlarged to the image's size.

    Args:
        backbone: Gives features of an image in [0, 1] by stride.
        classifier: From those features to logits.
    """

    def __init__(self, backbone: Backbone, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        features = self.backbone(image)
        return enlarged(self.classifier(features[max(features)]), image)


def fcn_resnet50(num_classes: int) -> OnDeepest:
    """FCN on a ResNet-50 of output stride 8; 33 million weights. For images of any size."""
    return OnDeepest(resnet50(output_stride=8), fcn_head(2048, num_classes))


def fcn_resnet101(num_classes: int) -> OnDeepest:
    """FCN on a ResNet-101 of output stride 8; 52 million weights. For images of any size."""
    return OnDeepest(resnet101(output_stride=8), fcn_head(2048, num_classes))


def fcn_head(in_channels: int, num_classes: int) -> nn.Sequential:
    """A 3x3 convolution to a quarter of the channels, then the classes' scores."""
    width = in_channels // 4
    return nn.Sequential(
        *conv_norm_relu(in_channels, width), nn.Dropout(0.1), nn.Conv2d(width, num_classes, 1)
    )


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torchvision's segmentation model; its auxiliary classifier is left out."""
    return {name: value for name, value in state.items() if not name.startswith("aux_classifier.")}

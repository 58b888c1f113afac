"""VGG-16 as a backbone, in torchvision's layout; chapters 09 and 12 make it see every pixel.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, table 1, column D. https://arxiv.org/abs/1409.1556
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.models.layers import Backbone, Normalize

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class DensePool(nn.MaxPool2d):
    """The maximum of 2 x 2 places, `dilation` apart, at every place: a pooling that keeps the size.

    At the right and lower edge only places on the map count, as in a pooling that rounds up.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__(2, stride=1, dilation=dilation)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The maxima."""
        beyond = cast(int, self.dilation)
        return super().forward(F.pad(x, (0, beyond, 0, beyond), value=float("-inf")))


class VGG(Backbone):
    """Features of an image in [0, 1] by stride: after each pooling.

    A pooling that would go beyond `output_stride` keeps the size, and all that follows is dilated
    twice as much. The weights then mean what they meant: at every second place, or fourth after
    two such poolings, the features are those of stride 32. Source: Chen et al., "Semantic Image
    Segmentation with Deep Convolutional Nets and Fully Connected CRFs", ICLR 2015, section 3.1.
    https://arxiv.org/abs/1412.7062

    Args:
        widths: The channels of each 3x3 convolution, in groups that end in a pooling.
        output_stride: Of the deepest features; a power of two.

    Attributes:
        channels: Channels of the features, by stride.

    Raises:
        InputError: If no pooling reaches `output_stride`.
    """

    def __init__(self, widths: Sequence[Sequence[int]] = VGG16, *, output_stride: int = 32) -> None:
        super().__init__()
        reachable = [2 ** (group + 1) for group in range(len(widths))]
        if output_stride not in reachable:
            raise InputError(f"VGG: output_stride is {output_stride}; expected one of {reachable}")
        self.normalize = Normalize()
        self.channels: dict[int, int] = {}
        layers: list[nn.Module] = []
        channels, stride, dilation = 3, 1, 1
        for wide in widths:
            for before, width in pairwise((channels, *wide)):
                conv = nn.Conv2d(before, width, 3, padding=dilation, dilation=dilation)
                layers += [conv, nn.ReLU(inplace=True)]
            channels = wide[-1]
            if stride < output_stride:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                stride *= 2
            else:
                layers.append(DensePool(dilation))
                dilation *= 2
            self.channels[stride] = channels
        self.features = nn.Sequential(*layers)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        """(B, channels[stride], H / stride, W / stride) for each stride, rounded up."""
        x, features, reached = self.normalize(image), {}, 1
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                reached *= cast(int, layer.stride)
                features[reached] = x
        return features


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torchvision's `vgg16` for this one, without its classifier."""
    return {name: value for name, value in state.items() if name.startswith("features.")}


def vgg16(*, output_stride: int = 32) -> VGG:
    """VGG-16 without its classifier: 15 million weights."""
    return VGG(output_stride=output_stride)

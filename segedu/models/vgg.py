"""VGG-16 as a backbone, in torchvision's layout; chapter 09 makes it fully convolutional.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, table 1, column D. https://arxiv.org/abs/1409.1556
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.layers import Backbone, Normalize

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(Backbone):
    """Features of an image in [0, 1] by stride: after each pooling.

    Args:
        widths: The channels of each 3x3 convolution, in groups that end in a pooling.

    Attributes:
        channels: Channels of the features, by stride.
    """

    def __init__(self, widths: Sequence[Sequence[int]] = VGG16) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.channels: dict[int, int] = {}
        layers: list[nn.Module] = []
        channels = 3
        for group, wide in enumerate(widths):
            for width in wide:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            self.channels[2 ** (group + 1)] = channels
        self.features = nn.Sequential(*layers)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        """(B, channels[stride], H / stride, W / stride) for each stride, rounded up."""
        x, features, stride = self.normalize(image), {}, 1
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                stride *= 2
                features[stride] = x
        return features


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torchvision's `vgg16` for this one, without its classifier."""
    return {name: value for name, value in state.items() if name.startswith("features.")}


def vgg16() -> VGG:
    """VGG-16 without its classifier: 15 million weights."""
    return VGG()

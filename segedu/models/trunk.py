"""A small backbone with random weights; chapter 09 builds it, later chapters read from it."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.layers import Backbone, Normalize, conv_norm_relu


class Trunk(Backbone):
    """Blocks of two convolutions and a pooling, like VGG but small: features by stride, from 2.

    Args:
        widths: Channels of each block, finest first.

    Attributes:
        channels: Channels of the features, by stride.
    """

    def __init__(self, widths: Sequence[int] = (12, 24, 32, 48, 64)) -> None:
        super().__init__()
        self.normalize = Normalize([0.5] * 3, [0.25] * 3)
        self.channels = {2 ** (i + 1): width for i, width in enumerate(widths)}
        self.blocks = nn.ModuleList(map(_block, (3, *widths[:-1]), widths))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        """(B, channels[stride], H / stride, W / stride) for each stride, rounded down."""
        x, features = self.normalize(image), {}
        for stride, block in zip(self.channels, self.blocks, strict=True):
            x = features[stride] = block(x)
        return features


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_norm_relu(in_channels, out_channels),
        *conv_norm_relu(out_channels, out_channels),
        nn.MaxPool2d(2),
    )

"""Layers that several models are built from."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """(image - mean) / std, channel by channel: part of the model, so that nobody can forget it.

    The two are buffers that move with the model, and are exported with it, but stay out of its
    `state_dict`: they are settings, not something learned.

    Args:
        mean: One number per channel, for an image in [0, 1].
        std: The same.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, image: Float[Tensor, "b in h w"]) -> Float[Tensor, "b in h w"]:
        """The image with roughly mean 0 and standard deviation 1."""
        return (image - self.mean) / self.std


def conv_norm_relu(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """A 3x3 convolution (no bias: the normalisation has one), batch normalisation and ReLU."""
    return (
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )

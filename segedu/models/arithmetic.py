"""Sizes and reach of convolutions, along one axis; height and width are counted alike.

Chapter 05 derives them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from segedu.errors import InputError


@dataclass(frozen=True)
class Layer:
    """What a convolution or pooling does to one axis.

    Attributes:
        kernel: Taps; 1 or more.
        stride: Input pixels from one output to the next; 1 or more.
        padding: Pixels added at either end; 0 or more.
        dilation: Input pixels from one tap to the next; 1 or more.

    Raises:
        InputError: If one of them is less than that.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected {least} or more")

    @property
    def span(self) -> int:
        """Pixels from the first tap to the last, both included."""
        return self.dilation * (self.kernel - 1) + 1


@dataclass(frozen=True)
class Field:
    """Which input pixels an output pixel of a chain of layers can see.

    Attributes:
        width: Pixels from the first to the last; with dilation, not all in between need be seen.
        jump: Input pixels from one output's field to the next one's.
        start: Where the field of output 0 begins; below 0 if it begins in the padding.
    """

    width: int = 1
    jump: int = 1
    start: int = 0


def output_length(length: int, layer: Layer) -> int:
    """How many places the kernel has along an axis of `length` pixels.

    Raises:
        InputError: If it has none.

    Source:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, sections 2
        and 5.1, https://arxiv.org/abs/1603.07285.
    """
    room = length + 2 * layer.padding - layer.span
    if room < 0:
        raise InputError(
            f"the kernel spans {layer.span} pixels and the padded axis has "
            f"{length + 2 * layer.padding}; expected no more"
        )
    return room // layer.stride + 1


def receptive_field(layers: Sequence[Layer]) -> Field:
    """The field of an output pixel after a chain of layers, the first layer first."""
    field = Field()
    for layer in layers:
        field = Field(
            width=field.width + (layer.span - 1) * field.jump,
            jump=field.jump * layer.stride,
            start=field.start - layer.padding * field.jump,
        )
    return field


def taps(length: int, layer: Layer) -> Bool[Tensor, "outputs {length}"]:
    """Which input pixels each output pixel of one layer sees; padding is no pixel."""
    places = torch.arange(output_length(length, layer))[:, None] * layer.stride
    seen = places + torch.arange(layer.kernel) * layer.dilation - layer.padding
    return (seen[:, :, None] == torch.arange(length)).any(dim=1)


def pixels_seen(length: int, layers: Sequence[Layer]) -> Bool[Tensor, "outputs {length}"]:
    """Which input pixels each output pixel sees after a chain of layers, by counting."""
    seen = torch.eye(length, dtype=torch.bool)
    for layer in layers:
        seen = (taps(len(seen), layer).double() @ seen.double()) > 0
    return seen

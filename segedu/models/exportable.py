"""A model as an exporter can read it: layers whose arithmetic hangs on the size are written anew.

An exporter follows the sizes as symbols. Two layers decide by the size what to do, and would be
drawn as they are for one size only: pooling into n x n parts, and TensorFlow's padding.
"""

import copy
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.models.layers import Views
from segedu.models.mask_rcnn.model import MaskRCNN
from segedu.models.mobilenet import SameConv2d


class PartMeans(nn.Module):
    """`nn.AdaptiveAvgPool2d(parts)` as two products with matrices, which exist for any size.

    Part i of n covers the rows from floor(i H / n) up to, but without, ceil((i + 1) H / n).

    Args:
        parts: n, in height and in width.
    """

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c n n"]:
        """The mean of each part."""
        rows, columns = (self._shares(length, x) for length in x.shape[-2:])
        return rows @ x @ columns.T

    def _shares(self, length: int, like: Tensor) -> Tensor:
        """(n, length): by how much each place counts in each part."""
        part = torch.arange(self.parts, device=like.device)[:, None]
        place = torch.arange(length, device=like.device)
        first = part * length // self.parts
        last = ((part + 1) * length + self.parts - 1) // self.parts
        inside = ((place >= first) & (place < last)).to(like.dtype)
        return inside / inside.sum(dim=1, keepdim=True)


class SameConvNode(nn.Module):
    """A `SameConv2d` as the ONNX operator whose padding means just that (auto_pad SAME_UPPER).

    It is a node of a graph to be exported, and computes nothing here.
    """

    def __init__(self, conv: SameConv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
        """The node, with the size of what it will give."""
        conv = self.conv
        inputs = [x, conv.weight, *([conv.bias] if conv.bias is not None else [])]
        rows, columns = (
            (length + stride - 1) // stride
            for length, stride in zip(x.shape[-2:], conv.stride, strict=True)
        )
        return cast(Any, torch.onnx).ops.symbolic(
            "Conv",
            inputs,
            {
                "auto_pad": "SAME_UPPER",
                "strides": list(conv.stride),
                "group": conv.groups,
                "kernel_shape": list(conv.kernel_size),
            },
            dtype=x.dtype,
            shape=(x.shape[0], conv.out_channels, rows, columns),
        )


def exportable(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, on the CPU, in float32, that looks once.

    Raises:
        InputError: If the model finds objects.
    """
    if isinstance(model, MaskRCNN):
        raise InputError(
            "a model that finds objects is not exported: how many regions it looks at hangs on "
            "what it sees, and its suppression and pasting of masks are loops, not one graph; "
            "export a model that labels pixels"
        )
    plain = copy.deepcopy(model.model if isinstance(model, Views) else model)
    return plain.to(device="cpu", dtype=torch.float32, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def as_graph(model: nn.Module) -> nn.Module:
    """A copy, for an exporter alone, of which every layer means the same for every size."""
    drawn = copy.deepcopy(model)
    for part in [*drawn.modules()]:
        for name, child in part.named_children():
            if isinstance(child, SameConv2d):
                setattr(part, name, SameConvNode(child))
            elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size != 1:
                setattr(part, name, PartMeans(cast(int, child.output_size)))
    return drawn

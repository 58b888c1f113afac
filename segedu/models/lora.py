"""Low-rank adapters: a layer keeps its weight, and learns a small product that is added to it.

Chapter 14 derives it.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1,
https://arxiv.org/abs/2106.09685.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError


class LoRA(nn.Module):
    """A layer with the weight W + alpha / rank * B A, in which A and B alone learn.

    B begins at zero, so the outputs begin as the layer's own. A convolution's weight is read as a
    matrix with a row for each channel that comes out.

    Args:
        layer: Linear, or a convolution without groups; its weight and bias are frozen.
        rank: Rows of A and columns of B; at most the smaller side of the matrix.
        alpha: The product's weight is alpha / rank; `rank` itself for 1.
        generator: Draws A; torch's own if None.

    Attributes:
        a: (rank, in), random; for a convolution `in` counts channels times the kernel's places.
        b: (out, rank), zero at first.
        scale: alpha / rank.
        merged: Whether the product has been added to the layer's weight. Then A and B learn
            nothing.

    Raises:
        InputError: If the layer has groups, or the rank does not fit.
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        rank: int,
        alpha: float,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _refuse(layer, rank)
        rows, columns = layer.weight.flatten(1).shape
        drawn = torch.randn(rank, columns, generator=generator) / columns**0.5
        self.base = layer.requires_grad_(requires_grad=False)
        self.a = nn.Parameter(drawn.to(layer.weight))
        self.b = nn.Parameter(layer.weight.new_zeros(rows, rank))
        self.scale = alpha / rank
        self.merged = False

    @property
    def change(self) -> Tensor:
        """What is added to the layer's weight, in its shape."""
        return (self.scale * self.b @ self.a).view_as(self.base.weight)

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """The layer's output with the changed weight."""
        if self.merged:
            return self.base(x)
        changed = {"weight": self.base.weight + self.change}
        return torch.func.functional_call(self.base, changed, (x,))

    @torch.no_grad()
    def merge(self) -> None:
        """Add the product to the layer's weight, so that it costs no time."""
        if not self.merged:
            self.base.weight += self.change
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the product off again: the layer's weight as it was, to rounding."""
        if self.merged:
            self.base.weight -= self.change
        self.merged = False


def add_lora(
    model: nn.Module,
    rank: int,
    alpha: float,
    *,
    where: str = "",
    generator: torch.Generator | None = None,
) -> list[str]:
    """Give layers of a model adapters, in place, and freeze all else in it; returns their names.

    Batch normalisation still moves its running means in training mode: keep the model in eval mode,
    or they change without being among the adapters. A head that is to learn freely stays outside:
    `add_lora(net.backbone, ...)`.

    Args:
        model: Holds linear layers or convolutions.
        rank: Of every adapter.
        alpha: The products' weight is alpha / rank.
        where: A regular expression; the layers in whose names it is found.
        generator: Draws the matrices A; torch's own if None.

    Raises:
        InputError: If no layer is found, one has groups, the rank does not fit one, or the model
            has adapters already. The model is then as it was.
    """
    if any(isinstance(module, LoRA) for module in model.modules()):
        raise InputError("the model has adapters already; `merge_lora` them first")
    chosen = [
        (name, layer)
        for name, layer in model.named_modules(remove_duplicate=False)
        if name and isinstance(layer, nn.Linear | nn.Conv2d) and re.search(where, name)
    ]
    if not chosen:
        known = [n for n, m in model.named_modules() if n and isinstance(m, nn.Linear | nn.Conv2d)]
        some = f"such as {', '.join(known[:3])}" if known else "but the model has none"
        raise InputError(f"where={where!r} finds no linear layer and no convolution, {some}")
    for name, layer in chosen:
        _refuse(layer, rank, name)
    model.requires_grad_(requires_grad=False)
    adapted = {layer: LoRA(layer, rank, alpha, generator=generator) for _, layer in chosen}
    for name, layer in chosen:  # a layer with two names is one layer still
        model.set_submodule(name, adapted[layer])
    return [name for name, _ in chosen]


def merge_lora(model: nn.Module) -> None:
    """Put plain layers with merged weights in the adapters' places; they stay frozen."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, LoRA):
            module.merge()
            model.set_submodule(name, module.base)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' matrices by name: all that a file needs besides the pretrained weights."""
    return {name: matrix.detach() for name, matrix in _matrices(model)}


@torch.no_grad()
def load_lora(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put matrices from `lora_state` into a model with the same adapters, none of them merged.

    Raises:
        InputError: If names or shapes are not those of the model's adapters, or one is merged.
    """
    if any(isinstance(module, LoRA) and module.merged for module in model.modules()):
        raise InputError("the model's adapters are merged; `unmerge` them first")
    own = dict(_matrices(model))
    if unlike := sorted(own.keys() ^ state.keys()):
        side = "is missing" if unlike[0] in own else "has no place in the model"
        raise InputError(f"{unlike[0]} {side}; expected the {len(own)} matrices of its adapters")
    for name, matrix in own.items():
        if state[name].shape != matrix.shape:
            raise InputError(
                f"{name} has the shape {tuple(state[name].shape)}; expected {tuple(matrix.shape)}"
            )
    for name, matrix in own.items():
        matrix.copy_(state[name])


def _matrices(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A and B of every adapter, by their names in the model."""
    for name, module in model.named_modules():
        if isinstance(module, LoRA):
            prefix = f"{name}." if name else ""
            yield f"{prefix}a", module.a
            yield f"{prefix}b", module.b


def _refuse(layer: nn.Linear | nn.Conv2d, rank: int, name: str = "the layer") -> None:
    """Raise for a layer that can have no adapter of this rank."""
    groups = getattr(layer, "groups", 1)
    if groups > 1:
        raise InputError(
            f"{name} has {groups} groups: its weight is {groups} small matrices, not one of low "
            "rank; leave it out with `where`"
        )
    most = min(layer.weight.flatten(1).shape)
    if not 1 <= rank <= most:
        raise InputError(
            f"rank is {rank}; expected 1 to {most} for {name}, whose weight is "
            f"{' x '.join(map(str, layer.weight.flatten(1).shape))}"
        )

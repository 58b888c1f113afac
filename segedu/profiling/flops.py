"""What each layer of a network computes and moves, from its shapes alone; chapter 20 derives it.

A FLOP is one addition or one multiplication, so a multiplication with addition counts 2.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs in one forward pass.

    Attributes:
        name: In the network, such as "down.0.3".
        kind: Its class, such as "Conv2d".
        flops: Of convolutions, transposed convolutions and linear layers; of any other layer as
            many as its output has numbers.
        moved: Bytes that must be read and written at least: input, weights and output, each once.
    """

    name: str
    kind: str
    flops: int
    moved: int

    @property
    def intensity(self) -> float:
        """FLOPs for each byte moved."""
        return self.flops / self.moved


def layer_costs(network: nn.Module, images: Tensor) -> list[LayerCost]:
    """The cost of each layer that has no layers inside it, in the order of the forward pass.

    What the network does outside of layers, as joining two maps, is not counted.

    Args:
        network: May be on the meta device, as `images` then are; it is not trained.
        images: (B, C, H, W).
    """
    costs: list[LayerCost] = []

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        moved = sum(
            tensor.numel() * tensor.element_size()
            for tensor in (*inputs, *layer.parameters(), output)
        )
        costs.append(
            LayerCost(name, type(layer).__name__, flops_of(layer, inputs[0], output), moved)
        )

    with each_layer(network, note), torch.no_grad():
        network(images)
    return costs


def flops_of(layer: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """FLOPs of one layer: 2 for each weight that each number of the output takes.

    A transposed convolution gives each number of its input to as many.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        return 2 * inputs.numel() * layer.weight[0].numel()
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return 2 * output.numel() * layer.weight[0].numel()
    return output.numel()


@contextmanager
def each_layer(
    network: nn.Module,
    after: Callable[[str, nn.Module, tuple[Tensor, ...], Tensor], object],
    before: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """While entered, calls back around each layer that has no layers inside it.

    Args:
        network: Whose layers.
        after: Is given the layer's name, the layer, its inputs and its output.
        before: Is called before the layer is.
    """
    handles = []
    for name, layer in network.named_modules():
        if any(True for _ in layer.children()):
            continue

        def done(layer: nn.Module, inputs: Any, output: Any, *, name: str = name) -> None:
            after(name, layer, inputs, output)

        handles.append(layer.register_forward_pre_hook(lambda *_: before() and None))
        handles.append(layer.register_forward_hook(done))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def step_flops(step: Callable[[], object]) -> int:
    """FLOPs of convolutions and matrix products in whatever `step` does, as torch counts them."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return int(counter.get_total_flops())

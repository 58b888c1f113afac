"""How much memory a training step takes, predicted without taking it; chapter 20 derives it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segedu.losses import cross_entropy_loss

ADAM = 2
"""Numbers that Adam keeps of each weight: its gradient's running mean, and its square's."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes at the end of a forward pass, when a step needs most.

    Attributes:
        weights: And the running means of batch normalisation.
        gradients: Of the step before, which stay until the new ones come.
        optimizer: What it keeps of each weight.
        activations: What the forward pass keeps for the way back.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All four together."""
        return self.weights + self.gradients + self.optimizer + self.activations


def predict_memory(
    network: nn.Module, shape: tuple[int, int, int, int], *, per_weight: int = ADAM
) -> TrainingMemory:
    """What training in float32 will take; nothing of it is taken.

    Args:
        network: Is moved to the meta device, where tensors have shapes and no numbers.
        shape: Of the images: (B, C, H, W).
        per_weight: Numbers that the optimiser keeps of each weight; 0 for plain gradient descent.
    """
    network = network.to("meta").train()
    images = torch.empty(shape, device="meta")
    masks = torch.empty((shape[0], *shape[2:]), dtype=torch.long, device="meta")
    weights = size_of(network.parameters())
    return TrainingMemory(
        weights=weights + size_of(network.buffers()),
        gradients=weights,
        optimizer=per_weight * weights,
        activations=kept_bytes(
            lambda: cross_entropy_loss(network(images), masks), but=network.parameters()
        ),
    )


def kept_bytes(forward: Callable[[], Tensor], *, but: Iterable[Tensor] = ()) -> int:
    """Bytes that a forward pass keeps for the way back, each piece of memory counted once.

    Args:
        forward: Returns what one would call `backward` on.
        but: Tensors that do not count, as the weights, which are there anyway.
    """
    without = {tensor.untyped_storage()._cdata for tensor in but}
    kept: dict[int, tuple[int, torch.UntypedStorage]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in without:
            kept[storage._cdata] = storage.nbytes(), storage  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in kept.values())


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of all of them."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

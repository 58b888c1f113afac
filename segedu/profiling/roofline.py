"""The two ceilings of a machine, arithmetic and memory, and a network's layers under them.

Source: Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for
Multicore Architectures", Communications of the ACM 52(4), 2009. Chapter 20 measures one.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segedu.device import is_quick_in_16_bits, mixed_precision
from segedu.profiling.flops import LayerCost, each_layer, layer_costs
from segedu.profiling.timing import once, seconds, synchronize


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at best, as measured.

    Attributes:
        flops: FLOPs a second of a large matrix product, by number format, such as "float32".
        bandwidth: Bytes a second that are read and written when a large tensor is copied.
    """

    flops: Mapping[str, float]
    bandwidth: float

    def attainable(self, intensity: float, kind: str = "float32") -> float:
        """FLOPs a second that work of so many FLOPs a byte can have: the lower of both ceilings."""
        return min(self.flops[kind], self.bandwidth * intensity)

    def ridge(self, kind: str = "float32") -> float:
        """FLOPs a byte from which on arithmetic is the lower ceiling."""
        return self.flops[kind] / self.bandwidth


def measure_ceilings(device: torch.device, *, side: int = 0, megabytes: int = 0) -> Ceilings:
    """Time matrix products and a copy on `device`; takes a second or two.

    Args:
        device: Where.
        side: Of the square matrices; 0 for a size that keeps the device busy.
        megabytes: Of the tensor that is copied, far more than a cache holds; 0 for such a size.
    """
    on_cpu = device.type == "cpu"
    side, megabytes = side or (1024 if on_cpu else 8192), megabytes or (128 if on_cpu else 2048)
    kinds = [torch.float32] + [mixed_precision(device)] * is_quick_in_16_bits(device)
    flops = {str(kind).removeprefix("torch."): _product(side, kind, device) for kind in kinds}
    source = torch.zeros(megabytes << 18, device=device)
    target = torch.zeros_like(source)
    taken = seconds(lambda: target.copy_(source), device)
    return Ceilings(flops, 2 * source.numel() * source.element_size() / taken)


def time_layers(network: nn.Module, images: Tensor) -> list[tuple[LayerCost, float]]:
    """Each layer's cost and its seconds in one forward pass, in evaluation mode.

    The layers are waited for one by one. It is the least of five passes for each.
    """
    network.eval()
    passes = [_timed(network, images) for _ in range(6)][1:]
    least = [min(times) for times in zip(*passes, strict=True)]
    return list(zip(layer_costs(network, images), least, strict=True))


def _timed(network: nn.Module, images: Tensor) -> list[float]:
    """Seconds of each layer in one forward pass."""
    started, taken = [0.0], []

    def before() -> None:
        synchronize(images.device)
        started[0] = time.perf_counter()

    def after(*_: object) -> None:
        synchronize(images.device)
        taken.append(time.perf_counter() - started[0])

    with each_layer(network, after, before), torch.inference_mode():
        network(images)
    return taken


def _product(side: int, kind: torch.dtype, device: torch.device) -> float:
    """FLOPs a second of the product of two square matrices, the best of several."""
    a, b = (torch.rand(side, side, device=device).to(kind) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    return 2 * side**3 / min(once(lambda: torch.mm(a, b, out=out), device) for _ in range(8))

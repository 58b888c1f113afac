"""Several processes train one model: who does what, and what they add up; chapter 21 derives it.

`torchrun --nproc-per-node N -m segedu train ...` starts N processes that form a group. Each takes
its part of every batch, and what the parts give is added up, so that all take the step that one
process would take with the whole batch. Outside a group each function does what is right for one.

Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017, sections 3 and 4.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from segedu.device import pick_device
from segedu.errors import InputError

BUCKET = 4 * 2**20
"""Gradients are added up in pieces of at least so many numbers: each message has its own delay."""

_absent: list[None] = []  # an entry while this process only keeps the others company


def in_group() -> bool:
    """Whether this process is one of a group, if only of one."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if in_group() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if in_group() else 1


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Be one of the processes that torchrun started, for a while; without torchrun nothing happens.

    They talk over NCCL where they compute on GPUs, each on its own, and over Gloo on CPUs.

    Args:
        device: As in `TrainConfig`.

    Raises:
        InputError: If there are fewer GPUs than processes on this machine, or the device is
            neither a GPU of CUDA's nor the CPU.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    kind = pick_device(device).type
    if kind == "cuda":
        _take_own_gpu(int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count())
    elif kind != "cpu":
        raise InputError(f"device {device!r}: several processes need cuda or cpu; use --device cpu")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
        store=_meeting_place(),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all processes are here."""
    total(torch.zeros(1))  # on the CPU, also where GPUs compute


def all_see(path: Path) -> bool:
    """Whether a file is there, for all processes.

    Raises:
        InputError: If only some of them have it: they would go different ways.
    """
    there = int(total(torch.tensor(int(path.exists()))))
    if there not in (0, size()):
        raise InputError(
            f"{path}: {there} of {size()} processes see this file; keep it in a folder that all "
            "machines share"
        )
    return bool(there)


def total(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum of all processes' values, without a gradient; these stay as they are."""
    summed = values.detach().clone()
    if in_group():
        dist.all_reduce(summed)
    return summed


class Sum(torch.autograd.Function):
    """The sum of all processes' values, for all of them, with its gradient.

    What a process puts in is in every process's sum. So its gradient is the sum of the gradients
    that come back to all of them.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 - torch asks for it
        """The sum."""
        return total(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        """The sum of the gradients."""
        return total(gradient.contiguous())


def summed(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum of all processes' values, through which gradients flow back to all of them."""
    result: Tensor = Sum.apply(values)
    return result


def gathered(values: Tensor) -> Tensor:
    """The parts of a batch that the processes have, as one batch; gradients flow back to all.

    The parts may differ in length, but in nothing else. An absent process has none.

    Args:
        values: (B, ...), of floating point or whole numbers.
    """
    own = values[:0] if is_absent() else values
    lengths = torch.zeros(size(), dtype=torch.int64)
    lengths[rank()] = len(own)
    lengths = total(lengths)
    start = int(lengths[: rank()].sum())
    around = (start, int(lengths.sum()) - start - len(own))
    empty = [own.new_zeros(length, *own.shape[1:]) for length in around]
    whole = torch.cat([empty[0], own, empty[1]])
    return summed(whole) if whole.is_floating_point() else total(whole)


def add_up_gradients(model: nn.Module) -> None:
    """Give every process the sum of all gradients; a weight that has none counts as 0."""
    if not in_group():
        return
    gradients = []
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            gradients.append(weight.grad)
    sent = []
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, message in sent:
        message.wait()
        parts = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


def share_weights(model: nn.Module) -> None:
    """Give every process the first one's weights and running averages."""
    if in_group():
        for value in model.state_dict().values():
            whole = value.contiguous()
            dist.broadcast(whole, src=0)
            value.copy_(whole)


def is_absent() -> bool:
    """Whether this process has nothing of the batch at hand, and only keeps the others company."""
    return bool(_absent)


@contextmanager
def absent_if(nothing: bool) -> Iterator[None]:  # noqa: FBT001 - as an `if` has it
    """Be absent for a while, if this process has nothing of the batch at hand.

    It takes part in all that is added up, with nothing: otherwise the others would wait for it.
    """
    _absent.extend([None] * nothing)
    try:
        yield
    finally:
        del _absent[len(_absent) - nothing :]


def _meeting_place() -> Any:
    """Where the processes find one another's addresses.

    The launcher's own store outlives a restart, and with it the addresses of processes that are
    dead (pytorch issue 135712): so each start has keys of its own. Launchers on several machines
    count starts differently; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 gives each start a store.
    """
    is_launchers = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=os.environ["RANK"] == "0" and not is_launchers,
        wait_for_workers=False,
    )
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if is_one_machine else "0"
    return dist.PrefixStore(f"start {start}", store)  # type: ignore[attr-defined]


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in pieces of about `BUCKET` numbers and of one type each, the last first."""
    bucket: list[Tensor] = []
    for gradient in reversed(gradients):
        is_full = sum(other.numel() for other in bucket) >= BUCKET
        if bucket and (is_full or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _take_own_gpu(local_rank: int, gpus: int) -> None:
    """Compute on the GPU that has this process's number on this machine."""
    if local_rank >= gpus:
        raise InputError(
            f"process {local_rank} of this machine has no GPU of its own: there are {gpus}; use "
            f"torchrun --nproc-per-node {gpus}, or --device cpu"
        )
    torch.cuda.set_device(local_rank)

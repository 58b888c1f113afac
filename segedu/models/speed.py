"""What makes the steps of any model smaller in memory or quicker; chapter 20 derives both.

A model is changed in place; the names of its weights stay, so that checkpoints fit.
"""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from segedu.errors import InputError


def recompute_blocks(model: nn.Module) -> None:
    """Let each block of `model` keep its input only, and compute the rest again on the way back.

    Blocks are the outermost `nn.Sequential` modules, and members of lists of blocks. Their random
    numbers are the same both times, and the running means of batch normalisation move once. Doing
    it again changes nothing.

    Raises:
        InputError: If the model has no such block.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, section 4.
    https://arxiv.org/abs/1604.06174
    """
    found = list(blocks(model))
    if not found:
        raise InputError(f"recompute: {type(model).__name__} has no blocks to compute again")
    for block in found:
        if "forward" not in vars(block):
            again = partial(_first_and_second, block)
            block.forward = partial(_recomputed, block, block.forward, again)


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost `nn.Sequential` modules and members of lists that hold layers with weights."""
    listed = isinstance(model, nn.ModuleList)
    for child in model.children():
        kind = isinstance(child, nn.Sequential) or (listed and not isinstance(child, nn.ModuleList))
        if kind and any(child.children()) and any(True for _ in child.parameters()):
            yield child
        else:
            yield from blocks(child)


def compile_in_place(model: nn.Module, device: torch.device) -> None:
    """Let torch.compile write code for `model`, at its first call.

    Raises:
        InputError: If there is no compiler for `device`.
    """
    lacking = what_compiling_lacks(device)
    if lacking:
        raise InputError(f"compile: {lacking}; leave it out")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "no CUDA here"
    model.compile()


def what_compiling_lacks(device: torch.device) -> str:
    """Why torch.compile does not work for `device`, in a few words; empty if it should.

    On a CPU it needs a C++ compiler, which the environment variable CXX may name; on a CUDA GPU
    Triton.
    """
    if device.type == "cuda":
        return "" if torch.utils._triton.has_triton() else "Triton does not work here"
    named = os.environ.get("CXX", "")
    known = [named] if named else ["cl"] if sys.platform == "win32" else ["g++", "clang++"]
    if any(shutil.which(name) for name in known):
        return ""
    return f"there is no C++ compiler ({' or '.join(known)})"


def _recomputed(
    block: nn.Module, forward: Callable[..., Any], contexts: Callable[[], Any], *inputs: Any
) -> Any:
    """The block's forward pass, to be computed again if gradients are wanted."""
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


def _first_and_second(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the two forward passes of a block."""
    return nullcontext(), _running_means_stay(block)


@contextmanager
def _running_means_stay(block: nn.Module) -> Iterator[None]:
    """Batch normalisation as in training, but for its running means: they have seen the batch."""
    kept = [
        (norm, dict(norm.named_buffers()))
        for norm in block.modules()
        if isinstance(norm, _BatchNorm)
    ]
    for norm, buffers in kept:
        for name, value in buffers.items():
            setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, buffers in kept:
            for name, value in buffers.items():
                setattr(norm, name, value)

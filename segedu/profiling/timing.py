"""Seconds of something that runs on a device, which may go on after the call has returned."""

import statistics
import time
from collections.abc import Callable

import torch


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done all that it was told; a CPU already has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds(action: Callable[[], object], device: torch.device, *, repeats: int = 5) -> float:
    """Median time of `repeats` calls, each waited for, after one call that does not count."""
    action()
    return statistics.median(once(action, device) for _ in range(repeats))


def once(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, from an idle device until it is idle again."""
    synchronize(device)
    start = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - start

"""A function called in several processes of this machine at once, that form a group.

Chapter 21 uses it, and so do tests: it is torchrun in one call, on the CPU, with results.
"""

import pickle
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from segedu.forks import get_ready

T = TypeVar("T")


def run_processes(
    work: Callable[..., T], count: int, *arguments: Any, seconds: float = 120, **named: Any
) -> list[T]:
    """Call `work(*arguments, **named)` in `count` new processes of one thread each; their results.

    They form a group over Gloo, so that `segedu.distributed` and `torch.distributed` work in them.
    The function may be one of a notebook.

    Args:
        work: Is sent with the values it refers to.
        count: Of processes.
        arguments: The same for all.
        seconds: After so many all are ended.
        named: Further arguments.

    Raises:
        TimeoutError: If they have not finished by then.
        ProcessRaisedException: If `work` raises in one of them; its message has the traceback.
    """
    method = get_ready()
    sent = cloudpickle.dumps(partial(work, *arguments, **named))
    with tempfile.TemporaryDirectory() as folder:
        processes = start_processes(  # type: ignore[no-untyped-call]
            _take_part, (sent, count, folder, seconds), count, join=False, start_method=method
        )
        deadline = time.monotonic() + seconds
        while not processes.join(timeout=1):
            if time.monotonic() > deadline:
                for process in processes.processes:
                    process.kill()
                    process.join()
                raise TimeoutError(f"{count} processes have not finished after {seconds:g} s")
        return [pickle.loads(Path(folder, str(i)).read_bytes()) for i in range(count)]


def _take_part(rank: int, sent: bytes, count: int, folder: str, seconds: float) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    work = pickle.loads(sent)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting-place",
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=seconds),
    )
    try:
        dist.barrier()  # who is quick does not leave while others still connect
        result = work()
        Path(folder, str(rank)).write_bytes(cloudpickle.dumps(result))
    finally:
        dist.destroy_process_group()

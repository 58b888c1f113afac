"""The profiler's trace: what ran when, and how much memory there was; chapter 20 opens one."""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from segedu.profiling.timing import synchronize

Event = dict[str, Any]


@dataclass(frozen=True)
class Operator:
    """One kind of operator in a trace.

    Attributes:
        name: As torch has it, such as "aten::mkldnn_convolution".
        calls: How often it ran.
        seconds: Of all calls, without those of other operators within them.
    """

    name: str
    calls: int
    seconds: float


def record_trace(step: Callable[[], object], path: Path, device: torch.device) -> list[Event]:
    """Run `step` under the profiler, write its trace as Chrome's JSON, and return the events.

    https://ui.perfetto.dev opens the file. Times in it are microseconds, sizes bytes.
    """
    profile_step(step, device).export_chrome_trace(str(path))
    events: list[Event] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return events


def profile_step(step: Callable[[], object], device: torch.device) -> profile:
    """Run `step` under torch's profiler, which notes operators, their FLOPs and their memory."""
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with _quiet_stderr(), profile(activities=kinds, profile_memory=True, with_flops=True) as found:
        step()
        synchronize(device)
    return found


def operators(events: Sequence[Event]) -> list[Operator]:
    """What ran on the CPU, longest first: each operator's own time, without what it called."""
    own: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for thread in {event["tid"] for event in _ran(events)}:
        open_ones: list[Event] = []
        mine = (event for event in _ran(events) if event["tid"] == thread)
        for event in sorted(mine, key=lambda event: (event["ts"], -event["dur"])):
            while open_ones and open_ones[-1]["ts"] + open_ones[-1]["dur"] <= event["ts"]:
                open_ones.pop()
            if open_ones:
                own[open_ones[-1]["name"]] -= event["dur"]
            own[event["name"]] += event["dur"]
            calls[event["name"]] += 1
            open_ones.append(event)
    rows = [Operator(name, calls[name], time / 1e6) for name, time in own.items()]
    return sorted(rows, key=lambda row: -row.seconds)


def memory_over_time(events: Sequence[Event]) -> list[tuple[float, int]]:
    """Seconds since the first change, and bytes taken on the CPU since the trace began."""
    changes = sorted(
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event["name"] == "[memory]" and event["args"]["Device Type"] == 0
    )
    taken, curve = 0, []
    for time, change in changes:
        taken += change
        curve.append(((time - changes[0][0]) / 1e6, taken))
    return curve


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Bytes that `step` takes at its peak, over what there was before it.

    On a CUDA GPU its allocator says; on the CPU the profiler's trace; elsewhere nobody, and it is
    what the CPU took.
    """
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with tempfile.TemporaryDirectory() as folder:
        events = record_trace(step, Path(folder) / "trace.json", device)
    return max((taken for _, taken in memory_over_time(events)), default=0)


def _ran(events: Sequence[Event]) -> Iterator[Event]:
    return (event for event in events if event.get("cat") == "cpu_op" and "dur" in event)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """The profiler's C++ writes to stderr when it starts and stops; nobody needs to read it."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

import os

import pytest
import torch

from segedu.profiling.trace import (
    memory_over_time,
    operators,
    peak_bytes,
    profile_step,
    record_trace,
)

CPU = torch.device("cpu")


def event(name, ts, dur, tid=1):
    return {"cat": "cpu_op", "name": name, "ts": ts, "dur": dur, "tid": tid}


def change(ts, size, device=0):
    return {"name": "[memory]", "ts": ts, "args": {"Bytes": size, "Device Type": device}}


def test_an_operators_own_time_is_without_what_it_called():
    events = [
        event("outer", 0, 100),
        event("inner", 10, 30),
        event("innermost", 15, 5),
        event("inner", 50, 20),
        event("next", 100, 7),
        event("outer", 0, 40, tid=2),
        {"name": "something else", "ts": 3, "dur": 1000, "tid": 1},
    ]
    found = {row.name: (row.calls, round(row.seconds * 1e6)) for row in operators(events)}
    assert found == {"outer": (2, 90), "inner": (2, 45), "innermost": (1, 5), "next": (1, 7)}
    assert [row.name for row in operators(events)][:2] == ["outer", "inner"]


def test_memory_is_added_up_in_the_order_of_time():
    events = [
        change(2_000_030, -4),
        change(2_000_010, 10),
        change(2_000_020, 7),
        change(2_000_015, 99, device=1),
    ]
    curve = memory_over_time(events)
    assert [taken for _, taken in curve] == [10, 17, 13]
    assert [round(time * 1e6) for time, _ in curve] == [0, 10, 20]


def test_a_peak_is_of_what_lives_at_once():
    def step():
        first = torch.empty(1000)
        del first
        second = torch.empty(3000)
        del second
        kept.append(torch.empty(500))

    kept = []
    assert peak_bytes(step, CPU) == 4 * 3000
    assert peak_bytes(lambda: None, CPU) == 0


def test_a_trace_has_the_operators_that_ran_and_can_be_opened(tmp_path, capfd):
    path = tmp_path / "trace.json"
    a = torch.rand(8, 8)
    events = record_trace(lambda: a @ a @ a, path, CPU)
    [row] = [row for row in operators(events) if row.name == "aten::mm"]
    assert row.calls == 2
    assert 0 < row.seconds < 1
    assert path.stat().st_size > 0
    assert capfd.readouterr().err == ""
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_the_profiler_counts_flops():
    a = torch.rand(8, 8)
    found = profile_step(lambda: a @ a, CPU).key_averages()
    assert sum(row.flops for row in found) == 2 * 8**3


@pytest.mark.gpu
def test_a_gpus_allocator_says_the_peak():
    torch.empty(1, device="cuda")
    peak = peak_bytes(lambda: torch.empty(1 << 22, device="cuda"), torch.device("cuda"))
    assert 1 << 24 <= peak < 1 << 25


@pytest.mark.gpu
def test_a_gpus_trace_has_its_kernels(tmp_path):
    a = torch.rand(256, 256, device="cuda")
    events = record_trace(lambda: a @ a, tmp_path / "trace.json", torch.device("cuda"))
    assert any(event.get("cat") == "kernel" for event in events)

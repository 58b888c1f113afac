import time

import pytest
import torch

from segedu.profiling.timing import once, seconds, synchronize

CPU = torch.device("cpu")


def test_the_first_call_does_not_count_and_the_median_is_taken(clock):
    pauses = iter([0.2, 0.01, 0.03, 0.1])
    taken = seconds(lambda: clock.sleep(next(pauses)), CPU, repeats=3)
    assert taken == pytest.approx(0.03)


def test_a_call_is_timed_from_start_to_end(clock):
    assert once(lambda: clock.sleep(0.02), CPU) == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_with_a_queue_is_waited_for(monkeypatch, kind):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(device.type))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    synchronize(torch.device(kind))
    once(lambda: waited.append("called"), torch.device(kind))
    assert waited == [kind, kind, "called", kind]


@pytest.mark.gpu
def test_a_gpus_work_is_timed_and_not_its_queueing():
    a = torch.rand(4096, 4096, device="cuda")
    start = time.perf_counter()
    a @ a
    queued = time.perf_counter() - start
    assert seconds(lambda: [a @ a for _ in range(20)], torch.device("cuda")) > queued

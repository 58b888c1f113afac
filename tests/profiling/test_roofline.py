import pytest
import torch
from torch import nn

from segedu.profiling import roofline
from segedu.profiling.roofline import Ceilings, measure_ceilings, time_layers

CPU = torch.device("cpu")
BY_HAND = Ceilings({"float32": 100e9, "bfloat16": 400e9}, 10e9)


def test_the_lower_ceiling_is_what_can_be_had():
    assert BY_HAND.attainable(0.125) == 1.25e9
    assert BY_HAND.attainable(50) == 100e9
    assert BY_HAND.attainable(50, "bfloat16") == 400e9


def test_both_ceilings_meet_at_the_ridge():
    assert BY_HAND.ridge() == 10
    assert BY_HAND.ridge("bfloat16") == 40


def test_flops_and_bytes_are_counted_as_they_are(monkeypatch):
    monkeypatch.setattr(roofline, "once", lambda action, _: action() is None or 0.5)
    monkeypatch.setattr(roofline, "seconds", lambda action, _: action() is None or 0.25)
    monkeypatch.setattr(roofline, "is_quick_in_16_bits", lambda _: True)
    found = measure_ceilings(CPU, side=8, megabytes=2)
    assert found.flops == {"float32": 2 * 8**3 / 0.5, "bfloat16": 2 * 8**3 / 0.5}
    assert found.bandwidth == 2 * (2 << 20) / 0.25


@pytest.mark.parametrize("quick", [True, False])
def test_sixteen_bits_are_measured_where_they_are_quick(monkeypatch, quick):
    monkeypatch.setattr(roofline, "is_quick_in_16_bits", lambda _: quick)
    found = measure_ceilings(CPU, side=64, megabytes=1)
    assert list(found.flops) == ["float32"] + ["bfloat16"] * quick
    assert all(value > 0 for value in (*found.flops.values(), found.bandwidth))


def test_each_layer_is_timed_by_itself_in_the_order_of_the_pass():
    class Slow(nn.Module):
        def forward(self, x):
            for _ in range(200):
                x = x + 1
            return x

    timed = time_layers(nn.Sequential(nn.ReLU(), Slow()), torch.rand(1, 3, 64, 64))
    assert [cost.kind for cost, _ in timed] == ["ReLU", "Slow"]
    assert timed[1][1] > 5 * timed[0][1]


@pytest.mark.gpu
def test_a_gpu_has_ceilings_far_above_a_cpus():
    found = measure_ceilings(torch.device("cuda"))
    assert found.flops["float32"] > 1e12
    assert found.bandwidth > 50e9
    assert max(found.flops.values()) > found.flops["float32"]

import os

import pytest
import torch
from typer.testing import CliRunner

from segedu.cli import app
from segedu.errors import InputError
from segedu.profiling import bench as module
from segedu.profiling.bench import Bench, describe_machine, memory_of
from segedu.profiling.roofline import Ceilings

CPU = torch.device("cpu")
SMALL = {"device": "cpu", "size": 16, "batch": 2, "steps": 3}


@pytest.fixture
def _quick(monkeypatch):
    found = Ceilings({"float32": 1e11, "bfloat16": 2e11}, 1e10)
    monkeypatch.setattr(module, "measure_ceilings", lambda _: found)
    monkeypatch.setattr(
        module, "pictures_per_second", lambda _data, *, workers, **_: 100.0 + workers
    )


@pytest.mark.usefixtures("_quick")
def test_the_command_measures_and_recommends():
    options = ["--device", "cpu", "--size", "16", "--batch", "2", "--steps", "3"]
    result = CliRunner().invoke(app, ["bench", *options])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("cpu: ")
    assert lines[1:4] == [
        "matrix product, float32: 100 GFLOP/s",
        "matrix product, bfloat16: 200 GFLOP/s",
        "copy in memory: 10.0 GB/s",
    ]
    assert sum(line.startswith("plain float32") for line in lines) == 1
    assert "accumulate 2" in result.output
    assert "loader, 0 workers: 100 pictures a second" in lines
    assert any(line.startswith("What limits you is ") for line in lines)
    assert lines[-1].startswith("Use: segedu train --data scenes --model unet --batch-size 2 ")


@pytest.mark.usefixtures("_quick")
def test_what_cannot_be_compiled_is_left_out_in_one_line(monkeypatch):
    for name in ("what_compiling_lacks",):
        monkeypatch.setattr(module, name, lambda _: "there is no C++ compiler (g++)")
        monkeypatch.setattr(
            f"segedu.profiling.levers.{name}", lambda _: "there is no C++ compiler (g++)"
        )
    lines = list(Bench(**SMALL, compiled=True).run())
    assert "torch.compile is left out: there is no C++ compiler (g++)" in lines
    assert not any(line.startswith("the same, compiled") for line in lines)


def test_compiling_is_offered_where_it_works(monkeypatch):
    monkeypatch.setattr(module, "what_compiling_lacks", lambda _: "")
    assert "--compile tries it" in next(module._of_compiling(CPU, wanted=False))
    assert list(module._of_compiling(CPU, wanted=True)) == []


def test_real_sets_are_cut_to_one_size(monkeypatch):
    whole = module.catalog.load("scenes", size=48)
    monkeypatch.setattr(module.catalog, "load", lambda _name: whole)
    pictures = Bench(**SMALL | {"size": 32}, data="camvid").pictures()
    assert {pictures[i]["image"].shape for i in range(4)} == {(3, 32, 32)}


def test_a_set_with_less_than_two_batches_is_refused(monkeypatch):
    monkeypatch.setattr(module.catalog, "load", lambda _name, **_: range(3))
    with pytest.raises(InputError, match="has 3 pictures; expected two batches or more"):
        Bench(**SMALL).pictures()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": 8}, "size is 8; expected 16 or more"),
        ({"batch": 1}, "batch is 1; expected 2 or more"),
        ({"steps": 2}, "steps is 2; expected 3 or more"),
        ({"model": "maskrcnn"}, "finds objects"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, told):
    with pytest.raises(InputError, match=told):
        Bench(**SMALL | change)


def test_the_flops_are_a_whole_steps_and_the_costs_the_models():
    found = Bench(**SMALL).findings(CPU, Ceilings({}, 1), [], {}, 6)
    forward = sum(cost.flops for cost in found.costs if cost.kind == "Conv2d")
    assert 2.9 < found.flops / forward < 3
    assert found.on_cpu


def test_the_memory_of_a_cpu_is_the_machines(monkeypatch):
    assert memory_of(CPU) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def fails(_name):
        raise ValueError

    monkeypatch.setattr(os, "sysconf", fails)
    assert memory_of(CPU) == 0


def test_the_machine_is_named(monkeypatch):
    assert torch.__version__ in describe_machine(CPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: type("P", (), {"total_memory": 7})
    )
    assert describe_machine(torch.device("cuda")).startswith("cuda: a GPU; ")
    assert memory_of(torch.device("cuda")) == 7


@pytest.mark.gpu
@pytest.mark.slow
def test_a_gpu_is_measured_whole():
    lines = list(Bench(device="cuda", compiled=True).run())
    assert lines[-1].startswith("\nUse: ")

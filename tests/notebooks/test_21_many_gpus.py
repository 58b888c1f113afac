"""Chapter 21's functions against the package and torch; the launch files against the launchers."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from taught import taught
from torch.distributed.run import get_args_parser
from typer.main import get_command

from segedu import distributed
from segedu.cli import app
from segedu.models.sync_norm import SyncBatchNorm
from segedu.parts import own_part
from segedu.processes import run_processes

LAUNCH = Path(__file__).parents[2] / "course" / "launch"


@pytest.fixture(scope="module")
def chapter():
    return taught("21_many_gpus", also={"seed"})


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_chapters_ring_is_a_sum_for_all(chapter, n):
    vectors = [torch.rand(15) for _ in range(n)]
    after, sent = chapter.ring(vectors)
    for own in after:
        assert torch.allclose(own, sum(vectors))
    assert sent == pytest.approx(2 * (n - 1) / n * 15, abs=2 * n)


def test_half_way_round_the_ring_each_has_one_whole_chunk(chapter):
    table = torch.stack(chapter.ring([torch.ones(4)] * 4, 3)[0])
    assert (table == 4).sum(1).tolist() == [1] * 4


def test_the_chapters_time_is_that_of_the_rings_bytes(chapter):
    assert chapter.ring_seconds(4, 80, 0.0, 10.0) == pytest.approx(12.0)
    assert chapter.ring_seconds(4, 0, 2.0, 1.0) == 12.0
    assert chapter.step_seconds(1) == chapter.step_seconds(1, overlap=True) == 0.2


def compared(own, added, normalised):
    """The chapter's functions beside the package's, in each of two processes."""
    whole = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    part = own(whole)
    rows = torch.equal(part, whole[own_part(list(range(5)))])
    results = []
    for norm in (normalised, SyncBatchNorm(3)):
        x = part.clone().requires_grad_()
        y = norm(x)
        (y**3).sum().backward()
        results.append((y, x.grad))
    sums = []
    for add in (added, distributed.summed):
        x = torch.full((2,), float(dist.get_rank()), requires_grad=True)
        add(x).square().sum().backward()
        sums.append(x.grad)
    return rows, results, sums


def test_the_chapters_parts_sums_and_normalisation_are_the_packages(chapter):
    for rows, results, sums in run_processes(
        compared, 2, chapter.own, chapter.Added.apply, chapter.normalised
    ):
        assert rows
        for mine, theirs in zip(*results, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-4)
        assert torch.equal(*sums)
        assert sums[0].tolist() == [4.0, 4.0]  # both processes' 2 x (0 + 1)


def test_the_chapters_weighted_gradient_is_the_batchs(chapter):
    torch.manual_seed(0)
    images, masks = torch.rand(5, 3, 6, 6), torch.randint(0, 6, (5, 6, 6))
    masks[0, 1:] = chapter.IGNORE
    for name, value in {"images": images, "masks": masks}.items():
        chapter.gradient_in_parts.__globals__[name] = value
    net = chapter.plain()
    F.cross_entropy(net(images), masks, ignore_index=chapter.IGNORE).backward()
    for mine in run_processes(chapter.gradient_in_parts, 3, weighted=True):
        assert torch.allclose(mine, chapter.gradient(net), atol=1e-6)


def understood(arguments):
    """What torchrun and then `segedu train` read from a command line."""
    seen = get_args_parser().parse_args(arguments)
    assert seen.module
    assert seen.training_script == "segedu"
    name, *rest = seen.training_script_args
    command = get_command(app).commands[name]
    return seen, command.make_context(name, [*rest]).params


def test_the_launch_file_for_kubernetes_is_understood():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][0] == "torchrun"
    seen, settings = understood(container["command"][1:])
    machines, gpus = job["spec"]["completions"], container["resources"]["limits"]["nvidia.com/gpu"]
    assert int(seen.nnodes) == machines == job["spec"]["parallelism"]
    assert int(seen.nproc_per_node) == gpus
    assert settings["batch_size"] == 8 * machines * gpus
    names = service["metadata"]["name"], job["metadata"]["name"]
    assert seen.rdzv_endpoint == f"{names[1]}-0.{names[0]}:29500"
    assert pod["subdomain"] == names[0]
    assert service["spec"]["selector"] == {"job-name": names[1]}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(str(settings["checkpoint"]).startswith(f"{mount}/") for mount in mounts)
    assert [m["name"] for m in container["volumeMounts"]] == [v["name"] for v in pod["volumes"]]


def test_the_launch_file_for_slurm_starts_what_is_understood(tmp_path):
    """Run with stand-ins for SLURM's commands: one says the machines, one what it was given."""
    commands = {"scontrol": "printf 'first\\nsecond\\n'", "srun": 'printf "%s\\n" "$@"'}
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sh")],
        env={**os.environ, **job, "SEGEDU_DATA": "/shared/data", "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said[1] == "torchrun"
    seen, settings = understood(said[2:])
    assert (seen.nnodes, seen.rdzv_endpoint, seen.rdzv_id) == ("2", "first:29500", "7")
    assert settings["batch_size"] == 8 * 2 * int(seen.nproc_per_node)
    assert settings["checkpoint"] == Path("runs/7.pt")
    assert settings["log"] == "tensorboard"

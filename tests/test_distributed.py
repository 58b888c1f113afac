"""Two processes against one: what they learn, what they count, and what they keep."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import islice

import psutil
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from torch.utils.data import Subset

from segedu import checkpoints, distributed
from segedu.checkpoints import load_checkpoint
from segedu.config import TrainConfig
from segedu.data.scenes import CLASSES, Scenes
from segedu.data.transforms import random_crop
from segedu.detect import fit_objects, score_objects
from segedu.errors import InputError
from segedu.losses import lovasz_loss
from segedu.models.mask_rcnn.model import maskrcnn_trunk
from segedu.models.sync_norm import SyncBatchNorm, synchronise
from segedu.models.unet import UNet
from segedu.parts import own_part
from segedu.plans import prepare
from segedu.processes import run_processes
from segedu.train import evaluate, fit

CONFIG = TrainConfig(epochs=5, batch_size=6, learning_rate=3e-3, device="cpu", amp=False)


def drawn(count, seed, size=24):
    scenes = Scenes(count, size=size, seed=seed)
    return Subset([scenes[i] for i in range(count)], range(count))


TRAIN, VAL = drawn(19, 1), drawn(7, 2)  # 4 batches, the last of one picture


@pytest.fixture
def group_of_one():
    """This process alone in a group: all that several do, done by one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def plain():
    """A network without batch normalisation."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, len(CLASSES), 1))


def unet():
    return UNet(len(CLASSES), widths=(4, 8))


def learn(network, config=CONFIG, *, stop=None, **options):
    """Weights and epochs after training; the first weights hang on the process's number."""
    torch.manual_seed(distributed.rank())
    model = network()
    steps = fit(model, TRAIN, VAL, num_classes=len(CLASSES), config=config, **options)
    epochs = list(islice(steps, stop))
    return {k: v.detach().clone() for k, v in model.state_dict().items()}, epochs


def apart(some, others):
    """The largest difference between weights of the same names."""
    assert list(some) == list(others)
    return max((some[k].double() - others[k].double()).abs().max().item() for k in some)


CASES = {
    "no batch normalisation": (plain, CONFIG, {}, 1e-5),
    "synchronised batch normalisation": (unet, CONFIG, {}, 1e-4),
    "a loss that is no mean over pixels": (plain, CONFIG, {"loss": lovasz_loss}, 1e-5),
    "augmented": (plain, CONFIG, {"augment": random_crop(16, 16, colour=0.2)}, 1e-5),
    "in parts": (plain, replace(CONFIG, accumulate=2), {}, 1e-5),
    "recomputed": (unet, replace(CONFIG, recompute=True), {}, 1e-4),
}


THREE = ["no batch normalisation", "synchronised batch normalisation", "in parts"]


@pytest.mark.parametrize(("name", "count"), [*((n, 2) for n in CASES), *((n, 3) for n in THREE)])
def test_processes_learn_what_one_learns_with_the_same_batch(name, count):
    network, config, options, most = CASES[name]
    alone, epochs = learn(network, config, **options)
    together = run_processes(learn, count, network, config, **options)
    for weights, same in together:
        assert apart(weights, alone) <= most
        assert apart(weights, together[0][0]) == 0
        assert same == together[0][1]
    for mine, theirs in zip(together[0][1], epochs, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert mine.learning_rate == theirs.learning_rate


def test_a_group_of_one_learns_what_a_process_without_a_group_learns(group_of_one):
    together = learn(unet)[0]
    dist.destroy_process_group()
    alone = learn(unet)[0]
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert 0 < apart(together, alone) <= 1e-4  # batch normalisation rounds otherwise


def normalised(batch, *, absent=False, **options):
    """What a normalisation of this process's part gives, and all that moves back from it."""
    norm = SyncBatchNorm(3, **options).double()
    own = batch[own_part(list(range(len(batch))))].clone().requires_grad_()
    with distributed.absent_if(absent and not len(own)):
        seen = own if len(own) else batch[:1].clone().requires_grad_()
        y = norm(seen)
        ((y**3).sum() * (len(own) > 0)).backward()
    distributed.add_up_gradients(norm)
    gradient = seen.grad if len(own) else own
    grads = [weight.grad for weight in norm.parameters()]
    return y[: len(own)].detach(), gradient.detach(), norm.state_dict(), grads


@pytest.mark.parametrize(("images", "absent"), [(5, False), (4, False), (1, True)])
@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}]
)
def test_synchronised_normalisation_is_that_of_the_whole_batch(images, absent, options):
    torch.manual_seed(1)
    batch = torch.randn(images, 3, 4, 5, dtype=torch.float64) + 7
    parts = run_processes(normalised, 2, batch, absent=absent, **options)
    norm, whole = nn.BatchNorm2d(3, **options).double(), batch.clone().requires_grad_()
    y = norm(whole)
    (y**3).sum().backward()
    assert torch.allclose(torch.cat([part[0] for part in parts]), y, atol=1e-10)
    assert torch.allclose(torch.cat([part[1] for part in parts]), whole.grad, atol=1e-10)
    for *_, state, grads in parts:
        for name, value in norm.state_dict().items():
            assert torch.allclose(state[name], value), name
        for weight, grad in zip(norm.parameters(), grads, strict=True):
            assert torch.allclose(weight.grad, grad, atol=1e-10)


def test_the_gradient_of_synchronised_normalisation_is_right(group_of_one):
    norm = SyncBatchNorm(2).double()
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: norm(x), (x, norm.weight, norm.bias))
    assert torch.allclose(norm(x), nn.BatchNorm2d(2).double()(x))


def test_evaluation_needs_no_other_process(group_of_one):
    norm, x = SyncBatchNorm(3), torch.rand(2, 3, 4, 4)
    norm(x)
    expected = nn.functional.batch_norm(x, norm.running_mean, norm.running_var)
    assert torch.equal(norm.eval()(x), expected)


def test_averages_that_are_not_tracked_any_more_stay(group_of_one):
    norm = SyncBatchNorm(3)
    norm(torch.rand(2, 3, 4, 4))
    before = {name: value.clone() for name, value in norm.named_buffers()}
    norm.track_running_stats = False
    norm(torch.rand(2, 3, 4, 4))
    assert all(value.equal(before[name]) for name, value in norm.named_buffers())


def test_synchronising_keeps_the_very_weights():
    model = UNet(6, widths=(4, 8))
    before, state = dict(model.named_parameters()), {**model.state_dict()}
    synchronise(model.eval())
    assert all(value is before[name] for name, value in model.named_parameters())
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(type(norm) is SyncBatchNorm and not norm.training for norm in norms)


def collected(values):
    """A part of `values` gathered, and the gradient of a sum of squares that all compute."""
    part = own_part(list(range(len(values))))
    own = values[part].requires_grad_()
    with distributed.absent_if(not part):
        seen = own if part else values[:1].requires_grad_()
        whole = distributed.gathered(seen)
        (whole**2).sum().backward()
        counted = distributed.gathered(
            torch.arange(len(values))[part] if part else torch.zeros(1).long()
        )
    return whole.detach(), seen.grad, counted


@pytest.mark.parametrize("length", [1, 4, 5])
def test_what_is_gathered_is_whole_and_sends_back_the_gradients_of_all(length):
    values = torch.arange(2.0 * length).view(length, 2) + 1
    parts = run_processes(collected, 3, values)
    for whole, _, counted in parts:
        assert torch.equal(whole, values)
        assert torch.equal(counted, torch.arange(length))
    present = [
        grad
        for rank, (_, grad, _) in enumerate(parts)
        if length * (rank + 1) // 3 > length * rank // 3
    ]
    assert torch.equal(torch.cat(present), 3 * 2 * values)  # three processes add theirs up


def scored(sizes):
    torch.manual_seed(0)
    model = plain()
    return [
        evaluate(
            model, drawn(n, 3), num_classes=len(CLASSES), config=replace(CONFIG, batch_size=b)
        ).counts
        for n, b in sizes
    ]


def test_scores_are_the_same_for_sets_that_do_not_divide():
    sizes = [(1, 4), (2, 1), (3, 4), (5, 2), (7, 4), (7, 16)]
    alone = scored(sizes)
    for counts in run_processes(scored, 3, sizes):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(counts, alone, strict=True))


def find_objects(path=None):
    """Train for one epoch and score: weights and numbers."""
    torch.manual_seed(0)
    model = maskrcnn_trunk(len(CLASSES), operators="quick")
    config = TrainConfig(epochs=1, batch_size=2, learning_rate=1e-3, device="cpu", amp=False)
    untrained = score_objects(model, drawn(5, 4, size=64), config=config)
    list(fit_objects(model, drawn(3, 5, size=64), drawn(1, 6, size=64), config=config))
    return untrained, model.state_dict()


def test_objects_are_found_by_several_processes_too():
    alone, _ = find_objects()
    (mine, weights), (theirs, same) = run_processes(find_objects, 2)
    assert alone.summary() == mine.summary() == theirs.summary()
    assert len(alone._pictures) == len(mine._pictures) == 5
    for one, other in zip(alone._pictures, mine._pictures, strict=True):
        assert (one.labels == other.labels).all()
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
    assert apart(weights, same) == 0


def test_a_run_of_two_goes_on_in_one_and_the_other_way_round(tmp_path):
    def run(count, **options):
        options["checkpoint"] = tmp_path / "run.pt"
        return (
            learn(plain, **options) if count == 1 else run_processes(learn, 2, plain, **options)[0]
        )

    whole, _ = learn(plain)
    for first, then in ((2, 1), (1, 2)):
        run(first, stop=2)
        weights, epochs = run(then)
        assert [epoch.number for epoch in epochs] == [2, 3, 4]
        assert apart(weights, whole) <= 1e-5
        kept = load_checkpoint(tmp_path / "run.pt")
        assert list(kept["model"]) == list(kept["best"]) == list(whole)
        (tmp_path / "run.pt").unlink()


@dataclass
class Mortal:
    """An augmentation that changes nothing, and kills its process for good."""

    ranks: tuple[int, ...]
    samples: int

    def __call__(self, sample):
        self.samples -= 1
        if not self.samples and distributed.rank() in self.ranks:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample


def dies_writing(checkpoint):
    """Train; the first process is killed in the middle of writing its third checkpoint."""
    save, written = checkpoints.torch.save, []

    def half(state, path):
        save(state, path)
        written.append(path)
        if len(written) == 3:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.torch.save = half
    return learn(unet, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def never_killed():
    """Weights and epochs of two processes that nobody killed."""
    return run_processes(learn, 2, unet)[0]


@pytest.mark.parametrize("ranks", [(0,), (1,), (0, 1)], ids=["the first", "the second", "all"])
def test_killed_processes_go_on_to_the_weights_of_a_run_that_was_not(tmp_path, ranks, never_killed):
    path, mortal = tmp_path / "run.pt", Mortal(ranks, samples=25)  # 9 or 10 in an epoch
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        run_processes(learn, 2, unet, checkpoint=path, augment=mortal)
    assert len(load_checkpoint(path)["history"]) == 2
    weights, epochs = run_processes(learn, 2, unet, checkpoint=path)[0]
    whole, all_epochs = never_killed
    assert epochs == all_epochs[2:]
    assert apart(weights, whole) == 0


def test_a_run_killed_while_it_writes_loses_one_epoch(tmp_path, never_killed):
    path = tmp_path / "run.pt"
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        run_processes(dies_writing, 2, path)
    assert len(load_checkpoint(path)["history"]) == 2
    weights, epochs = run_processes(learn, 2, unet, checkpoint=path)[0]
    assert [epoch.number for epoch in epochs] == [2, 3, 4]
    assert apart(weights, never_killed[0]) == 0


def pictures(folder):
    """Pictures of a reader's own: six, small, with two classes."""
    torch.manual_seed(0)
    for part, shape in (("images", (20, 24, 3)), ("masks", (20, 24))):
        (folder / part).mkdir()
        for i in range(6):
            values = torch.randint(0, 256 if part == "images" else 2, shape).byte()
            Image.fromarray(values.numpy()).save(folder / part / f"{i}.png")
    return folder


EPOCHS = 12  # enough for a busy machine to kill a process among them
FLAGS = ["--epochs", f"{EPOCHS}", "--batch-size", "3", "--device", "cpu", "--log-to", "tensorboard"]


def by_the_plan(folder, path):
    """What `segedu train` does, without the command."""
    settings = {"epochs": EPOCHS, "batch_size": 3, "device": "cpu"}
    return list(prepare(str(folder), "unet", settings).train(path))


def test_torchrun_trains_with_the_same_flags_and_restarts_what_was_killed(tmp_path):
    folder, path = pictures(tmp_path), tmp_path / "run.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    train = ["-m", "segedu", "train", "--data", str(folder), "--checkpoint", str(path), *FLAGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "said.txt"
    with log.open("w") as out:
        launcher = subprocess.Popen(
            [*launch, "--max-restarts=1", *train], stdout=out, env=environment
        )
        deadline = time.monotonic() + 120
        while "epoch" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        workers = psutil.Process(launcher.pid).children()
        max(workers, key=lambda worker: int(worker.environ()["RANK"])).kill()
        assert launcher.wait(timeout=120) == 0
    said = log.read_text().splitlines()
    epochs = [line.split("  ")[0] for line in said if line.startswith("epoch")]
    assert epochs == [f"epoch {n}/{EPOCHS}" for n in range(1, EPOCHS + 1)]  # by one, once
    assert said[-1].endswith(f"checkpoint: {path}")
    run_processes(by_the_plan, 2, folder, tmp_path / "whole.pt")
    killed, whole = load_checkpoint(path), load_checkpoint(tmp_path / "whole.pt")
    assert apart(killed["model"], whole["model"]) == 0
    assert killed["history"] == whole["history"]
    assert killed.keys() == whole.keys()
    assert len(list((tmp_path / "run-log").iterdir())) == 2  # one for each start


def launched(monkeypatch, **environment):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        **environment,
    }.items():
        monkeypatch.setenv(name, value)


def test_a_process_of_torchrun_joins_the_group_for_a_while(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched(monkeypatch, MASTER_PORT=str(port))
    with distributed.joined("cpu"):
        assert distributed.in_group()
        assert (distributed.rank(), distributed.size()) == (0, 1)
        distributed.barrier()
    assert not distributed.in_group()


def test_without_torchrun_there_is_no_group():
    with distributed.joined("cpu"):
        assert not distributed.in_group()
        assert (distributed.rank(), distributed.size(), distributed.is_first()) == (0, 1, True)


@pytest.mark.parametrize(
    ("kind", "named"),
    [("mps", "several processes need cuda or cpu"), ("cuda", "has no GPU of its own: there are 2")],
)
def test_processes_without_a_device_are_refused(monkeypatch, kind, named):
    launched(monkeypatch, LOCAL_RANK="2")
    monkeypatch.setattr(distributed, "pick_device", lambda _name: torch.device(kind))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=named), distributed.joined():
        pass


def sees(folder):
    """Only the first process has the file."""
    there = folder / f"{distributed.rank()}.pt"
    return (
        distributed.all_see(folder / "0.pt"),
        not distributed.all_see(folder / "none.pt"),
        distributed.all_see(there),
    )


def test_a_file_that_some_processes_do_not_see_is_refused(tmp_path):
    (tmp_path / "0.pt").touch()
    with pytest.raises(ProcessRaisedException, match="1 of 2 processes see this file"):
        run_processes(sees, 2, tmp_path)
    (tmp_path / "1.pt").touch()
    assert run_processes(sees, 2, tmp_path) == [(True, True, True)] * 2


def test_gradients_are_added_up_in_buckets(monkeypatch, group_of_one):
    monkeypatch.setattr(distributed, "BUCKET", 10)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2).double()
    ).requires_grad_()
    model[0].weight.requires_grad_(False)  # noqa: FBT003
    for n, weight in enumerate(model.parameters()):
        weight.grad = torch.full_like(weight, n) if n != 2 else None
    lengths = [
        [g.numel() for g in bucket]
        for bucket in distributed._buckets([torch.zeros(n) for n in (4, 20, 5, 2, 10)])
    ]
    assert lengths == [[10], [2, 5, 20], [4]]
    distributed.add_up_gradients(model)
    values = [weight.grad.unique().tolist() for weight in model.parameters()]
    assert values == [[0.0], [1.0], [0.0], [3.0], [4.0], [5.0]]


def own_number(_seconds=0):
    time.sleep(_seconds)
    return distributed.rank(), torch.get_num_threads(), distributed.size()


def test_processes_give_their_results_in_order():
    assert run_processes(own_number, 3) == [(0, 1, 3), (1, 1, 3), (2, 1, 3)]
    local = 5
    assert run_processes(lambda: local * distributed.rank(), 2) == [0, 5]


def test_processes_that_do_not_finish_are_ended():
    with pytest.raises(TimeoutError, match="2 processes have not finished after 2 s"):
        run_processes(own_number, 2, 60, seconds=2)


@pytest.mark.gpu
def test_two_gpus_learn_what_one_learns(tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    flags = ["--data", "scenes", "--epochs", "1", "--no-amp", "--device", "cuda"]
    for count in (1, 2):
        train = ["-m", "segedu", "train", *flags, "--checkpoint", str(tmp_path / f"{count}.pt")]
        subprocess.run([*launch, f"--nproc-per-node={count}", *train], check=True, timeout=600)
    one, two = (load_checkpoint(tmp_path / f"{count}.pt")["history"][0] for count in (1, 2))
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-2)
    assert two["val_score"] == pytest.approx(one["val_score"], abs=0.05)

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How do many devices train one model?
#
# A run that takes a month on one device takes a day on thirty, if they can be made to work on one model. They can, and the idea is one line: the gradient of a batch is a mean over its pictures, and a mean can be taken in parts. The care lies in what is *not* such a mean: the loss where pixels are unlabelled, batch normalisation, the score, the random numbers. Each of them goes wrong without a word.
# This chapter makes two processes do exactly what one does, kills one of them, and then plans a cluster with a cost model that it fits to its own measurements.
#
# **You will be able to**
#
# - derive data parallel (数据并行) training, and say when the mean of the parts is the mean of the whole, and when not;
# - synchronise batch normalisation (同步批归一化) over processes, with its gradient;
# - score a set that does not divide, exactly;
# - start a run with `torchrun`, kill it, and lose at most one epoch;
# - say what sharding (分片) saves and costs, and what 8, 64 and 512 devices change.
#
# *40 minutes. Before: [training](11_training.ipynb), [metrics](08_metrics.ipynb), [GPU training](20_gpu_training.ipynb).*
#
# The stored outputs come from two cores of a CPU, where processes talk over Gloo. On GPUs the same code talks over NCCL; no GPU was at hand, and tests marked `gpu` wait for one.

# %% tags=["parameters"]
seed = 0
image_size = 32  # height and width of a scene
batch_size = 8  # of all processes together
epochs = 10  # of the trainings that are compared, of two steps each
torchrun_epochs = 3  # of the run that is killed; 0 leaves it out
widths = [16, 32, 64]  # channels of the U-Net whose memory is sharded
process_counts = [1, 2, 3]  # of the measurements
timed_steps = 12
message_sizes = [1_000, 10_000, 100_000, 1_000_000, 4_000_000]  # numbers in an all-reduce

# %%
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from segedu.forks import get_ready

started = get_ready()  # what new processes need is loaded while you read on

# %%
import psutil
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException

# %%
from segedu import distributed, runs, show
from segedu.check import check, check_at_least, check_at_most
from segedu.checkpoints import load_checkpoint
from segedu.config import TrainConfig
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.exercises import Exercise
from segedu.losses import dice_loss

# %%
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.sync_norm import SyncBatchNorm
from segedu.models.unet import UNet
from segedu.palette import class_colours
from segedu.plans import prepare
from segedu.processes import run_processes
from segedu.train import fit

colours = class_colours(8) / 255
work = Path(tempfile.mkdtemp())  # checkpoints of this chapter

# %% [markdown]
# ## 1. Two processes
#
# Each device is driven by a **process** (进程) of its own: a program with its own memory, that sees nothing of the others. All run the same code. What tells them apart is a number, the **rank** (序号), from 0 to $n - 1$; together they form a **group** (进程组) of size $n$. `run_processes(f, n)` calls a function of this notebook in $n$ new processes, and gives the list of their results.


# %%
def who_is_there():
    return dist.get_rank(), dist.get_world_size()


check("three processes, three ranks", run_processes(who_is_there, 3), [(0, 3), (1, 3), (2, 3)])

# %% [markdown]
# They talk in **collectives** (集合通信): operations that all of them must call. The one that matters here is **all-reduce** (全归约): each gives a tensor, and each gets the sum of all. **Predict:** rank $r$ gives the numbers $(r, 10 r)$. What do three processes get?


# %%
def total(values):
    """The sum of what all processes give."""
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed


def numbers():
    rank = dist.get_rank()
    return total(torch.tensor([rank, 10 * rank]))


check("each gets the sum", torch.stack(run_processes(numbers, 3)), torch.tensor([[3, 30]] * 3))

# %% [markdown]
# How can it be done quickly? If all send to rank 0, which adds up and sends back, rank 0 must receive $(n - 1)$ times the whole tensor: the more devices, the slower. The **ring** (环形全归约) is better. Cut the tensor into $n$ chunks. In each step, each process passes *one chunk* to its neighbour on the right. In the first $n - 1$ steps the receiver adds what comes to its own; after them each process has one chunk that is complete. In the next $n - 1$ steps
# the complete chunks go round, and replace.
#
# Each process sends $2(n - 1)$ chunks of $1/n$ of the tensor: of $S$ bytes,
#
# $$\text{bytes sent} = 2\,\frac{n - 1}{n}\, S,$$
#
# which is less than $2S$ *however many there are*. No algorithm needs fewer (Patarasuk and Yuan 2009).


# %%
def ring(vectors, steps=None):
    """All-reduce in a ring: each process's vector after so many steps, and the numbers each sent."""
    n, sent = len(vectors), 0
    chunks = [list(vector.chunk(n)) for vector in vectors]
    for step in range(2 * (n - 1) if steps is None else steps):
        moving = [chunks[r][(r - step) % n] for r in range(n)]
        for r, chunk in enumerate(moving):
            right, place = (r + 1) % n, (r - step) % n
            old = chunks[right][place] if step < n - 1 else 0
            chunks[right][place] = old + chunk
        sent += len(moving[0])
    return [torch.cat(own) for own in chunks], sent


# %%
four = [torch.rand(12, generator=torch.Generator().manual_seed(i)) for i in range(4)]
after, sent = ring(four)
check("all four have the sum", torch.stack(after), sum(four).expand(4, 12), tol=1e-6)
check("numbers each has sent: 2 x 3/4 x 12", sent, 18)

# %% [markdown]
# To watch it, give every process ones. Then each number says how many processes are in it.

# %% alt="Three tables of four processes by four chunks. At first all are 1. After three steps each row has one 4, on a diagonal, and 1, 2 and 3 beside it. After six steps all are 4."
fig, axes = show.grid(1, 3, "How many processes' numbers are in each chunk", width=2.4)
for ax, steps in zip(axes, (0, 3, 6), strict=True):
    table = torch.stack(ring([torch.ones(4)] * 4, steps)[0])
    show.numbers(ax, table, f"after {steps} steps", form=".0f")
    ax.set(xlabel="chunk", ylabel="process")
check("after six, all of all", table, torch.full((4, 4), 4.0))

# %% [markdown]
# ## 2. The gradient in parts
#
# Let a batch have $N$ labelled pixels, and pixel $i$ the loss $\ell_i(\theta)$. The batch's loss is their mean. Deal the pictures out to $n$ processes, so that process $r$ has $N_r$ labelled pixels, whose mean loss is $L_r$. A sum can be taken in any order:
#
# $$L = \frac1N \sum_i \ell_i = \sum_r \frac{N_r}{N}\, L_r, \qquad \nabla L = \sum_r \frac{N_r}{N}\, \nabla L_r.$$
#
# So each process computes the gradient of its own part, times $N_r / N$, and one all-reduce gives all of them the gradient of the whole batch. They take the same step, and stay equal. **If all parts have as many labelled pixels, $N_r/N = 1/n$, and it is the plain mean of the gradients.** Libraries take the plain mean always.
#
# By hand: two processes, six pixels of which four are labelled, with losses $1, 2, 3$ in the first and $6$ in the second. The batch's loss is $12/4 = 3$. The means of the parts are 2 and 6. **Predict** their plain mean, and their mean with weights $\frac34$ and $\frac14$.

# %%
parts = [torch.tensor([1.0, 2, 3]), torch.tensor([6.0])]
check("the batch's loss", torch.cat(parts).mean(), 3.0)
check("the plain mean of the parts", sum(part.mean() for part in parts) / 2, 4.0)
check("weighted", sum(len(part) / 4 * part.mean() for part in parts), 3.0)

# %% [markdown]
# A pixel alone in its part counted three times as much as one of the others. Now with a network, in two processes. Half of the labels of the first four pictures are taken away, as in a set where some pictures are half annotated.


# %%
def drawn(count, seed):
    """Samples of scenes in a list."""
    scenes = Scenes(count, size=image_size, seed=seed)
    return [scenes[i] for i in range(count)]


scenes, held_out = drawn(16, 2 * seed), drawn(5, 2 * seed + 1)
images, masks = (
    torch.stack([sample[key].as_subclass(torch.Tensor) for sample in scenes[:8]])
    for key in ("image", "mask")
)
masks[:4, :, image_size // 2 :] = IGNORE


# %%
def plain():
    """A network without batch normalisation, its first weights decided by the seed."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, len(CLASSES), 1))


def own(batch):
    """This process's part of a batch: consecutive, and as many as the others have, or one less."""
    rank, size = dist.get_rank(), dist.get_world_size()
    return batch[len(batch) * rank // size : len(batch) * (rank + 1) // size]


def mean_loss(net, images, masks, loss=F.cross_entropy):
    return loss(net(images), masks, ignore_index=IGNORE)


# %%
def gradient_in_parts(*, weighted):
    """The gradient that all processes end up with, as one vector."""
    net, mask = plain(), own(masks)
    loss = mean_loss(net, own(images), mask)
    labelled = (mask != IGNORE).sum()
    share = labelled / total(labelled) if weighted else 1 / dist.get_world_size()
    (share * loss).backward()
    return torch.cat([total(weight.grad).flatten() for weight in net.parameters()])


def gradient(net):
    return torch.cat([weight.grad.flatten() for weight in net.parameters()])


# %% tags=["nbval-ignore-output"]
net = plain()
mean_loss(net, images, masks).backward()
whole = gradient(net)
for weighted in (False, True):
    first, second = run_processes(gradient_in_parts, 2, weighted=weighted)
    check("both processes have the same", first, second)
    off = ((first - whole).norm() / whole.norm()).item()
    print(f"{'weighted' if weighted else 'plain mean'}: off by {off:.1e} of the gradient's length")
    if weighted:
        check_at_most("weighted by labelled pixels", off, 1e-5)
    else:
        check_at_least("plain mean", off, 0.01)

# %% [markdown]
# torch's `DistributedDataParallel` (Li et al. 2020) wraps a network so that `backward` does the all-reduce by itself, and begins with the last layers while the first are still being computed. It takes the plain mean. It is right where every part has as many labelled pixels, and otherwise it is the gradient of another loss.


# %%
def gradient_of_ddp():
    net = nn.parallel.DistributedDataParallel(plain())
    mean_loss(net, own(images), own(masks)).backward()
    return gradient(net)


ddp = run_processes(gradient_of_ddp, 2)[0]
check("DDP's gradient is the plain mean", ddp, run_processes(gradient_in_parts, 2, weighted=False)[0], tol=1e-6)  # fmt: skip

# %% [markdown]
# Some losses are no mean over pixels at all. Dice divides one sum over the batch by another ([chapter 7](07_overlap_losses.ipynb)), and Lovász sorts all pixels. No weights can put the whole's value together from the parts' values:

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    logits = 8 * plain()(images)
    of_parts = [dice_loss(logits[i : i + 4], masks[i : i + 4]) for i in (0, 4)]
    off = (sum(of_parts) / 2 - dice_loss(logits, masks)).abs()
print(f"Dice: parts {of_parts[0]:.4f} and {of_parts[1]:.4f}, whole {dice_loss(logits, masks):.4f}")
check_at_least("the mean of the parts is off by", off, 1e-4)

# %% [markdown]
# For these `segedu.train.fit` gathers the logits (at $B \times C \times H \times W$ numbers dearer than a gradient is, and so for a handful of devices), computes the loss of the whole batch in each process, and sends each its part of the gradient. In all, `fit` in a group of processes does what it does in one: `batch_size` is the *whole* batch, in the order that one process would see, and each takes its part.
#
# ## 3. Batch normalisation over processes
#
# Batch normalisation takes mean and variance over the batch ([chapter 11](11_training.ipynb)). A process knows only its part. By hand: a channel with the values $1, 3$ in one process and $5, 7$ in the other. Each by itself has variance 1, and becomes $-1, 1$ in *both*. The difference between the two parts is gone. Over all four the mean is 4 and the variance 5.
#
# So let them add up what the mean needs, then what the variance needs. With $M$ values in all processes, and $\sum$ over this process's values:
#
# $$\mu = \frac1M\, \text{all-reduce}\Big(\sum x\Big), \qquad \sigma^2 = \frac1M\, \text{all-reduce}\Big(\sum (x - \mu)^2\Big).$$
#
# (The mean of squares less the square of the mean would need one all-reduce, and loses digits.) **And the gradient?** A value $x$ in this process moves $\mu$, and with it the outputs in *all* processes. The sum $s = \sum_r s_r$ is the same for all, so what comes back to $s_r$ is the gradient of every process's loss in $s$, added up: **the backward of an all-reduce is an all-reduce.**


# %%
class Added(torch.autograd.Function):
    """The sum of what all processes give, with its gradient."""

    @staticmethod
    def forward(_ctx, values):
        return total(values)

    @staticmethod
    def backward(_ctx, gradient):
        return total(gradient)


# %%
def normalised(x, eps=1e-5):
    """Each channel of x (B, C, H, W) with mean 0 and variance 1 over all processes."""
    count = total(torch.tensor(x[:, 0].numel(), dtype=x.dtype))
    mean = Added.apply(x.sum((0, 2, 3))) / count
    x = x - mean[:, None, None]
    variance = Added.apply(x.square().sum((0, 2, 3))) / count
    return x * (variance + eps).rsqrt()[:, None, None]


# %% [markdown]
# The check: two processes with two and three pictures against `F.batch_norm` on all five, in 64 bits, forwards and backwards. The loss $\sum y^3$ has a gradient that does flow through mean and variance.


# %%
def forth_and_back(x, *, with_sums=True):
    """This process's outputs, and the gradients of all processes' sum y^3 in its inputs."""
    part = own(x).requires_grad_()
    y = normalised(part) if with_sums else F.batch_norm(part, None, None, training=True)
    y.pow(3).sum().backward()
    return y.detach(), part.grad


five = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
whole = five.clone().requires_grad_()
y = F.batch_norm(whole, None, None, training=True)
y.pow(3).sum().backward()
outputs, gradients = zip(*run_processes(forth_and_back, 2, five), strict=True)
check("outputs", torch.cat(outputs), y, tol=1e-10)
check("gradients", torch.cat(gradients), whole.grad, tol=1e-10)

# %%
alone = torch.cat([part[0] for part in run_processes(forth_and_back, 2, five, with_sums=False)])
check_at_least("each by itself: outputs differ by", (alone - y).abs().max(), 0.05)
hand = torch.tensor([1.0, 3, 5, 7])
check("by hand: mean, variance", [hand.mean(), hand.var(correction=0)], [4.0, 5.0])
check("each by itself", [hand[:2].var(correction=0), hand[2:].var(correction=0)], [1.0, 1.0])

# %% [markdown]
# torch has `nn.SyncBatchNorm`, and `nn.SyncBatchNorm.convert_sync_batchnorm(model)` puts it in. But it works on GPUs alone:


# %%
def torchs():
    try:
        nn.SyncBatchNorm(3)(torch.rand(2, 3, 4, 4))
    except ValueError as error:
        return str(error)


said = run_processes(torchs, 2)[0]
check("torch's, on a CPU", "expected input tensor to be on GPU" in said, want=True)
check("ours is a BatchNorm2d", issubclass(SyncBatchNorm, nn.BatchNorm2d), want=True)

# %% [markdown]
# `segedu.models.sync_norm.SyncBatchNorm` is the class of this section with weight, bias and running averages; outside a group it is `BatchNorm2d`. Its weights have the same names, so a checkpoint does not know how many processes made it.
#
# ## 4. Two processes against one
#
# Now all of it together: `fit` on 16 scenes, twenty steps of AdamW. Three networks, each trained by one process and by two: one without batch normalisation, a U-Net with it synchronised, and a U-Net where each process normalises by itself, which is what happens if nobody thinks of it. **Predict** how far the weights of two processes are from those of one, after twenty steps: exactly 0, a rounding error, or a clear difference?


# %%
def unet():
    torch.manual_seed(seed)
    return UNet(len(CLASSES), widths=(8, 16))


config = TrainConfig(
    epochs=epochs, batch_size=batch_size, learning_rate=3e-3, seed=seed, device="cpu", amp=False
)


# %%
def all_values(net):
    return torch.cat([value.double().flatten() for value in net.state_dict().values()])


def trained(network, *, synchronised=True):
    """All weights and averages as one vector, after each epoch."""
    if not synchronised:
        runs.synchronise = lambda _model: None  # in this process
    net = network()
    steps = fit(net, scenes, held_out, num_classes=len(CLASSES), config=config)
    return torch.stack([all_values(net) for _ in steps])


# %% tags=["nbval-ignore-output"]
cases = {
    "no batch normalisation": (plain, True),
    "synchronised": (unet, True),
    "each by itself": (unet, False),
}
apart = {}
for name, (network, synchronised) in cases.items():
    alone = run_processes(trained, 1, network)[0]
    first, second = run_processes(trained, 2, network, synchronised=synchronised)
    apart[name] = (first - alone).abs().amax(1)
    print(f"{name:24} {apart[name][-1]:.1e} from one process, {(first - second).abs().max():.1e} from each other")  # fmt: skip

# %% tags=["nbval-ignore-output"] alt="Largest difference of a weight from the run of one process, on a logarithmic axis against the step. Without batch normalisation and synchronised, both stay near the rounding of 32 bits, below 1e-5. With each process normalising by itself the difference is a hundred thousand times larger from the first step on."
fig, [ax] = show.grid(1, 1, width=6.5, height=2.8)
for (name, differences), colour in zip(apart.items(), (2, 3, 7), strict=True):
    steps = 2 * torch.arange(1, len(differences) + 1)
    ax.semilogy(steps, differences.clamp(min=1e-9), "o-", color=colours[colour], label=name)
ax.set(xlabel="step", ylabel="largest difference", title="Two processes against one")
ax.legend(fontsize=8)
check_at_most("no batch normalisation", apart["no batch normalisation"], 1e-5)
check_at_most("synchronised", apart["synchronised"], 1e-3)
check_at_least("each by itself", apart["each by itself"], 1e-3)

# %% [markdown]
# A rounding error: sums taken in another order end in other last digits. It can grow, for Adam divides a gradient by its own size, and where that is near zero the last digits decide the step's sign. At a greater rate the same two runs may come clearly apart; so may two runs of *one* process with another memory layout. What two processes add to that is nothing of their own.
#
# "Each by itself" is not wrong as such. With 32 pictures in each process hardly anyone can tell; with 2, as in detection, it is chapter 11's trouble with small batches, and Mask R-CNN's users freeze the statistics, use groups, or synchronise (Peng et al. 2018, section 3.3).
#
# ## 5. Who sees which picture, and the score
#
# torch's `DistributedSampler` deals the indices out like cards, and gives *every process as many*. **Predict:** five pictures, two processes. What happens to the odd one?

# %%
from torch.utils.data import DistributedSampler

for drop_last in (False, True):
    dealt = [
        list(DistributedSampler(range(5), 2, rank, shuffle=False, drop_last=drop_last))
        for rank in range(2)
    ]
    print(f"drop_last={drop_last}: {dealt}")
    expected = [[0, 2], [1, 3]] if drop_last else [[0, 2, 4], [1, 3, 0]]
    check("dealt out", dealt, expected)

# %% [markdown]
# Either picture 4 is left out, or picture 0 counts twice. In training that is a blemish. In a **score** it is a mistake, and it grows with the number of processes: 101 test pictures on 64 devices are padded to 128, so that a fifth of the score counts pictures a second time. `segedu.train.evaluate` needs no padding: each process counts its own pictures, however many, and one all-reduce adds up the confusion matrices
# ([chapter 8](08_metrics.ipynb)). Score a half-trained network on five held-out scenes, all three ways:

# %% tags=["nbval-ignore-output"]
net = unet()
list(fit(net, scenes, held_out, num_classes=len(CLASSES), config=config))


def score(indices):
    """Mean IoU of the network on these pictures, each as often as it is listed."""
    counts = ConfusionMatrix(len(CLASSES))
    for i in indices:
        with torch.no_grad():
            prediction = net.eval()(held_out[i]["image"][None].as_subclass(torch.Tensor))[0]
        counts.update(prediction.argmax(0), held_out[i]["mask"].as_subclass(torch.Tensor))
    return counts.mean_iou()


# %%
def evaluated(net):
    from segedu.train import evaluate

    return evaluate(net, held_out, num_classes=len(CLASSES), config=config).mean_iou()


scores = {
    "all five": score(range(5)),
    "padded": score([0, 2, 4, 1, 3, 0]),
    "odd one dropped": score([0, 2, 1, 3]),
    "ours, 2 processes": run_processes(evaluated, 2, net)[0],
    "ours, 3 processes": run_processes(evaluated, 3, net)[0],
}

# %% tags=["nbval-ignore-output"]
for name, value in scores.items():
    print(f"{name:18} {value:.4f}   {value - scores['all five']:+.4f}")
check("two processes", scores["ours, 2 processes"], scores["all five"], tol=1e-3)
check("three", scores["ours, 3 processes"], scores["ours, 2 processes"], tol=1e-3)
check_at_least("padded, or dropped: off", max(abs(scores[name] - scores["all five"]) for name in ("padded", "odd one dropped")), 1e-4)  # fmt: skip
check("of 128 on 64 devices, seen twice", (128 - 101) / 128, 0.21, tol=5e-3)

# %% [markdown]
# Detections are scored by ranking all of them ([chapter 19](19_instance_metrics.ipynb)), which no sum can do. `score_objects` gathers each picture's matches, in the pictures' order, and every process ranks them all.
#
# ## 6. torchrun, and a killed process
#
# On a real machine nobody calls `run_processes`. The launcher **torchrun** starts a command $n$ times, and tells each copy its rank through environment variables; `segedu train` finds them and joins the group. The flags are those of one device:
#
# ```
# torchrun --nproc-per-node 8 -m segedu train --data camvid --model unet --checkpoint runs/a.pt
# ```
#
# All copies train; the first one prints, logs and writes the checkpoint, which is the same file as ever. (One flag needs care: torchrun has options that begin with `--log`, and takes ours for one of them. Write `--log-to tensorboard`.)
#
# With `--max-restarts 1`, torchrun starts all processes anew, once, when one dies. They find the checkpoint of the last whole epoch, and go on ([chapter 11](11_training.ipynb) has shown that this is exact). We write some scenes into a folder as a reader's own set, start a run of two processes, and **kill one of them** after the first epoch, as an operating system out of memory would: `kill -9`.

# %%
for part in ("images", "masks"):
    (work / part).mkdir()
for i, sample in enumerate(scenes[:8]):
    pixels = (sample["image"] * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(work / "images" / f"{i}.png")
    Image.fromarray(sample["mask"].byte().numpy()).save(work / "masks" / f"{i}.png")
settings = {"epochs": max(1, torchrun_epochs), "batch_size": 2, "device": "cpu", "amp": False}
flags = ["--epochs", f"{torchrun_epochs}", "--batch-size", "2", "--device", "cpu", "--no-amp"]


# %%
def launched_and_killed(checkpoint, log):
    """Train in two processes under torchrun, and kill one; all that the run prints."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    train = ["-m", "segedu", "train", "--data", str(work), "--checkpoint", str(checkpoint), *flags]
    command = [*launch, "--max-restarts=1", *train]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as out, (work / "errors.txt").open("w") as errors:
        launcher = subprocess.Popen(command, stdout=out, stderr=errors, env=environment)
        while launcher.poll() is None and "epoch 1/" not in log.read_text():
            time.sleep(0.02)
        psutil.Process(launcher.pid).children()[-1].kill()
        check("torchrun ends well", launcher.wait(timeout=120), 0)
    return log.read_text()


# %% tags=["nbval-ignore-output"]
if torchrun_epochs:
    said = launched_and_killed(work / "killed.pt", work / "log.txt")
    print(said.replace(str(work), "FOLDER"))


# %% [markdown]
# Each epoch is there once, by one process. And the weights? Those of a run of two processes that nobody killed:


# %%
def never_killed():
    list(prepare(str(work), "unet", settings).train(work / "whole.pt"))


# %% tags=["nbval-ignore-output"]
if torchrun_epochs:
    run_processes(never_killed, 2)
    killed, whole = (load_checkpoint(work / f"{name}.pt") for name in ("killed", "whole"))
    lines = [line for line in said.splitlines() if line.startswith("epoch")]
    check("epochs printed", len(lines), torchrun_epochs)
    for name, value in whole["model"].items():
        if not value.equal(killed["model"][name]):
            check(f"{name} differs", got=True, want=False)
    check("all weights equal", len(killed["model"]), len(whole["model"]))

# %% [markdown]
# Equal, not nearly equal: same processes, same parts, same sums. What is lost is the epoch that was under way. If *all* are killed, and the launcher with them, the same command started again does the same; if a process dies in the middle of writing the checkpoint, the one before it is still whole, because a file is written beside it and then renamed. The tests of `segedu.distributed` do all three.
#
# ## 7. Sharding the memory
#
# Data parallel training keeps *everything* $n$ times: with 32-bit weights and AdamW, per weight 4 bytes for itself, 4 for its gradient, and 8 for Adam's two means. A model of $P$ weights needs $16 P$ bytes on each device, and activations on top ([chapter 20](20_gpu_training.ipynb)). But each device only ever needs a layer's weights while it computes that layer. **Fully sharded** (完全分片) training keeps $1/n$ of everything on each:
#
# $$\text{bytes per process} = \frac{16 P}{n} + 4 P_{\text{block}}\ (\text{at most two at a time, while in use}).$$
#
# Before a block is computed, forwards and again backwards, its weights are gathered; its gradients are added up so that each process gets its own part only. An all-reduce *is* these two halves, adding up and handing round: so sharding sends $3\,\frac{n-1}{n}$ of the weights' bytes instead of $2\,\frac{n-1}{n}$, half as much again (Rajbhandari et al. 2020, section 7). In torch it is one call for each block, `fully_shard`, from the inside out.


# %%
def bytes_held(tensors):
    own = [x.to_local() if hasattr(x, "to_local") else x for x in tensors]
    return sum(x.numel() * x.element_size() for x in own)


def sharded():
    """Bytes of weights, gradients and Adam's means in this process, and a weight after two steps."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(seed)
    net = UNet(len(CLASSES), widths=widths)
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    for block in (*net.down, *net.up, net):
        fully_shard(block, mesh=mesh)
    return two_steps(net)


# %%
def two_steps(net):
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    net.eval()  # batch normalisation is not the subject here
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(net(own(images)), own(masks).where(own(masks) != IGNORE, 0)).backward()
        optimizer.step()
    states = [x for state in optimizer.state.values() for x in state.values() if x.ndim]
    gradients = [weight.grad for weight in net.parameters()]
    weight = net.classify.weight
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return [bytes_held(x) for x in (net.parameters(), gradients, states)], whole.detach()


# %% tags=["nbval-ignore-output"]
weights = sum(weight.numel() for weight in UNet(len(CLASSES), widths=widths).parameters())
held, classifiers = {}, {}
for n in process_counts[:2]:
    sizes, classifiers[n] = zip(*run_processes(sharded, n), strict=True)
    held[n] = torch.tensor(sizes).double().mean(0)
    print(f"n = {n}: {held[n].sum() / 1e6:.2f} MB in each, on average   16 P / n = {16 * weights / n / 1e6:.2f} MB")  # fmt: skip
for n, parts in held.items():
    check("bytes over 16 P / n", parts.sum() / (16 * weights / n), 1.0, tol=0.02)
check("and the same step is taken", classifiers[2][0], classifiers[1][0], tol=1e-4)

# %% alt="Stacked bars of megabytes in one process, for one and for two processes. Weights, gradients and Adam's two means are in the ratio 1 to 1 to 2; the second bar is half as high as the first."
fig, [ax] = show.grid(1, 1, width=5.5, height=2.6)
bottom = torch.zeros(len(held))
for i, (name, colour) in enumerate((("weights", 2), ("gradients", 3), ("Adam's means", 7))):
    part = torch.tensor([parts[i] / 1e6 for parts in held.values()])
    ax.bar([f"{n}" for n in held], part, bottom=bottom, color=colours[colour], label=name)
    bottom += part
ax.set(xlabel="processes", ylabel="MB in each", title="Sharded: each process holds its part")
ax.legend(fontsize=8)
check("Adam's means, over the weights", held[1][2] / held[1][0], 2.0)

# %% [markdown]
# Does segmentation need it? The course's largest model has 64 million weights: $16 \cdot 64 \cdot 10^6$ bytes are about 1 GB, of the 80 or 141 that a large GPU has. Activations are what fills it, and they are not sharded here; against them help smaller parts of the batch and recomputation. So `segedu train` does not shard. A model of 7 billion weights needs 112 GB for its training alone, and there is no other way.

# %%
check("64 million weights, in GB", 16 * 64e6 / 1e9, 1.02, tol=5e-3)
check("7 billion, in GB", 16 * 7e9 / 1e9, 112.0)
check("sharding sends, over plain", 3 / 2, 1.5)

# %% [markdown]
# ## 8. Throughput
#
# Now time it: a small U-Net, eight pictures for *each* process, one thread each. A step is the pictures' forward and backward pass, and then the all-reduce. The **efficiency** (并行效率) of $n$ processes is their throughput (吞吐量) over $n$ times that of one. **Predict** it for 2 and for 3 processes, on a machine with two cores.


# %%
def timed(batch, size=48):
    """Seconds of computing and of adding up the gradients in a step: two medians."""
    torch.manual_seed(dist.get_rank())
    net, pictures = UNet(len(CLASSES), widths=(16, 32)), torch.rand(batch, 3, size, size)
    computing, adding = [], []
    for _ in range(timed_steps):
        dist.barrier()
        start = time.perf_counter()
        net(pictures).square().mean().backward()
        middle = time.perf_counter()
        distributed.add_up_gradients(net)
        computing.append(middle - start)
        adding.append(time.perf_counter() - middle)
    return statistics.median(computing), statistics.median(adding)


# %% tags=["nbval-ignore-output"]
times = {n: torch.tensor(run_processes(timed, n, 8)).mean(0).tolist() for n in process_counts}
rates = {n: 8 * n / sum(both) for n, both in times.items()}
print(f"{os.cpu_count()} cores")
for n, (computing, adding) in times.items():
    print(f"n = {n}: computing {1e3 * computing:5.0f} ms, adding up {1e3 * adding:5.1f} ms, {rates[n]:5.0f} pictures/s, efficiency {rates[n] / n / rates[1]:.2f}")  # fmt: skip

# %% tags=["nbval-ignore-output"] alt="Pictures per second against the number of processes, with a dashed line for an efficiency of 1. Two processes lie below the line; three on two cores lie at about the height of two."
fig, [ax] = show.grid(1, 1, width=5, height=2.8)
ax.plot([*rates], [*rates.values()], "o-", color=colours[7], label="measured")
ax.plot([*rates], [n * rates[1] for n in rates], "k--", linewidth=1, label="efficiency 1")
ax.set(xlabel="processes", ylabel="pictures per second", xticks=[*rates], ylim=(0, None))
ax.set_title("More processes than cores bring nothing")
ax.legend(fontsize=8)
check_at_most("efficiency of the most processes", rates[process_counts[-1]] / process_counts[-1] / rates[1], 1.5)  # fmt: skip

# %% [markdown]
# Two losses can be told apart. *Adding up* is communication, and the rest of this chapter models it. *Computing* is slower too, though each process does the same as before: the two cores share caches and the memory's bandwidth, and other programs' work. Three processes on two cores only take turns. On GPUs each process has its own memory, and computing stays as quick.
#
# ## 9. A cost model, and a cluster
#
# A message costs a fixed time $\alpha$, its **latency** (延迟), and its bytes over the **bandwidth** (带宽) $\beta$. The ring sends $2(n - 1)$ messages one after the other, of $S/n$ bytes each:
#
# $$t_{\text{add}}(n, S) = 2\,(n - 1)\,\alpha + 2\,\frac{n-1}{n}\cdot\frac{S}{\beta}.$$
#
# For two processes that is a straight line in $S$, with slope $1/\beta$. Measure some sizes and fit it; by *relative* errors, or the largest size alone decides: $t_i \approx a + b\, S_i$ becomes $1 \approx a/t_i + b\, S_i/t_i$.


# %%
def message_times(sizes, repeats=7):
    """Seconds of an all-reduce of so many 32-bit numbers: the median for each size."""
    medians = []
    for size in sizes:
        values, taken = torch.ones(size), []
        for _ in range(repeats):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(values)
            taken.append(time.perf_counter() - start)
            values.fill_(1)
        medians.append(statistics.median(taken))
    return medians


# %%
def ring_seconds(n, size, latency, bandwidth):
    """Seconds of an all-reduce of `size` bytes among n processes."""
    return 2 * (n - 1) * latency + 2 * (n - 1) / n * size / bandwidth


# %% tags=["nbval-ignore-output"]
taken = torch.tensor(run_processes(message_times, 2, message_sizes)).double().mean(0)
sent = 4 * torch.tensor(message_sizes).double()
rows = torch.stack([1 / taken, sent / taken], dim=1)
a, b = torch.linalg.lstsq(rows, torch.ones(len(rows), 1).double()).solution.flatten().tolist()
latency, bandwidth = max(a, 2e-6) / 2, 1 / max(b, 1e-12)
print(f"latency {1e6 * latency:.0f} us a message, bandwidth {bandwidth / 1e9:.2f} GB/s")
fitted = ring_seconds(2, sent, latency, bandwidth)
check_at_most("off by a factor of, in the middle", torch.maximum(taken / fitted, fitted / taken).median(), 4)  # fmt: skip

# %% tags=["nbval-ignore-output"] alt="Milliseconds of an all-reduce against its bytes, both logarithmic. Small messages take about the same time, large ones as long as they are; the fitted curve goes through the points, level and then rising."
fig, [ax] = show.grid(1, 1, width=5.5, height=2.8)
ax.loglog(sent, 1e3 * taken, "o", color=colours[7], label="measured, two processes")
curve = torch.logspace(3, 7.5, 50).double()
ax.loglog(curve, 1e3 * ring_seconds(2, curve, latency, bandwidth), color="black", label="fitted")
ax.set(xlabel="bytes", ylabel="milliseconds", title="An all-reduce: latency, then bandwidth")
_ = ax.legend(fontsize=8)

# %% [markdown]
# Does it foretell the step that we timed? The network's gradients have $S$ bytes, and section 8 measured the time of adding them up with two processes.

# %% tags=["nbval-ignore-output"]
size = 4 * sum(weight.numel() for weight in UNet(len(CLASSES), widths=(16, 32)).parameters())
foretold = ring_seconds(2, size, latency, bandwidth)
print(f"{size} bytes: foretold {1e3 * foretold:.2f} ms, measured {1e3 * times[2][1]:.2f} ms")

# %% [markdown]
# The measured time has one more thing in it: *waiting*. An all-reduce ends when the last process has come, so whatever makes one process late, such as another program on its core or a picture with many objects, all of them pay. That is why the sum of computing and adding is what a plan should be made from, measured on the real machine, and why loaders must not stutter.
#
# Now a cluster. Machines have eight GPUs each, joined by NVLink at 450 GB/s in each direction, and every GPU has a network card of 400 Gbit/s $= 50$ GB/s to the other machines: the published figures of a DGX H100. The model is `deeplabv3_resnet50` with 40 million weights, so $S = 160$ MB, and 8 pictures for each GPU are assumed to take 0.2 s. (Measure it: `segedu bench` on your machine. Published bandwidths are not reached; take two thirds.)
# Within a machine the ring runs at NVLink's speed; across machines the slowest link decides. While the backward pass is still at work on early layers, the gradients of later ones can be sent already: the backward pass is two thirds of the computing, and at most what the adding takes beyond that is waited for.


# %%
def step_seconds(n, computing=0.2, size=160e6, *, overlap=False):
    """Seconds of a step of n GPUs, eight to a machine, as the text assumes."""
    bandwidth = 450e9 if n <= 8 else 50e9
    adding = ring_seconds(n, size, 10e-6, bandwidth * 2 / 3)
    waited = max(0.0, adding - 2 / 3 * computing) if overlap else adding
    return computing + waited


print("GPUs   batch  step ms  efficiency  overlapped  pictures/s   epoch of COCO")
plan = {}
for n in (1, 8, 64, 512):
    step, hidden = step_seconds(n), step_seconds(n, overlap=True)
    plan[n] = (8 * n / step, math.ceil(118_287 / (8 * n)))
    print(f"{n:4} {8 * n:7} {1e3 * step:8.1f} {0.2 / step:11.3f} {0.2 / hidden:11.3f} {plan[n][0]:11.0f} {plan[n][1] * step:9.0f} s, {plan[n][1]} steps")  # fmt: skip

# %%
check("efficiency of 8", 0.2 / step_seconds(8), 0.995, tol=2e-3)
check("of 64", 0.2 / step_seconds(64), 0.95, tol=6e-3)
check("of 512", 0.2 / step_seconds(512), 0.91, tol=6e-3)
check("of 512, overlapped", 0.2 / step_seconds(512, overlap=True), 1.0)
slow = 0.2 + ring_seconds(64, 160e6, 50e-6, 1.25e9)
check("64 over Ethernet of 10 Gbit/s", 0.2 / slow, 0.44, tol=6e-3)

# %% [markdown]
# Communication is not what breaks: with a good network even 512 GPUs lose a tenth at most, and nothing if it is overlapped; what hurts is a poor network, where 64 GPUs over Ethernet of 10 Gbit/s lose more than half. **What breaks is everything around it.** An epoch of COCO, 118,287 pictures, has 14,786 steps on one GPU and *29* on 512.
#
# | | 8 GPUs | 64 GPUs | 512 GPUs |
# |---|---|---|---|
# | batch | 64 | 512 | 4096 |
# | learning rate over that of 8 pictures | $\times 8$ | $\times 64$, or $\times 8$ | by a search; $\times 22.6$ to begin with |
# | warm-up | an epoch | five epochs | longer, and group normalisation in place of batch normalisation |
# | loader | 318 pictures/s, 5 cores | 2,430, 36 cores on 8 machines | 18,635, 280 cores on 64 machines |
# | something stops the run | every 264 days | every 33 days | every 4 days |
# | checkpoint | each epoch | each epoch | each few minutes, if epochs were long |
#
# - **Learning rate.** A batch $k$ times as large takes $k$ times fewer steps, so each must go further. For SGD the rule is $\times k$ with a warm-up of five epochs (Goyal et al. 2017, section 2, to a batch of 8192 on ImageNet); for Adam, whose steps do not grow with the gradient, $\times \sqrt k$ (Malladi et al. 2022). Both hold up to a size that depends on the data: beyond it more devices bring nothing. The noise in a gradient is what a larger batch removes, and what is no longer there cannot be removed.
# - **Batch normalisation.** Synchronised over 512 GPUs it costs two all-reduces a layer, of a few numbers each: pure latency. Synchronise within a machine, or use group normalisation.
# - **Loader.** Cropping and decoding take about 15 ms of a core for each picture: times pictures per second, that is the number of cores. Past that the GPUs wait.
# - **Failures.** In the training of Llama 3 on 16,384 GPUs something unexpected stopped the run 419 times in 54 days (Grattafiori et al. 2024, section 3.3.4): once in 50,700 hours of a GPU. Divide by your number of GPUs. If writing a checkpoint takes $\delta$ and failures come every $T$, the best interval is about $\sqrt{2 \delta T}$ (Young 1974): with $\delta = 5$ s and 512 GPUs, 31 minutes.

# %%
cores = [plan[n][0] * 0.015 for n in (8, 64, 512)]
check("pictures per second", [plan[n][0] for n in (8, 64, 512)], [318, 2430, 18_635], tol=0.5)
check("cores for the loader", cores, [5, 36, 280], tol=0.5)
check("steps per epoch", [plan[1][1], plan[512][1]], [14_786, 29])
gpu_hours = 16_384 * 54 * 24 / 419
check("GPU hours between failures", gpu_hours, 50_700, tol=50)
check("days between failures", [gpu_hours / n / 24 for n in (8, 64, 512)], [264, 33, 4.1], tol=0.5)
check("root of 512", math.sqrt(512), 22.6, tol=0.05)
check("Young's interval, in minutes", math.sqrt(2 * 5 * gpu_hours / 512 * 3600) / 60, 31, tol=1.5)

# %% [markdown]
# Two launch files to begin with: [SLURM](launch/slurm.sh), where a job asks for whole machines and `srun` starts one torchrun on each, and [Kubernetes](launch/kubernetes.yaml), where an indexed job has one pod for each machine. Both come down to the same command on every machine:
#
# ```
# torchrun --nnodes 8 --nproc-per-node 8 --max-restarts 3 --rdzv-backend c10d --rdzv-id JOB
#   --rdzv-endpoint FIRST:29500 -m segedu train --data camvid --batch-size 512 --checkpoint SHARED/run.pt
# ```
#
# The launchers find one another at the first machine; data and checkpoint lie on a disk that all see; a job that is started again goes on from its checkpoint. (Both files set `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`: without it, processes that are started again may read the addresses of the dead, and wait for them. On one machine `segedu` sees to that by itself.)
#
# ## 10. What goes wrong
#
# ### A collective that not all call
#
# "Let only the first process evaluate, the others needn't." Then the first one's `evaluate` adds up confusion matrices with processes that never come. Nothing fails: it *waits*, for half an hour by default, and the cluster is paid for. We give it two seconds.


# %%
def first_evaluates(net):
    if dist.get_rank() == 0:
        evaluated(net)
    else:
        time.sleep(60)  # has gone on to other things


# %% tags=["nbval-ignore-output"]
try:
    run_processes(first_evaluates, 2, unet(), seconds=2)
    said = "finished"
except (TimeoutError, ProcessRaisedException) as error:
    said = type(error).__name__
print(said)
check("it does not finish", said != "finished", want=True)

# %% [markdown]
# The rule: whatever leads to a collective must not hang on the rank. Printing and writing may.
#
# ### First weights that differ
#
# Equal gradients keep equal networks equal, and *different networks different*. Where each process draws its own first weights, they add up gradients of different functions. The loss falls all the same.


# %%
def from_own_weights(share):
    """Distance between this process's weights and the mean, and the loss before and after."""
    torch.manual_seed(dist.get_rank())
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, len(CLASSES), 1))
    if share:
        distributed.share_weights(net)
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.3), []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(mean_loss(net, own(images), own(masks)))
        (losses[-1] / 2).backward()
        distributed.add_up_gradients(net)
        optimizer.step()
    weights = torch.cat([weight.detach().flatten() for weight in net.parameters()])
    return (weights - total(weights) / 2).abs().max().item(), losses[0].item(), losses[-1].item()


# %% tags=["nbval-ignore-output"]
for share in (False, True):
    distance, before, after = run_processes(from_own_weights, 2, share)[0]
    print(f"{'shared' if share else 'own'} first weights: loss {before:.2f} -> {after:.2f}, from the mean {distance:.2g}")  # fmt: skip
    check_at_most("the loss falls", after / before, 0.95)
    if share:
        check("networks equal", distance, 0.0)
    else:
        check_at_least("networks apart by", distance, 0.05)

# %% [markdown]
# Two different networks, of which the first is saved. `fit` therefore begins by sending the first process's weights to all.
#
# ### The batch that grew
#
# In much code `batch_size` is that of *each* process. Start it on eight devices instead of one, and the batch is eight times as large: other steps per epoch, another schedule, the rate too small by the rules above; and a result that "does not reproduce". Here `batch_size` is the whole batch; so a run of eight processes repeats that of one, and who wants a larger batch must say so.
#
# ## 11. In the article
#
# > **In the article, 5.2 and 5.3: the IoU of each batch is computed, and the mean of these numbers is called the IoU of the whole set.** [Chapter 8](08_metrics.ipynb) shows what that does over batches. With several devices the same slip comes back in new clothes: each process computes the IoU of *its* pictures, and the mean of the processes is logged. It then depends on how many devices there were.

# %% tags=["nbval-ignore-output"]
shares = {n: [range(5)[5 * r // n : 5 * (r + 1) // n] for r in range(n)] for n in (1, 2, 5)}
means = {n: statistics.fmean(score(part) for part in parts) for n, parts in shares.items()}
for n, value in means.items():
    print(f"mean over {n} processes: {value:.4f}")
check_at_least("one and five processes differ by", abs(means[1] - means[5]), 1e-3)

# %% [markdown]
# > **In the article, 2 and 7: that deep learning needs much computing power, GPUs or TPUs, is listed as a drawback; how several are used together is not said.** This chapter is the answer for segmentation: up to a few hundred devices the model is copied, the batch is dealt out, and what takes care is the loss, the normalisation, the score and the restart.
#
# ## 12. Three quick questions
#
# **1.** Four processes have 100, 100, 100 and 0 labelled pixels in their parts. By what is each one's mean loss multiplied?
#
# <details><summary>Answer</summary>
#
# By $\frac13, \frac13, \frac13$ and 0. The plain mean would multiply by $\frac14$: the gradient would be a quarter too small.
#
# </details>
#
# **2.** An all-reduce of 100 MB among 8 devices takes 10 ms, all of it bandwidth. How long among 64 devices on the same links?
#
# <details><summary>Answer</summary>
#
# $\frac{63}{64} / \frac78 = 1.125$ times as long: 11.25 ms. The bytes that each sends hardly change.
#
# </details>
#
# **3.** A run on 8 GPUs is killed and goes on with 4. `batch_size` is the same. Is the result?
#
# <details><summary>Answer</summary>
#
# Up to rounding, yes: parts twice as large add up to the same batch. To the last digit, no: the sums are taken in another order. Each GPU needs memory for twice the pictures, or `--accumulate 2`, where batch normalisation then sees half the batch.
#
# </details>

# %%
counts = torch.tensor([100.0, 100, 100, 0])
check("1: shares", counts / counts.sum(), [1 / 3, 1 / 3, 1 / 3, 0], tol=1e-6)
check("2: times as long", (63 / 64) / (7 / 8), 1.125)

# %% [markdown]
# ## 13. Exercises
#
# ### Exercise 1: the batch's loss
#
# Each process tells its mean loss and its number of labelled pixels. Give the loss of the whole batch; 0 if no pixel is labelled.


# %% tags=["exercise"]
def batch_loss(means, counts):
    """The mean over all labelled pixels, from the parts' means and counts: two lists of n."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def weighted_mean(means, counts):
    return sum(m * c for m, c in zip(means, counts, strict=True)) / max(1, sum(counts))


exercise = Exercise(
    solution=weighted_mean,
    inputs=[
        ([2.0, 6.0], [3, 1]),
        ([1.0, 0.0], [10, 0]),
        ([0.0, 0.0], [0, 0]),
        ([1.0, 2.0, 4.0], [5, 1, 2]),
    ],
    misconceptions={
        "that is the plain mean, where a pixel of a small part counts more": lambda m, _c: (
            sum(m) / len(m)
        ),
        "that leaves empty parts out, and still gives all others the same weight": lambda m, c: (
            sum(x for x, n in zip(m, c, strict=True) if n) / max(1, sum(n > 0 for n in c))
        ),
        "that is the sum over pixels: divide by their number": lambda m, c: sum(
            x * n for x, n in zip(m, c, strict=True)
        ),
    },
)
exercise.check(batch_loss)


# %% tags=["solution"]
def batch_loss(means, counts):
    """Each part's sum of losses is its mean times its count."""
    total = sum(mean * count for mean, count in zip(means, counts, strict=True))
    return total / max(1, sum(counts))


exercise.check(batch_loss)

# %% [markdown]
# ### Exercise 2: variance from parts
#
# Each process has the count, mean and variance (over count) of its values. Give the variance of all values. Synchronised batch normalisation could send these three.


# %% tags=["exercise"]
def variance_of_all(counts, means, variances):
    """The variance of all values, from three lists of n numbers."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def within_and_between(counts, means, variances):
    n, mean = sum(counts), weighted_mean(means, counts)
    return (
        sum(c * (v + (m - mean) ** 2) for c, m, v in zip(counts, means, variances, strict=True)) / n
    )


exercise = Exercise(
    solution=within_and_between,
    inputs=[
        ([2, 2], [2.0, 6.0], [1.0, 1.0]),
        ([3, 1], [0.0, 4.0], [2.0, 0.0]),
        ([4, 2, 1], [1.0, -1.0, 5.0], [0.5, 2.0, 0.0]),
    ],
    misconceptions={
        "the parts' means differ, and that is variance too": lambda c, _m, v: weighted_mean(v, c),
        "every part got the same weight: they differ in count": lambda c, m, v: within_and_between(
            [1] * len(c), m, v
        ),
        "that divides by count - 1: batch normalisation divides by the count": lambda c, m, v: (
            within_and_between(c, m, v) * sum(c) / (sum(c) - 1)
        ),
    },
)
exercise.check(variance_of_all)


# %% tags=["solution"]
def variance_of_all(counts, means, variances):
    """Within the parts, and between their means."""
    mean = sum(c * m for c, m in zip(counts, means, strict=True)) / sum(counts)
    within = sum(c * v for c, v in zip(counts, variances, strict=True))
    between = sum(c * (m - mean) ** 2 for c, m in zip(counts, means, strict=True))
    return (within + between) / sum(counts)


exercise.check(variance_of_all)

# %% [markdown]
# ### Exercise 3: padded
#
# A sampler pads `pictures` indices so that each of `n` processes has as many. How many pictures are counted a second time?


# %% tags=["exercise"]
def counted_twice(pictures, n):
    """How many indices are added, for 1 <= n <= pictures."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda pictures, n: -pictures % n,
    inputs=[(5, 2), (8, 4), (101, 64), (64, 64), (7, 3)],
    misconceptions={
        "that many are left over; what is added fills up the rest": lambda pictures, n: (
            pictures % n
        ),
        "where they divide, nothing is added": lambda pictures, n: n - pictures % n,
    },
)
exercise.check(counted_twice)


# %% tags=["solution"]
def counted_twice(pictures, n):
    """From the number up to the next multiple of n."""
    return math.ceil(pictures / n) * n - pictures


exercise.check(counted_twice)

# %% [markdown]
# ## Summary
#
# Symbols: $n$ processes, process $r$; $N$ labelled pixels, $N_r$ of them in its part, with mean losses $L$ and $L_r$; $x$ the values of a channel in a process, $M$ their number in all; $P$ weights, $S$ bytes of gradients; latency $\alpha$, bandwidth $\beta$.
#
# $$
# \begin{aligned}
# \nabla L &= \textstyle\sum_r \frac{N_r}{N} \nabla L_r && \text{data parallel} \\
# \mu &= \tfrac1M\, \text{all-reduce}(\textstyle\sum x), \quad \sigma^2 = \tfrac1M\, \text{all-reduce}(\textstyle\sum (x - \mu)^2) && \text{synchronised} \\
# t_{\text{add}} &= 2 (n - 1)\, \alpha + 2\,\tfrac{n - 1}{n}\, S / \beta && \text{ring} \\
# \text{bytes} &= 16 P / n && \text{sharded, AdamW in 32 bits}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. A mean can be taken in parts if each part counts as much as it has: weigh losses by labelled pixels, add up confusion matrices, synchronise statistics. Then $n$ processes are one.
# 2. All processes must call every collective, from the same weights, in the same order. Otherwise they wait, or drift apart without a word.
# 3. Communication is rarely what breaks. The batch, its learning rate, the loader and failures are; and a run must survive `kill -9`.
#
# **To read**
#
# - P. Patarasuk, X. Yuan, "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations", JPDC 69, 2009.
# - P. Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017: section 2, the rate; section 3, pitfalls of distributed SGD.
# - S. Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022.
# - S. Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020: section 3.2, buckets and overlap.
# - C. Peng et al., "MegDet: A Large Mini-Batch Object Detector", CVPR 2018: section 3.3, batch normalisation over GPUs.
# - S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC 2020: sections 5 and 7. Y. Zhao et al., "PyTorch FSDP", VLDB 2023.
# - J. W. Young, "A First Order Approximation to the Optimum Checkpoint Interval", CACM 17, 1974. A. Grattafiori et al., "The Llama 3 Herd of Models", 2024: section 3.3.4.
#
# **Next.** The model is trained. [Chapter 22](22_deploy.ipynb) takes it out of the notebook.

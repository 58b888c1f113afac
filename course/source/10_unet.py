# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Why do skips sharpen? U-Net
#
# To know *what* a pixel shows, a network must look far around it. To look far it makes its maps small, and small maps have lost *where* things end.
# U-Net has an answer so simple that ten years of networks have kept it: on the way up, copy back what was there on the way down. This chapter builds it part by part, and measures what the copies are worth by
# taking them away. It then asks how far one pixel sees, which turns out to depend on where the pixel is, and that decides how to cut a large picture into tiles.
#
# **You will be able to**
#
# - build a U-Net from five parts, and say its shapes and count its weights before you run it;
# - compute a receptive field by formula, by counting and by autograd, and explain why the first is only a mean;
# - design an experiment that shows what one part of a network does, and say what it does not show;
# - cut a picture into tiles so that the joined answer is that of the whole picture;
# - weight the pixels between touching objects as the paper does.
#
# *75 minutes. Before: [convolution arithmetic](05_convolution_arithmetic.ipynb) for receptive fields and transposed convolution,
# [cross-entropy](06_cross_entropy.ipynb) for the loss, [FCN](09_fcn.ipynb) for its skips, which add where U-Net concatenates.*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 96  # height and width of a scene
difficulty = 0.2  # of the scenes to learn; 0.5 is usual and takes longer
train_scenes = 1040
epochs = 5
learning_rate = 8e-3
least_miou = 0.9  # mean IoU that the trained network must reach on held-out scenes
ablation_scenes = 96
ablation_epochs = 5
ablation_seeds = 3
least_gain = 0.03  # mean IoU that skips must bring near boundaries, beyond that elsewhere
membrane_epochs = 2
membrane_crops = 4  # of each slice, in each epoch
least_membrane_miou = 0.6

# %%
import copy
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

# %%
from segedu import show
from segedu.check import check, check_at_least
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.data.transforms import random_crop
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.layers import Normalize
from segedu.models.unet import UNet as PackageUNet
from segedu.palette import class_colours
from segedu.train import evaluate, fit

# %% [markdown]
# ## 1. What is lost on the way down
#
# A network that halves its maps three times works on maps an eighth as large. What does that cost? Start with one row of eight pixels (像素): four of ground, then an object, 0 and 1. And a second row, whose object begins one pixel earlier.
#
# | row | pixels | after max pooling by 2 | enlarged again |
# |---|---|---|---|
# | $a$ | 0 0 0 0 1 1 1 1 | 0 0 1 1 | 0 0 0 0 1 1 1 1 |
# | $b$ | 0 0 0 1 1 1 1 1 | 0 1 1 1 | 0 0 1 1 1 1 1 1 |
# | $c$ | 0 0 1 1 1 1 1 1 | 0 1 1 1 | 0 0 1 1 1 1 1 1 |
#
# Rows $b$ and $c$ differ, and their small rows do not. **Whatever comes after, however clever, cannot tell the two apart**: it gets the same numbers.
# Put the row itself beside the enlarged one, as a second channel, and the difference is back.

# %%
rows = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 1]])
a, b, c = rows.float()[:, None, None]  # each (1, 1, 8): batch, channel, columns
small_a, small_b, small_c = (F.max_pool1d(row, 2) for row in (a, b, c))
check("b and c, pooled, are one and the same", small_b.equal(small_c), want=True)
enlarged = F.interpolate(small_b, scale_factor=2, mode="nearest")
check("b enlarged: its object begins a pixel early", enlarged[0, 0], c[0, 0])
with_skip_b = torch.cat([b, enlarged], dim=1)  # (1, 2, 8)
with_skip_c = torch.cat([c, enlarged], dim=1)
check("pixels that tell b from c once the row is beside it", (with_skip_b != with_skip_c).sum(), 1)

# %% [markdown]
# That is the idea of this chapter, and the rest is what follows from it. Now the same loss on real shapes. Draw some scenes. Their `mask` is void in a narrow ring around each object; their
# `boundary` marks the pixels where one thing ends and another begins. Call a pixel **near** if a boundary is within three pixels of it.


# %%
def drawn(scenes, *keys):
    """The scenes as a list in memory, drawn once, with the entries `keys` or all."""
    return [{key: sample[key] for key in keys or sample} for sample in scenes]


def near_boundary(boundary, reach=3):
    """Pixels at most `reach` rows and columns from a boundary pixel: (H, W) bool."""
    grown = F.max_pool2d(boundary[None, None].float(), 2 * reach + 1, stride=1, padding=reach)
    return grown[0, 0] > 0


scenes = drawn(Scenes(64, size=96, seed=2 * seed + 1))
boxes = torch.cat([sample["boxes"] for sample in scenes])  # x1, y1, x2, y2
across = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
check("pixels across, the typical object", across.median(), 36, tol=3)

# %% [markdown]
# Score apart what is near and what is not. The score is mean intersection over union (平均交并比), from one confusion matrix (混淆矩阵) for each of the three sets of pixels, over all pictures together.


# %%
def miou_by_place(predict, samples, num_classes):
    """Mean IoU over all labelled pixels, over those near a boundary, and over the others."""
    counts = [ConfusionMatrix(num_classes) for _ in range(3)]
    for sample in samples:
        near = near_boundary(sample["boundary"])
        prediction = predict(sample)
        for count, place in zip(counts, (near | ~near, near, ~near), strict=True):
            count.update(prediction, torch.where(place, sample["mask"], IGNORE))
    return [count.mean_iou() for count in counts]


# %% [markdown]
# Take a perfect answer, the truth itself, and pass it through a map $1/8$ as large: each block of $8 \times 8$ pixels keeps its commonest class. No network that labels blocks can do better.
#
# **Predict:** the typical object is 36 pixels across. What is the mean IoU of this perfect but coarse answer: 0.96, 0.86 or 0.7? And near boundaries?


# %%
def true_class(sample):
    """The class of every pixel, (H, W), with no void."""
    classes = torch.cat([torch.zeros(1, dtype=torch.int64), sample["labels"]])
    return classes[sample["instance_map"]]


def coarse(sample, factor):
    """The truth after a map 1/factor as large: in each block, the commonest class."""
    one_hot = F.one_hot(true_class(sample), len(CLASSES)).movedim(-1, 0).float()
    share = F.avg_pool2d(one_hot[None], factor, ceil_mode=True)
    return F.interpolate(share, size=one_hot.shape[1:], mode="nearest")[0].argmax(0)


# %%
lost = {f: miou_by_place(partial(coarse, factor=f), scenes, 6) for f in (1, 2, 4, 8, 16)}
for factor, (everywhere, near, away) in lost.items():
    print(f"1/{factor:<3} mean IoU {everywhere:.3f}   near {near:.3f}   away {away:.3f}")

# %% alt="A scene, its true mask, and that mask passed through maps an eighth and a sixteenth as large. The coarse masks are built of blocks: stars lose their points and rings their holes."
fig, axes = show.grid(1, 4, "A perfect answer on a small map loses the shapes")
sample = scenes[1]
show.image(axes[0], sample["image"], "scene")
show.mask(axes[1], sample["mask"], "truth (void is white)", num_classes=6)
show.mask(axes[2], coarse(sample, 8), "through 1/8", num_classes=6)
show.mask(axes[3], coarse(sample, 16), "through 1/16", num_classes=6)
check("at full size nothing is lost", lost[1], 1.0)
check("through 1/8, mean IoU", lost[8][0], 0.86, tol=0.02)
check("near boundaries", lost[8][1], 0.71, tol=0.02)
check_at_least("away from them", lost[8][2], 0.98)

# %% [markdown]
# It is 0.86, but 0.71 near boundaries, and all but 1 away from them. Through $1/16$ even the middle of things suffers. The loss sits at the boundaries. It is a ceiling for whoever labels blocks. [FCN-8s](09_fcn.ipynb) and [DeepLab](12_context.ipynb) work at an eighth too, and enlarge their scores smoothly, which places an edge inside a block by guessing. U-Net need not guess.
#
# ## 2. Five parts
#
# ### Two convolutions
#
# The paper's block is two $3 \times 3$ convolutions (卷积), each followed by ReLU. Why two of three and not one of five? Both see $5 \times 5$ pixels. For $c$ channels in and out, one of five has $25c^2$ weights, two of three have $2 \cdot 9c^2 = 18c^2$,
# and there is a ReLU in between: cheaper, and more than linear.
#
# Ours differs from the paper's in two ways that have become usual. A padding of 1 keeps height and width. And each convolution is followed by batch normalisation (批归一化), which has a shift of its own, so the convolution needs no bias.


# %%
def double_conv(before, after):
    """Two 3x3 convolutions that keep height and width, each normalised and rectified."""
    layers = []
    for channels in (before, after):
        conv = nn.Conv2d(channels, after, kernel_size=3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def weights_of(module):
    """How many numbers it learns."""
    return sum(parameter.numel() for parameter in module.parameters())


check("weights from 3 to 16 channels", weights_of(double_conv(3, 16)), 2800)

# %% [markdown]
# By hand, from $a$ to $b$ channels: $9ab$ and $9b^2$ weights for the convolutions, and a scale and a shift per channel, twice:
#
# $$D(a, b) = 9ab + 9b^2 + 4b. \qquad D(3, 16) = 432 + 2304 + 64 = 2800.$$
#
# ### Down
#
# **Max pooling** (最大池化) keeps the largest of each $2 \times 2$ pixels. It learns nothing. It halves height and width, so that the next convolution sees twice as far for the same price.
# `ceil_mode=True` keeps the last row of an odd height: 97 rows become 49, not 48. Section 10 shows what happens otherwise.
#
# ### Up
#
# Copy each pixel to $2 \times 2$: nearest-neighbour enlarging, then convolutions. The paper uses a transposed $2 \times 2$ convolution (转置卷积) here, which learns what to paint into the four places; [chapter 05](05_convolution_arithmetic.ipynb) derives it. With a kernel that its stride does
# not divide, it covers some pixels more often than others and leaves a chequered pattern. Copying cannot.
#
# ### Skip
#
# A **skip connection** (跳跃连接) puts the map from the way down beside the map from below, channel next to channel: *concatenate* (拼接), do not add. With $f$ channels from the fine level and $g$ from below there are $f + g$, and the next block brings them back to $f$. FCN adds scores; here nothing is decided
# yet, and the convolution may learn which channel to believe where.
#
# ### Classify
#
# A $1 \times 1$ convolution turns each pixel's channels into $C$ logits. It is the same linear classifier at every pixel.

# %%
halve = partial(F.max_pool2d, kernel_size=2, ceil_mode=True)


def way_down(blocks, x, halve=halve):
    """The map of each level, finest first."""
    levels = []
    for block in blocks:
        x = block(halve(x) if levels else x)
        levels.append(x)
    return levels


# %%
def way_up(blocks, levels):
    """From the coarsest level to the finest, with each level's own map put beside on the way."""
    *skips, x = levels
    for block, skip in zip(reversed(blocks), reversed(skips), strict=True):
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        x = block(torch.cat([skip, x], dim=1))
    return x


# %% [markdown]
# The whole network is these two, between a normalisation of the picture and the classifier. For widths $(w_0, \dots, w_{L-1})$, finest first, there are $L$ blocks down and $L - 1$ up.


# %%
class UNet(nn.Module):
    """Logits of `num_classes` classes at each pixel, for a picture of any size."""

    def __init__(self, num_classes, widths=(16, 32, 64, 128)):
        super().__init__()
        self.normalize = Normalize(mean=[0.5] * 3, std=[0.25] * 3)
        self.down = nn.ModuleList(double_conv(a, b) for a, b in pairwise([3, *widths]))
        self.up = nn.ModuleList(double_conv(f + g, f) for f, g in pairwise(widths))
        self.classify = nn.Conv2d(widths[0], num_classes, kernel_size=1)

    def forward(self, image):
        """Image (B, 3, H, W) in [0, 1] to logits (B, C, H, W)."""
        levels = way_down(self.down, self.normalize(image))
        return self.classify(way_up(self.up, levels))


# %% [markdown]
# ## 3. Shapes and weights
#
# **Predict** the shapes for a picture of $96 \times 96$ and widths (16, 32, 64, 128): height and channels at each level, and the channels into each block on the way up. Then compare.


# %%
def shapes(net, picture):
    """What goes into and comes out of each block: {name: (in, out)}, each (C, H, W)."""
    parts = {f"down {i}": block for i, block in enumerate(net.down)}
    parts |= {f"up {i}": block for i, block in reversed([*enumerate(net.up)])}
    found = {}
    for name, block in [*parts.items(), ("classify", net.classify)]:

        def note(_, given, made, name=name):
            found[name] = tuple(given[0].shape[1:]), tuple(made.shape[1:])

        block.register_forward_hook(note)
    net(picture)
    return found


# %%
torch.manual_seed(seed)
net = UNet(num_classes=6, widths=(16, 32, 64, 128))
sizes = shapes(copy.deepcopy(net), torch.rand(1, 3, 96, 96))
print("part        in               out              weights")
for name, (given, made) in sizes.items():
    learned = weights_of(net.get_submodule(name.replace(" ", ".")))
    print(f"{name:10}  {given!s:15}  {made!s:15}  {learned:7}")
check("channels into the first block up: 64 beside 128", sizes["up 2"][0][0], 64 + 128)
check("pixels of the coarsest map", sizes["down 3"][1][1:], [12, 12])

# %%
places = {f"down {i}": (i - 3.0, -i) for i in range(4)}
places |= {f"up {i}": (3.0 - i, -i) for i in (2, 1, 0)}
crossings = [(f"down {i}", f"up {i}") for i in range(3)]


def arrow(ax, start, end, linestyle, gap):
    """From one box to another, ending `gap` points from their middles."""
    style = {"arrowstyle": "->", "linestyle": linestyle, "shrinkA": gap, "shrinkB": gap}
    ax.annotate("", xytext=places[start], xy=places[end], arrowprops=style)


# %% alt="The U of U-Net: boxes for the four levels down on the left, from 16 channels at 96 x 96 to 128 channels at 12 x 12, and for the three levels up on the right. A dashed arrow crosses at each of the three finer levels."
fig, [ax] = show.grid(1, 1, width=8, height=3.4)
box = {"boxstyle": "round", "facecolor": class_colours(3)[2] / 255}
for name, (x, y) in places.items():
    ax.text(x, y, " x ".join(map(str, sizes[name][1])), ha="center", va="center", bbox=box)
for start, end in pairwise(places):
    arrow(ax, start, end, "-", gap=14)
for start, end in crossings:
    arrow(ax, start, end, "--", gap=42)
ax.set(xlim=(-4, 4), ylim=(-3.5, 0.5))
ax.set_title("Channels x height x width: down, up, and straight across")
_ = ax.axis("off")

# %% [markdown]
# The weights, by hand. Every block is a $D$, the classifier has one weight per channel and class, and a bias per class:
#
# $$W = D(3, w_0) + \sum_{i=1}^{L-1} D(w_{i-1}, w_i) + \sum_{i=0}^{L-2} D(w_i + w_{i+1},\, w_i) + C\,(w_0 + 1).$$
#
# The paper's network, $w = (64, \dots, 1024)$, one grey channel in, two classes, has biases in place of batch normalisation, and a transposed convolution of $4\,w_{i+1} w_i + w_i$ weights on each step up. That halves the channels before it concatenates.


# %%
def block_weights(a, b):
    """D(a, b): two 3x3 convolutions without bias, each with a scale and a shift per channel."""
    return 9 * a * b + 9 * b * b + 4 * b


def unet_weights(num_classes, widths):
    """What `UNet(num_classes, widths)` learns, by the formula."""
    down = sum(block_weights(a, b) for a, b in pairwise([3, *widths]))
    up = sum(block_weights(f + g, f) for f, g in pairwise(widths))
    return down + up + num_classes * (widths[0] + 1)


# %%
check("ours, by formula and by counting", unet_weights(6, (16, 32, 64, 128)), weights_of(net))
check("ours, in thousands", weights_of(net) / 1000, 488, tol=0.5)
wider = unet_weights(6, (32, 64, 128, 256)) / unet_weights(6, (16, 32, 64, 128))
check("twice as wide has about four times the weights", wider, 4, tol=0.05)

# %%
paper = (64, 128, 256, 512, 1024)
biased = [9 * a * b + b + 9 * b * b + b for a, b in pairwise([1, *paper])]
biased += [9 * 2 * f * f + f + 9 * f * f + f for f in paper[:-1]]
rising = [4 * g * f + f for f, g in pairwise(paper)]
total = sum(biased) + sum(rising) + 2 * (paper[0] + 1)
check("the paper's, in millions", total / 1e6, 31.03, tol=0.005)
check("of them in the two coarsest levels down", sum(biased[3:5]) / total, 0.57, tol=0.01)
check(
    "its convolutional layers: 18 of 3x3, 4 rising, 1 of 1x1", 2 * len(biased) + len(rising) + 1, 23
)

# %% [markdown]
# "In total the network has 23 convolutional layers", says section 2 of the paper. More than half of the weights lie where the maps are smallest. The work is another matter. **Predict** which block on the way up multiplies most often: the finest, with 9 thousand weights, or the coarsest, with 148 thousand?

# %%
work = {}
for level, f in enumerate((16, 32, 64)):
    pixels = (96 // 2**level) ** 2
    work[level] = (block_weights(f + 2 * f, f) - 4 * f) * pixels / 1e6
    print(f"up {level}: {pixels:5} pixels, {work[level]:.1f} million multiplications")
check("the same on each level, in millions", list(work.values()), [84.9] * 3, tol=0.05)

# %% [markdown]
# A level finer has a quarter of the weights and four times the pixels. That is what halving the map and doubling the channels is for.
#
# The package has the same network. It is a test of both that one takes the other's weights, by name, and gives the same logits; also for a picture whose sides are odd.

# %%
package = PackageUNet(num_classes=6, widths=(16, 32, 64, 128))
package.load_state_dict(net.state_dict())
odd = torch.rand(2, 3, 97, 61)
with torch.inference_mode():
    net.eval(), package.eval()
    same = torch.allclose(net(odd), package(odd), atol=1e-5)
    heights = [x.shape[2] for x in way_down(net.down, odd)]
check("the package's U-Net has the same logits", same, want=True)
check("97 rows on the way down", heights, [97, 49, 25, 13])

# %% [markdown]
# `segmentation_models_pytorch` builds its decoder from the same block: enlarge by copying, concatenate, convolve twice. It puts the map from below first and the skip second. That is a convention, not a difference: the channels of the first convolution change places.
# A test of this course loads our block's weights into theirs, and gets the same numbers.
#
# ## 4. How far does one pixel see?
#
# The **receptive field** (感受野) of an output pixel is the set of input pixels that can change it. [Chapter 05](05_convolution_arithmetic.ipynb) has a formula for a chain of layers: with $j$ the distance, in input pixels, between neighbours of the current map (the *jump*), and $r$ the width of the field,
#
# $$r \leftarrow r + (k - 1)\, j, \qquad j \leftarrow j \cdot s,$$
#
# for each layer with kernel $k$ and stride $s$, from $r = j = 1$. On the way up, enlarging by two halves $j$ and adds nothing. By hand, for four levels:
#
# | level | on the way | layers | $j$ | adds | $r$ |
# |---|---|---|---|---|---|
# | 0 | down | 2 conv | 1 | 4 | 5 |
# | 1 | down | pool, 2 conv | 2 | 1 + 8 | 14 |
# | 2 | down | pool, 2 conv | 4 | 2 + 16 | 32 |
# | 3 | down | pool, 2 conv | 8 | 4 + 32 | 68 |
# | 2 | up | 2 conv | 4 | 16 | 84 |
# | 1 | up | 2 conv | 2 | 8 | 92 |
# | 0 | up | 2 conv | 1 | 4 | 96 |
#
# The skips do not appear: what comes over them has seen less. **Predict:** does every output pixel see exactly 96 columns?


# %%
def receptive_field(layers):
    """Width r after a chain of (kind, kernel) layers: conv, pool (stride = kernel) or up (by 2)."""
    r, j = 1, 1
    for kind, kernel in layers:
        if kind == "up":
            j //= 2
        else:
            r += (kernel - 1) * j
            j *= kernel if kind == "pool" else 1
    return r


# %%
block = [("conv", 3), ("conv", 3)]
down, up = block + 3 * [("pool", 2), *block], 3 * [("up", 2), *block]
check("at the bottom", receptive_field(down), 68)
check("at the output", receptive_field(down + up), 96)

# %% [markdown]
# ### By counting
#
# Now without a formula. Let every pixel of a row carry the list of image columns it has seen: at the start itself alone. A block takes the union over five neighbours, pooling the union over a pair, enlarging copies the list, a skip joins two lists. Rows and columns
# behave alike, so one dimension is enough.


# %%
def columns_seen(size, levels):
    """Which image columns can change each output column of a U-Net: (size, size) bool."""

    def block(seen):  # two 3-wide convolutions reach two neighbours to each side
        padded = np.pad(seen, ((2, 2), (0, 0)))
        return np.logical_or.reduce([padded[i : i + len(seen)] for i in range(5)])

    maps = [block(np.eye(size, dtype=bool))]
    for _ in range(levels - 1):
        maps.append(block(maps[-1][0::2] | maps[-1][1::2]))
    seen = maps.pop()
    while maps:
        seen = block(np.repeat(seen, 2, axis=0) | maps.pop())
    return seen


# %%
counted = columns_seen(size=160, levels=4)
inner = range(80, 88)  # eight neighbours, far from the border; 80 is a multiple of 8
for p in inner:
    columns = counted[p].nonzero()[0]
    print(f"{p}: {columns[0]:2} .. {columns[-1]}, {len(columns)} columns")
widths_seen = counted[80:88].sum(axis=1)
check("columns seen by 80 .. 87, first half", widths_seen[:4], [92, 92, 100, 100])
check("second half", widths_seen[4:], [100, 100, 92, 92])
check("mean over eight neighbours: the formula", widths_seen.mean(), 96.0)

# %% [markdown]
# No pixel sees 96 columns. Half of them see 92, the others 100, and **the formula is their mean**. It is not wrong, it answers another question.
#
# ### Why it depends on the place
#
# Pooling divides the columns into pairs, the next into fours, the last into cells of eight, and the cells lie where they lie: cell $n$ is columns $8n$ to $8n + 7$. Go back from output column $p$. The convolutions on the way up reach 2 neighbours each block, and a neighbour is 1, 2, then 4 columns wide:
# in all $2 (1 + 2 + 4) = 14$ columns to either side. That interval touches the cells
#
# $$\left\lfloor \frac{p - 14}{8} \right\rfloor \;\dots\; \left\lfloor \frac{p + 14}{8} \right\rfloor.$$
#
# An interval of 29 columns touches four cells or five, depending on where it begins. The block at the bottom adds two cells to each side, and the blocks on the way down again 14 columns. So column $p$ sees
#
# $$8 \left\lfloor \frac{p - 14}{8} \right\rfloor - 30 \quad \text{to} \quad 8 \left\lfloor \frac{p + 14}{8} \right\rfloor + 37.$$
#
# Everything depends on $p$ modulo $8 = 2^{L-1}$. A transposed convolution with kernel and stride 2 would behave the same, since it also maps each cell to its own two columns. So would any network that pools.

# %%
p = np.arange(60, 100)
first, last = 8 * ((p - 14) // 8) - 30, 8 * ((p + 14) // 8) + 37
check("first column seen, closed form", first, counted[p].argmax(axis=1))
check("last column", last, 159 - counted[p, ::-1].argmax(axis=1))
reach = np.maximum(p - first, last - p)
check("farthest to one side, over all places", reach.max(), 51)

# %% [markdown]
# ### By autograd
#
# The third way asks the network. The gradient of one output in the picture is not zero where the picture can change it. Two things would hide a part of the answer. A ReLU that is off passes no gradient: we make all weights positive, so that none is off. And max pooling
# passes its gradient to *one* of four pixels, though any of the four may be the largest: we look through the mean instead, which asks all four.


# %%
def slopes(net, row, column, size):
    """How strongly each pixel of a bright picture can change one output pixel: (H, W)."""
    image = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    mean = partial(F.avg_pool2d, kernel_size=2)
    levels = way_down(net.down, net.normalize(image), halve=mean)
    logit = net.classify(way_up(net.up, levels))[0, 0, row, column]
    [slope] = torch.autograd.grad(logit, image)
    return slope[0].abs().sum(dim=0)


# %%
probe = UNet(num_classes=1, widths=(2, 2, 2, 2)).double().eval()
for weight in probe.parameters():
    nn.init.constant_(weight, 0.1)
measured = torch.stack([(slopes(probe, 80, p, 160) > 0).any(dim=0) for p in inner]).numpy()
check(
    "columns with a gradient but not counted, or the reverse", (measured ^ counted[80:88]).sum(), 0
)
check("columns with a gradient, 80 .. 87", measured.sum(axis=1).mean(), 96.0)

# %% alt="Left: for output columns 64 to 103 the range of image columns seen, as vertical bars in two colours. The ends move in steps of eight, not one by one, and bars of 92 and 100 columns alternate in groups of four. Right: the gradient of one output pixel, a square that fades from the middle."
fig, [left, right] = show.grid(1, 2, width=4.6, height=3.4)
shown = np.arange(64, 104)
long = counted[shown].sum(axis=1) == 100
for is_long, colour, label in ((False, 2, "92 columns"), (True, 7, "100 columns")):
    at = shown[long == is_long]
    low, high = counted[at].argmax(axis=1), 159 - counted[at, ::-1].argmax(axis=1)
    left.vlines(at, low, high, color=class_colours(8)[colour] / 255, linewidth=2.5, label=label)
left.plot(shown, shown, color="black", linewidth=1, label="the pixel itself")
left.set(
    title="The ends of the field move in steps of 8", xlabel="output column", ylabel="image columns"
)
left.legend(loc="upper left", fontsize=7)
strength = slopes(probe, 80, 84, 160)
show.heat(right, (strength / strength.max()).log10(), "Gradient of pixel (80, 84), powers of ten")

# %% [markdown]
# Three ways, one answer, once each is asked the right question. Counting and autograd give the field of a place. The formula gives its mean width over places.
#
# The right picture shows one thing more. The field is $92 \times 100$ here, but the gradient falls by powers of ten towards its rim: many paths lead from the middle to the output, and a single one from the corner. What a pixel *can* see is not what it attends to. Section 5 looks at the field
# of a trained network.
#
# ## 5. Training
#
# Scenes for training, drawn once and kept in memory; a network; the loop of `segedu.train`, which [chapter 11](11_training.ipynb) takes apart. The loss is [cross-entropy](06_cross_entropy.ipynb) over labelled pixels. The batches are small on purpose: in a fixed time, many noisy steps teach more than
# a few careful ones. The learning rate (学习率) rises for three tenths of the steps and then falls to zero. The coarsest level has 96 channels, not 128: it is quicker so.
#
# The scenes are somewhat easier than usual, `difficulty = 0.2` where 0.5 is the default: less noise, blur and uneven light. The default takes longer to learn.
#
# A scene turned by a right angle, or mirrored, is a scene as well. So each is turned anew every time it is seen, picture and mask together; [chapter 02](02_masks_and_data.ipynb) says why *together* is the hard part.


# %%
def turned(sample):
    """The sample turned by a random multiple of 90 degrees, and mirrored half of the time."""
    quarters, mirror = torch.randint(4, ()).item(), torch.rand(()) < 0.5
    both = {key: torch.rot90(x, quarters, (-2, -1)) for key, x in sample.items()}
    return {key: x.flip(-1) if mirror else x for key, x in both.items()}


one, other = (turned({"image": x, "mask": x[0]}) for x in torch.rand(2, 3, 5, 5))
check("picture and mask turn alike", one["image"][0].equal(one["mask"]), want=True)
check("another time as well", other["image"][0].equal(other["mask"]), want=True)

# %%
widths = (16, 32, 64, 96)
config = TrainConfig(
    epochs=epochs,
    batch_size=8,
    learning_rate=learning_rate,
    warmup=0.3,
    seed=seed,
    device=device,
)

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
train_data = drawn(
    Scenes(train_scenes, size=image_size, seed=2 * seed, difficulty=difficulty), "image", "mask"
)
held_out = drawn(Scenes(64, size=image_size, seed=2 * seed + 1, difficulty=difficulty))

# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
net = UNet(len(CLASSES), widths)
history = []
few = held_out[:16]
for epoch in fit(net, train_data, few, num_classes=6, config=config, augment=turned):
    history.append(epoch)
    seconds = time.perf_counter() - start
    print(f"{seconds:4.0f} s  loss {epoch.train_loss:.3f}  mean IoU {epoch.val_score:.3f}")

# %% [markdown]
# To save time, each epoch is scored on 16 held-out scenes only. No choice is made by their score: the last epoch is the one that counts, on all 64. So the final score is honest, up to the luck of 64 pictures and of the seed: train with another one to see how much; [chapter 08](08_metrics.ipynb) says how much luck that is.

# %% tags=["nbval-ignore-output"] alt="Left: training loss, falling, and held-out mean IoU, rising, against the epoch. Right: one bar for each of the six classes with its IoU on the held-out scenes."
scores = evaluate(net, held_out, num_classes=len(CLASSES), config=config)
fig, [left, right] = show.grid(1, 2, width=4.2, height=2.8)
left.plot([e.train_loss for e in history], "o-", color="black", label="training loss")
left.plot(
    [e.val_score for e in history],
    "s--",
    color=class_colours(3)[1] / 255,
    label="mean IoU, 16 held-out scenes",
)
left.set(
    title="The loss falls, the score rises", xlabel="epoch", xticks=range(epochs), ylim=(0, None)
)
left.legend()
show.bars(right, scores.iou(), CLASSES, "IoU of each class, held-out scenes")
check_at_least("mean IoU on held-out scenes", scores.mean_iou(), least_miou)


# %%
@torch.inference_mode()
def predicted(net, picture):
    """The class of each pixel of a picture (3, H, W): (H, W), on the CPU."""
    net.eval()
    where = next(net.parameters()).device
    return net(picture[None].to(where)).argmax(dim=1)[0].cpu()


# %% tags=["nbval-ignore-output"] alt="Four held-out scenes in four columns; in each, from above, the picture, its true mask, the predicted mask, and the pixels where the two differ, which lie mostly along the outlines and where two objects meet."
fig, axes = show.grid(4, 4, "Truth and prediction differ along outlines", width=1.9)
for column, sample in zip(axes.T, held_out[:4], strict=True):
    answer, truth = predicted(net, sample["image"]), sample["mask"]
    wrong = (answer != truth) & (truth != IGNORE)
    show.image(column[0], sample["image"], "scene")
    show.mask(column[1], truth, "truth", num_classes=6)
    show.mask(column[2], answer, "prediction", num_classes=6)
    where = torch.where(truth == IGNORE, IGNORE, 7 * wrong)
    show.mask(column[3], where, f"wrong: {wrong.double().mean():.1%}", num_classes=8)
show.legend(fig, CLASSES)

# %% tags=["nbval-ignore-output"]
by_place = miou_by_place(lambda s: predicted(net, s["image"]), held_out, len(CLASSES))
ceiling = miou_by_place(partial(coarse, factor=8), held_out, len(CLASSES))
for words, ours, eighth in zip(("everywhere", "near", "away"), by_place, ceiling, strict=True):
    print(f"{words:10}  U-Net {ours:.3f}   a perfect answer through 1/8 {eighth:.3f}")

# %% [markdown]
# ### What the trained network looks at
#
# Theory allows the middle pixel of a picture 92 columns and as many rows, nearly the whole scene. Take the gradient of the score of its predicted class in every pixel of the picture, and its absolute value, and average over held-out scenes. This is the *effective* receptive field
# (Luo et al. 2016). **Predict:** which share of the sum falls into the middle third by third, a ninth of the area?


# %%
def influence(net, pictures):
    """Mean absolute gradient of the middle pixel's highest logit in each pixel: (H, W)."""
    net.eval()
    image = pictures.clone().requires_grad_()
    middle = image.shape[-1] // 2
    logits = net(image)[..., middle, middle]  # (B, C)
    [slope] = torch.autograd.grad(logits.amax(dim=1).sum(), image)
    return slope.abs().mean(dim=(0, 1)).cpu()


# %% tags=["nbval-ignore-output"] alt="The mean gradient of the middle pixel over the scene: a bright spot in the middle that has faded to a hundredth half way to the border."
some = torch.stack([sample["image"] for sample in held_out[:32]]).to(pick_device(device))
attention = influence(net, some)
third = image_size // 3
share = (attention[third:-third, third:-third].sum() / attention.sum()).item()
fig, [ax] = show.grid(1, 1, width=4.2, height=3.2)
show.heat(
    ax,
    (attention / attention.max()).log10(),
    f"{share:.0%} of the influence from the middle ninth",
    low=-3,
)
check_at_least("share of the middle ninth", share, 0.4)

# %% [markdown]
# The field is a wide net with the knots near the middle. Luo et al. show that for random weights its width grows like the square root of the depth, not like the depth, and that training widens it.
#
# ## 6. What do skips give?
#
# "U-Net is sharp because of its skips." How would you find out? Take them away, train again, compare. The answer is worth no more than the care taken with *what else* changes:
#
# - Fewer channels into the blocks on the way up would mean fewer weights. So we keep the weights and feed **zeros** in place of the skips: same parameters, same time, same first weights.
# - A worse network might be worse everywhere. So we ask *where*: near boundaries or away from them.
# - One run is an anecdote. So we take three seeds, and show the spread.
# - Six kinds of object take long to tell apart. So we ask an easier question, **object or ground?**, on pictures of $48 \times 48$. What is left to get wrong is mostly the outline.


# %%
class WithoutSkips(UNet):
    """The same network with the same weights, whose skips carry zeros."""

    def forward(self, image):
        *fine, bottom = way_down(self.down, self.normalize(image))
        levels = [*map(torch.zeros_like, fine), bottom]
        return self.classify(way_up(self.up, levels))


# %%
def object_or_ground(samples):
    """The same samples with two classes: 0 for ground, 1 for any object; void stays."""
    merged = []
    for sample in samples:
        mask = sample["mask"]
        merged.append({**sample, "mask": torch.where(mask == IGNORE, IGNORE, mask.clamp(max=1))})
    return merged


# %% [markdown]
# **Predict** before you run it. Near boundaries: how much mean IoU do the skips bring, 0.01, 0.05 or 0.2? And away from them?


# %% tags=["nbval-ignore-output"]
def trained_and_scored(kind, learn, test, run):
    """Mean IoU everywhere, near boundaries and away from them, of a small network after training."""
    torch.manual_seed(run)
    small = kind(num_classes=2, widths=(8, 16, 32, 64))
    settings = replace(
        config, epochs=ablation_epochs, learning_rate=8e-3, batch_size=8, seed=run, warmup=0.2
    )
    _ = list(fit(small, learn, test[:1], num_classes=2, config=settings))
    return miou_by_place(lambda sample: predicted(small, sample["image"]), test, 2)


# %% tags=["nbval-ignore-output"]
results = {UNet: [], WithoutSkips: []}
for run in range(seed, seed + ablation_seeds):
    learn = Scenes(ablation_scenes, size=48, seed=2 * run)
    learn, test = (
        object_or_ground(drawn(scenes)) for scenes in (learn, Scenes(64, size=48, seed=2 * run + 1))
    )
    for kind, scores_of_runs in results.items():
        scores_of_runs.append(trained_and_scored(kind, learn, test, run))
        everywhere, near, away = scores_of_runs[-1]
        print(
            f"seed {run}, {kind.__name__:12} {everywhere:.3f}   near {near:.3f}   away {away:.3f}"
        )

# %% tags=["nbval-ignore-output"] alt="Mean IoU with and without skips, one dot for each seed, for all pixels, pixels near a boundary, and pixels away from it. Near boundaries the dots are far apart, away from them they lie close together."
fig, [ax] = show.grid(1, 1, width=6, height=2.8)
labels = ("with skips", "zeros in their place")
for runs, label, offset, colour in zip(
    results.values(), labels, (-0.08, 0.08), (6, 7), strict=True
):
    at = np.arange(3) + offset + np.zeros((len(runs), 1))
    ax.scatter(at, runs, color=class_colours(8)[colour] / 255, alpha=0.8, label=label)
ax.set(
    xticks=range(3),
    xticklabels=["everywhere", "near a boundary", "away from it"],
    ylabel="mean IoU",
)
ax.set(title="Skips help where things end", xlim=(-0.5, 2.5))
_ = ax.legend()
# %% tags=["nbval-ignore-output"]
gain = np.array(results[UNet]) - np.array(results[WithoutSkips])  # (seeds, 3)
check_at_least("gain near boundaries, each seed", gain[:, 1], least_gain)
check_at_least("gain near minus gain away, each seed", gain[:, 1] - gain[:, 2], least_gain)

# %% [markdown]
# At every seed the skips gain near boundaries, and they do more there than away from them. That is what the numbers carry. Seeds differ, as the dots show. And away from them the network *without* skips may even be the better one in so short a training: it has less to sort out. They do not say that a network without skips *cannot* be sharp: trained longer, it gets better at guessing outlines from what reaches the bottom, where 64 channels on $6 \times 6$ places can code
# a good deal of where an edge runs. They do not say that the skips of all levels matter alike; exercise 4 asks that. And they were measured on one small question.
#
# Where does the sharpness come from? Look at what meets at the finest level of the large network: what came across, and what came from below.

# %% tags=["nbval-ignore-output"]
with torch.inference_mode():
    picture = held_out[0]["image"][None].to(pick_device(device))
    across = way_down(net.down, net.normalize(picture))
    below = way_up(net.up[1:], across[1:])
    below = F.interpolate(below, size=across[0].shape[-2:], mode="nearest")

# %% tags=["nbval-ignore-output"] alt="A held-out scene and maps that meet at the finest level of the trained network. Top: channels of the skip, fine lines, textures and outlines. Bottom: channels from below, enlarged from half the size, blocky areas that follow whole objects."
fig, axes = show.grid(2, 4, "What crosses has edges, what rises has areas", width=1.9)
for row, maps, title in zip(axes, (across[0][0], below[0]), ("skip", "from below"), strict=True):
    show.image(row[0], picture[0], "scene")
    strongest = maps.flatten(1).std(dim=1).argsort(descending=True)[:3]
    for ax, channel in zip(row[1:], strongest.tolist(), strict=True):
        ax.imshow(maps[channel].cpu().numpy(), cmap="cividis")
        ax.set(title=f"{title}, channel {channel}", xticks=[], yticks=[])

# %% [markdown]
# ## 7. Tiles: a large picture through a small memory
#
# The paper's pictures have $512 \times 512$ pixels and more, its graphics card had 6 GB. So it cuts. And it does **not pad** its convolutions: each takes a pixel from every side, so that every output pixel has seen real picture only. The output is then smaller than the input.
#
# By hand for the paper's five levels, "two convolutions" taking 4 from height and width:
#
# | | level 0 | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|---|
# | down: in, out | 572, 568 | 284, 280 | 140, 136 | 68, 64 | 32, 28 |
# | up: in, out | 392, 388 | 200, 196 | 104, 100 | 56, 52 | |
#
# A skip is larger than what rises from below, 568 beside 392, so the paper crops it to the middle.


# %%
def unpadded_size(size, levels):
    """Height of the output of a U-Net without padding, for an input of height `size`."""
    for level in range(levels):
        if level:
            if size % 2:
                raise ValueError(f"{size} rows at level {level - 1} do not divide into pairs")
            size //= 2
        size -= 4
    for _ in range(levels - 1):
        size = 2 * size - 4
    return size


check("the paper's tile", unpadded_size(572, levels=5), 388)
check("rows lost on each side", (572 - unpadded_size(572, levels=5)) / 2, 92)

# %% [markdown]
# This is the **overlap-tile** strategy (重叠切块): to get 388 rows of answer, give the network 572 rows of picture. Neighbouring tiles overlap in the picture and meet in the answer, and because nothing is padded, they fit together exactly. At the rim of the picture, where 92 rows are missing, it **mirrors** the
# picture: cells at the border then look as if they went on, where zeros would look like nothing in the training set.

# %% alt="A scene of 96 x 96 pixels in a white frame in the middle of its own mirror images, which go on for 92 pixels to each side. Objects that the border cuts become whole, symmetric shapes."
fig, [ax] = show.grid(1, 1, width=3.4)
margin = min(92, image_size - 1)  # a mirror shows no more than there is
mirrored = F.pad(held_out[1]["image"], [margin] * 4, mode="reflect")
show.image(ax, mirrored, f"Mirrored by {margin} pixels on each side")
a, b = margin - 0.5, margin + image_size - 0.5
_ = ax.plot([a, b, b, a, a], [a, a, b, b, a], color="white", linewidth=2)
# %% [markdown]
# Our network pads. At the border of a tile its zeros stand in for pixels that the picture has, and the answer differs from that of the whole picture. How much margin must a tile have, to be cut off afterwards? Section 4 knows. Let the tile proper begin at column $8k$. By the closed form its first
# column sees back to $8k - 46$, and no other column sees farther back; at the other end it is the same. **So a margin of 46 is enough.**
#
# There is a second condition. The cells of eight must lie in the window as they lie in the picture: it has to start at a multiple of 8. The least margin that does both is 48.
#
# **Predict:** what if the window starts at a multiple of 4, with *more* margin? Put nine held-out scenes together to one picture of three times the size, and compute its middle in several ways. In double precision, so that "equal" means something.

# %%
k = 16
check("the first column of a tile sees back by", 8 * k - (8 * ((8 * k - 14) // 8) - 30), 46)
check("the last sees ahead by", 8 * ((8 * k - 1 + 14) // 8) + 37 - (8 * k - 1), 46)


@torch.inference_mode()
def tile_logits(net, picture, start, size, margin):
    """Logits of the square from (start, start), from a window with a margin that is then cut off."""
    window = picture[None, :, *[slice(start - margin, start + size + margin)] * 2]
    return net(window)[0, :, margin : margin + size, margin : margin + size]


# %%
exact = copy.deepcopy(net).cpu().double().eval()
nine = [sample["image"].double() for sample in held_out[:9]]
mosaic = torch.cat([torch.cat(nine[i : i + 3], dim=2) for i in (0, 3, 6)], dim=1)

# %% tags=["nbval-ignore-output"]
start = size = 8 * (image_size // 8)  # the middle of the nine
with torch.inference_mode():
    middle = exact(mosaic[None])[0, :, start : start + size, start : start + size]
error = {}
print("margin  window starts at   largest error of a logit   pixels of another class")
for margin in (0, 16, 32, 40, 48, 44, 52):
    tile = tile_logits(exact, mosaic, start, size, margin)
    error[margin] = (tile - middle).abs().amax(dim=0)
    other = (tile.argmax(dim=0) != middle.argmax(dim=0)).double().mean()
    print(f"{margin:6}  {start - margin:16}   {error[margin].max():24.1e}   {other:23.2%}")

# %% tags=["nbval-ignore-output"] alt="Errors of the tile's logits on a logarithmic scale for four windows. Without margin the error is large along the rim, with 16 pixels less of it is left, and none in the middle, with 48 there is none, and with 52, which starts between cells, there is error everywhere."
fig, axes = show.grid(1, 4, "Error of a tile's logits, powers of ten", width=2.8, height=2.4)
for ax, margin in zip(axes, (0, 16, 48, 52), strict=True):
    title = f"margin {margin}" + ", not in step" * (margin % 8 > 0)
    show.heat(ax, error[margin].clamp(min=1e-9).log10(), title, low=-9, high=1)
check("with a margin of 48: largest error", error[48].max(), 0.0, tol=1e-9)
check_at_least("with 40 it is not the same", error[40].max(), 1e-9)
check_at_least("out of step, with 44 or 52", [error[m].max() for m in (44, 52)], 1e-4)
check_at_least("share of pixels in error, out of step", (error[52] > 1e-9).double().mean(), 0.99)

# %% [markdown]
# A margin of 48 gives the whole picture's answer to the last digits. Smaller ones miss little, and less with every pixel: the effective field is narrow. But a window out of step is wrong *everywhere*, and no margin helps, since each pixel gets other partners to pool with.
#
# Is it wrong, though, or only different? Either answer is one the network might have given. But tiles that disagree make seams where they meet. [Chapter 22](22_deploy.ipynb) cuts pictures of any size this way, and blends.
#
# ## 8. Borders where objects touch
#
# The paper's cells touch. A network that finds nearly all pixels right, but bridges one gap of two pixels, makes one cell of two. To the mean over pixels those two pixels are nothing. So the paper weights them:
#
# $$w(x) = w_c(x) + w_0 \exp\!\left( - \frac{(d_1(x) + d_2(x))^2}{2 \sigma^2} \right).$$
#
# Here $x$ is a pixel, $w_c$ balances the classes, $d_1$ is the distance (距离) from $x$ to the nearest cell and $d_2$ to the second nearest, $w_0 = 10$ and $\sigma \approx 5$ pixels (section 3, eq. 2).
#
# By hand, on a line between two cells with $g$ ground pixels between: from any of them, one step to the left and one to the right add up to $d_1 + d_2 = g + 1$. So the weight is the same all across the gap. For $g = 1$ the second term is $10\, e^{-4/50} = 9.23$; for $g = 9$ it is $10\, e^{-2} = 1.35$;
# for $g = 19$ it is $10\, e^{-8} = 0.003$.


# %%
def gap_weight(cells, w0=10.0, sigma=5.0):
    """The paper's second term on the ground between cells (n, H, W) bool: (H, W); 0 in the cells."""
    ground = ~cells.any(axis=0)
    if len(cells) < 2:
        return np.zeros(ground.shape)
    apart = np.stack([ndimage.distance_transform_edt(~cell) for cell in cells])
    nearest, second = np.sort(apart, axis=0)[:2]
    return ground * w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))


# %%
for gap, by_hand in ((1, 9.2312), (9, 1.3534), (19, 0.0034)):
    line = np.zeros((2, 1, 31), dtype=bool)
    line[0, :, :6] = line[1, :, 6 + gap :] = True
    weight = gap_weight(line)[0, 6 : 6 + gap]
    check(f"across a gap of {gap}", weight, np.full(gap, by_hand), tol=5e-5)

# %% [markdown]
# Scenes have objects that cover one another: they touch with no ground between. The paper's cells did too, and section 3 says how it was made room: "the separation border is computed using morphological operations". We take a pixel off each object's outline by erosion (腐蚀). Ask for *objects* against *ground*, as for cells:


# %%
def as_cells(sample):
    """Each object without the outermost pixels of its outline: (n, H, W) bool."""
    masks = sample["masks"].numpy()
    return np.stack([ndimage.binary_erosion(mask, border_value=1) for mask in masks])


# %%
crowd = max(held_out[:32], key=lambda sample: gap_weight(as_cells(sample)).sum())
cells = as_cells(crowd)
is_cell = cells.any(axis=0)
balance = np.where(is_cell, 0.5 / is_cell.mean(), 0.5 / (1 - is_cell.mean()))  # w_c, mean 1
weight = torch.from_numpy(balance + gap_weight(cells))
check(
    "the classes' shares of w_c",
    [balance[is_cell].sum(), balance[~is_cell].sum()],
    is_cell.size / 2,
    tol=1e-6,
)

# %% alt="A crowded scene, its objects as cells with thin dark gaps between them, and the weight map: about one everywhere, and up to ten in the gaps, as bright lines."
fig, axes = show.grid(1, 3, "Narrow gaps weigh most", width=3)
show.image(axes[0], crowd["image"], "scene")
show.mask(axes[1], torch.from_numpy(is_cell).long(), "cells, a pixel thinner", num_classes=2)
show.heat(axes[2], weight, "weight of each pixel")
narrow = gap_weight(cells) >= 10 * np.exp(-(6**2) / 50)  # d1 + d2 at most 6: gaps of up to 5
pixels, share = narrow.mean(), (weight.numpy()[narrow].sum() / weight.sum()).item()
print(f"narrow gaps are {pixels:.1%} of the pixels and have {share:.1%} of the weight")
check_at_least("a gap pixel weighs more than the mean pixel, times", share / pixels, 3.0)

# %% [markdown]
# The weight enters the loss of [chapter 06](06_cross_entropy.ipynb) as a factor of each pixel's term, and its gradient as well. With $\ell_x$ the cross-entropy (交叉熵) at pixel $x$, $p$ and one-hot $y$ as there:
#
# $$L = \frac{\sum_x w(x)\, \ell_x}{\sum_x w(x)}, \qquad \frac{\partial L}{\partial z_x} = \frac{w(x)\,(p_x - y_x)}{\sum_{x'} w(x')}.$$
#
# The paper's eq. 1 is a sum, not a mean, and is printed without its minus sign.


# %%
def weighted_cross_entropy(logits, target, weight):
    """Cross-entropy of logits (B, C, H, W), each pixel counted by its weight (B, H, W)."""
    losses = F.cross_entropy(logits, target, reduction="none")
    return (weight * losses).sum() / weight.sum()


# %%
target = torch.from_numpy(is_cell).long()[None]
noise = torch.Generator().manual_seed(seed)
z = torch.randn(1, 2, *is_cell.shape, generator=noise, dtype=torch.float64, requires_grad=True)
weighted_cross_entropy(z, target, weight[None]).backward()
y = F.one_hot(target, 2).movedim(-1, 1)
check("gradient", z.grad, weight / weight.sum() * (z.softmax(dim=1) - y), tol=1e-12)
even = weighted_cross_entropy(z, target, torch.ones_like(weight)[None])
check("all weights 1: plain cross-entropy", even, F.cross_entropy(z, target), tol=1e-12)

# %% [markdown]
# At the start of training all $p_x$ are alike. Then a pixel's share of the gradient is its share of the weight: three times and more what it was. That is all the map does. It does not tell the network *how* to find the gap.
#
# ## 9. Membranes
#
# What U-Net was made for: slices of nerve tissue under the electron microscope, 512 x 512 grey pixels, membrane or cell (ISBI 2012). 24 slices to learn from, and the six below them, held out as a block, because neighbouring slices show nearly the same. The paper had 30, and made them many by shifts, turns and
# elastic deformations. Here: random crops of 160 x 160, flips, and some change of brightness. The network is the one of section 5, started anew, with two classes.
#
# Without the set these cells only say how to get it.

# %% tags=["nbval-ignore-output"]
slices = {}
if catalog.available("membranes"):
    slices = {split: drawn(catalog.load("membranes", split=split)) for split in ("train", "val")}
    torch.manual_seed(seed)
    tissue = UNet(2, widths)
    settings = replace(config, epochs=membrane_epochs, batch_size=4, learning_rate=5e-3)
    crop = random_crop(160, 160, colour=0.2)
    learn, test = slices["train"] * membrane_crops, slices["val"][:2]
    for epoch in fit(tissue, learn, test, num_classes=2, config=settings, augment=crop):
        print(f"loss {epoch.train_loss:.3f}  mean IoU {epoch.val_score:.3f}")
else:
    print("The membranes are not here; `segedu data get membranes` downloads them.")

# %% tags=["nbval-ignore-output"] alt="A held-out slice of tissue, its true mask of cells and dark membranes between them, and the predicted mask, with some membranes broken."
if slices:
    sample = slices["val"][3]
    fig, axes = show.grid(1, 3, "A slice the network has not seen", width=3)
    show.image(axes[0], sample["image"], "slice")
    show.mask(axes[1], sample["mask"], "truth: membrane is dark", num_classes=2)
    show.mask(axes[2], predicted(tissue, sample["image"]), "prediction", num_classes=2)
    scores = evaluate(tissue, slices["val"], num_classes=2, config=settings)
    print("IoU of membrane and cell:", scores.iou())
    check_at_least("mean IoU on held-out slices", scores.mean_iou(), least_membrane_miou)

# %% [markdown]
# Look for breaks in the membranes: each joins two cells into one, and costs a few pixels only. For that reason the challenge scored errors of splitting and merging besides those of pixels; [chapter 19](19_instance_metrics.ipynb) has scores that count objects.
#
# ## 10. What goes wrong
#
# ### An odd number of rows
#
# The shortest way up is `scale_factor=2`, and the shortest way down is `F.max_pool2d(x, 2)`. **Predict** what happens to a picture of 97 rows.

# %%
x = torch.rand(1, 4, 97, 96)
smaller = F.max_pool2d(x, 2)
enlarged = F.interpolate(smaller, scale_factor=2, mode="nearest")
check("rows on the way down", smaller.shape[2], 48)
check("and on the way up", enlarged.shape[2], 96)
try:
    torch.cat([x, enlarged], dim=1)
except RuntimeError as error:
    print("RuntimeError:", str(error).splitlines()[0])

# %% [markdown]
# 97 and 96 cannot stand side by side. It works for multiples of 8 and fails on the first picture that is not one. Three ways out: ask for multiples of 8 and mirror up to them; keep the last row by `ceil_mode` and enlarge *to the size of the skip*, as here; crop the skip to the smaller one, as the paper does, which
# loses the last row of the answer. Resizing the *mask* to whatever came out is none of them: it blurs what the skips were for.
#
# ### Evaluation in training mode
#
# Batch normalisation has two ways of working. In training it normalises by the mean and spread of the batch at hand; after `net.eval()` by averages that it has gathered. Forget the call, and nothing fails. **Predict** what a picture's answer then depends on, besides the picture.

# %% tags=["nbval-ignore-output"]
forgetful = copy.deepcopy(net).cpu().train()
one = held_out[0]["image"][None]
few = torch.stack([sample["image"] for sample in held_out[:8]])
with torch.no_grad():
    alone, among = forgetful(one)[0], forgetful(few)[0]
    for _ in range(3):
        forgetful(torch.zeros_like(few))  # three dark batches pass by
    after = forgetful.eval()(one)[0]
    before = copy.deepcopy(net).cpu().eval()(one)[0]

# %% tags=["nbval-ignore-output"]
differ = (alone.argmax(dim=0) != among.argmax(dim=0)).double().mean().item()
spoilt = (after.argmax(dim=0) != before.argmax(dim=0)).double().mean().item()
print(f"alone or among seven others: {differ:.1%} of its pixels change class")
print(f"in evaluation mode, but after dark batches in training mode: {spoilt:.1%}")
check_at_least("the company changes the logits by up to", (alone - among).abs().max(), 0.01)
check_at_least("dark batches leave a trace of up to", (after - before).abs().max(), 0.01)

# %% [markdown]
# The same picture gets two answers, depending on its neighbours in the batch. And worse, every picture that passes in training mode moves the averages, although nothing was "trained": the damage stays after `eval()` is called at last.
# Our `predicted` and `segedu.train.evaluate` call it themselves.
#
# ## 11. In the article
#
# > **In the article, 3.1 and question 2.** U-Net, FCN and DeepLab "extract features by convolution, and classify them by fully connected layers". None of the three has a fully connected layer (全连接层); FCN turned those of its classifier into convolutions. One layer that sees all places at once would fix the picture's size and mix up where things are;
# > what classifies is a $1 \times 1$ convolution, the same 17 numbers per class at each pixel.

# %%
kinds = [type(module) for module in UNet(6, (16, 32, 64, 128)).modules()]
check("fully connected layers in our U-Net", kinds.count(nn.Linear), 0)
check("in the package's", sum(isinstance(m, nn.Linear) for m in package.modules()), 0)
check("numbers per class in the classifier", weights_of(package.classify) / 6, 17)
one_by_one = package.classify.weight[:, :, 0, 0], package.classify.bias
features = torch.rand(2, 16, 5, 7)
as_linear = F.linear(features.movedim(1, -1), *one_by_one).movedim(-1, 1)
same = torch.allclose(package.classify(features), as_linear, atol=1e-5)
check("it is one linear map, applied at each pixel", same, want=True)

# %% [markdown]
# > **In the article, 3.1: "the decoding layer maps the classification result to pixels".** In a U-Net nothing has been classified when decoding begins. What rises has 128, 64, 32 and 16 channels, none of which is a class; the six classes appear in the last layer only. In FCN it is so as the article says:
# > it scores on the small map, and enlarges the scores.

# %%
made = [sizes[name][1][0] for name in ("down 3", "up 2", "up 1", "up 0", "classify")]
check("channels of what rises", made, [128, 64, 32, 16, 6])

# %% [markdown]
# > **In the article, 7.3.** U-Net is listed without authors, date or venue, and said to segment *lesions*. The reference is O. Ronneberger, P. Fischer, T. Brox, MICCAI 2015. There is no lesion in it: its three data sets are membranes of nerve tissue in electron microscopy, and two of living cells in light microscopy
# > (section 4; PhC-U373 and DIC-HeLa in table 2).
#
# ## 12. Three quick questions
#
# **1.** A picture of $100 \times 100$ goes through our four levels. How large are the maps? And without `ceil_mode`?
#
# <details><summary>Answer</summary>
#
# 100, 50, 25, 13. Without `ceil_mode` the last is 12, which enlarged by two makes 24 beside a skip of 25.
#
# </details>
#
# **2.** You double all widths. What happens to the number of weights, and what to the receptive field?
#
# <details><summary>Answer</summary>
#
# About four times the weights: each convolution has twice as many channels on both sides. The receptive field stays as it was; it knows kernels and strides, not channels.
#
# </details>
#
# **3.** Your tiles overlap by 200 pixels, and still there are seams. The windows start at multiples of 100. Why?
#
# <details><summary>Answer</summary>
#
# 100 is a multiple of 4 and not of 8. Every second window pools other pixels together than its neighbour does. Start at multiples of 96 or 104.
#
# </details>

# %%
hundred = [x.shape[2] for x in way_down(package.down, torch.rand(1, 3, 100, 100))]
check("1: the maps", hundred, [100, 50, 25, 13])
check("1: the last without ceil_mode", F.max_pool2d(torch.rand(1, 1, 25, 25), 2).shape[2], 12)
check("2: the weights, times", wider, 4, tol=0.05)
check("3: the windows' starts modulo 8", [start % 8 for start in (0, 100, 200, 300)], [0, 4, 0, 4])
check("3: 96 and 104 modulo 8", [96 % 8, 104 % 8], 0)

# %% [markdown]
# ## 13. Exercises
#
# ### Exercise 1: what would dropping the skips save?
#
# Section 6 fed zeros, to keep the weights. Who drops the skips for good can also drop the weights that read them. How many is that? One line.


# %% tags=["exercise"]
def weights_saved(widths):
    """Weights that a U-Net of these widths (finest first) no longer needs without its skips."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda widths: sum(9 * f * f for f in widths[:-1]),
    inputs=[([1, 2],), ([8, 8, 8],), ([16, 32, 64, 128],), ([64, 128, 256, 512, 1024],)],
    misconceptions={
        "the coarsest level has no skip: there is no block up beside it": lambda widths: sum(
            9 * f * f for f in widths
        ),
        "the first convolution of a block reads the skip, the second does not": lambda widths: sum(
            18 * f * f for f in widths[:-1]
        ),
        "each weight reads one skip channel and writes one channel: f times f, times 9": lambda widths: (
            sum(9 * f for f in widths[:-1])
        ),
        "those are the weights that read the map from below; it stays": lambda widths: sum(
            9 * f * g for f, g in pairwise(widths)
        ),
    },
)
exercise.check(weights_saved)


# %% tags=["solution"]
def weights_saved(widths):
    """D(f + g, f) - D(g, f) = 9 f f, for every level but the coarsest."""
    return sum(block_weights(f + g, f) - block_weights(g, f) for f, g in pairwise(widths))


print(f"{weights_saved([16, 32, 64, 128]) / unet_weights(6, (16, 32, 64, 128)):.0%} of our network")
exercise.check(weights_saved)

# %% [markdown]
# ### Exercise 2: a receptive field with dilation
#
# A convolution with dilation (空洞) $d$ leaves $d - 1$ pixels out between its taps; [chapter 12](12_context.ipynb) builds on it. Write the receptive field of any chain of layers, each given as (kernel, stride, dilation).


# %% tags=["exercise"]
def field_width(layers):
    """Width of the receptive field after layers of (kernel, stride, dilation)."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def field_by(step, r=1, j=1):
    """A function of the layers that applies `step(r, j, kernel, stride, dilation)` for each."""

    def width(layers, r=r, j=j):
        for layer in layers:
            r, j = step(r, j, *layer)
        return r

    return width


exercise = Exercise(
    solution=field_by(lambda r, j, k, s, d: (r + (k - 1) * d * j, j * s)),
    inputs=[
        ([],),
        ([(3, 1, 1)],),
        ([(3, 1, 1), (2, 2, 1), (3, 1, 1)],),
        ([(3, 2, 1), (3, 2, 1), (3, 2, 1)],),
        ([(3, 1, 1), (3, 1, 2), (3, 1, 4), (1, 1, 8)],),
        ([(7, 2, 1), (3, 2, 1), (3, 1, 6), (5, 1, 2)],),
    ],
    misconceptions={
        "the jump grows after the layer, not before: its own stride does not widen it": field_by(
            lambda r, j, k, s, d: (r + (k - 1) * d * j * s, j * s)
        ),
        "widths multiplied; each layer adds": field_by(lambda r, j, k, _s, _d: (r * k, j)),
        "dilation is missing: the taps are d pixels apart": field_by(
            lambda r, j, k, s, _d: (r + (k - 1) * j, j * s)
        ),
        "a layer adds k - 1 steps, not k": field_by(lambda r, j, k, s, d: (r + k * d * j, j * s)),
        "stride is missing: after it, a step is s times as wide": field_by(
            lambda r, j, k, _s, d: (r + (k - 1) * d, j)
        ),
    },
)
exercise.check(field_width)


# %% tags=["solution"]
def field_width(layers):
    """A kernel of k taps spans k - 1 steps of d jumps each."""
    r, j = 1, 1
    for kernel, stride, dilation in layers:
        r += (kernel - 1) * dilation * j
        j *= stride
    return r


print("three convolutions, dilated by 1, 2, 4:", field_width([(3, 1, 1), (3, 1, 2), (3, 1, 4)]))
exercise.check(field_width)

# %% [markdown]
# ### Exercise 3: a tile for the answer you want
#
# Section 7 went from the input to the output of a network without padding. Planning goes the other way: for `wanted` rows of answer, what is the *smallest* input whose maps divide into pairs at every level, and whose output has at least that many rows?
# Start at the bottom: let $n$ be the rows of the coarsest map before its convolutions. Which $n$ is large enough, and what do the levels above it need?


# %% tags=["exercise"]
def tile_for(wanted, levels):
    """Rows of the smallest valid input of an unpadded U-Net with at least `wanted` rows of output."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def smallest_tile(wanted, levels):
    """Try them all."""
    size = wanted
    while True:
        try:
            if unpadded_size(size, levels) >= wanted:
                return size
        except ValueError:
            pass
        size += 1


exercise = Exercise(
    solution=smallest_tile,
    inputs=[(388, 5), (389, 5), (1, 2), (100, 4), (128, 3), (96, 1)],
    misconceptions={
        "the margin alone: the maps must also divide into pairs at every level": lambda wanted, levels: (
            wanted + 12 * 2 ** (levels - 1) - 8
        ),
        "the way up takes four rows at each level too": lambda wanted, levels: next(
            size
            for n in range(5, wanted + 9)
            if (size := 2 ** (levels - 1) * (n + 4) - 4) and 2 ** (levels - 1) * (n - 4) >= wanted
        ),
        "one unit too many where the answer fits exactly": lambda wanted, levels: smallest_tile(
            wanted + 1, levels
        ),
    },
)
exercise.check(tile_for)


# %% tags=["solution"]
def tile_for(wanted, levels):
    """Up from n at the bottom the output is cells (n - 4) - lost, and down to it the input cells n + lost."""
    cells = 2 ** (levels - 1)
    lost = 4 * (cells - 1)
    n = 4 + -(-(wanted + lost) // cells)  # divided, rounded up
    return cells * n + lost


print("for 388 rows:", tile_for(388, 5), " for 389:", tile_for(389, 5))
exercise.check(tile_for)

# %% [markdown]
# ### Exercise 4: which skip matters most?
#
# A small experiment on the network of section 5, without training it again. Write a function that silences the skips of the levels in `silent`: it returns the maps with those replaced by zeros. The solution then silences one at a time, and scores.
#
# **Predict** the order first: the finest, the middle or the coarsest skip? And say what this measures, and section 6 did not.


# %% tags=["exercise"]
def silence(levels, silent):
    """The maps of all levels, finest first, as a new list, with zeros for the levels in `silent`."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
some_maps = [torch.rand(1, 2, 8, 8), torch.rand(1, 3, 4, 4), torch.rand(1, 4, 2, 2)]
exercise = Exercise(
    solution=lambda levels, silent: [
        torch.zeros_like(x) if i in silent else x for i, x in enumerate(levels)
    ],
    inputs=[(some_maps, []), (some_maps, [0]), (some_maps, [1]), (some_maps, [0, 2])],
    misconceptions={
        "left out; the way up then pairs the wrong levels": lambda levels, silent: [
            x for i, x in enumerate(levels) if i not in silent
        ],
        "those are the ones to keep": lambda levels, silent: [
            x if i in silent else torch.zeros_like(x) for i, x in enumerate(levels)
        ],
        "level 0 is the finest, the first of the list": lambda levels, silent: [
            torch.zeros_like(x) if len(levels) - 1 - i in silent else x
            for i, x in enumerate(levels)
        ],
    },
)
exercise.check(silence)


# %% tags=["solution", "nbval-ignore-output"]
def silence(levels, silent):
    """Zeros have the shape, type and device of what they replace."""
    return [torch.zeros_like(x) if i in silent else x for i, x in enumerate(levels)]


@torch.inference_mode()
def without(silent, sample):
    """The trained network's answer for a sample with some skips silent."""
    image = sample["image"][None].to(pick_device(device))
    levels = silence(way_down(net.down, net.normalize(image)), silent)
    return net.classify(way_up(net.up, levels)).argmax(dim=1)[0].cpu()


for silent in ([], [0], [1], [2]):
    everywhere, near, away = miou_by_place(partial(without, silent), held_out[:32], 6)
    print(f"silent {silent!s:4} mean IoU {everywhere:.3f}   near {near:.3f}   away {away:.3f}")
exercise.check(silence)

# %% [markdown]
# Section 6 asked what a network can learn without skips. This asks how much a network that *has learned with them* relies on each. A part can be relied on heavily and still be replaceable, had it never been there. So the two answers may differ, and a large drop here is no proof that the skip was needed.
#
# ## Summary
#
# Symbols: widths $w_0, \dots, w_{L-1}$ of $L$ levels, finest first; $C$ classes; field width $r$ and jump $j$ in pixels; kernel $k$, stride $s$; output column $p$; pixel $x$ with weight $w(x)$.
#
# $$
# \begin{aligned}
# & \text{weights of a block} && D(a, b) = 9ab + 9b^2 + 4b \\
# & \text{weights of the network} && W = D(3, w_0) + \sum_{i=1}^{L-1} D(w_{i-1}, w_i) + \sum_{i=0}^{L-2} D(w_i + w_{i+1}, w_i) + C (w_0 + 1) \\
# & \text{field, mean over places} && r \leftarrow r + (k - 1)\, j, \quad j \leftarrow j s \\
# & \text{field of column } p \text{, four levels} && 8 \lfloor (p - 14)/8 \rfloor - 30 \ \dots \ 8 \lfloor (p + 14)/8 \rfloor + 37 \\
# & \text{weight where objects touch} && w(x) = w_c(x) + w_0 \exp\!\big( {-(d_1 + d_2)^2} / 2\sigma^2 \big) \\
# & \text{what the weight does} && \frac{\partial L}{\partial z_x} = w(x)\,(p_x - y_x) \Big/ \sum_{x'} w(x')
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. What pooling has thrown away no decoder can bring back; a skip never threw it away. The gain is near boundaries, and that is where to measure it.
# 2. A pooling network treats places alike only up to shifts by $2^{L-1}$. Hence the field that varies with place, and tiles that must start in step.
# 3. To learn what a part does, remove it and keep all else: weights, seeds, data. Then look *where* the score changed.
#
# **To read**
#
# - O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015: section 2 and figure 1 (the network), figure 2 (overlap-tile), section 3 (eq. 1 and 2), section 3.1 (augmentation), section 4 (results).
# - J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015: section 4.2, skips that add.
# - W. Luo, Y. Li, R. Urtasun, R. Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NIPS 2016: section 2 (theory), section 3 (measurements).
# - A. Odena, V. Dumoulin, C. Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016: copying against transposed convolution.
# - S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015: section 3.1, training against inference.
#
# **Next.** The training cell of section 5 hid a good deal: why that learning rate, that warm-up, that batch? [Chapter 11](11_training.ipynb) opens the loop.

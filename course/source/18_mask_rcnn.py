# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How does each object get a mask of its own?
#
# [Chapter 17](17_region_proposals.ipynb) ended with boxes: places where an object might be. This chapter looks into each of them again, and asks three things: *what is it, where exactly, and which pixels?* The last answer, a mask for each box, is what makes Faster R-CNN into **Mask R-CNN**. It hangs on a detail that detection had ignored for years: boxes lie between the pixels of a feature map, and whoever rounds them draws every mask a little beside its object.
#
# **You will be able to**
#
# - say which two roundings RoIPool makes, and how many pixels of the picture they cost at each stride;
# - compute RoIAlign by hand, derive its gradient, and find an `aligned` set wrongly by half a pixel;
# - explain why each class has a mask of its own with a sigmoid, and which weights each of the five losses moves;
# - paste masks back into the picture, and measure what is lost there;
# - train the whole model, score it, sort its failures, and say when a watershed without boxes would do.
#
# *60 minutes. Before: [convolution arithmetic](05_convolution_arithmetic.ipynb) for half-pixel centres, [cross-entropy](06_cross_entropy.ipynb), [boxes and anchors](16_boxes_and_anchors.ipynb), [region proposals](17_region_proposals.ipynb). On paper: a weighted mean, and the chain rule.*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 128  # height and width of the scenes of sections 7 and 8
rounded_scenes = 16  # for the price of rounding
train_scenes = 48  # of 64 x 64 pixels, for the short training
steps = 36  # of it
least_fall = 0.85  # the sum of the five losses at its end, as a share of the beginning, at most
test_scenes = 64  # for the trained model's score
least_ap = 0.5  # of its masks
least_gap = 0.1  # by which easy objects are found better than difficult ones
heaps_count = 6  # drawn pictures of nuclei
most_nuclei = 12  # real ones, where there are any

# %%
import inspect
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from matplotlib.patches import Rectangle
from scipy import ndimage
from skimage import feature, filters, segmentation
from torch import nn

# %%
from segedu import show, widgets
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog
from segedu.data.scenes import CLASSES, Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.metrics.instances import InstanceAP
from segedu.models.mask_rcnn import heads, roi_align
from segedu.models.mask_rcnn.model import maskrcnn_trunk
from segedu.models.mask_rcnn.paste import crop_masks, paste_masks
from segedu.palette import class_colours
from segedu.predict import load_trained, shipped

# %%
colours = class_colours(8) / 255
RED, BLUE, ORANGE = colours[7], colours[6], colours[1]
generator = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## 1. A box between the pixels: two roundings
#
# A **region of interest** (感兴趣区域), RoI for short, is a box $(x_1, y_1, x_2, y_2)$ in pixels of the picture. The features are those of the pyramid: one cell for every $s \times s$ pixels, $s$ the stride. The heads that look at a region are small networks with weights for a fixed size, say $7 \times 7$. So whatever the size of the box, its features must be brought to $P \times P$ **bins** (格), and the box hardly ever ends where a cell ends.
#
# **RoIPool**, of Fast R-CNN (2015), makes whole numbers of it:
#
# 1. The box is divided by $s$ and *rounded*; the cells from the first to the last belong to it, both included.
# 2. It is divided into $P$ parts, each *rounded* to whole cells, the beginning down and the end up. The largest value in each part is its bin.
#
# By hand, along one axis: $x_1 = 27$, $x_2 = 138$, $s = 16$, $P = 7$. Then $27/16 = 1.69$ becomes 2, and $138/16 = 8.63$ becomes 9. Cells 2 to 9 are eight cells, which the picture has in its pixels 32 to 160.
#
# **Predict:** the first of the seven bins should cover the pixels 27 to 43. Which does it read?


# %%
def nearest(x):
    """The nearest whole number; halves go up."""
    return math.floor(x + 0.5)


def pool_bins(low, high, stride, bins):
    """Along one axis, the cells that each bin of RoIPool reads: (first, the one after the last)."""
    first, last = nearest(low / stride), nearest(high / stride)
    step = max(last - first + 1, 1) / bins
    return [(first + math.floor(n * step), first + math.ceil((n + 1) * step)) for n in range(bins)]


# %%
by_hand = pool_bins(27, 138, 16, 7)
check("pixels of the whole region", [16 * by_hand[0][0], 16 * by_hand[-1][1]], [32, 160])
check("pixels that the first bin reads", [16 * edge for edge in by_hand[0]], [32, 64])
check("pixels that it should cover", [27, 27 + 111 / 7], [27, 42.9], tol=0.05)

# %% [markdown]
# It should cover 16 pixels and reads 32, which begin 5 pixels late and end 21 late. Here is the same in a picture.

# %% alt="Left, a scene with a grid of 16 pixels, an orange-red box, and a blue region of whole cells that begins to the right of and below it and ends farther right and down. Right, for each of seven bins two bars along the columns: the bin of the box, and below it what RoIPool reads, twice as long and, towards the last bin, more and more to the right."
scene = Scenes(4, size=176, seed=seed, difficulty=0.2)[0]
fig, axes = plt.subplots(1, 2, figsize=(7.4, 2.9), layout="constrained")
show.image(axes[0], scene["image"], "a box, and what RoIPool takes for it")
axes[0].set(xticks=np.arange(15.5, 175, 16), yticks=np.arange(15.5, 175, 16))
axes[0].grid(color="white", alpha=0.4)
axes[0].tick_params(labelbottom=False, labelleft=False)
across, down = pool_bins(27, 138, 16, 7), pool_bins(40, 121, 16, 7)
whole = [16 * edge for edge in (across[0][0], down[0][0], across[-1][1], down[-1][1])]
for (x1, y1, x2, y2), colour in (((27, 40, 138, 121), RED), (whole, BLUE)):
    axes[0].plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, lw=2.5)
for n, (first, end) in enumerate(across):
    axes[1].barh(n - 0.18, 111 / 7, 0.32, 27 + 111 / 7 * n, color=RED)
    axes[1].barh(n + 0.18, 16 * (end - first), 0.32, 16 * first, color=BLUE)
axes[1].set(title="seven bins, and what is read for each", xlabel="column, pixels", ylabel="bin")
axes[1].invert_yaxis()

# %% [markdown]
# The operator itself, for one feature map $f$ of $H \times W$ cells, is two loops. torchvision's is the peer.


# %%
def pooled(f, box, bins, stride=1):
    """RoIPool of a map (H, W): (bins, bins); bins without a cell are 0."""
    x1, y1, x2, y2 = box
    out = f.new_zeros(bins, bins)
    for i, (top, bottom) in enumerate(pool_bins(y1, y2, stride, bins)):
        for j, (left, right) in enumerate(pool_bins(x1, x2, stride, bins)):
            inside = f[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
            out[i, j] = inside.max() if inside.numel() else 0
    return out


# %%
f = torch.randn(10, 12, generator=generator, dtype=torch.float64)
for box in ((27.0, 40, 138, 121), (3.0, 5, 9, 30), (100.0, 90, 300, 200)):
    rois = torch.tensor([[0, *box]], dtype=torch.float64)
    peer = torchvision.ops.roi_pool(f[None, None], rois, 7, 1 / 16)[0, 0]
    check(f"RoIPool of {box} is torchvision's", pooled(f, box, 7, 16), peer, tol=1e-12)

# %% [markdown]
# How large is the first error in general? A left edge lies anywhere between two cell edges, so rounding moves it by up to $s/2$ to either side. **Predict** for $s = 16$: by how much on average? And the right edge, for which the last cell is included?

# %%
edges = 400 * torch.rand(100_000, 2, generator=generator, dtype=torch.float64).sort(1).values + 20
off_left = 16 * (edges[:, 0] / 16 + 0.5).floor() - edges[:, 0]
off_right = 16 * ((edges[:, 1] / 16 + 0.5).floor() + 1) - edges[:, 1]
check("left edge, mean distance: s / 4", off_left.abs().mean(), 4, tol=0.1)
check("left edge, mean with its sign", off_left.mean(), 0, tol=0.1)
check("right edge, mean with its sign: a whole s", off_right.mean(), 16, tol=0.1)

# %% [markdown]
# For the class of an object that hardly matters: a cat is a cat 4 pixels farther left. For its outline it does.
#
# There is a subtler fault. Slide a box along slowly, and its features should slide along. **Predict** what RoIPool's first bin reads from a map whose value is its own column, $f_{r,c} = c$, while the box moves by three cells.

# %% alt="What the first bin reads while a box slides by three cells over a map of column numbers: RoIPool a staircase with jumps of one, the other, RoIAlign, a straight line."
ramp = torch.arange(16.0, dtype=torch.float64).expand(16, 16).contiguous()
slide = torch.arange(0, 3.01, 0.05, dtype=torch.float64)
moving = torch.stack(
    [torch.zeros_like(slide), 2 + slide, 0 * slide + 3, 6 + slide, 0 * slide + 7], 1
)
by_pool = roi_align.roi_pool(ramp[None, None], moving, 2)[:, 0, 0, 0]
by_align = roi_align.roi_align(ramp[None, None], moving, 2, 1.0, 2, aligned=True)[:, 0, 0, 0]
fig, ax = plt.subplots(figsize=(5.2, 2.8), layout="constrained")
ax.plot(slide, by_pool, color=RED, label="RoIPool")
ax.plot(slide, by_align, color=BLUE, label="RoIAlign")
ax.set(title="A box slides: the first bin", xlabel="by how many cells", ylabel="what is read")
ax.legend()
check("RoIPool: different values in 61 places", len(by_pool.unique()), 4)
check("RoIAlign: each step is as long as the box's", by_align.diff(), 0.05, tol=1e-9)

# %% [markdown]
# At stride 16 the features of a box do not change while it moves by 16 pixels. No head, however clever, can tell from them where in those 16 pixels the outline is.
#
# ## 2. Four pixels: reading between them
#
# The cure is not to round, and to ask for $f$ *between* the cells. Around any place there are four centres of cells:
#
# | | column 0 | column 1 |
# |---|---|---|
# | **row 0** | 0 | 10 |
# | **row 1** | 20 | 40 |
#
# Let the place be $a$ of the way down from row 0 to row 1 and $b$ of the way across. **Bilinear interpolation** (双线性插值) goes along the rows first, then down:
#
# $$
# \begin{aligned}
# \text{row } 0:&\quad (1-b) f_{00} + b f_{01}, \qquad \text{row } 1:\quad (1-b) f_{10} + b f_{11}, \\
# f(a, b) &= (1-a)\big[(1-b) f_{00} + b f_{01}\big] + a\big[(1-b) f_{10} + b f_{11}\big] \\
# &= \underbrace{(1-a)(1-b)}_{w_{00}} f_{00} + \underbrace{(1-a)\,b}_{w_{01}} f_{01} + \underbrace{a(1-b)}_{w_{10}} f_{10} + \underbrace{ab}_{w_{11}} f_{11}.
# \end{aligned}
# $$
#
# A quarter down and half across: the rows give 5 and 30, and a quarter of the way from 5 to 30 is 11.25. **Predict:** the four weights, and their sum.


# %%
def bilinear(f, y, x):
    """A map (H, W) at row `y` and column `x`; the first cell's centre is (0, 0)."""
    height, width = f.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return f.new_zeros(())
    y, x = max(y, 0.0), max(x, 0.0)
    i, j = min(int(y), height - 1), min(int(x), width - 1)
    a, b = y - i, x - j
    below, right = min(i + 1, height - 1), min(j + 1, width - 1)
    upper = (1 - b) * f[i, j] + b * f[i, right]
    lower = (1 - b) * f[below, j] + b * f[below, right]
    return (1 - a) * upper + a * lower


# %%
four = torch.tensor([[0.0, 10], [20, 40]], dtype=torch.float64)
check("a quarter down, half across", bilinear(four, 0.25, 0.5), 11.25)
check("in the middle: the mean", bilinear(four, 0.5, 0.5), 17.5)

# %%
a, b = 0.25, 0.5
w = torch.tensor([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b], dtype=torch.float64)
check("weights", w, [0.375, 0.375, 0.125, 0.125])
check("their sum", w.sum(), 1)
check("weights times values", w @ four.flatten(), 11.25)
at = torch.tensor([[[[2 * b - 1, 2 * a - 1]]]], dtype=torch.float64)  # corners are -1 and 1
peer = F.grid_sample(four[None, None], at, align_corners=True)
check("PyTorch's grid_sample", peer, 11.25)

# %% [markdown]
# At the rim something has to be agreed on. Up to one cell outside, the library takes the value of the nearest place inside; beyond that it takes 0.
#
# ## 3. RoIAlign
#
# Divide the box into $P \times P$ even bins, put $n \times n$ **samples** (采样点) evenly into each, read the map at every sample, and take the mean of each bin. Nothing is rounded anywhere. That is all of **RoIAlign** (He et al. 2017, section 3).
#
# Since bins are even and samples are even in them, the samples of the whole box are one even grid of $Pn \times Pn$. A place in cells counts from the outer corner of the map; the first cell's centre is at 0.5, as everywhere in this course. `bilinear` counts from that centre: hence the $-\frac12$.


# %%
def aligned_bins(f, box, bins, samples):
    """RoIAlign of a map (H, W): (bins, bins), for a box (x1, y1, x2, y2) in cells."""
    x1, y1, x2, y2 = box
    share = (torch.arange(bins * samples) + 0.5) / (bins * samples)
    rows, columns = y1 + (y2 - y1) * share - 0.5, x1 + (x2 - x1) * share - 0.5
    read = [torch.stack([bilinear(f, y, x) for x in columns.tolist()]) for y in rows.tolist()]
    return F.avg_pool2d(torch.stack(read)[None, None], samples)[0, 0]


check("the four pixels as one bin, one sample", aligned_bins(four, (0, 0, 2, 2), 1, 1), 17.5)
for box in ((1.69, 2.5, 8.63, 7.56), (-3.0, 1, 4, 12.5), (4.2, 4.2, 4.9, 4.6)):
    rois = torch.tensor([[0, *box]], dtype=torch.float64)
    peer = torchvision.ops.roi_align(f[None, None], rois, 4, 1.0, 2, aligned=True)[0, 0]
    check(f"RoIAlign of {box} is torchvision's", aligned_bins(f, box, 4, 2), peer, tol=1e-6)

# %% [markdown]
# **Predict** what happens in the next figure to both sides when the box moves by a tenth of a cell. The red box is asked for. On the left, what RoIPool takes for it. On the right, the samples of RoIAlign, and the weights of the four cells around the first.

# %% alt="Two maps of cells with the same red box. Left, four overlapping blue bins of whole cells, moved down and to the right against the box. Right, the box divided evenly into four bins of four samples each; around the first sample four cells have the weights 0.35, 0.47, 0.07 and 0.10."
figure = widgets.plot_samples((1.6, 1.3, 5.4, 4.3), bins=2, samples=2)
check("edges of RoIPool's region", widgets.sampling.rounded_box((1.6, 1.3, 5.4, 4.3)), [2, 1, 6, 5])

# %% tags=["nbval-ignore-output"]
widgets.explore_samples()

# %% [markdown]
# How many samples? The paper takes four a bin, $n = 2$, and says that the result hardly depends on it "as long as no quantization is performed". Adaptive sampling takes as many as a bin has cells along its side, rounded up, so that no cell of a large box is passed over.
#
# ### All at once: two matrices
#
# Every sample's weights are a product, one factor for its row and one for its column. So the sums separate. With $A^y$ of $P \times H$, where $A^y_{i,r}$ is the weight of row $r$ in bin row $i$, and $A^x$ of $P \times W$ for the columns,
#
# $$\text{out} = A^y f\, (A^x)^{\mathsf T}, \qquad \text{out}_{ij} = \sum_{r,c} A^y_{i,r}\, A^x_{j,c}\, f_{r,c}.$$
#
# **Predict:** what is the sum of each row of $A^y$, as long as the box lies inside the map?


# %%
def axis_weights(low, high, length, bins, samples):
    """Along one axis, the weight of each cell in each bin: (bins, length); the box inside the map."""
    share = (torch.arange(bins * samples, dtype=torch.float64) + 0.5) / (bins * samples)
    at = (low + (high - low) * share - 0.5).clamp(0, length - 1)
    cells = torch.arange(length, dtype=torch.float64)
    tent = (1 - (at[:, None] - cells).abs()).clamp(min=0)  # 1 at the cell, 0 from its neighbours on
    return tent.view(bins, samples, length).mean(1)


box = (1.69, 2.5, 8.63, 7.56)
ay, ax_ = axis_weights(2.5, 7.56, 10, 4, 2), axis_weights(1.69, 8.63, 12, 4, 2)
check("rows of weights add up to", ay.sum(1), 1.0, tol=1e-12)
check("two matrices are the loops", ay @ f @ ax_.T, aligned_bins(f, box, 4, 2), tol=1e-6)

# %% alt="Two small matrices of weights in grey tones: for each of four bins a few neighbouring rows of the map, and a few neighbouring columns; elsewhere 0. Bins that follow one another move to the right."
fig, axes = show.grid(1, 2, "Weights of RoIAlign: a row for each bin", width=4, height=1.7)
show.heat(axes[0], ay, "which rows of the map")
show.heat(axes[1], ax_, "which columns")

# %% [markdown]
# **RoIAlign is a linear map of the features.** (RoIPool is not: a largest value is no sum.) Keep that in mind for the next section.
#
# ## 4. The gradient of RoIAlign
#
# The heads learn from their losses, and the backbone below must learn from them, too. So the gradient has to pass through. Let $L$ be the loss and $G_{ij} = \partial L / \partial\, \text{out}_{ij}$ what comes from above. By the chain rule
#
# $$\frac{\partial L}{\partial f_{r,c}} = \sum_{i,j} G_{ij}\, \frac{\partial\, \text{out}_{ij}}{\partial f_{r,c}} = \sum_{i,j} G_{ij}\, A^y_{i,r}\, A^x_{j,c}, \qquad \text{that is} \qquad \frac{\partial L}{\partial f} = (A^y)^{\mathsf T}\, G\, A^x.$$
#
# The same weights, read the other way: a cell that gave three eighths of a bin's value gets three eighths of its blame. **By hand on the four pixels**: one sample, a quarter down and half across, $G = 1$. The gradient is $(0.375, 0.375, 0.125, 0.125)$, without a look at the values. **Predict:** what would RoIPool's gradient be?


# %%
def align_gradient(gradient, box, shape):
    """What `gradient` (bins, bins) of RoIAlign's output says of a map of `shape`, two samples."""
    x1, y1, x2, y2 = box
    rows = axis_weights(y1, y2, shape[0], len(gradient), 2)
    columns = axis_weights(x1, x2, shape[1], len(gradient), 2)
    return rows.T @ gradient @ columns


values = four.clone().requires_grad_()
bilinear(values, 0.25, 0.5).backward()
check("by autograd", values.grad.flatten(), [0.375, 0.375, 0.125, 0.125])
values = four.clone().requires_grad_()
pooled(values, (0, 0, 1, 1), 1).backward()
check("RoIPool: all to the largest", values.grad.flatten(), [0, 0, 0, 1])

# %%
upstream = torch.randn(4, 4, generator=generator, dtype=torch.float64)
asked = f.clone().requires_grad_()
rois = torch.tensor([[0, *box]], dtype=torch.float64, requires_grad=True)
out = torchvision.ops.roi_align(asked[None, None], rois, 4, 1.0, 2, aligned=True)[0, 0]
(out * upstream).sum().backward()
check("ours is torchvision's", align_gradient(upstream, box, f.shape), asked.grad, tol=1e-6)
check("gradcheck of the loops", torch.autograd.gradcheck(
    lambda g: aligned_bins(g, (0.3, 0.7, 2.9, 3.1), 2, 2), f[:4, :4].clone().requires_grad_()
), want=True)  # fmt: skip
pool_grad = torch.autograd.grad(pooled(asked, box, 4).sum(), asked)[0]
check_at_most("cells that RoIPool teaches", (pool_grad != 0).sum(), 16)
check_at_least("cells that RoIAlign teaches", (asked.grad != 0).sum(), 36)

# %% [markdown]
# Where does a gradient *not* go? Bilinear interpolation has a slope in the place as well: at our sample, one row farther down the value changes by $\partial f / \partial a = 30 - 5 = 25$. One could teach the boxes with it. Mask R-CNN does not: the box is taken as given, and learns from its own loss alone.

# %%
place = torch.tensor([0.25, 0.5], dtype=torch.float64, requires_grad=True)
tents = [(1 - (p - torch.arange(2)).abs()).clamp(min=0) for p in place]
(tents[0] @ four @ tents[1]).backward()
check("slope of the value, per row and per column", place.grad, [25, 12.5])
check("torchvision gives boxes no gradient", rois.grad is None, want=True)
ours = roi_align.roi_align(f[None, None], rois, 4, 1.0, 2, aligned=True)
check("nor do we", ours.requires_grad, want=False)

# %% [markdown]
# For thousands of boxes with hundreds of channels the package lists, for every sample, its four cells and weights, and adds up weighted rows. Here is its gradient: the same sums, with source and target exchanged.

# %%
print(inspect.getsource(roi_align._WeightedSums.backward))

# %% [markdown]
# ## 5. Half a pixel: `aligned`
#
# torchvision's operator has an argument `aligned`, and it is `False` if you say nothing. Then the $-\frac12$ of section 3 is left out. **Predict** what that does, for a map of stride 16 whose value is *the column of the picture* at the centre of each cell: 8, 24, 40 and so on. The box reaches from column 32 to column 64.

# %%
columns = (16 * torch.arange(12.0) + 8).expand(10, 12)[None, None].double()
rois = torch.tensor([[0, 32.0, 32, 64, 64]], dtype=torch.float64)
read = [roi_align.roi_align(columns, rois, 1, 1 / 16, 2, aligned) for aligned in (True, False)]
check("aligned: the middle of the box", read[0], 48)
check("not aligned", read[1], 56)

# %% [markdown]
# Half a cell too far right and down: 8 pixels at stride 16. It is a bug of the first programs, kept because weights were trained with it, and torchvision's Mask R-CNN still has it. Without `aligned`, boxes of less than one cell are also taken for one cell large.
#
# Is it as bad as RoIPool's rounding? Compare **where the middle of the region is read** with where it is, over many boxes. **Predict** for each of the three: is the error always the same, or does it vary?

# %%
middle = edges.mean(1)
for name, error in {
    "RoIPool": (16 * (edges / 16 + 0.5).floor()).mean(1) + 8 - middle,
    "not aligned": (edges + 8).mean(1) - middle,
    "aligned": edges.mean(1) - middle,
}.items():
    print(f"{name:12} mean {error.mean():5.2f} pixels, standard deviation {error.std():4.2f}")
varies = (16 * (edges / 16 + 0.5).floor()).mean(1) + 8 - middle
check("RoIPool: mean, half a stride", varies.mean(), 8, tol=0.1)
check("RoIPool: standard deviation", varies.std(), 16 / math.sqrt(24), tol=0.05)

# %% [markdown]
# That is the point. An error that is the same for every box can be *learned*: a convolution above it shifts by half a cell, and the deltas and masks it gives come out right. Detectron2's documentation says as much of `aligned`: with convolutions above, it makes no difference to performance. The variation of RoIPool cannot be learned, for the features do not say which way they were rounded. So: **set `aligned` as it was in training.** Weights of one kind in a model of the other are off by half a cell, without an error message.

# %% [markdown]
# ## 6. The heads: one mask for each class
#
# From the features of $K$ regions with $D$ channels, three answers ($C$ classes, of which 0 is the ground):
#
# | head | reads | layers | gives |
# |---|---|---|---|
# | class | $K \times D \times 7 \times 7$ | two fully connected, shared with the next | logits $K \times C$ |
# | box | the same | | deltas $K \times C \times 4$, as in [chapter 16](16_boxes_and_anchors.ipynb) |
# | mask | $K \times D \times 14 \times 14$ | four convolutions, one transposed | logits $z$ of $K \times C \times 28 \times 28$ |
#
# The mask head is a small FCN, as in [chapter 09](09_fcn.ipynb), in the frame of the box: a class needs a vector, but an outline needs a plane. The surprise is the $C$: **every class draws a mask of its own, in the same box.** Which one counts is the class head's to say.
#
# Let $t$ be the region's true class and $m_p \in [0, 1]$ the truth at cell $p$ of the $M \times M$ cells. With the sigmoid $\sigma$ the loss of a region is
#
# $$L_{\text{mask}} = -\frac{1}{M^2} \sum_p \Big[ m_p \ln \sigma(z_{t,p}) + (1 - m_p) \ln\big(1 - \sigma(z_{t,p})\big) \Big].$$
#
# There is no sum over classes. By hand, four cells, $m = (1, 1, 0, 0)$, and the true class's $\sigma(z_t) = (\frac45, \frac23, \frac13, \frac15)$: twice $-\ln \frac45 = 0.223$ and twice $-\ln\frac23 = 0.405$, so the mean is 0.314. **Predict:** what is the gradient for the *other* classes' masks?


# %%
def mask_loss(logits, labels, masks):
    """Of regions: logits (K, C, M, M), true classes (K,), masks (K, M, M); K at least 1."""
    own = torch.stack([of_region[label] for of_region, label in zip(logits, labels, strict=True)])
    p = own.sigmoid()
    return -(masks * p.log() + (1 - masks) * (1 - p).log()).mean()


# %%
p = torch.tensor([[4 / 5, 2 / 3], [1 / 3, 1 / 5]], dtype=torch.float64)
z = torch.stack([torch.zeros(2, 2).double(), p.logit(), torch.ones(2, 2).double()])[None]
z.requires_grad_()
m = torch.tensor([[[1.0, 1], [0, 0]]], dtype=torch.float64)
loss = mask_loss(z, torch.tensor([1]), m)
loss.backward()
check("the loss", loss, 0.314, tol=5e-4)
check("gradient of the true class: (p - m) / 4", z.grad[0, 1], (p - m[0]) / 4, tol=1e-12)
check("gradient of the other classes", z.grad[0, [0, 2]], 0.0)
check("segedu's", heads.mask_loss(z, torch.tensor([1]), m), loss, tol=1e-12)

# %% [markdown]
# ### Against a softmax
#
# A semantic network would put a softmax over the classes at every cell: ground, disc or ring? Then classes compete for cells, and the mask head has to know the class. With sigmoids it has to know only *where the outline is, if it were a disc*.
#
# Think of a region that may be a disc or a ring, half and half, and nobody can tell. A certain cell belongs to the object either way. **Predict** what each kind of head learns to say there, and what a threshold of $\frac12$ makes of it.

# %%
is_disc = torch.arange(1000) % 2 == 0  # the same cell of 1000 such regions, all of it object
label = torch.where(is_disc, 1, 2)


def learned(loss):
    """One cell's logits for (ground, disc, ring), after descent on the mean loss."""
    z = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([z], lr=2.0)
    for _ in range(200):
        optimizer.zero_grad(), loss(z).backward(), optimizer.step()
    return z.detach()


# %%
by_softmax = learned(lambda z: F.cross_entropy(z.expand(1000, 3), label)).softmax(0)
by_sigmoid = learned(lambda z: F.softplus(-z[label]).mean()).sigmoid()  # -ln sigmoid(z), m = 1
check("softmax: disc and ring share the cell", by_softmax[1:], 0.5, tol=0.01)
check_at_least("sigmoid: each class says object", by_sigmoid[1:], 0.98)

# %% [markdown]
# The softmax answers "object *and* disc", $\frac12$: on the edge of nothing; with three possible classes it would be $\frac13$, and the mask empty. The sigmoid answers "object, *if* disc": about 1. The doubt about the class belongs to the class head, which has to bear it anyway. The paper calls this **decoupling** (解耦) and reports several points of AP for it.
#
# ### What the mask head is shown as truth
#
# The truth must come to the head's $M \times M$ cells, and there is an operator for just that: RoIAlign, with the object's mask as the map. A cell's truth is then the *share* of it that the object covers, as the samples see it.

# %% alt="Left, the true mask of one object in the picture, with its box. Right, the same mask as 28 by 28 cells of the box: white inside, black outside, grey where a cell lies on the outline."
masks = scene["masks"].as_subclass(torch.Tensor)
boxes = scene["boxes"].as_subclass(torch.Tensor)
is_whole = ((boxes > 0) & (boxes < 176)).all(1)  # not cut by the rim of the picture
shown = (masks.sum((1, 2)) * is_whole).argmax()
cropped = crop_masks(masks, boxes - 0.5, torch.arange(len(boxes)), 28)
fig, axes = show.grid(1, 2, "What the mask head shall say", width=2.2)
show.mask(axes[0], masks[shown].long(), "an object and its box", num_classes=2)
x1, y1, x2, y2 = boxes[shown].tolist()
axes[0].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=RED, lw=2))
axes[1].imshow(cropped[shown], cmap="gray")
axes[1].set(title="28 x 28 cells", xticks=[], yticks=[])
check_at_least("cells between 0 and 1", ((cropped > 0) & (cropped < 1)).sum(), 20)

# %% [markdown]
# (`boxes - 0.5` is `aligned` by hand: half a pixel of the picture, whose stride is 1. torchvision leaves it out here as well.)
#
# ## 7. Pasting: from 28 cells to the picture
#
# At the end a mask of $28 \times 28$ probabilities must go back into its box in the picture. That is interpolation once more, the other way round: the centre of pixel row $r$ lies at cell
#
# $$\frac{r + \frac12 - y_1}{y_2 - y_1}\, M - \frac12,$$
#
# and likewise for columns. Bilinear weights again separate into two matrices. Outside the box the mask is 0, so the edge fades out over the first and last cell.
#
# **Predict:** is it better to threshold the 28 cells and enlarge the answer, or to enlarge the probabilities and threshold the pixels?


# %%
def paste_weights(low, high, length, cells):
    """Along one axis, the weight of each cell in each pixel: (length, cells)."""
    at = (torch.arange(length) + 0.5 - low) / (high - low) * cells - 0.5
    return (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def pasted(mask, box, size):
    """Probabilities (M, M) of a box, in a picture of `size` (height, width)."""
    x1, y1, x2, y2 = box
    rows = paste_weights(y1, y2, size[0], len(mask))
    columns = paste_weights(x1, x2, size[1], len(mask))
    return rows @ mask @ columns.T


# %%
def iou(one, other):
    """Of two masks."""
    return (one & other).sum().item() / max((one | other).sum().item(), 1)


# %%
size = masks.shape[1:]
small = crop_masks(masks, boxes - 0.5, torch.arange(len(boxes)), 14)
early = [
    pasted((cells > 0.5).float(), box, size) > 0.5
    for cells, box in zip(small, boxes.tolist(), strict=True)
]
late = [pasted(cells, box, size) > 0.5 for cells, box in zip(small, boxes.tolist(), strict=True)]
by_order = [
    np.mean([iou(a, b) for a, b in zip(found, masks, strict=True)]) for found in (early, late)
]
print(
    f"mean IoU with the truth: threshold first {by_order[0]:.3f}, enlarge first {by_order[1]:.3f}"
)
check_at_least("enlarging first is better by", by_order[1] - by_order[0], 0.005)

# %% alt="One object as 14 by 14 cells brought back to its pixels: the truth, a star; thresholded first, fatter and with rounded steps along the outline; enlarged first, much like the truth, but for the thinnest points, which both have lost."
fig, axes = show.grid(1, 3, "From 14 x 14 cells to pixels", width=2.6)
for ax, mask, title in zip(axes, (masks[shown], early[shown], late[shown]),
                           ("truth", "threshold, then enlarge", "enlarge, then threshold"), strict=True):  # fmt: skip
    show.mask(ax, mask.long(), title, num_classes=2)

# %% [markdown]
# A probability of 0.7 in one cell and 0.2 in the next says *where between them* the outline runs; a threshold throws that away. So: enlarge, then threshold at $\frac12$. A lower threshold makes every object fatter, a higher one thinner.
#
# ### A pixel too many
#
# The program of the paper's authors, and torchvision's after it, pastes in whole pixels: it grows the box by a rim of one cell, cuts off the fractions of its corners, and counts the last pixel as inside. **Predict** for a full mask in a box from column 2 to column 9, seven pixels wide: how wide is the result?

# %%
full, box = torch.ones(1, 1, 28, 28), torch.tensor([[2.0, 2, 9, 9]])
library = paste_masks(full, box, (12, 12))[0, 0] > 0.5
exact = pasted(full[0, 0], box[0].tolist(), (12, 12)) > 0.5
peer = torchvision.models.detection.roi_heads.paste_masks_in_image(full, box, (12, 12))
check("segedu's is torchvision's", paste_masks(full, box, (12, 12)), peer)
check("columns, library", library.any(0).sum(), 9)
check("columns, exactly", exact.any(0).sum(), 7)
check("IoU of the two", iou(library, exact), 49 / 81, tol=1e-9)
check(
    "thresholds from 0.50 to 0.95 that it passes",
    sum(t / 100 < 49 / 81 for t in range(50, 100, 5)),
    3,
)

# %% [markdown]
# Nine. For an object of 200 pixels nobody notices. For one of 7 the IoU of a *perfect* answer is 0.60, which passes three of COCO's ten thresholds. On scenes:

# %%
many = [
    Scenes(rounded_scenes, size=image_size, seed=seed + 1, difficulty=0.2)[i]
    for i in range(rounded_scenes)
]
plain = [
    (one["masks"].as_subclass(torch.Tensor), one["boxes"].as_subclass(torch.Tensor)) for one in many
]
shares, by_library = [], []
for masks, boxes in plain:
    cells = crop_masks(masks, boxes - 0.5, torch.arange(len(boxes)), 28)
    in_library = paste_masks(cells[:, None], boxes, masks.shape[1:])[:, 0] > 0.5
    for n, box in enumerate(boxes.tolist()):
        exactly = iou(pasted(cells[n], box, masks.shape[1:]) > 0.5, masks[n])
        shares.append([masks[n].sum().item() ** 0.5, exactly, iou(in_library[n], masks[n])])
width, exactly, by_library = torch.tensor(shares, dtype=torch.float64).T

# %% alt="IoU of a perfect mask head against the size of the object, one dot each. Pasted exactly, nearly all lie above 0.9. Pasted in whole pixels, they are lower, large objects a little and small ones much, some to below 0.8."
fig, ax = plt.subplots(figsize=(5.6, 3), layout="constrained")
ax.plot(width, exactly, ".", color=BLUE, label="pasted exactly")
ax.plot(width, by_library, ".", color=RED, label="in whole pixels")
ax.set(
    title="A perfect mask head, pasted",
    xlabel="size of the object: root of its area, pixels",
    ylabel="IoU",
)
ax.legend()
is_small = width < width.median()
lost = exactly - by_library
check_at_least("exactly: mean IoU", exactly.mean(), 0.97)
check_at_least("whole pixels: lost by the small half", lost[is_small].mean(), 0.04)
check_at_most("and by the large half", lost[~is_small].mean(), lost[is_small].mean().item())

# %% [markdown]
# We keep the library's way in `segedu`, so that its weights give its masks to the last pixel. A real mask head is not perfect, and for one that draws its objects too thin the additional pixel is even welcome. But it bounds what small objects can score, whatever the network learns.
#
# ## 8. What rounding costs
#
# Back to RoIPool. Let the mask head be *perfect* again: it says exactly what lies in the region that its features come from. But its answer is pasted into the box that was asked for. With RoIAlign those are the same place. With RoIPool the region is rounded, and the whole mask comes out moved and scaled. **Predict** the mean IoU at stride 16, for objects some 30 pixels wide.


# %%
def region_read(boxes, stride, kind):
    """The pixels (K, 4) of the picture whose features each box gets."""
    if kind == "RoIPool":
        cells = (boxes / stride + 0.5).floor()
        cells[:, 2:] = cells[:, 2:].maximum(cells[:, :2]) + 1
        return cells * stride
    return boxes + (stride / 2 if kind == "not aligned" else 0)


# %%
def price(stride, kind):
    """Mean IoU of a perfect mask head whose answer is pasted into the box."""
    scores = []
    for masks, boxes in plain:
        regions = region_read(boxes, stride, kind)
        cells = crop_masks(masks, regions - 0.5, torch.arange(len(boxes)), 28)
        for mask, of_region, box in zip(masks, cells, boxes.tolist(), strict=True):
            scores.append(iou(pasted(of_region, box, mask.shape) > 0.5, mask))
    return np.mean(scores)


# %% alt="Mean IoU of a perfect mask head against the stride, from 4 to 32. RoIAlign stays at the top. RoIAlign that is not aligned falls steeply, and RoIPool lies lower still; at stride 32 RoIPool is far below one half."
strides, kinds = (4, 8, 16, 32), ("RoIAlign", "not aligned", "RoIPool")
prices = {kind: [price(stride, kind) for stride in strides] for kind in kinds}
fig, ax = plt.subplots(figsize=(5.6, 3), layout="constrained")
for (kind, values), colour in zip(prices.items(), (BLUE, ORANGE, RED), strict=True):
    ax.plot(strides, values, "o-", color=colour, label=kind)
    print(f"{kind:12}", *(f"{value:.2f}" for value in values))
ax.set(title="What a perfect mask head can reach", xticks=strides, ylim=(0, 1))
ax.set(xlabel="stride, pixels", ylabel="mean IoU")
ax.legend()
check("half of the objects are narrower than", width.median(), 30, tol=8)
check("RoIAlign: no stride costs anything", prices["RoIAlign"], prices["RoIAlign"][0], tol=1e-9)
check_at_most("RoIPool at stride 16", prices["RoIPool"][2], 0.6)
check_at_most("RoIPool at stride 4", prices["RoIPool"][0], prices["RoIAlign"][0] - 0.05)

# %% [markdown]
# This is a bound for the worst case: a real head sees a little beyond its region, and the constant part of the error can be learned, for RoIPool's half a stride as for the missing half pixel. What varies from box to box stays. The paper found that RoIAlign "improves mask accuracy by relative 10% to 50%", with the larger gains under stricter measures of place. A pyramid with its fine strides makes the loss smaller, not zero.

# %% [markdown]
# ## 9. The whole model, and its five losses
#
# All parts are there now:
#
# ```text
# picture -> backbone -> pyramid -> proposals -> RoIAlign 7 x 7  -> class, box
#                           |          (17)   -> RoIAlign 14 x 14 -> mask -> paste
#                           +---------------------^
# ```
#
# `maskrcnn_trunk` is a small one: chapter 09's trunk below a pyramid of 64 channels, for pictures of 64 to 300 pixels. It learns from **five losses**, added up:
#
# | loss | of | asks |
# |---|---|---|
# | `loss_objectness` | anchors | object or not? |
# | `loss_rpn_box_reg` | anchors of objects | where is its box? |
# | `loss_classifier` | proposals | which class, or ground? |
# | `loss_box_reg` | proposals of objects | where is its box, exactly? |
# | `loss_mask` | proposals of objects | which pixels? |
#
# **Predict** the first value of `loss_objectness`, with weights near 0, and of `loss_classifier` with $C = 6$. Chapter 06 told you how.


# %%
def batch_of(scenes):
    """Images and targets of samples, as plain tensors on `place`."""
    plain = [{k: one[k].as_subclass(torch.Tensor).to(place) for k in one} for one in scenes]
    return [one["image"] for one in plain], plain


place = pick_device(device)
_ = torch.manual_seed(seed)
model = maskrcnn_trunk(len(CLASSES)).to(place).train()
drawn = Scenes(train_scenes, size=64, seed=seed + 1, difficulty=0.2)
samples = [drawn[i] for i in range(train_scenes)]

# %% tags=["nbval-ignore-output"]
losses = model(*batch_of(samples[:8]))
for name, value in losses.items():
    print(f"{name:17} {value.item():.3f}")
check("objectness: ln 2", losses["loss_objectness"], math.log(2), tol=0.02)
check("classifier: about ln 6", losses["loss_classifier"], math.log(6), tol=0.4)

# %% [markdown]
# ### Which loss teaches what?
#
# Take the gradient of each loss alone, and ask every part of the model how much of it arrives. **Predict** the zeros of this table before you look. In particular: does the mask's loss teach the proposals?

# %% tags=["nbval-ignore-output"]
parts = {"backbone": model.backbone, "proposals": model.rpn, "class + box": nn.ModuleList([model.roi_heads.box_head, model.roi_heads.box_predictor]), "mask": nn.ModuleList([model.roi_heads.mask_head, model.roi_heads.mask_predictor])}  # fmt: skip
print(" " * 18, *(f"{part:>12}" for part in parts))
arrives = {}
for name, value in losses.items():
    model.zero_grad()
    value.backward(retain_graph=True)
    for part, module in parts.items():
        squares = [p.grad.square().sum() for p in module.parameters() if p.grad is not None]
        arrives[name, part] = torch.stack(squares).sum().sqrt().item() if squares else 0.0
    print(f"{name:18}", *(f"{arrives[name, part]:12.3f}" for part in parts))

# %% tags=["nbval-ignore-output"]
for name in losses:
    check_at_least(f"{name} teaches the backbone", arrives[name, "backbone"], 1e-6)
second = ("loss_classifier", "loss_box_reg", "loss_mask")
check("second stage: nothing for the proposals", [arrives[n, "proposals"] for n in second], 0.0)
check("the mask's loss: nothing for class and box", arrives["loss_mask", "class + box"], 0)
check("theirs: nothing for the mask", [arrives[n, "mask"] for n in second[:2]], 0.0)

# %% [markdown]
# Three heads, three teachers, and one backbone that hears all five. The proposals are cut off: boxes get no gradient (section 4), so the second stage takes them as they come. The other way round there is an influence without a gradient: *which* regions the second stage gets to see.
#
# ### A short training
#
# Scenes of 64 pixels, eight at a time: too few to learn from, and enough to see each loss move. **Predict:** which of the five falls most, and which least?

# %% tags=["nbval-ignore-output"]
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
history = []
for _ in range(steps):
    pick = torch.randint(train_scenes, (8,), generator=generator).tolist()
    losses = model(*batch_of([samples[i] for i in pick]))
    optimizer.zero_grad()
    sum(losses.values()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    history.append([value.item() for value in losses.values()])
history = torch.tensor(history)

# %% tags=["nbval-ignore-output"] alt="Five small curves, one for each loss over the steps. Objectness, class and mask fall steeply in the first steps and then slowly; the two box losses go up and down, and that of the regions ends no lower than it began."
fig, axes = show.grid(1, 5, "Each loss on its own", width=2.1, height=2)
for ax, name, values, colour in zip(axes, losses, history.T, colours[1:6], strict=True):
    ax.plot(values, color=colour)
    ax.set(title=name.removeprefix("loss_"), xlabel="step", ylim=(0, None))
early, late = history[:6].mean(0), history[-6:].mean(0)
fell = dict(zip(losses, (late / early).tolist(), strict=True))
print({name: round(value, 2) for name, value in fell.items()})
check_at_most("their sum, end over beginning", late.sum() / early.sum(), least_fall)

# %% [markdown]
# `loss_objectness` falls first: to tell object from ground is the easiest of the five. `loss_box_reg` does not fall at all, or hardly, and that is no failure. It is a sum over the regions *of objects*, divided by the number of *all* sampled regions. As the proposals become better, more of the sampled regions belong to objects, and each adds its share. **A loss whose examples are chosen by the model itself is not comparable over time.** That is why one watches each by itself, and trusts the score of held-out pictures.

# %% tags=["nbval-ignore-output"]
check_at_most("objectness, end over beginning", fell["loss_objectness"], max(least_fall, 0.6))
check_at_most(
    "the sharpest fall: less than box_reg's",
    fell["loss_objectness"] / fell["loss_box_reg"],
    max(least_fall, 0.85),
)

# %% [markdown]
# ## 10. The trained model
#
# A few steps teach no outlines. The repository holds a model of the same make, `data/maskrcnn-scenes.pt`, made in less than five minutes on two cores by `segedu train --data scenes --model maskrcnn --seed 0` from scenes of $128 \times 128$ pixels at the default difficulty. Here it looks at *test* scenes: neither its training nor the choice of its settings has seen them.


# %%
def look(trained, scenes):
    """What a model finds in each scene, on the CPU, its masks as bool (N, H, W)."""
    found = []
    with torch.inference_mode():
        for n in range(0, len(scenes), 8):
            images = [one["image"].as_subclass(torch.Tensor) for one in scenes[n : n + 8]]
            found += trained.model([image.to(trained.device) for image in images])
    found = [{k: v.cpu() for k, v in one.items()} for one in found]
    return [{**one, "masks": one["masks"][:, 0] >= 0.5} for one in found]  # pasted, then cut


trained = load_trained(shipped("maskrcnn-scenes.pt"), device=device)
tests, others = ([scenes[n] for n in range(test_scenes)] for scenes in
                 (Scenes(test_scenes, size=128, seed=split) for split in (2, 1)))  # fmt: skip
found = look(trained, tests)

# %% tags=["nbval-ignore-output"] alt="Three held-out scenes above, and below them the objects that the model found with a score of at least one half, each with its box in the colour of its class and tinted. Most objects are found, with outlines that follow theirs."
fig, axes = show.grid(2, 3, "Truth above, found below", width=1.6)
for n in range(3):
    sure = found[n]["scores"] >= 0.5
    answer = {k: found[n][k][sure] for k in ("boxes", "labels", "masks")}
    show.instances(axes[0, n], tests[n]["image"], tests[n], num_classes=6)
    show.instances(axes[1, n], tests[n]["image"], answer, num_classes=6)
show.legend(fig, CLASSES)

# %% [markdown]
# The score is COCO's: the average precision of the masks, over classes and over ten thresholds of IoU from 0.50 to 0.95. [Chapter 19](19_instance_metrics.ipynb) derives it. All detections count, not only those above one half: the score of each decides its rank.
#
# For comparison the same with the *validation* scenes, after which training scored every epoch and by which its settings were chosen. **Predict:** which of the two sets scores higher?


# %%
def summary_of(found, truths):
    """COCO's twelve numbers for masks."""
    metric = InstanceAP("mask")
    for answer, truth in zip(found, truths, strict=True):
        metric.update(answer, {k: truth[k].as_subclass(torch.Tensor) for k in ("masks", "labels")})
    return metric.summary()


# %% tags=["nbval-ignore-output"]
summary, watched = summary_of(found, tests), summary_of(look(trained, others), others)
for name, numbers in (("test", summary), ("validation", watched)):
    print(
        f"{name:10}",
        {k: round(numbers[k], 3) for k in ("AP", "AP50", "AP75", "APs", "APm", "AR100")},
    )
check_at_least("validation scenes, mask AP@[.50:.95]", watched["AP"], least_ap)
check_at_least("test scenes, mask AP@[.50:.95]", summary["AP"], least_ap - 0.07)
check_at_least("test: AP50, above AP75", summary["AP50"] - summary["AP75"], least_gap)
check_at_least("test: medium objects, above small ones", summary["APm"] - summary["APs"], least_gap)

# %% [markdown]
# More than one half on the validation scenes, a little less on the test scenes. Two things lower the second: settings were chosen by the first; and with so few pictures another set gives another number. Which of the two it is, one pair of numbers does not say. Report the second.
#
# COCO calls an object small if it has less than $32^2$ pixels. **Predict:** how many of ours are, in pictures of 128 pixels?

# %%
areas = torch.cat([one["masks"].sum((1, 2)) for one in tests])
check("share of small objects", (areas < 32**2).double().mean(), 0.5, tol=0.15)
check("large ones, of more than 96 by 96 pixels", (areas > 96**2).sum(), 0)

# %% [markdown]
# About half; and none is large.
#
# ### Sorting the failures
#
# A mean says that something is wrong, not what. So sort the *objects*, and ask of each whether it was found: whether a detection of its class overlaps it with an IoU of $\frac12$ or more. Three kinds are suspected of trouble:
#
# - **tiny**: fewer than 150 visible pixels;
# - **touching**: it has a pixel beside one of another object;
# - **crowded**: its box overlaps another object's box with an IoU above 0.25, so that proposals compete and suppression may take the wrong one.
#
# Objects that are none of these are **clear**. **Predict** the order of the four.


# %%
def kinds_of(truth):
    """For each object whether it is tiny, touching, crowded, or none: (N, 4) bool."""
    masks, boxes = (truth[k].as_subclass(torch.Tensor) for k in ("masks", "boxes"))
    tiny = masks.sum((1, 2)) < 150
    grown = F.max_pool2d(masks.float(), 3, 1, 1) > 0
    beside = torch.einsum("nhw,mhw->nm", grown.float(), masks.float()).fill_diagonal_(0)
    crowded = (torchvision.ops.box_iou(boxes, boxes).fill_diagonal_(0) > 0.25).any(1)
    touching = (beside > 0).any(1)
    return torch.stack([tiny, touching, crowded, ~(tiny | touching | crowded)], dim=1)


# %%
def best_ious(answer, truth):
    """The IoU of each object with the best detection of its class with a score of 0.3 or more."""
    sure = answer["scores"] >= 0.3
    one, other = answer["masks"][sure].flatten(1).float(), truth["masks"].flatten(1).float()
    both = other @ one.T
    union = other.sum(1)[:, None] + one.sum(1) - both
    same = truth["labels"][:, None] == answer["labels"][sure]
    padded = F.pad(both / union.clamp(min=1) * same, (0, 1))  # a column for "nothing found"
    return padded.max(1).values


# %% tags=["nbval-ignore-output"]
kinds = torch.cat([kinds_of(truth) for truth in tests])
best = torch.cat([best_ious(*pair) for pair in zip(found, tests, strict=True)])
names = ("tiny", "touching", "crowded", "clear")
share = {}
for name, mine in zip(names, kinds.T, strict=True):
    share[name] = (best[mine] >= 0.5).sum().item() / max(mine.sum().item(), 1)
    print(
        f"{name:9} {mine.sum():4} objects, found {share[name]:.0%}, mean IoU {best[mine].mean():.2f}"
    )
check_at_least("clear, above tiny", share["clear"] - share["tiny"], least_gap)
check_at_least("clear, above crowded", share["clear"] - share["crowded"], least_gap)

# %% [markdown]
# And the pictures: of each kind, one object that was not found, with the 64 by 64 pixels around it.

# %% tags=["nbval-ignore-output"] alt="Three pairs of cut-outs, truth above and found below, each around one object in a dotted white box: a tiny one, a sliver between larger objects, where nothing is found; one that touches others, of which only a part is covered; and one in a crowd, a ring behind a ring, of which a few patches are found."
owner = torch.tensor([n for n, truth in enumerate(tests) for _ in truth["labels"]])
nth = torch.cat([torch.arange(len(truth["labels"])) for truth in tests])
fig, axes = show.grid(2, 3, "Not found", width=1.9)
tiny, touching, crowded = kinds.T[:3]
for column, mine in enumerate((tiny, touching & ~tiny & ~crowded, crowded & ~tiny)):
    worst = (best - 0.35).abs().where(mine, 9.0).argmin()  # nearly found, if there is one
    truth, answer, sure = (*(of[owner[worst]] for of in (tests, found)), found[owner[worst]]["scores"] >= 0.3)  # fmt: skip
    answer = {k: answer[k][sure] for k in ("boxes", "labels", "masks")}
    x1, y1, x2, y2 = truth["boxes"][nth[worst]].tolist()
    middle = [min(max((low + high) / 2, 32), 96) for low, high in ((x1, x2), (y1, y2))]
    for ax, drawn, title in zip(axes[:, column], (truth, answer), (names[column], f"IoU {best[worst]:.2f}"), strict=True):  # fmt: skip
        show.instances(ax, truth["image"], drawn, title, num_classes=6)
        ax.add_patch(Rectangle((x1 - 1, y1 - 1), x2 - x1 + 1, y2 - y1 + 1, fill=False, edgecolor="white", ls=":", lw=2))  # fmt: skip
        ax.set(xlim=(middle[0] - 32, middle[0] + 31), ylim=(middle[1] + 31, middle[1] - 32))

# %% [markdown]
# Each kind has its own cause, and its own remedy:
#
# - A **tiny** object has few cells even at stride 4, one row of pixels more or less is a large part of it, and pasting in whole pixels takes its share. Finer strides or larger pictures help.
# - Where objects **touch**, the mask head has to see that a part of its own box belongs to a neighbour of the same colour. More cells help a little; more examples of it help more.
# - In a **crowd** each box holds a good part of the neighbour, and the heads must tell whose box it is. Where two of a class share a box, nearly, suppression keeps one of two right answers ([chapter 16](16_boxes_and_anchors.ipynb)), and no mask head can bring back the other. That is a fault of *boxes*, and it raises a question: does one need them?
#
# ## 11. Without boxes: nuclei
#
# A biologist counts cell nuclei (细胞核): one class, hundreds of objects, round, touching. Before anyone had a box for each, one did as in [chapter 04](04_regions_and_superpixels.ipynb): *foreground first, then cut*. Otsu's threshold says which pixels are nucleus, the **distance transform** (距离变换) how deep inside each lies, and the **watershed** (分水岭) grows each summit of depth until it meets its neighbour.
#
# First drawn ones, so that we know the truth: discs of many sizes, each touching others a little, of unequal brightness, blurred and noisy. **Predict** AP50 of two ways to read objects from the *same* foreground: its connected components, and the watershed.


# %%
def touching_discs(rng, count=16, size=128):
    """Row, column and radius of discs; most are laid against an earlier one."""
    discs = np.empty((0, 3))
    while len(discs) < count:
        radius, place = rng.uniform(6, 12), rng.uniform(0, size, 2)
        if len(discs) and rng.random() < 0.7:
            row, column, other = discs[rng.integers(len(discs))]
            turn, away = rng.uniform(0, 2 * np.pi), (radius + other) * rng.uniform(0.9, 1)
            place = np.array([row + away * np.sin(turn), column + away * np.cos(turn)])
        apart = np.hypot(*(discs[:, :2] - place).T) >= 0.9 * (discs[:, 2] + radius)
        if radius < place.min() and place.max() < size - radius and apart.all():
            discs = np.vstack([discs, [*place, radius]])
    return discs


# %%
def masks_of(discs, size=128):
    """Masks (N, H, W) of discs; a pixel belongs to the first that covers it."""
    i, j = np.mgrid[:size, :size] + 0.5
    inside = np.stack([np.hypot(i - r, j - c) <= radius for r, c, radius in discs])
    return inside & (np.cumsum(inside, axis=0) == 1)


def photograph(masks, rng):
    """A grey picture of them: unequal brightness, blur and noise."""
    bright = np.einsum("n,nhw->hw", rng.uniform(0.5, 0.9, len(masks)), masks) + 0.15
    return ndimage.gaussian_filter(bright, 1) + rng.normal(0, 0.06, bright.shape)


# %%
def without_boxes(grey, reach=5):
    """Two label maps of a grey picture, components and watershed, and the depth of each pixel."""
    smooth = ndimage.gaussian_filter(grey, 1)
    nucleus = smooth > filters.threshold_otsu(smooth)
    nucleus = ~nucleus if nucleus.mean() > 0.5 else nucleus  # bright ground, dark nuclei
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(nucleus), 1)
    parts = ndimage.label(nucleus)[0]
    summits = feature.peak_local_max(depth, min_distance=reach, labels=parts, exclude_border=False)
    markers = np.zeros(grey.shape, dtype=int)
    markers[tuple(summits.T)] = np.arange(1, len(summits) + 1)
    return parts, segmentation.watershed(-depth, markers, mask=nucleus), depth


# %%
def detections(labels, depth):
    """Objects of a label map with 20 pixels or more; the deeper an object, the surer."""
    area = np.bincount(labels.ravel(), minlength=2)
    kept = 1 + np.flatnonzero(area[1:] >= 20)
    return {
        "masks": torch.from_numpy(labels == kept[:, None, None]).view(-1, *labels.shape),
        "labels": torch.ones(len(kept), dtype=torch.int64),
        "scores": torch.from_numpy(np.asarray(ndimage.maximum(depth, labels, kept), dtype=float)),
    }


# %% [markdown]
# By hand, for a row of the foreground, `0 1 1 1 1 1 0 ` with the ground at both ends: the depths are `1 2 3 2 1`, one summit, one object. A watershed has no score to rank its objects by, and AP needs one. We take the depth of the summit: specks are shallow.

# %% alt="A drawn picture of sixteen touching discs on a dark ground, its depth with one summit in nearly every disc, the components, of which several discs share one colour, and the watershed, in which nearly each disc has its own."
row = np.array([[0, 1, 1, 1, 1, 1, 0]])
check("a row's depths", ndimage.distance_transform_edt(row)[0, 1:-1], [1, 2, 3, 2, 1])
rng = np.random.default_rng([seed, 0])
discs = masks_of(touching_discs(rng))
grey = photograph(discs, rng)
parts, cut, depth = without_boxes(grey)
fig, axes = show.grid(1, 4, "Foreground first, then cut", width=1.8)
show.image(axes[0], torch.from_numpy(grey).expand(3, -1, -1), f"{len(discs)} discs")
show.heat(axes[1], torch.from_numpy(depth), "depth")
show.mask(axes[2], torch.from_numpy(parts), f"components: {parts.max()}", num_classes=40)
show.mask(axes[3], torch.from_numpy(cut), f"watershed: {cut.max()}", num_classes=40)


# %%
def compared(pictures):
    """AP50 of components and of the watershed, over pairs of grey picture and true masks."""
    metrics = [InstanceAP("mask", most=(1, 10, 500)) for _ in range(2)]
    for grey, masks in pictures:
        *maps, depth = without_boxes(grey)
        truth = {"masks": masks, "labels": torch.ones(len(masks), dtype=torch.int64)}
        for metric, labels in zip(metrics, maps, strict=True):
            metric.update(detections(labels, depth), truth)
    return [metric.summary()["AP50"] for metric in metrics]


# %% tags=["nbval-ignore-output"]
heaps = []
for n in range(heaps_count):
    rng = np.random.default_rng([seed, n])
    masks = masks_of(touching_discs(rng))
    heaps.append((photograph(masks, rng), torch.from_numpy(masks)))
by_parts, by_cut = compared(heaps)
check_at_most("components, AP50", by_parts, 0.3)
check_at_least("watershed, AP50", by_cut, 0.75)

# %% [markdown]
# Nothing was learned, and most objects are found and rightly parted. Now real ones, if the set is here: fluorescent and stained, bright on dark and dark on bright, some of the held-out third.

# %% tags=["nbval-ignore-output"]
if catalog.available("nuclei"):
    nuclei = catalog.load("nuclei", split="val")
    stained = (nuclei[n] for n in range(min(most_nuclei, len(nuclei))))
    real = [
        (one["image"].mean(0).numpy(), one["masks"].as_subclass(torch.Tensor)) for one in stained
    ]
    by_parts, by_cut = compared(real)
    print(f"{len(real)} pictures: AP50 of components {by_parts:.2f}, of the watershed {by_cut:.2f}")
    check_at_least("watershed, AP50", by_cut, 0.5)
else:
    print("The nuclei are not here; `segedu data get nuclei` downloads them.")

# %% [markdown]
# So when does one need Mask R-CNN? **When the foreground cannot be had by a threshold, when there are classes, and when objects hide one another.** Round, like, touching: the watershed is quick, needs no labels and is hard to beat. Networks have taken up its idea, too: they predict depth instead of measuring it, or the distances to the outline in many directions (StarDist, 2018), and need no boxes.
#
# ## 12. What goes wrong
#
# ### Boxes in the wrong unit
#
# Boxes are in pixels of the picture, features in cells. **Predict:** at stride 16 somebody forgets `spatial_scale=1/16`. What is read for a box from 64 to 128?

# %%
features = torch.randn(1, 1, 8, 8, generator=generator) + 5  # of a picture of 128 pixels
rois = torch.tensor([[0, 64.0, 64, 128, 128]])
right = roi_align.roi_align(features, rois, 2, 1 / 16, 2, aligned=True)
forgotten = roi_align.roi_align(features, rois, 2, 1.0, 2, aligned=True)
check_at_least("as it should be", right.abs().min(), 1.0)
check("forgotten: nothing, and no error", forgotten, 0.0)

# %% [markdown]
# All samples lie outside the map, and outside is 0. The model trains, every region looks alike, and only the class frequencies are learned.
#
# ### Labels that begin at 0
#
# Class 0 is the ground. A data set whose first class is 0 makes its objects into ground: the proposals find them, and the class head learns to throw them away. torchvision says nothing. We refuse:

# %%
target = {"boxes": torch.tensor([[4.0, 4, 30, 30]]), "labels": torch.tensor([0]), "masks": torch.ones(1, 64, 64, dtype=torch.bool)}  # fmt: skip
try:
    model.train()([torch.rand(3, 64, 64).to(place)], [{k: v.to(place) for k, v in target.items()}])
    refused = "accepted"
except ValueError as error:
    refused = "refused"
    print(error)
check("an object of class 0", refused, "refused")

# %% [markdown]
# ### Width and height for corners
#
# COCO's files have boxes as x, y, width, height; the operators want corners. **Predict** what RoIAlign reads, on the ramp of section 1, for a box with the corners (6, 3) and (10, 9), if it is handed over as (6, 3, 4, 6).

# %%
as_corners = roi_align.roi_align(
    ramp[None, None], torch.tensor([[0.0, 6, 3, 10, 9]]).double(), 1, aligned=True
)
as_sides = roi_align.roi_align(
    ramp[None, None], torch.tensor([[0.0, 6, 3, 4, 6]]).double(), 1, 1.0, 2, aligned=True
)
check("the middle column, corners", as_corners, 7.5)
check("with sides for corners", as_sides, 4.5)

# %% [markdown]
# A box with its right edge left of its left edge is read backwards, without a word. Where boxes come in, one line helps: `assert (boxes[:, 2:] > boxes[:, :2]).all()`.
#
# ## 13. In the article
#
# > **In the article, 7.3: "Mask R-CNN: Object Detection with Keypoint Proposals".** The paper is called **"Mask R-CNN"**, and that is the whole title: K. He, G. Gkioxari, P. Dollár, R. Girshick, ICCV 2017. It proposes no keypoints. Keypoints (关键点) are one of its *extensions*, in its section 5: the mask head is asked for one cell in place of an outline.
#
# That extension is a good test of section 6. A keypoint's truth is a mask of $56 \times 56$ cells of which exactly one is 1. Now the cells *do* compete, for only one can be right: so there the loss is a softmax **over places**, not over classes. **Predict** its value before training.

# %%
keypoint_logits = torch.zeros(1, 56 * 56)
at_start = F.cross_entropy(keypoint_logits, torch.tensor([28 * 56 + 30]))
check("a keypoint's loss at the start: ln(56 * 56)", at_start, 8.05, tol=0.01)

# %% [markdown]
# Sigmoid where answers may hold together, softmax where one excludes the others: the rule of [chapter 06](06_cross_entropy.ipynb), applied twice in one paper.
#
# ## 14. Three quick questions
#
# **1.** A box is 10 cells wide at stride 8. By how many pixels may RoIPool's left edge be off, at most? And RoIAlign's?
#
# <details><summary>Answer</summary>
#
# Half a stride, 4 pixels, whatever the width of the box. RoIAlign's by none.
#
# </details>
#
# **2.** The mask head gives $K \times C \times 28 \times 28$ logits. For $K = 128$ regions of objects and $C = 81$, what share of these numbers gets a gradient from the mask's loss?
#
# <details><summary>Answer</summary>
#
# One in 81: the true class's mask of each region.
#
# </details>
#
# **3.** The class head mistakes a disc for a ring. What mask is drawn, and what does it cost?
#
# <details><summary>Answer</summary>
#
# The ring's mask, perhaps with a hole. As a detection of the class ring it is wrong whatever its mask; the disc is not found. Masks are scored within their class.
#
# </details>

# %%
check("1: half a stride", 8 / 2, 4)
_, own = torch.zeros(2, 81, 4, 4), torch.zeros(2, 81, 4, 4, requires_grad=True)
heads.mask_loss(own, torch.tensor([3, 7]), torch.ones(2, 4, 4)).backward()
check("2: share of logits with a gradient", (own.grad != 0).double().mean(), 1 / 81, tol=1e-9)

# %% [markdown]
# ## 15. Exercises
#
# ### Exercise 1: four weights
#
# A place is given as the course counts: from the outer corner of the map, so that the first cell's centre is at $(0.5, 0.5)$. Which weights have the four cells around it? The place lies between centres.


# %% tags=["exercise"]
def corner_weights(y, x):
    """Weights (2, 2) of the cells above left, above right, below left and below right."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_fractions(down, across):
    """Weights from the shares of the lower and of the right cells."""
    return torch.outer(torch.tensor([1 - down, down]), torch.tensor([1 - across, across]))


exercise = Exercise(
    solution=lambda y, x: by_fractions((y - 0.5) % 1, (x - 0.5) % 1),
    inputs=[(1.5, 1.5), (0.75, 1.0), (3.1, 2.9)],
    misconceptions={
        "half a cell off: the first centre is at 0.5": lambda y, x: by_fractions(y % 1, x % 1),
        "row and column are exchanged": lambda y, x: by_fractions((x - 0.5) % 1, (y - 0.5) % 1),
        "the nearer cell has the larger weight": lambda y, x: by_fractions(
            1 - (y - 0.5) % 1, 1 - (x - 0.5) % 1
        ),
    },
)
exercise.check(corner_weights)


# %% tags=["solution"]
def corner_weights(y, x):
    """How far the place is from the centres above and to the left."""
    down, across = y - 0.5 - math.floor(y - 0.5), x - 0.5 - math.floor(x - 0.5)
    return torch.tensor(
        [[(1 - down) * (1 - across), (1 - down) * across], [down * (1 - across), down * across]]
    )


exercise.check(corner_weights)

# %% [markdown]
# ### Exercise 2: the mask's loss
#
# Write the loss of section 6 from logits, so that it stays finite for any of them. With no region it is 0.


# %% tags=["exercise"]
def loss_of_masks(logits, labels, masks):
    """Logits (K, C, M, M), true classes (K,), truth (K, M, M) in [0, 1]: a scalar."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def regions(count, classes, scale, seed):
    """Logits, labels and masks of regions."""
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, 3, 3, generator=g)
    return (
        logits,
        torch.randint(1, classes, (count,), generator=g),
        torch.rand(count, 3, 3, generator=g),
    )


def elementwise(z, m):
    """-m ln p - (1 - m) ln(1 - p)."""
    return F.binary_cross_entropy_with_logits(z, m, reduction="none")


exercise = Exercise(
    solution=heads.mask_loss,
    inputs=[regions(1, 3, 1, 0), regions(4, 3, 2, 1), regions(3, 4, 200, 2), regions(0, 3, 1, 3)],
    misconceptions={
        "every class was asked for the mask; only the true one is": lambda z, t, m: (
            elementwise(z, m[:, None].expand_as(z)).mean() if len(t) else z.sum()
        ),
        "the class with the largest logits was taken, in place of the true one": lambda z, t, m: (
            elementwise(z[range(len(t)), z.mean((2, 3)).argmax(1)], m).mean() if len(t) else z.sum()
        ),
        "a softmax over the classes: here they do not compete": lambda z, t, m: (
            F.binary_cross_entropy(z.softmax(1)[range(len(t)), t], m) if len(t) else z.sum()
        ),
        "the mean of nothing is nan; without a region the loss is 0": lambda z, t, m: elementwise(
            z[range(len(t)), t], m
        ).mean(),
    },
    tolerance=1e-5,
)
exercise.check(loss_of_masks)


# %% tags=["solution"]
def loss_of_masks(logits, labels, masks):
    """softplus(z) - m z is -m ln p - (1 - m) ln(1 - p), without an overflow."""
    own = logits[torch.arange(len(labels)), labels]
    return (F.softplus(own) - masks * own).sum() / max(masks.numel(), 1)


exercise.check(loss_of_masks)

# %% [markdown]
# ### Exercise 3: RoIPool's bins
#
# Along one axis: which cells does each bin read? Both roundings count.


# %% tags=["exercise"]
def cells_of_bins(low, high, stride, bins):
    """A list of (first cell, the one after the last), a pair for each bin."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def with_roundings(first, last, up=math.ceil, one=1):
    """`pool_bins` with its roundings exchanged."""

    def answer(low, high, stride, bins):
        start, end = first(low / stride), last(high / stride)
        step = max(end - start + one, 1) / bins
        return [(start + math.floor(n * step), start + up((n + 1) * step)) for n in range(bins)]

    return answer


exercise = Exercise(
    solution=pool_bins,
    inputs=[(0.0, 64.0, 16, 1), (27.0, 138.0, 16, 7), (40.0, 44.0, 8, 2), (3.0, 50.0, 4, 3)],
    misconceptions={
        "the box is rounded to the nearest cells, not down": with_roundings(math.floor, math.floor),
        "the last cell belongs to the box": with_roundings(nearest, nearest, one=0),
        "a bin ends at a cell rounded up": with_roundings(nearest, nearest, up=math.floor),
    },
)
exercise.check(cells_of_bins)


# %% tags=["solution"]
def cells_of_bins(low, high, stride, bins):
    """First rounding: the box. Second: each of its parts."""
    first, last = math.floor(low / stride + 0.5), math.floor(high / stride + 0.5)
    length = max(last - first + 1, 1)
    edges = [n * length / bins for n in range(bins + 1)]
    return [
        (first + math.floor(start), first + math.ceil(end))
        for start, end in itertools.pairwise(edges)
    ]


exercise.check(cells_of_bins)

# %% [markdown]
# ## Summary
#
# Symbols: box $(x_1, y_1, x_2, y_2)$ in pixels; stride $s$; feature map $f$ of $H \times W$ cells, rows $r$ and columns $c$; $P \times P$ bins $i, j$ of $n \times n$ samples; shares $a, b$ between two centres and weights $w$; weights of rows and columns $A^y, A^x$; loss $L$ and gradient from above $G$; $K$ regions of $D$ channels, $C$ classes, true class $t$; mask logits $z$ and truth $m$ over cells $p$ of $M \times M$; sigmoid $\sigma$.
#
# $$
# \begin{aligned}
# f(a, b) &= (1-a)(1-b) f_{00} + (1-a) b f_{01} + a (1-b) f_{10} + ab f_{11} \\
# \text{out} &= A^y f (A^x)^{\mathsf T}, \qquad \frac{\partial L}{\partial f} = (A^y)^{\mathsf T} G A^x \\
# L_{\text{mask}} &= -\frac{1}{M^2} \sum_p \big[ m_p \ln \sigma(z_{t,p}) + (1 - m_p) \ln(1 - \sigma(z_{t,p})) \big]
# \end{aligned}
# $$
#
# | operator | rounds | error of the region's middle at stride $s$ | gradient |
# |---|---|---|---|
# | RoIPool | box and bins | $s/2$ on average, and it varies by $s/\sqrt{24}$ | to the largest cell |
# | RoIAlign, not aligned | nothing | $s/2$, always | to four cells a sample |
# | RoIAlign, aligned | nothing | none | to four cells a sample |
#
# **Three things to remember**
#
# 1. An error that is the same for every box can be learned; one that varies cannot. That is why rounding costs masks, and a forgotten half pixel mostly does not.
# 2. Each class draws its own mask with a sigmoid, and only the true one is taught: *what* and *where* are asked apart.
# 3. Five losses share a backbone, and nothing passes through the boxes. Watch each by itself; trust the score on held-out pictures, and then look at what it hides.
#
# **To read**
#
# - K. He, G. Gkioxari, P. Dollár, R. Girshick, "Mask R-CNN", ICCV 2017. https://arxiv.org/abs/1703.06870: section 3 for RoIAlign, the heads and the loss, section 4.2 for what each is worth, section 5 for keypoints.
# - R. Girshick, "Fast R-CNN", ICCV 2015. https://arxiv.org/abs/1504.08083: RoIPool, in section 2.1; its gradient, in section 2.3.
# - S. Ren et al., "Faster R-CNN", NIPS 2015: the proposals. T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017: the pyramid.
# - U. Schmidt, M. Weigert, C. Broaddus, G. Myers, "Cell Detection with Star-Convex Polygons", MICCAI 2018: nuclei without boxes, learned.
# - J. C. Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", *Nature Methods* 16, 2019.
#
# **Next.** The score of section 10 was taken on trust. [Chapter 19](19_instance_metrics.ipynb) takes it apart.

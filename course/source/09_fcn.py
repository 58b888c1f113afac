# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # From a classifier to every pixel: FCN
#
# In 2014 networks could say *what* a picture shows, and not *where*. The last layers that gave the answer had thrown the place away. The fully convolutional network (全卷积网络) changed little and gained much: it read those last layers as convolutions, enlarged their coarse answer, and
# added what finer layers knew. Every later network for segmentation stands on these three steps. This chapter takes them one at a time, and measures what each is worth.
#
# **You will be able to**
#
# - turn a fully connected layer into a convolution with the same weights, and say what it gives on a larger picture;
# - count what one pass over a picture saves against one pass for each window;
# - write bilinear enlargement as a transposed convolution, and let it learn;
# - build FCN-32s, FCN-16s and FCN-8s from one backbone, and measure where their detail differs;
# - carry the weights of torchvision's FCN into our own.
#
# *45 minutes. Before: [convolution arithmetic](05_convolution_arithmetic.ipynb), [cross-entropy](06_cross_entropy.ipynb); boundary F1 is from [chapter 03](03_thresholds_and_edges.ipynb).*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 96  # height and width of a scene
difficulty = 0.2  # of the scenes
train_scenes = 128
epochs = 7
runs = 3  # seeds of the experiment
tolerance = 1.5  # how far a boundary may be off, in pixels
least_gap = 0.02  # boundary F1 that each finer stride must add, mean over the runs

# %%
import math
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

# %%
from segedu import show
from segedu.check import check, check_at_least
from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.losses import cross_entropy_loss
from segedu.metrics.boundary import boundary_f1
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models import fcn as package
from segedu.models.layers import Backbone, Normalize, conv_norm_relu
from segedu.palette import class_colours

_ = torch.manual_seed(seed)  # weights and maps below are drawn at random, but alike each time

# %% [markdown]
# ## 1. Where a classifier loses the place
#
# A classifier of the time is a stack of convolutions and poolings that ends in a small map of features (特征图), and then **fully connected layers** (全连接层): the map is flattened to one long vector $x$, and each output is a weighted sum of all of it, $z = \sum_i w_i\, x_i + b$, with weights $w$ and a bias (偏置) $b$ of its own.
#
# Take a map of $2 \times 2$ pixels and one output that looks for a bright pixel at the upper left: weights $(1, 0, 0, 0)$ and no bias.
#
# | map | flattened | output |
# |---|---|---|
# | bright at the upper left | 1 0 0 0 | 1 |
# | the same, one pixel to the right | 0 1 0 0 | 0 |
#
# Each place has a weight of its own. What the layer knows of one place it does not know of the next. And the number of weights is fixed, so **the picture's size is fixed**. **Predict:** what does torch say to a map of $3 \times 3$?

# %%
looks_upper_left = nn.Linear(4, 1, bias=False)
with torch.no_grad():
    looks_upper_left.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
bright = torch.zeros(1, 1, 2, 2)
bright[..., 0, 0] = 1
check("bright at the upper left", looks_upper_left(bright.flatten(1)), 1.0)
check("one pixel to the right", looks_upper_left(bright.roll(1, dims=-1).flatten(1)), 0.0)
try:
    looks_upper_left(torch.zeros(1, 1, 3, 3).flatten(1))
    raised = "nothing"
except RuntimeError as error:
    raised = str(error)
    print(raised)
check("a map of 3 x 3 is refused", "shapes cannot be multiplied" in raised, want=True)

# %% [markdown]
# ## 2. The same weights, read as a convolution
#
# Here is the step. Take one output of a fully connected layer over $D$ maps of $k \times k$. With the weights numbered like the maps, by channel $c$, row $i$ and column $j$, it is
#
# $$z = b + \sum_{c} \sum_{i=0}^{k-1} \sum_{j=0}^{k-1} w_{c, i, j}\; x_{c, i, j}.$$
#
# A convolution with a kernel (卷积核) of $D \times k \times k$ and no padding computes, at the output place in row $r$ and column $s$,
#
# $$z_{r, s} = b + \sum_{c} \sum_{i=0}^{k-1} \sum_{j=0}^{k-1} w_{c, i, j}\; x_{c, r + i, s + j}.$$
#
# On a map of just $k \times k$ there is one place, $(0, 0)$, and the two formulas are the same. **A fully connected layer is a convolution that has nowhere to go.** Give it a larger map, and it slides.
#
# By hand: the layer above, on the $3 \times 3$ map with rows $1\,2\,3$, $4\,5\,6$, $7\,8\,9$. It has four windows of $2 \times 2$, and takes the upper left of each: $1\,2$ and $4\,5$.


# %%
def as_convolution(layer, channels):
    """A fully connected layer over `channels` square maps, as a convolution with its weights."""
    size = math.isqrt(layer.in_features // channels)
    conv = nn.Conv2d(channels, layer.out_features, size, bias=layer.bias is not None)
    with torch.no_grad():
        conv.weight.copy_(layer.weight.view(-1, channels, size, size))
        if layer.bias is not None:
            conv.bias.copy_(layer.bias)
    return conv


slides = as_convolution(looks_upper_left, channels=1)
nine = torch.arange(1.0, 10).view(1, 1, 3, 3)
check("its four windows", slides(nine), [[[[1.0, 2.0], [4.0, 5.0]]]])

# %% [markdown]
# Now with numbers that are not so tame: 6 channels, a layer for maps of $3 \times 3$, five outputs, and a map of $4 \times 5$. It must agree with the fully connected layer in *every* window, and on the one-window map with the layer itself.

# %%
layer = nn.Linear(6 * 3 * 3, 5)
conv = as_convolution(layer, channels=6)
maps = torch.rand(2, 6, 4, 5)
scores = conv(maps)
check("places", list(scores.shape[-2:]), [2, 3])
for r in range(2):
    for s in range(3):
        window = maps[:, :, r : r + 3, s : s + 3]
        check(f"window ({r}, {s})", scores[..., r, s], layer(window.flatten(1)), tol=1e-6)
same = package.as_convolution(layer, 6)(maps)
check("segedu.models.fcn has the same", same, scores)

# %% [markdown]
# So a classifier for $224 \times 224$ pixels becomes, without a new weight, a network that answers on a grid over any larger picture. Each answer is the one that the classifier would give for the window around it.
#
# ### Why one pass is cheap
#
# One could always cut out windows and classify each. Neighbouring windows overlap almost entirely, and their features are computed again for each. The convolution computes them once.
#
# The paper counts time: AlexNet takes 1.2 ms for one window of $227 \times 227$; as a convolution over $500 \times 500$ it takes 22 ms for a grid of $10 \times 10$ answers (Long et al. 2015, section 3.1). **Predict:** how many times as fast is that?

# %%
check("a hundred windows, one by one, over one pass", 100 * 1.2 / 22, 5.45, tol=5e-3)

# %% [markdown]
# Five times and more. With our own little classifier we can *count* instead. It has five convolutions that each halve the map, and a fully connected layer over what is left. How many multiplications (乘加运算) does it need for one window of $64 \times 64$, and how many for a picture that holds a grid of $5 \times 5$ such windows, 32 pixels apart?


# %%
def multiplications(size):
    """Of five strided 3 x 3 convolutions with 16 channels over size x size, and the scores."""
    total, channels = 0, 3
    for _ in range(5):
        size = math.ceil(size / 2)
        total += size * size * 9 * channels * 16
        channels = 16
    places = size - 2 + 1  # windows of 2 x 2 in the last map
    return total + places * places * 2 * 2 * 16 * 10


one, whole = multiplications(64), multiplications(64 + 4 * 32)
check("windows in the large picture", (64 + 4 * 32 - 64) / 32 + 1, 5)
check("windows around each pixel, if there is one for every pixel", 64 * 64, 4096)
check("25 windows by themselves, over one pass", 25 * one / whole, 2.8, tol=0.05)

# %% [markdown]
# Windows that lie closer save more: 32 pixels apart, each pixel is in four windows of $64 \times 64$, but for the rim. Pixel by pixel it would be in 4096.
#
# ## 3. From coarse scores to pixels
#
# The grid is coarse. VGG-16 halves its maps five times, so its **stride** (步幅) is $2^5 = 32$: one answer for each $32 \times 32$ pixels. On a scene of $96 \times 96$ that is $3 \times 3$ answers. To score each pixel, the map of scores is *enlarged*.
#
# Bilinear enlargement (双线性插值) draws straight lines between the centres of the coarse pixels. Enlarge by $f$: the centre of fine pixel $i$ lies at $(i + \frac12)/f - \frac12$ on the coarse map. By hand for $f = 2$ and a row with the values $a, b$:
#
# | fine pixel | place on the coarse row | value |
# |---|---|---|
# | 0 | $-\frac14$: outside | $a$, held fast |
# | 1 | $\frac14$ | $\frac34 a + \frac14 b$ |
# | 2 | $\frac34$ | $\frac14 a + \frac34 b$ |
# | 3 | $\frac54$: outside | $b$, held fast |
#
# Turn the table round, and ask what *one* coarse value gives: $\frac14, \frac34, \frac34, \frac14$ to four fine pixels. Add these up for all coarse values. That is a **transposed convolution** (转置卷积) with stride 2 and this kernel; [chapter 05](05_convolution_arithmetic.ipynb) has the why.
# In general the kernel has $2f$ entries, a tent: $1 - |j + \frac12 - f| / f$ for $j = 0, \dots, 2f - 1$. In two dimensions it is the product of two.


# %%
def tent(f):
    """The kernel that enlarges f times, in one dimension: (2f,)."""
    j = torch.arange(2 * f)
    return 1 - (j + 0.5 - f).abs() / f


def bilinear_upsampling(channels, f):
    """A transposed convolution, each channel by itself, that begins as bilinear enlargement."""
    up = nn.ConvTranspose2d(
        channels, channels, 2 * f, stride=f, padding=f // 2, groups=channels, bias=False
    )
    with torch.no_grad():
        up.weight.copy_((tent(f)[:, None] * tent(f)).expand_as(up.weight))
    return up


# %%
check("by hand, f = 2", tent(2), [0.25, 0.75, 0.75, 0.25])
a_b = torch.tensor([2.0, 6.0]).expand(1, 1, 2, 2)
row = bilinear_upsampling(1, 2)(a_b)[0, 0, 1]
check("the middle of the row: 3/4 a + 1/4 b and the reverse", row[1:3], [3.0, 5.0])

# %% [markdown]
# **Predict:** does it agree with torch's `interpolate` everywhere? Look at fine pixel 0 in the table, and ask what a transposed convolution knows of what lies outside.

# %%
some = torch.rand(1, 3, 5, 7)
for f in (2, 8):
    ours = bilinear_upsampling(3, f)(some)
    torchs = F.interpolate(some, scale_factor=f, mode="bilinear", align_corners=False)
    inner = slice(f // 2, -(f // 2))
    check(f"f = {f}, inside", ours[..., inner, inner], torchs[..., inner, inner], tol=1e-6)
    check(f"f = {f}, at the corner", ours[0, 0, 0, 0] / torchs[0, 0, 0, 0], tent(f)[f // 2] ** 2)

# %% [markdown]
# Inside they are the same. At the rim `interpolate` holds the last value fast, and the transposed convolution adds zeros: scores shrink towards the frame, all classes' alike, so the *order* of the classes mostly stays.
#
# Why bother, if there is `interpolate`? Because this one has weights. It **begins** as bilinear and may **learn** something better.
#
# ## 4. What the stride costs at best
#
# Before training anything, ask what could be won. Take the truth itself as the network's answer, and pass it through the bottleneck: the share of each class in each block of $s \times s$ pixels, enlarged bilinearly, then the larger one. A network that says of each block how much of it is object can do no better.
#
# We ask one question of each pixel, **object or ground?** (物体, 背景), and score it by **boundary F1**: of the outlines drawn, the share within 1.5 pixels of a true one, and the reverse, in one number.


# %%
def drawn(scenes):
    """Images (N, 3, H, W) and masks (N, H, W) of all scenes: 0 ground, 1 any object, or void."""
    samples = [scenes[i] for i in range(len(scenes))]
    images, masks = (
        torch.stack([sample[key].as_subclass(torch.Tensor) for sample in samples])
        for key in ("image", "mask")
    )
    return images, torch.where(masks == IGNORE, IGNORE, masks.clamp(max=1))


# %%
def through(masks, stride):
    """The truth after a bottleneck: shares of 0 and 1 in blocks, enlarged; the larger one."""
    share = F.avg_pool2d((masks == 1).float()[:, None], stride)
    enlarged = F.interpolate(share, scale_factor=stride, mode="bilinear", align_corners=False)
    return (enlarged[:, 0] > 0.5).long()


def sharpness(predicted, truth):
    """Boundary F1 of the objects."""
    return boundary_f1(predicted, truth, tolerance, num_classes=2)[1].item()


# %% [markdown]
# **Predict:** the median object is 36 pixels across, as chapter 10 measures. What is the boundary F1 of this perfect answer through stride 8, and through 32?

# %%
test_images, test_masks = drawn(
    Scenes(32, size=image_size, seed=2 * seed + 1, difficulty=difficulty)
)
ceiling = {s: sharpness(through(test_masks, s), test_masks) for s in (1, 4, 8, 16, 32)}
for stride, f1 in ceiling.items():
    print(f"stride {stride:2}   boundary F1 {f1:.3f}")
check_at_least("at full size", ceiling[1], 0.999)
check_at_least("stride 8 over stride 16", ceiling[8] - ceiling[16], 0.1)
check_at_least("stride 16 over stride 32", ceiling[16] - ceiling[32], 0.1)

# %% alt="A scene, its mask of objects, and that mask through bottlenecks of stride 8, 16 and 32. At 8 corners are rounded and thin parts gone; at 16 objects are blobs; at 32 there are a few soft blocks that hardly resemble the scene."
shown = test_masks.eq(1).flatten(1).float().mean(1).sub(0.4).abs().argmin()  # two fifths object
fig, axes = show.grid(1, 5, "A perfect answer, through a bottleneck", width=1.9)
show.image(axes[0], test_images[shown], "scene")
show.mask(axes[1], test_masks[shown], "truth", num_classes=2)
for ax, stride in zip(axes[2:], (8, 16, 32), strict=True):
    show.mask(ax, through(test_masks, stride)[shown], f"stride {stride}", num_classes=2)

# %% [markdown]
# A trained network may say something else of a block than a share: its scores are free. So this is no strict bound, but the order is set.
#
# ## 5. Skips: what the finer layers know
#
# A classifier has finer maps. After its third pooling the stride is 8, after the fourth 16. Those features know less of *what*, since they saw less of the picture, and more of *where*. The paper's idea: **score the finer maps as well, and add.**
#
# $$
# \begin{aligned}
# \text{FCN-32s:} \quad & z = \operatorname{up}_{32}(s_{32}) \\
# \text{FCN-16s:} \quad & z = \operatorname{up}_{16}\big(\operatorname{up}_2(s_{32}) + s_{16}\big) \\
# \text{FCN-8s:} \quad & z = \operatorname{up}_8\big(\operatorname{up}_2(\operatorname{up}_2(s_{32}) + s_{16}) + s_8\big)
# \end{aligned}
# $$
#
# Here $C$ is the number of classes, and $s_d$, of shape $(C, H/d, W/d)$, are the scores that a $1 \times 1$ convolution makes of the features at stride $d$ of a picture of $H \times W$; $\operatorname{up}_f$ is the enlargement of section 3, and $z$, of shape $(C, H, W)$, are the logits. Only scores are added, $C$ numbers for each place: cheap. [U-Net](10_unet.ipynb) will copy the *features* across instead, and ask more convolutions what to make of them.
#
# By hand, one class and one row. Coarse scores $(2, 6)$, fine scores $(0, 1, -2, 0)$. Enlarged, with the zeros outside: $1.5,\ 3,\ 5,\ 4.5$. Added: $1.5,\ 4,\ 3,\ 4.5$. The fine score has moved the place where the row rises above 3.5 by one pixel.

# %%
coarse_row = torch.tensor([2.0, 6.0])
fine_row = torch.tensor([0.0, 1.0, -2.0, 0.0])
up_row = F.conv_transpose1d(coarse_row.view(1, 1, 2), tent(2).view(1, 1, 4), stride=2, padding=1)
check("enlarged", up_row[0, 0], [1.5, 3.0, 5.0, 4.5])
check("added", up_row[0, 0] + fine_row, [1.5, 4.0, 3.0, 4.5])
check("first pixel above 3.5, before", (up_row[0, 0] > 3.5).int().argmax(), 2)
check("and after", (up_row[0, 0] + fine_row > 3.5).int().argmax(), 1)


# %% [markdown]
# Now the network. A trunk gives features by stride; this reader makes scores of them. Finer scores begin at zero, as in the paper: a skip that has learned nothing changes nothing.


# %%
class Reader(nn.Module):
    """Scores at stride 32, enlarged; those of strides down to `finest` are added on the way."""

    def __init__(self, num_classes, channels, finest):
        super().__init__()
        self.strides = [s for s in (32, 16, 8, 4, 2) if s >= finest]
        self.score = nn.ModuleList(nn.Conv2d(channels[s], num_classes, 1) for s in self.strides)
        for finer in self.score[1:]:
            nn.init.zeros_(finer.weight), nn.init.zeros_(finer.bias)
        self.up = nn.ModuleList(bilinear_upsampling(num_classes, 2) for _ in self.strides[1:])
        self.enlarge = bilinear_upsampling(num_classes, finest)

    def forward(self, features):
        return self.enlarge(added(self, features))


# %%
def added(reader, features):
    """Scores at the finest stride: the coarse ones enlarged step by step, the finer ones added."""
    z = reader.score[0](features[32])
    steps = zip(reader.strides[1:], reader.score[1:], reader.up, strict=True)
    for stride, score, up in steps:
        z = up(z) + score(features[stride])
    return z


# %%
def block(a, b):
    """Two convolutions and a pooling."""
    return nn.Sequential(*conv_norm_relu(a, b), *conv_norm_relu(b, b), nn.MaxPool2d(2))


# %%
class Trunk(Backbone):
    """Five such blocks, like VGG but small: features by stride."""

    def __init__(self, widths=(12, 24, 32, 48, 64)):
        super().__init__()
        self.normalize = Normalize([0.5] * 3, [0.25] * 3)
        self.channels = {2 ** (i + 1): width for i, width in enumerate(widths)}
        self.blocks = nn.ModuleList(map(block, (3, *widths[:-1]), widths))

    def forward(self, image):
        x, features = self.normalize(image), {}
        for i, block in enumerate(self.blocks):
            x = features[2 ** (i + 1)] = block(x)
        return features


# %%
trunk = Trunk().eval()
features = trunk(torch.rand(1, 3, 96, 96))
check("strides", list(features), [2, 4, 8, 16, 32])
check("places at stride 32", list(features[32].shape[-2:]), [3, 3])
for finest in (32, 16, 8):
    reader = Reader(2, trunk.channels, finest)
    theirs = package.FCN(2, trunk, finest=finest).eval()
    check(
        "as many weights",
        len(list(theirs.parameters())),
        len([*trunk.parameters(), *reader.parameters()]),
    )
    theirs.load_state_dict({**theirs.state_dict(), **reader.state_dict()})
    image = torch.rand(1, 3, 96, 96)
    check(f"FCN-{finest}s as in segedu", reader(trunk(image)), theirs(image), tol=1e-6)

# %% [markdown]
# ## 6. The experiment
#
# Which is sharper? The paper trains FCN-32s, goes on from its weights to 16s, and from those to 8s. So FCN-8s has also been trained the longest, and one cannot tell which of the two made it better. Our design has no such doubt: **one trunk, three readers**, trained together by the sum of
# their losses. All three read the same features, learn for the same number of steps from the same pictures. They differ in their path to the pixels and in nothing else. Three seeds, and the spread shown.
#
# What this cannot say is how good an FCN-32s would be whose trunk has to serve it alone.
#
# **Predict:** which of the two steps gains more boundary F1, from 32 to 16 or from 16 to 8? The numbers of section 4 are a hint.


# %%
class ThreeReaders(nn.Module):
    """FCN-32s, -16s and -8s on one trunk: logits (3, B, C, H, W)."""

    def __init__(self, num_classes):
        super().__init__()
        self.trunk = Trunk()
        self.readers = nn.ModuleList(
            Reader(num_classes, self.trunk.channels, finest) for finest in (32, 16, 8)
        )

    def forward(self, image):
        features = self.trunk(image)
        return torch.stack([reader(features) for reader in self.readers])


# %%
def trained(images, masks, run):
    """The three readers after training on images and masks."""
    torch.manual_seed(run)
    net = ThreeReaders(2).to(images.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=8e-3)
    steps = epochs * (len(images) // 8)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).view(-1, 8):
            logits = net(images[batch].contiguous(memory_format=torch.channels_last))
            loss = sum(cross_entropy_loss(z, masks[batch]) for z in logits)
            optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    return net.eval()


# %% tags=["nbval-ignore-output"]
place = pick_device(device)
results = []
for run in range(seed, seed + runs):
    learn, new = (Scenes(n, size=image_size, seed=s, difficulty=difficulty)
                  for n, s in ((train_scenes, 2 * run), (32, 2 * run + 1)))  # fmt: skip
    net = trained(*(x.to(place) for x in drawn(learn)), run)
    new_images, new_masks = drawn(new)
    with torch.inference_mode():
        answers = net(new_images.to(place)).argmax(2).cpu()  # (3, N, H, W)
    results.append([sharpness(answer, new_masks) for answer in answers])
    print(
        f"seed {run}:",
        *(f"FCN-{k}s {f:.3f}  " for k, f in zip((32, 16, 8), results[-1], strict=True)),
    )

# %% tags=["nbval-ignore-output"] alt="Boundary F1 of FCN-32s, 16s and 8s on held-out scenes, one dot for each seed, and as a dash what the truth keeps through a bottleneck of that stride. The dots rise from 32 to 16 to 8 for every seed; they lie above the dashes of 32 and 16 and below that of 8."
f1 = torch.tensor(results, dtype=torch.float64)  # (runs, 3)
fig, [ax] = show.grid(1, 1, width=5, height=3)
for run, values in enumerate(f1.tolist()):
    label = "one seed each" if run == 0 else None
    ax.plot(range(3), values, "o-", color=class_colours(8)[6] / 255, alpha=0.7, label=label)
best = [ceiling[s] for s in (32, 16, 8)]
ax.plot(range(3), best, "_", markersize=28, color="black", label="truth through the bottleneck")
ax.set(title="Each finer score sharpens the outline", ylabel="boundary F1", xlim=(-0.5, 2.5))
ax.set(xticks=range(3), xticklabels=["FCN-32s", "FCN-16s", "FCN-8s"])
ax.legend()
check_at_least("16s over 32s, mean over seeds", (f1[:, 1] - f1[:, 0]).mean(), least_gap)
check_at_least("8s over 16s, mean over seeds", (f1[:, 2] - f1[:, 1]).mean(), least_gap)

# %% [markdown]
# Each step gains, at each seed. And FCN-32s stands *above* what the truth keeps through its bottleneck: its scores are not shares. The trunk sees the whole block, and chooses two numbers for each place so that the line between the
# classes falls near the outline. It is a gently bent line, though. FCN-8s stands below its dash: at stride 8 the bottleneck is wide enough, and what is missing has not been learned yet. Look:

# %% tags=["nbval-ignore-output"]
check_at_least("each step, at each seed", f1.diff(dim=1).min(), least_gap / 4)
check_at_least(
    "FCN-32s above the truth through stride 32", f1[:, 0].mean() - ceiling[32], 2 * least_gap
)
check_at_least("FCN-8s below the truth through stride 8", ceiling[8] - f1[:, 2].mean(), 0)

# %% tags=["nbval-ignore-output"] alt="Three held-out scenes in rows; columns are the scene, the truth, and the answers of FCN-32s, 16s and 8s. The first answers are smooth blobs, the last follow the outlines, corners still rounded."
pictures = new_masks.eq(1).flatten(1).float().mean(1).sub(0.4).abs().argsort()[:3]
fig, axes = show.grid(3, 5, "One trunk, three readers", width=1.8)
for row, n in zip(axes, pictures.tolist(), strict=True):
    show.image(row[0], new_images[n], "scene")
    show.mask(row[1], new_masks[n], "truth", num_classes=2)
    for ax, answer, stride in zip(row[2:], answers, (32, 16, 8), strict=True):
        show.mask(ax, answer[n], f"FCN-{stride}s", num_classes=2)

# %% [markdown]
# In the paper's own numbers, on PASCAL VOC 2011, mean IoU is 59.4 % for FCN-32s, 62.4 % for FCN-16s and 62.7 % for FCN-8s (table 2). The last step gains little there. VOC's objects fill much of their picture, and a large object has few boundary pixels for its area: **mean IoU hardly looks at their outlines.** Our objects are small for these strides, so ours moves more:

# %% tags=["nbval-ignore-output"]
miou = []
for answer in answers:
    counts = ConfusionMatrix(2)
    counts.update(answer, new_masks)
    miou.append(counts.mean_iou())
print("last seed, mean IoU:", *(f"{value:.3f}" for value in miou))
print("last seed, boundary F1:", *(f"{value:.3f}" for value in results[-1]))
check("the paper, 16s over 32s in points", 62.4 - 59.4, 3.0, tol=1e-9)
check("8s over 16s", 62.7 - 62.4, 0.3, tol=1e-9)

# %% [markdown]
# ## 7. The one that libraries ship
#
# torchvision's `fcn_resnet50` has no skips. It keeps the stride small instead: the last two stages of its ResNet do not stride, they *dilate*, so that the features end at stride 8 ([chapter 12](12_context.ipynb)). Then come two convolutions and one bilinear enlargement. `segedu.models.fcn.fcn_resnet50` is
# the same network, with the image's normalisation inside. Give ours the weights of theirs, and both must say the same, on a picture of odd size.

# %%
torch.manual_seed(0)
peer = torchvision.models.segmentation.fcn_resnet50(
    weights=None, weights_backbone=None, num_classes=4
).eval()
ours = package.fcn_resnet50(4).eval()
ours.load_state_dict(peer.state_dict(), strict=True)
odd = torch.rand(1, 3, 65, 97)
with torch.inference_mode():
    check("the same logits", ours(odd), peer(Normalize()(odd))["out"], tol=1e-4)
weights = sum(weight.numel() for weight in ours.parameters())
check("weights, in millions", weights / 1e6, 32.95, tol=5e-3)

# %% [markdown]
# With weights that torchvision trained, one line each: `from_peer` leaves out the auxiliary classifier, which helps in training only.
#
# ```python
# trained = torchvision.models.segmentation.fcn_resnet50(weights="DEFAULT")
# ours = package.fcn_resnet50(21)
# ours.load_state_dict(package.from_peer(trained.state_dict()))
# ```
#
# ## 8. What goes wrong
#
# ### Enlarged from the wrong corner
#
# The tent's middle must lie over the coarse pixel's centre. Forget the padding of $f/2$ and crop the output to size from the upper left: every score sits $f/2$ pixels too far down and to the right. Nothing fails. The loss falls, since the weights before it can lean against the shift a little.
#
# **Predict:** the same trained FCN-8s, its last enlargement shifted so: what becomes of its boundary F1? And of its mean IoU?


# %% tags=["nbval-ignore-output"]
def misplaced(enlarge, z):
    """The same enlargement without padding, cropped from the upper left: shifted by f/2."""
    height, width = (length * enlarge.stride[0] for length in z.shape[-2:])
    whole = F.conv_transpose2d(z, enlarge.weight, stride=enlarge.stride, groups=enlarge.groups)
    return whole[..., :height, :width]


with torch.inference_mode():
    features = net.trunk(new_images.to(place))
    finest_reader = net.readers[2]
    right, shifted = (
        enlarged(finest_reader.enlarge, added(finest_reader, features)).argmax(1).cpu()
        for enlarged in (lambda up, z: up(z), misplaced)
    )
check("unshifted it is FCN-8s", right, answers[2])

# %% tags=["nbval-ignore-output"]
counts = ConfusionMatrix(2)
counts.update(shifted, new_masks)
print(f"boundary F1 {results[-1][2]:.3f}, shifted {sharpness(shifted, new_masks):.3f}")
print(f"mean IoU    {miou[2]:.3f}, shifted {counts.mean_iou():.3f}")
lost_f1 = results[-1][2] - sharpness(shifted, new_masks)
check_at_least("boundary F1 lost", lost_f1, least_gap)
check_at_least("more than of mean IoU", lost_f1 - (miou[2] - counts.mean_iou()), least_gap / 3)

# %% [markdown]
# A shift of four pixels costs the outline more than the mean IoU, even with objects as small as these. When boundaries are poor and all else is well, look for half a stride.
#
# ### Flatten, and the size is fixed
#
# `nn.Flatten` and `nn.Linear` at the end of a network for segmentation: it runs on the training size, and fails on the first picture of another. Worse is the repair with `AdaptiveAvgPool2d`: no failure, and no place either.

# %%
pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
deep = torch.rand(1, 64, 7, 9)
mirrored = deep.flip(-1)
check("the picture and its mirror image", pooled(deep), pooled(mirrored), tol=1e-5)
check_at_least("as a map of scores, they differ", (deep - mirrored).abs().max(), 0.1)

# %% [markdown]
# ## 9. In the article
#
# > **In the article, 3.1: fully connected layers classify the features** and give the label of each pixel. A fully connected layer gives one answer for the whole map, and has a weight for each place: what it learned about the upper left it does not know about the lower right. What labels pixels is the layer *read as a convolution*.

# %%
dense, as_map = nn.Linear(8 * 4 * 4, 6), nn.Conv2d(8, 6, 1)
thing = torch.zeros(1, 8, 4, 4)
thing[..., 0, 0] = torch.rand(8)
moved = thing.roll((2, 1), dims=(2, 3))
check_at_least(
    "fully connected: moved, another answer",
    (dense(thing.flatten(1)) - dense(moved.flatten(1))).abs().max(),
    0.01,
)
check(
    "1 x 1 convolution: the answer moves along",
    as_map(moved),
    as_map(thing).roll((2, 1), dims=(2, 3)),
    tol=1e-6,
)
# %%
check("weights of the one", dense.weight.numel(), 768)
check("and of the other", as_map.weight.numel(), 48)

# %% [markdown]
# > **In the article, 5.2: `from transformers import ResNet`, and `num_classes=1` "stands for semantic segmentation".** There is no such class. A ResNet that classifies returns one vector for each image and has nothing to enlarge it with; `num_classes` is the number of classes, and for segmentation with $C$ classes it is $C$.

# %%
classifier = torchvision.models.resnet18(weights=None, num_classes=1).eval()
with torch.inference_mode():
    check(
        "what a classifier gives for two pictures",
        list(classifier(torch.rand(2, 3, 64, 64)).shape),
        [2, 1],
    )
    of_pixels = package.OnDeepest(Trunk().eval(), nn.Conv2d(64, 4, 1))
    check("what is wanted", list(of_pixels(torch.rand(2, 3, 64, 64)).shape), [2, 4, 64, 64])

# %% [markdown]
# > **In the article, 7.3: FCN, without a date or a place.** J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015.
#
# ## 10. Three quick questions
#
# **1.** A classifier for $224 \times 224$ has stride 32 and a fully connected layer over $7 \times 7$ features. Read as a convolution, on a picture of $512 \times 512$: how many answers?
#
# <details><summary>Answer</summary>
#
# The map is $512 / 32 = 16$ wide, a window 7: $16 - 7 + 1 = 10$, so $10 \times 10$.
#
# </details>
#
# **2.** Why do the scores of the finer strides begin at zero?
#
# <details><summary>Answer</summary>
#
# So that FCN-16s begins as the trained FCN-32s and can only be changed by what it learns. With random scores, a network that was good would be bad at first.
#
# </details>
#
# **3.** Your FCN-8s has a poor boundary F1, and an FCN-4s is no better. What would you look for?
#
# <details><summary>Answer</summary>
#
# Something else than the stride is the limit: enlarged from the wrong corner, masks and pictures that are moved by half a pixel against each other, or annotations that are themselves no better.
#
# </details>

# %%
check("1: answers across", 512 // 32 - 7 + 1, 10)

# %% [markdown]
# ## 11. Exercises
#
# ### Exercise 1: how many answers?
#
# A classifier for windows of `window` pixels, with stride `stride` (the window is a multiple of it). On a picture of `size` pixels, how many answers across?


# %% tags=["exercise"]
def answers_across(size, window, stride):
    """How many windows, `stride` pixels apart, lie within `size` pixels: an int."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda size, window, stride: (size - window) // stride + 1,
    inputs=[(224, 224, 32), (512, 224, 32), (255, 224, 32), (300, 100, 20)],
    misconceptions={
        "that counts the strides that fit, as if the window had no width": lambda size, _, stride: (
            size // stride
        ),
        "the window at the start was forgotten": lambda size, window, stride: (
            (size - window) // stride
        ),
        "windows that begin at every pixel": lambda size, window, _: size - window + 1,
    },
)
exercise.check(answers_across)


# %% tags=["solution"]
def answers_across(size, window, stride):
    """One window at the start, and one more for each stride that still fits."""
    return (size - window) // stride + 1


exercise.check(answers_across)

# %% [markdown]
# ### Exercise 2: the kernel that enlarges
#
# Write the tent for a factor `f`, in one dimension, as a tensor of $2f$ numbers, without looking.


# %% tags=["exercise"]
def enlarging_kernel(f):
    """What one coarse value gives to the 2f fine pixels around it: (2f,)."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=tent,
    inputs=[(2,), (4,), (8,)],
    misconceptions={
        "the kernel adds up to 1; it must add up to f, since it serves f fine pixels": lambda f: (
            tent(f) / f
        ),
        "centres were put on whole numbers, so the tent leans to one side": lambda f: (
            1 - (torch.arange(2.0 * f) - f).abs() / f
        ),
        "that repeats the value: nearest neighbour, not a tent": lambda f: torch.cat(
            [torch.zeros(f // 2), torch.ones(f), torch.zeros(f - f // 2)]
        ),
    },
)
exercise.check(enlarging_kernel)


# %% tags=["solution"]
def enlarging_kernel(f):
    """Fine pixel j has its centre at j + 1/2; the coarse centre is at f; the slope is 1/f."""
    centre = torch.arange(2 * f) + 0.5
    return 1 - (centre - f).abs() / f


exercise.check(enlarging_kernel)

# %% [markdown]
# ### Exercise 3: fuse
#
# Scores at stride 32 and at stride 16 of the same picture, $(B, C, h, w)$ and $(B, C, 2h, 2w)$. Give FCN-16s' scores at stride 16. Use `F.interpolate` this time.


# %% tags=["exercise"]
def fuse(coarse, fine):
    """The enlarged coarse scores and the fine ones together, at the fine size."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
twice = partial(F.interpolate, scale_factor=2, mode="bilinear", align_corners=False)
generator = torch.Generator().manual_seed(1)
exercise = Exercise(
    solution=lambda coarse, fine: twice(coarse) + fine,
    inputs=[
        (torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 2, 2)),
        tuple(torch.rand(2, 3, n, n + n // 2, generator=generator) for n in (2, 4)),
    ],
    misconceptions={
        "the mean halves every score: FCN adds": lambda coarse, fine: (twice(coarse) + fine) / 2,
        "joined along the channels: that is U-Net's way": lambda coarse, fine: torch.cat(
            [twice(coarse), fine], dim=1
        ),
        "the fine scores were shrunk, and what they knew is lost": lambda coarse, fine: twice(
            coarse + F.avg_pool2d(fine, 2)
        ),
    },
)
exercise.check(fuse)


# %% tags=["solution"]
def fuse(coarse, fine):
    """Enlarge, then add: a score is evidence, and evidence adds up."""
    return F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False) + fine


exercise.check(fuse)

# %% [markdown]
# ## Summary
#
# Symbols: weights $w$, bias $b$ and features $x$, $D$ maps of $k \times k$ in a window, channel $c$; scores $s_d$ of shape $(C, H/d, W/d)$ at stride $d$ for $C$ classes; $\operatorname{up}_f$ enlarges $f$ times, with the kernel $u$.
#
# $$
# \begin{aligned}
# z_{r,s} &= b + \sum_{c,i,j} w_{c,i,j}\, x_{c, r+i, s+j} && \text{a fully connected layer that slides} \\
# u_j &= 1 - |j + \tfrac12 - f| / f, \quad 0 \le j < 2f && \text{the kernel of bilinear enlargement} \\
# z &= \operatorname{up}_8\big(\operatorname{up}_2(\operatorname{up}_2(s_{32}) + s_{16}) + s_8\big) && \text{FCN-8s}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. A fully connected layer is a convolution that has nowhere to go. Read so, a classifier answers on a grid over any picture, and shares the work between windows.
# 2. Coarse scores know what, fine scores know where; added, they sharpen the outline. Boundary F1 sees it; mean IoU sees it where objects are small.
# 3. Enlargement has a half-pixel in it. Half a stride off, nothing fails, and the outlines are wrong.
#
# **To read**
#
# - J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015: section 3.1 (classifiers read as convolutions), 3.3 (upsampling), 4.2 (skips), table 2.
# - E. Shelhamer, J. Long, T. Darrell, the same title, *IEEE Transactions on Pattern Analysis and Machine Intelligence* 39(4), 2017: the journal version, with more experiments.
# - K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015: VGG, the paper's trunk.
#
# **Next.** FCN adds scores. [U-Net](10_unet.ipynb) copies features, and lets convolutions decide what to make of them.

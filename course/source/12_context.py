# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How does a network see far?
#
# Cover a photograph with a sheet of paper that has a small hole in it, and look at one patch: grey, smooth, a straight edge. A car, a boat, a roof? Take the sheet away and you know, because of what lies *around* the patch. A network that labels pixels is in the same place: what its layers let it see around a pixel
# is all it can use. This chapter measures how far that is, and builds the two answers of 2015 to 2018 that are still in use: **pool the whole picture** (PSPNet) and **spread the taps of the kernel** (DeepLab v1 to v3+).
#
# **You will be able to**
#
# - show that some labels cannot be had from a patch, and state what a network of a given reach can score at best;
# - measure how far a network really looks, with one line of autograd;
# - write pyramid pooling and atrous spatial pyramid pooling, and load the weights of libraries into them;
# - trade stride for dilation without touching a weight, and prove that nothing else has changed;
# - see the holes that dilation leaves, and count what it costs.
#
# *50 minutes. Before: [convolution arithmetic](05_convolution_arithmetic.ipynb) for fields, strides and dilation, [FCN](09_fcn.ipynb) for output strides.*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 64  # height and width of a picture; the scene around it is 9/4 as large
train_scenes = 96  # each gives two pictures
test_scenes = 48
epochs = 5
runs = 3  # seeds of the experiment
own_size = 48  # of the second experiment
own_scenes = 128
own_epochs = 8
least_gain = 0.2  # accuracy that context must add where it is needed, mean over the runs
least_drop = 0.05  # accuracy that is lost on two pictures side by side
most_own_gain = 0.1  # mean IoU that the pyramid may add on the scenes' own classes
least_own_loss = 0.02  # mean IoU that ASPP falls short there, at nine channels
camvid_frames = 60  # of each split, where CamVid is

# %%
import math
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_cdt
from torch import nn
from torchvision.models.segmentation import deeplabv3 as torchvisions

# %%
from segedu import show, widgets
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.losses import cross_entropy_loss
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models import deeplab, pspnet, registry, resnet, vgg
from segedu.models.describe import multiplications
from segedu.models.layers import conv_norm_relu
from segedu.palette import class_colours

# %%
_ = torch.manual_seed(seed)  # weights and maps below are drawn at random, but alike each time
colours = class_colours(8) / 255

# %% [markdown]
# ## 1. Two patches alike, two classes
#
# The paper on PSPNet opens with a boat that an FCN called a car: by its looks it might be one, but cars do not swim (Zhao et al. 2017). We build just that. Take a scene, and tint its ground: once like a **road**, once like **water**. Leave the pixels of the objects as they are, *to the last bit*. Then name the objects by where they are: on a road they are **cars** (class 1), on water **boats** (class 2). Class 0 is the ground.
#
# So each scene gives a pair of pictures. The middle of a scene is cut out, so that objects are large.


# %%
TINTS = torch.tensor([[0.52, 0.50, 0.47], [0.30, 0.50, 0.72]])  # road, water


def cut_out(scene):
    """The middle of a scene: picture (3, H, W), where objects are, and where the truth is void."""
    begin = (scene["image"].shape[-1] - image_size) // 2
    part = slice(begin, begin + image_size)
    picture, number, classes = (
        scene[key].as_subclass(torch.Tensor)[..., part, part]
        for key in ("image", "instance_map", "mask")
    )
    return picture, number > 0, classes == IGNORE


# %%
def pair(picture, is_object, is_void):
    """The same objects on a road and on water: pictures (2, 3, H, W) and truths (2, H, W)."""
    ground = (2 * picture.mean(0) * TINTS[:, :, None, None]).clamp(0, 1)
    kinds = torch.tensor([1, 2])[:, None, None]
    truth = torch.where(is_object, kinds, 0)
    return torch.where(is_object, picture, ground), truth.masked_fill(is_void, IGNORE)


def pairs(count, seed):
    """Pairs of `count` scenes that are a tenth to nine tenths object, pair after pair."""
    scenes = Scenes(20 * count, size=9 * image_size // 4, seed=seed, difficulty=0.2)
    parts = (cut_out(scenes[i]) for i in range(len(scenes)))
    fitting = (part for part in parts if 0.1 < part[1].float().mean() < 0.9)
    made = [pair(*part) for part, _ in zip(fitting, range(count), strict=False)]
    return tuple(torch.cat(both) for both in zip(*made, strict=True))


# %% alt="A scene with large textured objects, once on a brown-grey road and once on blue water, the two truths beside it in different class colours, and one patch cut from inside an object of each picture: the two patches are the same."
pictures, truths = pairs(test_scenes, seed=2 * seed + 1)
differ = (pictures[::2] != pictures[1::2]).any(1)  # (pairs, H, W): where a pair's pictures differ
far = torch.stack([torch.from_numpy(distance_transform_cdt(~d, "chessboard")) for d in differ])
which = far.flatten(1).amax(1).argmax()
row, column = divmod(far[which].argmax().item(), image_size)
row, column = (min(max(place, 6), image_size - 6) for place in (row, column))
fig, axes = show.grid(1, 6, "One pair: only the ground differs", width=1.7)
for n, name in enumerate(("road", "water")):
    one = 2 * which + n
    show.image(axes[n], pictures[one], name)
    show.mask(axes[2 + n], truths[one], ("cars", "boats")[n], num_classes=3)
    show.image(axes[4 + n], pictures[one, :, row - 6 : row + 6, column - 6 : column + 6], "a patch")

# %% [markdown]
# **Predict:** a network sees 6 pixels to each side. What share of the object pixels of such pairs can it name rightly, *at best*?
#
# Where no ground is within its reach, it gets the same numbers for both pictures. The same numbers in, the same answer out: right for one picture of the pair, wrong for the other. Exactly one half, whatever its weights are. Write $q(a)$ for the share of object pixels with ground within $a$ pixels, counted like a king moves on a chessboard. Then
#
# $$\text{accuracy of reach } a \;\le\; q(a) + \tfrac12 \big(1 - q(a)\big) = \tfrac12 + \tfrac12\, q(a).$$
#
# By hand: an object is a square of $4 \times 4$ pixels. Reach 1 sees the ground from the 12 pixels of its rim, not from the 4 inside: $\frac12 + \frac12 \cdot \frac{12}{16} = 0.875$.


# %%
def best_accuracy(distance, reach):
    """The bound, for object pixels that are `distance` away from what tells."""
    return 0.5 + 0.5 * (distance <= reach).double().mean()


square = torch.zeros(8, 8, dtype=torch.int32)
square[2:6, 2:6] = 1
by_hand = torch.from_numpy(distance_transform_cdt(square.numpy(), "chessboard"))[square > 0]
check("a square of 4 x 4, reach 1", best_accuracy(by_hand, 1), 0.875)


# %%
is_object = (truths[::2] == 1) & (truths[1::2] == 2)
distance = far[is_object]
check(
    "objects of a pair: largest difference",
    (pictures[::2] - pictures[1::2]).abs().amax(1)[is_object].max(),
    0.0,
)

# %% alt="A curve that rises from one half at reach 0 to 1 at a reach of about 30 pixels, steeply at first and then slowly."
reaches = range(image_size // 2 + 1)
best = [best_accuracy(distance, reach).item() for reach in reaches]
fig, [ax] = show.grid(1, 1, width=5, height=2.8)
ax.plot(reaches, best, color=colours[6])
ax.set(title="Whoever sees near can only guess", xlabel="reach (pixels to each side)")
ax.set(ylabel="best accuracy on objects", ylim=(0.48, 1.02))
check("reach 0: a guess", best[0], 0.5)
check_at_most("reach 6, at best", best[6], 0.9)
check_at_least("reach 6, at best", best[6], 0.6)
check_at_least("reach 24, at best", best[24], 0.9)

# %% [markdown]
# No training and no architecture changes this curve. It belongs to the *data*. To climb it one must see further. So: how far does a network see?
#
# ## 2. What it can see, and what it looks at
#
# [Chapter 05](05_convolution_arithmetic.ipynb) added up the **receptive field** (感受野) of a chain of layers: each adds $(k - 1)\, r\, j$ pixels for a kernel of $k$ taps with dilation $r$, where $j$ is the product of the strides before it. It also found that influence is bunched in the middle. Luo et al. (2016) gave that a name, the **effective receptive field** (有效感受野), and showed that for $L$ equal layers it grows like $\sqrt L$, while the theoretical one grows like $L$.
#
# Measure it. The gradient of one output in the picture says how much each pixel moves it. Take the sizes of the gradient, and the smallest centred square that holds 95 % of their sum: we call its side $E$, and the side of the whole field $R$.
#
# By hand, along one axis. Two layers of three taps with equal weights have the influences $1, 2, 3, 2, 1$, a sum of 9. $R = 5$. The middle three hold 7 of 9, so 95 % need all five.


# %%
def influence(net, size, channels=3, count=4):
    """Mean size of the gradient of the middle output in the pixels of `count` noise pictures."""
    x = torch.randn(count, channels, size, size, requires_grad=True)
    y = net(x)
    [slope] = torch.autograd.grad(y[..., y.shape[-2] // 2, y.shape[-1] // 2].sum(), x)
    return slope.abs().mean((0, 1))


# %%
def side_of(influences, share=0.95):
    """Side of the smallest square around the middle that holds `share` of the sum."""
    middle = influences.shape[0] // 2
    for half in range(middle + 1):
        part = slice(middle - half, middle + half + 1)
        if influences[part, part].sum() >= share * influences.sum():
            return 2 * half + 1
    return influences.shape[0]


# %%
def stack(layers, width=8):
    """3 x 3 convolutions with random weights and ReLU, as He et al. scale them."""
    convs = [nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(layers)]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(*(part for conv in convs for part in (conv, nn.ReLU())))


box = torch.ones(1, 1, 5, 1).expand(1, 1, 5, 5) * torch.tensor([1.0, 2, 3, 2, 1])
check("by hand: the middle three of five", 7 / 9, 0.778, tol=5e-4)
check("so E is R", side_of(box[0, 0]), 5)
depths = (5, 10, 20, 40)
looks = {n: influence(stack(n), 2 * n + 1, channels=8) for n in depths}
for n, slope in looks.items():
    print(f"{n:2} layers: R = {2 * n + 1:2}, E = {side_of(slope):2}")

# %% alt="The influence of the pixels on the middle output for stacks of 5, 10, 20 and 40 layers, each drawn over its whole field. It fills most of the field for 5 layers and only a round blob in the middle for 40."
fig, axes = show.grid(1, 4, "Influence on the middle output, over the whole field", width=2.1)
for ax, (n, slope) in zip(axes, looks.items(), strict=True):
    ax.imshow((slope / slope.max()).numpy(), cmap="cividis", vmin=0, vmax=1)
    share = side_of(slope) ** 2 / (2 * n + 1) ** 2
    ax.set(title=f"{n} layers: {share:.0%}", xticks=[], yticks=[])
shares = {n: side_of(slope) / (2 * n + 1) for n, slope in looks.items()}
check_at_most("E / R at 40 layers, over that at 5", shares[40] / shares[5], 0.7)
check_at_least("E itself grows, 5 to 40 layers", side_of(looks[40]) / side_of(looks[5]), 2)
check_at_most("but not 81 / 11 times", side_of(looks[40]) / side_of(looks[5]), 0.75 * 81 / 11)

# %% [markdown]
# Eight times the layers, and the square it looks at is far from eight times as wide. What of a real network? ResNet-18's last features have a field of 435 pixels. **Predict** $E$ for random weights.

# %%
with torch.random.fork_rng():
    deep = resnet.resnet18().eval()
    for module in deep.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
slope = influence(lambda x: deep(x)[32], 449, count=1)
layers = [(7, 2), (3, 2), *[(3, 1)] * 4, *[(3, s) for s in (2, 1, 1, 1)] * 3]
R = 1 + sum((k - 1) * math.prod(s for _, s in layers[:i]) for i, (k, _) in enumerate(layers))
check("R of ResNet-18, by formula", R, 435)
check_at_most("pixels that move the middle output at all, across", (slope > 0).any(0).sum(), 435)
E = side_of(slope)
check_at_most("E", E, 350)
check_at_least("E", E, 120)

# %% [markdown]
# Training widens it somewhat, as Luo et al. found. But a field that is larger than the picture *on paper* is no promise that the rim of the picture is used. PSPNet's authors argue from the same observation: they do not trust the field to have seen the whole, and hand the network the whole explicitly.
#
# ## 3. PSPNet: means of the picture, handed to every place
#
# Let $x$ of shape $(D, H, W)$ be a map of $D$ features. **Pyramid pooling** (金字塔池化) divides it into $n \times n$ parts for $n = 1, 2, 3, 6$, and takes the mean of each part. Then come a $1 \times 1$ convolution to $D / 4$ channels and a bilinear enlargement to $H \times W$. The four results and $x$ itself are joined: $2 D$ channels. Every place now has beside its own features what is in its part of the picture, and in all of it (section 3.2 of the paper).
#
# By hand, one channel, a row of four places: $2, 4, 6, 12$.
#
# | $n$ | parts | means | enlarged to four, corners kept | enlarged, half pixels |
# |---|---|---|---|---|
# | 1 | all | 6 | 6, 6, 6, 6 | 6, 6, 6, 6 |
# | 2 | 2 4, 6 12 | 3, 9 | 3, 5, 7, 9 | 3, 4.5, 7.5, 9 |
# | 3 | 2 4, 4 6, 6 12 | 3, 5, 9 | ... | ... |
#
# Four places do not divide by three. Part $i$ goes from $\lfloor i W / n \rfloor$ to $\lceil (i + 1) W / n \rceil$, the end not included: **parts overlap** rather than leave a place out. That is what torch's `adaptive_avg_pool2d` does; exercise 2 asks you for it. The last two columns are the two rulers of [chapter 05](05_convolution_arithmetic.ipynb): `align_corners=True` keeps the corners, `align_corners=False` counts from half pixels.


# %%
def means_of_parts(x, n):
    """Means of n x n parts of (B, D, H, W), which overlap where n does not divide: (B, D, n, n)."""

    def parts(length):
        return [slice(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]

    rows = [
        torch.stack([x[..., down, across].mean((-2, -1)) for across in parts(x.shape[-1])], -1)
        for down in parts(x.shape[-2])
    ]
    return torch.stack(rows, -2)


# %%
four = torch.tensor([2.0, 4, 6, 12]).view(1, 1, 1, 4)
tall = four.expand(1, 1, 4, 4)
for n, means in ((1, [6.0]), (2, [3.0, 9.0]), (3, [3.0, 5.0, 9.0])):
    check(f"by hand, n = {n}", means_of_parts(tall, n)[0, 0, 0], means)
for corners, row in ((True, [3.0, 5.0, 7.0, 9.0]), (False, [3.0, 4.5, 7.5, 9.0])):
    two = means_of_parts(tall, 2)[:, :, :1]
    wide = F.interpolate(two, size=(1, 4), mode="bilinear", align_corners=corners)
    check(f"enlarged, corners kept: {corners}", wide[0, 0, 0], row)
odd = torch.rand(2, 3, 11, 17)
for n in (1, 2, 3, 6):
    check(f"n = {n} as in torch", means_of_parts(odd, n), F.adaptive_avg_pool2d(odd, n), tol=1e-6)

# %% alt="A picture of boats on water, and its means over one, 2 x 2, 3 x 3 and 6 x 6 parts: one even colour first, then coarser and finer mosaics of it."
fig, axes = show.grid(1, 5, "What pyramid pooling tells every place", width=1.9)
show.image(axes[0], pictures[2 * which + 1], "picture")
for ax, n in zip(axes[1:], (1, 2, 3, 6), strict=True):
    show.image(ax, means_of_parts(pictures[2 * which + 1][None], n)[0], f"{n} x {n} means")


# %% [markdown]
# The first mosaic is one single colour, and it already tells water from road. Here is the module. There is no normalisation after the mean of all: in training, a batch of one picture would have a single number for each channel there, with no spread to divide by.


# %%
def conv_1x1(a, b, *, norm=True):
    """A 1 x 1 convolution, batch normalisation (or none), and ReLU."""
    conv = nn.Conv2d(a, b, 1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(b) if norm else nn.Identity(), nn.ReLU())


# %%
class PyramidPooling(nn.Module):
    """(B, D, H, W) to (B, 2D, H, W): reduced means of n x n parts, and the features."""

    def __init__(self, channels, parts=(1, 2, 3, 6)):
        super().__init__()
        self.parts, width = parts, channels // len(parts)
        self.reduce = nn.ModuleList(conv_1x1(channels, width, norm=n > 1) for n in parts)

    def forward(self, x):
        pooled = [F.adaptive_avg_pool2d(x, n) for n in self.parts]  # quicker than our own
        means = [reduce(mean) for reduce, mean in zip(self.reduce, pooled, strict=True)]
        return torch.cat([*(enlarged(mean, x, corners=True) for mean in means), x], dim=1)


# %%
def enlarged(x, like, *, corners=False):
    """`x` bilinearly at the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=corners)


def carry(theirs, ours):
    """Put the weights of one module into another whose layers stand in the same order."""
    values = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)), strict=True)


# %%
theirs, ours = pspnet.PyramidPooling(32).eval(), PyramidPooling(32).eval()
carry(theirs, ours)
features = torch.rand(2, 32, 13, 9)
check("as in segedu.models.pspnet", ours(features), theirs(features), tol=1e-5)
check("channels", ours(features).shape[1], 64)

# %% [markdown]
# `segedu.models.pspnet.PSPNet` puts this on a ResNet and scores what comes out; a test of the package loads the weights of segmentation-models-pytorch's PSPNet into it and compares the logits. The reach is now the whole picture, at the price of a few $1 \times 1$ convolutions on tiny maps.
#
# What it gives is coarse. It says *what is about*, not where. The other answer keeps the where.
#
# ## 4. DeepLab v1: stride turned into dilation
#
# A classifier that ends in stride 32 sees far because of its strides, and is coarse because of them. Chen et al. (2015) ask for the one without the other. Leave out a stride, and the map after it is twice as dense. The layers that follow would now see half as far, and their weights would mean something else. So spread their taps by two: **dilated** or **atrous convolution** (空洞卷积), from the French *à trous*, with holes.
#
# By hand, one axis: pixels $1, 2, \dots, 8$, a layer that only strides, and a layer with taps $1, 1, 1$.
#
# | | after the first layer | second layer, over the pixel 3 | over the pixel 4 |
# |---|---|---|---|
# | stride 2, then dilation 1 | 1 3 5 7 | 1 + 3 + 5 = 9 | there is none |
# | stride 1, then dilation 2 | 1 2 3 4 5 6 7 8 | 1 + 3 + 5 = 9 | 2 + 4 + 6 = 12 |
#
# The same weights, the same pixels, the same value; and values in between that were not there before. **In general:** if a stride $s$ is left out, all that follows is dilated $s$ times as much. Then the dense output, taken at every $s$-th place, *is* the strided output.
#
# **Predict:** does this hold with padding and at the rim? And with batch normalisation in between?

# %%
row = torch.arange(1.0, 9).view(1, 1, 8)
taps, one = torch.ones(1, 1, 3), torch.ones(1, 1, 1)
strided = F.conv1d(F.conv1d(row, one, stride=2), taps, padding=1)
dense = F.conv1d(F.conv1d(row, one), taps, padding=2, dilation=2)
check("over the pixel 3, strided", strided[0, 0, 1], 9.0)
check("over the pixels 3 and 4, dense", dense[0, 0, 2:4], [9.0, 12.0])
check("every second of the dense ones", dense[0, 0, ::2], strided[0, 0])


# %%
def two_layers(stride, dilation):
    """A layer that may stride, and one that may dilate."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=stride, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 5, 3, padding=dilation, dilation=dilation),
    )  # fmt: skip


# %%
coarse, fine, naive = two_layers(2, 1).eval(), two_layers(1, 2).eval(), two_layers(1, 1).eval()
for net in (fine, naive):
    net.load_state_dict(coarse.state_dict())
picture = torch.rand(1, 3, 33, 46)
check("places", list(fine(picture).shape[-2:]), [33, 46])
check("every second place, with padding", fine(picture)[..., ::2, ::2], coarse(picture), tol=1e-5)
off = (naive(picture)[..., ::2, ::2] - coarse(picture)).abs().max()
check_at_least("dilation forgotten: off by", off, 0.05)

# %% [markdown]
# It holds at the rim as well: the zeros of the padding lie where they lay before. VGG-16 has five poolings, stride 32. Leave the last two without stride, and its three last convolutions get dilation 2, what follows dilation 4: **output stride** (输出步幅) 8. That is `vgg.VGG(output_stride=8)`. Its features must hold those of the strided network, at every fourth place.

# %%
narrow = ((8, 8), (8,), (16,), (16, 16), (16, 16))
random_picture = torch.rand(1, 3, 97, 65)
plain, denser = vgg.VGG(narrow).eval(), vgg.VGG(narrow, output_stride=8).eval()
denser.load_state_dict(plain.state_dict(), strict=True)
with torch.inference_mode():
    at_32, at_8 = plain(random_picture)[32], denser(random_picture)[8]
check("places at stride 32", list(at_32.shape[-2:]), [4, 3])
check("places at stride 8", list(at_8.shape[-2:]), [13, 9])
check("every fourth place of the dense map", at_8[..., ::4, ::4], at_32, tol=1e-5)

# %% [markdown]
# So a network that was trained with stride 32, on ImageNet say, can be read at stride 8 **without training anything anew**. This is exact, where an enlarged coarse map is a guess.
#
# ### A large field of view
#
# VGG's first fully connected layer, read as a convolution, is $7 \times 7$; at stride 8 it gets dilation 4 and spans $6 \cdot 4 + 1 = 25$ places. It is also the most expensive layer of all. The paper tries other kernels with other dilations, and keeps one with $3 \times 3$ taps, **dilation 12**: it spans $2 \cdot 12 + 1 = 25$ places as well. With 1024 channels for 4096 that is DeepLab-LargeFOV, and it scored as high as the large one (their table 2).
#
# **Predict:** how many times fewer weights does that layer have? And the network?

# %%
with torch.device("meta"):  # shapes without numbers
    lfov = registry.build("deeplab_lfov_vgg16", 21)
convolutions = 14_714_688  # of VGG-16
fc6_large, fc6_small = 7 * 7 * 512 * 4096 + 4096, 3 * 3 * 512 * 1024 + 1024
large = convolutions + fc6_large + (4096 * 4096 + 4096) + (4096 * 21 + 21)
small = sum(weight.numel() for weight in lfov.parameters())
check("span of 7 taps, dilation 4", (7 - 1) * 4 + 1, 25)
check("span of 3 taps, dilation 12", (3 - 1) * 12 + 1, 25)
check("the layer: times fewer weights", fc6_large / fc6_small, 21.8, tol=0.05)
check("the network before, in millions", large / 1e6, 134.3, tol=0.1)
check("DeepLab-LargeFOV, in millions", small / 1e6, 20.5, tol=0.05)

# %% [markdown]
# 134.3 and 20.5 million are the paper's numbers, too. There is a catch in those 25 places, though: three taps look at *three* of them.
#
# ## 5. Gridding: what lies between the taps
#
# One dilated layer has holes. Does a stack of them? Start at the middle output and follow the taps down: count by how many **paths** each pixel is reached. Along one axis, dilations $r_1, \dots, r_L$ reach the places $\pm r_1 \pm \dots \pm r_L$, where each term may also be 0; in two dimensions the counts are products.
#
# By hand, dilations 2 and 2: places $-4, -2, 0, 2, 4$ by $1, 2, 3, 2, 1$ paths. Five of nine. **Predict:** three layers with 2, 2, 2 have a field of $13 \times 13 = 169$ pixels. How many of them do they see? And 1, 2, 5, with $17 \times 17 = 289$?


# %%
def paths(rates):
    """Paths from each place of the field to the middle output, along one axis."""
    count = torch.ones(1, dtype=torch.float64)
    for r in rates:
        longer = torch.zeros(len(count) + 2 * r, dtype=torch.float64)
        for tap in (0, r, 2 * r):
            longer[tap : tap + len(count)] += count
        count = longer
    return count


# %%
check("by hand: 2, 2", paths((2, 2)), torch.tensor([1.0, 0, 2, 0, 3, 0, 2, 0, 1]))
for rates, seen, of in (((2, 2, 2), 49, 169), ((1, 2, 5), 289, 289), ((1, 2, 9), 441, 625)):
    reached = torch.outer(paths(rates), paths(rates)) > 0
    check(f"{rates}: pixels seen of {of}", reached.sum().item(), seen)
    check("the field", reached.numel(), of)

# %% alt="The pixels that three layers see. With dilations 2, 2, 2 they form a grid with a white row and column between any two, 49 of 169. With 1, 2, 4 and 1, 2, 5 the square is full. With 1, 2, 9 it falls apart into nine blocks with white bands between."
fig = widgets.plot_touched([(2, 2, 2), (1, 2, 4), (1, 2, 5), (1, 2, 9)])

# %% tags=["nbval-ignore-output"]
widgets.explore_touched()

# %% [markdown]
# With 2, 2, 2 less than a third is seen. Worse, the neighbour to the right sees *none* of the same pixels: four networks lie side by side on one map, each on its own grid, and nothing makes them agree. That is **gridding** (网格效应).
#
# When is there no hole? Order the dilations from small to large. What the first ones see without a hole is a run of $R_i$ places, $R_1 = 1$ before the first. A layer with dilation $r_i$ puts three such runs side by side, $r_i$ apart. They touch or overlap if $r_i \le R_i$; then the next run is $R_{i+1} = R_i + 2 r_i$ long. From 1 on: the first dilation must be 1, the next at most 3, and after 1, 2 at most 5. So 1, 2, 5 is as wide as it goes with a 2 in the middle. Wang et al. (2018), who call such plans *hybrid dilated convolution*, state a rule on distances between taps, and give 1, 2, 5 as an example.
#
# It is a rule for layers in a *row*. For one layer with a large dilation it has no help, and there is another trouble with those.
#
# ## 6. ASPP: several dilations side by side
#
# An object may be large or small; which dilation is right for it? **Atrous spatial pyramid pooling** (空洞空间金字塔池化, ASPP) does not choose. DeepLab v2 applies several to the same map and adds the scores (Chen et al., TPAMI 2018); v3 joins the channels of a $1 \times 1$ and three $3 \times 3$ convolutions with dilations 6, 12, 18 at output stride 16, twice that at stride 8 (Chen et al. 2017, section 3.3).
#
# Think of the picture's rim. A tap that falls outside reads a zero of the padding and does nothing. **Predict:** a map of $65 \times 65$ places, a $3 \times 3$ kernel with dilation 36. What share of its nine taps, on average over all places, still lies on the map?
#
# Along one axis of length $W$, the middle tap is always on it. Each outer one is on it at $W - r$ of $W$ places, if $r < W$. So the mean number of useful taps along one axis is $1 + 2 \max(0, W - r) / W$, and of the nine
#
# $$v(r) = \Big(1 + 2\, \frac{\max(0, W - r)}{W}\Big)^2.$$
#
# By hand: $W = 4$, $r = 2$: the outer taps are useful at 2 of 4 places each. $v = (1 + 2 \cdot \frac24)^2 = 4$. And for $r \ge 4$ it is 1.


# %%
def useful_taps(size, rate):
    """How many of nine taps lie on the map, at each place of size x size."""
    ones = torch.ones(1, 1, size, size)
    taps = torch.ones(1, 1, 3, 3)
    return F.conv2d(ones, taps, padding=rate, dilation=rate)[0, 0]


def useful_by_formula(size, rate):
    """Their mean."""
    return (1 + 2 * max(0, size - rate) / size) ** 2


# %%
check("by hand: 4 places, dilation 2", useful_taps(4, 2).mean(), 4.0)
for rate in (1, 6, 12, 18, 36, 64, 65):
    counted = useful_taps(65, rate).mean()
    check(f"65 places, dilation {rate}", counted, useful_by_formula(65, rate), tol=1e-4)
check("of nine, dilation 36", useful_by_formula(65, 36) / 9, 0.398, tol=5e-4)

# %% alt="Shares of the places of a map of 65 x 65 at which nine, four, and one tap of a 3 x 3 kernel are useful, against the dilation. Nine falls from 1 to 0 at dilation 33; four rises to a peak near there and falls again; one rises to 1 at dilation 65."
rates = range(1, 81)
counts = [useful_taps(65, r) for r in rates]
fig, [ax] = show.grid(1, 1, width=6.5, height=2.8)
for taps, colour in ((9, 6), (4, 3), (1, 7)):
    at = [(count == taps).double().mean() for count in counts]
    ax.plot(rates, at, color=colours[colour], label=f"{taps} useful tap{'s' * (taps > 1)}")
ax.set(title="Too far apart, nine taps are one", xlabel="dilation", ylabel="share of places")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
check("all nine, dilation 33 and more", (counts[32] == 9).sum(), 0)
check("only the middle one, from dilation 65", (counts[64] == 1).double().mean(), 1.0)

# %% [markdown]
# This is figure 4 of the v3 paper, counted anew. With a dilation near the size of the map, the $3 \times 3$ kernel **degenerates to $1 \times 1$**: it was to see the whole picture, and sees one place. The paper's answer is to add what PSPNet has: the mean of all places, the *image-level feature*. Five branches, joined, and a $1 \times 1$ convolution over them.


# %%
def atrous(a, b, rate):
    """A dilated 3 x 3 convolution that keeps the size, batch normalisation and ReLU."""
    conv = nn.Conv2d(a, b, 3, padding=rate, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(b), nn.ReLU())


# %%
class ASPP(nn.Module):
    """1 x 1, dilated 3 x 3 for each rate, and the picture's mean; joined and projected."""

    def __init__(self, channels, rates, width=256):
        super().__init__()
        dilated = [atrous(channels, width, rate) for rate in rates]
        self.branches = nn.ModuleList(  # the last one is for the mean
            [conv_1x1(channels, width), *dilated, conv_1x1(channels, width)]
        )
        self.project = conv_1x1(len(self.branches) * width, width)

    def forward(self, x):
        *local, whole = self.branches
        mean = whole(x.mean((-2, -1), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([*(branch(x) for branch in local), mean], dim=1))


# %%
features = torch.rand(2, 24, 15, 22)
libraries = {
    "torchvision": torchvisions.ASPP(24, [6, 12, 18]),
    "segedu.models.deeplab": deeplab.ASPP(24, [6, 12, 18], conv=deeplab.dilated),
}
for name, theirs in libraries.items():
    ours = ASPP(24, (6, 12, 18))
    carry(theirs.eval(), ours.eval())
    with torch.inference_mode():
        check(f"ASPP as in {name}", ours(features), theirs(features), tol=1e-5)

# %% [markdown]
# One place enlarged to $H \times W$ is that place everywhere: `expand` does it without computing, whatever convention the enlargement has.
#
# `segedu.models.deeplab.deeplabv3_resnet50` is a ResNet-50 of output stride 8, this module, one more convolution, and the scores. Give it torchvision's weights and it says what torchvision says: the tests hold that, on three odd sizes.
#
# ## 7. DeepLab v3+: separable, and detail from stride 4
#
# v3+ changes two things (Chen et al., ECCV 2018, figure 2).
#
# **A decoder.** The output of ASPP at stride 16 is enlarged by 4, joined with features of stride 4 that were reduced to 48 channels, and two convolutions later enlarged by 4 again. It is the skip of [U-Net](10_unet.ipynb), just one of them. Few channels of detail, so that they do not drown the context.
#
# **Separable convolutions.** A $k \times k$ convolution from $D$ to $D'$ channels has $k^2 D D'$ weights. Do it in two steps: first each channel by itself ($k^2 D$ weights), then a $1 \times 1$ convolution over channels ($D D'$). By hand for $k = 3$, $D = D' = 256$: $589\,824$ before, $2\,304 + 65\,536 = 67\,840$ after. In general the ratio is
#
# $$\frac{k^2 D + D D'}{k^2 D D'} = \frac{1}{D'} + \frac{1}{k^2},$$
#
# a ninth and a little more. **Predict:** is a separable convolution a new kind of function, or a special case of the old one?

# %%
full = deeplab.dilated(256, 256, 6)
separable = deeplab.separable(256, 256, 6)
weights = [sum(w.numel() for w in net.parameters()) for net in (full, separable)]
check("weights: full, separable", weights, [589_824, 67_840])
check("the ratio", weights[1] / weights[0], 1 / 256 + 1 / 9, tol=1e-9)
by_channel, over_channels = separable  # (256, 1, 3, 3) and (256, 256, 1, 1)
with torch.no_grad():
    full.weight.copy_(over_channels.weight * by_channel.weight[:, 0])
    x = torch.rand(1, 256, 9, 14)
    check("it is a full one with such a kernel", full(x), separable(x), tol=1e-5)

# %% [markdown]
# A special case: all the kernels that read one channel are multiples of a single one, $w_{d', d} = p_{d', d}\, s_d$, where $s_d$ is channel $d$'s own $3 \times 3$ kernel and $p$ the $1 \times 1$ convolution. What it cannot say is "edges of channel 5 for this output, and blobs of channel 5 for that".
#
# ## 8. What dilation costs
#
# Dilation adds no weight and no reach is lost. What is the price? The maps are larger: at half the stride every layer has four times the places. Multiplications of one convolution are $k^2 D D'$ for each *output place*, and a training step has to keep the outputs of every layer for the way back.
#
# **Predict:** take ResNet-50's four stages, at stride 4, 8, 16 and 32, to have the same number of multiplications each. Going to output stride 16, the last stage has 4 times the places; to 8, the third has 4 times and the last 16 times. How many times as much work in all?


# %%
def costs(model, size=256):
    """Multiplications, and numbers that the convolutions put out, for one picture, by formula."""
    count = {"multiplications": 0, "outputs": 0}

    def add(conv, _, out):
        places = out.shape[-2] * out.shape[-1]
        count["multiplications"] += conv.weight.numel() * places
        count["outputs"] += out.shape[1] * places

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, nn.Conv2d)]
    model(torch.empty(1, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return count


# %%
cost = {}
for stride in (32, 16, 8):
    with torch.device("meta"):
        backbone = resnet.resnet50(output_stride=stride)
    cost[stride] = costs(backbone)
    ours, theirs = cost[stride]["multiplications"], multiplications(backbone)
    check(f"output stride {stride}: as torch counts, in billions", ours / 1e9, theirs / 1e9)
    memory = 4 * cost[stride]["outputs"] / 2**20
    print(f"output stride {stride:2}: {ours / 1e9:5.1f} billion multiplications, {memory:4.0f} MiB")
times = [cost[s]["multiplications"] / cost[32]["multiplications"] for s in (16, 8)]
check("work at stride 16 and 8, over 32", times, [1.52, 4.67], tol=5e-3)
space = [cost[s]["outputs"] / cost[32]["outputs"] for s in (16, 8)]
check("outputs at stride 16 and 8, over 32", space, [1.15, 2.3], tol=0.05)

# %% alt="Two groups of three bars for output strides 32, 16 and 8. Billions of multiplications rise from 5 to 8 to 25, mebibytes of outputs from 55 to 63 to 126."
fig, axes = show.grid(1, 2, "ResNet-50 on 256 x 256 pixels", width=3.4, height=2.4)
for ax, key, scale, unit in (
    (axes[0], "multiplications", 1e9, "billions of multiplications"),
    (axes[1], "outputs", 2**18, "MiB of outputs, float32"),
):
    values = [cost[s][key] / scale for s in (32, 16, 8)]
    drawn = ax.bar(range(3), values, color=[colours[i] for i in (6, 3, 7)])
    ax.bar_label(drawn, fmt="%.0f")
    ax.set(xticks=range(3), xticklabels=["stride 32", "stride 16", "stride 8"], title=unit)
    ax.margins(y=0.15)

# %% [markdown]
# Equal stages would have given $1 + \frac34 = 1.75$ and $1 + \frac34 + \frac{15}{4} = 5.5$; but the first layers do not grow, and the first convolution of a stage ran at the finer stride already. Still it is over four and a half times the work for four times the density each way. This is why v3+ goes back to output stride 16 and pays for sharp edges with a decoder instead. The whole networks, for $256 \times 256$ pixels and 21 classes:

# %%
for name in (
    "deeplab_lfov_vgg16", "pspnet_resnet50", "deeplabv3_resnet50", "deeplabv3plus_resnet34",
):  # fmt: skip
    with torch.device("meta"):
        model = registry.build(name, 21).eval()
    weights = sum(weight.numel() for weight in model.parameters())
    print(
        f"{name:24} {weights / 1e6:5.1f} million weights, {multiplications(model) / 1e9:5.1f} billion"
    )

# %% [markdown]
# ## 9. Does it help? An experiment
#
# Back to cars and boats. One small trunk, two strided convolutions, ends in stride 4. On it three heads with **about the same number of weights**, so that none wins by size:
#
# - **local**: a $3 \times 3$ convolution and two $1 \times 1$;
# - **pyramid**: our `PyramidPooling` and two $1 \times 1$;
# - **ASPP**: ours, with dilations 2, 4, 6 on a map of $16 \times 16$.
#
# Three seeds, each with its own scenes, its own test scenes and its own weights. We score what section 1 spoke of: an object pixel is given, is it car or boat?


# %%
def trunk():
    """Two convolutions that stride: 32 channels at stride 4."""
    layers = conv_norm_relu(3, 16) + conv_norm_relu(16, 32)
    layers[0].stride = layers[3].stride = (2, 2)
    return layers


def scores(channels, width, classes):
    """Two 1 x 1 convolutions: to class scores."""
    return *conv_1x1(channels, width), nn.Conv2d(width, classes, 1)


# %%
HEADS = {
    "local": lambda n: [nn.Conv2d(32, 24, 3, padding=1), nn.ReLU(), *scores(24, 67, n)],
    "pyramid": lambda n: [PyramidPooling(32), *scores(64, 113, n)],
    "ASPP": lambda n: [ASPP(32, (2, 4, 6), width=9), nn.Conv2d(9, n, 1)],
}


# %%
class Net(nn.Sequential):
    """The trunk and a head; logits at the picture's size."""

    def forward(self, image):
        return enlarged(super().forward(image - 0.5), image)


# %%
sizes = {
    name: sum(w.numel() for w in Net(*trunk(), *head(3)).parameters())
    for name, head in HEADS.items()
}
print(sizes)
check_at_most("most weights over fewest", max(sizes.values()) / min(sizes.values()), 1.02)


# %%
def trained(name, images, masks, classes, run, epochs, batch_size):
    """A network with that head after training on images and masks."""
    torch.manual_seed(run)
    net = Net(*trunk(), *HEADS[name](classes)).to(images.device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    whole = len(images) // batch_size * batch_size
    steps = epochs * whole // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images))[:whole].view(-1, batch_size):
            loss = cross_entropy_loss(net(images[batch]), masks[batch])
            optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    return net.eval()


# %%
place = pick_device(device)


def is_right(net, images, masks):
    """Whether the better of car and boat is the true one: (N, H, W), for object pixels."""
    with torch.inference_mode():
        answer = net(images.to(place))[:, 1:].argmax(1).cpu() + 1
    return answer == masks


# %% [markdown]
# Before it runs, **predict** three curves: how often is each head right, as a function of the distance from the shore?

# %% tags=["nbval-ignore-output"]
right, nets = {name: [] for name in HEADS}, {}
for run in range(seed, seed + runs):
    learn = [x.to(place) for x in pairs(train_scenes, seed=2 * run)]
    new, new_truths = (pictures, truths) if run == seed else pairs(test_scenes, seed=2 * run + 1)
    for name in HEADS:
        net = trained(name, *learn, 3, run, epochs, batch_size=16)
        nets.setdefault(name, net)  # of the first run
        correct = is_right(net, new, new_truths)
        objects = (new_truths == 1) | (new_truths == 2)
        right[name].append(correct[objects].double().mean().item())
accuracy = {name: torch.tensor(values) for name, values in right.items()}
for name, values in accuracy.items():
    print(f"{name:8}", *(f"{value:.3f}" for value in values), f"  mean {values.mean():.3f}")

# %% tags=["nbval-ignore-output"] alt="Accuracy of the three heads against the distance from the ground, first seed. The local head is above one half only for the pixels next to the ground and exactly at one half from then on; pyramid pooling and ASPP stay near the top throughout."
both = far.repeat_interleave(2, dim=0)  # the same for both pictures of a pair
objects = (truths == 1) | (truths == 2)
correct = {name: is_right(net, pictures, truths) for name, net in nets.items()}
edges = [1, 3, 5, 7, 9, 12, 16, 20]
bands = [objects & (both >= a) & (both < b) for a, b in pairwise(edges)]
fig, [ax] = show.grid(1, 1, width=6, height=3.2)
for name, colour in zip(HEADS, (7, 6, 3), strict=True):
    shares = [correct[name][band].double().mean() for band in bands]
    ax.plot(edges[:-1], shares, "o-", color=colours[colour], label=name)
ax.axhline(0.5, color="0.6", linestyle=":")
ax.set(title="Far from the ground, near sight can only guess", ylim=(0.4, 1.02))
ax.set(xlabel="distance from the ground (pixels)", ylabel="car or boat: share right")
_ = ax.legend(loc="center right")

# %% [markdown]
# The local head is a coin, and that is no accident of training. Find out how far it can see, by putting a `nan` into a picture and looking how far it spreads. Beyond that distance it must be right for *exactly* half of the pixels.

# %% tags=["nbval-ignore-output"]
reach = 0
for at in range(28, 36):
    strip = torch.zeros(1, 3, image_size, image_size)
    strip[..., at % image_size] = torch.nan
    with torch.inference_mode():
        spoiled = nets["local"](strip.to(place)).cpu()[0, 0, image_size // 2].isnan().nonzero()
    reach = max(reach, (spoiled - at).abs().max().item())
beyond = objects & (both > reach)
check("reach of the local head", reach, 12)
check_at_least("object pixels beyond it", beyond.sum(), 1)
check("share that it gets right there", correct["local"][beyond].double().mean(), 0.5)
check_at_least(
    "gain of the pyramid, mean", (accuracy["pyramid"] - accuracy["local"]).mean(), least_gain
)
check_at_least("gain of ASPP, mean", (accuracy["ASPP"] - accuracy["local"]).mean(), least_gain)

# %% tags=["nbval-ignore-output"] alt="One pair in two rows: picture, truth, and the answers of the three heads. The local head gives the inside of the objects the same blotches of both classes in both rows. The pyramid names nearly all of it car on the road and boat on water. ASPP does so on the road, and mixes the two in the large object on water."
order = [2 * which.item(), 2 * which.item() + 1]
fig, axes = show.grid(2, 5, "First seed: one pair", width=1.8)
for row, n in zip(axes, order, strict=True):
    show.image(row[0], pictures[n], "picture")
    show.mask(row[1], truths[n], "truth", num_classes=3)
    for ax, (name, net) in zip(row[2:], nets.items(), strict=True):
        with torch.inference_mode():
            answer = net(pictures[n : n + 1].to(place)).argmax(1).cpu()[0]
        show.mask(ax, answer, name, num_classes=3)

# %% [markdown]
# ### And where nobody built the need for it?
#
# This task was *made* so that context decides. That proves that the modules can carry it; it says nothing about how much they help elsewhere. So the same networks on a task that was not made for them: the scenes' own six classes, disc, square, triangle and so on, at their usual size. **Predict:** how much mean IoU does context add?


# %%
def six_classes(count, seed):
    """Pictures and masks of scenes with their own classes."""
    drawn = Scenes(count, size=own_size, seed=seed, difficulty=0.2)
    return tuple(
        torch.stack([drawn[i][key].as_subclass(torch.Tensor) for i in range(count)])
        for key in ("image", "mask")
    )


def mean_iou(net, images, masks):
    """Over all pixels of the set."""
    counts = ConfusionMatrix(6)
    with torch.inference_mode():
        counts.update(net(images.to(place)).argmax(1).cpu(), masks)
    return counts.mean_iou()


# %% tags=["nbval-ignore-output"]
own = {name: [] for name in HEADS}
for run in range(seed, seed + runs):
    learn = [x.to(place) for x in six_classes(own_scenes, seed=2 * run)]
    new = six_classes(test_scenes, seed=2 * run + 1)
    for name in HEADS:
        net = trained(name, *learn, 6, run, own_epochs, batch_size=8)
        own[name].append(mean_iou(net, *new))
for name, values in own.items():
    print(f"{name:8}", *(f"{value:.3f}" for value in values), f"  mean {sum(values) / runs:.3f}")
own = {name: torch.tensor(values) for name, values in own.items()}
check_at_most("gain of the pyramid", (own["pyramid"] - own["local"]).mean(), most_own_gain)
check_at_least("what ASPP lacks", (own["local"] - own["ASPP"]).mean(), least_own_loss)

# %% [markdown]
# A sober picture. The pyramid and the local head lie close together, less than a tenth of mean IoU apart; in the other task almost half of the accuracy lay between them. So small a difference, from three seeds and one length of training, decides nothing: give the chapter another seed, or train longer (`own_epochs`), and look at its sign again. ASPP is *worse* than no context at all.
# At equal weights, its three dilated $3 \times 3$ kernels are paid for with channels: nine are left to say six classes, where the others have 67 and 113. The authors gave each branch 256.
#
# What the two experiments say together: **context is worth as much as the task needs of it.** Objects of scenes carry their class on their surface; a boat does not. Ask of your own data what a person could tell from a patch, before you pay for more.
#
# ### On streets
#
# CamVid, at a quarter of its height and width, its eleven classes, the same three networks, one seed each. A patch of grey can be road, pavement or building. One run a head is an impression and no measurement.


# %% tags=["nbval-ignore-output"]
def frames_of(split):
    """Pictures and masks of some frames, spread over a split, at a quarter of their size."""
    data = catalog.load("camvid", split=split)
    chosen = torch.linspace(0, len(data) - 1, min(camvid_frames, len(data))).long().tolist()
    samples = [data[i] for i in chosen]
    images = torch.stack([sample["image"].as_subclass(torch.Tensor) for sample in samples])
    masks = torch.stack([sample["mask"].as_subclass(torch.Tensor) for sample in samples])
    return F.avg_pool2d(images, 4), masks[:, 2::4, 2::4]


# %% tags=["nbval-ignore-output"]
if catalog.available("camvid"):
    learn, (images, masks) = [x.to(place) for x in frames_of("train")], frames_of("val")
    for name in HEADS:
        net = trained(name, *learn, 11, seed, own_epochs, batch_size=4)
        counts = ConfusionMatrix(11)
        with torch.inference_mode():
            counts.update(net(images.to(place)).argmax(1).cpu(), masks)
        print(f"{name:8} mean IoU {counts.mean_iou():.3f}, pixels {counts.pixel_accuracy():.3f}")
else:
    print("CamVid is not here; `segedu data get camvid` downloads it.")

# %% [markdown]
# ## 10. What goes wrong
#
# ### Trained on crops, used on something else
#
# The mean of the picture is a mean of *what the network was given*. Train on crops and predict on whole photographs, or on tiles that are cut otherwise, and the same weight reads another quantity. Put a picture of a road and a picture of water side by side, twice as wide. The objects on the left still are cars, those on the right boats. **Predict:** which head suffers?

# %% tags=["nbval-ignore-output"]
half = len(pictures) // 2 // 2 * 2
left, right_side = range(0, half, 2), range(half + 1, 2 * half, 2)  # roads; other scenes' water
wide = torch.cat([pictures[left], pictures[right_side]], dim=-1)
wide_truth = torch.cat([truths[left], truths[right_side]], dim=-1)
wide_objects = (wide_truth == 1) | (wide_truth == 2)
apart = torch.cat([truths[left], truths[right_side]])
for name, net in nets.items():
    alone = is_right(net, torch.cat([pictures[left], pictures[right_side]]), apart)
    before = alone[(apart == 1) | (apart == 2)].double().mean()
    after = is_right(net, wide, wide_truth)[wide_objects].double().mean()
    print(f"{name:8} one by one {before:.3f}, side by side {after:.3f}")
    if name == "pyramid":
        check_at_least("lost by the pyramid", before - after, least_drop)

# %% [markdown]
# The local head cannot notice. The others mix the grounds of both. Predict at the size and the framing that you trained with, or train with many.
#
# ### A dilation that is larger than the map
#
# DeepLab's rates 12, 24, 36 are for maps of some 65 places: pictures of 513 pixels at stride 8. With crops of 64 pixels at stride 8 the map has $8 \times 8$ places. **Predict** how many taps are useful at each rate.

# %%
for rate in deeplab.RATES:
    check(f"useful taps at dilation {rate}, map of 8 x 8", useful_taps(8, rate).mean(), 1.0)
small_map = torch.rand(1, 24, 8, 8)
branch = deeplab.dilated(24, 4, 12)
pointwise = F.conv2d(small_map, branch.weight[..., 1:2, 1:2])
check("the 3 x 3 kernel is a 1 x 1 kernel", branch(small_map), pointwise, tol=1e-6)

# %% [markdown]
# Eight of nine weights get no gradient at all: but for weight decay they stay as they were drawn, and wake up when a larger picture comes.
#
# ### One picture in a batch
#
# The image-level feature is one place. Batch normalisation in training wants the spread of each channel over the batch, and over one number there is none. torch refuses; with two pictures it runs, on the spread of two numbers.

# %%
head = deeplab.deeplab_head(24, 5).train()
try:
    head(torch.rand(1, 24, 8, 8))
    raised = "nothing"
except ValueError as error:
    raised = str(error)
    print(raised)
check("one picture is refused", "more than 1 value per channel" in raised, want=True)
check("two are not", list(head(torch.rand(2, 24, 8, 8)).shape), [2, 5, 8, 8])

# %% [markdown]
# `segedu models` says so in its last column: *2 or more to train*. A loader whose last batch may hold a single picture fails at the end of the first epoch.
#
# ### The dilation that comes one layer too late, or too early
#
# Which layer is the first to be dilated? Section 4: what comes *after* the stride that was left out. In a ResNet the first block of a stage holds the stride, in its $3 \times 3$ convolution. This convolution itself still reads the undilated map. torchvision knows that; segmentation-models-pytorch dilates the whole stage at once. Both train well. But only the first agrees with weights from a classifier:

# %%
rng = torch.random.get_rng_state()
features, plans = {}, {"stride 32": {}, "one later": {}, "at once": {"at_once": True}}
photo = torch.rand(1, 3, 64, 64)
for name, how in plans.items():
    torch.random.set_rng_state(rng)  # the same weights for all three
    plan = resnet.stages(32 if name == "stride 32" else 16, **how)
    net = resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 2), plan).eval()
    with torch.inference_mode():
        deepest = net(photo)
    features[name] = deepest[max(deepest)]

# %%
coarse = features["stride 32"]
later, at_once = (features[name][..., ::2, ::2] for name in ("one later", "at once"))
check("torchvision's way: every second place", later, coarse, tol=1e-5)
off = (at_once - coarse).abs().max() / coarse.abs().max()
check_at_least("at once: off by, of the largest", off, 0.02)

# %% [markdown]
# ## 11. In the article
#
# > **In the article, 7.3: DeepLab** is said to reach high accuracy "with dilated convolution and fully connected conditional random fields". That is v1 and v2. From v3 on there is no random field ([chapter 13](13_crf.ipynb) says what it did), and there are four papers, not one: v1 at ICLR 2015, v2 in TPAMI in 2018, v3 as a preprint of 2017, v3+ at ECCV 2018. The title given is v2's.
# >
# > **In the article, 7.3: PSPNet** is said to work by "fusing features of several scales". It fuses means of *one* feature map over parts of several sizes. The map itself has one scale, and objects of several sizes are not treated alike; U-Net and v3+ are the ones that join maps of several strides. The venue is missing: CVPR 2017.
#
# The difference can be seen. Pyramid pooling does not care *where within a part* a feature lies:

# %%
maps = torch.rand(1, 8, 12, 12)
shuffled = maps.clone()
shuffled[..., :2, :2] = maps[..., :2, :2].flip(-1)  # within one of the 6 x 6 parts
for n in (1, 2, 3, 6):
    check(
        f"means over {n} x {n} parts",
        means_of_parts(shuffled, n),
        means_of_parts(maps, n),
        tol=1e-6,
    )

# %% [markdown]
# > **In the article, question 2 of section 9:** U-Net, FCN and DeepLab "extract spatial features by convolution and classify them by fully connected layers". DeepLab's last layers are convolutions: section 4 had `fc6` as one with dilation 12, and there is no picture size in its weights.

# %%
with torch.device("meta"):
    for height, width in ((97, 65), (321, 321)):
        check(
            "logits for any size",
            list(lfov(torch.empty(1, 3, height, width)).shape),
            [1, 21, height, width],
        )
check("fully connected layers in it", sum(isinstance(m, nn.Linear) for m in lfov.modules()), 0)

# %% [markdown]
# ## 12. Three quick questions
#
# **1.** A network has strides 2, 2, 2, 2, 2. You want output stride 8. Which dilations do the layers after the third, the fourth and the fifth stride get?
#
# <details><summary>Answer</summary>
#
# 1, 2 and 4. After the third stride nothing has been left out yet; each stride left out doubles what follows.
#
# </details>
#
# **2.** Why is a $3 \times 3$ convolution with dilation 12 no substitute for the picture's mean on a map of $16 \times 16$ places?
#
# <details><summary>Answer</summary>
#
# It has outer taps on the map only near the rim: $(1 + 2 \cdot \frac{4}{16})^2 = 2.25$ useful taps on average, and where they are useful they see single places, not the whole.
#
# </details>
#
# **3.** Your network's field is larger than the picture. Do pyramid pooling or ASPP have anything to add?
#
# <details><summary>Answer</summary>
#
# Perhaps. The field is what it *can* see. The influence is bunched in the middle, and over far pixels it is small. Measure with the gradient, then try, with more than one seed.
#
# </details>

# %%
check("2: useful taps", useful_by_formula(16, 12), 2.25)
check("2: by counting", useful_taps(16, 12).mean(), 2.25, tol=1e-5)

# %% [markdown]
# ## 13. Exercises
#
# ### Exercise 1: which dilations?
#
# A network is a chain of stages. Stage $i$ begins with a layer of stride `strides[i]`; its other layers follow. To reach `output_stride`, strides beyond it are left out (all numbers are powers of two, and the product of some first strides is `output_stride`). Which dilation do the *other* layers of each stage get?


# %% tags=["exercise"]
def dilations(strides, output_stride):
    """The dilation of each stage's layers after its first: a list of ints."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def reference(strides, output_stride, missed=lambda dilation, stride: dilation * stride):
    """Strides that are left out multiply."""
    reached, dilation, found = 1, 1, []
    for stride in strides:
        if reached < output_stride:
            reached *= stride
        else:
            dilation = missed(dilation, stride)
        found.append(dilation)
    return found


exercise = Exercise(
    solution=reference,
    inputs=[([2, 2], 4), ([2, 2, 2], 4), ([2, 2, 2, 2, 2], 8), ([4, 2, 2, 2], 4), ([2, 4, 4], 2)],
    misconceptions={
        "each stride left out adds one; strides multiply, and so do the dilations": lambda s, o: (
            reference(s, o, missed=lambda dilation, _: dilation + 1)
        ),
        "one stage late: the layers of the stage whose stride is left out are dilated already": lambda s, o: (
            [1, *reference(s, o)[:-1]]
        ),
        "every stage's dilation is its own stride; those left out before count as well": lambda s, o: [
            1 if math.prod(s[: i + 1]) <= o else stride for i, stride in enumerate(s)
        ],
    },
)
exercise.check(dilations)


# %% tags=["solution"]
def dilations(strides, output_stride):
    """The whole stride up to each stage, over what is reached."""
    return [max(1, math.prod(strides[: i + 1]) // output_stride) for i in range(len(strides))]


exercise.check(dilations)

# %% [markdown]
# ### Exercise 2: the parts of the pyramid
#
# A row of `length` places, divided into `n` parts as section 3 says. Give where each begins and ends (the end not included).


# %% tags=["exercise"]
def parts(length, n):
    """A list of n pairs (begin, end)."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_torch(length, n):
    """Where the mean of each part has a gradient."""
    row = torch.zeros(1, 1, length, requires_grad=True)
    means = F.adaptive_avg_pool1d(row, n)[0, 0]
    found = [torch.autograd.grad(m, row, retain_graph=True)[0][0, 0].nonzero() for m in means]
    return [(places.min().item(), places.max().item() + 1) for places in found]


exercise = Exercise(
    solution=by_torch,
    inputs=[(4, 2), (4, 3), (7, 3), (10, 6), (3, 6)],
    misconceptions={
        "cut off at both ends: no part overlaps, and a short row has empty ones": lambda length, n: [
            (i * length // n, (i + 1) * length // n) for i in range(n)
        ],
        "parts of equal length: the last places are left out where n does not divide": lambda length, n: [
            (i * (length // n), (i + 1) * (length // n)) for i in range(n)
        ],
        "rounded up at both ends: a part must begin at or before its true place": lambda length, n: [
            (-(-i * length // n), -(-(i + 1) * length // n)) for i in range(n)
        ],
    },
)
exercise.check(parts)


# %% tags=["solution"]
def parts(length, n):
    """Rounded down at the beginning and up at the end, so that nothing is left out."""
    return [(i * length // n, math.ceil((i + 1) * length / n)) for i in range(n)]


exercise.check(parts)

# %% [markdown]
# ### Exercise 3: is there a hole?
#
# Layers of three taps with dilations `rates`, in any order. Does the middle output miss a place of its field? Section 5 has the rule for sorted dilations. Does the order matter?


# %% tags=["exercise"]
def has_hole(rates):
    """Whether some place of the field is reached by no path: a bool."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def reached_places(rates):
    """All sums of -r, 0 or r over the rates."""
    return {sum(steps) for steps in product(*((-r, 0, r) for r in rates))}


exercise = Exercise(
    solution=lambda rates: len(reached_places(rates)) < 1 + 2 * sum(rates),
    inputs=[
        ([1],),
        ([2],),
        ([1, 2, 5],),
        ([5, 1, 2],),
        ([3, 5],),
        ([1, 9],),
        ([1, 3, 9],),
        ([1, 1, 6],),
    ],
    misconceptions={
        "no common divisor is not enough: 3, 5 misses the place 1": lambda rates: (
            math.gcd(*rates) > 1
        ),
        "a dilation of 1 is needed, but it does not fill every gap: 1, 9": lambda rates: (
            1 not in rates
        ),
        "the run before a layer, not twice the dilation before it, is what must reach": lambda rates: (
            any(b > 2 * a for a, b in zip([0.5, *sorted(rates)], sorted(rates), strict=False))
        ),
        "the rule is for sorted dilations; paths do not care about the order": lambda rates: any(
            r > 1 + 2 * sum(rates[:i]) for i, r in enumerate(rates)
        ),
    },
)
exercise.check(has_hole)


# %% tags=["solution"]
def has_hole(rates):
    """A run of R places, three times, r apart, leaves a hole if r > R; sums know no order."""
    run = 1
    for rate in sorted(rates):
        if rate > run:
            return True
        run += 2 * rate
    return False


exercise.check(has_hole)

# %% [markdown]
# ## Summary
#
# Symbols: $a$ the reach in pixels, $q(a)$ the share of object pixels with ground within it; $R$ the side of the field, $E$ of the square with 95 % of the influence, $L$ layers; features $x$ of shape $(D, H, W)$, $D'$ channels out, kernels of $k \times k$ taps with dilation $r$, $j$ the product of the strides before; $n \times n$ parts; $v(r)$ the mean number of useful taps; $R_i$ the run without a hole before layer $i$; $w$, $p$, $s_d$ the kernels of a full convolution and of the two steps of a separable one.
#
# $$
# \begin{aligned}
# \text{accuracy} &\le \tfrac12 + \tfrac12 q(a) && \text{where only the ground tells} \\
# R &= 1 + \textstyle\sum (k - 1)\, r\, j, \qquad E \sim \sqrt{L} && \text{what it can see, and what it looks at} \\
# &\big[\lfloor i W / n \rfloor,\ \lceil (i + 1) W / n \rceil\big) && \text{the parts of the pyramid} \\
# r &\leftarrow r \cdot s && \text{for all layers after a stride } s \text{ left out} \\
# r_i &\le R_i, \quad R_{i+1} = R_i + 2 r_i, \quad R_1 = 1 && \text{no hole, dilations sorted} \\
# v(r) &= \big(1 + 2 \max(0, W - r) / W\big)^2 && \text{useful taps of nine} \\
# w_{d',d} &= p_{d',d}\, s_d, \qquad \tfrac{1}{D'} + \tfrac{1}{k^2} && \text{separable, and its cost over the full one}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. What a network cannot see it cannot use: the data set a bound for each reach, whatever the weights. And the field on paper is not what the network looks at.
# 2. A stride can be turned into dilation without touching a weight. The reach stays, the map becomes denser, and the work grows with the places.
# 3. Pooling tells every place what is about, coarsely; dilation keeps the where, but leaves holes and, near the size of the map, falls back to $1 \times 1$. ASPP has both.
#
# **To read**
#
# - H. Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017: section 3.2 and figure 3, the pooling module.
# - L.-C. Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs", ICLR 2015: section 3.1, stride into dilation; 3.2 and table 2, the field of view.
# - L.-C. Chen et al., "DeepLab", *IEEE TPAMI* 40(4), 2018: v2, with ASPP.
# - L.-C. Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587, 2017: section 3.3 and figure 4.
# - L.-C. Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018: figure 2.
# - F. Yu, V. Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016.
# - P. Wang et al., "Understanding Convolution for Semantic Segmentation", WACV 2018: gridding and hybrid dilated convolution.
# - W. Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NIPS 2016.
#
# **Next.** DeepLab v1 and v2 sharpened their coarse answers with a second model that looks at the picture's colours once more: [chapter 13](13_crf.ipynb) derives the fully connected random field.

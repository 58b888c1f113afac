# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How does a network name a place?
#
# So far a network answered pixel by pixel. "How many discs are there, and which pixels are the second one's?" is no question for a pixel. The answer is a *list*, of a length that nobody knows beforehand, and a network has a fixed number of outputs.
# Mask R-CNN's way out is fifteen lines of arithmetic and two ideas. Lay thousands of fixed boxes over the picture, the **anchors** (锚框), and let the network say of each whether an object is there and how the box must change to fit. Then keep one box of the many around each object.
# No layer is trained in this chapter. It is about the arithmetic: everything here runs before, between and after the layers, and nearly every mistake in it is silent.
#
# **You will be able to**
#
# - write boxes in three ways, compute their overlap, and say what a shift by one pixel costs;
# - derive the four numbers in which a network says a box, and why there is a division and a logarithm in them;
# - lay anchors over the levels of a picture, and tell before any training which objects they cannot fit;
# - assign anchors to objects with two thresholds, and say what the third rule is for;
# - thin out boxes with hard, class-wise and soft non-maximum suppression, and predict where each fails.
#
# *45 minutes. Before: [masks](02_masks_and_data.ipynb), [scores](08_metrics.ipynb) for the IoU of masks. On paper: areas, and the derivative of a logarithm.*

# %% tags=["parameters"]
seed = 0
image_size = 128  # height and width of a scene, a multiple of 32, 128 or more
pictures = 60  # scenes on which things are counted; at least 20
copies = 12  # boxes around each object in section 9
coco_count = 24  # photographs of section 10

# %%
import math

import torch
from scipy import ndimage
from torch import Tensor
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator

# %%
from segedu import show, widgets
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog
from segedu.data.scenes import CLASSES, Scenes
from segedu.exercises import Exercise
from segedu.models.mask_rcnn import boxes as package
from segedu.models.mask_rcnn.anchors import Anchors
from segedu.models.mask_rcnn.matching import BETWEEN, NEGATIVE, match
from segedu.models.mask_rcnn.nms import batched_nms, nms, soft_nms
from segedu.palette import class_colours

COLOURS = [tuple(colour / 255) for colour in class_colours(8)]
BLUE, RED = COLOURS[6], COLOURS[7]

# %% [markdown]
# ## 1. Why not count the pieces of a mask?
#
# A semantic mask knows which pixels are disc. An obvious plan: take the connected pieces of each class, and call each piece an object.
#
# **Predict:** in what share of the scenes is the number of pieces right, if the mask is *perfect*?


# %%
def pieces(scene):
    """Number of connected pieces of the true classes, over all classes but the ground."""
    classes = (scene["labels"][:, None, None] * scene["masks"].as_subclass(Tensor)).sum(0)
    return sum(ndimage.label(classes == c)[1] for c in range(1, len(CLASSES)))


scenes = list(Scenes(pictures, size=image_size, seed=seed))
counts = [(pieces(scene), len(scene["labels"])) for scene in scenes]
more = sum(found > true for found, true in counts) / pictures
fewer = sum(found < true for found, true in counts) / pictures
print(f"too many pieces in {more:.0%} of the scenes, too few in {fewer:.0%}")
check_at_most("share of scenes counted right", 1 - more - fewer, 0.75)
check_at_least("there are scenes with too many pieces", more, 0.1)

# %% [markdown]
# An object that another one crosses falls apart; two of a class that touch grow together. Both can happen in one scene and cancel. The mask is perfect; it does not hold the answer. Chapter 04 parted touching nuclei by their shape; that works where shapes are simple. Here we let the network say the objects themselves, and it begins with boxes.
#
# ## 2. Four numbers, three ways
#
# A **box** (边界框) is a rectangle along the axes: $B = (x_1, y_1, x_2, y_2)$, XYXY for short, in pixels. Now the question that costs most afternoons: of what is $(0, 0)$ the place? In this course, of the *outer corner* of the top left pixel. Pixel (row $r$, column $c$) covers $[c, c + 1] \times [r, r + 1]$. So width and height are plain differences, $w = x_2 - x_1$ and $h = y_2 - y_1$.
#
# By hand on four pixels: an object fills rows 1 and 2, columns 2 and 3. Its first column begins at $x_1 = 2$, its last *ends* at $x_2 = 4$. The box is $(2, 1, 4, 3)$, its width $4 - 2 = 2$: two columns.


# %%
def box_around(mask):
    """The smallest box around the pixels of a mask (H, W), XYXY, outer edges."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


four = torch.zeros(4, 6, dtype=torch.bool)
four[1:3, 2:4] = True
check("the box of the four pixels", box_around(four), [2, 1, 4, 3])
truth = [scene["boxes"].as_subclass(Tensor) for scene in scenes]  # one (N, 4) a scene
ours = torch.stack([box_around(m) for scene in scenes for m in scene["masks"].as_subclass(Tensor)])
check("our boxes of all objects are the scenes' own", ours, torch.cat(truth))

# %% [markdown]
# torchvision has a function for this, too. **Predict** what it says of the four pixels before you look.

# %%
inclusive = ops.masks_to_boxes(four[None])[0]
check("masks_to_boxes: last column, not its end", inclusive, [2, 1, 3, 2])
check("width it seems to have", inclusive[2] - inclusive[0], 1)

# %% alt="Six by four pixels, four of them filled. A blue box runs around the outer edges of the four. A red dashed box goes from the outer corner of the first pixel to the corner between the four, and holds one of them."
fig, [ax] = show.grid(1, 1, width=4.2, height=2.8)
show.mask(ax, four.long(), "Blue: edges. Red: masks_to_boxes", num_classes=2)
show.boxes(ax, box_around(four)[None], BLUE, width=3)
show.boxes(ax, inclusive[None], RED, style="--", width=3)
ax.set(xticks=torch.arange(7) - 0.5, yticks=torch.arange(5) - 0.5)
ax.set(xticklabels=range(7), yticklabels=range(5), xlabel="x", ylabel="y")
ax.grid(color="0.6", linewidth=0.5)

# %% [markdown]
# `masks_to_boxes` gives the *indices* of the last column and row. With that reading a width is $x_2 - x_1 + 1$, as in the programs of the 2000s. Either convention is sound; mixing them is not. Section 11 measures the damage.
#
# The same box is also written with a corner and the size (XYWH: COCO's files), or with the centre and the size (CXCYWH: what a network says).
#
# | form | numbers | the four pixels |
# |---|---|---|
# | XYXY | $x_1, y_1, x_2, y_2$ | 2, 1, 4, 3 |
# | XYWH | $x_1, y_1, w, h$ | 2, 1, 2, 2 |
# | CXCYWH | $x_1 + w/2,\; y_1 + h/2,\; w, h$ | 3, 2, 2, 2 |

# %%
for form, numbers in (("xywh", [2, 1, 2, 2]), ("cxcywh", [3, 2, 2, 2])):
    check(form, ops.box_convert(box_around(four), "xyxy", form), numbers)

# %% [markdown]
# ## 3. How much do two boxes overlap?
#
# [Chapter 08](08_metrics.ipynb) scored masks by intersection over union. For boxes no pixel need be counted. Write $|B|$ for the area $w\,h$. Two boxes $A$ and $B$ overlap in a box again:
#
# $$\begin{aligned}
# x_1 &= \max(x_1^A, x_1^B), & x_2 &= \min(x_2^A, x_2^B), && \text{the later start, the earlier end} \\
# I &= \max(0, x_2 - x_1) \cdot \max(0, y_2 - y_1), &&&& y \text{ in the same way} \\
# U &= |A| + |B| - I, &&&& \text{the intersection was counted twice} \\
# \mathrm{IoU} &= I / U. &&&& \text{交并比}
# \end{aligned}$$
#
# By hand: $A = (0, 0, 4, 2)$ and $B = (2, 1, 6, 3)$. They overlap in $(2, 1, 4, 2)$, so $I = 2 \cdot 1 = 2$, $U = 8 + 8 - 2 = 14$, and the IoU is $1/7$.
#
# **Before you read on:** why are both $\max(0, \cdot)$ needed, and not one around the product? Think of two boxes that are apart in both directions.


# %%
def area(boxes):
    """Width times height; boxes (..., 4), XYXY."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(boxes1, boxes2):
    """Intersection over union of each of (N, 4) with each of (M, 4) boxes: (N, M)."""
    one, two = boxes1[:, None], boxes2[None]
    low, high = torch.maximum(one[..., :2], two[..., :2]), torch.minimum(one[..., 2:], two[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    return intersection / (area(one) + area(two) - intersection)


# %%
A, B = torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[2.0, 1, 6, 3]])
check("IoU by hand", iou(A, B), 1 / 7, tol=1e-7)
check("apart in both directions: minus times minus would be plus", iou(A, A + 10), 0.0)

# %%
everything = torch.cat(truth)  # all boxes of all scenes
check("areas are torchvision's", area(everything), ops.box_area(everything))
check("IoU too", iou(everything, everything), ops.box_iou(everything, everything), tol=1e-6)
check(
    "and the package's",
    package.box_iou(everything, everything),
    iou(everything, everything),
    tol=1e-6,
)
nothing = torch.tensor([[3.0, 3, 3, 3]])
check("two boxes without area: 0 / 0", iou(nothing, nothing), math.nan)

# %% [markdown]
# ### What an IoU feels like
#
# Detectors are trained and scored by IoU, so it is worth knowing what 0.5 looks like. Push a copy of a box to the right by a share $u$ of its width, $0 \le u \le 1$. Then $I = (1 - u)\,w\,h$ and $U = 2wh - I$:
#
# $$\mathrm{IoU} = \frac{1 - u}{1 + u}, \qquad \text{and diagonally, by } u \text{ of both sides:}\quad \frac{(1 - u)^2}{2 - (1 - u)^2}.$$
#
# **Predict:** how far may a box lie beside its truth and still have an IoU of one half? And diagonally? And what does *one pixel*, diagonally, cost a box of 4, 16 or 64 pixels?

# %%
u = torch.linspace(0, 1, 101)
unit = torch.tensor([[0.0, 0, 1, 1]])
beside = torch.stack([u, 0 * u, u, 0 * u], dim=1)
check("beside: the formula", iou(unit, unit + beside)[0], (1 - u) / (1 + u), tol=1e-6)
check("a third of the width is one half", (1 - 1 / 3) / (1 + 1 / 3), 0.5, tol=1e-12)
check("diagonally, 18 % is enough", 1 - math.sqrt(2 / 3), 0.184, tol=5e-4)
for side, left in ((4, 0.39), (16, 0.78), (64, 0.94)):
    square = torch.tensor([[0.0, 0, side, side]])
    check(f"one pixel off, {side} pixels wide", iou(square, square + 1), left, tol=5e-3)

# %% alt="Left, three squares with a shifted copy each, whose IoU is 0.75, 0.5 and 0.25. Right, two falling curves of IoU over the shift: beside falls from 1 to 0 and passes one half at 0.33, diagonally falls faster and passes it at 0.18."
fig, axes = show.grid(1, 2, width=4, height=2.7)
axes[0].imshow(torch.ones(40, 130, 3), vmin=0, vmax=1)
for n, left in enumerate((0.75, 0.5, 0.25)):
    move = 20 * (1 - left) / (1 + left)
    still = torch.tensor([[5.0 + 45 * n, 10, 25 + 45 * n, 30]])
    show.boxes(axes[0], still, BLUE, width=2)
    show.boxes(axes[0], still + torch.tensor([move, 0, move, 0]), RED, width=2, style="--")
    axes[0].text(15 + 45 * n, 38, f"IoU {left}", ha="center")
axes[0].set(title="What an IoU looks like", xticks=[], yticks=[])
axes[1].plot(u, (1 - u) / (1 + u), color=BLUE, label="beside")
axes[1].plot(u, (1 - u) ** 2 / (2 - (1 - u) ** 2), color=RED, label="diagonally")
axes[1].axhline(0.5, color="0.7")
axes[1].set(title="Half is gone after a third", xlabel="shift, in widths", ylabel="IoU")
axes[1].legend()
check("half a width off", (1 - 0.5) / (1 + 0.5), 1 / 3, tol=1e-12)
# %% [markdown]
# An IoU of 0.5 is a box that every person would call fitting badly, and 0.75 looks like 0.9. One pixel is nothing to a box of 64 and more than half of the score to a box of 4: IoU measures in units of the object. Keep this in mind for the four numbers of section 5.
#
# A warning before we rely on it: the overlap of *boxes* is not that of the objects. The objects of a scene share no pixel. Look at the two whose boxes overlap most.

# %% alt="Left, a scene with its objects tinted and boxed; two of the boxes overlap strongly. Right, only the pixels of these two objects, in two colours, without any common pixel, and their two boxes."
overlaps = [iou(boxes, boxes).fill_diagonal_(0) for boxes in truth]
crowded = max(range(pictures), key=lambda i: overlaps[i].max() if overlaps[i].numel() else 0)
pair = (overlaps[crowded] == overlaps[crowded].max()).nonzero()[0]
two = scenes[crowded]["masks"].as_subclass(Tensor)[pair].long()
fig, axes = show.grid(1, 2, width=3.4)
show.instances(axes[0], scenes[crowded]["image"], scenes[crowded], "the objects", num_classes=6)
show.mask(
    axes[1],
    two[0] + 2 * two[1],
    f"box IoU {overlaps[crowded].max():.2f}, mask IoU 0",
    num_classes=3,
)
show.boxes(axes[1], truth[crowded][pair], [COLOURS[1], COLOURS[2]], width=2.5)
check_at_least("IoU of the two boxes", overlaps[crowded].max(), 0.55)
check("pixels that both objects have", (two[0] & two[1]).sum().item(), 0)

# %% [markdown]
# ## 4. When boxes do not touch
#
# May one train by descent on $1 - \mathrm{IoU}$? **Predict** its gradient for two boxes that do not touch.

# %%
lost = torch.tensor([[2.0, 2, 12, 12]], requires_grad=True)
goal = torch.tensor([[30.0, 20, 50, 45]])
[slope] = torch.autograd.grad((1 - iou(lost, goal)).sum(), lost)
check("gradient of 1 - IoU, far from the goal", slope, 0.0)

# %% [markdown]
# Zero: both $\max$ are flat. IoU cannot tell near from far. **Generalised IoU** can: take the smallest box $E$ around both, and subtract the share of it that neither covers,
#
# $$\mathrm{GIoU} = \frac{I}{U} - \frac{|E| - U}{|E|}.$$
#
# By hand, for $A = (0, 0, 4, 2)$ and $B = (2, 1, 6, 3)$: $E = (0, 0, 6, 3)$, $|E| = 18$, so $\mathrm{GIoU} = \frac17 - \frac{18 - 14}{18} = -0.079$. It is IoU if the two fill $E$, and falls towards $-1$ as they part.


# %%
def giou(boxes1, boxes2):
    """Generalised IoU of each of (N, 4) with each of (M, 4) boxes: (N, M), in (-1, 1]."""
    one, two = boxes1[:, None], boxes2[None]
    low, high = torch.minimum(one[..., :2], two[..., :2]), torch.maximum(one[..., 2:], two[..., 2:])
    around = (high - low).prod(-1)
    overlap = iou(boxes1, boxes2)
    union = (area(one) + area(two)) / (1 + overlap)  # since |A| + |B| = U + I = U (1 + IoU)
    return overlap - (around - union) / around


check("GIoU by hand", giou(A, B), 1 / 7 - 4 / 18, tol=1e-7)
torchvisions = ops.generalized_box_iou(everything, everything)
check("all pairs, as torchvision", giou(everything, everything), torchvisions, tol=1e-5)
ours = package.generalized_box_iou(everything, everything)
check("and the package", ours, torchvisions, tol=1e-6)

# %% [markdown]
# Now descend on $1 - \mathrm{GIoU}$. **Predict:** does the box move first, or grow first?


# %%
def descend(score, start, goal, steps=600, rate=30.0):
    """Gradient descent on 1 - score; every 30th box on the way, and the last."""
    box, seen = start.clone(), []
    for step in range(steps):
        box = box.detach().requires_grad_()
        [slope] = torch.autograd.grad((1 - score(box, goal)).sum(), box)
        seen += [box.detach()] * (step % 30 == 0)
        box = box - rate * 0.995**step * slope
    return torch.cat([*seen, box.detach()])


# %%
start = lost.detach()
way = {"1 - IoU": descend(iou, start, goal), "1 - GIoU": descend(giou, start, goal)}
check("with IoU it stays where it was", way["1 - IoU"][-1], start[0])
check_at_least("with GIoU it arrives: IoU", iou(way["1 - GIoU"][-1:], goal), 0.9)
grown = area(way["1 - GIoU"]).max() / area(goal)[0]
check_at_least("on the way it was larger than the goal, times", grown, 1.1)

# %% alt="Two white panels with a blue goal box at the lower right. Left, descent on IoU: the red box stays at the upper left. Right, descent on GIoU: the red boxes grow from the upper left until their lower right corner is the goal's; then the upper left corner follows, and the last one lies on the goal."
fig, axes = show.grid(1, 2, width=3)
for ax, (name, path) in zip(axes, way.items(), strict=True):
    show.image(ax, torch.ones(3, 56, 60), f"descent on {name}")
    show.boxes(ax, goal, BLUE, width=3)
    show.boxes(ax, path, [(*RED, 0.25 + 0.7 * n / len(path)) for n in range(len(path))])

# %% [markdown]
# It grows until its far corner reaches the goal's, and only then draws the rest after it: a box around both costs nothing more while it grows towards the goal. GIoU as a loss came in 2019. Mask R-CNN, of 2017, never descends on IoU: anchors overlap their objects to begin with, and the network answers in four numbers with a loss of their own.
#
# > **In the article, question 4.** It names an "IoU loss" among the usual ones. For masks, chapter 07 showed that hard IoU has no gradient at all. For boxes it has one, and the cells above say where: wherever the boxes overlap, and nowhere else.
#
# ## 5. The four numbers that a network says
#
# Let an anchor $a$ have the centre $(x_a, y_a)$ and the size $(w_a, h_a)$, and the box that it should become $(x, y)$ and $(w, h)$. Which four numbers should the network be asked for?
#
# **Not $x, y, w, h$.** A convolution does the same at every place; it does not know where it is. So ask how far to move: $x - x_a$.
#
# **Not $x - x_a$ in pixels.** A move by 4 pixels is a different mistake for 16 pixels than for 128. IoU depends on the move *in widths*, section 3. And if the picture is enlarged twice, the finer level sees what the coarser saw before, and should say the same numbers. So divide by the size of the anchor:
#
# $$d_x = \frac{x - x_a}{w_a}, \qquad d_y = \frac{y - y_a}{h_a}.$$
#
# **Not $w / w_a$.** That is a factor; factors multiply, and a linear layer adds. Twice too wide and half too wide are mistakes of the same size, but $2$ and $\frac12$ lie $1$ and $\frac12$ from $1$. A layer may also say $-0.3$, and no box has a negative width. A logarithm mends all three:
#
# $$d_w = \ln \frac{w}{w_a}, \qquad d_h = \ln \frac{h}{h_a}.$$
#
# Backwards, solved for the box:
#
# $$x = x_a + d_x w_a, \qquad w = w_a\, e^{d_w}, \qquad y \text{ and } h \text{ likewise}.$$
#
# By hand: anchor $(0, 0, 10, 20)$, box $(5, 10, 25, 20)$. Centres $(5, 10)$ and $(15, 15)$, sizes $(10, 20)$ and $(20, 10)$. So $d_x = 10/10 = 1$, $d_y = 5/20 = 0.25$, $d_w = \ln 2 = 0.693$, $d_h = \ln \frac12 = -0.693$.


# %%
def centre_and_size(boxes):
    """(..., 2) centres and (..., 2) sizes of boxes (..., 4)."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size


def encode(boxes, anchors):
    """The four numbers (dx, dy, dw, dh) that make each anchor its box; both (..., 4)."""
    (centre, size), (anchor_centre, anchor_size) = centre_and_size(boxes), centre_and_size(anchors)
    moved = (centre - anchor_centre) / anchor_size
    return torch.cat([moved, (size / anchor_size).log()], dim=-1)


# %%
def decode(deltas, anchors):
    """The boxes that `deltas` make of the anchors; both (..., 4)."""
    centre, size = centre_and_size(anchors)
    centre, size = centre + deltas[..., :2] * size, size * deltas[..., 2:].exp()
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


# %%
anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 10, 25, 20]])
check("by hand", encode(box, anchor), [[1, 0.25, math.log(2), -math.log(2)]], tol=1e-6)
check("there and back", decode(encode(box, anchor), anchor), box, tol=1e-5)
check("all doubled: the same numbers", encode(2 * box, 2 * anchor), encode(box, anchor), tol=1e-6)
check("all moved: the same", encode(box + 7, anchor + 7), encode(box, anchor), tol=1e-6)

# %%
random = torch.Generator().manual_seed(seed)
said = torch.randn(len(everything), 4, generator=random)
peer = BoxCoder((1.0, 1.0, 1.0, 1.0))
check(
    "decode is torchvision's",
    decode(said, everything),
    peer.decode_single(said, everything),
    tol=1e-3,
)
others = everything.roll(1, dims=0)
check("encode too", encode(others, everything), peer.encode_single(others, everything), tol=1e-5)

# %% [markdown]
# ### What the gradient sees
#
# Differentiate the decoded box. Of the right edge $x_2 = x_a + d_x w_a + \frac12 w_a e^{d_w}$:
#
# $$\frac{\partial x_2}{\partial d_x} = w_a, \qquad \frac{\partial x_2}{\partial d_w} = \tfrac12 w_a e^{d_w} = \tfrac12 w.$$
#
# A step of 0.1 in $d_x$ moves a box of 16 pixels by 1.6, and one of 128 by 12.8: the same share. The network may learn with one rate for all sizes. A loss in pixels would listen to large objects eight times as much, and a layer in pixels would have to say numbers eight times as large.
#
# **Predict** the trouble in the second of these derivatives: an untrained layer says $d_w = 100$. How wide is the box? What comes back as the gradient?

# %%
for side in (16.0, 128.0):
    zero = torch.zeros(1, 4, requires_grad=True)
    x2 = decode(zero, torch.tensor([[0.0, 0, side, side]]))[0, 2]
    [slope] = torch.autograd.grad(x2, zero)
    check(f"right edge, {side:.0f} pixels wide", slope[0], [side, 0, side / 2, 0])
wild = torch.tensor([[0.0, 0, 100, 0]], requires_grad=True)
check("width of the wild box", decode(wild, anchor)[0, 2], math.inf)
[slope] = torch.autograd.grad(package.decode(wild, anchor).sum(), wild)
width = package.decode(wild, anchor)[0, 2] - package.decode(wild, anchor)[0, 0]
check("the package, like torchvision, stops growing at 62.5 times", width, 625, tol=0.01)
check("and sends no gradient beyond", slope[0, 2], 0.0)

# %% [markdown]
# $e^{100}$ is no float32, and one infinite box makes every later sum `nan`. So $d_w$ and $d_h$ are cut off at $\ln(1000/16) = 4.135$: no anchor grows more than 62.5 times. In training no cut is needed, since the loss compares $d$ with `encode` of the truth and decodes nothing.
#
# Both directions pass the numeric test in float64, so derivation and code agree:

# %%
check("the cut", package.LARGEST_GROWTH, 4.135, tol=5e-4)
wide = [
    everything[:6].double().requires_grad_(),
    (everything[6:12] + 0.3).double().requires_grad_(),
]
check("gradcheck of encode", torch.autograd.gradcheck(encode, wide), want=True)
check(
    "gradcheck of decode",
    torch.autograd.gradcheck(decode, [said[:6].double().requires_grad_(), wide[1]]),
    want=True,
)

# %% [markdown]
# ## 6. Anchors: where to begin
#
# The four numbers need something to start from. **Anchors** of a few sizes and shapes are laid at every place of a feature map; $s$ pixels lie between two places, the map's **stride** (步幅). An anchor of size $q$ and ratio $\rho$ (height by width) has the area $q^2$ whatever its shape:
#
# $$h = q\sqrt{\rho}, \qquad w = q / \sqrt{\rho}, \qquad w\,h = q^2, \quad h / w = \rho.$$
#
# By hand, $q = 32$ and $\rho = 2$: $h = 45.25$, $w = 22.63$; half of each, rounded to whole pixels, gives $(-11, -23, 11, 23)$ around $(0, 0)$.


# %%
def anchors_of(size, ratios):
    """Anchors of one place around (0, 0), corners rounded to whole pixels: (R, 4)."""
    tall = torch.tensor(ratios).sqrt()
    half = torch.stack([size / tall, size * tall], dim=1) / 2
    return torch.cat([-half, half], dim=1).round()


def lay(anchors, rows, columns, stride):
    """The anchors at every place of a map, row by row: (rows * columns * R, 4)."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = stride * torch.stack([x, y, x, y], dim=-1)
    return (places[:, :, None] + anchors).reshape(-1, 4)


# %%
check("size 32, ratio 2", anchors_of(32, [2.0]), [[-11, -23, 11, 23]])
check("areas, before rounding 1024", area(anchors_of(32, [0.5, 1, 2])), [1012, 1024, 1012])

# %% [markdown]
# Objects come in sizes that differ eight times and more. One map will not do: small anchors need places close together, large ones do not. A **feature pyramid** (特征金字塔), built in [chapter 17](17_region_proposals.ipynb), has a map for each of several strides; every level gets one size, four times its stride for our scenes.
#
# **Predict:** 128 x 128 pixels, strides 4, 8, 16 and 32, three ratios. How many anchors? On which level are most of them?

# %%
STRIDES, SIZES, RATIOS = (4, 8, 16, 32), ((16,), (32,), (64,), (128,)), (0.5, 1.0, 2.0)
grids = [(image_size // stride, image_size // stride) for stride in STRIDES]
levels = [
    lay(anchors_of(size, RATIOS), *grid, stride)
    for [size], grid, stride in zip(SIZES, grids, STRIDES, strict=True)
]
if image_size == 128:
    check("anchors of each level", [len(level) for level in levels], [3072, 768, 192, 48])
share = len(levels[0]) / sum(map(len, levels))
check("share of the finest level: 64 of 85", share, 64 / 85, tol=1e-12)

# %%
maps = [torch.zeros(1, 1, *grid) for grid in grids]
ours = Anchors(SIZES, RATIOS)(maps, (image_size, image_size))
check("the package's anchors", torch.cat(ours), torch.cat(levels))
peer = AnchorGenerator(SIZES, (RATIOS,) * 4)
same_place = peer.grid_anchors(grids, [[torch.tensor(s)] * 2 for s in STRIDES])
check("and torchvision's", torch.cat(same_place), torch.cat(levels))
photo = [(math.ceil(800 / s), math.ceil(1344 / s)) for s in (4, 8, 16, 32, 64)]
check("a photograph of 800 x 1344, five levels", 3 * sum(r * c for r, c in photo), 268_569)

# %% [markdown]
# More than a quarter of a million boxes for one photograph, most of them on ground. Choose a level and a size, and see which of the objects some anchor overlaps by half or more:

# %% alt="Left, a scene with its numbered objects in blue boxes, white dots every 16 pixels, and three red anchors around one dot: wide, square and tall. Right, a bar for each object with its IoU with the best anchor of the level, and a dotted line at one half."
busy = max(range(pictures), key=lambda i: len(truth[i]))
fig = widgets.plot_anchors(scenes[busy], 16, 32, down=0.5, right=0.5)

# %% tags=["nbval-ignore-output"]
widgets.explore_anchors(scenes[busy])

# %% [markdown]
# ## 7. Which objects does no anchor fit?
#
# Before training anything, ask of the anchors alone: how well *can* the best of them overlap an object? Three things go wrong, each by itself, and each can be computed.
#
# **Size.** Sizes double from level to level. A square of side $b$ around one of side $a$ at the same centre has IoU $a^2 / b^2$. The unluckiest object lies in the geometric middle, $\sqrt2$ from either side: $\mathrm{IoU} = \frac{1}{2}$. With $k$ sizes to an octave the step is $2^{1/k}$, half a step either way, and the worst is
#
# $$\mathrm{IoU} = \Big(2^{-\frac{1}{2k}}\Big)^{2} = 2^{-1/k}.$$
#
# **Place.** The unluckiest centre is half a stride from four places, both ways. With $q = 4s$ that is $u = \frac18$, diagonally: $(\frac78)^2 / (2 - (\frac78)^2)$.
#
# **Shape.** Between the ratios 1 and 2 the unluckiest is $\sqrt2$: against a square of the same area $I = 2^{-1/4}$ and $U = 2 - I$.
#
# **Predict** which of the three hurts most.

# %%
check("size, one an octave", 2 ** (-1 / 1), 0.5)
check("size, three an octave", 2 ** (-1 / 3), 0.794, tol=5e-4)
check("place", (7 / 8) ** 2 / (2 - (7 / 8) ** 2), 0.620, tol=5e-4)
check("shape", 2**-0.25 / (2 - 2**-0.25), 0.725, tol=1e-3)
middle = torch.tensor([[0.0, 0, 1, 1], [-0.5, -0.5, 1.5, 1.5]])  # sides 1 and 2, one centre
between = 0.5 + math.sqrt(2) / 2 * torch.tensor([[-1.0, -1, 1, 1]])
check("side 1.41 between 1 and 2", iou(between, middle)[0], [0.5, 0.5], tol=1e-6)

# %% [markdown]
# Size. With one size an octave, some objects reach no more than one half even at the right place and with the right shape. Here is the whole map: objects of every width and height, at four places each, and the best anchor's IoU. The dots are the objects of our scenes.


# %%
def best_overlap(boxes, anchors):
    """IoU of each box with the anchor that fits it best: (N,)."""
    return package.box_iou(boxes, anchors).amax(dim=1)


side = 2 ** torch.linspace(3, 7, 33)  # 8 to 128 pixels
height, width = torch.meshgrid(side, side, indexing="ij")
size = torch.stack([width, height], dim=-1)
centres = image_size / 2 + torch.tensor([[0.0, 0], [2, 1], [5, 3], [11, 6]])[:, None, None]
objects = torch.cat([centres - size / 2, centres + size / 2], dim=-1).reshape(-1, 4)
anchors = torch.cat(levels)
fit = best_overlap(objects, anchors).reshape(4, 33, 33).mean(0)
found = best_overlap(everything, anchors)
worst = everything[found.argmin()]

# %% alt="A heat map of the best anchor's IoU over object width and height, both from 8 to 128 pixels on logarithmic axes. Bright spots lie near the sizes and ratios of the anchors, along the diagonal and beside it; darker bands run between them, and it is darkest in the corners of long thin objects. The white dots, the scenes' objects, lie around the diagonal, many of them in the band around 45 pixels, few in the corners."
fig, [ax] = show.grid(1, 1, width=5.2, height=4)
drawn = ax.pcolormesh(side, side, fit, cmap="cividis", vmin=0.1, vmax=0.9, shading="nearest")
fig.colorbar(drawn, ax=ax, label="IoU with the best anchor")
_, sizes = centre_and_size(everything)
ax.scatter(*sizes.T, s=7, color="white", edgecolor="black", linewidth=0.4)
ax.set(xscale="log", yscale="log", xlabel="width (pixels)", ylabel="height (pixels)")
ax.set(
    title="Dark bands between the sizes, dark corners",
    xticks=[8, 16, 32, 64, 128],
    yticks=[8, 16, 32, 64, 128],
)
ax.set(xticklabels=[8, 16, 32, 64, 128], yticklabels=[8, 16, 32, 64, 128])
ax.minorticks_off()
corner = fit[0, -1] / fit.max()
check_at_most("8 high and 128 wide, against the best fit", corner, 0.4)

# %% [markdown]
# And what do the scenes say? For a threshold $\tau$, the **recall of the anchors** is the share of the objects that some anchor overlaps by $\tau$ or more. We compare four sets: the one above, squares only, nine anchors a place (three sizes an octave, RetinaNet's setting), and torchvision's sizes, which begin at 32.
#
# **Predict:** which threshold would you dare to ask of every object?

# %%
nine = tuple(tuple(q * 2 ** (k / 3) for k in range(3)) for q in (12, 24, 48, 96))
sets = {
    "3 ratios": Anchors(SIZES, RATIOS),
    "squares": Anchors(SIZES, (1.0,)),
    "3 ratios, 3 sizes": Anchors(nine, RATIOS),
    "3 ratios, from 32": Anchors(((32,), (64,), (128,), (256,)), RATIOS),
}
best = {
    name: best_overlap(everything, torch.cat(chosen(maps, (image_size, image_size))))
    for name, chosen in sets.items()
}
reached = {name: (overlap >= 0.7).double().mean().item() for name, overlap in best.items()}
print({name: f"{share:.0%}" for name, share in reached.items()})

# %% alt="Four falling curves of recall over the threshold. Nine anchors a place hold on longest: nearly all objects up to 0.6, and three quarters at 0.7. The other three fall from 0.5 on, to between a third and a half of the objects at 0.7; squares lie a little below three ratios, and sizes from 32 above both from 0.65 on. At 0.9 all are near zero."
taus = torch.linspace(0.3, 1, 71)
fig, [ax] = show.grid(1, 1, width=5, height=3.2)
for (name, overlap), colour in zip(best.items(), (BLUE, COLOURS[2], RED, COLOURS[1]), strict=True):
    ax.plot(taus, [(overlap >= tau).double().mean() for tau in taus], color=colour, label=name)
ax.axvline(0.7, color="0.7")
ax.set(title="More sizes help, more than ratios do")
ax.set(xlabel="threshold on the IoU", ylabel="share of objects")
ax.legend()
fits_045 = (best["3 ratios"] >= 0.45).double().mean()
check_at_least("3 ratios: nearly all objects at 0.45", fits_045, 0.95)
check_at_most("but at 0.7", reached["3 ratios"], 0.6)

# %%
more_sizes = reached["3 ratios, 3 sizes"] - reached["3 ratios"]
check_at_least("what three sizes an octave add at 0.7", more_sizes, 0.15)
more_places = reached["3 ratios, from 32"] - reached["3 ratios"]
check_at_least("what sizes from 32 add at 0.7", more_places, 0.02)
tiny = (area(everything).sqrt() < 23).double().mean()
check_at_most("share of objects smaller than 23 pixels", tiny, 0.15)
more_ratios = (best["3 ratios"] - best["squares"]).mean()
check_at_least("what three ratios add to the mean IoU", more_ratios, 0.005)
unluckiest_place = (15 / 16) ** 2 / (2 - (15 / 16) ** 2)
check("half a stride in a size of eight strides", unluckiest_place, 0.784, tol=5e-4)

# %% [markdown]
# Were you surprised by the sizes from 32? Few of our objects are smaller than 23 pixels, the middle between 16 and 32, so the finest level was not needed for its size. And every size now lies on a level twice as fine: the places are an eighth of the size apart, not a quarter. It is the same number of anchors, better placed for *these* objects. Measure before you choose.
#
# Now look at the objects that fit worst.

# %% alt="Three scenes, in each an object in a blue box and the anchor that fits it best in red dashes. The first object is a tall thin rest at the border; the other two are about 45 pixels wide and high, with an anchor of 64 around them."
order = found.argsort()[:3]
which = torch.tensor([len(boxes) for boxes in truth]).cumsum(0)
fig, axes = show.grid(1, 3, "The three objects that fit worst, and their best anchors", width=2.2)
for ax, n in zip(axes, order.tolist(), strict=True):
    scene = scenes[int((which <= n).sum())]
    show.image(ax, scene["image"], f"IoU {found[n]:.2f}")
    show.boxes(ax, everything[n : n + 1], BLUE, width=2.5)
    show.boxes(
        ax, anchors[package.box_iou(everything[n : n + 1], anchors).argmax(1)], RED, style="--"
    )
check_at_most("the worst of all", found.min(), 0.52)

# %% [markdown]
# One would expect rests at the border, long and thin, and there are some. But most of the worst are quite ordinary objects of an unlucky *size*. Call the octave of a size its place between two anchor sizes, 0.5 for the geometric middle:

# %%
size = area(everything).sqrt()
octave = (size / 16).log2() % 1
is_between = (octave - 0.5).abs() < 0.25  # the middle half of an octave
badly = found <= found.quantile(0.1)
check("share of all objects with such a size: half", is_between.double().mean(), 0.5, tol=0.12)
check_at_least("share of the tenth that fits worst", is_between[badly].double().mean(), 0.8)
print(
    f"mean best IoU: {found[is_between].mean():.2f} between sizes, {found[~is_between].mean():.2f} else"
)
check_at_least(
    "what an unlucky size costs", found[~is_between].mean() - found[is_between].mean(), 0.1
)

# %% [markdown]
# The derivation said so: size hurts most. Whoever asks for an IoU of 0.7 leaves more than four of ten objects without any anchor, and these are not learned badly but *not at all*.
#
# Two ways out: more anchors, or a rule that leaves no object out. Three times as many anchors cost three times the outputs. The rule costs nothing.
#
# ## 8. Matching: who answers for what
#
# In training every anchor needs a label. Faster R-CNN's rules, for the IoU of $G$ objects with all anchors:
#
# 1. An anchor that overlaps its closest object by $\tau_{\text{high}} = 0.7$ or more is **positive**, and answers for that object.
# 2. One that overlaps nothing by $\tau_{\text{low}} = 0.3$ or more is **negative**: ground. Those in between are not asked.
# 3. The best anchor of each object is positive too, however little it overlaps.
#
# Why two thresholds? Anchors of 0.69 and 0.71 look alike. To call one ground and the other object is to teach noise; so the doubtful ones are left out, like the void pixels of a mask.
#
# By hand, two objects and five anchors; `-` is not asked, $\times$ is ground:
#
# | | a | b | c | d | e |
# |---|---|---|---|---|---|
# | object 0 | 0.8 | 0.2 | 0.5 | 0.0 | 0.1 |
# | object 1 | 0.1 | 0.1 | 0.4 | 0.0 | 0.25 |
# | rules 1 and 2 | 0 | $\times$ | - | $\times$ | $\times$ |
#
# **Predict** rule 3: which anchor is object 1's best, and for whom will it answer?


# %%
def match_by_rules(overlap, low, high):
    """Per anchor: its object's index, -1 for ground, -2 for not asked. Rules 1 and 2; (G, A)."""
    best, closest = overlap.max(dim=0)
    closest[best < high] = -2
    closest[best < low] = -1
    return closest


def match_all_objects(overlap, low, high):
    """Rules 1, 2 and 3."""
    matches = match_by_rules(overlap, low, high)
    is_best = (overlap == overlap.amax(dim=1, keepdim=True)).any(dim=0)  # all of equal ones
    matches[is_best] = overlap.argmax(dim=0)[is_best]
    return matches


# %%
overlap = torch.tensor([[0.8, 0.2, 0.5, 0.0, 0.1], [0.1, 0.1, 0.4, 0.0, 0.25]])
check("rules 1 and 2", match_by_rules(overlap, 0.3, 0.7), [0, -1, -2, -1, -1])
check("with rule 3", match_all_objects(overlap, 0.3, 0.7), [0, -1, 0, -1, -1])

# %% [markdown]
# Anchor c is object 1's best, but c overlaps object 0 more, and answers for object 0. Object 1 still has none! The usual implementations do so, torchvision's and ours too: rule 3 makes the anchor positive, and a positive anchor answers for whomever *it* overlaps most. It happens where objects crowd. Without the better claim it works as meant:

# %%
alone = torch.tensor([[0.8, 0.2, 0.3, 0.0, 0.1], [0.1, 0.1, 0.4, 0.0, 0.25]])
check("c now overlaps object 1 more", match_all_objects(alone, 0.3, 0.7), [0, -1, 1, -1, -1])
differing = 0
for boxes in truth:
    overlap = package.box_iou(boxes, anchors)
    ours = match_all_objects(overlap, 0.3, 0.7)
    for theirs in (
        Matcher(0.7, 0.3, allow_low_quality_matches=True)(overlap.clone()),
        match(overlap, 0.3, 0.7, keep_best=True),
    ):
        differing += (ours != theirs).sum().item()
check("anchors that torchvision or the package match otherwise", differing, 0)

# %% [markdown]
# Now on the scenes. **Predict:** of the 4,080 anchors of a scene, how many are positive? And how many objects have no anchor, without and with rule 3?


# %%
def matches_of(keep_best):
    """The matches of every scene's anchors."""
    return [match(package.box_iou(b, anchors), 0.3, 0.7, keep_best=keep_best) for b in truth]


def without_anchor(matches):
    """Share of all objects for which no anchor answers."""
    answered = sum(len(m[m >= 0].unique()) for m in matches)
    return 1 - answered / len(everything)


# %%
strict, kept = matches_of(keep_best=False), matches_of(keep_best=True)
kinds = torch.stack(kept)
positive = (kinds >= 0).double().mean().item()
print(f"positive {positive:.2%}, not asked {(kinds == BETWEEN).double().mean():.1%}")
check_at_most("share of positive anchors", positive, 0.004)
check_at_least("share of ground", (kinds == NEGATIVE).double().mean(), 0.9)
check_at_least("objects that nobody answers for, rules 1 and 2", without_anchor(strict), 0.4)
check_at_most("and with rule 3", without_anchor(kept), 0.03)

# %% alt="A scene three times. First its seven objects, each in a box of its own colour. Then the positive anchors by rules 1 and 2: five colours are there, those of the cut-off ring at the left and of the triangle at the right are not. Then with rule 3 all seven."
fig, axes = show.grid(1, 3, width=3)
scene, boxes = scenes[busy], truth[busy]
colours = [tuple(c / 255) for c in class_colours(len(boxes) + 1)[1:]]
titles = ("objects", "positive: rules 1 and 2", "and with rule 3")
for ax, m, title in zip(axes, (None, strict[busy], kept[busy]), titles, strict=True):
    show.image(ax, scene["image"], title)
    chosen = m[m >= 0].tolist() if m is not None else range(len(boxes))
    shown = anchors[m >= 0] if m is not None else boxes
    show.boxes(ax, shown, [colours[g] for g in chosen], width=2)

# %% [markdown]
# About two anchors in a thousand are positive. A loss over all of them would be a loss over ground; [chapter 17](17_region_proposals.ipynb) draws a sample of both kinds instead.
#
# One more thing can be read off: how large the four numbers are that the network has to say. Take anchors of IoU 0.5 and more, as the second stage of a detector does.

# %%
close = [match(package.box_iou(b, anchors), 0.5, 0.5) for b in truth]
deltas = torch.cat(
    [encode(b[m[m >= 0]], anchors[m >= 0]) for b, m in zip(truth, close, strict=True)]
)
spread = deltas.std(dim=0)
print("standard deviation of dx, dy, dw, dh:", [round(x, 2) for x in spread.tolist()])
check("dx and dy", spread[:2], 0.14, tol=0.03)
check("dw and dh: about twice that", spread[2:], 0.27, tol=0.06)
ten = package.encode(box, anchor, weights=(10, 10, 5, 5))
check("weights multiply", ten, encode(box, anchor) * torch.tensor([10, 10, 5, 5]), tol=1e-5)

# %% [markdown]
# They are small, and $d_w$ varies twice as much as $d_x$. A loss that adds up all four hears mostly the last two. Fast R-CNN scaled each to a spread of about 1, and the constants stayed: `weights=(10, 10, 5, 5)` in torchvision's second stage are $1/0.1$ and $1/0.2$. Proposals lie closer to their objects than anchors do, so the spread there is somewhat smaller than ours.
#
# ## 9. Of many boxes, one
#
# A trained network gives a good box for *every* anchor near an object. Ten boxes around one disc are ten discs to whoever counts. **Non-maximum suppression** (非极大值抑制), NMS: take the box with the highest score, drop all that overlap it by more than $\tau$, and go on with the rest.
#
# By hand on four boxes. Three are 10 wide, at $x = 0, 2, 4$; the fourth is elsewhere. From section 3: shifted by 2 of 10 the IoU is $8/12$, by 4 of 10 it is $6/14$. Let $\tau = 0.5$.
#
# | box | $x_1$ | score | IoU with A | with B | with C |
# |---|---|---|---|---|---|
# | A | 0 | 0.9 | | 2/3 | 3/7 |
# | B | 2 | 0.8 | 2/3 | | 2/3 |
# | C | 4 | 0.7 | 3/7 | 2/3 | |
# | D | 30 | 0.6 | 0 | 0 | 0 |
#
# **Predict:** who stays? B overlaps C by more than $\tau$, and has the higher score.


# %%
def nms_one_by_one(boxes, scores, tau):
    """Indices of the boxes that stay, best first."""
    overlap, left, stay = iou(boxes, boxes), scores.argsort(descending=True, stable=True), []
    while len(left):
        best = left[0]
        stay.append(best.item())
        left = left[1:][~(overlap[best, left[1:]] > tau)]
    return stay


# %%
x = torch.tensor([0.0, 2, 4, 30])
four = torch.stack([x, 0 * x, x + 10, 0 * x + 10], dim=1)
scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
check("IoU of A with B, C, D", iou(four, four)[0, 1:], [2 / 3, 3 / 7, 0], tol=1e-6)
check("A, C and D stay", nms_one_by_one(four, scores, 0.5), [0, 2, 3])
check("had B the best score, only B and D", nms_one_by_one(four, scores[[1, 0, 2, 3]], 0.5), [1, 3])

# %% [markdown]
# C stays. B was dropped by A, and who is dropped drops nobody. So the answer hangs on the *order*, and looking at pairs alone ("drop whoever overlaps a better one") would be wrong.
#
# For an experiment we need what a network would give: boxes near each object, with scores that are higher where the fit is better, but not reliably so. We draw them: the four numbers at random around each true box, and the IoU with the truth, spoilt by noise, as the score. A real network's mistakes are of more kinds; these suffice to see what NMS does.


# %%
def detections(boxes, labels, generator):
    """`copies` boxes around each object, with scores that tell good from bad fairly well."""
    n = len(boxes)
    near = package.decode(0.12 * torch.randn(n, copies, 4, generator=generator), boxes[:, None])
    fit = torch.stack([iou(b[None], c)[0] for b, c in zip(boxes, near, strict=True)])
    noise = 0.15 * torch.rand(n, 1, generator=generator)
    noise = noise + 0.1 * torch.rand(n, copies, generator=generator)
    scores = (fit - noise).clamp(0.01, 1).flatten()
    each = labels.repeat_interleave(copies)
    return {"boxes": near.flatten(0, 1), "scores": scores, "labels": each}


# %%
random = torch.Generator().manual_seed(seed)
answers = [detections(b, s["labels"], random) for b, s in zip(truth, scenes, strict=True)]
shown = answers[crowded]
print(f"{len(shown['boxes'])} boxes for {len(truth[crowded])} objects")
for tau in (0.2, 0.5, 0.8):
    for f in (ops.nms, nms):
        stay = f(shown["boxes"], shown["scores"], tau)
        check(f"{f.__module__}, {tau}", stay, nms_one_by_one(shown["boxes"], shown["scores"], tau))

# %% alt="Left, a scene with dozens of boxes in the colours of their classes around its objects. Right, the seven boxes that NMS with threshold 0.5 leaves, each with its score. Of the ring and the disc at the upper left only one has a box left; the triangle has two, and the two stars have three together."
fig = widgets.plot_nms(scenes[crowded]["image"], shown, 0.5)

# %% tags=["nbval-ignore-output"]
widgets.explore_nms(scenes[crowded]["image"], shown)

# %% [markdown]
# ### All at once
#
# The loop looks at one box after the other; a GPU would rather look at all. Put the boxes in order of their scores, and ask of all at once: *does no survivor before me overlap me?* Guess first that everybody survives, and ask again and again. The first box's answer is right from the start. Once the first $t$ answers are final, the next question makes the $(t + 1)$-th final. So it must end, at the loop's answer, and mostly after a few rounds.


# %%
def nms_in_rounds(boxes, scores, tau):
    """(Indices of the boxes that stay, best first; rounds it took)."""
    order = scores.argsort(descending=True, stable=True)
    above = (iou(boxes[order], boxes[order]) > tau).triu(1)  # [i, j]: i is better and overlaps j
    stays, rounds = torch.ones(len(order), dtype=torch.bool), 0
    while True:
        again = ~(above & stays[:, None]).any(dim=0)
        rounds += 1
        if torch.equal(again, stays):
            return order[stays], rounds
        stays = again


# %%
stay, rounds = nms_in_rounds(shown["boxes"], shown["scores"], 0.5)
check("the loop's boxes", stay, nms_one_by_one(shown["boxes"], shown["scores"], 0.5))
check_at_most(f"rounds for {len(shown['boxes'])} boxes", rounds, 12)
check("four boxes, A to D: the guess changes twice", nms_in_rounds(four, scores, 0.5)[1], 3)

# %% [markdown]
# The package does so in blocks of 256 boxes, best first: whoever a survivor of an earlier block overlaps is gone before it is compared with its own block, so that a thousand boxes need far fewer than a million overlaps.
#
# ### By class, and softly
#
# NMS has one free number, and no good value. A low $\tau$ drops objects that overlap; a high one leaves doubles. Two repairs:
#
# - **Class by class** (`batched_nms`): a disc does not drop a star. It helps where neighbours differ in class.
# - **Soft-NMS**: do not drop the overlapping box, lower its score, by a factor that falls with the overlap. A double sinks to the bottom of the list; an object behind another sinks a little.
#
# All are one loop. Take the best box left; multiply the scores $p_j$ of the others by a factor $f$ of their overlap $o_j$ with it; go on:
#
# | kind | factor $f(o)$ |
# |---|---|
# | hard | 0 if $o > \tau$, else 1 |
# | soft, linear | $1 - o$ if $o > \tau$, else 1 |
# | soft, Gaussian | $e^{-o^2 / \sigma}$ |


# %%
def lowered(boxes, scores, factor):
    """(Indices in the order they are taken, scores at that moment)."""
    overlap, left, taken = iou(boxes, boxes), scores.clone(), []
    for _ in range(len(boxes)):
        best = left.argmax().item()
        taken.append((best, left[best].item()))
        left = left * factor(overlap[best])
        left[[i for i, _ in taken]] = -1.0
    return [i for i, _ in taken], [p for _, p in taken]


# %%
hard = lowered(four, scores, lambda o: (o <= 0.5).float())
check("hard: B's score is 0", sorted(zip(*hard, strict=True))[1][1], 0.0)
order, soft = lowered(four, scores, lambda o: (-o * o / 0.5).exp())
check("Gaussian: A, D, C, B", order, [0, 3, 2, 1])
by_hand = [0.9, 0.6, 0.7 * math.exp(-18 / 49), 0.8 * math.exp(-8 / 9) * math.exp(-8 / 9)]
check("their scores", soft, by_hand, tol=1e-6)
check("as in the package", soft_nms(four, scores, sigma=0.5)[1], soft, tol=1e-6)

# %% [markdown]
# By hand: A overlaps B by $\frac23$, and $e^{-(4/9)/0.5} = e^{-8/9}$; when C is taken, B is lowered once more. D, untouched, is now second.
#
# Which is best where objects overlap? A picture has $n$ objects. We look at the $n$ best boxes after NMS, and count how many *different* objects they find, with an IoU of 0.5 or more. A double costs a place in the list, and so does an object dropped.
#
# **Predict** the three curves over $\tau$ (or $\sigma$), from 0.1 to 0.8.


# %%
def objects_found(boxes, guesses):
    """How many of the objects the best n guesses find, each guess the object it fits best."""
    best, closest = package.box_iou(guesses[: len(boxes)], boxes).max(dim=1)
    return len(closest[best >= 0.5].unique())


def share_found(thin):
    """The share of all objects, when `thin` takes a scene's answer to the kept indices."""
    found = [objects_found(b, a["boxes"][thin(a)]) for b, a in zip(truth, answers, strict=True)]
    return sum(found) / len(everything)


# %%
taus = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
together = [share_found(lambda a, t=t: nms(a["boxes"], a["scores"], t)) for t in taus]
by_class = [share_found(lambda a, t=t: batched_nms(*a.values(), t)) for t in taus]
gaussian = [share_found(lambda a, t=t: soft_nms(a["boxes"], a["scores"], t)[0]) for t in taus]

# %% alt="Share of objects among the n best boxes over the threshold. All classes together rises from about 0.8 at 0.1 to nearly 1 at 0.5 and falls to about 0.65 at 0.8. Class by class starts at about 0.95 and falls in the same way after 0.5. The Gaussian Soft-NMS stays near 0.98 all along."
fig, [ax] = show.grid(1, 1, width=5, height=3.2)
kinds = (
    ("together", together, BLUE),
    ("class by class", by_class, COLOURS[3]),
    ("Gaussian", gaussian, RED),
)
for name, shares, colour in kinds:
    ax.plot(taus, shares, "o-", color=colour, label=name)
ax.set(title="Hard NMS has one good threshold, soft many", xlabel=r"$\tau$, or $\sigma$")
ax.set(ylabel="share of objects found", ylim=(0.6, 1.01))
ax.legend()
check_at_least("tau 0.1: class by class against together", by_class[0] - together[0], 0.1)
check_at_least("together: best against 0.1", max(together) - together[0], 0.12)
check_at_least("together: best against 0.8, doubles", max(together) - together[-1], 0.2)
check_at_least("Gaussian, at its worst", min(gaussian), 0.95)

# %% [markdown]
# The hard kinds need $\tau$ near 0.5 here. Below, objects vanish behind others; above, doubles take their places in the list. The Gaussian hardly minds its $\sigma$. It is not magic: it never decides. *All* boxes are still in the list, and whoever wants a list of objects must cut it somewhere.

# %%
left = [soft_nms(a["boxes"], a["scores"])[1] for a in answers]
still = sum(len(p) for p in left) / len(everything)
check_at_least("boxes for each object in Soft-NMS's whole list", still, 0.5 * copies)
print(f"boxes for each object: {still:.1f}; with a score of 0.5 or more:", end=" ")
print(f"{sum((p >= 0.5).sum().item() for p in left) / len(everything):.2f}")

# %% [markdown]
# ## 10. Real photographs
#
# COCO's objects are smaller, relative to the picture, than ours. torchvision's Mask R-CNN enlarges each photograph until its shorter side has 800 pixels (the longer at most 1333), and then uses sizes from 32. **Predict** the recall at 0.5 with and without enlarging.

# %% tags=["nbval-ignore-output"]
coco = catalog.load("coco", split="train") if catalog.available("coco") else []
if not coco:
    print("COCO is not here; `segedu data get coco` downloads it.")

# %% [markdown]
# For each photograph the anchors of five levels are laid over it, strides 4 to 64, sizes 32 to 512, as they are in the model with its weights from COCO.


# %% tags=["nbval-ignore-output"]
def anchors_for(height, width):
    """torchvision's 3 anchors at each place of five levels."""
    grids = [torch.zeros(math.ceil(height / s), math.ceil(width / s)) for s in (4, 8, 16, 32, 64)]
    return torch.cat(Anchors()(grids, (height, width)))


def fits_of(scale):
    """The best anchor's IoU for every object of the photographs, each enlarged by scale(h, w)."""
    fits = []
    for sample in (coco[i] for i in range(min(coco_count, len(coco)))):
        height, width = sample["image"].shape[-2:]
        factor = scale(height, width)
        anchors = anchors_for(int(factor * height), int(factor * width))
        fits.append(best_overlap(factor * sample["boxes"].as_subclass(Tensor), anchors))
    return torch.cat(fits)


# %% tags=["nbval-ignore-output"]
if coco:
    before = (fits_of(lambda _h, _w: 1.0) >= 0.5).double().mean()
    larger = fits_of(lambda h, w: min(800 / min(h, w), 1333 / max(h, w)))
    after = (larger >= 0.5).double().mean()
    print(f"objects with an anchor of IoU 0.5: {before:.0%}, enlarged {after:.0%}")
    check_at_least("enlarging helps", after - before, 0.02)

# %% [markdown]
# ## 11. What goes wrong
#
# ### XYWH where XYXY is meant
#
# COCO's files store XYWH. Nothing complains if such a box is handed on as it is. **Predict** what happens to an object in the upper left of the picture, and to one in the lower right.

# %%
corner_boxes = torch.tensor([[4.0, 6, 44, 50], [90, 80, 120, 110]])
as_xywh = ops.box_convert(corner_boxes, "xyxy", "xywh")
check("IoU of each with itself misread", iou(corner_boxes, as_xywh).diag(), [0.777, 0], tol=1e-3)
check("the second has a negative width and height", as_xywh[1, 2:] - as_xywh[1, :2], [-60, -50])
check("their product is a respectable area", area(as_xywh[1]), 3000)

# %% [markdown]
# The first is a little small, the second lies nowhere, and its area is even positive. Training goes on; objects near the upper left are learned. Look for it *at the loader*: `x2 > x1` and `y2 > y1` for every box, and one picture drawn with its boxes.
#
# ### Inclusive coordinates
#
# Section 2's `masks_to_boxes`, taken as outer edges, makes every box one pixel too narrow and too low. **Predict:** does that matter?

# %%
short = everything - torch.tensor([0.0, 0, 1, 1])
lost = 1 - torch.diag(iou(everything, short))
check_at_most("lost IoU, mean over the scenes' objects", lost.mean(), 0.08)
for side, loss in ((100, 0.02), (8, 0.234), (2, 0.75)):
    square = torch.tensor([[0.0, 0, side, side]])
    check(
        f"an object of {side} pixels loses",
        1 - iou(square, square - torch.tensor([0.0, 0, 1, 1])),
        loss,
        tol=1e-3,
    )
speck = torch.zeros(1, 4, 4, dtype=torch.bool)
speck[0, 1, 1] = True
check("area of one pixel, as torchvision boxes it", ops.box_area(ops.masks_to_boxes(speck)), [0.0])

# %% [markdown]
# Hardly, for the mean; very much for the small. An object of one pixel has a box without area: its width is 0, `encode` takes $\ln 0 = -\infty$, and the loss of the whole batch is infinite.
#
# ### One box without area
#
# It need not even come to that. **Predict** what rule 3 of the matching does with an object that *no* anchor overlaps: its best IoU is 0. Which anchors are its best ones?

# %%
with_speck = torch.cat([truth[busy], torch.tensor([[50.0, 50, 50, 50]])])
matches = match(package.box_iou(with_speck, anchors), 0.3, 0.7, keep_best=True)
positive = (matches >= 0).double().mean().item()
check("share of positive anchors", positive, 1.0)
usable = package.is_at_least(with_speck, 1)
good = match(package.box_iou(with_speck[usable], anchors), 0.3, 0.7, keep_best=True)
check_at_most("without the box that has no area", (good >= 0).double().mean(), 0.02)

# %% [markdown]
# All of them: 0 is the best it has, and every anchor has it. From then on the whole ground is taught to be object. torchvision's matcher does the same, which is why its detector refuses boxes without area before they get there. Filter with `is_at_least` after every crop.
#
# ### Class by class, with negative coordinates
#
# torchvision's `batched_nms` uses a trick, on a processor for up to a thousand boxes: it moves every class to a place of its own, by class times (largest coordinate + 1), and calls `nms` once. **Predict** when two classes meet all the same.

# %%
outside = torch.tensor([[0.0, 0, 10, 10], [-11, -11, -1, -1]])  # classes 0 and 1, 11 apart
numbers = (outside, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]))
check("they do not even touch", iou(outside, outside)[0, 1], 0.0)
check("the trick drops one", ops.batched_nms(*numbers, 0.5), [0])
check("class by class", batched_nms(*numbers, 0.5), [0, 1])

# %% [markdown]
# Where boxes reach left of or above the picture. torchvision's documentation asks for coordinates of 0 and more, and its models clip first. Whoever uses the function alone has to do so, too.
#
# ## 12. In the article
#
# > **In the article, 2.1.** Instance segmentation "classifies each region at the level of instances, on the basis of semantic segmentation". That is one family of methods, and not the one that the article names later: Mask R-CNN has no semantic mask anywhere. It names places first, by the boxes of this chapter, and asks for the class and the mask of each. Section 1 showed why: the pieces of even a perfect mask are not the objects.

# %%
joined = 0
for scene in scenes:
    masks, labels = scene["masks"].as_subclass(Tensor), scene["labels"]
    for c in labels.unique():
        piece, _ = ndimage.label(masks[labels == c].any(dim=0))
        homes = [set(piece[m.numpy()].tolist()) for m in masks[labels == c]]
        joined += sum(any(a & b for b in homes if b is not a) for a in homes)
print(f"{joined} of {len(everything)} objects share a piece with another of their class")
check_at_least("objects that a perfect semantic mask joins to another", joined, 1)

# %% [markdown]
# ## 13. Three quick questions
#
# **1.** Two boxes of 20 x 20 lie side by side with a gap of 20 between them. IoU? GIoU?
#
# <details><summary>Answer</summary>
#
# 0 and $-\frac13$: the box around both has $60 \cdot 20 = 1200$ square pixels, of which 400 belong to neither.
#
# </details>
#
# **2.** An anchor of 64 x 64 gets $d = (0.25, 0, \ln 0.5, 0)$. How far does its right edge move?
#
# <details><summary>Answer</summary>
#
# Not at all: the centre moves right by 16, the width shrinks to 32, so the right edge lies at $16 + 16 = 32$ from the old centre, as before. Only the left edge moves, by 32.
#
# </details>
#
# **3.** A detector for people in a crowd uses NMS with $\tau = 0.3$. What would you change, and what gets worse?
#
# <details><summary>Answer</summary>
#
# People in a crowd have boxes that overlap by more than 0.3, and all have one class, so class-wise NMS does not help. Raise $\tau$ or use Soft-NMS; both leave more doubles with a score.
#
# </details>

# %%
apart = torch.tensor([[0.0, 0, 20, 20], [40, 0, 60, 20]])
check("1: IoU and GIoU", [iou(apart, apart)[0, 1], giou(apart, apart)[0, 1]], [0, -1 / 3], tol=1e-6)
moved = decode(torch.tensor([[0.25, 0, math.log(0.5), 0]]), torch.tensor([[0.0, 0, 64, 64]]))
check("2: left and right edge", moved[0, [0, 2]], [32, 64], tol=1e-5)

# %% [markdown]
# ## 14. Exercises
#
# ### Exercise 1: a mirrored picture
#
# An augmentation mirrors a picture of `width` columns, left to right. What becomes of its boxes?


# %% tags=["exercise"]
def mirrored(boxes, width):
    """Boxes (N, 4), XYXY with outer edges, of the picture mirrored left to right."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda boxes, width: torch.stack(
        [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1
    ),
    inputs=[
        (torch.tensor([[0.0, 0, 2, 3]]), 10),
        (torch.tensor([[1.0, 2, 4, 8], [5, 5, 9, 6]]), 12),
        (torch.zeros(0, 4), 5),
    ],
    misconceptions={
        "x1 and x2 change places: the left edge comes from the old right one": lambda boxes, width: (
            torch.stack([width - boxes[:, 0], boxes[:, 1], width - boxes[:, 2], boxes[:, 3]], dim=1)
        ),
        "width - 1 - x mirrors pixel indices; an outer edge x becomes width - x": lambda boxes, width: (
            torch.stack(
                [width - 1 - boxes[:, 2], boxes[:, 1], width - 1 - boxes[:, 0], boxes[:, 3]], dim=1
            )
        ),
        "that mirrors top to bottom": lambda boxes, width: torch.stack(
            [boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], dim=1
        ),
    },
)
exercise.check(mirrored)


# %% tags=["solution"]
def mirrored(boxes, width):
    """A place x becomes width - x, so the right edge becomes the left one."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


exercise.check(mirrored)

# %% [markdown]
# ### Exercise 2: the unluckiest object
#
# Section 7 had squares and one centre. Now let a detector have $k$ sizes an octave *and* its places $s$ pixels apart. Take an object of the unluckiest size, between the size $q$ and the next larger one, whose centre is half a stride from the nearest places, both ways. What is its IoU with the anchor of size $q$ there? It is a square, larger than the anchor; is the anchor still inside it?


# %% tags=["exercise"]
def unluckiest(q, k, s):
    """IoU of an anchor of side q with a square of side q * 2**(1 / (2k)), s/2 off in x and in y."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_boxes(q, k, s):
    """The same, asked of two boxes."""
    half = q * 2 ** (1 / (2 * k)) / 2
    anchor = torch.tensor([[-q / 2, -q / 2, q / 2, q / 2]], dtype=torch.float64)
    square = torch.tensor([[-half, -half, half, half]], dtype=torch.float64) + s / 2
    return iou(anchor, square).item()


exercise = Exercise(
    solution=by_boxes,
    inputs=[(16, 1, 4), (16, 3, 4), (32, 1, 32), (32, 2, 0), (16, 1, 40)],
    misconceptions={
        "the place was forgotten: that is right for s = 0 only": lambda _q, k, _s: 2 ** (-1 / k),
        "size and place do not simply multiply": lambda q, k, s: (
            2 ** (-1 / k) * by_boxes(q, 10**9, s)
        ),
        "the offset is half a stride, not a whole one": lambda q, k, s: by_boxes(q, k, 2 * s),
        "half a step is 2**(1 / (2k)), not 2**(1 / k)": lambda q, k, s: by_boxes(q, k / 2, s),
    },
)
exercise.check(unluckiest)


# %% tags=["solution"]
def unluckiest(q, k, s):
    """On each axis the overlap is the anchor, less what sticks out on one side, at most q."""
    side = q * 2 ** (1 / (2 * k))
    sticks_out = max(0.0, q / 2 + s / 2 - side / 2)
    shared = max(0.0, q - sticks_out) ** 2
    return shared / (q**2 + side**2 - shared)


print({k: f"{unluckiest(16, k, 4):.2f}" for k in (1, 2, 3, 9)})
exercise.check(unluckiest)

# %% [markdown]
# For $k = 1$ the small offset costs nearly nothing, since the anchor lies almost inside. From $k = 2$ on the place is what hurts, and more sizes do not help any more. Places and sizes should be refined together.
#
# ### Exercise 3: keep one, but improve it
#
# NMS throws away all but the best box, and with them what they know. *Weighted* NMS keeps the same boxes, but moves each to the mean of all boxes that overlap it by more than $\tau$, itself included, weighted with their scores. Write it for boxes of one class; a dropped box may count for several that stay.


# %% tags=["exercise"]
def weighted_nms(boxes, scores, tau):
    """(K, 4) boxes: those that `nms` keeps, best first, moved to the weighted mean around each."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def mean_around(boxes, scores, tau, weights=None, joins=lambda o, tau: o > tau):
    """The weighted mean of the boxes around each that stays."""
    stay = nms(boxes, scores, tau)
    around = joins(iou(boxes[stay], boxes), tau).to(boxes.dtype)
    around[torch.arange(len(stay)), stay] = 1
    around = around * (scores if weights is None else weights)
    return around @ boxes / around.sum(dim=1, keepdim=True)


draw = torch.Generator().manual_seed(1)
some = detections(torch.tensor([[10.0, 10, 30, 40], [18, 12, 40, 36]]), torch.tensor([1, 1]), draw)
exercise = Exercise(
    solution=mean_around,
    inputs=[
        (four, scores, 0.5),
        (some["boxes"], some["scores"], 0.5),
        (some["boxes"], some["scores"], 0.3),
    ],
    misconceptions={
        "each box counts alike; weight them with their scores": lambda b, p, tau: mean_around(
            b, p, tau, weights=torch.ones_like(p)
        ),
        "those are the boxes that stay, not yet moved": lambda b, p, tau: b[nms(b, p, tau)],
        "every box was moved, also those that NMS drops": lambda b, p, tau: (
            ((iou(b, b) > tau) * p) @ b / ((iou(b, b) > tau) * p).sum(1, keepdim=True)
        ),
        "all boxes were averaged, also those that overlap less than tau": lambda b, p, tau: (
            mean_around(b, p, tau, joins=lambda o, _tau: o >= 0)
        ),
    },
    tolerance=1e-4,
)
exercise.check(weighted_nms)


# %% tags=["solution"]
def weighted_nms(boxes, scores, tau):
    """A box overlaps itself by 1, so it takes part."""
    stay = nms(boxes, scores, tau)
    weight = (iou(boxes[stay], boxes) > tau) * scores  # (K, N)
    return (weight @ boxes) / weight.sum(dim=1, keepdim=True)


better = [
    (
        best_overlap(b, a["boxes"][nms(a["boxes"], a["scores"], 0.5)]).mean().item(),
        best_overlap(b, weighted_nms(a["boxes"], a["scores"], 0.5)).mean().item(),
    )
    for b, a in zip(truth, answers, strict=True)
    if len(b)
]
print(
    "mean IoU with the objects, NMS and weighted:",
    [round(sum(x) / len(better), 3) for x in zip(*better, strict=True)],
)
exercise.check(weighted_nms)

# %% [markdown]
# ## Summary
#
# Symbols: boxes $A$, $B$ with corners $x_1, y_1, x_2, y_2$, size $w, h$, area $|B|$; intersection $I$, union $U$, box around both $E$; anchor $a$ with centre $x_a, y_a$ and size $w_a, h_a$; the four numbers $d_x, d_y, d_w, d_h$; shift $u$ in widths; anchor size $q$, ratio $\rho$, stride $s$, $k$ sizes an octave; thresholds $\tau$; scores $p_j$, overlaps $o_j$, factor $f$, width $\sigma$.
#
# $$
# \begin{aligned}
# \mathrm{IoU} &= \frac{I}{|A| + |B| - I}, \qquad \mathrm{GIoU} = \mathrm{IoU} - \frac{|E| - U}{|E|} && \text{overlap} \\
# \mathrm{IoU} &= \frac{1 - u}{1 + u}, \qquad \frac{(1-u)^2}{2 - (1-u)^2} && \text{shifted beside, diagonally} \\
# d_x &= \frac{x - x_a}{w_a}, \qquad d_w = \ln \frac{w}{w_a} && \text{encode} \\
# x &= x_a + d_x w_a, \qquad w = w_a e^{d_w} && \text{decode; } \partial x_2 / \partial d_x = w_a,\ \partial x_2 / \partial d_w = w / 2 \\
# h &= q \sqrt{\rho}, \qquad w = q / \sqrt{\rho} && \text{anchors} \\
# \mathrm{IoU} &\ge 2^{-1/k} && \text{centred squares, } k \text{ sizes an octave} \\
# p_j &\leftarrow p_j\, f(o_j) && \text{NMS, hard or soft}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. A box is four numbers and a convention. Check `x2 > x1`, outer edges or indices, XYXY or XYWH, once, at the loader, with a picture.
# 2. A network says a box relative to an anchor, moves in widths and sizes in logarithms, so that the numbers are small and mean the same at every scale.
# 3. What no anchor overlaps is never learned, and what NMS drops is never found: look at recall before training, and at crowded pictures after.
#
# **To read**
#
# - S. Ren, K. He, R. Girshick, J. Sun, "Faster R-CNN", NeurIPS 2015: section 3.1.1 anchors; 3.1.2 the three rules and the four numbers.
# - R. Girshick, J. Donahue, T. Darrell, J. Malik, "Rich feature hierarchies for accurate object detection and semantic segmentation", CVPR 2014: appendix C of the arXiv version, where the four numbers come from. R. Girshick, "Fast R-CNN", ICCV 2015: section 2.3, their scaling.
# - T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017: section 4.1, one size a level. T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017: section 4, three sizes an octave.
# - H. Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019: section 3.
# - N. Bodla, B. Singh, R. Chellappa, L. S. Davis, "Soft-NMS", ICCV 2017: section 3.
#
# **Next.** [Chapter 17](17_region_proposals.ipynb) puts a network behind the anchors: a pyramid of features, one layer that says object or not and one that says the four numbers, and the losses that teach them.

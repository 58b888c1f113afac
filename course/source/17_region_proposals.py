# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Where might an object be?
#
# [Chapter 16](16_boxes_and_anchors.ipynb) laid thousands of anchors over a picture and had the truth say which of them fit. Now a network has to say it, for a picture whose truth it does not know. It is a small network, the **region proposal network** (区域建议网络), RPN for short, and it answers one question only: *is there any object here, and how must this anchor move to fit it?* What the object is, and which pixels are its own, is left to the [next chapter](18_mask_rcnn.ipynb).
# Two things make it work. The features come as a **pyramid** (特征金字塔), so that small objects are looked for where places lie close together and large ones where the network sees far. And of the thousands of anchors, nearly all of which are ground, only a balanced few are learnt from.
#
# **You will be able to**
#
# - say which map of a backbone should answer for an object of a given size, and why a single one does not do;
# - build a feature pyramid, and measure how far its finest level sees;
# - bring the numbers of a convolution into the order of the anchors, and know the wrong way that raises no error;
# - predict what a network learns that sees every anchor, and what sampling does to its probabilities;
# - derive the gradient of the smooth L1 loss, and turn scores into proposals.
#
# *40 minutes. Before: [boxes and anchors](16_boxes_and_anchors.ipynb), [cross-entropy](06_cross_entropy.ipynb), [convolution arithmetic](05_convolution_arithmetic.ipynb). On paper: a logarithm of odds.*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 96  # height and width of a scene, a multiple of 32
pictures = 40  # scenes on which things are counted
train_scenes = 192
test_scenes = 48
steps = 160  # of 8 scenes
least_recall = 0.75  # of the objects, by 50 proposals of the trained network
least_gain = 0.3  # in recall: trained against untrained
least_thinned = 0.04  # in recall of 15 proposals: suppressed at 0.5 against not at all
least_ahead = 1.2  # what is left of the boxes' loss over what is left of objectness'
least_neighbours = 0.03  # in recall of 50 proposals: suppressed at 0.5 against 0.3
least_pyramid_gain = 0.1  # in recall of small objects: a pyramid against one coarse map
most_large_loss = 0.12  # in recall of the others, without the pyramid

# %%
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork

# %%
from segedu import show
from segedu.check import check, check_at_least, check_at_most
from segedu.data.scenes import Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.models.mask_rcnn.anchors import Anchors
from segedu.models.mask_rcnn.boxes import box_iou, clip_boxes_to_image, decode, encode, is_at_least
from segedu.models.mask_rcnn.fpn import FeaturePyramid, PyramidBackbone
from segedu.models.mask_rcnn.matching import BETWEEN, NEGATIVE, match, sample
from segedu.models.mask_rcnn.nms import batched_nms
from segedu.models.mask_rcnn.operators import choose_operators
from segedu.models.mask_rcnn.rpn import ProposalSettings, RegionProposals
from segedu.models.trunk import Trunk
from segedu.palette import class_colours

# %%
RED, BLUE, ORANGE = (tuple(class_colours(8)[n] / 255) for n in (7, 6, 1))
chosen_device = pick_device(device)

# %% [markdown]
# ## 1. Which map should answer for an object?
#
# A backbone makes maps of growing **stride** (步幅) $s$: one place for every $s \times s$ pixels. An object of side $b$ pixels covers about $b / s$ places along each axis. Too few, and two neighbours share a place; too many, and no place sees enough of the object to name it.
#
# By hand: at stride 16 a disc of 12 pixels covers $12/16 = 0.75$ of a place. At stride 4 a star of 80 pixels covers 20.
#
# **Predict:** our scenes of 96 pixels hold objects of very different sizes. What share of them is smaller than two places of a map of stride 16?

# %%
scenes = [Scenes(pictures, size=image_size, seed=seed, difficulty=0.2)[i] for i in range(pictures)]
objects = [scene["boxes"].as_subclass(Tensor) for scene in scenes]
sides = torch.cat([((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])).sqrt() for b in objects])
check(
    "a disc of 12 pixels at stride 16, and a star of 80 at stride 4", [12 / 16, 80 / 4], [0.75, 20]
)
for stride in (4, 8, 16, 32):
    print(f"stride {stride:2}: {(sides / stride < 2).float().mean():5.0%} smaller than two places")
print(f"sides from {sides.min():.0f} to {sides.max():.0f} pixels, median {sides.median():.0f}")
check_at_least("share smaller than two places of stride 16", (sides / 16 < 2).float().mean(), 0.3)
check_at_least("largest side over smallest", sides.max() / sides.min(), 4)

# %% [markdown]
# The finest map would do for the small ones, but its features are poor: it comes out of the first few layers, which have seen a few pixels and know edges and colours. The coarse maps know more and place it badly. A backbone never has both in one map.
#
# ## 2. A pyramid: know as the coarse, place as the fine
#
# The **feature pyramid network** of Lin et al. (2017) lets the coarse maps tell the fine ones. Let $C_l$ be the backbone's map of level $l$ (stride $2^l$). With a 1x1 convolution $W_l$ for each level, which brings all to the same number of channels, and a 3x3 convolution $S_l$ that smooths:
#
# $$M_l = W_l(C_l) + \operatorname{up}(M_{l+1}), \qquad P_l = S_l(M_l),$$
#
# where $\operatorname{up}$ repeats each place in two rows and two columns, and at the coarse end, with nothing above it, $M_l = W_l(C_l)$. You know the idea from [U-Net](10_unet.ipynb), with two differences: maps are *added*, not put beside one another, and *every* level is an output.
#
# By hand, in one dimension and with one channel, $W_l$ the identity: fine $C_2 = (1, 2, 3, 4)$, coarse $C_3 = (10, 20)$. **Predict** $M_2$.


# %%
def pyramid(maps, across, smooth):
    """P_l for each of the maps C_l, finest first; `across` and `smooth` are convolutions."""
    merged = [across[-1](maps[-1])]
    for c, convolution in zip(maps[-2::-1], across[-2::-1], strict=True):
        own = convolution(c)
        merged.insert(0, own + F.interpolate(merged[0], size=own.shape[-2:], mode="nearest"))
    return [convolution(m) for convolution, m in zip(smooth, merged, strict=True)]


# %%
same = nn.Identity()
fine, coarse = torch.tensor([[[[1.0, 2, 3, 4]]]]), torch.tensor([[[[10.0, 20]]]])
by_hand, top = pyramid([fine, coarse], [same, same], [same, same])
check("M_2 by hand", by_hand.flatten(), [11, 12, 23, 24])
check("M_3 is the coarse map", top.flatten(), [10, 20])

# %% [markdown]
# torchvision's pyramid has the two convolutions of each level under the names `inner_blocks` and `layer_blocks`. With its weights ours must give its maps; so must the package's, which adds one level at the coarse end by leaving out every second row and column.

# %%
torch.manual_seed(seed)
widths = (16, 24, 32)
maps = [torch.randn(2, c, 24 // 2**i, 40 // 2**i) for i, c in enumerate(widths)]
peer = FeaturePyramidNetwork(list(widths), 32)
inner = [block[0] for block in peer.inner_blocks]
layer = [block[0] for block in peer.layer_blocks]
ours = pyramid(maps, inner, layer)
theirs = list(peer({str(i): c for i, c in enumerate(maps)}).values())

# %%
package = FeaturePyramid(widths, 32)
package.load_state_dict(peer.state_dict())
for level in range(3):
    check(f"level {level} is torchvision's", ours[level], theirs[level].detach(), tol=1e-5)
    check(f"level {level} is the package's", ours[level], package(maps)[level].detach(), tol=1e-5)
check("the level at the end", package(maps)[3], ours[2][..., ::2, ::2].detach(), tol=1e-5)

# %% [markdown]
# ### How far does the finest level see?
#
# A place of the backbone's map of stride 4 depends on the pixels around it only. **Predict:** in how many columns of the picture can a pixel change the place in the middle of $C_2$? And of $P_2$, which has heard from strides 8 and 16?
#
# The gradient tells: which pixels have one?

# %%
torch.manual_seed(seed)
body = Trunk((16, 24, 32, 48)).eval()
backbone = PyramidBackbone(body, strides=(4, 8, 16), channels=32).eval()


def columns_seen(features_of):
    """The columns of a picture of 128 pixels that the middle place of a map of stride 4 sees."""
    picture = torch.rand(1, 3, 128, 128, requires_grad=True)
    features_of(picture)[0, :, 16, 16].sum().backward()
    return int((picture.grad.abs().sum(dim=(0, 1, 2)) > 0).sum())


# %%
before, after = columns_seen(lambda x: body(x)[4]), columns_seen(lambda x: backbone(x)[0])
print(f"C_2 sees {before} columns, P_2 sees {after}")
check("columns that C_2 sees", before, 16)
check_at_least("columns that P_2 sees, times those of C_2", after / before, 5)

# %% [markdown]
# The finest level keeps its places four pixels apart, and sees most of the picture. That is what a pyramid is for.
#
# ## 3. One small head for all levels
#
# At each place of each level lie $A$ anchors. The head is a 3x3 convolution with ReLU and two 1x1 convolutions: one with $A$ channels for the **objectness** (物体性), a logit $z$ for each anchor, and one with $4A$ channels for its deltas $t = (t_x, t_y, t_w, t_h)$ of [chapter 16](16_boxes_and_anchors.ipynb). The *same* head slides over all levels: an object of 20 pixels at stride 4 looks to it like one of 80 pixels at stride 16.
#
# For a batch of $B$ pictures and a map of $H \times W$ places, what comes out is $(B, 4A, H, W)$: channels first. The anchors were laid place by place, all of a place together. By hand, one row of two places and $A = 2$: channel $4a + k$ holds the number $k$ of anchor $a$. **Predict** the first row of four if one just calls `reshape(-1, 4)`.


# %%
def by_anchor(x, numbers):
    """(B, A * numbers, H, W) in the order of the anchors: (B, H * W * A, numbers)."""
    b, channels, h, w = x.shape
    apart = x.view(b, channels // numbers, numbers, h, w)
    return apart.permute(0, 3, 4, 1, 2).reshape(b, -1, numbers)


# %%
# channel c, place j holds 10 c + j: anchor 0 of place 0 has 0, 10, 20, 30
x = 10 * torch.arange(8.0)[:, None] + torch.arange(2.0)
x = x.view(1, 8, 1, 2)
check(
    "in order: anchor 0, then anchor 1 of place 0",
    by_anchor(x, 4)[0, :2],
    [[0, 10, 20, 30], [40, 50, 60, 70]],
)
check("then place 1", by_anchor(x, 4)[0, 2], [1, 11, 21, 31])
check("just reshaped: two places, mixed", x.reshape(-1, 4)[0], [0, 1, 10, 11])

# %% [markdown]
# Both have the shape (4, 4), and no error is raised. A head that is trained with the second is asked to move an anchor by its neighbours' numbers; section 9 counts them. torchvision's order is ours:

# %%
torch.manual_seed(seed)
shapes = [(12, 20), (6, 10)]
logit_maps = [torch.randn(2, 3, h, w) for h, w in shapes]
delta_maps = [torch.randn(2, 12, h, w) for h, w in shapes]
peer_logits, peer_deltas = concat_box_prediction_layers(list(logit_maps), list(delta_maps))
ordered = torch.cat([by_anchor(x, 4) for x in delta_maps], dim=1)
check("deltas in torchvision's order", ordered.reshape(-1, 4), peer_deltas)
ordered = torch.cat([by_anchor(x, 1) for x in logit_maps], dim=1)
check("logits in torchvision's order", ordered.flatten(), peer_logits.flatten())

# %% [markdown]
# ## 4. Almost everything is ground
#
# Each anchor gets a label by the rules of [chapter 16](16_boxes_and_anchors.ipynb): 1 from an IoU of $\tau_\text{high} = 0.7$ with an object, and for each object's best anchor; 0 below $\tau_\text{low} = 0.3$ with every object; and $-1$, not asked, in between.


# %%
def labels_for(anchors, boxes, low=0.3, high=0.7):
    """For each anchor 1, 0 or -1, and the deltas to the object that it answers for."""
    hit = match(box_iou(boxes, anchors), low, high, keep_best=True)
    label = torch.ones(len(anchors))
    label[hit == NEGATIVE] = 0
    label[hit == BETWEEN] = -1
    return label, encode(boxes[hit.clamp(min=0)], anchors)


# %%
SIZES = ((12,), (24,), (48,), (96,))
grids = [torch.zeros(1, 1, image_size // s, image_size // s) for s in (4, 8, 16, 32)]
levels = Anchors(SIZES)(grids, (image_size, image_size))
anchors = torch.cat(levels)
labels = torch.stack([labels_for(anchors, boxes)[0] for boxes in objects])
for value, name in ((1, "object"), (0, "ground"), (-1, "not asked")):
    print(f"{name:10} {(labels == value).float().sum(dim=1).mean():7.1f} anchors of a picture")
share = (labels == 1).sum() / (labels >= 0).sum()
print(f"of those that are asked, {share:.2%} are objects")

# %% [markdown]
# **Predict** what a network does that sees all of them. Take the simplest one, which says the same probability $p$ everywhere. With a share $\pi$ of objects its mean cross-entropy is
#
# $$\ell(p) = -\pi \ln p - (1 - \pi) \ln (1 - p), \qquad \ell'(p) = -\frac{\pi}{p} + \frac{1 - \pi}{1 - p} = 0 \;\Rightarrow\; p = \pi.$$
#
# It says $\pi$, and its loss is small already: it has found no object.

# %%
pi = share.item()
p = torch.linspace(0.0005, 0.6, 2000, dtype=torch.float64)
loss = -pi * p.log() - (1 - pi) * (1 - p).log()
at_best = -pi * math.log(pi) - (1 - pi) * math.log(1 - pi)
check("the p of least loss is the share", p[loss.argmin()], pi, tol=4e-4)
check_at_most("share of objects among the anchors that are asked", pi, 0.01)
check_at_most("loss of a network that says it everywhere; a coin has 0.69", at_best, 0.2)

# %% [markdown]
# The gradient of the loss in the logits is $p - y$ for each anchor ([chapter 06](06_cross_entropy.ipynb)). At the beginning, $p = 0.5$ everywhere: a ground anchor pulls with 0.5 one way, an object anchor with 0.5 the other way, and there are more than a hundred of the first for one of the second. All that the network learns for a while is "ground".
#
# ## 5. A balanced few
#
# Faster R-CNN therefore draws $n$ anchors of each picture, at most half of them objects; ground fills up the rest. The package's `sample` does it.
#
# **Predict:** of $n = 64$, how many are objects, if a picture has about as many object anchors as above?

# %%
torch.manual_seed(seed)
drawn = [sample(of_picture, 64, 0.5) for of_picture in labels]
positive = torch.stack([p for p, _ in drawn])
negative = torch.stack([n for _, n in drawn])
sampled_share = positive.sum() / (positive.sum() + negative.sum())
print(f"{positive.sum(1).float().mean():.1f} objects in a sample of 64: {sampled_share:.0%}")
check("each sample has 64", positive.sum(1) + negative.sum(1), 64)
check(
    "no object anchor is left out unless there are more than 32",
    positive.sum(1),
    (labels == 1).sum(1).clamp(max=32),
)
check_at_least("share of objects, times what it was", sampled_share / share, 4)

# %% [markdown]
# There is a price. The network sees all $N_1$ object anchors and $n_0$ of the $N_0$ ground anchors, so it learns the odds of the *sample*:
#
# $$\frac{p'}{1 - p'} = \frac{p}{1 - p} \cdot \frac{N_0}{n_0}, \qquad z' = z + \ln \frac{N_0}{n_0}.$$
#
# Every logit is too high by the same constant. For the *order* of the anchors it makes no difference, and only the order is used. But do not read 0.9 as nine in ten.

# %%
grounds, kept = (labels == 0).sum().item(), negative.sum().item()
shift = math.log(grounds / kept)
without = torch.tensor(pi).logit() + shift
check("the share that sampling makes, from the shift", without.sigmoid(), sampled_share, tol=0.01)
print(
    f"every logit is {shift:.1f} too high: 'probability one half' means {torch.tensor(-shift).sigmoid():.1%}"
)
check_at_least("shift of the logits", shift, 2)

# %% [markdown]
# ## 6. How far off? The smooth L1 loss
#
# The other loss looks at object anchors only: ground has nowhere to move to. For the difference $d$ between a predicted and a wanted delta:
#
# $$\operatorname{smooth}_\beta(d) = \begin{cases} d^2 / 2\beta & |d| < \beta \\ |d| - \beta / 2 & \text{otherwise} \end{cases} \qquad \frac{\partial}{\partial d} = \begin{cases} d / \beta & |d| < \beta \\ \operatorname{sign}(d) & \text{otherwise.} \end{cases}$$
#
# Near zero a parabola: the gradient fades, and the last steps are small. Far off a straight line: an anchor that is badly matched pulls with 1 and no more. With a parabola alone it would pull with its whole distance, and a few such anchors would drown the rest.
#
# By hand with $\beta = 1/9$: for $d = 1/18$ the value is $(1/18)^2 \cdot 9 / 2 = 1/72$, the gradient $1/2$. For $d = 2$ the value is $2 - 1/18$, the gradient 1.


# %%
def smooth_l1(d, beta):
    """The loss of each difference."""
    return torch.where(d.abs() < beta, d**2 / (2 * beta), d.abs() - beta / 2)


def smooth_l1_gradient(d, beta):
    """Its derivative: d / beta, but never beyond -1 and 1."""
    return (d / beta).clamp(-1, 1)


# %%
beta = 1 / 9
d = torch.tensor([1 / 18, 2.0, -2.0, 0.0], dtype=torch.float64, requires_grad=True)
smooth_l1(d, beta).sum().backward()
check("by hand: values", smooth_l1(d, beta), [1 / 72, 2 - 1 / 18, 2 - 1 / 18, 0], tol=1e-12)
check("by hand: gradients", d.grad, [0.5, 1, -1, 0], tol=1e-12)
check("the formula's gradient is autograd's", smooth_l1_gradient(d, beta), d.grad, tol=1e-12)

# %%
wide = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64, requires_grad=True)
check(
    "torch's smooth L1",
    smooth_l1(wide, beta),
    F.smooth_l1_loss(wide, torch.zeros(301), beta=beta, reduction="none").detach(),
    tol=1e-12,
)
away = (torch.randn(40, dtype=torch.float64) * 2).requires_grad_()
holds = torch.autograd.gradcheck(lambda v: smooth_l1(v, beta), away)
check("gradcheck", holds, want=True)

# %% alt="Left, three curves of a loss over a difference from -1.5 to 1.5: a parabola that leaves the picture, a V, and smooth L1, which lies on the V but is round in the middle. Right, their gradients: a straight line, a step, and a line between -1/9 and 1/9 that is flat at -1 and 1 outside."
fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
values = wide.detach()
curves = (
    ("parabola", values**2 / 2 / beta, values / beta, ORANGE),
    ("absolute", values.abs(), values.sign(), BLUE),
    ("smooth", smooth_l1(values, beta), smooth_l1_gradient(values, beta), RED),
)
for name, value, slope, colour in curves:
    axes[0].plot(
        values, value, color=colour, label=name, linestyle="--" if name == "absolute" else "-"
    )
    axes[1].plot(values, slope, color=colour, linestyle="--" if name == "absolute" else "-")
axes[0].set(title="smooth L1 is round where d is small", xlabel="d", ylim=(-0.05, 1.6))
axes[1].set(title="and pulls with 1 at most", xlabel="d", ylim=(-1.6, 1.6))
_ = axes[0].legend()

# %% [markdown]
# Both losses are divided by the *same* number, that of the sampled anchors. The box loss thus weighs less where a picture has few objects; with a division by their number each object would weigh the same. Ren et al. found that the balance hardly matters; what matters is to know which one a program has when you compare losses.
#
# ## 7. From scores to proposals
#
# Once trained, the head gives a logit and a moved box for each anchor: more than two thousand boxes for a picture of ours, a quarter of a million for a photograph. What goes on to the second stage is chosen so:
#
# 1. on each level a few hundred boxes, those of the highest logits;
# 2. clipped to the picture, and dropped if nothing is left;
# 3. non-maximum suppression *within each level*;
# 4. of all levels together the first hundred or so, by their scores.
#
# **Predict** why step 1 is done level by level. (Which level has most anchors?)


# %%
def propose(logits, deltas, anchors, size, before=200, after=100, iou=0.7):
    """One picture's proposals, best first: lists by level of (N,) logits and (N, 4) deltas."""
    boxes, scores, level = [], [], []
    for number, (z, t, a) in enumerate(zip(logits, deltas, anchors, strict=True)):
        best = z.topk(min(before, len(z))).indices
        boxes.append(clip_boxes_to_image(decode(t[best], a[best]), size))
        scores.append(z[best].sigmoid())
        level.append(torch.full_like(best, number))
    boxes, scores, level = torch.cat(boxes), torch.cat(scores), torch.cat(level)
    seen = is_at_least(boxes, 1e-3)
    boxes, scores, level = boxes[seen], scores[seen], level[seen]
    keep = batched_nms(boxes, scores, level, iou)[:after]
    return boxes[keep], scores[keep]


# %%
settings = ProposalSettings(
    anchors=Anchors(SIZES), samples=64, before_nms=(200, 200), after_nms=(100, 100)
)

# %% [markdown]
# The package's `RegionProposals` holds head, sampling and choice together. With the same weights and the same features it must propose what `propose` proposes.

# %%
torch.manual_seed(seed)
rpn = RegionProposals(32, settings, choose_operators("written")).eval()
with torch.no_grad():
    nn.init.normal_(rpn.head.cls_logits.weight, std=0.5)
    nn.init.normal_(rpn.head.bbox_pred.weight, std=0.05)
    picture = scenes[0]["image"].as_subclass(Tensor)[None]
    features = backbone(picture)
    logits, deltas = rpn.head(features)
    size = (image_size, image_size)
    mine, _ = propose([z[0] for z in logits], [t[0] for t in deltas], levels, size)
    [package_boxes], _ = rpn(features, size, [size])
check("as many proposals", len(mine), len(package_boxes))
check("the same, in the same order", mine, package_boxes, tol=1e-4)

# %% [markdown]
# ## 8. Trained
#
# Nothing is left to derive. A small backbone with random weights, its pyramid and the head are trained together on scenes, by the sum of the two losses. **Predict** which of the two falls first.


# %%
def batches(count, steps, seed):
    """Indices of `steps` batches of 8."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield torch.randint(count, (8,), generator=generator).tolist()


# %%
def trained(strides, sizes, data, steps, seed):
    """A backbone with proposals on its pyramid, and the two losses of each step."""
    torch.manual_seed(seed)
    eye = PyramidBackbone(Trunk((16, 24, 32, 48)), strides, channels=32)
    rule = ProposalSettings(
        anchors=Anchors(sizes), samples=64, before_nms=(200, 200), after_nms=(100, 100)
    )
    net = nn.ModuleList([eye, RegionProposals(32, rule, choose_operators("torchvision"))])
    net.to(chosen_device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    order = batches(len(data), steps, seed)
    history = [step(net, optimizer, [data[i] for i in batch]) for batch in order]
    return net.eval(), torch.tensor(history)


# %%
def step(net, optimizer, samples):
    """One step of AdamW; returns both losses."""
    images = torch.stack([s["image"].as_subclass(Tensor) for s in samples]).to(chosen_device)
    truth = [{"boxes": s["boxes"].as_subclass(Tensor).to(chosen_device)} for s in samples]
    eye, rpn = net
    size = (images.shape[2], images.shape[3])
    _, losses = rpn(eye(images), size, [size] * len(images), truth)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    return [losses["loss_objectness"].item(), losses["loss_rpn_box_reg"].item()]


# %%
lessons = Scenes(train_scenes, size=image_size, seed=seed + 1, difficulty=0.2)
lessons = [lessons[i] for i in range(train_scenes)]
net, history = trained((4, 8, 16), SIZES, lessons, steps, seed)

# %% tags=["nbval-ignore-output"] alt="Two falling curves over the steps of a training. The loss of objectness falls steeply and soon; the loss of the boxes, an order of magnitude smaller, rises a little first and falls more slowly."
fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
for ax, values, name in zip(axes, history.T, ("objectness", "boxes"), strict=True):
    ax.plot(values, color=RED, alpha=0.35)
    ax.plot(values.unfold(0, max(1, steps // 16), 1).mean(1), color=RED)
    ax.set(title=f"loss of {name}", xlabel="step", ylim=(0, None))
fifth = max(1, steps // 5)
early, late = history[:fifth].mean(0), history[-fifth:].mean(0)
left = late / early
print("fell to", [f"{share:.0%}" for share in left.tolist()], "of the first fifth")
check_at_least("what is left of the boxes' loss, over objectness'", left[1] / left[0], least_ahead)

# %% [markdown]
# Objectness falls first and further: to tell an object from ground is easier than to say where it ends. And the loss of the boxes is asked of other anchors at every step.
#
# How good are proposals? They are judged by **recall** (召回率): the share of objects that at least one of the first few proposals overlaps by an IoU of 0.5 or more. Superfluous proposals cost nothing here; the second stage sorts them out.


# %%
def recall(proposals, boxes, iou=0.5):
    """The share of objects (G, 4) that some proposal (N, 4) overlaps by `iou` or more."""
    if not len(proposals):
        return 0.0
    return (box_iou(boxes, proposals).amax(dim=1) >= iou).float().mean().item()


# %%
@torch.inference_mode()
def proposals_of(net, picture, nms_iou=0.7):
    """The proposals for one picture, best first, with another threshold of suppression."""
    eye, rpn = net
    features = eye(picture.as_subclass(Tensor)[None].to(chosen_device))
    z, t = rpn.head(features)
    size = (picture.shape[1], picture.shape[2])
    laid = rpn.settings.anchors(features, size)
    found, _ = propose([x[0] for x in z], [x[0] for x in t], laid, size, iou=nms_iou)
    return found.cpu()


# %% [markdown]
# **Predict** how much a head with random weights finds with 50 proposals. It is not nothing: anchors are everywhere.

# %%
exam = Scenes(test_scenes, size=image_size, seed=seed + 2, difficulty=0.2)
exam = [exam[i] for i in range(test_scenes)]
torch.manual_seed(seed)
random_net, _ = trained((4, 8, 16), SIZES, lessons, 0, seed)
random_net[0].train()  # its running means have seen nothing yet


# %%
def mean_recall(net, most, nms_iou=0.7):
    """Over all objects of the exam, by the first `most` proposals."""
    hits = [
        recall(proposals_of(net, s["image"], nms_iou)[:most], s["boxes"].as_subclass(Tensor))
        * len(s["boxes"])
        for s in exam
    ]
    return sum(hits) / sum(len(s["boxes"]) for s in exam)


untrained, good = mean_recall(random_net, 50), mean_recall(net, 50)

# %% tags=["nbval-ignore-output"]
print(f"recall with 50 proposals: random weights {untrained:.2f}, trained {good:.2f}")
check_at_least("recall of the trained network", good, least_recall)
check_at_least("more than with random weights", good - untrained, least_gain)

# %% [markdown]
# ### Before and after suppression
#
# An object has several good anchors, and each of them is moved to fit it: the best proposals are copies of one another. Suppression at a threshold $\tau$ drops a box that overlaps a better one by more than $\tau$. **Predict:** Faster R-CNN takes $\tau = 0.7$. Does $\tau = 0.5$ find more objects with the first 15 proposals, or fewer? And 0.3?

# %% tags=["nbval-ignore-output"]
counts, thresholds = (2, 5, 10, 15, 20, 30, 50), {"none": 1.0, "0.7": 0.7, "0.5": 0.5, "0.3": 0.3}
curves = {
    name: [mean_recall(net, most, iou) for most in counts] for name, iou in thresholds.items()
}
print("proposals   ", *(f"{most:5}" for most in counts))
for name, values in curves.items():
    print(f"{name:12}", *(f"{value:5.2f}" for value in values))
thinned = curves["0.5"][3] - curves["none"][3]
check_at_least("gain by suppression at 0.5, with 15 proposals", thinned, least_thinned)
lost = curves["0.5"][-1] - curves["0.3"][-1]
check_at_least("loss by suppression at 0.3, with 50 proposals", lost, least_neighbours)

# %% tags=["nbval-ignore-output"] alt="The same scene twice with 15 red boxes. Left, without suppression: bundles of nearly equal boxes on a few objects. Middle, after suppression at 0.5: fewer copies, and boxes on more objects and on ground. Right, recall over the number of proposals: the curve for 0.5 lies highest, those for 0.7 and for none close together below it, and the one for 0.3 begins high and is overtaken."
busiest = max(range(len(exam)), key=lambda i: len(exam[i]["boxes"]))
fig, axes = show.grid(
    1, 3, "15 proposals without and with suppression, and what they find", width=3.1
)
for ax, name in zip(axes, ("none", "0.5"), strict=False):
    show.image(ax, exam[busiest]["image"], f"suppression: {name}")
    show.boxes(ax, proposals_of(net, exam[busiest]["image"], thresholds[name])[:15], RED)
styles = zip(curves.items(), (ORANGE, BLUE, RED, "black"), ("-", "-", "-", ":"), strict=True)
for (name, values), colour, style in styles:
    axes[2].plot(counts, values, style, color=colour, label=name)
axes[2].set(xlabel="proposals", title="share of objects found", ylim=(0, 1.02))
_ = axes[2].legend(title="suppression")

# %% [markdown]
# A low threshold thins out more, and the first few proposals find more objects. But it also drops the box of a *neighbour* that overlaps: with many proposals allowed, 0.3 has no advantage left. Faster R-CNN keeps up to 2000 proposals and can afford to be careful, so it takes 0.7. With few proposals one takes less.
#
# ### Was the pyramid worth it?
#
# The same backbone, the same head, the same anchors' sizes, but all of them on the maps of stride 16 and 32 alone. **Predict** what becomes of objects whose side is below 20 pixels, and of the others.


# %%
def recall_by_size(net, most, border=20):
    """Recall of objects with a side below the border, and of the others."""
    found = {True: [], False: []}
    for s in exam:
        boxes = s["boxes"].as_subclass(Tensor)
        best = box_iou(boxes, proposals_of(net, s["image"])[:most]).amax(dim=1)
        side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        for hit, small in zip(best >= 0.5, side < border, strict=True):
            found[small.item()].append(hit.item())
    return [sum(hits) / max(1, len(hits)) for hits in (found[True], found[False])]


one_map, _ = trained((16,), (sum(SIZES, ()),) * 2, lessons, steps, seed)
fine_small, fine_large = recall_by_size(net, 50)
coarse_small, coarse_large = recall_by_size(one_map, 50)

# %% tags=["nbval-ignore-output"]
print(f"{'':16} small  large")
print(f"pyramid          {fine_small:.2f}   {fine_large:.2f}")
print(f"strides 16, 32   {coarse_small:.2f}   {coarse_large:.2f}")
check_at_least(
    "gain of the pyramid for small objects", fine_small - coarse_small, least_pyramid_gain
)

check_at_most("what the others lose without it", fine_large - coarse_large, most_large_loss)

# %% [markdown]
# Small objects fall between the places of a coarse map; the large ones hardly mind.
#
# ## 9. What goes wrong
#
# ### Numbers in the order of the channels
#
# Section 3 warned: `reshape` instead of `permute`. The shapes fit and nothing is raised. **Predict:** of the four numbers that an anchor of a map of 2 x 3 places gets, how many are from its own place?

# %%
places = torch.arange(12.0).view(1, 12, 1, 1) + 100 * torch.arange(6.0).view(1, 1, 2, 3)
right, wrong = by_anchor(places, 4)[0], places.reshape(-1, 4)
check("the same shape", list(right.shape), list(wrong.shape))
whose = (right[:, 0] // 100).long()  # the place that each row belongs to
mixed = ((wrong // 100) != whose[:, None]).float().mean()
check("share of numbers that come from another place", mixed, 5 / 6, tol=1e-6)

# %% [markdown]
# ### Doubtful anchors taught as ground
#
# One threshold instead of two is simpler: 0.7 and above is an object, all else is ground. Then anchors with an IoU of 0.6, which the head could have moved onto their object, are taught to be silent.

# %%
strict = torch.stack([labels_for(anchors, boxes, low=0.7, high=0.7)[0] for boxes in objects])
overlaps = torch.stack([box_iou(boxes, anchors).amax(dim=0) for boxes in objects])
doubtful = (overlaps >= 0.5) & (strict == 0)
print(
    f"{doubtful.sum(1).float().mean():.1f} anchors of a picture overlap an object by half and are called ground"
)
print(f"{(strict == 1).sum(1).float().mean():.1f} are called objects")
check_at_least("the first, as a multiple of the second", doubtful.sum() / (strict == 1).sum(), 1)

# %% [markdown]
# ### The best of all levels together
#
# If step 1 of section 7 took the best boxes of all levels in one go, the finest level, which has three quarters of the anchors, could fill the list with copies of one small object. That is why each level has its own quota.

# %%
check("the finest level's share of the anchors", len(levels[0]) / len(anchors), 64 / 85, tol=1e-12)

# %% [markdown]
# ## 10. In the article
#
# > **In the article, 7.3.** Mask R-CNN is listed as "Object Detection with Keypoint Proposals". There are no keypoint proposals: what is proposed are *regions*, by the network of this chapter, which Mask R-CNN took over from Faster R-CNN unchanged. Keypoints are one of the things that a second stage can predict for a region, as masks are ([chapter 18](18_mask_rcnn.ipynb)). A proposal is four numbers and a score, and nothing else:

# %%
check("numbers for each proposal", proposals_of(net, exam[0]["image"]).shape[1], 4)
check(
    "outputs of the head for each anchor: a logit and four deltas",
    (logits[0].numel() + deltas[0].numel()) / logits[0].numel(),
    5,
)

# %% [markdown]
# ## 11. Three quick questions
#
# **1.** A photograph of 800 x 1344 pixels, levels of stride 4 to 64, three anchors at each place: how many logits does the head give? How many weights more has it than for a single level?
#
# <details><summary>Answer</summary>
#
# $3 \cdot (200 \cdot 336 + 100 \cdot 168 + 50 \cdot 84 + 25 \cdot 42 + 13 \cdot 21) = 268\,569$ logits. Not one weight more: the same head slides over all levels.
#
# </details>
#
# **2.** A picture without any object: what are the two losses, and their gradients?
#
# <details><summary>Answer</summary>
#
# All 64 samples are ground. The loss of objectness is their mean $-\ln(1 - p)$, the gradient in each logit $p / 64$. The box loss is an empty sum: 0, with gradient 0.
#
# </details>
#
# **3.** You double $\beta$ from 1/9 to 2/9. For which differences does the gradient change, and how?
#
# <details><summary>Answer</summary>
#
# For $|d| < 2/9$ only. Below 1/9 it is halved; between, it was $\pm 1$ and is now $d \cdot 9/2$, smaller too.
#
# </details>

# %%
rows = [(math.ceil(800 / s), math.ceil(1344 / s)) for s in (4, 8, 16, 32, 64)]
check("1: logits", 3 * sum(r * c for r, c in rows), 268_569)
torch.manual_seed(seed)
nothing = [{"boxes": torch.zeros(0, 4)}]
_, empty = rpn.train()(features, size, [size], nothing)
check("2: the box loss", empty["loss_rpn_box_reg"], 0)
at = torch.tensor([0.05, 0.15, 0.3])
check("3: gradients before", smooth_l1_gradient(at, 1 / 9), [0.45, 1, 1], tol=1e-6)
check("3: and after", smooth_l1_gradient(at, 2 / 9), [0.225, 0.675, 1], tol=1e-6)

# %% [markdown]
# ## 12. Exercises
#
# ### Exercise 1: which level reads a region?
#
# The second stage reads each proposal from one level of the pyramid. Lin et al. (2017), equation 1: a region of width $w$ and height $h$ is read from level
#
# $$l = \Big\lfloor l_0 + \log_2 \frac{\sqrt{w h}}{b_0} \Big\rfloor$$
#
# with $l_0 = 4$ for regions of side $b_0 = 224$, kept within the levels that there are, 2 to 5. Write it for boxes (N, 4), XYXY.


# %% tags=["exercise"]
def level_of(boxes):
    """The level, 2 to 5, that each box (N, 4) is read from; whole numbers."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def a_level(boxes, l0=4, b0=224.0, least=2, most=5, half=1.0):
    """The formula, with its constants."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return (l0 + half * (area.sqrt() / b0).log2()).floor().clamp(least, most).long()


exercise = Exercise(
    solution=a_level,
    inputs=[
        (torch.tensor([[0.0, 0, 224, 224]]),),
        (torch.tensor([[10.0, 10, 122, 122], [0, 0, 30, 30], [0, 0, 900, 700]]),),
        (torch.tensor([[0.0, 0, 100, 400], [5, 5, 305, 55], [0, 0, 500, 480], [0, 0, 2, 3]]),),
    ],
    misconceptions={
        "it is not kept within 2 to 5": lambda b: a_level(b, least=-9, most=9),
        "log2 of the area; the side is its root": lambda b: a_level(b, b0=math.sqrt(224), half=2.0),
        "rounded to the nearest; the formula rounds down": lambda b: a_level(
            b, b0=224 / math.sqrt(2)
        ),
        "a larger region is read from a coarser level, not a finer one": lambda b: 7 - a_level(b),
    },
)
exercise.check(level_of)


# %% tags=["solution"]
def level_of(boxes):
    """Half the side, one level finer."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    level = torch.floor(4 + torch.log2((width * height).sqrt() / 224))
    return level.clamp(2, 5).long()


exercise.check(level_of)

# %% [markdown]
# ### Exercise 2: both losses of one picture
#
# For one picture: logits $z$ (N,), deltas `t` (N, 4), labels (N,) of 1, 0 and $-1$, wanted deltas (N, 4). Take *all* labelled anchors, without sampling. Return the mean cross-entropy and the smooth L1 loss ($\beta = 1/9$) of the object anchors, divided by the number of labelled ones.


# %% tags=["exercise"]
def both_losses(z, t, label, wanted):
    """(objectness, boxes), two scalars."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def losses_by(z, t, label, wanted, asked, over, beta=1 / 9):
    """The two losses, with what is asked and what is divided by."""
    doubt = F.binary_cross_entropy_with_logits(z[asked], label[asked].clamp(min=0))
    hit = label == 1
    off = F.smooth_l1_loss(t[hit], wanted[hit], beta=beta, reduction="sum")
    return torch.stack([doubt, off / over])


def an_example(n, seed):
    """Arguments, with every label."""
    g = torch.Generator().manual_seed(seed)
    label = torch.tensor([1.0, 0, -1, 0, 1, 0, 0, -1])[torch.arange(n) % 8]
    numbers = [torch.randn(n, k, generator=g, dtype=torch.float64) for k in (1, 4, 4)]
    return numbers[0][:, 0], numbers[1], label.double(), numbers[2]


exercise = Exercise(
    solution=lambda z, t, y, w: losses_by(z, t, y, w, y >= 0, (y >= 0).sum()),
    inputs=[an_example(3, 0), an_example(8, 1), an_example(16, 2)],
    misconceptions={
        "anchors that are not asked were taught as ground": lambda z, t, y, w: losses_by(
            z, t, y, w, y > -2, (y >= 0).sum()
        ),
        "the box loss is divided by the number of labelled anchors, not of objects": lambda z, t, y, w: (
            losses_by(z, t, y, w, y >= 0, (y == 1).sum())
        ),
        "the box loss was averaged over its numbers as well": lambda z, t, y, w: losses_by(
            z, t, y, w, y >= 0, 4 * (y >= 0).sum()
        ),
        "beta is 1/9, not 1": lambda z, t, y, w: losses_by(z, t, y, w, y >= 0, (y >= 0).sum(), 1.0),
    },
)
exercise.check(both_losses)


# %% tags=["solution"]
def both_losses(z, t, label, wanted):
    """Cross-entropy of those that are asked, smooth L1 of the objects."""
    asked, hit = label >= 0, label == 1
    doubt = F.softplus(z[asked]) - label[asked] * z[asked]
    off = smooth_l1(t[hit] - wanted[hit], 1 / 9)
    return torch.stack([doubt.mean(), off.sum() / asked.sum()])


exercise.check(both_losses)

# %% [markdown]
# ### Exercise 3: how many proposals does one need?
#
# Given the proposals of a picture in their order and its objects, return for each object the *rank* of the first proposal that overlaps it by `iou` or more: 1 for the first, and 0 if there is none.


# %% tags=["exercise"]
def first_rank(proposals, boxes, iou):
    """For each object (G, 4), the rank of the first of the proposals (N, 4) that finds it."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def ranks(proposals, boxes, iou):
    """By loops."""
    overlap = box_iou(boxes, proposals)
    return torch.tensor(
        [next((n for n, v in enumerate(row, 1) if v >= iou), 0) for row in overlap.tolist()]
    )


g = torch.Generator().manual_seed(5)
corner = 60 * torch.rand(12, 2, generator=g)
some_boxes = torch.cat([corner, corner + 20 + 10 * torch.rand(12, 2, generator=g)], dim=1)
near = some_boxes[:4] + torch.tensor([2.0, 1, 2, 1])
exercise = Exercise(
    solution=ranks,
    inputs=[
        (some_boxes[[5, 0, 1, 0]], some_boxes[[0, 1]], 1.0),
        (torch.cat([some_boxes[4:], near, some_boxes[:4]]), some_boxes[:4], 0.5),
        (some_boxes[6:], some_boxes[:3], 0.7),
    ],
    misconceptions={
        "ranks begin at 1, so that 0 can mean 'never'": lambda p, b, i: (ranks(p, b, i) - 1).clamp(
            min=0
        ),
        "that is the best proposal, not the first": lambda p, b, i: (
            (box_iou(b, p).argmax(1) + 1) * (box_iou(b, p).amax(1) >= i)
        ),
        "that is the last one": lambda p, b, i: torch.where(
            ranks(p.flip(0), b, i) > 0, len(p) + 1 - ranks(p.flip(0), b, i), 0
        ),
        "an object that no proposal finds has the rank 0": lambda p, b, i: (
            (box_iou(b, p) >= i).float().argmax(1) + 1
        ),
    },
)
exercise.check(first_rank)


# %% tags=["solution"]
def first_rank(proposals, boxes, iou):
    """The first of the greatest, of 0 and 1, is the first 1."""
    hit = box_iou(boxes, proposals) >= iou
    return torch.where(hit.any(dim=1), hit.float().argmax(dim=1) + 1, 0)


exercise.check(first_rank)

# %% [markdown]
# ## Summary
#
# Symbols: level $l$ with stride $s = 2^l$; maps $C_l$ of the backbone, $M_l$ merged, $P_l$ of the pyramid; convolutions $W_l$ and $S_l$; $A$ anchors at a place; objectness logit $z$ and deltas $t$ of an anchor; thresholds $\tau_\text{low}, \tau_\text{high}$; share of objects $\pi$; $N_0$ ground anchors, of which $n_0$ are drawn, and $N_1$ of objects; difference $d$ of two deltas; $\beta$, where smooth L1 becomes straight.
#
# $$
# \begin{aligned}
# M_l &= W_l(C_l) + \operatorname{up}(M_{l+1}), \qquad P_l = S_l(M_l) \\
# \ell &= \frac{1}{n} \Big( \sum_{\text{drawn}} \operatorname{BCE}(z, y) + \sum_{\text{drawn},\, y = 1} \operatorname{smooth}_\beta(t - t^*) \Big), \qquad \frac{\partial \operatorname{smooth}_\beta}{\partial d} = \operatorname{clip}(d / \beta, -1, 1) \\
# z' &= z + \ln (N_0 / n_0) \quad \text{for what is learnt from a sample}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. A pyramid gives every size of object a map with places close enough together that has nevertheless seen far.
# 2. Nearly all anchors are ground. Who learns from all of them learns "ground"; who learns from a balanced few gets an order, not a probability.
# 3. Proposals are judged by recall. Suppression makes the first few different from one another.
#
# **To read**
#
# - T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017: section 3 for the pyramid, equation 1 for the levels.
# - S. Ren, K. He, R. Girshick, J. Sun, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", NIPS 2015: section 3 for the network, its loss and its sampling.
# - R. Girshick, "Fast R-CNN", ICCV 2015: the smooth L1 loss.
# - T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017: the other way to deal with so much ground; [chapter 07](07_overlap_losses.ipynb) derives it.
#
# **Next.** A proposal is a place. [Chapter 18](18_mask_rcnn.ipynb) reads the features there without rounding, names the object, and draws its mask.

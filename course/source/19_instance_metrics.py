# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How are instances scored?
#
# A U-Net answers with one class a pixel, and [chapter 08](08_metrics.ipynb) scored that by counting. A detector answers with a *list*: masks that may overlap, each with a class and with a number that says how sure it is. How many objects it found depends on where you cut the list, and on how much overlap you call found. Papers fold all that into one number, AP, and quote it to a tenth of a percent. Few readers could compute it for three objects. This chapter does, with a pencil first, until pycocotools gives the same twelve numbers; then it asks what they do not see.
#
# **You will be able to**
#
# - match detections to objects by COCO's rule, and say who goes first and why;
# - draw a precision-recall curve, interpolate it, and get from it to AP, to AP averaged over IoU thresholds, and to AR;
# - predict what crowds, sizes, duplicates, and a cut at some score do to AP;
# - compute panoptic quality by hand, and say where it and AP disagree;
# - recognise the mistakes that make a score look better, or a method look worse, than it is.
#
# *60 minutes. Before: [metrics](08_metrics.ipynb) for precision, recall and IoU; [boxes and anchors](16_boxes_and_anchors.ipynb) for the IoU of boxes. The detector itself is in [chapter 18](18_mask_rcnn.ipynb); here we need none.*

# %% tags=["parameters"]
seed = 0
pictures_count = 24  # scenes that are scored; at least 8
image_size = 96  # their height and width

# %%
import contextlib
import io

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as peer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment
from torchmetrics.detection import PanopticQuality as PeerQuality

# %%
from segedu import show, widgets
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.exercises import Exercise
from segedu.metrics.confusion import ConfusionMatrix
from segedu.metrics.instances import InstanceAP
from segedu.metrics.mask_overlap import mask_iou
from segedu.metrics.panoptic import PanopticQuality
from segedu.palette import class_colours

# %% [markdown]
# ## 1. Three objects, five answers
#
# Most of the chapter lives on one row of twelve pixels. Three objects $g$ lie in it, A, B and C, all of one class. A detector gives five **detections** (检测结果) $d = 1, \dots, 5$, each with a **score** (置信度) $s_d$, here in falling order.
#
# | | pixels | score $s_d$ |
# |---|---|---|
# | object A | 0 to 3 | |
# | object B | 4 to 7 | |
# | object C | 9 to 11 | |
# | detection 1 | 0 to 3 | 0.9 |
# | detection 2 | 0 to 2 | 0.8 |
# | detection 3 | 4 to 6 | 0.7 |
# | detection 4 | 8 to 11 | 0.6 |
# | detection 5 | 8 | 0.3 |
#
# **Before you go on:** how many objects did it find? How many of its five answers are right?


# %%
def spans(*pixels):
    """Masks (N, 1, 12) of a row of twelve pixels, each from its first pixel to its last."""
    place = torch.arange(12)
    return torch.stack([(first <= place) & (place <= last) for first, last in pixels])[:, None]


true_masks = spans((0, 3), (4, 7), (9, 11))  # A, B, C
masks = spans((0, 3), (0, 2), (4, 6), (8, 11), (8, 8))  # the detections 1 to 5
scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.3])
check("pixels of the objects", true_masks.sum(dim=(1, 2)), [4, 4, 3])
check("pixels of the detections", masks.sum(dim=(1, 2)), [4, 3, 3, 4, 1])

# %% alt="Six rows of twelve cells. The top row has the three objects in three colours. Below it the five detections, each in the colour of the object that it lies on: two on A, one on B, one on C with a pixel too many on the left, and one, in dark blue, on that pixel alone."
rows = torch.zeros(6, 12, dtype=torch.int64)
rows[0] = (true_masks[:, 0] * torch.tensor([1, 2, 3])[:, None]).sum(0)
for row, (mask, colour) in enumerate(zip(masks[:, 0], (1, 1, 2, 3, 6), strict=True), start=1):
    rows[row, mask] = colour
fig, [ax] = show.grid(1, 1, width=6, height=2.6)
show.mask(ax, rows, "Three objects, five detections", num_classes=8)
names = ["truth", *(f"{d}: {s:.1f}" for d, s in enumerate(scores.tolist(), start=1))]
ax.set(yticks=range(6), yticklabels=names, xticks=range(12), aspect="auto")
ax.vlines(torch.arange(11) + 0.5, -0.5, 5.5, color="white", lw=0.5)
ax.hlines(torch.arange(5) + 0.5, -0.5, 11.5, color="white", lw=0.5)
check("pixels that belong to an object", (rows[0] > 0).sum(), 11)

# %% [markdown]
# ### How much is found
#
# For each detection $d$ and each object $g$ there is an IoU, $J_{dg}$: a table of $D$ rows and $G$ columns. By hand: detection 2 has 3 of A's 4 pixels and no other, so $J_{2A} = 3/4$. Detection 4 has all 3 pixels of C and one more: $J_{4C} = 3/4$. Detection 5 lies beside C: 0.
#
# All pairs at once: write each mask as a row of zeros and ones. The scalar product of two rows counts the pixels that both have, so *all* intersections are one matrix product.


# %%
def pairwise_iou(masks, true_masks):
    """IoU of each of D masks (D, H, W) with each of G true ones (G, H, W): (D, G)."""
    a, b = masks.flatten(1).double(), true_masks.flatten(1).double()
    common = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1) - common
    return common / either.clamp(min=1)  # two empty masks: 0


iou = pairwise_iou(masks, true_masks)
by_hand = [[1, 0, 0], [0.75, 0, 0], [0, 0.75, 0], [0, 0, 0.75], [0, 0, 0]]
check("all pairs, as by hand", iou, torch.tensor(by_hand))
check("the package's, from runs of pixels", mask_iou(masks, true_masks), iou)

# %% [markdown]
# COCO stores masks as run lengths ([chapter 02](02_masks_and_data.ipynb)), and pycocotools intersects the runs without unpacking them. So does `segedu.metrics.mask_overlap`; the table is the same.


# %%
def run_lengths(masks):
    """COCO's compressed run lengths of masks (N, H, W)."""
    return [peer.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8)) for mask in masks]


check("pycocotools", peer.iou(run_lengths(masks), run_lengths(true_masks), [0, 0, 0]), iou)

# %% [markdown]
# ## 2. Who found what
#
# A detection is a **hit** (true positive, 真正例) if it overlaps an object by at least a threshold $\tau$. Two questions remain, and the answers are rules, not mathematics.
#
# *Two detections on one object?* One of them is a hit; the other is a **false alarm** (false positive, 假正例). Otherwise repeating yourself would pay. *Which of the two?* The surer one. Detections choose in the order of their scores; each takes, among the objects that are still free and that it overlaps by $\tau$ or more, the one with the largest IoU. What is left of the objects was **missed** (false negative, 假负例).
#
# By hand, with $\tau = 0.5$: 1 takes A. 2 wants A, which is taken: false alarm. 3 takes B, 4 takes C. 5 overlaps nothing: false alarm. Three hits, two false alarms, nothing missed.
#
# **Predict:** what changes with $\tau = 0.8$?


# %%
def match(iou, threshold):
    """The object that each detection takes, or -1; rows of `iou` (D, G) in falling order of score."""
    taken = []
    for row in iou.tolist():
        free = [(j, g) for g, j in enumerate(row) if j >= threshold and g not in taken]
        taken.append(max(free)[1] if free else -1)
    return torch.tensor(taken, dtype=torch.int64)


check("at 0.5 they take A, none, B, C, none", match(iou, 0.5), [0, -1, 1, 2, -1])
check("at 0.75 the same: 'at least'", match(iou, 0.75), [0, -1, 1, 2, -1])
check("at 0.8 only A is found", match(iou, 0.8), [0, -1, -1, -1, -1])

# %% [markdown]
# Greedy is not best. Take two detections: the first overlaps A by 0.6 and B by 0.55, the second overlaps A alone, by 0.58. **Predict:** how many hits does the rule give, and how many could there be?

# %%
rivals = torch.tensor([[0.6, 0.55], [0.58, 0.0]])
d, g = linear_sum_assignment(rivals >= 0.5, maximize=True)
check("hits by the rule", (match(rivals, 0.5) >= 0).sum(), 1)
check("hits of the best assignment", (rivals[d, g] >= 0.5).sum(), 2)

# %% [markdown]
# The first takes A because 0.6 is more than 0.55, and the second goes without. The best assignment has two. COCO keeps the simple rule: a surer detection is not moved for the sake of a less sure one, so the matching of the first $k$ detections does not depend on what comes after. That is what makes a *curve* possible.
#
# ## 3. Precision and recall, one detection at a time
#
# Cut the list after $k$ detections. Let $h_d$ be 1 for a hit, else 0; $G$ is the number of objects. Then
#
# $$P_k = \frac{1}{k} \sum_{d=1}^{k} h_d, \qquad R_k = \frac{1}{G} \sum_{d=1}^{k} h_d.$$
#
# **Precision** (精确率) $P_k$ is the share of the answers that is right, **recall** (召回率) $R_k$ the share of the objects that is found. By hand, with $h = (1, 0, 1, 1, 0)$ and $G = 3$:
#
# | $k$ | 1 | 2 | 3 | 4 | 5 |
# |---|---|---|---|---|---|
# | $h_k$ | 1 | 0 | 1 | 1 | 0 |
# | $P_k$ | 1 | 1/2 | 2/3 | 3/4 | 3/5 |
# | $R_k$ | 1/3 | 1/3 | 2/3 | 1 | 1 |
#
# **Predict:** which of the two rows can only rise? What does the other do at a hit, and at a false alarm?


# %%
def precision_recall(hits, objects):
    """Precision and recall after each detection; `hits` (D,) in falling order of score."""
    found = hits.double().cumsum(0)
    return found / torch.arange(1, len(hits) + 1), found / objects


hits = match(iou, 0.5) >= 0
precision, recall = precision_recall(hits, 3)
check("precision", precision, [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5], tol=1e-12)
check("recall", recall, [1 / 3, 1 / 3, 2 / 3, 1, 1], tol=1e-12)

# %% [markdown]
# Recall never falls. Precision falls at each false alarm and rises at each hit: a saw. Its teeth are awkward: nobody would stop after detection 2, with recall 1/3 and precision 1/2, when going on to detection 4 gives recall 1 and precision 3/4. So at each recall $r$ one asks for the **best precision that can be had with at least that recall**,
#
# $$p(r) = \max_{k:\; R_k \ge r} P_k, \qquad 0 \text{ if no } R_k \ge r.$$
#
# This is the **interpolated** precision. It never rises. By hand: 1 for $r \le 1/3$, then 3/4 up to $r = 1$.
#
# **Average precision** (AP, 平均精确率) is its mean height. COCO reads it at 101 recalls $r_j = 0, 0.01, \dots, 1$:
#
# $$\mathrm{AP} = \frac{1}{101} \sum_{j=0}^{100} p(r_j).$$
#
# By hand: $0, 0.01, \dots, 0.33$ are 34 recalls with height 1, the other 67 have 3/4. $\mathrm{AP} = (34 + 67 \cdot \tfrac34)/101 = 0.8342$.


# %%
def average_precision(hits, objects):
    """Mean of the interpolated precision at 101 recalls; `hits` in falling order of score."""
    precision, recall = precision_recall(hits, objects)
    highest = precision.flip(0).cummax(0).values.flip(0)  # from each detection on
    levels = torch.from_numpy(np.linspace(0, 1, 101))
    reached = torch.searchsorted(recall, levels)  # the first detection with that recall
    return torch.cat([highest, torch.zeros(1)])[reached].mean().item()


ap50 = average_precision(hits, 3)
check("AP of the five detections", ap50, (34 + 67 * 3 / 4) / 101, tol=1e-12)
check("to four digits", ap50, 0.8342, tol=5e-5)
check("the area under the steps", 1 / 3 + 2 / 3 * 3 / 4, 0.8333, tol=5e-5)

# %% alt="Precision against recall. Grey dots: the saw of the five detections, from (1/3, 1) down to (1/3, 1/2), up over (2/3, 2/3) to (1, 3/4), and down to (1, 3/5). Above it in blue the interpolated curve: height 1 up to recall 1/3, then 3/4."
blue = class_colours(8)[6] / 255
levels = np.linspace(0, 1, 101)
steps = np.where(levels <= 1 / 3, 1, 3 / 4)
fig, [ax] = show.grid(1, 1, width=5, height=3.2)
ax.fill_between(levels, steps, step="pre", color=blue, alpha=0.2)
ax.step(levels, steps, where="pre", color=blue, label="interpolated: AP is its mean height")
ax.plot(recall, precision, "o-", color="0.4", label="as counted")
for k, (r, p) in enumerate(zip(recall.tolist(), precision.tolist(), strict=True), start=1):
    ax.annotate(str(k), (r, p), xytext=(-12, -4), textcoords="offset points")
ax.set(title="A false alarm costs only what stands below it")
ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.03), ylim=(0, 1.05))
ax.legend(loc="lower left")
check("the mean height of the steps", steps.mean(), ap50, tol=1e-12)

# %% [markdown]
# The area under the steps is 0.8333: the mean over 101 places is close, not equal. PASCAL VOC read 11 places until 2009 and the whole area from 2010 on. **Predict:** is the value with 11 recalls $0, 0.1, \dots, 1$ higher or lower than 0.8342?

# %%
eleven = np.where(np.linspace(0, 1, 11) <= 1 / 3, 1, 3 / 4).mean()
check("at 11 places", eleven, (4 + 7 * 3 / 4) / 11, tol=1e-12)
check("to four digits", eleven, 0.8409, tol=5e-5)

# %% [markdown]
# A difference of 0.007, and nobody found a thing more. Numbers from different programs are to be compared only when all such rules are alike. That goes to the last bit. **Predict:** ten objects, seven found, no false alarm. At how many of the 101 recalls is the precision 1: 70 or 71?

# %%
seven = torch.ones(7, dtype=torch.bool)
check("AP of seven found of ten", average_precision(seven, 10), 70 / 101, tol=1e-12)
check("0.7 on COCO's list is too large by", np.linspace(0, 1, 101)[70] - 0.7, 1.1e-16, tol=1e-17)

# %% [markdown]
# The recalls 0, 0.01, ..., 0.70 are 71, but COCO's 0.70 is computed as $70 \cdot 0.01$, a hair more than $7/10$: "not reached". pycocotools does the same, so we keep it.

# %% [markdown]
# ### From one threshold to ten
#
# With $\tau = 0.5$ a mask that is a quarter off is as good as a perfect one. COCO's headline number takes the mean over ten thresholds,
#
# $$\mathrm{AP}^{.50:.95} = \frac{1}{10} \sum_{\tau \in \{0.50,\, 0.55,\, \dots,\, 0.95\}} \mathrm{AP}_\tau,$$
#
# and is called just "AP". By hand: up to $\tau = 0.75$, which is six thresholds, the hits are as above. For the other four only detection 1 is a hit, and $\mathrm{AP}_\tau = 34/101$.
#
# **Predict:** what does the package say, which has never seen this row?

# %%
row_metric = InstanceAP()
one_class = torch.ones(5, dtype=torch.int64)
row_metric.update(
    {"masks": masks, "scores": scores, "labels": one_class},
    {"masks": true_masks, "labels": one_class[:3]},
)
row_summary = row_metric.summary()
check("AP50", row_summary["AP50"], ap50, tol=1e-12)
check("AP75", row_summary["AP75"], ap50, tol=1e-12)
check("AP", row_summary["AP"], 0.6 * ap50 + 0.4 * 34 / 101, tol=1e-12)
check("to four digits", row_summary["AP"], 0.6351, tol=5e-5)

# %% [markdown]
# **Average recall** (AR) asks less: how much is found at all, if you take the best $n$ detections of a class in a picture? It is the last recall, again as a mean over the ten thresholds. With $n = 100$: 1 six times and 1/3 four times. With $n = 1$: detection 1 alone, 1/3 always.

# %%
check("AR100", row_summary["AR100"], (6 * 1 + 4 / 3) / 10, tol=1e-12)
check("AR1", row_summary["AR1"], 1 / 3, tol=1e-12)

# %% [markdown]
# ## 4. Many pictures, one list
#
# Now pictures. We need a detector whose mistakes we know, so we make one from the truth of [scenes](01_first_segmentation.ipynb): it loses an object now and then, draws outlines too wide or too narrow, and sees things that are not there. It is surer of the real ones, though not always.


# %%
def grown(masks, pixels):
    """Masks (N, H, W) grown by some pixels on each side, or shrunk if negative."""
    reach = abs(pixels)
    inside = (masks if pixels > 0 else ~masks).float()[:, None]
    wider = F.max_pool2d(inside, 2 * reach + 1, 1, reach)[:, 0] > 0.5
    return wider if pixels > 0 else ~wider


square = torch.zeros(1, 7, 7, dtype=torch.bool)
square[0, 2:5, 2:5] = True
check("9 pixels grown by 1", grown(square, 1).sum(), 25)
check("shrunk by 1", grown(square, -1).sum(), 1)


# %%
def truth_of(scene):
    """What `InstanceAP` wants to know of a scene, without the tensors' kinds."""
    return {key: scene[key].as_subclass(torch.Tensor) for key in ("masks", "labels", "boxes")}


# %%
def imperfect(truth, draw):
    """Detections with mistakes; `draw(n)` gives n numbers in [0, 1)."""
    masks, labels = truth["masks"], truth["labels"]
    kept = draw(len(labels)) < 0.85
    versions = torch.stack([grown(masks, by) for by in (-1, -1, 1, 2)])
    which = (4 * draw(len(labels))).long()
    near = versions[which, torch.arange(len(labels))][kept]
    ghosts = masks.flip(1, 2)[draw(len(labels)) < 0.5]  # where nothing is, as a rule
    scores = torch.cat([0.3 + 0.7 * draw(len(near)), 0.8 * draw(len(ghosts))])
    ghost_labels = 1 + (5 * draw(len(ghosts))).long()
    labels = torch.cat([labels[kept], ghost_labels])
    return {"masks": torch.cat([near, ghosts]), "labels": labels, "scores": scores}


# %%
generator = torch.Generator().manual_seed(seed)
scenes = Scenes(pictures_count, size=image_size, seed=seed)
truths = [truth_of(scenes[i]) for i in range(pictures_count)]
pictures = [
    (imperfect(truth, lambda n: torch.rand(n, generator=generator)), truth) for truth in truths
]
objects = sum(len(truth["labels"]) for truth in truths)
found = sum(len(detections["labels"]) for detections, _ in pictures)
check_at_least("objects in all pictures", objects, 3 * pictures_count)
check_at_least("detections for each object", found / objects, 0.8)


# %% alt="Two scenes side by side, their truth above and the imperfect detections below: the objects are found with outlines a pixel or two too narrow or too wide, and beside them are masks where there is nothing."
def with_boxes(side):
    """The same with the boxes around the masks, for drawing."""
    places = [mask.nonzero() for mask in side["masks"]]
    corners = [[*p.amin(0).flip(0).tolist(), *(p.amax(0).flip(0) + 1).tolist()] if len(p) else [0] * 4 for p in places]  # fmt: skip
    return {**side, "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)}


fig, axes = show.grid(2, 2, "Truth, and a detector's answer", width=2.8)
for column, index in enumerate((0, 1)):
    for row, (side, title) in enumerate(zip(pictures[index][::-1], ("truth", "detections"), strict=True)):  # fmt: skip
        image = scenes[index]["image"]
        show.instances(axes[row, column], image, with_boxes(side), title, num_classes=6)

# %% [markdown]
# The rule for a set: **match within each picture, then throw all detections of a class into one list**, put it in order of score, and draw *one* curve. Each class has a curve and an AP; the AP of the set is the mean over the classes that have an object.


# %%
def matched(detections, truth, label, threshold):
    """Scores and hits of one class in one picture, in falling order of score."""
    mine = (detections["labels"] == label).nonzero()[:, 0]
    mine = mine[detections["scores"][mine].argsort(descending=True, stable=True)]
    theirs = truth["masks"][truth["labels"] == label]
    iou = pairwise_iou(detections["masks"][mine], theirs)
    return detections["scores"][mine], match(iou, threshold) >= 0


def class_ap(pictures, label, threshold):
    """AP of one class over all pictures: matched singly, put in order together."""
    found = [matched(detections, truth, label, threshold) for detections, truth in pictures]
    scores, hits = (torch.cat(part) for part in zip(*found, strict=True))
    objects = sum((truth["labels"] == label).sum().item() for _, truth in pictures)
    return average_precision(hits[scores.argsort(descending=True, stable=True)], objects)


# %%
metric = InstanceAP()
for detections, truth in pictures:
    metric.update(detections, truth)
summary = metric.summary()
labels = sorted({label for truth in truths for label in truth["labels"].tolist()})
thresholds = np.linspace(0.5, 0.95, 10).tolist()
ours = torch.tensor([[class_ap(pictures, c, t) for t in thresholds] for c in labels])
check("AP50 as in the package", ours[:, 0].mean(), summary["AP50"], tol=1e-6)
check("AP as in the package", ours.mean(), summary["AP"], tol=1e-6)
check("each class's AP", ours.mean(1), list(metric.per_class().values()), tol=1e-6)

# %% [markdown]
# ### The same from pycocotools
#
# The reference program reads two lists of dictionaries, as COCO's files hold them: annotations and results. Note two habits of it: a box is corner *and sides*, and annotation ids must not be 0 (section 9 shows why).


# %%
def annotations(pictures, side, first_id=1):
    """COCO's list of dictionaries for the detections (side 0) or the objects (side 1)."""
    listed = []
    for number, picture in enumerate(pictures):
        for n, mask in enumerate(run_lengths(picture[side]["masks"])):
            entry = {"image_id": number, "category_id": picture[side]["labels"][n].item()}
            entry |= {"id": len(listed) + first_id, "segmentation": mask}
            if side == 1:
                entry |= {"iscrowd": 0, "area": float(peer.area(mask))}
            else:
                entry |= {"score": picture[side]["scores"][n].item()}
            listed.append(entry)
    return listed


# %%
def coco_eval(pictures, first_id=1):
    """The twelve numbers of pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a lot
        truth = COCO()
        sizes = {"height": image_size, "width": image_size}
        truth.dataset = {
            "images": [{"id": number, **sizes} for number in range(len(pictures))],
            "annotations": annotations(pictures, 1, first_id),
            "categories": [{"id": label} for label in range(1, len(CLASSES))],
        }
        truth.createIndex()
        results = truth.loadRes(annotations(pictures, 0))
        evaluation = COCOeval(truth, results, "segm")
        [step() for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize)]
    return evaluation.stats


# %% tags=["nbval-ignore-output"]
theirs = coco_eval(pictures)
check("largest difference of the twelve", abs(theirs - list(summary.values())).max(), 0, tol=1e-9)
for name, value in summary.items():
    print(f"{name:>6} {value:6.3f}")

# %% [markdown]
# Twelve numbers: AP over all thresholds, at 0.50 and at 0.75; AP of small, medium and large objects; AR with at most 1, 10 and 100 detections *of a class in a picture*; AR of the three sizes. A number for which there is no object is $-1$, which is pycocotools' word for "none", and must not go into a mean.
#
# ### Under a moving threshold
#
# **Predict:** as $\tau$ rises from 0.5 to 0.95, what happens to the right end of the curve, the recall, and to its left end?

# %% alt="Left: precision against recall of discs at IoU 0.75, dots joined by a thin line under a stepped blue curve with its area shaded. Right: AP of the class at the ten thresholds, which never rises and drops steeply towards 0.95, with a red dot at 0.75 and a dashed line at the mean."
figure = widgets.plot_precision_recall(metric, labels[0], 0.75, name=CLASSES[labels[0]])

# %% tags=["nbval-ignore-output"] alt="The same figure with a choice of the class and a slider for the IoU threshold."
widgets.explore_precision_recall(metric, CLASSES)

# %% [markdown]
# A hit at a high threshold was one at a lower: rising $\tau$ turns hits into false alarms, and found objects into missed ones. (Almost: since matching is greedy, a detection may be pushed to another object. Ours does not show it.) So the curve shrinks from the right *and* sinks.

# %%
falls = np.diff([metric.curve(labels[0], t).recall[-1] for t in thresholds])
check_at_most("recall at the end never rises with the threshold", falls, 1e-12)
mean_ap = ours.mean(0)
check_at_least("AP50 above AP95 by", mean_ap[0] - mean_ap[-1], 0.3)

# %% [markdown]
# ## 5. Crowds and sizes: what does not count
#
# Some truth is neither object nor ground. In a photograph of a stadium nobody outlines each face; COCO draws one region and calls it a **crowd** (`iscrowd`). A detection inside it may be right. So it should neither win nor lose:
#
# - the overlap with a crowd is the share of the *detection* that lies in it, $|d \cap g| / |d|$, since a face is a small part of a stadium;
# - any number of detections may match one crowd;
# - a detection matched to a crowd is taken out of the list. A crowd that nobody finds is not missed.
# - A real object is preferred: a crowd is taken only if no free object will do.
#
# By hand: make B a crowd, pixels 4 to 7. Detection 3, pixels 4 to 6, lies inside it: out of the list. Left are the hits $(1, 0, 1, 0)$ for two objects, A and C. **Predict:** the AP, at $\tau = 0.5$.

# %%
crowd_metric = InstanceAP()
crowd_truth = {"masks": true_masks, "labels": one_class[:3], "iscrowd": [0, 1, 0]}
crowd_metric.update({"masks": masks, "scores": scores, "labels": one_class}, crowd_truth)
curve = crowd_metric.curve(1)
check("precision without detection 3", curve.precision, [1, 1 / 2, 2 / 3, 1 / 2], tol=1e-12)
check("AP50: 51 recalls at 1, 50 at 2/3", curve.ap, (51 + 50 * 2 / 3) / 101, tol=1e-12)
check("share of detection 3 in the crowd", mask_iou(masks, true_masks, np.array([0, 1, 0]))[2, 1], 1.0)  # fmt: skip

# %% [markdown]
# Sizes work the same way. **Small** is an area up to $32^2$ pixels, **medium** up to $96^2$, **large** above. For AP of the small, everything else is treated like a crowd: an object of another size is nobody's fault; a detection matched to one is left out. So is an *unmatched* detection whose own area is of another size. An area of exactly $32^2$ is both small and medium.
#
# The sizes are in *pixels*, whatever the picture. **Predict:** the scenes of this chapter are 96 pixels wide. How many of their objects are large?

# %%
areas = torch.cat([truth["masks"].sum(dim=(1, 2)) for truth in truths])
check("large ones", (areas > 96**2).sum(), 0)
check("so there is no AP of the large", summary["APl"], -1)
check_at_least("share of the small ones", (areas <= 32**2).double().mean(), 0.5)
both = InstanceAP("box")
corner = {"boxes": [[0, 0, 32, 32]], "labels": [1]}  # 1,024 pixels
both.update({**corner, "scores": [1.0]}, corner)
check("found as small, and as medium", [both.summary()[key] for key in ("APs", "APm")], [1, 1])

# %% [markdown]
# Rescale your pictures, and "small" means something else. APs of a model at 400 pixels and of one at 800 are scores of different sets.
#
# ## 6. What AP does not see
#
# ### Only the order
#
# Nothing in AP looks at a score but the sorting. **Predict:** replace each score by $s^5$, or by $s / 1000$. What happens to AP, and what to the number of detections with a score above one half?


# %%
def rescored(pictures, change):
    """The same detections with other scores."""
    return [({**d, "scores": change(d["scores"].double())}, truth) for d, truth in pictures]


# %%
def score(pictures):
    """The twelve numbers."""
    metric = InstanceAP()
    for detections, truth in pictures:
        metric.update(detections, truth)
    return metric.summary()


timid = rescored(pictures, lambda s: s / 1000)
check("AP of the fifth power", score(rescored(pictures, lambda s: s**5))["AP"], summary["AP"], tol=1e-12)  # fmt: skip
check("AP of a thousandth", score(timid)["AP"], summary["AP"], tol=1e-12)
sure = [sum((d["scores"] > 0.5).sum().item() for d, _ in p) for p in (pictures, timid)]
check_at_least("detections above one half, before", sure[0], pictures_count)
check("and after", sure[1], 0)

# %% [markdown]
# A detector that is never surer than 0.1 % has the same AP as one that is rightly sure. Whether its scores mean anything, its **calibration** (校准, [chapter 08](08_metrics.ipynb)), cannot be read from AP. And whoever uses a detector must cut somewhere: "show what scores above 0.5" gives something or nothing, at equal AP.
#
# ### What stands below
#
# Give every picture twenty more detections, nonsense, with scores below all others. **Predict:** does AP fall? And what share of what the detector now says is right?


# %%
def with_nonsense(pictures, count, generator):
    """Each picture with `count` random rectangles, less sure than everything else."""
    spoilt = []
    for detections, truth in pictures:
        ends = torch.randint(image_size, (2, 2, count), generator=generator).sort(0).values
        place = torch.arange(image_size)
        rows, columns = ((a[:, None] <= place) & (place <= b[:, None]) for a, b in ends.unbind(1))
        masks = torch.cat([detections["masks"], rows[:, :, None] & columns[:, None]])
        labels = torch.randint(1, 6, (count,), generator=generator)
        labels = torch.cat([detections["labels"], labels])
        low = 1e-3 * torch.rand(count, generator=generator)
        scores = torch.cat([1 + detections["scores"], low])
        spoilt.append(({"masks": masks, "labels": labels, "scores": scores}, truth))
    return spoilt


# %% tags=["nbval-ignore-output"]
nonsense = with_nonsense(pictures, 20, generator)
spoilt = score(nonsense)
check_at_least("AP rises by", spoilt["AP"] - summary["AP"], -1e-12)
check_at_least("AR rises by", spoilt["AR100"] - summary["AR100"], -1e-12)
honest, noisy = (sum(len(d["labels"]) for d, _ in p) for p in (pictures, nonsense))
check_at_least("answers, times as many", noisy / honest, 3)

# %% [markdown]
# It *cannot* fall: the interpolated precision at each recall is the best that can be had with that recall or more, and the detections above are still there (as long as there are at most 100 of a class in a picture: those below are cut off). A random rectangle that hits something by luck even raises it. Hence programs that hand in 100 detections a picture, down to scores of 0.001: AP asks for it. Nobody would show that to a user.
#
# ### AP and F1
#
# A user sees *one* cut. For a fixed least score $c$, the **F1 score** is $F_1 = 2PR/(P + R) = 2 H_c / (D_c + G)$: $D_c$ detections have a score of at least $c$, and $H_c$ of them are hits; $P$ and $R$ are the precision and recall there. By hand: two detectors, one class, one object in each of two pictures.
#
# | | scores of hits | scores of false alarms | AP50 | F1 at $c = 0.5$ |
# |---|---|---|---|---|
# | X | 0.9, 0.8 | 0.7, 0.6 | 1 | $2 \cdot 2 / (4 + 2) = 2/3$ |
# | Y | 0.9, 0.6 | 0.7 | $(51 + 50 \cdot \tfrac23)/101 = 0.835$ | $2 \cdot 2/(3 + 2) = 4/5$ |
#
# **Which is the better detector?** AP says X; the user with $c = 0.5$ says Y. X needs a better cut, 0.75, where its F1 is 1; Y ranks a false alarm above a hit, and no cut mends that.


# %%
def f1(hits, scores, objects, least):
    """F1 score of the detections with a score of at least `least`."""
    shown = scores >= least
    return (2 * (hits & shown).sum() / (shown.sum() + objects)).item()


x = torch.tensor([True, True, False, False]), torch.tensor([0.9, 0.8, 0.7, 0.6])
y = torch.tensor([True, False, True]), torch.tensor([0.9, 0.7, 0.6])
check("AP of X", average_precision(x[0], 2), 1.0, tol=1e-12)
check("AP of Y", average_precision(y[0], 2), (51 + 50 * 2 / 3) / 101, tol=1e-12)
check("F1 of X at 0.5", f1(*x, 2, 0.5), 2 / 3, tol=1e-6)
check("F1 of Y at 0.5", f1(*y, 2, 0.5), 4 / 5, tol=1e-6)
check("F1 of X at 0.75", f1(*x, 2, 0.75), 1.0, tol=1e-6)
check("the best F1 of Y", max(f1(*y, 2, c) for c in (0.9, 0.7, 0.6)), 4 / 5, tol=1e-6)

# %% [markdown]
# ### What the mean over classes hides
#
# AP is a mean over classes, and a class counts as one, however many objects it has. **Predict:** a set has 99 cars and 1 bus. A detector finds all cars and not the bus. What share of the objects does it find, and what is its AP? And if it finds the bus, and half of the cars?


# %%
def cars_and_bus(cars, buses):
    """AP and share of objects found, with perfect masks for that many of 99 cars and 1 bus."""
    boxes = [[10 * n, 0, 10 * n + 10, 10] for n in range(100)]
    chosen = [*range(cars), *([99] if buses else [])]
    labels = [1] * 99 + [2]
    metric = InstanceAP("box")
    detections = {"boxes": [boxes[n] for n in chosen], "labels": [labels[n] for n in chosen]}
    truth = {"boxes": boxes, "labels": labels}
    metric.update({**detections, "scores": [1.0] * len(chosen)}, truth)
    return metric.summary()["AP"], len(chosen) / 100


check("all cars, no bus: AP, share", cars_and_bus(99, 0), [0.5, 0.99], tol=1e-9)
check("half of the cars, the bus: AP, share", cars_and_bus(50, 1), [(51 / 101 + 1) / 2, 0.51], tol=1e-9)  # fmt: skip

# %% [markdown]
# The second finds half as much and has the higher AP, 0.752 against 0.5. That may be what you want: rare classes are not less important. But look at `per_class()` and at the numbers of objects before you believe a difference, and do not be surprised when a class with three objects moves the mean by a percent from one run to the next.
#
# ## 7. Panoptic quality
#
# A panoptic answer is another kind of thing: *one* id a pixel, no overlaps, no scores, and the ground, the sky, the road are there as well. **Things** (可数物体) are counted, each object a **segment**; of **stuff** (不可数背景) each class is one segment. Kirillov et al. (2019) made a score for it that needs no list.
#
# ### Matching without a rule
#
# Call a predicted and a true segment of one class a **match** if their IoU is above one half. Here the choice is made by arithmetic: *a segment has at most one match.* Suppose two predicted segments $a$ and $b$ both matched the true $t$. As $|a \cup t| \ge |t|$,
#
# $$\tfrac12 < \frac{|a \cap t|}{|a \cup t|} \le \frac{|a \cap t|}{|t|} \quad\Rightarrow\quad |a \cap t| > \tfrac12 |t|, \qquad \text{and likewise} \quad |b \cap t| > \tfrac12 |t|.$$
#
# But $a$ and $b$ share no pixel, so together they would cover more of $t$ than there is. The same holds with the roles changed. No order, no scores, no greed.
#
# With $\mathrm{TP}$ matches, $\mathrm{FP}$ predicted and $\mathrm{FN}$ true segments left over, **panoptic quality** (全景质量) of a class is
#
# $$\mathrm{PQ} = \frac{\sum_{(a, t) \text{ match}} J_{at}}{\mathrm{TP} + \tfrac12 \mathrm{FP} + \tfrac12 \mathrm{FN}} = \underbrace{\frac{\sum J_{at}}{\mathrm{TP}}}_{\mathrm{SQ}} \cdot \underbrace{\frac{\mathrm{TP}}{\mathrm{TP} + \tfrac12 \mathrm{FP} + \tfrac12 \mathrm{FN}}}_{\mathrm{RQ}}.$$
#
# **Segmentation quality** SQ is the mean IoU of what was found; **recognition quality** RQ is the F1 score. The denominator is simply the mean number of segments: TP + FP is all the predicted ones, TP + FN all the true ones, so it is $(|\text{predicted}| + |\text{true}|)/2$.
#
# By hand, on the row of twelve pixels: the ids are class $\cdot$ 1000 + number, things have class 1, the ground is class 0. Where masks overlap, the surer one has the pixel; detections below 0.5 are left out.
#
# | pixel | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 |
# |---|---|---|---|---|---|---|---|---|---|---|---|---|
# | truth | A | A | A | A | B | B | B | B | 0 | C | C | C |
# | predicted | 1 | 1 | 1 | 1 | 3 | 3 | 3 | 0 | 4 | 4 | 4 | 4 |
#
# Detection 2 has no pixel left: it is gone. The matches are A (IoU 1), B (3/4) and C (3/4), and nothing is left over: $\mathrm{SQ} = 2.5/3$, $\mathrm{RQ} = 1$. **Predict:** what is the PQ of the ground?


# %%
def panoptic_map(detections, least=0.5):
    """One id a pixel, class * 1000 + n; the surer one has it, and the ground has what is left."""
    ids = torch.zeros(detections["masks"].shape[1:], dtype=torch.int64)
    for n in detections["scores"].argsort(descending=True, stable=True).tolist():
        if detections["scores"][n] >= least:
            ids[detections["masks"][n] & (ids == 0)] = 1000 * detections["labels"][n] + n + 1
    return ids


row_truth = panoptic_map({"masks": true_masks, "labels": one_class[:3], "scores": torch.ones(3)})
row_answer = panoptic_map({"masks": masks, "labels": one_class, "scores": scores})
check("the truth's ids", row_truth[0], [1001] * 4 + [1002] * 4 + [0] + [1003] * 3)
check("the answer's", row_answer[0], [1001] * 4 + [1003] * 3 + [0] + [1004] * 4)


# %%
def matching_ious(prediction, target, label):
    """IoUs of the matches of one class, and its numbers of predicted and of true segments."""
    sides = [[i for i in ids.unique() if i // 1000 == label] for ids in (prediction, target)]
    ious = []
    for p in sides[0]:
        for t in sides[1]:
            common = ((prediction == p) & (target == t)).sum()
            iou = common / ((prediction == p) | (target == t)).sum()
            ious += [iou.item()] if iou > 0.5 else []
    return ious, len(sides[0]), len(sides[1])


# %%
def quality(ious, predicted, true):
    """PQ, SQ and RQ of one class from `matching_ious`; SQ is 0 where nothing matched."""
    rq = len(ious) / ((predicted + true) / 2)
    sq = sum(ious) / len(ious) if ious else 0.0
    return sq * rq, sq, rq


# %%
check("things: PQ, SQ, RQ", quality(*matching_ious(row_answer, row_truth, 1)), [2.5 / 3, 2.5 / 3, 1], tol=1e-6)  # fmt: skip
check("ground: PQ, SQ, RQ", quality(*matching_ious(row_answer, row_truth, 0)), [0, 0, 0])
row_quality = PanopticQuality(things=[1], stuff=[0])
row_quality.update(row_answer, row_truth)
check("the package's PQ, ground and things", row_quality.pq(), [0, 2.5 / 3], tol=1e-6)
check("their mean", row_quality.summary()["PQ"], 1.25 / 3, tol=1e-6)

# %% [markdown]
# The ground has one pixel, and it was put elsewhere: IoU 0, so one segment too many and one missed, PQ 0. It counts as much as the three objects together. PQ is a mean over classes and has the same habit as AP: small classes weigh as much as large ones.
#
# torchmetrics has the score as well; ours agrees with it, on pictures.


# %%
def pair_of(ids):
    """torchmetrics' form: class and number of each pixel."""
    return torch.stack([ids // 1000, ids % 1000], dim=-1)[None]


things, stuff = range(1, 6), [0]
target_maps = [panoptic_map({**truth, "scores": torch.ones(len(truth["labels"]))}) for truth in truths]  # fmt: skip
answer_maps = [panoptic_map(detections) for detections, _ in pictures]
quality_metric = PanopticQuality(things, stuff)
library = PeerQuality(set(things), {0}, return_per_class=True)
for answer, target in zip(answer_maps, target_maps, strict=True):
    quality_metric.update(answer, target)
    library.update(pair_of(answer), pair_of(target))
check("each class's PQ", quality_metric.pq().nan_to_num()[[*things, 0]], library.compute()[0], tol=1e-6)  # fmt: skip

# %% [markdown]
# ### Void and crowds
#
# Where the truth says nothing, nobody can be wrong. Two rules of the paper (section 4), for pixels that are void:
#
# 1. they are taken *out of the predicted segments* before the IoU;
# 2. a predicted segment without a match that lies by more than half in void is no false alarm.
#
# Crowds are milder: their pixels stay in the IoU, but a leftover segment that lies by more than half in a crowd *of its own class* is no false alarm.
#
# **Predict:** the truth has a car on two pixels and void on two more. The prediction has the car on all four. With and without rule 1, is it a match?


# %%
def counts(prediction, target, crowd=None):
    """Matched, false and missed segments of class 1."""
    metric = PanopticQuality(things=[1, 2], stuff=[0])
    metric.update(torch.tensor([prediction]), torch.tensor([target]), crowd)
    return [metric.matched[1].item(), metric.false[1].item(), metric.missed[1].item()]


void = IGNORE
check("rule 1: a match, IoU 2/2", counts([1001] * 4, [1001, 1001, void, void]), [1, 0, 0])
check("ground in place of void: IoU 2/4, none", counts([1001] * 4, [1001, 1001, 0, 0]), [0, 1, 1])
check("rule 2: three of four in void", counts([1001] * 4, [0, void, void, void]), [0, 0, 0])
own, other = (torch.tensor([[void, c, c, c]]) for c in (1, 2))
check("in a crowd of its class", counts([1001] * 4, [0, void, void, void], own), [0, 0, 0])
check("in a crowd of another class", counts([1001] * 4, [0, void, void, void], other), [0, 1, 0])

# %% [markdown]
# ## 8. Seven ways to be wrong
#
# Now let the scores judge. Take perfect detections of all scenes, and spoil them in one way at a time. **Predict**, for each row, which numbers fall far, and which do not move. Semantic IoU is there for comparison: the mean IoU of chapter 08, of the classes alone.


# %%
def spoil(truth, kind):
    """Perfect detections with one kind of mistake."""
    masks, labels = truth["masks"], truth["labels"]
    third = torch.arange(len(labels)) % 3 == 0
    if kind == "grown by 2":
        masks = grown(masks, 2)
    if kind == "a third missed":
        masks, labels = masks[~third], labels[~third]
    if kind == "a third misnamed":
        labels = torch.where(third, labels % 5 + 1, labels)
    if kind == "one per class":
        kinds = labels.unique()
        masks, labels = torch.stack([masks[labels == c].any(0) for c in kinds]), kinds
    return {"masks": masks, "labels": labels, "scores": torch.full((len(labels),), 0.9)}


# %%
def add(found, masks, labels, score):
    """More detections, all with one score."""
    more = {"masks": masks, "labels": labels, "scores": torch.full((len(labels),), score)}
    return {key: torch.cat([value, more[key]]) for key, value in found.items()}


# %%
def answers(truth, kind):
    """As `spoil`, and the kinds that add something."""
    found = spoil(truth, kind)
    moved = torch.roll(truth["masks"], (image_size // 2, image_size // 2), (1, 2))
    if kind == "each twice":
        found = add(found, truth["masks"], truth["labels"], 0.6)
    if kind == "ghosts, sure":
        found = add(found, moved, truth["labels"], 1.0)
    if kind == "ghosts, unsure":
        found = add(found, moved, truth["labels"], 0.1)
    return found


# %%
def judged(pictures):
    """Semantic IoU, F1 at IoU 0.5 and score 0.5, AP50, AP, PQ, SQ and RQ of the things."""
    confusion, panoptic = ConfusionMatrix(len(CLASSES)), PanopticQuality(things, stuff)
    hits, shown = 0, 0
    for detections, truth in pictures:
        target = panoptic_map({**truth, "scores": torch.ones(len(truth["labels"]))})
        answer = panoptic_map(detections)
        confusion.update(answer // 1000, target // 1000)
        panoptic.update(answer, target)
        for label in things:
            scores, hit = matched(detections, truth, label, 0.5)
            hits, shown = hits + (hit & (scores >= 0.5)).sum(), shown + (scores >= 0.5).sum()
    ap, pq = score(pictures), panoptic.summary()
    return [confusion.mean_iou(), (2 * hits / (shown + objects)).item(), ap["AP50"], ap["AP"], *(pq[key] for key in ("PQ_th", "SQ_th", "RQ_th"))]  # fmt: skip


# %% alt="A table of eight kinds of answers by seven scores, each cell with its number and a colour from dark blue for the lowest to yellow for 1. The row of perfect answers is 1 throughout. Grown outlines lower AP and SQ; merged objects leave the semantic IoU at 1 and lower everything else; unsure ghosts and doubles leave AP and PQ at 1."
kinds = ["perfect", "grown by 2", "a third missed", "a third misnamed", "one per class", "each twice", "ghosts, unsure", "ghosts, sure"]  # fmt: skip
columns = ["semantic\nIoU", "F1", "AP50", "AP", "PQ", "SQ", "RQ"]
table = [judged([(answers(truth, kind), truth) for truth in truths]) for kind in kinds]
fig, [ax] = show.grid(1, 1, width=7.5, height=4.2)
show.numbers(ax, torch.tensor(table), "Which score sees which mistake")
ax.set(xticks=range(7), xticklabels=columns, yticks=range(8), yticklabels=kinds, aspect="auto")
judgement = {kind: dict(zip(("semantic", *columns[1:]), row, strict=True)) for kind, row in zip(kinds, table, strict=True)}  # fmt: skip
check("perfect: all", table[0], 1.0, tol=1e-6)

# %% [markdown]
# Read it row by row.
#
# - **Outlines two pixels too wide.** AP50 and RQ lose a little: the smallest objects, for which two pixels are half of the area. AP loses most of its value, through its higher thresholds; SQ sees outlines directly.
# - **One mask for each class.** The semantic IoU is *perfect*: it knows no objects. AP and PQ do, and fall wherever a picture has two of a kind. This is the whole reason for instance scores.
# - **Each object twice**, the second with 0.6. AP is 1: all doubles stand below all hits. PQ is 1: the doubles have no pixel left. F1 is 2/3, as a user would say.
# - **Ghosts with a score of 0.1** are below every cut and every hit. **Ghosts with a score of 1** are at the top of the list: AP sinks to about a half, since no recall can be had without them. PQ loses pixels to them as well.
# - **A third misnamed** is worse than a third missed, in all scores: each is a missed object *and* a false alarm.

# %%
wide, merged, twice = (judgement[kind] for kind in ("grown by 2", "one per class", "each twice"))
check_at_least("wide: AP falls further than AP50, by", wide["AP50"] - wide["AP"], 0.15)
check_at_most("wide: SQ", wide["SQ"], 0.85)
check_at_most("wide: AP", wide["AP"], 0.5)
check("one per class: semantic IoU", merged["semantic"], 1.0, tol=1e-9)
check_at_most("one per class: AP and PQ", [merged["AP"], merged["PQ"]], 0.85)
check("each twice: AP, PQ", [twice["AP"], twice["PQ"]], [1, 1], tol=1e-6)
check("each twice: F1", twice["F1"], 2 / 3, tol=1e-6)
check("unsure ghosts: all scores", table[6], 1.0, tol=1e-6)
check("sure ghosts: AP", judgement["ghosts, sure"]["AP"], 0.5, tol=0.1)
missed, misnamed = (judgement[kind] for kind in ("a third missed", "a third misnamed"))
for key in ("semantic", "F1", "AP", "PQ"):
    check_at_least(f"missed less misnamed, {key}", missed[key] - misnamed[key], 0.02)

# %% [markdown]
# ### AP or PQ?
#
# | | AP | PQ |
# |---|---|---|
# | answer | a list of masks with scores; overlaps allowed | one id a pixel |
# | confidence | the order of the scores, nothing else | none: the cut has been made |
# | matching | greedy, by score, at ten thresholds | unique, at IoU above 0.5 |
# | a better outline | counts when it passes a threshold | counts at once, in SQ |
# | below IoU 0.5 | nothing | nothing |
# | stuff | none | like a thing |
# | unsure nonsense | costs nothing | costs, if it passes the cut |
#
# ## 9. What goes wrong
#
# ### AP of each picture, averaged
#
# It is tempting to score each picture and take the mean; a loop over a loader does it by itself. **Predict:** two pictures of one object each. In the first a hit scores 0.3. In the second a false alarm scores 0.9 and a hit 0.8. What is the mean of the pictures' APs, and what the AP of the set?

# %%
one = {"scores": torch.tensor([0.3]), "hits": torch.tensor([True])}
two = {"scores": torch.tensor([0.9, 0.8]), "hits": torch.tensor([False, True])}
each = [average_precision(picture["hits"], 1) for picture in (one, two)]
together = {key: torch.cat([one[key], two[key]]) for key in one}
order = together["scores"].argsort(descending=True)
check("the mean of 1 and 1/2", sum(each) / 2, 3 / 4, tol=1e-12)
check("AP of both", average_precision(together["hits"][order], 2), 2 / 3, tol=1e-12)

# %% [markdown]
# Within one picture, scores are compared with one another only. The set asks more: that 0.3 *here* and 0.9 *there* mean the same. A detector whose scores are lower on dark pictures loses AP on the set and nothing on the mean. Which way the two differ is not fixed; they are different questions, and papers answer the second.
#
# ### Matching in the order of the list
#
# Whoever forgets to sort before matching lets the first in the list choose first. Then it is often the wrong one of two doubles that is the hit. Here each object has two equal detections: an unsure one, listed first, and a sure one.

# %%
doubled = [answers(truth, "each twice") for truth in truths]
unsorted, in_order = [], []
for detections, truth in zip(doubled, truths, strict=True):
    back = torch.arange(len(detections["labels"])).flip(0)  # the unsure ones first
    table_of = pairwise_iou(detections["masks"], truth["masks"])
    unsorted.append((detections["scores"][back], match(table_of[back], 0.5) >= 0))
    in_order.append((detections["scores"], match(table_of, 0.5) >= 0))
for name, found, want in (("sorted", in_order, 1.0), ("as listed", unsorted, 0.5)):
    all_scores, all_hits = (torch.cat(part) for part in zip(*found, strict=True))
    ap = average_precision(all_hits[all_scores.argsort(descending=True, stable=True)], objects)
    check(f"AP50 with matching {name}", ap, want, tol=1e-9)

# %% [markdown]
# From 1.0 to 0.5, and no message. The sure detections came second to objects that were taken, and stand as false alarms at the top of the list.
#
# ### Forgetting crowds
#
# Without the flag, a crowd is one huge object that nobody finds, and everything in it is a false alarm. **Predict:** one object, found with a score of 0.5, and a crowd with eight sure detections in it.

# %%
place = torch.arange(64)
people = torch.stack([(8 * n <= place) & (place < 8 * n + 8) for n in range(8)])[:, None]
stadium = (place < 64)[None, None]
lone = torch.ones(1, 1, 64, dtype=torch.bool)
view = lambda left, right: torch.cat([left, right], dim=2)  # noqa: E731 - crowd left, object right
nothing = torch.zeros_like
found = torch.cat([view(people, nothing(people)), view(nothing(lone), lone)])
seen = {"masks": found, "labels": [1] * 9, "scores": [0.9] * 8 + [0.5]}
true = torch.cat([view(stadium, nothing(stadium)), view(nothing(lone), lone)])
for name, flags, want in (("with", [1, 0], 1.0), ("without", [0, 0], 51 / 101 / 9)):
    metric_of = InstanceAP()
    metric_of.update(seen, {"masks": true, "labels": [1, 1], "iscrowd": flags})
    check(f"AP50 {name} the flag", metric_of.summary()["AP50"], want, tol=1e-9)

# %% [markdown]
# Export tools that drop `iscrowd` lower every score they touch, and those of good detectors most.
#
# ### A tidy list
#
# Cutting the list at a score of 0.5 before scoring looks like good manners. **Predict:** AP with and without.

# %%
tidy = [({key: value[d["scores"] >= 0.5] for key, value in d.items()}, t) for d, t in pictures]
check_at_least("AP lost by the cut", summary["AP"] - score(tidy)["AP"], 0.01)

# %% [markdown]
# AP of a cut list can only be lower: recall ends earlier, and every recall beyond it gives 0. Score first, cut for the user.
#
# ### An annotation with the id 0
#
# pycocotools notes for each detection the *id* of its object, and takes 0 for "none". An object that has the id 0 can be found, and its detection is a false alarm. It is an old trap for exporters that count from 0.

# %%
perfect = [(answers(truth, "perfect"), truth) for truth in truths]
check("ids from 1: AP", coco_eval(perfect)[0], 1.0, tol=1e-9)
check_at_most("ids from 0: AP", coco_eval(perfect, first_id=0)[0], 0.9999)

# %% [markdown]
# ## 10. On photographs
#
# Real truth has crowds, tiny objects, 80 classes of which a picture has three. Here is the truth of COCO's photographs, if you have them, with detections made from it: each true mask, moved by a few pixels. All twelve numbers are compared with pycocotools in the package's tests; here you see what *a few pixels* cost.

# %% tags=["nbval-ignore-output"]
if not catalog.available("coco"):
    print("COCO is not here; `segedu data get coco` downloads it.")
else:
    photos = catalog.load("coco", split="val")
    for shift in (1, 4):
        moved = InstanceAP()
        for photo in photos:
            truth = {"masks": photo["masks"].as_subclass(torch.Tensor), "labels": photo["labels"], "iscrowd": photo["crowd"]}  # fmt: skip
            answer = {"masks": torch.roll(truth["masks"], shift, 2)[~photo["crowd"]], "labels": photo["labels"][~photo["crowd"]]}  # fmt: skip
            moved.update({**answer, "scores": torch.ones(len(answer["labels"]))}, truth)
        found = moved.summary()
        print(f"moved by {shift}:", {key: round(found[key], 3) for key in ("AP", "AP50", "APs", "APm", "APl")})  # fmt: skip

# %% [markdown]
# A move of one pixel hardly matters to a large object and much to a small one: its outline is most of it. Small objects have low AP for this reason *too*, not only because they are hard to see. And since people draw outlines that differ by a pixel or two, no detector can reach an AP of 1 on small objects.
#
# ## 11. In the article
#
# > **In the article, 1.2 and 2.1**, instance segmentation is what comes "on the basis of semantic segmentation". The only score it gives is mean IoU, with the mean of the batches' scores called the score of the set (5.2 and 5.3).
#
# Both fail here. Section 8 has the first: a mask for each class is perfect by semantic IoU, and as instances it is not an answer. Truth of one kind cannot be had from the other, nor a score. And the second is the per-picture AP of section 9 again: an average of scores is not the score of all. Two discs that touch make the point in one line:

# %%
touching = Scenes(64, size=48, seed=seed + 100, difficulty=0)
pair = next(s for s in (touching[i] for i in range(64)) if len(s["labels"].unique()) < len(s["labels"]))  # fmt: skip
pair_truth = truth_of(pair)
melted = spoil(pair_truth, "one per class")
check("objects melted into", len(melted["labels"]), len(pair_truth["labels"].unique()))
confusion = ConfusionMatrix(len(CLASSES))
everything = {**pair_truth, "scores": torch.ones(len(pair_truth["labels"]))}
confusion.update(panoptic_map(melted) // 1000, panoptic_map(everything) // 1000)
check("semantic IoU", confusion.mean_iou(), 1.0, tol=1e-9)
check_at_most("AP", score([(melted, pair_truth)])["AP"], 0.95)

# %% [markdown]
# ## 12. Three quick questions
#
# **1.** Your detector's AP50 is 0.80 and its AP is 0.35. What is it bad at: finding, or outlining?
#
# <details><summary>Answer</summary>
#
# Outlining. It finds most objects with an IoU of at least 0.5; the mean over the ten thresholds is so much lower that at the high ones there must be nearly nothing. A finer mask head, or a larger RoIAlign grid, helps; more training of the classifier does not.
#
# </details>
#
# **2.** All detections of a class have the same score. What does the AP depend on?
#
# <details><summary>Answer</summary>
#
# On the order in which they were handed in: a stable sort keeps it, pictures in the order of their ids. Give the same detections in another order, and AP may change. Equal scores are no ranking, and AP needs one.
#
# </details>
#
# **3.** A class has 10 true segments; you predict 12, and 8 match with a mean IoU of 0.9. What is the PQ?
#
# <details><summary>Answer</summary>
#
# $\mathrm{RQ} = 8 / ((12 + 10)/2) = 8/11$, $\mathrm{SQ} = 0.9$: $\mathrm{PQ} = 0.655$.
#
# </details>

# %%
check("1: the mean of AP at the other nine thresholds", (10 * 0.35 - 0.8) / 9, 0.3, tol=1e-12)
tie = torch.tensor([True, False])
check("2: hit first, false alarm first", [average_precision(t, 1) for t in (tie, tie.flip(0))], [1, 1 / 2])  # fmt: skip
check("3: PQ", quality([0.9] * 8, 12, 10)[0], 0.655, tol=5e-4)

# %% [markdown]
# ## 13. Exercises
#
# ### Exercise 1: the best cut
#
# A user can cut the list anywhere. Write the best F1 score that any cut gives, cutting after one of the detections. `hits` are in falling order of score.


# %% tags=["exercise"]
def best_f1(hits, objects):
    """The largest F1 score over all cuts; `hits` (D,) bool, `objects` 1 or more."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def f1_after_each(hits, objects):
    """F1 after each detection."""
    return 2 * hits.cumsum(0) / (torch.arange(1, len(hits) + 1) + objects)


def from_interpolated(hits, objects):
    """What one gets from the interpolated precision."""
    p, r = precision_recall(hits, objects)
    p = p.flip(0).cummax(0).values.flip(0)
    return (2 * p * r / (p + r).clamp(min=1e-9)).max().item()


exercise = Exercise(
    solution=lambda hits, objects: f1_after_each(hits, objects).max().item(),
    inputs=[
        (torch.tensor([True]), 2),
        (torch.tensor([True, False, True, True, False]), 3),
        (torch.tensor([False, True, True, False, False, True]), 6),
        (torch.tensor([True, True, True, False, False, False, False]), 5),
        (torch.tensor([False, False]), 2),
    ],
    misconceptions={
        "that is the F1 score of the whole list; a cut may be better": lambda hits, objects: (
            f1_after_each(hits, objects)[-1].item()
        ),
        "objects that were missed have to count: divide by detections and objects": lambda h, _: (
            precision_recall(h, 1)[0].max().item()
        ),
        "that is the mean of precision and recall; F1 is the harmonic mean": lambda hits, objects: (
            (sum(precision_recall(hits, objects)) / 2).max().item()
        ),
    },
)
exercise.check(best_f1)


# %% tags=["solution"]
def best_f1(hits, objects):
    """2 hits / (detections + objects) after each detection, and the largest."""
    found = hits.cumsum(0)
    shown = torch.arange(1, len(hits) + 1)
    return (2 * found / (shown + objects)).max().item()


exercise.check(best_f1)

# %% [markdown]
# ### Exercise 2: AP of a set
#
# You get for each picture the scores and hits of one class, in any order, and the number of objects in all pictures. Write the AP of the set. You may use `average_precision`.


# %% tags=["exercise"]
def set_ap(scores, hits, objects):
    """AP from lists of (D,) scores and (D,) hits, one pair a picture."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def ranked(scores, hits):
    """Hits in falling order of score."""
    return hits[scores.argsort(descending=True, stable=True)]


def some_set(seed, sizes):
    """Random scores and hits of some pictures, and a number of objects."""
    g = torch.Generator().manual_seed(seed)
    scores = [torch.rand(n, generator=g) for n in sizes]
    hits = [torch.rand(n, generator=g) < 0.5 for n in sizes]
    return scores, hits, 2 + sum(int(hit.sum()) for hit in hits)


exercise = Exercise(
    solution=lambda s, h, objects: average_precision(ranked(torch.cat(s), torch.cat(h)), objects),
    inputs=[
        ([one["scores"], two["scores"]], [one["hits"], two["hits"]], 2),
        some_set(0, [3, 5]),
        some_set(1, [4, 0, 6]),
    ],
    misconceptions={
        "the list of all pictures has to be put in order of score": lambda _, h, objects: (
            average_precision(torch.cat(h), objects)
        ),
        "the pictures were put in order one by one; scores are compared over all": lambda s, h, o: (
            average_precision(torch.cat([ranked(*x) for x in zip(s, h, strict=True)]), o)
        ),
        "the lowest scores came first": lambda s, h, objects: average_precision(
            torch.cat(h)[torch.cat(s).argsort()], objects
        ),
    },
)
exercise.check(set_ap)


# %% tags=["solution"]
def set_ap(scores, hits, objects):
    """One list, one order, one curve."""
    all_scores, all_hits = torch.cat(scores), torch.cat(hits)
    return average_precision(all_hits[all_scores.argsort(descending=True, stable=True)], objects)


exercise.check(set_ap)

# %% [markdown]
# ### Exercise 3: matching with crowds
#
# Extend `match` to crowds. For each detection give 1 for a hit, 0 for a false alarm, and -1 for one that is not counted. `iou` (D, G) has the overlap with crowds already as the share of the detection.


# %% tags=["exercise"]
def match_with_crowds(iou, crowd, threshold):
    """1, 0 or -1 for each row of `iou` (D, G), the surest first; `crowd` (G,) bool."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def verdicts(iou, crowd, threshold, *, prefer_real=True, crowd_once=False, counted=-1):
    """The rule, or a mistake in it."""
    taken, found = set(), []
    for row in iou.tolist():
        free = [
            (prefer_real and not crowd[g].item(), j, g)
            for g, j in enumerate(row)
            if j >= threshold and g not in taken
        ]
        if not free:
            found.append(0)
            continue
        g = max(free)[2]
        taken |= {g} if crowd_once or not crowd[g] else set()
        found.append(counted if crowd[g] else 1)
    return torch.tensor(found)


exercise = Exercise(
    solution=verdicts,
    inputs=[
        (torch.tensor([[0.6, 0.9]]), torch.tensor([False, True]), 0.5),
        (torch.tensor([[0.0, 1.0], [0.0, 0.8], [0.2, 0.1]]), torch.tensor([False, True]), 0.5),
        (torch.tensor([[0.7, 0.0], [0.9, 0.9], [0.0, 0.3]]), torch.tensor([False, True]), 0.6),
    ],
    misconceptions={
        "a real object is preferred, even if the crowd overlaps more": lambda *given: verdicts(
            *given, prefer_real=False
        ),
        "a crowd may be matched any number of times": lambda *given: verdicts(
            *given, crowd_once=True
        ),
        "what lies in a crowd is not counted; it is no hit": lambda *given: verdicts(
            *given, counted=1
        ),
    },
)
exercise.check(match_with_crowds)


# %% tags=["solution"]
def match_with_crowds(iou, crowd, threshold):
    """Free real objects first, then crowds, which stay free."""
    free, found = ~crowd, []
    for row in iou:
        real = torch.where(free & (row >= threshold), row, -1.0)
        if real.max() >= 0:
            free = free.clone()
            free[real.argmax()] = False
            found.append(1)
        else:
            found.append(-1 if (crowd & (row >= threshold)).any() else 0)
    return torch.tensor(found)


exercise.check(match_with_crowds)

# %% [markdown]
# ## Summary
#
# Symbols: detections $d = 1, \dots, D$ in falling order of their scores $s_d$; objects $g$, $G$ of them; IoU $J_{dg}$; threshold $\tau$; hits $h_d$; precision $P_k$ and recall $R_k$ after $k$ detections; interpolated precision $p(r)$ at the recalls $r_j$; least score $c$ with $H_c$ hits among $D_c$ detections; predicted segments $a$, $b$ and true ones $t$, with matches TP, leftovers FP and FN.
#
# $$
# \begin{aligned}
# P_k &= \frac1k \sum_{d \le k} h_d, \qquad R_k = \frac1G \sum_{d \le k} h_d, \qquad p(r) = \max_{k:\, R_k \ge r} P_k \\
# \mathrm{AP}_\tau &= \frac{1}{101} \sum_{j=0}^{100} p(j/100), \qquad \mathrm{AP} = \frac{1}{10} \sum_{\tau} \mathrm{AP}_\tau, \qquad \text{then the mean over classes} \\
# \mathrm{PQ} &= \frac{\sum_{\text{matches}} J_{at}}{\mathrm{TP} + \frac12 \mathrm{FP} + \frac12 \mathrm{FN}} = \mathrm{SQ} \cdot \mathrm{RQ}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Match within a picture, the surest first; rank over all pictures; average over recalls, thresholds, classes. Leave out crowds and other sizes, rather than count them wrong.
# 2. AP sees the order of the scores and nothing else of them. Nonsense below costs nothing, and whether a score of 0.5 means anything you have to check elsewhere.
# 3. PQ judges an answer that has been cut, pixel by pixel: SQ for outlines, RQ for finding. Semantic IoU judges neither.
#
# **To read**
#
# - T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the page "Detection evaluation" on cocodataset.org: the twelve numbers.
# - M. Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", *International Journal of Computer Vision* 88, 2010: interpolated AP at 11 points.
# - A. Kirillov, K. He, R. Girshick, C. Rother, P. Dollár, "Panoptic Segmentation", CVPR 2019, section 4: PQ, void and groups.
# - D. Hoiem, Y. Chodpathumwan, Q. Dai, "Diagnosing Error in Object Detectors", ECCV 2012: which mistakes cost how much.
#
# **Next.** The networks are right; now they should be quick. [Chapter 20](20_gpu_training.ipynb) asks where time and memory go.

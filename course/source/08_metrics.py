# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # When is a score honest?
#
# "Mean IoU 0.78." Of which pixels? Over which classes, and what of those that do not occur? The mean of many pictures' scores, or the score of them all? With another forty pictures, would it have been 0.74? Two
# libraries, given the same two masks, print different numbers under the same name, and both are right. This chapter derives the scores from one table of counts, and shows each place where an honest number turns into a flattering one.
#
# **You will be able to**
#
# - count a confusion matrix, and read accuracy, precision, recall, IoU and Dice off it;
# - say what each mean over classes, pictures or batches means, and which one papers report;
# - predict what torchmetrics and scikit-learn answer where their conventions differ;
# - measure what IoU does not see: the outline (boundary F1) and the probabilities (calibration);
# - put an interval on a score, and say whether one model beats another.
#
# *50 minutes. Before: [masks](02_masks_and_data.ipynb) for void, [edges](03_thresholds_and_edges.ipynb) for boundary scores, [overlap losses](07_overlap_losses.ipynb).*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 64  # height and width of the scenes
train_pictures = 160  # that the network learns from
test_pictures = 48  # that it is scored on
epochs = 12
resamples = 1000  # of the bootstrap
least_ratio = 2.0  # by which an interval over pictures is wider than one over pixels
least_boldness = 0.01  # by which ECE grows when the logits are multiplied by 8
least_temperature = 1.5  # that mends it
most_left = 1.0  # of that ECE, on other pictures
camvid_frames = 20  # of each split, where CamVid is

# %%
import inspect
import math
import warnings

import numpy as np
import scipy.stats
import sklearn.metrics
import torch
import torch.nn.functional as F
import torchmetrics.classification
import torchmetrics.segmentation

# %%
from segedu import show, widgets
from segedu.check import check, check_at_least, check_at_most
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.exercises import Exercise
from segedu.metrics.boundary import boundary_f1
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.unet import UNet
from segedu.palette import class_colours
from segedu.train import fit

# %%
colours = class_colours(8) / 255
num_classes = len(CLASSES)

# %% [markdown]
# ## 1. Something to score
#
# First a network that is neither good nor bad: a small U-Net ([chapter 10](10_unet.ipynb)) after a few seconds of training on scenes. We keep, for each held-out picture, its logits $z$ and its truth. Everything below is about these.

# %% tags=["nbval-ignore-output"]
train_scenes = [
    Scenes(train_pictures, size=image_size, seed=seed, difficulty=0.2)[i]
    for i in range(train_pictures)
]
test_scenes = [
    Scenes(test_pictures, size=image_size, seed=seed + 1000, difficulty=0.2)[i]
    for i in range(test_pictures)
]
torch.manual_seed(seed)
network = UNet(num_classes, widths=(16, 32, 64))
config = TrainConfig(epochs=epochs, batch_size=8, learning_rate=1e-2, seed=seed, device=device)
for epoch in fit(network, train_scenes, train_scenes[:4], num_classes=num_classes, config=config):
    print(f"epoch {epoch.number}: loss {epoch.train_loss:.3f}")

# %%
images = torch.stack([scene["image"].as_subclass(torch.Tensor) for scene in test_scenes])
truth = torch.stack([scene["mask"].as_subclass(torch.Tensor) for scene in test_scenes])  # (B, H, W)
with torch.inference_mode():
    network = network.cpu().eval()
    logits = torch.cat([network(part) for part in images.split(8)])  # (B, C, H, W)
answer = logits.argmax(1)  # (B, H, W)
labelled = truth != IGNORE
check("pictures and pixels", answer.shape, [test_pictures, image_size, image_size])

# %% tags=["nbval-ignore-output"] alt="Four held-out scenes: the picture, its true mask with white void rings, and the network's answer, which has the right places but ragged outlines and some wrong classes."
fig, axes = show.grid(3, 4, "A network that is neither good nor bad", width=2)
for i in range(4):
    show.image(axes[0, i], images[i], "picture" if i == 0 else "")
    show.mask(axes[1, i], truth[i], "truth" if i == 0 else "", num_classes=num_classes)
    show.mask(axes[2, i], answer[i], "answer" if i == 0 else "", num_classes=num_classes)
show.legend(fig, CLASSES)

# %% [markdown]
# The simplest score is **pixel accuracy** (像素准确率): the share of labelled pixels whose class is right.
#
# **Predict:** a program that answers "ground" for every pixel of every picture, without looking. What is its accuracy on these scenes?

# %% tags=["nbval-ignore-output"]
accuracy = (answer == truth)[labelled].double().mean()
blind = (truth == 0)[labelled].double().mean()
print(f"the network {accuracy:.3f}, always ground {blind:.3f}")
check_at_least("accuracy of 'always ground'", blind, 0.5)
check("of a picture with a speck: 8 of 48 x 48 pixels wrong", 1 - 8 / 48**2, 0.997, tol=5e-4)

# %% [markdown]
# More than half, for nothing. On the pictures with specks of [chapter 07](07_overlap_losses.ipynb) it is 0.997. Accuracy counts mostly the pixels on which nobody disagrees.
#
# ## 2. One table to count them all
#
# Eight pixels, three classes: ground 0, disc 1, square 2.
#
# | pixel | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |
# |---|---|---|---|---|---|---|---|---|
# | truth | 0 | 0 | 0 | 0 | 1 | 1 | 1 | 2 |
# | answer | 0 | 0 | 1 | 0 | 1 | 1 | 0 | 1 |
#
# The **confusion matrix** (混淆矩阵) $M \in \mathbb{N}^{C \times C}$ counts pixels by *true class* (row) and *predicted class* (column): $M_{ij}$ pixels are $i$ and were called $j$. By hand:
#
# $$M = \begin{pmatrix} 3 & 1 & 0 \\ 1 & 2 & 0 \\ 0 & 1 & 0 \end{pmatrix}.$$
#
# The diagonal is right, all else is wrong, and *where* it is wrong can be read: the square was taken for a disc.
#
# In code, number the $C^2$ pairs as $C \cdot \text{true} + \text{predicted}$ and count each number once. Void pixels are left out first.


# %%
def confusion(answer, truth, num_classes):
    """Pixels by true class (row) and predicted class (column); void is left out."""
    labelled = truth != IGNORE
    pair = num_classes * truth[labelled] + answer[labelled]
    return pair.bincount(minlength=num_classes**2).view(num_classes, num_classes)


eight_truth = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
eight_answer = torch.tensor([0, 0, 1, 0, 1, 1, 0, 1])
M = confusion(eight_answer, eight_truth, 3)
check("row 0", M[0], [3, 1, 0])
check("row 1", M[1], [1, 2, 0])
check("row 2", M[2], [0, 1, 0])

# %% tags=["nbval-ignore-output"]
cm = ConfusionMatrix(num_classes)
cm.update(answer, truth)
counts = confusion(answer, truth, num_classes)
check("the package has the same", counts, cm.counts)
theirs = sklearn.metrics.confusion_matrix(
    truth[labelled], answer[labelled], labels=range(num_classes)
)
check("scikit-learn, too", counts, theirs)
peer = torchmetrics.classification.MulticlassConfusionMatrix(num_classes, ignore_index=IGNORE)
check("and torchmetrics", counts, peer(answer, truth))

# %% [markdown]
# Ours, scikit-learn's and torchmetrics' have rows for the truth. Not everybody does: some textbooks and toolboxes have rows for the prediction. Section 11 shows what a mix-up does.
#
# To *look* at a matrix, divide each row by its sum: of all true pixels of this class, which share was called what?

# %% tags=["nbval-ignore-output"] alt="Confusion matrix of the network on held-out scenes, each row divided by its sum. The diagonal is brightest for ground; off the diagonal, objects are most often taken for ground or for one another."
fig, [ax] = show.grid(1, 1, width=5, height=4)
show.numbers(ax, counts / counts.sum(1, keepdim=True), "Rows: the truth. What was it called?")
ax.set(xticks=range(num_classes), yticks=range(num_classes), xlabel="answer", ylabel="truth")
ax.set_xticklabels(CLASSES, rotation=30)
ax.set_yticklabels(CLASSES)
rows = (counts / counts.sum(1, keepdim=True)).sum(1)
check("each row sums to 1", rows, 1.0, tol=1e-6)

# %% [markdown]
# ## 3. Scores of one class
#
# For class $c$ three numbers matter: the **hits** $h_c = M_{cc}$, the true pixels $t_c = \sum_j M_{cj}$ (row sum) and the predicted pixels $p_c = \sum_i M_{ic}$ (column sum).
#
# $$
# \text{recall} = \frac{h}{t}, \qquad \text{precision} = \frac{h}{p}, \qquad \text{IoU} = \frac{h}{t + p - h}, \qquad \text{Dice} = \frac{2h}{t + p}.
# $$
#
# **Recall** (召回率): which share of the class was found? **Precision** (精确率): which share of what was called so is so? IoU asks for both at once; so does Dice, which is their harmonic mean and is called F1 elsewhere.
#
# By hand from the eight pixels:
#
# | class | $h$ | $t$ | $p$ | recall | precision | IoU | Dice |
# |---|---|---|---|---|---|---|---|
# | 0 | 3 | 4 | 4 | 3/4 | 3/4 | 3/5 | 3/4 |
# | 1 | 2 | 3 | 4 | 2/3 | 2/4 | 2/5 | 4/7 |
# | 2 | 0 | 1 | 0 | 0 | 0/0 | 0 | 0 |
#
# **Predict:** class 2 was never predicted. Is its precision 0, 1 or something else?

# %%
h, t, p = M.diagonal().double(), M.sum(1).double(), M.sum(0).double()
check("recall", h / t, [3 / 4, 2 / 3, 0], tol=1e-12)
check("precision", h / p, [3 / 4, 2 / 4, math.nan], tol=1e-12)
check("IoU", h / (t + p - h), [3 / 5, 2 / 5, 0], tol=1e-12)
check("Dice", 2 * h / (t + p), [3 / 4, 4 / 7, 0], tol=1e-12)
eight = ConfusionMatrix(3)
eight.update(eight_answer, eight_truth)
for name, score in (
    ("recall", h / t),
    ("precision", h / p),
    ("iou", h / (t + p - h)),
    ("dice", 2 * h / (t + p)),
):
    check(f"the package's {name}", getattr(eight, name)(), score, tol=1e-12)

# %% [markdown]
# Something else: there is nothing to judge, so `nan`. Whoever prints a 0 or a 1 there has decided something for you (section 6).
#
# ### Dice and IoU say the same of one class
#
# Let $u = t + p - h$ be the union. Then $t + p = u + h$, and with $J = h/u$:
#
# $$\text{Dice} = \frac{2h}{u + h} = \frac{2\,h/u}{1 + h/u} = \frac{2J}{1 + J}, \qquad J = \frac{\text{Dice}}{2 - \text{Dice}}.$$
#
# A rising function of $J$: equal at 0 and 1, and Dice the larger in between, by at most 0.172. Of one class they rank all models alike. Move the disc and watch the point: it never leaves the curve.

# %% tags=["nbval-ignore-output"] alt="Two discs, the predicted one six pixels to the right of the true one: what is hit, missed and falsely predicted in three colours, and beside it the curve of Dice over IoU with the point of these discs on it."
fig = widgets.plot_overlap(right=6, down=0, radius=12)
J = torch.linspace(0, 1, 10001, dtype=torch.float64)
gap = 2 * J / (1 + J) - J
check("Dice above IoU by at most", gap.max(), 0.1716, tol=1e-4)
check("where IoU is the root of 2, less 1", J[gap.argmax()], math.sqrt(2) - 1, tol=1e-4)
check("for the network's classes", cm.dice(), 2 * cm.iou() / (1 + cm.iou()), tol=1e-12)

# %% tags=["nbval-ignore-output"]
widgets.explore_overlap()

# %% [markdown]
# **Predict:** and the *means over classes* of two models? Model A has the IoUs 1.00 and 0.20, model B 0.59 and 0.59. Which has the higher mean IoU, which the higher mean Dice?

# %%
a, b = torch.tensor([1.0, 0.20]), torch.tensor([0.59, 0.59])
check("mean IoU of A and B", torch.stack([a.mean(), b.mean()]), [0.60, 0.59], tol=1e-6)
dice_a, dice_b = (2 * j / (1 + j) for j in (a, b))
check("mean Dice of A and B", torch.stack([dice_a.mean(), dice_b.mean()]), [0.667, 0.742], tol=5e-4)

# %% [markdown]
# They disagree. The curve is bent, so Dice is kinder to the bad class than IoU relative to the good one. Say which one you use, and never compare one with the other.
#
# ## 4. Means over classes
#
# | name | formula | the eight pixels |
# |---|---|---|
# | pixel accuracy | $\sum_c h_c \big/ \sum_c t_c$ | 5/8 |
# | mean accuracy, or mean recall | mean of $h_c / t_c$ | 17/36 |
# | **mean IoU** | mean of $h_c / (t_c + p_c - h_c)$ | 1/3 |
# | frequency-weighted IoU | $\sum_c \frac{t_c}{\sum t}\, \text{IoU}_c$ | 9/20 |
#
# (The names are those of Long et al., 2015, section 5.) Mean IoU gives each class the same vote, however rare. Frequency-weighted IoU gives each *true pixel* the same vote, so it is closer to accuracy.
#
# **Predict:** can frequency-weighted IoU be *above* pixel accuracy? Compare IoU and recall of one class first.

# %%
check("pixel accuracy", eight.pixel_accuracy(), 5 / 8, tol=1e-12)
check("mean recall", eight.recall().mean(), 17 / 36, tol=1e-12)
check("mean IoU", eight.mean_iou(), 1 / 3, tol=1e-12)
check("frequency-weighted IoU", eight.frequency_weighted_iou(), 9 / 20, tol=1e-12)

# %% [markdown]
# Never: $t + p - h \ge t$, so each class's IoU is at most its recall, and the recalls weighted by $t_c$ *are* the pixel accuracy: $\sum_c \frac{t_c}{\sum t} \cdot \frac{h_c}{t_c}$.

# %% tags=["nbval-ignore-output"]
weighted_recall = (counts.sum(1).double() / counts.sum() * cm.recall()).nansum()
check("recalls, weighted by their pixels", weighted_recall, cm.pixel_accuracy(), tol=1e-9)
check_at_least(
    "accuracy above weighted IoU by", cm.pixel_accuracy() - cm.frequency_weighted_iou(), 0.0
)
print(
    f"accuracy {cm.pixel_accuracy():.3f}, weighted {cm.frequency_weighted_iou():.3f}, mean IoU {cm.mean_iou():.3f}"
)

# %% tags=["nbval-ignore-output"] alt="One bar for each of the six classes with its IoU on the held-out scenes; the ground's bar is the longest."
fig, [ax] = show.grid(1, 1, width=5, height=2.6)
show.bars(ax, cm.iou(), CLASSES, "IoU of each class: report these, not only their mean")
check("mean of the bars", cm.iou().mean(), cm.mean_iou(), tol=1e-9)

# %% [markdown]
# ## 5. The whole set, or the mean of its parts
#
# A set has many pictures, a loop has many batches. There are two ways to one number:
#
# - add up the confusion matrices of all batches, and compute IoU *once*: the **score of the set**;
# - compute IoU of each batch, and take the mean: the **mean of scores**.
#
# By hand, one class, two pictures. In the first an object of 100 pixels is found whole: IoU 1. In the second there is one stray object pixel and it is missed: IoU 0. The mean of scores is $\frac12$. The score of the set is $\frac{100}{101}$.
#
# Which is right? They answer different questions. "How much of the object pixels' union is right?" is the set's, and it is what benchmarks and papers report. "How well does a picture usually go?" is the mean over pictures; fair if each picture is one patient. But nothing is answered by a mean over
# *batches*: a batch is an accident of memory.
#
# **Predict:** the network's answers do not change. What does the mean over batches do as the batch grows from 1 picture to all 48?


# %% tags=["nbval-ignore-output"] alt="Mean IoU against the batch size. The score of the whole set is a level line; the mean of the batches' scores changes with the batch size and meets the line where one batch holds everything."
def mean_over_batches(size):
    """Mean of the batches' mean IoU, with batches of `size` pictures."""
    scores = []
    for i in range(0, test_pictures, size):
        one = ConfusionMatrix(num_classes)
        one.update(answer[i : i + size], truth[i : i + size])
        scores.append(one.mean_iou())
    return sum(scores) / len(scores)


sizes = [size for size in range(1, test_pictures + 1) if test_pictures % size == 0]
by_batch = [mean_over_batches(size) for size in sizes]
check("one batch of all: the score of the set", by_batch[-1], cm.mean_iou(), tol=1e-12)

# %% tags=["nbval-ignore-output"] alt="Mean IoU against the batch size. The score of the whole set is a level line; the mean of the batches' scores changes with the batch size and meets the line where one batch holds everything."
fig, [ax] = show.grid(1, 1, width=6, height=2.8)
ax.semilogx(sizes, by_batch, "o-", color=colours[7], label="mean over batches")
ax.axhline(cm.mean_iou(), color="black", linestyle="--", label="score of the set")
ax.set(title="The mean over batches depends on the batch", ylabel="mean IoU", xticks=sizes)
ax.set(xlabel="pictures in a batch", xticklabels=sizes)
ax.minorticks_off()
ax.legend()
check_at_least("spread of one and the same network", max(by_batch) - min(by_batch), 0.005)

# %% [markdown]
# The same weights, the same pictures, the same answers: another number for each batch size. With shuffled batches it even changes from run to run.

# %%
big, stray = torch.ones(10, 10, dtype=torch.int64), torch.zeros(10, 10, dtype=torch.int64)
stray[0, 0] = 1
pair_truth, pair_answer = torch.stack([big, stray]), torch.stack([big, torch.zeros_like(big)])
iou_of = []
for parts in ([0], [1], [0, 1]):
    one = ConfusionMatrix(2)
    one.update(pair_answer[parts], pair_truth[parts])
    iou_of.append(one.iou()[1].item())
check("IoU of picture 1, of picture 2, of both", iou_of, [1.0, 0.0, 100 / 101], tol=1e-12)

# %% [markdown]
# ## 6. Where libraries differ
#
# Three libraries, one name, several meanings. For each row there is a cell below.
#
# | what | `segedu` | torchmetrics | scikit-learn |
# |---|---|---|---|
# | IoU of a class that occurs nowhere | `nan` | 0, but left out of the macro mean | 0 with a warning, *in* the mean; not there if not listed |
# | void | 255 | `ignore_index`, none unless said | has none: remove the pixels |
# | "accuracy" | share of pixels | mean *recall* unless `average="micro"` | share of pixels |
# | mean IoU of a set | of summed counts | `MulticlassJaccardIndex`: of summed counts; `segmentation.MeanIoU`: mean over pictures | of what you give it |
# | Dice | of summed counts | `DiceScore`: mean over pictures unless `"global"` | `f1_score` |
#
# First, what they agree on.

# %% tags=["nbval-ignore-output"]
tm, sk = torchmetrics.classification, sklearn.metrics
y_true, y_pred = truth[labelled].numpy(), answer[labelled].numpy()
jaccard = tm.MulticlassJaccardIndex(num_classes, average=None, ignore_index=IGNORE)
check("IoU: torchmetrics", jaccard(answer, truth), cm.iou(), tol=1e-6)
check("IoU: scikit-learn", sk.jaccard_score(y_true, y_pred, average=None), cm.iou(), tol=1e-12)
check("Dice: scikit-learn's F1", sk.f1_score(y_true, y_pred, average=None), cm.dice(), tol=1e-12)
check("recall: scikit-learn", sk.recall_score(y_true, y_pred, average=None), cm.recall(), tol=1e-12)
precision = sk.precision_score(y_true, y_pred, average=None, zero_division=np.nan)
check("precision: scikit-learn", precision, cm.precision(), tol=1e-12)

# %% tags=["nbval-ignore-output"]
by_share = tm.MulticlassJaccardIndex(num_classes, average="weighted", ignore_index=IGNORE)
ours = cm.frequency_weighted_iou()
check("frequency-weighted IoU: torchmetrics", by_share(answer, truth), ours, tol=1e-6)
theirs = sk.jaccard_score(y_true, y_pred, average="weighted")
check("frequency-weighted IoU: scikit-learn", theirs, ours, tol=1e-12)

# %% [markdown]
# ### An absent class
#
# The eight pixels once more, with a fourth class that is neither true nor predicted anywhere. Its IoU is $0/0$. **Predict:** the mean IoU of the three others is $\frac13$. What mean does each library give for four classes?

# %%
with_absent = ConfusionMatrix(4)
with_absent.update(eight_answer, eight_truth)
check("segedu: nan", with_absent.iou()[3], math.nan)
check("its mean: over three", with_absent.mean_iou(), 1 / 3, tol=1e-12)
each = tm.MulticlassJaccardIndex(4, average=None)(eight_answer, eight_truth)
check("torchmetrics: 0", each[3], 0.0)
check(
    "its macro mean: over three, though",
    tm.MulticlassJaccardIndex(4)(eight_answer, eight_truth),
    1 / 3,
    tol=1e-6,
)
check("so it is not the mean of the four it shows", each.mean(), 1 / 4, tol=1e-6)

# %%
numpy_truth, numpy_answer = eight_truth.numpy(), eight_answer.numpy()
unlisted = sk.jaccard_score(numpy_truth, numpy_answer, average="macro")
check("scikit-learn, unlisted: over three", unlisted, 1 / 3, tol=1e-12)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    listed = sk.jaccard_score(numpy_truth, numpy_answer, average="macro", labels=range(4))
check("scikit-learn, listed: 0 is in the mean", listed, 1 / 4, tol=1e-12)
print(caught[0].category.__name__)

# %% [markdown]
# A third or a quarter, for the same answer. With 19 classes and a small test set such differences are larger than most papers' gains. Leave absent classes out, and say so. (A class that is absent in truth but *was* predicted has a union and scores 0 everywhere. That is as it should be.)
#
# ### Void

# %%
void_truth = eight_truth.clone()
void_truth[2] = IGNORE  # the pixel that was taken for a disc
with_void = ConfusionMatrix(3)
with_void.update(eight_answer, void_truth)
ignoring = tm.MulticlassJaccardIndex(3, average=None, ignore_index=IGNORE)
told = ignoring(eight_answer, void_truth)
check("torchmetrics, told to ignore 255", told, with_void.iou(), tol=1e-6)
keep = void_truth != IGNORE
removed = sk.jaccard_score(void_truth[keep], eight_answer[keep], average=None)
check("scikit-learn, pixels removed", removed, with_void.iou(), tol=1e-12)

# %%
try:
    tm.MulticlassJaccardIndex(3, average=None)(eight_answer, void_truth)
    raised = "nothing"
except RuntimeError as error:
    raised = type(error).__name__
check("torchmetrics, not told, raises", raised, "RuntimeError")
as_class = sk.jaccard_score(void_truth, eight_answer, average=None)
check("scikit-learn, pixels kept: void is a class of its own", len(as_class), 4)

# %% [markdown]
# ### Accuracy
#
# **Predict:** `MulticlassAccuracy(3)` of the eight pixels. 5/8?

# %%
default = tm.MulticlassAccuracy(3)(eight_answer, eight_truth)
check("torchmetrics' default: mean recall", default, 17 / 36, tol=1e-6)
micro = tm.MulticlassAccuracy(3, average="micro")(eight_answer, eight_truth)
check("with average='micro': pixel accuracy", micro, 5 / 8, tol=1e-6)
check("scikit-learn's accuracy", sk.accuracy_score(numpy_truth, numpy_answer), 5 / 8, tol=1e-12)
balanced = sk.balanced_accuracy_score(numpy_truth, numpy_answer)
check("its balanced accuracy: mean recall", balanced, 17 / 36, tol=1e-12)
for name in ("precision_score", "recall_score", "f1_score"):
    value = getattr(sk, name)(numpy_truth, numpy_answer, average="micro")
    check(f"{name}, 'micro': pixel accuracy again", value, 5 / 8, tol=1e-12)

# %% [markdown]
# With exclusive classes every false positive of one class is a miss of another. So "micro" precision, recall and F1 are all the pixel accuracy, under three names.
#
# ### The mean over pictures, under the name of mean IoU
#
# The two pictures of section 5, and the object's class only. **Predict:** which of the two torchmetrics gives $\frac{100}{101}$, which $\frac12$?

# %%
options = {"num_classes": 2, "include_background": False, "input_format": "index"}
mean_of_two = torchmetrics.segmentation.MeanIoU(**options)(pair_answer, pair_truth)
check("segmentation.MeanIoU: the mean of pictures", mean_of_two, 0.5, tol=1e-6)
of_set = tm.MulticlassJaccardIndex(2, average=None)(pair_answer, pair_truth)[1]
check("classification.MulticlassJaccardIndex: the set", of_set, 100 / 101, tol=1e-6)
dice_score = torchmetrics.segmentation.DiceScore
check(
    "segmentation.DiceScore: the mean of pictures",
    dice_score(**options)(pair_answer, pair_truth),
    0.5,
    tol=1e-6,
)
as_set = dice_score(**options, aggregation_level="global")(pair_answer, pair_truth)
check("with aggregation_level='global': the set", as_set, 200 / 201, tol=1e-6)

# %% [markdown]
# Neither is wrong. Before you compare with a number from somewhere else, find out which of the two it is.
#
# ## 7. What IoU does not see: the outline
#
# IoU counts area. Two answers of the same IoU may have very different outlines. A square of 20 x 20 pixels; the first answer lacks a block of 40 pixels at a corner, the second lacks 40 single pixels at its edge, two of them one pixel further in.

# %%
square = torch.zeros(40, 40, dtype=torch.int64)
square[10:30, 10:30] = 1
bitten, ragged = square.clone(), square.clone()
bitten[10:14, 10:20] = 0
rim = [(r, c) for r in range(10, 30) for c in range(10, 30) if {r, c} & {10, 29}]
every_other = [place for place in rim if sum(place) % 2 == 0]  # 38 pixels
for r, c in [*every_other, (11, 11), (28, 28)]:
    ragged[r, c] = 0
three = {"truth": square, "a corner is missing": bitten, "the edge is ragged": ragged}

# %% alt="Three masks: the true square, a square with a block of four by ten pixels missing at a corner, and a square whose edge is perforated like a stamp's. Both answers have an IoU of 0.90."
fig, axes = show.grid(1, 3, "The same IoU, two kinds of mistake", width=2.5)
for ax, (title, mask) in zip(axes, three.items(), strict=True):
    show.mask(ax, mask, title, num_classes=2)
    iou = (mask & square).sum() / (mask | square).sum()
    check(f"IoU, {title}", iou, 1.0 if mask is square else 0.9, tol=1e-6)

# %% [markdown]
# The **boundary F1** (边界 F1; Csurka et al., BMVC 2013; derived in [chapter 03](03_thresholds_and_edges.ipynb)) looks at outlines only. A pixel of a class is on its outline if a pixel above, below, left or right is not of the class. With $B$ the predicted outline, $G$ the true one, and a tolerance $\theta$ in pixels:
#
# $$\text{precision} = \frac{\#\lbrace b \in B : d(b, G) \le \theta \rbrace}{\# B}, \qquad \text{recall} = \frac{\#\lbrace g \in G : d(g, B) \le \theta \rbrace}{\# G}, \qquad F_1 = \frac{2 \cdot \text{precision} \cdot \text{recall}}{\text{precision} + \text{recall}},$$
#
# where $d(b, G)$ is the distance from a pixel to the nearest one of $G$. **Predict:** with $\theta = 1$, which of the two answers scores higher?


# %%
def outline(mask):
    """Places (n, 2) of the pixels of `mask` that have a neighbour outside it; the frame is none."""
    padded = F.pad(mask[None].double(), (1, 1, 1, 1), mode="replicate")[0]
    around = torch.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    return ((mask == 1) & (around.amin(0) == 0)).nonzero().double()


def outline_f1(answer, truth, tolerance):
    """Boundary F1 of two masks of 0 and 1, by the distances of all pairs of outline pixels."""
    distance = torch.cdist(outline(answer), outline(truth))  # (predicted, true)
    precision = (distance.amin(1) <= tolerance).double().mean()
    recall = (distance.amin(0) <= tolerance).double().mean()
    return 2 * precision * recall / (precision + recall)


# %%
check("ragged edge: within one pixel everywhere", outline_f1(ragged, square, 1), 1.0)
check_at_most("missing corner", outline_f1(bitten, square, 1), 0.93)
for tolerance in (0, 1, 2, 4):
    for mask in (bitten, ragged):
        package = boundary_f1(mask, square, tolerance)[1]
        check(
            f"the package, tolerance {tolerance}",
            package,
            outline_f1(mask, square, tolerance),
            tol=1e-9,
        )

# %% [markdown]
# The ragged one: all its mistakes lie on the outline's neighbours. So *neither* score sees everything: IoU forgave both alike, boundary F1 at $\theta = 1$ forgives the ragged edge entirely. At $\theta = 0$ it would be the other way round.
#
# The second thing that IoU does not see is size. **Predict:** a square of 4 x 4 and one of 40 x 40 pixels, both found one pixel too far to the right. IoU of each? Boundary F1 with $\theta = 1$?

# %%
for side, want in ((4, 12 / 20), (40, 40 * 39 / (40 * 41))):
    field = torch.zeros(60, 60, dtype=torch.int64)
    field[10 : 10 + side, 10 : 10 + side] = 1
    moved = field.roll(1, dims=1)
    check(f"side {side}: IoU", (moved & field).sum() / (moved | field).sum(), want, tol=1e-6)
    check(f"side {side}: boundary F1", boundary_f1(moved, field, 1)[1], 1.0)

# %% tags=["nbval-ignore-output"] alt="Boundary F1 of each class of object on the held-out scenes against the tolerance from 0 to 6 pixels: all curves rise."
tolerances = [0, 1, 2, 3, 4, 6]
curves = torch.stack([boundary_f1(answer, truth, t, num_classes=num_classes) for t in tolerances])
fig, [ax] = show.grid(1, 1, width=6, height=3)
for c in range(1, num_classes):
    ax.plot(
        tolerances, curves[:, c], "o-", color=colours[c], markeredgecolor="black", label=CLASSES[c]
    )
ax.set(
    title="A boundary score without its tolerance says nothing",
    xlabel="tolerance (pixels)",
    ylabel="boundary F1",
)
fig.legend(loc="outside right center")
check_at_least("more tolerance, no lower score", curves.nan_to_num(0).diff(dim=0), -1e-9)

# %% [markdown]
# ## 8. What no mask shows: calibration
#
# The network says *probabilities*. Chapter 06 proved that cross-entropy asks for honest ones. Is "90 % sure" right 90 times in a hundred? A model for which that holds is **calibrated** (校准). Someone who decides by probability (send to a human below 0.8, brake above 0.3) needs that, and no score of masks can see it.
#
# Take each labelled pixel's **confidence**, the largest of its $p$, and whether its class was right. Sort the pixels into bins $b$ by confidence, $n_b$ pixels in each. In a bin compare the mean confidence with the share that is right. The mean gap, weighted by pixels, is the **expected calibration error** (期望校准误差; Guo et al., ICML 2017, eq. 3):
#
# $$\text{ECE} = \sum_b \frac{n_b}{N}\, \big| \text{right}_b - \text{confidence}_b \big|.$$
#
# By hand, five pixels and two bins, up to 0.5 and above: confidences 0.4 and 0.5, one of the two right; 0.8, 0.9 and 1.0, two of the three right. The gaps are $|0.5 - 0.45| = 0.05$ and $|0.667 - 0.9| = 0.233$, so $\text{ECE} = \frac25 \cdot 0.05 + \frac35 \cdot 0.233 = 0.16$.


# %%
def reliability(confidence, right, bins=10):
    """Pixels, mean confidence and share that is right, of each bin (i/bins, (i+1)/bins]."""
    place = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    n = place.bincount(minlength=bins).double()
    said = place.bincount(confidence.double(), minlength=bins) / n
    held = place.bincount(right.double(), minlength=bins) / n
    return n, said, held


def ece(confidence, right, bins=10):
    """Expected calibration error: the mean gap between confidence and accuracy."""
    n, said, held = reliability(confidence, right, bins)
    return (n / n.sum() * (held - said).abs()).nansum()


# %%
five = torch.tensor([0.4, 0.5, 0.8, 0.9, 1.0]), torch.tensor([1, 0, 1, 1, 0])
check("five pixels, two bins", ece(*five, bins=2), 0.16, tol=1e-6)


# %% tags=["nbval-ignore-output"]
def sure_and_right(z):
    """Confidence, and whether it is right, of each labelled pixel."""
    confidence, said = z.softmax(1).max(1)
    return confidence[labelled], (said == truth)[labelled]


honest = ece(*sure_and_right(logits))
print(f"ECE of the network: {honest:.3f}")

# %% [markdown]
# torchmetrics agrees but for one detail. Its bins are $[\frac{i}{10}, \frac{i+1}{10})$, so that a confidence of exactly 1, to which float32 rounds very sure pixels, falls into an eleventh bin. A split bin cannot have a smaller gap, so its ECE is never below ours.

# %% tags=["nbval-ignore-output"]
pixels = logits.movedim(1, -1)[labelled]  # (N, C)
peer = tm.MulticlassCalibrationError(num_classes, n_bins=10)(pixels.softmax(1), truth[labelled])
confidence, right = sure_and_right(logits)
parts = [part for part in (confidence == 1, confidence < 1) if part.any()]
split = sum(part.double().mean() * ece(confidence[part], right[part]) for part in parts)
check("with exactly 1 apart: torchmetrics", split, peer, tol=2e-4)
check_at_least("torchmetrics' ECE above ours by", peer - honest, -2e-4)

# %% [markdown]
# Now make the network bold: multiply all its logits by 8. **Predict:** what changes: its masks, its IoU, its ECE?

# %% tags=["nbval-ignore-output"]
bold = 8 * logits
check("the masks are the same", bold.argmax(1), answer)
boldness = ece(*sure_and_right(bold))
check_at_least("ECE has grown by", boldness - honest, least_boldness)

# %% tags=["nbval-ignore-output"] alt="Two reliability diagrams. Left, the network: the bars of accuracy lie near the diagonal. Right, the same network with its logits multiplied by eight: the bars stay below the diagonal, so it is less often right than it says."
title = "Reliability: how often right, of those that said so?"
fig, axes = show.grid(1, 2, title, width=3.6, height=3)
middle = [i / 10 + 0.05 for i in range(10)]
for ax, z, name in zip(axes, (logits, bold), ("the network", "its logits times 8"), strict=True):
    n, said, held = reliability(*sure_and_right(z))
    ax.bar(middle, held.nan_to_num(0).tolist(), width=0.09, color=colours[2], edgecolor="black")
    ax.plot([0, 1], [0, 1], "--", color="black")
    ax.plot(said, held, "o", color=colours[7])
    ax.set(title=f"{name}: ECE {ece(*sure_and_right(z)):.3f}", xlim=(0, 1), ylim=(0, 1))
    ax.set(xlabel="confidence", ylabel="share right")
check("pixels in all bins", n.sum(), int(labelled.sum()))

# %% [markdown]
# Same masks, same IoU, other promises. Networks trained long, or with an overlap loss, are often bold in this way. The cure is one number, the **temperature** (温度) $\tau$: divide the logits by the $\tau$ that has the lowest cross-entropy *on pictures that were not trained on*, and score on others. The masks do not change, since the order of the logits does not.

# %% tags=["nbval-ignore-output"]
half = test_pictures // 2
taus = torch.logspace(-1, 1.2, 45)
losses = [F.cross_entropy(bold[:half] / tau, truth[:half], ignore_index=IGNORE) for tau in taus]
tau = taus[torch.stack(losses).argmin()]
labelled[:half] = False  # score on the other half
check_at_least("the temperature that the first half asks for", tau, least_temperature)
before, after = ece(*sure_and_right(bold)), ece(*sure_and_right(bold / tau))
check_at_most("ECE on the other half, of what it was", after / before, most_left)
labelled = truth != IGNORE
print(f"temperature {tau:.2f}; ECE from {before:.3f} to {after:.3f}")

# %% [markdown]
# ECE is no measure of quality. **Predict:** a program says for every pixel the shares of the classes in the set, whatever it sees. What is its ECE?

# %% tags=["nbval-ignore-output"]
shares = counts.sum(1) / counts.sum()  # of the true classes
useless = shares.log().view(1, -1, 1, 1).expand_as(logits)
check("ECE of the useless program", ece(*sure_and_right(useless)), 0.0, tol=1e-4)

# %% [markdown]
# Zero: perfectly calibrated and of no use. Look at both, the score of masks and the calibration. And most pixels are easy ground: a small ECE over all pixels can hide a large one on a rare class.
#
# ## 9. How sure is the score itself?
#
# Another 48 pictures, and the mean IoU would be another. By how much? We do not have other pictures. But the **bootstrap** (自助法; Efron, 1979) pretends: draw 48 pictures *with replacement* from the 48, so that some come twice and some not at all, and compute the score of that set. Do it 1000 times; between the 2.5th and the
# 97.5th percentile lie 95 % of these scores.
#
# Confusion matrices make this quick: count each picture once, then sum the matrices of those drawn.


# %% tags=["nbval-ignore-output"]
def by_picture(answer):
    """One confusion matrix for each picture: (B, C, C)."""
    pairs = zip(answer, truth, strict=True)
    return torch.stack([confusion(one, true, num_classes) for one, true in pairs])


def mean_iou(M):
    """Mean IoU of summed counts, over the last two axes; absent classes are left out."""
    M = M.double()
    h, t, p = M.diagonal(dim1=-2, dim2=-1), M.sum(-1), M.sum(-2)
    return (h / (t + p - h)).nanmean(-1)


# %% tags=["nbval-ignore-output"]
matrices = by_picture(answer)
check("all pictures: as before", mean_iou(matrices.sum(0)), cm.mean_iou(), tol=1e-12)
generator = torch.Generator().manual_seed(seed)
draws = torch.randint(test_pictures, (resamples, test_pictures), generator=generator)
scores = mean_iou(matrices[draws].sum(1))  # (resamples,)
low, high = scores.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
print(f"mean IoU {cm.mean_iou():.3f}, 95 % interval from {low:.3f} to {high:.3f}")


# %% tags=["nbval-ignore-output"]
def of_indices(index):
    """Mean IoU of the pictures with these numbers."""
    return mean_iou(matrices[torch.as_tensor(index, dtype=torch.int64)].sum(0)).item()


peer = scipy.stats.bootstrap(
    (np.arange(test_pictures),),
    of_indices,
    n_resamples=resamples,
    method="percentile",
    vectorized=False,
)
check("SciPy's lower end", peer.confidence_interval.low, low, tol=0.3 * (high - low))
check("SciPy's upper end", peer.confidence_interval.high, high, tol=0.3 * (high - low))

# %% [markdown]
# **Predict:** there are 48 pictures, but thousands of labelled pixels in each. Draw *pixels* instead of pictures. Is the interval wider or narrower? Which one is honest?

# %% tags=["nbval-ignore-output"] alt="Two histograms of bootstrap scores around the network's mean IoU: drawing pictures gives a wide one, drawing pixels a needle."
total = counts.sum().item()
check_at_least("labelled pixels for each picture", total / test_pictures, 2000)
drawn = np.random.default_rng(seed).multinomial(
    total, (counts / total).double().flatten(), size=resamples
)
by_pixel = mean_iou(torch.from_numpy(drawn).view(-1, num_classes, num_classes))
fig, [ax] = show.grid(1, 1, width=6, height=2.8)
ax.hist(scores, bins=30, density=True, color=colours[2], label="pictures drawn")
ax.hist(by_pixel, bins=30, density=True, color=colours[7], label="pixels drawn")
ax.set(title="Pixels of one picture are not independent", xlabel="mean IoU", yticks=[])
ax.legend()
width = [x.quantile(0.975) - x.quantile(0.025) for x in (scores, by_pixel)]
check_at_least("pictures: wider, times", width[0] / width[1], least_ratio)

# %% [markdown]
# Much narrower, and a lie. If one pixel of a star is called a ring, its neighbours are, too. What is independent is the picture (or the patient, the drive, the tile: the unit that was sampled). Draw *that*.
#
# ### Is B better than A?
#
# Let B be the same network with its probabilities averaged over 3 x 3 pixels before the argmax. Its score has an interval of its own, about as wide. If the two intervals overlap, is the difference only luck?
#
# Not necessarily: both were scored on the *same* pictures, and a hard picture is hard for both. So draw pictures, and take the *difference* of the two scores in each draw: the **paired** bootstrap.

# %% tags=["nbval-ignore-output"]
around = F.avg_pool2d(logits.softmax(1), 3, stride=1, padding=1, count_include_pad=False)
matrices_b = by_picture(around.argmax(1))
scores_b = mean_iou(matrices_b[draws].sum(1))
difference = scores_b - scores
from_to = difference.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
print(f"B {mean_iou(matrices_b.sum(0)):.3f}; B less A from {from_to[0]:.4f} to {from_to[1]:.4f}")
paired_width = (from_to[1] - from_to[0]) / width[0]
check_at_most("width of the paired interval, of a single one's", paired_width, 0.7)

# %% tags=["nbval-ignore-output"] alt="Two histograms. Above: bootstrap scores of A and B overlap almost wholly. Below: their paired differences, in a much narrower range beside a line at 0."
fig, axes = show.grid(2, 1, width=6.5, height=2)
axes[0].hist(scores, bins=30, alpha=0.6, color=colours[2], label="A")
axes[0].hist(scores_b, bins=30, alpha=0.6, color=colours[7], label="B: smoothed")
axes[0].set(title="Each by itself: the intervals overlap", yticks=[])
axes[0].legend()
axes[1].hist(difference, bins=30, color=colours[3])
axes[1].axvline(0, color="black")
axes[1].set(title="B less A on the same pictures", yticks=[], xlabel="mean IoU")
check_at_least("largest difference in any draw", difference.abs().max(), 0.0)

# %% [markdown]
# If 0 lies outside the lower histogram's 95 %, the sign of the difference is no luck of the pictures. It may still be luck of the *training*: another seed gives another network. Chapter 07 showed how large that can be, and only repeated training tells.
#
# ## 10. On a real street
#
# CamVid has 11 classes and void. Take the laziest model: for each place in the frame the class that is commonest there in training. It does not look at the picture at all. **Predict** its accuracy and its mean IoU. Is it better on `val` or on `test`?


# %%
def masks_of(split, size=(90, 120)):
    """Masks of some frames of a split, spread over it, at a quarter of their height and width."""
    data = catalog.load("camvid", split=split)
    chosen = np.linspace(0, len(data) - 1, min(camvid_frames, len(data))).astype(int)
    masks = [data[int(i)]["mask"].as_subclass(torch.Tensor) for i in chosen]
    return torch.stack([m[:: m.shape[0] // size[0], :: m.shape[1] // size[1]] for m in masks])


# %% tags=["nbval-ignore-output"]
street = {}
if catalog.available("camvid"):
    names = catalog.load("camvid", split="train").classes
    seen = masks_of("train")
    votes = torch.stack([(seen == c).sum(0) for c in range(len(names))])  # (C, H, W)
    for split in ("val", "test"):
        if (catalog.where("camvid") / split).is_dir():  # a part of the set may be there
            frames = masks_of(split)
            street[split] = ConfusionMatrix(len(names))
            street[split].update(votes.argmax(0).expand_as(frames), frames)
else:
    print("CamVid is not here; `segedu data get camvid` downloads it.")
for split, score in street.items():
    print(f"{split}: accuracy {score.pixel_accuracy():.2f}, mean IoU {score.mean_iou():.2f}")

# %% tags=["nbval-ignore-output"] alt="IoU of each of CamVid's eleven classes for the program that only knows places: road and sky high, poles and signs zero; drawn only where CamVid has been downloaded."
if "val" in street:
    fig, [ax] = show.grid(1, 1, width=5.5, height=3.4)
    show.bars(ax, street["val"].iou(), names, "It has not looked at a single picture")
    check_at_least(
        "accuracy above mean IoU by", street["val"].pixel_accuracy() - street["val"].mean_iou(), 0.1
    )

# %% [markdown]
# Road, sky and buildings are where they always are; that is most pixels. Poles, signs and pedestrians get 0, and only the mean over classes shows it. A paper's model must be compared with *this*, not with 0.
#
# ## 11. What goes wrong
#
# ### The matrix on its side
#
# You count `confusion(truth, answer)` with the arguments swapped. **Predict:** which scores change, and which do not?

# %% tags=["nbval-ignore-output"]
aside = ConfusionMatrix(3)
aside.update(prediction=eight_truth, target=eight_answer)
check("the matrix is transposed", aside.counts, eight.counts.T)
check("recall has become precision", aside.recall(), eight.precision(), tol=1e-12)
check("IoU does not notice", aside.iou(), eight.iou(), tol=1e-12)
check("nor does accuracy", aside.pixel_accuracy(), eight.pixel_accuracy(), tol=1e-12)

# %% [markdown]
# IoU and Dice are the same both ways, so nothing looks wrong. But void is then looked for in the wrong one, and whoever acts on "recall" acts on precision. `segedu` names its arguments; use the names.
#
# ### The best of many, on the test set
#
# You train twenty variants and report the best on the test set, with its interval. All twenty are in truth equally good. **Predict:** how many standard errors above the truth is the best of twenty?

# %%
luck = torch.randn(20000, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
check("best of 20 equal ones, in standard errors", luck.amax(1).mean(), 1.87, tol=0.03)

# %% [markdown]
# Nearly two: the interval you print would just about exclude the truth. Choose on validation pictures, score once on test pictures. The same holds for the choice of an epoch, of a threshold, of a temperature.
#
# ### A score of the wrong resolution
#
# Masks are often shrunk to the network's output for speed, and scored there. Thin parts vanish from the truth, and with them the mistakes. The honest way is up: enlarge the logits to the size of the truth, then argmax.

# %%
grid_truth = torch.zeros(64, 64, dtype=torch.int64)
grid_truth[:, 5::8] = 1  # eight wires, one pixel wide
wires_missed = torch.zeros_like(grid_truth)
shrunk = slice(None, None, 8)
small, full = ConfusionMatrix(2), ConfusionMatrix(2)
small.update(wires_missed[shrunk, shrunk], grid_truth[shrunk, shrunk])
full.update(wires_missed, grid_truth)
check("at an eighth of the size: mean IoU", small.mean_iou(), 1.0)
check("at the size of the truth", full.mean_iou(), (7 / 8) / 2, tol=1e-12)

# %% [markdown]
# ## 12. In the article
#
# The article's section 5.2 scores its network in three lines. Each fails for a reason of its own.
#
# > **In the article: `from sklearn.metrics import mean_iou`.** There is no such function. `jaccard_score` with `average="macro"` is what comes nearest; section 6 says what it does about absent classes and void.

# %%
try:
    from sklearn.metrics import mean_iou as of_the_article  # noqa: F401

    raised = "nothing"
except ImportError as error:
    raised = type(error).__name__
    print(str(error).split(" (")[0])
check("the article's import raises", raised, "ImportError")

# %% [markdown]
# > **In the article: `np.argmax(..., axis=1)` of a network with one channel, and of the labels.** The largest of one number is always number 0. So prediction *and* labels become zero everywhere, and the score is perfect whatever the network says. With one channel, compare the logit with 0; labels are classes already and need no argmax.
#
# **Predict:** the score of random noise against random labels, in the article's way.

# %%
noise = np.random.default_rng(seed).normal(size=(4, 1, 16, 16))
labels = np.random.default_rng(seed + 1).integers(0, 2, size=(4, 1, 16, 16))
in_its_way = sk.jaccard_score(
    labels.argmax(axis=1).ravel(), noise.argmax(axis=1).ravel(), average="macro"
)
check("noise, in the article's way", in_its_way, 1.0)
rightly = sk.jaccard_score(labels.ravel(), (noise > 0).astype(int).ravel(), average="macro")
check("noise, rightly", rightly, 1 / 3, tol=0.05)

# %% [markdown]
# > **In the article: the sum of the batches' IoU over the number of batches.** Its text (5.3) calls that the IoU of the whole set. Section 5 showed that it is not, and that it changes with `batch_size`.
#
# The right loop is short, and no line of it knows about batches:
#
# ```python
# scores = ConfusionMatrix(num_classes)
# for image, mask in loader:
#     scores.update(prediction=model(image).argmax(dim=1), target=mask)
# print(scores.mean_iou())
# ```

# %% tags=["nbval-ignore-output"]
one_by_one = ConfusionMatrix(num_classes)
for one_answer, one_truth in zip(answer, truth, strict=True):
    one_by_one.update(prediction=one_answer, target=one_truth)
check("picture by picture: the same counts", one_by_one.counts, cm.counts)
article = mean_over_batches(4)
print(f"the set {cm.mean_iou():.4f}, the article's mean over batches of 4: {article:.4f}")
check_at_least("they differ by", abs(article - cm.mean_iou()), 1e-4)
print(inspect.getsource(ConfusionMatrix.mean_iou))

# %% [markdown]
# ## 13. Three quick questions
#
# **1.** A model's Dice of a class is 0.8. What is its IoU?
#
# <details><summary>Answer</summary>
#
# $J = D/(2 - D) = 0.8/1.2 = \frac23$.
#
# </details>
#
# **2.** Your test set has 10 pictures of 1000 x 1000 pixels. Is its score sure to three digits, with ten million pixels?
#
# <details><summary>Answer</summary>
#
# No. It rests on 10 independent things. Draw pictures, not pixels.
#
# </details>
#
# **3.** You divide all logits by 2. Which of these change: accuracy, mean IoU, boundary F1, cross-entropy, ECE?
#
# <details><summary>Answer</summary>
#
# The last two. The first three see the argmax only.
#
# </details>

# %% tags=["nbval-ignore-output"]
check("1: IoU from a Dice of 0.8", 0.8 / (2 - 0.8), 2 / 3, tol=1e-12)
check("3: the masks after halving", (logits / 2).argmax(1), answer)
change = F.cross_entropy(logits / 2, truth, ignore_index=IGNORE) - F.cross_entropy(
    logits, truth, ignore_index=IGNORE
)
check_at_least("3: cross-entropy changes by", change.abs(), 1e-4)

# %% [markdown]
# ## 14. Exercises
#
# ### Exercise 1: mean IoU from a matrix
#
# Given a confusion matrix, rows for the truth, return the mean IoU over the classes that have one.


# %% tags=["exercise"]
def mean_iou_of(M):
    """Mean IoU of the matrix `M` (C, C), rows: truth; classes that occur nowhere are left out."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def with_zero(M):
    """A mistake: 0/0 as 0."""
    h, t, p = M.diagonal().double(), M.sum(1), M.sum(0)
    return (h / (t + p - h)).nan_to_num(0).mean().item()


def only_true(M):
    """A mistake: classes without true pixels are left out even if predicted."""
    h, t, p = M.diagonal().double(), M.sum(1), M.sum(0)
    return (h / (t + p - h))[t > 0].mean().item()


exercise = Exercise(
    solution=lambda M: mean_iou(M).item(),
    inputs=[
        (torch.tensor([[3, 1, 0], [1, 2, 0], [0, 1, 0]]),),
        (torch.tensor([[5, 0, 0], [0, 0, 0], [0, 0, 2]]),),
        (torch.tensor([[5, 2, 0], [0, 0, 0], [0, 0, 2]]),),
    ],
    misconceptions={
        "a class that occurs nowhere has no IoU; a 0 for it lowers the mean": with_zero,
        "a class that was predicted but is never true has IoU 0, and counts": only_true,
        "that is the mean Dice": lambda M: (
            (2 * M.diagonal().double() / (M.sum(0) + M.sum(1))).nanmean().item()
        ),
        "that is the mean recall; false alarms must count, too": lambda M: (
            (M.diagonal().double() / M.sum(1)).nanmean().item()
        ),
    },
)
exercise.check(mean_iou_of)


# %% tags=["solution"]
def mean_iou_of(M):
    """Hits over union, of the classes that have a union."""
    hit = M.diagonal()
    union = M.sum(0) + M.sum(1) - hit
    return (hit[union > 0] / union[union > 0]).double().mean().item()


exercise.check(mean_iou_of)

# %% [markdown]
# ### Exercise 2: calibration error of one class
#
# ECE looks at the winner's confidence. For a rare class one wants to know: of the pixels to which the model gives this class with probability about 0.3, are three in ten of the class? Write that: bins over $p$ of the class, and the gap between mean $p$ and the share that *is* of the class.


# %% tags=["exercise"]
def class_ece(p, y, bins=10):
    """Calibration error of one class.

    Args:
        p: (N,), the class's probability at each pixel, in [0, 1].
        y: (N,), 1 where the pixel is of the class, else 0.
        bins: Number of bins of equal width; bin i holds p in (i / bins, (i + 1) / bins].
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def unweighted(p, y, bins=10):
    """A mistake: every bin has the same weight."""
    _, said, held = reliability(p, y, bins)
    return (held - said).abs().nanmean()


def of_winner(p, y, bins=10):
    """A mistake: confidence of the winner, whichever of the two it is."""
    return ece(torch.maximum(p, 1 - p), (p > 0.5) == (y == 1), bins)


probabilities = torch.tensor([0.05, 0.08, 0.12, 0.31, 0.35, 0.38, 0.72, 0.95])
exercise = Exercise(
    solution=ece,
    inputs=[
        (torch.tensor([0.3, 0.3, 0.3, 0.3]), torch.tensor([1, 0, 0, 0])),
        (probabilities, torch.tensor([0, 0, 1, 0, 1, 0, 1, 1])),
        (probabilities, torch.tensor([1, 0, 0, 0, 0, 1, 0, 1]), 4),
    ],
    misconceptions={
        "weigh each bin by its pixels": unweighted,
        "that is the winner's confidence; here a p of 0.1 is judged as 0.1": of_winner,
        "gaps of different sign cancel; take their size first": lambda p, y, *_: (
            y.double().mean() - p.double().mean()
        ).abs(),
    },
)
exercise.check(class_ece)


# %% tags=["solution", "nbval-ignore-output"]
def class_ece(p, y, bins=10):
    """The sums of p and of y in each bin: their difference is n times the gap."""
    place = (p.double() * bins).ceil().long().clamp(1, bins) - 1
    gap = place.bincount(y.double(), minlength=bins) - place.bincount(p.double(), minlength=bins)
    return gap.abs().sum() / len(p)


p_star = logits.softmax(1)[:, 4][labelled]
print(f"{CLASSES[4]}: {class_ece(p_star, (truth == 4)[labelled]).item():.4f}")
exercise.check(class_ece)

# %% [markdown]
# ### Exercise 3: which interval?
#
# Two models, A and B, were scored on the same pictures; for each picture there is a matrix of either. Return the ends of the 95 % interval of the *difference* B less A of the mean IoU, for the draws given.


# %% tags=["exercise"]
def difference_interval(matrices_a, matrices_b, draws):
    """(low, high) of the paired bootstrap, percentiles 2.5 and 97.5.

    Args:
        matrices_a: (n, C, C), counts of model A for each picture.
        matrices_b: (n, C, C), of model B.
        draws: (R, n), numbers of the pictures of each resample.
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
ends = torch.tensor([0.025, 0.975], dtype=torch.float64)


def paired(a, b, draws):
    """The answer."""
    return tuple((mean_iou(b[draws].sum(1)) - mean_iou(a[draws].sum(1))).quantile(ends).tolist())


def mean_of_pictures(a, b, draws):
    """A mistake: scores of pictures, then their mean."""
    return tuple((mean_iou(b) - mean_iou(a))[draws].mean(1).quantile(ends).tolist())


def apart(a, b, draws):
    """A mistake: two intervals, subtracted."""
    one, two = (mean_iou(m[draws].sum(1)).quantile(ends) for m in (a, b))
    return tuple((two - one).tolist())


few = draws[:200]
exercise = Exercise(
    solution=paired,
    inputs=[
        (matrices, matrices_b, few),
        (matrices_b, matrices, few),
        (matrices, matrices_b, few[:50]),
    ],
    misconceptions={
        "B less A, not A less B": lambda a, b, draws: paired(b, a, draws),
        "sum the matrices of the drawn pictures first; the score of a set is no mean of pictures": mean_of_pictures,
        "take the difference in each draw; ends of two intervals do not subtract": apart,
    },
)
exercise.check(difference_interval)


# %% tags=["solution", "nbval-ignore-output"]
def difference_interval(matrices_a, matrices_b, draws):
    """The same pictures for both in each draw."""
    difference = mean_iou(matrices_b[draws].sum(1)) - mean_iou(matrices_a[draws].sum(1))
    low, high = difference.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


print(difference_interval(matrices, matrices_b, draws))
exercise.check(difference_interval)

# %% [markdown]
# ## Summary
#
# Symbols: $M_{ij}$ pixels of true class $i$ called $j$; $h_c = M_{cc}$ hits, $t_c$ row sum, $p_c$ column sum; $n_b$ pixels in bin $b$.
#
# $$
# \begin{aligned}
# \text{recall}_c &= \frac{h_c}{t_c}, \quad \text{precision}_c = \frac{h_c}{p_c}, \quad \text{IoU}_c = \frac{h_c}{t_c + p_c - h_c}, \quad \text{Dice}_c = \frac{2 h_c}{t_c + p_c} = \frac{2 J}{1 + J} \\
# \text{accuracy} &= \frac{\sum h_c}{\sum t_c} \;\ge\; \text{frequency-weighted IoU} = \sum_c \frac{t_c}{\sum t}\, \text{IoU}_c \\
# \text{ECE} &= \sum_b \frac{n_b}{N}\, | \text{right}_b - \text{confidence}_b |
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Count first, divide last: sum the confusion matrices of all batches, then compute. Leave out classes that occur nowhere, and void.
# 2. A name is no definition. Say what was averaged over what, with which tolerance, at which resolution, and what an absent class counted.
# 3. Draw pictures, not pixels, for an interval; compare two models on the same draws; and choose nothing on the test set.
#
# **To read**
#
# - J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015: section 5, the four metrics.
# - G. Csurka, D. Larlus, F. Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013: per-image scores and boundary F1.
# - C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: section 2 for ECE, section 4 for temperature.
# - B. Efron, R. J. Tibshirani, *An Introduction to the Bootstrap*, 1993: chapter 13, percentile intervals.
# - L. Maier-Hein, A. Reinke et al., "Metrics reloaded: recommendations for image analysis validation", *Nature Methods* 21, 2024.
#
# **Next.** The scores are settled; now the networks. [Chapter 09](09_fcn.ipynb) turns a classifier into a network that labels every pixel.

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # What is segmentation, and can I see it work now?
#
# A photograph is a grid of coloured dots. Nothing in the file says where the cup ends and the table begins. **Image segmentation**
# (图像分割) is the task of saying it: which of these dots belong to what. In this chapter you train a small network to do that, in less than a
# minute and without a graphics card. You look at its masks, score them, learn which four different questions go by the name of
# segmentation, and at the end give it a photograph of your own.
#
# **You will be able to**
#
# - say what a mask is, print one, and read it;
# - train a small U-Net with a loop that you can see whole, and look at what it finds;
# - tell pixel accuracy from intersection over union, and say why 0.9 of one is not 0.9 of the other;
# - tell semantic, instance, panoptic and boundary truth apart, and say which can be computed from which;
# - run a trained network on any picture, and know when not to believe it.
#
# *45 minutes; the cells take one. Before: some Python. A little PyTorch helps, and is not needed to follow.*

# %% [markdown]
# The next cell holds all the numbers that you may want to change. To see the network look at a photograph of yours, write its path into `photo`: for example `photo = "holiday.jpg"`.

# %% tags=["parameters"]
seed = 0
device = "auto"
photo = ""  # path of a picture of yours, as seen from this notebook's folder
photo_size = 600  # pixels that its longer side is shrunk to
image_size = 64  # height and width of the drawn scenes, in pixels
difficulty = 0.2  # of the scenes, from 0 to 1
train_pictures = 512
test_pictures = 64
epochs = 8  # how often the network sees each training picture
few_epochs = 50  # the same for the network of section 10, which learns 16 pictures by heart
least_miou = 0.75  # from here: what the text claims of this run; a shorter one promises less
least_object_iou = 0.8
least_gap = 0.1
least_ratio = 1.5
least_sure = 0.2

# %%
import copy
import inspect
import math
import tempfile
import time
from pathlib import Path

import skimage
import torch
from matplotlib.patches import Rectangle
from scipy import ndimage
from torchvision.transforms.v2 import functional as transforms

# %%
from segedu import show
from segedu.check import check, check_at_least, check_at_most
from segedu.checkpoints import save_checkpoint
from segedu.data.images import read_image, read_index
from segedu.data.sample import IGNORE, collate
from segedu.data.scenes import CLASSES, PANOPTIC_BASE, Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.losses import cross_entropy_loss
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.unet import UNet
from segedu.palette import class_colours
from segedu.predict import load_trained, predict_file, predict_mask

# %% [markdown]
# ## 1. One picture, one question
#
# The pictures of this chapter are drawn by the computer: **scenes** of discs, squares, triangles, stars and rings, with textures and shadows, one before
# the other. Drawn pictures have two virtues. There are as many as we like. And whoever draws a picture knows which **pixel** (像素) belongs to
# what, to the last one.
#
# Here is one. The question of segmentation is: **which pixels belong to what?** Beside the picture is the answer, its **mask** (掩膜).

# %% alt="A small scene of coloured shapes, its mask with one colour for each kind of shape on a dark grey ground, and the mask laid over the picture. Thin white lines follow the outlines in the mask."
gallery = Scenes(20, size=image_size, seed=seed + 2, difficulty=difficulty)
scene = max(gallery, key=lambda one: len(one["mask"].unique()))  # the one with most classes
picture, mask = scene["image"], scene["mask"]

fig, axes = show.grid(1, 3, "The answer has the size of the question", width=3)
show.image(axes[0], picture, "the picture")
show.mask(axes[1], mask, "its mask", num_classes=6)
show.overlay(axes[2], picture, mask, "one laid over the other", num_classes=6)
show.legend(fig, CLASSES)
check("rows and columns of the mask are the picture's", mask.shape, picture.shape[1:])

# %% [markdown]
# A mask is not a picture. It is an array of numbers, and the colours are only for our eyes. Each number is the index of a **class** (类别):
#
# | 0 | 1 | 2 | 3 | 4 | 5 | 255 |
# |---|---|---|---|---|---|---|
# | ground | disc | square | triangle | star | ring | void |
#
# **Predict:** the next cell enlarges a corner of the mask and prints its numbers. What stands along the border between two things?

# %% alt="Left, the scene with a small white frame. Middle, the pixels in the frame, enlarged. Right, the same pixels of the mask with their numbers: class indices inside the shapes and 255 along the borders."
windows = mask.unfold(0, 9, 1).unfold(1, 9, 1)  # every window of 9 x 9 pixels
variety = sum((windows == value).any(-1).any(-1).int() for value in mask.unique())
row, column = divmod(variety.argmax().item(), variety.shape[1])
crop = mask[row : row + 9, column : column + 9]

fig, axes = show.grid(1, 3, "A mask is an array of class indices", width=3.2)
show.image(axes[0], picture, "a frame of 9 x 9 pixels")
axes[0].add_patch(Rectangle((column - 0.5, row - 0.5), 9, 9, fill=False, edgecolor="white", lw=2))
show.image(axes[1], picture[:, row : row + 9, column : column + 9], "the pixels")
show.mask(axes[2], crop, "the numbers", num_classes=6)
for i, j in torch.cartesian_prod(torch.arange(9), torch.arange(9)).tolist():
    ink = "white" if crop[i, j] == 0 else "black"
    axes[2].text(j, i, crop[i, j].item(), ha="center", va="center", fontsize=8, color=ink)

# %%
check(
    "mask values are classes or 255", set(mask.unique().tolist()) <= {*range(6), IGNORE}, want=True
)

# %% [markdown]
# Along the border stands 255. It is not a class. A pixel at the border is half one thing and half another, and two people who label
# it will disagree. So it is **void** (忽略): no loss and no score counts it, and its truth is "nobody should judge". In the package it is called `IGNORE`.
#
# ## 2. Can a threshold do it?
#
# Learning is work. Is it needed? A **threshold** (阈值) is the oldest segmentation there is: every pixel that is brighter than some level is object, the rest is
# ground. It cannot tell a disc from a star, so let us ask for less: only *object or not*.
#
# To score the answer we need one number. Write $T$ for the set of pixels that are object in truth, and $P$ for those that are called object.
# Pixels in neither set are the easy ones. Leave them out, and ask what share of the rest is in both. This is **intersection over union** (交并比):
#
# $$\mathrm{IoU} = \frac{|T \cap P|}{|T \cup P|}.$$
#
# By hand, on four pixels in a row: truth is object, object, ground, ground; the answer is ground, object, object, ground. One pixel is in both,
# three in at least one. The IoU is $1/3$.


# %%
def iou(found, masks):
    """IoU of "object, of whatever class", over the labelled pixels."""
    truth, labelled = masks > 0, masks != IGNORE
    both, either = found & truth & labelled, (found | truth) & labelled
    return (both.sum() / either.sum()).item()


answer = torch.tensor([False, True, True, False])
check("four pixels", iou(answer, torch.tensor([1, 1, 0, 0])), 1 / 3, tol=1e-6)
check("with void in place of the miss", iou(answer, torch.tensor([IGNORE, 1, 0, 0])), 0.5, tol=1e-6)


# %% [markdown]
# Now some pictures to test on. The network will not see them while it learns; that is what makes them a test.
#
# Two thresholds compete. The first is Otsu's, from 1979, which looks at the picture's brightness alone ([chapter 03](03_thresholds_and_edges.ipynb) derives it).
# The second *cheats*: for each picture it tries 65 levels, brighter and darker, and keeps the one that the truth likes best. No honest threshold on brightness can beat it by much.
#
# **Predict:** a perfect answer has an IoU of 1. Calling everything object has the share of object pixels, about 0.3. What does the cheat get?


# %%
def in_memory(scenes):
    """All pictures (N, 3, H, W) and all masks (N, H, W) of a data set."""
    batch = collate([scenes[i] for i in range(len(scenes))])
    return batch["image"].as_subclass(torch.Tensor), batch["mask"].as_subclass(torch.Tensor)


test_images, test_masks = in_memory(
    Scenes(test_pictures, size=image_size, seed=seed + 1, difficulty=difficulty)
)
check("shape of the test pictures", test_images.shape, (test_pictures, 3, image_size, image_size))
check("shape of their masks", test_masks.shape, (test_pictures, image_size, image_size))


# %%
def better_side(grey, truth, levels):
    """Brighter or darker than one of the levels: the answer that the truth likes best."""
    answers = [side for level in levels for side in (grey > level, grey < level)]
    return max(answers, key=lambda found: iou(found, truth))


# %% tags=["nbval-ignore-output"]
greys = test_images.mean(dim=1)  # (N, H, W): brightness
levels = torch.linspace(0, 1, 65).tolist()
pairs = list(zip(greys, test_masks, strict=True))
otsu = torch.stack(
    [better_side(g, t, [skimage.filters.threshold_otsu(g.numpy())]) for g, t in pairs]
)
cheat = torch.stack([better_side(g, t, levels) for g, t in pairs])
everything = torch.ones_like(otsu)
check("everything: the share of objects", iou(everything, test_masks), 0.3, tol=0.12)
for name, found in (("everything", everything), ("Otsu", otsu), ("cheat", cheat)):
    print(f"{name}: {iou(found, test_masks):.3f}")
check_at_most("even the cheat's IoU", iou(cheat, test_masks), 0.75)

# %% alt="Three test pictures in rows, each with the true object pixels, Otsu's answer and the best threshold's answer. Both thresholds pick up shadows and textures and lose parts of the objects."
fig, axes = show.grid(3, 4, "Brightness alone does not know what an object is", width=1.8)
for ax_row, index in zip(axes, range(3), strict=True):
    truth = (test_masks[index] > 0).long().where(test_masks[index] != IGNORE, IGNORE)
    show.image(ax_row[0], test_images[index], "picture")
    for ax, answer, title in zip(
        ax_row[1:],
        (truth, otsu[index].long(), cheat[index].long()),
        ("truth", "Otsu", "best level in hindsight"),
        strict=True,
    ):
        show.mask(ax, answer, title, num_classes=2)

# %% [markdown]
# Not much. An object may be darker than the ground or brighter; it has stripes, so it is both; its shadow is darker than either. What makes a star a star is
# not in one pixel. It is in how hundreds of pixels stand to each other. Nobody wants to write that down as rules. So we let a network find the rules, from examples.
#
# ## 3. Train a network, in 20 lines
#
# The network is a **U-Net** (Ronneberger et al., 2015). It takes a picture, makes it smaller in steps to see far, then larger again to see sharp, and
# gives each pixel one score for each class. [Chapter 10](10_unet.ipynb) builds it; here it is a function with numbers in it that can be tuned:
#
# $$\text{picture } (3, H, W) \;\longrightarrow\; \text{scores } (6, H, W) \;\longrightarrow\; \text{mask } (H, W): \text{ at each pixel, the class with the highest score.}$$
#
# **Training** (训练) repeats one step a few hundred times:
#
# 1. take eight pictures, and let the network score their pixels;
# 2. measure with one number, the **loss** (损失), how badly the scores fit the true masks;
# 3. ask in which direction each number of the network should move for the loss to fall, and move it a little that way.
#
# Here is all of it: one function to begin, and one for a pass over the pictures.


# %% tags=["nbval-ignore-output"]
def begin(pictures, epochs):
    """A new network, what moves its numbers, and how fast they may move in each step."""
    torch.manual_seed(seed)  # the first numbers are random, the same for the same seed
    model = UNet(len(CLASSES), widths=(16, 32, 64, 128))
    model = model.to(place, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    steps = epochs * math.ceil(pictures / 8)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, steps, pct_start=0.15)
    return model, optimizer, schedule


place = pick_device(device)
model, optimizer, schedule = begin(train_pictures, epochs)
print(f"{sum(p.numel() for p in model.parameters()):,} numbers to tune, on {place.type}")


# %%
def one_epoch(model, optimizer, schedule, images, masks):
    """Show the network every picture once, eight at a time; returns the losses."""
    model.train()
    losses = []
    for chosen in torch.randperm(len(images)).split(8):
        with torch.autocast(place.type, torch.bfloat16, enabled=use_16_bits):
            scores = model(images[chosen].to(place, memory_format=torch.channels_last))
        loss = cross_entropy_loss(scores.float(), masks[chosen].to(place))
        optimizer.zero_grad()
        loss.backward()  # for each number: in which direction does the loss fall?
        optimizer.step()  # move each a little that way
        schedule.step()
        losses.append(loss.item())
    return losses


# %% [markdown]
# `cross_entropy_loss` asks each pixel how surprised the network was by its true class ([chapter 06](06_cross_entropy.ipynb)). `AdamW` and `OneCycleLR` decide how far each
# step goes ([chapter 11](11_training.ipynb)). The line with `autocast` computes with 16-bit numbers, which many processors do faster, while others only imitate them, and crawl.
# So we ask the clock, with a network that is thrown away. First the pictures to learn from, drawn with another seed than those of the test.

# %%
train_images, train_masks = in_memory(
    Scenes(train_pictures, size=image_size, seed=seed, difficulty=difficulty)
)
check("pictures to learn from", len(train_images), train_pictures)


# %% tags=["nbval-ignore-output"]
def seconds_of_a_step(images, masks):
    """The time of one training step; the first, which is slow everywhere, does not count."""
    for _ in range(2):
        start = time.perf_counter()
        one_epoch(*begin(8, epochs=2), images[:8], masks[:8])
        seconds = time.perf_counter() - start
    return seconds


seconds = {}
for use_16_bits in (False, True):
    seconds[use_16_bits] = seconds_of_a_step(train_images, train_masks)
    print(f"{16 if use_16_bits else 32} bits: {1000 * seconds[use_16_bits]:.0f} ms a step")
use_16_bits = seconds[True] < seconds[False]

# %% [markdown]
# Now train. After each **epoch** (轮次), one pass over all training pictures, we let the network label the test pictures, to watch it learn.
#
# **Predict:** what will it learn first: where objects are, or what they are called?


# %% tags=["nbval-ignore-output"]
@torch.no_grad()
def predict(model, images):
    """The most likely class of each pixel: (N, H, W), from pictures (N, 3, H, W)."""
    model.eval()
    return model(images.to(place)).argmax(dim=1).cpu()


losses, glimpses, start = [], [predict(model, test_images)], time.perf_counter()
for epoch in range(epochs):
    losses += one_epoch(model, optimizer, schedule, train_images, train_masks)
    glimpses.append(predict(model, test_images))
    print(f"epoch {epoch + 1:2}: loss {losses[-1]:.2f} after {time.perf_counter() - start:.0f} s")

# %% alt="The loss of every training step, falling from about 1.8 to near 0.1, fast at first and then slowly, with much noise." tags=["nbval-ignore-output"]
fig, [ax] = show.grid(1, 1, width=6, height=3)
ax.plot(losses, color="0.7", label="each step")
per_epoch = torch.tensor(losses).view(epochs, -1).mean(1)
steps_done = torch.arange(1, epochs + 1) * len(losses) / epochs
ax.plot(steps_done, per_epoch, "o-", color=class_colours(7)[6] / 255, label="mean of an epoch")
ax.axhline(math.log(6), color="black", linestyle=":", label="knows nothing: log 6")
ax.set(title="The loss falls, fast at first", xlabel="training step", ylabel="loss")
ax.legend()
check("the first loss is not far from log 6", losses[0], math.log(6), tol=0.6)
check_at_least("what it has fallen by", losses[0] - per_epoch[-1], 0.0)

# %% alt="One test picture and what the network sees in it before training, after several epochs and after the last, and the truth. First one class everywhere, then blobs where the objects are, then shapes with wrong and changing classes, at last nearly the truth." tags=["nbval-ignore-output"]
shown = torch.linspace(0, epochs, 6).long().unique().tolist()
fig, axes = show.grid(1, len(shown) + 2, "The network learns to see", width=1.5)
show.image(axes[0], test_images[0], "picture")
for ax, epoch in zip(axes[1:], shown, strict=False):
    show.mask(ax, glimpses[epoch][0], f"epoch {epoch}", num_classes=6)
show.mask(axes[-1], test_masks[0], "truth", num_classes=6)
show.legend(fig, CLASSES)

# %% [markdown]
# At epoch 0 the answer means nothing: the network's numbers are random. Then it sees *that* something is there, and gives it a wrong name, often the same name for all. The names come later, and
# the corners last. To hold that against numbers, score it after each epoch twice: on section 2's task, object or not, and on all six classes. The second score is the mean over the classes of
# their IoU; section 5 explains it.


# %%
def score(prediction, masks):
    """Mean IoU of the six classes, over the labelled pixels of all pictures."""
    counts = ConfusionMatrix(len(CLASSES))
    counts.update(prediction, masks)
    return counts.mean_iou()


# %% alt="Two curves over the epochs. IoU of object or not rises to about 0.7 at once and to 0.9 in the end; mean IoU of six classes starts far below, rises more slowly and ends near 0.8. A dotted line near 0.5 is the cheating threshold." tags=["nbval-ignore-output"]
found_at = torch.tensor([iou(glimpse > 0, test_masks) for glimpse in glimpses])
named_at = torch.tensor([score(glimpse, test_masks) for glimpse in glimpses])
fig, [ax] = show.grid(1, 1, width=6, height=3)
ax.plot(found_at, "o-", color=class_colours(7)[6] / 255, label="object or not")
ax.plot(named_at, "s-", color=class_colours(7)[1] / 255, label="six classes, mean IoU")
ax.axhline(iou(cheat, test_masks), color="black", linestyle=":", label="the cheat, object or not")
ax.set(title="First it finds the objects, then their names", xlabel="epoch", ylabel="IoU")
ax.set_ylim(0, 1)
ax.legend(loc="lower right")
check_at_least(
    "lead of finding over naming, at its largest", (found_at - named_at).max(), least_gap
)

# %% [markdown]
# Two functions, and the four lines that call them: that is a training loop. Those of the papers are longer, but not different.

# %%
both = inspect.getsource(begin) + inspect.getsource(one_epoch)
lines = [line for line in both.splitlines() if line.strip() and '"""' not in line]
check_at_most("lines of code, without the two headings", len(lines) - 2, 20)

# %% [markdown]
# ## 4. See its masks
#
# These are pictures on which it was not trained. **Predict:** where will the mistakes be: inside the objects, or somewhere else?

# %% alt="Four test pictures in rows, each with its true mask, the predicted mask, and a pale grey picture with wrong pixels marked in red. Most shapes are right; errors lie along outlines and in partly hidden or cut-off shapes." tags=["nbval-ignore-output"]
predicted = predict(model, test_images)
wrong = (predicted != test_masks) & (test_masks != IGNORE)
pale = 0.6 + 0.4 * test_images.mean(1, keepdim=True).expand_as(test_images)  # to see the marks

fig, axes = show.grid(4, 4, "Trained for seconds, on pictures it has never seen", width=1.8)
for ax_row, index in zip(axes, range(1, 5), strict=True):
    show.image(ax_row[0], test_images[index], "picture")
    show.mask(ax_row[1], test_masks[index], "truth", num_classes=6)
    show.mask(ax_row[2], predicted[index], "prediction", num_classes=6)
    share = wrong[index].sum() / (test_masks[index] != IGNORE).sum()
    title = f"wrong: {100 * share:.0f} %"
    show.overlay(ax_row[3], pale[index], wrong[index] * 7, title, num_classes=8)
show.legend(fig, CLASSES)

# %% [markdown]
# Mostly near outlines, and where an object is small, cut off by the edge of the picture, or half hidden: there, even you have to think. And now and then a whole
# object has the wrong name. Count the mistakes within three pixels of the void lines, and those elsewhere.

# %% tags=["nbval-ignore-output"]
void = (test_masks == IGNORE).float()
near = torch.nn.functional.max_pool2d(void, 7, stride=1, padding=3) > 0
share_near, share_far = (wrong[part & (void == 0)].double().mean() for part in (near, ~near))
print(f"wrong near outlines {share_near:.1%}, elsewhere {share_far:.1%}")
check_at_least("near outlines, over elsewhere", share_near / share_far, least_ratio)

# %% [markdown]
# ## 5. Score: right pixels are not right objects
#
# How good is that? The obvious number is **pixel accuracy** (像素准确率): the share of labelled pixels whose class is right. The fair number for one class $c$ is again intersection over union. With $T_c$ the
# pixels of class $c$ in truth, and $P_c$ those predicted as $c$:
#
# $$\mathrm{IoU}_c = \frac{|T_c \cap P_c|}{|T_c \cup P_c|}, \qquad \text{mean IoU} = \frac1C \sum_{c=0}^{C-1} \mathrm{IoU}_c.$$
#
# By hand, on ten pixels in a row. Truth has eight of ground and two of disc. The prediction finds one of the two, and calls one pixel of ground a disc as well.
#
# - accuracy: 8 of 10 are right, 0.8;
# - disc: 1 in both, 3 in either, IoU $1/3$;
# - ground: 7 in both, 9 in either, IoU $7/9$;
# - mean IoU: $(7/9 + 1/3)/2 = 5/9$.

# %%
ten = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
found = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 0])
by_hand = ConfusionMatrix(2)
by_hand.update(found, ten)
check("accuracy", by_hand.pixel_accuracy(), 8 / 10, tol=1e-6)
check("IoU of ground and disc", by_hand.iou(), [7 / 9, 1 / 3], tol=1e-12)
check("mean IoU", by_hand.mean_iou(), 5 / 9, tol=1e-12)

# %% [markdown]
# `ConfusionMatrix` counts, for each true class, which class was predicted; all scores follow from the counts ([chapter 08](08_metrics.ipynb)). It leaves out void. And it counts the pixels of
# *all* pictures before it divides.
#
# **Predict:** an answer that says "ground" everywhere, without looking. What is its accuracy on the test pictures? What is its mean IoU?

# %% alt="Two bar charts of the IoU of each class. Left, the network: all classes between about 0.7 and 1, ground highest. Right, the answer ground everywhere: 0.7 for ground, 0 for all others." tags=["nbval-ignore-output"]
fig, axes = show.grid(1, 2, "Accuracy hides what IoU shows", width=4, height=2.6)
scores = {}
for ax, (name, answer) in zip(
    axes, {"network": predicted, "all ground": torch.zeros_like(predicted)}.items(), strict=True
):
    scores[name] = ConfusionMatrix(len(CLASSES))
    scores[name].update(answer, test_masks)
    accuracy, miou = scores[name].pixel_accuracy(), scores[name].mean_iou()
    title = f"{name}: accuracy {accuracy:.2f}, mean IoU {miou:.2f}"
    show.bars(ax, scores[name].iou(), CLASSES, title)

# %%
network, ground = scores["network"], scores["all ground"]
share = (test_masks == 0).sum() / (test_masks != IGNORE).sum()
check("accuracy of 'all ground' is the share of ground", ground.pixel_accuracy(), share, tol=1e-6)
check_at_least("and that is over half", share, 0.5)
check("its mean IoU is a sixth of that", ground.mean_iou(), share / 6, tol=1e-6)

# %% tags=["nbval-ignore-output"]
check_at_least("the network's mean IoU", network.mean_iou(), least_miou)
check_at_least("its accuracy, less its mean IoU", network.pixel_accuracy() - network.mean_iou(), 0)
network_iou = iou(predicted > 0, test_masks)
check_at_least("object or not, the task of section 2", network_iou, least_object_iou)
print(f"(the cheating threshold had {iou(cheat, test_masks):.3f})")

# %% [markdown]
# Without looking at the picture, "all ground" gets more than half of the pixels right. Its mean IoU is a sixth of that, since five of six classes get nothing. Accuracy weighs a class by its area; most of the area is ground, and ground is easy. Mean IoU gives
# each class the same weight, and charges a mistake twice: to the class that lost the pixel, and to the class that wrongly got it. So **0.9 of one is not 0.9 of the other**, and a paper that reports
# accuracy only has something to hide, or has not thought.
#
# And the network beats the cheating threshold at its own task, object or not. It was told of stars and rings, and never of brightness.
#
# ## 6. One picture, three sizes of answer
#
# Segmentation is one of three questions that one may ask about a picture:
#
# - **classification** (图像分类): what is in it? One set of names for the whole picture;
# - **object detection** (目标检测): what, and where, about? A box and a name for each object;
# - **segmentation** (图像分割): which pixels? A name for every one of them.
#
# For the rest of this chapter we stay with one picture, which we choose with care: one in which *two objects of the same class touch*. You will see why.


# %%
def semantic_of(sample):
    """The class of each pixel, (H, W), without void: objects do not overlap, so we may add them."""
    return (sample["masks"] * sample["labels"].view(-1, 1, 1)).sum(0)


def merged(sample):
    """The classes of which some connected region of pixels holds two objects or more."""
    for c in sample["labels"].unique().tolist():
        regions, count = ndimage.label((semantic_of(sample) == c).numpy())
        for region in range(1, count + 1):
            if len(sample["instance_map"][torch.from_numpy(regions == region)].unique()) > 1:
                yield c


# %%
def is_telling(sample):
    """Three kinds of object or more, all seen in the mask, and two objects of one class touch."""
    kinds = set(sample["labels"].tolist())
    return len(kinds) > 2 and kinds <= set(sample["mask"].unique().tolist()) and any(merged(sample))


candidates = Scenes(10_000, size=image_size, seed=seed + 3, difficulty=difficulty)
scene = next(sample for sample in candidates if is_telling(sample))  # drawn one by one, as needed
picture, mask = scene["image"], scene["mask"]

# %% alt="The same scene three times. Left, with the names of the kinds of object in it. Middle, with a box and a name for each object. Right, with its mask laid over it."
names = [CLASSES[label] for label in scene["labels"]]
fig, axes = show.grid(1, 3, "The same picture, three questions", width=3.2)
show.image(axes[0], picture, "classification: what is in it?")
axes[0].set_xlabel(", ".join(sorted(set(names))))
show.image(axes[1], picture, "detection: what, and where about?")
for (x1, y1, x2, y2), name in zip(scene["boxes"].tolist(), names, strict=True):
    colour = class_colours(6)[CLASSES.index(name)] / 255
    corner = (x1 - 0.5, y1 - 0.5)
    axes[1].add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=colour, lw=2))
    axes[1].text(x1 + 1, y1 + 1, name, va="top", fontsize=7, bbox={"facecolor": colour, "pad": 1})
show.overlay(axes[2], picture, mask, "segmentation: which pixels?", num_classes=6)

# %% [markdown]
# **Predict:** which of the three can be computed from which?

# %%
from_mask = set(mask.unique().tolist()) - {0, IGNORE}
check("classification from the mask", from_mask == set(scene["labels"].tolist()), want=True)
for box, inside in zip(scene["boxes"], scene["masks"], strict=True):
    rows, columns = inside.nonzero(as_tuple=True)
    around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    check("a box from the object's pixels", torch.tensor(around, dtype=torch.float32), box)
sizes = [len(set(names)), 5 * len(names), mask.numel()]
print("numbers in the answer: {} names, {} for names and boxes, {:,} pixels".format(*sizes))

# %% [markdown]
# Each answer follows from the next larger one, never the other way. (A box follows from *its object's* pixels. Whether one knows these is the next question.) That is why masks are
# dear: for the data set COCO, outlining 1000 objects took more than 22 working hours (Lin et al., 2014, section 4.3).

# %%
check("seconds for one object's outline", 22 * 3600 / 1000, 79, tol=0.5)

# %% [markdown]
# ## 7. Four truths of one picture
#
# "Which pixels belong to what" still has four meanings. The difference is in the word *what*.
#
# | task | the question | truth | what a method returns | score |
# |---|---|---|---|---|
# | **semantic segmentation** (语义分割) | of what class is each pixel? | one class index a pixel | a score for each class at each pixel | mean IoU, [chapter 08](08_metrics.ipynb) |
# | **instance segmentation** (实例分割) | which pixels are object 1, object 2, ...? | one mask and one class an object | any number of masks, each with class and confidence | average precision (AP), [chapter 19](19_instance_metrics.ipynb) |
# | **panoptic segmentation** (全景分割) | both: of what class, and which object? | one id a pixel | one id a pixel | panoptic quality (PQ), [chapter 19](19_instance_metrics.ipynb) |
# | **boundary detection** (边界检测) | where does one thing end and another begin? | yes or no a pixel | a strength in [0, 1] at each pixel | boundary F-measure, [chapter 03](03_thresholds_and_edges.ipynb) |
#
# Our scene has all four. Look for the two objects that touch.

# %% alt="Four panels of one scene. Semantic: one colour a class, touching objects of a class share it. Instance: each object has its own tint and box. Panoptic: each object has a shade of its class colour and a number such as 1001. Boundary: thin bright lines where one thing ends."
panoptic, instance_map = scene["panoptic"], scene["instance_map"]
kind, number = panoptic // PANOPTIC_BASE, panoptic % PANOPTIC_BASE
shades = torch.from_numpy(class_colours(6) / 255)[kind] * (1 - 0.1 * number[..., None])
shades[panoptic == IGNORE] = 1.0

fig, axes = show.grid(1, 4, "One picture, four truths", width=2.7)
show.mask(axes[0], mask, "semantic", num_classes=6)
show.instances(axes[1], picture, scene, "instance", num_classes=6)
show.image(axes[2], shades.movedim(-1, 0), "panoptic")
for n, inside in enumerate(scene["masks"], start=1):
    i, j = inside.nonzero().double().mean(0).tolist()
    here = {"ha": "center", "va": "center", "fontsize": 7}
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
    axes[2].text(j, i, 1000 * scene["labels"][n - 1].item() + n, **here, bbox=paper)
show.mask(axes[3], scene["boundary"].long() * 4, "boundary", num_classes=6)

# %% [markdown]
# In numbers. `masks` has one layer an object. A panoptic id is $1000 \cdot \text{class} + n$ for the $n$-th object of the picture, 0 for ground, and 255 for void.

# %%
for truth in ("mask", "masks", "labels", "panoptic", "boundary"):
    array = scene[truth].as_subclass(torch.Tensor)
    kinds = array.unique().tolist()
    print(f"{truth:9} {tuple(array.shape)!s:13} {array.dtype!s:12} values {kinds}")

# %% [markdown]
# ### Do they agree?
#
# They should: they are four ways of saying the same. Let $L$ be the labelled pixels. **Predict:** which truths can you compute from the others?
# From panoptic ids, for one, come classes (divide by 1000) and objects (the remainder).

# %%
labelled = mask != IGNORE
semantic = semantic_of(scene)
one_map = (scene["masks"] * torch.arange(1, len(names) + 1).view(-1, 1, 1)).sum(0)
check("panoptic to semantic: id // 1000", (panoptic // 1000)[labelled], mask[labelled])
check("panoptic to instances: id % 1000", (panoptic % 1000)[labelled], instance_map[labelled])
check("and back", (1000 * semantic + instance_map)[labelled], panoptic[labelled])
check("instances to semantic, by their labels", semantic[labelled], mask[labelled])
check("instance masks to the map of objects", one_map, instance_map)
check("their union is the objects", scene["masks"].any(0).long(), (instance_map > 0).long())
check_at_most("no two of them overlap", scene["masks"].sum(0), 1)


# %% [markdown]
# And the boundary: where a pixel's right or lower neighbour belongs to something else. Given the map of objects that is two comparisons.
#
# **Predict:** is there also a boundary to be had from the *semantic* map, with the same two comparisons? Is it the same one?


# %%
def boundary_of(index):
    """Pixels of a map (H, W) whose right or lower neighbour has another value."""
    found = torch.zeros(index.shape, dtype=torch.bool)
    found[:, :-1] |= index[:, :-1] != index[:, 1:]
    found[:-1] |= index[:-1] != index[1:]
    return found


from_instances, from_semantic = boundary_of(instance_map), boundary_of(semantic)
lost, gained = from_instances & ~from_semantic, from_semantic & ~from_instances
check("instances to boundary", from_instances.long(), scene["boundary"].long())
check("semantic boundary pixels that are no boundary", gained.sum(), 0)
check_at_least("boundary pixels that are missing there", lost.sum(), 1)

# %% [markdown]
# What is missing is the line between the two touching objects. To the semantic map there is none.
#
# ### Why objects cannot be had from classes
#
# It is tempting to say: instance segmentation is semantic segmentation and then some counting. Take the mask of one class, and call each connected region an object.
# `scipy.ndimage.label` finds the regions. **Predict:** how many will it count where two objects touch? And what if something lies across an object and cuts it in two?

# %% alt="Three panels. The class mask of one class: two touching objects form a single region. The connected regions that counting finds, each in one colour: the two objects are one. The true objects: each in its own colour." tags=["nbval-ignore-output"]
c = next(merged(scene))
regions, count = ndimage.label((semantic == c).numpy())
objects = instance_map.where(semantic == c, 0)
fig, axes = show.grid(1, 3, f"Two objects of class {CLASSES[c]} touch, and counting makes them one")
show.mask(axes[0], semantic.where(semantic == c, 0), "pixels of the class", num_classes=6)
found = torch.from_numpy(regions).long()
show.mask(axes[1], found + 7 * (found > 0), f"connected regions: {count}", num_classes=40)
how_many = (scene["labels"] == c).sum().item()
show.mask(axes[2], objects + 7 * (objects > 0), f"objects: {how_many}", num_classes=40)

# %%
inside = [objects[found == region].unique() for region in range(1, count + 1)]
check_at_least("objects in the region that holds most", max(map(len, inside)), 2)

apart, count = ndimage.label((mask == c).numpy())
kept = [objects[torch.from_numpy(apart) == region].unique() for region in range(1, count + 1)]
check_at_most("the same in the mask, with its void", max(map(len, kept)), 1)

# %% [markdown]
# In the mask, the void line happens to keep the two apart. That is no rescue: a network's answer has no void. It gives every pixel a class, and the two grow together.
#
# One failure is not a proof that no cleverer rule exists. This is: **two different sets of objects with the same semantic map**. Take our scene and declare the two that touch to be one object. Not a single pixel changes its class.

# %%
pair = next(objects_inside for objects_inside in inside if len(objects_inside) > 1)
a, b = pair[:2].tolist()
other_world = instance_map.where(instance_map != b, a)  # object b is now a part of a
classes = torch.cat([torch.zeros(1, dtype=torch.int64), scene["labels"]])
check("its semantic map is the same", classes[other_world], semantic)
changed = (other_world != instance_map).sum().item()
check_at_least("its objects are not: pixels that changed", changed, 1)

# %% [markdown]
# Whatever rule you write gets the same input in both worlds, so it gives the same answer in both, and is wrong in one. The knowledge is not in the semantic map. A method for instances must look at the picture, and be taught with
# instances; chapters [16](16_boxes_and_anchors.ipynb) to [18](18_mask_rcnn.ipynb) do that.
#
# ## 8. What masks are for
#
# | field | the mask says | set of this course | chapters |
# |---|---|---|---|
# | driving | where is road, where is a person? | CamVid: street scenes from a moving car | [08](08_metrics.ipynb), [12](12_context.ipynb), [14](14_transfer.ipynb) |
# | medicine, biology | which pixels are a cell's nucleus, and how many are there? | Nuclei | [04](04_regions_and_superpixels.ipynb), [18](18_mask_rcnn.ipynb) |
# | | where does one nerve cell end? | Membranes: electron microscope | [10](10_unet.ipynb), [22](22_deploy.ipynb) |
# | inspection | where is the crack, a few pixels of the tile? | Tiles: surface defects | [07](07_overlap_losses.ipynb) |
# | photographs | cut out the cat | Pets | [11](11_training.ipynb), [13](13_crf.ipynb), [14](14_transfer.ipynb) |
# | | everything in the picture | COCO | [02](02_masks_and_data.ipynb), [18](18_mask_rcnn.ipynb), [19](19_instance_metrics.ipynb) |
# | | where do people see an outline? | BSDS500 | [03](03_thresholds_and_edges.ipynb) |
#
# `segedu data list` shows them all. Each chapter runs without them.
#
# ## 9. Your own photograph
#
# Now the network leaves home. First it is saved to a file, a **checkpoint**, as you would to use it tomorrow. Then a picture: the one that you named in `photo`, or else a cup of coffee, a photograph by Rachel Michetti that comes with scikit-image.
#
# **Predict:** the network knows discs, squares, triangles, stars and rings from a computer. What does it say about a cup, a spoon and a wooden table? Will it hesitate?

# %%
folder = tempfile.TemporaryDirectory()
checkpoint, picture_file = Path(folder.name) / "first.pt", Path(folder.name) / "photo.png"
options = {"widths": [16, 32, 64, 128]}
about = {"model": "unet", "classes": list(CLASSES), "options": options}
save_checkpoint(checkpoint, {"best": model.state_dict(), "about": about})
print(f"checkpoint: {checkpoint.stat().st_size / 1e6:.1f} MB")

# %% tags=["nbval-ignore-output"]
coffee = torch.from_numpy(skimage.data.coffee().copy()).movedim(-1, 0) / 255
original = read_image(Path(photo)) if photo else coffee
shrink = min(
    1.0, photo_size / max(original.shape[1:])
)  # a telephone's pictures are needlessly large
size = [round(shrink * side) for side in original.shape[1:]]
transforms.to_pil_image(transforms.resize(original, size, antialias=True)).save(picture_file)
print(f"photograph: {size[0]} x {size[1]} pixels")

# %% alt="A photograph of a cup of coffee on a saucer, the mask and the overlay: patches of several classes, ragged at the edges, that have little to do with cup, saucer, spoon and table." tags=["nbval-ignore-output"]
trained = load_trained(checkpoint, device=device)
mask_file, overlay_file = predict_file(trained, picture_file, Path(folder.name))
photograph, overlay = read_image(picture_file), read_image(overlay_file)

fig, axes = show.grid(1, 3, "The network has an answer to everything", width=2.7, height=2.1)
show.image(axes[0], photograph, "the photograph")
show.mask(axes[1], read_index(mask_file), "the mask that was written", num_classes=6)
show.image(axes[2], overlay, "the overlay that was written")
show.legend(fig, CLASSES)
by_function = predict_mask(trained, photograph)
check("the mask file holds the predicted classes", read_index(mask_file), by_function)

# %% [markdown]
# It names every pixel. It has to: the softmax at its end divides a whole of 1 among six classes, and none of them is called "I have never seen this". But perhaps it is at least *unsure*? Let $p$
# be the probability that it gives to the class it chooses.
#
# **Predict:** on what share of the photograph is $p > 0.9$? On the test scenes?


# %% tags=["nbval-ignore-output"]
@torch.no_grad()
def confidence(model, images):
    """Probability of the most likely class at each pixel, (N, H, W)."""
    model.eval()
    return model(images.to(place)).softmax(dim=1).amax(dim=1).cpu()


# %% tags=["nbval-ignore-output"]
p_scenes, p_photo = confidence(model, test_images), confidence(model, photograph[None])[0]
sure = (p_scenes > 0.9) & (test_masks != IGNORE)
sure_and_right = (predicted == test_masks)[sure].double().mean()
print(
    f"scenes: sure of {(p_scenes > 0.9).double().mean():.0%}, right in {sure_and_right:.0%} of it"
)
share = (p_photo > 0.9).double().mean()
print(f"photograph: sure of {share:.0%}")
if not photo:
    check_at_least("share of the cup of coffee that it is sure of", share, least_sure)

# %% alt="Two maps of confidence from 0 to 1. Left a test scene: bright nearly everywhere, dark along outlines. Right the photograph: bright over large areas too." tags=["nbval-ignore-output"]
fig, axes = show.grid(1, 2, "Sure of what it has seen, and of what it has not", width=3, height=2.2)
show.heat(axes[0], p_scenes[1], "p on a test scene", low=0, high=1)
show.heat(axes[1], p_photo, "p on the photograph", low=0, high=1)
check_at_least("p never falls below 1/6: it cannot decline", p_photo, 1 / 6 - 1e-6)

# %% [markdown]
# **A network knows only its data.** Its confidence says how an answer compares with the other answers it can give, and nothing of whether the question makes sense. No error message, no warning: a mask comes out, in
# cheerful colours. What to do about it is the matter of later chapters: pictures of one's own kind ([chapter 02](02_masks_and_data.ipynb)), and networks that have seen a million photographs before ([chapter 14](14_transfer.ipynb)).
#
# Your own annotated pictures need a folder with two folders in it, `images/` and `masks/`, with the same file names in both. The masks are PNG files of class indices. Then, in a terminal:
#
# ```
# segedu train --data my_folder --checkpoint runs/mine.pt
# segedu predict runs/mine.pt holiday.jpg -o out
# ```
#
# The first trains a network like this one, with the same kind of loop, and saves it; the second does what the cell above did, and writes `out/holiday_mask.png` and `out/holiday_overlay.png`.

# %%
folder.cleanup()  # this chapter's own files go

# %% [markdown]
# ## 10. What goes wrong
#
# ### A score on the pictures it learned from
#
# You have 16 annotated pictures, and no more. You train for long, score it on these 16, and the score looks excellent. **Predict:** what does this network get on the test pictures?


# %% tags=["nbval-ignore-output"]
few_images, few_masks = train_images[:16], train_masks[:16]
by_heart, *movers = begin(16, few_epochs)
for _ in range(few_epochs):
    one_epoch(by_heart, *movers, few_images, few_masks)

on_its_own = score(predict(by_heart, few_images), few_masks)
on_test = score(predict(by_heart, test_images), test_masks)
print(f"on its 16 pictures: {on_its_own:.2f}; on test pictures: {on_test:.2f}")
check_at_least("what the wrong score promises too much", on_its_own - on_test, least_gap)

# %% [markdown]
# It learned the 16 pictures by heart: this is **overfitting** (过拟合). A score counts only on pictures that took no part in training. The network of section 3 saw more pictures, and was scored on others.
#
# ### A mask resized like a photograph
#
# Pictures are often made smaller before training, and their masks with them. The usual way to resize a picture takes weighted means of neighbours (bilinear). **Predict:** what is the mean of ground (0) and star (4)?

# %% alt="Left, a mask with a star. Middle, resized with bilinear interpolation: a rim of other class colours appears around the star. Right, resized to the nearest pixel: no new colours."
starry = max(gallery, key=lambda one: (one["mask"] == 4).sum())
star = 4.0 * (semantic_of(starry) == 4)[None, None]  # ground and star, nothing else
small = image_size * 5 // 8
resize = torch.nn.functional.interpolate
smaller = {how: resize(star, size=(small, small), mode=how) for how in ("bilinear", "nearest")}
smaller = {how: made.round().long()[0, 0] for how, made in smaller.items()}
fig, axes = show.grid(1, 3, "Halfway between ground and star lies square")
show.mask(axes[0], star[0, 0].long(), "a mask with ground and star", num_classes=6)
for ax, (how, made) in zip(axes[1:], smaller.items(), strict=True):
    show.mask(ax, made, f"smaller, {how}", num_classes=6)
show.legend(fig, CLASSES)
invented = set(smaller["bilinear"].unique().tolist()) - {0, 4}
check_at_least("classes that bilinear has invented", len(invented), 1)
check("nearest invents none", smaller["nearest"].unique(), [0, 4])

# %% [markdown]
# Class indices are names, not amounts. The mean of two telephone numbers is not the number of somebody in between. Resize masks with `nearest`, or let `torchvision`'s transforms know that it is a mask ([chapter 02](02_masks_and_data.ipynb)).
#
# ### Forgetting `model.eval()`
#
# `predict` above calls `model.eval()` first. Batch normalisation (批归一化) has two ways to work: while training it uses the mean of *the present batch*, afterwards the one that it remembers from training. Leave it in the first, and
# a picture's mask depends on who else is in the batch. **Predict:** how many pixels of a picture change their class when it is alone, compared with the same picture among seven others?

# %% alt="Three masks of the same test picture. Evaluation mode; training mode, alone; training mode, in a batch of eight. The latter two differ from the first and from each other." tags=["nbval-ignore-output"]
forgetful = copy.deepcopy(model).train()
with torch.no_grad():
    among_eight = forgetful(test_images[:8].to(place)).argmax(1).cpu()[0]
    alone = forgetful(test_images[:1].to(place)).argmax(1).cpu()[0]
fig, axes = show.grid(1, 3, "Without eval(), a mask depends on the company")
show.mask(axes[0], predict(model, test_images[:1])[0], "eval(), in any company", num_classes=6)
show.mask(axes[1], alone, "forgotten, alone", num_classes=6)
show.mask(axes[2], among_eight, "forgotten, among eight", num_classes=6)

check_at_least("forgotten: pixels that change with the company", (alone != among_eight).sum(), 1)
company = predict(model, test_images[:8])[0] != predict(model, test_images[:1])[0]
check_at_most("with eval(): share of pixels that change", company.double().mean(), 0.001)

# %% [markdown]
# ## 11. In the article
#
# The course starts from an article on the principles of image segmentation. It is a good list of subjects, and imprecise in places; each chapter says where.
#
# > **In the article, 1.2 and 2.1: the kinds of segmentation.** It lists "pixel-level segmentation" twice, with semantic and instance segmentation as examples both times; then instance segmentation once more, as what gives each region a class *after* semantic segmentation has found the regions.
# > What holds: both label pixels, and instance segmentation tells objects of a class apart. What is imprecise: the list has four lines and three subjects, and panoptic segmentation is missing. What is wrong: instance segmentation is no step after semantic segmentation. Section 7 had two
# > worlds with the same semantic map and different objects. Nor does it add *classes* to regions: semantic segmentation has these already. It adds the objects.
# >
# > **In the article, 2.1: boundary detection.** It calls boundary detection a step that comes before segmentation. That holds for some classical methods, which grow regions between edges ([chapter 04](04_regions_and_superpixels.ipynb)). For a learned network it is wrong: ours was given pictures and nothing else, and its
# > boundaries are wherever its masks end. And it is imprecise for boundary detection, a task of its own, with its own truth and score.
#
# That the scores are different things, one cell shows. Move the true mask of our scene by one pixel to the right (what leaves on the right comes back on the left), and judge it twice: as a mask, and as a boundary, with no tolerance for misplaced lines.
#
# **Predict:** which of the two scores suffers more?

# %%
moved = semantic.roll(1, dims=1)
as_mask = ConfusionMatrix(len(CLASSES))
as_mask.update(moved, semantic)
found, true = boundary_of(moved), boundary_of(semantic)
hits = (found & true).sum().item()
as_boundary = 2 * hits / (found.sum() + true.sum()).item()  # F: 2 hits / (found + true)
check_at_least("mean IoU of the moved mask", as_mask.mean_iou(), 0.65)
check_at_most("F of its boundary pixels", as_boundary, 0.6)

# %% [markdown]
# A good mask, and a bad boundary. The F-measure in use allows a line to be off by a few pixels, and says by how many ([chapter 03](03_thresholds_and_edges.ipynb)). Semantic, instance, panoptic and boundary tasks differ in truth, output and score. None is a step on the way to another.
#
# ## 12. Three quick questions
#
# **1.** A picture of 640 x 480 pixels goes through a network for 19 classes. How many numbers are in its scores, and how many in its mask?
#
# <details><summary>Answer</summary>
#
# $19 \cdot 480 \cdot 640 = 5\,836\,800$ scores, one for each class at each pixel. The mask has one number a pixel: $307\,200$.
#
# </details>
#
# **2.** A pixel has panoptic id 3007. What is it? And a pixel with id 255?
#
# <details><summary>Answer</summary>
#
# Class 3, a triangle, and the picture's seventh object: not necessarily its seventh triangle. 255 is void. Note that `255 // 1000` is 0: who divides without looking turns void into ground.
#
# </details>
#
# **3.** A disc of 10 pixels in a picture of 1000. The network misses it altogether, and is right everywhere else. What are accuracy and mean IoU, over ground and disc?
#
# <details><summary>Answer</summary>
#
# Accuracy is 0.99. The IoU of disc is 0, that of ground $990 / 1000 = 0.99$, since ground was predicted on the disc as well. Mean IoU: 0.495.
#
# </details>

# %%
check("1: scores", UNet(19)(torch.zeros(1, 3, 48, 64)).numel() * 100, 5_836_800)
check("1: pixels", 480 * 640, 307_200)
check("2: 3007 and 255, divided by 1000", [3007 // 1000, 3007 % 1000, 255 // 1000], [3, 7, 0])
disc = torch.zeros(1000, dtype=torch.int64)
disc[:10] = 1
missed = ConfusionMatrix(2)
missed.update(torch.zeros_like(disc), disc)
check(
    "3: accuracy and mean IoU",
    [missed.pixel_accuracy(), missed.mean_iou()],
    [0.99, 0.495],
    tol=1e-6,
)

# %% [markdown]
# ## 13. Exercises
#
# ### Exercise 1: from objects to classes
#
# You have the map of objects, and the class of each object. Write the semantic map. One line is enough: a tensor can be indexed with a tensor. Mind the ground: it has no label.


# %% tags=["exercise"]
def semantic_from_objects(instance_map, labels):
    """The class of each pixel, (H, W) int64.

    Args:
        instance_map: (H, W) int64; 0 for ground, n for the n-th object, from 1.
        labels: (N,) int64; the class of each object.
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda objects, labels: torch.cat([labels.new_zeros(1), labels])[objects],
    inputs=[
        (torch.tensor([[0, 1], [2, 2]]), torch.tensor([4, 3])),
        (torch.tensor([[1, 0, 3], [2, 0, 3]]), torch.tensor([5, 5, 2])),
        (torch.zeros(2, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)),
        (scene["instance_map"].as_subclass(torch.Tensor), scene["labels"]),
    ],
    misconceptions={
        "ground has become an object: in Python, index -1 is the last entry": lambda objects, labels: (
            labels[objects - 1]
        ),
        "the first object is number 1, and the first label has index 0": lambda objects, labels: (
            labels[objects]
        ),
        "that is object or not; the class of each object was asked for": lambda objects, _: (
            objects > 0
        ).long(),
        "those are still the objects' numbers; look their classes up in labels": lambda objects, _: (
            objects
        ),
    },
)
exercise.check(semantic_from_objects)


# %% tags=["solution"]
def semantic_from_objects(instance_map, labels):
    """A table with ground in front, then a look into the table for every pixel at once."""
    table = torch.cat([torch.zeros(1, dtype=torch.int64), labels])
    return table[instance_map]


exercise.check(semantic_from_objects)

# %% [markdown]
# ### Exercise 2: how many of each?
#
# Count the objects of each class in a panoptic map, $1000 \cdot \text{class} + n$ for the $n$-th object of the picture. Ground is no object. Void is nobody's. `torch.unique` lists the ids that occur.


# %% tags=["exercise"]
def count_objects(panoptic, num_classes):
    """Number of objects of each class, (C,) int64; 0 for ground, which is class 0.

    Args:
        panoptic: (H, W) int64; class * 1000 + n, 0 for ground, or 255 for void.
        num_classes: C.
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def objects_by(ids_of):
    """Count the classes of what `ids_of` takes out of a panoptic map."""
    return lambda panoptic, num_classes: torch.bincount(
        ids_of(panoptic) // 1000, minlength=num_classes
    )


exercise = Exercise(
    solution=objects_by(lambda ids: ids[ids >= 1000].unique()),
    inputs=[
        (torch.tensor([[0, 255, 1001], [0, 255, 1001]]), 3),
        (torch.tensor([[0, 255, 1001, 255, 2004], [255, 1003, 255, 2004, 2004]]), 3),
        (torch.tensor([[255, 5002], [255, 5002]]), 6),
        (torch.zeros(2, 2, dtype=torch.int64), 4),
    ],
    misconceptions={
        "those are pixels; an object has many, and counts once": objects_by(
            lambda ids: ids[ids >= 1000]
        ),
        "ground and void are counted as objects of class 0: 255 // 1000 is 0": objects_by(
            torch.unique
        ),
        "void is counted as an object of class 0: 255 // 1000 is 0": objects_by(
            lambda ids: ids[ids != 0].unique()
        ),
        "ground is counted as an object": objects_by(lambda ids: ids[ids != IGNORE].unique()),
        "n numbers the objects of the picture, not those of a class": lambda panoptic, num_classes: (
            torch.stack(
                [
                    (panoptic % 1000)[(panoptic // 1000 == c) & (panoptic >= 1000)].sum() * 0
                    + max(
                        [
                            0,
                            *(panoptic % 1000)[
                                (panoptic // 1000 == c) & (panoptic >= 1000)
                            ].tolist(),
                        ]
                    )
                    for c in range(num_classes)
                ]
            )
        ),
    },
)
exercise.check(count_objects)


# %% tags=["solution"]
def count_objects(panoptic, num_classes):
    """Each id once, without ground and void, then its class."""
    ids = panoptic[panoptic >= 1000].unique()
    return torch.bincount(ids // 1000, minlength=num_classes)


print(dict(zip(CLASSES, count_objects(scene["panoptic"], 6).tolist(), strict=True)))
exercise.check(count_objects)

# %% [markdown]
# ### Exercise 3: accuracy without void
#
# Write pixel accuracy for a batch of masks. Void takes no part. **Predict** before you try it on the network: how much would its accuracy fall if void pixels counted as wrong?


# %% tags=["exercise"]
def pixel_accuracy(prediction, target):
    """Share of the labelled pixels of all pictures that are right; nan if none is labelled.

    Args:
        prediction: (B, H, W) int64; class indices.
        target: (B, H, W) int64; class indices, or `IGNORE`.
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def right(prediction, target):
    """1 where the class is right, else 0."""
    return (prediction == target).double()


two = torch.tensor([[[0, 1], [1, 2]], [[0, 0], [2, 1]]])
exercise = Exercise(
    solution=lambda p, t: right(p, t)[t != IGNORE].mean(),
    inputs=[
        (two, torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 0]]])),
        (two, torch.tensor([[[0, 1], [IGNORE, 1]], [[0, IGNORE], [IGNORE, IGNORE]]])),
        (two, torch.tensor([[[1, 1], [1, 1]], [[1, IGNORE], [IGNORE, IGNORE]]])),
        (two, torch.full((2, 2, 2), IGNORE)),
    ],
    misconceptions={
        "void counts as wrong: the prediction can never be 255": lambda p, t: right(p, t).mean(),
        "void counts as right": lambda p, t: (right(p, t) + (t == IGNORE)).mean(),
        "that is the mean of the pictures' accuracies; pool the pixels first": lambda p, t: (
            torch.stack([right(a, b)[b != IGNORE].mean() for a, b in zip(p, t, strict=True)]).mean()
        ),
    },
)
exercise.check(pixel_accuracy)


# %% tags=["solution", "nbval-ignore-output"]
def pixel_accuracy(prediction, target):
    """The mean over the pixels that have a label; the mean of nothing is nan."""
    labelled = target != IGNORE
    return (prediction[labelled] == target[labelled]).double().mean()


print(f"without void {pixel_accuracy(predicted, test_masks):.3f}, ", end="")
print(f"void counted as wrong {(predicted == test_masks).double().mean():.3f}")
exercise.check(pixel_accuracy)

# %% [markdown]
# ## Summary
#
# Symbols: picture of $H \times W$ pixels, $C$ classes, $T_c$ and $P_c$ the labelled pixels that are class $c$ in truth and in prediction, $n$ the number of an object.
#
# $$
# \begin{aligned}
# \text{mask} &= \arg\max_c \ \text{scores}_c && (C, H, W) \to (H, W) \\
# \text{accuracy} &= \frac{\sum_c |T_c \cap P_c|}{\sum_c |T_c|} && \text{weighs a class by its area} \\
# \mathrm{IoU}_c &= \frac{|T_c \cap P_c|}{|T_c \cup P_c|}, \quad \text{mean IoU} = \frac1C \sum_c \mathrm{IoU}_c && \text{weighs all classes alike} \\
# \text{id} &= 1000\,c + n && \text{panoptic: class and object in one number}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. A mask is an array of class indices as large as the picture, with 255 where nobody should judge. Indices are names: never average them.
# 2. Semantic, instance, panoptic and boundary are four tasks with their own truth, output and score. Objects cannot be had from classes.
# 3. A network knows only its data, and is sure of itself elsewhere too. Score it on pictures that it has not learned from, and by IoU.
#
# **To read**
#
# - O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015: section 2 and figure 1, the network.
# - A. Kirillov, K. He, R. Girshick, C. Rother, P. Dollár, "Panoptic Segmentation", CVPR 2019: section 3 on how the tasks differ, section 4 on their scores.
# - T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014: section 4.3, how the objects were outlined.
# - J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015: section 5, accuracy and mean IoU as everyone computes them.
# - D. Martin, C. Fowlkes, J. Malik, "Learning to Detect Natural Image Boundaries Using Local Brightness, Color, and Texture Cues", *IEEE TPAMI* 26(5), 2004: section 3, the boundary score.
# - C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: section 2, confidence that says more than it knows.
#
# **Next.** The masks of this chapter fell from the sky, correct. Real ones come as colours, polygons, run lengths and one file an object, and each form has its own way to break. [Chapter 02](02_masks_and_data.ipynb) reads and repairs them.

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Training and mixed precision
#
# Seven questions on chapters [11](../../11_training.ipynb) and [20](../../20_gpu_training.ipynb), in PyTorch on the CPU. Write where it says `YOUR CODE HERE`; the cell below each answer tests a part of it, and further tests are run when the notebook is graded. Images are (B, C, H, W), masks (B, H, W) with 255 where there is no label. On Colab, run the first cell before all others.
#
# The cell after it holds what your own numbers are drawn from. Leave it as it is: when the notebook is graded it is set again.

# %% tags=["colab", "remove-cell"] jupyter={"source_hidden": true}
# On Colab this installs segedu and leaves the torch that is there; anywhere else it does nothing.
import sys
from importlib.metadata import version
from importlib.util import find_spec

if "google.colab" in sys.modules and find_spec("segedu") is None:
    import subprocess
    from pathlib import Path

    pins = [f"{name}=={version(name)}\n" for name in ("torch", "torchvision")]
    Path("constraints.txt").write_text("".join(pins))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt"]
    subprocess.run(
        [*command, "segedu[chapters] @ git+https://github.com/segedu/segedu"], check=True
    )

# %% tags=["parameters"]
seed = 0
student = "demo"

# %% nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math
from itertools import pairwise
from random import Random

import torch
import torch.nn.functional as F
from torch import nn

from segedu.grading.asking import student_eval

IGNORE = 255


class Descent:
    """Plain gradient descent, with the two methods that every optimiser of torch has."""

    def __init__(self, net, rate):
        self.weights, self.rate = list(net.parameters()), rate

    def zero_grad(self):
        for weight in self.weights:
            weight.grad = None

    def step(self):
        with torch.no_grad():
            for weight in self.weights:
                if weight.grad is not None:
                    weight.sub_(self.rate * weight.grad)


# %% [markdown]
# ## 1. A schedule
#
# Segmentation papers often let the rate fall as a power of what is left of the run. With $T$ steps of which the first $r$ warm up, step $t = 0, \dots, T-1$ has
#
# $$\eta_t = \eta\, \frac{t + 1}{r} \;\text{ for } t < r, \qquad \eta_t = \eta \Big(1 - \frac{t - r}{T - r}\Big)^{p} \;\text{ from then on.}$$
#
# It counts steps. Who tells it of epochs stays in the warm-up.


# %% nbgrader={"grade": false, "grade_id": "poly_rate", "locked": false, "schema_version": 3, "solution": true, "task": false}
def poly_rate(step, steps, rate, power=0.9, warmup=0):
    """The learning rate at a step of 0..steps - 1; `warmup` of the steps rise in a line."""
    ### BEGIN SOLUTION
    if step < warmup:
        return rate * (step + 1) / warmup
    return rate * (1 - (step - warmup) / (steps - warmup)) ** power
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "poly_rate_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert math.isclose(poly_rate(0, 100, 0.1), 0.1), "without warm-up the first step has the full rate"
assert math.isclose(poly_rate(50, 100, 0.1, power=1), 0.05), "power 1 is a straight line"
### BEGIN HIDDEN TESTS
assert math.isclose(poly_rate(75, 100, 0.2), 0.2 * 0.25**0.9), "a quarter is left: 0.25 to the 0.9"
assert math.isclose(poly_rate(0, 100, 0.1, warmup=10), 0.01), "warm-up begins with a tenth of ten"
assert math.isclose(poly_rate(9, 100, 0.1, warmup=10), 0.1), "warm-up ends at the full rate"
assert math.isclose(poly_rate(55, 100, 0.1, 2, warmup=10), 0.025), (
    "the power sees only the steps behind the warm-up"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Your own numbers, in 16 bits
#
# float16 is finer, bfloat16 reaches farther. Four numbers are drawn from `seed`. What becomes of each?


# %% nbgrader={"grade": false, "grade_id": "numbers", "locked": true, "schema_version": 3, "solution": false, "task": false}
def numbers_of(seed):
    """Four numbers that are the seed's own."""
    draw = Random(seed).random
    return {
        "fine": 1 + (1 + 2 * int(500 * draw())) / 1024,
        "huge": 66000.0 + int(30000 * draw()),
        "tiny": 1e-8 * (1 + draw()),
        "count": 2.0 ** (6 + int(5 * draw())),
    }


numbers = numbers_of(seed)
student, numbers

# %% [markdown]
# Write the four answers as a dict, by hand or by code: `"fine"` rounded to bfloat16, `"huge"` and `"tiny"` rounded to float16, and for `"count"` the sum of the number and 1, computed in bfloat16.


# %% nbgrader={"grade": false, "grade_id": "mine", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
mine = {
    "fine": torch.tensor(numbers["fine"]).bfloat16().item(),
    "huge": torch.tensor(numbers["huge"]).half().item(),
    "tiny": torch.tensor(numbers["tiny"]).half().item(),
    "count": (torch.tensor(numbers["count"]).bfloat16() + 1).item(),
}
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "mine_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
assert set(mine) == {"fine", "huge", "tiny", "count"}, (
    'mine is a dict with the four entries "fine", "huge", "tiny" and "count"'
)
### BEGIN HIDDEN TESTS
own = numbers_of(seed)
marks += math.isclose(mine["fine"], 1 + round((own["fine"] - 1) * 128) / 128, rel_tol=1e-6)
marks += mine["huge"] == math.inf
marks += mine["tiny"] == 0
marks += mine["count"] == (own["count"] + 1 if own["count"] < 256 else own["count"])
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 3. A large batch in small parts
#
# Gradients add up, so a batch may be learnt in parts when memory is short. But the loss is a mean over the batch's *labelled* pixels, and parts differ in how many they have. One step at the end must be the step of the whole batch.


# %% nbgrader={"grade": false, "grade_id": "train_step", "locked": false, "schema_version": 3, "solution": true, "task": false}
def train_step(net, optimizer, images, masks, parts):
    """One step of the optimiser on the cross-entropy of a batch, learnt in `parts` parts.

    Args:
        net: Gives logits (B, C, H, W); it has no batch normalisation.
        optimizer: Has `zero_grad()` and `step()`; gradients of earlier steps may still be there.
        images: (B, C', H, W), split by `chunk`.
        masks: (B, H, W) class indices, or IGNORE; a part may have no label at all.
        parts: At least 1.

    Returns:
        The batch's loss, a float; 0.0 if there is no label, and then nothing is learnt.
    """
    ### BEGIN SOLUTION
    labelled = (masks != IGNORE).sum().clamp(min=1)
    optimizer.zero_grad()
    total = 0.0
    for image, mask in zip(images.chunk(parts), masks.chunk(parts), strict=True):
        summed = F.cross_entropy(net(image), mask, ignore_index=IGNORE, reduction="sum")
        (summed / labelled).backward()
        total += float(summed.detach() / labelled)
    optimizer.step()
    return total
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "train_step_test", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
marks = 0
images = torch.linspace(-1, 1, 6 * 4).reshape(6, 1, 2, 2)
masks = torch.arange(24).reshape(6, 2, 2) % 2
weight, bias = torch.tensor([0.5, -1.0]).reshape(2, 1, 1, 1), torch.tensor([0.1, 0.0])
learnt = (
    "[n := nn.Conv2d(1, 2, 1), n.weight.data.copy_(w), n.bias.data.copy_(b),"
    " o := Descent(n, 0.5), {}, n.weight.detach(), n.bias.detach()][-3:]"
)
step = "train_step(n, o, x, y, parts)"
start = {"w": weight, "b": bias, "x": images}
loss, *_ = student_eval(learnt.format(step), **start, y=masks, parts=1)
wanted = F.cross_entropy(F.conv2d(images, weight, bias), masks)
marks += math.isclose(loss, float(wanted), rel_tol=1e-4)
### BEGIN HIDDEN TESTS


def whole(y, times=1):
    w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    for _ in range(times):
        logits = F.conv2d(images, w, b)
        loss = F.cross_entropy(logits, y, ignore_index=255, reduction="sum") / (y != 255).sum()
        slopes = torch.autograd.grad(loss, (w, b))
        w, b = (
            (v - 0.5 * s).detach().requires_grad_() for v, s in zip((w, b), slopes, strict=True)
        )
    return w.detach(), b.detach()


def agrees(y, parts, asked=step, times=1):
    _, *after = student_eval(learnt.format(asked), **start, y=y, parts=parts)
    return all(torch.allclose(a, e, atol=1e-5) for a, e in zip(after, whole(y, times), strict=True))


loss, *_ = student_eval(learnt.format(step), **start, y=masks, parts=3)
sums = math.isclose(loss, float(wanted), rel_tol=1e-4)
loss, *kept = student_eval(learnt.format(step), **start, y=torch.full_like(masks, 255), parts=2)
keeps = loss == 0 and torch.equal(kept[0], weight) and torch.equal(kept[1], bias)
half_void, one_part_void = masks.clone(), masks.clone()
half_void[:3, 0] = 255
one_part_void[:2] = 255
marks += agrees(masks, 3) and sums
marks += agrees(half_void, 2) and keeps
marks += agrees(one_part_void, 3)
marks += agrees(masks, 2, asked=f"[{step}, {step}]", times=2) and (
    agrees(masks, 2, asked=f"[n(x).sum().backward(), {step}][-1]")
)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 4. Loss scaling
#
# In float16 small gradients become 0. So the loss is multiplied by a scale $S$ before the way back. What comes back is $S$ times too large, and now and then it is infinite or no number; that can be seen, and the step is skipped.


# %% nbgrader={"grade": false, "grade_id": "scaled_step", "locked": false, "schema_version": 3, "solution": true, "task": false}
def scaled_step(weight, scaled, scale, good, rate, interval):
    """One step of gradient descent with a scaled gradient.

    If the gradient has an entry that is infinite or no number, the weight stays and the scale is
    halved. Otherwise the weight makes its step in float32; at the `interval`-th good step since
    the scale last changed, the scale is doubled.

    Args:
        weight: Any shape, float32.
        scaled: The gradient of scale * loss, float16.
        scale: S.
        good: Good steps since the scale last changed.
        rate: The learning rate.
        interval: Good steps after which the scale is doubled.

    Returns:
        (weight, scale, good) after the step.
    """
    ### BEGIN SOLUTION
    if not torch.isfinite(scaled).all():
        return weight, scale / 2, 0
    weight = weight - rate * (scaled.float() / scale)
    return (weight, scale * 2, 0) if good + 1 == interval else (weight, scale, good + 1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "scaled_step_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
before, plain = torch.tensor([1.0, 2.0]), torch.tensor([8.0, -8.0]).half()
after, scale, good = scaled_step(before, plain, 16.0, 0, 0.5, 10)
assert torch.allclose(after, torch.tensor([0.75, 2.25])), "half of 8 / 16 is taken from the first"
marks += [scale, good] == [16.0, 1]
### BEGIN HIDDEN TESTS
for odd in (math.inf, -math.inf, math.nan):
    kept_weight, lower, since = scaled_step(
        before, torch.tensor([odd, 1.0]).half(), 16.0, 3, 0.5, 10
    )
    if not (torch.equal(kept_weight, before) and [lower, since] == [8.0, 0]):
        break
else:
    marks += 1
small = torch.tensor([2.0**-14, 0.0]).half()
moved, *_ = scaled_step(torch.zeros(2), small, 2.0**16, 0, 2.0**20, 10)
marks += bool(torch.allclose(moved, torch.tensor([-(2.0**-10), 0.0]), atol=1e-8))
_, higher, since = scaled_step(before, plain, 16.0, 9, 0.5, 10)
marks += [higher, since] == [32.0, 0]
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 5. Evaluation
#
# A score must not depend on how the pictures were dealt into batches, nor on dice, and taking it must not change the network.


# %% nbgrader={"grade": false, "grade_id": "accuracy", "locked": false, "schema_version": 3, "solution": true, "task": false}
def accuracy(net, batches):
    """The share of labelled pixels that get their class, over all batches; 0.0 without a label.

    The network answers in evaluation mode and is afterwards in the mode it was in before.

    Args:
        net: Gives logits (B, C, H, W).
        batches: Pairs of images and masks.
    """
    ### BEGIN SOLUTION
    mode = net.training
    net.eval()
    right = count = 0
    with torch.inference_mode():
        for image, mask in batches:
            labelled = mask != IGNORE
            right += int((net(image).argmax(dim=1) == mask)[labelled].sum())
            count += int(labelled.sum())
    net.train(mode)
    return right / count if count else 0.0
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "accuracy_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
by_sign = (
    "[n := nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1), nn.Dropout(p)),"
    " n[1].weight.data.copy_(w), n[1].bias.data.zero_(), n.train(mode),"
    " accuracy(n, {}), n.training, [float(v.sum()) for v in n.buffers()]][-3:]"
)
sign = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
rows = torch.tensor([-1.0, 2, 3, 4]).reshape(1, 1, 1, 4)
share, *_ = student_eval(
    by_sign.format("[(x, y)]"), x=rows, y=torch.tensor([[[0, 1, 1, 0]]]), w=sign, p=0.0, mode=False
)
marks += math.isclose(share, 0.75)
### BEGIN HIDDEN TESTS
few = rows[..., :1]
share, stayed, _ = student_eval(
    by_sign.format("[(x, y), (v, u)]"),
    x=rows, y=torch.tensor([[[0, 1, 255, 1]]]), v=few, u=torch.tensor([[[1]]]), w=sign, p=0.0, mode=False,
)  # fmt: skip
marks += math.isclose(share, 0.75) and stayed is False
share, training, kept_averages = student_eval(
    by_sign.format("[(x, y)]"), x=rows + 9, y=torch.ones(1, 1, 4).long(), w=sign, p=0.5, mode=True
)
marks += math.isclose(share, 1.0) and kept_averages == [0.0, 1.0, 0.0]
none, *_ = student_eval(
    by_sign.format("[(x, y)]"), x=rows, y=torch.full((1, 1, 4), 255), w=sign, p=0.0, mode=True
)
marks += training is True and none == 0
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 6. An order for every epoch
#
# A run that can be repeated needs an order that comes from the seed; one that can be resumed needs the order of epoch $e$ without having drawn those before; and every epoch needs an order of its own. Nor may it take numbers from the dice that others use.


# %% nbgrader={"grade": false, "grade_id": "order", "locked": false, "schema_version": 3, "solution": true, "task": false}
def order(n, seed, epoch):
    """An order of 0..n-1 as a list, drawn from (seed, epoch) alone and different for each pair.

    The global generator of torch is left as it is.
    """
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    return torch.randperm(n, generator=generator).tolist()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "order_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
marks = 0
assert sorted(order(20, seed, 0)) == list(range(20)), "each index is there once"
marks += list(order(20, seed, 3)) == list(order(20, seed, 3)) != list(range(20))
### BEGIN HIDDEN TESTS
orders = {tuple(map(int, order(20, s, e))) for s in (seed, seed + 1, seed + 2) for e in range(4)}
steps = [sum(b - a == 1 for a, b in pairwise(found)) for found in orders]
marks += len(orders) == 12 and max(steps) < 10  # a rotated list is in order
dice = student_eval("[torch.manual_seed(5), order(10, s, 1), torch.rand(1).item()][-1]", s=seed)
undisturbed = student_eval("[torch.manual_seed(5), torch.rand(1).item()][-1]")
other_dice = student_eval("[torch.manual_seed(6), order(10, s, 1)][-1]", s=seed)
marks += dice == undisturbed and list(other_dice) == list(order(10, seed, 1))
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 7. In words
#
# A run in float16 without a scaler shows a loss that no longer falls from the second epoch on, although nothing is infinite. In three to five sentences: what may have happened to the gradients, how would you find out in one step, and why would bfloat16 not have it?

# %% [markdown] nbgrader={"grade": true, "grade_id": "in_words", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Gradients of a mean over many pixels may have fallen below float16's smallest number, so that they
# are 0 and nothing is learnt. Take the gradients of one batch in float16 and in float32 and count
# the entries that are 0 in one only; or multiply the loss by 1024 and look whether those gradients
# come back. bfloat16 has float32's exponents, so such gradients stay, only more coarsely rounded.
# ### END SOLUTION

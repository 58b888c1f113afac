# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # What if the object is 0.3 % of the pixels?
#
# A crack in a steel plate, a nodule in a lung, a ball on a pitch: seven pixels in two thousand. A network trained with cross-entropy, the loss of
# [chapter 06](06_cross_entropy.ipynb), answers "ground" everywhere, is right for 99.7 % of the pixels, and has found nothing. This chapter asks why, line by line, and derives the losses that
# people use instead. Each of them mends one thing and breaks another; you will see both.
#
# **You will be able to**
#
# - say where cross-entropy's gradient goes when the object is tiny, and what class weights and the focal loss change about it;
# - turn Dice, IoU (Jaccard) and Tversky into losses, derive their gradients in two lines each, and say why "IoU loss" on masks cannot work;
# - compute the Lovász loss by hand, and the boundary loss from a distance map;
# - decide what an absent class, an empty picture and the ground should count;
# - predict which loss finds a tiny object and which answers "nothing", and test the prediction over several seeds.
#
# *50 minutes. Before: [cross-entropy](06_cross_entropy.ipynb) for logits, softmax and $p - y$. On paper: the derivative of a quotient.*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 48  # height and width of the pictures of section 10
pictures = 64  # to learn from, and as many to score
steps = 100  # of training, for each loss and seed
seeds = 3  # how often each training is repeated
least_gain = 0.2  # by which the mean IoU of Dice of the object must beat others
tile_steps = 100  # of training on real tiles, where they are

# %%
import inspect
import math

import torch
import torch.nn.functional as F
from torch import nn

# %%
from segedu import losses, show
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.metrics.confusion import ConfusionMatrix
from segedu.palette import class_colours

colours = class_colours(8) / 255

# %% [markdown]
# ## 1. Where cross-entropy looks
#
# Two classes: ground (0) and object (1). As in chapter 06, one logit $u_n$ a pixel is enough: $p_n = \sigma(u_n)$ is the probability that pixel $n$ is object, $y_n \in \lbrace 0, 1 \rbrace$ its truth,
# $n = 1, \dots, N$. The cross-entropy of the picture and its gradient are
#
# $$L = -\frac1N \sum_n \big( y_n \ln p_n + (1 - y_n) \ln (1 - p_n) \big), \qquad \frac{\partial L}{\partial u_n} = \frac{p_n - y_n}{N}.$$
#
# Let $T = \sum_n y_n$ be the number of object pixels. A new network says $p_n = \frac12$ everywhere. Each object pixel pulls up with $\frac{1}{2N}$, each ground pixel down with $\frac{1}{2N}$.
#
# By hand, for $N = 2304$ (a picture of 48 x 48) and $T = 7$: all object pixels together pull with $\frac{7}{2 \cdot 2304} = 0.0015$, all ground pixels with $\frac{2297}{2 \cdot 2304} = 0.4985$.
# The ground pulls 328 times as hard.
#
# **Predict:** the network follows the stronger pull until both are equal. Which $p$ is that, the same for all pixels? How much of the loss is gone by then?

# %%
N, T = 48 * 48, 7
object_pull, ground_pull = 0.5 * T / N, 0.5 * (N - T) / N
check("the object's pull at p = 1/2", object_pull, 0.0015, tol=5e-5)
check("the ground's", ground_pull, 0.4985, tol=5e-5)
check("how many times as hard", ground_pull / object_pull, 328, tol=0.5)

f = T / N  # the share of the object
at_start, at_share = math.log(2), -f * math.log(f) - (1 - f) * math.log(1 - f)
check("pulls are equal at p = f", T * (1 - f), (N - T) * f, tol=1e-9)
check("the share f", f, 0.003, tol=5e-5)
check("loss at p = 1/2", at_start, 0.6931, tol=5e-5)
check("loss at p = f", at_share, 0.0206, tol=5e-5)
check_at_least("share of the loss that is gone", 1 - at_share / at_start, 0.97)

# %% [markdown]
# Chapter 06 proved it: of pixels that look alike, cross-entropy asks the share. At $p = f = 0.003$, 97 % of the loss has gone, and every pixel is called ground. From there on the object can
# still be learned, since the gradient is not zero, only slowly: what there is left to gain is 0.02.
#
# The plainest cure is a **class weight** (类别权重): let each object pixel count $w$ times. With $w = (N - T)/T = 328$ the pulls are equal at $p = \frac12$. Chapter 06 also said what it costs:
# the answer is then the share of the *weighted* pixels, $\frac{wf}{wf + 1 - f}$, and no honest probability.
#
# **Predict:** of pixels that look alike, one in a hundred is object. With $w = 328$, what does the network say of them? Object or ground?

# %%
w = (N - T) / T
check("weighted, one object pixel in a hundred: p", w * 0.01 / (w * 0.01 + 0.99), 0.768, tol=5e-4)

# %% [markdown]
# "Object", with 77 %, and it is wrong 99 times in a hundred. Weights find everything, and call far too much. Section 10 will show this on pictures.
#
# ## 2. Focal loss: look away from what is right already
#
# The other cure changes the loss of each pixel. Write $p_t$ for the probability of the *true* class. Most ground pixels have $p_t = 0.99$ soon; each pulls with 0.01 only, but there are thousands.
# The **focal loss** (焦点损失; Lin et al., ICCV 2017, eq. 4) multiplies the cross-entropy of a pixel by a factor that is small where the pixel is right:
#
# $$\ell_\gamma = -(1 - p_t)^\gamma \ln p_t, \qquad \gamma \ge 0.$$
#
# The gradient, by the product rule and with $\partial p_t/\partial z_c = p_t (y_c - p_c)$, softmax's Jacobian of chapter 06:
#
# $$
# \begin{aligned}
# \frac{\mathrm d \ell_\gamma}{\mathrm d p_t} &= \gamma (1 - p_t)^{\gamma - 1} \ln p_t - \frac{(1 - p_t)^\gamma}{p_t}, \\
# \frac{\partial \ell_\gamma}{\partial z_c} &= \underbrace{(1 - p_t)^{\gamma - 1} \big( 1 - p_t - \gamma\, p_t \ln p_t \big)}_{\text{factor}} \; (p_c - y_c).
# \end{aligned}
# $$
#
# It is $p - y$ again, times a factor that depends on $p_t$ alone. By hand, $\gamma = 2$ and $p_t = 0.9$: the loss falls from 0.1054 to $0.01 \cdot 0.1054 = 0.0011$, and the factor is
# $0.1 \cdot (0.1 + 1.8 \cdot 0.1054) = 0.0290$.
#
# **Predict:** is the factor ever larger than 1?


# %%
def focal(p_t, gamma=2.0):
    """Focal loss of pixels whose true class has the probability `p_t`."""
    return -((1 - p_t) ** gamma) * p_t.log()


def focal_factor(p_t, gamma=2.0):
    """What the focal loss multiplies cross-entropy's gradient p - y by."""
    return (1 - p_t) ** (gamma - 1) * (1 - p_t - gamma * p_t * p_t.log())


p_t = torch.tensor(0.9, dtype=torch.float64)
check("cross-entropy at 0.9", -p_t.log(), 0.1054, tol=5e-5)
check("focal loss", focal(p_t), 0.0011, tol=5e-5)
check("factor", focal_factor(p_t), 0.0290, tol=5e-5)

# %%
generator = torch.Generator().manual_seed(seed)
z = (3 * torch.randn(50, 4, generator=generator, dtype=torch.float64)).requires_grad_()
t = torch.randint(4, (50,), generator=generator)
p = z.softmax(1)
p_true = p.gather(1, t[:, None])[:, 0]
[slope] = torch.autograd.grad(focal(p_true).sum(), z)
y = F.one_hot(t, 4)
check("autograd", slope, focal_factor(p_true)[:, None] * (p - y), tol=1e-12)

# %% alt="Two panels over the probability of the true class. Left: cross-entropy and focal losses with gamma 1, 2 and 5; the focal ones are flatter near 1. Right: the pull on the logit; focal losses pull less than cross-entropy when p is above about 0.4 and slightly more below."
x = torch.linspace(0.005, 0.995, 199, dtype=torch.float64)
fig, axes = show.grid(1, 2, "Focal loss looks away from pixels that are right", width=4, height=3)
for gamma, colour in ((0, "black"), (1, colours[6]), (2, colours[7]), (5, colours[3])):
    name = "cross-entropy" if gamma == 0 else f"gamma = {gamma}"
    axes[0].plot(x, focal(x, gamma), color=colour, label=name)
    axes[1].plot(x, focal_factor(x, gamma) * (1 - x), color=colour, label=name)
axes[0].set(title="loss", ylim=(0, 4), xlabel="p of the true class")
axes[1].set(title="pull on its logit", xlabel="p of the true class")
axes[0].legend()
check_at_least("largest factor, gamma 2", focal_factor(x).max(), 1.1)
check_at_most("factor at p = 0.99", focal_factor(x[-2]), 0.001)

# %% [markdown]
# Yes: for hard pixels it is a little above 1. A pixel at 0.99 counts a thousandth. So thousands of easy ground pixels no longer drown seven hard ones *once the ground is easy*. Two things to know.
# It comes too late for the first steps: at $p = \frac12$ all pixels are equally hard, and the ground still pulls 328 times as hard. And it no longer asks for the share: of pixels that look alike it
# asks for something nearer to one half.
#
# **Predict:** ten pixels look alike, three of them are object. Cross-entropy asks for 0.3. What does the focal loss with $\gamma = 2$ ask for?

# %%
q = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
asked_ce = q[(0.3 * focal(q, 0) + 0.7 * focal(1 - q, 0)).argmin()]
asked_focal = q[(0.3 * focal(q, 2) + 0.7 * focal(1 - q, 2)).argmin()]
check("cross-entropy asks for", asked_ce, 0.3, tol=1e-3)
check("focal loss asks for", asked_focal, 0.422, tol=2e-3)

# %% [markdown]
# A network trained with focal loss is less sure than it should be. [Chapter 08](08_metrics.ipynb) measures such things.
#
# ## 3. From masks to sums
#
# Neither cure asks what we want to know: *how well do the masks overlap?* Write $P$ for the set of pixels predicted as object and $T$ for the true ones. The two scores are
#
# $$\text{Dice} = \frac{2\,|P \cap T|}{|P| + |T|}, \qquad \text{IoU or Jaccard} = \frac{|P \cap T|}{|P \cup T|}.$$
#
# Pixels that nobody calls object are in none of these sets: the ground cannot drown anything. So, why not minimise $1 - \text{IoU}$?
#
# **Predict:** four pixels, the first two are object. The logits give $p = (\frac34, \frac12 - 0.01, \frac14, \frac14)$. The mask is $p > \frac12$. What is the derivative of its IoU in the logits?


# %%
def hard_iou(p, y):
    """Intersection over union of the mask p > 1/2 with the truth."""
    mask, truth = p > 0.5, y > 0.5
    return (mask & truth).sum() / (mask | truth).sum()


# %%
y = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
u = torch.logit(torch.tensor([0.75, 0.49, 0.25, 0.25], dtype=torch.float64))
h = 1e-3
moves = h * torch.eye(4, dtype=torch.float64)
measured = [
    (hard_iou((u + e).sigmoid(), y) - hard_iou((u - e).sigmoid(), y)) / (2 * h) for e in moves
]
check("IoU of the mask", hard_iou(u.sigmoid(), y), 0.5)
check("its derivatives, measured", torch.stack(measured), 0.0)
check(
    "does autograd find a way through p > 1/2?",
    hard_iou(u.requires_grad_().sigmoid(), y).requires_grad,
    want=False,
)

# %% [markdown]
# > **In the article, question 4: "IoU loss".** It lists cross-entropy, Dice loss and IoU loss as if one could take the score and minimise it. IoU of masks is a staircase: flat nearly everywhere, with jumps. Its
# > derivative is 0 wherever there is one, and autograd does not even start. What is meant is one of two things: a **soft** IoU, in which probabilities stand for the mask (sections 4 and 5), or the
# > **Lovász** extension (section 6), which joins the steps of the staircase by straight pieces.
#
# ### Soft counts
#
# The trick of the soft version: sizes of sets are sums of zeros and ones, so put $p$ where the mask was.
#
# $$I = \sum_n p_n y_n \;\;(|P \cap T|), \qquad P = \sum_n p_n \;\;(|P|), \qquad T = \sum_n y_n \;\;(|T|).$$
#
# From here on $P$ and $T$ are these numbers, and the union is $U = P + T - I$.
#
# By hand, four pixels with $p = (\frac34, \frac12, \frac14, \frac14)$ and $y = (1, 1, 0, 0)$:
# $I = \frac54$, $P = \frac74$, $T = 2$, $U = \frac52$. So soft Dice is $\frac{2 \cdot 5/4}{15/4} = \frac23$ and soft IoU $\frac{5/4}{5/2} = \frac12$.


# %%
def soft_counts(p, y):
    """I, P and T: sums of p y, of p and of y over the last axis."""
    return (p * y).sum(-1), p.sum(-1), y.sum(-1)


def dice(p, y):
    """1 - soft Dice."""
    I, P, T = soft_counts(p, y)
    return 1 - 2 * I / (P + T)


def jaccard(p, y):
    """1 - soft IoU."""
    I, P, T = soft_counts(p, y)
    return 1 - I / (P + T - I)


# %%
p = torch.tensor([0.75, 0.5, 0.25, 0.25], dtype=torch.float64)
check("I, P, T", torch.stack(soft_counts(p, y)), [1.25, 1.75, 2.0])
check("Dice loss: 1 - 2/3", dice(p, y), 1 / 3, tol=1e-12)
check("Jaccard loss: 1 - 1/2", jaccard(p, y), 1 / 2, tol=1e-12)
corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)  # all masks
hard = torch.stack([hard_iou(mask, y) for mask in corners])
check("for all 16 masks, 1 - IoU", jaccard(corners, y), 1 - hard, tol=1e-6)

# %% [markdown]
# At the corners, where every $p$ is 0 or 1, the soft loss *is* the loss of the mask. Between them it is smooth.
#
# ## 4. The gradients of Dice and Jaccard
#
# Only two derivatives are needed: $\partial I / \partial p_n = y_n$ and $\partial P / \partial p_n = 1$; $T$ does not move. With $S = P + T$, the quotient rule gives
#
# $$
# \begin{aligned}
# \frac{\partial}{\partial p_n} \Big( 1 - \frac{2I}{S} \Big) &= -2\, \frac{y_n S - I}{S^2} = \begin{cases} -2\,(S - I)/S^2 & \text{on the object} \\ +2\, I/S^2 & \text{on the ground,} \end{cases} \\
# \frac{\partial}{\partial p_n} \Big( 1 - \frac{I}{U} \Big) &= -\frac{y_n U - I (1 - y_n)}{U^2} = \begin{cases} -1/U & \text{on the object} \\ +I/U^2 & \text{on the ground.} \end{cases}
# \end{aligned}
# $$
#
# (For the second: $\partial U/\partial p_n = 1 - y_n$.) **In $p$ the gradient has two values only**: one for all object pixels, one for all ground pixels, whatever their own $p$.
#
# By hand: $S = \frac{15}{4}$, so Dice has $-2 \cdot \frac{10/4}{225/16} = -\frac{16}{45}$ on the object and $+\frac{8}{45}$ on the ground. Jaccard has $-\frac25$ and $+\frac15$.


# %%
def dice_gradient(p, y):
    """Gradient of `dice` in p."""
    I, P, T = soft_counts(p, y)
    return -2 * (y * (P + T) - I) / (P + T) ** 2


def jaccard_gradient(p, y):
    """Gradient of `jaccard` in p."""
    I, P, T = soft_counts(p, y)
    U = P + T - I
    return torch.where(y == 1, -1 / U, I / U**2)


# %%
check("Dice, by hand", dice_gradient(p, y), [-16 / 45, -16 / 45, 8 / 45, 8 / 45], tol=1e-12)
check("Jaccard, by hand", jaccard_gradient(p, y), [-0.4, -0.4, 0.2, 0.2], tol=1e-12)
some_p = torch.rand(40, generator=generator, dtype=torch.float64, requires_grad=True)
some_y = (torch.rand(40, generator=generator) < 0.3).double()
for name, loss, gradient in (("Dice", dice, dice_gradient), ("Jaccard", jaccard, jaccard_gradient)):
    [slope] = torch.autograd.grad(loss(some_p, some_y), some_p)
    check(f"{name}: autograd", gradient(some_p, some_y), slope, tol=1e-12)

# %% [markdown]
# ### The same in the logits
#
# A network moves logits, and $\mathrm dp_n/\mathrm du_n = p_n (1 - p_n)$. So each of these gradients is multiplied by $p_n(1 - p_n)$.
#
# **Predict:** a missed object pixel has $p_n = 0.001$. Cross-entropy pulls at it with almost 1 (over $N$). What do Dice and Jaccard do? Recall the squared error of chapter 06.

# %% alt="The pull on the logit of one object pixel, as its p goes from 0 to 1, on a picture where the other six object pixels are half found. Cross-entropy's pull is a falling straight line, highest at 0. Dice's and Jaccard's are bumps that go to 0 at both ends."
x = torch.linspace(0.001, 0.999, 199, dtype=torch.float64)
others = torch.cat([torch.full((6,), 0.5), torch.full((50,), 0.02)]).double()
many_p = torch.cat([x[:, None], others.expand(len(x), -1)], dim=1)  # one row for each x
many_y = torch.cat([torch.ones(7), torch.zeros(50)]).double().expand(len(x), -1)
fig, [ax] = show.grid(1, 1, width=6.5, height=3)
ax.plot(x, (1 - x) / (1 - x[0]), color="black", label="cross-entropy")
for name, gradient, style in (("Dice", dice_gradient, "-"), ("Jaccard", jaccard_gradient, "--")):
    each = torch.stack([gradient(a, b)[0] for a, b in zip(many_p, many_y, strict=True)])
    pull = -each * x * (1 - x)
    ax.plot(x, pull / pull.max(), style, color=colours[7], label=name)
    check_at_most(f"{name}: pull at p = 0.001, of its largest", pull[0] / pull.max(), 0.01)
ax.set(title="Sure and wrong: the overlap losses have let go", xlabel="p of an object pixel")
ax.set(ylabel="pull on its logit,\nof the largest")
ax.legend()
check("cross-entropy: of its largest at p = 0.001", (1 - x[0]) / (1 - x[0]), 1.0)

# %% [markdown]
# They let go. A sure miss is hardly pulled at all: the same illness as the squared error's. In cross-entropy the logarithm cancels the $p(1-p)$; here nothing does. That is one reason why Dice is so often *added* to cross-entropy.
#
# ## 5. What the size of the object changes
#
# Now the question of the title. Let all $N$ pixels have the same $p = q$, as in a new network, and let $T$ of them be object. Then $P = qN$ and $I = qT$. Dice pulls in total
#
# $$\text{on the object: } T \cdot \frac{2 (S - I)}{S^2}\, q(1 - q), \qquad \text{on the ground: } (N - T) \cdot \frac{2 I}{S^2}\, q(1 - q),$$
#
# and the ratio of the two is, with $S - I = qN + (1 - q)T$,
#
# $$\frac{\text{object}}{\text{ground}} = \frac{T\,(S - I)}{(N - T)\, q T} = 1 + \frac{T}{q\,(N - T)}.$$
#
# **The size of the object cancels.** The object pulls at least as hard as the ground, be it one pixel or a thousand. For cross-entropy the same ratio is $\frac{T (1 - q)}{(N - T)\, q}$: at $q = \frac12$ it is the
# 1/328 of section 1.
#
# **Predict:** so does Dice also pull *hard* on a tiny object? Look at the left panel before you read on.

# %% alt="Two panels over the object's share of the picture, on logarithmic axes. Left: total pull on the object; cross-entropy's and Dice's lines are nearly parallel and both fall with the share. Right: object's pull divided by the ground's; cross-entropy's falls in proportion to the share, Dice's stays at 1."
T_all = torch.logspace(0, 3, 40, dtype=torch.float64)
q, n = 0.5, 48.0**2
S = q * n + T_all
pull_dice = T_all * 2 * (S - q * T_all) / S**2 * q * (1 - q)
pull_ce = T_all * (1 - q) / n
ratio_dice, ratio_ce = 1 + T_all / (q * (n - T_all)), T_all * (1 - q) / ((n - T_all) * q)
fig, axes = show.grid(1, 2, "Dice balances object and ground, whatever the size", width=4, height=3)
for values, name, style in ((pull_ce, "cross-entropy", "-"), (pull_dice, "Dice", "--")):
    axes[0].loglog(T_all / n, values, style, color=colours[6 if style == "-" else 7], label=name)
axes[1].loglog(T_all / n, ratio_ce, "-", color=colours[6], label="cross-entropy")
axes[1].loglog(T_all / n, ratio_dice, "--", color=colours[7], label="Dice")
axes[0].set(title="pull on the object", xlabel="share of the picture")
axes[1].set(title="object's pull / ground's", xlabel="share of the picture")
axes[0].legend()
check_at_least("Dice: the object pulls at least as hard as the ground", ratio_dice, 1.0)

# %%
one = torch.full((N,), 0.5, dtype=torch.float64)
seven = (torch.arange(N) < T).double()
pulls = -dice_gradient(one, seven) * one * (1 - one)  # in the logits
check(
    "Dice: the object's pull / the ground's",
    pulls[:T].sum() / -pulls[T:].sum(),
    1 + T / (0.5 * (N - T)),
    tol=1e-9,
)
check("which is", 1 + T / (0.5 * (N - T)), 1.006, tol=5e-4)
check(
    "Dice's pull on the object, over cross-entropy's", pulls[:T].sum() / object_pull, 2.0, tol=0.02
)

# %% [markdown]
# No: it is only twice cross-entropy's 0.0015. What Dice does is to let go of the ground as well. In a network whose optimiser rescales gradients (Adam does), that balance is what counts.
#
# ### Who is in the mean
#
# With two classes there are two Dice scores, the object's and the ground's, and one takes the mean over classes. That sounds harmless.
#
# **Predict:** the network cannot yet tell pixels apart: all have the same $q$. Which $q$ has the lowest Dice loss of the object? Which the lowest mean of object's and ground's?

# %% alt="Dice loss when all pixels say the same q. The object's own Dice loss falls slowly and steadily towards q = 1. The mean of object and ground is lowest at q = 0 and rises steeply near q = 1."
q = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)[:, None]  # the same for all pixels
alone = dice(q.expand(-1, N), seven.expand(len(q), -1))
ground = dice(1 - q.expand(-1, N), 1 - seven.expand(len(q), -1))
both = (alone + ground) / 2
fig, [ax] = show.grid(1, 1, width=6.5, height=3)
ax.plot(q[:, 0], alone, "--", color=colours[7], label="Dice of the object alone")
ax.plot(q[:, 0], both, color=colours[0], label="mean of object and ground")
ax.set(title="Before it can tell pixels apart", xlabel="q, said of every pixel", ylabel="loss")
ax.legend()
check("object alone: lowest at", q[alone.argmin(), 0], 0.999, tol=1e-9)
check_at_most("mean of both: lowest at", q[both.argmin(), 0], 0.01)

# %% [markdown]
# Opposite ends! Alone, the object says: call everything object, then learn what to take back. With the ground in the mean the first thing learned is *nothing is object*, as with cross-entropy, and worse: near $q = 0$ the
# factor $q(1 - q)$ has let go. Losses that average over classes need a look at which classes they average. In `segedu` the option is `classes=[1]`.
#
# ### What Dice asks
#
# Cross-entropy asks for the share. Take the ten pixels that look alike, three of them object, and let Dice choose their common $q$: $I = 3q$, $P = 10q$, $T = 3$, so Dice is $\frac{6q}{10q + 3}$.
#
# **Predict:** for which $q$ is that largest?

# %%
alike = torch.tensor([1.0] * 3 + [0.0] * 7, dtype=torch.float64)
values = 1 - dice(q.expand(-1, 10), alike.expand(len(q), -1))
check("Dice is largest at the right end", q[values.argmax(), 0], 0.999, tol=1e-9)
check("where it is nearly 6/13", values.max(), 6 / 13, tol=1e-3)

# %% [markdown]
# At $q = 1$, although only three in ten are object. Dice asks for a *mask*: all of a doubtful region or nothing of it, whichever overlaps better. Its $p$ are not probabilities; do not read them as such.
#
# ### Tversky: misses and false alarms at different prices
#
# Split the union: $U = I + (P - I) + (T - I)$, that is hits, false positives and misses. Give the two kinds of mistake prices $\alpha$ and $\beta$ (Salehi et al., 2017):
#
# $$\text{Tversky loss} = 1 - \frac{I}{V}, \qquad V = I + \alpha (P - I) + \beta (T - I).$$
#
# With $\alpha = \beta = \frac12$ it is Dice, with 1 and 1 Jaccard. Since $\partial V/\partial p_n$ is $1 - \beta$ on the object and $\alpha$ on the ground, the quotient rule gives
#
# $$-\frac{\alpha (P - I) + \beta T}{V^2} \text{ on the object}, \qquad +\frac{\alpha I}{V^2} \text{ on the ground.}$$
#
# By hand, $\alpha = 0.3$, $\beta = 0.7$: $V = 1.25 + 0.3 \cdot 0.5 + 0.7 \cdot 0.75 = 1.925$. The loss is 0.3506, the gradient $-0.4183$ and $+0.1012$: four to one for the object, where Dice had two to one.


# %%
def tversky(p, y, alpha=0.3, beta=0.7):
    """1 - Tversky index: false positives cost alpha, misses beta."""
    I, P, T = soft_counts(p, y)
    return 1 - I / (I + alpha * (P - I) + beta * (T - I))


def tversky_gradient(p, y, alpha=0.3, beta=0.7):
    """Gradient of `tversky` in p."""
    I, P, T = soft_counts(p, y)
    V = I + alpha * (P - I) + beta * (T - I)
    return torch.where(y == 1, -(alpha * (P - I) + beta * T) / V**2, alpha * I / V**2)


# %%
check("Tversky loss", tversky(p, y), 0.3506, tol=5e-5)
check("its gradient", tversky_gradient(p, y), [-0.4183, -0.4183, 0.1012, 0.1012], tol=5e-5)
check("halves: Dice", tversky(p, y, 0.5, 0.5), dice(p, y), tol=1e-12)
check("ones: Jaccard", tversky(p, y, 1, 1), jaccard(p, y), tol=1e-12)
[slope] = torch.autograd.grad(tversky(some_p, some_y), some_p)
check("autograd", tversky_gradient(some_p, some_y), slope, tol=1e-12)

# %% [markdown]
# ## 6. Lovász: the staircase, joined by straight pieces
#
# Soft IoU meets the true IoU at the corners only. Between them it is an invention. Berman et al. (CVPR 2018) ask for the *right* way to join the corners, and there is one.
#
# Look at a mask by its mistakes: $M$ is the set of wrong pixels. The union of prediction and truth is then the true pixels and the wrong ones together, and the intersection the union without the wrong ones. So
#
# $$\Delta(M) = 1 - \text{IoU} = \frac{|M|}{|T \cup M|}.$$
#
# A network's mistakes are not sets but **errors** (误差) $m_n = |y_n - p_n| \in [0, 1]$. Now let the pixels go wrong one after another, *the worst first*. Each pays a price: what its going wrong adds to $\Delta$. The **Lovász extension**
# is the sum of error times price:
#
# $$\overline\Delta(m) = \sum_{k} m_{\pi_k}\, g_k, \qquad g_k = \Delta(\lbrace \pi_1, \dots, \pi_k \rbrace) - \Delta(\lbrace \pi_1, \dots, \pi_{k-1} \rbrace), \qquad m_{\pi_1} \ge m_{\pi_2} \ge \dots$$
#
# By hand, our four pixels: $m = (\frac14, \frac12, \frac14, \frac14)$. The second is the worst.
#
# | goes wrong | error | wrong so far | $\Delta$ | price |
# |---|---|---|---|---|
# | pixel 2 (object) | 1/2 | 1 | 1/2 | 1/2 |
# | pixel 1 (object) | 1/4 | 2 | 2/2 | 1/2 |
# | pixel 3 (ground) | 1/4 | 3 | 3/3 | 0 |
# | pixel 4 (ground) | 1/4 | 4 | 4/4 | 0 |
#
# The loss is $\frac12 \cdot \frac12 + \frac14 \cdot \frac12 = \frac38$. **Predict:** pixels 1, 3 and 4 have the same error. If pixel 3 goes before pixel 1, do the prices change? Does the sum?


# %%
def lovasz_prices(y):
    """What each pixel adds to 1 - IoU, the pixels sorted by error, the worst first."""
    wrong = torch.arange(1, len(y) + 1)
    true = y.sum()
    union = true + (1 - y).cumsum(0)  # the true pixels, and the ground pixels that went wrong
    return (wrong / union).diff(prepend=torch.zeros(1, dtype=y.dtype))


def lovasz(p, y):
    """Lovász extension of 1 - IoU at the errors |y - p|."""
    error, worst_first = (y - p).abs().sort(descending=True)
    return (error * lovasz_prices(y[worst_first])).sum()


# %%
check("prices, in the order of the table", lovasz_prices(y[[1, 0, 2, 3]]), [0.5, 0.5, 0.0, 0.0])
check(
    "with pixel 3 before pixel 1",
    lovasz_prices(y[[1, 2, 0, 3]]),
    [1 / 2, 1 / 6, 1 / 3, 0],
    tol=1e-12,
)
# %%
check("the loss", lovasz(p, y), 3 / 8, tol=1e-12)
tied = (
    torch.tensor([1 / 2, 1 / 6, 1 / 3, 0], dtype=torch.float64)
    @ torch.tensor([2, 1, 1, 1.0]).double()
    / 4
)
check("the loss in the other order", tied, 3 / 8, tol=1e-12)
check(
    "at all 16 masks: 1 - IoU",
    torch.stack([lovasz(mask, y) for mask in corners]),
    1 - hard,
    tol=1e-6,
)

# %% [markdown]
# The prices change, the sum does not: where errors are equal the pieces meet. There the loss has a kink; its gradient is one of several.
#
# Away from kinks the order stands still, so the prices are constants and the gradient is plain:
#
# $$\frac{\partial \overline\Delta}{\partial p_n} = \begin{cases} -g & \text{on the object} \\ +g & \text{on the ground,} \end{cases} \qquad g \text{ the price of pixel } n.$$
#
# The first ground pixel after $k$ lost object pixels costs $\frac{T-k}{T (T+1)}$, less the more has been lost before it; a lost object pixel costs $1/U$. *Only mistakes that would lower the IoU are paid for.*

# %%
m_order = (some_y - some_p.detach()).abs().argsort(descending=True)
g = torch.empty_like(some_y)
g[m_order] = lovasz_prices(some_y[m_order])
[slope] = torch.autograd.grad(lovasz(some_p, some_y), some_p)
check("autograd", torch.where(some_y == 1, -g, g), slope, tol=1e-12)

# %%
steps_of = torch.linspace(0, 1, 41, dtype=torch.float64)
errors = torch.cartesian_prod(steps_of, steps_of)  # of an object pixel and of a ground pixel
points = torch.stack([1 - errors[:, 0], errors[:, 1]], dim=1)  # their p
pair, half = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)  # the truth; p = 1/2
at_half = torch.stack([jaccard(half, pair), lovasz(half, pair)])
check("both errors one half: soft Jaccard and Lovász", at_half, [2 / 3, 1 / 2], tol=1e-12)

# %% alt="Two maps of the loss of an object pixel and a ground pixel over their errors, each from 0 to 1. Soft Jaccard has curved contour lines, Lovász has straight ones. At the four corners both have the same values."
title = "One object pixel and one ground pixel: the same corners, joined in two ways"
fig, axes = show.grid(1, 2, title, width=3.6, height=3.2)
for ax, loss, name in zip(axes, (jaccard, lovasz), ("soft Jaccard", "Lovász"), strict=True):
    values = torch.stack([loss(point, pair) for point in points]).view(41, 41)
    drawn = ax.contourf(steps_of, steps_of, values.T, levels=10, cmap="cividis", vmin=0, vmax=1)
    ax.set(title=name, xlabel="error of the object pixel", ylabel="error of the ground pixel")
    ax.set_aspect("equal")
    if loss is jaccard:
        fig.colorbar(drawn, ax=axes, shrink=0.8)
    corner_values = values[[0, 0, -1, -1], [0, -1, 0, -1]]
    check(f"{name} at the corners", corner_values, [0.0, 0.5, 1.0, 1.0], tol=1e-12)
# %% [markdown]
# Lovász is **convex** in the errors: on any straight line between two points it never rises above the chord. That is a theorem about set functions like $\Delta$, in which a mistake costs less the more mistakes there are already; they are called **submodular** (次模). Soft Jaccard is not convex.

# %%
first, second = torch.rand(2, 2000, 6, generator=generator, dtype=torch.float64)
truths = (torch.rand(2000, 6, generator=generator) < 0.5).double()
truths[:, 0] = 1  # at least one object pixel
at = [
    torch.stack([lovasz(a, b) for a, b in zip(x, truths, strict=True)])
    for x in (first, second, (first + second) / 2)
]
check_at_most("Lovász: the middle above the chord by", at[2] - (at[0] + at[1]) / 2, 1e-12)
soft = [jaccard(x, truths) for x in (first, second, (first + second) / 2)]
check_at_least(
    "soft Jaccard: the middle above the chord by", (soft[2] - (soft[0] + soft[1]) / 2).max(), 0.001
)

# %% [markdown]
# ## 7. Boundary loss: how far away is the mistake?
#
# None of these losses knows *where* a wrong pixel is. One beside the outline and one at the other end of the picture cost the same. The **boundary loss** (边界损失; Kervadec et al., MIDL 2019) multiplies by the distance $\phi_n$ to the
# true outline, negative inside the object, positive outside:
#
# $$L_{\text{boundary}} = \frac1N \sum_n \phi_n\, (p_n - y_n) = \frac1N \sum_n |\phi_n|\, |y_n - p_n|, \qquad \frac{\partial L_{\text{boundary}}}{\partial p_n} = \frac{\phi_n}{N}.$$
#
# (The paper's sum has $\phi_n p_n$ alone; the difference is a constant, which makes 0 the best value.) It is linear in $p$, so the gradient in $p$ does not depend on $p$ at all. The map $\phi$ is computed once for each truth, by a
# **distance transform** (距离变换).
#
# By hand, a row of five pixels, the last two are object. The outline runs between the third and the fourth pixel, half a pixel from their centres: $\phi = (2\frac12, 1\frac12, \frac12, -\frac12, -1\frac12)$.

# %%
row = torch.tensor([[[0, 0, 0, 1, 1]]])
phi = losses.signed_distances(row, 2)[0, 1, 0]
check("distances in a row", phi, [2.5, 1.5, 0.5, -0.5, -1.5])
check_at_least(
    "distance times error is never negative",
    phi * (torch.rand(5, generator=generator) - row[0, 0]),
    0.0,
)

# %% alt="Three panels: a scene's mask with one object, its distance map, brown in and near the object and increasingly purple away from it, and a bar chart in which a wrong pixel beside the outline costs little and one in the far corner costs many times as much."
scene = Scenes(4, size=48, seed=seed, difficulty=0.2)[1]
shape = (scene["masks"].as_subclass(torch.Tensor)[0]).long()  # (H, W), the first object alone
phi = losses.signed_distances(shape[None], 2)[0, 1]  # (H, W)
near, far = phi[shape == 0].min().item(), phi[shape == 0].max().item()
fig, axes = show.grid(1, 3, "The same mistake costs more far away", width=3, height=2.7)
show.mask(axes[0], shape, "one object", num_classes=2)
show.heat(axes[1], phi, "distance to its outline", colours="PuOr")
axes[2].bar(["beside it", "far away"], [near, far], color=colours[7])
axes[2].set(title="cost of one stray pixel")
check("the nearest pixel outside", near, 0.5)
check_at_least("the farthest costs more, times", far / near, 10)

# %% [markdown]
# Two warnings. It is a sum over the picture, so the many far ground pixels dominate it as they dominate cross-entropy; alone it tends to the empty answer, and the authors always *add* it to a loss of overlap. And where a picture has one class only there is
# no outline, and the loss is silent.
#
# ## 8. All of them, from logits, for several classes
#
# So far: one object, given $p$. A network gives logits for $C$ classes. Take the softmax, treat each class as the object once, and average over the classes that are there. Void pixels are left out first.


# %%
def of_classes(one_class):
    """From a loss of one class, given p and y, to `loss(logits, target)` over the classes present."""

    def loss(logits, target):
        labelled = target != IGNORE
        p = logits.softmax(1).movedim(1, 0)[:, labelled]  # (C, n): the n labelled pixels
        present = target[labelled].unique().tolist()
        terms = [one_class(p[c], (target[labelled] == c).to(p)) for c in present]
        return sum(terms) / len(terms) if terms else 0 * logits.sum()

    return loss


ours = {"dice_loss": of_classes(dice), "jaccard_loss": of_classes(jaccard)}
ours |= {"tversky_loss": of_classes(tversky), "lovasz_loss": of_classes(lovasz)}

# %% [markdown]
# The judges: the package's functions, which count all classes at once and are several times faster, and `gradcheck` in float64. (The package's tests compare them with segmentation-models-pytorch, too, and say where that library
# means something else.)

# %% tags=["nbval-ignore-output"]
logits = torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
target = torch.randint(3, (2, 6, 5), generator=generator)  # class 3 is absent
target[:, 0] = IGNORE
for name, loss in ours.items():
    mine, package = loss(logits, target), getattr(losses, name)(logits, target)
    check(f"{name}: value", mine, package.item(), tol=1e-12)
    slopes = [torch.autograd.grad(value, logits)[0] for value in (mine, package)]
    check(f"{name}: gradient", slopes[0], slopes[1], tol=1e-12)

# %% tags=["nbval-ignore-output"]
names = ["binary_cross_entropy", "focal", "dice", "jaccard", "tversky", "lovasz", "boundary"]
for name in names:
    loss = getattr(losses, f"{name}_loss")
    passed = torch.autograd.gradcheck(lambda z, loss=loss: loss(z, target), (logits,))
    check(f"gradcheck of {name}_loss", passed, want=True)
print(inspect.getsource(losses.jaccard_loss))

# %% [markdown]
# ## 9. Nothing there: a policy for absent classes
#
# In most crops most classes are absent: $T = 0$. For such a class $I = 0$, and Dice and Jaccard are $0/P$. **Predict:** the class is absent and the network says $p = 0.01$ for it everywhere. What is its soft Dice loss? What is the loss if the
# network says $p = 10^{-6}$? What are the gradients?

# %%
absent = torch.zeros(100, dtype=torch.float64)
for small in (0.01, 1e-6):
    said = torch.full((100,), small, dtype=torch.float64)
    check(f"Dice loss of an absent class at p = {small:g}", dice(said, absent), 1.0)
    check(f"its gradient at p = {small:g}", dice_gradient(said, absent), 0.0)
check("and at p = 0", dice(absent, absent), math.nan)

# %% [markdown]
# The full loss of 1, however good the answer, no gradient to better it, and `nan` for the perfect one. So a policy is needed, and there are three.
#
# | policy | value of an absent class | what it teaches |
# |---|---|---|
# | leave it out of the mean (`segedu`; the code of Berman et al.) | none | nothing; false positives are taught by the classes that are there |
# | count it as 0 but divide by all $C$ (segmentation-models-pytorch's Dice and Jaccard) | 0 | nothing; and the loss of the others shrinks with every absent class |
# | add a constant $\varepsilon$ above and below | $1 - \frac{\varepsilon}{P + \varepsilon}$ | to say less of it; how strongly, $\varepsilon$ decides |
#
# **Predict:** a picture of 100 pixels with 2 of 20 classes. Each of the two has a Dice loss of 0.4. What do the first two policies say? In the third, with $\varepsilon = 1$, an absent class is said with $p = 0.01$ everywhere. What does it cost?


# %%
def smooth_dice(p, y, epsilon=1.0):
    """1 - soft Dice with a constant above and below."""
    I, P, T = soft_counts(p, y)
    return 1 - (2 * I + epsilon) / (P + T + epsilon)


# %%
check("left out", (0.4 + 0.4) / 2, 0.4)
check("counted as 0", (0.4 + 0.4 + 18 * 0) / 20, 0.04, tol=1e-12)
said = torch.full((100,), 0.01, dtype=torch.float64)
check("smoothed: one absent class costs", smooth_dice(said, absent), 0.5, tol=1e-12)
check(
    "on a crop of 10,000 pixels",
    smooth_dice(said.repeat(100), absent.repeat(100)),
    100 / 101,
    tol=1e-12,
)

# %% [markdown]
# The second makes the learning rate depend on how many classes a crop happens to have: a tenth here. The third makes 18 harmless classes cost more than the two that matter, and its meaning changes with the size of the crop. `segedu` leaves out.
# When there is no labelled pixel at all, every loss of the package is 0, and so is its gradient.
#
# Two more choices hide in the same place. *Over what do the sums run?* Over the whole batch, as here, a class is present if any picture has it. Picture by picture, every picture without the object needs the policy. And *which classes*, as section 5 showed.

# %%
nothing = torch.full_like(target, IGNORE)
for name in ["cross_entropy", *names]:
    value = getattr(losses, f"{name}_loss")(logits, nothing)
    [slope] = torch.autograd.grad(value, logits)
    check(
        f"{name}_loss of nothing, and its largest slope",
        [value.item(), slope.abs().max().item()],
        0.0,
    )

# %% [markdown]
# ## 10. The experiment: eight pixels
#
# Now pictures. Each is a scene of the course with one small speck on it, about eight pixels that are darker or lighter than what is under them. The scene's own objects are ground: stripes and corners are there to be mistaken for specks.


# %%
def specks(count, seed):
    """Scenes with a speck each: images (count, 3, H, W) and masks (count, H, W), 1 on the speck."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.arange(image_size) + 0.5
    images, masks = [], []
    for scene in Scenes(count, size=image_size, seed=seed, difficulty=0.2):
        row, column = (4 + torch.rand(2, generator=generator) * (image_size - 8)).tolist()
        speck = (pixels[:, None] - row) ** 2 + (pixels - column) ** 2 < 1.6**2
        image = scene["image"].as_subclass(torch.Tensor)
        change = -0.6 if image[:, speck].mean() > 0.5 else 0.6
        images.append((image + change * speck).clamp(0, 1))
        masks.append(speck.long())
    return torch.stack(images), torch.stack(masks)


# %% tags=["nbval-ignore-output"] alt="Four scenes of textured objects, each with one small dark or light speck, and below them their masks, black but for a dot of about eight pixels."
learn, held_out = specks(pictures, seed), specks(pictures, seed + 1000)
share = learn[1].double().mean().item()
fig, axes = show.grid(2, 4, "Find the speck", width=2)
for i in range(4):
    show.image(axes[0, i], learn[0][i])
    show.mask(axes[1, i], learn[1][i], f"{int(learn[1][i].sum())} pixels", num_classes=2)
check("pixels of a speck, on average", learn[1].double().sum((1, 2)).mean(), 8, tol=0.5)
check("share of the specks' pixels", share, 0.0035 * (48 / image_size) ** 2, tol=0.0008)

# %% [markdown]
# The network is small: three convolutions of eight channels with batch normalisation, and one that gives two logits. It is the same for every loss, starts from the same weights, and sees the same batches; only the loss differs.


# %%
place = pick_device(device)


def small_network(seed):
    """Four convolutions, two logits a pixel; the first weights come from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        wide, third = nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.Conv2d(8, 8, 3, padding=1)
    layers = [x for c in (first, wide, third) for x in (c, nn.BatchNorm2d(8), nn.ReLU())]
    return nn.Sequential(*layers, last)


# %%
def train(loss, data, seed, steps, batch=8):
    """A small network after `steps` of Adam on random batches, which come from `seed` too."""
    network = small_network(seed).to(place)
    images, masks = (x.to(place) for x in data)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=order).to(place)
        optimiser.zero_grad()
        loss(network(images[chosen]), masks[chosen]).backward()
        optimiser.step()
    return network.eval()


# %%
@torch.inference_mode()
def score(network, data):
    """IoU, precision and recall of the object; an object nowhere predicted has precision nan."""
    images, masks = data
    cm = ConfusionMatrix(2)
    cm.update(network(images.to(place)).argmax(1).cpu(), masks)
    return torch.stack([cm.iou()[1], cm.precision()[1], cm.recall()[1]])


# %%
weight = torch.tensor([1.0, (1 - share) / share], device=place)


def dice_of_object(z, t):
    """Dice loss of class 1 alone."""
    return losses.dice_loss(z, t, classes=[1])


# %%
candidates = {
    "cross-entropy": losses.cross_entropy_loss,
    "weighted": lambda z, t: losses.cross_entropy_loss(z, t, class_weight=weight),
    "Dice, both": losses.dice_loss,
    "Dice, object": dice_of_object,
    "sum of two": lambda z, t: losses.cross_entropy_loss(z, t) + dice_of_object(z, t),
    "Lovász, object": lambda z, t: losses.lovasz_loss(z, t, classes=[1]),
}

# %% [markdown]
# **Predict**, and write it down: after 100 steps, which of the six find specks on new pictures? Which say "nothing"? Which has the highest recall, which the highest precision? How far will three runs of the same loss be apart?

# %% tags=["nbval-ignore-output"]
networks, results = {}, {}
for name, loss in candidates.items():
    networks[name] = [train(loss, learn, seed + 10 * k, steps) for k in range(seeds)]
    results[name] = torch.stack([score(network, held_out) for network in networks[name]])
    iou = results[name][:, 0]
    print(f"{name:20} IoU {iou.mean():.2f}, from {iou.min():.2f} to {iou.max():.2f}")

# %% tags=["nbval-ignore-output"]
mean_iou = {name: scores[:, 0].mean().item() for name, scores in results.items()}
check_at_least(
    "Dice of the object above cross-entropy by",
    mean_iou["Dice, object"] - mean_iou["cross-entropy"],
    least_gain,
)
check_at_least(
    "and above Dice of both classes by",
    mean_iou["Dice, object"] - mean_iou["Dice, both"],
    least_gain,
)

# %% tags=["nbval-ignore-output"] alt="Dots for each loss and seed: IoU, precision and recall of the object. Cross-entropy lies at zero, weighted cross-entropy has high recall and low precision, Dice of the object alone is highest in IoU, and Dice over both classes, the sum and Lovász are spread widely over seeds."
fig, axes = show.grid(
    1, 3, f"Each loss, {seeds} seeds: the dots are runs, the bar is their mean", width=3.4, height=3
)
for ax, column, title in zip(
    axes, range(3), ("IoU", "precision (none: at 0)", "recall"), strict=True
):
    for i, scores in enumerate(results.values()):
        values = scores[:, column].nan_to_num(0)
        ax.plot([i - 0.3, i + 0.3], [values.mean()] * 2, color="black")
        ax.plot([i] * seeds, values, "o", color=colours[i + 1], markeredgecolor="black")
    ax.set(title=title, ylim=(-0.05, 1.05), xticks=range(len(results)))
    ax.set_xticklabels(results, rotation=35, ha="right")

# %% [markdown]
# What there is to see ("sum of two" is cross-entropy plus Dice of the object):
#
# - **Cross-entropy** has learned section 1: nothing is object. Given many more steps it would get there; its pull is never 0.
# - **Weighted** cross-entropy finds nearly every speck, and calls much else a speck: high recall, low precision.
# - **Dice of the object alone** finds the specks and draws them tightly, with all seeds. With the ground in the mean it starts in the wrong direction, and it depends on the seed how far it comes back in these few steps. The **sum** with cross-entropy lies between, for the same
#   reason: cross-entropy is for "nothing" at first. It makes up for that later.
# - **Lovász** pays only for mistakes that would lower the IoU. From a network that knows nothing that is a narrow path; it serves to *finish* a network that was trained with another loss.
#
# Look at the spread: the same loss on the same pictures, with other first weights and batches, gives scores that are tenths apart. With one run each you could have published almost any order of the ones in the middle.
#
# So a comparison of losses without repeated seeds says little. [Chapter 08](08_metrics.ipynb) puts intervals on such numbers.

# %% tags=["nbval-ignore-output"]
recall = {name: scores[:, 2].mean().item() for name, scores in results.items()}
precision = {name: scores[:, 1].nan_to_num(0).mean().item() for name, scores in results.items()}
check_at_least(
    "weighted: recall above that of Dice, object",
    recall["weighted"] - recall["Dice, object"],
    least_gain - 0.1,
)
check_at_least(
    "Dice, object: precision above weighted",
    precision["Dice, object"] - precision["weighted"],
    least_gain - 0.1,
)

# %% tags=["nbval-ignore-output"] alt="One held-out scene with its speck, its truth, and the probability of object that each of the six networks gives: cross-entropy nearly zero everywhere, weighted cross-entropy bright in several places, Dice of the object dark with a bright dot."
with torch.inference_mode():
    said = {
        name: nets[0](held_out[0][:1].to(place)).softmax(1)[0, 1].cpu()
        for name, nets in networks.items()
    }
fig, axes = show.grid(2, 4, "The same new picture, in the eyes of six losses", width=2.4)
show.image(axes[0, 0], held_out[0][0], "picture with a speck")
show.mask(axes[1, 0], held_out[1][0], "truth", num_classes=2)
for ax, (name, p_object) in zip(axes[:, 1:].ravel(), said.items(), strict=True):
    show.heat(ax, p_object, name, low=0, high=1)

# %% [markdown]
# ### On real tiles
#
# The same on photographs of magnetic tiles (Huang et al., 2018): blowholes, small dark pits, reduced to 96 x 96 pixels. If you have them, this cell trains cross-entropy, Dice of the object and Dice of both on them.


# %%
def small_defects(split, size=96):
    """The photographs with blowholes of one split: images, and masks with 1 for the defect."""
    tiles = catalog.load("tiles", split=split)
    images, masks = [], []
    for i, kind in enumerate(tiles.kinds):
        if kind == "blowhole":
            sample = tiles[i]
            image, defect = (
                sample["image"].as_subclass(torch.Tensor),
                sample["mask"].as_subclass(torch.Tensor) > 0,
            )
            images.append(F.interpolate(image[None], (size, size), mode="area")[0])
            covered = F.interpolate(defect[None, None].float(), (size, size), mode="area")[0, 0]
            masks.append((covered > 0.5).long())
    return torch.stack(images), torch.stack(masks)


# %% tags=["nbval-ignore-output"]
tile_scores = {}
if catalog.available("tiles"):
    tiles, new_tiles = small_defects("train"), small_defects("val")
    print(f"{len(tiles[1])} tiles, {100 * tiles[1].double().mean():.2f} % of the pixels are defect")
    for name in ("cross-entropy", "Dice, both", "Dice, object"):
        runs = [
            train(candidates[name], tiles, seed + 10 * k, tile_steps, batch=4) for k in range(seeds)
        ]
        tile_scores[name] = torch.stack([score(network, new_tiles) for network in runs])
        iou = tile_scores[name][:, 0]
        print(f"{name:20} IoU {iou.mean():.2f}, from {iou.min():.2f} to {iou.max():.2f}")
else:
    print("The tiles are not here; `segedu data get tiles` downloads them.")

# %% tags=["nbval-ignore-output"] alt="A real tile with a small dark pit, its mask, and what the network trained with Dice of the object says; drawn only where the tiles have been downloaded."
if tile_scores:
    fig, axes = show.grid(1, 3, "A tile the network has not seen", width=2.6)
    show.image(axes[0], new_tiles[0][0], "tile")
    show.mask(axes[1], new_tiles[1][0], "its defect", num_classes=2)
    with torch.inference_mode():
        p_defect = runs[-1](new_tiles[0][:1].to(place)).softmax(1)[0, 1].cpu()
    show.heat(axes[2], p_defect, "p of a defect", low=0, high=1)

# %% [markdown]
# ## 11. What goes wrong
#
# ### The loss of a mask
#
# "Dice, as in the metric": `argmax` first, Dice after. It runs, prints a falling number while something else trains, and gives no gradient: `loss.backward()` fails, or, where another term is added, silently trains that term alone.

# %%
z = torch.randn(1, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
truth = torch.randint(2, (1, 4, 4), generator=generator)
of_mask = dice(z.argmax(1).double().flatten(), truth.double().flatten())
check("has the mask's Dice a gradient?", of_mask.requires_grad, want=False)
total = losses.cross_entropy_loss(z, truth) + of_mask
[slope] = torch.autograd.grad(total, z)
[slope_ce] = torch.autograd.grad(losses.cross_entropy_loss(z, truth), z)
check("added to cross-entropy, it changes nothing", slope, slope_ce, tol=1e-15)

# %% [markdown]
# ### Two losses of different size
#
# Dice lies in $[0, 1]$; cross-entropy of a picture with a tiny object is soon below 0.02; the boundary loss is in *pixels* and may be 20. "Sum of the two" means whatever their sizes make of it. Look at the gradients, not at the values: here, at a
# network that knows nothing, for one picture with a speck.

# %% tags=["nbval-ignore-output"]
z = torch.zeros(1, 2, image_size, image_size, dtype=torch.float64, requires_grad=True)
truth = learn[1][:1]
size_of = {}
for name, loss in (
    ("cross-entropy", losses.cross_entropy_loss),
    ("Dice, object", candidates["Dice, object"]),
    ("boundary", losses.boundary_loss),
):
    value = loss(z, truth)
    size_of[name] = torch.autograd.grad(value, z)[0].norm().item()
    print(f"{name:14} value {value.item():7.3f}   norm of the gradient {size_of[name]:.5f}")

# %% tags=["nbval-ignore-output"]
check_at_least(
    "boundary's gradient, over that of Dice", size_of["boundary"] / size_of["Dice, object"], 20
)
check_at_least(
    "cross-entropy's, over that of Dice", size_of["cross-entropy"] / size_of["Dice, object"], 2
)

# %% [markdown]
# Added with equal weights the boundary loss is the only one that speaks. The paper's authors start it at a weight of 0.01 and raise it as training goes on.
#
# ### Two conventions, one name
#
# V-Net's Dice has *squares* in the denominator, $\frac{2I}{\sum p^2 + \sum y^2}$; most libraries have none. Both are 1 for a perfect mask and equal at all masks, so no test on masks tells them apart. On our four pixels they differ.

# %%
squared = 1 - 2 * (p * y).sum() / ((p**2).sum() + (y**2).sum())
check("with squares", squared, 1 - 2.5 / 2.9375, tol=1e-12)
check("without", dice(p, y), 1 / 3, tol=1e-12)
on_masks = 1 - 2 * (corners * y).sum(1) / ((corners**2).sum(1) + 2)
check("at all 16 masks: the same", on_masks, dice(corners, y), tol=1e-12)

# %% [markdown]
# ## 12. Which one?
#
# | loss | gradient in $p_n$, or in the logit | good | look out |
# |---|---|---|---|
# | cross-entropy | logit: $(p_n - y_n)/N$ | honest probabilities, never lets go | tiny objects wait long |
# | weighted | logit: $w_n (p_n - y_n) / \sum w$ | finds everything | calls too much |
# | focal | logit: factor times $(p_n - y_n)/N$ | many easy pixels | less sure than it should be |
# | Dice | $-2(y_n S - I)/S^2$ | size cancels | lets go of sure misses; ground in the mean; bold |
# | Jaccard | $-1/U$ or $I/U^2$ | the same, for IoU | the same |
# | Tversky | $-(\alpha(P - I) + \beta T)/V^2$ or $\alpha I/V^2$ | prices for misses | two more numbers to choose |
# | Lovász | minus or plus the price | IoU exactly at masks, convex in errors | sorts; best to finish with |
# | boundary | $\phi_n/N$ | knows distance | only added to another |
#
# Common and sensible: cross-entropy, and if the object is tiny, plus Dice of the object. Then compare, over seeds.
#
# ## 13. Three quick questions
#
# **1.** The object is 5 pixels in one picture and 500 in another. At $q = \frac12$ everywhere, in which does the object's pull make up the larger share of all of Dice's pull?
#
# <details><summary>Answer</summary>
#
# It is at least half in both: the ratio is $1 + T/(q(N - T))$, 1.004 for 5 pixels of 2304 and 1.55 for 500. For cross-entropy it would be 0.002 and 0.28.
#
# </details>
#
# **2.** Your validation IoU is 0.7, and your Dice loss on the same pictures 0.25, where $1 - \frac{2 \cdot 0.7}{1.7} = 0.18$ was expected. Is there a bug?
#
# <details><summary>Answer</summary>
#
# Not necessarily. The loss takes probabilities, the score takes masks. The two meet only where every $p$ is 0 or 1.
#
# </details>
#
# **3.** A batch has no object pixel at all. What do cross-entropy and the object's Dice of `segedu` teach?
#
# <details><summary>Answer</summary>
#
# Cross-entropy teaches every pixel to be ground. Dice of the object, with `classes=[1]`, has no class to average over: it is 0, and so is its gradient. That is one more reason to add the two.
#
# </details>

# %%
check(
    "1: Dice's ratio for 5 and 500 of 2304",
    [1 + k / (0.5 * (2304 - k)) for k in (5, 500)],
    [1.004, 1.554],
    tol=1e-3,
)
check("1: cross-entropy's", [k / (2304 - k) for k in (5, 500)], [0.002, 0.277], tol=5e-4)
check("2: 1 - Dice from an IoU of 0.7", 1 - 1.4 / 1.7, 0.18, tol=5e-3)
empty_target = torch.zeros(1, 3, 3, dtype=torch.int64)
some = torch.zeros(1, 2, 3, 3)
check(
    "3: Dice of the object, no object there", losses.dice_loss(some, empty_target, classes=[1]), 0.0
)

# %% [markdown]
# ## 14. Exercises
#
# ### Exercise 1: the gradient of soft Jaccard in the logits
#
# Given the logits $u$ of one object and its truth $y$, write the gradient of soft Jaccard *in the logits*. No autograd.


# %% tags=["exercise"]
def jaccard_logit_gradient(u, y):
    """Gradient of 1 - I/U in the logits `u`, shape (N,), where p is the sigmoid of u."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_autograd(u, y):
    """The same by torch."""
    u = u.detach().requires_grad_()
    return torch.autograd.grad(jaccard(u.sigmoid(), y), u)[0]


def in_p(u, y):
    """The gradient in p instead."""
    return jaccard_gradient(u.sigmoid(), y)


few = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
exercise = Exercise(
    solution=by_autograd,
    inputs=[
        (torch.logit(p), y),
        (torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64), few),
        (torch.tensor([-40.0, -1.0, 3.0], dtype=torch.float64), few),
    ],
    misconceptions={
        "that is the gradient in p; the chain rule's p (1 - p) is missing": in_p,
        "the sign: the loss is one minus the score": lambda u, y: -by_autograd(u, y),
        "the union moves, too, when p of a ground pixel moves": lambda u, y: (
            -y / (u.sigmoid() + y - u.sigmoid() * y).sum() * u.sigmoid() * (1 - u.sigmoid())
        ),
    },
)
exercise.check(jaccard_logit_gradient)


# %% tags=["solution"]
def jaccard_logit_gradient(u, y):
    """Section 4's two values, times dp/du."""
    p = u.sigmoid()
    I, U = (p * y).sum(), (p + y - p * y).sum()
    return (I * (1 - y) - U * y) / U**2 * p * (1 - p)


exercise.check(jaccard_logit_gradient)

# %% [markdown]
# ### Exercise 2: the price list
#
# Pixels go wrong one after another, worst first; `y` has their truths in that order. Return what each adds to $1 - \text{IoU}$. `lovasz_prices` does it by differences; here is a chance to do it without: if $I$ object pixels are still right and the union is $U$, what does losing an object
# pixel cost, and what a ground pixel that joins the union?


# %% tags=["exercise"]
def price_list(y):
    """What each pixel adds to 1 - IoU; `y` is a list of 0 and 1 with at least one 1."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def prices_by_differences(y):
    """Section 6's formula."""
    return lovasz_prices(torch.tensor(y, dtype=torch.float64)).tolist()


def every_pixel_costs_the_same(y):
    """A mistake: what 1 - IoU of all pixels wrong is, shared out."""
    return [1 / len(y)] * len(y)


def union_of_the_end(y):
    """A mistake: the union after all have gone wrong."""
    return [1 / len(y) if pixel else 0.0 for pixel in y]


def cumulative(y):
    """A mistake: 1 - IoU so far, not what was added."""
    return torch.tensor(prices_by_differences(y)).cumsum(0).tolist()


exercise = Exercise(
    solution=prices_by_differences,
    inputs=[([1],), ([1, 0],), ([0, 1],), ([0, 0, 1, 1, 0],), ([1, 1, 0, 0],)],
    misconceptions={
        "prices depend on the order: the first mistakes cost most": every_pixel_costs_the_same,
        "take the union of that moment, not of the end": union_of_the_end,
        "that is 1 - IoU so far; the price is what each pixel adds to it": cumulative,
    },
)
exercise.check(price_list)


# %% tags=["solution"]
def price_list(y):
    """A lost object pixel costs 1/U; a ground pixel takes the union from U to U + 1."""
    intersection = union = sum(y)
    prices = []
    for pixel in y:
        if pixel:
            prices.append(1 / union)
            intersection -= 1
        else:
            prices.append(intersection / (union * (union + 1)))
            union += 1
    return prices


exercise.check(price_list)

# %% [markdown]
# ### Exercise 3: the batch or its pictures?
#
# Two ways to take the object's Dice loss of a batch: count over all its pictures together, or count in each and average over the pictures *that have the object*. Write the second. Then look at a batch in which one picture has a large object and another a tiny one: which of the two losses cares more about the
# tiny one?


# %% tags=["exercise"]
def dice_by_picture(p, y):
    """Mean over the pictures with an object of 1 - soft Dice; 0 if none has one.

    Args:
        p: (B, N), probabilities of the object.
        y: (B, N), 1 on the object, else 0.
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def mean_over_pictures_with_an_object(p, y):
    """The answer."""
    has = y.sum(1) > 0
    return dice(p[has], y[has]).sum() / max(int(has.sum()), 1)


batch_p = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.2, 0.1, 0.0, 0.1], [0.1, 0.0, 0.3, 0.0]]).double()
batch_y = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).double()
exercise = Exercise(
    solution=mean_over_pictures_with_an_object,
    inputs=[
        (batch_p[:1], batch_y[:1]),
        (batch_p[:2], batch_y[:2]),
        (batch_p, batch_y),
        (batch_p[2:], batch_y[2:]),
    ],
    misconceptions={
        "that is the batch as one picture": lambda p, y: dice(p.flatten(), y.flatten()),
        "a picture without the object has no Dice: leave it out of the mean": lambda p, y: dice(
            p, y
        ).mean(),
        "divide by the pictures that have the object, not by all": lambda p, y: (
            mean_over_pictures_with_an_object(p, y) * (y.sum(1) > 0).double().mean()
        ),
    },
)
exercise.check(dice_by_picture)


# %% tags=["solution"]
def dice_by_picture(p, y):
    """In the batch, the tiny object is a small part of the sums; by picture it has a whole vote."""
    has_object = y.any(1)
    if not has_object.any():
        return p.sum() * 0
    return dice(p[has_object], y[has_object]).mean()


print(
    "batch:",
    dice(batch_p.flatten(), batch_y.flatten()),
    "by picture:",
    dice_by_picture(batch_p, batch_y),
)
exercise.check(dice_by_picture)

# %% [markdown]
# ## Summary
#
# Symbols: $p_n$ and $y_n$ probability and truth of the object at pixel $n$; $I = \sum p_n y_n$, $P = \sum p_n$, $T = \sum y_n$, $S = P + T$, $U = S - I$, $V = I + \alpha(P - I) + \beta(T - I)$; $m_n = |y_n - p_n|$; $\phi_n$ signed distance to the outline.
#
# $$
# \begin{aligned}
# \ell_\gamma &= -(1 - p_t)^\gamma \ln p_t && \text{focal; its gradient is a factor times } p - y \\
# \mathrm L &= 1 - \tfrac{2I}{S}, \; 1 - \tfrac{I}{U} \text{ or } 1 - \tfrac{I}{V} && \text{Dice, Jaccard, Tversky} \\
# \tfrac{\partial \mathrm L}{\partial p_n} &= -2\,\tfrac{y_n S - I}{S^2}, \quad -\tfrac1U \text{ or } \tfrac{I}{U^2}, \quad -\tfrac{\alpha(P - I) + \beta T}{V^2} \text{ or } \tfrac{\alpha I}{V^2} && \text{object or ground} \\
# \overline\Delta(m) &= \sum_k m_{\pi_k} g_k && \text{Lovász: error times price, worst first} \\
# L_{\text{boundary}} &= \tfrac1N \sum_n \phi_n (p_n - y_n) && \text{distance times error}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. With a tiny object cross-entropy first learns that nothing is object. Dice balances object and ground whatever the size, if the ground is not in the mean.
# 2. Scores of masks have no gradient. Soft counts and the Lovász extension do; they equal the score only where every $p$ is 0 or 1.
# 3. Say what an absent class counts, over what the sums run, and which classes are averaged; and repeat with several seeds before you say which loss is better.
#
# **To read**
#
# - T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017: section 3, eq. 4.
# - F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net", 3DV 2016: section 3, the Dice loss, with squares.
# - S. S. M. Salehi, D. Erdogmus, A. Gholipour, "Tversky loss function for image segmentation using 3D fully convolutional deep networks", MLMI 2017.
# - M. A. Rahman, Y. Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation", ISVC 2016: soft IoU.
# - M. Berman, A. Rannen Triki, M. B. Blaschko, "The Lovász-Softmax loss", CVPR 2018: algorithm 1 has the prices.
# - H. Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019: section 2.
# - C. H. Sudre et al., "Generalised Dice overlap as a deep learning loss function for highly unbalanced segmentations", DLMIA 2017: one more way to weigh classes.
#
# **Next.** We have used IoU, precision and recall as if they were settled. [Chapter 08](08_metrics.ipynb) asks when such a number is honest.

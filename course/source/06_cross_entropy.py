# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # What does pixel-wise cross-entropy ask?
#
# One line of code trains nearly every network of this course: `loss = F.cross_entropy(logits, target)`. This chapter opens that line.
# It asks one thing of each pixel: *how surprised were you by the label?* And it sends one thing back: $p - y$, what was
# said minus what is so. Whoever has derived this on paper knows why a training run starts at 1.79 and not at 17, why it
# turns into `nan`, and what a weight, a void pixel or a larger batch does to it.
#
# **You will be able to**
#
# - say what cross-entropy asks of a model, and which answer it rewards most;
# - derive its gradient $p - y$ line by line, and check a gradient of your own against autograd and `gradcheck`;
# - compute it where `exp` overflows and where `log` gets a zero;
# - predict what void pixels, class weights, `reduction` and label smoothing do to value and gradient;
# - recognise a softmax too many, and the other mistakes that train without an error message.
#
# *60 minutes. Before: [masks](02_masks_and_data.ipynb) for `IGNORE`, [convolution arithmetic](05_convolution_arithmetic.ipynb)
# for where the scores come from. On paper: the derivative of a quotient and of a logarithm.*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 96  # height and width of the scene of section 9
steps = 300  # of gradient descent on that scene; at least 100

# %%
import inspect
import math
from decimal import Decimal

import torch
import torch.nn.functional as F

from segedu import show, widgets
from segedu.check import check, check_at_least, check_at_most
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.losses import cross_entropy_loss
from segedu.palette import class_colours

# %% [markdown]
# ## 1. What a network says about one pixel
#
# Semantic segmentation (语义分割) gives every pixel (像素) one of $C$ classes. A network does not say the class. It says $C$ numbers,
# one a class: the **logits** (未归一化得分) $z \in \mathbb{R}^C$. They may be any numbers. The larger $z_c$, the more the network is for class $c$.
#
# This chapter returns again and again to four pixels and three classes, $C = 3$. The logits are logarithms of whole
# numbers, so that you can check every line with a pocket calculator.
#
# | pixel | row, column | $e^{z_0}$ (ground) | $e^{z_1}$ (disc) | $e^{z_2}$ (square) | true class $t$ |
# |---|---|---|---|---|---|
# | A | 0, 0 | 6 | 1 | 1 | 0 |
# | B | 0, 1 | 1 | 1 | 1 | 1 |
# | C | 1, 0 | 18 | 1 | 1 | 2 |
# | D | 1, 1 | 1 | 2 | 1 | 1 |
#
# The first logit of A is $\ln 6 = 1.7918$, that of C is $\ln 18 = 2.8904$. The logits of B are all 0.
#
# **Before you go on:** which pixel should be told off most? Which least?

# %%
exp_z = torch.tensor([[6, 1, 1], [1, 1, 1], [18, 1, 1], [1, 2, 1]], dtype=torch.float64)
z = exp_z.log()  # (4, 3): one row a pixel, one column a class
t = torch.tensor([0, 1, 2, 1])  # (4,): the true classes

check("first logit of A", z[0, 0], 1.7918, tol=5e-5)
check("first logit of C", z[2, 0], 2.8904, tol=5e-5)
check("logits of B", z[1], 0.0)

# %% [markdown]
# ### From scores to probabilities
#
# We want $p \in \mathbb{R}^C$ with no negative entry and a sum of 1. The exponential makes every number positive; dividing by the sum does the rest:
#
# $$p_c = \frac{e^{z_c}}{\sum_{k=0}^{C-1} e^{z_k}}, \qquad c = 0, \dots, C-1.$$
#
# This is the **softmax** (归一化指数函数). Why the exponential, and not a square? Because then *differences* of logits mean something by themselves:
# $p_a / p_b = e^{z_a - z_b}$. One unit more for $a$ multiplies its odds against $b$ by $e$, whatever the other classes say.
#
# By hand, the table above gives $p$ at once: divide each row by its sum.
#
# | pixel | sum | $p_0$ | $p_1$ | $p_2$ |
# |---|---|---|---|---|
# | A | 8 | 6/8 | 1/8 | 1/8 |
# | B | 3 | 1/3 | 1/3 | 1/3 |
# | C | 20 | 18/20 | 1/20 | 1/20 |
# | D | 4 | 1/4 | 2/4 | 1/4 |


# %%
def softmax_naive(z):
    """Softmax over the last axis, as the formula says it. Section 3 breaks it."""
    return z.exp() / z.exp().sum(-1, keepdim=True)


p = softmax_naive(z)  # (4, 3)
by_hand = torch.tensor([[6 / 8, 1 / 8, 1 / 8], [1 / 3] * 3, [0.9, 0.05, 0.05], [0.25, 0.5, 0.25]])
check("p as in the table", p, by_hand, tol=1e-7)
check("p as in torch", p, F.softmax(z, dim=-1), tol=1e-15)
check("each pixel's p sums to 1", p.sum(-1), 1.0, tol=1e-15)

# %% alt="Four bar charts, one for each pixel. A is 0.75 for its true class ground, B a third for each class, C 0.9 for ground while its true class square has 0.05, D one half for its true class disc."
colours = class_colours(8) / 255
fig, axes = show.grid(1, 4, "What each pixel says; its true class is hatched", height=2.3)
for ax, name, row, true in zip(axes, "ABCD", p.tolist(), t.tolist(), strict=True):
    bars = ax.bar(range(3), row, color=colours[:3])
    bars[true].set(hatch="//", edgecolor="white")
    ax.set(title=f"{name}: {row[true]:.2f} for the truth", ylim=(0, 1))
    ax.set(xticks=range(3), xticklabels=CLASSES[:3])
check("probability of the true class, A to D", p[range(4), t], [0.75, 1 / 3, 0.05, 0.5], tol=1e-7)

# %% [markdown]
# A is right and fairly sure. B has no opinion. C is sure, and wrong. D is right and half sure. A loss must turn this into a number.
#
# ## 2. Why minus the logarithm
#
# The model states a probability for every label of every pixel. So ask the question that statistics asks of any such model:
# **how probable did it hold the labels that we have?** That is the **likelihood** (似然).
#
# Write $t_n$ for the true class of pixel $n$ and $p_{n,c}$ for its probabilities, $n = 1, \dots, N$. Take the labels as
# independent *given the image*: the image has been seen, and each pixel then answers for itself. The likelihood is a product,
#
# $$\prod_{n=1}^{N} p_{n, t_n}.$$
#
# By hand: $\frac34 \cdot \frac13 \cdot \frac1{20} \cdot \frac12 = \frac1{160}$.
#
# **Predict:** a real picture has more pixels. Give each of $96 \times 96$ pixels an excellent 0.9. What does a computer say the product is?

# %%
likelihood = p[range(4), t].prod()
check("likelihood of the four labels", likelihood, 1 / 160, tol=1e-15)
check("excellent 9216 times, float64", torch.full((96 * 96,), 0.9, dtype=torch.float64).prod(), 0.0)

# %% [markdown]
# Zero, even with 64 bits: $0.9^{9216}$ is smaller than any positive number they can hold. A logarithm makes the product a sum, and keeps the order of better and worse, since it rises.
# A minus makes it something to minimise. The **cross-entropy** (交叉熵) of pixel $n$, and the four together, are
#
# $$\ell_n = -\ln p_{n, t_n}, \qquad \sum_{n=1}^{N} \ell_n = -\ln \prod_{n=1}^{N} p_{n, t_n}.$$
#
# | pixel | $p_t$ | $\ell = -\ln p_t$ |
# |---|---|---|
# | A | 3/4 | 0.2877 |
# | B | 1/3 | 1.0986 |
# | C | 1/20 | 2.9957 |
# | D | 1/2 | 0.6931 |
# | sum | 1/160 | 5.0752 |
#
# A word on the assumption. Labels of neighbours are far from independent, but a network that has seen the image knows much of what ties them.
# What remains is what a conditional random field adds in [chapter 13](13_crf.ipynb).

# %%
losses = -p[range(4), t].log()  # (4,)
check("loss of each pixel, A to D", losses, [0.2877, 1.0986, 2.9957, 0.6931], tol=5e-5)
check("their sum", losses.sum(), 5.0752, tol=5e-5)
check("is minus the logarithm of the likelihood", losses.sum(), math.log(160), tol=1e-12)
check("torch has the same", F.cross_entropy(z, t, reduction="sum"), losses.sum(), tol=1e-12)

# %% [markdown]
# There is a second way to the same formula. Call $s(q)$ the *surprise* at an event of probability $q$. A certain event surprises
# nobody: $s(1) = 0$. Two independent events surprise by the sum: $s(qr) = s(q) + s(r)$. The only smooth functions that do both
# are $-\ln q$ and its multiples. With $-\log_2$ the unit is the bit, with $-\ln$ the nat: D's 0.6931 nat are exactly one bit.

# %% alt="The curve of minus log p from p near 0, where it is high, to p = 1, where it is zero, with the four pixels A, D, B and C on it from right to left; C is far up."
curve = torch.linspace(0.02, 1, 200)
fig, [ax] = show.grid(1, 1, width=5, height=3)
ax.plot(curve, -curve.log(), color="black")
for name, x, loss in zip("ABCD", p[range(4), t].tolist(), losses.tolist(), strict=True):
    ax.plot(x, loss, "o", color=colours[1], markeredgecolor="black")
    ax.annotate(f"{name}: {loss:.2f}", (x, loss), xytext=(8, 3), textcoords="offset points")
ax.set(title="Sure and wrong costs most: C alone pays over half")
ax.set(xlabel="probability $p_t$ of the true class", ylabel=r"loss $-\ln p_t$ (nat)")
check_at_least("C's share of the summed loss", losses[2] / losses.sum(), 0.5)
check("D's loss in bits", losses[3] / math.log(2), 1.0, tol=1e-12)

# %% [markdown]
# ### Why "cross" and why "entropy"
#
# Write the label as a vector $y \in \mathbb{R}^C$, **one-hot** (独热): $y_c = 1$ for $c = t$, else 0. Then the loss is a sum in which one term survives:
#
# $$\ell = -\sum_{c=0}^{C-1} y_c \ln p_c = -\ln p_t.$$
#
# The sum on the left is the cross-entropy of two distributions $y$ and $p$. It makes sense for a $y$ that is *not* one-hot, too: three of ten annotators said ground,
# seven said disc. We shall need that. For $p = y$ it is the **entropy** (熵) of $y$.
#
# ### The loss before anything is learned
#
# **Predict:** a network with $C = 6$ classes that knows nothing gives all of them the same logit. What is its loss? Does it depend on the picture?

# %%
scenes = Scenes(8, size=image_size, seed=seed)
scene = max(scenes, key=lambda one: len(one["mask"].unique()))  # the one with most classes
mask = scene["mask"].as_subclass(torch.Tensor)[None]  # (1, H, W)
nothing = torch.zeros(1, 6, image_size, image_size)  # (1, C, H, W)
check("six classes: log 6", F.cross_entropy(nothing, mask, ignore_index=IGNORE), 1.7918, tol=5e-5)
check("any other constant: the same", cross_entropy_loss(nothing + 5, mask), math.log(6), tol=1e-5)
check("three classes: pixel B", losses[1], math.log(3), tol=1e-12)

# %% [markdown]
# $\ln C$, for any picture: each class gets $1/C$. It is the first number to look at in a new training run. Much above it, and the last layer starts with opinions,
# or the labels are not what you think. Much below it, and the zeros of void pixels have been averaged in, or the last layer already leans to the commonest class.
#
# ## 3. What breaks, and the log-sum-exp
#
# **Predict:** float32 holds numbers up to $3.4 \cdot 10^{38}$. For which logit does $e^z$ leave that range: 88, 880 or 8800? And what does softmax
# say of the perfectly sensible logits $(1000, 999, 998)$?

# %%
largest = torch.finfo(torch.float32).max
check("the largest float32", largest, 3.403e38, tol=1e35)
check("its logarithm: the last logit that exp can take", math.log(largest), 88.72, tol=5e-3)
check("the same in float64", math.log(torch.finfo(torch.float64).max), 709.78, tol=5e-3)
check("and in float16", math.log(torch.finfo(torch.float16).max), 11.09, tol=5e-3)
check("exp(1000) in float32", torch.tensor(1000.0).exp(), math.inf)
check("naive softmax: inf / inf", softmax_naive(torch.tensor([1000.0, 999.0, 998.0])), math.nan)

# %% [markdown]
# This is **overflow** (上溢). Logits of 88 are rare, but in float16, a format of [chapter 20](20_gpu_training.ipynb), 12 is enough. The other end is **underflow** (下溢): a number too small becomes 0. That alone is harmless for a probability, but not for its logarithm.
#
# Take two classes, logits $(-200, 0)$, and the first is true. The loss is $\ln(e^{-200} + e^{0}) + 200$, so 200 to many digits. Here it goes through probabilities instead,
# with a softmax that does *not* overflow: torch's own.
#
# **Predict:** what are the loss and its gradient?

# %%
pair = torch.tensor([-200.0, 0.0], requires_grad=True)
through_p = -F.softmax(pair, dim=0)[0].log()
through_p.backward()
check("softmax of the true class", F.softmax(pair, dim=0)[0], 0.0)
check("loss through probabilities", through_p, math.inf)
check("and its gradient", pair.grad, math.nan)

# %% [markdown]
# The loss is $-\ln 0 = \infty$. Backwards, $\mathrm{d}(-\ln p)/\mathrm{d}p = -1/p = -\infty$ meets $\partial p / \partial z = p(1 - p) = 0$, and $\infty \cdot 0$ is `nan`.
# One such pixel makes the gradient of every parameter `nan`, and after the next step all the weights are.
#
# ### One degree of freedom too many
#
# The way out begins with a small fact. Add the same number $a$ to all logits of a pixel:
#
# $$
# \begin{aligned}
# \frac{e^{z_c + a}}{\sum_k e^{z_k + a}} &= \frac{e^a\, e^{z_c}}{e^a \sum_k e^{z_k}} && \text{(the exponential of a sum is a product)} \\
# &= \frac{e^{z_c}}{\sum_k e^{z_k}} = p_c && \text{(the factor } e^a \text{ cancels).}
# \end{aligned}
# $$
#
# Softmax does not see $a$. Of the $C$ logits only the $C - 1$ differences matter: as many as free numbers in $p$, whose sum is fixed.
#
# **Predict:** the loss does not change along the direction $(1, 1, \dots, 1)$. What does that say about the sum of its gradient over the classes? Section 4 will tell.

# %%
check("A's p with 7 added to its logits", softmax_naive(z[0] + 7), p[0], tol=1e-15)
check("p without the largest logit", softmax_naive(z - z.amax(-1, keepdim=True)), p, tol=1e-15)
far = torch.tensor([1000.0, 999.0, 998.0])
check(
    "now (1000, 999, 998) works", softmax_naive(far - far.max()), [0.6652, 0.2447, 0.09], tol=5e-5
)

# %% [markdown]
# So choose $a$ to our liking: $a = -m$ with $m = \max_k z_k$. Now every exponent is at most 0. Nothing can overflow.
# At least one exponent *is* 0, so the sum lies between 1 and $C$: it cannot vanish, nor can its logarithm be infinite.
#
# ### The trick in the logarithm
#
# The loss needs no probability at all:
#
# $$
# \begin{aligned}
# \ell = -\ln p_t &= -\ln \frac{e^{z_t}}{\sum_k e^{z_k}} && \text{(definition)} \\
# &= \ln \sum_k e^{z_k} - z_t && \text{(logarithm of a quotient; } \ln e^{z_t} = z_t \text{)} \\
# &= \operatorname{lse}(z) - z_t && \text{(a name: log-sum-exp).}
# \end{aligned}
# $$
#
# And the log-sum-exp, with the maximum taken out:
#
# $$
# \begin{aligned}
# \operatorname{lse}(z) = \ln \sum_k e^{z_k} &= \ln \sum_k e^{m}\, e^{z_k - m} && \text{(insert } e^{m} e^{-m} = 1 \text{)} \\
# &= \ln \Big( e^{m} \sum_k e^{z_k - m} \Big) && \text{(} e^m \text{ is the same in every term)} \\
# &= m + \ln \sum_k e^{z_k - m} && \text{(logarithm of a product).}
# \end{aligned}
# $$
#
# No approximation anywhere. And it is a *soft maximum*: the sum is in $[1, C]$, so $m \le \operatorname{lse}(z) \le m + \ln C$.
#
# By hand, for $(1000, 999, 998)$: $1000 + \ln(1 + e^{-1} + e^{-2}) = 1000 + \ln 1.5032 = 1000.4076$.


# %%
def log_sum_exp(z, dim=1):
    """Logarithm of the sum of exponentials along `dim`, which stays as an axis of length 1."""
    m = z.amax(dim, keepdim=True)
    return m + (z - m).exp().sum(dim, keepdim=True).log()


def softmax(z, dim=1):
    """Exponentials along `dim`, divided by their sum; no logit is too large."""
    e = (z - z.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)


# %%
far = far.double()
check("by hand", log_sum_exp(far, dim=0), [1000.4076], tol=5e-5)
check("as in torch", log_sum_exp(z), torch.logsumexp(z, dim=1, keepdim=True), tol=1e-14)
check("softmax, too", softmax(z), F.softmax(z, dim=1), tol=1e-14)
check_at_least("not below the largest logit", log_sum_exp(z) - z.amax(1, keepdim=True), 0.0)
check_at_most(
    "nor above it by more than log 3", log_sum_exp(z) - z.amax(1, keepdim=True), math.log(3) + 1e-12
)

# %% [markdown]
# Is it also *accurate*? Python's `decimal` computes with 28 digits and an exponent range in which $e^{1000}$ is nothing special. Near 1000, neighbouring float32
# numbers are $6.1 \cdot 10^{-5}$ apart. We should not be off by more than that.
#
# (Blanchard, Higham and Higham, 2021, prove what this one example suggests: the shifted formulas are about as accurate as the unshifted ones. They also warn of one
# variant, $e^{z_c - \operatorname{lse}(z)}$ without a division, which loses digits. That is why `softmax` above divides.)

# %% tags=["nbval-ignore-output"]
exact = sum(Decimal(x).exp() for x in (1000, 999, 998)).ln()
error = abs(Decimal(log_sum_exp(far.float(), dim=0).item()) - exact)
spacing = torch.nextafter(torch.tensor(1000.0), torch.tensor(2000.0)) - 1000
check("spacing of float32 at 1000", spacing, 6.1e-5, tol=5e-7)
check_at_most("error of log-sum-exp in float32", float(error), spacing.item())

# %% alt="Loss of a two-class pixel against the logit of its true class. The stable line falls from 130 to 0. The naive one lies on it in the middle, and is missing in shaded zones on the left, where it is infinite, and on the right, where it is not a number."
logit = torch.arange(-130, 131, dtype=torch.float32)
two = torch.stack([logit, torch.zeros_like(logit)], dim=1)
naive, stable = -softmax_naive(two)[:, 0].log(), log_sum_exp(two)[:, 0] - logit
fig, [ax] = show.grid(1, 1, width=6.5, height=3)
ax.plot(logit, stable, color="black", label="lse(z) - z of the true class")
ax.plot(logit[::6], naive[::6], "o", color=colours[1], label="-log(softmax), naive")
ax.axvspan(
    -130, logit[naive.isinf()].max().item(), color=colours[2], alpha=0.4, label="naive is inf"
)
ax.axvspan(88.7, 130, color=colours[5], alpha=0.4, label="naive is nan")
ax.set(title="The naive loss ends on both sides, and log-sum-exp goes on", ylabel="loss")
ax.set(xlabel="logit of the true class; the other class has 0, float32")
ax.legend()
check("stable where the naive loss is infinite", stable[0], 130.0, tol=1e-4)
check("stable where it is not a number", stable[-1], 0.0, tol=1e-6)

# %% [markdown]
# ## 4. The gradient, line by line
#
# Training moves the logits so that the loss falls. It needs the **gradient** (梯度) $\nabla_z \ell \in \mathbb{R}^C$: one derivative a logit.
# Two ways lead to it. The short one is worth remembering; the long one shows what a program meets that computes $p$ first.
#
# ### The short way: through log-sum-exp
#
# First, the derivative of the log-sum-exp in one logit $z_c$:
#
# $$
# \begin{aligned}
# \frac{\partial}{\partial z_c} \ln \sum_k e^{z_k} &= \frac{1}{\sum_k e^{z_k}} \cdot \frac{\partial}{\partial z_c} \sum_k e^{z_k} && \text{(chain rule, } (\ln u)' = u'/u \text{)} \\
# &= \frac{e^{z_c}}{\sum_k e^{z_k}} && \text{(only the term } k = c \text{ depends on } z_c \text{)} \\
# &= p_c && \text{(definition of softmax).}
# \end{aligned}
# $$
#
# **The derivative of log-sum-exp is softmax.** The soft maximum's slope says how much each logit takes part in being the maximum. Then the loss:
#
# $$
# \begin{aligned}
# \frac{\partial \ell}{\partial z_c} &= \frac{\partial}{\partial z_c} \operatorname{lse}(z) - \frac{\partial z_t}{\partial z_c} && \text{(} \ell = \operatorname{lse}(z) - z_t \text{)} \\
# &= p_c - y_c && \text{(} \partial z_t / \partial z_c \text{ is 1 for } c = t \text{, else 0: that is } y_c \text{).}
# \end{aligned}
# $$
#
# $$\boxed{\;\nabla_z\, \ell = p - y\;}$$
#
# What was said, minus what is so.
#
# By hand, subtract 1 from $p$ in the true class:
#
# | pixel | $p - y$ | reads |
# |---|---|---|
# | A | $(-0.25,\ 0.125,\ 0.125)$ | a little more ground |
# | B | $(0.3333,\ -0.6667,\ 0.3333)$ | more disc, less of both others |
# | C | $(0.9,\ 0.05,\ -0.95)$ | much more square, much less ground |
# | D | $(0.25,\ -0.5,\ 0.25)$ | more disc |
#
# **Predict:** what is the sum of each row? Recall the direction along which the loss does not change.

# %% tags=["nbval-ignore-output"]
y = F.one_hot(t, 3).double()  # (4, 3)
gradient = p - y  # (4, 3)
check("A", gradient[0], [-0.25, 0.125, 0.125], tol=1e-12)
check("B", gradient[1], [1 / 3, -2 / 3, 1 / 3], tol=1e-12)
check("C", gradient[2], [0.9, 0.05, -0.95], tol=1e-12)
check("D", gradient[3], [0.25, -0.5, 0.25], tol=1e-12)
check("each row sums to 0", gradient.sum(1), 0.0, tol=1e-12)

# %% [markdown]
# The sum is 0: what the true class gains, the others lose, and lose in proportion to what they claimed. Gradient descent never moves the sum of a pixel's logits.
#
# Do not take the derivation's word for it. The plainest test of a derivative is to move the logit a little, both ways, and to measure:
#
# $$\frac{\partial \ell}{\partial z_c} \approx \frac{\ell(z + h\, e_c) - \ell(z - h\, e_c)}{2h},$$
#
# with a small step $h$ and $e_c \in \mathbb{R}^C$ the vector that is 1 in entry $c$ and 0 elsewhere.

# %%
h = 1e-5


def loss_of(z, true):
    """Cross-entropy of one pixel with logits `z` of shape (C,)."""
    return log_sum_exp(z, dim=0)[0] - z[true]


moves = h * torch.eye(3, dtype=torch.float64)
measured = torch.stack([(loss_of(z[2] + e, 2) - loss_of(z[2] - e, 2)) / (2 * h) for e in moves])
check("C's gradient, measured", measured, [0.9, 0.05, -0.95], tol=1e-8)

z_auto = z.clone().requires_grad_()
F.cross_entropy(z_auto, t, reduction="sum").backward()
check("all four, by autograd", z_auto.grad, p - y, tol=1e-12)

# %% [markdown]
# ### The long way: the Jacobian of softmax
#
# To go through $p$ one needs all derivatives $\partial p_c / \partial z_k$: a $C \times C$ matrix, the **Jacobian** (雅可比矩阵) $J$. Let $S = \sum_k e^{z_k}$, a number.
#
# $$
# \begin{aligned}
# \frac{\partial p_c}{\partial z_k} &= \frac{\partial}{\partial z_k} \frac{e^{z_c}}{S} = \frac{[c = k]\, e^{z_c}\, S - e^{z_c}\, e^{z_k}}{S^2} && \text{(quotient rule; } \partial S / \partial z_k = e^{z_k} \text{)} \\
# &= [c = k]\, \frac{e^{z_c}}{S} - \frac{e^{z_c}}{S} \cdot \frac{e^{z_k}}{S} && \text{(divide both terms by } S^2 \text{)} \\
# &= [c = k]\, p_c - p_c\, p_k && \text{(definition of softmax).}
# \end{aligned}
# $$
#
# Here $[c = k]$ is 1 if $c = k$ and 0 otherwise. As a matrix: $J = \operatorname{diag}(p) - p\,p^{\mathsf T}$. For pixel A, with $p = \frac18 (6, 1, 1)$:
#
# $$J = \frac{1}{64} \begin{pmatrix} 12 & -6 & -6 \\ -6 & 7 & -1 \\ -6 & -1 & 7 \end{pmatrix}.$$
#
# Now the chain rule (链式法则). The loss depends on $p$ through $-\sum_c y_c \ln p_c$, so $\partial \ell / \partial p_c = -y_c / p_c$, and
#
# $$
# \begin{aligned}
# \frac{\partial \ell}{\partial z_k} &= \sum_c \frac{\partial \ell}{\partial p_c} \frac{\partial p_c}{\partial z_k} = -\sum_c \frac{y_c}{p_c} \big( [c = k]\, p_c - p_c\, p_k \big) && \text{(chain rule: every } p_c \text{ depends on } z_k \text{)} \\
# &= -y_k + p_k \sum_c y_c && \text{(the } p_c \text{ cancel)} \\
# &= p_k - y_k && \text{(} y \text{ sums to 1).}
# \end{aligned}
# $$
#
# The $1/p_c$ that blew up in section 3 was there only to be cancelled. On paper it cancels; in a computer $\infty \cdot 0$ does not.
# Note that the last line uses only $\sum_c y_c = 1$: **the result holds for soft labels too.**

# %%
jacobian = p[0].diag() - torch.outer(p[0], p[0])
check("A's Jacobian, first row", jacobian[0] * 64, [12.0, -6.0, -6.0], tol=1e-12)
check("second row", jacobian[1] * 64, [-6.0, 7.0, -1.0], tol=1e-12)
automatic = torch.autograd.functional.jacobian(lambda z: F.softmax(z, dim=0), z[0])
check("all of it, by autograd", jacobian, automatic, tol=1e-12)
check("J times the slope in p is p - y", jacobian @ (-y[0] / p[0]), p[0] - y[0], tol=1e-12)

# %% [markdown]
# ## 5. From one pixel to a batch
#
# A batch (批次) has many pixels, and not all have a label. In this course a target of `IGNORE` = 255 says "nobody knows": the void ring around each object.
# Shapes, from here to the end:
#
# - logits $z$: `logits`, $(B, C, H, W)$, with $B$ images, $C$ classes, $H$ rows, $W$ columns;
# - true classes $t$: `target`, $(B, H, W)$, a class $0, \dots, C-1$ or `IGNORE`;
# - $\Omega$: the set of places $(b, i, j)$ that have a label, image, row and column; $N = |\Omega|$ is their number.
#
# The loss is the mean over the labelled pixels *of the whole batch*:
#
# $$L = \frac1N \sum_{(b,i,j) \in \Omega} \Big( \operatorname{lse}(z_{b,:,i,j}) - z_{b,\,t_{bij},\,i,\,j} \Big).$$
#
# Each logit stands in one term of the sum only. So its derivative is that term's, divided by $N$; a logit of a void pixel stands in none:
#
# $$\frac{\partial L}{\partial z_{b,c,i,j}} = \begin{cases} (p - y)_{b,c,i,j}\, /\, N & \text{if } (b, i, j) \in \Omega, \\ 0 & \text{else.} \end{cases}$$
#
# By hand, as a picture of 2 x 2 with D made void: $N = 3$, and $L = (0.2877 + 1.0986 + 2.9957) / 3 = 1.4607$. With D labelled it is $5.0752 / 4 = 1.2688$.
#
# **Predict:** D was one of the better pixels. Is the gradient at C larger, smaller or the same once D is void?


# %%
def pixel_losses(logits, target):
    """-log p(true class) at each pixel, (B, H, W); 0 where there is no label."""
    labelled = target != IGNORE
    some_class = target.where(labelled, 0)  # 255 is no place among C channels
    chosen = logits.gather(1, some_class[:, None])
    return (log_sum_exp(logits) - chosen)[:, 0].where(labelled, 0)


def cross_entropy(logits, target):
    """Mean over labelled pixels of -log p(true class); 0 if there is none."""
    return pixel_losses(logits, target).sum() / (target != IGNORE).sum().clamp(min=1)


# %%
logits = z.T.reshape(1, 3, 2, 2)  # (1, C, H, W): A and B above, C and D below
target = t.reshape(1, 2, 2)
d_void = torch.tensor([[[0, 1], [2, IGNORE]]])
check("loss of four labelled pixels", cross_entropy(logits, target), 1.2688, tol=5e-5)
check("with D void", cross_entropy(logits, d_void), 1.4607, tol=5e-5)
in_torch = F.cross_entropy(logits, d_void, ignore_index=IGNORE)
check("torch has the same", cross_entropy(logits, d_void), in_torch, tol=1e-12)


# %%
def cross_entropy_gradient(logits, target):
    """Gradient of `cross_entropy` in the logits: (p - y) / N at labelled pixels, else 0."""
    labelled = target != IGNORE
    y = F.one_hot(target.where(labelled, 0), logits.shape[1]).movedim(-1, 1)
    return (softmax(logits) - y).where(labelled[:, None], 0) / labelled.sum().clamp(min=1)


found = cross_entropy_gradient(logits, d_void)  # (1, 3, 2, 2)
check("at C: a third of (0.9, 0.05, -0.95)", found[0, :, 1, 0], [0.3, 0.0167, -0.3167], tol=5e-5)
check("at D, exactly 0", found[0, :, 1, 1], 0.0)
before = cross_entropy_gradient(logits, target)
check("C's pull has grown by", found[0, 0, 1, 0] / before[0, 0, 1, 0], 4 / 3, tol=1e-12)

# %% [markdown]
# Larger, by 4/3: the mean has fewer pixels to be shared among. Void pixels have no gradient of their own, but their number changes everyone's.
#
# Now the check that every gradient of this course has to pass. `gradcheck` moves every input a little, in float64, and compares what it measures with what the backward pass says. To try *our* formula
# and not autograd's, we make an operation whose backward pass is our function.


# %%
class ByHand(torch.autograd.Function):
    """`cross_entropy`, with our formula as its backward pass."""

    @staticmethod
    def forward(ctx, logits, target):
        ctx.save_for_backward(logits, target)
        return cross_entropy(logits, target)

    @staticmethod
    def backward(ctx, upstream):
        return upstream * cross_entropy_gradient(*ctx.saved_tensors), None


# %% tags=["nbval-ignore-output"]
generator = torch.Generator().manual_seed(seed)
some_logits = 3 * torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
some_target = torch.randint(0, 4, (2, 3, 5), generator=generator)
some_target[:, 0] = IGNORE
some_logits.requires_grad_()
check("gradcheck", torch.autograd.gradcheck(ByHand.apply, (some_logits, some_target)), want=True)

torch_loss = F.cross_entropy(some_logits, some_target, ignore_index=IGNORE)
[automatic] = torch.autograd.grad(torch_loss, some_logits)
check("autograd", cross_entropy_gradient(some_logits, some_target), automatic, tol=1e-12)
check("the void rows", automatic[:, :, 0], 0.0)

# %% [markdown]
# A check counts when it has been seen to fail. So plant an error: let the backward pass forget to subtract $y$.


# %%
class Forgetful(ByHand):
    """The same with p, instead of p - y, as its gradient."""

    @staticmethod
    def backward(ctx, upstream):
        logits, target = ctx.saved_tensors
        return upstream * softmax(logits) / (target != IGNORE).sum(), None


inputs = (some_logits, some_target)
passes = torch.autograd.gradcheck(Forgetful.apply, inputs, raise_exception=False)
check("does gradcheck let p pass for p - y?", passes, want=False)

# %% [markdown]
# And the odd case. A crop may fall wholly into void. **Predict:** what is the mean over no pixel, in torch and in ours?

# %%
all_void = torch.full_like(target, IGNORE)
check("torch: 0 / 0", F.cross_entropy(logits, all_void, ignore_index=IGNORE), math.nan)
check("ours", cross_entropy(logits, all_void), 0.0)
check("its gradient", cross_entropy_gradient(logits, all_void), 0.0)

# %% [markdown]
# ## 6. What the gradient does
#
# Forget networks for a moment. Let the logits of the four pixels be the parameters themselves, and go downhill:
#
# $$z \leftarrow z - \eta\, (p - y),$$
#
# with the learning rate (学习率) $\eta = 1$ and the sum over pixels, so that each minds its own business.
#
# By hand, one step for C: $z = (2.8904 - 0.9,\ 0 - 0.05,\ 0 + 0.95) = (1.9904,\ -0.05,\ 0.95)$. Its loss falls from 2.9957 to
# $\ln(e^{1.9904} + e^{-0.05} + e^{0.95}) - 0.95 = 1.435$.
#
# **Predict:** which pixel's $p_t$ rises fastest in the first step? Does any ever reach 1?

# %% tags=["nbval-ignore-output"]
moving, path = z.clone(), [p[range(4), t]]
for _ in range(40):
    moving = moving - (softmax(moving) - y)
    path.append(softmax(moving)[range(4), t])
path = torch.stack(path)  # (41, 4)

after_one = z[2] - (p[2] - y[2])
check("C after one step", after_one, [1.9904, -0.05, 0.95], tol=5e-5)
check("and its loss", loss_of(after_one, 2), 1.435, tol=5e-4)
check_at_least("p of the true class after 40 steps, A to D", path[-1], 0.97)
check_at_most("and never 1", path, 1 - 1e-3)
check("the logits' sums have not moved", moving.sum(1), z.sum(1), tol=1e-12)

# %% alt="Probability of the true class over 40 steps of descent for pixels A, B, C and D. All rise towards 1; C starts at 0.05 and overtakes none but comes close to the rest within ten steps."
fig, [ax] = show.grid(1, 1, width=6, height=3)
for n, name in enumerate("ABCD"):
    style = {"color": colours[n + 1] if n != 3 else "black", "marker": "osD^"[n], "markevery": 4}
    ax.plot(path[:, n], label=f"{name}: starts at {path[0, n]:.2f}", **style)
ax.set(title="Each pixel's p goes to y: fast where it is wrong, slowly near 1")
ax.set(xlabel="step of gradient descent on the logits", ylabel="$p$ of the true class")
ax.legend()
check("the largest rise in the first step is B's", (path[1] - path[0]).argmax().item(), 1)
check("the largest push is C's", (p - y).abs().amax(1).argmax().item(), 2)

# %% [markdown]
# C is pushed hardest, yet in $p$ B rises most: it sits where softmax is steep. And nobody arrives. The nearer $p_t$ is to 1, the smaller the step. The logits grow without end, ever more slowly;
# a loss of 0 would need an infinite logit.
#
# ### The pull has a limit
#
# Each entry of $p - y$ lies in $[-1, 1]$. A pixel that is sure and wrong pulls with almost 1, a pixel that is right with almost 0, and nothing can pull with 100. Compare that with the obvious
# alternative, the squared error on the probability of the true class, $(1 - p_t)^2$. For two classes with logits $(z_t, 0)$ we have $\mathrm{d}p_t/\mathrm{d}z_t = p_t (1 - p_t)$ from the Jacobian, so
#
# $$\frac{\mathrm{d}}{\mathrm{d}z_t} \big(-\ln p_t\big) = p_t - 1, \qquad \frac{\mathrm{d}}{\mathrm{d}z_t} (1 - p_t)^2 = -2\,(1 - p_t)^2\, p_t.$$
#
# **Predict:** at $z_t = -6$ the pixel is sure and wrong, $p_t = 0.0025$. How hard does each loss pull?

# %% alt="Two panels over the logit of the true class. Left, losses: cross-entropy rises in a straight line for wrong pixels, the squared error flattens at 1. Right, pulls: that of cross-entropy goes to 1 for wrong pixels, that of the squared error has a bump of 0.30 and goes back to 0."
x = torch.linspace(-8, 8, 161, dtype=torch.float64)
p_true = torch.sigmoid(x)
pulls = {"cross-entropy": 1 - p_true, "squared error": 2 * (1 - p_true) ** 2 * p_true}
values = {"cross-entropy": F.softplus(-x), "squared error": (1 - p_true) ** 2}
fig, axes = show.grid(
    1, 2, "Sure and wrong: cross-entropy pulls, squared error has given up", width=4
)
for ax, curves, title in zip(axes, (values, pulls), ("loss", "pull: minus the slope"), strict=True):
    for name, style in (("cross-entropy", "-"), ("squared error", "--")):
        ax.plot(x, curves[name], style, color=colours[6 if style == "-" else 1], label=name)
    ax.set(title=title, xlabel="logit of the true class (other: 0)")
axes[0].legend()
check("p at -6", p_true[20], 0.0025, tol=5e-5)
check("cross-entropy's pull there", pulls["cross-entropy"][20], 0.9975, tol=5e-5)
check("the squared error's pull there", pulls["squared error"][20], 0.0049, tol=5e-5)

# %% [markdown]
# Two hundred times less. The squared error's pull peaks at $8/27 \approx 0.2963$, where $p_t = \frac13$, and goes back to 0 for the pixels that need it most. The logarithm in the loss undoes the exponential in the softmax; a
# loss without it stops learning where the model is sure and wrong (Goodfellow et al., section 6.2.2.3).
#
# The limit also cuts the other way. In a picture with ten thousand easy pixels and ten hard ones, the ten pull with at most 1 each. What then? That is [chapter 07](07_overlap_losses.ipynb).

# %%
peak = pulls["squared error"].max()
check("peak of the squared error's pull", peak, 8 / 27, tol=1e-3)
check("at a p of", p_true[pulls["squared error"].argmax()], 1 / 3, tol=0.02)
check_at_least(
    "how many times less at -6", pulls["cross-entropy"][20] / pulls["squared error"][20], 200
)

# %% [markdown]
# ### How curved the loss is
#
# The second derivatives form the **Hessian** (黑塞矩阵), $C \times C$. Since $\nabla_z \ell = p - y$ and $y$ is constant, it is the derivative of $p$: the Jacobian again,
#
# $$\nabla^2_z\, \ell = \operatorname{diag}(p) - p\,p^{\mathsf T}.$$
#
# For any $v \in \mathbb{R}^C$ we get $v^{\mathsf T} J v = \sum_c p_c v_c^2 - (\sum_c p_c v_c)^2$: the variance of $v$ under $p$, never negative. **The loss is convex (凸) in the logits.**
# And it is never very curved: row $c$ of $J$ has the absolute sum $p_c(1 - p_c) + \sum_{k \ne c} p_c\, p_k = 2\,p_c (1 - p_c) \le \frac12$,
# and no eigenvalue exceeds the largest such sum. We use this $\frac12$ in section 9 to choose a learning rate without trying.

# %% tags=["nbval-ignore-output"]
many = softmax(4 * torch.randn(1000, 6, generator=generator, dtype=torch.float64))
hessians = torch.diag_embed(many) - many[:, :, None] * many[:, None, :]
eigenvalues = torch.linalg.eigvalsh(hessians)
check_at_least("eigenvalues of 1000 Hessians: convex", eigenvalues, -1e-12)
check_at_most("never above one half", eigenvalues, 0.5 + 1e-12)

# %% [markdown]
# ### What cross-entropy asks
#
# Now the title's question. A network cannot tell all pixels apart. Suppose ten pixels look exactly alike to it, so they share one vector of logits. In truth seven are disc and three are ground.
#
# **Predict:** descend on the shared logits. Does $p$ go to $(0, 1)$, to $(\frac12, \frac12)$ or to something else? What is the loss then?

# %%
alike = torch.tensor([0] * 3 + [1] * 7)
shared = torch.zeros(2, dtype=torch.float64)
for _ in range(200):
    shared -= (softmax(shared, dim=0) - F.one_hot(alike, 2)).mean(0)
settled = softmax(shared, dim=0)
check("p of ground and disc", settled, [0.3, 0.7], tol=1e-6)
loss_at_best = F.cross_entropy(shared.expand(10, 2), alike)
check("loss: the entropy of (0.3, 0.7)", loss_at_best, 0.6109, tol=5e-5)

# %% [markdown]
# The frequencies. The reason is one line: at the bottom the mean gradient is 0,
#
# $$\frac1N \sum_{n=1}^{N} (p - y_n) = p - f = 0 \quad\Longrightarrow\quad p = f, \qquad f = \frac1N \sum_{n=1}^{N} y_n,$$
#
# with $f \in \mathbb{R}^C$ the share of each class among these pixels. So this is what pixel-wise cross-entropy asks:
#
# > **Of all pixels that look like this one to you, what share belongs to each class?**
#
# Its best answer is an honest probability, not a bold one. The loss left over is the entropy of $f$: what the model cannot know.
# Whether trained networks *are* honest is measured in [chapter 08](08_metrics.ipynb).
#
# ## 7. Two classes: one logit is enough
#
# For object against ground, the shift of section 3 lets us set $z_0 = 0$ and keep one logit. Divide by $e^{z_1}$:
#
# $$p_1 = \frac{e^{z_1}}{e^{z_0} + e^{z_1}} = \frac{1}{1 + e^{-(z_1 - z_0)}} = \sigma(z_1 - z_0), \qquad \sigma(u) = \frac{1}{1 + e^{-u}}.$$
#
# **Two-class softmax is the sigmoid of the difference.** With one logit $u = z_1 - z_0$ and a label $y \in \lbrace 0, 1 \rbrace$, both plain numbers here, the same loss is called **binary cross-entropy**:
#
# $$\ell = -y \ln \sigma(u) - (1 - y) \ln\big(1 - \sigma(u)\big), \qquad \frac{\mathrm{d}\ell}{\mathrm{d}u} = \sigma(u) - y.$$
#
# For the gradient take softmax's, $(p_0 - y_0,\ p_1 - y_1)$. Its second entry is $\sigma(u) - y$; its first is the negative of that, since the sum is 0. The
# two-logit pixel is moved twice: $z_1$ up and $z_0$ down. So at the same learning rate $u$ moves twice as far.
#
# By hand: $u = \ln 3$ has $\sigma(u) = \frac34$. For $y = 1$ the loss is $-\ln \frac34 = 0.2877$ and the slope $-\frac14$; for $y = 0$ they are $\ln 4 = 1.3863$ and $\frac34$.

# %%
u = torch.tensor([3.0, 3.0], dtype=torch.float64).log().requires_grad_()
label = torch.tensor([1, 0])
binary = F.binary_cross_entropy_with_logits(u, label.double(), reduction="none")
check("binary cross-entropy for y = 1 and y = 0", binary, [0.2877, 1.3863], tol=5e-5)
[slope] = torch.autograd.grad(binary.sum(), u)
check("its slope: sigma(u) - y", slope, [-0.25, 0.75], tol=1e-12)

both = torch.stack([torch.zeros(2), u.detach()], dim=1).requires_grad_()
softmax_loss = F.cross_entropy(both, label, reduction="none")
[two_slopes] = torch.autograd.grad(softmax_loss.sum(), both)
check("softmax with logits (0, u): the same value", softmax_loss, binary, tol=1e-12)
check("gradient in z1: the same", two_slopes[:, 1], slope, tol=1e-12)
check("gradient in z0: its negative", two_slopes[:, 0], -slope, tol=1e-12)

# %% [markdown]
# Four pixels again, now with one logit each. Their labels are 1, 0, 0, 1. **Predict:** which pixel is the loss mostly about, and which way is it pulled?

# %% alt="Four arrays of two by two pixels: the logits 2, -1, 0.5 and -3 with the true labels 1, 0, 0, 1; the probabilities of class 1; the losses, of which that of the last pixel, 3.05, is by far the largest; and the gradients, -0.95 for the last pixel."
four_logits, four_labels = torch.tensor([2.0, -1.0, 0.5, -3.0]), torch.tensor([1, 0, 0, 1])
fig = widgets.plot_four_pixels(four_logits.tolist(), four_labels.tolist())
four_losses = F.binary_cross_entropy_with_logits(four_logits, four_labels.float(), reduction="none")
check("the last pixel's share of the loss", four_losses[3] / four_losses.sum(), 0.683, tol=5e-4)
check("its gradient: pulled up", four_logits.sigmoid()[3] - four_labels[3], -0.9526, tol=5e-5)

# %% [markdown]
# Move the sliders. How large must a logit of a pixel with label 1 become before its gradient is less than 0.01? And what does the loss do when you push a right pixel further?

# %% tags=["nbval-ignore-output"]
widgets.explore_four_pixels()

# %%
enough = math.log(99)  # sigma(u) = 0.99
check("the logit that is enough", enough, 4.595, tol=5e-4)
check("the gradient is 0.01 at a logit of ln 99", 1 - 1 / (1 + math.exp(-enough)), 0.01, tol=1e-12)

# %% [markdown]
# $\ln 99$ is 4.595. From there on, pushing it further earns next to nothing.
#
# ## 8. Reductions, weights, soft labels
#
# ### None, sum, mean
#
# `reduction="none"` gives the map of losses, `"sum"` adds them, `"mean"` divides by the number $N$ of labelled pixels. The gradients differ in the factor $N$ alone. That factor lands on your learning rate.
#
# **Predict:** a rate was tuned with `"sum"` on crops of 96 x 96. You go to crops of 192 x 192. What happens to the size of a step? And with `"mean"`?

# %%
small = torch.randn(1, 6, 24, 24, generator=generator, dtype=torch.float64)
small_target = torch.randint(0, 6, (1, 24, 24), generator=generator)
large, large_target = small.tile(1, 1, 2, 2), small_target.tile(1, 2, 2)
for reduction, factor in (("sum", 4.0), ("mean", 1.0)):
    slopes = []
    for scores, truth in ((small, small_target), (large, large_target)):
        bias = torch.zeros(6, 1, 1, dtype=torch.float64, requires_grad=True)  # shared by all pixels
        loss = F.cross_entropy(scores + bias, truth, reduction=reduction)
        slopes.append(torch.autograd.grad(loss, bias)[0].norm())
    check(
        f"{reduction}: a step of a shared parameter grows by",
        slopes[1] / slopes[0],
        factor,
        tol=1e-9,
    )

# %% [markdown]
# Four times the pixels, four times the step with `"sum"`, the same step with `"mean"`. The same holds for the batch size. So the mean is the default, here and in torch: more pixels make the gradient less noisy, not larger.
#
# ### A mean of means is another mean
#
# Two pictures in a batch: in the first all four pixels have a label, in the second only C has. By hand, the mean over the five labelled pixels is $(5.0752 + 2.9957) / 5 = 1.6142$. The mean of the two pictures'
# means is $(1.2688 + 2.9957) / 2 = 2.1323$.
#
# In the second, the lone pixel has the weight of four. The same trap waits when a large batch is split and the parts' losses are averaged: on several GPUs
# ([chapter 21](21_many_gpus.ipynb)), or by accumulating gradients.

# %%
only_c = torch.tensor([[[IGNORE, IGNORE], [2, IGNORE]]])
batch, batch_target = logits.repeat(2, 1, 1, 1), torch.cat([target, only_c])
mean_of_means = (cross_entropy(logits, target) + cross_entropy(logits, only_c)) / 2
check("mean over the batch's labelled pixels", cross_entropy(batch, batch_target), 1.6142, tol=5e-5)
check("mean of the pictures' means", mean_of_means, 2.1323, tol=5e-5)
in_torch = F.cross_entropy(batch, batch_target, ignore_index=IGNORE)
check("torch takes the first", in_torch, cross_entropy(batch, batch_target), tol=1e-12)

# %% [markdown]
# ### Class weights
#
# To make a rare class count for more, give each class a weight (类别权重) $w_c \ge 0$, together $w \in \mathbb{R}^C$. Pixel $n$ counts $w_{t_n}$ times, so the mean must divide by the number of *counted* pixels:
#
# $$L_w = \frac{\sum_n w_{t_n}\, \ell_n}{\sum_n w_{t_n}}, \qquad \frac{\partial L_w}{\partial z_{n,c}} = \frac{w_{t_n}\, (p - y)_{n,c}}{\sum_{m} w_{t_m}},$$
#
# the sums over labelled pixels. This is what torch's `reduction="mean"` does. It does *not* divide by $N$.
#
# By hand, $w = (1, 2, 4)$. The true classes 0, 1, 2, 1 give the weights 1, 2, 4, 2, in sum 9. The weighted losses are
# $0.2877 + 2 \cdot 1.0986 + 4 \cdot 2.9957 + 2 \cdot 0.6931 = 15.8541$, and $15.8541 / 9 = 1.7616$. C's gradient is $\frac49\,(0.9, 0.05, -0.95)$.
#
# **Predict:** a batch holds one class only. You give that class the weight 100. What changes?

# %%
w = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
weighted_sum = (w[t] * losses).sum()
check("weighted sum", weighted_sum, 15.8541, tol=1e-4)
check("weighted mean", weighted_sum / w[t].sum(), 1.7616, tol=5e-5)
z_auto = z.clone().requires_grad_()
in_torch = F.cross_entropy(z_auto, t, weight=w)
in_torch.backward()
check("torch divides by the sum of the weights", in_torch, weighted_sum / 9, tol=1e-12)
check("gradient: w (p - y) / sum", z_auto.grad, w[t][:, None] * (p - y) / w[t].sum(), tol=1e-12)

discs = torch.ones(4, dtype=torch.int64)
heavy = torch.tensor([1.0, 100.0, 1.0], dtype=torch.float64)
with_weight, without = F.cross_entropy(z, discs, weight=heavy), F.cross_entropy(z, discs)
check("a batch of one class: its weight cancels", with_weight, without, tol=1e-12)

# %% [markdown]
# Nothing changes: 100 stands above and below. A weight compares classes *within* a batch. With one picture a batch, and one class in many pictures, a weight does less than it seems to.
#
# And it changes what is asked. Set the mean gradient of pixels that look alike to 0 once more: the best answer is now $p_c = w_c f_c / \sum_k w_k f_k$. That may be what you want, but it is no honest probability any more.
# Take the ten pixels of section 6 with $f = (0.3, 0.7)$. **Predict:** which weights make "half and half" the best answer?

# %%
even = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # p = (1/2, 1/2)
balance = torch.tensor([7.0, 3.0], dtype=torch.float64)
F.cross_entropy(even.expand(10, 2), alike, weight=balance).backward()
check("weights 7 and 3: no gradient at one half", even.grad.abs() < 1e-12, want=True)

# %% [markdown]
# ### Label smoothing, in two lines
#
# Section 4 allowed soft labels. Spread a share $\varepsilon$ of the truth over all classes, $y' = (1 - \varepsilon)\, y + \varepsilon / C$, and
#
# $$\nabla_z\, \ell = p - y'.$$
#
# The logits no longer run away: at $p = y'$ the gradient is 0. For $C = 3$ and $\varepsilon = 0.1$ the true class then has $e^{z}$ of $0.9333 / 0.0333 = 28$ times each other's, so it leads by $\ln 28 = 3.3322$
# and stops (Szegedy et al., 2016, section 7).

# %%
soft = 0.9 * y + 0.1 / 3  # (4, 3)
z_auto = z.clone().requires_grad_()
F.cross_entropy(z_auto, t, label_smoothing=0.1, reduction="sum").backward()
check("torch's gradient with label smoothing is p - y'", z_auto.grad, p - soft, tol=1e-12)
moving = z.clone()
for _ in range(400):
    moving = moving - (softmax(moving) - soft)
lead = moving[range(4), t] - moving[range(4), (t + 1) % 3]
check("the true class's lead in the end: log 28", lead, math.log(28), tol=1e-3)
check("which is", math.log(28), 3.3322, tol=5e-5)

# %% [markdown]
# ## 9. A scene, trained by hand
#
# Enough of four pixels. Here is the scene of section 2, which may hold six classes, and the smallest model that can learn from it: a **linear classifier at each pixel**. It sees $F = 7$ numbers of a pixel: a constant 1,
# the pixel's red, green and blue, and the mean colour of the 7 x 7 pixels around it. As a matrix, $X \in \mathbb{R}^{P \times F}$ with $P = HW$ pixels. Its parameters are $\theta \in \mathbb{R}^{F \times C}$, and the logits are $X\theta$.
# (That is a 1 x 1 convolution over seven channels; [chapter 05](05_convolution_arithmetic.ipynb).)
#
# The chain rule takes our gradient $G \in \mathbb{R}^{P \times C}$ in the logits to the parameters. Since $z_{n,c} = \sum_f x_{n,f}\, \theta_{f,c}$,
#
# $$\frac{\partial L}{\partial \theta_{f,c}} = \sum_{n} \frac{\partial L}{\partial z_{n,c}}\, x_{n,f} \quad\Longleftrightarrow\quad \nabla_\theta L = X^{\mathsf T} G, \qquad G = \tfrac1N (p - y).$$


# %%
def pixel_features(image):
    """A constant, the colour, and the mean colour around: (H * W, 7)."""
    around = F.avg_pool2d(image, 7, stride=1, padding=3, count_include_pad=False)
    seen = torch.cat([image, around])
    seen = (seen - seen.mean((1, 2), keepdim=True)) / seen.std((1, 2), keepdim=True)
    return torch.cat([torch.ones_like(seen[:1]), seen]).flatten(1).T


# %%
place = pick_device(device)
number = torch.float32 if place.type == "mps" else torch.float64  # Apple's GPU has no float64
picture = scene["image"].as_subclass(torch.Tensor)
X = pixel_features(picture.double()).to(place, number)  # (P, F)
truth = mask.to(place)  # (1, H, W)
check("one row a pixel, seven features", X.shape, [image_size**2, 7])

# %% [markdown]
# The learning rate comes from section 6. The curvature in a pixel's logits is at most $\frac12$. Through $z = X\theta$, the curvature in $\theta$ is at most $\lambda = \frac12\, \mu$,
# with $\mu$ the largest eigenvalue of $\frac1N \sum_{n \in \Omega} x_n x_n^{\mathsf T}$ over the labelled pixels. A step of $1/\lambda$ along the gradient can then never raise the loss.
#
# **Predict:** the first loss, with $\theta = 0$.


# %%
def logits_of(theta):
    """Logits of the scene, (1, C, H, W)."""
    return (X @ theta).T.reshape(1, 6, image_size, image_size)


def train_by_hand(target, steps, rate):
    """Descend from theta = 0 with our own gradient; returns theta and the loss before each step."""
    theta, record = torch.zeros(7, 6, dtype=number, device=place), []
    for _ in range(steps):
        logits = logits_of(theta)
        record.append(cross_entropy(logits, target).item())
        G = cross_entropy_gradient(logits, target)[0].flatten(1).T  # (P, C)
        theta = theta - rate * X.T @ G
    return theta, torch.tensor(record)


# %% tags=["nbval-ignore-output"]
seen = X[(truth != IGNORE).flatten()].cpu().double()  # the labelled pixels' features
largest_eigenvalue = torch.linalg.eigvalsh(seen.T @ seen / len(seen))[-1].item()
rate = 1 / (0.5 * largest_eigenvalue)
theta, record = train_by_hand(truth, steps, rate)

share = torch.bincount(mask[mask != IGNORE], minlength=6) / (mask != IGNORE).sum()
floor = torch.special.entr(share).sum().item()  # entropy: -sum of f log f
check("first loss: log 6", record[0], math.log(6), tol=1e-5)
check_at_most("no step has raised it", record.diff(), 1e-6)
check_at_most("last loss, against the entropy of the class shares", record[-1], floor)

# %% [markdown]
# The second line on the plot is a better benchmark than $\ln 6$: the entropy of the class shares $f$ in this picture. By section 6 it is the best loss of a model that looks at nothing. Only what falls *below* it has been learned from the image.

# %% tags=["nbval-ignore-output"] alt="The training loss falls from log 6, a dotted line, quickly below the dashed line of the class shares' entropy, and then flattens."
fig, [ax] = show.grid(1, 1, width=8, height=3)
ax.plot(record, color=colours[6], label="linear classifier")
ax.axhline(math.log(6), color="black", linestyle=":", label="knows nothing: log 6")
ax.axhline(floor, color=colours[7], linestyle="--", label="knows the class shares only")
ax.set(title="What is below the dashed line was learned from the image", ylim=(0, 1.9))
ax.set(xlabel="step", ylabel="cross-entropy (nat)")
fig.legend(loc="outside right center")
check_at_most("the class shares' entropy is below log 6", floor, math.log(6))

# %% [markdown]
# **Now the judge.** The same descent, with `F.cross_entropy` and autograd instead of our two functions. After all those steps, do the parameters agree?

# %% tags=["nbval-ignore-output"]
auto = torch.zeros_like(theta, requires_grad=True)
for _ in range(steps):
    loss = F.cross_entropy(logits_of(auto), truth, ignore_index=IGNORE)
    [slope] = torch.autograd.grad(loss, auto)
    auto = (auto - rate * slope).detach().requires_grad_()
apart = (theta - auto).abs().max()
check_at_most("largest difference of a parameter", apart, 1e-6 if number == torch.float64 else 1e-2)

# %% [markdown]
# They do. Nothing hidden happens in `loss.backward()`: at the logits it is $(p - y)/N$.
#
# And here is where the gradient is. In each map, look for the pixels that still pull.

# %% tags=["nbval-ignore-output"]
final = logits_of(theta).cpu().double()  # (1, C, H, W)
voids = mask == IGNORE
things = share.clone()
things[0] = 0  # not the ground
c = int(things.argmax())  # the commonest class of object here
y_scene = F.one_hot(mask.where(~voids, 0), 6).movedim(-1, 1)
error = (softmax(final) - y_scene)[0, c].where(~voids[0], math.nan)  # p - y of that class, (H, W)
check_at_most("no pixel pulls with more than 1", error[~voids[0]].abs().max(), 1.0)

# %% alt="Six maps of the scene: the picture; its truth with white void rings; the linear classifier's prediction, ragged; the loss at each pixel, high in objects that were not recognised; the probability of one object class; and the gradient p minus y for it, negative inside its objects, positive where it was wrongly suspected, zero elsewhere."
fig, axes = show.grid(
    2, 3, "Where the loss and its gradient are, after training", width=3, height=2.7
)
show.image(axes[0, 0], picture, "scene")
show.mask(axes[0, 1], mask[0], "truth (void: white)", num_classes=6)
show.mask(axes[0, 2], final.argmax(1)[0], "most probable class", num_classes=6)
show.heat(axes[1, 0], pixel_losses(final, mask)[0].where(~voids[0], math.nan), "loss of each pixel")
show.heat(axes[1, 1], softmax(final)[0, c], f"p of {CLASSES[c]}", low=0, high=1)
show.heat(axes[1, 2], error, f"p - y of {CLASSES[c]}", low=-1, high=1, colours="PuOr_r")
show.legend(fig, CLASSES)

# %% [markdown]
# The classifier sees colours only. Where two kinds of object share a colour it cannot be sure, and that is where the loss is. Each pixel asks for itself, so the answer is ragged. The last map has two signs:
# purple says "more of this class here", orange says "less". White is no pull at all, and the void ring is white, too.
#
# ### The answer needs no softmax
#
# To *train* we needed probabilities. To *answer* we need the largest one only, and the exponential and the division by a common sum do not change the order. So the class of a pixel is the argmax of its logits.

# %%
check("argmax of p is argmax of z", final.argmax(1), softmax(final).argmax(1))

# %% [markdown]
# ## 10. The same in `segedu`
#
# Later chapters import the loss. It is torch's sum, divided as section 8 says, with 0 for a batch that has no label.

# %% tags=["nbval-ignore-output"]
print(inspect.getsource(cross_entropy_loss))

# %% tags=["nbval-ignore-output"]
check("value", cross_entropy(final, mask), cross_entropy_loss(final, mask), tol=1e-12)
leaf = final.clone().requires_grad_()
[slope] = torch.autograd.grad(cross_entropy_loss(leaf, mask), leaf)
check("gradient", cross_entropy_gradient(final, mask), slope, tol=1e-12)
by_package = cross_entropy_loss(logits, target, class_weight=w)
check("weighted mean on four pixels", by_package, 1.7616, tol=5e-5)
check("no label at all", cross_entropy_loss(logits, all_void), 0.0)

# %% [markdown]
# ## 11. What goes wrong
#
# ### A softmax too many
#
# The most common mistake. The model ends in a softmax, "because it should give probabilities", and the loss, which takes logits, applies a second one. Nothing crashes. The loss falls.
#
# **Predict:** the four pixels again, trained to perfection. With the softmax applied twice, how low can the loss get?
#
# The second softmax sees numbers in $[0, 1]$. The best it can be given is the one-hot $y$ itself, and that it takes for a pixel whose true class leads by 1:
#
# $$\ell \ge -\ln \frac{e^1}{e^1 + (C-1)\, e^0} = \ln\Big(1 + \frac{C - 1}{e}\Big).$$
#
# For $C = 3$ that is 0.5514. For 19 classes it is 2.0310, where knowing nothing costs 2.9444.

# %% tags=["nbval-ignore-output"]
once, twice, curves = z.clone(), z.clone().requires_grad_(), []
for _ in range(300):
    once = once - (softmax(once) - y)
    loss = F.cross_entropy(softmax(twice), t, reduction="sum")
    [slope] = torch.autograd.grad(loss, twice)
    twice = (twice - slope).detach().requires_grad_()
    curves.append((F.cross_entropy(once, t).item(), loss.item() / 4))
bound = math.log(1 + 2 / math.e)
check("the bound for 3 classes", bound, 0.5514, tol=5e-5)
check_at_most("softmax once: loss after 300 steps", curves[-1][0], 0.01)
check_at_least("softmax twice: loss never below the bound", [double for _, double in curves], bound)

# %% tags=["nbval-ignore-output"] alt="Mean loss of the four pixels over 300 steps. With one softmax it falls towards 0. With two it falls more slowly and stops at the dashed line of 0.55."
fig, [ax] = show.grid(1, 1, width=6, height=3)
ax.plot([one for one, _ in curves], color=colours[6], label="softmax in the loss only")
ax.plot([two for _, two in curves], color=colours[7], label="softmax in the model as well")
ax.axhline(bound, color="black", linestyle="--", label="log(1 + 2/e)")
ax.set(title="Two softmaxes: slower, and never below the bound", xlabel="step", ylabel="mean loss")
ax.legend()
wild = 1000 * torch.randn(10000, 3, generator=generator, dtype=torch.float64)
lowest = F.cross_entropy(softmax(wild), wild.argmax(1), reduction="none").min()
check("10000 sure and right pixels: the lowest loss", lowest, bound, tol=1e-9)
check("the bound for 19 classes", math.log(1 + 18 / math.e), 2.0310, tol=5e-5)
check("19 classes, knowing nothing", math.log(19), 2.9444, tol=5e-5)

# %% [markdown]
# The floor is not the worst of it. The gradient passes through the inner softmax's Jacobian, whose entries $p_c (1 - p_c)$ vanish when the model is sure. C was pulled with 0.95; now it is pulled with
# 0.06. A pixel that is very sure and wrong is not pulled at all: we are back at the squared error's illness.
#
# The sign to look for: a loss that seems stuck near $\ln(1 + (C-1)/e)$. The cure: the model returns logits; softmax is for looking at.

# %% tags=["nbval-ignore-output"]
z_auto = z.clone().requires_grad_()
[slope] = torch.autograd.grad(F.cross_entropy(softmax(z_auto), t, reduction="sum"), z_auto)
check("softmax once: C's true logit is pulled with", (p - y)[2, 2], -0.95, tol=1e-12)
check("softmax twice: with", slope[2, 2], -0.0614, tol=5e-5)
sure = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
[slope] = torch.autograd.grad(F.cross_entropy(softmax(sure), torch.tensor([2])), sure)
check_at_most("very sure and wrong, softmax twice", slope.abs(), 1e-12)

# %% [markdown]
# ### Void counted as background
#
# torch's `ignore_index` is -100 unless told otherwise. Masks on disk hold 255. Forget to say so, and on the CPU there is an error, which is the lucky case.
# The tempting repair is `mask[mask == 255] = 0`: the error goes, and every "nobody knows" has become "certainly ground".

# %%
try:
    F.cross_entropy(logits, d_void)
    raised = "nothing"
except IndexError as error:
    raised = type(error).__name__
    print(error)
check("255 without ignore_index raises", raised, "IndexError")

# %% [markdown]
# **Predict:** the void ring is a thin line around each object. We train the linear classifier once more, with the ring as ground. What does it say on the ring, compared with before?

# %% tags=["nbval-ignore-output"]
as_ground = truth.where(truth != IGNORE, 0)
seen = X.cpu().double()  # every pixel counts as labelled now
rate_all = 2 / torch.linalg.eigvalsh(seen.T @ seen / len(seen))[-1].item()
theta_ground, _ = train_by_hand(as_ground, steps, rate_all)
ring = voids[0].to(place)
honest, taught = logits_of(theta), logits_of(theta_ground)
rise = softmax(taught)[0, 0, ring].mean() - softmax(honest)[0, 0, ring].mean()
check_at_least("p(ground) on the ring has risen by", rise, 0.05)
called_ground = [int((answer.argmax(1) == 0).sum()) for answer in (honest, taught)]
check_at_least("pixels called ground, more than before", called_ground[1] - called_ground[0], 1)

# %% [markdown]
# The ring has been taught to be ground, though half of it is object: it has the object's colours, and so have its neighbours. So the lesson spreads, and objects shrink. No error message told.
#
# ### The small constant in the logarithm
#
# `-(p + 1e-8).log()` is the repair that people find for `inf`. It gives a finite number. **Predict:** what does it give for a pixel with logits $(-30, 0)$ whose first class is true, and what is the gradient?

# %%
pair = torch.tensor([-30.0, 0.0], dtype=torch.float64, requires_grad=True)
patched = -(softmax(pair, dim=0)[0] + 1e-8).log()
[slope] = torch.autograd.grad(patched, pair)
check("the true loss", log_sum_exp(pair, dim=0)[0] - pair[0], 30.0, tol=1e-9)
check("the patched loss: stuck at 8 log 10", patched, 18.42, tol=5e-3)
check_at_most("the patched pull, which should be 1", slope.abs(), 1e-5)

# %% [markdown]
# The constant silences just the pixels that are most wrong. There is no need for a repair where nothing is broken: take the loss from the logits.
#
# ## 12. In the article
#
# The article that this course started from defines the loss in its section 4. Its aim, a cross-entropy over all pixels, is right, and
# so is its advice to leave the inner derivatives to automatic differentiation. Five points do not hold as they stand.
#
# > **In the article, 4.1: the classes.** Labels run over $\lbrace 0, 1, \dots, K \rbrace$, with $K$ called their number, and the output has $K$ channels. Count them: from 0 to $K$ there are $K + 1$.
# > With $K$ channels, the labels are $0, \dots, K-1$.

# %%
K = 3
three_channels = torch.zeros(1, K, 1, K + 1)
labels_to_k = torch.arange(K + 1)[None, None]  # 0, 1, 2, 3
try:
    F.cross_entropy(three_channels, labels_to_k)
    raised = "nothing"
except IndexError as error:
    raised = type(error).__name__
    print(error)
check("label K with K channels raises", raised, "IndexError")
check("labels from 0 to K: how many", len(labels_to_k.unique()), K + 1)
one_more = F.cross_entropy(torch.zeros(1, K + 1, 1, K + 1), labels_to_k)
check("K + 1 channels: as it should be, log 4", one_more, math.log(4), tol=1e-6)

# %% [markdown]
# > **In the article, 4.1: the sum.** Up to here $(i, j)$ was a pixel's row and column. In the loss, $i$ runs over the $N$ images and $j$ to $M$, the *width*. So $i$ does two jobs and the height is missing. And the sum is
# > divided by the number of images, so that the loss grows with the picture.
#
# Run it to the letter: with $i$ an image, $j$ stands where an array has the row, and runs to the width. Two pictures of 3 rows and 4 columns are enough.

# %%
two_pictures = torch.zeros(2, 3, 4, dtype=torch.int64)  # N images, H rows, M columns
try:
    visited = [two_pictures[i, j].numel() for i in range(2) for j in range(4)]
    raised = "nothing"
except IndexError as error:
    raised = type(error).__name__
    print(error)
check("j to the width, in the place of the row", raised, "IndexError")
for height in (3, 6):
    blank, labels = torch.zeros(2, 3, height, 4), torch.zeros(2, height, 4, dtype=torch.int64)
    per_image = F.cross_entropy(blank, labels, reduction="sum") / 2
    check(f"{height} rows, divided by images", per_image, 4 * height * math.log(3), tol=1e-4)
    check(f"{height} rows, by labelled pixels", cross_entropy(blank, labels), math.log(3), tol=1e-6)

# %% [markdown]
# With rows and columns both summed and the sum divided by the number of images, a picture twice as high costs twice as much. The mean over the labelled pixels of the batch is $\ln 3$ for either.
#
# > **In the article, 4.2: binary cross-entropy for exclusive classes.** The derivation takes the *two-class* loss and sums it over all $K$ classes. That is a model of its own: $K$ coins, each thrown by itself. It is right where labels may overlap.
# > In semantic segmentation a pixel has exactly one class, and one die with $K$ faces is meant: softmax, and $-\ln p_t$.
#
# **Predict:** three classes with the shares 0.5, 0.3 and 0.2, and nothing to be seen. Train both models' logits. Both end at $p = f$. Which has the larger loss, and what do the coins believe of a pixel?

# %% tags=["nbval-ignore-output"]
f = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
check("softmax: the best loss is", torch.special.entr(f).sum(), 1.0297, tol=5e-5)
two_sided = torch.special.entr(f) + torch.special.entr(1 - f)  # entr(x) is -x log x
check("sigmoids: the best loss is", two_sided.sum(), 1.8044, tol=5e-5)
at_best = torch.logit(f).requires_grad_()
F.binary_cross_entropy_with_logits(at_best, f, reduction="sum").backward()
check("at p = f their gradient is 0", at_best.grad, 0.0, tol=1e-12)
one_class = sum(f[k] * (1 - f).prod() / (1 - f[k]) for k in range(3))
check("coins: belief that the pixel has exactly one class", one_class, 0.47, tol=1e-12)

# %% [markdown]
# The coins hold it more likely than not, with 0.53, that the pixel has no class or several. That belief is what the extra loss pays for.
#
# The gradient in the logits has the *form* $p - y$ in both, but $p$ is another function. In softmax a class is judged against the others; with sigmoids each is judged alone. At pixel B, with all logits 0, softmax says $\frac13$
# and a sigmoid $\frac12$. And only softmax is blind to a common shift.

# %%
b = torch.zeros(3, dtype=torch.float64, requires_grad=True)  # pixel B; its true class is 1
die = F.cross_entropy(b[None], t[1:2])
coins = F.binary_cross_entropy_with_logits(b, y[1], reduction="sum")
check("softmax: B's loss, log 3", die, 1.0986, tol=5e-5)
check("sigmoids: B's loss, 3 log 2", coins, 2.0794, tol=5e-5)
die_slope, coins_slope = (torch.autograd.grad(loss, b)[0] for loss in (die, coins))
check("softmax: p - y", die_slope, F.softmax(b, dim=0) - y[1], tol=1e-12)
check("sigmoids: p - y", coins_slope, torch.sigmoid(b) - y[1], tol=1e-12)
check(
    "their values differ, here for the true class", coins_slope[1] - die_slope[1], 1 / 6, tol=1e-12
)
check("softmax, 2 added to all logits", F.cross_entropy(b[None] + 2, t[1:2]), 1.0986, tol=5e-5)
moved = F.binary_cross_entropy_with_logits(b + 2, y[1], reduction="sum")
check("sigmoids, 2 added to all logits", moved, 4.3808, tol=5e-5)

# %% [markdown]
# > **In the article, 4.2: the gradient.** It is taken in $\theta_k$ while $k$ is summed over on the other side. A parameter is not a class: our linear classifier has 42 parameters and 6 classes. Call the parameter $\theta_m$, and keep
# > $k$ for the sum. And the formula goes through probabilities: minus $y/\hat y - (1 - y)/(1 - \hat y)$ times $\partial \hat y/\partial \theta$, with $\hat y$ for our $p$ as in the article's first formula (its later ones write $Y$). On paper this is correct. In a computer it is $\infty \cdot 0$ again.
#
# One sigmoid, logit $u = -200$, label 1. **Predict** both factors in float32.

# %%
check("parameters of the linear classifier", theta.numel(), 42)
check("its classes", theta.shape[1], 6)
u = torch.tensor(-200.0)
y_hat = torch.sigmoid(u)
outer, inner = -(1 / y_hat - 0 / (1 - y_hat)), y_hat * (1 - y_hat)  # for y = 1
check("the factor from the loss", outer, -math.inf)
check("the factor from the sigmoid", inner, 0.0)
check("their product, as in the article", outer * inner, math.nan)
check("p - y, from the logit", y_hat - 1, -1.0)

# %% [markdown]
# > **In the article, question 5: activation functions.** It names ReLU and sigmoid, for extracting features. That is right for the inner layers. What is missing is the output: softmax over exclusive classes, a sigmoid each for labels that overlap,
# > and *none of them in the model* when the loss takes logits.
#
# | labels | last layer of the model | loss | to look at |
# |---|---|---|---|
# | one of $C$ classes | none | `F.cross_entropy` | softmax |
# | object or ground | none, one channel | `F.binary_cross_entropy_with_logits` | sigmoid |
# | several at once | none, one channel a label | `F.binary_cross_entropy_with_logits` | sigmoid |
#
# Section 11 showed the softmax too many. A sigmoid before `F.cross_entropy` meets the same bound, since it too hands over numbers in $[0, 1]$. A ReLU fails otherwise: **predict** the gradient of the true class where its logit is negative.

# %% tags=["nbval-ignore-output"]
sigmoids = F.cross_entropy(torch.sigmoid(wild), wild.argmax(1), reduction="none")
check_at_least("sigmoid before the loss: never below the bound", sigmoids, bound - 1e-9)
negative = torch.tensor([[2.0, -1.0, 0.5]], requires_grad=True)
truth_is_1 = torch.tensor([1])
[slope] = torch.autograd.grad(F.cross_entropy(torch.relu(negative), truth_is_1), negative)
check("ReLU before the loss: pull on the true class", slope[0, 1], 0.0)
[slope] = torch.autograd.grad(F.cross_entropy(negative, truth_is_1), negative)
check_at_most("no activation: it is pulled up", slope[0, 1], -0.9)

# %% [markdown]
# ## 13. Three quick questions
#
# **1.** A new network for 19 classes prints a loss of 2.94 before the first step. Is something wrong?
#
# <details><summary>Answer</summary>
#
# No. That is $\ln 19$: it knows nothing yet, and says so. A first loss of 12 would mean that it starts out sure of something, and wrong.
#
# </details>
#
# **2.** You add 7 to all logits of every pixel. What changes: the loss, the gradient, the predicted classes?
#
# <details><summary>Answer</summary>
#
# None of them. Softmax sees only differences of logits. With a sigmoid per class, all three could change.
#
# </details>
#
# **3.** In a batch of eight pictures one single pixel is labelled, and the model gives its true class $p_t = 0.2$. What is the gradient at this pixel's true logit, and what at all other pixels?
#
# <details><summary>Answer</summary>
#
# $N = 1$, so it is $p_t - 1 = -0.8$, not divided by anything. It is exactly 0 everywhere else. One pixel steers the whole step; a batch with few labels gives a noisy step, not a small one.
#
# </details>

# %% tags=["nbval-ignore-output"]
check("1: log 19", math.log(19), 2.94, tol=5e-3)
seven = F.cross_entropy(logits + 7, target) - F.cross_entropy(logits, target)
check("2: the loss changes by", seven, 0.0, tol=1e-12)
lone_logits, lone = torch.zeros(8, 5, 2, 2), torch.full((8, 2, 2), IGNORE)
lone[3, 1, 0] = 4  # five equal classes: p = 0.2
slopes = cross_entropy_gradient(lone_logits, lone)
check("3: at the true logit", slopes[3, 4, 1, 0], -0.8, tol=1e-6)
check("3: pixels with a gradient", slopes.abs().sum(1).count_nonzero().item(), 1)

# %% [markdown]
# ## 14. Exercises
#
# ### Exercise 1: the logarithm of softmax, in one line
#
# Write $\ln p$ so that no logit is too large. One line is enough; `log_sum_exp` is there.
# A tensor's last axis is `dim=-1`.


# %% tags=["exercise"]
def log_softmax(z):
    """Logarithm of the softmax over the last axis, of the shape of `z`; finite for finite `z`."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda z: F.log_softmax(z, dim=-1),
    inputs=[
        (torch.tensor([0.0, 0.0]),),
        (torch.tensor([[1.0, 2.0, 4.0], [-3.0, 0.0, 0.5]]),),
        (torch.tensor([1000.0, 1001.0, 999.0]),),
        (torch.tensor([[0.0, -200.0], [-1000.0, -1000.0]]),),
    ],
    misconceptions={
        "softmax first and the logarithm after: exp overflows, and log gets a 0": lambda z: (
            z.exp() / z.exp().sum(-1, keepdim=True)
        ).log(),
        "a softmax that does not overflow can still give 0, and its logarithm is -inf": lambda z: (
            F.softmax(z, dim=-1).log()
        ),
        "the maximum was taken out of the sum and not added back": lambda z: (
            z - (z - z.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True).log()
        ),
        "those are the probabilities; their logarithms were asked for": lambda z: F.softmax(
            z, dim=-1
        ),
    },
    tolerance=1e-4,  # float32 near 1000
)
exercise.check(log_softmax)


# %% tags=["solution"]
def log_softmax(z):
    """ln p_c = z_c - lse(z), section 3's derivation for every class at once.

    torch keeps some more digits near 1000: it subtracts the maximum from z first.
    """
    return z - log_sum_exp(z, dim=-1)


exercise.check(log_softmax)

# %% [markdown]
# ### Exercise 2: the gradient with class weights
#
# Section 8 has the formula. Write it for $P$ labelled pixels, given their $p$ and one-hot $y$. How large is the gradient at one pixel of a batch with a single class?


# %% tags=["exercise"]
def weighted_gradient(p, y, class_weight):
    """Gradient of the weighted mean cross-entropy in the logits.

    Args:
        p: (P, C), each pixel's probabilities.
        y: (P, C), each pixel's label, one-hot.
        class_weight: (C,), positive.
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_autograd(p, y, class_weight):
    """The same by torch; ln p are logits that have p as their softmax."""
    z = p.log().requires_grad_()
    F.cross_entropy(z, y.argmax(1), weight=class_weight).backward()
    return z.grad


exercise = Exercise(
    solution=by_autograd,
    inputs=[
        (p, y, torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)),
        (p[:1], y[:1], torch.tensor([5.0, 1.0, 1.0], dtype=torch.float64)),
        (p[[1, 3]], y[[1, 3]], torch.tensor([0.5, 0.25, 3.0], dtype=torch.float64)),
    ],
    misconceptions={
        "divided by the number of pixels, where the sum of their weights was counted": lambda p, y, w: (
            (y @ w)[:, None] * (p - y) / len(p)
        ),
        "each column has its own class's weight; a pixel has one weight, its true class's": lambda p, y, w: (
            w * (p - y) / (y @ w).sum()
        ),
        "divided by the sum of the class weights; sum them over the pixels": lambda p, y, w: (
            (y @ w)[:, None] * (p - y) / w.sum()
        ),
        "only y was weighted: the whole p - y of a pixel counts more, or less": lambda p, y, w: (
            (p - w * y) / (y @ w).sum()
        ),
    },
)
exercise.check(weighted_gradient)


# %% tags=["solution"]
def weighted_gradient(p, y, class_weight):
    """With one class only, the weight cancels, and a pixel's gradient is (p - y) / P."""
    weight = (y * class_weight).sum(1, keepdim=True)  # (P, 1): the true class's
    return weight * (p - y) / weight.sum()


exercise.check(weighted_gradient)

# %% [markdown]
# ### Exercise 3: binary cross-entropy from one logit
#
# For labels that may overlap, each class has its own logit $u$ and label $y \in [0, 1]$. Write the loss of section 7 so that it holds for $u = \pm 1000$. Start from two logits $(0, u)$:
# what is their log-sum-exp, with the maximum taken out?


# %% tags=["exercise"]
def binary_cross_entropy(u, y):
    """-y log sigma(u) - (1 - y) log(1 - sigma(u)) of each entry; finite for finite `u`."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda u, y: F.binary_cross_entropy_with_logits(u, y, reduction="none"),
    inputs=[
        (torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0])),
        (torch.tensor([2.0, -3.0, 0.5]), torch.tensor([1.0, 0.0, 0.5])),
        (torch.tensor([1000.0, 1000.0, -1000.0, -1000.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])),
    ],
    misconceptions={
        "log of sigmoid: for a sure pixel that is log 0, or 0 times log 0": lambda u, y: (
            -y * torch.sigmoid(u).log() - (1 - y) * (1 - torch.sigmoid(u)).log()
        ),
        "pixels with y = 0 count too: the second half of the formula is missing": lambda u, y: (
            y * F.softplus(-u)
        ),
        "the sign of u: a large u is for y = 1": lambda u, y: (
            y * F.softplus(u) + (1 - y) * F.softplus(-u)
        ),
        "log(1 + exp(u)) overflows; take the maximum of 0 and u out first": lambda u, y: (
            (1 + u.exp()).log() - u * y
        ),
    },
)
exercise.check(binary_cross_entropy)


# %% tags=["solution"]
def binary_cross_entropy(u, y):
    """lse(0, u) - u y, with max(0, u) taken out: the two exponents are then 0 and -|u|."""
    return u.clamp(min=0) + (-u.abs()).exp().log1p() - u * y


exercise.check(binary_cross_entropy)

# %% [markdown]
# ### Exercise 4: how long does it take to be put right?
#
# A small experiment. A pixel is wrong by a `margin`: its two logits are $(m, 0)$ and class 1 is true. Descend on its two logits with cross-entropy's gradient. How many steps until class 1 has the *larger* logit?
#
# **Predict** how the number grows with $m$: like $m$, like $m^2$ or like $e^m$? Then do the same for the squared error $(1 - p_1)^2$, whose gradient in the logits is $2(1 - p_1)^2 p_1\, (1, -1)$.


# %% tags=["exercise"]
def steps_until_right(margin, rate):
    """Steps of gradient descent from logits (margin, 0) until class 1, the true one, leads."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def steps_with(pull, is_wrong=lambda z0, z1: z0 >= z1):
    """Count the steps when `pull(p1)` gives what z0 loses and what z1 gains."""

    def count(margin, rate):
        z0, z1, steps = float(margin), 0.0, 0
        while is_wrong(z0, z1):
            down, up = pull(1 / (1 + math.exp(z0 - z1)))
            z0, z1, steps = z0 - rate * down, z1 + rate * up, steps + 1
        return steps

    return count


exercise = Exercise(
    solution=steps_with(lambda p1: (1 - p1, 1 - p1)),
    inputs=[(0, 0.5), (2, 0.1), (6, 1.0), (8, 0.3)],
    misconceptions={
        "only the true class's logit was moved; the other one's gradient is not 0": steps_with(
            lambda p1: (0, 1 - p1)
        ),
        "that is the squared error's gradient; cross-entropy's is p - y": steps_with(
            lambda p1: (2 * (1 - p1) ** 2 * p1, 2 * (1 - p1) ** 2 * p1)
        ),
        "a tie is not yet right: class 1 has to lead": steps_with(
            lambda p1: (1 - p1, 1 - p1), is_wrong=lambda z0, z1: z0 > z1
        ),
    },
)
exercise.check(steps_until_right)


# %% tags=["solution"]
def steps_until_right(margin, rate):
    """Each step closes the gap by 2 rate (1 - p1), which is about 2 rate while the pixel is wrong."""
    z = torch.tensor([float(margin), 0.0], dtype=torch.float64)
    truth = torch.tensor([0.0, 1.0], dtype=torch.float64)
    steps = 0
    while z[1] <= z[0]:
        z -= rate * (softmax(z, dim=0) - truth)
        steps += 1
    return steps


squared_error = steps_with(lambda p1: (2 * (1 - p1) ** 2 * p1, 2 * (1 - p1) ** 2 * p1))
for margin in (2, 4, 8):
    print(f"{margin}: {steps_until_right(margin, 0.1)} steps, {squared_error(margin, 0.1)} squared")
exercise.check(steps_until_right)

# %% [markdown]
# Cross-entropy's count grows like $m$: the pull stays near 1 as long as the pixel is wrong. The squared error's grows like $e^m$.
#
# ## Summary
#
# Symbols: logits $z$, probabilities $p$ and one-hot label $y$, each in $\mathbb{R}^C$; true class $t$; $\Omega$ the labelled pixels, $N$ their number, $w$ the class weights.
#
# $$
# \begin{aligned}
# p_c &= \frac{e^{z_c}}{\sum_k e^{z_k}} && \text{softmax} \\
# \operatorname{lse}(z) &= m + \ln \sum_k e^{z_k - m}, \quad m = \max_k z_k && \text{log-sum-exp, exact and stable} \\
# \ell &= -\ln p_t = \operatorname{lse}(z) - z_t && \text{cross-entropy of a pixel} \\
# \nabla_z\, \ell &= p - y, \qquad \nabla_z^2\, \ell = \operatorname{diag}(p) - p\,p^{\mathsf T} && \text{its gradient; its Hessian, softmax's Jacobian} \\
# L &= \frac{\sum_{n \in \Omega} w_{t_n} \ell_n}{\sum_{n \in \Omega} w_{t_n}}, \quad \frac{\partial L}{\partial z_n} = \frac{w_{t_n} (p_n - y_n)}{\sum_{m \in \Omega} w_{t_m}} && \text{weighted mean; 0 at void pixels} \\
# p_1 &= \sigma(z_1 - z_0) && \text{two classes} \\
# \ell &\ge \ln(1 + (C - 1)/e) && \text{if a softmax was applied before}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Cross-entropy asks for the share of each class among the pixels that look alike. Before learning it is $\ln C$; the entropy of the class shares is the mark to beat.
# 2. Its gradient in the logits is $p - y$: at most 1, nearly 1 for a pixel that is sure and wrong, exactly 0 for a void one.
# 3. Models return logits, losses take logits. No softmax, no small constant, no probability in between.
#
# **To read**
#
# - C. M. Bishop, *Pattern Recognition and Machine Learning*, 2006: sections 4.3.2 and 4.3.4; eq. 4.106 is the Jacobian, 4.108 the loss, 4.109 the gradient, 4.110 the Hessian.
# - I. Goodfellow, Y. Bengio, A. Courville, *Deep Learning*, 2016: sections 3.13 (entropy), 4.1 (overflow and underflow), 6.2.2 (output units; 6.2.2.3 on softmax).
# - P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", *IMA Journal of Numerical Analysis* 41(4), 2021, pages 2311-2330.
# - J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015: section 3 on losses that are sums over pixels.
# - C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016: section 7, label smoothing.
#
# **Next.** If an object is 0.3 % of the pixels, the mean of section 5 hardly sees it. [Chapter 07](07_overlap_losses.ipynb) derives losses that count overlap instead, and their gradients, against the $p - y$ of this one.

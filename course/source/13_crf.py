# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # What did the fully connected CRF add?
#
# The networks of 2014 knew what was in a picture and drew it as a blob. One answer was a better decoder; chapters [09](09_fcn.ipynb), [10](10_unet.ipynb) and [12](12_context.ipynb) took that road. The other came first: leave the network as it is, and let the pixels talk afterwards. *Who is near me and has my colour
# probably has my label.* Written down as a probability of whole labellings, this is a **conditional random field** (条件随机场), CRF for short, and in a fully connected one every pixel talks to every other. The first two DeepLabs ended in one. Then it went out of use. This chapter builds it, proves what can be proved about it, and measures what it adds to a coarse answer and to a sharp one.
#
# **You will be able to**
#
# - write the energy of a labelling, and say why its probabilities cannot be computed exactly;
# - derive the mean field update from the KL divergence, and tell where it is sure without reason;
# - compute messages between all pairs of pixels, exactly and cheaply, and say what the cheap way leaves out;
# - send a gradient through the iterations, and learn the kernels' weights;
# - judge whether a CRF is worth it for a network of yours, on pictures it was not tuned on.
#
# *50 minutes. Before: [cross-entropy](06_cross_entropy.ipynb) for logits and softmax, [FCN](09_fcn.ipynb) for coarse and fine scores. On paper: the derivative of $q \ln q$.*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 64  # height and width of a scene, a multiple of 16
difficulty = 0.2  # of the scenes
train_scenes = 128
val_scenes = 8  # on which the CRF's settings are chosen
test_scenes = 24
epochs = 7
runs = 3  # seeds of the experiment
noise = 0.25  # standard deviation added to the noisy half of the pictures
least_gain = 0.02  # boundary F1 that the CRF must add to coarse scores of clear pictures
least_gap = 0.005  # by which other differences of section 9 must hold, mean over the runs
learn_steps = 20  # of descent on the CRF's two weights
pets_count = 6  # photographs of section 10

# %%
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

# %%
from segedu import show
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.losses import cross_entropy_loss
from segedu.metrics.boundary import boundary_f1
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.crf import DenseCRF, Kernels
from segedu.models.fcn import FCN
from segedu.models.trunk import Trunk
from segedu.palette import class_colours

# %%
colours = class_colours(8) / 255
_ = torch.manual_seed(seed)

# %% [markdown]
# ## 1. The price of a labelling
#
# A network gives pixel $i$ of $N$ a logit $z_{i,c}$ for each of $C$ classes $c$. Its softmax treats every pixel by itself. A **labelling** (标注) $x = (x_1, \dots, x_N)$ gives each pixel a class, and now the whole labelling gets a price, its **energy** (能量):
#
# $$E(x) = -\sum_{i} z_{i, x_i} + \sum_{i < j} k_{ij}\, [x_i \ne x_j].$$
#
# The first sum is the **unary** part (一元势): labels that the network dislikes cost. The second is the **pairwise** part (二元势): each pair of pixels that disagrees pays $k_{ij} = k_{ji} \ge 0$, where $[\cdot]$ is 1 if true and 0 if not. That the price asks only whether the two labels are equal is called the **Potts** model. Section 3 makes the $k_{ij}$ from the picture.
#
# Energies become probabilities by the **Gibbs distribution** (吉布斯分布),
#
# $$P(x) = \frac{1}{Z}\, e^{-E(x)}, \qquad Z = \sum_{x'} e^{-E(x')},$$
#
# where $x'$ runs over all labellings. "Conditional" means: given the picture, on which the $z$ and the $k$ depend.
#
# ### Four pixels
#
# Two classes, ground 0 and object 1. The logit of 0 is 0, that of 1 the logarithm of the odds that the network gives to the object:
#
# | pixel | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|
# | colour | bright | bright | bright | dark |
# | odds of object | 4 | 2 | 1/2 | 1/4 |
# | $p$ of object, alone | 4/5 | 2/3 | 1/3 | 1/5 |
#
# The bright three are tied to one another with $k = \ln 2$, and nobody to the dark one. So **each pair that disagrees halves the probability**, and everything can be done by hand. Of the bright three, the labelling $110$ has the weight $4 \cdot 2 \cdot 1$ and two pairs that disagree: $8 / 4 = 2$. The labelling $111$ has $4 \cdot 2 \cdot \frac12 = 4$ and no such pair.
#
# **Predict:** the network alone says $110$. What does the most probable labelling say of pixel 3?


# %%
def labellings(pixels, classes):
    """All labellings, one a row: (classes ** pixels, pixels)."""
    return torch.tensor(list(itertools.product(range(classes), repeat=pixels)))


def energy(x, z, k):
    """Energy of each labelling in `x` (L, N), for logits `z` (N, C) and pairs `k` (N, N)."""
    unary = -z.expand(len(x), -1, -1).gather(2, x[:, :, None])[..., 0].sum(1)
    disagree = x[:, :, None] != x[:, None, :]
    return unary + (k.triu(1) * disagree).sum((1, 2))


# %%
odds = torch.tensor([4, 2, 1 / 2, 1 / 4], dtype=torch.float64)
z4 = torch.stack([torch.zeros(4).double(), odds.log()], dim=1)  # (4, 2)
k4 = torch.zeros(4, 4, dtype=torch.float64)
k4[:3, :3] = math.log(2)
k4.fill_diagonal_(0)
three = labellings(3, 2)
weight = (-energy(three, z4[:3], k4[:3, :3])).exp()
for x, value in zip(three.tolist(), weight.tolist(), strict=True):
    print(*x, f"weight {value:.3f}")
check("weights of 110 and 111", weight[[6, 7]], [2.0, 4.0], tol=1e-12)
check("their sum over all eight: Z of the bright three", weight.sum(), 9.375, tol=1e-12)
check("the most probable labelling", three[weight.argmax()], [1, 1, 1])

# %% [markdown]
# The neighbours have overruled pixel 3. The probability of one pixel's label, whatever the others have, is a **marginal** (边缘概率): the sum of $P(x)$ over the labellings with it. By hand for pixel 3: $(0.125 + 0.25 + 0.5 + 4) / 9.375 = 0.52$. It was $1/3$ alone.


# %%
def exact_marginals(z, k):
    """P(x_i = c) of every pixel, by enumeration: (N, C)."""
    x = labellings(*z.shape)
    p = (-energy(x, z, k)).softmax(0)
    return torch.einsum("l,lnc->nc", p, F.one_hot(x, z.shape[1]).to(z))


exact4 = exact_marginals(z4, k4)
check("marginals of object, all four pixels", exact4[:, 1], [0.8, 0.72, 0.52, 0.2], tol=1e-12)
check("alone", z4.softmax(1)[:, 1], [4 / 5, 2 / 3, 1 / 3, 1 / 5], tol=1e-12)

# %% [markdown]
# Pixel 1 stays at 0.8: its two friends together know as much for it as against it. Pixel 4, tied to nobody, stays where it was.
#
# ## 2. Why it cannot be computed
#
# The sum has $C^N$ terms. **Predict:** how many decimal digits has that number for a picture of $96 \times 96$ pixels and six classes? And if a computer could add $10^9$ of them in a second, how large is the largest picture with two labels that it does in an hour?

# %%
digits = math.floor(96 * 96 * math.log10(6)) + 1
check("digits of the number of labellings", digits, 7172)
check("pixels that take an hour", math.floor(math.log2(3600 * 1e9)), 41)
check("labellings of 3 x 4 pixels, two classes", len(labellings(12, 2)), 4096)

# %% [markdown]
# Six by seven pixels is out of reach already. For special cases there are exact ways that do not enumerate: two labels and $k \ge 0$ can be *minimised* as a cut in a graph. But marginals of a fully connected model, and minima for three labels and more, are out of reach in general. Everything that follows is an approximation, and on 12 pixels we can see how good it is.
#
# ## 3. Who talks to whom: two Gaussian kernels
#
# Let $r_i$ be the place of pixel $i$ (row and column, in pixels) and $I_i \in [0, 1]^3$ its colour. The paper ties two pixels by
#
# $$k_{ij} = \underbrace{w_1 \exp\Big({-\frac{|r_i - r_j|^2}{2\theta_\alpha^2}} - \frac{|I_i - I_j|^2}{2\theta_\beta^2}\Big)}_{\text{appearance}} + \underbrace{w_2 \exp\Big({-\frac{|r_i - r_j|^2}{2\theta_\gamma^2}}\Big)}_{\text{smoothness}}.$$
#
# The **appearance** kernel asks for nearness *and* like colour; photographers know it as the bilateral filter (双边滤波). The **smoothness** kernel asks for nearness alone, and removes specks. $\theta_\alpha$ and $\theta_\gamma$ are widths in pixels, $\theta_\beta$ is a width in colours, $w_1$ and $w_2$ are weights.
#
# By hand: two pixels side by side, black and mid-grey (0.5 in all three channels), $\theta_\alpha = 6$, $\theta_\beta = 0.1$. The place costs $1/72$ in the exponent, the colour $3 \cdot 0.25 / 0.02 = 37.5$. **Predict:** two pixels of the same colour, 6 apart, or two neighbours whose channels differ by 0.1 each: which pair is tied more strongly?

# %%
check("black beside mid-grey, appearance", math.exp(-1 / 72 - 37.5), 0.0, tol=1e-15)
check("same colour, 6 pixels apart", math.exp(-36 / 72), 0.607, tol=5e-4)
check("neighbours, 0.1 in each channel", math.exp(-1 / 72 - 0.03 / 0.02), 0.220, tol=5e-4)

# %% [markdown]
# ### How heavy is a weight?
#
# A pixel in the middle of an even area has about $2\pi\theta_\alpha^2 = 226$ neighbours' worth of appearance kernel, one in a corner a quarter of that, and a lone red pixel in the grass nearly none. A weight that is right for one is wrong for the others, and for every other $\theta_\alpha$. So the authors' own program **normalises**: each entry is divided by the roots of both its pixels' sums,
#
# $$\tilde k_{ij} = \frac{k_{ij}}{\sqrt{s_i s_j}}, \qquad s_i = \sum_j k_{ij} \quad (\text{with } k_{ii} = 1),$$
#
# for each kernel by itself. It stays symmetric, so it still belongs to an energy, and a weight now says *about how many units of logit all neighbours together can add*. We do the same, and write $k$ for the normalised sum from here on. A pixel does not disagree with itself, so $k_{ii} = 0$ at last.


# %%
def gaussian(f):
    """exp(-|f_i - f_j|^2 / 2) for all pairs of rows of `f` (N, D), normalised: (N, N)."""
    k = (-(f[:, None] - f).square().sum(-1) / 2).exp()
    share = k.sum(1).rsqrt()  # each pixel's own 1 is in the sum
    return (share[:, None] * k * share).fill_diagonal_(0)


def all_pairs(image, kernels):
    """k of every pair of pixels of an image (3, H, W): (N, N), N = H W."""
    rows, columns = image.shape[1:]
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(image)
    colour = image.flatten(1).T / kernels.colour_width
    looks = torch.cat([place / kernels.place_width, colour], dim=1)
    smooth = kernels.smooth_weight * gaussian(place / kernels.smooth_width)
    return kernels.appearance_weight * gaussian(looks) + smooth


# %%
scenes = Scenes(8, size=image_size, seed=seed, difficulty=difficulty)
objects = torch.stack([(scene["mask"] == 1).sum() + (scene["mask"] > 1).sum() for scene in scenes])
scene = scenes[(objects - objects.float().mean()).abs().argmin().item()]
picture = scene["image"].as_subclass(torch.Tensor)  # (3, H, W)
kernels = Kernels(appearance_weight=1, smooth_weight=0)
near = Kernels(appearance_weight=0, smooth_weight=1)
middle = picture[:, 8:-8, 8:-8]
appearance, smoothness = (all_pairs(middle, one) for one in (kernels, near))
check("symmetric", appearance, appearance.T, tol=1e-7)
check("nobody talks to himself", appearance.diagonal(), 0.0)

# %% alt="A scene with a cross on one pixel of an object, and what that pixel receives from every other: through the smoothness kernel a small round spot, through the appearance kernel only pixels of its own colour in a wider patch, here the stripes of its own kind and not those between, nor the ground."
inside = (scene["mask"] > 0) & (scene["mask"] != IGNORE)
deepest = F.avg_pool2d(inside[None, 8:-8, 8:-8].float(), 9, 1, 4).argmax().item()
across = middle.shape[2]
row, column = divmod(deepest, across)
fig, axes = show.grid(1, 3, "What one pixel hears", width=3)
show.image(axes[0], middle, "the pixel")
axes[0].plot(column, row, "x", color="white", markersize=10, markeredgewidth=3)
show.heat(axes[1], smoothness[deepest].view(-1, across), "smoothness: who is near")
show.heat(axes[2], appearance[deepest].view(-1, across), "appearance: near and alike")
far = Kernels().place_width
check("widths of place in the figure, pixels", [near.smooth_width, far], [1.5, 6.0])

# %% [markdown]
# ## 4. Mean field
#
# If $P$ is out of reach, look for the best distribution of a simple kind. **Mean field** (平均场) takes those in which the pixels are independent,
#
# $$Q(x) = \prod_i q_{i, x_i}, \qquad q_{i,c} \ge 0, \quad \sum_c q_{i,c} = 1,$$
#
# and looks for the one nearest to $P$ in the sense of the **KL divergence** (KL 散度):
#
# $$
# \begin{aligned}
# \operatorname{KL}(Q \,\|\, P) &= \sum_x Q(x) \ln \frac{Q(x)}{P(x)} \\
# &= \sum_x Q(x) \ln Q(x) + \sum_x Q(x)\, E(x) + \ln Z && (\ln P = -E - \ln Z) \\
# &= F(q) + \ln Z && \text{(the first two sums together: the free energy).}
# \end{aligned}
# $$
#
# $\ln Z$ is a constant. **So the nearest $Q$ is the one with the least free energy** (自由能), and $F$ is easy, because sums over all $x$ fall apart where pixels are independent:
#
# $$F(q) = \sum_i \sum_c q_{i,c} \big( \ln q_{i,c} - z_{i,c} \big) + \sum_{i<j} k_{ij} \Big( 1 - \sum_c q_{i,c}\, q_{j,c} \Big).$$
#
# The last bracket is the probability that $i$ and $j$ disagree. Not $C^N$ terms, but $NC$ and $N^2 C$. Do not believe it: on the four pixels we can compute the left side by enumeration.


# %%
def free_energy(q, z, k):
    """F of independent pixels `q` (N, C)."""
    disagree = 1 - q @ q.T
    return (q * (q.log() - z)).sum() + (k.triu(1) * disagree).sum()


def kl_by_enumeration(q, z, k):
    """KL(Q || P) as it is defined, over all labellings."""
    x = labellings(*z.shape)
    ln_q = q.log().expand(len(x), -1, -1).gather(2, x[:, :, None])[..., 0].sum(1)
    ln_p = (-energy(x, z, k)).log_softmax(0)
    return (ln_q.exp() * (ln_q - ln_p)).sum()


# %%
ln_z = torch.logsumexp(-energy(labellings(4, 2), z4, k4), 0)
generator = torch.Generator().manual_seed(seed)
for _ in range(3):
    q = torch.randn(4, 2, generator=generator, dtype=torch.float64).softmax(1)
    check("F + ln Z is the KL divergence", free_energy(q, z4, k4) + ln_z,
          kl_by_enumeration(q, z4, k4), tol=1e-12)  # fmt: skip

# %% [markdown]
# ### One pixel at a time
#
# Hold all pixels but $i$. What of $F$ depends on $q_i$?
#
# $$F = \sum_c q_{i,c} \big( \ln q_{i,c} - z_{i,c} - m_{i,c} \big) + \text{const}, \qquad m_{i,c} = \sum_{j \ne i} k_{ij}\, q_{j,c}.$$
#
# Call $m_{i,c}$ the **message** (消息) to $i$: what all others hold for class $c$. With $u_c = z_{i,c} + m_{i,c}$,
#
# $$\sum_c q_{i,c} \big( \ln q_{i,c} - u_c \big) = \operatorname{KL}\big(q_i \,\|\, \operatorname{softmax}(u)\big) - \operatorname{lse}(u),$$
#
# since $\ln \operatorname{softmax}(u)_c = u_c - \operatorname{lse}(u)$, the log-sum-exp of [chapter 06](06_cross_entropy.ipynb). A KL divergence is never negative, and zero only for equal distributions. So the least value is at
#
# $$\boxed{\; q_i = \operatorname{softmax}\big( z_i + m_i \big), \qquad m_{i,c} = \sum_{j \ne i} k_{ij}\, q_{j,c} \;}$$
#
# No learning rate, no search: **the logits of the network plus what the others say.** The paper writes it as four steps that we can recognise:
#
# | step | formula | what it does |
# |---|---|---|
# | message passing | $m_{i,c} = \sum_{j \ne i} k_{ij}\, q_{j,c}$ | a filter over the picture, each class by itself |
# | compatibility | $\sum_{d} \mu_{c,d}\, m_{i,d}$ | what class $c$ pays for the others' classes $d$; Potts: $\mu_{c,d} = [c \ne d]$ |
# | local update | $z_{i,c}$ minus that | the network is heard again, each time |
# | normalise | softmax | |
#
# With Potts, $\sum_d [c \ne d]\, m_{i,d} = \sum_d m_{i,d} - m_{i,c}$: a number that is the same for every class, minus $m_{i,c}$. Softmax does not see the first; so "minus what the others hold for other classes" is "plus what they hold for mine".
#
# By hand, pixel 3 of our four, the others at their softmax: $m_{3,1} = \ln 2 \cdot (\frac45 + \frac23) = 1.0166$ and $m_{3,0} = \ln 2 \cdot (\frac15 + \frac13) = 0.3697$. Its logit of object against ground goes from $-0.6931$ to $-0.6931 + 1.0166 - 0.3697 = -0.0462$, and $q$ from $1/3$ to $0.4884$.


# %%
def message(q, k):
    """What the others hold for each class at each pixel: (N, C)."""
    return k @ q


def mean_field(z, k, steps):
    """q after some steps in which all pixels move at once, from the network's own softmax."""
    q = z.softmax(1)
    for _ in range(steps):
        q = (z + message(q, k)).softmax(1)
    return q


# %%
first = message(z4.softmax(1), k4)
check("messages to pixel 3: ground, object", first[2], [0.3697, 1.0166], tol=5e-5)
check("its q after one step", mean_field(z4, k4, 1)[2, 1], 0.4884, tol=1e-4)
mu = 1 - torch.eye(2, dtype=torch.float64)  # Potts
four_steps = (z4 - first @ mu.T).softmax(1)
check("the paper's four steps give the same", four_steps, mean_field(z4, k4, 1), tol=1e-12)

# %% [markdown]
# Is the update really the least, and not just some point with slope zero? Move pixel 3 to a thousand other places, the rest held:

# %%
q = z4.softmax(1)
q[2] = (z4 + message(q, k4)).softmax(1)[2]
others = torch.rand(1000, generator=generator, dtype=torch.float64)
elsewhere = []
for share in others:
    moved = q.clone()
    moved[2] = torch.stack([1 - share, share])
    elsewhere.append(free_energy(moved, z4, k4) - free_energy(q, z4, k4))
check_at_least("F elsewhere, over F at the update", torch.stack(elsewhere), -1e-12)

# %% [markdown]
# ### One after the other, or all at once?
#
# Each single update lowers $F$, or leaves it. Taken one pixel after the other, $F$ can therefore only fall, and mean field must settle. But nobody updates pixels one by one: the paper moves **all at once**, each on what the others held *before*. That promise is gone.
#
# **Predict:** two pixels tied by $k = 6$, one leaning to object (logit 1), one to ground (logit $-1$). What happens if both listen to each other at the same time?

# %% tags=["nbval-ignore-output"]
z2 = torch.tensor([[0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
k2 = 6 * (1 - torch.eye(2, dtype=torch.float64))
at_once, in_turn = [z2.softmax(1)], [z2.softmax(1)]
for step in range(12):
    at_once.append((z2 + message(at_once[-1], k2)).softmax(1))
    q = in_turn[-1].clone()
    q[step % 2] = (z2 + message(q, k2)).softmax(1)[step % 2]
    in_turn.append(q)
falls = torch.stack([free_energy(q, z2, k2) for q in in_turn]).diff()
check_at_most("in turn, F never rises", falls, 1e-12)
check("in turn, both agree in the end", in_turn[-1].argmax(1).unique().numel(), 1)
swapping = torch.stack(at_once)[-4:, 0, 1] > 0.5
check("at once, pixel 1 changes its mind every time", swapping.int().diff().abs(), [1, 1, 1])

# %% alt="Two panels over twelve steps. Left, the probability of object of pixel 1: in turn it settles near 0, at once it jumps between nearly 0 and nearly 1. Right, the free energy: in turn it falls and stays low, at once it rises and then jumps between two high values."
fig, axes = show.grid(
    1, 2, "Two pixels that listen at the same time swap for ever", width=4, height=2.8
)
for name, path, colour in (("in turn", in_turn, colours[6]), ("at once", at_once, colours[1])):
    axes[0].plot([q[0, 1] for q in path], "o-", color=colour, label=name)
    axes[1].plot([free_energy(q, z2, k2) for q in path], "o-", color=colour, label=name)
axes[0].set(title="pixel 1: probability of object", xlabel="step", ylim=(-0.05, 1.05))
axes[1].set(title="free energy", xlabel="step")
axes[1].legend()
top = free_energy(at_once[-1], z2, k2) - free_energy(in_turn[-1], z2, k2)
check_at_least("free energy at once, above that in turn", top, 2.0)

# %% [markdown]
# In a picture a pixel hears hundreds of others, most of which do not change their minds, and the swapping hardly ever shows. But "ten iterations" is a habit and no guarantee. (Krähenbühl and Koltun's paper of 2013 on learning these models gives updates that provably converge.)
#
# ## 5. Where mean field is sure without reason
#
# Twelve pixels have 4096 labellings: few enough for the truth. First a case where the truth is known without computing. All logits are 0, and all pairs are tied by the same $k$. Swap the two labels everywhere and nothing changes, so every exact marginal is $\frac12$, **however large $k$ is**.
#
# And mean field? Let all pixels have the same $q$ of object, and $T = 11k$ be the sum of a pixel's ties. The update is $q \leftarrow \sigma\big(T (2q - 1)\big)$, with the sigmoid $\sigma$. Near $\frac12$ the slope is $2T \cdot \frac14 = T/2$. **Predict:** what happens to a tiny lead for the object when $T < 2$, and when $T > 2$?

# %%
ties = torch.linspace(0.2, 4, 20, dtype=torch.float64)
lean = torch.zeros(12, 2, dtype=torch.float64)
lean[:, 1] = 1e-6  # a tiny lead
full = 1 - torch.eye(12, dtype=torch.float64)
believed = torch.stack([mean_field(lean, t / 11 * full, 400)[0, 1] for t in ties])
truly = torch.stack([exact_marginals(lean, t / 11 * full)[0, 1] for t in ties])

# %% alt="Probability of object against the sum of a pixel's ties. The exact marginal is one half everywhere. Mean field is one half up to 2 and then bends away, to 0.9 and more."
fig, [ax] = show.grid(1, 1, width=5, height=3)
ax.plot(ties, truly, color="black", label="exact")
ax.plot(ties, believed, "o-", color=colours[1], label="mean field")
ax.set(
    title="Past T = 2 mean field takes sides",
    xlabel="sum T of a pixel's ties",
    ylabel="marginal of object",
)
ax.legend()
check("exact, whatever the ties", truly, 0.5, tol=1e-4)
check("mean field below T = 1.9", believed[ties < 1.9], 0.5, tol=1e-3)
check_at_least("mean field at T = 4", believed[-1], 0.95)

# %% [markdown]
# Mean field cannot say "all object or all ground, I do not know which": its pixels are independent, and the nearest *independent* distribution picks one of the two and is sure of it. This is a property of $\operatorname{KL}(Q\|P)$, which punishes $Q$ for probability where $P$ has none, and forgives it for what it misses.
#
# **So do not read a CRF's output as a probability.** [Chapter 08](08_metrics.ipynb) has the means to see how overconfident it is. What people use is the label. How good is that? Draw 80 tiny pictures, $3 \times 4$, with random logits and colours, and compare with the truth: the marginals, and the labelling of least energy, called **MAP** (最大后验).

# %%
gaps, agree, exact_best = [], [], []
small = Kernels(appearance_weight=2, place_width=2, colour_width=0.5, smooth_weight=1)
every = labellings(12, 2)
for _ in range(80):
    z = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    k = all_pairs(torch.rand(3, 3, 4, generator=generator, dtype=torch.float64), small)
    believed, truly = mean_field(z, k, 50), exact_marginals(z, k)
    best = every[energy(every, z, k).argmin()]
    gaps.append(believed.amax(1).mean() - truly.amax(1).mean())
    agree.append((believed.argmax(1) == truly.argmax(1)).double().mean())
    exact_best.append((believed.argmax(1) == best).double().mean())

# %% tags=["nbval-ignore-output"]
gaps, agree, exact_best = (torch.stack(x) for x in (gaps, agree, exact_best))
print(f"confidence above the exact one: {gaps.mean():.3f} on average, up to {gaps.max():.3f}")
print(
    f"label as the exact marginal's: {agree.mean():.3f}, as the MAP labelling's: {exact_best.mean():.3f}"
)
check_at_least("mean field is surer than the truth, in all 80", gaps, -1e-3)
check_at_least("on average by", gaps.mean(), 0.02)
check_at_least("share of pixels with the exact marginal's label", agree.mean(), 0.93)
check_at_least("share of pixels with the MAP's label", exact_best.mean(), 0.8)

# %% [markdown]
# On the mean over a picture's pixels it is too sure every time, and in more than nine of ten pixels of the right label. The MAP labelling is another question, about all pixels at once, and its labels are met a little less often.
#
# ## 6. All pairs without a matrix
#
# The update costs one multiplication for each pair and class. **Predict:** how many pairs are there in a photograph of $500 \times 375$ pixels, and how many gigabytes does the matrix of $k$ take at 4 bytes each?

# %%
for rows, columns in ((12, 12), (96, 96), (375, 500)):
    pixels = rows * columns
    gigabytes = 4 * pixels**2 / 1e9
    print(f"{rows} x {columns}: {math.comb(pixels, 2):,} pairs, matrix {gigabytes:.3g} GB")
check("pairs of 12 x 12", math.comb(144, 2), 10296)
check(
    "pairs of the photograph, in thousand millions", math.comb(375 * 500, 2) / 1e9, 17.58, tol=5e-3
)
check("its matrix, GB", 4 * (375 * 500) ** 2 / 1e9, 140.6, tol=0.05)

# %% [markdown]
# **Smoothness** is cheap without any approximation. A Gaussian of the distance is a product, $e^{-(a^2 + b^2)/2\theta^2} = e^{-a^2/2\theta^2}\, e^{-b^2/2\theta^2}$: filter along the columns, then along the rows, with one small matrix each. For $H \times W$ pixels that is $H + W$ multiplications a pixel in place of $HW$. Then take off each pixel's own share.
#
# **Appearance** is not a product over rows and columns, because the colours are anywhere. Three ways are in use:
#
# - *The permutohedral lattice* (Adams, Baek and Davis 2010), the paper's choice. Pixels are points in five dimensions, two of place and three of colour. Spread each point's value to the corners of a lattice cell around it, blur along the lattice, and read it back. The cost grows like the number of pixels. It is an approximation whose error is not easily named.
# - *A window* (Teichmann and Cipolla 2018, "convolutional CRF"). Beyond some multiple of $\theta_\alpha$ a Gaussian is next to nothing: leave out pairs that are farther apart. The cost is the window's size for each pixel, and the error can be measured. It is what `segedu.models.crf` does.
# - *All pairs*, in pieces: exact, and quadratic.
#
# A window as large as the picture leaves out nothing. So **on $12 \times 12$ pixels the module must agree with our $144 \times 144$ matrix to rounding**, after ten steps, with four classes.

# %%
kernels = Kernels(place_width=2.5, colour_width=0.25, reach=12)
image = torch.rand(1, 3, 12, 12, generator=generator, dtype=torch.float64)
logits = 2 * torch.randn(1, 4, 12, 12, generator=generator, dtype=torch.float64)
pairs = all_pairs(image[0], kernels)
check("the matrix", list(pairs.shape), [144, 144])
by_matrix = mean_field(logits[0].flatten(1).T, pairs, 10).T.view(1, 4, 12, 12)
with torch.no_grad():
    filtered = DenseCRF(kernels, steps=10).double()(logits, image).softmax(1)
check("q of the filter is q of the matrix", filtered, by_matrix, tol=1e-12)
check_at_least("and not that of the network alone", (filtered - logits.softmax(1)).abs().max(), 0.1)

# %% [markdown]
# `DenseCRF` gives logits, like every model of the course: $z + m$ of the last step. Softmax them for $q$.
#
# Now cut the window. How far is a scene's $q$ from the exact one when pairs beyond 1, 2, 3 standard deviations are left out? What remains is normalised, so only the *shape* of the kernel's rim is lost. To be hard on it, the logits are random.

# %%
whole = picture[None, :, :32, :32].double()
wild = 2 * torch.randn(1, 2, 32, 32, generator=generator, dtype=torch.float64)
errors = {}
for reach in (1, 2, 3, 32 / 4):
    crf = DenseCRF(Kernels(place_width=4, reach=reach)).double()
    with torch.no_grad():
        errors[reach] = crf(wild, whole).softmax(1)[0, 1]

# %%
off = {reach: (errors[reach] - errors[8]).abs() for reach in (1, 2, 3)}
for reach, one in off.items():
    print(f"reach {reach}: largest error of q {one.max():.4f}, mean {one.mean():.5f}")
check_at_most("reach 3, mean error of q", off[3].mean(), 0.01)
check_at_most("against that of reach 1", off[3].mean() / off[1].mean(), 0.5)

# %% [markdown]
# ## 7. Watch it work
#
# A scene again, and the question of [chapter 09](09_fcn.ipynb): object or ground? As logits take the *truth through a bottleneck*: the share of object in blocks of $8 \times 8$, kept between 0.05 and 0.95, as log-odds, and these enlarged bilinearly. It is a perfect answer, but coarse.
#
# **Predict:** after one step, will the outline have moved mostly where the colours change sharply, or where they hardly change?


# %%
def coarse_logits(truth, block):
    """Log-odds (2, H, W) of the share of 1 in blocks of a mask (H, W), enlarged bilinearly."""
    share = F.avg_pool2d((truth == 1).double()[None, None], block).clamp(0.05, 0.95)
    odds = F.interpolate(share.logit(), scale_factor=block, mode="bilinear", align_corners=False)
    return torch.cat([torch.zeros_like(odds), odds], dim=1)[0].float()


truth = torch.where(scene["mask"] == IGNORE, IGNORE, scene["mask"].clamp(max=1))
truth = truth.as_subclass(torch.Tensor)
coarse = coarse_logits(truth, 8)[None]
crf = Kernels(appearance_weight=6, place_width=6, colour_width=0.1)
with torch.no_grad():
    answers = {n: DenseCRF(crf, steps=n)(coarse, picture[None])[0] for n in (0, 1, 2, 5, 10)}

# %% tags=["nbval-ignore-output"] alt="A scene, its mask, and the answer after 0, 1, 5 and 10 steps. It begins as rounded blobs; after one step the outlines lean towards the colours, after ten they follow them in most places."
fig, axes = show.grid(1, 6, "Mean field, step by step", width=1.8)
show.image(axes[0], picture, "scene")
show.mask(axes[1], truth, "truth", num_classes=2)
for ax, n in zip(axes[2:], (0, 1, 5, 10), strict=True):
    show.mask(ax, answers[n].argmax(0), f"{n} steps", num_classes=2)
wrong = {n: ((z.argmax(0) != truth) & (truth != IGNORE)).sum().item() for n, z in answers.items()}
print("wrong pixels by step:", wrong)
check_at_most("wrong pixels after 10 steps, share of those before", wrong[10] / wrong[0], 0.95)
changed = (answers[5].argmax(0) != answers[10].argmax(0)).double().mean()
check_at_most("share of pixels that change after step 5", changed, 0.02)

# %% [markdown]
# The interior was right before, and stays. The outline moves to where the colour changes, since there the messages of the two sides differ. The first step goes a part of the way; the next ones go on, because pixels that have changed their minds now speak for the new label.
#
# ## 8. A layer like any other
#
# Five steps are five times: filter, add, softmax. All of it is differentiable, so a gradient can go through the steps, to the weights $w_1$ and $w_2$ and to the network below. Zheng et al. (2015) saw the steps as a recurrent network and trained both together: "CRF as RNN".
#
# One thing makes the backward pass cheap. The filter is linear in $q$, and $k$ is symmetric. So its transpose is the filter itself: **the gradient passes back through the same filter.** In `segedu.models.crf` that is four lines. `gradcheck` looks at it in float64, through three steps:

# %%
net = DenseCRF(Kernels(place_width=2), steps=3).double()
names = [name for name, _ in net.named_parameters()]
tiny = torch.rand(1, 3, 3, 4, generator=generator, dtype=torch.float64)


def refined(z, *weights):
    """The logits after three steps, as a function of logits and both weights."""
    return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (z, tiny))


z = torch.randn(1, 3, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
values = [value.detach().clone().requires_grad_() for value in net.parameters()]
check("what is learned", " and ".join(names), "smooth_weight and appearance_weight")
check("gradcheck through three steps", torch.autograd.gradcheck(refined, (z, *values)), want=True)

# %% [markdown]
# ## 9. The experiment: a coarse answer and a sharp one
#
# Now with a network, on pictures it has not seen, with three seeds. One trunk, chapter 09's with four blocks, with **two readers**, trained together as in chapter 09: a *coarse* one that scores features of stride 16 and enlarges them, and a *sharp* one that adds scores of the finer strides down to 2. Each is tried alone and with the CRF.
#
# And two kinds of pictures. In *clear* scenes every surface has its own few colours and there is little noise: just what the appearance kernel assumes. In *noisy* ones a random number of standard deviation 0.25 is added to every channel of every pixel: a colour is then a poor witness, and only an average over many pixels tells. The network learns from half and half.
#
# **Predict**, for boundary F1 (a tolerance of 1.5 pixels): which is better on clear scenes, coarse with CRF or sharp without? And does the CRF add to the sharp one?


# %%
def drawn(scenes, spread):
    """Images and masks (0 ground, 1 object, or void) of all scenes, with noise of `spread`."""
    samples = [scenes[i] for i in range(len(scenes))]
    images, masks = (
        torch.stack([sample[key].as_subclass(torch.Tensor) for sample in samples])
        for key in ("image", "mask")
    )
    generator = torch.Generator().manual_seed(scenes.seed)
    added = spread * torch.randn(images.shape, generator=generator)
    return (images + added).clamp(0, 1), torch.where(masks == IGNORE, IGNORE, masks.clamp(max=1))


# %%
def trained(images, masks, run):
    """Two readers on one trunk, trained by the sum of their losses: [coarse, sharp]."""
    torch.manual_seed(run)
    trunk = Trunk((10, 20, 28, 40))
    readers = nn.ModuleList(FCN(2, trunk, finest=finest) for finest in (16, 2)).to(images.device)
    optimizer = torch.optim.AdamW(readers.parameters(), lr=8e-3)
    steps = epochs * (len(images) // 8)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).view(-1, 8):
            loss = sum(
                cross_entropy_loss(reader(images[batch]), masks[batch]) for reader in readers
            )
            optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    return readers.eval()


# %% [markdown]
# The CRF has settings, and settings are tuned. **Not on the pictures that are reported.** For each reader and kind of picture, the best of five (no CRF at all, and two colour widths with two weights) is chosen by mean IoU on eight validation scenes; then the test scenes are looked at, once.


# %%
def scores(logits, masks):
    """Boundary F1 of the objects, and mean IoU."""
    counts = ConfusionMatrix(2)
    counts.update(logits.argmax(1), masks)
    return boundary_f1(logits.argmax(1), masks, 1.5, num_classes=2)[1].item(), counts.mean_iou()


# %%
CHOICES = [Kernels(appearance_weight=0, smooth_weight=0)] + [
    Kernels(colour_width=width, appearance_weight=weight, reach=2.0)
    for width in (0.1, 0.2)
    for weight in (2, 8)
]


def tuned(logits, images, masks):
    """Of `CHOICES`, the kernels with the best mean IoU on these pictures."""
    return max(CHOICES, key=lambda one: scores(DenseCRF(one)(logits, images), masks)[1])


# %%
place = pick_device(device)
results, kept = [], {}
with_noise = {"clear": 0.0, "noisy": noise}


def tried(reader, val, test):
    """Kernels chosen on `val`, and a reader's logits for `test`, alone and with the CRF."""
    with torch.inference_mode():
        chosen = tuned(reader(val[0]), *val)
        alone = reader(test[0])
        return chosen, test, alone, DenseCRF(chosen)(alone, test[0])


# %% tags=["nbval-ignore-output"]
for run in range(seed, seed + runs):
    splits = [Scenes(n, size=image_size, seed=3 * run + s, difficulty=difficulty)
              for s, n in enumerate((train_scenes // 2, val_scenes, test_scenes))]  # fmt: skip
    halves = [drawn(splits[0], spread) for spread in with_noise.values()]
    readers = trained(*(torch.cat(both).to(place) for both in zip(*halves, strict=True)), run)
    for kind, spread in with_noise.items():
        val, test = ([x.to(place) for x in drawn(split, spread)] for split in splits[1:])
        for name, reader in zip(("coarse", "sharp"), readers, strict=True):
            kept[kind, name] = tried(reader, val, test)
            results.append([scores(z, test[1]) for z in kept[kind, name][2:]])
f1, miou = torch.tensor(results, dtype=torch.float64).view(runs, 2, 2, 2, 2).unbind(-1)

# %% tags=["nbval-ignore-output"]
print("mean (least to most) over", runs, "seeds")
for a, kind in enumerate(("clear", "noisy")):
    for b, name in enumerate(("coarse", "sharp")):
        for c, how in enumerate(("alone", "with CRF")):
            texts = [f"{what} {x[:, a, b, c].mean():.3f} ({x[:, a, b, c].min():.3f} to {x[:, a, b, c].max():.3f})"
                     for what, x in (("boundary F1", f1), ("mean IoU", miou))]  # fmt: skip
            print(f"{kind} {name:6} {how:8}", *texts, sep="   ")

# %% tags=["nbval-ignore-output"] alt="Boundary F1 on clear and on noisy test scenes, a line from alone to with CRF for each seed and reader. On clear scenes every line rises, and the coarse ones end about where the sharp ones begin. On noisy scenes the lines rise less, and one falls."
fig, axes = show.grid(1, 2, "What the CRF adds, one line a seed", width=3.6, height=3)
for a, (ax, kind) in enumerate(zip(axes, ("clear", "noisy"), strict=True)):
    for b, (name, colour) in enumerate((("coarse", colours[1]), ("sharp", colours[6]))):
        for run in range(runs):
            ax.plot(f1[run, a, b], "o-", color=colour, label=name if run == 0 else None)
    ax.set(title=f"{kind} scenes", ylabel="boundary F1", xlim=(-0.3, 1.3))
    ax.set(
        xticks=[0, 1],
        xticklabels=["alone", "with CRF"],
        ylim=(f1.min().item() - 0.03, f1.max().item() + 0.03),
    )
axes[0].legend()
gain = f1[..., 1] - f1[..., 0]  # (runs, kind, reader)
check_at_least("clear, coarse: gain of boundary F1", gain[:, 0, 0].mean(), least_gain)

# %% [markdown]
# On **clear** scenes the CRF helps the coarse reader at every seed: it pulls the blob to the edges of colour. But on average the sharp reader *without* CRF is better than the coarse one *with* it, in boundary F1 and more so in mean IoU: the detail that finer features bring is worth more than what colours alone can tell. Both at once is best. So on these pictures our decoder has not made the CRF needless; what the CRF adds to it is about as
# much as, or a little less than, what it adds to the coarse one.
#
# On **noisy** scenes the CRF adds much less. A network has learned to average texture and noise; the CRF only knows how to compare the colours of two pixels. What decides is whether *colour tells labels apart*, pixel by pixel.

# %% tags=["nbval-ignore-output"]
on_clear, on_noisy = gain[:, 0].mean(), gain[:, 1].mean()
every_seed = gain[:, 0, 0].min()
check_at_least("clear, coarse: gain at every seed", every_seed, least_gain / 4)
decoder_over_crf = (f1[:, 0, 1, 0] - f1[:, 0, 0, 1]).mean()
check_at_least("clear: sharp alone, above coarse with CRF", decoder_over_crf, least_gap)
in_iou = (miou[:, 0, 1, 0] - miou[:, 0, 0, 1]).mean()
check_at_least("the same in mean IoU", in_iou, least_gap)
more_to_coarse = (gain[:, 0, 0] - gain[:, 0, 1]).mean()
check_at_least("clear: added to coarse less added to sharp", more_to_coarse, least_gap - 0.05)
check_at_least("added on clear, above added on noisy scenes", on_clear - on_noisy, least_gap)
print(f"boundary F1 added on clear scenes {on_clear:.3f}, on noisy ones {on_noisy:.3f}")

# %% tags=["nbval-ignore-output"] alt="One clear and one noisy test scene in rows; columns are the scene, the truth, and the coarse and the sharp answers, alone and with the CRF. On the clear scene the CRF gives the coarse blob some corners of the star; on the noisy one it frays the coarse outline and hardly changes the sharp one."
fig, axes = show.grid(2, 6, "Alone and with the CRF", width=1.8)
for row, kind in zip(axes, ("clear", "noisy"), strict=True):
    _, (images, masks), _, _ = kept[kind, "coarse"]
    shown = masks.eq(1).flatten(1).float().mean(1).sub(0.35).abs().argmin()
    show.image(row[0], images[shown], f"{kind} scene")
    show.mask(row[1], masks[shown], "truth", num_classes=2)
    for b, name in enumerate(("coarse", "sharp")):
        for c, how in ((2, "alone"), (3, "with CRF")):
            answer = kept[kind, name][c][shown].argmax(0)
            show.mask(row[2 * b + c], answer, f"{name}, {how}", num_classes=2)

# %% [markdown]
# Two things limit what this says. The scenes have flat colours by construction, as no street has; and our networks are small and trained for seconds, so the sharp one still makes mistakes that colours could mend. What the field found on photographs went further: with better decoders and features that see more, the gain became too small for the price. DeepLab v3's abstract
# says that it improves over the earlier DeepLabs "without DenseCRF post-processing" (Chen et al. 2017).
#
# ### The weights, learned
#
# Instead of a table of choices, let the loss choose. Twenty steps of descent on the two weights, through the CRF's steps, with the coarse logits of the last run held fixed. On the eight *validation* scenes; the test loss is only looked at.

# %% tags=["nbval-ignore-output"]
val_images, val_masks = (x.to(place) for x in drawn(splits[1], 0.0))
with torch.no_grad():
    val_logits = readers[0](val_images)
crf = DenseCRF(Kernels(appearance_weight=0.5, smooth_weight=0.5, reach=1.5), steps=3).to(place)
optimizer = torch.optim.Adam(crf.parameters(), lr=0.2)
losses = []
for _ in range(learn_steps):
    loss = cross_entropy_loss(crf(val_logits, val_images), val_masks)
    optimizer.zero_grad(), loss.backward(), optimizer.step()
    losses.append(loss.item())

# %% tags=["nbval-ignore-output"]
_, (images, masks), alone, _ = kept["clear", "coarse"]
with torch.no_grad():
    before_after = [cross_entropy_loss(z, masks).item() for z in (alone, crf(alone, images))]
print(
    f"weights: smoothness {crf.smooth_weight.item():.2f}, appearance {crf.appearance_weight.item():.2f}"
)
print(
    f"validation loss {losses[0]:.3f} to {losses[-1]:.3f}; test loss alone {before_after[0]:.3f}, with CRF {before_after[1]:.3f}"
)
check_at_most("validation loss, last over first", losses[-1] / losses[0], 0.999)
check_at_most("learned weight of appearance", crf.appearance_weight, 2.0)

# %% [markdown]
# The loss chooses a weaker CRF than the score of labels does, which had 2 and 8 to choose from: it also asks for honest probabilities, and section 5 showed what a strong CRF does to those. Should the smoothness weight come out *below* 0, do not be surprised. Pairs then pay for agreeing, and the filter works like an unsharp mask: it undoes some of the blur of the enlargement.
#
# ## 10. Pets
#
# A photograph has shadows, fur and a background of many colours. Here are a few pets, at a quarter of their size. There is no network here: the logits are the *truth in blocks of 16 pixels*, enlarged, as in section 7. That is the answer of an ideal coarse network. So this shows what colours of a photograph can give to a coarse outline, not what a CRF gives to your network. The settings are fixed beforehand, in the spirit of DeepLab's: a place width of a tenth of the picture, a narrow colour width.
#
# Without the set these cells only say how to get it.

# %% tags=["nbval-ignore-output"]
photographs = []
if catalog.available("pets"):
    pets = catalog.load("pets", split="val")
    for n in range(pets_count):
        image, mask = (pets[n][key].as_subclass(torch.Tensor) for key in ("image", "mask"))
        height, width = (length // 64 * 64 for length in mask.shape)
        image = F.avg_pool2d(image[:, :height, :width], 4)
        mask = mask[2:height:4, 2:width:4]
        photographs.append((image, mask, coarse_logits(mask, 16)))
else:
    print("The pets are not here; `segedu data get pets` downloads them.")

# %% tags=["nbval-ignore-output"]
animal_crf = DenseCRF(Kernels(appearance_weight=6, place_width=8, colour_width=0.07, reach=2.0))
outcome = []
for image, mask, z in photographs:
    with torch.no_grad():
        outcome.append(animal_crf(z[None], image[None]))
    before, after = (scores(logits, mask[None])[1] for logits in (z[None], outcome[-1]))
    print(f"mean IoU {before:.3f} to {after:.3f}")

# %% tags=["nbval-ignore-output"] alt="Pets in rows: the photograph, the animal's true outline with a white border of no label, the coarse answer, a blob of the animal's rough form, and the same after the CRF."
if photographs:
    fig, axes = show.grid(3, 4, "Pets: a coarse outline and the colours", width=2)
    for row, (image, mask, z), refined_z in zip(axes, photographs, outcome, strict=False):
        show.image(row[0], image, "photograph")
        for ax, answer, title in (
            (row[1], mask, "truth"),
            (row[2], z.argmax(0), "coarse"),
            (row[3], refined_z[0].argmax(0), "with CRF"),
        ):
            show.mask(ax, answer, title, num_classes=2)

# %% [markdown]
# Read the numbers before you look at the pictures. With settings that nobody tuned for them, some animals gain, and most of those that we looked at lost a little: the coarse truth was better than the edges of colour around it. Look for an animal that has the colour of its carpet, or two colours of its own. There the CRF is led astray: it moves the outline to the strongest edge of colour, which may be the collar.
#
# ## 11. What goes wrong
#
# ### Widths for 0 to 255
#
# Settings in papers and programs are for colours of 0 to 255: a $\theta_\beta$ of 13 is pydensecrf's example. Our images are in $[0, 1]$. **Predict:** what does the appearance kernel become with $\theta_\beta = 13$ there? Two colours can be no farther apart than black and white.

# %%
farthest = math.sqrt(3)  # black to white
check("black and white, width 13", math.exp(-(farthest**2) / (2 * 13**2)), 0.991, tol=5e-4)
check("and with the width meant", math.exp(-(farthest**2) / (2 * (13 / 255) ** 2)), 0.0, tol=1e-99)
try:
    Kernels(colour_width=13)
except ValueError as error:
    print(error)

# %% [markdown]
# Black and white count as the same colour: what is left is a wide blur, and small objects drown in the ground around them. Nothing fails, so the package refuses such a width. The other way round, an image of 0 to 255 with a width for $[0, 1]$, nobody has a neighbour of his own colour, and the CRF does next to nothing. Images outside $[0, 1]$ are refused as well.

# %% tags=["nbval-ignore-output"] alt="A scene's coarse answer, the answer of a CRF with a fitting colour width, whose outlines follow the scene, and that of one with a width of 1, from which the smaller objects are gone."
fig, axes = show.grid(1, 3, "A colour width that sees no colours", width=2.4)
show.mask(axes[0], coarse[0].argmax(0), "coarse", num_classes=2)
mistakes = []
for ax, width in zip(axes[1:], (0.1, 1.0), strict=True):
    with torch.no_grad():
        z = DenseCRF(Kernels(appearance_weight=6, colour_width=width))(coarse, picture[None])[0]
    show.mask(ax, z.argmax(0), f"colour width {width:g}", num_classes=2)
    mistakes.append(((z.argmax(0) != truth) & (truth != IGNORE)).sum().item())
check_at_least("wrong pixels, width 1 over width 0.1", mistakes[1] / max(mistakes[0], 1), 1.5)

# %% [markdown]
# ### Probabilities for logits
#
# The energy wants logits, or $\ln p$, which differ by a constant for each pixel. Programs ask for the energy $-\ln p$. Hand in $p$ itself, and nothing fails. **Predict:** a pixel is 99 % sure. How sure does the CRF think it is?

# %%
sure = torch.tensor([0.01, 0.99], dtype=torch.float64)
check("from ln p", sure.log().softmax(0)[1], 0.99, tol=1e-12)
check("from p", sure.softmax(0)[1], 0.727, tol=5e-4)

# %% [markdown]
# No pixel can be surer than $e/(1 + e) = 0.731$. The neighbours win everywhere, and what is thin is gone first. It is the softmax too many of [chapter 06](06_cross_entropy.ipynb), at the other end of the network.
#
# ### Counting one's own voice
#
# The sum for $m_i$ runs over $j \ne i$. A filter gives the sum over all $j$, and one's own share has to be taken off. **Predict:** what does the update do to a pixel that has *no* neighbour of its colour, if nobody takes it off? The pixel is for the object with $p = 0.6$, the weight is 6.

# %%
alone = torch.tensor([0.4, 0.6], dtype=torch.float64).log()
q = alone.softmax(0)
for _ in range(10):
    q = (alone + 6 * q).softmax(0)
check("an echo: sure of what nobody confirmed", q[1], 0.998, tol=5e-4)
check(
    "as it should be: no neighbour, no change",
    mean_field(alone[None], torch.zeros(1, 1).double(), 10)[0, 1],
    0.6,
    tol=1e-12,
)

# %% [markdown]
# The more a pixel stands alone, the larger its own share of the normalised kernel, and the louder the echo. The labels suffer little, since an echo repeats what was there; the probabilities do, and noise resists smoothing. It is a common slip: the filter in pydensecrf (`pairwise.cpp`) does not take it off either, though the paper's sum leaves $i$ out. Compare programs with that in mind.
#
# ### What is thin is outvoted
#
# **Predict:** a line one pixel wide, of a colour of its own, for which the network is right with a logit of 2. Which kernel wipes it out?

# %%
line = torch.zeros(1, 3, 24, 24)
line[..., 12] = 0.9
found = torch.zeros(1, 2, 24, 24)
found[:, 1] = -2
found[:, 1, :, 12] = 2
left = {}
for name, kernels in (("appearance", Kernels(appearance_weight=6, smooth_weight=0)),
                      ("smoothness", Kernels(appearance_weight=0, smooth_weight=6, smooth_width=3))):  # fmt: skip
    with torch.no_grad():
        left[name] = DenseCRF(kernels)(found, line).argmax(1)[0, :, 12].double().mean()
check("of the line left, appearance kernel", left["appearance"], 1.0)
check("of the line left, wide smoothness kernel", left["smoothness"], 0.0)

# %% [markdown]
# The smoothness kernel sees no colour, and the line is a minority wherever one looks. The appearance kernel keeps it, *as long as its colour is its own*. Poles, wires, spokes: keep $\theta_\gamma$ at one or two pixels, and its weight low.
#
# ## 12. In the article
#
# > **In the article, 7.3: DeepLab**, with atrous convolution and a fully connected CRF "for segmentation of high accuracy". Three things are missing. The date and the place: L.-C. Chen et al., first at ICLR 2015 (v1) and then in *IEEE Transactions on Pattern Analysis and Machine Intelligence* 40(4), 2018 (v2). That the CRF there is **not part of the network**: it is applied to finished
# > answers and not trained with it. And that the authors themselves dropped it in v3 and v3+.
#
# That the CRF is an afterthought can be tested: a network's weights get no gradient from it when it is applied afterwards. With the steps as a layer, they do.

# %% tags=["nbval-ignore-output"]
layer = nn.Conv2d(3, 2, 1)
scene_in, target = picture[None, :, :16, :16], truth[None, :16, :16]
logits = layer(scene_in)  # of a network that is being trained: they carry a gradient
with torch.no_grad():
    afterwards = DenseCRF()(logits, scene_in)  # what a tool for finished answers does
check("the network's own logits: a gradient", logits.requires_grad, want=True)
check("afterwards: a gradient reaches the network", afterwards.requires_grad, want=False)
cross_entropy_loss(DenseCRF()(logits, scene_in), target).backward()
check_at_least("as a layer: largest slope of its weights", layer.weight.grad.abs().max(), 1e-6)

# %% [markdown]
# ## 13. Three quick questions
#
# **1.** You add 3 to both logits of every pixel. What becomes of the energy of each labelling, and of its probability?
#
# <details><summary>Answer</summary>
#
# Every labelling's energy falls by $3N$, so $Z$ grows by the factor $e^{3N}$, and every probability stays.
#
# </details>
#
# **2.** A CRF with $\theta_\alpha = 80$ pixels was tuned for photographs of 500 pixels. You have 125. What do you change?
#
# <details><summary>Answer</summary>
#
# Widths of place go with the picture: 20 pixels. The colour width stays. With normalised kernels the weights stay, too.
#
# </details>
#
# **3.** Your network has a probability of 0.999 at a wrong outline. What weight does the CRF need to move it?
#
# <details><summary>Answer</summary>
#
# Its lead in logits is $\ln 999 = 6.9$; the messages of all neighbours together must bring more than that, so a weight of 7 at the least, even if they agree. An overconfident network is hard to mend. Divide its logits by a temperature first ([chapter 08](08_metrics.ipynb)).
#
# </details>

# %%
moved_energy = energy(three, z4[:3] + 3, k4[:3, :3]) - energy(three, z4[:3], k4[:3, :3])
check("1: the energy moves by", moved_energy, -9.0, tol=1e-12)
check("2: the place width", 80 * 125 / 500, 20)
check("3: the lead in logits", math.log(0.999 / 0.001), 6.9, tol=0.01)

# %% [markdown]
# ## 14. Exercises
#
# ### Exercise 1: the price of one labelling
#
# Write the energy of a single labelling. Each pair counts once.


# %% tags=["exercise"]
def price(x, z, k):
    """Energy of the labels `x` (N,), for logits `z` (N, C) and ties `k` (N, N), symmetric."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def ties(n, seed):
    """Symmetric ties of n pixels, 0 on the diagonal."""
    k = torch.rand(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (k + k.T).fill_diagonal_(0)


some = torch.Generator().manual_seed(2)
exercise = Exercise(
    solution=lambda x, z, k: energy(x[None], z, k)[0],
    inputs=[
        (torch.tensor([1, 0]), z2, k2),
        (torch.tensor([1, 1, 0, 1]), z4, ties(4, 0)),
        (torch.tensor([2, 0, 1, 2, 2]), torch.randn(5, 3, generator=some).double(), ties(5, 1)),
    ],
    misconceptions={
        "each pair was counted twice": lambda x, z, k: (
            -z[range(len(x)), x].sum() + (k * (x[:, None] != x)).sum()
        ),
        "pairs that agree paid; with Potts those that disagree do": lambda x, z, k: (
            -z[range(len(x)), x].sum() + (k.triu(1) * (x[:, None] == x)).sum()
        ),
        "the sign of the logits: a label that the network likes is cheap": lambda x, z, k: (
            z[range(len(x)), x].sum() + (k.triu(1) * (x[:, None] != x)).sum()
        ),
    },
)
exercise.check(price)


# %% tags=["solution"]
def price(x, z, k):
    """The unary part, and the ties of the pairs i < j that disagree."""
    unary = -z[torch.arange(len(x)), x].sum()
    disagree = x[:, None] != x[None, :]
    return unary + (k * disagree).sum() / 2


exercise.check(price)

# %% [markdown]
# ### Exercise 2: one step, with any compatibility
#
# Potts treats all pairs of classes alike. In general $\mu_{c,d}$ is what class $c$ pays when a neighbour has class $d$: a bird in the sky may be cheap, a bird in the sea dear. Write one step of mean field in which all pixels move at once.


# %% tags=["exercise"]
def one_step(q, z, k, mu):
    """The next q (N, C): logits `z` (N, C), ties `k` (N, N), compatibility `mu` (C, C)."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def a_step(n, classes, seed):
    """Arguments for a step, with a compatibility that is not symmetric."""
    g = torch.Generator().manual_seed(seed)
    q, z = (torch.randn(n, classes, generator=g, dtype=torch.float64) for _ in range(2))
    return q.softmax(1), z, ties(n, seed), torch.rand(classes, classes, generator=g).double()


exercise = Exercise(
    solution=lambda q, z, k, mu: (z - (k @ q) @ mu.T).softmax(1),
    inputs=[
        (z2.softmax(1), z2, k2, 1 - torch.eye(2, dtype=torch.float64)),
        a_step(4, 3, 0),
        a_step(6, 2, 1),
    ],
    misconceptions={
        "added; a compatibility is a cost": lambda q, z, k, mu: (z + (k @ q) @ mu.T).softmax(1),
        "the sum is over the neighbour's class d, the second index of mu": lambda q, z, k, mu: (
            z - (k @ q) @ mu
        ).softmax(1),
        "the network's logits come in at every step, in place of the last step's": lambda q, _, k, mu: (
            (q.log() - (k @ q) @ mu.T).softmax(1)
        ),
        "the network was forgotten": lambda q, _, k, mu: (-(k @ q) @ mu.T).softmax(1),
    },
)
exercise.check(one_step)


# %% tags=["solution"]
def one_step(q, z, k, mu):
    """Message passing, compatibility, local update, normalise."""
    heard = k @ q  # (N, C)
    cost = torch.einsum("cd,nd->nc", mu, heard)
    return (z - cost).softmax(1)


exercise.check(one_step)

# %% [markdown]
# ### Exercise 3: a blur along rows and columns
#
# Filter a map with a Gaussian of places, without the matrix of all pairs and without normalising: for each pixel, the sum over *all other* pixels of $e^{-|r_i - r_j|^2 / 2\theta^2}$ times their value. Two small matrices are enough.


# %% tags=["exercise"]
def heard_from_others(values, width):
    """For each pixel of a map (H, W), the Gaussian sum over all others."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def tie(length, width):
    """Gaussian of the distances in a row of pixels: (length, length)."""
    place = torch.arange(length, dtype=torch.float64)
    return (-((place[:, None] - place) ** 2) / (2 * width**2)).exp()


def by_the_matrix(values, width):
    """All pairs, as the formula says it."""
    rows, columns = values.shape
    k = torch.kron(tie(rows, width), tie(columns, width)).fill_diagonal_(0)
    return (k @ values.flatten()).view(rows, columns)


exercise = Exercise(
    solution=by_the_matrix,
    inputs=[
        (torch.tensor([[1.0, 0.0]], dtype=torch.float64), 1.0),
        (torch.arange(12.0, dtype=torch.float64).view(3, 4), 1.5),
        (torch.rand(5, 4, generator=some, dtype=torch.float64), 2.0),
    ],
    misconceptions={
        "each pixel's own value is in the sum": lambda v, w: (
            tie(v.shape[0], w) @ v @ tie(v.shape[1], w)
        ),
        "that leaves out everybody in the same row or column": lambda v, w: (
            (tie(v.shape[0], w) - torch.eye(v.shape[0])).double()
            @ v
            @ (tie(v.shape[1], w) - torch.eye(v.shape[1])).double()
        ),
        "the sum of a blur along rows and one along columns; it is one after the other": lambda v, w: (
            tie(v.shape[0], w) @ v + v @ tie(v.shape[1], w) - v
        ),
        "theta is squared in the exponent": lambda v, w: by_the_matrix(v, w**0.5),
    },
)
exercise.check(heard_from_others)


# %% tags=["solution"]
def heard_from_others(values, width):
    """Columns, rows, and then each pixel's own share off."""
    rows, columns = (
        torch.exp(-((i[:, None] - i) ** 2) / (2 * width**2))
        for i in (torch.arange(n, dtype=values.dtype) for n in values.shape)
    )
    return rows @ values @ columns - values


exercise.check(heard_from_others)

# %% [markdown]
# ## Summary
#
# Symbols: pixels $i, j$ of $N$, classes $c, d$ of $C$; labelling $x$; logits $z_{i,c}$; ties $k_{ij}$, made of places $r_i$ and colours $I_i$ with widths $\theta_\alpha, \theta_\beta, \theta_\gamma$ and weights $w_1, w_2$, normalised by the sums $s_i$; compatibility $\mu_{c,d}$; Gibbs distribution $P$ with its sum $Z$; independent pixels $q_{i,c}$ with joint distribution $Q$; messages $m_{i,c}$; free energy $F$.
#
# $$
# \begin{aligned}
# E(x) &= -\sum_i z_{i,x_i} + \sum_{i<j} k_{ij}\,[x_i \ne x_j], \qquad P(x) = e^{-E(x)} / Z \\
# k_{ij} &= w_1\, e^{-|r_i - r_j|^2 / 2\theta_\alpha^2 - |I_i - I_j|^2 / 2\theta_\beta^2} + w_2\, e^{-|r_i - r_j|^2 / 2\theta_\gamma^2} \quad \text{(each normalised)} \\
# \operatorname{KL}(Q\|P) &= F(q) + \ln Z, \qquad F(q) = \sum_{i,c} q_{i,c} (\ln q_{i,c} - z_{i,c}) + \sum_{i<j} k_{ij} \big(1 - \textstyle\sum_c q_{i,c}\, q_{j,c}\big) \\
# q_i &\leftarrow \operatorname{softmax}(z_i + m_i), \qquad m_{i,c} = \sum_{j \ne i} k_{ij}\, q_{j,c}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Mean field is "the network's logits plus what the others say", again and again. One pixel at a time it always settles; all at once it usually does. What it settles on is too sure.
# 2. It finds good labels and bad probabilities: it was surer than the truth in all our examples.
# 3. A CRF moves outlines to edges of colour. That mends a coarse answer where colours tell, and does little where they do not; the detail that a decoder brings is worth more.
#
# **To read**
#
# - P. Krähenbühl, V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011: the model, its kernels and its mean field.
# - P. Krähenbühl, V. Koltun, "Parameter Learning and Convergent Inference for Dense Random Fields", ICML 2013: updates that converge; kernels that are normalised.
# - A. Adams, J. Baek, M. A. Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010: the lattice.
# - L.-C. Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs", ICLR 2015; "DeepLab", *IEEE Transactions on Pattern Analysis and Machine Intelligence* 40(4), 2018; "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017: with it, with it, and without.
# - S. Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015: the steps as a layer.
# - M. Teichmann, R. Cipolla, "Convolutional CRFs for Semantic Segmentation", 2018: the window.
#
# **Next.** So far every network began with random weights. [Chapter 14](14_transfer.ipynb) lets them begin with what others have learned.

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # What could be done before learning? Thresholds and edges
#
# Nothing in this chapter is trained. A threshold parts a picture with one number; an edge detector marks where it changes. Both fit on a page, both still run in factories and laboratories, and both show what a network must do better.
# The threshold fails when the light is uneven or the object is rare, and you will be able to say beforehand *how* rare. Edges fail for a deeper reason: a change of brightness is not yet the boundary of a thing. To see that in numbers we need a score for boundaries, and people to compare with, who do not agree either.
#
# **You will be able to**
#
# - derive Otsu's threshold twice, from variances and from a likelihood, and predict when it breaks;
# - compute slopes by convolution, and choose the width of the blur from the noise;
# - build Canny's detector in four steps, equal to scikit-image's pixel by pixel;
# - sharpen a picture, and say why that finds nothing;
# - score boundaries with a tolerance and a one-to-one matching, against one truth and against several people.
#
# *45 minutes. Before: [masks](02_masks_and_data.ipynb). On paper: mean, variance, the derivative of a Gaussian.*

# %% tags=["parameters"]
seed = 0
scenes_count = 12  # scenes on which edge detectors are scored; at least 3
least_gain = 0.03  # F by which two scales must beat each of them alone
photos = 4  # of BSDS, where it is there

# %%
import inspect
import math
from itertools import pairwise

import numpy as np
import skimage
import torch
import torch.nn.functional as F
from scipy import ndimage

# %%
from segedu import show, widgets
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog
from segedu.data.scenes import Scenes
from segedu.exercises import Exercise
from segedu.metrics import boundary
from segedu.metrics.boundary import BoundaryCounts, count_matched, count_near
from segedu.palette import class_colours

colours = class_colours(8) / 255


def plain(tensor):
    """A tensor that has forgotten that it is an image or a mask."""
    return tensor.as_subclass(torch.Tensor)


# %% [markdown]
# ## 1. One number for a picture
#
# Coins on a dark cloth are brighter than the cloth. So choose a grey value $t$ (a **threshold**, 阈值), and call every pixel above it coin. Which $t$?
#
# Begin with four pixels, of the grey values 1, 2, 6 and 7. Anybody would cut between 2 and 6. What do we see that a computer could compute? The two groups are *tight*, and they are *far apart*. Both are variances.
#
# By hand. The mean of all four is $\mu = 4$, their variance $\sigma^2 = (9 + 4 + 4 + 9)/4 = 6.5$. For each cut, $\omega_0$ and $\omega_1$ are the shares of the pixels on its two sides, $\mu_0$ and $\mu_1$ their means:
#
# | cut | $\omega_0, \omega_1$ | $\mu_0, \mu_1$ | variance within | between: $\omega_0 \omega_1 (\mu_1 - \mu_0)^2$ |
# |---|---|---|---|---|
# | 1 \| 2 6 7 | 1/4, 3/4 | 1, 5 | 3.5 | 3 |
# | 1 2 \| 6 7 | 1/2, 1/2 | 1.5, 6.5 | 0.25 | 6.25 |
# | 1 2 6 \| 7 | 3/4, 1/4 | 3, 7 | 3.5 | 3 |
#
# **Look at the last two columns before you read on.** What is their sum, in each row?

# %%
four = torch.tensor([1.0, 2.0, 6.0, 7.0], dtype=torch.float64)


def parts(values, t):
    """Variance within the two groups that a cut after grey value `t` makes, and between them."""
    dark, bright = values[values <= t], values[values > t]
    w0, w1 = len(dark) / len(values), len(bright) / len(values)
    within = w0 * dark.var(correction=0) + w1 * bright.var(correction=0)
    return within.item(), (w0 * w1 * (bright.mean() - dark.mean()) ** 2).item()


check("cut after 1: within, between", parts(four, 1), [3.5, 3], tol=1e-12)
check("cut after 2", parts(four, 2), [0.25, 6.25], tol=1e-12)
check("cut after 6", parts(four, 6), [3.5, 3], tol=1e-12)
check("their sum, always", [sum(parts(four, t)) for t in (1, 2, 6)], 6.5, tol=1e-12)

# %% [markdown]
# The sum is the variance of all pixels, which no cut can change. So *tight* and *far apart* are the same wish. Why the sum is constant: take the pixels $n$ of one group $k$, $N_k$ of them, with grey values $g_n$.
#
# $$
# \begin{aligned}
# \sum_{n \in k} (g_n - \mu)^2 &= \sum_{n \in k} \big( (g_n - \mu_k) + (\mu_k - \mu) \big)^2 && \text{(insert } \mu_k \text{)} \\
# &= \sum_{n \in k} (g_n - \mu_k)^2 + N_k (\mu_k - \mu)^2 && \text{(the mixed term has } \textstyle\sum_{n \in k} (g_n - \mu_k) = 0 \text{).}
# \end{aligned}
# $$
#
# Add both groups and divide by the number of pixels $N$; $\sigma_k^2$ is the variance inside group $k$:
#
# $$\sigma^2 = \underbrace{\omega_0 \sigma_0^2 + \omega_1 \sigma_1^2}_{\text{within, } \sigma_W^2} + \underbrace{\omega_0 (\mu_0 - \mu)^2 + \omega_1 (\mu_1 - \mu)^2}_{\text{between, } \sigma_B^2}.$$
#
# With $\mu = \omega_0 \mu_0 + \omega_1 \mu_1$ we get $\mu_0 - \mu = \omega_1 (\mu_0 - \mu_1)$ and $\mu_1 - \mu = \omega_0 (\mu_1 - \mu_0)$, and so
#
# $$\sigma_B^2 = \omega_0\, \omega_1^2\, (\mu_1 - \mu_0)^2 + \omega_1\, \omega_0^2\, (\mu_1 - \mu_0)^2 = \omega_0\, \omega_1\, (\mu_1 - \mu_0)^2.$$
#
# **Otsu's threshold** (大津法) is the $t$ with the largest $\sigma_B^2$ (Otsu, 1979). It needs nothing but the histogram (直方图): how many pixels have each grey value. Running sums give $\omega_0$ and $\mu_0$ of all 256 cuts at once.


# %%
def between_variance(counts):
    """Variance between the groups of the cut after each grey value, given how many pixels have it."""
    share = counts.double() / counts.sum()
    w0 = share.cumsum(0)
    sum0 = (share * torch.arange(len(counts))).cumsum(0)  # w0 times the mean of the dark group
    w1, sum1 = 1 - w0, sum0[-1] - sum0
    gap = sum1 / w1 - sum0 / w0
    return torch.where((w0 > 0) & (w1 > 1e-12), w0 * w1 * gap**2, 0)


def otsu(counts):
    """The last grey value of the dark group, for the cut of the largest variance between."""
    return int(between_variance(counts).argmax())


# %%
check("four pixels", otsu(torch.tensor([0, 1, 1, 0, 0, 0, 1, 1])), 2)

# %% [markdown]
# Any cut from 2 to 5 parts the four pixels alike; the first is taken. Now photographs. scikit-image has Otsu's method, too.

# %%
photographs = {name: getattr(skimage.data, name)() for name in ("coins", "camera", "page", "moon")}
for name, photograph in photographs.items():
    counts = torch.bincount(torch.tensor(photograph).flatten(), minlength=256)
    check(f"{name}: as in scikit-image", otsu(counts), skimage.filters.threshold_otsu(photograph))
coins = torch.tensor(photographs["coins"])  # (303, 384), 0..255
coin_counts = torch.bincount(coins.flatten(), minlength=256)
check("the threshold of the coins", otsu(coin_counts), 107)

# %% alt="Left, the photograph of coins on a dark cloth, lighter at the upper left. Middle, its histogram with a broad dark hill and a flat bright one, a curve of the variance between the groups over it with its top at 107. Right, the mask: most coins are whole, a strip of cloth along the upper edge is taken for coin."
fig = widgets.plot_threshold(coins / 255, 107 / 255)

# %% tags=["nbval-ignore-output"]
widgets.explore_threshold()

# %% [markdown]
# The threshold is near the best that one number can do. Look at the upper left, though: there the *cloth* is as bright as a coin elsewhere. No single number can mend that. Section 2 returns to it.
#
# ## 2. The same number, from a likelihood
#
# Variances seemed a reasonable wish. Here is a second way to the same number, and this one tells what we have assumed on the way.
#
# Suppose that the pixels of group $k$ are drawn from a normal distribution with mean $\mu_k$, and that both groups have the *same* spread $s$. The threshold says which pixel belongs to which group. How probable are the grey values that we have? The logarithm of that **likelihood** (似然) is
#
# $$\ln L = \sum_{k} \sum_{n \in k} \ln \frac{1}{\sqrt{2 \pi}\, s}\, e^{-(g_n - \mu_k)^2 / 2 s^2} = -\frac N2 \ln (2 \pi s^2) - \frac{1}{2 s^2} \sum_k \sum_{n \in k} (g_n - \mu_k)^2.$$
#
# Choose the free numbers so that it is as large as possible:
#
# $$
# \begin{aligned}
# \mu_k &= \text{mean of group } k && \text{(the inner sum is least there)} \\
# \ln L &= -\tfrac N2 \ln (2 \pi s^2) - \tfrac{N}{2 s^2}\, \sigma_W^2 && \text{(that sum is } N \sigma_W^2 \text{)} \\
# s^2 &= \sigma_W^2 && \text{(from } \partial \ln L / \partial s^2 = 0 \text{)} \\
# \ln L &= -\tfrac N2 \big( \ln (2 \pi \sigma_W^2) + 1 \big) && \text{(insert it).}
# \end{aligned}
# $$
#
# Only $\sigma_W^2$ is left. **The most likely threshold has the least variance within: it is Otsu's.**
#
# Do not believe the algebra alone. Here is the likelihood, computed pixel by pixel by torch's normal distribution, for every threshold. (A ninth of the coins' pixels will do.)

# %%
every_level = torch.arange(30, 240)
few_coins = coins[::3, ::3]
few_counts = few_coins.flatten().bincount(minlength=256)
grey_values = few_coins.flatten().double()


def log_likelihood(t):
    """Of all pixels, each under its own group's normal distribution; one spread for both."""
    bright = grey_values > t
    means = torch.stack([grey_values[~bright].mean(), grey_values[bright].mean()])[bright.long()]
    spread = (grey_values - means).square().mean().sqrt()
    return torch.distributions.Normal(means, spread).log_prob(grey_values).sum()


# %%
likelihoods = torch.stack([log_likelihood(t) for t in every_level])
check("the most likely threshold", every_level[likelihoods.argmax()], otsu(few_counts))
within = (few_coins.double().var(correction=0) - between_variance(few_counts))[every_level]
formula = -few_coins.numel() / 2 * ((2 * math.pi * within).log() + 1)
check("all of them, by the formula", formula / likelihoods, 1.0, tol=1e-9)

# %% [markdown]
# The derivation has shown the assumptions: two groups, each normal, of the same spread, and *no opinion on how large each is*. Kittler and Illingworth (1986) give each group its own spread $\sigma_k$ and its share $\omega_k$. By the same steps the best cut then has the least
#
# $$J(t) = \omega_0 \ln \sigma_0^2 + \omega_1 \ln \sigma_1^2 - 2\, \omega_0 \ln \omega_0 - 2\, \omega_1 \ln \omega_1.$$
#
# ### How rare may the object be?
#
# When does it matter? Let the ground be normal with spread $s$, and let an object, a share $\omega$ of the pixels, be brighter by $d$. Otsu has two ways to please itself. It may cut between object and ground: $\sigma_B^2 \approx \omega (1 - \omega)\, d^2$. Or it may forget the object and cut the *ground* in half. Half a normal distribution has its mean
# at $s \sqrt{2/\pi}$ from the middle, so the two halves are $2 s \sqrt{2/\pi}$ apart, and
#
# $$\sigma_B^2 \approx \tfrac12 \cdot \tfrac12 \cdot \big( 2 s \sqrt{2 / \pi} \big)^2 = \frac{2}{\pi}\, s^2.$$
#
# By hand, for $s = 12$ and $d = 90$: the ground's halves have $\frac2\pi \cdot 144 = 91.7$. The object beats that while $8100\, \omega (1 - \omega) > 91.7$, so down to a share of 1.15 %.
#
# **Predict:** an object of 2 % is found. What will the threshold be for 0.5 %: 80, 125 or 170? The ground has its mean at 80, the object at 170.

# %%
levels = torch.arange(256, dtype=torch.float64)
ground, thing = (torch.exp(-((levels - m) ** 2) / (2 * 12**2)) for m in (80, 170))


def histogram_with(share):
    """Exact histogram of a ground with an object that has `share` of the pixels."""
    return (1 - share) * ground / ground.sum() + share * thing / thing.sum()


turning_point = (1 - math.sqrt(1 - 4 * (2 / math.pi * 12**2) / 90**2)) / 2
check("the ground's halves", 2 / math.pi * 12**2, 91.7, tol=0.05)
check("the share at which it should turn, by hand", turning_point, 0.0115, tol=1e-4)
check("2 %: between ground and object", 110 < otsu(histogram_with(0.02)) < 140, want=True)
check("0.5 %: the middle of the ground", otsu(histogram_with(0.005)), 80, tol=3)


# %%
def minimum_error(counts):
    """Kittler and Illingworth's threshold: each group has its own spread and its share."""
    share, grey = counts.double() / counts.sum(), torch.arange(len(counts)).double()
    costs = torch.full((len(counts),), math.inf, dtype=torch.float64)
    for t in range(1, len(counts) - 2):
        groups = (share[: t + 1], grey[: t + 1]), (share[t + 1 :], grey[t + 1 :])
        w = torch.stack([part.sum() for part, _ in groups])
        mean = torch.stack([(part * at).sum() for part, at in groups]) / w
        square = torch.stack([(part * at**2).sum() for part, at in groups]) / w
        variance = square - mean**2
        if (w > 1e-9).all() and (variance > 0.1).all():
            costs[t] = (w * variance.log() - 2 * w * w.log()).sum()
    return int(costs.argmin())


# %%
rare = minimum_error(histogram_with(0.005))
check("0.5 %, own spread and share: found", 105 < rare < 140, want=True)

# %% alt="Threshold over the object's share of the pixels from 0.1 to 50 percent. Otsu's stays near 125 down to about 1 percent and then drops to 80, the middle of the ground. Minimum error stays between ground and object throughout."
shares = torch.logspace(-3, math.log10(0.5), 25, dtype=torch.float64)
fig, [ax] = show.grid(1, 1, width=6.5, height=3)
ax.semilogx(shares, [otsu(histogram_with(s)) for s in shares], color=colours[6], label="Otsu")
found = [minimum_error(histogram_with(s)) for s in shares]
ax.semilogx(shares, found, "--", color=colours[7], label="own spread and share")
ax.axvline(turning_point, color="black", linestyle=":", label="predicted by hand: 1.15 %")
ax.axhspan(56, 104, color=colours[0], alpha=0.15, label="ground, two spreads to each side")
ax.set(title="Below about 1 % Otsu cuts the ground in half", ylim=(50, 180))
ax.set(xlabel="object's share of the pixels", ylabel="threshold")
ax.legend(loc="upper left", ncols=2, fontsize="small")
check_at_least("minimum error, over all shares", found, 105)

# %% [markdown]
# A defect on a tile is 0.3 % of the pixels; [chapter 07](07_overlap_losses.ipynb) meets the same rarity in losses. Otsu does not fail a little there. It jumps.
#
# ### Uneven light
#
# The other failure is the coins' upper left. If the ground's brightness drifts by more than the object differs from it, no threshold exists. But *locally* one does: compare each pixel with the mean $m$ of the pixels around it. Text is darker than the paper next to it:
#
# $$\text{ink}(x) = [\, g(x) < m(x) - c \,].$$
#
# **Predict:** a page lies in the shade at its lower left. What will Otsu make of that corner?

# %%
page = torch.tensor(photographs["page"]).double()  # (191, 384)


def local_mean(picture, size):
    """Mean of the size x size pixels around each pixel; the border pixels are repeated outside."""
    half = size // 2
    padded = F.pad(picture[None], (half, half, half, half), mode="replicate")
    return F.avg_pool2d(padded, size, stride=1)[0]


# %%
ink_otsu = page <= otsu(torch.bincount(page.flatten().long(), minlength=256))
ink_local = page < local_mean(page, 35) - 10
theirs = skimage.filters.threshold_local(page.numpy(), 35, "mean", offset=10, mode="nearest")
check("the local threshold, as in scikit-image", local_mean(page, 35) - 10, theirs, tol=1e-9)
corner = (slice(100, None), slice(0, 100))
check_at_least("Otsu: share of the dark corner called ink", ink_otsu[corner].double().mean(), 0.7)
check_at_most("local: the same", ink_local[corner].double().mean(), 0.2)

# %% alt="A printed page in uneven light; Otsu's mask, in which the lower left is one black area; the local threshold's mask, in which all words can be read."
fig, axes = show.grid(1, 3, "One threshold for all, and one for each place", width=3.2, height=1.8)
for ax, picture, title in zip(
    axes,
    (page / 255, 1 - ink_otsu.double(), 1 - ink_local.double()),
    ("page", "Otsu", "local"),
    strict=True,
):
    show.image(ax, picture.expand(3, -1, -1), title)

# %% [markdown]
# A threshold needs to know where to look. That is an idea to keep: what is close counts more than what is far, and differences count more than values.
#
# ## 3. Slopes
#
# A difference does not care how bright the light is. Where grey values change fast, one thing may end and another begin. Take a row of pixels that goes from dark to bright:
#
# | column | 0 | 1 | 2 | 3 | 4 | 5 | 6 |
# |---|---|---|---|---|---|---|---|
# | $g$ | 0 | 0 | 0 | 4 | 8 | 8 | 8 |
# | $(g_{j+1} - g_{j-1}) / 2$ | 0 | 0 | 2 | 4 | 2 | 0 | 0 |
#
# The slope (斜率) at column $j$ is half the difference of its neighbours, 4 grey values a pixel at the steepest place. The same three numbers $(-\frac12, 0, \frac12)$ are laid over every pixel, multiplied and summed: a **filter** (滤波器), or kernel (卷积核). It is what a convolution layer does, and [chapter 05](05_convolution_arithmetic.ipynb) takes that apart.
# (Strictly it is a correlation; a convolution turns the kernel by 180 degrees first. Networks do not, and neither do we.)


# %%
def correlate(picture, kernel):
    """Sum of the pixels around each pixel, times the kernel's numbers; border pixels are repeated."""
    (rows, columns), (height, width) = kernel.shape, picture.shape
    above, left = rows // 2, columns // 2
    padded = F.pad(picture[None], (left, left, above, above), mode="replicate")[0]
    return sum(
        kernel[i, j] * padded[i : i + height, j : j + width]
        for i in range(rows)
        for j in range(columns)
    )


half_difference = torch.tensor([[-0.5, 0.0, 0.5]], dtype=torch.float64)
row = torch.tensor([[0.0, 0, 0, 4, 8, 8, 8]], dtype=torch.float64)
check("slopes of the row", correlate(row, half_difference)[0, 1:6], [0, 2, 4, 2, 0])

# %% [markdown]
# In two dimensions there are two slopes: down ($g_r$, along the rows' axis) and to the right ($g_c$). Irwin Sobel's kernels take the difference along one axis, and a small weighted mean $(\frac14, \frac12, \frac14)$ along the other, which calms the noise:
#
# $$
# S_c = \begin{pmatrix} \frac14 \\ \frac12 \\ \frac14 \end{pmatrix} \begin{pmatrix} -\frac12 & 0 & \frac12 \end{pmatrix} = \frac18 \begin{pmatrix} -1 & 0 & 1 \\ -2 & 0 & 2 \\ -1 & 0 & 1 \end{pmatrix}, \qquad S_r = S_c^{\mathsf T}.
# $$
#
# Together they are the **gradient** (梯度) $(g_r, g_c)$. Its length $m = \sqrt{g_r^2 + g_c^2}$ says how steep it is, its direction points straight uphill: *across* the edge, not along it.
#
# By hand: a ramp $g = 3 \cdot \text{row} + 4 \cdot \text{column}$ has the gradient $(3, 4)$ and the length 5 everywhere.


# %%
smooth = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
difference = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)
sobel_right, sobel_down = torch.outer(smooth, difference), torch.outer(difference, smooth)


def gradient(picture):
    """Slope down and slope to the right, in grey values a pixel."""
    return correlate(picture, sobel_down), correlate(picture, sobel_right)


# %%
ramp = 3 * torch.arange(6.0).double()[:, None] + 4 * torch.arange(7.0).double()
down, right = gradient(ramp)
check("slope down, inside", down[1:-1, 1:-1], 3.0, tol=1e-12)
check("length", torch.hypot(down, right)[1:-1, 1:-1], 5.0, tol=1e-12)
camera = torch.tensor(photographs["camera"])[50:210, 150:310].double() / 255  # a part of it
down, right = gradient(camera)
inner = (slice(1, -1), slice(1, -1))
theirs = torch.tensor(skimage.filters.sobel_v(camera.numpy())) / 2  # it has 1/4 for our 1/8
check("as in scikit-image", right[inner], theirs[inner], tol=1e-12)

# %% alt="Four maps of a man who looks through a camera: the picture; the slope to the right, purple and orange at the two sides of his head; the slope down; the length of the gradient, bright along outlines."
fig, axes = show.grid(1, 4, "Two slopes, and how steep it is", width=2.3)
show.image(axes[0], camera.expand(3, -1, -1), "picture")
show.heat(axes[1], right, "slope to the right", low=-0.25, high=0.25, colours="PuOr_r")
show.heat(axes[2], down, "slope down", low=-0.25, high=0.25, colours="PuOr_r")
show.heat(axes[3], torch.hypot(down, right), "length", low=0, high=0.3)

# %% [markdown]
# ## 4. Noise, and how wide to look
#
# A difference is small where nothing happens, but noise happens everywhere. Independent noise of spread $s_n$ in each pixel gives $\frac12(n_{j+1} - n_{j-1})$ the spread $s_n / \sqrt 2$. A step of height $h$ has the slope $h/2$ there. If $s_n$ is a quarter of $h$, the edge stands out from the noise by a factor of $2.8$: not enough when there are ten thousand pixels.
#
# So blur first. A **Gaussian** (高斯) of scale $\sigma$ (尺度, in pixels) weighs the pixels around by $e^{-(r^2 + c^2) / 2 \sigma^2}$, and is the product of one factor for rows and one for columns: two narrow kernels instead of a large one.


# %%
def gaussian(picture, scale):
    """Blur with a Gaussian of `scale` pixels, cut off at four scales."""
    reach = int(4 * scale + 0.5)
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    bell = torch.exp(-(at**2) / (2 * scale**2))
    bell = bell / bell.sum()
    return correlate(correlate(picture, bell[:, None]), bell[None])


theirs = skimage.filters.gaussian(camera.numpy(), sigma=2, mode="nearest")
check("as in scikit-image", gaussian(camera, 2), theirs, tol=1e-12)
twice = gaussian(gaussian(camera, 1.5), 2.0)[12:-12, 12:-12]
once = gaussian(camera, 2.5)[12:-12, 12:-12]
check_at_most("1.5, then 2.0, is 2.5 at once", (twice - once).abs(), 2e-3)

# %% [markdown]
# (Scales add like the sides of a right triangle, $1.5^2 + 2^2 = 2.5^2$; the remainder is the cut-off and the pixel grid.)
#
# How much does it help? Blur and slope together are one kernel, the derivative of the Gaussian. Two facts about it, for a step of height $h$ and for noise of spread $s_n$:
#
# $$
# \begin{aligned}
# \text{slope at the step} &= h \cdot \frac{1}{\sqrt{2 \pi}\, \sigma} && \text{(the step's derivative picks the Gaussian's middle)} \\
# \text{spread of the noise} &= s_n \cdot \frac{1}{\sqrt{8 \pi}\, \sigma^2} && \text{(root of the sum of the kernel's squares)} \\
# \text{ratio} &= 2\, \sigma\, \frac{h}{s_n} && \text{(divide).}
# \end{aligned}
# $$
#
# **The edge stands out in proportion to the scale.** The second line comes from $\iint \big( \frac{r}{\sigma^2} G \big)^2 \mathrm d r\, \mathrm d c = \frac{1}{8 \pi \sigma^4}$, with $G$ the Gaussian in two dimensions.
#
# **Predict:** at $s_n = h/4$ and $\sigma = 2$, what is the ratio? Measure it.

# %%
generator = torch.Generator().manual_seed(seed)
noise = 0.25 * torch.randn(256, 256, generator=generator, dtype=torch.float64)
step = torch.zeros(64, 64, dtype=torch.float64)
step[:, 32:] = 1
check("no blur: slope over noise", 0.5 / (0.25 / math.sqrt(2)), 2.8, tol=0.05)
check("the ratio by the formula: 2 * 2 * 4", 2 * 2 / 0.25, 16)
for scale in (1.5, 2, 4):
    slope = gradient(gaussian(step, scale))[1][32, 31:33].max()
    spread = gradient(gaussian(noise, scale))[1].std()
    check(f"measured / formula at {scale}", slope / spread / (8 * scale), 1.0, tol=0.25)

# %% [markdown]
# The measured ratios are within a quarter of the formula. (The pixel grid and Sobel's own smoothing make them differ: together the blur is a little wider than $\sigma$.) So why not take $\sigma = 20$? Because the blur also melts together what is closer than a few $\sigma$, and moves edges where they bend. **Scale is a choice: sure or exact.** Section 8 tries to have both.
#
# ## 5. The second derivative, and sharpening
#
# Where the slope is largest, the slope *of the slope* goes through 0. The sum of the second differences along both axes is the **Laplacian** (拉普拉斯算子):
#
# $$\nabla^2 g \approx g_{\text{above}} + g_{\text{below}} + g_{\text{left}} + g_{\text{right}} - 4\, g.$$
#
# By hand, on the row of section 3: $g = 0, 0, 0, 4, 8, 8, 8$ has second differences $0, 0, 4, 0, -4, 0, 0$. Positive on the dark side, negative on the bright side, and 0 at the edge itself, with a change of sign. Marr and Hildreth (1980) took these zero crossings (过零点) of a blurred picture's Laplacian for the edges: closed curves, thin by themselves, and also all over the flat parts, where noise changes sign at every other pixel.

# %%
laplacian = torch.tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)
second = correlate(row.expand(3, -1), laplacian)[1]
check("second differences of the row", second, [0, 0, 4, 0, -4, 0, 0])
theirs = torch.tensor(skimage.filters.laplace(camera.numpy()))  # with the sign turned
check("as in scikit-image", correlate(camera, laplacian)[inner], -theirs[inner], tol=1e-12)

# %% [markdown]
# ### Sharpening makes pictures, not edges
#
# Take the blurred picture away from the picture: what is left is what the blur lost, the fine detail. Add it once more, times $a$:
#
# $$\text{sharp} = g + a\, (g - G_\sigma * g).$$
#
# This is **unsharp masking** (反锐化掩模), older than computers: photographers did it with a blurred negative. For a small blur $G_\sigma * g - g \approx \frac{\sigma^2}{2} \nabla^2 g$, so it is the same as taking the Laplacian away, $g - a \frac{\sigma^2}{2} \nabla^2 g$: **edge enhancement** (边缘增强).
#
# By hand, with the Laplacian and a factor of $\frac14$: the row becomes $0, 0, -1, 4, 9, 8, 8$. The step got steeper, from 4 to 5 a pixel, by a dark rim on its dark side and a bright one on the other.
#
# **Predict:** the slope at edges rises. So does the noise. Does the edge stand out *more* from the noise after sharpening?


# %%
def unsharp_mask(picture, scale, amount):
    """The picture, with what a blur of `scale` takes from it added `amount` times."""
    return picture + amount * (picture - gaussian(picture, scale))


# %%
check("the row, sharpened", row[0] - second / 4, [0, 0, -1, 4, 9, 8, 8])
theirs = skimage.filters.unsharp_mask(camera.numpy(), radius=2, amount=1.5)
ours = unsharp_mask(camera, 2, 1.5).clamp(0, 1)
away = (slice(10, -10), slice(10, -10))  # scikit-image mirrors at the border
check("as in scikit-image", ours[away], torch.tensor(theirs)[away], tol=1e-12)


# %%
noisy_step = step + noise[:64, :64]
ratios = []
for picture, only_noise in (
    (step, noise),
    (unsharp_mask(step, 2, 1.5), unsharp_mask(noise, 2, 1.5)),
):
    slope = gradient(picture)[1][32, 31:33].max()
    ratios.append((slope / gradient(only_noise)[1].std()).item())
check_at_most("edge over noise: after, as a share of before", ratios[1] / ratios[0], 1.0)

# %% alt="A step with noise, and the same sharpened, above their middle rows. Sharpening made the step steeper with rims on both sides, and the noise stronger."
fig, axes = show.grid(
    1, 3, "Sharpening lifts the edge, and the noise with it", width=3.2, height=2.4
)
sharp_step = unsharp_mask(noisy_step, 2, 1.5)
show.heat(axes[0], noisy_step, "a step with noise", low=-1.5, high=2.5, colours="gray")
show.heat(axes[1], sharp_step, "sharpened", low=-1.5, high=2.5, colours="gray")
axes[2].plot(sharp_step[32], color=colours[7], label="sharpened")
axes[2].plot(noisy_step[32], color="black", label="before")
axes[2].set(title="the middle row", xlabel="column", ylabel="grey value")
axes[2].legend(fontsize="small")
check_at_least("noise, as a multiple", sharp_step.std() / noisy_step.std(), 1.2)

# %% [markdown]
# Not more, but less: sharpening lifts the finest detail most, and the finest detail is noise. It helps an eye that looks at a print. It adds no information, and says of no pixel whether it is an edge.

# %% [markdown]
# ## 6. Canny, in four steps
#
# The length of the gradient is a hill along each edge, several pixels wide. We want a line of one pixel. Canny (1986) wrote down what a good detector must do (find the edges, put them in the right place, mark each once), and derived a filter close to the derivative of a Gaussian. His recipe has four steps. The first, **the gradient at a scale**, is sections 3 and 4.
#
# ### Step 2: only the ridge
#
# **Non-maximum suppression** (非极大值抑制): keep a pixel if its length $m$ is at least that of both neighbours *along the gradient*, that is, across the edge. The gradient seldom points at a pixel's centre. Let it point mostly down, and a little to the right: with $|g_r| \ge |g_c|$ it meets the row below between two pixels, at the share
# $w = |g_c| / |g_r|$ of the way from the one straight below to the one below and right. So the length on that side is $(1 - w)\, m_{\text{straight}} + w\, m_{\text{diagonal}}$.
#
# By hand: the gradient $(4, 1)$ at a pixel, with $m_{\text{straight}} = 3$ and $m_{\text{diagonal}} = 7$, gives $\frac34 \cdot 3 + \frac14 \cdot 7 = 4$. The pixel's own $m = \sqrt{17} = 4.12$ is larger; it stays if the other side agrees.


# %%
def shifted(picture, rows, columns):
    """For each pixel the value `rows` below and `columns` to the right of it; 0 outside."""
    height, width = picture.shape
    return F.pad(picture, (1, 1, 1, 1))[1 + rows :, 1 + columns :][:height, :width]


def beside(m, down, right, side):
    """Length where the gradient meets the next row or column, before (-1) or behind (1) a pixel."""
    is_steep = down.abs() > right.abs()  # the next row, not the next column
    is_falling = down * right >= 0  # towards lower right, or back to upper left
    small, large = torch.minimum(down.abs(), right.abs()), torch.maximum(down.abs(), right.abs())
    w = small / large.clamp(min=1e-300)
    sideways = torch.where(is_falling, shifted(m, 0, side), shifted(m, 0, -side))
    diagonal = torch.where(is_falling, shifted(m, side, side), shifted(m, side, -side))
    return (1 - w) * torch.where(is_steep, shifted(m, side, 0), sideways) + w * diagonal


# %%
def ridge(down, right):
    """Length of the gradient where it is no less than on either side of the edge, else 0."""
    m = torch.hypot(down, right)
    keep = (beside(m, down, right, 1) <= m) & (beside(m, down, right, -1) <= m)
    keep[[0, -1]] = keep[:, [0, -1]] = False  # the frame has only one side
    return m.where(keep, 0)


middle = torch.tensor([[0, 0, 0], [0, 17**0.5, 0], [0, 3, 7]], dtype=torch.float64)
by_hand = beside(middle, torch.full((3, 3), 4.0), torch.full((3, 3), 1.0), 1)[1, 1]
check("by hand", by_hand, 4.0, tol=1e-12)

# %% [markdown]
# ### Steps 3 and 4: two thresholds, and hysteresis
#
# One threshold on $m$ has to choose: low, and noise comes through; high, and every edge is broken where it is faint for a few pixels. Canny takes two. Above the high one an edge is *sure*. Between the two it is *possible*, and counts if a chain of possible pixels, each touching the next at a side or a corner, leads to a sure one. This is **hysteresis** (滞后阈值).
#
# By hand, on one row with the thresholds 2 and 5: of the lengths $3, 0, 3, 6, 3, 1, 3$ the pixels in columns 2, 3 and 4 stay. Column 0 and column 6 are just as long as column 2, but lead nowhere.
#
# **Predict:** the loop below grows the sure pixels by one ring each time round. How often does it run?


# %%
def hysteresis(length, low, high):
    """Pixels of at least `low` that touch, in a chain of such, one of at least `high`."""
    possible = length >= low
    edges = possible & (length >= high)
    while True:
        around = F.max_pool2d(edges[None].double(), 3, stride=1, padding=1)[0] > 0
        grown = around & possible
        if grown.equal(edges):
            return edges
        edges = grown


def canny(picture, scale, low, high):
    """Edges of a grey picture; `low` and `high` in grey values a pixel."""
    return hysteresis(ridge(*gradient(gaussian(picture, scale))), low, high)


# %%
lengths = torch.tensor([[3.0, 0, 3, 6, 3, 1, 3]])
check("by hand", hysteresis(lengths, 2, 5)[0], [False, False, True, True, True, False, False])

# %% [markdown]
# As often as the longest chain has pixels: quick for outlines, slow for a spiral. Now the judge. scikit-image computes Sobel without the $\frac18$, so its thresholds are 8 times ours.

# %% tags=["nbval-ignore-output"]
for scale in (1, 2, 3):
    ours = canny(camera, scale, 0.02, 0.05)
    theirs = skimage.feature.canny(camera.numpy(), scale, 8 * 0.02, 8 * 0.05, mode="nearest")
    differs = (ours != torch.tensor(theirs)).sum().item()
    check_at_most(f"scale {scale}: pixels that differ of {ours.sum()}", differs, 2)

# %% [markdown]
# (They agree to the last pixel here. Two are allowed for, since on another processor a rounding error may tip a pixel that is exactly as long as its neighbour.)

# %%
down, right = gradient(gaussian(camera, 1.5))
length, thin = torch.hypot(down, right), ridge(down, right)
edges = hysteresis(thin, 0.02, 0.06)
classes = ((thin >= 0.02).double() + (thin >= 0.06)) / 2
ratio = (thin > 0.02).sum() / (length > 0.02).sum()
check_at_most("the ridge has fewer pixels, as a share", ratio, 0.5)

# %% alt="Four maps of the man with the camera: length of the gradient, thick bright outlines; its ridge, thin; sure pixels in white and possible ones in grey; the edges, without the grey pixels that touch no white ones."
fig, axes = show.grid(1, 4, "Canny in four steps", width=2.5)
titles = ("1: length of the gradient", "2: its ridge", "3: possible (grey), sure", "4: edges")
stages = (length * 5, thin * 5, classes, edges.double())
for ax, stage, title in zip(axes, stages, titles, strict=True):
    show.image(ax, stage.clamp(0, 1).expand(3, -1, -1), title)

# %% [markdown]
# Four numbers in, one picture out, and nobody has said yet whether it is any good.
#
# ## 7. A score for boundaries
#
# The truth is a map of **boundary** (边界) pixels: those where one thing ends and another begins. Scenes come with it. To count how many predicted edge pixels lie exactly on it would be unfair: an edge one pixel off is as good as right. So allow a **tolerance** $\tau$ (容差), in pixels:
#
# - **precision** (精确率): the share of predicted pixels that are right;
# - **recall** (召回率): the share of true pixels that were found;
# - $F = 2 P R / (P + R)$, their harmonic mean, which is near the smaller of the two.
#
# What does "right" mean? Here are seven pixels of a row, with $\tau = 1$. The detector has drawn a thick line:
#
# | column | 0 | 1 | 2 | 3 | 4 | 5 | 6 |
# |---|---|---|---|---|---|---|---|
# | predicted | | | x | x | x | | |
# | true | | | | x | | | |
#
# **Predict:** if a predicted pixel is right as soon as a true one is near, what is the precision? Is that what you want?
#
# Every pixel of a thick line is near the truth, so it would be perfect. The benchmark's answer (Martin, Fowlkes and Malik, 2004) is a **one-to-one matching** (一一匹配): each true pixel can make only one predicted pixel right. Then one of the three is right, two are not.
#
# To match well one must sometimes undo a match. Predicted: columns 2 and 4; true: 3 and 5. If the pixel at 4 takes 3, then 2 is left with nothing. If 4 gives way and takes 5, both are served. Looking for such a chain of giving way, an **augmenting path** (增广路), is all there is to it: when no chain is left, no larger matching exists (Berge, 1957).


# %%
def largest_matching(predicted, true, tolerance):
    """How many (row, column) pairs can be made, none farther apart, no pixel used twice."""
    owner = {}  # which predicted pixel has this true one

    def serve(pixel, asked):
        for place in true:
            if place not in asked and math.dist(pixel, place) <= tolerance:
                asked.add(place)
                if place not in owner or serve(owner[place], asked):
                    owner[place] = pixel
                    return True
        return False

    return sum(serve(pixel, set()) for pixel in predicted)


# %%
def places(mask):
    """(row, column) of each true pixel."""
    return [tuple(place) for place in mask.nonzero().tolist()]


def on_a_row(*columns):
    """A row of seven pixels, true at `columns`."""
    return torch.zeros(1, 7, dtype=torch.bool).index_fill(1, torch.tensor(columns), value=True)


# %%
thick, line = on_a_row(2, 3, 4), on_a_row(3)
check("thick line, near is enough: precision", count_near(thick, line, 1).precision, 1.0)
check("one to one: pairs", largest_matching(places(thick), places(line), 1), 1)
check("one to one: precision", count_matched(thick, line[None], 1).precision, 1 / 3, tol=1e-12)
pair, other = on_a_row(2, 4), on_a_row(3, 5)
check("giving way: pairs", largest_matching(places(pair), places(other), 1), 2)
dots = torch.rand(20, 16, 16, generator=generator) < 0.2
for one, two in pairwise(dots):
    found = count_matched(one, two[None], 1.5).right
    assert found == largest_matching(places(one), places(two), 1.5)

# %% [markdown]
# `count_matched` in `segedu` finds as many pairs, and among all such matchings the one of the least total distance, with scipy's sparse assignment solver. A test of this course holds it to the loop above.

# %% tags=["nbval-ignore-output"]
print(inspect.getsource(boundary._partners))

# %% [markdown]
# ### Scenes
#
# Now score Canny on scenes, with $\tau = 2$. The high threshold is the dial: turn it up, and precision should rise while recall falls. Counts are summed over all pictures before anything is divided. (The best $F$ on this curve, one threshold for the whole set, is what papers call ODS, *optimal data set scale*; with the best threshold for each picture it is OIS.)
#
# **Predict:** how good can it get? These are clean drawings. 0.95?

# %%
scenes = [*Scenes(scenes_count, seed=seed)]
grey_weights = torch.tensor([0.2125, 0.7154, 0.0721], dtype=torch.float64)
pictures = [(plain(s["image"]).double() * grey_weights[:, None, None]).sum(0) for s in scenes]
truths = [plain(s["boundary"]).bool() for s in scenes]
thresholds = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.11)


def counted(all_edges, tolerance=2):
    """Boundary counts of one edge map for each scene, summed."""
    return sum(
        (count_matched(e, t[None], tolerance) for e, t in zip(all_edges, truths, strict=True)),
        BoundaryCounts(),
    )


# %% tags=["nbval-ignore-output"]
ridges = {
    scale: [ridge(*gradient(gaussian(picture, scale))) for picture in pictures]
    for scale in (1, 2, 3)
}
scores = {
    (scale, high): counted([hysteresis(r, 0.4 * high, high) for r in ridges[scale]])
    for scale in ridges
    for high in thresholds
}
best = {s: max((scores[s, high].f1, high) for high in thresholds) for s in ridges}
for scale, (f, high) in best.items():
    print(f"scale {scale}: best F {f:.2f}, at {high}")
check("the best F of any scale and threshold", max(f for f, _ in best.values()), 0.6, tol=0.1)

# %% tags=["nbval-ignore-output"] alt="Precision over recall, one curve for each of the scales 1, 2 and 3, from low thresholds at the lower right, where recall is high and precision about a third, to high ones at the upper left. Dotted curves mark equal F."
fig, [ax] = show.grid(1, 1, width=5.5, height=3.8)
line_of = torch.linspace(0.05, 1, 100)
for f in (0.3, 0.5, 0.7, 0.9):
    r = line_of[line_of > f / (2 - f)]
    ax.plot(r, f * r / (2 * r - f), ":", color="0.6")
    ax.text(1.01, f / (2 - f), f"F {f}", va="center", fontsize="small")
for scale, colour in zip(ridges, colours[[1, 3, 6]], strict=True):
    curve = [scores[scale, high] for high in thresholds if scores[scale, high].predicted]
    recalls, precisions = zip(*((c.recall, c.precision) for c in curve), strict=True)
    ax.plot(recalls, precisions, "o-", color=colour, label=f"scale {scale}")
ax.set(title="Canny on scenes: nothing comes near F = 0.9", xlabel="recall", ylabel="precision")
ax.set(xlim=(0, 1), ylim=(0, 1.02))
ax.legend(loc="upper right")
rising = np.diff([scores[2, high].precision for high in thresholds[:4]])
check_at_least("precision rises with the threshold", rising, 0.0)

# %% [markdown]
# About 0.6. Look where the errors are.

# %% tags=["nbval-ignore-output"] alt="Three scenes, and below each the edges found: right ones, wrong ones and missed boundaries in three colours. Wrong edges lie along stripes and checks inside objects and along shadows; missed boundaries where object and ground have the same grey."
chosen = [hysteresis(r, 0.4 * best[2][1], best[2][1]) for r in ridges[2]]
fig, axes = show.grid(
    2, 3, "Blue: right. Red: an edge, and no boundary. Orange: missed", height=2.5
)
for column, (found, truth) in enumerate(list(zip(chosen, truths, strict=True))[:3]):
    show.image(axes[0, column], scenes[column]["image"])
    near_truth = torch.tensor(ndimage.distance_transform_edt(~truth.numpy()) <= 2)
    near_found = torch.tensor(ndimage.distance_transform_edt(~found.numpy()) <= 2)
    drawn = torch.ones(*truth.shape, 3, dtype=torch.float64)
    for pixels, c in ((truth & ~near_found, 1), (found & near_truth, 6), (found & ~near_truth, 7)):
        drawn[pixels] = torch.tensor(colours[c])
    show.image(axes[1, column], drawn.movedim(-1, 0))

# %% [markdown]
# The detector does its work: nearly every red pixel *is* an edge, of a stripe, a shadow, a facet. **An edge is a fact about brightness; a boundary is a fact about things.** No threshold tells them apart, because the difference is not in the brightness.
#
# ## 8. Two scales
#
# Fine scales put edges in the right place and find every stripe. Coarse scales ignore the stripes, and round off corners. Can they help each other? Keep a fine edge only if a coarse edge is within two pixels: the coarse one says *that*, the fine one says *where*. (Bergholm's edge focusing, 1987, does this in many small steps from coarse to fine; the detectors that led BSDS before deep networks sum gradients over three scales.)
#
# **Predict:** which will gain more from it, precision or recall?


# %%
def confirmed(fine, coarse, distance):
    """Fine edges with a coarse edge within `distance` pixels."""
    if not coarse.any():
        return torch.zeros_like(fine)
    return fine & torch.tensor(ndimage.distance_transform_edt(~coarse.numpy()) <= distance)


# %% tags=["nbval-ignore-output"]
fine = [hysteresis(r, 0.4 * 0.06, 0.06) for r in ridges[1]]
coarse = [hysteresis(r, 0.4 * 0.01, 0.01) for r in ridges[3]]
both = counted([confirmed(f, c, 2) for f, c in zip(fine, coarse, strict=True)])
alone = counted(fine)
print(f"fine alone: P {alone.precision:.2f} R {alone.recall:.2f} F {alone.f1:.2f}")
print(f"two scales: P {both.precision:.2f} R {both.recall:.2f} F {both.f1:.2f}")
for scale in (1, 3):
    check_at_least(
        f"F beyond the best of scale {scale} alone", both.f1 - best[scale][0], least_gain
    )
check_at_least("precision gained", both.precision - alone.precision, 0.05)
check_at_most("recall gained", both.recall - alone.recall, 0.0)

# %% [markdown]
# Only precision can gain: pixels are taken away, and none is added. Yet $F$ is higher than any threshold could make it at either scale alone. This is the pattern of nearly every network in this course: a coarse map that knows *what*, a fine one that knows *where*, and a way to join them ([chapter 10](10_unet.ipynb)).

# %% [markdown]
# ## 9. Several people
#
# So far there was one truth. For photographs there is none: only what people draw. One outlines every window, another only the house; hands shake. BSDS500 (Arbeláez et al., 2011) has the drawings of several people for each photograph, and its benchmark counts like this:
#
# - a predicted pixel is right if *any* person has a partner for it;
# - every pixel that any person drew is a true pixel, counted once for each of them, and recall is the share found, *all people's pixels together*.
#
# To see what that means, let three pens draw our scenes. One is thorough and draws all. One is sparing, and draws only objects of at least 5 % of the picture. One is shaky, and one pixel off in both directions.
#
# **Predict:** score each against the other two. Who gets a low precision, who a low recall?


# %%
def outline(instances):
    """Pixels whose lower or right neighbour belongs to another object."""
    padded = F.pad(instances[None].double(), (0, 1, 0, 1), mode="replicate")[0]
    return (padded[1:, :-1] != instances) | (padded[:-1, 1:] != instances)


def three_pens(scene):
    """A thorough, a sparing and a shaky drawing of a scene's boundaries: (3, H, W)."""
    instances = plain(scene["instance_map"])
    area = instances.flatten().bincount()
    large = instances.where(area[instances] >= 0.05 * instances.numel(), 0)
    return torch.stack([outline(m) for m in (instances, large, instances.roll((1, 1), (0, 1)))])


# %%
def against_the_others(people, k, tolerance):
    """Person k's boundaries, scored against everybody else's."""
    others = torch.arange(len(people)) != k
    return count_matched(people[k], people[others], tolerance)


drawings = [three_pens(scene) for scene in scenes]
assert all(torch.equal(d[0], t) for d, t in zip(drawings, truths, strict=True))
pens = [sum((against_the_others(d, k, 2) for d in drawings), BoundaryCounts()) for k in range(3)]
for name, counts in zip(("thorough", "sparing", "shaky"), pens, strict=True):
    print(f"{name:9} P {counts.precision:.2f}  R {counts.recall:.2f}  F {counts.f1:.2f}")
check("BSDS500's tolerance, 321 x 481", 0.0075 * math.hypot(321, 481), 4.3, tol=0.05)
check_at_least("the sparing pen's precision", pens[1].precision, 0.95)
check_at_most("and its recall", pens[1].recall, 0.9)

# %% [markdown]
# What the sparing pen draws, the others have drawn as well; what it leaves out costs recall. **Agreement between people is a matter of how much they draw, more than of where.** The $F$ of people against one another is the yardstick for machines: where people do not agree, no detector can agree with all of them.
#
# Is it a ceiling (上限)? Nearly. Precision asks for any person, so a detector that draws what *somebody* drew, in good measure, can score above the people, who each were scored without themselves. On BSDS300 the median person has $F = 0.80$ against the others (Martin et al., 2004); a deep network of 2017 reports 0.811 on BSDS500 (Liu et al.). That is not better sight than ours. It is the end of what this score can measure.

# %% tags=["nbval-ignore-output"]
all_three = sum(
    (count_matched(c, d, 2) for c, d in zip(chosen, drawings, strict=True)), BoundaryCounts()
)
agreement = sum(pens, BoundaryCounts())
print(f"the pens, each against the others: F {agreement.f1:.2f}")
print(f"Canny at scale 2, against all three: F {all_three.f1:.2f}")
check_at_least("the pens' agreement, beyond Canny", agreement.f1 - all_three.f1, 0.1)

# %% [markdown]
# ### Photographs and real people
#
# The same on BSDS500, with its tolerance of 0.0075 of the picture's diagonal: 4.3 pixels for 321 x 481. The photographs are not part of this repository; without them these cells say how to get them.

# %% tags=["nbval-ignore-output"]
people_score, machine_scores = BoundaryCounts(), {0.03: BoundaryCounts(), 0.05: BoundaryCounts()}
photographs_drawn = []
if catalog.available("bsds"):
    bsds = catalog.load("bsds", split="val")
    for index in range(0, len(bsds), max(1, len(bsds) // photos))[:photos]:
        sample = bsds[index]
        people, tau = plain(sample["boundaries"]), 0.0075 * math.hypot(*sample["mask"].shape)
        seen = (plain(sample["image"]).double() * grey_weights[:, None, None]).sum(0)
        for k in range(len(people)):
            people_score += against_the_others(people, k, tau)
        for high in machine_scores:
            machine_scores[high] += count_matched(canny(seen, 2, 0.4 * high, high), people, tau)
        photographs_drawn.append((sample, canny(seen, 2, 0.02, 0.05)))
else:
    print("BSDS500 is not here; `segedu data get bsds` downloads it.")

# %% tags=["nbval-ignore-output"] alt="Two photographs of BSDS500; for each the number of people who drew a boundary at each pixel, and Canny's edges, which cover grass, fur and water as well."
if photographs_drawn:
    fig, axes = show.grid(2, 3, "People draw things, Canny draws changes", width=3.6, height=2.6)
    for line, (sample, found) in zip(axes, photographs_drawn, strict=False):
        show.image(line[0], sample["image"])
        count = plain(sample["boundaries"]).double().mean(0)
        show.image(line[1], 1 - count.expand(3, -1, -1), "share of the people")
        show.image(line[2], 1 - found.double().expand(3, -1, -1), "Canny")
    machine = max(counts.f1 for counts in machine_scores.values())
    print(
        f"people: P {people_score.precision:.2f} R {people_score.recall:.2f} F {people_score.f1:.2f}"
    )
    print(f"Canny:  F {machine:.2f}")
    check_at_least("people, beyond Canny", people_score.f1 - machine, 0.03)

# %% [markdown]
# ## 10. What goes wrong
#
# ### A thick line, scored by nearness
#
# Leave out step 2 of Canny, and mark every pixel whose gradient is long. Score it with "a true pixel is near", as in many quick scripts. **Predict** what thickness does to the two kinds of precision.

# %% tags=["nbval-ignore-output"]
high = best[2][1]
fat = [torch.hypot(*gradient(gaussian(picture, 2))) >= high for picture in pictures]
thin = [hysteresis(r, high, high) for r in ridges[2]]
precision = {}
for name, maps in (("fat", fat), ("thin", thin)):
    near = sum((count_near(e, t, 2) for e, t in zip(maps, truths, strict=True)), BoundaryCounts())
    precision[name] = near.precision, counted(maps).precision
    print(f"{name}: near {precision[name][0]:.2f}, matched {precision[name][1]:.2f}")
check("near: thickness costs next to nothing", precision["fat"][0], precision["thin"][0], tol=0.12)
check_at_most("matched: fat, as a share of thin", precision["fat"][1] / precision["thin"][1], 0.6)

# %% [markdown]
# Nearness pays for blur. Papers score semantic masks by nearness all the same (boundary F1, [chapter 08](08_metrics.ipynb)); there it does no harm, because the boundary of a mask is one pixel thick by construction.
#
# ### A tolerance that lets anything pass
#
# A score with a tolerance needs a control: what does *chance* get? Scatter as many random pixels as the truth has. **Predict** the $F$ of confetti at a tolerance of 2 pixels, and of 8, in a picture of 96.

# %% tags=["nbval-ignore-output"] alt="F over the tolerance from 0 to 8 pixels, for Canny and for random pixels. Canny leads clearly at 1 to 3 pixels; the two come closer as the tolerance grows."
confetti = [torch.rand(t.shape, generator=generator) < t.double().mean().item() for t in truths]
tolerances = (0, 1, 2, 3, 5, 8)
by_chance = [counted(confetti, tau).f1 for tau in tolerances]
by_canny = [counted(chosen, tau).f1 for tau in tolerances]
fig, [ax] = show.grid(1, 1, width=5.5, height=3)
ax.plot(tolerances, by_canny, "o-", color=colours[6], label="Canny, scale 2")
ax.plot(tolerances, by_chance, "s--", color=colours[7], label="random pixels")
ax.set(
    title="A wide tolerance praises confetti", xlabel="tolerance (pixels)", ylabel="F", ylim=(0, 1)
)
ax.legend()
check_at_most("random pixels at 2", by_chance[2], 0.35)
check_at_least("random pixels at 8, beyond that", by_chance[-1] - by_chance[2], 0.15)
leads = [by_canny[i] / by_chance[i] for i in (2, -1)]
check_at_least("Canny over chance: at 2, over that at 8", leads[0] / leads[1], 1.4)

# %% [markdown]
# State the tolerance with every boundary score, and what chance gets at it.
#
# ### Otsu always answers
#
# A picture with *nothing* in it has a histogram as well. **Predict** what share of pure noise Otsu calls object.

# %%
nothing = (100 + 10 * torch.randn(128, 128, generator=generator)).round().long().clamp(0, 255)
nothing_counts = nothing.flatten().bincount(minlength=256)
bright = (nothing > otsu(nothing_counts)).double().mean()
check("share of nothing called object", bright, 0.5, tol=0.06)
separation = between_variance(nothing_counts).max() / nothing.double().var(correction=0)
check("variance between, of all: 2/pi", separation, 2 / math.pi, tol=0.02)
separation = between_variance(coin_counts).max() / coins.double().var(correction=0)
check_at_least("the coins' share, for comparison", separation, 0.75)

# %% [markdown]
# Half of it. So look at $\sigma_B^2 / \sigma^2$ before you believe a threshold: one normal hill cut in half gives $2/\pi \approx 0.64$, and a picture with two groups must be well above.
#
# ## 11. In the article
#
# > **In the article, 2.1 and 3.1: boundaries.** Boundary detection, as edge detection and edge enhancement, is called a step of *preprocessing* for image segmentation. Three things in one sentence, and none holds today.
#
# **It is a task of its own.** It has its own truth (what people drew), its own score (sections 7 and 9) and its own data set. An edge map that scores well there is the answer, not the preparation of one.
#
# **Edge enhancement is no detection.** Section 5: it maps a picture to a picture, and lowers the ratio of edge to noise.
#
# **Segmentation does not need it.** If edges helped a network, it could make them itself: a first convolution layer with six numbers in the right places *is* the Sobel filter.

# %%
layer = torch.nn.Conv2d(
    1, 2, kernel_size=3, padding=1, padding_mode="replicate", bias=False
).double()
with torch.no_grad():
    layer.weight[:] = torch.stack([sobel_down, sobel_right])[:, None]
    learned = layer(camera[None, None])[0]
check("a convolution layer is the Sobel filter", learned, torch.stack(gradient(camera)), tol=1e-12)

# %% [markdown]
# And the other way round, from edges to regions, does not work without further help. A region needs a *closed* outline; one missing pixel joins inside and outside. **Predict:** cut our scenes along Canny's edges. How many of the objects are then closed off from the ground?


# %%
def closed_off(walls, instances):
    """Share of the objects that no path around the walls joins to the ground."""
    areas, _ = ndimage.label(~walls.numpy())  # connected by sides, not by corners
    areas, instances = torch.tensor(areas), plain(instances)
    outside = set(areas[(instances == 0) & (areas > 0)].tolist())
    inside = [
        set(areas[(instances == n) & (areas > 0)].tolist()) for n in range(1, instances.max() + 1)
    ]
    return np.mean([not (area & outside) for area in inside])


# %% tags=["nbval-ignore-output"]
by_edges = np.mean([closed_off(e, s["instance_map"]) for e, s in zip(chosen, scenes, strict=True)])
by_truth = np.mean([closed_off(t, s["instance_map"]) for t, s in zip(truths, scenes, strict=True)])
check("objects closed off by the true boundary", by_truth, 1.0)
check_at_most("by Canny's edges", by_edges, 0.5)

# %% [markdown]
# None. A fraction of a contour is found, or nearly all of it; closed it is not. A mask has it easier: give every pixel a class, and the boundaries follow, closed by construction. So the road runs from regions to edges rather than from edges to regions. (Arbeláez et al., 2011, did build regions from contours, with a watershed over the *strength* of the edges; [chapter 04](04_regions_and_superpixels.ipynb) has the watershed.)
#
# ## 12. Three quick questions
#
# **1.** You brighten a picture by 20 grey values, none of them beyond 255. What happens to Otsu's threshold, and to Canny's edges?
#
# <details><summary>Answer</summary>
#
# The threshold moves by 20, too. The edges stay: differences do not see what is added to both.
#
# </details>
#
# **2.** You double the contrast, $g \to 2g$ without clipping. And now?
#
# <details><summary>Answer</summary>
#
# Otsu's threshold doubles, and the mask stays. All slopes double, so at the same two thresholds Canny finds more edges. Its thresholds have a unit, grey values a pixel; Otsu has none to set.
#
# </details>
#
# **3.** A detector gets precision 1 and recall 0.2 against five people. Is it cautious, or are the people?
#
# <details><summary>Answer</summary>
#
# That cannot be told from these two numbers. It may draw a fifth of what each of them drew. Or one person out of five drew much, four drew nearly nothing, and it drew what the four did. Look at the recall of each person by itself.
#
# </details>

# %% tags=["nbval-ignore-output"]
darker = (camera * 100).round()  # whole grey values from 0 to 100
plus_20, times_2 = darker + 20, darker * 2
histograms = [p.long().flatten().bincount(minlength=256) for p in (darker, plus_20, times_2)]
check("1: the threshold moves by", otsu(histograms[1]) - otsu(histograms[0]), 20)
check("1: the edges stay", canny(plus_20, 2, 2, 5).equal(canny(darker, 2, 2, 5)), want=True)
same_mask = (times_2 > otsu(histograms[2])).equal(darker > otsu(histograms[0]))
check("2: Otsu's mask stays", same_mask, want=True)
more = canny(times_2, 2, 2, 5).sum() / canny(darker, 2, 2, 5).sum()
check_at_least("2: edges, as a multiple", more, 1.1)

# %% [markdown]
# ## 13. Exercises
#
# ### Exercise 1: the variance between two groups
#
# Write $\sigma_B^2$ for the cut after grey value $t$, from the pixels themselves. A cut that leaves a group empty parts nothing: 0.


# %% tags=["exercise"]
def variance_between(values, t):
    """Variance between the pixels of at most `t` and those above it; 0 if either is empty."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def from_groups(formula):
    """An answer by a formula in the groups' shares, means and variances."""

    def answer(values, t):
        groups = values[values <= t].double(), values[values > t].double()
        if not len(groups[0]) or not len(groups[1]):
            return 0.0
        w = [len(group) / len(values) for group in groups]
        mean = [group.mean().item() for group in groups]
        spread = [group.var(correction=0).item() for group in groups]
        return formula(w, mean, spread)

    return answer


exercise = Exercise(
    solution=from_groups(lambda w, m, _: w[0] * w[1] * (m[1] - m[0]) ** 2),
    inputs=[
        (torch.tensor([1.0, 2.0, 6.0, 7.0]), 2),
        (torch.tensor([1.0, 2.0, 6.0, 7.0]), 1),
        (torch.tensor([5.0, 5.0, 5.0]), 5),
        (torch.tensor([0.0, 0.0, 0.0, 10.0, 20.0]), 3.5),
    ],
    misconceptions={
        "that is the variance within the groups; the two add up to the variance of all": from_groups(
            lambda w, _, s: w[0] * s[0] + w[1] * s[1]
        ),
        "the shares are missing: a single pixel would count as much as all others": from_groups(
            lambda _, m, __: (m[1] - m[0]) ** 2
        ),
        "the distance of the means has to be squared": from_groups(
            lambda w, m, _: w[0] * w[1] * abs(m[1] - m[0])
        ),
        "the mean of the two means is not the mean of all pixels": from_groups(
            lambda w, m, _: sum(a * (b - sum(m) / 2) ** 2 for a, b in zip(w, m, strict=True))
        ),
    },
)
exercise.check(variance_between)


# %% tags=["solution"]
def variance_between(values, t):
    """The product of the shares, times the squared distance of the means."""
    dark, bright = values[values <= t], values[values > t]
    if not len(dark) or not len(bright):
        return 0.0
    shares = len(dark) * len(bright) / len(values) ** 2
    return (shares * (bright.mean() - dark.mean()) ** 2).item()


exercise.check(variance_between)

# %% [markdown]
# ### Exercise 2: one threshold for a whole set
#
# You are given the counts of each picture at each threshold. Which *one* threshold has the best $F$ on the set, and what is that $F$ (ODS)? The rule of section 7: sum first, divide afterwards.


# %% tags=["exercise"]
def best_for_the_set(counts):
    """Index of the best threshold, and its F.

    Args:
        counts: For each picture a list with a `BoundaryCounts` for each threshold.
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def best_by(score):
    """An answer that takes the threshold with the largest `score(counts of all pictures at it)`."""

    def answer(counts):
        values = [score(column) for column in zip(*counts, strict=True)]
        return int(np.argmax(values)), float(max(values))

    return answer


def best_of_each(counts):
    """OIS: every picture's own best threshold."""
    total = sum((max(row, key=lambda c: c.f1) for row in counts), BoundaryCounts())
    return best_by(lambda column: sum(column, BoundaryCounts()).f1)(counts)[0], total.f1


example = [
    [BoundaryCounts(10, 100, 10, 10), BoundaryCounts(8, 10, 8, 10)],
    [BoundaryCounts(90, 100, 90, 100), BoundaryCounts(30, 30, 30, 100)],
]
exercise = Exercise(
    solution=best_by(lambda column: sum(column, BoundaryCounts()).f1),
    inputs=[(example[:1],), (example,), ([row[::-1] for row in example],)],
    misconceptions={
        "each picture's F, and then their mean: a small picture counts like a large one": best_by(
            lambda column: float(np.mean([c.f1 for c in column]))
        ),
        "every picture got its own threshold; one was asked for": best_of_each,
        "the mean of precision and recall praises a detector that marks everything": best_by(
            lambda column: (
                (sum(column, BoundaryCounts()).precision + sum(column, BoundaryCounts()).recall) / 2
            )
        ),
    },
)
exercise.check(best_for_the_set)


# %% tags=["solution"]
def best_for_the_set(counts):
    """Add up each threshold's counts over the pictures; the F of the sums decides."""
    totals = [sum(column, BoundaryCounts()) for column in zip(*counts, strict=True)]
    best_index = max(range(len(totals)), key=lambda i: totals[i].f1)
    return best_index, totals[best_index].f1


exercise.check(best_for_the_set)

# %% [markdown]
# ### Exercise 3: zero crossings
#
# Mark the pixels at which the Laplacian of a blurred picture changes its sign: a pixel whose right or lower neighbour has the other sign. A value of exactly 0 has no sign. (Then try it: blur `camera` with several scales, and compare with `canny`. Where do the curves go in the sky?)


# %% tags=["exercise"]
def zero_crossings(values):
    """Pixels (H, W) whose right or lower neighbour has the opposite sign, neither being 0."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def crossings_by(differs, directions=((0, 1), (1, 0))):
    """An answer from a test of a value and its neighbour, in some directions."""

    def answer(values):
        height, width = values.shape
        marked = torch.zeros(height, width, dtype=torch.bool)
        for row, column in ((r, c) for r in range(height) for c in range(width)):
            for down, right in directions:
                if row + down < height and column + right < width:
                    pair = values[row, column].item(), values[row + down, column + right].item()
                    marked[row, column] |= differs(*pair)
        return marked

    return answer


exercise = Exercise(
    solution=crossings_by(lambda a, b: a * b < 0),
    inputs=[
        (torch.tensor([[4.0, -4.0, -1.0]]),),
        (torch.tensor([[4.0, 0.0, -4.0], [4.0, 2.0, 1.0]]),),
        (torch.randn(5, 6, generator=torch.Generator().manual_seed(1)),),
        (torch.tensor([[1.0], [-1.0]]),),
    ],
    misconceptions={
        "0 is not the opposite of a sign": crossings_by(lambda a, b: (a > 0) != (b > 0)),
        "the lower neighbour is missing": crossings_by(lambda a, b: a * b < 0, [(0, 1)]),
        "the right neighbour is missing": crossings_by(lambda a, b: a * b < 0, [(1, 0)]),
        "those are the zeros; a sign may change without the value 0 in between": (
            lambda values: values == 0
        ),
    },
)
exercise.check(zero_crossings)


# %% tags=["solution"]
def zero_crossings(values):
    """Two neighbours have opposite signs where their product is negative."""
    marked = torch.zeros_like(values, dtype=torch.bool)
    marked[:, :-1] |= values[:, :-1] * values[:, 1:] < 0
    marked[:-1] |= values[:-1] * values[1:] < 0
    return marked


exercise.check(zero_crossings)

# %% [markdown]
# ## Summary
#
# Symbols: grey value $g$; threshold $t$; shares $\omega_k$, means $\mu_k$ and variances $\sigma_k^2$ of the two groups; slopes $g_r, g_c$; scale $\sigma$ of the Gaussian $G_\sigma$; tolerance $\tau$.
#
# $$
# \begin{aligned}
# \sigma^2 &= \sigma_W^2 + \sigma_B^2, \qquad \sigma_B^2 = \omega_0\, \omega_1 (\mu_1 - \mu_0)^2 && \text{Otsu: the largest } \sigma_B^2 \\
# \ln L &= -\tfrac N2 \big( \ln (2 \pi \sigma_W^2) + 1 \big) && \text{the same, as a likelihood} \\
# m &= \sqrt{g_r^2 + g_c^2} && \text{steepness, by Sobel's filters} \\
# \frac{\text{slope}}{\text{noise}} &= 2\, \sigma\, \frac{h}{s_n} && \text{a step of height } h \text{ in noise } s_n \text{, at scale } \sigma \\
# \text{sharp} &= g + a\, (g - G_\sigma * g) && \text{unsharp masking} \\
# F &= \frac{2 P R}{P + R} && \text{from pairs at most } \tau \text{ apart, one to one}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Otsu's threshold is the most likely cut for two normal groups of one spread. It breaks below a share that you can compute.
# 2. An edge is a change of brightness; a boundary is where a thing ends. The first can be computed from a few pixels, the second cannot.
# 3. A boundary score needs a tolerance, a one-to-one matching, several people, and the score of chance beside it.
#
# **To read**
#
# - N. Otsu, "A threshold selection method from gray-level histograms", *IEEE Transactions on Systems, Man, and Cybernetics* 9(1), 1979, pages 62-66.
# - J. Kittler, J. Illingworth, "Minimum error thresholding", *Pattern Recognition* 19(1), 1986, pages 41-47.
# - D. Marr, E. Hildreth, "Theory of edge detection", *Proceedings of the Royal Society B* 207, 1980, pages 187-217.
# - J. Canny, "A computational approach to edge detection", *PAMI* 8(6), 1986, pages 679-698.
# - F. Bergholm, "Edge focusing", *PAMI* 9(6), 1987, pages 726-741.
# - D. Martin, C. Fowlkes, J. Malik, "Learning to detect natural image boundaries using local brightness, color, and texture cues", *PAMI* 26(5), 2004, pages 530-549: the matching and the $F$.
# - P. Arbeláez, M. Maire, C. Fowlkes, J. Malik, "Contour detection and hierarchical image segmentation", *PAMI* 33(5), 2011, pages 898-916: BSDS500.
# - Y. Liu et al., "Richer convolutional features for edge detection", *CVPR* 2017, and *PAMI* 41(8), 2019.
#
# **Next.** A threshold looks at one pixel, an edge at two. [Chapter 04](04_regions_and_superpixels.ipynb) lets pixels that are alike and close grow together into regions.

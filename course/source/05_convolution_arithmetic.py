# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Why can a network label every pixel? Convolution arithmetic
#
# One small set of weights, laid over every place of a picture: that is all a convolution is, and it is why one network can label pictures of any size. This chapter does the arithmetic that the rest of the course leans on.
# How large is the output? How far does a pixel see? What flows back? How does a small map become large again, and why is it then sometimes half a cell off? Everything is done on four to eight pixels first. One idea carries it all: **a convolution is a matrix**.
#
# **You will be able to**
#
# - compute a convolution, its output's size and its two gradients by hand;
# - say what stride, padding, dilation and pooling do to size, weights, work and reach;
# - compute a receptive field in three ways, and see where its width misleads;
# - read a transposed convolution as the transpose of a matrix, and tell where checkerboards come from;
# - enlarge a map without shifting it, and turn a fully connected layer into a convolution.
#
# *45 minutes. Before: a little linear algebra (matrix, transpose), PyTorch tensors; slopes as filters are in [chapter 03](03_thresholds_and_edges.ipynb).*

# %% tags=["parameters"]
seed = 0
deep = 20  # layers of the chain in section 6; at least 10

# %%
import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

# %%
from segedu import show, widgets
from segedu.check import check, check_at_least, check_at_most
from segedu.exercises import Exercise
from segedu.models import arithmetic
from segedu.models.arithmetic import Layer
from segedu.models.layers import bilinear_upsampling
from segedu.palette import class_colours

# %%
colours = class_colours(8) / 255
generator = torch.Generator().manual_seed(seed)


def random(*shape):
    """Normal random numbers, float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# %% [markdown]
# ## 1. Slide, multiply, sum
#
# A row of $n = 5$ pixels $x$, and three numbers $w$ that are learned: the **kernel** (卷积核), of $k = 3$ **taps**. Lay it over the row, multiply, sum, move on by one:
#
# $$y_i = \sum_{a=0}^{k-1} w_a\, x_{i+a}.$$
#
# By hand, $x = (3, 1, 4, 1, 5)$ and $w = (1, 0, 2)$:
#
# | $i$ | under the kernel | $y_i$ |
# |---|---|---|
# | 0 | 3 1 4 | $1 \cdot 3 + 0 \cdot 1 + 2 \cdot 4 = 11$ |
# | 1 | 1 4 1 | $1 \cdot 1 + 0 \cdot 4 + 2 \cdot 1 = 3$ |
# | 2 | 4 1 5 | $1 \cdot 4 + 0 \cdot 1 + 2 \cdot 5 = 14$ |
#
# (In mathematics this is a correlation; a convolution reads the kernel backwards. Since the kernel is learned, nobody minds.)
#
# A picture has rows, columns and channels (通道). The kernel then has a number for each tap *and each channel*, and each output channel has a kernel of its own: $w$ is $(O, C, k, k)$, for $C$ channels in and $O$ out. Instead of moving the kernel we can move the picture: for each tap, take all pixels that ever lie under it.


# %%
def under_tap(x, a, b, stride, dilation, size):
    """All pixels of `x` (C, H, W) that lie under tap (a, b), as a view of (C, *size)."""
    rows, columns = size
    return x[:, a * dilation :: stride, b * dilation :: stride][:, :rows, :columns]


def places(length, kernel, stride=1, padding=0, dilation=1):
    """How many places a kernel has along an axis; section 3 derives it."""
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


# %%
def convolve(x, w, stride=1, padding=0, dilation=1):
    """Convolution of (C, H, W) with kernels (O, C, k, k): (O, H', W')."""
    k = w.shape[-1]
    size = tuple(places(n, k, stride, padding, dilation) for n in x.shape[-2:])
    padded = F.pad(x, [padding] * 4)
    taps = product(range(k), repeat=2)
    moved = ((a, b, under_tap(padded, a, b, stride, dilation, size)) for a, b in taps)
    return sum(torch.einsum("oc,chw->ohw", w[:, :, a, b], pixels) for a, b, pixels in moved)


# %%
row, kernel = torch.tensor([3.0, 1, 4, 1, 5]).double(), torch.tensor([1.0, 0, 2]).double()
check("by hand", F.conv1d(row[None, None], kernel[None, None])[0, 0], [11, 3, 14])
x, w = random(3, 9, 11), random(4, 3, 3, 3)
settings = [(1, 0, 1), (1, 1, 1), (2, 1, 1), (3, 0, 2), (2, 2, 2)]
for stride, padding, dilation in settings:
    theirs = F.conv2d(x[None], w, None, stride, padding, dilation)[0]
    ours = convolve(x, w, stride, padding, dilation)
    check(f"stride {stride}, padding {padding}, dilation {dilation}", ours, theirs, tol=1e-12)

# %% [markdown]
# ### What it does not depend on
#
# The number of weights, $O\,C\,k^2$ and a bias (偏置) for each output channel, has no $H$ and no $W$ in it. A layer that was trained on $96 \times 96$ runs on $1000 \times 600$. And a shifted picture gives the same output, shifted: the layer is **equivariant** (平移等变) to shifts.
#
# **Predict:** does that hold at every pixel? For a stride of 2? For a padding of zeros?

# %%
conv = nn.Conv2d(3, 16, kernel_size=3, padding=1)
check("weights: 16 * 3 * 9 + 16", sum(p.numel() for p in conv.parameters()), 448)
shifted = x.roll(1, dims=2)  # one column to the right; the last comes round to the front
inside = (slice(None), slice(None), slice(2, -1))
same = convolve(x, w, padding=1).roll(1, dims=2)[inside]
check(
    "stride 1, shift by 1: the same, shifted",
    convolve(shifted, w, padding=1)[inside],
    same,
    tol=1e-12,
)

# %%
twos, before = convolve(shifted, w, stride=2), convolve(x, w, stride=2)
check_at_least("stride 2, shift by 1: largest difference", (twos - before).abs().max(), 0.1)
twos = convolve(x.roll(2, dims=2), w, stride=2)[:, :, 1:]
check("stride 2, shift by 2: the same, one place on", twos, before[:, :, :-1], tol=1e-12)
ones = convolve(torch.ones(1, 4, 4), torch.ones(1, 1, 3, 3), padding=1)[0]
check("a row of zero-padded ones", ones[0], [4, 6, 6, 4])
check("the row below", ones[1], [6, 9, 9, 6])

# %% [markdown]
# Inside, with stride 1, it does. A stride of 2 keeps shifts by 2 only. And zeros around the picture tell the layer where the border is: a picture of nothing but ones does not stay one colour. Networks use this; [chapter 10](10_unet.ipynb) has to mind it when it cuts pictures into tiles.
#
# ## 2. It is a matrix
#
# The output is a sum of inputs times weights, so it is a matrix times a vector, $y = M x$. Each row of $M$ is one place of the kernel:
#
# $$
# \begin{pmatrix} 11 \\ 3 \\ 14 \end{pmatrix} =
# \begin{pmatrix} 1 & 0 & 2 & & \\ & 1 & 0 & 2 & \\ & & 1 & 0 & 2 \end{pmatrix}
# \begin{pmatrix} 3 \\ 1 \\ 4 \\ 1 \\ 5 \end{pmatrix}.
# $$
#
# In two dimensions, write the pixels row after row into one vector. A $4 \times 4$ picture and a $3 \times 3$ kernel: 16 in, 4 out, $M$ is $4 \times 16$.
#
# **Predict:** how many of its 64 entries are not 0? How many *different* ones are there?


# %%
def convolution_matrix(w, height, width, stride=1, padding=0, dilation=1):
    """The matrix of one kernel (k, k) on pictures of one channel, pixels row after row."""
    k = len(w)
    rows, columns = (places(n, k, stride, padding, dilation) for n in (height, width))
    matrix = torch.zeros(rows, columns, height, width, dtype=w.dtype)
    for i, j, a, b in product(range(rows), range(columns), range(k), range(k)):
        r, c = i * stride + a * dilation - padding, j * stride + b * dilation - padding
        if 0 <= r < height and 0 <= c < width:  # otherwise this tap lies on padding
            matrix[i, j, r, c] = w[a, b]
    return matrix.reshape(rows * columns, height * width)


# %%
one_kernel, small = torch.arange(1.0, 10).double().reshape(3, 3), random(1, 4, 4)
M = convolution_matrix(one_kernel, 4, 4)
check("its shape", M.shape, [4, 16])
check("entries that are not 0: 4 places, 9 taps", (M != 0).sum(), 36)
check("different ones", len(M[M != 0].unique()), 9)
product_of = (M @ small.flatten()).reshape(1, 2, 2)
check("times the pixels", product_of, convolve(small, one_kernel[None, None]), tol=1e-12)
for stride, padding, dilation in settings:
    matrix = convolution_matrix(one_kernel, 9, 11, stride, padding, dilation)
    ours = convolve(x[:1], one_kernel[None, None], stride, padding, dilation)
    check(f"{stride}, {padding}, {dilation}", matrix @ x[0].flatten(), ours.flatten(), tol=1e-12)

# %% alt="Three matrices as maps of colours. Plain: four bands of nine entries, each row the row above moved by one or three columns. With padding: sixteen rows, the bands cut off at the corners. With stride 2 and padding: four rows only."
fig, axes = show.grid(1, 3, "A convolution of 4 x 4 pixels, as a matrix", width=3.6, height=3.2)
for ax, arguments, title in zip(
    axes, ((), (1, 1), (2, 1)), ("plain", "padding 1", "stride 2, padding 1"), strict=True
):
    matrix = convolution_matrix(one_kernel, 4, 4, *arguments)
    ax.imshow(matrix.where(matrix != 0, torch.nan).numpy(), cmap="cividis", interpolation="nearest")
    ax.set(title=f"{title}: {' x '.join(map(str, matrix.shape))}", xlabel="pixel in")
axes[0].set(ylabel="pixel out")
axes[0].set_xticks(range(0, 16, 5))
axes[2].set_xticks(range(0, 16, 5))
check("a fully connected layer there would have", 16 * 16, 256)

# %% [markdown]
# With padding 1 there are 16 pixels in and 16 out. A fully connected layer (全连接层) could have 256 different weights there. The convolution is that layer with two decisions made beforehand: *far pixels have weight 0*, and *the same offset has the same weight*.
#
# ## 3. Stride, padding, dilation
#
# Three settings, along one axis:
#
# - **padding** $p$ (填充): zeros added at each end;
# - **stride** $s$ (步幅): pixels from one place of the kernel to the next;
# - **dilation** $d$ (空洞率): pixels from one tap to the next. The kernel spans $d (k - 1) + 1$ pixels.
#
# $$y_i = \sum_{a=0}^{k-1} w_a\, x_{s i + d a - p}, \qquad x_j = 0 \text{ outside.}$$
#
# How many places $o$ are there? The last tap of the last place must lie within the padded axis:
#
# $$
# \begin{aligned}
# s\,(o - 1) + d\,(k - 1) &\le n + 2p - 1 && \text{(the padded axis ends at } n + 2p - 1 \text{)} \\
# o - 1 &\le \frac{n + 2p - d\,(k - 1) - 1}{s} && \text{(solve for } o \text{)} \\
# o &= \left\lfloor \frac{n + 2p - d\,(k - 1) - 1}{s} \right\rfloor + 1 && \text{(the largest whole number).}
# \end{aligned}
# $$
#
# By hand, for $n = 8$:
#
# | layer | $k$ | $s$ | $p$ | $d$ | $o$ |
# |---|---|---|---|---|---|
# | plain | 3 | 1 | 0 | 1 | $\lfloor 5 / 1 \rfloor + 1 = 6$ |
# | same size | 3 | 1 | 1 | 1 | $\lfloor 7 / 1 \rfloor + 1 = 8$ |
# | half | 3 | 2 | 1 | 1 | $\lfloor 7 / 2 \rfloor + 1 = 4$ |
# | dilated, same size | 3 | 1 | 2 | 2 | $\lfloor 7 / 1 \rfloor + 1 = 8$ |
# | pooling | 2 | 2 | 0 | 1 | $\lfloor 6 / 2 \rfloor + 1 = 4$ |
# | a ResNet's first | 7 | 2 | 3 | 1 | $\lfloor 7 / 2 \rfloor + 1 = 4$ |
# | per pixel | 1 | 1 | 0 | 1 | $\lfloor 7 / 1 \rfloor + 1 = 8$ |
#
# Move the sliders (or look at the picture, where there are none) before you go on: which settings give the same size?

# %% alt="A picture of 6 x 6 numbers with a ring of zeros around it; nine of them are framed, the taps of output (1, 1). Beside it the outputs, 3 x 3, of which five are there, the sums of the numbers under the taps."
fig = widgets.plot_convolution_step(Layer(kernel=3, stride=2, padding=1), step=4)

# %% tags=["nbval-ignore-output"]
widgets.explore_convolution_step()

# %%
table = [
    (3, 1, 0, 1),
    (3, 1, 1, 1),
    (3, 2, 1, 1),
    (3, 1, 2, 2),
    (2, 2, 0, 1),
    (7, 2, 3, 1),
    (1, 1, 0, 1),
]
check("the table", [places(8, *line) for line in table], [6, 8, 4, 8, 4, 4, 8])

# %%
wrong = 0
for n, k, s, p, d in product(range(9, 24), range(1, 5), range(1, 4), range(3), range(1, 3)):
    theirs = F.conv1d(
        torch.empty(1, 1, n, device="meta"), torch.empty(1, 1, k, device="meta"), None, s, p, d
    )
    wrong += places(n, k, s, p, d) != theirs.shape[-1]
check("of 1080 settings, where torch says otherwise", wrong, 0)

# %% [markdown]
# ### The floor forgets
#
# **Predict:** pictures of 96, 97 and 98 pixels go through five layers that halve ($k = 3$, $s = 2$, $p = 1$). How large are the last maps? What size would you get by doubling five times?

# %%
sizes = []
for n in (96, 97, 98):
    halves = [n]
    for _ in range(5):
        halves.append(places(halves[-1], 3, stride=2, padding=1))
    sizes.append(halves[-1])
    print(" -> ".join(map(str, halves)), f"-> doubled again: {32 * halves[-1]}")
check("the last maps", sizes, [3, 4, 4])
check("doubled five times", [32 * size for size in sizes], [96, 128, 128])

# %% [markdown]
# 97 and 98 have become the same size, so the way back cannot know. One pixel more, and the last map is a third larger. Every network that goes down and up again has to settle this: crop, pad, or ask for the size (chapters [09](09_fcn.ipynb) and [10](10_unet.ipynb)).
#
# ## 4. What flows back
#
# Training needs to know how the loss $L$ changes with each weight and each input. The layers behind give us $g_i = \partial L / \partial y_i$. Since $y_i = \sum_a w_a\, x_{si + da - p}$, the chain rule says:
#
# $$
# \begin{aligned}
# \frac{\partial L}{\partial w_a} &= \sum_i \frac{\partial L}{\partial y_i} \frac{\partial y_i}{\partial w_a} = \sum_i g_i\, x_{si + da - p} && \text{(every place uses the same } w_a \text{)} \\
# \frac{\partial L}{\partial x_j} &= \sum_{(i, a)\,:\; si + da - p = j} g_i\, w_a && \text{(all places } i \text{ in which } x_j \text{ lies under a tap } a \text{).}
# \end{aligned}
# $$
#
# The first is again a sliding sum, of the input with $g$. The second looks worse than it is. In the matrix's words it is one line: $y = Mx$, so $\nabla_x L = M^{\mathsf T} g$. **Forward with $M$, back with its transpose.** In the picture's words: each output pixel *stamps* its kernel, times $g_i$, onto the place where it was read.
#
# By hand, with $x = (3, 1, 4, 1, 5)$, $w = (1, 0, 2)$ and $g = (1, 1, 1)$:
#
# - $\partial L / \partial w = (3 + 1 + 4,\; 1 + 4 + 1,\; 4 + 1 + 5) = (8, 6, 10)$;
# - $\partial L / \partial x = (1, 0, 2, 0, 0) + (0, 1, 0, 2, 0) + (0, 0, 1, 0, 2) = (1, 1, 3, 2, 2)$.
#
# **Predict:** which of the five pixels has the most influence on the sum of the outputs, and why is it in the middle?


# %%
def stamp(g, w, size, stride=1, padding=0, dilation=1):
    """Each pixel of `g` (O, H', W') stamps its kernels onto a picture (C, *size): M^T g."""
    k = w.shape[-1]
    height, width = (n + 2 * padding for n in size)
    padded = g.new_zeros(w.shape[1], height, width)
    for a, b in product(range(k), repeat=2):
        ink = torch.einsum("oc,ohw->chw", w[:, :, a, b], g)
        under_tap(padded, a, b, stride, dilation, g.shape[-2:]).add_(ink)
    return padded[:, padding : height - padding, padding : width - padding]


# %%
def kernel_gradient(g, x, w, stride=1, padding=0, dilation=1):
    """For each weight the sum of `g` times the pixels under its tap."""
    padded, gradient = F.pad(x, [padding] * 4), torch.empty_like(w)
    for a, b in product(range(w.shape[-1]), repeat=2):
        pixels = under_tap(padded, a, b, stride, dilation, g.shape[-2:])
        gradient[:, :, a, b] = torch.einsum("ohw,chw->oc", g, pixels)
    return gradient


# %%
leaf_x, leaf_w = row.clone().requires_grad_(), kernel.clone().requires_grad_()
F.conv1d(leaf_x[None, None], leaf_w[None, None]).sum().backward()
check("gradient in w, by hand", leaf_w.grad, [8, 6, 10])
check("gradient in x, by hand", leaf_x.grad, [1, 1, 3, 2, 2])
row_matrix = torch.tensor([[1, 0, 2, 0, 0], [0, 1, 0, 2, 0], [0, 0, 1, 0, 2]]).double()
check("M^T g", row_matrix.T @ torch.ones(3).double(), leaf_x.grad, tol=1e-12)

# %% [markdown]
# The middle pixel lies under every tap of the kernel, the first under one only. Now in two dimensions, against autograd, and then the check that every gradient of this course has to pass.


# %%
class Convolution(torch.autograd.Function):
    """`convolve`, with our two formulas as its backward pass."""

    @staticmethod
    def forward(ctx, x, w, stride, padding, dilation):
        ctx.save_for_backward(x, w)
        ctx.settings = stride, padding, dilation
        return convolve(x, w, *ctx.settings)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        in_x = stamp(g, w, x.shape[-2:], *ctx.settings)
        return in_x, kernel_gradient(g, x, w, *ctx.settings), None, None, None


# %%
small_x, small_w = random(2, 6, 7).requires_grad_(), random(3, 2, 3, 3).requires_grad_()
for stride, padding, dilation in settings:
    arguments = (small_x, small_w, stride, padding, dilation)
    passes = torch.autograd.gradcheck(Convolution.apply, arguments)
    check(f"gradcheck {stride}, {padding}, {dilation}", passes, want=True)

# %% [markdown]
# ## 5. Pooling
#
# **Pooling** (池化) slides a window, too, but has nothing to learn: the largest value in it, or the mean. The mean is a convolution with fixed weights $1/k^2$, each channel by itself; the maximum is no matrix at all, since *which* pixel it takes depends on the picture.
#
# Its gradient says so: mean pooling hands each pixel of the window its share $1/k^2$; max pooling hands all of it to the winner.
#
# By hand, the window $1, 3, 2, 0$ and $g = 1$: the mean gives $\frac14$ to each, the maximum $(0, 1, 0, 0)$.
#
# **Predict:** which of these does a pooling layer between two convolutions make smaller: their weights, their work, the size of the map?

# %%
window = torch.tensor([[[1.0, 3], [2, 0]]]).requires_grad_()
[of_mean] = torch.autograd.grad(F.avg_pool2d(window, 2), window)
[of_max] = torch.autograd.grad(F.max_pool2d(window, 2), window)
check("gradient of the mean", of_mean.flatten(), [0.25] * 4)
check("gradient of the maximum", of_max.flatten(), [0.0, 1, 0, 0])


# %%
def conv(channels, out):
    """A convolution that keeps the size."""
    return nn.Conv2d(channels, out, 3, padding=1)


plain = nn.Sequential(conv(3, 8), conv(8, 8))
pooled = nn.Sequential(conv(3, 8), nn.MaxPool2d(2), conv(8, 8))
weights = [sum(p.numel() for p in net.parameters()) for net in (plain, pooled)]
check("weights without and with pooling", weights, [808, 808])
check(
    "the last map, rows",
    [net(torch.zeros(1, 3, 32, 32)).shape[2] for net in (plain, pooled)],
    [32, 16],
)

# %% [markdown]
# The weights are as many as before: pooling has none, and a convolution's do not depend on the size. The map has a quarter of the pixels, so the layers behind it do a quarter of the work. That is one use. The other is reach, and that is the next question.
#
# ## 6. How far does a pixel see?
#
# The **receptive field** (感受野) of an output pixel is the set of input pixels that can change it. One axis is enough. There are three ways to it.
#
# ### By formula
#
# Go through the layers from the input on. Keep two numbers: the width $r$ of the field, and the **jump** $j$, the distance in input pixels from one pixel of the current map to the next. At the input $r = j = 1$. A layer reads $k$ pixels of the map below, the outermost $d (k - 1)$ steps apart, and each step is $j$ input pixels:
#
# $$r \leftarrow r + d\,(k - 1)\,j, \qquad j \leftarrow j \cdot s.$$
#
# The field is **added to**, the jump is multiplied. By hand:
#
# | layer | $k$, $s$, $d$ | adds | $r$ | $j$ |
# |---|---|---|---|---|
# | convolution | 3, 1, 1 | 2 | 3 | 1 |
# | pooling | 2, 2, 1 | 1 | 4 | 2 |
# | convolution | 3, 1, 1 | 4 | 8 | 2 |
# | convolution | 3, 1, 2 | 8 | 16 | 2 |
#
# ### By counting
#
# Each layer is a matrix; put a 1 where it has a tap. The product of the matrices has a number that is not 0 where output $i$ can see input $j$ (in fact it has the number of *paths* from one to the other).


# %%
def field_by_formula(layers):
    """Width of the receptive field, and the jump, after layers of (kernel, stride, dilation)."""
    r, j = 1, 1
    for k, s, d in layers:
        r, j = r + d * (k - 1) * j, j * s
    return r, j


# %%
def paths(layers, length):
    """How many paths lead from each of `length` inputs to each output: (outputs, length)."""
    count = torch.eye(length, dtype=torch.float64)
    for k, s, d in layers:
        taps = torch.zeros(places(len(count), k, s, dilation=d), len(count), dtype=torch.float64)
        for i, a in product(range(len(taps)), range(k)):
            taps[i, i * s + a * d] = 1
        count = taps @ count
    return count


# %%
chain = [(3, 1, 1), (2, 2, 1), (3, 1, 1), (3, 1, 2)]
seen = (paths(chain, length=22) > 0).sum(1)
check("by formula: width, jump", field_by_formula(chain), [16, 2])
check("by counting, every output", seen, 16)

# %% [markdown]
# ### By autograd
#
# The third way asks the layers themselves: the gradient of one output is not 0 at the inputs that can change it. Weights must not cancel, so make them all 1; and pooling takes the mean, since the maximum would pass its gradient to one pixel only.

# %%
axis = torch.ones(1, 1, 22, dtype=torch.float64, requires_grad=True)
y = axis
for k, s, d in chain:
    y = F.conv1d(y, torch.ones(1, 1, k).double(), stride=s, dilation=d)
[slope] = torch.autograd.grad(y[0, 0, 1], axis)
check("by autograd", (slope != 0).sum(), 16)
check("its values are the numbers of paths", slope[0, 0], paths(chain, 22)[1], tol=1e-12)
theirs = arithmetic.receptive_field([Layer(k, s, dilation=d) for k, s, d in chain])
check("as in segedu", [theirs.width, theirs.jump], [16, 2])

# %% alt="Four rows of dots, one for each map, the input at the bottom. Lines lead from one dot of the top row down to the pixels it sees: three, seven, and fifteen in the input, without a gap."
fig = widgets.plot_receptive_field([Layer(3, dilation=d) for d in (1, 2, 4)])

# %% tags=["nbval-ignore-output"]
widgets.explore_receptive_field()

# %% [markdown]
# Play with it: three layers with stride 1 reach $3 \cdot 2 + 1 = 7$ pixels; with dilations 1, 2, 4 they reach 15 for the same weights and the same size of map.
#
# A number to keep: VGG-16, the network that FCN grew from, has 13 convolutions and 5 poolings. **Predict** how many pixels it sees in front of its fully connected layers: about 50, 200 or 800? And how far through the first of them, which reads $7 \times 7$ places?

# %%
check("three layers, stride 1", field_by_formula([(3, 1, 1)] * 3)[0], 7)
check("with dilations 1, 2, 4", field_by_formula([(3, 1, 1), (3, 1, 2), (3, 1, 4)])[0], 15)
vgg = [layer for n in (2, 2, 3, 3, 3) for layer in [*[(3, 1, 1)] * n, (2, 2, 1)]]
check("after the last pooling: width, jump", field_by_formula(vgg), [212, 32])
check("after the first fully connected layer", field_by_formula([*vgg, (7, 1, 1)])[0], 404)

# %% [markdown]
# ### What it can see, and what it looks at
#
# The numbers of paths are not alike. Take many layers of three taps of weight $\frac13$. Each is a small blur, with a variance of $\frac13 (1 + 0 + 1) = \frac23$; variances of blurs add up. After $N$ layers the field is $2N + 1$ wide, but the influence is close to a bell curve of standard deviation $\sqrt{2N/3}$.
#
# By hand, for $N = 20$: width 41, standard deviation 3.65. Nearly all of the influence, two standard deviations to each side, lies in 15 of the 41 pixels.

# %% alt="Influence of the input pixels on the middle output for 2, 6 and 20 layers: bell curves that become lower and wider much more slowly than the fields, which are marked by bars below."
fig, [ax] = show.grid(1, 1, width=6.5, height=3)
for number, n in enumerate((2, 6, deep)):
    influence = paths([(3, 1, 1)] * n, 2 * n + 1)[0] / 3**n
    at = torch.arange(-n, n + 1)
    style = {"color": colours[(1, 3, 6)[number]], "label": f"{n} layers"}
    ax.plot(at, influence, "o-", markersize=3, **style)
    ax.hlines(-0.02 - 0.015 * number, -n, n, color=style["color"], linewidth=3)
ax.set(title="The field grows with the depth, the influence with its root")
ax.set(xlabel="input pixel, from the middle", ylabel="share of the influence")
ax.legend()
check("for 20 layers: standard deviation", math.sqrt(40 / 3), 3.65, tol=5e-3)
check("pixels within two of them, of 41", 2 * int(2 * math.sqrt(40 / 3)) + 1, 15)

# %%
spread = (influence * at**2).sum().sqrt()
check("standard deviation of the deepest", spread, math.sqrt(2 * deep / 3), tol=1e-9)
middle = influence[at.abs() <= 2 * spread].sum()
check_at_least("share of the middle, within two deviations", middle, 0.93)

# %% [markdown]
# Luo et al. (2016) call this the *effective* receptive field, and [chapter 10](10_unet.ipynb) measures that of a trained U-Net. There, with poolings and enlargements, you will also find that the field depends on the place; for a chain of convolutions, as here, it does not.
#
# ## 7. The transpose
#
# To label every pixel, small maps must become large again. $M$ makes 4 numbers out of 16. So $M^{\mathsf T}$ makes 16 out of 4, with the same kernel, connecting the same pixels:
#
# $$y = M x \quad (16 \to 4), \qquad x' = M^{\mathsf T} y \quad (4 \to 16).$$
#
# This is the **transposed convolution** (转置卷积). We have already written it: it is `stamp`, the backward pass of section 4, used forward. Each pixel of the small map stamps the kernel, times its value; stamps lie $s$ pixels apart; where they overlap, they add up.
#
# By hand: the map $(1, 2)$, the kernel $(1, 0, 2)$, stride 2. The first stamp is $(1, 0, 2, 0, 0)$, the second $(0, 0, 2, 0, 4)$, together $(1, 0, 4, 0, 4)$. The output's length follows from the same picture: the last stamp begins at $s\,(n - 1)$ and is $d\,(k - 1) + 1$ long, and padding *takes away* $p$ pixels at each end:
#
# $$o = s\,(n - 1) + d\,(k - 1) + 1 - 2p \;(+\, \text{output padding}).$$
#
# It is section 3's formula, solved for $n$. Where the floor had forgotten something, "output padding" adds the missing 0 to $s - 1$ pixels.
#
# **Predict:** some call it *deconvolution*. Does $M^{\mathsf T}$ undo $M$?

# %%
by_hand = F.conv_transpose1d(torch.tensor([[[1.0, 2]]]).double(), kernel[None, None], stride=2)
check("by hand", by_hand[0, 0], [1, 0, 4, 0, 4])
little = random(1, 2, 2)
stamped = stamp(little, one_kernel[None, None], (4, 4))
check("stamps are M^T", stamped.flatten(), M.T @ little.flatten(), tol=1e-12)
theirs = F.conv_transpose2d(little[None], one_kernel[None, None])[0]
check("and torch's transposed convolution", stamped, theirs, tol=1e-12)
back = M.T @ (M @ small.flatten())
check_at_least("M^T M x differs from x by up to", (back - small.flatten()).abs().max(), 1.0)
check("rank of M: 12 of 16 dimensions are gone", torch.linalg.matrix_rank(M), 4)

# %%
maps = random(3, 4, 5)
for stride, padding, dilation in settings:
    shape = [stride * (n - 1) + dilation * 2 + 1 - 2 * padding for n in maps.shape[-2:]]
    ours = stamp(maps, small_w, shape, stride, padding, dilation)
    theirs = F.conv_transpose2d(maps[None], small_w, None, stride, padding, dilation=dilation)[0]
    check(f"{stride}, {padding}, {dilation}: {shape}", ours, theirs, tol=1e-12)
one_more = F.conv_transpose2d(maps[None], small_w, None, 2, 1, output_padding=1)[0]
check("stride 2, one row and column more", stamp(maps, small_w, (8, 10), 2, 1), one_more, tol=1e-12)

# %% [markdown]
# It undoes the *shape*, not the values: what $M$ has thrown away is gone.
#
# ### What flows back through it
#
# No new derivation is needed. Forward is $x' = M^{\mathsf T} y$, so back is $\nabla_y L = (M^{\mathsf T})^{\mathsf T} g = M g$: **the gradient of a transposed convolution is a convolution.** For the kernel, $x'_j = \sum_{(i,a):\,si + da - p = j} y_i\, w_a$ gives $\partial L / \partial w_a = \sum_i y_i\, g_{si + da - p}$: section 4's formula, with the two arguments changing places.


# %%
class Transposed(torch.autograd.Function):
    """`stamp`, with a convolution as its backward pass."""

    @staticmethod
    def forward(ctx, y, w, size, *settings):
        ctx.save_for_backward(y, w)
        ctx.settings = settings
        return stamp(y, w, size, *settings)

    @staticmethod
    def backward(ctx, g):
        y, w = ctx.saved_tensors
        in_w = kernel_gradient(y, g, w, *ctx.settings)
        return convolve(g, w, *ctx.settings), in_w, None, None, None, None


# %%
small_y = random(3, 3, 4).requires_grad_()
for stride, padding, dilation in settings:
    shape = [stride * (n - 1) + dilation * 2 + 1 - 2 * padding for n in (3, 4)]
    arguments = (small_y, small_w, shape, stride, padding, dilation)
    check(f"gradcheck {shape}", torch.autograd.gradcheck(Transposed.apply, arguments), want=True)

# %% [markdown]
# ## 8. Checkerboards
#
# Enlarge a map that is the same everywhere. The picture should be the same everywhere, too. **Predict** the stamps' overlap, for a kernel of ones: $k = 3$, stride 2. Then $k = 4$, stride 2.
#
# By hand, $k = 3$, stride 2, along one axis: stamps begin at 0, 2, 4, ... and are 3 long. So from pixel 2 on the even pixels are covered twice, the odd ones once: $1, 1, 2, 1, 2, 1, \dots$ In two dimensions the products of these: 1, 2 and 4. With $k = 4$ every pixel but the first and last two is covered twice.

# %%
flat = torch.ones(1, 6, 6, dtype=torch.float64)


def overlap(k):
    """How often stamps of k x k, two pixels apart, cover each pixel; without the border."""
    size = 2 * 5 + k
    return stamp(flat, torch.ones(1, 1, k, k).double(), (size, size), stride=2)[0, 3:-3, 3:-3]


check("k = 3: covered", overlap(3).unique(), [1, 2, 4])
check("k = 4: covered", overlap(4).unique(), [4.0])
check("k = 5: covered", overlap(5).unique(), [4, 6, 9])
check("k = 2: covered", overlap(2).unique(), [1.0])

# %% [markdown]
# An even cover where $s$ divides $k$, a **checkerboard** (棋盘效应) where it does not (Odena, Dumoulin and Olah, 2016). A network can learn weights that level it out, but it starts with the pattern, and random weights show it for $k = 4$ as well: the four pixels of each $2 \times 2$ cell are made by four different sets of weights, which nothing ties together.
#
# The mend is to enlarge first, with fixed weights, and convolve afterwards: then every pixel is made by the same weights. Here is the spread within the cells of a flat map's enlargement, for random weights.

# %%
many = random(200, 1, 1, 4, 4)
spreads = []
for w4 in many:
    made = stamp(flat, w4, (14, 14), stride=2)[0, 3:-3, 3:-3]
    spreads.append(made.std() / w4.norm())
level = F.interpolate(flat[None], scale_factor=2, mode="nearest")[0]
resized = [convolve(level, w4[..., :3, :3])[0, 3:-3, 3:-3].std() for w4 in many]
check_at_least("stamps of 4 x 4: mean spread", torch.stack(spreads).mean(), 0.2)
check_at_most("enlarged, then convolved: largest spread", torch.stack(resized).max(), 1e-12)

# %% alt="Three enlargements of a map that is the same everywhere. Stamps of 3 x 3 at stride 2 with weights of one: a checkerboard of 1, 2 and 4. Stamps of 4 x 4 with random weights: a finer pattern that repeats every two pixels. Enlarged and then convolved: one colour."
fig, axes = show.grid(1, 3, "A flat map, made twice as large", width=3.2, height=2.9)
show.numbers(axes[0], overlap(3)[:6, :6], "stamps 3 x 3, weights 1", form=".0f")
made = stamp(flat, many[0], (14, 14), stride=2)[0, 3:-3, 3:-3]
show.numbers(axes[1], made[:6, :6], "stamps 4 x 4, random weights", form=".1f")
mended = convolve(level, many[0][..., :3, :3])[0, 3:9, 3:9]
show.numbers(axes[2], mended, "enlarged, then 3 x 3", form=".1f")
check("patterns of the middle one", len(made.round(decimals=9).unique()), 4)

# %% [markdown]
# The same pattern runs *backwards* through every convolution with stride 2 and $k = 3$: its gradient is the transposed one. Some pixels of the picture hear from four times as many outputs as others.
#
# ## 9. Enlarging with a ruler
#
# What are good fixed weights? Draw a straight line from each pixel to the next: **bilinear** interpolation (双线性插值). Only one thing is to be decided: *where* the pixels are.
#
# A pixel is a square, and its value stands for its middle. So pixel $i$ lies at $i + \frac12$. Enlarge by $f$: the picture's ends stay where they are, and output pixel $i$, at $i + \frac12$, lies at $(i + \frac12)/f$ on the small ruler. Its place in small pixels is
#
# $$u = \frac{i + \frac12}{f} - \frac12.$$
#
# These **half-pixel centres** (半像素中心) are torch's `align_corners=False`. The other convention puts the first and last *middles* on top of each other: $u = i\, \frac{n - 1}{f n - 1}$, `align_corners=True`.
#
# By hand, the row $(0, 4)$ twice as large. Half-pixel: $u = -\frac14, \frac14, \frac34, \frac54$. What lies outside takes the nearest value: $0, 1, 3, 4$. The other way: $u = 0, \frac13, \frac23, 1$ gives $0, \frac43, \frac83, 4$.


# %%
def between(row, u):
    """Values of a row at the places `u`, on straight lines; outside, those of its ends."""
    u = u.clamp(0, len(row) - 1)
    left = u.floor().long().clamp(max=len(row) - 2)
    return row[left] + (u - left) * (row[left + 1] - row[left])


def enlarge_row(row, factor, *, corners=False):
    """A row, `factor` times as long, by one of the two conventions."""
    n, i = len(row), torch.arange(factor * len(row), dtype=row.dtype)
    return between(row, i * (n - 1) / (factor * n - 1) if corners else (i + 0.5) / factor - 0.5)


# %%
two = torch.tensor([0.0, 4]).double()
check("half-pixel centres", enlarge_row(two, 2), [0, 1, 3, 4], tol=1e-12)
check("corners aligned", enlarge_row(two, 2, corners=True), [0, 4 / 3, 8 / 3, 4], tol=1e-12)
for factor, corners in product((2, 3, 8), (False, True)):
    theirs = F.interpolate(
        row[None, None], scale_factor=factor, mode="linear", align_corners=corners
    )
    check(
        f"{factor}, {corners}", enlarge_row(row, factor, corners=corners), theirs[0, 0], tol=1e-12
    )

# %% [markdown]
# ### Bilinear, as stamps
#
# Each small pixel contributes to the outputs around it, less and less with the distance, and nothing from the next small pixel on: it stamps a *tent*. So bilinear enlargement is a transposed convolution with stride $f$ and fixed weights. FCN began its last layers with these (Long et al., 2015, section 3.3). Along one axis the tent has $k = 2f - (f \bmod 2)$ taps:
#
# $$w_a = 1 - \frac{\left| a - \frac{k - 1}{2} \right|}{f}, \qquad a = 0, \dots, k - 1.$$
#
# By hand, $f = 2$: $k = 4$ and $w = (\frac14, \frac34, \frac34, \frac14)$. Each output gets $\frac34$ of its own small pixel and $\frac14$ of the neighbour. In two dimensions, the product of two tents.


# %%
def bilinear_kernel(factor):
    """The tent of a transposed convolution that enlarges `factor` times: (k, k)."""
    k = 2 * factor - factor % 2
    away = (torch.arange(k, dtype=torch.float64) - (k - 1) / 2).abs()
    return torch.outer(1 - away / factor, 1 - away / factor)


check("the tent for 2", bilinear_kernel(2)[1] / 0.75, [0.25, 0.75, 0.75, 0.25], tol=1e-12)

# %%
picture = random(1, 5, 6)
for factor in (2, 3, 4, 8):
    tent = bilinear_kernel(factor)[None, None]
    size = [factor * n for n in picture.shape[-2:]]
    made = stamp(picture, tent, size, factor, padding=(tent.shape[-1] - factor) // 2)
    theirs = F.interpolate(picture[None], scale_factor=factor, mode="bilinear")[0]
    inner = slice(factor // 2, -(factor // 2))
    check(f"{factor} times, inside", made[:, inner, inner], theirs[:, inner, inner], tol=1e-12)
ours = bilinear_upsampling(channels=1, factor=4).weight[0, 0]
check("the kernel in segedu", bilinear_kernel(4), ours.double(), tol=1e-7)

# %% [markdown]
# At the border they differ: `F.interpolate` repeats the border pixel there, and stamps from outside the picture are missing.
#
# ## 10. A fully connected layer is a convolution
#
# A classifier ends in fully connected layers: it *flattens* its last map, $C \times h \times w$, into a vector, and gives each output a weight for every entry. One vector per picture comes out. Now read such a weight vector as $C \times h \times w$ again. It is a kernel, as large as the map, with exactly one place to be.
#
# **Predict:** give that kernel a larger map. What comes out, and what does each number in it mean?

# %%
torch.manual_seed(seed)
head = nn.Linear(4 * 4 * 4, 10).double()  # reads 4 channels of 4 x 4, gives 10 classes
trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)).double()
as_conv = nn.Conv2d(4, 10, kernel_size=4).double()
with torch.no_grad():
    as_conv.weight.copy_(head.weight.view(10, 4, 4, 4))
    as_conv.bias.copy_(head.bias)


# %%
one = random(1, 1, 10, 10)  # the size the classifier was made for
check(
    "one place, the same ten numbers",
    as_conv(trunk(one)).flatten(),
    head(trunk(one).flatten()),
    tol=1e-12,
)
wide = random(1, 1, 16, 22)
scores = as_conv(trunk(wide))[0]
check("a larger picture: a map of scores", scores.shape, [10, 4, 7])

# %% [markdown]
# A map. Entry $(i, j)$ is what the classifier says of the $10 \times 10$ window at row $2i$, column $2j$ (2 is the jump). All 28 windows in one go, and what they share is computed once.

# %%
largest = 0.0
for i, j in product(range(4), range(7)):
    crop = wide[..., 2 * i : 2 * i + 10, 2 * j : 2 * j + 10]
    largest = max(largest, (head(trunk(crop).flatten()) - scores[:, i, j]).abs().max().item())
check("all 28 windows, largest difference", largest, 0.0, tol=1e-12)
once, by_window = 14 * 20, 28 * 8 * 8  # places of the first convolution
check("work of the first layer: window by window, as a multiple", by_window / once, 6.4, tol=1e-9)
pixelwise = nn.Conv2d(4, 10, 1).double()
per_pixel = F.linear(trunk(wide)[0].movedim(0, -1), pixelwise.weight[:, :, 0, 0], pixelwise.bias)
check(
    "1 x 1: a layer at each pixel", pixelwise(trunk(wide))[0].movedim(0, -1), per_pixel, tol=1e-12
)

# %% [markdown]
# This is the step from a classifier to FCN (Long et al., 2015, section 3.1). Where the map is $1 \times 1$ already, the kernel is $1 \times 1$: a fully connected layer at every pixel. [Chapter 09](09_fcn.ipynb) takes a whole network apart this way.
#
# It is exact for windows because the trunk here has no padding. **Predict:** with padding 1 in its convolution, are the windows' answers still those of the map?

# %%
trunk[0].padding = (1, 1)
padded_map, inner_crop = trunk(wide)[0], trunk(wide[..., 2:12, 2:12])[0]
differs = (padded_map[:, 1:6, 1:6] - inner_crop).abs() > 1e-12
check_at_least("with padding: entries that differ", differs.sum(), 1)
check("in the middle of the window: none", differs[:, 1:-1, 1:-1].sum(), 0)
trunk[0].padding = (0, 0)

# %% [markdown]
# Not at the rim: the window sees zeros where the whole picture sees pixels. Nearly every network pads, so "the same as window by window" is nearly true of nearly every network.
#
# ## 11. What goes wrong
#
# ### Half a cell off
#
# A map at stride 32 is enlarged 32 times. A wrong ruler costs little for $f = 2$, and much for $f = 32$. A picture with an edge between columns 127 and 128 is averaged over cells of 32 and made large again, in three ways: half-pixel centres, aligned corners, and "pixel $i$ of the small map belongs to pixel $32 i$".
#
# **Predict** how far the edge moves in each.

# %%
edge = (torch.arange(512) >= 128).double()
cells = F.avg_pool1d(edge[None, None], 32)[0, 0]  # 0 0 0 0 1 1 ...
cells_at = {
    "half-pixel": enlarge_row(cells, 32),
    "corners": enlarge_row(cells, 32, corners=True),
    "32 i": between(cells, torch.arange(512.0) / 32),
}
crossing = {}
for name, values in cells_at.items():
    after = int((values >= 0.5).nonzero().min())
    low, high = values[after - 1].item(), values[after].item()
    crossing[name] = after - 1 + (0.5 - low) / (high - low) + 0.5  # on the ruler with half pixels
check("half-pixel centres: the edge is at", crossing["half-pixel"], 128.0, tol=1e-9)
check("aligned corners", crossing["corners"], 119.7, tol=0.05)
check("32 i", crossing["32 i"], 112.5, tol=1e-9)

# %% alt="The edge of a picture at column 128, its averages over cells of 32, and three enlargements: half-pixel centres cross one half at 128, aligned corners at 120, the third at 112.5."
fig, [ax] = show.grid(1, 1, width=7, height=3)
ax.step(torch.arange(512) + 0.5, edge, where="mid", color="0.6", label="the picture")
for (name, values), c in zip(cells_at.items(), (6, 1, 7), strict=True):
    ax.plot(
        torch.arange(len(values)) + 0.5,
        values,
        color=colours[c],
        label=f"{name}: {crossing[name]:.1f}",
    )
ax.plot(torch.arange(16) * 32 + 16, cells, "o", color="black", label="cells, at their middles")
ax.set(title="A stride of 32 forgives no wrong ruler", xlim=(40, 230), xlabel="column")
ax.legend(loc="lower right")
wrong_rulers = crossing["corners"], crossing["32 i"]
check_at_least("the wrong rulers are off by", [128 - c for c in wrong_rulers], 8)

# %% [markdown]
# The last one is off by 15.5 pixels, half a cell but half a pixel. Aligned corners are off by over eight here; they are right in the middle of the picture only, and worst at its ends. No error message, and a mean IoU that is a little low. Both conventions are fine if *everything* uses the same one; weights that were trained with one lose by the other.
#
# ### Dilation without a plan: gridding
#
# Three layers with dilation 2 reach 13 pixels. **Predict** how many of the 13 they see.

# %%
holes = paths([(3, 1, 2)] * 3, 13)[0]
check("seen of 13", (holes > 0).sum(), 7)
check("they are", holes.nonzero()[:, 0], [0, 2, 4, 6, 8, 10, 12])
whole = paths([(3, 1, d) for d in (1, 2, 4)], 15)[0]
check("dilations 1, 2, 4: seen of 15", (whole > 0).sum(), 15)
gaps = paths([(3, 1, d) for d in (2, 4, 8)], 29)[0]
check("dilations 2, 4, 8: seen of 29", (gaps > 0).sum(), 15)

# %% alt="Four rows of dots. From the middle dot of the top row lines lead down in steps of two; in the input only every second of thirteen pixels is reached."
fig = widgets.plot_receptive_field([Layer(3, dilation=2)] * 3)

# %% [markdown]
# Every second one. Two neighbours in the output have no input pixel in common: they are two networks side by side, and their answers need not fit together. That is **gridding** (网格效应). No hole is left as long as each dilation is at most the width of the field below it: first 1, then up to 3, and so on. 1, 2, 4 and 1, 2, 5 are such plans (Wang et al., 2018). [Chapter 12](12_context.ipynb) builds on dilation.
#
# ## 12. In the article
#
# > **In the article, 3.1: pooling.** It is said to sample down, to *lower the number of parameters* and to make the model more robust. The first is right. The second is not: pooling has no parameters, and section 5 counted the same 808 with and without. What it lowers is resolution, memory and work.
# >
# > There is one place where it looks true. A *fully connected* layer behind the map has a weight for each of its entries, so it has four times fewer after a pooling by 2. That was so in classifiers like VGG-16, where the first such layer holds three quarters of all weights. A segmentation network has none.

# %%
for size in (14, 7):
    print(f"512 maps of {size} x {size} into 4096: {512 * size * size * 4096:,} weights")
check("without the last pooling, as a multiple", (14 * 14) / (7 * 7), 4.0)
convolutions = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), *[(256, 256)] * 2]
convolutions += [(256, 512), *[(512, 512)] * 5]
conv_weights = sum(9 * c * o + o for c, o in convolutions)
dense = [7 * 7 * 512 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 1000 + 1000]
check("weights of VGG-16", conv_weights + sum(dense), 138357544)
check(
    "share of the first fully connected layer",
    dense[0] / (conv_weights + sum(dense)),
    0.74,
    tol=5e-3,
)

# %% [markdown]
# > And the third? A maximum over $2 \times 2$ forgives *some* shifts by one pixel and not others. Shift the picture by one and look how many of the pooled values stay.

# %%
texture = random(1, 64, 64)
pooled_before, pooled_after = (F.max_pool2d(t, 2) for t in (texture, texture.roll(1, dims=2)))
stay = (pooled_before == pooled_after).double().mean()
check("pooled values that a shift by one leaves alone", stay, 1 / 3, tol=0.06)
after_two = F.max_pool2d(texture.roll(2, dims=2), 2)
check("a shift by two moves all of them on by one", after_two, pooled_before.roll(1, dims=2))

# %% [markdown]
# > A third of them, on a picture of noise: of the six pixels in the window's old and new place, the largest has to stand among the two that both share. Smooth pictures fare better. It is a little robustness, bought with resolution (Zhang, 2019, measures how little).
#
# > **In the article, 3.1: fully connected layers.** A convolutional network is said to take features out by convolution and then to "classify them by fully connected layers", which give "each pixel's label or boundary". As it stands this cannot be. A fully connected layer takes one size of picture only, and it *has no idea of place*: shuffle the pixels of all pictures in the same way, shuffle its weights with them, and nothing changes. Neighbours mean nothing to it.

# %%
shuffle = torch.randperm(64, generator=generator)
features = trunk(one).flatten()
shuffled = nn.Linear(64, 10).double()
shuffled.load_state_dict({"weight": head.weight[:, shuffle], "bias": head.bias})
check(
    "a fully connected layer, all shuffled alike",
    shuffled(features[shuffle]),
    head(features),
    tol=1e-12,
)

# %%
try:
    head(trunk(wide).flatten())
    raised = "nothing"
except RuntimeError as error:
    raised = type(error).__name__
    print(error)
check("a larger picture raises", raised, "RuntimeError")
check("read as a convolution: scores at", list(as_conv(trunk(wide)).shape[-2:]), [4, 7])

# %% [markdown]
# What turned classifiers into segmenters was to *drop* that layer's flattening: read it as a convolution, as in section 10, and each place gets its own scores.
#
# ## 13. Three quick questions
#
# **1.** A layer with $k = 5$ and stride 1 should keep the size. Which padding? And with dilation 3?
#
# <details><summary>Answer</summary>
#
# $n + 2p - d(k-1) = n$ asks for $p = d (k - 1) / 2$: 2, and 6. An even $k$ has no such padding, unless the two ends get different ones.
#
# </details>
#
# **2.** You replace one $5 \times 5$ convolution by two of $3 \times 3$ (all with $C$ channels in and out). What happens to the receptive field and to the number of weights?
#
# <details><summary>Answer</summary>
#
# The field stays 5 wide. The weights go from $25\,C^2$ to $18\,C^2$, and there is room for a ReLU in between.
#
# </details>
#
# **3.** A transposed convolution with $k = 2$, stride 2 has no overlap at all. Can it make a checkerboard?
#
# <details><summary>Answer</summary>
#
# Yes. Each pixel of a $2 \times 2$ cell comes from a weight of its own. Equal weights give flat cells, unequal ones give a pattern with period 2.
#
# </details>

# %%
check("1: padding 2", places(32, 5, padding=2), 32)
check("1: with dilation 3, padding 6", places(32, 5, padding=6, dilation=3), 32)
check("2: the field", field_by_formula([(3, 1, 1)] * 2)[0], field_by_formula([(5, 1, 1)])[0])
cell = stamp(flat, torch.tensor([[[[1.0, 2], [3, 4]]]]).double(), (12, 12), stride=2)
check("3: values in a flat map's enlargement", len(cell.unique()), 4)

# %% [markdown]
# ## 14. Exercises
#
# ### Exercise 1: how long is the output?
#
# Write the formula of section 3, without looking. Test it in your head on $n = 8$, $k = 3$, $s = 2$, $p = 1$, $d = 1$: 4.


# %% tags=["exercise"]
def output_length(n, kernel, stride, padding, dilation):
    """How many places a kernel has along an axis of `n` pixels."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=places,
    inputs=[(8, 3, 1, 0, 1), (8, 3, 2, 1, 1), (9, 3, 1, 2, 2), (97, 7, 2, 3, 1), (10, 2, 3, 0, 3)],
    misconceptions={
        "the kernel's span is d (k - 1) + 1, not k: dilation is missing": lambda n, k, s, p, _: (
            (n + 2 * p - k) // s + 1
        ),
        "padding is added at both ends": lambda n, k, s, p, d: (n + p - d * (k - 1) - 1) // s + 1,
        "rounded up: the last place would hang over the end": lambda n, k, s, p, d: (
            -(-(n + 2 * p - d * (k - 1) - 1) // s) + 1
        ),
        "those are the steps; there is one place more than steps": lambda n, k, s, p, d: (
            (n + 2 * p - d * (k - 1) - 1) // s
        ),
    },
)
exercise.check(output_length)


# %% tags=["solution"]
def output_length(n, kernel, stride, padding, dilation):
    """Room beyond the first place, in whole strides, and the first place itself."""
    room = n + 2 * padding - (dilation * (kernel - 1) + 1)
    return room // stride + 1


exercise.check(output_length)

# %% [markdown]
# ### Exercise 2: the gradient in the kernel
#
# One axis, stride 1, no padding: $y_i = \sum_a w_a x_{i+a}$. Given $x$ and $g = \partial L / \partial y$, write $\partial L / \partial w$. How many taps must the kernel have had?


# %% tags=["exercise"]
def gradient_in_kernel(x, g):
    """Gradient of the loss in each tap, given the input (n,) and the gradient (o,) in the output."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_autograd(x, g):
    """torch's answer."""
    taps = torch.zeros(len(x) - len(g) + 1, dtype=x.dtype, requires_grad=True)
    y = F.conv1d(x[None, None], taps[None, None])[0, 0]
    return torch.autograd.grad((y * g).sum(), taps)[0]


numbers = torch.Generator().manual_seed(1)
exercise = Exercise(
    solution=by_autograd,
    inputs=[
        (torch.tensor([3.0, 1, 4, 1, 5]), torch.tensor([1.0, 1, 1])),
        (torch.tensor([3.0, 1, 4, 1, 5]), torch.tensor([1.0, 0, 0, 2])),
        (torch.randn(9, generator=numbers), torch.randn(6, generator=numbers)),
    ],
    misconceptions={
        "the taps come in reverse order": lambda x, g: by_autograd(x, g).flip(0),
        "g was read backwards; no kernel is turned here": lambda x, g: by_autograd(x, g.flip(0)),
        "a weight's places are summed, not averaged": lambda x, g: by_autograd(x, g) / len(g),
        "that has one entry for each input: it is the gradient of another sum": lambda x, g: (
            F.conv1d(x[None, None], g[None, None], padding=len(g) // 2)[0, 0]
        ),
    },
    tolerance=1e-5,
)
exercise.check(gradient_in_kernel)


# %% tags=["solution"]
def gradient_in_kernel(x, g):
    """Slide g over x: tap a lay on x[i + a] when output i was made."""
    taps = len(x) - len(g) + 1
    return torch.stack([(g * x[a : a + len(g)]).sum() for a in range(taps)])


exercise.check(gradient_in_kernel)

# %% [markdown]
# ### Exercise 3: how deep must it be?
#
# A small experiment. How many layers of $3 \times 3$, stride 1, does it take until a pixel sees at least `width` columns, if the dilation of layer $n = 0, 1, 2, \dots$ is $b^n$ with the base $b$ = `growth`? **Predict** first, for 96 columns: $b = 1$ and $b = 2$.


# %% tags=["exercise"]
def layers_needed(width, growth):
    """Fewest layers of three taps, with dilations 1, growth, growth^2, ..., that see `width`."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def count_until(width, grow):
    """Layers until `grow(r, n)`, applied for n = 0, 1, ... from r = 1, has reached the width."""
    r, n = 1, 0
    while r < width:
        r, n = grow(r, n), n + 1
    return n


exercise = Exercise(
    solution=lambda width, growth: count_until(width, lambda r, n: r + 2 * growth**n),
    inputs=[(1, 1), (3, 2), (7, 2), (8, 2), (41, 1), (96, 2), (96, 3)],
    misconceptions={
        "a field is added to, not multiplied by three": lambda width, _: count_until(
            width, lambda r, _: 3 * r
        ),
        "a layer reaches to both sides: d (k - 1) is 2 d": lambda width, growth: count_until(
            width, lambda r, n: r + growth**n
        ),
        "the first layer has dilation 1": lambda width, growth: count_until(
            width, lambda r, n: r + 2 * growth ** (n + 1)
        ),
        "the dilations do not grow here": lambda width, _: count_until(width, lambda r, _: r + 2),
    },
)
exercise.check(layers_needed)


# %% tags=["solution"]
def layers_needed(width, growth):
    """Add d (k - 1) = 2 growth^n, layer by layer."""
    r, n = 1, 0
    while r < width:
        r += 2 * growth**n
        n += 1
    return n


for growth, layers in ((1, 48), (2, 6), (3, 5)):
    check(f"layers for 96 columns, growing by {growth}", layers_needed(96, growth), layers)
exercise.check(layers_needed)

# %% [markdown]
# 48 layers without dilation, 6 with doubling, 5 with tripling: the reach grows exponentially at no cost in resolution. (Tripling is the most that leaves no hole. Why?)
#
# ## Summary
#
# Symbols: input $x$ of length $n$, output $y$ of length $o$, kernel $w$ of $k$ taps, stride $s$, padding $p$, dilation $d$; $g = \partial L / \partial y$; matrix $M$; field $r$, jump $j$; enlargement $f$.
#
# $$
# \begin{aligned}
# y_i &= \sum_a w_a\, x_{si + da - p}, \quad y = Mx && \text{convolution} \\
# o &= \left\lfloor \frac{n + 2p - d(k-1) - 1}{s} \right\rfloor + 1 && \text{its length} \\
# \nabla_x L &= M^{\mathsf T} g, \quad \frac{\partial L}{\partial w_a} = \sum_i g_i\, x_{si + da - p} && \text{its gradients} \\
# r &\leftarrow r + d (k-1) j, \quad j \leftarrow j s && \text{receptive field, jump} \\
# x' &= M^{\mathsf T} y, \quad o = s(n-1) + d(k-1) + 1 - 2p && \text{transposed convolution} \\
# u &= \tfrac{i + 1/2}{f} - \tfrac12 && \text{where output } i \text{ lies, half-pixel centres}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. A convolution is a matrix with few, shared weights; forward $M$, back $M^{\mathsf T}$, and a transposed convolution swaps the two.
# 2. Sizes have a floor, fields add, jumps multiply. Pooling has no weights.
# 3. Enlarge with half-pixel centres, and with one convention from end to end.
#
# **To read**
#
# - V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016, https://arxiv.org/abs/1603.07285: every size with a picture; section 4 on the matrix and its transpose.
# - J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015: section 3.1 (fully connected layers as convolutions), 3.3 (upsampling).
# - A. Odena, V. Dumoulin, C. Olah, "Deconvolution and Checkerboard Artifacts", *Distill*, 2016, https://distill.pub/2016/deconv-checkerboard/.
# - W. Luo, Y. Li, R. Urtasun, R. Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NIPS 2016.
# - P. Wang et al., "Understanding Convolution for Semantic Segmentation", WACV 2018: gridding.
# - K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015: VGG-16; section 2.3 on two 3 x 3 for one 5 x 5.
# - R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019.
#
# **Next.** The network gives numbers for every pixel. [Chapter 06](06_cross_entropy.ipynb) asks what it should be told about them.

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # What do attention models change?
#
# A convolution asks the same eight neighbours, whatever is in the picture, and it weighs them with numbers that were fixed when training ended. [Chapter 12](12_context.ipynb) stretched that neighbourhood. **Attention** (注意力) drops it: every pixel asks *all* pixels, and how much it listens to each is computed from what the two of them look like. This chapter takes attention apart on four pixels, shows what it can do that a convolution cannot and what it cannot do at all without help,
# counts what it costs, and puts SegFormer-B0 together from parts until it takes the weights of the Transformers library and gives its outputs. Then that library itself: the article's listing does not run, and we mend it line by line.
#
# **You will be able to**
#
# - compute attention and its gradient by hand, and say what the $\sqrt d$ is for;
# - prove that attention alone does not know where a pixel lies, and name where SegFormer gets that from;
# - count the multiplications and the memory of attention, and what shortening saves;
# - build SegFormer-B0 from its five parts and load a library's weights into it;
# - use Transformers for segmentation without falling into its usual traps.
#
# *50 minutes. Before: [convolution arithmetic](05_convolution_arithmetic.ipynb), [cross-entropy](06_cross_entropy.ipynb) for the softmax, [context](12_context.ipynb) for reach. On paper: the product rule for matrices.*

# %% tags=["parameters"]
seed = 0
device = "auto"
image_size = 48  # height and width of a scene, a multiple of 16
train_scenes = 128
test_scenes = 48
epochs = 6
runs = 3  # seeds of the experiment
learning_rate = 0.003  # for all networks alike
least_gain = 0.02  # mean IoU by which the U-Net leads, mean over the runs
least_added = 0.01  # mean IoU that attention adds, mean over the runs
least_near = 0.5  # share of SegFormer's influence that is in the middle ninth of the picture
least_spread = 0.1  # by which it is less than without attention
field_size = 128  # of the pictures on which influence is measured
picture_size = 128  # height and width of what goes through SegFormer-B0
pets_count = 96  # photographs of section 12

# %%
import math
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# %% [markdown]
# The Transformers library asks the network for files when it thinks it needs them. Nothing in this chapter does. The variable below, set *before* the import, makes sure of it: whatever would go out fails at once, with a message.

# %%
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import transformers
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

transformers.utils.logging.disable_progress_bar()

# %%
from segedu import show
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.device import pick_device
from segedu.exercises import Exercise
from segedu.losses import cross_entropy_loss
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models import segformer
from segedu.models.layers import Normalize, enlarged
from segedu.models.segformer import B0, Stage
from segedu.models.unet import UNet
from segedu.palette import class_colours

# %%
_ = torch.manual_seed(seed)  # weights and maps below are drawn at random, but alike each time
colours = class_colours(8) / 255

# %% [markdown]
# ## 1. Four pixels ask each other
#
# Each of $N$ pixels makes three vectors from its features. Its **query** (查询) $q_i$ says what it looks for. Its **key** (键) $k_j$ says what it is. Its **value** (值) $v_j$ says what it has to tell. Query and key have the same length $d$. Pixel $i$ scores every pixel $j$, turns its scores into weights that sum to 1, and takes the weighted mean of the values:
#
# $$s_{ij} = \frac{q_i \cdot k_j}{\sqrt d}, \qquad a_{ij} = \frac{e^{s_{ij}}}{\sum_{l} e^{s_{il}}}, \qquad o_i = \sum_j a_{ij}\, v_j .$$
#
# With one pixel a row, $Q$ and $K$ of shape $(N, d)$, $V$ of shape $(N, d_v)$, where $d_v$ is the length of a value:
#
# $$O = A V, \qquad A = \operatorname{softmax}\big(S\big), \qquad S = QK^\top / \sqrt d,$$
#
# the softmax taken **along each row**: over those who are asked. (Vaswani et al. 2017, section 3.2.1, equation 1.)
#
# By hand: four pixels, $d = d_v = 1$, keys and values as in the table. Pixel 1 asks with $q = \ln 2$.
#
# | pixel | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|
# | key $k_j$ | 2 | 1 | 0 | 0 |
# | score $q\,k_j$ | $2 \ln 2$ | $\ln 2$ | 0 | 0 |
# | $e^{\text{score}}$ | 4 | 2 | 1 | 1 |
# | weight $a_j$ | 1/2 | 1/4 | 1/8 | 1/8 |
# | value $v_j$ | 8 | 4 | 0 | 0 |
#
# Its answer is $8/2 + 4/4 = 5$. **Predict:** what does a pixel hear that asks with $q = 0$? And one with $q = -\ln 2$?


# %%
def attention_weights(q, k):
    """A: how much each query (..., N, d) listens to each key (..., M, d)."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.softmax(dim=-1)


def attention(q, k, v):
    """What each query hears: (..., N, d_v)."""
    return attention_weights(q, k) @ v


# %%
keys = torch.tensor([[2.0], [1], [0], [0]], dtype=torch.float64)
values = torch.tensor([[8.0], [4], [0], [0]], dtype=torch.float64)
asks = math.log(2) * torch.tensor([[1.0], [0], [-1]], dtype=torch.float64)
check("weights of q = ln 2", attention_weights(asks, keys)[0], [1 / 2, 1 / 4, 1 / 8, 1 / 8], tol=1e-12)  # fmt: skip
heard = attention(asks, keys, values)[:, 0]
check("heard with ln 2, 0 and -ln 2", heard, [5, 3, 16 / 11], tol=1e-12)
check("the mean of all values", values.mean(), 3.0)

# %% [markdown]
# A query of 0 does not care who is who: it hears the plain mean. The opposite question prefers the opposite pixels, and never leaves anyone out: $e^s$ is positive.
#
# Notice what was *not* fixed beforehand. In a convolution the four weights would be numbers of the layer. Here they came out of the picture.
#
# torch has it as `scaled_dot_product_attention`, which gives the same numbers without ever keeping the whole of $A$ in memory.

# %%
q, k, v = (torch.randn(2, 4, 50, 8) for _ in range(3))  # two pictures, four heads, 50 pixels
check("attention", attention(q, k, v), F.scaled_dot_product_attention(q, k, v), tol=1e-5)
check("each row's weights sum to", attention_weights(q, k).sum(-1), 1.0, tol=1e-5)

# %% [markdown]
# ## 2. Why the square root of d
#
# Let the entries of $q$ and $k$ be independent, with mean 0 and variance 1, as they are after a normalisation. Then $q \cdot k = \sum_{n=1}^{d} q_n k_n$ has
#
# $$\mathbb{E}[q_n k_n] = \mathbb{E}[q_n]\,\mathbb{E}[k_n] = 0, \qquad \operatorname{Var}[q_n k_n] = \mathbb{E}[q_n^2]\,\mathbb{E}[k_n^2] = 1, \qquad \operatorname{Var}[q \cdot k] = d .$$
#
# Variances of independent terms add. So scores spread like $\sqrt d$: with $d = 256$ a typical score is 16, and $e^{16}$ is nine million. Dividing by $\sqrt d$ makes the variance 1 whatever $d$ is.
#
# Why does it matter? The slope of a softmax is $\partial a_j / \partial s_j = a_j (1 - a_j)$. If one weight is nearly 1 and the others nearly 0, **all** slopes are nearly 0, and the query and key do not learn. **Predict:** 64 keys, $d = 256$: how large is the largest weight, with and without the root?

# %%
length = [4, 16, 64, 256]
largest, slopes = [], []
for d in length:
    q, k = torch.randn(1000, 1, d), torch.randn(1000, 64, d)
    raw = (q @ k.mT)[:, 0]  # (1000, 64)
    check(f"variance of the scores over d, d = {d}", raw.var() / d, 1.0, tol=0.1)
    a = torch.stack([raw.softmax(-1), (raw / math.sqrt(d)).softmax(-1)])
    largest.append(a.amax(-1).mean(1))
    slopes.append((a * (1 - a)).sum(-1).mean(1))
largest, slopes = torch.stack(largest), torch.stack(slopes)

# %%
check_at_least("d = 256, without the root: mean of the largest weight", largest[-1, 0], 0.75)
check_at_most("with it", largest[-1, 1], 0.2)
check_at_most("sum of the slopes without the root", slopes[-1, 0], 0.3)
check_at_least("with it", slopes[-1, 1], 0.9)

# %% alt="Two panels against d from 4 to 256. Left, the largest of 64 weights: without the root it climbs from about a quarter to nine tenths, with the root it stays near one eighth. Right, the sum of slopes: without the root it falls from about 0.85 to about 0.15, with the root it stays above 0.9."
fig, axes = show.grid(1, 2, "Without the root, one key takes all and learning stops", width=3.6, height=2.8)  # fmt: skip
for ax, what, title in zip(axes, (largest, slopes), ("largest of 64 weights", "sum of the slopes"), strict=True):  # fmt: skip
    for column, (name, colour) in enumerate((("without the root", 7), ("with it", 6))):
        ax.semilogx(length, what[:, column], "o-", base=2, color=colours[colour], label=name)
    ax.set(title=title, xlabel="d", ylim=(0, 1.05))
_ = axes[1].legend(loc="lower left")

# %% [markdown]
# ## 3. The gradient
#
# Let $L$ be a loss and $\bar O = \partial L / \partial O$ what comes back from the layers above; a bar over a letter is the loss's gradient for that letter. Go backwards, one product at a time.
#
# 1. $O = AV$. So $\bar V = A^\top \bar O$ and $\bar A = \bar O V^\top$.
# 2. Each row of $A$ is a softmax, whose derivative is $\partial a_j / \partial s_l = a_j ([j = l] - a_l)$ ([chapter 06](06_cross_entropy.ipynb)). Hence
#
# $$\bar s_{il} = \sum_j \bar a_{ij}\, a_{ij} \big([j = l] - a_{il}\big) = a_{il} \Big( \bar a_{il} - \sum_j \bar a_{ij}\, a_{ij} \Big).$$
#
# 3. $S = QK^\top/\sqrt d$. So $\bar Q = \bar S K / \sqrt d$ and $\bar K = \bar S^\top Q / \sqrt d$.
#
# Read step 2: descent makes a weight grow if the gradient it brings, $\bar a_{il}$, is less than the mean of all. **The rows of $\bar S$ sum to 0**: attention can only be moved from one to another.


# %%
class ByHand(torch.autograd.Function):
    """Attention with the gradient that we derived."""

    @staticmethod
    def forward(ctx, q, k, v):
        a = attention_weights(q, k)
        ctx.save_for_backward(q, k, v, a)
        return a @ v

    @staticmethod
    def backward(ctx, o_bar):
        q, k, v, a = ctx.saved_tensors
        a_bar = o_bar @ v.mT
        s_bar = a * (a_bar - (a * a_bar).sum(-1, keepdim=True)) / math.sqrt(q.shape[-1])
        return s_bar @ k, s_bar.mT @ q, a.mT @ o_bar


# %%
inputs = [torch.randn(3, n, d, dtype=torch.float64, requires_grad=True)
          for n, d in ((4, 2), (5, 2), (5, 3))]  # fmt: skip
check("by finite differences", torch.autograd.gradcheck(ByHand.apply, inputs), want=True)
o_bar = torch.randn(3, 4, 3, dtype=torch.float64)
ours = torch.autograd.grad(ByHand.apply(*inputs), inputs, o_bar)
theirs = torch.autograd.grad(F.scaled_dot_product_attention(*inputs), inputs, o_bar)
for name, one, other in zip("QKV", ours, theirs, strict=True):
    check(f"gradient for {name}, ours and torch's", one, other, tol=1e-12)

# %% [markdown]
# ## 4. Several heads
#
# One set of weights is one question. A **head** (注意力头) is one such set; several heads share out the channels, ask each their own question, and a last matrix joins the answers. In **self-attention** (自注意力) all three come from the same features $X$ of shape $(N, C)$, with $C$ channels: $Q = X W_Q$, $K = X W_K$, $V = X W_V$. (Vaswani et al. 2017, section 3.2.2.) Cutting the channels into heads costs no multiplication more: $d$ is $C$ over the number of heads.


# %%
def heard_by_heads(x, query, key, value, heads):
    """Self-attention of tokens (B, N, C) with several heads, before they are joined."""
    q, k, v = (
        layer(x).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, N, C / heads)
        for layer in (query, key, value)
    )
    return attention(q, k, v).transpose(1, 2).flatten(2)


def linear(weight, bias):
    """A linear map of given numbers."""
    return lambda x: x @ weight.T + bias


# %%
library = nn.MultiheadAttention(12, num_heads=3, batch_first=True)
weights = library.in_proj_weight.chunk(3)  # torch keeps the three matrices in one
biases = (library.in_proj_bias + torch.randn(36)).chunk(3)
library.in_proj_bias.data = torch.cat(biases).detach()
x = torch.randn(2, 20, 12)
layers = [linear(w, b) for w, b in zip(weights, biases, strict=True)]
check("three heads, ours and torch's", library.out_proj(heard_by_heads(x, *layers, heads=3)),
      library(x, x, x)[0], tol=1e-5)  # fmt: skip

# %% [markdown]
# ## 5. What attention can that a convolution cannot, and the reverse
#
# ### Find your like, wherever it is
#
# Give each pixel of a map one of four colours at random, and a number. The task: *report the mean number of all pixels of your own colour.* With the colour, as a vector of one 1 and three 0, for query and key, and enough emphasis, one attention does it exactly. No $3 \times 3$ convolution can: it does not see that far, and its weights do not depend on the colour it meets.

# %%
colour = torch.randint(4, (100,))
number = torch.randn(100, 1)
one_hot = F.one_hot(colour, 4).float()
heard = attention(9 * one_hot, 9 * one_hot, number)[:, 0]  # score 81 / 2 for one's own colour
wanted = torch.stack([number[colour == c].mean() for c in colour])
check("mean number of one's own colour", heard, wanted, tol=1e-5)

# %% [markdown]
# ### Who is on my left?
#
# Now the reverse: *copy the pixel on your left.* A convolution with a single 1 in its kernel does it. **Predict:** can attention?
#
# Let $P$ be a **permutation** (置换): a matrix that puts the rows of $X$ into another order. Then $Q$, $K$, $V$ become $PQ$, $PK$, $PV$, and
#
# $$\operatorname{softmax}\Big(\frac{PQ\,K^\top P^\top}{\sqrt d}\Big)\, P V = P A P^\top P V = P\, (A V),$$
#
# because the softmax goes along rows and does not mind in which order they, or the entries in them, stand; and $P^\top P = 1$. **Shuffle the pixels, and the answers are the same, shuffled.** Attention is *equivariant* to permutations: it sees a bag of pixels. It has no left.

# %%
scene = Scenes(1, size=64, seed=seed, difficulty=0.2)[0]["image"].as_subclass(torch.Tensor)
small = F.avg_pool2d(scene, 4)  # (3, 16, 16)
ask, tell, say = (nn.Linear(3, 8).requires_grad_(requires_grad=False) for _ in range(3))
convolution = nn.Conv2d(3, 8, 3, padding=1).requires_grad_(requires_grad=False)


def attend(x):
    """Attention over the pixels of a map (C, H, W), with random matrices."""
    tokens = x.flatten(1).T
    return attention(8 * ask(tokens), tell(tokens), say(tokens)).T.unflatten(1, x.shape[1:])


# %%
order = torch.randperm(256)
shuffled = small.flatten(1)[:, order].view(3, 16, 16)
back = order.argsort()
panels = []
for name, layer in (("attention", attend), ("convolution", lambda x: convolution(x[None])[0])):
    plain, put_back = layer(small), layer(shuffled).flatten(1)[:, back].view(8, 16, 16)
    panels += [(f"{name}: picture", plain[0]), (f"{name}: shuffled, put back", put_back[0])]
    off = (plain - put_back).abs().max()
    if name == "attention":
        check("attention: largest change by shuffling", off, 0.0, tol=1e-5)
    else:
        check_at_least("convolution: largest change by shuffling", off, 0.1)

# %% alt="A small scene, the same with its pixels shuffled, and the answers of attention and of a convolution for the picture and for the shuffled one with the answers put back in order. Attention's two answers are alike; the convolution's answer for the shuffled picture is noise in which the scene is hard to find."
fig, axes = show.grid(2, 3, "Attention does not notice that the pixels were shuffled", width=2.5)
show.image(axes[0, 0], small, "picture")
show.image(axes[1, 0], shuffled, "shuffled")
for ax, (title, answer) in zip(axes[:, 1:].ravel(), panels, strict=True):
    ax.imshow(answer, cmap="cividis")
    ax.set(title=title, xticks=[], yticks=[])
    ax.title.set_fontsize(9)

# %% [markdown]
# The other difference is one of form. A convolution is linear in the picture; attention is not, since the picture is in its weights as well.

# %%
a, b = torch.randn(2, 3, 16, 16)
bias = convolution.bias[:, None, None]
linear_off = (convolution(a + b) - convolution(a) - convolution(b) + bias).abs().max()
check("convolution of a sum, less the sum of convolutions", linear_off, 0.0, tol=1e-5)
attend_bias = attend(torch.zeros(3, 16, 16))
check_at_least("the same of attention", (attend(a + b) - attend(a) - attend(b) + attend_bias).abs().max(), 0.01)  # fmt: skip

# %% [markdown]
# ## 6. Where am I? A rim of zeros
#
# So transformers need to be told where a pixel lies. The Vision Transformer *adds* a learned vector for each place to the features (Dosovitskiy et al. 2021, section 3.1). That table belongs to one picture size, and must be stretched for another. SegFormer has no table. It puts a $3 \times 3$ convolution, channel by channel (**depthwise**, 逐通道卷积), into the network behind the attention: **Mix-FFN** (Xie et al. 2021, section 3.1, equation 3). With $\operatorname{dw}$ for that convolution, and $W_1$, $W_2$ that widen to four times the channels and narrow again:
#
# $$\text{Mix-FFN}(x) = W_2\, \operatorname{gelu}\big(\operatorname{dw}(W_1 x)\big), \qquad \operatorname{gelu}(t) = t\, \Phi(t),$$
#
# $\Phi$ being the distribution function of the normal distribution: a ReLU with a soft corner. The convolution knows left from right. And it is padded with zeros, which says something about *where in the picture* a pixel lies (Islam et al. 2020 showed that convolutional networks use this).


# %%
def as_tokens(maps):
    """A map (B, C, H, W) as a list of its places, row by row: (B, H W, C)."""
    return maps.flatten(2).transpose(1, 2)


def as_map(tokens, height, width):
    """The reverse."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


# %%
class MixFFN(nn.Module):
    """Widen, look at the neighbours, narrow."""

    def __init__(self, channels):
        super().__init__()
        wide = 4 * channels
        self.widen = nn.Linear(channels, wide)
        self.neighbours = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.narrow = nn.Linear(wide, channels)

    def forward(self, x, height, width):
        wide = as_map(self.widen(x), height, width)
        return self.narrow(F.gelu(as_tokens(self.neighbours(wide))))


# %% [markdown]
# **Predict:** a picture of one colour, $13 \times 13$. Which pixels can tell that they are not all in the same place, after one Mix-FFN? After two, four? And if the padding repeats the picture, as on a torus, instead of adding zeros?


# %%
def through(steps, padding):
    """What becomes of a map of one colour: (13, 13), distance from the middle's features."""
    torch.manual_seed(seed)
    x = torch.ones(1, 169, 16).double() * torch.randn(16)
    for _ in range(steps):
        mix = MixFFN(16).double()
        wide = mix.neighbours.in_channels
        mix.neighbours = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, padding_mode=padding).double()  # fmt: skip
        x = x + mix(x, 13, 13)
        x = F.layer_norm(x, (16,))
    return (x - x[:, [84]]).norm(dim=-1)[0].detach().view(13, 13)


# %% alt="Three maps of how far each pixel's features are from those of the middle pixel, on a logarithmic scale. After one step a rim of one pixel differs, after two a rim of two, after four a rim of four, fainter from ring to ring; the inside is dark."
fig, axes = show.grid(
    1, 3, "One colour everywhere: who differs from the middle? (logarithm)", width=2.6
)
for ax, steps in zip(axes, (1, 2, 4), strict=True):
    apart = through(steps, "zeros")
    show.heat(ax, apart.clamp(min=1e-9).log10(), f"after {steps} Mix-FFN", low=-9, high=0)
    inner = apart[steps:-steps, steps:-steps]
    check(f"within the rim of {steps}: difference", inner, 0.0, tol=1e-9)
    ring = apart[steps - 1 : 14 - steps, steps - 1 : 14 - steps].clone()
    ring[1:-1, 1:-1] = torch.inf
    check_at_least("on its innermost ring", ring.min(), 1e-7)
    check("on a torus, everywhere", through(steps, "circular"), 0.0, tol=1e-9)

# %% [markdown]
# The rim walks inwards by one pixel a layer. A network with eight blocks and maps down to a 32nd of the picture has reached its middle long before the end. And within the rim, the convolution still knows who is on the left of whom, which is what an outline needs. The paper trains with this at one size and tests at another without stretching any table.
#
# ## 7. What it costs, and SegFormer's way out
#
# Count multiplications (each with its addition, MACs) on a map of $N$ pixels with $C$ channels. The four matrices, for query, key, value and joining, take $NC^2$ each. Scores and answers take $N^2 C$ each:
#
# $$\text{full attention: } 4NC^2 + 2N^2C, \qquad \text{a } 3 \times 3 \text{ convolution: } 9NC^2 .$$
#
# $N^2$: **twice the height and width, sixteen times the work.** SegFormer therefore lets every pixel ask, but only a *smaller picture* answer: keys and values come from the map shrunk by a factor $R$ in height and width, by a convolution with kernel and stride $R$. Pyramid Vision Transformer had brought this up (Wang et al. 2021, "spatial-reduction attention"). $N$ questions to $N/R^2$ pixels:
#
# $$\text{shortened: } \underbrace{2NC^2}_{\text{query, join}} + \underbrace{2 \tfrac{N}{R^2} C^2}_{\text{key, value}} + \underbrace{NC^2}_{\text{shrinking}} + \underbrace{2 \tfrac{N^2}{R^2} C}_{\text{scores, answers}} .$$
#
# The paper writes $R$ for the ratio of the sequences' lengths, 64, 16, 4 and 1, and a reshape with a matrix in its equation 2. The programs have 8, 4, 2, 1, and a convolution. It is the same: a convolution whose kernel is its stride *is* a matrix on blocks.


# %%
class Attention(nn.Module):
    """Each token asks all tokens of a picture shrunk by `shorten` in height and width."""

    def __init__(self, channels, heads, shorten):
        super().__init__()
        self.heads = heads
        matrices = (nn.Linear(channels, channels) for _ in range(4))
        self.query, self.key, self.value, self.join = matrices
        self.shorten, self.norm = None, None
        if shorten > 1:
            self.shorten = nn.Conv2d(channels, channels, shorten, stride=shorten)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x, height, width):
        return self.join(heard_from(self, x, height, width)[0])


# %%
def heard_from(layer, x, height, width):
    """What the tokens hear, before joining, and the weights (B, heads, N, M)."""
    asked = x
    if layer.shorten is not None:
        asked = layer.norm(as_tokens(layer.shorten(as_map(x, height, width))))
    q, k, v = (
        matrix(tokens).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for matrix, tokens in ((layer.query, x), (layer.key, asked), (layer.value, asked))
    )
    a = attention_weights(q, k)
    return (a @ v).transpose(1, 2).flatten(2), a


# %%
shrink = nn.Conv2d(6, 6, 4, stride=4)
maps = torch.randn(1, 6, 8, 12)
blocks = F.unfold(maps, 4, stride=4).transpose(1, 2)  # each block of 4 x 4 pixels as one row
matrix = shrink.weight.flatten(1)  # (6, 6 * 16)
check("the convolution, and the matrix on blocks", as_tokens(shrink(maps)),
      blocks @ matrix.T + shrink.bias, tol=1e-5)  # fmt: skip


# %%
def attention_macs(n, channels, ratio):
    """Of attention on `n` pixels, keys and values shrunk by `ratio` in height and width."""
    fewer = n // ratio**2
    matrices = 2 * n * channels**2 + 2 * fewer * channels**2
    shrinking = n * channels**2 if ratio > 1 else 0
    return matrices + shrinking + 2 * n * fewer * channels


def counted(layer, *inputs):
    """Multiplications that torch counts."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(*inputs)
    return counter.get_total_flops() // 2


# %%
for ratio in (8, 4, 2, 1):
    layer, x = Attention(32, 2, ratio), torch.randn(1, 256, 32)
    check(f"16 x 16 pixels, R = {ratio}: formula and torch's counter",
          attention_macs(256, 32, ratio), counted(layer, x, 16, 16))  # fmt: skip
check("a 3 x 3 convolution", counted(nn.Conv2d(32, 32, 3, padding=1), torch.randn(1, 32, 16, 16)), 9 * 256 * 32**2)  # fmt: skip

# %% [markdown]
# Now SegFormer-B0's four stages, for a picture of $512 \times 512$. **Predict:** in which stage would full attention hurt most?

# %%
side = 512
full, short, kept = [], [], []
for i, stage in enumerate(B0):
    n = (side // 2 ** (i + 2)) ** 2
    pair = [attention_macs(n, stage.channels, r) / 1e6 for r in (1, stage.shorten)]
    convolution_macs = 9 * n * stage.channels**2 / 1e6
    weights_mb = [4 * stage.heads * n**2 / r**2 / 1e6 for r in (1, stage.shorten)]
    full, short, kept = [*full, pair[0]], [*short, pair[1]], [*kept, weights_mb]
    print(f"stage {i + 1}: {n:6} pixels, R = {stage.shorten}, million MACs: full {pair[0]:8.0f}, "
          f"shortened {pair[1]:4.0f}, convolution {convolution_macs:4.0f}; "
          f"weights {weights_mb[0]:6.1f} MB, {weights_mb[1]:4.1f} MB")  # fmt: skip
check("stage 1, full, thousand million MACs", full[0] / 1e3, 17.25, tol=0.01)
check("stage 1, shortened, million MACs", short[0], 319.3, tol=0.1)
check("its weights A in MB, full and shortened", torch.tensor(kept[0]), [1073.7, 16.8], tol=0.05)

# %% alt="Multiplications of one layer with 32 channels on a map of a quarter of the picture, against the picture's side from 64 to 2048 pixels, both axes logarithmic. Full attention starts close to the convolution and rises twice as steeply. Shortened attention begins below the convolution and crosses it between 256 and 512."
sides = torch.tensor([64, 128, 256, 512, 1024, 2048])
fig, [ax] = show.grid(1, 1, width=5.6, height=3.4)
for name, shade, macs in (
    ("full attention", 7, lambda n: attention_macs(n, 32, 1)),
    ("shortened, R = 8", 6, lambda n: attention_macs(n, 32, 8)),
    ("3 x 3 convolution", 1, lambda n: 9 * n * 32**2),
):
    counts = [macs((s // 4) ** 2) / 1e6 for s in sides.tolist()]
    ax.loglog(sides, counts, "o-", base=2, color=colours[shade], label=name)
ax.set(title="Stage 1: what each costs", xlabel="side of the picture (pixels)")
ax.set(ylabel="million MACs")
ax.set_yscale("log")
_ = ax.legend()

# %%
n_256, n_512 = (256 // 4) ** 2, (512 // 4) ** 2
check("twice the side: full attention, times", attention_macs(n_512, 32, 1) / attention_macs(n_256, 32, 1), 15.8, tol=0.1)  # fmt: skip
check("shortened below the convolution at 256", attention_macs(n_256, 32, 8) < 9 * n_256 * 32**2, want=True)  # fmt: skip
check("and above it at 512", attention_macs(n_512, 32, 8) > 9 * n_512 * 32**2, want=True)

# %% [markdown]
# Shortening divides the quadratic part by $R^2 = 64$; it does not make it linear. On a very large picture it hurts again, and one cuts tiles.
#
# The memory is the harder limit. The weights $A$ of *one* layer and *one* head would take a gigabyte per picture at stage 1, if they are kept for the backward pass. `scaled_dot_product_attention` may compute them block by block and never keep them; the multiplications stay.
#
# ## 8. SegFormer-B0 from parts
#
# ### Patches that overlap
#
# The Vision Transformer cuts the picture into tiles of $16 \times 16$ and makes one **token** (词元) of each: a convolution with kernel 16 and stride 16. SegFormer's first convolution has kernel 7 and stride 4, so neighbouring tokens share pixels; three more with kernel 3 and stride 2 follow, one before each stage. That gives maps at strides 4, 8, 16 and 32: a pyramid, as from a ResNet.


# %%
def patches(channels, stage):
    """The convolution that makes a stage's tokens."""
    return nn.Conv2d(channels, stage.channels, stage.kernel, stage.stride, stage.kernel // 2)


sizes = [patches(3, B0[0])(torch.zeros(1, 3, picture_size, picture_size)).shape[-1]]
for below, stage in pairwise(B0):
    sizes.append(patches(below.channels, stage)(torch.zeros(1, below.channels, sizes[-1], sizes[-1])).shape[-1])  # fmt: skip
check("sizes of the four maps", sizes, [picture_size // s for s in (4, 8, 16, 32)])
for stage in B0:
    print(stage)

# %% [markdown]
# ### A block
#
# Attention, then Mix-FFN, each behind a **layer normalisation** (层归一化: every token to mean 0 and variance 1 over its channels) and each *added* to what came in. In training the library also leaves out whole branches at random (stochastic depth); the package has that, this chapter does not.


# %%
class Block(nn.Module):
    """Attention and Mix-FFN, each added to what came in."""

    def __init__(self, stage):
        super().__init__()
        self.before_attention = nn.LayerNorm(stage.channels)
        self.attention = Attention(stage.channels, stage.heads, stage.shorten)
        self.before_mix = nn.LayerNorm(stage.channels)
        self.mix = MixFFN(stage.channels)

    def forward(self, x, height, width):
        x = x + self.attention(self.before_attention(x), height, width)
        return x + self.mix(self.before_mix(x), height, width)


# %% [markdown]
# ### The encoder
#
# Four times: tokens, blocks, a normalisation, and back to a map. The image's own normalisation is inside, so that nobody can forget it.


# %%
class Parts(nn.Module):
    """What the encoder is made of."""

    def __init__(self, stages):
        super().__init__()
        self.normalize = Normalize()
        self.widths = [stage.channels for stage in stages]
        below = zip([3, *self.widths], stages, strict=False)
        self.tokens = nn.ModuleList(patches(channels, stage) for channels, stage in below)
        self.token_norms = nn.ModuleList(map(nn.LayerNorm, self.widths))
        self.blocks = nn.ModuleList(
            nn.ModuleList(Block(stage) for _ in range(stage.blocks)) for stage in stages
        )
        self.norms = nn.ModuleList(map(nn.LayerNorm, self.widths))


# %%
class Encoder(Parts):
    """Features of an image in [0, 1], finest first."""

    def forward(self, image):
        maps, features = self.normalize(image), []
        for i, conv in enumerate(self.tokens):
            maps = conv(maps)
            size = maps.shape[-2:]
            x = self.token_norms[i](as_tokens(maps))
            for block in self.blocks[i]:
                x = block(x, *size)
            maps = as_map(self.norms[i](x), *size)
            features.append(maps)
        return features


# %% [markdown]
# ### The decoder: matrices only
#
# Each of the four maps is brought to 256 channels by a matrix, enlarged to stride 4, and joined with the others; one more matrix mixes them, and a last one gives the classes (Xie et al. 2021, section 3.2). No $3 \times 3$ convolution, no dilation, no pyramid of means. The encoder has seen far already; the decoder need not.


# %%
def brought(matrix, maps, finest):
    """A map brought to the decoder's channels and to the finest map's size."""
    return enlarged(as_map(matrix(as_tokens(maps)), *maps.shape[-2:]), finest)


# %%
class SegFormer(nn.Module):
    """Class scores at the image's size; `width` is the decoder's number of channels."""

    def __init__(self, num_classes, stages=B0, width=256):
        super().__init__()
        self.backbone = Encoder(stages)
        self.bring = nn.ModuleList(nn.Linear(c, width) for c in self.backbone.widths)
        self.fuse = nn.Conv2d(width * len(stages), width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, image):
        maps = self.backbone(image)
        joined = torch.cat([brought(*pair, maps[0]) for pair in zip(self.bring, maps, strict=True)][::-1], dim=1)  # fmt: skip
        return enlarged(self.classify(self.norm(self.fuse(joined)).relu()), image)


# %% [markdown]
# ### How many weights?


# %%
def count(module):
    """Number of weights."""
    return sum(weight.numel() for weight in module.parameters())


# %%
ours = SegFormer(150).eval()
blocks = [block for stage in ours.backbone.blocks for block in stage]
table = {
    "patches": count(ours.backbone.tokens),
    "attention": sum(count(block.attention) for block in blocks),
    "Mix-FFN": sum(count(block.mix) for block in blocks),
    "decoder": count(ours) - count(ours.backbone),
}
table["normalisations"] = count(ours) - sum(table.values())
for name, weights in table.items():
    print(f"{name:15} {weights:9,}  {weights / count(ours):6.1%}")
check("all, for 150 classes", count(ours), 3_752_694)

# %% [markdown]
# 3.75 million; tables round it to 3.7 or 3.8. More of them are in the Mix-FFNs than in the attention that gives the family its name.

# %%
shares = torch.tensor([table["Mix-FFN"], table["attention"]]) / count(ours)
check("shares of Mix-FFN and attention", shares, [0.423, 0.331], tol=5e-4)

# %% [markdown]
# ### The library's weights
#
# Transformers' `SegformerForSemanticSegmentation`, made from a **config** and no file: its weights are random, and that is all we need to compare. The names differ; `from_peer` of the package renames them. If our parts are right, all weights find a place, and the outputs are equal.

# %%
theirs = SegformerForSemanticSegmentation(SegformerConfig(num_labels=150)).eval()
with torch.no_grad():
    for weight in theirs.parameters():  # biases begin at 0, which would hide a mistake
        weight.add_(0.02 * torch.randn_like(weight))
found = ours.load_state_dict(segformer.from_peer(theirs.state_dict()))
check("weights that found no place, or places without", len(found.missing_keys) + len(found.unexpected_keys), 0)  # fmt: skip
check("theirs have as many", count(theirs), count(ours))

# %% tags=["nbval-ignore-output"]
image = F.interpolate(scene[None], size=(picture_size, picture_size - 27), mode="bilinear")
normalize = Normalize()
with torch.no_grad():
    logits = ours(image)
    quarter = theirs(pixel_values=normalize(image)).logits
    package = segformer.segformer_b0(150).eval()
    package.load_state_dict(segformer.from_peer(theirs.state_dict()))
    packaged = package(image)
scale = logits.abs().max()
check("ours and Transformers', relative", (logits - enlarged(quarter, image)).abs().max() / scale, 0.0, tol=1e-4)  # fmt: skip
check("ours and the package's, relative", (logits - packaged).abs().max() / scale, 0.0, tol=1e-4)

# %% [markdown]
# The size was odd on purpose: $128 \times 101$ is no multiple of 32. No table of places, no fixed size.

# %% [markdown]
# ## 9. The Transformers library, used rightly
#
# The article's listing, mended step by step. Every step is run, without a network.
#
# **1. A class that exists.** `from transformers import ResNet` fails. There is a ResNet *classifier*, and it returns one vector per picture. For semantic segmentation take a class that says so.

# %%
try:
    from transformers import ResNet  # noqa: F401
except ImportError:
    print("there is no ResNet in transformers")
names = dir(transformers)
check("the name of the article", "ResNet" in names, want=False)
check("a classifier", "ResNetForImageClassification" in names, want=True)
check("a ResNet for segmentation", "ResNetForSemanticSegmentation" in names, want=False)
check("ours", "SegformerForSemanticSegmentation" in names, want=True)

# %% [markdown]
# **2. `num_labels`, not `num_classes`.** **Predict:** what happens if one writes `num_classes=6` into the config? A config keeps every word it does not know, and says nothing.

# %%
wrong, right = SegformerConfig(num_classes=6), SegformerConfig(num_labels=6)
check("labels with num_classes=6", wrong.num_labels, 2)
check("labels with num_labels=6", right.num_labels, 6)
check("index that the loss leaves out", right.semantic_loss_ignore_index, IGNORE)

# %% [markdown]
# And `num_labels=1` does not "stand for semantic segmentation". It means *one score per pixel*: foreground or not, trained with binary cross-entropy and read with a threshold at 0. `argmax` over one channel, as in the article, is 0 everywhere.

# %%
single = SegformerForSemanticSegmentation(SegformerConfig(num_labels=1)).eval()
with torch.no_grad():
    score = single(pixel_values=torch.randn(1, 3, 64, 64)).logits
check("channels", score.shape[1], 1)
check("argmax over one channel", score.argmax(1), 0)

# %% [markdown]
# **3. The image processor** turns pictures and masks into what the network was trained with. It needs no file. Three of its defaults want a thought: it *resizes* to $512 \times 512$ whatever the picture's shape (masks by nearest neighbour, it knows that they are masks); it *divides by 255*; and it subtracts ImageNet's mean and divides by its standard deviation.

# %%
processor = SegformerImageProcessor(size={"height": 64, "width": 96})
picture = (255 * F.interpolate(scene[None], size=(80, 120), mode="bilinear")[0]).to(torch.uint8)
mask = torch.randint(0, 6, (80, 120))
mask[:8] = IGNORE
inputs = processor(images=[picture], segmentation_maps=[mask], return_tensors="pt")
for name, value in inputs.items():
    print(name, tuple(value.shape), value.dtype)
check("values in the mask afterwards", inputs["labels"].unique(), [0, 1, 2, 3, 4, 5, 255])
plain = processor(images=[picture], do_resize=False, return_tensors="pt")["pixel_values"]
check("it normalises as our layer does", plain, normalize(picture[None] / 255), tol=1e-5)

# %% [markdown]
# **4. Logits come at a quarter** of height and width, and **5. the loss is `None`** unless you pass `labels`. With labels the library enlarges the logits itself, before its cross-entropy, and leaves out 255.

# %%
model = SegformerForSemanticSegmentation(right).eval()
with torch.no_grad():
    without = model(pixel_values=inputs["pixel_values"])
    outputs = model(pixel_values=inputs["pixel_values"], labels=inputs["labels"])
check("is the loss None without labels?", without.loss is None, want=True)
check("shape of the logits", list(outputs.logits.shape), [1, 6, 64 // 4, 96 // 4])
large = enlarged(outputs.logits, inputs["pixel_values"])
check("its loss is ours, on enlarged logits", outputs.loss, cross_entropy_loss(large, inputs["labels"]), tol=1e-5)  # fmt: skip

# %% [markdown]
# **Predict:** a batch in which every pixel is 255. What is its loss? Ours is 0 ([chapter 06](06_cross_entropy.ipynb)). The library divides by the number of labelled pixels.

# %%
nothing = torch.full_like(inputs["labels"], IGNORE)
with torch.no_grad():
    lost = model(pixel_values=inputs["pixel_values"], labels=nothing).loss
check("the library's loss", lost, math.nan)
check("ours", cross_entropy_loss(large, nothing), 0.0)

# %% [markdown]
# One such batch, and every weight is nan after the step. Crops of a picture with much void do occur. Skip them.
#
# **6. Training and evaluation.** A model made from a config is in training mode, as in torch; one made by `from_pretrained` is in *evaluation* mode. So say which you want.

# %% tags=["nbval-ignore-output"]
learner = SegformerForSemanticSegmentation(right)
check("made from a config: training", learner.training, want=True)
optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
losses = []
for _ in range(5):
    loss = learner(**inputs).loss  # pixel_values and labels
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
check_at_most("loss after five steps on one batch, over the first", losses[-1] / losses[0], 0.999)

# %% [markdown]
# **7. From logits to a mask.** `post_process_semantic_segmentation` enlarges, then takes the argmax. Without `target_sizes` it does *not* enlarge.

# %%
back = processor.post_process_semantic_segmentation(outputs, target_sizes=[(80, 120)])[0]
same = F.interpolate(outputs.logits, size=(80, 120), mode="bilinear").argmax(1)[0]
check("the mask, at the picture's own size", back, same)
small_mask = processor.post_process_semantic_segmentation(outputs)[0]
check("without target_sizes", list(small_mask.shape), [16, 24])

# %% [markdown]
# **8. Keep it, and load it back.** `save_pretrained` writes the config and the weights (as safetensors: numbers only, no program in the file) to a folder, `from_pretrained` reads it, from a folder or from the library's site. Save the processor as well: its numbers belong to the weights.

# %% tags=["nbval-ignore-output"]
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    print(sorted(file.name for file in Path(folder).iterdir()))
    loaded = SegformerForSemanticSegmentation.from_pretrained(folder)
    its_processor = SegformerImageProcessor.from_pretrained(folder)
check("loaded: training mode", loaded.training, want=False)
with torch.no_grad():
    again = loaded(**its_processor(images=[picture], return_tensors="pt")).logits
check("the same logits", again, outputs.logits, tol=1e-6)

# %% [markdown]
# With a network, and without the variable that we set at the top, the one line that most people want is
#
# `SegformerForSemanticSegmentation.from_pretrained("nvidia/segformer-b0-finetuned-ade-512-512")`
#
# and, to fine-tune for six classes of your own, the same with `num_labels=6, ignore_mismatched_sizes=True`: all weights but those of the last matrix, which begins at random. Look at the licence of the weights first; it is not that of the library.
#
# ### do_reduce_labels
#
# ADE20K's masks have 0 for "no label" and 1 to 150 for the classes. `do_reduce_labels=True` makes 255 of 0, and $c - 1$ of $c$. **Predict:** and if your masks begin with a class 0?

# %%
reducing = SegformerImageProcessor(do_resize=False, do_reduce_labels=True)
row = torch.tensor([[0, 1, 2, 5, IGNORE]]).expand(32, 5).contiguous()
reduced = reducing(images=[picture[:, :32, :5]], segmentation_maps=[row], return_tensors="pt")
check("labels 0, 1, 2, 5, 255 become", reduced["labels"][0, 0], [255, 0, 1, 4, 255])

# %% [markdown]
# Class 0 is gone, and all others are one off. Training works, the loss falls, and the answers are another class's. The processors of models trained on ADE20K have it switched *on* in the file that `from_pretrained` reads. Look.
#
# ## 10. Is it better? An experiment
#
# Tables in papers say yes: but there the encoder had seen ImageNet. Here all begin at random, on a hundred-odd scenes, where object is to be told from ground. Three networks of equal size, with equal batches in equal order and the same rate:
#
# - a **U-Net**;
# - a **SegFormer** with three stages (first stride 2, for these pictures are small);
# - the same **without attention**: the branch says nothing, and the weights it saves make the rest wider. This one tells us what *attention* adds, and not the whole design.
#
# **Predict** the order.


# %%
def tiny(widths, num_classes=2):
    """A SegFormer of three stages with strides 2, 4 and 8."""
    forms = zip(widths, (1, 2, 4), (4, 2, 1), (7, 3, 3), strict=True)
    stages = [Stage(c, heads, shorten, kernel, 2, 1) for c, heads, shorten, kernel in forms]
    return SegFormer(num_classes, stages, width=48)


class Silent(nn.Module):
    """In the place of attention: nothing is added to what came in."""

    def forward(self, x, *_):
        return torch.zeros_like(x)


# %%
def without_attention(widths):
    """`tiny`, but nobody asks anybody."""
    net = tiny(widths)
    for stage in net.backbone.blocks:
        for block in stage:
            block.attention, block.before_attention = Silent(), nn.Identity()
    return net


# %%
NETS = {
    "U-Net": lambda: UNet(2, widths=(8, 16, 28, 40)),
    "SegFormer": lambda: tiny((16, 24, 48)),
    "no attention": lambda: without_attention((16, 28, 60)),
}
sizes = {name: count(make()) for name, make in NETS.items()}
print(sizes)
check_at_most("most weights over fewest", max(sizes.values()) / min(sizes.values()), 1.05)


# %%
def drawn(count, seed, size=image_size):
    """Images, and masks with 0 for ground, 1 for any object, or void."""
    scenes = Scenes(count, size=size, seed=seed, difficulty=0.2)
    images, masks = (
        torch.stack([scenes[i][key].as_subclass(torch.Tensor) for i in range(count)])
        for key in ("image", "mask")
    )
    return images, torch.where(masks == IGNORE, IGNORE, masks.clamp(max=1))


# %%
def trained(name, images, masks, run):
    """That network after training."""
    torch.manual_seed(run)
    net = NETS[name]().to(images.device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate)
    steps = epochs * math.ceil(len(images) / 8)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    generator = torch.Generator().manual_seed(run)  # the same batches for all
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(8):
            loss = cross_entropy_loss(net(images[batch]), masks[batch])
            optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    return net.eval()


# %%
def mean_iou(net, images, masks):
    """Over all pixels of the set."""
    counts = ConfusionMatrix(2)
    with torch.inference_mode():
        counts.update(net(images).argmax(1), masks)
    return counts.mean_iou()


# %% tags=["nbval-ignore-output"]
place = pick_device(device)
results, nets = {name: [] for name in NETS}, {}
for run in range(seed, seed + runs):
    learn, new = ([x.to(place) for x in drawn(n, 2 * run + i)] for i, n in enumerate((train_scenes, test_scenes)))  # fmt: skip
    for name in NETS:
        net = trained(name, *learn, run)
        nets[name] = net  # the last run's are kept
        results[name].append(mean_iou(net, *new))
for name, values in results.items():
    print(f"{name:13}", *(f"{value:.3f}" for value in values), f"  mean {sum(values) / runs:.3f}")

# %% tags=["nbval-ignore-output"]
results = {name: torch.tensor(values) for name, values in results.items()}
lead = results["U-Net"] - results["SegFormer"]
check_at_least("U-Net over SegFormer, mean IoU, mean over the runs", lead.mean(), least_gain)
added = results["SegFormer"] - results["no attention"]
check_at_least("added by attention, mean over the runs", added.mean(), least_added)
print("attention adds, run by run:", *(f"{value:+.3f}" for value in added))

# %% tags=["nbval-ignore-output"] alt="Three test scenes in rows: picture, truth with white borders of no label, and the answers of U-Net, SegFormer and SegFormer without attention. All find the objects as blobs. The U-Net keeps the hole of a ring and has smooth outlines; SegFormer fills that ring, and misses a part of a disc; without attention outlines are ragged, with specks and small holes."
fig, axes = show.grid(3, 5, "Last run: three test scenes", width=1.7)
for row, n in zip(axes, range(3), strict=True):
    show.image(row[0], new[0][n], "picture" if n == 0 else "")
    show.mask(row[1], new[1][n], "truth" if n == 0 else "", num_classes=2)
    for ax, (name, net) in zip(row[2:], nets.items(), strict=True):
        with torch.inference_mode():
            answer = net(new[0][n : n + 1]).argmax(1)[0]
        show.mask(ax, answer, name if n == 0 else "", num_classes=2)

# %% [markdown]
# What do the numbers carry? Two things, both about means over three runs. **At this size, from random weights, with so few pictures and steps, the U-Net is ahead**, if not by much. And **attention adds something**: without it, the same network is worse on average, though not in every run that we have seen.
#
# What do they not carry? *Why* the U-Net leads: it also works at full resolution, where the others begin at stride 2. That it would still lead after longer training. That it leads on other pictures: section 12 tries photographs. The rate is the same for all three; with 0.01 instead of 0.003 SegFormer fell back further, so even that choice is part of the result.
#
# It fits what the Vision Transformer's authors saw on a scale that we cannot repeat: pretrained on ImageNet alone, their models fell short of ResNets of like size; on 300 million pictures they overtook them (Dosovitskiy et al. 2021, section 4.3). A convolution knows from the start that neighbours belong together and that a thing is the same thing elsewhere. Attention has to learn it. So use SegFormer *pretrained*, as its authors do; [chapter 14](14_transfer.ipynb) shows how much a start is worth.
#
# ## 11. Where does a pixel look?
#
# The weights $A$ are numbers for every pair of pixels, so they can be drawn: take one pixel of a test scene, and in each stage look at the row of $A$ that is its own, on the shrunk map that is asked.


# %%
def looks(net, image):
    """The weights of each stage's first block: a list of (heads, N, M), and the maps' sizes."""
    found, hooks = [], []
    for blocks in net.backbone.blocks:
        layer = blocks[0].attention

        def keep(layer, given):
            found.append((heard_from(layer, *given)[1][0], given[1:]))

        hooks.append(layer.register_forward_pre_hook(keep))
    with torch.inference_mode():
        net(image[None])
    for hook in hooks:
        hook.remove()
    return found


# %% tags=["nbval-ignore-output"]
inside = F.avg_pool2d(new[1].eq(1).float(), 9, 1, 4)  # how deep within an object
which, spot = divmod(inside.flatten().argmax().item(), image_size**2)
row, column = divmod(spot, image_size)
maps = []
for i, (a, (height, width)) in enumerate(looks(nets["SegFormer"], new[0][which])):
    check("rows of A sum to", a.sum(-1), 1.0, tol=1e-4)
    stride = image_size // height
    own = a[:, row // stride * width + column // stride].mean(0)  # over the heads
    maps.append(own.view(math.isqrt(len(own)), -1))
    print(f"stage {i + 1}: {len(own)} are asked; most heard {own.max() * len(own):.1f} times the mean")  # fmt: skip

# %% tags=["nbval-ignore-output"] alt="A test scene with a cross on an object, and for each of three stages a coarse map of six by six cells with how much that pixel listens to each. In the first, the bare ground above and between the objects is heard most; in the second, two or three cells on and beside the disc that asks; in the third, the upper rim."
fig, axes = show.grid(1, 4, "One pixel, and whom it hears", width=2.4)
show.image(axes[0], new[0][which], "who asks")
axes[0].plot(column, row, "x", color="white", markersize=10, markeredgewidth=3)
for i, (ax, own) in enumerate(zip(axes[1:], maps, strict=True)):
    show.heat(ax, own, f"stage {i + 1}, mean of heads", low=0)

# %% [markdown]
# Read such pictures with care. They show one factor of one layer; the values, the other layers and the additions around them are not in the picture. (Jain and Wallace 2019, "Attention is not Explanation", find that quite other weights can give the same answer.) What a pixel's *answer* hangs on is a gradient's business.
#
# ### Influence
#
# [Chapter 12](12_context.ipynb) measured influence with one line of autograd: how strongly does the middle pixel's score depend on each pixel of the picture? **Predict:** for which of the three networks is it exactly 0 somewhere, in a picture of 128 pixels?


# %%
def influence(net, images):
    """Mean over the images of the size of the middle score's gradient: (H, W)."""
    images = images.clone().requires_grad_()
    middle = images.shape[-1] // 2
    logits = net(images)[:, :, middle, middle]
    (logits[:, 1] - logits[:, 0]).sum().backward()
    return images.grad.abs().sum(1).mean(0).cpu()


# %% tags=["nbval-ignore-output"] alt="Influence of each pixel on the middle pixel's score, on a logarithmic scale, for the three networks. For the U-Net a bright centre and a large square, beyond which all is dark; for SegFormer without attention a smaller square; for SegFormer a small bright square in the middle, and a fainter glow over the whole picture."
wide = drawn(4, seed=99, size=field_size)[0].to(place)
fields = {name: influence(net, wide) for name, net in nets.items()}
fig, axes = show.grid(1, 3, "What the middle pixel hangs on (logarithm to base 10)", width=2.9)
for ax, (name, field) in zip(axes, fields.items(), strict=True):
    show.heat(ax, (field / field.max()).clamp(min=1e-6).log10(), name, low=-6, high=0)

# %% tags=["nbval-ignore-output"]
reached, near, third = {}, {}, field_size // 3
for name, field in fields.items():
    reached[name] = (field > 0).double().mean().item()
    near[name] = (field[third:-third, third:-third].sum() / field.sum()).item()
    print(f"{name:13} in the middle ninth of the picture: {near[name]:.2f} of the influence")
check_at_least("SegFormer: share of the picture with influence", reached["SegFormer"], 0.99)
check_at_most("U-Net", reached["U-Net"], 0.9)
check_at_most("no attention", reached["no attention"], 0.9)
check_at_least("SegFormer: share in the middle ninth", near["SegFormer"], least_near)
check_at_least("less than without attention, by", near["no attention"] - near["SegFormer"], least_spread)  # fmt: skip

# %% [markdown]
# The square is the reach of chapter 05's formula; beyond it a network of convolutions is blind. SegFormer sees everything from its first block on. How much does it make of that? More of its influence comes from outside the middle ninth of the picture than without attention, and still most comes from within. *Can* see far and *does* look far are two things here, too.
#
# ## 12. Pets
#
# The same three networks on photographs, shrunk to the scenes' size: animal or background. One run each, so an impression and no measurement; and yet look at the order of the three.

# %% tags=["nbval-ignore-output"]
if catalog.available("pets"):
    pets, photographs = {}, {}
    for split in ("train", "val"):
        data = catalog.load("pets", split=split)
        chosen = torch.linspace(0, len(data) - 1, pets_count).long().tolist()
        pairs = [(data[i]["image"].as_subclass(torch.Tensor), data[i]["mask"].as_subclass(torch.Tensor)) for i in chosen]  # fmt: skip
        size = (image_size, image_size)
        photographs[split] = [
            torch.cat([F.interpolate(x[None], size, mode="bilinear", antialias=True) for x, _ in pairs]),
            torch.cat([F.interpolate(y[None, None].float(), size)[0] for _, y in pairs]).long(),
        ]  # fmt: skip
else:
    print("The pets are not here; `segedu data get pets` downloads them.")

# %% tags=["nbval-ignore-output"] alt="Three pets in rows: photograph, truth, and the answers of the three networks, rough blobs about where the animal is."
if catalog.available("pets"):
    for name in NETS:
        pets[name] = trained(name, *(x.to(place) for x in photographs["train"]), seed)
        print(f"{name:13} {mean_iou(pets[name], *(x.to(place) for x in photographs['val'])):.3f}")
    fig, axes = show.grid(3, 5, "Pets", width=1.7)
    for row, photograph, truth in zip(axes, *photographs["val"], strict=False):
        show.image(row[0], photograph, "photograph")
        show.mask(row[1], truth, "truth", num_classes=2)
        for ax, (name, net) in zip(row[2:], pets.items(), strict=True):
            with torch.inference_mode():
                show.mask(ax, net(photograph[None].to(place)).argmax(1)[0], name, num_classes=2)

# %% [markdown]
# When we ran it with two seeds, the U-Net did not lead here, and the last place changed hands. So section 10's order belongs to its pictures as much as to the networks. One run each is a reason to measure, and no measurement.
#
# ## 13. What goes wrong
#
# ### The mask is shrunk instead of the logits enlarged
#
# The shapes do not fit, and the quick way out is to take every fourth pixel of the mask. The code runs, and the score looks fine. **Predict:** a network that is *perfect* on the shrunk mask: what is its mean IoU in the picture's own pixels?

# %%
_, truth = drawn(16, seed)
quarter = truth[:, 2::4, 2::4]
counts = {"shrunk": ConfusionMatrix(2), "true": ConfusionMatrix(2)}
answer = torch.where(quarter == IGNORE, 0, quarter)
counts["shrunk"].update(answer, quarter)
enlarged_answer = F.interpolate(answer[:, None].float(), size=truth.shape[-2:])[:, 0].long()
counts["true"].update(enlarged_answer, truth)
check("mean IoU on every fourth pixel", counts["shrunk"].mean_iou(), 1.0)
check_at_most("in the picture's pixels", counts["true"].mean_iou(), 0.93)

# %% [markdown]
# What is narrower than four pixels has left the test as well as the answer. Enlarge the *logits*, then take the argmax, and compare with the mask as it was drawn.
#
# ### The softmax along the wrong axis
#
# With $N$ queries and $N$ keys, $A$ is square. A softmax over the queries has the right shape, trains, and is something else: the weights with which a pixel listens do not sum to 1 any more. A key that many queries ask for has to share itself among them.

# %%
q, k, v = (torch.randn(30, 8) for _ in range(3))
over_queries = (q @ k.mT / math.sqrt(8)).softmax(0)
check("same shape", list(over_queries.shape), [30, 30])
heard = over_queries.sum(1)
check_at_most("least sum of a row", heard.min(), 0.9)
check_at_least("largest sum of a row", heard.max(), 1.2)
same_value = over_queries @ torch.ones(30, 1)
check_at_least("all values are 1: answers spread by", same_value.max() - same_value.min(), 0.3)

# %% [markdown]
# The last line is a test that always works: if everybody says 1, everybody must hear 1.
#
# ### Divided by 255, twice
#
# Our images are in $[0, 1]$. The processor divides by 255. **Predict** what the network gets to see.

# %%
bright = scene[None]
twice = SegformerImageProcessor(do_resize=False)(images=bright, return_tensors="pt")
once = SegformerImageProcessor(do_resize=False, do_rescale=False)(images=bright, return_tensors="pt")  # fmt: skip
spread = [x["pixel_values"].std(dim=(0, 2, 3)).max().item() for x in (twice, once)]
check_at_most("spread of what the network sees, divided twice", spread[0], 0.02)
check("and once, against our layer", once["pixel_values"], normalize(bright), tol=1e-5)
check("how much flatter", spread[1] / spread[0], 255.0, tol=0.5)

# %% [markdown]
# A black picture, all pictures alike, and no error. Give it bytes, or say `do_rescale=False`.
#
# ## 14. In the article
#
# > **In the article, 5.2:** `from transformers import ResNet` and `ResNet(num_classes=1)`, "1 stands for semantic segmentation". Section 9 has shown it: there is no such class, a ResNet classifier has no decoder, and the number of labels says how many classes there are and not which task.
# >
# > **In the article, 5.2:** `outputs.loss` where only the picture went in. It is `None`, and `None.item()` stops the first epoch.

# %%
try:
    without.loss.item()
except AttributeError as error:
    print(error)
check("a classifier's output, one vector per picture",
      list(transformers.ResNetForImageClassification(transformers.ResNetConfig(
          embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3,
      )).eval()(pixel_values=torch.randn(2, 3, 32, 32)).logits.shape), [2, 3])  # fmt: skip

# %% [markdown]
# > **In the article, 7.2:** Transformers is "an NLP library by HuggingFace" that supports PyTorch and TensorFlow. It began with language. Today it says of itself that it is for text, vision and audio, and carries these families for segmentation. TensorFlow has left with release 5.

# %% tags=["nbval-ignore-output"]
from transformers.models.auto import modeling_auto

families = {
    kind: getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES")
    for kind in ("SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION", "MASK_GENERATION")
}
for kind, members in families.items():
    print(f"{kind.lower():22}", ", ".join(sorted(members)))
for kind, some in zip(families, (("segformer", "upernet", "beit", "dpt"), ("mask2former", "maskformer", "oneformer"), ("sam",)), strict=True):  # fmt: skip
    check(f"{', '.join(some)} among them", set(some) <= set(families[kind]), want=True)
check("a TensorFlow SegFormer", "TFSegformerForSemanticSegmentation" in names, want=False)

# %% [markdown]
# "Semantic" ones give a class for each pixel, like this chapter's. "Universal" ones give masks with classes, from which semantic, instance and panoptic answers are read ([chapter 01](01_first_segmentation.ipynb)). "Mask generation" has SAM, which takes a click or a box and gives a mask without a class.
#
# ## 15. Three quick questions
#
# **1.** All keys of a picture are equal. What does each pixel hear?
#
# <details><summary>Answer</summary>
#
# Equal keys, equal scores, equal weights: the mean of all values, whatever it asked.
#
# </details>
#
# **2.** You halve height and width of the picture. By what factor do the scores and answers of full attention, $2N^2C$, get cheaper? Of shortened attention?
#
# <details><summary>Answer</summary>
#
# By 16, both. $N$ falls to a quarter, and so does $N/R^2$.
#
# </details>
#
# **3.** Your labels are 0 for road, 1 for car, and you load a processor that came with an ADE20K model. What do you check first?
#
# <details><summary>Answer</summary>
#
# `do_reduce_labels`. If it is on, road becomes 255, which the loss leaves out, and car becomes 0.
#
# </details>

# %%
equal = attention(torch.randn(5, 3), torch.ones(7, 3), torch.arange(7.0)[:, None])
check("1: equal keys, the mean of 0 to 6", equal, 3.0, tol=1e-5)
quadratic = [attention_macs(n, 32, 8) - 3 * n * 32**2 - 2 * (n // 64) * 32**2 for n in (4096, 1024)]
check("2: shortened, scores and answers", quadratic[0] / quadratic[1], 16.0)

# %% [markdown]
# ## 16. Exercises
#
# ### Exercise 1: the weights, without those who may not be heard
#
# In language, and wherever pictures in a batch are padded to one size, some must not be heard. Write the weights with a mask `allowed` (M,) that is false for those. Each query has at least one whom it may hear.


# %% tags=["exercise"]
def masked_weights(q, k, allowed):
    """Weights (N, M) of queries (N, d) for keys (M, d); 0 for keys that are not `allowed`."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def some_tokens(n, m, d, seed):
    """Queries, keys, and who may be heard."""
    g = torch.Generator().manual_seed(seed)
    allowed = torch.rand(m, generator=g) < 0.6
    allowed[0] = True
    allowed[-1] = False
    q, k = (torch.randn(length, d, generator=g, dtype=torch.float64) for length in (n, m))
    return q, k, allowed


def scored(q, k):
    return q @ k.T / math.sqrt(q.shape[1])


exercise = Exercise(
    solution=lambda q, k, allowed: scored(q, k).masked_fill(~allowed, -math.inf).softmax(1),
    inputs=[some_tokens(3, 4, 4, 0), some_tokens(5, 5, 9, 1), some_tokens(2, 7, 16, 2)],
    misconceptions={
        "a score of 0 is no silence: its weight is e to the 0": lambda q, k, allowed: (
            scored(q, k) * allowed
        ).softmax(1),
        "silenced after the softmax: the rest no longer sums to 1": lambda q, k, allowed: (
            scored(q, k).softmax(1) * allowed
        ),
        "the root of d was forgotten": lambda q, k, allowed: (
            (q @ k.T).masked_fill(~allowed, -math.inf).softmax(1)
        ),
        "divided by d, not by its root": lambda q, k, allowed: (
            (q @ k.T / q.shape[1]).masked_fill(~allowed, -math.inf).softmax(1)
        ),
        "the softmax goes over the keys, along each row": lambda q, k, allowed: (
            scored(q, k).softmax(0) * allowed
        ),
    },
)
exercise.check(masked_weights)


# %% tags=["solution"]
def masked_weights(q, k, allowed):
    """Minus infinity before the softmax is 0 after it."""
    scores = q @ k.T / q.shape[1] ** 0.5
    scores = torch.where(allowed, scores, -torch.inf)
    return scores.softmax(dim=1)


exercise.check(masked_weights)

# %% [markdown]
# ### Exercise 2: the weights of a stage
#
# Count the weights (parameters, with their biases) of one `Attention` layer: four matrices, and, if `shorten` is above 1, the shrinking convolution and its layer normalisation.


# %% tags=["exercise"]
def attention_weights_count(channels, heads, shorten):
    """Parameters of an attention layer."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_formula(channels, shorten):
    shrinking = shorten**2 * channels**2 + channels + 2 * channels
    return 4 * (channels**2 + channels) + (shrinking if shorten > 1 else 0)


exercise = Exercise(
    solution=lambda channels, heads, shorten: count(Attention(channels, heads, shorten)),
    inputs=[(32, 1, 8), (64, 2, 4), (160, 5, 2), (256, 8, 1)],
    misconceptions={
        "heads share out the channels, they do not multiply the weights": lambda c, heads, r: (
            by_formula(c, r) + (heads - 1) * 3 * (c**2 + c)
        ),
        "the biases were left out": lambda c, _, r: 4 * c**2 + ((r**2 * c**2 + c) if r > 1 else 0),
        "a kernel of R x R has R squared taps": lambda c, _, r: (
            by_formula(c, r) - ((r**2 - r) * c**2 if r > 1 else 0)
        ),
        "with a factor of 1 there is neither a convolution nor a normalisation": lambda c, _, r: (
            by_formula(c, r) + (0 if r > 1 else c**2 + 3 * c)
        ),
    },
)
exercise.check(attention_weights_count)


# %% tags=["solution"]
def attention_weights_count(channels, heads, shorten):
    """The heads share out the channels, so their number cancels."""
    matrix = channels * heads * (channels // heads) + channels
    if shorten == 1:
        return 4 * matrix
    convolution = channels * channels * shorten * shorten + channels
    normalisation = 2 * channels
    return 4 * matrix + convolution + normalisation


exercise.check(attention_weights_count)

# %% [markdown]
# ### Exercise 3: from logits to a score
#
# A network gives logits (B, classes, h, w), smaller than the masks (B, H, W), which have 255 where there is no label. Give the share of labelled pixels that are right, in the masks' own pixels.


# %% tags=["exercise"]
def accuracy(logits, masks):
    """Share of labelled pixels whose class is right, a float."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def share_right(answer, masks):
    labelled = masks != IGNORE
    return (answer == masks)[labelled].double().mean().item()


def grown(logits, masks, **how):
    return F.interpolate(logits, size=masks.shape[-2:], **how)


def an_answer(seed):
    """Coarse logits, and masks with some void that the enlarged logits get mostly right."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, 6, generator=g)
    masks = grown(logits, torch.empty(2, 20, 24), mode="bilinear").argmax(1)
    masks[torch.rand(masks.shape, generator=g) < 0.2] = IGNORE
    masks[torch.rand(masks.shape, generator=g) < 0.2] = 1
    return logits, masks


exercise = Exercise(
    solution=lambda z, masks: share_right(grown(z, masks, mode="bilinear").argmax(1), masks),
    inputs=[an_answer(0), an_answer(1)],
    misconceptions={
        "enlarge the logits and then choose, not the other way round": lambda z, masks: share_right(
            grown(z.argmax(1)[:, None].float(), masks)[:, 0].long(), masks
        ),
        "the mask was shrunk": lambda z, masks: share_right(z.argmax(1), masks[:, 2::4, 2::4]),
        "pixels without a label count as wrong": lambda z, masks: (
            (grown(z, masks, mode="bilinear").argmax(1) == masks).double().mean().item()
        ),
        "the corners of the picture keep their places, not the corner pixels' centres": lambda z, masks: (
            share_right(grown(z, masks, mode="bilinear", align_corners=True).argmax(1), masks)
        ),
    },
)
exercise.check(accuracy)


# %% tags=["solution"]
def accuracy(logits, masks):
    """Enlarge, choose, compare where there is a label."""
    size = masks.shape[-2:]
    answer = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(dim=1)
    labelled = masks != IGNORE
    return ((answer == masks) & labelled).sum().item() / labelled.sum().item()


exercise.check(accuracy)

# %% [markdown]
# ## Summary
#
# Symbols: pixels (tokens) $i, j, l$ of $N$; queries $q_i$ and keys $k_j$ of length $d$, values $v_j$, as rows of $Q, K, V$; scores $S$, weights $A$, answers $O$; a bar for the gradient of the loss $L$; features $X$ with $C$ channels, matrices $W$; a permutation $P$; the factor $R$ by which height and width shrink for keys and values.
#
# $$
# \begin{aligned}
# O &= A V, \qquad A = \operatorname{softmax}(QK^\top / \sqrt d) \ \text{along rows}, \qquad \operatorname{Var}[q \cdot k] = d \\
# \bar V &= A^\top \bar O, \quad \bar A = \bar O V^\top, \quad \bar s_{il} = a_{il} \big( \bar a_{il} - \textstyle\sum_j \bar a_{ij} a_{ij} \big), \quad \bar Q = \bar S K / \sqrt d, \quad \bar K = \bar S^\top Q / \sqrt d \\
# P\,X &\mapsto P\,O \quad \text{(no positions)}, \qquad \text{Mix-FFN}(x) = W_2 \operatorname{gelu}(\operatorname{dw}(W_1 x)) \\
# \text{MACs} &= 4NC^2 + 2N^2C \ \text{(full)}, \qquad 3NC^2 + 2\tfrac{N}{R^2}C^2 + 2\tfrac{N^2}{R^2}C \ \text{(shortened, } R > 1)
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. Attention chooses from the picture whom to listen to, anywhere in it, and does not know where anybody is. SegFormer learns that from a $3 \times 3$ convolution and its rim of zeros.
# 2. Its price is quadratic. SegFormer lets a shrunk picture answer, which divides that price by $R^2$ and does not abolish it.
# 3. From random weights and few pictures a small U-Net was ahead. Use a pretrained SegFormer, give it `labels`, enlarge its logits, and know what its processor does.
#
# **To read**
#
# - A. Vaswani et al., "Attention Is All You Need", NIPS 2017: section 3.2.1 for the root of $d$, 3.2.2 for heads.
# - A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021: section 3.1 the model, 4.3 how much data it asks for.
# - E. Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS 2021: sections 3.1 and 3.2.
# - W. Wang et al., "Pyramid Vision Transformer", ICCV 2021: the pyramid, and shrunk keys and values.
# - S. Zheng et al., "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers" (SETR), CVPR 2021: the first plain transformer as an encoder for segmentation.
# - M. A. Islam, S. Jia, N. D. B. Bruce, "How Much Position Information Do Convolutional Neural Networks Encode?", ICLR 2020.
# - S. Jain, B. C. Wallace, "Attention is not Explanation", NAACL 2019.
#
# **Next.** So far every pixel got a class. From [chapter 16](16_boxes_and_anchors.ipynb) on, every *object* gets a place.

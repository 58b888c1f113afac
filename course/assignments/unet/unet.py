# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # U-Net
#
# Six questions on chapter [10](../../10_unet.ipynb), in PyTorch. Write where it says `YOUR CODE HERE`; the cell below each answer tests a part of it, and further tests are run when the notebook is graded. Maps are tensors (B, channels, height, width). On Colab, run the first cell before all others.

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

# %% nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import torch
import torch.nn.functional as F
from torch import nn

from segedu.grading.asking import student_eval


def filled(module):
    """The module with weights set by a rule, so that its values can be compared with others."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            turn = torch.arange(weight.numel()).reshape(weight.shape).float()
            if weight.ndim == 4:
                weight.copy_(torch.cos(turn) / weight[0].numel() ** 0.5)
            elif name.endswith("weight"):
                weight.copy_(1 + 0.1 * torch.cos(turn))
            else:
                weight.copy_(0.1 * torch.sin(turn))
    return module.eval()


# %% [markdown]
# ## 1. Two convolutions
#
# Everything in a U-Net is made of one block: twice a $3 \times 3$ convolution that keeps height and width, batch normalisation, ReLU. The normalisation has a shift of its own, so the convolutions have no bias.


# %% nbgrader={"grade": false, "grade_id": "double_conv", "locked": false, "schema_version": 3, "solution": true, "task": false}
def double_conv(before, after):
    """The block as an nn.Module, from `before` to `after` channels."""
    ### BEGIN SOLUTION
    layers = []
    for channels in (before, after):
        conv = nn.Conv2d(channels, after, kernel_size=3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "double_conv_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
marks = 0
picture = torch.linspace(-1, 1, 2 * 3 * 6 * 7).reshape(2, 3, 6, 7)
count = student_eval("sum(p.numel() for p in double_conv(3, 16).parameters())")
marks += tuple(student_eval("double_conv(3, 4)(x).shape", x=picture)) == (2, 4, 6, 7)
### BEGIN HIDDEN TESTS
marks += count == 2800


def rule(*shape):
    turn = torch.arange(torch.Size(shape).numel()).reshape(shape).float()
    return torch.cos(turn) / torch.Size(shape[1:]).numel() ** 0.5


def expected_block(x, before, after):
    turn = torch.arange(after).float().reshape(-1, 1, 1)
    for channels in (before, after):
        x = F.conv2d(x, rule(after, channels, 3, 3), padding=1) / (1 + 1e-5) ** 0.5
        x = F.relu(x * (1 + 0.1 * torch.cos(turn)) + 0.1 * torch.sin(turn))
    return x


got = student_eval("filled(double_conv(3, 4))(x)", x=picture)
marks += got.shape == (2, 4, 6, 7) and bool(
    torch.allclose(got, expected_block(picture, 3, 4), atol=1e-4)
)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 2. Down
#
# Max pooling halves a map. If its last row or column has no partner it must not be lost, for the answer needs a class there, too.


# %% nbgrader={"grade": false, "grade_id": "halved", "locked": false, "schema_version": 3, "solution": true, "task": false}
def halved(x):
    """The largest of each 2 x 2 pixels; an odd last row or column stays, by itself."""
    ### BEGIN SOLUTION
    return F.max_pool2d(x, kernel_size=2, ceil_mode=True)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "halved_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
even = torch.tensor([[[[1.0, 2, 0, 0], [4, 3, 0, 7]]]])
assert torch.equal(torch.as_tensor(halved(even)), torch.tensor([[[[4.0, 7]]]])), (
    "of 2 x 2 pixels the largest"
)
### BEGIN HIDDEN TESTS
odd = torch.tensor([[[[1.0, 2, 9], [4, 3, -1], [-5, -6, -7]]]])
assert tuple(halved(odd).shape) == (1, 1, 2, 2), "3 x 3 pixels become 2 x 2"
assert torch.equal(halved(odd), torch.tensor([[[[4.0, 9], [-5, -7]]]])), (
    "the last row and column stay as they are, and below 0, too"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Up, and beside the skip
#
# The coarse map knows what, the fine one where. Copy the coarse one's pixels until it has *the fine one's size*, whatever that is, and put it behind the fine one's channels. The order matters to whoever loads weights: the skip comes first.


# %% nbgrader={"grade": false, "grade_id": "beside", "locked": false, "schema_version": 3, "solution": true, "task": false}
def beside(skip, below):
    """The map of the way down and, behind it, the one from below enlarged to its size.

    Args:
        skip: (B, f, H, W).
        below: (B, g, h, w), coarser.

    Returns:
        (B, f + g, H, W); enlarged by nearest neighbour.
    """
    ### BEGIN SOLUTION
    enlarged = F.interpolate(below, size=skip.shape[-2:], mode="nearest")
    return torch.cat([skip, enlarged], dim=1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "beside_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
fine, coarse = torch.zeros(1, 2, 4, 4), torch.tensor([[[[1.0, 2], [3, 4]]]])
joined = beside(fine, coarse)
assert tuple(joined.shape) == (1, 3, 4, 4), "2 channels beside 1 are 3, of the fine map's size"
### BEGIN HIDDEN TESTS
copied = torch.tensor([[1.0, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
assert torch.equal(joined[0, :2], fine[0]), "the skip's channels come first"
assert torch.equal(joined[0, 2], copied), "each pixel of the coarse map is copied to 2 x 2"
assert tuple(beside(torch.zeros(2, 1, 5, 7), torch.ones(2, 3, 3, 4)).shape) == (2, 4, 5, 7), (
    "an odd size is the skip's, not twice the coarse one's"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The whole network
#
# For widths $(w_0, \dots, w_{L-1})$, finest first: $L$ blocks on the way down with `halved` between them, $L - 1$ blocks on the way up after `beside`, each back to the width of its level, and a $1 \times 1$ convolution to the classes.


# %% nbgrader={"grade": false, "grade_id": "UNet", "locked": false, "schema_version": 3, "solution": true, "task": false}
class UNet(nn.Module):
    """Logits (B, num_classes, H, W) of pictures (B, channels, H, W) of any size."""

    def __init__(self, channels, num_classes, widths=(4, 8, 16)):
        super().__init__()
        ### BEGIN SOLUTION
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.down = nn.ModuleList(double_conv(a, b) for a, b in [(channels, widths[0]), *pairs])
        self.up = nn.ModuleList(double_conv(f + g, f) for f, g in pairs)
        self.classify = nn.Conv2d(widths[0], num_classes, kernel_size=1)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        levels = []
        for block in self.down:
            levels.append(block(halved(levels[-1]) if levels else x))
        x = levels.pop()
        for block in reversed(self.up):
            x = block(beside(levels.pop(), x))
        return self.classify(x)
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "unet_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
square = torch.linspace(-1, 1, 8 * 12).reshape(1, 1, 8, 12)
assert tuple(student_eval("UNet(1, 2)(x).shape", x=square)) == (1, 2, 8, 12), (
    "two logits at each pixel of the picture"
)
### BEGIN HIDDEN TESTS
assert student_eval("sum(p.numel() for p in UNet(3, 5, (4, 8)).parameters())") == 1781, (
    "the number of weights: three blocks and a classifier with its bias"
)


def expected_unet(x, channels, classes, widths):
    levels = []
    for a, b in zip((channels, *widths[:-1]), widths, strict=True):
        x = F.max_pool2d(x, 2, ceil_mode=True) if levels else x
        levels.append(expected_block(x, a, b))
        x = levels[-1]
    for f, g in list(zip(widths[:-1], widths[1:], strict=True))[::-1]:
        skip = levels[widths.index(f)]
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        x = expected_block(torch.cat([skip, x], dim=1), f + g, f)
    bias = 0.1 * torch.sin(torch.arange(classes).float())
    return F.conv2d(x, rule(classes, widths[0], 1, 1), bias)


values = student_eval("filled(UNet(1, 2))(x)", x=square)
assert torch.allclose(values, expected_unet(square, 1, 2, (4, 8, 16)), atol=1e-3), (
    "with weights set by a rule the logits are those of a U-Net"
)
### END HIDDEN TESTS

# %% [markdown]
# Two things that a square picture does not show: pictures of any size, and that the loss teaches every weight.

# %% nbgrader={"grade": true, "grade_id": "any_size_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert tuple(student_eval("UNet(3, 2)(x).shape", x=torch.zeros(2, 3, 9, 8))) == (2, 2, 9, 8), (
    "nine rows in, nine rows out"
)
### BEGIN HIDDEN TESTS
for size in [(7, 11), (5, 6), (13, 4)]:
    shape = tuple(student_eval("UNet(1, 3)(x).shape", x=torch.ones(2, 1, *size)))
    assert shape == (2, 3, *size), "whatever the size, it is the same out as in"
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "gradient_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
marks = 0
reached = student_eval(
    "[n := UNet(1, 2), n(x).square().sum().backward(),"
    " [p.grad is not None and bool(p.grad.any()) for p in n.parameters()]][-1]",
    x=torch.linspace(-2, 3, 2 * 16 * 16).reshape(2, 1, 16, 16),
)
marks += len(reached) > 0 and all(reached)
### BEGIN HIDDEN TESTS
marks += len(reached) == 32
deep = student_eval(
    "[n := UNet(1, 2, (2, 2, 2, 2)), n(x).square().sum().backward(),"
    " [p.grad is not None for p in n.parameters()]][-1]",
    x=torch.linspace(-2, 3, 2 * 16 * 16).reshape(2, 1, 16, 16),
)
marks += len(deep) == 44 and all(deep)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 5. Answering for one picture
#
# In training mode the answer for a picture depends on its company, and every picture that passes leaves a trace in the running averages. So prediction has a function of its own.


# %% nbgrader={"grade": false, "grade_id": "predict", "locked": false, "schema_version": 3, "solution": true, "task": false}
def predict(net, picture):
    """Class indices (H, W) of a picture (channels, H, W), by the network in evaluation mode.

    Nothing of the network is changed; it may be in either mode before and is in evaluation mode
    afterwards.
    """
    ### BEGIN SOLUTION
    net.eval()
    with torch.inference_mode():
        return net(picture[None])[0].argmax(dim=0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "predict_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
one = torch.linspace(-1, 1, 6 * 7).reshape(1, 6, 7)
labels = student_eval("predict(filled(UNet(1, 3)), x)", x=one)
assert tuple(labels.shape) == (6, 7), "one class index for each pixel"
### BEGIN HIDDEN TESTS
tiny = "nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 1))"
ramp = torch.linspace(0, 1, 12).reshape(1, 3, 4)
asked = (
    f"[torch.manual_seed(0), n := {tiny}, n[1].weight.data.copy_(w), n[1].bias.data.copy_(b),"
    " n.train(), predict(n, x), [float(v.sum()) for v in n.buffers()], n.training]"
)
said = student_eval(
    f"{asked}[-3:]",
    x=ramp,
    w=torch.tensor([1.0, -1, 0]).reshape(3, 1, 1, 1),
    b=torch.tensor([-0.5, 0.5, 0.2]),
)
expected = torch.where((ramp[0] - 0.5).abs() < 0.2, 2, (ramp[0] < 0.5).long())
assert torch.equal(torch.as_tensor(said[0]), expected), (
    "evaluation mode normalises by the running averages, not by this picture"
)
assert said[1] == [0.0, 1.0, 0.0], "the running averages must stay as they were"
assert said[2] is False, "afterwards the network is in evaluation mode"
### END HIDDEN TESTS

# %% [markdown]
# ## 6. In words
#
# You want to know what the skips are worth for your own data. In three to five sentences: what would you train and compare, what must be the same in both, where in the picture would you look, and which conclusion would the experiment not allow?

# %% [markdown] nbgrader={"grade": true, "grade_id": "in_words", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Train the network as it is and one that is fed zeros in place of each skip, so that the number of
# weights stays; same data, order, schedule and steps, and several seeds each, for the difference
# must be larger than what seeds do. Compare the mean IoU near boundaries and away from them: the
# skips should help near them. It does not show that skips are needed: another network, such as one
# that keeps a high resolution, may place its boundaries as well without any.
# ### END SOLUTION

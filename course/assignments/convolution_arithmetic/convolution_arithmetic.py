# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Convolution arithmetic
#
# Eight questions on chapter [05](../../05_convolution_arithmetic.ipynb), and for multiplications on [20](../../20_gpu_training.ipynb), in NumPy. Write where it says `YOUR CODE HERE`; the cell below each answer tests a part of it, and further tests are run when the notebook is graded. A layer is a tuple `(kernel, stride, padding, dilation)` of whole numbers, the same along both axes.
#
# The next cell holds what your own numbers are drawn from. Leave it as it is: when the notebook is graded it is set again.

# %% tags=["parameters"]
seed = 0
student = "demo"

# %% nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
from random import Random

import numpy as np

# %% [markdown]
# ## 1. Sizes along a chain
#
# A network goes down layer by layer, and each layer's floor may lose a pixel that no later one can bring back. So sizes are computed one after another, never at once.


# %% nbgrader={"grade": false, "grade_id": "sizes", "locked": false, "schema_version": 3, "solution": true, "task": false}
def sizes(n, layers):
    """The size of the map after each layer, along one axis.

    Args:
        n: Pixels at the input.
        layers: Tuples (kernel, stride, padding, dilation), the first reads the input.

    Returns:
        A list of whole numbers, one for each layer.
    """
    ### BEGIN SOLUTION
    found = []
    for kernel, stride, padding, dilation in layers:
        n = (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        found.append(int(n))
    return found
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "sizes_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert list(sizes(8, [(3, 1, 0, 1)])) == [6], "a kernel of 3 has six places on 8 pixels"
assert list(sizes(8, [(3, 2, 1, 1)])) == [4], "8 pixels, padded to 10, with stride 2: four places"
### BEGIN HIDDEN TESTS
assert list(sizes(11, [(3, 1, 2, 2)])) == [11], (
    "dilation widens the kernel, padding counts at both ends"
)
assert list(sizes(10, [(2, 3, 0, 3)])) == [3], "a kernel of 2 with dilation 3 spans 4 pixels"
assert list(sizes(97, [(3, 2, 1, 1)] * 5)) == [49, 25, 13, 7, 4], (
    "each layer reads the map before it"
)
assert list(sizes(12, [(5, 2, 1, 1)])) == [5], "padding may be less than half a kernel"
assert list(sizes(7, [(2, 2, 0, 1)])) == [3], "a place that would hang over the end is none"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. How far does a pixel see, and from where?
#
# The width of the field alone does not say *which* pixels it holds. The field's first pixel does: number the input's pixels from 0, then padding makes the first output begin left of them, at a negative number.


# %% nbgrader={"grade": false, "grade_id": "field", "locked": false, "schema_version": 3, "solution": true, "task": false}
def field(layers):
    """What one output sees of the input, along one axis.

    Args:
        layers: Tuples (kernel, stride, padding, dilation), the first reads the input.

    Returns:
        (width, jump, first): the field's width in input pixels; input pixels from one output to
        the next; the number of the first input pixel in the field of output 0.
    """
    ### BEGIN SOLUTION
    width, jump, first = 1, 1, 0
    for kernel, stride, padding, dilation in layers:
        width += dilation * (kernel - 1) * jump
        first -= padding * jump
        jump *= stride
    return width, jump, first
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "field_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
marks += tuple(field([(3, 1, 1, 1), (3, 1, 1, 1)])) == (5, 1, -2)
### BEGIN HIDDEN TESTS
chain = [(3, 1, 0, 1), (2, 2, 0, 1), (3, 1, 0, 1), (3, 1, 0, 2)]
marks += tuple(field(chain))[:2] == (16, 2)
begins = [field([(3, 2, n, 1), (3, 2, 1, 1)])[2] for n in (0, 1)]
marks += begins == [-2, -3]
marks += tuple(field([(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 4, 4)])) == (43, 4, -21)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 3. Your own network
#
# Nobody has the same network. Yours is drawn from `seed`: five layers on pictures of `n` pixels a side. Fill in what it does; write the numbers down by hand, or let your functions compute them.


# %% nbgrader={"grade": false, "grade_id": "network", "locked": true, "schema_version": 3, "solution": false, "task": false}
def network_of(seed):
    """A picture's size, and five layers of a network that is the seed's own."""
    draw = Random(seed).random
    n, layers = 90 + int(110 * draw()), []
    for _ in range(5):
        kernel, stride, dilation = 3 + 2 * int(3 * draw()), 1 + int(2 * draw()), 1 + int(2 * draw())
        layers.append((kernel, stride, dilation * (kernel - 1) // 2, dilation))
    return n, layers


n, layers = network_of(seed)
student, n, layers


# %% nbgrader={"grade": false, "grade_id": "mine", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
mine = dict(zip(("width", "jump", "first"), field(layers), strict=True), size=sizes(n, layers)[-1])
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "mine_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
assert set(mine) == {"size", "width", "jump", "first"}, (
    'mine is a dict with the four entries "size", "width", "jump" and "first"'
)
### BEGIN HIDDEN TESTS
pixels, drawn = network_of(seed)
sees, step, begins = 1, 1, 0
for k, s, p, d in drawn:
    pixels = (pixels + 2 * p - d * (k - 1) - 1) // s + 1
    sees, begins, step = sees + d * (k - 1) * step, begins - p * step, step * s
marks += mine["size"] == pixels
marks += mine["width"] == sees
marks += mine["jump"] == step
marks += mine["first"] == begins
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 4. The way back
#
# A transposed convolution with the same four numbers makes the map large again. Where the floor had forgotten pixels, it needs to be told how many: its *output padding*, 0 to stride - 1 further pixels at the end.


# %% nbgrader={"grade": false, "grade_id": "way_back", "locked": false, "schema_version": 3, "solution": true, "task": false}
def transposed_size(n, kernel, stride, padding, dilation, output_padding=0):
    """The size that a transposed convolution makes of n pixels."""
    ### BEGIN SOLUTION
    return stride * (n - 1) + dilation * (kernel - 1) + 1 - 2 * padding + output_padding
    ### END SOLUTION


def forgotten(n, kernel, stride, padding, dilation):
    """The output padding with which a transposed convolution leads back to exactly n pixels,
    after a convolution with the same four numbers made n smaller.
    """
    ### BEGIN SOLUTION
    return (n + 2 * padding - dilation * (kernel - 1) - 1) % stride
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "way_back_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
marks += transposed_size(2, 3, 2, 0, 1) == 5
marks += forgotten(8, 2, 2, 0, 1) == 0 and forgotten(9, 2, 2, 0, 1) == 1
### BEGIN HIDDEN TESTS
marks += [transposed_size(6, 3, 2, 1, 1, 1), transposed_size(5, 4, 3, 2, 2)] == [12, 15]
marks += all(
    0 <= forgotten(n, k, s, p, d) < s
    and s * ((n + 2 * p - d * (k - 1) - 1) // s) + d * (k - 1) + 1 - 2 * p
    == n - forgotten(n, k, s, p, d)
    for n, k, s, p, d in [(97, 3, 2, 1, 1), (98, 3, 2, 1, 1), (50, 5, 4, 2, 1), (31, 3, 3, 2, 2)]
)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 5. Who is painted twice?
#
# Each pixel of the small map stamps a kernel onto the large one, `stride` pixels after the last stamp. Where stamps overlap they add up. If some pixels are covered more often than others, a flat map becomes a pattern: the checkerboard.


# %% nbgrader={"grade": false, "grade_id": "cover", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cover(n, kernel, stride):
    """How many stamps cover each pixel of a transposed convolution's output, along one axis.

    Args:
        n: Pixels of the small map.
        kernel: Length of a stamp; no padding, no dilation.
        stride: Pixels from one stamp's start to the next.

    Returns:
        An array of whole numbers, as long as the output.
    """
    ### BEGIN SOLUTION
    count = np.zeros(stride * (n - 1) + kernel, dtype=int)
    for i in range(n):
        count[i * stride : i * stride + kernel] += 1
    return count
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "cover_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert np.array_equal(cover(3, 2, 2), [1] * 6), "stamps of 2 at stride 2 cover each pixel once"
assert np.array_equal(cover(3, 3, 1), [1, 2, 3, 2, 1]), "at stride 1 the middle is covered most"
### BEGIN HIDDEN TESTS
assert np.array_equal(cover(4, 3, 2), [1, 1, 2, 1, 2, 1, 2, 1, 1]), (
    "stamps of 3 at stride 2 overlap in every second pixel"
)
assert np.array_equal(cover(4, 4, 2)[2:-2], [2] * 6), "where the stride divides, the cover is even"
assert np.array_equal(cover(2, 2, 3), [1, 1, 0, 1, 1]), "short stamps leave gaps"
### END HIDDEN TESTS

# %% [markdown]
# ## 6. What does it cost?
#
# Weights decide what has to be stored, multiplications how long it takes, and the two have little to do with each other: only one of them knows the picture's size. Layers now say their channels as well.


# %% nbgrader={"grade": false, "grade_id": "cost", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cost(height, width, layers):
    """Weights and multiplications of a chain of convolutions on one picture.

    Args:
        height, width: The picture's.
        layers: Tuples (channels in, channels out, kernel, stride, padding, groups); without
            dilation, kernels are square. Each layer has a bias, which is a weight and multiplies
            nothing. With groups, each output channel reads only its own group's input channels.

    Returns:
        (weights, multiplications) of all layers together.
    """
    ### BEGIN SOLUTION
    weights = multiplications = 0
    for before, after, kernel, stride, padding, groups in layers:
        height = (height + 2 * padding - kernel) // stride + 1
        width = (width + 2 * padding - kernel) // stride + 1
        taps = before // groups * kernel**2 * after
        weights += taps + after
        multiplications += taps * height * width
    return weights, multiplications
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "cost_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
marks += cost(10, 10, [(3, 16, 3, 1, 1, 1)])[0] == 448
marks += cost(10, 10, [(3, 16, 3, 1, 1, 1)])[1] == 43200
### BEGIN HIDDEN TESTS
marks += tuple(cost(9, 12, [(4, 8, 3, 2, 0, 1), (8, 2, 1, 1, 0, 1)])) == (314, 6080)
marks += tuple(cost(8, 8, [(6, 6, 3, 1, 1, 6), (6, 12, 1, 1, 0, 3)])) == (96, 4992)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 7. The convolution itself
#
# Loops are slow, and they are the definition that faster ones are tested against. As in all networks the kernel is not turned round.


# %% nbgrader={"grade": false, "grade_id": "convolve", "locked": false, "schema_version": 3, "solution": true, "task": false}
def convolve(x, w, stride=1, padding=0, dilation=1):
    """A convolution with zeros around the picture.

    Args:
        x: (C, H, W).
        w: (O, C, k, k).

    Returns:
        (O, H', W').
    """
    ### BEGIN SOLUTION
    outputs, _, kernel, _ = w.shape
    span = dilation * (kernel - 1) + 1
    padded = np.pad(x, [(0, 0), (padding, padding), (padding, padding)])
    rows, columns = ((size - span) // stride + 1 for size in padded.shape[1:])
    y = np.zeros((outputs, rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            seen = padded[:, top : top + span : dilation, left : left + span : dilation]
            y[:, i, j] = (w * seen).sum(axis=(1, 2, 3))
    return y
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "convolve_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
numbers = np.arange(12.0).reshape(1, 3, 4)
corner = np.array([[[[1.0, 0], [0, 2]]]])
assert np.allclose(convolve(numbers, corner), [[[10, 13, 16], [22, 25, 28]]]), (
    "each output is its upper left pixel and twice its lower right one"
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(7)
picture, kernels = rng.normal(size=(3, 7, 9)), rng.normal(size=(2, 3, 3, 3))


def by_taps(x, w, stride, padding, dilation):
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding)])
    h, v = ((m - 2 * dilation - 1) // stride + 1 for m in x.shape[1:])
    y = np.zeros((len(w), h, v))
    for a in range(3):
        for b in range(3):
            moved = x[:, a * dilation :: stride, b * dilation :: stride][:, :h, :v]
            y += np.einsum("oc,chw->ohw", w[:, :, a, b], moved)
    return y


for setting, message in [
    ((1, 0, 1), "channels in are summed, each output channel has kernels of its own"),
    ((1, 1, 1), "zeros are around the picture on all four sides"),
    ((2, 1, 1), "with stride 2 every second place is read"),
    ((1, 0, 2), "with dilation 2 taps lie two pixels apart"),
    ((3, 2, 2), "stride, padding and dilation go together"),
]:
    assert (
        np.shape(convolve(picture, kernels, *setting)) == by_taps(picture, kernels, *setting).shape
    ), "the output's size is not that of question 1"
    assert np.allclose(convolve(picture, kernels, *setting), by_taps(picture, kernels, *setting)), (
        message
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 8. In words
#
# A decoder doubles its maps by transposed convolutions with kernel 3 and stride 2, and its masks have a fine chequered rim. In three to five sentences: where does the pattern come from, why may training not remove it, and which two changes would you try?

# %% [markdown] nbgrader={"grade": true, "grade_id": "in_words", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Stamps of 3 that lie 2 apart cover every second row and column twice, so a flat map becomes a map
# of 1, 2 and 4. Training could learn weights that level it out, but nothing ties the weights of the
# four places of a cell together, and the gradient has the same pattern. Enlarge by copying or
# bilinearly and convolve afterwards; or take a kernel that the stride divides, such as 4 or 2,
# which levels the cover though not the weights.
# ### END SOLUTION

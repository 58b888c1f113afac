# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Pixel-wise cross-entropy and its gradient
#
# Six questions on chapter [06](../../06_cross_entropy.ipynb), in NumPy. Write where it says `YOUR CODE HERE`; the cell below each answer tests a part of it, and further tests are run when the notebook is graded. Logits $z$ are arrays (C, N): C classes of N pixels. The target $y$ holds a class index for each pixel, (N,), and 255 where there is no label.

# %% nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import numpy as np

IGNORE = 255

# %% [markdown]
# ## 1. Log-sum-exp that does not overflow


# %% nbgrader={"grade": false, "grade_id": "log_sum_exp", "locked": false, "schema_version": 3, "solution": true, "task": false}
def log_sum_exp(z):
    """ln(sum of exp(z)) over the classes, finite for all finite logits.

    Args:
        z: (C, N).

    Returns:
        (N,).
    """
    ### BEGIN SOLUTION
    top = z.max(axis=0)
    return top + np.log(np.exp(z - top).sum(axis=0))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "log_sum_exp_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
small = np.log(np.array([[1.0, 2.0], [3.0, 6.0]]))
assert np.allclose(log_sum_exp(small), np.log([4.0, 8.0])), "of ln 1 and ln 3 it is ln 4"
### BEGIN HIDDEN TESTS
assert np.shape(log_sum_exp(small)) == (2,), "one number for each pixel"
assert np.allclose(log_sum_exp(np.array([[1000.0], [1000.0]])), 1000 + np.log(2)), (
    "logits of 1000 overflow"
)
assert np.allclose(log_sum_exp(np.array([[-1000.0], [-1001.0]])), -1000 + np.log1p(np.exp(-1))), (
    "logits of -1000 vanish"
)
mixed = np.array([[1e4, -1e4], [0.0, 0.0]])
assert np.allclose(log_sum_exp(mixed), [1e4, 0.0]), "each pixel has a greatest logit of its own"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Softmax


# %% nbgrader={"grade": false, "grade_id": "softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
def softmax(z):
    """Probabilities of the classes of each pixel.

    Args:
        z: (C, N) logits.

    Returns:
        (C, N); each column sums to 1.
    """
    ### BEGIN SOLUTION
    return np.exp(z - log_sum_exp(z))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "softmax_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert np.allclose(softmax(np.log(np.array([[1.0], [3.0]]))), [[0.25], [0.75]]), (
    "ln 1 and ln 3 give 1/4 and 3/4"
)
### BEGIN HIDDEN TESTS
wide = softmax(np.array([[0.0, 1.0, 2.0], [0.0, -1.0, 5.0]]))
assert np.allclose(wide.sum(axis=0), 1), (
    "the classes of a pixel sum to 1, not the pixels of a class"
)
far = np.array([[1000.0, -2000.0], [-1000.0, -2000.0]])
assert np.allclose(softmax(far), [[1.0, 0.5], [0.0, 0.5]], atol=1e-3), (
    "large logits must not give nan"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The loss
#
# The mean of $-\ln p_y$ over the pixels *that have a label*; 0 if none has.


# %% nbgrader={"grade": false, "grade_id": "cross_entropy", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cross_entropy(z, y):
    """Mean cross-entropy over the labelled pixels; 0.0 without any.

    Args:
        z: (C, N) logits.
        y: (N,) class indices, or IGNORE.
    """
    ### BEGIN SOLUTION
    labelled = np.flatnonzero(y != IGNORE)
    if not len(labelled):
        return 0.0
    return float((log_sum_exp(z)[labelled] - z[y[labelled], labelled]).mean())
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "cross_entropy_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
quarters = np.log(np.array([[1.0, 1.0], [3.0, 3.0]]))
assert np.isclose(cross_entropy(quarters, np.array([1, 1])), -np.log(0.75)), (
    "p of the true class is 3/4"
)
### BEGIN HIDDEN TESTS
assert np.isclose(cross_entropy(quarters, np.array([0, 1])), -np.log(0.25 * 0.75) / 2), (
    "the mean over two pixels"
)
assert np.isclose(cross_entropy(quarters, np.array([0, 255])), -np.log(0.25)), (
    "a pixel without a label counts neither above nor below the line"
)
assert cross_entropy(quarters, np.array([255, 255])) == 0, "without any label the loss is 0"
assert np.isclose(cross_entropy(np.array([[2000.0], [0.0]]), np.array([1])), 2000), (
    "a sure mistake costs its logit, not infinity"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Its gradient
#
# In the logits it is $(p - y) / n$, with $y$ as a one-hot column and $n$ labelled pixels.


# %% nbgrader={"grade": false, "grade_id": "gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
def gradient(z, y):
    """The gradient of `cross_entropy` in the logits; 0 for pixels without a label.

    Args:
        z: (C, N) logits.
        y: (N,) class indices, or IGNORE.

    Returns:
        (C, N).
    """
    ### BEGIN SOLUTION
    labelled = np.flatnonzero(y != IGNORE)
    d = np.zeros_like(z, dtype=float)
    if len(labelled):
        d[:, labelled] = softmax(z)[:, labelled]
        d[y[labelled], labelled] -= 1
        d /= len(labelled)
    return d
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "gradient_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
two = np.log(np.array([[1.0, 1.0], [3.0, 3.0]]))
marks += np.allclose(gradient(two, np.array([1, 1])), [[0.125, 0.125], [-0.125, -0.125]])
### BEGIN HIDDEN TESTS
marks += np.allclose(gradient(two, np.array([0, 255])), [[-0.75, 0], [0.75, 0]])
marks += np.allclose(gradient(two, np.array([255, 255])), 0)
logits = np.random.default_rng(3).normal(size=(4, 6))
classes = np.array([0, 1, 2, 3, 255, 1])
step = 1e-6
counted = np.zeros_like(logits)
for i in np.ndindex(logits.shape):
    moved = logits.copy()
    moved[i] += step
    rest = classes != 255
    parts = [
        np.log(np.exp(x).sum(0))[rest] - x[classes[rest], np.flatnonzero(rest)]
        for x in (moved, logits)
    ]
    counted[i] = (parts[0].mean() - parts[1].mean()) / step
marks += np.allclose(gradient(logits, classes), counted, atol=1e-4)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 5. Weights of classes
#
# Rare classes may weigh more. With a weight $w_c$ for each class, the loss is the *weighted mean*: $\sum w_{y_i} (-\ln p_{y_i}) / \sum w_{y_i}$ over the labelled pixels.


# %% nbgrader={"grade": false, "grade_id": "weighted", "locked": false, "schema_version": 3, "solution": true, "task": false}
def weighted(z, y, w):
    """The weighted mean of the cross-entropy of the labelled pixels; 0.0 without any.

    Args:
        z: (C, N) logits.
        y: (N,) class indices, or IGNORE.
        w: (C,) weights above 0.
    """
    ### BEGIN SOLUTION
    labelled = np.flatnonzero(y != IGNORE)
    if not len(labelled):
        return 0.0
    each = log_sum_exp(z)[labelled] - z[y[labelled], labelled]
    return float((w[y[labelled]] * each).sum() / w[y[labelled]].sum())
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "weighted_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
apart = np.log(np.array([[1.0, 1.0], [3.0, 3.0]]))
plain, heavy = np.array([1.0, 1.0]), np.array([3.0, 1.0])
assert np.isclose(weighted(apart, np.array([0, 1]), plain), -np.log(3 / 16) / 2), (
    "equal weights give the plain mean"
)
### BEGIN HIDDEN TESTS
expected = -(3 * np.log(0.25) + np.log(0.75)) / 4
assert np.isclose(weighted(apart, np.array([0, 1]), heavy), expected), (
    "the sum is divided by the weights of the pixels there"
)
assert np.isclose(weighted(apart, np.array([0, 0]), heavy), -np.log(0.25)), (
    "one class alone: its weight falls out"
)
assert np.isclose(weighted(apart, np.array([255, 1]), heavy), -np.log(0.75)), (
    "a pixel without a label counts neither above nor below the line"
)
assert np.isclose(weighted(2000 * np.eye(2), np.array([1, 0]), heavy), 2000), (
    "a sure mistake costs its logit, not infinity"
)
assert weighted(apart, np.array([255, 255]), heavy) == 0, "without any label the loss is 0"
### END HIDDEN TESTS

# %% [markdown]
# ## 6. In words
#
# A network has a sigmoid for each of C exclusive classes and is trained with binary cross-entropy. In three to five sentences: what is its gradient in a logit, what does it not know that a softmax knows, and when would you choose it all the same?

# %% [markdown] nbgrader={"grade": true, "grade_id": "in_words", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# It is p - y for each class by itself, as with the softmax. It does not know that exactly one class
# is right: its probabilities need not sum to 1, and raising one logit lowers no other. It is right
# where labels may overlap, and in mask heads where classes should not compete.
# ### END SOLUTION

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Masks and metrics
#
# Five questions on chapters [02](../../02_masks_and_data.ipynb) and [08](../../08_metrics.ipynb). Write where it says `YOUR CODE HERE`; the cell below each answer tests a part of it, and you may run it as often as you like. Further tests are run when the notebook is graded. Masks are arrays of class indices, (H, W), and 255 marks a pixel without a label.

# %% nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import numpy as np

IGNORE = 255

# %% [markdown]
# ## 1. From colours to classes
#
# A mask is stored as a picture: class $c$ has the colour `palette[c]`, and every colour that is not in the palette means *no label*.


# %% nbgrader={"grade": false, "grade_id": "from_colours", "locked": false, "schema_version": 3, "solution": true, "task": false}
def from_colours(picture, palette):
    """Class indices of a picture of colours.

    Args:
        picture: (H, W, 3) uint8.
        palette: (C, 3) uint8; C is at most 255.

    Returns:
        (H, W) int64: the index of each pixel's colour, or IGNORE.
    """
    ### BEGIN SOLUTION
    mask = np.full(picture.shape[:2], IGNORE, dtype=np.int64)
    for index, colour in enumerate(palette):
        mask[(picture == colour).all(axis=2)] = index
    return mask
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "from_colours_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
palette = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], dtype=np.uint8)
drawn = palette[np.array([[0, 1], [2, 1]])]
answer = from_colours(drawn, palette)
assert np.array_equal(answer, [[0, 1], [2, 1]]), "the colours of the palette are not found"
assert answer.dtype == np.int64, f"expected int64, found {answer.dtype}"
### BEGIN HIDDEN TESTS
drawn[0, 0] = (224, 224, 192)
assert from_colours(drawn, palette)[0, 0] == 255, "a colour that is not in the palette has no label"
half = np.array([[[128, 0, 0], [128, 128, 0], [0, 0, 128]]], dtype=np.uint8)
assert np.array_equal(from_colours(half, palette), [[1, 255, 255]]), "all three channels count"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Counting


# %% nbgrader={"grade": false, "grade_id": "confusion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def confusion(prediction, target, num_classes):
    """How many pixels of each true class got each predicted class.

    Args:
        prediction: (H, W) of class indices 0..C-1.
        target: (H, W) of class indices, or IGNORE; such pixels do not count.
        num_classes: C.

    Returns:
        (C, C) int64: rows are true classes, columns predicted ones.
    """
    ### BEGIN SOLUTION
    labelled = target != IGNORE
    pairs = target[labelled].astype(np.int64) * num_classes + prediction[labelled]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "confusion_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
target = np.array([[0, 0, 1], [1, 1, 255]])
prediction = np.array([[0, 1, 1], [1, 0, 0]])
counts = confusion(prediction, target, 2)
assert np.shape(counts) == (2, 2), f"expected a table of 2 x 2, found {np.shape(counts)}"
assert np.sum(counts) == 5, "five pixels have a label"
### BEGIN HIDDEN TESTS
assert np.array_equal(counts, [[1, 1], [1, 2]]), (
    "the counts are not those of true against predicted"
)
lopsided = confusion(np.zeros((4, 4), dtype=int), np.ones((4, 4), dtype=int), 3)
assert lopsided[1][0] == 16, "rows are true classes, columns predicted ones"
nothing = confusion(np.zeros((2, 2), dtype=int), np.full((2, 2), 255), 2)
assert np.array_equal(nothing, np.zeros((2, 2))), "without a label there is nothing to count"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Intersection over union


# %% nbgrader={"grade": false, "grade_id": "iou", "locked": false, "schema_version": 3, "solution": true, "task": false}
def iou(counts):
    """The IoU of each class, from a table of counts whose rows are true classes.

    Args:
        counts: (C, C) of counts.

    Returns:
        (C,) float64 in [0, 1]; nan for a class that is neither there nor predicted.
    """
    ### BEGIN SOLUTION
    hit = np.diag(counts).astype(float)
    union = counts.sum(0) + counts.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "iou_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
score = 0.0
table = np.array([[6, 2], [1, 3]])
if np.allclose(iou(table), [6 / 9, 3 / 6]):
    score += 1
### BEGIN HIDDEN TESTS
if np.allclose(
    iou(np.array([[5, 0, 0], [0, 0, 0], [1, 0, 4]])), [5 / 6, np.nan, 4 / 5], equal_nan=True
):
    score += 1
if np.allclose(iou(np.array([[0, 3], [0, 7]])), [0, 7 / 10]):
    score += 1
### END HIDDEN TESTS
score

# %% [markdown]
# ## 4. The whole set, or a mean of means?
#
# Pictures differ: in one the class fills half of the pixels, in the next it is a speck.


# %% nbgrader={"grade": false, "grade_id": "set_iou", "locked": false, "schema_version": 3, "solution": true, "task": false}
def set_iou(predictions, targets, num_classes):
    """The IoU of each class over all pixels of a set of pictures.

    Args:
        predictions: Masks (H, W), each of its own size.
        targets: The same, with IGNORE where there is no label.
        num_classes: C.

    Returns:
        (C,) float64 in [0, 1].
    """
    ### BEGIN SOLUTION
    tables = [confusion(p, t, num_classes) for p, t in zip(predictions, targets, strict=True)]
    return iou(np.sum(tables, axis=0))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "set_iou_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
one = [np.array([[0, 1, 1, 1]])], [np.array([[0, 0, 1, 1]])]
assert np.allclose(set_iou(*one, 2), [1 / 2, 2 / 3]), "of one picture it is the picture's IoU"
### BEGIN HIDDEN TESTS
large, speck = np.ones((10, 10), dtype=int), np.zeros((10, 10), dtype=int)
speck[0, 0] = 1
missed = np.zeros((10, 10), dtype=int)
got = set_iou([large, missed], [large, speck], 2)
assert np.allclose(got, [99 / 100, 100 / 101]), (
    "the counts of all pictures are added before dividing"
)
guess, void = np.array([[0, 1], [0, 0]]), np.array([[255, 1], [0, 1]])
got = set_iou([guess, missed], [void, speck], 2)
assert np.allclose(got, [100 / 102, 1 / 3]), (
    "pictures of any size count, and pixels without a label do not"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. In words
#
# A colleague reports the mean of the IoUs of all batches as "the IoU of the test set". In three to five sentences: when does it differ from the IoU of the whole set, in which direction, and what would you report?

# %% [markdown] nbgrader={"grade": true, "grade_id": "in_words", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The mean weighs every batch alike, whatever share of a class's pixels lies in it. Batches with few
# pixels of a class, where one miss costs much, pull it down; it also depends on the size and the
# order of the batches. Report the IoU of the summed table of counts, and say how it was summed.
# ### END SOLUTION

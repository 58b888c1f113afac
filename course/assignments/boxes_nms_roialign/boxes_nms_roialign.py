# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Boxes, non-maximum suppression and RoIAlign
#
# Eight questions on chapters [16](../../16_boxes_and_anchors.ipynb) and [18](../../18_mask_rcnn.ipynb), in NumPy. Write where it says `YOUR CODE HERE`; the cell below each answer tests a part of it, and further tests are run when the notebook is graded. Boxes are (x1, y1, x2, y2) in pixels, edges that lie between pixels: (0, 0) is the outer corner of the first pixel, and a box that holds only that pixel is (0, 0, 1, 1).

# %% nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import numpy as np

# %% [markdown]
# ## 1. From a mask to its box
#
# Most boxes are made from masks. Whoever takes the last pixel's index for the edge makes every box one pixel too small, and the smallest vanish.


# %% nbgrader={"grade": false, "grade_id": "box_of", "locked": false, "schema_version": 3, "solution": true, "task": false}
def box_of(mask):
    """The smallest box around the pixels of a mask.

    Args:
        mask: (H, W) of bool.

    Returns:
        (4,) XYXY, outer edges; four zeros if the mask is empty.
    """
    ### BEGIN SOLUTION
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.zeros(4)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "box_of_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
mask = np.zeros((5, 8), dtype=bool)
mask[1:3, 2:7] = True
assert np.shape(box_of(mask)) == (4,), "a box is four numbers"
assert np.allclose(box_of(mask)[:2], [2, 1]), "x, the column, comes before y"
### BEGIN HIDDEN TESTS
assert np.allclose(box_of(mask), [2, 1, 7, 3]), "the far edges lie behind the last pixel"
speck = np.zeros((4, 4), dtype=bool)
speck[3, 0] = True
assert np.allclose(box_of(speck), [0, 3, 1, 4]), "one pixel has a box of one pixel"
assert np.allclose(box_of(np.eye(6)[1:5, ::-1] > 0), [1, 0, 5, 4]), "no shape is a rectangle"
assert np.allclose(box_of(np.zeros((3, 3), dtype=bool)), 0), "of an empty mask it is four zeros"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Overlap
#
# Everything that follows compares boxes, so the odd pairs have to be right as well: boxes that only touch, that lie apart in both directions, and boxes without area.


# %% nbgrader={"grade": false, "grade_id": "iou", "locked": false, "schema_version": 3, "solution": true, "task": false}
def iou(one, other):
    """Intersection over union of each of N with each of M boxes; 0 where the union is empty.

    Args:
        one: (N, 4).
        other: (M, 4).

    Returns:
        (N, M).
    """
    ### BEGIN SOLUTION
    a, b = one[:, None], other[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(axis=-1) for x in (a, b)]
    union = areas[0] + areas[1] - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "iou_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
first, second = np.array([[0.0, 0, 4, 2]]), np.array([[2.0, 1, 6, 3], [0, 0, 4, 2], [4, 0, 8, 2]])
overlaps = iou(first, second)
assert np.shape(overlaps) == (1, 3), "one box with three: a table of 1 x 3"
marks += np.allclose(overlaps, [[1 / 7, 1, 0]])
### BEGIN HIDDEN TESTS
marks += np.allclose(iou(first, np.array([[5.0, 3, 9, 9], [5, 0, 6, 2]])), 0)
flat = np.array([[3.0, 3, 3, 3], [1, 1, 1, 2]])
marks += np.allclose(iou(flat, flat), 0) and np.allclose(iou(first, flat), 0)
many = np.array([[0.0, 0, 10, 10], [2, 0, 12, 10], [0.5, 0.5, 1.5, 1.5]])
marks += np.allclose(iou(many, many[:2]), [[1, 2 / 3], [2 / 3, 1], [1 / 100, 0]])
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 3. What the network says
#
# Moves in widths and heights of the anchor, sizes as logarithms: so one mistake costs the same near and far, small and large.


# %% nbgrader={"grade": false, "grade_id": "coding", "locked": false, "schema_version": 3, "solution": true, "task": false}
def encode(boxes, anchors):
    """(dx, dy, dw, dh) that turn each anchor into its box; all three are (N, 4)."""
    ### BEGIN SOLUTION
    size, anchor_size = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    moved = (boxes[:, :2] + size / 2 - anchors[:, :2] - anchor_size / 2) / anchor_size
    return np.concatenate([moved, np.log(size / anchor_size)], axis=1)
    ### END SOLUTION


def decode(deltas, anchors):
    """The boxes that (dx, dy, dw, dh) make of the anchors; all three are (N, 4)."""
    ### BEGIN SOLUTION
    size = anchors[:, 2:] - anchors[:, :2]
    centre = anchors[:, :2] + size / 2 + deltas[:, :2] * size
    half = size * np.exp(deltas[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "coding_test", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
marks = 0
anchor, goal = np.array([[0.0, 0, 10, 20]]), np.array([[5.0, 10, 25, 20]])
marks += np.allclose(encode(goal, anchor), [[1, 0.25, np.log(2), -np.log(2)]])
### BEGIN HIDDEN TESTS
marks += np.allclose(
    decode(np.array([[0.25, 0, np.log(0.5), 0]]), np.array([[8.0, 8, 72, 40]])), [[40, 8, 72, 40]]
)
rng = np.random.default_rng(5)
corner = rng.uniform(-20, 60, size=(40, 2))
anchors = np.concatenate([corner, corner + rng.uniform(1, 50, size=(40, 2))], axis=1)
goals = np.roll(anchors, 1, axis=0)
marks += np.allclose(decode(encode(goals, anchors), anchors), goals)
marks += np.allclose(encode(3 * goals + 7, 3 * anchors + 7), encode(goals, anchors)) and (
    np.abs(encode(goals, anchors)).max() > 1
)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 4. Of many boxes, one
#
# Take the best box left, drop those that overlap it by *more than* $\tau$, and go on. Who has been dropped drops nobody. Equal scores must not make the answer hang on chance: of two equal ones the first in the list goes first.


# %% nbgrader={"grade": false, "grade_id": "nms", "locked": false, "schema_version": 3, "solution": true, "task": false}
def nms(boxes, scores, tau):
    """Indices of the boxes that stay, best first.

    Args:
        boxes: (N, 4).
        scores: (N,).
        tau: The largest IoU at which both may stay.

    Returns:
        A list or an array of whole numbers.
    """
    ### BEGIN SOLUTION
    left, stay = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        stay.append(int(best))
        left = left[iou(boxes[[best]], boxes[left])[0] <= tau]
    return stay
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nms_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
starts = np.array([0.0, 2, 4, 30])
row = np.stack([starts, 0 * starts, starts + 10, 0 * starts + 10], axis=1)
assert sorted(nms(row[:2], np.array([0.9, 0.8]), 0.5)) == [0], "two of IoU 2/3: the better stays"
### BEGIN HIDDEN TESTS
assert list(nms(row, np.array([0.6, 0.9, 0.7, 0.8]), 0.5)) == [1, 3], "best first"
assert list(nms(row, np.array([0.9, 0.8, 0.7, 0.6]), 0.5)) == [0, 2, 3], (
    "a box that was dropped drops nobody"
)
assert list(nms(row, np.array([0.6, 0.7, 0.8, 0.9]), 0.5)) == [3, 2, 0], "best first"
twins = np.array([[0.0, 0, 4, 4], [0, 0, 4, 4], [20, 20, 24, 24]])
assert list(nms(twins, np.array([0.5, 0.5, 0.5]), 0.5)) == [0, 2], (
    "of equal scores the first in the list goes first"
)
halves = np.array([[0.0, 0, 4, 4], [0, 0, 4, 2]])
assert list(nms(halves, np.array([0.2, 0.1]), 0.5)) == [0, 1], "an IoU of exactly tau may stay"
assert len(nms(np.zeros((0, 4)), np.zeros(0), 0.5)) == 0, "of no boxes none stay"
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Class by class
#
# A disc that lies before a star must not drop it. The known trick moves each class to a place of its own and calls `nms` once; it has to work for boxes that reach out of the picture, too, where coordinates are below 0.


# %% nbgrader={"grade": false, "grade_id": "nms_by_class", "locked": false, "schema_version": 3, "solution": true, "task": false}
def nms_by_class(boxes, scores, labels, tau):
    """Indices of the boxes that stay, best first over all; only boxes of one class drop another.

    Args:
        boxes: (N, 4).
        scores: (N,).
        labels: (N,) class indices.
        tau: The largest IoU at which both may stay.
    """
    ### BEGIN SOLUTION
    stay = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        stay += own[nms(boxes[own], scores[own], tau)].tolist()
    return sorted(stay, key=lambda i: (-scores[i], i))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nms_by_class_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
marks = 0
same = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 1, 10, 11]])
marks += sorted(nms_by_class(same, np.array([0.9, 0.8, 0.7]), np.array([0, 1, 0]), 0.5)) == [0, 1]
### BEGIN HIDDEN TESTS
mixed = np.concatenate([same, same + 50])
order = nms_by_class(
    mixed, np.array([0.3, 0.9, 0.2, 0.8, 0.5, 0.6]), np.array([2, 0, 2, 1, 1, 0]), 0.5
)
marks += list(order) == [1, 3, 5, 0]
outside = np.array([[0.0, 0, 10, 10], [-11, -11, -1, -1]])
marks += list(nms_by_class(outside, np.array([0.9, 0.8]), np.array([0, 1]), 0.5)) == [0, 1]
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 6. Reading between the cells
#
# RoIAlign rounds nothing. It reads a map at places between cells: the first cell's centre lies at (0.5, 0.5), as everywhere in this course. Nearer to the rim than the outermost centres, the value is that of the nearest place between centres.


# %% nbgrader={"grade": false, "grade_id": "bilinear", "locked": false, "schema_version": 3, "solution": true, "task": false}
def bilinear(f, y, x):
    """The value of a map (H, W) at row y and column x, counted from the map's outer corner."""
    ### BEGIN SOLUTION
    height, width = f.shape
    y, x = (min(max(place - 0.5, 0.0), n - 1.0) for place, n in ((y, height), (x, width)))
    i, j = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    down, right = min(i + 1, height - 1), min(j + 1, width - 1)
    a, b = y - i, x - j
    upper = (1 - b) * f[i, j] + b * f[i, right]
    lower = (1 - b) * f[down, j] + b * f[down, right]
    return (1 - a) * upper + a * lower
    ### END SOLUTION


# %% [markdown]
# Now the operator. The box is given in pixels of the picture, the map has one cell for every `stride` pixels.


# %% nbgrader={"grade": false, "grade_id": "roi_align", "locked": false, "schema_version": 3, "solution": true, "task": false}
def roi_align(f, box, bins, stride, samples=2):
    """RoIAlign of a map (H, W) for one box: (bins, bins).

    The box is divided into bins x bins even parts, each is read at samples x samples even places,
    and a bin's value is the mean of what was read.
    """
    ### BEGIN SOLUTION
    x1, y1, x2, y2 = np.asarray(box) / stride
    share = (np.arange(bins * samples) + 0.5) / (bins * samples)
    read = [[bilinear(f, y, x) for x in x1 + (x2 - x1) * share] for y in y1 + (y2 - y1) * share]
    return np.reshape(read, (bins, samples, bins, samples)).mean(axis=(1, 3))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "roi_align_test", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
cells = np.array([[0.0, 10], [20, 40]])
marks = 0
marks += np.isclose(bilinear(cells, 1, 1), 17.5)  # in the middle of four cells: their mean
marks += np.allclose(roi_align(cells, (0, 0, 2, 2), 1, 1, samples=1), [[17.5]])
### BEGIN HIDDEN TESTS
places = [(0.5, 0.5), (0.75, 1.0), (0.0, 0.9), (2.0, 2.0)]  # a centre, between, two in the rim
marks += np.allclose([bilinear(cells, *place) for place in places], [0, 11.25, 4, 40])
plane = 3 * np.arange(5)[:, None] + 2.0 * np.arange(7)[None] + 1
marks += np.isclose(bilinear(plane, 2.3, 5.9), 3 * 1.8 + 2 * 5.4 + 1)
columns = np.tile(np.arange(12.0) + 0.5, (10, 1))
wide = (27.0, 40.0, 138.0, 121.0)
marks += np.allclose(
    roi_align(columns, wide, 3, 16), np.tile((27 + 111 * np.array([1, 3, 5]) / 6) / 16, (3, 1))
)
marks += np.allclose(
    roi_align(columns[:, :10].T, wide, 2, 16, samples=3),
    np.tile((40 + 81 * np.array([[1], [3]]) / 4) / 16, (1, 2)),
)
bent = np.arange(6.0)[:, None] ** 2 * np.ones((1, 6))
marks += np.allclose(roi_align(bent, (1, 1, 5, 5), 2, 1), [[2.5, 2.5], [12.5, 12.5]]) and (
    np.allclose(roi_align(bent, (1, 1, 4, 4), 1, 1, samples=3), 14 / 3)
)
### END HIDDEN TESTS
marks

# %% [markdown]
# ## 7. What rounding costs
#
# RoIPool takes for a box the cells from `floor(low / stride + 0.5)` to `floor(high / stride + 0.5)`, *both included*. At the edge of a mask that is the difference between a sharp outline and a blurred one.


# %% nbgrader={"grade": false, "grade_id": "moved_edges", "locked": false, "schema_version": 3, "solution": true, "task": false}
def moved_edges(low, high, stride):
    """By how many pixels of the picture RoIPool moves a box's two edges along one axis.

    Returns:
        (near, far): above 0 where the edge moves right or down.
    """
    ### BEGIN SOLUTION
    first, last = np.floor(low / stride + 0.5), np.floor(high / stride + 0.5)
    return float(first * stride - low), float((last + 1) * stride - high)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "moved_edges_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert np.isclose(moved_edges(27, 138, 16)[0], 5), "27 / 16 is rounded to 2, which is pixel 32"
### BEGIN HIDDEN TESTS
assert np.isclose(moved_edges(27, 138, 16)[1], 22), "the last cell belongs to the region"
assert np.allclose(moved_edges(41, 119, 16), (7, 9)), "edges are rounded half up, each by itself"
assert np.allclose(moved_edges(64, 128, 32), (0, 32)), "an edge between cells moves, too"
assert np.allclose(moved_edges(40, 143, 16), (8, 17)), "two cells and a half are rounded to three"
assert np.isclose(moved_edges(35, 143, 16)[0], -3), "an edge that moves left has a sign"
### END HIDDEN TESTS

# %% [markdown]
# ## 8. In words
#
# A colleague says: "RoIAlign without `aligned` reads everything half a cell too far right. That is as bad as RoIPool." In three to five sentences: what is the same about the two errors, what is not, which can a network learn to undo, and what follows for someone who loads trained weights?

# %% [markdown] nbgrader={"grade": true, "grade_id": "in_words", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Both read the region away from where it is, by about half a cell on average. Without aligned the
# shift is the same for every box; RoIPool's depends on how each edge happened to be rounded, and
# varies. A constant shift can be undone by a convolution above it, the varying one cannot, since
# the features do not say which way it went. So take the setting that the weights were trained
# with: a mixture is off by half a cell and raises no error.
# ### END SOLUTION

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How are masks stored, and how do they break?
#
# A network learns what its masks say. It does not know what they *mean*: that 255 is no class, that this file stores colours and that one numbers, that the picture was turned and its mask was not.
# No such mistake raises an error. The loss falls, the score is poor, or, worse, excellent. This chapter decodes by hand every way in which masks are stored, moves pictures and masks together,
# and measures how a careless split makes a score that nothing was learned for.
#
# **You will be able to**
#
# - decode a mask from an index or palette PNG, a colour map, a trimap, one PNG per object, a polygon, COCO's run lengths and panoptic ids;
# - say what void is in each, and what becomes of a score that counts it;
# - crop, flip, turn, bend and recolour a picture together with its mask, and name the mistake behind a broken pair;
# - measure leakage between neighbouring frames, and split a set so that it has none;
# - open a folder of your own.
#
# *60 minutes. Before: [first segmentation](01_first_segmentation.ipynb).*

# %% tags=["parameters"]
seed = 0
image_size = 96  # height and width of a scene
drives = 12  # films in the experiment on leakage
frames = 16  # pictures of each film
most_real = 120  # pictures read of each part of a real set, where there is one
least_drive_worth = 0.05  # mean IoU that a lookup gains by CamVid's shared drive
least_same_run = 3.0  # how many times as often as by chance look-alike tiles are of one run

# %%
import io
import json
import math
import struct
import tempfile
import warnings
import zlib
from pathlib import Path

# %%
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from scipy import ndimage
from skimage.draw import polygon2mask
from torchvision import tv_tensors
from torchvision.transforms import functional as transforms_v1
from torchvision.transforms import v2

# %%
from segedu import show
from segedu.check import check, check_at_least, check_at_most
from segedu.data import catalog, rle
from segedu.data.coco import INSTANCES
from segedu.data.folder import Folder
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, PANOPTIC_BASE, Scenes
from segedu.data.transforms import Augmented, random_crop
from segedu.errors import InputError
from segedu.exercises import Exercise
from segedu.metrics.confusion import ConfusionMatrix
from segedu.palette import class_colours

# %% [markdown]
# ## 1. A mask is an array of answers
#
# A picture is an array of colours, `image`, of shape $(3, H, W)$. Its **mask** (掩膜) holds one answer for each pixel (像素), a whole number, in shape $(H, W)$: the index of the pixel's class, $0, \dots, C-1$, or `IGNORE` = 255 for
# *nobody knows*. That last kind of pixel is called **void** (忽略像素).
#
# **Predict:** a scene of this course has six classes. Which numbers can stand in its mask, and which of them is the commonest?

# %%
scenes = Scenes(16, size=image_size, seed=seed)
scene = max(scenes, key=lambda one: len(one["mask"].unique()))  # the one with most classes
image = scene["image"].as_subclass(torch.Tensor)  # (3, H, W)
mask = scene["mask"].as_subclass(torch.Tensor)  # (H, W)
values, counts = mask.unique(return_counts=True)
for value, count in zip(values.tolist(), counts.tolist(), strict=True):
    name = CLASSES[value] if value < 6 else "void"
    print(f"{value:4} {name:9} {count / mask.numel():6.1%}")
check("the ground, 0, is the commonest", values[counts.argmax()], 0)
check("the largest number is void", values.max(), IGNORE)

# %% alt="A scene with several objects, and beside it its mask: each object in the colour of its class, the ground dark grey, and a thin white ring of void around each object."
fig, axes = show.grid(1, 2, "A picture, and an answer for each of its pixels", width=3.8, height=3)
show.image(axes[0], image, "picture: colours")
show.mask(axes[1], mask, "mask: class indices (void is white)", num_classes=6)
show.legend(fig, CLASSES)

# %% [markdown]
# Those six lines are worth a habit. **Whenever a new set arrives, count the values of its masks before anything else.** A class that nobody told you of, a 255 among 0s and 1s, a mask with 200 different numbers: each is a mistake caught before it is trained.
#
# The colours on the right are ours, chosen for the figure. The file holds numbers. The next sections go through the ways in which files hold them; in each, we decode four pixels by hand, then a whole mask, then ask a library for the same.
#
# ## 2. Index and palette PNG
#
# The plainest way: a grey PNG whose grey *is* the class index. Such a file looks black in a viewer, since 5 of 255 is nearly black. So people add a **palette** (调色板): a table of up to 256 colours, and each pixel stores a row number of that table.
# The viewer shows the table's colours. The stored numbers are the same as before.
#
# A PNG is a row of *chunks*: four bytes for its length, four letters for its name, the content, a checksum. `IHDR` holds the size, `PLTE` the palette, `IDAT` the pixels, compressed by zlib, each row with one leading byte that says how it was filtered.
# Here are four pixels, $\begin{pmatrix} 0 & 1 \\ 2 & 255 \end{pmatrix}$, as a palette PNG.


# %%
def as_png(picture):
    """The bytes of the PNG file of a PIL image."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def chunks(png):
    """The contents of a PNG's chunks by name; its pixels may be spread over several."""
    found, place = {}, 8  # after the signature
    while place < len(png):
        size, name = struct.unpack(">I4s", png[place : place + 8])
        found[name] = found.get(name, b"") + png[place + 8 : place + 8 + size]
        place += size + 12  # length, name and checksum are four bytes each
    return found


# %%
four = Image.fromarray(np.array([[0, 1], [2, 255]], dtype=np.uint8))
table = np.zeros((256, 3), dtype=np.uint8)
table[:3], table[255] = class_colours(3), 255
four.putpalette(table.ravel().tolist())  # from here on a palette image
parts = chunks(as_png(four))
width, height = struct.unpack(">II", parts[b"IHDR"][:8])
check("width and height", [width, height], [2, 2])
check("row 1 of the palette: our orange", list(parts[b"PLTE"][3:6]), [230, 159, 0])
rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), dtype=np.uint8).reshape(2, 3)
check("each row begins with its filter: none", rows[:, 0], [0, 0])
check("then the indices", rows[:, 1:], np.array([[0, 1], [2, 255]]))
check("PIL reads the same", np.asarray(Image.open(io.BytesIO(as_png(four)))), rows[:, 1:])

# %% [markdown]
# The numbers are in the file, untouched. What goes wrong is the reading. Code written for photographs calls `convert`.
#
# **Predict:** `convert("L")` is often used to "make sure that it is grey". What does it give for our four indices 0, 1, 2, 255?

# %%
grey = np.asarray(four.convert("L"))
print("as grey:", grey.tolist(), "  as stored:", np.asarray(four).tolist())
check("index 1 becomes the lightness of orange", grey[0, 1], 162)
check("0.299 R + 0.587 G + 0.114 B", 0.299 * 230 + 0.587 * 159 + 0.114 * 0, 162, tol=0.5)
check("index 0 is no longer 0", grey[0, 0], 72)

# %% [markdown]
# The lightness of the *colours*. Every class is now another number, and background is 72. So: `np.asarray(Image.open(path))`, with no `convert`. In the package it is `segedu.data.images.read_index`, which also refuses a colour image.
#
# A worse idea is to save the mask as JPEG, which stores not pixels but rounded waves. **Predict:** how many different numbers does a mask of a few classes hold after JPEG?

# %% tags=["nbval-ignore-output"]
stored = mask.numpy().astype(np.uint8)
file = io.BytesIO()
Image.fromarray(stored).save(file, format="JPEG", quality=90)
after = np.asarray(Image.open(file))
check(
    "a PNG gives back every number",
    np.asarray(Image.open(io.BytesIO(as_png(Image.fromarray(stored))))),
    stored,
)
check_at_least("different numbers after JPEG", len(np.unique(after)), 20)
check_at_least("share of pixels that changed", (after != stored).mean(), 0.2)

# %% [markdown]
# ## 3. Colour maps, and a border with a colour of its own
#
# Pascal VOC, and whatever followed its example, shows class $c$ in a colour that is computed from $c$. Write $c$ in binary, $b_7 \dots b_1 b_0$. Its lowest three bits go to the *highest* bit of red, green and blue; the next three to the second highest, and so on:
#
# $$R = \sum_{j} b_{3j}\, 2^{7-j}, \qquad G = \sum_{j} b_{3j+1}\, 2^{7-j}, \qquad B = \sum_{j} b_{3j+2}\, 2^{7-j},$$
#
# with $b_8 = 0$. So neighbouring indices get colours far apart. By hand:
#
# | index | binary | $R$ | $G$ | $B$ |
# |---|---|---|---|---|
# | 1, aeroplane | 00000001 | 128 | 0 | 0 |
# | 8, cat | 00001000 | 64 | 0 | 0 |
# | 15, person | 00001111 | 128 + 64 | 128 | 128 |
# | 255, void | 11111111 | 128 + 64 + 32 | 128 + 64 + 32 | 128 + 64 |
#
# The last row is the famous $(224, 224, 192)$: the cream-coloured line around every object of VOC. It is no class. It marks pixels where the annotators would not decide (Everingham et al., 2010).


# %%
def voc_colours():
    """The colour of each index 0..255: (256, 3), by the formula above."""
    bits = np.arange(256)[:, None] >> np.arange(9) & 1  # (256, 9): bit 0 first
    shares = bits.reshape(256, 3, 3) << np.array([7, 6, 5])[:, None]  # (index, j, channel)
    return shares.sum(1).astype(np.uint8)


colours = voc_colours()
check("1, aeroplane", colours[1], [128, 0, 0])
check("8, cat", colours[8], [64, 0, 0])
check("15, person", colours[15], [192, 128, 128])
check("255, void", colours[255], [224, 224, 192])
check("all 256 differ", len(np.unique(colours, axis=0)), 256)

# %% [markdown]
# To decode, read a colour as one number, $R + 256\,G + 65536\,B$, and look that up. A table of $2^{24}$ entries would do; searching in the sorted list of known codes is as good and small.
# A colour that is not on the list must stop us: it is a sign that the picture was resized, smoothed or saved as JPEG.


# %%
def indices_of(picture, colours):
    """The index of each pixel's colour: (H, W, 3) to (H, W); stops at a colour not in the list."""
    place_value = np.array([1, 256, 65536])
    codes, known = picture @ place_value, colours @ place_value
    order = known.argsort()
    found = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    strange = codes[known[found] != codes]
    if strange.size:
        raise ValueError(f"{strange.size} pixels have a colour that is no class's")
    return found


# %%
painted = colours[stored]  # (H, W, 3): what VOC's files look like
check("decoded", indices_of(painted, colours), stored)
in_palette = Image.fromarray(stored)
in_palette.putpalette(colours.ravel().tolist())
check("PIL paints the same", np.asarray(in_palette.convert("RGB")), painted)

# %% [markdown]
# **Predict:** somebody shrank the *colour* picture to half its size, smoothly. Halfway between background $(0, 0, 0)$ and aeroplane $(128, 0, 0)$ lies ... which class?

# %%
half = np.asarray(
    Image.fromarray(painted).resize((image_size // 2,) * 2, Image.Resampling.BILINEAR)
)
try:
    indices_of(half, colours)
except ValueError as error:
    print(error)
known = colours[:21].astype(int)
distance = ((half[:, :, None].astype(int) - known) ** 2).sum(-1)  # to each of 21 classes
nearest_class = distance.argmin(-1)
invented = ~np.isin(nearest_class, np.unique(stored))

# %% alt="Left, a scene's mask painted in VOC's colours with cream borders. In the middle, the same after smooth shrinking. Right, after a lookup of the nearest colour, a map marks, bright, the pixels whose class occurs nowhere in the mask: they line every outline."
fig, axes = show.grid(1, 3, "A smoothly shrunk colour mask holds classes that nobody drew", width=3)
for ax, shown, title in zip(
    axes,
    (painted, half, invented),
    ("VOC's colours", "half the size", "invented classes"),
    strict=True,
):
    ax.imshow(shown, interpolation="nearest", cmap="cividis")
    ax.set(title=title, xticks=[], yticks=[])
check("(64, 0, 0) is class", indices_of(np.array([[[64, 0, 0]]]), colours), [[8]])
check_at_least("pixels of classes that nobody drew", invented.sum(), 10)

# %% [markdown]
# A cat. Between background and aeroplane there is a thin line of cat. The rule for the rest of the chapter: **decode first, and never average what a mask stores**, neither colours nor indices.
#
# ## 4. Trimaps
#
# The Oxford pets come with a **trimap** (三分图): 1 is the animal, 2 is background, 3 is a border a few pixels wide. Not 0 and 1; and 3 is void. Decode with a table that says what each number means, and stops at any other:
#
# | stored | means | our index |
# |---|---|---|
# | 1 | pet | 1 |
# | 2 | background | 0 |
# | 3 | border | `IGNORE` |
#
# By hand, $\begin{pmatrix} 2 & 3 \\ 3 & 1 \end{pmatrix}$ becomes $\begin{pmatrix} 0 & 255 \\ 255 & 1 \end{pmatrix}$.


# %%
def translate(stored, meanings):
    """Each stored number replaced by what it means; stops at one that has no meaning."""
    unknown = set(np.unique(stored).tolist()) - meanings.keys()
    if unknown:
        raise ValueError(f"the mask stores {sorted(unknown)}; expected only {sorted(meanings)}")
    lookup = np.zeros(max(meanings) + 1, dtype=np.int64)
    lookup[list(meanings)] = list(meanings.values())
    return lookup[stored]


PETS = {1: 1, 2: 0, 3: IGNORE}
check("by hand", translate(np.array([[2, 3], [3, 1]]), PETS), np.array([[0, 255], [255, 1]]))

# %% [markdown]
# What people write instead is `mask - 1`, because a loss wants labels from 0. Here is a drawn trimap: the scene's objects, with a border of three pixels.
#
# **Predict:** after `mask - 1`, which index is the pet, which the border, and how many classes does a network need for it?

# %%
is_object = scene["instance_map"].numpy() > 0
inner, outer = (
    ndimage.binary_erosion(is_object, iterations=1),
    ndimage.binary_dilation(is_object, iterations=2),
)
trimap = np.where(inner, 1, np.where(outer, 3, 2))
check(
    "SciPy agrees with the table",
    translate(trimap, PETS),
    np.select([trimap == 1, trimap == 2], [1, 0], IGNORE),
)
check("mask - 1: background is now class", np.unique((trimap - 1)[trimap == 2]), [1])
check("and border is class", np.unique((trimap - 1)[trimap == 3]), [2])
check_at_least("border for each pixel of pet", (trimap == 3).sum() / (trimap == 1).sum(), 0.15)

# %% [markdown]
# Pet and background have changed places, and "nobody is sure" has become a class of its own, to be learned and scored. It is a large one: 15 % of the pet's pixels and more.
#
# ## 5. One PNG per object
#
# A mask of classes says *disc* on both of two touching discs. To keep them apart, nuclei are stored as **one black and white PNG per object** (实例): a stack of $N$ masks, $(N, H, W)$. The handy form is one **instance map**: 0 for the ground, $n$ for object $n$.
#
# Take a row of four pixels and two objects that overlap in one of them: `1 1 0 0` and `0 1 1 0`. As a map it is `1 2 2 0` if the later wins. **Predict:** can you get the two masks back?


# %%
def instance_map(masks):
    """One map (H, W) out of a stack (N, H, W): 0 for the ground, n for object n; the later wins."""
    numbers = torch.arange(1, len(masks) + 1)[:, None, None]
    return (masks * numbers).amax(0)


def separate(numbered, count):
    """The stack (N, H, W) of a map's objects."""
    return numbered == torch.arange(1, count + 1)[:, None, None]


two = torch.tensor([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], dtype=torch.bool)
check("the map", instance_map(two)[0], [1, 2, 2, 0])
check("object 1 has lost a pixel", separate(instance_map(two), 2)[0, 0], [1, 0, 0, 0])
check("the scene's objects do not overlap", instance_map(scene["masks"]), scene["instance_map"])

# %% [markdown]
# Not what was hidden. Masks of real nuclei may share a pixel, and a map quietly takes it from one of them.
#
# The other way round is more tempting: keep the *union* of the objects, and get them back as its connected components (连通域). **Predict:** six discs stand in two rows of three, the neighbours in a row just touching. How many components?

# %%
row, column = np.mgrid[:60, :80]
discs = np.stack([np.hypot(row - y, column - x) <= 11 for y in (14, 44) for x in (17, 39, 61)])
components, found = ndimage.label(discs.any(0))
check("discs", len(discs), 6)
check("connected components of their union", found, 2)
check("pixels in two discs", (discs.sum(0) > 1).sum(), 4)

# %% [markdown]
# Two. What the union has joined no counting undoes; [chapter 04](04_regions_and_superpixels.ipynb) finds a way to cut such clumps, and where it fails.
#
# ## 6. Polygons
#
# COCO's people clicked corners. A **polygon** (多边形) is the list $x_1, y_1, x_2, y_2, \dots$ of its corners, in pixels, with $(0, 0)$ the *outer* corner of the top left pixel. Then pixel $(i, j)$, row and column, is a square whose middle is at $x = j + \frac12$, $y = i + \frac12$.
# Which pixels belong? The rule that keeps areas right: **those whose middle is inside.**
#
# And a point is inside if a ray from it, say to the right, crosses the outline an odd number of times. An edge from $(x_a, y_a)$ to $(x_b, y_b)$ is crossed if $y$ lies between $y_a$ and $y_b$ and the edge, at that height, is to the right:
#
# $$x < x_a + (y - y_a)\, \frac{x_b - x_a}{y_b - y_a}.$$
#
# By hand: the rectangle with corners $(1, 1)$ and $(4, 3)$ is 3 wide and 2 high. Its middles are $x = 1.5, 2.5, 3.5$ and $y = 1.5, 2.5$: six pixels, in rows 1 and 2 and columns 1 to 3.


# %%
def inside(polygon, height, width):
    """Pixels whose middle is inside the polygon, a list of corners (x, y): (H, W) bool."""
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    odd = np.zeros((height, width), dtype=bool)
    for (xa, ya), (xb, yb) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if ya != yb:  # a level edge is never crossed
            between = (min(ya, yb) <= y) & (y < max(ya, yb))
            odd ^= between & (x < xa + (y - ya) * (xb - xa) / (yb - ya))
    return odd


rectangle = [(1, 1), (4, 1), (4, 3), (1, 3)]
print(inside(rectangle, 5, 6).astype(int))
check("pixels", inside(rectangle, 5, 6).sum(), 6)

# %% [markdown]
# **Predict:** three libraries fill the same rectangle. All should find six pixels. Do they?


# %%
def with_pil(polygon, height, width):
    """PIL: paints the outline, too."""
    picture = Image.new("1", (width, height))
    ImageDraw.Draw(picture).polygon(polygon, fill=1)
    return np.asarray(picture)


def with_skimage(polygon, height, width):
    """scikit-image takes (row, column), with (0, 0) in the middle of the first pixel."""
    return polygon2mask((height, width), [(y, x) for x, y in polygon])


# %%
def quietly_decoded(encoded):
    """pycocotools' own decoder; it makes arrays in a way that NumPy 2 warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco_mask.decode(encoded).astype(bool)


def with_coco(polygon, height, width):
    """pycocotools: follows the outline on a grid five times as fine."""
    flat = [float(number) for corner in polygon for number in corner]
    return quietly_decoded(coco_mask.merge(coco_mask.frPyObjects([flat], height, width)))


# %%
moved = [(x - 0.5, y - 0.5) for x, y in rectangle]
check("PIL", with_pil(rectangle, 5, 6).sum(), 12)
check("scikit-image, COCO's corners as they are", with_skimage(rectangle, 5, 6).sum(), 12)
check("scikit-image, moved by half a pixel", with_skimage(moved, 5, 6).sum(), 6)
check("pycocotools", with_coco(rectangle, 5, 6).sum(), 6)

# %% [markdown]
# Twelve for six. PIL paints every pixel that the outline touches; scikit-image puts $(0, 0)$ in the *middle* of the first pixel, so COCO's corners must be moved by half a pixel first. On a shape that is not made of whole pixels they differ by a ring. A disc of radius 9.3:

# %%
angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
disc = [(16 + 9.3 * math.cos(a), 15 + 9.3 * math.sin(a)) for a in angles.tolist()]
fills = {
    "middle inside": inside,
    "pycocotools": with_coco,
    "scikit-image, unmoved": with_skimage,
    "PIL": with_pil,
}
areas = {name: int(fill(disc, 30, 32).sum()) for name, fill in fills.items()}

# %% alt="The same polygon of a disc filled four ways, its outline drawn on top. By the pixel centre rule and in pycocotools the filled pixels follow the outline; in PIL and in unmoved scikit-image they reach beyond it to the lower right or all around."
fig, axes = show.grid(1, 4, "One polygon, four fillings", height=2.7)
for ax, (name, fill) in zip(axes, fills.items(), strict=True):
    ax.imshow(fill(disc, 30, 32), extent=(0, 32, 30, 0), cmap="cividis", interpolation="nearest")
    ax.plot(*zip(*disc, disc[0], strict=True), color=class_colours(8)[7] / 255)
    ax.set(title=f"{name}: {areas[name]}", xlim=(4, 28), ylim=(27, 3), xticks=[], yticks=[])
x, y = np.array(disc).T
exact = (x @ np.roll(y, -1) - y @ np.roll(x, -1)).item() / 2
check("its area, by the corners", exact, 270.6, tol=0.05)
check("pixels with their middle inside", areas["middle inside"], 268)
check("PIL", areas["PIL"], 300)

# %% [markdown]
# A ring of 30 pixels on an object of 270 is no trifle: the IoU of PIL's filling with the right one is 0.89, before any network has said a word. Where an evaluation tool fills polygons, fill with *its* rule.
#
# pycocotools agrees with the middle-inside rule up to a few pixels of the outline: it walks along the edges on a grid five times as fine and rounds.

# %%
a, b = inside(disc, 30, 32), with_pil(disc, 30, 32)
check("IoU of two fillings of one polygon", (a & b).sum() / (a | b).sum(), 0.893, tol=1e-3)
check("pixels where pycocotools decides otherwise", (a != with_coco(disc, 30, 32)).sum(), 8)
check(
    "and scikit-image, moved",
    (a != with_skimage([(x - 0.5, y - 0.5) for x, y in disc], 30, 32)).sum(),
    0,
)

# %% [markdown]
# One more trap: several polygons of one COCO object are joined as a *union*. An even-odd rule over all of them at once would cut holes where they overlap. And there is no way to store a hole, such as that of a ring.
#
# ## 7. Run lengths
#
# Regions full of people are stored by COCO as **run-length encoding** (游程编码), RLE: how many pixels of background, then how many of object, then background again. Two things to know:
#
# - the pixels are read **down the columns**, not along the rows;
# - the first count is always background. If the first pixel is object, the first count is 0.
#
# By hand:
#
# $$\begin{pmatrix} 0 & 1 & 1 \\ 0 & 1 & 0 \end{pmatrix} \;\to\; 0\,0\,|\,1\,1\,|\,1\,0 \;\to\; 2\ \text{ground},\ 3\ \text{object},\ 1\ \text{ground}.$$


# %%
def run_lengths(mask):
    """The lengths of the runs of a mask (H, W), down its columns, background first."""
    pixels = mask.T.ravel().astype(int)  # column by column
    changes = np.flatnonzero(np.diff(pixels, prepend=0))  # where another run begins
    return np.diff(np.concatenate([[0], changes, [pixels.size]]))


def from_runs(counts, height, width):
    """The mask (H, W) whose runs have these lengths."""
    is_object = np.arange(len(counts)) % 2 == 1
    return np.repeat(is_object, counts).reshape(width, height).T


# %%
hand = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
check("by hand", run_lengths(hand), [2, 3, 1])
check("object first: a run of 0", run_lengths(~hand), [0, 2, 3, 1])
check("and back", from_runs([2, 3, 1], 2, 3), hand)

# %% [markdown]
# `prepend=0` is the whole trick of the leading zero: before the first pixel we pretend background, so an object in the first pixel counts as a change at place 0.
#
# **Predict:** you decode the counts of a real object, and write `reshape(height, width)`, as one would for rows. What do you see?

# %% alt="An object's mask decoded rightly, and decoded as if the runs went along rows: the object is turned over the diagonal and, since this picture is wider than high, sheared into stripes."
wide = np.hstack([is_object, np.zeros((image_size, image_size // 2), dtype=bool)])  # H x 1.5 H
wrong = np.repeat(np.arange(len(run_lengths(wide))) % 2 == 1, run_lengths(wide)).reshape(wide.shape)
fig, axes = show.grid(
    1, 2, "The same counts, read down the columns and along the rows", width=4, height=2.8
)
show.mask(axes[0], torch.from_numpy(wide.astype(int)), "columns: right", num_classes=2)
show.mask(axes[1], torch.from_numpy(wrong.astype(int)), "rows: sheared", num_classes=2)
check("as many pixels of object, so a count shows nothing", wrong.sum(), wide.sum())
check("ours is right", from_runs(run_lengths(wide), *wide.shape), wide)

# %% [markdown]
# ### The compressed string
#
# In files you will mostly meet a string such as `"4321O"`. It is the list of counts, packed in two steps.
#
# **Step 1: changes.** Neighbouring columns look alike, so a count resembles the one two before it. From the fourth count on, only the difference is kept: $x_i = c_i - c_{i-2}$ for $i \ge 3$ (counting from 0), else $x_i = c_i$.
#
# **Step 2: six bits a character.** Take the lowest five bits of $x$, then the next five, until nothing is left but the sign. Each five get a sixth bit, worth 32, if more are to come. Add 48, to land among printable characters: `"0"` is 0.
# The highest bit of the last five is the sign, in two's complement.
#
# | $x$ | five bits, lowest first | with "more" | + 48 | text |
# |---|---|---|---|---|
# | 5 | 00101 | 5 | 53 | `5` |
# | -1 | 11111 | 31 | 79 | `O` |
# | 16 | 10000, 00000 | 16 + 32, 0 | 96, 48 | `` `0 `` |
# | 1000 | 01000, 11111, 00000 | 8 + 32, 31 + 32, 0 | 88, 111, 48 | `Xo0` |
#
# **Predict:** why does 16 take two characters, when it fits in five bits?


# %%
def pack_number(x):
    """One whole number as one or more characters."""
    text = ""
    while True:
        bits, x = x & 31, x >> 5  # Python's >> keeps the sign
        is_last = x == (-1 if bits & 16 else 0)  # what is left is only sign
        text += chr(48 + bits + (0 if is_last else 32))
        if is_last:
            return text


check("5", pack_number(5), "5")
check("-1", pack_number(-1), "O")
check("16: alone, 10000 would read as -16", pack_number(16), "`0")
check("1000", pack_number(1000), "Xo0")


# %%
def pack(counts):
    """COCO's string for a list of counts."""
    return "".join(pack_number(c - counts[i - 2] if i > 2 else c) for i, c in enumerate(counts))


# %%
def unpack(text):
    """The counts that the string stands for."""
    counts, x, place = [], 0, 0
    for code in (ord(character) - 48 for character in text):
        x |= (code & 31) << 5 * place
        place += 1
        if code < 32:  # the last of this number
            x -= (code & 16) << 5 * (place - 1) + 1  # its highest bit was a sign
            counts.append(x + counts[-2] if len(counts) > 2 else x)
            x, place = 0, 0
    return counts


# %%
check("counts 4, 3, 2, 4, 1: as text", pack([4, 3, 2, 4, 1]), "4321O")
check("and back", unpack("4321O"), [4, 3, 2, 4, 1])
check("large counts", unpack(pack([1000, 16, 0, 99999, 7])), [1000, 16, 0, 99999, 7])

# %% [markdown]
# The judge is pycocotools, which wrote the format. A hundred random masks of many sizes, both ways, and then the vectorised version of the same in the package, `segedu.data.rle`.

# %%
generator = np.random.default_rng(seed)
for _ in range(100):
    size = generator.integers(1, 40, 2)
    random_mask = ndimage.zoom(generator.random(size) < generator.random(), 3, order=0)
    text = pack(run_lengths(random_mask).tolist())
    theirs = coco_mask.encode(np.asfortranarray(random_mask, dtype=np.uint8))
    assert text == theirs["counts"].decode()
    assert (from_runs(unpack(text), *random_mask.shape) == quietly_decoded(theirs)).all()
    assert text == rle.to_string(rle.encode(random_mask))
    assert unpack(text) == rle.from_string(text).tolist()
check("the last of a hundred", text, theirs["counts"].decode())

# %% [markdown]
# What is it worth? **Predict** which is smallest for one object of our scene: raw bytes, one bit a pixel, the list of counts as text, or the compressed string.

# %%
one = scene["masks"][0].numpy()
sizes = {
    "a byte a pixel": one.size,
    "a bit a pixel": math.ceil(one.size / 8),
    "counts as text": len(str(rle.encode(one).tolist())),
    "compressed string": len(rle.to_string(rle.encode(one))),
}
for name, size in sizes.items():
    print(f"{name:18} {size:6} bytes")
check_at_most(
    "the string against a bit a pixel", sizes["compressed string"] / sizes["a bit a pixel"], 0.25
)
check_at_most(
    "the string against the counts", sizes["compressed string"] / sizes["counts as text"], 0.6
)

# %% [markdown]
# There is a second gain. The number of object pixels, and the overlap of two masks, can be computed on the counts without ever drawing a mask. Exercise 1 does the first.
#
# A codec must also refuse. pycocotools 2.0.11 refuses some damaged strings, but not all: of one that was cut off between two numbers it decodes what there is, and the rest of the mask holds whatever was in memory. The package's says what is wrong:

# %%
for damaged in ("Xo", "02 1", "O"):
    try:
        rle.from_string(damaged)
    except InputError as error:
        print(error)
try:
    rle.decode([3, 4], height=2, width=3)
except InputError as error:
    print(error)
    refused = str(error)
check(
    "counts that do not fill the picture are refused", "sum to 7; expected 6" in refused, want=True
)

# %% [markdown]
# ## 8. Panoptic ids
#
# Panoptic truth (全景分割) gives every pixel a class and, for countable things, which object it is (Kirillov et al., 2019). COCO stores it as a *colour* PNG in which the colour is a number, the segment's id, with a JSON file that says what each id is:
#
# $$\text{id} = R + 256\,G + 65536\,B.$$
#
# By hand: id 1002 is $1002 = 234 + 3 \cdot 256$, so its colour is $(234, 3, 0)$. The scenes' ids are `class * 1000 + n`; 0 is the ground.
#
# **Predict:** the PNG comes as `uint8`. In torch, what is `green * 256` for a green of 3?


# %%
def to_colours(ids):
    """Ids (H, W) as (H, W, 3) bytes."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def to_ids(picture):
    """And back; widened first, since 256 times a byte is no byte."""
    red, green, blue = np.moveaxis(picture.astype(np.int64), -1, 0)
    return red + 256 * green + 65536 * blue


# %%
ids = scene["panoptic"].numpy()
check("1002 as a colour", to_colours(np.array(1002)), [234, 3, 0])
check("back", to_ids(np.array([234, 3, 0])), 1002)
check(
    "through a PNG",
    to_ids(np.asarray(Image.open(io.BytesIO(as_png(Image.fromarray(to_colours(ids))))))),
    ids,
)
check("torch, bytes: 3 * 256", torch.tensor([3], dtype=torch.uint8) * 256, [0])

# %% [markdown]
# Zero, without a word: the product is kept in a byte and wraps around. All ids collapse onto their red part, so objects that are 256 apart become one. (NumPy 2 stops with an error here; older ones widened by themselves.)
#
# An id is no class. `id // 1000` gives it for our scenes; for COCO the JSON's `category_id` does, whose numbers run from 1 to 200 with gaps. And void is 0 in COCO's files, where 0 in ours is the ground.

# %%
classes = np.where(ids == IGNORE, IGNORE, ids // PANOPTIC_BASE)
check("classes from ids are the mask", classes, mask)
green_lost = to_colours(ids)[..., 0]  # what is left if 256 * green is lost
check_at_most(
    "different ids left, of those there were", len(np.unique(green_lost)), len(np.unique(ids))
)

# %% [markdown]
# ## 9. Void
#
# Every format has its void, and each another number for it:
#
# | set | stored as | why |
# |---|---|---|
# | Pascal VOC | 255, colour (224, 224, 192) | the line around objects |
# | CamVid | 11 (of 12 numbers) | what no class fits |
# | Oxford pets | 3 | the border |
# | COCO | `iscrowd` = 1 | objects that nobody told apart |
# | COCO panoptic | id 0 | what nobody labelled |
# | here | 255 | all of these |
#
# The first thing a loader does is to make them one number. The second is to see that nothing counts it: no loss ([chapter 06](06_cross_entropy.ipynb)), no score ([chapter 08](08_metrics.ipynb)).
#
# **Predict:** a perfect network gives every pixel of the scenes its true class, in the void ring, too. What mean IoU does it get if void is counted as ground?

# %%
honest, naive = ConfusionMatrix(6), ConfusionMatrix(6)
for one in scenes:
    perfect = torch.cat([torch.zeros(1).long(), one["labels"]])[one["instance_map"]]
    honest.update(perfect, one["mask"].as_subclass(torch.Tensor))
    naive.update(perfect, one["mask"].as_subclass(torch.Tensor).where(one["mask"] != IGNORE, 0))
check("perfect, void left out", honest.mean_iou(), 1.0)
check_at_most("perfect, void counted as ground", naive.mean_iou(), 0.9)
check_at_least("the score is not absurd, so nobody looks twice", naive.mean_iou(), 0.6)
print(f"void pixels: {np.mean([(one['mask'] == IGNORE).float().mean() for one in scenes]):.1%}")

# %% [markdown]
# A perfect answer loses more than a tenth to a line two pixels wide, and a network that draws its objects one pixel too small would be preferred to it.
#
# ## 10. The same on real files
#
# Each real set of the course has a loader that does what the last sections did by hand. Where a set is here, we read one of its files with our own functions and compare.

# %% tags=["nbval-ignore-output"]
if catalog.available("pets"):
    pets = catalog.load("pets")
    stored = np.asarray(Image.open(pets.pairs[0].mask))
    check("a trimap, by our table", translate(stored, PETS), pets[0]["mask"])
else:
    print("The pets are not here; `segedu data get pets` downloads them.")
if catalog.available("nuclei"):
    nuclei = catalog.load("nuclei")
    sample = nuclei[0]
    check("one PNG a nucleus", (instance_map(sample["masks"]) > 0).long(), sample["mask"])
    _, clumps = ndimage.label(sample["mask"])
    print(f"{len(sample['masks'])} nuclei, {clumps} connected components of their union")
else:
    print("The nuclei are not here; `segedu data get nuclei` downloads them.")

# %% tags=["nbval-ignore-output"]
if catalog.available("coco"):
    coco = catalog.load("coco")
    objects = json.loads((catalog.where("coco") / INSTANCES).read_text())["annotations"]
    crowds = [thing for thing in objects if thing["iscrowd"]]
    crowd = next(thing for thing in crowds if f"{thing['image_id']:012}" in coco.names)
    sample = coco[coco.names.index(f"{crowd['image_id']:012}")]
    number = int(sample["crowd"].long().argmax())
    stored = crowd["segmentation"]
    by_hand = from_runs(stored["counts"], *stored["size"])
    check("a crowd, from its run lengths", by_hand, sample["masks"][number])
    only_crowd = sample["masks"][number] & ~sample["masks"][~sample["crowd"]].any(0)
    check("where only a crowd is, void", sample["mask"][only_crowd], IGNORE)
else:
    print("COCO is not here; `segedu data get coco` downloads it.")

# %% [markdown]
# ## 11. Moving a picture and its mask together
#
# There are never enough annotated pictures. So each is shown many times, changed in ways that do not change the answer: **data augmentation** (数据增强). What does "the answer" do, when the picture is cropped, turned or bent? It moves along. When the colours change, it stays.
#
# All geometric changes are one function. Ask backwards: **for each pixel of the new picture, where in the old one does it come from?** Call these places `rows` and `columns`, two arrays of real numbers, and look them up. At a place between pixels,
#
# - the *image* takes a weighted mean of its four neighbours (bilinear interpolation, 双线性插值);
# - the *mask* takes the nearest, since a mean of class 1 and class 3 is not class 2;
# - beyond the edge the image is 0, and the mask `IGNORE`: nobody knows what is there.


# %%
def pixels_at(values, rows, columns, outside):
    """`values` (..., H, W) at whole `rows` and `columns`; `outside` beyond the edge."""
    height, width = values.shape[-2:]
    there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    found = values[..., rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return found.where(there, outside)


def nearest(values, rows, columns, outside):
    """`values` at the pixel nearest to each place."""
    return pixels_at(values, rows.round().long(), columns.round().long(), outside)


# %%
def bilinear(values, rows, columns, outside=0.0):
    """The mean of the four pixels around each place; the nearer, the more weight."""
    top, left = rows.floor().long(), columns.floor().long()
    down, right = rows - top, columns - left  # in [0, 1)
    above = (1 - right) * pixels_at(values, top, left, outside)
    above = above + right * pixels_at(values, top, left + 1, outside)
    below = (1 - right) * pixels_at(values, top + 1, left, outside)
    below = below + right * pixels_at(values, top + 1, left + 1, outside)
    return (1 - down) * above + down * below


def move(image, mask, rows, columns):
    """Image and mask with pixel (i, j) taken from (rows[i, j], columns[i, j])."""
    return bilinear(image, rows, columns), nearest(mask, rows, columns, IGNORE)


# %% [markdown]
# By hand, on four pixels $\begin{pmatrix} 10 & 20 \\ 30 & 40 \end{pmatrix}$, at the place $(0.5, 0.25)$: above, $0.75 \cdot 10 + 0.25 \cdot 20 = 12.5$; below, $0.75 \cdot 30 + 0.25 \cdot 40 = 32.5$; the mean of the two is 22.5.
# Of a mask $\begin{pmatrix} 0 & 1 \\ 3 & 4 \end{pmatrix}$ the nearest pixel to $(0.8, 0.25)$ is row 1, column 0: class 3.

# %%
tiny = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
place = torch.tensor([[0.5]]), torch.tensor([[0.25]])
check("bilinear", bilinear(tiny, *place), [[22.5]])
tiny_mask = torch.tensor([[0, 1], [3, 4]])
place = torch.tensor([[0.8]]), torch.tensor([[0.25]])
check("nearest", nearest(tiny_mask, *place, IGNORE), [[3]])
check("beyond the edge", nearest(tiny_mask, place[0] + 1, place[1], IGNORE), [[IGNORE]])

# %% [markdown]
# Now each transform is a line or two that says where pixels come from. With $i, j$ the new row and column and $m = (H-1)/2$ the middle:
#
# | transform | rows | columns |
# |---|---|---|
# | crop at (top, left) | $i + \text{top}$ | $j + \text{left}$ |
# | flip | $i$ | $W - 1 - j$ |
# | turn by $\alpha$, counter-clockwise | $m + \cos\alpha\,(i - m) + \sin\alpha\,(j - m)$ | $m - \sin\alpha\,(i - m) + \cos\alpha\,(j - m)$ |
# | elastic | $i + d_r(i, j)$ | $j + d_c(i, j)$ |
#
# The **elastic** one (弹性形变) is Simard's (2003): a random displacement for every pixel, smoothed by a Gaussian of width $\sigma$ so that neighbours move alike, times a strength. U-Net's authors, who had 30 annotated pictures, call it the key to training with so few (section 3.1).


# %%
def grid(height, width):
    """The rows and columns of the pixels of a picture, as real numbers."""
    return torch.meshgrid(torch.arange(height) * 1.0, torch.arange(width) * 1.0, indexing="ij")


def turned(angle, size):
    """Where the pixels of a square picture come from that is turned by `angle` radians."""
    (i, j), middle = grid(size, size), (size - 1) / 2
    cosine, sine = math.cos(angle), math.sin(angle)
    rows = middle + cosine * (i - middle) + sine * (j - middle)
    return rows, middle - sine * (i - middle) + cosine * (j - middle)


# %%
def bent(size, strength, sigma, generator):
    """Where the pixels come from when a smooth random field moves them by about `strength`."""
    noise = generator.standard_normal((2, size, size))
    field = np.stack([ndimage.gaussian_filter(part, sigma) for part in noise])
    field = torch.from_numpy(field * strength / field.std()).float()
    i, j = grid(size, size)
    return i + field[0], j + field[1]


def recoloured(image, brightness, contrast):
    """Brighter or darker, with more or less contrast; the mask has no part in it."""
    return ((image - image.mean()) * contrast + image.mean() * brightness).clamp(0, 1)


# %% alt="A scene six times, its mask laid over it: as it is, cropped and enlarged, flipped, turned by 25 degrees with black corners, bent elastically, and with other colours. In each the coloured mask lies exactly on the objects."
rng = np.random.default_rng(seed)
i, j = grid(image_size, image_size)
places = {
    "as it is": (i, j),
    "crop, enlarged": (i / 2 + image_size / 4, j / 2 + image_size / 4),
    "flip": (i, image_size - 1 - j),
    "turn": turned(math.radians(25), image_size),
    "elastic": bent(image_size, 3.0, 7.0, rng),
}
fig, axes = show.grid(1, 6, "The mask goes where the picture goes", width=2.1)
for ax, (name, where) in zip(axes, places.items(), strict=False):
    show.overlay(ax, *move(image, mask, *where), name, num_classes=6)
show.overlay(axes[5], recoloured(image, 1.3, 1.4), mask, "colour", num_classes=6)

# %% [markdown]
# The library for this is `torchvision.transforms.v2`. Same inputs, same numbers?

# %%
picture, truth = tv_tensors.Image(image), tv_tensors.Mask(mask)
functional = v2.functional
for name, ours, theirs in (
    (
        "crop",
        (i + 10, j + 20),
        lambda x: functional.crop(x, 10, 20, image_size - 20, image_size - 20),
    ),
    ("flip", places["flip"], functional.horizontal_flip),
):
    moved_image, moved_mask = move(image, mask, *ours)
    wanted_image, wanted_mask = theirs(picture), theirs(truth)
    side = wanted_mask.shape[0]  # the crop is smaller; we looked up all of it
    check(f"{name}: image", moved_image[:, :side, :side], wanted_image)
    check(f"{name}: mask", moved_mask[:side, :side], wanted_mask)

# %% tags=["nbval-ignore-output"]
turned_image, turned_mask = move(image, mask, *places["turn"])
smooth = v2.InterpolationMode.BILINEAR
wanted = functional.rotate(truth, 25, fill=IGNORE)
check_at_least("turn: share of equal mask pixels", (turned_mask == wanted).float().mean(), 0.999)
wanted = functional.rotate(picture, 25, interpolation=smooth)[:, 20:-20, 20:-20]
check_at_most(
    "turn: difference of images, inside",
    (turned_image[:, 20:-20, 20:-20] - wanted).abs().max(),
    1e-3,
)

# %% tags=["nbval-ignore-output"]
displacement = torch.stack([places["elastic"][1] - j, places["elastic"][0] - i], dim=-1)[None]
displacement *= 2 / image_size  # torchvision measures it in half pictures, x before y
bent_image, bent_mask = move(image, mask, *places["elastic"])
wanted = functional.elastic(picture, displacement, interpolation=smooth)
check_at_most("elastic: difference of images", (bent_image - wanted).abs().max(), 1e-3)
wanted = functional.elastic(truth, displacement, fill=IGNORE)
check_at_least("elastic: share of equal mask pixels", (bent_mask == wanted).float().mean(), 0.999)

# %% [markdown]
# (Where a place lies exactly between two pixels, the last bit of a float decides which is nearest; hence 0.999.)
#
# Two remarks. **Draw the random numbers once, and use them for both**: here `where` is drawn, then passed to `move`. And a turn by any angle changes a mask for good, since nearest pixels are picked anew: turned by 25 degrees and back, the mask is not the one we had. Flips and quarter turns lose nothing.

# %% tags=["nbval-ignore-output"]
_, there_and_back = move(turned_image, turned_mask, *turned(math.radians(-25), image_size))
middle = (image_size - 1) / 2
seen = torch.hypot(i - middle, j - middle) < middle - 1  # what no turn takes out of the picture
changed = (there_and_back != mask)[seen].float().mean()
check_at_least("share of the mask changed by turning there and back", changed, 0.005)
_, twice = move(*move(image, mask, *places["flip"]), *places["flip"])
check("flipped twice: the same mask", twice, mask)

# %% [markdown]
# In `segedu.data.transforms`, `random_crop` makes a transform out of v2's parts, and `Augmented` gives sample $i$ of epoch $e$ random numbers that depend on $(\text{seed}, e, i)$ alone. So a run can be repeated, and resumed in the middle ([chapter 11](11_training.ipynb)).

# %% alt="One scene, augmented in four epochs: cropped, flipped, turned by quarter turns and recoloured, each with its mask in place."
transform = random_crop(64, 64, scale=(0.8, 1.5), colour=0.4)
epochs = [Augmented([scene], transform, seed=seed, epoch=e)[0] for e in range(4)]
fig, axes = show.grid(1, 4, "One scene in four epochs")
for ax, sample in zip(axes, epochs, strict=True):
    show.overlay(ax, sample["image"], sample["mask"], num_classes=6)
again = Augmented([scene], transform, seed=seed, epoch=2)[0]
check("epoch 2, asked for again", again["image"], epochs[2]["image"])

# %% [markdown]
# ## 12. What goes wrong
#
# ### A bilinear mask
#
# The tempting one: pass image and mask through the same resize. **Predict:** halfway between class 0 and class 4, what is found? And between a disc, 1, and void, 255?

# %% alt="Left, the mask shrunk with the nearest pixel. Middle, shrunk smoothly and rounded. Right, in orange, the pixels of the smooth one whose value did not occur in the block they came from: lines along all outlines."
whole = mask.float()[None, None]
smoothed = F.interpolate(whole, scale_factor=0.5, mode="bilinear")[0, 0].round().long()
blocks = F.unfold(whole, kernel_size=2, stride=2)[0]  # (4, pixels): what each new pixel covers
made_up = ~(blocks == smoothed.flatten()).any(0).reshape(smoothed.shape)
fig, axes = show.grid(1, 3, "A smooth resize invents classes along every outline", width=2.8)
show.mask(axes[0], mask[::2, ::2], "nearest", num_classes=6)
show.mask(axes[1], smoothed, "bilinear (black: no class)", num_classes=6)
show.mask(axes[2], made_up.long(), "in none of its four pixels", num_classes=2)
is_class = (smoothed < 6) | (smoothed == IGNORE)
check("between ground and star", torch.tensor([0.0, 4.0]).mean(), 2)
check_at_least("values that are no class", (~is_class).sum(), 100)
check_at_least("made up, share of the pixels", made_up.float().mean(), 0.05)

# %% [markdown]
# Values up to 254, most of them no class at all: here a loss would at least raise an error. Without void it would not: between ground and star, 0 and 4, lies 2, *square*, and every star gets a rim of square.
#
# ### The picture moves, the mask does not
#
# `transform(image)` and then `transform(mask)`, each drawing its own random numbers: in half of all cases one is flipped and the other not. **Predict:** how good can a *perfect* network seem on such a pair?

# %%
torn = ConfusionMatrix(6)
for one in scenes:
    perfect = torch.cat([torch.zeros(1).long(), one["labels"]])[one["instance_map"]]
    torn.update(perfect.flip(-1), one["mask"].as_subclass(torch.Tensor))
check_at_most("mean IoU of perfect answers on torn pairs", torn.mean_iou(), 0.35)
check_at_least("the ground alone still looks fine: its IoU", torn.iou()[0], 0.4)

# %% [markdown]
# As bad as no network. And with one pair in two torn, training still works a little, since the other half is right: the loss falls, and stays high. Nothing points at the cause but **a look at the pairs that the training really gets**.
#
# ### A plain tensor
#
# `transforms.v2` knows what to do by the *type*: `Image`, `Mask`, `BoundingBoxes`. What about a mask that is just a tensor? Its rule: if there is an `Image` in the sample, plain tensors are passed through untouched; if there is none, the *first* plain tensor is taken for the image.
#
# **Predict** the outcome of three flips: (a) an `Image` with a plain mask; (b) both plain, image first; (c) both plain, mask first in the dictionary.

# %%
flip = v2.RandomHorizontalFlip(p=1)
a = flip({"image": tv_tensors.Image(image), "mask": mask})
b = flip({"image": image, "mask": mask})
c = flip({"mask": mask, "image": image})
moves = {
    name: (not x["image"].equal(image), not x["mask"].equal(mask))
    for name, x in zip("abc", (a, b, c), strict=True)
}
print("moved (image, mask):", moves)
check("(a) the mask stays, without a word", moves["a"], [True, False])
check("(b) the same", moves["b"], [True, False])
check("(c) the mask is taken for the image", moves["c"], [False, True])
right = flip({"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask)})
check("with both types: the mask moves", right["mask"], mask.flip(-1))

# %% [markdown]
# That is why a `Sample` of this course holds `tv_tensors.Image` and `tv_tensors.Mask`, and why a test of the package flips one.
#
# ### Colour jitter on a mask
#
# In case (c) a colour change would hit the mask. **Predict:** what does 20 % less brightness do to class 5?

# %%
darker = v2.ColorJitter(brightness=(0.8, 0.8))
hit = darker({"mask": torch.tensor([[[0, 1, 2, 3, 4, 5]]], dtype=torch.uint8), "image": image})
check("classes 0 to 5 after jitter", hit["mask"][0, 0], [0, 0, 1, 2, 3, 4])
safe = darker({"mask": tv_tensors.Mask(torch.arange(6)[None]), "image": tv_tensors.Image(image)})
check("as a Mask it is let alone", safe["mask"][0], [0, 1, 2, 3, 4, 5])

# %% [markdown]
# Ring becomes star, star becomes triangle, disc becomes ground. All of them valid classes.
#
# ### A mask treated as an image
#
# The old `ToTensor` divides bytes by 255, as it should for pictures. Then `.long()`, since the loss wants whole numbers. **Predict** what is left.

# %%
as_image = transforms_v1.to_tensor(Image.fromarray(np.array([[0, 3], [5, 255]], dtype=np.uint8)))
print(as_image)
check("and then .long()", as_image.long(), torch.tensor([[[0, 0], [0, 1]]]))

# %% [markdown]
# Every class has become background, and void has become class 1. A network learns this mask perfectly, and quickly.
#
# ## 13. Leakage: frames that know each other
#
# A score on held-out pictures should say how the network does on pictures it has *not* seen. Video frames, slices of one tissue, exposures of one tile are not separate pictures. If neighbours land on both sides of the split, the answers of the validation set are in the training set. That is **leakage** (数据泄漏).
#
# How much is it worth? Take the laziest learner there is, one that understands nothing: **for a new picture, find the most similar training picture and hand in its mask.** What it scores, it scores by looking up.
#
# First with drawn films: a camera passes over a large scene, four pixels further each frame.


# %%
def film(number, length):
    """`length` frames of a drive over the large scene `number`: images, masks."""
    reach = 4 * (length - 1)
    large = Scenes(drives, size=96 + reach, seed=seed + 100)[number]
    cuts = [
        (..., slice(reach // 2, reach // 2 + 96), slice(x, x + 96)) for x in range(0, reach + 1, 4)
    ]
    return [large["image"][cut] for cut in cuts], [large["mask"][cut] for cut in cuts]


films = [film(number, frames) for number in range(drives)]
pictures = torch.stack([frame for film_images, _ in films for frame in film_images])
masks = torch.stack([frame for _, film_masks in films for frame in film_masks])
drive_of = torch.arange(drives).repeat_interleave(frames)
check("pictures", len(pictures), drives * frames)

# %% [markdown]
# Similar means: small thumbnails, 12 by 12 pixels, with a small distance.


# %%
def thumbnails(pictures):
    """Each picture as 12 x 12 mean colours in one row of numbers."""
    return F.adaptive_avg_pool2d(pictures, 12).flatten(1)


def score_of_lookup(pictures, masks, is_held_out, num_classes):
    """Mean IoU on held-out pictures of the masks of their nearest training pictures."""
    small = thumbnails(pictures)
    nearest = torch.cdist(small[is_held_out], small[~is_held_out]).argmin(1)
    confusion = ConfusionMatrix(num_classes)
    confusion.update(masks[~is_held_out][nearest].clamp(max=num_classes - 1), masks[is_held_out])
    return confusion.mean_iou()


# %% [markdown]
# (Where the looked-up mask is void, the learner must still answer; it says the last class.)
#
# Now hold out a quarter, in two ways: a quarter of all frames at random, or a quarter of the *films*. **Predict** both scores of the learner that understands nothing.

# %% tags=["nbval-ignore-output"]
chance = torch.Generator().manual_seed(seed)
by_frame = torch.rand(len(pictures), generator=chance) < 0.25
by_film = drive_of % 4 == 0
scores = {
    name: score_of_lookup(pictures, masks, split, 6)
    for name, split in (("frames", by_frame), ("films", by_film))
}
check_at_least("mean IoU, frames held out at random", scores["frames"], 0.55)
check_at_most("mean IoU, whole films held out", scores["films"], 0.3)
for name, score in scores.items():
    print(f"{name} held out: {score:.2f}")

# %% tags=["nbval-ignore-output"]
small = thumbnails(pictures)
shown = {}  # for each split: a held-out frame, and the training frame most like it
for name, split in (("frames", by_frame), ("films", by_film)):
    asked = int(split.nonzero()[2])
    nearest_one = torch.cdist(small[asked, None], small[~split]).argmin()
    shown[name] = asked, int((~split).nonzero()[nearest_one])
asked, found = shown["frames"]
check("frames held out: the most similar is of the same film", drive_of[asked], drive_of[found])

# %% tags=["nbval-ignore-output"] alt="Above, a held-out frame and the training frame that is most like it, from the same film four pixels further, with its mask. Below, a frame of a held-out film and the most similar training frame, which shows something else."
fig, axes = show.grid(
    2, 4, "What the lookup finds: the frame next to it, or something else", width=2.2
)
for row, (name, (asked, found)) in zip(axes, shown.items(), strict=True):
    show.image(row[0], pictures[asked], "held out")
    show.mask(row[1], masks[asked], "its truth", num_classes=6)
    show.image(row[2], pictures[found], "most similar")
    show.mask(row[3], masks[found], "its mask, handed in", num_classes=6)
    row[0].set_ylabel(f"{name} held out")

# %% [markdown]
# The first score is what a random split reports. The second is what the next film will give. A network, which can also remember, profits in the same way.
#
# The cure is a split by **group**: all frames of one drive, all slices of one block, all exposures of one tile, all pictures of one patient on the same side. The names of the files mostly tell the group. Exercise 4 writes such a split.
#
# ### Drives of CamVid
#
# CamVid's frames are from a few drives, and its public split is by frame: every validation frame is from a drive, 0016E5, that also gave more than half of the training frames.
# We hand the lookup its training frames with, and then without, that drive.


# %%
def spread(data):
    """Indices of at most `most_real` samples, evenly spread over the set."""
    return range(0, len(data), math.ceil(len(data) / most_real))


def quarter_size(data):
    """Images and masks of the set's spread samples at a quarter of their height and width."""
    images, masks = [], []
    for index in spread(data):
        one = data[index]
        images.append(F.avg_pool2d(one["image"], 4))
        masks.append(one["mask"][::4, ::4])
    return torch.stack(images), torch.stack(masks)


# %% tags=["nbval-ignore-output"]
if catalog.available("camvid"):
    camvid = {split: catalog.load("camvid", split=split) for split in ("train", "val")}
    street = {split: quarter_size(data) for split, data in camvid.items()}
    street_pictures, street_masks = (
        torch.cat([street["train"][k], street["val"][k]]) for k in (0, 1)
    )
    learned = [camvid["train"].drives[index] for index in spread(camvid["train"])]
    held_out = torch.arange(len(street_pictures)) >= len(learned)
    same_drive = torch.zeros(len(held_out), dtype=torch.bool)
    same_drive[: len(learned)] = torch.tensor([drive == "0016E5" for drive in learned])
else:
    print("CamVid is not here; `segedu data get camvid` downloads it.")

# %% tags=["nbval-ignore-output"]
if catalog.available("camvid"):
    check("validation frames of another drive", sum(d != "0016E5" for d in camvid["val"].drives), 0)
    check_at_least("its share of the training frames", same_drive.sum() / (~held_out).sum(), 0.4)
    with_drive = score_of_lookup(street_pictures, street_masks, held_out, 11)
    keep = ~same_drive
    without = score_of_lookup(street_pictures[keep], street_masks[keep], held_out[keep], 11)
    print(f"mean IoU of the lookup: {with_drive:.2f} with the drive, {without:.2f} without")
    check_at_least("what the shared drive is worth", with_drive - without, least_drive_worth)

# %% [markdown]
# ### Slices of tissue
#
# The thirty slices are cut one below the other through one piece of tissue. How much does the mask of one slice say about that of another? A membrane is a thin line and moves by a few pixels from slice to slice, so we do not compare pixel by pixel, but maps that say
# **how far each pixel is from the nearest membrane** (a distance transform; [chapter 04](04_regions_and_superpixels.ipynb) uses it). Their correlation is 1 for equal masks and 0 for unrelated ones.

# %% tags=["nbval-ignore-output"] alt="Correlation of two slices' distance maps against how many slices they are apart: high for neighbours, and falling towards 0 for slices far apart."
if catalog.available("membranes"):
    blocks = [catalog.load("membranes", split=split) for split in ("train", "val")]
    cells = [one["mask"][::2, ::2].numpy() for block in blocks for one in block]  # 1: cell
    depth = np.stack([ndimage.distance_transform_edt(cell).ravel() for cell in cells])
    correlation = np.corrcoef(depth)
    apart = range(1, min(16, len(cells)))
    shared = [np.diagonal(correlation, d).mean() for d in apart]
    fig, [ax] = show.grid(1, 1, width=5, height=2.8)
    ax.plot(apart, shared, "o-", color="black")
    ax.set(title="A slice tells much of its neighbours' masks", ylim=(-0.05, 1))
    ax.set(xlabel="slices apart", ylabel="correlation of distance maps")
    check_at_least("neighbours against far slices", shared[0] - np.mean(shared[-5:]), 0.2)
else:
    print("The membranes are not here; `segedu data get membranes` downloads them.")

# %% [markdown]
# So `segedu.data.membranes` splits by blocks: 24 slices to learn from, the six below to be judged by.
#
# ### Exposures of tiles
#
# Each magnetic tile was photographed under several exposures in a row. The names do not say so, but their numbers follow each other. If runs matter, then the most similar other photograph should be of the same run far more often than chance.

# %% tags=["nbval-ignore-output"]
if catalog.available("tiles"):
    tiles = [catalog.load("tiles", split=split) for split in ("train", "val")]
    kept = [(part, n) for part in tiles for n in np.argsort(part.runs)[: most_real // 2].tolist()]
    runs = torch.tensor([part.runs[n] for part, n in kept])  # whole runs, but for the last
    small = torch.cat([thumbnails(part[n]["image"][None]) for part, n in kept])
    small = small - small.mean(1, keepdim=True)  # exposures differ in brightness
    distance = torch.cdist(small, small).fill_diagonal_(math.inf)
    share = (runs[distance.argmin(1)] == runs).float().mean()
    by_chance = ((runs[:, None] == runs).sum() - len(runs)) / (len(runs) * (len(runs) - 1))
    print(f"most similar photograph is of the same run: {share:.0%}; by chance: {by_chance:.1%}")
    check_at_least("how many times as often as by chance", share / by_chance, least_same_run)
else:
    print("The tiles are not here; `segedu data get tiles` downloads them.")

# %% [markdown]
# ## 14. Your own folder
#
# Put pictures in one folder and masks in another, a mask named as its picture. `Folder` checks what can be checked before training, and says what to do. Here three scenes are written as files and read back.

# %%
home = tempfile.TemporaryDirectory()
images_folder, masks_folder = Path(home.name, "images"), Path(home.name, "masks")
for folder in (images_folder, masks_folder):
    folder.mkdir()
for number in range(3):
    one = scenes[number]
    pixels = (one["image"] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(images_folder / f"{number}.png")
    Image.fromarray(one["mask"].byte().numpy()).save(masks_folder / f"{number}.png")

# %%
mine = Folder(images_folder, masks_folder, CLASSES)
check("pictures", len(mine), 3)
check("the mask of the second, as it was", mine[1]["mask"], scenes[1]["mask"])
rounding = (mine[1]["image"] - scenes[1]["image"].clamp(0, 1)).abs().max()
check_at_most("its image, up to the rounding to bytes, in steps of 1/255", 255 * rounding, 0.501)

# %% [markdown]
# Now the mistakes of this chapter, made on disk. **Predict** for each whether it is noticed: (a) black and white masks, 0 and 255, whose 255 means *object*; (b) a colour picture for a mask; (c) a picture without a mask.


# %%
def complaint(action):
    """What the error says, without the folder's own place."""
    try:
        action()
    except InputError as error:
        return str(error).replace(home.name, "my_folder").replace("\\", "/")
    return "nothing"


for number in range(3):
    two_values = (scenes[number]["instance_map"] > 0).byte() * 255
    Image.fromarray(two_values.numpy()).save(masks_folder / f"{number}.png")
print("(a)", complaint(lambda: Folder(images_folder, masks_folder)))
read = Folder(images_folder, masks_folder, ("ground", "object"), codes={0: 0, 255: 1})
check("with codes={0: 0, 255: 1}", read[0]["mask"], (scenes[0]["instance_map"] > 0).long())

# %%
Image.fromarray(painted).save(masks_folder / "0.png")
print("(b)", complaint(lambda: Folder(images_folder, masks_folder, CLASSES)[0]))
(masks_folder / "2.png").unlink()
print("(c)", complaint(lambda: Folder(images_folder, masks_folder, CLASSES)))
check(
    "(c) is noticed at once",
    "has no mask" in complaint(lambda: Folder(images_folder, masks_folder, CLASSES)),
    want=True,
)
home.cleanup()

# %% [markdown]
# ## 15. In the article
#
# > **In the article, 5.2: "one-hot".** The mask, class indices as numbers, goes through a sigmoid, and what is above 0.5 becomes 1. The comment says that this makes it one-hot.
#
# **Predict** what it makes of the classes 0 to 5 and of void.

# %%
indices = torch.tensor([0, 1, 2, 3, 4, 5, IGNORE]).float()
print("sigmoid:", [round(x, 3) for x in torch.sigmoid(indices).tolist()])
theirs = (torch.sigmoid(indices) > 0.5).long()
check("the article's mask", theirs, [0, 1, 1, 1, 1, 1, 1])
article_mask = (torch.sigmoid(mask.float()) > 0.5).long()
check_at_least("values before", len(mask.unique()), 4)
check("values after", len(article_mask.unique()), 2)
one_hot = F.one_hot(mask.where(mask != IGNORE, 0), 6).movedim(-1, 0) * (mask != IGNORE)
check("one-hot has a channel a class", one_hot.shape, [6, image_size, image_size])
check(
    "and a single 1 at each labelled pixel, none in void", one_hot.sum(0), (mask != IGNORE).long()
)

# %% [markdown]
# $\sigma(0) = 0.5$ is not above 0.5, and $\sigma(x) > 0.5$ for every other index. So all classes become one, and void joins them. A sigmoid belongs to *logits*, which may be negative; an index is no logit. And no loss here needs a one-hot mask: `F.cross_entropy` takes the indices.
#
# > **In the article, 5.2: `image.unsqueeze(0)`.** An array of $H \times W \times C$ becomes $1 \times H \times W \times C$. Convolution (卷积) wants channels before rows.
#
# **Predict:** which axis does a convolution then take for the channels?

# %% tags=["nbval-ignore-output"]
array = image.permute(1, 2, 0).numpy()  # H x W x C, as PIL and NumPy give it
first_layer = torch.nn.Conv2d(3, 8, kernel_size=3)
theirs = torch.from_numpy(array).unsqueeze(0)
check("the article's shape", theirs.shape, [1, image_size, image_size, 3])
try:
    first_layer(theirs)
    raised = "nothing"
except RuntimeError as error:
    raised = type(error).__name__
    print(str(error).split(" to have ")[-1])
check("the rows are taken for channels", raised, "RuntimeError")

# %%
ours = torch.from_numpy(array).permute(2, 0, 1)  # C x H x W; the DataLoader adds the batch
check("one sample", ours.shape, [3, image_size, image_size])
check(
    "the layer takes a batch of it",
    first_layer(ours[None]).shape,
    [1, 8, image_size - 2, image_size - 2],
)

# %% [markdown]
# Here an error saves us. A picture of three rows would have passed, and after the `DataLoader` has added its own axis the batch is five-dimensional. `reshape(3, H, W)` instead of `permute` would raise nothing at all, and shuffle the pixels.

# %%
shuffled = torch.from_numpy(array).reshape(3, image_size, image_size)
check("reshape: the right shape", shuffled.shape, ours.shape)
check_at_least("and the wrong pixels: share that differ", (shuffled != ours).float().mean(), 0.9)

# %% [markdown]
# > **In the article, 6.1: medical images "such as PASCAL VOC, COCO".** These are everyday photographs. VOC's twenty classes are below; COCO's eighty are of the same kind. For medicine there are ISBI 2012 (membranes, in this course), DSB 2018 (nuclei, in this course), DRIVE (vessels of the retina) and many others,
# > each with its own truths, sizes and traps. A network that knows cats and sofas has a good start for edges and textures ([chapter 14](14_transfer.ipynb)); it has not seen a cell.

# %%
VOC = ["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"]
VOC += ["diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"]
VOC += ["train", "tvmonitor"]
medical = {"cell", "nucleus", "membrane", "tumour", "organ", "vessel", "lesion", "retina"}
check("classes of VOC", len(VOC), 20)
check("of them medical", len(medical & set(VOC)), 0)

# %% tags=["nbval-ignore-output"]
if catalog.available("coco"):
    check("classes of COCO", len(catalog.load("coco").classes) - 1, 80)
    check("of them medical", len(medical & set(catalog.load("coco").classes)), 0)
else:
    print("COCO is not here; `segedu data get coco` downloads it.")

# %% [markdown]
# ## 16. Three quick questions
#
# **1.** A new set's masks hold the values 0, 38, 75, 113 and 220. What has probably happened?
#
# <details><summary>Answer</summary>
#
# Somebody read a palette PNG with `convert("L")`: 38 is the lightness of VOC's $(128, 0, 0)$, class 1; 75 that of $(0, 128, 0)$, class 2; 113 of $(128, 128, 0)$, class 3; 220 of the cream $(224, 224, 192)$ of void. Read the stored indices instead, from the original files.
#
# </details>
#
# **2.** Two COCO masks have the counts `[0, 12]` and `[12]` in a picture of 3 x 4. What do they show?
#
# <details><summary>Answer</summary>
#
# The first is all object: no pixel of background, then twelve of object. The second is empty.
#
# </details>
#
# **3.** Your training set has 2,000 frames of 40 operations on 35 patients. How many groups does the split have?
#
# <details><summary>Answer</summary>
#
# **35.** Two operations on one patient show the same organ. What the network will meet is a new *patient*, so patients are what is held out.
#
# </details>

# %%
lightness = [round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in colours[1:4].tolist()]
check("1: the lightness of VOC's first three classes", lightness, [38, 75, 113])
check("2: all object", from_runs([0, 12], 3, 4).sum(), 12)
check("2: empty", from_runs([12], 3, 4).sum(), 0)

# %% [markdown]
# ## 17. Exercises
#
# ### Exercise 1: the area of an object, from its run lengths
#
# One line, and no mask is drawn.


# %% tags=["exercise"]
def area(counts):
    """How many pixels of object a mask with these run lengths has."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
exercise = Exercise(
    solution=lambda counts: sum(counts[1::2]),
    inputs=[([2, 3, 1],), ([0, 12],), ([12],), ([0, 2, 3, 1, 5],), ([],)],
    misconceptions={
        "that is the background: the first run is always background": lambda c: sum(c[0::2]),
        "all counts together are the whole picture": sum,
        "that is the number of runs, not of pixels": lambda c: len(c) // 2,
    },
)
exercise.check(area)


# %% tags=["solution"]
def area(counts):
    """Every second run, from the second on, is object."""
    return sum(counts[1::2])


exercise.check(area)

# %% [markdown]
# ### Exercise 2: a mask in VOC's colours
#
# Decode a colour picture with a border. `colours` has one row for each class; a pixel of any other colour, the border among them, shall become `IGNORE`.


# %% tags=["exercise"]
def decode_colours(picture, colours):
    """The class of each pixel of `picture` (H, W, 3), by its colour's row in `colours` (C, 3).

    A colour that is no class's gives `IGNORE`. The result is (H, W).
    """
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_comparison(picture, colours):
    equal = (picture[:, :, None].astype(int) == colours.astype(int)).all(-1)  # (H, W, C)
    return np.where(equal.any(-1), equal.argmax(-1), IGNORE)


exercise = Exercise(
    solution=by_comparison,
    inputs=[
        (
            np.array([[[0, 0, 0], [128, 0, 0]], [[224, 224, 192], [0, 128, 0]]], dtype=np.uint8),
            voc_colours()[:3],
        ),
        (voc_colours()[np.array([[0, 8, 20], [255, 1, 15]])], voc_colours()[:21]),
        (np.full((1, 2, 3), 64, dtype=np.uint8), voc_colours()[:21]),
    ],
    misconceptions={
        "the border was made background; nobody knows what is there": lambda p, c: np.where(
            by_comparison(p, c) == IGNORE, 0, by_comparison(p, c)
        ),
        "the nearest colour is always some class; a strange colour must become IGNORE": lambda p, c: (
            ((p[:, :, None].astype(int) - c.astype(int)) ** 2).sum(-1).argmin(-1)
        ),
        "one equal channel is not enough: all three must agree": lambda p, c: np.where(
            (p[:, :, None] == c).any(-1).any(-1), (p[:, :, None] == c).any(-1).argmax(-1), IGNORE
        ),
    },
)
exercise.check(decode_colours)


# %% tags=["solution"]
def decode_colours(picture, colours):
    """Start from void, and write each class where its colour is."""
    classes = np.full(picture.shape[:2], IGNORE)
    for index, colour in enumerate(colours):
        classes[(picture == colour).all(-1)] = index
    return classes


exercise.check(decode_colours)

# %% [markdown]
# ### Exercise 3: a crop that may reach beyond the edge
#
# Cut `size` x `size` pixels out of image and mask, with the top left corner at (`top`, `left`), which may be negative or reach too far. Beyond the edge the image is 0 and the mask is void.


# %% tags=["exercise"]
def crop_pair(image, mask, top, left, size):
    """Image (3, H, W) and mask (H, W) cut to `size` x `size` at (top, left), padded if needed."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def cut(image, mask, top, left, size, void=IGNORE, top_of_mask=None):
    """By padding on all sides first."""
    far = size + max(abs(top), abs(left)) + 4
    image, mask = F.pad(image, (far,) * 4), F.pad(mask, (far,) * 4, value=void)
    row = top if top_of_mask is None else top_of_mask
    return (
        image[:, far + top : far + top + size, far + left : far + left + size],
        mask[far + row : far + row + size, far + left : far + left + size],
    )


pair = torch.arange(1.0, 49).reshape(3, 4, 4), torch.arange(1, 17).reshape(4, 4)
exercise = Exercise(
    solution=cut,
    inputs=[(*pair, 1, 2, 2), (*pair, -1, 1, 3), (*pair, 2, 3, 4), (*pair, 0, -2, 3)],
    misconceptions={
        "the mask was padded with 0: that is a class, and says that ground is there": lambda *a: (
            cut(*a, void=0)
        ),
        "rows and columns were exchanged: top belongs to rows": lambda a, b, top, left, size: cut(
            a, b, left, top, size
        ),
        "the mask was cut at another place than the image": lambda *a: cut(*a, top_of_mask=0),
    },
)
exercise.check(crop_pair)


# %% tags=["solution"]
def crop_pair(image, mask, top, left, size):
    """`move`, with places that are whole numbers."""
    i, j = grid(size, size)
    return move(image, mask, i + top, j + left)


exercise.check(crop_pair)

# %% [markdown]
# ### Exercise 4: split by group
#
# A small experiment. Write a split that keeps groups together: of the sorted different group names, every `one_in`-th is held out, beginning with the first. Then run the lookup of section 13 with groups of *two* films each, and predict whether the score moves.


# %% tags=["exercise"]
def hold_out(groups, one_in):
    """For each sample, whether it is held out; `groups` names the group of each."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
def by_sorted_names(groups, one_in):
    chosen = set(sorted(set(groups))[::one_in])
    return [group in chosen for group in groups]


exercise = Exercise(
    solution=by_sorted_names,
    inputs=[
        (["a", "a", "b", "b", "c"], 3),
        (["c", "a", "b", "a", "d", "c"], 2),
        (["0016E5", "0006R0", "0016E5", "0001TP", "0006R0"], 2),
    ],
    misconceptions={
        "that holds out every n-th sample: neighbours are torn apart": lambda g, n: [
            i % n == 0 for i in range(len(g))
        ],
        "held out and kept were exchanged": lambda g, n: [
            not held for held in by_sorted_names(g, n)
        ],
        "the groups were taken in order of appearance; the split then depends on the order of the files": lambda g, n: (
            [group in list(dict.fromkeys(g))[::n] for group in g]
        ),
    },
)
exercise.check(hold_out)


# %% tags=["solution"]
def hold_out(groups, one_in):
    """A group is chosen once, for all of its samples."""
    chosen = set(sorted(set(groups))[::one_in])
    return [group in chosen for group in groups]


pairs_of_films = [f"{number // 2:02}" for number in drive_of.tolist()]
score = score_of_lookup(pictures, masks, torch.tensor(hold_out(pairs_of_films, 4)), 6)
print(f"lookup, pairs of films held out: {score:.2f}; single films: {scores['films']:.2f}")
exercise.check(hold_out)

# %% [markdown]
# Larger groups change little here: the films have nothing to do with each other. Where the score falls when groups are made larger, the smaller groups still leaked.
#
# ## Summary
#
# Symbols: class index $c$ with bits $b$; run lengths $c_i$; rows and columns $i, j$; pixel $(i, j)$ has its middle at $x = j + \frac12$, $y = i + \frac12$.
#
# $$
# \begin{aligned}
# \text{red } R &= \textstyle\sum_j b_{3j}\, 2^{7-j} && \text{VOC's colours; 255 is } (224, 224, 192) \\
# \text{crossing } x &< x_a + (y - y_a)\,\tfrac{x_b - x_a}{y_b - y_a} && \text{of an edge; inside if their number is odd} \\
# \text{change } x_i &= c_i - c_j, \quad j = i - 2 \ge 1 && \text{what COCO's string stores} \\
# \text{panoptic id} &= R + 256\,G + 65536\,B && \text{of the colour} \\
# (i, j) &\leftarrow (\text{rows}_{ij},\ \text{columns}_{ij}) && \text{every geometric transform, asked backwards}
# \end{aligned}
# $$
#
# **Three things to remember**
#
# 1. A mask stores numbers that mean something only with their table. Count the values first, decode at the boundary, stop at a number that has no meaning.
# 2. Image and mask move by the same random numbers; the image smoothly, the mask by the nearest pixel, void beyond the edge. Look at the pairs that training really gets.
# 3. Split by what will be new: a drive, a patient, a tile. A learner that only looks up shows what a split gives away.
#
# **To read**
#
# - M. Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", *International Journal of Computer Vision* 88, 2010.
# - T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014: section 4 on how objects were outlined, and crowds.
# - A. Kirillov et al., "Panoptic Segmentation", CVPR 2019: section 3 defines the format, with void.
# - P. Simard, D. Steinkraus, J. Platt, "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis", ICDAR 2003: elastic distortions.
# - O. Ronneberger, P. Fischer, T. Brox, "U-Net", MICCAI 2015: section 3.1, data augmentation.
# - G. Brostow, J. Fauqueur, R. Cipolla, "Semantic object classes in video: A high-definition ground truth database", *Pattern Recognition Letters* 30, 2009: CamVid and its drives.
# - O. Parkhi et al., "Cats and Dogs", CVPR 2012: the trimaps.
#
# **Next.** With pictures and truths in hand, what could be done before networks? [Chapter 03](03_thresholds_and_edges.ipynb) starts with one threshold for the whole picture.

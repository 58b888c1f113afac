"""Scenes: pictures of textured objects, drawn on demand, with every kind of truth.

No file and no download: scene i depends on (seed, index, size, difficulty) alone, and is the same
to the last bit on every machine.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segedu.data.painting import Canvas, Picture, draw
from segedu.data.sample import IGNORE, InstanceSample
from segedu.data.stream import Stream
from segedu.errors import InputError

CLASSES = ("ground", "disc", "square", "triangle", "star", "ring")
PANOPTIC_BASE = 1000
"""Pixels of the n-th object of class c have the panoptic id c * 1000 + n; the ground has 0."""

_SMALLEST = 24  # visible pixels below which what is left of a hidden object is void


class SceneSample(InstanceSample):
    """A scene with all its truths; the four maps say the same about the same objects.

    Attributes:
        instance_map: (H, W) int64; 0 for the ground, n for the n-th object, from 1.
        panoptic: (H, W) int64; class * 1000 + n for objects, 0 for the ground, or `IGNORE`.
        boundary: (H, W) bool; pixels whose right or lower neighbour belongs to something else.
    """

    instance_map: tv_tensors.Mask
    panoptic: tv_tensors.Mask
    boundary: tv_tensors.Mask


class Scenes(Dataset[SceneSample]):
    """`length` pictures with objects of five kinds in front of one another, on uneven ground.

    Objects come in all sizes and colours, cast shadows, and hide one another. A kind prefers some
    textures but shares each with others, so neither colour nor a small patch tells the kind. The
    void ring, one pixel to either side of each outline, is `IGNORE` in `mask` and
    `panoptic`; `masks`, `boxes` and `instance_map` have no void.

    Args:
        length: Number of pictures.
        size: Height and width, in pixels; at least 16.
        seed: Chooses the pictures; use another for validation.
        difficulty: In [0, 1]: the strength of noise, blur and uneven light, and how often a kind
            of object has the texture of another.

    Raises:
        InputError: If an argument is out of its range.
    """

    classes = CLASSES

    def __init__(
        self, length: int, *, size: int = 96, seed: int = 0, difficulty: float = 0.5
    ) -> None:
        for name, value, least in (("length", length, 0), ("size", size, 16), ("seed", seed, 0)):
            if value < least:
                raise InputError(f"Scenes: {name} is {value}; expected {least} or more")
        if not 0 <= difficulty <= 1:
            raise InputError(f"Scenes: difficulty is {difficulty}; expected a number in [0, 1]")
        self.length = length
        self.size = size
        self.seed = seed
        self.difficulty = difficulty

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> SceneSample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        canvas = draw(Stream(self.seed, index), self.size, self.difficulty)
        return _sample(canvas)


def _sample(canvas: Canvas) -> SceneSample:
    """Everything that can be said of a finished canvas, as tensors."""
    owner, unsure = canvas.owner, canvas.unsure.copy()
    area = np.bincount(owner.ravel(), minlength=len(canvas.kinds) + 1)
    kept = [n for n in range(1, len(area)) if area[n] >= _SMALLEST]
    unsure |= (area[owner] < _SMALLEST) & (owner > 0)
    number = np.zeros(len(area), dtype=np.int64)
    number[kept] = np.arange(1, len(kept) + 1)
    instance_map = number[owner]
    kinds = np.array([0, *(canvas.kinds[n - 1] for n in kept)], dtype=np.int64)
    mask = kinds[instance_map]
    panoptic = mask * PANOPTIC_BASE + instance_map
    mask[unsure] = panoptic[unsure] = IGNORE
    masks = instance_map == np.arange(1, len(kept) + 1)[:, None, None]
    return {
        "image": _quantised(canvas.picture),
        "mask": tv_tensors.Mask(torch.from_numpy(mask)),
        "boxes": tv_tensors.BoundingBoxes(
            torch.from_numpy(_boxes(masks)),
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=owner.shape,
        ),
        "labels": torch.from_numpy(kinds[1:]),
        "masks": tv_tensors.Mask(torch.from_numpy(masks)),
        "instance_map": tv_tensors.Mask(torch.from_numpy(instance_map)),
        "panoptic": tv_tensors.Mask(torch.from_numpy(panoptic)),
        "boundary": tv_tensors.Mask(torch.from_numpy(_boundary(instance_map))),
    }


def _quantised(picture: Picture) -> tv_tensors.Image:
    """Rounded to the 256 levels of a PNG file, so that a saved scene is the same scene."""
    levels: UInt8[np.ndarray, "3 s s"] = np.rint(picture.clip(0, 1) * np.float32(255)).astype(
        np.uint8
    )
    return tv_tensors.Image(torch.from_numpy(levels) / 255)


def _boxes(masks: Bool[np.ndarray, "n s s"]) -> Float32[np.ndarray, "n 4"]:
    """The smallest box around each mask, XYXY, outer edges of its pixels."""
    size = masks.shape[1]
    columns = np.asarray(masks.any(axis=1))
    rows = np.asarray(masks.any(axis=2))
    x1, y1 = columns.argmax(axis=1), rows.argmax(axis=1)
    x2, y2 = size - columns[:, ::-1].argmax(axis=1), size - rows[:, ::-1].argmax(axis=1)
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float32).reshape(-1, 4)


def _boundary(instance_map: Int64[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    """Pixels whose right or lower neighbour belongs to something else."""
    boundary = np.zeros(instance_map.shape, dtype=bool)
    boundary[:, :-1] |= instance_map[:, :-1] != instance_map[:, 1:]
    boundary[:-1] |= instance_map[:-1] != instance_map[1:]
    return boundary

"""BSDS500: photographs, each with the regions and boundaries that several people drew."""

import zlib
from pathlib import Path

import numpy as np
import scipy.io
import torch
from jaxtyping import Bool, Int64
from scipy.io.matlab import MatReadError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segedu.data.images import read_image
from segedu.data.paired import Pair, need_same_size, pairs_by_name
from segedu.data.sample import Sample
from segedu.data.splits import need_files, need_split
from segedu.errors import InputError

CLASSES = ("region", "boundary")
WHOLE = {"train": 200, "val": 100, "test": 200}
"""Photographs of each split in the whole public set."""

_BROKEN = (OSError, ValueError, KeyError, IndexError, TypeError, zlib.error, MatReadError)
"""What reading a file that is not as it should be may raise."""


class BsdsSample(Sample):
    """A photograph and what P people drew on it; people differ in how finely they look.

    Attributes:
        boundaries: (P, H, W) bool; the boundary pixels of each person.
        segmentations: (P, H, W) int64; the regions of each person, numbered from 1.
    """

    boundaries: tv_tensors.Mask
    segmentations: tv_tensors.Mask


class Bsds(Dataset[BsdsSample]):
    """Photographs of 321x481 pixels, lying or upright; `mask` is 1 where anyone drew a boundary.

    Args:
        root: The folder that holds `images/SPLIT/ID.jpg` and `groundTruth/SPLIT/ID.mat`.
        split: "train", "val" or "test".

    Raises:
        InputError: If there is no such split, or none of its files.

    Source:
        Arbelaez et al. 2011, Contour detection and hierarchical image segmentation,
        https://doi.org/10.1109/TPAMI.2010.161.
    """

    classes = CLASSES

    def __init__(self, root: Path, split: str = "train") -> None:
        need_split(split, tuple(WHOLE), "BSDS500")
        folders = (root / "images" / split, root / "groundTruth" / split)
        self.pairs = pairs_by_name(*folders, ending=".mat")
        layout = "images/SPLIT/ID.jpg with a groundTruth/SPLIT/ID.mat"
        need_files(self.pairs, root, name="bsds", split=split, layout=layout)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> BsdsSample:
        pair = self.pairs[index]
        image = read_image(pair.image)
        boundaries, segmentations = _read(pair)
        need_same_size(image.shape[-2:], boundaries.shape[-2:], pair)
        return {
            "image": image,
            "mask": tv_tensors.Mask(boundaries.any(dim=0).long()),
            "boundaries": tv_tensors.Mask(boundaries),
            "segmentations": tv_tensors.Mask(segmentations),
        }

    @property
    def names(self) -> list[str]:
        """The ID of each photograph."""
        return [pair.image.stem for pair in self.pairs]


def _read(pair: Pair) -> tuple[Bool[Tensor, "p h w"], Int64[Tensor, "p h w"]]:
    """Each person's boundaries and segmentation, from a MATLAB file."""
    try:
        people = scipy.io.loadmat(pair.mask)["groundTruth"][0]
        boundaries, segmentations = (
            torch.from_numpy(np.stack([person[key][0, 0] for person in people]).astype(np.int64))
            for key in ("Boundaries", "Segmentation")
        )
    except _BROKEN as error:
        raise InputError(
            f"{pair.mask}: cannot be read as a BSDS500 MATLAB file ({error}); get the set again"
        ) from error
    return boundaries > 0, segmentations

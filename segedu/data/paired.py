"""Data sets that are pairs of files: an image, and a mask that stores one number per pixel."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segedu.data.images import read_image, read_index
from segedu.data.sample import Sample
from segedu.errors import InputError


class Pair(NamedTuple):
    """An image file and its mask file."""

    image: Path
    mask: Path


class PairedFiles(Dataset[Sample]):
    """Samples read from pairs of files, in the order given; nothing is kept in memory.

    Attributes:
        classes: The name of each class index.
        codes: The class index, or `IGNORE`, of each number that a mask file may store.
        advice: What to do about a file that stores another number.
        pairs: The files of each sample.
    """

    classes: tuple[str, ...]
    codes: Mapping[int, int]
    advice: str = "it is not a file of the public set; get the set again"

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image, stored = read_image(pair.image), read_index(pair.mask)
        need_same_size(image.shape[-2:], stored.shape[-2:], pair)
        return {"image": image, "mask": self.class_of_each_pixel(stored, index)}

    @property
    def names(self) -> list[str]:
        """The file name of each sample's image, without its ending."""
        return [pair.image.stem for pair in self.pairs]

    def class_of_each_pixel(self, stored: Int64[Tensor, "h w"], index: int) -> tv_tensors.Mask:
        """The mask of sample `index`, from the numbers stored in its file."""
        try:
            return recoded(stored, self.codes)
        except InputError as error:
            raise InputError(f"{self.pairs[index].mask}: {error}; {self.advice}") from error


def pairs_by_name(images: Path, masks: Path, *, ending: str = ".png") -> list[Pair]:
    """The files of the folder `images` that have a mask of the same name, in order of their names.

    Images without a mask are left out, so that part of a set can be used; a folder that does not
    exist has no files.
    """
    candidates = (
        Pair(path, masks / f"{path.stem}{ending}")
        for path in sorted(images.glob("*"))
        if not path.name.startswith(".")
    )
    return [pair for pair in candidates if pair.mask != pair.image and pair.mask.is_file()]


def recoded(stored: Int64[Tensor, "h w"], codes: Mapping[int, int]) -> tv_tensors.Mask:
    """The class index that `codes` gives each stored number.

    Args:
        stored: What the file holds, 0 or more.
        codes: From stored number to class index.

    Raises:
        InputError: If a number is not in `codes`.
    """
    table = torch.full((max(int(stored.max()), *codes) + 1,), -1)
    table[list(codes)] = torch.tensor(list(codes.values()))
    classes = table[stored.as_subclass(Tensor)]
    if (classes < 0).any():
        strange = [str(value) for value in sorted(set(stored[classes < 0].tolist()))]
        raise InputError(
            f"stores {', '.join(strange[:5])}{' ...' * (len(strange) > 5)}; "
            f"expected only {_ranges(sorted(codes))}"
        )
    return tv_tensors.Mask(classes)


def need_same_size(image: Sequence[int], mask: Sequence[int], pair: Pair) -> None:
    """Refuse a mask that has not its image's (height, width).

    Raises:
        InputError: If they differ.
    """
    if tuple(image) != tuple(mask):
        raise InputError(
            f"{pair.mask}: is {mask[1]}x{mask[0]} pixels; expected {image[1]}x{image[0]}, the size "
            f"of {pair.image.name}; save the mask again at the image's own size, without smoothing"
        )


def _ranges(values: Sequence[int]) -> str:
    """Rising numbers in words: 0..10, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{a}..{b}" if a < b else str(a) for a, b in runs)

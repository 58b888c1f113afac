"""Tiles: grey photographs of magnetic tiles, most of them without a defect."""

from collections.abc import Iterable
from pathlib import Path, PurePath

from jaxtyping import Int64
from torch import Tensor
from torchvision import tv_tensors

from segedu.data.manifests import manifest
from segedu.data.paired import Pair, PairedFiles, pairs_by_name
from segedu.data.splits import held_out, need_files, need_split

CLASSES = ("free", "blowhole", "break", "crack", "fray", "uneven")
WHOLE = {"train": 883, "val": 461}
"""Photographs of each split in the whole public set."""
NEAR = 200
"""Photographs whose numbers follow each other with smaller gaps are taken to be of one run."""


class Tiles(PairedFiles):
    """Photographs of magnetic tiles in many sizes; a defect has the class of its folder.

    The mask files have soft edges; a pixel is a defect if more than half of it is. A file
    `expE_num_N.jpg` is photograph N, under exposure E. One tile was photographed under up to six
    exposures in a row, so whole runs of close numbers go into one split; which runs there are
    follows from the names of the whole public set, however few of its files are present.

    Args:
        root: The folder that holds `MT_Free/Imgs/NAME.jpg` and `.png`, `MT_Crack/Imgs/...`.
        split: "train", or "val" for about one run in three, among them some of every kind.

    Raises:
        InputError: If there is no such split, or none of its files.

    Source:
        Huang, Qiu, Yuan 2018, Surface defect saliency of magnetic tile,
        https://doi.org/10.1007/s00371-018-1588-5.
    """

    classes = CLASSES

    def __init__(self, root: Path, split: str = "train") -> None:
        need_split(split, tuple(WHOLE), "Tiles")
        present = [
            pair for kind in CLASSES for pair in _photographs(root / f"MT_{kind.title()}" / "Imgs")
        ]
        listed = [PurePath(path) for path in manifest("tiles").listed]
        names = [path.stem for path in listed if path.suffix == ".jpg" and "_num_" in path.stem]
        runs = run_of_each([*names, *(pair.image.stem for pair in present)])
        pairs = [
            pair
            for pair in present
            if held_out(f"tile run {runs[pair.image.stem]}", one_in=3) == (split == "val")
        ]
        layout = "MT_KIND/Imgs/expE_num_N.jpg with a .png"
        need_files(pairs, root, name="tiles", split=split, layout=layout)
        super().__init__(pairs)
        self.runs = [runs[name] for name in self.names]

    @property
    def kinds(self) -> list[str]:
        """The class whose folder each photograph is in."""
        return [pair.mask.parent.parent.name.removeprefix("MT_").lower() for pair in self.pairs]

    def class_of_each_pixel(self, stored: Int64[Tensor, "h w"], index: int) -> tv_tensors.Mask:
        """The class of the photograph's folder where the mask is more than half white."""
        return tv_tensors.Mask((stored > 127).long() * CLASSES.index(self.kinds[index]))


def _photographs(folder: Path) -> list[Pair]:
    """The photographs of one folder, with their masks beside them."""
    return [pair for pair in pairs_by_name(folder, folder) if pair.image.suffix == ".jpg"]


def run_of_each(names: Iterable[str]) -> dict[str, int]:
    """The run of each photograph, called by the smallest number in it.

    Example:
        >>> run_of_each(["exp1_num_3191", "exp2_num_3211", "exp1_num_32128"])
        {'exp1_num_3191': 3191, 'exp2_num_3211': 3191, 'exp1_num_32128': 32128}
    """
    numbered = sorted((int(name.rsplit("_", 1)[1]), name) for name in names)
    runs: dict[str, int] = {}
    run = before = -NEAR
    for number, name in numbered:
        if number - before >= NEAR:
            run = number
        runs[name] = run
        before = number
    return runs

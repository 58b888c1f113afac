"""CamVid: frames of four drives through Cambridge, with the class of each pixel."""

from collections.abc import Mapping
from pathlib import Path

from segedu.data.paired import PairedFiles, pairs_by_name
from segedu.data.sample import IGNORE
from segedu.data.splits import need_files, need_split

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
VOID = 11
"""What the mask files store where nobody knows."""

WHOLE = {"train": 367, "val": 101, "test": 233}
"""Frames of each split in the whole public set."""


class CamVid(PairedFiles):
    """Street scenes of 360x480 pixels in 11 classes; void pixels are `IGNORE`.

    The public splits are not independent: every validation frame is from the drive 0016E5, which
    also gave more than half of the training frames; most test frames are from a drive of their own.
    Neighbours in time look alike; to judge a model, split by `drives`.

    Args:
        root: The folder that holds `train/NAME.png`, `trainannot/NAME.png` and so on.
        split: "train", "val" or "test".

    Raises:
        InputError: If there is no such split, or none of its files.

    Source:
        Brostow, Fauqueur, Cipolla 2009, Semantic object classes in video; the splits are those of
        Badrinarayanan, Kendall, Cipolla 2017, SegNet, https://arxiv.org/abs/1511.00561.
    """

    classes = CLASSES
    codes: Mapping[int, int] = {**{index: index for index in range(len(CLASSES))}, VOID: IGNORE}

    def __init__(self, root: Path, split: str = "train") -> None:
        need_split(split, tuple(WHOLE), "CamVid")
        pairs = pairs_by_name(root / split, root / f"{split}annot")
        layout = f"{split}/NAME.png with a {split}annot/NAME.png"
        need_files(pairs, root, name="camvid", split=split, layout=layout)
        super().__init__(pairs)

    @property
    def drives(self) -> list[str]:
        """The drive of each frame, such as "0016E5": the part of its name before the number."""
        return [name.split("_")[0] for name in self.names]

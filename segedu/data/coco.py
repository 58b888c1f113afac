"""COCO: everyday photographs with their objects, and with every pixel's panoptic segment."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int64
from pycocotools import mask as peer
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segedu.data import rle
from segedu.data.images import read_image
from segedu.data.instances import boxes_around
from segedu.data.paired import Pair, need_same_size
from segedu.data.sample import IGNORE, InstanceSample, Sample
from segedu.data.scenes import PANOPTIC_BASE
from segedu.data.splits import held_out, need_files, need_split
from segedu.errors import InputError

SPLITS = ("train", "val")
INSTANCES = "annotations/instances_train2017_first128.json"


class CocoSample(InstanceSample):
    """A photograph with its objects, of classes 1 to 80.

    `mask` is made from the objects: 0 where there is none, else the class of the smallest object
    there; `IGNORE` where there is only a crowd.

    Attributes:
        crowd: (N,) bool; whether an "object" is a region full of objects that nobody told apart.
    """

    crowd: Tensor


class PanopticSample(Sample):
    """A photograph in which every pixel has a class, of things (1..80) or stuff (81..133).

    Attributes:
        panoptic: (H, W) int64; class * 1000 + n for the n-th object of a class of things, from 1;
            class * 1000 for stuff; `IGNORE` for void and for crowds.
    """

    panoptic: tv_tensors.Mask


class Coco(Dataset[CocoSample]):
    """The photographs of the first 128 of COCO's train2017, with `masks` of their N objects.

    N may be 0. Boxes are those around the masks' pixels; the annotations' own boxes differ from
    them by up to a few pixels.

    Args:
        root: The folder that holds `images/train2017/` and `annotations/`.
        split: "train", or "val" for one photograph in four, chosen by its name.

    Attributes:
        classes: "background" and the 80 names, in the order of COCO's category ids, without gaps.

    Raises:
        InputError: If there is no such split, or none of its files.

    Source:
        Lin et al. 2014, Microsoft COCO, https://arxiv.org/abs/1405.0312.
    """

    def __init__(self, root: Path, split: str = "train") -> None:
        need_split(split, SPLITS, "COCO")
        stored = _read_json(root / INSTANCES)
        self.classes, self._class_of = _classes(stored["categories"])
        self.files = [
            path
            for record in stored["images"]
            if (path := root / "images" / "train2017" / record["file_name"]).is_file()
            and held_out(path.stem, one_in=4) == (split == "val")
        ]
        need_files(self.files, root, name="coco", split=split, layout="images/train2017/ID.jpg")
        self._objects: dict[int, list[dict[str, Any]]] = {int(path.stem): [] for path in self.files}
        for thing in stored["annotations"]:
            self._objects.get(thing["image_id"], []).append(thing)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> CocoSample:
        image = read_image(self.files[index])
        objects = self._objects[int(self.files[index].stem)]
        height, width = image.shape[-2:]
        masks = torch.zeros(len(objects), height, width, dtype=torch.bool)
        for number, thing in enumerate(objects):
            masks[number] = _pixels(thing["segmentation"], height, width)
        labels = torch.tensor([self._class_of[thing["category_id"]] for thing in objects]).long()
        crowd = torch.tensor([bool(thing["iscrowd"]) for thing in objects], dtype=torch.bool)
        return {
            "image": image,
            "mask": semantic_mask(masks, labels, crowd),
            "boxes": boxes_around(masks),
            "labels": labels,
            "masks": tv_tensors.Mask(masks),
            "crowd": crowd,
        }

    @property
    def names(self) -> list[str]:
        """The ID of each photograph, twelve digits."""
        return [path.stem for path in self.files]


class CocoPanoptic(Dataset[PanopticSample]):
    """The photographs of COCO128 with a panoptic segmentation.

    Args:
        root: The folder that holds `images/` and `panoptic_segmentation/`.
        split: "train" for train2017, "val" for val2017.

    Attributes:
        classes: "background", which no pixel has, the 80 things of `Coco`, and 53 kinds of stuff.
        things: The class indices that are things.

    Raises:
        InputError: If there is no such split, or none of its files.

    Source:
        Kirillov et al. 2019, Panoptic segmentation, https://arxiv.org/abs/1801.00868.
    """

    def __init__(self, root: Path, split: str = "train") -> None:
        need_split(split, SPLITS, "COCO panoptic")
        folder = root / "panoptic_segmentation" / "annotations"
        stored = _read_json(folder / f"panoptic_{split}2017.json")
        self.classes, self._class_of = _classes(stored["categories"])
        self.things = frozenset(
            self._class_of[category["id"]]
            for category in stored["categories"]
            if category["isthing"]
        )
        self.pairs: list[Pair] = []
        self._segments: list[Sequence[Mapping[str, Any]]] = []
        for record in stored["annotations"]:
            mask = folder / f"panoptic_{split}2017" / record["file_name"]
            image = root / "images" / f"{split}2017" / f"{mask.stem}.jpg"
            if image.is_file() and mask.is_file():
                self.pairs.append(Pair(image, mask))
                self._segments.append(record["segments_info"])
        layout = f"images/{split}2017/ID.jpg with a panoptic PNG"
        need_files(self.pairs, root, name="coco", split=split, layout=layout)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> PanopticSample:
        pair = self.pairs[index]
        image, ids = read_image(pair.image), _segment_ids(pair.mask)
        need_same_size(image.shape[-2:], ids.shape, pair)
        mask, panoptic = torch.full_like(ids, IGNORE), torch.full_like(ids, IGNORE)
        seen: Counter[int] = Counter()
        for segment in self._segments[index]:
            inside = ids == segment["id"]
            label = self._class_of[segment["category_id"]]
            mask[inside] = label
            if not segment["iscrowd"]:
                seen[label] += label in self.things
                panoptic[inside] = label * PANOPTIC_BASE + seen[label]
        return {
            "image": image,
            "mask": tv_tensors.Mask(mask),
            "panoptic": tv_tensors.Mask(panoptic),
        }

    @property
    def names(self) -> list[str]:
        """The ID of each photograph, twelve digits."""
        return [pair.image.stem for pair in self.pairs]


def semantic_mask(
    masks: Bool[Tensor, "n h w"], labels: Int64[Tensor, " n"], crowd: Bool[Tensor, " n"]
) -> tv_tensors.Mask:
    """The class of the smallest object on each pixel; 0 where none is, `IGNORE` in crowds only."""
    mask = torch.zeros(masks.shape[1:], dtype=torch.int64)
    mask[masks[crowd].any(dim=0)] = IGNORE
    largest_first = masks.flatten(1).sum(dim=1).argsort(descending=True, stable=True)
    for number in largest_first[~crowd[largest_first]].tolist():
        mask[masks[number]] = labels[number]
    return tv_tensors.Mask(mask)


def _pixels(segmentation: Any, height: int, width: int) -> Bool[Tensor, "h w"]:
    """The pixels of one object, stored as polygons or as run lengths, compressed or not."""
    if isinstance(segmentation, list):
        outlines = peer.merge(peer.frPyObjects(segmentation, height, width))
        segmentation = {"size": [height, width], "counts": outlines["counts"]}
    if segmentation["size"] != [height, width]:
        raise InputError(
            f"run lengths are of a mask of size {segmentation['size']}; expected "
            f"{[height, width]}, the photograph's; get the set again"
        )
    counts = segmentation["counts"]
    if not isinstance(counts, list):
        counts = rle.from_string(counts)
    return torch.from_numpy(rle.decode(counts, height, width))


def _segment_ids(path: Path) -> Int64[Tensor, "h w"]:
    """The panoptic id of each pixel: red + 256 * green + 65536 * blue."""
    octets = (read_image(path).as_subclass(Tensor) * 255).round().long()
    return octets[0] + 256 * octets[1] + 65536 * octets[2]


def _classes(categories: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], dict[int, int]]:
    """The class names, "background" first, and the class index of each category id."""
    ordered = sorted(categories, key=lambda category: category["id"])
    names = ("background", *(category["name"] for category in ordered))
    return names, {category["id"]: index for index, category in enumerate(ordered, start=1)}


def _read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; `segedu data get coco` downloads it, or set SEGEDU_DATA to the "
            "folder that holds coco/"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error}); get the set again") from error

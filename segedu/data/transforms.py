"""Augmentation of an image and its truth together, the same whenever and wherever it is asked for.

Built on `torchvision.transforms.v2`, which moves images, masks and boxes alike as long as they are
tv_tensors. Chapter 02 shows what each transform does, and what goes wrong with plain tensors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from segedu.data.instances import boxes_around, told_apart
from segedu.data.sample import IGNORE, Sample

Transform = Callable[[Any], Any]

SMALLEST = 10
"""Of how many pixels an object must have at least, after a crop."""


class Augmented(Dataset[Sample]):
    """`data` with `transform` applied to each sample, by random numbers of its own.

    What becomes of sample i depends on (seed, epoch, i) alone: not on the order of access, on the
    number of worker processes, or on torch's global generator, which is left as it was. So a run
    that is resumed sees what it would have seen.

    Args:
        data: Samples whose image and mask are tv_tensors.
        transform: From sample to sample; may draw from torch's global generator.
        seed: Together with `epoch` and the index, chooses the random numbers.
        epoch: The number of the pass over the data.
    """

    def __init__(
        self, data: Dataset[Sample], transform: Transform, *, seed: int = 0, epoch: int = 0
    ) -> None:
        self.data = data
        self.transform = transform
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        sample = self.data[index]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: without a GPU that takes longer than many a transform.
            torch.default_generator.manual_seed(mixed_seed(self.seed, self.epoch, index))
            return self.transform(sample)


def mixed_seed(*numbers: int) -> int:
    """One seed out of several whole numbers, different in all 64 bits if any of them differs."""
    mixed = 0
    for number in numbers:  # the finaliser of splitmix64: neighbours give unrelated seeds
        mixed = (mixed + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed


def random_crop(
    height: int,
    width: int,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    upright: bool = False,
    colour: float = 0.0,
) -> Transform:
    """Scale, cut out `height` x `width` at random, flip, and vary the colours.

    Where the picture is too small, it is filled with zeros and the mask with `IGNORE`. Only image
    and mask are kept: what is said of single objects would not survive the cut.

    Args:
        height: Of the crop, in pixels.
        width: Of the crop, in pixels.
        scale: Least and greatest factor by which the picture is enlarged first; 1 keeps its size.
        upright: Whether up must stay up (street scenes): then there is no vertical flip, and no
            quarter turn, which square crops get otherwise.
        colour: Strength of brightness, contrast and saturation changes, in [0, 1); 0 for none.
    """
    steps: list[Transform] = [_semantic]
    if scale != (1.0, 1.0):
        steps.append(_RandomScale(*scale))
    steps.append(v2.RandomCrop((height, width), pad_if_needed=True, fill=_VOID))
    return v2.Compose([*steps, *_turned(height, width, upright=upright, colour=colour)])


def random_crop_of_objects(
    height: int,
    width: int,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    upright: bool = False,
    colour: float = 0.0,
) -> Transform:
    """As `random_crop`, for samples with objects: image, boxes, labels and masks are kept.

    Boxes are drawn anew around what is left of each object; of which less than `SMALLEST` pixels
    are left is no object any more.

    Args:
        height: Of the crop, in pixels.
        width: Of the crop, in pixels.
        scale: Least and greatest factor by which what is cut out is enlarged.
        upright: Whether up must stay up.
        colour: Strength of brightness, contrast and saturation changes, in [0, 1); 0 for none.
    """
    steps: list[Transform] = [_only_objects, _RandomWindow(height, width, scale)]
    steps += _turned(height, width, upright=upright, colour=colour)
    return v2.Compose([*steps, _boxes_anew])


def resize(height: int, width: int) -> Transform:
    """Every picture `height` x `width`: images smoothly, masks by the nearest pixel."""
    return v2.Compose([_semantic, v2.Resize((height, width), antialias=True)])


def _turned(height: int, width: int, *, upright: bool, colour: float) -> list[Transform]:
    """Flips, quarter turns and changes of colour."""
    steps: list[Transform] = [v2.RandomHorizontalFlip()]
    if not upright:
        steps.append(v2.RandomVerticalFlip())
        if height == width:
            steps.append(_RandomTranspose())
    if colour:
        steps.append(v2.ColorJitter(brightness=colour, contrast=colour, saturation=colour))
    return steps


def _only_objects(sample: Any) -> dict[str, Any]:
    """The sample without what it says of pixels; crowds, which nobody told apart, are left out."""
    single = told_apart(sample)
    masks = tv_tensors.Mask(sample["masks"].as_subclass(torch.Tensor)[single])
    return {"image": sample["image"], "masks": masks, "labels": sample["labels"][single]}


def _boxes_anew(sample: dict[str, Any]) -> dict[str, Any]:
    """The objects of which enough is left, with boxes."""
    masks = sample["masks"].as_subclass(torch.Tensor)
    left = masks.flatten(1).sum(dim=1) >= SMALLEST
    masks = masks[left]
    return {
        "image": sample["image"],
        "boxes": boxes_around(masks),
        "labels": sample["labels"][left],
        "masks": tv_tensors.Mask(masks),
    }


def _semantic(sample: Sample) -> Sample:
    """The sample without what it says of single objects."""
    return {"image": sample["image"], "mask": sample["mask"]}


_VOID = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE, "others": 0}
"""What appears where a picture ends, by kind of tensor."""


class _RandomWindow(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Cut out a window of random size and place, and bring it to one size."""

    def __init__(self, height: int, width: int, scale: tuple[float, float]) -> None:
        super().__init__()
        self.size = (height, width)
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        picture = v2.functional.get_size(flat_inputs[0])
        least, greatest = self.scale
        factor = least * (greatest / least) ** torch.rand(()).item()
        window = [max(1, round(length / factor)) for length in self.size]
        # Where the picture is smaller than the window, it lies somewhere within.
        top, left = (
            round(min(0, whole - cut) + torch.rand(()).item() * abs(whole - cut))
            for whole, cut in zip(picture, window, strict=True)
        )
        return {"top": top, "left": left, "height": window[0], "width": window[1]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(
            v2.functional.resized_crop, inpt, **params, size=list(self.size), antialias=True
        )


class _RandomTranspose(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Swap rows and columns, or do not; with the two flips this gives all quarter turns."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        del flat_inputs
        return {"swap": torch.rand(()).item() < 0.5}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not params["swap"]:
            return inpt
        swapped = inpt.as_subclass(torch.Tensor).transpose(-1, -2).contiguous()
        return tv_tensors.wrap(swapped, like=inpt)


class _RandomScale(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Enlarge or reduce by a random factor, spread evenly on a logarithmic scale."""

    def __init__(self, least: float, greatest: float) -> None:
        super().__init__()
        self.least = least
        self.greatest = greatest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        factor = self.least * (self.greatest / self.least) ** torch.rand(()).item()
        return {"size": [round(height * factor), round(width * factor)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(v2.functional.resize, inpt, size=params["size"], antialias=True)

"""Pictures of any size made into one batch for Mask R-CNN, and its results brought back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from segedu.errors import InputError

DIVISOR = 32
"""Height and width of a batch are multiples of it, so that every level of a pyramid fits."""


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """To what size a picture is brought before the network sees it.

    Attributes:
        shorter: Lengths of the shorter side in pixels; in training one is drawn for each picture,
            to predict the last one is taken. Empty for pictures as they are.
        longest: The longer side is at most this long; if need be the shorter one becomes shorter.
    """

    shorter: tuple[int, ...] = (800,)
    longest: int = 1333

    def factor(self, size: tuple[int, int], *, training: bool) -> float | None:
        """By what a picture of a height and width is enlarged; None for not at all."""
        if not self.shorter:
            return None
        # A draw for each picture, even out of one length: torchvision draws as often.
        drawn = int(torch.rand(()) * len(self.shorter)) if training else -1
        return min(self.shorter[drawn] / min(size), self.longest / max(size))


def resize(image: Float[Tensor, "3 h w"], factor: float | None) -> Float[Tensor, "3 h2 w2"]:
    """The picture enlarged by a factor, both sides rounded down."""
    if factor is None:
        return image
    return F.interpolate(
        image[None], scale_factor=factor, mode="bilinear", recompute_scale_factor=True
    )[0]


def resize_boxes(
    boxes: Float[Tensor, "n 4"], before: tuple[int, int], after: tuple[int, int]
) -> Float[Tensor, "n 4"]:
    """Boxes of a picture that was brought from one height and width to another."""
    down, across = (new / old for new, old in zip(after, before, strict=True))
    return boxes * boxes.new_tensor([across, down, across, down])


def resize_truth(
    truth: Mapping[str, Tensor], before: tuple[int, int], after: tuple[int, int]
) -> dict[str, Tensor]:
    """Boxes and masks of a picture that was brought from one height and width to another."""
    if before == after:
        return dict(truth)
    resized = {**truth, "boxes": resize_boxes(truth["boxes"], before, after)}
    if "masks" in truth:
        resized["masks"] = F.interpolate(truth["masks"][:, None].float(), size=after)[:, 0]
    return resized


def stack(images: Sequence[Float[Tensor, "3 _ _"]]) -> Tensor:
    """(B, 3, H, W): the images in the top left corners, 0 around them."""
    height, width = (
        -(-max(image.shape[axis] for image in images) // DIVISOR) * DIVISOR for axis in (1, 2)
    )
    batch = images[0].new_zeros(len(images), 3, height, width)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch


def need_images(images: Sequence[Tensor]) -> None:
    """Refuse what is not a list of pictures.

    Raises:
        InputError: If there is none, or one is not (3, H, W) of floating point.
    """
    if not len(images):
        raise InputError("images are an empty list; expected one picture or more")
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise InputError(
                f"image {i} is {tuple(image.shape)} {image.dtype}; expected (3, H, W) of floating "
                "point, in [0, 1]"
            )


def need_truth(
    truth: Sequence[Mapping[str, Tensor]], images: int, num_classes: int, *, masks: bool
) -> None:
    """Refuse what cannot be learnt from.

    Raises:
        InputError: If an image's boxes, labels or masks are missing, do not belong together, or
            hold a box without an area or a label that is no class of objects.
    """
    if len(truth) != images:
        raise InputError(f"targets: found {len(truth)} for {images} images; expected one for each")
    for i, image in enumerate(truth):
        wanted = ("boxes", "labels", *(["masks"] if masks else []))
        missing = [name for name in wanted if name not in image]
        if missing:
            raise InputError(f"target {i} has no {missing[0]!r}; expected {', '.join(wanted)}")
        counts = {name: len(image[name]) for name in wanted}
        if len(set(counts.values())) > 1:
            raise InputError(f"target {i} has {counts}; expected as many of each")
        boxes, labels = image["boxes"], image["labels"]
        flat = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)
        if flat.any():
            raise InputError(
                f"target {i} has the box {boxes[flat][0].tolist()}; expected x1 < x2 and y1 < y2"
            )
        wrong = (labels < 1) | (labels >= num_classes)
        if wrong.any():
            raise InputError(
                f"target {i} has the label {int(labels[wrong][0])}; expected 1..{num_classes - 1}, "
                "since 0 is the background"
            )

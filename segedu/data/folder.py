"""Your own images and masks, in two folders."""

from collections.abc import Mapping
from pathlib import Path

from segedu.data.images import IMAGE_SUFFIXES, read_index
from segedu.data.paired import Pair, PairedFiles
from segedu.data.sample import IGNORE
from segedu.errors import InputError


class Folder(PairedFiles):
    """The images of one folder with the masks of another; a mask has its image's name.

    `a.jpg` belongs to `a.png`. A mask is a PNG (or TIFF, BMP, WebP) that stores the class index of
    each pixel, and 255 where there is no label; with a palette, the indices count, not the colours.

    Args:
        images: The folder of images.
        masks: The folder of masks; every image has one, and every mask an image.
        classes: The name of each class. If None, all masks are read to find the largest class, and
            the names are "class 0", "class 1" ...
        codes: The class index of each number that a mask may store, for masks that store something
            else: `{0: 0, 255: 1}` for black and white ones.

    Raises:
        InputError: If a folder is missing or has no image, an image has no mask or a mask no image,
            two files have one name, or the masks are JPEG or black and white. When a sample is
            read: if its sizes differ, or its mask stores anything else than it may.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        classes: tuple[str, ...] | None = None,
        *,
        codes: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(_matched(images, masks))
        if classes is None:
            count = _largest_class([pair.mask for pair in self.pairs], codes) + 1
            classes = tuple(f"class {index}" for index in range(count))
        self.classes = classes
        self.codes = codes or {**{index: index for index in range(len(classes))}, IGNORE: IGNORE}
        self.advice = "correct the mask, or name all classes, or say what numbers mean with `codes`"

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


def _matched(images: Path, masks: Path) -> list[Pair]:
    """The files of both folders by name."""
    if images.resolve() == masks.resolve():
        raise InputError(f"{images}: is given for images and for masks; keep them in two folders")
    image_of, mask_of = _by_stem(images), _by_stem(masks)
    for stem, path in image_of.items():
        if stem not in mask_of:
            raise InputError(
                f"{path}: has no mask; expected {masks / stem}.png; add it, or move the image away"
            )
    for stem, path in mask_of.items():
        if stem not in image_of:
            raise InputError(
                f"{path}: has no image; expected {images / stem}.png or .jpg; add it, or move the "
                "mask away"
            )
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise InputError(
                f"{path}: is a JPEG, which changes the numbers it stores; save masks as PNG"
            )
    return [Pair(image_of[stem], mask_of[stem]) for stem in sorted(image_of)]


def _by_stem(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their names without ending."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that holds the files")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(
                f"{path}: has the same name as {found[path.stem].name}; keep only one of them"
            )
        found[path.stem] = path
    if not found:
        raise InputError(
            f"{folder}: has no image; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    return found


def _largest_class(masks: list[Path], codes: Mapping[int, int] | None) -> int:
    """The largest class index in use, from the masks or from what their numbers mean."""
    seen = set(codes.values()) if codes else _stored(masks)
    if not codes and seen <= {0, IGNORE} and IGNORE in seen:
        raise InputError(
            f"{masks[0].parent}: the masks store only 0 and 255, and 255 means 'no label'; if it "
            "is your class 1, pass codes={0: 0, 255: 1}"
        )
    return max(seen - {IGNORE}, default=0)


def _stored(masks: list[Path]) -> set[int]:
    """All numbers in all masks."""
    return {value for path in masks for value in read_index(path).unique().tolist()}

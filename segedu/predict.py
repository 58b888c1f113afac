"""From a checkpoint and a picture to a mask, or to objects; chapter 01 ends with it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from segedu.checkpoints import load_checkpoint, load_weights
from segedu.data.annotations import Objects, coco_json
from segedu.data.images import read_image
from segedu.data.manifests import manifest_folder
from segedu.detect import THRESHOLD
from segedu.device import pick_device
from segedu.errors import InputError
from segedu.files import whole_file
from segedu.models.registry import MODELS, build
from segedu.palette import lookup_table
from segedu.show import blend, blend_objects

TILE = 768
"""Larger pictures are predicted in squares of this many pixels, so that any size fits in memory."""

MARGIN = 256
"""How many pixels of its surroundings a tile sees; about as far as receptive fields reach."""


SURE = 0.5
"""Objects with a lower score are not written."""


def shipped(name: str) -> Path:
    """The path of a checkpoint that comes with segedu, such as "maskrcnn-scenes.pt".

    `tools/keep_best.py` made it from a run, whose command is in it as `about["made_by"]`.

    Raises:
        InputError: If none has that name.
    """
    there = sorted(path.name for path in manifest_folder().glob("*.pt"))
    if name not in there:
        raise InputError(
            f"no checkpoint {name!r} comes with segedu; choose one of: {', '.join(there)}"
        )
    return manifest_folder() / name


@dataclass(frozen=True)
class Trained:
    """A model that is ready to predict.

    Attributes:
        model: In evaluation mode, on `device`.
        classes: The name of each class index.
        device: Where the model is.
        objects: Whether it finds objects; otherwise it labels pixels.
    """

    model: nn.Module
    classes: tuple[str, ...]
    device: torch.device
    objects: bool = False


def load_trained(checkpoint: Path, *, device: str = "auto") -> Trained:
    """The best model of a run of `segedu train`.

    Raises:
        InputError: If the checkpoint cannot be read, or does not say what model it is of.
    """
    chosen = pick_device(device)
    state = load_checkpoint(checkpoint, device=chosen)
    about = state["about"]
    if "model" not in about or "classes" not in about:
        raise InputError(
            f"{checkpoint}: does not say which model and classes it is of; expected a checkpoint "
            "made by `segedu train`, or by `fit` with about={'model': ..., 'classes': ...}"
        )
    model = build(about["model"], len(about["classes"]), **about.get("options", {}))
    load_weights(model, state["best"], checkpoint)
    objects = MODELS[about["model"]].objects
    return Trained(model.to(chosen).eval(), tuple(about["classes"]), chosen, objects)


@torch.inference_mode()
def predict_mask(trained: Trained, image: Float[Tensor, "3 h w"]) -> Int[Tensor, "h w"]:
    """The most likely class of each pixel of a picture of any size, on the CPU.

    A picture larger than `TILE` is cut into tiles that overlap by twice `MARGIN`; of each tile only
    what lies further than `MARGIN` from a cut is kept.
    """
    height, width = image.shape[1:]
    mask = torch.empty(height, width, dtype=torch.int64)
    for rows in _spans(height):
        for columns in _spans(width):
            seen = tuple(_widened(span, end) for span, end in ((rows, height), (columns, width)))
            tile = image[:, seen[0], seen[1]].as_subclass(Tensor).to(trained.device)
            best = trained.model(tile[None])[0].argmax(dim=0).cpu()
            top, left = rows.start - seen[0].start, columns.start - seen[1].start
            inner = best[
                top : top + rows.stop - rows.start, left : left + columns.stop - columns.start
            ]
            mask[rows, columns] = inner
    return mask


@torch.inference_mode()
def predict_objects(
    trained: Trained, image: Float[Tensor, "3 h w"], *, name: str = "", least: float = SURE
) -> Objects:
    """The objects in a picture that are at least so sure, the surest first, on the CPU.

    Args:
        trained: Finds objects.
        image: In [0, 1], of any size.
        name: Of the picture's file.
        least: Score, in [0, 1].
    """
    (found,) = trained.model([image.as_subclass(Tensor).to(trained.device)])
    sure = {key: value[found["scores"] >= least].cpu() for key, value in found.items()}
    masks = sure["masks"][:, 0] >= THRESHOLD
    return Objects(name, sure["boxes"], sure["labels"], sure["scores"], masks)


def predict_file(trained: Trained, picture: Path, out: Path) -> tuple[Path, Path]:
    """Write what is found in a picture, and the picture with it laid over, to the folder `out`.

    Both files are written, or neither. A model that labels pixels gives NAME_mask.png, a palette
    PNG: each pixel holds its class index, and viewers show class colours. One that finds objects
    gives NAME_objects.json, in COCO's layout. The other file is NAME_overlay.png. The picture may
    be of any size, grey or coloured, with 8 or 16 bits, transparent or turned by EXIF; what is
    written is upright.

    Returns:
        The paths of the two.

    Raises:
        InputError: If the picture cannot be read, or the two cannot be written.
    """
    image = read_image(picture)
    find = _found_objects if trained.objects else _found_mask
    name, write, drawn = find(trained, image, picture)
    first, overlay = out / f"{picture.stem}_{name}", out / f"{picture.stem}_overlay.png"
    pixels = Image.fromarray(np.rint(drawn * 255).astype(np.uint8))
    try:
        with whole_file(first) as first_file, whole_file(overlay) as overlay_file:
            write(first_file)
            pixels.save(overlay_file, format="PNG")
    except OSError as error:
        raise InputError(
            f"{out}: {name} and overlay could not be written ({error.strerror or error}); free "
            "some space or choose another folder with -o"
        ) from error
    return first, overlay


Found = tuple[str, Callable[[Path], object], np.ndarray]
"""The end of a file's name, what writes it, and the overlay's pixels (H, W, 3) in [0, 1]."""


def _found_mask(trained: Trained, image: Tensor, picture: Path) -> Found:
    """The class of each pixel."""
    del picture
    mask = predict_mask(trained, image)
    indexed = Image.fromarray(mask.numpy().astype(np.uint8))
    indexed.putpalette(lookup_table(len(trained.classes)).tobytes())
    drawn = blend(image, mask, len(trained.classes))
    return "mask.png", lambda path: indexed.save(path, format="PNG"), drawn


def _found_objects(trained: Trained, image: Tensor, picture: Path) -> Found:
    """The objects of the picture."""
    objects = predict_objects(trained, image, name=picture.name)
    text = json.dumps(coco_json([objects], trained.classes))
    drawn = blend_objects(image, objects.masks)
    return "objects.json", lambda path: path.write_text(text, encoding="utf-8"), drawn


def _spans(length: int) -> list[slice]:
    """0..length in pieces of at most `TILE`, all but equally long."""
    pieces = max(1, -(-length // TILE))
    edges = [length * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _widened(span: slice, end: int) -> slice:
    """`span` with a margin on both sides, within 0..end, beginning at a multiple of 32.

    So a network that halves the picture up to five times does so on the whole picture's grid.
    """
    start = max(0, span.start - MARGIN) // 32 * 32
    return slice(start, min(end, span.stop + MARGIN))

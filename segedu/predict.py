"""From a checkpoint and a picture to a mask, or to objects; chapter 01 ends with it."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from segedu.checkpoints import load_checkpoint, load_weights
from segedu.data.annotations import Objects, coco_json
from segedu.data.manifests import manifest_folder
from segedu.detect import THRESHOLD
from segedu.device import pick_device
from segedu.errors import InputError
from segedu.files import whole_file
from segedu.models.layers import Views
from segedu.models.registry import MODELS, build
from segedu.palette import lookup_table
from segedu.pictures import Decoded, OnDisk, open_picture
from segedu.show import blend, blend_objects
from segedu.strips import MARGIN, write_strips
from segedu.tiles import InMemory, Tiling, predict_strips

TILE = 768
"""Larger pictures are predicted in squares of this many pixels, so that any size fits in memory."""

LARGE = 2**25
"""A picture of more pixels is read and written in strips, so that it need not fit in memory."""

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


def load_trained(checkpoint: Path, *, device: str = "auto", views: Sequence[float] = ()) -> Trained:
    """The best model of a run of `segedu train`.

    Args:
        checkpoint: The run's file.
        device: Where to predict.
        views: At which scales the model looks at a picture, each time also mirrored; none for as
            it was trained to.

    Raises:
        InputError: If the checkpoint cannot be read, does not say what model it is of, or is of one
            that finds objects and is to have views.
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
    if views:
        model = _with_views(model, views, checkpoint, objects=objects)
    return Trained(model.to(chosen).eval(), tuple(about["classes"]), chosen, objects)


def predict_mask(trained: Trained, image: Float[Tensor, "3 h w"]) -> Int[Tensor, "h w"]:
    """The most likely class of each pixel of a picture of any size, on the CPU.

    A picture larger than `TILE` is cut into tiles that overlap by twice `MARGIN`; of each tile only
    what lies further than `MARGIN` from a cut is kept.
    """
    strips = predict_strips(trained.model, InMemory(image), Tiling(TILE, MARGIN), trained.device)
    return torch.cat([labels for _, labels in strips])


def _with_views(
    model: nn.Module, scales: Sequence[float], checkpoint: Path, *, objects: bool
) -> nn.Module:
    """The model looking at those scales instead of those that it was trained with."""
    if objects or min(scales) <= 0:
        raise InputError(
            f"{checkpoint}: views {', '.join(f'{scale:g}' for scale in scales)}; expected scales "
            "above 0 and a model that labels pixels"
        )
    return Views(model.model if isinstance(model, Views) else model, scales)


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

    Of a picture of more than `LARGE` pixels the two are NAME_mask.tif and NAME_overlay.tif, which
    are written in strips; see `segedu.pictures`.

    Returns:
        The paths of the two; the first is put in its place after the other.

    Raises:
        InputError: If the picture cannot be read, or the two cannot be written.
    """
    opened = open_picture(picture)
    if opened.height * opened.width > LARGE:
        return _predict_in_strips(trained, opened, picture, out)
    image = opened.window(slice(None), slice(None))
    find = _found_objects if trained.objects else _found_mask
    name, write, drawn = find(trained, image, picture)
    pixels = Image.fromarray(np.rint(drawn * 255).astype(np.uint8))
    first, overlay = out / f"{picture.stem}_{name}", out / f"{picture.stem}_overlay.png"
    with _both_or_neither(first, overlay) as (first_file, overlay_file):
        write(first_file)
        pixels.save(overlay_file, format="PNG")
    return first, overlay


def outputs(trained: Trained, picture: Path, out: Path) -> list[Path]:
    """The files of which `predict_file` writes the first one last: one of them, by size."""
    names = ["objects.json"] if trained.objects else ["mask.png", "mask.tif"]
    return [out / f"{picture.stem}_{name}" for name in names]


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


def _predict_in_strips(
    trained: Trained, opened: Decoded | OnDisk, picture: Path, out: Path
) -> tuple[Path, Path]:
    """Mask and overlay of a picture that is too large to be held in full."""
    if trained.objects:
        raise InputError(
            f"{picture}: has {opened.height} x {opened.width} pixels, too many to find objects in "
            f"at once; expected at most {LARGE}: cut it into parts"
        )
    first, overlay = (out / f"{picture.stem}_{name}.tif" for name in ("mask", "overlay"))
    classes, device = len(trained.classes), trained.device
    with _both_or_neither(first, overlay) as files:
        write_strips(trained.model, opened, *files, classes=classes, device=device)
    return first, overlay


@contextmanager
def _both_or_neither(first: Path, second: Path) -> Iterator[tuple[Path, Path]]:
    """Names to write to; the first is put in its place after the second.

    Raises:
        InputError: If they cannot be written.
    """
    try:
        with whole_file(first) as first_file, whole_file(second) as second_file:
            yield first_file, second_file
    except OSError as error:
        raise InputError(
            f"{first.parent}: {first.stem.rpartition('_')[2]} and overlay could not be written "
            f"({error.strerror or error}); free some space or choose another folder with -o"
        ) from error

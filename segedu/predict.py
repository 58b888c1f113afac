"""From a checkpoint and a picture to a mask and an overlay; chapter 01 ends with it."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from segedu.checkpoints import load_checkpoint, load_weights
from segedu.data.images import read_image
from segedu.device import pick_device
from segedu.errors import InputError
from segedu.files import whole_file
from segedu.models.registry import build
from segedu.palette import lookup_table
from segedu.show import blend

TILE = 768
"""Larger pictures are predicted in squares of this many pixels, so that any size fits in memory."""

MARGIN = 256
"""How many pixels of its surroundings a tile sees; about as far as receptive fields reach."""


@dataclass(frozen=True)
class Trained:
    """A model that is ready to predict.

    Attributes:
        model: In evaluation mode, on `device`.
        classes: The name of each class index.
        device: Where the model is.
    """

    model: nn.Module
    classes: tuple[str, ...]
    device: torch.device


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
    return Trained(model.to(chosen).eval(), tuple(about["classes"]), chosen)


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


def predict_file(trained: Trained, picture: Path, out: Path) -> tuple[Path, Path]:
    """Write NAME_mask.png and NAME_overlay.png to the folder `out`; both or neither.

    The mask is a palette PNG: each pixel holds its class index, and viewers show class colours. The
    picture may be of any size, grey or coloured, with 8 or 16 bits, transparent or turned by EXIF;
    mask and overlay are upright.

    Returns:
        The paths of mask and overlay.

    Raises:
        InputError: If the picture cannot be read, or the two cannot be written.
    """
    image = read_image(picture)
    mask = predict_mask(trained, image)
    mask_path, overlay_path = (out / f"{picture.stem}_{what}.png" for what in ("mask", "overlay"))
    drawn = np.rint(blend(image, mask, len(trained.classes)) * 255).astype(np.uint8)
    indexed = Image.fromarray(mask.numpy().astype(np.uint8))
    indexed.putpalette(lookup_table(len(trained.classes)).tobytes())
    try:
        with whole_file(mask_path) as mask_file, whole_file(overlay_path) as overlay_file:
            indexed.save(mask_file, format="PNG")
            Image.fromarray(drawn).save(overlay_file, format="PNG")
    except OSError as error:
        raise InputError(
            f"{out}: mask and overlay could not be written ({error.strerror or error}); free some "
            "space or choose another folder with -o"
        ) from error
    return mask_path, overlay_path


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

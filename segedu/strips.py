"""Masks and overlays of pictures that do not fit in memory, read and written in strips."""

import ctypes
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segedu.models.describe import columns_seen
from segedu.pictures import Decoded, OnDisk, strip_writer
from segedu.show import blend
from segedu.tiles import GRID, Tiling, predict_strips

MARGIN = 256
"""How many pixels of its surroundings a tile sees; about as far as receptive fields reach."""

BLEND = 16
"""Over how many pixels on either side of a cut the tiles of a picture in strips are blended."""

SLACK = 8
"""By so many columns to a side a measured receptive field may be too small."""

STRIP_TILE = 512
"""Pictures that are predicted in strips are cut into squares of this many pixels: a tile with its
margins is what takes the memory."""

OVERLAID = 64
"""Rows of such a picture that are overlaid at once."""


def write_strips(
    model: nn.Module,
    opened: Decoded | OnDisk,
    mask_file: Path,
    overlay_file: Path,
    *,
    classes: int,
    device: torch.device,
) -> None:
    """Write the mask and the overlay of a picture as TIFF files, never holding it in full.

    For the rest of the process freed memory goes back to the system at once; tiles need that.

    Args:
        model: Labels pixels; in evaluation mode, on `device`.
        opened: The picture.
        mask_file: For the class indices, as a palette picture.
        overlay_file: For the picture with its labels laid over.
        classes: How many there are.
        device: Where the model is.

    Raises:
        OSError: If a file cannot be written.
    """
    _return_memory_at_once()
    shape = (opened.height, opened.width)
    tiling = Tiling(STRIP_TILE, margin_of(model), BLEND)
    with (
        strip_writer(mask_file, shape, classes) as write_mask,
        strip_writer(overlay_file, (*shape, 3)) as write_overlay,
    ):
        for rows, labels in predict_strips(model, opened, tiling, device):
            write_mask(labels.numpy())
            for top in range(0, len(labels), OVERLAID):
                part = labels[top : top + OVERLAID]
                begin = rows.start + top
                image = opened.window(slice(begin, begin + len(part)), slice(None))
                write_overlay(np.rint(blend(image, part, classes) * 255))


def margin_of(model: nn.Module) -> int:
    """How many pixels of its surroundings a tile must see for the labels of the whole picture.

    Half the model's receptive field, which is measured, and the pixels that are blended; at most
    `MARGIN`, which is not enough for a model that sees everything.
    """
    seen = columns_seen(model, height=GRID)
    if seen is None:
        return MARGIN
    needed = seen // 2 + SLACK + BLEND
    return min(MARGIN, -(-needed // GRID) * GRID)


def _return_memory_at_once() -> None:
    """Have glibc give the memory of each map back as it is freed, for the rest of the process.

    Its heap keeps freed pieces of less than 32 MB; over many tiles their gaps come to a gigabyte.

    Source: mallopt(3).
    """
    mmap_threshold, trim_threshold = -3, -1
    with suppress(AttributeError, OSError, TypeError):  # no glibc here
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 2**22)
        library.mallopt(trim_threshold, 2**22)

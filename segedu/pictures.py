"""Large pictures in files: read a window at a time, and written a strip at a time.

The format is uncompressed TIFF, since there a row's place in the file is known: a window is read,
and a strip written, without the rest. A JPEG or PNG is one stream that must be decoded from its
beginning, and so fits in memory whole, or not at all.
"""

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from segedu.data.images import read_pixels
from segedu.errors import InputError
from segedu.palette import lookup_table

LARGEST_DECODED = 89_478_485
"""Pixels of a picture that is decoded whole: as many as Pillow takes for no attack."""


@dataclass(frozen=True)
class Decoded:
    """A picture whose whole numbers (H, W) or (H, W, 3) are in memory: a byte each, or two."""

    pixels: np.ndarray

    @property
    def height(self) -> int:
        """Rows."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.pixels.shape[1]

    def window(self, rows: slice, columns: slice) -> Float[Tensor, "3 _ _"]:
        """The pixels of some rows and columns, in [0, 1]."""
        return _fractions(self.pixels[rows, columns])


@dataclass(frozen=True)
class OnDisk:
    """An uncompressed TIFF, of which each window is read when it is asked for.

    Attributes:
        path: The file.
        offset: Bytes before its first pixel.
        shape: (H, W) or (H, W, channels).
        dtype: Of its numbers, with their byte order.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def height(self) -> int:
        """Rows."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.shape[1]

    def window(self, rows: slice, columns: slice) -> Float[Tensor, "3 _ _"]:
        """The pixels of some rows and columns, in [0, 1].

        The file is mapped anew each time, so that what was read does not stay in memory.
        """
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        return _fractions(np.array(mapped[rows, columns]))


def open_picture(path: Path) -> Decoded | OnDisk:
    """A picture of any size, of which windows can be read.

    An uncompressed TIFF is read a window at a time; all else is decoded whole.

    Raises:
        InputError: If there is no such file, it is no picture, or it is too large to be decoded
            whole.
    """
    if path.suffix.lower() in (".tif", ".tiff") and path.is_file():
        found = _on_disk(path)
        if found is not None:
            return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as file:
                width, height = file.size
        except (OSError, Image.DecompressionBombError):
            width, height = 0, 0
    if width * height > LARGEST_DECODED:
        raise InputError(
            f"{path}: has {height} x {width} pixels, and this format must be decoded whole; "
            f"expected at most {LARGEST_DECODED} pixels, or an uncompressed TIFF, which is read "
            f"in parts: magick {path.name} -compress none {path.stem}.tif"
        )
    return Decoded(read_pixels(path))


@contextmanager
def strip_writer(
    path: Path, shape: tuple[int, ...], num_classes: int = 0
) -> Iterator[Callable[[np.ndarray], object]]:
    """Make an uncompressed TIFF of bytes, and give what writes its next rows.

    Args:
        path: The file.
        shape: (H, W), or (H, W, 3) for colours.
        num_classes: Of an (H, W) file, whose viewers then show class colours.
    """
    import tifffile

    options = (
        {"photometric": "rgb"}
        if len(shape) == 3
        else {
            "photometric": "palette",
            "colormap": lookup_table(num_classes).T.astype(np.uint16) * 257,
        }
    )
    tifffile.imwrite(path, shape=shape, dtype=np.uint8, metadata=None, software=False, **options)
    with tifffile.TiffFile(path) as made:
        begin = made.pages[0].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(begin)
        yield lambda rows: file.write(np.ascontiguousarray(rows, dtype=np.uint8).tobytes())


def _on_disk(path: Path) -> OnDisk | None:
    """The first page of a TIFF, if its pixels lie one after another in a form that we read."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = cast(tifffile.TiffPage, file.pages[0])
            plain = page.is_contiguous and page.is_memmappable
            turned = page.tags.get("Orientation")
            upright = turned is None or turned.value == 1
            pixels = page.photometric in (1, 2) and page.planarconfig in (None, 1)
            known = page.dtype in (np.uint8, np.uint16) and page.shape[2:] in ((), (3,), (4,))
            if not (plain and upright and pixels and known and page.ndim in (2, 3)):
                return None
            dtype = np.dtype(page.dtype).newbyteorder(file.byteorder)
            return OnDisk(path, int(page.dataoffsets[0]), tuple(page.shape), dtype)
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, struct.error):
        return None


def _fractions(pixels: np.ndarray) -> Float[Tensor, "3 _ _"]:
    """Whole numbers (h, w) or (h, w, 3 or 4) as a picture in [0, 1]; transparency is dropped."""
    greatest = int(np.iinfo(pixels.dtype).max)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    channels = np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(channels) / greatest

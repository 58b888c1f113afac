"""Image and mask files in, tensors out: the one place where a file's format matters."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision import tv_tensors

from segedu.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""The file name endings, in lower case, that are looked for in a folder of images."""


def read_image(path: Path) -> tv_tensors.Image:
    """The picture in a file, upright, as (3, H, W) float32 in [0, 1].

    Grey becomes three equal channels; transparency is dropped; 16-bit files keep their 16 bits, as
    fractions of 65535; a photograph that the camera stored on its side is turned upright.

    Raises:
        InputError: If there is no such file, or it cannot be read as an image.
    """
    pixels = read_pixels(path)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    greatest = int(np.iinfo(pixels.dtype).max)
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / greatest
    return tv_tensors.Image(image)


def read_pixels(path: Path) -> np.ndarray:
    """The whole numbers in a picture's file, upright: (H, W) or (H, W, 3), uint8 or uint16.

    Raises:
        InputError: If there is no such file, or it cannot be read as an image.
    """
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            if upright.mode in ("I;16", "I;16B", "I;16L", "I"):
                return np.asarray(upright).clip(0, 65535).astype(np.uint16)
            if upright.mode in ("L", "1", "LA", "La"):
                return np.asarray(upright.convert("L"))
            return np.asarray(upright.convert("RGBA").convert("RGB"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the name") from error
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: cannot be read as an image ({error}); open it in a viewer and save it again"
        ) from error


def read_index(path: Path) -> tv_tensors.Mask:
    """The numbers stored in a mask file, (H, W) int64, as they are: palettes are not looked up.

    Raises:
        InputError: If there is no such file, it is no image, or its channels differ.
    """
    try:
        with Image.open(path) as file:
            stored = np.asarray(file)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as a mask image ({error})") from error
    if stored.ndim == 3:
        if (stored[..., :3] != stored[..., :1]).any():
            raise InputError(
                f"{path}: is a colour image; expected one number per pixel (an index or palette "
                "PNG); save the class index of each pixel instead of its colour"
            )
        stored = stored[..., 0]
    return tv_tensors.Mask(torch.from_numpy(stored.astype(np.int64)))

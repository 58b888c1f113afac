"""One colour for each class, the same all through the course, also for colour-blind readers."""

import colorsys

import numpy as np
from jaxtyping import Integer, UInt8

VOID = (255, 255, 255)
"""The colour of pixels without a label."""

_FIRST = (
    (68, 72, 79),  # background: a dark grey, so that objects stand out
    (230, 159, 0),  # from here Okabe and Ito's colours, in an order that keeps neighbours apart
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (0, 114, 178),
    (213, 94, 0),
)
_GOLDEN = 0.6180339887498949


def class_colours(num_classes: int) -> UInt8[np.ndarray, "{num_classes} 3"]:
    """An RGB colour for each class index, in 0..255.

    The first eight keep apart under the three colour-vision deficiencies; further ones are spread
    over hue and lightness, and need a legend.

    Source: Okabe and Ito, "Color Universal Design", 2008. https://jfly.uni-koeln.de/color/
    """
    colours = list(_FIRST[:num_classes])
    for i in range(len(colours), num_classes):
        lightness = (0.38, 0.62, 0.8)[i % 3]
        rgb = colorsys.hls_to_rgb((i * _GOLDEN) % 1.0, lightness, 0.65)
        colours.append(tuple(round(255 * x) for x in rgb))  # type: ignore[arg-type]
    return np.array(colours, dtype=np.uint8).reshape(num_classes, 3)


def lookup_table(num_classes: int) -> UInt8[np.ndarray, "256 3"]:
    """Colours of all 256 values a mask can hold: the classes, then black, then void at 255."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: min(num_classes, 256)] = class_colours(num_classes)[:256]
    table[255] = VOID
    return table


def colour_mask(mask: Integer[np.ndarray, "h w"], num_classes: int) -> UInt8[np.ndarray, "h w 3"]:
    """A mask of class indices as an RGB picture, (H, W, 3)."""
    return lookup_table(num_classes)[np.asarray(mask).astype(np.uint8)]

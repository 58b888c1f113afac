"""Pictures too large for one pass through a network, tile by tile, from top to bottom.

Chapter 22 derives the margin from the receptive field and shows the seams of too small a one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from segedu.errors import InputError

GRID = 32
"""Tiles begin at multiples of this many pixels, so that a network that halves the picture up to
five times does so on the whole picture's grid."""


@runtime_checkable
class Picture(Protocol):
    """A picture of which a part can be had at a time."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""

    def window(self, rows: slice, columns: slice) -> Float[Tensor, "3 _ _"]:
        """The pixels of some rows and columns, in [0, 1]."""


@dataclass(frozen=True)
class InMemory:
    """A picture that is there as a tensor (3, H, W) in [0, 1]."""

    image: Tensor

    @property
    def height(self) -> int:
        """H."""
        return self.image.shape[1]

    @property
    def width(self) -> int:
        """W."""
        return self.image.shape[2]

    def window(self, rows: slice, columns: slice) -> Float[Tensor, "3 _ _"]:
        """The pixels of some rows and columns."""
        return self.image[:, rows, columns]


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        size: Height and width of a tile at most, without its margin, in pixels.
        margin: Pixels of its surroundings that a tile sees. With half the receptive field, plus
            `blend`, what is kept of a tile is what the whole picture would give.
        blend: Pixels on either side of a cut over which one tile's probabilities pass into the
            next one's; 0 for a sharp cut. At most `margin`, and at most a quarter of `size`.

    Raises:
        InputError: If one of them is out of its range.
    """

    size: int = 768
    margin: int = 256
    blend: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.margin < 0:
            raise InputError(
                f"tiles of {self.size} pixels with a margin of {self.margin}; expected 1 or more, "
                "and 0 or more"
            )
        most = min(self.margin, self.size // 4)
        if not 0 <= self.blend <= most:
            raise InputError(
                f"blend is {self.blend}; expected 0 to {most}: at most the margin of "
                f"{self.margin}, and a quarter of the tiles' {self.size} pixels"
            )


@torch.inference_mode()
def predict_strips(
    model: nn.Module, picture: Picture, tiling: Tiling, device: torch.device
) -> Iterator[tuple[slice, Int[Tensor, "_ w"]]]:
    """Yield the most likely class of each pixel, on the CPU: strips of rows, from top to bottom.

    No more is held than the scores of one strip, so memory grows with the picture's width and not
    with its height.

    Args:
        model: From (1, 3, H, W) images in [0, 1] to (1, C, H, W) logits, in evaluation mode, on
            `device`.
        picture: Of any size.
        tiling: How it is cut.
        device: Where to compute.
    """
    strips = _blended if tiling.blend else _sharp
    yield from strips(model, picture, tiling, device)


def spans(length: int, size: int) -> list[slice]:
    """0..length in pieces of at most `size`, all but equally long."""
    pieces = max(1, -(-length // size))
    edges = [length * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def widened(span: slice, end: int, margin: int) -> slice:
    """`span` with a margin on both sides, within 0..end, beginning at a multiple of `GRID`."""
    start = max(0, span.start - margin) // GRID * GRID
    return slice(start, min(end, span.stop + margin))


def ramp(span: slice, end: int, blend: int) -> Float[Tensor, " n"]:
    """The weight of a piece at each place of `span` grown by `blend`; the pieces' add up to 1.

    It rises in a straight line from `blend` before the piece to `blend` after its beginning, and
    falls likewise; at the picture's own ends it stays 1.
    """
    kept = _grown(span, end, blend)
    place = torch.arange(kept.start, kept.stop) + 0.5
    weight = torch.ones(len(place))
    if blend and span.start > 0:
        weight = ((place - span.start) / (2 * blend) + 0.5).clamp(0, 1)
    if blend and span.stop < end:
        weight = weight * ((span.stop - place) / (2 * blend) + 0.5).clamp(0, 1)
    return weight


def _sharp(
    model: nn.Module, picture: Picture, tiling: Tiling, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """As `predict_strips`, each pixel as the one tile says that has it."""
    for rows in spans(picture.height, tiling.size):
        labels = torch.empty(rows.stop - rows.start, picture.width, dtype=torch.int64)
        for columns in spans(picture.width, tiling.size):
            scores, place = _scores(model, picture, (rows, columns), tiling, device)
            labels[:, place] = scores.argmax(dim=0).cpu()
        yield rows, labels


def _blended(
    model: nn.Module, picture: Picture, tiling: Tiling, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """As `predict_strips`, with the weighted sum of probabilities where tiles overlap."""
    height, blend = picture.height, tiling.blend
    begun = torch.zeros(1, 0, 1)  # (C, 2 blend, W): sums that wait for the next row of tiles
    for rows in spans(height, tiling.size):
        sums: Tensor | None = None
        kept = _grown(rows, height, blend)
        down = ramp(rows, height, blend)[:, None]
        for columns in spans(picture.width, tiling.size):
            scores, place = _scores(model, picture, (rows, columns), tiling, device)
            weight = down * ramp(columns, picture.width, blend)
            if sums is None:
                sums = torch.zeros(len(scores), kept.stop - kept.start, picture.width)
            sums[:, :, place] += scores.softmax(dim=0).cpu() * weight
        sums = cast(Tensor, sums)
        sums[:, : begun.shape[1]] += begun
        ready = slice(kept.start, height if rows.stop == height else rows.stop - blend)
        count = ready.stop - ready.start
        yield ready, sums[:, :count].argmax(dim=0)
        begun = sums[:, count:].clone()


def _scores(
    model: nn.Module,
    picture: Picture,
    core: tuple[slice, slice],
    tiling: Tiling,
    device: torch.device,
) -> tuple[Tensor, slice]:
    """A tile's logits (C, h, w), without the margin, and the columns that they are of."""
    ends = picture.height, picture.width
    seen = [widened(span, end, tiling.margin) for span, end in zip(core, ends, strict=True)]
    kept = [_grown(span, end, tiling.blend) for span, end in zip(core, ends, strict=True)]
    logits = model(picture.window(seen[0], seen[1]).as_subclass(Tensor).to(device)[None])[0]
    top, left = (k.start - s.start for k, s in zip(kept, seen, strict=True))
    rows, columns = (k.stop - k.start for k in kept)
    return logits[:, top : top + rows, left : left + columns].float(), kept[1]


def _grown(span: slice, end: int, by: int) -> slice:
    """`span` with `by` more on both sides, within 0..end."""
    return slice(max(0, span.start - by), min(end, span.stop + by))

"""A box's features at a fixed size, whatever the size of the box: chapter 18 derives it.

Boxes lie anywhere, features only at pixels. `roi_pool` rounds the box to pixels, twice; `roi_align`
rounds nothing and takes features between the pixels. Both have torchvision's arguments, results
and gradients.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from segedu.errors import InputError

_AT_ONCE = 1 << 22
"""Pixels looked up in one go, or of `roi_pool` numbers: bounds the memory, not the result."""


def roi_align(
    input: Float[Tensor, "b c h w"],  # noqa: A002
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,  # noqa: FBT001, FBT002
) -> Float[Tensor, "k c rows columns"]:
    """Bins of each box, each the mean of bilinear samples of `input`; nothing is rounded.

    A sample at most one pixel outside the centres of the map's outer pixels takes their values, one
    farther out is 0. Boxes get no gradient. A box without samples, of a side of 0 or less with
    `aligned` and adaptive sampling, gives 0.

    Args:
        input: Feature maps.
        boxes: (K, 5) of image index, x1, y1, x2, y2; or (L, 4) for each image.
        output_size: Rows and columns of bins, or one number for both.
        spatial_scale: Pixels of `input` to a unit of the boxes, such as 1 / stride.
        sampling_ratio: Samples along each side of a bin; 0 or less is adaptive: as many as the side
            has pixels, rounded up.
        aligned: Whether the centre of pixel (0, 0) is at (0.5, 0.5), as elsewhere in segedu.
            Without it the centre counts as (0, 0), half a pixel off, and sides below 1 as 1.

    Raises:
        InputError: If the boxes are of another shape or of images that are not there.

    Source: K. He et al., "Mask R-CNN", ICCV 2017, section 3. https://arxiv.org/abs/1703.06870
    """
    rois, size = _image_and_corners(boxes, len(input)), _pair(output_size)
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    sides = corners[:, 2:] - corners[:, :2]
    sides = sides if aligned else sides.clamp(min=1)
    step = sides.flip(1) / torch.tensor(size).to(sides)  # of a bin, down and across, in pixels
    samples = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil()
    bins = _Bins(rois[:, 0].long(), corners[:, :2].flip(1), step, samples.long().clamp(min=0), size)
    pixels = _as_rows(input)
    parts = [_WeightedSums.apply(pixels, *part.corners(input.shape)) for part in bins.in_parts()]
    pooled = torch.cat([pixels.new_zeros(0, input.shape[1]), *parts])
    pooled = pooled.view(len(rois), *size, input.shape[1]).permute(0, 3, 1, 2)
    return pooled.to(input.dtype).contiguous()


def roi_pool(
    input: Float[Tensor, "b c h w"],  # noqa: A002
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Float[Tensor, "k c rows columns"]:
    """Bins of each box, each the largest value of its pixels, after box and bins are rounded.

    The box is rounded to pixels, its last row and column included, and has at least one; a bin
    begins at a pixel rounded down and ends at one rounded up. A bin without a pixel of the map is
    0. Of equal pixels the first, row by row, gets the gradient.

    Args:
        input: Feature maps.
        boxes: (K, 5) of image index, x1, y1, x2, y2; or (L, 4) for each image.
        output_size: Rows and columns of bins, or one number for both.
        spatial_scale: Pixels of `input` to a unit of the boxes, such as 1 / stride.

    Raises:
        InputError: If the boxes are of another shape or of images that are not there.

    Source: R. Girshick, "Fast R-CNN", ICCV 2015, section 2.1. https://arxiv.org/abs/1504.08083
    """
    rois, size = _image_and_corners(boxes, len(input)), _pair(output_size)
    corners = _half_away_from_zero(rois[:, 1:] * spatial_scale).long()
    lengths = (corners[:, 2:] - corners[:, :2] + 1).clamp(min=1)
    rows, columns = (
        _pixels_of_bins(corners[:, axis], lengths[:, axis].to(rois), size[1 - axis], length)
        for axis, length in ((1, input.shape[2]), (0, input.shape[3]))
    )
    of_a_box = input.shape[1] * rows[:1].numel() * columns[:1].numel()
    chunk = max(1, _AT_ONCE // max(1, of_a_box))
    parts = [input.new_zeros(0, input.shape[1], *size)]
    parts += [
        _largest(input, rois[k : k + chunk, 0].long(), rows[k : k + chunk], columns[k : k + chunk])
        for k in range(0, len(rois), chunk)
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class _Bins:
    """Where the bins of K boxes lie in their feature maps; pairs are (down, across).

    Attributes:
        image: (K,) which map.
        start: (K, 2) where the first bin begins, in pixels, with centres at whole numbers.
        step: (K, 2) sides of a bin, in pixels.
        samples: (K, 2) along the sides of a bin.
        size: Rows and columns of bins.
    """

    image: Int[Tensor, " k"]
    start: Float[Tensor, "k 2"]
    step: Float[Tensor, "k 2"]
    samples: Int[Tensor, "k 2"]
    size: tuple[int, int]

    def in_parts(self) -> "Iterator[_Bins]":
        """Consecutive boxes that look up about `_AT_ONCE` pixels together, or one box."""
        looked_up = 4 * self.size[0] * self.size[1] * self.samples.prod(1)
        part = looked_up.cumsum(0).div(_AT_ONCE, rounding_mode="floor").tolist()
        ends = [k for k in range(1, len(part)) if part[k] > part[k - 1]]
        for low, high in itertools.pairwise([0, *ends, len(part)]):
            some = slice(low, high)
            where = (self.image[some], self.start[some], self.step[some], self.samples[some])
            yield _Bins(*where, self.size)

    def corners(
        self, shape: Sequence[int]
    ) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"], int]:
        """For the four pixels around each sample its bin, place and weight; and how many bins.

        A place is a row of `_as_rows`. The samples of a bin share a weight of 1.
        """
        (rows, columns), (height, width) = self.size, shape[2:]
        of_bin = self.samples.prod(1).repeat_interleave(rows * columns)
        bins = torch.arange(len(of_bin), device=of_bin.device).repeat_interleave(of_bin)
        nth = torch.arange(len(bins), device=of_bin.device) - (of_bin.cumsum(0) - of_bin)[bins]
        box = bins // (rows * columns)
        across = self.samples[box, 1]
        y, of_y, y_inside = self._neighbours(0, box, bins // columns % rows, nth // across, height)
        x, of_x, x_inside = self._neighbours(1, box, bins % columns, nth % across, width)
        place = (self.image[box][:, None, None] * height + y[:, :, None]) * width + x[:, None]
        weight = of_y[:, :, None] * of_x[:, None] / of_bin[bins][:, None, None]
        inside = y_inside & x_inside
        bins, place, weight = bins[inside].repeat_interleave(4), place[inside], weight[inside]
        return bins, place.flatten(), weight.flatten(), len(of_bin)

    def _neighbours(
        self, axis: int, box: Tensor, nth_bin: Tensor, nth_sample: Tensor, length: int
    ) -> tuple[Int[Tensor, "n 2"], Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        """The two pixels around each sample along an axis, their weights, and whether it counts."""
        start, step, samples = (x[box, axis] for x in (self.start, self.step, self.samples))
        at = start + nth_bin * step + (nth_sample + 0.5).to(step) * step / samples
        inside = (at >= -1) & (at <= length)
        at = at.where(inside, 0).clamp(min=0)
        low = at.long().clamp(max=length - 1)
        high = (low + 1).clamp(max=length - 1)
        share = (at - low).where(low < high, 0)  # of the higher pixel
        share = share if share.dtype == torch.float64 else share.float()
        return torch.stack([low, high], 1), torch.stack([1 - share, share], 1), inside


class _WeightedSums(torch.autograd.Function):
    """Sums of weighted rows; the gradient takes the same sums with source and target exchanged."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, target: Tensor, source: Tensor, weights: Tensor, count: int
    ) -> Tensor:
        ctx.save_for_backward(target, source, weights)
        ctx.count = len(rows)
        return _weighted_sums(rows, target, source, weights, count)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        target, source, weights = ctx.saved_tensors
        order = source.argsort()
        back = (source[order], target[order], weights[order])
        return _weighted_sums(gradient.contiguous(), *back, ctx.count), None, None, None, None


def _weighted_sums(
    rows: Float[Tensor, "p c"],
    target: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    weights: Float[Tensor, " n"],
    count: int,
) -> Float[Tensor, "count c"]:
    """`count` sums: term n adds `weights[n] * rows[source[n]]` to sum `target[n]`, ascending."""
    first = torch.searchsorted(target, torch.arange(count, device=target.device))
    return F.embedding_bag(source, rows, first, mode="sum", per_sample_weights=weights.to(rows))


def _as_rows(input: Float[Tensor, "b c h w"]) -> Float[Tensor, "p c"]:  # noqa: A002
    """One row for each pixel, image by image, in float32 or float64."""
    exact = input if input.dtype == torch.float64 else input.float()
    return exact.permute(0, 2, 3, 1).reshape(-1, input.shape[1])


def _image_and_corners(boxes: Tensor | Sequence[Tensor], images: int) -> Float[Tensor, "k 5"]:
    """All boxes with their image's index first, without a gradient."""
    if not isinstance(boxes, Tensor):
        if len(boxes) != images or any(box.ndim != 2 or box.shape[1] != 4 for box in boxes):
            shapes = [tuple(box.shape) for box in boxes]
            raise InputError(
                f"boxes are a list of shapes {shapes}; expected (L, 4) for each of {images} images"
            )
        plain = [box.as_subclass(Tensor) for box in boxes]
        boxes = torch.cat([F.pad(box, (1, 0), value=i) for i, box in enumerate(plain)])
    rois = boxes.as_subclass(Tensor).detach()
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise InputError(
            f"boxes have the shape {tuple(rois.shape)}; expected (K, 5), the image's index first"
        )
    if len(rois) and not (rois[:, 0].min() >= 0 and rois[:, 0].max() < images):
        raise InputError(
            f"boxes are of images {rois[:, 0].min():g} to {rois[:, 0].max():g}; there are {images}"
        )
    return rois


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns = (size, size) if isinstance(size, int) else size
    return rows, columns


def _half_away_from_zero(x: Float[Tensor, "k 4"]) -> Float[Tensor, "k 4"]:
    """To whole numbers as C rounds: 0.5 to 1, where torch.round gives 0."""
    return x.trunc() + x.sign() * ((x - x.trunc()).abs() >= 0.5)


def _pixels_of_bins(
    start: Int[Tensor, " k"], length: Float[Tensor, " k"], bins: int, limit: int
) -> Int[Tensor, "k bins most"]:
    """The pixels 0..limit-1 in each bin along one axis, then -1 up to the length of the longest."""
    edge = torch.arange(bins + 1, device=start.device).to(length) * (length / bins)[:, None]
    first = (edge[:, :-1].floor().long() + start[:, None]).clamp(0, limit)
    last = (edge[:, 1:].ceil().long() + start[:, None]).clamp(0, limit)
    most = int((last - first).max()) if len(start) else 0
    pixels = first[..., None] + torch.arange(max(1, most), device=start.device)
    return pixels.where(pixels < last[..., None], -1)


def _largest(
    input: Float[Tensor, "b c h w"],  # noqa: A002
    image: Int[Tensor, " k"],
    rows: Int[Tensor, "k i m"],
    columns: Int[Tensor, "k j n"],
) -> Float[Tensor, "k c i j"]:
    """The largest value of each bin's pixels; 0 where there is none."""
    y, x = rows[:, :, None, :, None], columns[:, None, :, None, :]  # (k, i, j, m, n)
    inside = ((y >= 0) & (x >= 0)).flatten(3)[..., None]
    values = input[image[:, None, None, None, None], :, y, x].flatten(3, 4)  # (k, i, j, m n, c)
    largest = values.masked_fill(~inside, -torch.inf).max(3).values
    return largest.where(inside.any(3), 0).permute(0, 3, 1, 2)

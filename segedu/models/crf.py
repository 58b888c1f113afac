"""The fully connected CRF: mean field with Gaussian kernels over all pairs of pixels.

Chapter 13 derives it.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011, https://arxiv.org/abs/1210.5644, for the model and its mean field; Teichmann
and Cipolla, "Convolutional CRFs for Semantic Segmentation", 2018, https://arxiv.org/abs/1805.04777,
for the window in place of a lattice; Zheng et al., "Conditional Random Fields as Recurrent Neural
Networks", ICCV 2015, https://arxiv.org/abs/1502.03240, for the iterations as a layer.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError

Logits = Float[Tensor, "b c h w"]
Image = Float[Tensor, "b 3 h w"]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """How much two pixels want the same label: a smoothness and an appearance kernel.

    Each is normalised symmetrically: divided by the roots of what its two pixels receive in sum,
    their own share included. So a weight says about how many units of logit all of a pixel's
    neighbours together can add to a label, whatever the widths.

    Attributes:
        smooth_weight: Of the smoothness kernel, a Gaussian of places alone.
        smooth_width: Its standard deviation, in pixels.
        appearance_weight: Of the appearance kernel, a Gaussian of places and colours.
        place_width: Its standard deviation in places, in pixels.
        colour_width: Its standard deviation in colours, for an image in [0, 1]; at most 1.
        reach: How many `place_width` away, along rows or columns, the appearance kernel is cut off.
    """

    smooth_weight: float = 1.0
    smooth_width: float = 1.5
    appearance_weight: float = 3.0
    place_width: float = 6.0
    colour_width: float = 0.1
    reach: float = 3.0

    def __post_init__(self) -> None:
        for name in ("smooth_width", "place_width", "colour_width", "reach"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if self.colour_width > 1:
            raise InputError(
                f"colour_width is {self.colour_width}; expected at most 1, for images in [0, 1]: "
                "divide a width that was meant for 0..255 by 255"
            )


DEFAULTS = Kernels()


class DenseCRF(nn.Module):
    """Logits that agree with those of pixels that are near and look alike.

    A step adds to a pixel's logits what its neighbours hold for each label, weighed by the kernels
    (Potts compatibility: labels are equal or not), and never its own opinion. All pixels move at
    once, as in the paper. The two weights are parameters; the widths are settings.

    The smoothness kernel is exact. The appearance kernel has no pair beyond its window of
    `reach` * `place_width` pixels; with a window as large as the picture it is exact as well. Time
    and memory: half the window's pixels for each pixel of the picture, whatever the classes.

    Args:
        kernels: The widths, and the weights to begin with.
        steps: Mean-field iterations, 0 or more; 0 gives the logits back.

    Raises:
        InputError: If there is a negative number of steps.
    """

    def __init__(self, kernels: Kernels = DEFAULTS, *, steps: int = 5) -> None:
        super().__init__()
        if steps < 0:
            raise InputError(f"DenseCRF: steps is {steps}; expected 0 or more")
        self.kernels = kernels
        self.steps = steps
        self.smooth_weight = nn.Parameter(torch.tensor(float(kernels.smooth_weight)))
        self.appearance_weight = nn.Parameter(torch.tensor(float(kernels.appearance_weight)))

    def forward(self, logits: Logits, image: Float[Tensor, "n 3 h2 w2"]) -> Logits:
        """The logits after all steps; their softmax is the mean field's distribution.

        Args:
            logits: Scores before the softmax, such as a network gives.
            image: The picture, in [0, 1].

        Raises:
            InputError: If the image is not in [0, 1], or not of the logits' size.
        """
        _need_alike(logits, image)
        smooth = Smoothness(image, self.kernels.smooth_width)
        appearance = Appearance(image, self.kernels)
        refined = logits
        for _ in range(self.steps):
            q = refined.softmax(dim=1)
            refined = logits + self.smooth_weight * smooth(q)
            refined = refined + self.appearance_weight * appearance(q)
        return refined


class Smoothness:
    """What each pixel receives from all others through a Gaussian of places, exactly.

    A Gaussian of rows and columns is a product: filter the columns, then the rows.

    Args:
        like: Gives the size, type and device of the pictures.
        width: The standard deviation, in pixels.
    """

    def __init__(self, like: Image, width: float) -> None:
        height, across = like.shape[-2:]
        self.rows = _gaussian_of_places(height, width).to(like)
        self.columns = _gaussian_of_places(across, width).to(like)
        received = self.rows.sum(1)[:, None] * self.columns.sum(1)
        self.share = received.rsqrt()  # (h, w)

    def __call__(self, q: Logits) -> Logits:
        """The sum over all other pixels of kernel times `q`."""
        given = q * self.share
        return (self.rows @ given @ self.columns - given) * self.share


class Appearance:
    """What each pixel receives from all others in a window through a Gaussian of place and colour.

    Each pair of pixels is weighed once, and its weight serves both ways. So the filter is
    symmetric, and what comes back through it is the gradient, filtered once more. No gradient
    reaches the image.

    Args:
        image: The picture, in [0, 1].
        kernels: The widths and the reach.
    """

    @torch.no_grad()
    def __init__(self, image: Image, kernels: Kernels) -> None:
        radius = math.ceil(kernels.reach * kernels.place_width)
        self.offsets = list(_half_window(image.shape[-2], image.shape[-1], radius))
        self.weights = [_alike(image, *offset, kernels) for offset in self.offsets]
        received = torch.ones_like(image[:, :1])  # each pixel's own share
        share = self._sum_of_neighbours(torch.ones_like(received), received).rsqrt()
        self.weights = [
            weight * _here(share, *offset) * _there(share, *offset)
            for weight, offset in zip(self.weights, self.offsets, strict=True)
        ]

    def __call__(self, q: Logits) -> Logits:
        """The sum over all other pixels of kernel times `q`."""
        filtered: Tensor = _Symmetric.apply(q, self._filter)
        return filtered

    def _filter(self, q: Tensor) -> Tensor:
        return self._sum_of_neighbours(q, torch.zeros_like(q))

    def _sum_of_neighbours(self, q: Tensor, total: Tensor) -> Tensor:
        """`total`, and to each of its pixels its neighbours' weights times `q` added."""
        for weight, offset in zip(self.weights, self.offsets, strict=True):
            _here(total, *offset).add_(weight * _there(q, *offset))
            _there(total, *offset).add_(weight * _here(q, *offset))
        return total


class _Symmetric(torch.autograd.Function):
    """A linear function that is its own transpose: forwards and backwards it is the same."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, filtered: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.filtered = filtered
        return filtered(q)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return _Symmetric.apply(upstream, ctx.filtered), None


def _gaussian_of_places(length: int, width: float) -> Float[Tensor, "n n"]:
    """exp(-d^2 / 2 width^2) for the distances d of all pairs of places in a row."""
    places = torch.arange(length, dtype=torch.float64)
    return torch.exp(-((places[:, None] - places) ** 2) / (2 * width**2))


def _half_window(height: int, width: int, radius: int) -> Iterator[tuple[int, int]]:
    """The steps (down, right) to half of a window's other pixels; the other half is mirrored."""
    for down in range(min(radius, height - 1) + 1):
        right_most = min(radius, width - 1)
        for right in range(-right_most if down else 1, right_most + 1):
            yield down, right


def _alike(image: Tensor, down: int, right: int, kernels: Kernels) -> Tensor:
    """The appearance kernel of each pixel and the one that lies `down` and `right` of it."""
    difference = _here(image, down, right) - _there(image, down, right)
    in_colour = difference.square().sum(1, keepdim=True) / (2 * kernels.colour_width**2)
    in_place = (down**2 + right**2) / (2 * kernels.place_width**2)
    return torch.exp(-in_colour - in_place)


def _here(x: Tensor, down: int, right: int) -> Tensor:
    """The pixels that have a partner `down` and `right` of them: a view."""
    height, width = x.shape[-2:]
    return x[..., : height - down, max(-right, 0) : width - max(right, 0)]


def _there(x: Tensor, down: int, right: int) -> Tensor:
    """Those partners, in the same order: a view."""
    width = x.shape[-1]
    return x[..., down:, max(right, 0) : width - max(-right, 0)]


def _need_alike(logits: Tensor, image: Tensor) -> None:
    """Refuse what would give a wrong answer without an error."""
    if logits.shape[-2:] != image.shape[-2:] or len(logits) != len(image):
        raise InputError(
            f"DenseCRF: logits {tuple(logits.shape)} and image {tuple(image.shape)}; expected as "
            "many pictures, of the same height and width"
        )
    if image.numel() and not 0 <= image.min() <= image.max() <= 1:
        raise InputError(
            f"DenseCRF: the image has values {image.min():.3g}..{image.max():.3g}; expected [0, 1]"
        )

"""Anchors: the boxes that a network starts from, at every place of every level: chapter 16."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from segedu.errors import InputError


def cell_anchors(
    sizes: Sequence[float], aspect_ratios: Sequence[float]
) -> Float[Tensor, "anchors 4"]:
    """The anchors of one place, XYXY in pixels around (0, 0): all sizes of the first ratio first.

    An anchor of `size` s and ratio r has about the area s * s and is s * sqrt(r) high, s / sqrt(r)
    wide; the corners are rounded to whole pixels, .5 to the even one, as torchvision does.

    Args:
        sizes: Square roots of the areas, in pixels.
        aspect_ratios: Heights divided by widths.

    Source: Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.1.
    https://arxiv.org/abs/1506.01497
    """
    tall = torch.tensor(aspect_ratios, dtype=torch.float32).sqrt()
    size = torch.tensor(sizes, dtype=torch.float32)
    width, height = (1 / tall)[:, None] * size, tall[:, None] * size
    corners = torch.stack([-width, -height, width, height], dim=-1) / 2
    return corners.round().flatten(0, 1)


def grid_anchors(
    cells: Float[Tensor, "a 4"], grid: tuple[int, int], stride: tuple[int, int]
) -> Float[Tensor, "anchors 4"]:
    """The anchors `cells` around every place of a level: row by row, all of one place together.

    Place (row, column) lies at y = row * stride, x = column * stride: at the top-left corner of
    what it sees, not in its middle, as torchvision has it.

    Args:
        cells: XYXY in pixels around (0, 0).
        grid: (rows, columns) of the level.
        stride: (down, across): pixels from one place to the next.
    """
    (rows, columns), (down, across) = grid, stride
    y = torch.arange(rows, device=cells.device) * down
    x = torch.arange(columns, device=cells.device) * across
    y, x = torch.meshgrid(y, x, indexing="ij")
    places = torch.stack([x, y, x, y], dim=-1)  # (rows, columns, 4)
    return (places[:, :, None] + cells).flatten(0, 2)


@dataclass(frozen=True)
class Anchors:
    """Makes the anchors of all levels, for images of any size.

    Attributes:
        sizes: For each level, finest first, its anchors' sizes in pixels; as many on each level.
        aspect_ratios: Heights divided by widths, the same on each level.

    Raises:
        InputError: If the levels differ in how many sizes they have, or there is none.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, section 4.1:
    one size a level, three ratios. https://arxiv.org/abs/1612.03144
    """

    sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        counts = {len(sizes) for sizes in self.sizes}
        if len(counts) != 1 or not self.per_location:
            raise InputError(
                f"Anchors: sizes {self.sizes} and aspect_ratios {self.aspect_ratios}; expected as "
                "many sizes on each level, and one ratio or more"
            )

    @property
    def per_location(self) -> int:
        """Anchors at each place of a level."""
        return len(self.sizes[0]) * len(self.aspect_ratios)

    def __call__(
        self, features: Sequence[Float[Tensor, "..."]], image_size: tuple[int, int]
    ) -> list[Float[Tensor, "_ 4"]]:
        """The anchors (rows * columns * per_location, 4) of each level, XYXY in pixels.

        They have the first level's type and device, and may reach out of the image.

        Args:
            features: A map (..., rows, columns) a level, finest first.
            image_size: (height, width) of the batch; divided by a level's rows and columns, and
                rounded down, it gives the level's stride.

        Raises:
            InputError: If there are more or fewer maps than levels.
        """
        if len(features) != len(self.sizes):
            raise InputError(
                f"Anchors: {len(features)} feature maps for {len(self.sizes)} levels of sizes"
            )
        levels = []
        for feature, sizes in zip(features, self.sizes, strict=True):
            rows, columns = feature.shape[-2:]
            stride = (image_size[0] // rows, image_size[1] // columns)
            cells = cell_anchors(sizes, self.aspect_ratios).to(features[0])
            levels.append(grid_anchors(cells, (rows, columns), stride))
        return levels

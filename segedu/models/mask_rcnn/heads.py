"""The heads of Mask R-CNN: from a region's features to its class, its box and its mask; chapter 18.

Source: He et al., "Mask R-CNN", ICCV 2017, section 3. https://arxiv.org/abs/1703.06870. Which level
a region is read from: Lin et al., "Feature Pyramid Networks", CVPR 2017, eq. 1.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from segedu.models.mask_rcnn.boxes import BETA, box_area
from segedu.models.mask_rcnn.operators import Operators


class RegionFeatures(nn.Module):
    """Reads each region from the level that suits its size, by RoIAlign.

    Args:
        strides: Of the levels, finest first; each twice the one before.
        size: Height and width of what comes out.
        canonical: The side, in pixels, of regions that are read at stride 16; regions of half the
            side are read at half the stride.
        operators: Which RoIAlign to use.
    """

    def __init__(
        self, strides: Sequence[int], size: int, canonical: float, operators: Operators
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.size = size
        self.canonical = canonical
        self.operators = operators

    def forward(
        self, levels: Sequence[Float[Tensor, "b c _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "k c s s"]:
        """The features of the boxes of all images, one after the other.

        Args:
            levels: Features; those beyond the number of strides are left alone.
            boxes: Of each image, in pixels.
        """
        image = [torch.full_like(of_image[:, :1], i) for i, of_image in enumerate(boxes)]
        regions = torch.cat([torch.cat(image), torch.cat(list(boxes))], dim=1)
        at = self.level(regions[:, 1:])
        out = levels[0].new_zeros(len(regions), levels[0].shape[1], self.size, self.size)
        for number, (level, stride) in enumerate(zip(levels, self.strides, strict=False)):
            here = torch.where(at == number)[0]
            read = self.operators.roi_align(
                level, regions[here].to(level.dtype), (self.size, self.size), 1 / stride, 2
            )
            out = out.index_put((here,), read)
        return out

    def level(self, boxes: Float[Tensor, "k 4"]) -> Int[Tensor, " k"]:
        """The number of the level that each box is read from."""
        side = box_area(boxes).sqrt()
        best = torch.floor(4 + torch.log2(side / self.canonical) + 1e-6)
        lowest, highest = (math.log2(self.strides[i]) for i in (0, -1))
        return (best.clamp(lowest, highest) - lowest).long()


class BoxHead(nn.Module):
    """Two fully connected layers over a region's features.

    Args:
        in_features: Channels times height times width.
        width: Of both layers.
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_features, width)
        self.fc7 = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "k c s s"]) -> Float[Tensor, "k width"]:
        """One vector for each region."""
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


class BoxPredictor(nn.Module):
    """For each region a logit for every class, and deltas to a box for every class.

    Args:
        width: Of the region's vector.
        num_classes: C; class 0 is the background.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, num_classes)
        self.bbox_pred = nn.Linear(width, 4 * num_classes)

    def forward(
        self, x: Float[Tensor, "k width"]
    ) -> tuple[Float[Tensor, "k classes"], Float[Tensor, "k classes 4"]]:
        """Logits and deltas."""
        return self.cls_score(x), self.bbox_pred(x).unflatten(1, (-1, 4))


class MaskHead(nn.Sequential):
    """Convolutions over a region's features.

    Args:
        channels: Of the features and of every layer.
        depth: Number of convolutions.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__(*[_conv_relu(channels) for _ in range(depth)])


class MaskPredictor(nn.Module):
    """Twice the resolution, and a mask's logits for every class, each on its own.

    Args:
        channels: Of the region's features.
        num_classes: C; class 0 is the background, and its mask is not used.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.mask_fcn_logits = nn.Conv2d(channels, num_classes, 1)
        for layer in (self.conv5_mask, self.mask_fcn_logits):
            _begin(layer)

    def forward(self, x: Float[Tensor, "k c s s"]) -> Float[Tensor, "k classes s2 s2"]:
        """The masks' logits."""
        logits: Tensor = self.mask_fcn_logits(F.relu(self.conv5_mask(x)))
        return logits


def box_losses(
    logits: Float[Tensor, "k c"],
    deltas: Float[Tensor, "k c 4"],
    labels: Int[Tensor, " k"],
    wanted: Float[Tensor, "k 4"],
) -> dict[str, Tensor]:
    """What is it, and where exactly: the second of the true class only, and not for background.

    Both are 0 if there is no region.
    """
    count = max(1, len(labels))
    of_object = torch.where(labels > 0)[0]
    near = deltas[of_object, labels[of_object]]
    off = F.smooth_l1_loss(near, wanted[of_object], beta=BETA, reduction="sum")
    doubt = F.cross_entropy(logits, labels, reduction="sum")
    return {"loss_classifier": doubt / count, "loss_box_reg": off / count}


def mask_loss(
    logits: Float[Tensor, "k c m m"], labels: Int[Tensor, " k"], masks: Float[Tensor, "k m m"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy of the true class's mask, over all pixels of all regions.

    The other classes' masks are left alone: classes do not compete for a pixel. 0 if there is no
    region.
    """
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    loss = F.binary_cross_entropy_with_logits(own, masks, reduction="sum")
    return loss / max(1, masks.numel())


def _conv_relu(channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, channels, 3, padding=1)
    _begin(convolution)
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


def _begin(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

"""From proposals to objects, and what is learnt from them; chapter 18 derives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.layers import in_32_bits
from segedu.models.mask_rcnn.boxes import box_iou, clip_boxes_to_image, decode, encode, is_at_least
from segedu.models.mask_rcnn.heads import (
    BoxHead,
    BoxPredictor,
    MaskHead,
    MaskPredictor,
    RegionFeatures,
    box_losses,
    mask_loss,
)
from segedu.models.mask_rcnn.matching import match, sample
from segedu.models.mask_rcnn.operators import Operators
from segedu.models.mask_rcnn.paste import crop_masks

SMALLEST = 1e-2
"""The least height and width of a detected box, in pixels."""


@dataclass(frozen=True, kw_only=True)
class RegionSettings:
    """How regions are read, learnt and chosen.

    Attributes:
        box_size: Height and width of a region's features for its class and box.
        mask_size: The same for its mask, which has twice as many pixels each way.
        canonical: See `RegionFeatures`.
        width: Of the two fully connected layers.
        mask_depth: Convolutions before the mask is enlarged.
        iou: From this IoU on a proposal is the object's; below it is background.
        samples: Proposals of an image that the losses count.
        positive_share: At most this share of them belongs to objects.
        weights: By which deltas of x, y, width and height are multiplied.
        least_score: Less likely objects are dropped.
        nms_iou: Of two objects of a class with a greater IoU the surer stays.
        most: So many objects of an image are kept, the surest.
    """

    box_size: int = 7
    mask_size: int = 14
    canonical: float = 224
    width: int = 1024
    mask_depth: int = 4
    iou: float = 0.5
    samples: int = 512
    positive_share: float = 0.25
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    least_score: float = 0.05
    nms_iou: float = 0.5
    most: int = 100


@dataclass(frozen=True)
class Drawn:
    """The proposals of one image that the losses count.

    Attributes:
        boxes: (K, 4).
        labels: (K,); 0 for background.
        objects: (K,) the index of the object that each belongs to; of background, any.
        deltas: (K, 4) to the object's box.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    deltas: Tensor


class Regions(nn.Module):
    """Looks at each proposal again: its class, its box, its mask.

    Args:
        channels: Of the features of every level.
        strides: Of the levels that regions are read from, finest first.
        num_classes: C; class 0 is the background.
        settings: How regions are read, learnt and chosen.
        operators: Which RoIAlign and suppression to use.
        masks: Whether to predict masks.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        num_classes: int,
        settings: RegionSettings,
        operators: Operators,
        *,
        masks: bool,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.operators = operators
        read = RegionFeatures(strides, settings.box_size, settings.canonical, operators)
        self.box_features = read
        self.box_head = BoxHead(channels * settings.box_size**2, settings.width)
        self.box_predictor = BoxPredictor(settings.width, num_classes)
        self.masks = masks
        if masks:
            self.mask_features = RegionFeatures(
                strides, settings.mask_size, settings.canonical, operators
            )
            self.mask_head = MaskHead(channels, settings.mask_depth)
            self.mask_predictor = MaskPredictor(channels, num_classes)

    def forward(
        self,
        levels: Sequence[Float[Tensor, "b c _ _"]],
        proposals: Sequence[Float[Tensor, "_ 4"]],
        sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Each image's "boxes", "labels", "scores" and, within the box, "masks" (N, 1, M, M)."""
        logits, deltas = self._classify(levels, proposals)
        counts = [len(boxes) for boxes in proposals]
        parts = zip(
            torch.split(logits, counts), torch.split(deltas, counts), proposals, sizes, strict=True
        )
        found = [self._chosen(*image) for image in parts]
        if not self.masks:
            return found
        labels = torch.cat([image["labels"] for image in found])
        logits = self._outline(levels, [image["boxes"] for image in found])
        own = logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()[:, None]
        masks = torch.split(own, [len(image["labels"]) for image in found])
        return [{**image, "masks": of_image} for image, of_image in zip(found, masks, strict=True)]

    def losses(
        self,
        levels: Sequence[Float[Tensor, "b c _ _"]],
        proposals: Sequence[Float[Tensor, "_ 4"]],
        truth: Sequence[Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """The losses of class, box and mask over proposals drawn from each image's."""
        drawn = [self._draw(*image) for image in zip(proposals, truth, strict=True)]
        labels = torch.cat([image.labels for image in drawn])
        logits, deltas = self._classify(levels, [image.boxes for image in drawn])
        losses = box_losses(logits, deltas, labels, torch.cat([image.deltas for image in drawn]))
        if not self.masks:
            return losses
        of_objects = [image.labels > 0 for image in drawn]
        boxes = [image.boxes[own] for image, own in zip(drawn, of_objects, strict=True)]
        logits = self._outline(levels, boxes)
        wanted = [
            crop_masks(
                image["masks"], box, part.objects[own], logits.shape[-1], self.operators.crop
            )
            for image, box, part, own in zip(truth, boxes, drawn, of_objects, strict=True)
        ]
        return {**losses, "loss_mask": mask_loss(logits, labels[labels > 0], torch.cat(wanted))}

    def _classify(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (K, C) and deltas (K, C, 4) of the boxes of all images."""
        logits, deltas = self.box_predictor(self.box_head(self.box_features(levels, boxes)))
        return in_32_bits(logits), in_32_bits(deltas)

    def _outline(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """The masks' logits (K, C, M, M) of the boxes of all images."""
        logits: Tensor = self.mask_predictor(self.mask_head(self.mask_features(levels, boxes)))
        return in_32_bits(logits)

    def _draw(self, proposals: Tensor, truth: Mapping[str, Tensor]) -> Drawn:
        """What to learn from: the objects' own boxes are proposals as well."""
        chosen = self.settings
        objects = truth["boxes"].to(proposals.dtype)
        boxes = torch.cat([proposals, objects])
        hit = match(box_iou(objects, boxes), chosen.iou, chosen.iou)  # -1, the last, if no object's
        labels = F.pad(truth["labels"], (0, 1))[hit]
        positive, negative = sample(labels, chosen.samples, chosen.positive_share)
        keep = positive | negative
        boxes, own = boxes[keep], torch.cat([objects, boxes[:1]])[hit[keep]]
        return Drawn(boxes, labels[keep], hit[keep], encode(own, boxes, chosen.weights))

    def _chosen(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """One image's objects: every class of every proposal is a candidate, but background."""
        chosen = self.settings
        boxes = decode(deltas, proposals[:, None], chosen.weights)
        boxes = clip_boxes_to_image(boxes, size)[:, 1:].reshape(-1, 4)
        scores = logits.softmax(dim=1)[:, 1:]
        labels = torch.arange(1, logits.shape[1], device=logits.device).expand_as(scores)
        scores, labels = scores.reshape(-1), labels.reshape(-1)
        likely = (scores > chosen.least_score) & is_at_least(boxes, SMALLEST)
        boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
        first = self.operators.batched_nms(boxes, scores, labels, chosen.nms_iou)[: chosen.most]
        return {"boxes": boxes[first], "labels": labels[first], "scores": scores[first]}

"""The region proposal network: where might an object be? Chapter 17 derives it.

Source: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", NeurIPS 2015, section 3. https://arxiv.org/abs/1506.01497
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.layers import in_32_bits
from segedu.models.mask_rcnn.anchors import Anchors
from segedu.models.mask_rcnn.boxes import (
    BETA,
    box_iou,
    clip_boxes_to_image,
    decode,
    encode,
    is_at_least,
)
from segedu.models.mask_rcnn.matching import BETWEEN, NEGATIVE, match, sample
from segedu.models.mask_rcnn.operators import Operators

SMALLEST = 1e-3
"""The least height and width of a proposal, in pixels."""


@dataclass(frozen=True, kw_only=True)
class ProposalSettings:
    """How proposals are learnt and chosen.

    Attributes:
        anchors: Their sizes and shapes, by level.
        low: Anchors below this IoU with every object are background.
        high: Anchors from this IoU on are the object's.
        samples: Anchors of an image that the losses count.
        positive_share: At most this share of them belongs to objects.
        before_nms: Of each level this many go on, in training and to predict.
        after_nms: Of all levels this many go on, in training and to predict.
        nms_iou: Of two proposals with a greater IoU one goes on.
    """

    anchors: Anchors = field(default_factory=Anchors)
    low: float = 0.3
    high: float = 0.7
    samples: int = 256
    positive_share: float = 0.5
    before_nms: tuple[int, int] = (2000, 1000)
    after_nms: tuple[int, int] = (2000, 1000)
    nms_iou: float = 0.7


class RPNHead(nn.Module):
    """For every anchor a logit, object or not, and the four deltas to the object's box.

    Args:
        channels: Of the features of every level.
        anchors: A, at each place.
    """

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)))
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv[0][0], self.cls_logits, self.bbox_pred):  # type: ignore[index]
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(
        self, levels: Sequence[Float[Tensor, "b c _ _"]]
    ) -> tuple[list[Float[Tensor, "b _"]], list[Float[Tensor, "b _ 4"]]]:
        """Logits and deltas of each level, one for each of its anchors."""
        logits, deltas = [], []
        for level in levels:
            x = F.relu(self.conv(level))
            logits.append(in_32_bits(_by_anchor(self.cls_logits(x), 1)[..., 0]))
            deltas.append(in_32_bits(_by_anchor(self.bbox_pred(x), 4)))
        return logits, deltas


class RegionProposals(nn.Module):
    """Anchors scored, moved and thinned out.

    Args:
        channels: Of the features of every level.
        settings: How proposals are learnt and chosen.
        operators: Which suppression to use.
    """

    def __init__(self, channels: int, settings: ProposalSettings, operators: Operators) -> None:
        super().__init__()
        self.settings = settings
        self.operators = operators
        self.head = RPNHead(channels, settings.anchors.per_location)

    def forward(
        self,
        levels: Sequence[Float[Tensor, "b c _ _"]],
        padded: tuple[int, int],
        sizes: Sequence[tuple[int, int]],
        truth: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> tuple[list[Float[Tensor, "_ 4"]], dict[str, Tensor]]:
        """Each image's proposals, the likeliest first; in training the two losses as well.

        Args:
            levels: Features, finest first.
            padded: Height and width of the batch of images, in pixels.
            sizes: Height and width of each image within it.
            truth: In training, the "boxes" of each image's objects.
        """
        logits, deltas = self.head(levels)
        anchors = self.settings.anchors(levels, padded)
        with torch.no_grad():
            boxes = [decode(d, a) for d, a in zip(deltas, anchors, strict=True)]
            proposals = [
                self._chosen([x[i] for x in logits], [x[i] for x in boxes], size)
                for i, size in enumerate(sizes)
            ]
        if truth is None:
            return proposals, {}
        wanted = [image["boxes"] for image in truth]
        return proposals, self._losses(
            torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors), wanted
        )

    def _chosen(self, logits: list[Tensor], boxes: list[Tensor], size: tuple[int, int]) -> Tensor:
        """One image's proposals out of all its moved anchors."""
        chosen = self.settings
        kept, scores, level = [], [], []
        for number, (score, box) in enumerate(zip(logits, boxes, strict=True)):
            best = score.topk(min(chosen.before_nms[not self.training], len(score))).indices
            kept.append(box[best])
            scores.append(score[best].sigmoid())
            level.append(torch.full_like(best, number))
        proposals = clip_boxes_to_image(torch.cat(kept), size)
        large = is_at_least(proposals, SMALLEST)
        proposals = proposals[large]
        first = self.operators.batched_nms(
            proposals, torch.cat(scores)[large], torch.cat(level)[large], chosen.nms_iou
        )
        return proposals[first[: chosen.after_nms[not self.training]]]

    def _losses(
        self,
        logits: Float[Tensor, "b a"],
        deltas: Float[Tensor, "b a 4"],
        anchors: Float[Tensor, "a 4"],
        objects: list[Tensor],
    ) -> dict[str, Tensor]:
        """Is it an object, and where is it: over the sampled anchors of all images."""
        chosen = self.settings
        found = [self._targets(anchors, boxes) for boxes in objects]
        is_object, wanted = (torch.stack(x) for x in zip(*found, strict=True))
        drawn = [sample(image, chosen.samples, chosen.positive_share) for image in is_object]
        positive, negative = (torch.stack(x) for x in zip(*drawn, strict=True))
        counted = positive | negative
        count = counted.sum().clamp(min=1)
        off = F.smooth_l1_loss(deltas[positive], wanted[positive], beta=BETA, reduction="sum")
        doubt = F.binary_cross_entropy_with_logits(
            logits[counted], is_object[counted], reduction="sum"
        )
        return {"loss_objectness": doubt / count, "loss_rpn_box_reg": off / count}

    def _targets(self, anchors: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
        """For each anchor 1 for an object, 0 for background or -1 for neither; and its deltas."""
        if not len(objects):
            return anchors.new_zeros(len(anchors)), torch.zeros_like(anchors)
        hit = match(
            box_iou(objects, anchors), self.settings.low, self.settings.high, keep_best=True
        )
        is_object = (hit >= 0).to(anchors.dtype)
        is_object[hit == BETWEEN] = -1
        is_object[hit == NEGATIVE] = 0
        return is_object, encode(objects[hit.clamp(min=0)], anchors)


def _by_anchor(x: Tensor, numbers: int) -> Tensor:
    """(B, A * numbers, H, W) as (B, H * W * A, numbers): the order in which anchors are laid."""
    batch, _, height, width = x.shape
    return (
        x.view(batch, -1, numbers, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, numbers)
    )

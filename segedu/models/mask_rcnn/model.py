"""Mask R-CNN and Faster R-CNN whole: chapter 18 puts the parts together.

Source: He et al., "Mask R-CNN", ICCV 2017. https://arxiv.org/abs/1703.06870
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from segedu.models.layers import in_32_bits
from segedu.models.mask_rcnn.anchors import Anchors
from segedu.models.mask_rcnn.batching import (
    Resizing,
    need_images,
    need_truth,
    resize,
    resize_boxes,
    resize_truth,
    stack,
)
from segedu.models.mask_rcnn.fpn import PyramidBackbone
from segedu.models.mask_rcnn.operators import choose_operators
from segedu.models.mask_rcnn.paste import paste_masks
from segedu.models.mask_rcnn.regions import Regions, RegionSettings
from segedu.models.mask_rcnn.rpn import ProposalSettings, RegionProposals
from segedu.models.resnet import resnet50
from segedu.models.trunk import Trunk


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of a detector but its backbone.

    Attributes:
        resizing: What size of picture the network sees.
        proposals: How proposals are learnt and chosen.
        regions: How regions are read, learnt and chosen.
        masks: Whether it predicts masks; otherwise it is Faster R-CNN.
    """

    resizing: Resizing = field(default_factory=Resizing)
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    regions: RegionSettings = field(default_factory=RegionSettings)
    masks: bool = True

    def crowded(self, most: int | None) -> "Settings":
        """The same for `most` objects of a picture, from at least twice as many proposals."""
        if most is None:
            return self
        before, after = self.proposals.before_nms, self.proposals.after_nms
        proposals = replace(
            self.proposals,
            before_nms=(before[0], max(before[1], 2 * most)),
            after_nms=(after[0], max(after[1], 2 * most)),
        )
        return replace(self, proposals=proposals, regions=replace(self.regions, most=most))


RESNET50 = Settings()
SMALL = Settings(
    resizing=Resizing(shorter=()),
    proposals=ProposalSettings(
        anchors=Anchors(sizes=((12,), (24,), (48,), (96,))),
        samples=64,
        before_nms=(200, 200),
        after_nms=(100, 200),
    ),
    regions=RegionSettings(canonical=192, width=128, mask_depth=2, samples=32),
)


class MaskRCNN(nn.Module):
    """Finds objects: their boxes, their classes, and a mask for each.

    Args:
        backbone: Gives the levels of a pyramid; its body's normalisation becomes the model's.
        num_classes: C; class 0 is the background.
        settings: All else.
        operators: "written" for this package's RoIAlign and suppression, "torchvision" for its,
            "quick" for what is quicker on a CPU. They give the same.

    Raises:
        InputError: If there are no operators of that name.
    """

    def __init__(
        self,
        backbone: PyramidBackbone,
        num_classes: int,
        settings: Settings,
        *,
        operators: str = "written",
    ) -> None:
        super().__init__()
        chosen = choose_operators(operators)
        self.num_classes = num_classes
        self.settings = settings
        # Before pictures are resized and filled up with 0, as torchvision does, to the last bit.
        self.normalize = backbone.body.normalize
        backbone.body.normalize = nn.Identity()
        self.backbone = backbone
        self.rpn = RegionProposals(backbone.channels, settings.proposals, chosen)
        self.roi_heads = Regions(
            backbone.channels,
            backbone.strides[:-1],
            num_classes,
            settings.regions,
            chosen,
            masks=settings.masks,
        )

    @property
    def most(self) -> int:
        """How many objects of a picture are found, at most."""
        return self.settings.regions.most

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> list[dict[str, Tensor]] | dict[str, Tensor]:
        """Each image's objects, the surest first; in training the losses.

        Args:
            images: (3, H, W) each, in [0, 1], of any sizes.
            targets: In training, each image's "boxes" (N, 4), "labels" (N,) and "masks" (N, H, W).

        Returns:
            For each image "boxes" (N, 4) in its pixels, "labels" (N,) in 1..C-1, "scores" (N,) and
            "masks" (N, 1, H, W) in [0, 1]. In training the five losses, scalars.

        Raises:
            InputError: If images or targets are not as above, or a model in training has none.
        """
        need_images(images)
        plain = [image.as_subclass(Tensor) for image in images]
        before = [_size(image) for image in plain]
        factors = [self.settings.resizing.factor(size, training=self.training) for size in before]
        normal: list[Tensor] = [self.normalize(image[None])[0] for image in plain]  # type: ignore[operator]
        resized = [resize(image, factor) for image, factor in zip(normal, factors, strict=True)]
        sizes = [_size(image) for image in resized]
        batch = stack(resized)
        levels = [in_32_bits(level) for level in self.backbone(batch)]
        if not self.training:
            proposals, _ = self.rpn(levels, _size(batch), sizes)
            found = self.roi_heads(levels, proposals, sizes)
            return [
                _brought_back(image, size, original)
                for image, size, original in zip(found, sizes, before, strict=True)
            ]
        truth = self._truth(targets, before, sizes)
        proposals, losses = self.rpn(levels, _size(batch), sizes, truth)
        return {**self.roi_heads.losses(levels, proposals, truth), **losses}

    def _truth(
        self,
        targets: Sequence[Mapping[str, Tensor]] | None,
        before: list[tuple[int, int]],
        after: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """The targets in the pixels that the network sees."""
        given = [] if targets is None else targets
        need_truth(given, len(before), self.num_classes, masks=self.settings.masks)
        names = ("boxes", "labels", "masks") if self.settings.masks else ("boxes", "labels")
        plain = [{name: image[name].as_subclass(Tensor) for name in names} for image in given]
        return [resize_truth(*each) for each in zip(plain, before, after, strict=True)]


def maskrcnn_resnet50_fpn(
    num_classes: int,
    *,
    settings: Settings = RESNET50,
    most: int | None = None,
    operators: str = "written",
) -> MaskRCNN:
    """Mask R-CNN on ResNet-50 with a feature pyramid; 44 million weights for 91 classes.

    torchvision's `state_dict()` of the model of the same name goes in through `from_peer`.

    Args:
        num_classes: C; class 0 is the background.
        settings: All but the backbone, as torchvision has it.
        most: How many objects of a picture are found, at most; None for what the settings say.
        operators: See `MaskRCNN`.
    """
    return MaskRCNN(_resnet50_pyramid(), num_classes, settings.crowded(most), operators=operators)


def fasterrcnn_resnet50_fpn(
    num_classes: int, *, settings: Settings = RESNET50, operators: str = "written"
) -> MaskRCNN:
    """Faster R-CNN on ResNet-50 with a feature pyramid: boxes without masks.

    Args:
        num_classes: C; class 0 is the background.
        settings: All but the backbone, as torchvision has it.
        operators: See `MaskRCNN`.
    """
    without = replace(settings, masks=False)
    return MaskRCNN(_resnet50_pyramid(), num_classes, without, operators=operators)


def maskrcnn_trunk(
    num_classes: int,
    *,
    settings: Settings = SMALL,
    most: int | None = None,
    operators: str = "written",
) -> MaskRCNN:
    """A small Mask R-CNN that learns from random weights in minutes; 0.9 million weights.

    It is made for pictures of 64 to 300 pixels, seen as they are, and objects of 10 to 120.

    Args:
        num_classes: C; class 0 is the background.
        settings: All but the backbone.
        most: How many objects of a picture are found, at most; None for what the settings say.
        operators: See `MaskRCNN`.
    """
    backbone = PyramidBackbone(Trunk((24, 32, 64, 96)), strides=(4, 8, 16), channels=64)
    return MaskRCNN(backbone, num_classes, settings.crowded(most), operators=operators)


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torchvision's Mask R-CNN or Faster R-CNN for the one here.

    Those with a frozen batch normalisation lack its counter of batches; it is added.
    """
    counted = {
        name.removesuffix("running_mean") + "num_batches_tracked": value.new_zeros(()).long()
        for name, value in state.items()
        if name.endswith("running_mean")
    }
    return {**counted, **state}


def _resnet50_pyramid() -> PyramidBackbone:
    return PyramidBackbone(resnet50(), strides=(4, 8, 16, 32))


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _brought_back(
    found: dict[str, Tensor], size: tuple[int, int], original: tuple[int, int]
) -> dict[str, Tensor]:
    """One image's objects in its own pixels."""
    boxes = resize_boxes(found["boxes"], size, original)
    back = {**found, "boxes": boxes}
    if "masks" in found:
        back["masks"] = paste_masks(found["masks"], boxes, original)
    return back

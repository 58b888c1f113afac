"""The models by name: what `segedu train --model NAME` and a checkpoint mean by it."""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from segedu.errors import InputError
from segedu.models.layers import Backbone, Shrunk, Views
from segedu.models.pretrained import load_imagenet


@dataclass(frozen=True)
class Entry:
    """A model of the registry.

    Attributes:
        constructor: As MODULE:FUNCTION within `segedu.models`.
        smallest: The least height and width of an image, in pixels.
        batch: The least number of images in a training batch.
        objects: Whether it finds objects, as Mask R-CNN does; otherwise it labels pixels.
    """

    constructor: str
    smallest: int = 1
    batch: int = 1
    objects: bool = False

    @property
    def rule(self) -> str:
        """What images the model takes, in words."""
        size = f"at least {self.smallest} x {self.smallest}" if self.smallest > 1 else "any size"
        return f"images of {size}" + (
            f"; {self.batch} or more to train" * (self.batch > 1) + "; finds objects" * self.objects
        )


MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        "unet": Entry("unet:UNet"),
        "unet_resnet34": Entry("unet:unet_resnet34"),
        "unet_lite0": Entry("unet:unet_lite0"),
        "fcn8s_vgg16": Entry("fcn:fcn8s_vgg16"),
        "fcn_resnet50": Entry("fcn:fcn_resnet50"),
        "fcn_resnet101": Entry("fcn:fcn_resnet101"),
        "pspnet_resnet34": Entry("pspnet:pspnet_resnet34"),
        "pspnet_resnet50": Entry("pspnet:pspnet_resnet50"),
        "deeplab_lfov_vgg16": Entry("lfov:deeplab_lfov_vgg16"),
        "deeplabv3_resnet50": Entry("deeplab:deeplabv3_resnet50", batch=2),
        "deeplabv3_resnet101": Entry("deeplab:deeplabv3_resnet101", batch=2),
        "deeplabv3plus_resnet34": Entry("deeplab:deeplabv3plus_resnet34", batch=2),
        "aspp_unet_lite0": Entry("aspp_unet:aspp_unet_lite0", batch=2),
        "segformer_b0": Entry("segformer:segformer_b0", smallest=29),
        "maskrcnn": Entry("mask_rcnn.model:maskrcnn_trunk", objects=True),
        "maskrcnn_resnet50": Entry("mask_rcnn.model:maskrcnn_resnet50_fpn", objects=True),
    }
)
"""The models by name; what follows the last underscore names the backbone."""


def build(
    name: str, num_classes: int, *, shrink: int = 1, views: Sequence[float] = (), **options: Any
) -> nn.Module:
    """A new model with random weights.

    Args:
        name: One of `MODELS`.
        num_classes: C, the number of classes.
        shrink: By what factor the model's input is shrunk, and its output enlarged; 1 for not.
        views: At which scales the model looks at a picture to predict, each time also mirrored;
            none for one look at the picture as it is.
        options: Further arguments of the model's constructor.

    Raises:
        InputError: If there is no such model.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name.lower(), MODELS, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no model {name!r}; {meant}choose one of: {', '.join(MODELS)}")
    module, constructor = MODELS[name].constructor.split(":")
    model: nn.Module = getattr(importlib.import_module(f"segedu.models.{module}"), constructor)(
        num_classes, **options
    )
    model = Shrunk(model, shrink) if shrink > 1 else model
    return Views(model, views) if views else model


def load_pretrained(model: nn.Module, name: str) -> str:
    """Put ImageNet's weights into the backbone of a model; returns where they came from.

    Args:
        model: As `build` makes it.
        name: The name it was built by, which ends in its backbone's.

    Raises:
        InputError: If the model has no backbone, or there are no weights for it.
    """
    backbones = [part for part in model.modules() if isinstance(part, Backbone)]
    if not backbones:
        raise InputError(
            f"{name} has no backbone that ImageNet's weights fit; choose one of: "
            f"{', '.join(known for known in MODELS if '_' in known)}"
        )
    return load_imagenet(backbones[0], name.rpartition("_")[2])

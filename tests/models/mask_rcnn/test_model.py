"""Mask R-CNN with its twin's weights finds what the twin finds, and learns by its gradients."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection as tvd

from segedu.data.scenes import Scenes
from segedu.errors import InputError
from segedu.models.mask_rcnn import model as ours
from segedu.models.mask_rcnn.batching import Resizing
from segedu.models.mask_rcnn.model import Settings

CLASSES = 7
SIZES = ((120, 180), (200, 131), (97, 97), (64, 260), (256, 40))
SMALL = Settings(resizing=Resizing(shorter=(192,), longest=320))
NAMES = ["maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn"]


def twins(name: str, *, operators: str = "written") -> tuple[nn.Module, nn.Module]:
    """Both with the same random weights, stirred so that objects of every class are found."""
    torch.manual_seed(0)
    peer = getattr(tvd, name)(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=192, max_size=320
    )
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.2, 0.6)
    for layer, spread in ((peer.rpn.head.cls_logits, 0.3), (peer.rpn.head.bbox_pred, 0.05)):
        nn.init.normal_(layer.weight, std=spread)
    nn.init.normal_(peer.roi_heads.box_predictor.cls_score.weight, std=1.0)
    nn.init.normal_(peer.roi_heads.box_predictor.bbox_pred.weight, std=0.3)
    model = getattr(ours, name)(CLASSES, settings=SMALL, operators=operators)
    model.load_state_dict(peer.state_dict(), strict=True)
    return model, peer


def pictures() -> list[Tensor]:
    made = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=made) for size in SIZES]


@pytest.fixture(scope="module", params=NAMES)
def evaluated(request) -> tuple[nn.Module, nn.Module]:
    model, peer = twins(request.param)
    return model.eval(), peer.eval()


@torch.inference_mode()
def test_with_the_twins_weights_the_twins_objects_are_found_in_the_same_order(evaluated):
    model, peer = evaluated
    for found, theirs in zip(model(pictures()), peer(pictures()), strict=True):
        assert len(theirs["labels"]) > 5
        assert found.keys() == theirs.keys()
        assert found["labels"].equal(theirs["labels"])
        assert torch.allclose(found["boxes"], theirs["boxes"], atol=1e-2, rtol=0)
        assert torch.allclose(found["scores"], theirs["scores"], atol=1e-4, rtol=0)
        if "masks" in theirs:
            assert torch.allclose(found["masks"], theirs["masks"], atol=1e-4, rtol=0)

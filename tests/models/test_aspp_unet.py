import pytest
import torch
from torch import nn

from segedu.models.aspp_unet import ASPPUNet, aspp_unet_lite0
from segedu.models.layers import Backbone
from segedu.models.registry import build, load_pretrained


class Steps(Backbone):
    """Features at strides 2, 4 and 8: means of the picture."""

    def __init__(self):
        super().__init__()
        self.channels = {2: 3, 4: 3, 8: 3}

    def forward(self, image):
        pool = nn.functional.avg_pool2d
        return {stride: pool(image, stride, ceil_mode=True) for stride in self.channels}


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 1), (2, 5)])
@torch.inference_mode()
def test_every_pixel_is_scored(size):
    model = build("aspp_unet_lite0", 5).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_it_has_few_weights():
    model = aspp_unet_lite0(11)
    head = sum(p.numel() for p in model.parameters())
    head -= sum(p.numel() for p in model.backbone.parameters())
    assert round(head / 1e6, 1) == 0.9
    assert "efficientnet_lite0" in load_pretrained(model, "aspp_unet_lite0")


@torch.inference_mode()
def test_the_score_of_a_pixel_needs_all_strides_and_the_whole_picture():
    torch.manual_seed(0)
    model = ASPPUNet(2, Steps(), widths=(8, 8), skips=(4, 4)).eval().double()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    logits = model(image)
    for stride, skip in zip((4, 2), model.skips, strict=True):
        kept = skip[0].weight.clone()
        skip[0].weight.zero_()
        assert not torch.allclose(model(image), logits), stride
        skip[0].weight.copy_(kept)
    far = image.clone()
    far[..., -1, -1] += 1  # beyond all convolutions of the corner: only the mean sees it
    assert (model(far) - logits)[..., 0, 0].abs().min() > 0


def test_every_weight_learns():
    torch.manual_seed(0)
    model = ASPPUNet(2, Steps(), widths=(8, 8), skips=(4, 4)).train()
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())

from itertools import pairwise

import pytest
import torch
from torch import nn

from segedu.models import describe
from segedu.models.describe import Description, columns_seen, describe_all, multiplications
from segedu.models.registry import MODELS, Entry


def conv(kernel, dilation=1):
    padding = dilation * (kernel // 2)
    return nn.Conv2d(3, 3, kernel, padding=padding, dilation=dilation)


@pytest.mark.parametrize(
    ("layers", "columns"),
    [
        ([conv(1)], 1),
        ([conv(3), conv(3), conv(3)], 7),
        ([conv(3, dilation=4)], 3),  # of nine columns it looks at three
        ([conv(3), conv(3, dilation=4)], 9),
        ([nn.MaxPool2d((1, 2)), nn.Upsample(scale_factor=(1, 2))], 2),
    ],
)
def test_the_receptive_field_is_what_a_pixel_depends_on(layers, columns):
    assert columns_seen(nn.Sequential(*layers)) == columns


def test_a_mean_over_the_picture_sees_all_of_it():
    assert (
        columns_seen(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample((1, describe.STRIP))))
        is None
    )


def test_multiplications_are_counted_as_by_hand():
    by_hand = 256 * 256 * 3 * 3 * 9
    assert multiplications(conv(3)) == by_hand
    assert multiplications(conv(3).to("meta")) == by_hand
    strided = nn.Conv2d(3, 8, 5, stride=2, padding=2)
    assert multiplications(strided) == 128 * 128 * 3 * 8 * 25


def test_a_description_of_u_net(monkeypatch):
    monkeypatch.setattr(describe, "MODELS", {"unet": MODELS["unet"]})
    (row,) = describe_all(num_classes=6)
    widths = (24, 48, 96, 192)
    down = list(enumerate(pairwise((3, *widths))))  # (level, (channels in, channels out))
    up = [(level, (fine + coarse, fine)) for level, (fine, coarse) in enumerate(pairwise(widths))]
    weights = [(level, 9 * (a * b + b * b), 4 * b) for level, (a, b) in down + up]
    assert row == Description(
        name="unet",
        parameters=sum(conv + norm for _, conv, norm in weights) + 25 * 6,
        macs=sum((256 >> level) ** 2 * conv for level, conv, _ in weights) + 256 * 256 * 24 * 6,
        receptive_field=100,  # as chapter 10 finds in three ways
        rule="images of any size",
    )


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if not entry.objects])
def test_every_model_that_labels_pixels_scores_an_odd_image(name):
    model = describe.build(name, 3).eval()
    height = max(21, MODELS[name].smallest)
    assert model(torch.rand(1, 3, height, 34)).shape == (1, 3, height, 34)


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.objects])
def test_every_model_that_finds_objects_takes_an_odd_image(name):
    (found,) = describe.build(name, 3).eval()([torch.rand(3, 33, 70)])
    assert found["masks"].shape == (len(found["labels"]), 1, 33, 70)


def test_what_finds_objects_has_no_receptive_field_but_multiplications(monkeypatch):
    monkeypatch.setattr(describe, "MODELS", {"maskrcnn": MODELS["maskrcnn"]})
    (row,) = describe_all(num_classes=6)
    assert row.receptive_field is None
    backbone = 256**2 * 9 * (3 * 24 + 24**2)  # the first block alone
    assert row.macs > backbone
    assert row.rule == "images of any size; finds objects"


def test_a_rule_says_what_a_model_needs():
    assert Entry("a:b", smallest=29).rule == "images of at least 29 x 29"
    assert Entry("a:b", batch=2).rule == "images of any size; 2 or more to train"

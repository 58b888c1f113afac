"""Counts against sums by hand and torch's own counter."""

import pytest
import torch
from torch import nn

from segedu.models.unet import UNet
from segedu.profiling.flops import each_layer, flops_of, layer_costs, step_flops


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 8, 6)),
        (nn.Conv2d(8, 8, 3, stride=2, groups=4), (1, 8, 9, 9)),
        (nn.Conv2d(4, 6, (1, 5), dilation=2), (1, 4, 12, 12)),
        (nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1), (2, 6, 5, 5)),
        (nn.Linear(7, 5), (3, 7)),
    ],
    ids=["conv", "strided groups", "dilated", "transposed", "linear"],
)
def test_a_layers_flops_are_torchs(layer, shape):
    x = torch.rand(shape)
    assert flops_of(layer, x, layer(x)) == step_flops(lambda: layer(x))


def test_a_convolution_by_hand():
    [cost] = layer_costs(
        nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False)), torch.rand(1, 1, 2, 2)
    )
    assert (cost.name, cost.kind) == ("0", "Conv2d")
    assert cost.flops == 2 * 4 * 9
    assert cost.moved == 4 * (4 + 9 + 4)
    assert cost.intensity == 72 / 68


def test_a_layer_that_is_no_product_costs_a_flop_for_each_number():
    [cost] = layer_costs(nn.Sequential(nn.ReLU()), torch.rand(2, 3, 4, 5))
    assert (cost.flops, cost.moved, cost.intensity) == (120, 960, 0.125)


def test_a_unets_convolutions_add_up_to_torchs_count_without_any_memory():
    net = UNet(6, widths=(4, 8, 16)).to("meta")
    images = torch.empty(2, 3, 32, 32, device="meta")
    costs = layer_costs(net, images)
    convolutions = [cost for cost in costs if cost.kind == "Conv2d"]
    assert sum(cost.flops for cost in convolutions) == step_flops(lambda: net(images))
    assert [cost.name for cost in costs[:3]] == ["normalize", "down.0.0", "down.0.1"]
    assert costs[-1].name == "classify"


def test_a_step_is_three_forward_passes_but_for_the_gradient_of_the_picture():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    x = torch.rand(1, 3, 2, 2)
    first, second = 2 * 4 * 12, 2 * 4 * 8
    assert step_flops(lambda: net(x).sum().backward()) == 3 * (first + second) - first


def test_callbacks_stand_around_each_layer_and_are_gone_afterwards():
    net, seen = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), []
    with each_layer(net, lambda name, *_: seen.append(name), lambda: seen.append("before")):
        net(torch.rand(1, 1, 2, 2))
    net(torch.rand(1, 1, 2, 2))
    assert seen == ["before", "0", "before", "1"]

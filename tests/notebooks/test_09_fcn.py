"""Chapter 09's functions against the package."""

import pytest
import torch
from taught import taught
from torch import nn

from segedu.models import fcn
from segedu.models.layers import bilinear_upsampling
from segedu.models.trunk import Trunk


@pytest.fixture(scope="module")
def chapter():
    return taught("09_fcn")


@pytest.mark.parametrize("finest", [32, 16, 8, 4])
def test_the_chapters_readers_are_the_packages_fcn(chapter, finest):
    trunk = chapter.Trunk((4, 5, 6, 7, 8)).eval()
    reader = chapter.Reader(3, trunk.channels, finest)
    for weight in reader.parameters():
        nn.init.normal_(weight)
    package = fcn.FCN(3, trunk, finest=finest).eval()
    package.load_state_dict({**package.state_dict(), **reader.state_dict()}, strict=True)
    image = torch.rand(2, 3, 64, 96)
    assert torch.allclose(reader(trunk(image)), package(image), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_chapters_enlargement_is_the_packages(chapter, factor):
    ours, package = chapter.bilinear_upsampling(3, factor), bilinear_upsampling(3, factor)
    assert ours.weight.equal(package.weight)
    x = torch.rand(1, 3, 4, 5)
    assert ours(x).equal(package(x))


def test_the_chapters_convolution_of_a_layer_is_the_packages(chapter):
    layer = nn.Linear(7 * 4 * 4, 5)
    ours, package = chapter.as_convolution(layer, 7), fcn.as_convolution(layer, 7)
    assert ours.weight.equal(package.weight)
    assert ours.bias.equal(package.bias)


def test_the_counted_multiplications_are_those_of_the_layers(chapter):
    from segedu.models.describe import multiplications

    layers = [nn.Conv2d(a, 16, 3, stride=2, padding=1) for a in (3, 16, 16, 16, 16)]
    net = nn.Sequential(*layers, nn.Conv2d(16, 10, 2))
    assert chapter.multiplications(256) == multiplications(net.to("meta"))


def test_the_chapters_trunk_is_the_packages(chapter):
    ours, package = chapter.Trunk((4, 5, 6)).eval(), Trunk((4, 5, 6)).eval()
    package.load_state_dict(ours.state_dict(), strict=True)
    image = torch.rand(2, 3, 33, 50)
    features, expected = package(image), ours(image)
    assert package.channels == ours.channels == {2: 4, 4: 5, 8: 6}
    assert all(features[stride].equal(expected[stride]) for stride in (2, 4, 8))

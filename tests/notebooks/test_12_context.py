"""Chapter 12's functions against the package."""

import pytest
import torch
from taught import taught
from torchvision.models.segmentation import deeplabv3 as torchvisions

from segedu.models import deeplab, pspnet
from segedu.models.arithmetic import Layer, pixels_seen, receptive_field
from segedu.widgets.context import touched


@pytest.fixture(scope="module")
def chapter():
    torch.manual_seed(0)
    return taught("12_context", also=["TINTS", "image_size", "HEADS"])


@pytest.mark.parametrize("size", [(1, 1), (6, 6), (13, 9), (5, 40)])
def test_the_chapters_means_of_parts_are_torchs(chapter, size):
    x = torch.rand(2, 3, *size)
    for n in (1, 2, 3, 6):
        theirs = torch.nn.functional.adaptive_avg_pool2d(x, n)
        assert torch.allclose(chapter.means_of_parts(x, n), theirs, atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_chapters_pyramid_is_the_packages(chapter, mode):
    theirs, ours = pspnet.PyramidPooling(32), chapter.PyramidPooling(32)
    chapter.carry(theirs, ours)
    x = torch.rand(3, 32, 13, 9)
    getattr(theirs, mode)(), getattr(ours, mode)()
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize(
    "library",
    [
        lambda: torchvisions.ASPP(8, [2, 12, 30]),
        lambda: deeplab.ASPP(8, [2, 12, 30], conv=deeplab.dilated),
    ],
    ids=["torchvision", "segedu"],
)
def test_the_chapters_aspp_is_the_libraries(chapter, library):
    theirs, ours = library().eval(), chapter.ASPP(8, (2, 12, 30)).eval()
    chapter.carry(theirs, ours)
    x = torch.rand(2, 8, 15, 22)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("rates", [(1,), (2, 2, 2), (1, 2, 5), (3, 1, 4)])
def test_the_chapters_paths_are_those_of_the_figure_and_of_the_package(chapter, rates):
    row = chapter.paths(rates)
    assert torch.equal(torch.outer(row, row), touched(rates))
    layers = [Layer(3, dilation=rate) for rate in rates]
    assert len(row) == receptive_field(layers).width
    assert torch.equal(row > 0, pixels_seen(len(row), layers)[0])


def test_useful_taps_are_those_that_lie_on_the_map(chapter):
    for size, rate in ((4, 2), (5, 1), (7, 6), (3, 9)):
        taps = chapter.useful_taps(size, rate)
        for row in range(size):
            for column in range(size):
                on_map = sum(
                    0 <= row + i * rate < size and 0 <= column + j * rate < size
                    for i in (-1, 0, 1)
                    for j in (-1, 0, 1)
                )
                assert taps[row, column] == on_map
        assert taps.mean() == pytest.approx(chapter.useful_by_formula(size, rate))


def test_a_pair_differs_outside_the_objects_alone(chapter):
    pictures, truths = chapter.pairs(3, seed=5)
    assert pictures.shape == (6, 3, 64, 64)
    same = (pictures[::2] == pictures[1::2]).all(dim=1)
    road, water = truths[::2], truths[1::2]
    assert same[road == 1].all()
    assert torch.equal(road == 1, water == 2)
    assert torch.equal(road == 0, water == 0)
    assert same[road == 0].double().mean() < 0.01
    assert set(torch.unique(truths).tolist()) == {0, 1, 2, 255}


def test_the_heads_have_as_many_weights_as_each_other(chapter):
    sizes = [
        sum(weight.numel() for weight in torch.nn.Sequential(*head(3)).parameters())
        for head in chapter.HEADS.values()
    ]
    assert max(sizes) <= 1.02 * min(sizes)

"""Chapter 10's functions against the package, segmentation-models-pytorch and naive counts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from taught import taught

from segedu.models.unet import UNet


@pytest.fixture(scope="module")
def chapter():
    return taught("10_unet", also=("halve",))


def varied(module):
    """`module` in evaluation mode, with statistics and scales that a mistake cannot hide behind."""
    for value in module.state_dict().values():
        if value.ndim == 1:  # of a normalisation, or a bias
            value.uniform_(0.5, 1.5)
    return module.eval()


@pytest.mark.parametrize("size", [(16, 24), (17, 31), (5, 40)])
def test_the_chapters_unet_and_the_packages_give_the_same_logits(chapter, size):
    ours, package = chapter.UNet(5, (4, 6, 9)), UNet(5, widths=(4, 6, 9))
    package.load_state_dict(varied(ours).state_dict(), strict=True)
    image = torch.rand(2, 3, *size)
    assert torch.allclose(ours(image), package.eval()(image), atol=1e-5)


def test_without_skips_only_the_coarsest_map_arrives(chapter):
    net = varied(chapter.WithoutSkips(3, (4, 6, 9)))
    image = torch.rand(1, 3, 16, 16)
    levels = chapter.way_down(net.down, net.normalize(image))
    silent = [torch.zeros_like(levels[0]), torch.zeros_like(levels[1]), levels[2]]
    assert net(image).equal(net.classify(chapter.way_up(net.up, silent)))


def test_a_step_up_is_the_decoder_block_of_segmentation_models_pytorch(chapter):
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.unet.decoder")
    below, beside, out = 6, 4, 4
    ours = varied(chapter.double_conv(beside + below, out))
    theirs = decoder.UnetDecoderBlock(below, beside, out).eval()
    values = list(ours.state_dict().values())
    values[0] = values[0][:, [*range(beside, beside + below), *range(beside)]]  # below comes first
    assert len(values) == len(theirs.state_dict())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    coarse, skip = torch.randn(2, below, 5, 7), torch.randn(2, beside, 10, 14)
    up = chapter.way_up([ours], [skip, coarse])
    assert torch.allclose(up, theirs(coarse, 10, 14, skip), atol=1e-5)


@pytest.mark.parametrize("widths", [(4, 8), (16, 32, 64, 128), (3, 5, 7, 9, 11)])
def test_the_weights_are_as_many_as_the_formula_says(chapter, widths):
    found = sum(p.numel() for p in UNet(7, widths=widths).parameters())
    assert chapter.unet_weights(7, widths) == found


@pytest.mark.parametrize(("size", "levels"), [(20, 2), (44, 3), (52, 3)])
def test_the_output_of_the_unpadded_unet_is_as_large_as_a_run_says(chapter, size, levels):
    def two_convolutions(x):
        return F.avg_pool2d(F.avg_pool2d(x, 3, stride=1), 3, stride=1)

    x = two_convolutions(torch.zeros(1, 1, size, size))
    for _ in range(levels - 1):
        x = two_convolutions(F.max_pool2d(x, 2))
    for _ in range(levels - 1):
        x = two_convolutions(F.interpolate(x, scale_factor=2))
    assert chapter.unpadded_size(size, levels) == x.shape[2]


def test_an_odd_map_is_refused_by_the_unpadded_unet(chapter):
    with pytest.raises(ValueError, match="do not divide"):
        chapter.unpadded_size(21, 2)


def test_the_gap_weight_is_what_a_naive_count_of_distances_gives(chapter):
    cells = np.zeros((3, 9, 11), dtype=bool)
    cells[0, :4, :4] = cells[1, 5:, 2:6] = cells[2, 2:7, 8:] = True
    want = np.zeros((9, 11))
    for row, column in np.argwhere(~cells.any(axis=0)):
        away = sorted(np.hypot(*(np.argwhere(cell) - (row, column)).T).min() for cell in cells)
        want[row, column] = 10 * np.exp(-((away[0] + away[1]) ** 2) / 50)
    assert np.allclose(chapter.gap_weight(cells), want)


def test_one_cell_alone_has_no_gap(chapter):
    assert not chapter.gap_weight(np.ones((1, 4, 4), dtype=bool)).any()


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_the_receptive_field_formula_is_the_mean_of_what_is_counted(chapter, levels):
    cell = 2 ** (levels - 1)
    block = [("conv", 3), ("conv", 3)]
    layers = block + (levels - 1) * [("pool", 2), *block] + (levels - 1) * [("up", 2), *block]
    size = 32 * cell
    counted = chapter.columns_seen(size, levels)[size // 2 : size // 2 + cell].sum(axis=1)
    assert counted.mean() == chapter.receptive_field(layers)

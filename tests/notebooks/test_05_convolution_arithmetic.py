"""Chapter 05's own convolutions, fields and kernels are torch's and the package's."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from taught import taught
from torch import nn

from segedu.models.arithmetic import Layer, output_length, pixels_seen, receptive_field
from segedu.models.fcn import as_convolution
from segedu.models.layers import bilinear_upsampling

SETTINGS = list(product((1, 2, 3), (0, 1, 2), (1, 2)))  # stride, padding, dilation


@pytest.fixture(scope="module")
def chapter():
    return taught("05_convolution_arithmetic")


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_chapters_convolution_its_matrix_and_its_gradients_are_torchs(chapter, random, setting):
    x = torch.randn(2, 7, 9, generator=random, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 2, 3, 3, generator=random, dtype=torch.float64, requires_grad=True)
    theirs = F.conv2d(x[None], w, None, *setting)[0]
    ours = chapter.convolve(x, w, *setting)
    torch.testing.assert_close(ours, theirs)
    g = torch.randn(theirs.shape, generator=random, dtype=torch.float64)
    in_x, in_w = torch.autograd.grad(theirs, (x, w), g)
    torch.testing.assert_close(chapter.stamp(g, w, (7, 9), *setting), in_x)
    torch.testing.assert_close(chapter.kernel_gradient(g, x, w, *setting), in_w)
    matrix = chapter.convolution_matrix(w[0, 0].detach(), 7, 9, *setting)
    alone = F.conv2d(x[None, :1], w[:1, :1], None, *setting)
    torch.testing.assert_close(matrix @ x[0].flatten(), alone.flatten())


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_chapters_sizes_and_fields_are_the_packages(chapter, setting):
    stride, padding, dilation = setting
    layer = Layer(3, stride, padding, dilation)
    assert chapter.places(11, 3, *setting) == output_length(11, layer)
    chain = [(3, stride, dilation), (2, 2, 1), (3, 1, dilation)]
    layers = [Layer(k, s, dilation=d) for k, s, d in chain]
    field = receptive_field(layers)
    assert chapter.field_by_formula(chain) == (field.width, field.jump)
    length = field.width + 2 * field.jump
    seen = chapter.paths(chain, length) > 0
    assert seen.tolist() == pixels_seen(length, layers).tolist()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_chapters_tent_is_the_kernel_that_fcn_begins_with(chapter, factor):
    weight = bilinear_upsampling(channels=2, factor=factor).weight[1, 0]
    torch.testing.assert_close(chapter.bilinear_kernel(factor).float(), weight.detach())


@pytest.mark.parametrize(("factor", "corners"), list(product((1, 2, 3, 5), (False, True))))
def test_the_chapters_enlargement_is_torchs(chapter, random, factor, corners):
    row = torch.randn(6, generator=random, dtype=torch.float64)
    theirs = F.interpolate(
        row[None, None], scale_factor=factor, mode="linear", align_corners=corners
    )
    torch.testing.assert_close(chapter.enlarge_row(row, factor, corners=corners), theirs[0, 0])


def test_the_chapters_step_from_fully_connected_to_convolution_is_the_packages():
    head = nn.Linear(4 * 4 * 4, 10)
    conv = as_convolution(head, channels=4)
    assert conv.weight.equal(head.weight.view(10, 4, 4, 4))
    assert conv.bias.equal(head.bias)

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segedu.errors import InputError
from segedu.models.arithmetic import (
    Field,
    Layer,
    output_length,
    pixels_seen,
    receptive_field,
    taps,
)

layers = st.builds(
    Layer,
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
chains = st.lists(layers, max_size=3)


def convolved(row, layer):
    """A row through a convolution whose weights are all 1."""
    weight = torch.ones(1, 1, layer.kernel, dtype=row.dtype)
    return F.conv1d(
        row[None, None],
        weight,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
    )[0, 0]


def fits(length, chain):
    for layer in chain:
        if length + 2 * layer.padding < layer.span:
            return False
        length = output_length(length, layer)
    return True


@given(st.integers(1, 20), layers)
def test_an_output_is_as_long_as_torchs(length, layer):
    if length + 2 * layer.padding < layer.span:
        with pytest.raises(InputError, match=f"the kernel spans {layer.span} pixels"):
            output_length(length, layer)
    else:
        assert output_length(length, layer) == len(convolved(torch.zeros(length), layer))


@given(st.integers(1, 16), chains)
def test_a_pixel_is_seen_where_torch_has_a_gradient(length, chain):
    if not fits(length, chain):
        return
    row = torch.ones(length, dtype=torch.float64, requires_grad=True)
    output = row
    for layer in chain:
        output = convolved(output, layer)
    seen = pixels_seen(length, chain)
    assert len(seen) == len(output)
    for n, value in enumerate(output):
        [slope] = torch.autograd.grad(value, row, retain_graph=True, allow_unused=True)
        assert seen[n].tolist() == (slope != 0).tolist()


@given(st.lists(layers, max_size=3))
def test_the_formula_gives_the_first_and_the_last_pixel_seen_far_from_the_border(chain):
    field = receptive_field(chain)
    inner = 1 + max(0, -field.start) // field.jump  # an output whose field lies inside
    first = field.start + inner * field.jump
    length = first + field.width + sum(layer.padding for layer in chain) * field.jump + 1
    places = pixels_seen(length, chain)[inner].nonzero()[:, 0]
    assert places[0] == first
    assert places[-1] == first + field.width - 1


def test_vgg_16_sees_212_pixels_after_its_last_pooling_and_404_after_its_7x7():
    """The numbers by hand: 2 + 2 + 3 + 3 + 3 convolutions, a pooling after each group."""
    vgg = [
        layer
        for group in (2, 2, 3, 3, 3)
        for layer in [*[Layer(3, padding=1)] * group, Layer(2, stride=2)]
    ]
    assert receptive_field(vgg).width == 212
    assert receptive_field(vgg).jump == 32
    assert receptive_field([*vgg, Layer(7)]).width == 404
    assert output_length(224, Layer(3, padding=1)) == 224


def test_no_layer_sees_the_pixel_itself():
    assert receptive_field([]) == Field(width=1, jump=1, start=0)
    assert pixels_seen(3, []).tolist() == torch.eye(3).bool().tolist()


def test_dilations_of_2_2_2_leave_6_of_13_pixels_out_and_1_2_4_none():
    holes = pixels_seen(13, [Layer(3, dilation=2)] * 3)
    assert holes[0].nonzero()[:, 0].tolist() == [0, 2, 4, 6, 8, 10, 12]
    whole = pixels_seen(15, [Layer(3, dilation=d) for d in (1, 2, 4)])
    assert whole.tolist() == [[True] * 15]


def test_padding_is_no_pixel():
    assert taps(2, Layer(3, padding=1)).tolist() == [[True, True], [True, True]]
    assert taps(3, Layer(3, padding=1))[0].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("kernel", 0, 1), ("stride", 0, 1), ("padding", -1, 0), ("dilation", 0, 1)],
)
def test_a_layer_that_cannot_be_is_refused(name, value, least):
    with pytest.raises(InputError, match=f"{name} is {value}; expected {least} or more"):
        Layer(**{"kernel": 3, name: value})

"""RoIAlign and RoIPool are torchvision's, results and gradients, and do what is said by hand."""

import pytest
import torch
import torchvision.ops
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from segedu.errors import InputError
from segedu.models.mask_rcnn import roi_align as module
from segedu.models.mask_rcnn.roi_align import roi_align, roi_pool

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 3e-2}
quarters = st.integers(-60, 100).map(lambda n: n / 4)
sides = st.integers(0, 80).map(lambda n: n / 8)


@st.composite
def cases(draw):
    """Features with equal values among them, boxes inside and outside, and the other arguments."""
    seed, b, c, h, w = (
        draw(st.integers(*ends)) for ends in ((0, 99), *[(1, 3)] * 2, *[(1, 9)] * 2)
    )
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    x = torch.randn(b, c, h, w, generator=torch.Generator().manual_seed(seed)).to(dtype)
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x1, y1 = draw(quarters), draw(quarters)
        corners = [x1, y1, x1 + draw(sides), y1 + draw(sides)]
        boxes.append([draw(st.integers(0, b - 1)), *corners])
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    rois = torch.tensor(boxes, dtype=dtype).view(-1, 5)
    return x, rois, size, draw(st.sampled_from([1.0, 0.5, 0.25, 1 / 3]))


def gradient(result, x):
    """Of a weighted sum of the result that tells its entries apart."""
    weights = torch.linspace(-1, 1, result.numel()).to(result).view(result.shape)
    return torch.autograd.grad(result, x, weights)[0]


def assert_same(ours, peer, x):
    torch.testing.assert_close(ours, peer, rtol=0, atol=TOLERANCE[x.dtype])
    if ours.numel():
        tolerance = 10 * TOLERANCE[x.dtype]
        torch.testing.assert_close(gradient(ours, x), gradient(peer, x), rtol=0.01, atol=tolerance)


@given(cases(), st.sampled_from([-1, 0, 1, 2, 3]), st.booleans())
@settings(max_examples=80)
def test_align_and_its_gradient_are_torchvisions(case, ratio, aligned):
    x, rois, size, scale = case
    x.requires_grad_()
    peer = torchvision.ops.roi_align(x, rois, size, scale, ratio, aligned)
    assert_same(roi_align(x, rois, size, scale, ratio, aligned), peer, x)


@given(cases())
@settings(max_examples=60)
def test_pool_and_its_gradient_are_torchvisions_also_among_equal_values(case):
    x, rois, size, scale = case
    x = x.relu().mul(2).round().requires_grad_()
    ours = roi_pool(x, rois, size, scale)
    peer = torchvision.ops.roi_pool(x, rois, size, scale)
    assert_same(ours, peer, x)
    assert torch.equal(ours, peer)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("box", [(2.0, 2, 1, 1), (3.0, 1, 3, 1), (1.0, 1, 0.5, 0.25)])
def test_a_box_with_its_corners_exchanged_is_as_in_torchvision(box, align):
    x = torch.arange(64, dtype=torch.float64).view(1, 1, 8, 8)
    rois = torch.tensor([(0, *box)], dtype=torch.float64)
    peer = torchvision.ops.roi_align(x, rois, 2, 1.0, 2, align)
    torch.testing.assert_close(roi_align(x, rois, 2, 1.0, 2, align), peer)
    torch.testing.assert_close(roi_pool(x, rois, 2), torchvision.ops.roi_pool(x, rois, 2))


def test_a_box_without_samples_gives_zero():
    x = torch.ones(1, 2, 4, 4)
    rois = torch.tensor([[0.0, 1, 1, 1, 3], [0, 3, 3, 2, 1]])
    assert not roi_align(x, rois, 2, aligned=True).any()
    assert (roi_align(x, rois, 2) == 1).all()


def test_align_on_four_pixels_by_hand():
    x = torch.tensor([[[[0.0, 10], [20, 40]]]])
    whole = torch.tensor([[0.0, 0, 0, 2, 2]])
    assert roi_align(x, whole, 1, sampling_ratio=1, aligned=True).item() == 17.5
    assert roi_align(x, whole, 1, sampling_ratio=1).item() == 40
    quarter = torch.tensor([[0.0, 0.5, 0.5, 1, 1]])
    value = roi_align(x, quarter, 1, sampling_ratio=1, aligned=True).item()
    assert value == pytest.approx(0.1875 * 10 + 0.1875 * 20 + 0.0625 * 40)


def test_a_sample_counts_up_to_one_pixel_outside_and_not_beyond():
    x = torch.full((1, 1, 4, 4), 5.0)
    at = [-1.0, -1.001, 4.0, 4.001]
    rois = torch.tensor([[0, place - 0.5, 1, place + 0.5, 2] for place in at])
    assert roi_align(x, rois, 1, sampling_ratio=1).flatten().tolist() == [5, 0, 5, 0]


def test_pool_rounds_halves_away_from_zero():
    x = torch.arange(8.0).view(1, 1, 1, 8)
    rois = torch.tensor([[0.0, 0, 0, 2.5, 0], [0, 0, 0, 0.49999997, 0]])
    assert roi_pool(x, rois, 1).flatten().tolist() == [3, 0]


def test_a_linear_map_is_sampled_exactly_at_the_middle_of_each_bin():
    rows, columns = torch.meshgrid(
        torch.arange(12.0) + 0.5, torch.arange(12.0) + 0.5, indexing="ij"
    )
    x = torch.stack([rows, columns])[None]
    rois = torch.tensor([[0, 1.3, 2.1, 9.7, 8.8]])
    got = roi_align(x, rois, (3, 4), sampling_ratio=2, aligned=True)[0]
    down = 2.1 + 6.7 * (torch.arange(3) + 0.5) / 3
    across = 1.3 + 8.4 * (torch.arange(4) + 0.5) / 4
    torch.testing.assert_close(got[0], down[:, None].expand(3, 4))
    torch.testing.assert_close(got[1], across.expand(3, 4))


@pytest.mark.parametrize("ratio", [-1, 2])
def test_the_gradient_passes_gradcheck(ratio, random):
    x = torch.randn(2, 2, 5, 4, generator=random, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.3, 0.2, 3.7, 4.6], [1, -2, 1.1, 2.2, 7]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, 2, 1.0, ratio, aligned=True), x)
    assert torch.autograd.gradcheck(lambda x: roi_pool(x, rois, 2), x)


def test_the_gradient_is_the_transpose_of_the_operator(random):
    x, rois = torch.randn(1, 3, 6, 6, generator=random).double(), torch.tensor([[0.0, 1, 1, 5, 4]])
    x.requires_grad_()
    y = roi_align(x, rois, 3, 1.0, 2)
    g = torch.randn(y.shape, generator=random).double()
    assert (g * y).sum().item() == pytest.approx((torch.autograd.grad(y, x, g)[0] * x).sum().item())


def test_boxes_as_a_list_are_those_with_an_index(random):
    x = torch.randn(3, 2, 6, 6, generator=random)
    boxes = [torch.tensor([[0.0, 1, 4, 5]]), torch.zeros(0, 4), torch.tensor([[1.0, 1, 3, 3]] * 2)]
    rois = torch.cat([torch.tensor([[0.0], [2], [2]]), torch.cat(boxes)], dim=1)
    tv = [tv_tensors.BoundingBoxes(b, format="XYXY", canvas_size=(6, 6)) for b in boxes]
    for operator in (roi_align, roi_pool):
        assert torch.equal(operator(x, boxes, 2), operator(x, rois, 2))
        assert type(operator(x, tv, 2)) is torch.Tensor
        assert torch.equal(operator(x, tv, 2), operator(x, rois, 2))


def test_the_result_does_not_hang_on_how_much_is_done_at_once(random, monkeypatch):
    x = torch.randn(2, 3, 9, 9, generator=random, requires_grad=True)
    rois = torch.tensor([[i % 2, 0.5 * i, 1, 4 + i / 2, 2 + i] for i in range(9)])
    whole = roi_align(x, rois, 3), roi_pool(x, rois, 3)
    monkeypatch.setattr(module, "_AT_ONCE", 500)
    parts = roi_align(x, rois, 3), roi_pool(x, rois, 3)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(gradient(one, x), gradient(other, x))


def test_what_is_done_at_once_is_bounded_by_the_constant(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 400)
    looked_up = []
    sums = module._weighted_sums
    monkeypatch.setattr(
        module, "_weighted_sums", lambda *a: looked_up.append(len(a[1])) or sums(*a)
    )
    rois = torch.tensor([[0.0, 0, 0, 8, 8]] * 20)
    roi_align(torch.randn(1, 1, 8, 8), rois, 2, sampling_ratio=2)  # 64 pixels a box
    assert sum(looked_up) == 20 * 64
    assert max(looked_up) <= 400 + 64


def test_boxes_get_no_gradient_and_features_of_no_box_one_of_zero():
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 2, 2]], requires_grad=True)
    roi_align(x, rois, 2).sum().backward()
    assert rois.grad is None
    assert not roi_align(x.detach(), rois, 2).requires_grad
    assert x.grad[..., 3, 3].item() == 0


@pytest.mark.parametrize("operator", [roi_align, roi_pool])
@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (torch.zeros(2, 4), r"shape \(2, 4\)"),
        ([torch.zeros(2, 5)], r"\(2, 5\)"),
        ([torch.zeros(2, 4)] * 2, "each of 1 images"),
        (torch.tensor([[1.0, 0, 0, 1, 1]]), "there are 1"),
        (torch.tensor([[-1.0, 0, 0, 1, 1]]), "images -1"),
    ],
)
def test_boxes_that_cannot_be_used_are_refused(operator, boxes, said):
    with pytest.raises(InputError, match=said):
        operator(torch.zeros(1, 1, 3, 3), boxes, 2)

"""The fully connected CRF against sums over all pairs of pixels, written out."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from segedu.errors import InputError
from segedu.models.crf import DenseCRF, Kernels

EVERYWHERE = 100.0  # a reach that no small picture exceeds


def picture(height, width, *, labels=3, pictures=1, seed=0):
    """Logits and an image, in float64."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(pictures, labels, height, width, generator=generator, dtype=torch.float64)
    image = torch.rand(pictures, 3, height, width, generator=generator, dtype=torch.float64)
    return z, image


def crf(steps=5, **settings):
    return DenseCRF(Kernels(**settings), steps=steps).double()


def pair_matrices(image, kernels):
    """Both normalised kernels (N, N) of one image, pair by pair in plain Python."""
    _, height, width = image.shape
    places = list(itertools.product(range(height), range(width)))
    smooth, appearance = np.zeros((2, len(places), len(places)))
    for i, (r, c) in enumerate(places):
        for j, (s, d) in enumerate(places):
            far = (r - s) ** 2 + (c - d) ** 2
            unlike = sum((image[k, r, c].item() - image[k, s, d].item()) ** 2 for k in range(3))
            smooth[i, j] = math.exp(-far / (2 * kernels.smooth_width**2))
            appearance[i, j] = math.exp(
                -far / (2 * kernels.place_width**2) - unlike / (2 * kernels.colour_width**2)
            )
    return [
        matrix / np.sqrt(np.outer(matrix.sum(1), matrix.sum(1))) for matrix in (smooth, appearance)
    ]


def by_all_pairs(z, image, kernels, steps):
    """The logits (C, H, W) after the steps, from the matrices of all pairs."""
    smooth, appearance = pair_matrices(image, kernels)
    pairs = kernels.smooth_weight * smooth + kernels.appearance_weight * appearance
    np.fill_diagonal(pairs, 0)
    unary = z.flatten(1).numpy()
    refined = unary
    for _ in range(steps):
        q = np.exp(refined - refined.max(0))
        q /= q.sum(0)
        # Potts: a label costs what the neighbours hold for every other label.
        cost = (np.ones((len(q), len(q))) - np.eye(len(q))) @ (q @ pairs)
        refined = unary - cost
    return torch.tensor(refined).view_as(z)


def up_to_a_constant(z):
    """Logits as their softmax sees them."""
    return z.log_softmax(-3)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (3, 4), (1, 9), (8, 1), (5, 11)])
def test_on_small_pictures_it_is_the_sum_over_all_pairs_to_rounding(height, width):
    z, image = picture(height, width)
    settings = {"smooth_weight": 0.75, "appearance_weight": 2.5, "place_width": 2.0}
    settings |= {"colour_width": 0.3, "smooth_width": 1.2, "reach": EVERYWHERE}
    ours = crf(10, **settings)(z, image)[0]
    expected = by_all_pairs(z[0], image[0], Kernels(**settings), 10)
    torch.testing.assert_close(
        up_to_a_constant(ours), up_to_a_constant(expected), rtol=1e-12, atol=1e-12
    )


def test_two_pixels_alike_by_hand():
    z = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]], dtype=torch.float64)
    image = torch.full((1, 3, 1, 2), 0.5, dtype=torch.float64)
    near = math.exp(-1 / (2 * 2.0**2))  # a step of one pixel, width 2
    message = near / (1 + near)  # each receives 1 from itself and `near` from the other
    first = math.e / (1 + math.e)
    refined = crf(1, smooth_weight=0, appearance_weight=4, place_width=2)(z, image)
    assert refined[0, :, 0, 0].tolist() == pytest.approx([1 + 4 * message / 2, 4 * message / 2])
    assert refined[0, :, 0, 1].tolist() == pytest.approx(
        [4 * message * first, 4 * message * (1 - first)]
    )
    both = crf(1, smooth_weight=4, appearance_weight=0, smooth_width=2)(z, image)
    torch.testing.assert_close(both, refined)


def test_a_pixel_alone_keeps_its_logits_whatever_the_weights():
    z, image = picture(1, 1)
    assert crf(5, smooth_weight=9, appearance_weight=9)(z, image).equal(z)


def test_without_a_step_or_without_weights_the_logits_come_back():
    z, image = picture(4, 5)
    assert crf(0)(z, image).equal(z)
    assert crf(3, smooth_weight=0, appearance_weight=0)(z, image).equal(z)


def test_a_colour_that_nobody_shares_is_told_nothing_by_the_appearance_kernel():
    z, image = picture(5, 5)
    image = image * 0.1
    image[..., 2, 2] = 1
    refined = crf(1, smooth_weight=0, appearance_weight=50, colour_width=0.05)(z, image)
    torch.testing.assert_close(refined[..., 2, 2], z[..., 2, 2], rtol=0, atol=1e-12)
    assert (refined - z).abs()[..., 2, 1].max() > 0.1


def test_beyond_the_window_nobody_is_heard_and_at_its_rim_somebody_is():
    z, image = picture(1, 12)
    image = torch.full_like(image, 0.5)
    shouting = z.clone()
    shouting[0, 0, 0, 0] += 5
    settings = {"smooth_weight": 0, "appearance_weight": 1, "place_width": 2, "reach": 1.7}
    once = crf(1, **settings)  # 3.4 pixels, rounded up to 4
    changed = (once(shouting, image) - once(z, image)).abs().amax(1)[0, 0] > 1e-9
    assert changed.tolist() == [True] * 5 + [False] * 7


def test_the_smoothness_kernel_has_no_window():
    z, image = picture(1, 12)
    shouting = z.clone()
    shouting[0, 0, 0, 0] += 5
    once = crf(1, appearance_weight=0, smooth_weight=1, smooth_width=3, reach=0.1)
    assert ((once(shouting, image) - once(z, image)).abs().amax(1) > 0)[0, 0].all()


def test_a_wider_window_comes_closer_to_all_pairs():
    z, image = picture(20, 20)
    exact = crf(5, place_width=2, reach=EVERYWHERE)(z, image).softmax(1)
    errors = [
        (crf(5, place_width=2, reach=reach)(z, image).softmax(1) - exact).abs().max().item()
        for reach in (1, 2, 3, 4)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.01 < errors[0]
    assert errors[3] < 1e-3


def test_neighbours_who_agree_win_over_a_single_doubter():
    z = torch.zeros(1, 2, 7, 7)
    z[:, 1] = 2
    z[0, :, 3, 3] = torch.tensor([1.0, 0.0])
    image = torch.full((1, 3, 7, 7), 0.4)
    assert z.argmax(1)[0, 3, 3] == 0
    assert DenseCRF()(z, image).argmax(1).bool().all()


def test_a_coarse_blob_takes_on_the_outline_of_the_colours():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 4:12, 4:12] = 0.8
    truth = (image[0, 0] > 0).long()
    blob = torch.zeros(1, 2, 16, 16)
    blob[0, 1] = -1.5
    blob[0, 1, 6:13, 3:11] = 1.5  # moved, and too small
    assert (blob.argmax(1)[0] != truth).sum() > 20
    refined = DenseCRF(Kernels(appearance_weight=8.0))(blob, image)
    assert refined.argmax(1)[0].equal(truth)


@given(st.sampled_from(["rows", "columns", "transposed", "labels"]), st.integers(0, 20))
def test_mirrored_turned_or_renamed_pictures_give_the_same_mirrored_turned_or_renamed(how, seed):
    z, image = picture(5, 5, labels=4, seed=seed)
    change, change_image = {
        "rows": (lambda x: x.flip(-2),) * 2,
        "columns": (lambda x: x.flip(-1),) * 2,
        "transposed": (lambda x: x.mT,) * 2,
        "labels": (lambda x: x[:, [2, 0, 3, 1]], lambda x: x),
    }[how]
    net = crf(3, place_width=1, reach=2)
    torch.testing.assert_close(net(change(z), change_image(image)), change(net(z, image)))


def test_pictures_of_a_batch_know_nothing_of_each_other():
    z, image = picture(5, 6, pictures=3)
    together = crf()(z, image)
    for n in range(3):
        torch.testing.assert_close(together[n : n + 1], crf()(z[n : n + 1], image[n : n + 1]))
    assert crf()(z[:0], image[:0]).shape == (0, 3, 5, 6)


def test_the_gradient_through_the_steps_is_right_in_the_logits_and_both_weights():
    z, image = picture(2, 3, labels=2)
    net = crf(2, place_width=2)
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    assert set(weights) == {"smooth_weight", "appearance_weight"}

    def refined(z, *values):
        named = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(net, named, (z, image))

    inputs = [x.requires_grad_() for x in (z, *weights.values())]
    assert torch.autograd.gradcheck(refined, inputs)
    assert torch.autograd.gradgradcheck(refined, inputs)


def test_a_few_steps_of_descent_on_the_weights_lower_the_loss():
    image = torch.zeros(1, 3, 12, 12)
    image[..., 3:9, 3:9] = 0.8
    truth = (image[:, 0] > 0).long()
    noisy = torch.stack([-(2.0 * truth - 1), 2.0 * truth - 1], dim=1) / 2
    noisy = noisy + torch.randn(noisy.shape)
    net = DenseCRF(Kernels(appearance_weight=0.5, smooth_weight=0.5), steps=3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(net(noisy, image), truth)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert net.appearance_weight > 0.6


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("smooth_width", 0, "smooth_width is 0; expected a number above 0"),
        ("place_width", -1, "place_width is -1"),
        ("reach", 0, "reach is 0"),
        ("colour_width", math.nan, "colour_width is nan"),
        ("colour_width", 13, r"colour_width is 13; expected at most 1, .* divide .* by 255"),
    ],
)
def test_widths_that_cannot_be_meant_are_refused(setting, value, said):
    with pytest.raises(InputError, match=said):
        Kernels(**{setting: value})


def test_a_colour_width_of_1_and_no_steps_are_taken_and_a_negative_number_is_not():
    assert Kernels(colour_width=1).colour_width == 1
    with pytest.raises(InputError, match="steps is -1; expected 0 or more"):
        DenseCRF(steps=-1)


def test_an_image_in_0_to_255_or_of_another_size_is_refused():
    z, image = picture(4, 5)
    with pytest.raises(InputError, match=r"the image has values .*; expected \[0, 1\]"):
        crf()(z, image * 255)
    with pytest.raises(InputError, match=r"the image has values -"):
        crf()(z, image - 0.5)
    cases = [(z, image[..., 1:]), (z, image[..., 1:, :]), (z, image.expand(2, -1, -1, -1))]
    for one, other in [*cases, (z.expand(2, -1, -1, -1), image)]:
        with pytest.raises(InputError, match="expected as many pictures, of the same height"):
            crf()(one, other)

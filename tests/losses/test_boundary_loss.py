import math

import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from segedu.data.sample import IGNORE
from segedu.losses import boundary_loss, signed_distances


def square(size=9):
    target = torch.zeros(1, size, size, dtype=torch.int64)
    target[0, 3:6, 2:6] = 1
    return target


def sure(answer, classes=2):
    return 200.0 * F.one_hot(answer, classes).movedim(-1, 1).double() - 100


def naive_distances(mask, classes):
    """For every pixel, look at every other one."""
    height, width = mask.shape
    found = torch.zeros(classes, height, width)
    pixels = [(r, k) for r in range(height) for k in range(width) if mask[r, k] != IGNORE]
    for c in range(classes):
        inside = [place for place in pixels if mask[place] == c]
        outside = [place for place in pixels if mask[place] != c]
        if inside and outside:
            for place in inside:
                found[c][place] = 0.5 - min(math.dist(place, other) for other in outside)
            for place in outside:
                found[c][place] = min(math.dist(place, other) for other in inside) - 0.5
    return found


def test_distances_are_those_of_a_search_over_all_pairs(random):
    target = torch.randint(3, (2, 7, 5), generator=random)
    target[torch.rand(target.shape, generator=random) < 0.2] = IGNORE
    target[1][target[1] == 2] = 0
    for mask, distance in zip(target, signed_distances(target, 4), strict=True):
        torch.testing.assert_close(distance, naive_distances(mask, 4))


def test_beside_a_straight_outline_distances_go_in_whole_steps_from_one_half():
    target = torch.tensor([[[0, 0, 0, 1, 1]]])
    ground, thing = signed_distances(target, 2)[0, :, 0]
    assert thing.tolist() == [2.5, 1.5, 0.5, -0.5, -1.5]
    assert ground.tolist() == (-thing).tolist()


def test_a_void_ring_widens_the_way_to_the_other_side():
    target = torch.tensor([[[0, 0, IGNORE, 1, 1]]])
    assert signed_distances(target, 2)[0, 1, 0].tolist() == [2.5, 1.5, 0, -1.5, -2.5]


@pytest.mark.parametrize("label", [0, 1, IGNORE])
def test_a_picture_with_one_class_or_none_has_no_outline_and_no_loss(label, random):
    target = torch.full((1, 3, 3), label)
    logits = torch.randn(1, 2, 3, 3, generator=random, requires_grad=True)
    assert signed_distances(target, 2).eq(0).all()
    value = boundary_loss(logits, target)
    value.backward()
    assert value.item() == 0
    assert logits.grad.eq(0).all()


def test_a_stray_pixel_costs_more_the_farther_it_is_from_the_outline():
    target = square()
    near, far = target.clone(), target.clone()
    near[0, 4, 6] = 1
    far[0, 4, 8] = 1
    costs = [boundary_loss(sure(answer), target).item() for answer in (target, near, far)]
    # two classes, 81 pixels each: a wrong pixel pays its distance once for each class
    assert costs == pytest.approx([0, 2 * 0.5 / 162, 2 * 2.5 / 162], abs=1e-9)


def test_the_mean_is_over_labelled_pixels_of_pictures_with_an_outline():
    one = square()
    two = torch.cat([one, torch.zeros_like(one)])  # the second has ground only
    logits = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    alone = boundary_loss(logits, one)
    torch.testing.assert_close(boundary_loss(logits.expand(2, -1, -1, -1), two), alone)
    assert alone.item() == pytest.approx(0.5 * signed_distances(one, 2).abs().mean().item())


def test_an_absent_class_has_no_outline_and_is_left_out(random):
    logits = torch.randn(1, 2, 9, 9, generator=random, dtype=torch.float64)
    impossible = torch.full((1, 1, 9, 9), -1e4, dtype=torch.float64)
    three = torch.cat([logits, impossible], dim=1)
    torch.testing.assert_close(boundary_loss(three, square()), boundary_loss(logits, square()))


def test_the_gradient_in_the_logits_is_the_authors(random):
    """Their map is ours plus one half, which softmax, whose p sum to 1, cannot tell."""
    target = square()
    logits = torch.randn(1, 2, 9, 9, generator=random, dtype=torch.float64, requires_grad=True)
    [ours] = torch.autograd.grad(boundary_loss(logits, target), logits)
    masks = F.one_hot(target[0], 2).movedim(-1, 0).bool().numpy()
    edt = ndimage.distance_transform_edt
    theirs = torch.stack([torch.from_numpy(edt(~m) * ~m - (edt(m) - 1) * m) for m in masks])
    torch.testing.assert_close(theirs.float(), signed_distances(target, 2)[0] + 0.5)
    [expected] = torch.autograd.grad((logits.softmax(1)[0] * theirs).mean(), logits)
    torch.testing.assert_close(ours, expected)

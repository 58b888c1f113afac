"""Where segmentation-models-pytorch means the same; and where it does not, by how much."""

import pytest
import segmentation_models_pytorch.losses as smp
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits

from segedu import losses
from segedu.data.sample import IGNORE

OVERLAP = {
    "dice": (losses.dice_loss, smp.DiceLoss, {}),
    "jaccard": (losses.jaccard_loss, smp.JaccardLoss, {}),
    "tversky": (losses.tversky_loss, smp.TverskyLoss, {"alpha": 0.3, "beta": 0.7}),
}
every_overlap_loss = pytest.mark.parametrize("name", OVERLAP)


def batch(random, *, classes=5, void=0.1):
    logits = torch.randn(2, classes, 16, 16, generator=random, dtype=torch.float64)
    target = torch.randint(classes, (2, 16, 16), generator=random)
    target[torch.rand(target.shape, generator=random) < void] = IGNORE
    return logits.requires_grad_(), target


def assert_same(ours, theirs, logits):
    torch.testing.assert_close(ours, theirs)
    (mine,), (other,) = (torch.autograd.grad(value, logits) for value in (ours, theirs))
    torch.testing.assert_close(mine, other)


@every_overlap_loss
def test_an_overlap_loss_with_all_classes_present_is_smps(name, random):
    ours, theirs, options = OVERLAP[name]
    logits, target = batch(random)
    peer = theirs("multiclass", ignore_index=IGNORE, **options)
    assert_same(ours(logits, target), peer(logits, target), logits)


@every_overlap_loss
def test_smp_divides_by_all_classes_where_we_divide_by_those_present(name, random):
    ours, theirs, options = OVERLAP[name]
    logits, target = batch(random)
    target[target == 4] = 0
    peer = theirs("multiclass", ignore_index=IGNORE, **options)
    assert_same(ours(logits, target) * 4 / 5, peer(logits, target), logits)
    chosen = theirs("multiclass", classes=[0, 1, 2, 3], ignore_index=IGNORE, **options)
    assert_same(ours(logits, target), chosen(logits, target), logits)


def test_lovasz_loss_is_smps_with_absent_classes_and_void_too(random):
    logits, target = batch(random)
    target[target == 4] = 0
    single = logits.detach().float().requires_grad_()  # its prices are float32
    peer = smp.LovaszLoss("multiclass", ignore_index=IGNORE)
    assert_same(losses.lovasz_loss(single, target), peer(single, target), single)


def test_cross_entropy_is_smps_sum_over_the_labelled_pixels(random):
    logits, target = batch(random)
    peer = smp.SoftCrossEntropyLoss(smooth_factor=0, ignore_index=IGNORE, reduction="sum")
    labelled = (target != IGNORE).sum()
    ours = losses.cross_entropy_loss(logits, target)
    assert_same(ours, peer(logits, target) / labelled, logits)


def test_binary_cross_entropy_of_a_batch_without_void_is_smps(random):
    logits, target = batch(random, void=0.0)
    y = F.one_hot(target, 5).movedim(-1, 1).double()
    peer = smp.SoftBCEWithLogitsLoss()
    assert_same(losses.binary_cross_entropy_loss(logits, target), peer(logits, y), logits)


def test_smps_binary_cross_entropy_divides_by_void_pixels_too(random):
    logits, target = batch(random)
    labelled = target != IGNORE
    y = F.one_hot(target.where(labelled, 0), 5).movedim(-1, 1).double()
    y = y.where(labelled[:, None], IGNORE)
    peer = smp.SoftBCEWithLogitsLoss(ignore_index=IGNORE)
    ours = losses.binary_cross_entropy_loss(logits, target)
    assert_same(ours * labelled.double().mean(), peer(logits, y), logits)


def test_focal_loss_is_smps_softmax_focal_loss(random):
    logits, target = batch(random, void=0.0)
    theirs = softmax_focal_loss_with_logits(logits, target, gamma=2.0)
    assert_same(losses.focal_loss(logits, target), theirs, logits)


def test_focal_loss_of_two_classes_is_smps_binary_one_of_the_logits_difference(random):
    logits, target = batch(random, classes=2)
    peer = smp.FocalLoss("binary", gamma=2.0, ignore_index=IGNORE)
    theirs = peer(logits[:, 1] - logits[:, 0], target)
    assert_same(losses.focal_loss(logits, target), theirs, logits)


def test_smps_multiclass_focal_loss_is_another_loss_with_a_sigmoid_for_each_class(random):
    logits, target = batch(random, void=0.0)
    y = F.one_hot(target, 5).movedim(-1, 1).double()
    cost = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    theirs = smp.FocalLoss("multiclass", gamma=2.0)(logits, target)
    torch.testing.assert_close(theirs, ((1 - (-cost).exp()) ** 2 * cost).mean())
    assert (theirs - losses.focal_loss(logits, target)).abs() > 0.1

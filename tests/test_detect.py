from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segedu.checkpoints import load_checkpoint
from segedu.config import TrainConfig
from segedu.data.scenes import CLASSES, Scenes
from segedu.data.transforms import random_crop_of_objects
from segedu.detect import fit_objects, score_objects
from segedu.metrics.instances import InstanceAP
from segedu.models.mask_rcnn.model import maskrcnn_trunk
from segedu.runs import Run, begin

CONFIG = TrainConfig(epochs=2, batch_size=2, learning_rate=2e-3, device="cpu", amp=False)
TRAIN, VAL = Scenes(4, size=48, seed=1), Scenes(3, size=48, seed=2)
LOSSES = {
    "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"
}  # fmt: skip


def network():
    torch.manual_seed(0)
    return maskrcnn_trunk(len(CLASSES), operators="torchvision")


def run(model, *, epochs=None, **options):
    return list(islice(fit_objects(model, TRAIN, VAL, config=CONFIG, **options), epochs))


class Oracle(nn.Module):
    """Finds what is there, in the order of the pictures given to it."""

    def __init__(self, samples, wrong=0):
        super().__init__()
        self.samples = iter(samples)
        self.wrong = wrong

    def forward(self, images):
        assert not self.training
        found = []
        for image, sample in zip(images, self.samples, strict=False):
            assert image.equal(sample["image"].as_subclass(torch.Tensor))
            masks = sample["masks"].as_subclass(torch.Tensor).float()[:, None]
            masks = torch.where(masks > 0, 0.51, 0.49)
            labels = (sample["labels"] + self.wrong) % len(CLASSES)
            scores = torch.linspace(1, 0.5, len(labels))
            found.append({"masks": masks, "labels": labels, "scores": scores})
        return found


def test_each_epoch_tells_its_five_losses_and_the_average_precision():
    model = network()
    epochs = run(model)
    assert [set(epoch.losses) for epoch in epochs] == [LOSSES, LOSSES]
    for epoch in epochs:
        assert epoch.train_loss == pytest.approx(sum(epoch.losses.values()))
    assert epochs[1].val_score == score_objects(model, VAL, config=CONFIG).summary()["AP"]


def test_a_run_that_goes_on_ends_where_an_unbroken_one_does(tmp_path):
    crop = random_crop_of_objects(40, 40, scale=(0.8, 1.2), colour=0.2)
    whole, halves = network(), network()
    epochs = run(whole, augment=crop)
    run(halves, augment=crop, checkpoint=tmp_path / "run.pt", epochs=1)
    again = network()
    (last,) = run(again, augment=crop, checkpoint=tmp_path / "run.pt")
    assert last == epochs[1]
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert ours.equal(theirs)
    assert len(load_checkpoint(tmp_path / "run.pt")["history"]) == 2


def test_in_16_bits_objects_are_learnt_and_found_as_well(monkeypatch):
    monkeypatch.setattr("segedu.loop.is_quick_in_16_bits", lambda _device: True)
    config = replace(CONFIG, amp=True, epochs=1)
    model = network()
    (epoch,) = fit_objects(model, TRAIN, VAL, config=config)
    assert 1 < epoch.train_loss < 10
    image = VAL[0]["image"]
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] = 5
        (exact,) = model([image])
        with torch.autocast("cpu", torch.bfloat16):
            (found,) = model([image])
    assert len(exact["labels"]) > 0
    for name, value in found.items():
        assert value.dtype == exact[name].dtype
    assert torch.allclose(found["scores"][:3], exact["scores"][:3], atol=0.02)


@pytest.mark.parametrize(("wrong", "expected"), [(0, 1.0), (1, 0.0)])
def test_the_score_compares_masks_and_classes(wrong, expected):
    samples = [VAL[i] for i in range(3)]
    metric = score_objects(Oracle(samples, wrong), VAL, config=CONFIG)
    assert isinstance(metric, InstanceAP)
    assert metric.summary()["AP"] == pytest.approx(expected)


class WithCrowd(Dataset):
    """Two scenes in which a first object of the whole picture is a crowd."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        sample = TRAIN[index]
        whole = torch.ones(1, 48, 48, dtype=torch.bool)
        masks = torch.cat([whole, sample["masks"].as_subclass(torch.Tensor)])
        boxes = torch.cat([torch.tensor([[0.0, 0, 48, 48]]), sample["boxes"]])
        return {
            "image": sample["image"],
            "boxes": boxes,
            "labels": torch.cat([torch.ones(1).long(), sample["labels"]]),
            "masks": tv_tensors.Mask(masks),
            "crowd": torch.arange(len(masks)) == 0,
        }


def test_crowds_are_not_learnt_and_cost_no_score():
    seen = []

    class Listener(nn.Linear):
        def forward(self, _images, targets):
            seen.extend(targets)
            return {"loss": self.weight.sum()}

    run_of = fit_objects(Listener(1, 1), WithCrowd(), Scenes(0), config=CONFIG)
    next(run_of)
    counts = sorted(len(target["labels"]) for target in seen)
    assert counts == sorted(len(TRAIN[i]["labels"]) for i in (0, 1))

    samples = [TRAIN[0], TRAIN[1]]
    metric = score_objects(Oracle(samples), WithCrowd(), config=CONFIG)
    assert metric.summary()["AP"] == pytest.approx(1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_objects_are_learnt_on_a_gpu():
    config = TrainConfig(epochs=1, batch_size=2, device="cuda")
    (epoch,) = fit_objects(network(), TRAIN, VAL, config=config)
    assert epoch.train_loss > 0
    assert isinstance(begin(network(), 4, config), Run)

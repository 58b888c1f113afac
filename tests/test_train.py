import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Subset
from torchvision import tv_tensors

from segedu.checkpoints import load_checkpoint
from segedu.config import TrainConfig
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.data.transforms import random_crop
from segedu.errors import InputError
from segedu.loop import own_randomness, shuffled
from segedu.losses import cross_entropy_loss
from segedu.models.layers import Backbone
from segedu.models.unet import UNet
from segedu.runs import warmup_cosine
from segedu.train import evaluate, fit, range_test

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=4, batch_size=8, learning_rate=1e-2, device="cpu", amp=False)
TRAIN, VAL = Scenes(24, size=32, seed=1), Scenes(8, size=32, seed=2)
CROP = random_crop(24, 24, scale=(0.8, 1.2), colour=0.2)


def listed(samples):
    """Samples in a list as a data set."""
    return Subset(samples, range(len(samples)))


class WithDropout(torch.nn.Sequential):
    """A network that throws dice of its own."""

    def __init__(self):
        super().__init__(UNet(len(CLASSES), widths=(8, 16)), torch.nn.Dropout2d(0.2))


def run(config=CONFIG, *, epochs=None, checkpoint=None, model=None, **options):
    torch.manual_seed(0)
    model = model or WithDropout()
    steps = fit(
        model, TRAIN, VAL, num_classes=len(CLASSES), config=config, checkpoint=checkpoint, **options
    )
    return model, list(islice(steps, epochs))


def test_training_lowers_the_loss():
    _, epochs = run(model=UNet(len(CLASSES), widths=(8, 16)))
    assert epochs[-1].train_loss < 0.8 * epochs[0].train_loss


@pytest.mark.parametrize("augment", [None, CROP], ids=["plain", "augmented"])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, augment):
    whole, epochs = run(augment=augment)
    _, first = run(epochs=2, checkpoint=tmp_path / "run.pt", augment=augment)
    torch.rand(1000)  # other work in between
    resumed, rest = run(checkpoint=tmp_path / "run.pt", augment=augment)
    assert first + rest == epochs
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name


def test_a_run_killed_at_any_moment_ends_like_an_uninterrupted_one(tmp_path):
    """The process is killed for good after its first epoch, in the middle of whatever it does."""
    path = tmp_path / "run.pt"
    command = [sys.executable, __file__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= len(load_checkpoint(path)["history"]) < CONFIG.epochs
    resumed, _ = run(checkpoint=path)
    whole, _ = run()
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name
    assert [p.name for p in tmp_path.iterdir() if "unfinished" not in p.name] == ["run.pt"]


def test_training_leaves_the_global_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = WithDropout()
    torch.manual_seed(5)
    list(fit(model, TRAIN, VAL, num_classes=len(CLASSES), config=CONFIG, augment=CROP))
    assert torch.rand(1) == expected


def test_the_model_throws_other_dice_with_another_seed():
    rolls = []
    for seed in (1, 1, 2):
        with own_randomness(CPU, seed):
            rolls.append(torch.rand(1).item())
    assert rolls[0] == rolls[1] != rolls[2]


@pytest.mark.parametrize(
    ("change", "named"), [({"batch_size": 4}, "batch_size was 8, now 4"), ({"seed": 3}, "seed")]
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, named):
    run(epochs=1, checkpoint=tmp_path / "run.pt")
    settings = {**CONFIG.record(), **change, "device": "cpu"}
    with pytest.raises(InputError, match=named):
        run(TrainConfig(**settings), checkpoint=tmp_path / "run.pt")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(epochs=1, checkpoint=tmp_path / "run.pt")
    with pytest.raises(InputError, match=r"another model: .* has shape"):
        run(checkpoint=tmp_path / "run.pt", model=UNet(len(CLASSES), widths=(4, 8)))


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    first, epochs = run(checkpoint=tmp_path / "run.pt")
    again, none = run(checkpoint=tmp_path / "run.pt")
    assert (len(epochs), len(none)) == (4, 0)
    assert first[0].classify.weight.equal(again[0].classify.weight)


def test_the_weights_of_the_best_epoch_are_kept(tmp_path):
    config = TrainConfig(epochs=6, batch_size=8, learning_rate=3e-2, device="cpu", amp=False)
    model = UNet(len(CLASSES), widths=(8, 16))
    path = tmp_path / "run.pt"
    epochs = fit(model, TRAIN, VAL, num_classes=6, config=config, checkpoint=path)
    seen = [
        (epoch.val_score, {k: v.clone() for k, v in model.state_dict().items()}) for epoch in epochs
    ]
    best = max(seen, key=lambda pair: pair[0])[1]
    kept = load_checkpoint(path)["best"]
    assert all(value.equal(kept[name]) for name, value in best.items())
    worst = min(seen, key=lambda pair: pair[0])[1]
    assert not all(value.equal(kept[name]) for name, value in worst.items())


def test_evaluation_changes_nothing_in_the_model():
    model, _ = run(epochs=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, VAL, num_classes=len(CLASSES), config=CONFIG)
    for name, value in model.state_dict().items():
        assert value.equal(before[name]), name


def test_evaluation_counts_each_picture_at_its_own_size():
    model = UNet(len(CLASSES), widths=(4, 8)).eval()
    pictures = [Scenes(2, size=size)[i] for size in (32, 48, 20) for i in range(2)]
    scores = evaluate(model, listed(pictures), num_classes=len(CLASSES), config=CONFIG)
    labelled = sum(int((sample["mask"] != IGNORE).sum()) for sample in pictures)
    assert scores.counts.sum() == labelled
    right = 0
    with torch.inference_mode():
        for sample in pictures:
            image = sample["image"].as_subclass(torch.Tensor)[None]
            right += int((model(image).argmax(1)[0] == sample["mask"]).sum())
    assert scores.counts.trace() == pytest.approx(right, abs=5)  # channels last rounds otherwise


def test_the_order_of_the_data_depends_on_the_epoch():
    orders = [
        next(iter(shuffled(TRAIN, None, CONFIG, CPU, epoch=epoch)))["mask"] for epoch in (0, 0, 1)
    ]
    assert orders[0].equal(orders[1])
    assert not orders[0].equal(orders[2])


def test_worker_processes_do_not_change_what_is_learned():
    alone, epochs = run(epochs=1, augment=CROP)
    settings = {**CONFIG.record(), "device": "cpu", "workers": 2}
    helped, same = run(TrainConfig(**settings), epochs=1, augment=CROP)
    assert epochs == same
    assert alone[0].classify.weight.equal(helped[0].classify.weight)


def test_the_loss_of_an_epoch_is_the_mean_over_its_images():
    model = torch.nn.Conv2d(3, len(CLASSES), kernel_size=1)
    data = listed([Scenes(20, size=16)[i] for i in range(20)])  # batches of 8, 8 and 4
    for sample in data:  # all pixels labelled, so that every batch's mean is over as many
        sample["mask"][sample["mask"] == IGNORE] = 0
    frozen = TrainConfig(epochs=1, batch_size=8, learning_rate=0, device="cpu", amp=False)
    (epoch,) = fit(model, data, VAL, num_classes=len(CLASSES), config=frozen)
    image, mask = (
        torch.stack([sample[key] for sample in data]).as_subclass(torch.Tensor)
        for key in ("image", "mask")
    )
    assert epoch.train_loss == pytest.approx(cross_entropy_loss(model(image), mask).item())


def test_training_stops_when_nothing_gets_better():
    frozen = TrainConfig(epochs=10, patience=2, learning_rate=0, batch_size=24, device="cpu")
    model = torch.nn.Conv2d(3, len(CLASSES), kernel_size=1)
    epochs = list(fit(model, TRAIN, VAL, num_classes=len(CLASSES), config=frozen))
    assert len(epochs) == 1 + 2


def test_sixteen_bits_train_about_as_well(monkeypatch):
    monkeypatch.setattr("segedu.loop.is_quick_in_16_bits", lambda _device: True)
    settings = {**CONFIG.record(), "device": "cpu", "amp": True}
    _, half = run(TrainConfig(**settings), model=UNet(len(CLASSES), widths=(8, 16)))
    _, full = run(model=UNet(len(CLASSES), widths=(8, 16)))
    assert half != full
    assert half[-1].train_loss == pytest.approx(full[-1].train_loss, rel=0.1)


@pytest.mark.gpu
def test_training_on_a_gpu_agrees_with_training_on_the_cpu():
    settings = {**CONFIG.record(), "device": "cuda"}
    _, gpu = run(TrainConfig(**settings), epochs=1, model=UNet(len(CLASSES), widths=(8, 16)))
    _, cpu = run(epochs=1, model=UNet(len(CLASSES), widths=(8, 16)))
    assert gpu[0].train_loss == pytest.approx(cpu[0].train_loss, rel=1e-2)


def test_an_unknown_class_in_a_mask_is_refused():
    sample = {
        "image": tv_tensors.Image(torch.rand(3, 8, 8)),
        "mask": tv_tensors.Mask(torch.full((8, 8), 7)),
    }
    model = torch.nn.Conv2d(3, 3, kernel_size=1)
    with pytest.raises(InputError, match=r"values \[7\]; expected class indices 0\.\.2"):
        next(fit(model, listed([sample]), listed([sample]), num_classes=3, config=CONFIG))


def test_nothing_to_train_on_is_refused():
    with pytest.raises(InputError, match="empty"):
        next(fit(WithDropout(), Subset(TRAIN, []), VAL, num_classes=6, config=CONFIG))


def test_a_loss_that_is_no_number_ends_the_run():
    def broken(logits, target):
        return cross_entropy_loss(logits, target) * math.nan

    with pytest.raises(InputError, match="lower the learning rate"):
        run(epochs=1, loss=broken)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"epochs": 0}, "epochs is 0"), ({"warmup": 2.0}, "warmup is 2"), ({"batch_size": -1}, "-1")],
)
def test_settings_without_a_meaning_are_refused(settings, named):
    with pytest.raises(InputError, match=named):
        TrainConfig(**settings)


if __name__ == "__main__":  # the victim of the test that kills
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for done in fit(
        WithDropout(),
        TRAIN,
        VAL,
        num_classes=len(CLASSES),
        config=CONFIG,
        checkpoint=Path(sys.argv[1]),
    ):
        print(done.number, flush=True)


def test_the_learning_rate_rises_and_falls_as_the_schedule_says():
    config = replace(CONFIG, epochs=5, batch_size=4, warmup=0.4)
    scenes = Scenes(8, size=16)
    epochs = fit(UNet(6, widths=(4, 8)), scenes, scenes, num_classes=6, config=config)
    rates = [epoch.learning_rate for epoch in epochs]
    expected = [1e-2 * warmup_cosine(2 * (i + 1), 10, 0.4) for i in range(5)]
    assert rates == pytest.approx(expected)
    assert rates[0] < rates[1] > rates[2] > rates[4]


def test_the_range_test_goes_through_the_rates_and_leaves_the_model_alone():
    torch.manual_seed(0)
    model = WithDropout()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rates = [1e-3 * 10 ** (i / 4) for i in range(9)]
    generator = torch.get_rng_state()
    seen = list(range_test(model, TRAIN, rates, num_classes=len(CLASSES), config=CONFIG))
    assert [rate for rate, _ in seen] == rates
    assert seen == list(range_test(model, TRAIN, rates, num_classes=len(CLASSES), config=CONFIG))
    assert torch.get_rng_state().equal(generator)
    for name, value in model.state_dict().items():
        assert value.equal(before[name]), name


def test_the_losses_of_a_range_test_are_those_before_steps_at_its_rates():
    """One batch again and again, AdamW by hand."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, len(CLASSES), kernel_size=1)
    data = Scenes(8, size=16)
    config = replace(CONFIG, weight_decay=0.1)
    rates = [0.1, 0.0, 0.3, 0.02]
    found = list(range_test(model, data, rates, num_classes=len(CLASSES), config=config))
    batch = [data[i] for i in range(8)]
    image, mask = (
        torch.stack([sample[key].as_subclass(torch.Tensor) for sample in batch])
        for key in ("image", "mask")
    )
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    for rate, (found_rate, value) in zip(rates, found, strict=True):
        loss = cross_entropy_loss(model(image), mask)
        assert (found_rate, value) == (rate, pytest.approx(loss.item(), rel=1e-5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()


def test_the_range_test_ends_when_the_loss_is_no_number():
    calls = []

    def breaks(logits, target):
        calls.append(1)
        return cross_entropy_loss(logits, target) * (math.nan if len(calls) == 3 else 1)

    model = UNet(len(CLASSES), widths=(4, 8))
    seen = list(range_test(model, TRAIN, [1e-3] * 9, num_classes=6, config=CONFIG, loss=breaks))
    assert len(seen) == 2


def test_the_range_test_leaves_a_backbone_its_share():
    class Bare(Backbone):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 1)

        def forward(self, image):
            return self.conv(image)

    scenes = Scenes(1, size=16)  # the same batch at every step
    for share, changes in ((0.0, False), (1.0, True)):
        config = TrainConfig(batch_size=1, device="cpu", amp=False, backbone_rate=share)
        readings = range_test(Bare(), scenes, [0.1, 0.1, 0.1], num_classes=6, config=config)
        losses = [loss for _, loss in readings]
        assert (losses[0] != losses[2]) == changes

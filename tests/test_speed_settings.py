"""The settings that make steps smaller or quicker change nothing else in a run."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from segedu import runs
from segedu.checkpoints import load_checkpoint, save_checkpoint
from segedu.config import TrainConfig
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.errors import InputError
from segedu.models.unet import UNet
from segedu.train import fit

CONFIG = TrainConfig(
    epochs=3, batch_size=8, learning_rate=1e-2, device="cpu", amp=False, channels_last=False
)
TRAIN, VAL = Scenes(20, size=32, seed=1), Scenes(8, size=32, seed=2)


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, len(CLASSES), 1))


def unet():
    torch.manual_seed(0)
    return UNet(len(CLASSES), widths=(4, 8))


def trained(model, config, *, train=TRAIN, epochs=None, **options):
    steps = fit(model, train, VAL, num_classes=len(CLASSES), config=config, **options)
    return list(islice(steps, epochs)), torch.cat(
        [w.detach().flatten() for w in model.parameters()]
    )


def with_uneven_void():
    """Scenes of which some have few labels left."""
    samples = [dict(TRAIN[i]) for i in range(20)]
    for sample in samples[::3]:
        sample["mask"] = sample["mask"].clone()
        sample["mask"][4:] = IGNORE
    return Subset(samples, range(20))


@pytest.mark.parametrize("parts", [2, 3, 8, 50])
def test_a_batch_learnt_in_parts_takes_the_step_of_the_whole_batch(parts):
    train = with_uneven_void()
    whole, weights = trained(plain(), CONFIG, train=train)
    cut, others = trained(plain(), replace(CONFIG, accumulate=parts), train=train)
    assert torch.allclose(weights, others, atol=1e-4)
    assert [e.train_loss for e in cut] == pytest.approx([e.train_loss for e in whole], rel=1e-3)
    assert [e.learning_rate for e in cut] == [e.learning_rate for e in whole]


def test_batch_normalisation_sees_the_parts():
    whole, parts = (trained(unet(), replace(CONFIG, accumulate=n))[1] for n in (1, 4))
    assert (whole - parts).abs().max() > 1e-3


def test_recomputation_ends_with_the_same_weights():
    whole, again = (trained(unet(), replace(CONFIG, recompute=on))[1] for on in (False, True))
    assert torch.allclose(whole, again, atol=1e-4)


@pytest.mark.parametrize("settings", [{"accumulate": 3}, {"recompute": True}])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, settings):
    config, path = replace(CONFIG, **settings), tmp_path / "run.pt"
    epochs, weights = trained(unet(), config)
    first, _ = trained(unet(), config, epochs=1, checkpoint=path)
    rest, resumed = trained(unet(), config, checkpoint=path)
    assert first + rest == epochs
    assert resumed.equal(weights)


def test_a_checkpoint_from_before_a_setting_existed_can_be_gone_on_with(tmp_path):
    path = tmp_path / "run.pt"
    trained(unet(), CONFIG, epochs=1, checkpoint=path)
    state = load_checkpoint(path)
    for name in ("accumulate", "recompute", "compile"):
        del state["config"][name]
    save_checkpoint(path, state)
    assert len(trained(unet(), CONFIG, checkpoint=path)[0]) == 2
    with pytest.raises(InputError, match="accumulate was 1, now 2"):
        trained(unet(), replace(CONFIG, accumulate=2), checkpoint=path)


def test_the_model_is_compiled_when_that_is_set(monkeypatch):
    compiled = []
    monkeypatch.setattr(runs, "compile_in_place", lambda model, _device: compiled.append(model))
    model = unet()
    runs.begin(model, 8, CONFIG)
    assert compiled == []
    runs.begin(model, 8, replace(CONFIG, compile=True))
    assert compiled == [model]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="accumulate is 0; expected 1 or more"):
        TrainConfig(accumulate=0)
    with pytest.raises(InputError, match="recompute and compile are both on"):
        TrainConfig(recompute=True, compile=True)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings", [{}, {"accumulate": 3}, {"recompute": True}, {"compile": True}]
)
def test_each_setting_trains_on_a_gpu_in_sixteen_bits(settings):
    config = replace(CONFIG, device="cuda", amp=True, channels_last=True, **settings)
    epochs, _ = trained(unet(), config)
    assert epochs[-1].train_loss < epochs[0].train_loss

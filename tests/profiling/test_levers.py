import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from segedu.config import TrainConfig
from segedu.data.scenes import CLASSES, Scenes
from segedu.models.unet import UNet
from segedu.profiling import levers as module
from segedu.profiling.levers import Lever, Outcome, Trial, levers, table, try_lever, try_levers

CPU = torch.device("cpu")
SCENES = Subset([Scenes(8, size=32)[i] for i in range(8)], range(8))
TRIAL = Trial(
    model=lambda: UNet(len(CLASSES), widths=(8, 16)),
    train_data=SCENES,
    val_data=Subset(SCENES, range(4)),
    num_classes=len(CLASSES),
    config=TrainConfig(batch_size=4, device="cpu", learning_rate=1e-2),
    steps=4,
)


def outcome(name, device="cpu", seconds=0.1, peak=10**6, score=0.5):
    return Outcome(Lever(name, {}), device, seconds, seconds, peak, score)


def names(device, **options):
    return [lever.name for lever in levers(torch.device(device), **options)]


@pytest.mark.parametrize("quick", [True, False])
def test_a_cpu_has_sixteen_bits_only_if_they_are_quick(monkeypatch, quick):
    monkeypatch.setattr(module, "is_quick_in_16_bits", lambda _: quick)
    short = ["bfloat16"] * quick, ["channels last, bfloat16"] * quick
    assert names("cpu") == [
        "plain float32",
        "channels last",
        *short[0],
        "accumulate 4",
        "recompute",
        *short[1],
    ]


@pytest.mark.parametrize(("has_bfloat16", "short"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_has_tf32_and_the_format_that_it_is_good_at(monkeypatch, has_bfloat16, short):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_options: has_bfloat16)
    found = levers(torch.device("cuda"))
    assert [lever.name for lever in found if lever.tf32] == ["TF32", f"channels last, {short}"]
    assert short in [lever.name for lever in found]


def test_compiling_is_tried_when_it_is_wanted_and_can_be(monkeypatch):
    monkeypatch.setattr(module, "what_compiling_lacks", lambda _: "")
    assert "the same, compiled" not in names("cpu")
    [last] = levers(CPU, compiled=True)[-1:]
    assert last.settings["compile"]
    monkeypatch.setattr(module, "what_compiling_lacks", lambda _: "no compiler")
    assert "the same, compiled" not in names("cpu", compiled=True)


def test_each_lever_is_tried_from_the_same_weights_on_the_same_batches():
    plain, again, cut = try_levers(
        [Lever("a", {}), Lever("b", {}), Lever("c", {"accumulate": 4})], TRIAL
    )
    assert plain.score == again.score
    assert 0 < plain.score < 1
    assert plain.device == "cpu"
    assert min(plain.seconds, plain.first) > 0
    assert plain.peak == pytest.approx(again.peak, rel=0.02)
    assert cut.peak < 0.6 * plain.peak


def test_recomputation_takes_less_memory_and_gives_the_same_score():
    deeper = replace(TRIAL, model=lambda: UNet(len(CLASSES), widths=(8, 16, 16)))
    plain, again = try_levers([Lever("a", {}), Lever("b", {"recompute": True})], deeper)
    assert again.peak < 0.85 * plain.peak
    assert again.score == pytest.approx(plain.score, abs=0.02)


def test_a_trial_leaves_torchs_dice_and_precision_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.backends.cuda.matmul.allow_tf32
    convolutions = torch.backends.cudnn.allow_tf32
    try_lever(Lever("TF32", {}, tf32=True), replace(TRIAL, steps=3))
    assert torch.get_rng_state().equal(before[0])
    assert torch.backends.cuda.matmul.allow_tf32 == before[1]
    assert torch.backends.cudnn.allow_tf32 == convolutions


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_on_for_its_lever_alone(allowed):
    class Noting(nn.Conv2d):
        def forward(self, x):
            seen.add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return super().forward(x)

    seen = set()
    trial = replace(TRIAL, model=lambda: Noting(3, len(CLASSES), 1), val_data=None)
    try_lever(Lever("x", {}, tf32=allowed), trial)
    assert seen == {(allowed, allowed)}


def test_the_first_step_is_told_apart_from_the_others(clock):
    class Late(nn.Conv2d):
        def forward(self, x):
            clock.sleep(0.01 if calls else 0.2)
            calls.append(1)
            return super().forward(x)

    calls = []
    found = try_lever(Lever("x", {}), replace(TRIAL, model=lambda: Late(3, len(CLASSES), 1)))
    assert (found.first, found.seconds) == pytest.approx((0.2, 0.01))


def test_without_held_out_pictures_there_is_no_score():
    assert math.isnan(try_lever(Lever("x", {}), replace(TRIAL, val_data=None, steps=3)).score)


def test_the_table_has_a_row_for_each_lever_and_columns_for_each_device():
    rows = table(
        [
            outcome("plain", seconds=0.2),
            outcome("quick", seconds=0.1, peak=2_500_000, score=math.nan),
            outcome("plain", "cuda", seconds=0.004),
            outcome("TF32", "cuda", seconds=0.001),
        ]
    ).splitlines()
    assert rows[0].split() == ["cpu", "cuda"]
    assert rows[2].split() == [
        "plain",
        "200.0",
        "1.00",
        "1.0",
        "0.500",
        "4.0",
        "1.00",
        "1.0",
        "0.500",
    ]
    assert rows[3].split() == ["quick", "100.0", "2.00", "2.5", "-"]
    assert rows[4].split() == ["TF32", "1.0", "4.00", "1.0", "0.500"]
    assert rows[4].index("1.0") > len(rows[3])


@pytest.mark.gpu
def test_every_lever_works_on_a_gpu():
    cuda = torch.device("cuda")
    trial = replace(TRIAL, config=replace(TRIAL.config, device="cuda"))
    found = list(try_levers(levers(cuda, compiled=True), trial))
    assert {row.device for row in found} == {"cuda"}
    assert all(row.peak > 0 for row in found)


@pytest.mark.gpu
def test_float16_with_a_scaler_trains_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_options: False)
    trial = replace(TRIAL, config=replace(TRIAL.config, device="cuda"), steps=30)
    plain, short = try_levers(
        [Lever("a", {}), Lever("b", {"amp": True, "channels_last": True})], trial
    )
    assert short.score > 0.5 * plain.score

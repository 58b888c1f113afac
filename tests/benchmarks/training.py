"""A U-Net's training on CamVid at 256 x 192: what each setting gains, and how near the ceiling."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch.utils.data import Dataset, Subset

from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.sample import Sample
from segedu.data.transforms import resize
from segedu.device import pick_device
from segedu.losses import cross_entropy_loss
from segedu.models.registry import build
from segedu.profiling.flops import step_flops
from segedu.profiling.levers import Lever, Trial, levers, table, try_lever
from segedu.profiling.roofline import measure_ceilings

BATCH = 8
WIDTHS = (16, 32, 64, 96, 128)  # as `segedu train --data camvid` has it
SEEDS = 3  # of the plain and of the fastest setting, for their scores
TARGET = 1.5


def unet_on_camvid(steps: int = 8, learning: int = 60) -> None:
    """Each setting against plain float32: seconds, memory; FLOPs against the ceiling; scores.

    Args:
        steps: Of each timing.
        learning: Steps of each training that is scored.
    """
    device = pick_device("auto")
    ceilings = measure_ceilings(device)
    train, val, classes = pictures()
    config = TrainConfig(batch_size=BATCH, learning_rate=6e-3, device=device.type, warmup=0.2)
    model = partial(build, "unet", classes, widths=WIDTHS)
    trial = Trial(model, train, None, classes, config, steps)
    outcomes = [try_lever(lever, trial) for lever in levers(device)]
    print(f"\n{table(outcomes)}")
    plain = outcomes[0]
    best = min(outcomes, key=lambda outcome: outcome.seconds)
    verdict = "reached" if plain.seconds / best.seconds >= TARGET else "MISSED"
    gain = f"{plain.seconds / best.seconds:.2f}x"
    print(f"the fastest setting, {best.lever.name}: {gain}  target {TARGET:g}x {verdict}")
    kind = list(ceilings.flops)[-1 if best.lever.settings.get("amp") else 0]
    flops = step_flops(one_step(model))
    for name, outcome, ceiling in (("plain", plain, "float32"), ("fastest", best, kind)):
        reached, most = flops / outcome.seconds, ceilings.flops[ceiling]
        print(
            f"{name}: {reached / 1e9:.0f} GFLOP/s, {reached / most:.0%} of {ceiling}'s "
            f"{most / 1e9:.0f}",
            flush=True,
        )
    longer = replace(trial, val_data=val, steps=learning)
    say_spread(*(scores(lever, longer) for lever in (plain.lever, best.lever)))


def pictures() -> tuple[Dataset[Sample], Dataset[Sample], int]:
    """Frames of 192 rows and 256 columns, opened once; scenes of 224 x 224 where there are none."""
    if catalog.available("camvid"):
        sets = (catalog.load("camvid", split=split) for split in ("train", "val"))
        small = resize(192, 256)
        read = [
            [small(whole[i]) for i in range(0, len(whole), every)]
            for whole, every in zip(sets, (4, 1), strict=True)
        ]
    else:
        print("CamVid is not here: scenes of 224 x 224, which have as many pixels")
        sets = (catalog.load("scenes", split=split, size=224) for split in ("train", "val"))
        read = [[whole[i] for i in range(64)] for whole in sets]
    train, val = (Subset(samples, range(len(samples))) for samples in read)  # type: ignore[arg-type]
    return train, val, 11 if catalog.available("camvid") else 6


def scores(lever: Lever, trial: Trial) -> torch.Tensor:
    """Held-out mean IoU with each seed."""
    config = trial.config
    trials = [replace(trial, config=replace(config, seed=seed)) for seed in range(SEEDS)]
    return torch.tensor([try_lever(lever, one).score for one in trials])


def say_spread(plain: torch.Tensor, fastest: torch.Tensor) -> None:
    """Whether the fastest setting's mean score is off by no more than seeds do to the plain one."""
    off = abs(fastest.mean() - plain.mean())
    spread = plain.max() - plain.min()
    for name, values in (("plain", plain), ("fastest", fastest)):
        print(f"{name}: mean IoU {', '.join(f'{value:.3f}' for value in values.tolist())}")
    verdict = "reached" if off <= spread else "MISSED"
    print(f"means differ by {off:.3f}, seeds of the plain one by {spread:.3f}  {verdict}")


def one_step(model: Callable[[], torch.nn.Module]) -> Callable[[], None]:
    """A step on the meta device, for counting."""
    network = model().to("meta")
    images = torch.empty(BATCH, 3, 192, 256, device="meta")
    masks = torch.empty(BATCH, 192, 256, dtype=torch.long, device="meta")
    return lambda: cross_entropy_loss(network(images), masks).backward()


if __name__ == "__main__":
    unet_on_camvid()

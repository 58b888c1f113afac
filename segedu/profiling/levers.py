"""What each setting of training gains on a device: seconds, memory and score, one at a time.

Chapter 20 pulls the levers; `segedu bench` recommends from them.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from segedu import loop
from segedu.config import TrainConfig
from segedu.data.sample import Sample
from segedu.device import is_quick_in_16_bits, mixed_precision, pick_device
from segedu.losses import cross_entropy_loss
from segedu.models.speed import what_compiling_lacks
from segedu.profiling.timing import once
from segedu.profiling.trace import peak_bytes
from segedu.runs import Run, begin
from segedu.train import evaluate, labelled_in, pixel_losses

PLAIN = {"amp": False, "channels_last": False, "accumulate": 1, "recompute": False}


@dataclass(frozen=True)
class Lever:
    """A setting to switch on.

    Attributes:
        name: What a table says.
        settings: Fields of `TrainConfig` besides the plain ones.
        tf32: Whether a CUDA GPU may round the factors of float32 products to 10 bits.
    """

    name: str
    settings: Mapping[str, Any]
    tf32: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a lever gave on a device.

    Attributes:
        lever: Which one.
        device: "cpu", "cuda" or "mps".
        seconds: Of one training step, the median.
        first: Seconds of the first step, in which code may be compiled.
        peak: Bytes at a step's peak, over the weights and what the optimiser keeps.
        score: Held-out mean IoU after all steps, a fraction in [0, 1]; nan if none was asked for.
    """

    lever: Lever
    device: str
    seconds: float
    first: float
    peak: int
    score: float


@dataclass(frozen=True)
class Trial:
    """What every lever is tried on.

    Attributes:
        model: Makes the model; its first weights are decided by the config's seed.
        train_data: Samples of one size.
        val_data: Held-out samples; None for no score.
        num_classes: C.
        config: The run's settings; its epochs do not count.
        steps: Training steps; 3 or more.
    """

    model: Callable[[], nn.Module]
    train_data: Dataset[Sample]
    val_data: Dataset[Sample] | None
    num_classes: int
    config: TrainConfig
    steps: int


def levers(device: torch.device, *, parts: int = 4, compiled: bool = False) -> list[Lever]:
    """The levers that there are on `device`: the plain run first, the quickest together last.

    Args:
        device: Where.
        parts: Into which accumulation cuts a batch.
        compiled: Whether to try torch.compile, which takes a minute to begin, where it works.
    """
    short = "float16" if mixed_precision(device) == torch.float16 else "bfloat16"
    quick = is_quick_in_16_bits(device)
    together = {"amp": quick, "channels_last": True}
    found = [Lever("plain float32", {})]
    if device.type == "cuda":
        found.append(Lever("TF32", {}, tf32=True))
    found.append(Lever("channels last", {"channels_last": True}))
    if quick:
        found.append(Lever(short, {"amp": True}))
    found.append(Lever(f"accumulate {parts}", {"accumulate": parts}))
    found.append(Lever("recompute", {"recompute": True}))
    if quick:
        found.append(Lever(f"channels last, {short}", together, tf32=True))
    if compiled and not what_compiling_lacks(device):
        found.append(Lever("the same, compiled", {**together, "compile": True}, tf32=True))
    return found


def try_levers(chosen: Sequence[Lever], trial: Trial) -> Iterator[Outcome]:
    """Train anew with each lever, from the same first weights, on the same batches."""
    for lever in chosen:
        yield try_lever(lever, trial)


def try_lever(lever: Lever, trial: Trial) -> Outcome:
    """Train with one lever, time the steps, weigh the last one, and score the result."""
    config = replace(trial.config, **{**PLAIN, **lever.settings, "epochs": 1})
    device = pick_device(config.device)
    with loop.own_randomness(device, config.seed), _products_in_tf32(allowed=lever.tf32):
        run = begin(trial.model(), trial.steps * config.batch_size, config)
        run.model.train()
        loaded = list(loop.shuffled(trial.train_data, None, config, device, epoch=0))
        steps = [partial(step, run, batch, trial) for batch in islice(cycle(loaded), trial.steps)]
        taken = [once(one, device) for one in steps[:-1]]
        peak = peak_bytes(steps[-1], device)
        score = _score(run, trial)
    return Outcome(
        lever=lever,
        device=device.type,
        seconds=statistics.median(taken[1:]),
        first=taken[0],
        peak=peak,
        score=score,
    )


def step(run: Run, batch: loop.Batch, trial: Trial) -> None:
    """One training step, as `segedu train` takes it."""
    losses = partial(pixel_losses, loss=cross_entropy_loss, num_classes=trial.num_classes)
    loop.train_on(run, [batch], losses, labelled_in)


def _score(run: Run, trial: Trial) -> float:
    """Mean IoU of what was held out."""
    if trial.val_data is None:
        return math.nan
    return evaluate(
        run.model, trial.val_data, num_classes=trial.num_classes, config=run.config
    ).mean_iou()


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for each lever; for each device: milliseconds, the gain, memory and score."""
    devices = list(dict.fromkeys(outcome.device for outcome in outcomes))
    found = {(outcome.lever.name, outcome.device): outcome for outcome in outcomes}
    names = list(dict.fromkeys(outcome.lever.name for outcome in outcomes))
    columns = f"{'ms a step':>10} {'x as fast':>10} {'MB at peak':>11} {'mean IoU':>10}"
    head = f"{'':<26}" + "".join(f"{device:>44}" for device in devices)
    lines = [head, f"{'':<26}" + columns * len(devices)]
    for name in names:
        cells = (_cells(found, name, device, names[0]) for device in devices)
        lines.append(f"{name:<26}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def _cells(found: Mapping[tuple[str, str], Outcome], name: str, device: str, plain: str) -> str:
    """One device's part of a row; blank where the lever was not tried."""
    if (name, device) not in found:
        return " " * 44
    outcome = found[name, device]
    gain = found[plain, device].seconds / outcome.seconds if (plain, device) in found else 1.0
    score = "-" if math.isnan(outcome.score) else f"{outcome.score:.3f}"
    cells = f"{outcome.seconds * 1e3:>10.1f} {gain:>10.2f} {outcome.peak / 1e6:>11.1f}"
    return f"{cells} {score:>10}"


@contextmanager
def _products_in_tf32(*, allowed: bool) -> Iterator[None]:
    """Whether a CUDA GPU may round factors of float32 products, for a while; then as before."""
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    matrices.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        matrices.allow_tf32, convolutions.allow_tf32 = before

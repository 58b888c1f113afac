"""The training loop, whatever is learnt: epochs over the data, a check after each, a checkpoint.

Chapter 11 derives it. With it `segedu.train` learns a class for each pixel, and
`segedu.detect` objects.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segedu.config import TrainConfig
from segedu.data.sample import Sample, collate
from segedu.data.transforms import Augmented, Transform, mixed_seed
from segedu.device import is_quick_in_16_bits, mixed_precision
from segedu.errors import InputError
from segedu.runs import Epoch, Run, begin

Batch = dict[str, Any]


def images_in(batch: Batch) -> int:
    """How many images a batch has."""
    return len(batch["image"])


@dataclass(frozen=True)
class Task:
    """What is learnt, and how well.

    Attributes:
        losses: From a run and a batch to named scalar losses; a step lowers their sum.
        score: From the run's model to a fraction in [0, 1], of held-out data; greater is better.
        size: Of how many things in a batch the losses are the mean: images, if not said otherwise.
    """

    losses: Callable[[Run, Batch], Mapping[str, Tensor]]
    score: Callable[[nn.Module], float]
    size: Callable[[Batch], float] = images_in


def run_epochs(
    model: nn.Module,
    data: Dataset[Sample],
    task: Task,
    *,
    config: TrainConfig,
    augment: Transform | None = None,
    checkpoint: Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place and yield each epoch as it ends.

    With `checkpoint`, everything needed to go on is saved there after each epoch; when the file
    exists already, training goes on from it, and ends where an uninterrupted run would have ended.
    The weights of the epoch with the best score are kept in it as well.

    Raises:
        InputError: If there is nothing to train on, the checkpoint is of another run, or the loss
            is no longer a number.
    """
    run = begin(model, count(data), config)
    if checkpoint and checkpoint.exists():
        run.resume(checkpoint, about or {})

    for number in range(len(run.history), config.epochs):
        if run.is_stale():
            return
        batches = shuffled(data, augment, config, run.device, epoch=number)
        with own_randomness(run.device, mixed_seed(config.seed, number)):
            losses = train_on(run, batches, task.losses, task.size)
        total = sum(losses.values())
        if not math.isfinite(total):
            raise InputError(
                "the loss is no longer a number; lower the learning rate and start again"
            )
        score = task.score(run.model)
        epoch = Epoch(number, float(run.schedule.get_last_lr()[0]), total, score, losses)
        run.add(epoch)
        if checkpoint:
            run.save(checkpoint, about or {})
        yield epoch


def train_on(
    run: Run,
    batches: Iterable[Batch],
    losses: Callable[[Run, Batch], Mapping[str, Tensor]],
    size: Callable[[Batch], float] = images_in,
) -> dict[str, float]:
    """A step for each of `batches`; returns each loss's mean over their images."""
    run.model.train()
    totals: dict[str, Tensor] = {}
    images = 0
    for batch in batches:
        for n, (part, share) in enumerate(in_parts(batch, run.config.accumulate, size)):
            values = losses(run, part)
            if n == 0:
                run.optimizer.zero_grad()
            total = sum(values.values()) * share
            run.scaler.scale(total).backward()  # type: ignore[no-untyped-call, arg-type]
            for name, value in values.items():
                totals[name] = totals.get(name, 0) + value.detach() * share * images_in(batch)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.schedule.step()
        images += images_in(batch)
    return {name: total.item() / images for name, total in totals.items()}


def in_parts(
    batch: Batch, parts: int, size: Callable[[Batch], float] = images_in
) -> Iterator[tuple[Batch, float]]:
    """A batch in at most so many parts of consecutive images, each with its share of the whole.

    The parts' mean losses, each times its share, add up to the whole batch's.
    """
    images = images_in(batch)
    each = math.ceil(images / parts)
    cut = [
        {name: value[first : first + each] for name, value in batch.items()}
        for first in range(0, images, each)
    ]
    if len(cut) == 1:
        yield batch, 1.0
        return
    sizes = [size(part) for part in cut]
    whole = sum(sizes) or 1.0
    yield from ((part, of_part / whole) for part, of_part in zip(cut, sizes, strict=True))


def shuffled(
    data: Dataset[Sample],
    augment: Transform | None,
    config: TrainConfig,
    device: torch.device,
    *,
    epoch: int,
) -> DataLoader[Sample]:
    """Batches in an order that the seed and the epoch alone decide, so that a run can resume."""
    return DataLoader(
        Augmented(data, augment, seed=config.seed, epoch=epoch) if augment else data,
        config.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(mixed_seed(config.seed, epoch) >> 1),
        collate_fn=collate,
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
    )


def in_order(data: Dataset[Any], config: TrainConfig) -> DataLoader[Any]:
    """Lists of samples, each at its own size, one after the other."""
    return DataLoader(
        data,
        config.batch_size,
        collate_fn=list,
        num_workers=config.workers,
        generator=torch.Generator(),  # or it would draw from the global one
    )


def autocast(device: torch.device, config: TrainConfig) -> torch.autocast:
    """Mixed precision, where it is wanted and quick."""
    enabled = config.amp and is_quick_in_16_bits(device)
    return torch.autocast(device.type, dtype=mixed_precision(device), enabled=enabled)


@contextmanager
def own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's global generators seeded for a while, for dropout; afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def count(data: Dataset[Sample]) -> int:
    """How many samples there are to train on.

    Raises:
        InputError: If there is none.
    """
    samples = len(data)  # type: ignore[arg-type]
    if not samples:
        raise InputError("the training data are empty; expected at least one sample")
    return samples

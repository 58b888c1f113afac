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
from torch.utils.data import DataLoader, Dataset, RandomSampler

from segedu import distributed
from segedu.config import TrainConfig
from segedu.data.sample import Sample, collate
from segedu.data.transforms import Augmented, Transform, mixed_seed
from segedu.device import is_quick_in_16_bits, mixed_precision
from segedu.errors import InputError
from segedu.parts import Parts, Portion, in_step, own_batches
from segedu.runs import Epoch, Run, begin

Batch = dict[str, Any]


def images_in(batch: Batch) -> int:
    """How many images a batch has."""
    return len(batch["image"])


@dataclass(frozen=True)
class Task:
    """What is learnt, and how well.

    Attributes:
        losses: From a run and a batch to named scalar losses; a step lowers their sum. The batch
            may be a part of a whole one, which `accumulate` or several processes have cut up.
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

    In a group of processes all must call it, with the same arguments. They train one model: a batch
    is what they have together, and all end with the same weights.

    Raises:
        InputError: If there is nothing to train on, the checkpoint is of another run, or the loss
            is no longer a number.
    """
    run = begin(model, count(data), config)
    if checkpoint and distributed.all_see(checkpoint):
        run.resume(checkpoint, about or {})

    for number in range(len(run.history), config.epochs):
        if run.is_stale():
            return
        batches = shuffled(data, augment, config, run.device, epoch=number)
        with own_randomness(run.device, mixed_seed(config.seed, number) + distributed.rank()):
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
    for portion in in_step(batches):
        for n, (part, share) in enumerate(in_parts(portion, run.config.accumulate, size)):
            values = losses(run, part)
            if n == 0:
                run.optimizer.zero_grad()
            total = sum(values.values()) * share
            run.scaler.scale(total).backward()  # type: ignore[no-untyped-call, arg-type]
            for name, value in values.items():
                totals[name] = totals.get(name, 0) + value.detach() * share * portion.images
        distributed.add_up_gradients(run.model)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.schedule.step()
        images += portion.images
    return {name: distributed.total(total).item() / images for name, total in totals.items()}


def in_parts(
    portion: Portion, parts: int, size: Callable[[Batch], float] = images_in
) -> Iterator[tuple[Batch, float]]:
    """A batch in at most so many parts of consecutive images, each with its share of the whole.

    The parts' mean losses, each times its share, add up to the whole batch's. In a group these are
    the parts of all processes, and each process has as many as the others: where its images are
    used up, it is absent.
    """
    each = math.ceil(portion.most / parts)
    if each == portion.images and distributed.size() == 1:
        yield portion.batch, 1.0
        return
    spans = [slice(i, min(i + each, portion.own)) for i in range(0, portion.most, each)]
    cut = [{name: value[span] for name, value in portion.batch.items()} for span in spans]
    sizes = [size(part) for part in cut]
    whole = distributed.total(torch.tensor(sum(sizes)).double()).item() or 1.0
    company = {name: value[:1] for name, value in portion.batch.items()}
    for part, of_part in zip(cut, sizes, strict=True):
        with distributed.absent_if(not images_in(part)):
            yield part if images_in(part) else company, of_part / whole


def shuffled(
    data: Dataset[Sample],
    augment: Transform | None,
    config: TrainConfig,
    device: torch.device,
    *,
    epoch: int,
) -> DataLoader[Sample]:
    """Batches in an order that the seed and the epoch alone decide, so that a run can resume.

    In a group, this process's part of each.
    """
    generator = torch.Generator().manual_seed(mixed_seed(config.seed, epoch) >> 1)
    order = RandomSampler(data, generator=generator)  # type: ignore[arg-type]
    return DataLoader(
        Augmented(data, augment, seed=config.seed, epoch=epoch) if augment else data,
        batch_sampler=Parts(order, config.batch_size),
        generator=generator,
        collate_fn=collate,
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
    )


def in_order(data: Dataset[Any], config: TrainConfig) -> DataLoader[Any]:
    """Lists of samples, each at its own size, in order; in a group, of this process's samples."""
    return DataLoader(
        data,
        batch_sampler=own_batches(len(data), config.batch_size),  # type: ignore[arg-type]
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

"""The training loop: epochs over the data, a check after each, and a checkpoint to go on from.

Chapter 11 derives it.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count, groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segedu.config import TrainConfig
from segedu.data.sample import IGNORE, Sample, collate
from segedu.data.transforms import Augmented, Transform, mixed_seed
from segedu.device import is_quick_in_16_bits, mixed_precision, pick_device
from segedu.errors import InputError
from segedu.losses import cross_entropy_loss
from segedu.metrics.confusion import ConfusionMatrix
from segedu.runs import Epoch, Run, begin

Loss = Callable[[Tensor, Tensor], Tensor]
DEFAULTS = TrainConfig()


def fit(  # noqa: PLR0913 - all but four have a default that serves
    model: nn.Module,
    train_data: Dataset[Sample],
    val_data: Dataset[Sample],
    *,
    num_classes: int,
    config: TrainConfig = DEFAULTS,
    loss: Loss = cross_entropy_loss,
    augment: Transform | None = None,
    checkpoint: Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place and yield each epoch as it ends.

    With `checkpoint`, everything needed to go on is saved there after each epoch; when the file
    exists already, training goes on from it, and ends where an uninterrupted run would have ended.
    The weights of the epoch with the best validation mean IoU are kept in it as well.

    Args:
        model: From (B, 3, H, W) images in [0, 1] to (B, C, H, W) logits.
        train_data: Samples of one size, or of any size if `augment` makes them one.
        val_data: Samples of any size.
        num_classes: C.
        config: The run's settings.
        loss: From logits and target to a scalar.
        augment: Changes each training sample, anew in each epoch.
        checkpoint: Where to keep the run.
        about: What else the checkpoint should say: plain values only.

    Raises:
        InputError: If there is nothing to train on, a mask has an unknown class, the checkpoint is
            of another run, or the loss is no longer a number.

    Example:
        >>> from segedu.data.scenes import Scenes
        >>> from segedu.models.unet import UNet
        >>> model, scenes = UNet(6, widths=(4, 8)), Scenes(4, size=16)
        >>> for epoch in fit(model, scenes, scenes, num_classes=6, config=TrainConfig(epochs=2)):
        ...     print(epoch.number)
        0
        1
    """
    run = begin(model, _count(train_data), config)
    if checkpoint and checkpoint.exists():
        run.resume(checkpoint, about or {})

    for number in range(len(run.history), config.epochs):
        if run.is_stale():
            return
        batches = _shuffled(train_data, augment, config, run.device, epoch=number)
        with _own_randomness(run.device, mixed_seed(config.seed, number)):
            train_loss = _train_on(run, batches, loss, num_classes)
        if not math.isfinite(train_loss):
            raise InputError(
                "the loss is no longer a number; lower the learning rate and start again"
            )
        scores = evaluate(run.model, val_data, num_classes=num_classes, config=config)
        epoch = Epoch(number, float(run.schedule.get_last_lr()[0]), train_loss, scores.mean_iou())
        run.add(epoch)
        if checkpoint:
            run.save(checkpoint, about or {})
        yield epoch


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: Dataset[Sample], *, num_classes: int, config: TrainConfig
) -> ConfusionMatrix:
    """Count right and wrong pixels over all of `data`, each picture at its own size.

    The model is left in evaluation mode, on the configured device.
    """
    device = pick_device(config.device)
    model.to(device).eval()
    scores = ConfusionMatrix(num_classes)
    loader = DataLoader(
        data,
        config.batch_size,
        collate_fn=list,
        num_workers=config.workers,
        generator=torch.Generator(),  # or it would draw from the global one
    )
    for samples in loader:
        for _, same_size in groupby(samples, key=lambda sample: sample["image"].shape):
            batch = collate(list(same_size))
            with _autocast(device, config):
                logits = model(_images(batch, device, config))
            scores.update(logits.argmax(dim=1).cpu(), batch["mask"].as_subclass(Tensor))
    return scores


def range_test(
    model: nn.Module,
    data: Dataset[Sample],
    rates: Iterable[float],
    *,
    num_classes: int,
    config: TrainConfig = DEFAULTS,
    loss: Loss = cross_entropy_loss,
) -> Iterator[tuple[float, float]]:
    """Train a copy of `model` for one step at each rate, and yield each rate with the loss before.

    With rates that grow, the loss falls where a rate is useful and rises where it is too great. It
    ends early when the loss is no longer a number.

    Args:
        model: Is left as it was.
        data: Samples of one size.
        rates: Learning rates, usually spaced evenly on a logarithmic scale.
        num_classes: C.
        config: The run's settings; its learning rate and epochs do not count here.
        loss: From logits and target to a scalar.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3.
    """
    run = begin(copy.deepcopy(model), _count(data), config)
    epochs = (_shuffled(data, None, config, run.device, epoch=number) for number in count())
    batches = (batch for epoch in epochs for batch in epoch)
    for step, (rate, batch) in enumerate(zip(rates, batches, strict=False)):
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["initial_lr"] / config.learning_rate  # its share
        with _own_randomness(run.device, mixed_seed(config.seed, step)):
            value = _train_on(run, [batch], loss, num_classes)
        if not math.isfinite(value):
            return
        yield rate, value


def _train_on(run: Run, batches: Iterable[dict[str, Any]], loss: Loss, num_classes: int) -> float:
    """A step for each of `batches`; returns the mean loss of their images."""
    run.model.train()
    total, images = torch.zeros((), device=run.device), 0
    for batch in batches:
        mask = batch["mask"].as_subclass(Tensor)
        _refuse_unknown_classes(mask, num_classes)
        mask = mask.to(run.device, non_blocking=True)
        with _autocast(run.device, run.config):
            logits = run.model(_images(batch, run.device, run.config))
        value = loss(logits.float(), mask)
        run.optimizer.zero_grad()
        run.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.schedule.step()
        total += value.detach() * len(mask)
        images += len(mask)
    return total.item() / images


def _images(batch: dict[str, Any], device: torch.device, config: TrainConfig) -> Tensor:
    """A batch's images on the device, in the memory format that the model has."""
    memory_format = torch.channels_last if config.channels_last else torch.preserve_format
    image: Tensor = batch["image"].as_subclass(Tensor)
    return image.to(device, non_blocking=True, memory_format=memory_format)


def _autocast(device: torch.device, config: TrainConfig) -> torch.autocast:
    enabled = config.amp and is_quick_in_16_bits(device)
    return torch.autocast(device.type, dtype=mixed_precision(device), enabled=enabled)


def _shuffled(
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


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's global generators seeded for a while, for dropout; afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _count(data: Dataset[Sample]) -> int:
    samples = len(data)  # type: ignore[arg-type]
    if not samples:
        raise InputError("the training data are empty; expected at least one sample")
    return samples


def _refuse_unknown_classes(mask: Tensor, num_classes: int) -> None:
    """On a GPU a wrong index would end the process without a word."""
    if ((mask < 0) | ((mask >= num_classes) & (mask != IGNORE))).any():
        raise InputError(
            f"a training mask has the values {torch.unique(mask).tolist()}; expected class indices "
            f"0..{num_classes - 1}, or {IGNORE} for unlabelled"
        )

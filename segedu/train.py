"""Training for a class at every pixel: a loss, a score, and a test of learning rates.

Chapter 11 derives it; the loop itself is in `segedu.loop`.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count, groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu import distributed, loop
from segedu.config import TrainConfig
from segedu.data.sample import IGNORE, Sample, collate
from segedu.data.transforms import Transform, mixed_seed
from segedu.device import pick_device
from segedu.errors import InputError
from segedu.losses import PIXEL_MEANS, cross_entropy_loss
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
    task = loop.Task(
        losses=partial(pixel_losses, loss=loss, num_classes=num_classes),
        size=labelled_in,
        score=lambda trained: evaluate(
            trained, val_data, num_classes=num_classes, config=config
        ).mean_iou(),
    )
    yield from loop.run_epochs(
        model,
        train_data,
        task,
        config=config,
        augment=augment,
        checkpoint=checkpoint,
        about=about,
    )


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: Dataset[Sample], *, num_classes: int, config: TrainConfig
) -> ConfusionMatrix:
    """Count right and wrong pixels over all of `data`, each picture at its own size.

    In a group each picture is counted by one process, and all get the sum.

    The model is left in evaluation mode, on the configured device.
    """
    device = pick_device(config.device)
    model.to(device).eval()
    scores = ConfusionMatrix(num_classes)
    for samples in loop.in_order(data, config):
        for _, same_size in groupby(samples, key=lambda sample: sample["image"].shape):
            batch = collate(list(same_size))
            with loop.autocast(device, config):
                logits = model(_images(batch, device, config))
            scores.update(logits.argmax(dim=1).cpu(), batch["mask"].as_subclass(Tensor))
    scores.sum_across_processes()
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
    losses = partial(pixel_losses, loss=loss, num_classes=num_classes)
    run = begin(copy.deepcopy(model), loop.count(data), config)
    epochs = (loop.shuffled(data, None, config, run.device, epoch=number) for number in count())
    batches = (batch for epoch in epochs for batch in epoch)
    for step, (rate, batch) in enumerate(zip(rates, batches, strict=False)):
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["initial_lr"] / config.learning_rate  # its share
        with loop.own_randomness(run.device, mixed_seed(config.seed, step)):
            value = loop.train_on(run, [batch], losses, labelled_in)["loss"]
        if not math.isfinite(value):
            return
        yield rate, value


def labelled_in(batch: loop.Batch) -> int:
    """How many pixels of a batch have a label: what a loss is the mean of."""
    return int((batch["mask"] != IGNORE).sum())


def pixel_losses(run: Run, batch: loop.Batch, *, loss: Loss, num_classes: int) -> dict[str, Tensor]:
    """The loss of one batch."""
    mask = batch["mask"].as_subclass(Tensor)
    _refuse_unknown_classes(mask, num_classes)
    mask = mask.to(run.device, non_blocking=True)
    with loop.autocast(run.device, run.config):
        logits = run.model(_images(batch, run.device, run.config))
    return {"loss": _loss_of_all(loss, logits.float(), mask)}


def _loss_of_all(loss: Loss, logits: Tensor, mask: Tensor) -> Tensor:
    """The loss of what all processes of a group have together, or one of which it is the mean.

    The mean over all labelled pixels is the mean of the processes' means, if each counts as much as
    it has labelled pixels. No other loss can be put together like that: it gets all logits.
    """
    if loss in PIXEL_MEANS or not distributed.in_group():
        return loss(logits, mask)
    return loss(distributed.gathered(logits), distributed.gathered(mask))


def _images(batch: loop.Batch, device: torch.device, config: TrainConfig) -> Tensor:
    """A batch's images on the device, in the memory format that the model has."""
    memory_format = torch.channels_last if config.channels_last else torch.preserve_format
    image: Tensor = batch["image"].as_subclass(Tensor)
    return image.to(device, non_blocking=True, memory_format=memory_format)


def _refuse_unknown_classes(mask: Tensor, num_classes: int) -> None:
    """On a GPU a wrong index would end the process without a word."""
    if ((mask < 0) | ((mask >= num_classes) & (mask != IGNORE))).any():
        raise InputError(
            f"a training mask has the values {torch.unique(mask).tolist()}; expected class indices "
            f"0..{num_classes - 1}, or {IGNORE} for unlabelled"
        )

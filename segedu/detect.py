"""Training for objects: the five losses of Mask R-CNN, and average precision; chapter 18 uses it.

The loop itself is in `segedu.loop`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu import loop
from segedu.config import TrainConfig
from segedu.data.instances import told_apart
from segedu.data.sample import InstanceSample
from segedu.data.transforms import Transform
from segedu.device import pick_device
from segedu.metrics.instances import InstanceAP
from segedu.parts import own_batches
from segedu.runs import Epoch, Run

DEFAULTS = TrainConfig()
THRESHOLD = 0.5
"""A pixel belongs to an object if its mask has at least this probability there."""


def fit_objects(
    model: nn.Module,
    train_data: Dataset[InstanceSample],
    val_data: Dataset[InstanceSample],
    *,
    config: TrainConfig = DEFAULTS,
    augment: Transform | None = None,
    checkpoint: Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place to find objects, and yield each epoch as it ends.

    An epoch's score is the masks' AP@[.50:.95] on the held-out samples, and its losses are those of
    the model by name. For checkpoints see `segedu.loop.run_epochs`.

    Args:
        model: As `segedu.models.mask_rcnn.model.MaskRCNN`.
        train_data: Samples with objects, of any sizes.
        val_data: The same.
        config: The run's settings.
        augment: Changes each training sample, anew in each epoch.
        checkpoint: Where to keep the run.
        about: What else the checkpoint should say: plain values only.

    Raises:
        InputError: If there is nothing to train on, an object has an unknown class, the checkpoint
            is of another run, or the loss is no longer a number.
    """
    task = loop.Task(
        losses=_losses,
        score=lambda trained: score_objects(trained, val_data, config=config).summary()["AP"],
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
def score_objects(
    model: nn.Module, data: Dataset[InstanceSample], *, config: TrainConfig
) -> InstanceAP:
    """The average precision of the masks found in all of `data`.

    COCO counts 100 detections of a picture and class; where the model finds more, as many count.

    In a group each picture is looked at by one process, and all get the whole.

    The model is left in evaluation mode, on the configured device.
    """
    device = pick_device(config.device)
    model.to(device).eval()
    scores = InstanceAP("mask", most=(1, 10, max(100, getattr(model, "most", 100))))
    for samples in loop.in_order(data, config):
        with loop.autocast(device, config):
            found = model([_plain(sample["image"], device) for sample in samples])
        for objects, sample in zip(found, samples, strict=True):
            masks = objects["masks"][:, 0] >= THRESHOLD
            detections = {**objects, "masks": masks}
            scores.update({k: v.cpu() for k, v in detections.items()}, _truth(sample))
    batches = own_batches(len(data), config.batch_size)  # type: ignore[arg-type]
    scores.join_processes([place for batch in batches for place in batch])
    return scores


def _losses(run: Run, batch: loop.Batch) -> dict[str, Tensor]:
    """The five losses of one batch, or of a part of it.

    What they are means of, such as the anchors drawn, is counted in each part by itself: so parts
    add up to nearly the whole batch's losses, not exactly.
    """
    images = [_plain(image, run.device) for image in batch["image"]]
    each = zip(*batch.values(), strict=True)
    targets = [_targets(dict(zip(batch, sample, strict=True)), run.device) for sample in each]
    with loop.autocast(run.device, run.config):
        losses: dict[str, Tensor] = run.model(images, targets)
    return losses


def _targets(sample: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """What is to be found in a picture: its objects, without crowds that nobody told apart."""
    single = told_apart(sample)
    return {name: _plain(sample[name], device)[single] for name in ("boxes", "labels", "masks")}


def _plain(value: Tensor, device: torch.device) -> Tensor:
    return value.as_subclass(Tensor).to(device, non_blocking=True)


def _truth(sample: InstanceSample) -> dict[str, Tensor]:
    """What a picture's detections are compared with."""
    names = {"labels": "labels", "masks": "masks", "crowd": "iscrowd"}
    return {
        names[name]: value.as_subclass(Tensor)  # type: ignore[attr-defined]
        for name, value in sample.items()
        if name in names
    }

"""A training run in progress: a model with what trains it, saved whole and gone on with exactly."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segedu import distributed
from segedu.checkpoints import load_checkpoint, load_weights, save_checkpoint
from segedu.config import TrainConfig
from segedu.device import mixed_precision, pick_device
from segedu.errors import InputError
from segedu.models.layers import Backbone
from segedu.models.speed import compile_in_place, recompute_blocks
from segedu.models.sync_norm import synchronise


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave.

    Attributes:
        number: From 0.
        learning_rate: The last one.
        train_loss: Over the epoch's batches, as they were learnt from.
        val_score: Of the held-out data afterwards: a fraction in [0, 1], the mean IoU of classes or
            the average precision of objects.
        losses: What `train_loss` is the sum of, by name.
    """

    number: int
    learning_rate: float
    train_loss: float
    val_score: float
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """A model with what trains it, what it has gone through, and the best it has been.

    Attributes:
        model: On `device`, in the configured memory format.
        optimizer: AdamW over all the model's parameters.
        schedule: Steps once per batch.
        scaler: Scales the loss where 16 bits mean float16; does nothing elsewhere.
        device: Where to compute.
        config: The run's settings.
        history: The epochs so far.
        best: The weights after the epoch with the best validation score.
    """

    model: nn.Module
    optimizer: torch.optim.AdamW
    schedule: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler
    device: torch.device
    config: TrainConfig
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def add(self, epoch: Epoch) -> None:
        """Note an epoch that has ended, and keep its weights if they are the best so far."""
        if is_best(epoch, self.history):
            self.best = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.history.append(epoch)

    def is_stale(self) -> bool:
        """Whether the last `patience` epochs brought no better score than those before them."""
        return is_stale(self.history, self.config.patience)

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write all of the run to a checkpoint; in a group the first process does, and all wait.

        Raises:
            InputError: If it cannot be written; what was there before stays.
        """
        state = {
            "about": dict(about),
            "config": self.config.record(),
            "history": [asdict(epoch) for epoch in self.history],
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        if distributed.is_first():
            save_checkpoint(path, state)
        distributed.barrier()

    def resume(self, path: Path, about: Mapping[str, Any]) -> None:
        """Bring this run to where a checkpoint was made.

        Raises:
            InputError: If the checkpoint is of another model or of other settings, or is not whole.
        """
        state = load_checkpoint(path, device=self.device)
        _refuse_other_run(path, state, {**self.config.record(), **about})
        load_weights(self.model, state["model"], path)
        self.best = state["best"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        for part in ("optimizer", "schedule", "scaler"):
            getattr(self, part).load_state_dict(state[part])


def begin(model: nn.Module, samples: int, config: TrainConfig) -> Run:
    """A run that has not taken a step, for a model and a number of training samples.

    In a group all processes begin with the first one's weights, and batch normalisation is over the
    batches of all.
    """
    device = pick_device(config.device)
    if distributed.in_group():
        synchronise(model)
    memory_format = torch.channels_last if config.channels_last else torch.preserve_format
    model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    distributed.share_weights(model)
    if config.recompute:
        recompute_blocks(model)
    if config.compile:
        compile_in_place(model, device)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * math.ceil(samples / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, steps, config.warmup)
    )
    needs_scaling = config.amp and mixed_precision(device) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=needs_scaling)
    return Run(model, optimizer, schedule, scaler, device, config)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """The model's parameters for an optimiser: those of backbones, if any, at a rate of their own.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL
    2018, section 3.2, where each layer has a rate; here there are two.
    """
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    of_backbones = {id(weight) for module in backbones for weight in module.parameters()}
    inside = [weight for weight in model.parameters() if id(weight) in of_backbones]
    outside = [weight for weight in model.parameters() if id(weight) not in of_backbones]
    groups = [
        {"params": outside, "lr": config.learning_rate},
        {"params": inside, "lr": config.learning_rate * config.backbone_rate},
    ]
    return [group for group in groups if group["params"]]


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share of its maximum at `step` of 0..`steps`.

    It rises in a straight line over the first `warmup` of the steps, then falls along a half
    cosine to 0 at the end.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5, without restarts; the warm-up from
    Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))


def is_best(epoch: Epoch, history: list[Epoch]) -> bool:
    """Whether `epoch` beats all before it; the first always does, and nan never beats a number."""
    scores = [before.val_score for before in history if not math.isnan(before.val_score)]
    return not history or epoch.val_score > max(scores, default=-1.0)


def is_stale(history: list[Epoch], patience: int) -> bool:
    """Whether the last `patience` epochs brought no better score than the epochs before them."""
    if len(history) <= patience:
        return False
    best_before = max(epoch.val_score for epoch in history[:-patience])
    return all(epoch.val_score <= best_before for epoch in history[-patience:])


def _refuse_other_run(path: Path, state: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Going on with other settings would end somewhere that neither run would have come to."""
    kept = {**TrainConfig().record(), **state["config"], **state["about"]}  # older ones lack some
    for name, value in wanted.items():
        if kept.get(name) != value:
            raise InputError(
                f"{path}: is a checkpoint of another run: {name} was {kept.get(name)!r}, now "
                f"{value!r}; use the settings it was made with, or another --checkpoint"
            )

"""What `segedu train` does with each data set: how it cuts, varies and repeats the pictures, and for how long."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset

from segedu.checkpoints import load_checkpoint, load_weights
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.sample import Sample
from segedu.data.transforms import Transform, random_crop
from segedu.errors import InputError
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.registry import build
from segedu.runs import Epoch
from segedu.train import evaluate, fit


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train on one data set.

    Attributes:
        config: The run's settings, before the user's own.
        crop: (height, width) of the training crops in pixels; None keeps pictures whole.
        scale: Range of the random enlargement before the crop.
        upright: Whether up must stay up.
        colour: Strength of the random changes of colour.
        repeats: How often a picture is seen in one epoch, each time with another crop.
        options: The model's own arguments.
    """

    config: TrainConfig
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    upright: bool = False
    colour: float = 0.0
    repeats: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def augment(self) -> Transform | None:
        """The change made to each training sample."""
        if self.crop is None:
            return None
        return random_crop(*self.crop, scale=self.scale, upright=self.upright, colour=self.colour)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "scenes": Recipe(config=TrainConfig(epochs=12, batch_size=8, learning_rate=5e-3)),
        "membranes": Recipe(
            config=TrainConfig(epochs=20, batch_size=8, learning_rate=3e-3),
            crop=(192, 192),
            scale=(0.8, 1.25),
            colour=0.2,
            repeats=8,
        ),
        "nuclei": Recipe(
            config=TrainConfig(epochs=20, batch_size=8, learning_rate=3e-3),
            crop=(192, 192),
            scale=(0.7, 1.4),
            colour=0.3,
            repeats=2,
        ),
        "camvid": Recipe(
            config=TrainConfig(epochs=30, batch_size=8, learning_rate=3e-3),
            crop=(192, 256),
            scale=(0.5, 1.0),
            upright=True,
            colour=0.3,
        ),
    }
)
"""The recipes that were tried out; every other set has `OTHER`."""

OTHER = Recipe(
    config=TrainConfig(epochs=30, batch_size=8, learning_rate=3e-3),
    crop=(192, 192),
    scale=(0.6, 1.2),
    upright=True,
    colour=0.2,
)


@dataclass(frozen=True)
class Plan:
    """A model, its data and its settings: ready to train, or to score."""

    model: nn.Module
    train_data: Dataset[Sample]
    val_data: Dataset[Sample]
    classes: tuple[str, ...]
    config: TrainConfig
    augment: Transform | None
    about: Mapping[str, Any]

    def train(self, checkpoint: Path) -> Iterator[Epoch]:
        """Train, or go on with what `checkpoint` holds; yields each epoch as it ends."""
        return fit(
            self.model,
            self.train_data,
            self.val_data,
            num_classes=len(self.classes),
            config=self.config,
            augment=self.augment,
            checkpoint=checkpoint,
            about=self.about,
        )

    def score(self, checkpoint: Path) -> ConfusionMatrix:
        """The held-out counts of the best epoch in `checkpoint`."""
        state = load_checkpoint(checkpoint)
        load_weights(self.model, state["best"], checkpoint)
        return evaluate(
            self.model, self.val_data, num_classes=len(self.classes), config=self.config
        )


def prepare(data: str, model: str, settings: Mapping[str, Any]) -> Plan:
    """What `segedu train --data DATA --model MODEL` and further settings mean.

    The model's first weights depend on the seed alone.

    Args:
        data: A name of the catalogue, or a folder with `images/` and `masks/`.
        model: A name of the models' registry.
        settings: Fields of `TrainConfig` that replace the recipe's.

    Raises:
        InputError: If there is no such set or model, or the set has no classes to learn.
    """
    recipe = RECIPES.get(data, OTHER)
    train_data, val_data = (catalog.load(data, split=split) for split in ("train", "val"))
    if "mask" not in train_data[0]:
        raise InputError(f"--data {data}: has outlines but no classes; choose a set with masks")
    config = replace(recipe.config, **settings)
    classes = tuple(train_data.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build(model, len(classes), **recipe.options)
    return Plan(
        model=network,
        train_data=ConcatDataset([train_data] * recipe.repeats),
        val_data=val_data,
        classes=classes,
        config=config,
        augment=recipe.augment(),
        about={
            "data": data,
            "model": model,
            "classes": list(classes),
            "options": dict(recipe.options),
        },
    )

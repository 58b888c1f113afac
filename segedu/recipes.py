"""What `segedu train` does with each data set: how pictures are cut, varied and repeated."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from segedu.checkpoints import load_checkpoint, load_weights
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.folder import Folder
from segedu.data.sample import Sample
from segedu.data.transforms import Transform, random_crop
from segedu.errors import InputError
from segedu.losses import cross_entropy_loss, lovasz_loss
from segedu.losses.form import Logits, Scalar, Target
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.registry import build, load_pretrained
from segedu.runs import Epoch
from segedu.train import Loss, evaluate, fit


def cross_entropy_and_lovasz(logits: Logits, target: Target) -> Scalar:
    """Both losses added: every pixel counts in the one, every class in the other.

    The second sorts pixels, so it takes every second row and column.
    """
    fewer = lovasz_loss(logits[..., ::2, ::2], target[..., ::2, ::2])
    return cross_entropy_loss(logits, target) + fewer


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train on one data set.

    Attributes:
        config: The run's settings, before the user's own.
        crop: (height, width) of the training crops in pixels; None keeps pictures whole.
        scale: Range of the random enlargement before the crop.
        upright: Whether up must stay up.
        colour: Strength of the random changes of colour.
        epoch_size: About how many pictures an epoch has. Each is repeated, with another crop, as
            often as comes nearest: so a run takes about as long on a part of a set as on all of it.
        loss: From logits and target to a scalar.
        widths: Channels of each level of a plain U-Net; other models have their own.
        shrink: By what factor the model's input is shrunk, and its output enlarged; 1 for not.
        views: At which scales, and mirrored, the model looks at a picture to predict.
    """

    config: TrainConfig
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    upright: bool = False
    colour: float = 0.0
    epoch_size: int = 1
    loss: Loss = cross_entropy_loss
    widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    shrink: int = 1
    views: tuple[float, ...] = ()

    def options(self, model: str) -> dict[str, Any]:
        """The arguments of the model's constructor."""
        around = {"shrink": self.shrink, "views": list(self.views)}
        return around | ({"widths": list(self.widths)} if model == "unet" else {})

    def repeats(self, pictures: int) -> int:
        """How often each of so many pictures is seen in an epoch."""
        return max(1, round(self.epoch_size / pictures))

    def augment(self) -> Transform | None:
        """The change made to each training sample."""
        if self.crop is None:
            return None
        return random_crop(*self.crop, scale=self.scale, upright=self.upright, colour=self.colour)


FOUR_LEVELS = (16, 32, 64, 128)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "scenes": Recipe(
            config=TrainConfig(epochs=8, batch_size=8, learning_rate=1.2e-2, warmup=0.3),
            widths=(16, 32, 64, 96),
        ),
        "membranes": Recipe(
            config=TrainConfig(epochs=40, batch_size=8, learning_rate=5e-3),
            crop=(192, 192),
            scale=(0.8, 1.25),
            colour=0.2,
            epoch_size=144,
            widths=FOUR_LEVELS,
        ),
        "nuclei": Recipe(
            config=TrainConfig(epochs=30, batch_size=8, learning_rate=5e-3),
            crop=(192, 192),
            scale=(0.5, 1.4),
            colour=0.6,
            epoch_size=156,
            widths=FOUR_LEVELS,
        ),
        "camvid": Recipe(
            config=TrainConfig(epochs=36, batch_size=8, learning_rate=6e-3),
            crop=(320, 448),
            scale=(0.8, 1.3),
            upright=True,
            colour=0.3,
            shrink=2,  # a wide view is worth more than fine detail
        ),
    }
)
"""The recipes that were tried out; every other set has `OTHER`."""

PRETRAINED: Mapping[str, Recipe] = MappingProxyType(
    {
        "camvid": Recipe(
            config=TrainConfig(
                epochs=6, batch_size=8, learning_rate=1e-3, backbone_rate=0.2, warmup=0.1
            ),
            crop=(256, 352),
            scale=(0.6, 1.6),
            upright=True,
            colour=0.4,
            epoch_size=1470,
            loss=cross_entropy_and_lovasz,
            views=(0.75, 1.0, 1.5),
        ),
    }
)
"""The recipes for a backbone that begins with ImageNet's weights, where another one does better."""

OTHER = Recipe(
    config=TrainConfig(epochs=30, batch_size=8, learning_rate=5e-3),
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
    loss: Loss
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
            loss=self.loss,
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


def prepare(
    data: str, model: str, settings: Mapping[str, Any], *, pretrained: bool = False
) -> Plan:
    """What `segedu train --data DATA --model MODEL` and further settings mean.

    The model's first weights depend on the seed alone.

    Args:
        data: A name of the catalogue, or a folder with `images/` and `masks/`.
        model: A name of the models' registry.
        settings: Fields of `TrainConfig` that replace the recipe's.
        pretrained: Whether the model's backbone begins with ImageNet's weights.

    Raises:
        InputError: If there is no such set or model, the set has no classes to learn, or there are
            no pretrained weights.
    """
    recipe = PRETRAINED.get(data) if pretrained else None
    recipe = recipe or RECIPES.get(data, OTHER)
    train_data, val_data, classes = _open(data)
    config = replace(recipe.config, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        options = recipe.options(model)
        network = build(model, len(classes), **options)
    begun = load_pretrained(network, model) if pretrained else "random"
    return Plan(
        model=network,
        train_data=ConcatDataset([train_data] * recipe.repeats(len(train_data))),  # type: ignore[arg-type]
        val_data=val_data,
        classes=classes,
        config=config,
        augment=recipe.augment(),
        loss=recipe.loss,
        about={
            "data": Path(data).name,
            "model": model,
            "classes": list(classes),
            "options": options,
            "begun_from": begun,
        },
    )


def _open(data: str) -> tuple[Dataset[Sample], Dataset[Sample], tuple[str, ...]]:
    """What to learn from, what is held out, and the classes' names."""
    if Path(data).is_dir():
        return _open_folder(Path(data))
    train_data, val_data = (catalog.load(data, split=split) for split in ("train", "val"))
    if "mask" not in train_data[0]:
        raise InputError(f"--data {data}: has no classes to learn; choose a set with masks")
    return train_data, val_data, tuple(train_data.classes)


def _open_folder(folder: Path) -> tuple[Dataset[Sample], Dataset[Sample], tuple[str, ...]]:
    """A reader's own pictures: every fifth, in the order of their names, is held out.

    `classes.txt`, if it is there, names the classes, one a line, from class 0.
    """
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise InputError(f"--data {folder}: expected the folders images/ and masks/ in it")
    names = folder / "classes.txt"
    classes = tuple(names.read_text(encoding="utf-8").split("\n")) if names.is_file() else ()
    pictures = Folder(
        images, masks, tuple(name.strip() for name in classes if name.strip()) or None
    )
    if len(pictures) < 2:
        raise InputError(f"--data {folder}: has one picture; expected two or more, to hold one out")
    held_out = range(0, len(pictures), 5)
    learned = [i for i in range(len(pictures)) if i not in held_out]
    return Subset(pictures, learned), Subset(pictures, held_out), pictures.classes

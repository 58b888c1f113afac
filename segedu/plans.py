"""What `segedu train --data DATA --model MODEL` means: a model and its data, ready to train."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from segedu.checkpoints import load_checkpoint, load_weights
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.folder import Folder
from segedu.data.sample import Sample
from segedu.data.transforms import Transform
from segedu.detect import fit_objects, score_objects
from segedu.errors import InputError
from segedu.models.registry import MODELS, build, load_pretrained
from segedu.recipes import recipe_for
from segedu.runs import Epoch
from segedu.train import Loss, evaluate, fit


@dataclass(frozen=True)
class Scores:
    """How good a model is on held-out pictures.

    Attributes:
        name: Of the score: "mean IoU" or "mask AP".
        whole: The score.
        parts: By class, or the further numbers by their names.
    """

    name: str
    whole: float
    parts: Mapping[str, float]


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

    score_name = "mean IoU"

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

    def score(self, checkpoint: Path) -> Scores:
        """How good the best epoch in `checkpoint` is on held-out pictures."""
        self._load(checkpoint)
        counts = evaluate(
            self.model, self.val_data, num_classes=len(self.classes), config=self.config
        )
        parts = dict(zip(self.classes, counts.iou().tolist(), strict=True))
        return Scores(self.score_name, counts.mean_iou(), parts)

    def _load(self, checkpoint: Path) -> None:
        """The weights of the best epoch."""
        load_weights(self.model, load_checkpoint(checkpoint)["best"], checkpoint)


class ObjectPlan(Plan):
    """The same for a model that finds objects; its loss is its own."""

    score_name = "mask AP"

    def train(self, checkpoint: Path) -> Iterator[Epoch]:
        """Train, or go on with what `checkpoint` holds; yields each epoch as it ends."""
        return fit_objects(
            self.model,
            self.train_data,  # type: ignore[arg-type]
            self.val_data,  # type: ignore[arg-type]
            config=self.config,
            augment=self.augment,
            checkpoint=checkpoint,
            about=self.about,
        )

    def score(self, checkpoint: Path) -> Scores:
        """How good the best epoch in `checkpoint` is on held-out pictures."""
        self._load(checkpoint)
        numbers = score_objects(self.model, self.val_data, config=self.config).summary()  # type: ignore[arg-type]
        return Scores(self.score_name, numbers["AP"], numbers)


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
    objects = model in MODELS and MODELS[model].objects
    recipe = recipe_for(data, pretrained=pretrained, objects=objects)
    train_data, val_data, classes = _open(data, recipe.drawn)
    if objects and "masks" not in train_data[0]:
        raise InputError(
            f"--data {data}: says nothing of single objects, which {model} finds; choose scenes, "
            "nuclei or coco, or a model that labels pixels"
        )
    config = replace(recipe.config, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        options = recipe.options(model)
        network = build(model, len(classes), **options)
    begun = load_pretrained(network, model) if pretrained else "random"
    return (ObjectPlan if objects else Plan)(
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


def _open(
    data: str, drawn: Mapping[str, Any]
) -> tuple[Dataset[Sample], Dataset[Sample], tuple[str, ...]]:
    """What to learn from, what is held out, and the classes' names."""
    if Path(data).is_dir():
        return _open_folder(Path(data))
    train_data, val_data = (catalog.load(data, split=split, **drawn) for split in ("train", "val"))
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

"""What `segedu train` does with each data set: how pictures are cut, varied and repeated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from segedu.config import TrainConfig
from segedu.data.transforms import Transform, random_crop, random_crop_of_objects
from segedu.losses import cross_entropy_loss, lovasz_loss
from segedu.losses.form import Logits, Scalar, Target
from segedu.train import Loss


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
        drawn: Arguments of a set that is drawn on demand.
        most: How many objects of a picture are found, at most.
        objects: Whether to find objects; otherwise each pixel's class.
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
    drawn: Mapping[str, Any] = field(default_factory=dict)
    most: int = 100
    objects: bool = False

    def options(self, model: str) -> dict[str, Any]:
        """The arguments of the model's constructor."""
        if self.objects:
            return {"operators": "quick", "most": self.most}
        around = {"shrink": self.shrink, "views": list(self.views)}
        return around | ({"widths": list(self.widths)} if model == "unet" else {})

    def repeats(self, pictures: int) -> int:
        """How often each of so many pictures is seen in an epoch."""
        return max(1, round(self.epoch_size / pictures))

    def augment(self) -> Transform | None:
        """The change made to each training sample."""
        if self.crop is None:
            return None
        cropped = random_crop_of_objects if self.objects else random_crop
        return cropped(*self.crop, scale=self.scale, upright=self.upright, colour=self.colour)


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

OBJECTS: Mapping[str, Recipe] = MappingProxyType(
    {
        "scenes": Recipe(
            config=TrainConfig(epochs=6, batch_size=4, learning_rate=2e-3),
            drawn={"size": 128},
            crop=(128, 128),  # the whole, mirrored and turned
            objects=True,
        ),
        "nuclei": Recipe(
            config=TrainConfig(epochs=8, batch_size=4, learning_rate=2e-3),
            crop=(192, 192),
            scale=(0.7, 1.4),
            colour=0.4,
            epoch_size=624,
            most=400,
            objects=True,
        ),
    }
)
"""The recipes for models that find objects."""

OTHER_OBJECTS = Recipe(
    config=TrainConfig(epochs=30, batch_size=4, learning_rate=1e-3),
    crop=(256, 256),
    scale=(0.5, 1.0),
    upright=True,
    colour=0.3,
    objects=True,
)


def recipe_for(data: str, *, pretrained: bool, objects: bool) -> Recipe:
    """The recipe of a data set, and of what is to be learnt on it."""
    if objects:
        return OBJECTS.get(data, OTHER_OBJECTS)
    known = {**RECIPES, **PRETRAINED} if pretrained else RECIPES
    return known.get(data, OTHER)

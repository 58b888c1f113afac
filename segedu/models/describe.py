"""What a model costs and how far it sees: a row of `segedu models`."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segedu.models.registry import MODELS, build

SIZE = 256
"""Height and width of the image for which multiplications are counted."""
STRIP = 4096
"""Columns of the strip on which receptive fields are measured."""


@dataclass(frozen=True)
class Description:
    """What a model costs and how far it sees.

    Attributes:
        name: In the registry.
        parameters: Its weights.
        macs: Multiplications with addition, of convolutions and matrices, for one image of `SIZE` x
            `SIZE`. What finds objects works on as many regions as it is given by random weights.
        receptive_field: Columns of the image that one pixel's scores depend on; None for all, or
            where there are no pixels' scores but objects.
        rule: What images it takes.
    """

    name: str
    parameters: int
    macs: int
    receptive_field: int | None
    rule: str


def describe_all(num_classes: int = 21) -> Iterator[Description]:
    """A description of each model, as it is built without further options."""
    for name, entry in MODELS.items():
        model = build(name, num_classes).eval()
        yield Description(
            name=name,
            parameters=sum(weight.numel() for weight in model.parameters()),
            receptive_field=None if entry.objects else columns_seen(model, height=entry.smallest),
            macs=(
                multiplications(model, objects=True)
                if entry.objects
                else multiplications(model.to("meta"))
            ),
            rule=entry.rule,
        )


def multiplications(model: nn.Module, *, objects: bool = False) -> int:
    """Multiplications with addition for one image of `SIZE` x `SIZE`.

    Args:
        model: May be on the meta device if it labels pixels.
        objects: Whether it finds objects, and so takes a list of images.
    """
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        images = torch.zeros(1, 3, SIZE, SIZE, device=device)
        model(list(images) if objects else images)
    return int(counter.get_total_flops()) // 2


def columns_seen(model: nn.Module, *, height: int = 1) -> int | None:
    """How many columns of the image the scores of a pixel depend on; None if on all of them.

    Args:
        model: In evaluation mode.
        height: Rows of the strip on which it is measured; the least that the model takes.

    One pixel of a strip is not a number, and so all that depends on it becomes none either. This
    counts the outputs that one input reaches: as many as the inputs that an output sees, but for a
    few columns, since with strides both vary with the place. It is the largest of eight
    neighbours'.
    """
    weight = next(model.parameters(), None)
    device = "cpu" if weight is None else weight.device
    widths = []
    for place in range(STRIP // 2, STRIP // 2 + 8):
        strip = torch.zeros(1, 3, height, STRIP, device=device)
        strip[..., place] = torch.nan
        with torch.inference_mode():
            reached = model(strip).isnan().any(dim=1).any(dim=1)[0]
        widths.append(int(reached.sum()))
    return None if max(widths) == STRIP else max(widths)

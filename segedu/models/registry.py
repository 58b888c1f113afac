"""The models by name: what `segedu train --model NAME` and a checkpoint mean by it."""

import difflib
import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from segedu.errors import InputError
from segedu.models.layers import Shrunk

MODELS: Mapping[str, str] = MappingProxyType({"unet": "unet:UNet"})
"""Each model's constructor, as MODULE:CLASS within `segedu.models`."""


def build(name: str, num_classes: int, *, shrink: int = 1, **options: Any) -> nn.Module:
    """A new model with random weights.

    Args:
        name: One of `MODELS`.
        num_classes: C, the number of classes.
        shrink: By what factor the model's input is shrunk, and its output enlarged; 1 for not.
        options: Further arguments of the model's constructor.

    Raises:
        InputError: If there is no such model.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name.lower(), MODELS, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no model {name!r}; {meant}choose one of: {', '.join(MODELS)}")
    module, constructor = MODELS[name].split(":")
    model: nn.Module = getattr(importlib.import_module(f"segedu.models.{module}"), constructor)(
        num_classes, **options
    )
    return Shrunk(model, shrink) if shrink > 1 else model

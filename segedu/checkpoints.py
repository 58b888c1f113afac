"""Checkpoints: all that a run needs to go on, or a model to be used, in one file.

A checkpoint is written whole or not at all, and read with `weights_only=True`: it holds tensors,
numbers, strings, lists and dicts, and can run no code.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segedu.errors import InputError
from segedu.files import whole_file

FORMAT = "segedu.checkpoint/1"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` to `path`; if that fails, what was there before stays.

    Raises:
        InputError: If it cannot be written: no space left, no such disk, no permission.
    """
    try:
        with whole_file(path) as unfinished:
            torch.save({"format": FORMAT, **state}, unfinished)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise InputError(
            f"{path}: the checkpoint could not be written ({_first_line(error)}); the one "
            "before it, if any, is untouched; free some space or choose another --checkpoint"
        ) from error


def load_checkpoint(path: Path, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """What `save_checkpoint` wrote.

    Raises:
        InputError: If the file is missing, truncated, or not one of ours.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint; make one with `segedu train`") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: not a whole checkpoint ({_first_line(error)}); copy it again, or delete it "
            "and train anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path}: holds no {FORMAT!r}; expected a file made by `segedu train`")
    return state


def load_weights(model: nn.Module, weights: Mapping[str, Any], path: Path) -> None:
    """Put weights into a model that must be of the same make.

    Raises:
        InputError: If names or shapes differ: the checkpoint is of another model.
    """
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*own, *theirs]:
        if own.get(name) != theirs.get(name):
            raise InputError(
                f"{path}: is a checkpoint of another model: {name} has shape "
                f"{theirs.get(name, 'none')}, expected {own.get(name, 'none')}; name the model and "
                "data that it was trained with, or another file"
            )
    model.load_state_dict(dict(weights))


def _first_line(error: Exception) -> str:
    """The start of an error's message, fit for one line."""
    return (str(error) or type(error).__name__).strip().splitlines()[0][:120]

"""Where the epochs of a run are noted, to be watched as it runs: TensorBoard, or Weights & Biases.

`fit` prints and writes nothing: it yields epochs, and the caller's `for` hands each one to a log.
Chapter 11 uses it.
"""

import importlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.runs import Epoch

Log = Callable[[Epoch], None]


@contextmanager
def tensorboard_log(folder: Path, about: Mapping[str, Any]) -> Iterator[Log]:
    """A function that writes an epoch's numbers to event files in `folder`, as TensorBoard reads.

    A run that goes on writes a further file there, whose first event says from which epoch on older
    events no longer count: so each epoch is in the log once, also when a run was begun anew.

    Args:
        folder: Made when the first epoch is noted.
        about: What the log should say of the run: plain values only.

    Raises:
        InputError: If TensorBoard is not installed.

    Example:
        with tensorboard_log(Path("runs/a"), config.record()) as note:
            for epoch in fit(model, train_data, val_data, num_classes=6, config=config):
                note(epoch)
    """
    tensorboard = _package("torch.utils.tensorboard", "tensorboard")
    writer = None

    def note(epoch: Epoch) -> None:
        nonlocal writer
        if writer is None:
            writer = tensorboard.SummaryWriter(str(folder), purge_step=epoch.number)
            writer.add_text("about", _as_code(about), epoch.number)
        for name, value in _numbers(epoch).items():
            writer.add_scalar(name, value, epoch.number)
        writer.flush()  # a run that is killed keeps what it noted

    try:
        yield note
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def wandb_log(folder: Path, about: Mapping[str, Any]) -> Iterator[Log]:
    """A function that notes an epoch's numbers with Weights & Biases, in files below `folder`.

    Nothing leaves this machine unless the environment variable WANDB_MODE says "online"; the
    command `wandb sync` sends the files later. A run that goes on has the id of the one that it
    goes on with, which is kept in `folder/wandb-id.txt`.

    Args:
        folder: Made when the first epoch is noted.
        about: What the log should say of the run: plain values only.

    Raises:
        InputError: If wandb is not installed.
    """
    wandb = _package("wandb", "wandb")
    run = None

    def note(epoch: Epoch) -> None:
        nonlocal run
        if run is None:
            folder.mkdir(parents=True, exist_ok=True)
            mode = os.environ.get("WANDB_MODE", "offline")
            run = wandb.init(
                project="segedu",
                id=_run_id(folder, is_new=epoch.number == 0),
                resume=None if mode == "offline" else "allow",
                mode=mode,
                dir=str(folder),
                config=dict(about),
                settings=wandb.Settings(silent=True),
            )
        run.log(_numbers(epoch), step=epoch.number)

    try:
        yield note
    finally:
        if run is not None:
            run.finish()
            wandb.teardown()  # or a run that goes on in this process may lose what it notes


@contextmanager
def no_log(folder: Path, about: Mapping[str, Any]) -> Iterator[Log]:
    """A function that notes nothing."""
    del folder, about
    yield lambda _epoch: None


LOGS: Mapping[str, Callable[[Path, Mapping[str, Any]], AbstractContextManager[Log]]] = (
    MappingProxyType({"none": no_log, "tensorboard": tensorboard_log, "wandb": wandb_log})
)
"""The logs by name: what `segedu train --log NAME` means."""


def open_log(name: str, folder: Path, about: Mapping[str, Any]) -> AbstractContextManager[Log]:
    """The log of this name.

    Raises:
        InputError: If there is none, or its package is not installed.
    """
    if name not in LOGS:
        raise InputError(f"--log {name}: no such log; choose one of: {', '.join(LOGS)}")
    return LOGS[name](folder, about)


def _numbers(epoch: Epoch) -> dict[str, float]:
    """What is noted of an epoch, besides its number."""
    numbers = asdict(epoch)
    parts = numbers.pop("losses")
    several = {f"losses/{name}": value for name, value in parts.items()} if len(parts) > 1 else {}
    return {**several, **{name: value for name, value in numbers.items() if name != "number"}}


def _as_code(about: Mapping[str, Any]) -> str:
    """Settings as JSON, indented as Markdown wants code."""
    lines = json.dumps(dict(about), indent=2, default=str).splitlines()
    return "\n".join(f"    {line}" for line in lines)


def _run_id(folder: Path, *, is_new: bool) -> str:
    """The id of the run in `folder`, or a new one, which is kept there."""
    path = folder / "wandb-id.txt"
    if not is_new and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    run_id = uuid.uuid4().hex[:12]
    with whole_file(path) as unfinished:
        unfinished.write_text(run_id + "\n", encoding="utf-8")
    return run_id


def _package(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"--log {name}: the package {name} is not installed; run `pip install {name}`, or "
            "choose another log"
        ) from error

"""Subcommands that learn: `train`, `models`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segedu.cli.app import app
from segedu.cli.form import command, settings_as_options

if TYPE_CHECKING:
    from segedu.plans import Plan


@command(app, "train")
@settings_as_options
def train(
    data: Annotated[
        str,
        typer.Option(help="A set from `segedu data list`, or a folder with images/ and masks/."),
    ],
    model: Annotated[str, typer.Option(help="The model.")] = "unet",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep the run, or the run to go on with. By default runs/DATA-MODEL.pt."
        ),
    ] = None,
    pretrained: Annotated[  # noqa: FBT002
        bool, typer.Option(help="Begin with a backbone trained on ImageNet.")
    ] = False,
    log: Annotated[
        str,
        typer.Option(
            "--log",
            "--log-to",
            help="tensorboard or wandb: note each epoch in a folder by the checkpoint. torchrun "
            "takes --log for an option of its own: write --log-to there.",
        ),
    ] = "none",
    settings: dict[str, Any] | None = None,
) -> None:
    """Train a model, keep it in a checkpoint, and score it on the held-out pictures.

    Each set has a recipe; the options below replace single settings of it. With several GPUs or
    machines: torchrun --nproc-per-node N -m segedu train ..., with the same options.
    """
    from segedu.distributed import joined
    from segedu.plans import prepare

    run = prepare(data, model, settings or {}, pretrained=pretrained)
    path = checkpoint or Path("runs") / f"{Path(data).name}-{model}.pt"
    with joined(run.config.device):
        for line in _trained(run, path, log, pretrained=pretrained):
            print(line, flush=True)


def _trained(run: "Plan", path: Path, log: str, *, pretrained: bool) -> Iterator[str]:
    """Train and score; the lines that say how it goes, all of them in the first process alone."""
    from segedu.distributed import is_first
    from segedu.loggers import open_log

    def said(*lines: str) -> Iterable[str]:
        return lines if is_first() else ()

    if pretrained:
        yield from said(f"backbone: {run.about['begun_from']}")
    about = {**run.about, **run.config.record()}
    chosen = log if is_first() else "none"
    with open_log(chosen, path.with_name(f"{path.stem}-log"), about) as note:
        for epoch in run.train(path):
            note(epoch)
            yield from said(
                f"epoch {epoch.number + 1}/{run.config.epochs}  loss {epoch.train_loss:.4f}  "
                f"held-out {run.score_name} {epoch.val_score:.4f}"
            )
    scores = run.score(path)
    yield from said(*(f"  {name:<12} {value:.4f}" for name, value in scores.parts.items()))
    yield from said(f"held-out {scores.name} {scores.whole:.4f} (best epoch); checkpoint: {path}")


@command(app, "models")
def models() -> None:
    """Every model: weights, multiplications, receptive field, and what images it takes."""
    from segedu.models.describe import SIZE, describe_all
    from segedu.models.registry import MODELS

    print(f"{'':<24} {'weights':>9} {f'MACs, {SIZE}':>10}  {'sees':>12}  takes")
    for row in describe_all():
        sees = "regions" if MODELS[row.name].objects else f"{row.receptive_field or 'all'} columns"
        print(
            f"{row.name:<24} {row.parameters / 1e6:7.1f} M {row.macs / 1e9:8.1f} G  {sees:>12}  "
            f"{row.rule}",
            flush=True,
        )

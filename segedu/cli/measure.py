"""The subcommand that measures this machine: `bench`."""

from typing import Annotated

import typer

from segedu.cli.app import app
from segedu.cli.form import command


@command(app, "bench")
def bench(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    model: Annotated[str, typer.Option(help="A model of `segedu models`.")] = "unet",
    data: Annotated[str, typer.Option(help="A set from `segedu data list`.")] = "scenes",
    size: Annotated[int, typer.Option(help="Height and width of the pictures.")] = 128,
    batch: Annotated[int, typer.Option(help="Pictures in a training step.")] = 8,
    steps: Annotated[int, typer.Option(help="Training steps with each setting.")] = 5,
    compiled: Annotated[  # noqa: FBT002
        bool, typer.Option("--compile", help="Try torch.compile too; takes a minute or more.")
    ] = False,
) -> None:
    """Measure how fast this machine trains, what limits it, and which settings to use."""
    from segedu.profiling.bench import Bench

    options = {"size": size, "batch": batch, "steps": steps}
    for line in Bench(device=device, model=model, data=data, compiled=compiled, **options).run():
        print(line, flush=True)

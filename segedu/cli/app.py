"""The command itself and its groups; the modules beside this one put their subcommands into it."""

from typing import Annotated

import typer

from segedu import __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(no_args_is_help=True, help="The annotated images: what there is, and where.")
notebooks_app = typer.Typer(no_args_is_help=True, help="The course's notebooks.")
app.add_typer(data_app, name="data")
app.add_typer(notebooks_app, name="notebooks")


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,  # noqa: FBT002
) -> None:
    """Learn image segmentation: the course's data, models, training and notebooks."""
    if version:
        print(f"segedu {__version__}")
        raise typer.Exit

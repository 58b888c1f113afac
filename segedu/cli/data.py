"""Subcommands for the annotated images: `data list`, `data get`, `data where`."""

from typing import Annotated

import typer

from segedu.cli.app import data_app
from segedu.cli.form import command

SetName = Annotated[str, typer.Argument(help="A name from `segedu data list`.")]


@command(data_app, "list")
def data_list() -> None:
    """Every data set, and how much of it is here."""
    from segedu.data.catalog import table

    for row in table():
        here = f"{row.present} of {row.total} files here" if row.total else "drawn on demand"
        print(f"{row.name:<10} {row.title}\n{'':<10} {here}; licence: {row.licence}")


@command(data_app, "get")
def data_get(name: SetName) -> None:
    """Download a data set, check every file of it, and put it in its place."""
    from segedu.data.download import get

    print(get(name))


@command(data_app, "where")
def data_where(name: SetName) -> None:
    """The folder of a data set, whether or not it is there."""
    from segedu.data.catalog import where

    print(where(name))

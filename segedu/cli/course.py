"""Subcommands for the chapters: `run`, `notebooks build`."""

from pathlib import Path
from typing import Annotated

import typer

from segedu.cli.app import app, notebooks_app
from segedu.cli.form import command

Course = Annotated[Path, typer.Option(help="The folder of the chapters.")]
Chapters = Annotated[
    list[str] | None, typer.Argument(help="Chapter numbers; all if none is given.")
]


@command(app, "run")
def run(
    chapters: Chapters = None,
    parameters: Annotated[
        Path | None, typer.Option(help="A YAML file of parameters by chapter.")
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for executed copies.")
    ] = Path("_build/course"),
    course: Course = Path("course"),
) -> None:
    """Run chapters from a clean state, and print a table of what they took."""
    from segedu.notebooks.run import format_table, run_chapters

    records = []
    try:
        for record in run_chapters(course, chapters or [], parameters_file=parameters, output=out):
            records.append(record)  # noqa: PERF402 - Ctrl-C must keep those that are finished
    finally:
        print(format_table(records))
    if any(record.failure for record in records):
        raise typer.Exit(1)


@command(notebooks_app, "build")
def build(
    chapters: Chapters = None,
    course: Course = Path("course"),
    language: Annotated[
        str | None,
        typer.Option(help="Translate the stored notebooks into COURSE/LANGUAGE: zh_CN."),
    ] = None,
    catalogues: Annotated[
        Path, typer.Option(help="The folder of the translations' catalogues.")
    ] = Path("book/locale"),
) -> None:
    """Make and run the notebooks from their sources in COURSE/source."""
    from segedu.notebooks.build import build_chapters
    from segedu.notebooks.translate import build_translated

    if language is None:
        for path in build_chapters(course, chapters or []):
            print(path, flush=True)
        return
    folder = catalogues / language / "LC_MESSAGES" / "course"
    for path, missing in build_translated(course, folder, language, chapters or []):
        print(path, f"({missing} parts still in English)" if missing else "", flush=True)

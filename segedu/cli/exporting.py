"""The subcommand `export`: a trained model as ONNX, or a class's grades for another system."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from segedu.cli.app import app
from segedu.cli.form import command
from segedu.errors import InputError

NEEDS_PERSON = 3


class Format(StrEnum):
    """What to write."""

    ONNX = "onnx"
    CSV = "csv"
    NBGRADER = "nbgrader"
    GRADESCOPE = "gradescope"
    MOODLE = "moodle"


@command(app, "export")
def export(  # noqa: PLR0913, PLR0917 - options of two things that are both called export
    what: Annotated[
        Path, typer.Argument(help="A checkpoint of `segedu train`, or a folder of graded work.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file; for gradescope, the folder.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="onnx for a model; the others are for grades.")
    ] = Format.ONNX,
    int8: Annotated[  # noqa: FBT002
        bool, typer.Option("--int8", help="onnx: weights and activations as 8-bit integers.")
    ] = False,
    calibrate: Annotated[
        str,
        typer.Option(help="For --int8: a set, or a folder of pictures, whose ranges are measured."),
    ] = "",
    pictures: Annotated[int, typer.Option(help="How many of them.")] = 32,
    worksheet: Annotated[
        Path | None, typer.Option(help="moodle: the grading worksheet that Moodle exported.")
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(help="Grades: CSV with the columns student, name, email.")
    ] = None,
    scale: Annotated[  # noqa: FBT002
        bool, typer.Option("--scale", help="moodle: scale marks to the worksheet's maximum.")
    ] = False,
) -> None:
    """Write a trained model to ONNX, or a class's grades for another system.

    The ONNX file takes RGB images in [0, 1], (batch, 3, height, width) of any size, gives logits,
    and is checked to agree. A grade that nobody knows is left empty and named; then it ends with 3.
    """
    if form is Format.ONNX:
        if what.is_dir():
            raise InputError(f"{what}: is a folder; for grades give --format csv, or another")
        from segedu.deploy import export_checkpoint

        target = out or Path("model.onnx")
        print(export_checkpoint(what, target, int8=int8, calibrate=calibrate, count=pictures))
        return
    if out is None:
        raise InputError("export: -o is missing; name what to write")
    _grades(form, what, out, worksheet, roster, scale=scale)


def _grades(
    form: Format,
    folder: Path,
    out: Path,
    worksheet: Path | None,
    roster: Path | None,
    *,
    scale: bool,
) -> None:
    """Write grades and say whose nobody knows."""
    from segedu.grading import export_grades
    from segedu.grading.marks import read_graded
    from segedu.grading.moodle import fill_worksheet
    from segedu.grading.roster import read_roster

    works, people = read_graded(folder), read_roster(roster) if roster else None
    if form is Format.MOODLE:
        if worksheet is None:
            raise InputError("--format moodle: needs --worksheet, the file that Moodle exported")
        done = fill_worksheet(works, worksheet, out, people, scale=scale)
    elif form is Format.GRADESCOPE:
        done = export_grades.export_gradescope(works, out)
    elif form is Format.NBGRADER:
        done = export_grades.export_nbgrader(works, out, people)
    else:
        done = export_grades.export_csv(works, out, people)
    print(f"{done.written} grades in {out}")
    for student, why in done.unknown.items():
        print(f"no grade: {student}: {why}")
    if done.unknown:
        raise typer.Exit(NEEDS_PERSON)

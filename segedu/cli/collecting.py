"""The subcommand `collect`: from an inbox to a folder of submissions."""

from pathlib import Path
from typing import Annotated

import typer

from segedu.cli.app import app
from segedu.cli.form import command

NEEDS_PERSON = 3


@command(app, "collect")
def collect(
    inbox: Annotated[Path, typer.Argument(help="What was handed in: a folder, or Moodle's zip.")],
    roster: Annotated[
        Path, typer.Option(help="CSV with the columns student, and perhaps name and email.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for STUDENT/NAME.ipynb.")
    ] = Path("submissions"),
    name: Annotated[str, typer.Option(help="The assignment's name.")] = "submission",
    arrivals: Annotated[
        Path | None, typer.Option(help="CSV with the columns student, arrived, perhaps file.")
    ] = None,
    worksheet: Annotated[
        Path | None, typer.Option(help="Moodle's grading worksheet; found if it is in INBOX.")
    ] = None,
    zone: Annotated[str, typer.Option(help="The time zone of the worksheet's times.")] = "UTC",
) -> None:
    """Take one notebook of each student out of an inbox, and say what became of everybody.

    Ends with 0 if everybody's is there, 3 if somebody's is not.
    """
    from segedu.errors import InputError
    from segedu.grading.collect import collect as collect_all
    from segedu.grading.collect import format_collected, read_times
    from segedu.grading.moodle_inbox import is_worksheet
    from segedu.grading.roster import read_roster

    if worksheet is None and inbox.is_dir():
        found = [path for path in sorted(inbox.glob("*.csv")) if is_worksheet(path)]
        if len(found) > 1:
            raise InputError(f"{inbox}: has {len(found)} worksheets; name one with --worksheet")
        worksheet = found[0] if found else None
    times = read_times(arrivals, worksheet, zone)
    rows = collect_all(inbox, out, read_roster(roster), times, name)
    print(format_collected(rows))
    if worksheet is not None:
        print(f"times of {worksheet.name} were read as {zone}; --zone says another")
    if any(row.status != "collected" for row in rows):
        raise typer.Exit(NEEDS_PERSON)

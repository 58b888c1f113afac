"""Subcommands for what comes after grading: `manual`, `feedback`, `report`; and `demo-class`."""

from pathlib import Path
from typing import Annotated

import typer

from segedu.cli.app import app
from segedu.cli.form import command

NEEDS_PERSON = 3
LONGEST_ANSWER = 600

Graded = Annotated[Path, typer.Argument(help="The folder that `segedu grade -o` wrote.")]
Roster = Annotated[Path | None, typer.Option(help="CSV with the columns student, name, email.")]


@command(app, "manual")
def manual(  # noqa: PLR0913, PLR0917 - each is an option of the command
    graded: Graded,
    student: Annotated[str | None, typer.Argument(help="Whose answer to mark.")] = None,
    question: Annotated[str | None, typer.Argument(help="Which answer.")] = None,
    marks: Annotated[float | None, typer.Argument(help="Its marks.")] = None,
    comment: Annotated[str, typer.Option(help="For the student to read.")] = "",
    grader: Annotated[str, typer.Option(help="Who gives the marks.")] = "",
    sheet: Annotated[
        Path | None, typer.Option(help="Write a CSV of the answers to mark, to be filled in.")
    ] = None,
    take: Annotated[Path | None, typer.Option(help="Take the marks of such a CSV.")] = None,
) -> None:
    """Show the answers that need a person, or give marks: one, or a table of them.

    Ends with 0 if nothing waits for a person, else 3.
    """
    from segedu.errors import InputError
    from segedu.grading.manual import give, take_sheet, waiting, write_sheet

    given = [part is not None for part in (student, question, marks)]
    if any(given) and not all(given):
        raise InputError("manual: expected STUDENT QUESTION MARKS together, or none of them")
    if student is not None and question is not None and marks is not None:
        print(give(graded, student, question, marks, comment, grader))
    if take is not None:
        print(f"{take_sheet(graded, take)} marks taken from {take}")
    if sheet is not None:
        print(f"{write_sheet(graded, sheet)} answers in {sheet}")
    left = list(waiting(graded))
    if not any(given) and take is None and sheet is None:
        for item in left:
            _show(item.student, f"{item.question} (of {item.most:g}): {item.why}", item.answer)
    print(f"{len(left)} answers need a person")
    if left:
        raise typer.Exit(NEEDS_PERSON)


def _show(student: str, head: str, answer: str) -> None:
    """An answer with its lines set in; what a terminal would act on is taken out."""
    from segedu.grading.shown import plain

    text = plain(answer)
    cut = text if len(text) <= LONGEST_ANSWER else text[:LONGEST_ANSWER] + " ..."
    print(f"{student}  {head}")
    print("\n".join(f"    {line}" for line in cut.split("\n")), end="\n\n")


@command(app, "feedback")
def feedback(
    graded: Graded,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the pages.")] = Path(
        "feedback"
    ),
    roster: Roster = None,
) -> None:
    """Write a page for each student: marks, messages, comments, and what was handed in."""
    from segedu.grading.feedback import write_feedback
    from segedu.grading.roster import read_roster

    people = read_roster(roster) if roster else None
    count = sum(1 for _ in write_feedback(graded, out, people))
    print(f"{count} pages in {out}/STUDENT/")


@command(app, "report")
def report(
    graded: Graded,
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path(
        "report.html"
    ),
    roster: Roster = None,
) -> None:
    """Write the class at a glance: marks, questions, misconceptions, who needs a person."""
    from segedu.grading.report import write_report
    from segedu.grading.roster import read_roster

    print(write_report(graded, out, read_roster(roster) if roster else None))


@command(app, "demo-class")
def demo_class(
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    source: Annotated[Path, typer.Option(help="The folder of the assignment's source.")] = Path(
        "course/assignments/masks_and_metrics"
    ),
    students: Annotated[int, typer.Option(help="How many hand in.")] = 30,
) -> None:
    """Make a class to try things on: an assignment, a roster, and an inbox as Moodle exports it."""
    from segedu.grading.demo_class import write_demo_class

    copied = write_demo_class(source, folder, students)
    print(f"{copied}  the assignment")
    print(f"{folder / 'roster.csv'}  {students} students")
    print(f"{folder / 'worksheet.csv'}  Moodle's grading worksheet")
    print(f"{folder / 'inbox'}  what they handed in")

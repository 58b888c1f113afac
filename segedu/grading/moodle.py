"""Moodle's grading worksheet, filled in: only grades and comments change.

Source: Moodle, `mod/assign/feedback/offline`: the columns Identifier, Grade and Last modified
(grade) must stay as they were exported, and a row is found by the number in its identifier.
"""

import csv
import html
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading.export_grades import Exported, message_of, why_unknown
from segedu.grading.marks import Graded
from segedu.grading.roster import Person
from segedu.grading.tables import harmless, seen

IDENTIFIER, NAME, EMAIL, ID_NUMBER = "Identifier", "Full name", "Email address", "ID number"
GRADE, MOST, OPEN, COMMENTS = (
    "Grade",
    "Maximum Grade",
    "Grade can be changed",
    "Feedback comments",
)
NEEDED = (IDENTIFIER, GRADE)


@dataclass(frozen=True)
class Worksheet:
    """A grading worksheet as Moodle exported it.

    Attributes:
        header: Its columns.
        rows: Each row by column.
        encoding: Of the file.
        newline: That ends its lines.
    """

    header: list[str]
    rows: list[dict[str, str]]
    encoding: str
    newline: str


@dataclass(frozen=True)
class _Match:
    """Which row is which student's."""

    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def read_worksheet(path: Path) -> Worksheet:
    """Read a worksheet.

    Raises:
        InputError: If it is no worksheet of Moodle's in English.
    """
    try:
        content = path.read_bytes()
        encoding = "utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8"
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8, as Moodle's worksheets are") from error
    newline = "\r\n" if "\r\n" in text else "\n"
    table = csv.DictReader(io.StringIO(text, newline=""))
    header = list(table.fieldnames or ())
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise InputError(
            f"{path}: has no column {' or '.join(missing)}; expected the grading worksheet that "
            "Moodle exports when it is set to English"
        )
    rows = [{name: row[name] or "" for name in header} for row in table]
    return Worksheet(header, rows, encoding, newline)


def fill_worksheet(
    graded: Iterable[Graded],
    source: Path,
    target: Path,
    roster: Mapping[str, Person] | None = None,
    *,
    scale: bool = False,
) -> Exported:
    """Write a copy of Moodle's worksheet with grades and comments.

    A student is found by the ID number, the email address on the roster, or the full name there,
    in that order, each only where it is one student's alone. Where Moodle says that a grade cannot
    be changed it is not.

    Args:
        graded: What was graded.
        source: The worksheet that Moodle exported.
        target: The file to write; it may be the same.
        roster: Names and email addresses by student.
        scale: Whether marks are scaled where Moodle's maximum is another; else that is refused.

    Raises:
        InputError: If Moodle's maximum is another, or the file is no worksheet.
    """
    sheet, people = read_worksheet(source), roster or {}
    works = list(graded)
    match = _match(works, sheet, people)
    unknown = dict.fromkeys(match.missing, "is not in the worksheet")
    unknown.update(dict.fromkeys(_without_work(works, people), "has no result"))
    written = 0
    for each in works:
        student = each.result.student
        row = match.rows.get(student)
        if row is None:
            continue
        if row.get(OPEN, "Yes").strip() == "No":
            unknown[student] = "Moodle says that the grade cannot be changed"
            continue
        if each.total is None:
            unknown[student] = why_unknown(each)
            continue
        row[GRADE] = _in_moodles(each.total, each.result.most, row, source, scale=scale)
        if COMMENTS in row:
            row[COMMENTS] = comments_of(each)
        written += 1
    _write(sheet, target)
    return Exported(written, unknown)


def comments_of(graded: Graded) -> str:
    """What the student reads in Moodle, which takes it for HTML: so everything is escaped."""
    result = graded.result
    lines = [f"{graded.total:g} of {result.most:g}"]
    for question in result.questions:
        score = graded.score_of(question) or 0.0
        said = message_of(graded, question)
        lines.append(
            f"{question.name}: {score:g} of {question.most:g}" + (f", {said}" if said else "")
        )
    if graded.penalty:
        lines.append(f"{result.late_days} days late: {graded.penalty:g} marks less")
    lines += [note for note in (result.reason, *result.repairs) if note]
    return harmless("<br>".join(html.escape(seen(" ".join(line.split()))) for line in lines))


def _in_moodles(
    marks: float, most: float, row: Mapping[str, str], source: Path, *, scale: bool
) -> str:
    """Marks as Moodle has them: two places, and a comma where the worksheet has commas."""
    stated = row.get(MOST, "")
    comma = "," in stated
    number = re.sub(r"[^\d.]", "", stated.replace(",", "."))
    theirs = float(number) if number else most
    if theirs != most and not scale:
        raise InputError(
            f"{source}: the maximum grade is {stated}, and there are {most:g} marks; set it to "
            f"{most:g} in Moodle and export anew, or give --scale"
        )
    text = f"{marks * theirs / most if most else 0:.2f}"
    return text.replace(".", ",") if comma else text


def _match(works: list[Graded], sheet: Worksheet, roster: Mapping[str, Person]) -> _Match:
    """Find each student's row by what only that row has."""
    by_column = {name: _unique(sheet.rows, name) for name in (ID_NUMBER, EMAIL, NAME)}
    match = _Match()
    for each in works:
        student = each.result.student
        who = roster.get(student, Person(student))
        keys = ((ID_NUMBER, student), (EMAIL, who.email), (NAME, who.name))
        found = (by_column[column].get(_plain(value)) for column, value in keys if value)
        row = next((row for row in found if row is not None), None)
        if row is None or any(row is taken for taken in match.rows.values()):
            match.missing.append(student)
        else:
            match.rows[student] = row
    return match


def _unique(rows: list[dict[str, str]], column: str) -> dict[str, dict[str, str]]:
    """Rows by the values of a column that stand only once in it."""
    values = [_plain(row.get(column, "")) for row in rows]
    return {v: r for v, r in zip(values, rows, strict=True) if v and values.count(v) == 1}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _without_work(works: list[Graded], roster: Mapping[str, Person]) -> list[str]:
    there = {each.result.student for each in works}
    return [student for student in roster if student not in there]


def _write(sheet: Worksheet, target: Path) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, sheet.header, lineterminator=sheet.newline)
    table.writeheader()
    table.writerows(sheet.rows)
    with whole_file(target) as unfinished:
        unfinished.write_text(text.getvalue(), encoding=sheet.encoding, newline="")

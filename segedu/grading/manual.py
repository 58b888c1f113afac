"""Marking by hand: what waits for a person, and marks taken from the command line or a table.

All marks are looked at before any is written: one wrong number, and nothing has changed.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading.marks import Graded, Mark, digest_of, marks_path, read_graded, write_marks
from segedu.grading.results import result_path
from segedu.grading.tables import armed, harmless

COLUMNS = ("student", "assignment", "question", "of", "marks", "comment", "grader", "answer", "id")
AS_NAMED = "surrogateescape"  # a student's folder may have a name that is no UTF-8
BY_HAND = ("manual", "protocol-error")


@dataclass(frozen=True)
class Waiting:
    """An answer that needs a person.

    Attributes:
        student: The student's id.
        assignment: The assignment's name.
        question: Its grade_id.
        most: Marks there are.
        why: What the person is needed for.
        answer: What was written.
        mark: What a person gave before, if anything.
    """

    student: str
    assignment: str
    question: str
    most: float
    why: str
    answer: str
    mark: Mark | None = None


def waiting(folder: Path) -> Iterator[Waiting]:
    """The answers in a folder of graded work that need a person."""
    return (item for item in _by_hand(folder) if item.why)


def give(
    folder: Path, student: str, question: str, marks: float, comment: str = "", grader: str = ""
) -> Path:
    """Give marks for one answer, in place of any that stand; returns the file they are in.

    Raises:
        InputError: If there is no such student or question, or no such marks.
    """
    found = [
        graded
        for graded in read_graded(folder)
        if graded.result.student == student and question in _most_of(graded)
    ]
    if len(found) != 1:
        raise InputError(
            f"{student} {question}: {len(found)} results in {folder} have it; expected one "
            "student's folder and one of the questions in the result"
        )
    graded = found[0]
    _refuse_marks(marks, _most_of(graded)[question], f"{student} {question}")
    answer = digest_of(graded.answers.get(question, ""))
    return _write(folder, graded, {question: Mark(marks, comment, grader, answer)})


def write_sheet(folder: Path, target: Path) -> int:
    """Write a table of the answers that a person marks, with what marks stand; returns how many."""
    rows = [
        {
            "student": item.student,
            "assignment": item.assignment,
            "question": item.question,
            "of": f"{item.most:g}",
            "marks": f"{item.mark.score:g}" if item.mark and not item.why else "",
            "comment": harmless(item.mark.comment) if item.mark else "",
            "grader": harmless(item.mark.grader) if item.mark else "",
            "answer": harmless(item.answer),
            "id": _short(digest_of(item.answer)),
        }
        for item in _by_hand(folder)
    ]
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerows(rows)
    with (
        whole_file(target) as unfinished,
        unfinished.open("w", encoding="utf-8-sig", errors=AS_NAMED, newline="") as file,
    ):
        file.write(text.getvalue())
    return len(rows)


def take_sheet(folder: Path, source: Path) -> int:
    """Take the marks of such a table; a row without marks changes nothing. Returns how many rows.

    Raises:
        InputError: If any row is at fault; then nothing is written.
    """
    by_student = {(g.result.student, g.result.assignment): g for g in read_graded(folder)}
    taken: dict[tuple[str, str], dict[str, Mark]] = {}
    for where, row in _rows(source):
        if not row["marks"].strip():
            continue
        owner = row["student"], row["assignment"]
        graded = by_student.get(owner)
        if graded is None or row["question"] not in _most_of(graded):
            raise InputError(
                f"{where}: there is no {' '.join([*owner, row['question']])!r} in {folder}"
            )
        marks = _number(row["marks"], where)
        _refuse_marks(marks, _most_of(graded)[row["question"]], where)
        answer = digest_of(graded.answers.get(row["question"], ""))
        if row["id"] != _short(answer):
            raise InputError(f"{where}: the answer has changed since; write the table anew")
        mark = Mark(marks, armed(row["comment"]), armed(row["grader"]), answer)
        taken.setdefault(owner, {})[row["question"]] = mark
    for owner, given in taken.items():
        _write(folder, by_student[owner], given)
    return sum(map(len, taken.values()))


def _by_hand(folder: Path) -> Iterator[Waiting]:
    """The answers that a person marks or has marked."""
    for graded in read_graded(folder):
        result, reasons = graded.result, graded.waiting
        for question in result.questions:
            if question.status in BY_HAND or question.name in graded.marks:
                yield Waiting(
                    result.student,
                    result.assignment,
                    question.name,
                    question.most,
                    reasons.get(question.name, ""),
                    graded.answers.get(question.name, ""),
                    graded.marks.get(question.name),
                )


def _write(folder: Path, graded: Graded, given: dict[str, Mark]) -> Path:
    result = graded.result
    path = marks_path(result_path(folder, result.student, result.assignment))
    write_marks({**graded.marks, **given}, path)
    return path


def _most_of(graded: Graded) -> dict[str, float]:
    return {question.name: question.most for question in graded.result.questions}


def _refuse_marks(marks: float, most: float, where: str) -> None:
    if not 0 <= marks <= most:
        raise InputError(f"{where}: {marks:g} marks; expected 0 to {most:g}")


def _short(digest: str) -> str:
    """Enough of a digest, behind a sign that keeps spreadsheets from reading it as a number."""
    return f"#{digest[:12]}"


def _number(text: str, where: str) -> float:
    """Marks as people write them, with a point or a comma."""
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        raise InputError(f"{where}: marks are {text!r}; expected a number") from None


def _rows(source: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table that came back from a spreadsheet, each with its place."""
    text = source.read_text(encoding="utf-8-sig", errors=AS_NAMED)
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    table = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    missing = set(COLUMNS) - set(table.fieldnames or ())
    if missing:
        raise InputError(
            f"{source}: has no column {', '.join(sorted(missing))}; expected the table that "
            "`segedu manual --sheet` wrote"
        )
    for row in table:
        yield f"{source}, line {table.line_num}", {name: row[name] or "" for name in COLUMNS}

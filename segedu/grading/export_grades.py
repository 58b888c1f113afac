"""Grades for other systems: tables, nbgrader's columns, Gradescope's results, Moodle's worksheet.

A grade that nobody knows is left empty and its student is named: it is never 0.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segedu.files import whole_file
from segedu.grading.marks import Graded
from segedu.grading.question import Question
from segedu.grading.roster import Person
from segedu.grading.tables import seen, write_table

NBGRADER = (
    "assignment",
    "duedate",
    "timestamp",
    "student_id",
    "last_name",
    "first_name",
    "email",
    "raw_score",
    "late_submission_penalty",
    "score",
    "max_score",
)


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and what it could not.

    Attributes:
        written: How many students have a grade in it.
        unknown: Students whose grade is empty, each with the reason.
    """

    written: int
    unknown: dict[str, str] = field(default_factory=dict)


def unknown_grades(
    graded: Iterable[Graded], roster: Mapping[str, Person] | None = None
) -> dict[str, str]:
    """Students whose grade nobody knows, each with the reason."""
    reasons: dict[str, str] = {}
    there = set()
    for each in graded:
        there.add(each.result.student)
        if each.total is None:
            reasons[each.result.student] = why_unknown(each)
    reasons.update({s: "has no result" for s in roster or {} if s not in there})
    return reasons


def why_unknown(graded: Graded) -> str:
    """Why a grade is not known, for the instructor."""
    waiting = [f"{name}: {reason}" for name, reason in graded.waiting.items()]
    return "; ".join(waiting) or graded.result.reason or graded.result.status


def export_csv(
    graded: Iterable[Graded], target: Path, roster: Mapping[str, Person] | None = None
) -> Exported:
    """Write one row a student, with a column for each question."""
    rows = list(graded)
    names = list(dict.fromkeys(q.name for each in rows for q in each.result.questions))
    header = ["student", "name", "email", "assignment", "status", "marks", "of", "late_days"]
    table: list[list[str | float]] = []
    for each in rows:
        result, who = each.result, _person(each.result.student, roster)
        by_name = {q.name: each.score_of(q) for q in result.questions}
        about = (result.student, who.name, who.email, result.assignment, each.status)
        marks = (_known(each.total), result.most, float(result.late_days), _known(each.penalty))
        table.append([*about, *marks, *(_known(by_name.get(name)) for name in names)])
    absent = unknown_grades(rows, roster)
    table.extend(
        [who.student, who.name, who.email, *[""] * (6 + len(names))]
        for who in _without_result(rows, roster)
    )
    write_table([*header, "penalty", *names], table, target)
    return Exported(len(rows) - sum(each.total is None for each in rows), absent)


def export_nbgrader(
    graded: Iterable[Graded], target: Path, roster: Mapping[str, Person] | None = None
) -> Exported:
    """Write the eleven columns of nbgrader's own export, with quotes where they are needed.

    A roster has one name for a person: what stands before a comma, else the last word, is taken for
    the last name.

    Source: nbgrader 0.9.6, `nbgrader.plugins.export.CsvExportPlugin`.
    """
    rows = list(graded)
    table: list[list[str | float]] = []
    for each in rows:
        result, who = each.result, _person(each.result.student, roster)
        last, first = split_name(who.name)
        penalty = each.penalty if each.total is not None else None
        raw = each.raw if each.total is not None else None
        about = (result.assignment, result.due, result.arrived, result.student)
        marks = (_known(raw), _known(penalty), _known(each.total), result.most)
        table.append([*about, last, first, who.email, *marks])
    for who in _without_result(rows, roster):
        last, first = split_name(who.name)
        assignment = rows[0].result.assignment if rows else ""
        table.append([assignment, "", "", who.student, last, first, who.email, *[""] * 4])
    write_table(NBGRADER, table, target)
    return Exported(
        len(rows) - sum(each.total is None for each in rows), unknown_grades(rows, roster)
    )


def export_gradescope(graded: Iterable[Graded], folder: Path) -> Exported:
    """Write SID/results.json for each student, as Gradescope reads it from an autograder.

    A student whose grade nobody knows gets no file. Messages are marked as text, so that nothing in
    them is taken for HTML.

    Source: Gradescope, Autograder Specifications, output format.
    """
    rows = list(graded)
    for each in rows:
        if each.total is None:
            continue
        text = json.dumps(gradescope_results(each), indent=1, ensure_ascii=False)
        with whole_file(folder / each.result.student / "results.json") as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
    unknown = unknown_grades(rows)
    return Exported(len(rows) - len(unknown), unknown)


def gradescope_results(graded: Graded) -> dict[str, Any]:
    """What Gradescope's results.json says of one submission whose grade is known."""
    result = graded.result
    notes = [result.reason, *result.repairs]
    if graded.penalty:
        notes.append(f"{result.late_days} days late: {graded.penalty:g} marks less")
    return {
        "score": graded.total,
        "execution_time": round(result.seconds),
        "output": seen("\n".join(note for note in notes if note)),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "after_published",
        "stdout_visibility": "hidden",
        "tests": [_gradescope_test(graded, question) for question in result.questions],
    }


def _gradescope_test(graded: Graded, question: Question) -> dict[str, Any]:
    score = graded.score_of(question)
    return {
        "name": question.name,
        "score": score,
        "max_score": question.most,
        "status": "passed" if score == question.most else "failed",
        "output": seen(message_of(graded, question)),
    }


def message_of(graded: Graded, question: Question) -> str:
    """What a student reads beside a question: the person's comment, else the grader's message."""
    mark = graded.marks.get(question.name)
    return mark.comment if mark is not None else question.message


def split_name(name: str) -> tuple[str, str]:
    """Last name and first names.

    Example:
        >>> split_name("Ana María Pérez"), split_name("de la Cruz, Juan")
        (('Pérez', 'Ana María'), ('de la Cruz', 'Juan'))
    """
    if "," in name:
        last, _, first = name.partition(",")
    else:
        first, _, last = name.strip().rpartition(" ")
    return last.strip(), first.strip()


def _person(student: str, roster: Mapping[str, Person] | None) -> Person:
    return (roster or {}).get(student, Person(student))


def _without_result(rows: list[Graded], roster: Mapping[str, Person] | None) -> list[Person]:
    there = {each.result.student for each in rows}
    return [person for student, person in (roster or {}).items() if student not in there]


def _known(marks: float | None) -> str | float:
    return "" if marks is None else marks

"""What a student gets back: one page with marks, messages, comments and the student's own cells.

A page is made of what the student may read only: never of a result's `detail` and `raised`, nor of
the key. It can do nothing and ask for nothing (`segedu.grading.pages`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segedu.grading.export_grades import message_of
from segedu.grading.marks import Graded, read_graded
from segedu.grading.pages import page, style_sheet, write_page
from segedu.grading.question import Question
from segedu.grading.roster import Person
from segedu.grading.shown import Shower, ShownCell, code_style
from segedu.notebooks.document import read_notebook

WORDS = {
    "pass": "right",
    "partial": "partly right",
    "fail": "not right",
    "timeout": "took too long",
    "crash": "ended its own process",
    "not-reached": "not reached",
    "protocol-error": "could not be judged",
    "manual": "a person marks this",
    "no-response": "no answer",
}
MARKED = "marked by a person"


@dataclass(frozen=True)
class Row:
    """A question in the table of marks.

    Attributes:
        name: Its grade_id.
        status: What came of it, in words.
        tone: "pass", "fail" or "".
        score: Marks; None while a person has them to give.
        most: Marks there are.
        comment: A person's comment, or the grader's message.
    """

    name: str
    status: str
    tone: str
    score: float | None
    most: float
    comment: str


def write_feedback(
    folder: Path, out: Path, roster: Mapping[str, Person] | None = None
) -> Iterator[Path]:
    """Write out/SID/NAME.html for each result in a folder of graded work; yields the paths.

    Raises:
        InputError: If there is no result, or a file is none of the grader's.
    """
    for work in read_graded(folder):
        result = work.result
        copy = folder / result.student / f"{result.assignment}.ipynb"
        person = (roster or {}).get(result.student)
        name = person.name if person is not None else ""
        text = feedback(work, copy if copy.is_file() else None, name)
        yield write_page(text, out / result.student / f"{result.assignment}.html")


def feedback(work: Graded, copy: Path | None, name: str = "") -> str:
    """The page of one student.

    Args:
        work: The result and a person's marks.
        copy: The graded copy, if there is one.
        name: The student's name, if it is known.
    """
    return page(
        "feedback.html",
        style_sheet("page.css", "feedback.css") + "\n" + code_style(),
        work=work,
        name=name or work.result.student,
        notes=_notes(work),
        rows=[_row(work, question) for question in work.result.questions],
        cells=_cells(copy),
    )


def _cells(copy: Path | None) -> list[ShownCell]:
    """The cells of a graded copy but for the summary, which the page says better."""
    if copy is None:
        return []
    notebook = read_notebook(copy)
    notebook.cells = [cell for cell in notebook.cells if cell.get("id") != "summary"]
    return Shower().cells(notebook)


def _notes(work: Graded) -> list[str]:
    """What the student should know; why nothing could be graded is the instructor's concern."""
    result = work.result
    reason = "" if result.status == "infrastructure" else result.reason
    notes = [reason, *result.repairs]
    if work.penalty:
        notes.append(f"{result.late_days} days late: {work.penalty:g} marks less")
    return [note for note in notes if note]


def _row(work: Graded, question: Question) -> Row:
    score = work.score_of(question)
    status = MARKED if question.name in work.marks else WORDS[question.status]
    tone = _tone(score, question.most)
    return Row(question.name, status, tone, score, question.most, message_of(work, question))


def _tone(score: float | None, most: float) -> str:
    if score is None or 0 < score < most:
        return ""
    return "pass" if score == most else "fail"

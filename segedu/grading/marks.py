"""Marks that a person gives, kept beside the results so that grading again never loses them.

`NAME.manual.json` has the schema `segedu.manual/1`. With each mark goes a digest of the answer that
was marked: when the answer has changed since, the mark is kept, and waits for another look.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading.question import Question
from segedu.grading.results import Result, read_result
from segedu.notebooks.document import read_notebook

SCHEMA = "segedu.manual/1"
UNMARKED = "a person marks it"
CHANGED = "the answer has changed since it was marked"
ODD = "the code wrote into what it was not given"


@dataclass(frozen=True)
class Mark:
    """What a person gave for one answer.

    Attributes:
        score: Marks.
        comment: For the student to read.
        grader: Who gave them; "" if nobody said.
        answer: The digest of the answer that was marked.
    """

    score: float
    comment: str = ""
    grader: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Graded:
    """One student's result, with what a person has added to it.

    Attributes:
        result: As the grader wrote it.
        marks: A person's, by question; they stand before the grader's.
        answers: The text of each answer, by question, as the graded copy has it.
    """

    result: Result
    marks: Mapping[str, Mark]
    answers: Mapping[str, str]

    @property
    def status(self) -> str:
        """The result's status, or "graded" once a person has done what it asks for."""
        done = self.result.status in ("needs-manual", "needs-review") and not self.waiting
        return "graded" if done else self.result.status

    @property
    def waiting(self) -> dict[str, str]:
        """The questions that need a person, each with the reason."""
        reasons = {q.name: self._reason(q) for q in self.result.questions}
        return {name: reason for name, reason in reasons.items() if reason}

    def _reason(self, question: Question) -> str:
        mark = self.marks.get(question.name)
        if mark is not None:
            changed = mark.answer != digest_of(self.answers.get(question.name, ""))
            return CHANGED if changed and question.status == "manual" else ""
        if question.status == "manual":
            return UNMARKED
        return ODD if question.status == "protocol-error" else ""

    def score_of(self, question: Question) -> float | None:
        """A person's marks for it, else the grader's; None if there are none yet."""
        mark = self.marks.get(question.name)
        return question.score if mark is None else mark.score

    @property
    def raw(self) -> float | None:
        """Marks so far, before lateness; None if nobody knows them."""
        if self.result.score is None:
            return None
        if not self.result.questions:
            return self.result.score
        return math.fsum(self.score_of(question) or 0.0 for question in self.result.questions)

    @property
    def penalty(self) -> float:
        """What lateness takes off, of a person's marks too."""
        return min(self.raw or 0.0, self.result.late_cost)

    @property
    def so_far(self) -> float | None:
        """Marks so far; None if nobody knows them."""
        return None if self.raw is None else self.raw - self.penalty

    @property
    def total(self) -> float | None:
        """The marks that count; None while a person has some to give or nobody knows them."""
        return None if self.waiting else self.so_far


def read_graded(folder: Path) -> Iterator[Graded]:
    """All graded work in a folder, in the order of students and assignments.

    Raises:
        InputError: If there is none, or a file is none of the grader's.
    """
    paths = sorted(folder.glob("*/*.result.json"))
    if not paths:
        raise InputError(f"{folder}: has no result; expected what `segedu grade -o` wrote")
    for path in paths:
        yield read_one(path)


def read_one(path: Path) -> Graded:
    """One student's graded work, from the path of its result.

    Raises:
        InputError: If a file is none of the grader's.
    """
    result = read_result(path)
    if path.parent.name != result.student:
        raise InputError(
            f"{path}: is of {result.student!r}; expected a folder named after the student"
        )
    copy = path.with_name(f"{result.assignment}.ipynb")
    return Graded(result, read_marks(marks_path(path)), _answers(copy) if copy.is_file() else {})


def marks_path(result: Path) -> Path:
    """Where a person's marks lie, from the path of the result."""
    return result.with_name(result.name.replace(".result.json", ".manual.json"))


def read_marks(path: Path) -> dict[str, Mark]:
    """A person's marks by question; none if there is no file.

    Raises:
        InputError: If the file is of another kind.
    """
    if not path.is_file():
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given["schema"] != SCHEMA:
            raise KeyError(f"its schema is not {SCHEMA}")  # noqa: TRY301
        return {name: Mark(**mark) for name, mark in given["questions"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read as a person's marks ({error}); mend it, it is nowhere else"
        ) from error


def write_marks(marks: Mapping[str, Mark], path: Path) -> None:
    """Write a person's marks whole."""
    questions = {name: asdict(mark) for name, mark in marks.items()}
    text = json.dumps({"schema": SCHEMA, "questions": questions}, indent=1, ensure_ascii=False)
    with whole_file(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def digest_of(answer: str) -> str:
    """SHA-256 of an answer's text."""
    return hashlib.sha256(answer.encode()).hexdigest()


def _answers(copy: Path) -> dict[str, str]:
    """The texts in a graded copy, by the question that they answer."""
    found: dict[str, list[str]] = {}
    for cell in read_notebook(copy).cells:
        name = cell.metadata.get("segedu", {}).get("question", "")
        if name:
            found.setdefault(name, []).append(cell.source)
    return {name: "\n\n".join(texts) for name, texts in found.items()}

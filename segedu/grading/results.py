"""The result of one submission, as `NAME.result.json` keeps it: schema `segedu.result/1`."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading.question import Question

SCHEMA = "segedu.result/1"
STATUSES = ("graded", "needs-manual", "needs-review", "invalid", "infrastructure")


@dataclass(frozen=True)
class Result:
    """One submission's result.

    Attributes:
        student: The student's id.
        assignment: The assignment's name.
        status: "graded"; "needs-manual": a person has marks to give; "needs-review": something
            odd was met that a person should look at; "invalid": no notebook; "infrastructure": it
            could not be graded, and nobody knows its marks.
        score: Marks so far, with what lateness costs; None if there are none to give.
        most: Marks there are.
        questions: In the assignment's order.
        reason: Why it is invalid, or could not be graded; "" otherwise.
        repairs: What was mended in the notebook.
        raised: Cells that raised an error when they were run again.
        late_days: Days after the due time, begun ones counted.
        penalty: Marks that lateness takes off `score`.
        late_cost: Marks that it takes off once there are so many.
        due: When it was to be handed in, in ISO form; "" for any time.
        arrived: When it was handed in; "" if nobody knows.
        seconds: That grading took.
        digest: SHA-256 of the submission, the key and the grader: equal ones need no second look.
        versions: Of what graded it.
        sandbox: What the sandbox enforced; {"sandbox": "none"} if there was none.
        limits: What the submission could use.
    """

    student: str
    assignment: str
    status: str
    score: float | None
    most: float
    questions: list[Question] = field(default_factory=list)
    reason: str = ""
    repairs: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    late_days: int = 0
    penalty: float = 0.0
    late_cost: float = 0.0
    due: str = ""
    arrived: str = ""
    seconds: float = 0.0
    digest: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    sandbox: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InputError(f"status is {self.status!r}; expected one of {', '.join(STATUSES)}")


def result_path(folder: Path, student: str, assignment: str) -> Path:
    """Where a student's result lies in a folder of graded work."""
    return folder / student / f"{assignment}.result.json"


def write_result(result: Result, folder: Path) -> Path:
    """Write a result whole; returns its path."""
    path = result_path(folder, result.student, result.assignment)
    text = json.dumps({"schema": SCHEMA, **asdict(result)}, indent=1, ensure_ascii=False)
    with whole_file(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return path


def read_result(path: Path) -> Result:
    """Read a result.

    Raises:
        InputError: If the file is none.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given.pop("schema", None) != SCHEMA:
            raise KeyError(f"its schema is not {SCHEMA}")  # noqa: TRY301
        given["questions"] = [Question(**question) for question in given["questions"]]
        return Result(**given)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read as a result ({error}); remove it and grade again"
        ) from error


def read_results(folder: Path) -> Iterator[Result]:
    """All results in a folder of graded work, in the order of students and assignments."""
    for path in sorted(folder.glob("*/*.result.json")):
        yield read_result(path)

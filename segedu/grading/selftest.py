"""What an assignment must show before anybody is graded with it.

Its solution has all marks that need no person, the untouched release has none, each typical wrong
answer has less than all, and all of that twice the same.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from nbformat import NotebookNode

from segedu.errors import InputError
from segedu.grading.assignment import Limits, defined_names
from segedu.grading.bridge import Bridge
from segedu.grading.keys import answered, solution_names
from segedu.grading.notebook_file import plain_cells
from segedu.grading.parameters import own_values
from segedu.grading.question import Question
from segedu.grading.submission import match
from segedu.grading.verdict import Verdict, judge

OTHER_NUMBERS = "solution, with another student's numbers"


@dataclass(frozen=True)
class Trial:
    """One submission that the self-test makes and judges.

    Attributes:
        name: "solution", "untouched", or a mutant's sentence.
        score: Marks that it got.
        most: Marks that need no person.
        fault: What is wrong with that; "" if nothing is.
        questions: How each question came out.
    """

    name: str
    score: float
    most: float
    fault: str
    questions: tuple[Question, ...] = ()


def selftest(secret: Mapping[str, Any], *, boxed: bool = True) -> Iterator[Trial]:
    """Judge the key's own solution, its release and its mutants, each twice.

    Args:
        secret: The key.
        boxed: False for no sandbox at all.

    Raises:
        InputError: If a mutant replaces no solution.
        SandboxFailed: If there is no sandbox.
    """
    solutions = [c for c in secret["cells"] if c["nbgrader"].get("solution")]
    untouched = {c["nbgrader"]["grade_id"]: c["released"] for c in solutions}
    trial = partial(_try, secret, boxed=boxed)
    yield trial("solution", {}, lambda score, most: score == most, "expected all marks")
    if secret.get("parameters"):
        values = own_values(secret["name"], secret["parameters"], "selftest")
        full = "expected all marks"
        yield trial(OTHER_NUMBERS, {}, lambda score, most: score == most, full, values)
    yield trial("untouched", untouched, lambda score, _: score == 0, "expected no marks")
    for sentence, source in secret["mutants"].items():
        answers = {replaced(secret, source): source}
        yield trial(sentence, answers, lambda score, most: score < most, "expected fewer")


def replaced(secret: Mapping[str, Any], mutant: str) -> str:
    """The grade_id of the solution cell whose names a mutant defines.

    Raises:
        InputError: If there is not exactly one.
    """
    names = set(defined_names(mutant))
    found = [n for n, d in solution_names(secret).items() if names and names & set(d)]
    if len(found) != 1:
        raise InputError(
            f"{secret['name']}: a mutant defines {sorted(names)}, which {len(found)} solution "
            "cells define; expected one"
        )
    return found[0]


def judge_notebook(
    secret: Mapping[str, Any],
    notebook: NotebookNode,
    values: Mapping[str, Any] | None = None,
    *,
    boxed: bool = True,
) -> Verdict:
    """The verdict on a notebook in memory, with sandboxes of the key's limits.

    Args:
        secret: The key.
        notebook: To be judged.
        values: Its parameters; the defaults if none are given.
        boxed: False for no sandbox at all.
    """
    start = partial(Bridge, Limits(**secret["limits"]), boxed=boxed)
    return judge(secret, match(plain_cells(notebook), secret, values), start)


def _try(
    secret: Mapping[str, Any],
    name: str,
    answers: dict[str, str],
    holds: Callable[[float, float], bool],
    expected: str,
    values: Mapping[str, Any] | None = None,
    *,
    boxed: bool = True,
) -> Trial:
    notebook = answered(secret, answers)
    first, second = (judge_notebook(secret, notebook, values, boxed=boxed) for _ in range(2))
    most = sum(q.most for q in first.questions if q.status != "manual")
    if name == "untouched":
        most = sum(q.most for q in first.questions)
    outcomes = [[(q.status, q.score) for q in verdict.questions] for verdict in (first, second)]
    fault = "" if holds(first.score, most) else expected
    if fault and name in ("solution", OTHER_NUMBERS):
        failed = [q for q in first.questions if q.score != q.most and q.status != "manual"]
        fault += "".join(f"; {q.name}: {q.detail or q.message}" for q in failed)
        fault += "".join(f"; a cell without marks: {error}" for error in first.unprepared)
    if outcomes[0] != outcomes[1]:
        fault = "twice the same answers, and not twice the same marks"
    return Trial(name, first.score, most, fault, tuple(first.questions))

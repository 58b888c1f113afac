"""The verdict on a submission: its cells are run in a sandbox, its questions judged in order."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from segedu.grading.bridge import Bridge, Ended
from segedu.grading.keys import solution_names
from segedu.grading.parameters import TAG
from segedu.grading.question import Question, in_words, run_own, run_tests
from segedu.grading.submission import Submission

Start = Callable[[], Bridge]


@dataclass
class Verdict:
    """All questions, and how the replay went.

    Attributes:
        questions: In the key's order.
        raised: Cells of the student's that raised an error, in words that are theirs: for the
            instructor alone.
        unprepared: Errors of the key's cells without marks, which show answers or are at fault.
    """

    questions: list[Question] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    unprepared: list[str] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The marks that need no person."""
        return sum(question.score or 0.0 for question in self.questions)


def judge(secret: Mapping[str, Any], submission: Submission, start: Start) -> Verdict:
    """Judge a submission.

    Args:
        secret: The key.
        submission: As the student handed it in.
        start: Starts a fresh sandbox.

    Raises:
        SandboxFailed: If no sandbox can be had: the submission is not to blame.
    """
    names: dict[str, Any] = {"__name__": "__tests__"}
    defined = solution_names(secret)
    earlier: list[str] = []
    verdict = Verdict()
    with _Replay(secret, submission, start, verdict.raised) as replay:
        for cell in secret["cells"]:
            about = cell["nbgrader"]
            name = about.get("grade_id", "")
            if about.get("solution") or about.get("task"):
                earlier.append(name)
                if about.get("grade") or about.get("task"):
                    verdict.questions.append(_by_hand(cell, submission))
            elif cell["cell_type"] == "code" and about.get("grade"):
                wanted = [n for solution in earlier for n in defined.get(solution, [])]
                upto = max(submission.last(known) for known in [name, *earlier])
                question = run_tests(cell, names, wanted, partial(replay.upto, upto))
                verdict.questions.append(_untouched(question, secret, submission, earlier))
            elif cell["cell_type"] == "code":
                verdict.unprepared += _prepare(cell["source"], names, defined)
                if TAG in cell.get("tags", []):
                    names.update(submission.parameters)
    return verdict


class _Replay:
    """The student's cells, run in order; when one ends the process, begun anew without it."""

    def __init__(
        self, secret: Mapping[str, Any], submission: Submission, start: Start, raised: list[str]
    ) -> None:
        self._cells = submission.cells
        self._start, self._raised = start, raised
        self._left = float(secret["limits"]["notebook_seconds"])
        self._bridge: Bridge | None = None
        self._next = 0
        self._deadly: set[int] = set()

    def __enter__(self) -> "_Replay":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the process, if there is one; the next question begins anew."""
        if self._bridge is not None:
            self._bridge.close()
        self._bridge, self._next = None, 0

    def upto(self, place: int) -> Bridge:
        """The sandbox after all cells up to that place, this one included."""
        if self._bridge is not None and not self._bridge.lives:
            self.end()
        if self._bridge is None:
            self._bridge = self._start()
        while self._bridge is None or self._next <= place:
            if self._bridge is None:  # a cell that ran has ended it
                self._bridge = self._begun_anew()
                continue
            number, self._next = self._next, self._next + 1
            cell = self._cells[number]
            if cell.is_code and not cell.is_test and number not in self._deadly:
                self._run(number)
        return self._bridge

    def _begun_anew(self) -> Bridge:
        """A sandbox in the place of one that a cell has ended, in that notebook's time."""
        begun = time.monotonic()
        try:
            return self._start()
        finally:
            self._left -= time.monotonic() - begun

    def _run(self, number: int) -> None:
        assert self._bridge is not None
        if self._left <= 0:
            self.end()
            raise Ended("timeout")
        begun = time.monotonic()
        try:
            self._bridge.run(self._cells[number].source)
        except Ended as end:
            self._deadly.add(number)
            self._note(number, end.why)
            self.end()
        except Exception as error:  # noqa: BLE001 - whatever the student's code raises
            self._note(number, in_words(error))
        self._left -= time.monotonic() - begun

    def _note(self, number: int, what: str) -> None:
        line = f"cell {number + 1} {what}"[:300]
        if line not in self._raised:
            self._raised.append(line)


def _prepare(source: str, names: dict[str, Any], defined: Mapping[str, list[str]]) -> list[str]:
    """Run a cell that has no marks, without the student's names; gives its error, if it has one.

    One that shows an answer fails here. What the tests then lack is seen in the self-test.
    """
    for known in (name for cell in defined.values() for name in cell):
        names.pop(known, None)
    try:
        run_own(source, names)
    except Exception as error:  # noqa: BLE001 - whatever the author's code raises
        return [in_words(error)]
    return []


def _by_hand(cell: Mapping[str, Any], submission: Submission) -> Question:
    """A question that a person marks; nothing written is nothing earned."""
    about = cell["nbgrader"]
    name, most = about["grade_id"], float(about["points"])
    written = submission.answers(name)
    if not about.get("task") and all(text.strip() == cell["released"].strip() for text in written):
        return Question(name, "no-response", 0.0, most, "nothing was written")
    return Question(name, "manual", None, most, "marked by a person")


def _untouched(
    question: Question, secret: Mapping[str, Any], submission: Submission, earlier: list[str]
) -> Question:
    """A failed question whose answer is as released has no response."""
    by_name = {cell["nbgrader"].get("grade_id"): cell for cell in secret["cells"]}
    before = [name for name in earlier if by_name[name]["cell_type"] == "code"]
    if question.score or not before:
        return question
    written = submission.answers(before[-1])
    if all(text.strip() == by_name[before[-1]]["released"].strip() for text in written):
        message = "the answer is missing"
        return Question(question.name, "no-response", 0.0, question.most, message)
    return question

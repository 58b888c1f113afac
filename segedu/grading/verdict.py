"""The verdict on a submission: its cells run in a sandbox, the tests run here.

Tests see the student's functions through `Proxy` and their values as plain copies. So a test's own
`assert`, `numpy` and `==` are out of the student's reach, and hidden tests never enter the sandbox
but for the arguments they call with.
"""

import ast
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import numpy as np

from segedu.grading import asking
from segedu.grading.bounds import bounded_memory
from segedu.grading.bridge import Bridge, Ended, SandboxFailed, StudentError
from segedu.grading.cells import HIDDEN_TESTS, regions
from segedu.grading.comparing import nothing_is_close_to_something
from segedu.grading.keys import solution_names
from segedu.grading.parameters import TAG
from segedu.grading.submission import Submission

HIDDEN = "a hidden test fails"
VISIBLE = "a visible test fails; the executed copy shows where"
SOME = "some of the tests hold"
NONE = "none of the tests holds"
FORM = "the answer has not the form that was asked for"
Start = Callable[[], Bridge]


@dataclass(frozen=True)
class Question:
    """How one question was answered.

    Attributes:
        name: Its grade_id.
        status: "pass", "partial", "fail", "timeout", "crash", "protocol-error", "not-reached",
            "manual" or "no-response".
        score: Marks; None while a person has to give them.
        most: Marks there are.
        message: What the student may read.
        detail: What only the instructor may read.
        seconds: That its tests took.
    """

    name: str
    status: str
    score: float | None
    most: float
    message: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Verdict:
    """All questions, and how the replay went.

    Attributes:
        questions: In the key's order.
        raised: Cells of the student's that raised an error, in words that are theirs: for the
            instructor alone.
    """

    questions: list[Question] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)

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
                question = _test(cell, names, wanted, partial(replay.upto, upto))
                verdict.questions.append(_untouched(question, secret, submission, earlier))
            elif cell["cell_type"] == "code":
                _prepare(cell["source"], names, defined)
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
            self._note(number, f"{_kind(error)}: {error}")
        self._left -= time.monotonic() - begun

    def _note(self, number: int, what: str) -> None:
        line = f"cell {number + 1} {what}"[:300]
        if line not in self._raised:
            self._raised.append(line)


def _test(
    cell: Mapping[str, Any],
    names: dict[str, Any],
    wanted: list[str],
    replayed: Callable[[], Bridge],
) -> Question:
    """Run one cell of tests on what the student has defined so far."""
    name, most = cell["nbgrader"]["grade_id"], float(cell["nbgrader"]["points"])
    begun, bridge = time.monotonic(), None
    status, score, message, detail = "pass", most, "", ""
    try:
        bridge = replayed()
        for known in wanted:
            names.pop(known, None)
        with (
            bounded_memory(),
            asking.through(bridge.evaluate),
            nothing_is_close_to_something(),
            _time_limit(2 * bridge.limits.cell_seconds),
        ):
            names.update(bridge.look(wanted))
            value = _run_own(cell["source"], names, name)
        score = _marks(value, most, name)
        status = "pass" if score == most else "partial" if score else "fail"
        message = {"pass": "", "partial": SOME, "fail": NONE}[status]
    except Ended as end:
        if bridge is not None:  # an answer to this question would be taken for one to the next
            bridge.close()
        status, score = end.why, 0.0
        message = {
            "crash": "the code ended its own process",
            "timeout": "the code took too long",
            "protocol-error": "the code wrote into what it was not given",
        }[end.why]
    except SandboxFailed:
        raise
    except _Odd as odd:
        status, score, message, detail = "fail", 0.0, FORM, str(odd)
    except Exception as error:  # noqa: BLE001 - a test that fails
        status, score = "fail", 0.0
        message, detail = _explained(error, cell["source"], name)
    return Question(name, status, score, most, message, detail, time.monotonic() - begun)


class _Odd(Exception):  # noqa: N818 - what they are
    """Marks that are none: the author's fault in the self-test, and a student's value after it."""


def _prepare(source: str, names: dict[str, Any], defined: Mapping[str, list[str]]) -> None:
    """Run a cell that has no marks, without the student's names; one that shows an answer fails.

    What the tests then lack is seen in the self-test.
    """
    for known in (name for cell in defined.values() for name in cell):
        names.pop(known, None)
    with suppress(Exception):
        _run_own(source, names)


def _run_own(source: str, names: dict[str, Any], name: str = "setup") -> Any:
    """Run code of the assignment's author; returns the value of a last expression, or None."""
    tree = ast.parse(source, f"<{name}>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"<{name}>", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), f"<{name}>", "eval"), names)  # type: ignore[attr-defined]


def _marks(value: Any, most: float, name: str) -> float:
    """Full marks where a test ends in no number, else that number; of an array its least."""
    if value is None:
        return most
    try:
        number = float(np.min(np.asarray(value)))
    except (TypeError, ValueError):
        said = repr(value)[:200]
        raise _Odd(f"the tests of {name} end in {said}; expected marks, or nothing") from None
    if not 0 <= number <= most:
        raise _Odd(f"the tests of {name} give {number} marks; expected 0 to {most}")
    return number


def _explained(error: Exception, source: str, name: str) -> tuple[str, str]:
    """Why a test fails: for the student, who must not learn of hidden tests, and in full.

    The student reads the author's own words only. Any other text may be made by the student's code,
    which has seen the arguments of earlier hidden tests and could pass them out.
    """
    line = _line_of(error, name)
    said = str(error) if isinstance(error, AssertionError) else f"{_kind(error)}: {error}"
    detail = f"line {line}: {said or 'the assertion does not hold'}"[:1000]
    detail = detail.encode(errors="replace").decode()  # a half of a character cannot be written
    hidden = any(line - 1 in span for span in regions(source, HIDDEN_TESTS))
    return _literal_message(source, line) or (HIDDEN if hidden else VISIBLE), detail


def _line_of(error: Exception, name: str) -> int:
    """The line of the test at which the error arose, from 1."""
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == f"<{name}>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _literal_message(source: str, line: int) -> str:
    """The message of the assertion that spans a line, where it is a literal and tells no value."""
    for part in ast.walk(ast.parse(source)):
        if isinstance(part, ast.Assert) and part.lineno <= line <= (part.end_lineno or line):
            message = part.msg
            if isinstance(message, ast.Constant) and isinstance(message.value, str):
                return message.value
    return ""


def _kind(error: Exception) -> str:
    return "" if isinstance(error, StudentError) else type(error).__name__


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


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End a test that itself goes on too long, over a value of the student's for one.

    Only a process's main thread can have one; elsewhere there is none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Ended("timeout")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        with suppress(TypeError):
            signal.signal(signal.SIGALRM, before)

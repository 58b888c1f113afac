"""One question of a submission, answered: its tests run here, the student's code in a sandbox.

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
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from segedu.grading import asking
from segedu.grading.bounds import bounded_memory
from segedu.grading.bridge import Bridge, Ended, SandboxFailed, StudentError
from segedu.grading.cells import HIDDEN_TESTS, regions
from segedu.grading.comparing import nothing_is_close_to_something
from segedu.grading.tables import writable

HIDDEN = "a hidden test fails"
VISIBLE = "a visible test fails; the executed copy shows where"
SOME = "some of the tests hold"
NONE = "none of the tests holds"
FORM = "the answer has not the form that was asked for"


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


def run_tests(
    cell: Mapping[str, Any],
    names: dict[str, Any],
    wanted: list[str],
    replayed: Callable[[], Bridge],
) -> Question:
    """Run one cell of tests on what the student has defined so far.

    Args:
        cell: Of the key.
        names: What the key's own code has bound so far; the student's names are put in.
        wanted: Those that only the student may bind.
        replayed: Gives the sandbox in which the student's cells have been run.

    Raises:
        SandboxFailed: If no sandbox can be had.
    """
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
            value = run_own(cell["source"], names, name)
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


def run_own(source: str, names: dict[str, Any], name: str = "setup") -> Any:
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
    said = str(error) if isinstance(error, AssertionError) else in_words(error)
    detail = writable(f"line {line}: {said or 'the assertion does not hold'}"[:1000])
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


def in_words(error: Exception) -> str:
    """An error's type and message; the message of a `StudentError` has its type already."""
    return str(error) if isinstance(error, StudentError) else f"{type(error).__name__}: {error}"


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

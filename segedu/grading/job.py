"""One submission, graded by itself: its result and its executed copy."""

import errno
import hashlib
import math
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segedu.errors import InputError
from segedu.grading import graded_copy
from segedu.grading.assignment import Limits
from segedu.grading.bounds import bounded_memory
from segedu.grading.bridge import Bridge, SandboxFailed
from segedu.grading.keys import read_key
from segedu.grading.notebook_file import LARGEST_FILE, Invalid
from segedu.grading.parameters import values_for
from segedu.grading.results import Result, write_result
from segedu.grading.submission import Submission, read_submission
from segedu.grading.verdict import Verdict, judge

VERSIONS = ("segedu", "numpy", "papermill", "ipykernel")
SANDBOX = {"sandbox": "bubblewrap", "network": False, "user": "nobody"}
DAY = 24 * 3600
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Job:
    """One submission to grade.

    Attributes:
        student: The student's id, the name of its folder.
        notebook: The file that was handed in.
        secret: The folder of the key.
        out: The folder of graded work.
        arrived: When it was handed in; None if nobody knows.
        boxed: False for no sandbox at all; every result says so.
    """

    student: str
    notebook: Path
    secret: Path
    out: Path
    arrived: datetime | None = None
    boxed: bool = True


def grade_one(job: Job) -> Result:
    """Grade a submission, and write its result and its graded copy.

    What the submission does ends in its result; only a fault of the assignment is raised.

    Raises:
        InputError: If the key, or its own code, is at fault.
    """
    secret = read_key(job.secret)
    limits = Limits(**secret["limits"])
    begun = time.monotonic()
    blank = blank_result(job, secret)
    try:
        _refuse_absent(job.notebook)
        submission = _read(job, secret)
        verdict = judge(secret, submission, partial(Bridge, limits, boxed=job.boxed))
    except Invalid as error:
        return _finish(replace(blank, status="invalid", score=0.0, reason=str(error)), job, begun)
    except SandboxFailed as error:
        return _finish(replace(blank, reason=str(error)), job, begun)
    result = _late(_judged(blank, submission, verdict), secret, job.arrived)
    executed = graded_copy.run_copy(submission, limits, boxed=job.boxed)
    target = job.out / job.student / f"{secret['name']}.ipynb"
    graded_copy.write_copy(executed, result, target)
    return _finish(result, job, begun)


def grade_safely(job: Job) -> Result:
    """`grade_one`; where that itself fails, the submission is "infrastructure" and has no marks.

    Raises:
        InputError: If the key, or its own code, is at fault.
    """
    try:
        return grade_one(job)
    except InputError:
        raise
    except OSError as error:
        full = "; free some space and grade again" if error.errno in FULL else ""
        reason = f"the grader failed: {os.strerror(error.errno or 0)}{full}"
    except Exception as error:  # noqa: BLE001 - the rest of the class is graded all the same
        reason = f"the grader failed: {type(error).__name__}"
    return failed(job, reason)


def failed(job: Job, reason: str) -> Result:
    """The result of a submission whose marks nobody knows, written if it can be."""
    result = replace(blank_result(job, read_key(job.secret)), reason=reason)
    with suppress(OSError):
        write_result(result, job.out)
    return result


def nothing(job: Job, reason: str) -> Result:
    """The result of a student of whom there is no notebook, written."""
    blank = blank_result(job, read_key(job.secret))
    result = replace(blank, status="invalid", score=0.0, reason=reason)
    write_result(result, job.out)
    return result


def digest(job: Job) -> str:
    """SHA-256 over the submission, its student, the key, the time and the grader's version."""
    parts = hashlib.sha256()
    try:
        content = beginning(job.notebook) if job.notebook.is_file() else b""
    except OSError:
        content = b""
    key = job.secret / "key.json" if job.secret.is_dir() else job.secret
    texts = (job.student, str(job.arrived), version("segedu"), "" if job.boxed else "unsafe")
    told = [text.encode("utf-8", "surrogateescape") for text in texts]
    for part in (content, key.read_bytes(), *told):
        parts.update(hashlib.sha256(part).digest())
    return parts.hexdigest()


def beginning(notebook: Path) -> bytes:
    """A file's bytes, of one that is too large to be graded as many as show it."""
    with notebook.open("rb") as file:
        return file.read(LARGEST_FILE + 1)


def blank_result(job: Job, secret: Mapping[str, Any]) -> Result:
    """A result of which nothing is known yet but what it will be of."""
    return Result(
        student=job.student,
        assignment=secret["name"],
        status="infrastructure",
        score=None,
        most=secret["total"],
        digest=digest(job),
        versions={"python": platform.python_version(), **{n: version(n) for n in VERSIONS}},
        sandbox=dict(SANDBOX if job.boxed else {"sandbox": "none"}),
        limits=dict(secret["limits"]),
        due=secret["due"] or "",
        arrived=job.arrived.isoformat() if job.arrived else "",
    )


def _read(job: Job, secret: Mapping[str, Any]) -> Submission:
    try:
        with bounded_memory():
            return read_submission(job.notebook, secret, values_for(secret, job.student))
    except MemoryError:
        raise Invalid("the notebook is too large to be read") from None


def _refuse_absent(notebook: Path) -> None:
    """Say in words what is wrong with a folder that has not one notebook."""
    if os.path.lexists(notebook):
        return
    others = len(list(notebook.parent.glob("*.ipynb")))
    if others:
        raise Invalid(
            f"there are {others} notebooks, and none is named {notebook.name}; hand in one"
        )
    raise Invalid("no notebook was handed in")


def _judged(blank: Result, submission: Submission, verdict: Verdict) -> Result:
    manual = any(question.status == "manual" for question in verdict.questions)
    odd = any(question.status == "protocol-error" for question in verdict.questions)
    return replace(
        blank,
        status="needs-review" if odd else "needs-manual" if manual else "graded",
        score=verdict.score,
        questions=verdict.questions,
        repairs=submission.repairs,
        raised=verdict.raised,
    )


def _late(result: Result, secret: Mapping[str, Any], arrived: datetime | None) -> Result:
    """Take off what lateness costs."""
    if arrived is None or secret["due"] is None or result.score is None:
        return result
    late = (arrived.astimezone(UTC) - datetime.fromisoformat(secret["due"])).total_seconds()
    days = max(0, math.ceil(late / DAY))
    cost = days * secret["late"] * result.most
    penalty = min(result.score, cost)
    score = result.score - penalty
    return replace(result, late_days=days, penalty=penalty, late_cost=cost, score=score)


def _finish(result: Result, job: Job, begun: float) -> Result:
    done = replace(result, seconds=round(time.monotonic() - begun, 3))
    write_result(done, job.out)
    return done

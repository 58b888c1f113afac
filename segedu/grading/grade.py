"""Grade one submission, or a folder of them: resumable, several at once, each by itself."""

import hashlib
import math
import multiprocessing
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segedu.errors import InputError
from segedu.grading import graded_copy, sandbox
from segedu.grading.assignment import Limits
from segedu.grading.behaviour import write_behaviours
from segedu.grading.bridge import Bridge, SandboxFailed
from segedu.grading.release import read_key
from segedu.grading.results import Result, read_result, result_path, write_result
from segedu.grading.selftest import Trial, selftest
from segedu.grading.submission import Invalid, Submission, read_submission
from segedu.grading.verdict import Verdict, judge

VERSIONS = ("segedu", "numpy", "papermill", "ipykernel")
DAY = 24 * 3600


@dataclass(frozen=True)
class Job:
    """One submission to grade.

    Attributes:
        student: The student's id, the name of its folder.
        notebook: The file that was handed in.
        secret: The folder of the key.
        out: The folder of graded work.
        arrived: When it was handed in; None if nobody knows.
    """

    student: str
    notebook: Path
    secret: Path
    out: Path
    arrived: datetime | None = None


def grade_one(job: Job) -> Result:
    """Grade a submission, and write its result and its graded copy.

    What the submission does ends in its result; only a fault of the assignment is raised.

    Raises:
        InputError: If the key, or its own code, is at fault.
    """
    secret = read_key(job.secret)
    limits = Limits(**secret["limits"])
    begun = time.monotonic()
    blank = Result(
        student=job.student,
        assignment=secret["name"],
        status="infrastructure",
        score=None,
        most=secret["total"],
        digest=digest(job),
        versions={"python": platform.python_version(), **{n: version(n) for n in VERSIONS}},
        sandbox={"sandbox": "bubblewrap", "network": False, "user": "nobody"},
        limits=dict(secret["limits"]),
        due=secret["due"] or "",
        arrived=job.arrived.isoformat() if job.arrived else "",
    )
    try:
        submission = read_submission(job.notebook, secret)
        verdict = judge(secret, submission, lambda: Bridge(limits))
    except Invalid as error:
        return _finish(replace(blank, status="invalid", score=0.0, reason=str(error)), job, begun)
    except SandboxFailed as error:
        return _finish(replace(blank, reason=str(error)), job, begun)
    result = _late(_judged(blank, submission, verdict), secret, job.arrived)
    executed = graded_copy.run_copy(submission, limits)
    target = job.out / job.student / f"{secret['name']}.ipynb"
    graded_copy.write_copy(executed, result, target)
    return _finish(result, job, begun)


def grade_class(
    secret: Path,
    submissions: Path,
    out: Path,
    *,
    jobs: int = 1,
    arrived: Mapping[str, datetime] | None = None,
) -> Iterator[Result]:
    """Grade all submissions of a folder and yield each result as it is there.

    A submission whose result is there already, from the same bytes, the same key and the same
    grader, is not graded again.

    Args:
        secret: The folder of the key, as `segedu release` made it.
        submissions: SID/NAME.ipynb for each student.
        out: The folder for SID/NAME.result.json and SID/NAME.ipynb.
        jobs: How many are graded at once.
        arrived: When each student handed in.

    Raises:
        InputError: If there is nothing to grade, no sandbox, or the assignment's self-test fails.
    """
    sandbox.refuse_without_sandbox()
    key = read_key(secret)
    times = arrived or {}
    todo = [
        Job(student, notebook, secret, out, times.get(student))
        for student, notebook in find_submissions(submissions, key["name"])
    ]
    if not todo:
        raise InputError(f"{submissions}: has no submission; expected STUDENT/{key['name']}.ipynb")
    write_behaviours(refuse_faulty(key), key["name"], out)
    open_jobs = []
    for job in todo:
        done = _already(job, key["name"])
        if done is None:
            open_jobs.append(job)
        else:
            yield done
    yield from _in_processes(open_jobs, jobs)


def find_submissions(folder: Path, name: str) -> list[tuple[str, Path]]:
    """Students and their notebooks: SID/NAME.ipynb, or the only notebook there is in SID."""
    found = []
    for student in sorted(path for path in folder.iterdir() if path.is_dir()):
        if student.is_symlink() or student.name.startswith("."):
            continue
        own = student / f"{name}.ipynb"
        others = sorted(student.glob("*.ipynb"))
        if not own.exists() and len(others) == 1:
            own = others[0]
        found.append((student.name, own))
    return found


def refuse_faulty(secret: Mapping[str, Any]) -> list[Trial]:
    """Refuse to grade with an assignment whose self-test does not hold; returns what it found.

    Raises:
        InputError: It says what does not hold.
    """
    trials = list(selftest(secret))
    faults = [f"{trial.name}: {trial.fault}" for trial in trials if trial.fault]
    if faults:
        raise InputError(
            f"{secret['name']}: the self-test fails, so nothing is graded: {'; '.join(faults)}"
        )
    return trials


def digest(job: Job) -> str:
    """SHA-256 over the submission, the key, the time it arrived and the grader's version."""
    parts = hashlib.sha256()
    try:
        content = job.notebook.read_bytes() if job.notebook.is_file() else b""
    except OSError:
        content = b""
    key = job.secret / "key.json" if job.secret.is_dir() else job.secret
    for part in (content, key.read_bytes(), str(job.arrived).encode(), version("segedu").encode()):
        parts.update(hashlib.sha256(part).digest())
    return parts.hexdigest()


def format_results(results: Iterable[Result]) -> str:
    """A table of students, marks and what needs a look.

    Example:
        >>> print(format_results([Result("ana", "masks", "graded", 11.0, 14.0, seconds=1.2)]))
        student  status  marks  of  seconds
        ana      graded     11  14      1.2
    """
    rows = [("student", "status", "marks", "of", "seconds", "")]
    for result in results:
        marks = "?" if result.score is None else f"{result.score:g}"
        note = result.reason
        rows.append(
            (
                result.student,
                result.status,
                marks,
                f"{result.most:g}",
                f"{result.seconds:.1f}",
                note,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        left = [f"{part:{width}}" for part, width in zip(row[:2], widths[:2], strict=True)]
        right = [f"{part:>{width}}" for part, width in zip(row[2:5], widths[2:5], strict=True)]
        lines.append("  ".join([*left, *right, row[5]]).rstrip())
    return "\n".join(lines)


def _in_processes(jobs: list[Job], count: int) -> Iterator[Result]:
    """Grade in several processes; when one dies, its submission alone has no result."""
    context = multiprocessing.get_context("spawn")
    left = {job.student: job for job in jobs}
    tries: dict[str, int] = {}
    while left:
        with ProcessPoolExecutor(count, mp_context=context, max_tasks_per_child=20) as pool:
            futures: dict[Future[Result], Job] = {
                pool.submit(grade_one, job): job for job in left.values()
            }
            for future in as_completed(futures):
                job = futures[future]
                try:
                    result = future.result()
                except BrokenProcessPool:
                    continue
                del left[job.student]
                yield result
        for student, job in list(left.items()):
            tries[student] = tries.get(student, 0) + 1
            if tries[student] > 1:
                del left[student]
                yield _lost(job)


def _lost(job: Job) -> Result:
    secret = read_key(job.secret)
    reason = "the process that graded it ended twice; nobody knows its marks"
    result = Result(
        job.student, secret["name"], "infrastructure", None, secret["total"], reason=reason
    )
    write_result(result, job.out)
    return result


def _already(job: Job, name: str) -> Result | None:
    """The result that is there, if it is of the same submission, key and grader."""
    path = result_path(job.out, job.student, name)
    if not path.is_file():
        return None
    try:
        result = read_result(path)
    except InputError:  # cut off or changed: graded again
        return None
    same = result.digest == digest(job) and result.status != "infrastructure"
    return result if same else None


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

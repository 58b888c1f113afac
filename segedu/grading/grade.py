"""Grade a class: a folder of submissions, resumable, several at once, each by itself."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from segedu.errors import InputError
from segedu.grading import sandbox
from segedu.grading.behaviour import write_behaviours
from segedu.grading.collect import read_collected
from segedu.grading.job import Job, digest, nothing
from segedu.grading.keys import read_key
from segedu.grading.pool import in_processes
from segedu.grading.results import Result, read_result, result_path
from segedu.grading.selftest import Trial, selftest
from segedu.grading.tables import seen


def grade_class(
    secret: Path,
    submissions: Path,
    out: Path,
    *,
    jobs: int = 1,
    arrived: Mapping[str, datetime] | None = None,
    cluster: str = "",
    boxed: bool = True,
) -> Iterator[Result]:
    """Grade all submissions of a folder and yield each result as it is there.

    A submission whose result is there already, from the same bytes, the same key and the same
    grader, is not graded again. Students of whom `segedu collect` has no notebook get a result too.

    Args:
        secret: The folder of the key, as `segedu release` made it.
        submissions: SID/NAME.ipynb for each student.
        out: The folder for SID/NAME.result.json and SID/NAME.ipynb.
        jobs: How many are graded at once.
        arrived: When each student handed in.
        cluster: The address of a dask scheduler whose workers grade; "" to grade here.
        boxed: False to run students' code without a sandbox, here alone; every result says so.

    Raises:
        InputError: If there is nothing to grade, no sandbox, or the assignment's self-test fails.
    """
    if boxed:
        sandbox.refuse_without_sandbox()
    else:
        _refuse_unboxed(cluster)
    key = read_key(secret)
    times = arrived or {}
    absent = absentees(submissions, key["name"])
    todo = [
        Job(student, notebook, secret, out, times.get(student), boxed)
        for student, notebook in find_submissions(submissions, key["name"])
        if student not in absent
    ]
    if not todo and not absent:
        raise InputError(f"{submissions}: has no submission; expected STUDENT/{key['name']}.ipynb")
    trials = refuse_faulty(key, boxed=boxed)
    with suppress(OSError):  # where the disk is full, the results say so
        write_behaviours(trials, key["name"], out)
    for student, reason in absent.items():
        yield nothing(Job(student, submissions / student, secret, out, times.get(student)), reason)
    open_jobs = []
    for job in todo:
        done = _already(job, key["name"])
        if done is None:
            open_jobs.append(job)
        else:
            yield done
    if cluster:
        from segedu.grading.cluster import on_cluster

        yield from on_cluster(open_jobs, cluster)
    else:
        yield from in_processes(open_jobs, jobs)


def absentees(folder: Path, name: str) -> dict[str, str]:
    """By student, why `segedu collect` has no notebook of theirs, where there still is none."""
    there = {student for student, path in find_submissions(folder, name) if path.exists()}
    return {s: reason for s, reason in read_collected(folder).items() if s not in there}


def count_students(secret: Path, submissions: Path) -> int:
    """How many results `grade_class` will yield."""
    name = read_key(secret)["name"]
    students = {student for student, _ in find_submissions(submissions, name)}
    return len(students | absentees(submissions, name).keys())


def find_submissions(folder: Path, name: str) -> list[tuple[str, Path]]:
    """Students and their notebooks: SID/NAME.ipynb, or the only notebook there is in SID.

    Raises:
        InputError: If there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; expected STUDENT/{name}.ipynb in it")
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


def _refuse_unboxed(cluster: str) -> None:
    sandbox.refuse_unsafe_in_ci()
    if cluster:
        raise InputError("--unsafe-no-sandbox is for this machine; leave out --dask")


def refuse_faulty(secret: Mapping[str, Any], *, boxed: bool = True) -> list[Trial]:
    """Refuse to grade with an assignment whose self-test does not hold; returns what it found.

    Raises:
        InputError: It says what does not hold.
    """
    trials = list(selftest(secret, boxed=boxed))
    faults = [f"{trial.name}: {trial.fault}" for trial in trials if trial.fault]
    if faults:
        raise InputError(
            f"{secret['name']}: the self-test fails, so nothing is graded: {'; '.join(faults)}"
        )
    return trials


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
                seen(result.student),
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

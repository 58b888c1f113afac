"""Subcommands for instructors: `doctor`, `release`, `selftest`, `grade`."""

from pathlib import Path
from typing import Annotated

import typer

from segedu.cli.app import app
from segedu.cli.form import command

NEEDS_PERSON = 3
INFRASTRUCTURE = 4

Source = Annotated[Path, typer.Argument(help="The folder of an assignment's source.")]


@command(app, "doctor")
def doctor() -> None:
    """Say what is here: versions, device, data, and what a sandbox for students' code enforces."""
    import platform
    from importlib.metadata import version

    from segedu.data.catalog import table
    from segedu.device import pick_device
    from segedu.grading.doctor import examine

    names = ("segedu", "torch", "torchvision", "numpy")
    print("  ".join([f"python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)]))
    print(f"device: {pick_device('auto')}")
    here = [row.name for row in table() if row.total and row.present == row.total]
    print(f"complete data sets: {', '.join(here) or 'none; see `segedu data list`'}")
    findings = []
    for finding in examine():
        findings.append(finding)
        print(f"{'✓' if finding.holds else '✗'} sandbox: {finding.name}", flush=True)
    advice = dict.fromkeys(f.advice for f in findings if not f.holds)
    for line in advice:
        print(f"  {line}")
    if advice:
        raise typer.Exit(1)


@command(app, "release")
def release(
    source: Source,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for what students get.")
    ] = Path("release"),
    key: Annotated[
        Path, typer.Option(help="The folder for keys, which students must never see.")
    ] = Path("key"),
    roster: Annotated[
        Path | None, typer.Option(help="CSV of students: each gets a notebook with own numbers.")
    ] = None,
) -> None:
    """Write the notebook for students, and the key to grade it with."""
    from segedu.grading.assignment import read_assignment
    from segedu.grading.release import write_release
    from segedu.grading.roster import read_roster

    students = list(read_roster(roster)) if roster else []
    for path in write_release(read_assignment(source), out, key, students):
        print(path)
    if students:
        print(f"{out / 'students'}: {len(students)} notebooks")


@command(app, "selftest")
def selftest(source: Source) -> None:
    """Grade the solution, the untouched release, and each typical wrong answer, twice."""
    from segedu.grading.assignment import read_assignment
    from segedu.grading.release import key
    from segedu.grading.sandbox import refuse_without_sandbox
    from segedu.grading.selftest import selftest as trials

    refuse_without_sandbox()
    faults = 0
    for trial in trials(key(read_assignment(source))):
        mark = "✗" if trial.fault else "✓"
        print(f"{mark} {trial.score:5.4g} of {trial.most:g}  {trial.name}", flush=True)
        if trial.fault:
            faults += 1
            print(f"  {trial.fault}")
    if faults:
        raise typer.Exit(1)


@command(app, "grade")
def grade(
    key: Annotated[Path, typer.Argument(help="The folder of the assignment's key.")],
    submissions: Annotated[
        Path, typer.Option(help="A folder with STUDENT/NAME.ipynb for each student.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for results and graded copies.")
    ] = Path("graded"),
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="How many at once.")] = 1,
    arrivals: Annotated[
        Path | None,
        typer.Option(help="CSV with student, arrived; arrivals.csv in SUBMISSIONS if it is there."),
    ] = None,
    dask: Annotated[
        str, typer.Option(help="The address of a dask scheduler whose workers grade.")
    ] = "",
    *,
    unsafe_no_sandbox: Annotated[
        bool,
        typer.Option(
            "--unsafe-no-sandbox",
            help="Run students' code as you, with all that you may do: for code that you trust.",
        ),
    ] = False,
) -> None:
    """Grade a class: a result and an executed copy for each student, and a table.

    Ends with 0 if all is graded, 3 if some need a person, 4 if some could not be graded.
    """
    from tqdm import tqdm

    from segedu.grading.collect import ARRIVALS
    from segedu.grading.grade import count_students, format_results, grade_class
    from segedu.grading.roster import read_arrivals

    listed = arrivals or submissions / ARRIVALS
    arrived = read_arrivals(listed) if arrivals or listed.is_file() else {}
    count = count_students(key, submissions)
    safe = not unsafe_no_sandbox
    each = grade_class(key, submissions, out, jobs=jobs, arrived=arrived, cluster=dask, boxed=safe)
    graded = tqdm(each, total=count, unit="student")
    results = sorted(graded, key=lambda result: result.student)
    print(format_results(results))
    if not safe:
        print(
            "no sandbox: the code of these students could do all that you can; so say the results"
        )
    statuses = {result.status for result in results}
    if "infrastructure" in statuses:
        raise typer.Exit(INFRASTRUCTURE)
    if statuses & {"needs-manual", "needs-review", "invalid"}:
        raise typer.Exit(NEEDS_PERSON)

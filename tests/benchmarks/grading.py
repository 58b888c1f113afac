"""`python -m tests.benchmarks.grading`: 60 submissions of a numpy assignment, and nbgrader.

Prints seconds for each submission, the memory of the process that grades, whether the same results
come twice and what a kill in the middle costs; then seconds of `nbgrader autograde` on the same
notebooks, in the same run, where `make nbgrader` has made its environment.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil

from segedu.grading.assignment import read_assignment
from segedu.grading.keys import answered, read_key, solution_names
from segedu.grading.release import write_release
from segedu.grading.results import Result, read_results
from segedu.grading.selftest import replaced

ROOT = Path(__file__).parents[2]
NAME = "masks_and_metrics"
NBGRADER = ROOT / ".nbgrader" / "bin" / "nbgrader"
CLASS, JOBS = 60, 2
MOST_SECONDS, MOST_MB = 2.5, 400


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hand_in(folder)
        seconds, memory = watched(lambda: grade(folder, "first"))
        row(f"segedu grade -j {JOBS}, seconds each", seconds / CLASS, MOST_SECONDS)
        row("memory of the grader and its processes at most, MB", memory, MOST_MB)
        first = told(folder / "first")
        assert len(first) == CLASS
        killed(folder)
        same = told(folder / "second") == first
        print(f"{'same results twice':<58} {'yes' if same else 'NO'}")
        if NBGRADER.exists():
            theirs = nbgrader(folder)
            row("nbgrader autograde, which grades one at a time, seconds each", theirs)
            row("times as quick", theirs * CLASS / seconds)


def row(what: str, value: float, most: float | None = None) -> None:
    verdict = (
        "" if most is None else f"  at most {most:g} {'reached' if value <= most else 'MISSED'}"
    )
    print(f"{what:<58} {value:8.2f}{verdict}", flush=True)


def hand_in(folder: Path) -> None:
    """A class: right answers, untouched ones, and each typical wrong answer in turn."""
    assignment = read_assignment(ROOT / "course" / "assignments" / NAME)
    write_release(assignment, folder / "release", folder / "key")
    secret = read_key(folder / "key" / NAME)
    mutants = list(secret["mutants"].values())
    kinds = [{}, *({replaced(secret, source): source} for source in mutants)]
    assert solution_names(secret)
    for number in range(CLASS):
        notebook = answered(secret, kinds[number % len(kinds)])
        path = folder / "submissions" / f"s{number:02d}" / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)


def grade(folder: Path, out: str) -> "subprocess.Popen[bytes]":
    words = ["grade", folder / "key" / NAME, "--submissions", folder / "submissions"]
    command = [sys.executable, "-m", "segedu", *words, "-o", folder / out, "-j", str(JOBS)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)


def watched(start: Callable[[], "subprocess.Popen[bytes]"]) -> tuple[float, float]:
    """Seconds until a command ends, and the most memory of its own processes, in MB.

    Sandboxes are the submissions', not ours: what bwrap started is not counted. Pages that several
    processes have in common are counted once.
    """
    begun, most, process = time.perf_counter(), [0.0], start()

    def watch() -> None:
        while process.poll() is None:
            most[0] = max(most[0], memory_of(psutil.Process(process.pid)) / 2**20)
            time.sleep(0.25)

    thread = threading.Thread(target=watch)
    thread.start()
    process.wait()
    thread.join()
    return time.perf_counter() - begun, most[0]


def memory_of(process: psutil.Process) -> int:
    """Of a process and its children, without sandboxes."""
    try:
        if "bwrap" in process.name():
            return 0
        return process.memory_full_info().pss + sum(memory_of(c) for c in process.children())
    except psutil.Error:
        return 0


def killed(folder: Path) -> None:
    """Kill the grader half-way, start it again, and see that nothing was graded twice."""
    process, out = grade(folder, "second"), folder / "second"
    while len(list(out.glob("*/*.result.json"))) < CLASS // 2:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)
    done = {path: path.stat().st_mtime_ns for path in out.glob("*/*.result.json")}
    grade(folder, "second").wait()
    again = sum(path.stat().st_mtime_ns != when for path, when in done.items())
    print(f"{'killed after, graded twice':<58} {len(done):5d} {again:5d}", flush=True)


def told(out: Path) -> list[Result]:
    """The results without what differs between two runs."""
    return [
        replace(r, seconds=0.0, questions=[replace(q, seconds=0.0) for q in r.questions])
        for r in read_results(out)
    ]


def nbgrader(folder: Path) -> float:
    """Seconds of `nbgrader autograde` for each of the same notebooks."""
    course = folder / "nbgrader"
    source = course / "source" / NAME / f"{NAME}.ipynb"
    source.parent.mkdir(parents=True)
    notebook = read_assignment(ROOT / "course" / "assignments" / NAME).notebook
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel}
    nbformat.write(notebook, source)
    for path in (folder / "submissions").glob("*/*.ipynb"):
        target = course / "submitted" / path.parent.name / NAME / path.name
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    home = {**os.environ, "HOME": str(course), "JUPYTER_PREFER_ENV_PATH": "1"}
    home["PATH"] = f"{NBGRADER.parent}:{home['PATH']}"

    def call(*words: str) -> None:
        subprocess.run([NBGRADER, *words], cwd=course, env=home, capture_output=True, check=True)

    call("generate_assignment", NAME)
    begun = time.perf_counter()
    call("autograde", NAME)
    return (time.perf_counter() - begun) / CLASS


if __name__ == "__main__":
    main()

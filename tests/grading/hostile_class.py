"""A class of submissions to survive: how each is made, and how the batch of them is looked at."""

import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell
from tiny_assignment import FULL, MUTANTS, SOURCE, outcome

from segedu.grading.assignment import read_assignment
from segedu.grading.grade import grade_class
from segedu.grading.job import Job
from segedu.grading.keys import answered, read_key
from segedu.grading.pool import in_processes
from segedu.grading.release import write_release
from segedu.grading.results import Result

LIMITS = (
    "due: 2026-12-01T12:00:00+00:00\nlate: 0.1\n"
    "limits: {cell_seconds: 3, notebook_seconds: 12, memory_gb: 2, processes: 32, output_mb: 1, file_mb: 16}\n"
)
NOTHING = {"double_test": ("no-response", 0), "total_test": ("no-response", 0)}


@dataclass(frozen=True)
class Case:
    """A submission, and what must become of it.

    Attributes:
        says: A sentence that is true of it.
        answers: Sources of answers by their cell; the solution where none is given.
        cells: Sources of cells that are put in after the setup.
        change: Changes the notebook.
        write: Writes the submission's folder itself.
        status: Of the result.
        questions: Status and marks of the questions that are not answered in full.
        reason: What the reason has in it.
        copy: What the executed copy has in it.
        not_in_copy: What it must not have in it.
    """

    says: str
    answers: dict[str, str] = field(default_factory=dict)
    cells: tuple[str, ...] = ()
    change: Callable[[Any], None] | None = None
    write: Callable[[Path, Any], None] | None = None
    status: str = "needs-manual"
    questions: dict[str, tuple[str, float | None]] = field(default_factory=dict)
    reason: str = ""
    copy: str = ""
    not_in_copy: str = ""


def double(body: str, **more: Any) -> Case:
    """A case of one question: the answer `double`, and how that question comes out."""
    status = more.pop("result", "fail")
    says = more.pop("says")
    marks = {"pass": 2}.get(status, 0)
    return Case(
        says,
        {"double": textwrap.dedent(body)},
        questions={"double_test": (status, marks)},
        **more,
    )


def invalid(says: str, content: bytes, reason: str) -> Case:
    """A file that is no notebook."""
    return Case(
        says,
        write=lambda folder, _: (folder / "tiny.ipynb").write_bytes(content),
        status="invalid",
        reason=reason,
    )


@dataclass(frozen=True)
class Graded:
    """A batch, graded.

    Attributes:
        results: By student.
        out: The folder of graded work.
        alive: Processes that the batch has left.
        left: Temporary files that it has left.
        changed: Files outside the batch's own that are not as they were.
        mounts: Whether the mounts are as they were.
        keys: The folder of the key.
        submissions: The folder of submissions.
        seconds: That it took.
    """

    results: dict[str, Result]
    out: Path
    alive: list[psutil.Process]
    left: list[str]
    changed: list[str]
    mounts: bool
    keys: Path
    submissions: Path
    seconds: float


class Family:
    """Remembers every process that this one has had below it, until asked to stop."""

    def __init__(self) -> None:
        self.seen: set[psutil.Process] = set()
        self._own = psutil.Process()
        self._before = set(self._own.children(recursive=True))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.seen |= set(self._own.children(recursive=True))
            except psutil.Error:
                continue
            time.sleep(0.1)

    def left(self) -> list[psutil.Process]:
        """Those that still live; multiprocessing's own helper is not counted."""
        self._stop.set()
        self._thread.join()
        mine = [p for p in self.seen - self._before if not _is_tracker(p)]
        return psutil.wait_procs(mine, timeout=5)[1]


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def make_source(folder: Path) -> Path:
    """The small assignment, with limits for hostile guests."""
    source = folder / "source" / "tiny"
    (source / "mutants").mkdir(parents=True)
    (source / "tiny.py").write_text(SOURCE)
    (source / "assignment.yml").write_text(LIMITS)
    for name, text in MUTANTS.items():
        (source / "mutants" / name).write_text(textwrap.dedent(text))
    return source


def make_submission(folder: Path, case: Case, secret: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if case.write is not None:
        case.write(folder, secret)
        return
    notebook = answered(secret, case.answers)
    notebook.cells[2:2] = [new_code_cell(textwrap.dedent(source)) for source in case.cells]
    if case.change is not None:
        case.change(notebook)
    nbformat.write(notebook, folder / "tiny.ipynb")


def snapshot(folder: Path) -> dict[str, Any]:
    """What is in a folder, to the last byte and time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (about.st_mode, about.st_mtime_ns, content)
    return found


@contextmanager
def short_temporary_folder() -> Any:
    """A folder of our own for temporary files: what is left in it was left by us."""
    folder = Path(tempfile.mkdtemp(prefix="a", dir="/tmp"))
    patch = pytest.MonkeyPatch()
    patch.setenv("TMPDIR", str(folder))
    patch.setattr(tempfile, "tempdir", str(folder))
    try:
        yield folder
    finally:
        patch.undo()
        for path in folder.iterdir():
            path.rmdir()
        folder.rmdir()


def grade_all(
    base: Path, cases: dict[str, Case], *, prepare: Callable[[Path], None] | None = None
) -> Graded:
    """Grade a class of these cases, two at once, and look at what the batch leaves."""
    write_release(read_assignment(make_source(base)), base / "release", base / "key")
    keys, secret = base / "key" / "tiny", read_key(base / "key" / "tiny")
    if prepare is not None:
        prepare(base)
    for student, case in cases.items():
        make_submission(base / "submissions" / student, case, secret)
    for student in ("a-first", "m-middle", "z-last"):
        make_submission(base / "submissions" / student, Case("correct"), secret)
    before, mounts = snapshot(base), Path("/proc/self/mountinfo").read_text()
    begun = time.monotonic()
    with short_temporary_folder() as temporary:
        family = Family()
        found = list(grade_class(keys, base / "submissions", base / "graded", jobs=2))
        alive = family.left()
        left = [path.name for path in temporary.iterdir() if not path.name.startswith("pymp")]
    after = {p: v for p, v in snapshot(base).items() if not p.startswith(str(base / "graded"))}
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    changed = [path for path in changed if path != str(base)]
    return Graded(
        {result.student: result for result in found},
        base / "graded",
        alive,
        left,
        changed,
        Path("/proc/self/mountinfo").read_text() == mounts,
        keys,
        base / "submissions",
        time.monotonic() - begun,
    )


def told(result: Result) -> Result:
    """A result without what differs between two runs."""
    return replace(
        result, seconds=0.0, questions=[replace(q, seconds=0.0) for q in result.questions]
    )


def check(case: Case, student: str, graded: Graded) -> None:
    """What must hold of one submission."""
    result = graded.results[student]
    assert result.status == case.status, result
    if case.status == "invalid":
        assert result.score == 0
        assert case.reason in result.reason
        assert result.reason.isprintable()
        return
    expected = {**FULL, **case.questions}
    assert outcome(result) == expected, (result.questions, result.raised)
    assert result.score == sum(score or 0 for _, score in expected.values())
    for question in result.questions:
        assert question.message or question.status in ("pass", "partial")
        assert "-17.25" not in question.message
    copy = (graded.out / student / "tiny.ipynb").read_text()
    assert len(copy) < 4 * 2**20
    assert "-17.25" not in copy
    assert case.copy in copy
    assert not case.not_in_copy or case.not_in_copy not in copy


def check_batch(graded: Graded, cases: dict[str, Case]) -> None:
    """What must hold of all of them."""
    assert set(graded.results) == {*cases, "a-first", "m-middle", "z-last"}
    for student in ("a-first", "m-middle", "z-last"):
        assert outcome(graded.results[student]) == FULL
    assert graded.alive == []
    assert graded.left == []
    assert graded.changed == []
    assert graded.mounts
    for student in graded.results:
        assert (graded.out / student / "tiny.result.json").is_file()
    assert not list(graded.out.rglob("*unfinished*"))
    assert {path.name for path in graded.out.iterdir()} == {*graded.results, "tiny.selftest.json"}


def grade_again(graded: Graded, students: list[str], base: Path) -> dict[str, Result]:
    """The results of some, graded once more from the start."""
    jobs = [
        Job(s, graded.submissions / s / "tiny.ipynb", graded.keys, base / "graded")
        for s in students
    ]
    return {result.student: result for result in in_processes(jobs, 2)}

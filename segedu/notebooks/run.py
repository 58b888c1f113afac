"""Run chapters with papermill, each in a fresh kernel, and say how each went."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from tqdm import tqdm

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.notebooks.chapters import find_chapters
from segedu.notebooks.document import notebook_text, read_notebook
from segedu.notebooks.execution import execute, stopped_at
from segedu.notebooks.memory import PeakMemory
from segedu.notebooks.parameters import Values, parameter_names, read_parameters
from segedu.notebooks.tidy import describe_images

PATIENCE = 600  # seconds that a cell may take


@dataclass(frozen=True)
class Record:
    """How the run of one chapter went.

    Attributes:
        chapter: Its name, such as "01_first_segmentation".
        seconds: From the start of its kernel to the end.
        peak_bytes: Memory of its kernel, and of what that started, at the peak.
        checks_passed: Lines that `check` printed.
        failure: Which cell failed, and why; None if none did.
    """

    chapter: str
    seconds: float
    peak_bytes: int
    checks_passed: int
    failure: str | None


def run_chapters(
    course: Path,
    chapters: Sequence[str] = (),
    *,
    parameters_file: Path | None = None,
    output: Path = Path("_build/course"),
) -> Iterator[Record]:
    """Run the `chapters` of the `course` folder, all if none, and yield a record as each ends.

    Args:
        course: Where the notebooks are; each runs in this folder.
        chapters: Numbers or names.
        parameters_file: YAML: parameters by chapter; see `read_parameters`.
        output: Folder for the executed copies.

    Raises:
        InputError: Before anything runs, if a chapter or a parameter does not exist, or the copies
            would take the place of the course.
    """
    if output.resolve() == course.resolve():
        raise InputError(f"{output} holds the course itself; name another folder for the copies")
    chosen = find_chapters(course, ".ipynb", chapters)
    parameters: Mapping[str, Values] = {}
    if parameters_file is not None:
        notebooks = find_chapters(course, ".ipynb")
        known = {path.stem: parameter_names(read_notebook(path)) for path in notebooks}
        parameters = read_parameters(parameters_file, known)
    return run(chosen, parameters=parameters, output=output)


def run(
    notebooks: Sequence[Path],
    *,
    parameters: Mapping[str, Values],
    output: Path,
    patience: float = PATIENCE,
) -> Iterator[Record]:
    """Run each notebook in its own folder, with a progress bar over all their cells.

    An executed copy goes to `output` as its chapter ends, failed or not, and is written whole: when
    the run is interrupted, those of the chapters before stay and that of the chapter is not begun.

    Args:
        notebooks: What to run.
        parameters: Values by the notebooks' names, for their cells tagged `parameters`.
        output: Folder for the executed copies.
        patience: Seconds that a cell may take.
    """
    sizes = [_count_code(read_notebook(path)) for path in notebooks]
    with _progress(sum(sizes)) as bar:
        for number, path in enumerate(notebooks):
            bar.set_description(path.stem)
            values = parameters.get(path.stem, {})
            yield _run_one(path, values, output / path.name, patience, bar.update)
            bar.update(sum(sizes[: number + 1]) - bar.n)  # the cells after one that failed


def format_table(records: Iterable[Record]) -> str:
    """A table of chapter, time, peak memory and checks passed, and below it each failure in full.

    Example:
        >>> print(format_table([Record("01_first", 9.5, 600_000_000, 12, None)]))
        chapter    time   memory  checks
        01_first  9.5 s  0.60 GB      12
        all 1     9.5 s  0.60 GB      12
    """
    records = list(records)
    total = Record(
        f"all {len(records)}",
        sum(record.seconds for record in records),
        max((record.peak_bytes for record in records), default=0),
        sum(record.checks_passed for record in records),
        None,
    )
    rows = [("chapter", "time", "memory", "checks", "")]
    rows += [_row(record) for record in [*records, total]]
    name, seconds, memory, checks, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        f"{a:{name}}  {b:>{seconds}}  {c:>{memory}}  {d:>{checks}}  {e}".rstrip()
        for a, b, c, d, e in rows
    ]
    failures = [f"{r.chapter}: {r.failure}" for r in records if r.failure]
    return "\n".join([*lines, *failures])


def _row(record: Record) -> tuple[str, str, str, str, str]:
    return (
        record.chapter,
        f"{record.seconds:.1f} s",
        f"{record.peak_bytes / 1e9:.2f} GB",
        str(record.checks_passed),
        "failed" if record.failure else "",
    )


def _progress(total: int) -> "tqdm[Any]":
    """A progress bar; in a log, where each state is a new line, it says something rarely."""
    pause = 0.1 if sys.stderr.isatty() else 10
    return tqdm(total=total, unit="cell", mininterval=pause, maxinterval=pause)


def _run_one(
    path: Path, values: Values, target: Path, patience: float, advance: Callable[[int], Any]
) -> Record:
    """Run one notebook and write its executed copy to `target`."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as peak:
        copy = Path(folder) / path.name
        reason = execute(path, copy, values, patience, advance)
        executed = read_notebook(copy) if copy.exists() else read_notebook(path)
    failure = reason or stopped_at(executed)
    _write(executed, target)
    seconds = time.monotonic() - start
    return Record(path.stem, seconds, peak.bytes, _count_checks(executed), failure)


def _write(executed: NotebookNode, target: Path) -> None:
    """Write an executed copy, without papermill's notes on this machine and its clock."""
    executed.metadata.pop("papermill", None)
    for cell in executed.cells:
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            describe_images(cell)
    with whole_file(target) as unfinished:
        unfinished.write_text(notebook_text(executed), encoding="utf-8")


def _count_code(notebook: NotebookNode) -> int:
    return sum(cell.cell_type == "code" for cell in notebook.cells)


def _count_checks(notebook: NotebookNode) -> int:
    """Lines that begin as those of `check` do."""
    texts = (
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    return sum(line.startswith("✓ ") for text in texts for line in text.splitlines())

"""Run chapters with papermill, each in a fresh kernel, and say how each went."""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.notebooks.chapters import find_chapters
from segedu.notebooks.document import name_cell, notebook_text, read_notebook
from segedu.notebooks.kernel import QUIET, ChapterError, ChapterKernelManager, refuse_quit
from segedu.notebooks.memory import PeakMemory
from segedu.notebooks.parameters import Values, parameter_names, read_parameters
from segedu.notebooks.tidy import describe_images

PATIENCE = 600  # seconds that a cell may take


class SavedOnce(NBClientEngine):  # type: ignore[misc]
    """papermill's own engine, but the copy is written as the run ends, however it ends.

    papermill writes it before and after each cell. For a notebook of 1 MB with 100 cells that is
    200 times a twentieth of a second.
    """

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any
    ) -> NotebookNode:
        """Run the notebook that `nb_man` holds."""
        path, nb_man.output_path = nb_man.output_path, None
        try:
            return super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            nb_man.output_path = path
            nb_man.save()


papermill_engines.register("segedu-chapters", SavedOnce)


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
        reason = _execute(path, copy, values, patience, advance)
        executed = read_notebook(copy) if copy.exists() else read_notebook(path)
    failure = reason or _unfinished(executed)
    _write(executed, target)
    seconds = time.monotonic() - start
    return Record(path.stem, seconds, peak.bytes, _count_checks(executed), failure)


def _execute(
    path: Path, copy: Path, values: Values, patience: float, advance: Callable[[int], Any]
) -> str | None:
    """Run a notebook into `copy`; returns why it stopped early."""
    begun: list[NotebookNode] = []
    try:
        with _silent(logging.getLogger("papermill")):
            papermill.execute_notebook(
                path,
                copy,
                parameters=dict(values),
                engine_name="segedu-chapters",
                kernel_name="python3",
                progress_bar=False,
                cwd=path.parent,
                execution_timeout=patience,
                kernel_manager_class=ChapterKernelManager,
                extra_arguments=[QUIET],
                coalesce_streams=True,
                shutdown_kernel="immediate",  # it takes up to three seconds to leave by itself
                on_cell_start=lambda cell, **_: begun.append(cell),
                on_cell_executed=refuse_quit,
                on_cell_complete=lambda **_: advance(1),
            )
    except (PapermillExecutionError, ChapterError, CellTimeoutError, RuntimeError) as error:
        return f"{_place(read_notebook(path), begun)} {_reason(error, patience)}"
    return None


def _reason(error: Exception, patience: float) -> str:
    if isinstance(error, PapermillExecutionError):
        return f"fails with {error.ename}: {error.evalue}"
    if isinstance(error, CellTimeoutError):
        return f"took more than {patience:g} seconds"
    if isinstance(error, DeadKernelError):
        return "ended its kernel (a crash, or no memory left)"
    return str(error)


def _place(notebook: NotebookNode, begun: Sequence[NotebookNode]) -> str:
    """Which cell of the notebook was the last to begin; papermill has put one in for parameters."""
    if not begun:
        return "the kernel"
    ids = [cell.id for cell in notebook.cells]
    last = begun[-1].id
    return name_cell(notebook, ids.index(last)) if last in ids else "the cell of given parameters"


def _unfinished(executed: NotebookNode) -> str | None:
    """Where a run stopped that papermill takes for complete: `sys.exit()` is no error to it."""
    for index, cell in enumerate(executed.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if any(output.get("ename") == "SystemExit" for output in cell.outputs):
            return f"{name_cell(executed, index)} calls sys.exit()"
        if cell.execution_count is None:
            return f"{name_cell(executed, index)} has not run"
    return None


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


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """Keep a logger from writing into the progress bar; what it would say is in the record."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

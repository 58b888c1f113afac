"""Execute one notebook with papermill in a fresh kernel, and say where and why it stopped early."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from segedu.notebooks.document import name_cell, read_notebook
from segedu.notebooks.kernel import QUIET, ChapterError, ChapterKernelManager, refuse_quit
from segedu.notebooks.parameters import Values


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


def execute(
    path: Path, copy: Path, values: Values, patience: float, advance: Callable[[int], Any]
) -> str | None:
    """Run a notebook into `copy`; returns why it stopped early, None if papermill saw no reason.

    Args:
        path: The notebook; it runs in its own folder.
        copy: Where the executed notebook goes, as far as it came; none if no kernel starts.
        values: For its cell tagged `parameters`.
        patience: Seconds that a cell may take.
        advance: Called with 1 as each cell ends.
    """
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


def stopped_at(executed: NotebookNode) -> str | None:
    """Where a run stopped that papermill takes for complete; None if it came to its end.

    To papermill `sys.exit()` is no error.
    """
    for index, cell in enumerate(executed.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if any(output.get("ename") == "SystemExit" for output in cell.outputs):
            return f"{name_cell(executed, index)} calls sys.exit()"
        if cell.execution_count is None:
            return f"{name_cell(executed, index)} has not run"
    return None


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """Keep a logger from writing into the progress bar; what it would say is in the record."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

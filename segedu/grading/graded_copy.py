"""The graded copy: a submission run from top to bottom, with what it earned written above it."""

import copy
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import papermill
from nbformat import NotebookNode
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillExecutionError

from segedu.files import whole_file
from segedu.grading.assignment import Limits
from segedu.grading.boxed_kernel import BoxedEngine
from segedu.grading.parameters import TAG
from segedu.grading.results import Result
from segedu.grading.submission import Submission
from segedu.grading.tables import seen
from segedu.notebooks.document import node, notebook_text, own_metadata, read_notebook

papermill_engines.register("segedu", BoxedEngine)  # where segedu was installed before it had one


def as_notebook(submission: Submission) -> NotebookNode:
    """A submission as a notebook: the student's cells, the released tests, no outputs."""
    cells = []
    for number, cell in enumerate(submission.cells):
        if cell.part == "injected":  # papermill puts its own there
            continue
        kind = "code" if cell.is_code else "markdown"
        new = node(cell_type=kind, id=f"cell-{number}", source=cell.source, metadata=node())
        if cell.name:
            new.metadata["segedu"] = node(question=cell.name)
        if cell.part == TAG:
            new.metadata["tags"] = [TAG]
        if cell.is_code:
            new["outputs"], new["execution_count"] = [], None
        cells.append(new)
    return node(nbformat=4, nbformat_minor=5, metadata=own_metadata(), cells=cells)


def run_copy(submission: Submission, limits: Limits, *, boxed: bool = True) -> NotebookNode:
    """Run a submission's cells and visible tests in a sandboxed kernel, with papermill."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "in.ipynb"), Path(folder, "out.ipynb")
        source.write_text(notebook_text(as_notebook(submission)), encoding="utf-8")
        try:
            papermill.execute_notebook(
                source,
                target,
                engine_name="segedu",
                kernel_name="python3",
                progress_bar=False,
                parameters=submission.parameters,
                limits=limits,
                boxed=boxed,
            )
        except PapermillExecutionError:
            executed = read_notebook(target)  # with the errors that the student's cells raise
            executed.cells = [c for c in executed.cells if not _is_papermills(c)]
            return executed
        return read_notebook(target)


def write_copy(executed: NotebookNode, result: Result, target: Path) -> None:
    """Write a graded copy whole: a summary, then the notebook, without notes on this machine."""
    notebook = copy.deepcopy(executed)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    notebook.cells.insert(
        0,
        node(cell_type="markdown", id="summary", metadata=node(), source=summary(result)),
    )
    with whole_file(target) as unfinished:
        unfinished.write_text(notebook_text(notebook), encoding="utf-8")


def summary(result: Result) -> str:
    """The marks of a submission as Markdown; messages are shown as they are, and nothing runs."""
    shown = "?" if result.score is None else f"{result.score:g}"
    lines = [
        f"# {result.assignment}: {shown} of {result.most:g}",
        "",
        f"Student {_quoted(result.student)}; {result.status}.",
        "",
        "| question | result | marks | of | |",
        "|---|---|---|---|---|",
    ]
    for question in result.questions:
        marks = "" if question.score is None else f"{question.score:g}"
        lines.append(
            f"| {_quoted(question.name)} | {question.status} | {marks} | {question.most:g} | "
            f"{_quoted(question.message)} |"
        )
    notes = [result.reason, *result.repairs]  # what cells raised is theirs, and in their outputs
    if result.penalty:
        notes.append(f"{result.late_days} days late: {result.penalty:g} marks less")
    lines += ["", *(f"- {_quoted(note)}" for note in notes if note)]
    return "\n".join(lines).rstrip() + "\n"


def _quoted(text: str) -> str:
    """Text as code, in which Markdown and HTML mean nothing; pipes and lines would end a cell."""
    plain = " ".join(seen(text).replace("`", "'").replace("|", "/").split())
    return f"`{plain}`" if plain else ""


def _is_papermills(cell: Mapping[str, Any]) -> bool:
    """Whether papermill put a cell in to point at an error."""
    return "papermill-error-cell-tag" in cell["metadata"].get("tags", [])

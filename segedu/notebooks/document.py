"""Notebooks as documents: read, written and named in one way."""

from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}


def read_notebook(path: Path) -> NotebookNode:
    """The notebook in a file, in the current format."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def notebook_text(notebook: NotebookNode) -> str:
    """A notebook as the text of its file: the same for the same content."""
    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return text + "\n"


def node(**fields: Any) -> NotebookNode:
    """A part of a notebook, such as metadata."""
    return nbformat.from_dict(fields)  # type: ignore[no-untyped-call]


def own_metadata() -> NotebookNode:
    """The metadata of every notebook of the course: a Python 3 kernel, no version of anything."""
    return node(kernelspec=KERNELSPEC, language_info=LANGUAGE)


def name_cell(notebook: NotebookNode, index: int) -> str:
    """How an error calls a cell: its place, counted from 1, and its first line."""
    first_line = notebook.cells[index].source.strip().split("\n")[0]
    return f"cell {index + 1} ({first_line[:60]})"


def tags_of(cell: NotebookNode) -> list[str]:
    """The cell's tags."""
    return list(cell.metadata.get("tags", []))

"""Make chapters: from a source, a jupytext percent script, an executed notebook."""

import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import metadata
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.notebooks.chapters import find_chapters
from segedu.notebooks.colab import badge, bootstrap
from segedu.notebooks.document import (
    name_cell,
    node,
    notebook_text,
    own_metadata,
    read_notebook,
    tags_of,
)
from segedu.notebooks.kernel import (
    QUIET,
    STRICT,
    ChapterError,
    ChapterKernelManager,
    chapter_environment,
    refuse_quit,
)
from segedu.notebooks.tidy import flaws, tidy

LARGEST = 1_000_000  # bytes of a stored notebook
PATIENCE = 600  # seconds that a cell may take

# What readers see at first of a cell with this tag: its output only, or on the site a button.
FOLDED = {"exercise-check": "hide-input", "solution": "hide-cell"}


def build_chapters(course: Path, chapters: Sequence[str] = ()) -> Iterator[Path]:
    """Build each of the `chapters` of the `course` folder, all if none, and yield its notebook."""
    for source in find_chapters(course / "source", ".py", chapters):
        target = course / f"{source.stem}.ipynb"
        build(source, target, repository=repository_address())
        yield target


def build(source: Path, target: Path, *, repository: str) -> None:
    """Write the executed notebook of a chapter, whole or not at all.

    It runs in `target`'s folder, without `SEGEDU_DATA`, so that no picture of a real set is stored,
    and with warnings as errors. Twice the same outputs give twice the same bytes.

    Args:
        source: A jupytext percent script.
        target: Where the notebook goes.
        repository: Address of the course's repository, as Colab needs it.

    Raises:
        ChapterError: If a cell fails, or the notebook has a flaw or is too large.
    """
    notebook = prepare(source, repository=repository)
    try:
        _execute(notebook, target.parent)
    except ChapterError as error:
        raise ChapterError(f"{source.stem}: {error}") from None
    tidy(notebook)
    text = notebook_text(notebook)
    found = flaws(notebook)
    if len(text.encode()) > LARGEST:
        found.append(f"it takes {len(text.encode()):,} bytes, of at most {LARGEST:,}")
    if found:
        raise ChapterError(f"{source.stem}: " + "\n".join(found))
    with whole_file(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def prepare(source: Path, *, repository: str) -> NotebookNode:
    """The notebook of a chapter before it is run: its cells, with what viewers and Colab need.

    Raises:
        ChapterError: If its first cell is no title.
    """
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = own_metadata()
    title = notebook.cells[0] if notebook.cells else None
    if title is None or title.cell_type != "markdown" or not title.source.startswith("# "):
        raise ChapterError(f"{source.stem}: the first cell is no Markdown that starts with # TITLE")
    heading, _, text = title.source.partition("\n")
    title.source = f"{heading}\n\n{badge(source.stem, repository)}\n\n{text.strip()}".strip()
    notebook.cells.insert(1, _bootstrap_cell(repository))
    for cell in notebook.cells:
        _add_metadata(cell)
    _add_ids(notebook, source.stem)
    return notebook


def stale(source: Path, target: Path, *, repository: str) -> list[str]:
    """How the cells of a stored notebook differ from what its source gives; [] if they do not.

    Outputs are not compared; `flaws` judges them.
    """
    if not target.exists():
        return [f"{target.name} is missing"]
    fresh, stored = prepare(source, repository=repository), read_notebook(target)
    found = []
    if len(fresh.cells) != len(stored.cells):
        found.append(f"it has {len(stored.cells)} cells, its source {len(fresh.cells)}")
    for index, (new, old) in enumerate(zip(fresh.cells, stored.cells, strict=False)):
        parts = ("cell_type", "source", "metadata", "id")
        different = [part for part in parts if new[part] != old[part]]
        if different:
            found.append(f"{name_cell(fresh, index)} differs in {', '.join(different)}")
    if fresh.metadata != stored.metadata:
        found.append("its metadata differ")
    return found


def repository_address() -> str:
    """The address of the course's repository: from `pyproject.toml`, or as installed.

    Raises:
        InputError: If neither names one.
    """
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.exists():
        urls = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("urls", {})
    else:
        lines = metadata("segedu").get_all("Project-URL") or []
        urls = dict(line.split(", ", 1) for line in lines)
    if "Repository" not in urls:
        raise InputError("no repository is named in pyproject.toml, [project.urls]")
    return str(urls["Repository"])


def _bootstrap_cell(repository: str) -> NotebookNode:
    return node(
        cell_type="code",
        source=bootstrap(repository),
        metadata={"jupyter": {"source_hidden": True}, "tags": ["colab", "remove-cell"]},
        execution_count=None,
        outputs=[],
    )


def _add_metadata(cell: NotebookNode) -> None:
    """Fold checks and solutions, and put the alt text where the site looks for it."""
    cell.metadata.pop("lines_to_next_cell", None)  # jupytext's note on blank lines in the script
    tags = tags_of(cell)
    added = [FOLDED[tag] for tag in tags if tag in FOLDED]
    if added and cell.cell_type == "code":
        cell.metadata["tags"] = [*tags, *added]
        cell.metadata.setdefault("jupyter", node())["source_hidden"] = True
    if "alt" in cell.metadata:
        cell.metadata["mystnb"] = node(image={"alt": cell.metadata.alt})


def _add_ids(notebook: NotebookNode, chapter: str) -> None:
    """Ids from each cell's content, so that they stay when other cells come and go."""
    seen: set[str] = set()
    for cell in notebook.cells:
        content, copies = f"{chapter}\n{cell.cell_type}\n{cell.source}", 0
        while (name := _digest(f"{content}\n{copies}")) in seen:
            copies += 1
        seen.add(name)
        cell["id"] = name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in a fresh kernel, in place.

    Raises:
        ChapterError: If a cell fails, ends the kernel, or takes too long.
    """
    reached = 0

    def note(*, cell_index: int, **_: object) -> None:
        nonlocal reached
        reached = cell_index

    client = NotebookClient(
        notebook,
        timeout=PATIENCE,
        kernel_manager_class=ChapterKernelManager,
        extra_arguments=[QUIET, STRICT],
        coalesce_streams=True,
        store_widget_state=False,
        on_cell_start=note,
        on_cell_executed=refuse_quit,
    )
    environment = chapter_environment()
    environment.pop("SEGEDU_DATA", None)
    try:
        client.execute(cwd=os.fspath(folder), env=environment)
    except ChapterError as error:
        raise ChapterError(f"{name_cell(notebook, reached)} {error}") from None
    except CellExecutionError as error:
        message = f"{error.ename}: {error.evalue}\n{_where(error.traceback)}"
        raise ChapterError(f"{name_cell(notebook, reached)} fails with {message}") from None
    except (CellControlSignal, DeadKernelError) as error:
        reason = "its kernel died" if isinstance(error, DeadKernelError) else "it took too long"
        raise ChapterError(f"{name_cell(notebook, reached)}: {reason}") from None


def _where(traceback: str) -> str:
    """The part of IPython's coloured traceback that shows the line of the cell, without colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", traceback)
    return plain[plain.rfind("Cell In[") :].split("\n\n")[0].strip()

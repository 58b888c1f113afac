"""A notebook file that a student handed in, read without trust: it may be anything at all."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import nbformat

from segedu.grading.cells import tags
from segedu.grading.parameters import TAG
from segedu.grading.tables import writable

LARGEST_FILE = 100 * 2**20
MOST_CELLS = 2000
MOST_BRACKETS = 2_000_000  # each takes 60 bytes of memory or more


class Invalid(Exception):  # noqa: N818 - what the submission is
    """A submission that is no notebook; the message says why, for the student to read."""


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, in the current format, as plain dicts; outputs are dropped.

    Raises:
        Invalid: If it is no ordinary file, too large, or no notebook.
    """
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid("the file is not UTF-8 text, as notebooks are") from None
    if not text.strip():
        raise Invalid("the file is empty")
    if any(line.startswith("<<<<<<< ") for line in text.splitlines()):
        raise Invalid("the file has the marks of a merge that was not finished")
    if text.count("{") + text.count("[") > MOST_BRACKETS:
        raise Invalid(f"the notebook has more than {MOST_BRACKETS} parts; clear its outputs")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("the file is no JSON: cut off, or not a notebook") from None
    if not isinstance(given, dict) or not ("cells" in given or "worksheets" in given):
        raise Invalid("the file is JSON, but no notebook")
    _drop_unread(given)
    if (count := sum(map(len, _sheets(given)))) > MOST_CELLS:
        raise Invalid(f"the notebook has {count} cells; at most {MOST_CELLS} are read")
    try:
        notebook = nbformat.reads(json.dumps(given), as_version=4)  # type: ignore[no-untyped-call]
        cells = plain_cells(notebook)
    except Exception:  # noqa: BLE001 - old and broken notebooks fail in many ways
        raise Invalid("the notebook cannot be read in any format from 3 to 4.5") from None
    return cells


def _bytes(path: Path) -> bytes:
    """The content of an ordinary file; a link, a device or a pipe is not opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Invalid(f"the file cannot be opened: {error.strerror}") from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST_FILE:
        os.close(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Invalid("it is no ordinary file")
        raise Invalid(f"the file has {about.st_size} bytes; at most {LARGEST_FILE} are read")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(LARGEST_FILE + 1)


def _sheets(given: dict[str, Any]) -> list[list[Any]]:
    """The lists of cells in a notebook of any format."""
    sheets = given.get("worksheets")
    parts = [given, *(sheets if isinstance(sheets, list) else [])]
    found = [part.get("cells") for part in parts if isinstance(part, dict)]
    return [cells for cells in found if isinstance(cells, list)]


def _drop_unread(given: dict[str, Any]) -> None:
    """What nothing is read from may be large and broken: outputs, attachments, most metadata."""
    given["metadata"] = {}
    for cell in (cell for cells in _sheets(given) for cell in cells if isinstance(cell, dict)):
        about = cell.get("metadata")
        known = about.items() if isinstance(about, dict) else ()
        cell["metadata"] = {name: part for name, part in known if name in ("nbgrader", "tags")}
        cell.pop("attachments", None)
        if "outputs" in cell:
            cell["outputs"] = []


def plain_cells(notebook: Any) -> list[dict[str, Any]]:
    """What is read of a notebook's cells: source, kind, id and grade_id."""
    return [_plain(cell) for cell in notebook.cells]


def _plain(cell: Any) -> dict[str, Any]:
    about = cell.get("metadata", {}).get("nbgrader", {})
    name = about.get("grade_id", "") if isinstance(about, dict) else ""
    return {
        "source": writable(str(cell.source)),
        "cell_type": "code" if cell.cell_type == "code" else "markdown",
        "id": str(cell.get("id", "")),
        "grade_id": str(name),
        "is_parameters": TAG in tags(cell),
    }

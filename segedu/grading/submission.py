"""What a student handed in, read without trust and laid beside the key.

A notebook is a file like any other: it may be no JSON, of an old format, stripped of all its
metadata, reordered, or not what was released at all. What can be mended is, and is said.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from segedu.grading.assignment import defined_names
from segedu.grading.cells import tags
from segedu.grading.parameters import TAG, as_code
from segedu.grading.release import solution_names

LARGEST_FILE = 100 * 2**20
MOST_CELLS = 2000


class Invalid(Exception):  # noqa: N818 - what the submission is
    """A submission that is no notebook; the message says why, for the student to read."""


@dataclass(frozen=True)
class Cell:
    """A cell of a submission.

    Attributes:
        source: What to run, or what is written; of a locked cell, what was released.
        is_code: Otherwise it is text.
        name: The grade_id of the cell of the key that it is; "" for the student's own.
        is_test: Whether it is one of the key's cells of tests, which are never run from here.
        part: "parameters" for the cell of parameters, "injected" for the one put in after it, "".
    """

    source: str
    is_code: bool
    name: str = ""
    is_test: bool = False
    part: str = ""


@dataclass(frozen=True)
class Submission:
    """A submission laid beside its key.

    Attributes:
        cells: In the student's order.
        repairs: What was mended, in words.
        parameters: What the cells and the tests are run with.
    """

    cells: list[Cell]
    repairs: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def answers(self, name: str) -> list[str]:
        """The sources of the cells that answer the key's cell of that grade_id."""
        return [cell.source for cell in self.cells if cell.name == name]

    def last(self, name: str) -> int:
        """The place of the last cell of that grade_id; -1 if there is none."""
        return max((n for n, cell in enumerate(self.cells) if cell.name == name), default=-1)


def read_submission(
    path: Path, secret: Mapping[str, Any], values: Mapping[str, Any] | None = None
) -> Submission:
    """Read a notebook that a student handed in.

    Args:
        path: The file.
        secret: The key.
        values: The student's parameters; the defaults if none are given.

    Raises:
        Invalid: If it cannot be taken for a notebook.
    """
    return match(read_cells(path), secret, values)


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
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("the file is no JSON: cut off, or not a notebook") from None
    if not isinstance(given, dict) or not ("cells" in given or "worksheets" in given):
        raise Invalid("the file is JSON, but no notebook")
    _drop_outputs(given)
    try:
        notebook = nbformat.reads(json.dumps(given), as_version=4)  # type: ignore[no-untyped-call]
        cells = plain_cells(notebook)
    except Exception:  # noqa: BLE001 - old and broken notebooks fail in many ways
        raise Invalid("the notebook cannot be read in any format from 3 to 4.5") from None
    if len(cells) > MOST_CELLS:
        raise Invalid(f"the notebook has {len(cells)} cells; at most {MOST_CELLS} are read")
    return cells


def match(
    cells: list[dict[str, Any]],
    secret: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> Submission:
    """Find which cell of the key each cell of a notebook is, and restore the locked ones.

    After the cell of parameters comes one that sets them to the values given, whatever the
    student's says; where it is missing, at the top.
    """
    matcher = _Matcher(secret)
    parameters = dict(secret.get("parameters") or {}) if values is None else dict(values)
    repairs: list[str] = []
    injected = [Cell(as_code(parameters), is_code=True, part="injected")] if parameters else []
    place = matcher.parameters_at(cells) if parameters else -1
    found = [] if place >= 0 else list(injected)
    for number, cell in enumerate(cells):
        if number == place:
            found += [matcher.parameters(cell), *injected]
            continue
        known = matcher.find(cell, repairs)
        if known is None:
            found.append(Cell(cell["source"], cell["cell_type"] == "code"))
            continue
        about = known["nbgrader"]
        is_solution = bool(about.get("solution"))
        source = cell["source"] if is_solution else known["released"]
        if source != cell["source"]:
            repairs.append(f"{about['grade_id']}: the cell had been changed and was restored")
        is_test = bool(about.get("grade")) and not is_solution
        found.append(Cell(source, known["cell_type"] == "code", about["grade_id"], is_test))
    there = {cell.name for cell in found}
    repairs += [f"{name}: the cell is missing" for name in matcher.by_name if name not in there]
    return Submission(found, repairs, parameters)


class _Matcher:
    """Knows the key's cells by their names, ids, texts, and what they define."""

    def __init__(self, secret: Mapping[str, Any]) -> None:
        named = [cell for cell in secret["cells"] if cell["nbgrader"].get("grade_id")]
        self.by_name = {cell["nbgrader"]["grade_id"]: cell for cell in named}
        self.by_id = {cell["id"]: cell for cell in named}
        self.by_text = {cell["released"].strip(): cell for cell in named}
        self._parameters = next((c for c in secret["cells"] if TAG in c.get("tags", [])), None)
        self.defines = {name: set(names) for name, names in solution_names(secret).items()}

    def parameters_at(self, cells: list[dict[str, Any]]) -> int:
        """The place of the cell of parameters: by its tag, its id or its text; -1 without one."""
        known = self._parameters
        ids = (known["id"], known["released"].strip()) if known else ("", "")
        for number, cell in enumerate(cells):
            same = cell["is_parameters"] or cell["id"] == ids[0] or cell["source"].strip() == ids[1]
            if same and cell["cell_type"] == "code" and not self._is_solution(cell):
                return number
        return -1

    def parameters(self, cell: Mapping[str, Any]) -> Cell:
        """The cell of parameters, as released if it is locked; what it sets is set anew."""
        about = self._parameters["nbgrader"] if self._parameters else {}
        source = self._parameters["released"] if self._parameters and about else cell["source"]
        return Cell(source, is_code=True, name=about.get("grade_id", ""), part="parameters")

    def _is_solution(self, cell: Mapping[str, Any]) -> bool:
        """Whether it is one of the key's answers or tests, whatever its tags say."""
        known = self.find(cell, [])
        return known is not None and known is not self._parameters

    def find(self, cell: Mapping[str, Any], repairs: list[str]) -> dict[str, Any] | None:
        """The key's cell that this one is, if any."""
        for known in (
            self.by_name.get(cell["grade_id"]),
            self.by_id.get(cell["id"]),
            self.by_text.get(cell["source"].strip()),
        ):
            if known is not None and known["cell_type"] == cell["cell_type"]:
                return known
        for name in self._defined_by(cell):
            repairs.append(f"{name}: found by what it defines; its metadata were gone")
            return self.by_name[name]
        return None

    def _defined_by(self, cell: Mapping[str, Any]) -> Iterator[str]:
        if cell["cell_type"] != "code":
            return
        try:
            names = set(defined_names(cell["source"]))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
        for name, expected in self.defines.items():
            if expected and expected <= names:
                yield name


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


def _drop_outputs(given: dict[str, Any]) -> None:
    """Outputs may be large and broken, and nothing is read from them."""
    sheets = given.get("worksheets")
    parts = [given, *(sheets if isinstance(sheets, list) else [])]
    for part in parts:
        cells = part.get("cells") if isinstance(part, dict) else None
        for cell in cells if isinstance(cells, list) else []:
            if isinstance(cell, dict) and "outputs" in cell:
                cell["outputs"] = []


def plain_cells(notebook: Any) -> list[dict[str, Any]]:
    """What is read of a notebook's cells: source, kind, id and grade_id."""
    return [_plain(cell) for cell in notebook.cells]


def _plain(cell: Any) -> dict[str, Any]:
    about = cell.get("metadata", {}).get("nbgrader", {})
    name = about.get("grade_id", "") if isinstance(about, dict) else ""
    return {
        "source": str(cell.source),
        "cell_type": "code" if cell.cell_type == "code" else "markdown",
        "id": str(cell.get("id", "")),
        "grade_id": str(name),
        "is_parameters": TAG in tags(cell),
    }

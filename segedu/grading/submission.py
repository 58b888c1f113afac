"""What a student handed in, laid beside the key.

Its cells may be stripped of all their metadata, reordered, or not what was released at all. What
can be mended is, and is said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segedu.grading.assignment import defined_names
from segedu.grading.keys import solution_names
from segedu.grading.notebook_file import read_cells
from segedu.grading.parameters import TAG, as_code


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


def match(
    cells: list[dict[str, Any]],
    secret: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> Submission:
    """Find which cell of the key each cell of a notebook is, and restore the locked ones.

    What a student wrote in a locked cell stands before it as a cell of their own.

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
            if cell["cell_type"] == "code" and source.split() != cell["source"].split():
                found.append(Cell(cell["source"], is_code=True))  # an import, perhaps an answer
        is_test = bool(about.get("grade")) and not is_solution
        found.append(Cell(source, known["cell_type"] == "code", about["grade_id"], is_test))
    matcher.find_texts(found, repairs)
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
        self._order: dict[str, int] = {}
        for number, cell in enumerate(secret["cells"]):
            for sign in (cell["nbgrader"].get("grade_id"), cell["released"].strip()):
                self._order.setdefault(sign or "", number)
        self._parameters = next((c for c in secret["cells"] if TAG in c.get("tags", [])), None)
        self.defines = {name: set(names) for name, names in solution_names(secret).items()}

    def find_texts(self, cells: list[Cell], repairs: list[str]) -> None:
        """Find texts that answer a question, and have no name, by where they stand."""
        for name, known in self.by_name.items():
            written = [cell.source.strip() for cell in cells if cell.name == name]
            if (
                any(text != known["released"].strip() for text in written)
                or known["cell_type"] == "code"
                or not known["nbgrader"].get("solution")
            ):
                continue
            here = self._order[name]
            places = [self._place(cell) for cell in cells]
            first = max((n for n, p in enumerate(places) if 0 <= p < here), default=-1) + 1
            last = next((n for n in range(first, len(cells)) if places[n] > here), len(cells))
            for number in range(first, last):
                if places[number] < 0 and not cells[number].is_code:
                    cells[number] = replace(cells[number], name=name)
                    gone = "it is not in its cell" if written else "its metadata were gone"
                    repairs.append(f"{name}: found by where it stands; {gone}")

    def _place(self, cell: Cell) -> int:
        """The place in the key of the cell that this one is, by name or by text; -1 if none."""
        return self._order.get(cell.name or cell.source.strip(), -1)

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
            if known is not None and (
                known["cell_type"] == cell["cell_type"] or known["cell_type"] != "code"
            ):
                return known  # a text whose cell has become one of code is a text
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

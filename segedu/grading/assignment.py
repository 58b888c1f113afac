"""An assignment as its author writes it: a folder with one notebook's source and what goes with it.

`NAME/NAME.py` is a jupytext percent script whose cells have nbgrader's metadata, `assignment.yml`
says what holds for all of it, and each file of `mutants/` is a typical wrong answer.
"""

import ast
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import jupytext
import yaml
from nbformat import NotebookNode

from segedu.errors import InputError
from segedu.grading.cells import grade_id, is_manual, is_test, points, role, tags
from segedu.grading.parameters import TAG


def _refuse_no_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InputError(f"limits: {name} is {value!r}; expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a submission may use.

    Attributes:
        cell_seconds: For one cell, or one call from a test.
        notebook_seconds: For all cells together, and again for all tests.
        memory_gb: Of address space; PyTorch's CUDA build takes 3.3 only to be imported.
        processes: Processes and threads at once.
        file_mb: Largest file, and the size of each of the scratch folders.
        output_mb: What a notebook may print; after that its kernel is ended.
    """

    cell_seconds: float = 30
    notebook_seconds: float = 120
    memory_gb: float = 4
    processes: int = 64
    file_mb: int = 64
    output_mb: int = 4

    def __post_init__(self) -> None:
        for item in fields(self):
            _refuse_no_number(item.name, getattr(self, item.name))


@dataclass(frozen=True)
class Assignment:
    """An assignment, read and found consistent.

    Attributes:
        name: Of the folder and of its notebook.
        notebook: With solutions and hidden tests; nothing has been run.
        due: When it must be handed in, with its time zone; None for any time.
        late: What each day of delay costs, as a share of the marks.
        limits: What a submission may use.
        parameters: Names that papermill may set, each with its default.
        mutants: From the sentence that says what was misunderstood to the source of a cell that
            replaces the solution of the same names.
    """

    name: str
    notebook: NotebookNode
    due: datetime | None = None
    late: float = 0.0
    limits: Limits = field(default_factory=Limits)
    parameters: dict[str, Any] = field(default_factory=dict)
    mutants: dict[str, str] = field(default_factory=dict)

    @property
    def questions(self) -> list[NotebookNode]:
        """The cells that give marks, in their order."""
        return [c for c in self.notebook.cells if is_test(c) or is_manual(c)]

    @property
    def total(self) -> float:
        """All marks there are."""
        return sum(points(cell) for cell in self.questions)


def read_assignment(folder: Path) -> Assignment:
    """Read and check the assignment in a folder.

    Raises:
        InputError: If a file is missing or has a fault; the message names it.
    """
    source = folder / f"{folder.name}.py"
    if not source.is_file():
        raise InputError(
            f"{folder}: has no {source.name}; expected an assignment: a folder with a notebook's "
            "source of the same name"
        )
    settings = _settings(folder / "assignment.yml")
    notebook = jupytext.read(source, fmt="py:percent")
    refuse_faults(notebook, source.name)
    _refuse_other_parameters(notebook, settings.get("parameters") or {}, source.name)
    return Assignment(
        name=folder.name, notebook=notebook, mutants=_mutants(folder / "mutants"), **settings
    )


def refuse_faults(notebook: NotebookNode, name: str) -> None:
    """Refuse cells that cannot be graded.

    Raises:
        InputError: If a graded cell has no name, a name stands twice, or points are no number.
    """
    seen: set[str] = set()
    for number, cell in enumerate(notebook.cells, start=1):
        if "nbgrader" not in cell.metadata:
            continue
        where, this = f"{name}, cell {number}", grade_id(cell)
        if not this or this in seen:
            raise InputError(f"{where}: grade_id is {this!r}; expected a name of its own")
        seen.add(this)
        if role(cell, "grade") or role(cell, "task"):
            _refuse_points(cell, f"{where} ({this})")
        if cell.cell_type == "markdown" and role(cell, "grade") != role(cell, "solution"):
            raise InputError(f"{where} ({this}): a text to be marked is both grade and solution")


def _refuse_points(cell: NotebookNode, where: str) -> None:
    value = cell.metadata.nbgrader.get("points")
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise InputError(f"{where}: points are {value!r}; expected a number, 0 or more")


def _refuse_other_parameters(notebook: NotebookNode, given: dict[str, Any], name: str) -> None:
    """The cell tagged parameters and assignment.yml must say the same."""
    cells = [cell for cell in notebook.cells if TAG in tags(cell)]
    if not given and not cells:
        return
    if len(cells) != 1 or cells[0].cell_type != "code" or role(cells[0], "solution"):
        raise InputError(
            f"{name}: {len(cells)} cells are tagged {TAG}, for {sorted(given)} in assignment.yml; "
            "expected one code cell with the defaults that is no solution"
        )
    said = _literals(cells[0].source)
    if said != given:
        raise InputError(
            f"{name}: the cell tagged {TAG} says {said}, assignment.yml {given}; expected the same"
        )
    for cell in notebook.cells:
        if cell.cell_type == "code" and role(cell, "solution"):
            both = sorted(set(defined_names(cell.source)) & set(given))
            if both:
                raise InputError(
                    f"{name} ({grade_id(cell)}): a solution binds the parameter {both}"
                )


def _literals(source: str) -> dict[str, Any]:
    """Names and values of a cell that only binds names to plain values; {} of any other."""
    found = {}
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            return {}
        try:
            found[statement.targets[0].id] = ast.literal_eval(statement.value)
        except ValueError:
            return {}
    return found


def defined_names(source: str) -> list[str]:
    """The names that a cell's code binds at its top level, in their order; imports left out.

    Example:
        >>> defined_names("import math; k = 2; f = lambda x: x")
        ['k', 'f']
    """
    names: dict[str, None] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[statement.name] = None
            continue
        for part in ast.walk(statement):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names[part.id] = None
    return list(names)


def _settings(path: Path) -> dict[str, Any]:
    """What assignment.yml says, checked."""
    if not path.is_file():
        raise InputError(f"{path}: is missing; expected what holds for the whole assignment")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is no YAML: {error}") from error
    known = {"due", "late", "limits", "parameters"}
    if not isinstance(given, dict) or set(given) - known:
        raise InputError(f"{path}: has {sorted(given)}; expected some of {sorted(known)}")
    unknown = set(given.get("limits", {})) - {f.name for f in fields(Limits)}
    if unknown:
        raise InputError(
            f"{path}: limits has {sorted(unknown)}; expected some of "
            f"{sorted(f.name for f in fields(Limits))}"
        )
    for name, value in given.get("limits", {}).items():
        _refuse_no_number(name, value)
    if not isinstance(given.get("parameters") or {}, dict):
        raise InputError(f"{path}: parameters is no mapping; expected names with their defaults")
    settings: dict[str, Any] = {**given, "limits": Limits(**given.get("limits", {}))}
    late = settings.get("late", 0.0)
    if not isinstance(late, int | float) or not 0 <= late <= 1:
        raise InputError(f"{path}: late is {late!r}; expected a share of the marks, in [0, 1]")
    due = settings.get("due")
    if due is not None and (not isinstance(due, datetime) or due.tzinfo is None):
        raise InputError(
            f"{path}: due is {due!r}; expected a time with its zone, such as "
            "2026-12-01T18:00:00+01:00"
        )
    return settings


def _mutants(folder: Path) -> dict[str, str]:
    """Typical wrong answers: the first comment says what was misunderstood."""
    mutants: dict[str, str] = {}
    for path in sorted(folder.glob("*.py")):
        first, _, code = path.read_text(encoding="utf-8").partition("\n")
        if not first.startswith("# ") or not code.strip():
            raise InputError(
                f"{path}: begins with {first!r}; expected a comment that says what was "
                "misunderstood, then the code that does so"
            )
        mutants[first.removeprefix("# ").strip()] = code.strip()
    return mutants

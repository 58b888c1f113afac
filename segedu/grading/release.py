"""From an assignment to two files: the notebook that students get, and the key that they never see.

The student's notebook is what nbgrader's `generate_assignment` makes of the same source: the same
cells with the same checksums, without outputs. Ids are set here, so that they do not change.
"""

import copy
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading.assignment import Assignment
from segedu.grading.cells import (
    HIDDEN_TESTS,
    MARK_SCHEME,
    SOLUTION,
    Region,
    checksum,
    grade_id,
    is_locked,
    is_test,
    regions,
    role,
    stub,
    tags,
    without,
)
from segedu.grading.keys import KEY_SCHEMA
from segedu.grading.parameters import TAG, as_code, own_values
from segedu.notebooks.document import node, notebook_text, own_metadata

SHORTEST_SECRET = 12  # characters of a line that can betray a solution


def released(assignment: Assignment) -> NotebookNode:
    """The student's notebook.

    Raises:
        InputError: If a region stands where it may not, or something secret would be released.
    """
    notebook = copy.deepcopy(assignment.notebook)
    notebook.metadata = own_metadata()
    notebook.metadata["segedu"] = node(assignment=assignment.name)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        _refuse_misplaced(cell)
        if role(cell, "solution"):
            cell.source = stub(cell)
        cell.source = without(without(cell.source, HIDDEN_TESTS), MARK_SCHEME)
        _lock(cell)
        cell["id"] = grade_id(cell) or f"{assignment.name}-{number:02d}"
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"]):
            raise InputError(
                f"grade_id is {cell['id']!r}; expected at most 64 letters, digits, - and _"
            )
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "nbgrader" in cell.metadata and (role(cell, "solution") or is_locked(cell)):
            cell.metadata.nbgrader.update(checksum=checksum(cell), cell_type=cell.cell_type)
    leaks = list(find_leaks(assignment, notebook))
    if leaks:
        raise InputError(f"{assignment.name}: would release what is secret: " + "; ".join(leaks))
    return notebook


def key(assignment: Assignment, *, own_numbers: bool = False) -> dict[str, Any]:
    """All that grading needs: cells with hidden tests and solutions, limits, mutants.

    Args:
        assignment: To be graded.
        own_numbers: Whether each student has a seed of their own.
    """
    cells = [
        {
            "id": new["id"],
            "cell_type": cell.cell_type,
            "source": cell.source,
            "released": new.source,
            "nbgrader": dict(new.metadata.get("nbgrader", {})),
            "tags": tags(cell),
        }
        for cell, new in zip(assignment.notebook.cells, released(assignment).cells, strict=True)
    ]
    return {
        "schema": KEY_SCHEMA,
        "name": assignment.name,
        "due": assignment.due.isoformat() if assignment.due else None,
        "late": assignment.late,
        "limits": asdict(assignment.limits),
        "parameters": assignment.parameters,
        "own_numbers": own_numbers,
        "mutants": assignment.mutants,
        "total": assignment.total,
        "cells": cells,
    }


def write_release(
    assignment: Assignment, release: Path, keys: Path, students: Iterable[str] = ()
) -> tuple[Path, Path]:
    """Write `release/NAME/NAME.ipynb` and `keys/NAME/key.json`, each whole; returns the two paths.

    With students named, each has `release/students/SID/NAME.ipynb` too, with parameters of their
    own, and will be graded with them.

    Raises:
        InputError: If the key would lie within the release, or something is wrong with the source.
    """
    inside, outside = keys.resolve(), release.resolve()
    if inside == outside or outside in inside.parents:
        raise InputError(f"--key {keys} lies in the release {release}; name a folder outside it")
    people = list(students)
    if people and not assignment.parameters:
        raise InputError(f"{assignment.name}: has no parameters, so a roster changes nothing in it")
    notebook, secret = released(assignment), key(assignment, own_numbers=bool(people))
    nbformat.validate(notebook)
    target = release / assignment.name / f"{assignment.name}.ipynb"
    with whole_file(target) as unfinished:
        unfinished.write_text(notebook_text(notebook), encoding="utf-8")
    for student in people:
        own = release / "students" / student / f"{assignment.name}.ipynb"
        with whole_file(own) as unfinished:
            text = notebook_text(_with_own_values(notebook, assignment, student))
            unfinished.write_text(text, encoding="utf-8")
    secret_target = keys / assignment.name / "key.json"
    with whole_file(secret_target) as unfinished:
        unfinished.write_text(json.dumps(secret, indent=1, ensure_ascii=False), encoding="utf-8")
        unfinished.chmod(0o600)
    return target, secret_target


def _with_own_values(notebook: NotebookNode, assignment: Assignment, student: str) -> NotebookNode:
    """A released notebook with a student's values in its cell of parameters."""
    own = copy.deepcopy(notebook)
    for cell in own.cells:
        if TAG in tags(cell):
            cell.source = as_code(own_values(assignment.name, assignment.parameters, student))
            if is_locked(cell):
                cell.metadata.nbgrader.update(checksum=checksum(cell))
    return own


def find_leaks(assignment: Assignment, notebook: NotebookNode) -> Iterator[str]:
    """What in a released notebook gives a solution or a hidden test away, in words.

    Looked through are sources, metadata and attachments. A line of a secret region is found where
    it stands again, if it is long enough to be no chance and does not stand in the open parts too.
    """
    opened = {line.strip() for cell in notebook.cells for line in _open_lines(assignment, cell)}
    secrets = {
        line: (grade_id(cell), region.name)
        for cell in assignment.notebook.cells
        for region in (SOLUTION, HIDDEN_TESTS, MARK_SCHEME)
        for line in _secret_lines(cell, region)
        if line not in opened
    }
    for number, cell in enumerate(notebook.cells, start=1):
        text = json.dumps([cell.metadata, cell.get("attachments", {})], ensure_ascii=False)
        places = {line.strip(): "its source" for line in cell.source.split("\n")}
        for line, (name, kind) in secrets.items():
            place = places.get(line) or ("its metadata" if json.dumps(line)[1:-1] in text else "")
            if place:
                yield f"cell {number} has a line of {name}'s {kind} in {place}: {line[:60]!r}"
        for mark in ("BEGIN SOLUTION", "BEGIN HIDDEN TESTS", "BEGIN MARK SCHEME"):
            if mark in cell.source or mark in text:
                yield f"cell {number} still has a mark {mark}"
        if cell.get("attachments") and is_test(cell):
            yield f"cell {number} of tests has an attachment"


def _open_lines(assignment: Assignment, released_cell: NotebookNode) -> list[str]:
    """Lines of the source that the author wrote outside any secret region, in that same cell."""
    by_id = {grade_id(cell): cell for cell in assignment.notebook.cells if grade_id(cell)}
    original = by_id.get(grade_id(released_cell))
    if original is None or not any(
        regions(original.source, region) for region in (SOLUTION, HIDDEN_TESTS, MARK_SCHEME)
    ):
        return []
    return released_cell.source.split("\n")


def _secret_lines(cell: NotebookNode, region: Region) -> Iterator[str]:
    lines = cell.source.split("\n")
    if region is SOLUTION and role(cell, "solution") and not regions(cell.source, region):
        spans = [range(-1, len(lines) + 1)]  # a whole cell that is a solution
    else:
        spans = regions(cell.source, region)
    for span in spans:
        for line in lines[span.start + 1 : span.stop - 1]:
            if len(line.strip()) >= SHORTEST_SECRET:
                yield line.strip()


def _refuse_misplaced(cell: NotebookNode) -> None:
    """A region in a cell that nbgrader would not look at would be released as it stands."""
    may = {
        SOLUTION: role(cell, "solution"),
        HIDDEN_TESTS: is_test(cell),
        MARK_SCHEME: role(cell, "task"),
    }
    for region, allowed in may.items():
        if regions(cell.source, region) and not allowed:
            raise InputError(
                f"cell {grade_id(cell) or cell.source[:40]!r}: BEGIN {region.name} may stand only "
                f"in {region.allowed}"
            )


def _lock(cell: NotebookNode) -> None:
    """What notebook editors know of what may be changed, as nbgrader says it."""
    if role(cell, "solution"):
        cell.metadata["deletable"] = False
    elif is_locked(cell):
        cell.metadata["deletable"] = False
        cell.metadata["editable"] = False

"""What nbgrader says of a cell, schema 3: its role, its checksum, and the regions to take out.

Source: nbgrader 0.9.6, `nbgrader.utils` and `nbgrader.preprocessors`; a test compares the two.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from segedu.errors import InputError

CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
TEXT_STUB = "YOUR ANSWER HERE"


@dataclass(frozen=True)
class Region:
    """A part of a cell between two lines that contain `BEGIN ...` and `END ...`.

    Attributes:
        name: As its marks have it.
        allowed: In what cells it may stand, in words.
    """

    name: str
    allowed: str


SOLUTION = Region("SOLUTION", "a cell marked as solution")
HIDDEN_TESTS = Region("HIDDEN TESTS", "a cell of tests: marked as grade, not as solution")
MARK_SCHEME = Region("MARK SCHEME", "a cell marked as task")


def role(cell: NotebookNode, name: str) -> bool:
    """Whether nbgrader's metadata say that a cell is `grade`, `solution`, `task`."""
    return bool(cell.metadata.get("nbgrader", {}).get(name, False))


def is_test(cell: NotebookNode) -> bool:
    """Whether a cell holds tests: it is graded by being run."""
    return cell.cell_type == "code" and role(cell, "grade") and not role(cell, "solution")


def is_manual(cell: NotebookNode) -> bool:
    """Whether a person must mark what stands in a cell."""
    return (role(cell, "grade") and role(cell, "solution")) or role(cell, "task")


def is_locked(cell: NotebookNode) -> bool:
    """Whether students may not change a cell."""
    if role(cell, "solution"):
        return False
    return role(cell, "grade") or role(cell, "locked")


def grade_id(cell: NotebookNode) -> str:
    """The cell's name in nbgrader's metadata; "" if it has none."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags in a cell's metadata; none if they are not in the form of tags."""
    found = cell.get("metadata", {}).get("tags", [])
    return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []


def points(cell: NotebookNode) -> float:
    """What the cell is worth."""
    return float(cell.metadata.get("nbgrader", {}).get("points", 0))


def checksum(cell: NotebookNode) -> str:
    """The MD5 of nbgrader over source, type, roles, name and points.

    It tells whether an answer was touched. It is no secret and protects nothing.
    """
    parts = [cell.source, cell.cell_type, role(cell, "grade"), role(cell, "solution")]
    parts += [is_locked(cell), grade_id(cell)]
    if role(cell, "grade"):
        parts.append(points(cell))
    text = "".join(str(part) for part in parts)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def regions(source: str, region: Region) -> list[range]:
    """The lines of each such region, its marks included, as indices from 0.

    Raises:
        InputError: If one begins within another, or does not end.
    """
    found: list[range] = []
    begun: int | None = None
    for number, line in enumerate(source.split("\n")):
        if f"BEGIN {region.name}" in line:
            if begun is not None:
                raise InputError(
                    f"line {number + 1}: a second BEGIN {region.name} before END {region.name}"
                )
            begun = number
        elif f"END {region.name}" in line and begun is not None:
            found.append(range(begun, number + 1))
            begun = None
    if begun is not None:
        raise InputError(f"line {begun + 1}: BEGIN {region.name} has no END {region.name}")
    return found


def without(source: str, region: Region, stub: str = "") -> str:
    """The source with each such region replaced by `stub`, indented as the region was."""
    lines = source.split("\n")
    for span in reversed(regions(source, region)):
        indent = re.match(r"\s*", lines[span.start])[0]  # type: ignore[index]
        lines[span.start : span.stop] = [indent + line for line in stub.split("\n") if stub]
    return "\n".join(lines)


def stub(cell: NotebookNode) -> str:
    """What stands in a solution cell before it is answered."""
    fresh = CODE_STUB if cell.cell_type == "code" else TEXT_STUB
    if regions(cell.source, SOLUTION):
        return without(cell.source, SOLUTION, fresh)
    return fresh

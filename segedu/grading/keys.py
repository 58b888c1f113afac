"""A key, read again: the names that its solutions define, and a submission made of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from segedu.errors import InputError
from segedu.grading.assignment import defined_names
from segedu.notebooks.document import node, own_metadata

KEY_SCHEMA = "segedu.key/1"


def read_key(path: Path) -> dict[str, Any]:
    """A key that `write_release` wrote; `path` is the file or its folder.

    Raises:
        InputError: If there is none, or it is of another kind.
    """
    file = path / "key.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: cannot be read as a key ({error}); expected what `segedu release` wrote"
        ) from error
    if not isinstance(found, dict) or found.get("schema") != KEY_SCHEMA:
        raise InputError(f"{file}: is no key of schema {KEY_SCHEMA}; release the assignment again")
    return found


def answered(secret: Mapping[str, Any], answers: dict[str, str] | None = None) -> NotebookNode:
    """A submission made from a key: each solution cell has its solution, or the answer given.

    Args:
        secret: A key.
        answers: Sources by grade_id; "" is as released.
    """
    answers = answers or {}
    cells = []
    for cell in secret["cells"]:
        about = cell["nbgrader"]
        source = cell["released"]
        if about.get("solution"):
            source = answers.get(about["grade_id"], cell["source"]) or source
        metadata = node(nbgrader=about) if about else node()
        if cell.get("tags"):
            metadata["tags"] = cell["tags"]
        new = node(id=cell["id"], cell_type=cell["cell_type"], source=source, metadata=metadata)
        if cell["cell_type"] == "code":
            new["outputs"], new["execution_count"] = [], None
        cells.append(new)
    return node(nbformat=4, nbformat_minor=5, metadata=own_metadata(), cells=cells)


def solution_names(secret: Mapping[str, Any]) -> dict[str, list[str]]:
    """By each solution cell's grade_id, the names that its solution defines.

    Only these are ever bound to a student's answer.
    """
    return {
        cell["nbgrader"]["grade_id"]: defined_names(cell["source"])
        for cell in secret["cells"]
        if cell["cell_type"] == "code" and cell["nbgrader"].get("solution")
    }

"""Parameters of chapters: read from a file, and held against what each chapter has."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode

from segedu.errors import InputError
from segedu.notebooks.chapters import chapter_name
from segedu.notebooks.document import tags_of

Values = dict[str, Any]


def read_parameters(path: Path, known: Mapping[str, Sequence[str]]) -> dict[str, Values]:
    """What a YAML file gives each chapter: `{"01": {seed: 1}, all: {epochs: 2}}` and the like.

    What stands under "all" goes to each chapter that has a parameter of that name, unless the
    chapter's own entry says otherwise.

    Args:
        path: The file. Its keys are numbers or names of chapters, or "all".
        known: The names of each chapter's parameters.

    Raises:
        InputError: If it is no such file, or names a chapter or a parameter that does not exist.
    """
    for_all: Values = {}
    for_one: dict[str, Values] = {}
    for key, values in _read(path).items():
        if not isinstance(values, dict):
            raise InputError(f"{path}: {key!r} has {values!r}; expected names with values")
        if key == "all":
            everywhere = sorted({name for names in known.values() for name in names})
            _refuse_unknown(path, "no chapter", values, everywhere)
            for_all = values
        else:
            chapter = _chapter(path, str(key), list(known))
            _refuse_unknown(path, chapter, values, known[chapter])
            for_one[chapter] = values
    return {
        chapter: {k: v for k, v in for_all.items() if k in names} | for_one.get(chapter, {})
        for chapter, names in known.items()
    }


def parameter_names(notebook: NotebookNode) -> list[str]:
    """The names that the notebook's cell tagged `parameters` assigns."""
    cells = [cell for cell in notebook.cells if "parameters" in tags_of(cell)]
    return [
        name.id
        for cell in cells
        for statement in ast.parse(cell.source).body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for name in ast.walk(statement)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    ]


def _read(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no YAML file that can be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} has no chapters; expected lines such as 01: {{seed: 1}}")
    return content


def _chapter(path: Path, key: str, known: Sequence[str]) -> str:
    try:
        return chapter_name(key, known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _refuse_unknown(path: Path, where: str, values: Values, known: Sequence[str]) -> None:
    for name in values:
        if name not in known:
            raise InputError(
                f"{path}: {where} has a parameter {name!r}; there are {', '.join(known) or 'none'}"
            )
